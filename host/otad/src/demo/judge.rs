//! Whether a scenario ended as it should.

use super::scenario::{End, Milestone};
use super::timeline::Seen;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What was not as it should; empty = good.
    pub(super) complaints: Vec<String>,
    /// Status and reason of the job.
    pub(super) last_line: String,
}

/// What was found at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) status: String,
    pub(super) reason: String,
    /// What the programs of the targets printed, by file id.
    pub(super) printed: Vec<Option<String>>,
    /// What the daemon says that runs, by file id.
    pub(super) reported: Vec<Option<String>>,
    /// Complaints of scripts and checks on the way.
    pub(super) complaints: Vec<String>,
}

pub(super) fn judge(end: &End, seen: &Seen, found: Found) -> Verdict {
    let mut complaints = found.complaints;
    if found.status != end.status {
        complaints.push(format!(
            "the job is {}, expected {}",
            found.status, end.status
        ));
    }
    if !found.reason.starts_with(end.reason) {
        complaints.push(format!(
            "the reason is \"{}\", expected \"{}…\"",
            found.reason, end.reason
        ));
    }
    for (file, expected) in end.versions.iter().enumerate() {
        for (who, versions) in [
            ("the program printed", &found.printed),
            ("the daemon reports", &found.reported),
        ] {
            let version = versions.get(file).cloned().flatten();
            if version.as_deref() != Some(*expected) {
                complaints.push(format!(
                    "file {file}: {who} version {}, expected {expected}",
                    version.as_deref().unwrap_or("none")
                ));
            }
        }
    }
    complaints.extend(order(end.passed, seen));
    for milestone in end.avoided {
        if seen.has_passed(*milestone) {
            complaints.push(format!("it was {}", milestone.text()));
        }
    }
    let last_line = format!("{} {}", found.status, found.reason);
    Verdict {
        complaints,
        last_line: last_line.trim_end().to_owned(),
    }
}

/// The expected milestones, each after the one before.
fn order(expected: &[Milestone], seen: &Seen) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut from = 0;
    for milestone in expected {
        match seen.passed[from..].iter().position(|(m, _)| m == milestone) {
            Some(at) => from += at + 1,
            None => complaints.push(format!("it was never {} in order", milestone.text())),
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const END: End = End {
        status: "SUCCEEDED",
        reason: "accepted",
        versions: &["1.1.0"],
        passed: &[Milestone::Downloaded, Milestone::Verified],
        avoided: &[Milestone::RolledBack],
    };

    fn seen(milestones: &[Milestone]) -> Seen {
        Seen {
            passed: milestones.iter().map(|m| (*m, Duration::ZERO)).collect(),
            ..Seen::default()
        }
    }

    fn found() -> Found {
        Found {
            status: "SUCCEEDED".to_owned(),
            reason: "accepted  v1.1.0".to_owned(),
            printed: vec![Some("1.1.0".to_owned())],
            reported: vec![Some("1.1.0".to_owned())],
            complaints: Vec::new(),
        }
    }

    const PASSED: &[Milestone] = &[
        Milestone::Notified,
        Milestone::Downloaded,
        Milestone::ReadBack,
        Milestone::Verified,
    ];

    #[test]
    fn a_good_end_has_no_complaint_and_its_last_line_is_the_job() {
        let verdict = judge(&END, &seen(PASSED), found());
        assert_eq!(verdict.complaints, [""; 0]);
        assert_eq!(verdict.last_line, "SUCCEEDED accepted  v1.1.0");
    }

    #[test]
    fn every_difference_is_a_complaint() {
        let rows: [(&str, Seen, Found); 6] = [
            (
                "the job is FAILED",
                seen(PASSED),
                Found {
                    status: "FAILED".to_owned(),
                    ..found()
                },
            ),
            (
                "the reason is",
                seen(PASSED),
                Found {
                    reason: "rejected".to_owned(),
                    ..found()
                },
            ),
            (
                "the program printed version none",
                seen(PASSED),
                Found {
                    printed: vec![None],
                    ..found()
                },
            ),
            (
                "the daemon reports version none",
                seen(PASSED),
                Found {
                    reported: Vec::new(),
                    ..found()
                },
            ),
            (
                "never verified in order",
                seen(&[Milestone::Verified, Milestone::Downloaded]),
                found(),
            ),
            (
                "it was rolled back",
                seen(&[
                    Milestone::Downloaded,
                    Milestone::Verified,
                    Milestone::RolledBack,
                ]),
                found(),
            ),
        ];
        for (words, seen, found) in rows {
            let complaints = judge(&END, &seen, found).complaints;
            assert_eq!(complaints.len(), 1, "{words}: {complaints:?}");
            assert!(complaints[0].contains(words), "{complaints:?}");
        }
    }
}
