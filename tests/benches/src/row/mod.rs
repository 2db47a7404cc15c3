//! The rows: a module each, with one function that takes one sample of subject and baseline.

use crate::harness::Row;

pub mod agent;
pub mod carrier;
pub mod crypto;
pub mod devices;
pub mod instance;
pub mod link;
pub mod loopback;
pub mod start;
pub mod updates;
pub mod window;
pub mod world;

mod idle;
mod meter;

/// Every row, in the order of the table.
pub const ALL: &[Row] = &[
    loopback::ROW,
    loopback::MOSQUITTO,
    window::ROW,
    link::MQTT,
    link::HTTP,
    agent::ROW,
    carrier::ROW,
    start::ROW,
    start::FLEET,
    updates::ROW,
    instance::ROW,
    instance::MEMORY,
    devices::ROW,
    world::ROW,
    crypto::ROW,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_say_what_they_are() {
        let names: BTreeSet<&str> = ALL.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ALL.len());
        let kebab = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        assert!(names.iter().all(|name| kebab(name)));
        assert!(ALL.iter().all(|row| !row.about.is_empty()));
    }
}
