//! How far something is, for people: a bar on a terminal, one line per ten per cent elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows one run from nothing to all.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    shown: Option<u64>,
}

/// The bar moves at least this often, also where nothing arrives.
const TICK: Duration = Duration::from_millis(200);

/// Plain lines come at each of these steps.
const STEP_PERCENT: u64 = 10;

impl Progress {
    /// Progress of `what`, on standard output.
    #[must_use]
    pub fn new(what: &str) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template(
                "{msg:>12} [{bar:32}] {percent:>3} % {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(what.to_owned());
            bar
        });
        Self {
            bar,
            what: what.to_owned(),
            shown: None,
        }
    }

    /// So many bytes of so many.
    pub fn update(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            if self.shown.replace(0).is_none() {
                bar.enable_steady_tick(TICK);
            }
        } else if let Some(line) = self.line(done, total) {
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
        Some(format!("{:>12} {step:>3} % of {total} bytes", self.what))
    }

    /// It is over; the bar goes, what was printed stays.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Print one line to standard output. A closed pipe is not an error: the reader has seen enough.
pub fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_once_per_ten_per_cent() {
        let mut progress = Progress {
            bar: None,
            what: "downloading".to_owned(),
            shown: None,
        };
        let lines: Vec<_> = [0, 5, 9, 10, 55, 56, 100, 100, 120]
            .into_iter()
            .filter_map(|done| progress.line(done, 100))
            .collect();
        assert_eq!(
            lines,
            [
                " downloading   0 % of 100 bytes",
                " downloading  10 % of 100 bytes",
                " downloading  50 % of 100 bytes",
                " downloading 100 % of 100 bytes",
            ]
        );
        assert_eq!(progress.line(0, 0), None);
    }
}
