//! The `otad` binary that the tests run as a user would.
//!
//! `cargo test` builds it with everything else (the package has integration tests, for which cargo builds its
//! binaries), so that normally it only has to be found beside the test's own executable. Where it is missing or older
//! than one of its sources, which cargo's dep-info file lists, cargo is asked to build it. `OTAD_BIN` names another one,
//! beside which nothing is written.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use crate::Error;

const NAME: &str = "otad";

/// Built along with the program: with an example cargo adds up features as `cargo test` does, and finds what that built.
const EXAMPLE: &str = "shared_connection";

/// The path of the program, found or built once per test process.
///
/// # Panics
/// When it can be neither found nor built: no test that asks for it can go on.
#[must_use]
#[expect(
    clippy::panic,
    reason = "the text of the build error is what the developer needs"
)]
pub fn otad() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| locate().unwrap_or_else(|error| panic!("{error}")))
}

/// A command that runs it, with no input and without settings that the developer's own environment may hold.
#[must_use]
pub fn otad_command() -> Command {
    let mut command = Command::new(otad());
    let own = std::env::vars_os().map(|(name, _)| name);
    for name in own.filter(|name| name.to_string_lossy().starts_with("OTAD_")) {
        command.env_remove(name);
    }
    command.stdin(std::process::Stdio::null());
    command.env("OTAD_DAEMON__CACHE_DIR", code_cache());
    command
}

/// Where all daemons of the tests keep their compiled components: compiling the agent takes a debug build seconds.
#[must_use]
pub fn code_cache() -> PathBuf {
    target_folder().join("otad-code-cache")
}

/// Cargo's target folder: the test's own, and the program's only where the test does not know its own.
///
/// # Panics
/// As [`otad`].
#[must_use]
pub fn target_folder() -> PathBuf {
    let profile = own_profile().ok();
    let profile = profile.as_deref().or_else(|| otad().parent());
    let folder = profile.and_then(Path::parent);
    folder.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// The path of an example of the package `otad`, found or built.
///
/// # Panics
/// As [`otad`].
#[must_use]
#[expect(clippy::panic, reason = "as above")]
pub fn example(name: &str) -> PathBuf {
    let locate = || {
        let profile = own_profile()?;
        let folder = profile.join("examples");
        let binary = folder.join(name);
        if !is_fresh(&binary, &folder.join(format!("{name}.d"))) {
            build(&profile, &["--bin", NAME, "--example", name])?;
        }
        Ok::<_, Error>(binary)
    };
    locate().unwrap_or_else(|error| panic!("{error}"))
}

/// The right to be the only one that fills the code cache, as long as it is cold.
#[derive(Debug)]
pub struct Warming {
    lock: Option<File>,
    marker: PathBuf,
}

/// Waits while another test fills the code cache. Whoever gets a cold one starts a daemon, waits until it is ready, and
/// says [`Warming::done`].
///
/// # Errors
/// The folder cannot be used.
pub fn warm_code_cache() -> Result<Warming, Error> {
    let cache = code_cache();
    let marker = cache.with_extension("warm");
    let lock = File::create(cache.with_extension("lock")).map_err(Error::io("making a lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| Error::io("taking the lock of the code cache")(errno.into()))?;
    // Another agent may be in a newer program, or in another one.
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let is_warm = cache.is_dir()
        && modified(&marker) >= modified(otad())
        && fs::read(&marker).is_ok_and(|by| by == otad().as_os_str().as_encoded_bytes());
    Ok(Warming {
        lock: (!is_warm).then_some(lock),
        marker,
    })
}

impl Warming {
    /// Whether a start has to compile.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.lock.is_some()
    }

    /// The cache is warm now.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn done(self) -> Result<(), Error> {
        if self.is_cold() {
            let by = otad().as_os_str().as_encoded_bytes();
            fs::write(&self.marker, by).map_err(Error::io("marking the code cache as warm"))?;
        }
        Ok(())
    }
}

fn locate() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("OTAD_BIN").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Error::Missing {
                path,
                hint: "OTAD_BIN must name a program",
            })
        };
    }
    let profile = own_profile()?;
    let binary = profile.join(NAME);
    if !is_fresh(&binary, &profile.join(format!("{NAME}.d"))) {
        build(&profile, &["--bin", NAME, "--example", EXAMPLE])?;
    }
    let hint = "cargo built it somewhere else; set OTAD_BIN";
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(Error::Missing { path: binary, hint })
    }
}

/// The folder of this test's own profile.
fn own_profile() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("asking for the test's own path"))?;
    let hint = "the test does not lie in a cargo target folder; set OTAD_BIN";
    profile_folder(&own).ok_or(Error::Missing { path: own, hint })
}

/// `target/debug` for `target/debug/deps/test-0123`, and for `target/debug/test`.
fn profile_folder(own: &Path) -> Option<PathBuf> {
    let folder = own.parent()?;
    let is_inner = folder
        .file_name()
        .is_some_and(|name| name == "deps" || name == "examples");
    Some(if is_inner {
        folder.parent()?.to_owned()
    } else {
        folder.to_owned()
    })
}

/// Whether the binary is at least as new as each source in its dep-info file.
fn is_fresh(binary: &Path, dep_info: &Path) -> bool {
    let modified = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    let Some(built) = modified(binary) else {
        return false;
    };
    let Ok(text) = fs::read_to_string(dep_info) else {
        return false;
    };
    // A source that is gone needs a build too.
    sources(&text)
        .iter()
        .all(|source| modified(source).is_some_and(|changed: SystemTime| changed <= built))
}

/// The prerequisites of a dep-info file: one rule in make's syntax, blanks escaped by a backslash.
fn sources(text: &str) -> Vec<PathBuf> {
    let Some((_, list)) = text.lines().next().and_then(|line| line.split_once(": ")) else {
        return Vec::new();
    };
    let marked = list.replace("\\ ", "\0");
    marked
        .split_whitespace()
        .map(|path| PathBuf::from(path.replace('\0', " ")))
        .collect()
}

fn build(profile: &Path, what: &[&str]) -> Result<(), Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("build").args(what).current_dir(workspace());
    if let Some(target) = profile.parent() {
        command.arg("--target-dir").arg(target);
    }
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => {
            command.args(["--profile", name]);
        }
    }
    let output = command.output().map_err(Error::io("running cargo"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Build {
        what: NAME.to_owned(),
        status: output.status,
        said,
    })
}

/// The top of the project's tree.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_folder_is_found_from_each_kind_of_executable() {
        for own in ["t/debug/deps/e2e-12", "t/debug/examples/x", "t/debug/otad"] {
            assert_eq!(
                profile_folder(Path::new(own)),
                Some(PathBuf::from("t/debug")),
                "{own}"
            );
        }
    }

    #[test]
    fn the_target_folder_is_the_tests_own_whatever_program_is_named() {
        const EXPECTED: &str = "EXPECTED_TARGET_FOLDER";
        if let Some(expected) = std::env::var_os(EXPECTED) {
            assert_eq!(target_folder(), expected);
            return;
        }
        // Each process looks for its program once: this test again, in another one.
        let dir = crate::temp_dir("named").unwrap();
        let program = dir.path().join("t/debug/otad");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        let own = std::env::current_exe().unwrap();
        let output = Command::new(&own)
            .arg("the_target_folder_is_the_tests_own")
            .env("OTAD_BIN", &program)
            .env(EXPECTED, profile_folder(&own).unwrap().parent().unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    fn sources_with_blanks_are_read_from_a_dep_info_file() {
        let list = sources("t/debug/otad: a/main.rs a\\ b/lib.rs\n\na/main.rs:\n");
        assert_eq!(
            list,
            [PathBuf::from("a/main.rs"), PathBuf::from("a b/lib.rs")]
        );
    }

    #[test]
    fn a_missing_or_older_binary_is_not_fresh() {
        let dir = crate::temp_dir("fresh").unwrap();
        let at = |name: &str| dir.path().join(name);
        let touch = |name: &str, seconds: u64| {
            fs::write(at(name), "").unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options()
                .write(true)
                .open(at(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        touch("a.rs", 100);
        fs::write(at("otad.d"), format!("otad: {}\n", at("a.rs").display())).unwrap();
        assert!(!is_fresh(&at("otad"), &at("otad.d")));
        touch("otad", 100);
        assert!(is_fresh(&at("otad"), &at("otad.d")));
        touch("a.rs", 101);
        assert!(!is_fresh(&at("otad"), &at("otad.d")));
        fs::remove_file(at("a.rs")).unwrap();
        assert!(!is_fresh(&at("otad"), &at("otad.d")));
    }
}
