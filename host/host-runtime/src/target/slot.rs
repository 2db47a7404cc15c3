//! A target's plugin instance: made when needed, struck when it breaks, dropped when nothing needs it.
//!
//! Not here: the build that takes the place of another one (`trial.rs`).

use std::sync::Arc;

use super::config::limit;
use super::regions::{Account, Books, Regions};
use super::trial::{Debt, Former};
use crate::agent::text::{FAULT_MAX_BYTES, clean};
use crate::choice::SentBack;
use crate::engine::{Usage, Use};
use crate::plugin::lend::Lent;
use crate::plugin::{Description, Plugin, PluginError, PluginFactory};
use crate::types::{Blob, DETAIL_MAX_BYTES, Failure, Setting, code};

/// How often a plugin is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Rate {
    /// `most` is in one second.
    calls: Use,
    second: u64,
    in_second: u64,
}

impl Rate {
    fn note(&mut self, now_ms: u64) {
        let second = now_ms / 1000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second += 1;
        self.calls.all += 1;
        self.calls.most = self.calls.most.max(self.in_second);
    }
}

/// What the build that serves has used.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Spent {
    used: Usage,
    rate: Rate,
    moved: Use,
    written: Use,
    syncs: Use,
}

/// How the plugin has broken in a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Strikes {
    count: u32,
    /// What the last one was for.
    fault: Box<str>,
    /// It broke over its own saved state: it is not asked for it again.
    mute: bool,
}

/// The plugin of one target.
pub(super) struct PluginSlot {
    /// `device/target`, for the log.
    pub(super) name: String,
    pub(super) factory: Arc<dyn PluginFactory>,
    /// The build before it.
    pub(super) former: Option<Former>,
    /// What a build that has just come has to do before anything else.
    pub(super) debt: Debt,
    /// The build on trial was sent back in the call that failed last.
    pub(super) spared: bool,
    /// The instance broke in the call that failed last.
    pub(super) broke: bool,
    /// A build was sent back, and nobody was told yet.
    pub(super) sent_back: Option<SentBack>,
    /// What instances of this build have used that are gone.
    pub(super) used: Usage,
    /// What it had moved before the target was folded up.
    moved: Books,
    rate: Rate,
    pub(super) settings: Vec<Setting>,
    pub(super) lent: Lent,
    regions: Arc<Regions>,
    account: Arc<Account>,
    strikes_max: u32,
    pub(super) instance: Option<Box<dyn Plugin>>,
    /// Why the build did not begin when it was opened last, in its own words: no operation of the target can be done.
    pub(super) closed: Option<String>,
    /// The instance knows the transfer: it was given `create` or `reopen`.
    pub(super) attached: bool,
    /// All blocks of the transfer were written by this build, as far as this process knows.
    pub(super) wrote_all: bool,
    strikes: Strikes,
    /// The call under way is one of `write-block`.
    writes: bool,
}

impl PluginSlot {
    pub(super) fn new(
        name: String,
        (factory, former): (Arc<dyn PluginFactory>, Option<Former>),
        settings: Vec<Setting>,
        lent: Lent,
        regions: Arc<Regions>,
        account: Arc<Account>,
        strikes_max: u32,
    ) -> Self {
        let is_tried = former.as_ref().is_some_and(Former::is_tried);
        Self {
            name,
            factory,
            former,
            debt: Debt::default(),
            spared: false,
            broke: false,
            sent_back: None,
            used: Usage::default(),
            moved: Books::default(),
            rate: Rate::default(),
            settings,
            lent,
            regions,
            account,
            strikes_max,
            instance: None,
            closed: None,
            attached: false,
            // Where it has just come, nobody knows.
            wrote_all: !is_tried,
            strikes: Strikes::default(),
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
        self.debt = Debt::default();
    }

    pub(super) fn strikes(&self) -> u32 {
        self.strikes.count
    }

    pub(super) fn take_strikes(&mut self) -> Strikes {
        std::mem::take(&mut self.strikes)
    }

    pub(super) fn forgive(&mut self) {
        self.strikes = Strikes::default();
    }

    /// What a successor needs, if the instance can say that; `None` = it is not asked, for it would only break again.
    pub(super) fn suspend(&mut self) -> Option<Result<Blob, Failure>> {
        if self.strikes.mute || !self.is_open() {
            return None;
        }
        let on_trial = self.is_on_trial();
        let end = self.call(|plugin| plugin.suspend());
        self.strikes.mute = !self.is_open() && !on_trial;
        Some(end)
    }

    /// Let the instance go; what it knew is in its last blob and in the target.
    pub(super) fn drop_instance(&mut self) {
        self.used = self.usage();
        if self.instance.take().is_some() {
            self.close_line();
            self.regions.change_hands();
        }
        self.attached = false;
        self.debt = Debt::default();
    }

    /// What the build has used since it serves.
    pub(super) fn usage(&self) -> Usage {
        match &self.instance {
            Some(instance) => self.used.and(instance.usage()),
            None => self.used,
        }
    }

    /// What it has moved through lent storage since it serves.
    pub(super) fn books(&self) -> Books {
        let books = self.account.books();
        Books {
            moved: self.moved.moved.and(books.moved),
            written: self.moved.written.and(books.written),
            syncs: self.moved.syncs.and(books.syncs),
        }
    }

    /// All that is told of what it has used.
    pub(super) fn spent(&self) -> Spent {
        let books = self.books();
        Spent {
            used: self.usage(),
            rate: self.rate,
            moved: books.moved,
            written: books.written,
            syncs: books.syncs,
        }
    }

    /// Go on from what was true before the target was folded up.
    pub(super) fn resume(&mut self, strikes: Strikes, spent: Spent) {
        self.strikes = strikes;
        self.used = spent.used;
        self.rate = spent.rate;
        self.moved = Books {
            moved: spent.moved,
            written: spent.written,
            syncs: spent.syncs,
        };
    }

    /// Whether there is no instance, and none that owes anything.
    pub(super) fn may_rest(&self) -> bool {
        let owes = self.debt != Debt::default() || self.spared || self.sent_back.is_some();
        self.instance.is_none() && !owes
    }

    /// How often it was called since it serves, and in the busiest second.
    pub(super) fn calls(&self) -> Use {
        self.rate.calls
    }

    /// The instance in charge is another one.
    pub(super) fn succeed(&mut self, instance: Box<dyn Plugin>) {
        self.closed = None;
        self.instance = Some(instance);
        self.regions.change_hands();
    }

    /// Another build begins with nothing.
    pub(super) fn close_books(&mut self) {
        self.closed = None;
        self.used = Usage::default();
        self.moved = Books::default();
        self.rate = Rate::default();
        self.account.close_books();
    }

    /// A field engineer's tool may want it.
    fn close_line(&self) {
        if let Some(line) = &self.lent.serial_line {
            line.close();
        }
    }

    /// Whether the call that failed last broke the instance, and a fresh one may still be tried.
    pub(super) fn take_broke(&mut self) -> bool {
        std::mem::take(&mut self.broke) && self.strikes.count < self.strikes_max
    }

    /// Refuse a plugin that has broken too often in this transfer.
    pub(super) fn check_strikes(&self) -> Result<(), Failure> {
        let Strikes { count, fault, .. } = &self.strikes;
        if *count < self.strikes_max {
            return Ok(());
        }
        let text = format!(
            "plugin {} broke {count} times in this transfer and is not tried again (limit {:#x}): {fault}",
            self.factory.label(),
            limit::STRIKES,
        );
        let detail = clean(&text, DETAIL_MAX_BYTES);
        Err(Failure::new(code::PLUGIN_FAILED, *count, detail))
    }

    /// Make an instance and open it, if there is none; with the saved state, or without where it is refused.
    pub(super) fn open(&mut self, saved: Option<&Blob>) -> Result<(), Failure> {
        if self.instance.is_some() {
            return Ok(());
        }
        let known = saved.filter(|blob| self.description().schemas.contains(&blob.schema));
        match self.try_open(known) {
            Err(failure) if known.is_some() => {
                let label = self.factory.label();
                tracing::warn!(plugin = %self.name, "saved state is not taken by {label}: {failure}");
                self.drop_instance();
                self.try_open(None)
            }
            end => end,
        }
    }

    fn try_open(&mut self, saved: Option<&Blob>) -> Result<(), Failure> {
        self.attached = false;
        let factory = Arc::clone(&self.factory);
        match self.shut_out(|slot| opened(&*factory, slot.lent.clone(), &slot.settings, saved)) {
            Ok(instance) => {
                self.instance = Some(instance);
                self.closed = None;
                Ok(())
            }
            Err(error) => {
                self.close_line();
                let says = matches!(error, PluginError::Failed(_));
                let failure = self.judge(error);
                // One on trial has been sent back with that: it is not what serves now.
                if says && saved.is_none() && Arc::ptr_eq(&factory, &self.factory) {
                    self.closed = Some(failure.to_string());
                }
                Err(failure)
            }
        }
    }

    /// Call an instance that is not in charge yet: nothing of the target's storage is lent to it.
    pub(super) fn shut_out<R>(&self, call: impl FnOnce(&Self) -> R) -> R {
        self.regions.shut(true);
        self.account.begin_call();
        let end = call(self);
        self.regions.shut(false);
        end
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
            // It broke before, and has its strike for that; or there never was one.
            let fault = Some(&*self.strikes.fault).filter(|fault| !fault.is_empty());
            return Err(self.broken(fault.unwrap_or("there is no instance")));
        };
        self.account.begin_call();
        self.regions.begin_call();
        self.rate.note(self.lent.clock.now_ms());
        if self.writes {
            self.account.no_syncs();
        }
        let end = call(&mut **instance);
        match (end, self.regions.take_refused()) {
            (Ok(end), _) => Ok(end),
            // The same call would be refused again.
            (Err(PluginError::Failed(failure)), Some(reason)) if failure.main == code::BUSY => {
                Err(self.trespass(&reason))
            }
            (Err(error), _) => Err(self.judge(error)),
        }
    }

    /// The plugin wants to write where or when it may not, and cannot do without: one on trial goes.
    fn trespass(&mut self, reason: &str) -> Failure {
        if self.is_on_trial() {
            return self.send_back(reason);
        }
        // An agent takes a plugin that broke (0xd5) for one that may do better the next time.
        Failure::new(code::BAD_ARGUMENT, 0, reason)
    }

    /// What follows from an error: a plugin that fails lives, unless it is on trial and has done nothing yet; one that
    /// breaks goes.
    fn judge(&mut self, error: PluginError) -> Failure {
        match error {
            PluginError::Failed(failure) => {
                let failure = sane(failure);
                if self.is_unproved() {
                    self.send_back(&failure.to_string());
                }
                failure
            }
            PluginError::Broken(reason) => {
                self.broke = true;
                self.strike(&reason)
            }
        }
    }

    /// The instance has broken the contract: it goes, and its strikes are counted; a build on trial goes for good.
    pub(super) fn strike(&mut self, reason: &str) -> Failure {
        // A trap names the guest's functions, and an answer may be as long as the guest likes.
        let reason = clean(reason, FAULT_MAX_BYTES);
        if self.is_on_trial() {
            return self.send_back(&reason);
        }
        self.drop_instance();
        self.strikes.count = self.strikes.count.saturating_add(1);
        let label = self.factory.label();
        let strikes = self.strikes.count;
        tracing::warn!(plugin = %self.name, strikes, "plugin {label} broke: {reason}");
        self.strikes.fault = reason.as_str().into();
        self.broken(&reason)
    }

    fn broken(&self, reason: &str) -> Failure {
        let text = format!("plugin {} broke: {reason}", self.factory.label());
        let detail = clean(&text, DETAIL_MAX_BYTES);
        Failure::new(code::PLUGIN_FAILED, self.strikes.count, detail)
    }
}

/// A fresh instance that was opened.
pub(super) fn opened(
    factory: &dyn PluginFactory,
    lent: Lent,
    settings: &[Setting],
    saved: Option<&Blob>,
) -> Result<Box<dyn Plugin>, PluginError> {
    let mut instance = factory.make(lent)?;
    instance.open(settings, saved)?;
    Ok(instance)
}

/// What a plugin says about its failure: a main code that is not one of the table's becomes 0xd5.
pub(super) fn sane(failure: Failure) -> Failure {
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
