//! Somebody who signs agents and plugins, as with `otad sign`.

use std::fs;
use std::path::{Path, PathBuf};

use support::binary::otad_command;

use crate::Gateway;

/// A key, and a certificate that a gateway may trust.
#[derive(Debug)]
pub struct Signer {
    /// File of the key.
    pub key: PathBuf,
    /// PEM.
    pub certificate: String,
}

impl Signer {
    /// A new one, whose key lies in this folder.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = folder.join(format!("{name}.key"));
        fs::write(&key, pair.serialize_pem()).unwrap();
        Self {
            key,
            certificate: params.self_signed(&pair).unwrap().pem(),
        }
    }

    /// One whom this gateway trusts.
    #[must_use]
    pub fn trusted(gateway: &Gateway, name: &str) -> Self {
        let signer = Self::new(&gateway.path(""), name);
        signer.trust(gateway, name, true);
        signer
    }

    /// Puts his certificate into the trust store, or takes it out.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn trust(&self, gateway: &Gateway, entry: &str, is_trusted: bool) {
        let path = gateway.path(&format!("trust/{entry}.pem"));
        match is_trusted {
            true => fs::write(path, &self.certificate).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    /// `otad sign FILE …`.
    ///
    /// # Panics
    /// If that fails.
    pub fn sign(&self, path: &Path, more: &[&str]) {
        let output = otad_command()
            .arg("sign")
            .arg(path)
            .arg("--key")
            .arg(&self.key)
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// A component that ships, which says that it is of another version: five bytes, as `0.0.0` has.
///
/// # Panics
/// If it does not say its version, or the version is longer or shorter.
#[must_use]
pub fn as_version(component: &[u8], version: &str) -> Vec<u8> {
    const SHIPPED: &[u8] = b"0.0.0";
    assert_eq!(version.len(), SHIPPED.len());
    let mut bytes = component.to_vec();
    let places: Vec<usize> = component
        .windows(SHIPPED.len())
        .enumerate()
        .filter_map(|(at, bytes)| (bytes == SHIPPED).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + SHIPPED.len()].copy_from_slice(version.as_bytes());
    }
    bytes
}
