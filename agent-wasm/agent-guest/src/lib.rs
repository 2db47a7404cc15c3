//! placeholder
#![cfg(target_family = "wasm")]
