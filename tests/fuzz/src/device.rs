//! The smallest host that an agent can live in: every target takes everything, the job service takes every status unless a
//! reply to one is what is hostile.
//!
//! It stops nothing and fails nothing by itself; what is hostile here are messages and saved states.

use std::collections::VecDeque;

use agent_core::agent::Agent;
use agent_core::types::{
    Action, Blob, Call, Config, Context, Event, Failure, ImageInfo, Order, Outcome, Saved, Setting,
    StartInfo, Target, TargetState, Version,
};
use serde_json::{Value, json};

/// Thing name of the device.
pub const THING: &str = "mything";

/// In the payload of a [`Device::reply`]: the token of what it replies to.
pub const TOKEN: &str = "<token>";

/// Steps that may follow from one event: all blocks of a window, each with its actions.
const STEPS_MAX: usize = 10_000;

/// A status that the agent has sent.
#[derive(Clone, Debug)]
pub struct Update {
    /// The job.
    pub job: String,
    /// `status`.
    pub status: String,
    /// `statusDetails`.
    pub details: Value,
}

/// An agent and what it has said.
pub struct Device {
    agent: Agent,
    now: u64,
    token: u64,
    due: VecDeque<Event>,
    /// Client token of the last question for a job.
    asked: Option<String>,
    /// Client token of the last question how the job at hand stands.
    described: Option<String>,
    /// Client token of the last status.
    told: Option<String>,
    /// The service says nothing to a status.
    pub is_silent: bool,
    /// Statuses, oldest first.
    pub updates: Vec<Update>,
    /// The last journal.
    pub journal: Option<Blob>,
    /// Number of the last event. A state that somebody else wrote says where the numbers go on.
    last_event: Option<u64>,
    state: Option<u8>,
    /// Started with a state that somebody else wrote: a status in it is sent as it stands there.
    resumed: bool,
}

impl Device {
    /// A new agent, connected, with the targets 0 and 1.
    ///
    /// # Panics
    /// When the agent refuses a good configuration.
    #[must_use]
    pub fn new(settings: &[(&str, &str)]) -> Self {
        let mut device = Self::start(settings, Saved::None).expect("the configuration is good");
        device.connect(false);
        device
    }

    /// An agent with a saved state.
    ///
    /// # Errors
    /// It refuses the state.
    pub fn start(settings: &[(&str, &str)], saved: Saved) -> Result<Self, Failure> {
        let setting = |(key, value): &(&str, &str)| Setting {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let target = |file| Target {
            file,
            name: format!("target-{file}"),
            settings: Vec::new(),
        };
        let info = StartInfo {
            config: Config {
                device: THING.to_owned(),
                settings: settings.iter().map(setting).collect(),
                targets: vec![target(0), target(1)],
            },
            saved,
            schema: Agent::describe().schemas[0],
            seed: 1,
            outstanding: Vec::new(),
            last_event: 0,
        };
        let now = 1000;
        let context = Context {
            now_ms: now,
            wall_s: None,
        };
        let resumed = !matches!(info.saved, Saved::None);
        let mut device = Self {
            agent: Agent::start(context, info)?,
            now,
            token: 0,
            due: VecDeque::new(),
            asked: None,
            described: None,
            told: None,
            is_silent: false,
            updates: Vec::new(),
            journal: None,
            last_event: (!resumed).then_some(0),
            state: None,
            resumed,
        };
        device.settle();
        Ok(device)
    }

    /// Gives the agent an event and obeys it until it is quiet.
    pub fn give(&mut self, event: Event) {
        self.agent.handle(
            Context {
                now_ms: self.now,
                wall_s: None,
            },
            event,
        );
        self.settle();
    }

    /// The connection is there, or there again.
    pub fn connect(&mut self, session_present: bool) {
        self.give(Event::Connected { session_present });
    }

    /// Whether it has asked how the job at hand stands.
    #[must_use]
    pub fn asks_about_job(&self) -> bool {
        self.described.is_some()
    }

    /// A message below the device's topics.
    pub fn message(&mut self, rest: &str, payload: &[u8]) {
        self.give(Event::Message {
            topic: format!("$aws/things/{THING}/{rest}"),
            payload: payload.to_vec(),
        });
    }

    /// Answers the last question for a job with this text as the member `execution`.
    pub fn offer(&mut self, execution: &str) {
        let payload = format!(
            "{{\"clientToken\":\"{TOKEN}\",\"timestamp\":1700000000,\"execution\":{execution}}}"
        );
        self.reply("jobs/$next/get/accepted", payload.as_bytes());
    }

    /// A message below the device's topics that replies to what the device has sent: with its [`TOKEN`].
    pub fn reply(&mut self, rest: &str, payload: &[u8]) {
        let token = match rest.rsplit_once('/').map(|(request, _)| request) {
            Some("jobs/$next/get") => &self.asked,
            Some(request) if request.ends_with("/get") => &self.described,
            _ => &self.told,
        };
        let token = token.as_deref().unwrap_or_default();
        let payload = replaced(payload, TOKEN.as_bytes(), token.as_bytes());
        self.message(rest, &payload);
    }

    /// Lets so many deadlines pass.
    pub fn pass(&mut self, deadlines: usize) {
        for _ in 0..deadlines {
            let Some(at) = self.agent.deadline() else {
                return;
            };
            self.now = self.now.max(at);
            self.give(Event::Timeout);
        }
    }

    /// The agent's number for what it is doing.
    #[must_use]
    pub fn state(&self) -> u8 {
        self.agent.status().state
    }

    /// The job at hand.
    #[must_use]
    pub fn job(&self) -> Option<String> {
        self.agent.status().job_id
    }

    /// The whole state.
    pub fn snapshot(&mut self) -> Blob {
        self.agent.snapshot(Context {
            now_ms: self.now,
            wall_s: None,
        })
    }

    fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            while let Some(action) = self.agent.poll_action() {
                self.obey(action);
            }
            let turn = self.agent.turn();
            if let Some(status) = &turn.status {
                self.state = Some(status.state);
            }
            // Waiting for a job, suspended, stopped: the only states that may wait for ever.
            let may_wait = self.state.is_none_or(|state| [3, 8, 10].contains(&state));
            assert!(
                may_wait || turn.deadline.is_some(),
                "no deadline in state {:?}",
                self.state
            );
            let Some(event) = self.due.pop_front() else {
                return;
            };
            self.agent.handle(
                Context {
                    now_ms: self.now,
                    wall_s: None,
                },
                event,
            );
        }
        panic!("the agent goes round in circles");
    }

    fn obey(&mut self, action: Action) {
        let Action { op, order } = action;
        let outcome = match &order {
            Order::Reopen { .. } => Outcome::Failed(Failure::new(0xdb, 0, "nothing is held")),
            Order::Pal(Call::State, _) => Outcome::State(TargetState {
                code: 2,
                running: Some(Version {
                    major: 1,
                    ..Version::default()
                }),
                runs_new: Some(false),
            }),
            Order::Pal(Call::Close, _) => Outcome::Verified(ImageInfo {
                size: 1,
                sha256: vec![0; 32],
                version: Some(Version {
                    major: 2,
                    ..Version::default()
                }),
                product: None,
                signer: "signer".to_owned(),
            }),
            _ => Outcome::Nothing,
        };
        match &order {
            Order::JournalStore(blob) => self.journal = Some(blob.clone()),
            Order::Emit(event) => {
                let next = self.last_event.map(|last| last.saturating_add(1));
                let next = next.unwrap_or(event.sequence);
                assert_eq!(event.sequence, next, "events have no gaps");
                self.last_event = Some(next);
            }
            _ => {}
        }
        if op == 0 {
            return;
        }
        if matches!(order, Order::Pal(Call::State, _) | Order::WriteBlock { .. }) {
            self.due.push_back(Event::Ended { op, outcome });
            return;
        }
        self.token += 1;
        self.agent.bind(op, self.token);
        self.due.push_back(Event::Done {
            token: self.token,
            outcome,
        });
        if let Order::Publish { topic, payload, .. } = order {
            self.on_publish(&topic, &payload);
        }
    }

    fn on_publish(&mut self, topic: &str, payload: &[u8]) {
        assert!(payload.len() <= 128 * 1024 && topic.len() <= 320, "{topic}");
        let rest = topic.strip_prefix(&format!("$aws/things/{THING}/"));
        let rest = rest.unwrap_or_else(|| panic!("{topic} is not this device's"));
        let Some(job) = rest.strip_prefix("jobs/") else {
            return;
        };
        let body: Value = match serde_json::from_slice(payload) {
            Ok(body) => body,
            Err(e) => {
                assert!(self.resumed, "requests are JSON: {e}");
                self.due.push_back(Event::Message {
                    topic: format!("{topic}/rejected"),
                    payload: json!({ "code": "InvalidJson" }).to_string().into_bytes(),
                });
                return;
            }
        };
        let token = body["clientToken"].as_str().unwrap_or_default().to_owned();
        if job == "$next/get" {
            self.asked = Some(token);
        } else if job.ends_with("/get") {
            self.described = Some(token);
        } else if let Some(job) = job.strip_suffix("/update") {
            self.told = Some(token.clone());
            self.updates.push(Update {
                job: job.to_owned(),
                status: body["status"].as_str().unwrap_or_default().to_owned(),
                details: body["statusDetails"].clone(),
            });
            if self.is_silent {
                return;
            }
            let answer = json!({ "timestamp": 1_700_000_000, "clientToken": token });
            self.due.push_back(Event::Message {
                topic: format!("{topic}/accepted"),
                payload: answer.to_string().into_bytes(),
            });
        }
    }
}

/// With each `from` in it replaced by `to`.
fn replaced(mut bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        match bytes.strip_prefix(from) {
            Some(rest) => {
                all.extend_from_slice(to);
                bytes = rest;
            }
            None => {
                all.push(*first);
                bytes = rest;
            }
        }
    }
    all
}
