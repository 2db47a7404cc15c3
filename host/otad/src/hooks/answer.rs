//! What a hook's end means: an exit code and what it wrote, as an answer, and the answer as a command for the agent.
//!
//! | exit code | job | activate | start_test | custom_job | fail |
//! | --- | --- | --- | --- | --- | --- |
//! | 0: yes | the job is taken | activated now | the image is good | taken; ends by `otad job finish`, or at once by `status` | noted |
//! | 2: not mine | the offer stays for `otad job` | stays for `otad activate` | as any other failure | nobody's: as `foreign_jobs` says | noted |
//! | 3: later | offered again | asked again | the verdict comes by `otad commit` or `rollback` | nobody's | noted |
//! | 5: no | REJECTED with the reason | the job is given up: FAILED | the image is bad: the old one comes back, FAILED | REJECTED with the reason | noted |
//! | any other, killed by a signal | as 3 | as 3 | the image is bad, `0xde000000` with the exit code | nobody's | logged |
//! | not done at its deadline | as 3 | as 3 | the image is bad, `0xd9000000` | nobody's | logged |
//! | cannot be started | as 3 | as 3 | the image is bad, `0xde000000` | nobody's | logged |
//!
//! The codes are those of `otad` itself. What a hook writes to standard output is a reason (its first line), or a JSON
//! object with the members of [`Said`]. A failure never takes a job, never activates and never confirms.

use std::collections::BTreeMap;

use host_runtime::agent::{Command, CustomAnswer, JobResult, OfferAnswer, clean};
use host_runtime::ports::commands::{CleanEnd, Way};
use host_runtime::types::{Failure, FileId, code};
use serde::Deserialize;
use serde_json::Value;

use super::Kind;

/// Exit codes of a hook: those of `otad` (`crate::exit`) in the place of a decision.
pub(super) const YES: i32 = 0;
pub(super) const NOT_MINE: i32 = 2;
pub(super) const LATER: i32 = 3;
pub(super) const NO: i32 = 5;

/// Most bytes of a reason, the limit of the job service for one status detail.
const REASON_MAX_BYTES: usize = 1024;

/// Longest `after_s`: a year, as the agent has it.
const AFTER_MAX_S: u64 = 365 * 24 * 3600;

/// `job-result.status`.
pub(crate) mod status {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const SUCCEEDED: u8 = 2;
    pub(crate) const REJECTED: u8 = 3;
}

/// What a hook may write to standard output as JSON.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    /// Why, for the job's status.
    #[serde(default)]
    reason: String,
    /// With exit code 3: ask again after so many seconds.
    after_s: Option<u64>,
    /// `custom_job` with exit code 0: the job is over already, `succeeded` or `failed`.
    status: Option<Ended>,
    /// With `status`: more members of statusDetails.
    #[serde(default)]
    details: BTreeMap<String, String>,
    /// `custom_job` with exit code 0: run this job document instead.
    document: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ended {
    Succeeded,
    Failed,
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Yes(Said),
    NotMine,
    Later { after_ms: Option<u64> },
    No { reason: String },
    Broken(Fault),
}

/// How a hook failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It answered with something else.
    #[error("exit code {0}")]
    Code(i32),
    #[error("killed by a signal")]
    Signal,
    #[error("not done at its deadline, killed")]
    Late,
    #[error("cannot be started")]
    NotStarted,
    #[error("standard output is no answer: {0}")]
    NotUnderstood(String),
}

impl Answer {
    pub(super) fn of(end: &CleanEnd) -> Self {
        let code = match (end.way, end.end.code) {
            (Way::NotStarted, _) => return Self::Broken(Fault::NotStarted),
            (Way::Killed, _) => return Self::Broken(Fault::Late),
            (Way::Itself, None) => return Self::Broken(Fault::Signal),
            (Way::Itself, Some(code)) => code,
        };
        if ![YES, NOT_MINE, LATER, NO].contains(&code) {
            return Self::Broken(Fault::Code(code));
        }
        let said = match said(&end.end.stdout) {
            Ok(said) => said,
            Err(why) => return Self::Broken(Fault::NotUnderstood(why)),
        };
        match code {
            YES => Self::Yes(said),
            NOT_MINE => Self::NotMine,
            LATER => Self::Later {
                after_ms: said.after_s.map(|s| s.min(AFTER_MAX_S) * 1000),
            },
            _ => Self::No {
                reason: said.reason,
            },
        }
    }

    /// In words, for the log.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Yes(_) => "yes".to_owned(),
            Self::NotMine => "not mine".to_owned(),
            Self::Later { .. } => "later".to_owned(),
            Self::No { reason } if reason.is_empty() => "no".to_owned(),
            Self::No { reason } => format!("no: {reason}"),
            Self::Broken(fault) => fault.to_string(),
        }
    }
}

/// The first line as a reason, or the members of a JSON object.
fn said(stdout: &[u8]) -> Result<Said, String> {
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim();
    let mut said = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|e| clean(&e.to_string(), REASON_MAX_BYTES))?
    } else {
        Said {
            reason: text.lines().next().unwrap_or_default().trim().to_owned(),
            ..Said::default()
        }
    };
    said.reason = clean(&said.reason, REASON_MAX_BYTES);
    Ok(said)
}

/// What an answer asks of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Give the agent this command.
    Order(Command),
    /// Ask the hook again after so many milliseconds.
    Again(u64),
    /// It is up to somebody else, or there is nothing to decide.
    Nothing,
}

/// What follows from the answer of a hook about this job and file.
pub(super) fn deed(
    kind: Kind,
    job: &str,
    file: Option<FileId>,
    answer: Answer,
    later_ms: u64,
) -> Deed {
    let job_id = job.to_owned();
    match kind {
        Kind::Job => match offer(answer, later_ms) {
            Some(answer) => Deed::Order(Command::AnswerOffer { job_id, answer }),
            None => Deed::Nothing,
        },
        Kind::Activate => match answer {
            Answer::Yes(_) => Deed::Order(Command::Activate(file.unwrap_or(0))),
            Answer::NotMine => Deed::Nothing,
            Answer::Later { after_ms } => Deed::Again(after_ms.unwrap_or(later_ms)),
            Answer::No { .. } => Deed::Order(Command::UserAbort),
            Answer::Broken(_) => Deed::Again(later_ms),
        },
        Kind::StartTest => match verdict(answer) {
            Some(failure) => Deed::Order(Command::TestResult {
                file: file.unwrap_or(0),
                failure,
            }),
            None => Deed::Nothing,
        },
        Kind::CustomJob => Deed::Order(Command::AnswerCustomJob {
            job_id,
            answer: custom(answer),
        }),
        Kind::Fail => Deed::Nothing,
    }
}

fn offer(answer: Answer, later_ms: u64) -> Option<OfferAnswer> {
    match answer {
        Answer::Yes(_) => Some(OfferAnswer::Accept),
        Answer::NotMine => None,
        Answer::Later { after_ms } => Some(OfferAnswer::Defer(after_ms.unwrap_or(later_ms))),
        Answer::No { reason } => Some(OfferAnswer::Reject(or_default(reason))),
        Answer::Broken(_) => Some(OfferAnswer::Defer(later_ms)),
    }
}

/// `Some(None)` = the image is good; `None` = the verdict is still to come.
fn verdict(answer: Answer) -> Option<Option<Failure>> {
    let bad = |sub: i32, why: String| {
        let sub = u32::try_from(sub).unwrap_or(0);
        Some(Some(Failure::new(code::EXTRA_CHECK, sub, why)))
    };
    match answer {
        Answer::Yes(_) => Some(None),
        Answer::Later { .. } => None,
        Answer::No { reason } => bad(NO, or_default(reason)),
        Answer::NotMine => bad(NOT_MINE, "the start_test hook: exit code 2".to_owned()),
        Answer::Broken(Fault::Late) => {
            let why = format!("the start_test hook: {}", Fault::Late);
            Some(Some(Failure::new(code::TIMED_OUT, 0, why)))
        }
        Answer::Broken(fault) => {
            let sub = if let Fault::Code(code) = fault {
                code
            } else {
                0
            };
            bad(sub, format!("the start_test hook: {fault}"))
        }
    }
}

fn custom(answer: Answer) -> CustomAnswer {
    match answer {
        Answer::Yes(Said {
            document: Some(document),
            ..
        }) => CustomAnswer::Document(document.to_string().into_bytes()),
        Answer::Yes(Said {
            status: Some(ended),
            reason,
            details,
            ..
        }) => {
            let status = match ended {
                Ended::Succeeded => status::SUCCEEDED,
                Ended::Failed => status::FAILED,
            };
            CustomAnswer::Finished(result(status, &reason, details))
        }
        Answer::Yes(_) => CustomAnswer::Taken,
        Answer::No { reason } => {
            let reason = or_default(reason);
            CustomAnswer::Finished(result(status::REJECTED, &reason, BTreeMap::new()))
        }
        Answer::NotMine | Answer::Later { .. } | Answer::Broken(_) => CustomAnswer::Nobody,
    }
}

/// How a job ends that somebody else has run, with its reason as the other jobs have theirs.
pub(crate) fn result(status: u8, reason: &str, details: BTreeMap<String, String>) -> JobResult {
    let reason = (!reason.is_empty()).then(|| ("reason".to_owned(), reason.to_owned()));
    let others = details
        .into_iter()
        .filter(|(key, _)| key != "reason" || reason.is_none());
    let details = reason.clone().into_iter().chain(others).collect();
    JobResult { status, details }
}

fn or_default(reason: String) -> String {
    if reason.is_empty() {
        "declined by a hook".to_owned()
    } else {
        reason
    }
}
