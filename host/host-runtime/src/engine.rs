//! The one wasmtime engine of the process: how guests are compiled, stored, called and stopped.
//!
//! Small functions of a guest are put into their callers before it is compiled (`unfold`): what ships is small because
//! much of it is called that could be copied, and a block or a snapshot costs the shipped agent a fraction of the time so.
//!
//! Every guest call goes through [`Engine::call`], which gives it fuel (the limit that decides, the same on every
//! machine), a wall-clock deadline (the net under it) and a number of host calls, and turns whatever ends it into a
//! [`GuestFault`]. After a fault the instance is poisoned: the caller drops the store and starts another one.
//! Everything is synchronous. Not here: what a guest means (`agent/`, `plugin/`), strikes, restarts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::{Component, Linker};
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter, Store,
    Trap, UpdateDeadline,
};

use crate::agent::text::{FAULT_MAX_BYTES, WORDS_MAX_BYTES, clean};
use crate::types::Level;

pub use self::check::{
    AGENT_WORLD, COMPONENT_MAX_BYTES, PLUGIN_WORLD, Refusal, Shape, World, world_of,
};
pub use self::time::{Time, haste_faults};
pub use self::usage::{Usage, Use};

mod cache;
mod check;
mod ticker;
mod time;
mod unfold;
mod usage;

use cache::Cache;
pub use cache::cache_refusal;
use ticker::Ticker;
use time::HASTY_TICKS;

/// Stack of a guest call in bytes. The shipped guests have a shadow stack of 64 KiB; four times that leaves room for a
/// deep parser of somebody else's and is small beside the 2 MiB of a worker thread that calls it.
const STACK_MAX_BYTES: usize = 256 * 1024;

/// How the engine is made.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where compiled code is kept between starts; `None` compiles every time. Made with mode 0700 if it does not
    /// exist; a directory that somebody else owns or may write to is refused.
    pub cache_dir: Option<PathBuf>,
    /// What is not in there is refused: somebody else compiles, within limits.
    pub only_cached: bool,
    /// What time guests live in.
    pub time: Time,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not run on this machine, or not with these settings.
    #[error("the component engine cannot run here: {0}")]
    Unsupported(String),
    /// The epoch thread could not be started.
    #[error("the epoch thread cannot be started")]
    Ticker(#[source] std::io::Error),
    /// The cache directory cannot be used.
    #[error(
        "compiled-code cache {}: {reason}; give otad a directory of its own (mode 0700) or none",
        path.display()
    )]
    Cache {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What one guest instance may use. All limits are per instance; fuel, time and host calls per call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Instructions a call may run, by wasmtime's count.
    pub fuel: u64,
    /// Epoch ticks of [`Budget::TICK_MS`] a call may take: a net under the fuel for a machine that stalls. Time that
    /// the host spends on storage for the guest comes on top ([`Meter::excuse_since`]).
    pub ticks: u64,
    /// Linear memory of all modules of the component together, in bytes.
    pub memory_bytes: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Core instances (a component made by wit-component has three: main, shim, fixup).
    pub instances: usize,
    /// Tables.
    pub tables: usize,
    /// Linear memories.
    pub memories: usize,
    /// Resource handles alive at once.
    pub handles: usize,
    /// Bytes that one host call may hand to the host.
    pub hostcall_bytes: usize,
    /// Host calls in one guest call.
    pub host_calls: u32,
}

impl Budget {
    /// One epoch tick in milliseconds: fine enough to stop a guest before an operator notices, and 100 wake-ups a
    /// second, only while a guest runs.
    pub const TICK_MS: u64 = 10;

    /// An agent. A message costs some thousand units, a job document or a snapshot a few million. The costliest document
    /// of 128 KiB, which is read some ten times, was measured at 181 million (tests/e2e, `hostile.rs`); twice that is
    /// well below a second here and a few on a small gateway. Memory: 16 files with a bitmap of 2^20 blocks
    /// each are 2 MiB. Host call (and result): a snapshot of 256 KiB, and what is round it. Handles: one image a file,
    /// four times.
    pub const AGENT: Self = Self {
        fuel: 400_000_000,
        ticks: 500,
        memory_bytes: 4 * 1024 * 1024,
        table_elements: 4096,
        instances: 8,
        tables: 4,
        memories: 2,
        handles: 64,
        hostcall_bytes: 320 * 1024,
        host_calls: 4096,
    };

    /// A plugin: as an agent, with more host calls, as a step may read and write many small records.
    pub const PLUGIN: Self = Self {
        host_calls: 16_384,
        ..Self::AGENT
    };
}

/// A call that takes more than this part of its fuel is worth a line to whoever builds the guest, and holds its thread up for
/// some hundredths of a second.
pub(crate) const COSTLY: u64 = 16;

/// How a guest call ended badly. The instance cannot be called again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// It ran too long by the count of instructions.
    #[error("the call did not end within {fuel} units of fuel")]
    OutOfFuel {
        /// The budget.
        fuel: u64,
    },
    /// It ran too long by the clock.
    #[error("the call did not end within {ms} ms")]
    TooSlow {
        /// The budget.
        ms: u64,
    },
    /// It trapped after its memory or a table was refused to grow.
    #[error("the guest wanted {asked} {what} and may have {max}")]
    TooMuch {
        /// What it wanted: `bytes of memory` or `table elements`.
        what: &'static str,
        /// How much in all.
        asked: usize,
        /// The budget.
        max: usize,
    },
    /// It called the host more often than it may in one call.
    #[error("the guest called the host more than {max} times in one call")]
    TooManyHostCalls {
        /// The budget.
        max: u32,
    },
    /// Anything else: a panic, a wrong address, a value that is not allowed, too much data for a host call. What the guest
    /// logged last as an error in the call goes with it: a trap has addresses only, a panic's place is in its message.
    #[error("the guest trapped: {0}")]
    Trapped(String),
}

/// Stops a guest that calls the host without end.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} host calls in one call")]
struct HostCallLimit(u32);

/// Counts what one instance uses, and refuses what is over its budget. Lives in the store's data.
#[derive(Debug)]
pub struct Meter {
    budget: Budget,
    usage: Usage,
    memory_bytes: usize,
    table_elements: usize,
    refused: Option<GuestFault>,
    /// The last error that was logged in the call.
    words: Option<Box<str>>,
    host_calls: u32,
    /// Ticks that were the host's, and were not added to the deadline yet.
    excused: u64,
    /// Ticks that the call has seen, in [`Time::Hasty`].
    seen: u32,
    /// Ticks that have passed in the engine.
    epochs: Arc<AtomicU64>,
}

impl Meter {
    /// A meter for one instance.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            usage: Usage::within(&budget),
            budget,
            memory_bytes: 0,
            table_elements: 0,
            refused: None,
            words: None,
            host_calls: 0,
            excused: 0,
            seen: 0,
            epochs: Arc::default(),
        }
    }

    /// The budget it holds the instance to.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Linear memory that the instance has, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// What the instance has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = self.usage;
        for (of, now) in [
            (&mut usage.memory_bytes, self.memory_bytes),
            (&mut usage.table_elements, self.table_elements),
        ] {
            // Neither ever shrinks.
            (of.all, of.most) = (now as u64, now as u64);
        }
        usage
    }

    /// Ticks so far, to be given back to [`excuse_since`](Self::excuse_since).
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.epochs.load(Ordering::SeqCst)
    }

    /// Since then the host was busy with something that the guest asked for, such as an fsync of a slow card: it is not
    /// the guest's time. How often the guest may ask is for whoever lends it to limit.
    pub fn excuse_since(&mut self, began: u64) {
        let ticks = self.ticks().saturating_sub(began);
        self.excused = self.excused.saturating_add(ticks);
    }

    /// So many bytes came or went in a host call.
    pub fn carry(&mut self, bytes: usize) {
        self.usage.host_call_bytes.add(bytes as u64);
    }

    /// The guest logs this; the last error is told if it traps in the same call.
    pub fn hear(&mut self, level: Level, text: &str) {
        if level == Level::Error {
            self.words = Some(clean(text, WORDS_MAX_BYTES).into());
        }
    }

    /// Count a host call; the first line of every import.
    ///
    /// # Errors
    /// The guest has called too often in this call: trap with it.
    pub fn host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.budget.host_calls {
            return Err(HostCallLimit(self.budget.host_calls).into());
        }
        Ok(())
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_sub(current) + desired;
        if total > self.budget.memory_bytes {
            self.refused = Some(GuestFault::TooMuch {
                what: "bytes of memory",
                asked: total,
                max: self.budget.memory_bytes,
            });
            return Ok(false);
        }
        // What exceeds the memory's own maximum is not going to be granted.
        if maximum.is_none_or(|max| desired <= max) {
            self.memory_bytes = total;
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_sub(current) + desired;
        if total > self.budget.table_elements {
            self.refused = Some(GuestFault::TooMuch {
                what: "table elements",
                asked: total,
                max: self.budget.table_elements,
            });
            return Ok(false);
        }
        if maximum.is_none_or(|max| desired <= max) {
            self.table_elements = total;
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.budget.instances
    }

    fn tables(&self) -> usize {
        self.budget.tables
    }

    fn memories(&self) -> usize {
        self.budget.memories
    }
}

/// Data of a store whose instance is metered.
pub trait Metered: 'static {
    /// Its meter.
    fn meter(&mut self) -> &mut Meter;
}

/// A checked and compiled component.
#[derive(Clone)]
pub struct Loaded {
    /// The code.
    pub component: Component,
    /// SHA-256 of the component's bytes.
    pub digest: [u8; 32],
    /// What it imports and exports.
    pub shape: Shape,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// The engine. One a process, shared by all devices.
pub struct Engine {
    inner: wasmtime::Engine,
    time: Time,
    /// Where there are ticks.
    ticker: Option<Ticker>,
    cache: Option<Cache>,
    only_cached: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with the settings that every guest runs under.
    ///
    /// # Errors
    /// The machine is not supported, or the cache directory is not ours alone.
    pub fn new(options: &EngineOptions) -> Result<Arc<Self>, EngineError> {
        let inner = inner(options.time).map_err(|e| EngineError::Unsupported(format!("{e:#}")))?;
        let cache = match &options.cache_dir {
            Some(path) => Some(Cache::open(path, &inner)?),
            None => None,
        };
        let ticker = match options.time.has_ticks() {
            true => Some(Ticker::start(&inner).map_err(EngineError::Ticker)?),
            false => None,
        };
        Ok(Arc::new(Self {
            inner,
            time: options.time,
            ticker,
            cache,
            only_cached: options.only_cached,
        }))
    }

    /// Check `bytes` against `world` and compile them, or take the compiled code from the cache.
    ///
    /// `lent` names the interfaces of the world that this host lends to this component; an import of another one is
    /// refused as not granted. `types` interfaces need no grant.
    ///
    /// # Errors
    /// [`Refusal`] says what is wrong with the component; everything but `Compile` is said before it is compiled.
    pub fn load(&self, bytes: &[u8], world: &World, lent: &[&str]) -> Result<Loaded, Refusal> {
        let shape = check::check(bytes, world, lent)?;
        let digest = check::digest(bytes);
        let cached = self
            .cache
            .as_ref()
            .and_then(|c| c.load(&self.inner, &digest));
        let component = match cached {
            Some(component) => component,
            None if self.only_cached => return Err(Refusal::NotCompiled),
            None => {
                check::validate(bytes)?;
                // A slow machine takes a while over it, and the operator looks at a silent console meanwhile.
                let kept = match &self.cache {
                    Some(_) => "the code is kept for the next start",
                    None => "no cache directory, so at each start",
                };
                tracing::info!("compiling a component of world {}: {kept}", world.name);
                let component = self.compile(bytes).map_err(Refusal::Compile)?;
                if let Some(cache) = &self.cache {
                    cache.store(&digest, &component);
                }
                component
            }
        };
        Ok(Loaded {
            component,
            digest,
            shape,
        })
    }

    fn compile(&self, bytes: &[u8]) -> Result<Component, String> {
        let measure = match self.time {
            Time::Real | Time::Virtual => unfold::Measure::SMALL,
            Time::Hasty => unfold::Measure::LARGE,
        };
        let unfolded = unfold::unfold(bytes, measure).map_err(|e| e.to_string())?;
        Component::from_binary(&self.inner, &unfolded).map_err(|e| format!("{e:#}"))
    }

    /// What time its guests live in.
    #[must_use]
    pub fn time(&self) -> Time {
        self.time
    }

    /// An empty linker: what it is not given, no guest has.
    #[must_use]
    pub fn linker<T: 'static>(&self) -> Linker<T> {
        Linker::new(&self.inner)
    }

    /// A store whose instance is held to the budget of its meter.
    pub fn store<T: Metered>(&self, mut data: T) -> Store<T> {
        let meter = data.meter();
        if let Some(ticker) = &self.ticker {
            meter.epochs = ticker.epochs();
        }
        let budget = meter.budget.clone();
        let mut store = Store::new(&self.inner, data);
        store.limiter(|data| data.meter());
        match self.time {
            Time::Real => store.epoch_deadline_callback(|mut store| {
                let meter = store.data_mut().meter();
                Ok(match std::mem::take(&mut meter.excused) {
                    0 => UpdateDeadline::Interrupt,
                    ticks => UpdateDeadline::Continue(ticks),
                })
            }),
            Time::Virtual => {}
            Time::Hasty => store.epoch_deadline_callback(|mut store| {
                let meter = store.data_mut().meter();
                meter.seen += 1;
                Ok(match meter.seen {
                    HASTY_TICKS.. => UpdateDeadline::Interrupt,
                    _ => UpdateDeadline::Continue(1),
                })
            }),
        }
        store.set_hostcall_fuel(budget.hostcall_bytes);
        store.set_max_component_handles(budget.handles);
        store
    }

    /// Run one guest call (instantiation is one too) under the store's budget.
    ///
    /// # Errors
    /// The call did not return. Drop the store: its instance cannot be entered again.
    pub fn call<T: Metered, R>(
        &self,
        store: &mut Store<T>,
        call: impl FnOnce(&mut Store<T>) -> wasmtime::Result<R>,
    ) -> Result<R, GuestFault> {
        let meter = store.data_mut().meter();
        meter.host_calls = 0;
        meter.refused = None;
        meter.words = None;
        meter.excused = 0;
        meter.seen = 0;
        let fuel = meter.budget.fuel;
        let ticks = match self.time {
            Time::Real | Time::Virtual => meter.budget.ticks,
            Time::Hasty => 1,
        };
        if self.time.has_fuel() {
            store
                .set_fuel(fuel)
                .map_err(|e| GuestFault::Trapped(e.to_string()))?;
        }
        let running = self.ticker.as_ref().map(|ticker| {
            store.set_epoch_deadline(ticks);
            ticker.enter()
        });
        let result = call(store);
        drop(running);
        let spent = match self.time.has_fuel() {
            true => fuel.saturating_sub(store.get_fuel().unwrap_or(0)),
            false => 0,
        };
        let meter = store.data_mut().meter();
        meter.usage.fuel.add(spent);
        meter.usage.host_calls.add(meter.host_calls.into());
        if spent > fuel / COSTLY {
            tracing::debug!("a guest call took {spent} of its {fuel} units of fuel");
        }
        if result.is_err() && self.time == Time::Hasty {
            time::note_haste_fault();
        }
        result.map_err(|error| fault(&error, store.data_mut().meter()))
    }

    /// The engine below, for `InstancePre` and the like.
    #[must_use]
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }
}

/// What ended a call.
fn fault(error: &wasmtime::Error, meter: &mut Meter) -> GuestFault {
    if let Some(HostCallLimit(max)) = error.downcast_ref() {
        return GuestFault::TooManyHostCalls { max: *max };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => GuestFault::OutOfFuel {
            fuel: meter.budget.fuel,
        },
        Some(Trap::Interrupt) => GuestFault::TooSlow {
            ms: Budget::TICK_MS
                * match meter.seen {
                    0 => meter.budget.ticks,
                    seen => seen.into(),
                },
        },
        // A guest that got no memory panics next; the reason is worth more than the panic.
        trap => meter.refused.take().unwrap_or_else(|| {
            let words = meter.words.take();
            let words = words.map_or_else(String::new, |words| format!("; last words `{words}`"));
            // The cause first, and the way to it last: a reader may be shown the beginning only.
            let text = match trap {
                Some(trap) => format!("{trap}{words}; {error}"),
                None => format!("{error:#}{words}"),
            };
            // It names the guest's functions, and those are called what the guest likes.
            GuestFault::Trapped(clean(&text, FAULT_MAX_BYTES))
        }),
    }
}

/// wasmtime's engine.
fn inner(time: Time) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = config(time);
    if time.is_simulated() {
        config.allocation_strategy(pool());
        if let Ok(engine) = wasmtime::Engine::new(&config) {
            return Ok(engine);
        }
        // A process that may not have so many addresses, as one that compiles within limits: it is only slower without.
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    }
    wasmtime::Engine::new(&config)
}

/// Places for instances in virtual time, each of which is used by one after the other. A gateway of 16 targets has some 34 at
/// once when all its builds are swapped: these are for more than a hundred such gateways. A place is 4 GiB of addresses, of
/// 128 TiB that there are, and no memory until it is used.
const POOL_INSTANCES: u32 = 4096;

/// Modules and tables of a component, on average: one made by wit-component has a main one, a shim and a fixup.
const POOL_PARTS: u32 = 4;

/// Bytes of an emptied memory that are kept for the next instance: an agent touches some 200 KiB. To set them to zero takes a
/// third of the time that the kernel needs to hand out as many new ones; and where the kernel can say which pages were written
/// (Linux 6.7), only those are.
const POOL_KEEPS_BYTES: usize = 256 * 1024;

/// The pool. What an instance may have is for its [`Budget`] to say: each limit here is above that, or above what a component
/// of [`COMPONENT_MAX_BYTES`] can want.
fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_INSTANCES)
        .total_memories(POOL_INSTANCES)
        .total_core_instances(POOL_INSTANCES * POOL_PARTS)
        .total_tables(POOL_INSTANCES * POOL_PARTS)
        .max_component_instance_size(1 << 30)
        .max_core_instance_size(1 << 30)
        .max_tables_per_module(100)
        .linear_memory_keep_resident(POOL_KEEPS_BYTES)
        .table_keep_resident(POOL_KEEPS_BYTES)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

/// Deterministic, limited, and nothing that is not needed.
fn config(time: Time) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(time.has_fuel())
        .epoch_interruption(time.has_ticks())
        .max_wasm_stack(STACK_MAX_BYTES)
        // The same bits for the same inputs: a recorded run replays exactly.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // Not needed, and less surface for a stranger's code.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        // Makes every call slower, and nothing here is async.
        .concurrency_support(false)
        // The fuel of a guest is the same whether its functions are unfolded or not.
        .operator_cost(unfold::costs());
    config
}

#[cfg(test)]
mod tests;
