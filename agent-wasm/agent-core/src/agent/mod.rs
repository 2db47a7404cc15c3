//! The orchestrator: one device, one job at a time, any number of files in it.
//!
//! ```text
//!  handle(event) --> facts: phases, answers, timers      advance() --> orders, set_state(event, next)
//!       |                     ^                              |              |
//!       +---------------------+------------------------------+        table.rs checks it
//! ```
//!
//! An event only records facts. [`Agent::advance`] then looks at the facts and orders what is due and not under way,
//! so a lost operation, a restart, a resume and a reconnect all end in the same code. It knows no socket, no storage
//! and no clock; it does not verify images and does not decide what a plugin does. States are the C agent's numbers,
//! what a state needs is in the job and its files (`job.rs`), where it also survives.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{OtadErr, State};
use crate::jobs::{ClientTokens, JobId};
use crate::settings::{Key, Settings};
use crate::types::{
    Action, AgentStatus, Blob, Command, Context, Description, Event, Failure, FileId, InstantMs,
    Level, Op, Order, Outcome, Saved, StartInfo, TargetState, Token, Turn,
};

mod activation;
mod answer;
mod command;
mod files;
mod job;
mod news;
mod offer;
mod ops;
pub mod recover;
mod report;
mod request;
mod saved;
mod saved_parts;
pub mod table;
mod timer;
mod transfer;
mod verdict;
mod view;

#[cfg(test)]
mod tests;

pub use job::FilePhase;
pub use saved::JOURNAL_MAX_BYTES;
pub use timer::Timer;

use job::{Failing, Job, Probe, Stage};
use news::{Journal, News};
use offer::Offered;
use ops::{Doing, Duty, Ops};
use report::Reporter;
use request::{Asking, Subscriptions};
use table::Cause;
use timer::{Random, Timers};
use transfer::Transfer;
use view::{Counters, View};

/// Schemas of saved states that this build reads and writes, the best one first.
pub const SCHEMAS: &[u32] = &[1];

/// Most steps after one event; a whole job takes some thirty states, so more is a circle.
const STEPS_MAX: u32 = 64;

/// Most jobs that are remembered as over or as somebody else's.
const SEEN_MAX: usize = 8;

/// The agent of one device.
pub struct Agent {
    settings: Settings,
    schema: u32,
    state: State,
    now: InstantMs,
    connected: bool,
    /// The connection was made (again) since the state that cares about it looked.
    relinked: bool,
    /// The first connection has been seen.
    begun: bool,
    suspended_since: Option<InstantMs>,
    unsubscribe: bool,
    /// All targets have been asked since the start, and the journal's job has met them.
    asked_all: bool,
    orders: VecDeque<Action>,
    ops: Ops,
    timers: Timers,
    random: Random,
    tokens: ClientTokens,
    probes: Vec<Probe>,
    subscriptions: Subscriptions,
    asking: Asking,
    reporter: Reporter,
    job: Option<Job>,
    offered: Option<Offered>,
    transfer: Option<Transfer>,
    /// Jobs that are over: a late notification of one is only a hint to ask.
    seen: Vec<JobId>,
    /// Jobs that were left to others.
    left: Vec<JobId>,
    /// An uncommitted image runs at the start and the journal has no job.
    unclaimed: bool,
    journal: Journal,
    news: News,
    counters: Counters,
    view: View,
    /// Tries of an operation that a busy target refused.
    busy: u32,
    /// This device's share of the bandwidth, if there is a cap.
    allowance: Option<u64>,
}

impl Agent {
    /// Who this build is.
    #[must_use]
    pub const fn describe() -> Description {
        Description {
            name: "otad-agent",
            version: env!("CARGO_PKG_VERSION"),
            schemas: SCHEMAS,
        }
    }

    /// The only way in.
    ///
    /// # Errors
    /// 0xd0 for a bad setting, 0xdf for a saved state or a schema to write that this build does not know. Nothing was
    /// done then.
    pub fn start(context: Context, info: StartInfo) -> Result<Self, Failure> {
        let settings = Settings::read(&info.config)?;
        if !SCHEMAS.contains(&info.schema) {
            return Err(saved::unknown_schema(info.schema));
        }
        let mut agent = Self::new(settings, info.schema, info.seed, context.now_ms);
        match info.saved {
            Saved::None => {}
            Saved::Journal(blob) => agent.load_journal(&blob)?,
            Saved::Snapshot(blob) => agent.load_snapshot(&blob, &info.outstanding)?,
        }
        agent.news.go_on_after(info.last_event);
        agent.greet();
        agent.advance();
        Ok(agent)
    }

    fn new(settings: Settings, schema: u32, seed: u64, now: InstantMs) -> Self {
        let probes = settings
            .targets
            .iter()
            .map(|target| Probe {
                file: target.file,
                asked: false,
                stale: false,
                state: TargetState::default(),
            })
            .collect();
        let subscriptions = Subscriptions::new(&settings);
        Self {
            settings,
            schema,
            state: State::Init,
            now,
            connected: false,
            relinked: false,
            begun: false,
            suspended_since: None,
            unsubscribe: false,
            asked_all: false,
            orders: VecDeque::new(),
            ops: Ops::default(),
            timers: Timers::default(),
            random: Random(seed),
            tokens: ClientTokens::new(seed),
            probes,
            subscriptions,
            asking: Asking::default(),
            reporter: Reporter::default(),
            job: None,
            offered: None,
            transfer: None,
            seen: Vec::new(),
            left: Vec::new(),
            unclaimed: false,
            journal: Journal::default(),
            news: News::default(),
            counters: Counters::default(),
            view: View::default(),
            busy: 0,
            allowance: None,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, context: Context, event: Event) {
        self.now = self.now.max(context.now_ms);
        match event {
            Event::Ended { op, outcome } => {
                if let Some(doing) = self.ops.end_op(op) {
                    self.on_ended(doing, outcome);
                }
            }
            Event::Done { token, outcome } => {
                if let Some(doing) = self.ops.end_token(token) {
                    self.on_ended(doing, outcome);
                }
            }
            Event::Connected { session_present } => self.on_connected(session_present),
            Event::Disconnected { reason, detail } => self.on_disconnected(reason, &detail),
            Event::Message { topic, payload } => self.on_message(&topic, payload),
            Event::Progress { token, done, total } => self.on_progress(token, done, total),
            Event::TargetRestarted(file) => self.on_target_restarted(file),
            Event::Command(command) => self.on_command(command),
            Event::Allowance(bytes_per_s) => self.on_allowance(bytes_per_s),
            Event::Custom { name, bytes } => self.on_custom_event(&name, &bytes),
            // HTTP is not asked for by this build, so an answer is nobody's; time is looked at below.
            Event::HttpResponse { .. } | Event::Timeout => {}
        }
        self.fire_due();
        self.advance();
    }

    /// The next thing to do, until none is left. The binding calls the import and then [`Self::bind`] or
    /// [`Self::handle`] with [`Event::Ended`]; orders with op 0 have no end.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.orders.pop_front()
    }

    /// An action goes on under this token.
    pub fn bind(&mut self, op: Op, token: Token) {
        self.ops.bind(op, token);
    }

    /// When to call [`Self::handle`] with [`Event::Timeout`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<InstantMs> {
        self.true_deadline().or_else(|| self.fallback_deadline())
    }

    fn true_deadline(&self) -> Option<InstantMs> {
        if matches!(self.state, State::Suspended | State::Stopped) {
            return None;
        }
        let download = self
            .transfer
            .as_ref()
            .and_then(|transfer| transfer.deadline());
        [self.timers.first(), self.ops.first_deadline(), download]
            .into_iter()
            .flatten()
            .min()
    }

    /// A state that must not wait without a deadline and has none is a mistake in here; this keeps it from hanging.
    fn fallback_deadline(&self) -> Option<InstantMs> {
        let exempt = match self.state {
            State::Suspended | State::Stopped => true,
            State::WaitingForJob => self.is_idle(),
            State::Init
            | State::Ready
            | State::RequestingJob
            | State::CreatingFile
            | State::RequestingFileBlock
            | State::WaitingForFileBlock
            | State::ClosingFile
            | State::ShuttingDown
            | State::Installing
            | State::WaitingForActivation
            | State::WaitingForRestart
            | State::Testing
            | State::Committing
            | State::GoingBack
            | State::Reporting => false,
        };
        (!exempt).then(|| self.now + self.settings.number(Key::RequestTimeout))
    }

    fn is_idle(&self) -> bool {
        self.job.is_none() && self.offered.is_none() && self.connected
    }

    /// What the last call leaves behind; each change is told once.
    pub fn turn(&mut self) -> Turn {
        Turn {
            deadline: self.deadline(),
            status: self.changed_status(),
            wait: self.changed_wait(),
            refused: self.view.refused.take(),
        }
    }

    /// What the agent is doing, with counters as of now.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.view_status()
    }

    /// Everything that another instance needs to go on.
    #[must_use]
    pub fn snapshot(&self, context: Context) -> Blob {
        self.save_snapshot(self.now.max(context.now_ms))
    }

    /// Orders something that has no end.
    fn order_once(&mut self, order: Order) {
        self.orders.push_back(Action { op: 0, order });
    }

    fn order(&mut self, order: Order, doing: Doing) {
        let wait = match doing {
            Doing::Subscribe(_)
            | Doing::Unsubscribe
            | Doing::Ask
            | Doing::Status
            | Doing::Progress
            | Doing::Blocks => 3 * self.settings.number(Key::RequestTimeout),
            Doing::Journal => 6 * self.settings.number(Key::RequestTimeout),
            // The last look at a target that is late must not take as long as an installation.
            Doing::Duty(file, Duty::State) if self.is_late(file) => {
                self.settings.number(Key::RequestTimeout)
            }
            Doing::Duty(..) | Doing::Write(..) => self.settings.number(Key::OperationDeadline),
        };
        let op = self.ops.begin(doing, self.now.saturating_add(wait));
        self.orders.push_back(Action { op, order });
    }

    fn log(&mut self, level: Level, parts: &[&str]) {
        let text = parts.concat();
        self.order_once(Order::Log { level, text });
    }

    /// The only place that assigns the state.
    fn set_state(&mut self, event: Cause, next: State) {
        let known = table::allows(self.state, event, next);
        let level = match (known, next) {
            (false, _) => Level::Error,
            // The story for people begins with Ready.
            (true, State::Ready) => Level::Debug,
            (true, _) => Level::Info,
        };
        let from = self.state.name();
        let parts = [
            "state [",
            from,
            "] event [",
            event.name(),
            "] new state [",
            next.name(),
            "]",
        ];
        self.log(level, &parts);
        self.state = next;
        self.view.last_error = None;
        if !known {
            self.fault(1);
        }
    }

    /// An impossible case: the job fails, the agent lives. Under test it is a mistake to be found.
    fn fault(&mut self, at: u32) {
        assert!(!cfg!(test), "impossible case {at} in {:?}", self.state);
        let failure = Failure::new(
            OtadErr::Fault.code() as u8,
            at,
            "impossible case in the agent",
        );
        self.fail_with_numbers(failure);
    }

    fn fire_due(&mut self) {
        if self.suspended_since.is_some() && self.state != State::ShuttingDown {
            return;
        }
        while let Some(doing) = self.ops.take_overdue(self.now) {
            let sub = match doing {
                Doing::Duty(file, _) | Doing::Write(file, _) => file,
                Doing::Subscribe(_)
                | Doing::Unsubscribe
                | Doing::Ask
                | Doing::Status
                | Doing::Progress
                | Doing::Blocks
                | Doing::Journal => 0,
            };
            let code = OtadErr::OperationTimeout.code() as u8;
            let failure = Failure::new(code, sub, "the host did not end the operation in time");
            self.on_ended(doing, Outcome::Failed(failure));
        }
        while let Some(timer) = self.timers.take_due(self.now) {
            self.on_timer(timer);
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Ask => self.on_ask_timeout(),
            Timer::Poll => self.asking.next = true,
            Timer::Status => self.on_status_timeout(),
            Timer::Restart => self.on_restart_timeout(),
            Timer::Test => self.on_test_timeout(),
            Timer::Reminder => self.on_reminder(),
            Timer::Limit => self.on_activation_timeout(),
            Timer::Offer => self.on_offer_timer(),
            Timer::Custom => self.on_custom_timeout(),
            Timer::Shutdown => self.ops.forget(|doing| doing == Doing::Unsubscribe),
            // These only hold something back; the next step finds them gone.
            Timer::Subscribe | Timer::Journal | Timer::Link | Timer::Retry => {}
        }
    }

    fn on_ended(&mut self, doing: Doing, outcome: Outcome) {
        match doing {
            Doing::Subscribe(id) => self.on_subscribed(id, nothing(outcome)),
            Doing::Unsubscribe | Doing::Progress => {}
            Doing::Ask => self.on_asked(nothing(outcome)),
            Doing::Status => self.on_status_published(nothing(outcome)),
            Doing::Blocks => self.on_blocks_requested(nothing(outcome)),
            Doing::Write(file, index) => self.on_written(file, index, nothing(outcome)),
            Doing::Journal => self.on_journal_stored(nothing(outcome)),
            Doing::Duty(file, duty) => self.on_duty_ended(file, duty, outcome),
        }
    }

    /// Looks at the facts until nothing more follows from them.
    fn advance(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                // What the last step has told waits for a journal that nothing else would store.
                self.flush_journal();
                return;
            }
        }
        self.fault(2);
    }

    /// One step; true if the facts have changed.
    fn step(&mut self) -> bool {
        if self.state == State::Stopped {
            return false;
        }
        self.flush_journal();
        if self.state == State::ShuttingDown {
            return self.step_shutdown();
        }
        if self.suspended_since.is_some() {
            if self.state != State::Suspended {
                self.set_state(Cause::Suspend, State::Suspended);
            }
            return false;
        }
        if self.state != State::Init && self.step_failing() {
            return true;
        }
        self.step_link();
        self.step_ask();
        self.step_probes();
        match self.state {
            State::Init => self.step_init(),
            State::Ready => self.step_ready(),
            State::RequestingJob => self.step_unclaimed(),
            State::WaitingForJob => self.step_waiting_for_job(),
            State::CreatingFile => self.step_creating(),
            State::RequestingFileBlock => self.step_requesting(),
            State::WaitingForFileBlock => self.step_waiting_for_block(),
            State::ClosingFile => self.step_closing(),
            State::Installing => self.step_installing(),
            State::WaitingForActivation => self.step_waiting_for_activation(),
            State::WaitingForRestart => self.step_waiting_for_restart(),
            State::Testing => self.step_testing(),
            State::Committing => self.step_committing(),
            State::GoingBack => self.step_going_back(),
            State::Reporting => self.step_reporting(),
            State::Suspended | State::ShuttingDown | State::Stopped => false,
        }
    }

    fn step_link(&mut self) {
        if self.connected || self.state == State::Init {
            self.timers.stop(Timer::Link);
        } else if !self.timers.runs(Timer::Link) {
            let at = self.now.saturating_add(self.settings.number(Key::RetryMax));
            self.timers.set(Timer::Link, at);
        }
    }

    fn step_ready(&mut self) -> bool {
        if self
            .job
            .as_ref()
            .is_some_and(|job| job.stage == Stage::Back)
        {
            self.set_state(Cause::ImageUnclaimed, State::GoingBack);
            return true;
        }
        if !self.connected {
            return false;
        }
        self.begun = true;
        self.relinked = false;
        self.asking.next = true;
        self.log(
            Level::Info,
            &[
                "agent ready, device ",
                &String::from(self.settings.thing.as_str()),
            ],
        );
        self.set_state(Cause::Start, State::RequestingJob);
        true
    }

    fn step_shutdown(&mut self) -> bool {
        let waits = self
            .ops
            .any(|doing| matches!(doing, Doing::Unsubscribe | Doing::Journal));
        if waits && self.timers.runs(Timer::Shutdown) {
            return false;
        }
        self.timers = Timers::default();
        self.set_state(Cause::Unsubscribed, State::Stopped);
        true
    }

    /// Where the agent goes on with what it has, after a suspension.
    fn natural_state(&self) -> State {
        if !self.asked_all {
            return State::Init;
        }
        let early = |job: &Job| matches!(job.stage, Stage::Taken | Stage::Custom);
        if !self.begun && self.job.as_ref().is_none_or(early) {
            return State::Ready;
        }
        self.job
            .as_ref()
            .map_or(State::RequestingJob, |job| self.natural_state_of(job))
    }

    fn is_late(&self, file: FileId) -> bool {
        let files = self.job.iter().flat_map(|job| &job.files);
        files.into_iter().any(|of| of.id == file && of.late)
    }
}

/// An outcome that has nothing to tell. A host that tells something else is not believed.
fn nothing(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Nothing => Ok(()),
        Outcome::Failed(failure) => Err(failure),
        Outcome::Held(_) | Outcome::Verified(_) | Outcome::State(_) | Outcome::Other(_) => {
            Err(wrong_outcome())
        }
    }
}

/// The host ended an operation with something that does not belong to it.
fn wrong_outcome() -> Failure {
    Failure::new(
        OtadErr::Fault.code() as u8,
        3,
        "the host ended an operation with a wrong outcome",
    )
}

/// Notes that what the journal must hold has changed.
impl Agent {
    fn touch_journal(&mut self) {
        self.journal.dirty = true;
    }

    fn on_progress(&mut self, token: Token, done: u64, total: u64) {
        let deadline = self
            .now
            .saturating_add(self.settings.number(Key::OperationDeadline));
        let Some(pending) = self.ops.of_token(token) else {
            return;
        };
        pending.deadline = pending.deadline.max(deadline);
        if let Doing::Duty(file, Duty::Install) = pending.doing
            && let Some(file) = self.job.as_mut().and_then(|job| job.file(file))
        {
            file.installed = (done.min(total.max(done)), total);
        }
    }

    fn on_command(&mut self, command: Command) {
        if let Err(refused) = self.obey(command) {
            let code = alloc::string::String::from(&refused.detail);
            self.log(Level::Warn, &["command refused: ", &code]);
            self.view.refused = Some(refused);
        }
    }
}
