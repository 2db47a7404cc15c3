//! Parts that are replaced: how a device hears of jobs, who reads their documents, where an image comes from, who looks
//! at it besides; each once, in the real daemon. And the parts of agent-core by themselves, against the real service.

use std::fs;
use std::sync::mpsc;

use agent_core::document::{Reply, parse_job, parse_reply};
use agent_core::jobs::{Encoding, JobService, News, ThingName, Topic, topic};
use agent_core::stream::OneByOne;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::cloud::Signed;
use e2e::gateway::{Lines, read};
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::fault::{Faults, Verdict};
use host_cloud::service::Outgoing;
use host_crypto::SigningKey;
use host_mqtt::{Connection, ConnectionConfig, Endpoint, MqttTransport, Security, TlsFiles};
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::ports::transport::Transport as _;
use host_runtime::types::Qos;
use serde_json::{Value, json};
use support::deadline::PATIENCE;

const THING: &str = "parted";
const SIZE: usize = 20_000;

/// Wakes of a mailbox that wait: one says that there is something.
const WAKES_MAX: usize = 1;

/// Notices that are kept back in a test; it makes a few.
const NOTICES_MAX: usize = 64;

fn gateway(cloud: &Cloud, change: impl FnOnce(&mut Lines)) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], change);
    gateway.init(&image::program("1.0.0", "", SIZE));
    gateway
}

/// A thing of somebody else's making on the same broker.
struct Peer {
    connection: Connection,
    transport: MqttTransport,
    mailbox: Mailbox,
    woken: mpsc::Receiver<()>,
    token: u64,
}

impl Peer {
    fn new(cloud: &Cloud, name: &str) -> Self {
        let credentials = cloud.thing(name);
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: cloud.port(),
        };
        let files = TlsFiles {
            ca: credentials.root_path,
            certificate: credentials.certificate_path,
            key: credentials.private_key_path,
        };
        let config = ConnectionConfig::new(endpoint, name, Security::Tls(files));
        let (wake, woken) = mpsc::sync_channel(WAKES_MAX);
        let mailbox = Mailbox::new(std::sync::Arc::new(move || {
            // Full: it will look at any rate. Gone: the test is over.
            wake.try_send(()).ok();
        }));
        let connection = cloud.block_on(async { Connection::start(config).unwrap() });
        let transport = connection.attach(name, mailbox.clone(), true).unwrap();
        let mut peer = Self {
            connection,
            transport,
            mailbox,
            woken,
            token: 0,
        };
        peer.wait(|input| matches!(input, Input::Connected { .. }).then_some(()));
        peer
    }

    fn wait<T>(&mut self, mut wanted: impl FnMut(Input) -> Option<T>) -> T {
        loop {
            while let Some(input) = self.mailbox.take() {
                if let Some(found) = wanted(input) {
                    return found;
                }
            }
            self.woken.recv_timeout(PATIENCE).unwrap();
        }
    }

    fn subscribe(&mut self, filters: impl IntoIterator<Item = String>) {
        for filter in filters {
            self.token += 1;
            let token = self.token;
            self.transport.subscribe(token, &filter, Qos::AtLeastOnce);
            self.wait(|input| {
                matches!(input, Input::Done { token: t, .. } if t == token).then_some(())
            });
        }
    }

    fn publish(&mut self, (topic, payload): (String, impl Into<Vec<u8>>)) {
        self.token += 1;
        self.transport
            .publish(self.token, &topic, payload.into(), Qos::AtLeastOnce);
    }

    /// The next message.
    fn message(&mut self) -> (String, Vec<u8>) {
        self.wait(|input| match input {
            Input::Message { topic, payload, .. } => Some((topic, payload.to_vec())),
            _ => None,
        })
    }

    fn stop(self, cloud: &Cloud) {
        cloud.block_on(self.connection.stop());
    }
}

/// The service's own notifications get lost; whoever has the other end knows them.
struct Muted(mpsc::SyncSender<Vec<u8>>);

impl Faults for Muted {
    fn incoming(
        &mut self,
        _: u64,
        _: &host_cloud::service::ThingName,
        _: &str,
        _: &[u8],
    ) -> Verdict {
        Verdict::Pass
    }

    fn outgoing(&mut self, _: u64, message: Outgoing, out: &mut Vec<Outgoing>) {
        if message.topic.ends_with("/jobs/notify-next") {
            self.0.send(message.payload.to_vec()).ok();
        } else {
            out.push(message);
        }
    }
}

#[test]
fn a_job_is_announced_by_another_topic_or_comes_by_it() {
    let (caught, notices) = mpsc::sync_channel(NOTICES_MAX);
    let cloud = Cloud::start_with(|config| config.faults = Box::new(Muted(caught)));
    let gateway = gateway(&cloud, |lines| {
        lines.device().agent = "[[device.notice]]\ntopic = \"site/news\"\n\
             [[device.notice]]\ntopic = \"site/parted/jobs\"\nbrings = \"job\"\n"
            .to_owned();
    });
    let daemon = gateway.run();
    gateway.wait_idle();
    let mut other = Peer::new(&cloud, "announcer");

    let update = |version| {
        let image = image::program(version, "", SIZE);
        cloud.update(THING, Update::of(image))
    };
    let first = update("1.1.0");
    let _lost = notices.recv_timeout(PATIENCE).unwrap();
    assert_eq!(cloud.now(&first).status, "QUEUED");
    other.publish(("site/news".to_owned(), *b"there is something"));
    let ended = cloud.wait_end(&first);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));

    gateway.wait_idle();
    let second = update("1.2.0");
    let document = loop {
        // One said that the first job was over.
        let notice = notices.recv_timeout(PATIENCE).unwrap();
        let reply = parse_reply(&notice);
        if matches!(reply, Ok(Reply::Job(job)) if job.job_id.as_str() == second.as_str()) {
            break notice;
        }
    };
    assert_eq!(cloud.now(&second).status, "QUEUED");
    // A word on a topic that nobody has named is nobody's.
    other.publish(("site/parted/job".to_owned(), document.clone()));
    other.publish(("site/parted/jobs".to_owned(), *b"no job at all"));
    other.publish(("site/parted/jobs".to_owned(), document));
    let ended = cloud.wait_end(&second);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.2.0"));
    other.stop(&cloud);
    daemon.stop();
}

#[test]
fn of_several_parsers_the_first_that_takes_a_job_has_it_and_without_one_the_cloud_hears_so() {
    let cloud = Cloud::start();
    let parser = |own: &str| {
        format!(
            "#!/bin/sh\necho \"{own} $OTAD_JOB\" >> \"$(dirname \"$0\")/asked\"\n\
             if grep -q '\"{own}\"'; then echo '{{\"status\":\"succeeded\",\"reason\":\"{own} done\"}}'; exit 0; fi\n\
             exit 2\n"
        )
    };
    let mut gateway = gateway(&cloud, |_| {});
    gateway.script("blink.sh", &parser("blink"));
    gateway.script("beep.sh", &parser("beep"));
    let hook = |name: &str| {
        let path = gateway.path(name).display().to_string();
        format!("{{ command = [\"{path}\"], deadline_ms = 10000 }}")
    };
    let (blink, beep) = (hook("blink.sh"), hook("beep.sh"));
    gateway.reconfigure(|lines| {
        lines.device().agent = format!("[device.hooks]\ncustom_job = [{blink}, {beep}]\n");
    });
    let daemon = gateway.run();
    for (job, order, status, reason) in [
        ("job-1", "blink", "SUCCEEDED", "blink done"),
        ("job-2", "beep", "SUCCEEDED", "beep done"),
        ("job-3", "dance", "FAILED", "0x0000000c: 0x00000004"),
    ] {
        let job = cloud.job(THING, job, json!({ "order": order }));
        assert_eq!(cloud.wait_end(&job).as_pair(), (status, reason), "{order}");
    }
    let asked = fs::read_to_string(gateway.path("asked")).unwrap();
    let expected = "blink job-1\nblink job-2\nbeep job-2\nblink job-3\nbeep job-3\n";
    assert_eq!(asked, expected);
    daemon.stop();
}

#[test]
fn an_image_comes_by_a_scheme_of_the_operators_own_and_is_verified_all_the_same() {
    let cloud = Cloud::start();
    let mut gateway = gateway(&cloud, |_| {});
    fs::create_dir(gateway.path("images")).unwrap();
    gateway.reconfigure(|lines| {
        lines.trust = "[[download]]\nscheme = \"stick\"\ndirectory = \"images\"\n".to_owned();
    });
    let good = image::program("1.1.0", "", SIZE);
    let mut bad = image::program("1.2.0", "", SIZE);
    let key = cloud.running().code_signing().unwrap().private_key_pem;
    let key = SigningKey::from_pem(&key).unwrap();
    let sign = |bytes: &[u8]| BASE64.encode(key.sign_stream(bytes).unwrap().1);
    let (of_good, of_bad) = (sign(&good), sign(&bad));
    bad[SIZE / 2] ^= 1;
    fs::write(gateway.path("images/good.img"), &good).unwrap();
    fs::write(gateway.path("images/bad.img"), &bad).unwrap();
    let daemon = gateway.run();
    for (job, url, signature, status, reason) in [
        (
            "job-1",
            "stick:///bad.img",
            &of_bad,
            "FAILED",
            "0x000000e3: ",
        ),
        // Not there, like what lies elsewhere: asked for again, then given up.
        (
            "job-2",
            "stick:///../otad.toml",
            &of_good,
            "FAILED",
            "0x00000053: 0x00000194",
        ),
        (
            "job-3",
            "stick:///good.img",
            &of_good,
            "SUCCEEDED",
            "accepted  v1.1.0",
        ),
    ] {
        let document = json!({ "afr_ota": {
            "protocols": ["HTTP"],
            "files": [{
                "filepath": "app", "filesize": SIZE, "fileid": 0, "certfile": "",
                "sig-sha256-ecdsa": signature, "update_data_url": url, "auth_scheme": "none",
            }],
        }});
        let job = cloud.job(THING, job, document);
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.status, status, "{url}: {ended:?}");
        assert!(ended.reason.starts_with(reason), "{url}: {ended:?}");
    }
    assert_eq!(cloud.stats().blocks, 0);
    daemon.stop();
}

#[test]
fn a_check_of_the_operators_own_may_refuse_an_image_and_nothing_else() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, |lines| {
        lines.target().lines = "inspect = { command = [\"./inspect.sh\"] }\n".to_owned();
    });
    gateway.script(
        "inspect.sh",
        "#!/bin/sh\ndir=$(dirname \"$0\")\n\
         head -c \"$OTAD_SIZE\" \"$dir/targets/parted/main/$OTAD_REGION\" | sha256sum | grep -q \"$OTAD_SHA256\" || exit 9\n\
         echo \"$OTAD_JOB $OTAD_FILE $OTAD_VERSION $OTAD_SIGNER\" >> \"$dir/inspected\"\n\
         [ \"$OTAD_VERSION\" = 1.1.0 ] && exit 7\nexit 0\n",
    );
    let record = gateway.target_file("main", "record");
    let before = read(&record);
    let daemon = gateway.run();
    let update = |version, signed| {
        let image = image::program(version, "", SIZE);
        let update = Update {
            signed,
            ..Update::of(image)
        };
        let job = cloud.update(THING, update);
        let ended = cloud.wait_end(&job);
        (job, ended.status, ended.reason)
    };
    // Well signed, and refused: with a code of its own, and nothing is marked for a start.
    let (first, status, reason) = update("1.1.0", Signed::Cloud);
    assert_eq!((&*status, &*reason), ("FAILED", "0x000000de: 0x00000007"));
    assert_eq!(read(&record), before);
    // It would let it through, and is not asked.
    let other = image::program("9.9.9", "", SIZE);
    let (_, status, reason) = update("1.2.0", Signed::Before(other));
    assert_eq!(status, "FAILED");
    assert!(reason.starts_with("0x000000e3: "), "{reason}");
    assert_eq!(read(&record), before);
    let (last, status, reason) = update("1.3.0", Signed::Cloud);
    assert_eq!((&*status, &*reason), ("SUCCEEDED", "accepted  v1.3.0"));
    let asked = fs::read_to_string(gateway.path("inspected")).unwrap();
    let expected = format!("{first} 0 1.1.0 signer\n{last} 0 1.3.0 signer\n");
    assert_eq!(asked, expected);
    daemon.stop();
}

/// As the modular OTA libraries go: start-next, describe the stream, blocks by offset; in both encodings.
#[test]
fn the_parts_of_the_agent_by_themselves_bring_a_file_in_both_encodings() {
    let cloud = Cloud::start();
    let image = image::program("1.1.0", "", SIZE);
    for (name, encoding) in [("cbor", Encoding::Cbor), ("json", Encoding::Json)] {
        let mut peer = Peer::new(&cloud, name);
        let job = cloud.update(name, Update::of(image.clone()));
        let thing = ThingName::new(name).unwrap();
        let mut service = JobService::new(thing.clone(), 7);
        peer.subscribe(service.filters());
        peer.publish(service.start_next());
        let (mut blocks, description) = loop {
            let (from, payload) = peer.message();
            let Some(News::Job(found)) = service.on_message(&from, &payload) else {
                continue;
            };
            assert_eq!(found.job_id.as_str(), job.as_str());
            let document = parse_job(found.document).unwrap();
            let stream = document.stream.clone().unwrap();
            let of = |kind| topic(&thing, kind, stream.as_str());
            let description = of(Topic::StreamDescription(encoding));
            let ask = of(Topic::StreamDescribe(encoding));
            let (_, blocks) = OneByOne::of_job(thing.clone(), document, encoding, 4096).unwrap();
            peer.subscribe([description.clone()].into_iter().chain(blocks.filters()));
            let empty: &[u8] = if encoding == Encoding::Json {
                b"{}"
            } else {
                b"\xa0"
            };
            peer.publish((ask, empty));
            break (blocks, description);
        };
        assert_eq!(cloud.now(&job).status, "IN_PROGRESS");
        let payload = loop {
            let (from, payload) = peer.message();
            if from == description {
                break payload;
            }
        };
        if encoding == Encoding::Json {
            let told: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(told["r"][0]["z"], SIZE, "{told}");
        }
        let mut bytes = Vec::new();
        loop {
            peer.publish(blocks.request());
            loop {
                let (from, payload) = peer.message();
                if let Some(Ok(block)) = blocks.on_message(&from, &payload) {
                    assert_eq!(block.offset, bytes.len() as u64);
                    bytes.extend_from_slice(&block.data);
                    break;
                }
            }
            if !blocks.on_written() {
                break;
            }
        }
        assert!(bytes == image, "another file came in {name}");
        peer.stop(&cloud);
    }
}
