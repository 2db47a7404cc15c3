//! TLS with client certificates: who is let in, and as what.
//!
//! A certificate must come from the cloud's root and must be registered for a thing; the handshake itself refuses both the
//! foreign and the detached. rustls with aws-lc, no other provider.

use std::sync::{Arc, Weak};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    core::Core,
    error::CloudError,
    pki::{self, ServerIdentity},
};

/// What AWS's port 443 asks for, and what plain MQTT over TLS may name.
const PROTOCOLS: [&[u8]; 2] = [b"x-amzn-mqtt-ca", b"mqtt"];

/// Server side of TLS.
pub(crate) fn server_config(
    server: ServerIdentity,
    core: &Arc<Core>,
) -> Result<Arc<ServerConfig>, CloudError> {
    let failed = |error: &dyn std::fmt::Display| CloudError::pki("TLS endpoint", error);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Registered {
        algorithms: provider.signature_verification_algorithms,
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

/// Lets in whom the chain and the register let in. Roots may be registered while it serves.
struct Registered {
    algorithms: WebPkiSupportedAlgorithms,
    core: Weak<Core>,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registered")
    }
}

impl ClientCertVerifier for Registered {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Roots come and go; a client shows the certificate that it has.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(core) = self.core.upgrade() else {
            return Err(Error::General("the cloud has stopped".to_owned()));
        };
        let chain = core.pki().chain();
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        let fingerprint = pki::fingerprint(end_entity);
        if !core.things_of_certificate(&fingerprint).is_empty() {
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
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
