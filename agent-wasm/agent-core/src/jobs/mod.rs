//! AWS IoT Jobs over MQTT: names, topics, client tokens, requests, status updates and the service's answers.
//!
//! Builds and reads bytes, holds no state beyond a token counter and what was asked last, sends nothing. What a job document means is
//! [`crate::document`]'s business; when to send what is the orchestrator's.

mod name;
mod reply;
mod service;
mod status;
mod token;
mod topic;

pub(crate) use reply::{read_state, read_token, shown};
pub(crate) use topic::{classify_ours, make_ours};

pub use name::{JobId, NameDefect, NameError, NameKind, StreamId, ThingName};
pub use reply::{
    Answer, ExecutionState, ExecutionStatus, ReplyToken, SelfTest, StatusDetails, parse_answer,
};
pub use service::{JobService, Message, News};
pub use status::{
    CustomResult, CustomStatus, DETAIL_KEY_MAX_BYTES, DETAIL_VALUE_MAX_BYTES, DETAILS_MAX_COUNT,
    DetailsError, Progress, Reason, Status, VersionWord,
};
pub use token::{ClientToken, ClientTokens, job_request};
pub use topic::{
    Encoding, Topic, classify, describe_job, make as topic, next_get, notify_next, start_next,
    stream_data, stream_describe, stream_description, stream_get, stream_rejected, update,
    update_accepted, update_rejected,
};
