//! The type of an exported instance, read from the inner component whose instance it would be.
//!
//! That component imports every type and function, defines the types anew and exports them under their names. What it
//! exports is written as one type here, to be told of a plain list of exports: so the types that an interface takes from
//! an imported one keep an identity of their own that tools can trace to where they come from.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Display;

use wasm_encoder::reencode::{Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, ComponentOuterAliasKind, ComponentTypeRef, ComponentTypeSection, InstanceType,
    TypeBounds,
};
use wasmparser::{
    ComponentExport, ComponentExternalKind, ComponentType, ComponentTypeRef as Ascribed, Payload,
};

/// An inner component.
#[derive(Default)]
pub(crate) struct Inner<'a> {
    types: Vec<Type<'a>>,
    exports: Vec<ComponentExport<'a>>,
}

/// A type of an inner component.
#[derive(Clone)]
enum Type<'a> {
    Imported(&'a str),
    Defined(ComponentType<'a>),
    /// Under this name it is a type of its own.
    Exported,
}

impl<'a> Inner<'a> {
    /// One section of the inner component.
    pub(crate) fn read(&mut self, payload: Payload<'a>) -> Result<(), String> {
        match payload {
            Payload::ComponentTypeSection(section) => {
                for ty in section {
                    self.types.push(Type::Defined(ty.map_err(text)?));
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.map_err(text)?;
                    if let Ascribed::Type(_) = import.ty {
                        self.types.push(Type::Imported(import.name.name));
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(text)?;
                    if export.kind == ComponentExternalKind::Type {
                        self.types.push(Type::Exported);
                    }
                    self.exports.push(export);
                }
            }
            // There is nothing else in it that matters for what it exports.
            _ => {}
        }
        Ok(())
    }

    /// The exports: name, kind and the number of what it was given for it.
    pub(crate) fn exports(
        &self,
        args: &HashMap<&str, u32>,
    ) -> Result<Vec<(&'a str, ComponentExternalKind, u32)>, String> {
        let mut items = vec![];
        for export in &self.exports {
            let name = export.name.name;
            let given = match export.kind {
                ComponentExternalKind::Type => format!("import-type-{name}"),
                ComponentExternalKind::Func => format!("import-func-{name}"),
                other => return Err(format!("{name} is of another kind: {other:?}")),
            };
            let number = args.get(given.as_str());
            let number = number.ok_or_else(|| format!("nobody gives {given}"))?;
            items.push((name, export.kind, *number));
        }
        Ok(items)
    }

    /// The type of its instance, in a component whose types are the numbers of `args`.
    pub(crate) fn ty(&self, args: &HashMap<&str, u32>) -> Result<InstanceType, String> {
        let mut shape = Shape {
            inner: self,
            args,
            ty: InstanceType::new(),
            numbers: HashMap::new(),
        };
        let exported = self.types.iter().zip(0..);
        let mut exported = exported.filter(|(ty, _)| matches!(ty, Type::Exported));
        for export in &self.exports {
            let name = export.name.name;
            if export.kind == ComponentExternalKind::Type {
                let number = if self.is_plain(export.index) {
                    shape.given(&format!("import-type-{name}"))?
                } else {
                    shape.number(export.index)?
                };
                let (_, old) = exported.next().ok_or("an export of no type")?;
                shape.numbers.insert(old, shape.ty.type_count());
                let bounds = ComponentTypeRef::Type(TypeBounds::Eq(number));
                shape.ty.export(name, bounds);
            } else if let Some(Ascribed::Func(ty)) = export.ty {
                let number = shape.number(ty)?;
                shape.ty.export(name, ComponentTypeRef::Func(number));
            } else {
                return Err(format!("{name} has no type"));
            }
        }
        Ok(shape.ty)
    }

    /// Whether nothing in a type is exported under a name of its own: then what was given for it will do, and it need not
    /// be written again.
    fn is_plain(&self, ty: u32) -> bool {
        let Some(Type::Defined(ty @ ComponentType::Defined(_))) = self.types.get(ty as usize)
        else {
            return false;
        };
        let named = Renumber::named(ty);
        named.is_ok_and(|named| named.into_iter().all(|named| self.is_plain(named)))
    }
}

/// An instance's type under construction.
struct Shape<'s, 'a> {
    inner: &'s Inner<'a>,
    args: &'s HashMap<&'a str, u32>,
    ty: InstanceType,
    /// New numbers by the old ones.
    numbers: HashMap<u32, u32>,
}

impl Shape<'_, '_> {
    /// The new number of a type that the component around it has.
    fn given(&mut self, name: &str) -> Result<u32, String> {
        let number = self.args.get(name);
        let index = *number.ok_or_else(|| format!("nobody gives {name}"))?;
        let number = self.ty.type_count();
        self.ty.alias(Alias::Outer {
            kind: ComponentOuterAliasKind::Type,
            count: 1,
            index,
        });
        Ok(number)
    }

    /// The new number of a type, which is written before it is first named.
    fn number(&mut self, old: u32) -> Result<u32, String> {
        if let Some(number) = self.numbers.get(&old) {
            return Ok(*number);
        }
        let inner = self.inner;
        match inner.types.get(old as usize) {
            Some(Type::Imported(name)) => {
                let number = self.given(name)?;
                self.numbers.insert(old, number);
            }
            Some(Type::Defined(ty)) => {
                for named in Renumber::named(ty)? {
                    self.number(named)?;
                }
                self.numbers.insert(old, self.ty.type_count());
                let mut new = Renumber {
                    numbers: self.numbers.clone(),
                    named: vec![],
                };
                new.parse_component_type(self.ty.ty(), ty.clone())
                    .map_err(text)?;
            }
            Some(Type::Exported) | None => return Err(format!("type {old} comes too late")),
        }
        Ok(self.numbers[&old])
    }
}

/// Writes types with new numbers, and notes which they name.
#[derive(Default)]
struct Renumber {
    numbers: HashMap<u32, u32>,
    named: Vec<u32>,
}

impl Renumber {
    /// The types that a type names.
    fn named(ty: &ComponentType<'_>) -> Result<Vec<u32>, String> {
        let mut names = Self::default();
        let mut nowhere = ComponentTypeSection::new();
        names
            .parse_component_type(nowhere.ty(), ty.clone())
            .map_err(text)?;
        Ok(names.named)
    }
}

impl Reencode for Renumber {
    type Error = Infallible;
}

impl ReencodeComponent for Renumber {
    fn component_type_index(&mut self, ty: u32) -> u32 {
        self.named.push(ty);
        self.numbers.get(&ty).copied().unwrap_or(ty)
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
