//! In virtual time an instance takes over the memory of one before it, and nobody sees that.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

/// Each call counts in one byte of each page that the memory begins with and of each that is added, and answers their sum.
const COUNTER: &str = r#"(component
  (core module $m
    (memory (export "mem") 2 100)
    (func (export "count") (param $pages i32) (result i32) (local $at i32) (local $sum i32)
      (drop (memory.grow (local.get $pages)))
      (loop $next
        (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 65536)))
        (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
      local.get $sum))
  (core instance $i (instantiate $m))
  (func $count (param "pages" u32) (result u32) (canon lift (core func $i "count")))
  (instance $run (export "count" (func $count)))
  (export "test:unit/run@0.1.0" (instance $run)))"#;

#[test]
fn an_instance_finds_nothing_of_the_one_before_it() {
    let bytes = wat::parse_str(COUNTER).unwrap();
    let engine = simulated();
    // Pages within and beyond what is kept for the next one.
    for pages in [0, 13, 3, 13] {
        let mut guest = Instance::new(&engine, &bytes, SMALL);
        let count = guest.call::<_, (u32,)>("count", (pages,));
        assert_eq!(count, Ok((2 + pages,)));
    }
}

#[test]
fn limits_of_memory_are_those_of_the_budget() {
    let engine = simulated();
    let mut guest = Instance::new(&engine, &guest(1), SMALL);
    assert_eq!(guest.call::<_, (i32,)>("grow", (15u32,)), Ok((1,)));
    assert_eq!(guest.call::<_, (i32,)>("grow", (1u32,)), Ok((-1,)));
    let fault = guest.call::<_, ()>("hog", ()).unwrap_err();
    let wanted = GuestFault::TooMuch {
        what: "bytes of memory",
        asked: 80 * 65_536,
        max: SMALL.memory_bytes,
    };
    assert_eq!(fault, wanted);
}

#[test]
fn a_process_that_may_not_reserve_a_pool_compiles_for_one_that_may() {
    let kind = |engine: &wasmtime::Engine| {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    };
    let pooled = inner(Time::Virtual).unwrap();
    let plain = wasmtime::Engine::new(&config(Time::Virtual)).unwrap();
    assert_eq!(kind(&pooled), kind(&plain));
}
