//! The task of a device's hooks: reads its events, runs programs beside each other, brings their answers.
//!
//! Decisions are put again by the agent itself after a restart of the daemon, all but one: whether to activate, which
//! is looked up in the stored events. That a job has failed is told at least once: the reader's place stays before the
//! first such event whose hook has not ended. Not here: what an answer means (`answer.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use host_runtime::agent::{Command, clean};
use host_runtime::events::StoredEvent;
use host_runtime::ports::commands::{self, CleanCommand};
use host_runtime::status::DeviceStatus;
use host_runtime::supervisor::DeviceHandle;
use host_runtime::types::FileId;
use tokio::task::{AbortHandle, JoinSet};

use super::answer::{Answer, Deed, deed};
use super::{Kind, Plan, input};
use crate::config::Program;

/// Events read at a time.
const EVENTS_AT_A_TIME: usize = 32;

/// Bytes of a line of a hook's that the log shows, and how many lines of one run.
const LINE_MAX_BYTES: usize = 256;
const LINES_MAX: usize = 8;

/// Numbers of `os.wit`: the job is over, or there is none.
const FAIL: u32 = 1;
const NO_ACTIVE_JOB: u32 = 8;
const JOB_ENDED: u32 = 16;

/// `agent-status.state`.
const REQUESTING_JOB: u8 = 2;
const WAITING_FOR_JOB: u8 = 3;
const STOPPED: u8 = 10;
const WAITING_FOR_ACTIVATION: u8 = 12;

/// How often a device is looked at that has been started with an activation open, at first and at last.
const LOOK_MIN: Duration = Duration::from_millis(200);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// One question at a time: a new one makes the old one pointless.
type Lane = (Kind, Option<FileId>);

/// Run the hooks of a device until it ends. Events up to `former` were stored before it was started.
pub async fn serve(device: DeviceHandle, plan: Plan, former: u64) {
    let ring = device.events();
    // Without a place there has never been a hook: what failed before is history.
    let place = ring.reader_place().unwrap_or(former);
    ring.set_reader_place(place);
    let mut runner = Runner {
        device,
        plan,
        tasks: JoinSet::new(),
        lanes: BTreeMap::new(),
        told: BTreeSet::new(),
        to_tell: VecDeque::new(),
        read: place,
    };
    runner.resume(former);
    loop {
        let at_most = EVENTS_AT_A_TIME;
        tokio::select! {
            events = runner.device.events_after(runner.read, at_most) => {
                if events.is_empty() {
                    return;
                }
                for stored in events {
                    runner.on_event(stored, former);
                }
            }
            Some(ended) = runner.tasks.join_next(), if !runner.tasks.is_empty() => {
                // An aborted one has been replaced.
                if let Ok(Some(sequence)) = ended {
                    runner.on_told(sequence);
                }
            }
        }
        runner.keep_place();
    }
}

struct Runner {
    device: DeviceHandle,
    plan: Plan,
    /// Each gives the number of the failure that it has told, if it is that.
    tasks: JoinSet<Option<u64>>,
    lanes: BTreeMap<Lane, (Option<String>, AbortHandle)>,
    /// Failures whose hook has not ended.
    told: BTreeSet<u64>,
    /// Of these, those that wait: one after the other, in their order.
    to_tell: VecDeque<StoredEvent>,
    /// Last event read.
    read: u64,
}

impl Runner {
    fn on_event(&mut self, stored: StoredEvent, former: u64) {
        let event = &stored.event;
        self.read = event.sequence;
        if [FAIL, NO_ACTIVE_JOB, JOB_ENDED].contains(&event.kind) {
            self.call_off(event.job_id.as_deref());
        }
        let Some(kind) = Kind::of_event(event.kind) else {
            return;
        };
        if self.plan.hooks(kind, event.file).is_empty() {
            return;
        }
        match kind {
            Kind::Fail => {
                self.told.insert(event.sequence);
                self.to_tell.push_back(stored);
                self.tell_next();
            }
            // Put again by the agent, or looked up at the start.
            _ if event.sequence <= former => {}
            Kind::Job | Kind::Activate | Kind::StartTest | Kind::CustomJob => {
                self.decide(kind, stored, Start::Now);
            }
        }
    }

    /// Activations that were open when the daemon ended.
    fn resume(&mut self, former: u64) {
        let events = self.device.events().after(0, usize::MAX);
        for stored in open_activations(&events, former) {
            let hooks = self.plan.hooks(Kind::Activate, stored.event.file);
            if !hooks.is_empty() {
                self.decide(Kind::Activate, stored, Start::WhenItWaits);
            }
        }
    }

    fn decide(&mut self, kind: Kind, stored: StoredEvent, start: Start) {
        let lane = (kind, stored.event.file);
        let job = stored.event.job_id.clone();
        let question = Question {
            device: self.device.clone(),
            plan: self.plan.clone(),
            kind,
            stored,
        };
        let task = self.tasks.spawn(async move {
            question.put(start).await;
            None
        });
        if let Some((_, old)) = self.lanes.insert(lane, (job, task)) {
            old.abort();
        }
    }

    /// A job is over: nobody needs to decide about it. Without a job, none is offered any more.
    fn call_off(&mut self, job: Option<&str>) {
        self.lanes.retain(|(kind, _), (of, task)| {
            let over = match job {
                Some(job) => of.as_deref() == Some(job),
                None => matches!(kind, Kind::Job | Kind::CustomJob),
            };
            if over {
                task.abort();
            }
            !over
        });
    }

    fn tell_next(&mut self) {
        // One of them is under way if fewer wait than are not told.
        if self.told.len() > self.to_tell.len() {
            return;
        }
        let Some(stored) = self.to_tell.pop_front() else {
            return;
        };
        let sequence = stored.event.sequence;
        let question = Question {
            device: self.device.clone(),
            plan: self.plan.clone(),
            kind: Kind::Fail,
            stored,
        };
        self.tasks.spawn(async move {
            question.ask().await;
            Some(sequence)
        });
    }

    fn on_told(&mut self, sequence: u64) {
        self.told.remove(&sequence);
        self.tell_next();
    }

    fn keep_place(&self) {
        let place = match self.told.first() {
            Some(first) => first - 1,
            None => self.read,
        };
        let ring = self.device.events();
        if ring.reader_place() != Some(place) {
            ring.set_reader_place(place);
        }
    }
}

/// The newest announced activation of each file whose job has not ended since, of a former life.
fn open_activations(events: &[StoredEvent], former: u64) -> Vec<StoredEvent> {
    let mut open: BTreeMap<Option<FileId>, StoredEvent> = BTreeMap::new();
    for stored in events.iter().filter(|s| s.event.sequence <= former) {
        let event = &stored.event;
        if [FAIL, NO_ACTIVE_JOB, JOB_ENDED].contains(&event.kind) {
            open.clear();
        } else if Kind::of_event(event.kind) == Some(Kind::Activate) {
            open.insert(event.file, stored.clone());
        }
    }
    open.into_values().collect()
}

/// When a question is put for the first time.
enum Start {
    Now,
    /// The agent has just been started and goes back to where it was.
    WhenItWaits,
}

/// One event that a hook decides about.
struct Question {
    device: DeviceHandle,
    plan: Plan,
    kind: Kind,
    stored: StoredEvent,
}

impl Question {
    async fn put(&self, start: Start) {
        let job = self.stored.event.job_id.as_deref().unwrap_or_default();
        let ask = match start {
            Start::Now => !self.is_taken(job).await,
            Start::WhenItWaits => self.wait_for_activation(job).await,
        };
        if !ask {
            return;
        }
        loop {
            let answer = self.ask().await;
            let file = self.stored.event.file;
            match deed(self.kind, job, file, answer, self.plan.later_ms) {
                Deed::Order(command) => return self.order(command).await,
                Deed::Nothing => return,
                Deed::Again(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            }
            if !waits_for_activation(&self.device.status().await, job) {
                return;
            }
        }
    }

    /// A received job can be an announcement only: it was taken without asking, after a restart for one.
    async fn is_taken(&self, job: &str) -> bool {
        if self.kind != Kind::Job {
            return false;
        }
        let status = self.device.status().await;
        status.job_id.as_deref() == Some(job)
            && ![REQUESTING_JOB, WAITING_FOR_JOB].contains(&status.state)
    }

    /// True once the job waits for its activation; false when it does something else.
    async fn wait_for_activation(&self, job: &str) -> bool {
        let mut pause = LOOK_MIN;
        loop {
            let status = self.device.status().await;
            if waits_for_activation(&status, job) {
                return true;
            }
            let other = status.job_id.as_deref().is_some_and(|of| of != job);
            let idle = status.job_id.is_none() && status.state == WAITING_FOR_JOB;
            if other || idle || status.state == STOPPED {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = LOOK_MAX.min(pause * 2);
        }
    }

    /// Ask one program; of a chain of parsers the first one that knows what becomes of the job.
    async fn ask(&self) -> Answer {
        let mut answer = Answer::NotMine;
        for hook in self.plan.hooks(self.kind, self.stored.event.file) {
            answer = self.run(&hook.program).await;
            if matches!(answer, Answer::Yes(_) | Answer::No { .. }) {
                break;
            }
        }
        answer
    }

    /// Run a program, and log what it says.
    async fn run(&self, program: &Program) -> Answer {
        let (plan, event) = (&self.plan, &self.stored.event);
        let (device, hook) = (plan.device.as_str(), self.kind.name());
        let command = CleanCommand {
            command: commands::Command {
                argv: program.argv.clone(),
                deadline_ms: program.deadline_ms,
            },
            environment: input::environment(plan, self.kind, &self.stored),
            input: input::input(plan, self.kind, &self.stored, program.deadline_ms),
        };
        // Never closed: the semaphore lives as long as the daemon.
        let place = plan.places.acquire().await;
        let end = command.run().await;
        drop(place);
        let answer = Answer::of(&end);
        for (text, is_error) in [(&end.end.stdout, false), (&end.stderr, true)] {
            log_lines(device, hook, text, is_error);
        }
        let job = event.job_id.as_deref().unwrap_or_default();
        let words = answer.words();
        match &answer {
            Answer::Broken(_) => {
                tracing::warn!(%job, "{device}: hook {hook} failed: {words}{}", because(&end.end.detail));
            }
            _ => tracing::info!(%job, "{device}: hook {hook} says {words}"),
        }
        answer
    }

    async fn order(&self, command: Command) {
        // These two speak of a file: it must not be another job's by now.
        let by_file = matches!(self.kind, Kind::Activate | Kind::StartTest);
        if by_file && self.device.status().await.job_id != self.stored.event.job_id {
            return;
        }
        if let Err(refused) = self.device.command(command).await {
            let (device, hook) = (&self.plan.device, self.kind.name());
            let job = self.stored.event.job_id.as_deref().unwrap_or_default();
            tracing::warn!(%job, "{device}: the answer of hook {hook} is not taken: {refused}");
        }
    }
}

fn because(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

fn waits_for_activation(status: &DeviceStatus, job: &str) -> bool {
    status.state == WAITING_FOR_ACTIVATION && status.job_id.as_deref() == Some(job)
}

/// The first lines of what a hook wrote.
fn log_lines(device: &str, hook: &str, bytes: &[u8], is_error: bool) {
    let text = String::from_utf8_lossy(bytes);
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES_MAX)
    {
        let line = clean(line.trim_end(), LINE_MAX_BYTES);
        if is_error {
            tracing::info!("{device}: hook {hook}: {line}");
        } else {
            tracing::debug!("{device}: hook {hook} wrote: {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use host_runtime::agent::ApplicationEvent;

    use super::*;

    fn event(sequence: u64, kind: u32, job: &str, file: Option<u32>) -> StoredEvent {
        StoredEvent {
            at_s: None,
            event: ApplicationEvent {
                sequence,
                kind,
                job_id: Some(job.to_owned()),
                file,
                failure: None,
                version: None,
                document: Vec::new(),
            },
        }
    }

    #[test]
    fn activations_of_a_former_life_are_open_until_their_job_ends() {
        let story = [
            event(1, 0, "a", Some(0)),
            event(2, JOB_ENDED, "a", None),
            event(3, 0, "b", Some(0)),
            event(4, 0, "b", Some(1)),
            event(5, 0, "c", Some(1)),
            event(6, FAIL, "c", None),
        ];
        let open = |former: u64| -> Vec<u64> {
            let open = open_activations(&story, former);
            open.iter().map(|s| s.event.sequence).collect()
        };
        assert_eq!(open(1), [1]);
        assert_eq!(open(2), [0; 0]);
        assert_eq!(open(4), [3, 4]);
        assert_eq!(open(5), [3, 5]);
        assert_eq!(open(6), [0; 0]);
    }
}
