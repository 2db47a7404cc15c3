//! The code of a core module as lists of instructions, each with what lies on the stack before it: read from a valid
//! module, and written again with other instructions and with more functions and globals. All else stays byte for byte.

use std::borrow::Cow;
use std::fmt::Display;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, ConstExpr, FunctionSection, GlobalSection, GlobalType, Module, RawSection,
    TypeSection,
};
use wasmparser::{
    FuncType, FuncValidator, FuncValidatorAllocations, FunctionBody, Operator, Parser, Payload,
    TypeRef, ValType, ValidPayload, Validator, WasmModuleResources,
};

/// What a module has of code.
#[derive(Default)]
pub(crate) struct Code<'a> {
    pub(crate) types: Vec<FuncType>,
    /// How many functions are imported; the numbers of all others follow.
    pub(crate) imported: u32,
    pub(crate) functions: Vec<Function<'a>>,
    /// How many globals there are before `constants`.
    pub(crate) globals: u32,
    /// Globals that are added: each a type and the instruction that makes its value.
    pub(crate) constants: Vec<(ValType, Cow<'a, [u8]>)>,
}

/// A function.
pub(crate) struct Function<'a> {
    /// Number of its type.
    pub(crate) ty: u32,
    /// The declaration of its locals.
    pub(crate) locals: Cow<'a, [u8]>,
    /// The last one is its end.
    pub(crate) instructions: Vec<Instruction<'a>>,
}

/// An instruction.
#[derive(Clone)]
pub(crate) struct Instruction<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) kind: Kind,
    /// How many values it takes from the stack.
    pub(crate) takes: usize,
    /// The types of all values on the stack before it, the last one on top. `None`: it is never reached.
    pub(crate) stack: Option<Vec<ValType>>,
}

/// What matters of an instruction to those who move it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    LocalGet(u32, ValType),
    LocalSet(u32, ValType),
    LocalTee(u32, ValType),
    Call(u32),
    Constant(ValType),
    /// `block` and `if`.
    Begin,
    Loop,
    Else,
    End,
    /// A branch, and how many blocks out it leads at most.
    Branch(u32),
    /// Ends here, with all that runs.
    Trap,
    /// The function ends here.
    Return,
    /// Something that nothing here knows: it may be a block or a branch.
    Unknown,
    Plain,
}

impl<'a> Code<'a> {
    /// Reads the code of a valid module.
    pub(crate) fn read(module: &'a [u8]) -> Result<Self, String> {
        let mut code = Self::default();
        let mut types = vec![];
        let mut validator = Validator::new();
        let mut allocations = FuncValidatorAllocations::default();
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload.map_err(text)?;
            let valid = validator.payload(&payload).map_err(text)?;
            match payload {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        code.types.push(ty.map_err(text)?);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        match import.map_err(text)?.ty {
                            TypeRef::Func(_) => code.imported += 1,
                            TypeRef::Global(_) => code.globals += 1,
                            _ => {}
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        types.push(ty.map_err(text)?);
                    }
                }
                Payload::GlobalSection(section) => code.globals += section.count(),
                _ => {}
            }
            if let ValidPayload::Func(function, body) = valid {
                let ty = types.get(code.functions.len());
                let ty = *ty.ok_or("a function without a type")?;
                let mut validator = function.into_validator(allocations);
                code.functions
                    .push(Function::read(ty, &body, &mut validator)?);
                allocations = validator.into_allocations();
            }
        }
        Ok(code)
    }

    /// The module it was read from, with this code in place of that one.
    pub(crate) fn write(&self, module: &[u8]) -> Result<Vec<u8>, String> {
        let mut written = Module::new();
        for payload in Parser::new(0).parse_all(module) {
            match payload.map_err(text)? {
                Payload::TypeSection(_) => {
                    let mut types = TypeSection::new();
                    for ty in &self.types {
                        let ty = RoundtripReencoder.func_type(ty.clone()).map_err(text)?;
                        types.ty().func_type(&ty);
                    }
                    written.section(&types);
                }
                Payload::FunctionSection(_) => {
                    let mut functions = FunctionSection::new();
                    for function in &self.functions {
                        functions.function(function.ty);
                    }
                    written.section(&functions);
                }
                Payload::GlobalSection(section) => {
                    let mut globals = GlobalSection::new();
                    RoundtripReencoder
                        .parse_global_section(&mut globals, section)
                        .map_err(text)?;
                    for (ty, value) in &self.constants {
                        let val_type = RoundtripReencoder.val_type(*ty).map_err(text)?;
                        let ty = GlobalType {
                            val_type,
                            mutable: false,
                            shared: false,
                        };
                        globals.global(ty, &ConstExpr::raw(value.iter().copied()));
                    }
                    written.section(&globals);
                }
                Payload::CodeSectionStart { .. } => {
                    let mut code = CodeSection::new();
                    for function in &self.functions {
                        code.raw(&function.bytes());
                    }
                    written.section(&code);
                }
                other => {
                    if let Some((id, range)) = other.as_section() {
                        let data = module.get(range).ok_or("a section beyond the end")?;
                        written.section(&RawSection { id, data });
                    }
                }
            }
        }
        let written = written.finish();
        wasmparser::validate(&written).map_err(text)?;
        Ok(written)
    }
}

impl<'a> Function<'a> {
    fn read<R: WasmModuleResources>(
        ty: u32,
        body: &FunctionBody<'a>,
        validator: &mut FuncValidator<R>,
    ) -> Result<Self, String> {
        let (bytes, start) = (body.as_bytes(), body.range().start);
        let mut reader = body.get_binary_reader();
        validator.read_locals(&mut reader).map_err(text)?;
        let locals = bytes.get(..reader.original_position() - start);
        let mut operators = body.get_operators_reader().map_err(text)?;
        let mut instructions = vec![];
        while !operators.eof() {
            let (operator, from) = operators.read_with_offset().map_err(text)?;
            let bytes = bytes.get(from - start..operators.original_position() - start);
            let arity = operator.operator_arity(validator);
            let (takes, _) = arity.ok_or_else(|| format!("what {operator:?} takes"))?;
            instructions.push(Instruction {
                bytes: bytes.unwrap_or_default().into(),
                kind: Kind::of(&operator, validator),
                takes: takes as usize,
                stack: stack(validator),
            });
            validator.op(from, &operator).map_err(text)?;
        }
        Ok(Self {
            ty,
            locals: locals.unwrap_or_default().into(),
            instructions,
        })
    }

    /// Whether all of its instructions are known. Where one is not, nobody can say what branches lead to and what is read
    /// behind it: so such a function stays as it is.
    pub(crate) fn is_known(&self) -> bool {
        let mut instructions = self.instructions.iter();
        instructions.all(|instruction| instruction.kind != Kind::Unknown)
    }

    /// Its body as it stands in the code section.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.locals.to_vec();
        for instruction in &self.instructions {
            bytes.extend_from_slice(&instruction.bytes);
        }
        bytes
    }
}

/// The types of the values on the stack.
fn stack<R: WasmModuleResources>(validator: &FuncValidator<R>) -> Option<Vec<ValType>> {
    if validator.get_control_frame(0)?.unreachable {
        return None;
    }
    let height = validator.operand_stack_height() as usize;
    (0..height)
        .rev()
        .map(|depth| validator.get_operand_type(depth).flatten())
        .collect()
}

impl Kind {
    fn of<R: WasmModuleResources>(operator: &Operator<'_>, validator: &FuncValidator<R>) -> Self {
        match *operator {
            Operator::LocalGet { local_index: at } => local(at, validator, Self::LocalGet),
            Operator::LocalSet { local_index: at } => local(at, validator, Self::LocalSet),
            Operator::LocalTee { local_index: at } => local(at, validator, Self::LocalTee),
            Operator::Call { function_index } => Self::Call(function_index),
            Operator::I32Const { .. } => Self::Constant(ValType::I32),
            Operator::I64Const { .. } => Self::Constant(ValType::I64),
            Operator::Block { .. } | Operator::If { .. } => Self::Begin,
            Operator::Loop { .. } => Self::Loop,
            Operator::Else => Self::Else,
            Operator::End => Self::End,
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                Self::Branch(relative_depth)
            }
            Operator::BrTable { ref targets } => {
                let inner = targets.targets().filter_map(Result::ok).max();
                Self::Branch(targets.default().max(inner.unwrap_or_default()))
            }
            Operator::Unreachable => Self::Trap,
            Operator::Return => Self::Return,
            // A branch of another kind, a tail call or an exception would be taken for something plain.
            _ if known(operator) => Self::Plain,
            _ => Self::Unknown,
        }
    }
}

fn local<R: WasmModuleResources>(
    number: u32,
    validator: &FuncValidator<R>,
    kind: fn(u32, ValType) -> Kind,
) -> Kind {
    let ty = validator.get_local_type(number);
    ty.map_or(Kind::Unknown, |ty| kind(number, ty))
}

/// Works on values, memory, globals and tables alone.
fn known(operator: &Operator<'_>) -> bool {
    /// Groups of instructions, by the proposals they came with.
    macro_rules! known {
        ($( @$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*) )*) => {
            match operator { $( Operator::$op { .. } => known!(@$proposal), )* _ => false }
        };
        (@mvp) => { true };
        (@sign_extension) => { true };
        (@saturating_float_to_int) => { true };
        (@bulk_memory) => { true };
        (@$other:ident) => { false };
    }
    wasmparser::for_each_operator!(known)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
