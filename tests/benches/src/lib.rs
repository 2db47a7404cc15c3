//! The speed of the whole path and what it costs, each figure as a ratio against a baseline of the same run.
//!
//! ```text
//! rows ──sample──▶ harness ──spreads──▶ record ──▶ table, file
//!                                          ▲
//!                       an earlier file ───┘ compare
//! ```
//!
//! A row is a module of [`row`] with one function that takes one sample of subject and baseline. [`harness`] takes each
//! row in turn, again and again, so that whatever else the machine does meets all of them alike; [`record`] is the file;
//! [`compare`] says what has changed beyond the spread. Nothing here fails a build: figures are for people, who read them
//! on a quiet machine.
//!
//! ```
//! use benches::figure::Spread;
//!
//! let spread = Spread::of(&[3.0, 1.0, 2.0]).expect("there are values");
//! assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
//! ```

pub mod compare;
pub mod figure;
pub mod harness;
pub mod machine;
pub mod receiver;
pub mod record;
pub mod row;
pub mod table;
