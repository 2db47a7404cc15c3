//! The stages that decide: what the record says next, what is refused, when a proof is made.

use std::sync::Arc;

use super::ahead::Ahead;
use super::machine::Target;
use super::record::{Committed, Phase, StoredImage, TransferRecord};
use super::script::{Kind, Op, Stage, Verb};
use super::verified_record::{self, VerifiedImage};
use super::{VerifiedRef, image};
use crate::types::{Failure, ImageInfo, Outcome, TargetState, code};

/// Codes of `target-state` (`wit/pal/types.wit`).
const UNKNOWN: u8 = 0;
const PENDING: u8 = 1;
pub(super) const VALID: u8 = 2;
pub(super) const INVALID: u8 = 3;
pub(super) const ARMED: u8 = 4;
const FOREIGN: u8 = 5;

/// PAL: commit failed.
const COMMIT_FAILED: u8 = 0xeb;

impl Target {
    /// Go on, or refuse, by what the target said.
    pub(super) fn judge(&mut self, op: &mut Op) -> Result<(), Failure> {
        let Some(state) = op.state.as_mut() else {
            return Ok(());
        };
        if self.record.transfer.is_none() {
            state.runs_new = None;
        }
        let state = *state;
        self.check_record(&state)?;
        match op.kind {
            Kind::Create(_) => self.judge_create(op, state),
            Kind::Commit => self.judge_commit(state),
            Kind::Reject => self.judge_reject(state),
            _ => {
                // A commit that this process did not see the end of.
                if self.phase() == Some(Phase::Committing)
                    && state.code == VALID
                    && state.runs_new == Some(true)
                {
                    self.settle(op);
                }
                Ok(())
            }
        }
    }

    fn judge_create(&mut self, op: &mut Op, state: TargetState) -> Result<(), Failure> {
        let refuse = |reason: &str| {
            Err(Failure::new(
                code::BAD_IMAGE_STATE,
                u32::from(state.code),
                reason,
            ))
        };
        if state.code == ARMED {
            return refuse(
                "an image is marked for the next boot and not tested; commit or reject it",
            );
        }
        if state.code == PENDING {
            return refuse("an image runs that is not committed; commit or reject it");
        }
        if state.code == FOREIGN && self.is_direct() {
            return refuse(
                "an uncommitted image runs that no job brought, and the host does not know its slot; reject it",
            );
        }
        if state.code != VALID && state.runs_new == Some(true) {
            return refuse("the image that was refused still runs; reject it");
        }
        let Some(phase) = self.phase().filter(|phase| phase.in_test()) else {
            return Ok(());
        };
        // A transfer of before that was activated: which of the two images has stayed?
        if state.code == UNKNOWN {
            return refuse(
                "the target does not say which image runs, and one was activated before",
            );
        }
        let stayed = match state.runs_new {
            Some(runs_new) => runs_new && state.code == VALID,
            // Valid may be the old image as well, and the plugin was not asked about the new one.
            None if phase == Phase::Committing
                && state.code == VALID
                && !self.plugin.is_attached() =>
            {
                return refuse(
                    "a commit was begun, and the plugin did not take its transfer back to say whether it holds; try again or reject it",
                );
            }
            None => phase == Phase::Committing && state.code == VALID,
        };
        if stayed {
            self.settle(op);
        }
        Ok(())
    }

    fn judge_commit(&self, state: TargetState) -> Result<(), Failure> {
        let began = matches!(self.phase(), Some(Phase::Committing | Phase::Committed));
        let runs = match state.runs_new {
            Some(runs_new) => runs_new && (state.code == PENDING || state.code == VALID),
            None => state.code == PENDING || (state.code == VALID && began),
        };
        // A target that cannot tell has the last word in its own commit.
        if runs || state.code == UNKNOWN {
            return Ok(());
        }
        Err(Failure::new(
            code::BAD_IMAGE_STATE,
            u32::from(state.code),
            "the new image does not run, so it is not committed",
        ))
    }

    /// The plugin says that it has committed: does the target?
    pub(super) fn confirm(&mut self, op: &mut Op) -> Result<(), Failure> {
        // One that cannot tell, or does not answer, has the last word in its own commit.
        let Some(state) = op.state.filter(|state| state.code != UNKNOWN) else {
            return Ok(());
        };
        if state.code == VALID && state.runs_new != Some(false) {
            return Ok(());
        }
        let reason = format!(
            "the plugin says that it has committed, and then that the new image {}",
            match (state.code, state.runs_new) {
                (PENDING, Some(true) | None) => "runs and is not committed",
                (_, Some(true)) => "is refused",
                (_, Some(false) | None) => "does not run",
            }
        );
        if self.plugin.is_on_trial() {
            // The build before it commits.
            op.stage = Some(Stage::Plugin(Verb::Commit));
            op.stages.push_front(Stage::Confirm);
            op.stages.push_front(Stage::Look);
            return Err(self.plugin.send_back(&reason));
        }
        Err(Failure::new(COMMIT_FAILED, u32::from(state.code), reason))
    }

    /// By the record the image is committed. Only its target knows better: then it goes back like any that was in test.
    fn judge_reject(&mut self, state: TargetState) -> Result<(), Failure> {
        if matches!(state.code, UNKNOWN | VALID) {
            return Err(Failure::new(
                code::BAD_IMAGE_STATE,
                0,
                "the image is committed and stays",
            ));
        }
        let is_wrong = match state.code {
            PENDING => state.runs_new != Some(false),
            // One that went back already, too: without its transfer the plugin speaks of any.
            INVALID => state.runs_new.is_some(),
            _ => false,
        };
        let Some(transfer) = self.record.transfer_mut().filter(|_| is_wrong) else {
            return Ok(());
        };
        tracing::warn!(
            device = %self.device, target = %self.config.name, job = %transfer.spec.job_id,
            "by the record the image is committed, and by the target it is not: it goes back"
        );
        // Written down by what follows. What was committed before it nobody knows any more.
        transfer.phase = Phase::Committing;
        self.record.committed = None;
        Ok(())
    }

    /// Replace the transfer by the one that begins, or by none. The record goes first: what is left on the medium
    /// afterwards belongs to nobody.
    pub(super) fn forget(&mut self, op: &mut Op) -> Result<(), Failure> {
        let unmarked = self.phase().is_some_and(|phase| phase <= Phase::Installed);
        // By an old record it may be what runs. It is cleaned before it is written to again at any rate.
        if self.is_direct() && unmarked && !self.is_found() {
            // A region that is no longer configured cannot be cleaned.
            op.leftover = self.layout().unwrap_or_default();
        }
        self.release();
        self.plugin.forgive();
        let next = match &op.kind {
            Kind::Create(spec) => {
                self.record.transfers += 1;
                Some(Arc::new(TransferRecord {
                    number: self.record.transfers,
                    spec: (**spec).clone(),
                    extents: Vec::new(),
                    phase: Phase::Creating,
                    image: None,
                    blob: None,
                }))
            }
            _ => None,
        };
        if next.is_some() {
            op.stages.push_front(Stage::Unstage);
        }
        self.record.transfer = next;
        op.stages.push_front(Stage::Store);
        Ok(())
    }

    /// Nothing of the transfer is held, proved or writable any more.
    pub(super) fn release(&mut self) {
        self.proof = None;
        self.map = None;
        self.map_torn = false;
        self.staging = None;
        self.sync.reset();
        self.regions.set_window(Vec::new());
        self.staged.show(None);
        self.plugin.set_attached(false);
        self.ahead = Ahead::No;
    }

    /// Where the new file goes.
    pub(super) fn lay(&mut self, op: &mut Op) -> Result<(), Failure> {
        let Some(size) = self.record.transfer.as_ref().map(|t| t.spec.size) else {
            return Ok(());
        };
        if !self.is_direct() {
            let staging = self.staging_factory()?;
            self.hand_over(op, Stage::Lay, move || {
                let opened = staging.open(size).map(drop);
                opened.map_err(|e| Failure::storage("open staging", &e))
            });
            return Ok(());
        }
        let extents = self.plugin.call(|plugin| plugin.extents())?;
        self.regions.check_extents(&extents, size)?;
        let stored = self.regions.to_stored(&extents);
        let kept = self.kept_regions();
        if let Some(extent) = stored.iter().find(|extent| kept.contains(&extent.region)) {
            return Err(self.refuse_kept(&extent.region, op.state.as_ref()));
        }
        if let Some(transfer) = self.record.transfer_mut() {
            transfer.extents = stored;
        }
        Ok(())
    }

    /// The block map of this transfer is there before the record says that it receives.
    pub(super) fn lay_map(&mut self, op: &mut Op) {
        let Some(map) = self.new_map() else { return };
        let (state, name) = (Arc::clone(&self.ports.state), self.map_name());
        self.hand_over(op, Stage::LayMap, move || {
            let stored = state.store(&name, &map.header());
            stored.map_err(|e| Failure::storage("write the block map", &e))
        });
    }

    pub(super) fn receive(&mut self, op: &mut Op) {
        self.save_blob();
        self.set_phase(op, Phase::Receiving);
    }

    /// Blocks are taken from now on.
    pub(super) fn open_window(&mut self) -> Result<(), Failure> {
        self.map = self.new_map().map(Box::new);
        self.plugin.wrote_all = true;
        self.plugin.set_attached(self.plugin.is_open());
        if let Some(grid) = self.grid().filter(|_| !self.is_direct()) {
            self.open_staging(grid.size)?;
        }
        self.show_window();
        Ok(())
    }

    /// Let the plugin write where the transfer lies, or see the staged file.
    fn show_window(&mut self) {
        let Some(transfer) = self.record.transfer.as_ref() else {
            return;
        };
        if self.is_direct() {
            let extents = self.regions.to_extents(&transfer.extents);
            self.regions.set_window(extents.unwrap_or_default());
        } else {
            self.want_ahead();
            self.staged.show(self.staging.clone().map(|file| file as _));
            let held = self
                .map
                .as_deref()
                .map_or(0, super::map::BlockMap::prefix_bytes);
            self.staged.set_held(held);
        }
    }

    /// Receive on after a restart, or answer that everything is held.
    pub(super) fn resume(&mut self, op: &mut Op) -> Result<(), Failure> {
        let (Some(phase), Some(grid)) = (self.phase(), self.grid()) else {
            return Ok(());
        };
        if let (Phase::Receiving, Some(map)) = (phase, self.map.as_ref()) {
            op.outcome = Outcome::Held(map.bitmap());
            self.sync.reset();
            self.show_window();
            return Ok(());
        }
        let blocks = grid.blocks();
        let mut held = vec![0xff; (blocks as usize).div_ceil(8)];
        if let Some(last) = held.last_mut().filter(|_| blocks % 8 != 0) {
            *last = (1 << (blocks % 8)) - 1;
        }
        op.outcome = Outcome::Held(held);
        self.show_whole()?;
        if !self.is_direct() && phase < Phase::Installed {
            self.want_ahead();
        }
        Ok(())
    }

    /// Let a staged target's plugin see the complete file, until the transfer is forgotten: it knows the image by it, in test
    /// and once it is committed.
    pub(super) fn show_whole(&mut self) -> Result<(), Failure> {
        let (Some(phase), Some(grid)) = (self.phase(), self.grid()) else {
            return Ok(());
        };
        if phase > Phase::Receiving && !self.is_direct() {
            let storage = self.open_staging(grid.size)?;
            self.staged.show(Some(storage));
            self.staged.set_held(grid.size);
            self.staged.set_verified(self.proof.is_some());
        }
        Ok(())
    }

    /// From here on the bytes stay what they are, until the transfer is thrown away.
    ///
    /// # Errors
    /// Blocks were lost since the close was allowed: a sync that was under way has failed.
    pub(super) fn lock(&mut self) -> Result<(), Failure> {
        self.check_complete()?;
        self.regions.set_window(Vec::new());
        self.proof = None;
        self.staged.set_verified(false);
        Ok(())
    }

    /// The bytes are durable and the record says so.
    pub(super) fn closed(&mut self) {
        if let Some(transfer) = self.record.transfer_mut()
            && transfer.phase == Phase::Receiving
        {
            tracing::info!(
                device = %self.device, target = %self.config.name, job = %transfer.spec.job_id,
                "receiving -> closed"
            );
            transfer.phase = Phase::Closed;
            self.map = None;
            self.stored = self.record.clone();
        }
    }

    /// The bytes are what was signed: compare with the target.
    pub(super) fn fit(&mut self, op: &mut Op) -> Result<(), Failure> {
        let Some(read_back) = op.read_back.take() else {
            return Ok(());
        };
        let mut facts = read_back.facts;
        if let Some(examined) = op.examined.take() {
            facts.version = examined.version;
            facts.product = examined.product;
        }
        image::check_fit(
            &facts,
            self.config.product.as_deref(),
            self.config.hardware.as_deref(),
        )?;
        self.check_downgrade(facts.version)?;
        let verified = read_back.verified;
        for warning in verified.warnings() {
            tracing::warn!(device = %self.device, target = %self.config.name, "{warning}");
        }
        let info = ImageInfo {
            size: verified.size(),
            sha256: *verified.sha256(),
            version: facts.version,
            product: facts.product,
            signer: verified.signer().to_owned(),
        };
        self.check_same(&info)?;
        op.fits = Some(Box::new((verified, info)));
        Ok(())
    }

    /// The launcher may start it.
    pub(super) fn list(&mut self, op: &mut Op) {
        let Some(image) = op.fits.as_ref().map(|fits| VerifiedImage::from(&fits.1)) else {
            return;
        };
        let state = Arc::clone(&self.ports.state);
        let (device, name) = (Arc::clone(&self.device), self.config.name.clone());
        let committed = self.record.committed.as_ref().map(|c| c.image.sha256);
        let keep = self.config.limits.verified_images_max;
        self.hand_over(op, Stage::List, move || {
            verified_record::enter(&*state, &device, &name, image, committed, keep)
                .map_err(|e| Failure::storage("write the list of verified images", &e))
        });
    }

    pub(super) fn verify(&mut self, op: &mut Op) {
        if let (Some(transfer), Some(fits)) = (self.record.transfer_mut(), &op.fits) {
            transfer.image = Some(StoredImage {
                image: VerifiedImage::from(&fits.1),
                product: fits.1.product.clone(),
            });
        }
        self.enter_phase(op, Phase::Verified);
    }

    /// All of that stands on the medium: make the proof.
    pub(super) fn mint(&mut self, op: &mut Op) {
        let Some(fits) = op.fits.take() else { return };
        let (verified, info) = *fits;
        let proof = VerifiedRef::new(self.config.file_id, info.clone(), &verified);
        self.proof = Some(Box::new(proof));
        self.staged.set_verified(true);
        self.data = true;
        op.outcome = Outcome::Verified(info);
    }

    /// What was verified once and is verified again must be the same bytes.
    fn check_same(&self, info: &ImageInfo) -> Result<(), Failure> {
        let before = self
            .record
            .transfer
            .as_ref()
            .and_then(|t| t.image.as_ref())
            .map(|image| image.image.sha256);
        if before.is_some_and(|sha256| sha256 != info.sha256) {
            return Err(Failure::new(
                code::SIGNATURE,
                0,
                "the locked bytes have changed since they were verified",
            ));
        }
        Ok(())
    }

    /// The transfer is at least this far. Going back is entered from the states of a test only.
    pub(super) fn enter_phase(&mut self, op: &mut Op, phase: Phase) {
        let Some(now) = self.phase() else { return };
        let enters = match phase {
            Phase::Rejecting => now.in_test(),
            Phase::Rejected => now != Phase::Committed,
            Phase::Creating
            | Phase::Receiving
            | Phase::Closed
            | Phase::Verified
            | Phase::Installed
            | Phase::Activating
            | Phase::Activated
            | Phase::Committing
            | Phase::Committed => now < phase,
        };
        if !enters {
            return;
        }
        if phase == Phase::Rejected {
            self.release();
        }
        self.set_phase(op, phase);
    }

    /// The phase is another, and the operation goes on when that stands on the medium.
    fn set_phase(&mut self, op: &mut Op, phase: Phase) {
        let Some(transfer) = self.record.transfer_mut() else {
            return;
        };
        let before = std::mem::replace(&mut transfer.phase, phase);
        if before != phase {
            tracing::info!(
                device = %self.device, target = %self.config.name, job = %transfer.spec.job_id,
                "{} -> {}", before.name(), phase.name()
            );
        }
        op.stages.push_front(Stage::Store);
    }

    /// The new image is the committed one; its slot is not written while it is.
    pub(super) fn settle(&mut self, op: &mut Op) {
        let Some(transfer) = self.record.transfer.as_ref() else {
            return;
        };
        if let Some(image) = transfer.image.clone() {
            let mut regions: Vec<String> =
                transfer.extents.iter().map(|e| e.region.clone()).collect();
            regions.dedup();
            self.record.committed = Some(Arc::new(Committed {
                regions,
                image: image.image,
                product: image.product,
            }));
        }
        self.set_phase(op, Phase::Committed);
        // Where the target has not said it, the plugin has read it back.
        if let Some(mut state) = self.last_state {
            state.code = op.state.map_or(VALID, |state| state.code);
            state.running = self.known_running(&state);
            self.last_state = Some(state);
        }
    }
}
