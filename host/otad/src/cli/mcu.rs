//! `otad mcu`: a field engineer's verbs on an MCU that speaks SMP, without a daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host_runtime::plugin::lend::HardwareReset;
use host_runtime::ports::commands::{Commands, TokioCommands};
use host_runtime::ports::line::{LineConfig, LinePlace};
use serde_json::{Value, json};
use smp_core::client::{ClientError, Order, Whole};
use smp_core::code::{image_rc, rc};
use smp_core::frame::Framing;
use smp_core::mcuboot::Image;
use smp_core::reply::Reply;
use tokio::time::Instant;

use super::args::{LinkArgs, McuImageVerb, McuVerb};
use super::{device, load, target};
use crate::exit::{Exit, Failed, Verb};
use crate::gateway::hardware_reset;
use crate::mcu::{Link, McuError, NotTestable, Session, Uploaded, View, hex};
use crate::progress::{Progress, Unit, say};

/// Largest file that is read: the slots of small controllers are some MiB at most.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Chunks under way where nobody says; only uploads have more than one.
const WINDOW: u8 = 3;

/// Times that an image is marked: the request or its answer may be lost.
const MARKS: u32 = 3;

/// The secondary slot, as recoveries number slots. Their default is the primary one, which runs.
const RECOVERY_SECONDARY: u32 = 2;

pub(super) async fn follow(verb: &McuVerb) -> Verb {
    match verb {
        McuVerb::Image(McuImageVerb::List(link)) => list(link).await,
        McuVerb::Image(McuImageVerb::Upload {
            link,
            file,
            image,
            window,
        }) => upload(link, file, *image, *window).await,
        McuVerb::Image(McuImageVerb::Test { link, hash }) => test(link, hash.as_deref()).await,
        McuVerb::Image(McuImageVerb::Confirm(link)) => confirm(link).await,
        McuVerb::Image(McuImageVerb::Erase { link, slot }) => erase(link, *slot).await,
        McuVerb::Echo { link, text } => echo(link, text).await,
        McuVerb::Reset {
            link,
            force,
            recovery,
            no_wait,
            timeout,
        } => {
            let patience = (!no_wait).then(|| Duration::from_secs(*timeout));
            reset(link, *force, *recovery, patience).await
        }
    }
}

async fn list(link: &LinkArgs) -> Verb {
    let (_, view) = meet(link, WINDOW).await?;
    show(link, &view, &[]);
    Ok(Exit::Done)
}

async fn upload(link: &LinkArgs, path: &Path, image: Option<u32>, window: u8) -> Verb {
    let name = path.display().to_string();
    let bytes = read(path)?;
    let facts = Image::examine(&mut &*bytes, bytes.len() as u64)
        .and_then(|facts| {
            facts
                .check_hash(&mut &*bytes, bytes.len() as u64)
                .map(|()| facts)
        })
        .map_err(|e| {
            let advice = "name a file that imgtool signed";
            Failed::new(Exit::Unverified, format!("{name}: {e}; {advice}"))
        })?;
    let (mut session, view) = meet(link, window).await?;
    let listed_image = image.unwrap_or(0);
    let version = facts.header.version.to_string();
    if let Some(there) = view.with_hash(&facts.hash) {
        let (exit, text) = if there.active {
            (Exit::Nothing, "runs already")
        } else {
            (Exit::Done, "lies there already")
        };
        tell(
            link,
            &format!("{name}: {version} {text}"),
            json!({ "version": version, "hash": hex(&facts.hash), "uploaded": 0, "result": text }),
        );
        return Ok(exit);
    }
    let is_recovery = session.is_recovery().await.map_err(|e| failed(link, &e))?;
    if is_recovery && image != Some(RECOVERY_SECONDARY) {
        let advice = format!(
            "a bootloader's own server answers, and would write over the image that runs: name the other slot \
             with --image {RECOVERY_SECONDARY}, or reset the target"
        );
        return Err(Failed::new(Exit::Refused, advice));
    }
    let mut source = Whole::new(&bytes);
    let mut plan = source.plan();
    plan.image = image;
    plan.repeat_image = is_recovery;
    plan.listed_image = if is_recovery { 0 } else { listed_image };
    let mut progress = (!link.json).then(|| Progress::new("uploading", Unit::Bytes));
    let begin = Instant::now();
    let total = plan.size;
    let mut from = None;
    let uploaded = session
        .upload(plan, &mut source, |done| {
            let from = *from.get_or_insert(done);
            let rate = rate(done.saturating_sub(from), begin.elapsed());
            if let Some(progress) = &mut progress {
                progress.update_at(done, total, rate);
            }
        })
        .await
        .map_err(|e| failed(link, &e))?;
    if let Some(mut progress) = progress {
        progress.update_at(total, total, None);
        progress.finish();
    }
    let view = session.look().await.map_err(|e| failed(link, &e))?;
    // Old recoveries list no hashes: nothing to compare with.
    let lists_hashes = view.images().iter().all(|image| !image.hash.is_empty());
    let Some(there) = view.with_hash(&facts.hash) else {
        if is_recovery && !lists_hashes {
            report(link, &name, &version, &facts.hash, total, uploaded, None);
            return Ok(Exit::Done);
        }
        return Err(Failed::new(
            Exit::Failed,
            format!(
                "{name}: all of it was sent and the target does not list it; erase the slot and try again"
            ),
        ));
    };
    report(
        link,
        &name,
        &version,
        &facts.hash,
        total,
        uploaded,
        Some(there.slot),
    );
    Ok(Exit::Done)
}

fn report(
    link: &LinkArgs,
    name: &str,
    version: &str,
    hash: &[u8],
    total: u64,
    uploaded: Uploaded,
    slot: Option<u32>,
) {
    let sent = total - uploaded.resumed_at.min(total);
    let rate = rate(sent, uploaded.took);
    let seconds = uploaded.took.as_secs_f64();
    let place = slot.map_or_else(String::new, |slot| format!(" in slot {slot}"));
    let kib = rate.map_or_else(String::new, |rate| {
        format!(", {:.1} KiB/s", rate as f64 / 1024.0)
    });
    let resumed = match uploaded.resumed_at {
        0 => String::new(),
        at => format!("; {at} bytes were there already"),
    };
    tell(
        link,
        &format!("{name}: {version} lies{place}: {sent} bytes in {seconds:.1} s{kib}{resumed}"),
        json!({
            "version": version,
            "hash": hex(hash),
            "slot": slot,
            "size": total,
            "uploaded": sent,
            "resumed_at": uploaded.resumed_at,
            "seconds": seconds,
            "bytes_per_s": rate,
            "result": "uploaded",
        }),
    );
}

async fn test(link: &LinkArgs, hash: Option<&str>) -> Verb {
    let (mut session, mut view) = meet(link, WINDOW).await?;
    let image = view
        .to_test(hash)
        .map_err(|why| not_testable(&why))?
        .clone();
    let is_marked = |view: &View| {
        let mut images = view.images().iter();
        images.any(|now| now.hash == image.hash && now.pending)
    };
    for _ in 0..MARKS {
        let order = Order::Test(image.hash.clone());
        view = match session.ask("marking for test", order).await {
            Ok(Reply::Images(images)) => View::new(images),
            // Lost on either way: the list tells which, and a mark is never repeated blindly.
            Ok(_)
            | Err(McuError::Client {
                error: ClientError::Silent,
                ..
            }) => session.look().await.map_err(|e| failed(link, &e))?,
            Err(e) => return Err(failed(link, &e)),
        };
        if is_marked(&view) || view.to_test(hash).is_err() {
            break;
        }
    }
    if !is_marked(&view) {
        let text = "the target does not list the image as marked; see `otad mcu image list`";
        return Err(Failed::new(Exit::Failed, text));
    }
    let text = format!("{} starts at the next reset: otad mcu reset", image.version);
    show(link, &view, &[text]);
    Ok(Exit::Done)
}

fn not_testable(why: &NotTestable) -> Failed {
    match why {
        NotTestable::Runs => Failed::new(Exit::Nothing, "that image runs already"),
        NotTestable::Marked => Failed::new(
            Exit::Nothing,
            "that image is marked already; it starts at the next reset",
        ),
        NotTestable::OnTrial(version) => Failed::new(
            Exit::Refused,
            format!(
                "{version} runs on trial, and marking another image would confirm it; confirm it with `image confirm`, \
                 or go back with `reset`"
            ),
        ),
        NotTestable::Missing => Failed::new(
            Exit::Nothing,
            "no such image lies there; see `otad mcu image list`",
        ),
        NotTestable::Ambiguous => Failed::new(
            Exit::Usage,
            "more than one image fits: give more digits of its hash, as `otad mcu image list` shows it",
        ),
    }
}

async fn confirm(link: &LinkArgs) -> Verb {
    let (mut session, view) = meet(link, WINDOW).await?;
    let is_all = |view: &View| {
        let mut active = view.images().iter().filter(|image| image.active);
        active.all(|image| image.confirmed)
    };
    if view.images().iter().any(|image| image.active) && is_all(&view) {
        show(link, &view, &["what runs is confirmed already".to_owned()]);
        return Ok(Exit::Done);
    }
    let reply = session.ask("confirming", Order::Confirm).await;
    let view = match reply {
        Ok(Reply::Images(images)) => View::new(images),
        Ok(_) => session.look().await.map_err(|e| failed(link, &e))?,
        Err(e) => return Err(failed(link, &e)),
    };
    if !is_all(&view) {
        let text = "the target took the confirmation and does not list it";
        return Err(Failed::new(Exit::Failed, text));
    }
    show(link, &view, &[]);
    Ok(Exit::Done)
}

async fn erase(link: &LinkArgs, slot: Option<u32>) -> Verb {
    let (mut session, before) = meet(link, WINDOW).await?;
    let reply = session.ask("erasing", Order::Erase(slot)).await;
    let after = session.look().await;
    match reply {
        Ok(_) => {}
        // Old servers call it an error to erase what is empty; the list tells.
        Err(McuError::Client {
            error: ClientError::Refused(refusal),
            ..
        }) if refusal.code == rc::UNKNOWN && before.images().iter().all(|image| image.active) => {}
        Err(e) => return Err(failed(link, &e)),
    }
    show(link, &after.map_err(|e| failed(link, &e))?, &[]);
    Ok(Exit::Done)
}

async fn echo(link: &LinkArgs, text: &str) -> Verb {
    let (mut session, _) = meet(link, WINDOW).await?;
    let begin = Instant::now();
    let reply = session.ask("echo", Order::Echo(text.to_owned())).await;
    let took_ms = begin.elapsed().as_secs_f64() * 1000.0;
    match reply.map_err(|e| failed(link, &e))? {
        Reply::Echo(back) if back == text => {
            let value = json!({ "echo": back, "ms": took_ms });
            tell(link, &format!("{back}   ({took_ms:.1} ms)"), value);
            Ok(Exit::Done)
        }
        _ => Err(Failed::new(Exit::Failed, "something else came back")),
    }
}

/// Restarts a target of the configuration and waits for it: its server is asked, and where that is silent, or `by_input`
/// says so, the reset input is pulled that is configured for it.
pub(super) async fn reset_target(
    link: &LinkArgs,
    name: &str,
    force: bool,
    by_input: bool,
    patience: Duration,
) -> Verb {
    let mut session = Session::open(&chosen(link, WINDOW)?).map_err(|e| failed(link, &e))?;
    let input = reset_input(link, name, &session)?;
    if by_input && input.is_none() {
        let text = format!(
            "target \"{name}\" has no reset input; configure one as [device.target.hardware_reset]"
        );
        return Err(Failed::new(Exit::Usage, text));
    }
    let by_input = by_input
        || match ask_to_restart(&mut session, force).await {
            Ok(()) => false,
            // Garbage, at another speed or of an application that hangs, is no answer either.
            Err(McuError::Client {
                error: ClientError::Silent | ClientError::Malformed,
                ..
            }) if input.is_some() => {
                if !link.json {
                    say("it does not answer; its reset input is pulled");
                }
                true
            }
            Err(error) => return Err(failed(link, &error)),
        };
    if by_input && let Some(input) = input {
        input.pulse(0).map_err(|e| failed(link, &e.into()))?;
    }
    let view = session.wait_restarted(patience).await;
    show(link, &view.map_err(|e| failed(link, &e))?, &[]);
    Ok(Exit::Done)
}

/// The reset input of a target, as its configuration has it.
fn reset_input(
    link: &LinkArgs,
    name: &str,
    session: &Session,
) -> Result<Option<Arc<dyn HardwareReset>>, Failed> {
    let config = load(&link.config)?;
    let device = device(&config, link.device.as_deref())?;
    let commands: Arc<dyn Commands> = Arc::new(TokioCommands::current());
    let device_name = &device.name.value;
    let target = target(device, name)?;
    Ok(hardware_reset(
        device_name,
        target,
        Some(&session.line()),
        &commands,
    ))
}

async fn ask_to_restart(session: &mut Session, force: bool) -> Result<(), McuError> {
    session.meet().await?;
    let order = Order::Reset {
        force,
        boot_mode: None,
    };
    session.ask("resetting", order).await.map(drop)
}

/// Restarts the target; without patience nobody waits for it.
async fn reset(link: &LinkArgs, force: bool, recovery: bool, patience: Option<Duration>) -> Verb {
    let (mut session, _) = meet(link, WINDOW).await?;
    let order = Order::Reset {
        force,
        boot_mode: recovery.then_some(1),
    };
    session
        .ask("resetting", order)
        .await
        .map_err(|e| failed(link, &e))?;
    let Some(patience) = patience else {
        tell(link, "the target restarts", json!({ "result": "restarts" }));
        return Ok(Exit::Done);
    };
    let view = session
        .wait_restarted(patience)
        .await
        .map_err(|e| failed(link, &e))?;
    show(link, &view, &[]);
    Ok(Exit::Done)
}

async fn meet(link: &LinkArgs, window: u8) -> Result<(Session, View), Failed> {
    let chosen = chosen(link, window)?;
    let mut session = Session::open(&chosen).map_err(|e| failed(link, &e))?;
    let view = session.meet().await.map_err(|e| failed(link, &e))?;
    Ok((session, view))
}

/// The line that the command line names.
fn chosen(link: &LinkArgs, window: u8) -> Result<Link, Failed> {
    let mut framing = Framing::Console;
    let mut line = match (&link.port, &link.target) {
        (Some(port), _) => {
            let place = LinePlace::parse(port);
            LineConfig::new(place.map_err(|e| Failed::new(Exit::Usage, format!("--port: {e}")))?)
        }
        (None, Some(name)) => {
            let config = load(&link.config)?;
            let device = device(&config, link.device.as_deref())?;
            let target = target(device, name)?;
            if target
                .plugin_settings
                .iter()
                .any(|setting| setting.key == "framing" && setting.value == "raw")
            {
                framing = Framing::Raw;
            }
            let line = target.line.as_ref().ok_or_else(|| {
                Failed::new(Exit::Usage, format!("target \"{name}\" has no serial line"))
            })?;
            line.config.clone()
        }
        (None, None) => {
            return Err(Failed::new(
                Exit::Usage,
                "which line? give --port or --target",
            ));
        }
    };
    if link.raw {
        framing = Framing::Raw;
    }
    line.baud = link.baud.or(line.baud);
    Ok(Link {
        line,
        framing,
        window,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let name = path.display().to_string();
    let failed = |e: &std::io::Error| Failed::chain(Exit::Failed, &name, e);
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > FILE_BYTES_MAX {
        let text = format!("{name}: {size} bytes, at most {FILE_BYTES_MAX} are uploaded");
        return Err(Failed::new(Exit::Failed, text));
    }
    std::fs::read(path).map_err(|e| failed(&e))
}

/// Bytes a second, once there is something to tell.
fn rate(bytes: u64, took: Duration) -> Option<u64> {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    bytes
        .saturating_mul(1000)
        .checked_div(ms)
        .filter(|rate| *rate > 0)
}

fn failed(link: &LinkArgs, error: &McuError) -> Failed {
    let place = link
        .port
        .as_deref()
        .or(link.target.as_deref())
        .unwrap_or("");
    let exit = match error {
        McuError::Line(_) => Exit::Retry,
        McuError::Client { error, .. } => match error {
            ClientError::Refused(refusal) if refusal.is_image(image_rc::HASH_NOT_FOUND) => {
                Exit::Nothing
            }
            ClientError::Refused(refusal) if refusal.as_generic() == rc::BUSY => Exit::Retry,
            ClientError::Refused(_) => Exit::Refused,
            ClientError::Mismatch => Exit::Unverified,
            ClientError::Silent
            | ClientError::Malformed
            | ClientError::Restarts
            | ClientError::Recovery => Exit::Retry,
            ClientError::Source | ClientError::TooSmall => Exit::Failed,
        },
    };
    let advice = match error {
        McuError::Client {
            error: ClientError::Silent | ClientError::Malformed,
            ..
        } => "; is it the right line, baud rate and framing, and does the target speak SMP there?",
        McuError::Client {
            error: ClientError::Refused(refusal),
            ..
        } if refusal.is_image(image_rc::NO_FREE_SLOT) => {
            "; confirm what runs with `image confirm`, or restart the target with `reset`"
        }
        McuError::Line(_) | McuError::Client { .. } => "",
    };
    // A line names itself.
    let place = match error {
        McuError::Line(_) => String::new(),
        McuError::Client { .. } => format!("{place}: "),
    };
    Failed::new(exit, format!("{place}{error}{advice}"))
}

fn show(link: &LinkArgs, view: &View, notes: &[String]) {
    if link.json {
        say(&json!({ "images": view.json() }).to_string());
        return;
    }
    for line in view.lines().iter().chain(notes) {
        say(line);
    }
}

fn tell(link: &LinkArgs, text: &str, value: Value) {
    say(&if link.json {
        value.to_string()
    } else {
        text.to_owned()
    });
}
