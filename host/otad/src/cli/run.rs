//! `otad run`.

use std::time::Duration;

use host_runtime::ports::commands;

use super::args::{COMPILE_CPU_S, GuestArg, RunArgs};
use super::load;
use crate::console;
use crate::daemon::{self, Threads};
use crate::exit::{Exit, Failed, Verb};
use crate::gateway::{Witnesses, native};

/// Threads for what must not wait for devices, which have [their own](Threads), as have hashing and fsync.
const WORKER_THREADS: usize = 1;

/// How long work that is under way at the end (a sync, reading an image back) may take before it is cut off. It keeps
/// the lock of the state directory until it has ended or the process has, so that it never meets the next daemon.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

pub(super) fn follow(args: &RunArgs) -> Verb {
    let config = load(&args.config)?;
    let filter = args.log.as_deref().unwrap_or(&config.daemon.log);
    console::start(filter, args.log_format)?;
    let candidate = args.shadow.as_deref();
    let candidate = candidate.map(|path| GuestArg::at(path)?.load_agent(COMPILE_CPU_S));
    let witnesses = Witnesses {
        record: args.record.clone(),
        candidate: candidate.transpose()?,
    };
    if let Some(starter) = native::starter() {
        commands::start_through(starter);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|e| Failed::chain(Exit::Failed, "starting the runtime", &e))?;
    let threads = Threads::default();
    let ended = runtime.block_on(daemon::run(config, args.log.is_some(), witnesses, &threads));
    threads.end();
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    ended
}
