//! What others see of the agent: status and wait, told when they have changed.
//!
//! Changes are found by fingerprint, so that a block costs no status. Nothing here changes what the agent does.

use alloc::string::String;

use crate::code::State;
use crate::settings::Key;
use crate::stream::Statistics;
use crate::text::push_decimal;
use crate::types::{AgentStatus, InstantMs, Version, Wait};

use super::command::Refusal;
use super::job::{JobFile, Stage};
use super::lines::Why;
use super::report::Due;
use super::request::UNANSWERED_MAX;
use super::table::WAITS_FOR;
use super::timer::{NEVER, Timer};
use super::{Agent, said};

/// What was told last, and what is to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) refused: Option<Refusal>,
    /// What went wrong last in this state.
    pub(super) last_error: Why,
    /// Block messages since the transfer began.
    pub(super) blocks: Statistics,
    status: u64,
    wait: u64,
    reason: u32,
    pub(super) since: InstantMs,
}

impl View {
    pub(super) fn zero_counters(&mut self) {
        self.blocks = Statistics::default();
    }
}

/// FNV-1a by words: enough to see that something is different.
struct Fingerprint(u64);

impl Fingerprint {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    }

    fn add_text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.add(byte.into()));
    }
}

impl Agent {
    pub(super) fn view_status(&self) -> AgentStatus {
        let job = if self.job.is_taken() {
            self.job.id.as_ref()
        } else {
            None
        };
        let blocks = self.view.blocks;
        AgentStatus {
            state: self.state.code(),
            job_id: job.map(|id| String::from(id.as_str())),
            files: self.job.files.iter().map(JobFile::status).collect(),
            received: blocks.received.into(),
            processed: blocks.processed.into(),
            dropped: blocks.dropped.into(),
        }
    }

    /// The status, if anything but the counters has changed.
    pub(super) fn changed_status(&mut self) -> Option<AgentStatus> {
        let mut print = Fingerprint::new();
        print.add(self.state.code().into());
        if self.job.is_taken() {
            print.add_text(self.job.text());
        }
        for file in &self.job.files {
            let unknown = || Version {
                build: u32::MAX,
                ..Version::default()
            };
            let version = file.image.unwrap_or_else(unknown);
            print.add(u64::from(file.id) << 8 | file.phase as u64);
            print.add(u64::from(version.word()) << 32 | u64::from(version.build));
        }
        let changed = core::mem::replace(&mut self.view.status, print.0) != print.0;
        changed.then(|| self.view_status())
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
        let last_error = self.view.last_error;
        let mut print = Fingerprint::new();
        print.add(u64::from(reason) << 8 | u64::from(self.state.code()));
        print.add(tries.into());
        print.add(gives_up);
        print.add(u64::from(last_error.main) << 32 | u64::from(last_error.sub));
        // An offer by a notification changes nothing else.
        print.add_text(if reason == 1 { self.job.text() } else { "" });
        if core::mem::replace(&mut self.view.wait, print.0) == print.0 {
            return None;
        }
        Some(Wait {
            reason,
            detail: self.wait_detail(reason),
            since: self.view.since,
            tries,
            gives_up: (gives_up != NEVER).then_some(gives_up),
            last_error: last_error.is_some().then(|| self.failure_of(last_error)),
        })
    }

    /// Numbers of `job-agent.wit`.
    fn wait_reason(&self) -> u32 {
        let usual = WAITS_FOR.get(usize::from(self.state.code()));
        let usual = usual.copied().map_or(0, u32::from);
        let idle_duty = self
            .job
            .files
            .iter()
            .all(|file| self.ops.duty(file.id).is_none());
        let testing = self.state == State::Testing && !self.job.active;
        let installed = self.state == State::Installing && idle_duty;
        let reports = installed || testing || self.state == State::Reporting;
        let blocks = usual == 3 && (!self.job.by_url || self.job.needs_document());
        let by_network = reports || blocks || self.state == State::RequestingJob;
        if by_network && !self.connected {
            9
        } else if testing && !self.job.read_again {
            2
        } else if reports {
            8
        } else if self.state == State::WaitingForJob && self.asking.sent.is_some() {
            2
        } else {
            usual
        }
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

    fn gives_up(&self, reason: u32) -> InstantMs {
        let timer = match reason {
            4 => return self.ops.first_deadline(),
            5 => Timer::Limit,
            6 => Timer::Restart,
            7 => Timer::Test,
            8 | 9 if self.job.stage == Stage::Testing => Timer::Test,
            8 if self.reporter.due == Due::Ready => {
                return self.last_try(Timer::Status, self.reporter.tries);
            }
            2 if self.job.needs_document() => {
                return self.last_try(Timer::Ask, self.asking.tries);
            }
            1 if self.job.is_taken() => Timer::Custom,
            _ => return NEVER,
        };
        self.timers.at(timer)
    }

    /// When the last of the tries is over, at the latest: each has the longest delay and the quarter on top.
    fn last_try(&self, timer: Timer, tries: u32) -> InstantMs {
        let left = UNANSWERED_MAX.saturating_sub(tries).saturating_sub(1);
        let longest = self.number(Key::RetryMax) / 4 * 5;
        self.timers
            .at(timer)
            .saturating_add(u64::from(left) * longest)
    }

    fn wait_detail(&self, reason: u32) -> String {
        let mut text = String::new();
        said::push(&mut text, said::WAITS + reason as usize);
        if reason == 3 {
            let transfer = self.transfer.as_ref();
            let block = transfer.and_then(|transfer| transfer.downloader.waits_for());
            push_decimal(&mut text, block.map_or(0, |block| block.0.into()));
            text.push_str(" of file ");
            push_decimal(
                &mut text,
                transfer.map_or(0, |transfer| transfer.file.into()),
            );
        } else if reason == 1 && self.job.stage != Stage::Idle {
            text.clear();
            text.push_str(if self.job.is_taken() {
                "end of job "
            } else {
                "answer to job "
            });
            text.push_str(self.job.text());
        } else if reason == 4 {
            let duty = self
                .job
                .files
                .iter()
                .find_map(|file| self.ops.duty(file.id));
            let what = match duty {
                Some(deed) => deed.verb(),
                None if self.state == State::Init => said::WAITS + OF_TARGETS,
                None if !self.is_durable() => said::WAITS + OF_JOURNAL,
                None => return text,
            };
            text.clear();
            said::push(&mut text, what);
        }
        text
    }
}

/// What is waited for, in the order of the reasons' numbers, and two more for what a wait for the host can be.
pub(super) const WAITS: &str = "\n\
a job\n\
answer to the job request\n\
block \n\
the host\n\
the order to activate\n\
the restart of a target\n\
the verdict of the self-test\n\
acknowledgement of the status\n\
a connection\n\
an order to resume\n\
the state of the targets\n\
the journal\n";
const OF_TARGETS: usize = 11;
const OF_JOURNAL: usize = 12;
