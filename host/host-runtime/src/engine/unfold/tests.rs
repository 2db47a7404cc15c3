//! Functions of every shape, called from one, before and after: the same answers for the same fuel.

use wasmparser::Operator;
use wasmtime::component::Linker;
use wasmtime::{Engine, Store};

use super::*;
use crate::engine::{Time, config};

/// A component whose `run` does what `body` says to `n`; the functions below are there to be called.
fn component(body: &str) -> Vec<u8> {
    let max = Measure::LARGE.callee_max;
    let (locals, table) = ("i32 ".repeat(max), "0 ".repeat(max + 1));
    let text = format!(
        r#"(component
  (core module $m
    (memory 1)
    (func $minus (param i32 i32) (result i32) local.get 0 local.get 1 i32.sub)
    ;; Counts on its locals being zero.
    (func $sum (param i32) (result i32) (local i32 i64)
      (loop
        local.get 1 local.get 0 i32.add local.set 1
        local.get 2 i64.const 1 i64.add local.set 2
        (br_if 0 (local.tee 0 (call $minus (local.get 0) (i32.const 1)))))
      local.get 1 local.get 2 i32.wrap_i64 i32.add)
    ;; Its own locals live on across two calls, one in the other.
    (func $sums (param i32) (result i32) (local i32 i32)
      (local.set 1 (i32.add (local.get 0) (i32.const 3)))
      (local.set 2 (call $sum (call $sum (local.get 1))))
      (i32.xor (local.get 2) (call $minus (local.get 1) (local.get 0))))
    (func $deep (param i32) (result i32) (local i32)
      (local.set 1 (call $sums (local.get 0)))
      (i32.add (call $sums (local.get 0)) (local.get 1)))
    (func $early (param i32) (result i64)
      (block
        (br_if 0 (i32.and (local.get 0) (i32.const 1)))
        (drop (br_if 1 (i64.const 5) (i32.eqz (local.get 0))))
        (drop (block (result i64) (br_table 0 2 0 (i64.const 11) (local.get 0)))))
      i64.const 9)
    (func $late (param i32) (result i64)
      (if (i32.gt_u (local.get 0) (i32.const 6)) (then (return (i64.const 7))))
      i64.const 3)
    (func $quiet (param i32)
      (if (i32.eqz (local.get 0)) (then return))
      (i32.store8 (local.get 0) (local.get 0)))
    (func $pair (param i32) (result i32 i64)
      local.get 0 i32.const 2 i32.mul local.get 0 i64.extend_i32_u)
    (func $early_pair (param i32) (result i32 i64)
      (if (local.get 0) (then (return (i32.const 1) (i64.const 2))))
      i32.const 3 i64.const 4)
    (func $float (param f64 f32) (result f64) (local f64)
      (f64.add (local.get 2) (f64.sub (local.get 0) (f64.promote_f32 (local.get 1)))))
    (func $vector (param i32) (result i32) (local v128) local.get 0)
    (func $roomy (param i32) (result i32) (local {locals}) local.get 0)
    (func $switch (param i32) (result i64) (block (br_table {table} 0 (local.get 0))) i64.const 4)
    (func $again (param i32) (result i32)
      (if (result i32) (local.get 0)
        (then (i32.add (i32.const 1) (call $again (call $minus (local.get 0) (i32.const 1)))))
        (else (i32.const 0))))
    (func $fails (param i32) (result i32)
      (if (i32.eq (local.get 0) (i32.const 3)) (then unreachable))
      local.get 0)
    (func (export "run") (param $n i32) (result i64) (local $x i32) (local $y i64)
      {body}))
  (core instance $i (instantiate $m))
  (func (export "run") (param "n" s32) (result s64) (canon lift (core func $i "run"))))"#
    );
    wat::parse_str(text).unwrap()
}

/// What `run` answers to the first numbers, and the fuel that it takes; `None`: it fails.
fn answers(unfolded: bool, component: &[u8]) -> Vec<Option<(i64, u64)>> {
    const FUEL: u64 = 1_000_000;
    let mut config = config(Time::Real);
    if !unfolded {
        config.operator_cost(OperatorCost::new());
    }
    let engine = Engine::new(&config).unwrap();
    let component = wasmtime::component::Component::from_binary(&engine, component).unwrap();
    let linker = Linker::new(&engine);
    let answer = |n: i32| {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        store.set_fuel(FUEL).unwrap();
        let instance = linker.instantiate(&mut store, &component).unwrap();
        let run = instance.get_typed_func::<(i32,), (i64,)>(&mut store, "run");
        let (answer,) = run.unwrap().call(&mut store, (n,)).ok()?;
        Some((answer, FUEL - store.get_fuel().unwrap()))
    };
    (0..12).map(answer).collect()
}

/// Calls that are left in the last function, `run`.
fn calls(component: &[u8]) -> usize {
    let bodies = Parser::new(0).parse_all(component);
    let bodies = bodies.filter_map(|payload| match payload.unwrap() {
        Payload::CodeSectionEntry(body) => Some(body),
        _ => None,
    });
    let mut reader = bodies.last().unwrap().get_operators_reader().unwrap();
    let mut calls = 0;
    while !reader.eof() {
        calls += usize::from(matches!(reader.read().unwrap(), Operator::Call { .. }));
    }
    calls
}

/// `run` with this body answers the same when it is unfolded, and so many calls are left in it.
fn check(body: &str, left: usize) {
    let before = component(body);
    for measure in [Measure::SMALL, Measure::LARGE] {
        let after = unfold(&before, measure).unwrap();
        assert_eq!(answers(true, &after), answers(false, &before), "{body}");
        assert_eq!(calls(&after), left, "{body}");
    }
}

#[test]
fn arguments_keep_their_order() {
    check(
        "(i64.extend_i32_s (call $minus (i32.const 100) (local.get $n)))",
        0,
    );
}

#[test]
fn locals_are_zero_each_time_and_those_of_callers_are_kept() {
    check(
        "(loop
           (local.set $x (call $minus (call $deep (local.get $n)) (local.get $x)))
           (br_if 0 (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 9))))
         (i64.extend_i32_s (i32.add (local.get $x) (local.get $n)))",
        // `deep` calls two of what is no longer small by then.
        2,
    );
}

#[test]
fn what_leaves_early_leaves_only_itself() {
    check(
        "(local.set $y (i64.sub (call $early (local.get $n)) (call $late (local.get $n))))
         (call $quiet (local.get $n))
         (i64.add (i64.const 1000) (i64.add (local.get $y)
           (i64.extend_i32_u (i32.load8_u (local.get $n)))))",
        0,
    );
}

#[test]
fn several_results_are_left_where_they_were() {
    check(
        "(call $pair (local.get $n)) local.set $y i64.extend_i32_s local.get $y i64.add",
        0,
    );
    // A block would need a type that is not there.
    check(
        "(call $early_pair (local.get $n)) local.set $y i64.extend_i32_s local.get $y i64.add",
        1,
    );
}

#[test]
fn numbers_of_every_type_are_handed_over_and_nothing_else() {
    check(
        "(i64.trunc_f64_s (call $float (f64.convert_i32_s (local.get $n)) (f32.const 0.5)))",
        0,
    );
    check("(i64.extend_i32_s (call $vector (local.get $n)))", 1);
}

#[test]
fn what_is_short_in_instructions_alone_is_left_where_it_is() {
    check("(i64.extend_i32_s (call $roomy (local.get $n)))", 1);
    check("(call $switch (local.get $n))", 1);
}

#[test]
fn what_calls_itself_ends_somewhere() {
    check("(i64.extend_i32_s (call $again (local.get $n)))", 1);
}

#[test]
fn what_fails_fails_and_what_is_never_reached_is_no_matter() {
    check("(i64.extend_i32_s (call $fails (local.get $n)))", 0);
    check(
        "(return (i64.const 1)) (i64.extend_i32_s (call $minus (call $fails (local.get $n))))",
        0,
    );
}

#[test]
fn a_function_gains_so_much_and_no_more() {
    let body = "(drop (call $sums (local.get $n)))".repeat(4000) + "(i64.const 1)";
    let before = component(&body);
    let after = unfold(&before, Measure::LARGE).unwrap();
    assert!(calls(&after) > 0);
    assert_eq!(answers(true, &after), answers(false, &before));
}

/// Instructions of all functions.
fn instructions(component: &[u8]) -> usize {
    let mut count = 0;
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            let mut reader = body.get_operators_reader().unwrap();
            while !reader.eof() {
                reader.read().unwrap();
                count += 1;
            }
        }
    }
    count
}

#[test]
fn the_modules_of_a_component_gain_so_much_together() {
    // Each of the two would gain more than half of it.
    let small = "local.get 0 i32.add ".repeat(13);
    let large = "local.get 0 call $small drop ".repeat(500);
    let module = format!(
        "(core module (func $small (param i32) (result i32) local.get 0 {small}) {})",
        format!("(func (param i32) {large})").repeat(44)
    );
    let measure = Measure::SMALL;
    let gain = |modules: usize| {
        let before = wat::parse_str(format!("(component {})", module.repeat(modules))).unwrap();
        instructions(&unfold(&before, measure).unwrap()) - instructions(&before)
    };
    let alone = gain(1);
    assert!(alone > GAIN_MAX / 2, "{alone}");
    let together = gain(2);
    // The last function that is taken in may bring a little more than there is room for.
    assert!(together < GAIN_MAX + 3 * measure.callee_max, "{together}");
}
