//! The machine itself, driven through its four verbs by a host in memory. One module a theme; rows where a story is
//! short. `world.rs` checks after every event that what waits has a deadline.

mod happy;
mod hostile;
mod recovery;
mod saved;
mod silence;
mod swarm;
mod turns;
mod world;
