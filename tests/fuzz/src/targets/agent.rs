//! The agent's parsers, alone and in an agent that lives on.

use std::cell::RefCell;

use agent_core::document::{FILES_MAX_COUNT, Reply, is_ota, parse_job, parse_reply};
use agent_core::jobs::{self, Encoding, ThingName, classify, parse_answer};
use agent_core::stream::{
    BlockGrid, DownloadConfig, Downloader, Plane, Step, Verdict, decode_data, decode_rejected,
};
use agent_core::types::{Blob, Event, Saved};
use serde_json::{Value, json};

use crate::device::{Device, THING};

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
pub fn documents() -> Vec<Vec<u8>> {
    let mut one = document();
    if let Some(files) = one["afr_ota"]["files"].as_array_mut() {
        files.truncate(1);
    }
    one["afr_ota"]["protocols"] = json!(["MQTT"]);
    let mut many = document();
    let file = many["afr_ota"]["files"][0].clone();
    let files = (0..FILES_MAX_COUNT + 1).map(|id| {
        let mut file = file.clone();
        file["fileid"] = json!(id);
        file
    });
    many["afr_ota"]["files"] = files.collect();
    let bare = json!({ "afr_ota": { "protocols": ["MQTT"], "streamname": "s", "files": [
        { "filepath": "f", "filesize": 1, "fileid": 0 } ] } });
    let foreign = json!({ "operation": "reboot", "afr": {} });
    let all = [
        document(),
        one,
        many,
        bare,
        foreign,
        json!({ "afr_ota": {} }),
    ];
    all.into_iter()
        .map(|value| value.to_string().into_bytes())
        .collect()
}

fn execution(document: &str) -> String {
    format!(
        "{{\"jobId\":\"AFR_OTA-job-1\",\"status\":\"QUEUED\",\"queuedAt\":1700000000,\"lastUpdatedAt\":1,\
         \"versionNumber\":1,\"executionNumber\":1,\"jobDocument\":{document}}}"
    )
}

/// Any text as a job document.
pub fn job_document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
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
        }
        Err(error) => {
            assert_ne!(error.code(), 0, "{error}: 0 is no error");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Any bytes as a message of the job service, to the parser and to an agent that lives on.
pub fn job_message(bytes: &[u8]) {
    if let Ok(Reply::Job(execution)) = parse_reply(bytes) {
        assert!((1..=64).contains(&execution.job_id.as_str().len()));
    }
    thread_local!(static AGENT: RefCell<Option<(Device, u32)>> = const { RefCell::new(None) });
    AGENT.with_borrow_mut(|slot| {
        let (device, age) = slot.get_or_insert_with(|| (Device::new(&[]), 0));
        let topics = [
            "jobs/notify-next",
            "jobs/$next/get/accepted",
            "jobs/$next/get/rejected",
        ];
        let first = bytes
            .first()
            .map_or(0, |byte| usize::from(*byte) % topics.len());
        device.message(topics[first], bytes);
        device.pass(1);
        *age += 1;
        if *age == LIFE {
            *slot = None;
        }
    });
}

/// Messages of the job service.
#[must_use]
pub fn job_messages() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for document in documents() {
        let execution = execution(&String::from_utf8_lossy(&document));
        all.push(format!("{{\"timestamp\":1,\"execution\":{execution}}}").into_bytes());
        let token = ",\"clientToken\":\"u0-00000001\"";
        all.push(format!("{{\"timestamp\":1,\"execution\":{execution}{token}}}").into_bytes());
    }
    all.push(b"{\"timestamp\":1}".to_vec());
    all.push(b"{\"timestamp\":1,\"execution\":{}}".to_vec());
    all.push(
        b"{\"code\":\"ResourceNotFound\",\"message\":\"m\",\"clientToken\":\"t\",\"timestamp\":1}"
            .to_vec(),
    );
    all
}

/// Any text as the document of a job that is offered to a fresh agent: it is run, left, or ended with a reason.
pub fn job_outcome(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let reply = format!("{{\"execution\":{}}}", execution(text));
    let Ok(Reply::Job(parsed)) = parse_reply(reply.as_bytes()) else {
        // Not one JSON value: no service could send it in this place.
        return;
    };
    if parsed.document != text.trim() {
        return;
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
}

/// Any bytes as a reply to a status.
pub fn status_reply(bytes: &[u8]) {
    if let Ok(answer) = parse_answer(bytes) {
        assert!(
            format!("{answer:?}").len() < 4096,
            "what is shown of an answer is cut"
        );
    }
    let mut device = Device::new(&[]);
    device.offer(&execution(&String::from_utf8_lossy(&documents()[1])));
    for end in ["accepted", "rejected"] {
        device.message(&format!("jobs/AFR_OTA-job-1/update/{end}"), bytes);
        device.message(&format!("jobs/AFR_OTA-job-1/get/{end}"), bytes);
    }
    device.pass(2);
}

/// Replies to a status.
#[must_use]
pub fn status_replies() -> Vec<Vec<u8>> {
    let state = "\"executionState\":{\"status\":\"FAILED\",\"statusDetails\":{\"self_test\":\"ready\",\
                 \"updatedBy\":\"0x01000000\"},\"versionNumber\":2}";
    let mut all = vec![
        b"{\"timestamp\":1700000000,\"clientToken\":\"u1-00000001\"}".to_vec(),
        format!("{{{state},\"timestamp\":1}}").into_bytes(),
    ];
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
        let text = format!(
            "{{\"code\":\"{code}\",\"message\":\"why\",\"clientToken\":\"u1-00000001\",\"timestamp\":1,{state}}}"
        );
        all.push(text.into_bytes());
    }
    all
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

/// Any bytes as a message of the stream service: decoders, a downloader, and an agent in a download, in both encodings.
pub fn stream_message(bytes: &[u8]) {
    for encoding in [Encoding::Cbor, Encoding::Json] {
        if let Ok(message) = decode_data(encoding, bytes) {
            assert!(message.payload.len() <= bytes.len());
        }
        if let Ok(rejection) = decode_rejected(encoding, bytes) {
            assert!(rejection.message.len() <= 256);
        }
        let mut downloader = downloader(encoding);
        assert!(matches!(downloader.poll(0), Step::Request(_)));
        let before = downloader.held().to_vec();
        if let Verdict::Write(block) = downloader.on_message(1, bytes) {
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
}

/// Messages of the stream service.
#[must_use]
pub fn stream_messages() -> Vec<Vec<u8>> {
    let block = |file: u32, index: u32, size: usize| {
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
    };
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
    vec![
        block(0, 0, 4096),
        block(0, 2, 10_446 - 8192),
        block(1, 0, 10),
        block(0, 3, 4096),
        in_json(0, 0, 4096),
        in_json(0, 2, 10_446 - 8192),
        in_json(1, 0, 10),
        indefinite,
        b"\xa3\x61c\x63rdy\x61o\x6fRequestThrottled\x61m\x63why".to_vec(),
        b"{\"o\":\"InvalidRequest\",\"m\":\"why\",\"c\":\"u1\"}".to_vec(),
    ]
}

/// Any text as a topic.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let thing = ThingName::new(THING).expect("a good name");
    if classify(&thing, text).is_some() {
        assert!(text.starts_with("$aws/things/mything/"), "{text}");
    }
    let mut device = Device::new(&[]);
    device.give(Event::Message {
        topic: text.to_owned(),
        payload: b"{}".to_vec(),
    });
}

/// Topics.
#[must_use]
pub fn topics() -> Vec<Vec<u8>> {
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
    all.into_iter().map(String::into_bytes).collect()
}

/// Any bytes as a saved state: refused, or an agent that lives. The first byte says which kind.
pub fn saved_state(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
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
        Err(failure) => assert_eq!(failure.main, 0xdf, "{failure:?}"),
        Ok(mut device) => {
            device.give(Event::Connected {
                session_present: true,
            });
            device.message("jobs/notify-next", b"{\"timestamp\":1,\"execution\":{}}");
            device.pass(3);
            // What it has read it can write and read again.
            let again = device.snapshot();
            assert!(Device::start(&[], Saved::Snapshot(again)).is_ok());
        }
    }
}

/// Saved states of both kinds, at several places of a job.
#[must_use]
pub fn saved_states() -> Vec<Vec<u8>> {
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
    let message = &stream_messages()[0];
    device.message("streams/AFR_OTA-stream-1/data/cbor", message);
    keep(&mut device);
    let mut custom = Device::new(&[]);
    custom.offer(&execution("{\"operation\":\"reboot\"}"));
    keep(&mut custom);
    let mut asks = Device::new(&[("on_job", "ask")]);
    asks.offer(&execution(&String::from_utf8_lossy(&documents()[1])));
    keep(&mut asks);
    all
}
