//! How an agent is started: at the beginning, and again when it broke.
//!
//! Not here: the pauses between two tries (`agent/slot.rs`), another build (`swap.rs`).

use super::{Device, DeviceError};
use crate::agent::{
    AgentConfig, Command, Context, Event, STRIKES_OF_A_JOB_MAX, Saved, Stamp, StartEnd, StartInfo,
    Target,
};

impl Device {
    /// Start the agent. A trap is no error: it is tried again. A build on trial that refuses is sent back.
    ///
    /// # Errors
    /// The agent refuses its configuration or its journal; nothing has changed.
    pub fn start(&mut self, now: Context) -> Result<(), DeviceError> {
        self.door.lock().now = now;
        let journal = self.door.lock().journal.current().cloned();
        let saved = journal.map_or(Saved::None, Saved::Journal);
        let info = self.start_info(saved, self.slot.schema());
        match self.slot.start(now, None, info) {
            StartEnd::Started => {
                self.after_turn(now, true);
                Ok(())
            }
            StartEnd::Broken(_) => Ok(()),
            StartEnd::Refused(failure) if self.slot.is_on_trial() => {
                self.slot.refuse_saved(now, &failure);
                Ok(())
            }
            StartEnd::Refused(failure) if self.slot.build().stands_in().is_some() => {
                let device = &self.name;
                tracing::error!(%device, "what the agent before has left is not known, so targets and job service are asked: {failure}");
                self.slot.begin_anew(now);
                Ok(())
            }
            StartEnd::Refused(source) => Err(DeviceError::Refused {
                device: self.name.to_string(),
                source,
            }),
        }
    }

    /// Start an agent that broke and whose time has come, or that is parked and needed.
    pub(super) fn revive(&mut self, now: Context) {
        while self.slot.retry_at_ms().is_some_and(|at| at <= now.now_ms) {
            let (saved, since) = {
                let host = self.door.lock();
                let journal = host.journal.current().cloned();
                self.slot.saved(host.journal.generation(), journal)
            };
            let info = self.start_info(saved, self.slot.schema());
            match self.slot.start(now, since, info) {
                StartEnd::Started => {
                    // The snapshot that it was started from is as good as one of now.
                    if self.keep_books(now, true) && !self.slot.keeps(since) {
                        self.keep_snapshot(now);
                    }
                    for event in self.missed_connection(since) {
                        self.deliver(now, event);
                    }
                    self.give_up_job(now);
                }
                StartEnd::Refused(failure) => self.slot.refuse_saved(now, &failure),
                StartEnd::Broken(_) => {}
            }
        }
    }

    /// An agent that breaks over a job again and again is told to end it, as an operator would: nobody else can say so
    /// to the job service, and a job must not stay open for ever.
    fn give_up_job(&mut self, now: Context) {
        if self.slot.strikes() < STRIKES_OF_A_JOB_MAX || !self.slot.is_running() {
            return;
        }
        let Some(job) = self.slot.status().job_id.clone() else {
            return;
        };
        let strikes = self.slot.strikes();
        tracing::error!(device = %self.name, job, strikes, "the agent broke too often over this job: it is given up");
        if let Some(failure) = self.deliver(now, Event::Command(Command::UserAbort)) {
            tracing::warn!(device = %self.name, job, "the job was not given up: {failure}");
        }
    }

    /// What a new instance does not know of the connection; `since` is what was true when its snapshot was taken.
    pub(super) fn missed_connection(&self, since: Option<Stamp>) -> Vec<Event> {
        if since.is_some_and(|since| since.connection == self.connection.changes) {
            return Vec::new();
        }
        let lost = self
            .connection
            .last_end
            .clone()
            .filter(|_| since.is_some())
            .map(|end| {
                let (reason, detail) = *end;
                Event::Disconnected { reason, detail }
            });
        // It does not know what it has subscribed to, so it must do so again: the session is as good as new.
        let up = self.connection.up.map(|_| Event::Connected(false));
        lost.into_iter().chain(up).collect()
    }

    /// What an instance is started with that goes on from this.
    pub(super) fn start_info(&self, saved: Saved, schema: u32) -> StartInfo {
        let mut host = self.door.lock();
        host.pace.forget();
        // Told by an instance before it, in a call that broke: also in a snapshot, or a first start.
        host.jobs_ended.clear();
        let targets = host.targets.agent_settings();
        let targets = targets.map(|(name, file, settings)| Target {
            file,
            name: name.to_owned(),
            settings: settings.to_vec(),
        });
        StartInfo {
            config: AgentConfig {
                device: self.name.to_string(),
                settings: self.settings.to_vec(),
                targets: targets.collect(),
            },
            saved,
            schema,
            seed: self.seed.seed(),
            outstanding: host.tokens.outstanding(),
            last_event: host.events.last(),
        }
    }
}
