//! Journal and snapshot: one encoding, schema 1, compact CBOR arrays.
//!
//! `[journal, volatile or null]`. The journal is what must survive a power cut: phases, counters, the remaining time of
//! long deadlines, events that are not emitted yet. The snapshot adds all the rest, so that nothing need be asked
//! again. Durations, never instants: the clock of the next instance begins anywhere.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{HostErr, State};
#[cfg(test)]
use crate::jobs::JobId;
use crate::stream::{DownloadState, Downloader, PaceState, RequestState, Statistics};
use crate::text::push_decimal;
use crate::types::{Blob, Failure, InstantMs, Level, Token};

use super::job::{FilePhase, Job, Stage};
use super::offer::Offered;
use super::ops::{Doing, Duty};
use super::request::{Held, Question};
use super::saved_parts::{
    Damaged, Read, Reader, Writer, read_doing, read_ending, read_entry, read_event, read_failure,
    read_job, read_job_id, read_state, read_status, read_stream, read_token, write_doing,
    write_ending, write_entry, write_event, write_failure, write_job, write_state, write_status,
    write_token,
};
use super::table::Cause;
use super::timer::Timer;
use super::transfer::Transfer;
use super::{Agent, Failing};

/// Most bytes of a journal.
pub const JOURNAL_MAX_BYTES: usize = 64 * 1024;

/// Deadlines that a restart does not begin anew.
const DURABLE_TIMERS: [Timer; 4] = [Timer::Test, Timer::Limit, Timer::Custom, Timer::Restart];

pub(super) fn unknown_schema(schema: u32) -> Failure {
    let mut detail = String::from("this build does not know schema ");
    push_decimal(&mut detail, schema.into());
    Failure::new(HostErr::Schema.code() as u8, schema, &detail)
}

fn damaged(schema: u32) -> Failure {
    Failure::new(
        HostErr::Schema.code() as u8,
        schema,
        "the saved state is damaged",
    )
}

impl Agent {
    pub(super) fn save_journal(&self) -> Blob {
        let mut w = Writer::new();
        w.array(2);
        self.write_journal(&mut w, false);
        w.option(None, |_, ()| {});
        Blob {
            schema: self.schema,
            bytes: w.into_bytes(),
        }
    }

    pub(super) fn save_snapshot(&self, now: InstantMs) -> Blob {
        let mut w = Writer::new();
        w.array(2);
        self.write_journal(&mut w, true);
        self.write_volatile(&mut w, now);
        Blob {
            schema: self.schema,
            bytes: w.into_bytes(),
        }
    }

    /// The instant that durations are counted from: while suspended, time stands still.
    fn base(&self, now: InstantMs) -> InstantMs {
        self.suspended_since.unwrap_or(now)
    }

    fn write_journal(&self, w: &mut Writer, documents: bool) {
        w.array(6).uint(self.news.last);
        let offered = self
            .offered
            .as_ref()
            .map(|offered| offered.document.as_bytes());
        w.list(&self.news.pending, |w, event| {
            // An offer's document is in the snapshot once, and not in a journal: the job is offered again.
            write_event(
                w,
                event,
                documents && offered != Some(event.document.as_slice()),
            );
        });
        w.flag(self.suspended_since.is_some());
        w.list(&self.seen, |w, id| {
            w.text(id.as_str());
        });
        w.option(self.job.as_ref(), write_job);
        let base = self.base(self.now);
        w.list(&DURABLE_TIMERS, |w, timer| {
            w.option_uint(self.timers.at(*timer).map(|at| at.saturating_sub(base)));
        });
    }

    pub(super) fn load_journal(&mut self, blob: &Blob) -> Result<(), Failure> {
        if blob.bytes.is_empty() {
            return Ok(());
        }
        let mut r = open(blob)?;
        self.read_journal(&mut r)
            .map_err(|_| damaged(blob.schema))?;
        self.go_on_from_journal();
        Ok(())
    }

    fn read_journal(&mut self, r: &mut Reader<'_>) -> Read<()> {
        r.array(2)?;
        r.array(6)?;
        self.news.last = r.uint()?;
        self.news.pending = r.list(read_event)?;
        self.suspended_since = r.flag()?.then_some(self.now);
        self.seen = r.list(read_job_id)?;
        self.job = r.option(read_job)?;
        let timers = r.list(Reader::option_uint)?;
        for (timer, left) in DURABLE_TIMERS.into_iter().zip(timers) {
            if let Some(left) = left {
                self.timers.set(timer, self.now.saturating_add(left));
            }
        }
        Ok(())
    }

    /// Looks have to be taken, and what the host process held in its hands is gone.
    fn go_on_from_journal(&mut self) {
        self.journal.dirty = !self.news.pending.is_empty();
        self.asking.next = true;
        // A restart of the agent is none of the targets: their time begins when a look says that they are away.
        self.timers.stop(Timer::Restart);
        let Some(job) = &mut self.job else { return };
        let stage = job.stage;
        for file in &mut job.files {
            let bringing = match stage {
                Stage::Taken => true,
                Stage::AwaitRestart | Stage::Commit => file.phase <= FilePhase::Installed,
                Stage::Testing | Stage::Back | Stage::Report | Stage::Custom => false,
            };
            if bringing {
                file.phase = FilePhase::ToDo;
                file.reopen = true;
                file.asked = stage != Stage::Taken;
            }
            file.look = stage == Stage::Back && file.phase == FilePhase::GoingBack;
        }
        let tests = stage == Stage::Testing && !self.timers.runs(Timer::Test);
        let runs = stage == Stage::Custom && !self.timers.runs(Timer::Custom);
        if tests {
            self.begin_test();
        }
        if runs {
            let at = self.now
                + self
                    .settings
                    .number(crate::settings::Key::CustomJobDeadline);
            self.timers.set(Timer::Custom, at);
        }
    }

    fn write_volatile(&self, w: &mut Writer, now: InstantMs) {
        let base = self.base(now);
        w.array(18).uint(self.state.code().into());
        w.list(&self.flags(), |w, flag| {
            w.flag(*flag);
        });
        w.list(&Timer::ALL, |w, timer| {
            w.option_uint(self.timers.at(*timer).map(|at| at.saturating_sub(base)));
        });
        let under_way: Vec<_> = self
            .ops
            .list()
            .iter()
            .filter_map(|p| p.token.map(|t| (t, p)))
            .collect();
        w.list(&under_way, |w, (token, pending)| {
            w.array(3)
                .uint(*token)
                .uint(pending.deadline.saturating_sub(base));
            write_doing(w, pending.doing);
        });
        w.list(&self.probes, |w, probe| {
            w.array(4)
                .uint(probe.file.into())
                .flag(probe.asked)
                .flag(probe.stale);
            write_state(w, probe.state);
        });
        w.list(&self.subscriptions.list, |w, subscription| {
            w.array(4)
                .uint(subscription.id.into())
                .text(&subscription.filter);
            w.uint(subscription.held as u64).flag(subscription.stream);
        });
        self.write_asking(w);
        self.write_reporter(w, base);
        w.option(self.offered.as_ref(), |w, offered| {
            w.array(4).text(offered.id.as_str()).text(&offered.document);
            w.flag(offered.custom).flag(offered.deferred);
        });
        w.option(self.job.as_ref(), write_job_rest);
        w.option(self.transfer.as_ref(), |w, transfer| {
            write_transfer(w, transfer, base)
        });
        w.list(&self.left, |w, id| {
            w.text(id.as_str());
        });
        w.array(3)
            .uint(self.journal.tries.into())
            .uint(self.news.storing as u64);
        w.flag(self.news.idle_told);
        let blocks = self.counters.blocks;
        w.array(3)
            .uint(blocks.received.into())
            .uint(blocks.processed.into());
        w.uint(blocks.dropped.into());
        w.uint(self.busy.into());
        w.option_uint(self.allowance);
        w.uint(now.saturating_sub(self.view.since));
        w.option(self.view.last_error.as_ref(), write_failure);
    }

    fn flags(&self) -> [bool; 9] {
        [
            self.connected,
            self.relinked,
            self.begun,
            self.asked_all,
            self.unsubscribe,
            self.unclaimed,
            self.journal.dirty,
            self.journal.storing,
            self.asking.next,
        ]
    }

    fn write_asking(&self, w: &mut Writer) {
        w.array(4)
            .flag(self.asking.describe)
            .uint(self.asking.tries.into());
        w.uint(self.subscriptions.tries.into());
        w.option(self.asking.sent, |w, question| {
            w.array(2).flag(question.describe);
            write_token(w, question.token);
        });
    }

    fn write_reporter(&self, w: &mut Writer, base: InstantMs) {
        let reporter = &self.reporter;
        w.array(8);
        w.option(reporter.wanted.as_ref(), write_status);
        w.list(&reporter.sent, |w, token| write_token(w, *token));
        w.flag(reporter.acknowledged)
            .uint(reporter.tries.into())
            .uint(reporter.refusals.into());
        w.flag(reporter.compare).text(&reporter.payload);
        w.list(&reporter.progress, |w, (token, until)| {
            w.array(2).uint(until.saturating_sub(base));
            write_token(w, *token);
        });
    }

    pub(super) fn load_snapshot(&mut self, blob: &Blob, live: &[Token]) -> Result<(), Failure> {
        let mut r = open(blob)?;
        let lost = self
            .read_snapshot(&mut r, live)
            .map_err(|_| damaged(blob.schema))?;
        if !r.is_at_end() {
            return Err(damaged(blob.schema));
        }
        for doing in lost {
            self.on_lost(doing);
        }
        Ok(())
    }

    fn read_snapshot(&mut self, r: &mut Reader<'_>, live: &[Token]) -> Read<Vec<Doing>> {
        self.read_journal(r)?;
        r.array(18)?;
        self.state = State::from_code(r.byte()?).ok_or(Damaged)?;
        self.read_flags(r)?;
        let timers = r.list(Reader::option_uint)?;
        for (timer, left) in Timer::ALL.into_iter().zip(timers) {
            match left {
                Some(left) => self.timers.set(timer, self.now.saturating_add(left)),
                None => self.timers.stop(timer),
            }
        }
        let lost = self.read_ops(r, live)?;
        self.read_probes(r)?;
        self.read_subscriptions(r)?;
        self.read_asking(r)?;
        self.read_reporter(r)?;
        self.offered = r.option(|r| {
            r.array(4)?;
            let (id, document) = (read_job_id(r)?, r.text()?);
            Ok(Offered {
                id,
                document,
                custom: r.flag()?,
                deferred: r.flag()?,
            })
        })?;
        let mut job = self.job.take();
        r.option(|r| read_job_rest(r, job.as_mut().ok_or(Damaged)?))?;
        self.job = job;
        self.read_transfer(r)?;
        self.left = r.list(read_job_id)?;
        r.array(3)?;
        self.journal.tries = r.uint32()?;
        self.news.storing = usize::try_from(r.uint()?).map_err(|_| Damaged)?;
        self.news.idle_told = r.flag()?;
        self.restore_documents();
        r.array(3)?;
        self.counters.blocks = Statistics {
            received: r.uint32()?,
            processed: r.uint32()?,
            dropped: r.uint32()?,
        };
        self.busy = r.uint32()?;
        self.allowance = r.option_uint()?;
        self.view.since = self.now.saturating_sub(r.uint()?);
        self.view.last_error = r.option(read_failure)?;
        self.check_restored().map(|()| lost)
    }

    /// A state that needs something it does not have would be a snapshot of nothing.
    fn check_restored(&self) -> Read<()> {
        let needs_job = self.state.code() >= State::CreatingFile.code()
            && !matches!(
                self.state,
                State::Suspended | State::ShuttingDown | State::Stopped
            );
        let downloads = matches!(
            self.state,
            State::RequestingFileBlock | State::WaitingForFileBlock
        );
        let broken = (needs_job && self.job.is_none()) || (downloads && self.transfer.is_none());
        if broken { Err(Damaged) } else { Ok(()) }
    }

    fn read_flags(&mut self, r: &mut Reader<'_>) -> Read<()> {
        let flags = r.list(Reader::flag)?;
        let [
            connected,
            relinked,
            begun,
            asked_all,
            unsubscribe,
            unclaimed,
            dirty,
            storing,
            next,
        ] = flags.try_into().map_err(|_| Damaged)?;
        self.connected = connected;
        self.relinked = relinked;
        self.begun = begun;
        self.asked_all = asked_all;
        self.unsubscribe = unsubscribe;
        self.unclaimed = unclaimed;
        self.journal.dirty = dirty;
        self.journal.storing = storing;
        self.asking.next = next;
        Ok(())
    }

    /// Takes over what is still under way; what is not is lost.
    fn read_ops(&mut self, r: &mut Reader<'_>, live: &[Token]) -> Read<Vec<Doing>> {
        let saved = r.list(|r| {
            r.array(3)?;
            Ok((r.uint()?, r.uint()?, read_doing(r)?))
        })?;
        let mut lost = Vec::new();
        for (token, left, doing) in saved {
            if live.contains(&token) {
                self.ops.adopt(token, doing, self.now.saturating_add(left));
            } else {
                lost.push(doing);
            }
        }
        Ok(lost)
    }

    fn read_probes(&mut self, r: &mut Reader<'_>) -> Read<()> {
        let saved = r.list(|r| {
            r.array(4)?;
            Ok((r.uint32()?, r.flag()?, r.flag()?, read_state(r)?))
        })?;
        for (file, asked, stale, state) in saved {
            // A target that is new in the configuration stays unasked, and is asked.
            if let Some(probe) = self.probes.iter_mut().find(|probe| probe.file == file) {
                probe.asked = asked;
                probe.stale = stale;
                probe.state = state;
            }
        }
        Ok(())
    }

    fn read_subscriptions(&mut self, r: &mut Reader<'_>) -> Read<()> {
        let saved = r.list(|r| {
            r.array(4)?;
            let (id, filter) = (r.uint32()?, r.text()?);
            let held = r.one_of(&[Held::Wanted, Held::Asked, Held::Held])?;
            Ok((id, filter, held, r.flag()?))
        })?;
        self.subscriptions.renumber(true);
        for (id, filter, held, stream) in saved {
            self.subscriptions.restore(id, filter, held, stream);
        }
        self.subscriptions.renumber(false);
        Ok(())
    }

    fn read_asking(&mut self, r: &mut Reader<'_>) -> Read<()> {
        r.array(4)?;
        self.asking.describe = r.flag()?;
        self.asking.tries = r.uint32()?;
        self.subscriptions.tries = r.uint32()?;
        self.asking.sent = r.option(|r| {
            r.array(2)?;
            Ok(Question {
                describe: r.flag()?,
                token: read_token(r)?,
            })
        })?;
        Ok(())
    }

    fn read_reporter(&mut self, r: &mut Reader<'_>) -> Read<()> {
        r.array(8)?;
        let now = self.now;
        let reporter = &mut self.reporter;
        reporter.wanted = r.option(read_status)?;
        reporter.sent = r.list(read_token)?;
        reporter.acknowledged = r.flag()?;
        reporter.tries = r.uint32()?;
        reporter.refusals = r.uint32()?;
        reporter.compare = r.flag()?;
        reporter.payload = r.text()?;
        reporter.progress = r.list(|r| {
            r.array(2)?;
            let until = now.saturating_add(r.uint()?);
            Ok((read_token(r)?, until))
        })?;
        Ok(())
    }

    fn read_transfer(&mut self, r: &mut Reader<'_>) -> Read<()> {
        let saved = r.option(|r| {
            r.array(3)?;
            Ok((r.uint32()?, r.flag()?, read_download(r)?))
        })?;
        let Some((id, announced, state)) = saved else {
            return Ok(());
        };
        let job = self.job.as_ref().ok_or(Damaged)?;
        let file = job.files.iter().find(|file| file.id == id).ok_or(Damaged)?;
        let config = self.download_config(job, file).ok_or(Damaged)?;
        let held = state.held.clone();
        // A window that no longer fits the settings begins anew; what is held stays held.
        let downloader = Downloader::restore(config, self.now, state)
            .or_else(|_| Downloader::reopen(config, &held))
            .map_err(|_| Damaged)?;
        self.transfer = Some(Transfer {
            file: id,
            downloader,
            announced,
        });
        Ok(())
    }

    fn restore_documents(&mut self) {
        use crate::code::JobEvent;
        let Some(offered) = &self.offered else { return };
        for event in &mut self.news.pending {
            let about = event.job_id.as_deref() == Some(offered.id.as_str());
            let kind = [JobEvent::ReceivedJob, JobEvent::ParseCustomJob];
            if about && event.document.is_empty() && kind.iter().any(|k| k.code() == event.kind) {
                event.document = Vec::from(offered.document.as_bytes());
            }
        }
    }

    /// An operation that nobody knows the end of: look, and do it again.
    fn on_lost(&mut self, doing: Doing) {
        match doing {
            Doing::Subscribe(id) => self.subscriptions.lose(id),
            Doing::Write(file, index) => self.lose_write(file, index),
            Doing::Journal => {
                self.journal.storing = false;
                self.journal.dirty = true;
            }
            Doing::Duty(id, duty) => {
                let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
                    return;
                };
                match duty {
                    Duty::Create | Duty::Reopen => {
                        file.reopen = true;
                        file.phase = FilePhase::ToDo;
                    }
                    Duty::Activate | Duty::Reset | Duty::Commit | Duty::Reject | Duty::Abort => {
                        file.look = true;
                    }
                    // These are ordered again as they are.
                    Duty::Close | Duty::Install | Duty::SelfTest | Duty::State => {}
                }
            }
            // Their answers or timers are waited for anyway.
            Doing::Unsubscribe | Doing::Ask | Doing::Status | Doing::Progress | Doing::Blocks => {}
        }
    }

    pub(super) fn greet(&mut self) {
        let description = Self::describe();
        let device = String::from(self.settings.thing.as_str());
        let parts = [
            description.name,
            " ",
            description.version,
            ", device ",
            &device,
        ];
        self.log(Level::Info, &parts);
        for key in core::mem::take(&mut self.settings.unknown) {
            self.log(Level::Warn, &["unknown setting ignored: ", &key]);
        }
        if let Some(id) = self.job.as_ref().and_then(|job| job.id.clone()) {
            self.log(Level::Info, &["going on with job ", id.as_str()]);
        }
    }
}

fn open(blob: &Blob) -> Result<Reader<'_>, Failure> {
    if super::SCHEMAS.contains(&blob.schema) {
        Ok(Reader::new(&blob.bytes))
    } else {
        Err(unknown_schema(blob.schema))
    }
}

/// What a job has beyond its journal.
fn write_job_rest(w: &mut Writer, job: &Job) {
    w.array(4).flag(job.active);
    w.option(job.stream.as_ref(), |w, stream| {
        w.text(stream.as_str());
    });
    w.option(job.failing.as_ref(), |w, failing| {
        w.array(3)
            .uint(failing.cause as u64)
            .flag(failing.self_test);
        write_ending(w, &failing.ending);
    });
    w.list(&job.files, |w, file| {
        w.array(8)
            .flag(file.asked)
            .flag(file.look)
            .flag(file.late)
            .flag(file.announced);
        w.uint(file.installed.0).uint(file.installed.1);
        w.array(2)
            .uint(file.blocks.0.into())
            .uint(file.blocks.1.into());
        w.option(file.entry.as_ref(), write_entry);
    });
}

fn read_job_rest(r: &mut Reader<'_>, job: &mut Job) -> Read<()> {
    r.array(4)?;
    job.active = r.flag()?;
    job.stream = r.option(read_stream)?;
    job.failing = r.option(|r| {
        r.array(3)?;
        let cause = r.one_of(&Cause::ALL)?;
        Ok(Failing {
            cause,
            self_test: r.flag()?,
            ending: read_ending(r)?,
        })
    })?;
    r.array(job.files.len() as u64)?;
    for file in &mut job.files {
        r.array(8)?;
        file.asked = r.flag()?;
        file.look = r.flag()?;
        file.late = r.flag()?;
        file.announced = r.flag()?;
        file.installed = (r.uint()?, r.uint()?);
        r.array(2)?;
        file.blocks = (r.uint32()?, r.uint32()?);
        file.entry = r.option(read_entry)?;
    }
    Ok(())
}

fn write_transfer(w: &mut Writer, transfer: &Transfer, base: InstantMs) {
    let state = transfer.downloader.state(base);
    w.array(3)
        .uint(transfer.file.into())
        .flag(transfer.announced);
    w.array(7).bytes(&state.held);
    w.list(&state.writing, |w, block| {
        w.uint((*block).into());
    });
    w.list(&state.requests, |w, request| {
        w.array(2).uint(request.remaining.into());
        w.list(&request.wanted, |w, block| {
            w.uint((*block).into());
        });
    });
    w.uint(state.momentum.into())
        .flag(state.paused)
        .flag(state.gave_up);
    w.array(5);
    w.option_uint(state.pace.silence_in_ms);
    w.option_uint(state.pace.hold_in_ms);
    w.option_uint(state.pace.pause_ms);
    w.uint(state.pace.silences.into());
    w.option_uint(state.pace.allowance);
}

fn read_download(r: &mut Reader<'_>) -> Read<DownloadState> {
    r.array(7)?;
    let held = r.bytes()?;
    let writing = r.list(Reader::uint32)?;
    let requests = r.list(|r| {
        r.array(2)?;
        Ok(RequestState {
            remaining: r.uint32()?,
            wanted: r.list(Reader::uint32)?,
        })
    })?;
    let (momentum, paused, gave_up) = (r.uint32()?, r.flag()?, r.flag()?);
    r.array(5)?;
    let pace = PaceState {
        silence_in_ms: r.option_uint()?,
        hold_in_ms: r.option_uint()?,
        pause_ms: r.option_uint()?,
        silences: r.uint32()?,
        allowance: r.option_uint()?,
    };
    Ok(DownloadState {
        held,
        writing,
        requests,
        momentum,
        pace,
        paused,
        gave_up,
    })
}

/// Reads the id list of a blob without an agent; only the tests need it.
#[cfg(test)]
pub(super) fn seen_in(blob: &Blob) -> Vec<JobId> {
    let mut r = Reader::new(&blob.bytes);
    let mut read = || -> Read<Vec<JobId>> {
        r.array(2)?;
        r.array(6)?;
        r.uint()?;
        r.list(read_event)?;
        r.flag()?;
        r.list(read_job_id)
    };
    read().unwrap_or_default()
}
