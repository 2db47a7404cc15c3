//! What devices ask of streams: `describe` and `get`, in CBOR and JSON.
//!
//! A `get` names wanted blocks by a bitmap, or by first and count. It is answered by one message a block, the lowest
//! first, at most 128 KiB of payload a request; what is left over is asked for again. A thing sees only streams of its
//! own jobs.

use std::sync::Arc;

use super::{
    ImageError, Kind, Outgoing, QoS, Service, StreamCode, StreamId, ThingName,
    job_api::CLIENT_TOKEN_BYTES_MAX,
    state::{Stream, StreamFile},
    stream_reply::{self, BlockAt},
    stream_request::{self, StreamRequest, Undecodable},
    topic::Encoding,
};

/// Smallest block.
const BLOCK_BYTES_MIN: i64 = 256;
/// Largest block, and the payload of one request.
const REQUEST_BYTES_MAX: i64 = 128 * 1024;

/// Why a request is refused.
type Refusal = (StreamCode, &'static str);

/// The range that a request names holds nothing.
const OUT_OF_RANGE: Refusal = (
    StreamCode::InvalidRequest,
    "The data requested is out of the range of data available.",
);

/// A request whose members are in range, with defaults filled in.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    file: u8,
    block_size: u64,
    offset: u64,
    /// Most blocks to send.
    count: u64,
    /// Whether `count` was given, or stands in for "as many as fit".
    count_given: bool,
    bitmap: Option<&'a [u8]>,
}

impl Service {
    pub(super) fn handle_describe_stream(
        &mut self,
        thing: &ThingName,
        stream: &str,
        encoding: Encoding,
        payload: &[u8],
        out: &mut Vec<Outgoing>,
    ) {
        let request = decode(encoding, payload);
        let token = token(&request);
        let answer = request
            .and_then(|_| self.stream_of(thing, stream))
            .map(|found| stream_reply::description(encoding, token.as_deref(), found));
        match answer {
            Ok(payload) => out.push(reply(
                thing,
                topic(thing, stream, "description", encoding),
                payload,
            )),
            Err(refusal) => self.refuse(thing, stream, encoding, token.as_deref(), refusal, out),
        }
    }

    pub(super) fn handle_get_stream(
        &mut self,
        thing: &ThingName,
        stream: &str,
        encoding: Encoding,
        payload: &[u8],
        out: &mut Vec<Outgoing>,
    ) {
        if self.state.things.contains_key(thing) {
            let counters = self.count(thing);
            counters.stream_requests += 1;
            counters.json_requests += u64::from(encoding == Encoding::Json);
        }
        let request = decode(encoding, payload);
        let token = token(&request);
        let first = out.len();
        let sent = request.and_then(|request| {
            self.send_blocks(thing, stream, encoding, &request, token.as_deref(), out)
        });
        match sent {
            Ok((blocks, bytes)) => {
                let counters = self.count(thing);
                counters.blocks += blocks;
                counters.block_bytes += bytes;
            }
            Err(refusal) => {
                // All or nothing: half an answer before a refusal would only confuse.
                out.truncate(first);
                self.refuse(thing, stream, encoding, token.as_deref(), refusal, out);
            }
        }
    }

    pub(super) fn reject_unknown_stream(
        &mut self,
        thing: &ThingName,
        stream: &str,
        encoding: Encoding,
        out: &mut Vec<Outgoing>,
    ) {
        let refusal = (
            StreamCode::InvalidTopic,
            "The topic names no request of streams.",
        );
        self.refuse(thing, stream, encoding, None, refusal, out);
    }

    fn stream_of(&self, thing: &ThingName, id: &str) -> Result<&Stream, Refusal> {
        if StreamId::new(id).is_err() {
            return Err((
                StreamCode::InvalidTopic,
                "The topic holds no valid stream id.",
            ));
        }
        let none = (
            StreamCode::ResourceNotFound,
            "No stream of that id belongs to a job of this thing.",
        );
        let stream = self.state.streams.get(id).ok_or(none)?;
        let thing = self.state.things.get(thing).ok_or(none)?;
        match thing.execution(stream.job.as_str()) {
            Some(execution) if execution.offered_at_ms.is_some() => Ok(stream),
            Some(_) | None => Err(none),
        }
    }

    fn send_blocks(
        &self,
        thing: &ThingName,
        id: &str,
        encoding: Encoding,
        request: &StreamRequest,
        token: Option<&str>,
        out: &mut Vec<Outgoing>,
    ) -> Result<(u64, u64), Refusal> {
        let wanted = self.check(request)?;
        let stream = self.stream_of(thing, id)?;
        if request
            .version
            .is_some_and(|v| v != i64::from(stream.version))
        {
            return Err((
                StreamCode::VersionMismatch,
                "The stream has another version.",
            ));
        }
        let file = stream.files.get(&wanted.file).ok_or((
            StreamCode::ResourceNotFound,
            "The stream has no file of that id.",
        ))?;
        let topic: Arc<str> = topic(thing, id, "data", encoding);
        let (mut blocks, mut bytes) = (0, 0);
        for index in wanted.select(file)? {
            let offset = index * wanted.block_size;
            let length = wanted.block_size.min(file.size - offset);
            let at = BlockAt {
                image: &file.image,
                file: wanted.file,
                index,
                offset,
                // At most 128 KiB, as checked.
                length: length as usize,
            };
            let payload = stream_reply::block(encoding, token, &at, &*self.images)
                .map_err(|error| unreadable(thing, &error))?;
            out.push(Outgoing {
                kind: Kind::Block,
                ..reply(thing, Arc::clone(&topic), payload)
            });
            blocks += 1;
            bytes += length;
        }
        Ok((blocks, bytes))
    }

    /// Ranges of the members, each with its own code.
    fn check<'a>(&self, request: &'a StreamRequest) -> Result<Wanted<'a>, Refusal> {
        if request
            .token
            .as_ref()
            .is_some_and(|t| t.len() > CLIENT_TOKEN_BYTES_MAX)
        {
            return Err((
                StreamCode::InvalidRequest,
                "The client token is longer than 64 bytes.",
            ));
        }
        let file = request
            .file
            .ok_or((StreamCode::InvalidRequest, "The file id is missing."))?;
        let file = u8::try_from(file).map_err(|_| {
            (
                StreamCode::InvalidRequest,
                "The file id is not between 0 and 255.",
            )
        })?;
        let block_size = request
            .block_size
            .ok_or((StreamCode::InvalidRequest, "The block size is missing."))?;
        if !(BLOCK_BYTES_MIN..=REQUEST_BYTES_MAX).contains(&block_size) {
            return Err((
                StreamCode::BlockSizeOutOfBounds,
                "The block size is not between 256 and 131072 bytes.",
            ));
        }
        let blocks_max = self.limits.blocks_max();
        let in_range = |n: i64| u64::try_from(n).ok().filter(|n| *n <= blocks_max);
        let offset = in_range(request.offset.unwrap_or(0)).ok_or((
            StreamCode::OffsetOutOfBounds,
            "The block offset is out of range.",
        ))?;
        let fit = REQUEST_BYTES_MAX / block_size;
        let count = in_range(request.count.unwrap_or(fit)).ok_or((
            StreamCode::BlockCountLimitExceeded,
            "The number of blocks is out of range.",
        ))?;
        if request
            .bitmap
            .as_ref()
            .is_some_and(|b| b.len() >= self.limits.bitmap_bytes_end())
        {
            return Err((
                StreamCode::BlockBitmapLimitExceeded,
                "The bitmap is too long.",
            ));
        }
        Ok(Wanted {
            file,
            // Both are positive, as just checked.
            block_size: block_size.unsigned_abs(),
            offset,
            count: count.min(fit.unsigned_abs()),
            count_given: request.count.is_some(),
            bitmap: request.bitmap.as_deref(),
        })
    }

    fn refuse(
        &mut self,
        thing: &ThingName,
        stream: &str,
        encoding: Encoding,
        token: Option<&str>,
        (code, text): Refusal,
        out: &mut Vec<Outgoing>,
    ) {
        if self.state.things.contains_key(thing) {
            self.count(thing).rejected += 1;
        }
        tracing::debug!(%thing, code = code.as_str(), text, "stream request refused");
        // The refusal of an invalid topic goes back into that topic's stream, as far as it has the length of one.
        if stream.len() <= super::STREAM_ID_BYTES_MAX {
            let payload = stream_reply::rejection(encoding, token, code, text);
            out.push(reply(
                thing,
                topic(thing, stream, "rejected", encoding),
                payload,
            ));
        }
    }
}

impl Wanted<'_> {
    /// Numbers of the blocks to send, ascending.
    fn select(&self, file: &StreamFile) -> Result<Vec<u64>, Refusal> {
        let total = file.size.div_ceil(self.block_size);
        // At most 128 KiB / 256 B = 512 of them.
        let most = self.count as usize;
        let blocks: Vec<u64> = match self.bitmap {
            Some(bitmap) => ones(bitmap)
                .map(|bit| self.offset + bit)
                .take_while(|index| *index < total)
                .take(most)
                .collect(),
            // Neither bitmap nor count asks for 128 KiB, which a smaller file does not have.
            None if !self.count_given && self.offset + self.count > total => Vec::new(),
            None => (self.offset..total).take(most).collect(),
        };
        if blocks.is_empty() {
            return Err(OUT_OF_RANGE);
        }
        Ok(blocks)
    }
}

/// Positions of the set bits, least significant bit of the first byte first.
fn ones(bitmap: &[u8]) -> impl Iterator<Item = u64> {
    bitmap.iter().enumerate().flat_map(|(at, byte)| {
        (0..8)
            .filter(move |bit| byte >> bit & 1 == 1)
            .map(move |bit| at as u64 * 8 + bit)
    })
}

fn decode(encoding: Encoding, payload: &[u8]) -> Result<StreamRequest, Refusal> {
    match encoding {
        Encoding::Cbor => stream_request::from_cbor(payload)
            .map_err(|Undecodable| (StreamCode::InvalidCbor, "Invalid CBOR message")),
        Encoding::Json => stream_request::from_json(payload)
            .map_err(|Undecodable| (StreamCode::InvalidJson, "Invalid JSON message")),
    }
}

/// The token to echo: none that breaks its limit.
fn token(request: &Result<StreamRequest, Refusal>) -> Option<String> {
    let token = request.as_ref().ok()?.token.as_ref()?;
    (token.len() <= CLIENT_TOKEN_BYTES_MAX).then(|| token.clone())
}

fn unreadable(thing: &ThingName, error: &ImageError) -> Refusal {
    tracing::warn!(%thing, %error, "cannot send a block");
    match error {
        ImageError::Denied(_) => (
            StreamCode::Unauthorized,
            "The service may not read this file.",
        ),
        ImageError::Changed(_) => (
            StreamCode::ETagMismatch,
            "The file is not what it was when the stream was made.",
        ),
        ImageError::Failed { .. } => (
            StreamCode::InternalError,
            "The service cannot read this file.",
        ),
    }
}

fn topic(thing: &ThingName, stream: &str, verb: &str, encoding: Encoding) -> Arc<str> {
    format!(
        "$aws/things/{thing}/streams/{stream}/{verb}/{}",
        encoding.as_str()
    )
    .into()
}

fn reply(thing: &ThingName, topic: Arc<str>, payload: Vec<u8>) -> Outgoing {
    Outgoing {
        to: thing.clone(),
        topic,
        payload: payload.into(),
        qos: QoS::AtMostOnce,
        kind: Kind::Reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ImageId;

    fn file(size: u64) -> StreamFile {
        StreamFile {
            image: ImageId::of(b""),
            size,
        }
    }

    fn wanted(offset: u64, count: Option<u64>, bitmap: Option<&[u8]>) -> Wanted<'_> {
        Wanted {
            file: 0,
            block_size: 1024,
            offset,
            count: count.unwrap_or(128),
            count_given: count.is_some(),
            bitmap,
        }
    }

    #[test]
    fn the_documented_bitmap_example_selects_the_documented_blocks() {
        let blocks = wanted(20, None, Some(&[0x13, 0x00, 0x80])).select(&file(100 * 1024));
        assert_eq!(blocks, Ok(vec![20, 21, 24, 43]));
    }

    #[test]
    fn rows_of_selection() {
        type Row<'a> = (u64, u64, Option<u64>, Option<&'a [u8]>, Option<Vec<u64>>);
        let rows: [Row<'_>; 12] = [
            // size, o, n, b -> blocks
            (2500, 0, Some(1), Some(&[7]), Some(vec![0])),
            (2500, 0, Some(1), Some(&[6]), Some(vec![1])),
            (2500, 0, Some(8), Some(&[7]), Some(vec![0, 1, 2])),
            // Bits behind the end ask for nothing.
            (2500, 0, Some(8), Some(&[0xff, 0xff]), Some(vec![0, 1, 2])),
            (2500, 0, Some(8), Some(&[0xf8]), None),
            (2500, 0, Some(8), Some(&[0]), None),
            (2500, 0, Some(8), Some(&[]), None),
            // By count: as many as there are.
            (2500, 1, Some(8), None, Some(vec![1, 2])),
            (2500, 3, Some(1), None, None),
            (2500, 0, Some(0), None, None),
            // Neither: only a file of 128 KiB or more has that much.
            (2500, 0, None, None, None),
            (0, 0, Some(1), Some(&[1]), None),
        ];
        for (size, offset, count, bitmap, want) in rows {
            let got = wanted(offset, count, bitmap).select(&file(size)).ok();
            assert_eq!(got, want, "size {size} o {offset} n {count:?} b {bitmap:?}");
        }
        let all = wanted(0, None, None).select(&file(131_072)).unwrap();
        assert_eq!(all.len(), 128);
    }
}
