//! The client against servers made by hand: the tests say each byte that comes back.

mod devices;
mod hostile;
mod kept;
mod server;
mod way;
