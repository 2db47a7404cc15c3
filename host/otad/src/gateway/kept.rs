//! Builds that an operator has put in the place of configured ones: which of them serves at a place, and their bytes.
//!
//! The bytes are kept in the state directory by their digest, so that the choice (`host_runtime::choice`) holds without the
//! file that they came from. What no place names any more goes at the next start. Not here: whether a file may be loaded, and
//! the swap itself (`host-runtime`).

use std::collections::BTreeSet;
use std::io;

use host_crypto::hex;
use host_runtime::choice::{self, Build, Choice, Place};
use host_runtime::ports::state_dir::StateDir;

use super::GatewayError;
use crate::exit::Failed;

/// What serves at a place.
pub(super) struct Serving<B> {
    pub(super) build: B,
    /// The build before it.
    pub(super) former: Option<B>,
    /// The one that serves has not proved itself yet.
    pub(super) on_trial: bool,
}

/// The build that serves at a place: the one that was chosen, as long as the configuration names the one, `label`, that it
/// was chosen in place of.
///
/// # Errors
/// The configured build cannot be loaded. (A chosen one that cannot be is logged, and the one before it serves.)
pub(super) fn serving<B>(
    state: &dyn StateDir,
    place: &Place,
    label: &str,
    configured: impl Fn() -> Result<B, GatewayError>,
    kept: impl Fn(&Build) -> Result<B, Failed>,
) -> Result<Serving<B>, GatewayError> {
    let only = |build| Serving {
        build,
        former: None,
        on_trial: false,
    };
    let Some(choice) = chosen(state, place) else {
        return configured().map(only);
    };
    if choice.configured != label {
        tracing::info!("{place}: the configuration names another build now: {label} serves");
        if let Err(error) = choice::forget(state, place) {
            tracing::warn!("{place}: the former choice stays: {error}");
        }
        return configured().map(only);
    }
    let former = choice.former.as_ref().and_then(|build| {
        let lost = |error: &Failed| tracing::warn!("{place}: no way back: {error}");
        kept(build).inspect_err(lost).ok()
    });
    match kept(&choice.serves) {
        Ok(build) => Ok(Serving {
            build,
            former,
            on_trial: choice.on_trial,
        }),
        Err(error) => {
            tracing::error!("{place}: the build before serves: {error}");
            match former {
                Some(former) => Ok(only(former)),
                None => configured().map(only),
            }
        }
    }
}

/// What was chosen for a place. What cannot be read is told where the place is set up.
fn chosen(state: &dyn StateDir, place: &Place) -> Option<Choice> {
    choice::load(state, place).unwrap_or_default()
}

/// Name of a build's bytes in a folder of the state directory, which ends with a slash.
pub(super) fn name(folder: &str, sha256: &[u8; 32]) -> String {
    format!("{folder}{}", hex(sha256))
}

/// Let go what no place names. What is kept of a build begins with its digest. Nothing goes if one choice cannot be read:
/// that one may name it.
pub(super) fn sweep(state: &dyn StateDir, folder: &str, places: impl Iterator<Item = Place>) {
    if let Err(error) = try_sweep(state, folder, places) {
        tracing::warn!("builds that nothing names any more stay in {folder}: {error}");
    }
}

fn try_sweep(
    state: &dyn StateDir,
    folder: &str,
    places: impl Iterator<Item = Place>,
) -> io::Result<()> {
    let mut named = BTreeSet::new();
    for place in places {
        let choice = choice::load(state, &place)?;
        let builds = choice.map(|choice| [Some(choice.serves), choice.former]);
        let builds = builds.into_iter().flatten().flatten();
        named.extend(builds.map(|build| name(folder, &build.sha256)));
    }
    let files = state.list(folder)?;
    let stem = |file: &str| file.split('.').next().unwrap_or_default().to_owned();
    let mut unnamed = files.iter().filter(|file| !named.contains(&stem(file)));
    unnamed.try_for_each(|file| state.remove(file))
}
