//! The shim and the example PAL by themselves, duty by duty: what the PAL leaves on its disk, and what its process's end
//! means. Whole updates through the daemon are in `update.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::hostile::{lent, process, setting};
use host_runtime::plugin::lend::{Lent, StagedImage};
use host_runtime::plugin::native::{Confinement, Isolation, NativePlugin};
use host_runtime::plugin::{Answer, Duty, Plugin, PluginError, PluginFactory as _, Transfer};
use host_runtime::types::Failure;

use super::update;

/// Ten blocks, the last one short.
const IMAGE_BYTES: usize = 150_001;

/// A file that is all there.
struct Staged(Vec<u8>);

impl StagedImage for Staged {
    fn held(&self) -> u64 {
        self.0.len() as u64
    }

    fn verified(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let start = usize::try_from(offset).expect("small");
        let end = start + length as usize;
        let bytes = self.0.get(start..end);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Failure::new(0xdb, 0, "not there"))
    }
}

/// A PAL at work in a directory.
struct Board {
    folder: tempfile::TempDir,
    library: Vec<u8>,
}

impl Board {
    /// Of the example.
    fn new() -> Self {
        Self::build(&update::example(), &[])
    }

    /// Of the example, with these functions wrapped by a source.
    fn wrapped(by: &str, functions: &[&str]) -> Self {
        let (sources, flags) = update::wrapped(by, functions);
        Self::build(&sources, &flags)
    }

    fn build(sources: &[PathBuf], flags: &[String]) -> Self {
        let folder = support::temp_dir("board").expect("a folder");
        let library = folder.path().join("pal.so");
        update::build(&library, sources, flags);
        let library = fs::read(library).expect("it was built");
        Self { folder, library }
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.path().join(name)).ok()
    }

    /// An instance that knows this transfer.
    fn plugin(&self, image: &[u8], more: &[(&str, &str)]) -> Box<dyn Plugin> {
        let confinement = Confinement {
            directories: vec![self.folder.path().to_owned()],
            ..Confinement::default()
        };
        let plugin = NativePlugin::load("pal.so", &self.library, process(confinement));
        let lent = Lent {
            staged_image: Some(Arc::new(Staged(image.to_vec()))),
            ..lent()
        };
        let mut plugin = plugin.expect("it loads").make(lent).expect("an instance");
        let settings: Vec<_> = more.iter().map(|(k, v)| setting(k, v)).collect();
        plugin.open(&settings, None).expect("it opens");
        let done = plugin.create(&transfer(image.len() as u64));
        assert_eq!(done, Ok(Duty::Finished(Answer::Nothing)));
        plugin
    }
}

pub(super) fn transfer(size: u64) -> Transfer {
    Transfer {
        device: "pump".into(),
        job_id: "AFR_OTA-1".into(),
        file_id: 1,
        size,
        block_size: 4096,
        file_type: 0,
        attributes: 0,
        path: "image.bin".into(),
        certificate: "signer.pem".into(),
        signature_kind: "sig-sha256-ecdsa".into(),
        signature: vec![1, 2, 3],
    }
}

/// Step a duty to its end, with room for so many bytes in a step.
fn finish(plugin: &mut dyn Plugin, mut duty: Duty) -> Result<Answer, PluginError> {
    let mut steps = 0;
    loop {
        duty = match duty {
            Duty::Finished(answer) => return Ok(answer),
            Duty::Working { .. } => plugin.step(65_536)?,
        };
        steps += 1;
        assert!(steps < 100, "it does not end");
    }
}

fn code(plugin: &mut dyn Plugin) -> u8 {
    match plugin.state() {
        Ok(Duty::Finished(Answer::State(state))) => state.code,
        end => panic!("{end:?}"),
    }
}

/// From the staged file to the restart.
fn activated(plugin: &mut dyn Plugin) {
    let duty = plugin.install().expect("it begins");
    assert_eq!(finish(plugin, duty), Ok(Answer::Nothing));
    assert_eq!(code(plugin), 2, "nothing is marked");
    let duty = plugin.activate(&[0; 32]).expect("it begins");
    assert_eq!(finish(plugin, duty), Ok(Answer::Nothing));
    assert_eq!(plugin.reset(), Ok(Duty::Finished(Answer::Nothing)));
    assert_eq!(code(plugin), 1, "in test");
}

#[test]
fn the_example_commits_and_goes_back() {
    let board = Board::new();
    let new = support::image::random_bytes(5, IMAGE_BYTES);
    let mut plugin = board.plugin(&new, &[]);
    activated(&mut *plugin);
    assert_eq!(board.file("b").as_deref(), Some(&new[..]));
    assert_eq!(board.file("boot.txt").as_deref(), Some(&b"ab\n"[..]));
    assert_eq!(plugin.self_test(), Ok(Duty::Finished(Answer::Nothing)));
    assert_eq!(plugin.commit(), Ok(Duty::Finished(Answer::Nothing)));
    assert_eq!(code(&mut *plugin), 2);
    assert_eq!(board.file("boot.txt").as_deref(), Some(&b"b\n"[..]));
    drop(plugin);
    let next = support::image::random_bytes(6, IMAGE_BYTES);
    let mut plugin = board.plugin(&next, &[]);
    activated(&mut *plugin);
    // Its reset ends the process, and that is the restart into the old image.
    assert_eq!(plugin.reject(), Ok(Duty::Finished(Answer::Nothing)));
    assert_eq!(board.file("boot.txt").as_deref(), Some(&b"b\n"[..]));
    assert_eq!(code(&mut *plugin), 2);
}

#[test]
fn an_activation_in_a_new_process_writes_the_file_again_first() {
    let board = Board::new();
    let new = support::image::random_bytes(7, IMAGE_BYTES);
    let mut plugin = board.plugin(&new, &[]);
    let duty = plugin.install().unwrap();
    assert_eq!(finish(&mut *plugin, duty), Ok(Answer::Nothing));
    drop(plugin);
    fs::remove_file(board.folder.path().join("b")).unwrap();
    let mut plugin = board.plugin(&new, &[]);
    let duty = plugin.activate(&[0; 32]).unwrap();
    assert!(matches!(duty, Duty::Working { .. }), "{duty:?}");
    assert_eq!(finish(&mut *plugin, duty), Ok(Answer::Nothing));
    assert_eq!(board.file("b").as_deref(), Some(&new[..]));
}

#[test]
fn what_a_pal_answers_becomes_a_failure_with_its_codes() {
    let board = Board::new();
    let new = support::image::random_bytes(8, 100);
    let mut plugin = board.plugin(&new, &[]);
    // Its boot record says nonsense: the PAL cannot begin.
    fs::write(board.folder.path().join("boot.txt"), "?\n").unwrap();
    match plugin.install() {
        Err(PluginError::Failed(failure)) => {
            assert_eq!(failure.main, 0xe6, "{failure}");
            assert!(
                failure.detail.contains("otaPal_CreateFileForRx"),
                "{failure}"
            );
        }
        end => panic!("{end:?}"),
    }
    assert!(matches!(plugin.step(1 << 20), Err(PluginError::Failed(f)) if f.main == 0xd0));
}

#[test]
fn what_a_file_context_cannot_hold_is_refused() {
    let board = Board::new();
    let mut plugin = board.plugin(b"small", &[]);
    let rows = [
        (
            Transfer {
                size: 1 << 32,
                ..transfer(1)
            },
            0xe5,
        ),
        (
            Transfer {
                signature: vec![0; 385],
                ..transfer(1)
            },
            0xe3,
        ),
        (
            Transfer {
                path: "x".repeat(512),
                ..transfer(1)
            },
            0xe4,
        ),
        (
            Transfer {
                certificate: "x".repeat(512),
                ..transfer(1)
            },
            0xe4,
        ),
        (
            Transfer {
                job_id: "a\0b".to_owned(),
                ..transfer(1)
            },
            0xd0,
        ),
    ];
    for (transfer, main) in rows {
        match plugin.reopen(&transfer) {
            Err(PluginError::Failed(failure)) => assert_eq!(failure.main, main, "{failure}"),
            end => panic!("{main:#x}: {end:?}"),
        }
    }
}

#[test]
fn where_activation_does_not_restart_the_host_is_asked_to() {
    let board = Board::new();
    let mut plugin = board.plugin(b"small", &[("activate_restarts", "false")]);
    assert_eq!(plugin.reset(), Ok(Duty::Finished(Answer::HostResets)));
}

#[test]
fn where_activation_does_not_restart_a_refused_image_goes_by_the_hosts_restart() {
    let restarts = ["otaPal_ActivateNewImage", "otaPal_ResetDevice"];
    let board = Board::wrapped("stays.c", &restarts);
    let mut plugin = board.plugin(b"small", &[("activate_restarts", "false")]);
    let duty = plugin.activate(&[0; 32]).unwrap();
    assert_eq!(finish(&mut *plugin, duty), Ok(Answer::Nothing));
    assert_eq!(code(&mut *plugin), 1, "in test");
    assert_eq!(plugin.reject(), Ok(Duty::Finished(Answer::HostResets)));
    // The host has restarted it, and asks again.
    assert_eq!(plugin.reject(), Ok(Duty::Finished(Answer::Nothing)));
    assert_eq!(board.file("boot.txt").as_deref(), Some(&b"a\n"[..]));
}

#[test]
fn a_pal_may_take_as_long_for_a_call_as_the_host_waits_for_one_of_its_own() {
    let slow = [
        "otaPal_WriteBlock",
        "otaPal_CloseFile",
        "otaPal_ActivateNewImage",
    ];
    let board = Board::wrapped("slow.c", &slow);
    // What a step may move is four blocks.
    let new = support::image::random_bytes(9, 65_536);
    let mut plugin = board.plugin(&new, &[]);
    activated(&mut *plugin);
    assert_eq!(board.file("b").as_deref(), Some(&new[..]));
}

#[test]
fn what_the_example_renames_is_durable() {
    let board = Board::wrapped("durable.c", &["rename", "fsync"]);
    let mut plugin = board.plugin(b"small", &[]);
    activated(&mut *plugin);
    assert_eq!(plugin.commit(), Ok(Duty::Finished(Answer::Nothing)));
    let told = board.file("told").unwrap();
    assert_eq!(told, b"rename\nfsync\nrename\nfsync\n");
}

#[test]
fn in_one_process_a_pal_serves_one_target() {
    let board = Board::new();
    let plugin = NativePlugin::load("pal.so", &board.library, Isolation::InProcess).unwrap();
    let make = || {
        let lent = Lent {
            staged_image: Some(Arc::new(Staged(Vec::new()))),
            ..lent()
        };
        plugin.make(lent).unwrap()
    };
    let (mut one, mut other) = (make(), make());
    one.open(&[], None).unwrap();
    let end = other.open(&[], None);
    assert!(
        matches!(&end, Err(PluginError::Failed(f)) if f.main == 0xd0),
        "{end:?}"
    );
    drop(one);
    other.open(&[], None).unwrap();
}

#[test]
fn the_example_needs_no_word_of_the_compiler() {
    let room = support::binary::workspace().join("pal-plugins/freertos-pal");
    let compile = |source: &Path| {
        std::process::Command::new("cc")
            .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra"])
            .args(["-Wpedantic", "-fsyntax-only", "-I"])
            .arg(room.join("include"))
            .arg(source)
            .output()
            .unwrap()
    };
    for source in [room.join("example/pal.c"), room.join("shim.c")] {
        let output = compile(&source);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
