//! The operator's trust store, and the policy of a target: which label of a job selects which entry.
//!
//! Policy, in order:
//! 1. no signature at all: refused, unless the development setting allows unsigned images; a signature that is there
//!    is always checked;
//! 2. the kind must be one with SHA-256;
//! 3. the job's label selects an entry through the label table, and nothing else does: no path, no file name. No label
//!    selects the target's default entry;
//! 4. the certificate must be within its validity by the wall clock. An unknown clock (a gateway without battery
//!    before its first time synchronisation) is a warning and no refusal: refusing would make it impossible to mend
//!    such a gateway, and the signature still has to fit a key that the operator has pinned;
//! 5. the signature must fit.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::certificate::Certificate;
use crate::error::{TrustError, VerifyError};
use crate::hash::Hashed;
use crate::signature::SignatureKind;

/// Most certificates of a trust store: a dozen vendors with an old and a new key each, and room.
pub const ENTRIES_MAX: usize = 64;

/// Most bytes of a certificate file; a large one has 4 KiB.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Endings of the files that are read from the trust directory; others are left alone.
const ENDINGS: [&str; 3] = ["pem", "crt", "cer"];

/// The signer of an image that nobody signed.
pub const UNSIGNED: &str = "unsigned";

/// Certificates by name.
#[derive(Clone, Debug, Default)]
pub struct TrustStore {
    entries: BTreeMap<String, Arc<Certificate>>,
}

impl TrustStore {
    /// Read every `.pem`, `.crt` and `.cer` file of a directory; an entry is named after its file, without the ending.
    ///
    /// # Errors
    /// [`TrustError`]: a directory with one bad certificate is refused as a whole, so that nobody believes in one that
    /// does not count.
    pub fn load(directory: &Path) -> Result<Self, TrustError> {
        Self::load_for(directory, Some(rustix::process::geteuid().as_raw()))
    }

    /// As a process of this user would [`load`](Self::load) it; `None` = nobody knows which, and whose the files are does not
    /// count: for an administrator who looks at what a service will find.
    ///
    /// # Errors
    /// As there.
    pub fn load_for(directory: &Path, user: Option<u32>) -> Result<Self, TrustError> {
        let unreadable = |source| TrustError::Directory {
            path: directory.to_owned(),
            source,
        };
        let metadata = fs::metadata(directory).map_err(unreadable)?;
        check_access(directory, &metadata, user)?;
        let mut paths = Vec::new();
        for item in fs::read_dir(directory).map_err(unreadable)? {
            let path = item.map_err(unreadable)?.path();
            let ending = path
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            if ENDINGS.contains(&ending) {
                paths.push(path);
            }
        }
        paths.sort();
        let mut store = Self::default();
        for path in paths {
            let entry = path.file_stem().unwrap_or_default().to_string_lossy();
            store
                .add(&entry, &read(&path, user)?)
                .map_err(|error| in_file(error, &path))?;
        }
        Ok(store)
    }

    /// Add one PEM certificate.
    ///
    /// # Errors
    /// [`TrustError`] if it cannot verify images, or if the name is taken.
    pub fn add(&mut self, entry: &str, pem: &str) -> Result<(), TrustError> {
        let certificate = Certificate::from_pem(entry, pem)?;
        if self.entries.len() == ENTRIES_MAX {
            return Err(TrustError::Limit {
                what: "certificates in the trust store".into(),
                found: ENTRIES_MAX as u64 + 1,
                max: ENTRIES_MAX as u64,
            });
        }
        if self.entries.contains_key(entry) {
            return Err(TrustError::Duplicate(entry.to_owned()));
        }
        self.entries.insert(entry.to_owned(), Arc::new(certificate));
        Ok(())
    }

    /// The certificates, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Certificate> {
        self.entries.values().map(Arc::as_ref)
    }

    /// Whose key made this P-256 signature over bytes that this process has hashed: several where a certificate was renewed
    /// for the same key, none for a stranger's. Whether they hold now is for the caller to ask ([`Certificate::validity`]):
    /// a manifest is looked at again at every start, an image once.
    ///
    /// # Errors
    /// What is malformed about the signature, in words.
    pub fn signers(&self, hashed: &Hashed, signature: &[u8]) -> Result<Vec<&Certificate>, String> {
        let mut signers = Vec::new();
        for certificate in self.entries() {
            let verifier = certificate.verifier();
            if verifier.kind() == SignatureKind::EcdsaSha256 && verifier.fits(hashed, signature)? {
                signers.push(certificate);
            }
        }
        Ok(signers)
    }

    /// One certificate.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Certificate> {
        self.entries.get(name).map(Arc::as_ref)
    }
}

/// Whose signatures count for a target.
#[derive(Clone, Debug, Default)]
pub struct TrustPolicy {
    store: TrustStore,
    labels: BTreeMap<String, String>,
    default: Option<String>,
    allow_unsigned: bool,
    remembered: Option<Arc<Mutex<Remembered>>>,
}

/// Signatures by entry, each with a digest that it was held against and whether it fits: one that fits if there is one.
type Remembered = BTreeMap<(String, Vec<u8>), ([u8; 32], bool)>;

/// Signatures that are remembered; then all are forgotten. Simulations have a few dozen images.
const REMEMBERED_MAX: usize = 256;

impl TrustPolicy {
    /// A policy on a store, with no label, no default, and no unsigned images: it refuses everything.
    #[must_use]
    pub fn new(store: TrustStore) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    /// Let the job's `certfile` text `label` select `entry`.
    ///
    /// # Errors
    /// [`TrustError::NoEntry`].
    pub fn label(mut self, label: &str, entry: &str) -> Result<Self, TrustError> {
        self.check_entry(label, entry)?;
        self.labels.insert(label.to_owned(), entry.to_owned());
        Ok(self)
    }

    /// Let a job without `certfile` select `entry`.
    ///
    /// # Errors
    /// [`TrustError::NoEntry`].
    pub fn default_entry(mut self, entry: &str) -> Result<Self, TrustError> {
        self.check_entry("default", entry)?;
        self.default = Some(entry.to_owned());
        Ok(self)
    }

    /// The development setting: take images that carry no signature. Whoever sets it says so loudly at every start.
    #[must_use]
    pub fn allow_unsigned(mut self, allow: bool) -> Self {
        self.allow_unsigned = allow;
        self
    }

    /// Check each signature once, and know from then on what it fits: for simulations, which verify the same few images, and
    /// what corruption makes of them, thousands of times. Everything else is looked at each time.
    #[must_use]
    pub fn remembering(mut self) -> Self {
        self.remembered = Some(Arc::default());
        self
    }

    /// Whether unsigned images are taken.
    #[must_use]
    pub fn allows_unsigned(&self) -> bool {
        self.allow_unsigned
    }

    /// The certificates it rests on.
    #[must_use]
    pub fn store(&self) -> &TrustStore {
        &self.store
    }

    /// Check what a job says about its signature before anything is downloaded: kind, label, key and validity.
    ///
    /// # Errors
    /// The [`VerifyError`] that [`verify`](Self::verify) would end with whatever the bytes are.
    pub fn precheck(&self, request: &Request<'_>, wall_s: Option<u64>) -> Result<(), VerifyError> {
        if self.takes_unsigned(request) {
            return Ok(());
        }
        self.select(request, wall_s).map(drop)
    }

    /// Check a signature over bytes that this process has hashed.
    ///
    /// # Errors
    /// [`VerifyError`], worded by its cause.
    pub fn verify(
        &self,
        hashed: &Hashed,
        request: &Request<'_>,
        wall_s: Option<u64>,
    ) -> Result<Verified, VerifyError> {
        if self.takes_unsigned(request) {
            return Ok(Verified {
                hashed: *hashed,
                signer: UNSIGNED.to_owned(),
                warnings: vec![Warning::Unsigned],
            });
        }
        let (kind, certificate) = self.select(request, wall_s)?;
        let fits = self
            .fits(certificate, hashed, request.signature)
            .map_err(|reason| VerifyError::Malformed {
                kind: kind.name(),
                length: request.signature.len(),
                reason,
            })?;
        if !fits {
            return Err(VerifyError::Mismatch {
                entry: certificate.entry().to_owned(),
            });
        }
        let warnings = match wall_s {
            Some(_) => Vec::new(),
            None => vec![Warning::UnknownTime],
        };
        Ok(Verified {
            hashed: *hashed,
            signer: certificate.entry().to_owned(),
            warnings,
        })
    }

    fn fits(
        &self,
        certificate: &Certificate,
        hashed: &Hashed,
        signature: &[u8],
    ) -> Result<bool, String> {
        let Some(remembered) = &self.remembered else {
            return certificate.verifier().fits(hashed, signature);
        };
        let key = (certificate.entry().to_owned(), signature.to_vec());
        let known = remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&key) {
            // Two that one signature fits are found by nobody who has not made the key for it, and then one is refused.
            Some((digest, true)) => return Ok(digest == hashed.sha256()),
            Some((digest, false)) if digest == hashed.sha256() => return Ok(false),
            Some(_) | None => drop(known),
        }
        let fits = certificate.verifier().fits(hashed, signature)?;
        let mut known = remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let answer = (*hashed.sha256(), fits);
        let place = known.entry(key).or_insert(answer);
        // Another thread may have found one that fits meanwhile.
        if fits {
            *place = answer;
        }
        Ok(fits)
    }

    fn takes_unsigned(&self, request: &Request<'_>) -> bool {
        self.allow_unsigned && request.kind.is_empty() && request.signature.is_empty()
    }

    fn select(
        &self,
        request: &Request<'_>,
        wall_s: Option<u64>,
    ) -> Result<(SignatureKind, &Certificate), VerifyError> {
        let kind = SignatureKind::parse(request.kind)?;
        if request.signature.is_empty() {
            return Err(VerifyError::Missing);
        }
        let entry = if request.label.is_empty() {
            self.default.as_ref().ok_or(VerifyError::NoDefault)?
        } else {
            self.labels
                .get(request.label)
                .ok_or_else(|| VerifyError::UnknownLabel(printable(request.label)))?
        };
        let certificate = self
            .store
            .entry(entry)
            .ok_or_else(|| VerifyError::UnknownLabel(printable(request.label)))?;
        if certificate.verifier().kind() != kind {
            return Err(VerifyError::WrongKey {
                kind: kind.name(),
                key: certificate.verifier().key(),
                entry: entry.clone(),
            });
        }
        if let Some(now) = wall_s {
            check_validity(certificate, now)?;
        }
        Ok((kind, certificate))
    }

    fn check_entry(&self, label: &str, entry: &str) -> Result<(), TrustError> {
        match self.store.entry(entry) {
            Some(_) => Ok(()),
            None => Err(TrustError::NoEntry {
                label: label.to_owned(),
                entry: entry.to_owned(),
            }),
        }
    }
}

/// What a job says about the signature of a file.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Key of the signature in the job document; empty = none was given.
    pub kind: &'a str,
    /// The signature, decoded.
    pub signature: &'a [u8],
    /// `certfile`; empty = the target's default.
    pub label: &'a str,
}

/// Something that is not as it should be, and no reason to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The image carries no signature, and the development setting takes it.
    #[error("the image is not signed; a development setting takes it all the same")]
    Unsigned,
    /// The wall clock is not known.
    #[error("the wall clock is not known, so the validity of the certificate was not checked")]
    UnknownTime,
}

/// Bytes that were hashed here and whose signature fits. Made only by [`TrustPolicy::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    hashed: Hashed,
    signer: String,
    warnings: Vec<Warning>,
}

impl Verified {
    /// Digest of the bytes.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        self.hashed.sha256()
    }

    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.hashed.size()
    }

    /// Name of the trust-store entry whose key verified it, or [`UNSIGNED`].
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// What an operator should know.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

fn check_validity(certificate: &Certificate, now: u64) -> Result<(), VerifyError> {
    let validity = certificate.validity();
    let entry = certificate.entry().to_owned();
    if now > validity.not_after {
        return Err(VerifyError::Expired {
            entry,
            not_after: validity.not_after,
            now,
        });
    }
    if now < validity.not_before {
        return Err(VerifyError::NotYetValid {
            entry,
            not_before: validity.not_before,
            now,
        });
    }
    Ok(())
}

/// The same error, with the file that is to be mended.
fn in_file(error: TrustError, path: &Path) -> TrustError {
    match error {
        TrustError::Certificate { entry, reason } => TrustError::CertificateFile {
            entry,
            path: path.to_owned(),
            reason,
        },
        other => other,
    }
}

/// Whoever may write the store decides what runs on the gateway: root and otad's own user, nobody else.
fn check_access(path: &Path, metadata: &fs::Metadata, user: Option<u32>) -> Result<(), TrustError> {
    let owner = metadata.uid();
    check_rights(path, metadata.mode(), owner, user.unwrap_or(owner))
}

fn check_rights(path: &Path, mode: u32, owner: u32, own: u32) -> Result<(), TrustError> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    if owner != 0 && owner != own {
        return Err(TrustError::Foreign {
            path: path.to_owned(),
            owner,
        });
    }
    if mode & OTHERS_MAY_WRITE != 0 {
        return Err(TrustError::Writable {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    Ok(())
}

fn read(path: &Path, user: Option<u32>) -> Result<String, TrustError> {
    let unreadable = |source| TrustError::File {
        path: path.to_owned(),
        source,
    };
    // What was checked is what is read: one open for both.
    let file = fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_access(path, &metadata, user)?;
    let limit = |found| TrustError::Limit {
        what: format!("bytes of certificate file {}", path.display()),
        found,
        max: FILE_MAX_BYTES,
    };
    if metadata.len() > FILE_MAX_BYTES {
        return Err(limit(metadata.len()));
    }
    let mut text = String::new();
    let read = file
        .take(FILE_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)? as u64;
    // It has grown meanwhile, or is no regular file.
    if read > FILE_MAX_BYTES {
        return Err(limit(read));
    }
    Ok(text)
}

/// A label comes from a job document: cut, and without control characters.
fn printable(label: &str) -> String {
    const CHARS_MAX: usize = 80;
    label
        .chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_may_own_what_is_trusted_and_nobody_else_may_write_it() {
        let rows = [
            (0o755, 1000, "taken"),
            (0o600, 0, "taken"),
            (0o775, 1000, "mode 0775"),
            (0o646, 0, "mode 0646"),
            (0o600, 1001, "belongs to uid 1001"),
        ];
        for (mode, owner, words) in rows {
            let said = match check_rights(Path::new("/etc/otad/trust"), mode, owner, 1000) {
                Ok(()) => "taken".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(words), "{mode:o} of {owner}: {said}");
        }
    }
}
