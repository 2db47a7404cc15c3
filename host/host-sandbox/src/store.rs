//! The disk behind the host's ports: regions as [`Storage`], the state directory's files as [`Files`]. Each call that
//! leaves a mark is counted, and may be cut. Not here: faults, which are wrappers (`ailment.rs`).

use std::io;
use std::sync::Arc;

use host_runtime::ports::state_dir::{DirFiles, Files, OpenFile};
use host_runtime::ports::storage::Storage;

use crate::disk::{Disk, NodeId};
use crate::ground::{Call, Extent, Ground, Verb};

/// A region of a target.
#[derive(Clone)]
pub(crate) struct Region {
    pub(crate) ground: Ground,
    pub(crate) disk: Disk,
    pub(crate) node: NodeId,
    pub(crate) place: String,
    pub(crate) capacity: u64,
}

impl Region {
    fn offset(&self, offset: u64, length: u64) -> io::Result<usize> {
        let fits = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.capacity);
        let offset = usize::try_from(offset).ok().filter(|_| fits);
        offset.ok_or_else(|| io::Error::new(io::ErrorKind::StorageFull, "beyond the region"))
    }
}

impl Storage for Region {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.disk.read(self.node, at, buffer, 0xff);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.offset(offset, data.len() as u64)?;
        let call = Call::write(&self.place, offset, data);
        self.ground.call(&call, |extent| {
            match extent {
                Extent::All => self.disk.write(self.node, at, data),
                Extent::Part(random) => self.disk.write_part(self.node, at, data, random),
            }
            Ok(())
        })
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.disk.length(self.node);
        let at = self.offset(offset, length)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let call = Call {
            offset,
            length: length as u64,
            ..Call::new(Verb::Erase, &self.place)
        };
        self.ground.call(&call, |extent| {
            let length = match extent {
                Extent::All => length,
                Extent::Part(random) => random.below_len(length.min(end.saturating_sub(at)) + 1),
            };
            if at >= end {
                return Ok(());
            }
            if at.saturating_add(length) >= end {
                self.disk.resize(self.node, at);
            } else {
                self.disk.write(self.node, at, &vec![0xff; length]);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        sync(&self.ground, &self.disk, self.node, &self.place)
    }

    fn evict(&self) -> io::Result<()> {
        // What was synced is what the medium has.
        Ok(())
    }
}

fn sync(ground: &Ground, disk: &Disk, node: NodeId, place: &str) -> io::Result<()> {
    ground.call(&Call::new(Verb::Sync, place), |extent| {
        match extent {
            Extent::All => disk.sync(node),
            Extent::Part(random) => disk.sync_part(node, random),
        }
        Ok(())
    })
}

/// The files of the state directory.
#[derive(Clone)]
pub(crate) struct DiskFiles {
    pub(crate) ground: Ground,
    pub(crate) disk: Disk,
    /// They are real ones in a directory, and only regions are on the disk. Nothing of them is ever synced: a power cut of
    /// such a world takes nothing of them away.
    pub(crate) real: Option<Arc<DirFiles>>,
}

impl DiskFiles {
    fn call<R>(&self, verb: Verb, name: &str, act: impl FnOnce(&Disk) -> R) -> io::Result<R> {
        self.ground
            .call(&Call::new(verb, name), |_| Ok(act(&self.disk)))
    }

    fn file(&self, node: NodeId, name: &str) -> Box<dyn OpenFile> {
        Box::new(DiskFile {
            files: self.clone(),
            node,
            name: name.to_owned(),
        })
    }

    fn real_file(&self, file: Box<dyn OpenFile>, name: &str) -> Box<dyn OpenFile> {
        Box::new(RealFile {
            ground: self.ground.clone(),
            file,
            name: name.to_owned(),
        })
    }
}

impl Files for DiskFiles {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if let Some(real) = &self.real {
            return real.read(name);
        }
        let node = self.disk.open(name);
        Ok(node.map(|node| self.disk.with(node, <[u8]>::to_vec)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        if let Some(real) = &self.real {
            let call = Call::new(Verb::Create, name);
            let file = self.ground.call(&call, |_| real.create(name))?;
            return Ok(self.real_file(file, name));
        }
        let node = self.call(Verb::Create, name, |disk| {
            let (node, fresh) = disk.create(name);
            if !fresh {
                disk.resize(node, 0);
            }
            node
        })?;
        Ok(self.file(node, name))
    }

    fn append(&self, name: &str) -> io::Result<(Box<dyn OpenFile>, bool)> {
        if let Some(real) = &self.real {
            let call = Call::new(Verb::Create, name);
            let (file, fresh) = self.ground.call(&call, |_| real.append(name))?;
            return Ok((self.real_file(file, name), fresh));
        }
        // Opening a file that is there changes nothing.
        let (node, fresh) = match self.disk.open(name) {
            Some(node) => (node, false),
            None => self.call(Verb::Create, name, |disk| disk.create(name))?,
        };
        Ok((self.file(node, name), fresh))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if let Some(real) = &self.real {
            let call = Call::new(Verb::Rename, to);
            return self.ground.call(&call, |_| real.rename(from, to));
        }
        let there = self.call(Verb::Rename, to, |disk| disk.rename(from, to))?;
        found(there)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if let Some(real) = &self.real {
            let call = Call::new(Verb::Remove, name);
            return self.ground.call(&call, |_| real.remove(name));
        }
        let there = self.call(Verb::Remove, name, |disk| disk.remove(name))?;
        found(there)
    }

    fn sync_directory(&self, of: &str) -> io::Result<()> {
        self.call(Verb::SyncDirectory, of, |disk| disk.sync_directory(of))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        if let Some(real) = &self.real {
            return real.list(folder);
        }
        Ok(self.disk.list())
    }
}

fn found(there: bool) -> io::Result<()> {
    there
        .then_some(())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

struct RealFile {
    ground: Ground,
    file: Box<dyn OpenFile>,
    name: String,
}

impl OpenFile for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let call = Call::write(&self.name, 0, bytes);
        self.ground.call(&call, |_| self.file.write(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let call = Call::new(Verb::Sync, &self.name);
        self.ground.call(&call, |_| Ok(()))
    }
}

struct DiskFile {
    files: DiskFiles,
    node: NodeId,
    name: String,
}

impl OpenFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let DiskFiles { ground, disk, .. } = &self.files;
        let at = disk.length(self.node);
        ground.call(&Call::write(&self.name, at as u64, bytes), |extent| {
            match extent {
                Extent::All => disk.write(self.node, at, bytes),
                Extent::Part(random) => disk.write_part(self.node, at, bytes, random),
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        sync(&self.files.ground, &self.files.disk, self.node, &self.name)
    }
}
