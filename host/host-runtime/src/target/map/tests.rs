//! The log of a block map: what is replayed, what is torn, what is marked.

use super::*;

/// Ten blocks, the last one of 100 bytes.
const GRID: Grid = Grid {
    size: 9 * 256 + 100,
    block: 256,
};

fn log_of(records: &[Vec<u8>]) -> Vec<u8> {
    let mut log = BlockMap::new(GRID, 7).header().to_vec();
    for record in records {
        log.extend(record);
    }
    log
}

fn replay(log: &[u8]) -> Replayed {
    BlockMap::replay(log, GRID, 7)
}

#[test]
fn what_was_entered_is_replayed_with_its_marks() {
    let log = log_of(&[
        BlockMap::record(0, &[10, 11, 12]),
        BlockMap::mark(3),
        BlockMap::record(9, &[19]),
    ]);
    let replayed = replay(&log);
    assert!(!replayed.torn);
    assert_eq!(replayed.map.bitmap(), [0b0000_0111, 0b10]);
    assert_eq!(replayed.map.suspects(), [(9, 19)]);
    assert_eq!(replayed.map.held_bytes(), 3 * 256 + 100);
    assert_eq!(replayed.map.unsynced_bytes(), 100);
    assert_eq!(replayed.map.prefix_bytes(), 3 * 256);
}

#[test]
fn a_log_cut_anywhere_keeps_what_was_whole_and_says_that_it_is_torn() {
    let records = [
        BlockMap::record(0, &[1]),
        BlockMap::record(1, &[2, 3]),
        BlockMap::mark(3),
        BlockMap::record(5, &[6]),
    ];
    let log = log_of(&records);
    let mut ends = vec![HEADER_BYTES];
    for record in &records {
        ends.push(ends[ends.len() - 1] + record.len());
    }
    let held = [0, 1, 3, 3, 4];
    for cut in 0..=log.len() {
        let replayed = replay(&log[..cut]);
        let whole = ends.iter().rposition(|end| *end <= cut);
        let blocks = whole.map_or(0, |n| held[n]);
        assert_eq!(10 - replayed.map.missing(), blocks, "cut at {cut}");
        assert_eq!(replayed.torn, !ends.contains(&cut), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_ends_the_log_and_invents_no_block() {
    let log = log_of(&[BlockMap::record(0, &[1]), BlockMap::record(1, &[2])]);
    for bit in 0..log.len() * 8 {
        let mut bad = log.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let replayed = replay(&bad);
        assert!(replayed.torn, "bit {bit}");
        assert!(!(2..10).any(|i| replayed.map.holds(i)), "bit {bit}");
    }
}

#[test]
fn records_that_lie_are_not_believed() {
    let rows = [
        ("a block beyond the file", BlockMap::record(10, &[1])),
        ("a run beyond the file", BlockMap::record(9, &[1, 2])),
        ("the largest index", BlockMap::record(u32::MAX, &[1])),
        ("no block", BlockMap::record(1, &[])),
        ("a mark beyond the log", BlockMap::mark(1)),
        ("an unknown kind", sealed(9, 0, 0, [])),
    ];
    for (name, record) in rows {
        let replayed = replay(&log_of(&[record]));
        assert!(replayed.torn, "{name}");
        assert_eq!(replayed.map.missing(), 10, "{name}");
    }
    let twice = replay(&log_of(&[
        BlockMap::record(1, &[1]),
        BlockMap::record(1, &[2]),
    ]));
    assert!(twice.torn);
    assert_eq!(twice.map.suspects(), [(1, 1)]);
}

#[test]
fn the_log_of_another_transfer_says_nothing() {
    let log = log_of(&[BlockMap::record(0, &[1])]);
    let other = Grid {
        size: GRID.size + 1,
        ..GRID
    };
    for replayed in [
        BlockMap::replay(&log, GRID, 8),
        BlockMap::replay(&log, other, 7),
        BlockMap::replay(b"", GRID, 7),
    ] {
        assert!(replayed.torn);
        assert_eq!(replayed.map.held_bytes(), 0);
    }
}

#[test]
fn a_log_written_anew_says_the_same() {
    let mut map = BlockMap::new(GRID, 7);
    for index in [3, 1, 2, 8] {
        map.enter(index, &[100 + index]);
    }
    map.synced(2);
    map.enter(9, &[109]);
    let replayed = replay(&map.log());
    assert!(!replayed.torn);
    assert_eq!(replayed.map.bitmap(), map.bitmap());
    assert_eq!(replayed.map.suspects(), map.suspects());
    map.log_rewritten();
    assert_eq!(replayed.map.entries(), map.entries());
}

#[test]
fn a_failed_sync_releases_what_it_should_have_kept() {
    let mut map = BlockMap::new(GRID, 7);
    map.enter(0, &[1, 2]);
    map.synced(2);
    map.enter(2, &[3]);
    map.enter(9, &[4]);
    map.drop_unsynced();
    assert_eq!(map.bitmap(), [0b11, 0]);
    assert_eq!(map.prefix_bytes(), 512);
    assert_eq!((map.held_bytes(), map.unsynced_bytes()), (512, 0));
    let replayed = replay(&map.log());
    assert_eq!(replayed.map.bitmap(), map.bitmap());
    assert_eq!(replayed.map.suspects(), []);
}

#[test]
fn what_reads_back_differently_is_not_held() {
    let log = log_of(&[BlockMap::record(0, &[1, 2, 3])]);
    let mut map = replay(&log).map;
    map.drop_blocks(&[1]);
    assert_eq!(map.bitmap(), [0b101, 0]);
    assert_eq!(map.prefix_bytes(), 256);
    assert_eq!(map.unsynced_bytes(), 512);
    map.all_synced();
    assert_eq!(replay(&map.log()).map.suspects(), []);
}

#[test]
fn the_log_costs_less_than_one_percent_at_4_kib() {
    let grid = Grid {
        size: 64 * 1024 * 1024,
        block: 4096,
    };
    // Every block alone, a mark every 4 MiB.
    let blocks = u64::from(grid.blocks()) * BlockMap::record(0, &[0]).len() as u64;
    let marks = grid.size.div_ceil(4 * 1024 * 1024) * BlockMap::mark(0).len() as u64;
    assert!((blocks + marks + HEADER_BYTES as u64) * 100 < grid.size);
}

#[test]
fn a_file_of_one_byte_and_one_of_the_most_blocks_have_a_map() {
    for (size, block, blocks, last) in [
        (1, 256, 1, 1),
        (256, 256, 1, 256),
        (257, 256, 2, 1),
        (256 << 20, 256, 1 << 20, 256),
    ] {
        let grid = Grid { size, block };
        assert_eq!((grid.blocks(), grid.length(blocks - 1)), (blocks, last));
        let mut map = BlockMap::new(grid, 1);
        assert!(!map.complete());
        for index in 0..blocks {
            map.enter(index, &[0]);
        }
        assert!(map.complete());
        assert_eq!(map.prefix_bytes(), size);
    }
}
