//! What all ports of one world stand on: the time, the count of calls, the cut, the trace.
//!
//! Every call of the process under test that leaves a mark outside of it (storage, state directory, transport, commands)
//! goes through [`Ground::call`], which counts it and takes the power away where a run was told to. Reads are not
//! counted: nothing changes between the call before a read and the read, so a cut there is the cut after that call.
//! From a cut on nothing that the process does has any effect, until the world starts it again.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::ports::clock::Clock;

use crate::ailment::Spell;
use crate::random::Random;
use crate::trace::{Event, Trace};

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Write to a region, or to a file of the state directory.
    Write,
    /// Erase in a region.
    Erase,
    /// Make a region or a file durable.
    Sync,
    /// Create or empty a file.
    Create,
    /// Rename a file.
    Rename,
    /// Make the names of a directory durable.
    SyncDirectory,
    /// Delete a file.
    Remove,
    /// Publish a message.
    Publish,
    /// Subscribe, unsubscribe, fetch.
    Ask,
    /// Run an operator's command; pulse a reset input.
    Run,
    /// Write to a serial line.
    Send,
}

impl Verb {
    /// Whether a part of it can have happened.
    #[must_use]
    pub fn can_tear(self) -> bool {
        match self {
            Self::Write | Self::Erase | Self::Sync | Self::Send => true,
            Self::Create
            | Self::Rename
            | Self::SyncDirectory
            | Self::Remove
            | Self::Publish
            | Self::Ask
            | Self::Run => false,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Erase => "erase",
            Self::Sync => "sync",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::SyncDirectory => "sync-directory",
            Self::Remove => "remove",
            Self::Publish => "publish",
            Self::Ask => "ask",
            Self::Run => "run",
            Self::Send => "send",
        })
    }
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutKind {
    /// The process is killed: what it wrote is in the page cache and stays.
    Kill,
    /// The power goes: of what was not synced any part may be lost.
    Power,
}

/// When it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Before the call has any effect.
    Before,
    /// When a part of it has happened; as `Before` where a call has no parts.
    During,
    /// When all of it has happened, and nobody heard of it.
    After,
}

/// One cut of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// At which call of the run, from 1; calls of a process that was started again are counted on.
    pub call: u64,
    /// When.
    pub moment: Moment,
    /// What.
    pub kind: CutKind,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::During => "during",
            Moment::After => "after",
        };
        let kind = match self.kind {
            CutKind::Kill => "kill",
            CutKind::Power => "power",
        };
        write!(f, "{kind} {moment} #{}", self.call)
    }
}

/// A call, for count and trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) verb: Verb,
    pub(crate) place: &'a str,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Call<'a> {
    pub(crate) fn new(verb: Verb, place: &'a str) -> Self {
        Self {
            verb,
            place,
            offset: 0,
            length: 0,
            bytes: &[],
        }
    }

    pub(crate) fn write(place: &'a str, offset: u64, bytes: &'a [u8]) -> Self {
        Self {
            offset,
            length: bytes.len() as u64,
            bytes,
            ..Self::new(Verb::Write, place)
        }
    }
}

/// How much of a call is to happen.
pub(crate) enum Extent<'r> {
    All,
    /// A part, which this draws.
    Part(&'r mut Random),
}

/// See the module. Clones are the same ground.
#[derive(Clone)]
pub struct Ground(Arc<Shared>);

struct Shared {
    now_ms: AtomicU64,
    /// Wall clock in seconds at instant 0, with all jumps so far; [`u64::MAX`] = not known.
    wall_base_s: AtomicU64,
    books: Mutex<Books>,
}

struct Books {
    calls: u64,
    /// Later cuts first.
    cuts: Vec<Cut>,
    off: Option<Cut>,
    random: Random,
    trace: Option<Trace>,
    /// Of every call so far, if somebody wants to know.
    verbs: Option<Vec<Verb>>,
    /// That a call has met.
    spells: Vec<Spell>,
}

impl Ground {
    pub(crate) fn new(seed: u64, now_ms: u64, wall_s: Option<u64>, mut cuts: Vec<Cut>) -> Self {
        cuts.sort_unstable();
        cuts.reverse();
        Self(Arc::new(Shared {
            now_ms: AtomicU64::new(now_ms),
            wall_base_s: AtomicU64::new(wall_s.unwrap_or(u64::MAX)),
            books: Mutex::new(Books {
                calls: 0,
                cuts,
                off: None,
                random: Random::stream(seed, "tears"),
                trace: None,
                verbs: None,
                spells: Vec::new(),
            }),
        }))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep_trace(&self) {
        self.books().trace = Some(Trace::default());
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.books().trace.is_some()
    }

    pub(crate) fn learn(&self) {
        self.books().verbs = Some(Vec::new());
    }

    pub(crate) fn take_trace(&self) -> Trace {
        self.books().trace.take().unwrap_or_default()
    }

    pub(crate) fn take_verbs(&self) -> Vec<Verb> {
        self.books().verbs.take().unwrap_or_default()
    }

    /// A call meets this spell.
    pub(crate) fn meets(&self, spell: &Spell) {
        let spells = &mut self.books().spells;
        if !spells.contains(spell) {
            spells.push(spell.clone());
        }
    }

    pub(crate) fn take_spells(&self) -> Vec<Spell> {
        std::mem::take(&mut self.books().spells)
    }

    /// Virtual time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_now(&self, now_ms: u64) {
        self.0.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Move the wall clock, and nothing else, by so many seconds; it stops at 1970.
    pub fn jump_wall(&self, seconds: i64) {
        let base = self.0.wall_base_s.load(Ordering::Relaxed);
        if base != u64::MAX {
            let moved = base.saturating_add_signed(seconds).min(u64::MAX - 1);
            self.0.wall_base_s.store(moved, Ordering::Relaxed);
        }
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.books().calls
    }

    /// The cut that has happened and that nobody has answered yet.
    pub(crate) fn is_off(&self) -> Option<Cut> {
        self.books().off
    }

    /// The process is started again.
    pub(crate) fn switch_on(&self) {
        self.books().off = None;
    }

    /// Cut now, between two calls.
    pub(crate) fn cut_now(&self, kind: CutKind) {
        let mut books = self.books();
        let call = books.calls;
        books.off.get_or_insert(Cut {
            call,
            moment: Moment::After,
            kind,
        });
    }

    pub(crate) fn note(&self, event: impl FnOnce() -> Event) {
        let at = self.now_ms();
        if let Some(trace) = &mut self.books().trace {
            trace.add(at, event());
        }
    }

    /// Make a call: count it, let as much of it happen as the cuts allow.
    ///
    /// # Errors
    /// What `act` says; or that the process does not live any more.
    pub(crate) fn call<R>(
        &self,
        call: &Call<'_>,
        act: impl FnOnce(Extent<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let cut = {
            let mut books = self.books();
            if books.off.is_some() {
                return Err(gone());
            }
            books.calls += 1;
            books.record(self.now_ms(), call);
            let number = books.calls;
            books.cuts.pop_if(|cut| cut.call <= number)
        };
        let Some(cut) = cut else {
            return act(Extent::All);
        };
        match cut.moment {
            Moment::During if call.verb.can_tear() => {
                let mut random = self.books().random.clone();
                // What the process would have been told is told to nobody.
                drop(act(Extent::Part(&mut random)));
                self.books().random = random;
            }
            Moment::Before | Moment::During => {}
            Moment::After => drop(act(Extent::All)),
        }
        let mut books = self.books();
        books.off = Some(cut);
        // Others for the same call are for the same cut.
        while books.cuts.pop_if(|other| other.call <= cut.call).is_some() {}
        Err(gone())
    }
}

impl Books {
    fn record(&mut self, now_ms: u64, call: &Call<'_>) {
        if let Some(verbs) = &mut self.verbs {
            verbs.push(call.verb);
        }
        let number = self.calls;
        if let Some(trace) = &mut self.trace {
            trace.add(
                now_ms,
                Event::Call {
                    number,
                    verb: call.verb,
                    place: call.place.to_owned(),
                    offset: call.offset,
                    length: call.length,
                    crc: crc32c::crc32c(call.bytes),
                },
            );
        }
    }
}

/// What a process is told that does not live any more. Nobody sees what it makes of it.
fn gone() -> io::Error {
    io::Error::other("the process does not live any more")
}

impl Clock for Ground {
    fn now_ms(&self) -> u64 {
        Self::now_ms(self)
    }

    fn wall_s(&self) -> Option<u64> {
        let base = self.0.wall_base_s.load(Ordering::Relaxed);
        (base != u64::MAX).then(|| base.saturating_add(self.now_ms() / 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(call: u64, moment: Moment) -> Cut {
        Cut {
            call,
            moment,
            kind: CutKind::Power,
        }
    }

    /// How much of each of four writes happens: 0 nothing, 1 a part, 2 all.
    fn happened(cuts: Vec<Cut>) -> Vec<u8> {
        let ground = Ground::new(1, 0, None, cuts);
        (0..4)
            .map(|_| {
                let mut how = 0;
                let end = ground.call(&Call::write("x", 0, b"abc"), |extent| {
                    how = match extent {
                        Extent::All => 2,
                        Extent::Part(_) => 1,
                    };
                    Ok(())
                });
                assert!(end.is_err() || how == 2);
                how
            })
            .collect()
    }

    #[test]
    fn a_cut_falls_before_during_or_after_its_call_and_nothing_follows_it() {
        assert_eq!(happened(vec![]), [2, 2, 2, 2]);
        assert_eq!(happened(vec![cut(3, Moment::Before)]), [2, 2, 0, 0]);
        assert_eq!(happened(vec![cut(3, Moment::During)]), [2, 2, 1, 0]);
        assert_eq!(happened(vec![cut(3, Moment::After)]), [2, 2, 2, 0]);
    }

    #[test]
    fn after_a_start_the_next_cut_is_waited_for() {
        let ground = Ground::new(
            1,
            0,
            None,
            vec![cut(2, Moment::After), cut(1, Moment::Before)],
        );
        let write = || ground.call(&Call::write("x", 0, b"abc"), |_| Ok(()));
        assert!(write().is_err());
        ground.switch_on();
        assert!(write().is_err());
        assert_eq!(ground.is_off(), Some(cut(2, Moment::After)));
        ground.switch_on();
        assert!(write().is_ok());
        assert_eq!(ground.calls(), 3);
    }

    #[test]
    fn the_wall_clock_goes_with_the_time_and_jumps_by_itself() {
        let ground = Ground::new(1, 5000, Some(1_900_000_000), Vec::new());
        assert_eq!(ground.wall_s(), Some(1_900_000_005));
        ground.set_now(7000);
        ground.jump_wall(-1_000_000_000);
        assert_eq!(ground.wall_s(), Some(900_000_007));
        ground.jump_wall(-1_000_000_000);
        assert_eq!((ground.wall_s(), ground.now_ms()), (Some(7), 7000));
        assert_eq!(Ground::new(1, 0, None, Vec::new()).wall_s(), None);
    }
}
