//! A device for whoever belongs to it, such as a plugin that puts builds in: a handle that does not keep it alive.

use std::sync::{Arc, OnceLock, Weak};

use super::{DeviceHandle, Shared};

/// A device that runs, or will: empty until [`PendingDevice::start`](super::PendingDevice::start). Clones are of the same one.
#[derive(Clone, Default)]
pub struct OwnDevice(Arc<OnceLock<Weak<Shared>>>);

impl OwnDevice {
    /// The device; none before its start and after its end.
    #[must_use]
    pub fn handle(&self) -> Option<DeviceHandle> {
        Some(DeviceHandle(self.0.get()?.upgrade()?))
    }

    /// It has started. A second device is not taken: who has one belongs to that.
    pub(super) fn is(&self, handle: &DeviceHandle) {
        self.0.get_or_init(|| Arc::downgrade(&handle.0));
    }
}
