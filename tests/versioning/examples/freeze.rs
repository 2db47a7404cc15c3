//! Releases the current text of a package: `cargo run -p versioning --example freeze -- agent`.
//!
//! It writes below `wit/frozen`; the new row in `tests/versioning/tests/freeze.rs` is for the person who releases.

use std::process::ExitCode;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people"
)]
fn main() -> ExitCode {
    let Some(package) = std::env::args().nth(1) else {
        eprintln!("say which package: agent or pal");
        return ExitCode::from(2);
    };
    match versioning::freeze::release(&versioning::wit(), &package) {
        Ok(name) => {
            println!("{name} is frozen; add it to RELEASED in tests/versioning/tests/freeze.rs");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
