//! The targets of the simulated gateway: slots in memory that answer the agent's PAL orders as a sane host does.
//!
//! Answers can be overridden by a script; then the model does not change either.

use std::collections::BTreeMap;

use agent_core::types::{
    Call, Failure, FileId, FileSpec, ImageInfo, Order, Outcome, TargetState, Version,
};
use support::image::random_bytes;

use crate::Error;

/// States of a target, as in `wit/agent/types.wit`.
mod code {
    pub(super) const PENDING_COMMIT: u8 = 1;
    pub(super) const VALID: u8 = 2;
    pub(super) const INVALID: u8 = 3;
    pub(super) const ARMED: u8 = 4;
}

/// One target.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it says about itself.
    pub state: TargetState,
    /// The version that its next image has.
    pub next: Option<Version>,
    /// The version before the one that runs.
    before: Option<Version>,
    transfer: Option<Transfer>,
}

#[derive(Debug, Clone)]
struct Transfer {
    spec: FileSpec,
    held: BTreeMap<u64, usize>,
}

impl Target {
    /// A target at rest that runs a committed image.
    #[must_use]
    pub fn new(running: Option<Version>) -> Self {
        let state = TargetState {
            code: code::VALID,
            running,
            runs_new: None,
        };
        Self {
            state,
            next: None,
            before: running,
            transfer: None,
        }
    }

    /// Does what an order says and answers it. None = the order is not for targets.
    ///
    /// # Errors
    /// The agent wrote bytes where they do not belong.
    pub fn obey(&mut self, order: &Order) -> Result<Option<Outcome>, Error> {
        let outcome = match order {
            Order::Create(spec) => {
                self.transfer = Some(Transfer {
                    spec: spec.clone(),
                    held: BTreeMap::new(),
                });
                self.state.runs_new = Some(false);
                Outcome::Nothing
            }
            Order::Reopen { job_id, .. } => match &self.transfer {
                Some(transfer) if transfer.spec.job_id == *job_id => {
                    Outcome::Held(transfer.bitmap())
                }
                _ => failed(0xdb),
            },
            Order::WriteBlock { offset, data, .. } => match &mut self.transfer {
                Some(transfer) => transfer.write(*offset, data.as_slice())?,
                None => failed(0xdb),
            },
            Order::Pal(Call::Close, _) => match &self.transfer {
                Some(transfer) if transfer.is_complete() => {
                    Outcome::Verified(self.info(&transfer.spec))
                }
                Some(_) => failed(0xee),
                None => failed(0xdb),
            },
            Order::Pal(Call::Activate, _) => {
                self.state.code = code::ARMED;
                Outcome::Nothing
            }
            Order::Pal(Call::Reset, _) => {
                self.restart_into_new();
                Outcome::Nothing
            }
            Order::Pal(Call::Commit, _) => {
                self.state.code = code::VALID;
                Outcome::Nothing
            }
            Order::Pal(Call::Reject, _) => {
                self.go_back();
                Outcome::Nothing
            }
            Order::Pal(Call::State, _) => Outcome::State(self.state),
            Order::Pal(Call::Abort, _) => {
                self.transfer = None;
                Outcome::Nothing
            }
            Order::Pal(Call::Install, _) | Order::Pal(Call::SelfTest, _) => Outcome::Nothing,
            Order::Subscribe { .. }
            | Order::Unsubscribe { .. }
            | Order::Publish { .. }
            | Order::HttpGet { .. }
            | Order::Cancel(_)
            | Order::JournalStore(_)
            | Order::Log { .. }
            | Order::Emit(_) => return Ok(None),
        };
        Ok(Some(outcome))
    }

    fn restart_into_new(&mut self) {
        if self.state.code == code::ARMED {
            self.before = self.state.running;
            self.state = TargetState {
                code: code::PENDING_COMMIT,
                running: self.next,
                runs_new: Some(true),
            };
        }
    }

    /// Runs the image of before again.
    pub fn go_back(&mut self) {
        let running = if self.state.runs_new == Some(true) {
            self.before
        } else {
            self.state.running
        };
        self.state = TargetState {
            code: code::INVALID,
            running,
            runs_new: Some(false),
        };
    }

    fn info(&self, spec: &FileSpec) -> ImageInfo {
        ImageInfo {
            size: spec.size,
            sha256: vec![0; 32],
            version: self.next,
            product: None,
            signer: "test".to_owned(),
        }
    }
}

impl Transfer {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Outcome, Error> {
        let image = random_bytes(self.spec.file_id.into(), self.spec.size as usize);
        let expected = image.get(offset as usize..offset as usize + data.len());
        let at = format!("file {} at {offset}+{}", self.spec.file_id, data.len());
        if expected != Some(data) || !offset.is_multiple_of(self.spec.block_size.into()) {
            return Err(Error::Misbehaved(format!(
                "wrong bytes were written to {at}"
            )));
        }
        if self.held.insert(offset, data.len()).is_some() {
            return Err(Error::Misbehaved(format!("written twice: {at}")));
        }
        Ok(Outcome::Nothing)
    }

    fn is_complete(&self) -> bool {
        self.held.values().sum::<usize>() as u64 == self.spec.size
    }

    fn bitmap(&self) -> Vec<u8> {
        let blocks = self.spec.size.div_ceil(self.spec.block_size.into());
        let mut bits = vec![0; blocks.div_ceil(8) as usize];
        for offset in self.held.keys() {
            let block = offset / u64::from(self.spec.block_size);
            bits[(block / 8) as usize] |= 1 << (block % 8);
        }
        bits
    }
}

/// The file that an order is for, if it is for one.
#[must_use]
pub fn file_of(order: &Order) -> Option<FileId> {
    match order {
        Order::Create(spec) => Some(spec.file_id),
        Order::Reopen { file, .. } | Order::WriteBlock { file, .. } => Some(*file),
        Order::Pal(Call::Close, file)
        | Order::Pal(Call::Install, file)
        | Order::Pal(Call::Activate, file)
        | Order::Pal(Call::Reset, file)
        | Order::Pal(Call::SelfTest, file)
        | Order::Pal(Call::Commit, file)
        | Order::Pal(Call::Reject, file)
        | Order::Pal(Call::State, file)
        | Order::Pal(Call::Abort, file) => Some(*file),
        Order::Subscribe { .. }
        | Order::Unsubscribe { .. }
        | Order::Publish { .. }
        | Order::HttpGet { .. }
        | Order::Cancel(_)
        | Order::JournalStore(_)
        | Order::Log { .. }
        | Order::Emit(_) => None,
    }
}

fn failed(main: u8) -> Outcome {
    Outcome::Failed(Failure::new(main, 0, "as the model has it"))
}
