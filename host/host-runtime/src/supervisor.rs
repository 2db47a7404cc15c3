//! A device under tokio: one task owns it, everybody else holds a handle.
//!
//! The task is thin: poll, answer questions, sleep until the next deadline or wake. It connects to nothing and
//! disconnects nothing: whoever owns the connection sends what happens into the mailbox.
//!
//! ```no_run
//! # async fn example(
//! #     config: host_runtime::device::DeviceConfig,
//! #     ports: host_runtime::device::DevicePorts,
//! #     connect: impl Fn(host_runtime::mailbox::Mailbox) -> Box<dyn host_runtime::ports::transport::Transport>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use host_runtime::agent::Command;
//! use host_runtime::supervisor::prepare;
//!
//! let pending = prepare(config, ports)?;
//! let transport = connect(pending.mailbox());
//! let device = pending.start(transport)?;
//! while let Some(news) = device.next_event().await {
//!     if news.event.kind == 0 {
//!         // Installed; this application decides when to restart into it.
//!         device.command(Command::Activate(news.event.file.unwrap_or(0))).await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::agent::text::clean;
use crate::agent::{AgentBuild, Command, Context};
use crate::bandwidth::Bandwidth;
use crate::device::{AgentTrial, Device, DeviceConfig, DeviceError, DevicePorts, PreparedDevice};
use crate::events::{EventRing, StoredEvent};
use crate::history::History;
use crate::mailbox::{Input, Mailbox};
use crate::plugin::PluginFactory;
use crate::ports::clock::Clock;
use crate::ports::transport::Transport;
use crate::ports::workers::Wake;
use crate::status::{AgentLife, DeviceStatus};
use crate::target::SwapReply;
use crate::types::{DETAIL_MAX_BYTES, Failure, FileId, code};

use self::link::{Link, TaskEnd};

pub use self::own::{OwnDevice, Presence};

mod link;
mod own;

/// Longest wait for the medium when a device is stopped, in milliseconds. A sync of a slow card takes seconds; the
/// service manager's patience (90 s) is longer.
const STOP_MAX_MS: u64 = 5000;

/// Check and set up a device; its mailbox exists before its transport does. Needs a tokio runtime only in `start`.
///
/// # Errors
/// [`DeviceError`], never `Refused`.
pub fn prepare(config: DeviceConfig, ports: DevicePorts) -> Result<PendingDevice, DeviceError> {
    let link = Link::new();
    let wake: Wake = {
        let link = Arc::clone(&link);
        Arc::new(move || link.wake())
    };
    let clock = Arc::clone(&ports.clock);
    let prepared = PreparedDevice::new(config, ports, wake)?;
    Ok(PendingDevice {
        name: prepared.name(),
        clock,
        prepared,
        end: TaskEnd(link),
        own: None,
    })
}

impl Device {
    /// The same as [`prepare`].
    ///
    /// # Errors
    /// [`DeviceError`], never `Refused`.
    pub fn prepare(config: DeviceConfig, ports: DevicePorts) -> Result<PendingDevice, DeviceError> {
        prepare(config, ports)
    }
}

/// A device that waits for its transport.
pub struct PendingDevice {
    name: Arc<str>,
    clock: Arc<dyn Clock>,
    prepared: PreparedDevice,
    end: TaskEnd,
    own: Option<OwnDevice>,
}

impl PendingDevice {
    /// The way in, for adapters.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox {
        self.prepared.mailbox()
    }

    /// The device's events. Those that are there before its start are of a former life.
    #[must_use]
    pub fn events(&self) -> EventRing {
        self.prepared.events()
    }

    /// Let it receive no more than its share.
    pub fn join(&mut self, bandwidth: &Bandwidth) {
        self.prepared.join(bandwidth);
    }

    /// Park its agent whenever that has no job and was given no event for so long.
    pub fn park_after(&mut self, quiet: Duration) {
        let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        self.prepared.park_after(quiet_ms);
    }

    /// Let this be the device's own word for it, from its start on.
    pub fn introduce(&mut self, own: OwnDevice) {
        self.own = Some(own);
    }

    /// Whether it is there: for whoever must not set up a second one beside it.
    #[must_use]
    pub fn presence(&self) -> Presence {
        Presence::of(&self.end.0)
    }

    /// Start the agent and the task that owns the device, on the current tokio runtime.
    ///
    /// # Errors
    /// The agent refuses its configuration or its saved state.
    pub fn start(self, transport: Box<dyn Transport>) -> Result<DeviceHandle, DeviceError> {
        let link = Arc::clone(&self.end.0);
        let (mailbox, events) = (self.prepared.mailbox(), self.prepared.events());
        let history = self.prepared.history();
        // The task is moved about before it begins.
        let mut device = Box::new(self.prepared.into_device(transport));
        device.start(context(&*self.clock))?;
        link.show(|seen| {
            seen.trial = device.agent_trial();
            false
        });
        let task = Task {
            device,
            clock: self.clock,
            link: Arc::clone(&link),
            give_up_at_ms: None,
        };
        let watched = Watched {
            name: Arc::clone(&self.name),
            mailbox: mailbox.clone(),
            events: events.clone(),
            end: self.end,
        };
        tokio::spawn(Life {
            task,
            rest: None,
            watched,
        });
        let handle = DeviceHandle(Arc::new(Shared {
            mailbox,
            events,
            history,
            link,
        }));
        if let Some(own) = &self.own {
            own.is(&handle);
        }
        Ok(handle)
    }
}

/// A running device, seen from outside. Clones are the same device; when the last one is gone, the device ends.
#[derive(Clone)]
pub struct DeviceHandle(Arc<Shared>);

/// What all handles of a device share.
struct Shared {
    mailbox: Mailbox,
    events: EventRing,
    history: History,
    link: Arc<Link>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.leave();
    }
}

impl fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceHandle")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// What a device shows without being asked: one place for all of it, for a gateway may have many devices.
#[derive(Default)]
struct Seen {
    /// A target asks for a restart of this process.
    restart: Option<FileId>,
    /// It has been ready at some time.
    ready: bool,
    /// Changes with every turn, and nobody waits for it.
    pulse: Pulse,
    trial: AgentTrial,
    /// The last status, once the device has ended.
    end: Option<Box<DeviceStatus>>,
}

/// What the task of a device was seen doing last, on the device's clock: whether it lives is told from this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Turns so far: each is something that happened, or a deadline that was kept.
    pub turns: u64,
    /// Since when it has been in the turn that it is in; none = it waits.
    pub busy_since_ms: Option<u64>,
    /// When it is due again; none = when something happens.
    pub due_ms: Option<u64>,
}

impl Pulse {
    /// Whether the task does what it has said, as of `now_ms`: it waits and its next deadline lies ahead, or has passed
    /// no longer than `slack_ms` ago, or it has been in its turn no longer than that.
    #[must_use]
    pub fn is_alive(self, now_ms: u64, slack_ms: u64) -> bool {
        match (self.busy_since_ms, self.due_ms) {
            (Some(since), _) => now_ms.saturating_sub(since) <= slack_ms,
            (None, Some(due)) => now_ms.saturating_sub(due) <= slack_ms,
            (None, None) => true,
        }
    }
}

/// Whether a device was ready in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Its agent runs and has asked its targets.
    Ready,
    /// It was not, and has been stopped; or it had ended.
    Stopped,
}

/// A question to the task.
enum Request {
    Status(oneshot::Sender<DeviceStatus>),
    SwapPlugin(Box<PluginSwap>),
    SwapAgent(Box<AgentSwap>),
    FitAgent(Box<(Arc<AgentBuild>, SwapReply)>),
    AskTarget(Box<(String, SwapReply)>),
    /// Of a target's plugin, or of the agent.
    EndTrial(Box<(Option<String>, SwapReply)>),
    Stop,
}

/// Another agent build, or, without one, the build before.
struct AgentSwap {
    build: Option<Arc<AgentBuild>>,
    trial_ms: u64,
    reply: SwapReply,
}

/// Another plugin build for a target, or, without one, the build before.
struct PluginSwap {
    target: String,
    build: Option<Arc<dyn PluginFactory>>,
    reply: SwapReply,
}

impl DeviceHandle {
    /// Thing name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.history.device()
    }

    /// The way in.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox {
        self.0.mailbox.clone()
    }

    /// Everything about it now; of a device that has ended, how it ended.
    pub async fn status(&self) -> DeviceStatus {
        let (reply, answer) = oneshot::channel();
        self.link().ask(Request::Status(reply)).await;
        match answer.await {
            Ok(status) => status,
            Err(_) => self.stopped().await,
        }
    }

    /// Tell the agent what an operator or the application wants.
    ///
    /// # Errors
    /// The agent refused it, or there is none to take it; nothing has changed.
    pub async fn command(&self, command: Command) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        self.0.mailbox.send(Input::Command {
            command,
            reply: Some(Box::new(move |result| {
                // Whoever asked may have gone; the command was followed all the same.
                drop(reply.send(result));
            })),
        });
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(code::UNSUPPORTED, 0, "the device has ended")),
        }
    }

    /// Let another plugin build serve a target, in the middle of whatever it does; without one the build before the
    /// present one. Returns when it serves and knows what the target is about.
    ///
    /// # Errors
    /// It was refused, or sent back before it had done anything: the build that served still does, and nothing was lost.
    pub async fn swap_plugin(
        &self,
        target: &str,
        build: Option<Arc<dyn PluginFactory>>,
    ) -> Result<(), Failure> {
        self.request(|reply| {
            Request::SwapPlugin(Box::new(PluginSwap {
                target: target.to_owned(),
                build,
                reply,
            }))
        })
        .await
    }

    /// Let another agent build serve the device, in the middle of whatever it does; without one the build before the
    /// present one. Returns when it serves. It is on trial until a job has succeeded under it or it has run for so long without
    /// a break ([`Self::trial_over`]).
    ///
    /// # Errors
    /// It was refused, or sent back at once: the build that served still does.
    pub async fn swap_agent(
        &self,
        build: Option<Arc<AgentBuild>>,
        trial: Duration,
    ) -> Result<(), Failure> {
        let trial_ms = u64::try_from(trial.as_millis()).unwrap_or(u64::MAX);
        let swaps = self.agent_trial().swaps;
        self.request(|reply| {
            Request::SwapAgent(Box::new(AgentSwap {
                build,
                trial_ms,
                reply,
            }))
        })
        .await?;
        // The trial is told of after the answer was given; by a device that has ended meanwhile, never.
        let taken_over = |seen: &Seen| (seen.trial.swaps > swaps).then_some(());
        self.link().find(taken_over).await;
        Ok(())
    }

    /// Whether an agent build may take the place of the one that serves, as things are: nothing is tried, and nothing changes.
    ///
    /// # Errors
    /// Why a swap would be refused.
    pub async fn fits_agent(&self, build: Arc<AgentBuild>) -> Result<(), Failure> {
        self.request(|reply| Request::FitAgent(Box::new((build, reply))))
            .await
    }

    /// Have the plugin build that serves a target ask it how it is. One on trial that fails here is sent back, and the
    /// build before it is asked: [`Self::status`] tells which one serves then.
    ///
    /// # Errors
    /// The target cannot be asked.
    pub async fn ask_target(&self, target: &str) -> Result<(), Failure> {
        self.request(|reply| Request::AskTarget(Box::new((target.to_owned(), reply))))
            .await
    }

    /// The plugin build that serves a target, or, without one, the agent build, has proved itself, says whoever put it in:
    /// no break sends it back any more. Returns when that stands on the medium.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn end_trial(&self, target: Option<&str>) -> Result<(), Failure> {
        self.request(|reply| Request::EndTrial(Box::new((target.map(str::to_owned), reply))))
            .await
    }

    async fn request(&self, request: impl FnOnce(SwapReply) -> Request) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may have gone; what was asked for goes on.
        let request = request(Box::new(move |end| drop(reply.send(end))));
        self.link().ask(request).await;
        // If the task has ended, so has the other end of the answer.
        match answer.await {
            Ok(end) => end,
            Err(_) => Err(Failure::new(code::UNSUPPORTED, 0, "the device has ended")),
        }
    }

    /// How the agent build that serves stands.
    #[must_use]
    pub fn agent_trial(&self) -> AgentTrial {
        self.link().look(|seen| seen.trial.clone())
    }

    /// Wait until the agent build that serves is not on trial any more: it has proved itself, or was sent back. None = the
    /// device has ended.
    pub async fn trial_over(&self) -> Option<AgentTrial> {
        let over = |seen: &Seen| (!seen.trial.on_trial).then(|| seen.trial.clone());
        self.link().find(over).await
    }

    /// Application events with numbers above `cursor`, at most `max`; waits until there is one. Empty only when the
    /// device has ended.
    pub async fn events_after(&self, cursor: u64, max: usize) -> Vec<StoredEvent> {
        let events = self.0.events.wait_after(cursor, max).await;
        if events.is_empty() && max > 0 {
            self.stopped().await;
        }
        events
    }

    /// The next application event; asking for it says that the one before has been dealt with, also across restarts.
    /// `None` when the device has ended. For one reader: the application.
    pub async fn next_event(&self) -> Option<StoredEvent> {
        let event = self.0.events.next().await;
        if event.is_none() {
            // Whoever hears it may set up another one at once.
            self.stopped().await;
        }
        event
    }

    /// The ring itself, to look without waiting.
    #[must_use]
    pub fn events(&self) -> EventRing {
        self.0.events.clone()
    }

    /// Its past jobs, and what it waited for last.
    #[must_use]
    pub fn history(&self) -> History {
        self.0.history.clone()
    }

    /// What its task was seen doing last. None = it has ended.
    #[must_use]
    pub fn pulse(&self) -> Option<Pulse> {
        let pulse = |seen: &Seen| seen.end.is_none().then_some(seen.pulse);
        self.link().look(pulse)
    }

    /// Wait until the device is ready, at most so long; `None` = as long as it takes. One that is not ready in time is
    /// stopped, so that nothing is left half started: OTA_Init with its waiting time.
    pub async fn ready(&self, within: Option<Duration>) -> Readiness {
        let is_ready = |seen: &Seen| seen.ready.then_some(());
        let wait = async { self.link().find(is_ready).await.is_some() };
        let in_time = match within {
            Some(within) => tokio::time::timeout(within, wait).await.unwrap_or(false),
            None => wait.await,
        };
        if in_time {
            return Readiness::Ready;
        }
        self.stop().await;
        Readiness::Stopped
    }

    /// Wait until a target asks for a restart of this process (file 0 may be otad itself). Everything of the update is
    /// on disk by then.
    pub async fn restart_requested(&self) -> FileId {
        match self.link().find(|seen| seen.restart).await {
            Some(file) => file,
            // The device has ended: it will ask for nothing.
            None => std::future::pending().await,
        }
    }

    /// End the device without telling its agent: what it does goes on from its journal at the next start. To shut an
    /// agent down for good, send [`Command::Shutdown`].
    pub async fn stop(&self) -> DeviceStatus {
        // It may have ended already.
        self.link().ask(Request::Stop).await;
        self.stopped().await
    }

    /// Wait until the device has ended, stopped or its agent shut down, and has let go of everything. Gives its last status.
    pub async fn stopped(&self) -> DeviceStatus {
        self.link().closed().await;
        let end = self.link().look(|seen| seen.end.as_deref().cloned());
        // The task was aborted with its runtime: nothing is known.
        end.unwrap_or_else(|| DeviceStatus {
            device: self.name().to_owned(),
            ..DeviceStatus::default()
        })
    }

    fn link(&self) -> &Link {
        &self.0.link
    }
}

/// What outlives a device, to say how it ended if it could not say so itself.
struct Watched {
    name: Arc<str>,
    mailbox: Mailbox,
    events: EventRing,
    end: TaskEnd,
}

impl Watched {
    fn tell(&self, panic: &(dyn Any + Send)) {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let why = clean(words.unwrap_or("no words"), DETAIL_MAX_BYTES);
        let text = format!(
            "the device's task broke: {why}; its update goes on when this process is started again"
        );
        tracing::error!(device = %self.name, "{text}");
        self.mailbox.close();
        self.events.end();
        let mut status = DeviceStatus {
            device: self.name.to_string(),
            last_error: Some(text),
            ..DeviceStatus::default()
        };
        status.agent.life = AgentLife::Broken;
        self.end.0.show(|seen| {
            seen.end = Some(Box::new(status));
            true
        });
    }
}

/// What a tokio task does for a device: its turns, and a sleep between two of them. Written by hand, for it lies there as long
/// as the device does: what an `async fn` waits for would have room in it for ever.
struct Life {
    /// First, so that nothing of the device is left when its end is told.
    task: Task,
    /// It waits, until this if there is a deadline.
    rest: Option<Rest>,
    watched: Watched,
}

/// Between two turns.
#[derive(Default)]
struct Rest {
    until: Option<Pin<Box<Sleep>>>,
}

impl Future for Life {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(rest) = &mut this.rest
            && !this.task.link.is_woken(cx.waker())
            && !rest.is_over(cx)
        {
            return Poll::Pending;
        }
        // After a panic the device is not touched again.
        let turn = catch_unwind(AssertUnwindSafe(|| this.task.turn()));
        match turn {
            Ok(Next::Turn) => {
                this.rest = None;
                // Others come first.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(Next::Rest(sleep_ms)) => {
                let rest = this.rest.get_or_insert_default();
                rest.begin(sleep_ms);
                if this.task.link.is_woken(cx.waker()) || rest.is_over(cx) {
                    this.rest = None;
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Ok(Next::End) => Poll::Ready(()),
            Err(panic) => {
                this.watched.tell(&*panic);
                Poll::Ready(())
            }
        }
    }
}

impl Rest {
    fn begin(&mut self, sleep_ms: Option<u64>) {
        let sleep = sleep_ms.map(|ms| tokio::time::sleep(Duration::from_millis(ms)));
        match (&mut self.until, sleep) {
            (Some(until), Some(sleep)) => until.set(sleep),
            (until, sleep) => *until = sleep.map(Box::pin),
        }
    }

    fn is_over(&mut self, cx: &mut task::Context<'_>) -> bool {
        let until = self.until.as_mut();
        until.is_some_and(|until| until.as_mut().poll(cx).is_ready())
    }
}

/// What comes after a turn.
enum Next {
    /// Another one, at once.
    Turn,
    /// Nothing for so many milliseconds, or until something happens.
    Rest(Option<u64>),
    /// The device has ended.
    End,
}

/// What a device needs to live.
struct Task {
    device: Box<Device>,
    clock: Arc<dyn Clock>,
    link: Arc<Link>,
    /// It ends when everything is on the medium, or now.
    give_up_at_ms: Option<u64>,
}

impl Task {
    fn turn(&mut self) -> Next {
        let now = context(&*self.clock);
        self.beat(|pulse| {
            pulse.turns += 1;
            pulse.busy_since_ms = Some(now.now_ms);
        });
        let next = self.device.poll(now);
        self.show_news();
        if self.device.is_stopped() && self.give_up_at_ms.is_none() {
            self.give_up(now);
            return Next::Turn;
        }
        if let Some(at) = self.give_up_at_ms
            && (self.device.is_quiet() || at <= now.now_ms)
        {
            self.end();
            return Next::End;
        }
        let mut asked = false;
        // Also when the device has always something to do.
        while let Some(request) = self.link.take() {
            self.answer(now, request);
            asked = true;
        }
        if self.link.is_left() {
            asked |= self.give_up_at_ms.is_none();
            self.give_up(now);
        }
        // What was asked for is begun by the next poll, and a device that was told to stop has something to write.
        if asked || next.is_some_and(|at| at <= now.now_ms) {
            return Next::Turn;
        }
        let until = [next, self.give_up_at_ms].into_iter().flatten().min();
        self.beat(|pulse| {
            pulse.busy_since_ms = None;
            pulse.due_ms = until;
        });
        Next::Rest(until.map(|at| at.saturating_sub(now.now_ms)))
    }

    fn end(&mut self) {
        self.device.mailbox().close();
        self.device.events().end();
        let status = self.device.status(context(&*self.clock));
        self.link.show(|seen| {
            seen.end = Some(Box::new(status));
            true
        });
    }

    fn beat(&self, change: impl FnOnce(&mut Pulse)) {
        self.link.show(|seen| {
            change(&mut seen.pulse);
            false
        });
    }

    /// Show what others wait for; they are told if there is news.
    fn show_news(&mut self) {
        let restart = self.device.restart_requested();
        let is_ready = self.device.is_ready();
        let trial = self.device.agent_trial();
        self.link.show(|seen| {
            let ready = seen.ready || is_ready;
            let news = (seen.restart, seen.ready) != (restart, ready) || seen.trial != trial;
            (seen.restart, seen.ready, seen.trial) = (restart, ready, trial);
            news
        });
    }

    fn answer(&mut self, now: Context, request: Request) {
        match request {
            // Whoever asked may have gone.
            Request::Status(reply) => drop(reply.send(self.device.status(now))),
            Request::SwapPlugin(swap) => {
                let PluginSwap {
                    target,
                    build,
                    reply,
                } = *swap;
                self.device.swap_plugin(now, &target, build, reply);
            }
            Request::SwapAgent(swap) => {
                let AgentSwap {
                    build,
                    trial_ms,
                    reply,
                } = *swap;
                self.device.swap_agent(now, build, trial_ms, reply);
            }
            Request::FitAgent(question) => {
                let (build, reply) = *question;
                reply(self.device.fits_agent(&build));
            }
            Request::AskTarget(question) => {
                let (target, reply) = *question;
                self.device.ask_target(now, &target, reply);
            }
            Request::EndTrial(word) => {
                let (target, reply) = *word;
                self.device.end_trial(now, target.as_deref(), reply);
            }
            Request::Stop => self.give_up(now),
        }
    }

    /// End as soon as everything is on the medium, or after [`STOP_MAX_MS`].
    fn give_up(&mut self, now: Context) {
        if self.give_up_at_ms.is_none() {
            self.give_up_at_ms = Some(now.now_ms + STOP_MAX_MS);
            self.device.last_words(now);
        }
    }
}

fn context(clock: &dyn Clock) -> Context {
    Context {
        now_ms: clock.now_ms(),
        wall_s: clock.wall_s(),
    }
}

#[cfg(test)]
mod tests;
