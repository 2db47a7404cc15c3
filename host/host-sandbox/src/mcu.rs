//! Secondary MCUs of a simulated gateway: `host-mcu-sim`'s, behind lines in the world's own time, with staging on its disk.
//!
//! What the process writes to a line is a call like any other: it is counted and may be cut. The MCUs stand outside of the
//! process: they go on when it is killed, and lose their power by themselves ([`McuCut`]) or together with the gateway
//! ([`Options::shared_power`](crate::Options::shared_power)). Lines take no time and lose nothing here; what goes wrong
//! on a line is judged in `tests/secondary`.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_mcu_sim::{Config, CutPoint, Geometry, MS, Mcu, State, Timing};
use host_runtime::plugin::lend::{HardwareReset, LineParameters, SerialLine};
use host_runtime::ports::storage::Storage;
use host_runtime::ports::workers::Wake;
use host_runtime::target::StorageFactory;
use host_runtime::types::{Failure, code};

use crate::disk::{Disk, NodeId};
use crate::ground::{Call, Extent, Ground, Verb};
use crate::scenario::{NEW_VERSION, OLD_VERSION, Prepared};
use crate::store::Region;

/// When an MCU loses its power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McuInstant {
    /// Just before it gets what the gateway writes to its line for this time, from 1.
    Write(u64),
    /// In the middle of this operation of its flash, from 1: upload, mark, swap and confirmation.
    Flash(u64),
}

/// An MCU's power goes, and comes back at once; everybody else keeps theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McuCut {
    /// Which of the scenario's, from 0.
    pub mcu: usize,
    /// When.
    pub at: McuInstant,
}

impl fmt::Display for McuCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            McuInstant::Write(n) => write!(f, "mcu {} before write #{n}", self.mcu),
            McuInstant::Flash(n) => write!(f, "mcu {} in flash operation #{n}", self.mcu),
        }
    }
}

/// What an MCU went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct McuTally {
    /// Writes to its line.
    pub writes: u64,
    /// Operations of its flash.
    pub flash_operations: u64,
    /// Power cuts and hardware resets.
    pub cuts: u64,
}

/// Flash that is small and takes its time, so that a swap can be watched.
const SECTOR_BYTES: u32 = 1024;
const SPARE_BYTES: u32 = 8 * SECTOR_BYTES;
const ERASE_NS: u64 = 20 * MS;

/// Longest time from a cut or reset to a server that answers: two swaps of the largest slot here.
const SETTLED_MS: u64 = 10_000;

/// `sub` of 0xd4 for a line that is not open.
const NOT_OPEN: u32 = 1;

/// The MCUs of a world. Clones are the same.
#[derive(Clone)]
pub(crate) struct Mcus(Arc<Vec<Arc<Place>>>);

/// One MCU, its line and where its files are staged.
struct Place {
    name: String,
    ground: Ground,
    disk: Disk,
    staging: NodeId,
    inner: Mutex<Inner>,
}

struct Inner {
    mcu: Mcu,
    input: Vec<u8>,
    open: bool,
    writes: u64,
    cut_at_write: Option<u64>,
}

impl Mcus {
    /// The MCUs of a scenario, each with its old image.
    ///
    /// # Panics
    /// If the scenario's images are none.
    pub(crate) fn new(ground: &Ground, disk: &Disk, prepared: &Prepared, cuts: &[McuCut]) -> Self {
        let images = prepared.mcus.iter().zip(&prepared.scenario.mcus);
        let places = images.enumerate().map(|(number, (file, mcu))| {
            let largest = file
                .images
                .iter()
                .map(|image| image.bytes.len())
                .max()
                .unwrap_or(0);
            let largest = u32::try_from(largest).unwrap_or(u32::MAX);
            let slot_bytes = largest.next_multiple_of(SECTOR_BYTES) + SPARE_BYTES;
            let geometry = Geometry::new(SECTOR_BYTES, slot_bytes, 1);
            let mut config = Config::new(geometry.expect("whole sectors"));
            config.timing = Timing::instant();
            config.timing.flash.erase_sector_ns = ERASE_NS;
            config.factory.primary = vec![file.old().bytes.to_vec()];
            config.behaviours = vec![(NEW_VERSION.to_owned(), mcu.behaviour)];
            config.seed = number as u64 + 1;
            let mut inner = Inner {
                mcu: Mcu::new(config).expect("an image that fits"),
                input: Vec::new(),
                open: false,
                writes: 0,
                cut_at_write: None,
            };
            for cut in cuts.iter().filter(|cut| cut.mcu == number) {
                match cut.at {
                    McuInstant::Write(write) => inner.cut_at_write = Some(write),
                    McuInstant::Flash(count) => inner.mcu.plan_cut(count, CutPoint::Within),
                }
            }
            Arc::new(Place {
                name: format!("mcu-{}", number + 1),
                ground: ground.clone(),
                disk: disk.clone(),
                staging: disk.region(),
                inner: Mutex::new(inner),
            })
        });
        Self(Arc::new(places.collect()))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn name(&self, number: usize) -> String {
        self.0[number].name.clone()
    }

    /// What a target is lent of an MCU.
    pub(crate) fn lend(&self, number: usize) -> (Arc<dyn SerialLine>, Arc<dyn HardwareReset>) {
        let wire = Wire(Arc::clone(&self.0[number]));
        (Arc::new(wire.clone()), Arc::new(wire))
    }

    pub(crate) fn staging(&self, number: usize) -> Arc<dyn StorageFactory> {
        Arc::new(Staging(Arc::clone(&self.0[number])))
    }

    /// The process has ended: its lines are closed.
    pub(crate) fn close(&self) {
        for place in self.0.iter() {
            place.inner().open = false;
        }
    }

    /// All of them lose their power with the gateway.
    pub(crate) fn cut_power(&self) {
        for place in self.0.iter() {
            let now_ns = place.now_ns();
            place.inner().mcu.power_cut(now_ns);
        }
    }

    /// When one of them does something by itself, in milliseconds from the world's beginning; what is due has been done.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let at_ns = self.0.iter().filter_map(|place| {
            let now_ns = place.now_ns();
            let mut inner = place.inner();
            inner.mcu.advance(now_ns);
            inner.mcu.deadline_ns().filter(|at| *at > now_ns)
        });
        at_ns.min().map(|at| at.div_ceil(MS))
    }

    pub(crate) fn tallies(&self) -> Vec<McuTally> {
        let tally = |place: &Arc<Place>| {
            let inner = place.inner();
            let view = inner.mcu.view();
            McuTally {
                writes: inner.writes,
                flash_operations: view.flash.erases + view.flash.writes,
                cuts: view.stats.cuts,
            }
        };
        self.0.iter().map(tally).collect()
    }

    /// How they stand at the end: whether each has confirmed its new image (`None` = neither, or nothing runs), and whether
    /// what runs is what is confirmed, and nothing else is marked.
    pub(crate) fn at_rest(&self) -> Vec<(Option<bool>, bool)> {
        let stand = |place: &Arc<Place>| {
            let end_ns = place.now_ns() + SETTLED_MS * MS;
            let mut inner = place.inner();
            inner.mcu.advance(end_ns);
            let view = inner.mcu.view();
            let confirmed = view.slots.iter().find(|slot| slot.is_confirmed);
            let confirmed = confirmed.filter(|slot| inner.mcu.is_whole(slot.image, slot.slot));
            let new = confirmed.and_then(|slot| match slot.version.as_str() {
                NEW_VERSION => Some(true),
                OLD_VERSION => Some(false),
                _ => None,
            });
            let runs = confirmed.is_some_and(|slot| slot.is_active)
                && view.slots.iter().all(|slot| !slot.is_pending)
                && view.state == State::Serving;
            (new, runs)
        };
        self.0.iter().map(stand).collect()
    }
}

impl Place {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        self.ground.now_ms() * MS
    }

    fn write(&self, data: &[u8]) {
        let now_ns = self.now_ns();
        let mut inner = self.inner();
        inner.writes += 1;
        if inner.cut_at_write == Some(inner.writes) {
            inner.mcu.power_cut(now_ns);
        }
        inner.mcu.receive(now_ns, data);
    }

    /// The line, if the process has it open, with what has arrived.
    fn opened(&self) -> Result<MutexGuard<'_, Inner>, Failure> {
        let now_ns = self.now_ns();
        let mut inner = self.inner();
        if !inner.open || self.ground.is_off().is_some() {
            return Err(Failure::new(code::UNREACHABLE, NOT_OPEN, "it is not open"));
        }
        let Inner { mcu, input, .. } = &mut *inner;
        mcu.transmit(now_ns, input);
        Ok(inner)
    }
}

/// The line of an MCU, and its reset input.
#[derive(Clone)]
struct Wire(Arc<Place>);

impl SerialLine for Wire {
    fn open(&self, _: &LineParameters, _: Wake) -> Result<(), Failure> {
        self.0.inner().open = true;
        self.drain()
    }

    fn write(&self, data: &[u8]) -> Result<u32, Failure> {
        drop(self.0.opened()?);
        let Place { ground, name, .. } = &*self.0;
        let call = Call {
            verb: Verb::Send,
            ..Call::write(name, 0, data)
        };
        let sent = ground.call(&call, |extent| {
            match extent {
                Extent::All => self.0.write(data),
                Extent::Part(random) => self.0.write(&data[..random.below_len(data.len() + 1)]),
            }
            Ok(())
        });
        sent.map_err(|error| Failure::new(code::UNREACHABLE, NOT_OPEN, error.to_string()))?;
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }

    fn read(&self, max: u32) -> Result<Vec<u8>, Failure> {
        let mut inner = self.0.opened()?;
        let count = inner.input.len().min(max as usize);
        Ok(inner.input.drain(..count).collect())
    }

    fn unsent(&self) -> Result<u32, Failure> {
        self.0.opened().map(|_| 0)
    }

    fn drain(&self) -> Result<(), Failure> {
        self.0.opened()?.input.clear();
        Ok(())
    }

    fn set_line(&self, _: Option<bool>, _: Option<bool>, _: Option<bool>) -> Result<(), Failure> {
        Err(Failure::new(code::UNSUPPORTED, 0, "no control lines"))
    }

    fn close(&self) {
        self.0.inner().open = false;
    }

    fn has_news(&self) -> bool {
        self.0.opened().is_ok_and(|inner| !inner.input.is_empty())
    }
}

impl HardwareReset for Wire {
    fn pulse(&self, _: u32) -> Result<(), Failure> {
        let Place { ground, name, .. } = &*self.0;
        let now_ns = self.0.now_ns();
        let pulsed = ground.call(&Call::new(Verb::Run, name), |_| {
            self.0.inner().mcu.hardware_reset(now_ns);
            Ok(())
        });
        pulsed.map_err(|error| Failure::new(code::UNREACHABLE, NOT_OPEN, error.to_string()))
    }
}

/// The staging file of an MCU's target.
struct Staging(Arc<Place>);

impl StorageFactory for Staging {
    fn open(&self, capacity: u64) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(Region {
            ground: self.0.ground.clone(),
            disk: self.0.disk.clone(),
            node: self.0.staging,
            place: format!("{}/staging", self.0.name),
            capacity,
        }))
    }

    fn remove(&self) -> io::Result<()> {
        let Place { disk, staging, .. } = &*self.0;
        self.0
            .ground
            .call(&Call::new(Verb::Remove, &self.0.name), |_| {
                disk.resize(*staging, 0);
                disk.sync(*staging);
                Ok(())
            })
    }
}
