//! smp-core's client against the simulated MCU, in virtual time: every trap of servers that were met, and every fault on
//! purpose, as the client lives through it. What the server's side does is tested beside the server.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

mod commands;
mod updates;
mod uploads;

use host_mcu_sim::talk::Talk;
use host_mcu_sim::{Config, Factory, Geometry, Profile, Slot, Timing, View, sample};
use smp_core::client::{Source as _, Whole};

const OLD: &str = "1.0.0";
const NEW: &str = "2.0.0";
const SECTOR_BYTES: u32 = 1024;
/// Sectors that an upload of [`file`] erases: its own, and the trailer's.
const FILE_BYTES: usize = 9000;

fn config() -> Config {
    let mut config = Config::new(Geometry::new(SECTOR_BYTES, 32 * SECTOR_BYTES, 1).unwrap());
    config.factory = Factory {
        primary: vec![sample::image(OLD, 3000)],
        secondary: Vec::new(),
    };
    config.timing = Timing::line(115_200);
    config
}

fn config_of(profile: Profile) -> Config {
    Config {
        server: profile,
        ..config()
    }
}

fn with_rules(rules: &[&str]) -> Config {
    Config {
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..config()
    }
}

fn file() -> Vec<u8> {
    sample::image(NEW, FILE_BYTES)
}

fn hash_of(file: &[u8]) -> Vec<u8> {
    Whole::new(file).hash().unwrap()
}

/// The other slot holds exactly this image.
fn holds(view: &View, file: &[u8]) -> bool {
    view.slot(0, Slot::Secondary)
        .is_some_and(|slot| slot.hash == hash_of(file))
}

/// Erased sectors of one upload of [`file`] that nothing disturbs.
fn erases_of_one_upload() -> u64 {
    let mut talk = Talk::new(config(), 2).unwrap();
    talk.upload(&file()).unwrap();
    talk.mcu().view().flash.erases
}
