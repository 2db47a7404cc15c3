//! Operations of the host that are under way: which action they were, which token they got, when they are given up.
//!
//! Knows nothing of what an end means; an end that is not listed here was given up or is not ours, and is ignored.

use alloc::vec::Vec;

use crate::types::{Call, FileId, InstantMs, Op, Token};

use super::said;
use super::timer::NEVER;

/// What is done. Up to `Blocks` MQTT does it, from `Create` to `Abort` a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    /// A subscription; its number stands where others have a block.
    #[default]
    Subscribe,
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
    /// Store of the journal.
    Journal,
    /// A block on its way to the storage.
    Write,
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
    /// A range by URL; its number stands where others have a block.
    Range,
}

impl Deed {
    pub(super) const ALL: [Self; 20] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ask,
        Self::Status,
        Self::Progress,
        Self::Blocks,
        Self::Journal,
        Self::Write,
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
        Self::Range,
    ];

    /// What ends with the connection.
    pub(super) fn is_transport(self) -> bool {
        self <= Self::Blocks
    }

    pub(super) fn is_duty(self) -> bool {
        (Self::Create..=Self::Abort).contains(&self)
    }

    /// The function of `pal`; of a duty that needs no more than the file.
    pub(super) fn call(self) -> Call {
        let at = (self as usize).wrapping_sub(Self::Close as usize);
        CALLS.get(at).copied().unwrap_or(Call::State)
    }

    /// The row of its verb among what is said; of a duty.
    pub(super) fn verb(self) -> usize {
        said::DUTIES + (self as usize).wrapping_sub(Self::Create as usize)
    }
}

/// In the order of the deeds from `Close` on.
const CALLS: [Call; 9] = [
    Call::Close,
    Call::Install,
    Call::Activate,
    Call::Reset,
    Call::SelfTest,
    Call::Commit,
    Call::Reject,
    Call::State,
    Call::Abort,
];

/// In the order of the deeds from `Create` on.
pub(super) const VERBS: &str =
    "create\nreopen\nclose\ninstall\nactivate\nreset\nself-test\ncommit\nreject\nstate\nabort\n";

/// One operation under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) op: Op,
    /// 0 as long as it has none.
    pub(super) token: Token,
    pub(super) deed: Deed,
    pub(super) file: FileId,
    /// The block, or the number of the subscription.
    pub(super) index: u32,
    pub(super) deadline: InstantMs,
}

/// All operations under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Ops {
    last: Op,
    pub(super) list: Vec<Pending>,
}

impl Ops {
    pub(super) fn begin(&mut self, mut pending: Pending) -> Op {
        // 0 stands for orders without an end.
        self.last = self.last.wrapping_add(1).max(1);
        pending.op = self.last;
        self.list.push(pending);
        self.last
    }

    pub(super) fn bind(&mut self, op: Op, token: Token) {
        if let Some(pending) = self.list.iter_mut().find(|pending| pending.op == op) {
            pending.token = token;
        }
    }

    /// The end of an operation that never got a token.
    pub(super) fn take_op(&mut self, op: Op) -> Option<Pending> {
        self.take(|pending| pending.op == op && pending.token == 0)
    }

    pub(super) fn take_token(&mut self, token: Token) -> Option<Pending> {
        self.take(|pending| pending.token == token && token != 0)
    }

    /// Gives up one operation whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: InstantMs) -> Option<Pending> {
        self.take(|pending| pending.deadline <= now)
    }

    fn take(&mut self, which: impl Fn(&Pending) -> bool) -> Option<Pending> {
        let at = self.list.iter().position(which)?;
        self.take_at(at)
    }

    /// Takes one out; the last one comes in its place.
    pub(super) fn take_at(&mut self, at: usize) -> Option<Pending> {
        let found = *self.list.get(at)?;
        let last = self.list.pop();
        if let (Some(place), Some(last)) = (self.list.get_mut(at), last) {
            *place = last;
        }
        Some(found)
    }

    /// Gives up operations; their ends will be ignored.
    pub(super) fn forget(&mut self, which: &dyn Fn(&Pending) -> bool) {
        self.list.retain(|pending| !which(pending));
    }

    pub(super) fn any(&self, which: fn(Deed) -> bool) -> bool {
        self.list.iter().any(|pending| which(pending.deed))
    }

    /// The duty under way on a file; there is at most one.
    pub(super) fn duty(&self, file: FileId) -> Option<Deed> {
        let of = |pending: &&Pending| pending.file == file && pending.deed.is_duty();
        self.list.iter().find(of).map(|pending| pending.deed)
    }

    pub(super) fn first_deadline(&self) -> InstantMs {
        self.list
            .iter()
            .map(|pending| pending.deadline)
            .fold(NEVER, InstantMs::min)
    }

    pub(super) fn shift(&mut self, by: u64) {
        for pending in &mut self.list {
            pending.deadline = pending.deadline.saturating_add(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(deed: Deed, file: FileId, deadline: InstantMs) -> Pending {
        Pending {
            op: 0,
            token: 0,
            deed,
            file,
            index: 0,
            deadline,
        }
    }

    #[test]
    fn deeds_stand_in_the_order_of_their_numbers() {
        for (at, deed) in Deed::ALL.iter().enumerate() {
            assert_eq!(*deed as usize, at);
        }
    }

    #[test]
    fn an_operation_ends_once_by_its_op_or_by_its_token() {
        let mut ops = Ops::default();
        let first = ops.begin(pending(Deed::Journal, 0, 10));
        let second = ops.begin(pending(Deed::Close, 1, 20));
        ops.bind(second, 77);
        assert_eq!(ops.duty(1), Some(Deed::Close));
        assert_eq!(ops.duty(0), None);
        assert_eq!(ops.take_op(second), None);
        assert_eq!(ops.take_op(first).map(|p| p.deed), Some(Deed::Journal));
        assert_eq!(ops.take_op(first), None);
        assert_eq!(ops.take_token(78), None);
        assert_eq!(ops.take_token(0), None);
        assert_eq!(ops.take_token(77).map(|p| p.deed), Some(Deed::Close));
        assert_eq!(ops.take_token(77), None);
    }

    #[test]
    fn an_overdue_operation_is_given_up_and_its_late_end_is_unknown() {
        let mut ops = Ops::default();
        let op = ops.begin(pending(Deed::Write, 0, 10));
        ops.bind(op, 5);
        assert_eq!(ops.take_overdue(9), None);
        assert_eq!(ops.take_overdue(10).map(|p| p.deed), Some(Deed::Write));
        assert_eq!(ops.take_token(5), None);
        assert_eq!(ops.first_deadline(), NEVER);
    }

    #[test]
    fn no_operation_is_named_zero_even_after_four_billion() {
        let mut ops = Ops {
            last: u32::MAX,
            list: Vec::new(),
        };
        assert_eq!(ops.begin(pending(Deed::Journal, 0, 0)), 1);
    }
}
