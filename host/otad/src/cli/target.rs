//! `otad target`.

use host_runtime::ports::state_dir::FileStateDir;

use super::args::TargetVerb;
use super::launch::files;
use super::{device, load, target};
use crate::exit::{Exit, Verb};
use crate::image::failed;
use crate::lock;
use crate::progress::say;
use crate::target_init::{self, Laid, Place};

pub(super) fn follow(verb: &TargetVerb) -> Verb {
    let TargetVerb::Init {
        target: name,
        file,
        config,
        device: device_name,
        force,
    } = verb;
    let config = load(config)?;
    let device = device(&config, device_name.as_deref())?;
    let target = target(device, name)?;
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
        force: *force,
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
