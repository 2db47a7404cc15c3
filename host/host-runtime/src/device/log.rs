//! Lines that a guest logs: one line each, cut, and no more of them than an operator can use.

use crate::agent::text::clean;
use crate::types::Level;

/// Most bytes of a line; the contract's limit.
const LINE_MAX_BYTES: usize = 1024;

/// Lines at once: the story of a job with 16 files at debug level.
const BURST_LINES: u64 = 400;

/// Lines a second after that; more than anybody reads, less than what fills a disk in a day (50 × 100 B = 430 MB).
const LINES_PER_S: u64 = 50;

/// The log of one device's agent.
#[derive(Debug)]
pub(super) struct GuestLog {
    /// Lines left, in thousandths.
    credit: u64,
    at_ms: u64,
    suppressed: u64,
}

impl GuestLog {
    pub(super) fn new() -> Self {
        Self {
            credit: BURST_LINES * 1000,
            at_ms: 0,
            suppressed: 0,
        }
    }

    /// One line. `job` is the active job, for filters.
    pub(super) fn line(
        &mut self,
        now_ms: u64,
        device: &str,
        job: Option<&str>,
        level: Level,
        text: &str,
    ) {
        // A line that nobody reads costs nobody else's.
        if !is_level_read(level) {
            return;
        }
        match self.admit(now_ms) {
            Some(0) => {}
            Some(suppressed) => write(
                device,
                job,
                Level::Warn,
                &format!("{suppressed} lines of the agent were suppressed"),
            ),
            None => return,
        }
        write(device, job, level, &clean(text, LINE_MAX_BYTES));
    }

    /// `None` = suppress this one; otherwise how many were suppressed before it.
    fn admit(&mut self, now_ms: u64) -> Option<u64> {
        let elapsed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms.max(self.at_ms);
        // A line is 1000 of credit, so n lines a second are n of credit a millisecond.
        self.credit = elapsed
            .saturating_mul(LINES_PER_S)
            .saturating_add(self.credit)
            .min(BURST_LINES * 1000);
        // After a flood the next line waits for a second's worth, so that its end is told once a second and not with
        // every line.
        let enough = if self.suppressed > 0 { LINES_PER_S } else { 1 } * 1000;
        if self.credit < enough {
            self.suppressed += 1;
            return None;
        }
        self.credit -= 1000;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Whether the log of this process shows agents' lines of this level.
#[must_use]
pub fn is_level_read(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: "agent", tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: "agent", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "agent", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "agent", tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: "agent", tracing::Level::ERROR),
    }
}

fn write(device: &str, job: Option<&str>, level: Level, text: &str) {
    // The level of a tracing event is part of its code.
    match level {
        Level::Trace => tracing::trace!(target: "agent", device, job, "{text}"),
        Level::Debug => tracing::debug!(target: "agent", device, job, "{text}"),
        Level::Info => tracing::info!(target: "agent", device, job, "{text}"),
        Level::Warn => tracing::warn!(target: "agent", device, job, "{text}"),
        Level::Error => tracing::error!(target: "agent", device, job, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_its_rate_and_what_is_missing_is_counted() {
        let mut log = GuestLog::new();
        let at_once = (0..1000).filter(|_| log.admit(0).is_some()).count();
        assert_eq!(at_once as u64, BURST_LINES);
        // After a second there is room again, and the first line tells of those that are missing.
        assert_eq!(log.admit(999), None);
        assert_eq!(log.admit(1000), Some(601));
        assert_eq!(log.admit(1000), Some(0));
        // A long silence fills the credit again, and no further.
        let after = (0..1000).filter(|_| log.admit(1_000_000).is_some()).count();
        assert_eq!(after as u64, BURST_LINES);
    }
}
