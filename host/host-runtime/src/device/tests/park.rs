//! An agent that has nothing to do: when it is parked, what wakes it, and what a parked one can still be asked.

use super::*;
use crate::agent::{TRIAL_MS, Wait};
use crate::status::{WAIT_JOB, WAIT_NAMES};
use crate::testing::puppet_of;

/// An agent is parked after this time without an event, in milliseconds.
const QUIET_MS: u64 = 1000;

/// `agent-status.state` of an agent that waits for a job.
const WAITING: u8 = 3;

impl Bench {
    /// A device whose agent waits for a job, quiet since now.
    fn idle() -> Self {
        let mut bench = Self::prepared_with(Arc::default(), |p| p.park_after(QUIET_MS));
        bench.strings.lock().unwrap().status.state = WAITING;
        bench.react(|_, _| Ok(changed(WAITING, None)));
        bench.device.start(bench.now).unwrap();
        bench.handle(Input::Connected {
            session_present: false,
        });
        bench.settle();
        bench.seen();
        bench
    }

    /// The same, parked.
    fn parked() -> Self {
        let mut bench = Self::idle();
        bench.wait(QUIET_MS);
        assert_eq!(bench.life(), AgentLife::Parked);
        bench
    }

    /// Time passes, and nothing else happens.
    fn wait(&mut self, ms: u64) -> Option<u64> {
        self.now.now_ms += ms;
        self.settle()
    }

    fn life(&mut self) -> AgentLife {
        self.device.status(self.now).agent.life
    }
}

fn seen_is_start_and(seen: &[String], event: &str) {
    let [start, rest @ ..] = seen else {
        panic!("nothing was seen");
    };
    assert!(start.starts_with("start from snapshot"), "{seen:?}");
    assert_eq!(rest.len(), 1, "{seen:?}");
    assert!(rest[0].starts_with(event), "{seen:?}");
}

#[test]
fn an_agent_without_a_job_is_parked_when_nothing_happened_for_long_enough_and_not_before() {
    let mut bench = Bench::idle();
    assert_eq!(bench.wait(QUIET_MS - 1), Some(bench.now.now_ms + 1));
    assert_eq!(bench.life(), AgentLife::Running);
    // An event puts it off.
    bench.handle(message(1));
    bench.wait(QUIET_MS - 1);
    assert_eq!(bench.life(), AgentLife::Running);
    // Another share of the bandwidth does not.
    bench.handle(Input::Allowance(7000));
    bench.wait(1);
    assert_eq!(bench.life(), AgentLife::Parked);
    assert!(!bench.device.slot.is_running());
    // A day later it still is, and nothing is due.
    assert_eq!(bench.wait(24 * 3600 * 1000), None);
    assert_eq!(bench.life(), AgentLife::Parked);
}

#[test]
fn without_the_operators_word_an_agent_stays_awake() {
    let mut bench = Bench::new();
    bench.wait(24 * 3600 * 1000);
    assert_eq!(bench.life(), AgentLife::Running);
}

/// What happens, and as what the agent hears of it.
type Row = (fn() -> Input, &'static str);

#[test]
fn whatever_happens_to_a_parked_device_reaches_its_agent_once_and_in_order() {
    let inputs: [Row; 7] = [
        (|| message(3), "Messages"),
        (
            || Input::Disconnected {
                reason: 2,
                detail: "gone".into(),
            },
            "Disconnected",
        ),
        (
            || Input::Connected {
                session_present: true,
            },
            "Connected(true)",
        ),
        (|| Input::TargetRestarted(4), "TargetRestarted(4)"),
        (
            || Input::Command {
                command: Command::CheckForUpdate,
                reply: None,
            },
            "Command(CheckForUpdate)",
        ),
        (|| Input::Allowance(7000), "Allowance(7000)"),
        (
            || Input::Custom {
                name: "battery".into(),
                bytes: Bytes::from_static(b"12"),
            },
            "Custom",
        ),
    ];
    for (input, event) in inputs {
        let mut bench = Bench::parked();
        bench.device.mailbox().send(input());
        bench.device.poll(bench.now);
        seen_is_start_and(&bench.seen(), event);
        assert_eq!(bench.life(), AgentLife::Running);
        // Two at once wake it once.
        bench.wait(QUIET_MS);
        bench.seen();
        bench.device.mailbox().send(input());
        bench.device.mailbox().send(message(1));
        bench.settle();
        let seen = bench.seen();
        if event == "Messages" {
            // What comes together is told together.
            assert_eq!(seen.len(), 2, "{seen:?}");
            assert_eq!(seen[1].matches("Message {").count(), 2, "{seen:?}");
            continue;
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen[1].starts_with(event) && seen[2].starts_with("Messages"));
    }
}

#[test]
fn a_parked_agent_keeps_its_deadline_and_is_started_as_of_the_instant_of_its_snapshot() {
    let mut bench = Bench::idle();
    let due_ms = bench.now.now_ms + 60_000;
    bench.react(move |_, event| {
        let deadline_ms = (*event != Event::Timeout).then_some(due_ms);
        Ok(Turn {
            deadline_ms,
            ..idle()
        })
    });
    bench.handle(message(1));
    bench.settle();
    bench.seen();
    let parked_ms = bench.now.now_ms + QUIET_MS;
    bench.wait(QUIET_MS);
    assert_eq!(bench.life(), AgentLife::Parked);
    // Meanwhile it is written down what it waits for, and that is not the agent's.
    bench.now.now_ms = due_ms - 1;
    assert_eq!(bench.settle(), Some(due_ms));
    assert_eq!(bench.seen(), [] as [&str; 0]);
    bench.now.now_ms = due_ms;
    bench.device.poll(bench.now);
    seen_is_start_and(&bench.seen(), "Timeout");
    let started_ms = bench.strings.lock().unwrap().started_ms.clone();
    assert_eq!(started_ms.last(), Some(&parked_ms));
}

#[test]
fn a_parked_device_answers_for_its_agent() {
    let mut bench = Bench::idle();
    let due_ms = bench.now.now_ms + 60_000;
    bench.react(move |_, _| {
        Ok(Turn {
            deadline_ms: Some(due_ms),
            wait: Some(Wait {
                since_ms: 1000,
                ..idle().wait.unwrap()
            }),
            ..changed(WAITING, None)
        })
    });
    bench.handle(message(1));
    bench.settle();
    bench.wait(QUIET_MS);
    let status = bench.device.status(bench.now);
    assert_eq!(
        (status.agent.life, status.agent.memory_bytes),
        (AgentLife::Parked, 0)
    );
    assert_eq!(&status.state_name, "WaitingForJob");
    let wait = status.wait.unwrap();
    assert_eq!(wait.reason_name, WAIT_NAMES[WAIT_JOB as usize]);
    assert_eq!(wait.next_try_in_ms, Some(due_ms - bench.now.now_ms));
    assert!(bench.device.is_ready() && bench.device.is_quiet());
    // Being asked does not wake it.
    assert_eq!(bench.life(), AgentLife::Parked);
}

#[test]
fn who_gives_an_order_to_a_parked_agent_gets_its_answer() {
    let mut bench = Bench::parked();
    bench.react(|_, _| {
        Ok(Turn {
            refused: Some(Failure::new(code::UNSUPPORTED, 0, "no job")),
            ..idle()
        })
    });
    let failure = bench.command(Command::UserAbort).unwrap_err();
    assert_eq!(failure.detail, "no job");
}

#[test]
fn an_agent_with_something_to_do_is_not_parked() {
    // A job; an operation under way; a first state.
    let turns: [fn(&mut dyn Outside) -> Turn; 3] = [
        |_| changed(WAITING, Some("job-1")),
        |outside| {
            outside.publish(TOPIC.into(), b"{}".to_vec(), Qos::AtLeastOnce);
            changed(WAITING, None)
        },
        |_| changed(STATE_INIT, None),
    ];
    for turn in turns {
        let mut bench = Bench::idle();
        bench.react(move |outside, _| Ok(turn(outside)));
        bench.handle(message(1));
        bench.wait(100 * QUIET_MS);
        assert_eq!(bench.life(), AgentLife::Running);
    }
}

#[test]
fn an_agent_that_broke_lately_or_knows_too_much_stays_awake() {
    let mut bench = Bench::idle();
    bench.react(|_, _| Err(trap()));
    bench.handle(message(1));
    bench.react(|_, _| Ok(idle()));
    bench.wait(QUIET_MS);
    assert_eq!(bench.life(), AgentLife::Running);
    // As long as it takes until that is forgiven.
    bench.wait(10 * 60 * 1000 + 1);
    assert_eq!(bench.life(), AgentLife::Parked);

    let mut bench = Bench::idle();
    bench.strings.lock().unwrap().snapshot_bytes = 17 * 1024;
    let next = bench.wait(QUIET_MS);
    assert_eq!(bench.life(), AgentLife::Running);
    assert_eq!(next, Some(bench.now.now_ms + QUIET_MS));
    bench.strings.lock().unwrap().snapshot_bytes = 0;
    bench.wait(QUIET_MS);
    assert_eq!(bench.life(), AgentLife::Parked);
}

#[test]
fn another_build_takes_over_from_a_parked_one_and_is_not_parked_while_it_is_on_trial() {
    let mut bench = Bench::parked();
    let next = puppet_of("next", &[3, 2]);
    next.1.lock().unwrap().status.state = WAITING;
    let answer = Arc::new(Mutex::new(None));
    let place = Arc::clone(&answer);
    let reply = Box::new(move |end| *place.lock().unwrap() = Some(end));
    let build = Some(Arc::clone(&next.0));
    bench.device.swap_agent(bench.now, build, TRIAL_MS, reply);
    bench.settle();
    assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    let seen = bench.seen();
    assert!(
        seen.len() == 1 && seen[0].starts_with("start from snapshot"),
        "{seen:?}"
    );
    bench.wait(TRIAL_MS - 1);
    assert_eq!(bench.life(), AgentLife::Running);
    bench.wait(QUIET_MS + 1);
    assert_eq!(bench.life(), AgentLife::Parked);
    assert_eq!(bench.device.status(bench.now).agent.label, "next");
    bench.handle(message(1));
    assert_eq!(bench.life(), AgentLife::Running);
}

#[test]
fn the_snapshot_that_an_agent_is_woken_from_serves_on_until_something_has_changed() {
    let mut bench = Bench::parked();
    bench.react(|_, _| Ok(idle()));
    let taken = bench.strings.lock().unwrap().snapshots;
    bench.handle(message(1));
    assert_eq!(bench.life(), AgentLife::Running);
    assert_eq!(bench.strings.lock().unwrap().snapshots, taken);
    bench.react(|_, _| Err(trap()));
    bench.handle(message(2));
    bench.settle();
    let from = format!("start from snapshot {taken}");
    assert_eq!(bench.seen().last(), Some(&from));
}

#[test]
fn a_parked_agent_that_refuses_its_own_snapshot_goes_on_from_its_journal() {
    let mut bench = Bench::idle();
    bench.react(|outside, _| {
        outside.journal_store(blob("phases"));
        Ok(changed(WAITING, None))
    });
    bench.handle(message(1));
    bench.react(|_, _| Ok(changed(WAITING, None)));
    bench.settle();
    bench.wait(QUIET_MS);
    assert_eq!(bench.life(), AgentLife::Parked);
    bench.seen();
    bench.strings.lock().unwrap().on_start = Box::new(|info| {
        Ok(match &info.saved {
            Saved::Snapshot(_) => Err(Failure::new(code::SCHEMA, 0, "not mine")),
            Saved::None | Saved::Journal(_) => Ok(idle()),
        })
    });
    bench.handle(message(1));
    let seen = bench.seen();
    assert!(seen[0].starts_with("start from snapshot"), "{seen:?}");
    // The journal knows nothing of the connection.
    assert_eq!(
        seen[1..3],
        ["start from journal phases", "Connected(false)"]
    );
    assert!(seen[3].starts_with("Message"), "{seen:?}");
}

#[test]
fn a_parked_agent_that_breaks_when_it_is_started_is_started_again_and_told() {
    let mut bench = Bench::parked();
    let mut starts = 0;
    bench.strings.lock().unwrap().on_start = Box::new(move |_| {
        starts += 1;
        match starts {
            1 => Err(trap()),
            _ => Ok(Ok(idle())),
        }
    });
    bench.handle(message(1));
    let seen = bench.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[2].starts_with("Message"), "{seen:?}");
    assert_eq!(bench.device.status(bench.now).agent.strikes, 1);
}
