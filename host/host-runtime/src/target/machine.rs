//! One target: its durable record, its plugin, the operation under way, and the loop that drives it.
//!
//! ```text
//! order.rs   what the agent asks for: is it allowed now?      -> Op (script.rs)
//! machine.rs the loop: next stage, next step, report, end     -> TargetEvent
//! stage.rs   what a stage does when it begins and when it ends
//! write.rs   blocks: plugin or staging, block map, syncing
//! ```

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::ahead::Ahead;
use super::config::{TargetConfig, VersionReader};
use super::damage::damaged;
use super::duty::News;
use super::fence::Fenced;
use super::map::BlockMap;
use super::names::{BLOCK_MAP, RECORD, state_name};
use super::record::{self, Memo, Phase, TargetRecord};
use super::regions::{Account, Regions};
use super::script::{Asker, Kind, Op, Question, Restart, Running, Stage, script};
use super::setup::{Own, Setup, apart};
use super::slot::PluginSlot;
use super::staged::Staged;
use super::swap::Swap;
use super::sync::Sync;
use super::trial::{Debt, Former};
use super::work::{Inbox, Promise, Report};
use super::write::Write;
use super::{TargetError, TargetEvent, VerifiedRef};
use crate::choice::{self, Book, Names, Place, Word};
use crate::desk::Desk;
use crate::plugin::PluginFactory;
use crate::plugin::lend::{Lent, PluginLog};
use crate::types::{Failure, Outcome, TargetState, Token, code};

/// Progress of one operation is told at most so often.
const PROGRESS_MS: u64 = 1000;

/// One target of a device.
pub(super) struct Target {
    pub(super) device: Arc<str>,
    pub(super) config: Arc<Setup>,
    pub(super) own: Own,
    pub(super) ports: Arc<Desk>,
    /// Changed by a stage, and written down by the next one.
    pub(super) record: TargetRecord,
    /// As it stands on the medium.
    pub(super) stored: TargetRecord,
    /// What its file says.
    pub(super) memo: Arc<Mutex<Memo>>,
    /// Report number of the record's being written, and what is written.
    pub(super) storing: Option<(u64, TargetRecord)>,
    /// Why nothing can be done with the target.
    pub(super) damage: Option<Failure>,
    pub(super) plugin: PluginSlot,
    pub(super) regions: Arc<Regions>,
    pub(super) staged: Arc<Staged>,
    /// The open staging file of the transfer.
    pub(super) staging: Option<Arc<Fenced>>,
    /// Blocks held; there is one only while the transfer receives, after `create` or `reopen`.
    pub(super) map: Option<Box<BlockMap>>,
    /// Where it is logged.
    pub(super) map_name: Arc<str>,
    /// The log on the medium may end with something torn: write it anew before anything is appended.
    pub(super) map_torn: bool,
    pub(super) proof: Option<Box<VerifiedRef>>,
    /// Moved with every stage, so it lies elsewhere.
    pub(super) op: Option<Box<Op>>,
    pub(super) waiting: VecDeque<Asker>,
    pub(super) writes: VecDeque<Write>,
    /// The close that waits until the last of them have their end.
    pub(super) closing: Option<Token>,
    pub(super) sync: Sync,
    /// The last reset command has failed: who knows what runs.
    pub(super) disturbed: bool,
    /// The host has reset the target, and nobody was told that it has restarted.
    pub(super) restart: Option<Restart>,
    /// The staged file has grown or was verified since the last step.
    pub(super) data: bool,
    /// The file on its way to a staged target, while it is received.
    pub(super) ahead: Ahead,
    pub(super) last_state: Option<TargetState>,
    /// Number of the transfer that was read from the record, until the target has said that it runs something else: nobody
    /// knows yet whether there is no more to it.
    pub(super) found: Option<u64>,
    /// The committed image was running then, and is not what was committed.
    pub(super) image_damaged: bool,
    /// Another build is on its way in.
    pub(super) swap: Option<Swap>,
    pub(super) book: Book,
    /// The build that was refused or sent back last, and why.
    pub(super) refusal: Option<String>,
    /// Builds that have taken over in this process.
    pub(super) swaps: u64,
    pub(super) events: VecDeque<TargetEvent>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) reports: u64,
    /// Work that may still touch storage or record.
    pub(super) outstanding: u32,
}

impl Target {
    /// Set up a target; what was locked before is locked before its plugin exists.
    pub(super) fn new(config: TargetConfig, ports: &Arc<Desk>) -> Result<Self, TargetError> {
        let device = &ports.device;
        super::config::check(&config)?;
        let (known, memo) = load(ports, device, &config.name);
        if config.trust.allows_unsigned() {
            tracing::warn!(
                device = %device, target = %config.name,
                "UNSIGNED IMAGES ARE TAKEN: a development setting; whoever can send a job decides what runs"
            );
        }
        let (setup, own, (factory, former)) = apart(config);
        let choice = choice::read(&*ports.state, &Place::plugin(device, &setup.name));
        let mut target = Self::make(
            (setup, own),
            Arc::clone(ports),
            known,
            (factory, former.map(Former::from)),
            choice,
        );
        target.memo = Arc::new(Mutex::new(memo));
        let stands_in = target.plugin.factory.stands_in();
        target.refusal = stands_in.map(|chosen| chosen.why.clone());
        target.found = target.record.transfer.as_ref().map(|t| t.number);
        Ok(target)
    }

    /// A target of which this is known.
    pub(super) fn make(
        (config, own): (Arc<Setup>, Own),
        ports: Arc<Desk>,
        (record, damage): (TargetRecord, Option<Failure>),
        (factory, former): (Arc<dyn PluginFactory>, Option<Former>),
        choice: Word,
    ) -> Self {
        let device = Arc::clone(&ports.device);
        let limits = &config.limits;
        let account = Arc::new(Account::new(limits.call_bytes_max, limits.call_syncs_max));
        let regions = Arc::new(Regions::new(config.regions(&own), Arc::clone(&account)));
        let staged = Arc::new(Staged::new(Arc::clone(&account)));
        let clock = Arc::clone(&ports.clock);
        let name = format!("{device}/{}", config.name);
        let log = PluginLog::new(name.clone(), Arc::clone(&clock));
        let lent = Lent {
            block_device: (!regions.is_empty()).then(|| Arc::clone(&regions) as _),
            staged_image: own.staging().is_some().then(|| Arc::clone(&staged) as _),
            serial_line: own.line().cloned(),
            hardware_reset: own.hardware_reset().cloned(),
            wake: Arc::clone(&ports.wake),
            clock,
            log: Arc::new(log),
        };
        let map_name = state_name(&device, &config.name, BLOCK_MAP).into();
        let book = Book::of(
            Place::plugin(&device, &config.name),
            Names::of_plugin(&*factory),
            choice,
            Arc::clone(&ports),
        );
        let plugin = PluginSlot::new(
            name,
            (factory, former),
            config.plugin_settings.clone(),
            lent,
            Arc::clone(&regions),
            account,
            limits.strikes_max,
        );
        Self {
            device,
            config,
            own,
            ports,
            stored: record.clone(),
            record,
            memo: Arc::default(),
            storing: None,
            damage,
            plugin,
            regions,
            staged,
            staging: None,
            map: None,
            map_name,
            map_torn: false,
            proof: None,
            op: None,
            waiting: VecDeque::new(),
            writes: VecDeque::new(),
            closing: None,
            sync: Sync::default(),
            disturbed: false,
            restart: None,
            data: false,
            ahead: Ahead::No,
            last_state: None,
            found: None,
            image_damaged: false,
            swap: None,
            book,
            refusal: None,
            swaps: 0,
            events: VecDeque::new(),
            inbox: Arc::default(),
            reports: 0,
            outstanding: 0,
        }
    }

    /// Take an operation; the next [`Target::poll`] drives it. Whoever asks is a guest in the middle of a call: neither a
    /// plugin nor a disk may take its time.
    pub(super) fn begin(&mut self, token: Option<Token>, kind: Kind) {
        tracing::debug!(
            device = %self.device, target = %self.config.name,
            operation = kind.name(), "begins"
        );
        let reader_is_plugin = self.reads_by_plugin();
        self.make_way_for(&kind, reader_is_plugin);
        let stages = script(&kind, self.phase(), reader_is_plugin);
        self.sync.early.give_way();
        self.op = Some(Box::new(Op::new(kind, token, stages)));
    }

    /// Whether the plugin reads version and product from an image.
    pub(super) fn reads_by_plugin(&self) -> bool {
        self.config.version_from == VersionReader::Plugin
    }

    /// Everything that can be done now.
    pub(super) fn poll(&mut self, now_ms: u64) {
        self.let_idle_plugin_go();
        self.write_out();
        self.collect(now_ms);
        self.look_after_swap();
        self.hand_over_plugin();
        self.advance(now_ms);
        self.pump(now_ms);
        self.push_ahead(now_ms);
        self.sync_by_time(now_ms);
        self.read_early(now_ms);
        self.watch(now_ms);
        self.tell_read_back(now_ms);
        self.settle_swap();
    }

    /// Give back the room that is not used.
    pub(super) fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
        self.writes.shrink_to_fit();
        self.events.shrink_to_fit();
        if self.storing.is_none() && self.outstanding == 0 {
            // It spares whoever writes the record again and again from reading it.
            *self.memo.lock().unwrap_or_else(PoisonError::into_inner) = Memo::default();
        }
    }

    /// When something is to be done again, without a report.
    pub(super) fn wake_at(&self) -> Option<u64> {
        let limits = &self.config.limits;
        let op = self.op.as_ref().and_then(|op| match &op.running {
            Running::Duty(_, run) if run.is_woken(self.news()) => Some(0),
            Running::Duty(_, run) => Some(run.wake_at(limits)),
            Running::Report(Stage::ReadBack, _) => op.progress_at.map(|at| at + PROGRESS_MS),
            Running::Pause(_, at) => Some(*at),
            // It was begun, and nothing of it was done.
            Running::Nothing => Some(0),
            Running::Drain | Running::Report(..) | Running::ProcessEnd => None,
        });
        let closing = self.closing.is_some() && self.writes.is_empty() && self.op.is_none();
        let due = closing || !self.events.is_empty() || self.owes_reopen() || self.is_plugin_idle();
        let events = due.then_some(0);
        let watch = self.restart.filter(|_| self.op.is_none());
        let watch = watch.map(|restart| restart.next_at);
        let ahead = self.ahead_wake_at();
        [
            op,
            self.write_wake_at(),
            self.sync_wake_at(),
            watch,
            events,
            ahead,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What a duty may have been waiting for.
    pub(super) fn news(&self) -> News {
        News {
            data: self.data,
            input: self.own.line().is_some_and(|l| l.has_news()),
        }
    }

    /// Take in what was reported.
    pub(super) fn collect(&mut self, now_ms: u64) {
        while let Some((id, report)) = self.inbox.take() {
            if !matches!(report, Report::Command(_)) {
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            if self.sync.is_report(id) {
                self.on_synced(now_ms, report);
                continue;
            }
            if self.sync.early.is_report(id) {
                self.sync.early.on_report(report);
                continue;
            }
            if self.sync.is_mend(id) {
                self.on_mended(&report);
                continue;
            }
            self.on_stored(id, &report);
            if self.sync.is_flush(id) {
                // Also if the close was given up meanwhile: a failed fsync is not told twice.
                self.on_flushed(&report);
            }
            match self.op.as_mut() {
                Some(op) if matches!(op.running, Running::Report(_, wanted) if wanted == id) => {
                    op.report = Some(report);
                }
                // Of an operation that was cancelled.
                Some(_) | None => {}
            }
        }
    }

    /// Drive the operation under way as far as it goes, and those that wait for their turn.
    pub(super) fn advance(&mut self, now_ms: u64) {
        let mut steps = self.config.limits.steps_per_poll;
        loop {
            self.collect(now_ms);
            let Some(mut op) = self.op.take() else {
                if self.is_writing() {
                    // The plugin is in the middle of a block: one duty at a time.
                    return;
                }
                match self.waiting.pop_front() {
                    Some(Asker::Agent(token)) => self.begin(Some(token), Kind::State),
                    Some(Asker::Operator(mut question)) => {
                        self.begin(None, Kind::State);
                        question.tries += 1;
                        if let Some(op) = self.op.as_mut() {
                            op.question = Some(question);
                        }
                    }
                    None => return,
                }
                continue;
            };
            let moved = self.turn(now_ms, &mut op, &mut steps);
            match moved {
                Ok(true) if op.stages.is_empty() && matches!(op.running, Running::Nothing) => {
                    let outcome = std::mem::replace(&mut op.outcome, Outcome::Nothing);
                    self.end(now_ms, *op, outcome);
                }
                Ok(true) => self.op = Some(op),
                Ok(false) => {
                    self.op = Some(op);
                    return;
                }
                Err(_) if self.begins_again(&mut op) => self.op = Some(op),
                Err(failure) => self.end(now_ms, *op, Outcome::Failed(failure)),
            }
        }
    }

    /// One move of an operation: `Ok(false)` = it waits.
    fn turn(&mut self, now_ms: u64, op: &mut Op, steps: &mut u32) -> Result<bool, Failure> {
        self.plugin.take_spared();
        match std::mem::replace(&mut op.running, Running::Nothing) {
            Running::Nothing => match op.stages.pop_front() {
                Some(stage) => self.enter(now_ms, op, stage).map(|()| true),
                None => Ok(true),
            },
            Running::Drain => {
                if self.outstanding > 0 {
                    op.running = Running::Drain;
                    return Ok(false);
                }
                Ok(true)
            }
            Running::Report(stage, id) => match op.report.take() {
                Some(report) => self.on_report(now_ms, op, stage, report).map(|()| true),
                None => {
                    op.running = Running::Report(stage, id);
                    Ok(false)
                }
            },
            Running::Duty(stage, run) => {
                let due = run.due(now_ms, self.news(), &self.config.limits);
                if !due || *steps == 0 {
                    op.running = Running::Duty(stage, run);
                    return Ok(false);
                }
                *steps -= 1;
                self.step(now_ms, op, stage, run).map(|()| true)
            }
            Running::ProcessEnd => {
                op.running = Running::ProcessEnd;
                Ok(false)
            }
            Running::Pause(stage, at) if now_ms < at => {
                op.running = Running::Pause(stage, at);
                Ok(false)
            }
            Running::Pause(stage, _) => self.enter(now_ms, op, stage).map(|()| true),
        }
    }

    /// An operation is over.
    fn end(&mut self, now_ms: u64, op: Op, outcome: Outcome) {
        self.regions.set_record(false);
        let over = !matches!(outcome, Outcome::Failed(_));
        match &outcome {
            Outcome::Failed(failure) if op.kind != Kind::Watch => tracing::info!(
                device = %self.device, target = %self.config.name,
                operation = op.kind.name(), "failed: {failure}"
            ),
            _ => tracing::debug!(
                device = %self.device, target = %self.config.name,
                operation = op.kind.name(), "done"
            ),
        }
        match op.token {
            Some(token) => self.events.push_back(TargetEvent::Done { token, outcome }),
            None if op.kind == Kind::Watch => self.watched(now_ms, op.state, &outcome),
            None if op.kind == Kind::State => {
                if let Some(Question { reply, .. }) = op.question {
                    reply(match outcome {
                        Outcome::Failed(failure) => Err(failure),
                        _ => Ok(()),
                    });
                }
            }
            None => {
                if let Outcome::Failed(failure) = outcome {
                    // Tried in vain: what comes next opens and attaches for itself.
                    self.plugin.debt = Debt::default();
                    self.fail_writes(&failure);
                }
            }
        }
        self.events.extend(op.after);
        if over && matches!(op.kind, Kind::Commit | Kind::Reject) {
            self.plugin.pass();
        }
        // Whoever asks how the target is often wants something of it next: the next poll sees whether that is so.
        let asked = over && op.kind == Kind::State && op.token.is_some();
        if !asked {
            self.let_idle_plugin_go();
        }
        self.pump(now_ms);
    }

    /// Whether there is an instance, and nothing for it to do.
    fn is_plugin_idle(&self) -> bool {
        let settled = self.phase().is_none_or(Phase::is_settled);
        settled && self.plugin.is_open() && self.op.is_none() && self.waiting.is_empty()
    }

    /// An instance lives no longer than there is something for it to do.
    pub(super) fn let_idle_plugin_go(&mut self) {
        if self.is_plugin_idle() {
            self.plugin.drop_instance();
        }
    }

    /// Stop the operation under way; its token ends with 0xd7. What it has begun elsewhere is drained by the next one. An
    /// operator's question is put again when there is time, so many times.
    /// A duty cannot be left half-way but by the plugin's `abort`, which throws the transfer away: unless that is what
    /// comes next, the instance goes.
    pub(super) fn cancel_op(&mut self, abort_follows: bool) {
        let Some(op) = self.op.take() else { return };
        op.cancel.store(true, Ordering::Relaxed);
        if matches!(op.running, Running::Duty(..)) && !abort_follows {
            self.plugin.drop_instance();
        }
        self.regions.set_record(false);
        self.tell_cancelled(op.token.map(Asker::Agent));
        let Some(question) = op.question else { return };
        let max = self.config.limits.question_tries_max;
        if question.tries < max {
            return self.waiting.push_front(Asker::Operator(question));
        }
        let text = format!(
            "target `{}` was asked {max} times, and each time the agent wanted something of it; ask again when its job is over",
            self.config.name
        );
        (question.reply)(Err(Failure::new(code::BUSY, 0, text)));
    }

    pub(super) fn tell_cancelled(&mut self, asker: Option<Asker>) {
        let Some(asker) = asker else { return };
        let text = format!("cancelled on target `{}`", self.config.name);
        self.refuse(asker, Failure::new(code::CANCELLED, 0, text));
    }

    pub(super) fn refuse(&mut self, asker: Asker, failure: Failure) {
        match asker {
            Asker::Agent(token) => self.events.push_back(TargetEvent::Done {
                token,
                outcome: Outcome::Failed(failure),
            }),
            Asker::Operator(question) => (question.reply)(Err(failure)),
        }
    }

    /// A number and a promise for something that is started elsewhere; `holds` = it may touch storage or record.
    pub(super) fn promise(&mut self, holds: bool) -> (u64, Promise) {
        self.reports += 1;
        if holds {
            self.outstanding += 1;
        }
        let promise = Promise::new(&self.inbox, &self.ports.wake, self.reports);
        (self.reports, promise)
    }

    /// Whether nothing that was started elsewhere is still to be reported.
    pub(super) fn is_quiet(&self) -> bool {
        self.outstanding == 0 && self.inbox.is_empty()
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Tell how far an operation is, unless it was told within the last second.
    pub(super) fn tell_progress(&mut self, now_ms: u64, op: &mut Op, (done, total): (u64, u64)) {
        let Some(token) = op.token else { return };
        let silent = op
            .progress_at
            .is_some_and(|at| now_ms.saturating_sub(at) < PROGRESS_MS);
        if silent || (done, total) == (0, 0) {
            return;
        }
        op.progress_at = Some(now_ms);
        self.events
            .push_back(TargetEvent::Progress { token, done, total });
    }

    /// The worker that reads back counts for itself.
    fn tell_read_back(&mut self, now_ms: u64) {
        let reads = |op: &mut Box<Op>| matches!(op.running, Running::Report(Stage::ReadBack, _));
        if let Some(mut op) = self.op.take_if(reads) {
            let total = self.record.transfer.as_ref().map_or(0, |t| t.spec.size);
            let done = op.work_done.load(Ordering::Relaxed);
            self.tell_progress(now_ms, &mut op, (done, total));
            self.op = Some(op);
        }
    }
}

/// What is known of a target, or why nothing is; and what the file says of it.
fn load(ports: &Desk, device: &str, target: &str) -> ((TargetRecord, Option<Failure>), Memo) {
    let name = state_name(device, target, RECORD);
    if let Err(error) = ports.state.settle(&name) {
        // Whoever writes to it next is told.
        tracing::warn!(device, target, "`{name}` cannot be synced: {error}");
    }
    match record::load_to_write(&*ports.state, device, target) {
        Ok((record, memo)) => ((record, None), memo),
        Err(e) => {
            let damage = damaged(device, target, &format!("cannot be read ({e})"));
            ((TargetRecord::default(), Some(damage)), Memo::default())
        }
    }
}
