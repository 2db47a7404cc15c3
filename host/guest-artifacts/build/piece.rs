//! Pieces of code that could be functions: what they take, read, write and leave, and the function that one becomes.
//!
//! First of the function's parameters is what the piece takes from the stack, then the locals whose value before it
//! matters; first of the results is what it leaves on the stack, then the locals it writes that are read behind it. All
//! other locals it writes are the function's own.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use wasmparser::{FuncType, ValType};

use crate::code::{Function, Instruction, Kind};
use crate::live::Live;

/// Most instructions of a piece: longer ones that stand twice are rare.
const LENGTH_MAX: usize = 24;

/// Most locals a piece reads and writes, most values it takes from the stack, most it leaves there and in locals.
const LOCALS_MAX: usize = 8;
const TAKEN_MAX: usize = 4;
const LEFT_MAX: usize = 3;

/// What is called so often will be among the first 128 functions of a module, which are called with two bytes.
const OFTEN: usize = 16;

/// What a function takes besides its code: its type and a share of a new one, size, locals and end.
const FUNCTION_BYTES: usize = 7;

/// What is the same of equal pieces.
#[derive(Clone, Default)]
pub(crate) struct Shape {
    bytes: usize,
    /// Bytes of the instructions before and behind the call that give it locals and take what it leaves in some.
    round_bytes: usize,
    /// How many values are taken from the stack.
    pub(crate) taken: usize,
    /// How many locals it writes that are read behind it.
    pub(crate) left: usize,
}

impl Shape {
    /// How many bytes fewer there are with a function called in so many places.
    pub(crate) fn saves(&self, places: usize) -> usize {
        let call = if places < OFTEN { 3 } else { 2 };
        let function = self.bytes + 2 * (self.taken + self.left) + FUNCTION_BYTES;
        (self.bytes * places).saturating_sub((self.round_bytes + call) * places + function)
    }
}

/// A local of a piece.
#[derive(Clone, Copy)]
struct Slot {
    local: u32,
    ty: ValType,
    /// Its value before the piece is read, or may be; or it is written within a block before it surely is.
    read: bool,
    written: Written,
}

#[derive(Clone, Copy, PartialEq)]
enum Written {
    Never,
    /// Within a block, which may be left before.
    Perhaps,
    Surely,
}

impl Slot {
    /// Whether it is read behind the piece what the piece has written.
    fn is_left(&self, live: bool) -> bool {
        live && self.written != Written::Never
    }

    /// Whether its value before the piece matters, or nobody could say which local it is: that can be told of a parameter,
    /// and of a local that is written at once.
    fn is_given(&self) -> bool {
        self.read || self.written == Written::Perhaps
    }
}

/// The locals of a piece, in the order in which they come up, so that others of the same types will do.
#[derive(Clone, Default)]
struct Slots(Vec<Slot>);

impl Slots {
    /// Takes in an instruction, at this depth of the piece: the number of the local it is about.
    fn note(&mut self, kind: Kind, depth: usize) -> Option<usize> {
        let (Kind::LocalGet(local, ty) | Kind::LocalSet(local, ty) | Kind::LocalTee(local, ty)) =
            kind
        else {
            return None;
        };
        let at = self.0.iter().position(|slot| slot.local == local);
        let at = at.unwrap_or_else(|| {
            self.0.push(Slot {
                local,
                ty,
                read: false,
                written: Written::Never,
            });
            self.0.len() - 1
        });
        let slot = &mut self.0[at];
        match (kind, depth) {
            (Kind::LocalGet(..), _) => slot.read |= slot.written != Written::Surely,
            (_, 0) => {
                slot.read |= slot.written == Written::Perhaps;
                slot.written = Written::Surely;
            }
            _ if slot.written == Written::Never => slot.written = Written::Perhaps,
            _ => {}
        }
        Some(at)
    }
}

/// Tells of each piece that could be a function, with a name that equal ones have in common. A name is `None` where an
/// instruction must stay where it is.
pub(crate) fn each_piece(
    function: &Function<'_>,
    names: &[Option<u64>],
    live: &Live,
    mut tell: impl FnMut(Range<usize>, u64, &Shape),
) {
    let instructions = &function.instructions;
    for start in 0..instructions.len() {
        let Some(before) = &instructions[start].stack else {
            continue;
        };
        let mut name = DefaultHasher::new();
        let mut shape = Shape::default();
        let mut slots = Slots::default();
        let (mut depth, mut lowest) = (0_usize, before.len());
        // The last instruction is the function's end, so there is always a next one.
        let last = (start + LENGTH_MAX).min(instructions.len() - 1);
        for (at, pair) in instructions[..=last].windows(2).enumerate().skip(start) {
            let (instruction, next) = (&pair[0], &pair[1]);
            let (Some(known), false) = (names[at], leads_out(instruction.kind, depth)) else {
                break;
            };
            if let (0, Some(stack)) = (depth, &instruction.stack) {
                lowest = lowest.min(stack.len() - instruction.takes);
            }
            depth = inner_depth(instruction.kind, depth);
            match slots.note(instruction.kind, depth) {
                Some(slot) => {
                    (instruction.bytes[0], slot, slots.0[slot].ty).hash(&mut name);
                }
                None => known.hash(&mut name),
            }
            shape.bytes += match instruction.kind {
                // What it takes once the functions are in the order of their calls.
                Kind::Call(_) => 2,
                _ => instruction.bytes.len(),
            };
            shape.taken = before.len() - lowest;
            if slots.0.len() > LOCALS_MAX || shape.taken > TAKEN_MAX {
                break;
            }
            let whole = start == 0 && at + 2 == instructions.len();
            let (0, Some(after), false) = (depth, &next.stack, whole) else {
                continue;
            };
            let mut name = name.clone();
            (shape.left, shape.round_bytes) = (0, 0);
            for slot in &slots.0 {
                let live = live.is_live(at + 1, slot.local);
                let (left, given) = (slot.is_left(live), slot.is_given());
                left.hash(&mut name);
                shape.left += usize::from(left);
                shape.round_bytes += numbered(LOCAL_GET, slot.local).bytes.len()
                    * (usize::from(left) + usize::from(given));
            }
            if after.len() - lowest + shape.left <= LEFT_MAX {
                tell(start..at + 1, name.finish(), &shape);
            }
        }
    }
}

/// Whether an instruction at this depth within a piece concerns what is around the piece.
pub(crate) fn leads_out(kind: Kind, depth: usize) -> bool {
    match kind {
        Kind::Return | Kind::Unknown => true,
        Kind::Branch(out) => out as usize >= depth,
        Kind::Else | Kind::End => depth == 0,
        _ => false,
    }
}

/// The depth behind an instruction that does not lead out.
pub(crate) fn inner_depth(kind: Kind, depth: usize) -> usize {
    match kind {
        Kind::Begin | Kind::Loop => depth + 1,
        Kind::End => depth - 1,
        _ => depth,
    }
}

/// A piece made a function.
pub(crate) struct Made<'a> {
    pub(crate) ty: FuncType,
    pub(crate) locals: Vec<u8>,
    pub(crate) body: Vec<Instruction<'a>>,
    /// What stands in the piece's place, round the call.
    pub(crate) before: Vec<Instruction<'a>>,
    pub(crate) behind: Vec<Instruction<'a>>,
}

/// Makes a function of a piece that takes so many values from the stack.
pub(crate) fn made<'a>(
    function: &Function<'a>,
    range: Range<usize>,
    taken: usize,
    live: &Live,
) -> Result<Made<'a>, String> {
    const DEAD: &str = "a piece of code that is never reached";
    let instructions = &function.instructions;
    let piece = &instructions[range.clone()];
    let before = piece[0].stack.as_deref().ok_or(DEAD)?;
    let after = instructions[range.end].stack.as_deref().ok_or(DEAD)?;
    let lowest = before.len() - taken;
    let (mut slots, mut depth) = (Slots::default(), 0);
    let mut numbers = vec![];
    for instruction in piece {
        depth = inner_depth(instruction.kind, depth);
        numbers.push(slots.note(instruction.kind, depth));
    }
    let is_live = |slot: &&Slot| live.is_live(range.end, slot.local);
    let left: Vec<_> = (slots.0.iter())
        .filter(|slot| slot.is_left(is_live(slot)))
        .collect();
    let (given, own): (Vec<_>, Vec<_>) = slots.0.iter().partition(|slot| slot.is_given());
    let new_number = |slot: &Slot| {
        let at = given
            .iter()
            .chain(&own)
            .position(|s: &&Slot| s.local == slot.local);
        (taken + at.unwrap_or_default()) as u32
    };
    let types = |slots: &[&Slot]| slots.iter().map(|slot| slot.ty).collect::<Vec<_>>();
    let ty = FuncType::new(
        [&before[lowest..], &types(&given)].concat(),
        [&after[lowest..], &types(&left)].concat(),
    );
    let mut body: Vec<_> = (0..taken as u32)
        .map(|number| numbered(LOCAL_GET, number))
        .collect();
    for (instruction, number) in piece.iter().zip(numbers) {
        body.push(match number {
            Some(at) => numbered(instruction.bytes[0], new_number(&slots.0[at])),
            None => instruction.clone(),
        });
    }
    body.extend((left.iter()).map(|slot| numbered(LOCAL_GET, new_number(slot))));
    body.push(written(vec![END]));
    Ok(Made {
        ty,
        locals: declared(&types(&own))?,
        body,
        before: (given.iter())
            .map(|slot| numbered(LOCAL_GET, slot.local))
            .collect(),
        behind: (left.iter().rev())
            .map(|slot| numbered(LOCAL_SET, slot.local))
            .collect(),
    })
}

/// The declaration of locals of these types.
fn declared(types: &[ValType]) -> Result<Vec<u8>, String> {
    let mut declared = vec![types.len() as u8];
    for ty in types {
        let ty = match ty {
            ValType::I32 => 0x7f,
            ValType::I64 => 0x7e,
            ValType::F32 => 0x7d,
            ValType::F64 => 0x7c,
            other => return Err(format!("a local of another kind: {other}")),
        };
        declared.extend([1, ty]);
    }
    Ok(declared)
}

const LOCAL_GET: u8 = 0x20;
const LOCAL_SET: u8 = 0x21;
const END: u8 = 0x0b;

/// An instruction with a number.
pub(crate) fn numbered<'a>(code: u8, mut number: u32) -> Instruction<'a> {
    let mut bytes = vec![code];
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    written(bytes)
}

/// An instruction that is only to be written.
fn written<'a>(bytes: Vec<u8>) -> Instruction<'a> {
    Instruction {
        bytes: bytes.into(),
        kind: Kind::Plain,
        takes: 0,
        stack: None,
    }
}
