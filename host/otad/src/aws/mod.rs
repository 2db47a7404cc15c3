//! An update at AWS itself, through the `aws` program: nothing here speaks to AWS, signs a request or knows a secret.
//!
//! ```text
//! Update --(names: documents)--> what each call gets --(program)--> `aws`, one call after the other --(sequence)--> facts
//! ```
//!
//! [`documents`] is the input of every call as a value, which `--aws-json` writes to files; [`sequence`] makes the calls,
//! waits, and says what is left behind when one fails.

pub mod documents;
pub mod jobs;
pub mod look;
pub mod names;
pub mod program;
pub mod sequence;
pub mod watch;

use std::path::PathBuf;

use host_cloud::service::{Plan, Protocol, ThingName};

/// An update as AWS is to make it.
#[derive(Clone, Debug)]
pub struct Update {
    /// The job is called `AFR_OTA-` and this; the stream this.
    pub id: String,
    /// Things it is for; groups stand in the plan.
    pub things: Vec<ThingName>,
    /// Groups, selection, roll-out, abort rules.
    pub plan: Plan,
    /// What it brings.
    pub files: Vec<File>,
    /// How devices may fetch it.
    pub protocols: Vec<Protocol>,
    /// Minutes a device may take once it began.
    pub timeout_minutes: Option<u32>,
    /// Name or ARN of the role of the OTA service.
    pub role: String,
    /// Where images go.
    pub bucket: String,
    /// Who signs.
    pub signing: Signing,
    /// `certfile` of the job; empty = none was named.
    pub certfile: String,
}

/// One image.
#[derive(Clone, Debug)]
pub struct File {
    /// Selects the target on the device.
    pub file_id: u8,
    /// `filepath` of the job.
    pub name: String,
    /// `fileType` of the job.
    pub file_type: Option<u8>,
    /// Where it is.
    pub image: Image,
    /// Made here or elsewhere; none = AWS signs.
    pub signature: Option<Custom>,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// On this machine; it is uploaded.
    Local(PathBuf),
    /// In a bucket already.
    Stored {
        /// The bucket.
        bucket: String,
        /// Its key there.
        key: String,
    },
}

/// A signature that AWS did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// `ECDSA` or `RSA`.
    pub algorithm: &'static str,
    /// The signature.
    pub base64: String,
}

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    /// AWS, by a signing profile.
    Profile {
        /// Its name.
        name: String,
        /// Id or ARN of the certificate of a new one.
        certificate: Option<String>,
        /// Platform of a new one.
        platform: String,
    },
    /// Not AWS: each file has its signature.
    Custom {
        /// The signer's certificate, if one was named.
        certificate_pem: Option<String>,
    },
}

impl File {
    /// Bucket and key of the image, uploaded or not.
    #[must_use]
    pub fn place<'a>(&'a self, update: &'a Update) -> (&'a str, String) {
        match &self.image {
            Image::Local(_) => (&update.bucket, format!("{}/{}", update.id, self.name)),
            Image::Stored { bucket, key } => (bucket, key.clone()),
        }
    }
}
