//! The plugin with one bug, chosen by the setting `mutant`: what a test kit must find. Built only with feature `mutants`,
//! never shipped.
//!
//! [`Broken`] does what [`FlashFile`] does, on things lent that are tampered with, but for its bug. Not here: bugs that no
//! host could see.

use std::cell::Cell;
use std::rc::Rc;

use pal_sdk::lent::{BlockDevice, Clock, Level, Log, Region};
use pal_sdk::{
    Answer, Blob, Description, Duty, Extent, Failure, Plugin, Setting, TargetState, Transfer, Wake,
    state,
};

use crate::FlashFile;

macro_rules! mutants {
    ($($name:ident $text:literal $about:literal;)*) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $about] $name,)*
        }

        impl Mutant {
            /// All of them: value of the setting, and what it does.
            pub const ALL: &'static [(&'static str, &'static str, Mutant)] = &[$(($text, $about, Mutant::$name),)*];
        }
    };
}

mutants! {
    ForgetsSync "forgets-sync" "never makes a write durable";
    IgnoresSyncError "ignores-sync-error" "takes a failed sync for a good one";
    IgnoresWriteError "ignores-write-error" "takes a failed write for a good one";
    ShiftsBlocks "shifts-blocks" "writes blocks one byte before their place";
    CutsBlocks "cuts-blocks" "leaves the last byte of each block away";
    LosesLastBlock "loses-last-block" "does not write a block that is shorter than the grid";
    TakesFirstBlock "takes-first-block" "writes the first block of a call and says written for all of them";
    WantsOrder "wants-order" "takes blocks from first to last only";
    TakesAnyBlock "takes-any-block" "says written for blocks beyond the file";
    ForgetsTransfer "forgets-transfer" "does not reopen a transfer";
    ShortExtents "short-extents" "names a byte too few";
    DoubleExtents "double-extents" "names the first half of the file twice";
    RunningExtents "running-extents" "takes the slot that is confirmed";
    MovingExtents "moving-extents" "names another slot after the first block";
    EndlessExtents "endless-extents" "names a million runs of bytes";
    TakesTooLarge "takes-too-large" "takes a file that does not fit";
    MarksEarly "marks-early" "writes the record in `install`";
    ActivatesOnce "activates-once" "fails when it is asked to activate again";
    ActivatesOther "activates-other" "marks another digest than it was given";
    CommitsUnseen "commits-unseen" "says committed for an image that never ran";
    CommitsNothing "commits-nothing" "says committed and writes nothing";
    RejectsNothing "rejects-nothing" "says rejected and writes nothing";
    RejectsOnce "rejects-once" "fails when it is asked to reject again";
    AlwaysValid "always-valid" "says that all is well, whatever is";
    AlwaysNew "always-new" "says that the new image runs, whatever does";
    WrongAnswer "wrong-answer" "answers `state` with nothing";
    UnknownCode "unknown-code" "fails with a number of its own";
    EndlessStep "endless-step" "never comes to the end of its self-test";
    EndlessLoop "endless-loop" "never returns from `commit`";
    SleepsForEver "sleeps-for-ever" "waits for input and names no time";
    HoardsMemory "hoards-memory" "keeps every block in memory";
    CallsWithoutEnd "calls-without-end" "asks for the regions a million times";
    TrapsInAbort "traps-in-abort" "panics when a transfer is thrown away";
    TouchesInOpen "touches-in-open" "reads the record in `open`";
    OtherSchema "other-schema" "saves in a schema that it does not list";
    OneCopy "one-copy" "writes the record over itself";
    PassesAtOnce "passes-at-once" "passes its self-test without a look";
    KeepsGoing "keeps-going" "goes on with a self-test after `abort`";
}

/// What is lent, for the plugin and for its bug.
#[derive(Debug)]
pub struct Shared<L>(Rc<L>);

impl<L> Shared<L> {
    pub(crate) fn new(lent: L) -> Self {
        Self(Rc::new(lent))
    }
}

impl<L> Clone for Shared<L> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<L: BlockDevice> BlockDevice for Shared<L> {
    fn regions(&self) -> Vec<Region> {
        self.0.regions()
    }
    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.0.read_at(region, offset, length)
    }
    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.0.write_at(region, offset, data)
    }
    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        self.0.erase(region, offset, length)
    }
    fn sync(&self, region: u32) -> Result<(), Failure> {
        self.0.sync(region)
    }
}

impl<L: Clock> Clock for Shared<L> {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }
}

impl<L: Log> Log for Shared<L> {
    fn log(&self, level: Level, text: &str) {
        self.0.log(level, text);
    }
}

/// What is lent, tampered with.
#[derive(Debug)]
pub struct Tampered<L> {
    lent: L,
    mutant: Option<Mutant>,
    /// Offset from which the next block must come.
    next: Cell<u64>,
}

impl<L: BlockDevice> Tampered<L> {
    fn is_slot(&self, region: u32) -> bool {
        let regions = self.lent.regions();
        let place = usize::try_from(region).unwrap_or(usize::MAX);
        regions.get(place).is_some_and(|region| region.kind == 0)
    }
}

impl<L: BlockDevice> BlockDevice for Tampered<L> {
    fn regions(&self) -> Vec<Region> {
        self.lent.regions()
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let other_copy = self.mutant == Some(Mutant::OneCopy) && !self.is_slot(region);
        let offset = if other_copy && region == 2 { 0 } else { offset };
        self.lent.read_at(region, offset, length)
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let slot = self.is_slot(region);
        match self.mutant {
            Some(Mutant::IgnoresWriteError) => {
                // That is the bug.
                let _ = self.lent.write_at(region, offset, data);
                Ok(())
            }
            Some(Mutant::ShiftsBlocks) if slot && offset > 0 => {
                self.lent.write_at(region, offset - 1, data)
            }
            Some(Mutant::CutsBlocks) if slot => {
                let kept = data.len().saturating_sub(1);
                self.lent.write_at(region, offset, &data[..kept])
            }
            Some(Mutant::LosesLastBlock) if slot && !data.len().is_multiple_of(256) => Ok(()),
            Some(Mutant::WantsOrder) if slot => {
                if offset != self.next.get() {
                    return Err(Failure::new(0xed, 1, "not the next block"));
                }
                self.next.set(offset + data.len() as u64);
                self.lent.write_at(region, offset, data)
            }
            Some(Mutant::OneCopy) if !slot => self.lent.write_at(region, 0, data),
            _ => self.lent.write_at(region, offset, data),
        }
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        self.lent.erase(region, offset, length)
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        match self.mutant {
            Some(Mutant::ForgetsSync) => Ok(()),
            Some(Mutant::IgnoresSyncError) => {
                // That is the bug.
                let _ = self.lent.sync(region);
                Ok(())
            }
            _ => self.lent.sync(region),
        }
    }
}

impl<L: Clock> Clock for Tampered<L> {
    fn now_ms(&self) -> u64 {
        self.lent.now_ms()
    }
}

impl<L: Log> Log for Tampered<L> {
    fn log(&self, level: Level, text: &str) {
        self.lent.log(level, text);
    }
}

/// The plugin with its bug. What it is lent comes through a handle, for `open` hands it on.
#[derive(Debug)]
pub struct Broken<L> {
    inner: FlashFile<Tampered<Shared<L>>>,
    lent: Shared<L>,
    mutant: Option<Mutant>,
    written: bool,
    /// The grid of the transfer.
    block_size: u32,
    activated: bool,
    rejected: bool,
    testing: bool,
    hoard: Vec<Vec<u8>>,
}

impl<L> Broken<L> {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

/// A wait without an end.
fn for_ever(wake: Wake) -> Result<Duty, Failure> {
    Duty::working(0, 0, wake)
}

impl<L: BlockDevice + Clock + Log + 'static> Plugin for Broken<L> {
    type Lent = L;

    fn describe() -> Description {
        FlashFile::<Tampered<Shared<L>>>::describe()
    }

    fn open(lent: L, mut settings: Vec<Setting>, saved: Option<Blob>) -> Result<Self, Failure> {
        let name = settings.iter().position(|setting| setting.key == "mutant");
        let name = name.map(|at| settings.remove(at).value);
        let find = |name: &String| Mutant::ALL.iter().find(|(text, ..)| text == name);
        let mutant = match &name {
            Some(name) => Some(find(name).map(|row| row.2).ok_or_else(|| {
                Failure::new(0xd0, Mutant::ALL.len() as u32, "there is no such mutant")
            })?),
            None => None,
        };
        let lent = Shared::new(lent);
        if mutant == Some(Mutant::TouchesInOpen) {
            lent.read_at(2, 0, 16)?;
        }
        let tampered = Tampered {
            lent: lent.clone(),
            mutant,
            next: Cell::new(0),
        };
        let saved = saved.filter(|_| mutant != Some(Mutant::OtherSchema));
        Ok(Self {
            inner: FlashFile::open(tampered, settings, saved)?,
            lent,
            mutant,
            written: false,
            block_size: 0,
            activated: false,
            rejected: false,
            testing: false,
            hoard: Vec::new(),
        })
    }

    fn create(&mut self, mut transfer: Transfer) -> Result<Duty, Failure> {
        self.written = false;
        self.block_size = transfer.block_size;
        if self.is(Mutant::TakesTooLarge) {
            transfer.size = transfer.size.min(4096);
        }
        if self.is(Mutant::UnknownCode) && transfer.size > 1_000_000 {
            return Err(Failure::new(0x01, 1, "no"));
        }
        self.inner.create(transfer)
    }

    fn reopen(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        if self.is(Mutant::ForgetsTransfer) {
            return Err(Failure::new(0xdb, 0, "what transfer?"));
        }
        self.block_size = transfer.block_size;
        self.inner.reopen(transfer)
    }

    fn write_block(&mut self, offset: u64, mut data: Vec<u8>) -> Result<Duty, Failure> {
        if self.is(Mutant::TakesFirstBlock) {
            data.truncate(usize::try_from(self.block_size).unwrap_or(usize::MAX));
        }
        if self.is(Mutant::HoardsMemory) {
            self.hoard.push(data.clone());
        }
        self.written = true;
        match self.inner.write_block(offset, data) {
            Err(_) if self.is(Mutant::TakesAnyBlock) => Duty::done(),
            ended => ended,
        }
    }

    fn extents(&mut self) -> Result<Vec<Extent>, Failure> {
        let mut extents = self.inner.extents()?;
        let Some(first) = extents.first_mut() else {
            return Ok(extents);
        };
        match self.mutant {
            Some(Mutant::ShortExtents) => first.length -= 1,
            Some(Mutant::RunningExtents) => first.region = 1 - first.region.min(1),
            Some(Mutant::MovingExtents) if self.written => first.region = 1 - first.region.min(1),
            Some(Mutant::DoubleExtents) => {
                let half = Extent {
                    length: first.length / 2,
                    ..*first
                };
                first.length -= half.length;
                extents.push(half);
            }
            Some(Mutant::EndlessExtents) => {
                let one = Extent {
                    length: 1,
                    ..*first
                };
                extents = vec![one; 30_000];
            }
            _ => {}
        }
        Ok(extents)
    }

    fn examine(&mut self) -> Result<Duty, Failure> {
        self.inner.examine()
    }

    fn install(&mut self) -> Result<Duty, Failure> {
        if self.is(Mutant::MarksEarly) {
            // The host refuses it; it has tried.
            let _ = self.lent.write_at(2, 0, b"marked");
        }
        self.inner.install()
    }

    fn activate(&mut self, mut sha256: [u8; 32]) -> Result<Duty, Failure> {
        if self.is(Mutant::ActivatesOnce) && std::mem::replace(&mut self.activated, true) {
            return Err(Failure::new(0xec, 1, "it is activated already"));
        }
        if self.is(Mutant::ActivatesOther) {
            sha256[0] ^= 1;
        }
        self.inner.activate(sha256)
    }

    fn reset(&mut self) -> Result<Duty, Failure> {
        self.inner.reset()
    }

    fn self_test(&mut self) -> Result<Duty, Failure> {
        let begun = self.inner.self_test()?;
        self.testing = true;
        match self.mutant {
            Some(Mutant::PassesAtOnce) => Duty::done(),
            Some(Mutant::EndlessStep) => for_ever(Wake::default()),
            Some(Mutant::SleepsForEver) => for_ever(Wake {
                on_input: true,
                ..Wake::default()
            }),
            _ => Ok(begun),
        }
    }

    fn commit(&mut self) -> Result<Duty, Failure> {
        match self.mutant {
            Some(Mutant::CommitsNothing) => Duty::done(),
            Some(Mutant::CommitsUnseen) => match self.inner.commit() {
                Err(_) => Duty::done(),
                ended => ended,
            },
            Some(Mutant::EndlessLoop) => {
                let mut number = 1_u64;
                while number != 0 {
                    number = std::hint::black_box(number | 1);
                }
                Duty::done()
            }
            _ => self.inner.commit(),
        }
    }

    fn reject(&mut self) -> Result<Duty, Failure> {
        if self.is(Mutant::RejectsNothing) {
            return Duty::done();
        }
        if self.is(Mutant::RejectsOnce) && std::mem::replace(&mut self.rejected, true) {
            return Err(Failure::new(0xea, 1, "it is rejected already"));
        }
        self.inner.reject()
    }

    fn state(&mut self) -> Result<Duty, Failure> {
        let ended = self.inner.state()?;
        let Duty::Finished(Answer::State(said)) = ended else {
            return Ok(ended);
        };
        match self.mutant {
            Some(Mutant::WrongAnswer) => Duty::done(),
            Some(Mutant::AlwaysValid) => Duty::answer(Answer::State(TargetState {
                code: state::VALID,
                ..said
            })),
            Some(Mutant::AlwaysNew) => Duty::answer(Answer::State(TargetState {
                runs_new: Some(true),
                ..said
            })),
            Some(Mutant::CallsWithoutEnd) => {
                for _ in 0..1_000_000 {
                    std::hint::black_box(self.lent.now_ms());
                }
                Duty::answer(Answer::State(said))
            }
            _ => Duty::answer(Answer::State(said)),
        }
    }

    fn abort(&mut self) -> Result<Duty, Failure> {
        assert!(!self.is(Mutant::TrapsInAbort), "this mutant panics here");
        if self.is(Mutant::KeepsGoing) && self.testing {
            return Duty::done();
        }
        self.testing = false;
        self.inner.abort()
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, Failure> {
        match self.mutant {
            Some(Mutant::EndlessStep) if self.testing => for_ever(Wake::default()),
            Some(Mutant::SleepsForEver) if self.testing => for_ever(Wake {
                on_input: true,
                ..Wake::default()
            }),
            _ => self.inner.step(budget_bytes),
        }
    }

    fn suspend(&mut self) -> Result<Blob, Failure> {
        let mut blob = self.inner.suspend()?;
        if self.is(Mutant::OtherSchema) {
            blob.schema = 77;
        }
        Ok(blob)
    }
}
