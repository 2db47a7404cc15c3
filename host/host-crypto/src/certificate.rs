//! One trusted certificate: a public key that the operator has pinned, with its validity and its permitted use.
//!
//! The operator put it into the trust directory, so it is trusted as it is: no chain is built, its issuer and its own
//! signature are not looked at. What it says against itself counts: key usage and extended key usage, if present, must
//! allow signing code, and outside of its validity it verifies nothing.

use p256::ecdsa::VerifyingKey;
use p256::pkcs8::DecodePublicKey;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, DecodePem, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::{Certificate as X509, Version};

use crate::error::TrustError;
use crate::signature::{P256, Verifier, rsa};

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const KP_CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
const KP_ANY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// Smallest RSA modulus: below it factoring is within reach (NIST SP 800-131A).
const RSA_MIN_BITS: usize = 2048;

/// Largest RSA modulus: a signature has to fit the 512 bytes that a job may carry.
const RSA_MAX_BITS: usize = 4096;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// From when to when, in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
}

/// What a certificate says of itself, whatever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of X.509: 1, 2 or 3.
    pub version: u8,
    /// When it holds.
    pub validity: Validity,
}

impl Facts {
    /// Read them from a certificate, DER.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn of_der(der: &[u8]) -> Result<Self, String> {
        let x509 = X509::from_der(der).map_err(|e| format!("not a certificate: {e}"))?;
        Ok(Self::of(&x509))
    }

    fn of(x509: &X509) -> Self {
        let tbs = x509.tbs_certificate();
        Self {
            version: match tbs.version() {
                Version::V1 => 1,
                Version::V2 => 2,
                Version::V3 => 3,
            },
            validity: Validity {
                not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
                not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            },
        }
    }
}

/// A certificate of the trust store.
pub struct Certificate {
    entry: String,
    verifier: Box<dyn Verifier>,
    public_key_der: Vec<u8>,
    validity: Validity,
}

impl Certificate {
    /// Read one PEM certificate; `entry` is its name in the trust store. Text round the PEM block is ignored, a second
    /// certificate or a private key is not.
    ///
    /// # Errors
    /// [`TrustError::Certificate`] says what is wrong with it.
    pub fn from_pem(entry: &str, pem: &str) -> Result<Self, TrustError> {
        Self::parse(entry, pem).map_err(|reason| TrustError::Certificate {
            entry: entry.to_owned(),
            reason,
        })
    }

    /// Its name in the trust store.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// What checks signatures with it.
    #[must_use]
    pub fn verifier(&self) -> &dyn Verifier {
        &*self.verifier
    }

    /// When it holds.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its subject public key info, DER.
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    fn parse(entry: &str, pem: &str) -> Result<Self, String> {
        let x509 = X509::from_pem(block(pem)?).map_err(|e| format!("not a certificate: {e}"))?;
        let tbs = x509.tbs_certificate();
        check_usage(&x509)?;
        let Facts { validity, .. } = Facts::of(&x509);
        if validity.not_before > validity.not_after {
            return Err(format!(
                "it ends ({}) before it begins ({})",
                validity.not_after, validity.not_before
            ));
        }
        let info = tbs.subject_public_key_info();
        Ok(Self {
            entry: entry.to_owned(),
            verifier: verifier(info)?,
            public_key_der: info
                .to_der()
                .map_err(|e| format!("its public key cannot be read: {e}"))?,
            validity,
        })
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("entry", &self.entry)
            .field("key", &self.verifier.key())
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// The one PEM block, without the text round it.
fn block(pem: &str) -> Result<&str, String> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(
            "the file holds a private key, which does not belong into a trust store".into(),
        );
    }
    let count = pem.matches(BEGIN).count();
    if count != 1 {
        return Err(format!(
            "the file holds {count} PEM certificates, expected one; give each a file of its own"
        ));
    }
    let start = pem.find(BEGIN).unwrap_or_default();
    let end = pem[start..].find(END).ok_or("the PEM block has no end")?;
    Ok(&pem[start..start + end + END.len()])
}

/// What the certificate says its key may be used for.
fn check_usage(x509: &X509) -> Result<(), String> {
    let tbs = x509.tbs_certificate();
    let bad = |e| format!("an extension cannot be read: {e}");
    if let Some((_, usage)) = tbs.get_extension::<KeyUsage>().map_err(bad)?
        && !usage.digital_signature()
    {
        return Err("its key usage does not include digitalSignature".into());
    }
    if let Some((_, usage)) = tbs.get_extension::<ExtendedKeyUsage>().map_err(bad)?
        && !usage
            .0
            .iter()
            .any(|u| *u == KP_CODE_SIGNING || *u == KP_ANY)
    {
        return Err("its extended key usage does not include codeSigning".into());
    }
    Ok(())
}

/// The verifier for a public key, if it is of a kind that the protocol has.
fn verifier(info: &SubjectPublicKeyInfoOwned) -> Result<Box<dyn Verifier>, String> {
    match info.algorithm.oid {
        ID_EC_PUBLIC_KEY => {
            let curve = info
                .algorithm
                .parameters
                .as_ref()
                .and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
            if curve != Some(PRIME256V1) {
                return Err("its key is on another curve than P-256".into());
            }
            let der = info.to_der().map_err(|e| e.to_string())?;
            let key = VerifyingKey::from_public_key_der(&der)
                .map_err(|_| "its P-256 key is not a point of the curve")?;
            Ok(Box::new(P256(key)))
        }
        RSA_ENCRYPTION => {
            let pkcs1 = info
                .subject_public_key
                .as_bytes()
                .ok_or("its RSA key is not a whole number of bytes")?;
            let bits =
                modulus_bits(pkcs1).map_err(|e| format!("its RSA key cannot be read: {e}"))?;
            if !(RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) {
                return Err(format!(
                    "its RSA key has {bits} bits, expected {RSA_MIN_BITS} to {RSA_MAX_BITS}"
                ));
            }
            let key = rsa(pkcs1, bits).ok_or("its RSA key is not taken by the crypto library")?;
            Ok(Box::new(key))
        }
        other => Err(format!(
            "its key is of algorithm {other}; only P-256 and RSA are known"
        )),
    }
}

/// Bits of the modulus of `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`.
fn modulus_bits(pkcs1: &[u8]) -> x509_cert::der::Result<usize> {
    let mut reader = SliceReader::new(pkcs1)?;
    let bits = reader.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        let _exponent = UintRef::decode(reader)?;
        let bytes = modulus.as_bytes();
        let leading = bytes.first().map_or(0, |b| b.leading_zeros() as usize);
        Ok::<_, x509_cert::der::Error>(bytes.len() * 8 - leading)
    })?;
    reader.finish()?;
    Ok(bits)
}
