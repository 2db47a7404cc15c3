//! A plugin that does what a test says: direct with two slots and a record, or staged with a flash of its own.
//!
//! Its truth is outside of it, as a real target's is: the direct one keeps it in the record region, the staged one in
//! [`Mcu`]. What "runs" is decided by [`Truth::boot`], which stands for launcher and bootloader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::plugin::lend::Lent;
use crate::plugin::{
    Answer, Description, Duty, ExaminedImage, Extent, Plugin, PluginError, PluginFactory, Transfer,
    WakeOn, capability,
};
use crate::types::{Blob, Failure, Setting, TargetState, Version, code};

/// Numbers of the regions that the direct double is lent.
pub(super) const SLOT_A: u32 = 0;
pub(super) const SLOT_B: u32 = 1;
pub(super) const RECORD: u32 = 2;

/// What a verb does instead of its work.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Trap, so many times.
    Trap(u32),
    /// Trap in the first step.
    TrapInStep,
    /// Fail, so many times.
    Fail(u32, Failure),
    /// Answer `working` for ever.
    Endless(WakeOn),
    /// Answer something that does not belong to the verb.
    Answer(Answer),
}

/// What both the test and the plugin see.
#[derive(Default)]
pub(super) struct Truth {
    /// Faults by verb.
    pub(super) faults: BTreeMap<&'static str, Fault>,
    /// Steps that a verb takes before it is done.
    pub(super) steps: BTreeMap<&'static str, u64>,
    /// Verbs called, with `step`.
    pub(super) calls: Vec<String>,
    /// Place and length of what `write-block` was given.
    pub(super) given: Vec<(u64, usize)>,
    /// Most bytes that the direct one takes at a time, if not 4096.
    pub(super) largest_write: Option<u32>,
    /// Extents to name instead of the right ones.
    pub(super) extents: Option<Vec<Extent>>,
    /// Before each of these verbs, write to these places (region, offset) and remember what came of it.
    pub(super) scribble: BTreeMap<&'static str, (u32, u64)>,
    /// In this verb, write to this region, and fail with what comes of it.
    pub(super) insists: Option<(&'static str, u32)>,
    /// Before this verb, sync until it is refused, and remember what came of it.
    pub(super) syncs: Option<&'static str>,
    pub(super) synced: Vec<Result<(), Failure>>,
    pub(super) scribbled: Vec<(&'static str, Result<(), Failure>)>,
    /// The slot that runs.
    pub(super) running: u8,
    /// The version that it says to run, in whichever slot.
    pub(super) version: Option<Version>,
    /// The host must restart the target, and for `reject` too.
    pub(super) host_resets: bool,
    /// `state` fails or lies.
    pub(super) state: Option<Result<TargetState, Failure>>,
    /// The same, once it was asked to commit.
    pub(super) state_then: Option<Result<TargetState, Failure>>,
    pub(super) examined: ExaminedImage,
    /// Saved states that `open` was given.
    pub(super) opened: Vec<Option<Blob>>,
    /// Settings that `open` was given.
    pub(super) settings: Vec<Setting>,
    /// It goes on as if every sync of the record had worked.
    pub(super) ignores_failed_syncs: bool,
    /// It never syncs the record.
    pub(super) forgets_to_sync: bool,
    /// It breaks between the write of the record and its sync.
    pub(super) dies_before_sync: bool,
    /// It takes blocks of nothing but 0xff for erased storage and does not write them.
    pub(super) skips_blank: bool,
    /// `suspend` traps.
    pub(super) breaks_over_saved: bool,
    /// `open` refuses saved state.
    pub(super) refuses_saved: bool,
    /// Instances alive.
    pub(super) alive: usize,
    /// The new image never stays up: the launcher goes back.
    pub(super) never_starts: bool,
    pub(super) went_back: bool,
    /// The MCU of the staged double.
    pub(super) mcu: Mcu,
}

/// The record region's bytes: confirmed slot, next slot (0xff = none), state (0 settled, 1 armed, 2 rejected), tag of
/// the transfer that was activated last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) confirmed: u8,
    pub(super) next: u8,
    pub(super) state: u8,
    pub(super) tag: u32,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            confirmed: 0,
            next: 0xff,
            state: 0,
            tag: 0,
        }
    }
}

impl Record {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        match *bytes {
            [confirmed @ (0 | 1), next, state, 0, a, b, c, d, ..] => Self {
                confirmed,
                next,
                state,
                tag: u32::from_le_bytes([a, b, c, d]),
            },
            _ => Self::default(),
        }
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = vec![self.confirmed, self.next, self.state, 0];
        bytes.extend(self.tag.to_le_bytes());
        bytes
    }
}

/// A microcontroller behind a staged plugin.
#[derive(Clone, Debug, Default)]
pub(super) struct Mcu {
    pub(super) inactive: Vec<u8>,
    pub(super) marked: bool,
    /// The new image runs.
    pub(super) new_runs: bool,
    pub(super) confirmed: bool,
}

impl Truth {
    /// Launcher or bootloader: start what is to be started.
    pub(super) fn boot(&mut self, record: Record) {
        self.went_back = record.state == 1 && self.never_starts;
        self.running = match record.state {
            1 if !self.never_starts => record.next,
            _ => record.confirmed,
        };
        if std::mem::take(&mut self.mcu.marked) {
            self.mcu.new_runs = true;
        }
    }
}

/// Makes doubles.
pub(super) struct Factory {
    description: Description,
    imports: Vec<String>,
    truth: Arc<Mutex<Truth>>,
}

impl Factory {
    pub(super) fn direct(truth: &Arc<Mutex<Truth>>) -> Arc<Self> {
        Arc::new(Self {
            description: Description {
                name: "double-direct".into(),
                version: "1.0.0".into(),
                kinds: vec!["double".into()],
                capabilities: capability::DIRECT
                    | capability::REVERT
                    | capability::SELF_TEST
                    | capability::RUNNING_VERSION,
                largest_write: truth.lock().unwrap().largest_write.unwrap_or(4096),
                schemas: vec![1],
            },
            imports: vec!["block-device".into(), "log".into()],
            truth: Arc::clone(truth),
        })
    }

    /// Direct, on a target that cannot go back.
    pub(super) fn one_way(truth: &Arc<Mutex<Truth>>) -> Arc<Self> {
        Arc::new(Self {
            description: Description {
                capabilities: capability::DIRECT,
                ..Self::direct(truth).description.clone()
            },
            imports: vec!["block-device".into()],
            truth: Arc::clone(truth),
        })
    }

    pub(super) fn staged(truth: &Arc<Mutex<Truth>>) -> Arc<Self> {
        Arc::new(Self {
            description: Description {
                name: "double-staged".into(),
                capabilities: capability::STAGED | capability::REVERT,
                largest_write: 0,
                ..Self::direct(truth).description.clone()
            },
            imports: vec!["staged-image".into(), "clock".into()],
            truth: Arc::clone(truth),
        })
    }
}

impl PluginFactory for Factory {
    fn label(&self) -> &str {
        "test:double"
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        self.truth.lock().unwrap().alive += 1;
        Ok(Box::new(Double {
            direct: self.description.can(capability::DIRECT),
            lent,
            truth: Arc::clone(&self.truth),
            transfer: None,
            begun: None,
            pushed: 0,
        }))
    }
}

struct Double {
    direct: bool,
    lent: Lent,
    truth: Arc<Mutex<Truth>>,
    transfer: Option<Transfer>,
    /// Verb under way and steps left.
    begun: Option<(&'static str, u64)>,
    pushed: u64,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.truth.lock().unwrap().alive -= 1;
    }
}

impl Double {
    /// Common begin of every verb.
    fn begin(&mut self, verb: &'static str) -> Result<Duty, PluginError> {
        self.scribble(verb);
        let insists = self.truth.lock().unwrap().insists;
        if let Some((_, region)) = insists.filter(|(in_verb, _)| *in_verb == verb) {
            let device = self.lent.block_device.clone().unwrap();
            let end = device.write_at(region, 0, b"insists");
            end.map_err(PluginError::Failed)?;
        }
        let (fault, steps) = {
            let mut truth = self.truth.lock().unwrap();
            truth.calls.push(verb.to_owned());
            let steps = truth.steps.get(verb).copied().unwrap_or(0);
            let fault = truth.faults.get(verb).cloned();
            match truth.faults.get_mut(verb) {
                Some(Fault::Trap(n) | Fault::Fail(n, _)) if *n > 1 => *n -= 1,
                Some(Fault::Trap(_) | Fault::Fail(..)) => {
                    truth.faults.remove(verb);
                }
                Some(Fault::TrapInStep | Fault::Endless(_) | Fault::Answer(_)) | None => {}
            }
            (fault, steps)
        };
        match fault {
            Some(Fault::Trap(_)) => return Err(PluginError::Broken("unreachable".into())),
            Some(Fault::Fail(_, failure)) => return Err(PluginError::Failed(failure)),
            Some(Fault::Answer(answer)) => return Ok(Duty::Finished(answer)),
            Some(Fault::Endless(wake)) => {
                self.begun = Some((verb, u64::MAX));
                return Ok(Duty::Working {
                    done: 0,
                    total: 0,
                    wake,
                });
            }
            Some(Fault::TrapInStep) => {
                self.begun = Some((verb, 1));
                return Ok(working(0, 1));
            }
            None => {}
        }
        if steps > 0 {
            self.begun = Some((verb, steps));
            return Ok(working(0, steps));
        }
        self.finish(verb)
    }

    fn scribble(&mut self, verb: &'static str) {
        if self.truth.lock().unwrap().syncs == Some(verb) {
            let device = self.lent.block_device.clone().unwrap();
            for _ in 0..100 {
                let end = device.sync(SLOT_A);
                let over = end.is_err();
                self.truth.lock().unwrap().synced.push(end);
                if over {
                    break;
                }
            }
        }
        let place = self.truth.lock().unwrap().scribble.get(verb).copied();
        if let Some((region, offset)) = place {
            let device = self.lent.block_device.clone().unwrap();
            let end = device.write_at(region, offset, b"scribble");
            self.truth.lock().unwrap().scribbled.push((verb, end));
        }
    }

    fn finish(&mut self, verb: &'static str) -> Result<Duty, PluginError> {
        let answer = if self.direct {
            self.finish_direct(verb)?
        } else {
            self.finish_staged(verb)?
        };
        Ok(Duty::Finished(answer))
    }

    fn record(&self) -> Record {
        let device = self.lent.block_device.as_ref().unwrap();
        Record::decode(&device.read_at(RECORD, 0, 8).unwrap_or_default())
    }

    fn write_record(&self, record: Record) -> Result<(), PluginError> {
        let device = self.lent.block_device.as_ref().unwrap();
        device
            .write_at(RECORD, 0, &record.encode())
            .map_err(PluginError::Failed)?;
        let (deaf, dies, forgets) = {
            let truth = self.truth.lock().unwrap();
            let (deaf, dies) = (truth.ignores_failed_syncs, truth.dies_before_sync);
            (deaf, dies, truth.forgets_to_sync)
        };
        if dies {
            return Err(PluginError::Broken("unreachable".into()));
        }
        if forgets {
            return Ok(());
        }
        match device.sync(RECORD) {
            Err(failure) if !deaf => Err(PluginError::Failed(failure)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The tag of the open transfer.
    fn tag(&self) -> Option<u32> {
        let transfer = self.transfer.as_ref()?;
        Some(crc32c::crc32c(transfer.job_id.as_bytes()))
    }

    /// The slot in which the open transfer's file lies.
    fn slot(&self) -> u8 {
        let record = self.record();
        match (self.tag() == Some(record.tag), record.state) {
            (true, 0) => record.confirmed,
            (true, _) => record.next,
            (false, _) => 1 - record.confirmed,
        }
    }

    fn finish_direct(&mut self, verb: &'static str) -> Result<Answer, PluginError> {
        let record = self.record();
        let running = self.truth.lock().unwrap().running;
        let mine = self.tag() == Some(record.tag);
        match verb {
            // What runs and is confirmed already need not be marked.
            "activate" if mine && record.state == 0 => {}
            "activate" => self.write_record(Record {
                next: self.slot(),
                state: 1,
                tag: self.tag().unwrap(),
                ..record
            })?,
            "commit" if mine && record.state == 0 => {}
            "commit" => self.write_record(Record {
                confirmed: running,
                next: 0xff,
                state: 0,
                ..record
            })?,
            "reject" => {
                if record.state == 1 {
                    self.write_record(Record { state: 2, ..record })?;
                }
                if running != record.confirmed {
                    return Ok(Answer::HostResets);
                }
            }
            "reset" if self.truth.lock().unwrap().host_resets => return Ok(Answer::HostResets),
            "reset" => self.truth.lock().unwrap().boot(record),
            "state" => return self.direct_state(record, running, mine),
            "examine" => return Ok(Answer::Info(self.truth.lock().unwrap().examined.clone())),
            _ => {}
        }
        Ok(Answer::Nothing)
    }

    fn direct_state(&self, record: Record, running: u8, mine: bool) -> Result<Answer, PluginError> {
        let truth = self.truth.lock().unwrap();
        if let Some(state) = truth.state.clone() {
            return state.map(Answer::State).map_err(PluginError::Failed);
        }
        let next_runs = running == record.next;
        let code = match record.state {
            0 => 2,
            1 if next_runs => 1,
            1 if truth.went_back => 3,
            1 => 4,
            _ => 3,
        };
        let runs_new = mine && (record.state == 0 || next_runs);
        Ok(Answer::State(TargetState {
            code,
            running: Some(truth.version.unwrap_or_else(|| version(running))),
            runs_new: self.transfer.is_some().then_some(runs_new),
        }))
    }

    fn finish_staged(&mut self, verb: &'static str) -> Result<Answer, PluginError> {
        if verb == "install" {
            let staged = self.lent.staged_image.clone().unwrap();
            let size = self.transfer.as_ref().unwrap().size;
            let mut image = Vec::new();
            while (image.len() as u64) < size {
                let n = (size - image.len() as u64).min(4096) as u32;
                let bytes = staged
                    .read_at(image.len() as u64, n)
                    .map_err(PluginError::Failed)?;
                image.extend(bytes);
            }
            if !staged.verified() {
                return Err(PluginError::Failed(Failure::new(
                    code::NOT_VERIFIED,
                    0,
                    "early",
                )));
            }
            self.truth.lock().unwrap().mcu.inactive = image;
            return Ok(Answer::Nothing);
        }
        let staged = self.lent.staged_image.as_ref().unwrap();
        let knows_file = staged.held() > 0;
        let mut truth = self.truth.lock().unwrap();
        match verb {
            "create" => truth.mcu = Mcu::default(),
            "activate" => truth.mcu.marked = true,
            "reset" if truth.host_resets => return Ok(Answer::HostResets),
            "reset" => truth.boot(Record::default()),
            "commit" => truth.mcu.confirmed = true,
            "reject" => {
                truth.mcu.marked = false;
                truth.mcu.new_runs = false;
            }
            "state" => {
                if let Some(state) = truth.state.clone() {
                    return state.map(Answer::State).map_err(PluginError::Failed);
                }
                let mcu = &truth.mcu;
                let code = match (mcu.marked, mcu.new_runs, mcu.confirmed) {
                    (true, _, _) => 4,
                    // By its file alone it knows the image that runs for its own.
                    (_, true, false) if knows_file => 1,
                    (_, true, false) => 5,
                    _ => 2,
                };
                return Ok(Answer::State(TargetState {
                    code,
                    running: None,
                    runs_new: Some(mcu.new_runs && knows_file),
                }));
            }
            "examine" => return Ok(Answer::Info(truth.examined.clone())),
            _ => {}
        }
        Ok(Answer::Nothing)
    }
}

fn working(done: u64, total: u64) -> Duty {
    Duty::Working {
        done,
        total,
        wake: WakeOn::default(),
    }
}

/// What the double says runs in a slot.
pub(super) fn version(slot: u8) -> Version {
    Version {
        major: slot + 1,
        ..Version::default()
    }
}

impl Plugin for Double {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        self.scribble("open");
        let mut truth = self.truth.lock().unwrap();
        truth.calls.push("open".into());
        truth.opened.push(saved.cloned());
        truth.settings = settings.to_vec();
        if truth.refuses_saved && saved.is_some() {
            return Err(PluginError::Failed(Failure::new(
                code::SCHEMA,
                1,
                "unknown schema",
            )));
        }
        Ok(())
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.transfer = Some(transfer.clone());
        self.begin("create")
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.transfer = Some(transfer.clone());
        self.begin("reopen")
    }

    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        let given = (offset, data.len());
        self.truth.lock().unwrap().given.push(given);
        let begun = self.begin("write-block")?;
        let blank = data.iter().all(|byte| *byte == 0xff);
        if !(blank && self.truth.lock().unwrap().skips_blank) {
            let device = self.lent.block_device.clone().unwrap();
            device
                .write_at(u32::from(self.slot()), offset, data)
                .map_err(PluginError::Failed)?;
        }
        self.pushed += data.len() as u64;
        Ok(begun)
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        let size = self.transfer.as_ref().map_or(0, |t| t.size);
        let named = self.truth.lock().unwrap().extents.clone();
        Ok(named.unwrap_or_else(|| {
            vec![Extent {
                region: u32::from(self.slot()),
                offset: 0,
                length: size,
            }]
        }))
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.begin("examine")
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        self.begin("install")
    }

    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        assert!(sha256 != &[0; 32]);
        self.begin("activate")
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        self.begin("reset")
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.begin("self-test")
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        let duty = self.begin("commit");
        let mut truth = self.truth.lock().unwrap();
        if let Some(state) = truth.state_then.take() {
            truth.state = Some(state);
        }
        duty
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.begin("reject")
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        self.begin("state")
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.begun = None;
        self.transfer = None;
        self.begin("abort")
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        assert!(budget_bytes > 0);
        self.truth.lock().unwrap().calls.push("step".into());
        let Some((verb, left)) = self.begun else {
            return Err(PluginError::Failed(Failure::new(
                code::BAD_ARGUMENT,
                0,
                "no duty",
            )));
        };
        let fault = self.truth.lock().unwrap().faults.get(verb).cloned();
        match fault {
            Some(Fault::TrapInStep) => return Err(PluginError::Broken("unreachable".into())),
            Some(Fault::Endless(wake)) => {
                return Ok(Duty::Working {
                    done: 0,
                    total: 0,
                    wake,
                });
            }
            _ => {}
        }
        let left = left - 1;
        self.begun = (left > 0).then_some((verb, left));
        if left > 0 {
            let total = self.truth.lock().unwrap().steps[verb];
            return Ok(working(total - left, total));
        }
        if verb == "write-block" {
            return Ok(Duty::Finished(Answer::Nothing));
        }
        self.finish(verb)
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        let mut truth = self.truth.lock().unwrap();
        if truth.breaks_over_saved {
            truth.calls.push("suspend".into());
            return Err(PluginError::Broken("too much to save".into()));
        }
        Ok(Blob {
            schema: 1,
            bytes: self.pushed.to_le_bytes().to_vec(),
        })
    }
}
