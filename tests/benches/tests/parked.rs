//! What a parked device holds, in bytes: under its supervisor, with a mailbox, a target, its books and an event that nobody
//! has read. `benches crowd` has thousands of the same, and measures.
//!
//! Everything runs on one thread, and what would take long at once.

#![expect(unsafe_code, reason = "an allocator is about raw memory")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use benches::row::devices::Gateway;
use host_crypto::TrustPolicy;
use host_runtime::agent::Command;
use host_runtime::ports::clock::Clock;
use host_runtime::ports::storage::Storage;
use host_runtime::ports::workers::{Work, Workers};
use host_runtime::status::AgentLife;
use host_runtime::supervisor::DeviceHandle;
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
        let site = Site::new();
        let first = site.devices(0, FIRST).await;
        let before = HELD.load(Ordering::Relaxed);
        let devices = site.devices(FIRST, DEVICES).await;
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

/// A gateway on one thread, and what its devices have in common here: a medium and a trust policy are the operator's.
struct Site {
    gateway: Gateway,
    trust: Arc<TrustPolicy>,
    storage: Arc<dyn Storage>,
}

impl Site {
    fn new() -> Self {
        let mut gateway = Gateway::new(&native_agent(), &native_pal(None)).unwrap();
        gateway.ports.workers = Arc::new(AtOnce);
        gateway.ports.clock = Arc::new(Ticking::default());
        let target = gateway.target();
        Self {
            trust: Arc::clone(&target.trust),
            storage: Arc::clone(&target.regions[0].storage),
            gateway,
        }
    }

    async fn devices(&self, from: usize, count: usize) -> Vec<DeviceHandle> {
        let device = |number| {
            let mut target = self.gateway.target();
            target.trust = Arc::clone(&self.trust);
            for region in &mut target.regions {
                region.storage = Arc::clone(&self.storage);
            }
            let device = self.gateway.device(number, target, Some(Duration::ZERO));
            device.unwrap()
        };
        let devices: Vec<_> = (from..from + count).map(device).collect();
        at_rest(&devices).await;
        devices
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
