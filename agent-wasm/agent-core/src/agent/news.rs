//! The journal's flow, and the application events that wait for it.
//!
//! At most one store is under way. An event is emitted once a journal that names it is durable, and numbered when it
//! is emitted; the host ignores a number that it has. What the journal holds is in `saved.rs`.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::code::JobEvent;
use crate::settings::Key;
use crate::types::{ApplicationEvent, FileId, Order, Version};

use super::job::{FilePhase, JobFile, Stage};
use super::lines::{Line, Why};
use super::ops::Deed;
use super::timer::Timer;
use super::{Agent, take_first};

/// Most events that wait for the journal. More can only gather while it cannot be stored; then the oldest are dropped.
const PENDING_MAX: usize = 32;

/// Whether the journal says what it must.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// What it must hold has changed since the last store began.
    pub(super) dirty: bool,
    pub(super) storing: bool,
    pub(super) tries: u32,
}

/// Application events that are not yet emitted.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    /// Number of the last event that was emitted.
    pub(super) last: u64,
    /// Waiting, oldest first; their numbers follow `last`.
    pub(super) pending: Vec<ApplicationEvent>,
    /// How many of these the store under way holds.
    pub(super) storing: u32,
    /// The application has been told that there is no job, and nothing has happened since.
    pub(super) idle_told: bool,
}

impl News {
    /// Goes on behind what the host has stored: events of the journal that it has are dropped. A host that has lost events
    /// gets none of their numbers again, as long as there is the journal.
    pub(super) fn go_on_after(&mut self, last_event: u64) {
        while self.last < last_event {
            self.last = self.take().map_or(last_event, |_| self.last + 1);
        }
    }

    /// Takes the oldest.
    fn take(&mut self) -> Option<ApplicationEvent> {
        take_first(&mut self.pending)
    }
}

impl Agent {
    /// Whether everything that must be durable is. A decision that is being carried out is, whatever comes after it.
    pub(super) fn is_durable(&self) -> bool {
        let begun = |file: &JobFile| file.firmware && file.phase >= FilePhase::Committing;
        let decided = self.job.stage == Stage::Commit && self.job.first(begun).is_some();
        (!self.journal.dirty && !self.journal.storing) || (decided && self.has_no_journal())
    }

    /// Whether the journal could not be stored for too long.
    pub(super) fn has_no_journal(&self) -> bool {
        self.journal.tries >= self.number32(Key::UpdateAttempts)
    }

    /// News about the job as a whole, to be filled with more.
    pub(super) fn tell(&mut self, kind: JobEvent) -> Option<&mut ApplicationEvent> {
        if self.news.pending.len() >= PENDING_MAX {
            self.news.take();
            self.news.storing = self.news.storing.saturating_sub(1);
        }
        self.news.idle_told = false;
        self.journal.dirty = true;
        self.news.pending.push(ApplicationEvent {
            kind: kind.code(),
            job_id: self.job.id.as_ref().map(|id| String::from(id.as_str())),
            ..ApplicationEvent::default()
        });
        self.news.pending.last_mut()
    }

    /// News about a file.
    pub(super) fn tell_file(&mut self, kind: JobEvent, file: FileId, version: Option<Version>) {
        if let Some(event) = self.tell(kind) {
            event.file = Some(file);
            event.version = version;
        }
    }

    /// News that something failed.
    pub(super) fn tell_failure(&mut self, kind: JobEvent, why: Why) {
        let failure = self.failure_of(why);
        if let Some(event) = self.tell(kind) {
            event.failure = Some(failure);
        }
    }

    /// News with the document of the job.
    pub(super) fn tell_document(&mut self, kind: JobEvent) {
        let document = Vec::from(self.job.document.as_bytes());
        if let Some(event) = self.tell(kind) {
            event.document = document;
        }
    }

    /// Stores the journal if it is behind; works in every state, for it is neither request nor status nor write.
    pub(super) fn flush_journal(&mut self) {
        if !self.journal.dirty || self.journal.storing || self.runs(Timer::Journal) {
            return;
        }
        self.journal.dirty = false;
        if mutant!(JournalLost) {
            self.news.storing = self.news.pending.len() as u32;
            self.emit_stored();
            return;
        }
        self.journal.storing = true;
        self.news.storing = self.news.pending.len() as u32;
        let journal = self.save(self.now, false);
        self.order(Order::JournalStore(journal), Deed::Journal, 0, 0);
    }

    pub(super) fn on_journal_stored(&mut self, why: Why) {
        self.journal.storing = false;
        if !why.is_some() {
            self.journal.tries = 0;
            self.emit_stored();
            return;
        }
        self.journal.dirty = true;
        self.journal.tries = self.journal.tries.saturating_add(1);
        self.arm_back_off(Timer::Journal, self.journal.tries);
        self.note_why(Line::JournalFailed, why);
        if self.has_no_journal() {
            self.fail_with_numbers(why);
        }
    }

    fn emit_stored(&mut self) {
        for _ in 0..mem::take(&mut self.news.storing) {
            let Some(mut event) = self.news.take() else {
                return;
            };
            self.news.last = self.news.last.saturating_add(1);
            event.sequence = self.news.last;
            self.note_number(Line::Emitted, event.kind);
            self.order_once(Order::Emit(event));
        }
    }

    /// Nothing to do: told once until something happens, or when somebody asked.
    pub(super) fn tell_no_job(&mut self) {
        if !self.news.idle_told {
            self.note(Line::NoJob);
            self.tell(JobEvent::NoActiveJob);
            self.news.idle_told = true;
        }
    }
}
