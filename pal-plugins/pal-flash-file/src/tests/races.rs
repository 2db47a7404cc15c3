//! The launcher works while a duty does: it acts on the record that it read before the duty wrote another one.

use std::cell::Cell;

use pal_sdk::lent::{BlockDevice, Clock, Level, Log};

use super::*;

/// What is lent, with a launcher that has decided and notes it just before the plugin's next write.
struct Racing {
    fake: Fake,
    launches: Cell<bool>,
}

impl BlockDevice for Racing {
    fn regions(&self) -> Vec<Region> {
        self.fake.regions()
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.fake.read_at(region, offset, length)
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        if self.launches.take() {
            launcher::launch(&self.fake);
        }
        self.fake.write_at(region, offset, data)
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        self.fake.erase(region, offset, length)
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        self.fake.sync(region)
    }
}

impl Clock for Racing {
    fn now_ms(&self) -> u64 {
        self.fake.now_ms()
    }
}

impl Log for Racing {
    fn log(&self, level: Level, text: &str) {
        self.fake.log(level, text);
    }
}

/// The plugin of this gateway, raced by its launcher.
fn raced(bench: &Bench) -> FlashFile<Racing> {
    let lent = Racing {
        fake: bench.fake.clone(),
        launches: Cell::new(true),
    };
    let mut plugin = FlashFile::open(lent, Vec::new(), None).unwrap();
    plugin.reopen(transfer("job-1", &image(NEW))).unwrap();
    plugin
}

#[test]
fn a_rejected_image_that_is_being_started_needs_the_host_to_restart_it() {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    assert_eq!(raced(&bench).reject(), HOST_RESETS);
    assert_eq!(bench.told(), (3, Some(1), Some(true)));
    assert_eq!(launcher::launch(&bench.fake), 0);
    assert_eq!(bench.plugin.reject(), DONE);
    assert_eq!(bench.told(), (3, Some(0), Some(false)));
}

#[test]
fn an_image_that_goes_back_while_it_is_committed_is_not() {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    for _ in 0..launcher::TRIES {
        assert_eq!(launcher::launch(&bench.fake), 1);
    }
    let refused = raced(&bench).commit();
    assert_eq!(codes(refused), (0xeb, sub::NOT_RUNNING));
    assert_eq!(bench.told(), (3, Some(0), Some(false)));
    assert_eq!(launcher::launch(&bench.fake), 0);
    assert_eq!(bench.plugin.reject(), DONE);
    // The way is free for the next one.
    bench.receive("job-2", &image(version(1, 2))).unwrap();
    assert_eq!(bench.told(), (2, Some(0), Some(false)));
}
