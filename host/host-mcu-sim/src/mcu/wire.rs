//! The two directions of the line, each byte with its time. No protocol: lines are what ends in a newline.

use std::collections::VecDeque;

use smp_core::frame::Framing;

use crate::config::Timing;

/// Bytes without a newline that are kept; more is noise whatever follows.
const PARTIAL_BYTES_MAX: usize = 4096;

/// Pieces that raw bytes arrive in, as a receiver's interrupt hands them on.
const RAW_PIECE_BYTES: usize = 64;

/// A line, or a piece of raw bytes, that has arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) begin_ns: u64,
    pub(super) at_ns: u64,
    pub(super) bytes: Vec<u8>,
}

/// From the host to the MCU.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    free_ns: u64,
    partial: Vec<u8>,
    partial_begin_ns: u64,
    arrivals: VecDeque<Arrival>,
}

impl Uplink {
    /// Takes what the host wrote at `now_ns`.
    pub(super) fn feed(&mut self, now_ns: u64, bytes: &[u8], framing: Framing, timing: &Timing) {
        let mut at_ns = self.free_ns.max(now_ns);
        let pieces: Vec<&[u8]> = match framing {
            Framing::Console => bytes.split_inclusive(|byte| *byte == b'\n').collect(),
            Framing::Raw => bytes.chunks(RAW_PIECE_BYTES).collect(),
        };
        for piece in pieces {
            let begin_ns = at_ns;
            at_ns = at_ns.saturating_add(timing.bytes_ns(piece.len()));
            if self.partial.is_empty() {
                self.partial_begin_ns = begin_ns;
            }
            let room = PARTIAL_BYTES_MAX.saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if framing == Framing::Raw || piece.ends_with(b"\n") {
                self.arrivals.push_back(Arrival {
                    begin_ns: self.partial_begin_ns,
                    at_ns,
                    bytes: std::mem::take(&mut self.partial),
                });
            }
        }
        self.free_ns = at_ns;
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        self.arrivals.front().map(|arrival| arrival.at_ns)
    }

    pub(super) fn pop(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front()
    }

    /// When everything that was fed has arrived.
    pub(super) const fn free_ns(&self) -> u64 {
        self.free_ns
    }

    /// Forgets what has not arrived yet: the plug is pulled.
    pub(super) fn clear(&mut self, now_ns: u64) {
        self.arrivals.clear();
        self.partial.clear();
        self.free_ns = now_ns;
    }
}

#[derive(Debug)]
struct Leaving {
    begin_ns: u64,
    end_ns: u64,
    bytes: Vec<u8>,
    sent: usize,
}

/// From the MCU to the host.
#[derive(Debug, Default)]
pub(super) struct Downlink {
    free_ns: u64,
    /// By begin.
    leaving: VecDeque<Leaving>,
}

impl Downlink {
    /// Sends bytes from `now_ns` on, behind what is under way; when the last one has left.
    pub(super) fn send(&mut self, now_ns: u64, bytes: Vec<u8>, timing: &Timing) -> u64 {
        let begin_ns = self.free_ns.max(now_ns);
        self.free_ns = begin_ns.saturating_add(timing.bytes_ns(bytes.len()));
        self.put(begin_ns, self.free_ns, bytes);
        self.free_ns
    }

    /// Sends bytes at `at_ns`, whatever else is sent then.
    pub(super) fn send_late(&mut self, at_ns: u64, bytes: Vec<u8>, timing: &Timing) {
        let end_ns = at_ns.saturating_add(timing.bytes_ns(bytes.len()));
        self.put(at_ns, end_ns, bytes);
    }

    fn put(&mut self, begin_ns: u64, end_ns: u64, bytes: Vec<u8>) {
        let index = self
            .leaving
            .iter()
            .rposition(|other| other.begin_ns <= begin_ns)
            .map_or(0, |index| index + 1);
        let piece = Leaving {
            begin_ns,
            end_ns,
            bytes,
            sent: 0,
        };
        self.leaving.insert(index, piece);
    }

    /// When the next piece is complete.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.leaving.front().map(|piece| piece.end_ns)
    }

    /// Hands out what has left by `now_ns`.
    pub(super) fn take(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        while let Some(piece) = self.leaving.front_mut() {
            let count = piece.left_by(now_ns);
            out.extend_from_slice(&piece.bytes[piece.sent..count]);
            piece.sent = count;
            if count < piece.bytes.len() || piece.end_ns > now_ns {
                return;
            }
            self.leaving.pop_front();
        }
    }

    /// Nothing leaves from `now_ns` on; what has left stays to be handed out.
    pub(super) fn cut(&mut self, now_ns: u64) {
        self.leaving.retain(|piece| piece.begin_ns < now_ns);
        for piece in &mut self.leaving {
            let count = piece.left_by(now_ns);
            piece.bytes.truncate(count);
            piece.end_ns = piece.end_ns.min(now_ns);
        }
        self.free_ns = now_ns;
    }
}

impl Leaving {
    fn left_by(&self, now_ns: u64) -> usize {
        if now_ns >= self.end_ns {
            return self.bytes.len();
        }
        let whole = u128::from(self.end_ns - self.begin_ns);
        let passed = u128::from(now_ns.saturating_sub(self.begin_ns));
        let count = self.bytes.len() as u128 * passed / whole.max(1);
        usize::try_from(count).map_or(self.bytes.len(), |count| {
            count.clamp(self.sent, self.bytes.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_when_their_last_byte_does() {
        let timing = Timing::line(10_000_000);
        let mut uplink = Uplink::default();
        uplink.feed(0, b"abc\nde", Framing::Console, &timing);
        uplink.feed(0, b"f\n", Framing::Console, &timing);
        assert_eq!(uplink.next_ns(), Some(4_000));
        assert_eq!(uplink.pop().unwrap().bytes, b"abc\n");
        let second = uplink.pop().unwrap();
        assert_eq!((second.begin_ns, second.at_ns), (4_000, 8_000));
        assert_eq!(second.bytes, b"def\n");
        assert!(uplink.pop().is_none());
    }

    #[test]
    fn bytes_leave_at_the_lines_rate_and_none_after_a_cut() {
        let timing = Timing::line(10_000_000);
        let mut downlink = Downlink::default();
        assert_eq!(downlink.send(1000, b"abcd".to_vec(), &timing), 5_000);
        downlink.send(1000, b"ef".to_vec(), &timing);
        let mut out = Vec::new();
        downlink.take(3_500, &mut out);
        assert_eq!(out, b"ab");
        downlink.cut(4_000);
        downlink.take(9_000, &mut out);
        assert_eq!(out, b"abc");
        assert_eq!(downlink.next_ns(), None);
    }

    #[test]
    fn a_late_answer_is_overtaken() {
        let timing = Timing::instant();
        let mut downlink = Downlink::default();
        downlink.send_late(900, b"late".to_vec(), &timing);
        downlink.send(100, b"next".to_vec(), &timing);
        let mut out = Vec::new();
        downlink.take(1000, &mut out);
        assert_eq!(out, b"nextlate");
    }
}
