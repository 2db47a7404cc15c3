//! The kinds of signature, and a verifier for each: one trait, P-256 built in, RSA through the TLS provider.
//!
//! RSA goes to aws-lc because the pure-Rust crate has a standing advisory; it can verify over a digest that was
//! streamed. ECDSA takes high-S signatures too: OpenSSL and signing services make them half of the time, and the job's
//! signature is no identity that malleability could harm.

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{DerSignature, VerifyingKey};

use crate::error::VerifyError;
use crate::hash::Hashed;

/// What a job's signature key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// `sig-sha256-ecdsa`: P-256, DER.
    EcdsaSha256,
    /// `sig-sha256-rsa`: PKCS#1 v1.5.
    RsaSha256,
}

impl SignatureKind {
    /// As the job document spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaSha256 => "sig-sha256-ecdsa",
            Self::RsaSha256 => "sig-sha256-rsa",
        }
    }

    /// Read the job document's spelling.
    ///
    /// # Errors
    /// [`VerifyError::Missing`] if empty, `Weak` for the SHA-1 kinds of the protocol, `UnknownKind` for the rest.
    pub fn parse(name: &str) -> Result<Self, VerifyError> {
        match name {
            "" => Err(VerifyError::Missing),
            "sig-sha256-ecdsa" => Ok(Self::EcdsaSha256),
            "sig-sha256-rsa" => Ok(Self::RsaSha256),
            "sig-sha1-rsa" | "sig-sha1-ecdsa" => Err(VerifyError::Weak(name.to_owned())),
            other => Err(VerifyError::UnknownKind(
                other
                    .chars()
                    .take(NAME_MAX_CHARS)
                    .filter(|c| !c.is_control())
                    .collect(),
            )),
        }
    }
}

/// Characters of an unknown kind that an error repeats: the protocol's limit of a key name.
const NAME_MAX_CHARS: usize = 32;

/// Checks signatures of one kind with one public key.
pub trait Verifier: Send + Sync {
    /// The kind it checks.
    fn kind(&self) -> SignatureKind;

    /// For people: `P-256`, `RSA-2048`.
    fn key(&self) -> &'static str;

    /// Check `signature` over what was hashed. `Ok(false)`: well formed, and not of these bytes by this key.
    ///
    /// # Errors
    /// What is malformed about the signature, in words.
    fn fits(&self, hashed: &Hashed, signature: &[u8]) -> Result<bool, String>;
}

/// ECDSA on P-256.
#[derive(Debug)]
pub(crate) struct P256(pub(crate) VerifyingKey);

impl Verifier for P256 {
    fn kind(&self) -> SignatureKind {
        SignatureKind::EcdsaSha256
    }

    fn key(&self) -> &'static str {
        "P-256"
    }

    fn fits(&self, hashed: &Hashed, signature: &[u8]) -> Result<bool, String> {
        let signature = DerSignature::from_bytes(signature).map_err(|_| {
            "not exactly one DER sequence of two integers of the curve's size".to_owned()
        })?;
        // Zero or past the group's order: no signer makes such a number.
        let signature = p256::ecdsa::Signature::try_from(signature)
            .map_err(|_| "r or s is not between 1 and the order of the curve".to_owned())?;
        Ok(self.0.verify_prehash(hashed.sha256(), &signature).is_ok())
    }
}

/// RSA with PKCS#1 v1.5 padding.
#[derive(Debug)]
pub(crate) struct Rsa {
    pub(crate) key: ParsedPublicKey,
    pub(crate) modulus_bits: usize,
}

impl Verifier for Rsa {
    fn kind(&self) -> SignatureKind {
        SignatureKind::RsaSha256
    }

    fn key(&self) -> &'static str {
        match self.modulus_bits {
            2048 => "RSA-2048",
            3072 => "RSA-3072",
            4096 => "RSA-4096",
            _ => "RSA",
        }
    }

    fn fits(&self, hashed: &Hashed, signature: &[u8]) -> Result<bool, String> {
        let expected = self.modulus_bits.div_ceil(8);
        if signature.len() != expected {
            return Err(format!("a signature of this key has {expected} bytes"));
        }
        let digest = Digest::import_less_safe(hashed.sha256(), &SHA256)
            .map_err(|_| "the digest is not of SHA-256's size".to_owned())?;
        Ok(self.key.verify_digest_sig(&digest, signature).is_ok())
    }
}

/// A verifier for a PKCS#1 public key.
pub(crate) fn rsa(pkcs1: &[u8], modulus_bits: usize) -> Option<Rsa> {
    ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pkcs1)
        .ok()
        .map(|key| Rsa { key, modulus_bits })
}
