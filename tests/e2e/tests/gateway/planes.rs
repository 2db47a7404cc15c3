//! Image servers that misbehave, and gateways that may not go to them: every update ends, by the same way, by the other
//! one, or with a reason.

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
        let cloud = Cloud::start_with(|config| {
            config.http = Some(HttpConfig {
                plain: !tls,
                ..HttpConfig::new(([127, 0, 0, 1], 0).into())
            });
        });
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            lines.http =
                format!("roots = [\"credentials/{THING}/root.pem\"]\nproxy = \"none\"\n{http}");
            lines.device().agent =
                "request_timeout_ms = 200\nprotocols = [\"http\", \"mqtt\"]\n".to_owned();
            lines.target().lines = "version_from = \"none\"\n".to_owned();
        });
        gateway.init(b"first");
        Self {
            daemon: gateway.run(),
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
    for fault in FAULTS.into_iter().chain([HttpFault::Slow]) {
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
fn refused(tls: bool, http: &str, said: &str) {
    let mut stage = Stage::new(tls, http);
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
    let log = stage.daemon.log();
    assert!(log.contains(said), "{log}");
}

#[test]
fn a_url_that_leads_to_this_machine_is_refused_unless_it_is_allowed() {
    refused(true, "", "127.0.0.1");
}

#[test]
fn a_url_without_tls_is_refused() {
    refused(false, ALLOWED, "https");
}

#[test]
fn a_host_that_is_not_in_the_list_is_refused() {
    refused(
        true,
        &format!("{ALLOWED}allow_hosts = [\"images.example\"]\n"),
        "not among the allowed hosts",
    );
}
