//! What the daemon adds to the story that agent and adapters tell on the console: the version that each target runs, at
//! the start and after each job.

use std::collections::BTreeMap;
use std::time::Duration;

use host_runtime::status::DeviceStatus;
use host_runtime::supervisor::DeviceHandle;
use host_runtime::target::TargetReport;

use crate::control::view;

/// Targets are asked by the agent when it starts; that takes some milliseconds each.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After so many looks a target that has said nothing is shown as such.
const LOOKS_MAX: u32 = 100;

/// Events read at a time.
const EVENTS_AT_A_TIME: usize = 32;

/// `application-event.kind` after which a target may run another version: job-ended, rolled-back.
const VERSION_MAY_CHANGE: [u32; 2] = [16, 17];

/// Tell until the device ends.
pub(super) async fn tell(device: DeviceHandle) {
    let mut cursor = device.events().last();
    let mut known = BTreeMap::new();
    for look in 1..=LOOKS_MAX {
        let status = device.status().await;
        // One with a damaged record never does.
        let has_said = |t: &TargetReport| t.state.is_some() || t.phase == "damaged";
        let all_said = status.targets.iter().all(has_said);
        if all_said || look == LOOKS_MAX {
            versions(&status, &mut known);
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    loop {
        let events = device.events_after(cursor, EVENTS_AT_A_TIME).await;
        if events.is_empty() {
            return;
        }
        let mut ask = false;
        for stored in events {
            cursor = stored.event.sequence;
            ask |= VERSION_MAY_CHANGE.contains(&stored.event.kind);
        }
        if ask {
            versions(&device.status().await, &mut known);
        }
    }
}

/// Log each target's version where it is news.
fn versions(status: &DeviceStatus, known: &mut BTreeMap<u32, Option<String>>) {
    for target in &status.targets {
        let version = view::running_version(target);
        let before = known.insert(target.file_id, version.clone());
        if before.as_ref() == Some(&version) {
            continue;
        }
        tracing::info!(
            "{}: target {} (file {}) runs version {}, image {}",
            status.device,
            target.name,
            target.file_id,
            version.as_deref().unwrap_or("unknown"),
            view::image_state(target)
        );
    }
}
