//! One visitor for saved states in both directions: what is written and what is read is the same line of code, so that
//! they cannot differ, and the guest has it once.
//!
//! A flat sequence of CBOR items (RFC 8742). What is read is as hostile as a network: the first item that does not fit
//! breaks the whole, and nothing after it counts.

use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, Major};
use crate::types::InstantMs;

use super::timer::NEVER;

/// Writes, or reads, whatever it is shown.
pub(super) struct Codec<'b> {
    out: Vec<u8>,
    input: Option<cbor::Reader<'b>>,
    broken: bool,
    /// Instants are written as durations from here.
    base: InstantMs,
}

impl<'b> Codec<'b> {
    pub(super) fn writer(base: InstantMs) -> Self {
        Self {
            out: Vec::with_capacity(256),
            input: None,
            broken: false,
            base,
        }
    }

    pub(super) const fn reader(bytes: &'b [u8], base: InstantMs) -> Self {
        Self {
            out: Vec::new(),
            input: Some(cbor::Reader::new(bytes)),
            broken: false,
            base,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub(super) const fn reads(&self) -> bool {
        self.input.is_some()
    }

    /// Whether everything was read, and fitted.
    pub(super) fn is_complete(&self) -> bool {
        !self.broken && self.input.as_ref().is_none_or(cbor::Reader::is_empty)
    }

    /// Now, as far as durations go.
    pub(super) const fn base(&self) -> InstantMs {
        self.base
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Something that was read makes no sense.
    pub(super) fn refuse(&mut self) {
        self.broken = true;
    }

    #[inline(never)]
    pub(super) fn uint(&mut self, value: &mut u64) {
        match &mut self.input {
            None => cbor::push_unsigned(&mut self.out, *value),
            Some(input) => match input.unsigned() {
                Ok(read) => *value = read,
                Err(_) => self.broken = true,
            },
        }
    }

    #[inline(never)]
    pub(super) fn uint32(&mut self, value: &mut u32) {
        let mut wide = u64::from(*value);
        self.uint(&mut wide);
        match u32::try_from(wide) {
            Ok(read) => *value = read,
            Err(_) => self.broken = true,
        }
    }

    #[inline(never)]
    pub(super) fn byte(&mut self, value: &mut u8) {
        let mut wide = u32::from(*value);
        self.uint32(&mut wide);
        match u8::try_from(wide) {
            Ok(read) => *value = read,
            Err(_) => self.broken = true,
        }
    }

    #[inline(never)]
    pub(super) fn flag(&mut self, value: &mut bool) {
        let mut byte = u8::from(*value);
        self.byte(&mut byte);
        *value = byte == 1;
        self.broken |= byte > 1;
    }

    /// An instant as a duration; [`NEVER`] stays what it is.
    #[inline(never)]
    pub(super) fn instant(&mut self, at: &mut InstantMs) {
        let mut left = if *at == NEVER {
            NEVER
        } else {
            at.saturating_sub(self.base)
        };
        self.uint(&mut left);
        if self.reads() {
            *at = self.base.saturating_add(left);
        }
    }

    /// An instant that is over, as the time since.
    #[inline(never)]
    pub(super) fn past(&mut self, at: &mut InstantMs) {
        let mut since = self.base.saturating_sub(*at);
        self.uint(&mut since);
        if self.reads() {
            *at = self.base.saturating_sub(since);
        }
    }

    /// The place in a list of so many constants.
    #[inline(never)]
    pub(super) fn place(&mut self, place: usize, count: usize) -> usize {
        let mut byte = place as u8;
        self.byte(&mut byte);
        let place = usize::from(byte);
        if place < count {
            return place;
        }
        self.broken = true;
        0
    }

    /// One of a list of constants, by its place.
    pub(super) fn one_of<T: Copy>(&mut self, value: T, place: usize, all: &[T]) -> T {
        let place = self.place(place, all.len());
        all.get(place).copied().unwrap_or(value)
    }

    #[inline(never)]
    pub(super) fn bytes(&mut self, value: &mut Vec<u8>) {
        match &mut self.input {
            None => cbor::push_bytes(&mut self.out, value),
            Some(input) => match input.bytes() {
                Ok(read) => *value = read.into_owned(),
                Err(_) => self.broken = true,
            },
        }
    }

    #[inline(never)]
    pub(super) fn text(&mut self, value: &mut String) {
        match &mut self.input {
            None => cbor::push_text(&mut self.out, value),
            Some(input) => match input.text() {
                Ok(read) => *value = read,
                Err(_) => self.broken = true,
            },
        }
    }

    /// How many items follow: as many as there are, or as were written. Each has at least a byte.
    #[inline(never)]
    pub(super) fn count(&mut self, count: usize) -> usize {
        let Some(input) = &mut self.input else {
            cbor::push_array(&mut self.out, count as u64);
            return count;
        };
        let read = input.enter(Major::Array).ok().and_then(|left| left.count());
        match read {
            Some(read) if read <= input.len() as u64 => read as usize,
            _ => {
                self.broken = true;
                0
            }
        }
    }

    /// A list. It is read into an empty one: a list that is shorter than the one there is leaves the rest.
    pub(super) fn list<T: Item>(&mut self, items: &mut Vec<T>) {
        let count = self.count(items.len());
        for at in 0..count {
            if at >= items.len() {
                items.push(T::default());
            }
            if let Some(item) = items.get_mut(at) {
                item.visit(self);
            }
        }
    }

    /// Something that may be missing, and is when it is read.
    pub(super) fn option<T: Item>(&mut self, value: &mut Option<T>) {
        let mut there = value.is_some();
        self.flag(&mut there);
        if there {
            value.get_or_insert_with(T::default).visit(self);
        }
    }
}

/// What a list can hold, or may be missing.
pub(super) trait Item: Default {
    /// Writes it, or reads it.
    fn visit(&mut self, codec: &mut Codec<'_>);
}

impl Item for bool {
    fn visit(&mut self, codec: &mut Codec<'_>) {
        codec.flag(self);
    }
}

impl Item for u32 {
    fn visit(&mut self, codec: &mut Codec<'_>) {
        codec.uint32(self);
    }
}

impl Item for u64 {
    fn visit(&mut self, codec: &mut Codec<'_>) {
        codec.uint(self);
    }
}

impl Item for String {
    fn visit(&mut self, codec: &mut Codec<'_>) {
        codec.text(self);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Sample {
        number: u64,
        flag: bool,
        text: String,
        at: InstantMs,
        list: Vec<u32>,
        option: Option<u64>,
    }

    fn visit(codec: &mut Codec<'_>, sample: &mut Sample) {
        codec.uint(&mut sample.number);
        codec.flag(&mut sample.flag);
        codec.text(&mut sample.text);
        codec.instant(&mut sample.at);
        codec.list(&mut sample.list);
        codec.option(&mut sample.option);
    }

    fn sample() -> Sample {
        Sample {
            number: u64::MAX,
            flag: true,
            text: "té".into(),
            at: 150,
            list: vec![1, 70_000],
            option: Some(3),
        }
    }

    #[test]
    fn what_was_written_is_read_with_instants_on_the_new_clock() {
        let mut writer = Codec::writer(100);
        visit(&mut writer, &mut sample());
        let bytes = writer.into_bytes();
        let mut reader = Codec::reader(&bytes, 1000);
        let mut read = Sample::default();
        visit(&mut reader, &mut read);
        assert!(reader.is_complete());
        assert_eq!(
            read,
            Sample {
                at: 1050,
                ..sample()
            }
        );
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed_or_harmless() {
        let mut writer = Codec::writer(0);
        visit(&mut writer, &mut sample());
        let bytes = writer.into_bytes();
        for end in 0..bytes.len() {
            let mut reader = Codec::reader(&bytes[..end], 0);
            visit(&mut reader, &mut Sample::default());
            assert!(!reader.is_complete(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // Nothing to compare: it must only end, whatever it read.
                visit(&mut Codec::reader(&bytes, 0), &mut Sample::default());
            }
        }
    }

    #[test]
    fn never_stays_never() {
        let mut writer = Codec::writer(77);
        writer.instant(&mut NEVER.clone());
        let bytes = writer.into_bytes();
        let mut at = 0;
        Codec::reader(&bytes, 99).instant(&mut at);
        assert_eq!(at, NEVER);
    }
}
