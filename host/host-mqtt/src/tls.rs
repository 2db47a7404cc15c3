//! TLS from PEM files: every file that is missing or wrong is named before the first attempt to connect.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;
use crate::error::MqttError;

const CA: &str = "CA file";
const CERTIFICATE: &str = "client certificate";
const KEY: &str = "private key";

/// Largest PEM file: a chain is a few KiB, a CA bundle of all the world's authorities some 250.
const PEM_MAX_BYTES: u64 = 1024 * 1024;

/// A client's TLS: 1.2 and 1.3, server name indicated, only the configured roots.
pub(crate) fn client_config(
    files: &TlsFiles,
    alpn: Vec<Vec<u8>>,
) -> Result<ClientConfig, MqttError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, &files.ca)? {
        roots
            .add(certificate)
            .map_err(|e| unusable(CA, &files.ca, e.to_string()))?;
    }
    let chain = certificates(CERTIFICATE, &files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(KEY, &files.key)?)
        .map_err(|_| unusable(KEY, &files.key, "no private key in PEM form in it"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let identity = |error: rustls::Error| MqttError::Identity {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        why: error.to_string(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(identity)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(identity)?;
    config.alpn_protocols = alpn;
    Ok(config)
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, MqttError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(what, path)?)
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(what, path, e.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(what, path, "no certificate in PEM form in it"));
    }
    Ok(certificates)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, MqttError> {
    let unreadable = |source| MqttError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > PEM_MAX_BYTES {
        let why = format!("it has {size} bytes, expected at most {PEM_MAX_BYTES}");
        return Err(unusable(what, path, why));
    }
    fs::read(path).map_err(unreadable)
}

fn unusable(what: &'static str, path: &Path, why: impl Into<String>) -> MqttError {
    MqttError::Unusable {
        what,
        path: path.to_owned(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests;
