//! Another plugin build.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host_runtime::plugin::lend::Lent;
use host_runtime::plugin::{
    Description, Duty, Extent, Plugin, PluginError, PluginFactory, Transfer,
};
use host_runtime::types::{Blob, Setting};
use host_sandbox::{NewBuild, Options, Shipped, Swap, native_pal};

use crate::{calls, going_back, many_swaps, run, scenario, some_of};

/// The same plugin as a build of its own, whose instances are counted.
struct Build {
    label: String,
    digest: [u8; 32],
    description: Description,
    inner: Arc<dyn PluginFactory>,
    /// The instance breaks in its n-th call after `open`.
    breaks_at: Option<u64>,
    alive: Arc<AtomicU64>,
}

fn build(inner: &Arc<dyn PluginFactory>, number: u8, breaks_at: Option<u64>) -> Arc<Build> {
    Arc::new(Build {
        label: format!("test:{number}"),
        digest: [number; 32],
        description: Description {
            version: format!("1.0.{number}"),
            ..inner.description().clone()
        },
        inner: Arc::clone(inner),
        breaks_at,
        alive: Arc::default(),
    })
}

impl PluginFactory for Build {
    fn label(&self) -> &str {
        &self.label
    }
    fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn imports(&self) -> &[String] {
        self.inner.imports()
    }
    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        let inner = self.inner.make(lent)?;
        self.alive.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Instance {
            inner,
            calls_left: self.breaks_at,
            alive: Arc::clone(&self.alive),
        }))
    }
}

struct Instance {
    inner: Box<dyn Plugin>,
    calls_left: Option<u64>,
    alive: Arc<AtomicU64>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Instance {
    fn call(&mut self) -> Result<&mut dyn Plugin, PluginError> {
        match self.calls_left.as_mut() {
            Some(0) => return Err(PluginError::Broken("wasm trap: unreachable".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(&mut *self.inner)
    }
}

impl Plugin for Instance {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        self.inner.open(settings, saved)
    }
    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.call()?.create(transfer)
    }
    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.call()?.reopen(transfer)
    }
    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.call()?.write_block(offset, data)
    }
    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        self.call()?.extents()
    }
    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.call()?.examine()
    }
    fn install(&mut self) -> Result<Duty, PluginError> {
        self.call()?.install()
    }
    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.call()?.activate(sha256)
    }
    fn reset(&mut self) -> Result<Duty, PluginError> {
        self.call()?.reset()
    }
    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.call()?.self_test()
    }
    fn commit(&mut self) -> Result<Duty, PluginError> {
        self.call()?.commit()
    }
    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.call()?.reject()
    }
    fn state(&mut self) -> Result<Duty, PluginError> {
        self.call()?.state()
    }
    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.call()?.abort()
    }
    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        self.call()?.step(budget_bytes)
    }
    fn suspend(&mut self) -> Result<Blob, PluginError> {
        self.call()?.suspend()
    }
}

fn at(after_call: u64, build: &Arc<Build>) -> Swap {
    Swap {
        after_call,
        build: NewBuild::Plugin(0, Arc::clone(build) as _),
    }
}

#[test]
fn a_swap_at_every_call_of_an_update_and_of_one_that_goes_back_ends_well() {
    let options = Options::native(1);
    for prepared in [scenario("short"), going_back()] {
        let name = &prepared.scenario.name;
        let calls = calls(&prepared, &options);
        assert!(calls > 100, "{calls}");
        for call in 0..calls {
            let next = build(&native_pal(None), 1, None);
            let report = run(&prepared, &options, vec![at(call, &next)]);
            assert_eq!(report.violations, [], "{name}: swap after call {call}");
            assert_eq!(report.swaps, [None], "{name}: swap after call {call}");
            assert_eq!(report.cuts, []);
            assert_eq!(next.alive.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_build_that_breaks_in_each_of_its_calls_is_sent_back_and_the_update_ends_well() {
    let options = Options::native(1);
    let prepared = scenario("short");
    let calls = calls(&prepared, &options);
    for call in (0..calls).step_by(5) {
        for breaks_at in [0, 1, 2, 3, 5, 8] {
            let bad = build(&native_pal(None), 1, Some(breaks_at));
            let report = run(&prepared, &options, vec![at(call, &bad)]);
            let case = format!("after call {call}, breaks in its call {breaks_at}");
            assert_eq!(report.violations, [], "{case}");
            assert_eq!(report.swaps.len(), 1, "{case}");
        }
    }
}

#[test]
fn the_shipped_components_are_swapped_at_any_call() {
    let shipped = Shipped::load().unwrap();
    let options = shipped.options(1);
    let prepared = scenario("short");
    for call in some_of(calls(&prepared, &options)) {
        let next = build(&shipped.pal, 1, None);
        let report = run(&prepared, &options, vec![at(call, &next)]);
        assert_eq!(report.violations, [], "swap after call {call}");
        assert_eq!(report.swaps, [None], "swap after call {call}");
    }
}

#[test]
fn many_swaps_at_random_instants_lose_nothing() {
    let pal = native_pal(None);
    let swap = |number, call| {
        let next = build(&pal, number, None);
        (at(call, &next), Arc::clone(&next.alive))
    };
    many_swaps(swap, |_, _, _| {});
}

#[test]
fn every_cut_during_a_swap_leaves_a_gateway_that_goes_on_with_either_build() {
    crate::every_cut_during_a_swap(|call| at(call, &build(&native_pal(None), 1, None)));
}
