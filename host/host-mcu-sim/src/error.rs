//! What can be wrong with a simulated MCU's settings, files and ports. Faults on purpose are no errors.

use std::io;
use std::path::PathBuf;

/// Why a simulated MCU cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sizes of the flash that cannot work.
    #[error("the flash cannot be made: {0}")]
    Geometry(String),
    /// A setting that cannot work.
    #[error("{what} is {value}, give {wanted}")]
    Setting {
        /// Which one.
        what: &'static str,
        /// What it was.
        value: String,
        /// What would work.
        wanted: &'static str,
    },
    /// The flash's file cannot be read or written.
    #[error("flash file {path}")]
    FlashFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the flash's file.
    #[error("flash file {0} is in use by another simulated MCU; give each its own")]
    FlashInUse(PathBuf),
    /// The flash's file was made for other sizes.
    #[error(
        "flash file {path} has {size} bytes, expected {expected}; give the sizes it was made with, or another file"
    )]
    FlashSize {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The size of the flash in bytes.
        expected: u64,
    },
    /// An image that no bootloader would start.
    #[error("the factory image is not usable: {0}")]
    Image(String),
    /// A key that images cannot be verified with.
    #[error("the key is not an ECDSA P-256 public key in PEM: {0}")]
    Key(String),
    /// The port cannot be opened or served.
    #[error("port {name}")]
    Port {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}
