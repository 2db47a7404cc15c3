//! An agent whose time is taken: what is spent within it, and not in the calls that it makes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use host_runtime::agent::{
    AgentBuild, AgentInstance, ApplicationEvent, Around, Context, Event, Outside, StartInfo, Turn,
};
use host_runtime::engine::GuestFault;
use host_runtime::target::VerifiedRef;
use host_runtime::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Started, Token};
use support::deadline::now;

/// What the instances of a metered build have done.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Within events, calls of the outside included.
    whole_ns: AtomicU64,
    /// Within calls of the outside.
    outside_ns: AtomicU64,
    events: AtomicU64,
    blocks: AtomicU64,
}

impl Meter {
    /// Seconds within the agent.
    pub(super) fn seconds(&self) -> f64 {
        let within = self.whole_ns.load(Ordering::Relaxed);
        within.saturating_sub(self.outside_ns.load(Ordering::Relaxed)) as f64 / 1e9
    }

    /// Events that it has handled.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Blocks that it has written.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }
}

fn add_since(to: &AtomicU64, begun: Instant) {
    let spent = now().duration_since(begun).as_nanos();
    to.fetch_add(u64::try_from(spent).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The same build, with its time taken.
pub(super) fn metered(build: &Arc<AgentBuild>) -> (Arc<AgentBuild>, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    let (inner, kept) = (Arc::clone(build), Arc::clone(&meter));
    let description = build.description().clone();
    let metered = AgentBuild::native(build.label(), description, move |outside| {
        let meter = Arc::clone(&kept);
        let outside = Box::new(Without { outside, meter });
        Ok(Box::new(Within {
            inner: inner.instantiate(outside)?,
            meter: Arc::clone(&kept),
        }))
    });
    (metered, meter)
}

struct Within {
    inner: Box<dyn AgentInstance>,
    meter: Arc<Meter>,
}

impl Around for Within {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        let begun = now();
        let turn = self.inner.start(context, info);
        add_since(&self.meter.whole_ns, begun);
        turn
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let begun = now();
        let turn = self.inner.handle(context, event);
        add_since(&self.meter.whole_ns, begun);
        self.meter.events.fetch_add(1, Ordering::Relaxed);
        turn
    }
}

struct Without {
    outside: Box<dyn Outside>,
    meter: Arc<Meter>,
}

/// Each call as it is, with its time put aside.
macro_rules! passed {
    ($($name:ident($($value:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&mut self, $($value: $kind),*) -> $answer {
            let begun = now();
            let answer = self.outside.$name($($value),*);
            add_since(&self.meter.outside_ns, begun);
            answer
        })*
    };
}

impl Outside for Without {
    passed! {
        subscribe(filter: String, qos: Qos) -> Token;
        unsubscribe(filter: String) -> Token;
        publish(topic: String, payload: Vec<u8>, qos: Qos) -> Token;
        http_get(url: String, offset: u64, length: u32) -> Token;
        cancel(token: Token) -> ();
        create(spec: FileSpec) -> Started;
        reopen(job_id: String, file: FileId) -> Started;
        close(file: FileId) -> Started;
        verified(file: FileId) -> Result<VerifiedRef, Failure>;
        install(image: &VerifiedRef) -> Started;
        activate(image: &VerifiedRef) -> Started;
        reset(file: FileId) -> Started;
        self_test(file: FileId) -> Started;
        commit(file: FileId) -> Started;
        reject(file: FileId) -> Started;
        state(file: FileId) -> Started;
        abort(file: FileId) -> Started;
        journal_store(journal: Blob) -> Token;
        log(level: Level, text: String) -> ();
        emit(event: ApplicationEvent) -> ();
    }

    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        let begun = now();
        let started = self.outside.write_block(file, offset, data);
        add_since(&self.meter.outside_ns, begun);
        self.meter.blocks.fetch_add(1, Ordering::Relaxed);
        started
    }
}
