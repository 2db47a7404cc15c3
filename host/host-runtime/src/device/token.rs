//! The tokens of one device: each names one operation, each ends once.

use std::collections::BTreeMap;

use crate::types::Token;

/// Who ends an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The transport, with a completion.
    Transport,
    /// The transport, with an HTTP response or a failed completion.
    Http,
    /// The targets.
    Target,
    /// The journal.
    Journal,
    /// Nobody took it: its refusal is on the way.
    Refused,
}

/// Operations under way.
#[derive(Debug)]
pub(super) struct Tokens {
    next: Token,
    open: BTreeMap<Token, Owner>,
}

impl Tokens {
    /// None yet. Numbers begin at 1 and are never used again.
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            open: BTreeMap::new(),
        }
    }

    /// The number that the next operation will have.
    pub(super) fn peek(&self) -> Token {
        self.next
    }

    /// Begin an operation.
    pub(super) fn open(&mut self, owner: Owner) -> Token {
        let token = self.next;
        // 2^64 operations take longer than any process lives.
        self.next += 1;
        self.open.insert(token, owner);
        token
    }

    /// End an operation; false if it is not under way with this owner.
    pub(super) fn close(&mut self, token: Token, owners: &[Owner]) -> bool {
        let open = self.is_open(token, owners);
        if open {
            self.open.remove(&token);
        }
        open
    }

    /// Let another one end an operation that is under way.
    pub(super) fn give(&mut self, token: Token, owner: Owner) {
        if let Some(of) = self.open.get_mut(&token) {
            *of = owner;
        }
    }

    /// Whether an operation is under way with one of these owners.
    pub(super) fn is_open(&self, token: Token, owners: &[Owner]) -> bool {
        self.open
            .get(&token)
            .is_some_and(|owner| owners.contains(owner))
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Give back the room that is not used.
    pub(super) fn shrink(&mut self) {
        if self.open.is_empty() {
            self.open = BTreeMap::new();
        }
    }

    /// All that are under way, oldest first.
    pub(super) fn outstanding(&self) -> Vec<Token> {
        self.open.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_zero_never_used_twice_and_ends_once() {
        let mut tokens = Tokens::new();
        let first = tokens.open(Owner::Transport);
        let second = tokens.open(Owner::Journal);
        assert_eq!((first, second), (1, 2));
        assert!(tokens.close(first, &[Owner::Transport]));
        assert!(!tokens.close(first, &[Owner::Transport]));
        assert_eq!(tokens.open(Owner::Transport), 3);
        assert_eq!(tokens.outstanding(), [2, 3]);
    }

    #[test]
    fn only_its_owner_ends_an_operation() {
        let mut tokens = Tokens::new();
        let token = tokens.open(Owner::Target);
        assert!(!tokens.close(token, &[Owner::Transport, Owner::Http]));
        assert!(!tokens.close(token + 1, &[Owner::Target]));
        assert_eq!(tokens.count(), 1);
        assert!(tokens.close(token, &[Owner::Target]));
        assert_eq!(tokens.count(), 0);
    }
}
