//! Puts small functions into those that call them, in the bytes and before they are compiled.
//!
//! What ships is made small: instructions that stand in many places are a function that is called from there. Where a
//! compiler takes it in again, it keeps what every function begins and ends with, the account of its fuel first of all, and
//! that is then most of what runs. Here a call is replaced by what it calls: the arguments are put into locals of the
//! caller, and the rest are the same instructions.
//!
//! What a guest does stays the same, and so does its fuel, to the bit ([`costs`]). The code gets some three times as long,
//! which costs once: it is kept compiled. A function that is out of the ordinary is left alone; it is called as before.

use std::collections::HashMap;
use std::convert::Infallible;

use wasm_encoder::reencode::{
    Error, Reencode, ReencodeComponent, RoundtripReencoder, component_utils,
};
use wasm_encoder::{BlockType, CodeSection, Component, Function, Instruction, ValType};
use wasmparser::{CompositeInnerType, FuncType, FunctionBody, Parser, Payload, TypeRef};
use wasmtime::OperatorCost;

/// Compiled code is kept by it: to be raised with whatever changes what comes out here.
pub(super) const VERSION: u32 = 1;

/// What is put into its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measure {
    /// Instructions of such a function, with what it has taken in itself; and locals, and places that one instruction may
    /// lead to: each of those costs as much as an instruction.
    callee_max: usize,
    /// How deep calls within such functions are followed.
    rounds: usize,
}

impl Measure {
    /// For a daemon: the pieces of the shipped agent lie in each other three deep.
    pub(super) const SMALL: Self = Self {
        callee_max: 30,
        rounds: 3,
    };

    /// For thousands of short lives: a simulated update takes 3 to 4 % fewer instructions than by `SMALL`, for code that nobody
    /// keeps. With functions of twice that it takes more again.
    pub(super) const LARGE: Self = Self {
        callee_max: 60,
        rounds: 4,
    };
}

/// Instructions beyond which a function takes in nothing more: the time to compile it grows faster than it does.
const CALLER_MAX: usize = 20_000;

/// Locals beyond which a function takes in nothing more: it may have 50,000, and each function that is taken in adds some.
const CALLER_LOCALS_MAX: usize = 10_000;

/// Instructions that all modules of a component may gain together: a stranger's is to cost no more than its size lets
/// expect, and each of them takes some 30 bytes here.
const GAIN_MAX: usize = 1_000_000;

/// What instructions cost after [`unfold`]: what a replaced call needs besides is free, and a `nop` is not. One stands
/// before each such instruction that was there already, and two in place of a call: for itself, and for the function that
/// is begun.
pub(super) fn costs() -> OperatorCost {
    OperatorCost {
        Nop: 1,
        LocalSet: 0,
        I32Const: 0,
        I64Const: 0,
        F32Const: 0,
        F64Const: 0,
        Br: 0,
        ..OperatorCost::new()
    }
}

/// Whether [`costs`] makes it free, and it is not by itself.
fn is_made_free(instruction: &Instruction<'_>) -> bool {
    matches!(
        instruction,
        Instruction::LocalSet(_)
            | Instruction::I32Const(_)
            | Instruction::I64Const(_)
            | Instruction::F32Const(_)
            | Instruction::F64Const(_)
            | Instruction::Br(_)
    )
}

/// The same component, which is a valid one, with its small functions in their callers.
///
/// # Errors
/// It has something that the encoder does not know.
pub(super) fn unfold(component: &[u8], measure: Measure) -> Result<Vec<u8>, Error> {
    let mut unfolded = Component::new();
    let mut unfold = Unfold {
        measure,
        bodies: Vec::new(),
        room: GAIN_MAX,
    };
    unfold.parse_component(&mut unfolded, Parser::new(0), component)?;
    Ok(unfolded.finish())
}

/// Writes a component anew, with other function bodies.
struct Unfold {
    measure: Measure,
    /// Those of the module at hand that are still to come, the next one last.
    bodies: Vec<Function>,
    /// Instructions that this module and those behind it may gain.
    room: usize,
}

impl Reencode for Unfold {
    type Error = Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        _: FunctionBody<'_>,
    ) -> Result<(), Error> {
        let body = self.bodies.pop().ok_or(Error::InvalidCodeSectionSize)?;
        code.function(&body);
        Ok(())
    }
}

impl ReencodeComponent for Unfold {
    fn parse_component_submodule(
        &mut self,
        component: &mut Component,
        parser: Parser,
        module: &[u8],
    ) -> Result<(), Error> {
        self.bodies = Code::read(module)?.unfolded(self.measure, &mut self.room);
        component_utils::parse_component_submodule(self, component, parser, module)
    }
}

/// The functions of a module.
#[derive(Default)]
struct Code<'a> {
    /// Imported functions; the numbers of the others begin behind them.
    imported: u32,
    bodies: Vec<Body<'a>>,
}

/// A function.
#[derive(Clone)]
struct Body<'a> {
    parameters: usize,
    results: Vec<ValType>,
    /// Types of its parameters, of the locals that it declares, and of those of functions that it has taken in.
    locals: Vec<ValType>,
    /// How many of them it had from the start. The others are set before they are read.
    own: usize,
    /// Without the last `end`.
    instructions: Vec<Instruction<'a>>,
}

impl<'a> Code<'a> {
    fn read(module: &'a [u8]) -> Result<Self, Error> {
        let mut types = Vec::new();
        let mut functions = Vec::new();
        let mut code = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        types.extend(group?.into_types().map(|of| match of.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        }));
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let function =
                            matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                        code.imported += u32::from(function);
                    }
                }
                Payload::FunctionSection(section) => {
                    for index in section {
                        functions.push(index?);
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let of = functions.get(code.bodies.len());
                    let of = of.and_then(|of| types.get(*of as usize)?.as_ref());
                    let of = of.ok_or(Error::InvalidCodeSectionSize)?;
                    code.bodies.push(Body::read(of, &body)?);
                }
                _ => {}
            }
        }
        Ok(code)
    }

    /// Last function first; together they gain no more than there is room for.
    fn unfolded(mut self, measure: Measure, room: &mut usize) -> Vec<Function> {
        for _ in 0..measure.rounds {
            let small: HashMap<u32, Body<'a>> = (self.imported..)
                .zip(&self.bodies)
                .filter(|(_, body)| body.is_small(measure.callee_max))
                .map(|(number, body)| (number, body.clone()))
                .collect();
            for body in &mut self.bodies {
                body.take_in(&small, room);
            }
        }
        self.bodies.iter().rev().map(Body::write).collect()
    }
}

impl<'a> Body<'a> {
    fn read(of: &FuncType, body: &FunctionBody<'a>) -> Result<Self, Error> {
        let mut encode = RoundtripReencoder;
        let results = of.results().iter().map(|of| encode.val_type(*of));
        let results = results.collect::<Result<_, _>>()?;
        let locals = of.params().iter().map(|of| encode.val_type(*of));
        let mut locals = locals.collect::<Result<Vec<_>, _>>()?;
        for pair in body.get_locals_reader()? {
            let (count, of) = pair?;
            locals.resize(locals.len() + count as usize, encode.val_type(of)?);
        }
        let mut instructions = Vec::new();
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let instruction = encode.instruction(reader.read()?)?;
            instructions.extend(is_made_free(&instruction).then_some(Instruction::Nop));
            instructions.push(instruction);
        }
        instructions.pop();
        Ok(Self {
            parameters: of.params().len(),
            results,
            own: locals.len(),
            locals,
            instructions,
        })
    }

    fn write(&self) -> Function {
        let declared = self.locals.get(self.parameters..).unwrap_or_default();
        let mut function = Function::new_with_locals_types(declared.iter().copied());
        for instruction in &self.instructions {
            function.instruction(instruction);
        }
        function.instruction(&Instruction::End);
        function
    }

    /// Whether it is to be put into its callers.
    fn is_small(&self, max: usize) -> bool {
        let is_odd = |instruction: &Instruction<'_>| is_out_of_the_ordinary(instruction, max);
        self.instructions.len() <= max
            && self.locals.len() <= max
            && self.locals.iter().all(|of| zero(*of).is_some())
            && !self.instructions.iter().any(is_odd)
            // A block has one type of result without a type of its own.
            && (self.results.len() <= 1 || !self.leaves_early())
    }

    /// Whether it has an end besides its last instruction.
    fn leaves_early(&self) -> bool {
        let mut depth = 0;
        self.instructions.iter().any(|instruction| {
            let leaves = match instruction {
                Instruction::Return => true,
                Instruction::Br(to) | Instruction::BrIf(to) => *to == depth,
                Instruction::BrTable(to, other) => to.contains(&depth) || *other == depth,
                _ => false,
            };
            depth = depth_after(depth, instruction);
            leaves
        })
    }

    /// Replace calls of these functions by what they call, as long as there is room for so many instructions.
    fn take_in(&mut self, small: &HashMap<u32, Self>, room: &mut usize) {
        if self.locals.len() > CALLER_LOCALS_MAX {
            return;
        }
        let mut own_room = CALLER_MAX.saturating_sub(self.instructions.len());
        let free = self.locals.len();
        for instruction in std::mem::take(&mut self.instructions) {
            let callee = match &instruction {
                Instruction::Call(number) => small.get(number),
                _ => None,
            };
            let fits = |callee: &&Self| callee.instructions.len() <= own_room.min(*room);
            match callee.filter(fits) {
                Some(callee) => {
                    let before = self.instructions.len();
                    self.put_in(callee, free);
                    let more = self.instructions.len() - before;
                    own_room = own_room.saturating_sub(more);
                    *room = room.saturating_sub(more);
                }
                None => self.instructions.push(instruction),
            }
        }
    }

    /// Add what a call of `callee` does, with locals from `free` on.
    fn put_in(&mut self, callee: &Self, free: usize) {
        let places = self.places(&callee.locals, free);
        let code = &mut self.instructions;
        code.extend([Instruction::Nop, Instruction::Nop]);
        let (arguments, others) = places.split_at(callee.parameters);
        code.extend(arguments.iter().rev().map(|at| Instruction::LocalSet(*at)));
        let zeros = callee.locals[callee.parameters..callee.own].iter();
        for (zero, at) in zeros.filter_map(|of| zero(*of)).zip(others) {
            code.extend([zero, Instruction::LocalSet(*at)]);
        }
        let leaves_early = callee.leaves_early();
        if leaves_early {
            let result = callee.results.first();
            let of = result.map_or(BlockType::Empty, |of| BlockType::Result(*of));
            code.push(Instruction::Block(of));
        }
        let mut depth = 0;
        let place = |at: &u32| places[*at as usize];
        for instruction in &callee.instructions {
            code.push(match instruction {
                Instruction::LocalGet(at) => Instruction::LocalGet(place(at)),
                Instruction::LocalSet(at) => Instruction::LocalSet(place(at)),
                Instruction::LocalTee(at) => Instruction::LocalTee(place(at)),
                Instruction::Return => Instruction::Br(depth),
                other => other.clone(),
            });
            depth = depth_after(depth, instruction);
        }
        if leaves_early {
            code.push(Instruction::End);
        }
    }

    /// Locals for a function that is taken in, from `free` on, for each of these types one. Those that are taken in at the
    /// same time have the same ones: none lies within another.
    fn places(&mut self, types: &[ValType], free: usize) -> Vec<u32> {
        let mut next = HashMap::new();
        let mut places = Vec::with_capacity(types.len());
        for of in types {
            let from = next.entry(*of).or_insert(free);
            while self.locals.get(*from).is_some_and(|there| there != of) {
                *from += 1;
            }
            if *from == self.locals.len() {
                self.locals.push(*of);
            }
            places.push(*from as u32);
            *from += 1;
        }
        places
    }
}

/// How deep in blocks the next instruction stands.
fn depth_after(depth: u32, instruction: &Instruction<'_>) -> u32 {
    match instruction {
        Instruction::Block(_) | Instruction::Loop(_) | Instruction::If(_) => depth + 1,
        // The last one of a function is not among its instructions.
        Instruction::End => depth.saturating_sub(1),
        _ => depth,
    }
}

/// Blocks and ends of another kind than [`Body::leaves_early`] knows, and an instruction as long as a large function.
fn is_out_of_the_ordinary(instruction: &Instruction<'_>, places_max: usize) -> bool {
    if let Instruction::BrTable(to, _) = instruction {
        return to.len() > places_max;
    }
    matches!(
        instruction,
        Instruction::Try(_)
            | Instruction::TryTable(..)
            | Instruction::Delegate(_)
            | Instruction::Catch(_)
            | Instruction::CatchAll
            | Instruction::Rethrow(_)
            | Instruction::ReturnCall(_)
            | Instruction::ReturnCallIndirect { .. }
            | Instruction::ReturnCallRef(_)
            | Instruction::BrOnNull(_)
            | Instruction::BrOnNonNull(_)
            | Instruction::BrOnCast { .. }
            | Instruction::BrOnCastFail { .. }
    )
}

/// What a local holds at the start of a function; of numbers.
fn zero(of: ValType) -> Option<Instruction<'static>> {
    match of {
        ValType::I32 => Some(Instruction::I32Const(0)),
        ValType::I64 => Some(Instruction::I64Const(0)),
        ValType::F32 => Some(Instruction::F32Const(0.0.into())),
        ValType::F64 => Some(Instruction::F64Const(0.0.into())),
        ValType::V128 | ValType::Ref(_) => None,
    }
}

#[cfg(test)]
mod tests;
