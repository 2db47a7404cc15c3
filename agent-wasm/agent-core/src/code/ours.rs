//! The numbers that the C agent has no table for: this agent's own, the host's, and the two services' error words.
//!
//! Append-only. A number of [`OtadErr`], and those of [`JobsErr`] and [`StreamErr`] as its second number, stand in job
//! statuses that somebody keeps.

use super::{UNKNOWN, codes};

codes! {
    /// Errors of this agent that the C agent has no number for: 0x40 to 0x7f, append-only.
    OtadErr: u32 {
        /// No target is configured for the file id of a job; second number = file id.
        UnknownFileId = 0x40 => "OtadErrUnknownFileId",
        /// The self-test gave no verdict in time; second number = file id.
        SelfTestTimeout = 0x41 => "OtadErrSelfTestTimeout",
        /// The target did not come back after its reset in time; second number = file id.
        RestartTimeout = 0x42 => "OtadErrRestartTimeout",
        /// An all-or-nothing group could not be brought to one side; second number = first file id on the other side.
        GroupSplit = 0x43 => "OtadErrGroupSplit",
        /// The stream service refused a block request; second number = its code, [`StreamErr`].
        StreamRejected = 0x44 => "OtadErrStreamRejected",
        /// The job service refused a status; second number = its code, [`JobsErr`].
        StatusRejected = 0x45 => "OtadErrStatusRejected",
        /// The target went back to the old image by itself; second number = file id.
        RolledBack = 0x46 => "OtadErrRolledBack",
        /// Another file of the job failed, so this one went back too; second number = that file's id.
        GroupFailed = 0x47 => "OtadErrGroupFailed",
        /// The job was begun too often without coming to an end; second number = attempts.
        AttemptsExhausted = 0x48 => "OtadErrAttemptsExhausted",
        /// The deferred activation was not ordered in time; second number = file id.
        ActivationTimeout = 0x49 => "OtadErrActivationTimeout",
        /// The new image runs another version than the verified one; second number = the running version word's low
        /// 24 bits.
        VersionMismatch = 0x4a => "OtadErrVersionMismatch",
        /// The job asks for more than the device can hold, such as 17 files.
        LimitReached = 0x4b => "OtadErrLimitReached",
        /// An impossible case in the agent; the job fails, the agent lives. Second number = where.
        Fault = 0x4c => "OtadErrFault",
        /// All block messages were unusable until momentum ran out; second number = the last reason.
        BadBlocks = 0x4d => "OtadErrBadBlocks",
        /// An operation of the host did not end in time; second number = file id.
        OperationTimeout = 0x4e => "OtadErrOperationTimeout",
        /// Nobody answered the offer of a job in time.
        OfferTimeout = 0x4f => "OtadErrOfferTimeout",
        /// Nobody finished a custom job in time.
        CustomJobTimeout = 0x50 => "OtadErrCustomJobTimeout",
        /// Never in a status: the job was decided and carried out, and the service had closed it by then.
        Untold = 0x51 => "OtadErrUntold",
        /// The job service answered too many statuses or questions in a row with nothing; second number = how many.
        NoAnswer = 0x52 => "OtadErrNoAnswer",
        /// The URL of a file does not work, also after the job was read again; second number = the last HTTP status, 0 =
        /// it leads to another file.
        UrlRefused = 0x53 => "OtadErrUrlRefused",
    }
}

codes! {
    /// Errors of the host behind the agent's imports, 0xd0 to 0xdf.
    HostErr: u32 {
        /// Bad argument.
        BadArgument = 0xd0 => "HostBadArgument",
        /// A limit was reached.
        Limit = 0xd1 => "HostLimit",
        /// There is no verified image now.
        NotVerified = 0xd2 => "HostNotVerified",
        /// The image is for another product or hardware.
        WrongProduct = 0xd3 => "HostWrongProduct",
        /// The target cannot be reached.
        Unreachable = 0xd4 => "HostUnreachable",
        /// The plugin trapped, hung or was killed.
        PluginFailed = 0xd5 => "HostPluginFailed",
        /// Storage; second number = errno.
        Storage = 0xd6 => "HostStorage",
        /// Cancelled.
        Cancelled = 0xd7 => "HostCancelled",
        /// Not connected.
        NotConnected = 0xd8 => "HostNotConnected",
        /// Timed out in the host.
        TimedOut = 0xd9 => "HostTimedOut",
        /// The target cannot do that.
        Unsupported = 0xda => "HostUnsupported",
        /// Nothing is held under that name.
        NotFound = 0xdb => "HostNotFound",
        /// Another operation on this file is under way.
        Busy = 0xdc => "HostBusy",
        /// The bootloader cannot revert.
        NoRevert = 0xdd => "HostNoRevert",
        /// An extra verification step refused the image.
        ExtraCheck = 0xde => "HostExtraCheck",
        /// Saved state in an unknown schema.
        Schema = 0xdf => "HostSchema",
    }
}

codes! {
    /// Error codes of the Jobs service, numbered by us for [`OtadErr::StatusRejected`].
    JobsErr: u32 {
        /// A code that is not listed here.
        Unknown = 0 => "Unknown",
        /// Topic not in the Jobs name space.
        InvalidTopic = 1 => "InvalidTopic",
        /// Not UTF-8 JSON.
        InvalidJson = 2 => "InvalidJson",
        /// A bad field.
        InvalidRequest = 3 => "InvalidRequest",
        /// The execution cannot go there, such as an update of a cancelled one.
        InvalidStateTransition = 4 => "InvalidStateTransition",
        /// No such execution.
        ResourceNotFound = 5 => "ResourceNotFound",
        /// Another version than expected.
        VersionMismatch = 6 => "VersionMismatch",
        /// The service's fault.
        InternalError = 7 => "InternalError",
        /// Too many requests.
        RequestThrottled = 8 => "RequestThrottled",
        /// Describe of a finished execution.
        TerminalStateReached = 9 => "TerminalStateReached",
    }
}

codes! {
    /// Error codes of the stream service, numbered by us for [`OtadErr::StreamRejected`].
    StreamErr: u32 {
        /// A code that is not listed here.
        Unknown = 0 => "Unknown",
        /// Bad topic.
        InvalidTopic = 1 => "InvalidTopic",
        /// Request is not JSON.
        InvalidJson = 2 => "InvalidJson",
        /// Request is not CBOR.
        InvalidCbor = 3 => "InvalidCbor",
        /// Malformed otherwise.
        InvalidRequest = 4 => "InvalidRequest",
        /// The stream's role cannot read the object.
        Unauthorized = 5 => "Unauthorized",
        /// Block size outside 256 to 131072.
        BlockSizeOutOfBounds = 6 => "BlockSizeOutOfBounds",
        /// Offset too large.
        OffsetOutOfBounds = 7 => "OffsetOutOfBounds",
        /// Count too large.
        BlockCountLimitExceeded = 8 => "BlockCountLimitExceeded",
        /// Bitmap too long.
        BlockBitmapLimitExceeded = 9 => "BlockBitmapLimitExceeded",
        /// No such stream, file or block.
        ResourceNotFound = 10 => "ResourceNotFound",
        /// Another stream version than expected.
        VersionMismatch = 11 => "VersionMismatch",
        /// The stored object has changed.
        EtagMismatch = 12 => "ETagMismatch",
        /// The service's fault.
        InternalError = 13 => "InternalError",
        /// Too many requests.
        RequestThrottled = 14 => "RequestThrottled",
    }
}
