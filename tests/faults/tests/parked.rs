//! What a parked device holds, to the byte: under its supervisor, with a mailbox, a target, its books and an event that
//! nobody has read, as `benches crowd` has them by the thousand.
//!
//! Everything runs on one thread, and what would take long at once.

#![expect(unsafe_code, reason = "an allocator is about raw memory")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use host_crypto::{TrustPolicy, TrustStore};
use host_runtime::agent::{AgentBuild, Command};
use host_runtime::device::{DeviceConfig, DevicePorts};
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::clock::Clock;
use host_runtime::ports::commands::{self, CommandEnd, Commands};
use host_runtime::ports::seed::Seed;
use host_runtime::ports::state_dir::StateDir;
use host_runtime::ports::storage::Storage;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::{Reply, Work, Workers};
use host_runtime::status::AgentLife;
use host_runtime::supervisor::{DeviceHandle, prepare};
use host_runtime::target::{
    Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, SYNC_BYTES, TargetConfig,
    VersionReader,
};
use host_runtime::types::{Outcome, Qos, Setting, Token};
use host_sandbox::{native_agent, native_pal};

/// Most bytes of the heap that a parked device holds, with what the allocator adds to each piece: what is promised of resident
/// memory in a crowd of 100,000. Measured are 3.9 KB, some bytes more or less for timers that are set or not.
const PARKED_BYTES_MAX: i64 = 4096;

/// Devices that are counted.
const DEVICES: usize = 64;

/// Devices before them, which bring what all have in common.
const FIRST: usize = 4;

/// Turns of all tasks within which a device has come to rest.
const TURNS_MAX: usize = 10_000;

static HELD: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, which counts.
struct Counting;

/// What glibc takes for so many bytes: its own word before them, in steps of 16, and never less than 32.
fn taken(bytes: usize) -> i64 {
    let piece = (bytes + 8).next_multiple_of(16).max(32);
    i64::try_from(piece).unwrap_or(i64::MAX)
}

// SAFETY: all of it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's word is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(taken(size) - taken(layout.size()), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_parked_device_holds_no_more_than_it_may_also_after_it_was_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let gateway = Gateway::default();
        let first = gateway.devices(0, FIRST).await;
        let before = HELD.load(Ordering::Relaxed);
        let devices = gateway.devices(FIRST, DEVICES).await;
        let each = |now: i64| (now - before) / i64::try_from(DEVICES).unwrap();
        let parked = each(HELD.load(Ordering::Relaxed));
        support::note(&format!("a parked device holds {parked} bytes"));
        assert!(parked <= PARKED_BYTES_MAX, "{parked} bytes each");
        for device in &devices {
            device.command(Command::CheckForUpdate).await.unwrap();
        }
        at_rest(&devices).await;
        let again = each(HELD.load(Ordering::Relaxed));
        assert!(again <= PARKED_BYTES_MAX, "{again} bytes each once woken");
        drop(first);
    });
}

/// Until all are parked.
async fn at_rest(devices: &[DeviceHandle]) {
    for device in devices {
        for turn in 0.. {
            let status = device.status().await;
            if status.agent.life == AgentLife::Parked {
                break;
            }
            assert!(turn < TURNS_MAX, "{status:?}");
            tokio::task::yield_now().await;
        }
    }
}

/// What the devices have in common.
struct Gateway {
    agent: Arc<AgentBuild>,
    plugin: Arc<dyn PluginFactory>,
    trust: Arc<TrustPolicy>,
    storage: Arc<dyn Storage>,
    ports: DevicePorts,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            agent: native_agent(),
            plugin: native_pal(None),
            trust: Arc::new(TrustPolicy::new(TrustStore::default())),
            storage: Arc::new(Blank),
            ports: DevicePorts {
                state: Arc::new(Nothing),
                workers: Arc::new(AtOnce),
                commands: Arc::new(Nothing),
                clock: Arc::new(Ticking::default()),
                seed: Arc::new(Nothing),
            },
        }
    }
}

impl Gateway {
    async fn devices(&self, from: usize, count: usize) -> Vec<DeviceHandle> {
        let devices: Vec<_> = (from..from + count).map(|n| self.device(n)).collect();
        at_rest(&devices).await;
        devices
    }
    fn device(&self, number: usize) -> DeviceHandle {
        let name = format!("pump-{number}");
        let config = DeviceConfig {
            agent: Arc::clone(&self.agent),
            former_agent: None,
            settings: vec![
                setting("block_size", "4096"),
                setting("blocks_per_request", "31"),
                setting("reply_subscriptions", "never"),
            ],
            targets: vec![self.target()],
            topics: vec![format!("$aws/things/{name}/")],
            name,
        };
        let mut pending = prepare(config, self.ports.clone()).unwrap();
        pending.park_after(Duration::ZERO);
        let mailbox = pending.mailbox();
        let device = pending.start(Box::new(NoJob(mailbox.clone()))).unwrap();
        mailbox.send(Input::Connected {
            session_present: false,
        });
        device
    }

    fn target(&self) -> TargetConfig {
        let regions = [
            ("slot-a", RegionKind::Slot),
            ("slot-b", RegionKind::Slot),
            ("record", RegionKind::Record),
            ("tries", RegionKind::Record),
        ];
        let region = |(name, kind): (&str, RegionKind)| RegionConfig {
            name: name.to_owned(),
            kind,
            erase_size: 1,
            write_size: 1,
            read_only: name == "tries",
            storage: Arc::clone(&self.storage),
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
            trust: Arc::clone(&self.trust),
            allow_no_revert: false,
            paths: PathRule::default(),
            sync_bytes: SYNC_BYTES,
            limits: Limits::default(),
        }
    }
}

fn setting(key: &str, value: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Does work where it is told of it.
struct AtOnce;

impl Workers for AtOnce {
    fn run(&self, work: Work) {
        work();
    }
}

/// A clock that moves on whenever somebody looks.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
    fn wall_s(&self) -> Option<u64> {
        Some(1_900_000_000)
    }
}

/// Keeps nothing and does nothing.
struct Nothing;

impl StateDir for Nothing {
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

impl Commands for Nothing {
    fn run(&self, _: &commands::Command, _: &[(String, String)], reply: Reply<CommandEnd>) {
        reply(CommandEnd {
            code: Some(0),
            stdout: Vec::new(),
            detail: String::new(),
        });
    }
}

impl Seed for Nothing {
    fn seed(&self) -> u64 {
        7
    }
}

/// Storage on which nothing was ever written.
struct Blank;

impl Storage for Blank {
    fn capacity(&self) -> u64 {
        1 << 20
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
        if let Some(no_job) = no_job(&payload).filter(|_| topic.ends_with("/jobs/$next/get")) {
            self.0.send(Input::Message {
                topic: format!("{topic}/accepted"),
                payload: Bytes::from(no_job),
                qos: Qos::AtLeastOnce,
            });
        }
    }
    fn http_get(&mut self, token: Token, _: &str, _: u64, _: u32) {
        self.done(token);
    }
    fn cancel(&mut self, _: Token) {}
}

/// The answer to a request for a job where there is none, with the request's token.
fn no_job(request: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(request).ok()?;
    let (_, token) = text.split_once("\"clientToken\":\"")?;
    let (token, _) = token.split_once('"')?;
    Some(format!(
        r#"{{"timestamp":1900000000,"execution":{{}},"clientToken":"{token}"}}"#
    ))
}
