//! Which of the cloud's limits hold: those of AWS, or only our own.
//!
//! AWS's figures are AWS's, not ours: `--limits none` lifts them so that an image may have any size. What protects this
//! process from its clients (packet size, queue lengths, files per stream) holds either way and stands where it is used.

/// 16 MB: the largest file of an OTA update at AWS.
pub const AWS_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// 24 MB = 98,304 blocks of 256 bytes: the largest file of a stream at AWS.
pub const AWS_STREAM_FILE_BYTES_MAX: u64 = 24 * 1024 * 1024;
/// 24 MB / 256 B: the largest block offset and block count of a request at AWS.
pub const AWS_BLOCKS_MAX: u64 = AWS_STREAM_FILE_BYTES_MAX / 256;
/// A bitmap at AWS is shorter than this: 98,304 blocks / 8 bits.
pub const AWS_BITMAP_BYTES_END: usize = 12_288;
/// 128 KB: the largest payload of a message at AWS.
pub const AWS_MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Most characters of a job document.
pub const AWS_DOCUMENT_CHARS_MAX: usize = 32_768;
/// AWS allows ten files in a stream.
pub const AWS_STREAM_FILES_MAX: usize = 10;
/// Jobs requests per second of one thing before the cloud answers `RequestThrottled`. AWS counts per account; here one
/// runaway thing is stopped without touching the others.
pub const AWS_JOBS_REQUESTS_PER_S: u32 = 200;
/// Five seconds' worth at once, so that a burst of progress messages passes.
pub const AWS_JOBS_REQUEST_BURST: u32 = 5 * AWS_JOBS_REQUESTS_PER_S;
/// 50 subscriptions a connection at AWS.
pub const AWS_SUBSCRIPTIONS_MAX: usize = 50;

/// The set of limits a cloud enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// Those of AWS IoT.
    #[default]
    Aws,
    /// Only what the protocol's number ranges and this process's memory ask for.
    None,
}

impl Limits {
    /// Largest file in bytes that an update may carry.
    #[must_use]
    pub fn file_bytes_max(self) -> u64 {
        match self {
            Self::Aws => AWS_FILE_BYTES_MAX,
            // Block numbers are u32 everywhere on the wire: 2^32 blocks of the smallest size.
            Self::None => (u64::from(u32::MAX) + 1) * 256,
        }
    }

    /// Largest block offset, and largest block count, of one stream request.
    #[must_use]
    pub fn blocks_max(self) -> u64 {
        match self {
            Self::Aws => AWS_BLOCKS_MAX,
            Self::None => u64::from(u32::MAX),
        }
    }

    /// A bitmap of a stream request has fewer bytes than this.
    #[must_use]
    pub fn bitmap_bytes_end(self) -> usize {
        match self {
            Self::Aws => AWS_BITMAP_BYTES_END,
            // The packet limit is what bounds it: 160 KiB.
            Self::None => usize::MAX,
        }
    }

    /// Largest payload a client may publish.
    #[must_use]
    pub fn message_bytes_max(self) -> usize {
        match self {
            Self::Aws => AWS_MESSAGE_BYTES_MAX,
            Self::None => usize::MAX,
        }
    }

    /// Most characters of a job document.
    #[must_use]
    pub fn document_chars_max(self) -> usize {
        match self {
            Self::Aws => AWS_DOCUMENT_CHARS_MAX,
            // Agents take messages of 128 KiB: this, and an envelope.
            Self::None => AWS_MESSAGE_BYTES_MAX,
        }
    }

    /// Most files of one stream, and so of one update.
    #[must_use]
    pub fn stream_files_max(self) -> usize {
        match self {
            Self::Aws => AWS_STREAM_FILES_MAX,
            // An agent of ours takes 16 files in a job.
            Self::None => 16,
        }
    }

    /// Jobs requests per second of one thing, and the burst; `None` = unlimited.
    #[must_use]
    pub fn jobs_requests(self) -> Option<(u32, u32)> {
        match self {
            Self::Aws => Some((AWS_JOBS_REQUESTS_PER_S, AWS_JOBS_REQUEST_BURST)),
            Self::None => None,
        }
    }

    /// Most subscriptions of one connection.
    #[must_use]
    pub fn subscriptions_max(self) -> usize {
        match self {
            Self::Aws => AWS_SUBSCRIPTIONS_MAX,
            // Twenty things with their jobs and streams on one shared connection, per core of a gateway; not the world.
            Self::None => 4096,
        }
    }
}

impl std::str::FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "aws" => Ok(Self::Aws),
            "none" => Ok(Self::None),
            other => Err(format!("limits are \"aws\" or \"none\", not {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_aws_fit_together() {
        assert_eq!(AWS_BLOCKS_MAX, 98_304);
        assert_eq!(AWS_BITMAP_BYTES_END as u64 * 8, AWS_BLOCKS_MAX);
    }

    #[test]
    fn limits_have_two_names_and_no_third() {
        assert_eq!("aws".parse(), Ok(Limits::Aws));
        assert_eq!("none".parse(), Ok(Limits::None));
        assert!("AWS".parse::<Limits>().unwrap_err().contains("\"AWS\""));
    }
}
