//! Signs images the way OTA jobs carry it: over the whole file, SHA-256, ECDSA P-256 or RSA PKCS#1.
//!
//! For the operator's side (`otad update create`, the demo). The cloud itself signs nothing, and nothing here verifies.

use std::{
    fmt::Display,
    io::{self, Read},
};

use aws_lc_rs::{
    digest::{Context, Digest, SHA256},
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use x509_cert::{Certificate, der::DecodePem};

use crate::{
    error::CloudError,
    service::{SigKey, Signature},
};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A private key that signs images.
pub struct Signer(Key);

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    /// Reads a key in PEM: PKCS#8, or as `openssl ecparam` and `openssl genrsa` write it. `label` names it in errors.
    ///
    /// # Errors
    /// No key, or neither P-256 nor RSA.
    pub fn from_pem(label: &str, pem: &[u8]) -> Result<Self, CloudError> {
        let refuse = |reason: &dyn Display| CloudError::pki(label, reason);
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|e| refuse(&e))?;
        let p256 = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                let bytes = der.secret_pkcs8_der();
                EcdsaKeyPair::from_pkcs8(p256, bytes)
                    .map(Key::Ecdsa)
                    .or_else(|_| RsaKeyPair::from_pkcs8(bytes).map(Key::Rsa))
                    .ok()
            }
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(p256, der.secret_sec1_der())
                    .map(Key::Ecdsa)
                    .ok()
            }
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(Key::Rsa)
                .ok(),
            _ => None,
        };
        key.map(Self).ok_or_else(|| {
            refuse(&"it is neither a P-256 nor an RSA private key of 2048 to 8192 bits")
        })
    }

    /// Checks that a certificate in PEM belongs to this key.
    ///
    /// # Errors
    /// It is none, or belongs to another key.
    pub fn check_certificate(&self, label: &str, pem: &[u8]) -> Result<(), CloudError> {
        let certificate =
            Certificate::from_pem(pem).map_err(|error| CloudError::pki(label, error))?;
        let public = certificate
            .tbs_certificate()
            .subject_public_key_info()
            .subject_public_key
            .raw_bytes();
        let own = match &self.0 {
            Key::Ecdsa(key) => key.public_key().as_ref(),
            Key::Rsa(key) => key.public_key().as_ref(),
        };
        if public == own {
            Ok(())
        } else {
            Err(CloudError::pki(
                label,
                "the certificate does not belong to the signing key",
            ))
        }
    }

    /// Signs everything that `image` yields.
    ///
    /// # Errors
    /// Reading failed, or the key could not be used.
    pub fn sign(&self, label: &str, mut image: impl Read) -> Result<Signature, CloudError> {
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match image.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => context.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CloudError::pki(label, error)),
            }
        }
        self.sign_digest(label, &context.finish())
    }

    fn sign_digest(&self, label: &str, digest: &Digest) -> Result<Signature, CloudError> {
        let refused = |_| CloudError::pki(label, "the signing key could not be used");
        let (key, bytes) = match &self.0 {
            Key::Ecdsa(pair) => {
                let signature = pair.sign_digest(digest).map_err(refused)?;
                (SigKey::Sha256Ecdsa, signature.as_ref().to_vec())
            }
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, digest, &mut signature)
                    .map_err(refused)?;
                (SigKey::Sha256Rsa, signature)
            }
        };
        Ok(Signature {
            key,
            base64: STANDARD.encode(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
    };
    use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

    use super::*;
    use crate::pki::Pki;

    fn verifies(
        algorithm: &dyn VerificationAlgorithm,
        key: &KeyPair,
        image: &[u8],
        made: &Signature,
    ) {
        let signature = STANDARD.decode(&made.base64).unwrap();
        let public = key.public_key_raw();
        algorithm.verify_sig(public, image, &signature).unwrap();
        let mut other = image.to_vec();
        other.push(0);
        assert!(algorithm.verify_sig(public, &other, &signature).is_err());
    }

    #[test]
    fn an_ecdsa_signature_verifies_over_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let made = Pki::open(dir.path()).unwrap().code_signing().unwrap();
        let signer = Signer::from_pem("key", made.private_key_pem.as_bytes()).unwrap();
        signer
            .check_certificate("cert", made.certificate_pem.as_bytes())
            .unwrap();
        let image = vec![7; 3 * READ_BYTES + 1];
        let signature = signer.sign("image", &image[..]).unwrap();
        assert_eq!(signature.key, SigKey::Sha256Ecdsa);
        let key = KeyPair::from_pem(&made.private_key_pem).unwrap();
        verifies(&ECDSA_P256_SHA256_ASN1, &key, &image, &signature);
    }

    #[test]
    fn an_rsa_signature_verifies_and_another_keys_certificate_is_refused() {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let signer = Signer::from_pem("key", key.serialize_pem().as_bytes()).unwrap();
        let own = CertificateParams::default().self_signed(&key).unwrap();
        signer
            .check_certificate("cert", own.pem().as_bytes())
            .unwrap();
        let signature = signer.sign("image", &b"abc"[..]).unwrap();
        assert_eq!(signature.key, SigKey::Sha256Rsa);
        verifies(&RSA_PKCS1_2048_8192_SHA256, &key, b"abc", &signature);

        let dir = tempfile::tempdir().unwrap();
        let other = Pki::open(dir.path()).unwrap().code_signing().unwrap();
        let error = signer.check_certificate("cert.pem", other.certificate_pem.as_bytes());
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("cert.pem") && text.contains("belong"),
            "{text}"
        );
    }

    /// As `openssl ecparam -name prime256v1 -genkey` writes it; made for this test and used nowhere else.
    const OPENSSL_EC: &str = "\
-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIF/P4FasAERxDMUnsRiGDERd9j15lzXvZgo7HcvycfquoAoGCCqGSM49
AwEHoUQDQgAEcYgmHmP6dJ8mcQ1q+/RNII5qOC0TtriHz5aunPAgMjLsTni4kf5k
IQpIMJ48zY185V7Oe0W3qVAkGED0+p6ung==
-----END EC PRIVATE KEY-----
";

    #[test]
    fn a_key_as_openssl_writes_it_signs() {
        let signer = Signer::from_pem("key", OPENSSL_EC.as_bytes()).unwrap();
        let signature = signer.sign("image", &b"abc"[..]).unwrap();
        assert_eq!(signature.key, SigKey::Sha256Ecdsa);
        let Key::Ecdsa(pair) = &signer.0 else {
            panic!("another kind");
        };
        let bytes = STANDARD.decode(&signature.base64).unwrap();
        ECDSA_P256_SHA256_ASN1
            .verify_sig(pair.public_key().as_ref(), b"abc", &bytes)
            .unwrap();
    }

    #[test]
    fn what_is_no_usable_key_is_refused_by_name() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let pem = p384.serialize_pem();
        for bad in [
            &b""[..],
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            pem.as_bytes(),
        ] {
            let Err(error) = Signer::from_pem("my.key", bad) else {
                panic!("accepted");
            };
            assert!(error.to_string().contains("my.key"), "{error}");
        }
    }
}
