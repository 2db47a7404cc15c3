//! Makes functions of pieces of code that stand in many places, for a call is smaller than what it calls.
//!
//! A piece is straight: what it branches to lies in it, it writes no local and does not return. So it is the same code
//! anywhere: what it takes from the stack and the locals it reads become parameters, what it leaves on the stack are
//! results. That is checked, at each build, from the other end: every call replaced by what it calls gives the functions
//! there were, byte for byte.
//!
//! A loop that calls nothing is left alone. Such loops run over the bytes of messages, and a call costs time.

use std::collections::{HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::ops::Range;

use wasmparser::{FuncType, ValType};

use crate::code::{Code, Function, Instruction, Kind};

/// Most instructions of a piece: longer ones that stand twice are rare.
const LENGTH_MAX: usize = 12;

/// Most locals a piece reads, most values it takes from the stack, most it leaves there.
const LOCALS_MAX: usize = 6;
const TAKEN_MAX: usize = 4;
const LEFT_MAX: usize = 3;

/// A piece is worth a function from so many bytes on. Below that the calls get longer by more: only the first 128
/// functions of a module are called with two bytes.
const WORTH_BYTES: usize = 8;

/// What is called so often will be among those 128.
const OFTEN: usize = 16;

/// What a function takes besides its code: its type and a share of a new one, size, locals and end.
const FUNCTION_BYTES: usize = 7;

/// Calls are part of pieces as well, so what one round leaves is looked at again; the third one gains some bytes.
const ROUNDS: usize = 3;

/// The same module with what stands in many places in functions.
pub(crate) fn outline(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut module = module.to_vec();
    for _ in 0..ROUNDS {
        let mut code = Code::read(&module)?;
        let outline = Outline::of(&code);
        outline.write(&mut code)?;
        let outlined = code.write(&module)?;
        let (before, after) = (Code::read(&module)?, Code::read(&outlined)?);
        check(&before, &after, &outline.pieces)?;
        module = outlined;
    }
    Ok(module)
}

/// Part of a function.
#[derive(Clone)]
struct Place {
    function: usize,
    range: Range<usize>,
}

/// Equal pieces.
#[derive(Clone)]
struct Piece {
    shape: Shape,
    places: Vec<Place>,
}

/// What is the same of equal pieces.
#[derive(Clone, Default)]
struct Shape {
    bytes: usize,
    /// Bytes of the instructions that read each local once; they stay before the call.
    locals_bytes: usize,
    /// How many values are taken from the stack.
    taken: usize,
}

impl Shape {
    /// How many bytes fewer there are with a function called in so many places.
    fn saves(&self, places: usize) -> usize {
        let call = if places < OFTEN { 3 } else { 2 };
        let function = self.bytes + 2 * self.taken + FUNCTION_BYTES;
        (self.bytes * places).saturating_sub((self.locals_bytes + call) * places + function)
    }
}

/// The pieces that become functions, none within another one.
struct Outline {
    pieces: Vec<Piece>,
}

impl Outline {
    fn of(code: &Code<'_>) -> Self {
        let names = names(code);
        let mut counts = HashMap::<u64, usize>::new();
        for (function, names) in code.functions.iter().zip(&names) {
            each_piece(&function.instructions, names, |_, name, _| {
                *counts.entry(name).or_default() += 1;
            });
        }
        let mut pieces = HashMap::<u64, Piece>::new();
        for (number, (function, names)) in code.functions.iter().zip(&names).enumerate() {
            each_piece(&function.instructions, names, |range, name, shape| {
                if shape.saves(counts[&name]) < WORTH_BYTES {
                    return;
                }
                let piece = pieces.entry(name).or_insert_with(|| Piece {
                    shape: shape.clone(),
                    places: vec![],
                });
                let free = |last: &Place| last.function < number || last.range.end <= range.start;
                if piece.places.last().is_none_or(free) {
                    piece.places.push(Place {
                        function: number,
                        range,
                    });
                }
            });
        }
        Self::choose(pieces.into_values().collect(), code)
    }

    /// Takes the pieces that save most first.
    fn choose(mut pieces: Vec<Piece>, code: &Code<'_>) -> Self {
        pieces.sort_by_key(|piece| {
            let first = &piece.places[0];
            let saves = piece.shape.saves(piece.places.len());
            // The rest of the key makes the order the same at each build.
            let at = (first.function, first.range.start, first.range.end);
            (std::cmp::Reverse(saves), at)
        });
        let mut used: Vec<Vec<bool>> = code
            .functions
            .iter()
            .map(|function| vec![false; function.instructions.len()])
            .collect();
        pieces.retain_mut(|piece| {
            let hoped = piece.shape.saves(piece.places.len());
            piece.places.retain(|place| {
                let used = &used[place.function][place.range.clone()];
                !used.contains(&true)
            });
            // Of a piece that others have cut up, the next round finds what is best made of the rest.
            let saves = piece.shape.saves(piece.places.len());
            let worth = saves >= WORTH_BYTES && saves * 10 >= hoped * 9;
            if worth {
                for place in &piece.places {
                    used[place.function][place.range.clone()].fill(true);
                }
            }
            worth
        });
        Self { pieces }
    }

    /// Adds the functions and puts calls in place of the pieces.
    fn write(&self, code: &mut Code<'_>) -> Result<(), String> {
        let mut calls: Vec<Vec<(Range<usize>, u32)>> = vec![vec![]; code.functions.len()];
        let mut made = vec![];
        for piece in &self.pieces {
            let Place { function, range } = &piece.places[0];
            let instructions = &code.functions[*function].instructions;
            let (ty, body) = function_of(instructions, range.clone(), piece.shape.taken)?;
            let known = code.types.iter().position(|known| *known == ty);
            let ty = known.unwrap_or_else(|| {
                code.types.push(ty);
                code.types.len() - 1
            });
            let number = code.imported + (code.functions.len() + made.len()) as u32;
            made.push(Function {
                ty: ty as u32,
                locals: vec![0].into(),
                instructions: body,
            });
            for place in &piece.places {
                calls[place.function].push((place.range.clone(), number));
            }
        }
        for (function, mut calls) in code.functions.iter_mut().zip(calls) {
            calls.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
            for (range, number) in calls {
                let piece = &function.instructions[range.clone()];
                let mut call: Vec<_> = locals(piece)
                    .into_iter()
                    .map(|(local, _)| numbered(LOCAL_GET, local))
                    .collect();
                call.push(numbered(CALL, number));
                function.instructions.splice(range, call);
            }
        }
        code.functions.extend(made);
        Ok(())
    }
}

/// A number for each instruction, the same for the same ones. `None`: it stays where it is.
fn names(code: &Code<'_>) -> Vec<Vec<Option<u64>>> {
    let mut known = HashMap::new();
    let mut names = vec![];
    for function in &code.functions {
        let mut of_function = vec![];
        for instruction in &function.instructions {
            let mut types = instruction.stack.as_deref().unwrap_or_default();
            // `drop` and `select` are the same for all types, and a piece has one.
            types = &types[types.len().saturating_sub(instruction.takes)..];
            let count = known.len() as u64;
            let name = known.entry((&*instruction.bytes, types)).or_insert(count);
            of_function.push(Some(*name));
        }
        for inner in quiet_loops(&function.instructions) {
            of_function[inner].fill(None);
        }
        names.push(of_function);
    }
    names
}

/// The loops that call nothing.
fn quiet_loops(instructions: &[Instruction<'_>]) -> Vec<Range<usize>> {
    let (mut open, mut quiet) = (vec![], vec![]);
    for (at, instruction) in instructions.iter().enumerate() {
        match instruction.kind {
            Kind::Begin => open.push(None),
            Kind::Loop => open.push(Some(at)),
            Kind::Call(_) => open.fill(None),
            Kind::End => quiet.extend(open.pop().flatten().map(|start| start..at + 1)),
            _ => {}
        }
    }
    quiet
}

/// Tells of each piece that could be a function, with a name that equal ones have in common.
fn each_piece(
    instructions: &[Instruction<'_>],
    names: &[Option<u64>],
    mut tell: impl FnMut(Range<usize>, u64, &Shape),
) {
    for start in 0..instructions.len() {
        let Some(before) = &instructions[start].stack else {
            continue;
        };
        let mut name = DefaultHasher::new();
        let mut shape = Shape::default();
        let mut read = vec![];
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
            // Locals are numbered as they come, so that others of the same types will do.
            if let Kind::LocalGet(local, ty) = instruction.kind {
                let slot = read.iter().position(|known| *known == local);
                let slot = slot.unwrap_or_else(|| {
                    read.push(local);
                    shape.locals_bytes += instruction.bytes.len();
                    read.len() - 1
                });
                (slot, ty).hash(&mut name);
            } else {
                known.hash(&mut name);
            }
            shape.bytes += match instruction.kind {
                // What it takes once the functions are in the order of their calls.
                Kind::Call(_) => 2,
                _ => instruction.bytes.len(),
            };
            shape.taken = before.len() - lowest;
            if read.len() > LOCALS_MAX || shape.taken > TAKEN_MAX {
                break;
            }
            let whole = start == 0 && at + 2 == instructions.len();
            if let (0, Some(after), false) = (depth, &next.stack, whole)
                && after.len() - lowest <= LEFT_MAX
            {
                tell(start..at + 1, name.finish(), &shape);
            }
        }
    }
}

/// Whether an instruction at this depth within a piece concerns what is around the piece.
fn leads_out(kind: Kind, depth: usize) -> bool {
    match kind {
        Kind::Bound => true,
        Kind::Branch(out) => out as usize >= depth,
        Kind::Else | Kind::End => depth == 0,
        _ => false,
    }
}

/// The depth behind an instruction that does not lead out.
fn inner_depth(kind: Kind, depth: usize) -> usize {
    match kind {
        Kind::Begin | Kind::Loop => depth + 1,
        Kind::End => depth - 1,
        _ => depth,
    }
}

/// The locals that a piece reads, in the order in which it does.
fn locals(piece: &[Instruction<'_>]) -> Vec<(u32, ValType)> {
    let mut locals = vec![];
    for instruction in piece {
        if let Kind::LocalGet(local, ty) = instruction.kind
            && !locals.contains(&(local, ty))
        {
            locals.push((local, ty));
        }
    }
    locals
}

/// A piece as a function: first of its parameters is what the piece takes from the stack, then the locals it reads.
fn function_of<'a>(
    instructions: &[Instruction<'a>],
    range: Range<usize>,
    taken: usize,
) -> Result<(FuncType, Vec<Instruction<'a>>), String> {
    const DEAD: &str = "a piece of code that is never reached";
    let piece = &instructions[range.clone()];
    let before = piece[0].stack.as_deref().ok_or(DEAD)?;
    let after = instructions[range.end].stack.as_deref().ok_or(DEAD)?;
    let lowest = before.len() - taken;
    let taken = &before[lowest..];
    let locals = locals(piece);
    let parameters = taken
        .iter()
        .copied()
        .chain(locals.iter().map(|(_, ty)| *ty));
    let ty = FuncType::new(parameters, after[lowest..].iter().copied());
    let mut body: Vec<_> = (0..taken.len() as u32)
        .map(|number| numbered(LOCAL_GET, number))
        .collect();
    for instruction in piece {
        let slot = locals.iter().position(
            |(local, _)| matches!(instruction.kind, Kind::LocalGet(read, _) if read == *local),
        );
        body.push(match slot {
            Some(slot) => numbered(LOCAL_GET, (taken.len() + slot) as u32),
            None => instruction.clone(),
        });
    }
    body.push(written(vec![END]));
    Ok((ty, body))
}

/// Whether calls replaced by what they call give what there was.
fn check(before: &Code<'_>, after: &Code<'_>, pieces: &[Piece]) -> Result<(), String> {
    let (old, made) = after
        .functions
        .split_at_checked(before.functions.len())
        .ok_or("functions are missing")?;
    let first = before.imported + old.len() as u32;
    for (function, changed) in before.functions.iter().zip(old) {
        let mut restored = Function {
            ty: changed.ty,
            locals: changed.locals.clone(),
            instructions: vec![],
        };
        for instruction in &changed.instructions {
            let called = match instruction.kind {
                Kind::Call(number) => number.checked_sub(first).map(|at| at as usize),
                _ => None,
            };
            if let Some(at) = called {
                let (made, piece) = made.get(at).zip(pieces.get(at)).ok_or("nothing called")?;
                put_back(&mut restored.instructions, made, piece.shape.taken)?;
            } else {
                restored.instructions.push(instruction.clone());
            }
        }
        if restored.bytes() != function.bytes() {
            return Err("a function is not what it was".to_owned());
        }
    }
    Ok(())
}

/// What a call of a function made of a piece stands for, behind the instructions before the call.
fn put_back<'a>(
    instructions: &mut Vec<Instruction<'a>>,
    made: &Function<'a>,
    taken: usize,
) -> Result<(), String> {
    let body = made.instructions.split_last().map(|(_, body)| body);
    let (taking, piece) = body
        .and_then(|body| body.split_at_checked(taken))
        .ok_or("a piece without its parameters")?;
    let in_order = |(number, instruction): (usize, &Instruction<'_>)| matches!(instruction.kind, Kind::LocalGet(local, _) if local as usize == number);
    let given = instructions.len().checked_sub(locals(piece).len());
    let given = instructions.split_off(given.ok_or("parameters are missing")?);
    let reads = |given: &Instruction<'_>| matches!(given.kind, Kind::LocalGet(..));
    if !taking.iter().enumerate().all(in_order) || !given.iter().all(reads) {
        return Err("parameters of another kind".to_owned());
    }
    let mut depth = 0;
    for instruction in piece {
        if leads_out(instruction.kind, depth) {
            return Err("a piece that is not closed".to_owned());
        }
        depth = inner_depth(instruction.kind, depth);
        instructions.push(match instruction.kind {
            Kind::LocalGet(local, _) => (local as usize)
                .checked_sub(taken)
                .and_then(|slot| given.get(slot))
                .ok_or("a parameter that is not given")?
                .clone(),
            _ => instruction.clone(),
        });
    }
    Ok(())
}

const CALL: u8 = 0x10;
const LOCAL_GET: u8 = 0x20;
const END: u8 = 0x0b;

/// An instruction with a number.
fn numbered<'a>(code: u8, mut number: u32) -> Instruction<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_not_the_piece_it_was_made_of_is_found() {
        let body = "local.get 0 i32.load offset=300 i32.const 1000 i32.add drop";
        let text = format!("(func (param i32) {body} nop)").repeat(5);
        let module = wat::parse_str(format!("(module (memory 1) {text})")).unwrap();
        let mut code = Code::read(&module).unwrap();
        let Outline { pieces } = Outline::of(&code);
        Outline {
            pieces: pieces.clone(),
        }
        .write(&mut code)
        .unwrap();
        let outlined = code.write(&module).unwrap();
        let (before, after) = (Code::read(&module).unwrap(), Code::read(&outlined).unwrap());
        assert_eq!(check(&before, &after, &pieces), Ok(()));
        // Another place in memory, another operation, a branch to what is around it.
        let changes: [(&[u8], &[u8], Kind); 3] = [
            (&[0x28, 2, 0xac, 2], &[0x28, 2, 0xad, 2], Kind::Plain),
            (&[0x6a], &[0x6b], Kind::Plain),
            (&[0x6a], &[0x6a], Kind::Branch(0)),
        ];
        for (from, to, kind) in changes {
            let mut after = Code::read(&outlined).unwrap();
            let made = after.functions.last_mut().unwrap();
            let changed = made.instructions.iter_mut().find(|i| *i.bytes == *from);
            let changed = changed.unwrap();
            (changed.bytes, changed.kind) = (to.into(), kind);
            assert!(check(&before, &after, &pieces).is_err(), "{from:?}");
        }
        // A parameter that nobody gives.
        let mut after = Code::read(&outlined).unwrap();
        after.functions[1].instructions.remove(0);
        assert!(check(&before, &after, &pieces).is_err());
    }
}
