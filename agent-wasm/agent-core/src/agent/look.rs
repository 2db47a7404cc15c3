//! Looks at targets: what they say at the start, before a job, and after every restart.
//!
//! What a look means for a job is decided by the table in `recover.rs`; here is what follows from its word.

use alloc::string::String;

use crate::code::{OtaErr, OtadErr, PalImageState, State, UNKNOWN};
use crate::settings::Key;
use crate::types::{Call, FileId, Order, TargetState};

use super::job::{FilePhase, Probe, Stage};
use super::lines::{Line, Why};
use super::ops::Deed;
use super::recover::{Memory, Service, Sight, Step, decide, sight};
use super::table::Cause;
use super::timer::Timer;
use super::{Agent, said};

impl Agent {
    /// Asks all targets at the start; then goes on with the job of the journal, or gets ready for one.
    pub(super) fn step_init(&mut self) -> bool {
        self.ask_targets();
        if self.probes.iter().any(|probe| !probe.asked) {
            return false;
        }
        self.asked_all = true;
        if self.job.stage <= Stage::Taken {
            if self.job.stage == Stage::Idle {
                self.look_for_unclaimed();
            }
            self.set_state(Cause::TargetsAsked, State::Ready);
        } else {
            self.recover();
            self.set_state(Cause::Recovered, self.natural_state());
        }
        true
    }

    /// Asks targets that have restarted by themselves, or were never asked.
    pub(super) fn step_probes(&mut self) {
        if self.state != State::Init {
            self.ask_targets();
        }
    }

    fn ask_targets(&mut self) {
        for at in 0..self.probes.len() {
            let Some(probe) = self.probes.get(at).copied() else {
                return;
            };
            let due = probe.stale || !probe.asked;
            if due && self.ops.duty(probe.file).is_none() && !self.runs(Timer::Retry) {
                self.order(
                    Order::Pal(Call::State, probe.file),
                    Deed::State,
                    probe.file,
                    0,
                );
            }
        }
    }

    /// Images in test or marked for it that the journal knows nothing of: a job in self-test may claim them.
    fn look_for_unclaimed(&mut self) {
        let waits = |state| decide(Memory::None, sight(state, None, None), Service::Unknown);
        self.unclaimed = self
            .probes
            .iter()
            .any(|probe| waits(probe.state) == Step::Wait);
        if self.unclaimed {
            self.arm(Timer::Test, Key::SelfTestDeadline);
        }
    }

    /// The journal's job meets the targets as they are.
    fn recover(&mut self) {
        self.job.starts = self.job.starts.saturating_add(1);
        let stage = self.job.stage;
        for at in 0..self.job.files.len() {
            let Some(file) = self.job.files.get_mut(at) else {
                break;
            };
            let looks = file.firmware
                && stage != Stage::Report
                && (stage != Stage::Back || file.phase >= FilePhase::Armed)
                && file.phase < FilePhase::Committed;
            if looks {
                file.look = true;
                let id = file.id;
                let state = self.probe(id).state;
                self.on_look(id, state);
            }
        }
        self.touch_journal();
    }

    /// What a target said last.
    pub(super) fn probe(&self, id: FileId) -> Probe {
        self.probes
            .iter()
            .find(|probe| probe.file == id)
            .copied()
            .unwrap_or_default()
    }

    /// The version word of the gateway's own software, which `updatedBy` and `accepted` speak of; of the first target
    /// where file 0 is not configured.
    pub(super) fn running_word(&self) -> u32 {
        // The probes stand in the order of the file ids.
        let version = self.probes.first().and_then(|probe| probe.state.running);
        version.map_or(0, |version| version.word())
    }

    /// A target has said how it is, or did not. Whoever wanted to know: the start, a job to come, or a look.
    pub(super) fn on_state(&mut self, id: FileId, answer: Option<TargetState>) {
        let state = answer.unwrap_or_default();
        if answer.is_none() {
            let detail = self.heard.detail.clone();
            self.write_line(Line::TargetSilent, id.into(), &detail);
        }
        let mut news = false;
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.file == id) {
            news = !probe.asked || (answer.is_some() && state != probe.state);
            *probe = Probe {
                file: id,
                asked: true,
                stale: false,
                state,
            };
        }
        if news {
            self.log_target(id, state);
        }
        let Some(file) = self.file(id) else { return };
        if file.look {
            self.on_look(id, state);
        } else if !file.asked {
            // One that is silent now is asked again before it takes the image.
            file.asked = answer.is_some();
            file.old = state.running;
            self.on_version(id);
        }
    }

    fn log_target(&mut self, id: FileId, state: TargetState) {
        let target = self.settings.target(id);
        let mut text = String::from(target.map_or("", |target| target.name.as_str()));
        text.push_str(" runs ");
        match state.running {
            Some(version) => version.push_text(&mut text),
            None => text.push_str("an unknown version"),
        }
        text.push_str(", image state ");
        match PalImageState::from_code(state.code) {
            Some(known) => said::push(&mut text, said::IMAGES + usize::from(known.code())),
            None => text.push_str(UNKNOWN),
        }
        self.write_line(Line::Target, id.into(), &text);
    }

    /// Acts on what a target shows; which act is the table's word.
    fn on_look(&mut self, id: FileId, state: TargetState) {
        let service = self.job.service();
        let Some(phase) = self.file(id).map(|file| file.phase) else {
            return;
        };
        let memory = self.job.memory(phase);
        let Some(file) = self.file(id) else { return };
        file.look = false;
        let late = core::mem::take(&mut file.late);
        let sight = sight(state, file.image, file.old);
        match decide(memory, sight, service) {
            Step::Wait | Step::Reset if late => self.on_never_back(id),
            Step::Wait => {
                file.look = true;
                self.arm(Timer::Retry, Key::RequestTimeout);
                if !self.runs(Timer::Restart) {
                    self.set_restart_timer();
                }
            }
            Step::Reset => {
                file.phase = FilePhase::Armed;
                if self.tries_are_used_up(id) {
                    self.on_never_back(id);
                }
            }
            // It went back although the decision is to go forward. What the journal says to have gone back already is on its
            // way: a restart in between is no try of its own.
            Step::Activate if memory == Memory::Commit && file.phase > FilePhase::Installed => {
                file.tested = false;
                file.phase = FilePhase::ToDo;
                if self.tries_are_used_up(id) {
                    self.give_up_file(id, Why::own(OtadErr::RolledBack, id));
                }
            }
            Step::Test => self.on_new_runs(id, state),
            Step::Commit => {
                file.phase = if file.tested {
                    FilePhase::Committing
                } else {
                    FilePhase::Testing
                };
                self.stop(Timer::Restart);
            }
            Step::Committed => {
                file.phase = FilePhase::Committed;
                self.stop(Timer::Restart);
                self.touch_journal();
            }
            Step::Leave => self.on_back(id),
            Step::Reverted => {
                // It went there and back, seen or not.
                file.ran = true;
                file.phase = FilePhase::Armed;
                self.on_failed_look(id, sight, Why::own(OtadErr::RolledBack, id));
            }
            Step::Mismatch => {
                file.phase = file.phase.max(FilePhase::Armed);
                let why = Why::new(OtaErr::ImageStateMismatch.code(), id);
                self.on_failed_look(id, sight, why);
            }
            // It is there: going back need not wait for its restart. One that is silent may be in the midst of it.
            Step::Reject if sight != Sight::Unknown && file.phase == FilePhase::Restarting => {
                self.stop(Timer::Restart);
            }
            // Going back goes on where it is; the others are no answers to a look.
            Step::Reject | Step::Activate | Step::Transfer | Step::Abort | Step::Accepted => {}
        }
    }

    /// The job fails for what a target shows. Where that leaves nothing to be taken back, nothing is told to the target;
    /// a refused image is rejected, for the record.
    fn on_failed_look(&mut self, id: FileId, sight: Sight, why: Why) {
        self.job.self_test = true;
        self.fail_rejected(why);
        let back = decide(Memory::Back, sight, Service::Unknown);
        if back == Step::Leave && sight != Sight::Invalid {
            self.on_back(id);
        }
    }

    pub(super) fn set_restart_timer(&mut self) {
        let targets = self.settings.targets.iter();
        let longest = targets
            .map(|target| target.restart_deadline_ms)
            .fold(0, u64::max);
        self.arm_in(Timer::Restart, longest);
    }

    /// The time for a restart is over: one last look decides.
    pub(super) fn on_restart_timeout(&mut self) {
        for file in &mut self.job.files {
            if file.look || matches!(file.phase, FilePhase::Restarting | FilePhase::Armed) {
                file.look = true;
                file.late = true;
                let id = file.id;
                self.ops
                    .forget(&|pending| pending.deed == Deed::State && pending.file == id);
            }
        }
        self.stop(Timer::Retry);
    }

    fn on_never_back(&mut self, id: FileId) {
        let why = Why::own(OtadErr::RestartTimeout, id);
        if self.job.stage == Stage::Commit {
            self.forward_trouble(id, why);
        } else {
            if let Some(file) = self.file(id) {
                // It may be marked, and did not say: going back takes the mark back.
                file.phase = file.phase.max(FilePhase::Armed);
            }
            self.job.self_test = self.job.stage.is_open();
            self.fail_rejected(why);
        }
    }

    /// The new image runs: is it the one that was verified, and newer?
    fn on_new_runs(&mut self, id: FileId, state: TargetState) {
        let Some(file) = self.file(id) else { return };
        file.phase = file.phase.max(FilePhase::Testing);
        file.ran = true;
        let (image, old) = (file.image, file.old);
        file.image = image.or(state.running);
        self.stop(Timer::Restart);
        self.touch_journal();
        let Some(running) = state.running else { return };
        self.job.self_test = true;
        match (image, old) {
            (Some(image), _) if running != image => {
                let sub = running.word() & 0x00ff_ffff;
                self.fail_rejected(Why::own(OtadErr::VersionMismatch, sub));
            }
            (None, Some(old)) => self.check_version(id, running, old),
            _ => {}
        }
        // The flag is the failure's, if there is one.
        self.job.self_test &= self.job.failing.is_some();
    }

    pub(super) fn on_target_restarted(&mut self, id: FileId) {
        self.note_number(Line::Restarted, id);
        if let Some(file) = self.file(id).filter(|file| file.is_marked()) {
            file.look = true;
            self.stop(Timer::Retry);
        } else if let Some(probe) = self.probes.iter_mut().find(|probe| probe.file == id) {
            probe.stale = true;
        }
    }

    /// The old image runs, or nothing was ever changed.
    pub(super) fn on_back(&mut self, id: FileId) {
        let Some(file) = self.file(id) else { return };
        file.phase = FilePhase::WentBack;
        let (ran, version) = (file.ran, file.old);
        if ran {
            self.tell_file(crate::code::JobEvent::RolledBack, id, version);
        }
    }

    /// Where the agent goes on with what it has, after a start or a suspension.
    pub(super) fn natural_state(&self) -> State {
        if !self.asked_all {
            return State::Init;
        }
        if !self.begun && self.job.stage <= Stage::Taken {
            return State::Ready;
        }
        match self.job.stage {
            Stage::Idle | Stage::Offered | Stage::Asked | Stage::Custom => State::RequestingJob,
            Stage::Taken if self.job.needs_document() => State::RequestingJob,
            Stage::Taken => {
                let arriving = self
                    .job
                    .files
                    .iter()
                    .find(|file| file.phase < FilePhase::Verified);
                match arriving.map(|file| file.phase) {
                    None => State::Installing,
                    Some(FilePhase::Closing) => State::ClosingFile,
                    Some(FilePhase::Receiving) => State::RequestingFileBlock,
                    Some(_) => State::CreatingFile,
                }
            }
            Stage::AwaitRestart if self.awaits_order().is_some() => State::WaitingForActivation,
            Stage::AwaitRestart => State::WaitingForRestart,
            Stage::Testing => State::Testing,
            Stage::Commit => State::Committing,
            Stage::Back => State::GoingBack,
            Stage::Report => State::Reporting,
        }
    }
}
