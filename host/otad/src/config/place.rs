//! Where a target may keep its images: not where the gateway keeps what is its own.
//!
//! What lies in the trust directory says who may sign, what lies in the state directory what was verified; a target's places
//! are written with whatever it is brought. Places are compared as they are on the machine, all links followed. Not here: what
//! a native plugin may be given besides (`gateway/native.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::model::{Config, Target};
use super::reader::Located;
use crate::gateway::STAGING;
use crate::gateway::native::{self, real_ancestor};

/// A place of a target that is the gateway's own.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    /// As configured.
    pub(crate) place: &'a Located<PathBuf>,
    /// Whose it is.
    pub(crate) why: String,
}

/// What to do about one.
pub(crate) const TAKEN_HELP: &str =
    "give the target a directory of its own beside it, such as \"targets/main\"";

/// The gateway's own places.
pub(crate) struct Own {
    /// What each is.
    places: BTreeMap<PathBuf, &'static str>,
    /// Those that no place may hold either. Others may well lie beside the files of a target.
    directories: Vec<PathBuf>,
    /// That folder of the state directory is there for files of targets, and for nothing else.
    staging: PathBuf,
}

impl Own {
    /// As they are now.
    pub(crate) fn of(config: &Config) -> Self {
        let real = |(path, what): (PathBuf, _)| (real_ancestor(&path), what);
        let state_dir = &config.daemon.state_dir;
        let trust = config.trust.directory.iter();
        let directories = [state_dir].into_iter().chain(trust);
        Self {
            places: native::own(config).into_iter().map(real).collect(),
            directories: directories.map(|at| real_ancestor(&at.value)).collect(),
            staging: real_ancestor(&state_dir.value.join(STAGING)),
        }
    }

    /// Places of a target that are, hold, or lie in one of these.
    pub(crate) fn taken<'a>(&self, target: &'a Target) -> Vec<Taken<'a>> {
        let regions = target.regions.iter().map(|region| &region.path);
        let staging = target.staging.iter();
        let staging = staging.filter(|file| !real_ancestor(&file.value).starts_with(&self.staging));
        let mut taken: Vec<Taken<'a>> = Vec::new();
        for place in target.directory.iter().chain(regions).chain(staging) {
            // Regions of a directory are told by that.
            let is_told = taken.iter().any(|t| t.place.origin == place.origin);
            if !is_told && let Some(how) = self.overlap(&real_ancestor(&place.value)) {
                let why = format!("{} {how}", place.value.display());
                taken.push(Taken { place, why });
            }
        }
        taken
    }

    fn overlap(&self, real: &Path) -> Option<String> {
        let above = real.ancestors();
        let mut above = above.filter_map(|at| Some((at, self.places.get(at)?)));
        if let Some((at, what)) = above.next() {
            let how = if at == real { "is" } else { "lies in" };
            return Some(format!("{how} {what}"));
        }
        let held = self.directories.iter().find(|at| at.starts_with(real))?;
        Some(format!("holds {}", self.places.get(held)?))
    }
}
