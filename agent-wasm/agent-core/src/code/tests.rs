//! The tables as they are for ever. Do not change a row: somebody has seen its number. Append.

use super::*;

macro_rules! golden {
    ($test:ident, $name:ident, $unknown:expr, [ $( $code:literal $text:literal, )+ ]) => {
        #[test]
        fn $test() {
            let rows = [ $( ($code, $text), )+ ];
            assert_eq!($name::ALL.len(), rows.len());
            for (value, (code, text)) in $name::ALL.iter().zip(rows) {
                assert_eq!((value.code(), value.name()), (code, text));
                assert_eq!($name::from_code(code), Some(*value));
                assert_eq!($name::text(code), text);
            }
            for code in $unknown {
                assert_eq!(($name::from_code(code), $name::text(code)), (None, "InvalidErrorCode"));
            }
        }
    };
}

golden!(ota_err_never_changes, OtaErr, [25, u32::MAX], [
    0 "OtaErrNone", 1 "OtaErrUninitialized", 2 "OtaErrPanic", 3 "OtaErrInvalidArg",
    4 "OtaErrAgentStopped", 5 "OtaErrSignalEventFailed", 6 "OtaErrRequestJobFailed",
    7 "OtaErrInitFileTransferFailed", 8 "OtaErrRequestFileBlockFailed",
    9 "OtaErrCleanupControlFailed", 10 "OtaErrCleanupDataFailed", 11 "OtaErrUpdateJobStatusFailed",
    12 "OtaErrJobParserError", 13 "OtaErrInvalidDataProtocol", 14 "OtaErrMomentumAbort",
    15 "OtaErrDowngradeNotAllowed", 16 "OtaErrSameFirmwareVersion", 17 "OtaErrImageStateMismatch",
    18 "OtaErrNoActiveJob", 19 "OtaErrUserAbort", 20 "OtaErrFailedToEncodeCbor",
    21 "OtaErrFailedToDecodeCbor", 22 "OtaErrActivateFailed", 23 "OtaErrFileSizeOverflow",
    24 "OtaErrEmptyJobDocument",
]);

golden!(our_own_errors_never_change, OtadErr, [0x3f, 0x54, 0x80], [
    0x40 "OtadErrUnknownFileId", 0x41 "OtadErrSelfTestTimeout", 0x42 "OtadErrRestartTimeout",
    0x43 "OtadErrGroupSplit", 0x44 "OtadErrStreamRejected", 0x45 "OtadErrStatusRejected",
    0x46 "OtadErrRolledBack", 0x47 "OtadErrGroupFailed", 0x48 "OtadErrAttemptsExhausted",
    0x49 "OtadErrActivationTimeout", 0x4a "OtadErrVersionMismatch", 0x4b "OtadErrLimitReached",
    0x4c "OtadErrFault", 0x4d "OtadErrBadBlocks", 0x4e "OtadErrOperationTimeout",
    0x4f "OtadErrOfferTimeout", 0x50 "OtadErrCustomJobTimeout",
    0x51 "OtadErrUntold", 0x52 "OtadErrNoAnswer", 0x53 "OtadErrUrlRefused",
]);

golden!(the_hosts_errors_never_change, HostErr, [0xcf, 0xe0], [
    0xd0 "HostBadArgument", 0xd1 "HostLimit", 0xd2 "HostNotVerified", 0xd3 "HostWrongProduct",
    0xd4 "HostUnreachable", 0xd5 "HostPluginFailed", 0xd6 "HostStorage", 0xd7 "HostCancelled",
    0xd8 "HostNotConnected", 0xd9 "HostTimedOut", 0xda "HostUnsupported", 0xdb "HostNotFound",
    0xdc "HostBusy", 0xdd "HostNoRevert", 0xde "HostExtraCheck", 0xdf "HostSchema",
]);

golden!(pal_status_never_changes, PalStatus, [1, 0xdf, 0xef], [
    0x00 "OtaPalSuccess", 0xe0 "OtaPalUninitialized", 0xe1 "OtaPalOutOfMemory",
    0xe2 "OtaPalNullFileContext", 0xe3 "OtaPalSignatureCheckFailed",
    0xe4 "OtaPalRxFileCreateFailed", 0xe5 "OtaPalRxFileTooLarge",
    0xe6 "OtaPalBootInfoCreateFailed", 0xe7 "OtaPalBadSignerCert", 0xe8 "OtaPalBadImageState",
    0xe9 "OtaPalAbortFailed", 0xea "OtaPalRejectFailed", 0xeb "OtaPalCommitFailed",
    0xec "OtaPalActivateFailed", 0xed "OtaPalFileAbort", 0xee "OtaPalFileClose",
]);

golden!(os_status_never_changes, OsStatus, [0x7f, 0x89], [
    0x00 "OtaOsSuccess", 0x80 "OtaOsEventQueueCreateFailed", 0x81 "OtaOsEventQueueSendFailed",
    0x82 "OtaOsEventQueueReceiveFailed", 0x83 "OtaOsEventQueueDeleteFailed",
    0x84 "OtaOsTimerCreateFailed", 0x85 "OtaOsTimerStartFailed", 0x86 "OtaOsTimerRestartFailed",
    0x87 "OtaOsTimerStopFailed", 0x88 "OtaOsTimerDeleteFailed",
]);

golden!(mqtt_status_never_changes, MqttStatus, [0x9f, 0xa3], [
    0x00 "OtaMqttSuccess", 0xa0 "OtaMqttPublishFailed", 0xa1 "OtaMqttSubscribeFailed",
    0xa2 "OtaMqttUnsubscribeFailed",
]);

golden!(http_status_never_changes, HttpStatus, [0xbf, 0xc3], [
    0x00 "OtaHttpSuccess", 0xc0 "OtaHttpInitFailed", 0xc1 "OtaHttpDeinitFailed",
    0xc2 "OtaHttpRequestFailed",
]);

golden!(job_parse_err_never_changes, JobParseErr, [-2, 8], [
    -1 "OtaJobParseErrUnknown", 0 "OtaJobParseErrNone", 1 "OtaJobParseErrNullJob",
    2 "OtaJobParseErrUpdateCurrentJob", 3 "OtaJobParseErrZeroFileSize",
    4 "OtaJobParseErrNonConformingJobDoc", 5 "OtaJobParseErrBadModelInitParams",
    6 "OtaJobParseErrNoContextAvailable", 7 "OtaJobParseErrNoActiveJobs",
]);

golden!(state_never_changes, State, [18, 255], [
    0 "Init", 1 "Ready", 2 "RequestingJob", 3 "WaitingForJob", 4 "CreatingFile",
    5 "RequestingFileBlock", 6 "WaitingForFileBlock", 7 "ClosingFile", 8 "Suspended",
    9 "ShuttingDown", 10 "Stopped", 11 "Installing", 12 "WaitingForActivation",
    13 "WaitingForRestart", 14 "Testing", 15 "Committing", 16 "GoingBack", 17 "Reporting",
]);

golden!(event_never_changes, Event, [13, 255], [
    0 "Start", 1 "StartSelfTest", 2 "RequestJobDocument", 3 "ReceivedJobDocument", 4 "CreateFile",
    5 "RequestFileBlock", 6 "ReceivedFileBlock", 7 "RequestTimer", 8 "CloseFile", 9 "Suspend",
    10 "Resume", 11 "UserAbort", 12 "Shutdown",
]);

golden!(image_state_never_changes, ImageState, [5], [
    0 "OtaImageStateUnknown", 1 "OtaImageStateTesting", 2 "OtaImageStateAccepted",
    3 "OtaImageStateRejected", 4 "OtaImageStateAborted",
]);

golden!(pal_image_state_never_changes, PalImageState, [6], [
    0 "OtaPalImageStateUnknown", 1 "OtaPalImageStatePendingCommit", 2 "OtaPalImageStateValid",
    3 "OtaPalImageStateInvalid", 4 "PalImageStateArmed", 5 "PalImageStateForeign",
]);

golden!(job_event_never_changes, JobEvent, [9, 15, 18], [
    0 "OtaJobEventActivate", 1 "OtaJobEventFail", 2 "OtaJobEventStartTest",
    3 "OtaJobEventProcessed", 4 "OtaJobEventSelfTestFailed", 5 "OtaJobEventParseCustomJob",
    6 "OtaJobEventReceivedJob", 7 "OtaJobEventUpdateComplete", 8 "OtaJobEventNoActiveJob",
    16 "JobEventJobEnded", 17 "JobEventRolledBack",
]);

golden!(job_status_never_changes, JobStatus, [5], [
    0 "JobStatusInProgress", 1 "JobStatusFailed", 2 "JobStatusSucceeded", 3 "JobStatusRejected",
    4 "JobStatusFailedWithVal",
]);

golden!(job_reason_never_changes, JobReason, [6], [
    0 "JobReasonReceiving", 1 "JobReasonSigCheckPassed", 2 "JobReasonSelfTestActive",
    3 "JobReasonAccepted", 4 "JobReasonRejected", 5 "JobReasonAborted",
]);

golden!(ingest_result_never_changes, IngestResult, [-11, 2], [
    -127 "IngestResultUninitialized", -10 "IngestResultNoDecodeMemory",
    -9 "IngestResultWriteBlockFailed", -8 "IngestResultBadData", -7 "IngestResultBlockOutOfRange",
    -6 "IngestResultUnexpectedBlock", -5 "IngestResultBadFileHandle", -4 "IngestResultNullInput",
    -3 "IngestResultFileCloseFail", -2 "IngestResultSigCheckFail", -1 "IngestResultFileComplete",
    0 "IngestResultAccepted_Continue", 1 "IngestResultDuplicate_Continue",
]);

golden!(base64_status_never_changes, Base64Status, [8], [
    0 "Base64Success", 1 "Base64InvalidSymbol", 2 "Base64InvalidSymbolOrdering",
    3 "Base64InvalidInputSize", 4 "Base64NullPointerInput", 5 "Base64InvalidBufferSize",
    6 "Base64NonZeroPadding", 7 "Base64InvalidPaddingSymbol",
]);

golden!(jobs_err_never_changes, JobsErr, [10], [
    0 "Unknown", 1 "InvalidTopic", 2 "InvalidJson", 3 "InvalidRequest", 4 "InvalidStateTransition",
    5 "ResourceNotFound", 6 "VersionMismatch", 7 "InternalError", 8 "RequestThrottled",
    9 "TerminalStateReached",
]);

golden!(stream_err_never_changes, StreamErr, [15], [
    0 "Unknown", 1 "InvalidTopic", 2 "InvalidJson", 3 "InvalidCbor", 4 "InvalidRequest",
    5 "Unauthorized", 6 "BlockSizeOutOfBounds", 7 "OffsetOutOfBounds",
    8 "BlockCountLimitExceeded", 9 "BlockBitmapLimitExceeded", 10 "ResourceNotFound",
    11 "VersionMismatch", 12 "ETagMismatch", 13 "InternalError", 14 "RequestThrottled",
]);

#[test]
fn the_main_number_of_a_failure_finds_its_table() {
    let rows = [
        (0x00, "OtaErrNone"),
        (0x0c, "OtaErrJobParserError"),
        (0x18, "OtaErrEmptyJobDocument"),
        (0x19, UNKNOWN),
        (0x40, "OtadErrUnknownFileId"),
        (0x7f, UNKNOWN),
        (0x80, "OtaOsEventQueueCreateFailed"),
        (0xa1, "OtaMqttSubscribeFailed"),
        (0xc2, "OtaHttpRequestFailed"),
        (0xd8, "HostNotConnected"),
        (0xe3, "OtaPalSignatureCheckFailed"),
        (0xee, "OtaPalFileClose"),
        (0xff, UNKNOWN),
    ];
    for (main, text) in rows {
        assert_eq!(main_text(main), text, "{main:#x}");
    }
    // A number in the range of a table is that table's or nobody's.
    for main in 0..=u8::MAX {
        let code = u32::from(main);
        let known = [
            OtaErr::from_code(code).is_some(),
            OtadErr::from_code(code).is_some(),
            HostErr::from_code(code).is_some(),
            OsStatus::from_code(code).is_some(),
            MqttStatus::from_code(code).is_some(),
            HttpStatus::from_code(code).is_some(),
            PalStatus::from_code(code).is_some(),
        ];
        assert_eq!(
            known.contains(&true),
            main_text(main) != UNKNOWN,
            "{main:#x}"
        );
    }
}
