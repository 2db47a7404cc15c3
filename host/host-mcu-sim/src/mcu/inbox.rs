//! From lines to packets that wait for the server, with every place where a real receiver loses something: lines that are
//! too long, line buffers that are not free yet, packets for which there is no buffer.

use std::collections::VecDeque;

use smp_core::console::{Line, Lines};
use smp_core::frame::Framing;
use smp_core::raw;

use super::wire::Arrival;
use crate::config::{MS, Timing};
use crate::profile::Profile;

/// What a receiver lost, and what it got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveStats {
    /// Packets that reached the server.
    pub packets: u64,
    /// Lines that were longer than a line may be.
    pub long_lines: u64,
    /// Lines that found no free buffer.
    pub lost_lines: u64,
    /// Packets that found no free buffer.
    pub lost_packets: u64,
}

/// A receiver.
#[derive(Debug)]
pub(super) struct Inbox {
    framing: Framing,
    console: Lines,
    raw: raw::Decoder,
    line_buffers: usize,
    line_bytes_max: usize,
    packets_max: usize,
    /// When each used line buffer is free again.
    draining: VecDeque<u64>,
    /// Lines on their way through a buffer, and when they are read.
    lines: VecDeque<(u64, Vec<u8>)>,
    packets: VecDeque<(u64, Vec<u8>)>,
    stats: ReceiveStats,
}

impl Inbox {
    pub(super) fn new(framing: Framing, profile: &Profile) -> Self {
        Self {
            framing,
            console: Lines::new(profile.packet_bytes_max()),
            raw: raw::Decoder::new(profile.packet_bytes_max()),
            line_buffers: profile.line_buffers.into(),
            line_bytes_max: profile.line_bytes_max.into(),
            // One buffer is the answer's, where there is more than one.
            packets_max: usize::from(profile.buf_count).saturating_sub(1).max(1),
            draining: VecDeque::new(),
            lines: VecDeque::new(),
            packets: VecDeque::new(),
            stats: ReceiveStats::default(),
        }
    }

    pub(super) const fn stats(&self) -> ReceiveStats {
        self.stats
    }

    /// Takes a line; `stalled_until_ns` is when the processor, which waits for the flash, reads on.
    pub(super) fn push(&mut self, arrival: Arrival, stalled_until_ns: u64, timing: &Timing) {
        let at_ns = arrival.at_ns;
        if self.framing == Framing::Raw {
            self.lines.push_back((at_ns, arrival.bytes));
            return;
        }
        if arrival.bytes.len() > self.line_bytes_max {
            self.stats.long_lines += 1;
            return;
        }
        while self.draining.pop_front_if(|free| *free <= at_ns).is_some() {}
        if self.draining.len() >= self.line_buffers {
            self.stats.lost_lines += 1;
            return;
        }
        let begin_ns = self.draining.back().copied().unwrap_or(at_ns);
        let free_ns = begin_ns.max(at_ns).max(stalled_until_ns) + timing.line_drain_ns;
        self.draining.push_back(free_ns);
        self.lines.push_back((free_ns, arrival.bytes));
    }

    /// When the next line is read from its buffer.
    pub(super) fn next_line_ns(&self) -> Option<u64> {
        self.lines.front().map(|(at_ns, _)| *at_ns)
    }

    /// Reads the next line; a packet that it completes waits for the server.
    pub(super) fn read_line(&mut self, is_serving: bool) {
        let Some((at_ns, bytes)) = self.lines.pop_front() else {
            return;
        };
        let mut packets = Vec::new();
        match self.framing {
            Framing::Console => {
                if let Line::Packet(packet) = self.console.push_line(&bytes) {
                    packets.push(packet);
                }
            }
            Framing::Raw => self.raw.push(at_ns / MS, &bytes, &mut packets),
        }
        for packet in packets {
            if self.packets.len() + usize::from(is_serving) >= self.packets_max {
                self.stats.lost_packets += 1;
            } else {
                self.stats.packets += 1;
                self.packets.push_back((at_ns, packet));
            }
        }
    }

    /// When the next packet was complete.
    pub(super) fn next_packet_ns(&self) -> Option<u64> {
        self.packets.front().map(|(at_ns, _)| *at_ns)
    }

    pub(super) fn pop_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front().map(|(_, packet)| packet)
    }

    /// Begins anew with the buffers of another server.
    pub(super) fn restart(&mut self, profile: &Profile) {
        *self = Self {
            stats: self.stats,
            ..Self::new(self.framing, profile)
        };
    }
}
