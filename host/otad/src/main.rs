//! The `otad` program; everything is in the library.

use std::process::ExitCode;

use host_sandbox::larder::Larder;

/// The system's, but for threads of a sandbox while they make runs.
#[global_allocator]
static LARDER: Larder = Larder;

fn main() -> ExitCode {
    otad::cli::main(std::env::args_os())
}
