//! Hostile input: whatever a thing publishes, the service neither panics nor says more than one answer allows.
//!
//! Inputs come from a seeded generator: mutations of good requests and plain noise. `OTAD_SEED` replays a run,
//! `OTAD_SOAK` sets the number of messages.

use super::*;

/// SplitMix64: small, seeded, good enough to shuffle bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// How many messages each test sends: small here, 10^6 by hand.
fn soak() -> u64 {
    variable("OTAD_SOAK", 1_500).max(1)
}

fn seed() -> u64 {
    let seed = variable("OTAD_SEED", 2026);
    println!("OTAD_SEED={seed} OTAD_SOAK={}", soak());
    seed
}

const TOPICS: [&str; 14] = [
    "jobs/get",
    "jobs/start-next",
    "jobs/$next/get",
    "jobs/AFR_OTA-u/get",
    "jobs/AFR_OTA-u/update",
    "jobs/plain/update",
    "jobs//update",
    "jobs/notify-next",
    "streams/AFR_OTA-s-u/get/cbor",
    "streams/AFR_OTA-s-u/get/json",
    "streams/AFR_OTA-s-u/describe/cbor",
    "streams/AFR_OTA-s-u/describe/json",
    "streams/AFR_OTA-s-u/data/cbor",
    "streams//get/cbor",
];

const SEEDS: [&[u8]; 8] = [
    b"{}",
    br#"{"clientToken":"u1","status":"IN_PROGRESS","statusDetails":{"receive":"1/3"},"expectedVersion":"1"}"#,
    br#"{"status":"SUCCEEDED","stepTimeoutInMinutes":5,"includeJobExecutionState":true,"executionNumber":1}"#,
    br#"{"s":1,"f":0,"l":1024,"o":0,"n":8,"b":"0xff","c":"rdy"}"#,
    b"\xa6\x61c\x63rdy\x61f\x00\x61l\x19\x04\x00\x61o\x00\x61b\x41\x07\x61n\x01",
    b"\xbf\x61f\x00\x61l\x19\x01\x00\x61b\x5f\x41\xff\x41\xff\xff\x61n\x18\x40\xff",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f",
];

fn mutate(random: &mut Random) -> Vec<u8> {
    let mut bytes = SEEDS[random.below(SEEDS.len())].to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.insert(at, random.next() as u8),
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 => {
                let copy = bytes[at..].to_vec();
                bytes.extend(copy);
            }
            _ => {
                let noise = random.next().to_be_bytes();
                bytes.splice(at..at, noise);
            }
        }
    }
    bytes
}

#[test]
fn no_message_makes_the_service_panic_grow_or_answer_too_much() {
    let (seed, count) = (seed(), soak());
    let bytes = image(40_000);
    let mut world = World::with(Limits::None, &[&bytes]);
    let mut random = Random(seed);
    for at in 0..count {
        if at % 1000 == 0 {
            // Jobs get finished by chance; there are always some to hurt.
            world.service = World::with(Limits::None, &[&bytes]).service;
            world.update("u", &bytes);
            world.job("plain");
        }
        let topic = TOPICS[random.below(TOPICS.len())];
        let out = world.ask_raw(topic, &mutate(&mut random));
        let replies = out.iter().filter(|m| m.kind == Kind::Reply).count();
        let blocks = out.iter().filter(|m| m.kind == Kind::Block).count();
        assert!(replies <= 1 && (replies == 0 || blocks == 0), "{topic}");
        assert!(blocks <= 512, "{topic}");
        let sent: usize = out.iter().map(|m| m.payload.len()).sum();
        assert!(sent <= 256 * 1024, "{topic} {sent}");
        let pending = world.service.things()[0].pending.len();
        assert!(pending <= 2, "{topic}");
    }
}

#[test]
fn nesting_beyond_all_measure_is_refused_without_deep_recursion() {
    let mut world = World::new();
    world.update("u", b"x");
    let json = "[".repeat(100_000);
    let out = world.ask_raw("jobs/AFR_OTA-u/update", json.as_bytes());
    assert_eq!(body(&out[0])["code"], "InvalidJson");
    let details = format!("{{\"status\":{}", "{\"a\":".repeat(20_000));
    let out = world.ask_raw("jobs/AFR_OTA-u/update", details.as_bytes());
    assert_eq!(body(&out[0])["code"], "InvalidJson");
    let mut cbor = b"\xbf\x61x".to_vec();
    cbor.resize(100_000, 0x9f);
    let out = world.ask_raw("streams/AFR_OTA-s-u/get/cbor", &cbor);
    assert_eq!(level(&out[0]), "streams/AFR_OTA-s-u/rejected/cbor");
}

/// A number that is likely to lie at a limit.
fn edge(random: &mut Random) -> i64 {
    const EDGES: [i64; 16] = [
        0,
        1,
        2,
        255,
        256,
        257,
        1024,
        4096,
        98_303,
        98_304,
        98_305,
        131_071,
        131_072,
        131_073,
        i64::MAX,
        i64::MIN,
    ];
    match random.below(4) {
        0 => random.next() as i64,
        1 => random.below(512) as i64,
        _ => EDGES[random.below(EDGES.len())],
    }
}

/// A block without its bytes.
#[derive(serde::Deserialize)]
struct Block {
    i: u64,
    l: u64,
}

#[test]
fn whatever_a_stream_request_asks_its_blocks_are_the_files_and_fit_a_request() {
    let bytes = image(300_000);
    let mut random = Random(seed());
    let mut worlds = [Limits::Aws, Limits::None].map(|limits| World::with(limits, &[&bytes]));
    for world in &mut worlds {
        world.update("u", &bytes);
    }
    let (mut served, mut refused) = (0u64, 0u64);
    for _ in 0..soak() {
        let world = &mut worlds[random.below(2)];
        let mut request = serde_json::Map::new();
        for key in ["f", "l", "o", "n", "s"] {
            let value = match (key, random.below(4)) {
                // Left out or large it means 128 KiB: legal, and slow to look through.
                ("n", _) if random.below(8) != 0 => random.below(4) as i64,
                (_, 0) => continue,
                ("f" | "o", 1 | 2) => 0,
                ("l", 1) => 256 + random.below(4096) as i64,
                ("l", 2) => 256,
                ("s", _) => 1,
                _ => edge(&mut random),
            };
            request.insert(key.into(), json!(value));
        }
        if random.below(2) == 0 {
            let bits: String = (0..random.below(64))
                .map(|_| ["0", "1", "8", "f"][random.below(4)])
                .collect();
            request.insert("b".into(), json!(format!("0x{bits}")));
        }
        let out = world.ask(
            "streams/AFR_OTA-s-u/get/json",
            Value::Object(request.clone()),
        );
        let sent: u64 = out
            .iter()
            .filter(|message| message.kind == Kind::Block)
            .map(|message| {
                let block: Block = serde_json::from_slice(&message.payload).unwrap();
                let size = request["l"].as_u64().unwrap();
                let (at, length) = (block.i * size, block.l);
                assert!(length == size || at + length == 300_000, "{request:?}");
                length
            })
            .sum();
        assert!(sent <= 131_072, "{request:?} {sent}");
        if sent > 0 {
            served += 1;
        } else {
            assert_eq!(level(&out[0]), "streams/AFR_OTA-s-u/rejected/json");
            assert_eq!(out.len(), 1);
            refused += 1;
        }
    }
    assert!(
        served > soak() / 20 && refused > soak() / 20,
        "{served} {refused}"
    );
}

#[test]
fn whatever_devices_report_an_execution_only_moves_forward_and_each_request_has_one_answer() {
    let mut random = Random(seed());
    let mut world = World::with(Limits::None, &[]);
    let words = [
        "QUEUED",
        "IN_PROGRESS",
        "SUCCEEDED",
        "FAILED",
        "REJECTED",
        "TIMED_OUT",
        "CANCELED",
        "REMOVED",
        "in_progress",
        "",
    ];
    let (mut moved, mut at) = (0u64, 0);
    world.job("j0");
    for round in 0..soak() {
        let id = format!("j{at}");
        let before = world.service.show(&job_id(&id)).unwrap().executions[0].clone();
        let mut request = serde_json::Map::new();
        request.insert("status".into(), json!(words[random.below(words.len())]));
        for (key, value) in [
            (
                "expectedVersion",
                json!(before.version + random.below(2) as u64),
            ),
            ("stepTimeoutInMinutes", json!(edge(&mut random))),
            ("executionNumber", json!(random.below(3))),
            (
                "statusDetails",
                json!({"k": "v".repeat(random.below(1100))}),
            ),
            ("includeJobExecutionState", json!(random.below(2) == 0)),
            ("clientToken", json!("t".repeat(random.below(70)))),
        ] {
            if random.below(5) == 0 {
                request.insert(key.into(), value);
            }
        }
        let out = world.ask(&format!("jobs/{id}/update"), Value::Object(request.clone()));
        let answers = out.iter().filter(|message| message.kind == Kind::Reply);
        assert_eq!(answers.count(), 1, "{request:?}");
        let after = world.service.show(&job_id(&id)).unwrap().executions[0].clone();
        // As a store would: what is forgotten leaves nothing behind.
        assert!(world.service.take_changes().rows.len() < 10);
        if level(&out[0]).ends_with("accepted") {
            assert!(before.status.device_may_report(after.status), "{request:?}");
            assert_eq!(after.version, before.version + 1, "{request:?}");
            moved += 1;
        } else {
            assert_eq!(after, before, "{request:?}");
        }
        if after.status.is_terminal() {
            world
                .service
                .delete_job(NOW_MS, &job_id(&id), false)
                .unwrap();
            at = round + 1;
            world.job(&format!("j{at}"));
        }
    }
    let state = world.service.state();
    assert_eq!((state.jobs.len(), state.things["gw"].ended.len()), (1, 0));
    assert!(moved > soak() / 20, "{moved}");
}

#[test]
fn whatever_a_topic_says_nobody_else_is_answered_and_nothing_else_changes() {
    let mut random = Random(seed());
    let mut world = World::with(Limits::None, &[]);
    world.job("j");
    let levels = [
        "$aws",
        "things",
        "gw",
        "other",
        "jobs",
        "streams",
        "$next",
        "get",
        "update",
        "accepted",
        "j",
        "AFR_OTA-u",
        "cbor",
        "json",
        "describe",
        "+",
        "#",
        "",
        "..",
        "\u{0}",
        "notify-next",
    ];
    let mut before = world.service.state().clone();
    for _ in 0..soak() {
        let mut parts: Vec<&str> = ["$aws", "things", "gw"][..random.below(4)].to_vec();
        for _ in 0..random.below(6) {
            parts.push(levels[random.below(levels.len())]);
        }
        let mut topic = parts.join("/");
        if random.below(50) == 0 {
            topic.push_str(&"x".repeat(random.below(70_000)));
        }
        let payload = mutate(&mut random);
        let out = world.service.handle(NOW_MS, &thing("gw"), &topic, &payload);
        assert!(
            out.iter().all(|message| message.to == thing("gw")),
            "{topic}"
        );
        assert!(
            out.iter().all(|message| message.topic.len() < 1024),
            "{topic}"
        );
        // The only request in reach that changes anything.
        if topic != "$aws/things/gw/jobs/j/update" {
            assert_eq!(*world.service.state(), before, "{topic}");
        }
        before = world.service.state().clone();
    }
}

#[test]
fn a_stored_execution_in_the_wrong_place_is_not_offered_for_ever() {
    let mut world = World::new();
    world.job("plain");
    let mut state = world.service.state().clone();
    // As a damaged store may have it: pending, and yet never offered.
    for thing in state.things.values_mut() {
        for execution in thing.pending.values_mut() {
            execution.offered_at_ms = None;
        }
    }
    let images = Arc::new(MemoryImages::default());
    let mut service = Service::restore(Limits::Aws, images, state).unwrap();
    service.poll(NOW_MS + 1);
    let topic = "$aws/things/gw/jobs/$next/get";
    let out = service.handle(NOW_MS + 1, &thing("gw"), topic, b"{}");
    assert_eq!(body(&out[0])["execution"]["jobId"], "plain");
}
