//! The queue of each thing: how executions come, move and end, and whom that is told.
//!
//! Every change of an execution goes through here, so that `notify` is sent exactly when the set of pending executions
//! changes, and `notify-next` exactly when another one, or none, is next: not when only the details of the next one change.

use super::{
    Change, Execution, ExecutionStatus, Job, JobId, JobStatus, Kind, Outgoing, QoS, Service,
    StatusDetails, ThingName, job_wire,
    state::{State, Thing},
};

/// Milliseconds in the minutes that time-outs are given in.
const MINUTE_MS: u64 = 60_000;

/// What a report changes.
pub(super) struct Patch {
    pub(super) status: ExecutionStatus,
    /// Replaces the stored map; `None` leaves it.
    pub(super) details: Option<StatusDetails>,
    /// Starts the step's time-out anew; `None` leaves it.
    pub(super) step_minutes: Option<u32>,
}

impl Patch {
    pub(super) fn status(status: ExecutionStatus) -> Self {
        Self {
            status,
            details: None,
            step_minutes: None,
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
    /// Puts a job at the end of a thing's queue. The thing exists; the job is stored already.
    pub(super) fn enqueue(
        &mut self,
        now_ms: u64,
        name: &ThingName,
        job: &JobId,
        out: &mut Vec<Outgoing>,
    ) {
        let sequence = self.state.sequence;
        let Some(thing) = self.state.things.get_mut(name) else {
            return;
        };
        let before = Look::at(thing);
        let execution = Execution {
            status: ExecutionStatus::Queued,
            details: StatusDetails::new(),
            version: 1,
            sequence,
            queued_at_ms: now_ms,
            started_at_ms: None,
            updated_at_ms: now_ms,
            job_deadline_ms: None,
            step_deadline_ms: None,
        };
        self.changes.push(change(now_ms, name, job, &execution));
        thing.pending.insert(job.clone(), execution);
        self.state.sequence += 1;
        self.revision += 1;
        notify(&self.state, now_ms, name, &before, out);
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
        if let Some(minutes) = patch.step_minutes {
            execution.step_deadline_ms = Some(after(now_ms, minutes));
        }
        self.changes.push(change(now_ms, name, job, &execution));
        let ended = execution.status.is_terminal();
        if ended {
            execution.job_deadline_ms = None;
            execution.step_deadline_ms = None;
            thing.ended.insert(job.clone(), execution);
        } else {
            if let Some(at) = execution.deadline_ms() {
                self.timers.insert((at, name.clone(), job.clone()));
            }
            thing.pending.insert(job.clone(), execution);
        }
        self.revision += 1;
        notify(&self.state, now_ms, name, &before, out);
        if ended {
            self.complete(job);
        }
    }

    /// Ends a pending execution from the cloud's side.
    pub(super) fn end(
        &mut self,
        now_ms: u64,
        thing: &ThingName,
        job: &JobId,
        status: ExecutionStatus,
        out: &mut Vec<Outgoing>,
    ) {
        self.apply(now_ms, thing, job, Patch::status(status), out);
    }

    /// A job whose last execution ended is completed, unless it was cancelled.
    fn complete(&mut self, id: &JobId) {
        let Some(job) = self.state.jobs.get(id) else {
            return;
        };
        let open = is_open(&self.state, id, job);
        if let Some(job) = self.state.jobs.get_mut(id)
            && job.status == JobStatus::InProgress
            && !open
        {
            job.status = JobStatus::Completed;
        }
    }
}

fn is_open(state: &State, id: &JobId, job: &Job) -> bool {
    job.things().any(|name| {
        state
            .things
            .get(name)
            .is_some_and(|thing| thing.pending.contains_key(id))
    })
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

fn notify(state: &State, now_ms: u64, name: &ThingName, before: &Look, out: &mut Vec<Outgoing>) {
    let Some(thing) = state.things.get(name) else {
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
        let document = next
            .and_then(|(job, _)| state.jobs.get(job))
            .map(|job| &job.document);
        send("notify-next", job_wire::notify_next(now_ms, next, document));
    }
}
