//! The orchestrator: one device, one job at a time, any number of files in it.
//!
//! ```text
//!  handle(event) --> facts: phases, answers, timers      advance() --> orders, set_state(event, next)
//!       |                     ^                              |              |
//!       +---------------------+------------------------------+        table.rs checks it
//! ```
//!
//! An event only records facts. `advance` then looks at the facts and orders what is due and not under way, so a lost
//! operation, a restart, a resume and a reconnect all end in the same code. It knows no socket, no storage and no
//! clock; it does not verify images and does not decide what a plugin does. States are the C agent's numbers; what a
//! state needs is in the job and its files (`job.rs`), where it also survives. Reasons are numbers in here and get
//! their text on the way out, because the guest has 96 KiB.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;

use crate::code::State;
use crate::jobs::ClientTokens;
use crate::settings::{Key, Settings};
use crate::types::{
    Action, AgentStatus, Blob, Context, Description, Event, Failure, FileId, InstantMs, Level, Op,
    Order, Saved, StartInfo, Token, Turn,
};

mod answer;
mod codec;
mod command;
mod drive;
mod fields;
mod job;
mod lines;
mod look;
mod news;
mod offer;
mod ops;
mod range;
pub mod recover;
mod report;
mod request;
mod said;
mod saved;
mod stages;
mod step;
pub mod table;
mod timer;
mod transfer;
mod view;

#[cfg(test)]
mod tests;

pub use job::FilePhase;
pub use saved::JOURNAL_MAX_BYTES;
pub use timer::Timer;

use command::Refusal;
use job::{Job, JobFile, Probe, Stage};
use lines::{Line, Why};
use news::{Journal, News};
use ops::{Deed, Ops, Pending};
use report::Reporter;
use request::{Asking, Subscriptions};
use stages::Style;
use table::Cause;
use timer::{NEVER, Random, RoundTrip, Timers};
use transfer::Transfer;
use view::View;

/// Schemas of saved states that this build reads and writes, the best one first.
pub const SCHEMAS: &[u32] = &[2, 1];

/// Most jobs that are remembered as over or as somebody else's.
const SEEN_MAX: usize = 8;

/// Longest time between two tries in a self-test, which by default lasts ten times as long: a good image does not go back
/// for a few lost packets.
const TEST_RETRY_MAX_MS: u64 = 30_000;

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
    /// All targets have been asked since the start, and the journal's job has met them.
    asked_all: bool,
    /// An uncommitted image runs at the start and the journal has no job.
    unclaimed: bool,
    /// [`NEVER`] = not suspended.
    suspended_since: InstantMs,
    orders: Vec<Action>,
    ops: Ops,
    timers: Timers,
    random: Random,
    round_trip: RoundTrip,
    tokens: ClientTokens,
    probes: Vec<Probe>,
    subscriptions: Subscriptions,
    asking: Asking,
    reporter: Reporter,
    job: Job,
    transfer: Option<Transfer>,
    /// Jobs that are over: a late notification of one is only a hint to ask.
    seen: Vec<String>,
    /// Jobs that were left to others.
    left: Vec<String>,
    journal: Journal,
    news: News,
    view: View,
    /// What was said about a failure last, in full.
    heard: Failure,
    /// Tries of an operation that a busy target refused.
    busy: u32,
    /// This device's share of the bandwidth, [`NEVER`] = no cap.
    allowance: u64,
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
        #[cfg(feature = "mutants")]
        crate::mutant::choose(&info.config);
        let settings = Settings::read(&info.config)?;
        if !SCHEMAS.contains(&info.schema) {
            return Err(saved::unknown_schema(info.schema));
        }
        let agent = Self::new(settings, info.schema, info.seed, context.now_ms);
        let mut agent = ManuallyDrop::new(agent);
        let loaded = match &info.saved {
            Saved::None => Ok(()),
            Saved::Journal(blob) => agent.load_journal(blob),
            Saved::Snapshot(blob) => agent.load_snapshot(blob, &info.outstanding),
        };
        if let Err(failure) = loaded {
            // A component whose start was refused is thrown away whole: the code that gives back piece by piece stays out.
            if cfg!(not(target_family = "wasm")) {
                drop(ManuallyDrop::into_inner(agent));
            }
            return Err(failure);
        }
        agent.news.go_on_after(info.last_event);
        agent.greet();
        agent.advance();
        Ok(ManuallyDrop::into_inner(agent))
    }

    fn new(settings: Settings, schema: u32, seed: u64, now: InstantMs) -> Self {
        let probe = |file| Probe {
            file,
            ..Probe::default()
        };
        Self {
            probes: settings
                .targets
                .iter()
                .map(|target| probe(target.file))
                .collect(),
            subscriptions: Subscriptions::new(settings.subscribe_replies),
            settings,
            schema,
            state: State::Init,
            now,
            connected: false,
            relinked: false,
            begun: false,
            asked_all: false,
            unclaimed: false,
            suspended_since: NEVER,
            orders: Vec::new(),
            ops: Ops::default(),
            timers: Timers::new(),
            random: Random(seed),
            round_trip: RoundTrip::default(),
            tokens: ClientTokens::new(seed),
            asking: Asking::default(),
            reporter: Reporter::default(),
            job: Job::new(None, Stage::Idle),
            transfer: None,
            seen: Vec::new(),
            left: Vec::new(),
            journal: Journal::default(),
            news: News::default(),
            view: View::default(),
            heard: Failure::default(),
            busy: 0,
            allowance: NEVER,
        }
    }

    fn greet(&mut self) {
        let device = String::from(self.settings.thing.as_str());
        self.note_text(Line::Greeting, &device);
        while let Some(key) = take_first(&mut self.settings.unknown) {
            self.note_text(Line::UnknownSetting, &key);
        }
        if self.job.is_taken() {
            self.note_job(Line::GoingOn);
        }
    }

    /// Something happened.
    pub fn handle(&mut self, context: Context, event: Event) {
        self.now = self.now.max(context.now_ms);
        if let Some(wall_s) = context.wall_s.filter(|_| mutant!(WallClockTimer)) {
            self.now = wall_s.saturating_mul(1000);
        }
        match event {
            Event::Ended { op, outcome } => {
                if let Some(pending) = self.ops.take_op(op) {
                    self.on_ended(pending, &outcome);
                }
            }
            Event::Done { token, outcome } => {
                if let Some(pending) = self.ops.take_token(token) {
                    self.on_ended(pending, &outcome);
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
            Event::HttpResponse {
                token,
                status,
                total,
                body,
            } => self.on_range(token, status, total, &body),
            // Time is looked at below.
            Event::Timeout => {}
        }
        self.fire_due();
        self.advance();
    }

    /// The next thing to do, until none is left. The binding calls the import and then [`Self::bind`] or
    /// [`Self::handle`] with [`Event::Ended`]; orders with op 0 have no end.
    pub fn poll_action(&mut self) -> Option<Action> {
        take_first(&mut self.orders)
    }

    /// An action goes on under this token.
    pub fn bind(&mut self, op: Op, token: Token) {
        self.ops.bind(op, token);
    }

    /// When to call [`Self::handle`] with [`Event::Timeout`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<InstantMs> {
        let deadline = self.true_deadline();
        if deadline != NEVER {
            return Some(deadline);
        }
        // A state that must not wait without a deadline and has none is a mistake in here, or waits for its share of
        // the bandwidth; this keeps it from hanging.
        let exempt = matches!(self.state, State::Suspended | State::Stopped) || self.is_idle();
        (!exempt).then(|| self.now + self.number(Key::RequestTimeout))
    }

    fn true_deadline(&self) -> InstantMs {
        if matches!(self.state, State::Suspended | State::Stopped) {
            return NEVER;
        }
        let download = self
            .transfer
            .as_ref()
            .and_then(|transfer| transfer.downloader.deadline());
        self.timers
            .first()
            .min(self.ops.first_deadline())
            .min(download.unwrap_or(NEVER))
    }

    fn is_idle(&self) -> bool {
        self.state == State::WaitingForJob && self.job.stage == Stage::Idle && self.connected
    }

    /// What the last call leaves behind; each change is told once.
    pub fn turn(&mut self) -> Turn {
        Turn {
            deadline: self.deadline(),
            status: self.changed_status(),
            wait: self.changed_wait(),
            refused: self.view.refused.take().map(Refusal::failure),
        }
    }

    /// What the agent is doing, with counters as of now.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.view_status()
    }

    /// Everything that another instance needs to go on. Changes nothing.
    pub fn snapshot(&mut self, context: Context) -> Blob {
        self.save(self.now.max(context.now_ms), true)
    }

    /// Orders something that has no end.
    fn order_once(&mut self, order: Order) {
        self.orders.push(Action { op: 0, order });
    }

    fn order(&mut self, order: Order, deed: Deed, file: FileId, index: u32) {
        let request = self.number(Key::RequestTimeout);
        let late = self.job.files.iter().any(|of| of.id == file && of.late);
        let wait = if matches!(deed, Deed::Journal | Deed::Range) {
            6 * request
        } else if deed.is_transport() {
            3 * request
        } else if deed == Deed::State && late {
            // The last look at a target that is late must not take as long as an installation.
            request
        } else {
            self.number(Key::OperationDeadline)
        };
        let deadline = self.now.saturating_add(wait);
        let pending = Pending {
            op: 0,
            token: 0,
            deed,
            file,
            index,
            deadline,
        };
        let op = self.ops.begin(pending);
        self.orders.push(Action { op, order });
    }

    fn number(&self, key: Key) -> u64 {
        self.settings.number(key)
    }

    fn number32(&self, key: Key) -> u32 {
        self.settings.number32(key)
    }

    fn runs(&self, timer: Timer) -> bool {
        self.timers.runs(timer)
    }

    fn stop(&mut self, timer: Timer) {
        self.timers.stop(timer);
    }

    fn stop_all(&mut self, timers: &[Timer]) {
        for timer in timers {
            self.timers.stop(*timer);
        }
    }

    /// Sets a timer by a setting.
    fn arm(&mut self, timer: Timer, key: Key) {
        self.arm_in(timer, self.number(key));
    }

    fn arm_in(&mut self, timer: Timer, wait: u64) {
        self.timers.set(timer, self.now.saturating_add(wait));
    }

    /// Sets a timer unless it runs.
    fn arm_once(&mut self, timer: Timer, key: Key) {
        if !self.runs(timer) {
            self.arm(timer, key);
        }
    }

    /// Time before the next try. The first one waits for the request time-out, or as long as the job service's answers
    /// take.
    fn arm_back_off(&mut self, timer: Timer, tries: u32) {
        let mut base = self.number(Key::RequestTimeout);
        if matches!(timer, Timer::Ask | Timer::Status) {
            base = self.round_trip.patience(base);
        }
        let mut longest = self.number(Key::RetryMax);
        if self.runs(Timer::Test) {
            longest = longest.min(TEST_RETRY_MAX_MS);
        }
        let mut wait = self.random.back_off(base, longest, tries);
        if mutant!(NoBackOff) {
            wait = 0;
        }
        self.arm_in(timer, wait);
    }

    fn file(&mut self, id: FileId) -> Option<&mut JobFile> {
        self.job.file(id)
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
        if self.says(level) {
            let mut text = String::with_capacity(96);
            text.push_str("state [");
            said::push(&mut text, said::STATES + usize::from(self.state.code()));
            text.push_str("] event [");
            said::push(&mut text, said::CAUSES + event as usize);
            text.push_str("] new state [");
            said::push(&mut text, said::STATES + usize::from(next.code()));
            text.push(']');
            self.log(level, text);
        }
        self.state = next;
        self.view.last_error = Why::default();
        if !known {
            self.fault(1);
        }
    }

    /// An impossible case: the job fails, the agent lives. Under test it is a mistake to be found.
    fn fault(&mut self, at: u32) {
        #[cfg(test)]
        panic!("impossible case {at} in {:?}", self.state);
        #[cfg(not(test))]
        self.fail_with_numbers(Why::own(crate::code::OtadErr::Fault, at));
    }
}

/// The oldest of a short list.
fn take_first<T>(list: &mut Vec<T>) -> Option<T> {
    if list.is_empty() {
        None
    } else {
        Some(list.remove(0))
    }
}
