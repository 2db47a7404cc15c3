//! A device with one target in a world of memory: calls go in, the clock turns by hand, ends come out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use host_crypto::{Hasher, SigningKey, TrustPolicy, TrustStore};

use super::double::{Factory, Fault, Record, Truth};
use super::medium::{MemoryStaging, MemoryState, MemoryStorage, Power};
use crate::plugin::PluginFactory;
use crate::ports::clock::Clock;
use crate::ports::commands::{Command, CommandEnd, Commands};
use crate::ports::workers::{Reply, Work, Workers};
use crate::target::trailer::Trailer;
use crate::target::{
    FormerPlugin, Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, TargetConfig,
    TargetEvent, TargetPorts, Targets, VersionReader,
};
use crate::types::{FileSpec, Outcome, Setting, Started, TargetState, Token, Version};

/// Bytes of each slot.
pub(super) const SLOT_BYTES: u64 = 1 << 20;

/// The file id of the target.
pub(super) const FILE: u32 = 0;

/// A clock that turns by hand.
#[derive(Default)]
pub(super) struct Hands(pub(super) AtomicU64);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn wall_s(&self) -> Option<u64> {
        Some(1_900_000_000)
    }
}

/// Workers that run at once, or when told.
#[derive(Default)]
pub(super) struct Bench {
    pub(super) held: Mutex<bool>,
    queue: Mutex<Vec<Work>>,
}

impl Bench {
    /// Keep work until it is told to run.
    pub(super) fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
    }

    /// Run what waits.
    pub(super) fn run_all(&self) {
        for work in self.take_all() {
            work();
        }
    }

    /// What waits, to be run elsewhere.
    pub(super) fn take_all(&self) -> Vec<Work> {
        std::mem::take(&mut *self.queue.lock().unwrap())
    }

    /// Workers that die with their work.
    pub(super) fn lose_all(&self) {
        self.queue.lock().unwrap().clear();
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().unwrap().len()
    }
}

impl Workers for Bench {
    fn run(&self, work: Work) {
        if *self.held.lock().unwrap() {
            self.queue.lock().unwrap().push(work);
        } else {
            work();
        }
    }
}

/// Extra environment of a program.
type Environment = Vec<(String, String)>;

/// The operator's programs.
#[derive(Default)]
pub(super) struct Programs {
    /// What each of them ends with, by its name; `None` = it goes on.
    pub(super) ends: Mutex<Vec<(String, Option<CommandEnd>)>>,
    pub(super) ran: Mutex<Vec<(String, Environment)>>,
    pub(super) replies: Mutex<Vec<Reply<CommandEnd>>>,
    /// Called when `reset` runs.
    on_reset: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Programs {
    pub(super) fn on_reset(&self, reset: impl Fn() + Send + 'static) {
        *self.on_reset.lock().unwrap() = Some(Box::new(reset));
    }

    pub(super) fn end_with(&self, name: &str, end: Option<CommandEnd>) {
        self.ends.lock().unwrap().insert(0, (name.into(), end));
    }
}

impl Commands for Programs {
    fn run(&self, command: &Command, environment: &[(String, String)], reply: Reply<CommandEnd>) {
        let name = command.argv[0].clone();
        self.ran
            .lock()
            .unwrap()
            .push((name.clone(), environment.to_vec()));
        let end = self
            .ends
            .lock()
            .unwrap()
            .iter()
            .find(|(n, _)| *n == name)
            .map_or_else(|| Some(exit(0, "")), |(_, end)| end.clone());
        if name == "reset"
            && let Some(reset) = &*self.on_reset.lock().unwrap()
        {
            reset();
        }
        match end {
            Some(end) => reply(end),
            None => self.replies.lock().unwrap().push(reply),
        }
    }
}

pub(super) fn exit(code: i32, stdout: &str) -> CommandEnd {
    CommandEnd {
        code: Some(code),
        stdout: stdout.as_bytes().to_vec(),
        detail: String::new(),
    }
}

pub(super) fn command(name: &str) -> Command {
    Command {
        argv: vec![name.into()],
        deadline_ms: 1000,
    }
}

/// What a test changes of the target's configuration.
#[derive(Clone, Default)]
pub(super) struct Setup {
    pub(super) staged: bool,
    pub(super) version_from: VersionReader,
    pub(super) version_command: bool,
    pub(super) inspect: bool,
    pub(super) health: bool,
    pub(super) is_asked: bool,
    pub(super) product: Option<String>,
    pub(super) allow_downgrade: bool,
    pub(super) reset: Option<ResetPolicy>,
    pub(super) sync_bytes: Option<u64>,
    pub(super) limits: Limits,
    pub(super) allow_unsigned: bool,
    pub(super) allow_no_revert: bool,
    pub(super) paths: PathRule,
    /// Most bytes that the direct double takes at a time, if not 4096.
    pub(super) largest_write: Option<u32>,
    /// Another plugin than the double.
    pub(super) plugin: Option<Arc<dyn PluginFactory>>,
    /// It is on trial in place of this one.
    pub(super) former: Option<Arc<dyn PluginFactory>>,
    /// It was on trial once.
    pub(super) has_passed: bool,
}

/// The world.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) power: Arc<Power>,
    pub(super) slots: [Arc<MemoryStorage>; 2],
    pub(super) record: Arc<MemoryStorage>,
    pub(super) tries: Arc<MemoryStorage>,
    pub(super) staging: Arc<MemoryStaging>,
    pub(super) state: Arc<MemoryState>,
    pub(super) bench: Arc<Bench>,
    pub(super) programs: Arc<Programs>,
    pub(super) clock: Arc<Hands>,
    pub(super) truth: Arc<Mutex<Truth>>,
    pub(super) targets: Targets,
    pub(super) events: Vec<TargetEvent>,
    pub(super) wakes: Arc<AtomicU64>,
    key: Arc<SigningKey>,
    trust: Arc<TrustPolicy>,
    next_token: Token,
}

/// Certificate and key made once with rcgen; the same for all tests of the process.
fn identity() -> (Arc<SigningKey>, TrustStore) {
    use std::sync::OnceLock;
    static PEMS: OnceLock<(String, String)> = OnceLock::new();
    let (certificate, key) = PEMS.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["signer".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    });
    let mut store = TrustStore::default();
    store.add("signer", certificate).unwrap();
    (Arc::new(SigningKey::from_pem(key).unwrap()), store)
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let power = Arc::new(Power::default());
        let (key, store) = identity();
        let trust = TrustPolicy::new(store)
            .default_entry("signer")
            .unwrap()
            .allow_unsigned(setup.allow_unsigned);
        let region = |bytes| MemoryStorage::new(&power, bytes);
        let slots = [region(SLOT_BYTES), region(SLOT_BYTES)];
        slots[0].fill(b"the old image");
        let truth: Arc<Mutex<Truth>> = Arc::default();
        truth.lock().unwrap().largest_write = setup.largest_write;
        let mut world = Self {
            slots,
            record: region(8192),
            tries: region(8192),
            staging: MemoryStaging::new(&power),
            state: MemoryState::new(&power),
            bench: Arc::default(),
            programs: Arc::default(),
            clock: Arc::default(),
            targets: Targets::new("none", Vec::new(), none_ports()).unwrap(),
            events: Vec::new(),
            wakes: Arc::default(),
            key,
            trust: Arc::new(trust),
            next_token: 1,
            truth,
            setup,
            power,
        };
        let (truth, record) = (Arc::clone(&world.truth), Arc::clone(&world.record));
        *world.programs.on_reset.lock().unwrap() = Some(Box::new(move || {
            truth
                .lock()
                .unwrap()
                .boot(Record::decode(&record.contents()));
        }));
        world.restart();
        world
    }

    pub(super) fn direct() -> Self {
        Self::new(Setup::default())
    }

    /// Its plugin takes no more than a block at a time, so none is gathered.
    pub(super) fn block_by_block() -> Self {
        Self::new(Setup {
            largest_write: Some(1024),
            ..Setup::default()
        })
    }

    pub(super) fn staged() -> Self {
        Self::new(Setup {
            staged: true,
            ..Setup::default()
        })
    }

    /// The host process starts (again), on what storage and state directory hold.
    pub(super) fn restart(&mut self) {
        self.targets = Targets::new("none", Vec::new(), none_ports()).unwrap();
        self.bench.lose_all();
        let config = self.config();
        self.targets = Targets::new("gateway", vec![config], self.ports()).unwrap();
        self.events.clear();
    }

    /// The power fails and comes back.
    pub(super) fn power_cut(&mut self) {
        for storage in self.slots.iter().chain([&self.record, &self.tries]) {
            storage.lose_unsynced();
        }
        if let Some(file) = self.staging.file() {
            file.lose_unsynced();
        }
        self.state.lose_unsynced();
        self.power.restore();
        let record = Record::decode(&self.record.contents());
        self.truth.lock().unwrap().boot(record);
        self.restart();
    }

    pub(super) fn ports(&self) -> TargetPorts {
        let wakes = Arc::clone(&self.wakes);
        TargetPorts {
            state: Arc::clone(&self.state) as _,
            workers: Arc::clone(&self.bench) as _,
            commands: Arc::clone(&self.programs) as _,
            clock: Arc::clone(&self.clock) as _,
            wake: Arc::new(move || {
                wakes.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    pub(super) fn config(&self) -> TargetConfig {
        let setup = &self.setup;
        let region = |name: &str, kind, storage: &Arc<MemoryStorage>| RegionConfig {
            name: name.into(),
            kind,
            erase_size: 1,
            write_size: 1,
            read_only: name == "tries",
            storage: Arc::clone(storage) as _,
        };
        let plugin: Arc<dyn PluginFactory> = match &setup.plugin {
            Some(plugin) => Arc::clone(plugin),
            None if setup.staged => Factory::staged(&self.truth),
            None => Factory::direct(&self.truth),
        };
        TargetConfig {
            name: "app".into(),
            file_id: FILE,
            plugin,
            former_plugin: setup.former.as_ref().map(|plugin| FormerPlugin {
                plugin: Arc::clone(plugin),
                on_trial: !setup.has_passed,
            }),
            plugin_settings: Vec::new(),
            agent_settings: Vec::from_iter(setup.allow_downgrade.then(|| Setting {
                key: "allow_downgrade".into(),
                value: "true".into(),
            })),
            regions: if setup.staged {
                Vec::new()
            } else {
                vec![
                    region("slot-a", RegionKind::Slot, &self.slots[0]),
                    region("slot-b", RegionKind::Slot, &self.slots[1]),
                    region("record", RegionKind::Record, &self.record),
                    region("tries", RegionKind::Record, &self.tries),
                ]
            },
            staging: setup.staged.then(|| Arc::clone(&self.staging) as _),
            line: None,
            hardware_reset: None,
            version_from: setup.version_from.clone(),
            version_command: setup.version_command.then(|| command("version")),
            product: setup.product.clone(),
            hardware: None,
            reset: setup.reset.clone().unwrap_or(ResetPolicy::Plugin),
            inspect: setup.inspect.then(|| command("inspect")),
            health: setup.health.then(|| command("health")),
            is_asked: setup.is_asked,
            trust: Arc::clone(&self.trust),
            allow_no_revert: setup.allow_no_revert,
            paths: setup.paths.clone(),
            sync_bytes: setup.sync_bytes.unwrap_or(crate::target::SYNC_BYTES),
            limits: setup.limits.clone(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn turn_clock(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    /// Poll once; what came out is kept.
    pub(super) fn poll(&mut self) -> Option<u64> {
        let now = self.now();
        let next = self.targets.poll(now, &mut self.events);
        // Whatever a test does, it does to targets that were folded up whenever they had nothing to do.
        self.targets.rest();
        next
    }

    /// Begin an operation.
    pub(super) fn start(
        &mut self,
        call: impl FnOnce(&mut Targets, u64, Token) -> Started,
    ) -> Started {
        let token = self.token();
        let now = self.now();
        let started = call(&mut self.targets, now, token);
        if let Started::Pending(named) = started {
            assert_eq!(named, token);
        }
        started
    }

    /// Begin an operation and see its end, turning the clock to wherever it wants to wake.
    pub(super) fn run(
        &mut self,
        call: impl FnOnce(&mut Targets, u64, Token) -> Started,
    ) -> Outcome {
        match self.start(call) {
            Started::Done(outcome) => outcome,
            Started::Pending(token) => self.finish(token),
        }
    }

    /// The end of a pending operation.
    pub(super) fn finish(&mut self, token: Token) -> Outcome {
        for _ in 0..100_000 {
            let wake = self.poll();
            if let Some(outcome) = self.ended(token) {
                return outcome;
            }
            match wake {
                Some(at) if at > self.now() => self.turn_clock(at - self.now()),
                Some(_) => {}
                None => panic!("token {token} waits for nothing"),
            }
        }
        panic!("token {token} does not end");
    }

    /// Whether a token has ended, and how; the event is taken.
    pub(super) fn ended(&mut self, token: Token) -> Option<Outcome> {
        let at = self
            .events
            .iter()
            .position(|e| matches!(e, TargetEvent::Done { token: t, .. } if *t == token))?;
        match self.events.remove(at) {
            TargetEvent::Done { outcome, .. } => Some(outcome),
            TargetEvent::Progress { .. }
            | TargetEvent::Restarted(_)
            | TargetEvent::ProcessRestart(_) => None,
        }
    }

    /// An image of `payload` bytes with a trailer, of version `major`.
    pub(super) fn image(payload: usize, major: u8) -> Vec<u8> {
        let mut image: Vec<u8> = (0..payload).map(|n| (n * 7 % 253) as u8).collect();
        let trailer = Trailer {
            version: Version {
                major,
                ..Version::default()
            },
            product: "app".into(),
            hardware: String::new(),
            payload_bytes: payload as u64,
        };
        image.extend(trailer.encode().unwrap());
        image
    }

    /// The specification of `image`, signed, in blocks of 1 KiB.
    pub(super) fn spec(&self, job: &str, image: &[u8]) -> FileSpec {
        let mut hasher = Hasher::default();
        hasher.update(image);
        FileSpec {
            job_id: job.into(),
            file_id: FILE,
            size: image.len() as u64,
            block_size: 1024,
            file_type: 0,
            attributes: 0,
            path: "update.bin".into(),
            certificate: String::new(),
            signature_kind: "sig-sha256-ecdsa".into(),
            signature: self.key.sign(&hasher.finish()).unwrap(),
        }
    }

    pub(super) fn create(&mut self, job: &str, image: &[u8]) -> Outcome {
        let spec = self.spec(job, image);
        self.run(|t, _, token| t.create(token, spec))
    }

    /// Write blocks of `image`, each in a turn of its own.
    pub(super) fn write_blocks(&mut self, image: &[u8], blocks: impl Iterator<Item = usize>) {
        for index in blocks {
            let end = self.write_block(image, index);
            assert_eq!(end, Outcome::Nothing, "block {index}");
            self.poll();
        }
    }

    pub(super) fn write_block(&mut self, image: &[u8], index: usize) -> Outcome {
        let offset = index * 1024;
        let data = image[offset..image.len().min(offset + 1024)].to_vec();
        self.run(|t, now, token| t.write_block(now, token, FILE, offset as u64, &data))
    }

    pub(super) fn write_all(&mut self, image: &[u8]) {
        // Backwards: order must not matter.
        self.write_blocks(image, (0..image.len().div_ceil(1024)).rev());
    }

    pub(super) fn close(&mut self) -> Outcome {
        self.run(|t, _, token| t.close(token, FILE))
    }

    pub(super) fn install(&mut self) -> Outcome {
        let image = self.targets.verified(FILE).unwrap();
        self.run(|t, _, token| t.install(token, &image))
    }

    pub(super) fn activate(&mut self) -> Outcome {
        let image = self.targets.verified(FILE).unwrap();
        self.run(|t, _, token| t.activate(token, &image))
    }

    pub(super) fn reset(&mut self) -> Outcome {
        self.run(|t, _, token| t.reset(token, FILE))
    }

    pub(super) fn self_test(&mut self) -> Outcome {
        self.run(|t, _, token| t.self_test(token, FILE))
    }

    pub(super) fn commit(&mut self) -> Outcome {
        self.run(|t, _, token| t.commit(token, FILE))
    }

    pub(super) fn reject(&mut self) -> Outcome {
        self.run(|t, _, token| t.reject(token, FILE))
    }

    pub(super) fn abort(&mut self) -> Outcome {
        self.run(|t, _, token| t.abort(token, FILE))
    }

    pub(super) fn reopen(&mut self, job: &str) -> Outcome {
        self.run(|t, _, token| t.reopen(token, job, FILE))
    }

    pub(super) fn state(&mut self) -> Outcome {
        self.run(|t, _, token| t.state(token, FILE))
    }

    /// State, which must be given.
    pub(super) fn state_now(&mut self) -> TargetState {
        match self.state() {
            Outcome::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// Everything up to a verified file.
    pub(super) fn deliver(&mut self, job: &str, image: &[u8]) {
        assert_eq!(self.create(job, image), Outcome::Nothing);
        self.write_all(image);
        assert!(matches!(self.close(), Outcome::Verified(_)));
    }

    /// Everything up to an image that runs in test.
    pub(super) fn deliver_and_start(&mut self, job: &str, image: &[u8]) {
        self.deliver(job, image);
        assert_eq!(self.install(), Outcome::Nothing);
        assert_eq!(self.activate(), Outcome::Nothing);
        assert_eq!(self.reset(), Outcome::Nothing);
    }

    /// Somebody edits the record on the medium: another signature for the same transfer.
    pub(super) fn swap_signature(&mut self, signature: &[u8]) {
        let state = Arc::clone(&self.state);
        let mut record = crate::target::record::load(&*state, "gateway", "app").unwrap();
        record.transfer_mut().unwrap().spec.signature = signature.to_vec();
        let mut memo = crate::target::record::Memo::default();
        crate::target::record::store(&*state, "gateway", "app", &record, &mut memo).unwrap();
        self.restart();
    }

    pub(super) fn phase(&self) -> String {
        self.targets.report().remove(0).phase
    }

    /// From now on the plugin does this when it is asked for `verb`.
    pub(super) fn fault(&self, verb: &'static str, fault: Fault) {
        self.truth.lock().unwrap().faults.insert(verb, fault);
    }

    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.truth.lock().unwrap().calls)
    }
}

/// The main code of a failure.
pub(super) fn main_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Failed(failure) => failure.main,
        other => panic!("not a failure: {other:?}"),
    }
}

fn none_ports() -> TargetPorts {
    let power = Arc::new(Power::default());
    TargetPorts {
        state: MemoryState::new(&power),
        workers: Arc::new(Bench::default()),
        commands: Arc::new(Programs::default()),
        clock: Arc::new(Hands::default()),
        wake: Arc::new(|| {}),
    }
}
