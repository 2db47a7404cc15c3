//! The transition table: state, event, allowed next states; and what bounds each state's waiting. Data only.
//!
//! `set_state` in the parent module is the only place that assigns the state, and refuses what is not in here. States
//! and their numbers are the C agent's ([`State`]), ours from 11; so are the names of its events. A job's cancellation
//! and its failures are events of nearly every state, so the rows below the double line are long and alike.

use crate::code::State;
use crate::text;

use super::timer::Timer;

/// Past facts that move the agent from state to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is a connection for the first time.
    Start,
    /// A job is asked for.
    RequestJobDocument,
    /// A job was taken, or is known again.
    ReceivedJobDocument,
    /// The target is ready to receive.
    CreateFile,
    /// Blocks were asked for.
    RequestFileBlock,
    /// An answer did not come in time.
    RequestTimer,
    /// All blocks are held.
    CloseFile,
    /// An operator's or the application's order.
    Suspend,
    /// An operator's or the application's order.
    Resume,
    /// An operator's or the application's order.
    UserAbort,
    /// An operator's or the application's order.
    Shutdown,
    /// Every target has been asked for its state.
    TargetsAsked,
    /// The connection is back.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The journal and the targets say where the job stands.
    Recovered,
    /// A job is over before it began: refused, declined, finished by somebody else, or accepted in a former life.
    JobConcluded,
    /// The job failed.
    JobFailed,
    /// The service no longer has the job open.
    JobWithdrawn,
    /// An uncommitted image runs, and no job claims it.
    ImageUnclaimed,
    /// The host has verified the file.
    FileVerified,
    /// The host has no verified image any more.
    FileUnverified,
    /// All files are in their targets.
    FilesInstalled,
    /// The service has taken the status.
    StatusAcknowledged,
    /// Deferred activations were ordered.
    ActivationOrdered,
    /// All new images run.
    TargetsRestarted,
    /// All self-tests passed.
    TestsPassed,
    /// All new images are permanent, or will never be.
    AllCommitted,
    /// All old images run.
    AllWentBack,
    /// Nothing is subscribed any more.
    Unsubscribed,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 29] = [
        Self::Start,
        Self::RequestJobDocument,
        Self::ReceivedJobDocument,
        Self::CreateFile,
        Self::RequestFileBlock,
        Self::RequestTimer,
        Self::CloseFile,
        Self::Suspend,
        Self::Resume,
        Self::UserAbort,
        Self::Shutdown,
        Self::TargetsAsked,
        Self::Connected,
        Self::Disconnected,
        Self::Recovered,
        Self::JobConcluded,
        Self::JobFailed,
        Self::JobWithdrawn,
        Self::ImageUnclaimed,
        Self::FileVerified,
        Self::FileUnverified,
        Self::FilesInstalled,
        Self::StatusAcknowledged,
        Self::ActivationOrdered,
        Self::TargetsRestarted,
        Self::TestsPassed,
        Self::AllCommitted,
        Self::AllWentBack,
        Self::Unsubscribed,
    ];

    /// The name in the log, the C agent's where it has the event.
    #[must_use]
    pub fn name(self) -> &'static str {
        text::row(NAMES, self as usize)
    }
}

/// In the order of [`Cause::ALL`].
const NAMES: &str = "\
Start\n\
RequestJobDocument\n\
ReceivedJobDocument\n\
CreateFile\n\
RequestFileBlock\n\
RequestTimer\n\
CloseFile\n\
Suspend\n\
Resume\n\
UserAbort\n\
Shutdown\n\
TargetsAsked\n\
Connected\n\
Disconnected\n\
Recovered\n\
JobConcluded\n\
JobFailed\n\
JobWithdrawn\n\
ImageUnclaimed\n\
FileVerified\n\
FileUnverified\n\
FilesInstalled\n\
StatusAcknowledged\n\
ActivationOrdered\n\
TargetsRestarted\n\
TestsPassed\n\
AllCommitted\n\
AllWentBack\n\
Unsubscribed\n\
";

/// One row: in this state, this event may lead to these states.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Where the agent is.
    pub state: State,
    /// What has happened.
    pub event: Cause,
    /// Where it may go.
    pub next: &'static [State],
}

const fn row(state: State, event: Cause, next: &'static [State]) -> Row {
    Row { state, event, next }
}

/// Where a job that is known goes on, whatever it was doing.
const ANYWHERE: &[State] = &[
    State::Init,
    State::Ready,
    State::RequestingJob,
    State::CreatingFile,
    State::RequestingFileBlock,
    State::ClosingFile,
    State::Installing,
    State::WaitingForActivation,
    State::WaitingForRestart,
    State::Testing,
    State::Committing,
    State::GoingBack,
    State::Reporting,
];

/// Where the journal and the targets can put a job without the service.
const WITHOUT_SERVICE: &[State] = &[
    State::WaitingForActivation,
    State::WaitingForRestart,
    State::Testing,
    State::Committing,
    State::GoingBack,
    State::Reporting,
];

/// The table. No pair of state and event stands twice.
pub const ROWS: &[Row] = &[
    row(State::Init, Cause::TargetsAsked, &[State::Ready]),
    row(State::Init, Cause::Recovered, WITHOUT_SERVICE),
    row(State::Ready, Cause::Start, &[State::RequestingJob]),
    row(State::Ready, Cause::ImageUnclaimed, &[State::GoingBack]),
    row(
        State::RequestingJob,
        Cause::RequestJobDocument,
        &[State::WaitingForJob],
    ),
    row(
        State::RequestingJob,
        Cause::ReceivedJobDocument,
        &[State::CreatingFile, State::Testing],
    ),
    row(
        State::RequestingJob,
        Cause::JobConcluded,
        &[State::Reporting],
    ),
    row(
        State::RequestingJob,
        Cause::ImageUnclaimed,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForJob,
        Cause::ReceivedJobDocument,
        &[State::CreatingFile, State::Testing],
    ),
    row(
        State::WaitingForJob,
        Cause::JobConcluded,
        &[State::Reporting],
    ),
    row(
        State::WaitingForJob,
        Cause::ImageUnclaimed,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForJob,
        Cause::RequestJobDocument,
        &[State::RequestingJob],
    ),
    row(
        State::WaitingForJob,
        Cause::RequestTimer,
        &[State::RequestingJob],
    ),
    row(
        State::WaitingForJob,
        Cause::Connected,
        &[State::RequestingJob],
    ),
    row(
        State::WaitingForJob,
        Cause::Disconnected,
        &[State::RequestingJob],
    ),
    row(
        State::CreatingFile,
        Cause::CreateFile,
        &[State::RequestingFileBlock, State::ClosingFile],
    ),
    row(
        State::RequestingFileBlock,
        Cause::RequestFileBlock,
        &[State::WaitingForFileBlock],
    ),
    row(
        State::RequestingFileBlock,
        Cause::CloseFile,
        &[State::ClosingFile],
    ),
    row(
        State::WaitingForFileBlock,
        Cause::CloseFile,
        &[State::ClosingFile],
    ),
    row(
        State::WaitingForFileBlock,
        Cause::Connected,
        &[State::RequestingFileBlock],
    ),
    row(
        State::WaitingForFileBlock,
        Cause::Disconnected,
        &[State::RequestingFileBlock],
    ),
    row(
        State::ClosingFile,
        Cause::FileVerified,
        &[State::CreatingFile, State::Installing],
    ),
    row(
        State::ClosingFile,
        Cause::FileUnverified,
        &[State::CreatingFile],
    ),
    row(
        State::Installing,
        Cause::FilesInstalled,
        &[State::Reporting],
    ),
    row(
        State::Installing,
        Cause::FileUnverified,
        &[State::CreatingFile],
    ),
    row(
        State::Installing,
        Cause::StatusAcknowledged,
        &[State::WaitingForActivation, State::WaitingForRestart],
    ),
    row(
        State::WaitingForActivation,
        Cause::ActivationOrdered,
        &[State::WaitingForRestart],
    ),
    row(
        State::WaitingForRestart,
        Cause::TargetsRestarted,
        &[State::Testing],
    ),
    row(State::Testing, Cause::TestsPassed, &[State::Committing]),
    row(
        State::Committing,
        Cause::AllCommitted,
        &[State::Reporting, State::RequestingJob],
    ),
    row(State::Committing, Cause::JobFailed, &[State::GoingBack]),
    row(
        State::GoingBack,
        Cause::AllWentBack,
        &[State::Reporting, State::RequestingJob],
    ),
    row(
        State::Reporting,
        Cause::StatusAcknowledged,
        &[State::RequestingJob],
    ),
    row(
        State::Reporting,
        Cause::JobWithdrawn,
        &[State::RequestingJob],
    ),
    row(State::Suspended, Cause::Resume, ANYWHERE),
    row(State::ShuttingDown, Cause::Unsubscribed, &[State::Stopped]),
    // ==== the ways out of a job
    row(State::Ready, Cause::JobFailed, &[State::GoingBack]),
    row(State::Ready, Cause::UserAbort, &[State::GoingBack]),
    row(State::Ready, Cause::JobWithdrawn, &[State::GoingBack]),
    row(State::RequestingJob, Cause::JobFailed, &[State::GoingBack]),
    row(State::RequestingJob, Cause::UserAbort, &[State::GoingBack]),
    row(
        State::RequestingJob,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(State::WaitingForJob, Cause::JobFailed, &[State::GoingBack]),
    row(State::WaitingForJob, Cause::UserAbort, &[State::GoingBack]),
    row(
        State::WaitingForJob,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(State::CreatingFile, Cause::JobFailed, &[State::GoingBack]),
    row(State::CreatingFile, Cause::UserAbort, &[State::GoingBack]),
    row(
        State::CreatingFile,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(
        State::RequestingFileBlock,
        Cause::JobFailed,
        &[State::GoingBack],
    ),
    row(
        State::RequestingFileBlock,
        Cause::UserAbort,
        &[State::GoingBack],
    ),
    row(
        State::RequestingFileBlock,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForFileBlock,
        Cause::JobFailed,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForFileBlock,
        Cause::UserAbort,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForFileBlock,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(State::ClosingFile, Cause::JobFailed, &[State::GoingBack]),
    row(State::ClosingFile, Cause::UserAbort, &[State::GoingBack]),
    row(State::ClosingFile, Cause::JobWithdrawn, &[State::GoingBack]),
    row(State::Installing, Cause::JobFailed, &[State::GoingBack]),
    row(State::Installing, Cause::UserAbort, &[State::GoingBack]),
    row(State::Installing, Cause::JobWithdrawn, &[State::GoingBack]),
    row(
        State::WaitingForActivation,
        Cause::JobFailed,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForActivation,
        Cause::UserAbort,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForActivation,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForRestart,
        Cause::JobFailed,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForRestart,
        Cause::UserAbort,
        &[State::GoingBack],
    ),
    row(
        State::WaitingForRestart,
        Cause::JobWithdrawn,
        &[State::GoingBack],
    ),
    row(State::Testing, Cause::JobFailed, &[State::GoingBack]),
    row(State::Testing, Cause::UserAbort, &[State::GoingBack]),
    row(State::Testing, Cause::JobWithdrawn, &[State::GoingBack]),
    row(State::Suspended, Cause::UserAbort, &[State::GoingBack]),
];

/// Whether the table allows a transition. Suspend and shutdown are allowed from everywhere the agent still acts.
#[must_use]
pub fn allows(state: State, event: Cause, next: State) -> bool {
    let acts = state != State::ShuttingDown && state != State::Stopped;
    if event == Cause::Suspend {
        return acts && state != State::Suspended && next == State::Suspended;
    }
    if event == Cause::Shutdown {
        return acts && next == State::ShuttingDown;
    }
    PACKED
        .iter()
        .any(|(of, by, to)| *of == state && *by == event && to >> next as u32 & 1 == 1)
}

/// The rows with their next states as bits: what the guest carries of the table.
const PACKED: [(State, Cause, u32); ROWS.len()] = {
    let mut packed = [(State::Init, Cause::Start, 0); ROWS.len()];
    let mut at = 0;
    while at < packed.len() {
        let row = &ROWS[at];
        packed[at] = (row.state, row.event, set(row.next));
        at += 1;
    }
    packed
};

const fn set(states: &[State]) -> u32 {
    let (mut set, mut at) = (0, 0);
    while at < states.len() {
        set |= 1 << states[at] as u32;
        at += 1;
    }
    set
}

/// What bounds the waiting in a state. Operations of the host carry their own deadline on top, in every state.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The state.
    pub state: State,
    /// Number of `wait.reason` that the state usually has.
    pub waits_for: u32,
    /// The timers that can be the deadline; empty = operations, or the downloader's own.
    pub timers: &'static [Timer],
    /// Why the state may have no deadline at all, if it may.
    pub unbounded: Option<&'static str>,
}

const fn bound(state: State, waits_for: u32, timers: &'static [Timer]) -> Bound {
    Bound {
        state,
        waits_for,
        timers,
        unbounded: None,
    }
}

/// One row a state, in the order of their numbers.
pub const BOUNDS: [Bound; 18] = [
    bound(State::Init, 4, &[Timer::Retry]),
    bound(State::Ready, 9, &[Timer::Link]),
    bound(
        State::RequestingJob,
        2,
        &[Timer::Ask, Timer::Subscribe, Timer::Link],
    ),
    Bound {
        state: State::WaitingForJob,
        waits_for: 1,
        timers: &[
            Timer::Ask,
            Timer::Poll,
            Timer::Offer,
            Timer::Custom,
            Timer::Status,
        ],
        unbounded: Some("idle without polling: notify-next ends it"),
    },
    bound(State::CreatingFile, 4, &[Timer::Retry]),
    bound(
        State::RequestingFileBlock,
        3,
        &[Timer::Subscribe, Timer::Link],
    ),
    bound(State::WaitingForFileBlock, 3, &[]),
    bound(State::ClosingFile, 4, &[Timer::Retry]),
    Bound {
        state: State::Suspended,
        waits_for: 10,
        timers: &[],
        unbounded: Some("held until an operator resumes"),
    },
    bound(State::ShuttingDown, 4, &[Timer::Shutdown]),
    Bound {
        state: State::Stopped,
        waits_for: 10,
        timers: &[],
        unbounded: Some("the end"),
    },
    bound(
        State::Installing,
        4,
        &[Timer::Retry, Timer::Status, Timer::Link],
    ),
    bound(
        State::WaitingForActivation,
        5,
        &[Timer::Reminder, Timer::Limit],
    ),
    bound(
        State::WaitingForRestart,
        6,
        &[Timer::Restart, Timer::Retry, Timer::Journal],
    ),
    bound(State::Testing, 7, &[Timer::Test]),
    bound(
        State::Committing,
        4,
        &[Timer::Restart, Timer::Retry, Timer::Journal],
    ),
    bound(State::GoingBack, 4, &[Timer::Restart, Timer::Retry]),
    bound(State::Reporting, 8, &[Timer::Status, Timer::Link]),
];

/// Number of `wait.reason` that each state usually has: what the guest carries of the bounds.
pub(super) const WAITS_FOR: [u8; BOUNDS.len()] = {
    let mut reasons = [0; BOUNDS.len()];
    let mut at = 0;
    while at < reasons.len() {
        reasons[at] = BOUNDS[at].waits_for as u8;
        at += 1;
    }
    reasons
};

#[cfg(test)]
mod tests {
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
}
