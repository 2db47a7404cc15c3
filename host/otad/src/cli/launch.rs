//! `otad launch`.

use std::io::ErrorKind;

use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::target::verified_record;

use super::args::LaunchArgs;
use super::{device, load, target};
use crate::config::Target;
use crate::console::{self, LogFormat};
use crate::exit::{Exit, Failed, Verb};
use crate::launch::{self, Files, Reason};
use crate::lock;

pub(super) fn follow(args: &LaunchArgs) -> Verb {
    console::start("info", LogFormat::Text)?;
    let config = load(&args.config)?;
    let device = device(&config, args.device.as_deref())?;
    let target = target(device, &args.target)?;
    let files = files(target)?;
    let state_dir = &config.daemon.state_dir.value;
    let unreadable = |e: std::io::Error| {
        let is_damaged = matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
        // Nothing says which image was verified.
        let exit = if is_damaged {
            Exit::Unverified
        } else {
            Exit::Failed
        };
        Failed::new(
            exit,
            format!("list of verified images in {}: {e}", state_dir.display()),
        )
    };
    // Only an answer that says so: what cannot be looked at is no reason to call it empty.
    if state_dir.try_exists().is_ok_and(|there| !there) {
        return Err(Failed::new(
            Exit::Nothing,
            format!(
                "state directory {} is not there: no image was laid down yet; `otad target init {} IMAGE` does it",
                state_dir.display(),
                target.name.value
            ),
        ));
    }
    lock::check_rights(state_dir)?;
    let state = FileStateDir::open(state_dir).map_err(unreadable)?;
    let list = || {
        verified_record::list(&state, &device.name.value, &target.name.value).map_err(unreadable)
    };
    list()?;
    // Asked anew each time: an image may be verified and marked while the launcher takes digests.
    let is_verified = |digest: &[u8; 32]| match list() {
        Ok(verified) => verified.iter().any(|v| v.sha256 == *digest),
        Err(failed) => {
            tracing::warn!("{failed}");
            false
        }
    };
    let (choice, program) = launch::prepare(&files, target.tries_max, is_verified)?;
    let version = list()?
        .iter()
        .find(|v| v.sha256 == choice.image.sha256)
        .and_then(|v| v.version)
        .map_or_else(|| "unknown".to_owned(), |v| v.to_string());
    let slot = choice.image.slot;
    let name = &target.name.value;
    match choice.reason {
        Reason::Confirmed => {
            tracing::info!("{name}: starting {}, version {version}", slot.name());
        }
        Reason::Try { used, max } => tracing::info!(
            "{name}: starting {}, version {version}, in test: try {used} of {max}",
            slot.name()
        ),
        Reason::TriesUsedUp => tracing::warn!(
            "{name}: the image in test did not stay up; going back to {}, version {version}",
            slot.name()
        ),
        Reason::NextUnfit => tracing::warn!(
            "{name}: the image in test cannot be started; going back to {}, version {version}",
            slot.name()
        ),
    }
    Err(launch::exec(&program, &args.arguments, name, slot))
}

/// The files of a flash-file target.
///
/// # Errors
/// The target has no such regions.
pub(super) fn files(target: &Target) -> Result<Files, Failed> {
    let path = |name: &str| {
        let region = target.regions.iter().find(|r| r.name == name);
        region.map(|r| r.path.value.clone()).ok_or_else(|| {
            Failed::new(
                Exit::Nothing,
                format!(
                    "target \"{}\" has no region \"{name}\": only flash-file targets are launched",
                    target.name.value
                ),
            )
        })
    };
    Ok(Files {
        slot_a: path("slot-a")?,
        slot_b: path("slot-b")?,
        record: path("record")?,
        tries: path("tries")?,
    })
}
