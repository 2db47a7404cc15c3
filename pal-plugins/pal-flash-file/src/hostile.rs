//! The plugin with one evil deed, chosen by the setting `deed`: what a host must contain. Built only with feature `mutants`,
//! never shipped; `tests/hostile.md` says what becomes of each.
//!
//! A deed that the host must refuse is tried in every duty that it makes sense in, and whatever is let through ends in a panic:
//! an update that goes well has seen every refusal. Not here: bugs (`mutant.rs`), and what only a library can try
//! (`tests/e2e`, `hostile.c`).

use core::hint::black_box;

use pal_sdk::lent::{BlockDevice, Clock, Level, Log};
use pal_sdk::{
    Answer, Blob, Description, Duty, Extent, Failure, Plugin, Setting, TRANSFER_MAX_BYTES,
    TargetState, Transfer, Wake,
};

use crate::mutant::{Broken, Shared};

macro_rules! deeds {
    ($($name:ident $text:literal $about:literal;)*) => {
        /// An evil deed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Deed {
            $(#[doc = $about] $name,)*
        }

        impl Deed {
            /// All of them: value of the setting, and what it does.
            pub const ALL: &'static [(&'static str, &'static str, Deed)] = &[$(($text, $about, Deed::$name),)*];
        }
    };
}

deeds! {
    ReadsBeyond "reads-beyond" "reads regions that are not lent to it, and past the ends of its own";
    WritesRunningSlot "writes-running-slot" "writes and erases the slot that runs, in every call";
    WritesBeyondFile "writes-beyond-file" "writes into its slot before and beyond the file";
    WritesTries "writes-tries" "writes the launcher's record, in every call";
    RewritesVerified "rewrites-verified" "writes and erases the image after it was verified";
    MarksEarly "marks-early" "marks an image for boot before it was verified";
    FloodsReads "floods-reads" "reads its storage without end";
    FloodsSyncs "floods-syncs" "syncs its storage without end";
    Shouts "shouts" "logs a line of 128 KiB with control characters in every call";
    LiesOfProgress "lies-of-progress" "says that it has done more than there is";
    TampersBlocks "tampers-blocks" "changes a byte of each block before it writes it";
    WritesOutside "writes-outside" "writes where it may not, and fails with what it is told";
    CommitsNothing "commits-nothing" "says that it has committed, and has not";
    TampersLater "tampers-later" "writes another first block when the last one has come";
    ForgesMark "forges-mark" "marks a digest of its own for boot";
    ExtentsRunning "extents-running" "says that the file lies in the slot that runs";
    ExtentsRecord "extents-record" "says that the file lies in the boot record";
    ExtentsNotLent "extents-not-lent" "says that the file lies in a region that it was not lent";
    ExtentsOverflow "extents-overflow" "names an extent whose end is beyond all numbers";
    ExtentsOverlap "extents-overlap" "names the same bytes twice";
    ExtentsMany "extents-many" "names a thousand extents";
    ExtentsNone "extents-none" "says that the file lies nowhere";
    ExtentsMove "extents-move" "names another place once blocks are written";
    NeverEnds "never-ends" "goes on installing for ever, a second at a time";
    SleepsOn "sleeps-on" "waits for input that cannot come while it installs";
    AnswersElse "answers-else" "answers an install with a state";
    Panics "panics" "panics";
    Spins "spins" "computes for ever";
    SpinsAtStart "spins-at-start" "computes for ever in its start";
    Recurses "recurses" "calls itself for ever";
    ExhaustsMemory "exhausts-memory" "takes all memory that there is";
    FloodsLog "floods-log" "logs for ever";
    FloodsCalls "floods-calls" "asks for the time for ever";
    HugeSaved "huge-saved" "saves 400 KiB for its successor";
    HugeText "huge-text" "fails with 400 KiB of reasons";
    HugeExtents "huge-extents" "names fifteen thousand extents";
}

/// Numbers of the regions: two slots, of which the first one runs to begin with, the boot record, the launcher's record.
const RUNNING: u32 = 0;
const OTHER: u32 = 1;
const RECORD: u32 = 2;
const TRIES: u32 = 3;

/// What it writes where it must not.
const EVIL: [u8; 128] = [0xe5; 128];

/// More than the host takes in one answer, and less than a component may have in memory.
const HUGE_BYTES: usize = 400 << 10;

/// More calls than any that a host could allow.
const ENOUGH: u32 = 1_000_000;

/// Where a deed is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    Create,
    Write,
    Install,
    Activate,
    SelfTest,
    Commit,
    State,
    Else,
}

/// The plugin with its deed.
#[derive(Debug)]
pub struct Hostile<L> {
    inner: Broken<Shared<L>>,
    lent: Shared<L>,
    deed: Option<Deed>,
    /// Bytes of the file.
    size: u64,
    written: u64,
    installing: bool,
}

/// What the host had to refuse.
///
/// # Panics
/// It did not.
fn refused<T>(what: &str, end: Result<T, Failure>) {
    assert!(end.is_err(), "LET THROUGH: {what}");
}

/// Calls until it is refused.
///
/// # Panics
/// It never is.
fn flood<T>(what: &str, mut call: impl FnMut() -> Result<T, Failure>) {
    let end = (0..ENOUGH).find_map(|_| call().err());
    assert!(end.is_some(), "LET THROUGH: {what} {ENOUGH} times");
}

fn spin() -> ! {
    let mut number = 1_u64;
    loop {
        number = black_box(number | 1);
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    match black_box(depth) {
        u64::MAX => 0,
        _ => recurse(depth + 1) + frame[(depth % 64) as usize],
    }
}

impl<L: BlockDevice + Clock + Log> Hostile<L> {
    fn is(&self, deed: Deed) -> bool {
        self.deed == Some(deed)
    }

    fn read_beyond(&self) {
        let regions = self.lent.regions();
        for number in regions.len() as u32..300 {
            refused("a region that is not lent", self.lent.read_at(number, 0, 1));
        }
        refused("the last region", self.lent.read_at(u32::MAX, 0, 1));
        for (number, region) in (0..).zip(&regions) {
            for (offset, length) in [
                (region.size, 1),
                (region.size - 1, 2),
                (u64::MAX, 1),
                (u64::MAX - 7, 16),
                (0, u32::MAX),
            ] {
                refused("past a region", self.lent.read_at(number, offset, length));
            }
        }
    }

    fn change(&self, region: u32, offset: u64) {
        let size = self.lent.regions()[region as usize].size;
        refused("a write", self.lent.write_at(region, offset, &EVIL));
        refused("an erase", self.lent.erase(region, offset, size - offset));
    }

    /// The deed, as far as it is done beside the duties.
    fn misbehave(&mut self, at: At) {
        let Some(deed) = self.deed else { return };
        match (deed, at) {
            (Deed::ReadsBeyond, At::Open) | (Deed::Shouts, At::Open) => {}
            (Deed::ReadsBeyond, _) => self.read_beyond(),
            (Deed::WritesRunningSlot, _) => self.change(RUNNING, 0),
            (Deed::WritesTries, _) => self.change(TRIES, 0),
            (Deed::WritesBeyondFile, At::Create) => self.change(OTHER, 0),
            (Deed::WritesBeyondFile, At::Write) => self.change(OTHER, self.size - 1),
            (Deed::RewritesVerified, At::Install | At::Activate | At::SelfTest | At::Commit) => {
                self.change(OTHER, 0)
            }
            (Deed::MarksEarly, At::Create | At::Write | At::Install) => self.change(RECORD, 0),
            (Deed::FloodsReads, At::Install) => {
                flood("reads", || self.lent.read_at(OTHER, 0, TRANSFER_MAX_BYTES));
            }
            (Deed::FloodsSyncs, At::Write | At::Install) => {
                flood("syncs", || self.lent.sync(RECORD));
            }
            (Deed::Shouts, _) => {
                let line = "evil\n\x1b[2J".repeat(TRANSFER_MAX_BYTES as usize / 9);
                self.lent.log(Level::Error, &line);
            }
            (Deed::Panics, At::State) => panic!("evil\n\x1b[2J"),
            (Deed::Spins, At::State) | (Deed::SpinsAtStart, At::Open) => spin(),
            (Deed::Recurses, At::State) => {
                black_box(recurse(0));
            }
            (Deed::ExhaustsMemory, At::State) => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(black_box(vec![1_u8; 1 << 16]));
                }
            }
            (Deed::FloodsLog, At::State) => loop {
                self.lent.log(Level::Warn, "flood");
            },
            (Deed::FloodsCalls, At::State) => loop {
                black_box(self.lent.now_ms());
            },
            _ => {}
        }
    }
}

/// Goes on for ever.
fn for_ever(wake: Wake) -> Result<Duty, Failure> {
    Duty::working(0, 0, wake)
}

impl<L: BlockDevice + Clock + Log + 'static> Plugin for Hostile<L> {
    type Lent = L;

    fn describe() -> Description {
        Broken::<Shared<L>>::describe()
    }

    fn open(lent: L, mut settings: Vec<Setting>, saved: Option<Blob>) -> Result<Self, Failure> {
        let name = settings.iter().position(|setting| setting.key == "deed");
        let name = name.map(|at| settings.remove(at).value);
        let deed = match &name {
            None => None,
            Some(name) => match Deed::ALL.iter().find(|(text, ..)| text == name) {
                Some((.., deed)) => Some(*deed),
                None => return Err(Failure::bad_argument("there is no such deed")),
            },
        };
        let lent = Shared::new(lent);
        let mut hostile = Self {
            inner: Broken::open(lent.clone(), settings, saved)?,
            lent,
            deed,
            size: 0,
            written: 0,
            installing: false,
        };
        hostile.misbehave(At::Open);
        Ok(hostile)
    }

    fn create(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        self.size = transfer.size;
        self.written = 0;
        self.misbehave(At::Create);
        self.inner.create(transfer)
    }

    fn reopen(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        self.size = transfer.size;
        self.misbehave(At::Else);
        self.inner.reopen(transfer)
    }

    fn write_block(&mut self, offset: u64, mut data: Vec<u8>) -> Result<Duty, Failure> {
        self.misbehave(At::Write);
        self.written += data.len() as u64;
        if self.is(Deed::TampersBlocks)
            && let Some(byte) = data.first_mut()
        {
            *byte ^= 1;
        }
        if self.is(Deed::WritesOutside) {
            self.lent.write_at(OTHER, self.size, &EVIL)?;
        }
        let duty = self.inner.write_block(offset, data)?;
        if self.is(Deed::TampersLater) && self.written >= self.size {
            self.lent.write_at(OTHER, 0, &EVIL)?;
        }
        Ok(duty)
    }

    fn extents(&mut self) -> Result<Vec<Extent>, Failure> {
        self.misbehave(At::Else);
        let mut extents = self.inner.extents().unwrap_or_default();
        let whole = Extent {
            region: OTHER,
            offset: 0,
            length: self.size,
        };
        match self.deed {
            Some(Deed::ExtentsRunning) => {
                extents = vec![Extent {
                    region: RUNNING,
                    ..whole
                }]
            }
            Some(Deed::ExtentsRecord) => {
                extents = vec![Extent {
                    region: RECORD,
                    ..whole
                }]
            }
            Some(Deed::ExtentsNotLent) => {
                extents = vec![Extent {
                    region: 99,
                    ..whole
                }]
            }
            Some(Deed::ExtentsOverflow) => {
                extents = vec![Extent {
                    offset: u64::MAX - 7,
                    ..whole
                }];
            }
            Some(Deed::ExtentsOverlap) => {
                let half = Extent {
                    length: self.size / 2,
                    ..whole
                };
                let rest = Extent {
                    length: self.size - half.length,
                    ..whole
                };
                extents = vec![half, rest];
            }
            Some(Deed::ExtentsMany) => extents = vec![Extent { length: 1, ..whole }; 1000],
            Some(Deed::ExtentsNone) => extents.clear(),
            Some(Deed::ExtentsMove) if self.written > 0 => {
                extents = vec![Extent {
                    offset: 4096,
                    ..whole
                }];
            }
            Some(Deed::HugeExtents) => extents = vec![whole; 15_000],
            _ => {}
        }
        Ok(extents)
    }

    fn examine(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::Else);
        self.inner.examine()
    }

    fn install(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::Install);
        match self.deed {
            Some(Deed::NeverEnds) => {
                self.installing = true;
                for_ever(Wake {
                    after_ms: Some(1000),
                    ..Wake::default()
                })
            }
            Some(Deed::SleepsOn) => {
                self.installing = true;
                for_ever(Wake {
                    on_input: true,
                    ..Wake::default()
                })
            }
            Some(Deed::LiesOfProgress) => {
                self.installing = true;
                Duty::working(
                    u64::MAX,
                    1,
                    Wake {
                        after_ms: Some(0),
                        ..Wake::default()
                    },
                )
            }
            Some(Deed::AnswersElse) => Duty::answer(Answer::State(TargetState {
                code: pal_sdk::state::VALID,
                running: None,
                runs_new: Some(true),
            })),
            _ => self.inner.install(),
        }
    }

    fn activate(&mut self, mut sha256: [u8; 32]) -> Result<Duty, Failure> {
        self.misbehave(At::Activate);
        if self.is(Deed::ForgesMark) {
            sha256 = [0xe5; 32];
        }
        self.inner.activate(sha256)
    }

    fn reset(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::Else);
        self.inner.reset()
    }

    fn self_test(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::SelfTest);
        self.inner.self_test()
    }

    fn commit(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::Commit);
        if self.is(Deed::CommitsNothing) {
            return Duty::done();
        }
        self.inner.commit()
    }

    fn reject(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::Else);
        self.inner.reject()
    }

    fn state(&mut self) -> Result<Duty, Failure> {
        self.misbehave(At::State);
        if self.is(Deed::HugeText) {
            return Err(Failure::new(0xd0, 1, &"evil ".repeat(HUGE_BYTES / 5)));
        }
        self.inner.state()
    }

    fn abort(&mut self) -> Result<Duty, Failure> {
        self.installing = false;
        self.misbehave(At::Else);
        self.inner.abort()
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, Failure> {
        match self.deed {
            Some(Deed::NeverEnds) if self.installing => for_ever(Wake {
                after_ms: Some(1000),
                ..Wake::default()
            }),
            Some(Deed::SleepsOn) if self.installing => for_ever(Wake {
                on_input: true,
                ..Wake::default()
            }),
            Some(Deed::LiesOfProgress) if self.installing => {
                self.installing = false;
                Duty::done()
            }
            _ => self.inner.step(budget_bytes),
        }
    }

    fn suspend(&mut self) -> Result<Blob, Failure> {
        self.misbehave(At::Else);
        let mut blob = self.inner.suspend()?;
        if self.is(Deed::HugeSaved) {
            blob.bytes = vec![0xe5; HUGE_BYTES];
        }
        Ok(blob)
    }
}
