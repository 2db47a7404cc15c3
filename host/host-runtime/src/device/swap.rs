//! Another build for a device's agent, while it works: tried, written down, handed over between two events.
//!
//! ```text
//! swap ─▶ does it fit? ─▶ a worker starts one that reaches nothing ─▶ the choice is on the medium
//!                                                                       │ between two events
//!   reply ◀─ old one goes ◀─ started beside the old one, with what is under way ◀─ snapshot
//! ```
//!
//! What is under way stays under way: tokens, transfers and the connection are the device's. A refusal at any point leaves, or
//! brings back, the build that served (`agent/trial.rs`). Not here: where builds come from and whether they may be loaded.

use std::sync::Arc;

use super::Device;
use crate::agent::trial::tried;
use crate::agent::{AgentBuild, Context, Saved, Stamp};
use crate::choice::{Arrival, Names};
use crate::ports::workers::Errand;
use crate::target::SwapReply;
use crate::types::{Failure, code};

/// A swap under way.
pub(super) struct Swap {
    build: Arc<AgentBuild>,
    /// How long it is on trial, unless a job succeeds before.
    trial_ms: u64,
    reply: SwapReply,
    arrival: Arrival,
}

/// How the agent build that serves stands, for whoever waits for the end of its trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentTrial {
    /// It has not proved itself yet.
    pub on_trial: bool,
    /// Builds that have taken over since the process started.
    pub swaps: u64,
    /// Builds that were sent back since then.
    pub returns: u64,
    /// The build that was refused or sent back last, and why.
    pub refused: Option<Arc<str>>,
}

impl Device {
    /// Let another agent build serve, or, without one, the build before the present one. It is on trial until a job has
    /// succeeded under it or it has run for `trial_ms` without a break. `reply` hears once that it serves, or why the old one
    /// still does.
    pub fn swap_agent(
        &mut self,
        now: Context,
        build: Option<Arc<AgentBuild>>,
        trial_ms: u64,
        reply: SwapReply,
    ) {
        self.door.lock().now = now;
        self.wake(now);
        let Some(build) = build.or_else(|| self.slot.former().cloned()) else {
            let label = self.slot.build().label();
            let text = format!("there is no build to go back to: none is known before {label}");
            return reply(Err(Failure::new(code::NOT_FOUND, 0, text)));
        };
        let schema = match self.check_swap(&build) {
            Ok(schema) => schema,
            Err(failure) => return reply(Err(failure)),
        };
        self.keep_snapshot(now);
        let (saved, _) = self.saved_for(&build);
        let info = self.start_info(saved, schema);
        let lost = Failure::new(code::STORAGE, 0, "the worker of the swap has died");
        let probed = Arc::clone(&build);
        let errand = Errand::start(&*self.workers, &self.mailbox.wake(), Err(lost), move || {
            tried(&probed, now, info)
        });
        self.swap = Some(Box::new(Swap {
            build,
            trial_ms,
            reply,
            arrival: Arrival::Trying(errand),
        }));
    }

    /// Whether another agent build may take over, as things are.
    ///
    /// # Errors
    /// Why a swap would be refused.
    pub fn fits_agent(&self, build: &Arc<AgentBuild>) -> Result<(), Failure> {
        self.check_swap(build).map(|_| ())
    }

    pub(super) fn end_agent_trial(&mut self, reply: SwapReply) {
        self.slot.pass();
        match self.slot.former() {
            Some(_) => self.book.tell_when_kept(reply),
            None => reply(Ok(())),
        }
    }

    /// How the build that serves stands.
    #[must_use]
    pub fn agent_trial(&mut self) -> AgentTrial {
        // One that was sent back in the call before is not on trial any more, and has not proved itself either.
        self.note_sent_back();
        AgentTrial {
            on_trial: self.slot.is_on_trial(),
            swaps: self.swaps,
            returns: self.returns,
            refused: self.refused.clone(),
        }
    }

    /// Whether a build may take over, and the schema that it is to write: one that the build to go back to reads, too.
    fn check_swap(&self, build: &Arc<AgentBuild>) -> Result<u32, Failure> {
        let refuse = |main, text: String| Err(Failure::new(main, 0, text));
        if self.is_stopped() {
            let text = "the agent has been shut down; start the daemon again";
            return refuse(code::UNSUPPORTED, text.to_owned());
        }
        if self.swap.is_some() || self.book.is_writing() {
            return refuse(code::BUSY, "a swap of the agent is under way".to_owned());
        }
        let schemas = |build: &AgentBuild| {
            let of = build.description();
            format!("{:?} of `{}`", of.schemas, of.name)
        };
        let former = self.slot.way_back(build);
        let Some(schema) = build.schema_for(former) else {
            let text = format!(
                "it keeps its state in schemas {}, the build before in {}: there would be no way back",
                schemas(build),
                schemas(former)
            );
            return refuse(code::SCHEMA, text);
        };
        match self.door.lock().journal.current() {
            Some(journal) if !build.reads(journal.schema) => {
                let text = format!(
                    "it reads schemas {}, and the journal is of schema {}",
                    schemas(build),
                    journal.schema
                );
                refuse(code::SCHEMA, text)
            }
            Some(_) | None => Ok(schema),
        }
    }

    /// What a build begins with that takes over, and, of a snapshot, what was true when it was taken.
    fn saved_for(&self, build: &AgentBuild) -> (Saved, Option<Stamp>) {
        let host = self.door.lock();
        let snapshot = self.slot.snapshot(host.journal.generation());
        match snapshot.filter(|(blob, _)| build.reads(blob.schema)) {
            Some((blob, stamp)) => (Saved::Snapshot(blob.clone()), Some(stamp)),
            None => {
                let journal = host.journal.current().cloned();
                (journal.map_or(Saved::None, Saved::Journal), None)
            }
        }
    }

    /// Go on with a swap, and keep the books of the trial; returns when to do so again.
    pub(super) fn look_after_swap(&mut self, now: Context) -> Option<u64> {
        if let Some(swap) = self.swap.as_mut() {
            let serves = Names::of_agent(&swap.build);
            let former = Names::of_agent(self.slot.way_back(&swap.build));
            if let Err(failure) = self.book.let_in(&mut swap.arrival, serves, former) {
                self.refuse_swap(failure);
            }
        }
        self.book.look();
        let ready = |swap: &mut Box<Swap>| matches!(swap.arrival, Arrival::Ready);
        if let Some(swap) = self.swap.take_if(ready) {
            self.hand_over(now, *swap);
        }
        self.note_sent_back();
        self.slot.pass_if_quiet(now.now_ms);
        if self.swap.is_none() {
            let serves = Arc::clone(self.slot.build());
            self.book.keep(
                Names::of_agent(self.slot.build()),
                self.slot.former().map(|former| Names::of_agent(former)),
                self.slot.is_on_trial(),
                move || serves.trial_passed(),
            );
        }
        self.slot.trial_ends_ms()
    }

    fn hand_over(&mut self, now: Context, swap: Swap) {
        let Swap {
            build,
            trial_ms,
            reply,
            arrival: _,
        } = swap;
        // Again: while it was tried the agent may have been shut down, or have stored another journal.
        let schema = match self.check_swap(&build) {
            Ok(schema) => schema,
            Err(failure) => {
                self.note_refused(&build, &failure);
                return reply(Err(failure));
            }
        };
        // One that breaks here has crashed: its successor is started as after any crash.
        self.keep_snapshot(now);
        self.note_sent_back();
        let was_running = self.slot.is_running();
        let (saved, since) = self.saved_for(&build);
        let info = self.start_info(saved, schema);
        let (journal, generation) = {
            let host = self.door.lock();
            (host.journal.current().cloned(), host.journal.generation())
        };
        let end = self.slot.take_over(now, &build, trial_ms, info);
        match &end {
            Err(_) => {
                let mut host = self.door.lock();
                if host.journal.generation() != generation {
                    host.journal.put_back(journal);
                }
                host.jobs_ended.clear();
                drop(host);
                self.keep_snapshot(now);
            }
            Ok(()) if was_running => {
                self.after_turn(now, true);
                for event in self.missed_connection(since) {
                    self.deliver(now, event);
                }
            }
            Ok(()) => self.revive(now),
        }
        let sent_back = self.note_sent_back();
        let end = end.and_then(|()| match sent_back {
            Some(reason) => {
                let text = format!("it was sent back: {reason}");
                Err(Failure::new(code::PLUGIN_FAILED, 0, text))
            }
            None => Ok(()),
        });
        match &end {
            Ok(()) => {
                let (label, version) = (build.label(), &build.description().version);
                tracing::info!(device = %self.name, "agent {label} {version} serves in place of the one before");
                self.refused = None;
                self.swaps += 1;
            }
            Err(failure) => self.note_refused(&build, failure),
        }
        reply(end);
    }

    fn refuse_swap(&mut self, failure: Failure) {
        let Some(swap) = self.swap.take() else { return };
        self.note_refused(&swap.build, &failure);
        (swap.reply)(Err(failure));
    }

    fn note_refused(&mut self, build: &AgentBuild, failure: &Failure) {
        let label = build.label();
        tracing::warn!(device = %self.name, "agent {label} is refused: {failure}");
        self.refused = Some(format!("{label}: {failure}").into());
    }

    /// A build that was sent back is remembered for the operator; the reason.
    fn note_sent_back(&mut self) -> Option<String> {
        let back = self.slot.take_sent_back()?;
        self.refused = Some(format!("{}: {}", back.label, back.reason).into());
        self.returns += 1;
        Some(back.reason)
    }
}
