//! What the host is told of a file before its first block, from the job document: for orchestrators of one's own.

use alloc::string::String;
use alloc::vec::Vec;

use crate::jobs::JobId;
use crate::types::FileSpec;

use super::FileEntry;

impl FileEntry {
    /// The file of this job, in blocks of this size.
    #[must_use]
    pub fn spec(&self, job: &JobId, block_size: u32) -> FileSpec {
        let (kind, signature) = match &self.signature {
            Some(signature) => (signature.kind.key(), signature.bytes.clone()),
            None => ("", Vec::new()),
        };
        FileSpec {
            job_id: String::from(job.as_str()),
            file_id: self.file_id,
            size: self.size,
            block_size,
            file_type: self.file_type,
            attributes: self.attributes,
            path: self.path.clone(),
            certificate: self.certificate.clone(),
            signature_kind: String::from(kind),
            signature,
        }
    }
}
