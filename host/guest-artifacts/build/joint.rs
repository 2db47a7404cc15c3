//! Divides a core module in two: a small one that has the memory and the table, and all the rest, which imports them.
//!
//! The small one can be there before anything is lowered. It also makes room for what the host hands in: through the
//! table it calls the function by which the rest does that, for it is the rest that has the allocator.

use std::fmt::Display;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, ConstExpr, ElementSection, Elements, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, ImportSection, MemorySection, Module, RawSection, TableSection,
    TypeSection, ValType,
};
use wasmparser::{ExternalKind, MemoryType, Parser, Payload, TableInit, TableType, TypeRef};

/// The one module from which the rest imports.
pub(crate) const MODULE: &str = "";

const MEMORY: &str = "memory";
const TABLE: &str = "table";
const ROOM: &str = "room";

/// What the small module exports.
pub(crate) const FIRST: [(&str, ExportKind); 3] = [
    (MEMORY, ExportKind::Memory),
    (TABLE, ExportKind::Table),
    (ROOM, ExportKind::Func),
];

/// A module in two parts.
pub(crate) struct Joint {
    /// Has the memory and the table.
    pub(crate) first: Vec<u8>,
    /// All the rest.
    pub(crate) module: Vec<u8>,
    /// The functions the rest imports, by the names they had.
    pub(crate) imports: Vec<(String, String)>,
}

/// The name of an import, once there is one module to import from.
pub(crate) fn name(module: &str, name: &str) -> String {
    format!("{module} {name}")
}

/// Divides a module that exports a function `realloc`.
pub(crate) fn joint(bytes: &[u8], realloc: &str) -> Result<Joint, String> {
    let shared = Shared::read(bytes, realloc)?;
    let mut joint = Joint {
        first: shared.first(),
        module: vec![],
        imports: vec![],
    };
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(text)? {
            Payload::ImportSection(section) => {
                let mut imports = ImportSection::new();
                for import in section.into_imports() {
                    let import = import.map_err(text)?;
                    let TypeRef::Func(ty) = import.ty else {
                        return Err(format!("{} is no function", import.name));
                    };
                    let name = name(import.module, import.name);
                    imports.import(MODULE, &name, EntityType::Function(ty));
                    let names = (import.module.to_owned(), import.name.to_owned());
                    joint.imports.push(names);
                }
                imports.import(MODULE, MEMORY, shared.memory());
                imports.import(MODULE, TABLE, shared.table());
                module.section(&imports);
            }
            Payload::TableSection(_) | Payload::MemorySection(_) => {}
            Payload::ElementSection(section) => {
                let mut elements = ElementSection::new();
                RoundtripReencoder
                    .parse_element_section(&mut elements, section)
                    .map_err(text)?;
                elements.active(
                    None,
                    &ConstExpr::i32_const(shared.slot()),
                    Elements::Functions(vec![shared.realloc].into()),
                );
                module.section(&elements);
            }
            Payload::ExportSection(section) => {
                let mut exports = ExportSection::new();
                for export in section {
                    let export = export.map_err(text)?;
                    // The rest is for nobody: where data ends, and what makes room.
                    if export.kind == ExternalKind::Func && !export.name.starts_with(realloc) {
                        exports.export(export.name, ExportKind::Func, export.index);
                    }
                }
                module.section(&exports);
            }
            other => {
                if let Some((id, range)) = other.as_section() {
                    let data = bytes.get(range).ok_or("a section beyond the end")?;
                    module.section(&RawSection { id, data });
                }
            }
        }
    }
    joint.module = module.finish();
    Ok(joint)
}

/// What the two have in common.
struct Shared {
    memory: MemoryType,
    /// With one place more, the last one, for what makes room.
    table: TableType,
    realloc: u32,
}

impl Shared {
    fn read(bytes: &[u8], realloc: &str) -> Result<Self, String> {
        let (mut memories, mut tables, mut function) = (vec![], vec![], None);
        let (mut imports, mut elements) = (false, false);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(text)? {
                Payload::ImportSection(_) => imports = true,
                Payload::ElementSection(_) => elements = true,
                Payload::MemorySection(section) => {
                    for memory in section {
                        memories.push(memory.map_err(text)?);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        let table = table.map_err(text)?;
                        let TableInit::RefNull = table.init else {
                            return Err("a table with a value for all its places".to_owned());
                        };
                        tables.push(table.ty);
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.map_err(text)?;
                        if export.name == realloc {
                            function = Some(export.index);
                        }
                    }
                }
                _ => {}
            }
        }
        let ([memory], [table], Some(realloc), true, true) =
            (&*memories, &*tables, function, imports, elements)
        else {
            return Err(format!(
                "a module without {realloc}, or with more than one memory"
            ));
        };
        let mut table = *table;
        table.initial += 1;
        table.maximum = table.maximum.map(|most| most.max(table.initial));
        Ok(Self {
            memory: *memory,
            table,
            realloc,
        })
    }

    fn memory(&self) -> wasm_encoder::MemoryType {
        wasm_encoder::MemoryType {
            minimum: self.memory.initial,
            maximum: self.memory.maximum,
            memory64: self.memory.memory64,
            shared: self.memory.shared,
            page_size_log2: self.memory.page_size_log2,
        }
    }

    fn table(&self) -> wasm_encoder::TableType {
        wasm_encoder::TableType {
            element_type: wasm_encoder::RefType::FUNCREF,
            minimum: self.table.initial,
            maximum: self.table.maximum,
            table64: self.table.table64,
            shared: self.table.shared,
        }
    }

    /// The place of what makes room.
    fn slot(&self) -> i32 {
        self.table.initial as i32 - 1
    }

    fn first(&self) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([ValType::I32; 4], [ValType::I32]);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut tables = TableSection::new();
        tables.table(self.table());
        let mut memories = MemorySection::new();
        memories.memory(self.memory());
        let mut exports = ExportSection::new();
        for (name, kind) in FIRST {
            exports.export(name, kind, 0);
        }
        let mut body = Function::new([]);
        let mut room = body.instructions();
        for parameter in 0..4 {
            room.local_get(parameter);
        }
        room.i32_const(self.slot()).call_indirect(0, 0).end();
        let mut code = CodeSection::new();
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&tables);
        module.section(&memories).section(&exports).section(&code);
        module.finish()
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
