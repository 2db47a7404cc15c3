//! Numeric codes and their texts: the C agent's enumerations with its numbers and names, the host's, and our own.
//!
//! A number that has been sent to a cloud once keeps its meaning for ever: the tables are append-only and a golden test
//! holds them. Nothing here decides anything.

mod ours;

pub use ours::{HostErr, JobsErr, OtadErr, StreamErr};

/// The text of a number that no table knows, as the C agent's `strerror` functions give it.
pub const UNKNOWN: &str = "InvalidErrorCode";

macro_rules! codes {
    (
        $(#[$meta:meta])*
        $name:ident: $int:ty {
            $( $(#[$variant_meta:meta])* $variant:ident = $value:literal => $text:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $value, )+
        }

        impl $name {
            /// Every value, in the order of the numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];
            // Tables and loops, not matches: a match is some 15 bytes of wasm an arm.
            pub(crate) const NAMES: &'static str = concat!($( $text, "\n" ),+);

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> $int {
                self as $int
            }

            /// The value of a number, if the table has it.
            #[must_use]
            pub fn from_code(code: $int) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.code() == code)
            }

            /// The value of a name, if the table has it.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.name() == name)
            }

            /// The name, as the C agent's `strerror` gives it.
            #[must_use]
            pub fn name(self) -> &'static str {
                let place = Self::ALL.iter().position(|known| *known == self);
                $crate::text::row(Self::NAMES, place.unwrap_or(usize::MAX))
            }

            /// The name of a number, [`UNKNOWN`] if the table does not have it.
            #[must_use]
            pub fn text(code: $int) -> &'static str {
                Self::from_code(code).map_or(UNKNOWN, Self::name)
            }
        }
    };
}

codes! {
    /// Errors of the agent (OtaErr_t). The C agent's `strerror` stops at 22; this one knows them all.
    OtaErr: u32 {
        /// No error.
        None = 0 => "OtaErrNone",
        /// Not initialised.
        Uninitialized = 1 => "OtaErrUninitialized",
        /// Unrecoverable.
        Panic = 2 => "OtaErrPanic",
        /// Bad argument.
        InvalidArg = 3 => "OtaErrInvalidArg",
        /// The agent is stopped.
        AgentStopped = 4 => "OtaErrAgentStopped",
        /// An event could not be queued.
        SignalEventFailed = 5 => "OtaErrSignalEventFailed",
        /// The job could not be asked for.
        RequestJobFailed = 6 => "OtaErrRequestJobFailed",
        /// The transfer could not be begun.
        InitFileTransferFailed = 7 => "OtaErrInitFileTransferFailed",
        /// Blocks could not be asked for.
        RequestFileBlockFailed = 8 => "OtaErrRequestFileBlockFailed",
        /// Control plane clean-up failed.
        CleanupControlFailed = 9 => "OtaErrCleanupControlFailed",
        /// Data plane clean-up failed.
        CleanupDataFailed = 10 => "OtaErrCleanupDataFailed",
        /// A status could not be sent.
        UpdateJobStatusFailed = 11 => "OtaErrUpdateJobStatusFailed",
        /// The job document is defective; the second number is the parse error.
        JobParserError = 12 => "OtaErrJobParserError",
        /// No data protocol that both sides know.
        InvalidDataProtocol = 13 => "OtaErrInvalidDataProtocol",
        /// Too many requests without an answer.
        MomentumAbort = 14 => "OtaErrMomentumAbort",
        /// The new version is older.
        DowngradeNotAllowed = 15 => "OtaErrDowngradeNotAllowed",
        /// The new version is the running one.
        SameFirmwareVersion = 16 => "OtaErrSameFirmwareVersion",
        /// The job says self-test, the target does not.
        ImageStateMismatch = 17 => "OtaErrImageStateMismatch",
        /// There is no active job.
        NoActiveJob = 18 => "OtaErrNoActiveJob",
        /// The user gave up the job.
        UserAbort = 19 => "OtaErrUserAbort",
        /// A request could not be encoded.
        FailedToEncodeCbor = 20 => "OtaErrFailedToEncodeCbor",
        /// A message could not be decoded.
        FailedToDecodeCbor = 21 => "OtaErrFailedToDecodeCbor",
        /// Activation failed.
        ActivateFailed = 22 => "OtaErrActivateFailed",
        /// The file is too large.
        FileSizeOverflow = 23 => "OtaErrFileSizeOverflow",
        /// A reply without a job.
        EmptyJobDocument = 24 => "OtaErrEmptyJobDocument",
    }
}

codes! {
    /// Main codes of a PAL (OtaPalMainStatus).
    PalStatus: u32 {
        /// No error.
        Success = 0x00 => "OtaPalSuccess",
        /// Never set.
        Uninitialized = 0xe0 => "OtaPalUninitialized",
        /// Out of memory.
        OutOfMemory = 0xe1 => "OtaPalOutOfMemory",
        /// No file.
        NullFileContext = 0xe2 => "OtaPalNullFileContext",
        /// The signature does not fit.
        SignatureCheckFailed = 0xe3 => "OtaPalSignatureCheckFailed",
        /// Cannot receive.
        RxFileCreateFailed = 0xe4 => "OtaPalRxFileCreateFailed",
        /// Too large for the target.
        RxFileTooLarge = 0xe5 => "OtaPalRxFileTooLarge",
        /// Boot information could not be made.
        BootInfoCreateFailed = 0xe6 => "OtaPalBootInfoCreateFailed",
        /// Bad signer certificate.
        BadSignerCert = 0xe7 => "OtaPalBadSignerCert",
        /// Wrong image state for this.
        BadImageState = 0xe8 => "OtaPalBadImageState",
        /// Abort failed.
        AbortFailed = 0xe9 => "OtaPalAbortFailed",
        /// Reject failed.
        RejectFailed = 0xea => "OtaPalRejectFailed",
        /// Commit failed.
        CommitFailed = 0xeb => "OtaPalCommitFailed",
        /// Activate failed.
        ActivateFailed = 0xec => "OtaPalActivateFailed",
        /// Abort of a file failed.
        FileAbort = 0xed => "OtaPalFileAbort",
        /// Close of a file failed.
        FileClose = 0xee => "OtaPalFileClose",
    }
}

codes! {
    /// Errors of an OS port (OtaOsStatus).
    OsStatus: u32 {
        /// No error.
        Success = 0x00 => "OtaOsSuccess",
        /// Queue create.
        EventQueueCreateFailed = 0x80 => "OtaOsEventQueueCreateFailed",
        /// Queue send.
        EventQueueSendFailed = 0x81 => "OtaOsEventQueueSendFailed",
        /// Queue receive.
        EventQueueReceiveFailed = 0x82 => "OtaOsEventQueueReceiveFailed",
        /// Queue delete.
        EventQueueDeleteFailed = 0x83 => "OtaOsEventQueueDeleteFailed",
        /// Timer create.
        TimerCreateFailed = 0x84 => "OtaOsTimerCreateFailed",
        /// Timer start.
        TimerStartFailed = 0x85 => "OtaOsTimerStartFailed",
        /// Timer restart.
        TimerRestartFailed = 0x86 => "OtaOsTimerRestartFailed",
        /// Timer stop.
        TimerStopFailed = 0x87 => "OtaOsTimerStopFailed",
        /// Timer delete.
        TimerDeleteFailed = 0x88 => "OtaOsTimerDeleteFailed",
    }
}

codes! {
    /// Errors of MQTT (OtaMqttStatus).
    MqttStatus: u32 {
        /// No error.
        Success = 0x00 => "OtaMqttSuccess",
        /// Publish.
        PublishFailed = 0xa0 => "OtaMqttPublishFailed",
        /// Subscribe.
        SubscribeFailed = 0xa1 => "OtaMqttSubscribeFailed",
        /// Unsubscribe.
        UnsubscribeFailed = 0xa2 => "OtaMqttUnsubscribeFailed",
    }
}

codes! {
    /// Errors of HTTP (OtaHttpStatus).
    HttpStatus: u32 {
        /// No error.
        Success = 0x00 => "OtaHttpSuccess",
        /// Set-up.
        InitFailed = 0xc0 => "OtaHttpInitFailed",
        /// Clean-up.
        DeinitFailed = 0xc1 => "OtaHttpDeinitFailed",
        /// Request.
        RequestFailed = 0xc2 => "OtaHttpRequestFailed",
    }
}

codes! {
    /// Results of a job document (OtaJobParseErr_t).
    JobParseErr: i32 {
        /// Not parsed.
        Unknown = -1 => "OtaJobParseErrUnknown",
        /// Accepted.
        None = 0 => "OtaJobParseErrNone",
        /// No job name.
        NullJob = 1 => "OtaJobParseErrNullJob",
        /// The active job again.
        UpdateCurrentJob = 2 => "OtaJobParseErrUpdateCurrentJob",
        /// The file has no bytes.
        ZeroFileSize = 3 => "OtaJobParseErrZeroFileSize",
        /// Not a document of this kind.
        NonConformingJobDoc = 4 => "OtaJobParseErrNonConformingJobDoc",
        /// Too many blocks.
        BadModelInitParams = 5 => "OtaJobParseErrBadModelInitParams",
        /// No file context.
        NoContextAvailable = 6 => "OtaJobParseErrNoContextAvailable",
        /// A message without a job.
        NoActiveJobs = 7 => "OtaJobParseErrNoActiveJobs",
    }
}

codes! {
    /// The agent's states (OtaState_t), with ours from 11.
    State: u8 {
        /// Not started.
        Init = 0 => "Init",
        /// Started, not connected.
        Ready = 1 => "Ready",
        /// Asking for a job.
        RequestingJob = 2 => "RequestingJob",
        /// Waiting for a job.
        WaitingForJob = 3 => "WaitingForJob",
        /// Preparing to receive.
        CreatingFile = 4 => "CreatingFile",
        /// Asking for blocks.
        RequestingFileBlock = 5 => "RequestingFileBlock",
        /// Waiting for blocks.
        WaitingForFileBlock = 6 => "WaitingForFileBlock",
        /// Verifying.
        ClosingFile = 7 => "ClosingFile",
        /// Suspended.
        Suspended = 8 => "Suspended",
        /// Ending.
        ShuttingDown = 9 => "ShuttingDown",
        /// Ended.
        Stopped = 10 => "Stopped",
        /// Bringing images into their targets.
        Installing = 11 => "Installing",
        /// Waiting for the order to activate.
        WaitingForActivation = 12 => "WaitingForActivation",
        /// Waiting for targets to come back.
        WaitingForRestart = 13 => "WaitingForRestart",
        /// In self-test.
        Testing = 14 => "Testing",
        /// Making permanent.
        Committing = 15 => "Committing",
        /// Going back to the old images.
        GoingBack = 16 => "GoingBack",
        /// Reporting the end of a job.
        Reporting = 17 => "Reporting",
    }
}

codes! {
    /// The C agent's events (OtaEvent_t).
    Event: u8 {
        /// Begin.
        Start = 0 => "Start",
        /// Begin the self-test.
        StartSelfTest = 1 => "StartSelfTest",
        /// Ask for a job.
        RequestJobDocument = 2 => "RequestJobDocument",
        /// A job message.
        ReceivedJobDocument = 3 => "ReceivedJobDocument",
        /// Prepare to receive.
        CreateFile = 4 => "CreateFile",
        /// Ask for blocks.
        RequestFileBlock = 5 => "RequestFileBlock",
        /// A block message.
        ReceivedFileBlock = 6 => "ReceivedFileBlock",
        /// The request timer.
        RequestTimer = 7 => "RequestTimer",
        /// End of the transfer.
        CloseFile = 8 => "CloseFile",
        /// Suspend.
        Suspend = 9 => "Suspend",
        /// Resume.
        Resume = 10 => "Resume",
        /// Abort by the user.
        UserAbort = 11 => "UserAbort",
        /// Shutdown.
        Shutdown = 12 => "Shutdown",
    }
}

codes! {
    /// The agent's opinion of an image (OtaImageState_t).
    ImageState: u32 {
        /// None.
        Unknown = 0 => "OtaImageStateUnknown",
        /// In self-test.
        Testing = 1 => "OtaImageStateTesting",
        /// Good.
        Accepted = 2 => "OtaImageStateAccepted",
        /// Bad.
        Rejected = 3 => "OtaImageStateRejected",
        /// Given up.
        Aborted = 4 => "OtaImageStateAborted",
    }
}

codes! {
    /// A target's opinion of the running image (OtaPalImageState_t), with the host's from 4.
    PalImageState: u8 {
        /// It cannot tell.
        Unknown = 0 => "OtaPalImageStateUnknown",
        /// A new image runs and is not committed.
        PendingCommit = 1 => "OtaPalImageStatePendingCommit",
        /// The running image is committed.
        Valid = 2 => "OtaPalImageStateValid",
        /// The new image was refused or went back.
        Invalid = 3 => "OtaPalImageStateInvalid",
        /// The new image is marked for the next boot.
        Armed = 4 => "PalImageStateArmed",
        /// An uncommitted image runs that no job brought.
        Foreign = 5 => "PalImageStateForeign",
    }
}

codes! {
    /// Application events (OtaJobEvent_t), with ours from 16.
    JobEvent: u32 {
        /// An image can be activated.
        Activate = 0 => "OtaJobEventActivate",
        /// The transfer failed.
        Fail = 1 => "OtaJobEventFail",
        /// The self-test may begin.
        StartTest = 2 => "OtaJobEventStartTest",
        /// A buffer is free again. Never emitted; kept for the number.
        Processed = 3 => "OtaJobEventProcessed",
        /// Version or state check failed.
        SelfTestFailed = 4 => "OtaJobEventSelfTestFailed",
        /// No parser took the job.
        ParseCustomJob = 5 => "OtaJobEventParseCustomJob",
        /// A job was received.
        ReceivedJob = 6 => "OtaJobEventReceivedJob",
        /// A file that is not firmware is complete.
        UpdateComplete = 7 => "OtaJobEventUpdateComplete",
        /// There is no job.
        NoActiveJob = 8 => "OtaJobEventNoActiveJob",
        /// The service has acknowledged the end of a job.
        JobEnded = 16 => "JobEventJobEnded",
        /// The old version runs again.
        RolledBack = 17 => "JobEventRolledBack",
    }
}

codes! {
    /// Statuses of an update (OtaJobStatus).
    JobStatus: u8 {
        /// IN_PROGRESS.
        InProgress = 0 => "JobStatusInProgress",
        /// FAILED.
        Failed = 1 => "JobStatusFailed",
        /// SUCCEEDED.
        Succeeded = 2 => "JobStatusSucceeded",
        /// REJECTED.
        Rejected = 3 => "JobStatusRejected",
        /// FAILED with two numbers.
        FailedWithVal = 4 => "JobStatusFailedWithVal",
    }
}

codes! {
    /// Reasons of an update (OtaJobReason).
    JobReason: u8 {
        /// Receiving.
        Receiving = 0 => "JobReasonReceiving",
        /// The signature is good.
        SigCheckPassed = 1 => "JobReasonSigCheckPassed",
        /// The self-test runs.
        SelfTestActive = 2 => "JobReasonSelfTestActive",
        /// Accepted.
        Accepted = 3 => "JobReasonAccepted",
        /// Rejected.
        Rejected = 4 => "JobReasonRejected",
        /// Aborted.
        Aborted = 5 => "JobReasonAborted",
    }
}

codes! {
    /// What became of a block message (IngestResult).
    IngestResult: i32 {
        /// No result yet.
        Uninitialized = -127 => "IngestResultUninitialized",
        /// No memory to decode into.
        NoDecodeMemory = -10 => "IngestResultNoDecodeMemory",
        /// The storage refused it.
        WriteBlockFailed = -9 => "IngestResultWriteBlockFailed",
        /// Not decodable.
        BadData = -8 => "IngestResultBadData",
        /// Index or length out of range.
        BlockOutOfRange = -7 => "IngestResultBlockOutOfRange",
        /// Not expected now.
        UnexpectedBlock = -6 => "IngestResultUnexpectedBlock",
        /// No such file open.
        BadFileHandle = -5 => "IngestResultBadFileHandle",
        /// No message.
        NullInput = -4 => "IngestResultNullInput",
        /// Close failed.
        FileCloseFail = -3 => "IngestResultFileCloseFail",
        /// The signature does not fit.
        SigCheckFail = -2 => "IngestResultSigCheckFail",
        /// The last block.
        FileComplete = -1 => "IngestResultFileComplete",
        /// Taken.
        AcceptedContinue = 0 => "IngestResultAccepted_Continue",
        /// Held already.
        DuplicateContinue = 1 => "IngestResultDuplicate_Continue",
    }
}

codes! {
    /// Results of decoding base64 (Base64Status).
    Base64Status: u8 {
        /// Decoded.
        Success = 0 => "Base64Success",
        /// A byte that is not of the alphabet.
        InvalidSymbol = 1 => "Base64InvalidSymbol",
        /// Padding or white space where it must not be.
        InvalidSymbolOrdering = 2 => "Base64InvalidSymbolOrdering",
        /// A length that no data has.
        InvalidInputSize = 3 => "Base64InvalidInputSize",
        /// No pointer. Cannot happen here; kept for the number.
        NullPointerInput = 4 => "Base64NullPointerInput",
        /// More data than allowed.
        InvalidBufferSize = 5 => "Base64InvalidBufferSize",
        /// Unused bits of the last symbol are not 0.
        NonZeroPadding = 6 => "Base64NonZeroPadding",
        /// More than two padding symbols.
        InvalidPaddingSymbol = 7 => "Base64InvalidPaddingSymbol",
    }
}

pub(crate) use codes;

/// The name of a failure's main number, whoever's it is; [`UNKNOWN`] if no table has it.
#[must_use]
pub fn main_text(main: u8) -> &'static str {
    let code = u32::from(main);
    match main {
        0x00..=0x3f => OtaErr::text(code),
        0x40..=0x7f => OtadErr::text(code),
        0x80..=0x9f => OsStatus::text(code),
        0xa0..=0xbf => MqttStatus::text(code),
        0xc0..=0xcf => HttpStatus::text(code),
        0xd0..=0xdf => HostErr::text(code),
        0xe0..=0xff => PalStatus::text(code),
    }
}

#[cfg(test)]
mod tests;
