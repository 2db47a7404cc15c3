//! The operator's calls about certificates of things.

use super::Operator;
use crate::{
    error::CloudError,
    service::{ThingDescription, ThingName},
};

impl Operator {
    /// Lets the holder of a certificate that somebody else made speak for a thing. `root_pem` is what it leads to, where
    /// that is neither this cloud's root nor registered before.
    ///
    /// # Errors
    /// No such thing; it is no certificate, or leads to no root that is known.
    pub async fn attach_certificate(
        &self,
        name: &ThingName,
        certificate_pem: &str,
        root_pem: Option<&str>,
    ) -> Result<ThingDescription, CloudError> {
        // Nothing is registered for a thing that does not exist.
        self.describe_thing(name)?;
        let taken = self
            .core
            .pki()
            .take_certificate(certificate_pem, root_pem)?;
        self.core
            .operate(|service, _| {
                service.attach_certificate(name, &taken)?;
                Ok(((), Vec::new()))
            })
            .await?;
        self.describe_thing(name)
    }

    /// Takes a certificate away from a thing and ends its connections.
    ///
    /// # Errors
    /// No such thing, or it has no such certificate.
    pub async fn detach_certificate(
        &self,
        name: &ThingName,
        fingerprint: &str,
    ) -> Result<ThingDescription, CloudError> {
        let thing = self.describe_thing(name)?;
        if !thing
            .thing
            .certificates
            .iter()
            .any(|known| known == fingerprint)
        {
            return Err(CloudError::UnknownCertificate {
                thing: name.clone(),
                fingerprint: fingerprint.to_owned(),
            });
        }
        self.core
            .operate(|service, _| {
                service.detach_certificate(name, fingerprint)?;
                // Here, and not once it is stored: the disk may fail, and somebody else may have that key.
                self.core.hub.detach(fingerprint);
                Ok(((), Vec::new()))
            })
            .await?;
        self.describe_thing(name)
    }
}
