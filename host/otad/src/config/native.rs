//! How a plugin runs: `carrier`, and `[device.target.native]` for one that is a shared library. Whether a grant is one
//! that may be given is asked where it is given (`gateway/native.rs`), of the paths that are really there.

use std::path::{Path, PathBuf};

use super::model::{Carrier, Native, PluginChoice, Target};
use super::reader::{Located, Reader, Sink};
use crate::code::BUNDLE;

/// The carrier of a target's plugin: as configured, or as a file's name says.
pub(super) fn carrier(target: &Reader<'_>, plugin: &PluginChoice) -> Carrier {
    let is_library = match plugin {
        PluginChoice::File(path) => is_library(&path.value),
        PluginChoice::Builtin(_) => false,
    };
    let words = [("component", false), ("native", true)];
    let is_native = target.choice("carrier", &words, is_library);
    let section = target.table("native");
    if !is_native {
        if section.is_some() {
            target.sink.advise(
                &target.place("native"),
                "`native` is for a plugin that is a shared library",
                "remove it, or set `carrier = \"native\"`",
            );
        }
        return Carrier::Component;
    }
    let Some(section) = section else {
        return Carrier::Native(Native::default());
    };
    let words = [("process", false), ("in-process", true)];
    let native = Native {
        in_process: section.choice("isolation", &words, false),
        allow_unconfined: section.boolean("allow_unconfined", false),
        directories: places(&section, "directories"),
        devices: places(&section, "devices"),
    };
    section.finish();
    Carrier::Native(native)
}

/// Whether a file's name says that it is a shared library, or the bundle of one.
fn is_library(path: &Path) -> bool {
    let ends = |path: &Path, ending: &str| path.extension().is_some_and(|e| e == ending);
    match path.file_stem() {
        Some(stem) if ends(path, BUNDLE) => ends(Path::new(stem), "so"),
        Some(_) | None => ends(path, "so"),
    }
}

/// What one plugin may write to is no other's: neither a directory of these nor one within another.
pub(super) fn alone<'a>(target: &'a Target, granted: &mut Vec<&'a PathBuf>, sink: &Sink) {
    let Carrier::Native(native) = &target.carrier else {
        return;
    };
    let overlaps = |a: &PathBuf, b: &PathBuf| a.starts_with(b) || b.starts_with(a);
    for directory in &native.directories {
        let place = &directory.value;
        if let Some(other) = granted.iter().find(|other| overlaps(place, other)) {
            sink.advise(
                &directory.origin,
                format!(
                    "{} is given to another plugin, too ({})",
                    place.display(),
                    other.display()
                ),
                "give each native plugin a directory of its own",
            );
        }
    }
    granted.extend(native.directories.iter().map(|directory| &directory.value));
}

fn places(section: &Reader<'_>, key: &'static str) -> Vec<Located<PathBuf>> {
    let Some(texts) = section.texts(key) else {
        return Vec::new();
    };
    let path = |text: &String| Located {
        value: PathBuf::from(section.sink.resolve(text)),
        origin: texts.origin.clone(),
    };
    texts.value.iter().map(path).collect()
}
