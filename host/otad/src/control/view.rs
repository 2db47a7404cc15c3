//! Status and events as the control socket shows them: the runtime's values with names and versions in words.
//!
//! The shape is part of the interface: members may be added, none changes its meaning.

use host_runtime::events::StoredEvent;
use host_runtime::status::{DeviceStatus, event_name};
use host_runtime::target::TargetReport;
use serde_json::{Value, json};

use crate::exit::Exit;

/// `target-state.code` of the contract.
const IMAGE_STATES: [&str; 6] = [
    "unknown",
    "pending-commit",
    "valid",
    "invalid",
    "armed",
    "foreign",
];

/// A device's status.
#[must_use]
pub fn device(status: &DeviceStatus, connection: Option<&host_mqtt::ConnectionStatus>) -> Value {
    // Plain values with text keys: there is no way to fail.
    let mut value = serde_json::to_value(status).unwrap_or_default();
    value["targets"] = status.targets.iter().map(target).collect();
    value["connection"] = connection.map_or(Value::Null, |c| json!(c));
    value
}

/// A device that says nothing of itself, and why; `exit` tells one that is still being started, or does not answer now
/// (`retry`), from one that does not run.
#[must_use]
pub fn silent(device: &str, why: &str, exit: Exit) -> Value {
    json!({ "device": device, "failed": why, "exit": exit.name() })
}

fn target(report: &TargetReport) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["running_version"] = json!(running_version(report));
    value["image_state"] = json!(image_state(report));
    if let Some(committed) = &report.committed {
        value["committed"] = json!({
            "size": committed.size,
            "sha256": host_crypto::hex(&committed.sha256),
            "version": committed.version.map(|v| v.to_string()),
            "product": committed.product,
            "signer": committed.signer,
        });
    }
    if let Some(object) = value.as_object_mut() {
        object.remove("state");
    }
    value
}

/// The version that a target said runs.
#[must_use]
pub fn running_version(report: &TargetReport) -> Option<String> {
    report.state?.running.map(|v| v.to_string())
}

/// The target's word on its image, as long as the host finds it there.
#[must_use]
pub fn image_state(report: &TargetReport) -> &'static str {
    if report.image_damaged {
        return "damaged";
    }
    report
        .state
        .and_then(|state| IMAGE_STATES.get(usize::from(state.code)).copied())
        .unwrap_or(IMAGE_STATES[0])
}

/// One application event.
#[must_use]
pub fn event(device: &str, stored: &StoredEvent) -> Value {
    let mut value = serde_json::to_value(stored).unwrap_or_default();
    value["device"] = json!(device);
    value["name"] = json!(event_name(stored.event.kind));
    value["version"] = json!(stored.event.version.map(|v| v.to_string()));
    value
}

#[cfg(test)]
mod tests {
    use host_runtime::types::{TargetState, Version};

    use super::*;

    #[test]
    fn a_target_is_shown_with_its_state_and_version_in_words() {
        let mut report = TargetReport {
            name: "main".to_owned(),
            state: Some(TargetState {
                code: 1,
                running: Some(Version {
                    major: 1,
                    minor: 1,
                    revision: 0,
                    build: 0,
                }),
                runs_new: Some(true),
            }),
            ..TargetReport::default()
        };
        let value = target(&report);
        assert_eq!(value["running_version"], "1.1.0");
        assert_eq!(value["image_state"], "pending-commit");
        assert_eq!(value.get("state"), None);
        report.image_damaged = true;
        assert_eq!(target(&report)["image_state"], "damaged");
        report.image_damaged = false;
        report.state = None;
        let value = target(&report);
        assert_eq!(value["running_version"], Value::Null);
        assert_eq!(value["image_state"], "unknown");
    }
}
