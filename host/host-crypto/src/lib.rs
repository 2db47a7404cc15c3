//! Hashing and signature checks of the host: native code, on the operator's trust store.
//!
//! ```text
//! bytes --> Hasher --> Hashed --(policy, signature, wall clock)--> TrustPolicy::verify --> Verified
//! ```
//!
//! Nobody outside this crate can make a [`Hashed`] without hashing or a [`Verified`] without a signature that fits (or
//! the development setting that says unsigned images are allowed). Not here: where bytes come from, what is done with
//! a verified image, TLS. No async runtime, no wasm, no clock: the wall clock comes in as a value.
//!
//! ```
//! use host_crypto::{Hasher, Request, SigningKey, TrustPolicy, TrustStore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pair = rcgen::KeyPair::generate()?;
//! # let certificate = rcgen::CertificateParams::new(vec!["demo".into()])?.self_signed(&pair)?;
//! # let (certificate_pem, key_pem) = (certificate.pem(), pair.serialize_pem());
//! let mut store = TrustStore::default();
//! store.add("vendor-2026", &certificate_pem)?;
//! let policy = TrustPolicy::new(store).default_entry("vendor-2026")?;
//!
//! let mut hasher = Hasher::default();
//! hasher.update(b"an image");
//! let hashed = hasher.finish();
//! let signature = SigningKey::from_pem(&key_pem)?.sign(&hashed)?;
//!
//! let request = Request { kind: "sig-sha256-ecdsa", signature: &signature, label: "" };
//! let verified = policy.verify(&hashed, &request, Some(1_790_000_000))?;
//! assert_eq!(verified.signer(), "vendor-2026");
//! # Ok(())
//! # }
//! ```

mod certificate;
mod error;
mod hash;
mod signature;
mod signing;
mod trust;

#[cfg(test)]
mod tests;

pub use certificate::{Certificate, Facts, Validity};
pub use error::{BAD_SIGNER_CERT, SIGNATURE_CHECK_FAILED, SigningError, TrustError, VerifyError};
pub use hash::{Hashed, Hasher, hex};
pub use signature::{SignatureKind, Verifier};
pub use signing::SigningKey;
pub use trust::{ENTRIES_MAX, Request, TrustPolicy, TrustStore, UNSIGNED, Verified, Warning};
