//! Groups of things: who joins gets the continuous jobs of the group, who leaves loses those it has not begun.
//!
//! Groups are flat: a group has no parent. A snapshot job took its members when it was made and asks no group again.

use super::{
    ExecutionStatus, GroupName, JobId, JobStatus, Outgoing, Selection, Service, ServiceError,
    ThingName, record::Record, state::Group, update::check_text,
};

impl Service {
    /// Makes a group.
    ///
    /// # Errors
    /// It exists, its description is too long, or the state cannot be kept.
    pub fn create_group(
        &mut self,
        now_ms: u64,
        name: GroupName,
        description: String,
    ) -> Result<(), ServiceError> {
        self.check_writable()?;
        check_text("the description", &description)?;
        if self.state.groups.contains_key(&name) {
            return Err(ServiceError::GroupExists(name));
        }
        let group = Group {
            created_at_ms: now_ms,
            description,
            things: std::collections::BTreeSet::new(),
        };
        self.state.groups.insert(name.clone(), group);
        self.touch(Record::Group(name));
        Ok(())
    }

    /// Makes things members of a group; they get its continuous jobs. A member stays one. Returns the notifications.
    ///
    /// # Errors
    /// No such group or thing, or the state cannot be kept; nobody joins then.
    pub fn join_group(
        &mut self,
        now_ms: u64,
        name: &GroupName,
        things: &[ThingName],
    ) -> Result<Vec<Outgoing>, ServiceError> {
        self.check_members(name, things)?;
        let mut out = Vec::new();
        let Some(group) = self.state.groups.get_mut(name) else {
            return Ok(out);
        };
        let mut joined = Vec::new();
        for thing in things {
            if group.things.insert(thing.clone()) {
                joined.push(thing);
            }
        }
        if joined.is_empty() {
            return Ok(out);
        }
        self.touch(Record::Group(name.clone()));
        for job in self.continuous_jobs(name) {
            for thing in &joined {
                let known = self
                    .state
                    .things
                    .get(*thing)
                    .and_then(|t| t.execution(job.as_str()))
                    .map(|e| e.status);
                // Whoever had it does not get it again, unless it was taken away.
                if matches!(known, None | Some(ExecutionStatus::Removed)) {
                    self.hold(now_ms, thing, &job);
                }
            }
            self.spread(now_ms, &job, &mut out);
        }
        Ok(out)
    }

    /// Takes things out of a group. What they have not begun of its continuous jobs becomes REMOVED, unless such a job
    /// reaches them on another way. Returns the notifications.
    ///
    /// # Errors
    /// No such group or thing, or the state cannot be kept; nobody leaves then.
    pub fn leave_group(
        &mut self,
        now_ms: u64,
        name: &GroupName,
        things: &[ThingName],
    ) -> Result<Vec<Outgoing>, ServiceError> {
        self.check_members(name, things)?;
        let mut out = Vec::new();
        let Some(group) = self.state.groups.get_mut(name) else {
            return Ok(out);
        };
        let mut left = Vec::new();
        for thing in things {
            if group.things.remove(thing) {
                left.push(thing);
            }
        }
        if left.is_empty() {
            return Ok(out);
        }
        self.touch(Record::Group(name.clone()));
        for job in self.continuous_jobs(name) {
            for thing in &left {
                if !self.is_target(&job, thing) && self.has_not_begun(thing, &job) {
                    self.end(now_ms, thing, &job, ExecutionStatus::Removed, &mut out);
                }
            }
        }
        Ok(out)
    }

    /// Forgets a group. Its members stay things; what is queued on them stays.
    ///
    /// # Errors
    /// No such group, or the state cannot be kept.
    pub fn delete_group(&mut self, name: &GroupName) -> Result<(), ServiceError> {
        self.check_writable()?;
        if self.state.groups.remove(name).is_none() {
            return Err(ServiceError::UnknownGroup(name.clone()));
        }
        self.touch(Record::Group(name.clone()));
        Ok(())
    }

    fn check_members(&self, name: &GroupName, things: &[ThingName]) -> Result<(), ServiceError> {
        self.check_writable()?;
        if !self.state.groups.contains_key(name) {
            return Err(ServiceError::UnknownGroup(name.clone()));
        }
        match things.iter().find(|t| !self.state.things.contains_key(*t)) {
            Some(unknown) => Err(ServiceError::UnknownThing(unknown.clone())),
            None => Ok(()),
        }
    }

    /// Running continuous jobs for a group.
    pub(super) fn continuous_jobs(&self, name: &GroupName) -> Vec<JobId> {
        self.state
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.status == JobStatus::InProgress
                    && job.plan.selection == Selection::Continuous
                    && job.plan.groups.contains(name)
            })
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn is_target(&self, id: &JobId, thing: &ThingName) -> bool {
        let Some(job) = self.state.jobs.get(id) else {
            return false;
        };
        let in_group = |name: &GroupName| {
            let group = self.state.groups.get(name);
            group.is_some_and(|group| group.things.contains(thing))
        };
        job.things.contains(thing) || job.plan.groups.iter().any(in_group)
    }

    fn has_not_begun(&self, thing: &ThingName, job: &JobId) -> bool {
        self.state
            .things
            .get(thing)
            .and_then(|t| t.execution(job.as_str()))
            .is_some_and(|e| e.status == ExecutionStatus::Queued)
    }
}
