//! The words of the contract, as the host speaks them.
//!
//! Twins of `wit/agent/types.wit` and `wit/pal/types.wit`, which are the authority on meaning, units and codes. The
//! generated bindings are converted to these at the edge (`agent/convert.rs`, `plugin/component.rs`) and go no further,
//! so that a target does not know in which carrier its plugin runs, and a sandbox needs no wasm for its ports.
//! Not here: anything about MQTT topics, AWS or the agent's states.

use std::fmt;

/// Names one operation under way. Made by the host, never 0, never reused while the process lives.
pub type Token = u64;

/// `fileid` of a job document: selects the target within a device.
pub type FileId = u32;

/// Smallest block, in bytes; the limit of MQTT file streams.
pub const BLOCK_MIN_BYTES: u64 = 256;

/// Most bytes that an agent may have asked for and not written yet: 64 requests of 128 KiB. Half of it fills 100 Mbit/s
/// at a round trip of 300 ms.
pub const WINDOW_MAX_BYTES: u64 = 64 * 128 * 1024;

/// A firmware version; order is field by field.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
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

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.revision)?;
        if self.build != 0 {
            write!(f, "+{}", self.build)?;
        }
        Ok(())
    }
}

/// Codes of `failure.main` that the host itself gives; the whole table is in `wit/agent/types.wit`.
pub mod code {
    /// Agent: an older version than what runs. Where the host alone knows what ran, it says so itself.
    pub const DOWNGRADE: u8 = 0x0f;
    /// Bad argument: unknown file id, offset off the grid, name not allowed.
    pub const BAD_ARGUMENT: u8 = 0xd0;
    /// A limit was reached.
    pub const LIMIT: u8 = 0xd1;
    /// No verified image now.
    pub const NOT_VERIFIED: u8 = 0xd2;
    /// Wrong product or hardware.
    pub const WRONG_PRODUCT: u8 = 0xd3;
    /// Target unreachable.
    pub const UNREACHABLE: u8 = 0xd4;
    /// The plugin failed: trap, hang, killed.
    pub const PLUGIN_FAILED: u8 = 0xd5;
    /// Storage; sub = errno.
    pub const STORAGE: u8 = 0xd6;
    /// Cancelled.
    pub const CANCELLED: u8 = 0xd7;
    /// Not connected.
    pub const NOT_CONNECTED: u8 = 0xd8;
    /// Timed out in the host.
    pub const TIMED_OUT: u8 = 0xd9;
    /// This target cannot do that.
    pub const UNSUPPORTED: u8 = 0xda;
    /// Nothing is held under that name.
    pub const NOT_FOUND: u8 = 0xdb;
    /// Busy, or a call out of order.
    pub const BUSY: u8 = 0xdc;
    /// The bootloader cannot revert.
    pub const NO_REVERT: u8 = 0xdd;
    /// An extra verification step refused the image.
    pub const EXTRA_CHECK: u8 = 0xde;
    /// Saved state of an unknown schema.
    pub const SCHEMA: u8 = 0xdf;
    /// PAL: signature check failed.
    pub const SIGNATURE: u8 = 0xe3;
    /// PAL: cannot receive.
    pub const CREATE_FAILED: u8 = 0xe4;
    /// PAL: file too large.
    pub const TOO_LARGE: u8 = 0xe5;
    /// PAL: bad signer certificate.
    pub const BAD_SIGNER_CERT: u8 = 0xe7;
    /// PAL: wrong state for this.
    pub const BAD_IMAGE_STATE: u8 = 0xe8;
    /// PAL: activate failed.
    pub const ACTIVATE_FAILED: u8 = 0xec;
    /// PAL: close failed; blocks are missing.
    pub const FILE_CLOSE: u8 = 0xee;
}

/// Most bytes of [`Failure::detail`].
pub const DETAIL_MAX_BYTES: usize = 256;

/// Why something failed: `main` says whose code it is, `sub` is that owner's number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{detail} (0x{main:02x}:{sub})")]
pub struct Failure {
    /// Table in `wit/agent/types.wit`.
    pub main: u8,
    /// Detail number, 24 bits are used on the wire.
    pub sub: u32,
    /// One line for people, lower case, at most [`DETAIL_MAX_BYTES`].
    pub detail: String,
}

impl Failure {
    /// A failure; a detail over the limit is cut at a character.
    #[must_use]
    pub fn new(main: u8, sub: u32, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_MAX_BYTES {
            let cut = (0..=DETAIL_MAX_BYTES)
                .rev()
                .find(|i| detail.is_char_boundary(*i))
                .unwrap_or(0);
            detail.truncate(cut);
        }
        Self { main, sub, detail }
    }

    /// Storage failed: `sub` is the errno, `what` names the step and the place.
    #[must_use]
    pub fn storage(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let errno = error
            .raw_os_error()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0);
        Self::new(code::STORAGE, errno, format!("{what}: {error}"))
    }
}

/// Saved state with the number of its encoding.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Blob {
    /// Encoding of `bytes`.
    pub schema: u32,
    /// The state.
    pub bytes: Vec<u8>,
}

/// One key and its value, both text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Setting {
    /// snake_case, at most 64 bytes.
    pub key: String,
    /// At most 4 KiB.
    pub value: String,
}

/// What the host found out about an image while it verified it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageInfo {
    /// Bytes under the signature.
    pub size: u64,
    /// SHA-256 of these bytes.
    pub sha256: [u8; 32],
    /// From bytes under the signature; `None` = known only after a restart.
    pub version: Option<Version>,
    /// Product or hardware the image says it is for.
    pub product: Option<String>,
    /// Label of the trust-store entry that verified it, or `unsigned`.
    pub signer: String,
}

/// What a target says about itself; codes in `wit/agent/types.wit`, record `target-state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TargetState {
    /// 0 unknown, 1 pending commit, 2 valid, 3 invalid, 4 armed, 5 foreign.
    pub code: u8,
    /// Version that runs now.
    pub running: Option<Version>,
    /// Whether the running image is the one of the target's transfer.
    pub runs_new: Option<bool>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// Done, nothing to tell.
    Nothing,
    /// `pal.reopen`: block i is bit i % 8 of byte i / 8.
    Held(#[serde(with = "crate::agent::octets")] Vec<u8>),
    /// `pal.close`.
    Verified(ImageInfo),
    /// `pal.state`.
    State(TargetState),
    /// For functions of later versions.
    Other(#[serde(with = "crate::agent::octets")] Vec<u8>),
    /// It did not work; nothing of it goes on.
    Failed(Failure),
}

/// What a call that may take time returned.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Started {
    /// Over already.
    Done(Outcome),
    /// It goes on; exactly one completion with this token follows.
    Pending(Token),
}

/// What a job document says about a file (`pal.file-spec`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileSpec {
    /// With device and file id the durable name of the transfer.
    pub job_id: String,
    /// The target.
    pub file_id: FileId,
    /// Bytes in the file, at least 1.
    pub size: u64,
    /// Grid of the block map, 256 to 131072 bytes.
    pub block_size: u32,
    /// `fileType`.
    pub file_type: u32,
    /// `attr`.
    pub attributes: u32,
    /// `filepath`.
    pub path: String,
    /// `certfile`: a label of the trust store, empty = the target's default.
    pub certificate: String,
    /// Key of the signature in the job document; empty = none.
    pub signature_kind: String,
    /// The signature, decoded.
    #[serde(with = "crate::target::hex")]
    pub signature: Vec<u8>,
}

/// Severity of a log line.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Level {
    /// Every step.
    Trace,
    /// Batches of blocks, requests.
    Debug,
    /// What an operator wants to read.
    Info,
    /// Someone should look.
    Warn,
    /// It does not work.
    Error,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
    ];
}

/// MQTT quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}
