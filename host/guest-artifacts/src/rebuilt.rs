//! What the build step does to a component as a whole, shown with one of the form its encoder gives.

use wasmparser::{Parser, Payload};

use crate::{flat, joint};

/// A module that says what it is told to; its import is stood in for until the memory is there.
const COMPONENT: &str = r#"
    (component
        (type (instance
            (type (record (field "text" string)))
            (export "note" (type (eq 0)))
            (type (func (param "note" 1) (result string)))
            (export "say" (func (type 2)))))
        (import "test:it/host@1.0.0" (instance $host (type 0)))
        (alias export $host "note" (type $note))
        (core module $main
            (import "test:it/host@1.0.0" "say" (func (param i32 i32 i32)))
            (table 2 2 funcref)
            (memory 1 4)
            (func $room (param i32 i32 i32 i32) (result i32) i32.const 64)
            (func $run (param i32 i32) (result i32)
                local.get 0 local.get 1 i32.const 32 call 0 i32.const 32)
            (elem (i32.const 1) func $run)
            (export "memory" (memory 0))
            (export "test:it/guest@1.0.0#run" (func $run))
            (export "cabi_realloc" (func $room)))
        (core module $shim
            (type (func (param i32 i32 i32)))
            (table 1 1 funcref)
            (func (type 0) local.get 0 local.get 1 local.get 2 i32.const 0 call_indirect (type 0))
            (export "0" (func 0))
            (export "$imports" (table 0)))
        (core module $fixup
            (import "" "0" (func (param i32 i32 i32)))
            (import "" "$imports" (table 1 1 funcref))
            (elem (i32.const 0) func 0))
        (core instance $shims (instantiate $shim))
        (alias core export $shims "0" (core func $say0))
        (core instance $host-args (export "say" (func $say0)))
        (core instance $it (instantiate $main (with "test:it/host@1.0.0" (instance $host-args))))
        (alias core export $it "memory" (core memory $memory))
        (alias core export $it "cabi_realloc" (core func $room))
        (alias core export $shims "$imports" (core table $stood-in))
        (alias export $host "say" (func $say))
        (core func $say1
            (canon lower (func $say) (memory $memory) (realloc $room) string-encoding=utf8))
        (core instance $fixup-args
            (export "$imports" (table $stood-in))
            (export "0" (func $say1)))
        (core instance (instantiate $fixup (with "" (instance $fixup-args))))
        (type $run-type (func (param "note" $note) (result string)))
        (alias core export $it "test:it/guest@1.0.0#run" (core func $run))
        (func $lifted (type $run-type)
            (canon lift (core func $run) (memory $memory) (realloc $room) string-encoding=utf8))
        (component $inner
            (type (record (field "text" string)))
            (import "import-type-note" (type $note (eq 0)))
            (type (func (param "note" $note) (result string)))
            (import "import-func-run" (func $run (type 2)))
            (export $own "note" (type $note))
            (type $own-run (func (param "note" $own) (result string)))
            (export "run" (func $run) (func (type $own-run))))
        (instance $exported (instantiate $inner
            (with "import-type-note" (type $note))
            (with "import-func-run" (func $lifted))))
        (export "test:it/guest@1.0.0" (instance $exported)))"#;

/// How many modules and inner components, and the names at the outermost level.
fn parts(component: &[u8]) -> (usize, usize, Vec<String>) {
    let (mut modules, mut components, mut names, mut depth) = (0, 0, vec![], 0);
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                modules += 1;
                depth += 1;
            }
            Payload::ComponentSection { .. } => {
                components += 1;
                depth += 1;
            }
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                names.extend(section.into_iter().map(|i| i.unwrap().name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                names.extend(section.into_iter().map(|e| e.unwrap().name.name.to_owned()));
            }
            _ => {}
        }
    }
    (modules, components, names)
}

#[test]
fn two_modules_and_no_component_are_left_and_the_contract_stays() {
    let component = wat::parse_str(COMPONENT).unwrap();
    let names = vec![
        "test:it/host@1.0.0".to_owned(),
        "test:it/guest@1.0.0".to_owned(),
    ];
    assert_eq!(parts(&component), (3, 1, names.clone()));
    let flat = flat::flat(&component).unwrap();
    assert_eq!(parts(&flat), (2, 0, names));
    assert!(flat.len() < component.len());
}

#[test]
fn an_exported_instance_keeps_the_types_it_had() {
    let component = wat::parse_str(COMPONENT).unwrap();
    let flat = flat::flat(&component).unwrap();
    // The types alone, as the validator knows them: an alias of the imported one is traced to it.
    let exported = |bytes: &[u8]| {
        let mut validator = wasmparser::Validator::new();
        let types = validator.validate_all(bytes).unwrap();
        let item = types
            .component_item_for_export("test:it/guest@1.0.0")
            .unwrap();
        let wasmparser::component_types::ComponentEntityType::Instance(id) = item.ty else {
            panic!("no instance");
        };
        let exports = types[id].exports.iter();
        let exports = exports.map(|(name, item)| match item.ty {
            wasmparser::component_types::ComponentEntityType::Type {
                referenced,
                created,
            } => (name.clone(), referenced != created),
            _ => (name.clone(), false),
        });
        exports.collect::<Vec<_>>()
    };
    let names = [("note".to_owned(), true), ("run".to_owned(), false)];
    assert_eq!(exported(&component), names);
    assert_eq!(exported(&flat), names);
}

#[test]
fn what_the_build_step_does_not_know_is_refused() {
    for (from, to) in [
        (
            r#"(export "cabi_realloc" (func $room)))"#,
            r#"(export "cabi_realloc" (func $room)) (memory 1))"#,
        ),
        ("import-type-note", "import-type-nose"),
        (
            r#"(memory $memory) (realloc $room) string-encoding=utf8))
        (component"#,
            r#"(memory $memory) (realloc $room) string-encoding=utf16))
        (component"#,
        ),
        (
            "(type $run-type (func",
            r#"(core module $start (import "" "memory" (memory 1)) (func) (start 0))
            (core instance $start-args (export "memory" (memory $memory)))
            (core instance (instantiate $start (with "" (instance $start-args))))
            (type $run-type (func"#,
        ),
        ("(table 2 2 funcref)", "(table 2 2 funcref (ref.func $run))"),
    ] {
        let text = COMPONENT.replace(from, to);
        assert_ne!(text, COMPONENT, "{from}");
        let component = wat::parse_str(&text).unwrap();
        assert!(flat::flat(&component).is_err(), "{to}");
    }
    assert!(flat::flat(b"\0asm\x01\0\0\0").is_err());
}

#[test]
fn a_module_is_divided_and_the_last_place_of_the_table_makes_room() {
    let module = wat::parse_str(
        r#"(module
            (import "host" "say" (func))
            (table 3 3 funcref)
            (memory 2 5)
            (func (param i32 i32 i32 i32) (result i32) local.get 0)
            (elem (i32.const 1) func 0 0)
            (export "memory" (memory 0))
            (export "run" (func 0))
            (export "cabi_realloc" (func 1)))"#,
    )
    .unwrap();
    let joint = joint::joint(&module, "cabi_realloc").unwrap();
    let first = wat::parse_str(
        r#"(module
            (func (param i32 i32 i32 i32) (result i32)
                local.get 0 local.get 1 local.get 2 local.get 3 i32.const 3 call_indirect (type 0))
            (table 4 4 funcref)
            (memory 2 5)
            (export "memory" (memory 0))
            (export "table" (table 0))
            (export "room" (func 0)))"#,
    );
    assert_eq!(joint.first, first.unwrap());
    let rest = wat::parse_str(
        r#"(module
            (type (func))
            (type (func (param i32 i32 i32 i32) (result i32)))
            (import "" "host say" (func (type 0)))
            (import "" "memory" (memory 2 5))
            (import "" "table" (table 4 4 funcref))
            (func (type 1) local.get 0)
            (export "run" (func 0))
            (elem (i32.const 1) func 0 0)
            (elem (i32.const 3) func 1))"#,
    );
    assert_eq!(joint.module, rest.unwrap());
    assert_eq!(joint.imports, [("host".to_owned(), "say".to_owned())]);
    assert!(joint::joint(&module, "another").is_err());
}
