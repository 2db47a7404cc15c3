//! Blocks by URL: what becomes of a range, and going on by the other way.
//!
//! Not here: what is asked for, and when; that is the downloader's to say.

use alloc::vec::Vec;

use crate::code::{HostErr, OtadErr};
use crate::types::{Action, BlockBytes, Order, Token};

use super::Agent;
use super::lines::{Line, Why};
use super::ops::Deed;

/// Times in a row that a URL is asked for again without a block between them.
const REFRESHES_MAX: u32 = 5;

impl Agent {
    /// Takes the other way, if the job has one that was not given up.
    pub(super) fn change_plane(&mut self) -> bool {
        if !core::mem::take(&mut self.job.spare) {
            return false;
        }
        self.cancel_ranges();
        self.job.by_url = !self.job.by_url;
        self.job.known = true;
        // The stream has to be subscribed to first.
        self.relinked |= !self.job.by_url;
        let (plane, most) = (self.plane(), self.momentum_max());
        if let Some(transfer) = &mut self.transfer {
            transfer.downloader.change_plane(plane, most);
            transfer.announced = false;
        }
        self.note(Line::PlaneChanged);
        true
    }

    /// The way at hand will not work.
    pub(super) fn lose_plane(&mut self, why: Why) {
        if !self.change_plane() {
            self.fail_with_numbers(why);
        }
    }

    /// Gives up all ranges on their way.
    pub(super) fn cancel_ranges(&mut self) {
        for pending in &self.ops.list {
            if pending.deed == Deed::Range {
                let order = Order::Cancel(pending.token);
                self.orders.push(Action { op: 0, order });
            }
        }
        self.ops.forget(&|pending| pending.deed == Deed::Range);
    }

    /// The answer to a request by URL.
    pub(super) fn on_range(&mut self, token: Token, status: u16, total: Option<u64>, body: &[u8]) {
        let Some(pending) = self.ops.take_token(token) else {
            return;
        };
        if pending.deed != Deed::Range {
            // No other operation ends so.
            self.ops.list.push(pending);
            return;
        }
        let number = pending.index;
        let now = self.now;
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let grid = *transfer.downloader.grid();
        if matches!(status, 400 | 403 | 404) {
            return self.refresh(status);
        }
        if status != 206 {
            self.note_number(Line::RangeFailed, status.into());
            return self.request_failed(number);
        }
        if total.is_some_and(|total| total != grid.size()) {
            return self.lose_plane(Why::own(OtadErr::UrlRefused, 0));
        }
        let blocks = transfer.downloader.on_range(now, number, body.len());
        transfer.refreshes = 0;
        let mut rest = body;
        for index in blocks.unwrap_or_default() {
            let length = rest.len().min(grid.block_size() as usize);
            let Some((part, after)) = rest.split_at_checked(length) else {
                break;
            };
            rest = after;
            let data = BlockBytes::new(Vec::from(part), 0..length);
            self.view.blocks.received = self.view.blocks.received.saturating_add(1);
            let offset = u64::from(index) * u64::from(grid.block_size());
            self.write_block(pending.file, index, offset, data);
        }
    }

    /// A range had no answer.
    pub(super) fn on_range_failed(&mut self, number: u32, why: Why) {
        let detail = self.detail_of(why);
        self.note_text(Line::RangeUnanswered, &detail);
        const REFUSED: u32 = HostErr::BadArgument.code();
        const UNKNOWN: u32 = HostErr::Unsupported.code();
        if matches!(why.main, REFUSED | UNKNOWN) {
            self.lose_plane(why);
        } else {
            self.request_failed(number);
        }
    }

    /// The URL is not good any more: the job is asked for again, and with it comes another one.
    pub(super) fn refresh(&mut self, status: u16) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.refreshes += 1;
        if transfer.refreshes > REFRESHES_MAX {
            return self.lose_plane(Why::own(OtadErr::UrlRefused, status.into()));
        }
        transfer.downloader.pause();
        transfer.downloader.resume();
        self.cancel_ranges();
        self.job.known = false;
        self.asking.describe = true;
        self.note_number(Line::RangeFailed, status.into());
    }
}
