//! A build of an agent where another one was: it is asked what that one was asked, and given the same answers.
//!
//! ```text
//! exchange ──▶ Follower ── ask ──▶ agent ── call ──▶ Script: the call that was made there? its answer
//!                  ▲                                    │ no: lost, the first difference
//!                  └────────────────────────────────────┘
//! ```
//!
//! [`replay`] follows a trace exactly; [`diff`] lets two builds follow one and says where they first differ; a shadow
//! (`shadow.rs`) follows a live agent. Nothing that a follower does reaches anything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::redact::Veil;
use super::tap::{Answer, Ask, Bulk, End, Exchange, Order, lost, lost_call};
use super::trace::{Trace, TraceError};
use super::{AgentBuild, AgentInstance, ApplicationEvent, Outside, text};
use crate::target::VerifiedRef;
use crate::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Started, Token};

/// How closely a build has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// In everything: calls, log lines, saved states, turns.
    Exact,
    /// In what has an effect: calls and their order. Log lines, what saved states hold, and when it wants to be called
    /// may differ, as they do between two builds.
    Effects,
}

/// Where a build does something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Number of the exchange, from 1.
    pub exchange: u64,
    /// The agent's clock in milliseconds.
    pub at_ms: u64,
    /// What it was asked.
    pub asked: String,
    /// What was done there.
    pub recorded: String,
    /// What this build did.
    pub instead: String,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Exchanges that were followed, the one with the difference included.
    pub exchanges: u64,
    /// Calls in them.
    pub calls: u64,
    /// The trace was cut off within its last line.
    pub cut: bool,
    /// The first difference.
    pub difference: Option<Difference>,
}

/// Let a build follow a trace.
///
/// # Errors
/// The trace is damaged.
pub fn replay(
    build: &Arc<AgentBuild>,
    mut trace: Trace<'_>,
    likeness: Likeness,
) -> Result<Replayed, TraceError> {
    let mut follower = Follower::of_trace(build, likeness, &trace);
    let mut replayed = Replayed {
        exchanges: 0,
        calls: 0,
        cut: false,
        difference: None,
    };
    while let Some(exchange) = trace.next_exchange()? {
        replayed.calls += exchange.calls.len() as u64;
        let followed = follower.follow(exchange);
        replayed.exchanges = follower.exchanges;
        if let Err(difference) = followed {
            replayed.difference = Some(*difference);
            return Ok(replayed);
        }
    }
    replayed.cut = trace.is_cut();
    Ok(replayed)
}

/// What two builds came to on one trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// They did the same all the way, `exchanges` of them.
    Same {
        /// Exchanges.
        exchanges: u64,
    },
    /// Both did the same, and something else than was recorded: no answer is known to what they would do next.
    Left(Box<Difference>),
    /// They differ.
    Differ {
        /// Number of the exchange, from 1.
        exchange: u64,
        /// The agent's clock in milliseconds.
        at_ms: u64,
        /// What they were asked.
        asked: String,
        /// What the first did.
        old: String,
        /// What the second did.
        new: String,
    },
}

/// Let two builds follow one trace, and say where they first differ.
///
/// # Errors
/// The trace is damaged.
pub fn diff(
    old: &Arc<AgentBuild>,
    new: &Arc<AgentBuild>,
    mut trace: Trace<'_>,
    likeness: Likeness,
) -> Result<Compared, TraceError> {
    let mut first = Follower::of_trace(old, likeness, &trace);
    let mut second = Follower::of_trace(new, likeness, &trace);
    while let Some(exchange) = trace.next_exchange()? {
        let at_ms = exchange.at.now_ms;
        let asked = in_words(&exchange.ask);
        let followed = (first.follow(exchange.clone()), second.follow(exchange));
        let (one, other) = match followed {
            (Ok(()), Ok(())) => continue,
            (Err(one), Err(other)) if one.instead == other.instead => {
                return Ok(Compared::Left(one));
            }
            (Err(one), Err(other)) => (one.instead, other.instead),
            (Err(one), Ok(())) => (one.instead, one.recorded),
            (Ok(()), Err(other)) => (other.recorded, other.instead),
        };
        return Ok(Compared::Differ {
            exchange: first.exchanges,
            at_ms,
            asked,
            old: one,
            new: other,
        });
    }
    Ok(Compared::Same {
        exchanges: first.exchanges,
    })
}

/// One build, led by exchanges.
pub(crate) struct Follower {
    build: Arc<AgentBuild>,
    rules: Rules,
    teller: Teller,
    instance: Option<Box<dyn AgentInstance>>,
    script: Arc<Mutex<Script>>,
    pub(crate) exchanges: u64,
}

/// What counts as the same.
#[derive(Clone, Copy)]
struct Rules {
    likeness: Likeness,
    /// Blocks are the real ones, not zeros.
    real_blocks: bool,
    /// Saved states are the real ones, without tokens in them.
    real_states: bool,
}

/// What is to be called in one exchange.
struct Script {
    rules: Rules,
    teller: Teller,
    expected: VecDeque<(Order, Answer)>,
    /// What was to be called and what was called instead.
    lost: Option<(String, String)>,
}

impl Follower {
    fn of_trace(build: &Arc<AgentBuild>, likeness: Likeness, trace: &Trace<'_>) -> Self {
        Self::new(
            build,
            Rules {
                likeness,
                real_blocks: false,
                real_states: !trace.has_tokens(),
            },
            Teller(None),
        )
    }

    /// One that follows a live agent.
    pub(crate) fn live(build: &Arc<AgentBuild>) -> Self {
        let mut salt = [0; 16];
        // Without randomness a token is a token all the same, and only easier to guess.
        getrandom::fill(&mut salt).ok();
        Self::new(
            build,
            Rules {
                likeness: Likeness::Effects,
                real_blocks: true,
                real_states: true,
            },
            Teller(Some(Arc::new(Veil::new(salt)))),
        )
    }

    fn new(build: &Arc<AgentBuild>, rules: Rules, teller: Teller) -> Self {
        Self {
            build: Arc::clone(build),
            rules,
            teller: teller.clone(),
            instance: None,
            script: Arc::new(Mutex::new(Script {
                rules,
                teller,
                expected: VecDeque::new(),
                lost: None,
            })),
            exchanges: 0,
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do what the other one did.
    pub(crate) fn follow(&mut self, exchange: Exchange) -> Result<(), Box<Difference>> {
        let Exchange {
            at,
            ask,
            calls,
            end,
        } = exchange;
        self.exchanges += 1;
        let looks = matches!(ask, Ask::Status | Ask::Snapshot);
        if looks && self.rules.likeness == Likeness::Effects {
            return Ok(());
        }
        let asked = self.teller.ask(&ask);
        self.script().expected = calls.into();
        let ended = self.ask(at, ask);
        let mut script = self.script();
        script.skip();
        let lost = script.lost.take();
        let missed = script.expected.pop_front();
        drop(script);
        let (recorded, instead) = match (lost, missed) {
            (Some(both), _) => both,
            (None, Some((order, _))) => (self.teller.order(&order), self.teller.end(&ended)),
            (None, None) if self.ends_alike(&end, &ended) => return Ok(()),
            (None, None) => (self.teller.end(&end), self.teller.end(&ended)),
        };
        Err(Box::new(Difference {
            exchange: self.exchanges,
            at_ms: at.now_ms,
            asked,
            recorded,
            instead,
        }))
    }

    fn ask(&mut self, at: super::Context, ask: Ask) -> End {
        if let Ask::Start(info) = ask {
            let outside = Box::new(Led(Arc::clone(&self.script)));
            self.instance = None;
            let mut instance = match self.build.instantiate(outside) {
                Ok(instance) => instance,
                Err(fault) => return End::Broken(fault.to_string()),
            };
            return match instance.start(at, *info) {
                Ok(Ok(turn)) => {
                    self.instance = Some(instance);
                    End::Turn(Box::new(turn))
                }
                Ok(Err(failure)) => End::Refused(failure),
                Err(fault) => End::Broken(fault.to_string()),
            };
        }
        let Some(instance) = &mut self.instance else {
            return End::Broken("there is no instance: it ended before".to_owned());
        };
        let ended = match ask {
            Ask::Event(event) => instance
                .handle(at, event)
                .map(|turn| End::Turn(Box::new(turn))),
            Ask::Status => instance
                .status()
                .map(|status| End::Status(Box::new(status))),
            Ask::Start(_) | Ask::Snapshot => instance.snapshot(at).map(|blob| End::Snapshot {
                schema: blob.schema,
                state: Bulk::of(&blob.bytes),
            }),
        };
        ended.unwrap_or_else(|fault| {
            self.instance = None;
            End::Broken(fault.to_string())
        })
    }

    fn ends_alike(&self, recorded: &End, ended: &End) -> bool {
        let effects = self.rules.likeness == Likeness::Effects;
        match (recorded, ended) {
            (End::Turn(one), End::Turn(other)) => effects || one == other,
            (
                End::Snapshot { schema, state },
                End::Snapshot {
                    schema: other_schema,
                    state: other,
                },
            ) => schema == other_schema && self.rules.same_state(*state, *other),
            // A build that breaks where the other one broke does so in words of its own.
            (End::Broken(_), End::Broken(_)) => true,
            (End::Refused(one), End::Refused(other)) => effects || one == other,
            (End::Status(one), End::Status(other)) => effects || one == other,
            (
                End::Turn(_)
                | End::Snapshot { .. }
                | End::Broken(_)
                | End::Refused(_)
                | End::Status(_),
                _,
            ) => false,
        }
    }
}

impl Rules {
    fn same_state(self, recorded: Bulk, state: Bulk) -> bool {
        recorded.length == state.length && (!self.real_states || recorded.crc == state.crc)
    }

    fn same(self, recorded: &Order, order: &Order) -> bool {
        match (recorded, order) {
            (
                Order::WriteBlock { file, offset, data },
                Order::WriteBlock {
                    file: other_file,
                    offset: other_offset,
                    data: other,
                },
            ) => {
                (file, offset, data.length) == (other_file, other_offset, other.length)
                    && (!self.real_blocks || data.crc == other.crc)
            }
            (
                Order::JournalStore { schema, state },
                Order::JournalStore {
                    schema: other_schema,
                    state: other,
                },
            ) => {
                self.likeness == Likeness::Effects
                    || (schema == other_schema && self.same_state(*state, *other))
            }
            (Order::Emit(event), Order::Emit(other)) => {
                // Documents are text in a trace.
                let text = |event: &ApplicationEvent| {
                    String::from_utf8_lossy(&event.document).into_owned()
                };
                let rest = |event: &ApplicationEvent| ApplicationEvent {
                    document: Vec::new(),
                    ..event.clone()
                };
                text(event) == text(other) && rest(event) == rest(other)
            }
            _ => recorded == order,
        }
    }
}

impl Script {
    /// Pass over what does not count.
    fn skip(&mut self) {
        if self.rules.likeness == Likeness::Exact {
            return;
        }
        while matches!(self.expected.front(), Some((Order::Log { .. }, _))) {
            self.expected.pop_front();
        }
    }

    /// The answer to a call, if it is the one that was made.
    fn answer(&mut self, order: &Order) -> Option<Answer> {
        if self.lost.is_some() {
            return None;
        }
        self.skip();
        if self.rules.likeness == Likeness::Effects && matches!(order, Order::Log { .. }) {
            return Some(Answer::None);
        }
        match self.expected.pop_front() {
            Some((recorded, answer)) if self.rules.same(&recorded, order) => Some(answer),
            Some((recorded, _)) => {
                self.lost = Some((self.teller.order(&recorded), self.teller.order(order)));
                None
            }
            None => {
                self.lost = Some(("no further call".to_owned(), self.teller.order(order)));
                None
            }
        }
    }
}

/// Most bytes of a value in words.
const WORDS_MAX_BYTES: usize = 2000;

/// A value as it stands in a trace.
fn in_words(value: &impl serde::Serialize) -> String {
    let words = serde_json::to_string(value).unwrap_or_default();
    text::clean(&words, WORDS_MAX_BYTES)
}

/// Tells what differs: of a trace as it stands there, of a live agent as a trace would have it, without images and secrets.
#[derive(Clone)]
struct Teller(Option<Arc<Veil>>);

impl Teller {
    fn ask(&self, ask: &Ask) -> String {
        self.tell(ask, |veil, ask| veil.ask(ask, &mut Vec::new()))
    }

    fn order(&self, order: &Order) -> String {
        self.tell(order, Veil::order)
    }

    fn end(&self, end: &End) -> String {
        self.tell(end, Veil::end)
    }

    fn tell<T: Clone + serde::Serialize>(
        &self,
        value: &T,
        cover: impl FnOnce(&Veil, &mut T),
    ) -> String {
        let Some(veil) = &self.0 else {
            return in_words(value);
        };
        let mut value = value.clone();
        cover(veil, &mut value);
        in_words(&value)
    }
}

/// The outside of a follower.
struct Led(Arc<Mutex<Script>>);

impl Led {
    fn answer(&self, order: &Order) -> Option<Answer> {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.answer(order)
    }

    fn token(&self, order: &Order) -> Token {
        match self.answer(order) {
            Some(Answer::Token(token)) => token,
            Some(_) | None => 0,
        }
    }

    fn started(&self, order: &Order) -> Started {
        match self.answer(order) {
            Some(Answer::Started(started)) => started,
            Some(_) | None => lost_call(),
        }
    }
}

impl Outside for Led {
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token {
        self.token(&Order::Subscribe { filter, qos })
    }
    fn unsubscribe(&mut self, filter: String) -> Token {
        self.token(&Order::Unsubscribe(filter))
    }
    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        self.token(&Order::Publish {
            topic,
            payload,
            qos,
        })
    }
    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token {
        self.token(&Order::HttpGet {
            url,
            offset,
            length,
        })
    }
    fn cancel(&mut self, token: Token) {
        self.answer(&Order::Cancel(token));
    }
    fn create(&mut self, spec: FileSpec) -> Started {
        self.started(&Order::Create(Box::new(spec)))
    }
    fn reopen(&mut self, job_id: String, file: FileId) -> Started {
        self.started(&Order::Reopen { job_id, file })
    }
    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let data = Bulk::of(data);
        self.started(&Order::WriteBlock { file, offset, data })
    }
    fn close(&mut self, file: FileId) -> Started {
        self.started(&Order::Close(file))
    }
    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        match self.answer(&Order::Verified(file)) {
            Some(Answer::Proof(info)) => Ok(VerifiedRef::stand_in(file, *info)),
            Some(Answer::NoProof(failure)) => Err(failure),
            Some(_) | None => Err(lost()),
        }
    }
    fn install(&mut self, image: &VerifiedRef) -> Started {
        self.started(&Order::Install(image.file()))
    }
    fn activate(&mut self, image: &VerifiedRef) -> Started {
        self.started(&Order::Activate(image.file()))
    }
    fn reset(&mut self, file: FileId) -> Started {
        self.started(&Order::Reset(file))
    }
    fn self_test(&mut self, file: FileId) -> Started {
        self.started(&Order::SelfTest(file))
    }
    fn commit(&mut self, file: FileId) -> Started {
        self.started(&Order::Commit(file))
    }
    fn reject(&mut self, file: FileId) -> Started {
        self.started(&Order::Reject(file))
    }
    fn state(&mut self, file: FileId) -> Started {
        self.started(&Order::State(file))
    }
    fn abort(&mut self, file: FileId) -> Started {
        self.started(&Order::Abort(file))
    }
    fn journal_store(&mut self, journal: Blob) -> Token {
        self.token(&Order::JournalStore {
            schema: journal.schema,
            state: Bulk::of(&journal.bytes),
        })
    }
    fn log(&mut self, level: Level, text: String) {
        self.answer(&Order::Log { level, text });
    }
    fn emit(&mut self, event: ApplicationEvent) {
        self.answer(&Order::Emit(Box::new(event)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Event;

    #[test]
    fn what_a_live_agent_does_is_told_without_its_secrets() {
        let order = Order::HttpGet {
            url: "https://b.example/f?Signature=0123456789abcdef".to_owned(),
            offset: 0,
            length: 1,
        };
        let ask = Ask::Event(Event::message("t", br#"{"password":"hunter22"}"#));
        let end = End::Broken("at https://b.example/f?Signature=0123456789abcdef".to_owned());
        let live = Teller(Some(Arc::new(Veil::new([7; 16]))));
        for words in [live.order(&order), live.ask(&ask), live.end(&end)] {
            assert!(words.contains("zq0"), "{words}");
            for secret in ["0123456789abcdef", "hunter22"] {
                assert!(!words.contains(secret), "{words}");
            }
        }
        // A trace has tokens already.
        assert!(Teller(None).order(&order).contains("0123456789abcdef"));
    }
}
