//! The timeline: what the update passed, when, and how long it took to get there.
//!
//! Milestones come from the ends of the target's operations in the daemon's log and from the application's events; how
//! far the download is comes from the status. Nothing is guessed from one another.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::daemon::LogLine;
use super::scenario::Milestone;
use crate::progress::{Progress, Unit, say};

/// What has been seen so far; scripts wait on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) held_percent: u64,
    /// Names of the application's events, in order.
    pub(super) events: Vec<String>,
    pub(super) passed: Vec<(Milestone, Duration)>,
}

impl Seen {
    pub(super) fn has_passed(&self, milestone: Milestone) -> bool {
        self.passed.iter().any(|(m, _)| *m == milestone)
    }
}

/// Collects and prints.
pub(super) struct Timeline {
    start: Instant,
    /// The target that the job is for.
    target: &'static str,
    /// Targets that are told of with their names.
    others: Vec<&'static str>,
    seen: watch::Sender<Seen>,
    progress: Option<Progress>,
}

impl Timeline {
    /// It begins now.
    pub(super) fn new(target: &'static str) -> Self {
        Self {
            start: Instant::now(),
            target,
            others: Vec::new(),
            seen: watch::Sender::default(),
            progress: None,
        }
    }

    /// Tell also what these targets go through.
    pub(super) fn tell_others(&mut self, targets: &[&'static str]) {
        let own = self.target;
        self.others = targets.iter().copied().filter(|t| *t != own).collect();
    }

    pub(super) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// A line with the time, such as of a script's step.
    pub(super) fn note(&mut self, text: &str) {
        let at = self.start.elapsed();
        self.print(at, text, None);
    }

    /// A line of the daemon's log.
    pub(super) fn on_line(&mut self, line: &LogLine) {
        let step = Step::of(line);
        if line.field("target") != self.target {
            self.on_other(line, step);
            return;
        }
        let milestones: &[Milestone] = match (line.field("operation"), step) {
            ("create", Step::Begins) => &[Milestone::Notified],
            ("close", Step::Begins) => &[Milestone::Downloaded],
            ("close", Step::Failed) => &[Milestone::ReadBack],
            ("close", Step::Done) => &[Milestone::ReadBack, Milestone::Verified],
            ("activate", Step::Done) => &[Milestone::Activated],
            ("reset", Step::Done) => &[Milestone::Restarted],
            ("self-test", Step::Done) => &[Milestone::SelfTested],
            ("commit", Step::Done) => &[Milestone::Committed],
            ("reject", Step::Done) => &[Milestone::RolledBack],
            _ => &[],
        };
        for milestone in milestones {
            self.pass(*milestone);
        }
        if step == Step::Failed {
            let at = self.start.elapsed();
            let text = format!("{} {}", line.field("operation"), line.field("message"));
            self.print(at, &text, None);
        }
    }

    /// A line about another target of the job.
    fn on_other(&mut self, line: &LogLine, step: Step) {
        let target = line.field("target");
        if !self.others.contains(&target) {
            return;
        }
        let text = match (line.field("operation"), step) {
            ("close", Step::Done) => "verified",
            ("install", Step::Done) => "sent over its line",
            ("activate", Step::Done) => "marked for test",
            ("reset", Step::Done) => "restarted",
            ("self-test", Step::Done) => "self-tested",
            ("commit", Step::Done) => "committed",
            ("reject", Step::Done) => "rolled back",
            (operation, Step::Failed) => {
                let text = format!("{target}: {operation} {}", line.field("message"));
                return self.note(&text);
            }
            _ => return,
        };
        let text = format!("{target}: {text}");
        self.note(&text);
    }

    /// An event of the application.
    pub(super) fn on_event(&mut self, name: &str) {
        self.seen
            .send_modify(|seen| seen.events.push(name.to_owned()));
        match name {
            "received-job" => self.pass(Milestone::Notified),
            // The target went back by itself.
            "rolled-back" => self.pass(Milestone::RolledBack),
            _ => {}
        }
    }

    /// How far the download is.
    pub(super) fn on_held(&mut self, held: u64, size: u64) {
        if size == 0 || self.seen.borrow().has_passed(Milestone::Downloaded) {
            return;
        }
        let percent = held.saturating_mul(100) / size;
        self.seen.send_if_modified(|seen| {
            let news = seen.held_percent != percent;
            seen.held_percent = percent;
            news
        });
        self.progress
            .get_or_insert_with(|| Progress::new("downloading", Unit::Bytes))
            .update(held, size);
    }

    fn pass(&mut self, milestone: Milestone) {
        if self.seen.borrow().has_passed(milestone) {
            return;
        }
        let at = self.start.elapsed();
        if milestone >= Milestone::Downloaded {
            self.progress = None;
        }
        let before = self.seen.borrow().passed.last().map(|(_, at)| *at);
        self.print(at, milestone.text(), before.map(|b| at.saturating_sub(b)));
        self.seen
            .send_modify(|seen| seen.passed.push((milestone, at)));
    }

    fn print(&mut self, at: Duration, text: &str, took: Option<Duration>) {
        let took = took.map_or_else(String::new, |t| format!("  +{:.3} s", t.as_secs_f64()));
        let line = format!("{:>9.3} s  {text:<14}{took}", at.as_secs_f64());
        match &self.progress {
            Some(progress) => progress.print(line.trim_end()),
            None => say(line.trim_end()),
        }
    }
}

/// What a log line says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begins,
    Done,
    Failed,
    None,
}

impl Step {
    fn of(line: &LogLine) -> Self {
        let message = line.field("message");
        match message {
            _ if line.field("operation").is_empty() => Self::None,
            "begins" => Self::Begins,
            "done" => Self::Done,
            _ if message.starts_with("failed") => Self::Failed,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(operation: &str, message: &str) -> LogLine {
        let fields = [
            ("target", "main"),
            ("operation", operation),
            ("message", message),
        ];
        LogLine {
            level: "DEBUG".to_owned(),
            fields: fields
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.into()))
                .collect(),
        }
    }

    #[tokio::test]
    async fn milestones_come_from_the_operations_of_the_jobs_target_once_each() {
        let mut timeline = Timeline::new("main");
        timeline.on_event("received-job");
        for (operation, message) in [
            ("create", "begins"),
            ("create", "done"),
            ("close", "begins"),
            ("close", "failed: signature"),
            ("state", "done"),
        ] {
            timeline.on_line(&line(operation, message));
        }
        let mut other = line("commit", "done");
        other.fields.insert("target".to_owned(), "extra".into());
        timeline.on_line(&other);
        let passed: Vec<_> = timeline.seen().passed.iter().map(|(m, _)| *m).collect();
        assert_eq!(
            passed,
            [
                Milestone::Notified,
                Milestone::Downloaded,
                Milestone::ReadBack
            ]
        );
    }

    #[tokio::test]
    async fn the_share_held_is_told_until_the_download_is_over() {
        let mut timeline = Timeline::new("main");
        timeline.on_held(30, 100);
        assert_eq!(timeline.seen().held_percent, 30);
        timeline.on_line(&line("close", "begins"));
        timeline.on_held(0, 100);
        assert_eq!(timeline.seen().held_percent, 30);
    }
}
