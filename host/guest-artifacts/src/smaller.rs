//! What the build step does to the code of a module whose size counts, shown with modules of a few functions.

use wasmparser::{Parser, Payload};

use crate::code::{Code, Kind};
use crate::live::Live;
use crate::{branches, constants, outline};

/// Functions that all do this, each with instructions of its own behind it.
fn functions(count: usize, parameters: &str, body: &str) -> String {
    (0..count)
        .map(|n| {
            format!("(func (export \"f{n}\") (param {parameters}) {body} i32.const {n} call 0)")
        })
        .collect()
}

fn module(functions: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "host" "say" (func (param i32)))
            (memory 1)
            (global (mut i32) (i32.const 0))
            {functions})"#
    ))
    .unwrap()
}

/// The instructions of each function, as text.
fn listing(module: &[u8]) -> Vec<Vec<String>> {
    let mut listing = vec![];
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            let operators = body.get_operators_reader().unwrap().into_iter();
            listing.push(operators.map(|o| format!("{:?}", o.unwrap())).collect());
        }
    }
    listing
}

/// How many instructions there are of which the text starts so.
fn count(module: &[u8], start: &str) -> usize {
    let listing = listing(module);
    let instructions = listing.iter().flatten();
    instructions.filter(|text| text.starts_with(start)).count()
}

#[test]
fn code_that_is_only_read_is_written_as_it_was() {
    let module = module(&functions(3, "i32 i64", "local.get 0 call 0"));
    let code = Code::read(&module).unwrap();
    assert_eq!(
        (code.imported, code.functions.len(), code.globals),
        (1, 3, 1)
    );
    assert_eq!(code.write(&module).unwrap(), module);
}

#[test]
fn what_is_no_module_is_refused() {
    let module = module(&functions(3, "i32", ""));
    assert!(outline::outline(&module[..module.len() - 3]).is_err());
    assert!(constants::hoist(b"\0asm").is_err());
}

#[test]
fn a_long_constant_that_stands_often_becomes_a_global_that_nobody_writes() {
    let often = "i32.const -2147483648 call 0 i64.const 4294967296 drop";
    let before = module(&functions(5, "", often));
    let after = constants::hoist(&before).unwrap();
    assert_eq!(count(&after, "I32Const { value: -2147483648 }"), 0);
    assert_eq!(count(&after, "I64Const"), 0);
    assert_eq!(count(&after, "GlobalGet"), 10);
    // The numbers of the functions, which are short.
    assert_eq!(count(&after, "I32Const"), 5);
    let globals: Vec<_> = Parser::new(0)
        .parse_all(&after)
        .filter_map(|payload| match payload.unwrap() {
            Payload::GlobalSection(section) => Some(section),
            _ => None,
        })
        .flatten()
        .map(|global| {
            let global = global.unwrap();
            let value = global.init_expr.get_operators_reader().read().unwrap();
            (global.ty.mutable, format!("{value:?}"))
        })
        .collect();
    let globals: Vec<_> = globals.iter().map(|(m, v)| (*m, v.as_str())).collect();
    assert_eq!(
        globals,
        [
            (true, "I32Const { value: 0 }"),
            (false, "I32Const { value: -2147483648 }"),
            (false, "I64Const { value: 4294967296 }"),
        ]
    );
}

#[test]
fn a_constant_that_saves_nothing_stays() {
    let before = module(&functions(2, "", "i32.const -2147483648 call 0"));
    assert_eq!(constants::hoist(&before).unwrap(), before);
}

#[test]
fn a_constant_stays_where_a_global_of_its_own_would_take_a_long_number() {
    let globals = "(global i32 (i32.const 0))".repeat(255);
    let often = functions(5, "", "i32.const -2147483648 call 0");
    let before = module(&format!("{globals}{often}"));
    assert_eq!(constants::hoist(&before).unwrap(), before);
}

#[test]
fn what_stands_in_many_places_becomes_a_function() {
    // Parameters of all functions; what they have in common; parameters and results of what is made of it.
    let rows = [
        (
            "reads locals",
            "i32 i32",
            "local.get 1 i32.load offset=300 local.get 0 i32.const 1000 i32.add i32.store offset=300",
            (2, 0),
        ),
        (
            "takes from the stack",
            "i32",
            "global.get 0 local.get 0 i32.store offset=300 i32.const 7000 i32.load offset=300 call 0",
            (1, 0),
        ),
        (
            "leaves on the stack",
            "i32",
            "local.get 0 i32.load offset=300 i32.load offset=400 i32.load offset=500 br_if 0",
            (1, 1),
        ),
        (
            "has a block of its own",
            "i64",
            "block local.get 0 i64.eqz br_if 0 i32.const 77777 call 0 end",
            (1, 0),
        ),
    ];
    for (what, parameters, body, ty) in rows {
        let before = module(&functions(6, parameters, body));
        let after = outline::outline(&before).unwrap();
        assert!(after.len() < before.len(), "{what}");
        let code = Code::read(&after).unwrap();
        let [.., made] = &code.functions[..] else {
            unreachable!()
        };
        assert_eq!(code.functions.len(), 7, "{what}");
        let made = &code.types[made.ty as usize];
        assert_eq!((made.params().len(), made.results().len()), ty, "{what}");
        assert_eq!(count(&after, "Call { function_index: 7 }"), 6, "{what}");
    }
}

#[test]
fn the_same_with_other_locals_is_the_same() {
    let body = |a, b| {
        format!("local.get {a} i32.load offset=300 local.get {b} i32.const 1000 i32.add i32.store")
    };
    let text: String = [(0, 1), (1, 0), (1, 2), (2, 0)]
        .iter()
        .map(|(a, b)| functions(1, "i32 i32 i32", &body(a, b)).replace("(export \"f0\")", ""))
        .collect();
    let after = outline::outline(&module(&text)).unwrap();
    assert_eq!(count(&after, "Call { function_index: 5 }"), 4);
    let calls: Vec<_> = listing(&after).iter().map(|f| f[..2].join(" ")).collect();
    assert_eq!(
        calls[3],
        "LocalGet { local_index: 2 } LocalGet { local_index: 0 }"
    );
}

#[test]
fn what_belongs_to_the_function_round_it_stays() {
    let rows = [
        (
            "it returns",
            "local.get 0 i32.const 70000 i32.eq if return end",
        ),
        (
            "it branches out",
            "block local.get 0 i32.const 70000 i32.eq br_if 1 end",
        ),
        (
            "a loop that calls nothing",
            "loop local.get 0 i32.load offset=300 local.get 0 i32.load offset=400 i32.ne br_if 0 end",
        ),
        (
            "a block that is not known",
            "block try_table end local.get 0 i32.load offset=300 i32.load offset=400 local.tee 0 i32.load call 0
                i32.const 1 br_if 0 unreachable end local.get 0 call 0",
        ),
    ];
    for (what, body) in rows {
        let before = module(&functions(6, "i32", body));
        assert_eq!(outline::outline(&before).unwrap(), before, "{what}");
    }
}

#[test]
fn a_local_that_is_written_is_a_result_if_it_is_read_behind_and_a_parameter_if_its_value_matters() {
    let load = "local.get 0 i32.load offset=300 i32.load offset=400";
    let store = "local.get 1 i32.store offset=500";
    // What they have in common; what differs behind it; parameters, results and own locals of what is made of it.
    let rows = [
        (
            "read behind",
            format!("{load} local.set 1 local.get 0 {store}"),
            "local.get 1 br_if 0",
            (1, 1, 1),
        ),
        (
            "not read behind",
            format!("{load} local.set 1 local.get 0 {store}"),
            "",
            (1, 0, 1),
        ),
        (
            "written behind, and read then",
            format!("{load} local.tee 1 {store}"),
            "i32.const 0 local.set 1 local.get 1 br_if 0",
            (1, 0, 1),
        ),
        (
            "perhaps written, and read behind",
            format!("local.get 0 if {load} local.tee 1 {store} end"),
            "local.get 1 br_if 0",
            (2, 1, 0),
        ),
        (
            "read, then written",
            format!("local.get 1 {store} {load} local.set 1"),
            "local.get 1 br_if 0",
            (2, 1, 0),
        ),
        (
            "read at the next turn of a loop",
            format!("loop local.get 1 call 0 {load} local.tee 1 {store} local.get 0 br_if 0 end"),
            "",
            (2, 0, 0),
        ),
        (
            "perhaps written, never read",
            format!(
                "block local.get 0 i32.eqz br_if 0 {load} local.set 1 i32.const 77777 call 0 end"
            ),
            "",
            (2, 0, 0),
        ),
        (
            "perhaps written, then written",
            format!("local.get 0 if {load} local.set 1 end {load} local.set 1"),
            "local.get 1 br_if 0",
            (2, 1, 0),
        ),
    ];
    for (what, body, behind, ty) in rows {
        let text: String = (0..6)
            .map(|n| {
                // What leads out belongs to no piece: so the body is one, from its first byte to its last.
                format!(
                    "(func (param i32 i32) (local i32) i32.const {n} br_if 0 {body} i32.const {n} br_if 0 {behind})"
                )
            })
            .collect();
        let after = outline::outline(&module(&text)).unwrap();
        let code = Code::read(&after).unwrap();
        let made = &code.functions[6];
        let ty_made = &code.types[made.ty as usize];
        let own = usize::from(made.locals[0]);
        let found = (ty_made.params().len(), ty_made.results().len(), own);
        assert_eq!(found, ty, "{what}");
    }
}

#[test]
fn a_local_is_live_where_something_behind_reads_it_before_it_is_written() {
    // Code that calls 0 where the question is asked, of local 1.
    let rows = [
        ("call 0 local.get 1 drop", true),
        ("call 0 i32.const 1 local.set 1 local.get 1 drop", false),
        ("local.get 1 drop call 0", false),
        (
            "local.get 1 drop loop call 0 i32.const 1 br_if 0 end",
            false,
        ),
        ("loop local.get 1 drop call 0 i32.const 1 br_if 0 end", true),
        (
            "call 0 i32.const 1 if i32.const 1 local.set 1 end local.get 1 drop",
            true,
        ),
        (
            "call 0 i32.const 1 if i32.const 1 local.set 1 else local.get 1 drop end",
            true,
        ),
        (
            "call 0 i32.const 1 if i32.const 1 local.set 1 else i32.const 1 local.set 1 end local.get 1 drop",
            false,
        ),
        ("block call 0 br 0 local.get 1 drop end", false),
        (
            "block call 0 i32.const 1 br_if 0 local.get 1 drop end",
            true,
        ),
        (
            "block block call 0 i32.const 1 br_table 0 1 end local.get 1 drop end",
            true,
        ),
        ("block block call 0 br 1 end local.get 1 drop end", false),
        ("call 0 unreachable local.get 1 drop", false),
    ];
    for (body, live) in rows {
        let module = module(&format!(
            "(func (param i32 i32) {})",
            body.replace("call 0", "i32.const 7 call 0")
        ));
        let code = Code::read(&module).unwrap();
        let function = &code.functions[0];
        let call = function
            .instructions
            .iter()
            .position(|i| i.kind == Kind::Call(0));
        assert_eq!(
            Live::of(function).is_live(call.unwrap() + 1, 1),
            live,
            "{body}"
        );
    }
}

#[test]
fn the_same_bytes_for_other_types_are_not_the_same() {
    let body = "global.get 0 global.get 0 drop drop drop";
    let text: String = ["i32", "i64", "f32", "f64"]
        .iter()
        .map(|ty| format!("(func (param {ty}) local.get 0 {body})"))
        .collect();
    let after = outline::outline(&module(&text)).unwrap();
    let code = Code::read(&after).unwrap();
    for made in &code.functions[4..] {
        assert_eq!(code.types[made.ty as usize].params(), []);
    }
}

#[test]
fn a_branch_round_code_becomes_an_if() {
    // Code between the function's begin and end; what it becomes.
    let rows = [
        (
            "the rest of the block",
            "block local.get 0 br_if 0 i32.const 1 call 0 end",
            "local.get 0 i32.eqz if i32.const 1 call 0 end",
        ),
        (
            "an opposite that costs nothing",
            "block local.get 0 i32.const 7 i32.lt_u br_if 0 i32.const 1 call 0 end",
            "local.get 0 i32.const 7 i32.ge_u if i32.const 1 call 0 end",
        ),
        (
            "twice the opposite",
            "block local.get 0 i32.eqz br_if 0 i32.const 1 call 0 end",
            "local.get 0 if i32.const 1 call 0 end",
        ),
        (
            "code before the branch, which leads further out",
            "loop block local.get 0 br_if 1 local.get 0 br_if 0 call 1 end end",
            "loop local.get 0 br_if 0 local.get 0 i32.eqz if call 1 end end",
        ),
        (
            "another branch to the same end",
            "block local.get 0 br_if 0 loop call 1 local.get 0 br_if 1 br 0 end end",
            "local.get 0 i32.eqz if loop call 1 local.get 0 br_if 1 br 0 end end",
        ),
        (
            "two ways",
            "block block local.get 0 br_if 0 call 1 br 1 end call 2 end",
            "local.get 0 if call 2 else call 1 end",
        ),
        (
            "two ways, and branches out of all of it",
            "loop block block local.get 0 br_if 0 local.get 0 br_if 2 call 1 br 1 end
                local.get 0 br_table 0 1 0 end end",
            "loop local.get 0 if local.get 0 br_table 0 1 0 else
                local.get 0 br_if 1 call 1 end end",
        ),
    ];
    for (what, before, after) in rows {
        let [before, after] = [before, after].map(one);
        let folded = branches::fold(&before).unwrap();
        assert_eq!(listing(&folded), listing(&after), "{what}");
        assert!(folded.len() < before.len(), "{what}");
    }
}

#[test]
fn what_no_if_can_do_stays() {
    let rows = [
        (
            "a loop's branch leads back",
            "loop call 1 local.get 0 br_if 0 call 2 end",
        ),
        (
            "an earlier branch",
            "block loop local.get 0 br_if 1 end local.get 0 br_if 0 call 2 end",
        ),
        (
            "the end of the if is not that of the block",
            "block local.get 0 if local.get 0 br_if 0 br 1 end call 1 end",
        ),
        (
            "a value of the block",
            "block (result i32) i32.const 1 local.get 0 br_if 0 call 1 end drop",
        ),
        (
            "more on the stack",
            "block i32.const 1 local.get 0 br_if 0 call 0 end",
        ),
        ("never reached", "block br 0 local.get 0 br_if 0 call 1 end"),
        (
            "a branch that is not known",
            "block block ref.null func br_on_null 1 drop local.get 0 br_if 0 call 1 end call 2 end",
        ),
    ];
    for (what, body) in rows {
        let before = one(body);
        let folded = branches::fold(&before).unwrap();
        assert_eq!(listing(&folded), listing(&before), "{what}");
    }
}

/// A module with a function of these instructions, and two more that it may call.
fn one(body: &str) -> Vec<u8> {
    module(&format!("(func) (func) (func (param i32) {body})"))
}
