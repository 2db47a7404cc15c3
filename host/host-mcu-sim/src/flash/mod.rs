//! NOR flash: sectors that are erased whole, units that are written once after that, each with its time.
//!
//! Who uses it writes straight on and never waits. The flash keeps two views: `ahead`, which the MCU's program sees, and
//! `held`, which is what the medium holds at this instant; operations wait between the two until their time has come. A
//! power cut drops the waiting ones and tears the one under way. It knows nothing of slots' contents.
//!
//! ```text
//! erase/write --> ahead --[waiting: begin..end]--> held (and the file) --settle(now)
//!                   ^------------- cut(now) --------'
//! ```

mod geometry;
mod medium;

use std::collections::VecDeque;

use crate::random::Random;

pub(crate) use geometry::TRAILER_FIXED_BYTES;
pub use geometry::{FLASH_BYTES_MAX, Geometry, IMAGES_MAX, Slot, WRITE_UNIT_BYTES};
pub(crate) use medium::Medium;

/// What an erased byte reads as.
pub(crate) const ERASED: u8 = 0xff;

/// How long the flash takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlashTiming {
    /// Erasing one sector, in nanoseconds.
    pub erase_sector_ns: u64,
    /// Writing one byte, in nanoseconds.
    pub write_byte_ns: u64,
}

/// Where a planned cut hits its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutPoint {
    /// Just before it: nothing of it happens.
    Before,
    /// In it: whole units before the cut are done, of an erase a random part of the sector.
    Within,
    /// Just after it.
    After,
}

/// Why an operation did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlashError {
    /// Outside the flash.
    #[error("{bytes} bytes at {offset} reach past the flash")]
    OutOfBounds {
        /// Where, from the beginning of the flash.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// Not on a unit's or sector's boundary.
    #[error("{bytes} bytes at {offset} are not aligned")]
    Misaligned {
        /// Where, from the beginning of the flash.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// Written before and not erased since.
    #[error("the byte at {0} is not erased")]
    NotErased(u32),
    /// A fault on purpose.
    #[error("the flash refused")]
    Refused,
    /// The power is gone; nothing happens any more.
    #[error("the power is cut")]
    PowerCut,
}

/// Counts for reports and sweeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlashStats {
    /// Erased sectors since the start.
    pub erases: u64,
    /// Written pieces since the start.
    pub writes: u64,
    /// Erases of the sector that was erased most.
    pub wear_max: u32,
}

#[derive(Debug)]
struct Waiting {
    begin_ns: u64,
    end_ns: u64,
    offset: u32,
    /// What the place holds afterwards.
    bytes: Vec<u8>,
    is_erase: bool,
}

/// The flash of one MCU.
#[derive(Debug)]
pub(crate) struct Flash {
    geometry: Geometry,
    timing: FlashTiming,
    ahead: Vec<u8>,
    medium: Medium,
    waiting: VecDeque<Waiting>,
    /// When the last operation ends.
    free_ns: u64,
    wear: Vec<u32>,
    stats: FlashStats,
    /// Operations until the planned cut, 1 for the next one.
    planned: Option<(u64, CutPoint)>,
    /// The cut at an operation counted from the flash's first one; a reset before it changes nothing.
    planned_at: Option<(u64, CutPoint)>,
    cut_at_ns: Option<u64>,
    refuses_writes: u32,
    refuses_erases: u32,
    random: Random,
}

impl Flash {
    pub(crate) fn new(geometry: Geometry, timing: FlashTiming, medium: Medium, seed: u64) -> Self {
        let sectors = geometry.total_bytes() / geometry.sector_bytes();
        Self {
            geometry,
            timing,
            ahead: medium.held().to_vec(),
            medium,
            waiting: VecDeque::new(),
            free_ns: 0,
            wear: vec![0; sectors as usize],
            stats: FlashStats::default(),
            planned: None,
            planned_at: None,
            cut_at_ns: None,
            refuses_writes: 0,
            refuses_erases: 0,
            random: Random::new(seed),
        }
    }

    pub(crate) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn stats(&self) -> FlashStats {
        FlashStats {
            wear_max: self.wear.iter().copied().max().unwrap_or_default(),
            ..self.stats
        }
    }

    /// Whether every byte is as erased.
    pub(crate) fn is_new(&self) -> bool {
        self.medium.held().iter().all(|byte| *byte == ERASED)
    }

    /// One slot as the program sees it.
    pub(crate) fn slot(&self, image: u8, slot: Slot) -> &[u8] {
        let begin = self.geometry.slot_offset(image, slot) as usize;
        let end = begin + self.geometry.slot_bytes() as usize;
        self.ahead.get(begin..end).unwrap_or_default()
    }

    /// The same, as the medium holds it at the last settled instant.
    pub(crate) fn held_slot(&self, image: u8, slot: Slot) -> &[u8] {
        let begin = self.geometry.slot_offset(image, slot) as usize;
        let end = begin + self.geometry.slot_bytes() as usize;
        self.medium.held().get(begin..end).unwrap_or_default()
    }

    /// Says from when on operations begin; those under way are finished first.
    pub(crate) fn begin_at(&mut self, now_ns: u64) {
        self.free_ns = self.free_ns.max(now_ns);
    }

    /// When everything that was ordered is done.
    pub(crate) const fn free_ns(&self) -> u64 {
        self.free_ns
    }

    /// Plans a cut at the `count`th operation from now, counted from 1.
    pub(crate) const fn plan_cut(&mut self, count: u64, point: CutPoint) {
        self.planned = Some((if count == 0 { 1 } else { count }, point));
    }

    /// Plans a cut at the operation of this number, counted from the first one that this flash ever did.
    pub(crate) const fn plan_cut_at(&mut self, number: u64, point: CutPoint) {
        self.planned_at = Some((number, point));
    }

    /// When a planned cut strikes.
    pub(crate) const fn cut_at_ns(&self) -> Option<u64> {
        self.cut_at_ns
    }

    /// Lets the next writes or erases fail.
    pub(crate) const fn refuse(&mut self, writes: u32, erases: u32) {
        self.refuses_writes = self.refuses_writes.saturating_add(writes);
        self.refuses_erases = self.refuses_erases.saturating_add(erases);
    }

    /// Erases the sector that begins at `offset`.
    pub(crate) fn erase(&mut self, offset: u32) -> Result<(), FlashError> {
        let bytes = self.geometry.sector_bytes();
        self.check(offset, bytes, bytes)?;
        if self.refuses_erases > 0 {
            self.refuses_erases -= 1;
            return Err(FlashError::Refused);
        }
        if let Some(wear) = self.wear.get_mut((offset / bytes) as usize) {
            *wear = wear.saturating_add(1);
        }
        self.stats.erases += 1;
        let erased = vec![ERASED; bytes as usize];
        self.order(offset, erased, true, self.timing.erase_sector_ns)
    }

    /// Writes whole units on erased ground.
    pub(crate) fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.check(offset, count, WRITE_UNIT_BYTES)?;
        let begin = offset as usize;
        let ground = self
            .ahead
            .get(begin..begin + bytes.len())
            .unwrap_or_default();
        if let Some(at) = ground.iter().position(|byte| *byte != ERASED) {
            return Err(FlashError::NotErased(
                offset + u32::try_from(at).unwrap_or_default(),
            ));
        }
        if self.refuses_writes > 0 {
            self.refuses_writes -= 1;
            return Err(FlashError::Refused);
        }
        self.stats.writes += 1;
        let time_ns = self.timing.write_byte_ns.saturating_mul(u64::from(count));
        self.order(offset, bytes.to_vec(), false, time_ns)
    }

    fn check(&self, offset: u32, bytes: u32, unit: u32) -> Result<(), FlashError> {
        if self.cut_at_ns.is_some() {
            return Err(FlashError::PowerCut);
        }
        let end = offset.checked_add(bytes);
        if end.is_none_or(|end| end > self.geometry.total_bytes()) {
            return Err(FlashError::OutOfBounds { offset, bytes });
        }
        if !offset.is_multiple_of(unit) || !bytes.is_multiple_of(unit) {
            return Err(FlashError::Misaligned { offset, bytes });
        }
        Ok(())
    }

    fn order(
        &mut self,
        offset: u32,
        bytes: Vec<u8>,
        is_erase: bool,
        time_ns: u64,
    ) -> Result<(), FlashError> {
        let begin_ns = self.free_ns;
        let end_ns = begin_ns.saturating_add(time_ns);
        let cut = self.count_towards_cut(begin_ns, end_ns);
        let place = offset as usize..offset as usize + bytes.len();
        if let Some(ahead) = self.ahead.get_mut(place) {
            ahead.copy_from_slice(&bytes);
        }
        self.free_ns = end_ns;
        self.waiting.push_back(Waiting {
            begin_ns,
            end_ns,
            offset,
            bytes,
            is_erase,
        });
        let Some((at_ns, point)) = cut else {
            return Ok(());
        };
        self.cut_at_ns = Some(at_ns);
        match point {
            CutPoint::Before => {
                self.waiting.pop_back();
            }
            CutPoint::Within => {
                if let Some(torn) = self.waiting.pop_back() {
                    self.tear_at(torn, at_ns);
                }
            }
            CutPoint::After => {}
        }
        Err(FlashError::PowerCut)
    }

    fn count_towards_cut(&mut self, begin_ns: u64, end_ns: u64) -> Option<(u64, CutPoint)> {
        let number = self.stats.erases + self.stats.writes;
        if let Some((count, _)) = &mut self.planned {
            *count -= 1;
        }
        let planned = self.planned.take_if(|(count, _)| *count == 0);
        let planned_at = self.planned_at.take_if(|(at, _)| *at <= number);
        let (_, point) = planned.or(planned_at)?;
        let at_ns = match point {
            CutPoint::Before => begin_ns,
            CutPoint::Within => begin_ns.midpoint(end_ns),
            CutPoint::After => end_ns,
        };
        Some((at_ns, point))
    }

    /// Puts the torn rest of an operation into the queue, as something that is done at the instant of the cut.
    fn tear_at(&mut self, operation: Waiting, at_ns: u64) {
        let (offset, bytes) = self.torn(&operation, at_ns);
        self.waiting.push_back(Waiting {
            begin_ns: operation.begin_ns,
            end_ns: at_ns,
            offset,
            bytes,
            is_erase: operation.is_erase,
        });
    }

    /// What is left of an operation that a cut interrupts: written units are whole or untouched (flash with a checksum per
    /// unit); in a sector under erasure each bit may already be set.
    fn torn(&mut self, operation: &Waiting, at_ns: u64) -> (u32, Vec<u8>) {
        let unit = WRITE_UNIT_BYTES as usize;
        let offset = operation.offset as usize;
        let mut bytes = operation.bytes.clone();
        if operation.is_erase {
            let place = offset..offset + bytes.len();
            // As the operations before it leave the sector.
            let mut before = self.medium.held().get(place).unwrap_or_default().to_vec();
            for earlier in &self.waiting {
                overlay(&mut before, operation.offset, earlier);
            }
            for (new, old) in bytes.iter_mut().zip(before) {
                *new = old | self.random.next().to_le_bytes()[0];
            }
        } else {
            let whole = operation.end_ns.saturating_sub(operation.begin_ns).max(1);
            let passed = at_ns.saturating_sub(operation.begin_ns).min(whole);
            let units = (bytes.len() / unit) as u64;
            let done = u128::from(units) * u128::from(passed) / u128::from(whole);
            bytes.truncate(usize::try_from(done).unwrap_or_default() * unit);
        }
        (operation.offset, bytes)
    }

    /// Brings everything that is done by `now_ns` onto the medium.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        while let Some(done) = self.waiting.pop_front_if(|first| first.end_ns <= now_ns) {
            self.medium.put(done.offset, &done.bytes);
        }
    }

    /// Cuts the power: what is done stays, what is under way is torn, what waits never happened. Afterwards the program
    /// sees the medium again and can begin anew.
    pub(crate) fn cut(&mut self, now_ns: u64) {
        self.settle(now_ns);
        if let Some(under_way) = self.waiting.pop_front() {
            self.waiting.clear();
            if under_way.begin_ns < now_ns {
                let (offset, bytes) = self.torn(&under_way, now_ns);
                self.medium.put(offset, &bytes);
            }
        }
        self.ahead.copy_from_slice(self.medium.held());
        self.free_ns = now_ns;
        self.cut_at_ns = None;
        self.planned = None;
    }

    /// Puts bytes at the beginning of an erased slot without taking time, as a programmer in the factory does.
    pub(crate) fn program(&mut self, image: u8, slot: Slot, bytes: &[u8]) {
        let offset = self.geometry.slot_offset(image, slot);
        let mut whole = vec![ERASED; self.geometry.slot_bytes() as usize];
        let count = bytes.len().min(whole.len());
        whole[..count].copy_from_slice(&bytes[..count]);
        self.medium.put(offset, &whole);
        let begin = offset as usize;
        if let Some(ahead) = self.ahead.get_mut(begin..begin + whole.len()) {
            ahead.copy_from_slice(&whole);
        }
    }

    /// Whether writing to the medium's file has failed, and how.
    pub(crate) const fn take_trouble(&mut self) -> Option<crate::Error> {
        self.medium.take_trouble()
    }
}

/// Lays what `operation` leaves behind over a piece of flash that begins at `offset`.
fn overlay(piece: &mut [u8], offset: u32, operation: &Waiting) {
    for (index, byte) in operation.bytes.iter().enumerate() {
        let at = operation.offset as usize + index;
        if let Some(place) = at
            .checked_sub(offset as usize)
            .and_then(|at| piece.get_mut(at))
        {
            *place = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: u32 = 1024;

    fn flash() -> Flash {
        let geometry = Geometry::new(SECTOR, 8 * SECTOR, 1).unwrap();
        let timing = FlashTiming {
            erase_sector_ns: 1000,
            write_byte_ns: 10,
        };
        Flash::new(
            geometry,
            timing,
            Medium::in_memory(geometry.total_bytes()),
            1,
        )
    }

    #[test]
    fn an_operation_reaches_the_medium_when_its_time_has_come() {
        let mut flash = flash();
        flash.begin_at(500);
        flash.erase(0).unwrap();
        flash.write(0, &[1; 16]).unwrap();
        assert_eq!(flash.free_ns(), 500 + 1000 + 160);
        assert_eq!(flash.slot(0, Slot::Primary)[0], 1);
        flash.settle(1659);
        assert_eq!(flash.held_slot(0, Slot::Primary)[0], ERASED);
        flash.settle(1660);
        assert_eq!(flash.held_slot(0, Slot::Primary)[..16], [1; 16]);
    }

    #[test]
    fn a_unit_is_written_once_and_sectors_are_erased_whole() {
        let mut flash = flash();
        flash.write(8, &[0; 8]).unwrap();
        assert_eq!(flash.write(0, &[0; 16]), Err(FlashError::NotErased(8)));
        assert!(matches!(
            flash.write(4, &[0; 8]),
            Err(FlashError::Misaligned { .. })
        ));
        assert!(matches!(
            flash.write(0, &[0; 7]),
            Err(FlashError::Misaligned { .. })
        ));
        assert!(matches!(flash.erase(8), Err(FlashError::Misaligned { .. })));
        assert!(matches!(
            flash.erase(16 * SECTOR),
            Err(FlashError::OutOfBounds { .. })
        ));
        flash.erase(0).unwrap();
        flash.write(0, &[0; 16]).unwrap();
        assert_eq!(flash.stats().wear_max, 1);
    }

    #[test]
    fn a_cut_tears_what_is_under_way_and_forgets_what_waits() {
        let mut flash = flash();
        flash.write(0, &[1; 100 * 8]).unwrap();
        flash.write(SECTOR, &[2; 8]).unwrap();
        // 8,000 ns long; a quarter of it is a quarter of its units.
        flash.cut(2_005);
        let slot = flash.slot(0, Slot::Primary);
        assert_eq!(slot.iter().filter(|byte| **byte == 1).count(), 25 * 8);
        assert_eq!(slot[SECTOR as usize], ERASED);
        assert_eq!(flash.free_ns(), 2_005);
        flash.write(SECTOR, &[3; 8]).unwrap();
    }

    #[test]
    fn a_torn_erase_leaves_some_bits_and_takes_others() {
        let mut flash = flash();
        flash.write(0, &[0; SECTOR as usize]).unwrap();
        flash.settle(u64::MAX);
        let begin = flash.free_ns();
        flash.erase(0).unwrap();
        flash.cut(begin + 500);
        let ones: u32 = flash.slot(0, Slot::Primary)[..SECTOR as usize]
            .iter()
            .map(|byte| byte.count_ones())
            .sum();
        assert!((1000..7000).contains(&ones), "{ones} of 8192 bits");
    }

    #[test]
    fn a_planned_cut_strikes_before_within_or_after_its_operation() {
        for (point, units, at_ns) in [
            (CutPoint::Before, 0, 80),
            (CutPoint::Within, 2, 80 + 160),
            (CutPoint::After, 4, 80 + 320),
        ] {
            let mut flash = flash();
            flash.plan_cut(2, point);
            flash.write(0, &[7; 8]).unwrap();
            assert_eq!(flash.write(SECTOR, &[9; 32]), Err(FlashError::PowerCut));
            assert_eq!(flash.erase(0), Err(FlashError::PowerCut));
            assert_eq!(flash.cut_at_ns(), Some(at_ns));
            flash.cut(at_ns);
            let slot = flash.slot(0, Slot::Primary);
            assert_eq!(slot[0], 7);
            let written = slot.iter().filter(|byte| **byte == 9).count();
            assert_eq!(written, units * 8, "{point:?}");
            flash.erase(0).unwrap();
        }
    }

    #[test]
    fn a_flash_that_is_told_to_refuse_refuses_so_often() {
        let mut flash = flash();
        flash.refuse(1, 1);
        assert_eq!(flash.write(0, &[0; 8]), Err(FlashError::Refused));
        assert_eq!(flash.erase(0), Err(FlashError::Refused));
        flash.write(0, &[0; 8]).unwrap();
        flash.erase(0).unwrap();
    }
}
