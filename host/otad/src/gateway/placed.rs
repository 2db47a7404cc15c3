//! Plugin builds in their places: one that somebody has signed is remembered there once it has proved itself, and one from a
//! file that is refused, or cannot be loaded, is stood in for.
//!
//! A target whose plugin is refused keeps its device: its jobs fail with the reason, the other targets go on, also after a
//! restart with a signer revoked. `otad config check` tells it beforehand.

use std::sync::Arc;

use host_runtime::choice::{Build, StandIn};
use host_runtime::plugin::lend::Lent;
use host_runtime::plugin::{Description, Plugin, PluginError, PluginFactory, capability};

use crate::code::{Gate, Place, Signed};
use crate::config::Target;
use crate::exit::chain;

/// A build that somebody has signed, for one target.
pub(super) struct Placed {
    pub(super) plugin: Arc<dyn PluginFactory>,
    pub(super) signed: Signed,
    pub(super) manifest: String,
    pub(super) gate: Arc<Gate>,
    pub(super) place: Place,
}

impl PluginFactory for Placed {
    fn label(&self) -> &str {
        self.plugin.label()
    }

    fn digest(&self) -> &[u8; 32] {
        self.plugin.digest()
    }

    fn manifest(&self) -> Option<&str> {
        Some(&self.manifest)
    }

    fn description(&self) -> &Description {
        self.plugin.description()
    }

    fn imports(&self) -> &[String] {
        self.plugin.imports()
    }

    fn caveats(&self) -> &[String] {
        self.plugin.caveats()
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        self.plugin.make(lent)
    }

    fn trial_passed(&self) {
        if let Err(error) = self.gate.accept(Some(&self.signed), &self.place) {
            let label = self.plugin.label();
            tracing::warn!(
                "an older one than {label} may still come in: {}",
                chain(&error)
            );
        }
    }
}

/// Stands where a plugin would be that is refused.
pub(super) struct Refused {
    chosen: StandIn,
    reason: String,
    description: Description,
}

impl Refused {
    pub(super) fn new(target: &Target, build: Build, reason: &str) -> Arc<Self> {
        let (name, label) = (&target.name.value, &build.label);
        tracing::error!("target {name}: plugin {label} is refused: {reason}");
        let why =
            format!("{label}: {reason}; every job fails until it is let in again, or replaced");
        // What the target's configuration fits: nothing is asked of it but that.
        let capabilities = match target.staging {
            Some(_) => capability::STAGED,
            None => capability::DIRECT,
        };
        Arc::new(Self {
            chosen: StandIn { build, why },
            reason: reason.to_owned(),
            description: Description {
                name: "refused".to_owned(),
                version: "0.0.0".to_owned(),
                kinds: Vec::new(),
                capabilities,
                largest_write: 4096,
                schemas: Vec::new(),
            },
        })
    }
}

impl PluginFactory for Refused {
    fn label(&self) -> &str {
        &self.chosen.build.label
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn stands_in(&self) -> Option<&StandIn> {
        Some(&self.chosen)
    }

    fn imports(&self) -> &[String] {
        &[]
    }

    fn make(&self, _: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        Err(PluginError::Broken(self.reason.clone()))
    }
}
