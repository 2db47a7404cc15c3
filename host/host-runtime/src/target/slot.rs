//! A target's plugin instance: made when needed, struck when it breaks, dropped when nothing needs it.

use std::sync::Arc;

use super::config::limit;
use super::regions::{Account, Regions};
use crate::agent::text::{FAULT_MAX_BYTES, clean};
use crate::plugin::lend::Lent;
use crate::plugin::{Description, Plugin, PluginError, PluginFactory};
use crate::types::{Blob, DETAIL_MAX_BYTES, Failure, Setting, code};

/// The plugin of one target.
pub(super) struct PluginSlot {
    factory: Arc<dyn PluginFactory>,
    settings: Vec<Setting>,
    lent: Lent,
    regions: Arc<Regions>,
    account: Arc<Account>,
    strikes_max: u32,
    instance: Option<Box<dyn Plugin>>,
    /// The instance knows the transfer: it was given `create` or `reopen`.
    attached: bool,
    strikes: u32,
    /// The call under way is one of `write-block`.
    writes: bool,
}

impl PluginSlot {
    pub(super) fn new(
        factory: Arc<dyn PluginFactory>,
        settings: Vec<Setting>,
        lent: Lent,
        regions: Arc<Regions>,
        account: Arc<Account>,
        strikes_max: u32,
    ) -> Self {
        Self {
            factory,
            settings,
            lent,
            regions,
            account,
            strikes_max,
            instance: None,
            attached: false,
            strikes: 0,
            writes: false,
        }
    }

    pub(super) fn label(&self) -> &str {
        self.factory.label()
    }

    pub(super) fn description(&self) -> &Description {
        self.factory.description()
    }

    pub(super) fn is_open(&self) -> bool {
        self.instance.is_some()
    }

    pub(super) fn is_attached(&self) -> bool {
        self.instance.is_some() && self.attached
    }

    pub(super) fn set_attached(&mut self, attached: bool) {
        self.attached = attached;
    }

    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }

    pub(super) fn forgive(&mut self) {
        self.strikes = 0;
    }

    /// Let the instance go; what it knew is in its last blob and in the target.
    pub(super) fn drop_instance(&mut self) {
        if self.instance.take().is_some()
            && let Some(line) = &self.lent.serial_line
        {
            // A field engineer's tool may want it.
            line.close();
        }
        self.attached = false;
    }

    /// Refuse a plugin that has broken too often in this transfer.
    pub(super) fn check_strikes(&self) -> Result<(), Failure> {
        if self.strikes < self.strikes_max {
            return Ok(());
        }
        Err(Failure::new(
            code::PLUGIN_FAILED,
            self.strikes,
            format!(
                "plugin {} broke {} times in this transfer and is not tried again (limit {:#x})",
                self.factory.label(),
                self.strikes,
                limit::STRIKES
            ),
        ))
    }

    /// Make an instance and open it, if there is none; with the saved state, or without where it is refused.
    pub(super) fn open(&mut self, saved: Option<&Blob>) -> Result<(), Failure> {
        if self.instance.is_some() {
            return Ok(());
        }
        let known = saved.filter(|blob| self.description().schemas.contains(&blob.schema));
        match self.try_open(known) {
            Err(failure) if known.is_some() => {
                tracing::warn!(plugin = self.label(), "saved state is not taken: {failure}");
                self.drop_instance();
                self.try_open(None)
            }
            end => end,
        }
    }

    fn try_open(&mut self, saved: Option<&Blob>) -> Result<(), Failure> {
        match self.factory.make(self.lent.clone()) {
            Ok(instance) => self.instance = Some(instance),
            Err(PluginError::Failed(failure)) => return Err(failure),
            Err(PluginError::Broken(reason)) => return Err(self.strike(&reason)),
        }
        self.attached = false;
        let settings = self.settings.clone();
        self.regions.shut(true);
        let opened = self.call(|plugin| plugin.open(&settings, saved));
        self.regions.shut(false);
        if opened.is_err() {
            self.drop_instance();
        }
        opened
    }

    /// Call the instance within `write-block`, where making data durable is the host's.
    pub(super) fn call_to_write<R>(
        &mut self,
        call: impl FnOnce(&mut dyn Plugin) -> Result<R, PluginError>,
    ) -> Result<R, Failure> {
        self.writes = true;
        let end = self.call(call);
        self.writes = false;
        end
    }

    /// Call the instance; one that breaks is dropped and struck.
    pub(super) fn call<R>(
        &mut self,
        call: impl FnOnce(&mut dyn Plugin) -> Result<R, PluginError>,
    ) -> Result<R, Failure> {
        let Some(instance) = self.instance.as_mut() else {
            return Err(self.strike("there is no instance"));
        };
        self.account.begin_call();
        if self.writes {
            self.account.no_syncs();
        }
        match call(&mut **instance) {
            Ok(answer) => Ok(answer),
            Err(PluginError::Failed(failure)) => Err(sane(failure)),
            Err(PluginError::Broken(reason)) => Err(self.strike(&reason)),
        }
    }

    /// The instance has broken the contract: it goes, and its strikes are counted.
    pub(super) fn strike(&mut self, reason: &str) -> Failure {
        self.drop_instance();
        self.strikes = self.strikes.saturating_add(1);
        // A trap names the guest's functions, and an answer may be as long as the guest likes.
        let reason = clean(reason, FAULT_MAX_BYTES);
        let label = self.factory.label();
        tracing::warn!(
            plugin = label,
            strikes = self.strikes,
            "plugin broke: {reason}"
        );
        Failure::new(
            code::PLUGIN_FAILED,
            self.strikes,
            clean(&format!("plugin {label} broke: {reason}"), DETAIL_MAX_BYTES),
        )
    }
}

/// What a plugin says about its failure: a main code that is not one of the table's becomes 0xd5.
fn sane(failure: Failure) -> Failure {
    let detail = clean(&failure.detail, DETAIL_MAX_BYTES);
    match failure.main {
        0xd0..=0xee => Failure::new(failure.main, failure.sub & 0x00ff_ffff, detail),
        other => Failure::new(
            code::PLUGIN_FAILED,
            0,
            format!("plugin failed with unknown code {other:#04x}: {detail}"),
        ),
    }
}
