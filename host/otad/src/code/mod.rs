//! Code that comes from a file: agents and plugins that are no part of otad. None of it runs unless a certificate of the
//! operator's trust store has signed its manifest, or the configuration says loudly that this is a laboratory.
//!
//! ```text
//! FILE ─┐
//! FILE.manifest ─┼─▶ Gate::read ─▶ Code ─▶ carrier ─▶ Code::admit ─▶ Gate::check ─▶ it serves a place ─▶ Gate::accept
//! FILE.manifest.sig ─┘                              says and wants     not older       on trial, at first
//! ```
//!
//! The three may be one file, too: a bundle (`bundle.rs`). The file is read once, and what was hashed is what is loaded. The
//! trust store is read each time, so that a signer who is removed, added or exchanged counts from the next load on. Not here:
//! loading, swapping, and who may sign images (`host-crypto`'s policy; the certificates are the same).

mod build;
mod bundle;
mod error;
mod floor;
mod gate;
mod manifest;

pub use host_runtime::choice::Place;

pub use build::{Code, MANIFEST, SIGNATURE, Signed, beside};
pub use bundle::{BUNDLE, bundle};
pub(crate) use bundle::{BUNDLE_MAX_BYTES, END_BYTES, Parts};
pub use error::CodeError;
pub use gate::{Entry, Gate, Source};
pub(crate) use gate::{hash, lapse};
pub use manifest::{Form, Grants, Kind, Limits, Manifest, world};
