//! The one thread that starts programs. One that is to die with this process dies with the *thread* that started it
//! (prctl(2), `PR_SET_PDEATHSIG`), and a runtime's threads come and go: where one is held up another takes over its tasks, and
//! the first one ends when it has had nothing to do for a while. This one ends with the process. Not here: what a program
//! finds (`child.rs`).

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::group::Group;

/// Programs that may wait to be started, which takes a millisecond each; who comes then waits his turn.
const STARTS_MAX: usize = 16;

/// A program that runs, and the group that it leads: killed where nobody takes it.
pub(super) type Started = (Child, Option<Group>);

struct Start {
    command: Command,
    /// Looks after the child.
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Started>>,
}

/// Start a program as a child of the current runtime.
pub(super) async fn start(command: Command) -> io::Result<Started> {
    let gone = || io::Error::other("the thread that starts programs has ended");
    let (reply, started) = oneshot::channel();
    let start = Start {
        command,
        runtime: Handle::current(),
        reply,
    };
    let starts = starts()?;
    starts.send(start).await.map_err(|_| gone())?;
    started.await.map_err(|_| gone())?
}

/// The way to the thread; it is begun with the first program.
fn starts() -> io::Result<mpsc::Sender<Start>> {
    static STARTS: Mutex<Option<mpsc::Sender<Start>>> = Mutex::new(None);
    let mut place = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(starts) = place.as_ref().filter(|starts| !starts.is_closed()) {
        return Ok(starts.clone());
    }
    let (starts, inbox) = mpsc::channel(STARTS_MAX);
    thread::Builder::new()
        .name("otad-starter".into())
        .spawn(move || serve(inbox))?;
    *place = Some(starts.clone());
    Ok(starts)
}

fn serve(mut inbox: mpsc::Receiver<Start>) {
    while let Some(start) = inbox.blocking_recv() {
        let Start {
            mut command,
            runtime,
            reply,
        } = start;
        let _runtime = runtime.enter();
        let started = command.spawn().map(|child| {
            let group = Group::of(&child);
            (child, group)
        });
        // Whoever asked may have gone; then the group is killed here.
        drop(reply.send(started));
    }
}
