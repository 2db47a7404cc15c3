//! What a server answers: written by the server, read by the client.
//!
//! Servers of different age tell the same in different shapes: errors as `rc`, `err` or `ret`, success with or without
//! `rc: 0`, flags all or only where true. [`Reply::decode`] takes every one of them; [`Dialect`] chooses what
//! [`Reply::encode`] writes.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};

use crate::cbor::{self, Value};
use crate::code::{Refusal, group, image, os};
use crate::header::{Header, op};

/// Images that one answer lists: 8 pairs; servers that exist have one or two.
pub const IMAGES_MAX: usize = 16;
/// Bytes of a hash: SHA-512.
pub const HASH_MAX_BYTES: usize = 64;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Nothing,
    /// The text of an echo.
    Echo(String),
    /// Sizes of the server's buffers.
    Parameters(Parameters),
    /// Text about the system.
    Info(String),
    /// Name of the bootloader.
    Bootloader(String),
    /// How the bootloader works.
    BootloaderMode {
        /// One of [`mode`](crate::code::mode).
        mode: i32,
        /// It refuses older versions.
        no_downgrade: bool,
    },
    /// The images.
    Images(Vec<ImageState>),
    /// Where the upload stands.
    Upload {
        /// The offset that the server expects next.
        offset: u64,
        /// With the last one, and only where the server checks: whether the file has the digest it was sent with.
        matches: Option<bool>,
    },
    /// Sizes of slots.
    Slots(Vec<SlotSize>),
    /// The payload of a command that this crate does not know.
    Other(Vec<u8>),
    /// It refused.
    Refused(Refusal),
}

/// Sizes of the server's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Bytes of one; a packet is at most 4 less.
    pub buf_size: u32,
    /// How many there are, shared by requests and answers.
    pub buf_count: u32,
}

/// An image in a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the protocol's own flags")]
pub struct ImageState {
    /// Number of the image; 0 where there is only one.
    pub image: u32,
    /// 0 or 1 within the image.
    pub slot: u32,
    /// As the server writes it; for people and for policy, not for identity.
    pub version: String,
    /// Digest by which it is known: the image's own hash TLV. Empty where the server does not tell.
    pub hash: Vec<u8>,
    /// It can be started.
    pub bootable: bool,
    /// It is swapped in at the next start.
    pub pending: bool,
    /// It stays.
    pub confirmed: bool,
    /// It runs.
    pub active: bool,
    /// It is swapped in for good.
    pub permanent: bool,
}

impl ImageState {
    /// An entry of an old recovery that stands for an empty slot: no hash, and a version made of erased flash.
    #[must_use]
    pub fn is_empty_slot(&self) -> bool {
        self.hash.is_empty() && self.version.starts_with("255.255.")
    }
}

/// A slot and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSize {
    /// Number of the image.
    pub image: u32,
    /// 0 or 1 within the image.
    pub slot: u32,
    /// Bytes, with what the bootloader keeps there.
    pub size: u64,
    /// The `image` that an upload names to get there.
    pub upload_image: Option<u32>,
    /// Largest file for this image, if the server tells.
    pub image_max: Option<u64>,
}

/// How errors of a group are told to clients of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorStyle {
    /// As to clients of version 1: `{"rc": n}`. Recovery.
    Generic,
    /// `{"ret": {"group", "rc"}}`: Zephyr 3.3 and 3.4.
    Ret,
    /// `{"err": {"group", "rc"}}`: Zephyr 3.5 and later.
    #[default]
    Err,
}

/// In which of its shapes an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Errors of a group.
    pub errors: ErrorStyle,
    /// Success carries `rc: 0`.
    pub legacy_rc: bool,
    /// Maps and lists of indefinite length, as zcbor writes them.
    pub indefinite: bool,
    /// Flags that are false are left out.
    pub frugal: bool,
    /// The list of images ends with `splitStatus`.
    pub split_status: bool,
}

impl Default for Dialect {
    /// A current Zephyr.
    fn default() -> Self {
        Self {
            errors: ErrorStyle::Err,
            legacy_rc: false,
            indefinite: true,
            frugal: false,
            split_status: true,
        }
    }
}

impl Reply {
    /// The packet that answers `request`.
    #[must_use]
    pub fn encode(&self, request: &Header, dialect: &Dialect) -> Vec<u8> {
        if let Self::Other(payload) = self {
            return request.answer().packet(payload);
        }
        let mut entries = Vec::new();
        if dialect.legacy_rc && !matches!(self, Self::Refused(_)) {
            entries.push(("rc", Value::Int(0)));
        }
        self.write(request, dialect, &mut entries);
        let payload = Value::Map(entries).encode(dialect.indefinite);
        request.answer().packet(&payload)
    }

    fn write(&self, request: &Header, dialect: &Dialect, entries: &mut Vec<(&'static str, Value)>) {
        match self {
            Self::Nothing | Self::Other(_) => {}
            Self::Echo(text) => entries.push(("r", Value::Text(text.clone()))),
            Self::Parameters(sizes) => {
                entries.push(("buf_size", Value::Int(sizes.buf_size.into())));
                entries.push(("buf_count", Value::Int(sizes.buf_count.into())));
            }
            Self::Info(text) => entries.push(("output", Value::Text(text.clone()))),
            Self::Bootloader(name) => entries.push(("bootloader", Value::Text(name.clone()))),
            Self::BootloaderMode { mode, no_downgrade } => {
                entries.push(("mode", Value::Int((*mode).into())));
                if *no_downgrade {
                    entries.push(("no-downgrade", Value::Bool(true)));
                }
            }
            Self::Images(images) => {
                let images = images.iter().map(|i| i.write(images, dialect)).collect();
                entries.push(("images", Value::List(images)));
                if dialect.split_status {
                    entries.push(("splitStatus", Value::Int(0)));
                }
            }
            Self::Upload { offset, matches } => {
                entries.push(("off", int(*offset)));
                if let Some(matches) = matches {
                    entries.push(("match", Value::Bool(*matches)));
                }
            }
            Self::Slots(slots) => entries.push(("images", write_slots(slots))),
            Self::Refused(refusal) => {
                let style = match (refusal.group, request.version) {
                    (None, _) | (_, 0) => ErrorStyle::Generic,
                    _ => dialect.errors,
                };
                let told = |group: Option<u16>| {
                    Value::Map(vec![
                        ("group", Value::Int(group.unwrap_or(0).into())),
                        ("rc", Value::Int(refusal.code.into())),
                    ])
                };
                entries.push(match style {
                    ErrorStyle::Generic => ("rc", Value::Int(refusal.as_generic().into())),
                    ErrorStyle::Ret => ("ret", told(refusal.group)),
                    ErrorStyle::Err => ("err", told(refusal.group)),
                });
            }
        }
    }

    /// Reads the answer to a command. An error in any of its shapes is [`Refused`](Self::Refused).
    ///
    /// # Errors
    /// It is no map, or lacks what the command answers: the server's fault; ask again.
    pub fn decode(header: &Header, payload: &[u8]) -> Result<Self, Malformed> {
        let empty = [0xa0];
        let payload = if payload.is_empty() { &empty } else { payload };
        if let Some(refusal) = refusal(payload).map_err(Malformed::from)? {
            return Ok(Self::Refused(refusal));
        }
        let mut d = Decoder::new(payload);
        match (header.group, header.id, header.op) {
            (group::OS, os::ECHO, _) => text(&mut d, "r").map(Self::Echo),
            (group::OS, os::PARAMETERS, _) => parameters(&mut d),
            (group::OS, os::INFO, _) => text(&mut d, "output").map(Self::Info),
            (group::OS, os::BOOTLOADER, _) => bootloader(&mut d),
            (group::OS, os::CONSOLE_ECHO | os::RESET, _) | (group::IMAGE, image::ERASE, _) => {
                Ok(Self::Nothing)
            }
            (group::IMAGE, image::STATE, _) => images(&mut d),
            (group::IMAGE, image::UPLOAD, op::WRITE_ANSWER) => upload(&mut d),
            (group::IMAGE, image::SLOTS, _) => slots(&mut d),
            _ => Ok(Self::Other(payload.to_owned())),
        }
        .map_err(Malformed::from)
    }
}

impl ImageState {
    fn write(&self, all: &[Self], dialect: &Dialect) -> Value {
        let mut entries = Vec::new();
        // The number is left out where there is only one image.
        if all.iter().any(|other| other.image != 0) {
            entries.push(("image", Value::Int(self.image.into())));
        }
        entries.push(("slot", Value::Int(self.slot.into())));
        entries.push(("version", Value::Text(self.version.clone())));
        if !self.hash.is_empty() {
            entries.push(("hash", Value::Bytes(self.hash.clone())));
        }
        let flags = [
            ("bootable", self.bootable),
            ("pending", self.pending),
            ("confirmed", self.confirmed),
            ("active", self.active),
            ("permanent", self.permanent),
        ];
        let told = flags.iter().filter(|(_, set)| *set || !dialect.frugal);
        entries.extend(told.map(|(key, set)| (*key, Value::Bool(*set))));
        Value::Map(entries)
    }
}

fn write_slots(slots: &[SlotSize]) -> Value {
    let mut images: Vec<u32> = slots.iter().map(|slot| slot.image).collect();
    images.sort_unstable();
    images.dedup();
    let one = |number: u32| {
        let own = || slots.iter().filter(move |slot| slot.image == number);
        let list = own()
            .map(|slot| {
                let mut entries = vec![
                    ("slot", Value::Int(slot.slot.into())),
                    ("size", int(slot.size)),
                ];
                if let Some(image) = slot.upload_image {
                    entries.push(("upload_image_id", Value::Int(image.into())));
                }
                Value::Map(entries)
            })
            .collect();
        let mut entries = vec![
            ("image", Value::Int(number.into())),
            ("slots", Value::List(list)),
        ];
        if let Some(largest) = own().find_map(|slot| slot.image_max) {
            entries.push(("max_image_size", int(largest)));
        }
        Value::Map(entries)
    };
    Value::List(images.into_iter().map(one).collect())
}

fn int(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// An answer that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<Error> for Malformed {
    fn from(_: Error) -> Self {
        Self
    }
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the answer is no CBOR map of this command")
    }
}

impl core::error::Error for Malformed {}

/// The error that an answer tells: `rc`, or `err` or `ret` with a map. The shell's success carries a number as `ret`.
fn refusal(payload: &[u8]) -> Result<Option<Refusal>, Error> {
    let (mut generic, mut grouped) = (None, None);
    cbor::map(&mut Decoder::new(payload), |key, d| {
        match key {
            "rc" => generic = Some(code(d)?),
            "err" | "ret" if cbor::is_map(d) => {
                let (mut group, mut rc) = (0, 0);
                cbor::map(d, |key, d| {
                    match key {
                        "group" => group = d.u16()?,
                        "rc" => rc = code(d)?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                grouped = Some((group, rc));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let grouped = grouped.filter(|(_, code)| *code != 0);
    Ok(grouped
        .map(|(group, code)| Refusal {
            group: Some(group),
            code,
        })
        .or_else(|| generic.filter(|code| *code != 0).map(Refusal::generic)))
}

/// A negative code, as some servers let slip, is an unknown error.
fn code(d: &mut Decoder<'_>) -> Result<u32, Error> {
    Ok(u32::try_from(d.i64()?).unwrap_or(crate::code::rc::UNKNOWN))
}

fn text(d: &mut Decoder<'_>, wanted: &str) -> Result<String, Error> {
    let mut text = None;
    cbor::map(d, |key, d| {
        let known = key == wanted;
        if known {
            text = Some(d.str()?.to_owned());
        }
        Ok(known)
    })?;
    text.ok_or_else(|| Error::message("no text"))
}

fn parameters(d: &mut Decoder<'_>) -> Result<Reply, Error> {
    let (mut size, mut count) = (None, None);
    cbor::map(d, |key, d| {
        match key {
            "buf_size" => size = Some(d.u32()?),
            "buf_count" => count = Some(d.u32()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Reply::Parameters(Parameters {
        buf_size: size.ok_or_else(|| Error::message("no buf_size"))?,
        // Without it there is one, and no window.
        buf_count: count.unwrap_or(1),
    }))
}

fn bootloader(d: &mut Decoder<'_>) -> Result<Reply, Error> {
    let (mut name, mut mode, mut no_downgrade) = (None, None, false);
    cbor::map(d, |key, d| {
        match key {
            "bootloader" => name = Some(d.str()?.to_owned()),
            "mode" => mode = Some(d.i32()?),
            "no-downgrade" => no_downgrade = d.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    match (mode, name) {
        (Some(mode), _) => Ok(Reply::BootloaderMode { mode, no_downgrade }),
        (None, Some(name)) => Ok(Reply::Bootloader(name)),
        (None, None) => Err(Error::message("neither name nor mode")),
    }
}

fn images(d: &mut Decoder<'_>) -> Result<Reply, Error> {
    let mut images = Vec::new();
    let mut found = false;
    cbor::map(d, |key, d| {
        if key != "images" {
            return Ok(false);
        }
        found = true;
        cbor::list(d, |d| {
            let image = one_image(d)?;
            if images.len() == IMAGES_MAX {
                return Err(Error::message("too many images"));
            }
            images.push(image);
            Ok(())
        })?;
        Ok(true)
    })?;
    if found {
        Ok(Reply::Images(images))
    } else {
        Err(Error::message("no images"))
    }
}

fn one_image(d: &mut Decoder<'_>) -> Result<ImageState, Error> {
    let mut image = ImageState::default();
    cbor::map(d, |key, d| {
        match key {
            "image" => image.image = d.u32()?,
            "slot" => image.slot = d.u32()?,
            "version" => d.str()?.clone_into(&mut image.version),
            "hash" => {
                let hash = d.bytes()?;
                if hash.len() > HASH_MAX_BYTES {
                    return Err(Error::message("a hash too long"));
                }
                image.hash = hash.to_owned();
            }
            "bootable" => image.bootable = d.bool()?,
            "pending" => image.pending = d.bool()?,
            "confirmed" => image.confirmed = d.bool()?,
            "active" => image.active = d.bool()?,
            "permanent" => image.permanent = d.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(image)
}

fn upload(d: &mut Decoder<'_>) -> Result<Reply, Error> {
    let (mut offset, mut matches) = (None, None);
    cbor::map(d, |key, d| {
        match key {
            "off" => offset = Some(d.u64()?),
            "match" if d.datatype()? == Type::Bool => matches = Some(d.bool()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Reply::Upload {
        offset: offset.ok_or_else(|| Error::message("no off"))?,
        matches,
    })
}

fn slots(d: &mut Decoder<'_>) -> Result<Reply, Error> {
    let mut all: Vec<SlotSize> = Vec::new();
    cbor::map(d, |key, d| {
        if key != "images" {
            return Ok(false);
        }
        cbor::list(d, |d| {
            let (mut number, mut largest, mut own) = (0, None, Vec::new());
            cbor::map(d, |key, d| {
                match key {
                    "image" => number = d.u32()?,
                    "max_image_size" => largest = Some(d.u64()?),
                    "slots" => cbor::list(d, |d| one_slot(d, &mut own))?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            for slot in &mut own {
                slot.image = number;
                slot.image_max = largest;
            }
            all.append(&mut own);
            if all.len() > IMAGES_MAX {
                return Err(Error::message("too many slots"));
            }
            Ok(())
        })?;
        Ok(true)
    })?;
    Ok(Reply::Slots(all))
}

fn one_slot(d: &mut Decoder<'_>, own: &mut Vec<SlotSize>) -> Result<(), Error> {
    let mut slot = SlotSize::default();
    cbor::map(d, |key, d| {
        match key {
            "slot" => slot.slot = d.u32()?,
            "size" => slot.size = d.u64()?,
            "upload_image_id" => slot.upload_image = Some(d.u32()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if own.len() == IMAGES_MAX {
        return Err(Error::message("too many slots"));
    }
    own.push(slot);
    Ok(())
}
