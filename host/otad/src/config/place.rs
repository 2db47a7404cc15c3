//! Where a target may keep its images: not where the gateway keeps what decides about them.
//!
//! What lies in the trust directory says who may sign, what lies in the state directory what was verified; a target's places
//! are written with whatever it is brought. Places are compared as they are on the machine, all links followed.

use std::path::PathBuf;

use super::model::{Config, Target};
use super::reader::Located;
use crate::gateway::{STAGING, native::real_ancestor};

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

/// Places of a target that are, hold, or lie in the state directory or the trust directory.
pub(crate) fn taken<'a>(config: &Config, target: &'a Target) -> Vec<Taken<'a>> {
    let state_dir = &config.daemon.state_dir.value;
    let mut own = vec![("state directory", real_ancestor(state_dir))];
    if let Some(trust) = &config.trust.directory {
        own.push(("trust directory", real_ancestor(&trust.value)));
    }
    // Regions of a directory are told by that.
    let regions = target.regions.iter().map(|region| &region.path);
    let regions = regions.filter(|_| target.directory.is_none());
    // That folder of the state directory is there for nothing else.
    let staged = real_ancestor(&state_dir.join(STAGING));
    let staging = target.staging.iter();
    let staging = staging.filter(|file| !real_ancestor(&file.value).starts_with(&staged));
    let mut taken = Vec::new();
    for place in target.directory.iter().chain(regions).chain(staging) {
        let real = real_ancestor(&place.value);
        for (what, other) in &own {
            let how = if real == *other {
                "is"
            } else if real.starts_with(other) {
                "lies in"
            } else if other.starts_with(&real) {
                "holds"
            } else {
                continue;
            };
            let why = format!("{} {how} the {what}", place.value.display());
            taken.push(Taken { place, why });
            break;
        }
    }
    taken
}
