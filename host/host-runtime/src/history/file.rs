//! The history on the medium: records of JSON ([`frames`]). The last record of a job counts.

use serde::{Deserialize, Serialize};

use crate::frames;

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
    frames::put(&body, bytes);
}

/// Everything that can be read, and whether it can be appended to.
pub(super) fn decode(bytes: &[u8]) -> (Story, bool) {
    let found = frames::read(bytes, MAGIC, RECORD_MAX_BYTES, |body| {
        serde_json::from_slice(body).ok()
    });
    let mut story = Story {
        lost_bytes: found.lost_bytes.map(|lost| lost as u64),
        ..Story::default()
    };
    found.items.into_iter().for_each(|entry| story.take(entry));
    (story, found.is_whole)
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
