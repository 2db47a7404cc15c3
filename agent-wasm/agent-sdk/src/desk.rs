//! What an orchestrator does things with, and what is kept for it: the job, the step, its tries, deadline and operation.

use agent_core::code::{JobsErr, OtaErr};
use agent_core::jobs::{JobId, JobService, Status, ThingName};
use agent_core::types::{Call, Failure, FileId, FileSpec, Outcome};

use crate::Step;
use crate::bindings::exports::ota::agent::job_agent::{AgentStatus, FileStatus, Turn, Wait};
use crate::bindings::ota::agent::transport::Qos;
use crate::bindings::ota::agent::types::Started;
use crate::bindings::ota::agent::{pal, transport};

/// The target of a job, blocks held, and blocks in all.
type Place = Option<(FileId, u64, u64)>;

/// One orchestrator's desk.
#[derive(Debug)]
pub struct Desk {
    pub(crate) service: JobService,
    pub(crate) job: Option<JobId>,
    /// What is told of the job now; in the end none if it was withdrawn.
    pub(crate) status: Option<Status>,
    step: Step,
    tries: u32,
    since: u64,
    now: u64,
    deadline: Option<u64>,
    is_connected: bool,
    /// The step is to be done.
    is_due: bool,
    /// The operation that the step waits for.
    pending: Option<u64>,
    /// How it ended, if that is not told yet.
    ended: Option<Outcome>,
    told: Option<(Step, u32)>,
}

impl Desk {
    pub(crate) fn new(thing: ThingName, seed: u64, now: u64) -> Self {
        Self {
            service: JobService::new(thing, seed),
            job: None,
            status: None,
            step: Step::ASK,
            tries: 0,
            since: now,
            now,
            deadline: None,
            // Until the contrary is said: an instance that begins anew is not told that there is a connection.
            is_connected: true,
            is_due: true,
            pending: None,
            ended: None,
            told: None,
        }
    }

    /// Go on with this step; what the last one still waited for is forgotten.
    pub fn begin(&mut self, step: Step) {
        (self.step, self.tries, self.since) = (step, 0, self.now);
        (self.pending, self.ended) = (None, None);
        self.is_due = true;
    }

    /// Go on by telling the service this, until it is taken.
    pub fn tell(&mut self, step: Step, status: Status) {
        self.status = Some(status);
        self.begin(step);
    }

    /// The job is over: tell it until it is taken, then ask for the next one.
    pub fn finish(&mut self, status: Status) {
        self.tell(Step::REPORT, status);
    }

    /// The job has failed, or was withdrawn: go the way back first.
    pub fn fail(&mut self, status: Option<Status>) {
        self.status = status;
        self.begin(Step::UNDO);
    }

    /// The job has failed by its image: go the way back first.
    pub fn reject(&mut self, code: u32) {
        self.fail(Some(Status::Rejected { code }));
    }

    /// The step.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> Option<&JobId> {
        self.job.as_ref()
    }

    /// Whether the step is done for the first time: later ones may follow a new connection.
    #[must_use]
    pub fn is_first_try(&self) -> bool {
        self.tries == 1
    }

    /// Subscribe to all of them.
    pub fn subscribe(&self, filters: impl IntoIterator<Item = String>, qos: Qos) {
        for filter in filters {
            transport::subscribe(&filter, qos);
        }
    }

    /// Publish: a lost message is repeated with its step.
    pub fn publish(&self, (topic, payload): (String, impl AsRef<[u8]>), qos: Qos) {
        transport::publish(&topic, payload.as_ref(), qos);
    }

    /// Make the target ready to receive.
    pub fn create(&mut self, spec: &FileSpec) {
        self.await_end(pal::create(spec));
    }

    /// Write a block.
    pub fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) {
        self.await_end(pal::write_block(file, offset, data));
    }

    pub(crate) fn call(&mut self, call: Call, file: FileId) {
        let proven = |then: fn(&pal::VerifiedImage) -> Started| match pal::verified(file) {
            Ok(image) => then(&image),
            Err(failure) => Started::Done(Outcome::Failed(failure)),
        };
        self.await_end(match call {
            Call::Close => pal::close(file),
            Call::Install => proven(pal::install),
            Call::Activate => proven(pal::activate),
            Call::Reset => pal::reset(file),
            Call::SelfTest => pal::self_test(file),
            Call::Commit => pal::commit(file),
            Call::Reject => pal::reject(file),
            Call::State => pal::state(file),
            Call::Abort => pal::abort(file),
        });
    }

    fn await_end(&mut self, started: Started) {
        match started {
            Started::Pending(token) => self.pending = Some(token),
            Started::Done(outcome) => self.end_with(outcome),
        }
    }

    /// Asks for the next job.
    pub(crate) fn ask(&mut self) {
        (self.job, self.status) = (None, None);
        self.subscribe(self.service.filters(), Qos::AtLeastOnce);
        let question = self.service.start_next();
        self.publish(question, Qos::AtMostOnce);
    }

    /// Tells the status, if the step has one.
    pub(crate) fn update(&mut self) {
        if let (Some(job), Some(status)) = (&self.job, &self.status) {
            let update = self.service.update(job, status);
            self.publish(update, Qos::AtLeastOnce);
        }
    }

    /// The service does not take the status: the job is not ours any more, or it may take it later.
    pub(crate) fn refuse(&mut self, code: JobsErr) {
        match code {
            JobsErr::InvalidStateTransition
            | JobsErr::ResourceNotFound
            | JobsErr::TerminalStateReached => match self.step {
                Step::REPORT => self.begin(Step::ASK),
                // There is no job that could go back: the question is repeated in its time.
                Step::ASK | Step::IDLE => {}
                _ => self.fail(None),
            },
            _ => {}
        }
    }

    /// The operator gives the job up.
    pub(crate) fn abort(&mut self) {
        let code = OtaErr::UserAbort.code();
        self.fail(Some(Status::Aborted { code }));
    }

    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    pub(crate) fn set_connected(&mut self, is_connected: bool) {
        self.is_connected = is_connected;
        // What was asked on the old connection is answered on none. While there was nothing to ask, a notice may have
        // been missed.
        if is_connected && self.step == Step::IDLE {
            self.begin(Step::ASK);
        }
        self.is_due |= is_connected && self.step.is_question();
    }

    /// The operation of this token is over.
    pub(crate) fn end(&mut self, token: u64, outcome: Outcome) {
        if self.pending == Some(token) {
            self.end_with(outcome);
        }
    }

    fn end_with(&mut self, outcome: Outcome) {
        self.pending = None;
        // The order to restart is given; its target has yet to come up.
        let is_ordered = self.step.call == Some(Call::Reset) && outcome == Outcome::Nothing;
        self.ended = (!is_ordered).then_some(outcome);
    }

    /// A target has come up.
    pub(crate) fn restarted(&mut self, place: Place, file: FileId) {
        let is_ours = place.is_some_and(|(of, ..)| of == file);
        if is_ours && self.step.call == Some(Call::Reset) {
            (self.pending, self.ended) = (None, Some(Outcome::Nothing));
        }
    }

    /// The status that the step tells is taken.
    pub(crate) fn taken(&mut self) {
        if self.step.tells() {
            self.ended = Some(Outcome::Nothing);
        }
    }

    /// Whether the step is to be done now.
    pub(crate) fn take_due(&mut self) -> bool {
        if !std::mem::take(&mut self.is_due) {
            return false;
        }
        // Questions while there is no connection are nobody's fault.
        self.tries += u32::from(self.is_connected || !self.step.is_question());
        self.deadline = (self.step.limit_s > 0).then(|| self.now + self.step.limit_s * 1000);
        true
    }

    pub(crate) fn take_ended(&mut self) -> Option<Outcome> {
        self.ended.take()
    }

    /// If the time is up: once more, or it was in vain.
    pub(crate) fn time_up(&mut self, place: Place) {
        if self.deadline.is_none_or(|deadline| self.now < deadline) {
            return;
        }
        let Step {
            tries_max, code, ..
        } = self.step;
        if tries_max == 0 || self.tries < tries_max {
            self.is_due = true;
        } else {
            let file = place.map_or(0, |(file, ..)| file);
            let failure = Failure::new(code, file, "it took too long");
            (self.pending, self.ended) = (None, Some(Outcome::Failed(failure)));
        }
    }

    pub(crate) fn status(&self, place: Place) -> AgentStatus {
        let job = self.job.as_ref();
        let file = place.filter(|_| job.is_some());
        let file = file.map(|(file, done, total)| FileStatus {
            file,
            phase: self.step.phase,
            done,
            total,
            version: None,
        });
        AgentStatus {
            state: self.step.state,
            job_id: job.map(JobId::to_string),
            processed: file.as_ref().map_or(0, |file| file.done),
            files: file.into_iter().collect(),
            received: 0,
            dropped: 0,
        }
    }

    /// What a call leaves behind.
    pub(crate) fn turn(&mut self, place: Place, refused: Option<Failure>) -> Turn {
        let told = self.told.replace((self.step, self.tries));
        let is_new = told.is_none_or(|(step, _)| step != self.step);
        let wait = told != self.told;
        Turn {
            deadline: self.deadline,
            status: is_new.then(|| self.status(place)),
            wait: wait.then(|| Wait {
                reason: self.step.reason,
                detail: String::new(),
                since: self.since,
                tries: self.tries,
                gives_up: self.deadline.filter(|_| !self.step.is_question()),
                last_error: None,
            }),
            refused,
        }
    }
}
