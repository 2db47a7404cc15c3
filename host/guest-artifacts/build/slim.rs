//! Takes out of a component what nobody runs or reads: custom sections (names for debuggers, the tools it was made with)
//! and the long names by which its own parts find each other. The functions that are called most come first, for a small
//! number takes a byte less at each call. The contract, in the names and types of what the component as a whole imports
//! and exports, stays as it is, and so does what every function does.

use std::collections::HashMap;
use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent, component_utils, utils};
use wasm_encoder::{
    Alias, CodeSection, Component, ComponentAliasSection, ComponentImportSection,
    ComponentInstanceSection, ExportSection, FunctionSection, ImportSection, InstanceSection,
    Module, ModuleArg,
};
use wasmparser::{
    CodeSectionReader, ComponentAlias, ComponentInstance, FunctionSectionReader, Import, Imports,
    Instance, Operator, Parser, Payload, TypeRef,
};

type Result<T> = std::result::Result<T, reencode::Error<Infallible>>;

/// The same component with less in it.
pub(crate) fn slim(component: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut slim = Component::new();
    Slim::default()
        .parse_component(&mut slim, Parser::new(0), component)
        .map_err(|e| e.to_string())?;
    let slim = slim.finish();
    wasmparser::validate(&slim).map_err(|e| e.to_string())?;
    Ok(slim)
}

/// Every inner name with its short one: the same for all parts, so that they still find each other.
#[derive(Default)]
struct Slim {
    names: HashMap<String, String>,
    depth: usize,
    /// Of the module at hand; outside of modules there are none.
    functions: Functions,
}

/// The functions of a module in their new order.
#[derive(Default)]
struct Functions {
    /// The functions that are not imported, by their old numbers without the imported ones.
    order: Vec<usize>,
    /// New number of each, by its old one.
    numbers: Vec<u32>,
}

impl Functions {
    /// Sorts by the number of calls, those with as many as they were.
    fn by_calls(module: &[u8]) -> Result<Self> {
        let (mut imported, mut calls) = (0, Vec::<usize>::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        imported += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::FunctionSection(section) => {
                    calls.resize(section.count() as usize, 0);
                }
                Payload::CodeSectionEntry(body) => {
                    for operator in body.get_operators_reader()? {
                        if let Operator::Call { function_index } = operator?
                            && let Some(at) = (function_index as usize).checked_sub(imported)
                            && let Some(calls) = calls.get_mut(at)
                        {
                            *calls += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(calls[*at]));
        let mut numbers: Vec<u32> = (0..(imported + order.len()) as u32).collect();
        for (new, old) in order.iter().enumerate() {
            numbers[imported + old] = (imported + new) as u32;
        }
        Ok(Self { order, numbers })
    }
}

impl Slim {
    fn short(&mut self, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        let count = self.names.len();
        let fresh = || short(count);
        self.names
            .entry(name.to_owned())
            .or_insert_with(fresh)
            .clone()
    }
}

/// Letters only, so that it is a name for components as well as for modules: a to z, aa to zz and so on.
fn short(mut count: usize) -> String {
    let mut letters = vec![];
    loop {
        letters.push(b'a' + (count % 26) as u8);
        if count < 26 {
            break;
        }
        count = count / 26 - 1;
    }
    letters.iter().rev().copied().map(char::from).collect()
}

impl Reencode for Slim {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32> {
        let number = self.functions.numbers.get(function as usize);
        Ok(number.copied().unwrap_or(function))
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<()> {
        let types = section
            .into_iter()
            .collect::<std::result::Result<Vec<u32>, _>>()?;
        for at in &self.functions.order {
            functions.function(types[*at]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<()> {
        let bodies = section
            .into_iter()
            .collect::<std::result::Result<Vec<_>, _>>()?;
        for at in self.functions.order.clone() {
            utils::parse_function_body(self, code, bodies[at].clone())?;
        }
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        _: &mut Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Result<()> {
        Ok(())
    }

    fn parse_imports(&mut self, section: &mut ImportSection, imports: Imports<'_>) -> Result<()> {
        let Imports::Single(at, import) = imports else {
            return utils::parse_imports(self, section, imports);
        };
        let (module, name) = (self.short(import.module), self.short(import.name));
        let import = Import {
            module: &module,
            name: &name,
            ty: import.ty,
        };
        utils::parse_imports(self, section, Imports::Single(at, import))
    }

    fn parse_export(
        &mut self,
        section: &mut ExportSection,
        export: wasmparser::Export<'_>,
    ) -> Result<()> {
        let name = self.short(export.name);
        utils::parse_export(
            self,
            section,
            wasmparser::Export {
                name: &name,
                ..export
            },
        )
    }
}

impl ReencodeComponent for Slim {
    fn push_depth(&mut self) {
        self.depth += 1;
    }

    fn pop_depth(&mut self) {
        self.depth -= 1;
    }

    fn parse_component_submodule(
        &mut self,
        component: &mut Component,
        parser: Parser,
        module: &[u8],
    ) -> Result<()> {
        self.functions = Functions::by_calls(module)?;
        component_utils::parse_component_submodule(self, component, parser, module)?;
        self.functions = Functions::default();
        Ok(())
    }

    fn parse_component_custom_section(
        &mut self,
        _: &mut Component,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Result<()> {
        Ok(())
    }

    fn parse_component_import_section(
        &mut self,
        imports: &mut ComponentImportSection,
        section: wasmparser::ComponentImportSectionReader<'_>,
    ) -> Result<()> {
        for import in section {
            let import = import?;
            let ty = self.component_type_ref(import.ty)?;
            if self.depth == 0 {
                imports.import(import.name, ty);
            } else {
                imports.import(self.short(import.name.name).as_str(), ty);
            }
        }
        Ok(())
    }

    fn parse_component_instance(
        &mut self,
        instances: &mut ComponentInstanceSection,
        instance: ComponentInstance<'_>,
    ) -> Result<()> {
        let ComponentInstance::Instantiate {
            component_index,
            args,
        } = instance
        else {
            return component_utils::parse_component_instance(self, instances, instance);
        };
        let args: Vec<_> = args
            .iter()
            .map(|arg| (self.short(arg.name), arg.kind.into(), arg.index))
            .collect();
        instances.instantiate(component_index, args);
        Ok(())
    }

    fn parse_instance(
        &mut self,
        instances: &mut InstanceSection,
        instance: Instance<'_>,
    ) -> Result<()> {
        match instance {
            Instance::Instantiate { module_index, args } => {
                let args: Vec<_> = args
                    .iter()
                    .map(|arg| (self.short(arg.name), ModuleArg::Instance(arg.index)))
                    .collect();
                instances.instantiate(module_index, args);
            }
            Instance::FromExports(exports) => {
                let mut items = vec![];
                for export in &exports {
                    items.push((
                        self.short(export.name),
                        self.export_kind(export.kind)?,
                        export.index,
                    ));
                }
                instances.export_items(items);
            }
        }
        Ok(())
    }

    fn parse_component_alias_section(
        &mut self,
        aliases: &mut ComponentAliasSection,
        section: wasmparser::ComponentAliasSectionReader<'_>,
    ) -> Result<()> {
        for alias in section {
            match alias? {
                ComponentAlias::CoreInstanceExport {
                    kind,
                    instance_index,
                    name,
                } => {
                    aliases.alias(Alias::CoreInstanceExport {
                        instance: instance_index,
                        kind: kind.into(),
                        name: &self.short(name),
                    });
                }
                other => {
                    aliases.alias(self.component_alias(other)?);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::ComponentExternalKind;

    use super::*;

    /// A module that calls an import and is called, and an inner component that gives the export its type.
    const COMPONENT: &str = r#"
        (component
            (import "host" (instance $host (export "say" (func))))
            (core module $module
                (import "long-name" "another-long-name" (func $say))
                (func (export "the-name-of-a-core-export") call $say)
                (@custom "inner" "1"))
            (core func $say (canon lower (func $host "say")))
            (core instance $say (export "another-long-name" (func $say)))
            (core instance $run (instantiate $module (with "long-name" (instance $say))))
            (func $run (canon lift (core func $run "the-name-of-a-core-export")))
            (component $shape
                (import "import-func-run" (func $run))
                (export "run" (func $run)))
            (instance $shaped (instantiate $shape (with "import-func-run" (func $run))))
            (export "runner" (instance $shaped))
            (@custom "outer" "2"))"#;

    /// What the component as a whole imports and exports, and how many custom sections there are.
    fn surface(component: &[u8]) -> (Vec<String>, Vec<String>, usize) {
        let (mut imports, mut exports, mut customs, mut depth) = (vec![], vec![], 0, 0);
        for payload in Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 0 => {
                    imports.extend(section.into_iter().map(|i| i.unwrap().name.name.to_owned()));
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export.unwrap();
                        assert_eq!(export.kind, ComponentExternalKind::Instance);
                        exports.push(export.name.name.to_owned());
                    }
                }
                Payload::CustomSection(_) => customs += 1,
                _ => {}
            }
        }
        (imports, exports, customs)
    }

    #[test]
    fn inner_names_and_custom_sections_go_and_the_contract_stays() {
        let component = wat::parse_str(COMPONENT).unwrap();
        let (imports, exports, customs) = surface(&component);
        assert!(customs >= 2);
        let slim = slim(&component).unwrap();
        assert_eq!(surface(&slim), (imports, exports, 0));
        let text = String::from_utf8_lossy(&slim);
        for name in ["long-name", "the-name", "import-func"] {
            assert!(!text.contains(name), "{name}");
        }
    }

    #[test]
    fn the_functions_that_are_called_most_come_first_behind_the_imported_ones() {
        let module = wat::parse_str(
            r#"(module
                (import "host" "say" (func $say))
                (func $never)
                (func $once call $twice)
                (func $twice call $say call $say)
                (func (export "run") call $twice call $once call $say))"#,
        );
        let Functions { order, numbers } = Functions::by_calls(&module.unwrap()).unwrap();
        assert_eq!(order, [2, 1, 0, 3]);
        assert_eq!(numbers, [0, 3, 2, 1, 4]);
    }

    #[test]
    fn what_is_slim_stays_as_it_is() {
        let once = slim(&wat::parse_str(COMPONENT).unwrap()).unwrap();
        assert_eq!(slim(&once).unwrap(), once);
    }

    #[test]
    fn what_is_no_component_is_refused() {
        let component = wat::parse_str(COMPONENT).unwrap();
        assert!(slim(&component[..component.len() - 3]).is_err());
        assert!(slim(&wat::parse_str("(module)").unwrap()).is_err());
    }

    #[test]
    fn short_names_are_all_different() {
        let names: Vec<String> = (0..2000).map(short).collect();
        assert_eq!(
            [&names[0], &names[25], &names[26], &names[702]],
            ["a", "z", "aa", "aaa"]
        );
        assert!(names.iter().collect::<std::collections::HashSet<_>>().len() == names.len());
    }
}
