//! Kills at random instants of updates: of the daemon, of the cloud in a box, of a broker between them. Every update ends
//! SUCCEEDED with the right image, and a kill costs at most one window of blocks.
//!
//! `OTAD_KILLS` says how many kills each test makes, `OTAD_SEED` where its random numbers begin.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::gateway::{Daemon, read};
use e2e::{Cloud, Ended, Gateway, Update, image};
use host_cloud::BrokerConfig;
use host_cloud::service::JobId;
use serde_json::Value;
use support::binary::otad_command;
use support::deadline::{Deadline, PATIENCE, now, pass};
use support::mosquitto::Mosquitto;
use support::note;
use support::process::Process;
use support::proxy::Proxy;

const THING: &str = "survivor";

/// 128 blocks of 4 KiB.
const SIZE: usize = 512 * 1024;
const BLOCKS: u64 = (SIZE / 4096) as u64;

/// Blocks of one request, as `blocks_per_request` has it by default.
const WINDOW: u64 = 31;

/// Kills of each test where nothing else is said: all stages would take too long for every run.
const KILLS: u64 = 4;

/// Fast enough that an update takes a second, slow enough that a download can be hit.
const RATE: u64 = 2 * 1024 * 1024;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// xorshift64*: the same seed, the same instants.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

/// Moments of an update behind the one at which the target takes the job's file; after each a random delay. The host's
/// own lines: those of the agent are limited, and it may have said a lot.
const MOMENTS: [&str; 8] = [
    "main: creating -> receiving",
    "main: receiving -> closed",
    "main: closed -> verified",
    "main: verified -> installed",
    "main: installed -> activating",
    "main: activating -> activated",
    "main: activated -> committing",
    "main: committing -> committed",
];

/// What the kills cost.
#[derive(Default)]
struct Tally {
    what: &'static str,
    /// Where the target was last before each kill.
    states: BTreeMap<String, u64>,
    /// Blocks fetched more than once, for each update.
    twice: Vec<u64>,
    /// From the start of what was killed to the end of the update, in milliseconds.
    ended_ms: Vec<u64>,
    /// From the start of a killed daemon to the next block of a download that it broke off, in milliseconds.
    resumed_ms: Vec<u64>,
    /// What the daemons of each update have had written to the disk, in thousandths of the image.
    written: Vec<u64>,
}

impl Tally {
    fn state(&mut self, log: &str) {
        let state = log
            .rsplit_once(" -> ")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .unwrap_or("none");
        *self.states.entry(state.to_owned()).or_default() += 1;
    }

    fn say(&mut self) {
        let states: Vec<String> = self
            .states
            .iter()
            .map(|(s, n)| format!("{s} {n}"))
            .collect();
        let middle = |list: &mut Vec<u64>| {
            list.sort_unstable();
            (list[list.len() / 2], *list.last().unwrap())
        };
        let (twice, twice_max) = middle(&mut self.twice);
        let (ended, ended_max) = middle(&mut self.ended_ms);
        note(&format!(
            "{}: {} kills, in {}; blocks fetched twice: median {twice}, most {twice_max} of {BLOCKS}; \
             from the restart to the end of the update: median {ended} ms, most {ended_max} ms",
            self.what,
            self.twice.len(),
            states.join(", "),
        ));
        if !self.resumed_ms.is_empty() {
            let (resumed, resumed_max) = middle(&mut self.resumed_ms);
            note(&format!(
                "from the start of the daemon to the next block: median {resumed} ms, most {resumed_max} ms, of {}",
                self.resumed_ms.len()
            ));
        }
        if !self.written.is_empty() {
            let (written, written_max) = middle(&mut self.written);
            note(&format!(
                "written to the disk, in whole pages: median {written} and most {written_max} thousandths of the image"
            ));
        }
    }
}

/// The images of one soak, one for each update.
fn image_of(update: u64) -> (String, Vec<u8>) {
    let version = format!("1.0.{update}");
    let bytes = image::program(&version, "", SIZE);
    (version, bytes)
}

/// Waits for an instant of an update: in the download of every other one, else at one moment after the other.
fn wait_instant(
    random: &mut Random,
    update: u64,
    (cloud, job): (&Cloud, &str),
    before: u64,
    daemon: &mut Daemon,
) {
    if update % 2 == 1 {
        let blocks = random.below(BLOCKS);
        let deadline = Deadline::after(PATIENCE);
        while cloud.stats().blocks - before < blocks {
            assert!(deadline.left().is_some(), "no block {blocks}");
            pass(Duration::from_micros(200));
        }
        return;
    }
    wait_moment(random, update / 2, job, daemon);
}

/// Waits for one of the moments, and a random time more.
fn wait_moment(random: &mut Random, number: u64, job: &str, daemon: &mut Daemon) {
    let place = usize::try_from(number).unwrap() % MOMENTS.len();
    // The log is that of former jobs too.
    daemon.wait_line(&format!("takes the file of job {job}"));
    daemon.wait_line(MOMENTS[place]);
    pass(Duration::from_millis(random.below(60)));
}

fn millis(since: Instant) -> u64 {
    u64::try_from((now() - since).as_millis()).unwrap()
}

/// Waits for the end of a job; what the daemon has logged tells why there is none.
fn wait_end((cloud, job): (&Cloud, &JobId), daemon: &Daemon) -> Ended {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let now = cloud.now(job);
        if !matches!(&*now.status, "QUEUED" | "IN_PROGRESS") {
            return now;
        }
        assert!(
            deadline.left().is_some(),
            "{job}: {now:?}: {}",
            daemon.log()
        );
        pass(Duration::from_millis(10));
    }
}

/// Waits until the service sends a block more than `sent`; false if the job ends without.
fn wait_resumed((cloud, job): (&Cloud, &JobId), sent: u64) -> bool {
    let deadline = Deadline::after(PATIENCE);
    while cloud.stats().blocks == sent {
        if !matches!(&*cloud.now(job).status, "QUEUED" | "IN_PROGRESS") {
            return false;
        }
        assert!(deadline.left().is_some(), "no block after {sent}");
        pass(Duration::from_millis(1));
    }
    true
}

/// Bytes that a process has had written to the disk, as the kernel counts: each page of the cache that it makes dirty.
/// None on a file system without a disk.
fn written(daemon: &Daemon) -> Option<u64> {
    let counts = fs::read_to_string(format!("/proc/{}/io", daemon.process.id())).ok()?;
    let count = counts
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?;
    count.parse().ok().filter(|bytes| *bytes > 0)
}

/// The image of this version runs, byte for byte.
fn check_runs(gateway: &Gateway, version: &str, bytes: &[u8]) {
    let slots = ["slot-a", "slot-b"].map(|slot| gateway.target_file("main", slot));
    assert!(
        slots.iter().any(|slot| read(slot) == bytes),
        "{version} is in no slot"
    );
    // It asks its target when it starts; a kill may have been the last thing.
    gateway.wait_status(version, |status| {
        let target = &status["devices"][0]["targets"][0];
        target["running_version"] == version && target["image_state"] == "valid"
    });
}

/// The newest job of the gateway's own history.
fn last_job(gateway: &Gateway) -> Value {
    let history = gateway.expect_verb(&["history", "--limit", "1", "--json"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    history["jobs"][0].clone()
}

#[test]
fn a_daemon_killed_at_any_instant_of_an_update_ends_it_with_the_right_image() {
    let mut random = Random(number("OTAD_SEED", 0x5eed));
    let cloud = Cloud::start();
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    proxy.set_rate(Some(RATE));
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let device = lines.device();
        device.port = proxy.addr().port();
        device.mqtt = "reconnect_min_ms = 10\nreconnect_max_ms = 100\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut tally = Tally {
        what: "otad killed",
        ..Tally::default()
    };
    let mut daemon = gateway.run();
    let mut written_before = written(&daemon);
    for update in 1..=number("OTAD_KILLS", KILLS) {
        let (version, bytes) = image_of(update);
        let before = cloud.stats().blocks;
        let job = cloud.update(THING, Update::of(bytes.clone()));
        wait_instant(
            &mut random,
            update,
            (&cloud, job.as_str()),
            before,
            &mut daemon,
        );
        let written_by_it = written(&daemon).zip(written_before);
        daemon.process.kill(PATIENCE).unwrap();
        proxy.cut();
        tally.state(&daemon.log());
        let sent = cloud.stats().blocks;
        let started = now();
        daemon = gateway.run();
        if update % 2 == 1 && wait_resumed((&cloud, &job), sent) {
            tally.resumed_ms.push(millis(started));
        }
        let ended = wait_end((&cloud, &job), &daemon);
        let wanted = format!("accepted  v{version}");
        assert_eq!(
            ended.as_pair(),
            ("SUCCEEDED", wanted.as_str()),
            "{}",
            daemon.log()
        );
        tally.ended_ms.push(millis(started));
        check_runs(&gateway, &version, &bytes);
        written_before = written(&daemon);
        if let (Some((until, from)), Some(then)) = (written_by_it, written_before) {
            tally
                .written
                .push((until - from + then) * 1000 / bytes.len() as u64);
        }
        let twice = cloud.stats().blocks - before - BLOCKS;
        assert!(
            twice <= WINDOW,
            "{twice} blocks were fetched twice, a window has {WINDOW}: {}",
            daemon.log()
        );
        tally.twice.push(twice);
        let kept = last_job(&gateway);
        assert_eq!(kept["job_id"], job.as_str(), "{kept}");
        assert!(kept["restarts"].as_u64().unwrap() <= 1, "{kept}");
    }
    tally.say();
    daemon.stop();
}

/// A broker between cloud and gateway is killed and comes back.
#[test]
fn a_broker_killed_at_any_instant_of_an_update_delays_it_and_nothing_else() {
    let Some(mut broker) = Mosquitto::start(None).unwrap() else {
        return;
    };
    let mut random = Random(number("OTAD_SEED", 0x5eed));
    let url = format!("mqtt://{}", broker.addr()).parse().unwrap();
    let cloud = Cloud::start_with(|config| {
        config.tls = None;
        config.broker = Some(BrokerConfig::new(url));
    });
    cloud.wait_broker();
    let proxy = Proxy::start(broker.addr()).unwrap();
    proxy.set_rate(Some(RATE));
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let device = lines.device();
        device.port = proxy.addr().port();
        device.mqtt = "reconnect_min_ms = 10\nreconnect_max_ms = 100\ntls = false\n".to_owned();
        // What is asked of a cloud that has no broker is lost.
        device.agent = "request_timeout_ms = 2000\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut tally = Tally {
        what: "mosquitto killed",
        ..Tally::default()
    };
    let mut daemon = gateway.run();
    for update in 1..=number("OTAD_KILLS", KILLS) {
        let (version, bytes) = image_of(update);
        let before = cloud.stats().blocks;
        let job = cloud.update(THING, Update::of(bytes.clone()));
        wait_instant(
            &mut random,
            update,
            (&cloud, job.as_str()),
            before,
            &mut daemon,
        );
        broker.kill().unwrap();
        tally.state(&daemon.log());
        broker.start_again().unwrap();
        let started = now();
        let ended = wait_end((&cloud, &job), &daemon);
        let wanted = format!("accepted  v{version}");
        assert_eq!(
            ended.as_pair(),
            ("SUCCEEDED", wanted.as_str()),
            "{}",
            daemon.log()
        );
        tally.ended_ms.push(millis(started));
        check_runs(&gateway, &version, &bytes);
        let twice = cloud.stats().blocks - before - BLOCKS;
        assert!(
            twice <= WINDOW,
            "{twice} blocks were fetched twice, a window has {WINDOW}: {}",
            daemon.log()
        );
        tally.twice.push(twice);
        cloud.wait_broker();
    }
    tally.say();
    daemon.stop();
}

/// A cloud in a box as a process, always on the same directory.
struct CloudProcess {
    dir: PathBuf,
    process: Process,
    port: u16,
}

impl CloudProcess {
    fn start(dir: PathBuf) -> Self {
        let mut command = otad_command();
        command.args(["cloud", "--port", "0", "--dir"]).arg(&dir);
        let mut process = Process::start("otad cloud", command).unwrap();
        let line = process.wait_line("endpoint ", PATIENCE).unwrap();
        let port = line.rsplit_once(':').unwrap().1.trim().parse().unwrap();
        Self { dir, process, port }
    }

    fn killed(self) -> Self {
        self.process.kill(PATIENCE).unwrap();
        Self::start(self.dir)
    }

    fn update(&self, verb: &str, rest: &[&str]) -> Command {
        let mut command = otad_command();
        command
            .args(["update", verb, "--json", "--cloud"])
            .arg(&self.dir)
            .args(rest);
        command
    }

    fn create(&self, update: u64, image: &str) {
        let id = update.to_string();
        let rest = ["--thing", THING, "--file", image, "--job-id", &id];
        let output = self.update("create", &rest).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Status of an update, in whatever place the answer has it.
    fn status(&self, update: u64) -> String {
        let job = format!("AFR_OTA-{update}");
        let output = self.update("show", &[&job]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let status = &shown["executions"][0]["status"];
        status
            .as_str()
            .unwrap_or_else(|| panic!("{shown}"))
            .to_owned()
    }

    fn wait_end(&self, update: u64, daemon: &Daemon) {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.status(update).as_str() {
                "SUCCEEDED" => return,
                "QUEUED" | "IN_PROGRESS" => {
                    assert!(
                        deadline.left().is_some(),
                        "{update} has not ended: {}",
                        daemon.log()
                    );
                }
                other => panic!("{update}: {other}: {}", daemon.log()),
            }
            pass(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_cloud_killed_at_any_instant_of_an_update_delays_it_and_nothing_else() {
    let mut random = Random(number("OTAD_SEED", 0x5eed));
    let dir = support::temp_dir("killed-cloud").unwrap();
    let home = dir.path().join("cloud");
    let (gateway, proxy) = {
        // Only for its certificates.
        let cloud = Cloud::start_with(|config| config.dir = home.clone());
        let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            let device = lines.device();
            device.port = proxy.addr().port();
            device.mqtt = "reconnect_min_ms = 10\nreconnect_max_ms = 100\n".to_owned();
            device.agent = "request_timeout_ms = 2000\n".to_owned();
        });
        (gateway, proxy)
    };
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut cloud = CloudProcess::start(home);
    proxy.set_upstream(([127, 0, 0, 1], cloud.port).into());
    proxy.set_rate(Some(RATE));
    let mut tally = Tally {
        what: "otad cloud killed",
        ..Tally::default()
    };
    let mut daemon = gateway.run();
    for update in 1..=number("OTAD_KILLS", KILLS) {
        let (version, bytes) = image_of(update);
        let place = dir.path().join(format!("{version}.img"));
        fs::write(&place, &bytes).unwrap();
        cloud.create(update, place.to_str().unwrap());
        wait_moment(
            &mut random,
            update,
            &format!("AFR_OTA-{update}"),
            &mut daemon,
        );
        tally.state(&daemon.log());
        cloud = cloud.killed();
        proxy.set_upstream(([127, 0, 0, 1], cloud.port).into());
        let started = now();
        cloud.wait_end(update, &daemon);
        tally.ended_ms.push(millis(started));
        check_runs(&gateway, &version, &bytes);
        let deadline = Deadline::after(PATIENCE);
        let kept = loop {
            let kept = last_job(&gateway);
            if kept["status"] == "SUCCEEDED" {
                break kept;
            }
            assert!(deadline.left().is_some(), "{kept}");
            pass(Duration::from_millis(20));
        };
        let twice = kept["blocks_twice"].as_u64().unwrap();
        assert!(twice <= WINDOW, "{kept}");
        tally.twice.push(twice);
    }
    tally.say();
    daemon.stop();
}
