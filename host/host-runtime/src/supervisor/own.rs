//! A device for whoever must not keep it alive: such as a plugin that puts builds in, and belongs to it; and whoever sets devices
//! up, and has to know whether one is still there.

use std::sync::{Arc, OnceLock, Weak};

use super::link::Link;
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

/// Whether a device is there: from its preparation until nothing of it is left.
#[derive(Clone)]
pub struct Presence(Weak<Link>);

impl Presence {
    pub(super) fn of(link: &Arc<Link>) -> Self {
        Self(Arc::downgrade(link))
    }

    /// It has ended, or will never start, and another one may have its journal and its targets.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.upgrade().is_none_or(|link| link.is_closed())
    }
}
