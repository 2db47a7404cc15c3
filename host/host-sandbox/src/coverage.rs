//! Which changes of the agent's state were seen under which faults: what a swarm has tried, as a table.
//!
//! States are what each turn tells the host ([`AgentStatus::state`](host_runtime::agent::AgentStatus)), so nothing of it
//! needs the agent's source. A fault counts for a change if it could strike at that time; a cut counts for the starts
//! after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::agent::{AgentBuild, AgentInstance, Around, Context, Event, StartInfo, Turn};
use host_runtime::engine::GuestFault;
use host_runtime::status::{
    STATE_NAMES, STATE_STOPPED, WAIT_JOB, WAIT_NAMES, WAIT_RESUME, name_or_number,
};
use host_runtime::types::{Blob, Failure};

use crate::fault::{Fault, KINDS, Kind, Strike};
use crate::judge::Violation;
use crate::world::Report;

/// The agent's state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// When, in milliseconds of virtual time.
    pub at_ms: u64,
    /// From; the state before a restart where `start` is set.
    pub from: u8,
    /// To.
    pub to: u8,
    /// An instance was started.
    pub start: bool,
}

/// Collects the moves of one run.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    state: u8,
    wait: Option<u32>,
    moves: Vec<Move>,
    broken: Vec<Violation>,
}

impl Seen {
    fn add(&mut self, invariant: &'static str, at_ms: u64, detail: String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(Violation {
                invariant,
                at_ms,
                detail,
            });
        }
    }
}

/// Violations kept of one run.
const BROKEN_MAX: usize = 8;

/// Moves kept of one run: an honest run has some hundred.
const MOVES_MAX: usize = 4096;

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moves, and what the agent may not do in any world.
    pub(crate) fn take(&self) -> (Vec<Move>, Vec<Violation>) {
        let mut seen = self.seen();
        let seen = &mut *seen;
        (
            std::mem::take(&mut seen.moves),
            std::mem::take(&mut seen.broken),
        )
    }

    fn broke(&self, now: Context, fault: GuestFault) -> GuestFault {
        self.seen().add("no trap", now.now_ms, fault.to_string());
        fault
    }

    fn note(&self, now: Context, turn: &Turn, start: bool) {
        let mut seen = self.seen();
        if let Some(wait) = &turn.wait {
            seen.wait = Some(wait.reason);
        }
        if turn.deadline_ms.is_none() {
            let told = turn.status.as_ref().map(|status| status.state);
            let state = told.unwrap_or(seen.state);
            let wait = seen.wait;
            let exempt = matches!(wait, Some(WAIT_JOB | WAIT_RESUME)) || state == STATE_STOPPED;
            if !exempt {
                let wait = name_or_number(&WAIT_NAMES, wait.unwrap_or_default());
                let state = name_or_number(&STATE_NAMES, state.into());
                let detail = format!("in state {state}, waiting for {wait}, it has no deadline");
                seen.add("every wait has a deadline", now.now_ms, detail);
            }
        }
        let Some(status) = &turn.status else { return };
        let from = std::mem::replace(&mut seen.state, status.state);
        if (from != status.state || start) && seen.moves.len() < MOVES_MAX {
            seen.moves.push(Move {
                at_ms: now.now_ms,
                from,
                to: status.state,
                start,
            });
        }
    }
}

/// The same build, whose turns are watched.
pub(crate) fn watched(build: &Arc<AgentBuild>) -> (Arc<AgentBuild>, Watch) {
    let watch = Watch::default();
    let (inner, noted) = (Arc::clone(build), watch.clone());
    let description = build.description().clone();
    let watched = AgentBuild::native(build.label(), description, move |outside| {
        Ok(Box::new(Watched {
            inner: inner.instantiate(outside)?,
            watch: noted.clone(),
        }))
    });
    (watched, watch)
}

struct Watched {
    inner: Box<dyn AgentInstance>,
    watch: Watch,
}

impl Around for Watched {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        let started = self.inner.start(context, info);
        let started = started.map_err(|fault| self.watch.broke(context, fault))?;
        if let Ok(turn) = &started {
            self.watch.note(context, turn, true);
        }
        Ok(started)
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let turn = self.inner.handle(context, event);
        let turn = turn.map_err(|fault| self.watch.broke(context, fault))?;
        self.watch.note(context, &turn, false);
        Ok(turn)
    }

    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        let blob = self.inner.snapshot(context);
        blob.map_err(|fault| self.watch.broke(context, fault))
    }
}

/// How often each change was seen under each kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Without a fault that could strike.
    calm: BTreeMap<(u8, u8), u64>,
    /// Under a kind.
    under: BTreeMap<((u8, u8), Kind), u64>,
}

impl Coverage {
    /// Count the moves of one run.
    pub fn count(&mut self, faults: &[Fault], report: &Report, moves: &[Move]) {
        let fallen = report.cuts.len();
        for change in moves {
            let key = (change.from, change.to);
            let mut calm = true;
            for fault in faults {
                let cut = matches!(fault.strike, Strike::Call { .. });
                if (cut && change.start && fallen > 0) || fault.is_about(change.at_ms) {
                    *self.under.entry((key, fault.kind)).or_default() += 1;
                    calm = false;
                }
            }
            if calm {
                *self.calm.entry(key).or_default() += 1;
            }
        }
    }

    /// Add what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.calm {
            *self.calm.entry(*key).or_default() += count;
        }
        for (key, count) in &other.under {
            *self.under.entry(*key).or_default() += count;
        }
    }

    /// Changes that were seen at all, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<(u8, u8)> {
        let mut changes: Vec<_> = self.calm.keys().copied().collect();
        changes.extend(self.under.keys().map(|(change, _)| *change));
        changes.sort_unstable();
        changes.dedup();
        changes
    }

    /// How often a change was seen under a kind; without one: with no fault about.
    #[must_use]
    pub fn seen(&self, change: (u8, u8), kind: Option<Kind>) -> u64 {
        let count = match kind {
            Some(kind) => self.under.get(&(change, kind)),
            None => self.calm.get(&change),
        };
        count.copied().unwrap_or(0)
    }

    /// Pairs of change and kind that were seen, and those of all seen changes with all kinds.
    #[must_use]
    pub fn pairs(&self) -> (usize, usize) {
        (self.under.len(), self.changes().len() * KINDS.len())
    }
}
