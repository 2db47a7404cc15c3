//! Which agent a device has: `component` of `[device.agent]`. Its settings are `sections.rs`'s.

use super::model::AgentChoice;
use super::reader::Reader;
use super::sections::BUILTIN;

/// Agents that are part of otad, the default one first.
pub const BUILTIN_AGENTS: &[&str] = &["agent", "simple"];

/// The agent that the table names; the shipped one unless it does.
pub(super) fn choice(section: &Reader<'_>) -> AgentChoice {
    const KEY: &str = "component";
    let default = AgentChoice::Builtin(BUILTIN_AGENTS[0]);
    let Some(text) = section.text(KEY) else {
        return default;
    };
    let name = text.value.strip_prefix(BUILTIN).unwrap_or(&text.value);
    if let Some(builtin) = BUILTIN_AGENTS.iter().find(|b| **b == name) {
        return AgentChoice::Builtin(builtin);
    }
    let is_path = [".wasm", ".bundle"].iter().any(|e| text.value.ends_with(e));
    if !is_path && !text.value.contains('/') {
        section.sink.advise(
            &text.origin,
            format!("no agent \"{}\"", text.value),
            format!(
                "built in: {}; a file is named with its path: \"./{}.wasm\"",
                BUILTIN_AGENTS.join(", "),
                text.value
            ),
        );
        return default;
    }
    section.path(KEY).map_or(default, AgentChoice::File)
}
