//! Who signs the images of simulated updates: one key for ever, so that a seed gives the same bytes everywhere.
//!
//! The key is public, and good for nothing but that. Its certificate holds from 2026 to 2051; worlds begin in 2030.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use host_cloud::service::{SigKey, Signature};
use host_crypto::{Hasher, SigningKey, TrustPolicy, TrustStore};

/// Label of the trust store, and `certfile` of the jobs.
pub(crate) const SIGNER: &str = "signer";

struct Signer {
    key: SigningKey,
    trust: Arc<TrustPolicy>,
}

fn signer() -> Option<&'static Signer> {
    static MADE: OnceLock<Option<Signer>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut store = TrustStore::default();
        store
            .add(SIGNER, include_str!("signer-certificate.pem"))
            .ok()?;
        Some(Signer {
            key: SigningKey::from_pem(include_str!("signer-key.pem")).ok()?,
            trust: Arc::new(
                TrustPolicy::new(store)
                    .label(SIGNER, SIGNER)
                    .ok()?
                    .remembering(),
            ),
        })
    })
    .as_ref()
}

/// Whose signatures count in a world.
pub(crate) fn trust() -> Arc<TrustPolicy> {
    signer().map_or_else(
        // Without the certificate every image is refused; the test below sees that it is there.
        || Arc::new(TrustPolicy::new(TrustStore::default())),
        |signer| Arc::clone(&signer.trust),
    )
}

/// The signature of bytes; of others if it is to be a bad one.
pub(crate) fn sign(bytes: &[u8], good: bool) -> Option<Signature> {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    if !good {
        hasher.update(b"and one byte more");
    }
    let signed = signer()?.key.sign(&hasher.finish()).ok()?;
    Some(Signature {
        key: SigKey::Sha256Ecdsa,
        base64: base64::engine::general_purpose::STANDARD.encode(signed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_the_same_at_every_time_and_only_good_ones_are_taken() {
        let (good, bad) = (
            sign(b"image", true).unwrap(),
            sign(b"image", false).unwrap(),
        );
        assert_eq!(good, sign(b"image", true).unwrap());
        assert_ne!(good, bad);
        let check = |signature: &Signature, wall_s| {
            let mut hasher = Hasher::default();
            hasher.update(b"image");
            let bytes = base64::engine::general_purpose::STANDARD.decode(&signature.base64);
            let request = host_crypto::Request {
                kind: "sig-sha256-ecdsa",
                signature: &bytes.unwrap(),
                label: SIGNER,
            };
            trust().verify(&hasher.finish(), &request, wall_s).is_ok()
        };
        let in_2030 = Some(1_900_000_000);
        assert!(check(&good, in_2030));
        assert!(!check(&bad, in_2030));
        assert!(!check(&good, Some(0)));
    }
}
