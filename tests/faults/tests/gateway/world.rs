//! A gateway in virtual time: the shipped agent and the shipped flash-file plugin in a real device, the service core of
//! the cloud, storage and state in memory, a launcher that does what `pal-flash-file/README.md` says. No socket, no
//! thread, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine as _;
use bytes::Bytes;
use guest_artifacts::guest;
use host_cloud::Limits;
use host_cloud::service::{
    ExecutionStatus, MemoryImages, NewUpdate, Outgoing, Protocol, Service, SigKey, Signature,
    ThingName, UpdateFile,
};
use host_crypto::{Hasher, SigningKey, TrustPolicy, TrustStore};
use host_runtime::agent::{AgentBuild, Context};
use host_runtime::device::{Device, DeviceConfig, DevicePorts, PreparedDevice};
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::mailbox::Input;
use host_runtime::plugin::ComponentPlugin;
use host_runtime::ports::clock::Clock;
use host_runtime::ports::commands::{Command, CommandEnd, Commands};
use host_runtime::ports::seed::Seed;
use host_runtime::ports::state_dir::StateDir;
use host_runtime::ports::storage::Storage;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::{Reply, Work, Workers};
use host_runtime::target::trailer::Trailer;
use host_runtime::target::{
    PathRule, RegionConfig, RegionKind, ResetPolicy, SYNC_BYTES, TargetConfig, VersionReader,
};
use host_runtime::types::{Failure, Outcome, Qos, Setting, Token, Version, code};

pub(crate) const THING: &str = "gateway-7";
pub(crate) const JOB: &str = "AFR_OTA-update-1";
const SLOT_BYTES: u64 = 32 * 1024 * 1024;

/// Signer, and builds of the two guests: made once for all tests of the process.
struct Shared {
    agent: Arc<AgentBuild>,
    plugin: Arc<ComponentPlugin>,
    certificate: String,
    key: SigningKey,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let engine = Engine::new(&EngineOptions::default()).unwrap();
        let bytes = |name| guest(name).unwrap().bytes;
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["signer".to_owned()]).unwrap();
        Shared {
            agent: AgentBuild::load(&engine, "built-in", bytes("agent")).unwrap(),
            plugin: ComponentPlugin::load(&engine, "builtin:flash-file", bytes("pal-flash-file"))
                .unwrap(),
            certificate: params.self_signed(&key).unwrap().pem(),
            key: SigningKey::from_pem(&key.serialize_pem()).unwrap(),
        }
    })
}

/// An image of a version: payload from a seed, and the trailer.
pub(crate) fn image(minor: u8, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = support::image::random_bytes(minor.into(), payload_bytes);
    let trailer = Trailer {
        version: Version {
            major: 1,
            minor,
            ..Version::default()
        },
        product: "demo".into(),
        hardware: String::new(),
        payload_bytes: payload_bytes as u64,
    };
    bytes.extend_from_slice(&trailer.encode().unwrap());
    bytes
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Every n-th block is lost, 0 = none.
    pub(crate) lose_every: u64,
    /// Every n-th block comes twice, 0 = none.
    pub(crate) double_every: u64,
    /// The new image does not come up: the launcher falls back.
    pub(crate) never_starts: bool,
    /// The signature is another image's.
    pub(crate) bad_signature: bool,
}

/// The gateway, its cloud and its power.
pub(crate) struct Gateway {
    pub(crate) faults: Faults,
    pub(crate) now: Context,
    pub(crate) device: Device,
    pub(crate) service: Service,
    /// Blocks that the service sent.
    pub(crate) blocks_sent: u64,
    /// Starts of the process.
    pub(crate) starts: u32,
    thing: ThingName,
    medium: Medium,
    wire: Wire,
    connected: bool,
}

/// What survives a power cut.
#[derive(Clone)]
struct Medium {
    power: Arc<Power>,
    state: Arc<MemoryState>,
    slots: [Arc<MemoryStorage>; 2],
    record: Arc<MemoryStorage>,
    tries: Arc<MemoryStorage>,
    clock: Arc<Turned>,
}

/// Counts what is written, and takes the power away when told.
#[derive(Default)]
struct Power {
    writes: AtomicU64,
    /// Bytes of these.
    bytes: AtomicU64,
    /// From this write on nothing reaches the medium; 0 = for ever on.
    off_from: AtomicU64,
}

impl Power {
    /// One more write; false if it is lost.
    fn write(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        let write = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let off_from = self.off_from.load(Ordering::SeqCst);
        off_from == 0 || write < off_from
    }

    fn is_off(&self) -> bool {
        let off_from = self.off_from.load(Ordering::SeqCst);
        off_from != 0 && self.writes.load(Ordering::SeqCst) >= off_from
    }
}

impl Gateway {
    /// A gateway that runs version 1.0.0, and a job for `new` in its queue.
    pub(crate) fn new(new: &[u8], faults: Faults) -> Self {
        let medium = Medium::new();
        medium.slots[0].fill(&image(0, 1000));
        medium.init();
        let thing: ThingName = THING.parse().unwrap();
        let (service, signed) = cloud(&thing, new, faults);
        let wire = Wire::default();
        let now = Context {
            now_ms: 1000,
            wall_s: Some(1_900_000_000),
        };
        assert!(signed);
        let mut gateway = Self {
            device: device(&medium, &wire),
            faults,
            now,
            service,
            blocks_sent: 0,
            starts: 0,
            thing,
            medium,
            wire,
            connected: false,
        };
        gateway.start();
        gateway
    }

    /// Writes to the medium so far.
    pub(crate) fn writes(&self) -> u64 {
        self.medium.power.writes.load(Ordering::SeqCst)
    }

    /// Bytes written to the medium so far: image, records, everything.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.medium.power.bytes.load(Ordering::SeqCst)
    }

    /// Those of the state directory, by name.
    pub(crate) fn state_written(&self) -> BTreeMap<String, u64> {
        self.medium.state.written.lock().unwrap().clone()
    }

    /// The power goes at the `n`-th write: it and all later ones are lost.
    pub(crate) fn cut_at_write(&mut self, n: u64) {
        self.medium.power.off_from.store(n, Ordering::SeqCst);
    }

    /// The power goes, and comes back: everything that is not on the medium is gone.
    pub(crate) fn power_cut(&mut self) {
        self.medium.power.off_from.store(0, Ordering::SeqCst);
        self.wire = Wire::default();
        self.device = device(&self.medium, &self.wire);
        self.start();
    }

    fn start(&mut self) {
        self.starts += 1;
        self.medium.launch(!self.faults.never_starts);
        self.device.start(self.now).unwrap();
        self.connect();
    }

    /// The connection comes (back).
    pub(crate) fn connect(&mut self) {
        self.connected = true;
        let session_present = false;
        self.device
            .handle(self.now, Input::Connected { session_present });
    }

    /// The connection goes: what is under way fails, as an adapter says it.
    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        let calls = std::mem::take(&mut *self.wire.0.lock().unwrap());
        for (token, _) in calls.asked {
            self.done(token, Err(Failure::new(code::NOT_CONNECTED, 0, "cut")));
        }
        let detail = "cut by the test".to_owned();
        self.device
            .handle(self.now, Input::Disconnected { reason: 4, detail });
    }

    /// One step: what is due in the device, then what the device asked of the network, or else time passes. False when
    /// nothing will ever happen again.
    pub(crate) fn step(&mut self) -> bool {
        let next = self.device.poll(self.now);
        if self.device.restart_requested().is_some() || self.medium.power.is_off() {
            self.power_cut();
            return true;
        }
        let asked = self.wire.0.lock().unwrap().asked.pop_front();
        if let Some((token, request)) = asked {
            self.network(token, request);
            return true;
        }
        let service = self.service.deadline();
        match next.into_iter().chain(service).min() {
            Some(at) if at > self.now.now_ms => {
                let passed = at - self.now.now_ms;
                self.now.now_ms = at;
                self.medium.clock.0.store(at, Ordering::SeqCst);
                self.now.wall_s = self.now.wall_s.map(|s| s + passed.div_ceil(1000));
                let outgoing = self.service.poll(self.now.now_ms);
                self.deliver(outgoing);
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Step until the job has ended and the device is at rest; panics when that takes more than `steps`.
    pub(crate) fn run(&mut self, steps: u32) {
        let mut ended_at_ms = None;
        for _ in 0..steps {
            if self.execution().0.is_terminal() {
                ended_at_ms.get_or_insert(self.now.now_ms);
            }
            // Nothing more is due now: the next step would only let time pass.
            if ended_at_ms.is_some_and(|at| at < self.now.now_ms) {
                return;
            }
            if !self.step() {
                assert!(
                    ended_at_ms.is_some(),
                    "stuck: {:#?}",
                    self.device.status(self.now)
                );
                return;
            }
        }
        panic!("no end: {:#?}", self.device.status(self.now));
    }

    /// Status and details of the job.
    pub(crate) fn execution(&self) -> (ExecutionStatus, serde_json::Value) {
        let thing = &self.service.state().things[&self.thing];
        let execution = thing.execution(JOB).unwrap();
        let details = serde_json::Value::Object(execution.details.clone());
        (execution.status, details)
    }

    /// What the confirmed slot holds.
    pub(crate) fn confirmed(&self) -> Vec<u8> {
        let (_, confirmed, _, _) = self.medium.record();
        self.medium.slots[usize::from(confirmed)].contents()
    }

    /// Whether the next start would try an image that is not committed.
    pub(crate) fn is_armed(&self) -> bool {
        self.medium.is_to_be_tried()
    }

    fn done(&mut self, token: Token, result: Result<(), Failure>) {
        let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Nothing);
        self.device.handle(self.now, Input::Done { token, outcome });
    }

    fn network(&mut self, token: Token, request: Request) {
        if !self.connected {
            let failure = Failure::new(code::NOT_CONNECTED, 0, "there is no connection");
            return self.done(token, Err(failure));
        }
        self.done(token, Ok(()));
        if let Request::Publish(topic, payload) = request {
            let outgoing = self
                .service
                .handle(self.now.now_ms, &self.thing, &topic, &payload);
            self.deliver(outgoing);
        }
    }

    fn deliver(&mut self, outgoing: Vec<Outgoing>) {
        for message in outgoing {
            let is_block = message.topic.contains("/data/");
            let mut copies = 1;
            if is_block {
                self.blocks_sent += 1;
                let every = |n: u64| n != 0 && self.blocks_sent.is_multiple_of(n);
                copies = match (
                    every(self.faults.lose_every),
                    every(self.faults.double_every),
                ) {
                    (true, _) => 0,
                    (false, true) => 2,
                    (false, false) => 1,
                };
            }
            for _ in 0..copies {
                self.device.mailbox().send(Input::Message {
                    topic: message.topic.to_string(),
                    payload: message.payload.clone(),
                    qos: if is_block {
                        Qos::AtMostOnce
                    } else {
                        Qos::AtLeastOnce
                    },
                });
            }
        }
    }
}

/// The service, with the job in the thing's queue.
fn cloud(thing: &ThingName, new: &[u8], faults: Faults) -> (Service, bool) {
    let mut images = MemoryImages::default();
    let id = images.insert(Bytes::copy_from_slice(new));
    let mut service = Service::new(Limits::None, Arc::new(images));
    service.create_thing(0, thing.clone()).unwrap();
    let mut hasher = Hasher::default();
    hasher.update(new);
    if faults.bad_signature {
        hasher.update(b"!");
    }
    let signature = shared().key.sign(&hasher.finish()).unwrap();
    let update = NewUpdate {
        job_id: JOB.parse().unwrap(),
        stream_id: "AFR_OTA-stream-1".parse().unwrap(),
        description: "from the test".into(),
        things: vec![thing.clone()],
        files: vec![UpdateFile {
            file_id: 0,
            image: id,
            size: new.len() as u64,
            file_type: Some(0),
            file_path: "app.img".into(),
            cert_file: "signer".into(),
            signature: Some(Signature {
                key: SigKey::Sha256Ecdsa,
                base64: base64::engine::general_purpose::STANDARD.encode(signature),
            }),
        }],
        protocols: vec![Protocol::Mqtt],
        timeout_minutes: None,
        plan: Default::default(),
    };
    let told = service.create_update(0, update).is_ok();
    (service, told)
}

fn device(medium: &Medium, wire: &Wire) -> Device {
    let region = |name: &str, kind, read_only, storage: &Arc<MemoryStorage>| RegionConfig {
        name: name.to_owned(),
        kind,
        erase_size: 1,
        write_size: 1,
        read_only,
        storage: Arc::clone(storage) as _,
    };
    let mut store = TrustStore::default();
    store.add("signer", &shared().certificate).unwrap();
    let target = TargetConfig {
        name: "app".into(),
        file_id: 0,
        plugin: Arc::clone(&shared().plugin) as _,
        plugin_settings: Vec::new(),
        agent_settings: vec![Setting {
            key: "firmware".into(),
            value: "true".into(),
        }],
        regions: vec![
            region("slot-a", RegionKind::Slot, false, &medium.slots[0]),
            region("slot-b", RegionKind::Slot, false, &medium.slots[1]),
            region("record", RegionKind::Record, false, &medium.record),
            region("tries", RegionKind::Record, true, &medium.tries),
        ],
        staging: None,
        line: None,
        hardware_reset: None,
        version_from: VersionReader::Trailer,
        version_command: None,
        product: Some("demo".into()),
        hardware: None,
        reset: ResetPolicy::Process,
        health: None,
        trust: Arc::new(TrustPolicy::new(store).label("signer", "signer").unwrap()),
        allow_no_revert: false,
        paths: PathRule::default(),
        sync_bytes: SYNC_BYTES,
        limits: host_runtime::target::Limits::default(),
    };
    let config = DeviceConfig {
        name: THING.into(),
        agent: Arc::clone(&shared().agent),
        settings: Vec::new(),
        targets: vec![target],
        topics: vec![format!("$aws/things/{THING}/")],
    };
    let ports = DevicePorts {
        state: Arc::clone(&medium.state) as _,
        workers: Arc::new(Inline),
        commands: Arc::new(NoPrograms),
        clock: Arc::clone(&medium.clock) as _,
        seed: Arc::new(Seeds::default()),
    };
    PreparedDevice::new(config, ports, Arc::new(|| {}))
        .unwrap()
        .into_device(Box::new(wire.clone()))
}

enum Request {
    Publish(String, Vec<u8>),
    Other,
}

#[derive(Default)]
struct WireState {
    asked: VecDeque<(Token, Request)>,
}

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<WireState>>);

impl Wire {
    fn ask(&self, token: Token, request: Request) {
        self.0.lock().unwrap().asked.push_back((token, request));
    }
}

impl Transport for Wire {
    fn subscribe(&mut self, token: Token, _: &str, _: Qos) {
        self.ask(token, Request::Other);
    }
    fn unsubscribe(&mut self, token: Token, _: &str) {
        self.ask(token, Request::Other);
    }
    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, _: Qos) {
        self.ask(token, Request::Publish(topic.to_owned(), payload));
    }
    fn http_get(&mut self, token: Token, _: &str, _: u64, _: u32) {
        self.ask(token, Request::Other);
    }
    fn cancel(&mut self, _: Token) {}
}

impl Medium {
    fn new() -> Self {
        let power = Arc::new(Power::default());
        let storage = || {
            Arc::new(MemoryStorage {
                power: Arc::clone(&power),
                bytes: Mutex::default(),
            })
        };
        Self {
            state: Arc::new(MemoryState {
                power: Arc::clone(&power),
                files: Mutex::default(),
                written: Mutex::default(),
            }),
            slots: [storage(), storage()],
            record: storage(),
            tries: storage(),
            clock: Arc::default(),
            power: Arc::clone(&power),
        }
    }

    /// Slot a is confirmed, as after `otad target init`.
    fn init(&self) {
        let old = self.slots[0].contents();
        let mut hasher = Hasher::default();
        hasher.update(&old);
        let mut body = vec![0, 0xff, 0, 0];
        body.extend((old.len() as u64).to_le_bytes());
        body.extend(hasher.finish().sha256());
        for _ in 0..2 {
            lay(&self.record, b"OTADREC1", 128, &body);
        }
    }

    /// Start the next slot if it is to be tried and comes up, else the confirmed one.
    fn launch(&self, comes_up: bool) {
        let (sequence, confirmed, next, _) = self.record();
        let is_try = self.is_to_be_tried();
        let slot = if is_try && comes_up { next } else { confirmed };
        let mut body = sequence.to_le_bytes().to_vec();
        body.extend(u32::from(is_try).to_le_bytes());
        body.push(slot);
        lay(&self.tries, b"OTADTRY1", 64, &body);
    }

    /// Whether the next start would try the new image: armed, and not gone back from under this record.
    fn is_to_be_tried(&self) -> bool {
        let (sequence, confirmed, _, state) = self.record();
        let started = newest(&self.tries, 64).map(|copy| (word(&copy, 12), copy[20]));
        state == 1 && started != Some((sequence, confirmed))
    }

    /// The state record: sequence, confirmed slot, next slot, state.
    fn record(&self) -> (u32, u8, u8, u8) {
        let copy = newest(&self.record, 128).expect("a record");
        (word(&copy, 8), copy[12], copy[13], copy[14])
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The newest whole copy of a record that is kept twice.
fn newest(storage: &MemoryStorage, length: usize) -> Option<Vec<u8>> {
    let mut bytes = storage.contents();
    bytes.resize(8192, 0xff);
    [0, 4096]
        .into_iter()
        .map(|at| bytes[at..at + length].to_vec())
        .filter(|copy| crc32c::crc32c(&copy[..length - 4]) == word(copy, length - 4))
        .max_by_key(|copy| word(copy, 8))
}

/// Write the older copy of a record that is kept twice; `body` is what stands between sequence and CRC.
fn lay(storage: &MemoryStorage, magic: &[u8; 8], length: usize, body: &[u8]) {
    let mut bytes = storage.contents();
    bytes.resize(8192, 0xff);
    let sequence = |at: usize| {
        (&bytes[at..at + 8] == magic)
            .then(|| u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()))
    };
    let newest = sequence(0).max(sequence(4096));
    let at = if newest.is_some() && sequence(0) == newest {
        4096
    } else {
        0
    };
    let mut copy = vec![0; length];
    copy[..8].copy_from_slice(magic);
    copy[8..12].copy_from_slice(&(newest.unwrap_or(0) + 1).to_le_bytes());
    copy[12..12 + body.len()].copy_from_slice(body);
    let crc = crc32c::crc32c(&copy[..length - 4]);
    copy[length - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes[at..at + length].copy_from_slice(&copy);
    storage.fill(&bytes);
}

struct MemoryStorage {
    power: Arc<Power>,
    bytes: Mutex<Vec<u8>>,
}

impl MemoryStorage {
    fn contents(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn fill(&self, bytes: &[u8]) {
        *self.bytes.lock().unwrap() = bytes.to_vec();
    }
}

impl Storage for MemoryStorage {
    fn capacity(&self) -> u64 {
        SLOT_BYTES
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let there = &bytes[start..(start + buffer.len()).min(bytes.len())];
        buffer.fill(0xff);
        buffer[..there.len()].copy_from_slice(there);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if !self.power.write(data.len()) {
            return Ok(());
        }
        let mut bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0xff);
        }
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.power.write(0) {
            return Ok(());
        }
        let mut bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = usize::try_from(offset + length).unwrap();
        if end >= bytes.len() {
            bytes.truncate(start);
        } else {
            bytes[start..end].fill(0xff);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn evict(&self) -> io::Result<()> {
        Ok(())
    }
}

struct MemoryState {
    power: Arc<Power>,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Bytes written so far, by name.
    written: Mutex<BTreeMap<String, u64>>,
}

impl MemoryState {
    fn write(
        &self,
        name: &str,
        bytes: usize,
        change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>),
    ) -> io::Result<()> {
        *self
            .written
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default() += bytes as u64;
        if self.power.write(bytes) {
            change(&mut self.files.lock().unwrap());
        }
        Ok(())
    }
}

impl StateDir for MemoryState {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().unwrap().get(name).cloned())
    }
    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(name, bytes.len(), |files| {
            files.insert(name.to_owned(), bytes.to_vec());
        })
    }
    fn append(&self, name: &str, bytes: &[u8], _: bool) -> io::Result<()> {
        self.write(name, bytes.len(), |files| {
            let file = files.entry(name.to_owned()).or_default();
            file.extend_from_slice(bytes);
        })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.write(name, 0, |files| {
            files.remove(name);
        })
    }
    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        Ok(files
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect())
    }
}

/// Runs everything at once.
struct Inline;

impl Workers for Inline {
    fn run(&self, work: Work) {
        work();
    }
}

struct NoPrograms;

impl Commands for NoPrograms {
    fn run(&self, _: &Command, _: &[(String, String)], reply: Reply<CommandEnd>) {
        reply(CommandEnd {
            code: None,
            stdout: Vec::new(),
            detail: "no programs here".into(),
        });
    }
}

/// The device is told the time; the plugin asks for it, and certificates ask for the year.
#[derive(Default)]
struct Turned(AtomicU64);

impl Clock for Turned {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn wall_s(&self) -> Option<u64> {
        Some(1_900_000_000)
    }
}

#[derive(Default)]
struct Seeds(AtomicU64);

impl Seed for Seeds {
    fn seed(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}
