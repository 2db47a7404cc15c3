//! Bringing one file after the other to the host: create or reopen, blocks, close.
//!
//! Which block is asked for and what a block message is worth is the downloader's to say; whether the image is good is
//! the host's. A block counts once the storage has acknowledged it.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::code::{HostErr, OtaErr, OtadErr, PalStatus, State, StreamErr};
use crate::jobs::{self, Encoding, Status};
use crate::settings::{Key, WINDOW_MAX_BYTES};
use crate::stream::{
    BlockGrid, BlockIndex, DownloadConfig, Downloader, DropReason, Step, Verdict, decode_rejected,
};
use crate::text::push_decimal;
use crate::types::{BlockBytes, Failure, FileId, ImageInfo, InstantMs, Level, Order, Qos};

use super::Agent;
use super::job::{FilePhase, Job, JobFile, Stage};
use super::ops::{Doing, Duty};
use super::table::Cause;
use super::timer::Timer;

/// The download of one file.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) file: FileId,
    pub(super) downloader: Downloader,
    /// The request topic has been told to people.
    pub(super) announced: bool,
}

impl Transfer {
    pub(super) fn deadline(&self) -> Option<InstantMs> {
        self.downloader.deadline()
    }
}

impl Job {
    /// The file that is being brought: the first one that is not verified.
    pub(super) fn arriving(&mut self) -> Option<&mut JobFile> {
        self.files
            .iter_mut()
            .find(|file| file.phase < FilePhase::Verified)
    }
}

impl Agent {
    pub(super) fn download_config(&self, job: &Job, file: &JobFile) -> Option<DownloadConfig> {
        let grid = BlockGrid::new(file.entry.as_ref()?.size, job.block_size).ok()?;
        // The block size is the job's own, so the window of the settings may be too large for it.
        let fits = WINDOW_MAX_BYTES / u64::from(job.block_size.max(1));
        let window = self.settings.number(Key::BlocksPerRequest).min(fits).max(1);
        Some(DownloadConfig {
            file_id: file.id,
            grid,
            blocks_per_request: u32::try_from(window).unwrap_or(1),
            requests_in_flight: 1,
            request_timeout_ms: self.settings.number(Key::RequestTimeout),
            momentum_max: self.settings.number32(Key::MomentumMax),
            status_frequency: self.settings.number32(Key::StatusFrequency),
        })
    }

    pub(super) fn step_creating(&mut self) -> bool {
        let Some(job) = &mut self.job else {
            return self.lost_job();
        };
        let Some(file) = job.arriving() else {
            self.set_state(Cause::CreateFile, State::ClosingFile);
            return true;
        };
        let (id, phase) = (file.id, file.phase);
        match phase {
            FilePhase::Receiving => {
                self.counters.zero();
                self.set_state(Cause::CreateFile, State::RequestingFileBlock);
                true
            }
            FilePhase::Closing => {
                self.set_state(Cause::CreateFile, State::ClosingFile);
                true
            }
            _ => {
                self.drive_creation(id);
                false
            }
        }
    }

    /// Asks the target how it is, then creates the file or goes on with what the host holds of it.
    pub(super) fn drive_creation(&mut self, id: FileId) {
        if self.ops.duty(id).is_some() || self.timers.runs(Timer::Retry) {
            return;
        }
        let Some(job) = &mut self.job else { return };
        let block_size = job.block_size;
        let Some(job_id) = job.id.clone() else { return };
        let Some(file) = job.file(id) else { return };
        if !file.asked {
            let text = Self::of_file("asking the target for its image state, file ", id);
            self.log(Level::Info, &[&text]);
            self.order(Order::State(id), Doing::Duty(id, Duty::State));
            return;
        }
        if file.reopen {
            file.phase = FilePhase::Creating;
            let job_id = String::from(job_id.as_str());
            self.order(
                Order::Reopen { job_id, file: id },
                Doing::Duty(id, Duty::Reopen),
            );
            return;
        }
        let Some(spec) = file.spec(&job_id, block_size) else {
            // Without the document there is nothing to create from: ask for the job again.
            self.asking.describe = true;
            return;
        };
        file.phase = FilePhase::Creating;
        let text = Self::of_file("creating file ", id);
        self.log(Level::Info, &[&text]);
        self.order(Order::Create(spec), Doing::Duty(id, Duty::Create));
    }

    /// A file that was just created has no blocks; one that was reopened has what the storage holds.
    pub(super) fn begin_download(&mut self, id: FileId, held: Option<&[u8]>) {
        let Some(job) = &self.job else { return };
        let Some(file) = job.files.iter().find(|file| file.id == id) else {
            return;
        };
        let Some(config) = self.download_config(job, file) else {
            return self.resume_without_document(id, held);
        };
        let downloader = match held {
            None => Downloader::new(config).ok(),
            Some(held) => Downloader::reopen(config, held).ok(),
        };
        let Some(mut downloader) = downloader else {
            return self.create_anew(id, held.is_some());
        };
        downloader.set_allowance(self.allowance);
        let progress = downloader.progress();
        // Far behind the download a file is only reopened to be verified again.
        if job.stage == Stage::Taken {
            self.transfer = Some(Transfer {
                file: id,
                downloader,
                announced: false,
            });
        }
        if let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) {
            file.blocks = progress;
            file.reopen = false;
            let complete = progress.0 == progress.1;
            file.phase = if complete {
                FilePhase::Closing
            } else {
                FilePhase::Receiving
            };
        }
        let mut text = Self::of_file("file ", id);
        text.push_str(" is ready, blocks held: ");
        push_decimal(&mut text, progress.0.into());
        text.push_str(" of ");
        push_decimal(&mut text, progress.1.into());
        self.log(Level::Info, &[&text]);
    }

    /// After a restart far behind the download the document is not needed: everything must be held.
    fn resume_without_document(&mut self, id: FileId, held: Option<&[u8]>) {
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        if held.is_some() {
            file.reopen = false;
            file.phase = FilePhase::Closing;
        } else {
            self.fault(4);
        }
    }

    /// What the host holds is of another grid or another life: begin again, once.
    fn create_anew(&mut self, id: FileId, reopened: bool) {
        if !reopened {
            return self.fault(5);
        }
        if let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) {
            file.reopen = false;
            file.phase = FilePhase::ToDo;
        }
    }

    pub(super) fn step_requesting(&mut self) -> bool {
        if self.transfer_is_complete() {
            return true;
        }
        if !self.connected {
            return false;
        }
        let Some(stream) = self.job.as_ref().and_then(|job| job.stream.clone()) else {
            return self.lost_job();
        };
        self.subscriptions.add_stream(&self.settings, &stream);
        if !self.subscribed(true) {
            return false;
        }
        if core::mem::take(&mut self.relinked) {
            self.counters.zero();
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.downloader.resume();
        }
        if self.poll_download() {
            self.set_state(Cause::RequestFileBlock, State::WaitingForFileBlock);
            return true;
        }
        false
    }

    pub(super) fn step_waiting_for_block(&mut self) -> bool {
        if self.transfer_is_complete() {
            return true;
        }
        if !self.connected || self.relinked {
            let cause = if self.connected {
                Cause::Connected
            } else {
                Cause::Disconnected
            };
            self.pause_transfer();
            self.set_state(cause, State::RequestingFileBlock);
            return true;
        }
        self.poll_download();
        false
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
        loop {
            let Some(transfer) = &mut self.transfer else {
                return asked;
            };
            match transfer.downloader.poll(self.now) {
                Step::Wait | Step::Complete => return asked,
                Step::Request(payload) => {
                    self.publish_request(payload);
                    asked = true;
                }
                Step::GaveUp => {
                    self.fail_for_momentum();
                    return asked;
                }
            }
        }
    }

    fn publish_request(&mut self, payload: alloc::vec::Vec<u8>) {
        let Some(stream) = self.job.as_ref().and_then(|job| job.stream.as_ref()) else {
            return;
        };
        let topic = jobs::stream_get(&self.settings.thing, stream, Encoding::Cbor);
        let first = self
            .transfer
            .as_mut()
            .is_some_and(|t| !core::mem::replace(&mut t.announced, true));
        let level = if first { Level::Info } else { Level::Debug };
        self.log(level, &["blocks requested: ", &topic]);
        self.order(
            Order::Publish {
                topic,
                payload,
                qos: Qos::AtMostOnce,
            },
            Doing::Blocks,
        );
    }

    pub(super) fn on_blocks_requested(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.log(Level::Warn, &["block request not sent: ", &failure.detail]);
            self.view.last_error = Some(failure);
            if let Some(transfer) = &mut self.transfer {
                transfer.downloader.on_request_failed(self.now);
            }
        }
    }

    /// Momentum is used up. A stream that sent nothing usable is told apart from a silent one.
    pub(super) fn fail_for_momentum(&mut self) {
        let last = self
            .transfer
            .as_ref()
            .and_then(|transfer| transfer.downloader.last_drop());
        match last {
            None | Some(DropReason::Duplicate | DropReason::Unexpected) => {
                let code = OtaErr::MomentumAbort.code();
                let failure = Failure::new(code as u8, 0, "too many requests without an answer");
                self.fail_with(Status::Aborted { code }, failure);
            }
            Some(reason) => {
                let code = OtadErr::BadBlocks.code() as u8;
                self.fail_with_numbers(Failure::new(code, reason.code(), reason.text()));
            }
        }
    }

    pub(super) fn on_block_message(&mut self, stream: &str, payload: alloc::vec::Vec<u8>) {
        let receiving = matches!(
            self.state,
            State::RequestingFileBlock | State::WaitingForFileBlock
        );
        let ours = self.job.as_ref().and_then(|job| job.stream.as_ref());
        let ours = receiving && ours.is_some_and(|of| of.as_str() == stream);
        let Some(transfer) = self.transfer.as_mut().filter(|_| ours) else {
            self.counters.blocks.count_unexpected();
            return;
        };
        let file = transfer.file;
        let verdict = transfer.downloader.on_message(self.now, &payload);
        self.counters.blocks.count(&verdict);
        match verdict {
            Verdict::Dropped(reason) => {
                self.log(Level::Debug, &["block message dropped: ", reason.text()]);
            }
            Verdict::Write(block) => {
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
                let mut text = Self::of_file("received file block ", index);
                text.push_str(", size ");
                push_decimal(&mut text, data.as_slice().len() as u64);
                self.log(Level::Debug, &[&text]);
                self.order(
                    Order::WriteBlock { file, offset, data },
                    Doing::Write(file, index),
                );
            }
        }
    }

    pub(super) fn on_written(&mut self, file: FileId, index: u32, result: Result<(), Failure>) {
        let Some(transfer) = self
            .transfer
            .as_mut()
            .filter(|transfer| transfer.file == file)
        else {
            return;
        };
        let index = BlockIndex(index);
        match result {
            Ok(()) => {
                let held = transfer.downloader.on_written(index);
                let progress = transfer.downloader.progress();
                self.counters.blocks.count_written();
                if let Some(file) = self.job.as_mut().and_then(|job| job.file(file)) {
                    file.blocks = progress;
                }
                if let Some((received, total)) = held.progress
                    && self.connected
                    && self.suspended_since.is_none()
                {
                    self.tell_progress(received, total);
                }
            }
            Err(failure) => {
                transfer.downloader.on_write_failed(index);
                // A busy or restarted host is asked again; what the storage refuses, it refuses for good.
                let again = [HostErr::Busy, HostErr::Cancelled, HostErr::PluginFailed];
                let again = again
                    .iter()
                    .any(|code| code.code() == u32::from(failure.main));
                if again && self.busy < self.settings.number32(Key::MomentumMax) {
                    self.busy += 1;
                    self.view.last_error = Some(failure);
                } else {
                    self.fail_with_numbers(failure);
                }
            }
        }
    }

    /// Whether every block is held; then the file is closed.
    fn transfer_is_complete(&mut self) -> bool {
        let Some(transfer) = &mut self.transfer else {
            return self.lost_job();
        };
        let (held, total) = transfer.downloader.progress();
        if held < total {
            return false;
        }
        let id = transfer.file;
        let text = Self::of_file("received the final block of file ", id);
        self.log(Level::Info, &[&text]);
        if let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) {
            file.phase = FilePhase::Closing;
        }
        self.set_state(Cause::CloseFile, State::ClosingFile);
        true
    }

    /// A state that needs a job has none.
    pub(super) fn lost_job(&mut self) -> bool {
        self.fault(6);
        false
    }

    pub(super) fn step_closing(&mut self) -> bool {
        let Some(job) = &mut self.job else {
            return self.lost_job();
        };
        let next = match job.arriving().map(|file| (file.id, file.phase)) {
            Some((id, FilePhase::Closing)) => {
                self.drive_close(id);
                return false;
            }
            Some(_) => State::CreatingFile,
            None => State::Installing,
        };
        let closed = self
            .transfer
            .take()
            .and_then(|transfer| job.file(transfer.file));
        let verified = closed.is_none_or(|file| file.phase >= FilePhase::Verified);
        let cause = if verified {
            Cause::FileVerified
        } else {
            Cause::FileUnverified
        };
        if next == State::Installing {
            self.unsubscribe_stream();
        }
        self.set_state(cause, next);
        true
    }

    pub(super) fn drive_close(&mut self, id: FileId) {
        if self.ops.duty(id).is_none() && !self.timers.runs(Timer::Retry) {
            self.order(Order::Close(id), Doing::Duty(id, Duty::Close));
        }
    }

    pub(super) fn on_closed(&mut self, id: FileId, result: Result<ImageInfo, Failure>) {
        match result {
            Ok(info) => self.on_verified(id, &info),
            Err(failure) if u32::from(failure.main) == PalStatus::FileClose.code() => {
                self.reopen_bounded(id, failure);
            }
            Err(failure) => self.fail_with_numbers(failure),
        }
    }

    fn on_verified(&mut self, id: FileId, info: &ImageInfo) {
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        file.phase = FilePhase::Verified;
        file.image = info.version.or(file.image);
        let (image, old, firmware) = (file.image, file.old, file.firmware);
        let mut text = Self::of_file("file ", id);
        text.push_str(" is complete and its signature valid, signer ");
        text.push_str(&info.signer);
        if let Some(version) = image {
            text.push_str(", version ");
            version.push_text(&mut text);
        }
        self.log(Level::Info, &[&text]);
        self.touch_journal();
        if firmware && let (Some(image), Some(old)) = (image, old) {
            self.check_version(id, image, old, false);
        }
    }

    /// Looks at what the host holds before the file is closed once more; a few times only.
    pub(super) fn reopen_bounded(&mut self, id: FileId, failure: Failure) {
        let attempts = self.settings.number32(Key::UpdateAttempts);
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        file.tries += 1;
        if file.tries > attempts {
            self.give_up_file(id, failure);
            return;
        }
        file.reopen = true;
        file.phase = FilePhase::ToDo;
        self.view.last_error = Some(failure);
    }

    pub(super) fn on_stream_rejected(&mut self, stream: &str, encoding: Encoding, payload: &[u8]) {
        let receiving = matches!(
            self.state,
            State::RequestingFileBlock | State::WaitingForFileBlock
        );
        let ours = self.job.as_ref().and_then(|job| job.stream.as_ref());
        if !receiving || ours.is_none_or(|of| of.as_str() != stream) {
            return;
        }
        let Ok(rejection) = decode_rejected(encoding, payload) else {
            return;
        };
        let code = rejection.code_text.as_str();
        self.log(
            Level::Warn,
            &["block request refused: ", code, ": ", &rejection.message],
        );
        let sub = rejection.code.code();
        let main = OtadErr::StreamRejected.code() as u8;
        let failure = Failure::new(main, sub, "the stream service refuses the request");
        match rejection.code {
            // Worth asking again: at the deadline, against momentum.
            StreamErr::InternalError | StreamErr::RequestThrottled | StreamErr::Unknown => {
                self.view.last_error = Some(failure);
                if let Some(transfer) = &mut self.transfer {
                    transfer.downloader.on_request_failed(self.now);
                }
            }
            StreamErr::InvalidTopic
            | StreamErr::InvalidJson
            | StreamErr::InvalidCbor
            | StreamErr::InvalidRequest
            | StreamErr::Unauthorized
            | StreamErr::BlockSizeOutOfBounds
            | StreamErr::OffsetOutOfBounds
            | StreamErr::BlockCountLimitExceeded
            | StreamErr::BlockBitmapLimitExceeded
            | StreamErr::ResourceNotFound
            | StreamErr::VersionMismatch
            | StreamErr::EtagMismatch => self.fail_with_numbers(failure),
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

    pub(super) fn on_allowance(&mut self, bytes_per_s: u64) {
        self.allowance = Some(bytes_per_s);
        if let Some(transfer) = &mut self.transfer {
            transfer.downloader.set_allowance(self.allowance);
        }
    }
}
