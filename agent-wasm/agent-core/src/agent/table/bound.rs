//! What bounds each state's waiting, and why a few need no bound. Data only.

use crate::agent::timer::Timer;
use crate::code::State;

/// What bounds the waiting in a state. Operations of the host carry their own deadline on top, in every state.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The state.
    pub state: State,
    /// Number of `wait.reason` that the state usually has.
    pub waits_for: u32,
    /// The timers that can be the deadline.
    pub timers: &'static [Timer],
    /// The deadline can be the downloader's own: the next request for blocks.
    pub blocks: bool,
    /// Why the state may have no deadline at all, if it may.
    pub unbounded: Option<&'static str>,
}

const fn bound(state: State, waits_for: u32, timers: &'static [Timer]) -> Bound {
    Bound {
        state,
        waits_for,
        timers,
        blocks: false,
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
        blocks: false,
        unbounded: Some("idle without polling: notify-next ends it"),
    },
    bound(State::CreatingFile, 4, &[Timer::Retry]),
    bound(
        State::RequestingFileBlock,
        3,
        &[Timer::Subscribe, Timer::Link],
    ),
    Bound {
        state: State::WaitingForFileBlock,
        waits_for: 3,
        timers: &[],
        blocks: true,
        unbounded: None,
    },
    bound(State::ClosingFile, 4, &[Timer::Retry]),
    Bound {
        state: State::Suspended,
        waits_for: 10,
        timers: &[],
        blocks: false,
        unbounded: Some("held until an operator resumes"),
    },
    bound(State::ShuttingDown, 4, &[Timer::Shutdown]),
    Bound {
        state: State::Stopped,
        waits_for: 10,
        timers: &[],
        blocks: false,
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
    bound(
        State::GoingBack,
        4,
        &[Timer::Restart, Timer::Retry, Timer::Journal],
    ),
    bound(State::Reporting, 8, &[Timer::Status, Timer::Link]),
];

/// Number of `wait.reason` that each state usually has: what the guest carries of the bounds.
pub(in crate::agent) const WAITS_FOR: [u8; BOUNDS.len()] = {
    let mut reasons = [0; BOUNDS.len()];
    let mut at = 0;
    while at < reasons.len() {
        reasons[at] = BOUNDS[at].waits_for as u8;
        at += 1;
    }
    reasons
};
