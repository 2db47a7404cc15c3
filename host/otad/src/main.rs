//! The `otad` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    otad::cli::main(std::env::args_os())
}
