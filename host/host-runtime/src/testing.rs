//! Doubles for the unit tests of this crate: a state directory in memory, workers that run when told, an agent that does
//! what the test says, a transport that writes down what it is asked for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::agent::{
    AgentBuild, AgentInstance, AgentStatus, Context, Description, Event, Outside, Saved, StartInfo,
    Turn, Wait,
};
use crate::desk::Desk;
use crate::engine::GuestFault;
use crate::ports::clock::Clock;
use crate::ports::commands::{Command, CommandEnd, Commands};
use crate::ports::seed::Seed;
use crate::ports::state_dir::StateDir;
use crate::ports::transport::Transport;
use crate::ports::workers::{Reply, Wake, Work, Workers};
use crate::status::WAIT_JOB;
use crate::types::{Blob, Failure, Qos, Token};

/// Wakes nobody.
pub(crate) fn no_wake() -> Wake {
    Arc::new(|| {})
}

/// The desk of a device that nobody wakes.
pub(crate) fn desk(device: &str, state: &Arc<FakeState>, workers: &Arc<StepWorkers>) -> Arc<Desk> {
    Arc::new(Desk {
        device: device.into(),
        state: Arc::clone(state) as _,
        workers: Arc::clone(workers) as _,
        commands: Arc::new(NoCommands),
        clock: Arc::new(StoppedClock),
        wake: no_wake(),
    })
}

/// A state directory in memory that fails when told.
#[derive(Debug, Default)]
pub(crate) struct FakeState {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    errno: Mutex<Option<i32>>,
    writes: Mutex<usize>,
}

impl FakeState {
    /// From now on every write fails with this errno.
    pub(crate) fn fail_with(&self, errno: Option<i32>) {
        *self.errno.lock().unwrap() = errno;
    }

    /// Writes so far, failed ones too.
    pub(crate) fn writes(&self) -> usize {
        *self.writes.lock().unwrap()
    }

    fn write(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> io::Result<()> {
        *self.writes.lock().unwrap() += 1;
        match *self.errno.lock().unwrap() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                change(&mut self.files.lock().unwrap());
                Ok(())
            }
        }
    }
}

impl StateDir for FakeState {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().unwrap().get(name).cloned())
    }

    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(|files| {
            files.insert(name.to_owned(), bytes.to_vec());
        })
    }

    fn append(&self, name: &str, bytes: &[u8], _sync: bool) -> io::Result<()> {
        self.write(|files| {
            files
                .entry(name.to_owned())
                .or_default()
                .extend_from_slice(bytes);
        })
    }

    fn settle(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.write(|files| {
            files.remove(name);
        })
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        Ok(files
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect())
    }
}

/// Workers that run one piece of work each time they are told.
#[derive(Default)]
pub(crate) struct StepWorkers(Mutex<VecDeque<Work>>);

impl StepWorkers {
    /// Run the oldest work; false if there is none.
    pub(crate) fn run_one(&self) -> bool {
        let work = self.0.lock().unwrap().pop_front();
        let ran = work.is_some();
        if let Some(work) = work {
            work();
        }
        ran
    }

    /// The worker of the oldest work dies before it has done anything.
    pub(crate) fn bury_one(&self) {
        drop(self.0.lock().unwrap().pop_front());
    }

    /// How much waits.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Workers for StepWorkers {
    fn run(&self, work: Work) {
        self.0.lock().unwrap().push_back(work);
    }
}

/// What a [`puppet`] does with an event.
pub(crate) type React = Box<dyn FnMut(&mut dyn Outside, &Event) -> Result<Turn, GuestFault> + Send>;

/// What a [`puppet`] does when it is started.
pub(crate) type OnStart =
    Box<dyn FnMut(&StartInfo) -> Result<Result<Turn, Failure>, GuestFault> + Send>;

/// What a [`puppet`] asks of the outside while it is started.
pub(crate) type AtStart = Box<dyn FnMut(&mut dyn Outside) + Send>;

/// What the instances of a puppet saw, and how they are to react.
pub(crate) struct Strings {
    /// `start …`, and every event, as text.
    pub(crate) seen: Vec<String>,
    /// The infos they were started with.
    pub(crate) starts: Vec<StartInfo>,
    /// The times that they were told at their starts, in milliseconds.
    pub(crate) started_ms: Vec<u64>,
    /// The reaction to events.
    pub(crate) react: React,
    /// The turn of a start, or why it is refused; a trap if an error.
    pub(crate) on_start: OnStart,
    /// What else it does then.
    pub(crate) at_start: AtStart,
    /// What the status function says.
    pub(crate) status: AgentStatus,
    /// Snapshots taken so far.
    pub(crate) snapshots: u32,
    /// Bytes that a snapshot has beside their number.
    pub(crate) snapshot_bytes: usize,
}

impl Default for Strings {
    fn default() -> Self {
        Self {
            seen: Vec::new(),
            starts: Vec::new(),
            started_ms: Vec::new(),
            react: Box::new(|_, _| Ok(idle())),
            on_start: Box::new(|_| Ok(Ok(idle()))),
            at_start: Box::new(|_| {}),
            status: AgentStatus::default(),
            snapshots: 0,
            snapshot_bytes: 0,
        }
    }
}

/// The turn of an agent that waits for a job.
pub(crate) fn idle() -> Turn {
    Turn {
        wait: Some(Wait {
            reason: WAIT_JOB,
            detail: "a job".into(),
            since_ms: 0,
            tries: 0,
            gives_up_ms: None,
            last_error: None,
        }),
        ..Turn::default()
    }
}

/// The same turn with a changed status.
pub(crate) fn changed(state: u8, job: Option<&str>) -> Turn {
    Turn {
        status: Some(AgentStatus {
            state,
            job_id: job.map(str::to_owned),
            ..AgentStatus::default()
        }),
        ..idle()
    }
}

/// A trap.
pub(crate) fn trap() -> GuestFault {
    GuestFault::Trapped("unreachable".into())
}

/// An agent on strings: what it does is decided by the test that holds them.
pub(crate) fn puppet() -> (Arc<AgentBuild>, Arc<Mutex<Strings>>) {
    puppet_of("test", &[3, 2])
}

/// The same as a build of its own.
pub(crate) fn puppet_of(label: &str, schemas: &[u32]) -> (Arc<AgentBuild>, Arc<Mutex<Strings>>) {
    struct Puppet(Box<dyn Outside>, Arc<Mutex<Strings>>);

    impl AgentInstance for Puppet {
        fn start(
            &mut self,
            context: Context,
            info: StartInfo,
        ) -> Result<Result<Turn, Failure>, GuestFault> {
            let mut strings = self.1.lock().unwrap();
            let saved = match &info.saved {
                Saved::None => "nothing".to_owned(),
                Saved::Journal(blob) => format!("journal {}", text(&blob.bytes)),
                Saved::Snapshot(blob) => format!("snapshot {}", text(&blob.bytes)),
            };
            strings.seen.push(format!("start from {saved}"));
            (strings.at_start)(&mut *self.0);
            let end = (strings.on_start)(&info);
            strings.starts.push(info);
            strings.started_ms.push(context.now_ms);
            end
        }

        fn handle(&mut self, _: Context, event: Event) -> Result<Turn, GuestFault> {
            let mut strings = self.1.lock().unwrap();
            strings.seen.push(format!("{event:?}"));
            (strings.react)(&mut *self.0, &event)
        }

        fn status(&mut self) -> Result<AgentStatus, GuestFault> {
            Ok(self.1.lock().unwrap().status.clone())
        }

        fn snapshot(&mut self, _: Context) -> Result<Blob, GuestFault> {
            let mut strings = self.1.lock().unwrap();
            strings.snapshots += 1;
            let last = strings.starts.last();
            let filling = " ".repeat(strings.snapshot_bytes);
            Ok(Blob {
                schema: last.map_or(3, |info| info.schema),
                ..blob(&format!("{}{filling}", strings.snapshots))
            })
        }

        fn memory_bytes(&mut self) -> usize {
            0
        }
    }

    let strings = Arc::new(Mutex::new(Strings::default()));
    let description = Description {
        name: "puppet".into(),
        version: "1.0.0".into(),
        schemas: schemas.to_vec(),
    };
    let held = Arc::clone(&strings);
    let build = AgentBuild::native(label, description, move |outside| {
        Ok(Box::new(Puppet(outside, Arc::clone(&held))))
    });
    (build, strings)
}

/// Saved state that says this.
pub(crate) fn blob(text: &str) -> Blob {
    Blob {
        schema: 3,
        bytes: text.as_bytes().to_vec(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A transport that writes down what it is asked for.
#[derive(Clone, Default)]
pub(crate) struct Wire(pub(crate) Arc<Mutex<Vec<String>>>);

impl Wire {
    fn line(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Transport for Wire {
    fn subscribe(&mut self, token: Token, filter: &str, _: Qos) {
        self.line(format!("{token} subscribe {filter}"));
    }

    fn unsubscribe(&mut self, token: Token, filter: &str) {
        self.line(format!("{token} unsubscribe {filter}"));
    }

    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, _: Qos) {
        self.line(format!("{token} publish {topic} {} bytes", payload.len()));
    }

    fn http_get(&mut self, token: Token, url: &str, offset: u64, length: u32) {
        self.line(format!("{token} get {url} {offset}+{length}"));
    }

    fn cancel(&mut self, token: Token) {
        self.line(format!("cancel {token}"));
    }
}

/// Runs no program.
pub(crate) struct NoCommands;

impl Commands for NoCommands {
    fn run(&self, _: &Command, _: &[(String, String)], reply: Reply<CommandEnd>) {
        reply(CommandEnd {
            code: None,
            stdout: Vec::new(),
            detail: "no programs here".into(),
        });
    }
}

/// A clock that stands still.
pub(crate) struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        0
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }
}

/// Seeds 1, 2, 3, …
#[derive(Default)]
pub(crate) struct CountingSeed(AtomicU64);

impl Seed for CountingSeed {
    fn seed(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}
