//! What a client asks: written by the client, read by the server.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use minicbor::encode::Encoder;

use crate::cbor::{self, Value};
use crate::code::{group, image, os, rc};
use crate::header::{Header, Version, op};

/// A request. Texts and bytes are borrowed from the packet that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Say this back.
    Echo(&'a str),
    /// Console echo on or off: recovery has it.
    ConsoleEcho(bool),
    /// Restart.
    Reset {
        /// Also if something objects.
        force: bool,
        /// 1 = into the bootloader's recovery.
        boot_mode: Option<u32>,
    },
    /// Sizes of buffers.
    Parameters,
    /// Text about the system; letters choose what.
    Info(Option<&'a str>),
    /// What the bootloader is, or with `mode` how it works.
    Bootloader(Option<&'a str>),
    /// List the images.
    Images,
    /// Mark or confirm.
    State {
        /// The image; none = the running one.
        hash: Option<&'a [u8]>,
        /// Confirm or mark for good; else mark for test.
        confirm: bool,
    },
    /// A chunk of a file.
    Upload(Upload<'a>),
    /// Erase a slot; none = the inactive one.
    Erase(Option<u32>),
    /// Sizes of slots.
    Slots,
    /// Anything else, such as a command of the application's own.
    Other {
        /// One of [`op`].
        op: u8,
        /// Group.
        group: u16,
        /// Command.
        id: u8,
        /// A CBOR map.
        payload: &'a [u8],
    },
}

/// A chunk of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upload<'a> {
    /// Where it begins; always sent.
    pub offset: Option<u64>,
    /// Its bytes; always sent.
    pub data: Option<&'a [u8]>,
    /// Size of the file; sent with offset 0.
    pub size: Option<u64>,
    /// SHA-256 of the file, or any name of it that a resumed upload repeats; sent with offset 0.
    pub sha: Option<&'a [u8]>,
    /// Number of the image.
    pub image: Option<u32>,
    /// Refuse unless it is newer than the running one.
    pub upgrade: bool,
}

impl<'a> Request<'a> {
    /// Operation, group and command.
    #[must_use]
    pub const fn command(&self) -> (u8, u16, u8) {
        match self {
            Self::Echo(_) => (op::WRITE, group::OS, os::ECHO),
            Self::ConsoleEcho(_) => (op::WRITE, group::OS, os::CONSOLE_ECHO),
            Self::Reset { .. } => (op::WRITE, group::OS, os::RESET),
            Self::Parameters => (op::READ, group::OS, os::PARAMETERS),
            Self::Info(_) => (op::READ, group::OS, os::INFO),
            Self::Bootloader(_) => (op::READ, group::OS, os::BOOTLOADER),
            Self::Images => (op::READ, group::IMAGE, image::STATE),
            Self::State { .. } => (op::WRITE, group::IMAGE, image::STATE),
            Self::Upload(_) => (op::WRITE, group::IMAGE, image::UPLOAD),
            Self::Erase(_) => (op::WRITE, group::IMAGE, image::ERASE),
            Self::Slots => (op::READ, group::IMAGE, image::SLOTS),
            Self::Other { op, group, id, .. } => (*op, *group, *id),
        }
    }

    /// The packet: header and map. Keys stand as other clients write them; echo gets nothing but its text, for servers
    /// refuse it otherwise.
    #[must_use]
    pub fn encode(&self, version: Version, sequence: u8) -> Vec<u8> {
        let (op, group, id) = self.command();
        let header = Header {
            version: version.number(),
            op,
            group,
            sequence,
            id,
            ..Header::default()
        };
        match self {
            Self::Upload(upload) => header.packet(&upload.encode()),
            Self::Other { payload, .. } => header.packet(payload),
            _ => header.packet(&Value::Map(self.entries()).encode(false)),
        }
    }

    fn entries(&self) -> Vec<(&'static str, Value)> {
        let mut entries = Vec::new();
        match self {
            Self::Echo(text) => entries.push(("d", Value::Text((*text).to_owned()))),
            Self::ConsoleEcho(on) => entries.push(("echo", Value::Int((*on).into()))),
            Self::Reset { force, boot_mode } => {
                if *force {
                    entries.push(("force", Value::Int(1)));
                }
                if let Some(mode) = boot_mode {
                    entries.push(("boot_mode", Value::Int((*mode).into())));
                }
            }
            Self::Info(Some(format)) => {
                entries.push(("format", Value::Text((*format).to_owned())));
            }
            Self::Bootloader(Some(query)) => {
                entries.push(("query", Value::Text((*query).to_owned())));
            }
            Self::State { hash, confirm } => {
                if let Some(hash) = hash {
                    entries.push(("hash", Value::Bytes((*hash).to_owned())));
                }
                if *confirm {
                    entries.push(("confirm", Value::Bool(true)));
                }
            }
            Self::Erase(Some(slot)) => entries.push(("slot", Value::Int((*slot).into()))),
            Self::Parameters
            | Self::Info(None)
            | Self::Bootloader(None)
            | Self::Images
            | Self::Erase(None)
            | Self::Slots
            | Self::Upload(_)
            | Self::Other { .. } => {}
        }
        entries
    }

    /// Reads a request. A group, command or operation that this crate does not know is [`Other`](Self::Other).
    ///
    /// # Errors
    /// The code of [`rc`] to answer: the map is not one, or a value is of another kind.
    pub fn decode(header: &Header, payload: &'a [u8]) -> Result<Self, u32> {
        // No payload at all counts as an empty map.
        let payload = if payload.is_empty() { &[0xa0] } else { payload };
        let mut d = Decoder::new(payload);
        match (header.op, header.group, header.id) {
            // Servers echo on a read too.
            (op::READ | op::WRITE, group::OS, os::ECHO) => echo(&mut d).map_err(|_| rc::UNKNOWN),
            (op::WRITE, group::OS, os::CONSOLE_ECHO) => {
                one(&mut d, "echo", Decoder::u32).map(|on| Self::ConsoleEcho(on.unwrap_or(0) != 0))
            }
            (op::WRITE, group::OS, os::RESET) => reset(&mut d).map_err(|_| rc::INVALID),
            (op::READ, group::OS, os::PARAMETERS) => Ok(Self::Parameters),
            (op::READ, group::OS, os::INFO) => one(&mut d, "format", Decoder::str).map(Self::Info),
            (op::READ, group::OS, os::BOOTLOADER) => {
                one(&mut d, "query", Decoder::str).map(Self::Bootloader)
            }
            (op::READ, group::IMAGE, image::STATE) => Ok(Self::Images),
            (op::WRITE, group::IMAGE, image::STATE) => state(&mut d).map_err(|_| rc::INVALID),
            (op::WRITE, group::IMAGE, image::UPLOAD) => Upload::decode(&mut d)
                .map(Self::Upload)
                .map_err(|_| rc::INVALID),
            (op::WRITE, group::IMAGE, image::ERASE) => {
                one(&mut d, "slot", Decoder::u32).map(Self::Erase)
            }
            (op::READ, group::IMAGE, image::SLOTS) => Ok(Self::Slots),
            (op, group, id) => Ok(Self::Other {
                op,
                group,
                id,
                payload,
            }),
        }
    }
}

impl<'a> Upload<'a> {
    /// Written straight, without a copy of the data in between.
    fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(self.data.map_or(0, <[u8]>::len) + 96));
        // Writing to a Vec cannot fail.
        self.write(&mut e).ok();
        e.into_writer()
    }

    fn write(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
        let there = [
            self.size.is_some(),
            self.offset.is_some(),
            self.sha.is_some(),
            self.data.is_some(),
            self.image.is_some(),
            self.upgrade,
        ];
        e.map(there.iter().filter(|there| **there).count() as u64)?;
        if let Some(size) = self.size {
            e.str("len")?.u64(size)?;
        }
        if let Some(offset) = self.offset {
            e.str("off")?.u64(offset)?;
        }
        if let Some(sha) = self.sha {
            e.str("sha")?.bytes(sha)?;
        }
        if let Some(data) = self.data {
            e.str("data")?.bytes(data)?;
        }
        if let Some(image) = self.image {
            e.str("image")?.u32(image)?;
        }
        if self.upgrade {
            e.str("upgrade")?.bool(true)?;
        }
        Ok(())
    }

    fn decode(d: &mut Decoder<'a>) -> Result<Self, Error> {
        let mut upload = Self::default();
        cbor::map(d, |key, d| {
            match key {
                "off" => upload.offset = Some(d.u64()?),
                "data" => upload.data = Some(d.bytes()?),
                "len" => upload.size = Some(d.u64()?),
                "sha" => upload.sha = Some(d.bytes()?),
                "image" => upload.image = Some(d.u32()?),
                "upgrade" => upload.upgrade = d.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(upload)
    }
}

/// A map in which one key counts.
fn one<'b, T>(
    d: &mut Decoder<'b>,
    wanted: &str,
    read: impl Fn(&mut Decoder<'b>) -> Result<T, Error>,
) -> Result<Option<T>, u32> {
    let mut value = None;
    cbor::map(d, |key, d| {
        let known = key == wanted;
        if known {
            value = Some(read(d)?);
        }
        Ok(known)
    })
    .map_err(|_| rc::INVALID)?;
    Ok(value)
}

/// Servers take nothing beside the text.
fn echo<'b>(d: &mut Decoder<'b>) -> Result<Request<'b>, Error> {
    let mut text = None;
    cbor::map(d, |key, d| {
        if key != "d" {
            return Err(Error::message("an unknown key"));
        }
        text = Some(d.str()?);
        Ok(true)
    })?;
    text.map(Request::Echo)
        .ok_or_else(|| Error::message("no text"))
}

fn reset<'b>(d: &mut Decoder<'b>) -> Result<Request<'b>, Error> {
    let (mut force, mut boot_mode) = (false, None);
    cbor::map(d, |key, d| {
        match key {
            // A number by the book; some clients send a bool.
            "force" if d.datatype()? == Type::Bool => force = d.bool()?,
            "force" => force = d.u32()? != 0,
            "boot_mode" => boot_mode = Some(d.u32()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Request::Reset { force, boot_mode })
}

fn state<'b>(d: &mut Decoder<'b>) -> Result<Request<'b>, Error> {
    let (mut hash, mut confirm) = (None, false);
    cbor::map(d, |key, d| {
        match key {
            "hash" => hash = Some(d.bytes()?),
            "confirm" => confirm = d.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Request::State { hash, confirm })
}
