//! What the cloud keeps on disk: its state in an embedded data base, images by digest, and a lock.
//!
//! ```text
//! <dir>/lock             held while a cloud runs here
//! <dir>/state.redb       things, groups, jobs, streams and executions; a row each
//! <dir>/images/<sha256>  images, never changed once they have their name
//! <dir>/pki/             certificates and keys
//! ```
//!
//! Only rows that changed are written, all that wait at that time in one transaction, synced before it counts. The data
//! base is copy-on-write with checksums: a process killed or a power cut at any instant leaves the last transaction that
//! was acknowledged, or one later. It is checked whole at each start; what does not add up is a named error, never a
//! smaller state.

mod legacy;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::fs::{FlockOperation, flock};

use crate::{
    error::CloudError,
    file::{self, PRIVATE},
    images::ImageDir,
    service::{RowChange, RowError, ServiceError, State, Table},
};

/// File name of the data base.
const STATE: &str = "state.redb";
/// Memory for its pages: the whole state lives in the service, so this only helps writing.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

fn rows(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

/// The cloud's directory.
pub(crate) struct Store {
    dir: PathBuf,
    /// `None` after an error: it is opened again for the next transaction.
    database: Mutex<Option<Database>>,
    /// Held as long as this lives.
    _lock: File,
}

impl Store {
    /// Takes the directory for this process, and reads the state; an empty one where there was never any.
    pub(crate) fn open(dir: &Path) -> Result<(Self, State), CloudError> {
        file::private_dir(dir)?;
        let path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| CloudError::io("open", &path, &e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(CloudError::InUse(dir.display().to_string()));
        }
        let path = dir.join(STATE);
        let (database, state) = guarded(&path, || load(&path))?;
        let mut store = Self {
            dir: dir.to_owned(),
            database: Mutex::new(Some(database)),
            _lock: lock,
        };
        let state = store.take_over_legacy(state)?;
        Ok((store, state))
    }

    /// A cloud of an earlier build kept its state in another file: it moves here, once.
    fn take_over_legacy(&mut self, state: State) -> Result<State, CloudError> {
        let path = self.dir.join(legacy::FILE);
        if state != State::default() {
            return Ok(state);
        }
        let Some(state) = legacy::read(&path)? else {
            // The row that says which schema the others have must be there before any of them: things alone do not
            // change it.
            self.commit(&state.rows())?;
            return Ok(state);
        };
        self.commit(&state.rows())?;
        let kept = self.dir.join(legacy::KEPT);
        fs::rename(&path, &kept)
            .and_then(|()| file::sync_parent(&kept))
            .map_err(|error| CloudError::io("rename", &path, &error))?;
        tracing::info!(
            from = legacy::FILE,
            to = STATE,
            "state moved; the old file is kept"
        );
        Ok(state)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stores rows, all or none; they have survived a power cut when this returns.
    pub(crate) fn commit(&self, changes: &[RowChange]) -> Result<(), CloudError> {
        let path = self.dir.join(STATE);
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            // After an error it takes no transaction any more; the rows that came to nothing are among these.
            None => guarded(&path, || open(&path))?,
        };
        let written = guarded(&path, || {
            write(&database, changes).map_err(|error| CloudError::Io {
                step: "store the state in",
                path: path.display().to_string(),
                reason: error.to_string(),
            })
        });
        if written.is_ok() {
            *slot = Some(database);
        }
        written
    }

    #[cfg(test)]
    pub(crate) fn close(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn images(&self) -> Result<ImageDir, CloudError> {
        ImageDir::open(&self.dir.join("images"))
    }
}

fn write(database: &Database, changes: &[RowChange]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        let mut opened = None;
        for change in changes.iter().filter(|change| change.table == table) {
            let rows = match &mut opened {
                Some(rows) => rows,
                None => opened.insert(transaction.open_table(rows(table))?),
            };
            match &change.value {
                Some(value) => rows.insert(change.key.as_str(), value.as_slice())?,
                None => rows.remove(change.key.as_str())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Opens the data base, checks all of it and reads the state.
fn load(path: &Path) -> Result<(Database, State), CloudError> {
    let mut database = open(path)?;
    let sound = database
        .check_integrity()
        .map_err(|error| damaged(path, error.to_string()))?;
    if !sound {
        return Err(damaged(
            path,
            "pages do not match their checksums".to_owned(),
        ));
    }
    let rows = read(&database).map_err(|error| damaged(path, error.to_string()))?;
    match State::from_rows(rows) {
        Ok(state) => Ok((database, state)),
        Err(RowError::Schema { found, known }) => {
            Err(ServiceError::UnknownSchema { found, known }.into())
        }
        Err(error @ RowError::Row { .. }) => Err(damaged(path, error.to_string())),
    }
}

fn open(path: &Path) -> Result<Database, CloudError> {
    let failed = |error: &std::io::Error| CloudError::io("open", path, error);
    if !path.try_exists().map_err(|e| failed(&e))? {
        create(path)?;
    }
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.open(path).map_err(|error| match error {
        redb::DatabaseError::Storage(redb::StorageError::Io(error))
            if !matches!(
                error.kind(),
                // It ends in the middle of a page, or has another beginning.
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            failed(&error)
        }
        other => damaged(path, other.to_string()),
    })
}

/// Makes an empty data base beside its place and moves it there: a file of that name is never half made.
fn create(path: &Path) -> Result<(), CloudError> {
    let failed = |error: &std::io::Error| CloudError::io("create", path, error);
    let fresh = path.with_extension("new");
    file::remove_quietly(&fresh);
    let file = file::create_new(&fresh, PRIVATE).map_err(|e| failed(&e))?;
    drop(file);
    let options = File::options().read(true).write(true).open(&fresh);
    let database = Database::builder().create_file(options.map_err(|e| failed(&e))?);
    drop(database.map_err(|error| CloudError::Io {
        step: "create",
        path: path.display().to_string(),
        reason: error.to_string(),
    })?);
    fs::rename(&fresh, path)
        .and_then(|()| file::sync_parent(path))
        .map_err(|e| failed(&e))
}

fn read(database: &Database) -> Result<Vec<(Table, String, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut found = Vec::new();
    for table in Table::ALL {
        let rows = match transaction.open_table(rows(table)) {
            Ok(rows) => rows,
            Err(redb::TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for row in rows.iter()? {
            let (key, value) = row?;
            found.push((table, key.value().to_owned(), value.value().to_vec()));
        }
    }
    Ok(found)
}

/// The data base trusts the structure of its file and may panic where a damaged one leads it astray.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, CloudError>) -> Result<T, CloudError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "its structure makes no sense".to_owned())))
}

fn damaged(path: &Path, reason: String) -> CloudError {
    CloudError::Damaged {
        path: path.display().to_string(),
        reason,
    }
}
