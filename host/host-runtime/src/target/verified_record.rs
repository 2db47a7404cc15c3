//! The durable list of images that this host has verified for a target.
//!
//! `otad launch` starts only a slot whose digest stands here: between the end of a verification and the start of the
//! program lies a restart, and nothing but this list tells the launcher what the host knew. `otad target init` enters
//! the first image. The list is short; the oldest entries go, the committed image stays.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{VERIFIED, state_name};
use super::record::{self, Committed, Memo, TargetRecord};
use super::serial;
use crate::ports::state_dir::StateDir;
use crate::types::{ImageInfo, Version};

/// One verified image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedImage {
    /// SHA-256 of all its bytes.
    #[serde(with = "serial::hex32")]
    pub sha256: [u8; 32],
    /// Its bytes.
    pub size: u64,
    /// From bytes under the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The trust-store entry that verified it, `unsigned`, or `initial` for the image that `target init` laid down.
    pub signer: String,
}

impl From<&ImageInfo> for VerifiedImage {
    fn from(info: &ImageInfo) -> Self {
        Self {
            sha256: info.sha256,
            size: info.size,
            version: info.version,
            signer: info.signer.clone(),
        }
    }
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Listing {
    format: u32,
    images: Vec<VerifiedImage>,
}

/// Encoding of the file; another one is refused.
const FORMAT: u32 = 1;

/// The images that were verified for a target, newest last; none is an empty list. Where the file is damaged, or not there, the
/// target's record says it: the committed image, and the one of the transfer once it was verified.
///
/// # Errors
/// What the medium says, and `InvalidData` for a file that is not of this build's format, with no record to help out.
pub fn list(state: &dyn StateDir, device: &str, target: &str) -> io::Result<Vec<VerifiedImage>> {
    let name = state_name(device, target, VERIFIED);
    let (what, otherwise) = match state.load(&name)?.map(|bytes| decode(&bytes)) {
        Some(Ok(images)) => return Ok(images),
        Some(Err(e)) => (format!("is damaged ({e})"), Err(e)),
        None => ("is missing".to_owned(), Ok(Vec::new())),
    };
    let images = of_record(state, device, target);
    if images.is_empty() {
        return otherwise;
    }
    tracing::warn!(
        device,
        target,
        "`{name}` {what}; the target's record says what was verified"
    );
    Ok(images)
}

fn decode(bytes: &[u8]) -> io::Result<Vec<VerifiedImage>> {
    let listing: Listing = serde_json::from_slice(bytes)?;
    if listing.format != FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("format {}, this build reads {FORMAT}", listing.format),
        ));
    }
    Ok(listing.images)
}

/// What the record knows of verified images.
fn of_record(state: &dyn StateDir, device: &str, target: &str) -> Vec<VerifiedImage> {
    // A record that is damaged, too, knows nothing.
    let record = record::load(state, device, target).unwrap_or_default();
    let committed = record.committed.map(|committed| committed.image.clone());
    let transfer = record.transfer.and_then(|transfer| transfer.image.clone());
    let mut images: Vec<_> = committed
        .into_iter()
        .chain(transfer.map(|stored| stored.image))
        .collect();
    images.dedup_by_key(|image| image.sha256);
    images
}

/// Whether an image with this digest was verified for the target.
///
/// # Errors
/// As [`list`].
pub fn contains(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    sha256: &[u8; 32],
) -> io::Result<bool> {
    Ok(list(state, device, target)?
        .iter()
        .any(|image| image.sha256 == *sha256))
}

/// Enter a verified image; durable when it returns. Of the others the newest `keep` stay, and `pinned` (the committed
/// image) in any case.
pub(super) fn enter(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    image: VerifiedImage,
    pinned: Option<[u8; 32]>,
    keep: usize,
) -> io::Result<()> {
    let mut images = list(state, device, target)?;
    images.retain(|old| old.sha256 != image.sha256);
    while images.len() > keep {
        let Some(oldest) = images.iter().position(|old| Some(old.sha256) != pinned) else {
            break;
        };
        images.remove(oldest);
    }
    images.push(image);
    store(state, device, target, images)
}

/// Let the launcher start the image that `otad target init` is laying down, beside what it may start already, and forget
/// what is known of the slots: until [`enter_initial`] the boot record is in the hands of whoever lays the image down.
///
/// # Errors
/// What the medium says.
pub fn announce_initial(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    image: VerifiedImage,
) -> io::Result<()> {
    let mut images = match list(state, device, target) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Vec::new(),
        listed => listed?,
    };
    images.retain(|old| old.sha256 != image.sha256);
    images.push(image);
    store(state, device, target, images)?;
    record::store(
        state,
        device,
        target,
        &TargetRecord::default(),
        &mut Memo::default(),
    )
}

fn store(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    images: Vec<VerifiedImage>,
) -> io::Result<()> {
    let listing = Listing {
        format: FORMAT,
        images,
    };
    state.store(
        &state_name(device, target, VERIFIED),
        &serde_json::to_vec_pretty(&listing)?,
    )
}

/// Enter the image that `otad target init` laid down into `region`: it counts as verified and as the last committed
/// one, so that the region is never written while it is. Any transfer that was recorded for the target is forgotten.
///
/// # Errors
/// What the medium says.
pub fn enter_initial(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    region: &str,
    image: VerifiedImage,
) -> io::Result<()> {
    let record = TargetRecord {
        committed: Some(Arc::new(Committed {
            regions: vec![region.to_owned()],
            image: image.clone(),
            product: None,
        })),
        ..TargetRecord::default()
    };
    store(state, device, target, vec![image])?;
    record::store(state, device, target, &record, &mut Memo::default())
}
