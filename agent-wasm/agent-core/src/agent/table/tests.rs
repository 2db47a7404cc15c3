//! The table is whole: every state can be reached and left, every event is used, nothing stands twice.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

#[test]
fn no_pair_of_state_and_event_stands_twice() {
    for (at, row) in ROWS.iter().enumerate() {
        let twice = ROWS[..at]
            .iter()
            .any(|r| r.state == row.state && r.event == row.event);
        assert!(!twice, "{row:?}");
        assert!(!row.next.is_empty(), "{row:?}");
    }
}

/// States that can be reached from the given one.
fn reachable(from: State) -> Vec<State> {
    let mut seen = vec![from];
    let mut at = 0;
    while at < seen.len() {
        for next in State::ALL {
            let edge = Cause::ALL
                .iter()
                .any(|cause| allows(seen[at], *cause, *next));
            if edge && !seen.contains(next) {
                seen.push(*next);
            }
        }
        at += 1;
    }
    seen
}

#[test]
fn every_state_can_be_reached_from_the_first_one() {
    assert_eq!(reachable(State::Init).len(), State::ALL.len());
}

#[test]
fn every_state_but_the_last_can_be_left_for_the_idle_state_and_for_the_end() {
    for state in State::ALL {
        let states = reachable(*state);
        let last = matches!(state, State::Stopped);
        let leaving = matches!(state, State::ShuttingDown | State::Stopped);
        assert_eq!(
            states.contains(&State::WaitingForJob),
            !leaving,
            "{state:?}"
        );
        assert!(last || states.contains(&State::Stopped), "{state:?}");
        assert_eq!(last, states.len() == 1, "{state:?}");
    }
}

#[test]
fn every_event_has_its_own_name() {
    for (at, cause) in Cause::ALL.iter().enumerate() {
        assert_eq!(*cause as usize, at);
        assert_eq!(cause.name(), alloc::format!("{cause:?}"));
    }
}

#[test]
fn every_event_is_used_by_the_table() {
    for cause in Cause::ALL {
        let general = matches!(cause, Cause::Suspend | Cause::Shutdown);
        assert!(
            general || ROWS.iter().any(|row| row.event == cause),
            "{cause:?}"
        );
    }
}

#[test]
fn every_state_has_a_bound_row_in_the_order_of_the_numbers() {
    for (state, bound) in State::ALL.iter().zip(&BOUNDS) {
        assert_eq!(*state, bound.state);
    }
    let unbounded: Vec<State> = BOUNDS
        .iter()
        .filter(|b| b.unbounded.is_some())
        .map(|b| b.state)
        .collect();
    assert_eq!(
        unbounded,
        [State::WaitingForJob, State::Suspended, State::Stopped]
    );
}

#[test]
fn every_state_that_waits_has_a_deadline_or_a_reason_to_have_none() {
    for bound in &BOUNDS {
        let has_one = !bound.timers.is_empty() || bound.blocks;
        assert!(has_one || bound.unbounded.is_some(), "{bound:?}");
        assert!(bound.unbounded.is_none_or(|why| why.len() > 5), "{bound:?}");
    }
}

#[test]
fn a_job_can_end_from_every_state_between_its_beginning_and_the_decision() {
    let rows = [
        State::Ready,
        State::RequestingJob,
        State::WaitingForJob,
        State::CreatingFile,
        State::RequestingFileBlock,
        State::WaitingForFileBlock,
        State::ClosingFile,
        State::Installing,
        State::WaitingForActivation,
        State::WaitingForRestart,
        State::Testing,
    ];
    for state in rows {
        for cause in [Cause::JobFailed, Cause::UserAbort, Cause::JobWithdrawn] {
            assert!(
                allows(state, cause, State::GoingBack),
                "{state:?} {cause:?}"
            );
        }
    }
}
