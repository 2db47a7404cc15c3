//! A tap on an agent's boundary: every call of the host, what the agent called in it with which answers, how it ended.
//!
//! ```text
//!   device ──▶ Tapped ──▶ agent          one Exchange a call of the host,
//!                 │         │            in order, to the Listener:
//!                 ▼         ▼            a recorder, or a shadow
//!             Listener   Ear ──▶ outside
//! ```
//!
//! The agent and the device do not notice. A listener may ask for a fresh start, so that what it keeps begins with one: the
//! instance is then replaced by one started from its snapshot, as in a swap. Not here: what becomes of exchanges
//! (`record.rs`, `shadow.rs`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::octets;
use super::{
    AgentBuild, AgentInstance, AgentStatus, ApplicationEvent, Context, Event, Outside, Saved,
    StartInfo, Turn,
};
use crate::engine::GuestFault;
use crate::target::VerifiedRef;
use crate::types::{
    Blob, Failure, FileId, FileSpec, ImageInfo, Level, Outcome, Qos, Started, Token,
};

/// Most bytes of the calls of one exchange that are kept. The most that is needed are the bitmaps of 16 files that are
/// opened again, with 2^20 blocks each, 2 MiB; an agent may hand over more than a gigabyte in one call.
const KEPT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What the host asks of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// `start`, of a fresh instance.
    Start(Box<StartInfo>),
    /// `handle`.
    Event(Event),
    /// `status`.
    Status,
    /// `snapshot`.
    Snapshot,
}

/// Bytes of an image or of a saved state: only how many, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Bytes.
    pub length: u64,
    /// CRC-32C.
    pub crc: u32,
}

impl Bulk {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            crc: crc32c::crc32c(bytes),
        }
    }
}

/// What an agent asks of the host: one call of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// `transport.subscribe`.
    Subscribe {
        /// Filter.
        filter: String,
        /// Quality of service.
        qos: Qos,
    },
    /// `transport.unsubscribe`.
    Unsubscribe(String),
    /// `transport.publish`.
    Publish {
        /// Topic.
        topic: String,
        /// Payload.
        #[serde(with = "octets")]
        payload: Vec<u8>,
        /// Quality of service.
        qos: Qos,
    },
    /// `transport.http-get`.
    HttpGet {
        /// Address.
        url: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// `transport.cancel`.
    Cancel(Token),
    /// `pal.create`.
    Create(Box<FileSpec>),
    /// `pal.reopen`.
    Reopen {
        /// The job.
        job_id: String,
        /// The target.
        file: FileId,
    },
    /// `pal.write-block`.
    WriteBlock {
        /// The target.
        file: FileId,
        /// First byte.
        offset: u64,
        /// The block.
        data: Bulk,
    },
    /// `pal.close`.
    Close(FileId),
    /// `pal.verified`.
    Verified(FileId),
    /// `pal.install`.
    Install(FileId),
    /// `pal.activate`.
    Activate(FileId),
    /// `pal.reset`.
    Reset(FileId),
    /// `pal.self-test`.
    SelfTest(FileId),
    /// `pal.commit`.
    Commit(FileId),
    /// `pal.reject`.
    Reject(FileId),
    /// `pal.state`.
    State(FileId),
    /// `pal.abort`.
    Abort(FileId),
    /// `os.journal-store`.
    JournalStore {
        /// Encoding.
        schema: u32,
        /// The state.
        state: Bulk,
    },
    /// `os.log`.
    Log {
        /// Severity.
        level: Level,
        /// Line.
        text: String,
    },
    /// `os.emit`.
    Emit(Box<ApplicationEvent>),
}

impl Order {
    /// Bytes of what it carries, where an agent says how many.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Subscribe { filter, .. } | Self::Unsubscribe(filter) => filter.len(),
            Self::Publish { topic, payload, .. } => topic.len() + payload.len(),
            Self::HttpGet { url, .. } => url.len(),
            Self::Create(spec) => {
                let texts = [
                    &spec.job_id,
                    &spec.path,
                    &spec.certificate,
                    &spec.signature_kind,
                ];
                texts.iter().map(|text| text.len()).sum::<usize>() + spec.signature.len()
            }
            Self::Reopen { job_id, .. } => job_id.len(),
            Self::Log { text, .. } => text.len(),
            Self::Emit(event) => event.document.len(),
            Self::Cancel(_)
            | Self::WriteBlock { .. }
            | Self::Close(_)
            | Self::Verified(_)
            | Self::Install(_)
            | Self::Activate(_)
            | Self::Reset(_)
            | Self::SelfTest(_)
            | Self::Commit(_)
            | Self::Reject(_)
            | Self::State(_)
            | Self::Abort(_)
            | Self::JournalStore { .. } => 0,
        }
    }
}

/// What the host answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing is.
    None,
    /// The operation goes on under this token.
    Token(Token),
    /// It is over, or goes on.
    Started(Started),
    /// A proof of this.
    Proof(Box<ImageInfo>),
    /// No proof.
    NoProof(Failure),
}

impl Answer {
    /// Bytes of what it carries.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Started(Started::Done(Outcome::Held(bytes) | Outcome::Other(bytes))) => {
                bytes.len()
            }
            Self::None | Self::Token(_) | Self::Started(_) | Self::Proof(_) | Self::NoProof(_) => 0,
        }
    }
}

/// How a call of the host ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// With a turn.
    Turn(Box<Turn>),
    /// The start was refused.
    Refused(Failure),
    /// With the status.
    Status(Box<AgentStatus>),
    /// With a snapshot.
    Snapshot {
        /// Encoding.
        schema: u32,
        /// The state.
        state: Bulk,
    },
    /// The agent broke.
    Broken(String),
}

/// One call of the host, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// When.
    pub at: Context,
    /// What was asked.
    pub ask: Ask,
    /// What the agent called in it, with the answers, in order.
    pub calls: Vec<(Order, Answer)>,
    /// How it ended.
    pub end: End,
}

/// Hears exchanges. It is called between two calls of the agent and must not take long.
pub trait Listener: Send {
    /// One is over.
    fn hear(&mut self, exchange: Exchange);

    /// One is over of which more than is kept was said: what comes now does not follow from what was heard.
    fn miss(&mut self);

    /// More exchanges follow before the device waits for something; or no more do.
    fn gather(&mut self, _more_comes: bool) {}

    /// Whether the next exchange is to be a start: what was heard so far is to end.
    fn wants_start(&self) -> bool {
        false
    }

    /// Whether it still hears; if not, nothing more is kept for it.
    fn is_listening(&self) -> bool {
        true
    }
}

/// A listener of all instances of one device's agent, one after the other.
pub type Ears = Arc<Mutex<dyn Listener>>;

/// The same build, whose instances are listened to.
#[must_use]
pub fn tapped(build: &Arc<AgentBuild>, ears: Ears) -> Arc<AgentBuild> {
    let inner = Arc::clone(build);
    build.behind(move |outside| {
        let shared: Shared = Arc::new(Mutex::new(Heard {
            outside,
            calls: Vec::new(),
            kept_bytes: 0,
            open: BTreeSet::new(),
            last_event: 0,
            keeps: false,
        }));
        let instance = inner.instantiate(Box::new(Ear(Arc::clone(&shared))))?;
        Ok(Box::new(Tapped {
            build: Arc::clone(&inner),
            instance,
            heard: shared,
            ears: Arc::clone(&ears),
            start: None,
        }))
    })
}

/// What an instance calls, and its books.
struct Heard {
    outside: Box<dyn Outside>,
    calls: Vec<(Order, Answer)>,
    /// What they carry; above [`KEPT_MAX_BYTES`] some are left out.
    kept_bytes: usize,
    /// Operations under way.
    open: BTreeSet<Token>,
    last_event: u64,
    /// Somebody wants to know.
    keeps: bool,
}

impl Heard {
    fn keep(&mut self, order: Order, answer: Answer) {
        let bytes = order.bytes() + answer.bytes();
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        if self.kept_bytes <= KEPT_MAX_BYTES {
            self.calls.push((order, answer));
        }
    }
}

type Shared = Arc<Mutex<Heard>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Heard> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Tapped {
    build: Arc<AgentBuild>,
    instance: Box<dyn AgentInstance>,
    heard: Shared,
    ears: Ears,
    /// What it was started with, for a fresh start.
    start: Option<StartInfo>,
}

impl Tapped {
    fn ears(&self) -> MutexGuard<'_, dyn Listener + 'static> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Make a call of the agent. `ask` is made only for a listener that listens.
    fn exchange<R>(
        &mut self,
        at: Context,
        ask: impl FnOnce() -> Ask,
        call: impl FnOnce(&mut dyn AgentInstance) -> Result<R, GuestFault>,
        end: impl FnOnce(&R) -> End,
    ) -> Result<R, GuestFault> {
        let keeps = self.ears().is_listening();
        {
            let mut heard = lock(&self.heard);
            heard.keeps = keeps;
            heard.calls.clear();
            heard.kept_bytes = 0;
        }
        if !keeps {
            return call(&mut *self.instance);
        }
        let ask = ask();
        let result = call(&mut *self.instance);
        let end = match &result {
            Ok(result) => end(result),
            Err(fault) => End::Broken(fault.to_string()),
        };
        let (calls, is_whole) = {
            let mut heard = lock(&self.heard);
            let is_whole = heard.kept_bytes <= KEPT_MAX_BYTES;
            (std::mem::take(&mut heard.calls), is_whole)
        };
        if is_whole {
            self.ears().hear(Exchange {
                at,
                ask,
                calls,
                end,
            });
        } else {
            self.ears().miss();
        }
        result
    }

    /// Replace the instance by one started from its snapshot, if the listener wants to begin anew. What cannot be is
    /// left as it is: listening never costs an agent.
    fn refresh(&mut self, at: Context) -> Option<Turn> {
        if !self.ears().wants_start() {
            return None;
        }
        let mut info = self.start.clone()?;
        let saved = self.instance.snapshot(at).ok()?;
        {
            let heard = lock(&self.heard);
            info.outstanding = heard.open.iter().copied().collect();
            info.last_event = heard.last_event;
        }
        // Another start is another seed, as anywhere; this one follows from the one before, so that nothing new is
        // random here.
        info.seed = info.seed.wrapping_mul(SEED_STEP).wrapping_add(1);
        info.saved = Saved::Snapshot(saved);
        let fresh = self
            .build
            .instantiate(Box::new(Ear(Arc::clone(&self.heard))))
            .ok()?;
        let old = std::mem::replace(&mut self.instance, fresh);
        match self.begin(at, info) {
            Ok(Ok(turn)) => Some(turn),
            Ok(Err(_)) | Err(_) => {
                self.instance = old;
                None
            }
        }
    }

    fn begin(&mut self, at: Context, info: StartInfo) -> Result<Result<Turn, Failure>, GuestFault> {
        {
            let mut heard = lock(&self.heard);
            heard.open = info.outstanding.iter().copied().collect();
            heard.last_event = info.last_event;
        }
        self.start = Some(StartInfo {
            saved: Saved::None,
            ..info.clone()
        });
        let asked = info.clone();
        self.exchange(
            at,
            || Ask::Start(Box::new(asked)),
            |agent| agent.start(at, info),
            |result| match result {
                Ok(turn) => End::Turn(Box::new(turn.clone())),
                Err(failure) => End::Refused(failure.clone()),
            },
        )
    }
}

/// The multiplier of Knuth's MMIX generator.
const SEED_STEP: u64 = 6_364_136_223_846_793_005;

impl AgentInstance for Tapped {
    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        self.begin(context, info)
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        if let Event::Done { token, .. } | Event::HttpResponse { token, .. } = &event {
            lock(&self.heard).open.remove(token);
        }
        let listening = self.ears().is_listening();
        let asked = listening.then(|| event.clone());
        let mut turn = self.exchange(
            context,
            || Ask::Event(asked.unwrap_or(Event::Timeout)),
            |agent| agent.handle(context, event),
            |turn| End::Turn(Box::new(turn.clone())),
        )?;
        if let Some(fresh) = self.refresh(context) {
            let refused = turn.refused.take();
            let (status, wait) = (turn.status.take(), turn.wait.take());
            turn = Turn {
                refused,
                status: fresh.status.or(status),
                wait: fresh.wait.or(wait),
                deadline_ms: fresh.deadline_ms,
            };
        }
        Ok(turn)
    }

    fn status(&mut self) -> Result<AgentStatus, GuestFault> {
        self.exchange(
            Context::default(),
            || Ask::Status,
            |agent| agent.status(),
            |status| End::Status(Box::new(status.clone())),
        )
    }

    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        self.exchange(
            context,
            || Ask::Snapshot,
            |agent| agent.snapshot(context),
            |blob| End::Snapshot {
                schema: blob.schema,
                state: Bulk::of(&blob.bytes),
            },
        )
    }

    fn memory_bytes(&mut self) -> usize {
        self.instance.memory_bytes()
    }

    fn gather(&mut self, more_comes: bool) {
        self.ears().gather(more_comes);
        self.instance.gather(more_comes);
    }
}

/// Whoever replaces an instance says no more of it.
impl Drop for Tapped {
    fn drop(&mut self) {
        self.ears().gather(false);
    }
}

/// The outside of an agent that is listened to.
struct Ear(Shared);

impl Ear {
    fn token(
        &mut self,
        order: impl FnOnce() -> Order,
        call: impl FnOnce(&mut dyn Outside) -> Token,
    ) -> Token {
        let mut heard = lock(&self.0);
        // Before the call: it takes what the order says.
        let order = heard.keeps.then(order);
        let token = call(&mut *heard.outside);
        heard.open.insert(token);
        if let Some(order) = order {
            heard.keep(order, Answer::Token(token));
        }
        token
    }

    fn started(
        &mut self,
        order: impl FnOnce() -> Order,
        call: impl FnOnce(&mut dyn Outside) -> Started,
    ) -> Started {
        let mut heard = lock(&self.0);
        let order = heard.keeps.then(order);
        let started = call(&mut *heard.outside);
        if let Started::Pending(token) = &started {
            heard.open.insert(*token);
        }
        if let Some(order) = order {
            heard.keep(order, Answer::Started(started.clone()));
        }
        started
    }

    fn of_file(&mut self, order: Order, call: impl FnOnce(&mut dyn Outside) -> Started) -> Started {
        self.started(|| order, call)
    }
}

impl Outside for Ear {
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token {
        let order = Order::Subscribe {
            filter: filter.clone(),
            qos,
        };
        self.token(|| order, |outside| outside.subscribe(filter, qos))
    }

    fn unsubscribe(&mut self, filter: String) -> Token {
        let order = Order::Unsubscribe(filter.clone());
        self.token(|| order, |outside| outside.unsubscribe(filter))
    }

    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        let order = Order::Publish {
            topic: topic.clone(),
            payload: payload.clone(),
            qos,
        };
        self.token(|| order, |outside| outside.publish(topic, payload, qos))
    }

    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token {
        let order = Order::HttpGet {
            url: url.clone(),
            offset,
            length,
        };
        self.token(|| order, |outside| outside.http_get(url, offset, length))
    }

    fn cancel(&mut self, token: Token) {
        let mut heard = lock(&self.0);
        heard.outside.cancel(token);
        if heard.keeps {
            heard.keep(Order::Cancel(token), Answer::None);
        }
    }

    fn create(&mut self, spec: FileSpec) -> Started {
        let order = Order::Create(Box::new(spec.clone()));
        self.started(|| order, |outside| outside.create(spec))
    }

    fn reopen(&mut self, job_id: String, file: FileId) -> Started {
        let order = Order::Reopen {
            job_id: job_id.clone(),
            file,
        };
        self.started(|| order, |outside| outside.reopen(job_id, file))
    }

    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let keeps = lock(&self.0).keeps;
        let data_of = keeps.then(|| Bulk::of(data));
        let order = || Order::WriteBlock {
            file,
            offset,
            data: data_of.unwrap_or(Bulk { length: 0, crc: 0 }),
        };
        self.started(order, |outside| outside.write_block(file, offset, data))
    }

    fn close(&mut self, file: FileId) -> Started {
        self.of_file(Order::Close(file), |outside| outside.close(file))
    }

    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        let mut heard = lock(&self.0);
        let result = heard.outside.verified(file);
        if heard.keeps {
            let answer = match &result {
                Ok(image) => Answer::Proof(Box::new(image.info().clone())),
                Err(failure) => Answer::NoProof(failure.clone()),
            };
            heard.keep(Order::Verified(file), answer);
        }
        result
    }

    fn install(&mut self, image: &VerifiedRef) -> Started {
        let order = Order::Install(image.file());
        self.of_file(order, |outside| outside.install(image))
    }

    fn activate(&mut self, image: &VerifiedRef) -> Started {
        let order = Order::Activate(image.file());
        self.of_file(order, |outside| outside.activate(image))
    }

    fn reset(&mut self, file: FileId) -> Started {
        self.of_file(Order::Reset(file), |outside| outside.reset(file))
    }

    fn self_test(&mut self, file: FileId) -> Started {
        self.of_file(Order::SelfTest(file), |outside| outside.self_test(file))
    }

    fn commit(&mut self, file: FileId) -> Started {
        self.of_file(Order::Commit(file), |outside| outside.commit(file))
    }

    fn reject(&mut self, file: FileId) -> Started {
        self.of_file(Order::Reject(file), |outside| outside.reject(file))
    }

    fn state(&mut self, file: FileId) -> Started {
        self.of_file(Order::State(file), |outside| outside.state(file))
    }

    fn abort(&mut self, file: FileId) -> Started {
        self.of_file(Order::Abort(file), |outside| outside.abort(file))
    }

    fn journal_store(&mut self, journal: Blob) -> Token {
        let order = Order::JournalStore {
            schema: journal.schema,
            state: Bulk::of(&journal.bytes),
        };
        self.token(|| order, |outside| outside.journal_store(journal))
    }

    fn log(&mut self, level: Level, text: String) {
        let mut heard = lock(&self.0);
        if heard.keeps {
            let text = text.clone();
            heard.keep(Order::Log { level, text }, Answer::None);
        }
        heard.outside.log(level, text);
    }

    fn emit(&mut self, event: ApplicationEvent) {
        let mut heard = lock(&self.0);
        heard.last_event = heard.last_event.max(event.sequence);
        if heard.keeps {
            let event = Box::new(event.clone());
            heard.keep(Order::Emit(event), Answer::None);
        }
        heard.outside.emit(event);
    }
}

/// What an agent is told that has lost the one it follows.
pub(crate) fn lost() -> Failure {
    Failure::new(
        crate::types::code::UNSUPPORTED,
        0,
        "there is nothing to follow any more",
    )
}

/// As above, for a call that takes time.
pub(crate) fn lost_call() -> Started {
    Started::Done(Outcome::Failed(lost()))
}
