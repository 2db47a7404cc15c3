//! The durable record of a target: the transfer under way, with its phase, and where the last committed image lies.
//!
//! One small JSON file, replaced as a whole. It is written before a phase is entered whose effects outlive this process
//! (so that a restart finds at least what was begun), and after one whose effects are needed for it. The locks on lent
//! storage follow from it alone, so they hold across restarts.

use std::io;

use serde::{Deserialize, Serialize};

use super::names::{RECORD, state_name};
use super::serial;
use super::verified_record::VerifiedImage;
use crate::ports::state_dir::StateDir;
use crate::types::{Blob, FileSpec, ImageInfo};

/// Encoding of the file. Fields are only added, with a default, so that the previous build reads what this one wrote.
const FORMAT: u32 = 1;

/// What is known of a target across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetRecord {
    /// Encoding.
    #[serde(default)]
    pub(super) format: u32,
    /// Transfers so far; the number of the next one.
    #[serde(default)]
    pub(super) transfers: u64,
    /// The last image that was committed here.
    #[serde(default)]
    pub(super) committed: Option<Committed>,
    /// The transfer under way, or the last one.
    #[serde(default)]
    pub(super) transfer: Option<TransferRecord>,
}

/// The last committed image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    /// The slots that hold it (direct targets): never written, never erased.
    #[serde(default)]
    pub(super) regions: Vec<String>,
    /// What it is.
    pub(super) image: VerifiedImage,
    /// What it says it is for.
    #[serde(default)]
    pub(super) product: Option<String>,
}

impl Committed {
    /// As the report shows it.
    pub(super) fn info(&self) -> ImageInfo {
        ImageInfo {
            size: self.image.size,
            sha256: self.image.sha256,
            version: self.image.version,
            product: self.product.clone(),
            signer: self.image.signer.clone(),
        }
    }
}

/// A transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TransferRecord {
    /// Its number: a block map of another number is not its map.
    pub(super) number: u64,
    /// What the job document says.
    pub(super) spec: FileSpec,
    /// Where its bytes lie (direct targets), in the order of the file.
    #[serde(default)]
    pub(super) extents: Vec<StoredExtent>,
    /// How far it is.
    pub(super) phase: Phase,
    /// What was verified, from phase [`Phase::Verified`] on.
    #[serde(default)]
    pub(super) image: Option<StoredImage>,
    /// What the plugin's last `suspend` said.
    #[serde(default)]
    pub(super) blob: Option<StoredBlob>,
}

/// A run of bytes in a region, by the region's name: numbers change when an operator adds a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredExtent {
    pub(super) region: String,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A verified image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredImage {
    #[serde(flatten)]
    pub(super) image: VerifiedImage,
    #[serde(default)]
    pub(super) product: Option<String>,
}

/// Saved state of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredBlob {
    pub(super) schema: u32,
    #[serde(with = "serial::hex")]
    pub(super) bytes: Vec<u8>,
}

impl From<&Blob> for StoredBlob {
    fn from(blob: &Blob) -> Self {
        Self {
            schema: blob.schema,
            bytes: blob.bytes.clone(),
        }
    }
}

impl From<&StoredBlob> for Blob {
    fn from(blob: &StoredBlob) -> Self {
        Self {
            schema: blob.schema,
            bytes: blob.bytes.clone(),
        }
    }
}

/// How far a transfer is. The order is the order of a good update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// The plugin is asked for room, the slot is erased. Cannot be reopened.
    Creating,
    /// Blocks are taken; the only phase in which the extents may be written.
    Receiving,
    /// Complete and locked, perhaps not verified yet.
    Closed,
    /// Read back and verified.
    Verified,
    /// In the target, marked nowhere.
    Installed,
    /// Perhaps marked for the next boot.
    Activating,
    /// Marked for the next boot, or running in test.
    Activated,
    /// Perhaps permanent.
    Committing,
    /// Permanent.
    Committed,
    /// Perhaps on the way back.
    Rejecting,
    /// Gone back, or never run.
    Rejected,
}

impl Phase {
    /// As reports and logs name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Receiving => "receiving",
            Self::Closed => "closed",
            Self::Verified => "verified",
            Self::Installed => "installed",
            Self::Activating => "activating",
            Self::Activated => "activated",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Rejecting => "rejecting",
            Self::Rejected => "rejected",
        }
    }

    /// The new image is, or may be, what boots next or runs, and nothing permanent was said about it: neither thrown
    /// away nor overwritten until the target says where it stands.
    pub(super) fn in_test(self) -> bool {
        match self {
            Self::Activating | Self::Activated | Self::Committing | Self::Rejecting => true,
            Self::Creating
            | Self::Receiving
            | Self::Closed
            | Self::Verified
            | Self::Installed
            | Self::Committed
            | Self::Rejected => false,
        }
    }
}

/// Read a target's record; none is an empty one.
pub(super) fn load(state: &dyn StateDir, device: &str, target: &str) -> io::Result<TargetRecord> {
    let Some(bytes) = state.load(&state_name(device, target, RECORD))? else {
        return Ok(TargetRecord::default());
    };
    let record: TargetRecord = serde_json::from_slice(&bytes)?;
    if record.format != FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("format {}, this build reads {FORMAT}", record.format),
        ));
    }
    Ok(record)
}

/// Replace a target's record; durable when it returns.
pub(super) fn store(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    record: &TargetRecord,
) -> io::Result<()> {
    state.store(&state_name(device, target, RECORD), &encode(record)?)
}

/// The bytes of a record.
pub(super) fn encode(record: &TargetRecord) -> io::Result<Vec<u8>> {
    let record = TargetRecord {
        format: FORMAT,
        ..record.clone()
    };
    Ok(serde_json::to_vec_pretty(&record)?)
}
