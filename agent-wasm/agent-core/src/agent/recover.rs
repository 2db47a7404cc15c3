//! What to do next with a target's image, from three facts: what the journal remembers, what the target shows, what
//! the job service says. A table, not code; nothing is guessed, and nothing here acts.
//!
//! The same table serves a start from the journal and the running agent whenever it has looked at a target.

use crate::code::PalImageState;
use crate::types::{TargetState, Version};

/// What the journal says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: no job, or a job that began in a former life.
    None,
    /// On its way, not yet allowed to be activated.
    Taken,
    /// Installed, and allowed to be activated.
    Installed,
    /// Marked for the next boot.
    Armed,
    /// The new image has run.
    Testing,
    /// The decision is to commit.
    Commit,
    /// The decision is to go back.
    Back,
}

/// What the target shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It is silent, or cannot tell.
    Unknown,
    /// The new image runs uncommitted.
    PendingNew,
    /// An uncommitted image runs that is not the one of the transfer.
    PendingOther,
    /// The new image runs, committed.
    ValidNew,
    /// The old image runs, committed.
    ValidOld,
    /// A committed image runs, and nobody can tell which.
    ValidUnclear,
    /// The new image was refused or went back.
    Invalid,
    /// The new image is marked for the next boot, the old one runs.
    Armed,
    /// An uncommitted image runs that no job brought.
    Foreign,
}

/// What the job service says about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It has not answered yet.
    Unknown,
    /// There is no such job, or it is closed.
    Gone,
    /// It is open, not in self-test.
    Open,
    /// It is open, `self_test` is `ready` or something else.
    Ready,
    /// It is open, `self_test` is `active`.
    Active,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to be done about this image.
    Leave,
    /// Look again, until the deadline of the state.
    Wait,
    /// Bring the file to the target, from what it holds already.
    Transfer,
    /// Throw the transfer away.
    Abort,
    /// Mark the image for the next boot.
    Activate,
    /// Restart the target.
    Reset,
    /// Test the running image.
    Test,
    /// Make the running image permanent.
    Commit,
    /// It is permanent.
    Committed,
    /// Mark the image bad and bring the old one back.
    Reject,
    /// The target went back by itself: the job fails.
    Reverted,
    /// The target runs something that fits no job of ours: the job fails.
    Mismatch,
    /// It was accepted in a former life: report that again.
    Accepted,
}

/// One row: the first one that holds all three facts decides.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Journal.
    pub memory: &'static [Memory],
    /// Target.
    pub sight: &'static [Sight],
    /// Service.
    pub service: &'static [Service],
    /// Decision.
    pub step: Step,
}

const fn row(
    memory: &'static [Memory],
    sight: &'static [Sight],
    service: &'static [Service],
    step: Step,
) -> Row {
    Row {
        memory,
        sight,
        service,
        step,
    }
}

const ANY_SIGHT: &[Sight] = &[
    Sight::Unknown,
    Sight::PendingNew,
    Sight::PendingOther,
    Sight::ValidNew,
    Sight::ValidOld,
    Sight::ValidUnclear,
    Sight::Invalid,
    Sight::Armed,
    Sight::Foreign,
];
const UNCOMMITTED: &[Sight] = &[Sight::PendingNew, Sight::PendingOther, Sight::Armed];
const NEW_RUNS: &[Sight] = &[Sight::PendingNew, Sight::ValidNew];
const STRANGE: &[Sight] = &[Sight::PendingOther, Sight::Foreign];
/// Where going back has something to do, or may have. An uncommitted image goes, whosever it is: the target takes no
/// other while it runs.
const OURS: &[Sight] = &[
    Sight::PendingNew,
    Sight::PendingOther,
    Sight::ValidNew,
    Sight::Armed,
    Sight::Unknown,
];

const ANY_SERVICE: &[Service] = &[
    Service::Unknown,
    Service::Gone,
    Service::Open,
    Service::Ready,
    Service::Active,
];
/// As long as nobody has said that the job is gone, it is taken to be there.
const NOT_GONE: &[Service] = &[
    Service::Unknown,
    Service::Open,
    Service::Ready,
    Service::Active,
];
const SELF_TEST: &[Service] = &[Service::Ready, Service::Active];

/// The table.
pub const ROWS: &[Row] = &[
    // No journal: the target's flags and the job's details are the only memory, as the C agent leaves them.
    row(
        &[Memory::None],
        &[Sight::PendingNew, Sight::PendingOther],
        SELF_TEST,
        Step::Test,
    ),
    // A committed image is the job's only where that is known: a success that is none is worse than a failure.
    row(
        &[Memory::None],
        &[Sight::ValidNew],
        &[Service::Active],
        Step::Accepted,
    ),
    row(&[Memory::None], ANY_SIGHT, SELF_TEST, Step::Mismatch),
    row(
        &[Memory::None],
        UNCOMMITTED,
        &[Service::Open, Service::Gone],
        Step::Reject,
    ),
    row(
        &[Memory::None],
        UNCOMMITTED,
        &[Service::Unknown],
        Step::Wait,
    ),
    row(&[Memory::None], ANY_SIGHT, &[Service::Open], Step::Transfer),
    row(&[Memory::None], ANY_SIGHT, ANY_SERVICE, Step::Leave),
    // On its way: the target does not matter, it keeps running what it runs.
    row(&[Memory::Taken], ANY_SIGHT, &[Service::Gone], Step::Abort),
    row(&[Memory::Taken], ANY_SIGHT, ANY_SERVICE, Step::Transfer),
    // Allowed to be activated. The mark may have been made just before the power went.
    row(
        &[Memory::Installed],
        UNCOMMITTED,
        &[Service::Gone],
        Step::Reject,
    ),
    row(
        &[Memory::Installed],
        ANY_SIGHT,
        &[Service::Gone],
        Step::Abort,
    ),
    row(
        &[Memory::Installed],
        &[Sight::ValidOld, Sight::ValidUnclear],
        NOT_GONE,
        Step::Activate,
    ),
    row(
        &[Memory::Armed],
        &[
            Sight::ValidOld,
            Sight::ValidUnclear,
            Sight::Invalid,
            Sight::Foreign,
        ],
        &[Service::Gone],
        Step::Leave,
    ),
    row(&[Memory::Armed], ANY_SIGHT, &[Service::Gone], Step::Reject),
    row(
        &[Memory::Installed, Memory::Armed],
        &[Sight::Armed],
        NOT_GONE,
        Step::Reset,
    ),
    // The new image has run. A second boot of it is no other version; being armed again means that it went back.
    row(&[Memory::Testing], OURS, &[Service::Gone], Step::Reject),
    row(&[Memory::Testing], ANY_SIGHT, &[Service::Gone], Step::Leave),
    row(
        &[Memory::Installed, Memory::Armed, Memory::Testing],
        NEW_RUNS,
        NOT_GONE,
        Step::Test,
    ),
    row(
        &[Memory::Installed, Memory::Armed, Memory::Testing],
        STRANGE,
        NOT_GONE,
        Step::Mismatch,
    ),
    row(
        &[Memory::Installed, Memory::Armed, Memory::Testing],
        &[Sight::Unknown],
        NOT_GONE,
        Step::Wait,
    ),
    row(
        &[Memory::Installed, Memory::Armed, Memory::Testing],
        ANY_SIGHT,
        NOT_GONE,
        Step::Reverted,
    ),
    // Decided: forward, whatever the service says.
    row(
        &[Memory::Commit],
        &[Sight::ValidNew],
        ANY_SERVICE,
        Step::Committed,
    ),
    row(
        &[Memory::Commit],
        &[Sight::PendingNew, Sight::ValidUnclear],
        ANY_SERVICE,
        Step::Commit,
    ),
    row(&[Memory::Commit], &[Sight::Armed], ANY_SERVICE, Step::Reset),
    row(
        &[Memory::Commit],
        &[Sight::Unknown],
        ANY_SERVICE,
        Step::Wait,
    ),
    row(&[Memory::Commit], ANY_SIGHT, ANY_SERVICE, Step::Activate),
    // Decided: back, whatever the service says. A good image of somebody else is never touched.
    row(&[Memory::Back], OURS, ANY_SERVICE, Step::Reject),
    row(&[Memory::Back], ANY_SIGHT, ANY_SERVICE, Step::Leave),
];

/// Decides.
#[must_use]
pub fn decide(memory: Memory, sight: Sight, service: Service) -> Step {
    let facts = [1 << memory as u16, 1 << sight as u16, 1 << service as u16];
    PACKED
        .iter()
        .find(|(sets, _)| (0..3).all(|at| sets[at] & facts[at] != 0))
        // The table is total, its test says so; a hole would wait for the deadline.
        .map_or(Step::Wait, |(_, step)| *step)
}

/// The rows with their three sets as bits: what the guest carries of the table.
const PACKED: [([u16; 3], Step); ROWS.len()] = {
    let mut packed = [([0; 3], Step::Wait); ROWS.len()];
    let mut at = 0;
    while at < packed.len() {
        let Row {
            memory,
            sight,
            service,
            step,
        } = ROWS[at];
        let (mut sets, mut bit) = ([0; 3], 0);
        while bit < memory.len() {
            sets[0] |= 1 << memory[bit] as u16;
            bit += 1;
        }
        bit = 0;
        while bit < sight.len() {
            sets[1] |= 1 << sight[bit] as u16;
            bit += 1;
        }
        bit = 0;
        while bit < service.len() {
            sets[2] |= 1 << service[bit] as u16;
            bit += 1;
        }
        packed[at] = (sets, step);
        at += 1;
    }
    packed
};

/// Reads a target's answer: its code, its own word on which image runs, and the versions where it has none.
#[must_use]
pub fn sight(state: TargetState, image: Option<Version>, old: Option<Version>) -> Sight {
    let is_new = state
        .runs_new
        .or_else(|| by_version(state.running?, image, old));
    match PalImageState::from_code(state.code) {
        Some(PalImageState::PendingCommit) if state.runs_new == Some(false) => Sight::PendingOther,
        Some(PalImageState::PendingCommit) => Sight::PendingNew,
        Some(PalImageState::Valid) => match is_new {
            Some(true) => Sight::ValidNew,
            Some(false) => Sight::ValidOld,
            None => Sight::ValidUnclear,
        },
        // Refused, and it runs all the same: it is not back yet.
        Some(PalImageState::Invalid) if state.runs_new == Some(true) => Sight::PendingNew,
        Some(PalImageState::Invalid) => Sight::Invalid,
        Some(PalImageState::Armed) => Sight::Armed,
        Some(PalImageState::Foreign) => Sight::Foreign,
        Some(PalImageState::Unknown) | None => Sight::Unknown,
    }
}

fn by_version(running: Version, image: Option<Version>, old: Option<Version>) -> Option<bool> {
    match (image, old) {
        // The same version on both sides tells nothing.
        (Some(image), Some(old)) if image == old => None,
        (Some(image), _) => Some(image == running),
        (None, Some(old)) if old == running => Some(false),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    const MEMORIES: [Memory; 7] = [
        Memory::None,
        Memory::Taken,
        Memory::Installed,
        Memory::Armed,
        Memory::Testing,
        Memory::Commit,
        Memory::Back,
    ];

    /// A letter a step, so that the whole table fits on a screen.
    fn letter(step: Step) -> char {
        match step {
            Step::Leave => '.',
            Step::Wait => 'w',
            Step::Transfer => 't',
            Step::Abort => 'x',
            Step::Activate => 'a',
            Step::Reset => 'r',
            Step::Test => 'T',
            Step::Commit => 'c',
            Step::Committed => 'C',
            Step::Reject => 'R',
            Step::Reverted => 'v',
            Step::Mismatch => 'm',
            Step::Accepted => 'A',
        }
    }

    #[test]
    fn every_cell_has_a_row_and_decides_as_written_here() {
        // Columns: Unknown, PendingNew, PendingOther, ValidNew, ValidOld, ValidUnclear, Invalid, Armed, Foreign.
        // Rows of a memory: service Unknown, Gone, Open, Ready, Active.
        let expected: [(Memory, [&str; 5]); 7] = [
            (
                Memory::None,
                [
                    ".ww....w.",
                    ".RR....R.",
                    "tRRttttRt",
                    "mTTmmmmmm",
                    "mTTAmmmmm",
                ],
            ),
            (
                Memory::Taken,
                [
                    "ttttttttt",
                    "xxxxxxxxx",
                    "ttttttttt",
                    "ttttttttt",
                    "ttttttttt",
                ],
            ),
            (
                Memory::Installed,
                [
                    "wTmTaavrm",
                    "xRRxxxxRx",
                    "wTmTaavrm",
                    "wTmTaavrm",
                    "wTmTaavrm",
                ],
            ),
            (
                Memory::Armed,
                [
                    "wTmTvvvrm",
                    "RRRR...R.",
                    "wTmTvvvrm",
                    "wTmTvvvrm",
                    "wTmTvvvrm",
                ],
            ),
            (
                Memory::Testing,
                [
                    "wTmTvvvvm",
                    "RRRR...R.",
                    "wTmTvvvvm",
                    "wTmTvvvvm",
                    "wTmTvvvvm",
                ],
            ),
            (Memory::Commit, ["wcaCacara"; 5]),
            (Memory::Back, ["RRRR...R."; 5]),
        ];
        for (memory, rows) in expected {
            for (service, expected) in ANY_SERVICE.iter().zip(rows) {
                let cells: String = ANY_SIGHT
                    .iter()
                    .map(|sight| letter(decide(memory, *sight, *service)))
                    .collect();
                assert_eq!(cells, expected, "{memory:?} x {service:?}");
            }
        }
    }

    #[test]
    fn no_cell_is_left_to_the_default() {
        for memory in MEMORIES {
            for sight in ANY_SIGHT {
                for service in ANY_SERVICE {
                    let found = ROWS.iter().any(|row| {
                        row.memory.contains(&memory)
                            && row.sight.contains(sight)
                            && row.service.contains(service)
                    });
                    assert!(found, "{memory:?} {sight:?} {service:?}");
                }
            }
        }
    }

    #[test]
    fn every_row_decides_at_least_one_cell() {
        for (at, row) in ROWS.iter().enumerate() {
            let used = row.memory.iter().any(|m| {
                row.sight.iter().any(|s| {
                    row.service.iter().any(|v| {
                        !ROWS[..at].iter().any(|earlier| {
                            earlier.memory.contains(m)
                                && earlier.sight.contains(s)
                                && earlier.service.contains(v)
                        })
                    })
                })
            });
            assert!(used, "{row:?}");
        }
    }

    #[test]
    fn a_targets_own_word_goes_before_the_versions() {
        let version = |minor| {
            Some(Version {
                major: 1,
                minor,
                revision: 0,
                build: 0,
            })
        };
        let state = |code, running, runs_new| TargetState {
            code,
            running,
            runs_new,
        };
        let rows = [
            (state(2, version(0), Some(true)), Sight::ValidNew),
            (state(2, version(1), Some(false)), Sight::ValidOld),
            (state(2, version(1), None), Sight::ValidNew),
            (state(2, version(0), None), Sight::ValidOld),
            (state(2, version(7), None), Sight::ValidOld),
            (state(2, None, None), Sight::ValidUnclear),
            (state(1, None, None), Sight::PendingNew),
            (state(1, version(1), Some(false)), Sight::PendingOther),
            (state(0, version(1), Some(true)), Sight::Unknown),
            (state(3, None, None), Sight::Invalid),
            (state(3, None, Some(false)), Sight::Invalid),
            (state(3, None, Some(true)), Sight::PendingNew),
            (state(4, None, None), Sight::Armed),
            (state(5, None, None), Sight::Foreign),
            (state(6, None, None), Sight::Unknown),
        ];
        for (state, expected) in rows {
            assert_eq!(sight(state, version(1), version(0)), expected, "{state:?}");
        }
        assert_eq!(
            sight(state(2, version(0), None), None, version(0)),
            Sight::ValidOld
        );
        assert_eq!(
            sight(state(2, version(2), None), None, version(0)),
            Sight::ValidUnclear
        );
        assert_eq!(
            sight(state(2, version(1), None), version(1), version(1)),
            Sight::ValidUnclear
        );
    }
}
