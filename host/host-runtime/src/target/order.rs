//! What the agent asks of a target: is it allowed now? What is refused changes nothing.

use super::config::limit;
use super::machine::Target;
use super::record::Phase;
use super::script::{Asker, Kind, Running};
use super::work::refused;
use super::write::{Brought, check_write};
use super::{TargetEvent, VerifiedRef, path};
use crate::plugin::capability;
use crate::types::{Failure, FileSpec, Outcome, Started, Token, code};

/// Smallest and largest block of the grid (`wit/agent/pal.wit`).
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 256..=131_072;

/// Most blocks of a file: the map of so many is 128 KiB of bits.
const BLOCKS_MAX: u64 = 1_048_576;

/// Most characters of a job id.
const JOB_ID_MAX: usize = 64;

/// Most bytes of a signature: RSA with 4096 bits.
const SIGNATURE_MAX_BYTES: usize = 512;

/// Most bytes of the texts of a file specification that are stored and handed to plugins.
const TEXT_MAX_BYTES: usize = 512;

impl Target {
    pub(super) fn create(&mut self, token: Token, spec: FileSpec) -> Started {
        if let Err(failure) = self.check_spec(&spec) {
            return refuse(failure);
        }
        // Of the transfer that is thrown away, and told as taken. They stay where what is under way does not give way.
        let is_revived = matches!(self.op.as_ref().map(|op| &op.kind), Some(Kind::Revive));
        let is_free = self.op.is_none() || is_revived || self.gives_way();
        let owes = self.owes_blocks() || self.closing.is_some();
        if is_free && owes && self.cancel_writes() {
            self.plugin.drop_instance();
        }
        if let Err(failure) = self.check_idle() {
            return refuse(failure);
        }
        self.start(token, Kind::Create(Box::new(spec)))
    }

    pub(super) fn reopen(&mut self, token: Token, job_id: &str) -> Started {
        let named =
            self.record.transfer.as_ref().filter(|transfer| {
                transfer.spec.job_id == job_id && transfer.phase != Phase::Creating
            });
        if named.is_none() {
            return refuse(Failure::new(
                code::NOT_FOUND,
                0,
                format!(
                    "target `{}` holds nothing of job {job_id}",
                    self.config.name
                ),
            ));
        }
        // Whoever asked for what is under way has lost it: all of it can be asked for again.
        if self.op.as_ref().is_some_and(|op| op.kind.may_be_dropped()) {
            self.cancel_op(false);
        }
        if self.op.is_none() && self.cancel_writes() {
            self.plugin.drop_instance();
        }
        if let Err(failure) = self.check_idle() {
            return refuse(failure);
        }
        self.start(token, Kind::Reopen)
    }

    pub(super) fn write_block(&mut self, brought: Brought<'_>) -> Started {
        let end = self
            .check_receiving()
            .and_then(|()| match self.grid() {
                Some(grid) => check_write(grid, brought.offset, brought.data.len()),
                None => Ok(()),
            })
            .and_then(|()| self.queue_write(brought));
        match end {
            Ok(None) => self.started(brought.token),
            Ok(Some(outcome)) => Started::Done(outcome),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn close(&mut self, token: Token) -> Started {
        if let Err(failure) = self.sync.check() {
            return refuse(failure);
        }
        if self.closing.is_some() {
            let detail = "the file is being closed already";
            return refuse(Failure::new(code::BUSY, 0, detail));
        }
        if self.owes_blocks() && self.check_receiving().is_ok() {
            // All of them were told as taken: the plugin is slow with the last ones, or another one is given them.
            self.closing = Some(token);
            return self.started(token);
        }
        match self.check_idle().and_then(|()| self.check_complete()) {
            Ok(()) => self.start(token, Kind::Close),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn verified(&self) -> Result<VerifiedRef, Failure> {
        self.proof.as_deref().cloned().ok_or_else(|| {
            Failure::new(
                code::NOT_VERIFIED,
                0,
                format!(
                    "nothing is verified on target `{}`; close it",
                    self.config.name
                ),
            )
        })
    }

    pub(super) fn install(&mut self, token: Token, image: &VerifiedRef) -> Started {
        match self.check_idle().and_then(|()| self.check_proof(image)) {
            Ok(()) => self.start(token, Kind::Install),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn activate(&mut self, token: Token, image: &VerifiedRef) -> Started {
        let end = self
            .check_idle()
            .and_then(|()| self.check_proof(image))
            .and_then(|()| {
                self.check_phase("activate", |phase| {
                    phase >= Phase::Installed && phase < Phase::Rejecting
                })
            });
        match end {
            Ok(()) => self.start(token, Kind::Activate(image.info().sha256)),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn reset(&mut self, token: Token) -> Started {
        match self.check_idle() {
            Ok(()) => self.start(token, Kind::Reset),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn self_test(&mut self, token: Token) -> Started {
        let end = self.check_idle().and_then(|()| {
            self.check_phase("self-test", |phase| {
                phase >= Phase::Activating && phase < Phase::Rejecting
            })
        });
        match end {
            Ok(()) => self.start(token, Kind::SelfTest),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn commit(&mut self, token: Token) -> Started {
        let end = self.check_idle().and_then(|()| {
            self.check_phase("commit", |phase| {
                phase >= Phase::Activating && phase < Phase::Rejecting
            })
        });
        match end {
            Ok(()) => self.start(token, Kind::Commit),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn reject(&mut self, token: Token) -> Started {
        // A test that is to be given up need not be waited for, nor a restart of this process that did not come.
        let given_up = self.op.as_ref().is_some_and(|op| {
            matches!(op.kind, Kind::SelfTest | Kind::State)
                || matches!(op.running, Running::ProcessEnd)
        });
        if given_up {
            self.cancel_op(false);
        }
        match self.check_idle() {
            Ok(()) => self.start(token, Kind::Reject),
            Err(failure) => refuse(failure),
        }
    }

    pub(super) fn state(&mut self, token: Token) -> Started {
        if self.op.is_none() && self.writes.is_empty() {
            return self.start(token, Kind::State);
        }
        let max = self.config.limits.waiting_states_max;
        let is_agent = |asker: &&Asker| matches!(asker, Asker::Agent(_));
        if self.waiting.iter().filter(is_agent).count() >= max {
            return refuse(Failure::new(
                code::LIMIT,
                limit::WAITING_STATES,
                format!("{max} questions for the state wait already"),
            ));
        }
        self.waiting.push_back(Asker::Agent(token));
        Started::Pending(token)
    }

    pub(super) fn abort(&mut self, token: Token) -> Started {
        if let Some(phase) = self.phase().filter(|phase| phase.in_test()) {
            return refuse(Failure::new(
                code::BUSY,
                0,
                format!(
                    "the image is {}: commit or reject it, abort comes before activate",
                    phase.name()
                ),
            ));
        }
        self.let_idle_plugin_go();
        self.cancel_op(true);
        self.cancel_writes();
        while let Some(waiting) = self.waiting.pop_front() {
            self.tell_cancelled(Some(waiting));
        }
        if self.record.transfer.is_none() && !self.plugin.is_open() && self.outstanding() == 0 {
            return Started::Done(Outcome::Nothing);
        }
        self.start(token, Kind::Abort)
    }

    fn start(&mut self, token: Token, kind: Kind) -> Started {
        if !matches!(kind, Kind::State | Kind::Reopen | Kind::SelfTest) {
            // Whatever the last reset was for is over.
            self.restart = None;
        }
        self.begin(Some(token), kind);
        self.started(token)
    }

    /// Whether the operation of `token` has ended within the call that began it.
    fn started(&mut self, token: Token) -> Started {
        let mut ended = None;
        self.events.retain_mut(|event| match event {
            TargetEvent::Done { token: t, outcome } if *t == token => {
                ended = Some(std::mem::replace(outcome, Outcome::Nothing));
                false
            }
            TargetEvent::Done { .. }
            | TargetEvent::Progress { .. }
            | TargetEvent::Restarted(_)
            | TargetEvent::ProcessRestart(_) => true,
        });
        if ended.is_some() {
            // Nobody knows the token.
            self.events
                .retain(|e| !matches!(e, TargetEvent::Progress { token: t, .. } if *t == token));
        }
        if !self.events.is_empty() || ended.is_none() {
            (self.ports.wake)();
        }
        match ended {
            Some(outcome) => Started::Done(outcome),
            None => Started::Pending(token),
        }
    }

    fn check_spec(&self, spec: &FileSpec) -> Result<(), Failure> {
        let bad = |reason: String| Err(Failure::new(code::BAD_ARGUMENT, 0, reason));
        let id = &spec.job_id;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if id.is_empty() || id.len() > JOB_ID_MAX || !id.chars().all(legal) {
            return bad(format!(
                "job id of {} characters, expected 1 to {JOB_ID_MAX} of [a-zA-Z0-9_-]",
                id.chars().count()
            ));
        }
        if spec.size == 0 {
            return bad("a file of 0 bytes".into());
        }
        if !BLOCK_BYTES.contains(&spec.block_size) {
            return bad(format!(
                "blocks of {} bytes, expected {} to {}",
                spec.block_size,
                BLOCK_BYTES.start(),
                BLOCK_BYTES.end()
            ));
        }
        let blocks = spec.size.div_ceil(u64::from(spec.block_size));
        if blocks > BLOCKS_MAX {
            return Err(Failure::new(
                code::TOO_LARGE,
                0,
                format!("{blocks} blocks in a file, at most {BLOCKS_MAX} are kept account of"),
            ));
        }
        if spec.signature.len() > SIGNATURE_MAX_BYTES {
            return bad(format!(
                "a signature of {} bytes, at most {SIGNATURE_MAX_BYTES}",
                spec.signature.len()
            ));
        }
        for (what, text) in [
            ("certificate", &spec.certificate),
            ("signature kind", &spec.signature_kind),
        ] {
            if text.len() > TEXT_MAX_BYTES {
                return bad(format!(
                    "{what} of {} bytes, at most {TEXT_MAX_BYTES}",
                    text.len()
                ));
            }
        }
        let reverts = self.plugin.description().can(capability::REVERT);
        if !reverts && !self.config.allow_no_revert {
            return Err(Failure::new(
                code::NO_REVERT,
                0,
                format!(
                    "target `{}` cannot go back from a bad image; set no_revert_allowed to update it all the same",
                    self.config.name
                ),
            ));
        }
        path::check(&self.config.paths, &spec.path)?;
        let request = host_crypto::Request {
            kind: &spec.signature_kind,
            signature: &spec.signature,
            label: &spec.certificate,
        };
        // Without the clock: it may be mended until the file is complete.
        self.own
            .trust
            .precheck(&request, None)
            .map_err(|e| refused(&e))
    }

    /// Whether nothing is under way that was asked for.
    fn check_idle(&mut self) -> Result<(), Failure> {
        if self.gives_way() {
            self.cancel_op(false);
        }
        let busy = match &self.op {
            Some(op) => op.kind.name(),
            None if !self.writes.is_empty() => "write-block",
            None => return Ok(()),
        };
        Err(Failure::new(
            code::BUSY,
            0,
            format!("{busy} of target `{}` is under way", self.config.name),
        ))
    }

    /// What the agent did not ask for gives way; whatever comes next tells the plugin of the transfer itself.
    fn gives_way(&self) -> bool {
        match self.op.as_ref().map(|op| (&op.kind, &op.question)) {
            Some((Kind::Watch, _) | (Kind::State, Some(_))) => true,
            Some((Kind::Revive, _)) => self.writes.is_empty(),
            Some(_) | None => false,
        }
    }

    fn check_receiving(&self) -> Result<(), Failure> {
        let reason = match self.phase() {
            None => "there is no transfer; create one".to_owned(),
            Some(Phase::Receiving) if self.map.is_some() => {
                let elsewhere = self
                    .op
                    .as_ref()
                    .filter(|op| !matches!(op.kind, Kind::State | Kind::Revive));
                match elsewhere {
                    Some(op) => format!("{} is under way", op.kind.name()),
                    None => return self.sync.check(),
                }
            }
            Some(Phase::Receiving) => "the transfer is of before the restart; reopen it".to_owned(),
            Some(phase) => format!("the transfer is {}, it takes no blocks", phase.name()),
        };
        Err(Failure::new(code::BUSY, 0, reason))
    }

    pub(super) fn check_complete(&self) -> Result<(), Failure> {
        match self.phase() {
            None => Err(Failure::new(
                code::NOT_FOUND,
                0,
                "there is no transfer to close",
            )),
            Some(Phase::Creating | Phase::Rejected) => Err(Failure::new(
                code::BUSY,
                0,
                "the transfer holds no file to close",
            )),
            Some(Phase::Receiving) => {
                self.sync.check()?;
                match &self.map {
                    Some(map) if map.complete() => Ok(()),
                    Some(map) => Err(Failure::new(
                        code::FILE_CLOSE,
                        map.missing(),
                        format!("{} blocks are missing", map.missing()),
                    )),
                    None => Err(Failure::new(
                        code::BUSY,
                        0,
                        "the transfer is of before the restart; reopen it",
                    )),
                }
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a proof is the one of the bytes that are locked now.
    fn check_proof(&self, image: &VerifiedRef) -> Result<(), Failure> {
        match &self.proof {
            Some(proof) if proof.is(image) => Ok(()),
            Some(_) => Err(Failure::new(
                code::NOT_VERIFIED,
                0,
                "the proof is of an earlier verification; get it again",
            )),
            None => Err(Failure::new(
                code::NOT_VERIFIED,
                0,
                "the bytes of this proof are no longer locked; close again",
            )),
        }
    }

    fn check_phase(&self, what: &str, allowed: impl Fn(Phase) -> bool) -> Result<(), Failure> {
        match self.phase() {
            Some(phase) if allowed(phase) => Ok(()),
            Some(phase) => Err(Failure::new(
                code::BUSY,
                0,
                format!("{what} does not follow `{}`", phase.name()),
            )),
            None => Err(Failure::new(code::NOT_FOUND, 0, "there is no transfer")),
        }
    }
}

fn refuse(failure: Failure) -> Started {
    Started::Done(Outcome::Failed(failure))
}
