//! The client against the crate's own server over a line in virtual time: baud rate, turnaround, flash that takes its
//! time, losses. Shares are of what the line carries.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::{Client, ClientConfig, ClientError, Order, Plan, Poll, Source};
use crate::code::{Refusal, image_rc, rc};
use crate::frame::{Decoder, Framing};
use crate::header::Version;
use crate::reply::{Dialect, ErrorStyle, ImageState, Parameters, Reply};
use crate::request::Upload;
use crate::server::{Device, Outcome, Server, ServerConfig};

const HASH: [u8; 32] = [7; 32];

/// A device with one slot for uploads.
#[derive(Default)]
struct Flash {
    bytes: Vec<u8>,
    size: u64,
    listed: bool,
    /// The bootloader's own server answers; most know what lies there, and not what runs.
    recovers: bool,
    lists_active: bool,
    erases: u32,
    /// Writes are whole units of this.
    unit: usize,
    /// Nothing is taken from there on.
    full_at: Option<usize>,
    matches: Option<bool>,
    fails: bool,
    /// Time that the last operation took.
    busy_us: u64,
    erase_us: u64,
    write_us: u64,
}

impl Device for Flash {
    fn parameters(&mut self) -> Outcome<Parameters> {
        Ok(Parameters {
            buf_size: 384,
            buf_count: 4,
        })
    }

    fn images(&mut self) -> Outcome<Vec<ImageState>> {
        let slot = |slot, hash: u8, active| ImageState {
            slot,
            version: "1.0.0".into(),
            hash: vec![hash; 32],
            bootable: true,
            confirmed: active,
            active,
            ..ImageState::default()
        };
        let mut images = vec![slot(0, 1, !self.recovers || self.lists_active)];
        if self.listed {
            images.push(slot(1, HASH[0], false));
        }
        Ok(images)
    }

    fn set_state(&mut self, _: Option<&[u8]>, _: bool) -> Outcome<()> {
        Err(Refusal::image(image_rc::HASH_NOT_FOUND))
    }

    fn upload_begin(&mut self, _: &Upload<'_>, size: u64, _: &[u8]) -> Outcome<()> {
        self.bytes.clear();
        self.size = size;
        self.listed = false;
        self.erases += 1;
        Ok(())
    }

    fn upload_write(&mut self, offset: u64, data: &[u8]) -> Outcome<usize> {
        if self.fails {
            return Err(Refusal::image(image_rc::FLASH_WRITE_FAILED));
        }
        assert_eq!(offset, self.bytes.len() as u64);
        let last = offset + data.len() as u64 == self.size;
        let taken = if last {
            data.len()
        } else {
            data.len() / self.unit * self.unit
        };
        let room = self.full_at.map(|at| at.saturating_sub(self.bytes.len()));
        let taken = room.unwrap_or(taken).min(taken);
        let pages = |bytes: usize| bytes.div_ceil(4096);
        let erased = pages(self.bytes.len() + taken) - pages(self.bytes.len());
        self.busy_us = erased as u64 * self.erase_us + self.write_us;
        self.bytes.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn upload_end(&mut self, _: &[u8]) -> Option<bool> {
        self.listed = true;
        self.matches
    }

    fn console_echo(&mut self, _: bool) -> Outcome<()> {
        let unsupported = Refusal::generic(rc::UNSUPPORTED);
        self.recovers.then_some(()).ok_or(unsupported)
    }

    fn erase(&mut self, _: Option<u32>) -> Outcome<()> {
        Ok(())
    }

    fn reset(&mut self, _: bool, _: Option<u32>) -> Outcome<()> {
        Ok(())
    }
}

struct File<'a>(&'a [u8], u64);

impl Source for File<'_> {
    fn held(&mut self) -> u64 {
        self.1
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> bool {
        let at = offset as usize;
        into.copy_from_slice(&self.0[at..at + into.len()]);
        true
    }
    fn hash(&mut self) -> Option<Vec<u8>> {
        (self.1 == self.0.len() as u64).then(|| HASH.to_vec())
    }
}

struct World {
    client: Client,
    server: Server,
    flash: Flash,
    decoder: Decoder,
    baud: u64,
    turnaround_us: u64,
    /// While flash is busy nothing is received.
    deaf: bool,
    /// Of 1000 packets so many are lost, in either direction.
    loss: u64,
    seed: u64,
    /// Answers with these numbers (from 0) are lost, and the server restarts before these requests.
    lose_answers: Vec<u32>,
    restart_before: Vec<u32>,
    /// It restarts into the bootloader's own server.
    restarts_into_recovery: bool,
    requests: u32,
    up: VecDeque<(u64, Vec<u8>)>,
    down: VecDeque<(u64, Vec<u8>)>,
    up_free_us: u64,
    down_free_us: u64,
    server_free_us: u64,
    now_ms: u64,
}

fn world(baud: u64, window: u8) -> World {
    World {
        client: Client::new(ClientConfig {
            framing: Framing::Console,
            baud: baud as u32,
            window_max: window,
        }),
        server: Server::new(ServerConfig::default()),
        flash: Flash {
            unit: 1,
            ..Flash::default()
        },
        decoder: Decoder::new(Framing::Console, 4096),
        baud,
        turnaround_us: 1000,
        deaf: false,
        loss: 0,
        seed: 1,
        lose_answers: Vec::new(),
        restart_before: Vec::new(),
        restarts_into_recovery: false,
        requests: 0,
        up: VecDeque::new(),
        down: VecDeque::new(),
        up_free_us: 0,
        down_free_us: 0,
        server_free_us: 0,
        now_ms: 0,
    }
}

impl World {
    fn lost(&mut self) -> bool {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % 1000 < self.loss
    }

    fn wire_us(&self, bytes: usize) -> u64 {
        bytes as u64 * 10_000_000 / self.baud
    }

    fn run(&mut self, source: &mut impl Source) -> Result<Reply, ClientError> {
        loop {
            if let Some(result) = self.turn(source) {
                return result;
            }
            self.wait();
            assert!(self.now_ms < 3_600_000, "an hour");
        }
    }

    /// On to when something arrives or is due.
    fn wait(&mut self) {
        let arrivals =
            [&self.up, &self.down].map(|line| line.front().map(|(at, _)| at.div_ceil(1000)));
        let next = arrivals
            .into_iter()
            .flatten()
            .chain(self.client.deadline())
            .min();
        self.now_ms = next.unwrap_or(0).max(self.now_ms + 1);
    }

    /// One millisecond.
    fn turn(&mut self, source: &mut impl Source) -> Option<Result<Reply, ClientError>> {
        while self
            .down
            .front()
            .is_some_and(|(at, _)| *at <= self.now_ms * 1000)
        {
            let (_, bytes) = self.down.pop_front().unwrap();
            self.client.receive(self.now_ms, &bytes);
        }
        if let Poll::Done(result) = self.client.poll(self.now_ms, source) {
            return Some(result);
        }
        let output = self.client.output().to_vec();
        self.client.written(output.len());
        if !output.is_empty() {
            // Each frame arrives when its last byte does.
            for frame in frames(&output) {
                let start = self.up_free_us.max(self.now_ms * 1000);
                self.up_free_us = start + self.wire_us(frame.len());
                self.up.push_back((self.up_free_us, frame));
            }
        }
        while self
            .up
            .front()
            .is_some_and(|(at, _)| *at <= self.now_ms * 1000)
        {
            let (at, bytes) = self.up.pop_front().unwrap();
            self.serve(at, &bytes);
        }
        None
    }

    fn serve(&mut self, at: u64, bytes: &[u8]) {
        let mut packets = Vec::new();
        self.decoder.push(0, bytes, &mut packets);
        for packet in packets {
            if self.lost() || (self.deaf && at < self.server_free_us) {
                continue;
            }
            if self.restart_before.contains(&self.requests) {
                self.server.forget();
                self.flash.recovers = self.restarts_into_recovery;
            }
            let number = self.requests;
            self.requests += 1;
            self.flash.busy_us = 0;
            let Some(answer) = self.server.handle(&mut self.flash, &packet) else {
                continue;
            };
            let begin = at.max(self.server_free_us);
            self.server_free_us = begin + self.turnaround_us + self.flash.busy_us;
            if self.lost() || self.lose_answers.contains(&number) {
                continue;
            }
            let wire = Framing::Console.encode(&answer);
            self.down_free_us =
                self.down_free_us.max(self.server_free_us) + self.wire_us(wire.len());
            self.down.push_back((self.down_free_us, wire));
        }
    }

    fn upload(&mut self, file: &[u8], sizes: (u32, u32)) -> Result<Reply, ClientError> {
        self.client.set_sizes(Some(Parameters {
            buf_size: sizes.0,
            buf_count: sizes.1,
        }));
        self.client.upload(self.now_ms, plan(file));
        self.run(&mut File(file, file.len() as u64))
    }
}

/// Cuts what is written into pieces of one packet each, so that each can be lost by itself.
fn frames(output: &[u8]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for line in output.split_inclusive(|b| *b == b'\n') {
        match frames.last_mut() {
            Some(frame) if line.starts_with(&[4, 20]) => frame.extend_from_slice(line),
            _ => frames.push(line.to_vec()),
        }
    }
    frames
}

fn plan(file: &[u8]) -> Plan {
    Plan {
        size: file.len() as u64,
        name: crate::mcuboot::sha256(file).to_vec(),
        name_is_digest: true,
        image: None,
        repeat_image: false,
        listed_image: 0,
    }
}

fn file(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 13 + i / 251) as u8).collect()
}

/// Uploads `length` bytes and answers the share of the line in 1/1000.
fn share(world: &mut World, length: usize, sizes: (u32, u32)) -> u64 {
    let file = file(length);
    world.upload(&file, sizes).unwrap();
    assert_eq!(world.flash.bytes, file);
    length as u64 * 10_000_000 / (world.now_ms * world.baud)
}

const KIB: usize = 1024;

#[test]
fn the_line_is_used_as_well_as_its_framing_allows() {
    // baud, window, buffer size: share of the line in 1/1000 that is reached at least.
    let rows: &[(u64, u8, u32, u64)] = &[
        (115_200, 1, 384, 610),
        // 96 % of 672.
        (115_200, 2, 384, 646),
        // 95 % of 720.
        (115_200, 2, 2048, 684),
        (921_600, 3, 384, 639),
        (3_000_000, 3, 384, 620),
    ];
    for (baud, window, buffer, least) in rows {
        let found = share(&mut world(*baud, *window), 128 * KIB, (*buffer, 4));
        assert!(
            found >= *least,
            "{baud} {window} {buffer}: {found} < {least}"
        );
    }
}

#[test]
fn slow_flash_is_hidden_behind_a_window() {
    let slow = |window| {
        let mut world = world(115_200, window);
        world.flash.erase_us = 85_000;
        world.flash.write_us = 4_000;
        share(&mut world, 128 * KIB, (384, 4))
    };
    let (one, three) = (slow(1), slow(3));
    assert!(three * 10 >= one * 12, "{one} {three}");
}

#[test]
fn one_lost_frame_in_a_hundred_costs_at_most_a_tenth() {
    let lossy = |loss, seed| {
        let mut world = world(115_200, 2);
        (world.loss, world.seed) = (loss, seed);
        share(&mut world, 192 * KIB, (384, 4))
    };
    let clean = lossy(0, 1);
    for seed in 1..5 {
        let found = lossy(10, seed);
        assert!(found * 10 >= clean * 9, "seed {seed}: {clean} {found}");
    }
}

#[test]
fn a_target_that_is_deaf_while_it_writes_is_not_slower_than_by_stop_and_wait() {
    for baud in [115_200, 230_400] {
        let deaf = |window| {
            let mut world = world(baud, window);
            world.deaf = true;
            world.flash.erase_us = 85_000;
            world.flash.write_us = 30_000;
            share(&mut world, 256 * KIB, (384, 4))
        };
        let (one, four) = (deaf(1), deaf(4));
        // Trials cost a little: 4 losses each, ever more rarely.
        assert!(four * 100 >= one * 96, "{baud}: {one} {four}");
    }
}

#[test]
fn a_server_that_takes_less_is_given_the_rest() {
    let mut world = world(115_200, 2);
    world.flash.unit = 64;
    share(&mut world, 40 * KIB + 5, (350, 4));
}

#[test]
fn a_server_that_takes_nothing_any_more_is_not_asked_for_ever() {
    let mut world = world(115_200, 2);
    world.flash.full_at = Some(5000);
    let end = world.upload(&file(20_000), (384, 4));
    assert_eq!(end, Err(ClientError::Restarts));
    assert!(world.requests < 5 * 64, "{}", world.requests);
}

#[test]
fn a_lost_last_answer_is_found_in_the_list_and_nothing_is_sent_again() {
    let file = file(3000);
    let mut world = world(115_200, 1);
    let chunks = 10;
    world.upload(&file, (384, 1)).unwrap();
    assert!(world.requests < chunks);
    let last = world.requests - 1;
    let mut again = self::world(115_200, 1);
    again.lose_answers = vec![last];
    again.upload(&file, (384, 1)).unwrap();
    assert_eq!(again.flash.erases, 1);
    // The lost one again, and the list.
    assert_eq!(again.requests, last + 3);
}

#[test]
fn an_upload_lost_by_a_restart_begins_anew_three_times_at_most() {
    let file = file(20_000);
    let mut world = world(115_200, 2);
    world.restart_before = vec![5, 15, 30];
    world.upload(&file, (384, 4)).unwrap();
    assert_eq!(world.flash.bytes, file);
    let mut hopeless = self::world(115_200, 1);
    hopeless.restart_before = (0..1000).step_by(7).collect();
    assert_eq!(hopeless.upload(&file, (384, 1)), Err(ClientError::Restarts));
}

#[test]
fn an_upload_does_not_go_on_into_a_recovery_unless_it_is_meant_for_one() {
    let file = file(20_000);
    // In the midst of it, and after a first chunk that was not answered.
    for (lost, restart) in [(vec![], 9), (vec![0], 1)] {
        for (is_meant, lists_active) in [(false, false), (false, true), (true, false)] {
            let mut world = world(115_200, 1);
            world.flash.lists_active = lists_active;
            (world.lose_answers, world.restart_before) = (lost.clone(), vec![restart]);
            world.restarts_into_recovery = true;
            let repeat_image = is_meant;
            let plan = Plan {
                repeat_image,
                ..plan(&file)
            };
            world.client.upload(0, plan);
            let end = world.run(&mut File(&file, 20_000));
            assert_eq!(end.is_ok(), is_meant, "{restart}: {end:?}");
            assert_eq!(world.flash.erases, 1 + u32::from(is_meant), "{restart}");
        }
    }
}

#[test]
fn an_upload_of_another_image_goes_on_where_only_the_applications_own_is_told_to_run() {
    let file = file(20_000);
    let mut world = world(115_200, 1);
    (world.lose_answers, world.restart_before) = (vec![0], vec![9]);
    let plan = Plan {
        listed_image: 1,
        ..plan(&file)
    };
    world.client.upload(0, plan);
    let end = world.run(&mut File(&file, 20_000));
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(world.flash.bytes, file);
}

#[test]
fn a_new_client_goes_on_where_the_old_one_stopped() {
    let file = file(20_000);
    let mut world = world(115_200, 1);
    world.client.upload(0, plan(&file));
    while world.client.uploaded() < 10_000 {
        assert_eq!(world.turn(&mut File(&file, 20_000)), None);
        world.now_ms += 1;
    }
    let (before, had) = (world.requests, world.flash.bytes.len());
    world.client = Client::new(ClientConfig {
        framing: Framing::Console,
        baud: 115_200,
        window_max: 1,
    });
    world.upload(&file, (384, 1)).unwrap();
    assert_eq!(world.flash.bytes, file);
    assert_eq!(world.flash.erases, 1);
    let chunk = 320;
    assert!(world.requests - before <= (20_000 - had).div_ceil(chunk) as u32 + 2);
}

#[test]
fn an_upload_waits_for_a_file_that_grows() {
    let file = file(5000);
    let mut world = world(115_200, 2);
    world.client.upload(0, plan(&file));
    let mut held = 0;
    let end = loop {
        if world.client.is_starved() {
            held = (held + 100).min(5000);
        }
        if let Some(end) = world.turn(&mut File(&file, held)) {
            break end;
        }
        world.now_ms += 1;
    };
    assert!(end.is_ok());
    assert_eq!(world.flash.bytes, file);
}

#[test]
fn refusals_and_mismatches_end_it() {
    let file = file(2000);
    let mut failing = world(115_200, 1);
    failing.flash.fails = true;
    let refusal = Refusal::image(image_rc::FLASH_WRITE_FAILED);
    assert_eq!(
        failing.upload(&file, (384, 1)),
        Err(ClientError::Refused(refusal))
    );
    let mut wrong = world(115_200, 1);
    wrong.flash.matches = Some(false);
    assert_eq!(wrong.upload(&file, (384, 1)), Err(ClientError::Mismatch));
    let mut tiny = world(115_200, 1);
    assert_eq!(tiny.upload(&file, (64, 1)), Err(ClientError::TooSmall));
}

#[test]
fn a_server_that_erases_for_longer_than_is_waited_and_is_deaf_meanwhile_is_waited_for() {
    for seconds in [30, 50, 70] {
        let mut world = world(115_200, 1);
        world.deaf = true;
        world.flash.erase_us = seconds * 1_000_000;
        world.upload(&file(3000), (384, 4)).unwrap();
        assert_eq!(world.flash.erases, 1, "{seconds}");
        assert!(world.now_ms < (seconds + 10) * 1000, "{}", world.now_ms);
    }
}

#[test]
fn a_dead_line_ends_an_upload() {
    let mut world = world(115_200, 2);
    world.loss = 1000;
    assert_eq!(
        world.upload(&file(2000), (384, 4)),
        Err(ClientError::Silent)
    );
    assert!(world.now_ms < 120_000);
}

#[test]
fn a_server_of_version_one_is_found_by_the_probe() {
    let mut world = world(115_200, 1);
    world.server = Server::new(ServerConfig {
        dialect: Dialect {
            errors: ErrorStyle::Generic,
            legacy_rc: true,
            ..Dialect::default()
        },
        v1_only: true,
        ..ServerConfig::default()
    });
    world.client.begin(0, Order::Probe);
    assert!(matches!(world.run(&mut ()), Ok(Reply::Images(_))));
    assert_eq!(world.client.version(), Version::V1);
    world.client.begin(world.now_ms, Order::Test(vec![9; 32]));
    let refused = world.run(&mut ()).unwrap_err();
    assert_eq!(refused, ClientError::Refused(Refusal::generic(rc::UNKNOWN)));
}

#[test]
fn a_lost_answer_is_asked_for_again_and_silence_after_a_reset_is_no_error() {
    let mut world = world(115_200, 1);
    world.lose_answers = vec![0, 1];
    world.client.begin(0, Order::Echo("hi".into()));
    assert_eq!(world.run(&mut ()), Ok(Reply::Echo("hi".into())));
    assert_eq!(world.requests, 3);
    world.loss = 1000;
    world.client.begin(
        world.now_ms,
        Order::Reset {
            force: false,
            boot_mode: None,
        },
    );
    assert_eq!(world.run(&mut ()), Ok(Reply::Nothing));
    world.client.begin(world.now_ms, Order::Probe);
    assert_eq!(world.run(&mut ()), Err(ClientError::Silent));
}
