//! Job messages and `afr_ota` job documents: strict JSON in, checked values out.
//!
//! Everything is hostile until it is parsed: each limit is named here, each defect has its own error with the number
//! that goes to the cloud. Not here: whether the device has such a target, which protocol is chosen, what to do next.

mod error;
mod job;
mod member;
mod reply;
mod spec;

pub(crate) use error::{KEY_SELF_TEST, KEY_UPDATED_BY};
pub(crate) use member::{Check, Members, number};

pub use error::{Defect, Field, ParseError};
pub use job::{
    AUTH_SCHEME_MAX_BYTES, CERTIFICATE_MAX_BYTES, FILES_MAX_COUNT, FileEntry, Job, PATH_MAX_BYTES,
    Protocol, Protocols, SIGNATURE_MAX_BYTES, Signature, SignatureKind, URL_MAX_BYTES, is_ota,
    parse_job,
};
pub use reply::{JobExecution, Reply, ReplyError, parse_reply};

/// Most bytes of a job message, so also of a job document: four times what the service allows, and what one MQTT
/// message of it can carry.
pub const DOCUMENT_MAX_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests;
