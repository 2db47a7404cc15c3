//! What an agent's calls do: the real [`Outside`] of a device.
//!
//! It owns everything that outlives an instance: tokens, targets, journal, event ring, transport. An instance reaches it
//! through a [`Door`]; the device itself uses it between two calls of the instance, so the lock is never fought for.
//! Not here: events to the agent, and when it is called (`device.rs`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::GuestLog;
use super::pace::Pace;
use super::token::{Owner, Tokens};
use crate::agent::{ApplicationEvent, Context, Outside};
use crate::events::{DOCUMENT_MAX_BYTES, EventRing};
use crate::history::History;
use crate::journal::{JOURNAL_MAX_BYTES, Journal};
use crate::ports::transport::Transport;
use crate::status::{event, event_name};
use crate::target::{Targets, VerifiedRef};
use crate::types::{
    BLOCK_MIN_BYTES, Blob, Failure, FileId, FileSpec, Level, Outcome, Qos, Started, Token,
    WINDOW_MAX_BYTES, code,
};

/// Most bytes of a publish; the limit of AWS IoT and of the contract.
const PAYLOAD_MAX_BYTES: usize = 128 * 1024;

/// Most bytes of a topic or filter. AWS IoT allows 256 after its reserved prefix; the longest names make 291.
const TOPIC_MAX_BYTES: usize = 320;

/// Most bytes of a URL. A pre-signed one has some 1,500.
const URL_MAX_BYTES: usize = 8 * 1024;

/// Most bytes of one range; a window of the contract.
const RANGE_MAX_BYTES: u32 = 128 * 1024;

/// Operations under way at once: a window of the smallest blocks that all wait for a slow target, and all else.
pub(super) const OPERATIONS_MAX: usize =
    WINDOW_MAX_BYTES as usize / BLOCK_MIN_BYTES as usize + 1024;

/// Journal stores in a second. Some 10 are needed in a job of one file; those that wait for the medium become one, so
/// this only stops an agent that does nothing else.
const STORES_PER_S: u32 = 256;

/// Refused calls that an agent is told of in a second; the rest of the answers wait for the next one, so that an agent
/// that tries again at once does not spin.
const REFUSALS_PER_S: u32 = 64;

/// Refusals that may wait after a turn: as many as the calls of one. An agent that collects more does not look at them, and
/// is ended: the host is not its memory.
pub(super) const REFUSALS_MAX: usize = 4096;

/// Numbers of the limits above in `sub` of failure 0xd1; those of the targets begin at 0x11.
mod limit {
    pub(super) const OPERATIONS: u32 = 1;
    pub(super) const JOURNAL: u32 = 2;
    pub(super) const STORES: u32 = 3;
    pub(super) const PAYLOAD: u32 = 4;
    pub(super) const RANGE: u32 = 5;
    pub(super) const URL: u32 = 6;
    pub(super) const TOPIC: u32 = 7;
}

/// So many in a second, by the device's clock.
#[derive(Debug)]
struct Rate {
    max: u32,
    since_ms: u64,
    count: u32,
}

impl Rate {
    fn new(max: u32) -> Self {
        Self {
            max,
            since_ms: 0,
            count: 0,
        }
    }

    /// One more; false if this second has had enough.
    fn admit(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.since_ms) >= 1000 {
            self.since_ms = now_ms;
            self.count = 0;
        }
        self.count += 1;
        self.count <= self.max
    }

    /// When the next second begins.
    fn again_ms(&self) -> u64 {
        self.since_ms + 1000
    }
}

/// What outlives the instances of a device.
pub(super) struct Host {
    /// Topic prefixes that are this device's own.
    pub(super) topics: Vec<String>,
    pub(super) now: Context,
    /// The active job, for log lines.
    pub(super) job: Option<String>,
    /// The jobs whose end the agent has told of in the call under way. What it told in one that broke proves nothing of
    /// whichever build is asked next.
    pub(super) jobs_ended: Vec<String>,
    pub(super) tokens: Tokens,
    pub(super) transport: Box<dyn Transport>,
    pub(super) targets: Targets,
    pub(super) journal: Journal,
    pub(super) events: EventRing,
    pub(super) history: History,
    pub(super) pace: Pace,
    log: GuestLog,
    refusals: VecDeque<(Token, Failure)>,
    refusal_rate: Rate,
    store_rate: Rate,
}

impl Host {
    pub(super) fn new(
        topics: Vec<String>,
        transport: Box<dyn Transport>,
        targets: Targets,
        journal: Journal,
        events: EventRing,
        history: History,
    ) -> Self {
        Self {
            topics,
            now: Context::default(),
            job: None,
            jobs_ended: Vec::new(),
            tokens: Tokens::new(),
            transport,
            targets,
            journal,
            events,
            history,
            pace: Pace::default(),
            log: GuestLog::new(),
            refusals: VecDeque::new(),
            refusal_rate: Rate::new(REFUSALS_PER_S),
            store_rate: Rate::new(STORES_PER_S),
        }
    }

    /// The next refusal that the agent may hear of; otherwise when there will be one.
    pub(super) fn next_refusal(&mut self) -> Result<(Token, Failure), Option<u64>> {
        if self.refusals.is_empty() {
            return Err(None);
        }
        if !self.refusal_rate.admit(self.now.now_ms) {
            return Err(Some(self.refusal_rate.again_ms()));
        }
        let refusal = self.refusals.pop_front().ok_or(None)?;
        self.tokens.close(refusal.0, &[Owner::Refused]);
        Ok(refusal)
    }

    /// A call that fails ends by event like any other.
    fn refuse(&mut self, failure: Failure) -> Token {
        let token = self.tokens.open(Owner::Refused);
        self.end(token, failure);
        token
    }

    /// End an operation that nobody else will, by event.
    fn end(&mut self, token: Token, failure: Failure) {
        self.tokens.give(token, Owner::Refused);
        self.refusals.push_back((token, failure));
    }

    /// Whether the agent has collected more refusals than it may. They end with it: the next instance is told which
    /// operations are still under way, and these are not.
    pub(super) fn drop_too_many_refusals(&mut self) -> bool {
        if self.refusals.len() <= REFUSALS_MAX {
            return false;
        }
        for (token, _) in self.refusals.drain(..) {
            self.tokens.close(token, &[Owner::Refused]);
        }
        true
    }

    /// Give back the room that is not used.
    pub(super) fn shrink(&mut self) {
        self.tokens.shrink();
        self.refusals.shrink_to_fit();
        self.events.shrink();
        self.targets.rest();
    }

    /// Let go what the bandwidth cap held back; returns when to look again.
    pub(super) fn poll_pace(&mut self) -> Option<u64> {
        self.targets.write_out();
        self.pace.poll(self.now, &mut *self.transport)
    }

    /// The connection is gone.
    pub(super) fn disconnect_pace(&mut self) {
        self.pace.on_disconnected(&mut *self.transport);
    }

    /// Begin an operation of the transport, if `check` and the number of operations allow it.
    fn begin(
        &mut self,
        owner: Owner,
        check: Result<(), Failure>,
        call: impl FnOnce(&mut Self, Token),
    ) -> Token {
        match check.and_then(|()| self.operation_free()) {
            Ok(()) => {
                let token = self.tokens.open(owner);
                call(self, token);
                token
            }
            Err(failure) => self.refuse(failure),
        }
    }

    fn operation_free(&self) -> Result<(), Failure> {
        if self.tokens.count() < OPERATIONS_MAX {
            return Ok(());
        }
        let detail = format!("{OPERATIONS_MAX} operations are under way already");
        Err(Failure::new(code::LIMIT, limit::OPERATIONS, detail))
    }

    /// Whether the bandwidth cap may hold back one more call, of so many bytes.
    fn check_room(&self, bytes: usize) -> Result<(), Failure> {
        if self.pace.has_room(bytes) {
            return Ok(());
        }
        let detail = "the bandwidth cap holds too many calls back already";
        Err(Failure::new(code::LIMIT, limit::OPERATIONS, detail))
    }

    /// Whether a topic, or the filter of a subscription, is this device's.
    fn check_topic(&self, topic: &str, is_filter: bool) -> Result<(), Failure> {
        if topic.len() > TOPIC_MAX_BYTES {
            let detail = format!("topic of {} bytes, at most {TOPIC_MAX_BYTES}", topic.len());
            return Err(Failure::new(code::LIMIT, limit::TOPIC, detail));
        }
        let bad = |why: &str| Failure::new(code::BAD_ARGUMENT, 0, format!("{why}: `{topic}`"));
        if !is_filter && topic.contains(['+', '#']) {
            return Err(bad("wildcard in a topic to publish on"));
        }
        if topic.chars().any(char::is_control) {
            return Err(bad("control character in a topic"));
        }
        if !self
            .topics
            .iter()
            .any(|own| topic.starts_with(own.as_str()))
        {
            return Err(bad("topic is not this device's"));
        }
        Ok(())
    }

    /// Begin an operation of the targets: the token is used up only if it goes on.
    fn on_target(&mut self, call: impl FnOnce(&mut Targets, u64, Token) -> Started) -> Started {
        if let Err(failure) = self.operation_free() {
            return Started::Done(Outcome::Failed(failure));
        }
        let started = call(&mut self.targets, self.now.now_ms, self.tokens.peek());
        if matches!(started, Started::Pending(_)) {
            self.tokens.open(Owner::Target);
        }
        started
    }
}

/// An instance's way to its device's [`Host`].
#[derive(Clone)]
pub(super) struct Door(Arc<Mutex<Host>>);

impl Door {
    pub(super) fn new(host: Host) -> Self {
        Self(Arc::new(Mutex::new(host)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outside for Door {
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token {
        let mut host = self.lock();
        let check = host.check_topic(&filter, true);
        host.begin(Owner::Transport, check, |host, token| {
            host.transport.subscribe(token, &filter, qos);
        })
    }

    fn unsubscribe(&mut self, filter: String) -> Token {
        let mut host = self.lock();
        let check = host.check_topic(&filter, true);
        host.begin(Owner::Transport, check, |host, token| {
            host.transport.unsubscribe(token, &filter);
        })
    }

    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        let mut host = self.lock();
        let check = host.check_topic(&topic, false).and_then(|()| {
            if payload.len() <= PAYLOAD_MAX_BYTES {
                return Ok(());
            }
            let detail = format!(
                "payload of {} bytes, at most {PAYLOAD_MAX_BYTES}",
                payload.len()
            );
            Err(Failure::new(code::LIMIT, limit::PAYLOAD, detail))
        });
        let check = check.and_then(|()| match qos {
            Qos::AtMostOnce => host.check_room(topic.len() + payload.len()),
            Qos::AtLeastOnce => Ok(()),
        });
        host.begin(Owner::Transport, check, |host, token| {
            host.targets.write_out();
            let transport = &mut *host.transport;
            host.pace.publish(transport, token, &topic, payload, qos);
        })
    }

    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token {
        let mut host = self.lock();
        let check = check_range(&url, offset, length).and_then(|()| host.check_room(url.len()));
        host.begin(Owner::Http, check, |host, token| {
            host.targets.write_out();
            let transport = &mut *host.transport;
            let range = (offset, length);
            host.pace.http_get(host.now, transport, token, &url, range);
        })
    }

    fn cancel(&mut self, token: Token) {
        let mut host = self.lock();
        if !host.tokens.is_open(token, &[Owner::Transport, Owner::Http]) {
            return;
        }
        if host.pace.cancel(token) {
            host.end(token, Failure::new(code::CANCELLED, 0, "cancelled"));
        } else {
            host.transport.cancel(token);
        }
    }

    fn create(&mut self, spec: FileSpec) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.create(token, spec))
    }

    fn reopen(&mut self, job_id: String, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.reopen(token, &job_id, file))
    }

    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let size = data.len();
        let mut host = self.lock();
        let started = host
            .on_target(|targets, now, token| targets.write_block(now, token, file, offset, data));
        if !matches!(started, Started::Done(Outcome::Failed(_))) {
            host.history.on_block(size);
            host.pace.on_payload(size);
        }
        started
    }

    fn close(&mut self, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.close(token, file))
    }

    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        self.lock().targets.verified(file)
    }

    fn install(&mut self, image: &VerifiedRef) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.install(token, image))
    }

    fn activate(&mut self, image: &VerifiedRef) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.activate(token, image))
    }

    fn reset(&mut self, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.reset(token, file))
    }

    fn self_test(&mut self, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.self_test(token, file))
    }

    fn commit(&mut self, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.commit(token, file))
    }

    fn reject(&mut self, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.reject(token, file))
    }

    fn state(&mut self, file: FileId) -> Started {
        self.lock()
            .on_target(|targets, _, token| targets.state(token, file))
    }

    fn abort(&mut self, file: FileId) -> Started {
        // Never refused for too many operations: it ends some.
        let mut host = self.lock();
        let token = host.tokens.peek();
        let started = host.targets.abort(token, file);
        if matches!(started, Started::Pending(_)) {
            host.tokens.open(Owner::Target);
        }
        started
    }

    fn journal_store(&mut self, journal: Blob) -> Token {
        let mut host = self.lock();
        let size = journal.bytes.len();
        if size > JOURNAL_MAX_BYTES {
            let detail = format!("journal of {size} bytes, at most {JOURNAL_MAX_BYTES}");
            return host.refuse(Failure::new(code::LIMIT, limit::JOURNAL, detail));
        }
        let now_ms = host.now.now_ms;
        if !host.store_rate.admit(now_ms) {
            let detail = format!("more than {STORES_PER_S} journals stored in a second");
            return host.refuse(Failure::new(code::LIMIT, limit::STORES, detail));
        }
        let token = host.tokens.open(Owner::Journal);
        host.journal.store(token, journal);
        token
    }

    fn log(&mut self, level: Level, text: String) {
        let mut guard = self.lock();
        let host = &mut *guard;
        host.log.line(
            host.now.now_ms,
            host.journal.device(),
            host.job.as_deref(),
            level,
            &text,
        );
    }

    fn emit(&mut self, mut event: ApplicationEvent) {
        let mut guard = self.lock();
        let host = &mut *guard;
        // In words: an agent says no more than its number, if it says anything.
        host.log.line(
            host.now.now_ms,
            host.journal.device(),
            event.job_id.as_deref(),
            Level::Info,
            &format!(
                "application event {}, number {}",
                event_name(event.kind),
                event.sequence
            ),
        );
        if event.document.len() > DOCUMENT_MAX_BYTES {
            let (device, size) = (host.journal.device(), event.document.len());
            tracing::warn!(%device, "an event's document of {size} bytes is left out, the limit is {DOCUMENT_MAX_BYTES}");
            event.document.clear();
        }
        // One that failed may have done so for what the agent made of it.
        if event.kind == event::JOB_ENDED && event.failure.is_none() {
            host.jobs_ended.extend(event.job_id.clone());
        }
        host.history.on_event(host.now.wall_s, &event);
        host.events.emit(host.now.wall_s, event);
    }
}

fn check_range(url: &str, offset: u64, length: u32) -> Result<(), Failure> {
    if url.len() > URL_MAX_BYTES {
        let detail = format!("URL of {} bytes, at most {URL_MAX_BYTES}", url.len());
        return Err(Failure::new(code::LIMIT, limit::URL, detail));
    }
    if length == 0 || offset.checked_add(length.into()).is_none() {
        let detail = format!("range of {length} bytes at {offset}");
        return Err(Failure::new(code::BAD_ARGUMENT, 0, detail));
    }
    if length > RANGE_MAX_BYTES {
        let detail = format!("range of {length} bytes, at most {RANGE_MAX_BYTES}");
        return Err(Failure::new(code::LIMIT, limit::RANGE, detail));
    }
    Ok(())
}
