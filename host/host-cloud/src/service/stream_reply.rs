//! Writes stream replies in CBOR and JSON: descriptions, blocks and errors.
//!
//! A block is read from its source straight into the message that carries it. Maps are of definite length, except for
//! CBOR errors: AWS sends those with indefinite length and both long and short names, so this does too.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minicbor::{Encoder, encode::write::Write};
use serde::Serialize;

use super::{ImageError, ImageId, ImageSource, StreamCode, state::Stream, topic::Encoding};

/// Bytes round a block's payload: token 64, numbers, keys.
const ENVELOPE_BYTES_MAX: usize = 128;

/// Where one block lies.
pub(super) struct BlockAt<'a> {
    pub(super) image: &'a ImageId,
    /// `f`
    pub(super) file: u8,
    /// `i`
    pub(super) index: u64,
    /// Byte offset in the file.
    pub(super) offset: u64,
    /// `l`: bytes of this block.
    pub(super) length: usize,
}

/// A `data` message.
pub(super) fn block(
    encoding: Encoding,
    token: Option<&str>,
    at: &BlockAt<'_>,
    images: &dyn ImageSource,
) -> Result<Vec<u8>, ImageError> {
    match encoding {
        Encoding::Cbor => cbor_block(token, at, images),
        Encoding::Json => json_block(token, at, images),
    }
}

fn cbor_block(
    token: Option<&str>,
    at: &BlockAt<'_>,
    images: &dyn ImageSource,
) -> Result<Vec<u8>, ImageError> {
    let mut message = Vec::with_capacity(at.length + ENVELOPE_BYTES_MAX);
    cbor(&mut message, |e| {
        e.map(4 + u64::from(token.is_some()))?;
        if let Some(token) = token {
            e.str("c")?.str(token)?;
        }
        e.str("f")?.u8(at.file)?;
        e.str("i")?.u64(at.index)?;
        e.str("l")?.u64(at.length as u64)?;
        e.str("p")?.bytes_len(at.length as u64)?;
        Ok(())
    });
    let head = message.len();
    message.resize(head + at.length, 0);
    images.read_at(at.image, at.offset, &mut message[head..])?;
    Ok(message)
}

fn json_block(
    token: Option<&str>,
    at: &BlockAt<'_>,
    images: &dyn ImageSource,
) -> Result<Vec<u8>, ImageError> {
    #[derive(Serialize)]
    struct Data<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        c: Option<&'a str>,
        f: u8,
        l: usize,
        i: u64,
        p: String,
    }
    let mut bytes = vec![0; at.length];
    images.read_at(at.image, at.offset, &mut bytes)?;
    Ok(json(&Data {
        c: token,
        f: at.file,
        l: at.length,
        i: at.index,
        p: STANDARD.encode(bytes),
    }))
}

/// A `description` message.
pub(super) fn description(encoding: Encoding, token: Option<&str>, stream: &Stream) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            #[derive(Serialize)]
            struct File {
                f: u8,
                z: u64,
            }
            #[derive(Serialize)]
            struct Description<'a> {
                #[serde(skip_serializing_if = "Option::is_none")]
                c: Option<&'a str>,
                s: u32,
                d: &'a str,
                r: Vec<File>,
            }
            let files = stream.files.iter();
            json(&Description {
                c: token,
                s: stream.version,
                d: &stream.description,
                r: files
                    .map(|(f, file)| File {
                        f: *f,
                        z: file.size,
                    })
                    .collect(),
            })
        }
        Encoding::Cbor => {
            let mut message = Vec::new();
            cbor(&mut message, |e| {
                e.map(3 + u64::from(token.is_some()))?;
                if let Some(token) = token {
                    e.str("c")?.str(token)?;
                }
                e.str("s")?.u32(stream.version)?;
                e.str("d")?.str(&stream.description)?;
                e.str("r")?.array(stream.files.len() as u64)?;
                for (id, file) in &stream.files {
                    e.map(2)?.str("f")?.u8(*id)?.str("z")?.u64(file.size)?;
                }
                Ok(())
            });
            message
        }
    }
}

/// A `rejected` message, with the long names of old and the short ones.
pub(super) fn rejection(
    encoding: Encoding,
    token: Option<&str>,
    code: StreamCode,
    text: &str,
) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            #[derive(Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Rejection<'a> {
                #[serde(skip_serializing_if = "Option::is_none")]
                client_token: Option<&'a str>,
                #[serde(skip_serializing_if = "Option::is_none")]
                c: Option<&'a str>,
                code: &'a str,
                o: &'a str,
                message: &'a str,
                m: &'a str,
            }
            json(&Rejection {
                client_token: token,
                c: token,
                code: code.as_str(),
                o: code.as_str(),
                message: text,
                m: text,
            })
        }
        Encoding::Cbor => {
            let mut message = Vec::new();
            cbor(&mut message, |e| {
                e.begin_map()?;
                if let Some(token) = token {
                    e.str("clientToken")?.str(token)?.str("c")?.str(token)?;
                }
                e.str("code")?.str(code.as_str())?;
                e.str("o")?.str(code.as_str())?;
                e.str("message")?.str(text)?.str("m")?.str(text)?;
                e.end()?;
                Ok(())
            });
            message
        }
    }
}

type Written<W> = Result<(), minicbor::encode::Error<<W as Write>::Error>>;

fn cbor<'a>(
    message: &'a mut Vec<u8>,
    write: impl FnOnce(&mut Encoder<&'a mut Vec<u8>>) -> Written<&'a mut Vec<u8>>,
) {
    let written = write(&mut Encoder::new(message));
    // A Vec takes everything: its error type has no value.
    debug_assert!(written.is_ok());
}

fn json(message: &impl Serialize) -> Vec<u8> {
    // Text keys into memory: serde_json has no way to fail here.
    serde_json::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::MemoryImages;

    fn hex(bytes: &[u8]) -> String {
        super::super::hex(bytes)
    }

    fn toy() -> (MemoryImages, ImageId) {
        let mut images = MemoryImages::default();
        let id = images.insert(&[0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef][..]);
        (images, id)
    }

    fn at(image: &ImageId) -> BlockAt<'_> {
        BlockAt {
            image,
            file: 0,
            index: 1,
            offset: 4,
            length: 4,
        }
    }

    #[test]
    fn a_block_is_the_documented_bytes_with_and_without_token() {
        let (images, id) = toy();
        let plain = block(Encoding::Cbor, None, &at(&id), &images).unwrap();
        assert_eq!(hex(&plain), "a4616600616901616c04617044deadbeef");
        let token = block(Encoding::Cbor, Some("rdy"), &at(&id), &images).unwrap();
        assert_eq!(
            hex(&token),
            "a5616363726479616600616901616c04617044deadbeef"
        );
        let json = block(Encoding::Json, Some("rdy"), &at(&id), &images).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"c":"rdy","f":0,"l":4,"i":1,"p":"3q2+7w=="}"#
        );
    }

    #[test]
    fn an_error_is_the_documented_bytes() {
        let error = rejection(
            Encoding::Cbor,
            None,
            StreamCode::InvalidCbor,
            "Invalid CBOR message",
        );
        assert_eq!(
            hex(&error),
            "bf64636f64656b496e76616c696443626f72616f6b496e76616c696443626f72676d6573736167657449\
             6e76616c69642043424f52206d657373616765616d74496e76616c69642043424f52206d657373616765ff"
        );
        let error = rejection(
            Encoding::Json,
            Some("rdy"),
            StreamCode::InvalidRequest,
            "The data requested is out of the range of data available.",
        );
        assert_eq!(
            String::from_utf8(error).unwrap(),
            "{\"clientToken\":\"rdy\",\"c\":\"rdy\",\"code\":\"InvalidRequest\",\"o\":\"InvalidRequest\",\
             \"message\":\"The data requested is out of the range of data available.\",\
             \"m\":\"The data requested is out of the range of data available.\"}"
        );
    }

    #[test]
    fn the_envelope_of_the_largest_numbers_fits_its_allowance() {
        let (images, id) = toy();
        let token = "t".repeat(64);
        let mut largest = at(&id);
        (largest.file, largest.index) = (255, u64::from(u32::MAX));
        let message = block(Encoding::Cbor, Some(&token), &largest, &images).unwrap();
        assert!(message.len() - largest.length <= ENVELOPE_BYTES_MAX);
    }
}
