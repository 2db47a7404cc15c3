//! A library under the cases: in a process of its own as under the daemon, with one empty directory that it may open, anew
//! for each case. Not here: the cases, and what a component is (`guest.rs`).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use host_runtime::plugin::lend::Lent;
use host_runtime::plugin::native::{Confinement, Isolation, NativePlugin};
use host_runtime::plugin::{Description, Plugin, PluginError, PluginFactory};

use crate::cli::guest::Scratch;
use crate::gateway::native;

/// A library with a place of its own, which goes with it.
struct Library {
    plugin: Arc<NativePlugin>,
    _place: Scratch,
}

/// Load it for one case.
///
/// # Errors
/// Why it cannot be, in words.
pub(super) fn load(label: &str, bytes: &[u8]) -> Result<Arc<dyn PluginFactory>, String> {
    let place = Scratch::name().map_err(|failed| failed.text)?;
    DirBuilder::new()
        .mode(0o700)
        .create(place.path())
        .map_err(|e| format!("{}: {e}", place.path().display()))?;
    let confinement = Confinement {
        directories: vec![place.path().to_owned()],
        ..Confinement::default()
    };
    let plugin = NativePlugin::load(
        label,
        bytes,
        Isolation::Process(native::host(), confinement),
    )?;
    Ok(Arc::new(Library {
        plugin,
        _place: place,
    }))
}

impl PluginFactory for Library {
    fn label(&self) -> &str {
        self.plugin.label()
    }

    fn description(&self) -> &Description {
        self.plugin.description()
    }

    fn imports(&self) -> &[String] {
        self.plugin.imports()
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        self.plugin.make(lent)
    }
}
