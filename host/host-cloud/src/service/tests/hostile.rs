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
    let seed = variable("OTAD_SEED", 2026);
    let count = variable("OTAD_SOAK", 40_000).max(1);
    println!("OTAD_SEED={seed} OTAD_SOAK={count}");
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
