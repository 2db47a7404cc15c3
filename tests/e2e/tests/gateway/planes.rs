//! Image servers that misbehave, and gateways that may not go to them: every update ends, by the same way, by the other
//! one, or with a reason.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use e2e::gateway::Daemon;
use e2e::{Cloud, Ended, Gateway, Update};
use host_cloud::http::{HttpConfig, HttpFault};
use host_cloud::service::Protocol;
use support::image::random_bytes;

const THING: &str = "two-ways";

/// More than the window has at first, so that ranges are under way when others fail.
const SIZE: usize = 512 * 1024;

/// What lets the gateway fetch from this machine.
const ALLOWED: &str = "allow_networks = [\"127.0.0.0/8\", \"::1\"]\n";

const BOTH: [Protocol; 2] = [Protocol::Http, Protocol::Mqtt];

struct Stage {
    cloud: Cloud,
    daemon: Daemon,
    _gateway: Gateway,
    seed: u64,
}

impl Stage {
    /// `tls` is the image server's, `http` are lines of `[http]`.
    fn new(tls: bool, http: &str) -> Self {
        let http = format!("proxy = \"none\"\n{http}");
        Self::at(None, tls, &http, |_| {})
    }

    /// `host` is what the URLs name, `change` is for the daemon's environment.
    fn at(host: Option<&str>, tls: bool, http: &str, change: impl FnOnce(&mut Command)) -> Self {
        let cloud = Cloud::start_with(|config| {
            config.http = Some(HttpConfig {
                plain: !tls,
                host: host.map(str::to_owned),
                ..HttpConfig::new(([127, 0, 0, 1], 0).into())
            });
        });
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            lines.http = format!("roots = [\"credentials/{THING}/root.pem\"]\n{http}");
            lines.device().agent =
                "request_timeout_ms = 200\nprotocols = [\"http\", \"mqtt\"]\n".to_owned();
            lines.target().lines = "version_from = \"none\"\n".to_owned();
        });
        gateway.init(b"first");
        Self {
            daemon: gateway.run_with(change),
            _gateway: gateway,
            cloud,
            seed: 0,
        }
    }

    /// Downloads an image that was not there before.
    fn update(&mut self, protocols: &[Protocol]) -> Ended {
        self.seed += 1;
        let update = Update {
            // No firmware: it is verified and not started.
            file_type: Some(1),
            protocols: protocols.to_vec(),
            ..Update::of(random_bytes(self.seed, SIZE))
        };
        let job = self.cloud.update(THING, update);
        self.cloud.wait_end(&job)
    }

    /// An update with these faults in force, and how many blocks came as messages.
    fn under(&mut self, fault: HttpFault, count: u32, protocols: &[Protocol]) -> (Ended, u64) {
        let before = self.cloud.stats().blocks;
        self.cloud.running().http_faults().set([(fault, count)]);
        let ended = self.update(protocols);
        (ended, self.cloud.stats().blocks - before)
    }
}

/// Everything that the image server can play. First what a connection that stands does not meet.
const FAULTS: [HttpFault; 9] = [
    HttpFault::BrokenTls,
    HttpFault::Expired,
    HttpFault::Status(503),
    HttpFault::Status(404),
    HttpFault::WrongRange,
    HttpFault::Whole,
    HttpFault::Short,
    HttpFault::Long,
    HttpFault::RedirectLoop,
];

#[test]
fn a_fault_that_passes_costs_no_update() {
    let mut stage = Stage::new(true, &format!("{ALLOWED}range_timeout_ms = 1000\n"));
    for fault in FAULTS.into_iter().chain([HttpFault::Slow, HttpFault::Busy]) {
        let (ended, blocks) = stage.under(fault, 2, &[Protocol::Http]);
        assert_eq!(
            ended.status,
            "SUCCEEDED",
            "{fault:?}: {ended:?}\n{}",
            stage.daemon.log()
        );
        assert_eq!(blocks, 0, "{fault:?}");
        assert_eq!(stage.cloud.running().http_faults().left(), [], "{fault:?}");
    }
}

#[test]
fn a_fault_that_stays_makes_way_for_the_stream_or_ends_the_job_with_a_reason() {
    let mut stage = Stage::new(true, ALLOWED);
    for fault in FAULTS.into_iter().chain([HttpFault::RedirectPlain]) {
        let (ended, blocks) = stage.under(fault, u32::MAX, &BOTH);
        assert_eq!(
            ended.status,
            "SUCCEEDED",
            "{fault:?}: {ended:?}\n{}",
            stage.daemon.log()
        );
        assert!(blocks >= 128, "{fault:?}: {blocks}");
        let (ended, blocks) = stage.under(fault, u32::MAX, &[Protocol::Http]);
        assert_eq!(
            (ended.status.as_str(), blocks),
            ("FAILED", 0),
            "{fault:?}: {ended:?}"
        );
        assert!(ended.reason.contains("0x000000"), "{fault:?}: {ended:?}");
    }
    // Nothing of it lasts.
    stage.cloud.running().http_faults().set([]);
    assert_eq!(stage.update(&[Protocol::Http]).status, "SUCCEEDED");
}

/// The gateway may not go where the URL leads.
fn refused(mut stage: Stage, said: &str) {
    let ended = stage.update(&BOTH);
    assert_eq!(
        ended.status,
        "SUCCEEDED",
        "{ended:?}\n{}",
        stage.daemon.log()
    );
    let ended = stage.update(&[Protocol::Http]);
    assert_eq!(ended.status, "FAILED", "{ended:?}");
    assert_eq!(stage.cloud.stats().ranges, 0);
    stage.daemon.wait_said(said);
}

#[test]
fn an_address_of_this_machine_is_refused_unless_it_is_allowed() {
    let stage = Stage::at(Some("127.0.0.1"), true, "proxy = \"none\"\n", |_| {});
    refused(stage, "127.0.0.1 is a loopback address");
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused_once_it_is_resolved() {
    let stage = Stage::new(true, "");
    let url = stage.cloud.running().http_url().unwrap().to_owned();
    assert!(url.starts_with("https://localhost:"), "{url}");
    refused(stage, "is a loopback address");
}

#[test]
fn a_url_without_tls_is_refused() {
    refused(Stage::new(false, ALLOWED), "https");
}

#[test]
fn a_host_that_is_not_in_the_list_is_refused() {
    let http = format!("{ALLOWED}allow_hosts = [\"images.example\"]\n");
    refused(Stage::new(true, &http), "not among the allowed hosts");
}

/// Where images are, by a name that nobody but the proxy knows.
const HOST: &str = "images.example";

/// A proxy that makes a tunnel to `upstream`, whatever it is asked for, and writes down what that was.
struct Tunnels {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    fn start(upstream: Arc<OnceLock<SocketAddr>>) -> Self {
        let (listener, address) = support::net::listen().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        // Ends with the test's process: nobody connects any more.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client may give a connection up before it has asked for anything: another one was ready first.
                let Some(head) = read_head(&client) else {
                    continue;
                };
                let line = head.lines().next().unwrap_or_default().to_owned();
                told.lock().unwrap().push(line);
                let server = TcpStream::connect(upstream.get().unwrap()).unwrap();
                if (&client).write_all(b"HTTP/1.1 200 made\r\n\r\n").is_err() {
                    continue;
                }
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ] {
                    std::thread::spawn(move || {
                        let _ended = std::io::copy(&mut from, &mut to);
                        let _gone = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self {
            port: address.port(),
            asked,
        }
    }
}

/// What a client asks for; none where it went before it had asked, which is not the same as asking for nothing.
fn read_head(mut client: &TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_exact(&mut byte) {
            Ok(()) => head.push(byte[0]),
            Err(_) if head.is_empty() => return None,
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// A gateway with this proxy in its environment, and not a word of it in its configuration.
fn behind(no_proxy: &str) -> (Stage, Tunnels) {
    let upstream = Arc::new(OnceLock::new());
    let tunnels = Tunnels::start(Arc::clone(&upstream));
    let proxy = format!("http://127.0.0.1:{}", tunnels.port);
    let http = "connect_timeout_ms = 2000\n";
    let stage = Stage::at(Some(HOST), true, http, |command| {
        command.env("HTTPS_PROXY", proxy).env("NO_PROXY", no_proxy);
    });
    upstream
        .set(stage.cloud.running().http_addr().unwrap())
        .unwrap();
    (stage, tunnels)
}

#[test]
fn the_proxy_of_the_environment_finds_a_server_that_the_gateway_cannot_name() {
    let (mut stage, tunnels) = behind("");
    let ended = stage.update(&[Protocol::Http]);
    assert_eq!(
        ended.status,
        "SUCCEEDED",
        "{ended:?}\n{}",
        stage.daemon.log()
    );
    let port = stage.cloud.running().http_addr().unwrap().port();
    let asked = tunnels.asked.lock().unwrap();
    assert!(!asked.is_empty());
    let expected = format!("CONNECT {HOST}:{port} HTTP/1.1");
    assert!(asked.iter().all(|line| *line == expected), "{asked:?}");
}

#[test]
fn a_host_that_the_environment_excepts_is_not_looked_for_behind_the_proxy() {
    let (mut stage, tunnels) = behind(HOST);
    let ended = stage.update(&BOTH);
    assert_eq!(
        ended.status,
        "SUCCEEDED",
        "{ended:?}\n{}",
        stage.daemon.log()
    );
    assert_eq!(stage.cloud.stats().ranges, 0);
    assert_eq!(*tunnels.asked.lock().unwrap(), [""; 0]);
}
