//! Puts a component together anew with less wrapping round its core module.
//!
//! An encoder for every kind of component gives the module a memory of its own, so that nothing can be lowered before it
//! runs: a second module stands in for all imports and a third one replaces them. Here the memory is made first
//! (`joint.rs`), and each import goes to the core module as it is. What is exported is a list of what there is, in place
//! of an inner component that has every type twice, with its type told (`shape.rs`).
//!
//! What it does not know it refuses: the build fails, and no guest is made of half-understood parts.

use std::collections::HashMap;
use std::fmt::Display;

use wasm_encoder::reencode::{ReencodeComponent, RoundtripReencoder};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, Component, ComponentAliasSection,
    ComponentExportKind, ComponentExportSection, ComponentInstanceSection, ComponentSectionId,
    ComponentTypeRef, ComponentTypeSection, ExportKind, InstanceSection, ModuleArg, RawSection,
};
use wasmparser::{
    CanonicalFunction, CanonicalOption as Option_, ComponentAlias, ComponentExport,
    ComponentExternalKind, ComponentInstance, ExternalKind, Instance, InstantiationArg, Parser,
    Payload,
};

use crate::joint::{self, Joint};
use crate::shape::Inner;

/// The module that does the work is the first one, and this is how it makes room for what it is given.
const REALLOC: &str = "cabi_realloc";

/// The same component with less round its core module.
pub(crate) fn flat(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut parts = Parts::default();
    parts.read(bytes)?;
    let flat = parts.write()?;
    wasmparser::validate(&flat).map_err(text)?;
    Ok(flat)
}

/// A core function of the component.
enum CoreFunction<'a> {
    /// What a core instance exports.
    Export(u32, &'a str),
    /// A function of the host, lowered.
    Lower(u32, Box<[Option_]>),
    /// What drops a handle of a resource.
    Drop(u32),
}

/// What the component is made of, each list in the order of its numbers.
#[derive(Default)]
struct Parts<'a> {
    /// Types and imports keep their order and numbers, so they are written as they are read.
    component: Component,
    types: ComponentTypeSection,
    aliases: ComponentAliasSection,
    imported_instances: u32,
    type_count: u32,
    modules: Vec<&'a [u8]>,
    components: Vec<Inner<'a>>,
    core_instances: Vec<Instance<'a>>,
    core_functions: Vec<CoreFunction<'a>>,
    /// Functions of imported instances.
    functions: Vec<(u32, &'a str)>,
    /// Core function, type and options; their numbers follow those of `functions`.
    lifts: Vec<(u32, u32, Box<[Option_]>)>,
    last: Vec<Last<'a>>,
}

/// What comes at the end of a component.
enum Last<'a> {
    Instance(ComponentInstance<'a>),
    Export(ComponentExport<'a>),
}

impl<'a> Parts<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(text)? {
                Payload::ModuleSection {
                    unchecked_range, ..
                } => {
                    if depth == 0 {
                        self.modules.extend(bytes.get(unchecked_range));
                    }
                    depth += 1;
                }
                Payload::ComponentSection { .. } => {
                    if depth == 0 {
                        self.components.push(Inner::default());
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                payload if depth == 0 => self.read_section(payload, bytes)?,
                payload => {
                    if let Some(inner) = self.components.last_mut() {
                        inner.read(payload)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One section of the outermost level.
    fn read_section(&mut self, payload: Payload<'a>, bytes: &'a [u8]) -> Result<(), String> {
        match payload {
            Payload::ComponentTypeSection(section) => {
                self.write_aliases();
                self.type_count += section.count();
                RoundtripReencoder
                    .parse_component_type_section(&mut self.types, section)
                    .map_err(text)?;
            }
            Payload::ComponentImportSection(section) => {
                self.write_aliases();
                self.write_types();
                self.imported_instances += section.count();
                self.component.section(&RawSection {
                    id: ComponentSectionId::Import.into(),
                    data: bytes
                        .get(section.range())
                        .ok_or("a section beyond the end")?,
                });
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.read_alias(alias.map_err(text)?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    self.read_canonical(function.map_err(text)?)?;
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.core_instances.push(instance.map_err(text)?);
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    self.last.push(Last::Instance(instance.map_err(text)?));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.last.push(Last::Export(export.map_err(text)?));
                }
            }
            Payload::Version { .. } | Payload::CustomSection(_) => {}
            other => return Err(format!("a section of another kind: {other:?}")),
        }
        Ok(())
    }

    fn read_alias(&mut self, alias: ComponentAlias<'a>) -> Result<(), String> {
        match alias {
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Type,
                instance_index,
                name,
            } if instance_index < self.imported_instances => {
                self.write_types();
                self.type_count += 1;
                self.aliases.alias(Alias::InstanceExport {
                    instance: instance_index,
                    kind: ComponentExportKind::Type,
                    name,
                });
            }
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Func,
                instance_index,
                name,
            } if self.lifts.is_empty() => self.functions.push((instance_index, name)),
            ComponentAlias::CoreInstanceExport {
                kind: ExternalKind::Func,
                instance_index,
                name,
            } => self
                .core_functions
                .push(CoreFunction::Export(instance_index, name)),
            // The one memory, and the table of the stand-in.
            ComponentAlias::CoreInstanceExport {
                kind: ExternalKind::Memory | ExternalKind::Table,
                ..
            } => {}
            other => return Err(format!("an alias of another kind: {other:?}")),
        }
        Ok(())
    }

    fn read_canonical(&mut self, function: CanonicalFunction) -> Result<(), String> {
        match function {
            CanonicalFunction::Lift {
                core_func_index,
                type_index,
                options,
            } => self.lifts.push((core_func_index, type_index, options)),
            CanonicalFunction::Lower {
                func_index,
                options,
            } => self
                .core_functions
                .push(CoreFunction::Lower(func_index, options)),
            CanonicalFunction::ResourceDrop { resource } => {
                self.core_functions.push(CoreFunction::Drop(resource));
            }
            other => return Err(format!("a function of another kind: {other:?}")),
        }
        Ok(())
    }

    fn write_types(&mut self) {
        if !self.types.is_empty() {
            self.component.section(&std::mem::take(&mut self.types));
        }
    }

    fn write_aliases(&mut self) {
        if !self.aliases.is_empty() {
            self.component.section(&std::mem::take(&mut self.aliases));
        }
    }

    fn write(mut self) -> Result<Vec<u8>, String> {
        self.write_types();
        self.write_aliases();
        self.check_instances()?;
        let joint = joint::joint(self.modules.first().ok_or("no module")?, REALLOC)?;
        for module in [&joint.first, &joint.module] {
            self.component.section(&RawSection {
                id: ComponentSectionId::CoreModule.into(),
                data: module,
            });
        }
        let mut instances = InstanceSection::new();
        instances.instantiate(0, Vec::<(&str, ModuleArg)>::new());
        self.component.section(&instances);
        for (instance, name) in &self.functions {
            self.aliases.alias(Alias::InstanceExport {
                instance: *instance,
                kind: ComponentExportKind::Func,
                name,
            });
        }
        for (name, kind) in joint::FIRST {
            self.aliases.alias(core_alias(0, kind, name));
        }
        self.write_aliases();
        self.write_lowered(&joint)?;
        self.write_lifted(1 + joint.imports.len() as u32)?;
        self.write_last()?;
        Ok(self.component.finish())
    }

    /// Besides the module that does the work there are the one that stands in, which is given nothing, and the one that
    /// replaces it, which is given its table. Another one would do something that is lost here: so `_initialize` is called.
    fn check_instances(&self) -> Result<(), String> {
        for instance in &self.core_instances {
            let Instance::Instantiate { module_index, args } = instance else {
                continue;
            };
            let has_table = |arg: &InstantiationArg<'_>| {
                let given = self.core_instances.get(arg.index as usize);
                given.is_some_and(gives_table)
            };
            if *module_index != 0 && !args.iter().all(has_table) {
                return Err(format!(
                    "core module {module_index} is run for something else than to stand in; is there an `_initialize`?"
                ));
            }
        }
        Ok(())
    }

    /// The functions of the host, and the instance of the module that does the work: it becomes number 2.
    fn write_lowered(&mut self, joint: &Joint) -> Result<(), String> {
        let given = self.given()?;
        let mut canonical = CanonicalFunctionSection::new();
        let mut items = vec![];
        for (at, (module, name)) in joint.imports.iter().enumerate() {
            let function = given.get(&(module.as_str(), name.as_str()));
            match function.and_then(|at| self.core_functions.get(*at as usize)) {
                Some(CoreFunction::Lower(function, options)) => {
                    canonical.lower(*function, self.options(options, None)?);
                }
                Some(CoreFunction::Drop(resource)) => {
                    canonical.resource_drop(*resource);
                }
                _ => return Err(format!("nobody gives {module} {name}")),
            }
            // Number 0 is what makes room.
            items.push((joint::name(module, name), ExportKind::Func, 1 + at as u32));
        }
        for (name, kind) in joint::FIRST {
            if kind != ExportKind::Func {
                items.push((name.to_owned(), kind, 0));
            }
        }
        if !canonical.is_empty() {
            self.component.section(&canonical);
        }
        let mut instances = InstanceSection::new();
        instances.export_items(items);
        instances.instantiate(1, [(joint::MODULE, ModuleArg::Instance(1))]);
        self.component.section(&instances);
        Ok(())
    }

    /// What the module that does the work exports, as functions of the component.
    fn write_lifted(&mut self, mut number: u32) -> Result<(), String> {
        let mut canonical = CanonicalFunctionSection::new();
        for (function, ty, options) in &self.lifts {
            let lifted = number;
            let mut exports = vec![*function];
            exports.extend(options.iter().filter_map(|option| match option {
                Option_::PostReturn(function) => Some(*function),
                _ => None,
            }));
            for function in exports {
                let name = self.export_of_first(function)?;
                self.aliases.alias(core_alias(2, ExportKind::Func, name));
                number += 1;
            }
            canonical.lift(lifted, *ty, self.options(options, Some(lifted + 1))?);
        }
        self.write_aliases();
        if !canonical.is_empty() {
            self.component.section(&canonical);
        }
        Ok(())
    }

    fn write_last(&mut self) -> Result<(), String> {
        // Of each instance that is not imported, its type; what is exported becomes one more instance.
        let mut shapes = vec![];
        for last in &self.last {
            match last {
                Last::Instance(ComponentInstance::Instantiate {
                    component_index,
                    args,
                }) => {
                    let args = args.iter().map(|arg| (arg.name, arg.index)).collect();
                    let inner = self.components.get(*component_index as usize);
                    let inner = inner.ok_or("an instance of no component")?;
                    let mut types = ComponentTypeSection::new();
                    types.instance(&inner.ty(&args)?);
                    self.component.section(&types);
                    shapes.push(self.type_count);
                    self.type_count += 1;
                    let items = inner.exports(&args)?;
                    let items = items
                        .into_iter()
                        .map(|(name, kind, at)| (name, kind.into(), at));
                    let mut instances = ComponentInstanceSection::new();
                    instances.export_items(items.collect::<Vec<_>>());
                    self.component.section(&instances);
                }
                Last::Export(export) if export.kind == ComponentExternalKind::Instance => {
                    let index = export.index.checked_sub(self.imported_instances);
                    let shape = index.and_then(|at| shapes.get(at as usize));
                    let shape = *shape.ok_or("an import is exported")?;
                    let mut exports = ComponentExportSection::new();
                    exports.export(
                        export.name.name,
                        ComponentExportKind::Instance,
                        export.index,
                        Some(ComponentTypeRef::Instance(shape)),
                    );
                    self.component.section(&exports);
                    shapes.push(shape);
                }
                Last::Instance(_) | Last::Export(_) => {
                    return Err("an export of another kind".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Who stands behind each import of the module that does the work, as a number of a core function.
    fn given(&self) -> Result<HashMap<(&'a str, &'a str), u32>, String> {
        let stands_in: HashMap<&str, u32> = self
            .core_instances
            .iter()
            .filter(|instance| gives_table(instance))
            .filter_map(|instance| match instance {
                Instance::FromExports(exports) => Some(exports),
                Instance::Instantiate { .. } => None,
            })
            .flat_map(|exports| exports.iter().map(|e| (e.name, e.index)))
            .collect();
        let args = self.core_instances.iter().find_map(|i| match i {
            Instance::Instantiate {
                module_index: 0,
                args,
            } => Some(args),
            _ => None,
        });
        let mut given = HashMap::new();
        for arg in args.ok_or("nobody runs the module")? {
            let Some(Instance::FromExports(exports)) = self.core_instances.get(arg.index as usize)
            else {
                return Err(format!("nobody gives {}", arg.name));
            };
            for export in exports {
                let number = match self.core_functions.get(export.index as usize) {
                    Some(CoreFunction::Export(_, name)) => stands_in.get(name).copied(),
                    _ => Some(export.index),
                };
                let number = number.ok_or_else(|| format!("nobody gives {}", export.name))?;
                given.insert((arg.name, export.name), number);
            }
        }
        Ok(given)
    }

    /// The name of a core function that the module that does the work exports.
    fn export_of_first(&self, function: u32) -> Result<&'a str, String> {
        if let Some(CoreFunction::Export(instance, name)) =
            self.core_functions.get(function as usize)
            && let Some(Instance::Instantiate {
                module_index: 0, ..
            }) = self.core_instances.get(*instance as usize)
        {
            return Ok(name);
        }
        Err(format!("core function {function} is not the module's"))
    }

    /// The options in new numbers. That strings are UTF-8 needs no saying.
    fn options(
        &self,
        options: &[Option_],
        post_return: Option<u32>,
    ) -> Result<Vec<CanonicalOption>, String> {
        let mut new = vec![];
        for option in options {
            match (option, post_return) {
                (Option_::UTF8, _) => {}
                (Option_::Memory(0), _) => new.push(CanonicalOption::Memory(0)),
                (Option_::Realloc(function), _) if self.export_of_first(*function)? == REALLOC => {
                    new.push(CanonicalOption::Realloc(0));
                }
                (Option_::PostReturn(_), Some(number)) => {
                    new.push(CanonicalOption::PostReturn(number));
                }
                (other, _) => return Err(format!("an option of another kind: {other:?}")),
            }
        }
        Ok(new)
    }
}

/// Whether this is what the module gets that replaces what stands in.
fn gives_table(instance: &Instance<'_>) -> bool {
    matches!(instance, Instance::FromExports(exports)
        if exports.iter().any(|export| export.kind == ExternalKind::Table))
}

fn core_alias(instance: u32, kind: ExportKind, name: &str) -> Alias<'_> {
    Alias::CoreInstanceExport {
        instance,
        kind,
        name,
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
