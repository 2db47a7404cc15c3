//! The table is total, and every row of it decides something.

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
                "mTTAAAmmm",
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
                "RR.R...R.",
                "wTmTvvvvm",
                "wTmTvvvvm",
                "wTmTvvvvm",
            ],
        ),
        (Memory::Commit, ["wcaCacara"; 5]),
        (Memory::Back, ["RR.R...R."; 5]),
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
