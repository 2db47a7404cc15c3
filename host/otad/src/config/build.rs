//! A target whose images are builds of otad's own guests: `plugin = "build"`, and `of_target` for one that brings another
//! target's plugin. Without that it brings the device's agent.

use super::model::{Device, PluginChoice, Target};
use super::reader::{Located, Reader, Sink};

/// The name of its plugin.
pub const BUILD: &str = "build";

/// What belongs to targets that have something of their own.
const USELESS: [&str; 10] = [
    "carrier",
    "native",
    "settings",
    "directory",
    "region",
    "line",
    "hardware_reset",
    "restart",
    "version_from",
    "version_command",
];

/// The target whose plugin's builds it brings.
pub(super) fn of_target(
    section: &Reader<'_>,
    plugin: &PluginChoice,
    file_id: u32,
) -> Option<Located<String>> {
    let of_target = section.text("of_target");
    if *plugin != PluginChoice::Builtin(BUILD) {
        if let Some(named) = &of_target {
            section.sink.advise(
                &named.origin,
                "`of_target` is for a target that brings builds",
                "remove it, or set `plugin = \"build\"`",
            );
        }
        return None;
    }
    for key in USELESS.into_iter().filter(|key| section.has(key)) {
        section.sink.advise(
            &section.place(key),
            format!("`{key}` has no use here: otad itself is the target"),
            "remove it",
        );
    }
    if section.has("file_id") && file_id == 0 {
        section.sink.advise(
            &section.place("file_id"),
            "`file_id` 0 for builds of an agent or a plugin: that is the gateway's own software",
            "give the target a `fileid` of its own, 1 to 255",
        );
    }
    of_target
}

/// Each of these brings builds of something that is there, and no two of the same.
pub(super) fn check(device: &Device, sink: &Sink) {
    let is_build = |target: &&Target| target.plugin == PluginChoice::Builtin(BUILD);
    let mut seen = Vec::new();
    for target in device.targets.iter().filter(is_build) {
        let of = target.of_target.as_ref();
        let origin = of.map_or(&target.name.origin, |named| &named.origin);
        let name = of.map(|named| &named.value);
        if seen.contains(&name) {
            sink.advise(
                origin,
                "a second target brings builds of the same",
                "one is enough: remove it",
            );
        }
        seen.push(name);
        let there = |name: &String| {
            let others = device.targets.iter().filter(|target| !is_build(target));
            others
                .map(|target| &target.name.value)
                .any(|other| other == name)
        };
        if let Some(name) = name.filter(|name| !there(name)) {
            sink.advise(
                origin,
                format!(
                    "`of_target` names \"{name}\", which is no target with a plugin of its own"
                ),
                "name another target of this device, or leave it out for the device's agent",
            );
        }
    }
}
