//! A job and its files as the agent holds them: what survives a restart, and what is read from the service again.
//!
//! Data and small questions only; what is done about them is in the modules named after what they do.

use alloc::string::String;
use alloc::vec::Vec;

use crate::jobs::{ExecutionStatus, JobId, StreamId};
use crate::types::{FileId, FileStatus, TargetState, Version};

use super::lines::Why;
use super::recover::{Memory, Service};
use super::table::Cause;

/// How far a job is. Before `Custom` the journal does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// There is none.
    Idle = 0,
    /// An update awaits a yes of the application.
    Offered = 1,
    /// No parser took it; the application is asked.
    Asked = 2,
    /// Somebody else runs the job.
    Custom = 3,
    /// Files are fetched, verified and installed.
    Taken = 4,
    /// `self_test: ready` is acknowledged: the images may be activated.
    AwaitRestart = 5,
    /// All new images run.
    Testing = 6,
    /// The decision is to commit.
    Commit = 7,
    /// The decision is to go back.
    Back = 8,
    /// The end is to be reported.
    Report = 9,
}

impl Stage {
    pub(super) const ALL: [Self; 10] = [
        Self::Idle,
        Self::Offered,
        Self::Asked,
        Self::Custom,
        Self::Taken,
        Self::AwaitRestart,
        Self::Testing,
        Self::Commit,
        Self::Back,
        Self::Report,
    ];

    /// Whether a job was taken and can still be given up.
    pub(super) fn is_open(self) -> bool {
        (Self::Custom..=Self::Testing).contains(&self)
    }
}

/// How far a file is; the numbers are `file-status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilePhase {
    /// Nothing has been done.
    #[default]
    ToDo = 0,
    /// The target prepares to receive.
    Creating = 1,
    /// Blocks come in.
    Receiving = 2,
    /// The host reads back and verifies.
    Closing = 3,
    /// Verified.
    Verified = 4,
    /// The target takes the image.
    Installing = 5,
    /// The target has the image.
    Installed = 6,
    /// Marked for the next boot.
    Armed = 7,
    /// The target restarts.
    Restarting = 8,
    /// The new image runs and is tested.
    Testing = 9,
    /// It is made permanent.
    Committing = 10,
    /// It is permanent.
    Committed = 11,
    /// It goes back.
    GoingBack = 12,
    /// It went back.
    WentBack = 13,
    /// It could be brought to neither side.
    Failed = 14,
}

impl FilePhase {
    /// Every phase in the order of the numbers.
    pub const ALL: [Self; 15] = [
        Self::ToDo,
        Self::Creating,
        Self::Receiving,
        Self::Closing,
        Self::Verified,
        Self::Installing,
        Self::Installed,
        Self::Armed,
        Self::Restarting,
        Self::Testing,
        Self::Committing,
        Self::Committed,
        Self::GoingBack,
        Self::WentBack,
        Self::Failed,
    ];
}

/// How a job ends: what is reported, and the reason for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// The status without its token, ready to be sent.
    pub(super) head: String,
    /// What the service must show once it has it.
    pub(super) word: ExecutionStatus,
    pub(super) why: Why,
    pub(super) detail: String,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            head: String::new(),
            word: ExecutionStatus::Failed,
            why: Why::default(),
            detail: String::new(),
        }
    }
}

/// One file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JobFile {
    pub(super) id: FileId,
    pub(super) file_type: u32,
    pub(super) size: u64,
    /// Activated and tested; others end with their installation.
    pub(super) firmware: bool,
    pub(super) phase: FilePhase,
    /// Version of the new image, from bytes under the signature.
    pub(super) image: Option<Version>,
    /// Version that ran before.
    pub(super) old: Option<Version>,
    /// Tries of what may be tried a few times.
    pub(super) tries: u32,
    /// The deferred activation was ordered.
    pub(super) approved: bool,
    /// The self-test passed.
    pub(super) tested: bool,
    /// The new image has run.
    pub(super) ran: bool,
    /// It may have been created in a former life: look before creating.
    pub(super) reopen: bool,
    /// Its target has been asked how it is, for this job.
    pub(super) asked: bool,
    /// Its target must be looked at before anything else.
    pub(super) look: bool,
    /// The time for its restart is over; the next look decides.
    pub(super) late: bool,
    /// The start-test event was emitted.
    pub(super) announced: bool,
    /// Bytes installed, bytes to install.
    pub(super) installed: (u64, u64),
    /// Blocks held, blocks in all.
    pub(super) blocks: (u32, u32),
}

impl JobFile {
    /// Whether the file is on its target for good or for a trial, so that going back means more than throwing away.
    pub(super) fn is_marked(&self) -> bool {
        (FilePhase::Armed..=FilePhase::Committing).contains(&self.phase)
    }

    /// Blocks held, of how many.
    pub(super) fn received(&self) -> (u64, u64) {
        (self.blocks.0.into(), self.blocks.1.into())
    }

    pub(super) fn status(&self) -> FileStatus {
        let (done, total) = if self.phase == FilePhase::Installing {
            self.installed
        } else {
            self.received()
        };
        FileStatus {
            file: self.id,
            phase: self.phase as u8,
            done,
            total,
            version: self.image,
        }
    }
}

/// One job. Without an id it stands for uncommitted images that no job claims, on their way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: Option<JobId>,
    pub(super) stage: Stage,
    /// In the order of the file ids.
    pub(super) files: Vec<JobFile>,
    /// Grid of the transfers, fixed when the job was taken.
    pub(super) block_size: u32,
    /// Set from the decision on; for a job that somebody else runs, what is told of it now.
    pub(super) ending: Option<Ending>,
    /// The service has closed it: nothing is reported any more.
    pub(super) withdrawn: bool,
    /// The version word of file 0 that did the download.
    pub(super) updated_by: u32,
    /// The service has shown it open since the new images run.
    pub(super) read_again: bool,
    /// `self_test: active` is acknowledged.
    pub(super) active: bool,
    /// Starts of the agent since the first activation.
    pub(super) starts: u32,
    /// The offer was answered: later.
    pub(super) deferred: bool,
    /// The job document, once it has been read since the start.
    pub(super) document: String,
    /// The document has been read, and has not gone stale.
    pub(super) known: bool,
    /// The URLs of the document, in the order of the files; only the one in use survives a swap.
    pub(super) urls: Vec<String>,
    /// The stream of the document, if it names one.
    pub(super) stream: Option<StreamId>,
    /// Blocks come by URL, not from the stream.
    pub(super) by_url: bool,
    /// The other way is there as well, and was not given up.
    pub(super) spare: bool,
    /// A fact that ends an open job; acted upon by the next step.
    pub(super) failing: Option<Cause>,
    /// It is the version or state check after a restart.
    pub(super) self_test: bool,
}

impl Job {
    #[inline(never)]
    pub(super) fn new(id: Option<JobId>, stage: Stage) -> Self {
        Self {
            id,
            stage,
            files: Vec::new(),
            block_size: 0,
            ending: None,
            withdrawn: false,
            updated_by: 0,
            read_again: false,
            active: false,
            starts: 0,
            deferred: false,
            document: String::new(),
            known: false,
            urls: Vec::new(),
            stream: None,
            by_url: false,
            spare: false,
            failing: None,
            self_test: false,
        }
    }

    /// Whether there is more than an offer.
    pub(super) fn is_taken(&self) -> bool {
        self.stage >= Stage::Custom
    }

    pub(super) fn is(&self, id: &str) -> bool {
        self.is_taken() && !id.is_empty() && self.text() == id
    }

    pub(super) fn text(&self) -> &str {
        self.id.as_ref().map_or("", JobId::as_str)
    }

    /// Whether the job document is missing, for the job comes from the journal or its URLs do not work any more.
    pub(super) fn needs_document(&self) -> bool {
        self.stage == Stage::Taken && !self.known
    }

    pub(super) fn file(&mut self, id: FileId) -> Option<&mut JobFile> {
        self.files.iter_mut().find(|file| file.id == id)
    }

    /// The first file that is so, in the order of the file ids.
    pub(super) fn first(&self, is: fn(&JobFile) -> bool) -> Option<FileId> {
        self.files.iter().find(|file| is(file)).map(|file| file.id)
    }

    /// The first file that could be brought to neither side.
    pub(super) fn failed(&self) -> Option<FileId> {
        self.first(|file| file.phase == FilePhase::Failed)
    }

    /// As [`Self::first`], with the coordinator, file 0, last: the order of activation and of going back.
    pub(super) fn zero_last(&self, is: fn(&JobFile) -> bool) -> Option<FileId> {
        if mutant!(GatewayFirst) {
            return self.first(is);
        }
        let mut found = None;
        for file in self.files.iter().filter(|file| is(file)) {
            if found.is_none() || found == Some(0) {
                found = Some(file.id);
            }
        }
        found
    }

    /// What the journal remembers about a file, for the recovery table.
    pub(super) fn memory(&self, phase: FilePhase) -> Memory {
        match self.stage {
            Stage::AwaitRestart if phase >= FilePhase::Testing => Memory::Testing,
            Stage::AwaitRestart if phase >= FilePhase::Armed => Memory::Armed,
            Stage::AwaitRestart => Memory::Installed,
            Stage::Testing => Memory::Testing,
            Stage::Commit => Memory::Commit,
            Stage::Back => Memory::Back,
            Stage::Idle
            | Stage::Offered
            | Stage::Asked
            | Stage::Custom
            | Stage::Taken
            | Stage::Report => Memory::Taken,
        }
    }

    pub(super) const fn service(&self) -> Service {
        if self.withdrawn {
            Service::Gone
        } else {
            Service::Unknown
        }
    }
}

/// What a target said last, asked at the start and whenever it restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) file: FileId,
    /// It has answered, or failed to.
    pub(super) asked: bool,
    /// It has restarted since.
    pub(super) stale: bool,
    pub(super) state: TargetState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_and_stages_stand_in_the_order_of_their_numbers() {
        for (at, phase) in FilePhase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, at);
        }
        for (at, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(*stage as usize, at);
        }
    }

    #[test]
    fn file_0_goes_last_and_the_others_in_their_order() {
        let mut job = Job::new(None, Stage::Taken);
        job.files = [0, 1, 7]
            .map(|id| JobFile {
                id,
                ..JobFile::default()
            })
            .to_vec();
        let mut order = Vec::new();
        while let Some(id) = job.zero_last(|file| !file.tested) {
            job.file(id).unwrap().tested = true;
            order.push(id);
        }
        assert_eq!(order, [1, 7, 0]);
        assert_eq!(job.first(|file| file.tested), Some(0));
    }
}
