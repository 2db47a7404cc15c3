//! A transcript's line as far as the contract binds an agent: what was done to whom, without tokens, texts for people, and
//! numbers that a build may choose.

use serde_json::Value;

use super::world::MISTAKE;

/// Codes of `failure.main` that every build has its own of (`wit/agent/types.wit`, record `failure`).
const OWN_CODES: std::ops::RangeInclusive<u32> = 0x40..=0x7f;

/// Code of a document that the parser does not take; which of its members is wrong, each parser numbers by itself.
const PARSER: u32 = 0x0c;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// A subscription.
    Subscribe(String),
    /// The opposite.
    Unsubscribe(String),
    /// A request for the next job, or for one job.
    Ask(Option<String>),
    /// A status that only tells how far a download is.
    Progress,
    /// Any other status: job, status, details.
    Status(String, String, Vec<(String, String)>),
    /// A transfer begins, with all that the job document says about its file.
    Create(Vec<String>),
    /// Bytes are given to a target: file, first byte, end.
    Write(String, u64, u64),
    /// A duty of a target that comes in order: its name, the file.
    Duty(String, String),
    /// A transfer is thrown away.
    Abort(String),
    /// News for the application: kind, job and file.
    Emit(String, Vec<String>),
    /// A command was refused.
    Refused,
    /// A start was refused.
    StartRefused,
    /// A state in which an operator has put the agent.
    State(String),
    /// Counters.
    Counters(String),
    /// What is never right.
    Mistake(String),
    /// Anything that a build is free to do or not to do.
    Free,
}

impl Fact {
    /// Reads a line.
    pub(super) fn read(line: &str) -> Self {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        match (word, words.as_slice()) {
            (MISTAKE, _) => Self::Mistake(rest.to_owned()),
            ("subscribe", [_, filter]) => Self::Subscribe((*filter).to_owned()),
            ("unsubscribe", [filter]) => Self::Unsubscribe((*filter).to_owned()),
            ("publish", [_, topic, ..]) => {
                let payload = rest.splitn(3, ' ').nth(2).unwrap_or_default();
                Self::publish(topic, payload)
            }
            ("create", fields) => Self::Create(created(fields)),
            ("write", [file, place]) => match place.split_once('+') {
                Some((offset, length)) => {
                    let offset = offset.parse().unwrap_or(u64::MAX);
                    let length: u64 = length.parse().unwrap_or(0);
                    Self::Write((*file).to_owned(), offset, offset.saturating_add(length))
                }
                None => Self::Free,
            },
            (
                "close" | "install" | "activate" | "reset" | "self-test" | "commit" | "reject",
                [file],
            ) => Self::Duty(word.to_owned(), (*file).to_owned()),
            ("abort", [file]) => Self::Abort((*file).to_owned()),
            // How often an agent says that there is nothing to do is its own affair.
            ("emit", [_, "no-active-job", ..]) => Self::Free,
            ("emit", [_, kind, about @ ..]) => {
                let named = about.first().filter(|first| !first.contains('='));
                let file = about.iter().find(|word| word.starts_with("file="));
                let about = named.into_iter().chain(file);
                Self::Emit((*kind).to_owned(), about.map(|w| (*w).to_owned()).collect())
            }
            ("refused", _) => Self::Refused,
            ("start", ["refused", ..]) => Self::StartRefused,
            ("now", [state @ ("Suspended" | "Stopped")]) => Self::State((*state).to_owned()),
            _ if line.starts_with("received=") => Self::Counters(line.to_owned()),
            _ => Self::Free,
        }
    }

    fn publish(topic: &str, payload: &str) -> Self {
        let job_of = |verb: &str| {
            let rest = topic.strip_prefix("~/jobs/")?;
            rest.strip_suffix(verb).map(str::to_owned)
        };
        if topic == "~/jobs/$next/get" {
            return Self::Ask(None);
        }
        if let Some(job) = job_of("/get") {
            return Self::Ask(Some(job));
        }
        let Some(job) = job_of("/update") else {
            return Self::Free;
        };
        let body: Value = serde_json::from_str(payload).unwrap_or_default();
        let details = body["statusDetails"].as_object();
        if details.is_some_and(is_mere_progress) {
            return Self::Progress;
        }
        let mut details: Vec<(String, String)> = details
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), reason(value.as_str().unwrap_or_default())))
            .collect();
        details.sort();
        let status = body["status"].as_str().unwrap_or_default().to_owned();
        Self::Status(job, status, details)
    }
}

/// Whether details say no more than how far a file is: blocks received, or bytes that its target got.
pub(super) fn is_mere_progress(details: &serde_json::Map<String, Value>) -> bool {
    ["receive", "install"]
        .iter()
        .any(|key| details.contains_key(*key))
}

/// What a transfer must be begun with. The grid is the agent's choice.
fn created(fields: &[&str]) -> Vec<String> {
    fields
        .iter()
        .filter(|field| !field.starts_with("block="))
        .map(|field| (*field).to_owned())
        .collect()
}

/// A reason without the numbers that every build has its own of: `rejected: 0x00000041: …` becomes `rejected: own`, and of
/// a document that is none only the parser's code stays.
fn reason(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let main = words.iter().position(|word| word.starts_with("0x"));
    let Some(at) = main.filter(|at| *at <= 1) else {
        return text.to_owned();
    };
    let digits = words[at].trim_end_matches(':').trim_start_matches("0x");
    let name = match u32::from_str_radix(digits, 16) {
        Ok(main) if OWN_CODES.contains(&main) => "own",
        Ok(PARSER) => "parser",
        Ok(_) | Err(_) => return text.to_owned(),
    };
    [&words[..at], &[name]].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_texts_and_order_of_members_are_not_bound() {
        let one = r#"publish 1 ~/jobs/j/update {"status":"FAILED","statusDetails":{"reason":"0x00000045: 0x00000004"},"clientToken":"u5-1"}"#;
        let other = r#"publish 1 ~/jobs/j/update {"clientToken":"x","statusDetails":{"reason":"0x00000077: 0x00000001"},"status":"FAILED"}"#;
        assert_eq!(Fact::read(one), Fact::read(other));
        let job = r#"publish 1 ~/jobs/j/update {"status":"FAILED","statusDetails":{"reason":"0x0000000c: 0x00000004"}}"#;
        assert_ne!(Fact::read(one), Fact::read(job));
    }

    #[test]
    fn lines_become_facts() {
        let duty = |name: &str| Fact::Duty(name.to_owned(), "0".to_owned());
        for (line, expected) in [
            ("commit 0", duty("commit")),
            ("state 0", Fact::Free),
            ("now Suspended", Fact::State("Suspended".to_owned())),
            ("now Installing", Fact::Free),
            ("log info x", Fact::Free),
            ("write 0 4+6", Fact::Write("0".to_owned(), 4, 10)),
            ("refused 0xd0:0 x", Fact::Refused),
            ("!! no", Fact::Mistake("no".to_owned())),
            (
                "emit 3 fail J failure=0x1:2",
                Fact::Emit("fail".to_owned(), vec!["J".to_owned()]),
            ),
        ] {
            assert_eq!(Fact::read(line), expected, "{line}");
        }
    }
}
