//! The client's half: one command or one upload at a time over a line that loses things.
//!
//! ```text
//!   begin / upload ──► poll ──► output (bytes to write)
//!                       ▲ │
//!        receive(bytes) ┘ └──► deadline (poll again then), Done(answer or error)
//! ```
//!
//! Spurious calls are harmless. What a target's images mean, and what to do about an error, is the caller's matter.

mod command;
mod push;
mod timer;
mod whole;
mod window;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub use command::Order;
pub use push::Plan;
pub use whole::Whole;
pub use window::WINDOW_MAX;

use crate::code::Refusal;
use crate::frame::{Decoder, Framing};
use crate::header::{Header, Version};
use crate::reply::{Parameters, Reply};
use crate::request::Request;
use command::Command;
use push::Push;

/// Largest packet that is taken from a server, and the largest that is sent: 8 KiB, twice the largest buffer of servers
/// that exist.
pub const PACKET_MAX_BYTES: usize = 8192;
/// Packets kept until they are looked at: more than any window.
const INBOX_MAX: usize = 16;
/// Servers that do not tell have room for two lines at least.
const ASSUMED: Parameters = Parameters {
    buf_size: 256,
    buf_count: 1,
};

/// What is known about the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// How packets lie on it.
    pub framing: Framing,
    /// Bits a second; 0 = not known (a network).
    pub baud: u32,
    /// Packets in flight at most, 1 to [`WINDOW_MAX`]; 1 = stop and wait.
    pub window_max: u8,
}

/// Where the work stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nothing was begun, or its end was told already.
    Idle,
    /// Write the output, poll again at the deadline or when something arrives.
    Working,
    /// It is over.
    Done(Result<Reply, ClientError>),
}

/// Why a command or an upload did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No answer to any try.
    Silent,
    /// The server refused.
    Refused(Refusal),
    /// Answers came that are none.
    Malformed,
    /// The bytes of the file cannot be read.
    Source,
    /// The server's buffers are too small for an upload.
    TooSmall,
    /// The server says that the file it got has another digest.
    Mismatch,
    /// The upload had to begin anew too often: the target restarts, or somebody else uploads.
    Restarts,
    /// The upload was lost, and it is the bootloader's own server that answers: it would write over what is to run.
    Recovery,
}

impl core::fmt::Display for ClientError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Silent => "the target does not answer",
            Self::Refused(refusal) => return write!(f, "the target refused: {refusal}"),
            Self::Malformed => "the target answers something that is no SMP",
            Self::Source => "the file cannot be read",
            Self::TooSmall => "the target's buffers are too small for an upload",
            Self::Mismatch => "the target got other bytes than were sent",
            Self::Restarts => "the target lost the upload again and again",
            Self::Recovery => "the target lost the upload and is in its bootloader's recovery",
        })
    }
}

impl core::error::Error for ClientError {}

/// The file of an upload. It may still be growing.
pub trait Source {
    /// Bytes that can be read, without a gap from the start.
    fn held(&mut self) -> u64;
    /// Fills `into` from `offset` on, below `held`; false where it cannot be read.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> bool;
    /// The hash by which the server will list the image; none as long as it is not known.
    fn hash(&mut self) -> Option<Vec<u8>>;
}

/// No file, for commands.
impl Source for () {
    fn held(&mut self) -> u64 {
        0
    }
    fn read(&mut self, _: u64, _: &mut [u8]) -> bool {
        false
    }
    fn hash(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// The client.
#[derive(Debug)]
pub struct Client {
    link: Link,
    sizes: Parameters,
    window_max: u8,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Idle,
    Command(Command),
    Push(Box<Push>),
}

impl Client {
    /// A client that speaks version 2 until a probe finds out otherwise.
    #[must_use]
    pub const fn new(config: ClientConfig) -> Self {
        Self {
            link: Link {
                framing: config.framing,
                baud: config.baud,
                decoder: Decoder::new(config.framing, PACKET_MAX_BYTES),
                inbox: VecDeque::new(),
                output: Vec::new(),
                free_us: 0,
                sequence: 0,
                version: Version::V2,
            },
            sizes: ASSUMED,
            window_max: config.window_max,
            work: Work::Idle,
        }
    }

    /// Begins a command; what was under way is dropped.
    pub fn begin(&mut self, now_ms: u64, order: Order) {
        self.work = Work::Command(Command::new(now_ms, order, &mut self.link));
    }

    /// Begins an upload; what was under way is dropped.
    pub fn upload(&mut self, now_ms: u64, plan: Plan) {
        let window = self.window();
        let packet_max = (self.sizes.buf_size as usize)
            .saturating_sub(crate::console::OVERHEAD_BYTES)
            .min(PACKET_MAX_BYTES);
        self.work = Work::Push(Box::new(Push::new(now_ms, plan, packet_max, window)));
    }

    /// Drops what is under way.
    pub fn cancel(&mut self) {
        self.work = Work::Idle;
        self.link.output.clear();
    }

    /// Sizes of the server's buffers, for uploads. Ask again whenever the target has restarted.
    pub const fn set_sizes(&mut self, sizes: Option<Parameters>) {
        self.sizes = match sizes {
            Some(sizes) => sizes,
            None => ASSUMED,
        };
    }

    /// Requests that may be under way: one buffer stays for the answer.
    fn window(&self) -> usize {
        let room = self.sizes.buf_count.saturating_sub(1);
        usize::try_from(room)
            .unwrap_or(WINDOW_MAX)
            .min(self.window_max.into())
            .clamp(1, WINDOW_MAX)
    }

    /// The version that is spoken.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.link.version
    }

    /// Speaks that version from now on.
    pub const fn set_version(&mut self, version: Version) {
        self.link.version = version;
    }

    /// Takes what has arrived.
    pub fn receive(&mut self, now_ms: u64, bytes: &[u8]) {
        self.link.receive(now_ms, bytes);
    }

    /// Goes on with the work.
    pub fn poll(&mut self, now_ms: u64, source: &mut impl Source) -> Poll {
        let result = match &mut self.work {
            Work::Idle => {
                self.link.inbox.clear();
                return Poll::Idle;
            }
            Work::Command(command) => command.poll(now_ms, &mut self.link),
            Work::Push(push) => push.poll(now_ms, &mut self.link, source),
        };
        match result {
            None => Poll::Working,
            Some(result) => {
                self.work = Work::Idle;
                Poll::Done(result)
            }
        }
    }

    /// Bytes that are to be written.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.link.output
    }

    /// So many of them were.
    pub fn written(&mut self, count: usize) {
        let count = count.min(self.link.output.len());
        self.link.output.drain(..count);
    }

    /// When to poll again, if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        match &self.work {
            Work::Idle => None,
            Work::Command(command) => Some(command.deadline()),
            Work::Push(push) => push.deadline(),
        }
    }

    /// Whether the upload waits for more of the file.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        match &self.work {
            Work::Push(push) => push.is_starved(),
            Work::Idle | Work::Command(_) => false,
        }
    }

    /// Bytes of the upload that the server has.
    #[must_use]
    pub fn uploaded(&self) -> u64 {
        match &self.work {
            Work::Push(push) => push.acknowledged(),
            Work::Idle | Work::Command(_) => 0,
        }
    }
}

/// The line as the work sees it.
#[derive(Debug)]
struct Link {
    framing: Framing,
    baud: u32,
    decoder: Decoder,
    inbox: VecDeque<(Header, Vec<u8>)>,
    output: Vec<u8>,
    /// When the bytes sent so far will have left, in microseconds.
    free_us: u64,
    sequence: u8,
    version: Version,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    header: Header,
    /// When its last byte will have left, in ms.
    left_ms: u64,
}

impl Link {
    /// Sends with a sequence number of its own, also what was sent before: a late answer is told from a new one.
    fn send(&mut self, now_ms: u64, request: &Request<'_>) -> Sent {
        let packet = request.encode(self.version, self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        let wire = self.framing.encode(&packet);
        let start = self.free_us.max(now_ms.saturating_mul(1000));
        self.free_us = start + self.wire_us(wire.len());
        self.output.extend_from_slice(&wire);
        Sent {
            header: Header::parse(&packet).unwrap_or_default(),
            left_ms: self.free_us.div_ceil(1000),
        }
    }

    /// 8N1: ten bits a byte.
    const fn wire_us(&self, bytes: usize) -> u64 {
        match self.baud {
            0 => 0,
            baud => bytes as u64 * 10_000_000 / baud as u64,
        }
    }

    /// Ends a half line that may be on the way, and forgets what has arrived.
    fn clear(&mut self) {
        self.output.extend_from_slice(self.framing.clearing());
        self.inbox.clear();
        self.decoder.forget();
    }

    fn receive(&mut self, now_ms: u64, bytes: &[u8]) {
        let mut packets = Vec::new();
        self.decoder.push(now_ms, bytes, &mut packets);
        for packet in packets {
            let Some(header) = Header::parse(&packet) else {
                continue;
            };
            if let Some(payload) = header.payload(&packet) {
                // Nobody waits for so many: the oldest is a late one.
                if self.inbox.len() == INBOX_MAX {
                    self.inbox.pop_front();
                }
                self.inbox.push_back((header, payload.to_vec()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
