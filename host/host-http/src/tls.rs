//! TLS to servers of images: 1.2 and 1.3, no client certificate, roots of the machine or of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Roots;
use crate::error::HttpError;

/// Largest PEM file: a bundle of all the world's authorities has some 250 KiB.
const PEM_MAX_BYTES: u64 = 1024 * 1024;

/// Settings that are made when they are needed first.
pub(crate) struct Tls(OnceLock<Arc<ClientConfig>>);

/// Why there are none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoConfig {
    /// The machine has no root certificates; in brackets why, if anything is known of it.
    NoRoots(String),
    /// With those that it has there is no TLS.
    Broken(String),
}

impl Tls {
    /// Files are read now, so that what is wrong with them is told at the start; those of the machine are some hundred
    /// and wait for the first URL, which most gateways never see.
    pub(crate) fn new(roots: &Roots) -> Result<Self, HttpError> {
        Ok(Self(match roots {
            Roots::System => OnceLock::new(),
            Roots::Files(paths) => OnceLock::from(client_config(file_roots(paths)?)?),
        }))
    }

    /// The settings.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, NoConfig> {
        self.config_of(system_roots)
    }

    /// The same with the certificates that `load` finds. Where it finds none it is asked again at the next URL: somebody may
    /// have installed some.
    fn config_of(
        &self,
        load: impl FnOnce() -> Result<RootCertStore, String>,
    ) -> Result<Arc<ClientConfig>, NoConfig> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config));
        }
        let roots = load().map_err(NoConfig::NoRoots)?;
        let config = client_config(roots).map_err(|e| NoConfig::Broken(e.to_string()))?;
        Ok(Arc::clone(self.0.get_or_init(|| config)))
    }
}

impl Roots {
    /// Whether a client can be made with them.
    ///
    /// # Errors
    /// The first file that cannot be read, or holds no certificate that TLS takes.
    pub fn check(&self) -> Result<(), HttpError> {
        Tls::new(self).map(drop)
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, HttpError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| HttpError::Tls(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Those of the machine; none are an error, in brackets what is known of it.
fn system_roots() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("root certificates of the machine: {error}");
    }
    // Old bundles hold certificates that nobody can use; the others count.
    let (added, ignored) = store.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "root certificates of the machine");
    if !store.is_empty() {
        return Ok(store);
    }
    Err(match &found.errors[..] {
        [] => String::new(),
        [first, ..] => format!(" ({first})"),
    })
}

fn file_roots(paths: &[PathBuf]) -> Result<RootCertStore, HttpError> {
    let mut store = RootCertStore::empty();
    for path in paths {
        let unusable = |why: String| HttpError::Unusable {
            path: path.clone(),
            why,
        };
        let pem = read(path)?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
            store
                .add(certificate)
                .map_err(|e| unusable(e.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(unusable("no certificate in PEM form in it".to_owned()));
        }
    }
    Ok(store)
}

fn read(path: &Path) -> Result<Vec<u8>, HttpError> {
    let unreadable = |source| HttpError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > PEM_MAX_BYTES {
        return Err(HttpError::Unusable {
            path: path.to_owned(),
            why: format!("it has {size} bytes, expected at most {PEM_MAX_BYTES}"),
        });
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FetchError;

    fn refused(roots: &Roots) -> HttpError {
        match Tls::new(roots) {
            Ok(_) => panic!("taken"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let roots = Roots::Files(vec![path.clone()]);
        let error = refused(&roots);
        assert!(matches!(error, HttpError::Unreadable { .. }), "{error}");
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&path, text).unwrap();
            let error = refused(&roots).to_string();
            assert!(error.contains("roots.pem"), "{error}");
        }
        fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        let error = refused(&roots).to_string();
        assert!(error.contains("1048577"), "{error}");
    }

    #[test]
    fn a_file_of_roots_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        fs::write(&path, made.cert.pem()).unwrap();
        let tls = Tls::new(&Roots::Files(vec![path])).unwrap();
        assert_eq!(tls.config().unwrap().alpn_protocols, [b"http/1.1"]);
    }

    #[test]
    fn a_machine_that_gets_its_roots_later_needs_no_restart() {
        let tls = Tls::new(&Roots::System).unwrap();
        let why = " (too many open files)".to_owned();
        let missing = tls.config_of(|| Err(why.clone())).unwrap_err();
        assert_eq!(missing, NoConfig::NoRoots(why.clone()));
        assert_eq!(
            FetchError::NoRoots { why }.to_string(),
            "this machine has no root certificates (too many open files); install them, or set roots in [http]"
        );
        let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        assert!(tls.config_of(|| Ok(roots)).is_ok());
        // They are not looked for again.
        assert!(tls.config_of(|| Err(String::new())).is_ok());
    }
}
