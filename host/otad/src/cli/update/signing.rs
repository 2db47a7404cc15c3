//! Who signs an update: the cloud's own key, a key of the operator's, a signing profile, or somebody elsewhere. What
//! signs is checked against its certificate before anything is created, as a device would check it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use host_cloud::service::{ImageId, SigKey, Signature};
use host_crypto::{Hashed, Hasher, SigningKey, TrustPolicy, TrustStore, VerifyError};

use super::profile::Profile;
use super::request::FileRequest;
use crate::cli::args::{CreateArgs, SignatureKindArg};
use crate::cli::problems::Problems;
use crate::exit::{Exit, Failed};

/// Largest signature that a job document carries, in bytes: RSA with 4096 bits.
const SIGNATURE_MAX_BYTES: usize = 512;

/// Who signs.
pub(super) enum Signer {
    /// A key of this machine.
    Key {
        /// Where it lies.
        path: PathBuf,
        /// The key.
        key: SigningKey,
        /// Its certificate, if one was named.
        certificate: Option<Certificate>,
    },
    /// Signatures made elsewhere, a file for each image.
    Given {
        /// Their kind.
        kind: SigKey,
        /// Whose they are, if a certificate was named.
        certificate: Option<Certificate>,
    },
    /// Nobody.
    Nobody,
}

/// A certificate that signatures are checked with.
pub(super) struct Certificate {
    pub(super) path: PathBuf,
    pub(super) pem: String,
    policy: TrustPolicy,
}

/// What became of an image.
pub(super) struct Signed {
    pub(super) signature: Option<Signature>,
    /// Of what was signed, in hex.
    pub(super) sha256: String,
}

impl Signer {
    /// The signer that the options name: by a profile, a key, or signatures; `default` is the key and the certificate of
    /// the cloud's own signer.
    pub(super) fn read(
        args: &CreateArgs,
        profile: Option<&Profile>,
        default: Option<(&Path, &Path)>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if args.unsigned {
            return Some(Self::Nobody);
        }
        let own = args.key.as_ref().or_else(|| profile.map(|p| &p.key));
        let named = args
            .certificate
            .as_ref()
            .or_else(|| profile.map(|p| &p.certificate));
        let certificate = named.and_then(|path| Certificate::read(path, problems));
        if !args.signature.is_empty() {
            let kind = match args.signature_kind {
                SignatureKindArg::SigSha256Ecdsa => SigKey::Sha256Ecdsa,
                SignatureKindArg::SigSha256Rsa => SigKey::Sha256Rsa,
            };
            return Some(Self::Given { kind, certificate });
        }
        let (path, certificate) = match (own, default) {
            (Some(path), _) => (path.as_path(), certificate),
            (None, Some((path, _))) if !path.exists() => {
                problems.usage(format!(
                    "--key is missing: the cloud's own signing key {} is not on this machine; sign with --key or --signature",
                    path.display()
                ));
                return None;
            }
            (None, Some((path, default))) => {
                let certificate = match named {
                    Some(_) => certificate,
                    None => Certificate::read(default, problems),
                };
                (path, certificate)
            }
            (None, None) => return None,
        };
        let key = problems.take(read_key(path))?;
        let signer = Self::Key {
            path: path.to_owned(),
            key,
            certificate,
        };
        // The same question that a device asks, of a signature over nothing.
        let Self::Key {
            key,
            certificate: Some(certificate),
            ..
        } = &signer
        else {
            return Some(signer);
        };
        let nothing = Hasher::default().finish();
        let checked = key
            .sign(&nothing)
            .map_err(|e| e.to_string())
            .and_then(|signature| certificate.check(&nothing, SigKey::Sha256Ecdsa, &signature));
        if let Err(why) = checked {
            let text = format!(
                "--certificate {}: {why} (signing key {})",
                certificate.path.display(),
                path.display()
            );
            problems.add(Exit::Unverified, text);
        }
        Some(signer)
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Key { path, .. } => path.display().to_string(),
            Self::Given { .. } => "a signature made elsewhere".to_owned(),
            Self::Nobody => "nobody: only devices under their development setting take it".into(),
        }
    }

    /// The certificate that signatures were checked with.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Key { certificate, .. } | Self::Given { certificate, .. } => certificate.as_ref(),
            Self::Nobody => None,
        }
    }

    /// Sign, or read and check what was signed elsewhere.
    pub(super) fn sign(&self, file: &FileRequest, image: &Path) -> Result<Signed, Failed> {
        let source = File::open(image).map_err(|e| file_failed(image, &e))?;
        let (hashed, signature) = match self {
            Self::Key { key, .. } => {
                let signed = key.sign_stream(source);
                let (hashed, signature) = signed.map_err(|e| file_failed(image, &e))?;
                (hashed, Some((SigKey::Sha256Ecdsa, signature)))
            }
            Self::Given { kind, .. } => {
                let signature = given(file)?;
                (hash(source, image)?, Some((*kind, signature)))
            }
            Self::Nobody => (hash(source, image)?, None),
        };
        if let (Some(certificate), Some((kind, raw))) = (self.certificate(), &signature)
            && let Err(why) = certificate.check(&hashed, *kind, raw)
        {
            let text = format!("the signature of {}: {why}", image.display());
            return Err(Failed::new(Exit::Unverified, text));
        }
        Ok(Signed::new(host_crypto::hex(hashed.sha256()), signature))
    }

    /// The same of an image that only a cloud on another machine has. Without its bytes nothing can be made or checked.
    pub(super) fn sign_unseen(
        &self,
        file: &FileRequest,
        image: &ImageId,
    ) -> Result<Signed, Failed> {
        let signature = match self {
            Self::Given {
                kind,
                certificate: None,
            } => Some((*kind, given(file)?)),
            Self::Nobody => None,
            Self::Key { .. } | Self::Given { .. } => {
                return Err(Failed::new(
                    Exit::Usage,
                    format!(
                        "--file {}: the cloud is on another machine, and to sign an image or to check a signature with a \
                         certificate takes its bytes; give the file itself, or only --signature or --unsigned",
                        file.named
                    ),
                ));
            }
        };
        Ok(Signed::new(image.to_string(), signature))
    }
}

impl Signed {
    fn new(sha256: String, signature: Option<(SigKey, Vec<u8>)>) -> Self {
        let signature = signature.map(|(key, raw)| Signature {
            key,
            base64: BASE64.encode(raw),
        });
        Self { signature, sha256 }
    }
}

fn given(file: &FileRequest) -> Result<Vec<u8>, Failed> {
    // Where one is missing the options were refused.
    read_signature(&file.signature.clone().unwrap_or_default())
}

impl Certificate {
    pub(super) fn read(path: &Path, problems: &mut Problems) -> Option<Self> {
        let name = path.display();
        let pem = match fs::read_to_string(path) {
            Ok(pem) => pem,
            Err(e) => {
                problems.add(Exit::Failed, format!("--certificate {name}: {e}"));
                return None;
            }
        };
        let mut store = TrustStore::default();
        let policy = store
            .add("signer", &pem)
            .and_then(|()| TrustPolicy::new(store).default_entry("signer"));
        match policy {
            Ok(policy) => Some(Self {
                path: path.to_owned(),
                pem,
                policy,
            }),
            Err(e) => {
                let why = match e {
                    host_crypto::TrustError::Certificate { reason, .. } => reason,
                    other => crate::exit::chain(&other),
                };
                problems.usage(format!(
                    "--certificate {name}: {why}; a signer has a P-256 or RSA certificate for code signing"
                ));
                None
            }
        }
    }

    fn check(&self, hashed: &Hashed, kind: SigKey, signature: &[u8]) -> Result<(), String> {
        let request = host_crypto::Request {
            kind: kind.as_str(),
            signature,
            label: "",
        };
        self.policy
            .verify(hashed, &request, Some(now_s()))
            .map(drop)
            .map_err(|e| match e {
                VerifyError::Mismatch { .. } => {
                    "it does not belong to the key or to these bytes".to_owned()
                }
                VerifyError::WrongKey { kind, key, .. } => {
                    format!("it has an {key} key, the signature is {kind}")
                }
                VerifyError::Expired { not_after, .. } => {
                    format!("it ended at {not_after} (unix time); renew it or mend the clock")
                }
                VerifyError::NotYetValid { not_before, .. } => {
                    format!("it begins at {not_before} (unix time); mend the clock")
                }
                other => other.to_string(),
            })
    }
}

/// Seconds since 1970, as a device with a clock would have them.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own tool; nothing is simulated here"
)]
fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

pub(in crate::cli) fn read_key(path: &Path) -> Result<SigningKey, Failed> {
    let pem = fs::read_to_string(path).map_err(|e| file_failed(path, &e))?;
    SigningKey::from_pem(&pem).map_err(|e| {
        Failed::new(
            Exit::Usage,
            format!(
                "--key {}: {e}; with another kind of key sign with `openssl dgst -sha256 -sign` and give --signature",
                path.display()
            ),
        )
    })
}

/// What a file holds, hashed.
pub(in crate::cli) fn hash_file(path: &Path) -> Result<Hashed, Failed> {
    hash(File::open(path).map_err(|e| file_failed(path, &e))?, path)
}

fn hash(mut source: File, path: &Path) -> Result<Hashed, Failed> {
    use std::io::Read as _;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(file_failed(path, &e)),
        }
    }
}

/// The bytes of a signature file, which holds them raw or in base64.
pub(in crate::cli) fn read_signature(path: &Path) -> Result<Vec<u8>, Failed> {
    let bytes = fs::read(path).map_err(|e| file_failed(path, &e))?;
    let text: Option<String> = std::str::from_utf8(&bytes)
        .ok()
        .map(|text| text.split_ascii_whitespace().collect());
    let raw = text
        .and_then(|text| BASE64.decode(text).ok())
        .unwrap_or(bytes);
    if raw.is_empty() || raw.len() > SIGNATURE_MAX_BYTES {
        return Err(Failed::new(
            Exit::Usage,
            format!(
                "--signature {}: {} bytes are not a signature; make one with `openssl dgst -sha256 -sign`",
                path.display(),
                raw.len()
            ),
        ));
    }
    Ok(raw)
}

pub(super) fn file_failed(path: &Path, error: &std::io::Error) -> Failed {
    Failed::chain(Exit::Failed, &path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_file_may_be_raw_or_base64() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signature");
        let raw = [0x30, 0x44, 0xff, 0x00];
        fs::write(&path, raw).unwrap();
        assert_eq!(read_signature(&path).unwrap(), raw);
        fs::write(&path, format!("{}\n", BASE64.encode(raw))).unwrap();
        assert_eq!(read_signature(&path).unwrap(), raw);
        fs::write(&path, []).unwrap();
        assert_eq!(read_signature(&path).unwrap_err().exit, Exit::Usage);
        fs::write(&path, [0xff; SIGNATURE_MAX_BYTES + 1]).unwrap();
        assert_eq!(read_signature(&path).unwrap_err().exit, Exit::Usage);
    }
}
