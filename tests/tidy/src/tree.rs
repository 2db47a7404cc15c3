//! The files of the project as a map from path to bytes: read once from disk, or made by a unit test.
//!
//! It reads the work tree rather than the index, so that a file is judged before it is committed; what
//! `.gitignore` names (build folders, editor swap files) is left out by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Finding};

/// A crate that is a workspace of its own, for `cargo fuzz` demands that; it holds one call a file.
const OWN_WORKSPACE: &[&str] = &["tests/fuzz/fuzz"];

/// Biggest file that may be kept in the tree. 1 MiB: everything here is text, and anything bigger is an artefact that a
/// build or a test can make by itself.
pub const FILE_SIZE_MAX_BYTES: usize = 1024 * 1024;

/// What may lie at the top: the seven fixed names, then what tools look for there.
pub const TOP_LEVEL: &[(&str, &str)] = &[
    ("Cargo.toml", "fixed: virtual manifest"),
    ("README.md", "fixed: what it is, and where to go"),
    ("wit", "fixed: the contract"),
    ("agent-wasm", "fixed: the agent"),
    ("pal-plugins", "fixed: the plugins"),
    ("host", "fixed: the runtime"),
    ("tests", "fixed: the judges"),
    ("Cargo.lock", "cargo writes it; a program keeps it"),
    ("LICENSE", "where licence scanners look"),
    (".cargo", "cargo's settings"),
    (".ci", "what continuous integration runs"),
    (".clippy.toml", "clippy's settings"),
    (".gitignore", "git's settings"),
    ("deny.toml", "cargo-deny's settings"),
];

/// The files of a project, by path with `/` from the top.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads everything below `top`.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn read(top: &Path) -> Result<Self, Error> {
        let mut tree = Self::default();
        tree.read_folder(top, "")?;
        Ok(tree)
    }

    /// A tree in memory, for unit tests.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = pairs
            .into_iter()
            .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
            .collect();
        Self { files }
    }

    /// All paths with their bytes, in order.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// All files that are text, in order.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter_map(|(path, bytes)| Some((path, std::str::from_utf8(bytes).ok()?)))
    }

    /// All Rust sources, in order.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// One file as text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files
            .get(path)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Folders that hold a crate of this workspace, such as `host/otad`.
    #[must_use]
    pub fn crate_folders(&self) -> Vec<&str> {
        self.files
            .keys()
            .filter_map(|path| path.strip_suffix("/Cargo.toml"))
            .filter(|folder| !OWN_WORKSPACE.contains(folder))
            .collect()
    }

    fn read_folder(&mut self, folder: &Path, below: &str) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: folder.display().to_string(),
            source,
        };
        for entry in fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_left_out(below, &name) {
                continue;
            }
            let path = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() {
                self.read_folder(&entry.path(), &path)?;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).map_err(|source| Error::Io {
                    path: path.clone(),
                    source,
                })?;
                self.files.insert(path, bytes);
            }
        }
        Ok(())
    }
}

fn is_left_out(below: &str, name: &str) -> bool {
    if Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "swp")
    {
        return true;
    }
    below.is_empty() && (name == ".git" || name == "target" || name.starts_with("target-"))
}

/// The top of this project's tree.
#[must_use]
pub fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Finds names at the top that are not in [`TOP_LEVEL`].
#[must_use]
pub fn strange_names(tree: &Tree) -> Vec<Finding> {
    let mut names: Vec<&str> = tree
        .files()
        .filter_map(|(path, _)| path.split('/').next())
        .collect();
    names.dedup();
    names
        .into_iter()
        .filter(|name| !TOP_LEVEL.iter().any(|(allowed, _)| allowed == name))
        .map(|name| {
            Finding::new(
                name,
                "is not one of the names at the top level; put it into a room",
            )
        })
        .collect()
}

/// Finds files past [`FILE_SIZE_MAX_BYTES`].
#[must_use]
pub fn big_files(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .filter(|(_, bytes)| bytes.len() > FILE_SIZE_MAX_BYTES)
        .map(|(path, bytes)| {
            Finding::new(
                path,
                format!(
                    "has {} bytes, at most {FILE_SIZE_MAX_BYTES} are kept",
                    bytes.len()
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_name_at_the_top_is_found() {
        let tree = Tree::from_pairs([
            ("README.md", ""),
            ("docs/a.md", ""),
            ("host/otad/Cargo.toml", ""),
        ]);
        let found = strange_names(&tree);
        assert_eq!(
            found
                .iter()
                .map(|finding| finding.at.as_str())
                .collect::<Vec<_>>(),
            ["docs"]
        );
    }

    #[test]
    fn a_file_at_the_limit_passes_and_one_byte_more_is_found() {
        let fits = "x".repeat(FILE_SIZE_MAX_BYTES);
        let big = "x".repeat(FILE_SIZE_MAX_BYTES + 1);
        let tree = Tree::from_pairs([("wit/fits", fits.as_str()), ("wit/big", big.as_str())]);
        let found = big_files(&tree);
        assert_eq!(
            found
                .iter()
                .map(|finding| finding.at.as_str())
                .collect::<Vec<_>>(),
            ["wit/big"]
        );
    }

    #[test]
    fn build_folders_are_left_out_at_the_top_only() {
        assert!(is_left_out("", "target"));
        assert!(is_left_out("", "target-core"));
        assert!(!is_left_out("host/host-runtime/src", "target"));
    }
}
