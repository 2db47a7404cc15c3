//! The shipped plugins in their native form pass the cases that their components pass: one source, two carriers.

use std::num::NonZeroUsize;
use std::sync::Arc;

use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::native::{Confinement, HostProgram, Isolation, NativePlugin};
use host_runtime::plugin::{ComponentPlugin, PluginFactory};
use host_runtime::ports::clock::SystemClock;
use host_sandbox::check::verdict::Judged;
use host_sandbox::check::{Options, Subject, plugin_cases, run};

/// What every case says of this plugin: its name and its verdict.
fn play(factory: Arc<dyn PluginFactory>) -> Vec<(String, &'static str)> {
    let subject = Subject::Plugin {
        factory,
        settings: Vec::new(),
    };
    let options = Options {
        jobs: NonZeroUsize::new(4).expect("four"),
        exact: true,
    };
    let cases = plugin_cases().expect("the cases are read");
    let report = run(&subject, &cases, options, &SystemClock::new(), |_| {});
    assert!(report.is_fit(), "{report:#?}");
    let verdict = |case: &Judged| (case.name.clone(), case.verdict.name());
    report.cases.iter().map(verdict).collect()
}

fn check(component: &[u8], library: &[u8], isolation: Isolation) {
    assert!(
        !component.is_empty() && !library.is_empty(),
        "this test needs guests built from here"
    );
    let engine = Engine::new(&EngineOptions::default()).expect("the engine runs here");
    let component = ComponentPlugin::load(&engine, "component", component).expect("it loads");
    let library = NativePlugin::load("library", library, isolation).expect("it loads");
    assert_eq!(play(library), play(component));
}

fn process() -> Isolation {
    let mut host = HostProgram::this();
    host.program = support::binary::otad().to_owned();
    Isolation::Process(host, Confinement::default())
}

#[test]
fn the_native_flash_file_passes_in_a_process_of_its_own() {
    check(
        guest_artifacts::FLASH_FILE,
        guest_artifacts::FLASH_FILE_NATIVE,
        process(),
    );
}

#[test]
fn the_native_serial_mcu_passes_in_a_process_of_its_own() {
    check(
        guest_artifacts::SERIAL_MCU,
        guest_artifacts::SERIAL_MCU_NATIVE,
        process(),
    );
}

#[test]
fn the_native_flash_file_passes_in_the_hosts_process() {
    check(
        guest_artifacts::FLASH_FILE,
        guest_artifacts::FLASH_FILE_NATIVE,
        Isolation::InProcess,
    );
}

#[test]
fn a_native_form_names_all_that_its_component_imports() {
    let engine = Engine::new(&EngineOptions::default()).expect("the engine runs here");
    let rows: [(&str, &[u8], &[u8]); 2] = [
        (
            "flash-file",
            guest_artifacts::FLASH_FILE,
            guest_artifacts::FLASH_FILE_NATIVE,
        ),
        (
            "serial-mcu",
            guest_artifacts::SERIAL_MCU,
            guest_artifacts::SERIAL_MCU_NATIVE,
        ),
    ];
    for (label, component, library) in rows {
        let component = ComponentPlugin::load(&engine, label, component).expect("it loads");
        let native = NativePlugin::load(label, library, process()).expect("it loads");
        for import in component.imports() {
            assert!(native.imports().contains(import), "{label}: {import}");
        }
    }
}
