//! What a plugin is lent in a case: regions in memory with a page cache, the host's locks, and troubles that a script asks
//! for; a line, and what is at its other end.
//!
//! What was written and not synced is lost, kept or torn when the power fails. A write where none is allowed is refused
//! as the host refuses it (0xdc), and noted: a plugin that tries has a defect, whatever it makes of the refusal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_mcu_sim::MS;
use host_mcu_sim::fault::Rule;
use host_runtime::plugin::Extent;
use host_runtime::plugin::lend::{
    BlockDevice, HardwareReset, LineParameters, Region, SerialLine, StagedImage, TRANSFER_MAX_BYTES,
};
use host_runtime::ports::clock::Clock;
use host_runtime::ports::workers::Wake;
use host_runtime::types::{Failure, code};

use super::board::{Board, Breed, Standing};
use crate::random::Random;

/// What is left of unsynced writes after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survivors {
    /// All of them.
    All,
    /// None.
    None,
    /// Of the last write the first half, of earlier ones nothing.
    Torn,
    /// Of the last write all, of earlier ones nothing.
    Last,
}

/// Lent calls that can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Read,
    Write,
    Erase,
    Sync,
    Regions,
}

/// What is at the other end of the serial line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Far {
    /// Nothing comes.
    #[default]
    Silent,
    /// The line itself is gone.
    Unplugged,
    /// Bytes that mean nothing.
    Noise,
    /// The MCU of [`Device::attach`].
    Mcu,
}

/// A trouble that a script asked for.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) verb: Verb,
    pub(super) failure: Failure,
    /// Calls of that kind that go well before.
    pub(super) after: u32,
    /// Calls that fail, `u32::MAX` = all from then on.
    pub(super) count: u32,
    /// The first half of the bytes is written all the same.
    pub(super) torn: bool,
}

/// Time by hand.
#[derive(Debug, Default)]
pub(super) struct Hands(AtomicU64);

impl Hands {
    pub(super) fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn wall_s(&self) -> Option<u64> {
        None
    }
}

/// One region with its bytes.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) region: Region,
    /// As a reader sees it.
    pub(super) bytes: Vec<u8>,
    /// As it is after a power cut that nothing survives.
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Store {
    pub(super) fn new(name: &str, kind: u8, size: usize) -> Self {
        let region = Region {
            name: name.to_owned(),
            kind,
            size: size as u64,
            erase_size: 1,
            write_size: 1,
            read_only: false,
        };
        Self {
            region,
            bytes: vec![0xff; size],
            durable: vec![0xff; size],
            unsynced: Vec::new(),
        }
    }

    /// Puts bytes there behind the plugin's back, durably.
    pub(super) fn place(&mut self, at: usize, data: &[u8]) {
        for store in [&mut self.bytes, &mut self.durable] {
            if let Some(place) = store.get_mut(at..at + data.len()) {
                place.copy_from_slice(data);
            }
        }
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.durable.clone_from(&self.bytes);
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.unsynced.push((at, data.to_vec()));
    }

    fn power_off(&mut self, survivors: Survivors) {
        let mut writes = std::mem::take(&mut self.unsynced);
        let last = writes.pop();
        if survivors == Survivors::All {
            for (at, data) in writes {
                self.durable[at..at + data.len()].copy_from_slice(&data);
            }
        }
        if let Some((at, data)) = last {
            let kept = match survivors {
                Survivors::All | Survivors::Last => data.len(),
                Survivors::Torn => data.len() / 2,
                Survivors::None => 0,
            };
            self.durable[at..at + kept].copy_from_slice(&data[..kept]);
        }
        self.bytes.clone_from(&self.durable);
    }
}

/// What may be written now.
#[derive(Clone, Debug, Default)]
pub(super) enum Allowed {
    /// Nothing.
    #[default]
    Nothing,
    /// The transfer's extents.
    Blocks(Vec<Extent>),
    /// Records.
    Records,
}

/// Everything that is lent, and what the plugin did with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    pub(super) stores: Vec<Store>,
    pub(super) allowed: Allowed,
    pub(super) troubles: Vec<Trouble>,
    pub(super) mistakes: Vec<String>,
    /// Lent calls since it was set to 0, also refused ones.
    pub(super) calls: u32,
    /// Of those, calls that leave a mark: writes, erases, syncs.
    pub(super) marks: u32,
    /// Bytes read, written and erased since it was set to 0.
    pub(super) moved: u64,
    /// The power fails at the mark of this number.
    pub(super) cut_at: Option<u32>,
    /// There is no power.
    pub(super) dark: bool,
    /// Virtual milliseconds that each call takes.
    pub(super) slow_ms: u64,
    /// The staged file, how much of it is there, and whether it is verified.
    pub(super) staged: Vec<u8>,
    pub(super) held: u64,
    pub(super) verified: bool,
    pub(super) far: Far,
    noise: Option<Random>,
}

impl Shelf {
    /// Power off and on again: what was not synced is gone, as the survivors say.
    pub(super) fn power_cycle(&mut self, survivors: Survivors) {
        for store in &mut self.stores {
            store.power_off(survivors);
        }
        self.dark = false;
        self.cut_at = None;
    }

    pub(super) fn store(&mut self, name: &str) -> Option<&mut Store> {
        let mut stores = self.stores.iter_mut();
        stores.find(|store| store.region.name == name)
    }

    /// The bytes at an extent, if it lies in a region.
    pub(super) fn at(&self, extent: &Extent) -> Option<&[u8]> {
        let store = self.stores.get(usize::try_from(extent.region).ok()?)?;
        let start = usize::try_from(extent.offset).ok()?;
        let length = usize::try_from(extent.length).ok()?;
        store.bytes.get(start..start.checked_add(length)?)
    }

    /// Whether a call fails as the script has it; `Some(torn)` for one that does.
    fn trouble(&mut self, verb: Verb) -> Option<(Failure, bool)> {
        let trouble = self.troubles.iter_mut().find(|t| t.verb == verb)?;
        if trouble.after > 0 {
            trouble.after -= 1;
            return None;
        }
        if trouble.count == 0 {
            return None;
        }
        if trouble.count != u32::MAX {
            trouble.count -= 1;
        }
        Some((trouble.failure.clone(), trouble.torn))
    }

    /// The beginning of each call.
    fn enter(&mut self, mark: bool, bytes: u64) -> Result<(), Failure> {
        self.calls += 1;
        self.moved += bytes;
        if self.dark {
            return Err(Failure::new(code::STORAGE, 5, "there is no power"));
        }
        if mark {
            self.marks += 1;
            if self.cut_at == Some(self.marks) {
                self.dark = true;
            }
        }
        Ok(())
    }

    /// The line, as far as it is there.
    fn line(&mut self) -> Result<(), Failure> {
        self.calls += 1;
        match self.far {
            Far::Unplugged => Err(Failure::new(code::UNREACHABLE, 1, "the line is unplugged")),
            Far::Silent | Far::Noise | Far::Mcu => Ok(()),
        }
    }

    fn range(&self, region: u32, offset: u64, length: u64) -> Result<(usize, usize), Failure> {
        let bad = |what: &str| Failure::new(code::BAD_ARGUMENT, 0, what);
        let at = usize::try_from(region).unwrap_or(usize::MAX);
        let store = self.stores.get(at).ok_or_else(|| bad("no such region"))?;
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > store.region.size) {
            return Err(bad("beyond the end of the region"));
        }
        Ok((at, usize::try_from(offset).unwrap_or(0)))
    }

    /// Whether bytes may be written there now.
    fn permit(&mut self, region: u32, at: usize, offset: u64, length: u64) -> Result<(), Failure> {
        let store = &self.stores[at].region;
        let inside = |extent: &Extent| {
            extent.region == region
                && offset >= extent.offset
                && offset + length <= extent.offset + extent.length
        };
        let ok = match (&self.allowed, store.kind) {
            _ if store.read_only => false,
            (Allowed::Blocks(extents), 0) => extents.iter().any(inside),
            (Allowed::Records, 1) => true,
            _ => false,
        };
        if ok {
            return Ok(());
        }
        let name = store.name.clone();
        self.mistakes.push(format!(
            "writes to region {name} at {offset}+{length}, where nothing may be written now"
        ));
        Err(Failure::new(code::BUSY, 0, "not to be written now"))
    }
}

/// The device as a plugin sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    shelf: Arc<Mutex<Shelf>>,
    board: Arc<Mutex<Option<Board>>>,
    pub(super) clock: Arc<Hands>,
}

impl Device {
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the MCU, if there is one, now.
    fn board<R>(&self, act: impl FnOnce(&mut Board, u64) -> R) -> Option<R> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let board = board.as_mut()?;
        Some(act(board, self.clock.now_ms() * MS))
    }

    /// Puts an MCU at the other end of the line, unless one is there. What that one has sent while the line led elsewhere
    /// is lost.
    pub(super) fn attach(&self, breed: Breed) -> Result<(), host_mcu_sim::Error> {
        let far = std::mem::replace(&mut self.shelf().far, Far::Mcu);
        let lost = |board: &mut Board, now_ns: u64| {
            if far != Far::Mcu {
                board.news(now_ns).clear();
            }
        };
        if self.board(lost).is_some() {
            return Ok(());
        }
        let made = Board::new(breed)?;
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(())
    }

    /// The MCU loses its power, and has it back at once.
    pub(super) fn cut_mcu(&self) {
        self.board(Board::power_cut);
    }

    /// Something goes wrong at one of the MCU's next requests.
    pub(super) fn spoil_mcu(&self, rule: Rule) {
        self.board(|board, _| board.spoil(rule));
    }

    /// What the MCU's bootloader would do.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.board(Board::standing)
    }

    /// Lets up to so many milliseconds pass; on input no more than until something comes from the MCU.
    pub(super) fn sleep(&self, ms: u64, on_input: bool) {
        let until = self.clock.now_ms() + ms;
        let on_input = on_input && self.shelf().far == Far::Mcu;
        while let Some(left) = until.checked_sub(self.clock.now_ms())
            && left > 0
            && !(on_input && self.board(Board::wakes) == Some(true))
        {
            let next = self.board(Board::next_ms).flatten();
            self.clock
                .pass(next.map_or(left, |next| next.clamp(1, left)));
        }
    }

    /// The shelf, after the time that a call takes.
    fn call(&self) -> MutexGuard<'_, Shelf> {
        let shelf = self.shelf();
        self.clock.pass(shelf.slow_ms);
        shelf
    }
}

fn too_long(length: u64) -> Result<(), Failure> {
    if length > u64::from(TRANSFER_MAX_BYTES) {
        return Err(Failure::new(
            code::BAD_ARGUMENT,
            0,
            "more than 131072 bytes in one call",
        ));
    }
    Ok(())
}

impl BlockDevice for Device {
    fn regions(&self) -> Vec<Region> {
        let mut shelf = self.call();
        shelf.calls += 1;
        if shelf.trouble(Verb::Regions).is_some() {
            return Vec::new();
        }
        shelf
            .stores
            .iter()
            .map(|store| store.region.clone())
            .collect()
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let mut shelf = self.call();
        shelf.enter(false, length.into())?;
        too_long(length.into())?;
        let (at, start) = shelf.range(region, offset, length.into())?;
        if let Some((failure, _)) = shelf.trouble(Verb::Read) {
            return Err(failure);
        }
        let length = usize::try_from(length).unwrap_or(0);
        Ok(shelf.stores[at].bytes[start..start + length].to_vec())
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let mut shelf = self.call();
        let length = data.len() as u64;
        too_long(length)?;
        let (at, start) = shelf.range(region, offset, length)?;
        shelf.enter(true, length)?;
        let unit = u64::from(shelf.stores[at].region.write_size);
        if !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) {
            return Err(Failure::new(code::BAD_ARGUMENT, 0, "not on the write unit"));
        }
        shelf.permit(region, at, offset, length)?;
        if let Some((failure, torn)) = shelf.trouble(Verb::Write) {
            if torn {
                shelf.stores[at].write(start, &data[..data.len() / 2]);
            }
            return Err(failure);
        }
        shelf.stores[at].write(start, data);
        if shelf.dark {
            return Err(Failure::new(code::STORAGE, 5, "the power failed"));
        }
        Ok(())
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        let mut shelf = self.call();
        let (at, start) = shelf.range(region, offset, length)?;
        shelf.enter(true, length)?;
        let unit = u64::from(shelf.stores[at].region.erase_size);
        if !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) {
            return Err(Failure::new(code::BAD_ARGUMENT, 0, "not on the erase unit"));
        }
        shelf.permit(region, at, offset, length)?;
        if let Some((failure, _)) = shelf.trouble(Verb::Erase) {
            return Err(failure);
        }
        let blank = vec![0xff; usize::try_from(length).unwrap_or(0)];
        shelf.stores[at].write(start, &blank);
        Ok(())
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        let mut shelf = self.call();
        let (at, _) = shelf.range(region, 0, 0)?;
        shelf.enter(true, 0)?;
        if shelf.dark {
            return Err(Failure::new(code::STORAGE, 5, "the power failed"));
        }
        if let Some((failure, _)) = shelf.trouble(Verb::Sync) {
            return Err(failure);
        }
        shelf.stores[at].sync();
        Ok(())
    }
}

impl StagedImage for Device {
    fn held(&self) -> u64 {
        self.call().held
    }

    fn verified(&self) -> bool {
        self.call().verified
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let mut shelf = self.call();
        shelf.enter(false, length.into())?;
        too_long(length.into())?;
        let end = offset.checked_add(length.into());
        if end.is_none_or(|end| end > shelf.held) {
            return Err(Failure::new(code::NOT_FOUND, 0, "not there yet"));
        }
        if let Some((failure, _)) = shelf.trouble(Verb::Read) {
            return Err(failure);
        }
        let start = usize::try_from(offset).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(0);
        Ok(shelf.staged[start..start + length].to_vec())
    }
}

/// Most bytes of noise that one read gives: a line of 115,200 bits a second has so many in 5 ms.
const NOISE_BYTES: usize = 64;

impl SerialLine for Device {
    fn open(&self, _: &LineParameters, _: Wake) -> Result<(), Failure> {
        self.call().line()
    }

    fn write(&self, data: &[u8]) -> Result<u32, Failure> {
        let mut shelf = self.call();
        shelf.line()?;
        // An MCU that was there before hears nothing on a line that leads elsewhere now.
        if shelf.far == Far::Mcu {
            self.board(|board, now_ns| board.receive(now_ns, data));
        }
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }

    fn read(&self, max: u32) -> Result<Vec<u8>, Failure> {
        let mut shelf = self.call();
        shelf.line()?;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Ok(match shelf.far {
            Far::Silent | Far::Unplugged => Vec::new(),
            Far::Noise => {
                let noise = shelf.noise.get_or_insert_with(|| Random::new(7));
                noise.bytes(NOISE_BYTES.min(max))
            }
            Far::Mcu => {
                let read = self.board(|board, now_ns| {
                    let news = board.news(now_ns);
                    news.drain(..news.len().min(max)).collect()
                });
                read.unwrap_or_default()
            }
        })
    }

    fn unsent(&self) -> Result<u32, Failure> {
        self.call().line()?;
        Ok(0)
    }

    fn drain(&self) -> Result<(), Failure> {
        self.call().line()?;
        self.board(|board, now_ns| board.news(now_ns).clear());
        Ok(())
    }

    fn set_line(&self, _: Option<bool>, _: Option<bool>, _: Option<bool>) -> Result<(), Failure> {
        self.call().line()
    }

    fn close(&self) {}

    fn has_news(&self) -> bool {
        let far = self.shelf().far;
        match far {
            Far::Silent | Far::Unplugged => false,
            Far::Noise => true,
            Far::Mcu => self.board(|board, now_ns| !board.news(now_ns).is_empty()) == Some(true),
        }
    }
}

impl HardwareReset for Device {
    fn pulse(&self, _: u32) -> Result<(), Failure> {
        self.call().calls += 1;
        self.board(Board::reset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "List the images", as a console line.
    const LIST: &[u8] = b"\x06\tAAsAAAABAAEAAKCG/g==\n";

    #[test]
    fn what_an_mcu_sends_while_the_line_leads_elsewhere_is_lost() {
        let device = Device::default();
        device.attach(Breed::Sound).unwrap();
        device.clock.pass(2000);
        SerialLine::drain(&device).unwrap();
        for (far, answers) in [
            (Far::Mcu, true),
            (Far::Silent, false),
            (Far::Unplugged, false),
        ] {
            SerialLine::write(&device, LIST).unwrap();
            device.shelf().far = far;
            device.sleep(1000, false);
            device.attach(Breed::Sound).unwrap();
            let read = SerialLine::read(&device, 4096).unwrap();
            assert_eq!(!read.is_empty(), answers, "{far:?}");
        }
    }

    #[test]
    fn what_is_written_on_a_line_that_leads_elsewhere_reaches_no_mcu() {
        let device = Device::default();
        device.attach(Breed::Sound).unwrap();
        device.clock.pass(2000);
        SerialLine::drain(&device).unwrap();
        for (far, answers) in [(Far::Silent, false), (Far::Mcu, true)] {
            device.shelf().far = far;
            SerialLine::write(&device, LIST).unwrap();
            device.shelf().far = Far::Mcu;
            device.sleep(1000, false);
            let read = SerialLine::read(&device, 4096).unwrap();
            assert_eq!(!read.is_empty(), answers, "{far:?}");
        }
    }
}
