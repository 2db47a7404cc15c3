//! What a saved state holds, field by field: one line of code writes and reads it. A field is never moved or re-used: what
//! changes is another schema, but for a last one that only who needs it writes, and who does not know it refuses.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::State;
use crate::jobs::{ClientToken, Encoding, ExecutionStatus, JobId, StreamId};
use crate::stream::{DownloadState, Downloader, RequestState};
use crate::types::{ApplicationEvent, Failure, Version};

use super::Agent;
use super::codec::{Codec, Item};
use super::job::{Ending, FilePhase, Job, JobFile, Probe, Stage};
use super::ops::{Deed, Pending};
use super::report::{Due, Sent};
use super::request::Held;
use super::table::Cause;
use super::timer::Timer;
use super::transfer::Transfer;

/// Longest document that is kept in a snapshot, which has 256 KiB: beside it stand its URLs, which are no longer, and the
/// map of the largest file with 128 KiB. A longer one is asked for again before the next file is created.
const DOCUMENT_KEPT_BYTES: usize = 50 * 1024;

/// Deadlines that a restart does not begin anew.
const DURABLE_TIMERS: [Timer; 3] = [Timer::Test, Timer::Limit, Timer::Custom];

impl Agent {
    /// What must survive a power cut.
    pub(super) fn visit_journal(&mut self, c: &mut Codec<'_>) {
        c.uint(&mut self.news.last);
        c.list(&mut self.news.pending);
        let mut suspended = self.is_suspended();
        c.flag(&mut suspended);
        if c.reads() && suspended {
            self.suspended_since = self.now;
        }
        c.list(&mut self.seen);
        // What was only offered will be offered again.
        let mut taken = self.job.is_taken();
        c.flag(&mut taken);
        if taken {
            self.job.visit(c);
        }
        for timer in DURABLE_TIMERS {
            if let Some(slot) = self.timers.slots.get_mut(timer as usize) {
                c.instant(slot);
            }
        }
    }

    /// All the rest.
    pub(super) fn visit_volatile(&mut self, c: &mut Codec<'_>) {
        self.state = c.one_of(self.state, self.state as usize, State::ALL);
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
            &mut self.round_trip.smoothed,
            &mut self.round_trip.spread,
        ] {
            c.uint32(number);
        }
        c.uint(&mut self.allowance);
        c.uint(&mut self.random.0);
        for slot in &mut self.timers.slots {
            c.instant(slot);
        }
        for held in &mut self.subscriptions.held {
            *held = c.one_of(*held, *held as usize, &Held::ALL);
        }
        c.list(&mut self.ops.list);
        self.visit_probes(c);
        c.option(&mut self.asking.sent);
        self.reporter.due = c.one_of(self.reporter.due, self.reporter.due as usize, &Due::ALL);
        for at in 0..c.count(self.reporter.sent.len()) {
            let sent = &mut self.reporter.sent;
            if at >= sent.len() {
                sent.push(Sent::default());
            }
            if let Some((token, at)) = sent.get_mut(at) {
                token.visit(c);
                c.past(at);
            }
        }
        c.text(&mut self.reporter.payload);
        c.list(&mut self.reporter.progress);
        c.list(&mut self.left);
        self.job.visit(c);
        self.visit_rest_of_job(c);
        self.visit_documents(c);
        self.visit_transfer(c);
        c.past(&mut self.view.since);
        self.visit_encoding(c);
    }

    /// Last, and only if it is not CBOR: in which encoding the stream is subscribed to. Where the settings have another
    /// one now, it is subscribed to anew.
    fn visit_encoding(&mut self, c: &mut Codec<'_>) {
        let is_json = self.settings.stream_encoding == Encoding::Json;
        let mut was_json = if c.reads() { !c.is_complete() } else { is_json };
        if was_json {
            c.flag(&mut was_json);
            if !was_json {
                return c.refuse();
            }
        }
        if was_json != is_json && self.subscriptions.renew_stream() {
            // As after a change of the plane.
            self.relinked |= !self.job.by_url;
        }
    }

    /// The documents of waiting events; the job's own stands in the job.
    fn visit_documents(&mut self, c: &mut Codec<'_>) {
        let document = self.job.document.as_bytes();
        for event in &mut self.news.pending {
            let mut own = !document.is_empty()
                && document.len() <= DOCUMENT_KEPT_BYTES
                && event.document == document;
            c.flag(&mut own);
            if own {
                event.document = Vec::from(document);
            } else {
                c.bytes(&mut event.document);
            }
        }
    }

    fn visit_probes(&mut self, c: &mut Codec<'_>) {
        for at in 0..c.count(self.probes.len()) {
            let mut probe = self.probes.get(at).copied().unwrap_or_default();
            probe.visit(c);
            // A target that is new in the configuration stays unasked, and is asked.
            if let Some(of) = self.probes.iter_mut().find(|of| of.file == probe.file) {
                *of = probe;
            }
        }
    }

    /// What a job has beyond its journal.
    fn visit_rest_of_job(&mut self, c: &mut Codec<'_>) {
        let job = &mut self.job;
        for flag in [
            &mut job.read_again,
            &mut job.active,
            &mut job.deferred,
            &mut job.self_test,
            &mut job.known,
            &mut job.by_url,
            &mut job.spare,
        ] {
            c.flag(flag);
        }
        let mut failing = job.failing.map_or(0, |cause| cause as u8 + 1);
        c.byte(&mut failing);
        job.failing = Cause::ALL
            .get(usize::from(failing).wrapping_sub(1))
            .copied();
        let mut none = (String::new(), Vec::new());
        let (document, urls) = if job.document.len() <= DOCUMENT_KEPT_BYTES {
            (&mut job.document, &mut job.urls)
        } else {
            (&mut none.0, &mut none.1)
        };
        c.text(document);
        c.list(urls);
        let mut stream = String::from(job.stream.as_ref().map_or("", StreamId::as_str));
        c.text(&mut stream);
        job.stream = StreamId::new(&stream).ok();
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
        let now = c.base();
        let transfer = self.transfer.as_ref();
        let mut id = transfer.map(|transfer| transfer.file);
        c.option(&mut id);
        let Some(id) = id else { return };
        let mut announced = transfer.is_some_and(|transfer| transfer.announced);
        c.flag(&mut announced);
        let mut state = transfer.map_or_else(DownloadState::default, |t| t.downloader.state(now));
        let mut refreshes = transfer.map_or(0, |transfer| transfer.refreshes);
        c.uint32(&mut refreshes);
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
                    refreshes,
                });
            }
            Err(_) => c.refuse(),
        }
    }
}

/// Without its document: the job that it belongs to is offered again after a restart.
impl Item for ApplicationEvent {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.uint32(&mut self.kind);
        c.option(&mut self.job_id);
        c.option(&mut self.file);
        c.option(&mut self.failure);
        c.option(&mut self.version);
    }
}

impl Item for Failure {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.byte(&mut self.main);
        c.uint32(&mut self.sub);
        c.text(&mut self.detail);
    }
}

impl Item for Version {
    fn visit(&mut self, c: &mut Codec<'_>) {
        let mut word = self.word();
        c.uint32(&mut word);
        c.uint32(&mut self.build);
        *self = Self {
            build: self.build,
            ..Self::from_word(word)
        };
    }
}

impl Item for ClientToken {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.uint(&mut self.number);
        c.uint32(&mut self.seed);
    }
}

/// A question to the service: whether it is about the job at hand.
impl Item for (bool, Sent) {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.flag(&mut self.0);
        self.1.0.visit(c);
        c.past(&mut self.1.1);
    }
}

/// Progress, and until when it may be answered.
impl Item for (ClientToken, u64) {
    fn visit(&mut self, c: &mut Codec<'_>) {
        self.0.visit(c);
        c.instant(&mut self.1);
    }
}

impl Item for Pending {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.uint(&mut self.token);
        self.deed = c.one_of(self.deed, self.deed as usize, &Deed::ALL);
        c.uint32(&mut self.file);
        c.uint32(&mut self.index);
        c.instant(&mut self.deadline);
    }
}

impl Item for Probe {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.uint32(&mut self.file);
        c.flag(&mut self.asked);
        c.flag(&mut self.stale);
        c.byte(&mut self.state.code);
        c.option(&mut self.state.running);
        c.option(&mut self.state.runs_new);
    }
}

impl Job {
    /// What survives a power cut of a job.
    fn visit(&mut self, c: &mut Codec<'_>) {
        let mut id = String::from(self.text());
        c.text(&mut id);
        self.id = JobId::new(&id).ok();
        self.stage = c.one_of(self.stage, self.stage as usize, &Stage::ALL);
        c.uint32(&mut self.block_size);
        c.flag(&mut self.withdrawn);
        c.uint32(&mut self.updated_by);
        c.uint32(&mut self.starts);
        c.option(&mut self.ending);
        c.list(&mut self.files);
    }
}

impl Item for Ending {
    fn visit(&mut self, c: &mut Codec<'_>) {
        const WORDS: [ExecutionStatus; 4] = [
            ExecutionStatus::InProgress,
            ExecutionStatus::Failed,
            ExecutionStatus::Succeeded,
            ExecutionStatus::Rejected,
        ];
        c.text(&mut self.head);
        let place = WORDS.iter().position(|word| *word == self.word);
        self.word = c.one_of(self.word, place.unwrap_or(0), &WORDS);
        c.uint32(&mut self.why.main);
        c.uint32(&mut self.why.sub);
        c.text(&mut self.detail);
    }
}

impl Item for JobFile {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.uint32(&mut self.id);
        c.uint32(&mut self.file_type);
        c.uint(&mut self.size);
        self.phase = c.one_of(self.phase, self.phase as usize, &FilePhase::ALL);
        c.option(&mut self.image);
        c.option(&mut self.old);
        c.uint32(&mut self.tries);
        c.flag(&mut self.firmware);
        c.flag(&mut self.approved);
        c.flag(&mut self.tested);
        c.flag(&mut self.ran);
        c.flag(&mut self.reopen);
    }
}

impl Item for RequestState {
    fn visit(&mut self, c: &mut Codec<'_>) {
        c.uint32(&mut self.remaining);
        c.list(&mut self.wanted);
        c.uint32(&mut self.number);
    }
}

fn visit_download(c: &mut Codec<'_>, state: &mut DownloadState) {
    c.bytes(&mut state.held);
    c.list(&mut state.writing);
    c.list(&mut state.requests);
    c.uint32(&mut state.momentum);
    c.uint32(&mut state.newest);
    c.uint32(&mut state.pace.window);
    c.flag(&mut state.paused);
    c.flag(&mut state.gave_up);
    let pace = &mut state.pace;
    c.option(&mut pace.silence_in_ms);
    c.option(&mut pace.hold_in_ms);
    c.option(&mut pace.quiet_for_ms);
    c.flag(&mut pace.repeats);
    c.flag(&mut pace.heard);
    c.option(&mut pace.pause_ms);
    c.uint32(&mut pace.silences);
    c.option(&mut pace.allowance);
}
