//! The contract under test: released texts never change, current texts say what everything means, and the shipped
//! components import no more and export no less than their world.
//!
//! It reads texts and bytes. Whether a host refuses what it should is for host-runtime's tests, and what the functions
//! do for the conformance cases.
//!
//! ```
//! let mut folder = versioning::freeze::Folder::new();
//! folder.insert("agent/types.wit".into(), b"package ota:agent@0.1.0;\n".to_vec());
//! assert_eq!(versioning::freeze::violations(&folder), Vec::<String>::new());
//! ```

pub mod component;
pub mod contract;
pub mod freeze;

use std::path::{Path, PathBuf};

/// Why the contract could not be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A package is no WIT.
    #[error("{path} does not parse: {detail}")]
    Wit {
        /// Which one.
        path: PathBuf,
        /// What the parser says.
        detail: String,
    },
    /// Bytes are no component.
    #[error("no component: {0}")]
    Component(#[from] wasmparser::BinaryReaderError),
    /// The bytes are a core module.
    #[error("a core module, no component")]
    CoreModule,
    /// A package cannot be released as it is.
    #[error("{0}")]
    Release(String),
}

/// The contract's folder.
#[must_use]
pub fn wit() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join("wit")
}
