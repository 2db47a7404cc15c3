//! The transfer on a bench: its image, the extents that the plugin names for it, its blocks, and what of them is stored.
//!
//! Not here: what else a plugin is told to do, and what each call may touch (`bench.rs`).

use std::collections::BTreeSet;
use std::ops::Range;

use host_mcu_sim::sample;
use host_runtime::plugin::{Answer, Extent, PluginError, Transfer};
use host_runtime::target::trailer::Trailer;
use host_runtime::types::Version;

use super::{Bench, Broken, End};
use crate::check::plugin::device::Allowed;
use crate::check::plugin::input::{Duty, Which};
use crate::check::plugin::launcher;
use crate::random::Random;

/// A transfer under way.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) transfer: Transfer,
    pub(super) image: Vec<u8>,
    pub(super) extents: Vec<Extent>,
    held: BTreeSet<u64>,
    closed: bool,
}

impl Bench {
    /// What the host finds still held after a power cut.
    pub(super) fn recheck(&mut self) {
        let Some(job) = self.job.clone() else { return };
        let held = job.held.iter().filter(|block| {
            let (offset, data) = block_of(&job, **block, self.largest_write);
            self.stored(&job, offset, data.len() as u64).as_deref() == Some(data)
        });
        let held: BTreeSet<u64> = held.copied().collect();
        if let Some(job) = &mut self.job {
            job.held = held;
        }
    }

    /// The extents, checked against the transfer.
    pub(in crate::check::plugin) fn ask_extents(&mut self) -> Result<Vec<Extent>, Broken> {
        let extents = match self.plugin()?.extents() {
            Ok(extents) => extents,
            Err(PluginError::Failed(failure)) => {
                self.mistake(format!(
                    "it has no extents while a transfer is open: {failure}"
                ));
                return Ok(Vec::new());
            }
            Err(broken) => return Err(broken.into()),
        };
        let size = self.job.as_ref().map_or(0, |job| job.transfer.size);
        let wrong = self.wrong_extents(&extents, size);
        if let Some(what) = wrong {
            self.mistake(format!("its extents {what}"));
        }
        Ok(extents)
    }

    fn wrong_extents(&self, extents: &[Extent], size: u64) -> Option<String> {
        let shelf = self.device.shelf();
        let mut sum = 0_u64;
        for (at, extent) in extents.iter().enumerate() {
            let region = usize::try_from(extent.region).unwrap_or(usize::MAX);
            let Some(store) = shelf.stores.get(region) else {
                return Some(format!("name region {}, which there is not", extent.region));
            };
            let end = extent.offset.checked_add(extent.length);
            if extent.length == 0 || end.is_none_or(|end| end > store.region.size) {
                return Some(format!("lie beyond the end of {}", store.region.name));
            }
            if store.region.kind != 0 || store.region.read_only {
                return Some(format!("lie in {}, which is no slot", store.region.name));
            }
            let overlaps = |other: &Extent| {
                other.region == extent.region
                    && other.offset < extent.offset + extent.length
                    && extent.offset < other.offset + other.length
            };
            if extents[..at].iter().any(overlaps) {
                return Some("overlap".to_owned());
            }
            if self.flash_file
                && launcher::confirmed_slot(&shelf) == Some(extent.region)
                && !self.job.as_ref().is_some_and(|job| job.closed)
            {
                return Some(format!("lie in the confirmed slot, {}", store.region.name));
            }
            sum = sum.saturating_add(extent.length);
        }
        (sum != size).then(|| format!("are {sum} bytes, and the file has {size}"))
    }

    /// They must be the same for the whole of a transfer.
    pub(in crate::check::plugin) fn check_extents(&mut self) -> Result<(), Broken> {
        let extents = self.ask_extents()?;
        let changed = self
            .job
            .as_ref()
            .is_some_and(|job| !job.extents.is_empty() && job.extents != extents);
        if changed {
            self.mistake("its extents change during a transfer");
        }
        Ok(())
    }

    pub(super) fn erase(&mut self, extents: &[Extent]) {
        let mut shelf = self.device.shelf();
        for extent in extents {
            let region = usize::try_from(extent.region).unwrap_or(usize::MAX);
            let (Ok(at), Ok(length)) = (
                usize::try_from(extent.offset),
                usize::try_from(extent.length),
            ) else {
                continue;
            };
            if let Some(store) = shelf.stores.get_mut(region) {
                let length = length.min(store.bytes.len().saturating_sub(at));
                store.place(at, &vec![0xff; length]);
            }
        }
    }

    pub(super) fn blocks_allowed(&self) -> Allowed {
        match &self.job {
            Some(job) if !job.closed => Allowed::Blocks(job.extents.clone()),
            _ => Allowed::Nothing,
        }
    }

    /// Blocks, each with a call of its own, or as many as lie side by side with one call of so many bytes, and of no more than
    /// the plugin takes.
    pub(super) fn write(&mut self, which: &Which, together: u64) -> Result<End, Broken> {
        let Some(job) = self.job.clone() else {
            return self.duty(&Duty::WriteAt {
                offset: 0,
                length: 256,
            });
        };
        let block = u64::from(job.transfer.block_size.min(self.largest_write).max(1));
        let count = job.transfer.size.div_ceil(block);
        let blocks: Vec<u64> = match which {
            Which::All => (0..count).collect(),
            Which::Backwards => (0..count).rev().collect(),
            Which::Rest => (0..count).filter(|b| !job.held.contains(b)).collect(),
            Which::Shuffled => shuffled(count),
            Which::These(blocks) => blocks.clone(),
        };
        let most = together.min(self.largest_write.into());
        for run in runs(&job, &blocks, block, most) {
            let (offset, data) = run_of(&job, &run, self.largest_write);
            self.device.shelf().allowed = self.blocks_allowed();
            let begun = self.call(|plugin| plugin.write_block(offset, data))?;
            if let failed @ End::Failed(_) = self.drive(begun)? {
                self.device.shelf().allowed = Allowed::Nothing;
                return Ok(failed);
            }
            let stored = self.stored(&job, offset, data.len() as u64);
            if stored.as_deref() != Some(data) {
                self.mistake(match run.end - run.start {
                    1 => format!(
                        "block {} is acknowledged, and its bytes are not at its extent",
                        run.start
                    ),
                    _ => format!(
                        "blocks {} to {} of one call are acknowledged, and their bytes are not at their extents",
                        run.start,
                        run.end - 1
                    ),
                });
            }
            if let Some(job) = &mut self.job {
                job.held.extend(run);
            }
        }
        self.device.shelf().allowed = Allowed::Nothing;
        Ok(End::Done(Answer::Nothing))
    }

    /// Bytes of the file as they lie in storage.
    fn stored(&self, job: &Job, offset: u64, length: u64) -> Option<Vec<u8>> {
        let shelf = self.device.shelf();
        let whole: Option<Vec<&[u8]>> = job.extents.iter().map(|e| shelf.at(e)).collect();
        let whole = whole?.concat();
        let start = usize::try_from(offset).ok()?;
        let end = usize::try_from(offset.checked_add(length)?).ok()?;
        whole.get(start..end).map(<[u8]>::to_vec)
    }

    /// The file is complete: no byte may change any more, and all of them must be there.
    pub(in crate::check::plugin) fn close(&mut self) -> Result<bool, Broken> {
        if self.direct {
            self.check_extents()?;
        }
        let Some(job) = &mut self.job else {
            return Ok(false);
        };
        job.closed = true;
        let job = job.clone();
        for store in &mut self.device.shelf().stores {
            if store.region.kind == 0 {
                store.sync();
            }
        }
        if !self.direct {
            let mut shelf = self.device.shelf();
            shelf.verified = shelf.held == job.transfer.size;
            return Ok(shelf.verified);
        }
        let stored = self.stored(&job, 0, job.transfer.size);
        Ok(stored.as_ref() == Some(&job.image))
    }

    pub(super) fn make_job(&self, job: &str, size: u64, block: u32) -> Job {
        let number: u16 = job
            .trim_start_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap_or(1);
        Job {
            transfer: Transfer {
                device: "pump-1".to_owned(),
                job_id: job.to_owned(),
                file_id: 1,
                size,
                block_size: block,
                file_type: 0,
                attributes: 0,
                path: "../../etc/passwd".to_owned(),
                certificate: "cert.pem".to_owned(),
                signature_kind: "sig-sha256-ecdsa".to_owned(),
                signature: vec![0x30; 70],
            },
            image: match self.smp {
                true => mcu_image(number, size),
                false => image(number, size),
            },
            extents: Vec::new(),
            held: BTreeSet::new(),
            closed: false,
        }
    }

    /// The image of the open transfer.
    pub(in crate::check::plugin) fn image(&self) -> Vec<u8> {
        self.job
            .as_ref()
            .map_or_else(Vec::new, |job| job.image.clone())
    }
}

/// A block of a file: where, and its bytes.
fn block_of(job: &Job, block: u64, largest: u32) -> (u64, &[u8]) {
    let length = u64::from(job.transfer.block_size.min(largest).max(1));
    let offset = block.saturating_mul(length);
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(job.image.len());
    let end = start
        .saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
        .min(job.image.len());
    (offset, &job.image[start..end])
}

/// The blocks of one call.
fn run_of<'a>(job: &'a Job, run: &Range<u64>, largest: u32) -> (u64, &'a [u8]) {
    let (offset, first) = block_of(job, run.start, largest);
    let (last_offset, last) = block_of(job, run.end.saturating_sub(1), largest);
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let bytes = usize::try_from(last_offset.saturating_sub(offset)).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes).saturating_add(last.len());
    (offset, job.image.get(start..end).unwrap_or(first))
}

/// Blocks as they are given to the plugin: those that follow one another in one call of at most so many bytes, which
/// crosses no border of two extents.
fn runs(job: &Job, blocks: &[u64], block_bytes: u64, most: u64) -> Vec<Range<u64>> {
    let mut border = 0_u64;
    let borders: BTreeSet<u64> = job
        .extents
        .iter()
        .map(|extent| {
            border = border.saturating_add(extent.length);
            border
        })
        .collect();
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &block in blocks {
        let offset = block.saturating_mul(block_bytes);
        let end = offset.saturating_add(block_bytes).min(job.transfer.size);
        match runs.last_mut() {
            Some(run)
                if run.end == block
                    && end.saturating_sub(run.start.saturating_mul(block_bytes)) <= most
                    && !borders.contains(&offset) =>
            {
                run.end = block + 1;
            }
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

/// Files larger than this are only spoken of: no region here holds them.
const IMAGE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The image of a job, with the trailer that says version 1.`number`.0 where it fits.
pub(in crate::check::plugin) fn image(number: u16, size: u64) -> Vec<u8> {
    let size = usize::try_from(size.min(IMAGE_MAX_BYTES)).unwrap_or(0);
    let mut bytes = Random::new(u64::from(number)).bytes(size);
    let trailer = Trailer {
        version: Version {
            major: 1,
            minor: u8::try_from(number).unwrap_or(u8::MAX),
            revision: 0,
            build: 0,
        },
        product: "pump".to_owned(),
        hardware: String::new(),
        payload_bytes: size.saturating_sub(128) as u64,
    };
    if let (Ok(trailer), Some(at)) = (trailer.encode(), size.checked_sub(128)) {
        bytes[at..].copy_from_slice(&trailer);
    }
    bytes
}

/// The same for an MCU: MCUboot's header and trailer round it; noise where they do not fit.
fn mcu_image(number: u16, size: u64) -> Vec<u8> {
    let version = format!("1.{number}.0");
    let round = sample::image(&version, 0).len();
    let body = usize::try_from(size)
        .ok()
        .and_then(|size| size.checked_sub(round));
    body.filter(|_| size <= IMAGE_MAX_BYTES)
        .map_or_else(|| image(number, size), |body| sample::image(&version, body))
}

/// An order that is no order, the same every time.
fn shuffled(count: u64) -> Vec<u64> {
    let mut random = Random::new(count);
    let mut blocks: Vec<u64> = (0..count).collect();
    for at in (1..blocks.len()).rev() {
        blocks.swap(at, random.below_len(at + 1));
    }
    blocks
}
