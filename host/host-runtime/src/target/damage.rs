//! A record that cannot be believed: it cannot be read, or says less than the target knows.
//!
//! A file that was cut between two lines reads as what was true earlier, and nothing in it tells. The target does: it
//! runs what by the record is still being received, or a version that was verified here and is not the committed one, or wants
//! to write where by the record the committed image lies.
//! Nobody knows then which slot must not be written to, so the target is left alone until somebody has looked.

use std::fmt;

use super::judge::VALID;
use super::machine::Target;
use super::names::{RECORD, state_name};
use super::record::{Phase, TargetRecord};
use super::script::Asker;
use super::verified_record::{self, VerifiedImage};
use crate::types::{Failure, TargetState, Version, code};

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

/// What runs in place of the committed image.
struct Another {
    running: Version,
    committed: Version,
    region: String,
}

impl fmt::Display for Another {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            running,
            committed,
            region,
        } = self;
        write!(f, "{running} runs, and by it {committed} in `{region}`")
    }
}

impl Target {
    /// Whether the transfer is the one that was read from the record, and may be what runs. One that replaces it and cannot be
    /// written down leaves it what it was.
    pub(super) fn is_found(&self) -> bool {
        let transfer = self.record.transfer.as_ref();
        transfer.is_some_and(|transfer| self.found == Some(transfer.number))
    }

    /// The target has said how it is: it cannot run what was never marked for it, nor what was verified and is not committed.
    pub(super) fn check_record(&mut self, state: &TargetState) -> Result<(), Failure> {
        if state.runs_new == Some(false) {
            self.found = None;
        }
        if let Some(other) = self.runs_another(state) {
            if self.was_verified(other.running) {
                let damage = self.lost_its_end(&other);
                return Err(self.distrust(damage));
            }
            let was_known = self.last_state.and_then(|state| state.running);
            if was_known != state.running {
                let (device, target) = (&self.device, &self.config.name);
                tracing::error!(%device, %target, "{}", self.outdated(&other));
            }
        }
        let found = self.is_found() && self.is_direct() && state.runs_new == Some(true);
        let Some(transfer) = self.record.transfer.as_ref().filter(|_| found) else {
            return Ok(());
        };
        let unmarked = (Phase::Receiving..=Phase::Installed).contains(&transfer.phase);
        // The committed image, brought once more: a plugin may take one for the other.
        let again = self.record.committed.as_ref().is_some_and(|committed| {
            let sha256 = transfer.image.as_ref().map(|stored| stored.image.sha256);
            let known = state.running.is_some() && state.running == committed.image.version;
            known || sha256 == Some(committed.image.sha256)
        });
        if !unmarked || again {
            return Ok(());
        }
        let (job, phase) = (&transfer.spec.job_id, transfer.phase.name());
        let what = format!("has lost its end: by it job `{job}` is {phase}, and its image runs");
        let damage = damaged(&self.device, &self.config.name, &what);
        Err(self.distrust(damage))
    }

    /// Another version runs than the one that is committed, and no transfer brought it: the record is of before that one.
    fn runs_another(&self, state: &TargetState) -> Option<Another> {
        let is_settled = self.phase().is_none_or(Phase::is_settled);
        let says = state.code == VALID && state.runs_new != Some(true);
        let committed = self.record.committed.as_ref();
        let committed = committed.filter(|committed| {
            is_settled && says && self.is_direct() && !committed.regions.is_empty()
        })?;
        let (running, known) = state.running.zip(committed.image.version)?;
        (running != known).then(|| Another {
            running,
            committed: known,
            region: committed.regions.join(", "),
        })
    }

    /// What an operator should know of a record that is older than what runs, as in an old copy of the state directory. A plugin
    /// may count versions otherwise than the host, so its word alone is no reason to give the record up.
    pub(super) fn outdated_record(&self) -> Option<String> {
        let other = self.runs_another(self.last_state.as_ref()?)?;
        Some(self.outdated(&other))
    }

    fn outdated(&self, other: &Another) -> String {
        let target = &self.config.name;
        let file = state_name(&self.device, target, RECORD);
        format!(
            "`{file}` is older than what runs ({other}), as an old copy is: stop otad and lay the image down that is to run, \
             `otad target init {target} IMAGE --device {} --force`",
            self.device
        )
    }

    fn lost_its_end(&self, other: &Another) -> Failure {
        let what = format!("has lost its end: {other}");
        damaged(&self.device, &self.config.name, &what)
    }

    /// The record is not believed any more: nothing is done with the target.
    fn distrust(&mut self, damage: Failure) -> Failure {
        // As where it cannot be read. Blocks may have come while the target was asked, and a close behind them.
        self.fail_writes(&damage);
        let closing = self.closing.take().map(Asker::Agent);
        for asker in closing.into_iter().chain(std::mem::take(&mut self.waiting)) {
            self.refuse(asker, damage.clone());
        }
        self.release();
        self.plugin.drop_instance();
        self.record = TargetRecord::default();
        self.stored = TargetRecord::default();
        self.damage = Some(damage.clone());
        damage
    }

    /// The plugin wants to write where the running or committed image lies: one of them is wrong about what runs.
    pub(super) fn refuse_kept(&mut self, region: &str, state: Option<&TargetState>) -> Failure {
        let running = state.and_then(|state| state.running);
        let committed = self.record.committed.as_ref();
        match running.zip(committed.and_then(|committed| committed.image.version)) {
            Some((running, committed)) if running != committed => {
                let other = Another {
                    running,
                    committed,
                    region: region.to_owned(),
                };
                match self.was_verified(running) {
                    true => {
                        let damage = self.lost_its_end(&other);
                        self.distrust(damage)
                    }
                    false => Failure::new(code::STORAGE, 0, self.outdated(&other)),
                }
            }
            // What a bad plugin does looks the same.
            _ => {
                let file = state_name(&self.device, &self.config.name, RECORD);
                let detail = format!(
                    "plugin puts the file into `{region}`, which holds the image that runs or by `{file}` is committed; \
                     where another one runs, that record has lost its end: move the file away and start otad again"
                );
                Failure::new(code::PLUGIN_FAILED, 0, detail)
            }
        }
    }

    /// Whether the host has ever verified an image of this version for the target: what a plugin says alone is no reason to
    /// give the record up, which keeps it off the running image.
    fn was_verified(&self, version: Version) -> bool {
        let listed = verified_record::list(&*self.ports.state, &self.device, &self.config.name);
        let is_it = |image: &VerifiedImage| image.version == Some(version);
        listed.is_ok_and(|images| images.iter().any(is_it))
    }
}
