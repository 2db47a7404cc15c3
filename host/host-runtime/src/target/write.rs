//! Blocks: checked against the grid, given to the plugin or the staging file, entered in the block map, synced.
//!
//! ```text
//! write-block ─▶ gathered with those beside it ─▶ plugin or staging file ─▶ block map ─▶ sync
//!      │  Done        until the turn ends, a block lies elsewhere, there    held
//!      │              is no room, a sync is due, or anything is asked or sent
//!      └─▶ what cannot be gathered waits, Pending, for what is before it and for its own end
//! ```
//!
//! Whoever brings a block is told at once that it was taken. What comes in one turn of the device lies in the storage and
//! in the map at its end, or before the next request leaves, each with one call where the blocks lie side by side, and counts
//! as held from then on. A process that is killed before that fetches them again. A plugin that breaks with them loses none:
//! a fresh instance is given them, as long as there may be one. A plugin or a storage that refuses them fails the transfer's
//! next operations, as a failed sync does; an append that fails is made good by the map's being written anew.
//! Data and map are made durable together by a worker, after so many bytes or so much time; blocks go on arriving
//! meanwhile, up to twice that many, then they wait. A failed sync releases everything since the last good one and fails
//! the transfer's next operations: after fsync has failed once, what a read says is no proof that the medium has it.

use std::collections::VecDeque;
use std::ops::Range;

use super::TargetEvent;
use super::config::limit;
use super::duty::{DutyRun, News};
use super::machine::Target;
use super::map::{BlockMap, Grid};
use super::script::{Asker, Kind};
use super::work;
use crate::agent::text::clean;
use crate::plugin::Duty;
use crate::types::{DETAIL_MAX_BYTES, Failure, Outcome, Token, code};

/// Most bytes of one write (`wit/agent/pal.wit`).
pub(super) const WRITE_MAX_BYTES: usize = 131_072;

/// Calls of the plugin within the agent's call that brings a block: one writes it, or two if the plugin takes half a
/// block at a time. As many for those that were gathered before it.
const INLINE_CALLS_MAX: u32 = 2;

/// A write under way.
pub(super) struct Write {
    /// Who waits for its end: nobody if its blocks were gathered, and told as taken.
    token: Option<Token>,
    /// When it came, or its first block.
    at_ms: u64,
    offset: u64,
    data: Vec<u8>,
    /// What is to be written, in bytes of `data`: runs of blocks not yet held. `None` until it begins.
    runs: Option<Vec<Range<usize>>>,
    /// What is left of them, cut to the plugin's largest write.
    pieces: VecDeque<Range<usize>>,
    duty: Option<DutyRun>,
}

/// A write as it comes: its bytes are still whose it is.
#[derive(Clone, Copy)]
pub(super) struct Brought<'a> {
    pub(super) token: Token,
    pub(super) at_ms: u64,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
}

impl Write {
    /// For the same, with room for so many bytes.
    fn of(brought: Brought<'_>, capacity: usize) -> Self {
        let mut data = Vec::with_capacity(capacity.max(brought.data.len()));
        data.extend_from_slice(brought.data);
        Self {
            token: Some(brought.token),
            at_ms: brought.at_ms,
            offset: brought.offset,
            data,
            runs: None,
            pieces: VecDeque::new(),
            duty: None,
        }
    }

    /// Its plugin is another one: nothing of it was acknowledged, so all of it is written again.
    pub(super) fn begin_again(&mut self) {
        self.runs = None;
        self.pieces.clear();
        self.duty = None;
    }

    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Check a write against the grid: whole blocks, within the file.
pub(super) fn check_write(grid: Grid, offset: u64, length: usize) -> Result<(), Failure> {
    let refuse = |reason: String| Err(Failure::new(code::BAD_ARGUMENT, 0, reason));
    let block = u64::from(grid.block);
    if length == 0 || length > WRITE_MAX_BYTES {
        return refuse(format!(
            "a write of {length} bytes, expected 1 to {WRITE_MAX_BYTES}"
        ));
    }
    if !offset.is_multiple_of(block) {
        return refuse(format!(
            "offset {offset} is not on the grid of {block} bytes"
        ));
    }
    match offset.checked_add(length as u64) {
        Some(end) if end > grid.size => refuse(format!(
            "{length} bytes at {offset} are beyond the file of {} bytes",
            grid.size
        )),
        Some(end) if !end.is_multiple_of(block) && end != grid.size => refuse(format!(
            "{length} bytes at {offset} are not whole blocks of {block} bytes"
        )),
        Some(_) => Ok(()),
        None => refuse(format!("offset {offset} is beyond any file")),
    }
}

impl Target {
    /// Write what can be written now.
    pub(super) fn pump(&mut self, now_ms: u64) {
        loop {
            if self.op.is_some() {
                return;
            }
            if self.writes.is_empty() {
                return self.close_at_last();
            }
            if !self.waiting.is_empty() && !self.is_writing() {
                // Between two blocks; the rest goes on after the answer.
                return self.advance(now_ms);
            }
            if self.map_torn && self.sync.check().is_ok() {
                self.begin_mend();
                self.collect(now_ms);
                if self.map_torn {
                    return;
                }
                continue;
            }
            let began = self.writes.front().is_some_and(|w| w.runs.is_some());
            if !began && self.must_wait_for_sync() {
                return;
            }
            // Without a transfer that receives there is nothing to attach to, and the write is refused below.
            if self.is_direct() && !self.plugin.is_attached() && self.map.is_some() {
                // Its plugin broke between two steps. What was told as taken nobody brings again.
                match self.writes.front_mut() {
                    Some(write) if began && write.token.is_none() => write.begin_again(),
                    _ if began => {
                        self.fail_first(&self.broken());
                        continue;
                    }
                    _ => {}
                }
                self.begin(None, Kind::Revive);
                return;
            }
            let Some(ended) = self.write_first(now_ms, self.config.limits.steps_per_poll) else {
                return;
            };
            if let (Some(token), outcome) = ended {
                self.events.push_back(TargetEvent::Done { token, outcome });
            }
        }
    }

    /// Whether a block can be written now.
    fn is_ready(&self) -> bool {
        let attached = !self.is_direct() || self.plugin.is_attached();
        attached && self.op.is_none() && !self.map_torn
    }

    /// Whether one that comes now may be.
    fn takes_at_once(&self) -> bool {
        self.is_ready() && self.waiting.is_empty() && !self.must_wait_for_sync()
    }

    /// Try a write within the call that brought it, if nothing is before it: a block costs a copy then, and no turn of
    /// the device. A few calls of the plugin at most, none of which may sync; what is left goes on in the next poll.
    fn write_at_once(&mut self, now_ms: u64) -> Option<Outcome> {
        if self.writes.len() != 1 || !self.takes_at_once() {
            return None;
        }
        let (_, outcome) = self.write_first(now_ms, INLINE_CALLS_MAX)?;
        Some(outcome)
    }

    /// Go on with the first write; who waited for it and how it ended, if it has.
    fn write_first(&mut self, now_ms: u64, calls: u32) -> Option<(Option<Token>, Outcome)> {
        let mut write = self.writes.pop_front()?;
        let failure = match self.write(now_ms, &mut write, calls) {
            Ok(true) => return Some((write.token, Outcome::Nothing)),
            Ok(false) => {
                self.writes.push_front(write);
                return None;
            }
            Err(failure) => failure,
        };
        // What was gathered nobody brings again.
        let broke = self.plugin.take_broke() && write.token.is_none();
        if self.plugin.take_spared() || broke {
            write.begin_again();
            self.writes.push_front(write);
            return None;
        }
        self.leave(&write, &failure);
        Some((write.token, Outcome::Failed(failure)))
    }

    /// Go on with a write; `Ok(false)` = its plugin sleeps, or has had its calls.
    fn write(&mut self, now_ms: u64, write: &mut Write, calls: u32) -> Result<bool, Failure> {
        self.plugin.take_spared();
        let (Some(grid), Some(map)) = (self.grid(), self.map.as_ref()) else {
            return Err(Failure::new(
                code::BUSY,
                0,
                "the transfer takes no blocks now",
            ));
        };
        self.sync.check()?;
        let runs = match &write.runs {
            Some(runs) => runs.clone(),
            None => {
                let runs = missing_runs(map, grid, write.offset, write.data.len());
                write.pieces = self.pieces(&runs);
                write.runs = Some(runs.clone());
                runs
            }
        };
        if self.is_direct() {
            if !self.write_by_plugin(now_ms, write, calls)? {
                return Ok(false);
            }
        } else {
            self.write_staged(write)?;
        }
        self.enter_in_map(grid, write, &runs);
        Ok(true)
    }

    fn write_by_plugin(
        &mut self,
        now_ms: u64,
        write: &mut Write,
        mut calls: u32,
    ) -> Result<bool, Failure> {
        let limits = self.config.limits.clone();
        while let Some(piece) = write.pieces.front().cloned() {
            let answer = match write.duty.take() {
                None if calls == 0 => return Ok(false),
                None => {
                    calls -= 1;
                    let at = write.offset + piece.start as u64;
                    let data = &write.data[piece];
                    self.plugin
                        .call_to_write(|plugin| plugin.write_block(at, data))?
                }
                Some(run) if calls == 0 || !run.due(now_ms, News::default(), &limits) => {
                    write.duty = Some(run);
                    return Ok(false);
                }
                Some(mut run) => {
                    calls -= 1;
                    let budget = limits.step_budget_bytes;
                    let answer = self.plugin.call_to_write(|plugin| plugin.step(budget))?;
                    if let Duty::Working { done, total, wake } = answer {
                        run.stepped(now_ms, (done, total), wake, &limits)
                            .map_err(|reason| self.plugin.strike(&reason))?;
                        write.duty = Some(run);
                        continue;
                    }
                    answer
                }
            };
            match answer {
                Duty::Finished(_) => {
                    self.plugin.prove();
                    write.pieces.pop_front();
                }
                Duty::Working { done, total, wake } => {
                    let run = DutyRun::begin(now_ms, done, total, wake)
                        .map_err(|reason| self.plugin.strike(&reason))?;
                    write.duty = Some(run);
                }
            }
        }
        Ok(true)
    }

    fn write_staged(&mut self, write: &mut Write) -> Result<(), Failure> {
        let layout = self.layout()?;
        while let Some(piece) = write.pieces.pop_front() {
            layout
                .write_at(write.offset + piece.start as u64, &write.data[piece])
                .map_err(|at| work::storage("write", &at))?;
        }
        Ok(())
    }

    /// The storage has the blocks: from now on they are held.
    fn enter_in_map(&mut self, grid: Grid, write: &Write, runs: &[Range<usize>]) {
        let name = self.map_name();
        let Some(map) = self.map.as_mut().filter(|_| !runs.is_empty()) else {
            return;
        };
        let mut records = Vec::new();
        for run in runs {
            let first = (write.offset + run.start as u64) / u64::from(grid.block);
            let first = u32::try_from(first).unwrap_or(u32::MAX);
            let blocks = write.data[run.clone()].chunks(grid.block as usize);
            let crcs: Vec<u32> = blocks.map(crc32c::crc32c).collect();
            records.extend(BlockMap::record(first, &crcs));
            map.enter(first, &crcs);
        }
        let (held, fresh) = (map.prefix_bytes(), map.unsynced_bytes());
        self.staged.set_held(held);
        self.data = true;
        self.sync.written(write.at_ms);
        if !self.map_torn
            && let Err(error) = self.ports.state.append(&name, &records, false)
        {
            // Perhaps a part of it is there. Written anew it has all of it.
            tracing::warn!(
                device = %self.device, target = %self.config.name,
                "the block map took no entries and is written anew: {error}"
            );
            self.map_torn = true;
            self.begin_mend();
        }
        if fresh >= self.sync_due_bytes()
            && let Err(failure) = self.begin_sync()
        {
            self.sync.fail(failure);
        }
    }

    /// Most bytes that plugin or file take at a time.
    fn largest_write(&self) -> usize {
        if self.is_direct() {
            (self.plugin.description().largest_write as usize).clamp(1, WRITE_MAX_BYTES)
        } else {
            WRITE_MAX_BYTES
        }
    }

    /// Cut runs to what is taken at a time.
    fn pieces(&self, runs: &[Range<usize>]) -> VecDeque<Range<usize>> {
        let largest = self.largest_write();
        let block = self.grid().map_or(largest, |grid| grid.block as usize);
        // Whole blocks, or parts of one.
        let whole = (largest / block * block).max(block);
        let cut = |range: Range<usize>, step: usize| {
            let end = range.end;
            range
                .step_by(step)
                .map(move |start| start..end.min(start + step))
        };
        let runs = runs.iter().cloned();
        runs.flat_map(|run| cut(run, whole))
            .flat_map(|part| cut(part, largest))
            .collect()
    }

    pub(super) fn write_wake_at(&self) -> Option<u64> {
        let first = self.writes.front()?;
        match &first.duty {
            Some(duty) => Some(duty.wake_at(&self.config.limits)),
            // What is under way, or the sync, wakes by itself; a map that was torn last of all is still to be mended.
            None if self.op.is_some() => None,
            None if first.runs.is_none() && self.must_wait_for_sync() => None,
            None if self.map_torn && self.sync.check().is_ok() && self.sync.is_under_way() => None,
            None => Some(0),
        }
    }

    /// Whether the plugin is in the middle of a block.
    pub(super) fn is_writing(&self) -> bool {
        self.writes.front().is_some_and(|w| w.duty.is_some())
    }

    /// Take a write; it is gathered, or tried at once. How it ended, if it has.
    pub(super) fn queue_write(&mut self, brought: Brought<'_>) -> Result<Option<Outcome>, Failure> {
        if self.gather(brought) {
            return Ok(Some(Outcome::Nothing));
        }
        let max = self.config.limits.pending_writes_max;
        if self.writes.len() >= max {
            return Err(Failure::new(
                code::LIMIT,
                limit::PENDING_WRITES,
                format!("{max} writes wait already; ask for no more than the window"),
            ));
        }
        let waiting: usize = self.writes.iter().map(|w| w.data.len()).sum();
        let max = self.config.limits.pending_bytes_max;
        if waiting > 0 && waiting.saturating_add(brought.data.len()) > max {
            return Err(Failure::new(
                code::LIMIT,
                limit::PENDING_BYTES,
                format!(
                    "writes of {waiting} bytes wait already, {max} may; ask for no more than the window"
                ),
            ));
        }
        self.writes.push_back(Write::of(brought, 0));
        Ok(self.write_at_once(brought.at_ms))
    }

    /// End all writes that wait.
    pub(super) fn fail_writes(&mut self, failure: &Failure) {
        while !self.writes.is_empty() {
            self.fail_first(failure);
        }
    }

    fn fail_first(&mut self, failure: &Failure) {
        if let Some(write) = self.writes.pop_front() {
            self.leave(&write, failure);
            self.events
                .extend(write.token.map(|token| TargetEvent::Done {
                    token,
                    outcome: Outcome::Failed(failure.clone()),
                }));
        }
    }

    /// A write fails. The plugin is given one at a time, so a duty that it has begun ends with its instance; and blocks that
    /// were told as taken fail what is asked next.
    fn leave(&mut self, write: &Write, failure: &Failure) {
        if write.duty.is_some() && self.plugin.is_attached() {
            self.plugin.drop_instance();
        }
        if write.token.is_some() || self.sync.check().is_err() {
            return;
        }
        if failure.main == code::BUSY {
            // They are in no map, so the close says that they are missing, and they are fetched again.
            let (from, end) = (write.offset, write.end());
            tracing::warn!(
                device = %self.device, target = %self.config.name,
                "bytes {from} to {end} were not taken: {failure}"
            );
            return;
        }
        let (from, end) = (write.offset, write.end());
        let reason = format!(
            "bytes {from} to {end} that came last are lost: {}",
            failure.detail
        );
        tracing::error!(device = %self.device, target = %self.config.name, "{reason}");
        let detail = clean(&reason, DETAIL_MAX_BYTES);
        self.sync
            .fail(Failure::new(failure.main, failure.sub, detail));
    }

    /// Cancel all writes that wait, and the close that waits for them; `true` if one had begun a duty.
    pub(super) fn cancel_writes(&mut self) -> bool {
        let began = self.is_writing();
        let closing = self.closing.take();
        let writes = self.writes.drain(..).filter_map(|write| write.token);
        let tokens: Vec<Token> = writes.chain(closing).collect();
        for token in tokens {
            self.tell_cancelled(Some(Asker::Agent(token)));
        }
        began
    }

    fn broken(&self) -> Failure {
        Failure::new(
            code::PLUGIN_FAILED,
            self.plugin.strikes(),
            "the plugin broke while it wrote a block",
        )
    }
}

/// The runs of blocks in `offset..offset + length` that are not held, in bytes from `offset`.
fn missing_runs(map: &BlockMap, grid: Grid, offset: u64, length: usize) -> Vec<Range<usize>> {
    let block = grid.block as usize;
    let first = u32::try_from(offset / u64::from(grid.block)).unwrap_or(u32::MAX);
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, start) in (first..).zip((0..length).step_by(block)) {
        if map.holds(index) {
            continue;
        }
        let end = length.min(start + block);
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

mod gather;
#[cfg(test)]
mod tests;
