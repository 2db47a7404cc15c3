//! Signing for `otad update create` and `otad sign`: P-256, deterministic (RFC 6979), DER.

use std::io::Read;

use p256::ecdsa::DerSignature;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::pkcs8::EncodePublicKey;
use p256::{SecretKey, ecdsa};

use crate::certificate::Certificate;
use crate::error::SigningError;
use crate::hash::{Hashed, Hasher};

/// Labels of PEM blocks that hold a key; `EC PARAMETERS` in front of one, as openssl writes them, is skipped.
const LABELS: [&str; 2] = ["PRIVATE KEY", "EC PRIVATE KEY"];

/// A P-256 private key.
pub struct SigningKey(ecdsa::SigningKey);

impl SigningKey {
    /// Read the first private key of a PEM text, PKCS#8 or SEC1, not encrypted.
    ///
    /// # Errors
    /// [`SigningError`] says what is in it instead.
    pub fn from_pem(pem: &str) -> Result<Self, SigningError> {
        if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(SigningError::Encrypted);
        }
        let block = LABELS
            .iter()
            .find_map(|label| block(pem, label))
            .ok_or_else(|| {
                SigningError::Unreadable("there is no PEM block of a private key".into())
            })?;
        let key =
            SecretKey::from_pem(block).map_err(|e| SigningError::Unreadable(e.to_string()))?;
        Ok(Self(key.into()))
    }

    /// The DER signature of what was hashed.
    ///
    /// # Errors
    /// [`SigningError::Refused`], which a sound key never gives.
    pub fn sign(&self, hashed: &Hashed) -> Result<Vec<u8>, SigningError> {
        let signature: DerSignature = self
            .0
            .sign_prehash(hashed.sha256())
            .map_err(|_| SigningError::Refused)?;
        Ok(signature.as_bytes().to_vec())
    }

    /// Hash everything that `source` gives and sign it.
    ///
    /// # Errors
    /// What the source says.
    pub fn sign_stream(&self, mut source: impl Read) -> std::io::Result<(Hashed, Vec<u8>)> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let hashed = hasher.finish();
        let signature = self.sign(&hashed).map_err(std::io::Error::other)?;
        Ok((hashed, signature))
    }

    /// Whether `certificate` is of this key: asked before something is signed that no device would take.
    ///
    /// # Errors
    /// [`SigningError::NotAPair`].
    pub fn check_pair(&self, certificate: &Certificate) -> Result<(), SigningError> {
        let ours = self.0.verifying_key().to_public_key_der();
        if ours.is_ok_and(|der| der.as_bytes() == certificate.public_key_der()) {
            return Ok(());
        }
        Err(SigningError::NotAPair(certificate.entry().to_owned()))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key itself.
        f.write_str("SigningKey(P-256)")
    }
}

/// The first PEM block with this label, with its boundaries.
fn block<'p>(pem: &'p str, label: &str) -> Option<&'p str> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let start = pem.find(&begin)?;
    let stop = pem[start..].find(&end)?;
    Some(&pem[start..start + stop + end.len()])
}
