//! `otad run`: the life of the daemon process.
//!
//! ```text
//! configuration, checks ─▶ lock ─▶ gateway ─▶ control socket, devices ─▶ SIGTERM, SIGINT ─▶ stop, DISCONNECT, exit 0
//!                            ▲                         ├─▶ file 0 is otad itself ─▶ the same, exit 4
//!                            └──── devices stopped ◀───┴─▶ SIGHUP: a configuration that is whole
//! ```
//!
//! A stopped daemon ends its devices without telling their agents: what they do goes on from the journal at the next
//! start, and so it does over a reload. The end is bounded: a second signal, or too long a wait, ends the process at once
//! (`signals.rs`). Not here: what a device is made of (`gateway`).

mod backend;
mod dropped;
mod kernel;
mod notify;
mod pages;
mod reload;
mod rollout;
mod session;
mod signals;
mod story;
mod threads;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use host_runtime::types::FileId;
use tokio::task::JoinSet;

use crate::config::{self, Config, ConfigError};
use crate::control::group;
use crate::control::server::{Access, Server};
use crate::exit::{Exit, Failed, Verb};
use crate::gateway::{ConnectedDevice, Gateway, Witnesses};
use backend::Switch;
pub(crate) use dropped::check_dir;
use notify::{Notifier, Word};
use session::Session;
use signals::Signals;
pub use threads::Threads;

/// How long an orderly end may take; service managers wait 90 s before they kill.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Signal(&'static str),
    Restart(FileId),
    /// Every device has ended by itself: the service manager starts the daemon again, and all of them with it.
    Alone,
}

/// Run until a signal, or until a target that is otad itself is to be restarted. `log_is_given`: the command line says
/// what is logged, whatever a configuration that is read again says. `witnesses` look on, over reloads too. Devices live on
/// `threads`.
///
/// # Errors
/// [`Exit::Config`] for what the operator must mend, [`Exit::Retry`] if another instance runs, [`Exit::Failed`]
/// otherwise.
pub async fn run(
    config: Config,
    log_is_given: bool,
    witnesses: Witnesses,
    threads: &Threads,
) -> Verb {
    tracing::info!("otad version {}", env!("CARGO_PKG_VERSION"));
    check(&config)?;
    let access = access(&config)?;
    let mut signals = Signals::listen()?;
    let notifier = Arc::new(Notifier::from_environment());
    let gateway = Gateway::open(config)?.with_witnesses(witnesses);
    pages::give_back();
    let socket = gateway.config().daemon.control_socket.value.clone();
    // It serves before anything is set up, which may take minutes: whoever asks meanwhile is told so.
    let server = Server::bind(&socket, access).map_err(|e| {
        Failed::new(
            Exit::Failed,
            format!("control socket {}: {e}", socket.display()),
        )
    })?;
    let switch = Arc::new(Switch::new(reload::between(gateway.config())));
    let mut serving = JoinSet::new();
    serving.spawn(server.serve(Arc::clone(&switch)));
    let mut session = Session::start(gateway, &notifier, threads)?;
    switch.set(session.devices());
    tracing::info!("ready; control socket {}", socket.display());
    notifier.say(&Word::Ready);

    let ending = loop {
        tokio::select! {
            name = signals.next() => break Ending::Signal(name),
            file = restart_requested(&session.running) => break Ending::Restart(file),
            () = all_ended(&session.running) => break Ending::Alone,
            () = signals.reload() => {}
        }
        signals.heard();
        notifier.say(&Word::Reloading);
        session =
            reload::reload(session, &signals, &switch, &notifier, threads, log_is_given).await?;
        notifier.say(&Word::Ready);
    };
    signals.end();
    notifier.say(&Word::Stopping);
    match ending {
        Ending::Signal(name) => tracing::info!("{name}: stopping"),
        Ending::Restart(file) => {
            tracing::info!("file {file} is this program: stopping, to be started again");
        }
        Ending::Alone => tracing::error!("no device is left: stopping"),
    }
    session.end().await;
    serving.shutdown().await;
    Ok(match ending {
        Ending::Signal(_) => Exit::Done,
        Ending::Restart(_) => Exit::RestartPending,
        Ending::Alone => Exit::Failed,
    })
}

/// Wait until no device is left, and say of each that ends that it has: nobody has stopped it.
async fn all_ended(devices: &[ConnectedDevice]) {
    let mut waiting = JoinSet::new();
    for device in devices {
        let handle = device.handle.clone();
        waiting.spawn(async move { handle.stopped().await });
    }
    while let Some(ended) = waiting.join_next().await {
        if let Ok(status) = ended {
            let why = status
                .last_error
                .as_deref()
                .unwrap_or("its agent was shut down");
            tracing::error!("{}: has ended: {why}", status.device);
        }
    }
}

async fn restart_requested(devices: &[ConnectedDevice]) -> FileId {
    let mut waiting = JoinSet::new();
    for device in devices {
        let handle = device.handle.clone();
        waiting.spawn(async move { handle.restart_requested().await });
    }
    loop {
        match waiting.join_next().await {
            Some(Ok(file)) => return file,
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// Log what the machine and its kernel say about the configuration; refuse on an error. Code that the gate does not let in is
/// none: a gateway whose plugin nobody vouches for any more must still be able to update the rest (`gateway::placed`).
fn check(config: &Config) -> Result<(), Failed> {
    for warning in config.development.warnings() {
        tracing::warn!("{warning}");
    }
    let (errors, warnings): (Vec<_>, Vec<_>) =
        config::check(config).into_iter().partition(|f| f.is_error);
    for finding in warnings {
        if finding.diagnostic.origin != config::Origin::File {
            tracing::warn!("{}", finding.diagnostic.message);
        }
    }
    refuse(config, errors)?;
    kernel::check(config)
}

/// All of these errors in one, with the places that they are about.
fn refuse(config: &Config, errors: Vec<config::Finding>) -> Result<(), Failed> {
    if errors.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&config.file).unwrap_or_default();
    let diagnostics = errors.into_iter().map(|f| f.diagnostic).collect();
    let error = ConfigError::new(&config.file, &text, diagnostics);
    Err(Failed::new(Exit::Config, error.to_string()))
}

fn access(config: &Config) -> Result<Access, Failed> {
    let group = match &config.daemon.control_group {
        None => None,
        Some(name) => Some(group::id(&name.value).ok_or_else(|| {
            Failed::new(
                Exit::Config,
                format!("no group \"{}\" on this machine", name.value),
            )
        })?),
    };
    Ok(Access {
        owner: rustix::process::geteuid().as_raw(),
        group,
    })
}
