//! The cloud's own certificates: a root, its server, its devices, and one to sign images with.
//!
//! Everything is made on first use and found again later; a root is never replaced by itself. Keys are P-256, in files of
//! mode 0600. Certificates begin in the past and end in 2049, as AWS's device certificates do: gateways start without a
//! clock. Not here: reading anybody else's certificates, revocation lists, renewal.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::{
    error::CloudError,
    file::{self, PRIVATE, PUBLIC},
    service::{self, ThingName},
};

/// X.520 allows a common name 64 characters; a thing name may have twice that. Identity is the fingerprint, not the name.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// A certificate with its key, and where both lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Certificate in PEM.
    pub certificate_pem: String,
    /// PKCS#8 key in PEM.
    pub private_key_pem: String,
    /// The root that vouches for the cloud's server.
    pub root_pem: String,
    /// File of the certificate.
    pub certificate_path: PathBuf,
    /// File of the key, mode 0600.
    pub private_key_path: PathBuf,
    /// File of the root.
    pub root_path: PathBuf,
    /// SHA-256 of the certificate's DER in lower-case hex.
    pub fingerprint: String,
}

/// What the TLS endpoint serves with.
pub(crate) struct ServerIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A directory of certificates and keys.
pub struct Pki {
    dir: PathBuf,
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// Whether a client's certificate leads to the cloud's root or a registered one.
    chain: Arc<dyn ClientCertVerifier>,
}

/// Roots of others at once: a customer has a few.
const ROOTS_MAX: usize = 64;

/// What a certificate is for.
enum Purpose<'a> {
    Root,
    Server(&'a [String]),
    Device,
    CodeSigning,
}

impl Pki {
    /// Opens the directory and makes the root if there is none.
    ///
    /// # Errors
    /// The directory cannot be used, or holds half a root.
    pub fn open(dir: &Path) -> Result<Self, CloudError> {
        file::private_dir(dir)?;
        file::private_dir(&dir.join("things"))?;
        let (cert_path, key_path) = (dir.join("root.pem"), dir.join("root.key"));
        let cert = file::read_if_there(&cert_path)?;
        let key = file::read_if_there(&key_path)?;
        let (root_pem, key) = match (cert, key) {
            (Some(cert), Some(key)) => (text(&cert_path, cert)?, read_key(&key_path, key)?),
            // What devices trust must not change by accident.
            (Some(_), None) => return Err(half(&cert_path, &key_path)),
            (None, key) => {
                let key = match key {
                    // What it has signed stays good: a root is its name and its key.
                    Some(key) => {
                        tracing::warn!(root = %cert_path.display(), "missing; made again from its key");
                        read_key(&key_path, key)?
                    }
                    None => {
                        let key = new_key("root")?;
                        file::write_atomic(&key_path, key.serialize_pem().as_bytes(), PRIVATE)?;
                        key
                    }
                };
                let params = params("otad cloud root", &Purpose::Root)?;
                let cert = params
                    .self_signed(&key)
                    .map_err(|e| CloudError::pki("root certificate", e))?;
                file::write_atomic(&cert_path, cert.pem().as_bytes(), PUBLIC)?;
                (cert.pem(), key)
            }
        };
        let issuer = Issuer::new(params("otad cloud root", &Purpose::Root)?, key);
        Ok(Self {
            chain: chain(dir, &root_pem, &[])?,
            dir: dir.to_owned(),
            root_pem,
            issuer,
        })
    }

    /// Checks where a client's certificate leads.
    pub(crate) fn chain(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.chain)
    }

    /// Takes a certificate that somebody else made, with the root it leads to if that is new, and returns its fingerprint.
    /// A root alone lets nobody in: each certificate is registered for a thing.
    ///
    /// # Errors
    /// It is no certificate, it leads to no root that is known, or the root cannot be stored.
    pub(crate) fn take_certificate(
        &mut self,
        certificate_pem: &str,
        root_pem: Option<&str>,
    ) -> Result<String, CloudError> {
        let all = some_certificates("certificate", certificate_pem)?;
        let (own, intermediates) = (&all[0], &all[1..]);
        let new = root_pem.map(|pem| some_certificates("root", pem));
        let new = new.transpose()?;
        let chain = match &new {
            Some(new) => chain(&self.dir, &self.root_pem, new)?,
            None => self.chain(),
        };
        chain
            .verify_client_cert(own, intermediates, UnixTime::now())
            .map_err(|e| {
                CloudError::pki(
                    "certificate",
                    format_args!("{e}; it must lead to this cloud's root or to one that is registered with it"),
                )
            })?;
        if let Some(new) = new {
            let roots = self.dir.join("roots");
            file::private_dir(&roots)?;
            for root in &new {
                let path = roots.join(format!("{}.pem", fingerprint(root)));
                // One that is there may hold others as well: an earlier build wrote what was given into one file.
                if !path.exists() {
                    file::write_atomic(&path, to_pem(root).as_bytes(), PUBLIC)?;
                }
            }
            self.chain = chain;
        }
        Ok(fingerprint(own))
    }

    /// The root certificate in PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The file of the root certificate.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.dir.join("root.pem")
    }

    /// The server's certificate, valid for `localhost`, both loopback addresses and `names`; made anew when `names` are
    /// other ones than before.
    pub(crate) fn server(&self, names: &[String]) -> Result<ServerIdentity, CloudError> {
        let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
        all.extend(
            names
                .iter()
                .filter(|n| !all.contains(n))
                .cloned()
                .collect::<Vec<_>>(),
        );
        let list_path = self.dir.join("server.names");
        let list = all.join("\n");
        let stored = file::read_if_there(&list_path)?;
        if stored.as_deref() != Some(list.as_bytes()) {
            file::remove_quietly(&self.dir.join("server.pem"));
            // Written before the certificate: a crash in between only makes one that is missing.
            file::write_atomic(&list_path, list.as_bytes(), PUBLIC)?;
        }
        let made = self.credentials("server", "localhost", &Purpose::Server(&all))?;
        let chain = certificates(&made.certificate_path, made.certificate_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(made.private_key_pem.as_bytes())
            .map_err(|e| CloudError::pki(made.private_key_path.display().to_string(), e))?;
        Ok(ServerIdentity { chain, key })
    }

    /// A device's certificate and key.
    ///
    /// # Errors
    /// A file cannot be read or written, or is damaged.
    pub fn device(&self, name: &ThingName) -> Result<Credentials, CloudError> {
        self.credentials(&format!("things/{name}"), name.as_str(), &Purpose::Device)
    }

    /// Forgets what [`Pki::device`] made: a thing that comes back under this name gets another key.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn forget_device(&self, name: &ThingName) -> Result<(), CloudError> {
        let path = self.dir.join("things").join(name.as_str());
        // The key first: without it the certificate is made anew as well.
        for extension in ["key", "pem"] {
            file::remove(&path.with_extension(extension))?;
        }
        Ok(())
    }

    /// A certificate and key to sign images with: P-256, digitalSignature, codeSigning. It is its own root, as the ones
    /// that operators make by hand for AWS are; a device trusts it because the operator put it into its trust store.
    ///
    /// # Errors
    /// A file cannot be read or written, or is damaged.
    pub fn code_signing(&self) -> Result<Credentials, CloudError> {
        self.credentials("signing", "otad code signing", &Purpose::CodeSigning)
    }

    /// Finds or makes `<stem>.pem` and `<stem>.key`.
    fn credentials(
        &self,
        stem: &str,
        common_name: &str,
        purpose: &Purpose<'_>,
    ) -> Result<Credentials, CloudError> {
        let certificate_path = self.dir.join(format!("{stem}.pem"));
        let private_key_path = self.dir.join(format!("{stem}.key"));
        let key = match file::read_if_there(&private_key_path)? {
            Some(key) => read_key(&private_key_path, key)?,
            None => {
                file::remove_quietly(&certificate_path);
                let key = new_key(stem)?;
                file::write_atomic(&private_key_path, key.serialize_pem().as_bytes(), PRIVATE)?;
                key
            }
        };
        let certificate_pem = match file::read_if_there(&certificate_path)? {
            Some(pem) => text(&certificate_path, pem)?,
            None => {
                let pem = self.issue(&key, common_name, purpose)?.pem();
                file::write_atomic(&certificate_path, pem.as_bytes(), PUBLIC)?;
                pem
            }
        };
        let chain = certificates(&certificate_path, certificate_pem.as_bytes())?;
        let first = chain
            .first()
            .ok_or_else(|| damaged(&certificate_path, "it holds no certificate"))?;
        Ok(Credentials {
            fingerprint: fingerprint(first),
            certificate_pem,
            private_key_pem: key.serialize_pem(),
            root_pem: self.root_pem.clone(),
            certificate_path,
            private_key_path,
            root_path: self.root_path(),
        })
    }

    fn issue(
        &self,
        key: &KeyPair,
        common_name: &str,
        purpose: &Purpose<'_>,
    ) -> Result<Certificate, CloudError> {
        let params = params(common_name, purpose)?;
        let made = match purpose {
            Purpose::Root | Purpose::CodeSigning => params.self_signed(key),
            Purpose::Server(_) | Purpose::Device => params.signed_by(key, &self.issuer),
        };
        made.map_err(|e| CloudError::pki(format!("certificate of {common_name}"), e))
    }
}

/// Who may vouch for clients: the cloud's root, those in `<dir>/roots/*.pem`, and one that is about to be.
fn chain(
    dir: &Path,
    own: &str,
    new: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, CloudError> {
    let mut roots = RootCertStore::empty();
    let mut known = BTreeSet::new();
    let mut add = |what: &str, found: &[CertificateDer<'static>]| -> Result<(), CloudError> {
        for root in found.iter().filter(|root| known.insert(root.to_vec())) {
            roots
                .add(root.clone())
                .map_err(|e| CloudError::pki(what, e))?;
        }
        if roots.len() > ROOTS_MAX {
            return Err(CloudError::pki(
                what,
                format_args!("more than {ROOTS_MAX} roots are registered"),
            ));
        }
        Ok(())
    };
    add("root", &some_certificates("root", own)?)?;
    for path in root_files(&dir.join("roots"))? {
        let pem = file::read_if_there(&path)?.unwrap_or_default();
        let what = path.display().to_string();
        add(&what, &some_certificates(&what, &text(&path, pem)?)?)?;
    }
    add("root", new)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .map_err(|e| CloudError::pki("roots of clients", e))?;
    Ok(verifier)
}

fn root_files(dir: &Path) -> Result<Vec<PathBuf>, CloudError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CloudError::io("read", dir, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| CloudError::io("read", dir, &e))?.path();
        if path.extension().is_some_and(|e| e == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a text from elsewhere holds: one certificate at least.
fn some_certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, CloudError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| CloudError::pki(what, e))?;
    if found.is_empty() {
        return Err(CloudError::pki(what, "no certificate in PEM form in it"));
    }
    Ok(found)
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = BASE64.encode(certificate);
    // Standard base64 is ASCII, and a line of PEM has 64 characters.
    let lines = base64.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

/// SHA-256 of a certificate's DER in lower-case hex.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    service::hex(&Sha256::digest(certificate))
}

fn params(common_name: &str, purpose: &Purpose<'_>) -> Result<CertificateParams, CloudError> {
    let names = match purpose {
        Purpose::Server(names) => names.to_vec(),
        Purpose::Root | Purpose::Device | Purpose::CodeSigning => Vec::new(),
    };
    let mut params = CertificateParams::new(names)
        .map_err(|e| CloudError::pki(format!("names of {common_name}"), e))?;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    let common_name: String = common_name.chars().take(COMMON_NAME_CHARS_MAX).collect();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    match purpose {
        Purpose::Root => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
        Purpose::Server(_) => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Purpose::Device => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Purpose::CodeSigning => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        }
    }
    Ok(params)
}

fn new_key(what: &str) -> Result<KeyPair, CloudError> {
    KeyPair::generate().map_err(|e| CloudError::pki(format!("key of {what}"), e))
}

fn read_key(path: &Path, pem: Vec<u8>) -> Result<KeyPair, CloudError> {
    KeyPair::from_pem(&text(path, pem)?).map_err(|e| damaged(path, e))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CloudError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| damaged(path, e))
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, CloudError> {
    String::from_utf8(bytes).map_err(|e| damaged(path, e))
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> CloudError {
    CloudError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

fn half(there: &Path, missing: &Path) -> CloudError {
    damaged(
        there,
        format_args!("its key {} is missing", missing.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
    use x509_cert::{
        Certificate as Parsed,
        der::{DecodePem, Encode},
        ext::pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName},
    };

    use super::*;

    fn parse(pem: &str) -> Parsed {
        Parsed::from_pem(pem).unwrap()
    }

    #[test]
    fn what_was_made_once_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let gw = ThingName::new("gw:1").unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let (device, signing) = (first.device(&gw).unwrap(), first.code_signing().unwrap());
        let second = Pki::open(dir.path()).unwrap();
        assert_eq!(first.root_pem(), second.root_pem());
        assert_eq!(second.device(&gw).unwrap(), device);
        assert_eq!(second.code_signing().unwrap(), signing);
    }

    #[test]
    fn keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let device = pki.device(&ThingName::new("gw").unwrap()).unwrap();
        let signing = pki.code_signing().unwrap();
        let root_key = dir.path().join("root.key");
        for path in [device.private_key_path, signing.private_key_path, root_key] {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
    }

    #[test]
    fn a_code_signing_certificate_says_what_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let made = Pki::open(dir.path()).unwrap().code_signing().unwrap();
        let cert = parse(&made.certificate_pem);
        let tbs = cert.tbs_certificate();
        let (_, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
        assert_eq!(usage.0, KeyUsages::DigitalSignature);
        let (_, extended) = tbs.get_extension::<ExtendedKeyUsage>().unwrap().unwrap();
        let code_signing = x509_cert::der::oid::db::rfc5280::ID_KP_CODE_SIGNING;
        assert_eq!(extended.0, [code_signing]);
        assert!(made.private_key_pem.contains("BEGIN PRIVATE KEY"));
    }

    #[test]
    fn a_server_certificate_is_made_anew_for_new_names_only() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let names = ["cloud.local".to_owned(), "10.0.0.7".to_owned()];
        let first = pki.server(&names).unwrap().chain;
        assert_eq!(pki.server(&names).unwrap().chain, first);
        let pem = fs::read_to_string(dir.path().join("server.pem")).unwrap();
        let cert = parse(&pem);
        let (_, alt) = cert
            .tbs_certificate()
            .get_extension::<SubjectAltName>()
            .unwrap()
            .unwrap();
        let der = alt.to_der().unwrap();
        for name in [
            &b"localhost"[..],
            b"cloud.local",
            &[127, 0, 0, 1],
            &[10, 0, 0, 7],
        ] {
            assert!(der.windows(name.len()).any(|w| w == name), "{name:?}");
        }
        assert_ne!(pki.server(&[]).unwrap().chain, first);
    }

    /// Whether whoever trusts this root believes that server.
    fn believes(root_pem: &str, server: &CertificateDer<'_>) -> bool {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let name = "localhost".try_into().unwrap();
        let now = UnixTime::now();
        let verified = verifier.build().unwrap();
        verified
            .verify_server_cert(server, &[], &name, &[], now)
            .is_ok()
    }

    fn lets_in(pki: &Pki, certificate_pem: &str) -> bool {
        let own = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
        let chain = pki.chain();
        chain.verify_client_cert(&own, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn a_root_is_made_again_from_its_key_and_what_it_signed_stays_good() {
        let dir = tempfile::tempdir().unwrap();
        let gw = ThingName::new("gw").unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let (server, device) = (first.server(&[]).unwrap(), first.device(&gw).unwrap());
        fs::remove_file(first.root_path()).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert!(lets_in(&again, &device.certificate_pem));
        let served = again.server(&[]).unwrap().chain;
        assert_eq!(served, server.chain);
        for root in [first.root_pem(), again.root_pem()] {
            assert!(believes(root, &served[0]));
        }
        // The other way round there is nothing to make it from.
        fs::remove_file(dir.path().join("root.key")).unwrap();
        let Err(error) = Pki::open(dir.path()) else {
            panic!("accepted");
        };
        assert!(error.to_string().contains("root.key"), "{error}");
    }

    #[test]
    fn a_root_stays_registered_when_another_of_its_bundle_is_registered_again() {
        let elsewhere = ["a", "b"].map(|name| {
            let dir = tempfile::tempdir().unwrap();
            let pki = Pki::open(dir.path()).unwrap();
            let device = pki.device(&ThingName::new(name).unwrap()).unwrap();
            (device.certificate_pem, device.root_pem)
        });
        let [(cert_a, root_a), (cert_b, root_b)] = &elsewhere;
        let dir = tempfile::tempdir().unwrap();
        let mut pki = Pki::open(dir.path()).unwrap();
        let bundle = format!("{root_a}{root_b}");
        // As often as one likes: it counts once.
        for root in [&bundle, root_a, &bundle, root_a] {
            pki.take_certificate(cert_a, Some(root)).unwrap();
            let again = Pki::open(dir.path()).unwrap();
            assert!(lets_in(&again, cert_a) && lets_in(&again, cert_b));
        }
        let roots = dir.path().join("roots");
        assert_eq!(root_files(&roots).unwrap().len(), 2);
        // As an earlier build had it: both in the file of the first.
        let first = roots.join(format!(
            "{}.pem",
            fingerprint(&some_certificates("root", root_a).unwrap()[0])
        ));
        for path in root_files(&roots).unwrap() {
            fs::remove_file(path).unwrap();
        }
        fs::write(first, &bundle).unwrap();
        let mut pki = Pki::open(dir.path()).unwrap();
        pki.take_certificate(cert_a, Some(root_a)).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert!(lets_in(&again, cert_a) && lets_in(&again, cert_b));
    }

    #[test]
    fn the_longest_thing_name_gets_a_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let long = ThingName::new(&"t".repeat(128)).unwrap();
        let made = pki.device(&long).unwrap();
        parse(&made.certificate_pem);
        assert_eq!(made.fingerprint.len(), 64);
    }
}
