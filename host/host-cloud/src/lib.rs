//! AWS in a box.
pub mod limits;
pub mod service;
