//! What was accepted in a place before: the version below which nothing of the same name comes in there, and the digest
//! that may go on when its signer's certificate is over.
//!
//! A file of its own for each place, so that one device may try a build before the others have it. Not here: whether
//! somebody may go below (`gate.rs`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use host_runtime::choice::Place;
use host_runtime::ports::state_dir::{FileStateDir, StateDir as _};
use host_runtime::types::Version;
use serde::{Deserialize, Serialize};

/// Its name among the files of its place.
pub(super) const NAME: &str = "code.json";

/// Most names that are kept of a place: a plugin a year for a lifetime.
const NAMES_MAX: usize = 64;

/// What was accepted under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) version: Version,
    /// SHA-256 of the file, in hex.
    pub(super) sha256: String,
}

/// By name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Floor(BTreeMap<String, Accepted>);

impl Floor {
    /// Read it; without a file nothing was accepted yet. Nothing is created.
    pub(super) fn load(state_dir: &Path, place: &Place) -> io::Result<Self> {
        let bytes = match std::fs::read(state_dir.join(place.file(NAME))) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        serde_json::from_slice(&bytes).map_err(io::Error::from)
    }

    pub(super) fn of(&self, name: &str) -> Option<&Accepted> {
        self.0.get(name)
    }

    /// Set it, durably; true = it has changed.
    pub(super) fn set(
        &mut self,
        state_dir: &Path,
        place: &Place,
        name: &str,
        accepted: Accepted,
    ) -> io::Result<bool> {
        if self.of(name) == Some(&accepted) {
            return Ok(false);
        }
        self.0.insert(name.to_owned(), accepted);
        if self.0.len() > NAMES_MAX {
            return Err(io::Error::other(format!(
                "code of {} names has served here, at most {NAMES_MAX}; remove the file to begin anew",
                self.0.len()
            )));
        }
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        FileStateDir::open(state_dir)?.store(&place.file(NAME), &bytes)?;
        Ok(true)
    }
}
