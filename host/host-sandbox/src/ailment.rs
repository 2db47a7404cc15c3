//! Storage that ails: wrappers round the host's two storage ports, for a span of virtual time.
//!
//! A wrapper passes on what it does not spoil, and what it refuses never reaches the disk, nor the count of calls.

use std::io;

use host_runtime::ports::state_dir::{Files, OpenFile};
use host_runtime::ports::storage::Storage;

use crate::ground::Ground;
use crate::trace::Event;

/// What ails a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// No space: writes are refused (ENOSPC).
    Full,
    /// Every change is refused (EROFS).
    ReadOnly,
    /// Syncs fail (EIO); writes go through.
    SyncFails,
    /// Syncs answer that all is well and do nothing: what a removed fsync looks like. No disk that a gateway should have
    /// does this; it is here to check the checkers.
    SyncLies,
}

/// An ailment and when a storage has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spell {
    /// What.
    pub ailment: Ailment,
    /// Places whose name begins so: a target's region is `<target>/<region>`, state files have their own names.
    pub place: String,
    /// First millisecond.
    pub from_ms: u64,
    /// First millisecond without it.
    pub until_ms: u64,
}

impl Spell {
    /// An ailment of every place, for ever.
    #[must_use]
    pub fn always(ailment: Ailment) -> Self {
        Self {
            ailment,
            place: String::new(),
            from_ms: 0,
            until_ms: u64::MAX,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Write,
    /// A change that takes no space.
    Change,
    Sync,
}

/// A storage port with spells.
#[derive(Clone)]
pub(crate) struct Ailing<P> {
    pub(crate) inner: P,
    pub(crate) ground: Ground,
    pub(crate) spells: Vec<Spell>,
}

impl<P> Ailing<P> {
    /// Do something at a place, unless an ailment is before it; `lie` is what a lying sync answers.
    fn act<R>(
        &self,
        act: Act,
        place: &str,
        lie: R,
        call: impl FnOnce(&P) -> io::Result<R>,
    ) -> io::Result<R> {
        let Some(spell) = met(&self.spells, self.ground.now_ms(), act, place) else {
            return call(&self.inner);
        };
        self.ground.meets(spell);
        match spell.ailment {
            Ailment::SyncLies => Ok(lie),
            ailment => Err(self.refuse(ailment, place)),
        }
    }

    fn refuse(&self, ailment: Ailment, place: &str) -> io::Error {
        self.ground
            .note(|| Event::Refused(format!("{ailment:?} at {place}")));
        io::Error::from_raw_os_error(match ailment {
            Ailment::Full => 28,
            Ailment::ReadOnly => 30,
            Ailment::SyncFails | Ailment::SyncLies => 5,
        })
    }
}

fn met<'s>(spells: &'s [Spell], now_ms: u64, act: Act, place: &str) -> Option<&'s Spell> {
    let holds = |spell: &&Spell| {
        let now = (spell.from_ms..spell.until_ms).contains(&now_ms);
        let concerned = match spell.ailment {
            Ailment::Full => act == Act::Write,
            Ailment::ReadOnly => act != Act::Sync,
            Ailment::SyncFails | Ailment::SyncLies => act == Act::Sync,
        };
        now && concerned && place.starts_with(&spell.place)
    };
    spells.iter().find(holds)
}

/// A region with spells.
pub(crate) struct AilingRegion<S> {
    pub(crate) ailing: Ailing<S>,
    pub(crate) place: String,
}

impl<S: Storage> Storage for AilingRegion<S> {
    fn capacity(&self) -> u64 {
        self.ailing.inner.capacity()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.ailing.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ailing.act(Act::Write, &self.place, (), |inner| {
            inner.write_at(offset, data)
        })
    }
    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        self.ailing.act(Act::Change, &self.place, (), |inner| {
            inner.erase(offset, length)
        })
    }
    fn sync(&self) -> io::Result<()> {
        self.ailing.act(Act::Sync, &self.place, (), Storage::sync)
    }
    fn evict(&self) -> io::Result<()> {
        self.ailing.inner.evict()
    }
}

impl<F: Files> Files for Ailing<F> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        self.refuse_if_ill(Act::Write, name)?;
        Ok(self.wrap(name, self.inner.create(name)?))
    }

    fn append(&self, name: &str) -> io::Result<(Box<dyn OpenFile>, bool)> {
        self.refuse_if_ill(Act::Change, name)?;
        let (file, fresh) = self.inner.append(name)?;
        Ok((self.wrap(name, file), fresh))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.act(Act::Change, to, (), |inner| inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.act(Act::Change, name, (), |inner| inner.remove(name))
    }

    fn sync_directory(&self, of: &str) -> io::Result<()> {
        self.act(Act::Sync, of, (), |inner| inner.sync_directory(of))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }
}

impl<F: Files> Ailing<F> {
    fn refuse_if_ill(&self, act: Act, name: &str) -> io::Result<()> {
        self.act(act, name, (), |_| Ok(()))
    }

    fn wrap(&self, name: &str, file: Box<dyn OpenFile>) -> Box<dyn OpenFile> {
        if self.spells.is_empty() {
            return file;
        }
        Box::new(AilingFile {
            ailing: Ailing {
                inner: (),
                ground: self.ground.clone(),
                spells: self.spells.clone(),
            },
            name: name.to_owned(),
            file,
        })
    }
}

struct AilingFile {
    ailing: Ailing<()>,
    name: String,
    file: Box<dyn OpenFile>,
}

impl OpenFile for AilingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = &mut self.file;
        self.ailing
            .act(Act::Write, &self.name, (), |()| file.write(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = &mut self.file;
        self.ailing.act(Act::Sync, &self.name, (), |()| file.sync())
    }
}
