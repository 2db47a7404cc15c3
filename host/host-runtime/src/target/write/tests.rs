//! Which writes are taken, and what of them is written.

use super::*;

const GRID: Grid = Grid {
    size: 1000,
    block: 256,
};

#[test]
fn a_write_is_whole_blocks_of_the_grid_within_the_file() {
    for (offset, length, good) in [
        (0, 256, true),
        (0, 1000, true),
        (256, 512, true),
        (768, 232, true),
        (0, 0, false),
        (0, 255, false),
        (1, 256, false),
        (768, 231, false),
        (768, 256, false),
        (1024, 1, false),
        (u64::MAX - 255, 256, false),
        (u64::MAX - 1000, 1, false),
    ] {
        assert_eq!(
            check_write(GRID, offset, length).is_ok(),
            good,
            "{offset} {length}"
        );
    }
    let large = Grid {
        size: 1 << 30,
        block: 131_072,
    };
    assert!(check_write(large, 0, WRITE_MAX_BYTES).is_ok());
    assert!(check_write(large, 0, WRITE_MAX_BYTES + 1).is_err());
}

#[test]
fn only_the_blocks_that_are_missing_are_written() {
    fn runs(map: &BlockMap, offset: u64, length: usize) -> Vec<(usize, usize)> {
        let runs = missing_runs(map, GRID, offset, length);
        runs.into_iter().map(|run| (run.start, run.end)).collect()
    }
    let mut map = BlockMap::new(GRID, 1);
    assert_eq!(runs(&map, 0, 1000), [(0, 1000)]);
    map.enter(1, &[0]);
    assert_eq!(runs(&map, 0, 1000), [(0, 256), (512, 1000)]);
    assert_eq!(runs(&map, 512, 488), [(0, 488)]);
    map.enter(3, &[0]);
    assert_eq!(runs(&map, 512, 488), [(0, 256)]);
    assert_eq!(runs(&map, 256, 256), []);
}
