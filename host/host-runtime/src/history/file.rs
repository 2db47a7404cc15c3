//! The history on the medium: a magic number, then records of length, CRC-32C and JSON. The last record of a job counts.

use serde::{Deserialize, Serialize};

use super::{JOBS_MAX, JobRecord, Story, Words};

/// First bytes of the file; another layout gets another number.
pub(super) const MAGIC: &[u8; 8] = b"OTADHIS1";

/// Most bytes of a record: 16 files with names and versions, a status of 2 KiB and a failure, all of it escaped.
const RECORD_MAX_BYTES: usize = 64 * 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// A job as it is by now.
    Job(JobRecord),
    /// What the device is about.
    Words(Words),
}

/// One record more.
pub(super) fn encode(entry: &Entry, bytes: &mut Vec<u8>) {
    // Nothing in it can fail to serialize; an empty body would be skipped as damage by the reader.
    let body = serde_json::to_vec(entry).unwrap_or_default();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
}

/// Everything up to the first damage, and whether there was none.
pub(super) fn decode(bytes: &[u8]) -> (Story, bool) {
    let mut story = Story::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return (story, false);
    };
    while !rest.is_empty() {
        let Some((entry, after)) = decode_one(rest) else {
            return (story, false);
        };
        story.take(entry);
        rest = after;
    }
    (story, true)
}

fn decode_one(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (length, rest) = word(bytes)?;
    let (crc, rest) = word(rest)?;
    let length = usize::try_from(length).ok()?;
    if length > RECORD_MAX_BYTES {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c(body) != crc {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, rest))
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}

impl Story {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Words(words) => self.words = Some(words),
            Entry::Job(job) => {
                // A later record of a job that has ended is another job of the same name.
                let same =
                    |known: &&mut JobRecord| known.job_id == job.job_id && known.end.is_none();
                if let Some(known) = self.jobs.iter_mut().rev().find(same) {
                    *known = job;
                    return;
                }
                self.jobs.push(job);
                if self.jobs.len() > JOBS_MAX {
                    self.jobs.remove(0);
                }
            }
        }
    }
}
