//! A plugin's duty between its steps: when the next one is due, and when it counts as hung.

use super::config::Limits;
use crate::plugin::WakeOn;

/// Longest sleep that a plugin may ask for (`wit/pal/types.wit`, record `wake`); longer ones are cut.
const AFTER_MAX_MS: u32 = 60_000;

/// What has happened that a duty may wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The staged file has grown or was verified.
    pub(super) data: bool,
    /// The serial line has input, or came or went.
    pub(super) input: bool,
}

/// A duty that goes on.
#[derive(Clone, Debug)]
pub(super) struct DutyRun {
    done: u64,
    total: u64,
    /// When it named a time; `None` = it waits for something else alone.
    next_at: Option<u64>,
    on_data: bool,
    on_input: bool,
    began_at: u64,
    /// Last change of `done` or `total`.
    moved_at: u64,
    idle_steps: u32,
}

impl DutyRun {
    /// A duty that answered `working` to the call that began it.
    ///
    /// # Errors
    /// It breaks the contract.
    pub(super) fn begin(now_ms: u64, done: u64, total: u64, wake: WakeOn) -> Result<Self, String> {
        let mut run = Self {
            done,
            total,
            next_at: None,
            on_data: false,
            on_input: false,
            began_at: now_ms,
            moved_at: now_ms,
            idle_steps: 0,
        };
        run.sleep(now_ms, wake)?;
        Ok(run)
    }

    /// It answered `working` to a step.
    ///
    /// # Errors
    /// It breaks the contract, or it hangs.
    pub(super) fn stepped(
        &mut self,
        now_ms: u64,
        (done, total): (u64, u64),
        wake: WakeOn,
        limits: &Limits,
    ) -> Result<(), String> {
        let age_ms = now_ms.saturating_sub(self.began_at);
        if age_ms >= limits.duty_max_ms {
            return Err(format!(
                "no end within {} h",
                limits.duty_max_ms / 3_600_000
            ));
        }
        if (done, total) == (self.done, self.total) {
            self.idle_steps += 1;
            if self.idle_steps > limits.idle_steps_max {
                return Err(format!("no progress in {} steps", limits.idle_steps_max));
            }
            let idle_ms = now_ms.saturating_sub(self.moved_at);
            if idle_ms >= limits.duty_stall_ms {
                return Err(format!("no progress for {} s", idle_ms / 1000));
            }
        } else {
            self.done = done;
            self.total = total;
            self.moved_at = now_ms;
            self.idle_steps = 0;
        }
        self.sleep(now_ms, wake)
    }

    /// Whether to step now.
    pub(super) fn due(&self, now_ms: u64, news: News, limits: &Limits) -> bool {
        now_ms >= self.wake_at(limits) || self.is_woken(news)
    }

    /// Whether this is what it waits for.
    pub(super) fn is_woken(&self, news: News) -> bool {
        (self.on_data && news.data) || (self.on_input && news.input)
    }

    /// When to step at the latest: also when it has been silent for too long.
    pub(super) fn wake_at(&self, limits: &Limits) -> u64 {
        let stalled_at = self.moved_at.saturating_add(limits.duty_stall_ms);
        self.next_at.map_or(stalled_at, |at| at.min(stalled_at))
    }

    /// So far and in all.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.done, self.total)
    }

    fn sleep(&mut self, now_ms: u64, wake: WakeOn) -> Result<(), String> {
        if wake.on_input && wake.after_ms.is_none() {
            return Err("it waits for input and names no time, so it could wait for ever".into());
        }
        self.on_data = wake.on_data;
        self.on_input = wake.on_input;
        self.next_at = match wake.after_ms {
            Some(ms) => Some(now_ms + u64::from(ms.min(AFTER_MAX_MS))),
            None if wake.on_data => None,
            None => Some(now_ms),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: WakeOn = WakeOn {
        on_input: false,
        on_data: false,
        after_ms: None,
    };

    fn news(data: bool) -> News {
        News { data, input: false }
    }

    fn limits() -> Limits {
        Limits {
            idle_steps_max: 3,
            duty_stall_ms: 10_000,
            duty_max_ms: 100_000,
            ..Limits::default()
        }
    }

    #[test]
    fn a_duty_wakes_at_once_at_its_time_or_on_data() {
        let after = |after_ms| WakeOn { after_ms, ..SOON };
        let data = WakeOn {
            on_data: true,
            ..SOON
        };
        let begin = |wake| DutyRun::begin(1000, 0, 0, wake).unwrap();
        assert!(begin(SOON).due(1000, news(false), &limits()));
        assert!(!begin(after(Some(50))).due(1049, news(true), &limits()));
        assert!(begin(after(Some(50))).due(1050, news(false), &limits()));
        assert!(!begin(data).due(1000, news(false), &limits()));
        assert!(begin(data).due(1000, news(true), &limits()));
        let both = WakeOn {
            after_ms: Some(5),
            ..data
        };
        assert!(begin(both).due(1000, news(true), &limits()));
        assert!(begin(both).due(1005, news(false), &limits()));
    }

    #[test]
    fn input_wakes_who_waits_for_it_and_nobody_else() {
        let input = News {
            input: true,
            ..News::default()
        };
        let for_input = WakeOn {
            on_input: true,
            after_ms: Some(500),
            ..SOON
        };
        let for_data = WakeOn {
            on_data: true,
            after_ms: Some(500),
            ..SOON
        };
        for (wake, due) in [(for_input, true), (for_data, false)] {
            let run = DutyRun::begin(0, 0, 0, wake).unwrap();
            assert_eq!(run.due(1, input, &limits()), due);
            assert!(!run.due(1, News::default(), &limits()));
        }
    }

    #[test]
    fn a_sleep_over_the_limit_is_cut_to_it() {
        let long = WakeOn {
            after_ms: Some(u32::MAX),
            ..SOON
        };
        let run = DutyRun::begin(0, 0, 0, long).unwrap();
        assert_eq!(run.wake_at(&Limits::default()), 60_000);
    }

    #[test]
    fn waiting_for_input_without_a_time_is_refused() {
        let input = WakeOn {
            on_input: true,
            ..SOON
        };
        assert!(DutyRun::begin(0, 0, 0, input).is_err());
        let with_time = WakeOn {
            after_ms: Some(1),
            ..input
        };
        let mut run = DutyRun::begin(0, 0, 0, with_time).unwrap();
        assert!(run.stepped(1, (1, 0), input, &limits()).is_err());
    }

    #[test]
    fn a_duty_hangs_by_steps_or_by_time_and_progress_counts_anew() {
        let mut run = DutyRun::begin(0, 0, 0, SOON).unwrap();
        for done in [0, 0, 0, 1, 1, 1, 1] {
            run.stepped(0, (done, 0), SOON, &limits()).unwrap();
        }
        assert!(run.stepped(0, (1, 0), SOON, &limits()).is_err());
        let mut run = DutyRun::begin(0, 0, 0, SOON).unwrap();
        run.stepped(9_999, (0, 0), SOON, &limits()).unwrap();
        assert!(run.stepped(10_000, (0, 0), SOON, &limits()).is_err());
    }

    #[test]
    fn a_duty_that_creeps_on_for_ever_is_ended_by_the_clock() {
        let mut run = DutyRun::begin(0, 0, 0, SOON).unwrap();
        let mut step = |now_ms| run.stepped(now_ms, (now_ms, u64::MAX), SOON, &limits());
        assert_eq!((1..100).find_map(|n| step(n * 1000).err()), None);
        assert_eq!(step(100_000).unwrap_err(), "no end within 0 h");
    }

    #[test]
    fn a_duty_that_waits_for_data_alone_is_looked_at_when_it_has_stalled() {
        let data = WakeOn {
            on_data: true,
            ..SOON
        };
        let run = DutyRun::begin(500, 0, 0, data).unwrap();
        assert_eq!(run.wake_at(&limits()), 10_500);
        assert!(run.due(10_500, news(false), &limits()));
    }
}
