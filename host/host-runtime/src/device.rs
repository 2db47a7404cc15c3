//! One device: an agent, its targets, and everything that stays when the agent is restarted.
//!
//! ```text
//!            Mailbox ──┐                      ┌── Transport
//!   commands, messages │   ┌──────────────┐   │   Workers, Commands
//!   ───────────────────┴──▶│    Device    │───┴──▶ StateDir
//!        poll(now) ───────▶│ slot │ host  │
//!        ◀── next wake ────│ agent│targets│
//!                          └──────────────┘
//! ```
//!
//! A device is a machine without a clock, threads or sockets: it is told the time with every call, and says when it
//! wants to be called again. So the same device runs under tokio (`supervisor.rs`) and in a simulated world. Events
//! reach the agent one at a time and in order; an operation's end never before the call that began it has returned.
//! Not here: what an agent or a topic means.

use std::sync::Arc;

use crate::agent::{
    AgentBuild, AgentConfig, AgentSlot, Context, Event, Saved, Stamp, StartEnd, StartInfo, Target,
};
use crate::events::EventRing;
use crate::journal::{Found, Journal};
use crate::mailbox::{Input, Mailbox};
use crate::names::component;
use crate::ports::clock::Clock;
use crate::ports::commands::Commands;
use crate::ports::seed::Seed;
use crate::ports::state_dir::StateDir;
use crate::ports::transport::Transport;
use crate::ports::workers::{Wake, Workers};
use crate::status::{
    AgentReport, Counters, DeviceStatus, FileReport, STATE_NAMES, WaitReport, name,
};
use crate::target::{TargetConfig, TargetError, TargetEvent, TargetPorts, Targets};
use crate::types::{Failure, FileId, Outcome, Qos, Setting, code};

use self::host::{Door, Host};
use self::token::Owner;

mod host;
mod log;
mod token;

/// Events that one poll gives to the agent, so that other tasks get their turn: some 0.2 ms of blocks.
const EVENTS_PER_POLL: usize = 64;

/// Longest thing name, in bytes; the limit of AWS IoT.
const NAME_MAX_BYTES: usize = 128;

/// What an operator configures for one device.
pub struct DeviceConfig {
    /// Thing name, 1 to 128 of `[a-zA-Z0-9:_-]`.
    pub name: String,
    /// The agent that serves it.
    pub agent: Arc<AgentBuild>,
    /// Device-wide settings for the agent.
    pub settings: Vec<Setting>,
    /// Its targets.
    pub targets: Vec<TargetConfig>,
    /// Topic prefixes that are this device's own, such as `$aws/things/NAME/`. The agent may use no other topic.
    pub topics: Vec<String>,
}

/// What a device needs from the world, beside its transport.
#[derive(Clone)]
pub struct DevicePorts {
    /// Journals, events, transfer records.
    pub state: Arc<dyn StateDir>,
    /// What takes long.
    pub workers: Arc<dyn Workers>,
    /// The operator's programs.
    pub commands: Arc<dyn Commands>,
    /// Lent to plugins; the device itself is told the time.
    pub clock: Arc<dyn Clock>,
    /// One for each start of an agent.
    pub seed: Arc<dyn Seed>,
}

/// Why a device cannot be made or started.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The configuration contradicts itself.
    #[error("device `{device}`: {reason}")]
    Config {
        /// The device.
        device: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A target cannot be set up.
    #[error("device `{device}`")]
    Target {
        /// The device.
        device: String,
        /// Which and why.
        #[source]
        source: TargetError,
    },
    /// The state directory cannot be read.
    #[error("device `{device}`: the {what} cannot be read from the state directory")]
    State {
        /// The device.
        device: String,
        /// Journal or events.
        what: &'static str,
        /// What the medium says.
        #[source]
        source: std::io::Error,
    },
    /// The agent refused its configuration or its saved state.
    #[error("device `{device}`: the agent refuses to start")]
    Refused {
        /// The device.
        device: String,
        /// Its words.
        #[source]
        source: Failure,
    },
}

/// The connection, as far as the device knows.
#[derive(Debug, Default)]
struct Connection {
    /// There is one; true = the broker kept the session.
    up: Option<bool>,
    /// Changes so far.
    changes: u64,
    /// How the last one ended, if one has.
    last_end: Option<(u32, String)>,
}

/// Everything of a device but its transport: the mailbox exists before the transport does.
pub struct PreparedDevice {
    name: String,
    topics: Vec<String>,
    slot_build: Arc<AgentBuild>,
    config: AgentConfig,
    targets: Targets,
    journal: Journal,
    journal_damaged: bool,
    events: EventRing,
    mailbox: Mailbox,
    ports: DevicePorts,
}

impl PreparedDevice {
    /// Check the configuration, read the state directory, set up the targets. `wake` is called from any thread when
    /// [`Device::poll`] has something to do.
    ///
    /// # Errors
    /// [`DeviceError`], never `Refused`.
    pub fn new(config: DeviceConfig, ports: DevicePorts, wake: Wake) -> Result<Self, DeviceError> {
        check(&config)?;
        let device = config.name;
        let targets = Targets::new(
            &device,
            config.targets,
            TargetPorts {
                state: Arc::clone(&ports.state),
                workers: Arc::clone(&ports.workers),
                commands: Arc::clone(&ports.commands),
                clock: Arc::clone(&ports.clock),
                wake: Arc::clone(&wake),
            },
        )
        .map_err(|source| DeviceError::Target {
            device: device.clone(),
            source,
        })?;
        let unreadable = |what| {
            let device = device.clone();
            move |source| DeviceError::State {
                device,
                what,
                source,
            }
        };
        let prefix = format!("devices/{}", component(&device));
        let (journal, found) = Journal::load(
            format!("{prefix}/journal"),
            Arc::clone(&ports.state),
            Arc::clone(&ports.workers),
            Arc::clone(&wake),
        )
        .map_err(unreadable("journal"))?;
        let events = EventRing::load(
            &prefix,
            Arc::clone(&ports.state),
            Arc::clone(&ports.workers),
            Arc::clone(&wake),
        )
        .map_err(unreadable("event ring"))?;
        let config_for_agent = AgentConfig {
            device: device.clone(),
            settings: config.settings,
            targets: targets
                .agent_settings()
                .map(|(name, file, settings)| Target {
                    file,
                    name: name.to_owned(),
                    settings: settings.to_vec(),
                })
                .collect(),
        };
        Ok(Self {
            name: device,
            topics: config.topics,
            slot_build: config.agent,
            config: config_for_agent,
            targets,
            journal,
            journal_damaged: found == Found::Damaged,
            events,
            mailbox: Mailbox::new(wake),
            ports,
        })
    }

    /// The way in, for adapters.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    /// The application's events.
    #[must_use]
    pub fn events(&self) -> EventRing {
        self.events.clone()
    }

    /// Give it its transport. The agent is started by [`Device::start`].
    #[must_use]
    pub fn into_device(self, transport: Box<dyn Transport>) -> Device {
        let door = Door::new(Host::new(
            self.name.clone(),
            self.topics,
            transport,
            self.targets,
            self.journal,
            self.events,
        ));
        let inside = door.clone();
        let slot = AgentSlot::new(
            &self.name,
            self.slot_build,
            Box::new(move || Box::new(inside.clone())),
        );
        let last_error = self.journal_damaged.then(|| {
            let text =
                "the journal was damaged and has been put aside; targets and job service are asked";
            tracing::error!(device = %self.name, "{text}");
            text.to_owned()
        });
        Device {
            name: self.name,
            config: self.config,
            door,
            slot,
            mailbox: self.mailbox,
            seed: self.ports.seed,
            connection: Connection::default(),
            restart_requested: None,
            delivered: 0,
            dropped_before_job: 0,
            job: None,
            last_error,
        }
    }
}

/// A device.
pub struct Device {
    name: String,
    config: AgentConfig,
    door: Door,
    slot: AgentSlot,
    mailbox: Mailbox,
    seed: Arc<dyn Seed>,
    connection: Connection,
    restart_requested: Option<FileId>,
    /// Events given to the agent so far.
    delivered: u64,
    /// Messages dropped by the mailbox before the active job.
    dropped_before_job: u64,
    job: Option<String>,
    last_error: Option<String>,
}

impl Device {
    /// Start the agent. A trap is no error: it is tried again.
    ///
    /// # Errors
    /// The agent refuses its configuration or its journal; nothing has changed.
    pub fn start(&mut self, now: Context) -> Result<(), DeviceError> {
        self.door.lock().now = now;
        let journal = self.door.lock().journal.current().cloned();
        let saved = journal.map_or(Saved::None, Saved::Journal);
        let info = self.start_info(saved);
        match self.slot.start(now, info) {
            StartEnd::Started => {
                self.after_turn(now, true);
                Ok(())
            }
            StartEnd::Broken(_) => Ok(()),
            StartEnd::Refused(source) => Err(DeviceError::Refused {
                device: self.name.clone(),
                source,
            }),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Context, input: Input) {
        self.door.lock().now = now;
        self.revive(now);
        match input {
            Input::Connected { session_present } => {
                self.connection.up = Some(session_present);
                self.connection.changes += 1;
                self.deliver(now, Event::Connected(session_present));
            }
            Input::Disconnected { reason, detail } => {
                self.connection.up = None;
                self.connection.changes += 1;
                self.connection.last_end = Some((reason, detail.clone()));
                self.deliver(now, Event::Disconnected { reason, detail });
            }
            Input::Message {
                topic,
                payload,
                qos: Qos::AtMostOnce | Qos::AtLeastOnce,
            } => {
                let payload = payload.into();
                self.deliver(now, Event::Message { topic, payload });
            }
            Input::Done { token, outcome } => {
                self.deliver_done(now, token, outcome, &[Owner::Transport, Owner::Http]);
            }
            Input::HttpResponse {
                token,
                status,
                total,
                body,
            } => {
                if self.close(token, &[Owner::Http]) {
                    let body = body.into();
                    self.deliver(
                        now,
                        Event::HttpResponse {
                            token,
                            status,
                            total,
                            body,
                        },
                    );
                }
            }
            Input::TargetRestarted(file) => {
                self.deliver(now, Event::TargetRestarted(file));
            }
            Input::Command { command, reply } => {
                let answer = self.deliver(now, Event::Command(command));
                if let Some(reply) = reply {
                    reply(answer.map_or(Ok(()), Err));
                }
            }
            Input::Allowance(rate) => {
                self.deliver(now, Event::Allowance(rate));
            }
            Input::Custom { name, bytes } => {
                let bytes = bytes.into();
                let event = Event::Custom {
                    name: name.clone(),
                    bytes,
                };
                if let Some(failure) = self.deliver(now, event) {
                    tracing::warn!(device = %self.name, value = %name, "value refused: {failure}");
                }
            }
        }
    }

    /// Do what is due: what waits in the mailbox, what has ended, deadlines, a restart of a broken agent. Returns when
    /// to poll again at the latest; `None` = when woken.
    pub fn poll(&mut self, now: Context) -> Option<u64> {
        self.door.lock().now = now;
        let before = self.delivered;
        self.revive(now);
        let next = self.poll_host(now);
        for _ in 0..EVENTS_PER_POLL {
            match self.mailbox.take() {
                Some(input) => self.handle(now, input),
                None => break,
            }
        }
        // After the messages: what has come in time is not asked for again.
        if self.slot.deadline_ms().is_some_and(|at| at <= now.now_ms) {
            self.deliver(now, Event::Timeout);
        }
        if self.delivered != before || !self.mailbox.is_empty() {
            // An event may have begun what is over already.
            return Some(now.now_ms);
        }
        [next, self.slot.deadline_ms(), self.slot.retry_at_ms()]
            .into_iter()
            .fold(None, earliest)
    }

    /// The way in.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    /// The application's events.
    #[must_use]
    pub fn events(&self) -> EventRing {
        self.door.lock().events.clone()
    }

    /// Whether everything that was to be stored is on the medium.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let host = self.door.lock();
        host.journal.is_quiet() && host.events.is_quiet()
    }

    /// Whether the agent has been shut down for good.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.slot.life() == crate::status::AgentLife::Stopped
    }

    /// The target whose reset is a restart of this process, once one was asked for.
    #[must_use]
    pub fn restart_requested(&self) -> Option<FileId> {
        self.restart_requested
    }

    /// Everything about it.
    pub fn status(&mut self, now: Context) -> DeviceStatus {
        self.door.lock().now = now;
        let status = self.slot.fresh_status(now).clone();
        let counters = self.mailbox.counters();
        let dropped = counters.dropped.saturating_sub(self.dropped_before_job);
        let (targets, last_event, events_error) = {
            let host = self.door.lock();
            (
                host.targets.report(),
                host.events.last(),
                host.events.last_error(),
            )
        };
        let agent = self.agent_report(now);
        DeviceStatus {
            device: self.name.clone(),
            connected: self.connection.up.is_some(),
            agent,
            state: status.state,
            state_name: name(&STATE_NAMES, status.state.into()).to_owned(),
            job_id: status.job_id.clone(),
            files: status.files.iter().map(FileReport::from).collect(),
            counters: Counters::new(&status, counters.waiting, dropped),
            wait: self
                .slot
                .wait()
                .map(|wait| WaitReport::new(wait, self.slot.deadline_ms(), now.now_ms)),
            targets,
            last_event,
            restart_requested: self.restart_requested,
            last_error: events_error
                .or_else(|| self.slot.last_error().map(str::to_owned))
                .or_else(|| self.last_error.clone()),
        }
    }

    fn agent_report(&mut self, now: Context) -> AgentReport {
        let memory_bytes = self.slot.memory_bytes() as u64;
        let build = self.slot.build();
        let retry_in_ms = self
            .slot
            .retry_at_ms()
            .map(|at| at.saturating_sub(now.now_ms));
        AgentReport {
            name: build.description().name.clone(),
            version: build.description().version.clone(),
            label: build.label().to_owned(),
            digest: host_crypto::hex(build.digest()),
            life: self.slot.life(),
            memory_bytes,
            strikes: self.slot.strikes(),
            retry_in_ms,
        }
    }

    /// Collect what has ended outside the mailbox; returns when to look again.
    fn poll_host(&mut self, now: Context) -> Option<u64> {
        let mut ends = Vec::new();
        let mut from_targets = Vec::new();
        let (targets_next, events_next) = {
            let mut host = self.door.lock();
            host.journal.poll(&mut ends);
            let events_next = host.events.poll(now.now_ms);
            let targets_next = host.targets.poll(now.now_ms, &mut from_targets);
            (targets_next, events_next)
        };
        for (token, outcome) in ends {
            self.deliver_done(now, token, outcome, &[Owner::Journal]);
        }
        for event in from_targets {
            self.on_target_event(now, event);
        }
        let refusals_next = self.deliver_refusals(now);
        [targets_next, events_next, refusals_next]
            .into_iter()
            .fold(None, earliest)
    }

    fn on_target_event(&mut self, now: Context, event: TargetEvent) {
        match event {
            TargetEvent::Done { token, outcome } => {
                self.deliver_done(now, token, outcome, &[Owner::Target]);
            }
            TargetEvent::Progress { token, done, total } => {
                if self.door.lock().tokens.is_open(token, &[Owner::Target]) {
                    self.deliver(now, Event::Progress { token, done, total });
                }
            }
            TargetEvent::Restarted(file) => {
                self.deliver(now, Event::TargetRestarted(file));
            }
            TargetEvent::ProcessRestart(file) => {
                tracing::info!(device = %self.name, file, "this process has to be restarted");
                self.restart_requested = Some(file);
            }
        }
    }

    fn deliver_refusals(&mut self, now: Context) -> Option<u64> {
        // As many as there are now: what they lead to comes with the next poll.
        for _ in 0..EVENTS_PER_POLL {
            let refusal = self.door.lock().next_refusal();
            match refusal {
                Ok((token, failure)) => {
                    let outcome = Outcome::Failed(failure);
                    self.deliver(now, Event::Done { token, outcome });
                }
                Err(next) => return next,
            }
        }
        Some(now.now_ms)
    }

    fn close(&mut self, token: u64, owners: &[Owner]) -> bool {
        let open = self.door.lock().tokens.close(token, owners);
        if !open {
            tracing::debug!(device = %self.name, token, "an operation that is not under way has ended");
        }
        open
    }

    fn deliver_done(&mut self, now: Context, token: u64, outcome: Outcome, owners: &[Owner]) {
        if self.close(token, owners) {
            self.deliver(now, Event::Done { token, outcome });
        }
    }

    /// Give the agent an event; returns why it did not take it. What a broken agent misses it asks for again: that is
    /// what its saved state is for.
    fn deliver(&mut self, now: Context, event: Event) -> Option<Failure> {
        if !self.slot.is_running() {
            return Some(self.no_agent(now));
        }
        self.delivered += 1;
        match self.slot.handle(now, event) {
            Ok(handled) => {
                self.after_turn(now, handled.changed);
                handled.refused
            }
            Err(fault) => Some(Failure::new(
                code::PLUGIN_FAILED,
                self.slot.strikes(),
                format!("the agent broke: {fault}"),
            )),
        }
    }

    fn no_agent(&self, now: Context) -> Failure {
        if self.is_stopped() {
            return Failure::new(code::UNSUPPORTED, 0, "the agent has been shut down");
        }
        let pause = self
            .slot
            .retry_at_ms()
            .map_or(0, |at| at.saturating_sub(now.now_ms));
        let detail = format!("the agent is broken; it is started again in {pause} ms");
        Failure::new(code::BUSY, self.slot.strikes(), detail)
    }

    /// Keep the books after a turn.
    fn after_turn(&mut self, now: Context, changed: bool) {
        if !changed {
            return;
        }
        let job = self.slot.status().job_id.clone();
        if job != self.job {
            self.dropped_before_job = self.mailbox.counters().dropped;
            self.job.clone_from(&job);
            self.door.lock().job = job;
        }
        let stamp = Stamp {
            journal: self.door.lock().journal.generation(),
            connection: self.connection.changes,
        };
        self.slot.keep_snapshot(now, stamp);
    }

    /// Start a broken agent whose time has come.
    fn revive(&mut self, now: Context) {
        while self.slot.retry_at_ms().is_some_and(|at| at <= now.now_ms) {
            let generation = self.door.lock().journal.generation();
            let snapshot = self.slot.snapshot(generation);
            let since = snapshot.as_ref().map(|(_, stamp)| stamp.connection);
            let saved = match snapshot {
                Some((blob, _)) => Saved::Snapshot(blob),
                None => {
                    let journal = self.door.lock().journal.current().cloned();
                    journal.map_or(Saved::None, Saved::Journal)
                }
            };
            let info = self.start_info(saved);
            match self.slot.start(now, info) {
                StartEnd::Started => {
                    self.after_turn(now, true);
                    for event in self.missed_connection(since) {
                        self.deliver(now, event);
                    }
                }
                StartEnd::Refused(failure) => self.slot.refuse_saved(now, &failure),
                StartEnd::Broken(_) => {}
            }
        }
    }

    /// What a new instance does not know of the connection; `since` counts the changes that its snapshot knows.
    fn missed_connection(&self, since: Option<u64>) -> Vec<Event> {
        if since == Some(self.connection.changes) {
            return Vec::new();
        }
        let lost = self
            .connection
            .last_end
            .clone()
            .filter(|_| since.is_some())
            .map(|(reason, detail)| Event::Disconnected { reason, detail });
        // It does not know what it has subscribed to, so it must do so again: the session is as good as new.
        let up = self.connection.up.map(|_| Event::Connected(false));
        lost.into_iter().chain(up).collect()
    }

    fn start_info(&self, saved: Saved) -> StartInfo {
        let host = self.door.lock();
        StartInfo {
            config: self.config.clone(),
            saved,
            schema: self.slot.build().schema(),
            seed: self.seed.seed(),
            outstanding: host.tokens.outstanding(),
            last_event: host.events.last(),
        }
    }
}

fn check(config: &DeviceConfig) -> Result<(), DeviceError> {
    let name = &config.name;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    let refuse = |reason: String| {
        Err(DeviceError::Config {
            device: name.clone(),
            reason,
        })
    };
    if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(legal) {
        return refuse(format!(
            "a thing name has 1 to {NAME_MAX_BYTES} of `a-z A-Z 0-9 : _ -`"
        ));
    }
    if let Some(bad) = config
        .topics
        .iter()
        .find(|topic| !topic.ends_with('/') || topic.contains(['+', '#']))
    {
        return refuse(format!(
            "topic prefix `{bad}` must end with `/` and have no wildcard"
        ));
    }
    Ok(())
}

fn earliest(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod shipped;
#[cfg(test)]
mod tests;
