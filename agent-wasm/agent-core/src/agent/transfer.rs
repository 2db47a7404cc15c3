//! Bringing one file after the other to the host: its blocks, once the target is ready for them, from a stream or by URL.
//!
//! Which block is asked for and what a block message or a range is worth is the downloader's to say. A block counts once
//! the host has acknowledged it. When one way does not work and the job offers the other, that one goes on with what
//! is held, once a job.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{HostErr, OtaErr, OtadErr, State};
use crate::jobs::{self, StreamId, Topic};
use crate::settings::{Key, WINDOW_MAX_BYTES};
use crate::stream::{
    BlockGrid, BlockIndex, DownloadConfig, Downloader, DropReason, Plane, Step, Verdict,
    decode_rejected,
};
use crate::text::push_decimal;
use crate::types::{BlockBytes, FileId, Level, Order};

use super::job::{FilePhase, JobFile, Stage};
use super::lines::{Line, Why};
use super::ops::Deed;
use super::table::Cause;
use super::timer::NEVER;
use super::{Agent, Style, said};

/// Failures in a row before the other way is taken, where there is one.
const FAILURES_MAX: u32 = 8;

/// The download of one file.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) file: FileId,
    pub(super) downloader: Downloader,
    /// The request topic has been told to people.
    pub(super) announced: bool,
    /// Times that the URL was asked for again since the last range.
    pub(super) refreshes: u32,
}

impl Agent {
    pub(super) fn download_config(&self, file: &JobFile) -> Option<DownloadConfig> {
        let block_size = self.job.block_size;
        // The block size is the job's own, so the window of the settings may be too large for it.
        let fits = WINDOW_MAX_BYTES / u64::from(block_size.max(1));
        let window = self.number(Key::BlocksPerRequest).min(fits).max(1);
        Some(DownloadConfig {
            plane: self.plane(),
            file_id: file.id,
            grid: BlockGrid::new(file.size, block_size).ok()?,
            blocks_per_request: window as u32,
            requests_in_flight: self.number32(Key::RequestsInFlight),
            request_timeout_ms: self.number(Key::RequestTimeout),
            momentum_max: self.momentum_max(),
            status_frequency: self.number32(Key::StatusFrequency),
        })
    }

    pub(super) fn plane(&self) -> Plane {
        if self.job.by_url {
            Plane::Url
        } else {
            Plane::Stream(self.settings.stream_encoding)
        }
    }

    pub(super) fn momentum_max(&self) -> u32 {
        let most = self.number32(Key::MomentumMax);
        if self.job.spare {
            most.min(FAILURES_MAX)
        } else {
            most
        }
    }

    /// A file that was just created has no blocks; one that was reopened has what the storage holds.
    pub(super) fn begin_download(&mut self, id: FileId, held: Option<&[u8]>) {
        let Some(file) = self.job.files.iter().find(|file| file.id == id) else {
            return;
        };
        let Some(config) = self.download_config(file) else {
            return self.fault(4);
        };
        let held = held.filter(|_| !mutant!(ProgressForgotten));
        let Ok(mut downloader) = Downloader::new(config, held) else {
            // What the host holds is of another grid or another life: begin again, once.
            if held.is_none() {
                return self.fault(5);
            }
            return self.create_anew(id);
        };
        downloader.set_allowance((self.allowance != NEVER).then_some(self.allowance));
        let progress = downloader.progress();
        // Far behind the download a file is only reopened to be verified again.
        if self.job.stage == Stage::Taken {
            self.transfer = Some(Transfer {
                file: id,
                downloader,
                announced: false,
                refreshes: 0,
            });
        }
        let Some(file) = self.file(id) else { return };
        file.blocks = progress;
        file.installed = (0, 0);
        file.reopen = false;
        let complete = progress.0 == progress.1;
        file.phase = if complete {
            FilePhase::Closing
        } else {
            FilePhase::Receiving
        };
        self.note_number(Line::BlocksHeld, id);
    }

    /// Forgets what may be held, and begins again.
    pub(super) fn create_anew(&mut self, id: FileId) {
        if let Some(file) = self.file(id) {
            file.reopen = false;
            file.phase = FilePhase::ToDo;
        }
    }

    /// Asks for blocks, first (again) and then on and on.
    pub(super) fn step_downloading(&mut self) -> bool {
        let Some(transfer) = &self.transfer else {
            self.fault(6);
            return false;
        };
        let (held, total) = transfer.downloader.progress();
        if held == total {
            let id = transfer.file;
            self.note_number(Line::FinalBlock, id);
            if let Some(file) = self.file(id) {
                file.phase = FilePhase::Closing;
            }
            self.set_state(Cause::CloseFile, State::ClosingFile);
            return true;
        }
        let by_url = self.job.by_url;
        if self.state == State::WaitingForFileBlock {
            if by_url || (self.connected && !self.relinked) {
                self.poll_download();
                // The other way begins as this one did.
                return self.job.by_url != by_url;
            }
            let cause = if self.connected {
                Cause::Connected
            } else {
                Cause::Disconnected
            };
            self.pause_transfer();
            self.set_state(cause, State::RequestingFileBlock);
            return true;
        }
        if !by_url && (!self.connected || !self.subscribed(true)) {
            return false;
        }
        if core::mem::take(&mut self.relinked) {
            self.view.zero_counters();
        }
        if let Some(transfer) = &mut self.transfer
            && !mutant!(ResumeStops)
        {
            transfer.downloader.resume();
        }
        let asked = self.poll_download();
        if asked {
            self.set_state(Cause::RequestFileBlock, State::WaitingForFileBlock);
        }
        asked
    }

    pub(super) fn pause_transfer(&mut self) {
        if let Some(transfer) = &mut self.transfer {
            transfer.downloader.pause();
            transfer.announced = false;
        }
    }

    /// Publishes the requests that are due; true if there was one.
    fn poll_download(&mut self) -> bool {
        let mut asked = false;
        // Without its URL a file waits for the document.
        while self.job.known
            && let Some(transfer) = &mut self.transfer
        {
            match transfer.downloader.poll(self.now) {
                Step::Wait | Step::Complete => break,
                Step::Request(payload) => self.publish_request(payload),
                Step::Range { offset, length } => {
                    let (file, number) = (transfer.file, transfer.downloader.newest());
                    let at = self.job.files.iter().position(|of| of.id == file);
                    let url = at.and_then(|at| self.job.urls.get(at));
                    // Another instance has read the document, and it was too long for a snapshot.
                    let Some(url) = url.cloned() else {
                        self.refresh(0);
                        break;
                    };
                    let order = Order::HttpGet {
                        url,
                        offset,
                        length,
                    };
                    self.order(order, Deed::Range, file, number);
                }
                Step::GaveUp => {
                    self.lose_momentum();
                    break;
                }
            }
            asked = true;
        }
        asked
    }

    fn publish_request(&mut self, payload: Vec<u8>) {
        let topic = jobs::make_ours(
            &self.settings.thing,
            Topic::StreamGet(self.settings.stream_encoding),
            self.job.stream.as_ref().map_or("", StreamId::as_str),
        );
        let number = self.transfer.as_ref().map_or(0, |t| t.downloader.newest());
        let told = self
            .transfer
            .as_mut()
            .map(|t| core::mem::replace(&mut t.announced, true));
        let line = if told == Some(false) {
            Line::BlocksRequested
        } else {
            Line::MoreRequested
        };
        self.note_text(line, &topic);
        self.publish_of(Deed::Blocks, topic, payload, number);
    }

    pub(super) fn on_blocks_requested(&mut self, number: u32, why: Why) {
        if why.is_some() {
            self.note_why(Line::RequestNotSent, why);
            self.request_failed(number);
        }
    }

    pub(super) fn request_failed(&mut self, number: u32) {
        if let Some(transfer) = &mut self.transfer {
            transfer.downloader.on_request_failed(self.now, number);
        }
    }

    /// Momentum is used up: the other way is taken, or the job fails. A stream that sent nothing usable is told apart from
    /// a silent one.
    pub(super) fn lose_momentum(&mut self) {
        if self.change_plane() {
            return;
        }
        let last = self
            .transfer
            .as_ref()
            .and_then(|transfer| transfer.downloader.last_drop());
        match last {
            None | Some(DropReason::Duplicate | DropReason::Unexpected) => {
                self.fail(
                    Style::Aborted,
                    Cause::JobFailed,
                    Why::ota(OtaErr::MomentumAbort),
                );
            }
            Some(reason) => {
                self.fail_with_numbers(Why::own(OtadErr::BadBlocks, reason.code()));
            }
        }
    }

    fn receives(&self, stream: &str) -> bool {
        let receiving = matches!(
            self.state,
            State::RequestingFileBlock | State::WaitingForFileBlock
        );
        receiving
            && !self.job.by_url
            && self
                .job
                .stream
                .as_ref()
                .is_some_and(|of| of.as_str() == stream)
    }

    pub(super) fn on_block_message(&mut self, stream: &str, payload: Vec<u8>) {
        let ours = self.receives(stream);
        let Some(transfer) = self.transfer.as_mut().filter(|_| ours) else {
            self.view.blocks.count_unexpected();
            if mutant!(LateBlockFails) {
                self.fail_with_numbers(Why::own(OtadErr::BadBlocks, 7));
            }
            return;
        };
        let file = transfer.file;
        let verdict = transfer.downloader.on_message(self.now, &payload);
        self.view.blocks.count(&verdict);
        if mutant!(DuplicateFails) && verdict == Verdict::Dropped(DropReason::Duplicate) {
            self.fail_with_numbers(Why::own(OtadErr::BadBlocks, 6));
            return;
        }
        let block = match verdict {
            Verdict::Dropped(reason) => {
                return self.note_said(Line::BlockDropped, said::DROPS + reason.code() as usize);
            }
            Verdict::Write(block) => block,
        };
        let (index, offset) = (block.index.0, block.offset);
        let data = match block.data {
            Cow::Borrowed(part) => {
                // Where the block lies inside its message, to hand the message on without a copy.
                let start = part.as_ptr() as usize - payload.as_ptr() as usize;
                let end = start + part.len();
                BlockBytes::new(payload, start..end)
            }
            Cow::Owned(bytes) => {
                let end = bytes.len();
                BlockBytes::new(bytes, 0..end)
            }
        };
        self.write_block(file, index, offset, data);
    }

    pub(super) fn write_block(&mut self, file: FileId, index: u32, offset: u64, data: BlockBytes) {
        let first = self.view.blocks.received == 1;
        if first || self.says(Level::Debug) {
            let mut size = String::new();
            push_decimal(&mut size, data.as_slice().len() as u64);
            let line = if first { Line::FirstBlock } else { Line::Block };
            self.write_line(line, index.into(), &size);
        }
        self.order(
            Order::WriteBlock { file, offset, data },
            Deed::Write,
            file,
            index,
        );
    }

    pub(super) fn on_written(&mut self, id: FileId, index: u32, why: Why) {
        let Some(transfer) = self
            .transfer
            .as_mut()
            .filter(|transfer| transfer.file == id)
        else {
            return;
        };
        let index = BlockIndex(index);
        if why.is_some() {
            transfer.downloader.on_write_failed(index);
            // A busy or restarted host is asked again; what the storage refuses, it refuses for good.
            const BUSY: u32 = HostErr::Busy.code();
            const CANCELLED: u32 = HostErr::Cancelled.code();
            const CRASHED: u32 = HostErr::PluginFailed.code();
            const FULL: u32 = HostErr::Limit.code();
            let again = matches!(why.main, BUSY | CANCELLED | CRASHED | FULL);
            if again && self.busy < self.number32(Key::MomentumMax) {
                self.busy += 1;
            } else {
                self.fail_with_numbers(why);
            }
            return;
        }
        self.busy = 0;
        let held = transfer.downloader.on_written(index);
        let progress = transfer.downloader.progress();
        self.view.blocks.count_written();
        if let Some(file) = self.file(id) {
            file.blocks = progress;
        }
        if held.progress.is_some() {
            self.tell_progress(id);
        }
    }

    pub(super) fn on_stream_rejected(&mut self, stream: &str, payload: &[u8]) {
        if !self.receives(stream) {
            return;
        }
        let Ok(rejection) = decode_rejected(self.settings.stream_encoding, payload) else {
            return;
        };
        self.warn_of(
            Line::RequestRefused,
            &rejection.code_text,
            &rejection.message,
        );
        let why = Why::own(OtadErr::StreamRejected, rejection.code.code());
        // Worth asking again at the deadline, against momentum; anything else is the answer.
        if rejection.may_pass() {
            self.view.last_error = why;
            let transfer = self.transfer.as_ref();
            let number = transfer.map_or(0, |t| t.downloader.number_of(&rejection.token));
            self.request_failed(number);
        } else {
            self.lose_plane(why);
        }
    }

    pub(super) fn on_allowance(&mut self, bytes_per_s: u64) {
        self.allowance = bytes_per_s;
        if let Some(transfer) = &mut self.transfer {
            transfer.downloader.set_allowance(Some(bytes_per_s));
        }
    }

    /// A block whose way to the storage nobody knows the end of is fetched again.
    pub(super) fn lose_write(&mut self, file: FileId, index: u32) {
        if let Some(transfer) = self
            .transfer
            .as_mut()
            .filter(|transfer| transfer.file == file)
        {
            transfer.downloader.on_write_failed(BlockIndex(index));
        }
    }
}
