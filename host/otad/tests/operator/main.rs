//! The operator's command line from outside: updates in the cloud in a box and at AWS, explanations, configurations made
//! and configurations that are wrong. The program itself runs; nothing but loopback is reached.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

mod aws;
mod botocore;
mod explain;
mod fake_aws;
mod help;
mod init;
mod local;
mod operating;
mod parity;
mod wrong;

use std::path::Path;
use std::process::{Command, Output};

/// The program, in a folder, without settings of the developer's own.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otad"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OTAD_") || name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments);
    command
}

fn otad(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exit code, and words of standard error.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = error(output);
    assert_eq!(output.status.code(), Some(code), "{said}{}", out(output));
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", error(output), out(output));
    out(output)
}

/// Compares with a file beside the tests; `OTAD_BLESS=1` writes it anew.
#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/operator/golden")
        .join(name);
    if std::env::var_os("OTAD_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(expected, text, "OTAD_BLESS=1 writes {}", path.display());
}
