//! Forgetting things, jobs and streams.
//!
//! What devices still need is only forgotten by force. Images are the store's: here it is only said which ones no stream
//! names any more.

use std::collections::BTreeSet;

use super::{
    ExecutionStatus, ImageId, JobId, Outgoing, Service, ServiceError, StreamId, ThingName,
    record::Record,
    state::{Stream, Thing},
};

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// What to send.
    pub out: Vec<Outgoing>,
    /// The stream that went with its job.
    pub stream: Option<StreamId>,
    /// Images that no stream names any more.
    pub images: Vec<ImageId>,
    /// Executions that had not ended.
    pub executions: usize,
    /// Certificates that the thing had, those that speak for others besides too.
    pub certificates: Vec<String>,
}

impl Service {
    /// Forgets a thing: its certificates are detached, it leaves its groups, its executions stay with their jobs, REMOVED
    /// where they had not ended.
    ///
    /// # Errors
    /// No such thing, a job has not ended on it and `force` is not given, or the state cannot be kept.
    pub fn delete_thing(
        &mut self,
        now_ms: u64,
        name: &ThingName,
        force: bool,
    ) -> Result<Removal, ServiceError> {
        let thing = self.check_removal(name, force)?;
        let mut removal = Removal {
            executions: thing.pending.len() + thing.held.len(),
            ..Removal::default()
        };
        let jobs: Vec<JobId> = thing.executions().map(|(job, _)| job.clone()).collect();
        let certificates = thing.certificates.clone();
        // Nobody is there to hear of it.
        let mut unheard = Vec::new();
        for job in &jobs {
            self.depart(now_ms, name, job, &mut unheard);
        }
        for fingerprint in certificates {
            self.unbind(name, &fingerprint);
            removal.certificates.push(fingerprint);
        }
        for (group, members) in &mut self.state.groups {
            if members.things.remove(name) {
                self.dirty.insert(Record::Group(group.clone()));
            }
        }
        self.state.things.remove(name);
        self.budgets.remove(name);
        self.counters.remove(name);
        self.touch(Record::Thing(name.clone()));
        for job in &jobs {
            self.spread(now_ms, job, &mut removal.out);
        }
        Ok(removal)
    }

    /// The thing that [`Self::delete_thing`] would forget.
    pub(crate) fn check_removal(
        &self,
        name: &ThingName,
        force: bool,
    ) -> Result<&Thing, ServiceError> {
        self.check_writable()?;
        let thing = self
            .state
            .things
            .get(name)
            .ok_or_else(|| ServiceError::UnknownThing(name.clone()))?;
        match thing.pending.keys().chain(thing.held.keys()).next() {
            Some(job) if !force => Err(ServiceError::ThingBusy {
                thing: name.clone(),
                job: job.clone(),
            }),
            _ => Ok(thing),
        }
    }

    /// Moves an execution from its thing to its job.
    fn depart(&mut self, now_ms: u64, name: &ThingName, id: &JobId, unheard: &mut Vec<Outgoing>) {
        let Some(mut execution) = self.forget(now_ms, name, id, unheard) else {
            return;
        };
        if !execution.status.is_terminal() {
            execution.status = ExecutionStatus::Removed;
            execution.version += 1;
            execution.updated_at_ms = now_ms;
            execution.job_deadline_ms = None;
            execution.step_deadline_ms = None;
        }
        if let Some(index) = self.indexes.get_mut(id) {
            index.count_departed(&execution);
        }
        if let Some(job) = self.state.jobs.get_mut(id) {
            job.departed.push((name.clone(), execution));
            self.touch(Record::Job(id.clone()));
        }
    }

    /// Forgets a job with its executions and its stream. With `force` also one that has not ended: it vanishes from its
    /// things, which hear that something else, or nothing, is next.
    ///
    /// # Errors
    /// No such job, it has not ended and `force` is not given, or the state cannot be kept.
    pub fn delete_job(
        &mut self,
        now_ms: u64,
        id: &JobId,
        force: bool,
    ) -> Result<Removal, ServiceError> {
        self.check_writable()?;
        let job = self
            .state
            .jobs
            .get(id)
            .ok_or_else(|| ServiceError::UnknownJob(id.clone()))?;
        let stream = job.stream.clone();
        let executions = self.progress(id).open();
        if !force && !self.has_ended(id) {
            return Err(ServiceError::JobRunning(id.clone()));
        }
        let mut removal = Removal {
            executions,
            ..Removal::default()
        };
        self.set_batch_timer(id, None);
        let things = self.indexes.remove(id).map(|index| index.things);
        // Before the things hear of it: what is next for them is looked up among the jobs there are.
        self.state.jobs.remove(id);
        self.touch(Record::Job(id.clone()));
        for thing in things.unwrap_or_default() {
            self.forget(now_ms, &thing, id, &mut removal.out);
        }
        if let Some(stream) = stream
            && let Some(gone) = self.state.streams.remove(&stream)
        {
            self.touch(Record::Stream(stream.clone()));
            removal.images = self.unneeded(&gone);
            removal.stream = Some(stream);
        }
        Ok(removal)
    }

    /// Forgets a stream. With `force` also while its job has not ended: devices that ask for blocks are refused then.
    ///
    /// # Errors
    /// No such stream, its job has not ended and `force` is not given, or the state cannot be kept.
    pub fn delete_stream(&mut self, id: &StreamId, force: bool) -> Result<Removal, ServiceError> {
        self.check_writable()?;
        let stream = self
            .state
            .streams
            .get(id)
            .ok_or_else(|| ServiceError::UnknownStream(id.clone()))?;
        if !force && !self.has_ended(&stream.job) {
            return Err(ServiceError::StreamInUse {
                stream: id.clone(),
                job: stream.job.clone(),
            });
        }
        let gone = self.state.streams.remove(id);
        self.touch(Record::Stream(id.clone()));
        Ok(Removal {
            images: gone.map(|gone| self.unneeded(&gone)).unwrap_or_default(),
            ..Removal::default()
        })
    }

    /// Images that streams name.
    #[must_use]
    pub fn images_in_use(&self) -> BTreeSet<ImageId> {
        let streams = self.state.streams.values();
        let files = streams.flat_map(|stream| stream.files.values());
        files.map(|file| file.image.clone()).collect()
    }

    fn unneeded(&self, gone: &Stream) -> Vec<ImageId> {
        let used = self.images_in_use();
        let images: BTreeSet<&ImageId> = gone.files.values().map(|file| &file.image).collect();
        images
            .into_iter()
            .filter(|image| !used.contains(*image))
            .cloned()
            .collect()
    }
}
