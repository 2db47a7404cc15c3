//! The bounded way into a device: everything that happens outside its own turn comes through here.
//!
//! A full mailbox never blocks the sender (an MQTT event loop must not stop): QoS 0 messages are dropped and counted, a
//! QoS 1 message replaces an older one of its topic. Control inputs are never dropped; their number is bounded by
//! operations under way, which the device limits, and commands are refused at the door. Not here: topics and what they
//! mean.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::agent::Command;
use crate::ports::workers::{Reply, Wake};
use crate::types::{Failure, FileId, Outcome, Qos, Token, WINDOW_MAX_BYTES, code};

/// Messages that may wait: a full window of blocks of 1 KiB. Smaller blocks come no faster.
pub const MESSAGES_MAX: usize = 8192;

/// Bytes of messages that may wait: a full window with its envelopes, and two job documents. A device that keeps up has
/// a few of them here; one that does not is sent no more than its window.
pub const MESSAGE_BYTES_MAX: usize = WINDOW_MAX_BYTES as usize + 1024 * 1024;

/// Largest message: 128 KiB of block or document plus the service's envelope.
pub const MESSAGE_MAX_BYTES: usize = 160 * 1024;

/// Most messages that an agent is told with one event (`wit/agent/job-agent.wit`): a call of it costs as much as what it does
/// with two blocks.
pub const EVENT_MESSAGES_MAX: usize = 16;

/// Most bytes of such messages, 16 blocks of 4 KiB with their envelopes; a larger one is told alone.
pub const EVENT_BYTES_MAX: usize = 72 * 1024;

/// Commands and custom values that may wait for an agent; operators are slower than that.
pub const COMMANDS_MAX: usize = 32;

/// Changes of the connection that may wait; only the last ones say anything.
const CONNECTION_CHANGES_MAX: usize = 16;

/// Told how a command went; called once.
pub type CommandReply = Reply<Result<(), Failure>>;

/// What can happen to a device.
pub enum Input {
    /// There is a connection.
    Connected {
        /// The broker kept the session with its subscriptions.
        session_present: bool,
    },
    /// There is none. Operations under way end with completions of their own.
    Disconnected {
        /// Table in `job-agent.wit`, `disconnection.reason`.
        reason: u32,
        /// For people.
        detail: String,
    },
    /// An MQTT message of this device.
    Message {
        /// Full topic.
        topic: String,
        /// Payload.
        payload: Bytes,
        /// How it was delivered; decides what a full mailbox does with it.
        qos: Qos,
    },
    /// An operation of the transport is over.
    Done {
        /// Which one.
        token: Token,
        /// How.
        outcome: Outcome,
    },
    /// The answer to an HTTP request.
    HttpResponse {
        /// Which one.
        token: Token,
        /// HTTP status.
        status: u16,
        /// Size of the whole resource.
        total: Option<u64>,
        /// The bytes asked for; empty unless 206.
        body: Bytes,
    },
    /// A target has come up by itself, or was plugged in.
    TargetRestarted(FileId),
    /// Somebody wants something.
    Command {
        /// What.
        command: Command,
        /// Told how it went: refused, or taken.
        reply: Option<CommandReply>,
    },
    /// Share of the bandwidth cap in bytes a second.
    Allowance(u64),
    /// A named value for an agent that knows it.
    Custom {
        /// Kebab-case name.
        name: String,
        /// At most 128 KiB.
        bytes: Bytes,
    },
}

impl fmt::Debug for Input {
    /// Without payloads and replies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { session_present } => write!(f, "Connected({session_present})"),
            Self::Disconnected { reason, detail } => write!(f, "Disconnected({reason}, {detail})"),
            Self::Message { topic, payload, .. } => {
                write!(f, "Message({topic}, {} bytes)", payload.len())
            }
            Self::Done { token, outcome } => write!(f, "Done({token}, {outcome:?})"),
            Self::HttpResponse { token, status, .. } => {
                write!(f, "HttpResponse({token}, {status})")
            }
            Self::TargetRestarted(file) => write!(f, "TargetRestarted({file})"),
            Self::Command { command, .. } => write!(f, "Command({command:?})"),
            Self::Allowance(rate) => write!(f, "Allowance({rate})"),
            Self::Custom { name, bytes } => write!(f, "Custom({name}, {} bytes)", bytes.len()),
        }
    }
}

/// What a mailbox has counted since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxCounters {
    /// Messages that came.
    pub received: u64,
    /// Messages that were dropped or replaced before the agent saw them.
    pub dropped: u64,
    /// QoS 0 messages waiting now: blocks, as far as the host can tell.
    pub waiting: u64,
}

/// The way in. Clones are the same mailbox.
#[derive(Clone)]
pub struct Mailbox(Arc<Inside>);

/// What all who have a mailbox share.
struct Inside {
    queue: Mutex<Queue>,
    wake: Wake,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    /// An empty one; `wake` is called from any thread when there is something in it.
    #[must_use]
    pub fn new(wake: Wake) -> Self {
        Self(Arc::new(Inside {
            queue: Mutex::default(),
            wake,
        }))
    }

    /// Hand something to the device; never waits.
    pub fn send(&self, input: Input) {
        if let Some((reply, failure)) = self.lock().push(input) {
            reply(Err(failure));
        }
        (self.0.wake)();
    }

    /// Nobody reads it any more: what waits is dropped, commands are answered, and so is everything that comes later.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut queue = self.lock();
            queue.closed = true;
            std::mem::take(&mut queue.inputs)
        };
        for input in waiting {
            if let Input::Command {
                reply: Some(reply), ..
            } = input
            {
                reply(Err(ended()));
            }
        }
    }

    /// The oldest input.
    #[must_use]
    pub fn take(&self) -> Option<Input> {
        self.lock().pop()
    }

    /// Messages that are the oldest inputs, as many as an event tells and no more than `most`: topic and payload of each.
    pub(crate) fn take_messages(&self, most: usize) -> Vec<(String, Bytes)> {
        let mut queue = self.lock();
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some(Input::Message { topic, payload, .. }) = queue.inputs.front() {
            bytes += topic.len() + payload.len();
            let is_full = messages.len() == most.min(EVENT_MESSAGES_MAX)
                || !messages.is_empty() && bytes > EVENT_BYTES_MAX;
            if is_full {
                break;
            }
            if let Some(Input::Message { topic, payload, .. }) = queue.pop() {
                messages.push((topic, payload));
            }
        }
        messages
    }

    /// What wakes the device.
    pub(crate) fn wake(&self) -> Wake {
        Arc::clone(&self.0.wake)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many inputs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().inputs.len()
    }

    /// Give back the room that is not used.
    pub(crate) fn shrink(&self) {
        self.lock().inputs.shrink_to_fit();
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> MailboxCounters {
        self.lock().counters
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Queue {
    inputs: VecDeque<Input>,
    closed: bool,
    messages: usize,
    message_bytes: usize,
    commands: usize,
    connection_changes: usize,
    counters: MailboxCounters,
}

/// The answer to a command for a device that has ended.
fn ended() -> Failure {
    Failure::new(code::UNSUPPORTED, 0, "the device has ended")
}

impl Queue {
    /// Queue `input` by its kind's rule; the reply of a refused command comes back with the reason.
    fn push(&mut self, input: Input) -> Option<(CommandReply, Failure)> {
        if self.closed {
            return match input {
                Input::Command { reply, .. } => reply.map(|reply| (reply, ended())),
                _ => None,
            };
        }
        match input {
            Input::Message {
                topic,
                payload,
                qos,
            } => self.push_message(topic, payload, qos),
            Input::Connected { .. } | Input::Disconnected { .. } => {
                if self.connection_changes == CONNECTION_CHANGES_MAX {
                    self.remove_first(|old| {
                        matches!(old, Input::Connected { .. } | Input::Disconnected { .. })
                    });
                }
                self.connection_changes += 1;
                self.inputs.push_back(input);
            }
            Input::Command { command, reply } => {
                if self.commands == COMMANDS_MAX {
                    let detail =
                        format!("{COMMANDS_MAX} commands are waiting already; try again later");
                    return reply.map(|reply| (reply, Failure::new(code::LIMIT, 0, detail)));
                }
                self.commands += 1;
                self.inputs.push_back(Input::Command { command, reply });
            }
            Input::Custom { name, bytes } => {
                // The same name again replaces the value, as a newer job document does.
                self.remove_first(|old| matches!(old, Input::Custom { name: n, .. } if *n == name));
                if self.commands < COMMANDS_MAX {
                    self.commands += 1;
                    self.inputs.push_back(Input::Custom { name, bytes });
                } else {
                    self.counters.dropped += 1;
                }
            }
            Input::TargetRestarted(file) => {
                self.remove_first(|old| matches!(old, Input::TargetRestarted(f) if *f == file));
                self.inputs.push_back(input);
            }
            Input::Allowance(_) => {
                self.remove_first(|old| matches!(old, Input::Allowance(_)));
                self.inputs.push_back(input);
            }
            Input::Done { .. } | Input::HttpResponse { .. } => self.inputs.push_back(input),
        }
        None
    }

    fn push_message(&mut self, topic: String, payload: Bytes, qos: Qos) {
        self.counters.received += 1;
        let size = topic.len() + payload.len();
        if payload.len() > MESSAGE_MAX_BYTES {
            self.counters.dropped += 1;
            return;
        }
        if self.is_full_for(size) {
            if qos == Qos::AtMostOnce {
                self.counters.dropped += 1;
                return;
            }
            self.make_room(&topic, size);
        }
        self.messages += 1;
        self.message_bytes += size;
        if qos == Qos::AtMostOnce {
            self.counters.waiting += 1;
        }
        self.inputs.push_back(Input::Message {
            topic,
            payload,
            qos,
        });
    }

    fn is_full_for(&self, size: usize) -> bool {
        self.messages >= MESSAGES_MAX || self.message_bytes + size > MESSAGE_BYTES_MAX
    }

    /// Room for a QoS 1 message: an older one of its topic first, then QoS 0 messages, then the oldest there is.
    fn make_room(&mut self, topic: &str, size: usize) {
        self.drop_message(|old, qos| qos == Qos::AtLeastOnce && old == topic);
        while self.is_full_for(size) {
            let dropped = self.drop_message(|_, qos| qos == Qos::AtMostOnce)
                || self.drop_message(|_, _| true);
            if !dropped {
                return;
            }
        }
    }

    fn drop_message(&mut self, which: impl Fn(&str, Qos) -> bool) -> bool {
        let removed = self.remove_first(
            |old| matches!(old, Input::Message { topic, qos, .. } if which(topic, *qos)),
        );
        if removed {
            self.counters.dropped += 1;
        }
        removed
    }

    fn remove_first(&mut self, which: impl Fn(&Input) -> bool) -> bool {
        let removed = self
            .inputs
            .iter()
            .position(which)
            .and_then(|at| self.inputs.remove(at));
        match removed {
            Some(input) => {
                self.uncount(&input);
                true
            }
            None => false,
        }
    }

    fn pop(&mut self) -> Option<Input> {
        let input = self.inputs.pop_front()?;
        self.uncount(&input);
        Some(input)
    }

    fn uncount(&mut self, input: &Input) {
        match input {
            Input::Message {
                topic,
                payload,
                qos,
            } => {
                self.messages -= 1;
                self.message_bytes -= topic.len() + payload.len();
                if *qos == Qos::AtMostOnce {
                    self.counters.waiting -= 1;
                }
            }
            Input::Command { .. } | Input::Custom { .. } => self.commands -= 1,
            Input::Connected { .. } | Input::Disconnected { .. } => self.connection_changes -= 1,
            Input::Done { .. }
            | Input::HttpResponse { .. }
            | Input::TargetRestarted(_)
            | Input::Allowance(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
