//! A target that has nothing to do, folded up: what it knows, without what it works with.
//!
//! ```text
//!        rest: nothing is under way, no transfer is open
//! Target ──────────────────────────────────────────────▶ Rest
//!        ◀──────────────────────────────────────────────
//!          whatever is asked of it
//! ```
//!
//! What a target works with (the plugin's place, what it is lent, accounts of a call, queues) is made anew from its
//! configuration, as at the start; what it has learnt (record, last state, strikes, what builds have used, that the record
//! regions are durable) is kept.

use std::sync::Arc;

use super::VerifiedRef;
use super::machine::Target;
use super::record::{Phase, TargetRecord};
use super::report::TargetReport;
use super::setup::{Own, Setup};
use super::slot::{Spent, Strikes};
use super::trial::Former;
use crate::choice::{Names, Word};
use crate::desk::Desk;
use crate::packed::Packed;
use crate::plugin::PluginFactory;
use crate::types::{Failure, TargetState};

/// A target without what it works with.
#[derive(Clone)]
pub(super) struct Rest {
    pub(super) config: Arc<Setup>,
    pub(super) own: Own,
    pub(super) ports: Arc<Desk>,
    pub(super) record: TargetRecord,
    troubles: Option<Box<Troubles>>,
    pub(super) factory: Arc<dyn PluginFactory>,
    pub(super) former: Option<Box<Former>>,
    /// What the build that serves has used.
    pub(super) spent: Option<Packed<Spent>>,
    /// What was chosen in place of the configured build.
    pub(super) choice: Word,
    pub(super) proof: Option<Box<VerifiedRef>>,
    pub(super) map_torn: bool,
    pub(super) disturbed: bool,
    /// The record regions read as their media have them.
    pub(super) durable: bool,
    pub(super) last_state: Option<TargetState>,
    pub(super) image_damaged: bool,
    pub(super) swaps: u64,
}

/// What most targets have none of.
#[derive(Clone, Default, PartialEq, Eq)]
struct Troubles {
    damage: Option<Failure>,
    refusal: Option<String>,
    closed: Option<String>,
    strikes: Strikes,
}

/// A target, as it is held.
pub(super) enum Resident {
    /// It may have something to do.
    Awake(Box<Target>),
    /// It has not.
    Resting(Box<Rest>),
}

impl Resident {
    pub(super) fn config(&self) -> &Setup {
        match self {
            Self::Awake(target) => &target.config,
            Self::Resting(rest) => &rest.config,
        }
    }

    pub(super) fn last_state(&self) -> Option<TargetState> {
        match self {
            Self::Awake(target) => target.last_state,
            Self::Resting(rest) => rest.last_state,
        }
    }

    /// The target, which may be given something to do.
    pub(super) fn awake(&mut self) -> &mut Target {
        if let Self::Resting(rest) = self {
            *self = Self::Awake(Box::new(Target::unfold(Rest::clone(rest))));
        }
        match self {
            Self::Awake(target) => target,
            Self::Resting(_) => unreachable!("it was unfolded"),
        }
    }

    /// For `otad status`.
    pub(super) fn report(&self) -> TargetReport {
        match self {
            Self::Awake(target) => target.report(),
            Self::Resting(rest) => Target::unfold(Rest::clone(rest)).report(),
        }
    }

    /// Fold it up, if it has nothing to do.
    pub(super) fn rest(&mut self) {
        if let Self::Awake(target) = self
            && target.may_rest()
        {
            *self = Self::Resting(Box::new(target.fold()));
        }
    }
}

impl Target {
    /// Whether nothing is under way that would be lost.
    fn may_rest(&self) -> bool {
        let settled = self.phase().is_none_or(Phase::is_settled);
        settled
            && self.is_quiet()
            && self.storing.is_none()
            && self.record == self.stored
            && self.map.is_none()
            && self.op.is_none()
            && self.waiting.is_empty()
            && self.writes.is_empty()
            && self.closing.is_none()
            && self.sync.is_quiet()
            && self.restart.is_none()
            && !self.ahead.is_running()
            && self.swap.is_none()
            && self.events.is_empty()
            && self.plugin.may_rest()
            && self.book.may_rest(Names::of_plugin(&*self.plugin.factory))
    }

    fn fold(&mut self) -> Rest {
        // Every member by its name: one that is added is kept here, or said to be of no use to a target that rests.
        let Self {
            config,
            own,
            ports,
            record,
            damage,
            plugin,
            regions,
            map_torn,
            proof,
            disturbed,
            last_state,
            image_damaged,
            book,
            refusal,
            swaps,
            // Made anew from the configuration.
            device: _,
            staged: _,
            map_name: _,
            // The same as the record, and what was read of its file.
            stored: _,
            memo: _,
            // Of a transfer, or of what is under way: there is none.
            found: _,
            storing: _,
            staging: _,
            map: _,
            op: _,
            waiting: _,
            writes: _,
            closing: _,
            sync: _,
            restart: _,
            data: _,
            ahead: _,
            swap: _,
            events: _,
            inbox: _,
            reports: _,
            outstanding: _,
        } = self;
        let troubles = Troubles {
            damage: damage.take(),
            refusal: refusal.take(),
            closed: plugin.closed.take(),
            strikes: plugin.take_strikes(),
        };
        Rest {
            config: Arc::clone(config),
            own: own.clone(),
            ports: Arc::clone(ports),
            record: std::mem::take(record),
            troubles: (troubles != Troubles::default()).then(|| Box::new(troubles)),
            spent: Packed::new(&plugin.spent()),
            factory: Arc::clone(&plugin.factory),
            former: plugin.former.take().map(Box::new),
            choice: book.take_word(),
            proof: proof.take(),
            map_torn: *map_torn,
            disturbed: *disturbed,
            durable: regions.are_durable(),
            last_state: *last_state,
            image_damaged: *image_damaged,
            swaps: *swaps,
        }
    }

    /// The target again.
    fn unfold(rest: Rest) -> Self {
        let spent = rest.spent.as_ref().and_then(Packed::open);
        let Troubles {
            damage,
            refusal,
            closed,
            strikes,
        } = rest.troubles.map(|troubles| *troubles).unwrap_or_default();
        let mut target = Self::make(
            (rest.config, rest.own),
            rest.ports,
            (rest.record, damage),
            (rest.factory, rest.former.map(|former| *former)),
            rest.choice,
        );
        target.plugin.resume(strikes, spent.unwrap_or_default());
        target.proof = rest.proof;
        if rest.durable {
            target.regions.go_on_durable();
        }
        target.map_torn = rest.map_torn;
        target.disturbed = rest.disturbed;
        target.last_state = rest.last_state;
        target.image_damaged = rest.image_damaged;
        target.refusal = refusal;
        target.plugin.closed = closed;
        target.swaps = rest.swaps;
        target
    }
}
