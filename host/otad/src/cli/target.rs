//! `otad target`: lays down first images, and tells what is configured and what runs. The targets themselves are asked by
//! the daemon alone, but for `reset`, which asks the target itself, or pulls its reset input; without a daemon only the configuration is told.

use std::path::Path;
use std::time::Duration;

use host_runtime::ports::state_dir::FileStateDir;
use serde_json::{Map, Value, json};

use super::args::{ConfigArg, DeviceArgs, LinkArgs, TargetVerb};
use super::control::{client, note_silent, request};
use super::launch::files;
use super::{device, load, mcu, target};
use crate::config::{
    BUILD, BUILTIN, Device, Own, PluginChoice, Reset, ResetBy, TAKEN_HELP, Target, VersionFrom,
};
use crate::control::protocol;
use crate::exit::{Exit, Failed, Verb};
use crate::image::failed;
use crate::lock;
use crate::progress::{note, say};
use crate::target_init::{self, Laid, Place};

pub(super) async fn follow(verb: &TargetVerb) -> Verb {
    match verb {
        TargetVerb::Init {
            target,
            file,
            config,
            device,
            force,
        } => init(target, file, config, device.as_deref(), *force),
        TargetVerb::List(args) => list(args, None).await,
        TargetVerb::Info { target, device } => list(device, Some(target)).await,
        TargetVerb::Reset {
            target,
            config,
            device,
            force,
            hardware,
            timeout,
            json,
        } => {
            let link = LinkArgs {
                port: None,
                target: Some(target.clone()),
                config: config.clone(),
                device: device.clone(),
                baud: None,
                raw: false,
                json: *json,
            };
            let patience = Duration::from_secs(*timeout);
            mcu::reset_target(&link, target, *force, *hardware, patience).await
        }
    }
}

fn init(
    name: &str,
    file: &Path,
    config: &ConfigArg,
    device_name: Option<&str>,
    force: bool,
) -> Verb {
    let config = load(config)?;
    let device = device(&config, device_name)?;
    let target = target(device, name)?;
    if target.plugin == PluginChoice::Builtin("serial-mcu") {
        return Err(Failed::new(
            Exit::Refused,
            format!(
                "\"{name}\" is a secondary MCU: its first image comes by its programmer, or by `otad mcu`; what runs on it \
                 is asked from it"
            ),
        ));
    }
    if target.plugin == PluginChoice::Builtin(BUILD) {
        let text = format!(
            "\"{name}\" brings builds of otad's own guests: its first one is what is configured"
        );
        return Err(Failed::new(Exit::Refused, text));
    }
    // Before anything is written: only `run` and `config check` look at the rest.
    if let Some(taken) = Own::of(&config).taken(target).first() {
        let text = format!("target \"{name}\": {}; {TAKEN_HELP}", taken.why);
        return Err(Failed::new(Exit::Config, text));
    }
    let state_dir = &config.daemon.state_dir.value;
    let _lock = lock::take(state_dir)?;
    let state = FileStateDir::open(state_dir).map_err(|e| failed(state_dir, &e))?;
    let place = Place {
        device: &device.name.value,
        target: &target.name.value,
        files: &files(target)?,
        slot_size_bytes: target
            .regions
            .iter()
            .find(|r| r.name == "slot-a")
            .map_or(0, |r| r.size_bytes),
        force,
    };
    let Laid { facts, slot } = target_init::init(&place, file, &state)?;
    let version = facts.trailer.map_or_else(
        || "unknown version".to_owned(),
        |t| format!("version {}", t.version),
    );
    say(&format!(
        "{name}: {} bytes, {version}, lie in {} and are confirmed; start them with `otad launch {name}`",
        facts.size,
        slot.name()
    ));
    Ok(Exit::Done)
}

/// What is known of the targets of one device, or of all; or of one of them.
async fn list(args: &DeviceArgs, only: Option<&str>) -> Verb {
    let config = load(&args.control.config)?;
    let devices: Vec<&Device> = match (&args.device, only) {
        (None, None) => config.devices.iter().collect(),
        (name, _) => vec![device(&config, name.as_deref())?],
    };
    let status = client(&args.control)?
        .gather(&request(args, protocol::Verb::Status), "devices")
        .await;
    // A daemon that does not answer is no error: the configuration is there.
    let status = match status {
        Ok(status) => {
            note_silent(&status);
            Some(status)
        }
        Err(failed) => {
            note(&format!("only the configuration is shown: {failed}"));
            None
        }
    };
    let mut told = Vec::new();
    for device in devices {
        let targets: Vec<&Target> = match only {
            Some(name) => vec![target(device, name)?],
            None => device.targets.iter().collect(),
        };
        for target in targets {
            let live = status.as_ref().and_then(|s| live(s, device, target));
            let mut entry = configured(device, target, only.is_some());
            entry.extend(running(live));
            told.push(Value::Object(entry));
        }
    }
    if args.control.json {
        let answer = match only {
            Some(_) => told.pop().unwrap_or_default(),
            None => json!({ "targets": told }),
        };
        say(&answer.to_string());
        return Ok(Exit::Done);
    }
    for entry in &told {
        let line = if only.is_some() {
            long(entry)
        } else {
            short(entry)
        };
        say(&line);
    }
    Ok(Exit::Done)
}

/// What the daemon says of a target.
fn live<'a>(status: &'a Value, device: &Device, target: &Target) -> Option<&'a Value> {
    let named = |list: &'a Value, key: &str, name: &str| {
        let list = list.as_array()?;
        list.iter().find(|entry| entry[key] == name)
    };
    let device = named(&status["devices"], "device", &device.name.value)?;
    named(&device["targets"], "name", &target.name.value)
}

fn configured(device: &Device, target: &Target, whole: bool) -> Map<String, Value> {
    let plugin = match &target.plugin {
        PluginChoice::Builtin(name) => format!("{BUILTIN}{name}"),
        PluginChoice::File(path) => path.value.display().to_string(),
    };
    let place = match (&target.line, target.regions.first()) {
        (Some(line), _) => line.config.place.to_string(),
        (None, Some(region)) => match region.path.value.parent() {
            Some(directory) => directory.display().to_string(),
            None => region.path.value.display().to_string(),
        },
        (None, None) => String::new(),
    };
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| {
        entry.insert(key.to_owned(), value);
    };
    put("device", json!(device.name.value));
    put("target", json!(target.name.value));
    put("file_id", json!(target.file_id));
    put("plugin", json!(plugin));
    put("place", json!(place));
    if !whole {
        return entry;
    }
    put("version_from", json!(version_from(target.version_from)));
    if let Some(line) = &target.line {
        let config = &line.config;
        put("baud", json!(config.baud));
        put("low_latency", json!(config.low_latency));
    }
    put("restart", json!(restart(target)));
    let settings: Map<String, Value> = target
        .plugin_settings
        .iter()
        .map(|s| (s.key.clone(), json!(s.value)))
        .collect();
    put("settings", Value::Object(settings));
    entry
}

fn version_from(from: VersionFrom) -> String {
    match from {
        VersionFrom::Trailer => "trailer".to_owned(),
        VersionFrom::Mcuboot => "mcuboot".to_owned(),
        VersionFrom::Plugin => "plugin".to_owned(),
        VersionFrom::Offset(at) => format!("offset {at}"),
        VersionFrom::None => "none".to_owned(),
    }
}

/// Who restarts it, and what its reset input hangs on.
fn restart(target: &Target) -> String {
    let by = match &target.reset {
        Reset::Plugin => "its plugin".to_owned(),
        Reset::Command(program) => program.argv.join(" "),
        Reset::Process => "otad itself ends".to_owned(),
    };
    let Some(reset) = &target.hardware_reset else {
        return by;
    };
    let wire = match &reset.by {
        ResetBy::Gpio { chip, offset, .. } => format!("{} line {offset}", chip.display()),
        ResetBy::Control { control, .. } => format!("{control:?}").to_uppercase(),
        ResetBy::Command(program) => program.argv.join(" "),
    };
    format!("{by}; hardware reset by {wire} for {} ms", reset.hold_ms)
}

fn running(live: Option<&Value>) -> Map<String, Value> {
    let mut entry = Map::new();
    let Some(live) = live else {
        return entry;
    };
    for key in [
        "running_version",
        "image_state",
        "phase",
        "job_id",
        "held",
        "size",
        "warnings",
    ] {
        if !live[key].is_null() {
            entry.insert(key.to_owned(), live[key].clone());
        }
    }
    entry
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn short(entry: &Value) -> String {
    format!(
        "{:<16} {:<12} file {:<3} {:<20} {:<28} version {}, image {}",
        text(&entry["device"]),
        text(&entry["target"]),
        text(&entry["file_id"]),
        text(&entry["plugin"]),
        text(&entry["place"]),
        text(&entry["running_version"]),
        text(&entry["image_state"]),
    )
}

fn long(entry: &Value) -> String {
    let Some(members) = entry.as_object() else {
        return String::new();
    };
    let lines: Vec<String> = members
        .iter()
        .map(|(key, value)| format!("{key}: {}", text(value)))
        .collect();
    lines.join("\n")
}
