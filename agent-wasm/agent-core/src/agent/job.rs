//! A job and its files as the agent holds them: what survives a restart, and what is read from the service again.
//!
//! Data and small questions only; what is done about them is in the modules named after the states.

use alloc::string::String;
use alloc::vec::Vec;

use crate::document::FileEntry;
use crate::jobs::{JobId, Status, StreamId, VersionWord};
use crate::types::{Failure, FileId, FileSpec, FileStatus, TargetState, Version};

use super::recover::{Memory, Service};
use super::table::Cause;

/// How far a job is, as the journal knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Files are fetched, verified and installed.
    Taken = 0,
    /// `self_test: ready` is acknowledged: the images may be activated.
    AwaitRestart = 1,
    /// All new images run.
    Testing = 2,
    /// The decision is to commit.
    Commit = 3,
    /// The decision is to go back.
    Back = 4,
    /// The end is to be reported.
    Report = 5,
    /// Somebody else runs the job.
    Custom = 6,
}

impl Stage {
    pub(super) const ALL: [Self; 7] = [
        Self::Taken,
        Self::AwaitRestart,
        Self::Testing,
        Self::Commit,
        Self::Back,
        Self::Report,
        Self::Custom,
    ];

    /// Whether the job can still be given up.
    pub(super) const fn is_open(self) -> bool {
        match self {
            Self::Taken | Self::AwaitRestart | Self::Testing | Self::Custom => true,
            Self::Commit | Self::Back | Self::Report => false,
        }
    }
}

/// How far a file is; the numbers are `file-status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilePhase {
    /// Nothing has been done.
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

/// How a job ends: what is reported, and the reason in numbers for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) status: Status,
    pub(super) failure: Option<Failure>,
}

/// A fact that ends an open job; acted upon by the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) cause: Cause,
    pub(super) ending: Ending,
    /// The version or state check after a restart has failed.
    pub(super) self_test: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobFile {
    pub(super) id: FileId,
    pub(super) file_type: u32,
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
    /// It may have been created in a former life: look before creating.
    pub(super) reopen: bool,
    /// Its target has been asked how it is, for this job.
    pub(super) asked: bool,
    /// Its target must be looked at before anything else.
    pub(super) look: bool,
    /// The time for its restart is over; the next look decides.
    pub(super) late: bool,
    /// The new image has run.
    pub(super) ran: bool,
    /// The start-test event was emitted.
    pub(super) announced: bool,
    /// Bytes installed, bytes to install.
    pub(super) installed: (u64, u64),
    /// Blocks held, blocks in all.
    pub(super) blocks: (u32, u32),
    /// What the job document says, once it has been read since the start.
    pub(super) entry: Option<FileEntry>,
}

impl JobFile {
    pub(super) const fn new(id: FileId, file_type: u32, firmware: bool) -> Self {
        Self {
            id,
            file_type,
            firmware,
            phase: FilePhase::ToDo,
            image: None,
            old: None,
            tries: 0,
            approved: false,
            tested: false,
            reopen: false,
            asked: false,
            look: false,
            late: false,
            ran: false,
            announced: false,
            installed: (0, 0),
            blocks: (0, 0),
            entry: None,
        }
    }

    /// Whether the file is on its target for good or for a trial, so that going back means more than throwing away.
    pub(super) fn is_marked(&self) -> bool {
        (FilePhase::Armed..=FilePhase::Committing).contains(&self.phase)
    }

    pub(super) fn status(&self) -> FileStatus {
        let (done, total) = if self.phase == FilePhase::Installing {
            self.installed
        } else {
            (self.blocks.0.into(), self.blocks.1.into())
        };
        FileStatus {
            file: self.id,
            phase: self.phase as u8,
            done,
            total,
            version: self.image,
        }
    }

    pub(super) fn spec(&self, job: &JobId, block_size: u32) -> Option<FileSpec> {
        let entry = self.entry.as_ref()?;
        let (kind, signature) = match &entry.signature {
            Some(signature) => (signature.kind.key(), signature.bytes.clone()),
            None => ("", Vec::new()),
        };
        Some(FileSpec {
            job_id: String::from(job.as_str()),
            file_id: self.id,
            size: entry.size,
            block_size,
            file_type: self.file_type,
            attributes: entry.attributes,
            path: entry.path.clone(),
            certificate: entry.certificate.clone(),
            signature_kind: String::from(kind),
            signature,
        })
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
    /// Set from the decision on.
    pub(super) ending: Option<Ending>,
    /// The service has closed it: nothing is reported any more.
    pub(super) withdrawn: bool,
    /// The version of file 0 that did the download.
    pub(super) updated_by: VersionWord,
    /// `self_test: active` is acknowledged.
    pub(super) active: bool,
    /// Starts of the agent since the first activation.
    pub(super) starts: u32,
    /// Where the blocks come from, once the document has been read since the start.
    pub(super) stream: Option<StreamId>,
    pub(super) failing: Option<Failing>,
}

impl Job {
    pub(super) fn new(id: Option<JobId>, stage: Stage, block_size: u32) -> Self {
        Self {
            id,
            stage,
            files: Vec::new(),
            block_size,
            ending: None,
            withdrawn: false,
            updated_by: VersionWord(0),
            active: false,
            starts: 0,
            stream: None,
            failing: None,
        }
    }

    pub(super) fn is(&self, id: &JobId) -> bool {
        self.id.as_ref() == Some(id)
    }

    pub(super) fn text(&self) -> &str {
        self.id.as_ref().map_or("", JobId::as_str)
    }

    /// Whether the job document has been read since the start of the agent.
    pub(super) fn is_known(&self) -> bool {
        self.files.iter().all(|file| file.entry.is_some())
    }

    pub(super) fn file(&mut self, id: FileId) -> Option<&mut JobFile> {
        self.files.iter_mut().find(|file| file.id == id)
    }

    pub(super) fn position(&self, id: FileId) -> Option<usize> {
        self.files.iter().position(|file| file.id == id)
    }

    pub(super) fn has_firmware(&self) -> bool {
        self.files.iter().any(|file| file.firmware)
    }

    /// The order of activation and of going back: the coordinator, file 0, last. The order of commit is its reverse
    /// in that file 0 comes first.
    pub(super) fn zero_last(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by_key(|at| self.files.get(*at).is_some_and(|file| file.id == 0));
        order
    }

    /// What the journal remembers about a file, for the recovery table.
    pub(super) fn memory(&self, at: usize) -> Memory {
        let phase = self
            .files
            .get(at)
            .map_or(FilePhase::ToDo, |file| file.phase);
        match self.stage {
            Stage::Taken | Stage::Custom | Stage::Report => Memory::Taken,
            Stage::AwaitRestart if phase >= FilePhase::Testing => Memory::Testing,
            Stage::AwaitRestart if phase >= FilePhase::Armed => Memory::Armed,
            Stage::AwaitRestart => Memory::Installed,
            Stage::Testing => Memory::Testing,
            Stage::Commit => Memory::Commit,
            Stage::Back => Memory::Back,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let mut job = Job::new(None, Stage::Taken, 4096);
        job.files = [0, 1, 7].map(|id| JobFile::new(id, 0, true)).to_vec();
        assert_eq!(job.zero_last(), [1, 2, 0]);
    }
}
