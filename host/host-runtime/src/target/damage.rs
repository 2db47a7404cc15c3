//! A record that cannot be believed: it cannot be read, or says less than the target knows.
//!
//! A file that was cut between two lines reads as what was true earlier, and nothing in it tells. The target does: it
//! runs what by the record is still being received, or wants to write where by the record the committed image lies.
//! Nobody knows then which slot must not be written to, so the target is left alone until somebody has looked.

use super::machine::Target;
use super::names::{RECORD, state_name};
use super::record::{Phase, TargetRecord};
use crate::types::{Failure, TargetState, code};

/// What is said to every order for a target whose record cannot be believed. Nothing is guessed: without its record the host
/// does not know which slot it must not write to.
pub(super) fn damaged(device: &str, target: &str, what: &str) -> Failure {
    let file = state_name(device, target, RECORD);
    let detail = format!(
        "`{file}` in the state directory {what}; see that the image in `verified.json` beside it runs, \
         move the file away and start otad again: only an update that was under way is lost"
    );
    tracing::error!(device, target, "no updates until this is mended: {detail}");
    Failure::new(code::STORAGE, 0, detail)
}

impl Target {
    /// The target has said how it is: it cannot run what was never marked for it.
    pub(super) fn check_record(&mut self, state: &TargetState) -> Result<(), Failure> {
        let Some(transfer) = self.record.transfer.as_ref().filter(|_| self.is_direct()) else {
            return Ok(());
        };
        let unmarked = (Phase::Receiving..=Phase::Installed).contains(&transfer.phase);
        // What this process has written or read back itself is no old tale; a plugin may take it for the same job's before.
        let found = self.map.is_none() && self.proof.is_none() && self.plugin.is_attached();
        if !unmarked || !found || state.runs_new != Some(true) {
            return Ok(());
        }
        let (job, phase) = (&transfer.spec.job_id, transfer.phase.name());
        let what = format!("has lost its end: by it job `{job}` is {phase}, and its image runs");
        let damage = damaged(&self.device, &self.config.name, &what);
        // As where it cannot be read.
        self.release();
        self.plugin.drop_instance();
        self.record = TargetRecord::default();
        self.stored = TargetRecord::default();
        self.damage = Some(damage.clone());
        Err(damage)
    }

    /// The plugin wants to write where the running or committed image lies: one of them is wrong about what runs.
    pub(super) fn refuse_kept(&self, region: &str, state: Option<&TargetState>) -> Failure {
        let running = state.and_then(|state| state.running);
        let committed = self.record.committed.as_ref();
        match running.zip(committed.and_then(|committed| committed.image.version)) {
            Some((running, committed)) if running != committed => {
                let what = format!(
                    "has lost its end: {running} runs, and by it {committed} in `{region}`"
                );
                damaged(&self.device, &self.config.name, &what)
            }
            _ => Failure::new(
                code::PLUGIN_FAILED,
                0,
                format!(
                    "plugin puts the file into `{region}`, which holds the image that runs or is committed"
                ),
            ),
        }
    }
}
