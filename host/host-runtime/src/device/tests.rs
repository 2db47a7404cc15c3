//! A device with an agent on strings: tokens, restarts, the connection, deadlines, commands, limits.

use std::sync::Mutex;

use bytes::Bytes;

use super::host::{OPERATIONS_MAX, REFUSALS_MAX};
use super::prepare::check;
use super::*;
use crate::agent::{
    AgentBuild, AgentStatus, ApplicationEvent, BACKOFF_MIN_MS, FormerAgent, Outside,
    STRIKES_OF_A_JOB_MAX, Saved, Turn,
};
use crate::engine::GuestFault;
use crate::mailbox::{EVENT_MESSAGES_MAX, MESSAGES_MAX};
use crate::ports::state_dir::StateDir;
use crate::status::AgentLife;
use crate::testing::{
    CountingSeed, FakeState, NoCommands, StepWorkers, StoppedClock, Strings, Wire, blob, changed,
    idle, no_wake, puppet, trap,
};
use crate::types::Setting;

mod pace;
mod park;
mod swap;

/// A device and all that a test may pull at.
struct Bench {
    state: Arc<FakeState>,
    workers: Arc<StepWorkers>,
    wire: Wire,
    strings: Arc<Mutex<Strings>>,
    device: Device,
    now: Context,
}

impl Bench {
    /// A device that has been started.
    fn new() -> Self {
        let mut bench = Self::prepared(Arc::default());
        bench.device.start(bench.now).unwrap();
        bench.seen();
        bench
    }

    fn prepared(state: Arc<FakeState>) -> Self {
        Self::prepared_with(state, |_| {})
    }

    fn prepared_with(state: Arc<FakeState>, change: impl FnOnce(&mut PreparedDevice)) -> Self {
        Self::of(state, puppet(), None, change)
    }

    fn of(
        state: Arc<FakeState>,
        (agent, strings): (Arc<AgentBuild>, Arc<Mutex<Strings>>),
        former_agent: Option<FormerAgent>,
        change: impl FnOnce(&mut PreparedDevice),
    ) -> Self {
        let workers = Arc::new(StepWorkers::default());
        let config = DeviceConfig {
            name: "gateway-7".into(),
            agent,
            former_agent,
            settings: vec![Setting {
                key: "block_size".into(),
                value: "4096".into(),
            }],
            targets: Vec::new(),
            topics: vec!["$aws/things/gateway-7/".into()],
        };
        let ports = DevicePorts {
            state: Arc::clone(&state) as _,
            workers: Arc::clone(&workers) as _,
            commands: Arc::new(NoCommands),
            clock: Arc::new(StoppedClock),
            seed: Arc::new(CountingSeed::default()),
        };
        let mut prepared = PreparedDevice::new(config, ports, no_wake()).unwrap();
        change(&mut prepared);
        let wire = Wire::default();
        Self {
            state,
            workers,
            device: prepared.into_device(Box::new(wire.clone())),
            wire,
            strings,
            now: Context {
                now_ms: 1000,
                wall_s: None,
            },
        }
    }

    /// The same state directory under a new process.
    fn restarted(&self) -> Self {
        Self::prepared(Arc::clone(&self.state))
    }

    /// From now on every event is answered like this.
    fn react(
        &self,
        react: impl FnMut(&mut dyn Outside, &Event) -> Result<Turn, GuestFault> + Send + 'static,
    ) {
        self.strings.lock().unwrap().react = Box::new(react);
    }

    /// What the agent saw since the last look.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.strings.lock().unwrap().seen)
    }

    fn handle(&mut self, input: Input) {
        self.device.handle(self.now, input);
    }

    fn command(&mut self, command: Command) -> Result<(), Failure> {
        let answer = Arc::new(Mutex::new(None));
        let told = Arc::clone(&answer);
        self.handle(Input::Command {
            command,
            reply: Some(Box::new(move |result| {
                assert!(
                    told.lock().unwrap().replace(result).is_none(),
                    "two replies"
                );
            })),
        });
        answer.lock().unwrap().take().expect("a reply")
    }

    /// Poll and work until there is nothing more to do now; returns the next wake.
    fn settle(&mut self) -> Option<u64> {
        for _ in 0..1000 {
            let next = self.device.poll(self.now);
            if !self.workers.run_one() && next.is_none_or(|at| at > self.now.now_ms) {
                return next;
            }
        }
        panic!("it never settles");
    }

    fn wire(&self) -> Vec<String> {
        std::mem::take(&mut *self.wire.0.lock().unwrap())
    }
}

fn done(token: u64) -> Input {
    Input::Done {
        token,
        outcome: Outcome::Nothing,
    }
}

fn message(size: usize) -> Input {
    Input::Message {
        topic: "$aws/things/gateway-7/x".into(),
        payload: Bytes::from(vec![b'x'; size]),
        qos: Qos::AtMostOnce,
    }
}

const TOPIC: &str = "$aws/things/gateway-7/jobs/get";

#[test]
fn a_new_device_starts_from_nothing_and_a_restarted_one_from_its_journal() {
    let mut bench = Bench::new();
    let first = bench.strings.lock().unwrap().starts[0].clone();
    assert_eq!(first.saved, Saved::None);
    assert_eq!(first.schema, 3);
    assert_eq!(first.config.device, "gateway-7");
    assert_eq!(first.config.settings[0].key, "block_size");
    bench.react(|outside, _| {
        outside.journal_store(blob("phases"));
        Ok(idle())
    });
    bench.handle(message(1));
    bench.react(|_, _| Ok(idle()));
    bench.settle();
    assert_eq!(bench.seen()[1], "Done { token: 1, outcome: Nothing }");
    let mut again = bench.restarted();
    again.device.start(again.now).unwrap();
    assert_eq!(again.seen(), ["start from journal phases"]);
}

#[test]
fn messages_that_wait_are_told_together_and_pass_nothing() {
    let mut bench = Bench::new();
    let mailbox = bench.device.mailbox();
    for size in [1, 2, 3] {
        mailbox.send(message(size));
    }
    mailbox.send(Input::TargetRestarted(4));
    mailbox.send(message(4));
    bench.settle();
    let sizes: Vec<String> = bench.seen().iter().map(|line| lengths(line)).collect();
    assert_eq!(sizes, ["1 2 3", "TargetRestarted(4)", "4"]);

    // No more in a poll than other tasks can wait for.
    let count = INPUTS_PER_POLL + 1;
    for _ in 0..count {
        mailbox.send(message(1));
    }
    bench.device.poll(bench.now);
    assert_eq!(mailbox.len(), 1);
    bench.settle();
    let events = bench.seen();
    assert_eq!(events.len(), count.div_ceil(EVENT_MESSAGES_MAX));
    let told: usize = events
        .iter()
        .map(|line| line.matches("Message {").count())
        .sum();
    assert_eq!(told, count);
}

/// The payloads of messages as their lengths; any other line as it is.
fn lengths(line: &str) -> String {
    let Some(messages) = line.strip_prefix("Messages(") else {
        return line.to_owned();
    };
    let payloads = messages.split("payload: [").skip(1);
    let lengths = payloads.map(|rest| rest.split(']').next().unwrap_or("").split(',').count());
    lengths.map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_token_ends_exactly_once() {
    let mut bench = Bench::new();
    bench.react(|outside, _| {
        outside.publish(TOPIC.into(), b"{}".to_vec(), Qos::AtLeastOnce);
        Ok(idle())
    });
    bench.handle(message(1));
    assert_eq!(
        bench.wire(),
        ["1 publish $aws/things/gateway-7/jobs/get 2 bytes"]
    );
    bench.react(|_, _| Ok(idle()));
    bench.seen();
    for token in [1, 1, 2, 0] {
        bench.handle(done(token));
    }
    assert_eq!(bench.seen(), ["Done { token: 1, outcome: Nothing }"]);
}

#[test]
fn an_http_request_ends_with_its_response_or_with_a_failure_never_with_both() {
    let mut bench = Bench::new();
    bench.react(|outside, _| {
        outside.http_get("https://x/y".into(), 4096, 100);
        Ok(idle())
    });
    bench.handle(message(1));
    assert_eq!(bench.wire(), ["1 get https://x/y 4096+100"]);
    bench.react(|_, _| Ok(idle()));
    bench.seen();
    let response = || Input::HttpResponse {
        token: 1,
        status: 206,
        total: Some(9),
        body: Bytes::from_static(b"abc"),
    };
    bench.handle(response());
    bench.handle(response());
    bench.handle(done(1));
    let seen = bench.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("HttpResponse { token: 1"), "{seen:?}");
}

#[test]
fn calls_that_are_not_allowed_end_by_event_and_reach_nobody() {
    type Call = Box<dyn Fn(&mut dyn Outside) + Send>;
    let publish = |topic: &str, size: usize| -> Call {
        let topic = topic.to_owned();
        Box::new(move |outside| {
            outside.publish(topic.clone(), vec![0; size], Qos::AtMostOnce);
        })
    };
    let get = |url: String, offset: u64, length: u32| -> Call {
        Box::new(move |outside| {
            outside.http_get(url.clone(), offset, length);
        })
    };
    let filter = |filter: &str| -> Call {
        let filter = filter.to_owned();
        Box::new(move |outside| {
            outside.subscribe(filter.clone(), Qos::AtLeastOnce);
        })
    };
    let own = "$aws/things/gateway-7/";
    let rows: Vec<(&str, Call, u8)> = vec![
        (
            "another thing",
            publish("$aws/things/gateway-70/x", 1),
            0xd0,
        ),
        ("no prefix", publish("status", 1), 0xd0),
        ("wildcard", publish(&format!("{own}+"), 1), 0xd0),
        ("control character", publish(&format!("{own}a\0"), 1), 0xd0),
        (
            "long topic",
            publish(&format!("{own}{}", "x".repeat(299)), 1),
            0xd1,
        ),
        ("payload", publish(TOPIC, 128 * 1024 + 1), 0xd1),
        ("all topics", filter("#"), 0xd0),
        ("all things", filter("$aws/things/+/jobs/notify-next"), 0xd0),
        ("empty range", get("https://x".into(), 0, 0), 0xd0),
        ("overflow", get("https://x".into(), u64::MAX, 1), 0xd0),
        (
            "long range",
            get("https://x".into(), 0, 128 * 1024 + 1),
            0xd1,
        ),
        ("long URL", get("x".repeat(8 * 1024 + 1), 0, 1), 0xd1),
        (
            "journal",
            Box::new(|outside| {
                outside.journal_store(blob(&"x".repeat(64 * 1024 + 1)));
            }),
            0xd1,
        ),
    ];
    for (name, call, main) in rows {
        let mut bench = Bench::new();
        bench.react(move |outside, event| {
            if matches!(event, Event::Messages(_)) {
                call(outside);
            }
            Ok(idle())
        });
        bench.handle(message(1));
        bench.settle();
        assert_eq!(bench.wire(), [] as [&str; 0], "{name}");
        let seen = bench.seen();
        assert_eq!(seen.len(), 2, "{name}: {seen:?}");
        let wanted = format!("Failed(Failure {{ main: {main},");
        assert!(
            seen[1].contains("token: 1") && seen[1].contains(&wanted),
            "{name}: {seen:?}"
        );
    }
}

#[test]
fn calls_at_the_limits_are_made() {
    let mut bench = Bench::new();
    bench.react(|outside, _| {
        let topic = format!("$aws/things/gateway-7/{}", "x".repeat(298));
        outside.publish(topic, vec![0; 128 * 1024], Qos::AtMostOnce);
        outside.http_get("x".repeat(8 * 1024), u64::MAX - 131_072, 128 * 1024);
        outside.subscribe(
            "$aws/things/gateway-7/jobs/+/get/#".into(),
            Qos::AtLeastOnce,
        );
        Ok(idle())
    });
    bench.handle(message(1));
    assert_eq!(bench.wire().len(), 3);
}

#[test]
fn only_an_own_operation_under_way_is_cancelled() {
    let mut bench = Bench::new();
    bench.react(|outside, event| {
        match event {
            Event::Messages(_) => {
                outside.subscribe(TOPIC.into(), Qos::AtLeastOnce);
            }
            _ => {
                for token in [0, 1, 2] {
                    outside.cancel(token);
                }
            }
        }
        Ok(idle())
    });
    bench.handle(message(1));
    bench.handle(Input::Allowance(0));
    bench.handle(done(1));
    assert_eq!(
        bench.wire(),
        ["1 subscribe $aws/things/gateway-7/jobs/get", "cancel 1"]
    );
}

#[test]
fn too_many_operations_under_way_are_refused_and_go_on_when_some_have_ended() {
    let mut bench = Bench::new();
    bench.react(|outside, event| {
        if let Event::Messages(messages) = event {
            let count = match messages[0].payload.len() {
                1 => 1,
                _ => OPERATIONS_MAX + 1,
            };
            for _ in 0..count {
                outside.publish(TOPIC.into(), Vec::new(), Qos::AtLeastOnce);
            }
        }
        Ok(idle())
    });
    bench.handle(message(2));
    assert_eq!(bench.wire().len(), OPERATIONS_MAX);
    bench.settle();
    let refused = format!("token: {}", OPERATIONS_MAX + 1);
    assert!(bench.seen()[1].contains(&refused));
    bench.handle(done(1));
    bench.handle(message(1));
    assert_eq!(bench.wire().len(), 1);
}

#[test]
fn an_agent_that_repeats_refused_calls_for_ever_is_slowed_down() {
    let mut bench = Bench::new();
    bench.react(|outside, _| {
        outside.publish("not/mine".into(), Vec::new(), Qos::AtMostOnce);
        Ok(idle())
    });
    bench.handle(message(1));
    // It settles although every refusal leads to the next call.
    let next = bench.settle().unwrap();
    assert!(next > bench.now.now_ms && next <= bench.now.now_ms + 1000);
    assert_eq!(bench.seen().len(), 1 + 64);
    bench.now.now_ms = next;
    bench.settle();
    assert_eq!(bench.seen().len(), 64);
}

#[test]
fn an_agent_that_collects_refusals_without_end_is_ended_and_none_is_left_over() {
    let mut bench = Bench::new();
    bench.react(|outside, event| {
        if let Event::Messages(messages) = event {
            let count = match messages[0].payload.len() {
                1 => REFUSALS_MAX,
                _ => REFUSALS_MAX + 1,
            };
            for _ in 0..count {
                outside.publish("not/mine".into(), Vec::new(), Qos::AtMostOnce);
            }
        }
        Ok(idle())
    });
    bench.handle(message(1));
    assert_eq!(
        bench.device.status(bench.now).agent.strikes,
        0,
        "at the limit"
    );
    bench.handle(message(2));
    bench.settle();
    let status = bench.device.status(bench.now);
    assert_eq!(
        (status.agent.life, status.agent.strikes),
        (AgentLife::Running, 1)
    );
    assert!(status.last_error.unwrap().contains("refused calls"));
    let starts = bench.strings.lock().unwrap().starts.clone();
    assert_eq!(starts.last().unwrap().outstanding, [0; 0]);
    assert_eq!(bench.seen().last().unwrap(), "start from snapshot 1");
    bench.now.now_ms += 2000;
    bench.settle();
    assert_eq!(
        bench.seen(),
        [""; 0],
        "nothing ends that was not begun by this one"
    );
}

#[test]
fn after_a_trap_the_agent_goes_on_from_its_snapshot_and_the_event_is_not_repeated() {
    let mut bench = Bench::new();
    bench.react(|outside, event| match event {
        Event::Messages(messages) if messages[0].payload.len() == 1 => {
            outside.publish(TOPIC.into(), Vec::new(), Qos::AtLeastOnce);
            Ok(changed(6, Some("job-1")))
        }
        Event::Messages(_) => Err(trap()),
        _ => Ok(idle()),
    });
    bench.handle(message(1));
    bench.handle(message(2));
    bench.settle();
    let seen = bench.seen();
    // Snapshot 1 was taken after the start, 2 after the turn that changed the status.
    assert_eq!(seen.last().unwrap(), "start from snapshot 2");
    let last = bench
        .strings
        .lock()
        .unwrap()
        .starts
        .last()
        .cloned()
        .unwrap();
    assert_eq!(last.outstanding, [1]);
    assert_eq!(last.seed, 2);
    // What was under way ends for the new instance.
    bench.handle(done(1));
    bench.handle(done(1));
    assert_eq!(bench.seen(), ["Done { token: 1, outcome: Nothing }"]);
    let status = bench.device.status(bench.now);
    assert_eq!(
        (status.agent.life, status.agent.strikes),
        (AgentLife::Running, 1)
    );
    assert!(status.last_error.unwrap().contains("unreachable"));
}

#[test]
fn a_snapshot_older_than_the_journal_is_not_used() {
    let mut bench = Bench::new();
    bench.react(|outside, event| match event {
        Event::Messages(messages) if messages[0].payload.len() == 1 => {
            outside.journal_store(blob("newer"));
            Ok(idle())
        }
        Event::Messages(_) => Err(trap()),
        _ => Ok(idle()),
    });
    bench.handle(message(1));
    bench.handle(message(2));
    bench.settle();
    let seen = bench.seen();
    assert!(
        seen.contains(&"start from journal newer".to_owned()),
        "{seen:?}"
    );
    // Its end belongs to the new instance.
    assert_eq!(seen.last().unwrap(), "Done { token: 1, outcome: Nothing }");
}

#[test]
fn an_agent_that_traps_again_and_again_is_left_alone_for_growing_pauses() {
    let mut bench = Bench::new();
    bench.react(|_, _| Err(trap()));
    for _ in 0..3 {
        bench.handle(message(1));
    }
    bench.settle();
    let status = bench.device.status(bench.now);
    assert_eq!(
        (status.agent.life, status.agent.strikes),
        (AgentLife::Running, 3)
    );
    bench.seen();
    bench.handle(message(1));
    let next = bench.settle();
    assert_eq!(next, Some(bench.now.now_ms + BACKOFF_MIN_MS));
    let status = bench.device.status(bench.now);
    assert_eq!(status.agent.life, AgentLife::Broken);
    assert_eq!(status.agent.retry_in_ms, Some(BACKOFF_MIN_MS));
    // Nothing reaches it, commands are answered.
    bench.seen();
    bench.handle(message(1));
    let failure = bench.command(Command::Suspend).unwrap_err();
    assert_eq!(failure.main, code::BUSY);
    assert_eq!(bench.seen(), [] as [&str; 0]);
    // Its time comes, and it is well again.
    bench.react(|_, _| Ok(idle()));
    bench.now.now_ms += BACKOFF_MIN_MS;
    bench.settle();
    assert_eq!(bench.seen(), ["start from nothing"]);
    bench.command(Command::Suspend).unwrap();
    let status = bench.device.status(bench.now);
    assert_eq!(status.agent.life, AgentLife::Running);
}

#[test]
fn a_job_over_which_the_agent_breaks_again_and_again_is_given_up() {
    let mut bench = Bench::new();
    let with_job = || Ok(Ok(changed(6, Some("job-1"))));
    bench.strings.lock().unwrap().on_start = Box::new(move |_| with_job());
    bench.react(|_, event| match event {
        Event::Messages(_) => Err(trap()),
        Event::Command(_) => Ok(changed(3, None)),
        _ => Ok(idle()),
    });
    let orders = |seen: Vec<String>| {
        let orders = seen.iter().filter(|line| line.contains("UserAbort"));
        orders.count()
    };
    for strike in 1..=9 {
        bench.handle(message(1));
        if let Some(at) = bench.device.slot.retry_at_ms() {
            bench.now.now_ms = bench.now.now_ms.max(at);
        }
        bench.settle();
        let wanted = usize::from(strike >= STRIKES_OF_A_JOB_MAX);
        assert_eq!(orders(bench.seen()), wanted, "strike {strike}");
    }
    // The agent says that the job is over: nothing more is given up.
    bench.strings.lock().unwrap().on_start = Box::new(|_| Ok(Ok(changed(3, None))));
    bench.handle(message(1));
    bench.now.now_ms += BACKOFF_MIN_MS * 1000;
    bench.settle();
    assert_eq!(orders(bench.seen()), 0);
}

#[test]
fn an_agent_that_traps_in_start_is_tried_for_ever_without_spinning() {
    let mut bench = Bench::prepared(Arc::default());
    bench.strings.lock().unwrap().on_start = Box::new(|_| Err(trap()));
    bench.device.start(bench.now).unwrap();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let next = bench.settle().unwrap();
        pauses.push((next - bench.now.now_ms) / 1000);
        bench.now.now_ms = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn a_refused_snapshot_is_dropped_for_the_journal() {
    let mut bench = Bench::new();
    bench.strings.lock().unwrap().on_start = Box::new(|info| {
        Ok(match info.saved {
            Saved::Snapshot(_) => Err(Failure::new(code::SCHEMA, 9, "unknown")),
            Saved::None | Saved::Journal(_) => Ok(idle()),
        })
    });
    bench.react(|_, _| Err(trap()));
    bench.handle(message(1));
    bench.settle();
    assert_eq!(
        bench.seen()[1..],
        ["start from snapshot 1", "start from nothing"]
    );
}

#[test]
fn a_device_whose_agent_refuses_to_start_is_an_error_with_the_agents_words() {
    let mut bench = Bench::prepared(Arc::default());
    bench.strings.lock().unwrap().on_start = Box::new(|_| {
        Ok(Err(Failure::new(
            code::BAD_ARGUMENT,
            0,
            "block_size is `big`",
        )))
    });
    let error = bench.device.start(bench.now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device `gateway-7`: the agent refuses to start"
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("block_size is `big`"), "{source}");
}

#[test]
fn an_agent_started_from_its_journal_is_told_that_there_is_a_connection() {
    let mut bench = Bench::new();
    bench.handle(Input::Connected {
        session_present: true,
    });
    bench.react(|outside, event| match event {
        Event::Messages(_) => {
            outside.journal_store(blob("newer"));
            Err(trap())
        }
        _ => Ok(idle()),
    });
    bench.handle(message(1));
    bench.settle();
    let seen = bench.seen();
    assert_eq!(
        seen[2..4],
        ["start from journal newer", "Connected(false)"],
        "{seen:?}"
    );
}

#[test]
fn an_agent_started_from_a_snapshot_is_told_only_what_has_changed_since() {
    // Nothing has changed.
    let mut bench = Bench::new();
    bench.react(|_, event| match event {
        Event::Messages(_) => Err(trap()),
        _ => Ok(changed(1, None)),
    });
    bench.handle(Input::Connected {
        session_present: false,
    });
    bench.handle(message(1));
    bench.settle();
    assert_eq!(bench.seen()[2..], ["start from snapshot 2"]);
    // The connection was lost and came back, and the turns about it changed no status.
    let mut bench = Bench::new();
    bench.react(|_, event| match event {
        Event::Messages(_) => Err(trap()),
        _ => Ok(idle()),
    });
    bench.handle(Input::Disconnected {
        reason: 4,
        detail: "peer".into(),
    });
    bench.handle(Input::Connected {
        session_present: true,
    });
    bench.handle(message(1));
    bench.settle();
    let wanted = [
        "start from snapshot 1",
        "Disconnected { reason: 4, detail: \"peer\" }",
        "Connected(false)",
    ];
    assert_eq!(bench.seen()[3..], wanted);
}

#[test]
fn a_deadline_that_has_passed_is_a_timeout_after_the_messages_that_came_in_time() {
    let mut bench = Bench::new();
    bench.react(|_, event| {
        Ok(Turn {
            deadline_ms: matches!(event, Event::Allowance(_)).then_some(1500),
            ..idle()
        })
    });
    bench.handle(Input::Allowance(1));
    assert_eq!(bench.settle(), Some(1500));
    bench.now.now_ms = 1499;
    bench.settle();
    assert_eq!(bench.seen().len(), 1);
    bench.now.now_ms = 1500;
    bench.device.mailbox().send(Input::Allowance(2));
    bench.device.poll(bench.now);
    assert_eq!(bench.seen(), ["Allowance(2)", "Timeout"]);
}

#[test]
fn an_agent_that_waits_without_a_deadline_is_asked_again_all_the_same() {
    let mut bench = Bench::new();
    bench.react(|_, event| {
        let mut turn = idle();
        if let Some(wait) = &mut turn.wait
            && matches!(event, Event::Messages(_))
        {
            wait.reason = 3;
        }
        Ok(turn)
    });
    bench.handle(message(1));
    // Before that the history writes down what it waits for.
    assert_eq!(bench.settle(), Some(31_000));
    assert_eq!(bench.device.slot.deadline_ms(), Some(61_000));
    bench.now.now_ms = 61_000;
    bench.settle();
    assert_eq!(bench.device.slot.deadline_ms(), None);
    assert_eq!(bench.seen()[1..], ["Timeout"]);
}

#[test]
fn an_agent_that_wants_to_be_called_at_once_for_ever_is_slowed_down() {
    let mut bench = Bench::new();
    bench.react(|_, _| {
        Ok(Turn {
            deadline_ms: Some(0),
            ..idle()
        })
    });
    bench.handle(message(1));
    let next = bench.settle();
    assert_eq!(next, Some(2000));
    assert_eq!(bench.seen().len(), 1 + 100);
    bench.now.now_ms = 2000;
    assert_eq!(bench.settle(), Some(3000));
    assert_eq!(bench.seen(), ["Timeout"]);
}

#[test]
fn a_command_is_answered_with_what_the_turn_says() {
    let mut bench = Bench::new();
    bench.react(|_, event| {
        let refused = matches!(event, Event::Command(Command::Resume))
            .then(|| Failure::new(0x0a, 0, "not suspended"));
        Ok(Turn { refused, ..idle() })
    });
    assert_eq!(bench.command(Command::Suspend), Ok(()));
    let failure = bench.command(Command::Resume).unwrap_err();
    assert_eq!(failure, Failure::new(0x0a, 0, "not suspended"));
}

#[test]
fn a_command_that_breaks_the_agent_is_answered_too() {
    let mut bench = Bench::new();
    bench.react(|_, _| Err(trap()));
    let failure = bench.command(Command::UserAbort).unwrap_err();
    assert_eq!((failure.main, failure.sub), (code::PLUGIN_FAILED, 1));
}

#[test]
fn an_agent_that_was_shut_down_stays_so() {
    let mut bench = Bench::new();
    bench.react(|_, _| Ok(changed(10, None)));
    bench
        .command(Command::Shutdown { unsubscribe: true })
        .unwrap();
    assert!(bench.device.is_stopped());
    assert_eq!(bench.settle(), None);
    bench.seen();
    let failure = bench.command(Command::Resume).unwrap_err();
    assert_eq!(failure.main, code::UNSUPPORTED);
    assert_eq!(bench.seen(), [] as [&str; 0]);
    let status = bench.device.status(bench.now);
    assert_eq!(
        (status.agent.life, status.state_name.as_str()),
        (AgentLife::Stopped, "Stopped")
    );
}

#[test]
fn events_are_stored_with_their_document_and_the_next_start_knows_the_last_one() {
    let mut bench = Bench::new();
    bench.react(|outside, event| {
        if matches!(event, Event::Messages(_)) {
            for sequence in [1, 2] {
                outside.emit(ApplicationEvent {
                    sequence,
                    kind: 6,
                    job_id: Some("job-1".into()),
                    file: None,
                    failure: None,
                    version: None,
                    document: vec![b' '; 128 * 1024 + usize::try_from(sequence).unwrap() - 1],
                });
            }
        }
        Ok(idle())
    });
    bench.handle(message(1));
    bench.settle();
    let events = bench.device.events().after(0, 10);
    let sizes: Vec<usize> = events.iter().map(|e| e.event.document.len()).collect();
    // The largest document is kept, a larger one is left out.
    assert_eq!(sizes, [128 * 1024, 0]);
    let mut again = bench.restarted();
    again.device.start(again.now).unwrap();
    assert_eq!(again.strings.lock().unwrap().starts[0].last_event, 2);
}

#[test]
fn a_damaged_journal_is_reported_and_the_device_starts_without_it() {
    let state = Arc::new(FakeState::default());
    state
        .store("devices/gateway-7/journal", b"OTADJNL1 but not really")
        .unwrap();
    let mut bench = Bench::prepared(state);
    bench.device.start(bench.now).unwrap();
    assert_eq!(bench.seen(), ["start from nothing"]);
    let status = bench.device.status(bench.now);
    assert!(status.last_error.unwrap().contains("damaged"));
}

#[test]
fn a_full_disk_fails_the_journal_and_leaves_the_device_alive() {
    let mut bench = Bench::new();
    bench.react(|outside, event| {
        if matches!(event, Event::Messages(_)) {
            outside.journal_store(blob("phases"));
        }
        Ok(idle())
    });
    bench.state.fail_with(Some(28));
    bench.handle(message(1));
    bench.settle();
    assert!(bench.seen()[1].contains("main: 214, sub: 28"));
    bench.command(Command::CheckForUpdate).unwrap();
}

#[test]
fn what_comes_while_a_poll_goes_on_is_given_to_the_agent_by_the_next_one() {
    let mut bench = Bench::new();
    let mailbox = bench.device.mailbox();
    // Each answer of the agent takes so long that another message comes meanwhile.
    bench.react(move |_, _| {
        mailbox.send(message(1));
        Ok(idle())
    });
    bench.device.mailbox().send(message(1));
    for _ in 0..3 {
        assert_eq!(bench.device.poll(bench.now), Some(bench.now.now_ms));
        assert_eq!(bench.seen().len(), 1);
        bench.now.now_ms += 20;
    }
}

#[test]
fn the_counters_of_a_job_count_what_the_host_dropped_in_that_job() {
    let mut bench = Bench::new();
    let flood = |bench: &Bench, over: usize| {
        for _ in 0..MESSAGES_MAX + over {
            bench.device.mailbox().send(message(1));
        }
    };
    flood(&bench, 7);
    bench.settle();
    bench.react(|_, event| match event {
        Event::Allowance(_) => Ok(changed(6, Some("job-1"))),
        _ => Ok(idle()),
    });
    bench.handle(Input::Allowance(1));
    flood(&bench, 3);
    bench.strings.lock().unwrap().status = AgentStatus {
        received: 100,
        processed: 90,
        dropped: 10,
        ..AgentStatus::default()
    };
    let counters = bench.device.status(bench.now).counters;
    let waiting = MESSAGES_MAX as u64;
    let wanted = Counters {
        received: 103 + waiting,
        queued: 100 + waiting,
        processed: 90,
        dropped: 13,
    };
    assert_eq!(counters, wanted);
    // What the agent sets back, the host does too.
    bench.strings.lock().unwrap().status = AgentStatus::default();
    let anew: [fn(&mut Bench); 2] = [
        |bench| bench.command(Command::Resume).unwrap(),
        |bench| {
            bench.handle(Input::Connected {
                session_present: false,
            });
        },
    ];
    for begin in anew {
        flood(&bench, 3);
        bench.settle();
        begin(&mut bench);
        let counters = bench.device.status(bench.now).counters;
        assert_eq!(counters, Counters::default());
    }
}

#[test]
fn a_status_names_state_job_wait_and_agent() {
    let mut bench = Bench::new();
    bench.react(|_, _| {
        Ok(Turn {
            deadline_ms: Some(4000),
            ..changed(3, Some("job-1"))
        })
    });
    bench.handle(Input::Connected {
        session_present: false,
    });
    bench.strings.lock().unwrap().status = AgentStatus {
        state: 3,
        job_id: Some("job-1".into()),
        ..AgentStatus::default()
    };
    let status = bench.device.status(bench.now);
    assert_eq!(status.device, "gateway-7");
    assert!(status.connected);
    assert_eq!(status.state_name, "WaitingForJob");
    assert_eq!(status.job_id.as_deref(), Some("job-1"));
    assert_eq!(status.wait.unwrap().next_try_in_ms, Some(3000));
    assert_eq!(status.agent.name, "puppet");
    assert_eq!(status.agent.digest, "0".repeat(64));
}

#[test]
fn what_a_configuration_may_not_say_is_refused_in_words() {
    let rows = [
        ("", "a/", "1 to 128"),
        ("a b", "a/", "1 to 128"),
        (&"x".repeat(129), "a/", "1 to 128"),
        ("ok", "$aws/things/ok", "must end with `/`"),
        ("ok", "$aws/+/", "no wildcard"),
    ];
    for (name, topic, wanted) in rows {
        let config = DeviceConfig {
            name: name.to_owned(),
            agent: puppet().0,
            former_agent: None,
            settings: Vec::new(),
            targets: Vec::new(),
            topics: vec![topic.to_owned()],
        };
        let error = check(&config).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name} {topic}: {error}");
    }
}
