//! An agent without a device: it connects, subscribes, asks for a job, gets none, and waits.
//!
//! Whatever it asks of the outside is done at once. It is what an idle agent of a gateway has behind it, and nothing else:
//! no mailbox, no targets, no connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::agent::{
    AgentBuild, AgentConfig, AgentInstance, ApplicationEvent, Context, Event, Outside, Saved,
    StartInfo, Target,
};
use host_runtime::target::VerifiedRef;
use host_runtime::types::{
    Blob, Failure, FileId, FileSpec, Level, Outcome, Qos, Started, TargetState, Token, code,
};
use serde_json::{Value, json};

use crate::figure::Untaken;

/// Name of the thing.
const THING: &str = "idle";

/// The agent's state when it has nothing to do.
pub(super) const WAITING_FOR_JOB: u8 = 3;

/// Image state `valid`.
const VALID: u8 = 2;

/// Events within which an honest agent has come to rest.
const EVENTS_MAX: usize = 200;

/// Any instant.
const AT: Context = Context {
    now_ms: 1000,
    wall_s: Some(1_900_000_000),
};

/// What an agent has asked for and has not been told the end of.
#[derive(Debug, Default)]
struct Asked {
    tokens: Token,
    ended: Vec<Event>,
}

/// The outside of an idle agent.
#[derive(Clone, Debug, Default)]
struct Nobody(Arc<Mutex<Asked>>);

impl Nobody {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything works at once.
    fn token(&self) -> Token {
        let mut asked = self.asked();
        asked.tokens += 1;
        let token = asked.tokens;
        let outcome = Outcome::Nothing;
        asked.ended.push(Event::Done { token, outcome });
        token
    }
}

/// What a job service without a job answers, and where, if this is the question for the next one.
pub(super) fn no_job(topic: &str, payload: &[u8]) -> Option<(String, Vec<u8>)> {
    if !topic.ends_with("/jobs/$next/get") {
        return None;
    }
    let request: Value = serde_json::from_slice(payload).unwrap_or_default();
    let mut answer = json!({ "timestamp": 1_900_000_000, "execution": {} });
    answer["clientToken"] = request["clientToken"].clone();
    let payload = answer.to_string().into_bytes();
    Some((format!("{topic}/accepted"), payload))
}

fn unsupported() -> Failure {
    Failure::new(code::UNSUPPORTED, 0, "an idle agent has no file")
}

/// Calls that an idle agent does not make.
macro_rules! refused {
    ($($name:ident($($kind:ty),*);)*) => {
        $(fn $name(&mut self, $(_: $kind),*) -> Started {
            Started::Done(Outcome::Failed(unsupported()))
        })*
    };
}

impl Outside for Nobody {
    refused! {
        create(FileSpec);
        reopen(String, FileId);
        write_block(FileId, u64, &[u8]);
        close(FileId);
        install(&VerifiedRef);
        activate(&VerifiedRef);
        reset(FileId);
        self_test(FileId);
        commit(FileId);
        reject(FileId);
        abort(FileId);
    }

    fn subscribe(&mut self, _: String, _: Qos) -> Token {
        self.token()
    }

    fn unsubscribe(&mut self, _: String) -> Token {
        self.token()
    }

    fn publish(&mut self, topic: String, payload: Vec<u8>, _: Qos) -> Token {
        let token = self.token();
        if let Some((topic, payload)) = no_job(&topic, &payload) {
            self.asked().ended.push(Event::message(topic, payload));
        }
        token
    }

    fn http_get(&mut self, _: String, _: u64, _: u32) -> Token {
        self.token()
    }

    fn cancel(&mut self, _: Token) {}

    fn verified(&mut self, _: FileId) -> Result<VerifiedRef, Failure> {
        Err(unsupported())
    }

    fn state(&mut self, _: FileId) -> Started {
        Started::Done(Outcome::State(TargetState {
            code: VALID,
            running: None,
            runs_new: None,
        }))
    }

    fn journal_store(&mut self, _: Blob) -> Token {
        self.token()
    }

    fn log(&mut self, _: Level, _: String) {}

    fn emit(&mut self, _: ApplicationEvent) {}
}

/// An agent that has asked for a job and got none.
pub(super) struct Idle {
    instance: Box<dyn AgentInstance>,
}

impl Idle {
    /// Makes an instance and lets it come to rest.
    pub(super) fn start(build: &Arc<AgentBuild>) -> Result<Self, Untaken> {
        let (mut idle, outside) = Self::begin(build, Saved::None)?;
        idle.handle(Event::Connected(false))?;
        for _ in 0..EVENTS_MAX {
            let next = {
                let mut asked = outside.asked();
                match asked.ended.is_empty() {
                    true => break,
                    false => asked.ended.remove(0),
                }
            };
            idle.handle(next)?;
        }
        let status = idle.instance.status();
        let status = status.map_err(|error| Untaken::by("the agent's status", &error))?;
        match status.state {
            WAITING_FOR_JOB => Ok(idle),
            state => Err(Untaken::because(format!(
                "an idle agent came to rest in state {state}"
            ))),
        }
    }

    /// Makes an instance that goes on from a snapshot.
    pub(super) fn wake(build: &Arc<AgentBuild>, snapshot: Blob) -> Result<Self, Untaken> {
        let (mut idle, _) = Self::begin(build, Saved::Snapshot(snapshot))?;
        // What woke it.
        idle.handle(Event::Timeout)?;
        Ok(idle)
    }

    /// What it is parked as, or swapped by.
    pub(super) fn snapshot(&mut self) -> Result<Blob, Untaken> {
        let snapshot = self.instance.snapshot(AT);
        snapshot.map_err(|error| Untaken::by("the agent's snapshot", &error))
    }

    /// Gives it an event.
    pub(super) fn handle(&mut self, event: Event) -> Result<(), Untaken> {
        match self.instance.handle(AT, event) {
            Ok(_) => Ok(()),
            Err(error) => Err(Untaken::by("an event of an idle agent", &error)),
        }
    }

    fn begin(build: &Arc<AgentBuild>, saved: Saved) -> Result<(Self, Nobody), Untaken> {
        let outside = Nobody::default();
        let instance = build.instantiate(Box::new(outside.clone()));
        let mut instance = instance.map_err(|error| Untaken::by("an instance", &error))?;
        let info = StartInfo {
            config: AgentConfig {
                device: THING.to_owned(),
                settings: Vec::new(),
                targets: vec![Target {
                    file: 0,
                    name: "main".to_owned(),
                    settings: Vec::new(),
                }],
            },
            saved,
            schema: build.schema(),
            seed: 1,
            outstanding: Vec::new(),
            last_event: 0,
        };
        match instance.start(AT, info) {
            Ok(Ok(_)) => Ok((Self { instance }, outside)),
            Ok(Err(failure)) => Err(Untaken::by("the agent refused to start", &failure)),
            Err(error) => Err(Untaken::by("starting the agent", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_comes_to_rest_and_goes_on_from_its_snapshot() {
        let build = host_sandbox::native_agent();
        let mut idle = Idle::start(&build).unwrap();
        let snapshot = idle.snapshot().unwrap();
        let mut again = Idle::wake(&build, snapshot.clone()).unwrap();
        assert_eq!(again.snapshot().unwrap().schema, snapshot.schema);
    }
}
