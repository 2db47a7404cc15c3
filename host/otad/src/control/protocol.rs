//! The lines of the control socket.
//!
//! ```text
//! -> {"otad":2,"device":"pump-1","do":"events","after":7,"follow":true}
//! <- {"otad":2,"item":{…}}          any number of these
//! <- {"otad":2,"ok":null}           or {"otad":2,"error":{"exit":"nothing","text":"…"}}
//! ```
//!
//! Members may be added within a version; a line of another version is refused. Not here: sockets.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failed, TABLE};

/// Version of the protocol.
pub const VERSION: u32 = 2;

/// Longest request line: names and a reason of 1 KiB, with room.
pub const REQUEST_MAX_BYTES: usize = 16 * 1024;

/// Longest answer line: a job document of 128 KiB, escaped. What grows with the number of devices is told in items.
pub const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// How long a daemon may be silent that is asked how things are: a device has half of that to answer.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// How long it may be silent that is given an order.
const ORDER_MAX: Duration = Duration::from_secs(30);

/// What is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Verb {
    /// What every device is doing: an item a device.
    Status,
    /// Stop requesting until `resume`.
    Suspend,
    /// Go on.
    Resume,
    /// Give up the active job.
    Abort,
    /// A deferred activation may happen.
    Activate,
    /// The image in test is good.
    Commit,
    /// The image in test is bad.
    Rollback {
        /// Why, for the job's status.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Ask the job service now.
    Poll,
    /// Application events after a cursor.
    Events {
        /// Those with a greater sequence number.
        #[serde(default)]
        after: u64,
        /// Go on when all that are stored have been sent.
        #[serde(default)]
        follow: bool,
    },
    /// Jobs that wait for somebody, and those under way: an item a job.
    Jobs,
    /// Past jobs and the one under way: an item a job, oldest first.
    History {
        /// At most so many of each device, the newest.
        #[serde(default)]
        limit: Option<usize>,
    },
    /// Let another plugin build serve the target.
    SwapPlugin {
        /// Absolute path of a component, or of a library for a target whose carrier is native, as the daemon sees it.
        file: String,
        /// Also a version below one that was accepted.
        #[serde(default)]
        allow_older: bool,
    },
    /// Let the plugin build before serve the target again.
    RollBackPlugin,
    /// Let another agent build serve the device, or all of them: an item a step.
    SwapAgent(AgentOrder),
    /// Let the agent build before serve the device again, or all of them.
    RollBackAgent {
        /// All devices.
        #[serde(default)]
        all: bool,
    },
    /// Take an offered job.
    Approve {
        /// Its id.
        job: String,
    },
    /// Refuse an offered job.
    Decline {
        /// Its id.
        job: String,
        /// Why, for the job's status.
        #[serde(default)]
        reason: Option<String>,
    },
    /// A job that somebody else has run is over.
    Finish {
        /// Its id.
        job: String,
        /// How.
        status: FinishStatus,
        /// Why, for the job's status.
        #[serde(default)]
        reason: Option<String>,
    },
}

impl Verb {
    /// How long the daemon may be silent before it is taken for one that hangs. None: it takes as long as it takes.
    #[must_use]
    pub fn silence_max(&self) -> Option<Duration> {
        match self {
            Self::Events { follow: true, .. }
            | Self::SwapPlugin { .. }
            | Self::RollBackPlugin
            | Self::SwapAgent(_)
            | Self::RollBackAgent { .. } => None,
            _ if self.is_order() => Some(ORDER_MAX),
            _ => Some(LOOK_MAX),
        }
    }

    /// Whether anything changes by it.
    #[must_use]
    pub fn is_order(&self) -> bool {
        !matches!(
            self,
            Self::Status | Self::Jobs | Self::History { .. } | Self::Events { .. }
        )
    }
}

/// An agent build for a device, or for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOrder {
    /// Absolute path of a component, as the daemon sees it.
    pub file: String,
    /// How long it is on trial, in seconds, unless a job succeeds before; left out = the runtime's default.
    #[serde(default)]
    pub trial_s: Option<u64>,
    /// All devices: one first, then the rest.
    #[serde(default)]
    pub all: bool,
    /// Which one is first; left out = the first of the configuration.
    #[serde(default)]
    pub canary: Option<String>,
    /// Also one that is older than what a device has accepted.
    #[serde(default)]
    pub allow_older: bool,
}

/// How a job can end that somebody else has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FinishStatus {
    /// SUCCEEDED.
    Succeeded,
    /// FAILED.
    Failed,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub otad: u32,
    /// Which device; may be left out where there is one.
    #[serde(default)]
    pub device: Option<String>,
    /// Which target; left out = all that the verb concerns.
    #[serde(default)]
    pub target: Option<String>,
    /// What.
    #[serde(flatten)]
    pub verb: Verb,
}

impl Request {
    /// A request for the only device.
    #[must_use]
    pub fn new(verb: Verb) -> Self {
        Self {
            otad: VERSION,
            device: None,
            target: None,
            verb,
        }
    }

    /// Parse a line.
    ///
    /// # Errors
    /// It is not a request of this version; the caller's fault.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let wrong = |text: String| Refusal::new(Exit::Usage, text);
        let value: Value = serde_json::from_slice(line)
            .map_err(|e| wrong(format!("the request is not JSON: {e}")))?;
        match version(&value) {
            Some(v) if v == u64::from(VERSION) => {}
            Some(v) => {
                return Err(wrong(format!(
                    "the request has version {v}, this daemon speaks {VERSION}; use the otad that it came with"
                )));
            }
            None => return Err(wrong("the request has no version (`otad`)".to_owned())),
        }
        serde_json::from_value(value)
            .map_err(|e| wrong(format!("the request is not understood: {e}")))
    }
}

fn version(line: &Value) -> Option<u64> {
    line.get("otad")?.as_u64()
}

/// Why a request was not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Name of the exit code that a command line should end with.
    pub exit: String,
    /// For people.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit: exit.name().to_owned(),
            text: text.into(),
        }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        let exit = TABLE
            .iter()
            .find(|row| row.2 == refusal.exit)
            .map_or(Exit::Failed, |row| row.0);
        Self::new(exit, refusal.text)
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// One of many; more lines follow.
    Item(Value),
    /// It is done; the last line.
    Ok(Value),
    /// It is not done; the last line.
    Error(Refusal),
}

/// One line of an answer, with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub otad: u32,
    /// What.
    #[serde(flatten)]
    pub body: Body,
}

impl Answer {
    /// The line, with its end.
    #[must_use]
    pub fn line(body: Body) -> Vec<u8> {
        let answer = Self {
            otad: VERSION,
            body,
        };
        // Serialising a tree of plain values into memory cannot fail; an empty line would be refused by the client.
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Parse a line.
    ///
    /// # Errors
    /// It is not an answer of this version; nobody's fault, where otad was replaced and its daemon goes on.
    pub fn parse(line: &[u8]) -> Result<Self, Failed> {
        let strange = |e| {
            let text = format!("the daemon's answer is not understood (protocol {VERSION}): {e}");
            Failed::new(Exit::Failed, text)
        };
        let value: Value = serde_json::from_slice(line).map_err(strange)?;
        match version(&value) {
            Some(v) if v != u64::from(VERSION) => Err(Failed::new(
                Exit::Usage,
                format!(
                    "the daemon's answer has version {v}, this otad speaks {VERSION}; use the otad that it came with, or start it \
                     again"
                ),
            )),
            _ => serde_json::from_value(value).map_err(strange),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_as_documented() {
        let request = Request {
            device: Some("pump-1".to_owned()),
            ..Request::new(Verb::Events {
                after: 7,
                follow: true,
            })
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"otad":2,"device":"pump-1","target":null,"do":"events","after":7,"follow":true}"#
        );
        let short = br#"{"otad":2,"device":"pump-1","do":"events","after":7,"follow":true}"#;
        assert_eq!(Request::parse(short).unwrap(), request);
        let line = Answer::line(Body::Error(Refusal::new(Exit::Nothing, "no job")));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"otad\":2,\"error\":{\"exit\":\"nothing\",\"text\":\"no job\"}}\n"
        );
    }

    #[test]
    fn what_is_no_request_of_this_version_is_refused_in_words() {
        let rows: [(&[u8], &str); 6] = [
            (b"", "not JSON"),
            (b"[1]", "no version"),
            (br#"{"do":"status"}"#, "no version"),
            (br#"{"otad":1,"do":"status"}"#, "has version 1"),
            (br#"{"otad":2,"do":"dance"}"#, "not understood"),
            (br#"{"otad":2,"do":"approve"}"#, "not understood"),
        ];
        for (line, words) in rows {
            let refusal = Request::parse(line).unwrap_err();
            assert_eq!(refusal.exit, "usage");
            assert!(refusal.text.contains(words), "{}", refusal.text);
        }
    }

    #[test]
    fn what_is_no_answer_of_this_version_is_refused_in_words() {
        let rows: [(&[u8], Exit, &str); 4] = [
            (b"", Exit::Failed, "not understood"),
            (br#"{"ok":null}"#, Exit::Failed, "not understood"),
            (br#"{"otad":2}"#, Exit::Failed, "not understood"),
            // Its devices came in the answer itself.
            (
                br#"{"otad":1,"ok":{"devices":[]}}"#,
                Exit::Usage,
                "version 1, this otad speaks 2",
            ),
        ];
        for (line, exit, words) in rows {
            let failed = Answer::parse(line).unwrap_err();
            assert_eq!(failed.exit, exit);
            assert!(failed.text.contains(words), "{}", failed.text);
        }
    }

    #[test]
    fn a_refusal_keeps_its_exit_code_on_the_way_to_the_command_line() {
        for row in TABLE {
            let failed = Failed::from(Refusal::new(row.0, "x"));
            assert_eq!(failed.exit, row.0);
        }
    }
}
