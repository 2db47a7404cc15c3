//! The agent's parsers, alone and in an agent that lives on.

use std::cell::RefCell;

use agent_core::document::{FILES_MAX_COUNT, Reply, is_ota, parse_job, parse_reply};
use agent_core::jobs::{self, Encoding, ThingName, classify, parse_answer};
use agent_core::stream::{
    BlockGrid, DownloadConfig, Downloader, Plane, Step, Verdict, decode_data, decode_rejected,
};
use agent_core::types::{Blob, Event, Saved};
use serde_json::{Value, json};

use super::Corpus;
use crate::device::{Device, THING, TOKEN};

/// No job asks for anybody's answer: the outcome is the agent's alone.
const ALONE: &[(&str, &str)] = &[("custom_answer_ms", "0")];

/// Events after which the agent under fire is replaced by a new one, so that a failure is a short story.
const LIFE: u32 = 64;

fn document() -> Value {
    json!({ "afr_ota": {
        "protocols": ["MQTT", "HTTP"],
        "streamname": "AFR_OTA-stream-1",
        "files": [
            { "filepath": "/fw.bin", "filesize": 10446, "fileid": 0, "certfile": "/cert.pem", "fileType": 0,
              "auth_scheme": "aws.s3.presigned", "update_data_url": "https://example.com/fw?X=1&Y=%20",
              "sig-sha256-ecdsa": "MEQCIF2QDvww1G/kpRGZ8FYvQrok1bSZvXjXefRk7sqNcyPTAiB4dvGt8fozIY5NC0vUDJ2MY42ZERYEcrbwA4n6q7vrBg==" },
            { "filepath": "mcu", "filesize": 4096, "fileid": 1, "attr": 3, "fileType": 7, "sig-sha256-rsa": "AAAA" },
        ],
    } })
}

/// Job documents.
#[must_use]
pub fn job_documents() -> Corpus {
    Corpus {
        good: documents(),
        bad: no_documents(),
    }
}

/// The documents of jobs, good or not: each is somebody's.
#[must_use]
pub fn job_outcomes() -> Corpus {
    Corpus::good([documents(), no_documents()].concat())
}

fn documents() -> Vec<Vec<u8>> {
    let mut one = document();
    if let Some(files) = one["afr_ota"]["files"].as_array_mut() {
        files.truncate(1);
    }
    one["afr_ota"]["protocols"] = json!(["MQTT"]);
    let bare = json!({ "afr_ota": { "protocols": ["MQTT"], "streamname": "s", "files": [
        { "filepath": "f", "filesize": 1, "fileid": 0 } ] } });
    texts([document(), one, bare])
}

/// Documents that are no update's, or a defective one's.
fn no_documents() -> Vec<Vec<u8>> {
    let mut many = document();
    let file = many["afr_ota"]["files"][0].clone();
    let files = (0..FILES_MAX_COUNT + 1).map(|id| {
        let mut file = file.clone();
        file["fileid"] = json!(id);
        file
    });
    many["afr_ota"]["files"] = files.collect();
    let foreign = json!({ "operation": "reboot", "afr": {} });
    texts([many, foreign, json!({ "afr_ota": {} })])
}

fn texts(values: [Value; 3]) -> Vec<Vec<u8>> {
    values.map(|value| value.to_string().into_bytes()).into()
}

/// The job, below the device's topics.
const JOB: &str = "jobs/AFR_OTA-job-1";

fn execution(document: &str) -> String {
    format!(
        "{{\"jobId\":\"AFR_OTA-job-1\",\"status\":\"QUEUED\",\"queuedAt\":1700000000,\"lastUpdatedAt\":1,\
         \"versionNumber\":1,\"executionNumber\":1,\"jobDocument\":{document}}}"
    )
}

/// Any text as a job document.
pub fn job_document(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let _ = is_ota(text);
    match parse_job(text) {
        Ok(job) => {
            assert!((1..=FILES_MAX_COUNT).contains(&job.files.len()));
            let mut ids: Vec<u32> = job.files.iter().map(|file| file.file_id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), job.files.len(), "file ids are unique");
            for file in &job.files {
                assert!(file.size > 0, "{file:?}");
                assert!(file.signature.as_ref().is_none_or(|s| s.bytes.len() <= 512));
                // Both may be refused; neither may panic.
                let _ = BlockGrid::new(file.size, 256);
            }
            let _ = job.grids(4096);
            true
        }
        Err(error) => {
            assert_ne!(error.code(), 0, "{error}: 0 is no error");
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Below the device's topics; the first byte of an input chooses. All but the first are replies to the question for a job.
const JOB_TOPICS: [&str; 3] = [
    "jobs/notify-next",
    "jobs/$next/get/accepted",
    "jobs/$next/get/rejected",
];

/// Any bytes as a message of the job service, to the parser and to an agent that lives on. [`TOKEN`] stands for the token of
/// its question.
pub fn job_message(bytes: &[u8]) -> bool {
    let (first, payload) = bytes.split_first().unwrap_or((&0, &[]));
    let first = usize::from(*first) % JOB_TOPICS.len();
    if let Ok(Reply::Job(execution)) = parse_reply(payload) {
        assert!((1..=64).contains(&execution.job_id.as_str().len()));
    }
    thread_local!(static AGENT: RefCell<Option<(Device, u32)>> = const { RefCell::new(None) });
    AGENT.with_borrow_mut(|slot| {
        let (device, age) = slot.get_or_insert_with(|| (Device::new(&[]), 0));
        if first > 0 {
            // It asks again, whatever became of the question before.
            device.connect(true);
        }
        device.reply(JOB_TOPICS[first], payload);
        device.pass(1);
        *age += 1;
        if *age == LIFE {
            *slot = None;
        }
    });
    match first {
        2 => parse_answer(payload).is_ok(),
        _ => parse_reply(payload).is_ok(),
    }
}

/// Messages of the job service, each behind the byte of its topic.
#[must_use]
pub fn job_messages() -> Corpus {
    let mut all = Vec::new();
    let mut keep = |topic: u8, text: &str| all.push([&[topic], text.as_bytes()].concat());
    let token = format!("\"clientToken\":\"{TOKEN}\"");
    for document in documents().into_iter().chain(no_documents()) {
        let execution = execution(&String::from_utf8_lossy(&document));
        let notified = format!("{{\"timestamp\":1,\"execution\":{execution}}}");
        keep(0, &notified);
        keep(1, &notified);
        keep(
            1,
            &format!("{{\"timestamp\":1,\"execution\":{execution},{token}}}"),
        );
    }
    for topic in [0, 1] {
        keep(topic, "{\"timestamp\":1}");
        keep(topic, "{\"timestamp\":1,\"execution\":{}}");
    }
    for code in ["ResourceNotFound", "RequestThrottled"] {
        keep(
            2,
            &format!("{{\"code\":\"{code}\",\"message\":\"m\",{token},\"timestamp\":1}}"),
        );
    }
    Corpus::good(all)
}

/// Any text as the document of a job that is offered to a fresh agent: it is run, left, or ended with a reason.
pub fn job_outcome(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let reply = format!("{{\"execution\":{}}}", execution(text));
    let Ok(Reply::Job(parsed)) = parse_reply(reply.as_bytes()) else {
        // Not one JSON value: no service could send it in this place.
        return false;
    };
    if parsed.document != text.trim() {
        return false;
    }
    let mut device = Device::new(ALONE);
    device.offer(&execution(text));
    device.pass(4);
    let ends: Vec<_> = device
        .updates
        .iter()
        .filter(|u| u.status != "IN_PROGRESS")
        .collect();
    match parse_job(parsed.document) {
        Err(error) => {
            let [end] = ends[..] else {
                panic!("{error} has {} ends", ends.len());
            };
            let reason = format!("0x0000000c: 0x{:08x}", error.code());
            assert_eq!(
                (end.status.as_str(), &end.details["reason"]),
                ("FAILED", &json!(reason))
            );
            assert_eq!(end.job, "AFR_OTA-job-1");
        }
        Ok(_) => {
            for end in &ends {
                let reason = end.details["reason"].as_str().unwrap_or_default();
                assert!(
                    reason.contains("0x") || end.status == "SUCCEEDED",
                    "{end:?}"
                );
            }
            // Under way, or over: never forgotten.
            assert!(
                device.job().is_some() || ends.len() == 1,
                "{:?}",
                device.updates
            );
        }
    }
    true
}

/// What is not answered yet.
#[derive(Clone, Copy, Debug)]
enum Open {
    /// The end of a job whose document is defective.
    End,
    /// That an image is ready for its test.
    Ready,
    /// How a job stands whose end was refused without a word about that.
    Question,
}

/// What is open, and a reply to it below the topics of the job; the first byte of an input chooses.
const STATUS_REPLIES: [(Open, &str); 6] = [
    (Open::End, "update/accepted"),
    (Open::End, "update/rejected"),
    (Open::Ready, "update/accepted"),
    (Open::Ready, "update/rejected"),
    (Open::Question, "get/accepted"),
    (Open::Question, "get/rejected"),
];

/// A device that waits for a reply.
fn waiting(open: Open) -> Device {
    let mut device = Device::new(ALONE);
    device.is_silent = true;
    if let Open::Ready = open {
        device.offer(&execution(&String::from_utf8_lossy(&documents()[1])));
        for block in FIRST_FILE.map(|(index, size)| block(0, index, size)) {
            device.message("streams/AFR_OTA-stream-1/data/cbor", &block);
        }
        return device;
    }
    device.offer(&execution("{\"afr_ota\":{}}"));
    if let Open::Question = open {
        let refusal = format!("{{\"code\":\"VersionMismatch\",\"clientToken\":\"{TOKEN}\"}}");
        device.reply(&format!("{JOB}/update/rejected"), refusal.as_bytes());
    }
    device
}

/// Any bytes as a reply to a status, or to the question how a job stands: taken if it changes the agent. [`TOKEN`] stands for
/// the token of what is open.
pub fn status_reply(bytes: &[u8]) -> bool {
    let (first, payload) = bytes.split_first().unwrap_or((&0, &[]));
    if let Ok(answer) = parse_answer(payload) {
        assert!(
            format!("{answer:?}").len() < 4096,
            "what is shown of an answer is cut"
        );
    }
    let (open, reply) = STATUS_REPLIES[usize::from(*first) % STATUS_REPLIES.len()];
    let mut device = waiting(open);
    let before = device.snapshot();
    device.reply(&format!("{JOB}/{reply}"), payload);
    let is_taken = device.snapshot() != before;
    device.pass(2);
    is_taken
}

/// Replies to a status or a question, each behind the byte of what it replies to.
#[must_use]
pub fn status_replies() -> Corpus {
    let state = |status: &str| {
        format!(
            "{{\"status\":\"{status}\",\"statusDetails\":{{\"self_test\":\"ready\",\"updatedBy\":\"0x01000000\"}},\
             \"versionNumber\":2}}"
        )
    };
    let token = format!("\"clientToken\":\"{TOKEN}\",\"timestamp\":1");
    let behind = |reply: u8, text: &str| [&[reply], text.as_bytes()].concat();
    let mut good = Vec::new();
    let tokenless = state("IN_PROGRESS");
    let tokenless = format!("{{\"executionState\":{tokenless},\"timestamp\":1}}");
    good.push(behind(0, &tokenless));
    good.extend([0, 2].map(|reply| behind(reply, &format!("{{{token}}}"))));
    let document = String::from_utf8_lossy(&documents()[1]).into_owned();
    for status in ["IN_PROGRESS", "FAILED", "CANCELED"] {
        let execution = execution(&document).replace("QUEUED", status);
        good.push(behind(4, &format!("{{\"execution\":{execution},{token}}}")));
    }
    good.push(behind(4, &format!("{{\"execution\":{{}},{token}}}")));
    let foreign = "{\"timestamp\":1,\"clientToken\":\"u9-00000009\"}";
    let mut bad: Vec<_> = (0..6).map(|reply| behind(reply, foreign)).collect();
    // Without a token it is about the only thing that is open: here, progress is, too.
    bad.push(behind(2, &tokenless));
    for code in [
        "InvalidTopic",
        "InvalidJson",
        "InvalidRequest",
        "InvalidStateTransition",
        "ResourceNotFound",
        "VersionMismatch",
        "InternalError",
        "RequestThrottled",
        "TerminalStateReached",
        "Other",
    ] {
        let text = format!("\"code\":\"{code}\",\"message\":\"why\",{token}");
        for reply in [1, 3, 5] {
            good.push(behind(reply, &format!("{{{text}}}")));
            for status in ["IN_PROGRESS", "FAILED"] {
                let state = state(status);
                good.push(behind(
                    reply,
                    &format!("{{{text},\"executionState\":{state}}}"),
                ));
            }
        }
    }
    Corpus { good, bad }
}

fn downloader(encoding: Encoding) -> Downloader {
    let grid = BlockGrid::new(10_446, 4096).expect("a good grid");
    let config = DownloadConfig {
        plane: Plane::Stream(encoding),
        file_id: 0,
        grid,
        blocks_per_request: 3,
        requests_in_flight: 1,
        request_timeout_ms: 1000,
        momentum_max: 32,
        status_frequency: 64,
    };
    Downloader::new(config, None).expect("a good configuration")
}

/// Any bytes as a message of the stream service: decoders, a downloader, and an agent in a download, in both encodings. Taken
/// if it is a block that is wanted, or a refusal.
pub fn stream_message(bytes: &[u8]) -> bool {
    let mut is_taken = false;
    for encoding in [Encoding::Cbor, Encoding::Json] {
        if let Ok(message) = decode_data(encoding, bytes) {
            assert!(message.payload.len() <= bytes.len());
        }
        if let Ok(rejection) = decode_rejected(encoding, bytes) {
            is_taken = true;
            assert!(rejection.message.len() <= 256);
        }
        let mut downloader = downloader(encoding);
        assert!(matches!(downloader.poll(0), Step::Request(_)));
        let before = downloader.held().to_vec();
        if let Verdict::Write(block) = downloader.on_message(1, bytes) {
            is_taken = true;
            assert!(
                block.data.len() <= 4096,
                "a block is no longer than its size"
            );
        }
        assert_eq!(
            downloader.held(),
            before,
            "a block counts once it is written"
        );
    }
    thread_local!(static AGENTS: RefCell<[Option<(Device, u32)>; 2]> = const { RefCell::new([None, None]) });
    AGENTS.with_borrow_mut(|slots| {
        for (slot, encoding) in slots.iter_mut().zip(["cbor", "json"]) {
            let (device, age) = slot.get_or_insert_with(|| {
                let mut device = Device::new(&[("stream_encoding", encoding)]);
                device.offer(&execution(&String::from_utf8_lossy(&documents()[1])));
                (device, 0)
            });
            for end in [
                "data/cbor",
                "rejected/cbor",
                "description/cbor",
                "data/json",
                "rejected/json",
            ] {
                device.message(&format!("streams/AFR_OTA-stream-1/{end}"), bytes);
            }
            *age += 1;
            if *age == LIFE {
                *slot = None;
            }
        }
    });
    is_taken
}

/// Number and size of the blocks of file 0 of the documents.
const FIRST_FILE: [(u32, usize); 3] = [(0, 4096), (1, 4096), (2, 10_446 - 8192)];

/// A block as the stream service sends it.
fn block(file: u32, index: u32, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut out);
    let end = encoder
        .map(4)
        .and_then(|e| e.str("f")?.u32(file))
        .and_then(|e| e.str("i")?.u32(index))
        .and_then(|e| e.str("l")?.u32(size as u32))
        .and_then(|e| e.str("p")?.bytes(&vec![7; size]));
    end.expect("memory takes everything");
    out
}

/// Messages of the stream service.
#[must_use]
pub fn stream_messages() -> Corpus {
    // Zeros, one more than a multiple of three.
    let in_json = |file: u32, index: u32, size: usize| {
        let payload = "AAAA".repeat(size / 3);
        let text = format!(
            "{{\"c\":\"rdy\",\"f\":{file},\"l\":{size},\"i\":{index},\"p\":\"{payload}AA==\"}}"
        );
        text.into_bytes()
    };
    let mut indefinite = b"\xbf\x61f\x00\x61i\x01\x61l\x19\x10\x00\x61p\x5f\x42ab".to_vec();
    indefinite.extend_from_slice(b"\x42cd\xff\xff");
    Corpus {
        good: vec![
            block(0, 0, 4096),
            block(0, 2, 10_446 - 8192),
            in_json(0, 0, 4096),
            in_json(0, 2, 10_446 - 8192),
            b"\xa3\x61c\x63rdy\x61o\x70RequestThrottled\x61m\x63why".to_vec(),
            b"{\"o\":\"InvalidRequest\",\"m\":\"why\",\"c\":\"u1\"}".to_vec(),
        ],
        bad: vec![
            block(1, 0, 10),
            block(0, 3, 4096),
            in_json(1, 0, 10),
            indefinite,
        ],
    }
}

/// Any text as a topic.
pub fn topic(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let thing = ThingName::new(THING).expect("a good name");
    let is_ours = classify(&thing, text).is_some();
    if is_ours {
        assert!(text.starts_with("$aws/things/mything/"), "{text}");
    }
    let mut device = Device::new(&[]);
    device.give(Event::Message {
        topic: text.to_owned(),
        payload: b"{}".to_vec(),
    });
    is_ours
}

/// Topics.
#[must_use]
pub fn topics() -> Corpus {
    let thing = ThingName::new(THING).expect("a good name");
    let job = agent_core::jobs::JobId::new("AFR_OTA-job-1").expect("a good name");
    let stream = agent_core::jobs::StreamId::new("s-1").expect("a good name");
    let all = [
        jobs::next_get(&thing) + "/accepted",
        jobs::notify_next(&thing),
        jobs::describe_job(&thing, &job) + "/rejected",
        jobs::update(&thing, &job) + "/accepted",
        jobs::stream_data(&thing, &stream, Encoding::Cbor),
        jobs::stream_rejected(&thing, &stream, Encoding::Json),
    ];
    Corpus::good(all.into_iter().map(String::into_bytes).collect())
}

/// Any bytes as a saved state: refused, or an agent that lives. The first byte says which kind.
pub fn saved_state(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else {
        return false;
    };
    let schema = agent_core::agent::Agent::describe().schemas[0];
    let blob = Blob {
        schema: schema + u32::from(*kind >= 250),
        bytes: rest.to_vec(),
    };
    let saved = if kind % 2 == 0 {
        Saved::Journal(blob)
    } else {
        Saved::Snapshot(blob)
    };
    match Device::start(&[], saved) {
        Err(failure) => {
            assert_eq!(failure.main, 0xdf, "{failure:?}");
            false
        }
        Ok(mut device) => {
            device.connect(true);
            device.message("jobs/notify-next", b"{\"timestamp\":1,\"execution\":{}}");
            device.pass(3);
            // What it has read it can write and read again.
            let again = device.snapshot();
            assert!(Device::start(&[], Saved::Snapshot(again)).is_ok());
            true
        }
    }
}

/// Saved states of both kinds, at several places of a job.
#[must_use]
pub fn saved_states() -> Corpus {
    let mut all = Vec::new();
    let mut keep = |device: &mut Device| {
        for (kind, blob) in [(0, device.journal.clone()), (1, Some(device.snapshot()))] {
            if let Some(blob) = blob {
                all.push([&[kind][..], &blob.bytes].concat());
            }
        }
    };
    let mut device = Device::new(&[]);
    keep(&mut device);
    device.offer(&execution(&String::from_utf8_lossy(&documents()[0])));
    keep(&mut device);
    device.message("streams/AFR_OTA-stream-1/data/cbor", &block(0, 0, 4096));
    keep(&mut device);
    let mut custom = Device::new(&[]);
    custom.offer(&execution("{\"operation\":\"reboot\"}"));
    keep(&mut custom);
    let mut asks = Device::new(&[("on_job", "ask")]);
    asks.offer(&execution(&String::from_utf8_lossy(&documents()[1])));
    keep(&mut asks);
    Corpus::good(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_of_jobs_has_a_message_and_an_open_question_is_answered_in_json() {
        let good = job_messages().good;
        for topic in 0..JOB_TOPICS.len() {
            let of_topic = |bytes: &&Vec<u8>| usize::from(bytes[0]) == topic;
            assert!(good.iter().any(|bytes| of_topic(&bytes)), "{topic}");
        }
        for bytes in good.iter().filter(|bytes| bytes[0] == 1) {
            let mut device = Device::new(&[]);
            let before = device.snapshot();
            device.reply(JOB_TOPICS[1], &bytes[1..]);
            let text = String::from_utf8_lossy(bytes);
            assert_ne!(device.snapshot(), before, "{text}");
        }
    }

    #[test]
    fn a_reply_comes_while_something_is_open() {
        let last = |open| waiting(open).updates.pop().expect("a status");
        assert_eq!(last(Open::End).status, "FAILED");
        assert_eq!(last(Open::Ready).details["self_test"], "ready");
        let refused = waiting(Open::Question);
        assert_eq!((refused.updates.len(), refused.asks_about_job()), (1, true));
    }
}
