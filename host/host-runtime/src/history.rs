//! The jobs that a device has had, and what it waited for last: what `otad history` and `otad why` read, also when the
//! daemon is not there.
//!
//! ```text
//!  status, wait, blocks, events ─▶ Book (what is true now) ─▶ append-only file ─▶ Story (whoever asks)
//! ```
//!
//! A record is begun with its job and written again with every `NOTE_EVERY_BYTES` of blocks, with its end, and when
//! the process starts again under it; the last one of a job counts. So a kill costs no count but that of the bytes
//! since, and a power cut no ended job: an end is synced. Ends come from the agent's `job-ended` events, and one that
//! was stored there but not here is made good at the next start: of such a job no more than its end is said. What a
//! device waits for is written once the wait has lasted for `WORDS_AFTER_MS`, and at a clean stop. Nothing here decides
//! anything. Not here: what a status text or a code means; that is the reader's business.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::agent::{AgentStatus, ApplicationEvent, Context, Wait};
use crate::desk::Desk;
use crate::events::EventRing;
use crate::names::state_name;
use crate::packed::Packed;
use crate::ports::state_dir::StateDir;
use crate::ports::workers::told;
use crate::status::{WaitReport, event};
use crate::types::{Failure, FileId};

use book::{Book, Writing};

mod book;
mod file;

/// Jobs that are kept, the oldest go first: two years of a job a week.
pub const JOBS_MAX: usize = 100;

/// The file is written anew when it is longer, in bytes: four times what [`JOBS_MAX`] records of usual size take. Where
/// they take more than that, at twice their size.
const FILE_MAX_BYTES: usize = 256 * 1024;

/// One job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub job_id: String,
    /// Seconds since 1970 when it was taken, if they were known.
    pub began_s: Option<u64>,
    /// How long the device has been at it, in milliseconds of a clock that does not jump; without the time that the
    /// process did not run.
    pub took_ms: u64,
    /// Its files.
    pub files: Vec<FileRecord>,
    /// Bytes of blocks that targets took, repeats included.
    pub bytes: u64,
    /// Block messages that came.
    pub blocks_fetched: u64,
    /// Those of them that were not needed: twice, or not asked for.
    pub blocks_twice: u64,
    /// Starts of the process while it was under way.
    pub restarts: u32,
    /// Instances of the agent that broke.
    pub faults: u32,
    /// Nothing but its end is known: its record is lost, or was never written.
    #[serde(default)]
    pub only_end: bool,
    /// Its end; none = under way, or the process ended before it was known.
    pub end: Option<End>,
}

/// One file of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The target.
    pub file_id: FileId,
    /// Its name.
    pub target: String,
    /// Version that ran when the job came.
    pub from: Option<String>,
    /// Version of the image.
    pub to: Option<String>,
    /// Blocks of the image.
    pub blocks: u64,
    /// Blocks that were held.
    pub held: u64,
    /// Where it stood last, `file-status.phase` in words.
    pub phase: String,
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Number of the `job-ended` event.
    pub event: u64,
    /// Seconds since 1970, if they were known.
    pub at_s: Option<u64>,
    /// The terminal status as the service took it; none = the service withdrew the job.
    pub sent: Option<String>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What a device was about when it was last written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// The device.
    pub device: String,
    /// Seconds since 1970, if they were known.
    pub at_s: Option<u64>,
    /// The process was stopped in order right after.
    pub stopped: bool,
    /// Whether there was a connection.
    pub connected: bool,
    /// `agent-status.state` in words.
    pub state_name: String,
    /// The active job.
    pub job_id: Option<String>,
    /// What was waited for.
    pub wait: Option<WaitReport>,
    /// What went wrong last in the host's keeping.
    pub last_error: Option<String>,
}

/// All that is kept of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// Jobs, oldest first, at most [`JOBS_MAX`].
    pub jobs: Vec<JobRecord>,
    /// The last words.
    pub words: Option<Words>,
    /// Bytes that could not be read, of a file that is damaged.
    pub lost_bytes: Option<u64>,
}

/// Read what is kept of a device whose daemon does not run.
///
/// # Errors
/// What the medium says. Damage is no error: what can be read is given.
pub fn read(state: &dyn StateDir, device: &str) -> io::Result<Story> {
    let bytes = state.load(&path(device))?;
    Ok(bytes.map_or_else(Story::default, |bytes| file::decode(&bytes).0))
}

/// The devices of which something is kept, by their own names.
///
/// # Errors
/// What the medium says.
pub fn devices(state: &dyn StateDir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for file in state.list("devices/")? {
        let Some(kept) = file.strip_suffix("/history") else {
            continue;
        };
        let story = state.load(&file)?.map(|bytes| file::decode(&bytes).0);
        let told = story
            .and_then(|story| story.words)
            .map(|words| words.device);
        // Thing names of AWS are path components as they are.
        let component = kept.strip_prefix("devices/").unwrap_or(kept);
        names.push(told.unwrap_or_else(|| component.to_owned()));
    }
    Ok(names)
}

fn path(device: &str) -> String {
    state_name(device, "history")
}

/// What a device shows of itself between two turns.
pub(crate) struct Glance<'a> {
    pub(crate) status: &'a AgentStatus,
    pub(crate) wait: Option<&'a Wait>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) connected: bool,
    /// Instances of the agent that broke so far.
    pub(crate) faults: u32,
    pub(crate) last_error: Option<&'a str>,
}

/// The history of one device. Clones are the same; it can be read after its device has ended.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

struct Shared {
    book: Mutex<Book>,
    desk: Arc<Desk>,
}

impl History {
    /// Read what is kept, and make good what the event ring knows better: a job whose end is stored there has ended.
    ///
    /// # Errors
    /// What the medium says.
    pub(crate) fn load(desk: Arc<Desk>, events: &EventRing) -> io::Result<Self> {
        let mut book = Book::default();
        if let Some(bytes) = desk.state.load(&path(&desk.device))? {
            let (story, whole) = file::decode(&bytes);
            if let Some(lost) = story.lost_bytes {
                let (file, jobs) = (path(&desk.device), story.jobs.len());
                tracing::warn!(
                    device = %desk.device,
                    file,
                    "the history of jobs is damaged: {jobs} jobs can be read, {lost} bytes are lost"
                );
                // Said once: it is written anew.
                book.pending.get_or_insert_default();
            }
            book.jobs = story.jobs.into();
            book.words = story.words.as_ref().and_then(Packed::new);
            book.file_bytes = bytes.len();
            book.rewrite = !whole;
        }
        let last = book
            .jobs
            .iter()
            .filter_map(|job| Some(job.end.as_ref()?.event));
        // Numbers that have begun anew say nothing of what is older.
        let last = last
            .max()
            .filter(|last| *last <= events.last())
            .unwrap_or(0);
        for stored in events.after(last, usize::MAX) {
            book.on_event(stored.at_s, &stored.event, true);
        }
        if let Some(job) = book.jobs.back_mut().filter(|job| job.end.is_none()) {
            job.restarts = job.restarts.saturating_add(1);
            book.open = Some(job.job_id.clone());
            book.noted_bytes = job.bytes;
            book.note_open(false);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                book: Mutex::new(book),
                desk,
            }),
        })
    }

    /// Whose it is.
    pub(crate) fn device(&self) -> &str {
        &self.shared.desk.device
    }

    /// Everything, as of now.
    #[must_use]
    pub fn story(&self) -> Story {
        let book = self.lock();
        Story {
            jobs: book.jobs.iter().cloned().collect(),
            words: book.words.as_ref().and_then(Packed::open),
            lost_bytes: None,
        }
    }

    /// The status has changed. `target` gives name and running version of a file's target.
    pub(crate) fn on_status(
        &self,
        now: Context,
        status: &AgentStatus,
        target: impl Fn(FileId) -> Option<(String, Option<String>)>,
    ) {
        self.lock().on_status(now, status, target);
    }

    /// A target took a block.
    pub(crate) fn on_block(&self, bytes: usize) {
        self.lock().on_block(bytes as u64);
    }

    /// The agent told the application something.
    pub(crate) fn on_event(&self, at_s: Option<u64>, event: &ApplicationEvent) {
        if event.kind == event::JOB_ENDED {
            self.lock().on_event(at_s, event, false);
        }
    }

    /// Look at the wait; returns when to look again.
    pub(crate) fn look(&self, now: Context, glance: &Glance<'_>) -> Option<u64> {
        self.lock().look(now, &self.shared.desk.device, glance)
    }

    /// The process stops: write down what the device is about.
    pub(crate) fn last_words(&self, now: Context, glance: &Glance<'_>) {
        let mut book = self.lock();
        book.time(now.now_ms);
        book.note_open(true);
        book.speak(now, &self.shared.desk.device, glance, true);
    }

    /// Move the writing on; returns when to be called again.
    pub(crate) fn poll(&self, now_ms: u64) -> Option<u64> {
        let mut book = self.lock();
        if let Some(end) = book.end.take() {
            book.on_written(end, now_ms, &self.shared.desk.device);
        }
        if book.writing.is_some() || !book.has_work() {
            return None;
        }
        if let Some(at) = book.retry_at_ms.filter(|at| *at > now_ms) {
            return Some(at);
        }
        book.retry_at_ms = None;
        let pending = book.pending.take();
        let length = pending.as_ref().map_or(0, |pending| pending.bytes.len());
        let long = FILE_MAX_BYTES.max(2 * book.whole_bytes);
        let anew = book.rewrite || book.file_bytes == 0 || book.file_bytes + length > long;
        let (bytes, sync) = if anew {
            let whole = book.whole();
            book.whole_bytes = whole.len();
            (whole, true)
        } else {
            pending.map_or_else(Default::default, |pending| (pending.bytes, pending.sync))
        };
        let before = if anew { 0 } else { book.file_bytes };
        book.writing = Some(Writing {
            file_bytes: before + bytes.len(),
        });
        // Until it has worked: it may leave half a record.
        book.rewrite = true;
        drop(book);
        self.begin_write(bytes, anew, sync);
        None
    }

    fn begin_write(&self, bytes: Vec<u8>, anew: bool, sync: bool) {
        let (writer, shared) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let lost = Err(io::Error::other("the worker that wrote it has died"));
        let write = move || {
            let desk = &writer.desk;
            let path = path(&desk.device);
            if anew {
                desk.state.store(&path, &bytes)
            } else {
                desk.state.append(&path, &bytes, sync)
            }
        };
        self.shared.desk.workers.run(told(lost, write, move |end| {
            shared.lock().end = Some(end);
            (shared.desk.wake)();
        }));
    }

    /// Whether nothing is to be stored. A medium that fails is not waited for.
    pub(crate) fn is_quiet(&self) -> bool {
        let book = self.lock();
        book.writing.is_none() && (!book.has_work() || book.retry_at_ms.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
