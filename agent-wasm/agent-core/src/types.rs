//! The words of the agent's contract as plain Rust: twins of `wit/agent/*.wit`, which is the authority on meaning,
//! units and limits.
//!
//! The generated bindings of a guest are converted to these at the edge and go no further. Two words are ours alone:
//! [`Action`], what the agent wants done, and [`Event::Ended`], the end of one that was over at once.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use crate::text::push_decimal;

/// Names one operation of the host that is under way; never 0.
pub type Token = u64;

/// Selects the target; 0 is the gateway's own software.
pub type FileId = u32;

/// Milliseconds on the device's clock.
pub type InstantMs = u64;

/// Names one [`Action`] between the call that made it and its end; the binding hands it back.
pub type Op = u32;

/// A firmware version; order is field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub revision: u16,
    /// Fourth number, 0 where a format has none; not on the AWS wire.
    pub build: u32,
}

impl Version {
    /// The 32-bit word of the AWS wire (`updatedBy`).
    #[must_use]
    pub const fn word(self) -> u32 {
        ((self.major as u32) << 24) | ((self.minor as u32) << 16) | self.revision as u32
    }

    /// The version of a wire word, with build 0.
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        Self {
            major: (word >> 24) as u8,
            minor: (word >> 16) as u8,
            revision: word as u16,
            build: 0,
        }
    }

    /// Pushes `1.2.3`, with `+4` where there is a build number.
    pub fn push_text(self, out: &mut String) {
        push_decimal(out, self.major.into());
        out.push('.');
        push_decimal(out, self.minor.into());
        out.push('.');
        push_decimal(out, self.revision.into());
        if self.build != 0 {
            out.push('+');
            push_decimal(out, self.build.into());
        }
    }
}

/// Why something failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Whose code it is, see [`crate::code`].
    pub main: u8,
    /// Detail number, 24 bits are used on the wire.
    pub sub: u32,
    /// For people; never matched on.
    pub detail: String,
}

/// Most bytes of [`Failure::detail`].
pub const DETAIL_MAX_BYTES: usize = 256;

impl Failure {
    /// A failure; a detail over the limit is cut at a character.
    #[must_use]
    pub fn new(main: u8, sub: u32, detail: &str) -> Self {
        Self {
            main,
            sub,
            detail: String::from(cut(detail, DETAIL_MAX_BYTES)),
        }
    }

    /// Both numbers in one word as the C agent's PAL status has them.
    #[must_use]
    pub const fn word(&self) -> u32 {
        ((self.main as u32) << 24) | (self.sub & 0x00ff_ffff)
    }
}

/// The longest beginning of a text with at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// Saved state with the number of its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Encoding of `bytes`.
    pub schema: u32,
    /// The state.
    pub bytes: Vec<u8>,
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// snake_case.
    pub key: String,
    /// Text.
    pub value: String,
}

/// What the host found out about an image while it verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Bytes under the signature.
    pub size: u64,
    /// SHA-256 of these bytes.
    pub sha256: Vec<u8>,
    /// Read from bytes under the signature.
    pub version: Option<Version>,
    /// Product or hardware that the image says it is for.
    pub product: Option<String>,
    /// Label of the trust-store entry that verified it.
    pub signer: String,
}

/// What a target says about itself; codes as [`crate::code::PalImageState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetState {
    /// Code.
    pub code: u8,
    /// Version that runs now.
    pub running: Option<Version>,
    /// Whether the running image is the one of the target's transfer.
    pub runs_new: Option<bool>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to tell.
    Nothing,
    /// `pal.reopen`: one bit a block.
    Held(Vec<u8>),
    /// `pal.close`.
    Verified(ImageInfo),
    /// `pal.state`.
    State(TargetState),
    /// For functions of later versions.
    Other(Vec<u8>),
    /// It did not work.
    Failed(Failure),
}

/// The time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The device's clock.
    pub now_ms: InstantMs,
    /// Seconds since 1970, if known. No decision hangs on it.
    pub wall_s: Option<u64>,
}

/// One target of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its number in job documents.
    pub file: FileId,
    /// Its name in the configuration.
    pub name: String,
    /// Its policy.
    pub settings: Vec<Setting>,
}

/// All that an agent is told; keys in [`crate::settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// AWS thing name.
    pub device: String,
    /// Device-wide settings.
    pub settings: Vec<Setting>,
    /// Known file ids.
    pub targets: Vec<Target>,
}

/// Where to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Nothing.
    None,
    /// After a restart of the host, or a trap.
    Journal(Blob),
    /// After a swap, a park or a trap.
    Snapshot(Blob),
}

/// What [`crate::agent::Agent::start`] gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartInfo {
    /// The configuration as it is now.
    pub config: Config,
    /// The state.
    pub saved: Saved,
    /// The schema to write in.
    pub schema: u32,
    /// Seed of tokens and jitter.
    pub seed: u64,
    /// Tokens of operations still under way.
    pub outstanding: Vec<Token>,
    /// Highest application event sequence that the host has stored.
    pub last_event: u64,
}

/// Who an agent build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Kebab-case.
    pub name: &'static str,
    /// Semver text.
    pub version: &'static str,
    /// Schemas that it reads and can write, the best one first.
    pub schemas: &'static [u32],
}

/// How a job ends that the agent did not run itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    /// As [`crate::code::JobStatus`].
    pub status: u8,
    /// Members of statusDetails.
    pub details: Vec<(String, String)>,
}

/// Answer to an offered job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferAnswer {
    /// Take it.
    Accept,
    /// Ask again after so many milliseconds.
    Defer(u64),
    /// REJECTED with this reason.
    Reject(String),
}

/// Answer to a job that the built-in parser did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomAnswer {
    /// Nobody takes it.
    Nobody,
    /// Somebody works on it.
    Taken,
    /// Run this job document instead.
    Document(Vec<u8>),
    /// It is over.
    Finished(JobResult),
}

/// What an operator or the application wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the job service now.
    CheckForUpdate,
    /// Stop requesting until [`Command::Resume`].
    Suspend,
    /// Go on.
    Resume,
    /// The deferred activation of this file may happen.
    Activate(FileId),
    /// Verdict on the image in test; no failure = passed.
    TestResult {
        /// The target.
        file: FileId,
        /// Why it did not pass.
        failure: Option<Failure>,
    },
    /// Give up the active job.
    UserAbort,
    /// Answer to an offer.
    AnswerOffer {
        /// The job.
        job_id: String,
        /// The answer.
        answer: OfferAnswer,
    },
    /// Answer to a custom job.
    AnswerCustomJob {
        /// The job.
        job_id: String,
        /// The answer.
        answer: CustomAnswer,
    },
    /// Stop for good.
    Shutdown {
        /// Unsubscribe first.
        unsubscribe: bool,
    },
}

/// Everything that can happen to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a connection.
    Connected {
        /// The broker kept the session with its subscriptions.
        session_present: bool,
    },
    /// There is none.
    Disconnected {
        /// As in `job-agent.wit`.
        reason: u32,
        /// For people.
        detail: String,
    },
    /// An MQTT message of this device.
    Message {
        /// Full topic.
        topic: String,
        /// Payload.
        payload: Vec<u8>,
    },
    /// An operation with a token is over.
    Done {
        /// Which one.
        token: Token,
        /// How.
        outcome: Outcome,
    },
    /// An action was over at once, before it got a token.
    Ended {
        /// Which one.
        op: Op,
        /// How.
        outcome: Outcome,
    },
    /// An operation goes on.
    Progress {
        /// Which one.
        token: Token,
        /// So far.
        done: u64,
        /// In all, 0 = not known.
        total: u64,
    },
    /// The answer to an HTTP request.
    HttpResponse {
        /// Which one.
        token: Token,
        /// HTTP status.
        status: u16,
        /// Size of the whole resource.
        total: Option<u64>,
        /// The bytes asked for.
        body: Vec<u8>,
    },
    /// The target of this file has come up.
    TargetRestarted(FileId),
    /// The deadline of the last turn has passed.
    Timeout,
    /// Somebody wants something.
    Command(Command),
    /// This device's share of the bandwidth, in bytes a second.
    Allowance(u64),
    /// For builds that know more.
    Custom {
        /// Kebab-case.
        name: String,
        /// Content.
        bytes: Vec<u8>,
    },
}

/// What an agent waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Number, table in `job-agent.wit`.
    pub reason: u32,
    /// For people.
    pub detail: String,
    /// Since when.
    pub since: InstantMs,
    /// How often it was asked for.
    pub tries: u32,
    /// When the agent will give up.
    pub gives_up: Option<InstantMs>,
    /// What went wrong last.
    pub last_error: Option<Failure>,
}

/// Where one file of the job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// The target.
    pub file: FileId,
    /// As [`crate::agent::FilePhase`].
    pub phase: u8,
    /// Blocks held; while installing, bytes.
    pub done: u64,
    /// Blocks in all; while installing, bytes.
    pub total: u64,
    /// Version of the new image, if known.
    pub version: Option<Version>,
}

/// What an agent is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// As [`crate::code::State`].
    pub state: u8,
    /// The active job.
    pub job_id: Option<String>,
    /// Its files.
    pub files: Vec<FileStatus>,
    /// Block messages seen since the transfer began.
    pub received: u64,
    /// Blocks taken.
    pub processed: u64,
    /// Blocks not taken.
    pub dropped: u64,
}

/// What a call leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When to call with [`Event::Timeout`].
    pub deadline: Option<InstantMs>,
    /// The status, if it has changed.
    pub status: Option<AgentStatus>,
    /// The wait, if it has changed.
    pub wait: Option<Wait>,
    /// Why the command in this event was refused.
    pub refused: Option<Failure>,
}

/// MQTT quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// Batches of blocks, requests.
    Debug,
    /// State changes and facts of a job.
    Info,
    /// Someone should look.
    Warn,
    /// A job failed.
    Error,
}

/// What the job document says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpec {
    /// With device and file id the durable name of the transfer.
    pub job_id: String,
    /// The target.
    pub file_id: FileId,
    /// Bytes in the file.
    pub size: u64,
    /// Grid of the block map.
    pub block_size: u32,
    /// `fileType`.
    pub file_type: u32,
    /// `attr`.
    pub attributes: u32,
    /// `filepath`.
    pub path: String,
    /// `certfile`.
    pub certificate: String,
    /// Key of the signature, empty = none was given.
    pub signature_kind: String,
    /// The signature.
    pub signature: Vec<u8>,
}

/// News for the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationEvent {
    /// The agent's own count.
    pub sequence: u64,
    /// As [`crate::code::JobEvent`].
    pub kind: u32,
    /// The job it is about.
    pub job_id: Option<String>,
    /// The file it is about.
    pub file: Option<FileId>,
    /// Why.
    pub failure: Option<Failure>,
    /// The version it is about.
    pub version: Option<Version>,
    /// Table in `os.wit`.
    pub document: Vec<u8>,
}

/// The bytes of a block inside the message that brought it, so that nothing is copied on the way to the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockBytes {
    message: Vec<u8>,
    range: Range<usize>,
}

impl BlockBytes {
    /// The part of a message; an empty block if the range is not inside it.
    #[must_use]
    pub fn new(message: Vec<u8>, range: Range<usize>) -> Self {
        let range = if message.get(range.clone()).is_some() {
            range
        } else {
            0..0
        };
        Self { message, range }
    }

    /// The block.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.message.get(self.range.clone()).unwrap_or(&[])
    }
}

/// A function of `pal` that takes a file and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `pal.close`.
    Close,
    /// `pal.verified`, then `pal.install`.
    Install,
    /// `pal.verified`, then `pal.activate`.
    Activate,
    /// `pal.reset`.
    Reset,
    /// `pal.self-test`.
    SelfTest,
    /// `pal.commit`.
    Commit,
    /// `pal.reject`.
    Reject,
    /// `pal.state`.
    State,
    /// `pal.abort`.
    Abort,
}

/// What the agent wants done: one call of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `transport.subscribe`.
    Subscribe {
        /// Filter.
        filter: String,
        /// Quality of service.
        qos: Qos,
    },
    /// `transport.unsubscribe`.
    Unsubscribe {
        /// Filter.
        filter: String,
    },
    /// `transport.publish`.
    Publish {
        /// Topic.
        topic: String,
        /// Payload.
        payload: Vec<u8>,
        /// Quality of service.
        qos: Qos,
    },
    /// `transport.http-get`.
    HttpGet {
        /// URL.
        url: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// `transport.cancel`; has no end of its own.
    Cancel(Token),
    /// `pal.create`.
    Create(FileSpec),
    /// `pal.reopen`.
    Reopen {
        /// The job.
        job_id: String,
        /// The target.
        file: FileId,
    },
    /// `pal.write-block`.
    WriteBlock {
        /// The target.
        file: FileId,
        /// Where.
        offset: u64,
        /// What.
        data: BlockBytes,
    },
    /// One of the functions of `pal` that take a file and nothing else.
    Pal(Call, FileId),
    /// `os.journal-store`.
    JournalStore(Blob),
    /// `os.log`; has no end.
    Log {
        /// Severity.
        level: Level,
        /// One line.
        text: String,
    },
    /// `os.emit`; has no end.
    Emit(ApplicationEvent),
}

/// An [`Order`] with the name that its end is told by. The binding calls the import, then either
/// [`crate::agent::Agent::bind`] with the token, or [`crate::agent::Agent::handle`] with [`Event::Ended`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// 0 for orders that have no end.
    pub op: Op,
    /// What to do.
    pub order: Order,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_version_goes_through_the_wire_word_without_its_build() {
        let version = Version {
            major: 1,
            minor: 2,
            revision: 0x0304,
            build: 9,
        };
        assert_eq!(version.word(), 0x0102_0304);
        assert_eq!(
            Version::from_word(version.word()),
            Version {
                build: 0,
                ..version
            }
        );
        let mut text = String::new();
        version.push_text(&mut text);
        assert_eq!(text, "1.2.772+9");
    }

    #[test]
    fn versions_are_ordered_as_numbers_field_by_field() {
        let of = |major, minor, revision, build| Version {
            major,
            minor,
            revision,
            build,
        };
        let ordered = [
            of(0, 9, 2, 0),
            of(0, 9, 10, 0),
            of(0, 9, 10, 1),
            of(0, 10, 0, 0),
            of(1, 0, 0, 0),
        ];
        assert!(ordered.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_detail_is_cut_between_characters() {
        let long = "é".repeat(DETAIL_MAX_BYTES);
        let failure = Failure::new(0xd6, 28, &long);
        assert_eq!(failure.detail.len(), DETAIL_MAX_BYTES);
        assert_eq!(failure.word(), 0xd600_001c);
    }

    #[test]
    fn a_block_range_outside_its_message_is_empty() {
        assert_eq!(BlockBytes::new(vec![1, 2, 3], 1..3).as_slice(), &[2, 3]);
        assert_eq!(
            BlockBytes::new(vec![1, 2, 3], 2..4).as_slice(),
            &[] as &[u8]
        );
    }
}
