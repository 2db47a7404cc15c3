//! Another plugin build for a target that works: at every instant of an update, and builds that are no good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::double::{Factory, Fault, RECORD};
use super::world::{FILE, Setup, World, main_of};
use crate::choice::{self, Place, StandIn};
use crate::plugin::lend::Lent;
use crate::plugin::{
    Description, Duty, Extent, Plugin, PluginError, PluginFactory, Transfer, capability,
};
use crate::ports::clock::SystemClock;
use crate::target::takes_settings;
use crate::types::{Blob, Failure, Outcome, Setting, Started, code};

/// What is wrong with a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wrong {
    #[default]
    Nothing,
    /// It refuses what the one before has saved, as nonsense.
    RefusesSaved,
    /// It does not know the schema of it: no fault.
    OtherSchema,
    TrapsInOpen,
    RefusesReopen,
    TrapsInReopen,
    /// Its reopen is fine, its first call of anything else traps.
    TrapsInFirstCall,
    /// It fails its first call of anything else.
    FailsFirstCall,
    /// It names another place for the file.
    OtherExtents,
    /// It wants to touch the storage in `open`.
    TouchesInOpen,
    /// It is opened when it is tried, and refuses in earnest.
    OpensOnce,
    /// It says that it has committed, and has not.
    CommitsNothing,
    /// It writes other bytes than it was given.
    WritesElse,
    /// It writes before the file, too, and says what came of that.
    WritesOutside,
    /// It has nothing to save, and says so: no fault.
    SavesNothing,
}

/// A build: the double, with a name of its own, and something wrong.
pub(super) struct Build {
    label: String,
    digest: [u8; 32],
    description: Description,
    inner: Arc<Factory>,
    wrong: Wrong,
    /// Calls of its instances.
    calls: Arc<Mutex<Vec<&'static str>>>,
    alive: Arc<AtomicU64>,
    /// How often it was told that its trial is over.
    passed: AtomicU64,
}

pub(super) fn build(world: &World, version: u8, wrong: Wrong) -> Arc<Build> {
    let inner = if world.setup.staged {
        Factory::staged(&world.truth)
    } else {
        Factory::direct(&world.truth)
    };
    Arc::new(Build {
        label: format!("test:{version}"),
        digest: [version; 32],
        description: Description {
            version: format!("{version}.0.0"),
            ..inner.description().clone()
        },
        inner,
        wrong,
        calls: Arc::default(),
        alive: Arc::default(),
        passed: AtomicU64::new(0),
    })
}

impl Build {
    pub(super) fn called(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
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
        self.alive.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Instance {
            device: lent.block_device.clone(),
            inner: self.inner.make(lent)?,
            wrong: self.wrong,
            calls: Arc::clone(&self.calls),
            alive: Arc::clone(&self.alive),
        }))
    }
    fn trial_passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Instance {
    device: Option<Arc<dyn crate::plugin::lend::BlockDevice>>,
    inner: Box<dyn Plugin>,
    wrong: Wrong,
    calls: Arc<Mutex<Vec<&'static str>>>,
    alive: Arc<AtomicU64>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

fn trap<R>() -> Result<R, PluginError> {
    Err(PluginError::Broken("unreachable".into()))
}

fn fail<R>(main: u8) -> Result<R, PluginError> {
    Err(PluginError::Failed(Failure::new(main, 7, "no")))
}

impl Instance {
    /// How often instances of its build were called with this.
    fn called(&self, verb: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| **call == verb).count()
    }

    fn call(
        &mut self,
        verb: &'static str,
        call: impl FnOnce(&mut dyn Plugin) -> Result<Duty, PluginError>,
    ) -> Result<Duty, PluginError> {
        self.calls.lock().unwrap().push(verb);
        match self.wrong {
            Wrong::TrapsInFirstCall => trap(),
            Wrong::FailsFirstCall => fail(0xed),
            _ => call(&mut *self.inner),
        }
    }
}

impl Plugin for Instance {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        self.calls.lock().unwrap().push("open");
        match self.wrong {
            Wrong::RefusesSaved if saved.is_some() => fail(code::BAD_ARGUMENT),
            Wrong::OtherSchema if saved.is_some() => fail(code::SCHEMA),
            Wrong::TrapsInOpen => trap(),
            Wrong::OpensOnce if self.called("open") > 1 => fail(code::BAD_ARGUMENT),
            Wrong::TouchesInOpen => {
                let device = self.device.as_ref().unwrap();
                let touched = device.read_at(0, 0, 16).map_err(PluginError::Failed);
                touched.map(drop)
            }
            _ => self.inner.open(settings, saved),
        }
    }
    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.call("create", |p| p.create(transfer))
    }
    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.calls.lock().unwrap().push("reopen");
        match self.wrong {
            Wrong::RefusesReopen => fail(code::BAD_IMAGE_STATE),
            Wrong::TrapsInReopen => trap(),
            _ => self.inner.reopen(transfer),
        }
    }
    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        if self.wrong == Wrong::WritesOutside {
            let device = self.device.as_ref().unwrap();
            let end = device.write_at(0, 0, b"header");
            end.map_err(PluginError::Failed)?;
        }
        let mut data = data.to_vec();
        if self.wrong == Wrong::WritesElse {
            data[0] ^= 1;
        }
        self.call("write-block", |p| p.write_block(offset, &data))
    }
    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        let mut extents = self.inner.extents()?;
        if self.wrong == Wrong::OtherExtents {
            extents[0].offset += 1;
        }
        Ok(extents)
    }
    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.call("examine", |p| p.examine())
    }
    fn install(&mut self) -> Result<Duty, PluginError> {
        self.call("install", |p| p.install())
    }
    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.call("activate", |p| p.activate(sha256))
    }
    fn reset(&mut self) -> Result<Duty, PluginError> {
        self.call("reset", |p| p.reset())
    }
    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.call("self-test", |p| p.self_test())
    }
    fn commit(&mut self) -> Result<Duty, PluginError> {
        if self.wrong == Wrong::CommitsNothing {
            self.calls.lock().unwrap().push("commit");
            return Ok(Duty::Finished(crate::plugin::Answer::Nothing));
        }
        self.call("commit", |p| p.commit())
    }
    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.call("reject", |p| p.reject())
    }
    fn state(&mut self) -> Result<Duty, PluginError> {
        self.call("state", |p| p.state())
    }
    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.call("abort", |p| p.abort())
    }
    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        self.inner.step(budget_bytes)
    }
    fn suspend(&mut self) -> Result<Blob, PluginError> {
        match self.wrong {
            Wrong::SavesNothing => fail(code::UNSUPPORTED),
            _ => self.inner.suspend(),
        }
    }
}

/// Where the answer to a swap arrives.
pub(super) type Answer = Arc<Mutex<Option<Result<(), Failure>>>>;

/// Ask for a swap.
pub(super) fn ask(world: &mut World, build: &Arc<Build>) -> Answer {
    let answer = Answer::default();
    let place = Arc::clone(&answer);
    let build = Arc::clone(build);
    world.targets.swap(
        FILE,
        build,
        Box::new(move |end| *place.lock().unwrap() = Some(end)),
    );
    answer
}

/// Ask for a swap, and see its end.
pub(super) fn swap(world: &mut World, build: &Arc<Build>) -> Result<(), Failure> {
    let answer = ask(world, build);
    for _ in 0..100 {
        if let Some(end) = answer.lock().unwrap().take() {
            return end;
        }
        world.poll();
    }
    panic!("the swap does not end");
}

/// Let every duty take some steps, one a poll, so that there is an inside.
fn stepped(mut setup: Setup) -> World {
    setup.limits.steps_per_poll = 1;
    let world = World::new(setup);
    let verbs = [
        "create",
        "reopen",
        "write-block",
        "install",
        "activate",
        "self-test",
        "commit",
        "state",
    ];
    let steps = verbs.into_iter().map(|verb| (verb, 2));
    world.truth.lock().unwrap().steps.extend(steps);
    world
}

/// A whole update, in which `at_poll` is called before each poll with its number; true if it was committed.
fn update(world: &mut World, mut at_poll: impl FnMut(&mut World, u64)) -> Result<(), Outcome> {
    let image = World::image(5000, 2);
    let spec = world.spec("job-1", &image);
    let mut polls = 0;
    let mut run = |world: &mut World, call: &dyn Fn(&mut World) -> Started| {
        let token = match call(world) {
            Started::Done(outcome) => return outcome,
            Started::Pending(token) => token,
        };
        for _ in 0..10_000 {
            at_poll(world, polls);
            polls += 1;
            let wake = world.poll();
            if let Some(outcome) = world.ended(token) {
                return outcome;
            }
            if let Some(at) = wake.filter(|at| *at > world.now()) {
                world.turn_clock(at - world.now());
            }
        }
        panic!("an operation does not end");
    };
    let well = |outcome: Outcome| match outcome {
        Outcome::Failed(_) => Err(outcome),
        _ => Ok(()),
    };
    well(run(world, &|w| {
        let spec = spec.clone();
        w.start(|t, _, token| t.create(token, spec))
    }))?;
    for index in 0..image.len().div_ceil(1024) {
        let (from, to) = (index * 1024, image.len().min(index * 1024 + 1024));
        let data = image[from..to].to_vec();
        well(run(world, &|w| {
            let data = data.clone();
            w.start(|t, now, token| t.write_block(now, token, FILE, from as u64, &data))
        }))?;
    }
    well(run(world, &|w| w.start(|t, _, token| t.close(token, FILE))))?;
    let proof = world.targets.verified(FILE).unwrap();
    well(run(world, &|w| {
        w.start(|t, _, token| t.install(token, &proof))
    }))?;
    well(run(world, &|w| {
        w.start(|t, _, token| t.activate(token, &proof))
    }))?;
    well(run(world, &|w| w.start(|t, _, token| t.reset(token, FILE))))?;
    well(run(world, &|w| {
        w.start(|t, _, token| t.self_test(token, FILE))
    }))?;
    well(run(world, &|w| {
        w.start(|t, _, token| t.commit(token, FILE))
    }))
}

fn staged() -> Setup {
    Setup {
        staged: true,
        ..Setup::default()
    }
}

#[test]
fn a_build_takes_over_between_two_blocks_and_every_block_that_was_acknowledged_is_there() {
    let mut world = World::direct();
    let first = build(&world, 1, Wrong::Nothing);
    world.setup.plugin = Some(Arc::clone(&first) as _);
    world.restart();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.write_blocks(&image, 0..3);
    let second = build(&world, 2, Wrong::Nothing);
    assert_eq!(swap(&mut world, &second), Ok(()));
    assert_eq!((first.alive(), second.alive()), (0, 1));
    // The one that was tried, then the one that serves: it knows the transfer.
    assert_eq!(second.called(), ["open", "open", "reopen"]);
    let report = world.targets.report().remove(0);
    assert_eq!(report.plugin, "test:2 (double-direct 2.0.0)");
    assert_eq!(report.held, 3072);
    world.write_blocks(&image, 3..image.len().div_ceil(1024));
    assert!(matches!(world.close(), Outcome::Verified(_)));
    let written = |build: &Build| {
        build
            .called()
            .iter()
            .filter(|c| **c == "write-block")
            .count()
    };
    assert_eq!((written(&first), written(&second)), (3, 3));
}

#[test]
fn a_swap_before_every_poll_of_an_update_ends_well() {
    for setup in [Setup::default(), staged()] {
        let mut world = stepped(setup.clone());
        let mut polls = 0;
        update(&mut world, |_, n| polls = n).unwrap();
        assert!(polls > 15, "{polls}");
        let kinds = [Wrong::Nothing, Wrong::SavesNothing];
        for (at, kind) in (0..=polls).flat_map(|at| kinds.map(|kind| (at, kind))) {
            let mut world = stepped(setup.clone());
            let next = build(&world, 2, kind);
            let mut answer = None;
            let end = update(&mut world, |world, n| {
                if n == at {
                    answer = Some(ask(world, &next));
                }
            });
            assert_eq!(end, Ok(()), "{kind:?} at poll {at}");
            let end = answer.and_then(|answer| answer.lock().unwrap().take());
            assert_eq!(end, Some(Ok(())), "{kind:?} at poll {at}");
            let report = world.targets.report().remove(0);
            assert_eq!((report.phase.as_str(), report.strikes), ("committed", 0));
            let serves = report.plugin;
            assert!(serves.contains("2.0.0"), "{kind:?} at poll {at}: {serves}");
        }
    }
}

#[test]
fn an_order_that_comes_while_a_build_is_told_of_the_transfer_is_not_refused() {
    let mut world = stepped(Setup::default());
    world.deliver("job-1", &World::image(5000, 2));
    let next = build(&world, 2, Wrong::Nothing);
    let answer = ask(&mut world, &next);
    world.poll();
    let operation = world.targets.report().remove(0).operation;
    assert_eq!(operation.as_deref(), Some("revive"));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    let report = world.targets.report().remove(0);
    assert!(report.plugin.contains("2.0.0"), "{}", report.plugin);
}

#[test]
fn swaps_again_and_again_end_well_and_leave_one_instance() {
    for setup in [Setup::default(), staged()] {
        let mut world = stepped(setup);
        let mut builds: Vec<Arc<Build>> = Vec::new();
        update(&mut world, |world, n| {
            // Oftener than any duty ends, and not so often that none ever does.
            if n % 10 != 0 {
                return;
            }
            let version = 1 + u8::try_from(n % 200).unwrap();
            builds.push(build(world, version, Wrong::Nothing));
            ask(world, builds.last().unwrap());
        })
        .unwrap();
        let alive: u64 = builds.iter().map(|build| build.alive()).sum();
        assert!(alive <= 1, "{alive} instances");
        let served = builds
            .iter()
            .filter(|build| build.called().len() > 1)
            .count();
        assert!(served >= builds.len() / 2 && served > 1, "{served}");
    }
}

#[test]
fn a_bad_build_at_every_poll_of_an_update_leaves_the_old_one_and_says_why() {
    let rows = [
        (Wrong::RefusesSaved, "no"),
        (Wrong::TrapsInOpen, "unreachable"),
        (Wrong::RefusesReopen, "no"),
        (Wrong::TrapsInReopen, "unreachable"),
        (Wrong::TrapsInFirstCall, "unreachable"),
        (Wrong::FailsFirstCall, "no"),
        (Wrong::OtherExtents, "other extents"),
        (Wrong::TouchesInOpen, "lent in `open`"),
    ];
    for (wrong, words) in rows {
        for setup in [Setup::default(), staged()] {
            let direct_only = matches!(wrong, Wrong::OtherExtents | Wrong::TouchesInOpen);
            if direct_only && setup.staged {
                continue;
            }
            let (mut polls, mut at) = (1, 0);
            let mut sent_back = 0;
            while at < polls {
                let mut world = stepped(setup.clone());
                let bad = build(&world, 9, wrong);
                let mut answer = None;
                let end = update(&mut world, |world, n| {
                    polls = polls.max(n);
                    if n == at {
                        answer = Some(ask(world, &bad));
                    }
                });
                assert_eq!(end, Ok(()), "{wrong:?} at poll {at}");
                let Some(answer) = answer else {
                    // Only an update that is held up by a bad build has so many polls.
                    break;
                };
                // One that was asked for at the end is still on its way.
                for _ in 0..10 {
                    world.poll();
                }
                let report = world.targets.report().remove(0);
                assert_eq!((report.phase.as_str(), report.strikes), ("committed", 0));
                let end = answer.lock().unwrap().take();
                let refused = !report.plugin.contains("9.0.0");
                // What it is told depends on how far it came; where it has nothing to do any more nobody can know.
                if let (true, Some(Err(failure))) = (refused, end) {
                    assert!(failure.detail.contains(words), "{wrong:?}: {failure}");
                    sent_back += 1;
                }
                let last = world.targets.report().remove(0);
                if refused {
                    let why = last.build.refused.unwrap_or_default();
                    assert!(why.contains(words), "{wrong:?} at {at}: {why}");
                    assert_eq!(bad.alive(), 0);
                }
                at += 1;
            }
            let is_late = matches!(wrong, Wrong::TrapsInFirstCall | Wrong::FailsFirstCall);
            assert!(
                sent_back > 5 || is_late,
                "{wrong:?}: {sent_back} of {polls}"
            );
        }
    }
}

#[test]
fn a_build_that_is_refused_in_the_middle_of_a_duty_costs_the_old_one_nothing() {
    let mut world = stepped(Setup::default());
    world.deliver("job-1", &World::image(5000, 2));
    assert_eq!(world.install(), Outcome::Nothing);
    {
        // It writes to its record when it begins, and syncs when it is done.
        let mut truth = world.truth.lock().unwrap();
        truth.steps.insert("activate", 5);
        truth.scribble.insert("activate", (RECORD, 64));
    }
    let proof = world.targets.verified(FILE).unwrap();
    let started = world.start(|t, _, token| t.activate(token, &proof));
    let Started::Pending(token) = started else {
        panic!("{started:?}");
    };
    let has_written = |world: &World| !world.truth.lock().unwrap().scribbled.is_empty();
    while !has_written(&world) {
        world.poll();
    }
    let bad = build(&world, 2, Wrong::OpensOnce);
    let failure = swap(&mut world, &bad).unwrap_err();
    assert_eq!(failure.main, code::BAD_ARGUMENT, "{failure}");
    assert_eq!(world.ended(token), None, "it is still at it");
    assert_eq!(world.finish(token), Outcome::Nothing);
    let written = world.truth.lock().unwrap().scribbled.clone();
    assert_eq!(written, [("activate", Ok(()))]);
}

#[test]
fn saved_state_of_an_unknown_schema_is_no_refusal_and_the_transfer_is_reopened() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.write_blocks(&image, 0..3);
    let next = build(&world, 2, Wrong::OtherSchema);
    assert_eq!(swap(&mut world, &next), Ok(()));
    assert_eq!(next.called(), ["open", "open", "open", "open", "reopen"]);
    world.write_blocks(&image, 3..image.len().div_ceil(1024));
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

/// A build that differs from the double in what it says of itself.
fn unfit(world: &World, change: impl FnOnce(&mut Description)) -> Arc<Build> {
    let mut build = Arc::into_inner(build(world, 3, Wrong::Nothing)).unwrap();
    change(&mut build.description);
    Arc::new(build)
}

#[test]
fn a_build_that_does_not_fit_is_refused_before_it_is_tried() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    let staged = capability::STAGED | capability::REVERT;
    let rows: [(Arc<Build>, u8, &str); 4] = [
        (
            unfit(&world, |d| d.kinds = vec!["lamp".into()]),
            code::UNSUPPORTED,
            "kind lamp, this one is double",
        ),
        (
            unfit(&world, |d| d.capabilities = staged),
            code::UNSUPPORTED,
            "configure staging",
        ),
        (
            unfit(&world, |d| d.capabilities = capability::DIRECT),
            code::NO_REVERT,
            "no_revert_allowed",
        ),
        (
            unfit(&world, |d| d.largest_write = 1),
            code::UNSUPPORTED,
            "largest write",
        ),
    ];
    for (build, main, words) in rows {
        let failure = swap(&mut world, &build).unwrap_err();
        assert_eq!(failure.main, main, "{failure}");
        assert!(failure.detail.contains(words), "{failure}");
        assert_eq!(build.called(), [] as [&str; 0]);
    }
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_direct_build_for_an_open_staged_transfer_is_refused_and_taken_when_the_job_is_over() {
    let mut world = World::staged();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    let other = unfit(&world, |d| {
        d.capabilities = capability::DIRECT | capability::REVERT;
        d.largest_write = 4096;
    });
    let failure = swap(&mut world, &other).unwrap_err();
    assert!(failure.detail.contains("a transfer is open"), "{failure}");
    assert_eq!(world.abort(), Outcome::Nothing);
    assert_eq!(swap(&mut world, &other), Ok(()));
}

#[test]
fn a_direct_build_is_refused_for_a_staged_transfer_that_was_opened_while_it_was_tried() {
    let mut world = World::staged();
    let image = World::image(5000, 2);
    let other = unfit(&world, |d| {
        d.capabilities = capability::DIRECT | capability::REVERT;
        d.largest_write = 4096;
    });
    world.bench.hold(true);
    let answer = ask(&mut world, &other);
    let spec = world.spec("job-1", &image);
    let started = world.start(|t, _, token| t.create(token, spec));
    let Started::Pending(token) = started else {
        panic!("{started:?}")
    };
    for _ in 0..100 {
        world.bench.run_all();
        world.poll();
    }
    world.bench.hold(false);
    assert_eq!(world.ended(token), Some(Outcome::Nothing));
    let failure = answer.lock().unwrap().take().unwrap().unwrap_err();
    assert!(failure.detail.contains("a transfer is open"), "{failure}");
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_build_that_breaks_later_in_its_trial_is_sent_back_and_the_duty_is_done_by_the_former() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    let next = build(&world, 2, Wrong::Nothing);
    assert_eq!(swap(&mut world, &next), Ok(()));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    let trap = Fault::Trap(1);
    world.fault("install", trap);
    assert_eq!(world.install(), Outcome::Nothing);
    let report = world.targets.report().remove(0);
    assert!(report.plugin.contains("1.0.0"), "{}", report.plugin);
    assert_eq!((report.strikes, next.alive(), next.passed()), (0, 0, 0));
}

#[test]
fn a_transfer_is_thrown_away_whatever_becomes_of_the_builds() {
    let mut world = World::block_by_block();
    world.setup.plugin = Some(build(&world, 2, Wrong::Nothing) as _);
    world.setup.former = Some(build(&world, 1, Wrong::RefusesReopen) as _);
    world.restart();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    let (truth, trap) = (Arc::clone(&world.truth), Fault::Trap(1));
    truth.lock().unwrap().faults.insert("write-block", trap);
    // It is sent back within the call, and the abort comes before the former one knows the transfer.
    let data = image[..1024].to_vec();
    let started = world.start(|t, now, token| t.write_block(now, token, FILE, 0, &data));
    assert!(matches!(started, Started::Pending(_)), "{started:?}");
    assert_eq!(world.abort(), Outcome::Nothing);
    let report = world.targets.report().remove(0);
    assert_eq!(report.phase, "none");
    assert!(report.plugin.contains("1.0.0"), "{}", report.plugin);
}

#[test]
fn a_build_does_not_answer_for_the_strikes_of_the_one_before() {
    let mut world = World::block_by_block();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    let (truth, trap) = (Arc::clone(&world.truth), Fault::Trap(3));
    truth.lock().unwrap().faults.insert("write-block", trap);
    for index in 0..3 {
        let end = world.write_block(&image, index);
        assert_eq!(main_of(&end), code::PLUGIN_FAILED);
    }
    assert_eq!(world.targets.report().remove(0).strikes, 3);
    // Asked how it is, it knows the transfer again, and so must its successor.
    world.state_now();
    let next = build(&world, 2, Wrong::Nothing);
    assert_eq!(swap(&mut world, &next), Ok(()));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_build_that_has_brought_an_update_to_its_end_stays_and_breaks_like_any_other() {
    let mut world = World::direct();
    let next = build(&world, 2, Wrong::Nothing);
    assert_eq!(swap(&mut world, &next), Ok(()));
    world.deliver_and_start("job-1", &World::image(5000, 2));
    assert_eq!(world.self_test(), Outcome::Nothing);
    assert_eq!(next.passed(), 0);
    assert_eq!(world.commit(), Outcome::Nothing);
    let stored = choice::load(&*world.state, &Place::plugin("gateway", "app"))
        .unwrap()
        .unwrap();
    assert!(!stored.on_trial);
    assert_eq!(next.passed(), 1);
    let trap = Fault::Trap(3);
    world.fault("create", trap);
    let image = World::image(5000, 3);
    assert_eq!(main_of(&world.create("job-2", &image)), code::PLUGIN_FAILED);
    let report = world.targets.report().remove(0);
    assert!(report.plugin.contains("2.0.0"), "{}", report.plugin);
}

#[test]
fn a_transfer_that_is_given_up_is_no_proof_of_a_build_and_the_same_build_no_way_back() {
    let mut world = World::direct();
    let [first, next] = [2, 3].map(|version| build(&world, version, Wrong::Nothing));
    let chosen = |world: &World| {
        let stored = choice::load(&*world.state, &Place::plugin("gateway", "app"));
        stored.unwrap().unwrap()
    };
    assert_eq!(swap(&mut world, &first), Ok(()));
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    assert_eq!(world.abort(), Outcome::Nothing);
    assert!(chosen(&world).on_trial, "for all it has shown");
    let end_trial = |world: &mut World| {
        world.targets.end_trial(FILE, Box::new(|_| ()));
        while chosen(world).on_trial {
            world.poll();
        }
        world.poll();
    };
    end_trial(&mut world);
    for _ in 0..2 {
        assert_eq!(swap(&mut world, &next), Ok(()));
        assert_eq!(chosen(&world).former.unwrap().label, "test:2");
        end_trial(&mut world);
    }
}

/// Stands where the build of digest 2 would be.
struct Refused {
    chosen: StandIn,
    description: Description,
}

impl PluginFactory for Refused {
    fn label(&self) -> &str {
        &self.chosen.build.label
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn imports(&self) -> &[String] {
        &[]
    }
    fn stands_in(&self) -> Option<&StandIn> {
        Some(&self.chosen)
    }
    fn make(&self, _: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        Err(PluginError::Broken("it is not let in".into()))
    }
}

#[test]
fn what_is_chosen_and_put_in_again_where_it_was_not_let_in_goes_back_to_the_build_before() {
    let mut world = World::direct();
    let next = build(&world, 2, Wrong::Nothing);
    world.setup.former = Some(build(&world, 1, Wrong::Nothing) as _);
    world.setup.has_passed = true;
    world.setup.plugin = Some(Arc::new(Refused {
        chosen: StandIn {
            build: choice::Build::of_plugin(&*next),
            why: "test:2: nobody vouches for it".into(),
        },
        description: next.description().clone(),
    }) as _);
    world.restart();
    assert_eq!(swap(&mut world, &next), Ok(()));
    let stored = choice::load(&*world.state, &Place::plugin("gateway", "app"));
    let chosen = stored.unwrap().unwrap();
    assert_eq!((&*chosen.serves.label, chosen.on_trial), ("test:2", true));
    assert_eq!(chosen.former.unwrap().label, "test:1");
}

#[test]
fn what_was_chosen_is_on_the_medium_before_it_serves_and_a_trial_goes_on_after_a_restart() {
    let mut world = World::direct();
    let next = build(&world, 2, Wrong::Nothing);
    world.bench.hold(true);
    let answer = ask(&mut world, &next);
    for _ in 0..3 {
        let chosen = choice::load(&*world.state, &Place::plugin("gateway", "app")).unwrap();
        let serves = world.targets.report().remove(0).plugin.contains("2.0.0");
        assert!(!serves || chosen.is_some());
        world.bench.run_all();
        world.poll();
    }
    assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    world.bench.hold(false);
    let chosen = choice::load(&*world.state, &Place::plugin("gateway", "app"))
        .unwrap()
        .unwrap();
    assert_eq!(chosen.serves.sha256, [2; 32]);
    assert_eq!(chosen.former.as_ref().unwrap().label, "test:double");
    assert!(chosen.on_trial);
    // The host finds both builds by the record; the one on trial breaks, and the other one does the work.
    world.setup.former = Some(Factory::direct(&world.truth) as _);
    world.setup.plugin = Some(build(&world, 2, Wrong::TrapsInFirstCall) as _);
    world.restart();
    assert_eq!(
        world.create("job-1", &World::image(5000, 2)),
        Outcome::Nothing
    );
    world.poll();
    assert_eq!(
        choice::load(&*world.state, &Place::plugin("gateway", "app")).unwrap(),
        None
    );
}

#[test]
fn a_roll_back_lets_the_build_before_serve_and_can_itself_be_taken_back() {
    let mut world = World::direct();
    let back = |world: &mut World| {
        let answer = Answer::default();
        let place = Arc::clone(&answer);
        let reply = Box::new(move |end| *place.lock().unwrap() = Some(end));
        world.targets.swap_back(FILE, reply);
        for _ in 0..10 {
            world.poll();
        }
        let end = answer.lock().unwrap().take();
        end.expect("a swap of nothing is over at once")
    };
    assert_eq!(back(&mut world).unwrap_err().main, code::NOT_FOUND);
    let next = build(&world, 2, Wrong::Nothing);
    assert_eq!(swap(&mut world, &next), Ok(()));
    assert_eq!(back(&mut world), Ok(()));
    let build = |world: &World| world.targets.report().remove(0).build;
    let serves = |world: &World| build(world).version;
    assert_eq!(serves(&world), "1.0.0");
    // What it went back from, on trial or not, is what it may go back to.
    assert_eq!(build(&world).former.as_deref(), Some("test:2"));
    assert!(!build(&world).on_trial);
    assert_eq!(back(&mut world), Ok(()));
    assert_eq!(serves(&world), "2.0.0");
}

#[test]
fn whoever_puts_a_build_in_can_have_it_proved_and_end_its_trial() {
    let mut world = World::direct();
    let heard = |answer: &Answer| {
        let place = Arc::clone(answer);
        Box::new(move |end| *place.lock().unwrap() = Some(end))
    };
    let asked = |world: &mut World| {
        let answer = Answer::default();
        world.targets.ask(FILE, heard(&answer));
        for _ in 0..10 {
            world.poll();
        }
        let end = answer.lock().unwrap().take();
        end.expect("an answer")
    };
    let next = build(&world, 2, Wrong::Nothing);
    assert_eq!(swap(&mut world, &next), Ok(()));
    assert_eq!(asked(&mut world), Ok(()));
    assert!(next.called().contains(&"state"), "{:?}", next.called());
    world.bench.hold(true);
    let answer = Answer::default();
    world.targets.end_trial(FILE, heard(&answer));
    world.poll();
    assert_eq!(
        *answer.lock().unwrap(),
        None,
        "before it stands on the medium"
    );
    world.bench.run_all();
    world.bench.hold(false);
    world.poll();
    assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    let stored = choice::load(&*world.state, &Place::plugin("gateway", "app"));
    assert!(!stored.unwrap().unwrap().on_trial);
    assert_eq!(next.passed(), 1);
    // One that breaks when it is asked is gone, and the one before has answered.
    let bad = build(&world, 3, Wrong::TrapsInFirstCall);
    assert_eq!(swap(&mut world, &bad), Ok(()));
    assert_eq!(asked(&mut world), Ok(()));
    let report = world.targets.report().remove(0).build;
    assert_eq!(report.version, "2.0.0");
    assert!(report.refused.unwrap().contains("unreachable"));
}

#[test]
fn an_operators_question_that_always_gives_way_ends() {
    let mut world = World::new(Setup {
        version_command: true,
        ..Setup::default()
    });
    world.programs.end_with("version", None);
    let answer = Answer::default();
    let place = Arc::clone(&answer);
    let reply = Box::new(move |end| *place.lock().unwrap() = Some(end));
    world.targets.ask(FILE, reply);
    let image = World::image(500, 2);
    for n in 0..world.setup.limits.question_tries_max {
        world.poll();
        assert_eq!(*answer.lock().unwrap(), None, "{n}");
        let job = format!("job-{n}");
        assert_eq!(world.create(&job, &image), Outcome::Nothing);
    }
    let refused = answer.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(refused.main, code::BUSY);
    assert!(refused.detail.contains("ask again"), "{refused}");
}

#[test]
fn an_operators_question_is_not_in_the_agents_way() {
    let mut world = World::new(Setup {
        version_command: true,
        ..Setup::default()
    });
    let max = world.setup.limits.waiting_states_max;
    let question = |world: &mut World| {
        let answer = Answer::default();
        let place = Arc::clone(&answer);
        let reply = Box::new(move |end| *place.lock().unwrap() = Some(end));
        world.targets.ask(FILE, reply);
        answer
    };
    // One is put to the target, which takes its time, and the rest wait.
    world.programs.end_with("version", None);
    let mut answers = vec![question(&mut world)];
    world.poll();
    answers.extend((0..max).map(|_| question(&mut world)));
    let refused = question(&mut world).lock().unwrap().take().unwrap();
    assert_eq!(refused.unwrap_err().main, code::LIMIT);
    let ask = |world: &mut World| world.start(|t, _, token| t.state(token, FILE));
    let asked: Vec<_> = (0..max).map(|_| ask(&mut world)).collect();
    assert_eq!(main_of(&world.state()), code::LIMIT);
    // The agent's order does not wait for the operator's answer, and the operator gets it afterwards.
    let reply = world.programs.replies.lock().unwrap().remove(0);
    world
        .programs
        .end_with("version", Some(super::world::exit(0, "1.0.0")));
    assert_eq!(
        world.create("job-1", &World::image(500, 2)),
        Outcome::Nothing
    );
    for started in asked {
        let Started::Pending(token) = started else {
            panic!("over at once");
        };
        assert!(matches!(world.finish(token), Outcome::State(_)));
    }
    for answer in answers {
        assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    }
    // What ends now was given up.
    reply(super::world::exit(0, "0.9.0"));
    world.poll();
    assert_eq!(world.phase(), "receiving");
}

#[test]
fn a_choice_that_cannot_be_written_is_refused_and_a_second_swap_waits_its_turn() {
    let mut world = World::direct();
    let next = build(&world, 2, Wrong::Nothing);
    world.bench.hold(true);
    let first = ask(&mut world, &next);
    let second = ask(&mut world, &next);
    let busy = second.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(busy.main, code::BUSY);
    // The worker dies with its work.
    world.bench.lose_all();
    world.poll();
    let lost = first.lock().unwrap().take().unwrap().unwrap_err();
    assert!(lost.detail.contains("has died"), "{lost}");
    world.bench.hold(false);
    assert_eq!(swap(&mut world, &next), Ok(()));
}

#[test]
fn a_build_that_breaks_over_settings_does_not_refuse_them() {
    let world = World::direct();
    let end = |wrong| takes_settings(&*build(&world, 2, wrong), &[], Arc::new(SystemClock::new()));
    assert_eq!(end(Wrong::Nothing), Ok(()));
    let broken = PluginError::Broken("unreachable".to_owned());
    assert_eq!(end(Wrong::TrapsInOpen), Err(broken));
}
