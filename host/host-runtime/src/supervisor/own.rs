//! A device for whoever belongs to it, such as a plugin that puts builds in: a handle that does not keep it alive.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::{DeviceHandle, Request};

/// A device that runs, or will: empty until [`PendingDevice::start`](super::PendingDevice::start). Clones are of the same one.
#[derive(Clone, Default)]
pub struct OwnDevice(Arc<OnceLock<Place>>);

struct Place {
    requests: mpsc::WeakSender<Request>,
    /// The rest of its handle; its own way in leads nowhere.
    rest: DeviceHandle,
}

impl OwnDevice {
    /// The device; none before its start and after its end.
    #[must_use]
    pub fn handle(&self) -> Option<DeviceHandle> {
        let place = self.0.get()?;
        Some(DeviceHandle {
            requests: place.requests.upgrade()?,
            ..place.rest.clone()
        })
    }

    /// It has started. A second device is not taken: who has one belongs to that.
    pub(super) fn is(&self, handle: &DeviceHandle) {
        self.0.get_or_init(|| Place {
            requests: handle.requests.downgrade(),
            rest: DeviceHandle {
                requests: mpsc::channel(1).0,
                ..handle.clone()
            },
        });
    }
}
