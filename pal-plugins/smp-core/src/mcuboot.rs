//! MCUboot image files: the header, the TLVs behind the body, the hash by which a bootloader knows an image.
//!
//! ```text
//!   header (header_size bytes, 32 of them used) | body | [protected TLVs] | TLVs
//!   `------------------ hashed -------------------------------------´
//! ```
//!
//! Numbers are little endian. It checks shape and hash; signatures are the bootloader's and the host's matter. An image
//! may come from anywhere: nothing here is believed before it was measured against the file's size.

use alloc::vec::Vec;

use sha2::{Digest, Sha256, Sha384, Sha512};

/// Bytes of the header that mean something.
pub const HEADER_BYTES: usize = 32;
/// First four bytes of an image.
pub const MAGIC: u32 = 0x96f3_b83d;
/// Magic of the TLVs, and of the protected ones.
pub const TLV_MAGIC: u16 = 0x6907;
/// Magic of the TLVs that the hash covers.
pub const PROTECTED_MAGIC: u16 = 0x6908;
/// TLVs that are looked at: images have 3 to 10; all of 64 KiB in 4-byte entries would be 16384.
pub const TLVS_MAX: usize = 128;
/// Bytes read at once while hashing.
const READ_BYTES: usize = 4096;

/// Types of TLVs.
pub mod tlv {
    /// SHA-256.
    pub const SHA256: u16 = 0x10;
    /// SHA-384.
    pub const SHA384: u16 = 0x11;
    /// SHA-512.
    pub const SHA512: u16 = 0x12;
    /// Digest of the key that signed.
    pub const KEY_HASH: u16 = 0x01;
    /// RSA-2048, ECDSA, RSA-3072 and Ed25519 signatures.
    pub const SIGNATURES: [u16; 4] = [0x20, 0x22, 0x23, 0x24];
    /// Security counter.
    pub const SECURITY_COUNTER: u16 = 0x50;
}

/// Bits of [`ImageHeader::flags`].
pub mod flag {
    /// Encrypted, AES-128 or AES-256.
    pub const ENCRYPTED: u32 = 0x04 | 0x08;
    /// Cannot be started.
    pub const NON_BOOTABLE: u32 = 0x10;
    /// To be copied to RAM.
    pub const RAM_LOAD: u32 = 0x20;
}

/// A version, compared field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub revision: u16,
    /// Fourth number.
    pub build: u32,
}

impl Version {
    /// Reads `1.2.3` or `1.2.3.4`, as Zephyr prints it. The glued form of old recoveries is ambiguous and reads as
    /// whatever three numbers it seems to be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let version = Self {
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
            revision: parts.next()?.parse().ok()?,
            build: match parts.next() {
                Some(build) => build.parse().ok()?,
                None => 0,
            },
        };
        parts.next().is_none().then_some(version)
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.revision)?;
        match self.build {
            0 => Ok(()),
            build => write!(f, ".{build}"),
        }
    }
}

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageHeader {
    /// Where it wants to be loaded.
    pub load_address: u32,
    /// Bytes before the body.
    pub header_size: u16,
    /// Bytes of protected TLVs, 0 = none.
    pub protected_size: u16,
    /// Bytes of the body.
    pub body_size: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Version.
    pub version: Version,
}

impl ImageHeader {
    /// Reads the first [`HEADER_BYTES`] of a file.
    ///
    /// # Errors
    /// Too short, another magic number, or a header smaller than itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(ImageError::Truncated)?;
        if u32_at(header, 0) != MAGIC {
            return Err(ImageError::NoImage);
        }
        let parsed = Self {
            load_address: u32_at(header, 4),
            header_size: u16_at(header, 8),
            protected_size: u16_at(header, 10),
            body_size: u32_at(header, 12),
            flags: u32_at(header, 16),
            version: Version {
                major: header[20],
                minor: header[21],
                revision: u16_at(header, 22),
                build: u32_at(header, 24),
            },
        };
        if usize::from(parsed.header_size) < HEADER_BYTES {
            return Err(ImageError::Header);
        }
        Ok(parsed)
    }

    /// Where the TLVs begin: after header and body.
    #[must_use]
    pub fn tlv_offset(&self) -> u64 {
        u64::from(self.header_size) + u64::from(self.body_size)
    }

    /// How many bytes from the start the hash covers.
    #[must_use]
    pub fn hashed_size(&self) -> u64 {
        self.tlv_offset() + u64::from(self.protected_size)
    }

    /// The bytes of the header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(room) = bytes.get_mut(at..at + field.len()) {
                room.copy_from_slice(field);
            }
        };
        put(0, &MAGIC.to_le_bytes());
        put(4, &self.load_address.to_le_bytes());
        put(8, &self.header_size.to_le_bytes());
        put(10, &self.protected_size.to_le_bytes());
        put(12, &self.body_size.to_le_bytes());
        put(16, &self.flags.to_le_bytes());
        put(20, &[self.version.major, self.version.minor]);
        put(22, &self.version.revision.to_le_bytes());
        put(24, &self.version.build.to_le_bytes());
        bytes
    }
}

/// A TLV: where its value lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// One of [`tlv`], or another.
    pub kind: u16,
    /// Whether the hash covers it.
    pub protected: bool,
    /// First byte of the value.
    pub offset: u64,
    /// Bytes of the value.
    pub length: u16,
}

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It does not begin with MCUboot's magic number.
    NoImage,
    /// The file ends before the image does.
    Truncated,
    /// The header cannot be.
    Header,
    /// The TLVs do not begin or end where they have to.
    Tlvs,
    /// More TLVs than are looked at.
    TooManyTlvs,
    /// No hash, more than one, or one of the wrong size.
    Hash,
    /// The hash is not that of the bytes.
    WrongHash,
    /// The file cannot be read; what the reader said is the caller's to tell.
    Read,
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoImage => "not an MCUboot image: wrong magic number; sign it with imgtool",
            Self::Truncated => "the file ends before the image does",
            Self::Header => "the image header cannot be",
            Self::Tlvs => "the image's TLVs are damaged",
            Self::TooManyTlvs => "the image has too many TLVs",
            Self::Hash => "the image has no usable hash",
            Self::WrongHash => "the image's hash is not that of its bytes",
            Self::Read => "the image cannot be read",
        })
    }
}

impl core::error::Error for ImageError {}

/// Reads bytes of a file at an offset: all, or false.
pub trait ReadAt {
    /// Fills `into` from `offset` on; false where that cannot be done.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> bool;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> bool {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..at.checked_add(into.len())?));
        bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

/// Makes a reader of a closure.
#[derive(Debug)]
pub struct Reader<F>(pub F);

impl<F: FnMut(u64, &mut [u8]) -> bool> ReadAt for Reader<F> {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> bool {
        self.0(offset, into)
    }
}

/// An image whose shape was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its header.
    pub header: ImageHeader,
    /// The hash it claims: 32, 48 or 64 bytes. This is the hash in a server's list.
    pub hash: Vec<u8>,
    /// All its TLVs, in the order of the file.
    pub tlvs: Vec<Tlv>,
    /// Bytes of the image; a file may be padded beyond.
    pub size: u64,
}

impl Image {
    /// Reads header and TLVs of a file (or slot) of `size` bytes.
    ///
    /// # Errors
    /// It is no image, or a damaged one.
    pub fn examine(file: &mut impl ReadAt, size: u64) -> Result<Self, ImageError> {
        let mut first = [0; HEADER_BYTES];
        read(file, size, 0, &mut first)?;
        let header = ImageHeader::parse(&first)?;
        let mut image = Self {
            header,
            hash: Vec::new(),
            tlvs: Vec::new(),
            size: header.tlv_offset(),
        };
        if header.protected_size != 0 {
            image.read_tlvs(file, size, true)?;
            if image.size != header.hashed_size() {
                return Err(ImageError::Tlvs);
            }
        }
        image.read_tlvs(file, size, false)?;
        image.hash = image.read_hash(file, size)?;
        Ok(image)
    }

    /// One area of TLVs, at the end of what was read so far.
    fn read_tlvs(
        &mut self,
        file: &mut impl ReadAt,
        size: u64,
        protected: bool,
    ) -> Result<(), ImageError> {
        let mut word = [0; 4];
        read(file, size, self.size, &mut word)?;
        let magic = if protected {
            PROTECTED_MAGIC
        } else {
            TLV_MAGIC
        };
        let total = u64::from(u16_at(&word, 2));
        if u16_at(&word, 0) != magic || total < 4 {
            return Err(ImageError::Tlvs);
        }
        let end = self.size + total;
        if end > size {
            return Err(ImageError::Truncated);
        }
        let mut at = self.size + 4;
        while at < end {
            if end - at < 4 {
                return Err(ImageError::Tlvs);
            }
            read(file, size, at, &mut word)?;
            let found = Tlv {
                kind: u16_at(&word, 0),
                protected,
                offset: at + 4,
                length: u16_at(&word, 2),
            };
            at = found.offset + u64::from(found.length);
            if at > end {
                return Err(ImageError::Tlvs);
            }
            if self.tlvs.len() == TLVS_MAX {
                return Err(ImageError::TooManyTlvs);
            }
            self.tlvs.push(found);
        }
        self.size = end;
        Ok(())
    }

    fn read_hash(&self, file: &mut impl ReadAt, size: u64) -> Result<Vec<u8>, ImageError> {
        let mut hashes = self
            .tlvs
            .iter()
            .filter(|tlv| hash_bytes(tlv.kind).is_some());
        let (Some(found), None) = (hashes.next(), hashes.next()) else {
            return Err(ImageError::Hash);
        };
        if hash_bytes(found.kind) != Some(found.length) {
            return Err(ImageError::Hash);
        }
        self.value(file, size, found)
    }

    /// The value of a TLV of this image.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn value(
        &self,
        file: &mut impl ReadAt,
        size: u64,
        tlv: &Tlv,
    ) -> Result<Vec<u8>, ImageError> {
        let mut value = alloc::vec![0; tlv.length.into()];
        read(file, size, tlv.offset, &mut value)?;
        Ok(value)
    }

    /// The TLV of that kind that the hash covers, if there is exactly one.
    #[must_use]
    pub fn protected(&self, kind: u16) -> Option<&Tlv> {
        let mut found = self
            .tlvs
            .iter()
            .filter(|tlv| tlv.protected && tlv.kind == kind);
        found.next().filter(|_| found.next().is_none())
    }

    /// Whether it carries a signature of a kind that bootloaders check.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.tlvs
            .iter()
            .any(|tlv| tlv::SIGNATURES.contains(&tlv.kind))
    }

    /// The kind of its hash, for [`Hasher::new`].
    #[must_use]
    pub const fn hash_kind(&self) -> u16 {
        match self.hash.len() {
            48 => tlv::SHA384,
            64 => tlv::SHA512,
            _ => tlv::SHA256,
        }
    }

    /// Reads all that the hash covers and compares. For a large file in small steps use [`Hasher`].
    ///
    /// # Errors
    /// [`ImageError::WrongHash`], or it cannot be read.
    pub fn check_hash(&self, file: &mut impl ReadAt, size: u64) -> Result<(), ImageError> {
        let mut hasher = Hasher::new(self);
        while hasher.step(file, size)? {}
        hasher.check(self)
    }
}

/// The hash of an image, taken in steps of 4 KiB.
#[derive(Clone, Debug)]
pub struct Hasher {
    digest: Digests,
    at: u64,
    end: u64,
}

#[derive(Clone, Debug)]
enum Digests {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// For this image.
    #[must_use]
    pub fn new(image: &Image) -> Self {
        Self {
            digest: match image.hash_kind() {
                tlv::SHA384 => Digests::Sha384(Sha384::new()),
                tlv::SHA512 => Digests::Sha512(Sha512::new()),
                _ => Digests::Sha256(Sha256::new()),
            },
            at: 0,
            end: image.header.hashed_size(),
        }
    }

    /// Reads the next bytes; false when there are no more.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn step(&mut self, file: &mut impl ReadAt, size: u64) -> Result<bool, ImageError> {
        let mut buffer = [0; READ_BYTES];
        let length = usize::try_from(self.end - self.at).map_or(READ_BYTES, |n| n.min(READ_BYTES));
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        read(file, size, self.at, bytes)?;
        match &mut self.digest {
            Digests::Sha256(digest) => digest.update(&bytes),
            Digests::Sha384(digest) => digest.update(&bytes),
            Digests::Sha512(digest) => digest.update(&bytes),
        }
        self.at += length as u64;
        Ok(self.at < self.end)
    }

    /// Compares with what the image claims.
    ///
    /// # Errors
    /// [`ImageError::WrongHash`].
    pub fn check(self, image: &Image) -> Result<(), ImageError> {
        let same = match self.digest {
            Digests::Sha256(digest) => digest.finalize().as_slice() == image.hash,
            Digests::Sha384(digest) => digest.finalize().as_slice() == image.hash,
            Digests::Sha512(digest) => digest.finalize().as_slice() == image.hash,
        };
        if same {
            Ok(())
        } else {
            Err(ImageError::WrongHash)
        }
    }
}

/// SHA-256 of some parts, each with its length before it, so that no two lists of parts are the same bytes.
#[must_use]
pub fn tag(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// SHA-256 of bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

const fn hash_bytes(kind: u16) -> Option<u16> {
    match kind {
        tlv::SHA256 => Some(32),
        tlv::SHA384 => Some(48),
        tlv::SHA512 => Some(64),
        _ => None,
    }
}

fn read(file: &mut impl ReadAt, size: u64, at: u64, into: &mut [u8]) -> Result<(), ImageError> {
    match at.checked_add(into.len() as u64) {
        Some(end) if end <= size => {
            if file.read_at(at, into) {
                Ok(())
            } else {
                Err(ImageError::Read)
            }
        }
        _ => Err(ImageError::Truncated),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..at + 2).and_then(|b| b.try_into().ok());
    u16::from_le_bytes(field.unwrap_or_default())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

#[cfg(test)]
mod tests;
