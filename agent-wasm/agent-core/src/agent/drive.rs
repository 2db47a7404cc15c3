//! What is done to a file next, and what its end changes: one place for every stage of a job.
//!
//! `drive` orders the next operation of one file, if none is under way for it; which file, and how far it may go, is
//! the business of `stages.rs`. What a look at a target means is in `look.rs`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{HostErr, JobEvent, OtaErr, OtadErr, PalStatus};
use crate::document;
use crate::settings::Key;
use crate::types::{Failure, FileId, FileSpec, ImageInfo, Order, Outcome, Version};

use super::job::{FilePhase, JobFile, Stage};
use super::lines::{Line, Why};
use super::ops::Deed;
use super::table::Cause;
use super::timer::Timer;
use super::{Agent, Style};

/// Time before a busy target is asked again, doubled with each try.
const BUSY_RETRY_MS: u64 = 250;

/// Most tries of a busy target: 250 ms doubled up to the request time-out, so some minutes at the defaults.
const BUSY_MAX: u32 = 30;

/// The lines of the deeds, in their order.
const DEED_LINES: [Line; 11] = [
    Line::Create,
    Line::Reopen,
    Line::Close,
    Line::Install,
    Line::Activate,
    Line::Reset,
    Line::SelfTest,
    Line::Commit,
    Line::Reject,
    Line::State,
    Line::Abort,
];

impl Agent {
    /// Whether nothing can be ordered for a file now.
    fn is_held_up(&self, id: FileId) -> bool {
        self.ops.duty(id).is_some() || self.runs(Timer::Retry)
    }

    /// Orders one operation on a file.
    pub(super) fn duty(&mut self, id: FileId, deed: Deed) {
        let order = if deed == Deed::Create {
            let Some(spec) = self.spec(id) else {
                // Without the document there is nothing to create from: ask for the job again.
                self.asking.describe = true;
                return;
            };
            Order::Create(spec)
        } else if deed == Deed::Reopen {
            Order::Reopen {
                job_id: String::from(self.job.text()),
                file: id,
            }
        } else {
            Order::Pal(deed.call(), id)
        };
        if let Some(line) = DEED_LINES.get((deed as usize).wrapping_sub(Deed::Create as usize)) {
            self.note_number(*line, id);
        }
        self.order(order, deed, id, 0);
    }

    fn spec(&self, id: FileId) -> Option<FileSpec> {
        let document = document::parse_job(&self.job.document).ok()?;
        let entry = document.files.iter().find(|entry| entry.file_id == id)?;
        let mut spec = FileSpec {
            job_id: String::from(self.job.text()),
            file_id: id,
            size: entry.size,
            block_size: self.job.block_size,
            file_type: entry.file_type,
            attributes: entry.attributes,
            path: entry.path.clone(),
            certificate: entry.certificate.clone(),
            signature_kind: String::new(),
            signature: Vec::new(),
        };
        if let Some(signature) = &entry.signature {
            spec.signature_kind = String::from(signature.kind.key());
            spec.signature.clone_from(&signature.bytes);
        }
        Some(spec)
    }

    /// Orders the next thing that brings a file to where its job goes. Neither a mark nor a restart nor a commit nor
    /// going back happens before the journal says that it may.
    pub(super) fn drive(&mut self, id: FileId) {
        if self.is_held_up(id) {
            return;
        }
        let durable = self.is_durable();
        let stage = self.job.stage;
        let external = self
            .settings
            .target(id)
            .is_some_and(|target| target.external_test);
        let Some(file) = self.file(id) else { return };
        if file.look {
            self.duty(id, Deed::State);
            return;
        }
        if stage == Stage::Back {
            // Else a crash in between finds a job that goes on, and nothing to go on with.
            if durable || self.has_no_journal() {
                self.drive_back(id);
            }
            return;
        }
        let deed = match file.phase {
            FilePhase::ToDo | FilePhase::Creating => {
                if stage != Stage::Taken {
                    file.asked = true;
                    file.reopen = true;
                }
                let ask = !file.asked && file.phase == FilePhase::ToDo;
                file.phase = FilePhase::Creating;
                if ask {
                    Deed::State
                } else if file.reopen {
                    Deed::Reopen
                } else {
                    Deed::Create
                }
            }
            FilePhase::Receiving => {
                // Far behind the download: blocks of a verified file are missing.
                return self.give_up_file(id, Why::new(PalStatus::FileClose.code(), 0));
            }
            FilePhase::Closing => Deed::Close,
            // Not taken before the target has said what runs: it may be the same image, or a newer one.
            FilePhase::Verified if !file.asked => Deed::State,
            FilePhase::Verified | FilePhase::Installing => {
                file.phase = FilePhase::Installing;
                Deed::Install
            }
            FilePhase::Installed if durable => Deed::Activate,
            FilePhase::Armed if durable => {
                file.phase = FilePhase::Restarting;
                self.set_restart_timer();
                Deed::Reset
            }
            FilePhase::Restarting => {
                if !self.runs(Timer::Restart) {
                    self.set_restart_timer();
                }
                return;
            }
            FilePhase::Testing | FilePhase::Committing if !file.tested && !external => {
                Deed::SelfTest
            }
            FilePhase::Testing | FilePhase::Committing if stage == Stage::Commit && durable => {
                file.phase = FilePhase::Committing;
                Deed::Commit
            }
            FilePhase::Installed
            | FilePhase::Armed
            | FilePhase::Testing
            | FilePhase::Committing
            | FilePhase::Committed
            | FilePhase::GoingBack
            | FilePhase::WentBack
            | FilePhase::Failed => return,
        };
        self.duty(id, deed);
    }

    fn drive_back(&mut self, id: FileId) {
        let restarts = self.runs(Timer::Restart);
        let Some(file) = self.file(id) else { return };
        // In the middle of a restart nothing can be told to it; its end or its time-out comes.
        if file.phase == FilePhase::Restarting && restarts {
            return;
        }
        let marked = file.is_marked() || file.phase == FilePhase::GoingBack;
        file.phase = FilePhase::GoingBack;
        self.duty(id, if marked { Deed::Reject } else { Deed::Abort });
    }

    pub(super) fn on_duty_ended(&mut self, id: FileId, deed: Deed, outcome: &Outcome) {
        let why = match outcome {
            Outcome::Nothing if !matches!(deed, Deed::State | Deed::Reopen | Deed::Close) => None,
            Outcome::State(_) if deed == Deed::State => None,
            Outcome::Held(_) if deed == Deed::Reopen => None,
            Outcome::Verified(_) if deed == Deed::Close => None,
            Outcome::Failed(failure) => {
                self.write_line(Line::DeedFailed, id.into(), &failure.detail);
                if deed == Deed::Reset
                    && let Some(file) = self.file(id)
                    && file.phase == FilePhase::Restarting
                {
                    // No restart will come: the image is marked, and no more.
                    file.phase = FilePhase::Armed;
                }
                let why = self.hear(failure);
                if why.main == HostErr::Busy.code() && self.busy < BUSY_MAX {
                    self.busy += 1;
                    let most = self.number(Key::RequestTimeout);
                    let least = BUSY_RETRY_MS.min(most);
                    let wait = self.random.back_off(least, most, self.busy);
                    self.arm_in(Timer::Retry, wait);
                    return;
                }
                Some(why)
            }
            // A host that tells something else is not believed.
            Outcome::Nothing
            | Outcome::State(_)
            | Outcome::Held(_)
            | Outcome::Verified(_)
            | Outcome::Other(_) => Some(Why::own(OtadErr::Fault, 3)),
        };
        self.busy = 0;
        match (why, outcome) {
            (None, Outcome::Held(held)) => self.begin_download(id, Some(held)),
            (None, Outcome::Verified(info)) => self.on_verified(id, info),
            (None, Outcome::State(state)) => self.on_state(id, Some(*state)),
            (None, _) => self.on_duty_done(id, deed),
            (Some(why), _) if deed == Deed::State => {
                self.on_state(id, None);
                let silent = |file: &mut JobFile| file.phase == FilePhase::Verified && !file.asked;
                if self.file(id).is_some_and(silent) {
                    self.fail_with_numbers(why);
                }
            }
            (Some(why), _) => self.on_duty_failed(id, deed, why),
        }
    }

    fn on_duty_done(&mut self, id: FileId, deed: Deed) {
        let stage = self.job.stage;
        let Some(file) = self.file(id) else { return };
        let (firmware, image) = (file.firmware, file.image);
        match deed {
            Deed::Create => return self.begin_download(id, None),
            Deed::Install => {
                file.phase = FilePhase::Installed;
                file.installed.0 = file.installed.1;
                if !firmware {
                    self.tell_file(JobEvent::UpdateComplete, id, image);
                }
            }
            Deed::Activate => file.phase = FilePhase::Armed,
            // The order is given: from now on the time for the restart runs.
            Deed::Reset => {
                if file.phase == FilePhase::Restarting {
                    self.set_restart_timer();
                }
                return;
            }
            Deed::SelfTest => {
                file.tested = true;
                return;
            }
            Deed::Commit if stage == Stage::Commit => file.phase = FilePhase::Committed,
            Deed::Reject => self.on_back(id),
            Deed::Abort => {
                file.phase = FilePhase::WentBack;
                return;
            }
            Deed::Subscribe
            | Deed::Unsubscribe
            | Deed::Ask
            | Deed::Status
            | Deed::Progress
            | Deed::Blocks
            | Deed::Journal
            | Deed::Write
            | Deed::Reopen
            | Deed::Close
            | Deed::Commit
            | Deed::State
            | Deed::Range => return,
        }
        self.touch_journal();
    }

    fn on_duty_failed(&mut self, id: FileId, deed: Deed, why: Why) {
        let stage = self.job.stage;
        let tested = self.file(id).is_some_and(|file| file.tested);
        let gone = why.main == HostErr::NotFound.code();
        let unproved = why.main == HostErr::NotVerified.code();
        let reads = matches!(deed, Deed::Create | Deed::Reopen);
        let marks = matches!(deed, Deed::Install | Deed::Activate);
        let broken = deed == Deed::Close && why.main == PalStatus::FileClose.code();
        if deed == Deed::Activate
            && stage != Stage::Commit
            && let Some(file) = self.file(id)
        {
            // It may be marked all the same, and only its answer was lost: going back takes the mark back.
            file.phase = FilePhase::Armed;
        }
        if deed == Deed::Reopen && gone && stage == Stage::Taken {
            self.create_anew(id);
        } else if deed == Deed::Reopen && gone {
            // Verified once and gone now: there is nothing to fetch it from any more.
            self.give_up_file(id, why);
        } else if reads && stage.is_open() {
            self.fail(Style::Aborted, Cause::JobFailed, why);
        } else if broken || (marks && unproved) {
            // Without a proof the file is read and verified again.
            self.reopen_bounded(id, why);
        } else if deed == Deed::Abort {
            // Whether it worked or not: the next job throws away what is left.
            if let Some(file) = self.file(id) {
                file.phase = FilePhase::WentBack;
            }
        } else if deed == Deed::SelfTest && (tested || stage == Stage::Testing) {
            // Unless somebody has given the verdict in the meantime.
            if !tested {
                self.fail_rejected(why);
            }
        } else if stage == Stage::Commit || matches!(deed, Deed::Commit | Deed::Reject) {
            self.forward_trouble(id, why);
        } else {
            self.fail_with_numbers(why);
        }
    }

    fn on_verified(&mut self, id: FileId, info: &ImageInfo) {
        let Some(file) = self.file(id) else { return };
        file.phase = FilePhase::Verified;
        file.image = info.version.or(file.image);
        let image = file.image;
        let mut text = info.signer.clone();
        if let Some(version) = image {
            text.push_str(", version ");
            version.push_text(&mut text);
        }
        self.write_line(Line::Verified, id.into(), &text);
        self.touch_journal();
        self.on_version(id);
    }

    /// A verified image, and what runs: one that is not newer ends its job here.
    pub(super) fn on_version(&mut self, id: FileId) {
        if let Some(file) = self.file(id)
            && file.firmware
            && file.phase == FilePhase::Verified
            && let (Some(image), Some(old)) = (file.image, file.old)
        {
            self.check_version(id, image, old);
        }
    }

    /// Looks at what the host holds before the file is closed once more; a few times only.
    fn reopen_bounded(&mut self, id: FileId, why: Why) {
        if self.tries_are_used_up(id) {
            self.give_up_file(id, why);
        } else if let Some(file) = self.file(id) {
            file.reopen = true;
            file.phase = FilePhase::ToDo;
        }
    }

    pub(super) fn tries_are_used_up(&mut self, id: FileId) -> bool {
        let attempts = self.number32(Key::UpdateAttempts);
        self.file(id).is_some_and(|file| {
            file.tries += 1;
            file.tries > attempts
        })
    }

    /// Once decided, a failure is a reason to look and try again, a few times.
    pub(super) fn forward_trouble(&mut self, id: FileId, why: Why) {
        if self.tries_are_used_up(id) {
            self.give_up_file(id, why);
        } else if let Some(file) = self.file(id) {
            file.look = true;
            let tries = file.tries;
            self.arm_back_off(Timer::Retry, tries);
        }
    }

    /// The tries of a file are used up.
    pub(super) fn give_up_file(&mut self, id: FileId, why: Why) {
        self.view.last_error = why;
        if self.job.stage.is_open() {
            self.fail_with_numbers(why);
        } else if let Some(file) = self.file(id) {
            file.phase = FilePhase::Failed;
        }
    }

    /// Refuses the same or a lower version, unless the operator allows it.
    pub(super) fn check_version(&mut self, id: FileId, new: Version, old: Version) {
        if self
            .settings
            .target(id)
            .is_some_and(|target| target.allow_downgrade)
            || new > old
            || mutant!(SameVersion)
        {
            return;
        }
        let code = if new == old {
            OtaErr::SameFirmwareVersion
        } else {
            OtaErr::DowngradeNotAllowed
        };
        self.fail_rejected(Why::new(code.code(), id));
    }

    /// An open job ends for this reason; the first one counts.
    pub(super) fn fail(&mut self, style: Style, cause: Cause, why: Why) {
        if !self.job.stage.is_open() || self.job.failing.is_some() {
            return;
        }
        self.end_with(&style.status(why), why);
        self.job.failing = Some(cause);
    }

    pub(super) fn fail_with_numbers(&mut self, why: Why) {
        self.fail(Style::Numbers, Cause::JobFailed, why);
    }

    pub(super) fn fail_rejected(&mut self, why: Why) {
        self.fail(Style::Rejected, Cause::JobFailed, why);
    }

    /// Withdrawn by the service, or given up by the user.
    pub(super) fn fail_by(&mut self, cause: Cause, why: Why) {
        self.fail(Style::Aborted, cause, why);
    }

    /// The verdict of an operator or of the application.
    pub(super) fn reject_by_order(&mut self, failure: &Failure) {
        let why = self.hear(failure);
        self.fail_rejected(why);
    }
}
