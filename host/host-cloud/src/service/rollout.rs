//! How a job spreads over its things, and when it gives up or is done.
//!
//! ```text
//!            canary given                      all of the canary ended
//!  created ───────────────▶ Canary ──────────────────────────────────────▶ Batches (a rate is given) or AtOnce
//!     └──── none ─────────────────────────────────────────────────────────▶
//! ```
//!
//! In `Batches` one batch is offered each minute. With an abort rule the next batch also waits for results: while fewer
//! executions have ended than a rule needs to judge an image that fails everywhere, no further batch is offered once as
//! many things have the job. So a bad image reaches at most the canary and one batch, however slow its failures are.
//!
//! [`Service::spread`] is called whenever something changed that it could depend on; to call it once too often is
//! harmless.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Execution, ExecutionStatus, Job, JobId, JobProgress, JobStatus, Outgoing, Service, Stage,
    ThingName, WaitsFor, queue::MINUTE_MS, record::Record,
};

/// What the service knows about the executions of a job without looking at each. Never stored: rebuilt at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobIndex {
    /// Things with an execution.
    pub(super) things: BTreeSet<ThingName>,
    /// Those whose execution is held, in the order of the roll-out.
    held: BTreeMap<u64, ThingName>,
    pub(super) progress: JobProgress,
    /// When the next batch is due, as it stands in the service's timers.
    batch_at_ms: Option<u64>,
}

impl JobIndex {
    pub(super) fn enter(&mut self, thing: &ThingName, execution: &Execution) {
        self.things.insert(thing.clone());
        if execution.is_held() {
            self.held.insert(execution.sequence, thing.clone());
        }
        *self.progress.of(execution.status, execution.is_held()) += 1;
    }

    pub(super) fn leave(&mut self, thing: &ThingName, execution: &Execution) {
        self.things.remove(thing);
        if execution.is_held() {
            self.held.remove(&execution.sequence);
        }
        let count = self.progress.of(execution.status, execution.is_held());
        *count = count.saturating_sub(1);
    }

    /// An execution whose thing is gone.
    pub(super) fn count_departed(&mut self, execution: &Execution) {
        *self.progress.of(execution.status, false) += 1;
    }

    /// Things that have, or had, the job before them.
    fn reached(&self) -> usize {
        self.progress.queued + self.progress.in_progress + self.progress.executed()
    }
}

/// What is to be done next about a job.
enum Step {
    /// Nothing, until something changes.
    Rest,
    /// Offer it to so many things, and go on.
    Offer(usize, Stage),
    /// The roll-out has come to another stage.
    Enter(Stage),
    /// Give up.
    Abort(String),
    /// Look again then.
    Wait(u64),
    /// All executions have ended.
    Complete,
}

impl Service {
    /// Moves a job on as far as it can go now.
    pub(super) fn spread(&mut self, now_ms: u64, id: &JobId, out: &mut Vec<Outgoing>) {
        loop {
            let Some(job) = self.state.jobs.get_mut(id) else {
                return;
            };
            let index = self.indexes.entry(id.clone()).or_default();
            match step(now_ms, job, index) {
                Step::Rest => return self.set_batch_timer(id, None),
                Step::Wait(at) => return self.set_batch_timer(id, Some(at)),
                Step::Enter(stage) => {
                    job.stage = stage;
                    self.touch(Record::Job(id.clone()));
                }
                Step::Offer(count, stage) => {
                    let things: Vec<_> = index.held.values().take(count).cloned().collect();
                    if job.stage != stage {
                        job.stage = stage;
                        self.touch(Record::Job(id.clone()));
                    }
                    for thing in things {
                        self.offer(now_ms, &thing, id, out);
                    }
                }
                Step::Abort(reason) => {
                    tracing::warn!(job = %id, reason, "job cancelled by its own rule");
                    return self.cancel_open(now_ms, id, false, Some(reason), out);
                }
                Step::Complete => {
                    job.status = JobStatus::Completed;
                    self.touch(Record::Job(id.clone()));
                    return self.set_batch_timer(id, None);
                }
            }
        }
    }

    /// Cancels what has not begun, and with `force` what has.
    pub(super) fn cancel_open(
        &mut self,
        now_ms: u64,
        id: &JobId,
        force: bool,
        reason: Option<String>,
        out: &mut Vec<Outgoing>,
    ) {
        let Some(job) = self.state.jobs.get_mut(id) else {
            return;
        };
        // First, so that nothing below makes the job go on.
        job.status = JobStatus::Canceled;
        if reason.is_some() {
            job.reason = reason;
        }
        self.touch(Record::Job(id.clone()));
        self.set_batch_timer(id, None);
        let things: Vec<ThingName> = match self.indexes.get(id) {
            Some(index) => index.things.iter().cloned().collect(),
            None => Vec::new(),
        };
        for thing in &things {
            let status = self
                .state
                .things
                .get(thing)
                .and_then(|t| t.execution(id.as_str()))
                .map(|e| e.status);
            if status == Some(ExecutionStatus::Queued)
                || (force && status == Some(ExecutionStatus::InProgress))
            {
                self.end(now_ms, thing, id, ExecutionStatus::Canceled, out);
            }
        }
    }

    /// Batches whose time has come.
    pub(super) fn spread_due(&mut self, now_ms: u64, out: &mut Vec<Outgoing>) {
        while let Some((at, id)) = self.batches.first().cloned() {
            if at > now_ms {
                return;
            }
            self.set_batch_timer(&id, None);
            self.spread(now_ms, &id, out);
        }
    }

    pub(super) fn set_batch_timer(&mut self, id: &JobId, at_ms: Option<u64>) {
        let index = self.indexes.entry(id.clone()).or_default();
        if index.batch_at_ms == at_ms {
            return;
        }
        if let Some(before) = std::mem::replace(&mut index.batch_at_ms, at_ms) {
            self.batches.remove(&(before, id.clone()));
        }
        if let Some(at) = at_ms {
            self.batches.insert((at, id.clone()));
        }
    }

    /// The sums of a job.
    pub(super) fn progress(&self, id: &JobId) -> JobProgress {
        self.indexes
            .get(id)
            .map(|index| index.progress)
            .unwrap_or_default()
    }

    /// What the rest of a roll-out waits for.
    pub(super) fn waits_for(&self, id: &JobId, job: &Job) -> Option<WaitsFor> {
        let index = self.indexes.get(id)?;
        if index.held.is_empty() {
            return None;
        }
        match job.stage {
            Stage::AtOnce => None,
            Stage::Canary => Some(WaitsFor::Canary),
            Stage::Batches { .. } if is_blind(job, index) => Some(WaitsFor::Results),
            Stage::Batches { next_at_ms } => Some(WaitsFor::Batch(next_at_ms)),
        }
    }
}

fn step(now_ms: u64, job: &Job, index: &JobIndex) -> Step {
    if job.status != JobStatus::InProgress {
        return Step::Rest;
    }
    let (rollout, progress) = (job.plan.rollout, &index.progress);
    let mut rules = job.plan.abort.iter();
    if progress.open() > 0
        && let Some(reason) = rules.find_map(|rule| rule.broken(rollout, progress))
    {
        return Step::Abort(reason);
    }
    if index.held.is_empty() {
        let done = progress.open() == 0 && job.plan.selection.is_snapshot();
        return if done { Step::Complete } else { Step::Rest };
    }
    match job.stage {
        Stage::AtOnce => Step::Offer(index.held.len(), Stage::AtOnce),
        Stage::Canary => {
            let canary = rollout.canary.unwrap_or(0) as usize;
            let missing = canary.saturating_sub(index.reached());
            if missing > 0 {
                Step::Offer(missing, Stage::Canary)
            } else if progress.queued + progress.in_progress > 0 {
                Step::Rest
            } else if job.plan.abort.is_empty() && progress.succeeded < canary {
                let failures = index.reached() - progress.succeeded;
                let reached = index.reached();
                Step::Abort(format!(
                    "{failures} of the canary's {reached} executions did not succeed"
                ))
            } else {
                Step::Enter(Stage::after_canary(now_ms, rollout))
            }
        }
        Stage::Batches { .. } if is_blind(job, index) => Step::Rest,
        Stage::Batches { next_at_ms } if now_ms < next_at_ms => Step::Wait(next_at_ms),
        Stage::Batches { .. } => {
            let next_at_ms = now_ms.saturating_add(MINUTE_MS);
            let batch = rollout.per_minute.unwrap_or(u32::MAX) as usize;
            Step::Offer(batch, Stage::Batches { next_at_ms })
        }
    }
}

/// Whether enough things have the job to judge it, but too few of them have ended.
fn is_blind(job: &Job, index: &JobIndex) -> bool {
    let rules = job.plan.abort.iter();
    let needed = rules.map(|rule| rule.needs(job.plan.rollout)).max();
    needed.is_some_and(|needed| index.reached() >= needed && index.progress.executed() < needed)
}
