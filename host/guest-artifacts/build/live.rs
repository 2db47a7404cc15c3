//! Which locals of a function are still read later, at each of its instructions.
//!
//! What is not known to read nothing reads everything: so a local that is told to be dead is dead.

use crate::branches::outs;
use crate::code::{Function, Kind};

const IF: u8 = 0x04;
const BR_IF: u8 = 0x0d;

/// The locals that are read from an instruction on before they are written.
pub(crate) struct Live {
    /// Words of 64 locals for each instruction.
    words: usize,
    bits: Vec<u64>,
}

impl Live {
    pub(crate) fn of(function: &Function<'_>) -> Self {
        let instructions = &function.instructions;
        let locals = instructions.iter().filter_map(|i| local(i.kind)).max();
        let words = locals.map_or(0, |last| last as usize / 64 + 1);
        let next = successors(function);
        let mut live = Self {
            words,
            bits: vec![0; words * instructions.len()],
        };
        // What a loop's branch leads to is known one time later.
        let mut changed = true;
        while changed {
            changed = false;
            for at in (0..instructions.len()).rev() {
                changed |= live.look(at, instructions[at].kind, next[at].as_deref());
            }
        }
        live
    }

    /// Whether a local is read from that instruction on before it is written.
    pub(crate) fn is_live(&self, at: usize, local: u32) -> bool {
        let (word, bit) = (local as usize / 64, local % 64);
        word < self.words && self.bits[at * self.words + word] >> bit & 1 == 1
    }

    /// Whether something is known that was not.
    fn look(&mut self, at: usize, kind: Kind, next: Option<&[usize]>) -> bool {
        let mut changed = false;
        for word in 0..self.words {
            let mut bits = next.map_or(u64::MAX, |next| {
                let bits = |at: &usize| self.bits[at * self.words + word];
                next.iter().map(bits).fold(0, |all, bits| all | bits)
            });
            if let Some(local) = local(kind).filter(|local| *local as usize / 64 == word) {
                let bit = 1 << (local % 64);
                match kind {
                    Kind::LocalGet(..) => bits |= bit,
                    _ => bits &= !bit,
                }
            }
            let known = &mut self.bits[at * self.words + word];
            changed |= *known != bits;
            *known = bits;
        }
        changed
    }
}

fn local(kind: Kind) -> Option<u32> {
    match kind {
        Kind::LocalGet(local, _) | Kind::LocalSet(local, _) | Kind::LocalTee(local, _) => {
            Some(local)
        }
        _ => None,
    }
}

/// What may run behind each instruction; `None`: anything.
fn successors(function: &Function<'_>) -> Vec<Option<Vec<usize>>> {
    let instructions = &function.instructions;
    let ends = ends(function);
    let last = instructions.len() - 1;
    // Where a branch to each block around leads.
    let mut labels = vec![last];
    let mut all = vec![];
    for (at, instruction) in instructions.iter().enumerate() {
        let (otherwise, end) = ends[at];
        all.push(match instruction.kind {
            Kind::Begin if instruction.bytes[0] == IF => Some(vec![at + 1, otherwise]),
            Kind::Else => Some(vec![end]),
            Kind::Branch(_) => {
                let label = |out: u32| labels.iter().rev().nth(out as usize).copied();
                let mut next: Option<Vec<_>> = outs(instruction).into_iter().map(label).collect();
                if let (BR_IF, Some(next)) = (instruction.bytes[0], &mut next) {
                    next.push(at + 1);
                }
                next
            }
            Kind::Trap => Some(vec![]),
            Kind::Return | Kind::Unknown => None,
            _ if at == last => Some(vec![]),
            _ => Some(vec![at + 1]),
        });
        match instruction.kind {
            Kind::Begin => labels.push(end),
            Kind::Loop => labels.push(at),
            Kind::End => drop(labels.pop()),
            _ => {}
        }
    }
    all
}

/// Of each instruction that begins something: where its condition leads if it is not met, and where its end is. Of an
/// `else` the end alone.
fn ends(function: &Function<'_>) -> Vec<(usize, usize)> {
    let mut ends = vec![(0, 0); function.instructions.len()];
    let mut open: Vec<Vec<usize>> = vec![];
    for (at, instruction) in function.instructions.iter().enumerate() {
        match instruction.kind {
            Kind::Begin | Kind::Loop => open.push(vec![at]),
            Kind::Else => {
                if let Some(open) = open.last_mut() {
                    ends[open[0]].0 = at + 1;
                    open.push(at);
                }
            }
            Kind::End => {
                for begin in open.pop().into_iter().flatten() {
                    ends[begin].1 = at;
                    if ends[begin].0 == 0 {
                        ends[begin].0 = at;
                    }
                }
            }
            _ => {}
        }
    }
    ends
}
