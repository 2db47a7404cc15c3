//! The host's ports to network, programs and seeds, as queues that the world empties. Nothing is decided here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::ports::commands::{Command, CommandEnd, Commands};
use host_runtime::ports::seed::Seed;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::{Reply, Work, Workers};
use host_runtime::types::{Qos, Token};

use crate::ground::{Call, Ground, Verb};
use crate::random::Random;

/// What a device asked the network for.
pub(crate) enum Asked {
    Publish {
        token: Token,
        topic: String,
        payload: Vec<u8>,
        qos: Qos,
    },
    /// Messages of a filter are to come, or to come no more.
    Subscribe {
        token: Token,
        filter: String,
        on: bool,
    },
    /// A range of a resource.
    Range {
        token: Token,
        url: String,
        offset: u64,
        length: u32,
    },
    Cancel(Token),
}

/// The transport of one process. Clones are the same.
#[derive(Clone)]
pub(crate) struct Wire {
    ground: Ground,
    asked: Arc<Mutex<VecDeque<Asked>>>,
}

impl Wire {
    pub(crate) fn new(ground: &Ground) -> Self {
        Self {
            ground: ground.clone(),
            asked: Arc::default(),
        }
    }

    pub(crate) fn take(&self) -> Option<Asked> {
        self.lock().pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, call: &Call<'_>, asked: Asked) {
        let sent = self.ground.call(call, |_| {
            self.lock().push_back(asked);
            Ok(())
        });
        // The process does not live any more: nobody waits for an answer.
        drop(sent);
    }

    fn ask_for(&self, token: Token, filter: &str, on: bool) {
        let asked = Asked::Subscribe {
            token,
            filter: filter.to_owned(),
            on,
        };
        self.ask(&Call::new(Verb::Ask, filter), asked);
    }
}

impl Transport for Wire {
    fn subscribe(&mut self, token: Token, filter: &str, _: Qos) {
        self.ask_for(token, filter, true);
    }

    fn unsubscribe(&mut self, token: Token, filter: &str) {
        self.ask_for(token, filter, false);
    }

    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, qos: Qos) {
        // Only a trace says which bytes they were.
        let traced = match self.ground.is_traced() {
            true => payload.clone(),
            false => Vec::new(),
        };
        let call = Call {
            length: payload.len() as u64,
            bytes: &traced,
            ..Call::new(Verb::Publish, topic)
        };
        let asked = Asked::Publish {
            token,
            topic: topic.to_owned(),
            payload,
            qos,
        };
        self.ask(&call, asked);
    }

    fn http_get(&mut self, token: Token, url: &str, offset: u64, length: u32) {
        let asked = Asked::Range {
            token,
            url: url.to_owned(),
            offset,
            length,
        };
        self.ask(&Call::new(Verb::Ask, url), asked);
    }

    fn cancel(&mut self, token: Token) {
        self.lock().push_back(Asked::Cancel(token));
    }
}

/// A program that was started.
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) reply: Reply<CommandEnd>,
}

/// The programs of one process.
#[derive(Clone)]
pub(crate) struct Programs {
    ground: Ground,
    started: Arc<Mutex<VecDeque<Program>>>,
}

impl Programs {
    pub(crate) fn new(ground: &Ground) -> Self {
        Self {
            ground: ground.clone(),
            started: Arc::default(),
        }
    }

    pub(crate) fn take(&self) -> Option<Program> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.pop_front()
    }
}

impl Commands for Programs {
    fn run(&self, command: &Command, _: &[(String, String)], reply: Reply<CommandEnd>) {
        let program = Program {
            argv: command.argv.clone(),
            reply,
        };
        let place = command.argv.join(" ");
        let started = self.ground.call(&Call::new(Verb::Run, &place), |_| {
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            started.push_back(program);
            Ok(())
        });
        // As above.
        drop(started);
    }
}

/// Runs everything at once, in order.
pub(crate) struct Inline;

impl Workers for Inline {
    fn run(&self, work: Work) {
        work();
    }
}

/// One number for each start of an agent.
pub(crate) struct Seeds(Mutex<Random>);

impl Seeds {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(Random::stream(seed, "agent")))
    }
}

impl Seed for Seeds {
    fn seed(&self) -> u64 {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        random.number()
    }
}
