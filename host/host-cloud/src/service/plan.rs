//! Whom a job reaches besides the things it names, how fast, and when it gives up.
//!
//! Plain data with its ranges; what it does is in `rollout`.

use serde::{Deserialize, Serialize};

use super::{GroupName, JobProgress, ServiceError};

/// Most things a minute at AWS.
pub const AWS_THINGS_PER_MINUTE_MAX: u32 = 1000;

/// Who gets a job, besides the things it names: everything beyond "these things, all at once, come what may".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Groups whose members get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// Whether later members get it too.
    #[serde(skip_serializing_if = "Selection::is_snapshot")]
    pub selection: Selection,
    /// How fast.
    #[serde(skip_serializing_if = "Rollout::is_at_once")]
    pub rollout: Rollout,
    /// When it gives up; the first rule that holds ends it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub abort: Vec<AbortRule>,
}

impl Plan {
    pub(super) fn check(&self) -> Result<(), ServiceError> {
        let rate = self.rollout.per_minute;
        if rate.is_some_and(|n| !(1..=AWS_THINGS_PER_MINUTE_MAX).contains(&n)) {
            return Err(ServiceError::RateOutOfRange(rate.unwrap_or_default()));
        }
        if self.rollout.canary == Some(0) {
            return Err(ServiceError::CanaryOfNone);
        }
        for rule in &self.abort {
            match rule.threshold {
                Threshold::Percent(1..=100) | Threshold::Count(1..) => {}
                Threshold::Percent(n) => return Err(ServiceError::PercentOutOfRange(n)),
                Threshold::Count(_) => return Err(ServiceError::ThresholdOfNone),
            }
            if rule.minimum == Some(0) {
                return Err(ServiceError::MinimumOfNone);
            }
        }
        Ok(())
    }
}

/// Whether a job is for those who are members now, or for whoever is one while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Those of now; it is completed when all of them have ended.
    #[default]
    Snapshot,
    /// Also those who join a group of it later; it never completes, only a cancel ends it.
    Continuous,
}

impl Selection {
    /// Whether it is [`Selection::Snapshot`].
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        *self == Self::Snapshot
    }
}

/// How fast a job spreads. Without either member every thing gets it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// A batch of so many things each minute: 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// So many things first; the others wait until all of these have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<u32>,
}

impl Rollout {
    /// Whether every thing gets it at once.
    #[must_use]
    pub fn is_at_once(&self) -> bool {
        *self == Self::default()
    }
}

/// Which ends count as failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureKind {
    /// FAILED.
    Failed,
    /// REJECTED.
    Rejected,
    /// TIMED_OUT.
    TimedOut,
    /// Any of the three.
    #[default]
    All,
}

/// How many failures are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Percent of the executions that ended on their thing: 1 to 100.
    Percent(u8),
    /// A number of executions, at least 1.
    Count(u32),
}

impl std::str::FromStr for Threshold {
    type Err = String;

    /// `10%` or `3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is neither a percentage such as 10% (1 to 100) nor a count such as 3")
        };
        match text.strip_suffix('%') {
            Some(digits) => match digits.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => match text.parse() {
                Ok(count @ 1..) => Ok(Self::Count(count)),
                _ => Err(wrong()),
            },
        }
    }
}

/// When a job gives up: it is cancelled, and things that have not begun see CANCELED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortRule {
    /// What counts.
    #[serde(default)]
    pub failures: FailureKind,
    /// How many of them are too many.
    #[serde(flatten)]
    pub threshold: Threshold,
    /// Executions that must have ended on their thing before the rule is asked; if left out, as many as the canary has,
    /// or one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u32>,
}

impl AbortRule {
    /// A rule over all failures.
    #[must_use]
    pub fn new(threshold: Threshold) -> Self {
        Self {
            failures: FailureKind::All,
            threshold,
            minimum: None,
        }
    }

    /// Executions that must have ended before the rule can say anything about an image that fails everywhere.
    pub(super) fn needs(&self, rollout: Rollout) -> usize {
        let minimum = self.minimum.or(rollout.canary).unwrap_or(1);
        match self.threshold {
            Threshold::Percent(_) => minimum as usize,
            Threshold::Count(count) => minimum.max(count) as usize,
        }
    }

    /// Why the rule ends the job now; `None` = it does not.
    pub(super) fn broken(&self, rollout: Rollout, progress: &JobProgress) -> Option<String> {
        let executed = progress.executed();
        let failures = match self.failures {
            FailureKind::Failed => progress.failed,
            FailureKind::Rejected => progress.rejected,
            FailureKind::TimedOut => progress.timed_out,
            FailureKind::All => progress.failed + progress.rejected + progress.timed_out,
        };
        let minimum = self.minimum.or(rollout.canary).unwrap_or(1) as usize;
        if executed < minimum || failures == 0 {
            return None;
        }
        let (over, limit) = match self.threshold {
            Threshold::Percent(percent) => (
                failures * 100 >= executed * usize::from(percent),
                format!("{percent} %"),
            ),
            Threshold::Count(count) => (failures >= count as usize, count.to_string()),
        };
        over.then(|| {
            format!(
                "{failures} of {executed} executions that ended are failures; the limit is {limit}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(succeeded: usize, failed: usize, rejected: usize, timed_out: usize) -> JobProgress {
        JobProgress {
            succeeded,
            failed,
            rejected,
            timed_out,
            ..JobProgress::default()
        }
    }

    #[test]
    fn a_rule_breaks_at_its_limit_and_not_before_its_minimum() {
        use FailureKind::*;
        use Threshold::*;
        let rule = |failures, threshold, minimum| AbortRule {
            failures,
            threshold,
            minimum,
        };
        let canary = |n| Rollout {
            canary: n,
            ..Rollout::default()
        };
        // rule, canary, (succeeded, failed, rejected, timed out), broken?
        let rows = [
            (rule(All, Percent(10), None), None, (0, 1, 0, 0), true),
            (rule(All, Percent(10), None), None, (9, 1, 0, 0), true),
            (rule(All, Percent(10), None), None, (10, 1, 0, 0), false),
            (rule(All, Percent(100), None), None, (1, 9, 0, 0), false),
            (rule(All, Percent(100), None), None, (0, 4, 3, 2), true),
            (rule(All, Percent(10), Some(5)), None, (0, 4, 0, 0), false),
            (rule(All, Percent(10), Some(5)), None, (0, 5, 0, 0), true),
            (rule(All, Percent(10), None), Some(3), (0, 2, 0, 0), false),
            (rule(All, Percent(10), None), Some(3), (0, 3, 0, 0), true),
            (rule(All, Percent(10), Some(1)), Some(3), (0, 1, 0, 0), true),
            (rule(Failed, Percent(50), None), None, (0, 1, 2, 0), false),
            (rule(Rejected, Percent(50), None), None, (0, 1, 2, 0), true),
            (rule(TimedOut, Count(1), None), None, (0, 9, 9, 0), false),
            (rule(TimedOut, Count(1), None), None, (9, 0, 0, 1), true),
            (rule(All, Count(3), None), None, (90, 1, 1, 0), false),
            (rule(All, Count(3), None), None, (90, 1, 1, 1), true),
            (rule(All, Count(1), Some(10)), None, (8, 1, 0, 0), false),
            (rule(All, Count(1), Some(10)), None, (9, 1, 0, 0), true),
            (rule(All, Percent(1), None), None, (0, 0, 0, 0), false),
            (rule(All, Percent(1), None), None, (5, 0, 0, 0), false),
        ];
        for (rule, ahead, (s, f, r, t), want) in rows {
            let broken = rule.broken(canary(ahead), &progress(s, f, r, t));
            assert_eq!(broken.is_some(), want, "{rule:?} {ahead:?} {s} {f} {r} {t}");
        }
    }

    #[test]
    fn a_threshold_reads_as_people_write_it() {
        assert_eq!("10%".parse(), Ok(Threshold::Percent(10)));
        assert_eq!("100%".parse(), Ok(Threshold::Percent(100)));
        assert_eq!("3".parse(), Ok(Threshold::Count(3)));
        for bad in ["", "%", "0%", "101%", "0", "-1", "1.5%", "ten", "10 %"] {
            assert!(bad.parse::<Threshold>().unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn ranges_are_checked_at_their_limits() {
        let plan = |per_minute, canary, abort: &[AbortRule]| Plan {
            rollout: Rollout { per_minute, canary },
            abort: abort.to_vec(),
            ..Plan::default()
        };
        let rule = AbortRule::new;
        let rows = [
            (plan(Some(1), Some(1), &[]), None),
            (plan(Some(1000), None, &[]), None),
            (plan(Some(0), None, &[]), Some("rate_out_of_range")),
            (plan(Some(1001), None, &[]), Some("rate_out_of_range")),
            (plan(None, Some(0), &[]), Some("canary_of_none")),
            (plan(None, None, &[rule(Threshold::Percent(100))]), None),
            (
                plan(None, None, &[rule(Threshold::Percent(0))]),
                Some("percent_out_of_range"),
            ),
            (
                plan(None, None, &[rule(Threshold::Percent(101))]),
                Some("percent_out_of_range"),
            ),
            (
                plan(None, None, &[rule(Threshold::Count(0))]),
                Some("threshold_of_none"),
            ),
            (
                plan(
                    None,
                    None,
                    &[AbortRule {
                        minimum: Some(0),
                        ..rule(Threshold::Count(1))
                    }],
                ),
                Some("minimum_of_none"),
            ),
        ];
        for (plan, want) in rows {
            let got = plan.check().err().map(|error| error.code());
            assert_eq!(got, want, "{plan:?}");
        }
    }

    #[test]
    fn a_plan_reads_as_documented_and_says_nothing_when_it_is_ordinary() {
        assert_eq!(serde_json::to_string(&Plan::default()).unwrap(), "{}");
        let text = concat!(
            r#"{"groups":["plant-3"],"selection":"continuous","rollout":{"per_minute":50,"canary":5},"#,
            r#""abort":[{"failures":"TIMED_OUT","percent":10,"minimum":20},{"failures":"ALL","count":3}]}"#
        );
        let plan: Plan = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
        assert_eq!(plan.abort[1], AbortRule::new(Threshold::Count(3)));
        let short: AbortRule = serde_json::from_str(r#"{"count":3}"#).unwrap();
        assert_eq!(short, plan.abort[1]);
    }
}
