//! The outside of an instance that is only asked who it is, or tried: behind it there is nothing.
//!
//! What is begun there goes on for ever, nothing is verified, nothing is told to anybody. So whoever is tried behaves as
//! with a slow world, and touches none.

use super::{ApplicationEvent, Outside};
use crate::target::VerifiedRef;
use crate::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Started, Token, code};

/// See the module.
pub(super) struct Nowhere {
    next: Token,
}

impl Nowhere {
    /// Its tokens come after these.
    pub(super) fn after(outstanding: &[Token]) -> Self {
        let last = outstanding.iter().max().copied();
        Self {
            next: last.unwrap_or(0).saturating_add(1),
        }
    }

    fn token(&mut self) -> Token {
        let token = self.next;
        self.next = token.saturating_add(1);
        token
    }

    fn pending(&mut self) -> Started {
        Started::Pending(self.token())
    }
}

impl Outside for Nowhere {
    fn subscribe(&mut self, _: String, _: Qos) -> Token {
        self.token()
    }
    fn unsubscribe(&mut self, _: String) -> Token {
        self.token()
    }
    fn publish(&mut self, _: String, _: Vec<u8>, _: Qos) -> Token {
        self.token()
    }
    fn http_get(&mut self, _: String, _: u64, _: u32) -> Token {
        self.token()
    }
    fn cancel(&mut self, _: Token) {}
    fn create(&mut self, _: FileSpec) -> Started {
        self.pending()
    }
    fn reopen(&mut self, _: String, _: FileId) -> Started {
        self.pending()
    }
    fn write_block(&mut self, _: FileId, _: u64, _: &[u8]) -> Started {
        self.pending()
    }
    fn close(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn verified(&mut self, _: FileId) -> Result<VerifiedRef, Failure> {
        Err(Failure::new(
            code::BUSY,
            0,
            "nothing is verified for one that is only tried",
        ))
    }
    fn install(&mut self, _: &VerifiedRef) -> Started {
        self.pending()
    }
    fn activate(&mut self, _: &VerifiedRef) -> Started {
        self.pending()
    }
    fn reset(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn self_test(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn commit(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn reject(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn state(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn abort(&mut self, _: FileId) -> Started {
        self.pending()
    }
    fn journal_store(&mut self, _: Blob) -> Token {
        self.token()
    }
    fn log(&mut self, _: Level, _: String) {}
    fn emit(&mut self, _: ApplicationEvent) {}
}
