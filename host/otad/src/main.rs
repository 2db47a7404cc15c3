//! The `otad` program; everything is in the library.

use std::process::ExitCode;

use host_sandbox::heap::Heap;

/// The system's, until a swarm runs.
#[global_allocator]
static HEAP: Heap = Heap;

fn main() -> ExitCode {
    otad::cli::main(std::env::args_os())
}
