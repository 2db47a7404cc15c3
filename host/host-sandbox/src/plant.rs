//! The targets of a simulated gateway: slots and records on the disk, and the launcher that starts what they hold.
//!
//! The launcher does what `pal-flash-file`'s README asks of one, on the same disk and under the same cuts; what it starts
//! is noted for the checkers. It takes the host's list of verified images from the state directory, as the real one does.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::ports::storage::Storage;
use host_runtime::target::verified_record;

use crate::ailment::{Ailing, AilingRegion, Spell};
use crate::boot::{self, BootRecord, Doubled, Image, Next, REGION_BYTES, SECOND_AT, Stored, Tries};
use crate::disk::Disk;
use crate::ground::Ground;
use crate::judge::{Findings, Invariant, Launch, RecordChange, Running, SlotChange};
use crate::scenario::{Known, Prepared, PreparedFile, Quality};
use crate::store::{DiskFiles, Region};
use crate::trace::Event;

/// Name of the simulated thing.
pub const THING: &str = "gateway-7";

/// Tries that the launcher gives an image in test.
pub(crate) const TRIES_MAX: u32 = 3;

/// Bytes of a slot.
const SLOT_BYTES: u64 = 32 * 1024 * 1024;

/// All targets, and those who watch them.
#[derive(Clone)]
pub(crate) struct Plant(Arc<Mutex<Inner>>);

struct Inner {
    ground: Ground,
    targets: Vec<Target>,
    known: Arc<BTreeMap<[u8; 32], Known>>,
    invariants: Vec<Box<dyn Invariant>>,
    findings: Findings,
    /// There is a health check.
    health: bool,
}

struct Target {
    name: String,
    disk: Disk,
    slots: [Region; 2],
    record: Region,
    tries: Region,
    running: Option<Running>,
    healthy: bool,
    /// How long a self-test takes.
    settle_ms: u64,
    /// What has run for a whole self-test and was found healthy, with the sequence of the record that marked it.
    tested: Option<(u32, Image)>,
    /// The record that counted when it was looked at last.
    last: Option<BootRecord>,
    /// Its images are those of the file of its number.
    files: Arc<[PreparedFile]>,
    number: usize,
}

impl Plant {
    pub(crate) fn new(
        ground: &Ground,
        disk: &Disk,
        prepared: &Prepared,
        invariants: Vec<Box<dyn Invariant>>,
        settle_ms: u64,
    ) -> Self {
        let targets = (0..prepared.files.len()).map(|number| {
            let mut target = Target::new(ground, disk, prepared, number, settle_ms);
            target.lay_down();
            target
        });
        Self(Arc::new(Mutex::new(Inner {
            ground: ground.clone(),
            targets: targets.collect(),
            known: prepared.known.clone(),
            invariants,
            findings: Findings::default(),
            health: prepared.scenario.health,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().targets.len()
    }

    pub(crate) fn name(&self, target: usize) -> String {
        self.lock().targets[target].name.clone()
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.lock().targets.iter().position(|t| t.name == name)
    }

    /// Let the invariants look at something.
    pub(crate) fn judge(&self, look: impl FnOnce(&mut [Box<dyn Invariant>], &mut Findings)) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        look(&mut inner.invariants, &mut inner.findings);
    }

    pub(crate) fn take_findings(&self) -> Findings {
        std::mem::take(&mut self.lock().findings)
    }

    /// The regions of a target as its plugin is lent them: watched, and ailing as the scenario says.
    pub(crate) fn regions(&self, target: usize, spells: &[Spell]) -> [Arc<dyn Storage>; 4] {
        let inner = self.lock();
        let Target {
            slots,
            record,
            tries,
            ..
        } = &inner.targets[target];
        let watched = |region: &Region, what| -> Arc<dyn Storage> {
            let watched = Watched {
                region: region.clone(),
                plant: self.clone(),
                target,
                what,
            };
            if spells.is_empty() {
                return Arc::new(watched);
            }
            Arc::new(AilingRegion {
                place: region.place.clone(),
                ailing: Ailing {
                    inner: watched,
                    ground: inner.ground.clone(),
                    spells: spells.to_vec(),
                },
            })
        };
        [
            watched(&slots[0], What::Slot(0)),
            watched(&slots[1], What::Slot(1)),
            watched(record, What::Record),
            Arc::new(tries.clone()),
        ]
    }

    /// Let the launcher of a target start something, which is what it is. An error is a cut.
    pub(crate) fn launch(
        &self,
        target: usize,
        state: &FileStateDir<DiskFiles>,
    ) -> io::Result<Option<Quality>> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let at_ms = inner.ground.now_ms();
        let place = &mut inner.targets[target];
        place.note_test(at_ms);
        // Whoever starts something has ended what ran.
        place.running = None;
        let chosen = place.choose(state)?;
        let sequence = place.last.map_or(0, |record| record.sequence);
        place.running = chosen.map(|image| Running {
            image,
            sequence,
            since_ms: at_ms,
        });
        place.healthy = !inner.health;
        let launch = Launch {
            target,
            at_ms,
            started: chosen,
        };
        for invariant in &mut inner.invariants {
            invariant.on_launch(&launch, &mut inner.findings);
        }
        Ok(chosen.map(|image| {
            inner.ground.note(|| Event::Launched {
                target: place.name.clone(),
                slot: image.slot,
            });
            let known = inner.known.get(&image.sha256);
            known.map_or(Quality::NeverStarts, |known| known.quality)
        }))
    }

    /// The operator's health check: what it says of what runs.
    pub(crate) fn check_health(&self, target: usize) -> bool {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let target = &mut inner.targets[target];
        let known = target
            .running
            .and_then(|running| inner.known.get(&running.image.sha256));
        target.healthy = known.is_some_and(|known| known.quality != Quality::Unhealthy);
        target.healthy
    }

    pub(crate) fn running(&self, target: usize) -> Option<Running> {
        self.lock().targets[target].running
    }

    /// The boot record of a target, if one can be read.
    pub(crate) fn record(&self, target: usize) -> Option<BootRecord> {
        self.lock().targets[target].read()
    }

    /// Whether a target runs what is confirmed, and nothing is to be tried.
    pub(crate) fn runs_confirmed(&self, target: usize) -> bool {
        let inner = self.lock();
        let target = &inner.targets[target];
        let Some(record) = target.read() else {
            return false;
        };
        let armed = matches!(record.next, Next::Armed(_)) && !target.went_back(&record);
        let runs = target.running.map(|running| running.image);
        !armed && runs == Some(record.confirmed)
    }

    /// The power has gone and come back: look at what the medium holds.
    pub(crate) fn look_after_cut(&self) {
        let mut inner = self.lock();
        let at_ms = inner.ground.now_ms();
        for target in 0..inner.targets.len() {
            inner.targets[target].note_test(at_ms);
            inner.targets[target].running = None;
            inner.look(target, true);
        }
    }
}

impl Inner {
    /// Compare a boot record with what it was.
    fn look(&mut self, number: usize, by_cut: bool) {
        let at_ms = self.ground.now_ms();
        let target = &mut self.targets[number];
        target.note_test(at_ms);
        let after = target.read();
        let before = std::mem::replace(&mut target.last, after);
        if before == after && !by_cut {
            return;
        }
        let images = after.into_iter().flat_map(|record| {
            let next = match record.next {
                Next::Armed(image) => Some(image),
                Next::None | Next::Rejected(_) => None,
            };
            [Some(record.confirmed), next].into_iter().flatten()
        });
        let digests: Vec<_> = images.map(|image| (image, target.digest(&image))).collect();
        let digest = |image: &Image| {
            let found = digests.iter().find(|(known, _)| known == image);
            found.map_or([0; 32], |(_, digest)| *digest)
        };
        let change = RecordChange {
            target: number,
            at_ms,
            before,
            after,
            by_cut,
            went_back: after.is_some_and(|record| target.went_back(&record)),
            digest: &digest,
            known: &self.known,
            tested: target.tested,
        };
        for invariant in &mut self.invariants {
            invariant.on_record(&change, &mut self.findings);
        }
    }

    fn slot_changes(&mut self, number: usize, slot: u8) {
        let target = &self.targets[number];
        let change = SlotChange {
            target: number,
            at_ms: self.ground.now_ms(),
            slot,
            record: target.last,
            running: target.running,
        };
        for invariant in &mut self.invariants {
            invariant.on_slot(&change, &mut self.findings);
        }
    }
}

impl Target {
    fn new(
        ground: &Ground,
        disk: &Disk,
        prepared: &Prepared,
        number: usize,
        settle_ms: u64,
    ) -> Self {
        let name = if number == 0 {
            "app".to_owned()
        } else {
            format!("part-{number}")
        };
        let region = |what: &str, capacity| Region {
            ground: ground.clone(),
            disk: disk.clone(),
            node: disk.region(),
            place: format!("{name}/{what}"),
            capacity,
        };
        Self {
            disk: disk.clone(),
            slots: [region("slot-a", SLOT_BYTES), region("slot-b", SLOT_BYTES)],
            record: region("record", REGION_BYTES),
            tries: region("tries", REGION_BYTES),
            running: None,
            healthy: false,
            settle_ms,
            tested: None,
            last: None,
            files: Arc::clone(&prepared.files),
            number,
            name,
        }
    }

    /// What `otad target init` leaves on the medium: an image in slot a, and both copies of a record that confirm it.
    fn lay_down(&mut self) {
        let old = self.files[self.number].old();
        self.disk.fill(self.slots[0].node, &old.bytes);
        let record = |sequence| BootRecord {
            sequence,
            confirmed: Image {
                slot: 0,
                length: old.bytes.len() as u64,
                sha256: old.sha256,
            },
            next: Next::None,
            tag: 0,
        };
        let mut bytes = record(1).encode();
        bytes.resize(SECOND_AT as usize, 0xff);
        bytes.extend(record(2).encode());
        self.disk.fill(self.record.node, &bytes);
        self.last = Some(record(2));
    }

    /// Whether what runs has passed a self-test: by now, or before it was started anew under the same record.
    fn note_test(&mut self, now_ms: u64) {
        if let Some(running) = self.running
            && self.healthy
            && now_ms >= running.since_ms + self.settle_ms
        {
            self.tested = Some((running.sequence, running.image));
        }
    }

    fn stored<R: Doubled>(region: &Region) -> Stored<R> {
        region.disk.with(region.node, boot::read)
    }

    fn read(&self) -> Option<BootRecord> {
        match Self::stored(&self.record) {
            Stored::Valid(record, _) => Some(record),
            Stored::Blank | Stored::Damaged => None,
        }
    }

    fn went_back(&self, record: &BootRecord) -> bool {
        match Self::stored::<Tries>(&self.tries) {
            Stored::Valid(tries, _) => {
                tries.record_sequence == record.sequence && tries.started == record.confirmed.slot
            }
            Stored::Blank | Stored::Damaged => false,
        }
    }

    /// SHA-256 of the beginning of a slot that an image says it has.
    fn digest(&self, image: &Image) -> [u8; 32] {
        let region = &self.slots[usize::from(image.slot)];
        let length = usize::try_from(image.length).unwrap_or(usize::MAX);
        region.disk.with(region.node, |bytes| {
            self.files[self.number].digest(&bytes[..length.min(bytes.len())])
        })
    }

    /// Choose as the launcher does, and write down what.
    fn choose(&self, state: &FileStateDir<DiskFiles>) -> io::Result<Option<Image>> {
        let Some(record) = self.read() else {
            return Ok(None);
        };
        let (last, copy) = match Self::stored::<Tries>(&self.tries) {
            Stored::Valid(tries, copy) => (Some(tries), copy),
            Stored::Blank | Stored::Damaged => (None, 1),
        };
        let now = last.filter(|tries| tries.record_sequence == record.sequence);
        let used = now.map_or(0, |tries| tries.used);
        let went_back = now.is_some_and(|tries| tries.started == record.confirmed.slot);
        let in_test = match record.next {
            Next::Armed(image) if used < TRIES_MAX && !went_back => Some(image),
            Next::Armed(_) | Next::None | Next::Rejected(_) => None,
        };
        let in_test = in_test.filter(|image| self.may_start(state, image));
        let chosen = in_test.unwrap_or(record.confirmed);
        let tries = Tries {
            sequence: last.map_or(1, |tries| tries.sequence.wrapping_add(1)),
            record_sequence: record.sequence,
            used: used + u32::from(in_test.is_some()),
            started: chosen.slot,
        };
        let same = last.is_some_and(|last| {
            Tries {
                sequence: last.sequence,
                ..tries
            } == last
        });
        if !same {
            let at = SECOND_AT * (1 - copy as u64);
            self.tries.write_at(at, &tries.encode())?;
            self.tries.sync()?;
        }
        Ok(Some(chosen).filter(|image| self.may_start(state, image)))
    }

    /// An image that has the recorded digest and that the host has verified.
    fn may_start(&self, state: &FileStateDir<DiskFiles>, image: &Image) -> bool {
        self.digest(image) == image.sha256
            && verified_record::contains(state, THING, &self.name, &image.sha256).unwrap_or(false)
    }
}

/// What a watched region is.
#[derive(Clone, Copy)]
enum What {
    Slot(u8),
    Record,
}

/// A region whose changes the invariants see.
struct Watched {
    region: Region,
    plant: Plant,
    target: usize,
    what: What,
}

impl Watched {
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if let What::Slot(slot) = self.what
            && self.region.ground.is_off().is_none()
        {
            self.plant.lock().slot_changes(self.target, slot);
        }
        let end = change();
        if let What::Record = self.what {
            self.plant.lock().look(self.target, false);
        }
        end
    }
}

impl Storage for Watched {
    fn capacity(&self) -> u64 {
        self.region.capacity()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.region.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|| self.region.write_at(offset, data))
    }
    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        self.change(|| self.region.erase(offset, length))
    }
    fn sync(&self) -> io::Result<()> {
        self.region.sync()
    }
    fn evict(&self) -> io::Result<()> {
        self.region.evict()
    }
}
