//! What a case asks of an agent, and whether an agent gives it.
//!
//! A case's outputs are one agent's. Of another one only that is asked which the contract binds:
//!
//! | output | bound | free |
//! | --- | --- | --- |
//! | statuses, `create`, `close`, `install`, `activate`, `reset`, `self-test`, `commit`, `reject` | all, in this order; what they say | tokens, order of members; a status, `close` or `install` repeated as it was |
//! | codes 0x40 to 0x7f in a reason | that it is such a code | which one |
//! | `write` | every byte once, at its place, by the end of the case | in which pieces and windows |
//! | block requests | within the file, nothing that is held, nothing twice at once, at most 128 KiB | windows, pace |
//! | requests for a job, `abort`, subscriptions | at least once where the case has one | more of them, order |
//! | news to the application | kind, job and file, in order | texts, `no-active-job` |
//! | a refusal; Suspended, Stopped | that it comes | its code and words |
//! | everything else (logs, journal, questions, other states) | | all |
//!
//! What is due may come later, at the agent's own deadlines, within [`PATIENCE_MS`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use host_runtime::agent::{AgentBuild, Command};

use super::Error;
use super::fact::Fact;
use super::input::{self, Input};
use super::world::{Manner, World, play};
use crate::check::script::{Case, Step};
use crate::check::verdict::{Finding, Skip, Verdict};

/// How long an agent may take for what a step asks of it, in virtual milliseconds: half an hour is longer than any wait
/// that a job survives, and the whole of it costs some hundred calls.
pub const PATIENCE_MS: u64 = 30 * 60 * 1000;

/// Deadlines that are kept in that time: one every few seconds.
const DEADLINES_MAX: usize = 500;

/// Plays a case with an agent and judges it. With `exact`, cases of how the shipped build does it are judged too, line
/// by line.
#[must_use]
pub fn judge(build: &Arc<AgentBuild>, case: &Case, exact: bool) -> Verdict {
    if case.own && !exact {
        return Verdict::Skipped(Skip::Own);
    }
    let judged = if case.own {
        compare(build, case)
    } else {
        Trial::new(case).run(build)
    };
    judged.unwrap_or_else(|error| broken(case, &error))
}

fn broken(case: &Case, error: &Error) -> Verdict {
    match error {
        Error::Broken { .. } => Verdict::Broken(error.to_string()),
        Error::Script(_) | Error::Misbehaved(_) => Verdict::Failed(Finding {
            place: case.file.clone(),
            what: error.to_string(),
            ..Finding::default()
        }),
    }
}

/// Line by line.
fn compare(build: &Arc<AgentBuild>, case: &Case) -> Result<Verdict, Error> {
    let transcript = play(build, case, Manner::default())?;
    let differs = case
        .steps
        .iter()
        .zip(transcript)
        .find(|(step, lines)| step.expected != *lines);
    Ok(match differs {
        None => Verdict::Passed,
        Some((step, lines)) => {
            Verdict::Failed(finding(case, step, "it does otherwise".into(), &lines))
        }
    })
}

fn finding(case: &Case, step: &Step, what: String, lines: &[String]) -> Finding {
    Finding {
        place: format!("{}:{}", case.file, step.line),
        what,
        input: step.input.clone(),
        expected: step.expected.clone(),
        came: lines.to_vec(),
    }
}

/// One case under way.
struct Trial<'a> {
    case: &'a Case,
    /// Whether the case lets subscriptions fail: then one that was asked for is not one that is there.
    fails_subscriptions: bool,
    subscribed: BTreeSet<String>,
    aborted: BTreeSet<String>,
    /// Last status of each job.
    told: BTreeMap<String, Fact>,
    /// Files that were closed or installed.
    done: BTreeSet<(String, String)>,
    must_write: Ranges,
    written: Ranges,
}

/// What a step still asks for.
struct Due {
    deeds: Vec<Fact>,
    news: Vec<Fact>,
    others: Vec<Fact>,
}

impl Due {
    fn is_empty(&self) -> bool {
        self.deeds.is_empty() && self.news.is_empty() && self.others.is_empty()
    }

    /// The first of it, in words.
    fn first(&self) -> String {
        let first = self.deeds.iter().chain(&self.news).chain(&self.others);
        first.into_iter().next().map_or_else(String::new, words)
    }
}

impl<'a> Trial<'a> {
    fn new(case: &'a Case) -> Self {
        let fails = |step: &Step| step.input.starts_with("on subscribe");
        Self {
            case,
            fails_subscriptions: case.steps.iter().any(fails),
            subscribed: BTreeSet::new(),
            aborted: BTreeSet::new(),
            told: BTreeMap::new(),
            done: BTreeSet::new(),
            must_write: Ranges::default(),
            written: Ranges::default(),
        }
    }

    fn run(mut self, build: &Arc<AgentBuild>) -> Result<Verdict, Error> {
        let case = self.case;
        let mut world = World::set(build, case)?;
        for step in &case.steps {
            let input = input::parse(&step.input).map_err(case.at(step.line))?;
            if let Some(finding) = self.step(&mut world, step, &input)? {
                return Ok(Verdict::Failed(finding));
            }
        }
        if let (Some(last), false) = (case.steps.last(), self.must_write == self.written) {
            let what = format!(
                "bytes that were to be written: {}; that were: {}",
                self.must_write, self.written
            );
            return Ok(Verdict::Failed(finding(case, last, what, &[])));
        }
        Ok(Verdict::Passed)
    }

    /// Plays a step; what is wrong, if anything is.
    fn step(
        &mut self,
        world: &mut World,
        step: &Step,
        input: &Input,
    ) -> Result<Option<Finding>, Error> {
        if matches!(
            input,
            Input::Start | Input::Restart | Input::Connected(false)
        ) {
            self.subscribed.clear();
        }
        let mut due = self.due(step, input);
        let until = world.now() + PATIENCE_MS;
        let mut all = Vec::new();
        let mut entered = world.enter(input);
        for _ in 0..DEADLINES_MAX {
            let lines = world.take_lines();
            let wrong = self.take(&lines, &mut due);
            all.extend(lines);
            if let Some(what) = wrong {
                return Ok(Some(finding(self.case, step, what, &all)));
            }
            match entered {
                Ok(()) => {}
                Err(Error::Misbehaved(what)) => {
                    return Ok(Some(finding(self.case, step, what, &all)));
                }
                Err(other) => return Err(other),
            }
            if due.is_empty() {
                return Ok(None);
            }
            match world.deadline() {
                Some(deadline) if deadline <= until => entered = world.enter(&Input::Timeout),
                _ => break,
            }
        }
        let what = format!("it never comes: {}", due.first());
        Ok(Some(finding(self.case, step, what, &all)))
    }

    /// What a step asks for, of what is not there already.
    fn due(&mut self, step: &Step, input: &Input) -> Due {
        let mut due = Due {
            deeds: Vec::new(),
            news: Vec::new(),
            others: Vec::new(),
        };
        let leaves = matches!(
            input,
            Input::Command(Command::Shutdown { unsubscribe: true })
        );
        for line in &step.expected {
            let fact = Fact::read(line);
            match &fact {
                Fact::Status(..) | Fact::Create(_) | Fact::Duty(..) => due.deeds.push(fact),
                Fact::Emit(..) => due.news.push(fact),
                Fact::Write(file, start, end) => self.must_write.add(file, *start, *end),
                Fact::Unsubscribe(_) if !leaves => {}
                Fact::Subscribe(filter)
                    if self.subscribed.contains(filter) && !self.fails_subscriptions => {}
                Fact::Abort(file) if self.aborted.contains(file) => {}
                Fact::Subscribe(_)
                | Fact::Unsubscribe(_)
                | Fact::Abort(_)
                | Fact::Ask(_)
                | Fact::Refused
                | Fact::StartRefused
                | Fact::State(_)
                | Fact::Counters(_) => due.others.push(fact),
                Fact::Progress | Fact::Free | Fact::Mistake(_) => {}
            }
        }
        due
    }

    /// Strikes off what came; the first thing that must not have come.
    fn take(&mut self, lines: &[String], due: &mut Due) -> Option<String> {
        for line in lines {
            let fact = Fact::read(line);
            match &fact {
                Fact::Mistake(what) => return Some(what.clone()),
                Fact::Status(..) | Fact::Create(_) | Fact::Duty(..) => {
                    if due.deeds.first() == Some(&fact) {
                        due.deeds.remove(0);
                    } else if !self.may_repeat(&fact) {
                        return Some(out_of_order(&fact, due.deeds.first()));
                    }
                    self.remember(&fact);
                }
                Fact::Emit(..) => {
                    if due.news.first() != Some(&fact) {
                        return Some(out_of_order(&fact, due.news.first()));
                    }
                    due.news.remove(0);
                }
                Fact::Write(file, start, end) => self.written.add(file, *start, *end),
                Fact::Refused | Fact::StartRefused => {
                    if !strike(&mut due.others, &fact) {
                        return Some(out_of_order(&fact, None));
                    }
                }
                Fact::Counters(line) => {
                    let wanted = due
                        .others
                        .iter()
                        .position(|o| matches!(o, Fact::Counters(_)));
                    match wanted.map(|at| due.others.remove(at)) {
                        Some(Fact::Counters(wanted)) if wanted != *line => {
                            return Some(format!("counters are {line}, expected {wanted}"));
                        }
                        _ => {}
                    }
                }
                Fact::Subscribe(filter) => {
                    self.subscribed.insert(filter.clone());
                    strike(&mut due.others, &fact);
                }
                Fact::Unsubscribe(filter) => {
                    self.subscribed.remove(filter);
                    strike(&mut due.others, &fact);
                }
                Fact::Abort(file) => {
                    self.aborted.insert(file.clone());
                    strike(&mut due.others, &fact);
                }
                Fact::Ask(_) | Fact::State(_) => {
                    due.others.retain(|other| *other != fact);
                }
                Fact::Progress | Fact::Free => {}
            }
        }
        None
    }

    /// Whether it does no harm to say or do this once more.
    fn may_repeat(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Status(job, ..) => self.told.get(job) == Some(fact),
            Fact::Duty(name, file) => self.done.contains(&(name.clone(), file.clone())),
            _ => false,
        }
    }

    fn remember(&mut self, fact: &Fact) {
        match fact {
            Fact::Status(job, ..) => {
                self.told.insert(job.clone(), fact.clone());
            }
            Fact::Duty(name, file) if name == "close" || name == "install" => {
                self.done.insert((name.clone(), file.clone()));
            }
            Fact::Create(fields) => {
                if let Some(file) = fields.first() {
                    self.aborted.remove(file);
                    self.done.retain(|(_, closed)| closed != file);
                }
            }
            _ => {}
        }
    }
}

fn strike(list: &mut Vec<Fact>, fact: &Fact) -> bool {
    let at = list.iter().position(|other| other == fact);
    at.map(|at| list.remove(at)).is_some()
}

fn out_of_order(fact: &Fact, next: Option<&Fact>) -> String {
    match next {
        Some(next) => format!("{} came, and {} was next", words(fact), words(next)),
        None => format!("{} was not to come", words(fact)),
    }
}

/// A fact for people.
fn words(fact: &Fact) -> String {
    match fact {
        Fact::Subscribe(filter) => format!("subscribe {filter}"),
        Fact::Unsubscribe(filter) => format!("unsubscribe {filter}"),
        Fact::Ask(None) => "a request for the next job".to_owned(),
        Fact::Ask(Some(job)) => format!("a request for job {job}"),
        Fact::Progress => "a progress status".to_owned(),
        Fact::Status(job, status, details) => {
            let details: Vec<String> = details.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("status {status} [{}] of {job}", details.join(", "))
        }
        Fact::Create(fields) => format!("create {}", fields.join(" ")),
        Fact::Write(file, start, end) => format!("write {file} {start}..{end}"),
        Fact::Duty(name, file) => format!("{name} {file}"),
        Fact::Abort(file) => format!("abort {file}"),
        Fact::Emit(kind, about) => format!("event {kind} {}", about.join(" ")),
        Fact::Refused => "a refusal of the command".to_owned(),
        Fact::StartRefused => "a refusal to start".to_owned(),
        Fact::State(state) => format!("state {state}"),
        Fact::Counters(line) | Fact::Mistake(line) => line.clone(),
        Fact::Free => "something".to_owned(),
    }
}

/// Bytes of files, merged.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ranges(BTreeMap<String, Vec<(u64, u64)>>);

impl Ranges {
    fn add(&mut self, file: &str, start: u64, end: u64) {
        let ranges = self.0.entry(file.to_owned()).or_default();
        ranges.push((start, end));
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        *ranges = merged;
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (file, ranges) in &self.0 {
            for (start, end) in ranges {
                write!(f, "{file}:{start}..{end} ")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
