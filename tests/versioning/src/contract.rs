//! The WIT packages as parsed: that everything is documented, and what a world's functions look like as lines of text.

use std::collections::BTreeSet;
use std::path::Path;

use wit_parser::{
    Docs, Function, FunctionKind, Handle, InterfaceId, PackageId, Resolve, Type, TypeDefKind,
    TypeId, WorldId, WorldItem,
};

use crate::Error;

/// One parsed package.
#[derive(Debug)]
pub struct Package {
    resolve: Resolve,
    id: PackageId,
}

/// Names of the instances that a component of a world may import and must export, such as `ota:pal/log@0.1.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// What it may import, the interfaces that only hold types too.
    pub imports: BTreeSet<String>,
    /// What it must export.
    pub exports: BTreeSet<String>,
}

impl Package {
    /// Reads a folder of `.wit` files.
    ///
    /// # Errors
    /// They do not parse.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let mut resolve = Resolve::default();
        match resolve.push_dir(folder) {
            Ok((id, _)) => Ok(Self { resolve, id }),
            Err(error) => Err(Error::Wit {
                path: folder.to_owned(),
                detail: format!("{error:#}"),
            }),
        }
    }

    /// Reads one text.
    ///
    /// # Errors
    /// It does not parse.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut resolve = Resolve::default();
        match resolve.push_str("text.wit", text) {
            Ok(id) => Ok(Self { resolve, id }),
            Err(error) => Err(Error::Wit {
                path: "text.wit".into(),
                detail: format!("{error:#}"),
            }),
        }
    }

    /// What a world's components may import and must export.
    #[must_use]
    pub fn surface(&self, world: &str) -> Option<Surface> {
        let world = &self.resolve.worlds[self.world(world)?];
        let names = |items: &wit_parser::IndexMap<wit_parser::WorldKey, WorldItem>| {
            items
                .keys()
                .map(|key| self.resolve.name_world_key(key))
                .collect()
        };
        Some(Surface {
            imports: names(&world.imports),
            exports: names(&world.exports),
        })
    }

    /// Each function of an interface as a line, in the order of the text.
    #[must_use]
    pub fn functions(&self, interface: &str) -> Option<Vec<String>> {
        let id = self.resolve.packages[self.id].interfaces.get(interface)?;
        Some(
            self.resolve.interfaces[*id]
                .functions
                .values()
                .map(|function| self.line(function))
                .collect(),
        )
    }

    /// The fields of a record, or the cases of a variant, as lines in the order of the text.
    #[must_use]
    pub fn members(&self, name: &str) -> Option<Vec<String>> {
        let package = &self.resolve.packages[self.id];
        let id = package.interfaces.values().find_map(|id| {
            let id = self.resolve.interfaces[*id].types.get(name)?;
            // Not a `use` of it.
            (!matches!(self.resolve.types[*id].kind, TypeDefKind::Type(_))).then_some(*id)
        })?;
        match &self.resolve.types[id].kind {
            TypeDefKind::Record(record) => {
                let line = |field: &wit_parser::Field| {
                    format!("{}: {}", field.name, self.type_name(&field.ty))
                };
                Some(record.fields.iter().map(line).collect())
            }
            TypeDefKind::Variant(variant) => {
                let line = |case: &wit_parser::Case| match &case.ty {
                    Some(of) => format!("{}({})", case.name, self.type_name(of)),
                    None => case.name.clone(),
                };
                Some(variant.cases.iter().map(line).collect())
            }
            _ => None,
        }
    }

    /// Names of all interfaces of the package.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&str> {
        self.resolve.packages[self.id]
            .interfaces
            .keys()
            .map(String::as_str)
            .collect()
    }

    /// Everything that has no documentation, by path such as `types/failure.main`.
    #[must_use]
    pub fn undocumented(&self) -> Vec<String> {
        let package = &self.resolve.packages[self.id];
        let mut missing = Missing::default();
        missing.see("package", &package.docs);
        for id in package.interfaces.values() {
            self.see_interface(*id, &mut missing);
        }
        for (name, id) in &package.worlds {
            missing.see(&format!("world {name}"), &self.resolve.worlds[*id].docs);
        }
        missing.paths
    }

    fn world(&self, name: &str) -> Option<WorldId> {
        self.resolve.packages[self.id].worlds.get(name).copied()
    }

    fn see_interface(&self, id: InterfaceId, missing: &mut Missing) {
        let interface = &self.resolve.interfaces[id];
        let name = interface.name.as_deref().unwrap_or_default();
        missing.see(name, &interface.docs);
        for (function, item) in &interface.functions {
            missing.see(&format!("{name}/{function}"), &item.docs);
        }
        for (type_name, id) in &interface.types {
            self.see_type(&format!("{name}/{type_name}"), *id, missing);
        }
    }

    fn see_type(&self, path: &str, id: TypeId, missing: &mut Missing) {
        let item = &self.resolve.types[id];
        // A `use` has its documentation where it points to.
        if let TypeDefKind::Type(Type::Id(other)) = item.kind
            && self.resolve.types[other].owner != item.owner
        {
            return;
        }
        missing.see(path, &item.docs);
        let mut see = |member: &str, docs: &Docs| missing.see(&format!("{path}.{member}"), docs);
        match &item.kind {
            TypeDefKind::Record(record) => record
                .fields
                .iter()
                .for_each(|field| see(&field.name, &field.docs)),
            TypeDefKind::Variant(variant) => variant
                .cases
                .iter()
                .for_each(|case| see(&case.name, &case.docs)),
            TypeDefKind::Enum(enumeration) => enumeration
                .cases
                .iter()
                .for_each(|case| see(&case.name, &case.docs)),
            TypeDefKind::Flags(flags) => flags
                .flags
                .iter()
                .for_each(|flag| see(&flag.name, &flag.docs)),
            // Everything else has no members of its own.
            _ => {}
        }
    }

    fn line(&self, function: &Function) -> String {
        let is_method = matches!(
            function.kind,
            FunctionKind::Method(_) | FunctionKind::AsyncMethod(_)
        );
        let parameters: Vec<String> = function
            .params
            .iter()
            .skip(usize::from(is_method))
            .map(|parameter| format!("{}: {}", parameter.name, self.type_name(&parameter.ty)))
            .collect();
        let result = function
            .result
            .map(|result| format!(" -> {}", self.type_name(&result)))
            .unwrap_or_default();
        format!("{}({}){result}", function.name, parameters.join(", "))
    }

    fn type_name(&self, of: &Type) -> String {
        match of {
            Type::Bool => "bool".to_owned(),
            Type::U8 => "u8".to_owned(),
            Type::U16 => "u16".to_owned(),
            Type::U32 => "u32".to_owned(),
            Type::U64 => "u64".to_owned(),
            Type::S8 => "s8".to_owned(),
            Type::S16 => "s16".to_owned(),
            Type::S32 => "s32".to_owned(),
            Type::S64 => "s64".to_owned(),
            Type::F32 => "f32".to_owned(),
            Type::F64 => "f64".to_owned(),
            Type::Char => "char".to_owned(),
            Type::String => "string".to_owned(),
            Type::ErrorContext => "error-context".to_owned(),
            Type::Id(id) => self.defined_name(*id),
        }
    }

    fn defined_name(&self, id: TypeId) -> String {
        let item = &self.resolve.types[id];
        if let Some(name) = &item.name {
            return name.clone();
        }
        let optional = |of: &Option<Type>| {
            of.as_ref()
                .map_or_else(|| "_".to_owned(), |of| self.type_name(of))
        };
        match &item.kind {
            TypeDefKind::Option(of) => format!("option<{}>", self.type_name(of)),
            TypeDefKind::List(of) => format!("list<{}>", self.type_name(of)),
            TypeDefKind::Result(result) => format!(
                "result<{}, {}>",
                optional(&result.ok),
                optional(&result.err)
            ),
            TypeDefKind::Tuple(tuple) => {
                let names: Vec<String> = tuple.types.iter().map(|of| self.type_name(of)).collect();
                format!("tuple<{}>", names.join(", "))
            }
            TypeDefKind::Handle(Handle::Own(of)) => self.defined_name(*of),
            TypeDefKind::Handle(Handle::Borrow(of)) => {
                format!("borrow<{}>", self.defined_name(*of))
            }
            // The contract uses none of the others without a name; should it, the golden lines show the difference.
            other => other.as_str().to_owned(),
        }
    }
}

/// Collects paths without documentation.
#[derive(Default)]
struct Missing {
    paths: Vec<String>,
}

impl Missing {
    fn see(&mut self, path: &str, docs: &Docs) {
        if docs
            .contents
            .as_deref()
            .is_none_or(|text| text.trim().is_empty())
        {
            self.paths.push(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "/// P.\npackage ota:x@0.1.0;\n/// I.\ninterface types {\n/// T.\nrecord r {\n/// A.\na: u8,\nb: u8,\n}\n}\n\
                        interface more {\nuse types.{r};\nenum e { c }\nf: func(of: list<r>, to: tuple<u8, bool>) -> result<_, string>;\n}\n\
                        world w { import more; export types; }\n";

    #[test]
    fn what_has_no_documentation_is_found_and_a_use_is_not() {
        let package = Package::parse(TEXT).unwrap();
        assert_eq!(
            package.undocumented(),
            [
                "types/r.b",
                "more",
                "more/f",
                "more/e",
                "more/e.c",
                "world w"
            ]
        );
    }

    #[test]
    fn functions_are_written_as_lines() {
        let package = Package::parse(TEXT).unwrap();
        let lines = package.functions("more").unwrap();
        assert_eq!(
            lines,
            ["f(of: list<r>, to: tuple<u8, bool>) -> result<_, string>"]
        );
        assert_eq!(package.functions("nothing"), None);
    }

    #[test]
    fn the_surface_of_a_world_names_instances_with_their_version() {
        let surface = Package::parse(TEXT).unwrap().surface("w").unwrap();
        assert_eq!(
            Vec::from_iter(&surface.imports),
            ["ota:x/more@0.1.0", "ota:x/types@0.1.0"]
        );
        assert_eq!(Vec::from_iter(&surface.exports), ["ota:x/types@0.1.0"]);
    }
}
