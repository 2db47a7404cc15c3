//! Reading and writing the maps of SMP with minicbor. Servers write maps and lists of indefinite length, clients definite
//! ones; both are read. Keys are texts, unknown ones are skipped, a key that stands twice counts as it stands last.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use minicbor::encode::Encoder;

/// What is written: a tree, small and short-lived.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(&'static str, Self)>),
}

impl Value {
    /// The bytes of it; `indefinite` as zcbor writes maps and lists.
    pub(crate) fn encode(&self, indefinite: bool) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to a Vec cannot fail; what is written so far is all there is.
        self.write(&mut encoder, indefinite).ok();
        encoder.into_writer()
    }

    fn write(
        &self,
        out: &mut Encoder<Vec<u8>>,
        indefinite: bool,
    ) -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
        match self {
            Self::Bool(b) => out.bool(*b).map(drop),
            Self::Int(i) => out.i64(*i).map(drop),
            Self::Text(text) => out.str(text).map(drop),
            Self::Bytes(bytes) => out.bytes(bytes).map(drop),
            Self::List(values) => {
                if indefinite {
                    out.begin_array()?;
                } else {
                    out.array(values.len() as u64)?;
                }
                for value in values {
                    value.write(out, indefinite)?;
                }
                end(out, indefinite)
            }
            Self::Map(entries) => {
                if indefinite {
                    out.begin_map()?;
                } else {
                    out.map(entries.len() as u64)?;
                }
                for (key, value) in entries {
                    out.str(key)?;
                    value.write(out, indefinite)?;
                }
                end(out, indefinite)
            }
        }
    }
}

fn end(
    out: &mut Encoder<Vec<u8>>,
    indefinite: bool,
) -> Result<(), minicbor::encode::Error<core::convert::Infallible>> {
    if indefinite {
        out.end().map(drop)
    } else {
        Ok(())
    }
}

/// Reads a map: `entry` is given each key and reads the value, or answers false and it is skipped.
pub(crate) fn map<'b>(
    d: &mut Decoder<'b>,
    mut entry: impl FnMut(&'b str, &mut Decoder<'b>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let count = d.map()?;
    let mut left = count;
    while more(d, &mut left)? {
        // A key that is no text is nothing of ours.
        let known = match d.datatype()? {
            Type::String => {
                let key = d.str()?;
                entry(key, d)?
            }
            _ => {
                d.skip()?;
                false
            }
        };
        if !known {
            d.skip()?;
        }
    }
    Ok(())
}

/// Reads a list: `element` reads each one.
pub(crate) fn list<'b>(
    d: &mut Decoder<'b>,
    mut element: impl FnMut(&mut Decoder<'b>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = d.array()?;
    while more(d, &mut left)? {
        element(d)?;
    }
    Ok(())
}

/// Whether another entry follows; `left` is `None` for indefinite length, whose end is taken.
fn more(d: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, Error> {
    match left {
        Some(0) => Ok(false),
        Some(left) => {
            *left -= 1;
            Ok(true)
        }
        None if d.datatype()? == Type::Break => {
            d.set_position(d.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

/// Whether a map comes next.
pub(crate) fn is_map(d: &Decoder<'_>) -> bool {
    matches!(d.datatype(), Ok(Type::Map | Type::MapIndef))
}
