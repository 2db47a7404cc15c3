//! What an agent orders, as one value for each import of its world; and its line in a transcript.
//!
//! Block requests are decoded with a CBOR library of its own, not with the agent's codec. `~` stands for
//! `$aws/things/<device>`. Not here: what a judge makes of a line (`judge.rs`).

use host_runtime::agent::ApplicationEvent;
use host_runtime::status::event_name;
use host_runtime::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Token};

use super::wire::{BlockRequest, hex};

/// Duties of a target that take a file id alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `pal.close`.
    Close,
    /// `pal.install`.
    Install,
    /// `pal.activate`.
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

impl Call {
    /// Its name in WIT.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Install => "install",
            Self::Activate => "activate",
            Self::Reset => "reset",
            Self::SelfTest => "self-test",
            Self::Commit => "commit",
            Self::Reject => "reject",
            Self::State => "state",
            Self::Abort => "abort",
        }
    }
}

/// One call of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `transport.subscribe`.
    Subscribe {
        /// Filter.
        filter: String,
        /// Quality.
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
        /// Quality.
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
    /// `transport.cancel`.
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
        /// First byte.
        offset: u64,
        /// Bytes.
        data: Vec<u8>,
    },
    /// A duty of a target.
    Pal(Call, FileId),
    /// `os.journal-store`.
    JournalStore(Blob),
    /// `os.log`.
    Log {
        /// Severity.
        level: Level,
        /// The line.
        text: String,
    },
    /// `os.emit`.
    Emit(ApplicationEvent),
}

impl Order {
    /// The file that it is for, if it is for one.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        match self {
            Self::Create(spec) => Some(spec.file_id),
            Self::Reopen { file, .. } | Self::WriteBlock { file, .. } | Self::Pal(_, file) => {
                Some(*file)
            }
            Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Publish { .. }
            | Self::HttpGet { .. }
            | Self::Cancel(_)
            | Self::JournalStore(_)
            | Self::Log { .. }
            | Self::Emit(_) => None,
        }
    }
}

/// The line of an order, and its kind, which is the line's first word.
#[must_use]
pub fn line(order: &Order, device: &str) -> String {
    let short = |topic: &str| topic.replacen(&format!("$aws/things/{device}/"), "~/", 1);
    let level = |qos: &Qos| match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
    };
    match order {
        Order::Subscribe { filter, qos } => format!("subscribe {} {}", level(qos), short(filter)),
        Order::Unsubscribe { filter } => format!("unsubscribe {}", short(filter)),
        Order::Publish {
            topic,
            payload: bytes,
            qos,
        } => {
            format!(
                "publish {} {} {}",
                level(qos),
                short(topic),
                payload(topic, bytes)
            )
        }
        Order::HttpGet {
            url,
            offset,
            length,
        } => format!("http-get {url} {offset}+{length}"),
        Order::Cancel(token) => format!("cancel {token}"),
        Order::Create(spec) => create(spec),
        Order::Reopen { job_id, file } => format!("reopen {file} {job_id}"),
        Order::WriteBlock { file, offset, data } => {
            format!("write {file} {offset}+{}", data.len())
        }
        Order::Pal(call, file) => format!("{} {file}", call.name()),
        Order::JournalStore(blob) if blob.bytes.is_empty() => "journal empty".to_owned(),
        Order::JournalStore(_) => "journal".to_owned(),
        Order::Log { level, text } => format!("log {} {text}", level_name(*level)),
        Order::Emit(event) => emit(event),
    }
}

fn payload(topic: &str, payload: &[u8]) -> String {
    if topic.ends_with("/get/cbor") {
        return match BlockRequest::decode(payload) {
            Some(BlockRequest {
                token,
                file,
                block_size,
                offset,
                bitmap,
                count,
            }) => {
                format!(
                    "c={token} f={file} l={block_size} o={offset} b={} n={count}",
                    hex(&bitmap)
                )
            }
            None => format!("no block request: {}", hex(payload)),
        };
    }
    String::from_utf8(payload.to_vec()).unwrap_or_else(|_| hex(payload))
}

fn create(spec: &FileSpec) -> String {
    format!(
        "create {} {} size={} block={} type={} attr={} path={} cert={} {}={}",
        spec.file_id,
        spec.job_id,
        spec.size,
        spec.block_size,
        spec.file_type,
        spec.attributes,
        spec.path,
        spec.certificate,
        if spec.signature_kind.is_empty() {
            "unsigned"
        } else {
            &spec.signature_kind
        },
        hex(&spec.signature),
    )
}

fn emit(event: &ApplicationEvent) -> String {
    let mut line = format!("emit {} {}", event.sequence, event_name(event.kind));
    let mut add = |text: String| line = format!("{line} {text}");
    if let Some(job) = &event.job_id {
        add(job.clone());
    }
    if let Some(file) = event.file {
        add(format!("file={file}"));
    }
    if let Some(failure) = &event.failure {
        add(format!("failure={}", numbers(failure)));
    }
    if let Some(version) = event.version {
        add(format!("version={}", version));
    }
    if !event.document.is_empty() {
        add(String::from_utf8_lossy(&event.document).into_owned());
    }
    line
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// The two numbers of a failure; its text is for people.
#[must_use]
pub fn numbers(failure: &Failure) -> String {
    format!("{:#04x}:{}", failure.main, failure.sub)
}
