//! The words of the contract: plain twins of the records in `wit/pal`, whose texts are the authority on meaning and
//! units. No carrier shows here.

use crate::Failure;

/// Bits of [`Description::capabilities`].
pub mod capability {
    /// Writes blocks into lent storage. Either this or [`STAGED`].
    pub const DIRECT: u32 = 0x01;
    /// Reads the finished file. Either this or [`DIRECT`].
    pub const STAGED: u32 = 0x02;
    /// `install` may begin before the file is complete (staged).
    pub const AHEAD: u32 = 0x04;
    /// An image that is not committed goes away by itself at the next restart.
    pub const REVERT: u32 = 0x08;
    /// Has a self-test of its own.
    pub const SELF_TEST: u32 = 0x10;
    /// `state` can tell what runs.
    pub const RUNNING_VERSION: u32 = 0x20;
}

/// Values of [`TargetState::code`].
pub mod state {
    /// Silent, or it cannot tell.
    pub const UNKNOWN: u8 = 0;
    /// A new image runs and is not committed.
    pub const PENDING_COMMIT: u8 = 1;
    /// The running image is committed.
    pub const VALID: u8 = 2;
    /// The new image was refused or went back.
    pub const INVALID: u8 = 3;
    /// The new image is marked, the old one runs.
    pub const ARMED: u8 = 4;
    /// An uncommitted image runs that is not this transfer's.
    pub const FOREIGN: u8 = 5;
}

/// Most bytes that one lent read or write moves, and most that `write-block` may be given.
pub const TRANSFER_MAX_BYTES: u32 = 128 * 1024;

/// Who a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Kebab-case, at most 64 bytes.
    pub name: String,
    /// The build's version, semver text.
    pub version: String,
    /// Kinds of target it serves.
    pub kinds: Vec<String>,
    /// Bits of [`capability`].
    pub capabilities: u32,
    /// Most bytes that one `write_block` takes, 256 to [`TRANSFER_MAX_BYTES`]; 0 for staged.
    pub largest_write: u32,
    /// Schemas that `open` reads, the one `suspend` writes first.
    pub schemas: Vec<u32>,
}

/// A firmware version; order is field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub revision: u16,
    /// Fourth number, 0 where a format has none.
    pub build: u32,
}

/// One key and its value from the target's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// snake_case.
    pub key: String,
    /// At most 4 KiB.
    pub value: String,
}

/// Saved state with the number of its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Encoding of `bytes`.
    pub schema: u32,
    /// At most 64 KiB.
    pub bytes: Vec<u8>,
}

/// What a FreeRTOS PAL finds in its file context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The device it is for, for logs.
    pub device: String,
    /// The job it belongs to, for logs.
    pub job_id: String,
    /// The target's number.
    pub file_id: u32,
    /// Bytes in all.
    pub size: u64,
    /// The grid on which blocks arrive; the last one may be shorter.
    pub block_size: u32,
    /// `fileType` of the job document.
    pub file_type: u32,
    /// `attr` of the job document.
    pub attributes: u32,
    /// `filepath` of the job document; a hint.
    pub path: String,
    /// `certfile`; a check with it may only refuse.
    pub certificate: String,
    /// Key of the signature in the job document.
    pub signature_kind: String,
    /// The job's signature; empty = none.
    pub signature: Vec<u8>,
}

/// A run of bytes in lent storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index in the list of regions.
    pub region: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What the image's own header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// `None` = the format has none.
    pub version: Option<Version>,
    /// Product or hardware it is for.
    pub product: Option<String>,
}

/// What the target says about itself now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetState {
    /// One of [`state`].
    pub code: u8,
    /// Version that runs, if it can be read.
    pub running: Option<Version>,
    /// Whether the running image is this transfer's; `None` = cannot tell or no transfer.
    pub runs_new: Option<bool>,
}

/// What a finished duty answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Nothing,
    /// `examine`.
    Info(ImageInfo),
    /// `state`.
    State(TargetState),
    /// The plugin cannot restart the target; the host must, as the operator configured.
    HostResets,
    /// For duties that later interfaces add.
    Other(Vec<u8>),
}

/// When the host should step again; the earliest of those set counts, all unset = as soon as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// When the serial line has something to read, or came or went. Name a time too.
    pub on_input: bool,
    /// When more of the staged file is held, or it has become verified.
    pub on_data: bool,
    /// After so many milliseconds, at most 60000.
    pub after_ms: Option<u32>,
}

/// A duty that goes on. The host ends one whose `done` and `total` stand still for ten minutes: where no bytes move, who waits for
/// longer counts the seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Working {
    /// So far, in bytes where bytes move.
    pub done: u64,
    /// In all, 0 = not known.
    pub total: u64,
    /// When to step again.
    pub wake: Wake,
}

/// Where a duty stands after the call that began it or after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It is over.
    Finished(Answer),
    /// Step again when it wakes.
    Working(Working),
}

impl Duty {
    /// Finished, nothing to tell. Wrapped in `Ok`, for it is usually the last line of a duty.
    ///
    /// # Errors
    /// Never.
    pub const fn done() -> Result<Self, Failure> {
        Ok(Self::Finished(Answer::Nothing))
    }

    /// Finished with an answer.
    ///
    /// # Errors
    /// Never.
    pub const fn answer(answer: Answer) -> Result<Self, Failure> {
        Ok(Self::Finished(answer))
    }

    /// Goes on: `done` of `total` so far; see [`Working`] for how long it may stand still.
    ///
    /// # Errors
    /// Never.
    pub const fn working(done: u64, total: u64, wake: Wake) -> Result<Self, Failure> {
        Ok(Self::Working(Working { done, total, wake }))
    }
}
