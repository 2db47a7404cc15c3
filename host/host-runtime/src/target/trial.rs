//! A build that takes the place of another one: opened beside it, and on trial until an image that it brought is decided on.
//!
//! ```text
//!            take_over                first duty done       committed or rejected
//! former ───────────────▶ unproved ──────────────────▶ proved ──────────────────▶ for good
//!    ▲                       │ fails or breaks            │ breaks
//!    └───────────────────────┴────────────────────────────┘ send_back
//! ```
//!
//! Where a build comes or goes while a transfer is open, the one in charge owes the target a `reopen` before anything
//! else ([`Debt`]); whoever called is told by [`PluginSlot::take_spared`] that the call is to be made again rather than to
//! fail. Not here: when it is time (`swap.rs`), and what is written down (`crate::choice`).

use std::sync::Arc;

use super::config::FormerPlugin;
use super::slot::{PluginSlot, opened, sane};
use crate::agent::text::clean;
use crate::choice::{Names, SentBack};
use crate::plugin::lend::Lent;
use crate::plugin::{Plugin, PluginError, PluginFactory};
use crate::types::{Blob, DETAIL_MAX_BYTES, Failure, Setting, code};

/// The build before the one that serves.
#[derive(Clone)]
pub(super) struct Former {
    pub(super) factory: Arc<dyn PluginFactory>,
    pub(super) trial: Trial,
}

impl Former {
    /// The build that serves is on trial.
    pub(super) fn is_tried(&self) -> bool {
        self.trial != Trial::Passed
    }
}

/// How far the build that serves has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// It has done nothing for the target yet.
    Unproved,
    /// It has done a duty.
    Proved,
    /// An image is committed or rejected by it. One that is given up may have been so for what it did.
    Passed,
}

impl From<FormerPlugin> for Former {
    fn from(former: FormerPlugin) -> Self {
        Self {
            factory: former.plugin,
            trial: if former.on_trial {
                Trial::Unproved
            } else {
                Trial::Passed
            },
        }
    }
}

/// What the build in charge has to do before anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Debt {
    /// Somebody was in the middle of something, and needs an instance.
    pub(super) open: bool,
    /// The instance before it knew the transfer.
    pub(super) reopen: bool,
}

impl PluginSlot {
    pub(super) fn is_on_trial(&self) -> bool {
        self.former.as_ref().is_some_and(Former::is_tried)
    }

    pub(super) fn is_unproved(&self) -> bool {
        let trial = self.former.as_ref().map(|former| former.trial);
        trial == Some(Trial::Unproved)
    }

    /// It has done a duty.
    pub(super) fn prove(&mut self) {
        if let Some(former) = self.former.as_mut()
            && former.trial == Trial::Unproved
        {
            former.trial = Trial::Proved;
        }
    }

    /// An image has been decided on.
    pub(super) fn pass(&mut self) {
        if let Some(former) = self.former.as_mut()
            && former.trial == Trial::Proved
        {
            former.trial = Trial::Passed;
        }
    }

    /// The build to go back to from whatever comes next: not one that is itself on trial.
    pub(super) fn lasting(&self) -> &Arc<dyn PluginFactory> {
        match &self.former {
            Some(former) if former.is_tried() => &former.factory,
            Some(_) | None => &self.factory,
        }
    }

    /// The build to go back to from `next`, once that has come: what is chosen already, and put in again, is no way back from
    /// itself, also where it is not let in.
    pub(super) fn way_back(&self, next: &dyn PluginFactory) -> &Arc<dyn PluginFactory> {
        let serves = || Names::of_plugin(&*self.factory).is_same(Names::of_plugin(next));
        match &self.former {
            Some(former) if !former.is_tried() && serves() => &former.factory,
            Some(_) | None => self.lasting(),
        }
    }

    /// Let another build serve. Where there is an instance, one of the new build is opened beside it first, with what the
    /// old one has saved; the old one goes last. `debt` is what the new one has to do then.
    ///
    /// # Errors
    /// The new build refuses: nothing has changed, the old instance goes on.
    pub(super) fn take_over(
        &mut self,
        build: &Arc<dyn PluginFactory>,
        saved: Option<&Blob>,
        debt: Debt,
    ) -> Result<(), Failure> {
        if self.instance.is_some() {
            let made = self.shut_out(|slot| {
                successor(&**build, &slot.lent, &slot.settings, saved).map_err(refused)
            });
            self.succeed(made?);
        }
        let lasting = Arc::clone(self.way_back(&**build));
        self.former = Some(match self.is_on_trial() && Arc::ptr_eq(&lasting, build) {
            // What goes back has proved itself.
            true => Former {
                factory: Arc::clone(&self.factory),
                trial: Trial::Passed,
            },
            false => Former {
                factory: lasting,
                trial: Trial::Unproved,
            },
        });
        self.factory = Arc::clone(build);
        self.close_books();
        // Those were the old build's, and one on trial has none.
        self.forgive();
        self.attached = false;
        self.debt = debt;
        Ok(())
    }

    /// The build on trial does not go on; the one before it is in charge again.
    pub(super) fn send_back(&mut self, reason: &str) -> Failure {
        let reopen = self.attached || self.debt.reopen;
        self.drop_instance();
        if let Some(former) = self.former.take() {
            let label = self.factory.label().to_owned();
            tracing::warn!(plugin = %self.name, "plugin {label} is sent back while on trial: {reason}");
            self.factory = former.factory;
            self.close_books();
            self.sent_back = Some(SentBack {
                label,
                reason: reason.to_owned(),
            });
        }
        self.debt = Debt { open: true, reopen };
        self.wrote_all = false;
        self.spared = true;
        let text = format!("plugin on trial was sent back: {reason}");
        Failure::new(code::PLUGIN_FAILED, 0, clean(&text, DETAIL_MAX_BYTES))
    }

    /// Whether the call that failed last was one of a build on trial, which is gone: it is to be made again.
    pub(super) fn take_spared(&mut self) -> bool {
        self.broke = false;
        std::mem::take(&mut self.spared)
    }
}

/// An instance of a build that takes over, opened with what the one before it has saved, or without where that is of a
/// schema that this build does not read.
pub(super) fn successor(
    build: &dyn PluginFactory,
    lent: &Lent,
    settings: &[Setting],
    saved: Option<&Blob>,
) -> Result<Box<dyn Plugin>, PluginError> {
    let known = saved.filter(|blob| build.description().schemas.contains(&blob.schema));
    match opened(build, lent.clone(), settings, known) {
        Err(PluginError::Failed(failure)) if known.is_some() && failure.main == code::SCHEMA => {
            opened(build, lent.clone(), settings, None)
        }
        end => end,
    }
}

/// Why a build does not take over.
pub(super) fn refused(error: PluginError) -> Failure {
    match error {
        PluginError::Failed(failure) => sane(failure),
        PluginError::Broken(reason) => {
            Failure::new(code::PLUGIN_FAILED, 0, clean(&reason, DETAIL_MAX_BYTES))
        }
    }
}
