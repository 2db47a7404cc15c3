//! SIGHUP: the configuration, the certificates and the trust store are read again, and every device goes on with them.
//!
//! ```text
//! read, check ─┬─ wrong ─▶ the former devices run on, nothing has happened
//!              └─ right ─▶ devices stopped (journals) ─▶ devices started ─┬─▶ as after a restart, only quicker
//!                                                                        └─ none can be: the former configuration
//! ```
//!
//! Trust store and roots are read before anything is stopped, and the former configuration comes back with what was read for
//! it (`gateway/trusted.rs`). The files of MQTT connections are looked at before, too, but each connection reads its own when it
//! is made: one that becomes wrong in between stops its device. Where that is so of all devices, of the new configuration and of
//! the former one, the process ends, and the service manager starts it again.
//!
//! What the process itself was started with stays: state directory, cache, control socket and its group. An update
//! under way goes on from its journal, as over a restart of the daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host_runtime::ports::commands;
use tokio::task::JoinError;
use tokio::time::error::Elapsed;

use super::backend::{Devices, FailedDevice, Switch};
use super::notify::{Notifier, Word};
use super::session::Session;
use super::signals::Signals;
use super::threads::Threads;
use crate::config::{self, Config};
use crate::console;
use crate::exit::{Exit, Failed};
use crate::gateway::{Gateway, GatewayError, Questions, Trusted, Witnesses};
use crate::lock;

/// How long work of the former devices may keep the lock of the state directory: a sync of a slow card.
const LOCK_MAX: Duration = Duration::from_secs(20);

/// How long reading may take, compiling of new plugins included: a medium may hang for ever.
const READING_MAX: Duration = Duration::from_secs(120);

/// Pause between two looks at the lock.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// A configuration, with what it names on disk.
struct Whole {
    config: Config,
    trusted: Trusted,
}

/// Go over to the configuration as it is now. A signal to end does not wait for what is read: the session comes back as it is.
///
/// # Errors
/// Neither the new configuration nor the former one can be used: the process has to end.
pub(super) async fn reload(
    session: Session,
    signals: &Signals,
    switch: &Switch,
    notifier: &Arc<Notifier>,
    threads: &Threads,
    log_is_given: bool,
) -> Result<Session, Failed> {
    let former = Whole {
        config: session.gateway.config().clone(),
        trusted: session.gateway.trusted().clone(),
    };
    let witnesses = session.gateway.witnesses().clone();
    tracing::info!("SIGHUP: reading {} again", former.config.file.display());
    let config = former.config.clone();
    let served = session.gateway.plugins().questions();
    let reading = tokio::task::spawn_blocking(move || read_again(&config, &served));
    let read = tokio::select! {
        read = tokio::time::timeout(READING_MAX, reading) => read,
        _ = signals.next() => return Ok(session),
    };
    let new = match outcome(read, &former.config.file) {
        Ok(new) => new,
        Err((what, failed)) => {
            tracing::error!("the configuration is not taken, the former one goes on: {failed}");
            notifier.say(&Word::Status(format!("{what}, the former one goes on")));
            return Ok(session);
        }
    };
    if !log_is_given {
        console::filter_again(&new.config.daemon.log);
    }
    switch.set(between(&new.config));
    session.end().await;
    // As at the end of a process: what belonged to the former devices must not meet the new ones.
    commands::kill_all();
    let session = match start(new, &witnesses, notifier, threads).await {
        Ok(session) => session,
        Err(failed) => {
            tracing::error!(
                "not started with the new configuration, the former one goes on: {failed}"
            );
            start(former, &witnesses, notifier, threads).await?
        }
    };
    switch.set(session.devices());
    tracing::info!("ready again, with {} devices", session.running.len());
    Ok(session)
}

/// The configuration as it is now, with what the process cannot change. It takes as long as plugins that nobody has compiled
/// yet, or a medium that hangs.
fn read_again(former: &Config, served: &Questions) -> Result<Whole, Failed> {
    let mut config =
        config::load(&former.file).map_err(|e| Failed::new(Exit::Config, e.to_string()))?;
    let kept = &former.daemon;
    let new = &mut config.daemon;
    let group = |of: &config::Daemon| of.control_group.as_ref().map(|group| group.value.clone());
    let changed = [
        ("state_dir", new.state_dir.value != kept.state_dir.value),
        ("cache_dir", new.cache_dir != kept.cache_dir),
        (
            "control_socket",
            new.control_socket.value != kept.control_socket.value,
        ),
        ("control_group", group(new) != group(kept)),
    ];
    for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(
            "[daemon] {key} has changed: that takes a restart, until then the former one stays"
        );
    }
    new.state_dir = kept.state_dir.clone();
    new.cache_dir.clone_from(&kept.cache_dir);
    new.control_socket = kept.control_socket.clone();
    new.control_group.clone_from(&kept.control_group);
    super::check(&config)?;
    // The former devices need no more than they have: new ones would not come up.
    super::refuse(&config, config::check_writable(&config))?;
    // A start goes on without what a plugin would not serve; here there are the former ones to go on with.
    super::refuse(&config, config::check_plugins(&config, Some(served)))?;
    let trusted = Trusted::read(&config)?;
    Ok(Whole { config, trusted })
}

/// What has come of reading `file`.
///
/// # Errors
/// What is the matter, in short, and why.
fn outcome<T>(
    read: Result<Result<Result<T, Failed>, JoinError>, Elapsed>,
    file: &Path,
) -> Result<T, (&'static str, Failed)> {
    let unread = "the new configuration could not be read";
    match read {
        Ok(Ok(read)) => read.map_err(|failed| ("the new configuration is wrong", failed)),
        Ok(Err(broke)) => Err((unread, Failed::chain(Exit::Failed, "reading it", &broke))),
        Err(_) => {
            let text = format!(
                "reading {}, or what it names, takes more than {} s: look at the medium, then reload again",
                file.display(),
                READING_MAX.as_secs()
            );
            Err((unread, Failed::new(Exit::Retry, text)))
        }
    }
}

/// What the control socket says while the devices are set up.
pub(super) fn between(config: &Config) -> Devices {
    let failed = config.devices.iter().map(|device| FailedDevice {
        name: device.name.value.clone(),
        exit: Exit::Retry,
        why: "it is being started with the configuration as it is now; ask again".into(),
    });
    Devices {
        running: Vec::new(),
        failed: failed.collect(),
        builds: None,
        is_between: true,
    }
}

async fn start(
    whole: Whole,
    witnesses: &Witnesses,
    notifier: &Arc<Notifier>,
    threads: &Threads,
) -> Result<Session, Failed> {
    let mut waited = Duration::ZERO;
    loop {
        match Gateway::open_with(whole.config.clone(), whole.trusted.clone()) {
            Ok(gateway) => {
                let gateway = gateway.with_witnesses(witnesses.clone());
                return Session::start(gateway, notifier, threads);
            }
            // Work begun for the former devices still writes.
            Err(GatewayError::Lock(failed)) if failed.exit == Exit::Retry && waited < LOCK_MAX => {
                tokio::time::sleep(LOCK_LOOK).await;
                waited += LOCK_LOOK + lock::TAKING;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_medium_that_hangs_is_not_told_as_a_wrong_configuration() {
        let never = std::future::pending::<Result<Result<(), Failed>, JoinError>>();
        let hangs = tokio::time::timeout(Duration::ZERO, never).await;
        let wrong = Ok(Ok(Err(Failed::new(Exit::Config, "line 3"))));
        let file = Path::new("/etc/otad.toml");
        for (read, what, why) in [
            (
                hangs,
                "the new configuration could not be read",
                "reading /etc/otad.toml, or what it names, takes more than 120 s: look at the medium, then reload again",
            ),
            (wrong, "the new configuration is wrong", "line 3"),
        ] {
            let (said, failed) = outcome(read, file).unwrap_err();
            assert_eq!((said, &failed.text[..]), (what, why));
        }
    }
}
