//! The cloud's parsers: requests of things, lines of operators, stored states.

use std::cell::RefCell;
use std::sync::Arc;

use host_cloud::limits::Limits;
use host_cloud::operator::wire;
use host_cloud::service::{
    ImageId, JobId, Kind, MemoryImages, NewJob, NewUpdate, Protocol, Service, SigKey, Signature,
    State, StreamId, ThingName, UpdateFile,
};
use serde_json::json;

use super::Corpus;

const NOW_MS: u64 = 1_700_000_000_000;

/// Messages after which the service under fire is replaced: by then its jobs have ended by chance.
const LIFE: u32 = 1000;

/// Below `$aws/things/gw/`; the first byte of an input chooses.
const TOPICS: [&str; 14] = [
    "streams/AFR_OTA-s-u/get/cbor",
    "streams/AFR_OTA-s-u/get/json",
    "streams/AFR_OTA-s-u/describe/cbor",
    "streams/AFR_OTA-s-u/describe/json",
    "streams/AFR_OTA-s-u/data/cbor",
    "streams//get/cbor",
    "jobs/get",
    "jobs/start-next",
    "jobs/$next/get",
    "jobs/AFR_OTA-u/get",
    "jobs/AFR_OTA-u/update",
    "jobs/plain/update",
    "jobs//update",
    "jobs/notify-next",
];

fn thing() -> ThingName {
    ThingName::new("gw").expect("a good name")
}

/// A service with a thing, an update of one file and a job without files.
fn service() -> Service {
    let bytes: Vec<u8> = (0..40_000_u32).map(|i| (i / 7 + i % 251) as u8).collect();
    let mut images = MemoryImages::default();
    images.insert(bytes.clone());
    let mut service = Service::new(Limits::None, Arc::new(images));
    service.create_thing(NOW_MS, thing()).expect("a new thing");
    let update = NewUpdate {
        job_id: JobId::new("AFR_OTA-u").expect("a good name"),
        stream_id: StreamId::new("AFR_OTA-s-u").expect("a good name"),
        description: String::new(),
        things: vec![thing()],
        files: vec![UpdateFile {
            file_id: 0,
            image: ImageId::of(&bytes),
            size: bytes.len() as u64,
            file_type: None,
            file_path: "/fw.bin".to_owned(),
            cert_file: "/cert.pem".to_owned(),
            signature: Some(Signature {
                key: SigKey::Sha256Ecdsa,
                base64: "MEQCIF2Q".to_owned(),
            }),
        }],
        protocols: vec![Protocol::Mqtt],
        timeout_minutes: None,
        plan: Default::default(),
    };
    service
        .create_update(NOW_MS, update)
        .expect("a good update");
    let job = NewJob {
        job_id: JobId::new("plain").expect("a good name"),
        description: String::new(),
        things: vec![thing()],
        document: json!({ "operation": "plain" }),
        timeout_minutes: None,
        plan: Default::default(),
    };
    service.create_job(NOW_MS, job).expect("a good job");
    service
}

/// Any bytes as a request of a thing, to a service that lives on: one answer at most, and a bounded one.
pub fn request(bytes: &[u8]) -> bool {
    let (first, payload) = bytes.split_first().unwrap_or((&0, &[]));
    let topic = TOPICS[usize::from(*first) % TOPICS.len()];
    thread_local!(static SERVICE: RefCell<Option<(Service, u32)>> = const { RefCell::new(None) });
    SERVICE.with_borrow_mut(|slot| {
        let (service, age) = slot.get_or_insert_with(|| (self::service(), 0));
        let whole = format!("$aws/things/gw/{topic}");
        let out = service.handle(NOW_MS + u64::from(*age), &thing(), &whole, payload);
        let replies = out.iter().filter(|m| m.kind == Kind::Reply).count();
        let blocks = out.iter().filter(|m| m.kind == Kind::Block).count();
        assert!(replies <= 1 && (replies == 0 || blocks == 0), "{topic}");
        assert!(blocks <= 512, "{topic}");
        let sent: usize = out.iter().map(|m| m.payload.len()).sum();
        assert!(sent <= 256 * 1024, "{topic}: {sent} bytes");
        assert!(out.iter().all(|m| m.to.as_str() == "gw"), "{topic}");
        *age += 1;
        if *age == LIFE {
            *slot = None;
        }
        !out.is_empty() && !out.iter().any(|m| m.topic.contains("/rejected"))
    })
}

/// Requests, each behind the byte of its topic.
#[must_use]
pub fn requests() -> Corpus {
    let cbor = b"\xa6\x61c\x63rdy\x61f\x00\x61l\x19\x04\x00\x61o\x00\x61b\x41\x07\x61n\x01";
    let endless = b"\xbf\x61f\x00\x61l\x19\x01\x00\x61b\x5f\x41\xff\x41\xff\xff\x61n\x18\x40\xff";
    let get = br#"{"s":1,"f":0,"l":1024,"o":0,"n":8,"b":"0xff","c":"rdy"}"#;
    let update = br#"{"clientToken":"u1","status":"IN_PROGRESS","statusDetails":{"receive":"1/3"},"expectedVersion":"2"}"#;
    let end = br#"{"status":"SUCCEEDED","stepTimeoutInMinutes":5,"includeJobExecutionState":true,"executionNumber":1}"#;
    let rows: [(u8, &[u8]); 11] = [
        (0, cbor),
        (0, endless),
        (1, get),
        (2, b"\xa1\x61c\x61x"),
        (3, b"{\"c\":\"x\"}"),
        (6, b"{\"clientToken\":\"u1\"}"),
        (
            7,
            b"{\"statusDetails\":{\"a\":\"b\"},\"stepTimeoutInMinutes\":1}",
        ),
        (8, b"{\"includeJobDocument\":true}"),
        (9, b"{\"executionNumber\":1}"),
        (10, update),
        (11, end),
    ];
    let whole = |(topic, payload): (u8, &[u8])| [&[topic], payload].concat();
    Corpus {
        good: rows.into_iter().map(whole).collect(),
        bad: vec![whole((13, b"{}"))],
    }
}

/// Any bytes as a line of the operator's socket, of either end.
pub fn operator_line(bytes: &[u8]) -> bool {
    let request = serde_json::from_slice::<wire::Request>(bytes);
    let is_read = request.is_ok() || serde_json::from_slice::<wire::Answer>(bytes).is_ok();
    if let Ok(request) = request {
        let line = serde_json::to_vec(&request).expect("what was read can be written");
        let again: wire::Request = serde_json::from_slice(&line).expect("and read again");
        assert_eq!(request, again);
    }
    is_read
}

/// Lines of the operator's socket.
#[must_use]
pub fn operator_lines() -> Corpus {
    let rows: [&str; 8] = [
        r#"{"v":1,"op":"list"}"#,
        r#"{"v":1,"op":"show","job_id":"AFR_OTA-u"}"#,
        r#"{"v":1,"op":"cancel","job_id":"AFR_OTA-u","force":true}"#,
        r#"{"v":1,"op":"put_image","size":10,"sha256":"00"}"#,
        r#"{"v":1,"op":"create_job","job_id":"j","things":["gw"],"document":{"a":1}}"#,
        concat!(
            r#"{"v":1,"op":"create_update","things":["gw"],"files":[{"file_id":0,"path":"/fw.bin","#,
            r#""file_path":"/a","cert_file":"/b","signature":{"key":"sig-sha256-ecdsa","base64":"MEQC"}}],"#,
            r#""protocols":["MQTT"]}"#
        ),
        r#"{"v":1,"ok":null}"#,
        r#"{"v":1,"error":{"code":"x","message":"y"}}"#,
    ];
    Corpus::good(rows.map(|row| row.as_bytes().to_vec()).into())
}

/// Any bytes as the stored state of a cloud: refused, or a service that answers.
pub fn state(bytes: &[u8]) -> bool {
    let Ok(state) = serde_json::from_slice::<State>(bytes) else {
        return false;
    };
    let Ok(mut service) = Service::restore(Limits::None, Arc::new(MemoryImages::default()), state)
    else {
        return false;
    };
    for (topic, payload) in [
        ("jobs/$next/get", &b"{}"[..]),
        ("jobs/AFR_OTA-u/update", b"{\"status\":\"FAILED\"}"),
    ] {
        service.handle(
            NOW_MS,
            &thing(),
            &format!("$aws/things/gw/{topic}"),
            payload,
        );
    }
    service.poll(NOW_MS + 1);
    true
}

/// Stored states.
#[must_use]
pub fn states() -> Corpus {
    let mut service = service();
    let mut all = vec![serde_json::to_vec(service.state()).expect("a state is JSON")];
    for payload in [
        &b"{\"status\":\"IN_PROGRESS\"}"[..],
        b"{\"status\":\"SUCCEEDED\"}",
    ] {
        service.handle(
            NOW_MS,
            &thing(),
            "$aws/things/gw/jobs/AFR_OTA-u/update",
            payload,
        );
        all.push(serde_json::to_vec(service.state()).expect("a state is JSON"));
    }
    Corpus::good(all)
}
