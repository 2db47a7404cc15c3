//! What others see of the agent: status and wait, told when they have changed.
//!
//! Changes are found by fingerprint, so that a block costs no status. Nothing here changes what the agent does.

use alloc::string::String;

use crate::code::State;
use crate::stream::Statistics;
use crate::text::push_decimal;
use crate::types::{AgentStatus, Failure, InstantMs, Version, Wait};

use super::Agent;
use super::job::Stage;
use super::table::BOUNDS;
use super::timer::Timer;

/// Block messages since the transfer began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) blocks: Statistics,
}

impl Counters {
    pub(super) fn zero(&mut self) {
        self.blocks = Statistics::default();
    }
}

/// What was told last.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) refused: Option<Failure>,
    /// What went wrong last in this state.
    pub(super) last_error: Option<Failure>,
    status: u64,
    wait: u64,
    reason: u32,
    pub(super) since: InstantMs,
}

/// FNV-1a: enough to see that something is different.
struct Fingerprint(u64);

impl Fingerprint {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        self.byte(0xff);
    }

    fn version(&mut self, version: Option<Version>) {
        self.add(version.map_or(u64::MAX, |v| u64::from(v.word()) << 32 | u64::from(v.build)));
    }
}

impl Agent {
    pub(super) fn view_status(&self) -> AgentStatus {
        let job = self.job.as_ref().filter(|job| job.id.is_some());
        let blocks = self.counters.blocks;
        AgentStatus {
            state: self.state.code(),
            job_id: job.map(|job| String::from(job.text())),
            files: self
                .job
                .iter()
                .flat_map(|job| &job.files)
                .map(|file| file.status())
                .collect(),
            received: blocks.received.into(),
            processed: blocks.processed.into(),
            dropped: blocks.dropped.into(),
        }
    }

    /// The status, if anything but the counters has changed.
    pub(super) fn changed_status(&mut self) -> Option<AgentStatus> {
        let mut print = Fingerprint::new();
        print.add(self.state.code().into());
        if let Some(job) = &self.job {
            print.text(job.text());
            for file in &job.files {
                print.add(file.id.into());
                print.add(file.phase as u64);
                print.version(file.image);
            }
        }
        if core::mem::replace(&mut self.view.status, print.0) == print.0 {
            return None;
        }
        Some(self.view_status())
    }

    /// The wait, if anything but the next try has changed.
    pub(super) fn changed_wait(&mut self) -> Option<Wait> {
        if self.state == State::Stopped {
            return None;
        }
        let reason = self.wait_reason();
        if reason != self.view.reason {
            self.view.reason = reason;
            self.view.since = self.now;
        }
        let tries = self.wait_tries(reason);
        let gives_up = self.gives_up(reason);
        let mut print = Fingerprint::new();
        print.add(reason.into());
        print.add(self.state.code().into());
        print.add(tries.into());
        print.add(gives_up.unwrap_or(u64::MAX));
        if let Some(failure) = &self.view.last_error {
            print.add(failure.word().into());
        }
        if core::mem::replace(&mut self.view.wait, print.0) == print.0 {
            return None;
        }
        Some(Wait {
            reason,
            detail: self.wait_detail(reason),
            since: self.view.since,
            tries,
            gives_up,
            last_error: self.view.last_error.clone(),
        })
    }

    /// Numbers of `job-agent.wit`.
    fn wait_reason(&self) -> u32 {
        let usual = BOUNDS
            .get(usize::from(self.state.code()))
            .map_or(0, |bound| bound.waits_for);
        let by_network = matches!(
            self.state,
            State::RequestingJob | State::RequestingFileBlock | State::WaitingForFileBlock
        );
        let reports = matches!(self.state, State::Reporting)
            || (self.state == State::Installing && !self.has_duty())
            || (self.state == State::Testing && !self.is_active());
        if (by_network || reports) && !self.connected {
            return 9;
        }
        match self.state {
            State::WaitingForJob if self.asking.sent.is_some() => 2,
            State::Installing | State::Testing if reports => 8,
            State::Init
            | State::Ready
            | State::RequestingJob
            | State::WaitingForJob
            | State::CreatingFile
            | State::RequestingFileBlock
            | State::WaitingForFileBlock
            | State::ClosingFile
            | State::Suspended
            | State::ShuttingDown
            | State::Stopped
            | State::Installing
            | State::WaitingForActivation
            | State::WaitingForRestart
            | State::Testing
            | State::Committing
            | State::GoingBack
            | State::Reporting => usual,
        }
    }

    fn has_duty(&self) -> bool {
        let mut files = self.job.iter().flat_map(|job| &job.files);
        files.any(|file| self.ops.duty(file.id).is_some())
    }

    fn is_active(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.active)
    }

    fn wait_tries(&self, reason: u32) -> u32 {
        match reason {
            2 => self.asking.tries,
            // The request at hand is no try that failed.
            3 => self
                .transfer
                .as_ref()
                .map_or(0, |t| t.downloader.momentum().saturating_sub(1)),
            8 => self.reporter.tries,
            4 | 6 => self.busy,
            _ => 0,
        }
    }

    fn gives_up(&self, reason: u32) -> Option<InstantMs> {
        match reason {
            5 => self.timers.at(Timer::Limit),
            6 => self.timers.at(Timer::Restart),
            7 => self.timers.at(Timer::Test),
            4 => self.ops.first_deadline(),
            8 | 9
                if self
                    .job
                    .as_ref()
                    .is_some_and(|job| job.stage == Stage::Testing) =>
            {
                self.timers.at(Timer::Test)
            }
            1 if self.job.is_some() => self.timers.at(Timer::Custom),
            _ => None,
        }
    }

    fn wait_detail(&self, reason: u32) -> String {
        let file = self.transfer.as_ref().map(|transfer| transfer.file);
        match reason {
            1 => match (&self.offered, &self.job) {
                (Some(offered), _) => ["answer to job ", offered.id.as_str()].concat(),
                (None, Some(job)) => ["end of job ", job.text()].concat(),
                (None, None) => String::from("a job"),
            },
            2 => String::from("answer to the job request"),
            3 => {
                let transfer = self.transfer.as_ref();
                let block = transfer.and_then(|transfer| transfer.downloader.waits_for());
                let mut text = String::from("block ");
                push_decimal(&mut text, block.map_or(0, |block| block.0.into()));
                text.push_str(" of file ");
                push_decimal(&mut text, file.unwrap_or(0).into());
                text
            }
            4 => String::from(self.wait_for_operation()),
            5 => String::from("the order to activate"),
            6 => String::from("the restart of a target"),
            7 => String::from("the verdict of the self-test"),
            8 => String::from("acknowledgement of the status"),
            9 => String::from("a connection"),
            _ => String::from("an order to resume"),
        }
    }

    fn wait_for_operation(&self) -> &'static str {
        let files = self
            .job
            .iter()
            .flat_map(|job| &job.files)
            .map(|file| file.id);
        let duty = files.filter_map(|file| self.ops.duty(file)).next();
        match duty {
            Some(duty) => duty.verb(),
            None if self.state == State::Init => "the state of the targets",
            None if !self.is_durable() => "the journal",
            None => "the host",
        }
    }
}
