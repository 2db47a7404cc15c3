//! A device under tokio, seen through its handle.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::agent::{AgentStatus, ApplicationEvent, Event, FormerAgent, Turn};
use crate::engine::GuestFault;
use crate::ports::clock::SystemClock;
use crate::ports::workers::BlockingPool;
use crate::testing::{
    CountingSeed, FakeState, NoCommands, Strings, Wire, blob, changed, idle, no_wake, puppet,
    puppet_of, trap,
};
use crate::types::{Qos, Setting};

fn pending(state: &Arc<FakeState>) -> (PendingDevice, Arc<Mutex<Strings>>) {
    pending_with(state, Arc::new(SystemClock::new()))
}

fn pending_with(
    state: &Arc<FakeState>,
    clock: Arc<dyn Clock>,
) -> (PendingDevice, Arc<Mutex<Strings>>) {
    let (agent, strings) = puppet();
    (pending_of(agent, None, state, clock), strings)
}

fn pending_of(
    agent: Arc<AgentBuild>,
    former_agent: Option<FormerAgent>,
    state: &Arc<FakeState>,
    clock: Arc<dyn Clock>,
) -> PendingDevice {
    let config = DeviceConfig {
        name: "gateway-7".into(),
        agent,
        former_agent,
        settings: Vec::<Setting>::new(),
        targets: Vec::new(),
        topics: vec!["$aws/things/gateway-7/".into()],
    };
    let ports = DevicePorts {
        state: Arc::clone(state) as _,
        workers: Arc::new(BlockingPool::current()),
        commands: Arc::new(NoCommands),
        clock,
        seed: Arc::new(CountingSeed::default()),
    };
    prepare(config, ports).unwrap()
}

fn start() -> (DeviceHandle, Arc<Mutex<Strings>>, Arc<FakeState>) {
    let state = Arc::default();
    let (pending, strings) = pending(&state);
    (
        pending.start(Box::new(Wire::default())).unwrap(),
        strings,
        state,
    )
}

fn event(sequence: u64) -> ApplicationEvent {
    ApplicationEvent {
        sequence,
        kind: 0,
        job_id: None,
        file: Some(0),
        failure: None,
        version: None,
        document: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_sent_reaches_the_agent_and_its_status_can_be_asked_for() {
    let (device, strings, _) = start();
    {
        let mut strings = strings.lock().unwrap();
        strings.react = Box::new(|_, _| Ok(changed(3, Some("job-1"))));
        strings.status = AgentStatus {
            state: 3,
            job_id: Some("job-1".into()),
            ..AgentStatus::default()
        };
    }
    device.mailbox().send(Input::Connected {
        session_present: true,
    });
    device.command(Command::CheckForUpdate).await.unwrap();
    let status = device.status().await;
    assert!(status.connected);
    assert_eq!(status.job_id.as_deref(), Some("job-1"));
    let wanted = [
        "start from nothing",
        "Connected(true)",
        "Command(CheckForUpdate)",
    ];
    assert_eq!(strings.lock().unwrap().seen, wanted);
}

#[tokio::test]
async fn a_device_that_knows_itself_ends_with_its_last_handle_all_the_same() {
    let state = Arc::default();
    let (mut pending, _) = pending(&state);
    let own = OwnDevice::default();
    pending.introduce(own.clone());
    assert!(own.handle().is_none());
    let device = pending.start(Box::new(Wire::default())).unwrap();
    assert_eq!(own.handle().unwrap().status().await.device, "gateway-7");
    let link = Arc::clone(&device.0.link);
    drop(device);
    assert!(own.handle().is_none());
    let end = link.find(|seen| seen.end.as_deref().cloned()).await;
    assert_eq!(end.unwrap().device, "gateway-7");
}

#[tokio::test]
async fn more_questions_than_may_wait_are_all_answered_also_by_a_device_that_ends_meanwhile() {
    let (device, _, _) = start();
    for ends in [false, true] {
        let ask = |_| {
            let device = device.clone();
            tokio::spawn(async move { device.status().await.device })
        };
        let stopping = ends.then(|| {
            let device = device.clone();
            tokio::spawn(async move { device.stop().await })
        });
        let asked: Vec<_> = (0..2 * link::REQUESTS_MAX).map(ask).collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), "gateway-7");
        }
        if let Some(stopping) = stopping {
            assert_eq!(stopping.await.unwrap().device, "gateway-7");
        }
    }
}

#[tokio::test]
async fn an_application_gets_its_events_one_after_the_other() {
    let (device, strings, _) = start();
    strings.lock().unwrap().react = Box::new(|outside, _| {
        (1..=2).for_each(|sequence| outside.emit(event(sequence)));
        Ok(idle())
    });
    device.mailbox().send(Input::Allowance(1));
    let mut got = Vec::new();
    for _ in 0..2 {
        got.push(device.next_event().await.unwrap().event.sequence);
    }
    assert_eq!(got, [1, 2]);
    assert_eq!(device.events_after(1, 10).await.len(), 1);
}

#[tokio::test]
async fn a_deadline_wakes_the_device_by_itself() {
    let (device, strings, _) = start();
    strings.lock().unwrap().react = Box::new(|outside, event| {
        if *event == Event::Timeout {
            outside.emit(self::event(1));
            return Ok(idle());
        }
        // The clock of the device began at the start of this test.
        Ok(Turn {
            deadline_ms: Some(20),
            ..idle()
        })
    });
    device.mailbox().send(Input::Allowance(1));
    assert_eq!(device.next_event().await.unwrap().event.sequence, 1);
}

#[tokio::test]
async fn a_stopped_device_has_stored_its_journal_and_answers_no_more() {
    let (device, strings, state) = start();
    strings.lock().unwrap().react = Box::new(|outside, _| {
        outside.journal_store(blob("last words"));
        Ok(idle())
    });
    let other = device.clone();
    device.mailbox().send(Input::Allowance(1));
    let status = device.stop().await;
    assert_eq!(status.device, "gateway-7");
    // The agent was not told.
    let seen = strings.lock().unwrap().seen.clone();
    assert!(
        !seen.iter().any(|line| line.contains("Shutdown")),
        "{seen:?}"
    );
    assert_eq!(other.stopped().await, status);
    assert_eq!(other.status().await, status);
    let failure = other.command(Command::Suspend).await.unwrap_err();
    assert_eq!(failure.detail, "the device has ended");
    assert!(other.next_event().await.is_none());
    // The next process goes on from what was stored.
    let (pending, strings) = pending(&state);
    let _device = pending.start(Box::new(Wire::default())).unwrap();
    assert_eq!(
        strings.lock().unwrap().seen,
        ["start from journal last words"]
    );
}

#[tokio::test]
async fn a_device_ends_when_its_agent_has_been_shut_down() {
    let (device, strings, _) = start();
    strings.lock().unwrap().react = Box::new(|_, _| Ok(changed(10, None)));
    let shutdown = Command::Shutdown { unsubscribe: false };
    device.command(shutdown).await.unwrap();
    assert_eq!(device.stopped().await.state_name, "Stopped");
}

#[tokio::test]
async fn a_device_ends_with_its_last_handle() {
    let (device, _, _) = start();
    let (mailbox, events) = (device.mailbox(), device.events());
    drop(device);
    assert_eq!(events.wait_after(0, 1).await, []);
    mailbox.send(Input::Allowance(1));
    assert!(mailbox.is_empty());
}

#[tokio::test]
async fn an_agent_that_refuses_to_start_starts_no_device() {
    let (pending, strings) = pending(&Arc::default());
    strings.lock().unwrap().on_start = Box::new(|_| {
        Ok(Err(Failure::new(
            code::BAD_ARGUMENT,
            0,
            "momentum_max is 0",
        )))
    });
    let error = pending.start(Box::new(Wire::default())).unwrap_err();
    assert!(matches!(error, DeviceError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_device_is_there_from_its_preparation_until_nothing_of_it_is_left() {
    let (never_started, _) = pending(&Arc::default());
    let mailbox = never_started.mailbox();
    let never = never_started.presence();
    assert!(!never.is_over());
    drop(never_started);
    assert!(never.is_over(), "somebody still has its mailbox");
    drop(mailbox);

    let state = Arc::default();
    let (pending, _) = pending(&state);
    let presence = pending.presence();
    let device = pending.start(Box::new(Wire::default())).unwrap();
    assert!(!presence.is_over());
    device.stop().await;
    assert!(presence.is_over());
    assert_eq!(device.status().await.device, "gateway-7");
}

#[tokio::test]
async fn a_device_whose_task_panics_has_ended_and_says_why() {
    let (device, strings, _) = start();
    strings.lock().unwrap().react = Box::new(|_, _| panic!("block 17 of 16"));
    let events = device.events();
    device.mailbox().send(Input::Allowance(1));
    let status = device.stopped().await;
    assert_eq!(status.device, "gateway-7");
    assert_eq!(status.agent.life, AgentLife::Broken);
    let error = status.last_error.clone().unwrap();
    assert!(error.contains("block 17 of 16"), "{error}");
    // Nobody waits for it any more.
    assert_eq!(device.status().await, status);
    assert_eq!(events.wait_after(0, 1).await, []);
    let failure = device.command(Command::Suspend).await.unwrap_err();
    assert_eq!(failure.detail, "the device has ended");
}

#[tokio::test]
async fn why_an_agent_broke_is_told_in_one_line_of_bounded_length() {
    let (device, strings, _) = start();
    strings.lock().unwrap().react = Box::new(|_, _| {
        let words = format!("in `a\nERROR b\x1b[2J`{}", "x".repeat(300_000));
        Err(GuestFault::Trapped(words))
    });
    let failure = device.command(Command::Suspend).await.unwrap_err();
    let error = device.status().await.last_error.unwrap();
    for text in [&error, &failure.detail] {
        assert!(text.contains("in `a"), "{text}");
        assert!(text.len() < 1200, "{} bytes", text.len());
    }
    assert!(!error.contains(char::is_control), "{error}");
}

/// A clock that is set by hand.
#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }
}

#[tokio::test]
async fn a_status_tells_how_long_the_agent_has_waited_when_it_is_asked_for() {
    let clock = Arc::new(SetClock::default());
    let (pending, _) = pending_with(&Arc::default(), Arc::clone(&clock) as _);
    let device = pending.start(Box::new(Wire::default())).unwrap();
    device.command(Command::CheckForUpdate).await.unwrap();
    let waited = async || device.status().await.wait.unwrap().waiting_ms;
    assert_eq!(waited().await, 0);
    // Nothing happens to the device in between.
    clock.0.store(90_000, Ordering::SeqCst);
    assert_eq!(waited().await, 90_000);
}

#[tokio::test]
async fn a_device_is_ready_in_time_or_stopped() {
    // In its first state until there is a connection.
    let slow = |strings: &Arc<Mutex<Strings>>| {
        strings.lock().unwrap().react = Box::new(|_, _| Ok(changed(1, None)));
    };
    let connect = Input::Connected {
        session_present: false,
    };
    let (device, strings, _) = start();
    slow(&strings);
    device.mailbox().send(connect);
    assert_eq!(device.ready(None).await, Readiness::Ready);
    let short = Some(Duration::ZERO);
    assert_eq!(device.ready(short).await, Readiness::Ready);

    let (device, strings, _) = start();
    slow(&strings);
    assert_eq!(device.ready(short).await, Readiness::Stopped);
    let refused = device.command(Command::CheckForUpdate).await.unwrap_err();
    assert_eq!(refused.main, code::UNSUPPORTED);
    // Nothing is left that could become ready.
    assert_eq!(device.ready(None).await, Readiness::Stopped);
}

/// What happens to a device, for whoever drives it.
fn story() -> [Input; 4] {
    let command = |command| Input::Command {
        command,
        reply: None,
    };
    [
        Input::Connected {
            session_present: false,
        },
        command(Command::CheckForUpdate),
        Input::Disconnected {
            reason: 4,
            detail: "cable".into(),
        },
        command(Command::Suspend),
    ]
}

/// An agent that asks for something at every event.
fn asks(strings: &Mutex<Strings>) {
    strings.lock().unwrap().react = Box::new(|outside, event| {
        let topic = format!("$aws/things/gateway-7/{event:?}");
        outside.publish(topic, Vec::new(), Qos::AtMostOnce);
        Ok(idle())
    });
}

#[tokio::test]
async fn a_task_and_a_loop_of_ones_own_lead_to_the_same_trace() {
    let state = Arc::default();
    let (pending, by_task) = pending(&state);
    asks(&by_task);
    let task_wire = Wire::default();
    let device = pending.start(Box::new(task_wire.clone())).unwrap();
    for input in story() {
        device.mailbox().send(input);
    }
    device.command(Command::Resume).await.unwrap();

    let (agent, by_hand) = puppet();
    asks(&by_hand);
    let config = DeviceConfig {
        name: "gateway-7".into(),
        agent,
        former_agent: None,
        settings: Vec::new(),
        targets: Vec::new(),
        topics: vec!["$aws/things/gateway-7/".into()],
    };
    let ports = DevicePorts {
        state: Arc::<FakeState>::default() as _,
        workers: Arc::new(BlockingPool::current()),
        commands: Arc::new(NoCommands),
        clock: Arc::new(SystemClock::new()),
        seed: Arc::new(CountingSeed::default()),
    };
    let wire = Wire::default();
    let prepared = PreparedDevice::new(config, ports, no_wake()).unwrap();
    let mut device = prepared.into_device(Box::new(wire.clone()));
    let now = Context {
        now_ms: 1000,
        wall_s: None,
    };
    device.start(now).unwrap();
    let resume = Input::Command {
        command: Command::Resume,
        reply: None,
    };
    for input in story().into_iter().chain([resume]) {
        device.handle(now, input);
        device.poll(now);
    }

    let seen = |strings: &Mutex<Strings>| strings.lock().unwrap().seen.clone();
    assert_eq!(seen(&by_task), seen(&by_hand));
    let wired = wire.0.lock().unwrap().clone();
    assert_eq!(wired.len(), 5, "{wired:?}");
    assert_eq!(*task_wire.0.lock().unwrap(), wired);
}

#[tokio::test]
async fn another_agent_build_serves_when_the_answer_comes_and_the_end_of_its_trial_is_told() {
    let (device, _, _) = start();
    let (next, strings) = puppet_of("next", &[3]);
    let trial = Duration::from_secs(600);
    device.swap_agent(Some(next), trial).await.unwrap();
    assert!(device.agent_trial().on_trial);
    assert_eq!(device.status().await.agent.label, "next");
    strings.lock().unwrap().react = Box::new(|_, _| Err(trap()));
    device.mailbox().send(Input::Connected {
        session_present: false,
    });
    let trial = device.trial_over().await.unwrap();
    assert_eq!((trial.swaps, trial.returns), (1, 1));
    assert_eq!(device.status().await.agent.label, "test");
    device.stop().await;
    let ended = device.swap_agent(None, Duration::ZERO).await.unwrap_err();
    assert_eq!(ended.detail, "the device has ended");
}

#[tokio::test]
async fn what_is_asked_for_during_a_turn_does_not_wait_for_another_reason_to_wake() {
    let (device, _, state) = start();
    let (next, _) = puppet_of("next", &[3]);
    let trial = Duration::from_secs(600);
    let build = Some(Arc::clone(&next));
    device.swap_agent(build, trial).await.unwrap();
    device.stop().await;
    // After a restart it is on trial still, and nothing is to be done until that is over.
    let former = FormerAgent {
        agent: puppet().0,
        on_trial: true,
    };
    let clock = Arc::new(SystemClock::new());
    let pending = pending_of(next, Some(former), &state, clock);
    let device = pending.start(Box::new(Wire::default())).unwrap();
    // It is asked for before the task has its first turn, in which the question is found.
    let asking = device.end_trial(None);
    let end = tokio::time::timeout(Duration::from_secs(10), asking).await;
    assert_eq!(end.expect("an answer"), Ok(()));
    assert!(!device.status().await.agent.on_trial);
}
