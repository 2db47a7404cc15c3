//! May this file be loaded? Asked once for each file of a plugin, wherever it is named: in the configuration, by
//! `otad plugin swap`, or among the builds that were kept. What it says of itself (world, version, imports) is checked
//! when it is loaded; not here either: which target it fits.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use host_runtime::plugin::native::LIBRARY_MAX_BYTES;

use crate::config::Config;
use crate::exit::{Exit, Failed};

/// Whether what came from this file may be loaded.
///
/// # Errors
/// [`Exit::Refused`] if not, with what to do.
pub(crate) fn allow(config: &Config, path: &Path) -> Result<(), Failed> {
    if config.development.allow_file_plugins {
        return Ok(());
    }
    let text = format!(
        "{}: only plugins that come with otad are loaded; `allow_file_plugins = true` in [development] loads files that nobody has signed",
        path.display()
    );
    Err(Failed::new(Exit::Refused, text))
}

/// Its bytes, read once, if it may be loaded.
///
/// # Errors
/// As [`allow`]; [`Exit::Failed`] if it cannot be read.
pub(crate) fn read(config: &Config, path: &Path) -> Result<Vec<u8>, Failed> {
    allow(config, path)?;
    let failed = |e: std::io::Error| Failed::chain(Exit::Failed, &path.display().to_string(), &e);
    // Nobody waits for the other end of a pipe.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        let text = format!("{} is no file", path.display());
        return Err(Failed::new(Exit::Refused, text));
    }
    // A component may have less, which is looked at when it is loaded.
    let limit = LIBRARY_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(failed)?;
    Ok(bytes)
}
