//! What the agent orders, as one line of a transcript each.
//!
//! Block requests are decoded with a CBOR library of its own, not with the agent's codec. `~` stands for
//! `$aws/things/<device>`.

use std::fmt::Write as _;

use agent_core::types::{ApplicationEvent, Call, Failure, FileSpec, Level, Order, Qos, Version};

/// Members of a block request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockRequest {
    /// `c`: token.
    pub token: String,
    /// `f`: file id.
    pub file: u64,
    /// `l`: block size.
    pub block_size: u64,
    /// `o`: offset in blocks.
    pub offset: u64,
    /// `b`: bitmap.
    pub bitmap: Vec<u8>,
    /// `n`: most blocks.
    pub count: u64,
}

impl BlockRequest {
    /// Decodes a payload; none = it is no block request.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut decoder = minicbor::Decoder::new(payload);
        let mut request = Self::default();
        for _ in 0..decoder.map().ok()?? {
            match decoder.str().ok()? {
                "c" => request.token = decoder.str().ok()?.to_owned(),
                "f" => request.file = decoder.u64().ok()?,
                "l" => request.block_size = decoder.u64().ok()?,
                "o" => request.offset = decoder.u64().ok()?,
                "b" => request.bitmap = decoder.bytes().ok()?.to_vec(),
                "n" => request.count = decoder.u64().ok()?,
                _ => return None,
            }
        }
        (decoder.position() == payload.len()).then_some(request)
    }

    /// Indices of the blocks that a service sends for it.
    #[must_use]
    pub fn wanted(&self) -> Vec<u64> {
        let bits = self.bitmap.len() as u64 * 8;
        let is_set = |bit: &u64| self.bitmap[(bit / 8) as usize] & (1 << (bit % 8)) != 0;
        (0..bits)
            .filter(is_set)
            .map(|bit| self.offset + bit)
            .take(self.count as usize)
            .collect()
    }
}

/// A block message as the service sends it.
#[must_use]
pub fn block_message(file: u64, index: u64, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    let encoded = encoder
        .map(4)
        .and_then(|encoder| encoder.str("f")?.u64(file))
        .and_then(|encoder| encoder.str("i")?.u64(index))
        .and_then(|encoder| encoder.str("l")?.u64(length))
        .and_then(|encoder| encoder.str("p")?.bytes(payload))
        .map(|_| ());
    debug_assert!(encoded.is_ok(), "writing to a vector cannot fail");
    bytes
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The opposite of [`hex`]; none = it is no hex.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| {
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}

/// The line of an order, and its kind, which is the line's first word.
#[must_use]
pub fn order(order: &Order, device: &str) -> String {
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
            format!("write {file} {offset}+{}", data.as_slice().len())
        }
        Order::Pal(Call::Close, file) => format!("close {file}"),
        Order::Pal(Call::Install, file) => format!("install {file}"),
        Order::Pal(Call::Activate, file) => format!("activate {file}"),
        Order::Pal(Call::Reset, file) => format!("reset {file}"),
        Order::Pal(Call::SelfTest, file) => format!("self-test {file}"),
        Order::Pal(Call::Commit, file) => format!("commit {file}"),
        Order::Pal(Call::Reject, file) => format!("reject {file}"),
        Order::Pal(Call::State, file) => format!("state {file}"),
        Order::Pal(Call::Abort, file) => format!("abort {file}"),
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
        add(format!("version={}", self::version(version)));
    }
    if !event.document.is_empty() {
        add(String::from_utf8_lossy(&event.document).into_owned());
    }
    line
}

/// Names of the event kinds, as in `wit/agent/os.wit`.
fn event_name(kind: u32) -> &'static str {
    match kind {
        0 => "activate",
        1 => "fail",
        2 => "start-test",
        3 => "processed",
        4 => "self-test-failed",
        5 => "custom-job",
        6 => "received-job",
        7 => "update-complete",
        8 => "no-active-job",
        16 => "job-ended",
        17 => "rolled-back",
        _ => "unknown",
    }
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

/// `1.2.3`, with `+4` where there is a build.
#[must_use]
pub fn version(version: Version) -> String {
    let Version {
        major,
        minor,
        revision,
        build,
    } = version;
    if build == 0 {
        format!("{major}.{minor}.{revision}")
    } else {
        format!("{major}.{minor}.{revision}+{build}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_request_is_decoded_and_knows_its_blocks() {
        // The example of the service's documentation: blocks 20, 21, 24 and 43 behind offset 20.
        let bytes = unhex(
            "a6616363726479616600616c190400616f1461624313008061 6e03"
                .replace(' ', "")
                .as_str(),
        )
        .unwrap();
        let request = BlockRequest::decode(&bytes).unwrap();
        assert_eq!(
            (request.token.as_str(), request.block_size, request.offset),
            ("rdy", 1024, 20)
        );
        assert_eq!(request.wanted(), [20, 21, 24]);
        assert_eq!(BlockRequest::decode(&bytes[..20]), None);
    }

    #[test]
    fn hex_is_written_and_read() {
        assert_eq!(hex(&[0, 0xa5]), "00a5");
        assert_eq!(unhex("00a5"), Some(vec![0, 0xa5]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }
}
