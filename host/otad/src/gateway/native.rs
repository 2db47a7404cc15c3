//! Native plugins: where each runs and what it may open. A grant that would let one at the gateway's own files is
//! refused, by the paths that are really there.

use std::fs;
use std::path::{Component, Path, PathBuf};

use host_runtime::plugin::native::{Confinement, HostProgram, Isolation};
use host_runtime::ports::commands::Starter;

use crate::config::{
    AgentChoice, Config, Located, Native, Password, PluginChoice, Reset, ResetBy, Target,
};

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

/// The bytes of a plugin that is part of otad, if there are any.
pub(super) fn there(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.is_empty() {
        return Err(
            "this build of otad has no native form of it; use the component, without `carrier`"
                .to_owned(),
        );
    }
    Ok(bytes)
}

/// Where a native plugin runs.
///
/// # Errors
/// A grant that cannot be given.
pub(crate) fn isolation(config: &Config, native: &Native) -> Result<Isolation, GrantError> {
    if native.in_process {
        return Ok(Isolation::InProcess);
    }
    let own = closed(config);
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
        memory_max_bytes: None,
    };
    Ok(Isolation::Process(host(), confinement))
}

/// The program that holds a plugin: this one, or, where an application has linked this library, the `otad` that its
/// `PATH` leads to. (An application started anew would be a second application.)
pub(crate) fn host() -> HostProgram {
    if is_otad() {
        return HostProgram::this();
    }
    HostProgram {
        program: PathBuf::from(OTAD),
        ..HostProgram::this()
    }
}

/// What the operator's programs are started through: this program, where it is otad.
pub(crate) fn starter() -> Option<Starter> {
    is_otad().then(|| Starter {
        program: HostProgram::this().program,
        words: vec![TIE.into()],
    })
}

fn is_otad() -> bool {
    let this = std::env::current_exe().ok();
    let name = this.as_deref().and_then(Path::file_name);
    name.is_some_and(|name| name.to_string_lossy().starts_with(OTAD))
}

/// The first word of the process that a program of the operator's begins as. It is not among the verbs: to know those takes
/// longer than to be it.
pub(crate) const TIE: &str = "tie";

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

/// The path with all links followed, also one to what is not there yet; where nothing is, `..` goes by the letter.
pub(crate) fn real_ancestor(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut links = LINKS_MAX;
    followed(&path, &mut links)
}

/// As many as Linux follows (path_resolution(7)); one more is opened by nobody.
const LINKS_MAX: u32 = 40;

fn followed(path: &Path, links: &mut u32) -> PathBuf {
    let mut real = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            real.pop();
            continue;
        }
        let above = real.clone();
        real.push(part);
        if *links > 0
            && let Ok(to) = fs::read_link(&real)
        {
            *links -= 1;
            real = followed(&above.join(to), links);
        }
    }
    real
}

/// What is the gateway's alone: state, code, trust, keys. Nothing that is brought to a target is written there.
pub(crate) fn own(config: &Config) -> Vec<(PathBuf, &'static str)> {
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
    add(config.trust.directory.as_ref(), "the trust directory");
    add(
        config.daemon.plugin_dir.as_ref(),
        "the directory that plugins are put into",
    );
    for root in &config.http.roots {
        add(Some(root), "a root certificate");
    }
    for download in &config.downloads {
        let what = "a directory that images are fetched from";
        add(Some(&download.directory), what);
    }
    for device in &config.devices {
        add(device.mqtt.private_key.as_ref(), "a device's key");
        add(device.mqtt.certificate.as_ref(), "a device's certificate");
        add(device.mqtt.root_certificate.as_ref(), "a root certificate");
        let login = device.mqtt.login.as_ref();
        if let Some(Password::File(path)) = login.and_then(|login| login.password.as_ref()) {
            add(Some(path), "a password");
        }
        if let AgentChoice::File(path) = &device.component {
            add(Some(path), "an agent");
        }
        for target in &device.targets {
            if let PluginChoice::File(path) = &target.plugin {
                add(Some(path), "a plugin");
            }
        }
    }
    own
}

/// What no plugin may open: besides, storage that is lent by way of the host, and programs.
fn closed(config: &Config) -> Vec<(PathBuf, &'static str)> {
    let mut closed = own(config);
    for target in config.devices.iter().flat_map(|device| &device.targets) {
        let regions = target.regions.iter().map(|region| &region.path);
        let storage = target.directory.iter().chain(regions);
        closed.extend(storage.map(|at| (at.value.clone(), "a target's storage")));
        let staging = target.staging.iter();
        closed.extend(staging.map(|at| (at.value.clone(), "a staging file")));
    }
    closed.extend(programs(config).map(|path| (path, "a program that otad runs")));
    closed
}

/// The programs that otad runs, as far as they are not looked for in its `PATH`: whoever could write one would be run
/// without any confinement. What their arguments name is the operator's to keep.
fn programs(config: &Config) -> impl Iterator<Item = PathBuf> {
    let of_target = |target: &Target| {
        let restart = match &target.reset {
            Reset::Command(program) => Some(program),
            Reset::Plugin | Reset::Process => None,
        };
        let reset = target.hardware_reset.as_ref();
        let reset = reset.and_then(|reset| match &reset.by {
            ResetBy::Command(program) => Some(program),
            ResetBy::Gpio { .. } | ResetBy::Control { .. } => None,
        });
        let others = [&target.version_command, &target.inspect, &target.health];
        let others = others.into_iter().filter_map(Option::as_ref);
        let all = restart.into_iter().chain(reset).chain(others);
        all.cloned().collect::<Vec<_>>()
    };
    let devices = config.devices.iter();
    let programs = devices.flat_map(move |device| {
        let hooks = device.hooks.all().map(|(_, hook)| hook.program.clone());
        let targets = device.targets.iter().flat_map(of_target);
        hooks.chain(targets).collect::<Vec<_>>()
    });
    let paths = programs.filter_map(|program| Some(PathBuf::from(program.argv.first()?)));
    let is_name = |path: &Path| path.parent() == Some(Path::new(""));
    let paths = paths.filter(move |path| !is_name(path));
    paths.chain(std::env::current_exe().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A native plugin works in `pal`; what else there is of the gateway's lies elsewhere.
    fn good() -> String {
        let text = crate::config::tests::GOOD
            .replace("file_id = 0", "file_id = 1")
            .replace(
                "plugin = \"flash-file\"\ndirectory = \"targets/main\"\n",
                NATIVE,
            );
        format!("{text}[device.target.native]\ndirectories = [\"pal\"]\n")
    }

    const NATIVE: &str = r#"plugin = "./board.so"
carrier = "native"
version_from = "none"
no_revert_allowed = true
"#;

    #[test]
    fn a_native_form_that_this_otad_was_built_without_is_told() {
        assert_eq!(there(b"\x7fELF"), Ok(&b"\x7fELF"[..]));
        let reason = there(b"").unwrap_err();
        assert!(reason.contains("no native form"), "{reason}");
    }

    #[test]
    fn a_plugin_is_given_no_directory_that_holds_what_otad_runs_loads_or_fetches() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("otad.toml");
        fs::create_dir(folder.path().join("pal")).unwrap();
        let refusal = |replaced: &str, by: &str| {
            assert!(good().contains(replaced), "{replaced}");
            let config = crate::config::parse(&file, &good().replace(replaced, by), []).unwrap();
            let crate::config::Carrier::Native(native) = &config.devices[0].targets[0].carrier
            else {
                panic!("a native plugin");
            };
            isolation(&config, native).err().map(|e| e.to_string())
        };
        assert_eq!(refusal("pal", "pal"), None);
        for (replaced, by, what) in [
            ("./restart.sh", "./pal/restart.sh", "a program"),
            ("./board.so", "./pal/board.so", "a plugin"),
            ("private-key.pem", "pal/private-key.pem", "a device's key"),
            ("\"state\"", "\"pal/state\"", "the state directory"),
        ] {
            let refused = refusal(replaced, by).unwrap_or_default();
            assert!(refused.contains(what), "{by}: {refused}");
        }
    }

    #[test]
    fn a_path_is_followed_also_where_nothing_is_yet() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        let at = |name: &str| real.join(name);
        fs::create_dir_all(at("trust/below")).unwrap();
        for (name, to) in [
            ("link", "trust/below"),
            ("dangling", "link/../yet"),
            ("round", "round"),
        ] {
            std::os::unix::fs::symlink(to, at(name)).unwrap();
        }
        for (path, leads_to) in [
            ("trust", "trust"),
            ("link/..", "trust"),
            ("link/main", "trust/below/main"),
            ("not/../trust", "trust"),
            ("not/yet/./../../link/..", "trust"),
            ("dangling", "trust/yet"),
            ("dangling/main", "trust/yet/main"),
            ("round/x", "round/x"),
        ] {
            assert_eq!(real_ancestor(&at(path)), at(leads_to), "{path}");
        }
    }

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
