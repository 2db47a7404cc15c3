//! `--wait`: a job followed to its end, for each thing and as a sum, and the exit code that its end means.

use std::collections::BTreeMap;

use host_cloud::operator::OperatorClient;
use host_cloud::service::{Change, ExecutionStatus, JobId, StatusDetails};
use serde_json::{Value, json};

use crate::cli::cloud_client::refused;
use crate::exit::{Exit, Verb};
use crate::progress::{Progress, Unit, say};

/// What the ends of a job's executions mean, worst first.
const WORST_FIRST: [Exit; 6] = [
    Exit::Unverified,
    Exit::Refused,
    Exit::Failed,
    Exit::Retry,
    Exit::Nothing,
    Exit::Done,
];

/// Follow a job to its end.
pub(super) async fn follow(client: &mut OperatorClient, job: JobId, json: bool) -> Verb {
    let id = job.to_string();
    let lost = |error| {
        let mut failed = refused(error);
        if failed.exit == Exit::Retry {
            failed.text += &format!(
                "; how {id} goes on is not known here: see `otad update show {id}` once the cloud is back"
            );
        }
        failed
    };
    let things = client.show(job.clone()).await.map_err(lost)?;
    let mut story = Story::new(things.executions.len());
    let ended = client
        .watch(job, |change| {
            if json {
                say(&json!({ "change": change }).to_string());
            } else {
                story.show(&change);
            }
        })
        .await
        .map_err(lost)?;
    story.progress.finish();
    if json {
        say(&json!({ "job": ended }).to_string());
    }
    let ends = ended.executions.iter().map(|execution| End {
        thing: execution.thing.to_string(),
        status: execution.status,
        reason: reason(&execution.status_details),
    });
    let ends: Vec<End> = ends.collect();
    if !json {
        for line in end_lines(ended.job_id.as_str(), &ends) {
            say(&line);
        }
        if let Some(reason) = &ended.reason {
            say(&format!("{} was cancelled: {reason}", ended.job_id));
        }
    }
    Ok(exit_of_all(&ends))
}

/// How a job ended on a thing.
pub(super) struct End {
    pub(super) thing: String,
    pub(super) status: ExecutionStatus,
    pub(super) reason: String,
}

/// A line for each thing, and one for the sum where there are several.
pub(super) fn end_lines(job: &str, ends: &[End]) -> Vec<String> {
    let mut lines = Vec::new();
    for End {
        thing,
        status,
        reason,
    } in ends
    {
        let line = format!("{job} on {thing}: {} {reason}", status.as_str());
        lines.push(line.trim_end().to_owned());
    }
    if ends.len() > 1 {
        lines.push(format!("{job}: {}", sum(ends.iter().map(|e| e.status))));
    }
    lines
}

/// `998 SUCCEEDED, 2 FAILED`.
pub(super) fn sum(statuses: impl Iterator<Item = ExecutionStatus>) -> String {
    let mut counts: BTreeMap<ExecutionStatus, usize> = BTreeMap::new();
    for status in statuses {
        *counts.entry(status).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(status, n)| format!("{n} {}", status.as_str()))
        .collect();
    match counts.is_empty() {
        true => "nobody".to_owned(),
        false => counts.join(", "),
    }
}

/// The exit code of a job: that of its worst end.
pub(super) fn exit_of_all(ends: &[End]) -> Exit {
    if ends.is_empty() {
        return Exit::Nothing;
    }
    let exits = ends.iter().map(|e| exit_of(e.status, &e.reason));
    worst(exits.collect())
}

/// The worst of several exit codes; of none it is [`Exit::Done`].
pub(super) fn worst(exits: Vec<Exit>) -> Exit {
    WORST_FIRST
        .into_iter()
        .find(|exit| exits.contains(exit))
        .unwrap_or(Exit::Done)
}

/// What is shown while a job runs: a bar over all things, a line for each change of status.
struct Story {
    things: usize,
    part: Part,
    progress: Progress,
    /// How much of the part each thing has done.
    done: BTreeMap<String, (u64, u64)>,
    last: BTreeMap<String, String>,
}

/// What a bar goes through, in the order in which a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Receive,
    Install,
}

impl Part {
    fn progress(self) -> Progress {
        match self {
            Self::Receive => Progress::new("downloading", Unit::Blocks),
            Self::Install => Progress::new("installing", Unit::Bytes),
        }
    }
}

impl Story {
    fn new(things: usize) -> Self {
        Self {
            things,
            part: Part::Receive,
            progress: Part::Receive.progress(),
            done: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// One line or one step of the bar; the same status twice is no news.
    fn show(&mut self, change: &Change) {
        let thing = change.thing.to_string();
        if let Some((part, (done, total))) = moved(&change.status_details) {
            if part > self.part {
                self.part = part;
                self.progress = part.progress();
                self.done.clear();
            }
            if part == self.part {
                self.done.insert(thing, (done, total));
                let (done, total) = self.sum(total);
                self.progress.update(done, total);
            }
            return;
        }
        let details = details(&change.status_details);
        let line = format!("{thing}  {} {details}", change.status.as_str());
        if self.last.get(&thing) != Some(&line) && !change.status.is_terminal() {
            self.progress.print(line.trim_end());
            self.last.insert(thing, line);
        }
    }

    /// Blocks or bytes of all things; one that has not begun has as many ahead as the one that just spoke.
    fn sum(&self, each: u64) -> (u64, u64) {
        let known = self.done.values();
        let (done, total) = known.fold((0, 0), |(d, t), (done, total)| (d + done, t + total));
        let silent = self.things.saturating_sub(self.done.len()) as u64;
        (done, total + silent * each)
    }
}

/// `receive: "17/64"`, or `install`.
fn moved(details: &StatusDetails) -> Option<(Part, (u64, u64))> {
    let (part, value) = match details.get("install") {
        Some(value) => (Part::Install, value),
        None => (Part::Receive, details.get("receive")?),
    };
    let (done, total) = value.as_str()?.split_once('/')?;
    Some((part, (done.parse().ok()?, total.parse().ok()?)))
}

pub(super) fn reason(details: &StatusDetails) -> String {
    text(details.get("reason"))
}

pub(super) fn details(details: &StatusDetails) -> String {
    let members: Vec<String> = details
        .iter()
        .map(|(key, value)| format!("{key}={}", text(Some(value))))
        .collect();
    members.join(" ")
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The exit code of an end: the outcome, and for a failure whose it was.
fn exit_of(status: ExecutionStatus, reason: &str) -> Exit {
    match status {
        ExecutionStatus::Succeeded => Exit::Done,
        ExecutionStatus::Canceled | ExecutionStatus::Removed => Exit::Nothing,
        ExecutionStatus::TimedOut => Exit::Retry,
        ExecutionStatus::Rejected => Exit::Refused,
        ExecutionStatus::Queued | ExecutionStatus::InProgress => Exit::Failed,
        ExecutionStatus::Failed => match failure_main(reason) {
            // Same version, downgrade, wrong product.
            Some(0x0f | 0x10 | 0xd3) => Exit::Refused,
            // Signature, signer, extra check. A self-test that says no has the same code, and was not about what is verified.
            Some(0xe3 | 0xe7) => Exit::Unverified,
            Some(0xde) if !reason.starts_with(REJECTED) => Exit::Unverified,
            _ => Exit::Failed,
        },
    }
}

/// How a job's reason begins that is about an image's version, or about what it does in its self-test.
const REJECTED: &str = "rejected: ";

/// The code that says whose fault a failure was: `0x000000e3: 0x…`, `rejected: 0x0000000f`, `aborted: 0xe4000005`.
fn failure_main(reason: &str) -> Option<u32> {
    let at = reason.find("0x")? + 2;
    let digits = reason.get(at..at + 8)?;
    let word = u32::from_str_radix(digits, 16).ok()?;
    Some(if word > 0xff { word >> 24 } else { word })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn end(status: ExecutionStatus, reason: &'static str, exit: Exit) -> Row {
        (status, reason, exit)
    }
    type Row = (ExecutionStatus, &'static str, Exit);

    const ENDS: [Row; 13] = [
        end(ExecutionStatus::Succeeded, "accepted  v1.1.0", Exit::Done),
        end(
            ExecutionStatus::Failed,
            "rejected: 0x0000000f",
            Exit::Refused,
        ),
        end(
            ExecutionStatus::Failed,
            "rejected: 0x00000010",
            Exit::Refused,
        ),
        end(
            ExecutionStatus::Failed,
            "0x000000d3: 0x00000000",
            Exit::Refused,
        ),
        end(
            ExecutionStatus::Failed,
            "0x000000e3: 0x00000000",
            Exit::Unverified,
        ),
        end(
            ExecutionStatus::Failed,
            "aborted: 0xe7000001",
            Exit::Unverified,
        ),
        end(
            ExecutionStatus::Failed,
            "0x000000de: 0x00000001",
            Exit::Unverified,
        ),
        end(
            ExecutionStatus::Failed,
            "rejected: 0xde000001",
            Exit::Failed,
        ),
        end(ExecutionStatus::Failed, "aborted: 0x00000013", Exit::Failed),
        end(ExecutionStatus::Failed, "", Exit::Failed),
        end(ExecutionStatus::Canceled, "", Exit::Nothing),
        end(ExecutionStatus::TimedOut, "", Exit::Retry),
        end(ExecutionStatus::Rejected, "not now", Exit::Refused),
    ];

    #[test]
    fn the_exit_code_is_the_outcome() {
        for (status, reason, exit) in ENDS {
            assert_eq!(exit_of(status, reason), exit, "{status:?} {reason}");
        }
    }

    #[test]
    fn of_several_ends_the_worst_counts() {
        use ExecutionStatus::{Canceled, Failed, Rejected, Succeeded, TimedOut};
        let ends = |statuses: &[ExecutionStatus]| {
            let ends: Vec<End> = statuses
                .iter()
                .map(|status| End {
                    thing: "x".to_owned(),
                    status: *status,
                    reason: String::new(),
                })
                .collect();
            exit_of_all(&ends)
        };
        assert_eq!(ends(&[Succeeded, Succeeded]), Exit::Done);
        assert_eq!(ends(&[Succeeded, Canceled]), Exit::Nothing);
        assert_eq!(ends(&[Canceled, TimedOut]), Exit::Retry);
        assert_eq!(ends(&[Failed, Canceled, TimedOut]), Exit::Failed);
        assert_eq!(ends(&[Failed, Rejected]), Exit::Refused);
        assert_eq!(ends(&[]), Exit::Nothing);
    }

    #[test]
    fn several_things_have_a_line_each_and_a_sum() {
        let ends: Vec<End> = [
            ("a", ExecutionStatus::Succeeded),
            ("b", ExecutionStatus::Failed),
        ]
        .into_iter()
        .map(|(thing, status)| End {
            thing: thing.to_owned(),
            status,
            reason: String::new(),
        })
        .collect();
        assert_eq!(
            end_lines("j", &ends),
            [
                "j on a: SUCCEEDED",
                "j on b: FAILED",
                "j: 1 SUCCEEDED, 1 FAILED"
            ]
        );
        assert_eq!(end_lines("j", &ends[..1]).len(), 1);
    }

    #[test]
    fn progress_is_read_from_the_details_and_added_up() {
        let of = |key: &str, text: &str| {
            let mut details = StatusDetails::new();
            details.insert(key.to_owned(), text.into());
            moved(&details)
        };
        assert_eq!(of("receive", "17/64"), Some((Part::Receive, (17, 64))));
        assert_eq!(
            of("install", "4096/65536"),
            Some((Part::Install, (4096, 65_536)))
        );
        assert_eq!(of("receive", "64"), None);
        assert_eq!(of("file-1", "receive 1/2"), None);
        let mut story = Story::new(4);
        story.done.insert("a".to_owned(), (10, 64));
        story.done.insert("b".to_owned(), (64, 64));
        assert_eq!(story.sum(64), (74, 256));
    }
}
