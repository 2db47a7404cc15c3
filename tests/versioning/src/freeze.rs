//! The freeze of released versions: `wit/frozen/<package>-<version>/` holds byte copies, `wit/frozen/DIGESTS` a line
//! `<sha256>  <folder>/<file>` for each file, as `sha256sum` writes and checks them.
//!
//! Releasing is copying the current texts and appending their lines ([`release`]). Everything else is a violation:
//! an edit, a file too many or too few, or a current text that claims a released version and differs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::Error;

/// Files below `wit/` by path with `/`.
pub type Folder = BTreeMap<String, Vec<u8>>;

/// Where released versions lie, below `wit/`.
pub const FROZEN: &str = "frozen/";
/// The list of digests, below `wit/`.
pub const DIGESTS: &str = "frozen/DIGESTS";

/// Reads all files below a folder.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn read(top: &Path) -> Result<Folder, Error> {
    let mut folder = Folder::new();
    read_below(top, "", &mut folder)?;
    Ok(folder)
}

fn read_below(at: &Path, below: &str, folder: &mut Folder) -> Result<(), Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    for entry in fs::read_dir(at).map_err(io(at))? {
        let path = entry.map_err(io(at))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if below.is_empty() {
            name.into_owned()
        } else {
            format!("{below}/{name}")
        };
        if path.is_dir() {
            read_below(&path, &name, folder)?;
        } else {
            folder.insert(name, fs::read(&path).map_err(io(&path))?);
        }
    }
    Ok(())
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The digest that stands for a whole released version: over the lines of its files in `DIGESTS`, sorted.
#[must_use]
pub fn released(wit: &Folder) -> BTreeMap<String, String> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text(wit, DIGESTS).lines() {
        if let Some((_, path)) = line.split_once("  ") {
            let version = path.split('/').next().unwrap_or_default();
            versions
                .entry(version.to_owned())
                .or_default()
                .insert(line.to_owned());
        }
    }
    let join = |lines: BTreeSet<String>| {
        lines
            .into_iter()
            .map(|line| line + "\n")
            .collect::<String>()
    };
    versions
        .into_iter()
        .map(|(version, lines)| (version, digest(join(lines).as_bytes())))
        .collect()
}

/// Finds everything that breaks the freeze.
#[must_use]
pub fn violations(wit: &Folder) -> Vec<String> {
    let mut found = Vec::new();
    let mut listed = BTreeMap::new();
    for (number, line) in text(wit, DIGESTS).lines().enumerate() {
        match line.split_once("  ") {
            Some((sum, path)) if is_digest(sum) && path.contains('/') => {
                if listed.insert(path, sum).is_some() {
                    found.push(format!("{DIGESTS} lists {path} twice"));
                }
            }
            _ => found.push(format!(
                "line {} of {DIGESTS} is no digest and path",
                number + 1
            )),
        }
    }
    for (path, sum) in &listed {
        match wit.get(&format!("{FROZEN}{path}")) {
            None => found.push(format!(
                "{FROZEN}{path} is gone; a released text is kept for ever"
            )),
            Some(bytes) if digest(bytes) != **sum => {
                found.push(format!(
                    "{FROZEN}{path} was edited; a released text never changes"
                ));
            }
            Some(_) => {}
        }
    }
    for path in wit.keys().filter_map(|path| path.strip_prefix(FROZEN)) {
        if format!("{FROZEN}{path}") != DIGESTS && !listed.contains_key(path) {
            found.push(format!(
                "{FROZEN}{path} has no digest; only a release adds files"
            ));
        }
    }
    for package in packages(wit) {
        found.extend(false_claims(wit, &package));
    }
    found
}

/// A current package whose version is released must be equal to the frozen one.
fn false_claims(wit: &Folder, package: &str) -> Vec<String> {
    let current = files_below(wit, &format!("{package}/"));
    let Some(version) = version_of(&current, package) else {
        return vec![format!(
            "{package} does not say `package ota:{package}@<version>;` exactly once"
        )];
    };
    let frozen = files_below(wit, &format!("{FROZEN}{package}-{version}/"));
    if frozen.is_empty() || frozen == current {
        return Vec::new();
    }
    let names: BTreeSet<&str> = current.keys().chain(frozen.keys()).copied().collect();
    names
        .into_iter()
        .filter(|name| current.get(name) != frozen.get(name))
        .map(|name| {
            format!("{package}/{name} differs from the released {package}-{version}; give the package a new version")
        })
        .collect()
}

/// Copies the current texts of a package into the freeze and appends their digests.
///
/// # Errors
/// The version is released already, the tree breaks the freeze as it is, or a file cannot be written.
pub fn release(wit: &Path, package: &str) -> Result<String, Error> {
    let folder = read(wit)?;
    if let Some(first) = violations(&folder).into_iter().next() {
        return Err(Error::Release(first));
    }
    let current = files_below(&folder, &format!("{package}/"));
    let Some(version) = version_of(&current, package) else {
        return Err(Error::Release(format!("there is no package {package}")));
    };
    let name = format!("{package}-{version}");
    if !files_below(&folder, &format!("{FROZEN}{name}/")).is_empty() {
        return Err(Error::Release(format!("{name} is released already")));
    }
    let mut digests = text(&folder, DIGESTS).to_owned();
    for (file, bytes) in current {
        digests += &format!("{}  {name}/{file}\n", digest(bytes));
        write(&wit.join(FROZEN).join(&name).join(file), bytes)?;
    }
    write(&wit.join(DIGESTS), digests.as_bytes())?;
    Ok(name)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(io)?;
    fs::write(path, bytes).map_err(io)
}

fn text<'a>(wit: &'a Folder, path: &str) -> &'a str {
    wit.get(path)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or_default()
}

fn is_digest(sum: &str) -> bool {
    sum.len() == 64
        && sum
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Folders that hold current texts.
fn packages(wit: &Folder) -> BTreeSet<String> {
    let wits = wit
        .keys()
        .filter(|path| path.ends_with(".wit") && !path.starts_with(FROZEN));
    wits.filter_map(|path| path.split_once('/'))
        .map(|(package, _)| package.to_owned())
        .collect()
}

fn files_below<'a>(wit: &'a Folder, prefix: &str) -> BTreeMap<&'a str, &'a [u8]> {
    wit.iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix(prefix)?, bytes.as_slice())))
        .collect()
}

fn version_of<'a>(files: &BTreeMap<&str, &'a [u8]>, package: &str) -> Option<&'a str> {
    let start = format!("package ota:{package}@");
    let lines = files
        .values()
        .filter_map(|bytes| std::str::from_utf8(bytes).ok())
        .flat_map(str::lines);
    let mut versions =
        lines.filter_map(|line| line.trim().strip_prefix(start.as_str())?.strip_suffix(';'));
    let version = versions.next()?;
    versions.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with `ota:agent@0.1.0` released and a draft of `ota:pal`.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            (
                "agent/types.wit",
                "/// The package.\npackage ota:agent@0.1.0;\n",
            ),
            ("agent/world.wit", "world agent {}\n"),
            ("pal/types.wit", "package ota:pal@0.1.0;\n"),
            ("README.md", "# wit\n"),
            ("frozen/DIGESTS", ""),
        ];
        for (path, text) in files {
            write(&dir.path().join(path), text.as_bytes()).unwrap();
        }
        assert_eq!(release(dir.path(), "agent").unwrap(), "agent-0.1.0");
        dir
    }

    fn check(change: impl FnOnce(&Path), expected: &[&str]) {
        let dir = tree();
        change(dir.path());
        assert_eq!(violations(&read(dir.path()).unwrap()), expected);
    }

    fn put(wit: &Path, path: &str, text: &str) {
        write(&wit.join(path), text.as_bytes()).unwrap();
    }

    #[test]
    fn a_release_keeps_the_bytes_and_breaks_nothing() {
        check(|_| (), &[]);
        let dir = tree();
        let copy = fs::read(dir.path().join("frozen/agent-0.1.0/world.wit")).unwrap();
        assert_eq!(copy, b"world agent {}\n");
        assert_eq!(
            released(&read(dir.path()).unwrap())
                .keys()
                .collect::<Vec<_>>(),
            ["agent-0.1.0"]
        );
    }

    #[test]
    fn an_edit_of_a_released_text_is_found() {
        check(
            |wit| {
                put(wit, "agent/types.wit", "package ota:agent@0.2.0;\n");
                put(wit, "frozen/agent-0.1.0/world.wit", "world agent { }\n");
            },
            &["frozen/agent-0.1.0/world.wit was edited; a released text never changes"],
        );
    }

    #[test]
    fn an_edit_with_its_digest_changes_what_stands_for_the_version() {
        let dir = tree();
        let before = released(&read(dir.path()).unwrap());
        put(dir.path(), "frozen/agent-0.1.0/world.wit", "x");
        let digests = fs::read_to_string(dir.path().join(DIGESTS)).unwrap();
        put(
            dir.path(),
            DIGESTS,
            &digests.replace(&digest(b"world agent {}\n"), &digest(b"x")),
        );
        assert_ne!(released(&read(dir.path()).unwrap()), before);
    }

    #[test]
    fn a_missing_and_an_extra_file_are_found() {
        check(
            |wit| {
                fs::remove_file(wit.join("frozen/agent-0.1.0/types.wit")).unwrap();
                put(wit, "agent/types.wit", "package ota:agent@0.2.0;\n");
                put(wit, "frozen/agent-0.1.0/new.wit", "");
                put(
                    wit,
                    "frozen/pal-0.1.0/types.wit",
                    "package ota:pal@0.1.0;\n",
                );
            },
            &[
                "frozen/agent-0.1.0/types.wit is gone; a released text is kept for ever",
                "frozen/agent-0.1.0/new.wit has no digest; only a release adds files",
                "frozen/pal-0.1.0/types.wit has no digest; only a release adds files",
            ],
        );
    }

    #[test]
    fn a_current_text_that_claims_a_released_version_is_found() {
        check(
            |wit| {
                put(wit, "agent/world.wit", "world agent { import x; }\n");
                put(wit, "agent/more.wit", "interface x {}\n");
            },
            &[
                "agent/more.wit differs from the released agent-0.1.0; give the package a new version",
                "agent/world.wit differs from the released agent-0.1.0; give the package a new version",
            ],
        );
        check(
            |wit| {
                put(wit, "agent/types.wit", "package ota:agent@0.1.1;\n");
                put(wit, "agent/world.wit", "world agent { import x; }\n");
            },
            &[],
        );
    }

    #[test]
    fn a_package_without_a_version_and_a_broken_list_are_found() {
        check(
            |wit| {
                put(wit, "pal/types.wit", "package ota:pal;\n");
                let digests = fs::read_to_string(wit.join(DIGESTS)).unwrap();
                put(wit, DIGESTS, &format!("{digests}abc  agent-0.1.0/x\n"));
            },
            &[
                "line 3 of frozen/DIGESTS is no digest and path",
                "pal does not say `package ota:pal@<version>;` exactly once",
            ],
        );
    }

    #[test]
    fn a_version_is_released_once() {
        let dir = tree();
        let error = release(dir.path(), "agent").unwrap_err().to_string();
        assert_eq!(error, "agent-0.1.0 is released already");
        assert!(release(dir.path(), "nothing").is_err());
    }
}
