//! What is said to people, in two thirds of its bytes less.
//!
//! The sentences stand as they are in the tables of those who say them, a row a line. While the crate is compiled they
//! are put into one text in which a byte from 128 on stands for the two bytes that [`PAIRS`] has for it, each of which may
//! stand for two again: the most frequent pair becomes a byte, 128 times over. A row is spelt out when it is said, so
//! nothing is done at start and nothing lies in memory twice.
//!
//! Deliberately not for what is compared, sent or stored.

use alloc::string::String;

use crate::code::{PalImageState, State};
use crate::stream;

use super::{command, lines, ops, table, view};

/// Where the rows of each table begin.
pub(super) const WAITS: usize = rows_before(0);
pub(super) const DUTIES: usize = rows_before(1);
pub(super) const LINES: usize = rows_before(2);
pub(super) const REASONS: usize = rows_before(3);
pub(super) const STATES: usize = rows_before(4);
pub(super) const CAUSES: usize = rows_before(5);
pub(super) const IMAGES: usize = rows_before(6);
pub(super) const DROPS: usize = rows_before(7);
pub(super) const REFUSALS: usize = rows_before(8);

/// In the order above, first what an update says most often, for rows are counted from the start; each ends with a line feed.
const TABLES: [&str; 9] = [
    view::WAITS,
    ops::VERBS,
    lines::LINES,
    lines::TEXTS,
    State::NAMES,
    table::NAMES,
    PalImageState::NAMES,
    stream::DROPS,
    command::REFUSALS,
];

/// Pushes a row, by its number in its table and where that begins; nothing if there is none.
pub(super) fn push(out: &mut String, row: usize) {
    let Some(start) = PLACES.get(row / STRIDE) else {
        return;
    };
    let mut before = row % STRIDE;
    for byte in PACKED.get(usize::from(*start)..).unwrap_or_default() {
        if *byte == b'\n' {
            if before == 0 {
                return;
            }
            before -= 1;
        } else if before == 0 {
            spell(out, *byte);
        }
    }
}

/// A pair stands behind those it is made of, so this ends.
fn spell(out: &mut String, byte: u8) {
    let pair = PAIRS.get(usize::from(byte).wrapping_sub(PLAIN));
    let Some(pair) = pair else {
        return out.push(char::from(byte));
    };
    for part in pair {
        spell(out, *part);
    }
}

/// Bytes that stand for themselves.
const PLAIN: usize = 128;

static PAIRS: [[u8; 2]; PAIRS_MAX] = LEARNT.pairs;
static PACKED: [u8; LEARNT.len] = LEARNT.text();
/// Where every row begins whose number is a multiple of [`STRIDE`]: whoever looks for one from the start reads 2 KB for
/// each line of the log.
static PLACES: [u16; ROWS / STRIDE + 1] = LEARNT.places();

/// Two bytes for so many rows, and half as many of them, some 8 bytes each, are passed over on the average.
const STRIDE: usize = 32;

const ROWS: usize = rows_before(TABLES.len());

const PAIRS_MAX: usize = 256 - PLAIN;

const LEARNT: Learnt = Learnt::new();

/// A text and the pairs that its upper bytes stand for.
struct Learnt {
    bytes: [u8; TABLES_LEN],
    len: usize,
    pairs: [[u8; 2]; PAIRS_MAX],
}

impl Learnt {
    const fn new() -> Self {
        let mut learnt = Self {
            bytes: joined(),
            len: TABLES_LEN,
            pairs: [[0; 2]; PAIRS_MAX],
        };
        let mut used = 0;
        while used < PAIRS_MAX {
            let pair = learnt.most_frequent();
            learnt.pairs[used] = pair;
            learnt.replace(pair, (PLAIN + used) as u8);
            used += 1;
        }
        learnt
    }

    const fn most_frequent(&self) -> [u8; 2] {
        let mut counts = [[0_u16; 256]; 256];
        let (mut best, mut most) = ([0; 2], 0);
        let mut at = 1;
        while at < self.len {
            let (one, other) = (self.bytes[at - 1], self.bytes[at]);
            if one != b'\n' && other != b'\n' {
                let count = &mut counts[one as usize][other as usize];
                *count += 1;
                if *count > most {
                    (best, most) = ([one, other], *count);
                }
            }
            at += 1;
        }
        best
    }

    const fn replace(&mut self, pair: [u8; 2], by: u8) {
        let (mut from, mut to) = (0, 0);
        while from < self.len {
            let byte = self.bytes[from];
            from += 1;
            if byte == pair[0] && from < self.len && self.bytes[from] == pair[1] {
                self.bytes[to] = by;
                from += 1;
            } else {
                self.bytes[to] = byte;
            }
            to += 1;
        }
        self.len = to;
    }

    const fn places<const LEN: usize>(&self) -> [u16; LEN] {
        let mut places = [0; LEN];
        let (mut at, mut row) = (0, 0);
        while at < self.len {
            if self.bytes[at] == b'\n' {
                row += 1;
                if row % STRIDE == 0 {
                    places[row / STRIDE] = (at + 1) as u16;
                }
            }
            at += 1;
        }
        places
    }

    const fn text<const LEN: usize>(&self) -> [u8; LEN] {
        let mut text = [0; LEN];
        let mut at = 0;
        while at < LEN {
            text[at] = self.bytes[at];
            at += 1;
        }
        text
    }
}

const TABLES_LEN: usize = {
    let (mut len, mut table) = (0, 0);
    while table < TABLES.len() {
        len += TABLES[table].len();
        table += 1;
    }
    len
};

const fn joined() -> [u8; TABLES_LEN] {
    let mut all = [0; TABLES_LEN];
    let (mut to, mut table) = (0, 0);
    while table < TABLES.len() {
        let text = TABLES[table].as_bytes();
        let mut from = 0;
        while from < text.len() {
            assert!(text[from].is_ascii(), "a byte from 128 on is a pair");
            all[to] = text[from];
            from += 1;
            to += 1;
        }
        table += 1;
    }
    all
}

const fn rows_before(table: usize) -> usize {
    let (mut rows, mut before) = (0, 0);
    while before < table {
        let text = TABLES[before].as_bytes();
        let mut at = 0;
        while at < text.len() {
            rows += (text[at] == b'\n') as usize;
            at += 1;
        }
        before += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(row: usize) -> String {
        let mut out = String::new();
        push(&mut out, row);
        out
    }

    #[test]
    fn every_row_is_said_as_it_is_written() {
        let rows = TABLES.concat();
        assert!(rows.ends_with('\n'));
        for (at, row) in rows.lines().enumerate() {
            assert_eq!(said(at), row);
        }
        assert_eq!(said(rows.lines().count()), "");
        assert_eq!(said(usize::MAX), "");
    }

    #[test]
    fn each_table_begins_where_its_number_says() {
        let starts = [
            WAITS, DUTIES, LINES, REASONS, STATES, CAUSES, IMAGES, DROPS, REFUSALS,
        ];
        for (start, table) in starts.into_iter().zip(TABLES) {
            assert_eq!(Some(&*said(start)), table.lines().next());
        }
    }

    #[test]
    fn it_is_worth_its_code() {
        // 150 bytes of code decode it.
        assert!(PACKED.len() + 2 * PAIRS_MAX + 1000 < TABLES_LEN);
    }
}
