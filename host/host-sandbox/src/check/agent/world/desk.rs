//! The host of a case: it obeys what the agent orders, as the script says or as the model does, and puts the answers in a
//! row, in the order in which they fell due.
//!
//! It is what the agent's imports reach ([`Line`]). It notes by itself what no script may allow, see [`Desk::mistake`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::agent::{ApplicationEvent, Outside};
use host_runtime::target::VerifiedRef;
use host_runtime::types::{
    Blob, Failure, FileId, FileSpec, Level, Outcome, Qos, Started, Token, code,
};
use serde_json::{Value, json};

use super::{Error, MISTAKE, Show, parse_json};
use crate::check::agent::fact::is_mere_progress;
use crate::check::agent::input::Answer;
use crate::check::agent::model::Target;
use crate::check::agent::order::{self, Call, Order};
use crate::check::agent::wire::BlockRequest;

/// Most bytes of a topic or filter (`wit/agent/transport.wit`).
const TOPIC_MAX_BYTES: usize = 320;

/// Most bytes of a payload (`wit/agent/transport.wit`).
const PAYLOAD_MAX_BYTES: usize = 128 * 1024;

/// Most bytes of a journal (`wit/agent/types.wit`, record `blob`).
const JOURNAL_MAX_BYTES: usize = 64 * 1024;

/// Most bytes of a client token (AWS IoT Jobs).
const TOKEN_MAX_BYTES: usize = 64;

/// An order that goes on.
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) kind: String,
    pub(super) order: Order,
    pub(super) lost: bool,
}

/// What the host will tell the agent next.
pub(super) enum Due {
    Done(Token, Box<Order>, Outcome),
    Message(String, Vec<u8>),
}

/// All that the agent's calls reach.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) now: u64,
    pub(super) device: String,
    pub(super) targets: BTreeMap<FileId, Target>,
    pub(super) show: Show,
    pub(super) last_token: Token,
    pub(super) last_event: u64,
    pub(super) journal: Option<Blob>,
    pub(super) rules: BTreeMap<String, (Answer, bool)>,
    pub(super) held: Vec<Held>,
    pub(super) due: VecDeque<Due>,
    pub(super) asked: Option<String>,
    pub(super) asked_job: Option<(String, String)>,
    pub(super) updates: VecDeque<(String, String)>,
    /// Block requests of one instant that were not answered yet, or those that were answered last.
    pub(super) requests: Vec<BlockRequest>,
    pub(super) requests_answered: bool,
    requests_at: u64,
    pub(super) stream: String,
    pub(super) sizes: BTreeMap<u64, u64>,
    tokens: BTreeMap<String, String>,
    pub(super) lines: Vec<String>,
}

/// The desk as an agent's imports see it.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<Desk>>);

impl Line {
    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, order: Order) -> Token {
        match self.desk().obey(order) {
            Some(Started::Pending(token)) => token,
            // Everything of the transport and the journal takes time.
            Some(Started::Done(_)) | None => 0,
        }
    }

    fn started(&self, order: Order) -> Started {
        let ended = self.desk().obey(order);
        ended.unwrap_or(Started::Done(Outcome::Nothing))
    }
}

impl Desk {
    /// What the agent must never do, whatever the script expects.
    pub(super) fn mistake(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("{MISTAKE} {what}"));
    }

    fn obey(&mut self, order: Order) -> Option<Started> {
        let line = order::line(&order, &self.device);
        let kind = line.split(' ').next().unwrap_or_default().to_owned();
        let hidden = match kind.as_str() {
            "log" => !self.show.log,
            "journal" => !self.show.journal,
            "state" => !self.show.probes,
            _ => false,
        };
        if !hidden {
            self.lines.push(line);
        }
        if let Err(what) = self.take_note(&order) {
            self.mistake(what);
        }
        match &order {
            Order::Cancel(_) | Order::Log { .. } | Order::Emit(_) => None,
            _ => Some(self.answer(kind, order)),
        }
    }

    /// What the world learns from an order before it is answered.
    fn take_note(&mut self, order: &Order) -> Result<(), String> {
        match order {
            Order::Subscribe { filter, .. } | Order::Unsubscribe { filter } => {
                self.check_topic(filter)
            }
            Order::Publish {
                topic,
                payload,
                qos,
            } => self.take_publish(topic, payload, *qos),
            Order::Create(spec) => {
                self.forget_requests();
                self.sizes.insert(spec.file_id.into(), spec.size);
                Ok(())
            }
            Order::Reopen { .. } => {
                self.forget_requests();
                Ok(())
            }
            Order::Emit(event) if event.sequence != self.last_event + 1 => Err(format!(
                "event {} follows {}",
                event.sequence, self.last_event
            )),
            Order::Emit(event) => {
                self.last_event = event.sequence;
                Ok(())
            }
            Order::JournalStore(blob) if blob.bytes.len() > JOURNAL_MAX_BYTES => Err(format!(
                "a journal of {} bytes, at most {JOURNAL_MAX_BYTES} are stored",
                blob.bytes.len()
            )),
            Order::Cancel(token) => {
                let at = self.held.iter().position(|held| held.token == *token);
                if let Some(at) = at {
                    let Held { token, order, .. } = self.held.remove(at);
                    let failure = Failure::new(code::CANCELLED, 0, "cancelled");
                    let outcome = Outcome::Failed(failure);
                    self.due
                        .push_back(Due::Done(token, Box::new(order), outcome));
                }
                Ok(())
            }
            Order::JournalStore(_)
            | Order::HttpGet { .. }
            | Order::WriteBlock { .. }
            | Order::Pal(..)
            | Order::Log { .. } => Ok(()),
        }
    }

    fn check_topic(&self, topic: &str) -> Result<(), String> {
        if topic.len() > TOPIC_MAX_BYTES {
            return Err(format!(
                "a topic of {} bytes, at most {TOPIC_MAX_BYTES} are taken",
                topic.len()
            ));
        }
        match topic.strip_prefix(&format!("$aws/things/{}/", self.device)) {
            Some(_) => Ok(()),
            None => Err(format!("{topic} is not this device's")),
        }
    }

    fn take_publish(&mut self, topic: &str, payload: &[u8], qos: Qos) -> Result<(), String> {
        self.check_topic(topic)?;
        if payload.len() > PAYLOAD_MAX_BYTES {
            return Err(format!("a payload of {} bytes on {topic}", payload.len()));
        }
        let mine = format!("$aws/things/{}/", self.device);
        let rest = topic.strip_prefix(&mine).unwrap_or_default().to_owned();
        if let Some(stream) = rest
            .strip_prefix("streams/")
            .and_then(|rest| rest.strip_suffix("/get/cbor"))
        {
            stream.clone_into(&mut self.stream);
            let request = BlockRequest::decode(payload)
                .ok_or_else(|| format!("a block request that does not decode on {topic}"))?;
            return self.take_request(request);
        }
        let body = parse_json(&String::from_utf8_lossy(payload)).map_err(|e| e.to_string())?;
        let token = body["clientToken"].as_str().unwrap_or_default().to_owned();
        self.check_token(&token, topic, payload)?;
        if rest == "jobs/$next/get" {
            self.asked = Some(token);
            return Ok(());
        }
        let verb = rest
            .strip_prefix("jobs/")
            .and_then(|rest| rest.split_once('/'));
        match verb {
            Some((job, "update")) if !job.is_empty() => {
                self.updates.push_back((job.to_owned(), token));
                check_status(&body, qos)
            }
            Some((job, "get")) if !job.is_empty() => {
                self.asked_job = Some((job.to_owned(), token));
                Ok(())
            }
            _ => Err(format!("{topic} is no topic of the service")),
        }
    }

    /// A token names one request: answers are matched by it.
    fn check_token(&mut self, token: &str, topic: &str, payload: &[u8]) -> Result<(), String> {
        if token.is_empty() {
            return Ok(());
        }
        if token.len() > TOKEN_MAX_BYTES {
            return Err(format!("a client token of {} bytes", token.len()));
        }
        let request = format!("{topic} {}", String::from_utf8_lossy(payload));
        match self.tokens.insert(token.to_owned(), request.clone()) {
            Some(before) if before != request => {
                Err(format!("client token {token} names two requests"))
            }
            _ => Ok(()),
        }
    }

    /// What was asked for before a transfer began (again), or before a connection, does not come any more.
    pub(super) fn forget_requests(&mut self) {
        self.requests.clear();
    }

    fn take_request(&mut self, request: BlockRequest) -> Result<(), String> {
        if self.requests_answered || self.requests_at != self.now {
            self.requests.clear();
        }
        self.requests_answered = false;
        self.requests_at = self.now;
        let checked = self.check_request(&request);
        self.requests.push(request);
        checked
    }

    fn check_request(&self, request: &BlockRequest) -> Result<(), String> {
        let file = request.file;
        let size = self.sizes.get(&file).copied().unwrap_or_default();
        let wanted = request.wanted();
        if wanted.is_empty() || request.block_size == 0 {
            return Err(format!("a request for no block of file {file}"));
        }
        if wanted.len() as u64 * request.block_size > PAYLOAD_MAX_BYTES as u64 {
            return Err(format!(
                "a request for {} blocks of {} bytes, more than 128 KiB",
                wanted.len(),
                request.block_size
            ));
        }
        let target = u32::try_from(file).ok().and_then(|f| self.targets.get(&f));
        for index in wanted {
            let offset = index.saturating_mul(request.block_size);
            if offset >= size {
                return Err(format!(
                    "asks for block {index} of file {file}, past its end"
                ));
            }
            if target.is_some_and(|target| target.holds(offset)) {
                return Err(format!(
                    "asks for block {index} of file {file}, which is held"
                ));
            }
            let before = self.requests.iter().filter(|r| r.file == file);
            if before.clone().any(|r| r.wanted().contains(&index)) {
                return Err(format!(
                    "asks twice at once for block {index} of file {file}"
                ));
            }
        }
        Ok(())
    }

    fn answer(&mut self, kind: String, order: Order) -> Started {
        let rule = match self.rules.get(&kind) {
            Some((_, true)) => self.rules.remove(&kind).map(|(answer, _)| answer),
            Some((answer, false)) => Some(answer.clone()),
            None => None,
        };
        let rule = rule.unwrap_or(Answer::Model);
        // What takes no time in a real host is over at once, everything else gets a token first.
        let at_once = matches!(order, Order::Pal(Call::State, _) | Order::WriteBlock { .. });
        let outcome = match rule {
            // A server answers when the script says so.
            Answer::Model if !matches!(order, Order::HttpGet { .. }) => self.by_model(&order),
            Answer::End(outcome) => outcome,
            Answer::Model | Answer::Hold | Answer::Lost => {
                let token = self.next_token();
                self.held.push(Held {
                    token,
                    kind,
                    order,
                    lost: rule == Answer::Lost,
                });
                return Started::Pending(token);
            }
        };
        if at_once {
            return Started::Done(outcome);
        }
        let token = self.next_token();
        self.due
            .push_back(Due::Done(token, Box::new(order), outcome));
        Started::Pending(token)
    }

    fn next_token(&mut self) -> Token {
        self.last_token += 1;
        self.last_token
    }

    pub(super) fn by_model(&mut self, order: &Order) -> Outcome {
        let Some(file) = order.file() else {
            return Outcome::Nothing;
        };
        let ended = match self.targets.get_mut(&file) {
            Some(target) => target.obey(order),
            None => return Outcome::Failed(Failure::new(0xd0, 0, "no such target")),
        };
        match ended {
            Ok(outcome) => outcome.unwrap_or(Outcome::Nothing),
            Err(Error::Misbehaved(what)) => {
                self.mistake(what);
                Outcome::Failed(Failure::new(0xd0, 0, "the host takes no such bytes"))
            }
            Err(other) => {
                self.mistake(other);
                Outcome::Nothing
            }
        }
    }

    /// What follows from the end of an order besides the event.
    pub(super) fn on_done(&mut self, order: &Order, outcome: &Outcome) {
        if *outcome != Outcome::Nothing {
            return;
        }
        match order {
            Order::JournalStore(blob) => self.journal = Some(blob.clone()),
            // A sane service accepts every update that reaches it, unless the script says otherwise.
            Order::Publish { topic, .. }
                if topic.ends_with("/update") && !self.rules.contains_key("update") =>
            {
                if let Some((job, token)) = self.updates.pop_front() {
                    let topic = format!("$aws/things/{}/jobs/{job}/update/accepted", self.device);
                    let payload = json!({"timestamp": 1_700_000_000, "clientToken": token});
                    self.due
                        .push_back(Due::Message(topic, payload.to_string().into_bytes()));
                }
            }
            _ => {}
        }
    }

    fn proof(&self, file: FileId) -> Result<VerifiedRef, Failure> {
        let target = self.targets.get(&file);
        let info = target.and_then(Target::verified).ok_or_else(|| {
            Failure::new(code::NOT_VERIFIED, 0, "no image is verified: close first")
        })?;
        Ok(VerifiedRef::stand_in(file, info.clone()))
    }
}

/// The service's limits on a status, and the quality that it deserves.
fn check_status(body: &Value, qos: Qos) -> Result<(), String> {
    const STATUSES: [&str; 4] = ["IN_PROGRESS", "FAILED", "SUCCEEDED", "REJECTED"];
    let status = body["status"].as_str().unwrap_or_default();
    if !STATUSES.contains(&status) {
        return Err(format!("{status:?} is no status that a device may set"));
    }
    let empty = serde_json::Map::new();
    let details = body["statusDetails"].as_object().unwrap_or(&empty);
    let fits = |(key, value): (&String, &Value)| {
        let length = value.as_str().map_or(0, str::len);
        (1..=128).contains(&key.len()) && (1..=1024).contains(&length)
    };
    if details.len() > 10 || !details.iter().all(fits) {
        return Err(format!("status details that the service refuses: {body}"));
    }
    // A lost count of blocks is made good by the next one, any other status by nothing.
    let mere = is_mere_progress(details);
    if qos == Qos::AtMostOnce && !mere {
        return Err(format!("{status} goes out with quality 0 and may be lost"));
    }
    Ok(())
}

impl Outside for Line {
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token {
        self.token(Order::Subscribe { filter, qos })
    }
    fn unsubscribe(&mut self, filter: String) -> Token {
        self.token(Order::Unsubscribe { filter })
    }
    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        self.token(Order::Publish {
            topic,
            payload,
            qos,
        })
    }
    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token {
        self.token(Order::HttpGet {
            url,
            offset,
            length,
        })
    }
    fn cancel(&mut self, token: Token) {
        self.desk().obey(Order::Cancel(token));
    }
    fn create(&mut self, spec: FileSpec) -> Started {
        self.started(Order::Create(spec))
    }
    fn reopen(&mut self, job_id: String, file: FileId) -> Started {
        self.started(Order::Reopen { job_id, file })
    }
    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let data = data.to_vec();
        self.started(Order::WriteBlock { file, offset, data })
    }
    fn close(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::Close, file))
    }
    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        self.desk().proof(file)
    }
    fn install(&mut self, image: &VerifiedRef) -> Started {
        self.started(Order::Pal(Call::Install, image.file()))
    }
    fn activate(&mut self, image: &VerifiedRef) -> Started {
        self.started(Order::Pal(Call::Activate, image.file()))
    }
    fn reset(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::Reset, file))
    }
    fn self_test(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::SelfTest, file))
    }
    fn commit(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::Commit, file))
    }
    fn reject(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::Reject, file))
    }
    fn state(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::State, file))
    }
    fn abort(&mut self, file: FileId) -> Started {
        self.started(Order::Pal(Call::Abort, file))
    }
    fn journal_store(&mut self, journal: Blob) -> Token {
        self.token(Order::JournalStore(journal))
    }
    fn log(&mut self, level: Level, text: String) {
        self.desk().obey(Order::Log { level, text });
    }
    fn emit(&mut self, event: ApplicationEvent) {
        self.desk().obey(Order::Emit(event));
    }
}
