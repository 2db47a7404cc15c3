//! The downloader on a link with a rate, a delay and losses, in virtual time: which share of the link it fills, and what
//! it asks for twice.
//!
//! The link carries one message after the other, as TCP does; half of the round trip lies before it and half behind it.
//! A lost message has taken its time on the link. Deterministic: a seed says what is lost.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec;

use crate::jobs::Encoding;

use super::*;

/// 100 Mbit/s.
const BYTES_PER_S: u64 = 12_500_000;
const BLOCK: u32 = 16 * 1024;
const IMAGE: u64 = 64 << 20;

#[derive(Clone, Copy)]
struct Link {
    url: bool,
    round_trip_ms: u64,
    /// Messages, or range responses, that are lost, in a thousand.
    lost: u64,
    bytes_per_s: u64,
    size: u64,
    /// Bytes a second that the storage takes, 0 = all at once.
    storage: u64,
    /// How long it stands still at the beginning of each second, as while TCP repeats what was lost below.
    stall_ms: u64,
}

const fn link(url: bool, round_trip_ms: u64, lost: u64) -> Link {
    Link {
        url,
        round_trip_ms,
        lost,
        bytes_per_s: BYTES_PER_S,
        size: IMAGE,
        storage: 0,
        stall_ms: 0,
    }
}

/// What reaches the device.
enum Arrival {
    /// Block, token.
    Block(u32, String),
    /// Number of a range, and whether it is whole.
    Range(u32, bool),
    /// The storage has taken a block.
    Written(u32),
}

#[derive(Debug)]
struct Outcome {
    /// Of the link's rate, in a thousand.
    share: u64,
    /// Blocks that came twice, in a thousand.
    twice: u64,
    /// Most blocks that waited for the storage.
    waiting: usize,
    /// Most blocks that were on their way.
    in_flight: u32,
    /// The same in the second half of the file.
    in_flight_later: u32,
}

struct Run {
    link: Link,
    random: u64,
    downloader: Downloader,
    now_us: u64,
    /// When the link has carried all that it was given.
    free_us: u64,
    stored_us: u64,
    events: BTreeMap<(u64, u64), Arrival>,
    count: u64,
    twice: u64,
    waiting: usize,
    in_flight: u32,
    in_flight_later: u32,
}

impl Run {
    fn new(link: Link, seed: u64) -> Self {
        let plane = if link.url {
            Plane::Url
        } else {
            Plane::Stream(Encoding::Cbor)
        };
        let config = DownloadConfig {
            plane,
            file_id: 0,
            grid: BlockGrid::new(link.size, BLOCK).unwrap(),
            blocks_per_request: REQUEST_PAYLOAD_MAX_BYTES / BLOCK,
            requests_in_flight: 32,
            request_timeout_ms: 10_000,
            momentum_max: 32,
            status_frequency: 64,
        };
        Self {
            link,
            random: seed,
            downloader: Downloader::new(config, None).unwrap(),
            now_us: 0,
            free_us: 0,
            stored_us: 0,
            events: BTreeMap::new(),
            count: 0,
            twice: 0,
            waiting: 0,
            in_flight: 0,
            in_flight_later: 0,
        }
    }

    fn is_lost(&mut self) -> bool {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 1000 < self.link.lost
    }

    /// Puts bytes on the link; when they have arrived.
    fn carry(&mut self, sent_us: u64, bytes: u64) -> u64 {
        let begin = self.free_us.max(sent_us);
        let stalled = (self.link.stall_ms * 1000).saturating_sub(begin % 1_000_000);
        self.free_us = begin + stalled + bytes * 1_000_000 / self.link.bytes_per_s;
        self.free_us + self.link.round_trip_ms * 500
    }

    fn at(&mut self, at_us: u64, arrival: Arrival) {
        self.count += 1;
        self.events.insert((at_us, self.count), arrival);
    }

    /// The service has a request: it sends the lowest blocks that it asks for.
    fn serve(&mut self, request: &[u8]) {
        if self.is_lost() {
            return;
        }
        let sent = self.now_us + self.link.round_trip_ms * 500;
        let mut decoder = minicbor::Decoder::new(request);
        let (mut token, mut offset, mut bitmap, mut count) = ("", 0, vec![], 0);
        for _ in 0..decoder.map().unwrap().unwrap() {
            match decoder.str().unwrap() {
                "c" => token = decoder.str().unwrap(),
                "o" => offset = decoder.u32().unwrap(),
                "b" => bitmap = decoder.bytes().unwrap().to_vec(),
                "n" => count = decoder.u32().unwrap(),
                _ => decoder.skip().unwrap(),
            }
        }
        let bits = 0..bitmap.len() as u32 * 8;
        let wanted = bits.filter(|bit| bitmap[*bit as usize / 8] >> (bit % 8) & 1 == 1);
        for bit in wanted.take(count as usize) {
            let length = self.downloader.grid().block_len(BlockIndex(offset + bit));
            let arrives = self.carry(sent, length.unwrap().into());
            if !self.is_lost() {
                self.at(arrives, Arrival::Block(offset + bit, token.to_string()));
            }
        }
    }

    /// A response that is cut has used half of its time.
    fn fetch(&mut self, number: u32, length: u32) {
        let sent = self.now_us + self.link.round_trip_ms * 500;
        let cut = self.is_lost();
        let bytes = if cut { length / 2 } else { length };
        let arrives = self.carry(sent, bytes.into());
        self.at(arrives, Arrival::Range(number, !cut));
    }

    fn store(&mut self, index: u32) {
        if self.link.storage == 0 {
            self.downloader.on_written(BlockIndex(index));
            return;
        }
        let took = u64::from(BLOCK) * 1_000_000 / self.link.storage;
        self.stored_us = self.stored_us.max(self.now_us) + took;
        self.at(self.stored_us, Arrival::Written(index));
    }

    fn arrive(&mut self, arrival: Arrival) {
        let now = self.now_us / 1000;
        match arrival {
            Arrival::Written(index) => {
                self.downloader.on_written(BlockIndex(index));
            }
            Arrival::Range(number, true) => {
                let length = self.downloader.requests.iter().find(|r| r.number == number);
                let length = length.map_or(0, |r| self.downloader.length_of(&r.wanted));
                let blocks = self.downloader.on_range(now, number, length as usize);
                blocks
                    .unwrap_or_default()
                    .into_iter()
                    .for_each(|index| self.store(index));
            }
            Arrival::Range(number, false) => self.downloader.on_request_failed(now, number),
            Arrival::Block(index, token) => {
                let length = self.downloader.grid().block_len(BlockIndex(index)).unwrap();
                let mut encoder = minicbor::Encoder::new(Vec::new());
                encoder
                    .map(5)
                    .unwrap()
                    .str("c")
                    .unwrap()
                    .str(&token)
                    .unwrap();
                encoder.str("f").unwrap().u32(0).unwrap();
                encoder.str("i").unwrap().u32(index).unwrap();
                encoder.str("l").unwrap().u32(length).unwrap();
                encoder
                    .str("p")
                    .unwrap()
                    .bytes(&vec![0; length as usize])
                    .unwrap();
                let message = encoder.into_writer();
                let verdict = self.downloader.on_message(now, &message);
                let written = matches!(verdict, Verdict::Write(_));
                self.twice += u64::from(verdict == Verdict::Dropped(DropReason::Duplicate));
                if written {
                    self.store(index);
                }
            }
        }
        self.waiting = self.waiting.max(self.downloader.writing().len());
    }

    fn look(&mut self) {
        let in_flight = self.downloader.requests.iter().map(|r| r.remaining).sum();
        self.in_flight = self.in_flight.max(in_flight);
        let (held, total) = self.downloader.progress();
        if held > total / 2 {
            self.in_flight_later = self.in_flight_later.max(in_flight);
        }
    }

    fn run(mut self) -> Outcome {
        loop {
            self.look();
            match self.downloader.poll(self.now_us / 1000) {
                Step::Request(request) => self.serve(&request),
                Step::Range { length, .. } => self.fetch(self.downloader.newest(), length),
                Step::Complete => break,
                Step::GaveUp => panic!("given up after {} us", self.now_us),
                Step::Wait => {
                    let deadline = self.downloader.deadline().map(|at| at * 1000);
                    match self.events.first_key_value() {
                        Some(((at, _), _)) if deadline.is_none_or(|deadline| *at < deadline) => {
                            let ((at, _), arrival) = self.events.pop_first().unwrap();
                            self.now_us = at;
                            self.arrive(arrival);
                        }
                        _ => self.now_us = deadline.unwrap(),
                    }
                }
            }
        }
        let blocks = u64::from(self.downloader.grid().count());
        Outcome {
            share: self.link.size * 1000 * 1_000_000 / self.link.bytes_per_s / self.now_us,
            twice: self.twice * 1000 / blocks,
            waiting: self.waiting,
            in_flight: self.in_flight,
            in_flight_later: self.in_flight_later,
        }
    }
}

/// The middle one of three seeds; without losses they are all the same.
fn check(link: Link, least: u64) {
    let seeds = if link.lost == 0 { 1 } else { 3 };
    let mut runs: Vec<Outcome> = (1..=seeds).map(|seed| Run::new(link, seed).run()).collect();
    runs.sort_by_key(|run| run.share);
    let middle = &runs[runs.len() / 2];
    assert!(middle.share >= least, "{runs:?}");
    if link.lost == 0 {
        assert!(middle.twice <= 10, "{runs:?}");
        // A window of what the line carries in a round trip, of one request at least.
        let carried = link.bytes_per_s * link.round_trip_ms / 1000 / u64::from(BLOCK);
        let needed = (carried as u32).max(8);
        assert!(middle.in_flight <= 3 * needed, "{needed}: {runs:?}");
        assert!(middle.in_flight_later <= 2 * needed, "{needed}: {runs:?}");
    }
    assert!(middle.waiting <= 32 * 8, "{runs:?}");
}

#[test]
fn a_stream_fills_100_mbit_at_a_round_trip_of_50_ms() {
    check(link(false, 50, 0), 950);
}

#[test]
fn a_stream_fills_100_mbit_at_a_round_trip_of_200_ms() {
    check(link(false, 200, 0), 850);
}

#[test]
fn a_stream_that_loses_one_message_in_twenty_fills_most_of_the_link() {
    check(link(false, 50, 50), 800);
}

#[test]
fn a_stream_on_a_short_line_that_loses_one_message_in_twenty_does_not_stand_still_most_of_the_time()
{
    for round_trip_ms in [0, 2, 5] {
        check(link(false, round_trip_ms, 50), 400);
        check(link(false, round_trip_ms, 10), 850);
    }
}

#[test]
fn a_line_that_stands_still_for_as_long_as_tcp_takes_to_repeat_is_asked_for_nothing_twice() {
    for round_trip_ms in [0, 5, 50] {
        let stalls = Link {
            stall_ms: 300,
            ..link(false, round_trip_ms, 0)
        };
        assert_eq!(Run::new(stalls, 1).run().twice, 0);
    }
}

#[test]
fn ranges_fill_100_mbit_at_a_round_trip_of_50_ms() {
    check(link(true, 50, 0), 950);
}

#[test]
fn ranges_fill_100_mbit_at_a_round_trip_of_200_ms() {
    check(link(true, 200, 0), 850);
}

#[test]
fn ranges_of_which_one_in_twenty_is_cut_fill_most_of_the_link() {
    check(link(true, 50, 50), 800);
}

#[test]
fn a_line_without_delay_is_filled_by_a_window_of_one_request() {
    for url in [false, true] {
        check(link(url, 0, 0), 980);
        assert_eq!(Run::new(link(url, 0, 0), 1).run().in_flight, 8);
    }
}

#[test]
fn a_slow_line_is_not_given_more_than_it_carries_and_nothing_twice() {
    for url in [false, true] {
        let slow = Link {
            bytes_per_s: 20_000,
            size: 4 << 20,
            ..link(url, 300, 0)
        };
        check(slow, 900);
    }
}

#[test]
fn a_slow_storage_holds_the_requests_back_and_no_more_than_the_window_waits() {
    for url in [false, true] {
        let slow = Link {
            storage: 100_000,
            size: 8 << 20,
            ..link(url, 50, 0)
        };
        // A hundred and twenty-fifth of the link is what the storage takes.
        check(slow, 7);
    }
}

#[test]
fn a_service_that_answers_several_requests_at_once_is_not_asked_twice() {
    // Three requests in flight, one block of each in turn: none overtakes another.
    let config = Run::new(link(false, 50, 0), 1).downloader.config;
    let mut downloader = Downloader::new(config, None).unwrap();
    let mut queues: VecDeque<(u32, VecDeque<u32>)> = VecDeque::new();
    let mut twice = 0;
    let mut now = 0;
    loop {
        now += 1;
        while let Step::Request(_) = downloader.poll(now) {
            let request = downloader.requests.last().unwrap();
            queues.push_back((request.number, request.wanted.iter().copied().collect()));
        }
        let Some((number, mut queue)) = queues.pop_front() else {
            break;
        };
        let index = queue.pop_front().unwrap();
        let mut encoder = minicbor::Encoder::new(Vec::new());
        let token = alloc::format!("rdy{number}");
        encoder
            .map(5)
            .unwrap()
            .str("c")
            .unwrap()
            .str(&token)
            .unwrap();
        encoder.str("f").unwrap().u32(0).unwrap();
        encoder.str("i").unwrap().u32(index).unwrap();
        encoder.str("l").unwrap().u32(BLOCK).unwrap();
        encoder
            .str("p")
            .unwrap()
            .bytes(&[0; BLOCK as usize])
            .unwrap();
        let message = encoder.into_writer();
        match downloader.on_message(now, &message) {
            Verdict::Write(block) => drop(downloader.on_written(block.index)),
            Verdict::Dropped(reason) => {
                assert_eq!(reason, DropReason::Duplicate);
                twice += 1;
            }
        }
        if !queue.is_empty() {
            // The newest three take turns.
            let place = queues.len().min(2);
            queues.insert(place, (number, queue));
        }
    }
    assert_eq!(downloader.progress(), (4096, 4096));
    assert!(twice <= 40, "{twice}");
}
