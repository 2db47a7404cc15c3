//! A host, a job service and targets in memory, deterministic: what the agent orders happens at once or when a test
//! says so, and everything it does is written down.
//!
//! Not a model of AWS or of a plugin beyond what the agent can see. Knobs are plain fields.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::agent::table::BOUNDS;
use crate::agent::{Agent, SCHEMAS};
use crate::base64;
use crate::cbor::{self, Major};
use crate::code::State;
use crate::jobs::Encoding;
use crate::types::*;

pub(super) const THING: &str = "dev1";

pub(super) const fn version(major: u8, minor: u8, revision: u16) -> Version {
    Version {
        major,
        minor,
        revision,
        build: 0,
    }
}

/// What a target does when it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// The armed image comes up.
    New,
    /// The boot loader goes back.
    Old,
    /// Nothing is heard again.
    Never,
    /// The host process restarts with it.
    WithHost,
}

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) job: String,
    pub(super) block_size: u64,
    pub(super) size: u64,
    pub(super) held: Vec<bool>,
    pub(super) verified: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As `target-state.code`.
    pub(super) code: u8,
    pub(super) running: Version,
    /// Version of the image that comes.
    pub(super) image: Version,
    /// The image's version can be read.
    pub(super) tells_image: bool,
    /// The running version can be read.
    pub(super) tells_running: bool,
    /// The target knows whether it runs the new image.
    pub(super) tells_new: bool,
    pub(super) runs_new: bool,
    pub(super) old: Version,
    pub(super) boot: Boot,
    pub(super) transfer: Option<Transfer>,
}

impl Target {
    pub(super) const fn new() -> Self {
        Self {
            code: 2,
            running: version(1, 0, 0),
            image: version(1, 1, 0),
            tells_image: true,
            tells_running: true,
            tells_new: true,
            runs_new: false,
            old: version(1, 0, 0),
            boot: Boot::New,
            transfer: None,
        }
    }

    fn state(&self) -> TargetState {
        TargetState {
            code: self.code,
            running: self.tells_running.then_some(self.running),
            runs_new: self.tells_new.then_some(self.runs_new),
        }
    }

    fn come_up(&mut self) {
        match (self.code, self.boot) {
            (4, Boot::New | Boot::WithHost) => {
                self.code = 1;
                self.old = self.running;
                self.running = self.image;
                self.runs_new = true;
            }
            (4, Boot::Old) => self.code = 3,
            // An uncommitted image does not survive another restart, unless its boot loader counts.
            _ => {}
        }
    }

    pub(super) fn revert(&mut self) {
        if self.runs_new {
            self.running = self.old;
        }
        self.runs_new = false;
        self.code = 3;
    }
}

#[derive(Clone, Debug)]
pub(super) struct CloudJob {
    pub(super) id: String,
    pub(super) document: String,
    pub(super) status: String,
    pub(super) details: String,
}

impl CloudJob {
    pub(super) fn is_open(&self) -> bool {
        self.status == "QUEUED" || self.status == "IN_PROGRESS"
    }
}

/// A host with everything around it.
pub(super) struct World {
    pub(super) agent: Agent,
    pub(super) config: Config,
    pub(super) now: u64,
    seed: u64,
    last_token: Token,
    /// Operations that a test ends, or never.
    pub(super) open: Vec<(Token, String)>,
    pub(super) inbox: VecDeque<Event>,
    pub(super) connected: bool,
    pub(super) jobs: Vec<CloudJob>,
    pub(super) targets: BTreeMap<FileId, Target>,
    pub(super) journal: Option<Blob>,
    pub(super) stores: usize,
    pub(super) last_event: u64,
    pub(super) calls: Vec<String>,
    pub(super) published: Vec<(String, String)>,
    pub(super) subscribed: Vec<String>,
    pub(super) unsubscribed: Vec<String>,
    pub(super) events: Vec<ApplicationEvent>,
    pub(super) logs: Vec<(Level, String)>,
    pub(super) refused: Vec<Failure>,
    pub(super) waits: Vec<Wait>,
    pub(super) last_status: Option<AgentStatus>,
    pub(super) requests: usize,
    /// Messages on topics with this in them are lost, so often.
    pub(super) lose: Vec<(&'static str, usize)>,
    /// Blocks that are lost once.
    pub(super) lose_blocks: Vec<u64>,
    /// Calls that fail, so often.
    pub(super) fail: Vec<(&'static str, Failure, usize)>,
    /// Calls that get a token and end on the next turn of the world.
    pub(super) slow: Vec<&'static str>,
    /// Calls that get a token and never end.
    pub(super) hang: Vec<&'static str>,
    /// Every call is slow.
    pub(super) all_slow: bool,
    /// No operation of the host ends any more: nothing is done either.
    pub(super) all_hang: bool,
    /// Statuses are refused with this error of the service, and change nothing.
    pub(super) refuse_updates: Option<&'static str>,
    /// The host restarts on the next turn of the world.
    pub(super) restart_due: bool,
    /// Answers to statuses, instead of what the service would say.
    pub(super) update_answers: VecDeque<(&'static str, String)>,
    pub(super) blocks_sent: Vec<(FileId, u64)>,
    /// The agent is swapped after this many more events.
    pub(super) swap_in: Option<usize>,
    pub(super) handled: usize,
}

pub(super) fn settings(pairs: &[(&str, &str)]) -> Vec<Setting> {
    pairs
        .iter()
        .map(|(key, value)| Setting {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        })
        .collect()
}

pub(super) fn config(device: &[(&str, &str)], targets: &[(FileId, &[(&str, &str)])]) -> Config {
    let mut device = settings(device);
    if !device.iter().any(|setting| setting.key == "block_size") {
        device.extend(settings(&[
            ("block_size", "1024"),
            ("blocks_per_request", "4"),
        ]));
    }
    if !device
        .iter()
        .any(|setting| setting.key == "requests_in_flight")
    {
        device.extend(settings(&[("requests_in_flight", "1")]));
    }
    Config {
        device: THING.to_owned(),
        settings: device,
        targets: targets
            .iter()
            .map(|(file, pairs)| super::super::super::types::Target {
                file: *file,
                name: format!("target-{file}"),
                settings: settings(pairs),
            })
            .collect(),
    }
}

/// A job document for these files: id, size, file type.
pub(super) fn document(files: &[(FileId, u64, u32)]) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|(id, size, kind)| {
            format!(
                r#"{{"filepath":"/f{id}","filesize":{size},"fileid":{id},"certfile":"c.pem","fileType":{kind},"sig-sha256-ecdsa":"MEUCIQDNRumLRyXqUM3Z2wa71/LV4ufvMEUCIQDNRumLRyXqUM3Z2wa7"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"afr_ota":{{"protocols":["MQTT"],"streamname":"stream1","files":[{}]}}}}"#,
        files.join(",")
    )
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let rest = &text[start..];
    Some(&rest[..rest.find(after)?])
}

impl World {
    /// A world with the agent started and nothing heard of the network.
    pub(super) fn with_config(config: Config) -> Self {
        let mut targets = BTreeMap::new();
        for target in &config.targets {
            targets.insert(target.file, Target::new());
        }
        Self::from_parts(config, targets)
    }

    pub(super) fn from_parts(config: Config, targets: BTreeMap<FileId, Target>) -> Self {
        let context = Context {
            now_ms: 1000,
            wall_s: None,
        };
        let info = start_info(&config, Saved::None, 1, Vec::new(), 0);
        let agent = Agent::start(context, info).unwrap();
        let mut world = Self {
            agent,
            config,
            now: 1000,
            seed: 1,
            last_token: 0,
            open: Vec::new(),
            inbox: VecDeque::new(),
            connected: false,
            jobs: Vec::new(),
            targets,
            journal: None,
            stores: 0,
            last_event: 0,
            calls: Vec::new(),
            published: Vec::new(),
            subscribed: Vec::new(),
            unsubscribed: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
            refused: Vec::new(),
            waits: Vec::new(),
            last_status: None,
            requests: 0,
            lose: Vec::new(),
            lose_blocks: Vec::new(),
            fail: Vec::new(),
            slow: Vec::new(),
            hang: Vec::new(),
            all_slow: false,
            all_hang: false,
            refuse_updates: None,
            restart_due: false,
            update_answers: VecDeque::new(),
            blocks_sent: Vec::new(),
            swap_in: None,
            handled: 0,
        };
        world.pump();
        world
    }

    /// One target, file 0, defaults.
    pub(super) fn single() -> Self {
        Self::with_config(config(&[], &[(0, &[])]))
    }

    pub(super) fn double() -> Self {
        Self::with_config(config(&[], &[(0, &[]), (1, &[])]))
    }

    pub(super) fn create_job(&mut self, id: &str, document: &str) {
        self.jobs.push(CloudJob {
            id: id.to_owned(),
            document: document.to_owned(),
            status: "QUEUED".to_owned(),
            details: "{}".to_owned(),
        });
    }

    /// The usual job: one file of 2500 bytes, three blocks.
    pub(super) fn usual_job(&mut self) {
        self.create_job("job1", &document(&[(0, 2500, 0)]));
    }

    pub(super) fn connect(&mut self) {
        self.connected = true;
        self.inbox.push_back(Event::Connected {
            session_present: false,
        });
    }

    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.inbox
            .retain(|event| !matches!(event, Event::Message { .. }));
        self.inbox.push_back(Event::Disconnected {
            reason: 7,
            detail: "cable".to_owned(),
        });
    }

    pub(super) fn command(&mut self, command: Command) {
        self.inbox.push_back(Event::Command(command));
    }

    pub(super) fn message(&mut self, topic: &str, payload: &str) {
        let topic = format!("$aws/things/{THING}/{topic}");
        self.inbox.push_back(Event::Message {
            topic,
            payload: payload.as_bytes().to_vec(),
        });
    }

    pub(super) fn state(&self) -> State {
        State::from_code(self.agent.status().state).unwrap()
    }

    pub(super) fn phase(&self, file: FileId) -> u8 {
        let status = self.agent.status();
        status
            .files
            .iter()
            .find(|of| of.file == file)
            .map_or(255, |of| of.phase)
    }

    /// Delivers one event, or lets time pass to the deadline; false if nothing will ever happen.
    pub(super) fn turn(&mut self) -> bool {
        if self.restart_due {
            self.restart_due = false;
            self.crash();
            return true;
        }
        let event = match self.inbox.pop_front() {
            Some(event) => event,
            None => {
                let Some(deadline) = self.agent.deadline() else {
                    return false;
                };
                self.now = self.now.max(deadline);
                Event::Timeout
            }
        };
        self.give(event);
        true
    }

    /// Delivers all events without letting time pass.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.inbox.is_empty() && !self.restart_due {
                return;
            }
            self.turn();
        }
        panic!("the world does not come to rest");
    }

    /// Runs, with time, until something is so.
    pub(super) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            assert!(
                self.turn(),
                "nothing more happens before: {what}; {:?}",
                self.state()
            );
        }
        panic!("never: {what}; state {:?}\n{}", self.state(), self.story());
    }

    pub(super) fn run_to(&mut self, state: State) {
        self.run_until(state.name(), |world| world.state() == state);
    }

    /// Runs until the job is over for the service and the agent is idle again.
    pub(super) fn run_to_end(&mut self) {
        self.run_until("the end of the job", |world| {
            let over = world.jobs.iter().all(|job| !job.is_open());
            let told = world.events.iter().any(|event| event.kind == 16);
            over && told && world.state() == State::WaitingForJob && world.inbox.is_empty()
        });
    }

    pub(super) fn give(&mut self, event: Event) {
        let context = Context {
            now_ms: self.now,
            wall_s: None,
        };
        self.agent.handle(context, event);
        self.pump();
        self.handled += 1;
        if let Some(left) = &mut self.swap_in {
            *left -= 1;
            if *left == 0 {
                self.swap_in = None;
                self.swap();
            }
        }
    }

    fn pump(&mut self) {
        let context = Context {
            now_ms: self.now,
            wall_s: None,
        };
        let mut orders = 0;
        while let Some(action) = self.agent.poll_action() {
            orders += 1;
            assert!(orders < 2000, "the agent does not come to rest");
            match self.perform(action.order) {
                Some(Started::Done(outcome)) => {
                    self.agent.handle(
                        context,
                        Event::Ended {
                            op: action.op,
                            outcome,
                        },
                    );
                }
                Some(Started::Pending(token)) => self.agent.bind(action.op, token),
                None => assert_eq!(action.op, 0),
            }
        }
        let turn = self.agent.turn();
        self.refused.extend(turn.refused);
        self.waits.extend(turn.wait);
        if let Some(status) = turn.status {
            self.last_status = Some(status);
        }
        self.check_deadline();
    }

    /// Invariant 3: what waits has a deadline. The fallback is for mistakes, and here a mistake is found.
    fn check_deadline(&self) {
        let state = self.state();
        let exempt = matches!(state, State::Suspended | State::Stopped)
            || (state == State::WaitingForJob && self.agent.is_idle());
        let deadline = self.agent.true_deadline();
        assert!(
            exempt || deadline != u64::MAX,
            "{state:?} waits without a deadline\n{}",
            self.story()
        );
        self.check_bound(state, exempt);
    }

    /// What the table says about the waiting in a state is true: one of its timers runs, or blocks are awaited, or an
    /// operation of the host is under way.
    fn check_bound(&self, state: State, exempt: bool) {
        let bound = &BOUNDS[usize::from(state.code())];
        let timed = bound.timers.iter().any(|timer| self.agent.runs(*timer));
        let awaited = (self.agent.transfer.as_ref())
            .is_some_and(|transfer| bound.blocks && transfer.downloader.deadline().is_some());
        let worked = !self.agent.ops.list.is_empty();
        assert!(
            exempt || timed || awaited || worked,
            "{state:?} is not bounded as its table says\n{}",
            self.story()
        );
    }

    fn token(&mut self, what: &str) -> Token {
        self.last_token += 1;
        self.open.push((self.last_token, what.to_owned()));
        self.last_token
    }

    fn later(&mut self, what: &str, outcome: Outcome) -> Started {
        let token = self.token(what);
        self.inbox.push_back(Event::Done { token, outcome });
        Started::Pending(token)
    }

    /// Ends an operation that hangs.
    pub(super) fn finish(&mut self, what: &str, outcome: Outcome) {
        let at = self.open.iter().rposition(|(_, name)| name == what);
        let (token, _) = self
            .open
            .remove(at.unwrap_or_else(|| panic!("{what} is not under way")));
        self.inbox.push_back(Event::Done { token, outcome });
    }

    fn perform(&mut self, order: Order) -> Option<Started> {
        Some(match order {
            Order::Log { level, text } => {
                self.logs.push((level, text));
                return None;
            }
            Order::Emit(event) => {
                let next = self.last_event.saturating_add(1);
                assert_eq!(event.sequence, next, "{event:?}");
                self.last_event = event.sequence;
                self.events.push(event);
                return None;
            }
            Order::Cancel(_) => return None,
            Order::Subscribe { filter, .. } => {
                self.subscribed.push(filter);
                self.transport("subscribe")
            }
            Order::Unsubscribe { filter } => {
                self.unsubscribed.push(filter);
                self.transport("unsubscribe")
            }
            Order::Publish { topic, payload, .. } => {
                if self.connected && !self.all_hang {
                    self.on_publish(&topic, &payload);
                }
                self.transport("publish")
            }
            Order::HttpGet { .. } => panic!("no HTTP in this build"),
            Order::JournalStore(blob) => {
                assert!(blob.bytes.len() <= crate::agent::JOURNAL_MAX_BYTES);
                self.stores += 1;
                self.journal_store(blob)
            }
            Order::Create(spec) => self.duty("create", spec.file_id, Some(spec), None),
            Order::Reopen { job_id, file } => self.duty("reopen", file, None, Some(job_id)),
            Order::WriteBlock { file, offset, data } => self.write(file, offset, data.as_slice()),
            Order::Pal(Call::Close, file) => self.duty("close", file, None, None),
            Order::Pal(Call::Install, file) => self.duty("install", file, None, None),
            Order::Pal(Call::Activate, file) => self.duty("activate", file, None, None),
            Order::Pal(Call::Reset, file) => self.duty("reset", file, None, None),
            Order::Pal(Call::SelfTest, file) => self.duty("self-test", file, None, None),
            Order::Pal(Call::Commit, file) => self.duty("commit", file, None, None),
            Order::Pal(Call::Reject, file) => self.duty("reject", file, None, None),
            Order::Pal(Call::State, file) => self.duty("state", file, None, None),
            Order::Pal(Call::Abort, file) => self.duty("abort", file, None, None),
        })
    }

    fn transport(&mut self, what: &'static str) -> Started {
        if self.all_hang || self.hang.contains(&what) {
            return Started::Pending(self.token(what));
        }
        let outcome = match self.planned_failure(what) {
            Some(failure) => Outcome::Failed(failure),
            None if self.connected => Outcome::Nothing,
            None => Outcome::Failed(Failure::new(0xd8, 0, "not connected")),
        };
        self.later(what, outcome)
    }

    fn planned_failure(&mut self, what: &str) -> Option<Failure> {
        let plan = self
            .fail
            .iter_mut()
            .find(|(name, _, left)| *name == what && *left > 0)?;
        plan.2 -= 1;
        Some(plan.1.clone())
    }

    fn journal_store(&mut self, blob: Blob) -> Started {
        if self.all_hang || self.hang.contains(&"journal") {
            return Started::Pending(self.token("journal"));
        }
        match self.planned_failure("journal") {
            Some(failure) => self.later("journal", Outcome::Failed(failure)),
            None => {
                self.journal = Some(blob);
                self.later("journal", Outcome::Nothing)
            }
        }
    }

    fn duty(
        &mut self,
        verb: &'static str,
        file: FileId,
        spec: Option<FileSpec>,
        job: Option<String>,
    ) -> Started {
        let name = format!("{verb} {file}");
        self.calls.push(name.clone());
        if self.all_hang || self.hang.iter().any(|hang| *hang == name) {
            return Started::Pending(self.token(&name));
        }
        let outcome = match self.planned_failure(&name) {
            Some(failure) => Outcome::Failed(failure),
            None => self.act(verb, file, spec, job),
        };
        if self.all_slow || self.slow.iter().any(|slow| *slow == name) {
            return self.later(&name, outcome);
        }
        Started::Done(outcome)
    }

    fn act(
        &mut self,
        verb: &str,
        file: FileId,
        spec: Option<FileSpec>,
        job: Option<String>,
    ) -> Outcome {
        let fail = |main: u8| Outcome::Failed(Failure::new(main, 0, "the world says no"));
        let Some(target) = self.targets.get_mut(&file) else {
            return fail(0xd0);
        };
        match verb {
            "create" => {
                let spec = spec.unwrap();
                if target.code == 1 || target.code == 4 {
                    return fail(0xe8);
                }
                let blocks = spec.size.div_ceil(spec.block_size.into()) as usize;
                target.runs_new = false;
                target.transfer = Some(Transfer {
                    job: spec.job_id,
                    block_size: spec.block_size.into(),
                    size: spec.size,
                    held: vec![false; blocks],
                    verified: false,
                });
                Outcome::Nothing
            }
            "reopen" => match &target.transfer {
                Some(transfer) if Some(&transfer.job) == job.as_ref() => {
                    let mut bytes = vec![0u8; transfer.held.len().div_ceil(8)];
                    for (at, _) in transfer.held.iter().enumerate().filter(|(_, held)| **held) {
                        bytes[at / 8] |= 1 << (at % 8);
                    }
                    Outcome::Held(bytes)
                }
                _ => fail(0xdb),
            },
            "close" => {
                let image = target.tells_image.then_some(target.image);
                let Some(transfer) = &mut target.transfer else {
                    return fail(0xdb);
                };
                if transfer.held.contains(&false) {
                    return fail(0xee);
                }
                transfer.verified = true;
                Outcome::Verified(ImageInfo {
                    size: transfer.size,
                    sha256: vec![7; 32],
                    version: image,
                    product: None,
                    signer: "tester".to_owned(),
                })
            }
            "install" | "activate" => {
                let verified = target.transfer.as_ref().is_some_and(|t| t.verified);
                if !verified {
                    return fail(0xd2);
                }
                if verb == "activate" {
                    target.code = 4;
                }
                Outcome::Nothing
            }
            "reset" => {
                match target.boot {
                    Boot::Never => {}
                    Boot::WithHost => {
                        target.come_up();
                        self.restart_due = true;
                    }
                    Boot::New | Boot::Old => {
                        target.come_up();
                        self.inbox.push_back(Event::TargetRestarted(file));
                    }
                }
                Outcome::Nothing
            }
            "self-test" => Outcome::Nothing,
            "commit" => {
                if !target.runs_new {
                    return fail(0xe8);
                }
                target.code = 2;
                Outcome::Nothing
            }
            "reject" => {
                target.revert();
                Outcome::Nothing
            }
            "state" => Outcome::State(target.state()),
            "abort" => {
                target.transfer = None;
                Outcome::Nothing
            }
            _ => panic!("{verb}"),
        }
    }

    fn write(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let name = format!("write {file}");
        if self.all_hang || self.hang.iter().any(|hang| *hang == name) {
            return Started::Pending(self.token(&name));
        }
        if let Some(failure) = self.planned_failure(&name) {
            return Started::Done(Outcome::Failed(failure));
        }
        let transfer = self
            .targets
            .get_mut(&file)
            .unwrap()
            .transfer
            .as_mut()
            .unwrap();
        let index = (offset / transfer.block_size) as usize;
        assert_eq!(offset % transfer.block_size, 0);
        assert_eq!(
            data.len() as u64,
            transfer.block_size.min(transfer.size - offset)
        );
        assert!(
            data.iter().all(|byte| *byte == index as u8),
            "block {index} has other bytes"
        );
        assert!(!transfer.held[index], "block {index} is written twice");
        transfer.held[index] = true;
        self.calls.push(format!("write {file} {index}"));
        if self.all_slow || self.slow.iter().any(|slow| *slow == name) {
            return self.later(&name, Outcome::Nothing);
        }
        Started::Done(Outcome::Nothing)
    }

    fn is_lost(&mut self, topic: &str) -> bool {
        let plan = self
            .lose
            .iter_mut()
            .find(|(part, left)| *left > 0 && topic.contains(part));
        plan.is_some_and(|(_, left)| {
            *left -= 1;
            true
        })
    }

    fn on_publish(&mut self, topic: &str, payload: &[u8]) {
        let prefix = format!("$aws/things/{THING}/");
        let topic = topic.strip_prefix(prefix.as_str()).unwrap().to_owned();
        if topic.starts_with("streams/") {
            self.requests += 1;
            if !self.is_lost(&topic) {
                self.send_blocks(&topic, payload);
            }
            return;
        }
        let text = String::from_utf8(payload.to_vec()).unwrap();
        self.published.push((topic.clone(), text.clone()));
        if self.is_lost(&topic) {
            return;
        }
        let token = between(&text, "\"clientToken\":\"", "\"")
            .unwrap()
            .to_owned();
        if topic == "jobs/$next/get" {
            let next = self.jobs.iter().find(|job| job.status == "IN_PROGRESS");
            let next = next.or_else(|| self.jobs.iter().find(|job| job.status == "QUEUED"));
            let reply = next.map_or_else(
                || format!(r#"{{"clientToken":"{token}","timestamp":1}}"#),
                |job| execution(job, &token),
            );
            self.message("jobs/$next/get/accepted", &reply);
        } else if let Some(id) = between(&topic, "jobs/", "/get") {
            let id = id.to_owned();
            let job = self.jobs.iter().find(|job| job.id == id).cloned();
            match job {
                Some(job) => {
                    self.message(&format!("jobs/{id}/get/accepted"), &execution(&job, &token));
                }
                None => {
                    let reply = format!(
                        r#"{{"code":"ResourceNotFound","message":"none","clientToken":"{token}"}}"#
                    );
                    self.message(&format!("jobs/{id}/get/rejected"), &reply);
                }
            }
        } else {
            let id = between(&topic, "jobs/", "/update").unwrap().to_owned();
            self.on_update(&id, &text, &token);
        }
    }

    fn on_update(&mut self, id: &str, text: &str, token: &str) {
        if let Some((end, answer)) = self.update_answers.pop_front() {
            let answer = answer.replace("TOKEN", token);
            self.message(&format!("jobs/{id}/update/{end}"), &answer);
            return;
        }
        if let Some(code) = self.refuse_updates {
            let reply = format!(r#"{{"code":"{code}","message":"","clientToken":"{token}"}}"#);
            self.message(&format!("jobs/{id}/update/rejected"), &reply);
            return;
        }
        let status = between(text, "\"status\":\"", "\"").unwrap().to_owned();
        let details = between(text, "\"statusDetails\":", ",\"clientToken\"")
            .unwrap()
            .to_owned();
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else {
            let reply =
                format!(r#"{{"code":"ResourceNotFound","message":"","clientToken":"{token}"}}"#);
            self.message(&format!("jobs/{id}/update/rejected"), &reply);
            return;
        };
        if !job.is_open() {
            let reply = format!(
                r#"{{"code":"InvalidStateTransition","message":"over","clientToken":"{token}","executionState":{{"status":"{}","statusDetails":{},"versionNumber":9}}}}"#,
                job.status, job.details
            );
            self.message(&format!("jobs/{id}/update/rejected"), &reply);
            return;
        }
        job.status = status;
        job.details = details;
        let over = !job.is_open();
        let reply = format!(r#"{{"timestamp":1,"clientToken":"{token}"}}"#);
        self.message(&format!("jobs/{id}/update/accepted"), &reply);
        if over {
            self.notify();
        }
    }

    /// What the service sends when the next job is another one.
    pub(super) fn notify(&mut self) {
        let next = self.jobs.iter().find(|job| job.is_open());
        let text = next.map_or_else(
            || r#"{"timestamp":1}"#.to_owned(),
            |job| execution(job, "").replace(r#""clientToken":"","#, ""),
        );
        if !self.is_lost("notify-next") {
            self.message("jobs/notify-next", &text);
        }
    }

    pub(super) fn cancel_job(&mut self) {
        self.jobs[0].status = "CANCELED".to_owned();
        self.notify();
    }

    fn send_blocks(&mut self, topic: &str, payload: &[u8]) {
        let stream = between(topic, "streams/", "/").unwrap().to_owned();
        let encoding = if topic.ends_with("/get/json") {
            Encoding::Json
        } else {
            Encoding::Cbor
        };
        let (file, size, offset, bitmap, count) = match encoding {
            Encoding::Cbor => decode_request(payload),
            Encoding::Json => decode_json_request(payload),
        };
        let total = self.file_size(file);
        let bits = (0..bitmap.len() as u64 * 8)
            .filter(|bit| bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 1);
        for index in bits.map(|bit| bit + offset).take(count as usize) {
            let start = index * size;
            assert!(
                start < total,
                "block {index} is asked for, the file has {total} bytes"
            );
            if let Some(at) = self.lose_blocks.iter().position(|lost| *lost == index) {
                self.lose_blocks.remove(at);
                continue;
            }
            self.blocks_sent.push((file, index));
            let data = vec![index as u8; size.min(total - start) as usize];
            let message = match encoding {
                Encoding::Cbor => block_message(file, index, &data),
                Encoding::Json => json_block_message(file, index, &data),
            };
            let end = encoding.level();
            let topic = format!("$aws/things/{THING}/streams/{stream}/data/{end}");
            self.inbox.push_back(Event::Message {
                topic,
                payload: message,
            });
        }
    }

    fn file_size(&self, file: FileId) -> u64 {
        let needle = format!("\"fileid\":{file},");
        for job in self.jobs.iter().rev() {
            if let Some(at) = job.document.find(&needle) {
                let before = &job.document[..at];
                let from = before.rfind("\"filesize\":").unwrap() + 11;
                return before[from..].trim_end_matches(',').parse().unwrap();
            }
        }
        panic!("no file {file}")
    }

    /// The agent is replaced by another instance, with what is under way listed.
    pub(super) fn swap(&mut self) {
        let context = Context {
            now_ms: self.now,
            wall_s: None,
        };
        let snapshot = self.agent.snapshot(context);
        assert!(snapshot.bytes.len() <= 256 * 1024);
        let ended: Vec<Token> = self.inbox.iter().filter_map(done_token).collect();
        let live = self
            .open
            .iter()
            .map(|(token, _)| *token)
            .chain(ended)
            .collect();
        self.start(Saved::Snapshot(snapshot), live);
    }

    /// The host process dies and comes back: what was not durable is gone.
    pub(super) fn crash(&mut self) {
        self.open.clear();
        self.inbox.clear();
        for target in self.targets.values_mut() {
            if let Some(transfer) = &mut target.transfer {
                transfer.verified = false;
            }
        }
        let saved = self.journal.clone().map_or(Saved::None, Saved::Journal);
        // The clock of a new process begins anywhere.
        self.now = self.now % 7919 + 5;
        self.start(saved, Vec::new());
        if self.connected {
            self.inbox.push_back(Event::Connected {
                session_present: false,
            });
        }
    }

    pub(super) fn start(&mut self, saved: Saved, live: Vec<Token>) {
        self.seed += 1;
        let context = Context {
            now_ms: self.now,
            wall_s: None,
        };
        let info = start_info(&self.config, saved, self.seed, live, self.last_event);
        self.agent = Agent::start(context, info).unwrap();
        self.pump();
    }

    pub(super) fn story(&self) -> String {
        let mut out = String::new();
        for (level, text) in self.logs.iter().filter(|(level, _)| *level >= Level::Info) {
            out.push_str(&format!("{level:?} {text}\n"));
        }
        out
    }

    pub(super) fn changes(&self) -> Vec<String> {
        let lines = self.logs.iter().map(|(_, text)| text);
        lines
            .filter(|text| text.starts_with("state ["))
            .cloned()
            .collect()
    }

    pub(super) fn kinds(&self) -> Vec<u32> {
        self.events.iter().map(|event| event.kind).collect()
    }

    /// The statuses that were sent, without their tokens.
    pub(super) fn statuses(&self) -> Vec<String> {
        self.published
            .iter()
            .filter(|(topic, _)| topic.ends_with("/update"))
            .map(|(_, text)| text[..text.find(",\"clientToken\"").unwrap()].to_string() + "}")
            .collect()
    }

    pub(super) fn count(&self, call: &str) -> usize {
        self.calls.iter().filter(|name| *name == call).count()
    }

    /// Status and reason of the first job, as the service has them.
    pub(super) fn verdict(&self) -> (&str, &str) {
        (self.jobs[0].status.as_str(), self.jobs[0].details.as_str())
    }
}

fn start_info(
    config: &Config,
    saved: Saved,
    seed: u64,
    outstanding: Vec<Token>,
    last_event: u64,
) -> StartInfo {
    StartInfo {
        config: config.clone(),
        saved,
        schema: SCHEMAS[0],
        seed,
        outstanding,
        last_event,
    }
}

const fn done_token(event: &Event) -> Option<Token> {
    if let Event::Done { token, .. } = event {
        Some(*token)
    } else {
        None
    }
}

#[derive(Debug)]
enum Started {
    Done(Outcome),
    Pending(Token),
}

pub(super) fn execution(job: &CloudJob, token: &str) -> String {
    format!(
        r#"{{"clientToken":"{token}","timestamp":1,"execution":{{"jobId":"{}","status":"{}","statusDetails":{},"versionNumber":3,"executionNumber":1,"jobDocument":{}}}}}"#,
        job.id, job.status, job.details, job.document
    )
}

pub(super) fn block_message(file: FileId, index: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::push_map(&mut out, 5);
    cbor::push_text(&mut out, "c");
    cbor::push_text(&mut out, "rdy");
    for (key, value) in [
        ("f", u64::from(file)),
        ("i", index),
        ("l", data.len() as u64),
    ] {
        cbor::push_text(&mut out, key);
        cbor::push_unsigned(&mut out, value);
    }
    cbor::push_text(&mut out, "p");
    cbor::push_bytes(&mut out, data);
    out
}

fn json_block_message(file: FileId, index: u64, data: &[u8]) -> Vec<u8> {
    let (length, payload) = (data.len(), base64::encode(data));
    format!(r#"{{"c":"rdy","f":{file},"l":{length},"i":{index},"p":"{payload}"}}"#).into_bytes()
}

/// With an independent reader.
fn decode_json_request(payload: &[u8]) -> (FileId, u64, u64, Vec<u8>, u64) {
    let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let number = |key: &str| value[key].as_u64().unwrap();
    let digits = value["b"].as_str().unwrap().strip_prefix("0x").unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let bitmap = (0..digits.len()).step_by(2).map(byte).collect();
    assert_eq!(value["c"], "rdy");
    (
        number("f") as FileId,
        number("l"),
        number("o"),
        bitmap,
        number("n"),
    )
}

fn decode_request(payload: &[u8]) -> (FileId, u64, u64, Vec<u8>, u64) {
    let mut reader = cbor::Reader::new(payload);
    let mut left = reader.enter(Major::Map).unwrap();
    let (mut numbers, mut bitmap) = ([0u64; 4], Vec::new());
    while reader.more(&mut left) {
        let key = reader.text().unwrap();
        match key.as_str() {
            "c" => assert_eq!(reader.text().unwrap(), "rdy"),
            "b" => bitmap = reader.bytes().unwrap().into_owned(),
            key => {
                let at = ["f", "l", "o", "n"]
                    .iter()
                    .position(|name| *name == key)
                    .unwrap();
                numbers[at] = reader.unsigned().unwrap();
            }
        }
    }
    (
        numbers[0] as FileId,
        numbers[1],
        numbers[2],
        bitmap,
        numbers[3],
    )
}
