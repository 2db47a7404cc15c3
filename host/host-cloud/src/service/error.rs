//! Two kinds of refusal: what a device reads on a `rejected` topic, and what an operator reads on a terminal.
//!
//! The codes of the wire are AWS's words. The operator's codes are ours, append-only.

use super::{
    name::{GroupName, JobId, NameError, StreamId, ThingName},
    update::Protocol,
};

/// Code of a rejected Jobs request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectCode {
    /// The topic names no request.
    InvalidTopic,
    /// Not UTF-8 JSON.
    InvalidJson,
    /// A member is missing, of the wrong type or out of range.
    InvalidRequest,
    /// The status may not follow the present one.
    InvalidStateTransition,
    /// No such execution.
    ResourceNotFound,
    /// `expectedVersion` is not the version.
    VersionMismatch,
    /// The service cannot do it now.
    InternalError,
    /// Too many requests.
    RequestThrottled,
    /// The execution has ended and is not described any more.
    TerminalStateReached,
}

impl RejectCode {
    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidTopic => "InvalidTopic",
            Self::InvalidJson => "InvalidJson",
            Self::InvalidRequest => "InvalidRequest",
            Self::InvalidStateTransition => "InvalidStateTransition",
            Self::ResourceNotFound => "ResourceNotFound",
            Self::VersionMismatch => "VersionMismatch",
            Self::InternalError => "InternalError",
            Self::RequestThrottled => "RequestThrottled",
            Self::TerminalStateReached => "TerminalStateReached",
        }
    }
}

/// Code of a rejected stream request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCode {
    /// The topic names no request.
    InvalidTopic,
    /// Not the JSON object it should be.
    InvalidJson,
    /// Not the CBOR map it should be.
    InvalidCbor,
    /// A member is missing or out of range, or nothing is there to send.
    InvalidRequest,
    /// The store may not read the file.
    Unauthorized,
    /// `l` out of range.
    BlockSizeOutOfBounds,
    /// `o` out of range.
    OffsetOutOfBounds,
    /// `n` out of range.
    BlockCountLimitExceeded,
    /// `b` too long.
    BlockBitmapLimitExceeded,
    /// No such stream or file.
    ResourceNotFound,
    /// `s` is not the stream's version.
    VersionMismatch,
    /// The file is not what it was.
    ETagMismatch,
    /// The service cannot do it now.
    InternalError,
}

impl StreamCode {
    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidTopic => "InvalidTopic",
            Self::InvalidJson => "InvalidJson",
            Self::InvalidCbor => "InvalidCbor",
            Self::InvalidRequest => "InvalidRequest",
            Self::Unauthorized => "Unauthorized",
            Self::BlockSizeOutOfBounds => "BlockSizeOutOfBounds",
            Self::OffsetOutOfBounds => "OffsetOutOfBounds",
            Self::BlockCountLimitExceeded => "BlockCountLimitExceeded",
            Self::BlockBitmapLimitExceeded => "BlockBitmapLimitExceeded",
            Self::ResourceNotFound => "ResourceNotFound",
            Self::VersionMismatch => "VersionMismatch",
            Self::ETagMismatch => "ETagMismatch",
            Self::InternalError => "InternalError",
        }
    }
}

/// Why an operator's call was refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// A name breaks its rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The thing is registered already.
    #[error("thing {0} exists already")]
    ThingExists(ThingName),
    /// Not one of ours.
    #[error("no thing is called {0}; `otad thing create {0}` registers one")]
    UnknownThing(ThingName),
    /// Not one of ours.
    #[error("no job is called {0}; `otad update list` shows all")]
    UnknownJob(JobId),
    /// The id is taken.
    #[error("job id {0} is in use; choose another or leave it out")]
    JobExists(JobId),
    /// The id is taken.
    #[error("stream id {0} is in use; choose another or leave it out")]
    StreamExists(StreamId),
    /// The job ended before.
    #[error("job {job} is {status} already")]
    JobEnded {
        /// Which.
        job: JobId,
        /// Its status on the wire.
        status: &'static str,
    },
    /// The name is taken.
    #[error("group {0} exists already")]
    GroupExists(GroupName),
    /// Not one of ours.
    #[error("no group is called {0}; `otad group create {0}` makes one")]
    UnknownGroup(GroupName),
    /// A snapshot of nobody.
    #[error(
        "group {0} has no members; add things with `otad group add {0} THING`, or make the job continuous"
    )]
    GroupEmpty(GroupName),
    /// A group given twice.
    #[error("group {0} is given twice")]
    GroupTwice(GroupName),
    /// Not one of ours.
    #[error("no stream is called {0}")]
    UnknownStream(StreamId),
    /// Devices still need it.
    #[error("job {0} has not ended; cancel it first, or use --force")]
    JobRunning(JobId),
    /// Devices still need it.
    #[error(
        "stream {stream} belongs to job {job}, which has not ended; cancel that first, or use --force"
    )]
    StreamInUse {
        /// Which stream.
        stream: StreamId,
        /// The job that needs it.
        job: JobId,
    },
    /// The thing still has something to do.
    #[error("job {job} has not ended on thing {thing}; cancel it first, or use --force")]
    ThingBusy {
        /// Which thing.
        thing: ThingName,
        /// One of its jobs.
        job: JobId,
    },
    /// Nobody joins later.
    #[error("a continuous job needs a group: nobody else could join it")]
    ContinuousWithoutGroup,
    /// Out of AWS's range.
    #[error("a rate of {0} things a minute is out of range: 1 to 1000")]
    RateOutOfRange(u32),
    /// A canary of nobody.
    #[error("a canary of no things is none; leave it out")]
    CanaryOfNone,
    /// Not a percentage.
    #[error("a threshold of {0} percent is out of range: 1 to 100")]
    PercentOutOfRange(u8),
    /// Broken from the start.
    #[error("a threshold of no failures is reached before the job begins; use 1 or more")]
    ThresholdOfNone,
    /// Says nothing.
    #[error("a minimum of no executions says nothing; use 1 or more, or leave it out")]
    MinimumOfNone,
    /// Longer than AWS takes.
    #[error("{what} has {chars} characters, at most {max} are allowed")]
    DescriptionTooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        chars: usize,
        /// The limit.
        max: usize,
    },
    /// A job for nobody.
    #[error("a job needs at least one thing or group")]
    NoTarget,
    /// A thing given twice.
    #[error("thing {0} is given twice")]
    TargetTwice(ThingName),
    /// An update without a file.
    #[error("an update needs at least one file")]
    NoFile,
    /// More files than a stream may have.
    #[error("{given} files, but a stream takes at most {max}")]
    TooManyFiles {
        /// How many were given.
        given: usize,
        /// How many are possible.
        max: usize,
    },
    /// A file id given twice.
    #[error("file id {0} is given twice")]
    FileIdTwice(u8),
    /// Larger than the limits in force allow.
    #[error("file {file_id} has {size} bytes, at most {max} are allowed; `--limits none` lifts it")]
    FileTooLarge {
        /// Which.
        file_id: u8,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// More text than a job document may have.
    #[error("the job document has {chars} characters, at most {max} are allowed")]
    DocumentTooLong {
        /// How many it has.
        chars: usize,
        /// The limit.
        max: usize,
    },
    /// A job document is an object.
    #[error("the job document is not a JSON object")]
    DocumentNotAnObject,
    /// A text of the update is out of range.
    #[error("{what} of file {file_id} has {bytes} bytes, at most {max} are allowed")]
    TextTooLong {
        /// Which text.
        what: &'static str,
        /// Of which file.
        file_id: u8,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// No protocol at all, or one this cloud does not serve.
    #[error("protocol {0} is not served by this cloud; use MQTT, or start it with --http")]
    ProtocolNotServed(Protocol),
    /// No protocol at all.
    #[error("an update needs at least one protocol; use MQTT")]
    NoProtocol,
    /// Out of AWS's range.
    #[error("a time-out of {0} minutes is out of range: 1 to 10080")]
    TimeoutOutOfRange(u32),
    /// Stored by a build that is too new or too old.
    #[error("the stored state has schema {found}, this build reads {known}")]
    UnknownSchema {
        /// In the file.
        found: u32,
        /// Of this build.
        known: u32,
    },
    /// The state cannot be kept now.
    #[error("the cloud cannot store its state: {0}")]
    Unavailable(String),
}

impl ServiceError {
    /// A word for programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "bad_name",
            Self::ThingExists(_) => "thing_exists",
            Self::UnknownThing(_) => "unknown_thing",
            Self::UnknownJob(_) => "unknown_job",
            Self::JobExists(_) => "job_exists",
            Self::StreamExists(_) => "stream_exists",
            Self::JobEnded { .. } => "job_ended",
            Self::GroupExists(_) => "group_exists",
            Self::UnknownGroup(_) => "unknown_group",
            Self::GroupEmpty(_) => "group_empty",
            Self::GroupTwice(_) => "group_twice",
            Self::UnknownStream(_) => "unknown_stream",
            Self::JobRunning(_) => "job_running",
            Self::StreamInUse { .. } => "stream_in_use",
            Self::ThingBusy { .. } => "thing_busy",
            Self::ContinuousWithoutGroup => "continuous_without_group",
            Self::RateOutOfRange(_) => "rate_out_of_range",
            Self::CanaryOfNone => "canary_of_none",
            Self::PercentOutOfRange(_) => "percent_out_of_range",
            Self::ThresholdOfNone => "threshold_of_none",
            Self::MinimumOfNone => "minimum_of_none",
            Self::DescriptionTooLong { .. } => "description_too_long",
            Self::NoTarget => "no_target",
            Self::TargetTwice(_) => "target_twice",
            Self::NoFile => "no_file",
            Self::TooManyFiles { .. } => "too_many_files",
            Self::FileIdTwice(_) => "file_id_twice",
            Self::FileTooLarge { .. } => "file_too_large",
            Self::DocumentTooLong { .. } => "document_too_long",
            Self::DocumentNotAnObject => "document_not_an_object",
            Self::TextTooLong { .. } => "text_too_long",
            Self::ProtocolNotServed(_) => "protocol_not_served",
            Self::NoProtocol => "no_protocol",
            Self::TimeoutOutOfRange(_) => "timeout_out_of_range",
            Self::UnknownSchema { .. } => "unknown_schema",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
