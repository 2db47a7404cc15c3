//! Makes functions of pieces of code that stand in many places, for a call is smaller than what it calls.
//!
//! A piece is straight: what it branches to lies in it, and it does not return. So it is the same code anywhere: what it
//! takes from the stack and the locals it reads become parameters, what it leaves on the stack and the locals it writes
//! are results (`piece.rs`). That is checked, at each build, from the other end: every call replaced by what it calls
//! gives the functions there were, byte for byte; a local that a function keeps for itself is dead where it is called.
//!
//! A loop that calls nothing is left alone. Such loops run over the bytes of messages, and a call costs time.

use std::collections::HashMap;
use std::ops::Range;

use crate::code::{Code, Function, Instruction, Kind};
use crate::live::Live;
use crate::piece::{Shape, each_piece, inner_depth, leads_out, made, numbered};

/// A piece is worth a function from so many bytes on. Below that the calls get longer by more: only the first 128
/// functions of a module are called with two bytes.
const WORTH_BYTES: usize = 8;

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

/// The pieces that become functions, none within another one.
struct Outline {
    pieces: Vec<Piece>,
}

impl Outline {
    fn of(code: &Code<'_>) -> Self {
        let names = names(code);
        let lives: Vec<_> = code.functions.iter().map(Live::of).collect();
        let functions = || code.functions.iter().zip(&names).zip(&lives);
        let mut counts = HashMap::<u64, usize>::new();
        for ((function, names), live) in functions() {
            each_piece(function, names, live, |_, name, _| {
                *counts.entry(name).or_default() += 1;
            });
        }
        let mut pieces = HashMap::<u64, Piece>::new();
        for (number, ((function, names), live)) in functions().enumerate() {
            each_piece(function, names, live, |range, name, shape| {
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
        let lives: Vec<_> = code.functions.iter().map(Live::of).collect();
        let first = code.imported + code.functions.len() as u32;
        let mut calls: Vec<Vec<(&Range<usize>, u32, usize)>> = vec![vec![]; lives.len()];
        for (piece, number) in self.pieces.iter().zip(first..) {
            for place in &piece.places {
                calls[place.function].push((&place.range, number, piece.shape.taken));
            }
        }
        let mut functions = HashMap::new();
        for ((function, calls), live) in code.functions.iter_mut().zip(&mut calls).zip(&lives) {
            calls.sort_by_key(|(range, ..)| std::cmp::Reverse(range.start));
            let mut instructions = function.instructions.clone();
            for (range, number, taken) in calls {
                let made = made(function, range.clone(), *taken, live)?;
                let call = numbered(CALL, *number);
                let call = [made.before, vec![call], made.behind].concat();
                instructions.splice((*range).clone(), call);
                functions
                    .entry(*number)
                    .or_insert((made.ty, made.locals, made.body));
            }
            function.instructions = instructions;
        }
        for number in first..first + self.pieces.len() as u32 {
            let made = functions.remove(&number);
            let (ty, locals, instructions) = made.ok_or("a piece without a place")?;
            let known = code.types.iter().position(|known| *known == ty);
            let ty = known.unwrap_or_else(|| {
                code.types.push(ty);
                code.types.len() - 1
            });
            code.functions.push(Function {
                ty: ty as u32,
                locals: locals.into(),
                instructions,
            });
        }
        Ok(())
    }
}

const CALL: u8 = 0x10;

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
        if !function.is_known() {
            of_function.fill(None);
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

/// Whether calls replaced by what they call give what there was.
fn check(before: &Code<'_>, after: &Code<'_>, pieces: &[Piece]) -> Result<(), String> {
    let (old, made) = after
        .functions
        .split_at_checked(before.functions.len())
        .ok_or("functions are missing")?;
    let first = before.imported + old.len() as u32;
    for (function, changed) in before.functions.iter().zip(old) {
        let mut restored = Restored {
            function,
            live: &Live::of(function),
            instructions: vec![],
        };
        let mut rest = changed.instructions.iter();
        while let Some(instruction) = rest.next() {
            let called = match instruction.kind {
                Kind::Call(number) => number.checked_sub(first).map(|at| at as usize),
                _ => None,
            };
            if let Some(at) = called {
                let (made, piece) = made.get(at).zip(pieces.get(at)).ok_or("nothing called")?;
                let ty = after.types.get(made.ty as usize);
                let parameters = ty.map_or(0, |ty| ty.params().len());
                let behind = rest.as_slice().get(..piece.shape.left);
                let behind = behind.ok_or("what is left is not taken")?;
                restored.put_back(&made.instructions, parameters, &piece.shape, behind)?;
                rest = rest.as_slice()[piece.shape.left..].iter();
            } else {
                restored.instructions.push(instruction.clone());
            }
        }
        let instructions = restored.instructions;
        let restored = Function {
            ty: changed.ty,
            locals: changed.locals.clone(),
            instructions,
        };
        if restored.ty != function.ty || restored.bytes() != function.bytes() {
            return Err("a function is not what it was".to_owned());
        }
    }
    Ok(())
}

/// A function with what is called in place of calls.
struct Restored<'r, 'a> {
    /// As it was.
    function: &'r Function<'a>,
    live: &'r Live,
    instructions: Vec<Instruction<'a>>,
}

impl<'a> Restored<'_, 'a> {
    /// Appends what a call of a function made of a piece stands for, and the instructions behind it that take what is
    /// left in locals.
    fn put_back(
        &mut self,
        made: &[Instruction<'a>],
        parameters: usize,
        shape: &Shape,
        behind: &[Instruction<'a>],
    ) -> Result<(), String> {
        let (taking, body) = made.split_at_checked(shape.taken).ok_or("too short")?;
        let giving = body.len().checked_sub(shape.left + 1).ok_or("too short")?;
        let (piece, giving) = body.split_at(giving);
        let in_order = |(number, instruction): (usize, &Instruction<'_>)| matches!(instruction.kind, Kind::LocalGet(local, _) if local as usize == number);
        let given = parameters.checked_sub(shape.taken);
        let given = given.and_then(|given| self.instructions.len().checked_sub(given));
        let given = self
            .instructions
            .split_off(given.ok_or("parameters are missing")?);
        // What each local of the function is in the place of the call.
        let mut locals = HashMap::new();
        for (given, number) in given.iter().zip(shape.taken as u32..) {
            let Kind::LocalGet(local, _) = given.kind else {
                return Err("parameters of another kind".to_owned());
            };
            locals.insert(number, local);
        }
        if !taking.iter().enumerate().all(in_order) {
            return Err("parameters of another kind".to_owned());
        }
        let (mut depth, mut written) = (0, vec![]);
        for instruction in piece {
            if leads_out(instruction.kind, depth) {
                return Err("a piece that is not closed".to_owned());
            }
            depth = inner_depth(instruction.kind, depth);
            let number = match instruction.kind {
                Kind::LocalGet(number, _) => number,
                Kind::LocalSet(number, _) | Kind::LocalTee(number, _) => {
                    // Of its own is what it writes first, whatever happens.
                    let was = self.function.instructions.get(self.instructions.len());
                    if let (0, false, Some(Kind::LocalSet(local, _) | Kind::LocalTee(local, _))) =
                        (depth, locals.contains_key(&number), was.map(|was| was.kind))
                    {
                        locals.insert(number, local);
                    }
                    written.push(number);
                    number
                }
                _ => {
                    self.instructions.push(instruction.clone());
                    continue;
                }
            };
            let local = locals.get(&number).ok_or("a local that has no value")?;
            self.instructions
                .push(numbered(instruction.bytes[0], *local));
        }
        let mut all: Vec<_> = locals.values().collect();
        all.sort_unstable();
        all.dedup();
        if all.len() < locals.len() {
            return Err("a local given twice".to_owned());
        }
        let mut left = vec![];
        for (giving, taking) in giving.iter().zip(behind.iter().rev()) {
            match (giving.kind, taking.kind) {
                (Kind::LocalGet(number, _), Kind::LocalSet(local, _))
                    if locals.get(&number) == Some(&local) =>
                {
                    left.push(number);
                }
                _ => return Err("something else is left".to_owned()),
            }
        }
        let here = self.instructions.len();
        let lost = |number: &u32| !left.contains(number) && self.live.is_live(here, locals[number]);
        if written.iter().any(lost) {
            return Err("a local that is written is not left".to_owned());
        }
        Ok(())
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
        let outline = Outline {
            pieces: pieces.clone(),
        };
        outline.write(&mut code).unwrap();
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

    #[test]
    fn a_local_that_a_function_keeps_and_somebody_reads_is_found() {
        let body = "local.get 0 i32.load offset=300 i32.load offset=400 local.tee 0 i32.load drop";
        let module = |behind: &str| {
            let text = format!("(func (param i32) nop {body} {behind} nop)").repeat(5);
            wat::parse_str(format!("(module (memory 1) {text})")).unwrap()
        };
        let kept = module("");
        let before = Code::read(&kept).unwrap();
        let outline = Outline::of(&before);
        let mut code = Code::read(&kept).unwrap();
        outline.write(&mut code).unwrap();
        let outlined = code.write(&kept).unwrap();
        let after = Code::read(&outlined).unwrap();
        let (shape, made) = (&outline.pieces[0].shape, &after.functions[5]);
        let read = module("local.get 0 drop");
        let read = Code::read(&read).unwrap();
        for (place, expected) in [(&before, true), (&read, false)] {
            let mut restored = Restored {
                function: &before.functions[0],
                live: &Live::of(&place.functions[0]),
                instructions: vec![],
            };
            for instruction in &after.functions[0].instructions {
                if let Kind::Call(_) = instruction.kind {
                    break;
                }
                restored.instructions.push(instruction.clone());
            }
            let back = restored.put_back(&made.instructions, 1, shape, &[]);
            assert_eq!(back.is_ok(), expected, "{back:?}");
        }
    }
}
