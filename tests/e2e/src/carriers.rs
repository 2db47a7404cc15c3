//! One hostile source in both carriers. `tests/faults` includes this file: whole updates in virtual time are made of the same.

use std::sync::Arc;

use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::native::{Confinement, HostProgram, Isolation, NativePlugin};
use host_runtime::plugin::{ComponentPlugin, PluginFactory};

/// A process of the real `otad`.
#[must_use]
pub fn process(confinement: Confinement) -> Isolation {
    let mut host = HostProgram::this();
    host.program = support::binary::otad().to_owned();
    Isolation::Process(host, confinement)
}

/// The deeds of `pal-flash-file`, as a component of such an engine and as a library in a process of its own.
#[must_use]
pub fn in_both_carriers(engine: &EngineOptions) -> [(&'static str, Arc<dyn PluginFactory>); 2] {
    let (component, library) = (
        guest_artifacts::FLASH_FILE_MUTANTS,
        guest_artifacts::FLASH_FILE_MUTANTS_NATIVE,
    );
    assert!(
        !component.is_empty() && !library.is_empty(),
        "this needs guests built from here"
    );
    let engine = Engine::new(engine).expect("the engine runs here");
    let component = ComponentPlugin::load(&engine, "hostile.wasm", component);
    let library = NativePlugin::load("hostile.so", library, process(Confinement::default()));
    [
        ("component", component.expect("it loads like any other")),
        ("native", library.expect("it loads like any other")),
    ]
}
