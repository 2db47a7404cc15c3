//! PAL plugin: an A/B pair of slots in lent storage.
//!
//! Blocks go straight into the slot that neither runs nor is confirmed. One record, kept twice, says which slot is
//! confirmed and which one is next and in test; only this plugin writes it, in `activate`, `commit` and `reject`. A
//! second record says what the launcher started last; only the launcher writes that one. Both are described in
//! README.md, for their other reader.
//!
//! ```text
//!                activate                 launcher starts it               commit
//!   settled ───────────────► armed (4) ───────────────────► pending (1) ───────────► settled
//!      ▲                       │  ▲                            │    │
//!      │                reject │  │ activate again      reject │    │ tries used up
//!      └──── the next ◄── rejected (3) ◄───────────────────────┘    └──► went back (3)
//! ```
//!
//! Every duty reads both records anew and does a bounded number of small reads and atomic writes. All but `self_test`,
//! which waits to see that the new image stays up, are over in their first call: there is no state to suspend. It knows
//! nothing of jobs, signatures or digests of its own: what may be activated the host decides, and the launcher starts
//! only what the host has verified.

mod boot;
#[cfg(feature = "mutants")]
pub mod hostile;
#[cfg(feature = "mutants")]
pub mod mutant;
mod trailer;

use std::cell::Cell;

use pal_sdk::lent::{BlockDevice, Clock, Level, Log};
use pal_sdk::{
    Answer, Blob, Description, Duty, Extent, Failure, ImageInfo, Plugin, Setting,
    TRANSFER_MAX_BYTES, TargetState, Transfer, Version, Wake, capability, code, export_plugin,
    state,
};

use boot::{Image, Launched, Next, Read, Record, Slot};
use trailer::Trailer;

/// `failure.sub` of 0xe8, 0xe9 and 0xd0. Append-only; README.md has them too.
pub mod sub {
    /// No image was ever confirmed.
    pub const NOTHING_CONFIRMED: u32 = 1;
    /// A new image is marked for the next start.
    pub const ARMED: u32 = 2;
    /// A new image runs and is not committed.
    pub const PENDING: u32 = 3;
    /// What is marked or runs is another transfer's.
    pub const FOREIGN: u32 = 4;
    /// A rejected image runs still.
    pub const REJECTED_RUNS: u32 = 5;
    /// The image is committed; there is no way back.
    pub const COMMITTED: u32 = 6;
    /// The new image does not run.
    pub const NOT_RUNNING: u32 = 7;
    /// It cannot be told what runs: the launcher's record is damaged.
    pub const UNKNOWN: u32 = 8;
    /// No transfer is open.
    pub const NO_TRANSFER: u32 = 9;
    /// The new image was started again during its self-test: it does not stay up.
    pub const STARTED_AGAIN: u32 = 10;
}

/// Time that a new image has to stay up before it passes its self-test. `tries` proves only that the launcher has chosen
/// the image: one that ends at its first line shows by being started again, so this has to be longer than the service
/// manager waits before it does that (systemd: `RestartSec=`, 100 ms unless set).
mod settle {
    /// The setting.
    pub(super) const KEY: &str = "settle_ms";
    /// Unless set: a program that cannot load its libraries, reach its hardware or read its configuration has ended by
    /// then, and service managers have started it again; many wait some seconds before they do.
    pub(super) const DEFAULT_MS: u32 = 10_000;
    /// No service manager is told to restart faster.
    pub(super) const MIN_MS: u32 = 100;
    /// The longest sleep that the contract knows; who wants to watch for longer has a health command.
    pub(super) const MAX_MS: u32 = 60_000;
    /// Time between two looks at `tries`.
    pub(super) const LOOK_MS: u32 = 500;
}

/// The plugin; `L` is what it is lent.
#[derive(Debug)]
pub struct FlashFile<L> {
    lent: L,
    /// Once they were asked for: what an instance is granted does not change.
    regions: Cell<Option<Regions>>,
    transfer: Option<Open>,
    settle_ms: u32,
    test: Option<Test>,
}

/// A self-test under way.
#[derive(Clone, Copy, Debug)]
struct Test {
    /// What the launcher had started when it began.
    launched: Launched,
    /// When it has passed, by the lent clock.
    until_ms: u64,
}

/// A transfer that was created or reopened.
#[derive(Clone, Copy, Debug)]
struct Open {
    slot: Slot,
    size: u64,
    tag: u64,
}

/// The numbers of the regions.
#[derive(Clone, Copy, Debug)]
struct Regions {
    slots: [u32; 2],
    slot_sizes: [u64; 2],
    record: u32,
    tries: u32,
}

/// What stands in both records, put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    /// The confirmed image runs, nothing is marked.
    Settled,
    /// The new image is marked, the confirmed one runs.
    Armed(Image),
    /// The new image runs, in test.
    Pending(Image),
    /// The new image was tried, the confirmed one runs.
    WentBack(Image),
    /// The new image was rejected, the confirmed one runs.
    Rejected(Image),
    /// The new image was rejected, and runs until the next start.
    RejectedRuns(Image),
    /// Something runs that the record does not know.
    Foreign,
    /// The launcher's record is damaged.
    Unknown,
}

impl Now {
    fn of(record: &Record, launched: Launched) -> Self {
        let started = match launched {
            Launched::Nothing => record.confirmed.slot,
            Launched::Last(tries) => tries.started,
            // With nothing marked the launcher starts the confirmed image and no other.
            Launched::Unknown if record.next == Next::None => record.confirmed.slot,
            Launched::Unknown => return Self::Unknown,
        };
        let old_runs = started == record.confirmed.slot;
        // Has the launcher seen this record?
        let seen = matches!(launched, Launched::Last(t) if t.record_sequence == record.sequence);
        match record.next {
            Next::None if old_runs => Self::Settled,
            Next::None => Self::Foreign,
            Next::Armed(image) if seen && old_runs => Self::WentBack(image),
            Next::Armed(image) if seen => Self::Pending(image),
            Next::Armed(image) if old_runs => Self::Armed(image),
            // That slot was started before it was marked: whatever runs, it is not what was marked.
            Next::Armed(_) => Self::Foreign,
            Next::Rejected(image) if old_runs => Self::Rejected(image),
            Next::Rejected(image) => Self::RejectedRuns(image),
        }
    }
}

impl<L: BlockDevice + Clock + Log + 'static> Plugin for FlashFile<L> {
    type Lent = L;

    fn describe() -> Description {
        Description {
            name: "pal-flash-file".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec!["flash-file".to_owned()],
            capabilities: capability::DIRECT
                | capability::REVERT
                | capability::SELF_TEST
                | capability::RUNNING_VERSION,
            largest_write: TRANSFER_MAX_BYTES,
            schemas: vec![SCHEMA],
        }
    }

    fn open(lent: L, settings: Vec<Setting>, saved: Option<Blob>) -> Result<Self, Failure> {
        let mut settle_ms = settle::DEFAULT_MS;
        for setting in &settings {
            settle_ms = read_setting(setting)?;
        }
        // Nothing is saved: both records are read anew, and `reopen` brings the transfer.
        match saved {
            Some(blob) if blob.schema != SCHEMA => Err(Failure::schema(blob.schema)),
            _ => Ok(Self {
                lent,
                regions: Cell::new(None),
                transfer: None,
                settle_ms,
                test: None,
            }),
        }
    }

    fn create(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        let (regions, read, now) = self.look()?;
        let slot = match now {
            Now::Settled | Now::WentBack(_) | Now::Rejected(_) => {
                read.record.confirmed.slot.other()
            }
            Now::Armed(_) => return Err(bad_state(sub::ARMED)),
            Now::Pending(_) => return Err(bad_state(sub::PENDING)),
            Now::RejectedRuns(_) => return Err(bad_state(sub::REJECTED_RUNS)),
            Now::Foreign => return Err(bad_state(sub::FOREIGN)),
            Now::Unknown => return Err(bad_state(sub::UNKNOWN)),
        };
        self.take(&regions, &transfer, slot)?;
        let text = [
            slot.region_name(),
            " takes the file of job ",
            &transfer.job_id,
        ];
        self.lent.log(Level::Info, &text.concat());
        Duty::done()
    }

    fn reopen(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        let (regions, read, now) = self.look()?;
        let record = &read.record;
        let ours = record.tag == tag(&transfer);
        let slot = match now {
            // A slot that another transfer has marked or runs in cannot hold this one.
            Now::Armed(_) | Now::Pending(_) if !ours => return Err(bad_state(sub::FOREIGN)),
            Now::RejectedRuns(_) if !ours => return Err(bad_state(sub::REJECTED_RUNS)),
            Now::Foreign => return Err(bad_state(sub::FOREIGN)),
            // It is activated and committed.
            Now::Settled if ours => record.confirmed.slot,
            // It is marked, or still being received.
            _ => record.confirmed.slot.other(),
        };
        self.take(&regions, &transfer, slot)?;
        Duty::done()
    }

    fn write_block(&mut self, offset: u64, data: Vec<u8>) -> Result<Duty, Failure> {
        let open = self.transfer()?;
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > open.size) {
            return Err(Failure::bad_argument("the block ends beyond the file"));
        }
        let region = self.regions()?.slot(open.slot);
        self.lent.write_at(region, offset, &data)?;
        Duty::done()
    }

    fn extents(&mut self) -> Result<Vec<Extent>, Failure> {
        let open = self.transfer()?;
        Ok(vec![Extent {
            region: self.regions()?.slot(open.slot),
            offset: 0,
            length: open.size,
        }])
    }

    fn examine(&mut self) -> Result<Duty, Failure> {
        let open = self.transfer()?;
        let regions = self.regions()?;
        match self.read_trailer(&regions, open.slot, open.size)? {
            Trailer::Valid(info) => Duty::answer(Answer::Info(info)),
            Trailer::None => Duty::answer(Answer::Info(ImageInfo::default())),
            Trailer::Broken(wrong) => Err(Failure::new(code::WRONG_PRODUCT, 0, wrong)),
        }
    }

    fn activate(&mut self, sha256: [u8; 32]) -> Result<Duty, Failure> {
        let open = self.transfer()?;
        let image = Image {
            slot: open.slot,
            length: open.size,
            sha256,
        };
        let (regions, read, now) = self.look()?;
        let record = &read.record;
        let ours = record.tag == open.tag;
        match now {
            // Done before a crash, or before the host heard of it.
            Now::Armed(there) | Now::Pending(there) if there == image && ours => {
                return Duty::done();
            }
            Now::Settled if ours && record.confirmed == image => return Duty::done(),
            Now::Settled | Now::WentBack(_) | Now::Rejected(_)
                if open.slot != record.confirmed.slot => {}
            Now::Settled | Now::WentBack(_) | Now::Rejected(_) => {
                return Err(bad_state(sub::COMMITTED));
            }
            Now::Armed(_) => return Err(bad_state(sub::ARMED)),
            Now::Pending(_) => return Err(bad_state(sub::PENDING)),
            Now::RejectedRuns(_) => return Err(bad_state(sub::REJECTED_RUNS)),
            Now::Foreign => return Err(bad_state(sub::FOREIGN)),
            Now::Unknown => return Err(bad_state(sub::UNKNOWN)),
        }
        self.replace(
            &regions,
            &read,
            record.confirmed,
            Next::Armed(image),
            open.tag,
        )?;
        self.say(open.slot, " is next, in test");
        Duty::done()
    }

    /// The launcher has started the new image, and has not had to start it again for as long as configured.
    fn self_test(&mut self) -> Result<Duty, Failure> {
        self.test = None;
        let (_, read, launched) = self.records()?;
        match Now::of(&read.record, launched) {
            Now::Pending(_) if self.may_be_ours(&read.record) => {}
            Now::Settled if self.is_ours(&read.record) => return Duty::done(),
            _ => return Err(bad_state(sub::NOT_RUNNING)),
        }
        let until_ms = self.lent.now_ms().saturating_add(self.settle_ms.into());
        self.test = Some(Test { launched, until_ms });
        look_again(self.settle_ms)
    }

    fn step(&mut self, _budget_bytes: u32) -> Result<Duty, Failure> {
        // Taken: whatever goes wrong now ends the test.
        let Some(test) = self.test.take() else {
            return Err(Failure::bad_argument("no duty is under way"));
        };
        let (_, read, launched) = self.records()?;
        if !matches!(Now::of(&read.record, launched), Now::Pending(_)) {
            return Err(bad_state(sub::NOT_RUNNING));
        }
        if launched != test.launched {
            return Err(bad_state(sub::STARTED_AGAIN));
        }
        match test.until_ms.saturating_sub(self.lent.now_ms()) {
            0 => Duty::done(),
            left_ms => {
                self.test = Some(test);
                look_again(left_ms.try_into().unwrap_or(settle::MAX_MS))
            }
        }
    }

    fn commit(&mut self) -> Result<Duty, Failure> {
        let (regions, read, now) = self.look()?;
        let record = &read.record;
        match now {
            Now::Pending(image) if self.may_be_ours(record) => {
                self.replace(&regions, &read, image, Next::None, record.tag)?;
                let old = record.confirmed;
                let (regions, read, now) = self.look()?;
                if now == Now::Foreign {
                    // The launcher went back in between: what was tested is not what runs.
                    let tag = read.record.tag;
                    self.replace(&regions, &read, old, Next::Rejected(image), tag)?;
                    let number = sub::NOT_RUNNING;
                    return Err(Failure::new(code::COMMIT_FAILED, number, why(number)));
                }
                self.say(image.slot, " is confirmed");
                Duty::done()
            }
            Now::Settled if self.is_ours(record) => Duty::done(),
            Now::Pending(_) | Now::Foreign => Err(bad_state(sub::FOREIGN)),
            Now::Unknown => Err(bad_state(sub::UNKNOWN)),
            Now::Settled
            | Now::Armed(_)
            | Now::WentBack(_)
            | Now::Rejected(_)
            | Now::RejectedRuns(_) => Err(bad_state(sub::NOT_RUNNING)),
        }
    }

    fn reject(&mut self) -> Result<Duty, Failure> {
        let (regions, read, now) = self.look()?;
        let record = &read.record;
        let (image, runs) = match now {
            Now::RejectedRuns(_) => return Duty::answer(Answer::HostResets),
            Now::Rejected(_) => return Duty::done(),
            Now::Settled if self.is_ours(record) => {
                return Err(Failure::new(
                    code::REJECT_FAILED,
                    sub::COMMITTED,
                    why(sub::COMMITTED),
                ));
            }
            // Never marked; the host takes the slot back.
            Now::Settled => return Duty::done(),
            Now::Armed(_) | Now::Pending(_) | Now::WentBack(_) if !self.may_be_ours(record) => {
                return Duty::done();
            }
            Now::Armed(image) | Now::WentBack(image) => (image, false),
            Now::Pending(image) => (image, true),
            Now::Foreign => return Err(bad_state(sub::FOREIGN)),
            Now::Unknown => match record.next {
                Next::Armed(image) => (image, true),
                Next::Rejected(_) => return Duty::answer(Answer::HostResets),
                Next::None => return Err(bad_state(sub::UNKNOWN)),
            },
        };
        self.replace(
            &regions,
            &read,
            record.confirmed,
            Next::Rejected(image),
            record.tag,
        )?;
        self.say(image.slot, " is rejected");
        // The launcher may have started it in between; if not, it sees the new record before it does.
        if runs || matches!(self.look()?.2, Now::RejectedRuns(_)) {
            Duty::answer(Answer::HostResets)
        } else {
            Duty::done()
        }
    }

    fn state(&mut self) -> Result<Duty, Failure> {
        let regions = self.regions()?;
        let Some(read) = self.try_record(&regions)? else {
            return Duty::answer(Answer::State(TargetState::default()));
        };
        let record = &read.record;
        let now = Now::of(record, Launched::load(&self.lent, regions.tries)?);
        let other = self.transfer.is_some() && !self.is_ours(record);
        let code = match now {
            Now::Settled => state::VALID,
            Now::Armed(_) => state::ARMED,
            Now::Pending(_) | Now::RejectedRuns(_) if other => state::FOREIGN,
            Now::Pending(_) => state::PENDING_COMMIT,
            Now::RejectedRuns(_) => state::INVALID,
            // The running image is committed; what went back is nobody's any more.
            Now::WentBack(_) | Now::Rejected(_) if !self.is_ours(record) => state::VALID,
            Now::WentBack(_) | Now::Rejected(_) => state::INVALID,
            Now::Foreign => state::FOREIGN,
            Now::Unknown => state::UNKNOWN,
        };
        let (runs, new) = match now {
            Now::Pending(image) | Now::RejectedRuns(image) => (Some(image), true),
            Now::Settled => (Some(record.confirmed), true),
            Now::Armed(_) | Now::WentBack(_) | Now::Rejected(_) => (Some(record.confirmed), false),
            Now::Foreign | Now::Unknown => (None, false),
        };
        let running = match runs {
            Some(image) => self.version(&regions, &image)?,
            None => None,
        };
        let runs_new = match (self.transfer, runs) {
            (Some(_), Some(_)) => Some(new && !other),
            _ => None,
        };
        Duty::answer(Answer::State(TargetState {
            code,
            running,
            runs_new,
        }))
    }

    fn abort(&mut self) -> Result<Duty, Failure> {
        self.test = None;
        let Some(open) = self.transfer else {
            return Duty::done();
        };
        let regions = self.regions()?;
        if let Some(read) = self.try_record(&regions)?
            && matches!(read.record.next, Next::Armed(_))
            && read.record.tag == open.tag
            && !matches!(
                Now::of(&read.record, Launched::load(&self.lent, regions.tries)?),
                Now::WentBack(_)
            )
        {
            // The record may not be written now: whoever marked it must reject it.
            return Err(Failure::new(
                code::ABORT_FAILED,
                sub::ARMED,
                why(sub::ARMED),
            ));
        }
        self.transfer = None;
        Duty::done()
    }
}

/// Encoding of the saved state: nothing.
const SCHEMA: u32 = 1;

impl<L: BlockDevice + Clock + Log> FlashFile<L> {
    fn regions(&self) -> Result<Regions, Failure> {
        if let Some(known) = self.regions.get() {
            return Ok(known);
        }
        let list = self.lent.regions();
        let find = |name: &str| {
            let found = list.iter().zip(0_u32..).find(|(r, _)| r.name == name);
            found.map(|(r, number)| (number, r.size)).ok_or_else(|| {
                let detail = ["region `", name, "` is not granted"];
                Failure::new(code::UNREACHABLE, 2, &detail.concat())
            })
        };
        let (a, a_size) = find(Slot::A.region_name())?;
        let (b, b_size) = find(Slot::B.region_name())?;
        let regions = Regions {
            slots: [a, b],
            slot_sizes: [a_size, b_size],
            record: find("record")?.0,
            tries: find("tries")?.0,
        };
        self.regions.set(Some(regions));
        Ok(regions)
    }

    fn try_record(&self, regions: &Regions) -> Result<Option<Read>, Failure> {
        Record::load(&self.lent, regions.record)
    }

    fn record(&self, regions: &Regions) -> Result<Read, Failure> {
        self.try_record(regions)?
            .ok_or_else(|| bad_state(sub::NOTHING_CONFIRMED))
    }

    /// Read everything anew.
    #[inline(never)]
    fn records(&self) -> Result<(Regions, Read, Launched), Failure> {
        let regions = self.regions()?;
        let read = self.record(&regions)?;
        let launched = Launched::load(&self.lent, regions.tries)?;
        Ok((regions, read, launched))
    }

    /// The same, put together.
    #[inline(never)]
    fn look(&self) -> Result<(Regions, Read, Now), Failure> {
        let (regions, read, launched) = self.records()?;
        let now = Now::of(&read.record, launched);
        Ok((regions, read, now))
    }

    fn replace(
        &self,
        regions: &Regions,
        old: &Read,
        confirmed: Image,
        next: Next,
        tag: u64,
    ) -> Result<(), Failure> {
        Record::replace(&self.lent, regions.record, old, confirmed, next, tag)
    }

    fn take(&mut self, regions: &Regions, transfer: &Transfer, slot: Slot) -> Result<(), Failure> {
        if transfer.size == 0 {
            return Err(Failure::bad_argument("an empty file is no image"));
        }
        if transfer.size > regions.slot_size(slot) {
            let detail = ["the file does not fit into ", slot.region_name()];
            return Err(Failure::new(code::TOO_LARGE, 0, &detail.concat()));
        }
        self.transfer = Some(Open {
            slot,
            size: transfer.size,
            tag: tag(transfer),
        });
        Ok(())
    }

    fn transfer(&self) -> Result<Open, Failure> {
        self.transfer.ok_or_else(|| {
            Failure::new(code::BAD_ARGUMENT, sub::NO_TRANSFER, why(sub::NO_TRANSFER))
        })
    }

    /// What was activated last is this transfer's.
    fn is_ours(&self, record: &Record) -> bool {
        self.transfer.is_some_and(|open| open.tag == record.tag)
    }

    /// Without a transfer the host speaks of whatever is there.
    fn may_be_ours(&self, record: &Record) -> bool {
        self.transfer.is_none_or(|open| open.tag == record.tag)
    }

    fn read_trailer(&self, regions: &Regions, slot: Slot, size: u64) -> Result<Trailer, Failure> {
        let Some(at) = size.checked_sub(trailer::TRAILER_BYTES.into()) else {
            return Ok(Trailer::None);
        };
        let bytes = self
            .lent
            .read_at(regions.slot(slot), at, trailer::TRAILER_BYTES)?;
        Ok(trailer::parse(&bytes, size))
    }

    fn version(&self, regions: &Regions, image: &Image) -> Result<Option<Version>, Failure> {
        Ok(
            match self.read_trailer(regions, image.slot, image.length)? {
                Trailer::Valid(info) => info.version,
                Trailer::None | Trailer::Broken(_) => None,
            },
        )
    }

    #[inline(never)]
    fn say(&self, slot: Slot, what: &str) {
        self.lent
            .log(Level::Info, &[slot.region_name(), what].concat());
    }
}

impl Regions {
    const fn slot(&self, slot: Slot) -> u32 {
        self.slots[slot as usize]
    }

    const fn slot_size(&self, slot: Slot) -> u64 {
        self.slot_sizes[slot as usize]
    }
}

const _: () = assert!(
    settle::MIN_MS == 100 && settle::MAX_MS == 60_000,
    "the text of read_setting says so too"
);

/// The one setting there is.
fn read_setting(setting: &Setting) -> Result<u32, Failure> {
    let detail: &[&str] = if setting.key == settle::KEY {
        match setting.value.parse() {
            Ok(ms) if (settle::MIN_MS..=settle::MAX_MS).contains(&ms) => return Ok(ms),
            _ => &[
                "setting `settle_ms` is \"",
                &setting.value,
                "\"; it takes 100 to 60000, in milliseconds",
            ],
        }
    } else {
        &[
            "unknown setting `",
            &setting.key,
            "`; pal-flash-file has `settle_ms` alone",
        ]
    };
    Err(Failure::bad_argument(&detail.concat()))
}

/// The self-test goes on for so long.
fn look_again(left_ms: u32) -> Result<Duty, Failure> {
    let wake = Wake {
        after_ms: Some(left_ms.min(settle::LOOK_MS)),
        ..Wake::default()
    };
    Duty::working(0, 0, wake)
}

/// Tells one transfer from the next in the record: FNV-1a over all that names it. Not a proof of anything; what runs is
/// proved by the host's digests. Never 0.
fn tag(transfer: &Transfer) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    add(transfer.job_id.as_bytes());
    // A separator that is in no job id.
    add(&[0]);
    add(&transfer.file_id.to_le_bytes());
    add(&transfer.size.to_le_bytes());
    add(&transfer.signature);
    hash.max(1)
}

#[cold]
#[inline(never)]
fn bad_state(sub: u32) -> Failure {
    Failure::new(code::BAD_IMAGE_STATE, sub, why(sub))
}

const fn why(number: u32) -> &'static str {
    match number {
        sub::NOTHING_CONFIRMED => {
            "no image was ever confirmed here; lay one down with `otad target init`"
        }
        sub::ARMED => "a new image is marked for the next start; reject it first",
        sub::PENDING => "a new image runs and is not committed",
        sub::FOREIGN => "an uncommitted image of another transfer runs",
        sub::REJECTED_RUNS => "a rejected image runs until the next start",
        sub::COMMITTED => "the image is committed already",
        sub::NOT_RUNNING => "the new image does not run",
        sub::NO_TRANSFER => "no transfer is open",
        sub::STARTED_AGAIN => {
            "the new image does not stay up: it was started again during its self-test"
        }
        _ => "the launcher's record is damaged: what runs is not known",
    }
}

#[cfg(not(feature = "mutants"))]
export_plugin!(
    FlashFile<pal_sdk::Lent>,
    need::BLOCK_DEVICE | need::CLOCK | need::LOG
);
#[cfg(feature = "mutants")]
export_plugin!(
    hostile::Hostile<pal_sdk::Lent>,
    need::BLOCK_DEVICE | need::CLOCK | need::LOG
);

#[cfg(test)]
mod tests;
