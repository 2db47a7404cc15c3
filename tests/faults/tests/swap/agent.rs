//! Another agent build.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host_runtime::agent::{AgentBuild, AgentInstance, Around, Context, Description, Event, Turn};
use host_runtime::engine::GuestFault;
use host_sandbox::{NewBuild, Options, Shipped, Swap, native_agent};

use crate::{calls, going_back, many_swaps, run, scenario, some_of};

/// The same agent as a build of its own, whose instances are counted.
struct Build {
    agent: Arc<AgentBuild>,
    alive: Arc<AtomicU64>,
    /// Events in which an instance broke.
    broke: Arc<AtomicU64>,
}

/// `breaks_at`: each instance breaks in its n-th event. The first one that any gets is that of its trial.
fn build(inner: &Arc<AgentBuild>, number: u64, breaks_at: Option<u64>) -> Build {
    let (alive, broke) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let description = Description {
        version: format!("1.0.{number}"),
        ..inner.description().clone()
    };
    let (inner, counted) = (Arc::clone(inner), Arc::clone(&alive));
    let breaks = Arc::clone(&broke);
    let label = format!("test:{number}");
    let agent = AgentBuild::native(&label, description, move |outside| {
        let inner = inner.instantiate(outside)?;
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Instance {
            inner,
            events_left: breaks_at,
            alive: Arc::clone(&counted),
            broke: Arc::clone(&breaks),
        }))
    });
    Build {
        agent,
        alive,
        broke,
    }
}

struct Instance {
    inner: Box<dyn AgentInstance>,
    events_left: Option<u64>,
    alive: Arc<AtomicU64>,
    broke: Arc<AtomicU64>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Around for Instance {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        match self.events_left.as_mut() {
            Some(0) => {
                self.broke.fetch_add(1, Ordering::Relaxed);
                return Err(GuestFault::Trapped("unreachable".into()));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.inner.handle(context, event)
    }
}

fn at(after_call: u64, build: &Build) -> Swap {
    Swap {
        after_call,
        build: NewBuild::Agent(Arc::clone(&build.agent)),
    }
}

#[test]
fn a_swap_at_every_call_of_an_update_and_of_one_that_goes_back_ends_well() {
    let options = Options::native(1);
    for prepared in [scenario("short"), going_back()] {
        let name = &prepared.scenario.name;
        for call in 0..calls(&prepared, &options) {
            let next = build(&native_agent(), 1, None);
            let report = run(&prepared, &options, vec![at(call, &next)]);
            assert_eq!(report.violations, [], "{name}: swap after call {call}");
            assert_eq!(report.swaps, [None], "{name}: swap after call {call}");
            assert_eq!(next.alive.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_build_that_breaks_in_each_of_its_events_is_sent_back_and_the_update_ends_well() {
    let options = Options::native(1);
    let prepared = scenario("short");
    let (mut runs, mut returns, mut late) = (0, 0, 0);
    for call in (0..calls(&prepared, &options)).step_by(5) {
        for breaks_at in [0, 1, 2, 3, 5, 8] {
            let bad = build(&native_agent(), 1, Some(breaks_at));
            let report = run(&prepared, &options, vec![at(call, &bad)]);
            let case = format!("after call {call}, breaks in its event {breaks_at}");
            assert_eq!(report.violations, [], "{case}");
            let [end] = &report.swaps[..] else {
                panic!("{case}: {:?}", report.swaps);
            };
            // What breaks at once does not get beyond its trial.
            assert_eq!(end.is_some(), breaks_at == 0, "{case}: {end:?}");
            // What gets beyond it goes back when it breaks: twice where the process was started again before that was written
            // down. Near the end of the update some have no such event left, or have proved themselves before.
            let broke = bad.broke.load(Ordering::Relaxed);
            match report.returns {
                0 => late += u64::from(broke > 0 && breaks_at > 0),
                times => assert_eq!(broke, times, "{case}"),
            }
            runs += u64::from(breaks_at > 0);
            returns += u64::from(report.returns > 0);
        }
    }
    assert!(returns > runs / 2, "{returns} of {runs}");
    assert!(late < runs / 10, "{late} of {runs}");
}

#[test]
fn a_swap_of_an_agent_that_is_parked_at_every_idle_instant_ends_well() {
    let options = Options {
        park_after_ms: Some(0),
        ..Options::native(1)
    };
    let prepared = scenario("two-jobs");
    let all = calls(&prepared, &options);
    let mut parks = 0;
    for call in 0..all {
        let next = build(&native_agent(), 1, None);
        let report = run(&prepared, &options, vec![at(call, &next)]);
        assert_eq!(report.violations, [], "swap after call {call}");
        assert_eq!(report.swaps, [None], "swap after call {call}");
        parks += report.parks;
    }
    // One that has proved itself is parked as well.
    assert!(parks > all, "{parks}");
}

#[test]
fn the_shipped_component_is_swapped_at_any_call() {
    let shipped = Shipped::load().unwrap();
    let options = shipped.options(1);
    let prepared = scenario("short");
    for call in some_of(calls(&prepared, &options)) {
        let next = build(&shipped.agent, 1, None);
        let report = run(&prepared, &options, vec![at(call, &next)]);
        assert_eq!(report.violations, [], "swap after call {call}");
        assert_eq!(report.swaps, [None], "swap after call {call}");
    }
}

#[test]
fn many_swaps_at_random_instants_lose_nothing() {
    let agent = native_agent();
    let swap = |number: u8, call| {
        let next = build(&agent, number.into(), None);
        (at(call, &next), next.alive)
    };
    many_swaps(swap, |prepared, report, seed| {
        // Nothing that the agent had was asked for again.
        assert_eq!(report.blocks_sent, prepared.blocks(), "seed {seed}");
    });
}

#[test]
fn every_cut_during_a_swap_leaves_a_gateway_that_goes_on_with_either_build() {
    crate::every_cut_during_a_swap(|call| at(call, &build(&native_agent(), 1, None)));
}
