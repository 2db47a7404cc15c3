//! Inputs and set-up lines of a case, as values.
//!
//! The first word says what it is, the rest are its arguments; the list is in `cases/README.md`.

use host_runtime::agent::{Command, CustomAnswer, JobResult, OfferAnswer};
use host_runtime::types::{Failure, FileId, Outcome, TargetState, Version};

use super::wire::unhex;

/// What happens to an order instead of what the model says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As the model has it.
    Model,
    /// It goes on until the script ends it.
    Hold,
    /// It goes on for ever: nobody will end it.
    Lost,
    /// It ends so.
    End(Outcome),
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A new device starts.
    Start,
    /// The host process dies and starts again with the stored journal.
    Restart,
    /// Another instance takes over through a snapshot.
    Swap,
    /// There is a connection.
    Connected(bool),
    /// There is none.
    Disconnected(u32),
    /// The reply to the last job request, with this `execution`.
    Next(Option<String>),
    /// A notification, with this `execution`.
    Notify(Option<String>),
    /// The last job request is refused with this code.
    NextRejected(String),
    /// The reply to the last question for one job, with this `execution`.
    JobReply(String),
    /// The last question for one job is refused with this code.
    JobRejected(String),
    /// The oldest unanswered status update is accepted.
    Accepted,
    /// The oldest unanswered status update is refused: code, and `executionState` if there is one.
    Rejected(String, Option<String>),
    /// So many of the blocks that were last asked for, none = all.
    Blocks(Option<usize>),
    /// One block of the file at hand.
    Block(Block),
    /// The answer to the oldest request by URL.
    Range(Range),
    /// Any message.
    Message(String, Vec<u8>),
    /// The messages of what follows come together.
    Together,
    /// They are there, with one event.
    Told,
    /// Orders of this kind are answered so from now on, or once.
    On {
        /// First word of the order.
        kind: String,
        /// The answer.
        answer: Answer,
        /// Only the next one.
        once: bool,
    },
    /// The oldest held order of this kind ends.
    End(String, Answer),
    /// As `End`, and the same end comes once more.
    EndAgain(String, Answer),
    /// An end for a token that nobody may know.
    Done(u64, Outcome),
    /// Progress for a token that nobody may know.
    ProgressOf(u64, u64, u64),
    /// An answer to an HTTP request: token, status, body.
    Http(u64, u16, Vec<u8>),
    /// Share of the bandwidth in bytes a second.
    Allowance(u64),
    /// The deadline's event, whatever the time.
    Tick,
    /// A held order of this kind makes progress.
    Progress(String, u64, u64),
    /// What a target says about itself changes.
    Target(FileId, TargetState),
    /// The next image of a target has this version.
    Image(FileId, Option<Version>),
    /// A target goes back to the image of before by itself.
    WentBack(FileId),
    /// A target has come up.
    Restarted(FileId),
    /// An order of the operator.
    Command(Command),
    /// Time passes; due deadlines are kept.
    Wait(u64),
    /// Time passes up to the deadline.
    Timeout,
    /// A value for builds that know more.
    Custom(String, Vec<u8>),
    /// Writes the counters down.
    Statistics,
    /// Writes what the agent waits for down.
    Why,
}

impl Input {
    /// Whether the agent hears of it at once. What changes only the world around it is seen when the agent looks.
    #[must_use]
    pub fn reaches_agent(&self) -> bool {
        !matches!(
            self,
            Self::On { .. }
                | Self::Target(..)
                | Self::Image(..)
                | Self::WentBack(_)
                | Self::Together
                | Self::Statistics
                | Self::Why
        )
    }
}

/// One block message, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// Its index.
    pub index: u64,
    /// File id, none = the right one.
    pub file: Option<u64>,
    /// Length member, none = the payload's.
    pub length: Option<u64>,
    /// Bytes of payload, none = the right number.
    pub payload: Option<usize>,
}

/// One answer of a server, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// HTTP status, none = 206.
    pub status: Option<u16>,
    /// Size of the whole file, none = the right one.
    pub total: Option<u64>,
    /// Bytes, none = the right number.
    pub bytes: Option<usize>,
}

/// Reads an input.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Input, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let whole = || (!rest.is_empty()).then(|| rest.to_owned());
    let input = match (word, words.as_slice()) {
        ("start", []) => Input::Start,
        ("restart", []) => Input::Restart,
        ("swap", []) => Input::Swap,
        ("connected", []) => Input::Connected(false),
        ("connected", ["session"]) => Input::Connected(true),
        ("disconnected", [reason]) => Input::Disconnected(number(reason)?),
        ("next", _) => Input::Next(whole()),
        ("notify", _) => Input::Notify(whole()),
        ("next-rejected", [code]) => Input::NextRejected((*code).to_owned()),
        ("job-reply", [_, ..]) => Input::JobReply(rest.to_owned()),
        ("job-rejected", [code]) => Input::JobRejected((*code).to_owned()),
        ("accepted", []) => Input::Accepted,
        ("rejected", [code]) => Input::Rejected((*code).to_owned(), None),
        ("rejected", [code, ..]) => {
            let state = rest[code.len()..].trim().to_owned();
            Input::Rejected((*code).to_owned(), Some(state))
        }
        ("blocks", []) => Input::Blocks(None),
        ("blocks", [count]) => Input::Blocks(Some(number(count)?)),
        ("block", [index, pairs @ ..]) => Input::Block(block(index, pairs)?),
        ("range", pairs) => Input::Range(range(pairs)?),
        ("message", [topic, ..]) => {
            let payload = rest[topic.len()..].trim();
            let bytes = match payload.strip_prefix("0x") {
                Some(digits) => unhex(digits).ok_or("bad hex")?,
                None => payload.as_bytes().to_vec(),
            };
            Input::Message((*topic).to_owned(), bytes)
        }
        ("together", []) => Input::Together,
        ("told", []) => Input::Told,
        ("on", [kind, "once", answer @ ..]) => Input::On {
            kind: (*kind).to_owned(),
            answer: self::answer(answer)?,
            once: true,
        },
        ("on", [kind, answer @ ..]) => Input::On {
            kind: (*kind).to_owned(),
            answer: self::answer(answer)?,
            once: false,
        },
        ("end", [kind, answer @ ..]) => Input::End((*kind).to_owned(), self::answer(answer)?),
        ("end-again", [kind, answer @ ..]) => {
            Input::EndAgain((*kind).to_owned(), self::answer(answer)?)
        }
        ("done", [token, answer @ ..]) => match self::answer(answer)? {
            Answer::End(outcome) => Input::Done(number(token)?, outcome),
            Answer::Model | Answer::Hold | Answer::Lost => {
                return Err("a done has an outcome".to_owned());
            }
        },
        ("progress-of", [token, done, total]) => {
            Input::ProgressOf(number(token)?, number(done)?, number(total)?)
        }
        ("http", [token, status, body @ ..]) => {
            Input::Http(number(token)?, number(status)?, body.join(" ").into_bytes())
        }
        ("allowance", [rate]) => Input::Allowance(number(rate)?),
        ("tick", []) => Input::Tick,
        ("progress", [kind, done, total]) => {
            Input::Progress((*kind).to_owned(), number(done)?, number(total)?)
        }
        ("target", [file, state @ ..]) => Input::Target(number(file)?, target_state(state)?),
        ("image", [file, "none"]) => Input::Image(number(file)?, None),
        ("image", [file, version]) => Input::Image(number(file)?, Some(parse_version(version)?)),
        ("went-back", [file]) => Input::WentBack(number(file)?),
        ("restarted", [file]) => Input::Restarted(number(file)?),
        ("command", _) => Input::Command(command(rest)?),
        ("wait", [time]) => Input::Wait(milliseconds(time)?),
        ("timeout", []) => Input::Timeout,
        ("custom", [name, ..]) => Input::Custom(
            (*name).to_owned(),
            rest[name.len()..].trim().as_bytes().to_vec(),
        ),
        ("statistics", []) => Input::Statistics,
        ("why", []) => Input::Why,
        _ => return Err(format!("{text:?} is no input")),
    };
    Ok(input)
}

fn block(index: &str, pairs: &[&str]) -> Result<Block, String> {
    let mut block = Block {
        index: number(index)?,
        ..Block::default()
    };
    for pair in pairs {
        match pair.split_once('=') {
            Some(("f", value)) => block.file = Some(number(value)?),
            Some(("l", value)) => block.length = Some(number(value)?),
            Some(("p", value)) => block.payload = Some(number(value)?),
            _ => return Err(format!("{pair:?} is neither f=, l= nor p=")),
        }
    }
    Ok(block)
}

fn range(pairs: &[&str]) -> Result<Range, String> {
    let mut range = Range::default();
    for pair in pairs {
        match pair.split_once('=') {
            Some(("status", value)) => range.status = Some(number(value)?),
            Some(("total", value)) => range.total = Some(number(value)?),
            Some(("bytes", value)) => range.bytes = Some(number(value)?),
            _ => return Err(format!("{pair:?} is neither status=, total= nor bytes=")),
        }
    }
    Ok(range)
}

fn answer(words: &[&str]) -> Result<Answer, String> {
    let end = |outcome| Ok(Answer::End(outcome));
    match words {
        ["model"] => Ok(Answer::Model),
        ["hold"] => Ok(Answer::Hold),
        ["lost"] => Ok(Answer::Lost),
        ["nothing"] => end(Outcome::Nothing),
        ["fail", main, sub] => end(Outcome::Failed(failure(main, sub)?)),
        ["held", bits] => end(Outcome::Held(bytes(bits)?)),
        ["other", bits] => end(Outcome::Other(bytes(bits)?)),
        ["state", state @ ..] => end(Outcome::State(target_state(state)?)),
        _ => Err(format!("{words:?} is no answer")),
    }
}

/// `0x…`.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x");
    digits
        .and_then(unhex)
        .ok_or_else(|| format!("{text:?} is no hex"))
}

fn failure(main: &str, sub: &str) -> Result<Failure, String> {
    let main = u8::from_str_radix(main.trim_start_matches("0x"), 16)
        .map_err(|_| format!("{main:?} is no code"))?;
    Ok(Failure::new(main, number(sub)?, "as the script has it"))
}

/// `CODE [VERSION|none] [new|old]`.
fn target_state(words: &[&str]) -> Result<TargetState, String> {
    let [code, rest @ ..] = words else {
        return Err("a state needs its code".to_owned());
    };
    let running = match rest.first() {
        None | Some(&"none") => None,
        Some(version) => Some(parse_version(version)?),
    };
    let runs_new = match rest.get(1) {
        None => None,
        Some(&"new") => Some(true),
        Some(&"old") => Some(false),
        Some(other) => return Err(format!("{other:?} is neither new nor old")),
    };
    Ok(TargetState {
        code: number(code)?,
        running,
        runs_new,
    })
}

/// `1.2.3` or `1.2.3+4`.
///
/// # Errors
/// It is no version.
pub fn parse_version(text: &str) -> Result<Version, String> {
    let (numbers, build) = text.split_once('+').unwrap_or((text, "0"));
    let parts: Vec<&str> = numbers.split('.').collect();
    let [major, minor, revision] = parts.as_slice() else {
        return Err(format!("{text:?} is no version"));
    };
    Ok(Version {
        major: number(major)?,
        minor: number(minor)?,
        revision: number(revision)?,
        build: number(build)?,
    })
}

fn command(text: &str) -> Result<Command, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |count: usize| -> String { words[count..].join(" ") };
    let offer = |job: &str, answer| Command::AnswerOffer {
        job_id: job.to_owned(),
        answer,
    };
    let custom = |job: &str, answer| Command::AnswerCustomJob {
        job_id: job.to_owned(),
        answer,
    };
    let command = match words.as_slice() {
        ["check-for-update"] => Command::CheckForUpdate,
        ["suspend"] => Command::Suspend,
        ["resume"] => Command::Resume,
        ["activate", file] => Command::Activate(number(file)?),
        ["test-passed", file] => Command::TestResult {
            file: number(file)?,
            failure: None,
        },
        ["test-failed", file, main, sub] => Command::TestResult {
            file: number(file)?,
            failure: Some(failure(main, sub)?),
        },
        ["user-abort"] => Command::UserAbort,
        ["accept", job] => offer(job, OfferAnswer::Accept),
        ["defer", job, time] => offer(job, OfferAnswer::Defer(milliseconds(time)?)),
        ["decline", job, ..] => offer(job, OfferAnswer::Reject(after(2))),
        ["nobody", job] => custom(job, CustomAnswer::Nobody),
        ["taken", job] => custom(job, CustomAnswer::Taken),
        ["document", job, ..] => custom(job, CustomAnswer::Document(after(2).into_bytes())),
        ["finished", job, status, pairs @ ..] => {
            let details: Option<Vec<(String, String)>> = pairs
                .iter()
                .map(|pair| {
                    pair.split_once('=')
                        .map(|(k, v)| (k.to_owned(), v.to_owned()))
                })
                .collect();
            let details = details.ok_or("details are key=value")?;
            custom(
                job,
                CustomAnswer::Finished(JobResult {
                    status: number(status)?,
                    details,
                }),
            )
        }
        ["shutdown"] => Command::Shutdown { unsubscribe: false },
        ["shutdown", "unsubscribe"] => Command::Shutdown { unsubscribe: true },
        _ => return Err(format!("{text:?} is no command")),
    };
    Ok(command)
}

/// `500ms`, `10s`, `2m`, `3h` or `1d`.
fn milliseconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| factor);
    Ok(number::<u64>(digits)? * factor.ok_or_else(|| format!("{text:?} has no unit"))?)
}

/// A decimal number.
///
/// # Errors
/// It is none, or out of range.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_with_arguments_are_read() {
        let version = Version {
            major: 1,
            minor: 2,
            revision: 3,
            build: 4,
        };
        for (text, expected) in [
            ("connected session", Input::Connected(true)),
            (
                "next {\"a\": 1}",
                Input::Next(Some("{\"a\": 1}".to_owned())),
            ),
            ("next", Input::Next(None)),
            ("rejected X", Input::Rejected("X".to_owned(), None)),
            (
                "rejected X {\"a\": 1}",
                Input::Rejected("X".to_owned(), Some("{\"a\": 1}".to_owned())),
            ),
            ("wait 2m", Input::Wait(120_000)),
            ("image 1 1.2.3+4", Input::Image(1, Some(version))),
            (
                "message ~/x 0x00ff",
                Input::Message("~/x".to_owned(), vec![0, 255]),
            ),
            ("end write fail 0xd6 28", {
                Input::End(
                    "write".to_owned(),
                    Answer::End(Outcome::Failed(failure("d6", "28").unwrap())),
                )
            }),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        let state = TargetState {
            code: 1,
            running: Some(version),
            runs_new: Some(true),
        };
        assert_eq!(
            parse("target 0 1 1.2.3+4 new").unwrap(),
            Input::Target(0, state)
        );
    }

    #[test]
    fn what_is_no_input_is_refused() {
        for text in [
            "",
            "jump",
            "wait 5",
            "block",
            "on x",
            "command dance",
            "target 0",
            "image 0 1.2",
            "block 0 z=1",
            "range 5",
            "range status=x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
