//! Guests written by hand: one component that can misbehave in every way the engine has a limit for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use wasmtime::component::{ComponentNamedList, Lift, Lower};

use super::*;

mod pool;

/// A world for these tests only.
const UNIT: World = World {
    name: "unit",
    package: "test:unit",
    version: (0, 1, 0),
    imports: &["host", "extra"],
    exports: &["run"],
};

/// Fuel small enough that a spinning debug build ends at once.
const SMALL: Budget = Budget {
    fuel: 1_000_000,
    memory_bytes: 1024 * 1024,
    hostcall_bytes: 64 * 1024,
    host_calls: 10,
    ..Budget::AGENT
};

/// A meter, how many ticks the host takes for a `ping`, and whether that is excused.
struct Data(Meter, u64, bool);

impl Metered for Data {
    fn meter(&mut self) -> &mut Meter {
        &mut self.0
    }
}

/// The component; `host` and `run` are the full names of its import and its export.
fn guest_text(host: &str, run: &str, answer: u32) -> String {
    format!(
        r#"(component
  (import "{host}" (instance $host
    (export "ping" (func))
    (export "take" (func (param "bytes" (list u8))))))
  (core module $mem
    (memory (export "mem") 1 100)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
  (core instance $mem (instantiate $mem))
  (core func $ping (canon lower (func $host "ping")))
  (core func $take (canon lower (func $host "take") (memory $mem "mem")))
  (core module $m
    (import "mem" "mem" (memory 1))
    (import "host" "ping" (func $ping))
    (import "host" "take" (func $take (param i32 i32)))
    (func (export "answer") (result i32) i32.const {answer})
    (func (export "spin") (loop br 0))
    (func (export "panic") unreachable)
    (func (export "flood") (loop call $ping br 0))
    (func (export "give") (param i32) i32.const 0 local.get 0 call $take)
    (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
    (func (export "hog")
      (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))))
  (core instance $i (instantiate $m
    (with "mem" (instance $mem))
    (with "host" (instance (export "ping" (func $ping)) (export "take" (func $take))))))
  (func $answer (result u32) (canon lift (core func $i "answer")))
  (func $spin (canon lift (core func $i "spin")))
  (func $panic (canon lift (core func $i "panic")))
  (func $flood (canon lift (core func $i "flood")))
  (func $give (param "n" u32) (canon lift (core func $i "give")))
  (func $grow (param "n" u32) (result s32) (canon lift (core func $i "grow")))
  (func $hog (canon lift (core func $i "hog")))
  (instance $run
    (export "answer" (func $answer))
    (export "spin" (func $spin))
    (export "panic" (func $panic))
    (export "flood" (func $flood))
    (export "give" (func $give))
    (export "grow" (func $grow))
    (export "hog" (func $hog)))
  (export "{run}" (instance $run)))"#
    )
}

fn guest(answer: u32) -> Vec<u8> {
    wat::parse_str(guest_text(
        "test:unit/host@0.1.0",
        "test:unit/run@0.1.0",
        answer,
    ))
    .unwrap()
}

struct Instance {
    engine: Arc<Engine>,
    store: Store<Data>,
    instance: wasmtime::component::Instance,
}

impl Instance {
    fn new(engine: &Arc<Engine>, bytes: &[u8], budget: Budget) -> Self {
        let loaded = engine.load(bytes, &UNIT, &["host"]).unwrap();
        let mut linker = engine.linker::<Data>();
        let mut host = linker.instance("test:unit/host@0.1.0").unwrap();
        host.func_wrap("ping", |mut store, (): ()| {
            let Data(meter, time, excused) = store.data_mut();
            let (time, excused) = (*time, *excused);
            meter.host_call()?;
            if time == 0 {
                return Ok(());
            }
            let began = store.data_mut().meter().ticks();
            while store.data_mut().meter().ticks() < began + time {
                std::thread::yield_now();
            }
            if excused {
                store.data_mut().meter().excuse_since(began);
            }
            Ok(())
        })
        .unwrap();
        host.func_wrap("take", |_, (_bytes,): (Vec<u8>,)| Ok(()))
            .unwrap();
        let mut store = engine.store(Data(Meter::new(budget), 0, false));
        let instance = engine
            .call(&mut store, |store| {
                linker.instantiate(store, &loaded.component)
            })
            .unwrap();
        Self {
            engine: Arc::clone(engine),
            store,
            instance,
        }
    }

    fn call<P, R>(&mut self, name: &str, params: P) -> Result<R, GuestFault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let run = self
            .instance
            .get_export_index(&mut self.store, None, "test:unit/run@0.1.0")
            .unwrap();
        let index = self
            .instance
            .get_export_index(&mut self.store, Some(&run), name)
            .unwrap();
        let function = self
            .instance
            .get_typed_func::<P, R>(&mut self.store, index)
            .unwrap();
        self.engine
            .call(&mut self.store, |store| function.call(store, params))
    }
}

fn engine() -> Arc<Engine> {
    Engine::new(&EngineOptions::default()).unwrap()
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let mut guest = Instance::new(&engine(), &guest(1), SMALL);
    let fault = guest.call::<_, ()>("spin", ()).unwrap_err();
    assert_eq!(fault, GuestFault::OutOfFuel { fuel: SMALL.fuel });
}

#[test]
fn an_endless_loop_with_fuel_left_is_ended_by_the_clock() {
    let budget = Budget {
        fuel: u64::MAX / 2,
        ticks: 2,
        ..SMALL
    };
    let mut guest = Instance::new(&engine(), &guest(1), budget);
    let fault = guest.call::<_, ()>("spin", ()).unwrap_err();
    assert_eq!(fault, GuestFault::TooSlow { ms: 20 });
}

fn engine_in(time: Time) -> Arc<Engine> {
    Engine::new(&EngineOptions {
        time,
        ..EngineOptions::default()
    })
    .unwrap()
}

fn simulated() -> Arc<Engine> {
    engine_in(Time::Virtual)
}

#[test]
fn in_virtual_time_a_guest_does_the_same_with_the_same_fuel_and_only_fuel_ends_it() {
    let spent = |engine: &Arc<Engine>| {
        let mut guest = Instance::new(engine, &guest(3), SMALL);
        assert_eq!(guest.call::<_, (u32,)>("answer", ()), Ok((3,)));
        guest.store.get_fuel().unwrap()
    };
    assert_eq!(spent(&simulated()), spent(&engine()));
    let budget = Budget { ticks: 0, ..SMALL };
    let mut guest = Instance::new(&simulated(), &guest(1), budget);
    let fault = guest.call::<_, ()>("spin", ()).unwrap_err();
    assert_eq!(fault, GuestFault::OutOfFuel { fuel: SMALL.fuel });
}

#[test]
fn in_haste_a_guest_does_the_same_and_what_does_not_end_is_ended_and_counted() {
    let engine = engine_in(Time::Hasty);
    let mut good = Instance::new(&engine, &guest(3), SMALL);
    let before = haste_faults();
    assert_eq!(good.call::<_, (u32,)>("answer", ()), Ok((3,)));
    assert_eq!(haste_faults(), before);
    for (call, fault) in [
        ("spin", GuestFault::TooSlow { ms: 30 }),
        ("flood", GuestFault::TooManyHostCalls { max: 10 }),
    ] {
        let before = haste_faults();
        let mut bad = Instance::new(&engine, &guest(1), SMALL);
        assert_eq!(bad.call::<_, ()>(call, ()), Err(fault));
        assert_eq!(haste_faults(), before + 1);
    }
}

#[test]
fn a_fault_of_a_guest_that_is_not_in_haste_is_not_counted_as_one() {
    let before = haste_faults();
    let mut guest = Instance::new(&simulated(), &guest(1), SMALL);
    assert!(guest.call::<_, ()>("spin", ()).is_err());
    assert_eq!(haste_faults(), before);
}

#[test]
fn time_that_the_host_spends_for_a_guest_is_not_the_guest_s() {
    let budget = Budget { ticks: 15, ..SMALL };
    let host_time = 6;
    // Ten calls of six ticks are four times the deadline: excused they end at the eleventh call, else at the clock.
    for excused in [true, false] {
        let mut guest = Instance::new(&engine(), &guest(1), budget.clone());
        let data = guest.store.data_mut();
        (data.1, data.2) = (host_time, excused);
        let fault = guest.call::<_, ()>("flood", ()).unwrap_err();
        let expected = match excused {
            true => GuestFault::TooManyHostCalls { max: 10 },
            false => GuestFault::TooSlow { ms: 150 },
        };
        assert_eq!(fault, expected);
    }
}

#[test]
fn the_epoch_thread_sleeps_when_no_guest_runs() {
    let engine = engine();
    let mut guest = Instance::new(&engine, &guest(7), SMALL);
    assert_eq!(guest.call::<_, (u32,)>("answer", ()), Ok((7,)));
    while !engine.ticker.as_ref().unwrap().is_asleep() {
        std::thread::yield_now();
    }
}

#[test]
fn a_guest_gets_a_fresh_budget_for_every_call() {
    let mut guest = Instance::new(&engine(), &guest(7), SMALL);
    for _ in 0..3 {
        assert_eq!(guest.call::<_, (u32,)>("answer", ()), Ok((7,)));
    }
}

#[test]
fn a_memory_hog_is_ended_and_the_fault_says_what_it_wanted() {
    let mut guest = Instance::new(&engine(), &guest(1), SMALL);
    let fault = guest.call::<_, ()>("hog", ()).unwrap_err();
    let wanted = GuestFault::TooMuch {
        what: "bytes of memory",
        asked: 65 * 65_536,
        max: SMALL.memory_bytes,
    };
    assert_eq!(fault, wanted);
}

#[test]
fn memory_up_to_the_limit_is_given_and_one_page_more_is_not() {
    let mut guest = Instance::new(&engine(), &guest(1), SMALL);
    assert_eq!(guest.call::<_, (i32,)>("grow", (15u32,)), Ok((1,)));
    assert_eq!(guest.store.data_mut().meter().memory_bytes(), 16 * 65_536);
    assert_eq!(guest.call::<_, (i32,)>("grow", (1u32,)), Ok((-1,)));
    assert_eq!(guest.store.data_mut().meter().memory_bytes(), 16 * 65_536);
}

#[test]
fn a_trap_poisons_the_instance() {
    let mut guest = Instance::new(&engine(), &guest(1), SMALL);
    let panicked = guest.call::<_, ()>("panic", ()).unwrap_err();
    let after = guest.call::<_, (u32,)>("answer", ()).unwrap_err();
    assert!(panicked.to_string().contains("unreachable"), "{panicked}");
    assert!(after.to_string().contains("cannot enter"), "{after}");
}

#[test]
fn a_guest_that_calls_the_host_without_end_is_ended() {
    let mut guest = Instance::new(&engine(), &guest(1), SMALL);
    let fault = guest.call::<_, ()>("flood", ()).unwrap_err();
    assert_eq!(fault, GuestFault::TooManyHostCalls { max: 10 });
}

#[test]
fn a_host_call_takes_no_more_bytes_than_the_budget_says() {
    let mut fits = Instance::new(&engine(), &guest(1), SMALL);
    assert_eq!(fits.call::<_, ()>("give", (60_000u32,)), Ok(()));
    let mut wide = Budget::AGENT;
    wide.hostcall_bytes = 1000;
    let mut over = Instance::new(&engine(), &guest(1), wide);
    let fault = over.call::<_, ()>("give", (60_000u32,)).unwrap_err();
    assert!(fault.to_string().contains("too much data"), "{fault}");
}

#[test]
fn another_patch_version_of_the_contract_links() {
    let text = guest_text("test:unit/host@0.1.9", "test:unit/run@0.1.0", 3);
    let bytes = wat::parse_str(text).unwrap();
    let mut guest = Instance::new(&engine(), &bytes, SMALL);
    assert_eq!(guest.call::<_, (u32,)>("answer", ()), Ok((3,)));
}

#[test]
fn a_bad_component_is_refused_in_words_before_it_is_compiled() {
    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }
    let ok = guest(1);
    let rows: [(&str, Vec<u8>, &str); 12] = [
        (
            "text",
            b"hello, world".to_vec(),
            "not a WebAssembly component",
        ),
        ("nothing", Vec::new(), "not a WebAssembly component"),
        (
            "a library",
            b"\x7fELF\x02\x01\x01\0".to_vec(),
            "component: it does not begin with `\\0asm`",
        ),
        ("core module", component("(module)"), "core module"),
        ("half", ok[..ok.len() / 2].to_vec(), "unexpected end"),
        ("huge", vec![0; COMPONENT_MAX_BYTES + 1], "4194305 bytes"),
        (
            "wasi",
            component(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#),
            "`wasi:cli/environment@0.2.0`",
        ),
        (
            "unknown interface",
            component(r#"(component (import "test:unit/clock@0.1.0" (instance)))"#),
            "`test:unit/clock@0.1.0`",
        ),
        (
            "import version",
            component(r#"(component (import "test:unit/host@0.2.0" (instance)))"#),
            "this host speaks test:unit@0.1.x",
        ),
        (
            "export version",
            component(&guest_text(
                "test:unit/host@0.1.0",
                "test:unit/run@1.1.0",
                1,
            )),
            "`test:unit/run@1.1.0`",
        ),
        (
            "not granted",
            component(r#"(component (import "test:unit/extra@0.1.0" (instance)))"#),
            "`extra`, which is not granted",
        ),
        (
            "missing export",
            component(r#"(component (import "test:unit/host@0.1.0" (instance)))"#),
            "does not export `test:unit/run`",
        ),
    ];
    let engine = engine();
    for (name, bytes, wanted) in rows {
        let refusal = engine.load(&bytes, &UNIT, &["host"]).unwrap_err();
        assert!(!matches!(refusal, Refusal::Compile(_)), "{name}: {refusal}");
        assert!(refusal.to_string().contains(wanted), "{name}: {refusal}");
    }
}

#[test]
fn components_lie_in_each_other_so_deep_and_no_deeper() {
    let text = guest_text("test:unit/host@0.1.0", "test:unit/run@0.1.0", 1);
    let load = |depth: usize| {
        let (begin, end) = ("(component ".repeat(depth), ")".repeat(depth));
        let text = text.replacen("(component", &format!("(component {begin}{end}"), 1);
        let bytes = wat::parse_str(text).unwrap();
        engine().load(&bytes, &UNIT, &["host"]).map(drop)
    };
    assert_eq!(load(8), Ok(()));
    let refusal = load(9).unwrap_err();
    let words = "it has 9 components within each other, at most 8 are taken";
    assert_eq!(refusal.to_string(), words);
}

#[test]
fn a_component_cut_anywhere_or_with_a_flipped_byte_is_refused_or_still_does_its_duties() {
    let ok = guest(1);
    let cuts = (0..ok.len()).map(|cut| ok[..cut].to_vec());
    let flips = (0..ok.len()).map(|at| {
        let mut bytes = ok.clone();
        bytes[at] ^= 0x55;
        bytes
    });
    let (mut refused, mut taken) = (0, 0);
    for bytes in cuts.chain(flips) {
        match check::check(&bytes, &UNIT, &["host"]) {
            Ok(shape) => {
                assert!(shape.exports.contains(&"run".to_owned()));
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    // Bytes within nested modules are wasmtime's to judge; everything that the walk reads is judged here.
    assert!(
        refused > ok.len() && taken > 0,
        "{refused} refused, {taken} taken"
    );
}

#[test]
fn a_component_of_the_world_that_does_not_validate_is_refused() {
    let mut bytes = guest(1);
    // An unknown opcode in the body of `spin`: `loop` (03 40) becomes an instruction that does not exist.
    let at = bytes
        .windows(3)
        .position(|w| w == [0x03, 0x40, 0x0c])
        .unwrap();
    bytes[at] = 0xff;
    let refusal = engine().load(&bytes, &UNIT, &["host"]).unwrap_err();
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal}");
    assert!(refusal.to_string().contains("not valid"), "{refusal}");
}

fn cached(dir: &Path) -> Arc<Engine> {
    let cache_dir = Some(dir.to_owned());
    let options = EngineOptions {
        cache_dir,
        ..EngineOptions::default()
    };
    Engine::new(&options).unwrap()
}

fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    entries
}

fn answer(engine: &Arc<Engine>, bytes: &[u8]) -> u32 {
    let mut guest = Instance::new(engine, bytes, SMALL);
    guest.call::<_, (u32,)>("answer", ()).unwrap().0
}

#[test]
fn compiled_code_is_taken_from_the_cache_and_a_damaged_entry_is_compiled_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    assert_eq!(answer(&cached(&dir), &guest(1)), 1);
    let first = entries(&dir);
    assert_eq!(first.len(), 1);
    // The entry of another component under the first one's name shows that the entry is what runs.
    assert_eq!(answer(&cached(&dir), &guest(2)), 2);
    let second = entries(&dir)
        .into_iter()
        .find(|path| *path != first[0])
        .unwrap();
    let good = fs::read(&first[0]).unwrap();
    fs::copy(&second, &first[0]).unwrap();
    assert_eq!(answer(&cached(&dir), &guest(1)), 2);
    // One byte anywhere, and a cut: compiled again, and written again.
    for damage in [0, 20, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[damage] ^= 1;
        fs::write(&first[0], &bad).unwrap();
        assert_eq!(answer(&cached(&dir), &guest(1)), 1);
        assert_ne!(fs::read(&first[0]).unwrap(), bad);
    }
    fs::write(&first[0], &good[..good.len() / 2]).unwrap();
    assert_eq!(answer(&cached(&dir), &guest(1)), 1);
}

#[test]
fn an_entry_that_others_could_have_written_is_not_taken() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    answer(&cached(&dir), &guest(1));
    answer(&cached(&dir), &guest(2));
    let entries = entries(&dir);
    // Exchange the two, so that an entry that is taken gives the wrong answer; then make each one doubtful.
    let (a, b) = (
        fs::read(&entries[0]).unwrap(),
        fs::read(&entries[1]).unwrap(),
    );
    fs::write(&entries[0], b).unwrap();
    fs::set_permissions(&entries[0], fs::Permissions::from_mode(0o622)).unwrap();
    let aside = temp.path().join("aside");
    fs::write(&aside, a).unwrap();
    fs::remove_file(&entries[1]).unwrap();
    symlink(&aside, &entries[1]).unwrap();
    assert_eq!(answer(&cached(&dir), &guest(1)), 1);
    assert_eq!(answer(&cached(&dir), &guest(2)), 2);
}

#[test]
fn a_cache_directory_that_is_open_to_others_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cache_dir = Some(temp.path().to_owned());
    let options = EngineOptions {
        cache_dir,
        ..EngineOptions::default()
    };
    let error = Engine::new(&options).unwrap_err();
    assert!(error.to_string().contains("mode 0755"), "{error}");
}

#[test]
fn what_was_to_be_compiled_elsewhere_and_was_not_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    let only_cached = |time| {
        let engine = Engine::new(&EngineOptions {
            cache_dir: Some(dir.clone()),
            only_cached: true,
            time,
        });
        engine.unwrap().load(&guest(1), &UNIT, &["host"]).map(drop)
    };
    assert_eq!(only_cached(Time::Real), Err(Refusal::NotCompiled));
    answer(&cached(&dir), &guest(1));
    assert_eq!(only_cached(Time::Real), Ok(()));
    // Code for another time is other code.
    for time in [Time::Virtual, Time::Hasty] {
        assert_eq!(only_cached(time), Err(Refusal::NotCompiled));
    }
}

#[test]
fn the_cache_keeps_a_bounded_number_of_entries() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    let engine = cached(&dir);
    for n in 0..cache::ENTRIES_MAX + 8 {
        fs::write(dir.join(format!("old-{n}.cwasm")), b"x").unwrap();
    }
    assert_eq!(answer(&engine, &guest(1)), 1);
    assert_eq!(entries(&dir).len(), cache::ENTRIES_MAX);
}
