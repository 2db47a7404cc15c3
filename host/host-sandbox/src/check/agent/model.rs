//! The targets of the simulated gateway: slots in memory that answer the agent's PAL orders as a sane host does.
//!
//! Answers can be overridden by a script; then the model does not change either.

use std::collections::BTreeMap;

use host_runtime::types::{Failure, FileSpec, ImageInfo, Outcome, TargetState, Version};

use super::Error;
use super::order::{Call, Order};
use crate::random::Random;

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
    /// What its last close found, as long as that counts.
    verified: Option<ImageInfo>,
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
            verified: None,
        }
    }

    /// What was verified, as long as that counts.
    #[must_use]
    pub fn verified(&self) -> Option<&ImageInfo> {
        self.verified.as_ref()
    }

    /// Its host's process is a new one: proofs of the old one are gone.
    pub fn forget_proof(&mut self) {
        self.verified = None;
    }

    /// Blocks that are held, as a bitmap.
    #[must_use]
    pub fn holds(&self, offset: u64) -> bool {
        let transfer = self.transfer.as_ref();
        transfer.is_some_and(|transfer| transfer.held.contains_key(&offset))
    }

    /// Does what an order says and answers it. None = the order is not for targets.
    ///
    /// # Errors
    /// The agent wrote bytes where they do not belong.
    pub fn obey(&mut self, order: &Order) -> Result<Option<Outcome>, Error> {
        let outcome = match order {
            Order::Create(spec) => {
                self.verified = None;
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
                Some(transfer) => transfer.write(*offset, data)?,
                None => failed(0xdb),
            },
            Order::Pal(Call::Close, _) => match &self.transfer {
                Some(transfer) if transfer.is_complete() => {
                    let info = self.info(&transfer.spec);
                    self.verified = Some(info.clone());
                    Outcome::Verified(info)
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
                self.verified = None;
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
            sha256: [0; 32],
            version: self.next,
            product: None,
            signer: "test".to_owned(),
        }
    }
}

impl Transfer {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Outcome, Error> {
        let image = image(self.spec.file_id.into(), self.spec.size);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let expected = image.get(start..start.saturating_add(data.len()));
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

/// The bytes of a file of that size.
#[must_use]
pub fn image(file: u64, size: u64) -> Vec<u8> {
    Random::new(file).bytes(usize::try_from(size).unwrap_or(0))
}

fn failed(main: u8) -> Outcome {
    Outcome::Failed(Failure::new(main, 0, "as the model has it"))
}
