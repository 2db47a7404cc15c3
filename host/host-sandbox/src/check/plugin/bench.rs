//! One plugin on a bench: what a host does with it, in memory and in virtual time, and what no plugin may do.
//!
//! The bench keeps to the order of `wit/pal/image.wit`, lends what that text lends when it lends it, and drives each duty
//! to its end. What it sees against the contract is a mistake, whatever the script of the case expects. Not here: which
//! answers a case expects (`judge.rs`), what is started (`launcher.rs`), the file that is transferred (`bench/transfer.rs`).

mod transfer;

use std::sync::Arc;

use host_runtime::plugin::lend::{
    BlockDevice, HardwareReset, Lent, PluginLog, SerialLine, StagedImage,
};
use host_runtime::plugin::{
    Answer, Duty as Stand, Plugin, PluginError, PluginFactory, WakeOn, capability,
};
use host_runtime::ports::clock::Clock;
use host_runtime::types::{Blob, Failure, Setting};

use super::board::Standing;
use super::device::{Allowed, Device, Survivors};
use super::input::Duty;
use super::launcher;
use crate::scenario::digest;
use transfer::Job;
pub(super) use transfer::image;

/// Steps of one duty. The longest here, a self-test, takes some hundred.
const STEPS_MAX: u32 = 5000;

/// Virtual time of one duty, in milliseconds: an hour is more than any target needs for any of them.
const DUTY_MAX_MS: u64 = 60 * 60 * 1000;

/// Longest time that a plugin may sleep (`wit/pal/types.wit`, record `wake`).
const AFTER_MAX_MS: u32 = 60_000;

/// What one call may move: the host's limit (`call_bytes_max`).
const CALL_BYTES_MAX: u64 = 512 * 1024;

/// What a step is told that it may move: the host's (`step_budget_bytes`).
const STEP_BYTES: u32 = 64 * 1024;

/// Most bytes of a saved state (`wit/pal/types.wit`, record `blob`).
const BLOB_MAX_BYTES: usize = 64 * 1024;

/// Calls that leave a mark in one duty, of which each is cut: a record written twice takes four.
const CUTS_MAX: u32 = 32;

/// Codes of `failure.main` that the contract knows (`wit/pal/types.wit`).
const CODES: [u8; 21] = [
    0xd0, 0xd1, 0xd3, 0xd4, 0xd6, 0xda, 0xdb, 0xdc, 0xdd, 0xdf, 0xe1, 0xe3, 0xe4, 0xe5, 0xe6, 0xe8,
    0xe9, 0xea, 0xeb, 0xec, 0xed,
];

/// How a call ended.
pub(super) enum End {
    /// Finished.
    Done(Answer),
    /// It says that it failed, and lives.
    Failed(Failure),
}

/// The instance is gone.
pub(super) struct Broken(pub(super) String);

impl From<PluginError> for Broken {
    fn from(error: PluginError) -> Self {
        Self(match error {
            PluginError::Broken(reason) => reason,
            PluginError::Failed(failure) => failure.to_string(),
        })
    }
}

/// The bench.
pub(super) struct Bench {
    factory: Arc<dyn PluginFactory>,
    plugin: Option<Box<dyn Plugin>>,
    pub(super) device: Device,
    settings: Vec<Setting>,
    job: Option<Job>,
    /// The duty under way, which a step goes on with.
    begun: Option<Duty>,
    mistakes: Vec<String>,
    /// Bytes of blocks.
    largest_write: u32,
    direct: bool,
    flash_file: bool,
    /// Its images are MCUboot's.
    smp: bool,
}

impl Bench {
    pub(super) fn new(factory: &Arc<dyn PluginFactory>, settings: &[Setting]) -> Self {
        let who = factory.description();
        Self {
            direct: who.can(capability::DIRECT),
            largest_write: who.largest_write,
            flash_file: who.kinds.iter().any(|kind| kind == "flash-file"),
            smp: who.kinds.iter().any(|kind| kind == "serial-mcu"),
            factory: Arc::clone(factory),
            plugin: None,
            device: Device::default(),
            settings: settings.to_vec(),
            job: None,
            begun: None,
            mistakes: Vec::new(),
        }
    }

    pub(super) fn mistake(&mut self, what: impl Into<String>) {
        self.mistakes.push(what.into());
    }

    /// What was seen against the contract since it was asked last.
    pub(super) fn take_mistakes(&mut self) -> Vec<String> {
        let mut mistakes = std::mem::take(&mut self.mistakes);
        mistakes.append(&mut self.device.shelf().mistakes);
        mistakes
    }

    fn plugin(&mut self) -> Result<&mut dyn Plugin, Broken> {
        match &mut self.plugin {
            Some(plugin) => Ok(&mut **plugin),
            None => Err(Broken(
                "there is no instance: `open` comes first".to_owned(),
            )),
        }
    }

    /// A fresh instance, opened; it replaces the old one only if it takes what it is given.
    pub(super) fn open(&mut self, more: &[Setting], blob: Option<&Blob>) -> Result<End, Broken> {
        let clock: Arc<dyn Clock> = self.device.clock.clone();
        let lent = Lent {
            block_device: Some(Arc::new(self.device.clone()) as Arc<dyn BlockDevice>),
            staged_image: Some(Arc::new(self.device.clone()) as Arc<dyn StagedImage>),
            serial_line: Some(Arc::new(self.device.clone()) as Arc<dyn SerialLine>),
            hardware_reset: Some(Arc::new(self.device.clone()) as Arc<dyn HardwareReset>),
            wake: Arc::new(|| {}),
            log: Arc::new(PluginLog::new(
                "check/target".to_owned(),
                Arc::clone(&clock),
            )),
            clock,
        };
        let mut plugin = self.factory.make(lent)?;
        let mut settings = self.settings.clone();
        settings.extend_from_slice(more);
        let before = {
            let mut shelf = self.device.shelf();
            shelf.allowed = Allowed::Nothing;
            shelf.calls
        };
        let opened = plugin.open(&settings, blob);
        if self.device.shelf().calls != before {
            self.mistake("`open` calls what is lent; at a swap the old instance still owns it");
        }
        match opened {
            Ok(()) => {
                self.plugin = Some(plugin);
                self.begun = None;
                Ok(End::Done(Answer::Nothing))
            }
            Err(PluginError::Failed(failure)) => {
                self.check_failure(&failure);
                Ok(End::Failed(failure))
            }
            Err(broken) => Err(broken.into()),
        }
    }

    /// What another instance needs.
    pub(super) fn suspend(&mut self) -> Result<Result<Blob, Failure>, Broken> {
        let calls = self.device.shelf().marks;
        let schemas = self.factory.description().schemas.clone();
        let blob = match self.plugin()?.suspend() {
            Ok(blob) => blob,
            Err(PluginError::Failed(failure)) => return Ok(Err(failure)),
            Err(broken) => return Err(broken.into()),
        };
        if self.device.shelf().marks != calls {
            self.mistake("`suspend` writes; it must change nothing");
        }
        if blob.bytes.len() > BLOB_MAX_BYTES {
            self.mistake(format!("`suspend` gives {} bytes", blob.bytes.len()));
        }
        if schemas.first() != Some(&blob.schema) {
            self.mistake(format!(
                "`suspend` writes schema {}, and `describe` lists {schemas:?}",
                blob.schema
            ));
        }
        Ok(Ok(blob))
    }

    /// Another instance goes on, with what the old one saved or with nothing.
    pub(super) fn replace(&mut self, saves: bool) -> Result<End, Broken> {
        let blob = match saves {
            true => match self.suspend()? {
                Ok(blob) => Some(blob),
                Err(failure) => return Ok(End::Failed(failure)),
            },
            false => None,
        };
        match self.open(&[], blob.as_ref())? {
            End::Done(_) => self.resume(),
            failed @ End::Failed(_) => Ok(failed),
        }
    }

    /// Power fails and comes back.
    pub(super) fn power_cut(&mut self, survivors: Survivors) -> Result<End, Broken> {
        self.plugin = None;
        self.device.shelf().power_cycle(survivors);
        self.recheck();
        self.replace(false)
    }

    fn resume(&mut self) -> Result<End, Broken> {
        match &self.job {
            Some(_) => self.duty(&Duty::Reopen),
            None => Ok(End::Done(Answer::Nothing)),
        }
    }

    /// Begins a duty and drives it to its end.
    pub(super) fn duty(&mut self, duty: &Duty) -> Result<End, Broken> {
        let write = match duty {
            Duty::Write(which) => Some((which, 0)),
            Duty::WriteTogether(which) => Some((which, u64::MAX)),
            _ => None,
        };
        if let Some((which, together)) = write {
            self.begun = None;
            return self.write(which, together);
        }
        let before = self.device.standing();
        let begun = self.call_of(duty)?;
        let end = self.drive(begun)?;
        let whole = self.begun.take().unwrap_or_else(|| duty.clone());
        self.check_standing(&whole, before);
        if let End::Done(answer) = &end {
            self.check_answer(&whole, answer);
            self.on_done(&whole)?;
        }
        self.device.shelf().allowed = Allowed::Nothing;
        Ok(end)
    }

    /// Only begins a duty; steps go on with it.
    pub(super) fn begin(&mut self, duty: &Duty) -> Result<Result<Stand, Failure>, Broken> {
        let before = self.device.standing();
        let begun = self.call_of(duty)?;
        self.check_standing(duty, before);
        if !matches!(begun, Ok(Stand::Working { .. })) {
            self.begun = None;
        }
        Ok(begun)
    }

    /// The call that begins a duty, or goes on with the one under way.
    fn call_of(&mut self, duty: &Duty) -> Result<Result<Stand, Failure>, Broken> {
        if *duty != Duty::Step {
            self.begun = Some(duty.clone());
        }
        if let Duty::Create { job, size, block } = duty {
            self.job = Some(self.make_job(job, *size, *block));
        }
        self.device.shelf().allowed = match self.begun.as_ref().unwrap_or(duty) {
            Duty::Activate | Duty::Reset | Duty::Commit | Duty::Reject => Allowed::Records,
            Duty::WriteAt { .. } => self.blocks_allowed(),
            _ => Allowed::Nothing,
        };
        let job = self.job.clone();
        let transfer = job.as_ref().map(|job| &job.transfer);
        let sha256 = job.as_ref().map_or([0; 32], |job| digest(&job.image));
        self.call(|plugin| match duty {
            Duty::Create { .. } => transfer.map_or_else(no_transfer, |t| plugin.create(t)),
            Duty::Reopen => transfer.map_or_else(no_transfer, |t| plugin.reopen(t)),
            Duty::WriteAt { offset, length } => plugin.write_block(*offset, &vec![0xa5; *length]),
            Duty::Examine => plugin.examine(),
            Duty::Install => plugin.install(),
            Duty::Activate => plugin.activate(&sha256),
            Duty::Reset => plugin.reset(),
            Duty::SelfTest => plugin.self_test(),
            Duty::Commit => plugin.commit(),
            Duty::Reject => plugin.reject(),
            Duty::State => plugin.state(),
            Duty::Abort => plugin.abort(),
            Duty::Step => plugin.step(STEP_BYTES),
            // It is many calls, and driven by itself.
            Duty::Write(_) | Duty::WriteTogether(_) => no_transfer(),
        })
    }

    /// Steps until the duty is over.
    fn drive(&mut self, begun: Result<Stand, Failure>) -> Result<End, Broken> {
        let began_ms = self.device.clock.now_ms();
        let mut stand = begun;
        let mut moved = 0;
        for _ in 0..STEPS_MAX {
            let (done, total, wake) = match stand {
                Ok(Stand::Finished(answer)) => return Ok(End::Done(answer)),
                Err(failure) => {
                    self.check_failure(&failure);
                    return Ok(End::Failed(failure));
                }
                Ok(Stand::Working { done, total, wake }) => (done, total, wake),
            };
            if total > 0 && done > total {
                self.mistake(format!("it has done {done} of {total}"));
            }
            if done < moved {
                self.mistake(format!("its progress goes back, from {moved} to {done}"));
            }
            moved = done;
            self.sleep(wake);
            if self.device.clock.now_ms() - began_ms > DUTY_MAX_MS {
                break;
            }
            stand = self.call(|plugin| plugin.step(STEP_BYTES))?;
        }
        self.mistake(format!(
            "the duty never ends: {STEPS_MAX} steps or an hour of its own time"
        ));
        let never = Failure::new(0xd5, 0, "it never ends");
        Ok(End::Failed(never))
    }

    fn sleep(&mut self, wake: WakeOn) {
        if wake.on_input && wake.after_ms.is_none() {
            self.mistake("it wakes on input alone, and would wait for ever on a dead line");
        }
        if let Some(ms) = wake.after_ms {
            if ms > AFTER_MAX_MS {
                self.mistake(format!("it sleeps for {ms} ms, at most {AFTER_MAX_MS}"));
            }
            let ms = ms.min(AFTER_MAX_MS).into();
            self.device.sleep(ms, wake.on_input);
        }
    }

    /// One call of the plugin, with its account.
    fn call(
        &mut self,
        call: impl FnOnce(&mut dyn Plugin) -> Result<Stand, PluginError>,
    ) -> Result<Result<Stand, Failure>, Broken> {
        self.device.shelf().moved = 0;
        let ended = call(self.plugin()?);
        let moved = self.device.shelf().moved;
        if moved > CALL_BYTES_MAX {
            self.mistake(format!(
                "one call moves {moved} bytes, the host takes {CALL_BYTES_MAX}"
            ));
        }
        match ended {
            Ok(stand) => Ok(Ok(stand)),
            Err(PluginError::Failed(failure)) => Ok(Err(failure)),
            Err(broken) => Err(broken.into()),
        }
    }

    /// What the MCU starts next, and what it keeps, changes where that is asked for, and nowhere else.
    fn check_standing(&mut self, duty: &Duty, before: Option<Standing>) {
        let (Some(before), Some(after)) = (before, self.device.standing()) else {
            return;
        };
        // To go back, a plugin that cannot restart its target marks the old image.
        let may_mark = matches!(duty, Duty::Activate | Duty::Reject);
        if after.marked && !before.marked && !may_mark {
            self.mistake(format!("{duty:?} marks an image for the next start"));
        }
        let may_confirm = matches!(duty, Duty::Commit);
        if after.confirmed != before.confirmed && !may_confirm {
            let (old, new) = (before.confirmed, after.confirmed);
            self.mistake(format!("{duty:?} confirms {new:?} in place of {old:?}"));
        }
    }

    fn check_failure(&mut self, failure: &Failure) {
        if !CODES.contains(&failure.main) {
            self.mistake(format!(
                "it fails with {:#04x}, which no table of the contract has",
                failure.main
            ));
        }
    }

    fn check_answer(&mut self, duty: &Duty, answer: &Answer) {
        let fits = match answer {
            Answer::Nothing => !matches!(duty, Duty::State),
            Answer::Info(_) => matches!(duty, Duty::Examine),
            Answer::State(state) => {
                let known = state.code <= 5;
                known && matches!(duty, Duty::State)
            }
            Answer::HostResets => matches!(duty, Duty::Reset | Duty::Reject),
            Answer::Other(_) => false,
        };
        if !fits {
            self.mistake(format!("{duty:?} ends with {answer:?}"));
        }
    }

    /// What follows when a duty is over.
    fn on_done(&mut self, duty: &Duty) -> Result<(), Broken> {
        match duty {
            Duty::Create { .. } if self.direct => {
                let extents = self.ask_extents()?;
                self.erase(&extents);
                if let Some(job) = &mut self.job {
                    job.extents = extents;
                }
            }
            Duty::Reopen if self.direct => self.check_extents()?,
            Duty::Abort => self.job = None,
            _ => {}
        }
        Ok(())
    }

    /// Runs a duty with a power cut at each call that leaves a mark, in each way that power can fail.
    pub(super) fn each_cut(&mut self, duty: &Duty) -> Result<End, Broken> {
        let saved = self.device.shelf().clone();
        let job = self.job.clone();
        self.device.shelf().marks = 0;
        let end = self.duty(duty)?;
        let marks = self.device.shelf().marks.min(CUTS_MAX);
        let ways = [
            Survivors::All,
            Survivors::None,
            Survivors::Torn,
            Survivors::Last,
        ];
        for cut in 1..=marks {
            for way in ways {
                *self.device.shelf() = saved.clone();
                self.job.clone_from(&job);
                self.replace(false)?;
                {
                    let mut shelf = self.device.shelf();
                    shelf.marks = 0;
                    shelf.cut_at = Some(cut);
                }
                if let End::Done(_) = self.duty(duty)?
                    && self.device.shelf().dark
                {
                    self.mistake(format!(
                        "{duty:?} says done after the power failed at call {cut}"
                    ));
                }
                let at = format!("after a power cut at call {cut} of {duty:?} ({way:?})");
                self.job.clone_from(&job);
                if let End::Failed(failure) = self.power_cut(way)? {
                    self.mistake(format!("it does not reopen {at}: {failure}"));
                }
                if let Some(what) = self.not_bootable() {
                    self.mistake(format!("{what} {at}"));
                }
                if let End::Failed(failure) = self.duty(&Duty::State)? {
                    self.mistake(format!("it cannot tell its state {at}: {failure}"));
                }
                if let (End::Done(_), End::Failed(failure)) = (&end, self.duty(duty)?) {
                    self.mistake(format!("it cannot be done again {at}: {failure}"));
                }
                if !self.mistakes.is_empty() {
                    return Ok(end);
                }
            }
        }
        Ok(end)
    }

    fn not_bootable(&self) -> Option<String> {
        if !self.flash_file {
            return None;
        }
        launcher::not_bootable(&self.device.shelf())
    }
}

fn no_transfer() -> Result<Stand, PluginError> {
    Err(PluginError::Broken(
        "the script has no transfer there".to_owned(),
    ))
}
