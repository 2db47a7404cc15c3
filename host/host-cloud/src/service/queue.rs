//! The queue of each thing: how executions come, move and end, and whom that is told.
//!
//! Every change of an execution goes through here, so that `notify` is sent exactly when the set of pending executions
//! changes, and `notify-next` exactly when another one, or none, is next: not when only the details of the next one change.
//! Here also the sums of each job are kept; what follows from them is in `rollout`.

use super::{
    Change, Execution, ExecutionStatus, JobId, Kind, Outgoing, QoS, Service, StatusDetails,
    ThingName, job_wire, record::Record, state::Thing,
};

/// Milliseconds in the minutes that time-outs are given in.
pub(super) const MINUTE_MS: u64 = 60_000;

/// What a report changes.
pub(super) struct Patch {
    pub(super) status: ExecutionStatus,
    /// Replaces the stored map; `None` leaves it.
    pub(super) details: Option<StatusDetails>,
    /// What becomes of the step's time-out.
    pub(super) step: StepTimer,
}

/// What becomes of the step's time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepTimer {
    /// It runs on, or does not run.
    Leave,
    /// It starts anew with so many minutes.
    Start(u32),
    /// It stops.
    Stop,
}

impl Patch {
    pub(super) fn status(status: ExecutionStatus) -> Self {
        Self {
            status,
            details: None,
            step: StepTimer::Leave,
        }
    }
}

/// What a queue looks like from outside.
struct Look {
    next: Option<JobId>,
    count: usize,
}

impl Look {
    fn at(thing: &Thing) -> Self {
        Self {
            next: thing.next().map(|(job, _)| job.clone()),
            count: thing.pending.len(),
        }
    }
}

impl Service {
    /// Gives a thing an execution that waits for the roll-out. The thing exists; the job is stored already.
    pub(super) fn hold(&mut self, now_ms: u64, name: &ThingName, job: &JobId) {
        let sequence = self.next_sequence();
        let Some(thing) = self.state.things.get_mut(name) else {
            return;
        };
        // A thing that was taken out comes back as another execution.
        let before = thing.ended.remove(job);
        let number = before.as_ref().map_or(1, |e| e.number + 1);
        let execution = Execution::held(now_ms, sequence, number);
        let index = self.indexes.entry(job.clone()).or_default();
        if let Some(before) = &before {
            index.leave(name, before);
        }
        index.enter(name, &execution);
        thing.held.insert(job.clone(), execution);
        self.touch(Record::Execution(name.clone(), job.clone()));
    }

    /// Offers a held execution to its thing: puts it at the end of the queue.
    pub(super) fn offer(
        &mut self,
        now_ms: u64,
        name: &ThingName,
        job: &JobId,
        out: &mut Vec<Outgoing>,
    ) {
        let sequence = self.next_sequence();
        let Some(thing) = self.state.things.get_mut(name) else {
            return;
        };
        let Some(mut execution) = thing.held.remove(job) else {
            return;
        };
        let before = Look::at(thing);
        let index = self.indexes.entry(job.clone()).or_default();
        index.leave(name, &execution);
        execution.sequence = sequence;
        execution.queued_at_ms = now_ms;
        execution.updated_at_ms = now_ms;
        execution.offered_at_ms = Some(now_ms);
        index.enter(name, &execution);
        self.changes.push(change(now_ms, name, job, &execution));
        thing.pending.insert(job.clone(), execution);
        self.touch(Record::Execution(name.clone(), job.clone()));
        self.notify(now_ms, name, &before, out);
    }

    /// Changes a pending execution; one that has ended, or never was, is left alone.
    pub(super) fn apply(
        &mut self,
        now_ms: u64,
        name: &ThingName,
        job: &JobId,
        patch: Patch,
        out: &mut Vec<Outgoing>,
    ) {
        let timeout_minutes = self.state.jobs.get(job).and_then(|j| j.timeout_minutes);
        let Some(thing) = self.state.things.get_mut(name) else {
            return;
        };
        let before = Look::at(thing);
        let Some(mut execution) = thing.pending.remove(job) else {
            return;
        };
        if let Some(at) = execution.deadline_ms() {
            self.timers.remove(&(at, name.clone(), job.clone()));
        }
        let index = self.indexes.entry(job.clone()).or_default();
        index.leave(name, &execution);
        let begins = execution.status == ExecutionStatus::Queued
            && patch.status == ExecutionStatus::InProgress;
        execution.status = patch.status;
        execution.version += 1;
        execution.updated_at_ms = now_ms;
        if let Some(details) = patch.details {
            execution.details = details;
        }
        if begins {
            execution.started_at_ms = Some(now_ms);
            execution.job_deadline_ms = timeout_minutes.map(|m| after(now_ms, m));
        }
        match patch.step {
            StepTimer::Leave => {}
            StepTimer::Start(minutes) => execution.step_deadline_ms = Some(after(now_ms, minutes)),
            StepTimer::Stop => execution.step_deadline_ms = None,
        }
        let ended = execution.status.is_terminal();
        if ended {
            execution.job_deadline_ms = None;
            execution.step_deadline_ms = None;
        } else if let Some(at) = execution.deadline_ms() {
            self.timers.insert((at, name.clone(), job.clone()));
        }
        index.enter(name, &execution);
        self.changes.push(change(now_ms, name, job, &execution));
        thing.insert(job.clone(), execution);
        self.touch(Record::Execution(name.clone(), job.clone()));
        self.notify(now_ms, name, &before, out);
        if ended {
            self.spread(now_ms, job, out);
        }
    }

    /// Ends an execution from the cloud's side, whether its thing has begun, or knows of it, or neither.
    pub(super) fn end(
        &mut self,
        now_ms: u64,
        name: &ThingName,
        job: &JobId,
        status: ExecutionStatus,
        out: &mut Vec<Outgoing>,
    ) {
        let held = self.state.things.get_mut(name).and_then(|thing| {
            let execution = thing.held.remove(job)?;
            Some((thing, execution))
        });
        let Some((thing, mut execution)) = held else {
            self.apply(now_ms, name, job, Patch::status(status), out);
            return;
        };
        // The thing was never told of it, so there is nothing to tell now.
        let index = self.indexes.entry(job.clone()).or_default();
        index.leave(name, &execution);
        execution.status = status;
        execution.version += 1;
        execution.updated_at_ms = now_ms;
        index.enter(name, &execution);
        self.changes.push(change(now_ms, name, job, &execution));
        thing.insert(job.clone(), execution);
        self.touch(Record::Execution(name.clone(), job.clone()));
        self.spread(now_ms, job, out);
    }

    /// Takes an execution away from its thing without a trace; the thing hears that it is gone.
    pub(super) fn forget(
        &mut self,
        now_ms: u64,
        name: &ThingName,
        job: &JobId,
        out: &mut Vec<Outgoing>,
    ) -> Option<Execution> {
        let thing = self.state.things.get_mut(name)?;
        let before = Look::at(thing);
        let open = thing.pending.remove(job).or_else(|| thing.held.remove(job));
        let execution = open.or_else(|| thing.ended.remove(job))?;
        if let Some(at) = execution.deadline_ms() {
            self.timers.remove(&(at, name.clone(), job.clone()));
        }
        if let Some(index) = self.indexes.get_mut(job) {
            index.leave(name, &execution);
        }
        self.touch(Record::Execution(name.clone(), job.clone()));
        self.notify(now_ms, name, &before, out);
        Some(execution)
    }

    /// Tells a thing what changed for it, compared with before.
    fn notify(&self, now_ms: u64, name: &ThingName, before: &Look, out: &mut Vec<Outgoing>) {
        let Some(thing) = self.state.things.get(name) else {
            return;
        };
        let mut send = |level: &str, payload: Vec<u8>| {
            out.push(Outgoing {
                to: name.clone(),
                topic: format!("$aws/things/{name}/jobs/{level}").into(),
                payload: payload.into(),
                qos: QoS::AtLeastOnce,
                kind: Kind::Notification,
            });
        };
        if thing.pending.len() != before.count {
            send("notify", job_wire::notify(now_ms, thing));
        }
        let next = thing.next();
        if next.map(|(job, _)| job) != before.next.as_ref() {
            let document = next.and_then(|(job, _)| self.document(now_ms, job));
            send(
                "notify-next",
                job_wire::notify_next(now_ms, next, document.as_deref()),
            );
        }
    }

    fn next_sequence(&mut self) -> u64 {
        let sequence = self.state.sequence;
        self.state.sequence += 1;
        self.touch(Record::Meta);
        sequence
    }
}

fn after(now_ms: u64, minutes: u32) -> u64 {
    now_ms.saturating_add(u64::from(minutes) * MINUTE_MS)
}

fn change(at_ms: u64, thing: &ThingName, job: &JobId, execution: &Execution) -> Change {
    Change {
        at_ms,
        job_id: job.clone(),
        thing: thing.clone(),
        status: execution.status,
        status_details: execution.details.clone(),
        version: execution.version,
    }
}
