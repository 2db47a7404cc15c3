//! TLS with client certificates: who is let in, and as what.
//!
//! A certificate must come from the cloud's root and must be registered for a thing; the handshake itself refuses both the
//! foreign and the detached. rustls with aws-lc, no other provider.

use std::sync::{Arc, Weak};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};

use crate::{
    core::Core,
    error::CloudError,
    pki::{self, Pki, ServerIdentity},
};

/// What AWS's port 443 asks for, and what plain MQTT over TLS may name.
const PROTOCOLS: [&[u8]; 2] = [b"x-amzn-mqtt-ca", b"mqtt"];

/// Server side of TLS.
pub(crate) fn server_config(
    pki: &Pki,
    server: ServerIdentity,
    core: &Arc<Core>,
) -> Result<Arc<ServerConfig>, CloudError> {
    let failed = |error: &dyn std::fmt::Display| CloudError::pki("TLS endpoint", error);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(pki.root_pem().as_bytes()).map_err(|e| failed(&e))?;
    roots.add(root).map_err(|e| failed(&e))?;
    let chain = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|e| failed(&e))?;
    let verifier = Registered {
        chain,
        core: Arc::downgrade(core),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(server.chain, server.key)
        .map_err(|e| failed(&e))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // A resumed session would skip the verifier: who was detached since then must not come back that way.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Lets in whom the chain and the register let in.
struct Registered {
    chain: Arc<dyn ClientCertVerifier>,
    core: Weak<Core>,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registered")
    }
}

impl ClientCertVerifier for Registered {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let fingerprint = pki::fingerprint(end_entity);
        let known = self
            .core
            .upgrade()
            .is_some_and(|core| !core.things_of_certificate(&fingerprint).is_empty());
        if known {
            Ok(verified)
        } else {
            tracing::warn!(fingerprint, "a certificate that is not registered");
            Err(Error::InvalidCertificate(CertificateError::Revoked))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
