//! The shipped agent in a device: it fits its world and its budget, keeps to its own topics, survives restarts, and
//! does the same again for the same inputs.

use std::sync::OnceLock;

use bytes::Bytes;

use super::*;
use crate::agent::AgentBuild;
use crate::engine::{Budget, Engine, EngineOptions};
use crate::status::AgentLife;
use crate::testing::{
    CountingSeed, FakeState, NoCommands, StepWorkers, StoppedClock, Wire, no_wake,
};
use crate::types::Setting;

/// Compiled once for all tests: a debug build takes seconds for it.
fn shipped() -> Arc<AgentBuild> {
    static BUILD: OnceLock<Arc<AgentBuild>> = OnceLock::new();
    let build = BUILD.get_or_init(|| {
        let engine = Engine::new(&EngineOptions::default()).unwrap();
        let guest = guest_artifacts::guest("agent").unwrap();
        AgentBuild::load(&engine, "built-in", guest.bytes).unwrap()
    });
    Arc::clone(build)
}

struct Gateway {
    device: Device,
    wire: Wire,
    workers: Arc<StepWorkers>,
    now: Context,
    /// Everything that the agent asked the transport for.
    story: Vec<String>,
}

impl Gateway {
    fn new(state: &Arc<FakeState>) -> Self {
        Self::with(state, Vec::new(), None)
    }

    fn with(state: &Arc<FakeState>, settings: Vec<Setting>, park_after_ms: Option<u64>) -> Self {
        let workers = Arc::new(StepWorkers::default());
        let config = DeviceConfig {
            name: "gateway-7".into(),
            agent: shipped(),
            former_agent: None,
            settings,
            targets: Vec::new(),
            topics: vec!["$aws/things/gateway-7/".into()],
        };
        let ports = DevicePorts {
            state: Arc::clone(state) as _,
            workers: Arc::clone(&workers) as _,
            commands: Arc::new(NoCommands),
            clock: Arc::new(StoppedClock),
            seed: Arc::new(CountingSeed::default()),
        };
        let mut prepared = PreparedDevice::new(config, ports, no_wake()).unwrap();
        if let Some(quiet_ms) = park_after_ms {
            prepared.park_after(quiet_ms);
        }
        let wire = Wire::default();
        let mut gateway = Self {
            device: prepared.into_device(Box::new(wire.clone())),
            wire,
            workers,
            now: Context {
                now_ms: 5000,
                wall_s: None,
            },
            story: Vec::new(),
        };
        gateway.device.start(gateway.now).unwrap();
        gateway
    }

    /// Let it run until it waits, every call of the transport going well at once.
    fn settle(&mut self) -> Option<u64> {
        for _ in 0..200 {
            let next = self.device.poll(self.now);
            let calls = std::mem::take(&mut *self.wire.0.lock().unwrap());
            for call in &calls {
                let token = call.split(' ').next().unwrap().parse().unwrap();
                let outcome = Outcome::Nothing;
                self.device.handle(self.now, Input::Done { token, outcome });
            }
            let idle = calls.is_empty() && !self.workers.run_one();
            self.story.extend(calls);
            if idle && next.is_none_or(|at| at > self.now.now_ms) {
                return next;
            }
        }
        panic!("it never settles: {:#?}", self.story);
    }

    fn connect(&mut self) {
        let session_present = false;
        self.device
            .handle(self.now, Input::Connected { session_present });
        self.settle();
    }

    fn message(&mut self, topic: &str, payload: &str) {
        let message = Input::Message {
            topic: format!("$aws/things/gateway-7/{topic}"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: Qos::AtLeastOnce,
        };
        self.device.handle(self.now, message);
        self.settle();
    }

    fn said(&self, words: &str) -> bool {
        self.story.iter().any(|line| line.contains(words))
    }
}

#[test]
fn once_connected_it_asks_for_a_job_and_always_has_a_deadline() {
    let mut gateway = Gateway::new(&Arc::default());
    gateway.settle();
    assert_eq!(gateway.story, [] as [&str; 0]);
    gateway.connect();
    assert!(
        gateway.said("publish $aws/things/gateway-7/jobs/$next/get"),
        "{:#?}",
        gateway.story
    );
    let status = gateway.device.status(gateway.now);
    assert_eq!(
        status.agent.life,
        AgentLife::Running,
        "{:?}",
        status.last_error
    );
    assert_eq!(status.agent.strikes, 0);
    // It waits for a reply, and the reply may be lost.
    assert!(status.wait.unwrap().next_try_in_ms.is_some());
    let memory = usize::try_from(status.agent.memory_bytes).unwrap();
    assert!(memory <= Budget::AGENT.memory_bytes / 2, "{memory} bytes");
}

#[test]
fn a_lost_reply_is_asked_for_again() {
    let mut gateway = Gateway::new(&Arc::default());
    gateway.connect();
    let next = gateway.settle().unwrap();
    gateway.story.clear();
    gateway.now.now_ms = next;
    gateway.settle();
    assert!(gateway.said("jobs/$next/get"), "{:#?}", gateway.story);
}

#[test]
fn a_job_for_a_target_that_is_not_there_ends_with_a_terminal_status() {
    let mut gateway = Gateway::new(&Arc::default());
    gateway.connect();
    let job = r#"{"timestamp":1,"execution":{"jobId":"job-1","status":"QUEUED",
        "queuedAt":1,"lastUpdatedAt":1,"versionNumber":1,"executionNumber":1,"jobDocument":{"afr_ota":{
        "protocols":["MQTT"],"streamname":"AFR_OTA-1","files":[{"filepath":"/x","filesize":1,"fileid":9,
        "certfile":"c","sig-sha256-ecdsa":"MEQCIA==","fileType":0}]}}}}"#;
    gateway.story.clear();
    gateway.message("jobs/$next/get/accepted", job);
    assert!(gateway.said("jobs/job-1/update"), "{:#?}", gateway.story);
    assert_eq!(gateway.device.status(gateway.now).agent.strikes, 0);
}

#[test]
fn whatever_comes_on_its_topics_does_not_break_it() {
    let mut gateway = Gateway::new(&Arc::default());
    gateway.connect();
    let topics = [
        "jobs/$next/get/accepted",
        "jobs/$next/get/rejected",
        "jobs/notify-next",
        "jobs/job-1/update/accepted",
        "jobs/job-1/update/rejected",
        "streams/AFR_OTA-1/data/cbor",
        "streams/AFR_OTA-1/rejected/cbor",
        "",
    ];
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    let payloads = [
        "",
        "{",
        "null",
        "{\"execution\":{}}",
        "\u{0}\u{1}\u{ff}",
        deep.as_str(),
    ];
    for topic in topics {
        for payload in payloads {
            gateway.message(topic, payload);
        }
    }
    let status = gateway.device.status(gateway.now);
    assert_eq!(status.agent.strikes, 0, "{:?}", status.last_error);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let story = || {
        let mut gateway = Gateway::new(&Arc::default());
        gateway.connect();
        gateway.message("jobs/notify-next", r#"{"timestamp":1,"execution":{}}"#);
        for _ in 0..5 {
            if let Some(next) = gateway.settle() {
                gateway.now.now_ms = next;
            }
        }
        (gateway.story, gateway.device.status(gateway.now))
    };
    assert_eq!(story(), story());
}

#[test]
fn a_second_process_starts_from_what_the_first_has_stored() {
    let state = Arc::new(FakeState::default());
    let mut first = Gateway::new(&state);
    first.connect();
    drop(first);
    let mut second = Gateway::new(&state);
    second.connect();
    assert!(second.said("jobs/$next/get"), "{:#?}", second.story);
    let status = second.device.status(second.now);
    assert_eq!(status.agent.strikes, 0, "{:?}", status.last_error);
}

const NO_JOB: &str = r#"{"timestamp":1,"execution":{}}"#;

const MINUTE_MS: u64 = 60_000;

/// A device that asks for a job every hour and is parked after a minute; it was told that there is none.
fn hourly() -> Gateway {
    let interval = Setting {
        key: "poll_interval_ms".into(),
        value: (60 * MINUTE_MS).to_string(),
    };
    let mut gateway = Gateway::with(&Arc::default(), vec![interval], Some(MINUTE_MS));
    gateway.connect();
    gateway.message("jobs/$next/get/accepted", NO_JOB);
    gateway
}

fn parked(gateway: &mut Gateway) {
    gateway.now.now_ms += MINUTE_MS;
    gateway.settle();
    let status = gateway.device.status(gateway.now);
    assert_eq!(status.agent.life, AgentLife::Parked, "{status:#?}");
}

#[test]
fn a_parked_agent_takes_the_job_that_it_is_notified_of() {
    let mut gateway = hourly();
    parked(&mut gateway);
    gateway.story.clear();
    let job = r#"{"timestamp":1,"execution":{"jobId":"job-1","status":"QUEUED",
        "queuedAt":1,"lastUpdatedAt":1,"versionNumber":1,"executionNumber":1,"jobDocument":{"afr_ota":{
        "protocols":["MQTT"],"streamname":"AFR_OTA-1","files":[{"filepath":"/x","filesize":1,"fileid":9,
        "certfile":"c","sig-sha256-ecdsa":"MEQCIA==","fileType":0}]}}}}"#;
    gateway.message("jobs/notify-next", job);
    assert!(gateway.said("jobs/"), "{:#?}", gateway.story);
    // What it has subscribed to it still knows of.
    assert!(!gateway.said("subscribe"), "{:#?}", gateway.story);
    let status = gateway.device.status(gateway.now).agent;
    assert_eq!((status.life, status.strikes), (AgentLife::Running, 0));
}

#[test]
fn a_parked_agent_asks_for_a_job_when_it_would_have_asked_awake() {
    let asks = |park_after_ms| {
        let interval = Setting {
            key: "poll_interval_ms".into(),
            value: (60 * MINUTE_MS).to_string(),
        };
        let mut gateway = Gateway::with(&Arc::default(), vec![interval], park_after_ms);
        gateway.connect();
        gateway.message("jobs/$next/get/accepted", NO_JOB);
        let mut asked_ms = Vec::new();
        while asked_ms.len() < 24 {
            gateway.story.clear();
            let next = gateway.settle().unwrap();
            gateway.now.now_ms = next;
            gateway.settle();
            if gateway.said("jobs/$next/get") {
                asked_ms.push(gateway.now.now_ms);
                gateway.message("jobs/$next/get/accepted", NO_JOB);
            }
        }
        asked_ms
    };
    assert_eq!(asks(Some(MINUTE_MS)), asks(None));
}

#[test]
fn two_days_of_parking_and_waking_leave_nothing_behind() {
    let mut gateway = hourly();
    let mut sizes = Vec::new();
    while gateway.now.now_ms < 48 * 60 * MINUTE_MS {
        parked(&mut gateway);
        let generation = gateway.device.door.lock().journal.generation();
        let (snapshot, _) = gateway.device.slot.snapshot(generation).unwrap();
        assert_eq!(gateway.device.door.lock().tokens.count(), 0);
        let kept_bytes = snapshot.bytes.len();
        let next = gateway.settle().unwrap();
        gateway.now.now_ms = next;
        gateway.settle();
        let memory_bytes = gateway.device.status(gateway.now).agent.memory_bytes;
        sizes.push((kept_bytes, memory_bytes));
        gateway.message("jobs/$next/get/accepted", NO_JOB);
        gateway.message("jobs/notify-next", NO_JOB);
    }
    assert!(sizes.len() >= 45, "{}", sizes.len());
    // The first time it may not know yet how long answers take.
    assert!(sizes[1..].iter().all(|size| *size == sizes[1]), "{sizes:?}");
    assert!(sizes[0].0 <= 1024, "{sizes:?}");
}
