//! Storage and state directory in memory, with a power switch: every operation that changes something is counted, and
//! the power can be cut before, in the middle of, or after any of them. What was not synced may be lost then.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::ports::state_dir::StateDir;
use crate::ports::storage::Storage;
use crate::target::StorageFactory;

/// When in an operation the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Before,
    During,
    After,
}

/// What happens to an operation.
#[derive(PartialEq, Eq)]
enum Luck {
    Whole,
    Torn,
    WholeThenDark,
}

/// The power of a simulated machine.
#[derive(Default)]
pub(super) struct Power(Mutex<Switch>);

#[derive(Default)]
struct Switch {
    dark: bool,
    count: u64,
    cut_at: Option<(u64, Cut)>,
    errno: Option<i32>,
    full: bool,
}

impl Power {
    /// Operations so far.
    pub(super) fn count(&self) -> u64 {
        self.0.lock().unwrap().count
    }

    /// Cut it at operation `n` (0 = the next one).
    pub(super) fn cut_at(&self, n: u64, cut: Cut) {
        let mut switch = self.0.lock().unwrap();
        switch.cut_at = Some((switch.count + n, cut));
    }

    /// It is back, and stays.
    pub(super) fn restore(&self) {
        let mut switch = self.0.lock().unwrap();
        switch.dark = false;
        switch.cut_at = None;
    }

    /// From now on every change fails with this errno: a full or read-only disk.
    pub(super) fn fail_with(&self, errno: Option<i32>) {
        self.0.lock().unwrap().errno = errno;
    }

    /// No byte more fits on the medium until something is erased or removed.
    pub(super) fn fill_up(&self) {
        self.0.lock().unwrap().full = true;
    }

    /// Something was erased or removed.
    pub(super) fn make_room(&self) {
        self.0.lock().unwrap().full = false;
    }

    pub(super) fn is_dark(&self) -> bool {
        self.0.lock().unwrap().dark
    }

    fn tick(&self) -> io::Result<Luck> {
        let mut switch = self.0.lock().unwrap();
        if switch.dark {
            return Err(io::Error::other("no power"));
        }
        if let Some(errno) = switch.errno {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if switch.full {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::NOSPC.raw_os_error(),
            ));
        }
        let now = switch.count;
        switch.count += 1;
        match switch.cut_at {
            Some((at, cut)) if at == now => {
                switch.dark = true;
                match cut {
                    Cut::Before => Err(io::Error::other("no power")),
                    Cut::During => Ok(Luck::Torn),
                    Cut::After => Ok(Luck::WholeThenDark),
                }
            }
            _ => Ok(Luck::Whole),
        }
    }

    fn end(luck: &Luck) -> io::Result<()> {
        match luck {
            Luck::Whole => Ok(()),
            Luck::Torn | Luck::WholeThenDark => Err(io::Error::other("no power")),
        }
    }
}

/// Bytes of one state file that are durable, and as they read now.
#[derive(Clone, Default)]
struct Bytes {
    durable: Vec<u8>,
    now: Vec<u8>,
}

/// Bytes of a storage: the medium, the page cache above it, and what of that is still to be written.
#[derive(Clone, Default)]
struct Pages {
    durable: Vec<u8>,
    now: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

impl Pages {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        let from = self.now.len().min(offset);
        // A gap reads as zeros, as in a file; behind the last byte that was written it had read as 0xff.
        self.now.resize(self.now.len().max(end), 0);
        self.now[offset..end].copy_from_slice(data);
        self.dirty.push(from..end);
    }

    fn erase(&mut self, start: usize, end: usize) {
        let length = self.now.len();
        if end >= length {
            self.now.truncate(start);
        } else {
            self.now[start..end].fill(0xff);
        }
        self.dirty.push(start..end.min(length));
    }

    /// What is dirty reaches the medium.
    fn flush(&mut self) {
        for range in std::mem::take(&mut self.dirty) {
            let end = range.end.min(self.now.len());
            let range = range.start.min(end)..end;
            if self.durable.len() < end {
                self.durable.resize(end, 0xff);
            }
            self.durable[range.clone()].copy_from_slice(&self.now[range]);
        }
        self.durable.truncate(self.now.len());
    }

    /// As after a failed fsync: what was dirty counts as written, reads as if it were, and is not on the medium.
    fn lose_write_back(&mut self) {
        self.dirty.clear();
    }

    /// What is clean is read from the medium again.
    fn evict(&mut self) {
        let mut seen = self.durable.clone();
        for range in &self.dirty {
            let end = range.end.min(self.now.len());
            if seen.len() < end {
                seen.resize(end, 0xff);
            }
            let range = range.start.min(end)..end;
            seen[range.clone()].copy_from_slice(&self.now[range]);
        }
        self.now = seen;
    }
}

/// Called by whoever reads, before he does.
type OnRead = Arc<dyn Fn() + Send + Sync>;

/// One region or staging file.
pub(super) struct MemoryStorage {
    power: Arc<Power>,
    capacity: u64,
    pages: Mutex<Pages>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    on_read: Mutex<Option<OnRead>>,
    read_errno: Mutex<Option<i32>>,
    /// This storage alone fails from now on.
    errno: Mutex<Option<i32>>,
    /// Its syncs do, and nothing else.
    sync_errno: Mutex<Option<i32>>,
    /// Whoever wants room is told this.
    room_errno: Mutex<Option<i32>>,
}

impl MemoryStorage {
    pub(super) fn new(power: &Arc<Power>, capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            power: Arc::clone(power),
            capacity,
            pages: Mutex::default(),
            reads: AtomicU64::default(),
            read_bytes: AtomicU64::default(),
            on_read: Mutex::default(),
            read_errno: Mutex::default(),
            errno: Mutex::default(),
            sync_errno: Mutex::default(),
            room_errno: Mutex::default(),
        })
    }

    /// What a reader sees.
    pub(super) fn contents(&self) -> Vec<u8> {
        self.pages().now.clone()
    }

    /// What is left of it without power.
    pub(super) fn durable(&self) -> Vec<u8> {
        self.pages().durable.clone()
    }

    /// Reads so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes read so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Whoever reads calls this before.
    pub(super) fn on_read(&self, call: impl Fn() + Send + Sync + 'static) {
        *self.on_read.lock().unwrap() = Some(Arc::new(call));
    }

    /// Nothing can be read from now on, or it can again.
    pub(super) fn fail_reads(&self, errno: Option<i32>) {
        *self.read_errno.lock().unwrap() = errno;
    }

    /// Lay down bytes, durable at once.
    pub(super) fn fill(&self, bytes: &[u8]) {
        *self.pages() = Pages {
            durable: bytes.to_vec(),
            now: bytes.to_vec(),
            dirty: Vec::new(),
        };
    }

    /// Somebody turns one bit behind everybody's back.
    pub(super) fn flip(&self, bit: usize) {
        let mut pages = self.pages();
        pages.now[bit / 8] ^= 1 << (bit % 8);
        let now = pages.now.clone();
        *pages = Pages {
            durable: now.clone(),
            now,
            dirty: Vec::new(),
        };
    }

    /// What was not synced is gone.
    pub(super) fn lose_unsynced(&self) {
        let mut pages = self.pages();
        pages.dirty.clear();
        pages.evict();
    }

    pub(super) fn fail_with(&self, errno: Option<i32>) {
        *self.errno.lock().unwrap() = errno;
    }

    /// Nothing is made durable from now on, or it is again.
    pub(super) fn fail_syncs(&self, errno: Option<i32>) {
        *self.sync_errno.lock().unwrap() = errno;
    }

    /// There is no room from now on for what is not written yet, or there is again.
    pub(super) fn fail_to_reserve(&self, errno: Option<i32>) {
        *self.room_errno.lock().unwrap() = errno;
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap()
    }

    fn tick(&self) -> io::Result<Luck> {
        if let Some(errno) = *self.errno.lock().unwrap() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.power.tick()
    }
}

impl Storage for MemoryStorage {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.power.is_dark() {
            return Err(io::Error::other("no power"));
        }
        let on_read = self.on_read.lock().unwrap().clone();
        if let Some(on_read) = on_read {
            on_read();
        }
        if let Some(errno) = *self.read_errno.lock().unwrap() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes
            .fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let pages = self.pages();
        for (at, byte) in (offset as usize..).zip(buffer) {
            *byte = pages.now.get(at).copied().unwrap_or(0xff);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 > self.capacity {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let luck = self.tick()?;
        let part = match luck {
            Luck::Torn => data.len() / 2,
            Luck::Whole | Luck::WholeThenDark => data.len(),
        };
        let mut pages = self.pages();
        pages.write(offset as usize, &data[..part]);
        if luck == Luck::Torn {
            // The torn half has reached the medium.
            pages.flush();
        }
        Power::end(&luck)
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        self.power.make_room();
        let luck = self.tick()?;
        let (start, end) = (offset as usize, (offset + length) as usize);
        self.pages().erase(start, end);
        Power::end(&luck)
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        match *self.room_errno.lock().unwrap() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let ill = *self.sync_errno.lock().unwrap();
        let luck = match ill {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.tick(),
        };
        let luck = luck.inspect_err(|_| self.pages().lose_write_back())?;
        if luck != Luck::Torn {
            self.pages().flush();
        }
        Power::end(&luck)
    }

    fn evict(&self) -> io::Result<()> {
        self.pages().evict();
        Ok(())
    }
}

/// A staging file.
pub(super) struct MemoryStaging {
    power: Arc<Power>,
    file: Mutex<Option<Arc<MemoryStorage>>>,
}

impl MemoryStaging {
    pub(super) fn new(power: &Arc<Power>) -> Arc<Self> {
        Arc::new(Self {
            power: Arc::clone(power),
            file: Mutex::default(),
        })
    }

    pub(super) fn file(&self) -> Option<Arc<MemoryStorage>> {
        self.file.lock().unwrap().clone()
    }
}

impl StorageFactory for MemoryStaging {
    fn open(&self, capacity: u64) -> io::Result<Arc<dyn Storage>> {
        let luck = self.power.tick()?;
        let mut file = self.file.lock().unwrap();
        let file = file.get_or_insert_with(|| MemoryStorage::new(&self.power, capacity));
        Power::end(&luck)?;
        Ok(Arc::clone(file) as _)
    }

    fn remove(&self) -> io::Result<()> {
        self.power.make_room();
        let luck = self.power.tick()?;
        if luck != Luck::Torn {
            *self.file.lock().unwrap() = None;
        }
        Power::end(&luck)
    }
}

/// A state directory.
pub(super) struct MemoryState {
    power: Arc<Power>,
    files: Mutex<BTreeMap<String, Bytes>>,
    written: Mutex<u64>,
    /// Calls so far that have to wait for a medium.
    slow: AtomicU64,
    errno: Mutex<Option<i32>>,
    unreadable: AtomicBool,
}

impl MemoryState {
    pub(super) fn new(power: &Arc<Power>) -> Arc<Self> {
        Arc::new(Self {
            power: Arc::clone(power),
            files: Mutex::default(),
            written: Mutex::default(),
            slow: AtomicU64::default(),
            errno: Mutex::default(),
            unreadable: AtomicBool::default(),
        })
    }

    /// Calls so far that have to wait for a medium: all but reads and appends without sync.
    pub(super) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// Nothing can be read, or it can again.
    pub(super) fn fail_reads(&self, fail: bool) {
        self.unreadable.store(fail, Ordering::Relaxed);
    }

    /// This directory alone fails from now on.
    pub(super) fn fail_with(&self, errno: Option<i32>) {
        *self.errno.lock().unwrap() = errno;
    }

    fn tick(&self, slow: bool) -> io::Result<Luck> {
        self.slow.fetch_add(slow.into(), Ordering::Relaxed);
        if let Some(errno) = *self.errno.lock().unwrap() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.power.tick()
    }

    pub(super) fn lose_unsynced(&self) {
        for bytes in self.files.lock().unwrap().values_mut() {
            bytes.now = bytes.durable.clone();
        }
    }

    /// Bytes written in all.
    pub(super) fn written(&self) -> u64 {
        *self.written.lock().unwrap()
    }

    fn count(&self, bytes: &[u8]) {
        *self.written.lock().unwrap() += bytes.len() as u64;
    }
}

impl StateDir for MemoryState {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if self.power.is_dark() || self.unreadable.load(Ordering::Relaxed) {
            return Err(io::Error::other("no power"));
        }
        Ok(self.files.lock().unwrap().get(name).map(|b| b.now.clone()))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let luck = self.tick(true)?;
        // Temp file and rename: torn = the old one is still there.
        if luck != Luck::Torn {
            self.count(bytes);
            self.files.lock().unwrap().insert(
                name.to_owned(),
                Bytes {
                    durable: bytes.to_vec(),
                    now: bytes.to_vec(),
                },
            );
        }
        Power::end(&luck)
    }

    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let luck = self.tick(sync)?;
        self.count(bytes);
        let mut files = self.files.lock().unwrap();
        let file = files.entry(name.to_owned()).or_default();
        let part = match luck {
            Luck::Torn => bytes.len() / 2,
            Luck::Whole | Luck::WholeThenDark => bytes.len(),
        };
        file.now.extend_from_slice(&bytes[..part]);
        if sync || luck == Luck::Torn {
            file.durable = file.now.clone();
        }
        Power::end(&luck)
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        let luck = self.tick(true)?;
        if luck != Luck::Torn
            && let Some(file) = self.files.lock().unwrap().get_mut(name)
        {
            file.durable = file.now.clone();
        }
        Power::end(&luck)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.power.make_room();
        let luck = self.tick(true)?;
        if luck != Luck::Torn {
            self.files.lock().unwrap().remove(name);
        }
        Power::end(&luck)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        Ok(files
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect())
    }
}
