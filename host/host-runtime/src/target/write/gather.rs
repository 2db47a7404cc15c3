//! Blocks that are kept until there are some: those that lie side by side and come in one turn are given to the plugin, or
//! written to the staging file, with one call.
//!
//! A plugin and a file system take many blocks in little more time than one, and blocks come side by side. As many as a
//! plugin takes at a time are a whole request of the agent, and they are written before the next one leaves, unless the plugin
//! is slow: what a killed process fetches again is what was on its way. What is gathered is a [`Write`] that nobody waits for,
//! the first of the queue: whatever holds for one that was begun holds for it.

use super::{BlockMap, Brought, Grid, INLINE_CALLS_MAX, Write};
use crate::target::TargetEvent;
use crate::target::machine::Target;
use crate::target::script::Kind;
use crate::types::Outcome;

impl Target {
    /// Take a write to those that were gathered, or as the first of them, with room for all. Otherwise it is to go its own
    /// way.
    pub(super) fn gather(&mut self, brought: Brought<'_>) -> bool {
        let max = self.gathered_max_bytes();
        let first = self.gathered();
        if first.is_some_and(|run| !self.is_followed(run, brought, max)) {
            self.write_out();
        }
        if !self.is_gathered(brought, max) {
            return false;
        }
        match self.writes.front_mut() {
            Some(run) => run.data.extend_from_slice(brought.data),
            None => self.writes.push_back(Write {
                token: None,
                ..Write::of(brought, max)
            }),
        }
        let gathered = self.gathered().map_or(0, |run| run.data.len() as u64);
        let fresh = self.map.as_deref().map_or(0, BlockMap::unsynced_bytes);
        if fresh + gathered >= self.sync_due_bytes() {
            self.write_out();
        }
        true
    }

    /// Give what was gathered to the plugin or the file, and enter it: before anything else is done with the target. What a
    /// slow plugin leaves of it goes on in the next poll.
    pub(in crate::target) fn write_out(&mut self) {
        if let Some(at_ms) = self.gathered().map(|run| run.at_ms)
            && self.is_ready()
        {
            self.write_first(at_ms, INLINE_CALLS_MAX);
        }
    }

    /// Whether all that is under way are blocks that were told as taken.
    pub(in crate::target) fn owes_blocks(&self) -> bool {
        !self.writes.is_empty() && self.writes.iter().all(|write| write.token.is_none())
    }

    /// Begin the close that was waiting for the last blocks, if one was.
    pub(super) fn close_at_last(&mut self) {
        let Some(token) = self.closing.take() else {
            return;
        };
        match self.check_complete() {
            Ok(()) => self.begin(Some(token), Kind::Close),
            Err(failure) => self.events.push_back(TargetEvent::Done {
                token,
                outcome: Outcome::Failed(failure),
            }),
        }
    }

    /// The gathered blocks, as long as nobody was given them.
    fn gathered(&self) -> Option<&Write> {
        let first = self.writes.front()?;
        (first.token.is_none() && first.runs.is_none()).then_some(first)
    }

    /// Most bytes that are gathered for this target.
    fn gathered_max_bytes(&self) -> usize {
        let pending = self.config.limits.pending_bytes_max;
        self.largest_write().min(pending)
    }

    /// Whether a write lies right behind what was gathered, in the same extent, and there is room for it.
    fn is_followed(&self, run: &Write, next: Brought<'_>, max: usize) -> bool {
        run.end() == next.offset
            && run.data.len() + next.data.len() <= max
            && !self.is_border(next.offset)
    }

    /// Whether a write is gathered: with those before it, or as the first where there is room for another one like it.
    fn is_gathered(&self, brought: Brought<'_>, max: usize) -> bool {
        let beside = match (self.gathered(), self.writes.len()) {
            (None, 0) => 2 * brought.data.len() <= max,
            (Some(run), 1) => self.is_followed(run, brought, max),
            (None | Some(_), _) => false,
        };
        let (Some(grid), Some(map)) = (self.grid(), self.map.as_ref()) else {
            return false;
        };
        beside
            && self.takes_at_once()
            && self.sync.check().is_ok()
            && blocks_of(grid, brought).all(|index| !map.holds(index))
    }
}

fn blocks_of(grid: Grid, brought: Brought<'_>) -> impl Iterator<Item = u32> {
    let first = u32::try_from(brought.offset / u64::from(grid.block)).unwrap_or(u32::MAX);
    (first..).take(brought.data.len().div_ceil(grid.block as usize))
}
