//! Linker arguments of the wasm build: a shadow stack of 64 KiB and at most 1 MiB of memory, instead of 1 MiB and no
//! limit. The native build must not see them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
        // A block of 128 KiB comes in and goes out again; the rest is small.
        println!("cargo::rustc-link-arg-cdylib=--max-memory=1048576");
    }
}
