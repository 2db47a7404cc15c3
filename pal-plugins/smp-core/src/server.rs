//! The server's half: takes packets, asks the [`Device`] behind it, writes answers. It holds what a real server holds in
//! RAM, the upload under way, so making a new one is a restart. Frames, time and flash are the caller's.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{Refusal, image_rc, rc};
use crate::header::{Header, op};
use crate::mcuboot;
use crate::reply::{Dialect, ImageState, Parameters, Reply, SlotSize};
use crate::request::{Request, Upload};

/// What a command comes to; the refusal is what the client is told.
pub type Outcome<T> = Result<T, Refusal>;

const UNSUPPORTED: Refusal = Refusal::generic(rc::UNSUPPORTED);

/// What is behind a server: flash, bootloader, the application. What a device does not have is refused as a server that
/// was built without it refuses it.
pub trait Device {
    /// Sizes of the server's buffers.
    ///
    /// # Errors
    /// Not built in.
    fn parameters(&mut self) -> Outcome<Parameters>;

    /// The images that are there.
    ///
    /// # Errors
    /// The flash.
    fn images(&mut self) -> Outcome<Vec<ImageState>>;

    /// Marks the image with this hash for test or confirms it; none = the running one.
    ///
    /// # Errors
    /// No such image, or not in this state.
    fn set_state(&mut self, hash: Option<&[u8]>, confirm: bool) -> Outcome<()>;

    /// An upload of `size` bytes begins: chooses the slot and erases it. `first` is the first chunk.
    ///
    /// # Errors
    /// No slot is free, too large, no image.
    fn upload_begin(&mut self, upload: &Upload<'_>, size: u64, first: &[u8]) -> Outcome<()>;

    /// Writes and says how many of the bytes were taken: fewer where only whole units are written.
    ///
    /// # Errors
    /// The flash; the upload is gone then.
    fn upload_write(&mut self, offset: u64, data: &[u8]) -> Outcome<usize>;

    /// All bytes are there; whether they have the digest that the client sent, where the server checks.
    fn upload_end(&mut self, sha: &[u8]) -> Option<bool>;

    /// Whether the file with this digest is in the slot already; only of servers that check.
    fn upload_holds(&mut self, _size: u64, _sha: &[u8]) -> bool {
        false
    }

    /// Erases a slot; none = the inactive one.
    ///
    /// # Errors
    /// It is in use.
    fn erase(&mut self, slot: Option<u32>) -> Outcome<()>;

    /// Restarts, after the answer is out.
    ///
    /// # Errors
    /// Busy: ask again with force.
    fn reset(&mut self, force: bool, boot_mode: Option<u32>) -> Outcome<()>;

    /// Says it back.
    ///
    /// # Errors
    /// Not built in.
    fn echo(&mut self, text: &str) -> Outcome<String> {
        Ok(text.into())
    }

    /// Console echo; only recovery has it.
    ///
    /// # Errors
    /// Not built in.
    fn console_echo(&mut self, _on: bool) -> Outcome<()> {
        Err(UNSUPPORTED)
    }

    /// Text about the system.
    ///
    /// # Errors
    /// Not built in.
    fn info(&mut self, _format: Option<&str>) -> Outcome<String> {
        Err(UNSUPPORTED)
    }

    /// About the bootloader: an answer of [`Reply::Bootloader`] or [`Reply::BootloaderMode`].
    ///
    /// # Errors
    /// Not built in.
    fn bootloader(&mut self, _query: Option<&str>) -> Outcome<Reply> {
        Err(UNSUPPORTED)
    }

    /// Sizes of slots.
    ///
    /// # Errors
    /// Not built in.
    fn slots(&mut self) -> Outcome<Vec<SlotSize>> {
        Err(UNSUPPORTED)
    }

    /// A command of the application's own: the payload of the answer.
    ///
    /// # Errors
    /// Not known.
    fn other(&mut self, _op: u8, _group: u16, _id: u8, _payload: &[u8]) -> Outcome<Vec<u8>> {
        Err(UNSUPPORTED)
    }
}

/// How a server is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// Shape of its answers.
    pub dialect: Dialect,
    /// Only version 1 is answered: recovery of mid-2023 and older drops everything else without a word.
    pub v1_only: bool,
    /// The first chunk has to begin with MCUboot's magic number (applications check that, recovery does not).
    pub checks_header: bool,
    /// More data than announced is refused (not by servers before that code existed).
    pub checks_overrun: bool,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    config: ServerConfig,
    session: Option<Session>,
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    size: u64,
    sha: Vec<u8>,
    next: u64,
}

impl Server {
    /// A server as it is after a start.
    #[must_use]
    pub const fn new(config: ServerConfig) -> Self {
        Self {
            config,
            session: None,
        }
    }

    /// How it is built.
    #[must_use]
    pub const fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The offset that the upload under way goes on with.
    #[must_use]
    pub fn expects(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.next)
    }

    /// Forgets the upload under way, as a restart does.
    pub fn forget(&mut self) {
        self.session = None;
    }

    /// Answers a packet; `None` where a server says nothing.
    pub fn handle(&mut self, device: &mut impl Device, packet: &[u8]) -> Option<Vec<u8>> {
        let header = Header::parse(packet)?;
        if self.config.v1_only && header.version != 0 {
            return None;
        }
        let reply = self
            .dispatch(device, &header, packet)
            .unwrap_or_else(Reply::Refused);
        Some(reply.encode(&header, &self.config.dialect))
    }

    fn dispatch(
        &mut self,
        device: &mut impl Device,
        header: &Header,
        packet: &[u8],
    ) -> Outcome<Reply> {
        let payload = header
            .payload(packet)
            .ok_or(Refusal::generic(rc::CORRUPT))?;
        if header.version > 1 {
            return Err(Refusal::generic(rc::TOO_NEW));
        }
        if header.op != op::READ && header.op != op::WRITE {
            return Err(Refusal::generic(rc::INVALID));
        }
        let request = Request::decode(header, payload).map_err(Refusal::generic)?;
        match request {
            Request::Echo(text) => device.echo(text).map(Reply::Echo),
            Request::ConsoleEcho(on) => device.console_echo(on).map(|()| Reply::Nothing),
            Request::Reset { force, boot_mode } => {
                device.reset(force, boot_mode).map(|()| Reply::Nothing)
            }
            Request::Parameters => device.parameters().map(Reply::Parameters),
            Request::Info(format) => device.info(format).map(Reply::Info),
            Request::Bootloader(query) => device.bootloader(query),
            Request::Images => device.images().map(Reply::Images),
            Request::State { hash, confirm } => {
                if hash.is_none() && !confirm {
                    return Err(Refusal::image(image_rc::INVALID_HASH));
                }
                device.set_state(hash, confirm)?;
                device.images().map(Reply::Images)
            }
            Request::Upload(upload) => self.upload(device, &upload),
            Request::Erase(slot) => {
                device.erase(slot)?;
                self.session = None;
                Ok(Reply::Nothing)
            }
            Request::Slots => device.slots().map(Reply::Slots),
            Request::Other {
                op,
                group,
                id,
                payload,
            } => device.other(op, group, id, payload).map(Reply::Other),
        }
    }

    fn upload(&mut self, device: &mut impl Device, upload: &Upload<'_>) -> Outcome<Reply> {
        let refuse = |code| Err(Refusal::image(code));
        let Some(offset) = upload.offset else {
            return refuse(image_rc::INVALID_OFFSET);
        };
        let data = upload.data.unwrap_or_default();
        if offset == 0 {
            return self.upload_first(device, upload, data);
        }
        let Some(session) = self.session.as_ref() else {
            return Ok(at(0));
        };
        // A repeated chunk and one ahead of a gap are the same to a server: not what it expects.
        if offset != session.next {
            return Ok(at(session.next));
        }
        self.write(device, offset, data)
    }

    fn upload_first(
        &mut self,
        device: &mut impl Device,
        upload: &Upload<'_>,
        data: &[u8],
    ) -> Outcome<Reply> {
        let Some(size) = upload.size else {
            return Err(Refusal::image(image_rc::INVALID_LENGTH));
        };
        let sha = upload.sha.unwrap_or_default();
        if !sha.is_empty() {
            let same = |s: &&Session| s.sha == sha && s.size == size;
            if let Some(session) = self.session.as_ref().filter(same) {
                return Ok(at(session.next));
            }
            if device.upload_holds(size, sha) {
                return Ok(Reply::Upload {
                    offset: size,
                    matches: Some(true),
                });
            }
        }
        if data.len() < mcuboot::HEADER_BYTES {
            return Err(Refusal::image(image_rc::INVALID_HEADER));
        }
        if self.config.checks_header && !data.starts_with(&mcuboot::MAGIC.to_le_bytes()) {
            return Err(Refusal::image(image_rc::INVALID_MAGIC));
        }
        self.session = None;
        device.upload_begin(upload, size, data)?;
        self.session = Some(Session {
            size,
            sha: sha.to_vec(),
            next: 0,
        });
        self.write(device, 0, data)
    }

    /// Writes a chunk that is what the session expects.
    fn write(&mut self, device: &mut impl Device, offset: u64, data: &[u8]) -> Outcome<Reply> {
        let Some(mut session) = self.session.take() else {
            return Ok(at(0));
        };
        let end = offset.saturating_add(data.len() as u64);
        if self.config.checks_overrun && end > session.size {
            self.session = Some(session);
            return Err(Refusal::image(image_rc::OVERRUN));
        }
        // An error ends the upload: the session was taken.
        let taken = device.upload_write(offset, data)?;
        session.next = offset.saturating_add(taken.min(data.len()) as u64);
        let offset = session.next;
        if offset < session.size {
            self.session = Some(session);
            return Ok(at(offset));
        }
        Ok(Reply::Upload {
            offset,
            matches: device.upload_end(&session.sha),
        })
    }
}

const fn at(offset: u64) -> Reply {
    Reply::Upload {
        offset,
        matches: None,
    }
}
