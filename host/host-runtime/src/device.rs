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

use bytes::Bytes;

use crate::agent::{AgentSlot, Command, Context, Event, Message, Stamp};
use crate::choice::Book;
use crate::events::EventRing;
use crate::history::{Glance, History};
use crate::mailbox::{Input, Mailbox};
use crate::plugin::PluginFactory;
use crate::ports::seed::Seed;
use crate::ports::workers::Workers;
use crate::status::{
    AgentLife, AgentReport, Counters, DeviceStatus, FileReport, STATE_INIT, STATE_NAMES,
    STATES_RECEIVING, WaitReport, name,
};
use crate::target::{SwapReply, TargetEvent, Targets};
use crate::types::{Failure, FileId, Outcome, Qos, Setting, code};

use self::host::Door;
use self::token::Owner;

pub use self::log::is_level_read;
pub use self::prepare::{DeviceConfig, DeviceError, DevicePorts, PreparedDevice};
pub use self::swap::AgentTrial;

mod host;
mod log;
mod pace;
mod park;
mod prepare;
mod start;
mod swap;
mod token;

/// Inputs that one poll gives to the agent, so that other tasks get their turn: some 0.5 ms of blocks.
const INPUTS_PER_POLL: usize = 64;

/// The connection, as far as the device knows.
#[derive(Debug, Default)]
struct Connection {
    /// There is one; true = the broker kept the session.
    up: Option<bool>,
    /// Changes so far.
    changes: u64,
    /// How the last one ended, if one has.
    last_end: Option<Box<(u32, String)>>,
}

/// A device.
pub struct Device {
    name: Arc<str>,
    /// Device-wide settings for the agent.
    settings: Arc<Vec<Setting>>,
    door: Door,
    slot: AgentSlot,
    /// Another agent build is on its way in.
    swap: Option<Box<swap::Swap>>,
    book: Book,
    /// The agent build that was refused or sent back last, and why.
    refused: Option<Arc<str>>,
    /// Agent builds that have taken over, and that were sent back, in this process.
    swaps: u64,
    returns: u64,
    mailbox: Mailbox,
    workers: Arc<dyn Workers>,
    seed: Arc<dyn Seed>,
    connection: Connection,
    restart_requested: Option<FileId>,
    /// Events given to the agent so far.
    delivered: u64,
    /// When it was given the last one, or was left awake though it had been quiet for long enough.
    quiet_since_ms: u64,
    /// An agent without a job is parked when it was given no event for so long; none = never.
    park_after_ms: Option<u64>,
    /// Messages dropped by the mailbox before those that are counted: since the job came, the connection, or a resume.
    dropped_before: u64,
    job: Option<String>,
    last_error: Option<String>,
}

impl Device {
    /// Something happened.
    pub fn handle(&mut self, now: Context, input: Input) {
        self.enter(now);
        match input {
            Input::Connected { session_present } => {
                self.connection.up = Some(session_present);
                self.connection.changes += 1;
                self.count_anew();
                self.deliver(now, Event::Connected(session_present));
            }
            Input::Disconnected { reason, detail } => {
                self.connection.up = None;
                self.connection.changes += 1;
                self.connection.last_end = Some(Box::new((reason, detail.clone())));
                self.door.lock().disconnect_pace();
                self.deliver(now, Event::Disconnected { reason, detail });
            }
            Input::Message {
                topic,
                payload,
                qos: Qos::AtMostOnce | Qos::AtLeastOnce,
            } => self.on_messages(now, vec![(topic, payload)]),
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
                let is_resume = matches!(command, Command::Resume);
                let answer = self.deliver(now, Event::Command(command));
                if is_resume && answer.is_none() {
                    self.count_anew();
                }
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

    fn enter(&mut self, now: Context) {
        self.door.lock().now = now;
        // Before the books of the connection change: a snapshot knows what they were.
        self.wake(now);
    }

    fn on_messages(&mut self, now: Context, messages: Vec<(String, Bytes)>) {
        {
            let mut host = self.door.lock();
            for (topic, payload) in &messages {
                host.pace.on_message(now, topic.len() + payload.len());
            }
        }
        let messages = messages.into_iter().map(|(topic, payload)| Message {
            topic,
            payload: payload.into(),
        });
        self.deliver(now, Event::Messages(messages.collect()));
    }

    /// Do what is due: what waits in the mailbox, what has ended, deadlines, a restart of a broken agent. Returns when
    /// to poll again at the latest; `None` = when woken.
    pub fn poll(&mut self, now: Context) -> Option<u64> {
        self.slot.gather(true);
        let next = self.poll_all(now);
        // Whoever is polled again at once has not come to an end.
        if next.is_none_or(|at| at > now.now_ms) {
            self.slot.gather(false);
        }
        next
    }

    fn poll_all(&mut self, now: Context) -> Option<u64> {
        self.door.lock().now = now;
        let before = self.delivered;
        self.revive(now);
        let trial = self.look_after_swap(now);
        let next = self.poll_host(now);
        // What comes while this goes on is for the next poll: `now` lies before it, and an agent that takes the time of its
        // answers would take it for less than it was.
        let mut left = INPUTS_PER_POLL.min(self.mailbox.len());
        while left > 0 {
            let messages = self.mailbox.take_messages(left);
            if !messages.is_empty() {
                left -= messages.len();
                self.enter(now);
                self.on_messages(now, messages);
            } else if let Some(input) = self.mailbox.take() {
                left -= 1;
                self.handle(now, input);
            } else {
                break;
            }
        }
        // After the messages: what has come in time is not asked for again.
        if self.slot.deadline_ms().is_some_and(|at| at <= now.now_ms) {
            self.deliver(now, Event::Timeout);
        }
        let noted = self.look_back(now);
        if self.delivered != before || !self.mailbox.is_empty() {
            // An event may have begun what is over already.
            return Some(now.now_ms);
        }
        let parks = self.park_if_idle(now);
        if self.slot.is_parked() {
            // Also after what was still to be written down when it was parked.
            self.shrink();
        }
        [
            next,
            noted,
            trial,
            parks,
            self.slot.deadline_ms(),
            self.slot.retry_at_ms(),
        ]
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

    /// Its past jobs, and what it waited for last.
    #[must_use]
    pub fn history(&self) -> History {
        self.door.lock().history.clone()
    }

    /// Whether everything that was to be stored is on the medium.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let host = self.door.lock();
        let quiet = host.journal.is_quiet() && host.events.is_quiet() && host.history.is_quiet();
        quiet && !self.book.is_writing()
    }

    /// The process will stop: what the device is about is written down, for whoever asks while it does not run.
    pub fn last_words(&mut self, now: Context) {
        let history = self.history();
        history.last_words(now, &self.glance());
    }

    /// Whether the agent runs and knows how its targets are: it has left its first state.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_there = self.slot.is_running() || self.slot.is_parked();
        is_there && self.slot.status().state != STATE_INIT
    }

    /// The agent's state as it was told last: a number of [`STATE_NAMES`].
    #[must_use]
    pub fn agent_state(&self) -> u8 {
        self.slot.status().state
    }

    /// Whether the agent has no instance because it has nothing to do.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.slot.is_parked()
    }

    /// Whether the agent has been shut down for good.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.slot.life() == AgentLife::Stopped
    }

    /// The target whose reset is a restart of this process, once one was asked for.
    #[must_use]
    pub fn restart_requested(&self) -> Option<FileId> {
        self.restart_requested
    }

    /// Let another plugin build serve the target of this name, or, without one, the build before the present one.
    /// `reply` hears how that ended.
    pub fn swap_plugin(
        &mut self,
        now: Context,
        target: &str,
        build: Option<Arc<dyn PluginFactory>>,
        reply: SwapReply,
    ) {
        self.with_target(now, target, reply, |targets, file, reply| match build {
            Some(build) => targets.swap(file, build, reply),
            None => targets.swap_back(file, reply),
        });
    }

    /// Have the plugin build that serves a target ask it how it is; see [`Targets::ask`].
    pub fn ask_target(&mut self, now: Context, target: &str, reply: SwapReply) {
        self.with_target(now, target, reply, Targets::ask);
    }

    /// The plugin build that serves a target, or, without one, the agent build, has proved itself, says whoever put it in:
    /// no break sends it back any more. `reply` hears when that stands on the medium.
    pub fn end_trial(&mut self, now: Context, target: Option<&str>, reply: SwapReply) {
        match target {
            Some(target) => self.with_target(now, target, reply, Targets::end_trial),
            None => self.end_agent_trial(reply),
        }
    }

    fn with_target(
        &mut self,
        now: Context,
        target: &str,
        reply: SwapReply,
        call: impl FnOnce(&mut Targets, FileId, SwapReply),
    ) {
        let mut host = self.door.lock();
        host.now = now;
        match host.targets.named(target) {
            Some(file) => call(&mut host.targets, file, reply),
            None => {
                let text = format!("device {} has no target `{target}`", self.name);
                drop(host);
                reply(Err(Failure::new(code::NOT_FOUND, 0, text)));
            }
        }
    }

    /// Everything about it.
    pub fn status(&mut self, now: Context) -> DeviceStatus {
        self.door.lock().now = now;
        let status = self.slot.fresh_status(now).clone();
        let counters = self.mailbox.counters();
        let dropped = counters.dropped.saturating_sub(self.dropped_before);
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
            device: self.name.to_string(),
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

    fn glance(&self) -> Glance<'_> {
        Glance {
            status: self.slot.status(),
            wait: self.slot.wait(),
            deadline_ms: self.slot.deadline_ms(),
            connected: self.connection.up.is_some(),
            faults: self.slot.faults(),
            last_error: self.slot.last_error().or(self.last_error.as_deref()),
        }
    }

    /// Keep the history; returns when to do so again.
    fn look_back(&mut self, now: Context) -> Option<u64> {
        let history = self.history();
        let words = history.look(now, &self.glance());
        earliest(words, history.poll(now.now_ms))
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
            manifest: build.manifest().map(str::to_owned),
            life: self.slot.life(),
            memory_bytes,
            strikes: self.slot.strikes(),
            retry_in_ms,
            former: self.slot.former().map(|former| former.label().to_owned()),
            on_trial: self.slot.is_on_trial(),
            refused: self.refused.as_deref().map(str::to_owned),
            swaps: self.swaps,
            swapping: self.swap.is_some(),
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
        let pace_next = self.poll_pace(now);
        [targets_next, events_next, refusals_next, pace_next]
            .into_iter()
            .fold(None, earliest)
    }

    /// Tell the agent its share of the bandwidth, and let go what waited for it; returns when to do so again.
    fn poll_pace(&mut self, now: Context) -> Option<u64> {
        if self.slot.is_running() {
            let state = self.slot.status().state;
            let news = {
                let mut host = self.door.lock();
                host.pace.receives(now, STATES_RECEIVING.contains(&state));
                host.pace.news(now)
            };
            if let Some(allowance) = news {
                self.deliver(now, Event::Allowance(allowance));
            }
        }
        self.door.lock().poll_pace()
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
        for _ in 0..INPUTS_PER_POLL {
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
        let was_parked = self.slot.is_parked();
        if was_parked {
            self.wake(now);
        }
        if !self.slot.is_running() {
            return Some(self.no_agent(now));
        }
        self.delivered += 1;
        // What others receive changes everybody's allowance: that would keep all awake who have nothing to do.
        if was_parked || !matches!(event, Event::Allowance(_)) {
            self.quiet_since_ms = now.now_ms;
        }
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

    /// The agent counts from here on, and so does the host.
    fn count_anew(&mut self) {
        self.dropped_before = self.mailbox.counters().dropped;
    }

    /// Keep books and snapshot after a turn.
    fn after_turn(&mut self, now: Context, changed: bool) {
        if self.keep_books(now, changed) {
            self.keep_snapshot(now);
        }
    }

    /// Keep the books after a turn; whether there is something new to remember.
    fn keep_books(&mut self, now: Context, changed: bool) -> bool {
        let (is_deaf, ended) = {
            let mut host = self.door.lock();
            let ended = std::mem::take(&mut host.jobs_ended);
            (host.drop_too_many_refusals(), ended)
        };
        if is_deaf {
            self.slot.end(now, "more refused calls than it looks at");
            return false;
        }
        for job_id in ended {
            self.slot.job_ended(&job_id);
        }
        if !changed {
            return false;
        }
        let job = self.slot.status().job_id.clone();
        if job != self.job {
            self.count_anew();
            self.job.clone_from(&job);
            self.door.lock().job = job;
        }
        self.history_of_status(now);
        true
    }

    fn keep_snapshot(&mut self, now: Context) {
        let stamp = self.stamp(now);
        self.slot.keep_snapshot(now, stamp);
    }

    fn stamp(&self, now: Context) -> Stamp {
        Stamp {
            journal: self.door.lock().journal.generation(),
            connection: self.connection.changes,
            at: now,
        }
    }

    fn history_of_status(&self, now: Context) {
        let host = self.door.lock();
        host.history.on_status(now, self.slot.status(), |file| {
            let (name, running) = host.targets.running(file)?;
            Some((name.to_owned(), running.map(|version| version.to_string())))
        });
    }
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
