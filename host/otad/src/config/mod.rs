//! The configuration file: TOML, snake_case keys, many devices with many targets, errors with file, line and cure.
//!
//! ```text
//! file -> tree (values with places) <- OTAD_SECTION__KEY   -> sections -> Config -> check (against the machine)
//! ```
//!
//! Not here: building anything from it; that is `gateway.rs`.

mod agent;
mod bandwidth;
mod build;
pub(crate) mod check;
pub mod diagnostic;
mod hooks;
mod http;
pub mod keys;
mod line;
mod model;
mod mqtt;
mod native;
mod parts;
mod place;
mod reader;
mod sections;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
pub mod words;

use std::path::Path;

pub use agent::BUILTIN_AGENTS;
pub use build::BUILD;
pub use check::{Finding, check, check_code};
pub(crate) use check::{check_plugins, check_writable};
pub use diagnostic::{ConfigError, Diagnostic, Origin};
pub use model::{
    Activation, AgentChoice, Carrier, Config, Daemon, Development, Device, Download, HardwareReset,
    Hook, Hooks, Http, Line, Login, Mqtt, Native, Password, PluginChoice, Program, Region,
    RegionKind, ReplySubscriptions, Reset, ResetBy, Target, Trust, VersionFrom,
};
pub(crate) use place::{Own, TAKEN_HELP};
pub use reader::Located;
pub use sections::{BUILTIN, BUILTIN_PLUGINS, is_thing_name};

/// Largest configuration file: a device takes some 550 bytes, and a gateway may have ten thousand.
const FILE_MAX_BYTES: u64 = 8 << 20;

/// Read `file` with the overrides of this process's environment.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let whole = |message: String, help: &str| {
        ConfigError::new(
            file,
            "",
            vec![Diagnostic::new(Origin::File, message).help(help)],
        )
    };
    let help =
        "say which file with --config FILE; `otad thing create NAME --out DIR` writes a ready one";
    match std::fs::metadata(file) {
        Ok(meta) if meta.len() > FILE_MAX_BYTES => {
            return Err(whole(
                format!("{} bytes, expected at most {FILE_MAX_BYTES}", meta.len()),
                "is this a configuration file?",
            ));
        }
        Ok(meta) if !meta.is_file() => return Err(whole("not a file".to_owned(), help)),
        Ok(_) => {}
        Err(e) => return Err(whole(format!("cannot be read: {e}"), help)),
    }
    let text =
        std::fs::read_to_string(file).map_err(|e| whole(format!("cannot be read: {e}"), help))?;
    // Absolute, so that a daemon that changes its directory still finds everything.
    let base = directory(file);
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    read(file, &base, &text, environment)
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Read a configuration from text; relative paths are relative to the directory of `file`.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub fn parse(
    file: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    read(file, directory(file), text, environment)
}

fn read(
    file: &Path,
    base: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut table = tree::parse(text).map_err(|d| ConfigError::new(file, text, d))?;
    let mut diagnostics = tree::override_from(&mut table, environment);
    let sink = reader::Sink::new(base);
    let config = sections::config(file, &table, &sink);
    diagnostics.extend(sink.into_diagnostics());
    if diagnostics.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::new(file, text, diagnostics))
    }
}
