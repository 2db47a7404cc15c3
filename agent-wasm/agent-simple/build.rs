//! Linker arguments of the wasm build: a shadow stack of 64 KiB and at most 4 MiB of memory, instead of 1 MiB and no
//! limit. The native build of this crate is empty and must not see them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
        // A message of 160 KiB, the job document or block that is read from it, and the allocator's slack.
        println!("cargo::rustc-link-arg-cdylib=--max-memory=4194304");
    }
}
