//! A target that takes next to nothing beside one that is quick: what the slow one may hold in memory, while the other
//! comes to its end.
//!
//! The shipped agent and plugin, the real cloud over TLS, both devices in this process: that is where a medium can be
//! held up. It writes as every medium does, and does not come to the end of a sync until the test lets it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use e2e::gateway::read;
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::ThingStats;
use host_cloud::service::ThingName;
use host_crypto::{TrustPolicy, TrustStore};
use host_mqtt::{Connection, ConnectionConfig, Endpoint, Security, TlsFiles};
use host_runtime::agent::AgentBuild;
use host_runtime::device::{DeviceConfig, DevicePorts};
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::ComponentPlugin;
use host_runtime::ports::clock::SystemClock;
use host_runtime::ports::commands::TokioCommands;
use host_runtime::ports::seed::SystemSeed;
use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::ports::storage::{FileStorage, Storage};
use host_runtime::ports::workers::BlockingPool;
use host_runtime::supervisor::{self, DeviceHandle};
use host_runtime::target::{
    Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, TargetConfig, VersionReader,
};
use host_runtime::types::Setting;
use support::binary::{code_cache, warm_code_cache};
use support::deadline::{Deadline, PATIENCE, pass, wait_until};
use support::image::random_bytes;

const BLOCK: usize = 4096;
/// Blocks of a request, and requests that may be under way.
const REQUEST: usize = 8;
const REQUESTS: usize = 4;
/// What may be on its way to the target at a time, in blocks.
const WINDOW: u64 = (REQUEST * REQUESTS) as u64;
/// Eight windows.
const IMAGE: usize = 8 * REQUEST * REQUESTS * BLOCK;
const SLOT: u64 = 4 << 20;
/// After so many bytes a target is made durable; twice as many may wait for that.
const SYNC: u64 = 64 * 1024;

/// Holds up syncs once something was written, until it is opened.
#[derive(Default)]
struct Gate {
    /// Bytes written, and whether it is open.
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn written_blocks(&self) -> u64 {
        self.state.lock().unwrap().0 / BLOCK as u64
    }
}

/// A slot behind a gate.
struct Held {
    inner: FileStorage,
    gate: Arc<Gate>,
}

impl Storage for Held {
    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.gate.state.lock().unwrap().0 += data.len() as u64;
        self.inner.write_at(offset, data)
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner.erase(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        let state = self.gate.state.lock().unwrap();
        let may_go = |state: &mut (u64, bool)| (state.0 == 0 || state.1).then_some(());
        let (state, opened) =
            wait_until(state, &self.gate.changed, Deadline::after(PATIENCE), may_go);
        drop(state);
        match opened {
            Some(()) => self.inner.sync(),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn evict(&self) -> io::Result<()> {
        self.inner.evict()
    }
}

/// What the devices share.
struct Bench {
    gateway: Gateway,
    engine: Arc<Engine>,
    agent: Arc<AgentBuild>,
    ports: DevicePorts,
}

/// A device on a connection of its own.
struct Device {
    handle: DeviceHandle,
    connection: Connection,
}

impl Bench {
    /// On the runtime that the devices will run on.
    fn new(gateway: Gateway) -> Self {
        let warming = warm_code_cache().unwrap();
        let engine = Engine::new(&EngineOptions {
            cache_dir: Some(code_cache()),
            ..EngineOptions::default()
        })
        .unwrap();
        let agent = guest_artifacts::guest("agent").unwrap();
        let agent = AgentBuild::load(&engine, "built-in", agent.bytes).unwrap();
        warming.done().unwrap();
        let state = gateway.path("state");
        fs::create_dir_all(&state).unwrap();
        Self {
            ports: DevicePorts {
                state: Arc::new(FileStateDir::open(&state).unwrap()),
                workers: Arc::new(BlockingPool::current()),
                commands: Arc::new(TokioCommands::current()),
                clock: Arc::new(SystemClock::new()),
                seed: Arc::new(SystemSeed::new().unwrap()),
            },
            gateway,
            engine,
            agent,
        }
    }

    fn slot(&self, thing: &str) -> std::path::PathBuf {
        self.gateway.path(&format!("targets/{thing}/main/slot-b"))
    }

    /// Its free slot lies behind the gate, if there is one.
    fn device(&self, cloud: &Cloud, thing: &str, gate: Option<&Arc<Gate>>) -> Device {
        let config = DeviceConfig {
            name: thing.to_owned(),
            agent: Arc::clone(&self.agent),
            former_agent: None,
            settings: settings(&[
                ("block_size", BLOCK),
                ("blocks_per_request", REQUEST),
                ("requests_in_flight", REQUESTS),
            ]),
            targets: vec![self.target(thing, gate)],
            topics: vec![format!("$aws/things/{thing}/")],
        };
        let pending = supervisor::prepare(config, self.ports.clone()).unwrap();
        let credential = |name| self.gateway.credential(thing, name);
        let files = TlsFiles {
            ca: credential("root.pem"),
            certificate: credential("certificate.pem"),
            key: credential("private-key.pem"),
        };
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: cloud.port(),
        };
        let config = ConnectionConfig::new(endpoint, thing, Security::Tls(files));
        let connection = Connection::start(config).unwrap();
        let transport = connection.attach(thing, pending.mailbox(), false).unwrap();
        Device {
            handle: pending.start(Box::new(transport)).unwrap(),
            connection,
        }
    }

    fn target(&self, thing: &str, gate: Option<&Arc<Gate>>) -> TargetConfig {
        let dir = self.gateway.path(&format!("targets/{thing}/main"));
        let store = TrustStore::load(&self.gateway.path("trust")).unwrap();
        let trust = TrustPolicy::new(store).default_entry("signer").unwrap();
        let plugin = guest_artifacts::FLASH_FILE;
        TargetConfig {
            name: "main".to_owned(),
            file_id: 0,
            plugin: ComponentPlugin::load(&self.engine, "flash-file", plugin).unwrap(),
            former_plugin: None,
            plugin_settings: Vec::new(),
            agent_settings: Vec::new(),
            regions: regions(&dir, gate),
            staging: None,
            line: None,
            hardware_reset: None,
            version_from: VersionReader::None,
            version_command: None,
            product: None,
            hardware: None,
            reset: ResetPolicy::Plugin,
            health: None,
            is_asked: false,
            inspect: None,
            trust: Arc::new(trust),
            allow_no_revert: false,
            paths: PathRule::default(),
            sync_bytes: SYNC,
            limits: Limits::default(),
        }
    }
}

fn settings(numbers: &[(&str, usize)]) -> Vec<Setting> {
    let setting = |(key, value): &(&str, usize)| Setting {
        key: (*key).to_owned(),
        value: value.to_string(),
    };
    numbers.iter().map(setting).collect()
}

/// The files that `otad target init` has laid down.
fn regions(dir: &Path, gate: Option<&Arc<Gate>>) -> Vec<RegionConfig> {
    let rows = [
        ("slot-a", RegionKind::Slot, SLOT),
        ("slot-b", RegionKind::Slot, SLOT),
        ("record", RegionKind::Record, 8192),
        ("tries", RegionKind::Record, 8192),
    ];
    let region = |(name, kind, size): (&str, RegionKind, u64)| {
        let read_only = name == "tries";
        if read_only {
            // The launcher's, which nobody has started yet.
            fs::write(dir.join(name), []).unwrap();
        }
        let file = FileStorage::open(&dir.join(name), size, read_only).unwrap();
        let storage: Arc<dyn Storage> = match gate {
            Some(gate) if name == "slot-b" => Arc::new(Held {
                inner: file,
                gate: Arc::clone(gate),
            }),
            _ => Arc::new(file),
        };
        RegionConfig {
            name: name.to_owned(),
            kind,
            erase_size: 1,
            write_size: 1,
            read_only,
            storage,
        }
    };
    rows.map(region).into()
}

/// Blocks that a device has got from the network and its target has not acknowledged.
fn held(cloud: &Cloud, device: &Device) -> u64 {
    let counters = cloud.block_on(device.handle.status()).counters;
    assert_eq!(counters.dropped, 0, "{counters:?}");
    counters.received - counters.processed
}

fn stats(cloud: &Cloud, thing: &str) -> ThingStats {
    cloud.stats().things[&ThingName::new(thing).unwrap()]
}

#[test]
fn a_slow_target_holds_a_window_at_most_and_keeps_no_other_from_its_end() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &["slow", "quick"], |_| {});
    gateway.init(&image::program("1.0.0", "", BLOCK));
    let gate = Arc::new(Gate::default());
    let bench = cloud.block_on(async { Bench::new(gateway) });
    let (slow, quick) = cloud.block_on(async {
        let slow = bench.device(&cloud, "slow", Some(&gate));
        (slow, bench.device(&cloud, "quick", None))
    });
    let file = |seed| Update {
        // No firmware: it is verified and not started.
        file_type: Some(1),
        ..Update::of(random_bytes(seed, IMAGE))
    };
    let late = cloud.update("slow", file(1));
    // As much as it takes unsynced has been written, and more has come.
    let deadline = Deadline::after(PATIENCE);
    while gate.written_blocks() < SYNC / BLOCK as u64 || held(&cloud, &slow) == 0 {
        assert!(
            deadline.left().is_some(),
            "{} blocks",
            gate.written_blocks()
        );
        pass(std::time::Duration::from_millis(5));
    }
    let mut most = 0;
    for seed in 2..5 {
        let job = cloud.update("quick", file(seed));
        assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
        most = most.max(held(&cloud, &slow));
    }
    // It goes on, and all the while it has held no more than it may.
    let written = gate.written_blocks();
    let sent = stats(&cloud, "slow").service.blocks;
    assert!((1..=WINDOW).contains(&most), "{most} blocks are held");
    assert!(
        sent <= written + WINDOW,
        "{sent} were sent, {written} are written"
    );
    assert!(
        written <= 2 * SYNC / BLOCK as u64 + 1,
        "{written} were taken unsynced"
    );
    assert_eq!(cloud.now(&late).status, "IN_PROGRESS");
    gate.open();
    assert_eq!(cloud.wait_end(&late).status, "SUCCEEDED");
    assert!(read(&bench.slot("slow")) == random_bytes(1, IMAGE));
    for thing in ["slow", "quick"] {
        let traffic = stats(&cloud, thing).traffic;
        assert_eq!(traffic.connections, 1, "{thing}");
    }
    cloud.block_on(async {
        for device in [slow, quick] {
            device.handle.stop().await;
            device.connection.stop().await;
        }
    });
}
