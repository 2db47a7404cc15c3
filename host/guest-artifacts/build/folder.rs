//! The files of a folder that are ours: an editor leaves others beside them (locks, copies of what was there before), and
//! so does a merge.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// How the names end of all that a plugin is made of.
const ENDS: [&str; 6] = ["c", "h", "md", "rs", "toml", "wit"];

/// Adds a file, or every file below a folder: what it is called from `top` on.
pub(crate) fn walk(top: &Path, source: &str, files: &mut Vec<String>) -> Result<(), String> {
    let at = top.join(source);
    if at.is_file() {
        files.push(source.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(&at).map_err(|e| format!("{}: {e}", at.display()))? {
        let entry = entry.map_err(|e| format!("{}: {e}", at.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let end = Path::new(&*name).extension().and_then(OsStr::to_str);
        let known = end.is_some_and(|end| ENDS.contains(&end)) || entry.path().is_dir();
        if known && !name.starts_with('.') {
            walk(top, &format!("{source}/{name}"), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_files_are_found() {
        let rows = [
            ("src/lib.rs", true),
            ("src/a/b.rs", true),
            ("src/ota.h", true),
            ("src/README.md", true),
            ("src/Cargo.toml", true),
            ("src/pal.c", true),
            ("src/image.wit", true),
            ("other/lib.rs", false),
            ("src/.#lib.rs", false),
            ("src/.git/a.rs", false),
            ("src/#lib.rs#", false),
            ("src/lib.rs~", false),
            ("src/lib.rs.orig", false),
            ("src/.lib.rs.swp", false),
            ("src/rs", false),
        ];
        let top = tempfile::tempdir().unwrap();
        for (path, _) in rows {
            let at = top.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, "").unwrap();
        }
        let mut files = vec![];
        walk(top.path(), "src", &mut files).unwrap();
        for (path, expected) in rows {
            assert_eq!(files.iter().any(|file| file == path), expected, "{path}");
        }
        let mut named = vec![];
        walk(top.path(), "src/rs", &mut named).unwrap();
        assert_eq!(named, ["src/rs"]);
        assert!(walk(top.path(), "nowhere", &mut named).is_err());
    }
}
