//! Journal and snapshot: one encoding. The journal is the same in the schemas 1 and 2; a snapshot, which has what several
//! requests in flight and URLs need, is always of schema 2.
//!
//! The journal is what must survive a power cut: phases, counters, the remaining time of long deadlines, events that
//! are not emitted yet. The snapshot begins with it and adds all the rest, so that nothing need be asked again.
//! Durations, never instants: the clock of the next instance begins anywhere. The fields are in `fields.rs`.

use alloc::string::String;

use crate::code::{HostErr, State};
use crate::settings::Key;
use crate::text::push_decimal;
use crate::types::{Blob, Failure, InstantMs, Token};

use super::Agent;
use super::codec::Codec;
use super::job::{FilePhase, JobFile, Stage};
use super::ops::{Deed, Pending};
use super::request::Held;
use super::timer::{NEVER, Timer};

/// A start from the journal costs a durable deadline this share of what is left, so that no row of restarts, however
/// long, puts it off for ever: some 4000 starts end a deferral of a week. That is 39 minutes at first; the journal is
/// stored with each hourly reminder, so half an hour is lost on average.
const START_SHARE: u64 = 256;

/// Most bytes of a journal.
pub const JOURNAL_MAX_BYTES: usize = 64 * 1024;

pub(super) fn unknown_schema(schema: u32) -> Failure {
    let mut detail = String::from("this build does not know schema ");
    push_decimal(&mut detail, schema.into());
    Failure::new(HostErr::Schema.code() as u8, schema, &detail)
}

impl Agent {
    /// The journal, or with `all` the snapshot. Changes nothing.
    pub(super) fn save(&mut self, now: InstantMs, all: bool) -> Blob {
        // While suspended, time stands still.
        let base = if self.is_suspended() {
            self.suspended_since
        } else {
            now
        };
        let mut codec = Codec::writer(base);
        self.visit_journal(&mut codec);
        if all {
            self.visit_volatile(&mut codec);
        }
        Blob {
            schema: if all { super::SCHEMAS[0] } else { self.schema },
            bytes: codec.into_bytes(),
        }
    }

    pub(super) fn load_journal(&mut self, blob: &Blob) -> Result<(), Failure> {
        if blob.bytes.is_empty() {
            return Ok(());
        }
        self.load(blob, false)?;
        self.go_on_from_journal();
        Ok(())
    }

    pub(super) fn load_snapshot(&mut self, blob: &Blob, live: &[Token]) -> Result<(), Failure> {
        self.load(blob, true)?;
        // What is not under way any more is lost.
        let mut at = 0;
        while let Some(pending) = self.ops.list.get(at).copied() {
            if pending.token != 0 && live.contains(&pending.token) {
                at += 1;
            } else {
                self.ops.take_at(at);
                self.on_lost(pending);
            }
        }
        Ok(())
    }

    fn load(&mut self, blob: &Blob, all: bool) -> Result<(), Failure> {
        let known = super::SCHEMAS.contains(&blob.schema);
        if !known || (all && blob.schema != super::SCHEMAS[0]) {
            return Err(unknown_schema(blob.schema));
        }
        let mut codec = Codec::reader(&blob.bytes, self.now);
        self.visit_journal(&mut codec);
        if all {
            self.visit_volatile(&mut codec);
        }
        if codec.is_complete() && self.makes_sense(all) {
            return Ok(());
        }
        let code = HostErr::Schema.code() as u8;
        Err(Failure::new(
            code,
            blob.schema,
            "the saved state is damaged",
        ))
    }

    /// A state that needs something it does not have would be a saved state of nothing.
    fn makes_sense(&self, all: bool) -> bool {
        let stage = self.job.stage;
        let ends = matches!(stage, Stage::Report | Stage::Commit | Stage::Custom)
            || (stage == Stage::Back && self.job.id.is_some())
            || self.job.failing.is_some();
        let at_its_end = matches!(
            self.state,
            State::Committing | State::GoingBack | State::Reporting
        );
        let undecided = at_its_end && self.natural_state() != self.state;
        let file = |file: &JobFile| file.size > 0 || stage != Stage::Taken;
        if (ends && self.job.ending.is_none()) || undecided || !self.job.files.iter().all(file) {
            return false;
        }
        let downloads = matches!(
            self.state,
            State::RequestingFileBlock | State::WaitingForFileBlock
        );
        let works = self.state.code() >= State::CreatingFile.code()
            && !matches!(
                self.state,
                State::Suspended | State::ShuttingDown | State::Stopped
            );
        !all || ((!works || self.job.is_taken()) && (!downloads || self.transfer.is_some()))
    }

    /// Looks have to be taken, and what the host process held in its hands is gone.
    fn go_on_from_journal(&mut self) {
        self.journal.dirty = !self.news.pending.is_empty();
        self.asking.next = true;
        let stage = self.job.stage;
        for file in &mut self.job.files {
            let may_activate = matches!(stage, Stage::AwaitRestart | Stage::Commit);
            let bringing =
                stage == Stage::Taken || (may_activate && file.phase <= FilePhase::Installed);
            if bringing {
                file.phase = FilePhase::ToDo;
                file.reopen = true;
                file.asked = stage != Stage::Taken;
            }
            if stage == Stage::Commit && file.phase == FilePhase::Testing {
                // The decision was read from the medium: it needs no other one to be carried out.
                file.phase = FilePhase::Committing;
            }
            file.look = stage == Stage::Back && file.phase == FilePhase::GoingBack;
        }
        // Only durable deadlines run now. What has passed since they were stored nobody knows.
        for slot in self.timers.slots.iter_mut().filter(|slot| **slot != NEVER) {
            let left = slot.saturating_sub(self.now);
            *slot = slot.saturating_sub(left / START_SHARE + 1);
        }
        if stage == Stage::Testing && !self.runs(Timer::Test) {
            self.begin_test();
        }
        if stage == Stage::Custom {
            self.arm_once(Timer::Custom, Key::CustomJobDeadline);
        }
    }

    /// An operation that nobody knows the end of: look, and do it again.
    fn on_lost(&mut self, pending: Pending) {
        let Pending {
            deed,
            file: id,
            index,
            ..
        } = pending;
        match deed {
            Deed::Subscribe => {
                if let Some(held) = self.subscriptions.held.get_mut(index as usize) {
                    *held = Held::Wanted;
                }
            }
            Deed::Write => self.lose_write(id, index),
            Deed::Range => self.request_failed(index),
            Deed::Journal => {
                self.journal.storing = false;
                self.journal.dirty = true;
            }
            Deed::Create | Deed::Reopen => {
                if let Some(file) = self.file(id) {
                    file.reopen = true;
                    file.phase = FilePhase::ToDo;
                }
            }
            Deed::Activate | Deed::Reset | Deed::Commit | Deed::Reject | Deed::Abort => {
                if let Some(file) = self.file(id) {
                    file.look = true;
                }
            }
            // Ordered again as they are; and what is published is waited for by a timer anyway.
            Deed::Unsubscribe
            | Deed::Ask
            | Deed::Status
            | Deed::Progress
            | Deed::Blocks
            | Deed::Close
            | Deed::Install
            | Deed::SelfTest
            | Deed::State => {}
        }
    }
}
