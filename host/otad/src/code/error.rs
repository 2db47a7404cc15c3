//! Why a file is not loaded, in words that say what to do.

use std::io;
use std::path::PathBuf;

use host_crypto::TrustError;
use host_runtime::types::Version;

use super::Place;
use super::build::{MANIFEST, SIGNATURE, beside};
use super::manifest::Kind;
use crate::config::{BUILD, BUILTIN_AGENTS, BUILTIN_PLUGINS};

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// A file, its manifest or its signature cannot be read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: io::Error,
    },
    /// It is larger than anything that is loaded.
    #[error("{} has more than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// It ends like a bundle and is none.
    #[error(
        "the bundle is damaged: a manifest of {manifest} bytes and a signature of {signature} do not fit in {size}; make it \
         with `otad sign --bundle`"
    )]
    Bundle {
        /// By its end.
        manifest: u64,
        /// By its end.
        signature: u64,
        /// Of the file.
        size: u64,
    },
    /// It is no bundle, where only that can be.
    #[error("it is no bundle of code, manifest and signature; make one with `otad sign --bundle`")]
    NoBundle,
    /// It comes by a job, and nobody is named who may sign such a one.
    #[error(
        "it comes by a job, and the configuration does not say who may sign agents and plugins: set `code_signers` in [trust]; \
         who may sign images may not do that by itself"
    )]
    NoCodeSigners,
    /// It has no manifest.
    #[error(
        "nobody has signed it: there is no {}; sign it with `otad sign {} --key KEY.pem`, or set `{switch} = true` in \
         [development]",
        beside(path, MANIFEST).display(), path.display()
    )]
    Unsigned {
        /// The file.
        path: PathBuf,
        /// What lets it in all the same.
        switch: &'static str,
    },
    /// Its manifest has no signature.
    #[error("its manifest is not signed: there is no {}; `otad sign` writes both", beside(path, SIGNATURE).display())]
    NoSignature {
        /// The file.
        path: PathBuf,
    },
    /// The trust store.
    #[error("trust store")]
    Trust(#[from] TrustError),
    /// There is no trust store.
    #[error("there is no trust store to check its signature with; set `directory` in [trust]")]
    NoTrust,
    /// The signature is of no certificate that counts.
    #[error("its manifest is signed by nobody whom this gateway trusts ({trusted})")]
    Untrusted {
        /// Those whom it trusts.
        trusted: String,
    },
    /// It is no signature at all.
    #[error("its signature is malformed: {0}")]
    Malformed(String),
    /// The signer's certificate does not hold now, and this build was not accepted while it did.
    #[error("certificate `{entry}` of its signer {what}; sign it with one that holds")]
    Validity {
        /// The trust-store entry.
        entry: String,
        /// `has ended` or `has not begun`.
        what: &'static str,
    },
    /// The manifest says nothing sensible.
    #[error("its manifest, signed by `{entry}`: {reason}")]
    Manifest {
        /// The trust-store entry.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// The file is not the one that was signed.
    #[error("it was changed after it was signed: it has {found}, its manifest says {signed}")]
    Changed {
        /// Of the file.
        found: String,
        /// Of the manifest.
        signed: String,
    },
    /// It is something else than what it is to be here.
    #[error("it is signed as {signed}, and is to be {wanted} here")]
    Other {
        /// By the manifest.
        signed: String,
        /// What it is to be.
        wanted: String,
    },
    /// It needs a newer otad.
    #[error("it needs otad {least} or later, this is {this}")]
    Host {
        /// By the manifest.
        least: Version,
        /// This one.
        this: Version,
    },
    /// A later version was accepted before.
    #[error(
        "it is version {found}, and {floor} was accepted before for {place}; to go back give --allow-older, or set \
         `allow_older_code = true` in [development]"
    )]
    Older {
        /// By the manifest.
        found: Version,
        /// Accepted before.
        floor: Version,
        /// Where.
        place: Place,
    },
    /// No part of otad has this name.
    #[error("otad has no such {0}; built in: {list}", list = builtin_names(*.0))]
    NoBuiltin(Kind),
    /// It describes itself otherwise than its manifest does.
    #[error("it says that it is {says}, its manifest says {signed}")]
    Describes {
        /// By itself.
        says: String,
        /// By the manifest.
        signed: String,
    },
    /// It wants, or is configured to be given, what its manifest does not allow.
    #[error("{what}, which its manifest does not allow; {cure}")]
    Grant {
        /// What.
        what: String,
        /// What to do.
        cure: &'static str,
    },
    /// What was accepted cannot be read or written.
    #[error("what was accepted before for {place}")]
    Floor {
        /// Where.
        place: Place,
        /// What the medium says.
        #[source]
        source: io::Error,
    },
}

/// Those that may be put in somewhere: builds come to otad itself by jobs alone.
fn builtin_names(kind: Kind) -> String {
    let names = match kind {
        Kind::Agent => BUILTIN_AGENTS,
        Kind::Plugin => BUILTIN_PLUGINS,
    };
    let names: Vec<&str> = names.iter().copied().filter(|n| *n != BUILD).collect();
    names.join(", ")
}

impl CodeError {
    /// Whether somebody has judged it, and not only a medium or the trust store failed.
    #[must_use]
    pub fn is_verdict(&self) -> bool {
        !matches!(
            self,
            Self::File { .. } | Self::Trust(_) | Self::Floor { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_otad_that_may_be_put_in_are_offered() {
        for (kind, names) in [
            (Kind::Agent, "built in: agent, simple"),
            (Kind::Plugin, "built in: flash-file, serial-mcu"),
        ] {
            let said = CodeError::NoBuiltin(kind).to_string();
            assert!(said.ends_with(names), "{said}");
        }
    }
}
