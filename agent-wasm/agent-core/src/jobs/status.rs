//! Status updates, byte for byte as the C agent writes them, with our client token as the last member.
//!
//! The payload of [`super::update`]. Which status is due is the orchestrator's business.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::text::{push_decimal, push_hex8, push_json_escaped};

use super::ClientToken;

/// A version as the wire has it: major << 24 | minor << 16 | revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionWord(pub u32);

impl VersionWord {
    /// The word of three numbers.
    #[must_use]
    pub const fn new(major: u8, minor: u8, revision: u16) -> Self {
        Self((major as u32) << 24 | (minor as u32) << 16 | revision as u32)
    }

    /// The first number.
    #[must_use]
    pub const fn major(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The second number.
    #[must_use]
    pub const fn minor(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// The third number.
    #[must_use]
    pub const fn revision(self) -> u16 {
        self.0 as u16
    }

    fn push(self, out: &mut String) {
        out.push('v');
        push_decimal(out, self.major().into());
        out.push('.');
        push_decimal(out, self.minor().into());
        out.push('.');
        push_decimal(out, self.revision().into());
    }
}

/// How far the files of a job are. The C agent tells the blocks of its one file; of a target that is fed afterwards the same
/// is told in bytes, and in a job of several files how far each of them is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress(String);

impl Progress {
    /// Adds the file at hand, or with its id one of several: so many blocks received, or bytes installed, of how many. The
    /// service takes [`DETAILS_MAX_COUNT`] of them.
    pub fn push(&mut self, file: Option<u32>, installs: bool, (done, total): (u64, u64)) {
        let out = &mut self.0;
        if !out.is_empty() {
            out.push(',');
        }
        out.push('"');
        let mut lead = VALUE;
        if let Some(file) = file {
            out.push_str("file-");
            push_decimal(out, file.into());
            out.push_str(VALUE);
            lead = " ";
        }
        out.push_str(if installs { "install" } else { "receive" });
        out.push_str(lead);
        push_decimal(out, done);
        out.push('/');
        push_decimal(out, total);
        out.push('"');
    }
}

/// Between the name of a member and its text.
const VALUE: &str = "\":\"";

/// Every status that an agent sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// IN_PROGRESS, how far the files are.
    Progress(Progress),
    /// IN_PROGRESS, everything is verified; `updatedBy` is the version that runs and sends this.
    SelfTestReady(VersionWord),
    /// IN_PROGRESS, the new image runs and is tested; `updatedBy` is the version that runs and sends this.
    SelfTestActive(VersionWord),
    /// SUCCEEDED.
    Accepted {
        /// The version that runs.
        running: VersionWord,
        /// The version that did the download, from the job.
        updated_by: VersionWord,
    },
    /// SUCCEEDED for a file that is not firmware. The C agent writes the file type where the version belongs.
    AcceptedFile {
        /// `fileType` of the job.
        file_type: u32,
    },
    /// FAILED, `rejected: 0x<code>`.
    Rejected {
        /// OtaErr, ours, or a whole PAL status; 0 = the application's or operator's verdict.
        code: u32,
    },
    /// FAILED, `aborted: 0x<code>`.
    Aborted {
        /// OtaErr, ours, or a whole PAL status.
        code: u32,
    },
    /// FAILED, `0x<main>: 0x<sub>`.
    Failed {
        /// Whose code it is.
        main: u32,
        /// That owner's number.
        sub: u32,
    },
    /// REJECTED with a reason: a job that was offered and declined. Legal only while the execution is QUEUED.
    Declined(Reason),
    /// How a job ends, or goes on, that somebody else runs.
    Custom(CustomResult),
}

impl Status {
    /// The payload of the update.
    #[must_use]
    pub fn payload(&self, token: ClientToken) -> String {
        Self::with_token(self.head(), token)
    }

    /// The payload without its token, for a status that is sent more than once.
    #[must_use]
    pub fn head(&self) -> String {
        let mut out = String::with_capacity(160);
        out.push_str("{\"status\":\"");
        out.push_str(self.word());
        out.push_str("\",\"statusDetails\":{");
        self.push_details(&mut out);
        out.push('}');
        out
    }

    /// The payload of a [`Self::head`].
    #[must_use]
    pub fn with_token(mut head: String, token: ClientToken) -> String {
        head.push_str(",\"clientToken\":\"");
        token.push(&mut head);
        head.push_str("\"}");
        head
    }

    /// The status word of the Jobs service.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Progress(_) | Self::SelfTestReady(_) | Self::SelfTestActive(_) => "IN_PROGRESS",
            Self::Accepted { .. } | Self::AcceptedFile { .. } => "SUCCEEDED",
            Self::Rejected { .. } | Self::Aborted { .. } | Self::Failed { .. } => "FAILED",
            Self::Declined(_) => "REJECTED",
            Self::Custom(result) => result.status.word(),
        }
    }

    /// Whether this is mere progress: sent with QoS 0, all others with QoS 1.
    #[must_use]
    pub const fn is_progress(&self) -> bool {
        matches!(self, Self::Progress(_))
    }

    /// Whether the job is over once the service has taken this.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.word() != "IN_PROGRESS"
    }

    fn push_details(&self, out: &mut String) {
        match self {
            Self::Progress(progress) => out.push_str(&progress.0),
            Self::SelfTestReady(version) => push_self_test(out, "ready", *version),
            Self::SelfTestActive(version) => push_self_test(out, "active", *version),
            Self::Accepted {
                running,
                updated_by,
            } => push_accepted(out, *running, *updated_by),
            Self::AcceptedFile { file_type } => {
                push_accepted(out, VersionWord(*file_type), VersionWord(0));
            }
            Self::Rejected { code } => push_reason(out, "rejected: 0x", *code, None),
            Self::Aborted { code } => push_reason(out, "aborted: 0x", *code, None),
            Self::Failed { main, sub } => push_reason(out, "0x", *main, Some(*sub)),
            Self::Declined(reason) => push_pair(out, "reason", &reason.0),
            Self::Custom(result) => {
                for (index, (key, value)) in result.details.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_pair(out, key, value);
                }
            }
        }
    }
}

fn push_self_test(out: &mut String, value: &str, version: VersionWord) {
    out.push_str("\"self_test\":\"");
    out.push_str(value);
    out.push_str("\",\"updatedBy\":\"0x");
    push_hex8(out, version.0);
    out.push('"');
}

fn push_accepted(out: &mut String, running: VersionWord, updated_by: VersionWord) {
    out.push_str("\"reason\":\"accepted  ");
    running.push(out);
    out.push_str("\",\"updatedBy\":\"  ");
    updated_by.push(out);
    out.push('"');
}

fn push_reason(out: &mut String, lead: &str, code: u32, sub: Option<u32>) {
    out.push_str("\"reason\":\"");
    out.push_str(lead);
    push_hex8(out, code);
    if let Some(sub) = sub {
        out.push_str(": 0x");
        push_hex8(out, sub);
    }
    out.push('"');
}

fn push_pair(out: &mut String, key: &str, value: &str) {
    out.push('"');
    push_json_escaped(out, key);
    out.push_str("\":\"");
    push_json_escaped(out, value);
    out.push('"');
}

/// Most bytes of a value in statusDetails, the service's limit.
pub const DETAIL_VALUE_MAX_BYTES: usize = 1024;
/// Most bytes of a key in statusDetails, the service's limit.
pub const DETAIL_KEY_MAX_BYTES: usize = 128;
/// Most pairs in statusDetails, the service's limit.
pub const DETAILS_MAX_COUNT: usize = 10;

/// Why details cannot be sent. Whoever gave them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetailsError {
    /// More than [`DETAILS_MAX_COUNT`] pairs.
    TooMany(usize),
    /// The key of this pair is empty, too long, or has a byte other than `[a-zA-Z0-9:_-]`.
    BadKey(usize),
    /// The key of this pair stood before.
    DuplicateKey(usize),
    /// The value of this pair is empty or has more than [`DETAIL_VALUE_MAX_BYTES`] bytes.
    ValueLength(usize),
    /// The value of this pair has a control character.
    ValueNotPrintable(usize),
    /// The number is no status that a job can be given: 0 to 3.
    BadStatus(u8),
}

impl fmt::Display for DetailsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(count) => {
                write!(
                    f,
                    "{count} status details, at most {DETAILS_MAX_COUNT} are allowed"
                )
            }
            Self::BadKey(at) => write!(f, "the key of status detail {at} is not legal"),
            Self::DuplicateKey(at) => write!(f, "the key of status detail {at} stood before"),
            Self::ValueLength(at) => write!(
                f,
                "the value of status detail {at} must have 1 to {DETAIL_VALUE_MAX_BYTES} bytes"
            ),
            Self::ValueNotPrintable(at) => {
                write!(f, "the value of status detail {at} has a control character")
            }
            Self::BadStatus(number) => write!(f, "{number} is no job status, expected 0 to 3"),
        }
    }
}

impl core::error::Error for DetailsError {}

fn check_value(at: usize, value: &str) -> Result<(), DetailsError> {
    if value.is_empty() || value.len() > DETAIL_VALUE_MAX_BYTES {
        return Err(DetailsError::ValueLength(at));
    }
    if value.chars().any(char::is_control) {
        return Err(DetailsError::ValueNotPrintable(at));
    }
    Ok(())
}

fn check_details(details: &[(String, String)]) -> Result<(), DetailsError> {
    if details.len() > DETAILS_MAX_COUNT {
        return Err(DetailsError::TooMany(details.len()));
    }
    for (at, (key, value)) in details.iter().enumerate() {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
        if key.is_empty() || key.len() > DETAIL_KEY_MAX_BYTES || !key.bytes().all(legal) {
            return Err(DetailsError::BadKey(at));
        }
        if details.iter().take(at).any(|(earlier, _)| earlier == key) {
            return Err(DetailsError::DuplicateKey(at));
        }
        check_value(at, value)?;
    }
    Ok(())
}

/// Why a job was declined: 1 to 1024 printable bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// Checks and keeps a reason.
    ///
    /// # Errors
    /// [`DetailsError`] if it is empty, too long or not printable.
    pub fn new(text: &str) -> Result<Self, DetailsError> {
        check_value(0, text)?;
        Ok(Self(String::from(text)))
    }

    /// The reason as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The status of a job that somebody else runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomStatus {
    /// It goes on.
    InProgress,
    /// It failed.
    Failed,
    /// It succeeded.
    Succeeded,
    /// It was refused; legal only while the execution is QUEUED.
    Rejected,
}

impl CustomStatus {
    /// The status of an OtaJobStatus number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::InProgress),
            1 => Some(Self::Failed),
            2 => Some(Self::Succeeded),
            3 => Some(Self::Rejected),
            _ => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Failed => "FAILED",
            Self::Succeeded => "SUCCEEDED",
            Self::Rejected => "REJECTED",
        }
    }
}

/// A checked result of a job that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomResult {
    status: CustomStatus,
    details: Vec<(String, String)>,
}

impl CustomResult {
    /// Checks and keeps a result; `status` is an OtaJobStatus number.
    ///
    /// # Errors
    /// [`DetailsError`] if the service would refuse it.
    pub fn new(status: u8, details: Vec<(String, String)>) -> Result<Self, DetailsError> {
        let status = CustomStatus::from_code(status).ok_or(DetailsError::BadStatus(status))?;
        check_details(&details)?;
        Ok(Self { status, details })
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> CustomStatus {
        self.status
    }

    /// The details.
    #[must_use]
    pub fn details(&self) -> &[(String, String)] {
        &self.details
    }
}

#[cfg(test)]
mod tests;
