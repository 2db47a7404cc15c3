//! One command: sent, awaited, sent again; the probe also in the older version of the protocol.

use alloc::string::String;
use alloc::vec::Vec;

use super::{ClientError, Link, Sent};
use crate::code::rc;
use crate::header::Version;
use crate::reply::Reply;
use crate::request::Request;

/// Pause after the lone line feed that uses up a half line: the receiver takes a moment to drop it.
pub(super) const PAUSE_MS: u64 = 5;

/// A command with all that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// List the images, in version 2 and then in version 1: what answers is spoken from then on. Echo would not do, for
    /// recovery may not have it.
    Probe,
    /// Say this back.
    Echo(String),
    /// Switch the console's echo off. A bootloader's own server has always said yes to that, and Zephyr's applications have no
    /// such command: it tells the one from the other. The list of images does not, for some recoveries list one that runs.
    /// Applications of Mynewt have it, too, and are taken for a recovery: rather that than the other way round.
    ConsoleEchoOff,
    /// Sizes of buffers.
    Parameters,
    /// Text about the system.
    Info(Option<String>),
    /// What the bootloader is, or with `mode` how it works.
    Bootloader(Option<String>),
    /// Sizes of slots.
    Slots,
    /// List the images.
    Images,
    /// Mark the image with this hash for test. Asked once: where the answer is lost the image may run by the time of a
    /// second request, and many servers take the mark of what runs for its confirmation. Look before asking again.
    Test(Vec<u8>),
    /// Confirm the running image. Without a hash: with one it could mark another image for good.
    Confirm,
    /// Erase a slot; none = the inactive one.
    Erase(Option<u32>),
    /// Restart. No answer is no error.
    Reset {
        /// Also if something objects.
        force: bool,
        /// 1 = into the bootloader's recovery.
        boot_mode: Option<u32>,
    },
    /// A command of the application's own. Asked once: nobody knows what asking again begins anew.
    Other {
        /// One of [`op`](crate::header::op).
        op: u8,
        /// Group.
        group: u16,
        /// Command.
        id: u8,
        /// A CBOR map.
        payload: Vec<u8>,
        /// How long its answer may take.
        wait_ms: u64,
    },
}

impl Order {
    fn request(&self) -> Request<'_> {
        match self {
            Self::Probe | Self::Images => Request::Images,
            Self::Echo(text) => Request::Echo(text),
            Self::ConsoleEchoOff => Request::ConsoleEcho(false),
            Self::Parameters => Request::Parameters,
            Self::Info(format) => Request::Info(format.as_deref()),
            Self::Bootloader(query) => Request::Bootloader(query.as_deref()),
            Self::Slots => Request::Slots,
            Self::Test(hash) => Request::State {
                hash: Some(hash),
                confirm: false,
            },
            Self::Confirm => Request::State {
                hash: None,
                confirm: true,
            },
            Self::Erase(slot) => Request::Erase(*slot),
            Self::Reset { force, boot_mode } => Request::Reset {
                force: *force,
                boot_mode: *boot_mode,
            },
            Self::Other {
                op,
                group,
                id,
                payload,
                wait_ms: _,
            } => Request::Other {
                op: *op,
                group: *group,
                id: *id,
                payload,
            },
        }
    }

    /// How long to wait, in ms, and how often to ask. Erasing a slot takes seconds, changing state writes flash, the
    /// rest is answered from memory.
    const fn patience(&self) -> (u64, u8) {
        match self {
            Self::Erase(_) => (40_000, 2),
            Self::Test(_) => (5_000, 1),
            Self::Confirm => (5_000, 3),
            Self::Reset { .. } => (2_000, 1),
            Self::Other { wait_ms, .. } => (*wait_ms, 1),
            Self::Probe
            | Self::Echo(_)
            | Self::ConsoleEchoOff
            | Self::Parameters
            | Self::Info(_)
            | Self::Bootloader(_)
            | Self::Slots
            | Self::Images => (1_000, 3),
        }
    }
}

/// A command under way.
#[derive(Debug)]
pub(super) struct Command {
    order: Order,
    tries: u8,
    malformed: bool,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Until then the line is left alone.
    Pause(u64),
    Waiting(Sent, u64),
}

impl Command {
    pub(super) fn new(now_ms: u64, order: Order, link: &mut Link) -> Self {
        let probes = order == Order::Probe;
        if probes {
            link.version = Version::V2;
            link.clear();
        }
        let pause = if probes { PAUSE_MS } else { 0 };
        Self {
            order,
            tries: 0,
            malformed: false,
            at: At::Pause(now_ms + pause),
        }
    }

    pub(super) const fn deadline(&self) -> u64 {
        match self.at {
            At::Pause(until) | At::Waiting(_, until) => until,
        }
    }

    pub(super) fn poll(
        &mut self,
        now_ms: u64,
        link: &mut Link,
    ) -> Option<Result<Reply, ClientError>> {
        while let Some((header, payload)) = link.inbox.pop_front() {
            match &self.at {
                At::Waiting(sent, _) if header.answers(&sent.header) => {}
                At::Waiting(..) | At::Pause(_) => continue,
            }
            match Reply::decode(&header, &payload) {
                Ok(Reply::Refused(refusal)) => {
                    if matches!(refusal.as_generic(), rc::TOO_NEW) && self.falls_back(link) {
                        self.again(now_ms, link);
                        continue;
                    }
                    return Some(Err(ClientError::Refused(refusal)));
                }
                Ok(reply) => return Some(Ok(reply)),
                Err(_) => self.malformed = true,
            }
        }
        if now_ms < self.deadline() {
            return None;
        }
        if matches!(self.at, At::Pause(_)) {
            let sent = link.send(now_ms, &self.order.request());
            self.tries += 1;
            self.at = At::Waiting(sent, sent.left_ms + self.order.patience().0);
            return None;
        }
        if self.tries < self.order.patience().1 || self.falls_back(link) {
            self.again(now_ms, link);
            return None;
        }
        Some(self.give_up(link))
    }

    fn again(&mut self, now_ms: u64, link: &mut Link) {
        link.clear();
        self.at = At::Pause(now_ms + PAUSE_MS);
    }

    fn falls_back(&mut self, link: &mut Link) -> bool {
        let older = self.order == Order::Probe && link.version == Version::V2;
        if older {
            link.version = Version::V1;
            self.tries = 0;
        }
        older
    }

    fn give_up(&self, link: &mut Link) -> Result<Reply, ClientError> {
        match self.order {
            Order::Reset { .. } => return Ok(Reply::Nothing),
            Order::Probe => link.version = Version::V2,
            _ => {}
        }
        Err(if self.malformed {
            ClientError::Malformed
        } else {
            ClientError::Silent
        })
    }
}
