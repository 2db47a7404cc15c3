//! A PAL in this process, for speed: an A/B pair of slots with the records of `pal-flash-file`, in front of the same
//! launcher.
//!
//! It is not that plugin: no line is shared (the rooms meet as bytes), it knows no settings, and it answers its self-test
//! after [`SETTLE_MS`]. What a plugin itself does wrong is found with the plugin, not with this. Checkers use
//! [`Quirk`] to make it one that does wrong.

use std::sync::Arc;

use host_runtime::plugin::lend::{BlockDevice, Lent, TRANSFER_MAX_BYTES};
use host_runtime::plugin::{
    Answer, Description, Duty, ExaminedImage, Extent, Plugin, PluginError, PluginFactory, Transfer,
    WakeOn, capability,
};
use host_runtime::target::trailer::{TRAILER_BYTES, Trailer};
use host_runtime::types::{Blob, Failure, Setting, TargetState, Version, code};

use crate::boot::{self, BootRecord, Doubled, Image, Next, SECOND_AT, Stored, Tries};

/// Time that a new image has to stay up before it passes its self-test, in milliseconds: the default of
/// `pal-flash-file`.
pub const SETTLE_MS: u64 = 10_000;

/// Something that a PAL should not do, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// It confirms the image when it is told to restart the target.
    CommitsUntested,
    /// Its commit writes two records, of which the first forgets what is in test.
    CommitsTwice,
    /// It writes its record over the copy that counts.
    OverwritesRecord,
    /// It does not sync its record.
    ForgetsSync,
    /// It arms whatever lies in the slot before the first block has come.
    ArmsAtCreate,
}

/// Makes instances of the PAL in this process.
#[must_use]
pub fn native_pal(quirk: Option<Quirk>) -> Arc<dyn PluginFactory> {
    Arc::new(Factory {
        description: Description {
            name: "sandbox-slots".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec!["flash-file".to_owned()],
            capabilities: capability::DIRECT
                | capability::REVERT
                | capability::SELF_TEST
                | capability::RUNNING_VERSION,
            largest_write: TRANSFER_MAX_BYTES,
            schemas: vec![SCHEMA],
        },
        imports: ["block-device", "clock"].map(str::to_owned).to_vec(),
        quirk,
    })
}

const SCHEMA: u32 = 1;

struct Factory {
    description: Description,
    imports: Vec<String>,
    quirk: Option<Quirk>,
}

impl PluginFactory for Factory {
    fn label(&self) -> &str {
        "sandbox:slots"
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        let Some(device) = lent.block_device else {
            return Err(PluginError::Broken("no storage is lent".into()));
        };
        Ok(Box::new(Slots {
            device,
            clock: lent.clock,
            quirk: self.quirk,
            open: None,
            test: None,
        }))
    }
}

struct Slots {
    device: Arc<dyn BlockDevice>,
    clock: Arc<dyn host_runtime::ports::clock::Clock>,
    quirk: Option<Quirk>,
    open: Option<Open>,
    test: Option<Test>,
}

/// The transfer.
#[derive(Clone, Copy)]
struct Open {
    slot: u8,
    size: u64,
    tag: u64,
}

/// A self-test under way.
#[derive(Clone, Copy)]
struct Test {
    tries: Tries,
    until_ms: u64,
}

/// Numbers of the regions, as the world configures them.
const RECORD: u32 = 2;
const TRIES: u32 = 3;

/// Where the target stands, from both records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Now {
    Settled,
    Armed(Image),
    InTest(Image, Tries),
    WentBack(Image),
    Rejected(Image),
    RejectedRuns(Image),
    Foreign,
}

/// Codes of `target-state` (`wit/pal/types.wit`).
mod state {
    pub(super) const IN_TEST: u8 = 1;
    pub(super) const VALID: u8 = 2;
    pub(super) const INVALID: u8 = 3;
    pub(super) const ARMED: u8 = 4;
    pub(super) const FOREIGN: u8 = 5;
}

/// PAL: commit failed, reject failed, abort failed.
const COMMIT_FAILED: u8 = 0xeb;
const REJECT_FAILED: u8 = 0xea;
const ABORT_FAILED: u8 = 0xe9;

fn fail<R>(main: u8, detail: &str) -> Result<R, PluginError> {
    Err(PluginError::Failed(Failure::new(main, 1, detail)))
}

fn done() -> Result<Duty, PluginError> {
    Ok(Duty::Finished(Answer::Nothing))
}

impl Slots {
    fn stored<R: Doubled>(&self, region: u32) -> Result<Stored<R>, PluginError> {
        let length = u32::try_from(R::BYTES).unwrap_or(u32::MAX);
        let copy = |at| self.device.read_at(region, at, length);
        let first = copy(0).map_err(PluginError::Failed)?;
        let second = copy(SECOND_AT).map_err(PluginError::Failed)?;
        Ok(boot::newest(&first, &second))
    }

    fn look(&self) -> Result<(BootRecord, usize, Now), PluginError> {
        let (record, copy) = match self.stored::<BootRecord>(RECORD)? {
            Stored::Valid(record, copy) => (record, copy),
            Stored::Blank => return fail(code::BAD_IMAGE_STATE, "no image was ever confirmed"),
            Stored::Damaged => return fail(code::STORAGE, "both copies of the record are damaged"),
        };
        let tries = match self.stored::<Tries>(TRIES)? {
            Stored::Valid(tries, _) => Some(tries),
            Stored::Blank | Stored::Damaged => None,
        };
        Ok((record, copy, now(&record, tries)))
    }

    fn replace(&self, old: &BootRecord, copy: usize, new: BootRecord) -> Result<(), PluginError> {
        let new = BootRecord {
            sequence: old.sequence.wrapping_add(1),
            ..new
        };
        let copy = if self.quirk == Some(Quirk::OverwritesRecord) {
            copy
        } else {
            1 - copy
        };
        let at = SECOND_AT * copy as u64;
        let write = self.device.write_at(RECORD, at, &new.encode());
        write.map_err(PluginError::Failed)?;
        if self.quirk == Some(Quirk::ForgetsSync) {
            return Ok(());
        }
        self.device.sync(RECORD).map_err(PluginError::Failed)
    }

    fn transfer(&self) -> Result<Open, PluginError> {
        match self.open {
            Some(open) => Ok(open),
            None => fail(code::BAD_ARGUMENT, "no transfer is open"),
        }
    }

    fn is_ours(&self, record: &BootRecord) -> bool {
        self.open.is_some_and(|open| open.tag == record.tag)
    }

    /// Without a transfer the host speaks of whatever is there.
    fn may_be_ours(&self, record: &BootRecord) -> bool {
        self.open.is_none() || self.is_ours(record)
    }

    fn version(&self, image: &Image) -> Result<Option<Version>, PluginError> {
        let Some(at) = image.length.checked_sub(TRAILER_BYTES as u64) else {
            return Ok(None);
        };
        let tail = self
            .device
            .read_at(image.slot.into(), at, TRAILER_BYTES as u32)
            .map_err(PluginError::Failed)?;
        let trailer = Trailer::decode(&tail, image.length).ok();
        Ok(trailer.map(|trailer| trailer.version))
    }

    fn confirm(&self, record: &BootRecord, copy: usize, image: Image) -> Result<(), PluginError> {
        let confirmed = BootRecord {
            confirmed: image,
            next: Next::None,
            ..*record
        };
        self.replace(record, copy, confirmed)
    }
}

fn now(record: &BootRecord, tries: Option<Tries>) -> Now {
    let started = tries.map_or(record.confirmed.slot, |tries| tries.started);
    let old_runs = started == record.confirmed.slot;
    let seen = tries.filter(|tries| tries.record_sequence == record.sequence);
    match (record.next, seen) {
        (Next::None, _) if old_runs => Now::Settled,
        (Next::None, _) => Now::Foreign,
        (Next::Armed(image), Some(_)) if old_runs => Now::WentBack(image),
        (Next::Armed(image), Some(tries)) => Now::InTest(image, tries),
        (Next::Armed(image), None) if old_runs => Now::Armed(image),
        (Next::Armed(_), None) => Now::Foreign,
        (Next::Rejected(image), _) if old_runs => Now::Rejected(image),
        (Next::Rejected(image), _) => Now::RejectedRuns(image),
    }
}

/// Tells one transfer from the next: FNV-1a over what names it, never 0.
fn tag(transfer: &Transfer) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let parts: [&[u8]; 4] = [
        transfer.job_id.as_bytes(),
        &transfer.file_id.to_le_bytes(),
        &transfer.size.to_le_bytes(),
        &transfer.signature,
    ];
    for byte in parts.into_iter().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash.max(1)
}

impl Plugin for Slots {
    fn open(&mut self, _: &[Setting], _: Option<&Blob>) -> Result<(), PluginError> {
        Ok(())
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        let (record, copy, now) = self.look()?;
        match now {
            Now::Settled | Now::WentBack(_) | Now::Rejected(_) => {}
            Now::Armed(_) | Now::InTest(..) | Now::RejectedRuns(_) | Now::Foreign => {
                return fail(code::BAD_IMAGE_STATE, "an image is in test");
            }
        }
        let slot = 1 - record.confirmed.slot;
        self.open = Some(Open {
            slot,
            size: transfer.size,
            tag: tag(transfer),
        });
        if self.quirk == Some(Quirk::ArmsAtCreate) {
            let image = Image {
                slot,
                length: transfer.size,
                sha256: [0; 32],
            };
            let armed = BootRecord {
                next: Next::Armed(image),
                ..record
            };
            self.replace(&record, copy, armed)?;
        }
        done()
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        let (record, _, now) = self.look()?;
        let tag = tag(transfer);
        let ours = record.tag == tag;
        let slot = match now {
            Now::Armed(_) | Now::InTest(..) | Now::RejectedRuns(_) if !ours => {
                return fail(code::BAD_IMAGE_STATE, "another transfer's image is in test");
            }
            Now::Foreign => return fail(code::BAD_IMAGE_STATE, "an unknown image runs"),
            Now::Settled if ours => record.confirmed.slot,
            _ => 1 - record.confirmed.slot,
        };
        self.open = Some(Open {
            slot,
            size: transfer.size,
            tag,
        });
        done()
    }

    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        let open = self.transfer()?;
        let written = self.device.write_at(open.slot.into(), offset, data);
        written.map_err(PluginError::Failed)?;
        done()
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        let open = self.transfer()?;
        Ok(vec![Extent {
            region: open.slot.into(),
            offset: 0,
            length: open.size,
        }])
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        Ok(Duty::Finished(Answer::Info(ExaminedImage::default())))
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        done()
    }

    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        let open = self.transfer()?;
        let image = Image {
            slot: open.slot,
            length: open.size,
            sha256: *sha256,
        };
        let (record, copy, now) = self.look()?;
        match now {
            Now::Armed(there) | Now::InTest(there, _)
                if there == image && record.tag == open.tag =>
            {
                return done();
            }
            Now::Settled if record.tag == open.tag && record.confirmed == image => return done(),
            Now::Settled | Now::WentBack(_) | Now::Rejected(_)
                if open.slot != record.confirmed.slot => {}
            _ => {
                return fail(
                    code::BAD_IMAGE_STATE,
                    "another image is in test or confirmed",
                );
            }
        }
        let armed = BootRecord {
            next: Next::Armed(image),
            tag: open.tag,
            ..record
        };
        self.replace(&record, copy, armed)?;
        done()
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        if self.quirk == Some(Quirk::CommitsUntested)
            && let (record, copy, Now::Armed(image)) = self.look()?
        {
            self.confirm(&record, copy, image)?;
        }
        Ok(Duty::Finished(Answer::HostResets))
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        let (record, _, now) = self.look()?;
        match now {
            Now::InTest(_, tries) if self.may_be_ours(&record) => {
                self.test = Some(Test {
                    tries,
                    until_ms: self.clock.now_ms() + SETTLE_MS,
                });
                working(SETTLE_MS)
            }
            Now::Settled if self.is_ours(&record) => done(),
            _ => fail(code::BAD_IMAGE_STATE, "the new image does not run"),
        }
    }

    fn step(&mut self, _: u32) -> Result<Duty, PluginError> {
        let Some(test) = self.test.take() else {
            return fail(code::BAD_ARGUMENT, "no duty is under way");
        };
        match self.look()?.2 {
            Now::InTest(_, tries) if tries == test.tries => {}
            _ => return fail(code::BAD_IMAGE_STATE, "the new image does not stay up"),
        }
        match test.until_ms.saturating_sub(self.clock.now_ms()) {
            0 => done(),
            left_ms => {
                self.test = Some(test);
                working(left_ms)
            }
        }
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        let (record, copy, now) = self.look()?;
        match now {
            Now::InTest(image, _) if self.may_be_ours(&record) => {
                if self.quirk == Some(Quirk::CommitsTwice) {
                    let forgot = BootRecord {
                        next: Next::None,
                        ..record
                    };
                    self.replace(&record, copy, forgot)?;
                    let (record, copy, _) = self.look()?;
                    self.confirm(&record, copy, image)?;
                } else {
                    self.confirm(&record, copy, image)?;
                }
                done()
            }
            Now::Settled if self.is_ours(&record) => done(),
            _ => fail(COMMIT_FAILED, "the new image does not run"),
        }
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        let (record, copy, now) = self.look()?;
        let (image, runs) = match now {
            Now::RejectedRuns(_) => return Ok(Duty::Finished(Answer::HostResets)),
            Now::Settled if self.is_ours(&record) => {
                return fail(REJECT_FAILED, "the image is committed");
            }
            Now::Settled | Now::Rejected(_) => return done(),
            Now::Armed(_) | Now::InTest(..) | Now::WentBack(_) if !self.may_be_ours(&record) => {
                return done();
            }
            Now::Armed(image) | Now::WentBack(image) => (image, false),
            Now::InTest(image, _) => (image, true),
            Now::Foreign => return fail(code::BAD_IMAGE_STATE, "an unknown image runs"),
        };
        let rejected = BootRecord {
            next: Next::Rejected(image),
            ..record
        };
        self.replace(&record, copy, rejected)?;
        if runs {
            return Ok(Duty::Finished(Answer::HostResets));
        }
        done()
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        let (record, _, now) = self.look()?;
        let ours = self.is_ours(&record);
        let other = self.open.is_some() && !ours;
        let code = match now {
            Now::Settled => state::VALID,
            Now::Armed(_) => state::ARMED,
            Now::InTest(..) | Now::RejectedRuns(_) if other => state::FOREIGN,
            Now::InTest(..) => state::IN_TEST,
            Now::RejectedRuns(_) => state::INVALID,
            Now::WentBack(_) | Now::Rejected(_) if !ours => state::VALID,
            Now::WentBack(_) | Now::Rejected(_) => state::INVALID,
            Now::Foreign => state::FOREIGN,
        };
        let (runs, new) = match now {
            Now::InTest(image, _) | Now::RejectedRuns(image) => (Some(image), true),
            Now::Settled => (Some(record.confirmed), true),
            Now::Armed(_) | Now::WentBack(_) | Now::Rejected(_) => (Some(record.confirmed), false),
            Now::Foreign => (None, false),
        };
        let running = match runs {
            Some(image) => self.version(&image)?,
            None => None,
        };
        let runs_new = (self.open.is_some() && runs.is_some()).then_some(new && !other);
        Ok(Duty::Finished(Answer::State(TargetState {
            code,
            running,
            runs_new,
        })))
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.test = None;
        if let (Some(open), (record, _, now)) = (self.open, self.look()?)
            && matches!(record.next, Next::Armed(_))
            && record.tag == open.tag
            && !matches!(now, Now::WentBack(_))
        {
            return fail(ABORT_FAILED, "the image is in test");
        }
        self.open = None;
        done()
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        Ok(Blob {
            schema: SCHEMA,
            bytes: Vec::new(),
        })
    }
}

fn working(left_ms: u64) -> Result<Duty, PluginError> {
    const LOOK_MS: u64 = 500;
    Ok(Duty::Working {
        done: 0,
        total: 0,
        wake: WakeOn {
            after_ms: Some(left_ms.min(LOOK_MS) as u32),
            ..WakeOn::default()
        },
    })
}
