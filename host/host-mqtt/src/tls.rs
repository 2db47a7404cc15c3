//! TLS from PEM files: every file that is missing or wrong is named before the first attempt to connect.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Security, TlsFiles};
use crate::error::MqttError;

const CA: &str = "CA file";
const CERTIFICATE: &str = "client certificate";
const KEY: &str = "private key";

/// Largest PEM file: a chain is a few KiB, a CA bundle of all the world's authorities some 250.
const PEM_MAX_BYTES: u64 = 1024 * 1024;

/// A client's TLS, if it is to have any: 1.2 and 1.3, server name indicated, only the configured roots.
pub(crate) fn client_config(
    security: &Security,
    alpn: Vec<Vec<u8>>,
) -> Result<Option<ClientConfig>, MqttError> {
    let mut config = match security {
        Security::Tls(files) => with_certificate(files)?,
        Security::TlsByPassword { ca } => builder(ca)?.with_no_client_auth(),
        Security::PlaintextLoopback | Security::PlaintextAnywhere => return Ok(None),
    };
    config.alpn_protocols = alpn;
    Ok(Some(config))
}

fn with_certificate(files: &TlsFiles) -> Result<ClientConfig, MqttError> {
    let builder = builder(&files.ca)?;
    let chain = certificates(CERTIFICATE, &files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(KEY, &files.key)?)
        .map_err(|_| unusable(KEY, &files.key, "no private key in PEM form in it"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| MqttError::Identity {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            why: error.to_string(),
        })
}

fn builder(ca: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, MqttError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, ca)? {
        roots
            .add(certificate)
            .map_err(|e| unusable(CA, ca, e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(CA, ca, e.to_string()))?;
    Ok(builder.with_root_certificates(roots))
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
