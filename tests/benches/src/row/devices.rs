//! What a whole device costs that has nothing to do: under its supervisor, with a mailbox, a target and its books, its agent
//! awake or parked.
//!
//! Its state directory keeps nothing and its storage is blank, for what lies on a medium is no memory; its transport answers
//! that there is no job. Not here: connections, whose price is the TLS library's.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use host_crypto::{TrustPolicy, TrustStore};
use host_runtime::agent::{AgentBuild, Command as Order};
use host_runtime::device::{DeviceConfig, DevicePorts};
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::plugin::{ComponentPlugin, PluginFactory};
use host_runtime::ports::clock::SystemClock;
use host_runtime::ports::commands::TokioCommands;
use host_runtime::ports::seed::SystemSeed;
use host_runtime::ports::state_dir::StateDir;
use host_runtime::ports::storage::Storage;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::BlockingPool;
use host_runtime::status::AgentLife;
use host_runtime::supervisor::{DeviceHandle, prepare};
use host_runtime::target::{
    Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, SYNC_BYTES, TargetConfig,
    VersionReader,
};
use host_runtime::types::{Outcome, Qos, Setting, Token};
use support::deadline::now;
use support::process::Process;
use support::usage::Usage;

use super::idle::{WAITING_FOR_JOB, no_job};
use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};

/// The row.
pub const ROW: Row = Row {
    name: "devices",
    about: "a device without a job under its supervisor, parked, to the same awake: memory, and the answer to an order",
    sample,
};

/// Devices of one sample that are awake: a tenth of what is promised.
const AWAKE: usize = 1000;

/// Devices of one sample that are parked: a tenth of what is promised, too. With fewer, each one's share of what a process has
/// but once would be larger than what it may take.
const PARKED: usize = 10_000;

/// Devices that are started before the next ones are: the memory of those that are awake for a moment is used again.
const AT_ONCE: usize = 50;

/// Orders that are timed.
const ORDERS: usize = 200;

/// How long an agent that is to be parked is left awake.
const QUIET: Duration = Duration::from_millis(2);

/// Longest wait for a crowd, of ten thousand devices and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

const SLOT_BYTES: u64 = 1 << 20;

const RECORD_BYTES: u64 = 8 << 10;

/// Devices that are held in a process of their own.
#[derive(Args, Clone, Debug)]
pub struct Crowd {
    /// How many.
    #[arg(long)]
    pub count: usize,
    /// Their agents are parked.
    #[arg(long)]
    pub parked: bool,
    /// Where compiled components are taken from, and kept. A process that has compiled them itself has memory left from that,
    /// which devices then use.
    #[arg(long)]
    pub cache: Option<PathBuf>,
}

/// What devices of one gateway have in common.
pub struct Gateway {
    /// Their agent.
    pub agent: Arc<AgentBuild>,
    /// The plugin of each one's target.
    pub plugin: Arc<dyn PluginFactory>,
    /// What they work with.
    pub ports: DevicePorts,
}

impl Gateway {
    /// To be made where its devices are to run.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(agent: &Arc<AgentBuild>, plugin: &Arc<dyn PluginFactory>) -> Result<Self, Untaken> {
        let seed = SystemSeed::new().map_err(|error| Untaken::by("a seed", &error))?;
        Ok(Self {
            agent: Arc::clone(agent),
            plugin: Arc::clone(plugin),
            ports: DevicePorts {
                state: Arc::new(Forgetful),
                workers: Arc::new(BlockingPool::current()),
                commands: Arc::new(TokioCommands::current()),
                clock: Arc::new(SystemClock::new()),
                seed: Arc::new(seed),
            },
        })
    }

    /// One device of it. Its agent is parked once it was left awake for so long without a job; none = never.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn device(
        &self,
        number: usize,
        target: TargetConfig,
        park_after: Option<Duration>,
    ) -> Result<DeviceHandle, Untaken> {
        let failed = |error: &dyn std::error::Error| Untaken::by("a device", error);
        let name = format!("pump-{number}");
        let config = DeviceConfig {
            agent: Arc::clone(&self.agent),
            former_agent: None,
            settings: vec![
                setting("block_size", "4096"),
                setting("blocks_per_request", "31"),
                setting("reply_subscriptions", "never"),
            ],
            targets: vec![target],
            topics: vec![format!("$aws/things/{name}/")],
            name,
        };
        let mut pending = prepare(config, self.ports.clone()).map_err(|error| failed(&error))?;
        if let Some(after) = park_after {
            pending.park_after(after);
        }
        let mailbox = pending.mailbox();
        let handle = pending.start(Box::new(NoJob(mailbox.clone())));
        let handle = handle.map_err(|error| failed(&error))?;
        mailbox.send(Input::Connected {
            session_present: false,
        });
        Ok(handle)
    }

    /// A target as `plugin = "flash-file"` makes it, whose storage is blank.
    #[must_use]
    pub fn target(&self) -> TargetConfig {
        let regions = [
            ("slot-a", RegionKind::Slot, SLOT_BYTES),
            ("slot-b", RegionKind::Slot, SLOT_BYTES),
            ("record", RegionKind::Record, RECORD_BYTES),
            ("tries", RegionKind::Record, RECORD_BYTES),
        ];
        let region = |(name, kind, bytes): (&str, RegionKind, u64)| RegionConfig {
            name: name.to_owned(),
            kind,
            erase_size: 1,
            write_size: 1,
            read_only: name == "tries",
            storage: Arc::new(Blank(bytes)),
        };
        TargetConfig {
            name: "main".to_owned(),
            file_id: 0,
            plugin: Arc::clone(&self.plugin),
            former_plugin: None,
            plugin_settings: Vec::new(),
            agent_settings: vec![setting("firmware", "true")],
            regions: regions.map(region).into(),
            staging: None,
            line: None,
            hardware_reset: None,
            version_from: VersionReader::Trailer,
            version_command: None,
            product: Some("pump".to_owned()),
            hardware: None,
            reset: ResetPolicy::Process,
            health: None,
            is_asked: false,
            inspect: None,
            trust: Arc::new(TrustPolicy::new(TrustStore::default())),
            allow_no_revert: false,
            paths: PathRule::default(),
            sync_bytes: SYNC_BYTES,
            limits: Limits::default(),
        }
    }
}

/// What a crowd costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Memory of a device.
    bytes: f64,
    /// From an order to its answer.
    order_us: f64,
}

const COST: &str = "bytes and microseconds each: ";

fn sample(rig: &Rig, turn: Turn) -> Sample {
    let dir = support::temp_dir("compiled");
    let dir = dir.map_err(|error| Untaken::by("a directory", &error))?;
    let crowd = |count, parked| {
        let cache = Some(dir.path().join("code"));
        Crowd {
            count,
            parked,
            cache,
        }
        .elsewhere(rig)
    };
    // Compiles.
    crowd(1, true)?;
    let (parked, awake) = turn.both(|| crowd(PARKED, true), || crowd(AWAKE, false))?;
    Ok(vec![
        Figure::cost(
            format!("memory of each of {PARKED} parked devices"),
            "bytes",
        )
        .held(Of::Subject, 4096.0, 2048.0)
        .taken(parked.bytes, awake.bytes),
        Figure::cost("an order, waking included, to its answer", "µs")
            .held(Of::Subject, 200.0, 50.0)
            .taken(parked.order_us, awake.order_us),
    ])
}

impl Crowd {
    /// Holds them, and prints what each costs.
    ///
    /// # Errors
    /// They do not run.
    pub fn hold(&self) -> Result<(), Untaken> {
        let engine = Engine::new(&EngineOptions {
            cache_dir: self.cache.clone(),
            ..EngineOptions::default()
        });
        let engine = engine.map_err(|error| Untaken::by("the engine", &error))?;
        let bytes = |name: &str| {
            let guest = guest_artifacts::guest(name);
            guest.ok_or_else(|| Untaken::because(format!("this build ships no {name}")))
        };
        let agent = AgentBuild::load(&engine, "built-in", bytes("agent")?.bytes);
        let agent = agent.map_err(|error| Untaken::by("the shipped agent", &error))?;
        let pal = bytes("pal-flash-file")?.bytes;
        let plugin = ComponentPlugin::load(&engine, "builtin:flash-file", pal);
        let plugin = plugin.map_err(|error| Untaken::by("the shipped plugin", &error))?;
        let cost = self.cost(&agent, &(plugin as Arc<dyn PluginFactory>))?;
        let Cost { bytes, order_us } = cost;
        crate::receiver::say(&format!("{COST}{bytes} {order_us}"))
    }

    fn elsewhere(&self, rig: &Rig) -> Result<Cost, Untaken> {
        let mut command = Command::new(&rig.program);
        command.args(["crowd", "--count", &self.count.to_string()]);
        if self.parked {
            command.arg("--parked");
        }
        if let Some(cache) = &self.cache {
            command.arg("--cache").arg(cache);
        }
        let failed = |error: &support::Error| Untaken::by("holding devices", error);
        let mut process = Process::start("devices", command).map_err(|e| failed(&e))?;
        let line = process.wait_line(COST, PATIENCE).map_err(|e| failed(&e))?;
        let mut numbers = line
            .strip_prefix(COST)
            .into_iter()
            .flat_map(|text| text.split(' '))
            .map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(bytes), Some(order_us)) => Ok(Cost { bytes, order_us }),
            _ => Err(Untaken::because(format!("no figures of devices: {line}"))),
        }
    }

    fn cost(
        &self,
        agent: &Arc<AgentBuild>,
        plugin: &Arc<dyn PluginFactory>,
    ) -> Result<Cost, Untaken> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| Untaken::by("the runtime", &error))?;
        runtime.block_on(async {
            let gateway = Gateway::new(agent, plugin)?;
            // What the first ones bring is not the others'.
            let mut devices = self.more(AT_ONCE, 0, &gateway).await?;
            let before = rss_bytes()?;
            while devices.len() < AT_ONCE + self.count {
                let left = AT_ONCE + self.count - devices.len();
                let more = self.more(left.min(AT_ONCE), devices.len(), &gateway);
                devices.extend(more.await?);
            }
            let bytes = rss_bytes()?.saturating_sub(before) as f64 / self.count as f64;
            let orders = devices.len().min(ORDERS);
            let begun = now();
            for device in &devices[..orders] {
                let taken = device.command(Order::CheckForUpdate).await;
                taken.map_err(|failure| Untaken::by("an order", &failure))?;
            }
            let order_us = now().duration_since(begun).as_secs_f64() * 1e6 / orders as f64;
            Ok(Cost { bytes, order_us })
        })
    }

    /// So many more devices, once they are as they are to be.
    async fn more(
        &self,
        count: usize,
        from: usize,
        gateway: &Gateway,
    ) -> Result<Vec<DeviceHandle>, Untaken> {
        let park_after = self.parked.then_some(QUIET);
        let made =
            (from..from + count).map(|number| gateway.device(number, gateway.target(), park_after));
        let devices: Vec<DeviceHandle> = made.collect::<Result<_, _>>()?;
        let wanted = match self.parked {
            true => AgentLife::Parked,
            false => AgentLife::Running,
        };
        let begun = now();
        for device in &devices {
            loop {
                let status = device.status().await;
                if status.agent.life == wanted && status.state == WAITING_FOR_JOB {
                    break;
                }
                if now().duration_since(begun) > PATIENCE {
                    let text = format!("a device did not come to rest: {status:?}");
                    return Err(Untaken::because(text));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(devices)
    }
}

fn rss_bytes() -> Result<u64, Untaken> {
    let usage = Usage::of(std::process::id());
    let usage = usage.map_err(|error| Untaken::by("own memory", &error))?;
    Ok(usage.rss_kib * 1024)
}

fn setting(key: &str, value: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Storage on which nothing was ever written.
struct Blank(u64);

impl Storage for Blank {
    fn capacity(&self) -> u64 {
        self.0
    }
    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0xff);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn erase(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn evict(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A state directory that takes everything and keeps nothing.
struct Forgetful;

impl StateDir for Forgetful {
    fn load(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn store(&self, _: &str, _: &[u8]) -> io::Result<()> {
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

/// A transport on which everything goes well at once, to a service that has no job.
struct NoJob(Mailbox);

impl NoJob {
    fn done(&self, token: Token) {
        let outcome = Outcome::Nothing;
        self.0.send(Input::Done { token, outcome });
    }
}

impl Transport for NoJob {
    fn subscribe(&mut self, token: Token, _: &str, _: Qos) {
        self.done(token);
    }
    fn unsubscribe(&mut self, token: Token, _: &str) {
        self.done(token);
    }
    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, _: Qos) {
        self.done(token);
        if let Some((topic, payload)) = no_job(topic, &payload) {
            self.0.send(Input::Message {
                topic,
                payload: Bytes::from(payload),
                qos: Qos::AtLeastOnce,
            });
        }
    }
    fn http_get(&mut self, token: Token, _: &str, _: u64, _: u32) {
        self.done(token);
    }
    fn cancel(&mut self, _: Token) {}
}

#[cfg(test)]
mod tests {
    use host_sandbox::{native_agent, native_pal};

    use super::*;

    #[test]
    fn devices_come_to_rest_awake_and_parked_and_take_an_order() {
        for parked in [false, true] {
            let crowd = Crowd {
                count: 3,
                parked,
                cache: None,
            };
            let cost = crowd.cost(&native_agent(), &native_pal(None)).unwrap();
            assert!(cost.order_us > 0.0, "{cost:?}");
        }
    }
}
