//! The daemon's parsers, what it finds on its disk, and the loader of components.
//!
//! What carries a checksum is tried twice: as it is, and with the checksum mended, for otherwise only the checksum would
//! be tried.

use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use host_crypto::TrustStore;
use host_runtime::agent::trace::{Trace, TraceError};
use host_runtime::agent::{
    AgentBuild, AgentInstance, AgentStatus, Context, Description, Event, StartInfo, Turn,
};
use host_runtime::device::{DeviceConfig, DevicePorts, PreparedDevice};
use host_runtime::engine::{AGENT_WORLD, Engine, EngineOptions, GuestFault, PLUGIN_WORLD, Refusal};
use host_runtime::history::JOBS_MAX;
use host_runtime::plugin::ComponentPlugin;
use host_runtime::plugin::native::child_frame;
use host_runtime::ports::clock::Clock;
use host_runtime::ports::commands::{Command, CommandEnd, Commands};
use host_runtime::ports::seed::Seed;
use host_runtime::ports::state_dir::StateDir;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::{Reply, Work, Workers};
use host_runtime::target::trailer::{TRAILER_BYTES, Trailer};
use host_runtime::target::verified_record;
use host_runtime::types::{Blob, Failure, Qos, Token, Version};
use otad::code::{CodeError, Gate, Kind, Manifest, Source, bundle};
use otad::control::protocol::{Answer, Body, Request};
use otad::launch::record::{Doubled, Image, Record, Slot, State, Tries};
use otad::launch::{self, record};

use super::Corpus;

/// Any bytes as a line of the control socket, of either end.
pub fn control_line(bytes: &[u8]) -> bool {
    let is_request = match Request::parse(bytes) {
        Ok(request) => {
            let line = serde_json::to_vec(&request).expect("what was read can be written");
            assert_eq!(Request::parse(&line), Ok(request));
            true
        }
        Err(refusal) => {
            assert_eq!(refusal.exit, "usage", "{refusal:?}");
            let line = Answer::line(Body::Error(refusal));
            assert!(line.len() < 64 * 1024 + bytes.len(), "{} bytes", line.len());
            false
        }
    };
    let answer = Answer::parse(bytes);
    let is_answer = answer.is_ok();
    if let Ok(answer) = answer {
        assert!(Answer::line(answer.body).ends_with(b"\n"));
    }
    is_request || is_answer
}

/// Any bytes as a trace of an agent: read to its end, or refused with words. What carries a sum is tried with the sum mended.
pub fn agent_trace(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| -> Result<(), TraceError> {
        let mut trace = Trace::open(bytes)?;
        while trace.next_exchange()?.is_some() {}
        Ok(())
    };
    if let Err(error) = read(bytes) {
        assert!(!error.to_string().is_empty());
    }
    let mut mended = Vec::new();
    let mut chain = None;
    // The end of the last line begins none.
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    for line in whole.split(|b| *b == b'\n') {
        match (chain, line.get(9..)) {
            (Some(last), Some(body)) => {
                let sum = crc32c::crc32c_append(last, body);
                chain = Some(sum);
                mended.extend_from_slice(format!("{sum:08x} ").as_bytes());
                mended.extend_from_slice(body);
                mended.push(b'\n');
            }
            _ => {
                mended.extend_from_slice(line);
                mended.push(b'\n');
                chain = Some(crc32c::crc32c(&mended));
            }
        }
    }
    let end = read(&mended);
    if let Err(error) = &end {
        assert!(!error.to_string().is_empty());
    }
    end.is_ok()
}

/// Traces; their sums are for the target.
#[must_use]
pub fn agent_traces() -> Corpus {
    let header = r#"otad-trace 2 {"agent":"a","version":"1","digest":"","device":"d"}"#;
    let start = r#"{"exchange":{"at":{"now_ms":1,"wall_s":null},"ask":{"start":{"config":{"device":"d","settings":[],"targets":[]},"saved":{"Snapshot":{"schema":1,"bytes":["x00ff",[0,64]]}},"schema":1,"seed":7,"outstanding":[],"last_event":0}},"calls":[[{"log":{"level":"Info","text":"t"}},"none"]],"end":{"refused":{"main":1,"sub":2,"detail":"no"}}},"bulk":[]}"#;
    let event = r#"{"exchange":{"at":{"now_ms":2,"wall_s":5},"ask":{"event":{"Messages":[{"topic":"t","payload":["t{}",[65,4096]]}]}},"calls":[[{"write-block":{"file":0,"offset":0,"data":{"length":256,"crc":1}}},{"started":{"Done":"Nothing"}}]],"end":{"broken":"b"}},"bulk":[{"length":1,"crc":2}]}"#;
    let lines = format!("{header}\n00000000 {start}\n00000000 {event}\n");
    Corpus::good(vec![lines.into_bytes(), header.as_bytes().to_vec()])
}

/// Lines of the control socket.
#[must_use]
pub fn control_lines() -> Corpus {
    let rows = [
        r#"{"otad":2,"device":"pump-1","do":"events","after":7,"follow":true}"#,
        r#"{"otad":2,"do":"status"}"#,
        r#"{"otad":2,"device":"pump-1","target":"main","do":"rollback","reason":"bad"}"#,
        r#"{"otad":2,"do":"decline","job":"j","reason":"no"}"#,
        r#"{"otad":2,"do":"finish","job":"j","status":"succeeded","reason":"up"}"#,
        r#"{"otad":2,"error":{"exit":"nothing","text":"no job"}}"#,
        r#"{"otad":2,"item":{"sequence":1}}"#,
    ];
    Corpus::good(rows.map(|row| row.as_bytes().to_vec()).into())
}

/// Any text as a configuration file: read, or refused with places and words.
pub fn configuration(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let environment = [(
        "OTAD_DEVICE__0__NAME".to_owned(),
        text.chars().take(40).collect(),
    )];
    let read = |environment: &[_]| {
        let file = Path::new("/etc/otad/otad.toml");
        match otad::config::parse(file, &text, environment.to_vec()) {
            Ok(config) => {
                assert!(!config.devices.is_empty());
                true
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    };
    read(&environment);
    read(&[])
}

/// Configurations.
#[must_use]
pub fn configurations() -> Corpus {
    const GOOD: &str = r#"
[daemon]
state_dir = "state"
control_group = "ota"
[trust]
directory = "trust"
labels = { "cert.pem" = "signer" }
[hooks.fail]
command = ["/bin/true", "x"]
[[device]]
name = "pump-1"
[device.mqtt]
endpoint = "localhost"
port = 8883
root_certificate = "root.pem"
certificate = "certificate.pem"
private_key = "private-key.pem"
reply_subscriptions = "auto"
[device.agent]
block_size = 4096
blocks_per_request = 31
on_job = "ask"
protocols = ["mqtt"]
[device.hooks]
job = { command = ["/bin/true"], deadline_ms = 1000 }
[[device.target]]
name = "main"
file_id = 0
plugin = "flash-file"
directory = "targets/main"
restart = { command = ["./restart.sh", "main"] }
version_from = "offset"
version_offset = 64
[[device.target]]
name = "mcu"
file_id = 1
plugin = "flash-file"
[[device.target.region]]
name = "slot-a"
path = "a"
size_bytes = 1000
[device.target.settings]
key = "value"
"#;
    Corpus {
        good: vec![GOOD.as_bytes().to_vec()],
        bad: vec![b"[daemon]\nstate_dir = \"s\"\n".to_vec()],
    }
}

/// Sets the CRC-32C at the end of a structure of this length at this place.
fn mend(bytes: &mut [u8], at: usize, length: usize) {
    if let Some(whole) = bytes.get_mut(at..at + length) {
        let (content, sum) = whole.split_at_mut(length - 4);
        sum.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    }
}

/// Any bytes as the end of an image.
pub fn image_trailer(bytes: &[u8]) -> bool {
    let mut is_read = false;
    let mut mended = bytes.to_vec();
    let size = bytes.len() as u64;
    if let Some(at) = bytes.len().checked_sub(TRAILER_BYTES) {
        if let Some(payload) = mended.get_mut(at + 116..at + 124) {
            payload.copy_from_slice(&(at as u64).to_le_bytes());
        }
        mend(&mut mended, at, TRAILER_BYTES);
    }
    for bytes in [bytes, &mended] {
        if let Ok(trailer) = Trailer::decode(bytes, size) {
            is_read = true;
            let again = trailer.encode().expect("what was read can be written");
            assert_eq!(Trailer::decode(&again, size), Ok(trailer));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(version) = otad::image::parse_version(text)
    {
        is_read = true;
        assert_eq!(
            otad::image::parse_version(&version.to_string()),
            Ok(version)
        );
    }
    is_read
}

/// Trailers.
#[must_use]
pub fn image_trailers() -> Corpus {
    let version = Version {
        major: 1,
        minor: 2,
        revision: 3,
        build: 4,
    };
    let trailer = Trailer {
        version,
        product: "pump".to_owned(),
        hardware: "rev-b".to_owned(),
        payload_bytes: 100,
    };
    let trailer = trailer.encode().expect("a good trailer");
    Corpus::good(vec![
        [&[7; 100][..], &trailer].concat(),
        trailer.to_vec(),
        b"1.2.3+4".to_vec(),
        b"255.255.65535".to_vec(),
    ])
}

/// Somebody who is trusted, and has signed none of this.
const SIGNER: &str = include_str!("../../../../host/host-crypto/vectors/openssl-p256.pem");

/// Any bytes as a build of a stranger's, as they are and with a signature and an end that fits: it is not let in. And as the
/// manifest of one: what was read can be said again.
pub fn code_bundle(bytes: &[u8]) -> bool {
    let (code, manifest) = bytes.split_at(bytes.len() / 2);
    let ended = bundle(code, manifest, SIGNATURE).unwrap_or_default();
    let mut is_bundle = None;
    for bytes in [bytes.to_vec(), ended] {
        let mut store = TrustStore::default();
        store.add("signer", SIGNER).expect("a good certificate");
        let source = Source::Bundle {
            label: "job".to_owned(),
            bytes,
        };
        let taken = Gate::over(store, Arc::new(Still)).take(Kind::Plugin, source);
        let error = taken.expect_err("nobody has signed it");
        // Refused for what it is, and not before it was looked at.
        assert!(!matches!(error, CodeError::NoCodeSigners) && !error.to_string().is_empty());
        // As it is; the other one always is.
        is_bundle.get_or_insert(!matches!(
            error,
            CodeError::NoBundle | CodeError::Bundle { .. }
        ));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(manifest) = Manifest::parse(text)
        && let Ok(again) = manifest.text()
    {
        assert_eq!(Manifest::parse(&again), Ok(manifest));
        return true;
    }
    is_bundle == Some(true)
}

/// A signature in DER, of nothing.
const SIGNATURE: &[u8] = b"\x30\x06\x02\x01\x01\x02\x01\x01";

/// A bundle, and the manifest in it.
#[must_use]
pub fn code_bundles() -> Corpus {
    let digest = "11".repeat(32);
    let manifest = format!(
        "format = 1\nkind = \"plugin\"\ncarrier = \"component\"\nname = \"pal-pump\"\nversion = \"1.2.3\"\n\
         world = \"ota:pal/plugin@0.1\"\nleast_host = \"0.0.0\"\nsize = 4\nsha256 = \"{digest}\"\n\
         [grants]\nlent = [\"log\"]\n[limits]\nfuel = 1000\n"
    );
    let file = bundle(b"\0asm", manifest.as_bytes(), SIGNATURE).expect("a good bundle");
    Corpus::good(vec![file, manifest.into_bytes()])
}

/// Any bytes as what a plugin's process says: read frame by frame until one is refused with words.
pub fn plugin_frame(mut bytes: &[u8]) -> bool {
    let all = bytes.len();
    loop {
        match child_frame(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return bytes.len() < all;
            }
        }
    }
}

/// Frames as `plugin/native/wire.rs` lays them out: two lengths, a message, data.
#[must_use]
pub fn plugin_frames() -> Corpus {
    let frame = |message: &[u8], data: &[u8]| {
        let mut frame = (message.len() as u32).to_le_bytes().to_vec();
        frame.extend((data.len() as u32).to_le_bytes());
        frame.extend(message);
        frame.extend(data);
        frame
    };
    // A message is the number of its kind and what belongs to it: a start that is refused with "no", a duty that is done,
    // a line of the log, a write of four bytes at 128 in region 1.
    let refused = frame(&[0, 1, 2, b'n', b'o'], &[]);
    let done = frame(&[1, 0, 1, 0, 0], &[]);
    let log = frame(&[2, 17, 2, 2, b'o', b'k'], &[]);
    let write = frame(&[2, 2, 1, 0x80, 1], &[1, 2, 3, 4]);
    let several = [&refused[..], &log, &write].concat();
    Corpus::good(vec![refused, done, log, write, several])
}

/// Any bytes as the two records of the launcher: the first half is the plugin's, the second its own.
pub fn launch_record(bytes: &[u8]) -> bool {
    let mut is_read = false;
    let mut mended = bytes.to_vec();
    let half = bytes.len() / 2;
    for (begin, length) in [(0, Record::BYTES), (half, Tries::BYTES)] {
        for copy in [begin, begin + record::COPY_BYTES] {
            mend(&mut mended, copy, length);
        }
    }
    for bytes in [bytes, &mended] {
        let (one, other) = bytes.split_at(half);
        let tries = Tries::newest(other).map(|(_, tries)| tries);
        assert!(Record::next_offset(one) <= record::COPY_BYTES);
        let Some((_, found)) = Record::newest(one) else {
            continue;
        };
        is_read = true;
        for is_fit in [false, true] {
            let choice = launch::choose(&found, tries, 3, |_| is_fit);
            if let Some(choice) = choice {
                let known = [found.confirmed, found.next];
                assert!(known.contains(&Some(choice.image)), "{choice:?}");
                let is_next = Some(choice.image) == found.next;
                assert!(
                    is_fit || !is_next,
                    "an unfit image is never started: {choice:?}"
                );
            }
        }
    }
    is_read
}

/// Pairs of records.
#[must_use]
pub fn launch_records() -> Corpus {
    let image = |slot, byte| Image {
        slot,
        length: 7,
        sha256: [byte; 32],
    };
    let record = |sequence, state| Record {
        sequence,
        confirmed: Some(image(Slot::A, 1)),
        next: Some(image(Slot::B, 2)),
        state,
    };
    let tries = |used| Tries {
        sequence: 5,
        record_sequence: 3,
        used,
        started: Some(Slot::B),
    };
    let region = |copies: [Vec<u8>; 2]| {
        let mut region = vec![0xff; 2 * record::COPY_BYTES];
        for (at, copy) in copies.into_iter().enumerate() {
            region[at * record::COPY_BYTES..][..copy.len()].copy_from_slice(&copy);
        }
        region
    };
    let armed = region([
        record(3, State::Armed).encode(),
        record(2, State::Settled).encode(),
    ]);
    let settled = region([record(3, State::Settled).encode(), vec![0; 128]]);
    let used = region([tries(1).encode(), tries(3).encode()]);
    let short = [record(3, State::Armed).encode(), tries(1).encode()].map(|mut half| {
        half.resize(128, 0xff);
        half
    });
    Corpus::good(vec![
        [armed, used.clone()].concat(),
        [settled, used].concat(),
        short.concat(),
    ])
}

/// A state directory in which every file of one name holds these bytes, and all others are missing.
#[derive(Default)]
struct OneFile {
    name: &'static str,
    bytes: Vec<u8>,
    /// Names of the files that were written.
    stored: Mutex<Vec<String>>,
}

impl OneFile {
    fn has_stored(&self, name: &str) -> bool {
        let stored = self.stored.lock().expect("nobody panics here");
        stored.iter().any(|stored| stored.ends_with(name))
    }
}

impl StateDir for OneFile {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(name.ends_with(self.name).then(|| self.bytes.clone()))
    }
    fn store(&self, name: &str, _: &[u8]) -> io::Result<()> {
        let stored = self.stored.lock();
        stored.expect("nobody panics here").push(name.to_owned());
        Ok(())
    }
    fn append(&self, _: &str, _: &[u8], _: bool) -> io::Result<()> {
        Ok(())
    }
    fn settle(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Any bytes as the list of verified images: read, or an error of the medium's kind.
pub fn verified_list(bytes: &[u8]) -> bool {
    let state = OneFile {
        name: "",
        bytes: bytes.to_vec(),
        ..OneFile::default()
    };
    let list = verified_record::list(&state, "d", "t");
    let has = verified_record::contains(&state, "d", "t", &[0x11; 32]);
    let is_read = list.is_ok();
    assert_eq!(is_read, has.is_ok());
    if let (Ok(list), Ok(has)) = (list, has) {
        assert_eq!(has, list.iter().any(|image| image.sha256 == [0x11; 32]));
    }
    is_read
}

/// Lists of verified images.
#[must_use]
pub fn verified_lists() -> Corpus {
    let digest = "11".repeat(32);
    let version = r#"{"major":1,"minor":2,"revision":3,"build":4}"#;
    let image = format!(r#"{{"sha256":"{digest}","size":7,"version":{version},"signer":"s"}}"#);
    Corpus {
        good: vec![
            format!(r#"{{"format":1,"images":[{image},{image}]}}"#).into_bytes(),
            br#"{"format":1,"images":[]}"#.to_vec(),
        ],
        bad: vec![br#"{"format":2,"images":[]}"#.to_vec()],
    }
}

/// Runs everything at once, knows no time, does nothing.
struct Still;

impl Workers for Still {
    fn run(&self, work: Work) {
        work();
    }
}

impl Commands for Still {
    fn run(&self, _: &Command, _: &[(String, String)], reply: Reply<CommandEnd>) {
        reply(CommandEnd {
            code: None,
            stdout: Vec::new(),
            detail: String::new(),
        });
    }
}

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        1000
    }
    fn wall_s(&self) -> Option<u64> {
        None
    }
}

impl Seed for Still {
    fn seed(&self) -> u64 {
        1
    }
}

impl Transport for Still {
    fn subscribe(&mut self, _: Token, _: &str, _: Qos) {}
    fn unsubscribe(&mut self, _: Token, _: &str) {}
    fn publish(&mut self, _: Token, _: &str, _: Vec<u8>, _: Qos) {}
    fn http_get(&mut self, _: Token, _: &str, _: u64, _: u32) {}
    fn cancel(&mut self, _: Token) {}
}

/// An agent that takes everything and wants nothing: the host's reading is what is tried.
impl AgentInstance for Still {
    fn start(&mut self, _: Context, _: StartInfo) -> Result<Result<Turn, Failure>, GuestFault> {
        Ok(Ok(Turn::default()))
    }
    fn handle(&mut self, _: Context, _: Event) -> Result<Turn, GuestFault> {
        Ok(Turn::default())
    }
    fn status(&mut self) -> Result<AgentStatus, GuestFault> {
        Ok(AgentStatus::default())
    }
    fn snapshot(&mut self, _: Context) -> Result<Blob, GuestFault> {
        Ok(Blob {
            schema: 1,
            bytes: Vec::new(),
        })
    }
    fn memory_bytes(&mut self) -> usize {
        0
    }
}

/// Files of a device; the first byte of an input chooses.
const STATE_FILES: [&str; 4] = ["journal", "events.log", "cursor", "history"];

/// Any bytes as one of a device's files: the device starts, and its events and its history can be read.
pub fn device_state(bytes: &[u8]) -> bool {
    let (first, content) = bytes.split_first().unwrap_or((&0, &[]));
    let name = STATE_FILES[usize::from(*first) % STATE_FILES.len()];
    let mut mended = content.to_vec();
    match name {
        // magic, schema, length, CRC-32C of these two numbers and the body.
        "journal" if mended.len() >= 20 => {
            let (head, body) = mended.split_at_mut(20);
            head[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
            let sum = crc32c::crc32c_append(crc32c::crc32c(&head[8..16]), body);
            head[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        // magic, then records of length, CRC-32C, body: the first one.
        "events.log" | "history" if mended.len() >= 16 => {
            let (head, body) = mended.split_at_mut(16);
            head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
            head[12..16].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        }
        _ => {}
    }
    let mut is_read = true;
    for bytes in [content.to_vec(), mended] {
        let description = Description {
            name: "still".to_owned(),
            version: "0.0.0".to_owned(),
            schemas: vec![1],
        };
        let config = DeviceConfig {
            name: "d".to_owned(),
            agent: AgentBuild::native("still", description, |_| Ok(Box::new(Still))),
            former_agent: None,
            settings: Vec::new(),
            targets: Vec::new(),
            topics: vec!["$aws/things/d/".to_owned()],
        };
        let state = Arc::new(OneFile {
            name,
            bytes,
            ..OneFile::default()
        });
        let ports = DevicePorts {
            state: Arc::clone(&state) as _,
            workers: Arc::new(Still),
            commands: Arc::new(Still),
            clock: Arc::new(Still),
            seed: Arc::new(Still),
        };
        let prepared = PreparedDevice::new(config, ports, Arc::new(|| {}));
        let prepared =
            prepared.expect("damage is no error, the device goes on with what it can read");
        let mut device = prepared.into_device(Box::new(Still));
        let now = Context {
            now_ms: 1000,
            wall_s: None,
        };
        device.start(now).expect("this agent refuses nothing");
        device.poll(now);
        let events = device.events();
        let stored = events.after(0, usize::MAX);
        assert!(stored.len() <= 256 && events.reader_place().unwrap_or(0) <= events.last());
        let jobs = device.history().story().jobs;
        assert!(jobs.len() <= JOBS_MAX);
        for job in &jobs {
            assert!(!otad::past::job::lines("d", job).is_empty());
        }
        // A good one is so mended or not: else the mending would be what damages all.
        is_read &= match name {
            "journal" => !state.has_stored("journal.damaged"),
            "events.log" => !stored.is_empty(),
            "cursor" => events.reader_place().is_some(),
            _ => !jobs.is_empty(),
        };
    }
    is_read
}

/// Files of a device, each behind the byte of its name.
#[must_use]
pub fn device_states() -> Corpus {
    let body = b"\x01\x02\x03";
    let sum = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
    let numbers = [1_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    let journal_sum = sum(&[&numbers, &body[..]].concat());
    let journal = [&b"\x00OTADJNL1"[..], &numbers, &journal_sum, body];
    let head = br#"{"at_s":1,"sequence":7,"kind":6,"job_id":"j","file":0,"failure":null,"version":null,"document":""}"#;
    let record = [&(head.len() as u32).to_le_bytes()[..], head, b"{}"].concat();
    let length = (record.len() as u32).to_le_bytes();
    let log = [&b"\x01OTADEVT1"[..], &length, &sum(&record), &record];
    let job = br#"{"job":{"job_id":"j","began_s":1,"took_ms":2,"files":[{"file_id":0,"target":"t","from":null,"to":"1.0.0",
        "blocks":3,"held":3,"phase":"Receiving"}],"bytes":9,"blocks_fetched":4,"blocks_twice":1,"restarts":0,"faults":0,
        "end":{"event":1,"at_s":2,"sent":"{\"status\":\"FAILED\",\"statusDetails\":{\"reason\":\"0xe3: 0x5\"}}",
        "failure":null}}}"#;
    let length = (job.len() as u32).to_le_bytes();
    let history = [&b"\x03OTADHIS1"[..], &length, &sum(job), job];
    Corpus::good(vec![
        journal.concat(),
        log.concat(),
        b"\x0217".to_vec(),
        history.concat(),
    ])
}

static ENGINE: LazyLock<Arc<Engine>> =
    LazyLock::new(|| Engine::new(&EngineOptions::default()).expect("this machine runs components"));

/// Any bytes as a component: what does not validate is refused before any of it is compiled, and what does gets no
/// further than its types allow.
pub fn component(bytes: &[u8]) -> bool {
    let refusals = [
        AgentBuild::load(&ENGINE, "fuzz", bytes).err(),
        ComponentPlugin::load(&ENGINE, "fuzz", bytes).err(),
    ];
    let is_valid = refusals.iter().any(|refusal| {
        matches!(
            refusal,
            None | Some(Refusal::Link(_) | Refusal::Describe(_))
        )
    });
    for refusal in refusals.into_iter().flatten() {
        assert!(
            refusal.to_string().len() < 16 * 1024,
            "{} bytes of reason",
            refusal.to_string().len()
        );
        // Valid by the whole of its bytes, and yet not compiled: nothing of that kind is known.
        assert!(!matches!(refusal, Refusal::Compile(_)), "{refusal}");
    }
    for world in [&AGENT_WORLD, &PLUGIN_WORLD] {
        // Nothing lent: whatever imports anything of the world is refused.
        if let Ok(loaded) = ENGINE.load(bytes, world, &[]) {
            assert_eq!(loaded.shape.imports.len(), 0);
        }
    }
    is_valid
}

/// Components: a small one of each world, and the shipped plugin, so that few inputs cost a whole compilation.
#[must_use]
pub fn components() -> Corpus {
    let text = |imports: &str, exports: &str| {
        format!(
            r#"(component
                 {imports}
                 (core module $m
                   (memory (export "memory") 1)
                   (func (export "run") (param i32) (result i32) local.get 0 i32.const 7 i32.add)
                   (func (export "spin") (loop br 0)))
                 (core instance $i (instantiate $m))
                 (func $f (param "x" u32) (result u32) (canon lift (core func $i "run")))
                 (instance $e (export "describe" (func $f)))
                 {exports})"#
        )
    };
    let rows = [
        text("", r#"(export "ota:agent/job-agent@0.1.0" (instance $e))"#),
        text(
            r#"(import "ota:agent/os@0.1.0" (instance))"#,
            r#"(export "ota:agent/job-agent@0.1.0" (instance $e))"#,
        ),
        text(
            r#"(import "ota:pal/log@0.1.0" (instance))"#,
            r#"(export "ota:pal/describe@0.1.0" (instance $e)) (export "ota:pal/image@0.1.0" (instance $e))"#,
        ),
    ];
    let mut all: Vec<Vec<u8>> = rows
        .iter()
        .map(|text| wat::parse_str(text).expect("good text"))
        .collect();
    all.push(guest_artifacts::FLASH_FILE.to_vec());
    Corpus::good(all)
}
