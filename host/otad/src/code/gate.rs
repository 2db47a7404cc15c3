//! Where a file becomes code: read once, its manifest's signature checked against the trust store as it is now, its bytes
//! against the manifest, its version against what was accepted before.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_crypto::{Certificate, Hasher, TrustStore, Validity, hex};
use host_runtime::engine::COMPONENT_MAX_BYTES;
use host_runtime::plugin::native::LIBRARY_MAX_BYTES;
use host_runtime::ports::clock::Clock;
use rustix::io::Errno;

use super::bundle::{BUNDLE_MAX_BYTES, Split, split};
use super::floor::{Accepted, Floor};
use super::manifest::{MANIFEST_MAX_BYTES, printable};
use super::{
    Code, CodeError, Form, Kind, MANIFEST, Manifest, Place, SIGNATURE, Signed, beside, world,
};
use crate::config::{BUILTIN, Config};
use crate::image::parse_version;

/// Most bytes of a signature's file: a P-256 signature in DER has 72 at most.
pub(super) const SIGNATURE_MAX_BYTES: u64 = 512;

/// Most bytes of code, whatever carries it.
pub(super) const CODE_MAX_BYTES: u64 = if LIBRARY_MAX_BYTES > COMPONENT_MAX_BYTES {
    LIBRARY_MAX_BYTES as u64
} else {
    COMPONENT_MAX_BYTES as u64
};

/// Where the certificates are.
enum Trust {
    /// Nowhere: nobody is trusted.
    Nobody,
    /// Read at each look, as a process of this user would ([`TrustStore::load_for`]).
    Directory(PathBuf, Option<u32>),
    /// Here, for one look.
    Store(TrustStore),
}

/// Decides what is loaded.
pub struct Gate {
    trust: Trust,
    /// Entries of the trust store whose signatures count here; `None` = all.
    signers: Option<Vec<String>>,
    unsigned_agents: bool,
    unsigned_plugins: bool,
    allow_older: bool,
    /// `None`: it remembers nothing.
    state_dir: Option<PathBuf>,
    clock: Arc<dyn Clock>,
}

/// Where code comes from.
#[derive(Debug)]
pub enum Source {
    /// A file, with manifest and signature beside it or in it.
    File(PathBuf),
    /// Part of otad, by its name.
    Builtin(String),
    /// A bundle that is in memory.
    Bundle {
        /// What to call it.
        label: String,
        /// All of it.
        bytes: Vec<u8>,
    },
}

impl Source {
    /// What somebody at the gateway names: a file, or a part of otad.
    pub(crate) fn named(text: &str) -> Self {
        match text.strip_prefix(BUILTIN) {
            Some(name) => Self::Builtin(name.to_owned()),
            None => Self::File(text.into()),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Builtin(name) => write!(f, "{BUILTIN}{name}"),
            Self::Bundle { label, .. } => f.write_str(label),
        }
    }
}

/// How a build comes to serve a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is named by the configuration, or put in.
    New,
    /// It is put in by somebody who says that it may be older than what was accepted.
    Older,
    /// The state directory names it: it was let in here before.
    Before,
}

impl Entry {
    /// It is put in by somebody, who may have said that it may be older.
    #[must_use]
    pub fn put_in(allow_older: bool) -> Self {
        match allow_older {
            true => Self::Older,
            false => Self::New,
        }
    }
}

impl Gate {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        Self::for_user(config, Some(rustix::process::geteuid().as_raw()), clock)
    }

    /// As a process of this user would have it, for an administrator who looks at what a service will find.
    pub(crate) fn for_user(config: &Config, user: Option<u32>, clock: Arc<dyn Clock>) -> Self {
        let trust = &config.trust;
        Self {
            trust: match &trust.directory {
                Some(at) => Trust::Directory(at.value.clone(), user),
                None => Trust::Nobody,
            },
            signers: trust.code_signers.as_ref().map(|list| list.value.clone()),
            unsigned_agents: config.development.allow_file_agents,
            unsigned_plugins: config.development.allow_file_plugins,
            allow_older: config.development.allow_older_code,
            state_dir: Some(config.daemon.state_dir.value.clone()),
            clock,
        }
    }

    /// One look with these certificates, of nobody's gateway: whoever asks has named each of them for it.
    #[must_use]
    pub fn over(store: TrustStore, clock: Arc<dyn Clock>) -> Self {
        let named = store.entries().map(|c| c.entry().to_owned()).collect();
        Self {
            trust: Trust::Store(store),
            signers: Some(named),
            unsigned_agents: false,
            unsigned_plugins: false,
            allow_older: false,
            state_dir: None,
            clock,
        }
    }

    /// Take code from where it is.
    ///
    /// # Errors
    /// [`CodeError`]: why it may not be loaded.
    pub fn take(&self, kind: Kind, source: Source) -> Result<Code, CodeError> {
        match source {
            Source::File(path) => self.read(kind, &path),
            Source::Builtin(_) => Err(CodeError::NoBuiltin(kind)),
            // A file is put in by somebody who is at the gateway. What a job brings comes from afar, and to sign images of one
            // target is not to be let replace what updates all of them.
            Source::Bundle { .. } if self.signers.is_none() => Err(CodeError::NoCodeSigners),
            Source::Bundle { label, bytes } => match split(bytes)? {
                Split::Bundle {
                    code,
                    manifest,
                    signature,
                } => self.judge(kind, Path::new(&label), code, manifest, signature),
                Split::Plain(_) => Err(CodeError::NoBundle),
            },
        }
    }

    /// Read a file, and what is beside it; or a bundle.
    ///
    /// # Errors
    /// [`CodeError`]: why it may not be loaded.
    pub fn read(&self, kind: Kind, path: &Path) -> Result<Code, CodeError> {
        let bytes = match split(self.bytes(path)?)? {
            Split::Bundle {
                code,
                manifest,
                signature,
            } => return self.judge(kind, path, code, manifest, signature),
            Split::Plain(bytes) => bytes,
        };
        let manifest = beside(path, MANIFEST);
        let Some(text) = optional(&manifest, MANIFEST_MAX_BYTES)? else {
            let (allowed, switch) = match kind {
                Kind::Agent => (self.unsigned_agents, "allow_file_agents"),
                Kind::Plugin => (self.unsigned_plugins, "allow_file_plugins"),
            };
            return match allowed {
                true => Ok(code(kind, path, bytes)),
                false => Err(CodeError::Unsigned {
                    path: path.to_owned(),
                    switch,
                }),
            };
        };
        let signature = optional(&beside(path, SIGNATURE), SIGNATURE_MAX_BYTES)?;
        let signature = signature.ok_or_else(|| CodeError::NoSignature {
            path: path.to_owned(),
        })?;
        self.judge(kind, path, bytes, text, signature)
    }

    /// Code, with what is to vouch for it.
    fn judge(
        &self,
        kind: Kind,
        path: &Path,
        bytes: Vec<u8>,
        text: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<Code, CodeError> {
        let mut code = code(kind, path, bytes);
        code.signed = Some(self.signed(&code, text, signature)?);
        Ok(code)
    }

    /// Whether a build may serve a place: it is not older than what was accepted there, and its signer's certificate holds.
    /// A gateway must not lose its plugin on the day that a certificate ends, so what was let in before runs on.
    ///
    /// # Errors
    /// [`CodeError::Older`], [`CodeError::Validity`], [`CodeError::Floor`].
    pub fn check(
        &self,
        signed: Option<&Signed>,
        place: &Place,
        entry: Entry,
    ) -> Result<(), CodeError> {
        let Some(signed) = signed else {
            return Ok(());
        };
        if entry == Entry::Before {
            return self.check_validity(signed, true);
        }
        let manifest = &signed.manifest;
        let floor = self.load_floor(place)?;
        let accepted = floor.of(&manifest.name);
        if let Some(accepted) = accepted
            && manifest.version < accepted.version
            && entry == Entry::New
            && !self.allow_older
        {
            return Err(CodeError::Older {
                found: manifest.version,
                floor: accepted.version,
                place: place.clone(),
            });
        }
        let is_known = accepted.is_some_and(|accepted| accepted.sha256 == manifest.sha256);
        self.check_validity(signed, is_known)
    }

    /// Whether the certificate of its signer holds; one of a build that is known may be over.
    ///
    /// # Errors
    /// [`CodeError::Validity`].
    pub fn check_validity(&self, signed: &Signed, is_known: bool) -> Result<(), CodeError> {
        let entry = &signed.signer;
        let Some(what) = self.lapse(signed.validity) else {
            if self.clock.wall_s().is_none() {
                tracing::warn!(
                    "the wall clock is not known, so the validity of certificate `{entry}` was not checked"
                );
            }
            return Ok(());
        };
        if is_known {
            tracing::warn!(
                "certificate `{entry}` {what}: what it has signed runs on, nothing new is taken"
            );
            return Ok(());
        }
        Err(CodeError::Validity {
            entry: entry.clone(),
            what,
        })
    }

    /// Remember that a build is good for a place: nothing older of its name comes in there from now on. It writes a file.
    ///
    /// # Errors
    /// [`CodeError::Floor`].
    pub fn accept(&self, signed: Option<&Signed>, place: &Place) -> Result<(), CodeError> {
        let (Some(signed), Some(state_dir)) = (signed, &self.state_dir) else {
            return Ok(());
        };
        let Manifest { name, version, .. } = &signed.manifest;
        let accepted = Accepted {
            version: *version,
            sha256: signed.manifest.sha256.clone(),
        };
        let changed = self
            .load_floor(place)?
            .set(state_dir, place, name, accepted)
            .map_err(|source| floor_failed(place, source))?;
        if changed {
            tracing::info!(
                "{} {name} {version}, signed by {}, is accepted for {place}",
                signed.manifest.kind,
                signed.signer
            );
        }
        Ok(())
    }

    fn signed(&self, code: &Code, text: Vec<u8>, signature: Vec<u8>) -> Result<Signed, CodeError> {
        let loaded;
        let store = match &self.trust {
            Trust::Nobody => return Err(CodeError::NoTrust),
            Trust::Directory(directory, user) => {
                loaded = TrustStore::load_for(directory, *user)?;
                &loaded
            }
            Trust::Store(store) => store,
        };
        let signer = self.signer(store, &text, &signature)?;
        let bad = |reason: String| CodeError::Manifest {
            entry: signer.entry().to_owned(),
            reason,
        };
        let read = std::str::from_utf8(&text).map_err(|_| bad("it is no UTF-8 text".to_owned()))?;
        let manifest = Manifest::parse(read).map_err(bad)?;
        fits(code, &manifest)?;
        Ok(Signed {
            signer: signer.entry().to_owned(),
            validity: signer.validity(),
            manifest,
            text,
            signature,
        })
    }

    /// Whoever has signed it and counts here; of certificates with the same key one that holds.
    fn signer<'a>(
        &self,
        store: &'a TrustStore,
        text: &[u8],
        signature: &[u8],
    ) -> Result<&'a Certificate, CodeError> {
        let counts = |certificate: &&Certificate| {
            self.signers
                .as_ref()
                .is_none_or(|list| list.iter().any(|entry| entry == certificate.entry()))
        };
        let mut hasher = Hasher::default();
        hasher.update(text);
        let mut signers = store
            .signers(&hasher.finish(), signature)
            .map_err(CodeError::Malformed)?;
        signers.retain(counts);
        let holds = |certificate: &&&Certificate| self.lapse(certificate.validity()).is_none();
        let signer = signers.iter().find(holds).or_else(|| signers.first());
        signer.copied().ok_or_else(|| {
            let trusted = store.entries().filter(counts).map(Certificate::entry);
            let trusted: Vec<&str> = trusted.collect();
            CodeError::Untrusted {
                trusted: match trusted.is_empty() {
                    true => "nobody".to_owned(),
                    false => trusted.join(", "),
                },
            }
        })
    }

    /// Why a certificate does not hold now, as far as the time is known.
    fn lapse(&self, validity: Validity) -> Option<&'static str> {
        lapse(validity, self.clock.wall_s()?)
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, CodeError> {
        optional(path, BUNDLE_MAX_BYTES)?.ok_or_else(|| CodeError::File {
            path: path.to_owned(),
            source: Errno::NOENT.into(),
        })
    }

    fn load_floor(&self, place: &Place) -> Result<Floor, CodeError> {
        match &self.state_dir {
            Some(at) => Floor::load(at, place).map_err(|source| floor_failed(place, source)),
            None => Ok(Floor::default()),
        }
    }
}

/// Why a certificate does not hold now, in words.
pub(crate) fn lapse(validity: Validity, now: u64) -> Option<&'static str> {
    match now {
        now if now > validity.not_after => Some("has ended"),
        now if now < validity.not_before => Some("has not begun"),
        _ => None,
    }
}

fn floor_failed(place: &Place, source: io::Error) -> CodeError {
    CodeError::Floor {
        place: place.clone(),
        source,
    }
}

/// Whether a manifest is of this file, and for this host.
fn fits(code: &Code, manifest: &Manifest) -> Result<(), CodeError> {
    let size = code.bytes.len() as u64;
    if (size, &code.sha256) != (manifest.size, &manifest.sha256) {
        let words = |size: u64, sha256: &str| format!("{size} bytes with SHA-256 {sha256}");
        return Err(CodeError::Changed {
            found: words(size, &code.sha256),
            signed: words(manifest.size, &manifest.sha256),
        });
    }
    let form = Form::of(&code.bytes);
    let wanted = form.map(|form| world(code.kind, form));
    if manifest.kind != code.kind
        || form != Some(manifest.form)
        || wanted.as_ref() != Some(&manifest.world)
    {
        return Err(CodeError::Other {
            signed: format!("{} for {}", manifest.kind, printable(&manifest.world)),
            wanted: match wanted {
                Some(world) => format!("{} for {world}", code.kind),
                None => format!("{} (neither a component nor a shared library)", code.kind),
            },
        });
    }
    // Cargo takes no version but three numbers.
    let this = parse_version(env!("CARGO_PKG_VERSION")).unwrap_or_default();
    if manifest.least_host > this {
        return Err(CodeError::Host {
            least: manifest.least_host,
            this,
        });
    }
    Ok(())
}

/// Code that nobody vouches for yet.
fn code(kind: Kind, path: &Path, bytes: Vec<u8>) -> Code {
    Code {
        kind,
        path: path.to_owned(),
        sha256: hash(&bytes),
        bytes,
        signed: None,
    }
}

/// SHA-256 in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hex(hasher.finish().sha256())
}

/// All of a file within the limit; `None` where there is none.
fn optional(path: &Path, max: u64) -> Result<Option<Vec<u8>>, CodeError> {
    let failed = |source| CodeError::File {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        // Nobody waits for the other end of a pipe.
        Ok(_) => return Err(failed(io::Error::other("it is no file"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(CodeError::TooLarge {
            path: path.to_owned(),
            max,
        });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
