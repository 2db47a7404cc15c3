//! The signals that end the daemon or have it read its configuration again, on a thread of their own: they count also when
//! every thread of the runtime waits for a medium, and while the runtime itself is shut down.
//!
//! ```text
//! SIGHUP ─▶ counted
//! signal ─▶ stopping ─┬─▶ everything ended: the process does, and this thread with it
//!                     ├─▶ a second signal ─▶ exit at once
//!                     └─▶ END_MAX is over ─▶ exit at once
//! ```
//!
//! What is cut off goes on from journal and records at the next start, as after a power cut.

use std::time::Duration;

use host_runtime::ports::commands;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failed};

/// From the decision to end until the process is made to: devices and connections (15 s), their threads (1 s), workers (5 s),
/// and room.
/// Service managers wait 90 s before they kill.
const END_MAX: Duration = Duration::from_secs(25);

/// What the daemon sees of the signals.
pub(super) struct Signals {
    /// The first one.
    first: watch::Receiver<Option<&'static str>>,
    /// How often SIGHUP came.
    reloads: watch::Receiver<u64>,
    /// Says that the daemon ends for another reason.
    ending: watch::Sender<bool>,
}

impl Signals {
    /// Listen from now on.
    ///
    /// # Errors
    /// The system refuses a thread or a handler.
    pub(super) fn listen() -> Result<Self, Failed> {
        let failed = |e| Failed::chain(Exit::Failed, "listening for signals", &e);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (mut both, mut hangup) = {
            let _inside = runtime.enter();
            let both = Both {
                terminate: signal(SignalKind::terminate()).map_err(failed)?,
                interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            };
            (both, signal(SignalKind::hangup()).map_err(failed)?)
        };
        let (first_out, first) = watch::channel(None);
        let (reloads_out, reloads) = watch::channel(0_u64);
        let (ending, mut ending_in) = watch::channel(false);
        let wait = async move {
            loop {
                tokio::select! {
                    name = both.next() => {
                        first_out.send_replace(Some(name));
                        break;
                    }
                    // An error is the daemon gone, which is an end too.
                    _ = ending_in.wait_for(|ending| *ending) => break,
                    _ = hangup.recv() => reloads_out.send_modify(|n| *n += 1),
                }
            }
            tokio::select! {
                name = both.next() => tracing::warn!("{name} while stopping: ended at once"),
                () = tokio::time::sleep(END_MAX) => {
                    tracing::error!("not ended within {} s: ended at once", END_MAX.as_secs());
                }
            }
            commands::kill_all();
            std::process::exit(Exit::Failed.code().into());
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(wait))
            .map_err(failed)?;
        Ok(Self {
            first,
            reloads,
            ending,
        })
    }

    /// A SIGHUP since the last [`heard`](Self::heard).
    pub(super) async fn reload(&self) {
        if self.reloads.clone().changed().await.is_err() {
            // The thread ends only with the process.
            std::future::pending::<()>().await;
        }
    }

    /// Those that came until now are followed by what is done next.
    pub(super) fn heard(&mut self) {
        self.reloads.mark_unchanged();
    }

    /// The first signal.
    pub(super) async fn next(&self) -> &'static str {
        let mut first = self.first.clone();
        match first.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            // The thread ends only with the process.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// From now on the process has [`END_MAX`] to end, and a signal ends it at once.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }
}

struct Both {
    terminate: Signal,
    interrupt: Signal,
}

impl Both {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
