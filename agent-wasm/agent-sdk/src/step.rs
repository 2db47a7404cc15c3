//! What a step is: its numbers in the status, how long it may take, and the operation that it is.

use agent_core::types::Call;

/// Seconds after which a question to a service is repeated: the C agent's `otaconfigFILE_REQUEST_WAIT_MS`.
const ANSWER_S: u64 = 10;

/// Times that a question is put before the step has failed: the C agent's `otaconfigMAX_NUM_REQUEST_MOMENTUM`.
const QUESTIONS_MAX: u32 = 32;

/// Seconds for an operation of the target, unless a step says otherwise.
const CALL_S: u64 = 300;

/// One thing that an agent does and waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Tells the steps of an orchestrator apart; below 100.
    pub number: u8,
    /// As in `agent-status.state`.
    pub state: u8,
    /// As in `file-status.phase`.
    pub phase: u8,
    /// As in `wait.reason`.
    pub reason: u32,
    /// Seconds until it is repeated or has failed; 0 = never.
    pub limit_s: u64,
    /// Times that it is done before it has failed; 0 = it never fails.
    pub tries_max: u32,
    /// The code of that failure.
    pub code: u8,
    /// The operation of the target that it is; otherwise [`crate::Orchestrator::go`] does it.
    pub call: Option<Call>,
}

impl Step {
    /// The first state in which an image is marked for boot.
    pub(crate) const RESTARTS: u8 = 13;
    /// Wait for whatever comes.
    pub(crate) const IDLE: Self = Self::question(100, 3, 0, 1, 0).within(0);
    /// Ask for a job.
    pub(crate) const ASK: Self = Self::question(101, 2, 0, 2, 0).for_ever();
    /// Go back.
    pub(crate) const UNDO: Self = Self::call(102, 16, 12, 4, Call::Abort, 0);
    /// Tell how the job ended.
    pub(crate) const REPORT: Self = Self::question(103, 17, 13, 8, 0).for_ever();

    /// A message to a service, repeated while the answer does not come.
    #[must_use]
    pub const fn question(number: u8, state: u8, phase: u8, reason: u32, code: u8) -> Self {
        Self {
            number,
            state,
            phase,
            reason,
            limit_s: ANSWER_S,
            tries_max: QUESTIONS_MAX,
            code,
            call: None,
        }
    }

    /// An operation of the target.
    #[must_use]
    pub const fn call(number: u8, state: u8, phase: u8, reason: u32, call: Call, code: u8) -> Self {
        Self {
            call: Some(call),
            ..Self::question(number, state, phase, reason, code).within(CALL_S)
        }
    }

    /// The same, done once, with so many seconds for it.
    #[must_use]
    pub const fn within(self, limit_s: u64) -> Self {
        Self {
            limit_s,
            tries_max: 1,
            ..self
        }
    }

    const fn for_ever(self) -> Self {
        Self {
            tries_max: 0,
            ..self
        }
    }

    /// Whether it tells the service a status: it waits for that to be taken.
    pub(crate) const fn tells(self) -> bool {
        self.reason == Self::REPORT.reason
    }

    /// Whether it is repeated, also on a new connection.
    pub(crate) const fn is_question(self) -> bool {
        self.tries_max != 1
    }
}
