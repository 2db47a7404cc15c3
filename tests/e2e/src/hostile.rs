//! Plugins that do harm, and what they are tried with: a library in C (`tests/native/hostile.c`), and the deeds of
//! `pal-flash-file` in both carriers. `tests/hostile.md` has a row for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use host_runtime::plugin::lend::{BlockDevice, Lent, PluginLog, Region};
use host_runtime::plugin::{Plugin, PluginError, PluginFactory};
use host_runtime::ports::clock::{Clock, SystemClock};
use host_runtime::types::{Failure, Setting, code};
use support::binary::workspace;
use support::markdown::table;

pub use crate::carriers::{in_both_carriers, process};

/// The tables.
pub const TABLES: &str = include_str!("../../hostile.md");

/// A library on the bare C ABI.
pub const LIBRARY: &[&str] = &["-O1", "-shared", "-fPIC", "-pthread", "-Iwit/native"];

/// The rows of a table of `tests/hostile.md`, without the marks of code round their cells.
#[must_use]
pub fn rows(name: &str) -> Vec<Vec<String>> {
    let plain = |cell: String| cell.trim_matches('`').to_owned();
    let rows = table(TABLES, name).unwrap();
    // What tests go through without a row judges nothing.
    assert!(!rows.is_empty(), "{name} has no rows");
    let row = |cells: Vec<String>| cells.into_iter().map(plain).collect();
    rows.into_iter().map(row).collect()
}

/// Have the C compiler make a file of these sources, from the top of the repository.
pub fn cc(made: &Path, sources: &[PathBuf], words: &[&str]) {
    let output = Command::new("cc")
        .args(sources)
        .args(words)
        .arg("-o")
        .arg(made)
        .current_dir(workspace())
        .output()
        .expect("there is a C compiler");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// A C source of the tests of native plugins.
#[must_use]
pub fn source(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/native").join(name)
}

/// Build the hostile library, with these words more for the compiler.
#[must_use]
pub fn build(folder: &Path, name: &str, more: &[&str]) -> Vec<u8> {
    let library = folder.join(name);
    cc(&library, &[source("hostile.c")], &[LIBRARY, more].concat());
    fs::read(library).expect("it was built")
}

/// The hostile library.
#[must_use]
pub fn library() -> &'static [u8] {
    static LIBRARY: OnceLock<Vec<u8>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = support::temp_dir("hostile").expect("a folder");
        build(folder.path(), "hostile.so", &[])
    })
}

/// Two slots and two records that hold nothing and take nothing.
struct Empty;

impl BlockDevice for Empty {
    fn regions(&self) -> Vec<Region> {
        let region = |name: &str, kind, size| Region {
            name: name.to_owned(),
            kind,
            size,
            erase_size: 1,
            write_size: 1,
            read_only: true,
        };
        vec![
            region("slot-a", 0, 1 << 20),
            region("slot-b", 0, 1 << 20),
            region("record", 1, 8192),
            region("tries", 1, 8192),
        ]
    }
    fn read_at(&self, _region: u32, _offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        Ok(vec![0xff; length as usize])
    }
    fn write_at(&self, _region: u32, _offset: u64, _data: &[u8]) -> Result<(), Failure> {
        Err(Failure::new(code::BUSY, 0, "nothing is written here"))
    }
    fn erase(&self, _region: u32, _offset: u64, _length: u64) -> Result<(), Failure> {
        Err(Failure::new(code::BUSY, 0, "nothing is erased here"))
    }
    fn sync(&self, _region: u32) -> Result<(), Failure> {
        Ok(())
    }
}

/// What an instance is lent here: the log, the clock, and storage without anything in it.
#[must_use]
pub fn lent() -> Lent {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Lent {
        block_device: Some(Arc::new(Empty)),
        staged_image: None,
        serial_line: None,
        hardware_reset: None,
        wake: Arc::new(|| {}),
        log: Arc::new(PluginLog::new("d/t".to_owned(), Arc::clone(&clock))),
        clock,
    }
}

/// A setting of a plugin's.
#[must_use]
pub fn setting(key: &str, value: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Make an instance with a deed and do one call, by its name in the tables.
///
/// # Errors
/// How the call ended, if not well.
pub fn call(factory: &dyn PluginFactory, deed: &str, call: &str) -> Result<(), PluginError> {
    let mut instance = factory.make(lent())?;
    let opened = instance.open(&[setting("deed", deed)], None);
    if call == "open" {
        return opened;
    }
    opened.expect("it opens");
    one(&mut *instance, call)
}

fn one(instance: &mut dyn Plugin, call: &str) -> Result<(), PluginError> {
    match call {
        "state" => instance.state().map(drop),
        "extents" => instance.extents().map(drop),
        "suspend" => instance.suspend().map(drop),
        other => panic!("no such call: {other}"),
    }
}
