//! Journal and snapshot: one encoding, schema 1.
//!
//! The journal is what must survive a power cut: phases, counters, the remaining time of long deadlines, events that
//! are not emitted yet. The snapshot begins with it and adds all the rest, so that nothing need be asked again.
//! Durations, never instants: the clock of the next instance begins anywhere. A field is never moved or re-used:
//! whatever changes here is another schema.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{HostErr, State};
use crate::jobs::{ClientToken, ExecutionStatus, JobId, StreamId};
use crate::settings::Key;
use crate::stream::{DownloadState, Downloader, PaceState, RequestState};
use crate::text::push_decimal;
use crate::types::{ApplicationEvent, Blob, Failure, InstantMs, Token, Version};

use super::Agent;
use super::codec::Codec;
use super::job::{Ending, FilePhase, Job, JobFile, Probe, Stage};
use super::lines::Why;
use super::ops::{Deed, Pending};
use super::report::Due;
use super::request::Held;
use super::table::Cause;
use super::timer::{NEVER, Timer};
use super::transfer::Transfer;

/// Most bytes of a journal.
pub const JOURNAL_MAX_BYTES: usize = 64 * 1024;

/// Longest document that is kept in a snapshot, which has 256 KiB: beside it stands the map of the largest file with
/// 128 KiB. A longer one is asked for again.
const DOCUMENT_KEPT_BYTES: usize = 100 * 1024;

/// Deadlines that a restart does not begin anew.
const DURABLE_TIMERS: [Timer; 3] = [Timer::Test, Timer::Limit, Timer::Custom];

pub(super) fn unknown_schema(schema: u32) -> Failure {
    let mut detail = String::from("this build does not know schema ");
    push_decimal(&mut detail, schema.into());
    Failure::new(HostErr::Schema.code() as u8, schema, &detail)
}

impl Agent {
    /// The journal, or with `all` the snapshot. Changes nothing.
    pub(super) fn save(&mut self, now: InstantMs, all: bool) -> Blob {
        // While suspended, time stands still.
        let base = if self.is_suspended() {
            self.suspended_since
        } else {
            now
        };
        let mut codec = Codec::writer(base);
        self.visit_journal(&mut codec);
        if all {
            self.visit_volatile(&mut codec);
        }
        Blob {
            schema: self.schema,
            bytes: codec.into_bytes(),
        }
    }

    pub(super) fn load_journal(&mut self, blob: &Blob) -> Result<(), Failure> {
        if blob.bytes.is_empty() {
            return Ok(());
        }
        self.load(blob, false)?;
        self.go_on_from_journal();
        Ok(())
    }

    pub(super) fn load_snapshot(&mut self, blob: &Blob, live: &[Token]) -> Result<(), Failure> {
        self.load(blob, true)?;
        // What is not under way any more is lost.
        for pending in core::mem::take(&mut self.ops.list) {
            if pending.token != 0 && live.contains(&pending.token) {
                self.ops.list.push(pending);
            } else {
                self.on_lost(pending);
            }
        }
        Ok(())
    }

    fn load(&mut self, blob: &Blob, all: bool) -> Result<(), Failure> {
        if !super::SCHEMAS.contains(&blob.schema) {
            return Err(unknown_schema(blob.schema));
        }
        let mut codec = Codec::reader(&blob.bytes, self.now);
        self.visit_journal(&mut codec);
        if all {
            self.visit_volatile(&mut codec);
        }
        if codec.is_complete() && self.makes_sense(all) {
            return Ok(());
        }
        let code = HostErr::Schema.code() as u8;
        Err(Failure::new(
            code,
            blob.schema,
            "the saved state is damaged",
        ))
    }

    /// A state that needs something it does not have would be a saved state of nothing.
    fn makes_sense(&self, all: bool) -> bool {
        let ends = matches!(
            self.job.stage,
            Stage::Report | Stage::Commit | Stage::Custom
        );
        let file = |file: &JobFile| file.size > 0 || self.job.stage != Stage::Taken;
        if (ends && self.job.ending.is_none()) || !self.job.files.iter().all(file) {
            return false;
        }
        let downloads = matches!(
            self.state,
            State::RequestingFileBlock | State::WaitingForFileBlock
        );
        let works = self.state.code() >= State::CreatingFile.code()
            && !matches!(
                self.state,
                State::Suspended | State::ShuttingDown | State::Stopped
            );
        !all || ((!works || self.job.is_taken()) && (!downloads || self.transfer.is_some()))
    }

    fn visit_journal(&mut self, c: &mut Codec<'_>) {
        c.uint(&mut self.news.last);
        c.list(&mut self.news.pending, fresh_event, visit_event);
        let mut suspended = self.is_suspended();
        c.flag(&mut suspended);
        if c.reads() && suspended {
            self.suspended_since = self.now;
        }
        visit_ids(c, &mut self.seen);
        // What was only offered will be offered again.
        let mut taken = self.job.is_taken();
        c.flag(&mut taken);
        if taken {
            visit_job(c, &mut self.job);
        }
        for timer in DURABLE_TIMERS {
            if let Some(slot) = self.timers.slots.get_mut(timer as usize) {
                c.instant(slot);
            }
        }
    }

    /// Looks have to be taken, and what the host process held in its hands is gone.
    fn go_on_from_journal(&mut self) {
        self.journal.dirty = !self.news.pending.is_empty();
        self.asking.next = true;
        let stage = self.job.stage;
        for file in &mut self.job.files {
            let may_activate = matches!(stage, Stage::AwaitRestart | Stage::Commit);
            let bringing =
                stage == Stage::Taken || (may_activate && file.phase <= FilePhase::Installed);
            if bringing {
                file.phase = FilePhase::ToDo;
                file.reopen = true;
                file.asked = stage != Stage::Taken;
            }
            file.look = stage == Stage::Back && file.phase == FilePhase::GoingBack;
        }
        if stage == Stage::Testing && !self.runs(Timer::Test) {
            self.begin_test();
        }
        if stage == Stage::Custom {
            self.arm_once(Timer::Custom, Key::CustomJobDeadline);
        }
    }

    fn visit_volatile(&mut self, c: &mut Codec<'_>) {
        let state = self.state as usize;
        c.one_of(&mut self.state, state, State::ALL);
        for flag in [
            &mut self.connected,
            &mut self.relinked,
            &mut self.begun,
            &mut self.asked_all,
            &mut self.unclaimed,
            &mut self.journal.dirty,
            &mut self.journal.storing,
            &mut self.news.idle_told,
            &mut self.asking.next,
            &mut self.asking.describe,
            &mut self.reporter.acknowledged,
            &mut self.reporter.compare,
        ] {
            c.flag(flag);
        }
        for number in [
            &mut self.journal.tries,
            &mut self.news.storing,
            &mut self.asking.tries,
            &mut self.subscriptions.tries,
            &mut self.reporter.tries,
            &mut self.reporter.refusals,
            &mut self.busy,
            &mut self.view.blocks.received,
            &mut self.view.blocks.processed,
            &mut self.view.blocks.dropped,
            &mut self.view.last_error.main,
            &mut self.view.last_error.sub,
        ] {
            c.uint32(number);
        }
        c.uint(&mut self.allowance);
        for slot in &mut self.timers.slots {
            c.instant(slot);
        }
        for held in &mut self.subscriptions.held {
            let place = *held as usize;
            c.one_of(
                held,
                place,
                &[Held::No, Held::Wanted, Held::Asked, Held::Yes],
            );
        }
        c.list(&mut self.ops.list, fresh_pending, visit_pending);
        self.visit_probes(c);
        c.option(
            &mut self.asking.sent,
            || (false, fresh_token()),
            |c, sent| {
                c.flag(&mut sent.0);
                visit_token(c, &mut sent.1);
            },
        );
        let due = self.reporter.due as usize;
        c.one_of(&mut self.reporter.due, due, &Due::ALL);
        c.list(&mut self.reporter.sent, fresh_token, visit_token);
        c.text(&mut self.reporter.payload);
        c.list(
            &mut self.reporter.progress,
            || (fresh_token(), 0),
            |c, (token, until)| {
                visit_token(c, token);
                c.instant(until);
            },
        );
        visit_ids(c, &mut self.left);
        visit_job(c, &mut self.job);
        self.visit_rest_of_job(c);
        self.visit_documents(c);
        self.visit_transfer(c);
        self.visit_since(c);
    }

    /// The documents of waiting events; the job's own stands in the job.
    fn visit_documents(&mut self, c: &mut Codec<'_>) {
        for event in &mut self.news.pending {
            let mut own = !self.job.document.is_empty()
                && self.job.document.len() <= DOCUMENT_KEPT_BYTES
                && event.document.as_slice() == self.job.document.as_bytes();
            c.flag(&mut own);
            if own {
                event.document = Vec::from(self.job.document.as_bytes());
            } else {
                c.bytes(&mut event.document);
            }
        }
    }

    fn visit_since(&mut self, c: &mut Codec<'_>) {
        let mut waited = self.now.saturating_sub(self.view.since);
        c.uint(&mut waited);
        if c.reads() {
            self.view.since = self.now.saturating_sub(waited);
        }
    }

    fn visit_probes(&mut self, c: &mut Codec<'_>) {
        let mut probes = self.probes.clone();
        c.list(&mut probes, Probe::default, |c, probe| {
            c.uint32(&mut probe.file);
            c.flag(&mut probe.asked);
            c.flag(&mut probe.stale);
            c.byte(&mut probe.state.code);
            visit_version(c, &mut probe.state.running);
            c.option(&mut probe.state.runs_new, || false, Codec::flag);
        });
        for probe in probes {
            // A target that is new in the configuration stays unasked, and is asked.
            if let Some(of) = self.probes.iter_mut().find(|of| of.file == probe.file) {
                *of = probe;
            }
        }
    }

    /// What a job has beyond its journal.
    fn visit_rest_of_job(&mut self, c: &mut Codec<'_>) {
        let job = &mut self.job;
        c.flag(&mut job.read_again);
        c.flag(&mut job.active);
        c.flag(&mut job.deferred);
        c.flag(&mut job.self_test);
        let mut failing = job.failing.map_or(0, |cause| cause as u8 + 1);
        c.byte(&mut failing);
        job.failing = Cause::ALL
            .get(usize::from(failing).wrapping_sub(1))
            .copied();
        let mut document = String::new();
        if job.document.len() <= DOCUMENT_KEPT_BYTES {
            document.clone_from(&job.document);
        }
        c.text(&mut document);
        let mut stream = String::from(job.stream.as_ref().map_or("", StreamId::as_str));
        c.text(&mut stream);
        if c.reads() {
            job.document = document;
            job.stream = StreamId::new(&stream).ok();
        }
        for file in &mut job.files {
            c.flag(&mut file.asked);
            c.flag(&mut file.look);
            c.flag(&mut file.late);
            c.flag(&mut file.announced);
            c.uint(&mut file.installed.0);
            c.uint(&mut file.installed.1);
            c.uint32(&mut file.blocks.0);
            c.uint32(&mut file.blocks.1);
        }
    }

    fn visit_transfer(&mut self, c: &mut Codec<'_>) {
        let now = self.now;
        let mut id = self.transfer.as_ref().map(|transfer| transfer.file);
        c.option(&mut id, || 0, Codec::uint32);
        let Some(id) = id else { return };
        let transfer = self.transfer.as_ref();
        let mut announced = transfer.is_some_and(|transfer| transfer.announced);
        c.flag(&mut announced);
        let mut state = transfer.map_or_else(fresh_download, |t| t.downloader.state(now));
        visit_download(c, &mut state);
        if !c.reads() || c.is_broken() {
            return;
        }
        let file = self.job.files.iter().find(|file| file.id == id);
        let Some(config) = file.and_then(|file| self.download_config(file)) else {
            return c.refuse();
        };
        let held = state.held.clone();
        // A window that no longer fits the settings begins anew; what is held stays held.
        let restored = Downloader::restore(config, now, state);
        match restored.or_else(|_| Downloader::new(config, Some(&held))) {
            Ok(downloader) => {
                self.transfer = Some(Transfer {
                    file: id,
                    downloader,
                    announced,
                })
            }
            Err(_) => c.refuse(),
        }
    }

    /// An operation that nobody knows the end of: look, and do it again.
    fn on_lost(&mut self, pending: Pending) {
        let Pending {
            deed,
            file: id,
            index,
            ..
        } = pending;
        match deed {
            Deed::Subscribe => {
                if let Some(held) = self.subscriptions.held.get_mut(index as usize) {
                    *held = Held::Wanted;
                }
            }
            Deed::Write => self.lose_write(id, index),
            Deed::Journal => {
                self.journal.storing = false;
                self.journal.dirty = true;
            }
            Deed::Create | Deed::Reopen => {
                if let Some(file) = self.file(id) {
                    file.reopen = true;
                    file.phase = FilePhase::ToDo;
                }
            }
            Deed::Activate | Deed::Reset | Deed::Commit | Deed::Reject | Deed::Abort => {
                if let Some(file) = self.file(id) {
                    file.look = true;
                }
            }
            // Ordered again as they are; and what is published is waited for by a timer anyway.
            Deed::Unsubscribe
            | Deed::Ask
            | Deed::Status
            | Deed::Progress
            | Deed::Blocks
            | Deed::Close
            | Deed::Install
            | Deed::SelfTest
            | Deed::State => {}
        }
    }
}

fn fresh_event() -> ApplicationEvent {
    ApplicationEvent {
        sequence: 0,
        kind: 0,
        job_id: None,
        file: None,
        failure: None,
        version: None,
        document: Vec::new(),
    }
}

/// Without its document: the job that it belongs to is offered again after a restart.
fn visit_event(c: &mut Codec<'_>, event: &mut ApplicationEvent) {
    c.uint32(&mut event.kind);
    c.option(&mut event.job_id, String::new, Codec::text);
    c.option(&mut event.file, || 0, Codec::uint32);
    c.option(
        &mut event.failure,
        || Failure::new(0, 0, ""),
        |c, failure| {
            c.byte(&mut failure.main);
            c.uint32(&mut failure.sub);
            c.text(&mut failure.detail);
        },
    );
    visit_version(c, &mut event.version);
}

fn visit_version(c: &mut Codec<'_>, version: &mut Option<Version>) {
    c.option(version, Version::default, |c, version| {
        let mut word = version.word();
        c.uint32(&mut word);
        c.uint32(&mut version.build);
        *version = Version {
            build: version.build,
            ..Version::from_word(word)
        };
    });
}

fn visit_ids(c: &mut Codec<'_>, ids: &mut Vec<JobId>) {
    let mut texts: Vec<String> = ids.iter().map(|id| String::from(id.as_str())).collect();
    c.list(&mut texts, String::new, Codec::text);
    if c.reads() {
        ids.clear();
        ids.extend(texts.iter().filter_map(|text| JobId::new(text).ok()));
    }
}

const fn fresh_token() -> ClientToken {
    ClientToken { number: 0, seed: 0 }
}

fn visit_token(c: &mut Codec<'_>, token: &mut ClientToken) {
    c.uint(&mut token.number);
    c.uint32(&mut token.seed);
}

const fn fresh_pending() -> Pending {
    Pending {
        op: 0,
        token: 0,
        deed: Deed::Subscribe,
        file: 0,
        index: 0,
        deadline: NEVER,
    }
}

fn visit_pending(c: &mut Codec<'_>, pending: &mut Pending) {
    c.uint(&mut pending.token);
    let deed = pending.deed as usize;
    c.one_of(&mut pending.deed, deed, &Deed::ALL);
    c.uint32(&mut pending.file);
    c.uint32(&mut pending.index);
    c.instant(&mut pending.deadline);
}

/// What survives a power cut of a job.
fn visit_job(c: &mut Codec<'_>, job: &mut Job) {
    let mut id = String::from(job.text());
    c.text(&mut id);
    if c.reads() {
        job.id = JobId::new(&id).ok();
    }
    let stage = job.stage as usize;
    c.one_of(&mut job.stage, stage, &Stage::ALL);
    c.uint32(&mut job.block_size);
    c.flag(&mut job.withdrawn);
    c.uint32(&mut job.updated_by);
    c.uint32(&mut job.starts);
    c.option(&mut job.ending, fresh_ending, |c, ending| {
        const WORDS: [ExecutionStatus; 4] = [
            ExecutionStatus::InProgress,
            ExecutionStatus::Failed,
            ExecutionStatus::Succeeded,
            ExecutionStatus::Rejected,
        ];
        c.text(&mut ending.head);
        let place = WORDS
            .iter()
            .position(|word| *word == ending.word)
            .unwrap_or(0);
        c.one_of(&mut ending.word, place, &WORDS);
        c.uint32(&mut ending.why.main);
        c.uint32(&mut ending.why.sub);
        c.text(&mut ending.detail);
    });
    c.list(&mut job.files, JobFile::default, |c, file| {
        c.uint32(&mut file.id);
        c.uint32(&mut file.file_type);
        c.uint(&mut file.size);
        let phase = file.phase as usize;
        c.one_of(&mut file.phase, phase, &FilePhase::ALL);
        visit_version(c, &mut file.image);
        visit_version(c, &mut file.old);
        c.uint32(&mut file.tries);
        c.flag(&mut file.firmware);
        c.flag(&mut file.approved);
        c.flag(&mut file.tested);
        c.flag(&mut file.ran);
        c.flag(&mut file.reopen);
    });
}

fn fresh_ending() -> Ending {
    Ending {
        head: String::new(),
        word: ExecutionStatus::Failed,
        why: Why::default(),
        detail: String::new(),
    }
}

fn fresh_download() -> DownloadState {
    DownloadState {
        held: Vec::new(),
        writing: Vec::new(),
        requests: Vec::new(),
        momentum: 0,
        pace: PaceState::default(),
        paused: false,
        gave_up: false,
    }
}

fn visit_download(c: &mut Codec<'_>, state: &mut DownloadState) {
    c.bytes(&mut state.held);
    c.list(&mut state.writing, || 0, Codec::uint32);
    c.list(&mut state.requests, RequestState::default, |c, request| {
        c.uint32(&mut request.remaining);
        c.list(&mut request.wanted, || 0, Codec::uint32);
    });
    c.uint32(&mut state.momentum);
    c.flag(&mut state.paused);
    c.flag(&mut state.gave_up);
    for duration in [
        &mut state.pace.silence_in_ms,
        &mut state.pace.hold_in_ms,
        &mut state.pace.pause_ms,
    ] {
        c.option(duration, || 0, Codec::uint);
    }
    c.uint32(&mut state.pace.silences);
    c.option(&mut state.pace.allowance, || 0, Codec::uint);
}
