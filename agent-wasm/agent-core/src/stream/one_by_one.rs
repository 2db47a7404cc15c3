//! A file that comes one block at a time: the next one is asked for, by its offset, when the one before is written.
//!
//! For orchestrators that want it simple; [`super::Downloader`] keeps a link filled and knows how long to wait. Not here:
//! when to ask again, who publishes, who stores.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{OtaErr, OtadErr};
use crate::document::{FileEntry, Job};
use crate::jobs::{Encoding, Status, StreamId, ThingName, Topic, classify, topic};

use super::{
    Block, BlockGrid, BlockIndex, GetRequest, Rejection, decode_data, decode_rejected, encode_get,
};

/// The token of each request: with one under way nothing is told apart by it.
const TOKEN: &str = "rdy";

/// The transfer of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneByOne {
    thing: ThingName,
    stream: StreamId,
    encoding: Encoding,
    file_id: u32,
    grid: BlockGrid,
    next: BlockIndex,
}

impl OneByOne {
    /// Begins at the first block.
    #[must_use]
    pub const fn new(
        thing: ThingName,
        stream: StreamId,
        encoding: Encoding,
        file_id: u32,
        grid: BlockGrid,
    ) -> Self {
        Self {
            thing,
            stream,
            encoding,
            file_id,
            grid,
            next: BlockIndex(0),
        }
    }

    /// The one file of a job, by its stream.
    ///
    /// # Errors
    /// How the job ends that has several files, or no stream, or a file of too many blocks.
    pub fn of_job(
        thing: ThingName,
        job: Job,
        encoding: Encoding,
        block_size: u32,
    ) -> Result<(FileEntry, Self), Status> {
        let failed = |main, sub| Status::Failed { main, sub };
        let grids = job.grids(block_size)?;
        let count = job.files.len() as u32;
        let mut files = job.files.into_iter().zip(grids);
        let (Some((file, grid)), None) = (files.next(), files.next()) else {
            return Err(failed(OtadErr::LimitReached.code(), count));
        };
        match job.stream.filter(|_| job.protocols.mqtt) {
            Some(stream) => {
                let blocks = Self::new(thing, stream, encoding, file.file_id, grid);
                Ok((file, blocks))
            }
            None => Err(failed(OtaErr::InvalidDataProtocol.code(), 0)),
        }
    }

    /// The file, blocks written, and blocks in all.
    #[must_use]
    pub const fn place(&self) -> (u32, u64, u64) {
        (self.file_id, self.next.0 as u64, self.grid.count() as u64)
    }

    /// What to subscribe to after each connection.
    #[must_use]
    pub fn filters(&self) -> [String; 2] {
        [
            Topic::StreamData(self.encoding),
            Topic::StreamRejected(self.encoding),
        ]
        .map(|of| topic(&self.thing, of, self.stream.as_str()))
    }

    /// The block that is asked for, which is also how many are written.
    #[must_use]
    pub const fn next(&self) -> BlockIndex {
        self.next
    }

    /// The blocks of the file.
    #[must_use]
    pub const fn grid(&self) -> &BlockGrid {
        &self.grid
    }

    /// Asks for the next block, also once more: topic and payload, to be published with QoS 0.
    #[must_use]
    pub fn request(&self) -> (String, Vec<u8>) {
        let request = GetRequest {
            token: TOKEN,
            file_id: self.file_id,
            block_size: self.grid.block_size(),
            offset: self.next.0,
            bitmap: &[1],
            count: 1,
        };
        let payload = encode_get(self.encoding, &request);
        let of = Topic::StreamGet(self.encoding);
        (topic(&self.thing, of, self.stream.as_str()), payload)
    }

    /// Reads a message: the next block, to be written before [`Self::on_written`], or why there is none. None if it is
    /// of another file or stream, cannot be read, or is not the block that is asked for, whole.
    #[must_use]
    pub fn on_message<'m>(
        &self,
        topic: &str,
        payload: &'m [u8],
    ) -> Option<Result<Block<'m>, Rejection>> {
        let (topic, stream) = classify(&self.thing, topic)?;
        if stream != self.stream.as_str() {
            return None;
        }
        if topic == Topic::StreamRejected(self.encoding) {
            return decode_rejected(self.encoding, payload).ok().map(Err);
        }
        if topic != Topic::StreamData(self.encoding) {
            return None;
        }
        let message = decode_data(self.encoding, payload).ok()?;
        let (offset, size) = (
            self.grid.offset(self.next)?,
            self.grid.block_len(self.next)?,
        );
        let fits = message.file_id == u64::from(self.file_id)
            && message.index == u64::from(self.next.0)
            && message.size == u64::from(size)
            && message.payload.len() == size as usize;
        fits.then_some(Ok(Block {
            index: self.next,
            offset,
            data: message.payload,
        }))
    }

    /// The storage has the block; says whether another one is missing.
    pub const fn on_written(&mut self) -> bool {
        if self.next.0 < self.grid.count() {
            self.next.0 += 1;
        }
        self.next.0 < self.grid.count()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;
    use crate::code::StreamErr;

    /// Two blocks: 256 bytes and 44.
    fn file(encoding: Encoding) -> OneByOne {
        OneByOne::new(
            ThingName::new("t").unwrap(),
            StreamId::new("s").unwrap(),
            encoding,
            3,
            BlockGrid::new(300, 256).unwrap(),
        )
    }

    fn block(index: u32, size: usize) -> String {
        // Base64 of zeros.
        let whole = "AAAA".repeat(size / 3);
        let rest = ["", "AA==", "AAA="][size % 3];
        format!(r#"{{"f":3,"i":{index},"l":{size},"p":"{whole}{rest}"}}"#)
    }

    const DATA: &str = "$aws/things/t/streams/s/data/json";

    #[test]
    fn each_block_is_asked_for_by_its_offset_and_the_last_one_ends_it() {
        let mut file = file(Encoding::Json);
        let (topic, payload) = file.request();
        assert_eq!(topic, "$aws/things/t/streams/s/get/json");
        assert_eq!(
            payload,
            br#"{"c":"rdy","f":3,"l":256,"o":0,"n":1,"b":"0x01"}"#
        );
        let message = block(0, 256);
        let Some(Ok(first)) = file.on_message(DATA, message.as_bytes()) else {
            panic!("it was asked for");
        };
        assert_eq!((first.offset, first.data.len()), (0, 256));
        assert!(file.on_written());
        assert!(
            file.request()
                .1
                .starts_with(br#"{"c":"rdy","f":3,"l":256,"o":1,"#)
        );
        let message = block(1, 44);
        let Some(Ok(last)) = file.on_message(DATA, message.as_bytes()) else {
            panic!("it was asked for");
        };
        assert_eq!((last.offset, last.data.len()), (256, 44));
        assert!(!file.on_written());
        assert!(!file.on_written());
        assert_eq!(file.on_message(DATA, message.as_bytes()), None);
    }

    #[test]
    fn what_is_not_the_block_that_was_asked_for_is_nothing() {
        let file = file(Encoding::Json);
        let rows = [
            (DATA, block(1, 44)),
            (DATA, block(0, 255)),
            (DATA, block(0, 256).replace("\"f\":3", "\"f\":4")),
            (DATA, block(0, 256).replace("\"l\":256", "\"l\":255")),
            (DATA, String::from("{")),
            ("$aws/things/t/streams/other/data/json", block(0, 256)),
            ("$aws/things/t/streams/s/data/cbor", block(0, 256)),
            ("$aws/things/u/streams/s/data/json", block(0, 256)),
        ];
        for (topic, message) in rows {
            assert_eq!(
                file.on_message(topic, message.as_bytes()),
                None,
                "{topic} {message}"
            );
        }
    }

    #[test]
    fn a_refusal_says_why_in_either_encoding() {
        let json = file(Encoding::Json).on_message(
            "$aws/things/t/streams/s/rejected/json",
            br#"{"code":"ResourceNotFound","message":"gone"}"#,
        );
        let cbor = file(Encoding::Cbor).on_message(
            "$aws/things/t/streams/s/rejected/cbor",
            b"\xa2\x61o\x70ResourceNotFound\x61m\x64gone",
        );
        for refusal in [json, cbor] {
            let Some(Err(rejection)) = refusal else {
                panic!("it is refused");
            };
            assert_eq!(rejection.code, StreamErr::ResourceNotFound);
            assert_eq!(rejection.message.to_string(), "gone");
        }
    }

    #[test]
    fn a_job_of_one_file_by_stream_is_taken_and_others_have_their_end() {
        let job = |members: &str, files: &str| {
            let text = format!(r#"{{"afr_ota":{{{members},"files":[{files}]}}}}"#);
            let job = crate::document::parse_job(&text).unwrap();
            let thing = ThingName::new("t").unwrap();
            OneByOne::of_job(thing, job, Encoding::Json, 256).map(|(file, blocks)| {
                assert_eq!(blocks.grid().block_size(), 256);
                (file.file_id, blocks.place())
            })
        };
        let one = r#"{"filepath":"f","filesize":300,"fileid":3}"#;
        let two = r#"{"filepath":"f","filesize":300,"fileid":3},{"filepath":"f","filesize":1,"fileid":4}"#;
        let huge = r#"{"filepath":"f","filesize":268435457,"fileid":3}"#;
        let stream = r#""protocols":["MQTT"],"streamname":"s""#;
        let failed = |main, sub| Err(Status::Failed { main, sub });
        let rows = [
            (stream, one, Ok((3, (3, 0, 2)))),
            (stream, two, failed(0x4b, 2)),
            (stream, huge, failed(0x0c, 0x05)),
            (r#""protocols":["MQTT"]"#, one, failed(0x0d, 0)),
            (
                r#""protocols":["HTTP"],"streamname":"s""#,
                one,
                failed(0x0d, 0),
            ),
        ];
        for (members, files, expected) in rows {
            assert_eq!(job(members, files), expected, "{members} {files}");
        }
    }

    #[test]
    fn in_cbor_the_request_is_the_same() {
        let (topic, payload) = file(Encoding::Cbor).request();
        assert_eq!(topic, "$aws/things/t/streams/s/get/cbor");
        assert_eq!(
            payload,
            b"\xa6\x61c\x63rdy\x61f\x03\x61l\x19\x01\x00\x61o\x00\x61b\x41\x01\x61n\x01"
        );
    }
}
