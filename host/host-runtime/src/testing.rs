//! Ports for the unit tests of this crate: a state directory in memory, workers that run when told, no wake.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use crate::ports::state_dir::StateDir;
use crate::ports::workers::{Wake, Work, Workers};

/// Wakes nobody.
pub(crate) fn no_wake() -> Wake {
    Arc::new(|| {})
}

/// A state directory in memory that fails when told.
#[derive(Debug, Default)]
pub(crate) struct FakeState {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    errno: Mutex<Option<i32>>,
    writes: Mutex<usize>,
}

impl FakeState {
    /// From now on every write fails with this errno.
    pub(crate) fn fail_with(&self, errno: Option<i32>) {
        *self.errno.lock().unwrap() = errno;
    }

    /// Writes so far, failed ones too.
    pub(crate) fn writes(&self) -> usize {
        *self.writes.lock().unwrap()
    }

    fn write(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> io::Result<()> {
        *self.writes.lock().unwrap() += 1;
        match *self.errno.lock().unwrap() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                change(&mut self.files.lock().unwrap());
                Ok(())
            }
        }
    }
}

impl StateDir for FakeState {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().unwrap().get(name).cloned())
    }

    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(|files| {
            files.insert(name.to_owned(), bytes.to_vec());
        })
    }

    fn append(&self, name: &str, bytes: &[u8], _sync: bool) -> io::Result<()> {
        self.write(|files| {
            files
                .entry(name.to_owned())
                .or_default()
                .extend_from_slice(bytes);
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.write(|files| {
            files.remove(name);
        })
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

/// Workers that run one piece of work each time they are told.
#[derive(Default)]
pub(crate) struct StepWorkers(Mutex<VecDeque<Work>>);

impl StepWorkers {
    /// Run the oldest work; false if there is none.
    pub(crate) fn run_one(&self) -> bool {
        let work = self.0.lock().unwrap().pop_front();
        let ran = work.is_some();
        if let Some(work) = work {
            work();
        }
        ran
    }

    /// How much waits.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Workers for StepWorkers {
    fn run(&self, work: Work) {
        self.0.lock().unwrap().push_back(work);
    }
}
