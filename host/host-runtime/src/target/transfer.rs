//! What is known of the transfer under way: how far it is, where its bytes lie, what its plugin is told of it.

use std::sync::Arc;

use super::config::StorageFactory;
use super::fence::Fenced;
use super::layout::{Layout, Piece};
use super::machine::Target;
use super::map::{BlockMap, Grid};
use super::record::{Phase, StoredBlob, TransferRecord};
use crate::plugin::{Transfer, capability};
use crate::types::{Blob, Failure, code};

/// Most bytes of a plugin's saved state (`wit/pal/types.wit`, record `blob`).
const BLOB_MAX_BYTES: usize = 64 * 1024;

impl Target {
    /// Whether it writes blocks into lent storage.
    pub(super) fn is_direct(&self) -> bool {
        self.plugin.description().can(capability::DIRECT)
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.record.transfer.as_ref().map(|t| t.phase)
    }

    /// Let the plugin say what its successor needs. A plugin that cannot is not worth a failure here.
    pub(super) fn save_blob(&mut self) {
        let Some(saved) = self.plugin.suspend() else {
            return;
        };
        match saved {
            Ok(blob) if blob.bytes.len() <= BLOB_MAX_BYTES => {
                if let Some(transfer) = self.record.transfer_mut() {
                    transfer.blob = Some(StoredBlob::from(&blob));
                }
            }
            Ok(blob) => tracing::warn!(
                device = %self.device, target = %self.config.name,
                "plugin wants to save {} bytes, at most {BLOB_MAX_BYTES} are kept", blob.bytes.len()
            ),
            Err(failure) => {
                if failure.main == code::UNSUPPORTED {
                    // It has nothing to say: nobody need look at that.
                    tracing::debug!(device = %self.device, target = %self.config.name, "no saved state: {failure}");
                } else {
                    tracing::warn!(device = %self.device, target = %self.config.name, "no saved state: {failure}");
                }
                // What it saved before may be of before its last duty.
                if let Some(transfer) = self.record.transfer_mut() {
                    transfer.blob = None;
                }
            }
        }
    }

    pub(super) fn blob(&self) -> Option<Blob> {
        let transfer = self.record.transfer.as_ref()?;
        transfer.blob.as_ref().map(Blob::from)
    }

    pub(super) fn map_name(&self) -> Arc<str> {
        Arc::clone(&self.map_name)
    }

    /// The slots that nothing may be written to: of the committed image, and of one that may run or boot.
    pub(super) fn kept_regions(&self) -> Vec<String> {
        let mut kept = Vec::new();
        if let Some(committed) = &self.record.committed {
            kept.extend(committed.regions.iter().cloned());
        }
        if let Some(transfer) = &self.record.transfer
            && (transfer.phase.in_test() || transfer.phase == Phase::Committed)
        {
            kept.extend(transfer.extents.iter().map(|e| e.region.clone()));
        }
        kept
    }

    /// Where the transfer's bytes lie.
    pub(super) fn layout(&mut self) -> Result<Layout, Failure> {
        let Some(transfer) = &self.record.transfer else {
            return Err(Failure::new(code::NOT_FOUND, 0, "there is no transfer"));
        };
        if self.is_direct() {
            let extents = self.regions.to_extents(&transfer.extents).ok_or_else(|| {
                Failure::new(
                    code::BAD_IMAGE_STATE,
                    0,
                    "a region of the transfer is no longer configured; abort it",
                )
            })?;
            return Ok(self.regions.layout(&extents));
        }
        let length = transfer.spec.size;
        let storage = self.open_staging(length)?;
        Ok(Layout(vec![Piece {
            name: Arc::from("staging"),
            storage,
            offset: 0,
            length,
        }]))
    }

    /// Whether an extent of the transfer ends here.
    pub(super) fn is_border(&self, offset: u64) -> bool {
        let extents = self.record.transfer.iter().flat_map(|t| &t.extents);
        let mut ends = extents.scan(0, |end: &mut u64, extent| {
            *end = end.saturating_add(extent.length);
            Some(*end)
        });
        ends.any(|end| end == offset)
    }

    /// The staging file; opened once a transfer.
    pub(super) fn open_staging(&mut self, size: u64) -> Result<Arc<Fenced>, Failure> {
        if let Some(storage) = &self.staging {
            return Ok(Arc::clone(storage) as _);
        }
        let file = self
            .staging_factory()?
            .open(size)
            .map_err(|e| Failure::storage("open staging", &e))?;
        let storage = Fenced::new(file);
        self.staging = Some(Arc::clone(&storage));
        Ok(storage)
    }

    /// The transfer as the plugin is told of it.
    pub(super) fn plugin_transfer(&self, transfer: &TransferRecord) -> Transfer {
        let spec = &transfer.spec;
        Transfer {
            device: self.device.to_string(),
            job_id: spec.job_id.clone(),
            file_id: spec.file_id,
            size: spec.size,
            block_size: spec.block_size,
            file_type: spec.file_type,
            attributes: spec.attributes,
            path: spec.path.clone(),
            certificate: spec.certificate.clone(),
            signature_kind: spec.signature_kind.clone(),
            signature: spec.signature.clone(),
        }
    }

    /// The grid of the transfer's blocks.
    pub(super) fn grid(&self) -> Option<Grid> {
        self.record.transfer.as_ref().map(|transfer| Grid {
            size: transfer.spec.size,
            block: transfer.spec.block_size,
        })
    }

    /// The first block map of a transfer.
    pub(super) fn new_map(&self) -> Option<BlockMap> {
        let number = self.record.transfer.as_ref()?.number;
        Some(BlockMap::new(self.grid()?, number))
    }

    pub(super) fn staging_factory(&self) -> Result<Arc<dyn StorageFactory>, Failure> {
        let factory = self.own.staging().cloned();
        factory.ok_or_else(|| {
            Failure::new(
                code::UNSUPPORTED,
                0,
                "the target has no staging; configure it",
            )
        })
    }
}
