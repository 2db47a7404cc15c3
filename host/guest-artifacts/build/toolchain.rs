//! What the toolchain must have and what it must not leave behind in a guest: the standard library for wasm32, and paths
//! of this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::flags;

/// No WASI: a guest has exactly the imports of its world.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Make sure that the target's standard library is there, through rustup if need be.
pub(crate) fn require_target(rustc: &Path) -> Result<(), String> {
    if target_is_there(rustc)? {
        return Ok(());
    }
    // Inside cargo RUSTUP_TOOLCHAIN names the toolchain of this build; rustup follows it.
    let attempt = match Command::new("rustup")
        .args(["target", "add", TARGET])
        .output()
    {
        Ok(output) if output.status.success() && target_is_there(rustc)? => return Ok(()),
        Ok(output) => format!(
            "`rustup target add {TARGET}` did not help ({}): {}",
            output.status,
            last_line(&output.stderr)
        ),
        Err(e) => format!("rustup could not be run ({e})"),
    };
    Err(format!(
        "the guests need the standard library for {TARGET}, which {} does not have; {attempt}\n\
         with rustup:      rustup target add {TARGET}\n\
         without rustup:   install your distribution's package of it, or build with a rustup toolchain\n\
         without either:   OTAD_GUESTS=DIR cargo build, where DIR holds the files of a release",
        rustc.display()
    ))
}

fn target_is_there(rustc: &Path) -> Result<bool, String> {
    let dir = ask(rustc, &["--print", "target-libdir", "--target", TARGET])?;
    // The directory alone may be left over from an uninstalled target.
    Ok(fs::read_dir(dir).is_ok_and(|files| {
        files.filter_map(Result::ok).any(|file| {
            let name = file.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    }))
}

/// Compiler flags that replace every directory of this machine.
pub(crate) fn remap_flags(
    rustc: &Path,
    workspace: &Path,
    target_dir: &Path,
) -> Result<Vec<String>, String> {
    let mut pairs = Vec::new();
    if let Some(home) = cargo_home() {
        pairs.push((home.clone(), "/cargo".to_owned()));
        // One directory for each registry source, with a hash in its name that depends on the configuration.
        let sources = home.join("registry/src");
        let mut registries: Vec<PathBuf> = fs::read_dir(&sources)
            .map(|dir| dir.filter_map(|e| Some(e.ok()?.path())).collect())
            .unwrap_or_default();
        registries.sort();
        pairs.extend(
            registries
                .into_iter()
                .map(|registry| (registry, "/cargo/registry".to_owned())),
        );
    }
    let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
    let version = ask(rustc, &["-vV"])?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .unwrap_or("unknown");
    pairs.push((sysroot.clone(), "/sysroot".to_owned()));
    // With rust-src installed the compiler finds the sources of std and would name them by their real place.
    pairs.push((
        sysroot.join("lib/rustlib/src/rust"),
        format!("/rustc/{commit}"),
    ));
    pairs.push((workspace.to_owned(), "/otad".to_owned()));
    // The places of panics stand in the guest as text: of agent-core as `stream/grid.rs`.
    for (room, name) in [
        ("agent-wasm/agent-core/src/", ""),
        ("agent-wasm/agent-guest/src", "guest"),
    ] {
        pairs.push((PathBuf::from(room), name.to_owned()));
    }
    pairs.push((target_dir.to_owned(), "/target".to_owned()));
    Ok(flags::remap(pairs))
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    })
}

fn ask(rustc: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(rustc)
        .args(arguments)
        .output()
        .map_err(|e| format!("{}: {e}", rustc.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{} {}: {}",
            rustc.display(),
            arguments.join(" "),
            last_line(&output.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.trim().lines().last().unwrap_or_default().to_owned()
}
