//! A file that was let in: its bytes, who vouches for them, and how far what it may do goes.

use std::io;
use std::path::{Path, PathBuf};

use host_crypto::Validity;
use host_runtime::engine::Budget;
use host_runtime::plugin::native::Isolation;
use host_runtime::ports::state_dir::StateDir;

use super::error::CodeError;
use super::gate::hash;
use super::manifest::printable;
use super::{Kind, Manifest};
use crate::gateway::kept;
use crate::gateway::native::real_ancestor;
use crate::image::parse_version;

/// Ending of a manifest's name, after the file's.
pub const MANIFEST: &str = "manifest";

/// Ending of a signature's name, after the file's.
pub const SIGNATURE: &str = "manifest.sig";

/// The file of this ending beside a file: `pump.wasm` and `manifest` are `pump.wasm.manifest`.
#[must_use]
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// A file that may be loaded.
#[derive(Debug)]
pub struct Code {
    /// Agent or plugin.
    pub kind: Kind,
    /// Where it came from.
    pub path: PathBuf,
    /// What was read, and nothing else is loaded.
    pub bytes: Vec<u8>,
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// `None`: nobody signed it, and a development setting lets it in.
    pub signed: Option<Signed>,
}

/// Who vouches for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Entry of the trust store.
    pub signer: String,
    /// When its certificate holds.
    pub validity: Validity,
    /// What it has signed.
    pub manifest: Manifest,
    /// The manifest as it was signed.
    pub(super) text: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl Signed {
    /// SHA-256 of the manifest, in hex.
    #[must_use]
    pub fn manifest_sha256(&self) -> String {
        hash(&self.text)
    }
}

impl Code {
    /// What it may use: this host's budget, or less where its manifest says so.
    #[must_use]
    pub fn budget(&self) -> Budget {
        let mut budget = match self.kind {
            Kind::Agent => Budget::AGENT,
            Kind::Plugin => Budget::PLUGIN,
        };
        // A manifest with more than that was refused.
        if let Some(limits) = self.signed.as_ref().map(|signed| signed.manifest.limits) {
            let memory = limits.memory_bytes.and_then(|n| usize::try_from(n).ok());
            budget.memory_bytes = memory.unwrap_or(budget.memory_bytes);
            budget.fuel = limits.fuel.unwrap_or(budget.fuel);
            budget.host_calls = limits.host_calls.unwrap_or(budget.host_calls);
        }
        budget
    }

    /// Where a library runs and what it may open there, no more than its manifest allows.
    ///
    /// # Errors
    /// [`CodeError::Grant`].
    pub fn confine(&self, isolation: Isolation) -> Result<Isolation, CodeError> {
        let Some(Signed { manifest, .. }) = &self.signed else {
            return Ok(isolation);
        };
        let grants = &manifest.grants;
        match isolation {
            Isolation::InProcess if grants.in_process => Ok(Isolation::InProcess),
            Isolation::InProcess => Err(CodeError::Grant {
                what: "it is configured to run in otad's own process".to_owned(),
                cure: "its signer grants that with `otad sign --in-process`",
            }),
            Isolation::Process(host, mut confinement) => {
                below(
                    &confinement.directories,
                    &grants.directories,
                    "its signer grants places with `otad sign --directory`",
                )?;
                below(
                    &confinement.devices,
                    &grants.devices,
                    "its signer grants places with `otad sign --device`",
                )?;
                confinement.memory_max_bytes = manifest.limits.memory_bytes;
                Ok(Isolation::Process(host, confinement))
            }
        }
    }

    /// Whether what was loaded is what was signed: it says so itself, and wants no more than it may have.
    ///
    /// # Errors
    /// [`CodeError::Describes`], [`CodeError::Grant`].
    pub fn admit(&self, name: &str, version: &str, imports: &[String]) -> Result<(), CodeError> {
        let Some(Signed { manifest, .. }) = &self.signed else {
            return Ok(());
        };
        let same = name == manifest.name && parse_version(version) == Ok(manifest.version);
        if !same {
            return Err(CodeError::Describes {
                says: format!("{} {}", printable(name), printable(version)),
                signed: format!("{} {}", manifest.name, manifest.version),
            });
        }
        let lent = &manifest.grants.lent;
        match imports.iter().find(|import| !lent.contains(import)) {
            Some(import) => Err(CodeError::Grant {
                what: format!("it wants {import} lent"),
                cure: "let its signer sign this build",
            }),
            None => Ok(()),
        }
    }

    /// Keep it below `folder` of the state directory, under the digests of its bytes and of its manifest, so that
    /// [`Gate::read`](super::Gate::read) takes it from there as it took it from where it came.
    ///
    /// # Errors
    /// What the medium says.
    pub fn keep(&self, state: &dyn StateDir, folder: &str) -> io::Result<()> {
        let signed = self.signed.as_ref();
        let manifest = signed.map(Signed::manifest_sha256);
        let name = kept::name(folder, &self.sha256, manifest.as_deref());
        let parts = [
            (MANIFEST, signed.map(|signed| &signed.text)),
            (SIGNATURE, signed.map(|signed| &signed.signature)),
        ];
        for (ending, bytes) in parts {
            let name = format!("{name}.{ending}");
            match bytes {
                Some(bytes) => state.store(&name, bytes)?,
                None => state.remove(&name)?,
            }
        }
        state.store(&name, &self.bytes)
    }

    /// For the log and for people.
    #[must_use]
    pub fn whose(&self) -> String {
        match &self.signed {
            Some(signed) => format!("signed by {}", signed.signer),
            None => "SIGNED BY NOBODY".to_owned(),
        }
    }
}

/// Whether each place lies at or below one that the manifest names.
fn below(places: &[PathBuf], allowed: &[PathBuf], cure: &'static str) -> Result<(), CodeError> {
    let is_allowed = |place: &&PathBuf| {
        let place = real_ancestor(place);
        allowed
            .iter()
            .any(|at| place.starts_with(real_ancestor(at)))
    };
    match places.iter().find(|place| !is_allowed(place)) {
        Some(place) => Err(CodeError::Grant {
            what: format!("it is configured to be given {}", place.display()),
            cure,
        }),
        None => Ok(()),
    }
}
