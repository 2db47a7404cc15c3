//! Scripts of what is asked, what comes, and what becomes of it; and a bad network in which every transfer ends.

use alloc::collections::BTreeSet;
use alloc::vec;

use proptest::prelude::*;

use crate::jobs::Encoding;
use crate::stream::BitmapError;

use super::*;

const BLOCK: u32 = 256;

fn config(blocks: u64, blocks_per_request: u32) -> DownloadConfig {
    DownloadConfig {
        plane: Plane::Stream(Encoding::Cbor),
        file_id: 1,
        // The last block is short.
        grid: BlockGrid::new(blocks * u64::from(BLOCK) - 56, BLOCK).unwrap(),
        blocks_per_request,
        requests_in_flight: 1,
        request_timeout_ms: 10_000,
        momentum_max: 3,
        status_frequency: 2,
    }
}

/// A downloader that has found room on its line for all requests that it may make.
fn wide(config: DownloadConfig) -> Downloader {
    let mut state = Downloader::new(config, None).unwrap().state(0);
    state.pace.window = config.requests_in_flight;
    Downloader::restore(config, 0, state).unwrap()
}

fn message_of(file_id: u32, index: u32, size: u32, payload: usize) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder
        .map(4)
        .unwrap()
        .str("f")
        .unwrap()
        .u32(file_id)
        .unwrap();
    encoder
        .str("i")
        .unwrap()
        .u32(index)
        .unwrap()
        .str("l")
        .unwrap()
        .u32(size)
        .unwrap();
    encoder
        .str("p")
        .unwrap()
        .bytes(&vec![index as u8; payload])
        .unwrap();
    encoder.into_writer()
}

/// A block as the service sends it.
fn block(downloader: &Downloader, index: u32) -> Vec<u8> {
    let length = downloader.grid().block_len(BlockIndex(index)).unwrap();
    message_of(1, index, length, length as usize)
}

/// Offset, bitmap and count of a request.
fn request_of(step: &Step) -> (u32, Vec<u8>, u32) {
    let Step::Request(bytes) = step else {
        panic!("{step:?}")
    };
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut number = 0;
    let (mut offset, mut bitmap, mut count) = (0, vec![], 0);
    for _ in 0..decoder.map().unwrap().unwrap() {
        match decoder.str().unwrap() {
            "c" => assert!(decoder.str().unwrap().starts_with("rdy")),
            "b" => bitmap = decoder.bytes().unwrap().to_vec(),
            "o" => offset = decoder.u32().unwrap(),
            "n" => count = decoder.u32().unwrap(),
            _ => number = decoder.u32().unwrap(),
        }
    }
    assert!(number > 0);
    (offset, bitmap, count)
}

/// Takes a block, stores it at once.
fn store(downloader: &mut Downloader, now: u64, index: u32) -> Held {
    let message = block(downloader, index);
    let verdict = downloader.on_message(now, &message);
    let Verdict::Write(block) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(block.offset, u64::from(index) * u64::from(BLOCK));
    assert!(block.data.iter().all(|byte| *byte == index as u8));
    downloader.on_written(block.index)
}

#[test]
fn a_transfer_of_three_blocks_asks_as_the_c_agent_does() {
    let mut config = config(3, 1);
    (config.file_id, config.grid) = (0, BlockGrid::new(2500, 1024).unwrap());
    let mut downloader = Downloader::new(config, None).unwrap();
    let lead = [
        0xa6, 0x61, 0x63, 0x63, 0x72, 0x64, 0x79, 0x61, 0x66, 0x00, 0x61, 0x6c, 0x19, 0x04, 0x00,
        0x61, 0x6f, 0x00, 0x61, 0x62, 0x41,
    ];
    let rows = [
        (0, 0x07, Some((1, 3))),
        (1, 0x06, Some((2, 3))),
        (2, 0x04, None),
    ];
    for (index, bitmap, progress) in rows {
        let expected = [&lead[..], &[bitmap, 0x61, 0x6e, 0x01]].concat();
        assert_eq!(downloader.poll(0), Step::Request(expected));
        assert_eq!(downloader.poll(0), Step::Wait);
        let length = if index == 2 { 452 } else { 1024 };
        let message = message_of(0, index, length, length as usize);
        let verdict = downloader.on_message(1, &message);
        assert!(matches!(verdict, Verdict::Write(_)), "{verdict:?}");
        let held = downloader.on_written(BlockIndex(index));
        assert_eq!(
            held,
            Held {
                progress,
                complete: index == 2
            }
        );
    }
    assert_eq!(downloader.poll(1), Step::Complete);
    assert_eq!(downloader.deadline(), None);
}

#[test]
fn a_block_counts_only_when_the_storage_has_acknowledged_it() {
    let mut downloader = Downloader::new(config(3, 3), None).unwrap();
    downloader.poll(0);
    for index in 0..3 {
        let message = block(&downloader, index);
        assert!(matches!(
            downloader.on_message(1, &message),
            Verdict::Write(_)
        ));
        assert_eq!(downloader.progress(), (0, 3));
    }
    // All has come, so silence is no news; but nothing is held and nothing more is asked for.
    assert_eq!(
        (downloader.poll(1), downloader.deadline()),
        (Step::Wait, None)
    );
    assert_eq!(downloader.writing(), [0, 1, 2]);
    assert_eq!(downloader.waits_for(), None);
    for index in [2, 0] {
        assert!(!downloader.on_written(BlockIndex(index)).complete);
    }
    assert_eq!(downloader.held(), [0b101]);
    assert_eq!(downloader.poll(2), Step::Wait);
    assert!(downloader.on_written(BlockIndex(1)).complete);
    assert_eq!(downloader.poll(2), Step::Complete);
}

#[test]
fn a_block_that_the_storage_refused_is_asked_for_again() {
    let mut downloader = Downloader::new(config(3, 3), None).unwrap();
    downloader.poll(0);
    store(&mut downloader, 1, 0);
    store(&mut downloader, 1, 2);
    let message = block(&downloader, 1);
    downloader.on_message(1, &message);
    downloader.on_write_failed(BlockIndex(1));
    assert_eq!(downloader.waits_for(), Some(BlockIndex(1)));
    assert_eq!(request_of(&downloader.poll(1)), (0, vec![0b010], 3));
}

#[test]
fn an_acknowledgement_of_nothing_changes_nothing() {
    let mut downloader = Downloader::new(config(3, 3), None).unwrap();
    for index in [0, 7, u32::MAX] {
        let held = downloader.on_written(BlockIndex(index));
        assert_eq!(
            held,
            Held {
                progress: None,
                complete: false
            }
        );
        downloader.on_write_failed(BlockIndex(index));
    }
    assert_eq!(downloader.progress(), (0, 3));
    downloader.poll(0);
    store(&mut downloader, 0, 0);
    assert_eq!(downloader.on_written(BlockIndex(0)).progress, None);
}

#[test]
fn every_unusable_message_is_forgotten_for_its_own_reason() {
    let mut downloader = Downloader::new(config(3, 3), None).unwrap();
    downloader.poll(0);
    store(&mut downloader, 0, 0);
    let being_written = block(&downloader, 1);
    assert!(matches!(
        downloader.on_message(0, &being_written),
        Verdict::Write(_)
    ));
    let before = downloader.clone();
    // file, index, l, payload
    let rows = [
        ((2, 2, 200, 200), DropReason::OtherFile),
        ((0, 2, 200, 200), DropReason::OtherFile),
        ((1, 3, 256, 256), DropReason::IndexOutOfRange),
        ((1, u32::MAX, 256, 256), DropReason::IndexOutOfRange),
        ((1, 2, 256, 256), DropReason::WrongBlockLength),
        ((1, 2, 199, 199), DropReason::WrongBlockLength),
        ((1, 2, 0, 0), DropReason::WrongBlockLength),
        ((1, 2, 200, 199), DropReason::WrongPayloadLength),
        ((1, 2, 200, 201), DropReason::WrongPayloadLength),
        ((1, 2, 200, 0), DropReason::WrongPayloadLength),
        ((1, 0, 256, 256), DropReason::Duplicate),
        ((1, 1, 256, 256), DropReason::Duplicate),
    ];
    for ((file_id, index, size, payload), reason) in rows {
        let message = message_of(file_id, index, size, payload);
        assert_eq!(
            downloader.on_message(5000, &message),
            Verdict::Dropped(reason)
        );
        assert_eq!(downloader.last_drop(), Some(reason));
        // Neither the timer nor anything else has moved.
        assert_eq!(downloader.state(5000), before.state(5000), "{reason:?}");
    }
    let reason = DropReason::Undecodable(DecodeError::NotAMap);
    assert_eq!(
        downloader.on_message(5000, &[0x80]),
        Verdict::Dropped(reason)
    );
    store(&mut downloader, 5000, 2);
    assert_eq!(downloader.last_drop(), None);
    downloader.on_written(BlockIndex(1));
    // A duplicate of the last block after the end harms nothing.
    let late = block(&downloader, 2);
    let unexpected = Verdict::Dropped(DropReason::Unexpected);
    assert_eq!(downloader.on_message(5000, &late), unexpected);
    assert_eq!(downloader.poll(5000), Step::Complete);
}

#[test]
fn reasons_have_numbers_that_never_change() {
    let rows = [
        (DropReason::Undecodable(DecodeError::Malformed), 1),
        (DropReason::OtherFile, 2),
        (DropReason::IndexOutOfRange, 3),
        (DropReason::WrongBlockLength, 4),
        (DropReason::WrongPayloadLength, 5),
        (DropReason::Duplicate, 6),
        (DropReason::Unexpected, 7),
        (DropReason::WindowFull, 8),
    ];
    let texts: BTreeSet<&str> = rows.iter().map(|(reason, _)| reason.text()).collect();
    assert_eq!(texts.len(), rows.len());
    for (reason, code) in rows {
        assert_eq!(reason.code(), code);
    }
}

#[test]
fn blocks_in_any_order_fill_the_window_and_lost_ones_are_asked_for_again() {
    let mut downloader = Downloader::new(config(10, 4), None).unwrap();
    assert_eq!(request_of(&downloader.poll(0)), (0, vec![0xff, 0x03], 4));
    for index in [3, 0, 1] {
        store(&mut downloader, 5, index);
        assert_eq!(downloader.poll(5), Step::Wait);
    }
    assert_eq!(downloader.waits_for(), Some(BlockIndex(2)));
    // A second after the last block block 2 counts as lost.
    assert_eq!(downloader.deadline(), Some(1005));
    assert_eq!(downloader.poll(1004), Step::Wait);
    assert_eq!(request_of(&downloader.poll(1005)), (0, vec![0xf4, 0x03], 4));
    assert_eq!(downloader.momentum(), 1);
}

#[test]
fn a_service_that_answers_with_other_blocks_slows_nothing_down() {
    let mut downloader = Downloader::new(config(10, 4), None).unwrap();
    downloader.poll(0);
    for index in [9, 8, 7] {
        store(&mut downloader, 1, index);
        assert_eq!(downloader.poll(1), Step::Wait);
    }
    store(&mut downloader, 1, 6);
    assert_eq!(request_of(&downloader.poll(1)), (0, vec![0x3f, 0x00], 4));
}

#[test]
fn duplicates_do_not_keep_a_silent_service_alive() {
    let mut downloader = Downloader::new(config(3, 1), None).unwrap();
    downloader.poll(0);
    store(&mut downloader, 0, 0);
    let duplicate = block(&downloader, 0);
    let mut now = 0;
    let mut requests = 0;
    while downloader.poll(now) != Step::GaveUp {
        requests += 1;
        assert!(requests <= 3);
        let deadline = downloader.deadline().unwrap();
        while now < deadline {
            let duplicate = downloader.on_message(now, &duplicate);
            assert_eq!(duplicate, Verdict::Dropped(DropReason::Duplicate));
            now += 100;
        }
    }
    assert_eq!(requests, 3);
    assert_eq!(downloader.last_drop(), Some(DropReason::Duplicate));
}

#[test]
fn silence_is_borne_longer_each_time_and_given_up_after_momentum_max_requests() {
    let mut downloader = Downloader::new(config(3, 1), None).unwrap();
    let mut now = 0;
    for (momentum, wait) in [(1, 10_000), (2, 20_000), (3, 40_000)] {
        assert!(matches!(downloader.poll(now), Step::Request(_)));
        assert_eq!(downloader.momentum(), momentum);
        assert_eq!(downloader.deadline(), Some(now + wait));
        now += wait;
    }
    assert_eq!(downloader.poll(now), Step::GaveUp);
    assert_eq!(downloader.poll(now + 1), Step::GaveUp);
    assert_eq!(downloader.deadline(), None);
    let late = block(&downloader, 0);
    assert_eq!(
        downloader.on_message(now, &late),
        Verdict::Dropped(DropReason::Unexpected)
    );
}

#[test]
fn one_usable_block_sets_momentum_back() {
    let mut downloader = Downloader::new(config(3, 1), None).unwrap();
    downloader.poll(0);
    downloader.poll(10_000);
    downloader.poll(30_000);
    assert_eq!(downloader.momentum(), 3);
    store(&mut downloader, 69_999, 2);
    assert_eq!(downloader.momentum(), 0);
    assert!(matches!(downloader.poll(69_999), Step::Request(_)));
}

#[test]
fn a_request_that_did_not_leave_is_repeated_at_the_deadline_and_counts() {
    let mut downloader = Downloader::new(config(3, 1), None).unwrap();
    let mut now = 0;
    for wait in [10_000, 20_000, 40_000] {
        assert!(matches!(downloader.poll(now), Step::Request(_)));
        downloader.on_request_failed(now, downloader.newest());
        assert_eq!(
            (downloader.poll(now), downloader.deadline()),
            (Step::Wait, Some(now + wait))
        );
        now += wait;
    }
    assert_eq!(downloader.poll(now), Step::GaveUp);
    // Without a request there is nothing to fail.
    let mut idle = Downloader::new(config(3, 1), None).unwrap();
    idle.on_request_failed(0, 0);
    assert!(matches!(idle.poll(0), Step::Request(_)));
}

/// Milliseconds until 256 blocks have come from a service of which three of ten blocks are lost.
fn time_with_losses(seed: u64) -> u64 {
    let mut downloader = Downloader::new(
        DownloadConfig {
            momentum_max: 32,
            ..config(256, 31)
        },
        None,
    )
    .unwrap();
    let (mut now, mut state) = (0, seed);
    let mut lost = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 10 < 3
    };
    loop {
        match downloader.poll(now) {
            Step::Complete => return now,
            Step::GaveUp | Step::Range { .. } => panic!("seed {seed}: {now} ms"),
            Step::Wait => now = downloader.deadline().unwrap(),
            Step::Request(_) => {
                let wanted = downloader.requests.last().unwrap().wanted.clone();
                for index in wanted.into_iter().filter(|_| !lost()) {
                    store(&mut downloader, now + 5, index);
                }
            }
        }
    }
}

#[test]
fn three_of_ten_blocks_lost_cost_seconds_not_minutes() {
    let times: Vec<u64> = (0..100).map(time_with_losses).collect();
    let mean = times.iter().sum::<u64>() / 100;
    assert!(mean < 30_000, "{mean} ms on average");
    assert!(times.iter().all(|time| *time < 60_000), "{times:?}");
}

#[test]
fn a_pause_forgets_requests_and_keeps_blocks_and_momentum() {
    let mut downloader = Downloader::new(config(4, 2), None).unwrap();
    downloader.poll(0);
    store(&mut downloader, 1, 0);
    downloader.poll(5000);
    assert_eq!(downloader.momentum(), 1);
    downloader.pause();
    assert_eq!((downloader.momentum(), downloader.deadline()), (0, None));
    assert_eq!(downloader.poll(1_000_000), Step::Wait);
    let late = block(&downloader, 1);
    let unexpected = Verdict::Dropped(DropReason::Unexpected);
    assert_eq!(downloader.on_message(1_000_000, &late), unexpected);
    downloader.resume();
    assert_eq!(
        request_of(&downloader.poll(1_000_000)),
        (0, vec![0b1110], 2)
    );
    // A silent service does not live on by cutting the line.
    let deadline = downloader.deadline().unwrap();
    downloader.poll(deadline);
    assert_eq!(downloader.momentum(), 2);
    downloader.pause();
    downloader.resume();
    assert_eq!(downloader.momentum(), 1);
}

#[test]
fn several_requests_in_flight_ask_for_different_blocks() {
    let mut config = config(10, 2);
    config.requests_in_flight = 3;
    let mut downloader = wide(config);
    for bitmap in [0x03, 0x0c, 0x30] {
        assert_eq!(request_of(&downloader.poll(0)), (0, vec![bitmap], 2));
    }
    assert_eq!(downloader.poll(0), Step::Wait);
    // The second one is answered first.
    store(&mut downloader, 1, 2);
    assert_eq!(downloader.poll(1), Step::Wait);
    store(&mut downloader, 1, 3);
    assert_eq!(request_of(&downloader.poll(1)), (0, vec![0xc0], 2));
    assert_eq!(downloader.poll(1), Step::Wait);
    // Silence ends them all, and makes the window small.
    let again = downloader.deadline().unwrap();
    assert_eq!(request_of(&downloader.poll(again)), (0, vec![0x01], 2));
}

#[test]
fn a_window_of_one_request_is_asked_for_in_halves() {
    let mut config = config(20, 5);
    config.requests_in_flight = 8;
    let mut downloader = Downloader::new(config, None).unwrap();
    for bitmap in [0x03, 0x0c] {
        assert_eq!(request_of(&downloader.poll(0)), (0, vec![bitmap], 5));
    }
    assert_eq!(downloader.poll(0), Step::Wait);
    store(&mut downloader, 1, 0);
    assert_eq!(request_of(&downloader.poll(1)), (0, vec![0x30], 5));
    assert_eq!(downloader.poll(1), Step::Wait);
}

#[test]
fn a_request_under_a_cap_brings_all_that_it_has_paid_for() {
    let mut config = config(20, 4);
    config.requests_in_flight = 8;
    let mut downloader = Downloader::new(config, None).unwrap();
    downloader.set_allowance(Some(1024));
    assert_eq!(downloader.poll(0), Step::Wait);
    assert_eq!(downloader.deadline(), Some(1000));
    assert_eq!(request_of(&downloader.poll(1000)), (0, vec![0x0f], 4));
}

#[test]
fn what_is_being_written_takes_room_in_the_window() {
    let mut downloader = Downloader::new(config(8, 4), None).unwrap();
    downloader.poll(0);
    for index in 0..4 {
        let message = block(&downloader, index);
        assert!(matches!(
            downloader.on_message(1, &message),
            Verdict::Write(_)
        ));
    }
    let unasked = block(&downloader, 7);
    assert_eq!(
        downloader.on_message(1, &unasked),
        Verdict::Dropped(DropReason::WindowFull)
    );
    for index in 0..3 {
        downloader.on_written(BlockIndex(index));
        assert_eq!(downloader.poll(1), Step::Wait);
    }
    downloader.on_written(BlockIndex(3));
    assert_eq!(request_of(&downloader.poll(1)), (0, vec![0xf0], 4));
}

#[test]
fn a_map_too_large_for_a_request_goes_in_slices() {
    // 98,296 blocks have a map of 12,287 bytes, which goes whole; one more block makes a byte more.
    let rows = [(98_296, 12_287), (98_297, 1)];
    for (blocks, bytes) in rows {
        let mut downloader = Downloader::new(config(blocks, 8), None).unwrap();
        let (offset, bitmap, count) = request_of(&downloader.poll(0));
        assert_eq!((offset, bitmap.len(), count), (0, bytes, 8), "{blocks}");
    }
    let blocks = 1_048_576u32;
    let mut held = vec![0xff; 131_072];
    let mut downloader = Downloader::new(config(u64::from(blocks), 512), Some(&held)).unwrap();
    assert_eq!(downloader.poll(0), Step::Complete);
    // Two blocks, further apart than a slice is long, then the very last one.
    (held[1], held[20_000], held[131_071]) = (0xef, 0xfe, 0x7f);
    downloader = Downloader::new(config(u64::from(blocks), 512), Some(&held)).unwrap();
    for (offset, bitmap, index) in [
        (8, vec![0x10], 12),
        (160_000, vec![0x01], 160_000),
        (blocks - 8, vec![0x80], blocks - 1),
    ] {
        assert_eq!(request_of(&downloader.poll(0)), (offset, bitmap, 512));
        assert_eq!(downloader.waits_for(), Some(BlockIndex(index)));
        store(&mut downloader, 0, index);
    }
    assert_eq!(downloader.poll(0), Step::Complete);
}

#[test]
fn progress_is_told_for_the_first_block_and_every_so_many_but_never_for_the_last() {
    let mut config = config(9, 9);
    config.status_frequency = 3;
    let mut downloader = Downloader::new(config, None).unwrap();
    downloader.poll(0);
    let told: Vec<Option<(u32, u32)>> = (0..9)
        .map(|index| store(&mut downloader, 0, index).progress)
        .collect();
    let (none, some) = (None, |held| Some((held, 9)));
    assert_eq!(
        told,
        [
            some(1),
            none,
            some(3),
            none,
            none,
            some(6),
            none,
            none,
            none
        ]
    );
}

#[test]
fn configurations_are_taken_at_their_limits_and_refused_one_past_them() {
    type Change = fn(&mut DownloadConfig);
    let good = config(10, 512);
    let change = |change: Change| {
        let mut config = good;
        change(&mut config);
        Downloader::new(config, None).map(drop)
    };
    let large = |config: &mut DownloadConfig| {
        config.grid = BlockGrid::new(1 << 20, 131_072).unwrap();
    };
    let rows: [(Change, Option<ConfigError>); 13] = [
        (|_| (), None),
        (
            |config| config.blocks_per_request = 0,
            Some(ConfigError::BlocksPerRequest),
        ),
        (
            |config| config.blocks_per_request = 513,
            Some(ConfigError::BlocksPerRequest),
        ),
        (
            |config| config.blocks_per_request = u32::MAX,
            Some(ConfigError::BlocksPerRequest),
        ),
        (
            |config| config.requests_in_flight = 0,
            Some(ConfigError::RequestsInFlight),
        ),
        (|config| config.requests_in_flight = 64, None),
        (
            |config| config.requests_in_flight = 65,
            Some(ConfigError::RequestsInFlight),
        ),
        (
            |config| config.request_timeout_ms = 0,
            Some(ConfigError::RequestTimeout),
        ),
        (|config| config.request_timeout_ms = 86_400_000, None),
        (
            |config| config.request_timeout_ms = 86_400_001,
            Some(ConfigError::RequestTimeout),
        ),
        (
            |config| config.momentum_max = 0,
            Some(ConfigError::MomentumMax),
        ),
        (|config| config.momentum_max = u32::MAX, None),
        (
            |config| config.status_frequency = 0,
            Some(ConfigError::StatusFrequency),
        ),
    ];
    for (row, error) in rows {
        assert_eq!(change(row), error.map_or(Ok(()), |error| Err(error.into())));
    }
    let mut config = good;
    large(&mut config);
    assert_eq!(
        Downloader::new(config, None).map(drop),
        Err(StateError::Config(ConfigError::BlocksPerRequest))
    );
    config.blocks_per_request = 1;
    assert!(Downloader::new(config, None).is_ok());
}

#[test]
fn a_saved_transfer_goes_on_where_it_was_on_another_clock() {
    let mut downloader = Downloader::new(config(20, 8), None).unwrap();
    downloader.poll(1000);
    for index in [0, 2, 5] {
        store(&mut downloader, 1500, index);
    }
    let being_written = block(&downloader, 1);
    downloader.on_message(1500, &being_written);
    let state = downloader.state(2000);
    let mut other = Downloader::restore(config(20, 8), 7_000_000, state.clone()).unwrap();
    let mut again = other.state(7_000_000);
    again.requests[0].asked_ms = state.requests[0].asked_ms;
    assert_eq!(again, state);
    assert_eq!(other.poll(7_000_000), Step::Wait);
    let deadline = downloader.deadline().unwrap() - 2000 + 7_000_000;
    assert_eq!(other.deadline(), Some(deadline));
    // What was asked for before is taken after.
    for index in [3, 4, 6] {
        store(&mut other, 7_000_001, index);
    }
    other.on_written(BlockIndex(1));
    assert_eq!(other.poll(7_000_001), Step::Wait);
    store(&mut other, 7_000_001, 7);
    assert_eq!(
        request_of(&other.poll(7_000_001)),
        (0, vec![0x00, 0xff, 0x0f], 8)
    );
}

#[test]
fn a_saved_transfer_that_contradicts_itself_is_refused() {
    type Change = fn(&mut DownloadState);
    let good = DownloadState {
        held: vec![0b0000_0001, 0],
        writing: vec![1],
        requests: vec![RequestState {
            wanted: vec![2, 3],
            remaining: 2,
            ..RequestState::default()
        }],
        ..DownloadState::default()
    };
    let change = |change: Change| {
        let mut state = good.clone();
        change(&mut state);
        Downloader::restore(config(10, 2), 0, state).map(|downloader| downloader.requests.len())
    };
    let length = BitmapError::WrongLength {
        bytes: 1,
        expected: 2,
    };
    let again = |wanted: Vec<u32>| RequestState {
        wanted,
        remaining: 1,
        ..RequestState::default()
    };
    let rows: [(Change, Result<usize, StateError>); 11] = [
        (|_| (), Ok(1)),
        (
            |state| state.held = vec![0],
            Err(StateError::Bitmap(length)),
        ),
        (
            |state| state.held = vec![0, 4],
            Err(StateError::Bitmap(BitmapError::BitBeyondEnd)),
        ),
        (|state| state.writing = vec![0], Err(StateError::Block(0))),
        (
            |state| state.writing = vec![4, 4],
            Err(StateError::Block(4)),
        ),
        (
            |state| state.writing = vec![5, 4],
            Err(StateError::Block(4)),
        ),
        (|state| state.writing = vec![2], Err(StateError::Block(2))),
        (|state| state.writing = vec![10], Err(StateError::Block(10))),
        (
            |state| state.requests[0].wanted = vec![u32::MAX],
            Err(StateError::Block(u32::MAX)),
        ),
        // What only does not fit the window is asked for again.
        (|state| state.requests[0].remaining = 3, Ok(0)),
        (|state| state.requests[0].remaining = 0, Ok(0)),
    ];
    for (row, expected) in rows {
        assert_eq!(change(row), expected);
    }
    let mut two = good.clone();
    two.requests.push(again(vec![4]));
    assert!(
        Downloader::restore(config(10, 2), 0, two)
            .unwrap()
            .requests
            .is_empty()
    );
    let bad = Downloader::restore(config(10, 0), 0, good);
    assert_eq!(
        bad.err(),
        Some(StateError::Config(ConfigError::BlocksPerRequest))
    );
}

#[test]
fn statistics_count_as_the_c_agent_does_and_do_not_wrap() {
    let mut downloader = Downloader::new(config(3, 3), None).unwrap();
    downloader.poll(0);
    let mut statistics = Statistics::default();
    for index in [0, 0, 1] {
        let message = block(&downloader, index);
        let verdict = downloader.on_message(0, &message);
        statistics.count(&verdict);
        if let Verdict::Write(block) = verdict {
            downloader.on_written(block.index);
            statistics.count_written();
        }
    }
    statistics.count_unexpected();
    assert_eq!(
        statistics,
        Statistics {
            received: 4,
            processed: 2,
            dropped: 2
        }
    );
    let mut full = Statistics {
        received: u32::MAX,
        processed: u32::MAX,
        dropped: u32::MAX,
    };
    full.count_unexpected();
    full.count_written();
    full.count(&Verdict::Dropped(DropReason::Unexpected));
    assert_eq!(
        full,
        Statistics {
            received: u32::MAX,
            processed: u32::MAX,
            dropped: u32::MAX
        }
    );
}

/// What the network does to one message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late,
    Damaged(u8),
    SavedAndRestored,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Late),
        1 => any::<u8>().prop_map(Fate::Damaged),
        1 => Just(Fate::SavedAndRestored),
    ]
}

/// The service: the lowest wanted blocks first.
fn answer(downloader: &Downloader, step: &Step) -> Vec<u32> {
    let (offset, bitmap, count) = request_of(step);
    let bit = |index: &u32| bitmap[(index - offset) as usize / 8] >> (index % 8) & 1 == 1;
    (offset..offset + bitmap.len() as u32 * 8)
        .filter(bit)
        .filter(|index| *index < downloader.grid().count())
        .take(count as usize)
        .collect()
}

/// A service that echoes the token of each request.
fn echo(message: &[u8], token: &str) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder
        .map(5)
        .unwrap()
        .str("c")
        .unwrap()
        .str(token)
        .unwrap();
    let mut out = encoder.into_writer();
    out.extend_from_slice(&message[1..]);
    out
}

/// A downloader with room for three requests of two blocks, all of which are under way.
fn three_in_flight() -> Downloader {
    let mut config = config(12, 2);
    config.requests_in_flight = 3;
    let mut downloader = wide(config);
    for _ in 0..3 {
        assert!(matches!(downloader.poll(0), Step::Request(_)));
    }
    assert_eq!(downloader.poll(0), Step::Wait);
    downloader
}

fn expects(downloader: &Downloader, number: u32) -> bool {
    downloader
        .requests
        .iter()
        .any(|request| request.number == number)
}

fn take_of(downloader: &mut Downloader, now: u64, index: u32, token: &str) {
    let message = echo(&block(downloader, index), token);
    let verdict = downloader.on_message(now, &message);
    assert!(matches!(verdict, Verdict::Write(_)), "{verdict:?}");
    downloader.on_written(BlockIndex(index));
}

#[test]
fn a_hole_is_asked_for_at_once_when_later_requests_have_brought_three_blocks() {
    let mut downloader = three_in_flight();
    take_of(&mut downloader, 50, 0, "rdy1");
    // Block 1 is lost.
    take_of(&mut downloader, 51, 2, "rdy2");
    take_of(&mut downloader, 52, 3, "rdy2");
    let step = downloader.poll(52);
    assert_eq!(request_of_any(&step), ("rdy4".into(), 0, vec![0xc0]));
    take_of(&mut downloader, 53, 4, "rdy3");
    let step = downloader.poll(53);
    assert_eq!(request_of_any(&step), ("rdy5".into(), 0, vec![0x02, 0x01]));
}

#[test]
fn a_request_that_still_brings_blocks_is_not_overtaken() {
    let mut downloader = three_in_flight();
    for (index, token) in [
        (2, "rdy2"),
        (4, "rdy3"),
        (0, "rdy1"),
        (3, "rdy2"),
        (5, "rdy3"),
    ] {
        take_of(&mut downloader, 50, index, token);
    }
    while let Step::Request(_) = downloader.poll(50) {}
    assert!(expects(&downloader, 1));
    take_of(&mut downloader, 50, 1, "rdy1");
    assert!(!expects(&downloader, 1));
}

#[test]
fn a_block_that_was_only_late_makes_the_next_ones_be_waited_for_longer() {
    let mut downloader = three_in_flight();
    for (index, token) in [(2, "rdy2"), (3, "rdy2"), (4, "rdy3")] {
        take_of(&mut downloader, 50, index, token);
    }
    assert!(!expects(&downloader, 1));
    assert_eq!(downloader.overtaken_max, 3);
    take_of(&mut downloader, 51, 0, "rdy1");
    assert_eq!(downloader.overtaken_max, 6);
}

#[test]
fn a_refusal_ends_the_request_of_its_token() {
    let mut downloader = three_in_flight();
    assert_eq!(downloader.number_of("rdy2"), 2);
    assert_eq!(
        (downloader.number_of(""), downloader.number_of("rdy")),
        (3, 3)
    );
    downloader.on_request_failed(10, 2);
    assert!(expects(&downloader, 1) && !expects(&downloader, 2) && expects(&downloader, 3));
    assert_eq!(downloader.poll(10), Step::Wait);
}

fn by_url(blocks: u64) -> Downloader {
    let mut config = config(blocks, 4);
    (config.plane, config.requests_in_flight) = (Plane::Url, 2);
    Downloader::new(config, None).unwrap()
}

const fn range(offset: u64, length: u32) -> Step {
    Step::Range { offset, length }
}

#[test]
fn ranges_are_of_blocks_that_follow_each_other_up_to_the_last_byte() {
    let mut downloader = by_url(10);
    assert_eq!(downloader.poll(0), range(0, 1024));
    assert_eq!(downloader.poll(0), range(1024, 1024));
    assert_eq!(
        (downloader.poll(0), downloader.deadline()),
        (Step::Wait, None)
    );
    assert_eq!(downloader.on_range(50, 2, 1024), Some(vec![4, 5, 6, 7]));
    assert_eq!(downloader.on_range(50, 2, 1024), None);
    for index in 4..8 {
        downloader.on_written(BlockIndex(index));
    }
    assert_eq!(downloader.poll(50), range(2048, 456));
    // The first one fails: what it asked for is asked for at once, for others come.
    downloader.on_request_failed(51, 1);
    assert_eq!(downloader.poll(51), range(0, 1024));
    assert_eq!(downloader.on_range(52, 3, 456), Some(vec![8, 9]));
    assert_eq!(downloader.on_range(52, 4, 1024), Some(vec![0, 1, 2, 3]));
    for index in [8, 9, 0, 1, 2, 3] {
        downloader.on_written(BlockIndex(index));
    }
    assert_eq!(downloader.poll(53), Step::Complete);
}

#[test]
fn a_range_of_the_wrong_length_is_forgotten_and_asked_for_again() {
    let mut downloader = by_url(4);
    downloader.config.momentum_max = 9;
    downloader.poll(0);
    for length in [0, 967, 969, 1024] {
        let number = downloader.newest();
        assert_eq!(downloader.on_range(5, number, length), None, "{length}");
        assert!(!expects(&downloader, number));
        let deadline = downloader.deadline().unwrap();
        downloader.poll(deadline);
    }
}

#[test]
fn ranges_that_all_fail_are_repeated_ever_more_slowly_and_given_up() {
    let mut downloader = by_url(40);
    let mut now = 0;
    for (wait, momentum) in [(100, 1), (200, 2), (400, 3)] {
        let first = downloader.newest();
        while let Step::Range { .. } = downloader.poll(now) {}
        assert_eq!(downloader.momentum(), momentum);
        for number in first + 1..=downloader.newest() {
            downloader.on_request_failed(now, number);
        }
        assert_eq!(
            (downloader.poll(now), downloader.deadline()),
            (Step::Wait, Some(now + wait))
        );
        now += wait;
    }
    assert_eq!(downloader.poll(now), Step::GaveUp);
}

#[test]
fn the_other_plane_goes_on_with_what_is_held_and_being_written() {
    let mut downloader = by_url(10);
    downloader.poll(0);
    downloader.poll(0);
    assert_eq!(downloader.on_range(5, 1, 1024), Some(vec![0, 1, 2, 3]));
    downloader.on_written(BlockIndex(0));
    downloader.change_plane(Plane::Stream(Encoding::Cbor), 32);
    let step = downloader.poll(5);
    assert_eq!(request_of_any(&step), ("rdy3".into(), 0, vec![0xf0]));
    assert_eq!(downloader.on_range(6, 2, 1024), None);
    for index in 1..4 {
        downloader.on_written(BlockIndex(index));
    }
    assert_eq!(downloader.held(), [0x0f, 0]);
}

/// Token, offset and bitmap of a request.
fn request_of_any(step: &Step) -> (alloc::string::String, u32, Vec<u8>) {
    let Step::Request(bytes) = step else {
        panic!("{step:?}")
    };
    let mut decoder = minicbor::Decoder::new(bytes);
    let (mut token, mut offset, mut bitmap) = ("", 0, vec![]);
    for _ in 0..decoder.map().unwrap().unwrap() {
        match decoder.str().unwrap() {
            "c" => token = decoder.str().unwrap(),
            "b" => bitmap = decoder.bytes().unwrap().to_vec(),
            "o" => offset = decoder.u32().unwrap(),
            _ => decoder.skip().unwrap(),
        }
    }
    (token.into(), offset, bitmap)
}

proptest! {
    #[test]
    fn in_a_bad_network_every_transfer_ends_with_every_block(
        blocks in 1u64..60,
        blocks_per_request in 1u32..10,
        requests_in_flight in 1u32..4,
        lazy_storage in any::<bool>(),
        fates in prop::collection::vec(fate(), 200),
    ) {
        let mut config = config(blocks, blocks_per_request);
        config.requests_in_flight = requests_in_flight;
        config.momentum_max = 1000;
        let window = config.window() as usize;
        let mut downloader = Downloader::new(config, None).unwrap();
        let mut fates = fates.into_iter();
        let (mut now, mut late) = (0, Vec::new());
        loop {
            let step = downloader.poll(now);
            let mut arriving = match step {
                Step::Complete => break,
                Step::GaveUp | Step::Range { .. } => panic!("{step:?}"),
                Step::Request(_) => answer(&downloader, &step),
                Step::Wait => {
                    let pending = downloader.writing().to_vec();
                    prop_assert!(pending.len() <= window);
                    if pending.is_empty() {
                        // Whoever waits has a deadline, and it lies ahead.
                        let deadline = downloader.deadline().unwrap();
                        prop_assert!(deadline > now);
                        now = deadline;
                    }
                    for index in pending {
                        downloader.on_written(BlockIndex(index));
                    }
                    core::mem::take(&mut late)
                }
            };
            while let Some(index) = arriving.pop() {
                now += 3;
                let mut message = block(&downloader, index);
                match fates.next().unwrap_or(Fate::Arrives) {
                    Fate::Arrives => {}
                    Fate::Lost => continue,
                    Fate::Twice => arriving.push(index),
                    Fate::Late => {
                        late.push(index);
                        continue;
                    }
                    Fate::Damaged(at) => {
                        // Not the payload: its damage is found when the image is verified.
                        let head = message.len().min(14);
                        message[usize::from(at) % head] ^= 1 << (at % 8);
                    }
                    Fate::SavedAndRestored => {
                        let state = downloader.state(now);
                        downloader = Downloader::restore(config, now, state).unwrap();
                    }
                }
                let held = downloader.progress().0;
                if let Verdict::Write(block) = downloader.on_message(now, &message) {
                    prop_assert_eq!(downloader.progress().0, held);
                    let length = downloader.grid().block_len(block.index).unwrap();
                    prop_assert_eq!(block.data.len(), length as usize);
                    if !lazy_storage {
                        downloader.on_written(block.index);
                        prop_assert_eq!(downloader.progress().0, held + 1);
                    }
                }
            }
        }
        prop_assert!(downloader.held().iter().map(|byte| byte.count_ones()).sum::<u32>() == blocks as u32);
    }

    #[test]
    fn any_message_is_taken_or_forgotten(messages in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let mut downloader = Downloader::new(config(3, 3), None).unwrap();
        downloader.poll(0);
        for message in messages {
            prop_assert!(matches!(downloader.on_message(0, &message), Verdict::Dropped(_)));
        }
    }
}
