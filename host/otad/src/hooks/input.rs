//! What a hook is given: one JSON object on standard input, and an environment of its own.
//!
//! Members may be added; none changes its meaning. The job document stands in it byte for byte as the agent got it.

use host_runtime::events::StoredEvent;
use serde_json::{Value, json};

use super::{Kind, Plan};

/// Where programs are looked for by a hook's own shell; not what the daemon was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Version of the object's shape.
const VERSION: u32 = 1;

/// The standard input of a hook.
#[must_use]
pub(super) fn input(plan: &Plan, kind: Kind, stored: &StoredEvent, deadline_ms: u64) -> Vec<u8> {
    let event = &stored.event;
    let target = event.file.and_then(|file| plan.targets.get(&file));
    let failure = event.failure.as_ref().map(
        |failure| json!({ "main": failure.main, "sub": failure.sub, "detail": failure.detail }),
    );
    let head = json!({
        "otad": VERSION,
        "hook": kind.name(),
        "device": plan.device,
        "sequence": event.sequence,
        "at_s": stored.at_s,
        "job_id": event.job_id,
        "file": event.file,
        "target": target.map(|target| &target.name),
        "version": event.version.map(|version| version.to_string()),
        "failure": failure,
        "deadline_ms": deadline_ms,
    });
    let mut text = head.to_string();
    // Behind the last member, not through a tree: that would sort members and round numbers.
    text.pop();
    text.push_str(",\"document\":");
    text.push_str(&document(&event.document));
    text.push_str("}\n");
    text.into_bytes()
}

/// A document as JSON: itself if it is that, otherwise as a string; `null` if there is none.
fn document(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "null".to_owned();
    }
    let text = String::from_utf8_lossy(bytes);
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => text.into_owned(),
        Err(_) => Value::String(text.into_owned()).to_string(),
    }
}

/// The whole environment of a hook. With `OTAD_CONFIG` and `OTAD_SOCKET` it can call `otad` itself.
#[must_use]
pub(super) fn environment(plan: &Plan, kind: Kind, stored: &StoredEvent) -> Vec<(String, String)> {
    let event = &stored.event;
    let target = event.file.and_then(|file| plan.targets.get(&file));
    let known = [
        ("PATH", Some(PATH.to_owned())),
        ("LANG", Some("C.UTF-8".to_owned())),
        ("OTAD_HOOK", Some(kind.name().to_owned())),
        ("OTAD_DEVICE", Some(plan.device.clone())),
        ("OTAD_JOB", event.job_id.clone()),
        ("OTAD_FILE", event.file.map(|file| file.to_string())),
        ("OTAD_TARGET", target.map(|target| target.name.clone())),
        (
            "OTAD_VERSION",
            event.version.map(|version| version.to_string()),
        ),
        ("OTAD_CONFIG", Some(plan.config.display().to_string())),
        ("OTAD_SOCKET", Some(plan.socket.display().to_string())),
    ];
    // A name with a NUL in it cannot be passed on; the agent's contract has none.
    let usable = |value: &String| !value.contains('\0');
    known
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.filter(usable)?)))
        .collect()
}
