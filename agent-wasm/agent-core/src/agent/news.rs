//! The journal's flow, and the application events that wait for it.
//!
//! At most one store is under way. An event is emitted once a journal that names it is durable, and numbered when it
//! is emitted; the host ignores a number that it has. What the journal holds is in `saved.rs`.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::code::{JobEvent, State};
use crate::settings::Key;
use crate::types::{ApplicationEvent, Failure, FileId, Level, Order, Version};

use super::Agent;
use super::ops::Doing;
use super::timer::Timer;

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
    pub(super) storing: usize,
    /// The application has been told that there is no job, and nothing has happened since.
    pub(super) idle_told: bool,
}

impl News {
    /// Goes on behind what the host has stored: events of the journal that it has are dropped.
    pub(super) fn go_on_after(&mut self, last_event: u64) {
        let known = usize::try_from(last_event.saturating_sub(self.last)).unwrap_or(usize::MAX);
        self.pending.drain(..known.min(self.pending.len()));
        self.last = last_event;
        self.storing = 0;
    }
}

impl Agent {
    /// Whether everything that must be durable is.
    pub(super) fn is_durable(&self) -> bool {
        !self.journal.dirty && !self.journal.storing
    }

    pub(super) fn tell(
        &mut self,
        kind: JobEvent,
        file: Option<FileId>,
        failure: Option<Failure>,
        version: Option<Version>,
        document: Vec<u8>,
    ) {
        if self.news.pending.len() >= PENDING_MAX {
            self.news.pending.remove(0);
            self.news.storing = self.news.storing.saturating_sub(1);
        }
        let job_id = self.job_ref().and_then(|job| job.id.as_ref());
        let job_id = job_id.or(self.offered.as_ref().map(|offered| &offered.id));
        self.news.pending.push(ApplicationEvent {
            sequence: 0,
            kind: kind.code(),
            job_id: job_id.map(|id| String::from(id.as_str())),
            file,
            failure,
            version,
            document,
        });
        self.news.idle_told = false;
        self.touch_journal();
    }

    /// Stores the journal if it is behind; works in every state, for it is neither request nor status nor write.
    pub(super) fn flush_journal(&mut self) {
        if !self.journal.dirty || self.journal.storing || self.timers.runs(Timer::Journal) {
            return;
        }
        self.journal.dirty = false;
        self.journal.storing = true;
        self.news.storing = self.news.pending.len();
        let journal = self.save_journal();
        self.order(Order::JournalStore(journal), Doing::Journal);
    }

    pub(super) fn on_journal_stored(&mut self, result: Result<(), Failure>) {
        self.journal.storing = false;
        match result {
            Ok(()) => {
                self.journal.tries = 0;
                self.emit_stored();
            }
            Err(failure) => {
                self.journal.dirty = true;
                self.journal.tries = self.journal.tries.saturating_add(1);
                let at = self.now + self.back_off(self.journal.tries);
                self.timers.set(Timer::Journal, at);
                self.log(Level::Warn, &["journal not stored: ", &failure.detail]);
                self.view.last_error = Some(failure.clone());
                if self.journal.tries >= self.settings.number32(Key::UpdateAttempts) {
                    self.fail_with_numbers(failure);
                }
            }
        }
    }

    fn emit_stored(&mut self) {
        let stored = mem::take(&mut self.news.storing).min(self.news.pending.len());
        let events: Vec<ApplicationEvent> = self.news.pending.drain(..stored).collect();
        for mut event in events {
            self.news.last += 1;
            event.sequence = self.news.last;
            let name = JobEvent::from_code(event.kind).map_or("", JobEvent::name);
            self.log(Level::Info, &["event ", name]);
            self.order_once(Order::Emit(event));
        }
    }

    /// Nothing to do: told once until something happens, or when somebody asked.
    pub(super) fn tell_no_job(&mut self) {
        if self.news.idle_told || self.state == State::Suspended {
            return;
        }
        self.tell(JobEvent::NoActiveJob, None, None, None, Vec::new());
        self.news.idle_told = true;
    }
}
