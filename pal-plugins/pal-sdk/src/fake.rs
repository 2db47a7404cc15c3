//! What the host lends, for unit tests: everything in memory, time by hand, and power that fails where a test wants it.
//!
//! [`Fake`] is a handle; its clones share one [`World`], so a test keeps one and gives the other to the plugin. Power is
//! cut at a chosen lent call: from then on every call fails and changes nothing, and
//! [`World::power_on`] leaves of the unsynced writes what the cut says. Not a sandbox: it checks bounds, alignment and
//! write permission, and leaves order and budgets to `otad check`.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::failure::code;
use crate::lent::{
    BlockDevice, Clock, HardwareReset, Level, LineParameters, Log, Region, SerialLine, StagedImage,
};
use crate::{Failure, TRANSFER_MAX_BYTES};

/// What becomes of the writes that were not synced when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// None of them.
    Nothing,
    /// All of them, also the one that was under way.
    All,
    /// Of the last write the first so many bytes, and all before it.
    Head(usize),
    /// Of the last write all but the first so many bytes, and nothing before it.
    Tail(usize),
}

/// When the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// At the lent call of this number (its index in [`World::calls`]); a write or erase is under way then.
    pub at_call: usize,
    /// What is left of it.
    pub survivors: Survivors,
}

/// A lent call. Logging, the clock and questions about the staged file are not counted: nothing can happen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Of a region.
    Read(u32),
    /// To a region, so many bytes.
    Write(u32, usize),
    /// Of a region, so many bytes.
    Erase(u32, usize),
    /// Of a region.
    Sync(u32),
    /// Of the staged file.
    ReadStaged,
    /// Anything with the serial line.
    Line,
    /// The reset output.
    Pulse,
}

/// Everything that is lent, and what the plugin did with it.
#[derive(Debug, Default)]
pub struct World {
    /// Regions and their bytes.
    pub regions: Vec<FakeRegion>,
    /// The staged file so far.
    pub staged: Vec<u8>,
    /// Whether it is verified.
    pub staged_verified: bool,
    /// The clock.
    pub now_ms: u64,
    /// Lines logged.
    pub log: Vec<(Level, String)>,
    /// Bytes that the target has sent and the plugin has not read.
    pub line_input: VecDeque<u8>,
    /// Bytes that the plugin has sent.
    pub line_output: Vec<u8>,
    /// The line is there.
    pub line_plugged: bool,
    /// Bytes that the line takes before it is full; none = all.
    pub line_room: Option<usize>,
    /// Pulses of the reset output.
    pub resets: u32,
    /// Lent calls so far.
    pub calls: Vec<Call>,
    /// When the power fails, if it does.
    pub cut: Option<Cut>,
    /// Call that fails, and how.
    pub fault: Option<(usize, Failure)>,
    dark: bool,
}

/// One region and its bytes.
#[derive(Debug)]
pub struct FakeRegion {
    /// As the plugin sees it.
    pub region: Region,
    /// Whether the host takes writes now; others fail with 0xdc.
    pub writable: bool,
    /// As a reader sees it.
    pub bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl FakeRegion {
    /// An erased region.
    #[must_use]
    pub fn new(region: Region) -> Self {
        let bytes = vec![0xff; usize::try_from(region.size).unwrap_or(0)];
        Self {
            writable: !region.read_only,
            durable: bytes.clone(),
            bytes,
            unsynced: Vec::new(),
            region,
        }
    }

    /// Put bytes there behind the plugin's back, durably.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn place(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self.durable[offset..offset + data.len()].copy_from_slice(data);
    }

    fn power_off(&mut self, survivors: Survivors) {
        let mut writes = core::mem::take(&mut self.unsynced);
        let last = writes.pop();
        let keep_earlier = matches!(survivors, Survivors::All | Survivors::Head(_));
        for (at, data) in writes.into_iter().filter(|_| keep_earlier) {
            self.durable[at..at + data.len()].copy_from_slice(&data);
        }
        if let Some((at, data)) = last {
            let kept = match survivors {
                Survivors::Nothing => 0..0,
                Survivors::All => 0..data.len(),
                Survivors::Head(n) => 0..n.min(data.len()),
                Survivors::Tail(n) => n.min(data.len())..data.len(),
            };
            self.durable[at + kept.start..at + kept.end].copy_from_slice(&data[kept]);
        }
        self.bytes.clone_from(&self.durable);
    }
}

impl World {
    /// The region of that name.
    ///
    /// # Panics
    /// There is none.
    pub fn region(&mut self, name: &str) -> &mut FakeRegion {
        self.regions
            .iter_mut()
            .find(|r| r.region.name == name)
            .unwrap_or_else(|| panic!("no region `{name}`"))
    }

    /// Whether the power has failed.
    #[must_use]
    pub const fn is_dark(&self) -> bool {
        self.dark
    }

    /// The power is back: unsynced writes are gone as far as the cut says, and no other cut is planned.
    pub fn power_on(&mut self) {
        let survivors = self.cut.take().map_or(Survivors::All, |cut| cut.survivors);
        for region in &mut self.regions {
            region.power_off(survivors);
        }
        self.dark = false;
    }

    /// Counts a call and says whether the power fails during it.
    fn call(&mut self, call: Call) -> Result<bool, Failure> {
        if self.dark {
            return Err(no_power());
        }
        let number = self.calls.len();
        self.calls.push(call);
        if let Some((at, failure)) = &self.fault
            && *at == number
        {
            return Err(failure.clone());
        }
        self.dark = self.cut.is_some_and(|cut| cut.at_call == number);
        Ok(self.dark)
    }

    fn find(&mut self, region: u32) -> Result<&mut FakeRegion, Failure> {
        self.regions
            .get_mut(region as usize)
            .ok_or_else(|| Failure::bad_argument("unknown region"))
    }

    fn change(
        &mut self,
        call: Call,
        region: u32,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<(), Failure> {
        let dark = self.call(call)?;
        let region = self.find(region)?;
        if region.region.read_only || !region.writable {
            return Err(Failure::new(code::BUSY, 0, "not to be written now"));
        }
        let at = bounds(&region.region, offset, data.len() as u64)?;
        region.bytes[at..at + data.len()].copy_from_slice(&data);
        region.unsynced.push((at, data));
        if dark { Err(no_power()) } else { Ok(()) }
    }
}

fn no_power() -> Failure {
    Failure::new(code::UNREACHABLE, 0, "no power")
}

fn bounds(region: &Region, offset: u64, length: u64) -> Result<usize, Failure> {
    let end = offset.checked_add(length);
    if end.is_none_or(|end| end > region.size) {
        return Err(Failure::bad_argument("beyond the region"));
    }
    usize::try_from(offset).map_err(|_| Failure::bad_argument("beyond the region"))
}

/// A handle on a [`World`]; it implements all that can be lent.
#[derive(Clone, Debug, Default)]
pub struct Fake(Rc<RefCell<World>>);

impl Fake {
    /// A world with these regions and a serial line.
    #[must_use]
    pub fn new(regions: Vec<Region>) -> Self {
        Self(Rc::new(RefCell::new(World {
            regions: regions.into_iter().map(FakeRegion::new).collect(),
            line_plugged: true,
            ..World::default()
        })))
    }

    /// Look at the world, or change it.
    #[must_use]
    pub fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    fn read(&self) -> Ref<'_, World> {
        self.0.borrow()
    }
}

impl BlockDevice for Fake {
    fn regions(&self) -> Vec<Region> {
        self.read()
            .regions
            .iter()
            .map(|r| r.region.clone())
            .collect()
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let mut world = self.world();
        if world.call(Call::Read(region))? {
            return Err(no_power());
        }
        let region = world.find(region)?;
        if length > TRANSFER_MAX_BYTES {
            return Err(Failure::bad_argument("more than one call reads"));
        }
        let at = bounds(&region.region, offset, length.into())?;
        Ok(region.bytes[at..at + length as usize].to_vec())
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let mut world = self.world();
        let unit = u64::from(world.find(region)?.region.write_size.max(1));
        let aligned = offset.is_multiple_of(unit) && (data.len() as u64).is_multiple_of(unit);
        if !aligned || data.len() > TRANSFER_MAX_BYTES as usize {
            return Err(Failure::bad_argument("not a write this region takes"));
        }
        let call = Call::Write(region, data.len());
        world.change(call, region, offset, data.to_vec())
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        let mut world = self.world();
        let target = world.find(region)?;
        let unit = u64::from(target.region.erase_size.max(1));
        bounds(&target.region, offset, length)?;
        if !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) {
            return Err(Failure::bad_argument("not whole erase units"));
        }
        let length = usize::try_from(length).map_err(|_| Failure::bad_argument("too long"))?;
        let call = Call::Erase(region, length);
        world.change(call, region, offset, vec![0xff; length])
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        let mut world = self.world();
        let dark = world.call(Call::Sync(region))?;
        let region = world.find(region)?;
        if dark {
            return Err(no_power());
        }
        region.durable.clone_from(&region.bytes);
        region.unsynced.clear();
        Ok(())
    }
}

impl StagedImage for Fake {
    fn held(&self) -> u64 {
        self.read().staged.len() as u64
    }

    fn verified(&self) -> bool {
        self.read().staged_verified
    }

    fn read_staged(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let mut world = self.world();
        if world.call(Call::ReadStaged)? {
            return Err(no_power());
        }
        usize::try_from(offset)
            .ok()
            .and_then(|at| world.staged.get(at..at.checked_add(length as usize)?))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Failure::new(code::NOT_FOUND, 0, "not there yet"))
    }
}

impl Fake {
    fn line(&self) -> Result<RefMut<'_, World>, Failure> {
        let mut world = self.world();
        if world.call(Call::Line)? {
            return Err(no_power());
        }
        if world.line_plugged {
            Ok(world)
        } else {
            Err(Failure::new(code::UNREACHABLE, 1, "the line was unplugged"))
        }
    }
}

impl SerialLine for Fake {
    fn open_line(&self, _parameters: LineParameters) -> Result<(), Failure> {
        self.drain()
    }

    fn write_line(&self, data: &[u8]) -> Result<u32, Failure> {
        let mut world = self.line()?;
        let room = world.line_room.unwrap_or(usize::MAX);
        let taken = data.get(..room).unwrap_or(data);
        world.line_output.extend_from_slice(taken);
        world.line_room = world.line_room.map(|room| room - taken.len());
        u32::try_from(taken.len()).map_err(|_| Failure::bad_argument("too long"))
    }

    fn read_line(&self, max: u32) -> Result<Vec<u8>, Failure> {
        let mut world = self.line()?;
        let count = world.line_input.len().min(max as usize);
        Ok(world.line_input.drain(..count).collect())
    }

    fn unsent(&self) -> Result<u32, Failure> {
        self.line().map(|_| 0)
    }

    fn drain(&self) -> Result<(), Failure> {
        self.line()?.line_input.clear();
        Ok(())
    }

    fn set_line(
        &self,
        _dtr: Option<bool>,
        _rts: Option<bool>,
        _break_condition: Option<bool>,
    ) -> Result<(), Failure> {
        self.line().map(drop)
    }

    fn close_line(&self) {}
}

impl HardwareReset for Fake {
    fn pulse(&self, _hold_ms: u32) -> Result<(), Failure> {
        let mut world = self.world();
        if world.call(Call::Pulse)? {
            return Err(no_power());
        }
        world.resets += 1;
        Ok(())
    }
}

impl Clock for Fake {
    fn now_ms(&self) -> u64 {
        self.read().now_ms
    }
}

impl Log for Fake {
    fn log(&self, level: Level, text: &str) {
        self.world().log.push((level, text.to_owned()));
    }
}
