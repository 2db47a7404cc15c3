//! Native plugins: where each runs and what it may open. A grant that would let one at the gateway's own files is
//! refused, by the paths that are really there.

use std::fs;
use std::path::{Path, PathBuf};

use host_runtime::plugin::native::{Confinement, HostProgram, Isolation};

use crate::config::{Config, Located, Native};

/// A grant that cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Nothing is there, or it cannot be looked at.
    #[error("{}", path.display())]
    Missing {
        /// The grant.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: std::io::Error,
    },
    /// It holds, or lies in, what is the gateway's own.
    #[error("{} overlaps {}, which no plugin may open: {what}", path.display(), own.display())]
    Overlaps {
        /// The grant.
        path: PathBuf,
        /// The gateway's own.
        own: PathBuf,
        /// What that is.
        what: &'static str,
    },
}

/// Where a native plugin runs.
///
/// # Errors
/// A grant that cannot be given.
pub(crate) fn isolation(config: &Config, native: &Native) -> Result<Isolation, GrantError> {
    if native.in_process {
        return Ok(Isolation::InProcess);
    }
    let own = own(config);
    let grants = |places: &[Located<PathBuf>]| -> Result<Vec<PathBuf>, GrantError> {
        places
            .iter()
            .map(|place| grant(&place.value, &own))
            .collect()
    };
    let confinement = Confinement {
        directories: grants(&native.directories)?,
        devices: grants(&native.devices)?,
        allow_unconfined: native.allow_unconfined,
    };
    Ok(Isolation::Process(host(), confinement))
}

/// The program that holds a plugin: this one, or, where an application has linked this library, the `otad` that its
/// `PATH` leads to. (An application started anew would be a second application.)
fn host() -> HostProgram {
    let this = std::env::current_exe().ok();
    let name = this.as_deref().and_then(Path::file_name);
    if name.is_some_and(|name| name.to_string_lossy().starts_with(OTAD)) {
        return HostProgram::this();
    }
    HostProgram {
        program: PathBuf::from(OTAD),
        ..HostProgram::this()
    }
}

/// Name of the program.
const OTAD: &str = "otad";

/// The place itself, if it is nobody else's.
fn grant(path: &Path, own: &[(PathBuf, &'static str)]) -> Result<PathBuf, GrantError> {
    let real = path.canonicalize().map_err(|source| GrantError::Missing {
        path: path.to_owned(),
        source,
    })?;
    for (place, what) in own {
        // What is not there yet may lie below a link.
        let place = real_ancestor(place);
        if real.starts_with(&place) || place.starts_with(&real) {
            return Err(GrantError::Overlaps {
                path: path.to_owned(),
                own: place,
                what,
            });
        }
    }
    Ok(real)
}

/// The path with all links followed, as far as it exists.
fn real_ancestor(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut at = path;
    loop {
        if let Ok(real) = fs::canonicalize(at) {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
            return path.to_owned();
        };
        rest.push(name);
        at = parent;
    }
}

/// What no plugin may open: state, code, trust, keys, and storage that is lent by way of the host.
fn own(config: &Config) -> Vec<(PathBuf, &'static str)> {
    let mut own = vec![
        (config.daemon.state_dir.value.clone(), "the state directory"),
        (
            config.daemon.cache_dir.clone(),
            "the cache of compiled code",
        ),
        (
            config.daemon.control_socket.value.clone(),
            "the control socket",
        ),
        (config.file.clone(), "the configuration"),
    ];
    let mut add = |path: Option<&Located<PathBuf>>, what| {
        own.extend(path.map(|path| (path.value.clone(), what)));
    };
    add(config.trust.directory.as_ref(), "the trust store");
    add(
        config.daemon.plugin_dir.as_ref(),
        "what is put in from there",
    );
    for root in &config.http.roots {
        add(Some(root), "a root certificate");
    }
    for device in &config.devices {
        add(device.mqtt.private_key.as_ref(), "a device's key");
        add(device.mqtt.certificate.as_ref(), "a device's certificate");
        add(device.mqtt.root_certificate.as_ref(), "a root certificate");
        for target in &device.targets {
            add(target.staging.as_ref(), "a staging file");
            add(target.directory.as_ref(), "a target's storage");
            for region in &target.regions {
                add(Some(&region.path), "a target's storage");
            }
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_may_neither_hold_nor_lie_in_what_is_the_gateways() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["state/staging", "state-of-others", "free"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(at("state"), at("link")).unwrap();
        let own = [(at("state"), "state"), (at("not/yet"), "later")];
        for (name, may) in [
            ("free", true),
            ("state-of-others", true),
            ("state", false),
            ("state/staging", false),
            ("link/staging", false),
            ("free/../state", false),
            ("", false),
            ("missing", false),
        ] {
            assert_eq!(grant(&at(name), &own).is_ok(), may, "{name}");
        }
        fs::create_dir(at("not")).unwrap();
        assert!(grant(&at("not"), &own).is_err(), "it would hold it later");
    }
}
