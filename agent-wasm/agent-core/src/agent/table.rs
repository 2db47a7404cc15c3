//! The transition table: state, event, allowed next states; and what bounds each state's waiting. Data only.
//!
//! `set_state` in the parent module is the only place that assigns the state, and refuses what is not in here. States
//! and their numbers are the C agent's ([`State`]), ours from 11; so are the names of its events. A job's cancellation
//! and its failures are events of nearly every state, so the rows below the double line are long and alike.

use crate::code::State;
use crate::text;

mod bound;

pub(super) use bound::WAITS_FOR;
pub use bound::{BOUNDS, Bound};

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
pub(super) const NAMES: &str = "\
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

#[cfg(test)]
mod tests;
