//! Kills of the gateway and power cuts of the MCU at random instants of full updates: real time, real processes, terminals.
//!
//! `OTAD_MCU_SOAK` says how many of each. They are made on several gateways side by side, each with a cloud and an MCU of its
//! own: an update waits for its line most of the time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use e2e::gateway::Daemon;
use e2e::mcu::{self, Secondary};
use e2e::{Cloud, Ended, Gateway};
use host_cloud::service::JobId;
use host_mcu_sim::{State, View};
use support::deadline::{Deadline, PATIENCE, now, pass};
use support::note;
use support::proxy::Proxy;

use super::{THING, confirmed, file};

/// Rounds of each test where nothing else is said.
const ROUNDS: u64 = 2;

/// Gateways side by side.
const LANES: u64 = 10;

/// A push takes some three seconds of an update, so that it can be hit.
const BAUD: u32 = 230_400;

/// A download takes some two of them, and the push begins within.
const RATE: u64 = 24 * 1024;

/// A chunk fills the simulated MCU's buffer at most.
const CHUNK_MAX_BYTES: u64 = 384;

/// Blocks of one request.
const WINDOW: u64 = 4;
const BLOCK_BYTES: u64 = 1024;

/// What a round has come to, and what it was in the middle of.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn count(&self, what: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    fn say(&self, what: &str) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts: Vec<String> = counts.iter().map(|(k, n)| format!("{n} {k}")).collect();
        note(&format!("{what}: {}", counts.join(", ")));
    }
}

/// A gateway with its cloud and its MCU, and the versions of both.
struct Lane {
    cloud: Cloud,
    _proxy: Proxy,
    mcu: Secondary,
    gateway: Gateway,
    daemon: Daemon,
    /// An undisturbed update took so long.
    usual_ms: u64,
    updates: u64,
}

impl Lane {
    fn start() -> Self {
        let cloud = Cloud::start();
        let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
        let mcu = Secondary::with(|config| config.timing.baud = Some(BAUD));
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            let device = lines.device();
            device.targets = vec![mcu.target("mcu", 1)];
            device.port = proxy.addr().port();
            device.mqtt = "reconnect_min_ms = 10\nreconnect_max_ms = 100\n".to_owned();
            device.agent = format!(
                "block_size = {BLOCK_BYTES}\nblocks_per_request = {WINDOW}\nrequests_in_flight = 1\n"
            );
        });
        let mut daemon = gateway.run();
        daemon.wait_line("new state [WaitingForJob]");
        proxy.set_rate(Some(RATE));
        let mut lane = Self {
            cloud,
            _proxy: proxy,
            mcu,
            gateway,
            daemon,
            usual_ms: 0,
            updates: 0,
        };
        let begun = now();
        let (job, version) = lane.begin();
        assert_eq!(lane.end(&job).status, "SUCCEEDED", "{}", lane.daemon.log());
        assert_eq!(lane.mcu.runs(), confirmed(&version));
        lane.usual_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
        lane
    }

    /// Begins the next update.
    fn begin(&mut self) -> (JobId, String) {
        self.updates += 1;
        let version = format!("1.1.{}", self.updates);
        let job = self.cloud.update(THING, file(1, &version));
        (job, version)
    }

    /// Waits for the end of an update; what the daemon has logged tells why there is none.
    fn end(&self, job: &JobId) -> Ended {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let now = self.cloud.now(job);
            if !matches!(&*now.status, "QUEUED" | "IN_PROGRESS") {
                return now;
            }
            let log = || format!("{:?}\n{}", self.mcu.view(), self.daemon.log());
            assert!(deadline.left().is_some(), "{job}: {now:?}: {}", log());
            pass(Duration::from_millis(20));
        }
    }

    /// Lets part of an update pass: the same instants every time.
    fn wait_instant(&self, round: u64) {
        let lot = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        pass(Duration::from_millis(lot % self.usual_ms));
    }
}

/// The rounds of a soak, each on one of the lanes.
fn soak(what: &str, round: impl Fn(&mut Lane, u64, &Tally) + Sync) {
    let asked = std::env::var("OTAD_MCU_SOAK").ok();
    let rounds: u64 = asked.map_or(ROUNDS, |text| text.parse().unwrap());
    let lanes = rounds.clamp(1, LANES);
    let tally = Tally::default();
    let rounds_of =
        |lane: u64| -> Range<u64> { lane * rounds / lanes..(lane + 1) * rounds / lanes };
    thread::scope(|scope| {
        for lane in 0..lanes {
            let (tally, round) = (&tally, &round);
            scope.spawn(move || {
                let mut at = Lane::start();
                for number in rounds_of(lane) {
                    round(&mut at, number, tally);
                }
            });
        }
    });
    tally.say(&format!("{rounds} {what}"));
}

/// What the MCU is in the middle of.
fn stage(view: &View, version: &str) -> &'static str {
    let active = view.slots.iter().find(|slot| slot.is_active);
    let runs_new = active.is_some_and(|slot| slot.version == version);
    match (view.state, active) {
        (State::Serving, Some(slot)) if slot.is_confirmed && runs_new => "committed",
        (State::Serving, Some(slot)) if slot.is_confirmed => {
            let marked = view.slots.iter().any(|slot| slot.is_pending);
            if marked { "marked" } else { "before the mark" }
        }
        (State::Serving, Some(_)) => "in test",
        _ => "starting",
    }
}

#[test]
fn kills_of_the_gateway_at_any_instant_end_with_the_right_image() {
    soak("kills of the gateway", |lane, number, tally| {
        let blocks = lane.cloud.stats().blocks;
        let bytes = lane.mcu.view().stats.uploaded_bytes;
        let (job, version) = lane.begin();
        lane.wait_instant(number);
        let at = stage(&lane.mcu.view(), &version);
        lane.daemon.process.kill(PATIENCE).unwrap();
        lane.daemon = lane.gateway.run();
        let ended = lane.end(&job);
        let log = || format!("round {number}: {ended:?}\n{}", lane.daemon.log());
        assert_eq!(ended.status, "SUCCEEDED", "{}", log());
        assert_eq!(lane.mcu.runs(), confirmed(&version), "{}", log());
        // The MCU has kept its session: what was on its way was sent again, and no more. The same goes for the blocks.
        let size = mcu::image(&version).len() as u64;
        let sent = lane.mcu.view().stats.uploaded_bytes - bytes;
        assert!(
            sent <= size + CHUNK_MAX_BYTES,
            "{sent} of {size}, {}",
            log()
        );
        let fetched = lane.cloud.stats().blocks - blocks;
        let most = size.div_ceil(BLOCK_BYTES) + WINDOW;
        assert!(fetched <= most, "{fetched} blocks of {most}, {}", log());
        tally.count(format!("{at} SUCCEEDED"));
    });
}

#[test]
fn power_cuts_of_the_mcu_at_any_instant_end_with_the_right_image() {
    soak("power cuts of the MCU", |lane, number, tally| {
        let (before, _) = lane.mcu.runs();
        let (job, version) = lane.begin();
        lane.wait_instant(number);
        let view = lane.mcu.with_mcu(|mcu, now_ns| {
            let view = mcu.view();
            mcu.power_cut(now_ns);
            view
        });
        let at = stage(&view, &version);
        let ended = lane.end(&job);
        let log = || format!("round {number}, {at}: {ended:?}\n{}", lane.daemon.log());
        let runs = lane.mcu.runs();
        if ended.status == "SUCCEEDED" {
            assert_eq!(runs, confirmed(&version), "{}", log());
        } else {
            // The bootloader takes back what loses power in its test, and nothing else.
            assert!(REVERTED.contains(&&*ended.reason), "{}", log());
            assert_ne!(at, "before the mark", "{}", log());
            assert_eq!(runs, confirmed(&before), "{}", log());
        }
        // That nothing is bricked the next round shows, which begins with what runs now.
        tally.count(format!("{at} {}", ended.status));
    });
}

/// How a job says that the target went back by itself: seen when it came up (OtadErrRolledBack), or by the plugin's
/// self-test.
const REVERTED: [&str; 2] = ["rejected: 0x00000046", "rejected: 0xe8000007"];
