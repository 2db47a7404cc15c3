//! An agent component made by hand, against the contract's text alone: what reaches it, what comes back, and what
//! happens when it misbehaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::trace::Header;
use super::*;
use crate::device::{Device, DeviceConfig, DevicePorts, PreparedDevice};
use crate::engine::{EngineOptions, GuestFault};
use crate::mailbox::Input;
use crate::status::AgentLife;
use crate::testing::{
    CountingSeed, FakeState, NoCommands, StepWorkers, StoppedClock, Wire, no_wake,
};
use crate::types::Outcome;

/// A core module that gives the duties of world `agent`. Results live at 1024 (a turn of zeros: nothing, no deadline),
/// a description at 2048, names at 3072. What it does with an event hangs on the event's number, which stands 24 bytes
/// into the parameters: `allowance` begins at 9, and so on in the order of the WIT text.
fn module(name: &str) -> String {
    format!(
        r#"(module
  (import "ota:agent/os@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "ota:agent/transport@0.1.0" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 8192))
  (data (i32.const 3072) "{name}")
  (data (i32.const 3200) "1.2.3")
  (data (i32.const 3300) "hello\nagent")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (block $fits (loop $more
      (br_if $fits (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
      unreachable))
    (local.get $at))
  (func (export "ota:agent/job-agent@0.1.0#describe") (result i32)
    (i32.store (i32.const 2048) (i32.const 3072)) (i32.store (i32.const 2052) (i32.const {length}))
    (i32.store (i32.const 2056) (i32.const 3200)) (i32.store (i32.const 2060) (i32.const 5))
    (i32.store (i32.const 2064) (i32.const 3212)) (i32.store (i32.const 2068) (i32.const 1))
    (i32.store (i32.const 3212) (i32.const 7))
    (i32.const 2048))
  (func (export "ota:agent/job-agent@0.1.0#start") (param i32) (result i32) (i32.const 1024))
  (func (export "ota:agent/job-agent@0.1.0#handle") (param $p i32) (result i32)
    (local $event i32) (local $at i32) (local $left i32)
    (local.set $event (i32.load8_u offset=24 (local.get $p)))
    ;; messages: answer with a deadline of the last one's payload's length, and publish each payload on its topic
    (if (i32.eq (local.get $event) (i32.const 2)) (then
      (local.set $at (i32.load offset=32 (local.get $p)))
      (local.set $left (i32.load offset=36 (local.get $p)))
      (loop $more
        (drop (call $publish
          (i32.load (local.get $at)) (i32.load offset=4 (local.get $at))
          (i32.load offset=8 (local.get $at)) (i32.load offset=12 (local.get $at)) (i32.const 1)))
        (i32.store8 (i32.const 1024) (i32.const 1))
        (i64.store (i32.const 1032) (i64.extend_i32_u (i32.load offset=12 (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 16)))
        (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
    ;; connected: log
    (if (i32.eqz (local.get $event)) (then
      (call $log (i32.const 2) (i32.const 3300) (i32.const 11))))
    ;; target-restarted: panic
    (if (i32.eq (local.get $event) (i32.const 6)) (then unreachable))
    ;; timeout: spin
    (if (i32.eq (local.get $event) (i32.const 7)) (then (loop br 0)))
    ;; allowance: hog memory
    (if (i32.eq (local.get $event) (i32.const 9)) (then
      (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable))
    ;; custom: flood the log
    (if (i32.eq (local.get $event) (i32.const 10)) (then
      (loop (call $log (i32.const 4) (i32.const 3300) (i32.const 11)) br 0)))
    (i32.const 1024))
  (func (export "ota:agent/job-agent@0.1.0#status") (result i32) (i32.const 1280))
  (func (export "ota:agent/job-agent@0.1.0#snapshot") (param i64 i32 i64) (result i32)
    (i32.store (i32.const 2100) (i32.const 7))
    (i32.store (i32.const 2104) (i32.const 3300)) (i32.store (i32.const 2108) (i32.const 5))
    (i32.const 2100)))"#,
        length = name.len(),
    )
}

fn component(module: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(module).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/agent");
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve.select_world(&[package], Some("agent")).unwrap();
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default().module(&bytes).unwrap();
    encoder.encode().unwrap()
}

fn engine() -> Arc<Engine> {
    Engine::new(&EngineOptions::default()).unwrap()
}

/// Writes down the calls that the hand-made agent makes, and takes so long for each.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>, Duration);

impl Calls {
    fn line(&self, line: String) -> Token {
        std::thread::park_timeout(self.1);
        let mut lines = self.0.lock().unwrap();
        lines.push(line);
        lines.len() as Token
    }
}

impl Outside for Calls {
    fn subscribe(&mut self, filter: String, _: Qos) -> Token {
        self.line(filter)
    }
    fn unsubscribe(&mut self, filter: String) -> Token {
        self.line(filter)
    }
    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        self.line(format!("publish {topic} {} {qos:?}", payload.len()))
    }
    fn http_get(&mut self, url: String, _: u64, _: u32) -> Token {
        self.line(url)
    }
    fn cancel(&mut self, _: Token) {}
    fn create(&mut self, _: FileSpec) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn reopen(&mut self, _: String, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let begin = String::from_utf8_lossy(&data[..5]);
        self.line(format!(
            "write {} of {file} at {offset}: {begin}",
            data.len()
        ));
        Started::Done(Outcome::Nothing)
    }
    fn close(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn verified(&mut self, _: FileId) -> Result<VerifiedRef, Failure> {
        Err(Failure::new(0xd2, 0, "nothing is verified here"))
    }
    fn install(&mut self, _: &VerifiedRef) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn activate(&mut self, _: &VerifiedRef) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn reset(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn self_test(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn commit(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn reject(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn state(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn abort(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::Nothing)
    }
    fn journal_store(&mut self, _: Blob) -> Token {
        self.line("journal".into())
    }
    fn log(&mut self, level: Level, text: String) {
        self.line(format!("{level:?} {text:?}"));
    }
    fn emit(&mut self, _: ApplicationEvent) {}
}

/// Of a trace of nobody's.
pub(super) fn header() -> Header {
    Header {
        agent: String::new(),
        version: String::new(),
        digest: String::new(),
        device: String::new(),
    }
}

pub(super) fn start_info() -> StartInfo {
    StartInfo {
        config: AgentConfig {
            device: "gateway-7".into(),
            settings: Vec::new(),
            targets: Vec::new(),
        },
        saved: Saved::None,
        schema: 7,
        seed: 1,
        outstanding: vec![1, 2],
        last_event: 0,
    }
}

/// A started instance, and what it calls.
fn started(build: &AgentBuild) -> (Box<dyn AgentInstance>, Calls) {
    let calls = Calls::default();
    let mut instance = build.instantiate(Box::new(calls.clone())).unwrap();
    let turn = instance.start(Context::default(), start_info()).unwrap();
    assert_eq!(turn, Ok(Turn::default()));
    (instance, calls)
}

#[test]
fn a_component_made_without_our_sdk_is_loaded_and_asked_who_it_is() {
    let build = AgentBuild::load(&engine(), "hand-made", &component(&module("by-hand"))).unwrap();
    let wanted = Description {
        name: "by-hand".into(),
        version: "1.2.3".into(),
        schemas: vec![7],
    };
    assert_eq!(build.description(), &wanted);
    assert_eq!((build.schema(), build.label()), (7, "hand-made"));
}

#[test]
fn another_agent_has_no_schema_in_common_whatever_its_numbers_are() {
    let build = |name| {
        let bytes = component(&module(name));
        AgentBuild::load(&engine(), "hand-made", &bytes).unwrap()
    };
    let ours = build("by-hand");
    assert_eq!(ours.schema_for(&build("by-hand")), Some(7));
    assert_eq!(ours.schema_for(&build("for-you")), None);
}

#[test]
fn events_go_in_and_calls_turns_and_snapshots_come_out() {
    let build = AgentBuild::load(&engine(), "hand-made", &component(&module("by-hand"))).unwrap();
    let (mut instance, calls) = started(&build);
    let message = |topic: &str, bytes| Message {
        topic: topic.into(),
        payload: vec![9; bytes],
    };
    let messages = vec![message("a/topic", 3), message("another", 128 * 1024)];
    let turn = instance
        .handle(Context::default(), Event::Messages(messages))
        .unwrap();
    assert_eq!(turn.deadline_ms, Some(128 * 1024));
    instance
        .handle(Context::default(), Event::Connected(true))
        .unwrap();
    let wanted = [
        "publish a/topic 3 AtLeastOnce",
        "publish another 131072 AtLeastOnce",
        "Info \"hello\\nagent\"",
    ];
    assert_eq!(*calls.0.lock().unwrap(), wanted);
    let snapshot = instance.snapshot(Context::default()).unwrap();
    assert_eq!((snapshot.schema, &snapshot.bytes[..]), (7, &b"hello"[..]));
    assert_eq!(instance.status().unwrap(), AgentStatus::default());
    assert!(instance.memory_bytes() >= 3 * 65_536);
}

/// The contract has at least one message in an event; a host that is wrong about that breaks nothing.
#[test]
fn our_agent_takes_an_event_without_a_message_for_nothing() {
    let build = AgentBuild::load(&engine(), "ours", guest_artifacts::AGENT).unwrap();
    let start = || {
        let calls = Calls::default();
        let mut instance = build.instantiate(Box::new(calls.clone())).unwrap();
        let info = StartInfo {
            schema: build.schema(),
            outstanding: Vec::new(),
            ..start_info()
        };
        let turn = instance.start(Context::default(), info).unwrap();
        (instance, calls, turn.unwrap())
    };
    let (mut asked, calls, _) = start();
    let (mut other, other_calls, _) = start();
    let before = calls.0.lock().unwrap().len();
    let none = |instance: &mut Box<dyn AgentInstance>| {
        let turn = instance.handle(Context::default(), Event::Messages(Vec::new()));
        turn.unwrap()
    };
    let first = none(&mut asked);
    let bytes = asked.memory_bytes();
    // What the parameters of one call take, lost each time, would be some pages.
    for _ in 0..2000 {
        assert_eq!(none(&mut asked), first);
    }
    assert_eq!(asked.memory_bytes(), bytes);
    assert_eq!(calls.0.lock().unwrap().len(), before, "it did something");
    // It is where one is that was asked nothing.
    let turns = [&mut asked, &mut other]
        .map(|instance| instance.handle(Context::default(), Event::Connected(false)));
    let [turn, expected] = turns.map(Result::unwrap);
    assert_eq!(turn, expected);
    assert!(turn.deadline_ms.is_some());
    let (calls, expected) = (calls.0.lock().unwrap(), other_calls.0.lock().unwrap());
    assert_eq!(*calls, *expected);
    assert!(calls.len() > before);
}

#[test]
fn the_largest_snapshot_comes_out_and_one_that_is_far_larger_is_a_fault() {
    let engine = engine();
    for (size, fits) in [(256 * 1024, true), (512 * 1024, false)] {
        let module = module("by-hand")
            .replace("\"memory\") 1)", "\"memory\") 16)")
            .replace(
                "(i32.const 2108) (i32.const 5)",
                &format!("(i32.const 2108) (i32.const {size})"),
            );
        let build = AgentBuild::load(&engine, "hand-made", &component(&module)).unwrap();
        let (mut instance, _) = started(&build);
        match instance.snapshot(Context::default()) {
            Ok(blob) => assert_eq!((blob.bytes.len(), fits), (size, true)),
            Err(fault) => assert!(
                !fits && fault.to_string().contains("too much data"),
                "{fault}"
            ),
        }
    }
}

#[test]
fn a_block_is_taken_out_of_the_agents_memory_and_has_a_limit_and_an_end_there() {
    const MAX: usize = Budget::AGENT.hostcall_bytes;
    let engine = engine();
    for (size, wanted) in [
        (5, None),
        (MAX, None),
        (MAX + 1, Some("too much data")),
        (1024 * 1024, Some("out of bounds")),
    ] {
        let import = "(import \"ota:agent/pal@0.1.0\" \"write-block\" \
                      (func $write (param i32 i64 i32 i32 i32))) (memory (export \"memory\") 16)";
        let write = format!(
            "(call $write (i32.const 3) (i64.const 4096) (i32.const 3300) (i32.const {size}) (i32.const 4096))"
        );
        let module = module("by-hand")
            .replace("(memory (export \"memory\") 1)", import)
            .replace("(loop br 0)", &write);
        let build = AgentBuild::load(&engine, "hand-made", &component(&module)).unwrap();
        let (mut instance, calls) = started(&build);
        let end = instance.handle(Context::default(), Event::Timeout);
        let calls = calls.0.lock().unwrap().clone();
        match (end, wanted) {
            (Ok(_), None) => assert_eq!(calls, [format!("write {size} of 3 at 4096: hello")]),
            (Err(fault), Some(wanted)) => {
                assert!(fault.to_string().contains(wanted), "{size}: {fault}");
                assert_eq!(calls, [""; 0]);
            }
            (end, _) => panic!("{size}: {end:?}"),
        }
    }
}

#[test]
fn time_in_which_the_host_writes_blocks_before_a_request_is_not_the_agents() {
    const REQUESTS: usize = 6;
    let budget = Budget {
        ticks: 30,
        ..Budget::AGENT
    };
    // Twice the agent's 300 ms in all.
    let slow = Duration::from_millis(100);
    let publishes = module("by-hand");
    let gets = publishes
        .replace(
            "\"publish\" (func $publish (param i32 i32 i32 i32 i32)",
            "\"http-get\" (func $publish (param i32 i32 i64 i32)",
        )
        .replace(
            "(i32.load offset=8 (local.get $at)) (i32.load offset=12 (local.get $at)) (i32.const 1)))",
            "(i64.const 0) (i32.const 1)))",
        );
    for (module, wanted) in [
        (publishes, "publish https://a 3 AtLeastOnce"),
        (gets, "https://a"),
    ] {
        let bytes = component(&module);
        let build = AgentBuild::load_within(&engine(), "hand-made", &bytes, &budget).unwrap();
        let calls = Calls(Arc::default(), slow);
        let mut instance = build.instantiate(Box::new(calls.clone())).unwrap();
        let message = Message {
            topic: "https://a".into(),
            payload: vec![9; 3],
        };
        let messages = Event::Messages(vec![message; REQUESTS]);
        let turn = instance.handle(Context::default(), messages);
        assert_eq!(turn.map(|turn| turn.deadline_ms), Ok(Some(3)), "{wanted}");
        assert_eq!(*calls.0.lock().unwrap(), [wanted; REQUESTS]);
    }
}

#[test]
fn whatever_an_agent_does_the_call_ends_with_a_fault_that_says_so() {
    let build = AgentBuild::load(&engine(), "hand-made", &component(&module("by-hand"))).unwrap();
    let rows = [
        ("panic", Event::TargetRestarted(0), "unreachable"),
        ("endless loop", Event::Timeout, "units of fuel"),
        ("memory hog", Event::Allowance(1), "bytes of memory"),
        (
            "call flood",
            Event::Custom {
                name: "x".into(),
                bytes: Vec::new(),
            },
            "called the host more than 4096 times",
        ),
    ];
    for (name, event, wanted) in rows {
        let (mut instance, _) = started(&build);
        let fault = instance.handle(Context::default(), event).unwrap_err();
        assert!(fault.to_string().contains(wanted), "{name}: {fault}");
        // And another instance of the same build is well.
        let (mut other, _) = started(&build);
        other
            .handle(Context::default(), Event::Connected(false))
            .unwrap();
    }
}

#[test]
fn the_last_error_that_a_guest_logged_in_a_call_goes_with_its_trap() {
    let logs = |level| format!("(call $log (i32.const {level}) (i32.const 3300) (i32.const 11))");
    let trap = "const 6)) (then";
    // `connected` logs an error and goes well; the call that traps logs these before it does.
    let cause = "the guest trapped: wasm trap: wasm `unreachable` instruction executed";
    for (levels, wanted) in [
        (&[4, 2, 0][..], "; last words `hello agent`; error while"),
        (&[3, 2], "; error while"),
        (&[], "; error while"),
    ] {
        let wanted = format!("{cause}{wanted}");
        let said: String = levels.iter().map(logs).collect();
        let module = module("by-hand")
            .replace(&logs(&2), &logs(&4))
            .replace(trap, &format!("{trap} {said}"));
        let build = AgentBuild::load(&engine(), "hand-made", &component(&module)).unwrap();
        let (mut instance, _) = started(&build);
        instance
            .handle(Context::default(), Event::Connected(false))
            .unwrap();
        let restarted = Event::TargetRestarted(0);
        let fault = instance.handle(Context::default(), restarted).unwrap_err();
        assert!(
            fault.to_string().starts_with(&wanted),
            "{levels:?}: {fault}"
        );
    }
}

#[test]
fn an_instance_is_not_entered_again_after_a_trap() {
    let build = AgentBuild::load(&engine(), "hand-made", &component(&module("by-hand"))).unwrap();
    let (mut instance, _) = started(&build);
    let trap = Event::TargetRestarted(0);
    instance.handle(Context::default(), trap).unwrap_err();
    let fault = instance.status().unwrap_err();
    assert!(matches!(fault, GuestFault::Trapped(_)), "{fault}");
}

#[test]
fn an_agent_that_does_not_say_sensibly_who_it_is_is_refused() {
    let long = "x".repeat(65);
    let rows = [
        ("no name", module(""), "must be printable"),
        ("long name", module(&long), "must be printable"),
        ("escape", module("a\\1bb").replace("const 6)", "const 3)"), "must be printable"),
        (
            "trap",
            module("by-hand").replace("(i32.const 2048))\n", "unreachable)\n"),
            "unreachable",
        ),
        (
            "a call outside",
            module("by-hand").replace(
                "(result i32)\n    (i32.store (i32.const 2048)",
                "(result i32)\n    (call $log (i32.const 4) (i32.const 3300) (i32.const 11))\n    (i32.store (i32.const 2048)",
            ),
            "called the host",
        ),
    ];
    let engine = engine();
    for (name, module, wanted) in rows {
        let refusal = AgentBuild::load(&engine, name, &component(&module)).unwrap_err();
        assert!(matches!(refusal, Refusal::Describe(_)), "{name}: {refusal}");
        assert!(refusal.to_string().contains(wanted), "{name}: {refusal}");
    }
}

#[test]
fn an_agent_with_the_right_names_and_other_types_is_refused() {
    let text = r#"(component
      (core module $m (func (export "f")))
      (core instance $i (instantiate $m))
      (func $f (canon lift (core func $i "f")))
      (instance $agent (export "describe" (func $f)))
      (export "ota:agent/job-agent@0.1.0" (instance $agent)))"#;
    let bytes = wat::parse_str(text).unwrap();
    let refusal = AgentBuild::load(&engine(), "strange", &bytes).unwrap_err();
    assert!(matches!(refusal, Refusal::Link(_)), "{refusal}");
}

/// A device with this agent, as the supervisor has it.
fn device(name: &str, build: &Arc<AgentBuild>) -> Device {
    let config = DeviceConfig {
        name: name.into(),
        agent: Arc::clone(build),
        former_agent: None,
        settings: Vec::new(),
        targets: Vec::new(),
        topics: vec![format!("$aws/things/{name}/")],
    };
    let ports = DevicePorts {
        state: Arc::new(FakeState::default()),
        workers: Arc::new(StepWorkers::default()),
        commands: Arc::new(NoCommands),
        clock: Arc::new(StoppedClock),
        seed: Arc::new(CountingSeed::default()),
    };
    let prepared = PreparedDevice::new(config, ports, no_wake()).unwrap();
    let mut device = prepared.into_device(Box::new(Wire::default()));
    device.start(Context::default()).unwrap();
    device
}

#[test]
fn a_device_outlives_whatever_its_agent_does_and_another_one_does_not_notice() {
    let bytes = component(&module("hand-made"));
    let build = AgentBuild::load(&engine(), "test", &bytes).unwrap();
    let (mut bad, mut good) = (device("bad", &build), device("good", &build));
    let spin = Input::Message {
        topic: "$aws/things/bad/x".into(),
        payload: bytes::Bytes::from_static(b"x"),
        qos: Qos::AtMostOnce,
    };
    let flood = Input::Custom {
        name: "flood".into(),
        bytes: bytes::Bytes::new(),
    };
    let rows = [
        (Input::TargetRestarted(0), "unreachable"),
        (spin, "fuel"),
        (Input::Allowance(1), "memory"),
        (flood, "called the host"),
    ];
    let session_present = false;
    for (round, (input, words)) in (1..).zip(rows) {
        // Long enough after the last one for it to be forgiven.
        let now_ms = round * 1_000_000;
        let now = Context {
            now_ms,
            wall_s: None,
        };
        bad.handle(now, input);
        bad.poll(now);
        let status = bad.status(now);
        assert_eq!(status.agent.strikes, 1, "{words}: {:?}", status.last_error);
        let error = status.last_error.unwrap();
        assert!(error.contains(words), "{words} is not in: {error}");
        // The next instance is there and takes what comes.
        bad.handle(now, Input::Connected { session_present });
        let status = bad.status(now);
        assert_eq!(
            (status.agent.life, status.agent.strikes),
            (AgentLife::Running, 1)
        );
        good.handle(now, Input::Connected { session_present });
        good.poll(now);
        let status = good.status(now);
        assert_eq!((status.agent.strikes, status.last_error), (0, None));
    }
}
