//! What is true of a device's jobs now, and which records of it are still to be written.

use std::collections::VecDeque;
use std::io;

use crate::agent::text::clean;
use crate::agent::{AgentStatus, ApplicationEvent, Context};
use crate::packed::Packed;
use crate::status::{STATE_NAMES, STATE_STOPPED, WaitReport, event, name};
use crate::types::FileId;

use super::{End, FileRecord, Glance, JOBS_MAX, JobRecord, Words, file};

/// A record is written again after so many bytes of blocks. Some 600 bytes in a mebibyte are 0.06 %.
pub(super) const NOTE_EVERY_BYTES: u64 = 1024 * 1024;

/// A wait that has lasted so long is written down, in milliseconds. Usual waits are over by then, so that an idle device
/// writes nothing.
pub(super) const WORDS_AFTER_MS: u64 = 30 * 1000;

/// Time between two tries to write to a medium that failed, in milliseconds.
pub(super) const RETRY_MS: u64 = 5000;

/// Files of a job that are kept; the contract's limit.
pub(super) const FILES_MAX: usize = 16;

/// Most bytes of a terminal status that are kept. Those of the C agent have some 150.
pub(super) const SENT_MAX_BYTES: usize = 2048;

/// `file-status.phase` up to which `done` and `total` count blocks.
pub(super) const PHASE_VERIFIED: u8 = 4;

/// A write under way.
pub(super) struct Writing {
    /// Length of the file when it has worked.
    pub(super) file_bytes: usize,
}

/// What is to be written.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    pub(super) sync: bool,
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) jobs: VecDeque<JobRecord>,
    /// Looked at when somebody asks, and when the file is written anew.
    pub(super) words: Option<Packed<Words>>,
    /// Id of the job that is under way.
    pub(super) open: Option<String>,
    /// Bytes of the open job that its last note knows.
    pub(super) noted_bytes: u64,
    /// `received` of the last status: a smaller one is another count.
    pub(super) received: u64,
    /// Faults that the open job knows.
    pub(super) faults: u32,
    /// When `took_ms` was brought up to date.
    pub(super) timed_ms: Option<u64>,
    /// The wait that may be worth a note, and since when it is there.
    pub(super) candidate: Option<(Key, u64)>,
    /// What the last words were about.
    pub(super) told: Option<Key>,
    pub(super) pending: Option<Box<Pending>>,
    pub(super) writing: Option<Writing>,
    pub(super) end: Option<io::Result<()>>,
    pub(super) file_bytes: usize,
    /// Length of the file when it was last written anew.
    pub(super) whole_bytes: usize,
    /// The file may end in a torn record: write it anew.
    pub(super) rewrite: bool,
    pub(super) retry_at_ms: Option<u64>,
}

/// What makes one wait another: state, reason, main and sub of the last error.
type Key = (u8, u32, u8, u32);

impl Book {
    pub(super) fn on_status(
        &mut self,
        now: Context,
        status: &AgentStatus,
        target: impl Fn(FileId) -> Option<(String, Option<String>)>,
    ) {
        self.time(now.now_ms);
        let new = status
            .job_id
            .as_ref()
            .filter(|job_id| self.open.as_ref() != Some(job_id));
        if let Some(job_id) = new {
            self.begin(now, job_id);
        }
        // A count that has become smaller began anew: with another file, or with another instance.
        let came = match status.received.checked_sub(self.received) {
            Some(more) => more,
            None => status.received,
        };
        self.received = status.received;
        if status.job_id.is_none() {
            return;
        }
        let Some(job) = self.open_job() else { return };
        job.blocks_fetched = job.blocks_fetched.saturating_add(came);
        for file in status.files.iter().take(FILES_MAX) {
            let at = job
                .files
                .iter()
                .position(|known| known.file_id == file.file);
            let known = match at {
                Some(at) => &mut job.files[at],
                None => {
                    job.files.push(FileRecord {
                        file_id: file.file,
                        ..FileRecord::default()
                    });
                    let last = job.files.len() - 1;
                    &mut job.files[last]
                }
            };
            if known.from.is_none()
                && file.phase <= PHASE_VERIFIED
                && let Some((name, running)) = target(file.file)
            {
                known.target = name;
                known.from = running;
            }
            if let Some(version) = &file.version {
                known.to = Some(version.to_string());
            }
            if file.phase <= PHASE_VERIFIED {
                known.blocks = known.blocks.max(file.total);
                known.held = known.held.max(file.done);
            }
            name(&crate::status::PHASE_NAMES, file.phase.into()).clone_into(&mut known.phase);
        }
        job.count_repeats();
        if new.is_some() {
            self.note_open(true);
        }
    }

    fn begin(&mut self, now: Context, job_id: &str) {
        // A job that was under way without an end keeps none: what became of it is not known here.
        self.open = Some(job_id.to_owned());
        self.noted_bytes = 0;
        self.timed_ms = Some(now.now_ms);
        self.push(JobRecord {
            job_id: job_id.to_owned(),
            began_s: now.wall_s,
            ..JobRecord::default()
        });
    }

    fn push(&mut self, job: JobRecord) {
        self.jobs.push_back(job);
        if self.jobs.len() > JOBS_MAX {
            self.jobs.pop_front();
        }
    }

    pub(super) fn on_block(&mut self, bytes: u64) {
        let noted = self.noted_bytes;
        let Some(job) = self.open_job() else { return };
        job.bytes = job.bytes.saturating_add(bytes);
        if job.bytes >= noted.saturating_add(NOTE_EVERY_BYTES) {
            self.noted_bytes = job.bytes;
            self.note_open(false);
        }
    }

    /// `later` = it was not there when it happened.
    pub(super) fn on_event(&mut self, at_s: Option<u64>, event: &ApplicationEvent, later: bool) {
        let Some(job_id) = event
            .job_id
            .as_ref()
            .filter(|_| event.kind == event::JOB_ENDED)
        else {
            return;
        };
        let known = |job: &JobRecord| {
            let end = job.end.as_ref().map(|end| end.event);
            job.job_id == *job_id && end == Some(event.sequence)
        };
        if self.jobs.iter().any(known) {
            return;
        }
        let is_it = |job: &&mut JobRecord| job.job_id == *job_id && job.end.is_none();
        if self.jobs.iter_mut().rev().find(is_it).is_none() {
            // Refused before it was taken, or its record is lost.
            self.push(JobRecord {
                job_id: job_id.clone(),
                began_s: at_s.filter(|_| !later),
                only_end: later,
                ..JobRecord::default()
            });
        }
        let Some(job) = self.jobs.iter_mut().rev().find(is_it) else {
            return;
        };
        let sent = String::from_utf8_lossy(&event.document);
        job.end = Some(End {
            event: event.sequence,
            at_s,
            sent: Some(clean(&sent, SENT_MAX_BYTES)).filter(|sent| !sent.is_empty()),
            failure: event.failure.clone(),
        });
        if let Some(version) = event.version
            && let Some(file) = job.files.first_mut()
        {
            file.to = Some(version.to_string());
        }
        job.count_repeats();
        let record = job.clone();
        if self.open.as_ref() == Some(job_id) {
            self.open = None;
        }
        self.append(&file::Entry::Job(record), true);
    }

    pub(super) fn look(&mut self, now: Context, device: &str, glance: &Glance<'_>) -> Option<u64> {
        let faults = glance.faults.saturating_sub(self.faults);
        self.faults = glance.faults;
        if faults > 0
            && let Some(job) = self.open_job()
        {
            job.faults = job.faults.saturating_add(faults);
        }
        // An agent that has said nothing, or nothing more, is no news; why it is so stands in the log.
        if glance.wait.is_none() || glance.status.state == STATE_STOPPED {
            return None;
        }
        let key = key(glance);
        if self.told == Some(key) {
            self.candidate = None;
            return None;
        }
        let since = match self.candidate {
            Some((known, since)) if known == key => since,
            Some(_) | None => now.now_ms,
        };
        self.candidate = Some((key, since));
        let at = since.saturating_add(WORDS_AFTER_MS);
        if at > now.now_ms {
            return Some(at);
        }
        self.speak(now, device, glance, false);
        None
    }

    pub(super) fn speak(&mut self, now: Context, device: &str, glance: &Glance<'_>, stopped: bool) {
        let words = Words {
            device: device.to_owned(),
            at_s: now.wall_s,
            stopped,
            connected: glance.connected,
            state_name: name(&STATE_NAMES, glance.status.state.into()).to_owned(),
            job_id: glance.status.job_id.clone(),
            wait: glance
                .wait
                .map(|wait| WaitReport::new(wait, glance.deadline_ms, now.now_ms)),
            last_error: glance.last_error.map(str::to_owned),
        };
        self.told = Some(key(glance));
        self.candidate = None;
        self.words = Packed::new(&words);
        self.append(&file::Entry::Words(words), stopped);
    }

    /// Bring the time that the open job has taken up to date.
    pub(super) fn time(&mut self, now_ms: u64) {
        let since = self.timed_ms.replace(now_ms).unwrap_or(now_ms);
        if let Some(job) = self.open_job() {
            job.took_ms = job.took_ms.saturating_add(now_ms.saturating_sub(since));
        }
    }

    fn open_job(&mut self) -> Option<&mut JobRecord> {
        let open = self.open.as_ref()?;
        self.jobs.iter_mut().rev().find(|job| job.job_id == *open)
    }

    /// Write the open job down as it is.
    pub(super) fn note_open(&mut self, sync: bool) {
        if let Some(job) = self.open_job() {
            let record = job.clone();
            self.append(&file::Entry::Job(record), sync);
        }
    }

    fn append(&mut self, entry: &file::Entry, sync: bool) {
        let pending = self.pending.get_or_insert_default();
        pending.sync |= sync;
        // While the medium fails the file is to be written anew at any rate: nothing need wait here.
        if self.retry_at_ms.is_none() {
            file::encode(entry, &mut pending.bytes);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.pending.is_some()
    }

    /// The whole file.
    pub(super) fn whole(&self) -> Vec<u8> {
        let mut bytes = file::MAGIC.to_vec();
        for job in &self.jobs {
            file::encode(&file::Entry::Job(job.clone()), &mut bytes);
        }
        if let Some(words) = self.words.as_ref().and_then(Packed::open) {
            file::encode(&file::Entry::Words(words), &mut bytes);
        }
        bytes
    }

    pub(super) fn on_written(&mut self, end: io::Result<()>, now_ms: u64, device: &str) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        match end {
            Ok(()) => {
                self.rewrite = false;
                self.file_bytes = writing.file_bytes;
            }
            Err(e) => {
                tracing::warn!(
                    device,
                    "the history of jobs is not stored: {e}; trying again"
                );
                self.retry_at_ms = Some(now_ms.saturating_add(RETRY_MS));
                self.pending.get_or_insert_with(|| {
                    Box::new(Pending {
                        bytes: Vec::new(),
                        sync: true,
                    })
                });
            }
        }
    }
}

impl JobRecord {
    /// Blocks that came and were not needed. What is held came once at least, also where the count was lost in a kill.
    fn count_repeats(&mut self) {
        let held = self
            .files
            .iter()
            .fold(0_u64, |sum, file| sum.saturating_add(file.held));
        self.blocks_fetched = self.blocks_fetched.max(held);
        self.blocks_twice = self.blocks_fetched - held;
    }
}

fn key(glance: &Glance<'_>) -> Key {
    let wait = glance.wait;
    let error = wait.and_then(|wait| wait.last_error.as_ref());
    (
        glance.status.state,
        wait.map_or(0, |wait| wait.reason),
        error.map_or(0, |error| error.main),
        error.map_or(0, |error| error.sub),
    )
}
