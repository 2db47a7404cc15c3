//! PAL plugin: a file of data (a table, a model, a bitstream) in two slots of lent storage.
//!
//! Blocks go straight into the slot that does not count. One record, kept twice, says which slot counts and which one is
//! in test; the program that uses the data reads it. Nobody has to restart anything: `reset` is where the new data begin to
//! be used.
//!
//! ```text
//!              activate             reset               commit
//!   settled ─────────────▶ marked ─────────▶ in use ──────────────▶ settled, the new data count
//!      ▲                      │ reject          │ reject
//!      └──────────────────────┴─────────────────┘ settled, the old data count
//! ```
//!
//! Every duty reads the record anew, does what is missing of it, and is over in its first call. What the record looks like
//! is in `record.rs`. Not here: jobs, signatures, digests; the host activates nothing that it has not verified.

mod record;

use pal_sdk::lent::{BlockDevice, Level, Log, Region};
use pal_sdk::{
    Answer, Blob, Description, Duty, Extent, Failure, Plugin, Setting, TRANSFER_MAX_BYTES,
    TargetState, Transfer, capability, code, export_plugin, state,
};

use record::{Data, Next, Record, Stage};

/// The plugin; `L` is what it is lent.
#[derive(Debug)]
pub struct TwoSlots<L> {
    lent: L,
    transfer: Option<Data>,
}

/// What it is lent, by number.
struct Regions {
    slots: [(u32, Region); 2],
    record: (u32, Region),
}

impl<L: BlockDevice + Log + 'static> Plugin for TwoSlots<L> {
    type Lent = L;

    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec!["data".to_owned()],
            // Data in test stay until somebody rejects them: no capability::REVERT.
            capabilities: capability::DIRECT,
            largest_write: TRANSFER_MAX_BYTES,
            schemas: vec![1],
        }
    }

    fn open(lent: L, settings: Vec<Setting>, _: Option<Blob>) -> Result<Self, Failure> {
        match settings.first() {
            Some(setting) => {
                let text = format!("unknown setting `{}`; there are none", setting.key);
                Err(Failure::bad_argument(&text))
            }
            // Nothing is saved: the record is read anew, and `reopen` brings the transfer.
            None => Ok(Self {
                lent,
                transfer: None,
            }),
        }
    }

    fn create(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        let record = self.record()?;
        if record.next.is_some() {
            return Err(Failure::bad_state(
                "other data are in test: reject or commit them first",
            ));
        }
        self.take(&transfer, record.free_slot())
    }

    fn reopen(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        let record = self.record()?;
        let tag = tag(&transfer);
        let slot = match (&record.next, &record.counts) {
            (Some(next), _) if next.data.tag == tag => next.data.slot,
            (Some(_), _) => return Err(Failure::bad_state("other data are in test")),
            // It was committed.
            (None, Some(data)) if data.tag == tag => data.slot,
            // It is still being received.
            (None, _) => record.free_slot(),
        };
        self.take(&transfer, slot)
    }

    fn write_block(&mut self, offset: u64, data: Vec<u8>) -> Result<Duty, Failure> {
        let transfer = self.transfer()?;
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > transfer.length) {
            return Err(Failure::bad_argument("the block ends beyond the file"));
        }
        let (number, _) = self.regions()?.slot(transfer.slot);
        self.lent.write_at(number, offset, &data)?;
        Duty::done()
    }

    fn extents(&mut self) -> Result<Vec<Extent>, Failure> {
        let transfer = self.transfer()?;
        let (region, _) = self.regions()?.slot(transfer.slot);
        Ok(vec![Extent {
            region,
            offset: 0,
            length: transfer.length,
        }])
    }

    fn activate(&mut self, _sha256: [u8; 32]) -> Result<Duty, Failure> {
        let transfer = self.transfer()?;
        let record = self.record()?;
        match &record.next {
            // Done before a crash, or before the host heard of it.
            Some(next) if next.data == transfer => return Duty::done(),
            Some(_) => return Err(Failure::bad_state("other data are in test")),
            None if record.counts == Some(transfer) => return Duty::done(),
            None => {}
        }
        self.replace(&Record {
            next: Some(Next {
                data: transfer,
                stage: Stage::Marked,
            }),
            ..record
        })
    }

    fn reset(&mut self) -> Result<Duty, Failure> {
        let record = self.record()?;
        match record.next {
            Some(next) if next.stage == Stage::Marked => {
                let text = format!("slot {} is used, in test", next.data.slot);
                self.lent.log(Level::Info, &text);
                let stage = Stage::InUse;
                self.replace(&Record {
                    next: Some(Next { stage, ..next }),
                    ..record
                })
            }
            Some(_) | None => Duty::done(),
        }
    }

    fn commit(&mut self) -> Result<Duty, Failure> {
        let record = self.record()?;
        match record.next {
            Some(next) if next.stage == Stage::InUse => self.replace(&Record {
                counts: Some(next.data),
                next: None,
            }),
            None if self.transfer.is_some() && record.counts == self.transfer => Duty::done(),
            Some(_) | None => Err(Failure::bad_state("no new data are in use")),
        }
    }

    fn reject(&mut self) -> Result<Duty, Failure> {
        let record = self.record()?;
        match record.next {
            Some(_) => self.replace(&Record {
                next: None,
                ..record
            }),
            None if self.transfer.is_some() && record.counts == self.transfer => {
                Err(Failure::bad_state("the data are committed already"))
            }
            None => Duty::done(),
        }
    }

    fn state(&mut self) -> Result<Duty, Failure> {
        let record = self.record()?;
        let (code, used) = match record.next {
            Some(next) if next.stage == Stage::InUse => (state::PENDING_COMMIT, Some(next.data)),
            Some(_) => (state::ARMED, record.counts),
            None => (state::VALID, record.counts),
        };
        Duty::answer(Answer::State(TargetState {
            code,
            running: None,
            runs_new: self.transfer.map(|transfer| used == Some(transfer)),
        }))
    }

    fn abort(&mut self) -> Result<Duty, Failure> {
        self.transfer = None;
        Duty::done()
    }
}

impl<L: BlockDevice + Log> TwoSlots<L> {
    /// The regions, by the names that the configuration gives them.
    fn regions(&self) -> Result<Regions, Failure> {
        let regions = self.lent.regions();
        let named = |name: &str| -> Result<(u32, Region), Failure> {
            let found = (0_u32..).zip(&regions).find(|(_, r)| r.name == name);
            let (number, region) = found
                .ok_or_else(|| Failure::bad_argument(&format!("it is lent no region `{name}`")))?;
            Ok((number, region.clone()))
        };
        Ok(Regions {
            slots: [named("slot-a")?, named("slot-b")?],
            record: named("record")?,
        })
    }

    fn record(&self) -> Result<Record, Failure> {
        let (number, region) = self.regions()?.record;
        Record::load(&self.lent, number, &region)
    }

    fn replace(&self, new: &Record) -> Result<Duty, Failure> {
        let (number, region) = self.regions()?.record;
        new.store(&self.lent, number, &region)?;
        Duty::done()
    }

    fn take(&mut self, transfer: &Transfer, slot: u8) -> Result<Duty, Failure> {
        let (_, region) = self.regions()?.slot(slot);
        if transfer.size == 0 {
            return Err(Failure::bad_argument("an empty file is no data"));
        }
        if transfer.size > region.size {
            let text = format!("the file does not fit into {}", region.name);
            return Err(Failure::new(code::TOO_LARGE, 0, &text));
        }
        self.transfer = Some(Data {
            slot,
            length: transfer.size,
            tag: tag(transfer),
        });
        Duty::done()
    }

    fn transfer(&self) -> Result<Data, Failure> {
        self.transfer
            .ok_or_else(|| Failure::bad_argument("no transfer is open"))
    }
}

impl Regions {
    fn slot(self, slot: u8) -> (u32, Region) {
        let [a, b] = self.slots;
        if slot == 0 { a } else { b }
    }
}

/// Tells one transfer from the next in the record: FNV-1a over what names it. Not a proof of anything.
fn tag(transfer: &Transfer) -> u64 {
    let parts = [
        transfer.job_id.as_bytes(),
        &[0],
        &transfer.size.to_le_bytes(),
        &transfer.signature,
    ];
    parts
        .concat()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

export_plugin!(TwoSlots<pal_sdk::Lent>, need::BLOCK_DEVICE | need::LOG);

#[cfg(test)]
mod tests;
