//! What host and child say to each other: frames over a socket pair.
//!
//! ```text
//!   u32 length of meta │ u32 length of data │ meta: one message, postcard │ data: bytes of storage or of the line
//! ```
//!
//! Both lengths are little-endian and checked before anything is read. The child is the same program, but a plugin that
//! has taken it over may write what it likes: on the host's side everything is hostile until it is parsed, and nothing
//! is taken that does not fit what was asked. Here is no order of messages and no time; those are `process.rs`.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plugin::lend::{LineParameters, Region, TRANSFER_MAX_BYTES};
use crate::plugin::{Description, Duty, Extent, Transfer};
use crate::types::{Blob, Failure, Level, Setting};

/// Both sides are mostly one program, of the same file even after that was replaced; an application's children are of the
/// `otad` that is installed, which may be newer. Counted up with every change of a message; a child of another one refuses.
const PROTOCOL: u32 = 2;

/// Most bytes of a message from the child: saved state of 64 KiB, and half as much for what is round it.
pub(super) const CHILD_META_MAX_BYTES: u32 = 96 * 1024;

/// Most bytes of a message to the child: saved state of 64 KiB, and some hundred settings of 4 KiB.
pub(super) const HOST_META_MAX_BYTES: u32 = 1024 * 1024;

/// From the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// First, and once.
    Start(Start),
    /// A duty; `write_block` has its block as data.
    Call(Call),
    /// What was lent; bytes that were read are the data.
    Lent(Result<Loan, Failure>),
}

/// How the child is to live.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    protocol: u32,
    pub(super) confinement: Confinement,
}

impl Start {
    pub(super) fn new(confinement: Confinement) -> Self {
        Self {
            protocol: PROTOCOL,
            confinement,
        }
    }

    /// Whether a host that speaks as this build does has said it.
    pub(super) const fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }
}

/// What the operator lets a plugin's process do beside what it is lent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Directories that it may read and write in. The first one is its working directory.
    pub directories: Vec<PathBuf>,
    /// Devices that it may open.
    pub devices: Vec<PathBuf>,
    /// Run it even where the kernel has no landlock or no seccomp.
    pub allow_unconfined: bool,
    /// Memory beside what the program has already; without it [`super::MEMORY_MAX_BYTES`].
    pub memory_max_bytes: Option<u64>,
}

/// From the child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// To `Start`.
    Started(Result<Started, String>),
    /// To `Call`.
    Answer(Result<Answered, Failure>),
    /// Within a call; bytes to be written are the data.
    Lend(Lend),
}

/// The library is loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) description: Description,
    /// Bits, as in `ota_pal.h`.
    pub(super) needs: u32,
    /// What the kernel could not do for its confinement, in words; empty = nothing.
    pub(super) lacking: Vec<String>,
}

/// A duty's call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Open {
        settings: Vec<Setting>,
        saved: Option<Blob>,
    },
    Create(Transfer),
    Reopen(Transfer),
    WriteBlock {
        offset: u64,
    },
    Extents,
    Examine,
    Install,
    Activate([u8; 32]),
    Reset,
    SelfTest,
    Commit,
    Reject,
    State,
    Abort,
    Step(u32),
    Suspend,
}

impl Call {
    /// For people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Create(_) => "create",
            Self::Reopen(_) => "reopen",
            Self::WriteBlock { .. } => "write-block",
            Self::Extents => "extents",
            Self::Examine => "examine",
            Self::Install => "install",
            Self::Activate(_) => "activate",
            Self::Reset => "reset",
            Self::SelfTest => "self-test",
            Self::Commit => "commit",
            Self::Reject => "reject",
            Self::State => "state",
            Self::Abort => "abort",
            Self::Step(_) => "step",
            Self::Suspend => "suspend",
        }
    }
}

/// What a call answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answered {
    Opened,
    Duty(Duty),
    Extents(Vec<Extent>),
    Saved(Blob),
}

impl Answered {
    /// Whether there is more to be done before the call is over.
    pub(super) fn is_working(&self) -> bool {
        matches!(self, Self::Duty(Duty::Working { .. }))
    }
}

/// A call of what is lent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Lend {
    Regions,
    ReadAt {
        region: u32,
        offset: u64,
        length: u32,
    },
    WriteAt {
        region: u32,
        offset: u64,
    },
    Erase {
        region: u32,
        offset: u64,
        length: u64,
    },
    Sync(u32),
    Held,
    Verified,
    ReadStaged {
        offset: u64,
        length: u32,
    },
    OpenLine(LineParameters),
    WriteLine,
    ReadLine(u32),
    Unsent,
    Drain,
    SetLine {
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    },
    CloseLine,
    Pulse(u32),
    NowMs,
    Log(Level, String),
}

/// What was lent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Loan {
    Nothing,
    /// Beside the message.
    Bytes,
    Number(u64),
    Regions(Vec<Region>),
}

/// Why a frame could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is gone.
    #[error("the channel is closed")]
    Closed,
    /// Not in time, or the socket failed.
    #[error(transparent)]
    Io(io::Error),
    /// Longer than any message may be.
    #[error("a frame of {meta} and {data} bytes, at most {meta_max} and {TRANSFER_MAX_BYTES}")]
    TooLong {
        /// Bytes of the message that it announces.
        meta: u32,
        /// Bytes of data that it announces.
        data: u32,
        /// Most bytes of a message in this direction.
        meta_max: u32,
    },
    /// No such message.
    #[error("a frame that is no message: {0}")]
    Malformed(postcard::Error),
}

/// Send one frame.
pub(super) fn send(
    out: &mut impl Write,
    message: &impl Serialize,
    data: &[u8],
) -> Result<(), WireError> {
    let gone = |e: io::Error| match e.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => WireError::Closed,
        _ => WireError::Io(e),
    };
    let mut frame = vec![0; 8];
    frame = postcard::to_extend(message, frame).map_err(WireError::Malformed)?;
    let meta = u32::try_from(frame.len() - 8).unwrap_or(u32::MAX);
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    if meta > HOST_META_MAX_BYTES || length > TRANSFER_MAX_BYTES {
        return Err(WireError::TooLong {
            meta,
            data: length,
            meta_max: HOST_META_MAX_BYTES,
        });
    }
    frame[..4].copy_from_slice(&meta.to_le_bytes());
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(data);
    out.write_all(&frame).map_err(gone)
}

/// Receive one frame, whose message has at most `meta_max` bytes.
pub(super) fn receive<T: DeserializeOwned>(
    from: &mut impl Read,
    meta_max: u32,
) -> Result<(T, Vec<u8>), WireError> {
    let mut head = [0; 8];
    fill(from, &mut head)?;
    let [a, b, c, d, e, f, g, h] = head;
    let (meta, data) = (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    );
    if meta > meta_max || data > TRANSFER_MAX_BYTES {
        return Err(WireError::TooLong {
            meta,
            data,
            meta_max,
        });
    }
    let mut text = vec![0; meta as usize];
    fill(from, &mut text)?;
    let mut bytes = vec![0; data as usize];
    fill(from, &mut bytes)?;
    let (message, rest) = postcard::take_from_bytes(&text).map_err(WireError::Malformed)?;
    if !rest.is_empty() {
        return Err(WireError::Malformed(
            postcard::Error::DeserializeBadEncoding,
        ));
    }
    Ok((message, bytes))
}

/// Read one frame as the host reads it of a plugin's process, and say how many bytes of `bytes` it has: for who tries the
/// parser with whatever a plugin may write.
///
/// # Errors
/// What stands there is no frame of a child's.
pub fn child_frame(mut bytes: &[u8]) -> Result<usize, WireError> {
    let all = bytes.len();
    let _: (FromChild, _) = receive(&mut bytes, CHILD_META_MAX_BYTES)?;
    Ok(all - bytes.len())
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<(), WireError> {
    from.read_exact(buffer).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => WireError::Closed,
        _ => WireError::Io(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &impl Serialize, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        send(&mut out, message, data).unwrap();
        out
    }

    fn read(frame: &[u8]) -> Result<(FromChild, Vec<u8>), WireError> {
        receive(&mut &frame[..], CHILD_META_MAX_BYTES)
    }

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let lend = FromChild::Lend(Lend::WriteAt {
            region: 3,
            offset: u64::MAX,
        });
        let (back, data) = read(&frame(&lend, b"block")).unwrap();
        assert_eq!(format!("{back:?}"), format!("{lend:?}"));
        assert_eq!(data, b"block");
    }

    #[test]
    fn lengths_are_judged_before_anything_is_read() {
        let head = |meta: u32, data: u32| {
            let mut head = meta.to_le_bytes().to_vec();
            head.extend(data.to_le_bytes());
            head
        };
        for (meta, data, too_long) in [
            (CHILD_META_MAX_BYTES, TRANSFER_MAX_BYTES, false),
            (CHILD_META_MAX_BYTES + 1, 0, true),
            (0, TRANSFER_MAX_BYTES + 1, true),
            (u32::MAX, u32::MAX, true),
        ] {
            let end = read(&head(meta, data)).unwrap_err();
            let is = matches!(end, WireError::TooLong { .. });
            assert_eq!(is, too_long, "{meta} {data}: {end}");
        }
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_is_a_typed_refusal_or_another_message() {
        let saved = Answered::Saved(Blob {
            schema: 1,
            bytes: vec![7; 40],
        });
        let whole = frame(&FromChild::Answer(Ok(saved)), b"xy");
        for length in 0..whole.len() {
            assert!(
                matches!(read(&whole[..length]), Err(WireError::Closed)),
                "{length}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            drop(read(&bytes));
        }
    }

    #[test]
    fn a_frame_is_as_long_as_it_says_and_what_follows_is_the_next_one() {
        let mut bytes = frame(&FromChild::Lend(Lend::Held), b"data");
        let length = bytes.len();
        bytes.extend(frame(&FromChild::Lend(Lend::Regions), b""));
        assert_eq!(child_frame(&bytes).unwrap(), length);
        assert!(child_frame(&bytes[length..]).is_ok());
    }

    #[test]
    fn a_message_with_something_behind_it_is_refused() {
        let mut bytes = frame(&FromChild::Lend(Lend::Held), b"");
        bytes[0] += 1;
        bytes.push(0);
        assert!(matches!(read(&bytes), Err(WireError::Malformed(_))));
    }
}
