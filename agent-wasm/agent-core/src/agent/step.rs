//! What follows from the facts: ends, timers, and one step after the other until nothing more follows.
//!
//! What a step does in a state is in the module named after what it is about.

use alloc::string::String;

use crate::code::{OtadErr, State};
use crate::settings::Key;
use crate::types::{Order, Outcome, Token};

use super::Agent;
use super::job::Stage;
use super::lines::{Line, Why};
use super::ops::{Deed, Pending};
use super::table::Cause;
use super::timer::{NEVER, Timer, Timers};

/// Most steps after one event; a whole job takes some thirty states, so more is a circle.
const STEPS_MAX: u32 = 64;

/// An installation is told of at its beginning and after each such part of it, so that it takes as many messages whatever
/// the line. The host tells at most once a second.
const TOLD_PARTS: u64 = 16;

impl Agent {
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended_since != NEVER
    }

    pub(super) fn fire_due(&mut self) {
        // While suspended time stands still.
        if self.is_suspended() && self.state != State::ShuttingDown {
            return;
        }
        while let Some(pending) = self.ops.take_overdue(self.now) {
            if pending.deed == Deed::Range {
                self.order_once(Order::Cancel(pending.token));
            }
            let why = Why::own(OtadErr::OperationTimeout, pending.file);
            let failure = self.failure_of(why);
            self.on_ended(pending, &Outcome::Failed(failure));
        }
        while let Some(timer) = self.timers.take_due(self.now) {
            self.on_timer(timer);
        }
    }

    pub(super) fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Ask => self.on_ask_timeout(),
            Timer::Poll => self.asking.next = true,
            // A back-off that ends here repeats the status as well.
            Timer::Status => self.reporter.tries = self.reporter.tries.saturating_add(1),
            Timer::Restart => self.on_restart_timeout(),
            Timer::Test => self.on_test_timeout(),
            Timer::Reminder => self.on_reminder(),
            Timer::Limit => self.on_activation_timeout(),
            Timer::Offer => self.on_offer_timer(),
            Timer::Custom => self.on_custom_timeout(),
            Timer::Shutdown => self
                .ops
                .forget(&|pending| pending.deed == Deed::Unsubscribe),
            // These only hold something back; the next step finds them gone.
            Timer::Subscribe | Timer::Journal | Timer::Link | Timer::Retry => {}
        }
    }

    pub(super) fn on_ended(&mut self, pending: Pending, outcome: &Outcome) {
        let Pending {
            deed, file, index, ..
        } = pending;
        if deed.is_duty() {
            self.on_duty_ended(file, deed, outcome);
            return;
        }
        // Only a failure has something to tell; a host that tells more is not listened to.
        let why = if let Outcome::Failed(failure) = outcome {
            self.hear(failure)
        } else {
            Why::default()
        };
        match deed {
            Deed::Subscribe => self.on_subscribed(index, why),
            Deed::Ask => self.on_asked(why),
            Deed::Status => self.on_status_published(why),
            Deed::Blocks => self.on_blocks_requested(index, why),
            Deed::Journal => self.on_journal_stored(why),
            Deed::Write => self.on_written(file, index, why),
            Deed::Range => self.on_range_failed(index, why),
            // Nobody waits for these two; the duties of targets were seen to above.
            Deed::Unsubscribe
            | Deed::Progress
            | Deed::Create
            | Deed::Reopen
            | Deed::Close
            | Deed::Install
            | Deed::Activate
            | Deed::Reset
            | Deed::SelfTest
            | Deed::Commit
            | Deed::Reject
            | Deed::State
            | Deed::Abort => {}
        }
    }

    pub(super) fn on_progress(&mut self, token: Token, done: u64, total: u64) {
        let deadline = self.now.saturating_add(self.number(Key::OperationDeadline));
        let Some(pending) = self
            .ops
            .list
            .iter_mut()
            .find(|pending| pending.token == token)
        else {
            return;
        };
        pending.deadline = pending.deadline.max(deadline);
        let (deed, id) = (pending.deed, pending.file);
        let installs = self.state == State::Installing;
        if let (Deed::Install, Some(file)) = (deed, self.file(id)) {
            let part = total / TOLD_PARTS + 1;
            let (before, known) = core::mem::replace(&mut file.installed, (done, total));
            let new = known == 0 || before / part != done / part;
            // As with blocks the end is not told: what follows says it.
            if new && installs && done < total {
                self.tell_progress(id);
            }
        }
    }

    /// Looks at the facts until nothing more follows from them.
    pub(super) fn advance(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                // What the last step has told waits for a journal that nothing else would store.
                self.flush_journal();
                return;
            }
        }
        self.fault(2);
    }

    /// One step; true if the facts have changed.
    pub(super) fn step(&mut self) -> bool {
        self.flush_journal();
        if self.state == State::Stopped {
            return false;
        }
        if self.state == State::ShuttingDown {
            return self.step_shutdown();
        }
        if self.is_suspended() {
            if self.state != State::Suspended {
                self.set_state(Cause::Suspend, State::Suspended);
            }
            return false;
        }
        if self.state != State::Init && self.step_failing() {
            return true;
        }
        self.step_link();
        self.step_ask();
        self.step_probes();
        let moved = match self.state {
            State::Init => self.step_init(),
            State::Ready => self.step_ready(),
            State::RequestingJob => self.step_beginning(),
            State::WaitingForJob => self.step_waiting_for_job(),
            State::CreatingFile => self.step_creating(),
            State::RequestingFileBlock | State::WaitingForFileBlock => self.step_downloading(),
            State::ClosingFile => self.step_closing(),
            State::Installing => self.step_installing(),
            State::WaitingForActivation => self.step_waiting_for_activation(),
            State::WaitingForRestart => self.step_waiting_for_restart(),
            State::Testing => self.step_testing(),
            State::Committing => self.step_committing(),
            State::GoingBack => self.step_going_back(),
            State::Reporting => self.step_reporting(),
            State::Suspended | State::ShuttingDown | State::Stopped => false,
        };
        // What a step finds may end the job: the next one acts on it, or nothing would until some deadline.
        moved || (self.job.failing.is_some() && self.state != State::Init)
    }

    pub(super) fn step_link(&mut self) {
        if self.connected || self.state == State::Init {
            self.stop(Timer::Link);
        } else {
            self.arm_once(Timer::Link, Key::RetryMax);
        }
    }

    pub(super) fn step_ready(&mut self) -> bool {
        if self.job.stage == Stage::Back {
            self.set_state(Cause::ImageUnclaimed, State::GoingBack);
            return true;
        }
        if !self.connected {
            return false;
        }
        self.begun = true;
        self.relinked = false;
        self.asking.next = true;
        let device = String::from(self.settings.thing.as_str());
        self.note_text(Line::Ready, &device);
        self.set_state(Cause::Start, State::RequestingJob);
        true
    }

    pub(super) fn step_shutdown(&mut self) -> bool {
        let waits = self
            .ops
            .any(|deed| matches!(deed, Deed::Unsubscribe | Deed::Journal));
        if waits && self.runs(Timer::Shutdown) {
            return false;
        }
        self.timers = Timers::new();
        self.set_state(Cause::Unsubscribed, State::Stopped);
        true
    }

    /// What the journal must hold has changed.
    pub(super) fn touch_journal(&mut self) {
        self.journal.dirty = true;
    }
}
