//! Operations of the host that are under way: which action they were, which token they got, when they are given up.
//!
//! Knows nothing of what an end means; an end that is not listed here was given up or is not ours, and is ignored.

use alloc::vec::Vec;

use crate::types::{FileId, InstantMs, Op, Token};

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Create,
    Reopen,
    Close,
    Install,
    Activate,
    Reset,
    SelfTest,
    Commit,
    Reject,
    State,
    Abort,
}

impl Duty {
    pub(super) const ALL: [Self; 11] = [
        Self::Create,
        Self::Reopen,
        Self::Close,
        Self::Install,
        Self::Activate,
        Self::Reset,
        Self::SelfTest,
        Self::Commit,
        Self::Reject,
        Self::State,
        Self::Abort,
    ];

    /// The verb, for people.
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Reopen => "reopen",
            Self::Close => "close",
            Self::Install => "install",
            Self::Activate => "activate",
            Self::Reset => "reset",
            Self::SelfTest => "self-test",
            Self::Commit => "commit",
            Self::Reject => "reject",
            Self::State => "state",
            Self::Abort => "abort",
        }
    }
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// The subscription with this number.
    Subscribe(u32),
    /// Nobody waits for it but a shutdown.
    Unsubscribe,
    /// Publish of a job question.
    Ask,
    /// Publish of a status that must be acknowledged.
    Status,
    /// Publish of mere progress.
    Progress,
    /// Publish of a block request.
    Blocks,
    /// A block on its way to the storage.
    Write(FileId, u32),
    /// One of the PAL's duties.
    Duty(FileId, Duty),
    /// Store of the journal.
    Journal,
}

/// One operation under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) op: Op,
    pub(super) token: Option<Token>,
    pub(super) doing: Doing,
    pub(super) deadline: InstantMs,
}

/// All operations under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Ops {
    last: Op,
    list: Vec<Pending>,
}

impl Ops {
    pub(super) fn begin(&mut self, doing: Doing, deadline: InstantMs) -> Op {
        // 0 stands for orders without an end.
        self.last = self.last.wrapping_add(1).max(1);
        self.list.push(Pending {
            op: self.last,
            token: None,
            doing,
            deadline,
        });
        self.last
    }

    /// Takes over an operation that another instance began.
    pub(super) fn adopt(&mut self, token: Token, doing: Doing, deadline: InstantMs) {
        let op = self.begin(doing, deadline);
        self.bind(op, token);
    }

    pub(super) fn bind(&mut self, op: Op, token: Token) {
        if let Some(pending) = self.list.iter_mut().find(|pending| pending.op == op) {
            pending.token = Some(token);
        }
    }

    pub(super) fn end_op(&mut self, op: Op) -> Option<Doing> {
        // An operation that has got its token ends by the token only.
        let at = self
            .list
            .iter()
            .position(|p| p.op == op && p.token.is_none())?;
        Some(self.list.swap_remove(at).doing)
    }

    pub(super) fn end_token(&mut self, token: Token) -> Option<Doing> {
        let at = self
            .list
            .iter()
            .position(|pending| pending.token == Some(token))?;
        Some(self.list.swap_remove(at).doing)
    }

    /// The operation of a token, to hear of its progress.
    pub(super) fn of_token(&mut self, token: Token) -> Option<&mut Pending> {
        self.list
            .iter_mut()
            .find(|pending| pending.token == Some(token))
    }

    /// Gives up one operation whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: InstantMs) -> Option<Doing> {
        let at = self
            .list
            .iter()
            .position(|pending| pending.deadline <= now)?;
        Some(self.list.swap_remove(at).doing)
    }

    /// Gives up operations; their ends will be ignored.
    pub(super) fn forget(&mut self, which: impl Fn(Doing) -> bool) {
        self.list.retain(|pending| !which(pending.doing));
    }

    pub(super) fn any(&self, which: impl Fn(Doing) -> bool) -> bool {
        self.list.iter().any(|pending| which(pending.doing))
    }

    /// The duty under way on a file; there is at most one.
    pub(super) fn duty(&self, file: FileId) -> Option<Duty> {
        self.list.iter().find_map(|pending| match pending.doing {
            Doing::Duty(of, duty) if of == file => Some(duty),
            Doing::Duty(..)
            | Doing::Subscribe(_)
            | Doing::Unsubscribe
            | Doing::Ask
            | Doing::Status
            | Doing::Progress
            | Doing::Blocks
            | Doing::Write(..)
            | Doing::Journal => None,
        })
    }

    pub(super) fn first_deadline(&self) -> Option<InstantMs> {
        self.list.iter().map(|pending| pending.deadline).min()
    }

    pub(super) fn shift(&mut self, by: u64) {
        for pending in &mut self.list {
            pending.deadline = pending.deadline.saturating_add(by);
        }
    }

    pub(super) fn list(&self) -> &[Pending] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_ends_once_by_its_op_or_by_its_token() {
        let mut ops = Ops::default();
        let first = ops.begin(Doing::Journal, 10);
        let second = ops.begin(Doing::Duty(1, Duty::Close), 20);
        ops.bind(second, 77);
        assert_eq!(ops.duty(1), Some(Duty::Close));
        assert_eq!(ops.end_op(second), None);
        assert_eq!(ops.end_op(first), Some(Doing::Journal));
        assert_eq!(ops.end_op(first), None);
        assert_eq!(ops.end_token(78), None);
        assert_eq!(ops.end_token(77), Some(Doing::Duty(1, Duty::Close)));
        assert_eq!(ops.end_token(77), None);
    }

    #[test]
    fn an_overdue_operation_is_given_up_and_its_late_end_is_unknown() {
        let mut ops = Ops::default();
        ops.adopt(5, Doing::Write(0, 3), 10);
        assert_eq!(ops.take_overdue(9), None);
        assert_eq!(ops.take_overdue(10), Some(Doing::Write(0, 3)));
        assert_eq!(ops.end_token(5), None);
        assert_eq!(ops.first_deadline(), None);
    }

    #[test]
    fn no_operation_is_named_zero_even_after_four_billion() {
        let mut ops = Ops {
            last: u32::MAX,
            list: Vec::new(),
        };
        assert_eq!(ops.begin(Doing::Journal, 0), 1);
    }
}
