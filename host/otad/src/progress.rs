//! How far something is, for people: a bar on a terminal, one line per ten per cent elsewhere.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows one run from nothing to all.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    unit: Unit,
    shown: Option<u64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, which a bar shows in KiB and MiB.
    Bytes,
    /// Blocks of a stream.
    Blocks,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Blocks => "blocks",
        }
    }

    /// What fits into so many columns: 79 are the widest line, with five-digit numbers of MiB.
    fn template(self, columns: u16) -> &'static str {
        match self {
            _ if columns < 80 => "{msg:>12} [{wide_bar}] {percent:>3} %",
            Self::Bytes => {
                "{msg:>12} [{bar:20}] {percent:>3} % {bytes}/{total_bytes} {bytes_per_sec} {eta}"
            }
            Self::Blocks => "{msg:>12} [{bar:20}] {percent:>3} % {pos}/{len} blocks {eta}",
        }
    }
}

/// The bar moves at least this often, also where nothing arrives.
const TICK: Duration = Duration::from_millis(200);

/// A terminal that does not say how wide it is.
const COLUMNS_UNKNOWN: u16 = 80;

/// Plain lines come at each of these steps.
const STEP_PERCENT: u64 = 10;

impl Progress {
    /// Progress of `what`, on standard output.
    #[must_use]
    pub fn new(what: &str, unit: Unit) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            let columns = rustix::termios::tcgetwinsize(std::io::stdout())
                .map_or(COLUMNS_UNKNOWN, |size| size.ws_col);
            if let Ok(style) = ProgressStyle::with_template(unit.template(columns)) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(what.to_owned());
            bar
        });
        Self {
            bar,
            what: what.to_owned(),
            unit,
            shown: None,
        }
    }

    /// So many of so many.
    pub fn update(&mut self, done: u64, total: u64) {
        self.update_at(done, total, None);
    }

    /// So many of so many, at so many a second: plain lines then tell the rate and what remains. A bar measures itself.
    pub fn update_at(&mut self, done: u64, total: u64, per_s: Option<u64>) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            if self.shown.replace(0).is_none() {
                bar.enable_steady_tick(TICK);
            }
        } else if let Some(mut line) = self.line(done, total) {
            line.push_str(&pace(done, total, per_s));
            say(&line);
        }
    }

    /// Print a line above the bar.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say(line),
        }
    }

    /// The next plain line, if one is due.
    fn line(&mut self, done: u64, total: u64) -> Option<String> {
        let percent = (u128::from(done) * 100)
            .checked_div(u128::from(total))
            .and_then(|p| u64::try_from(p).ok())?
            .min(100);
        let step = percent / STEP_PERCENT * STEP_PERCENT;
        if self.shown.is_some_and(|s| s >= step) {
            return None;
        }
        self.shown = Some(step);
        let unit = self.unit.word();
        Some(format!("{:>12} {step:>3} % of {total} {unit}", self.what))
    }

    /// It is over; the bar goes, what was printed stays.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `, 7.1 KiB/s, 12 s left`.
fn pace(done: u64, total: u64, per_s: Option<u64>) -> String {
    let Some(per_s) = per_s.filter(|per_s| *per_s > 0 && done < total) else {
        return String::new();
    };
    let left_s = (total - done).div_ceil(per_s);
    format!(", {:.1} KiB/s, {left_s} s left", per_s as f64 / 1024.0)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Print one line to standard output. A closed pipe is not an error: the reader has seen enough.
pub fn say(line: &str) {
    let _enough = is_heard(line);
}

/// Print one line to standard error: what is good to know and no answer.
pub fn note(line: &str) {
    use std::io::Write as _;
    // Nobody is there to be told that nobody listens.
    drop(writeln!(std::io::stderr(), "otad: {line}"));
}

/// The same, and whether somebody still reads: for what prints until it is interrupted.
pub fn is_heard(line: &str) -> bool {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                // The first one says it all.
                LOST.set(error).ok();
            }
            false
        }
    }
}

static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Why something that was printed did not arrive, such as a full disk behind a redirection.
#[must_use]
pub fn lost() -> Option<&'static std::io::Error> {
    LOST.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_once_per_ten_per_cent() {
        let mut progress = Progress {
            bar: None,
            what: "downloading".to_owned(),
            unit: Unit::Blocks,
            shown: None,
        };
        let lines: Vec<_> = [0, 5, 9, 10, 55, 56, 100, 100, 120]
            .into_iter()
            .filter_map(|done| progress.line(done, 100))
            .collect();
        assert_eq!(
            lines,
            [
                " downloading   0 % of 100 blocks",
                " downloading  10 % of 100 blocks",
                " downloading  50 % of 100 blocks",
                " downloading 100 % of 100 blocks",
            ]
        );
        assert_eq!(progress.line(0, 0), None);
    }

    #[test]
    fn rate_and_remaining_time_are_told_while_something_remains() {
        assert_eq!(pace(1024, 11 * 1024, Some(2048)), ", 2.0 KiB/s, 5 s left");
        assert_eq!(pace(1024, 1024, Some(2048)), "");
        assert_eq!(pace(0, 1024, None), "");
    }
}
