//! What a component imports and exports, read from its bytes, and the comparison with its world.
//!
//! Only names at the outermost level count; what is inside is the component's own affair. The host has its own check
//! before it compiles anything; this one judges the shipped components against the text of the contract.

use std::collections::BTreeSet;

use wasmparser::{Encoding, Parser, Payload};

use crate::Error;
use crate::contract::Surface;

/// Reads the names at the outermost level.
///
/// # Errors
/// The bytes are no component.
pub fn surface(bytes: &[u8]) -> Result<Surface, Error> {
    let mut found = Surface {
        imports: BTreeSet::new(),
        exports: BTreeSet::new(),
    };
    let mut depth = 0_u32;
    let mut is_component = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } => {
                is_component |= depth == 0 && encoding == Encoding::Component
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.insert(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.insert(export?.name.name.to_owned());
                }
            }
            // Sections that hold no names of the outermost level.
            _ => {}
        }
    }
    if is_component {
        Ok(found)
    } else {
        Err(Error::CoreModule)
    }
}

/// Finds imports that the world does not have, exports that are missing, and anything of WASI.
#[must_use]
pub fn violations(component: &Surface, world: &Surface) -> Vec<String> {
    let mut found = Vec::new();
    for name in &component.imports {
        if name.starts_with("wasi:") {
            found.push(format!("imports {name}; no WASI is offered"));
        } else if !world.imports.contains(name) {
            found.push(format!("imports {name}, which its world does not have"));
        }
    }
    for name in world.exports.difference(&component.exports) {
        found.push(format!("does not export {name}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn imports_beyond_the_world_and_missing_exports_are_found() {
        let world = Surface {
            imports: names(&["a:b/c@1.0.0"]),
            exports: names(&["a:b/d@1.0.0"]),
        };
        let good = Surface {
            imports: names(&[]),
            exports: names(&["a:b/d@1.0.0", "a:b/extra@1.0.0"]),
        };
        assert_eq!(violations(&good, &world), Vec::<String>::new());
        let bad = Surface {
            imports: names(&["a:b/c@1.1.0", "wasi:io/streams@0.2.0"]),
            exports: names(&[]),
        };
        assert_eq!(
            violations(&bad, &world),
            [
                "imports a:b/c@1.1.0, which its world does not have",
                "imports wasi:io/streams@0.2.0; no WASI is offered",
                "does not export a:b/d@1.0.0",
            ]
        );
    }

    #[test]
    fn core_modules_and_garbage_are_no_components() {
        assert!(surface(b"\0asm\x01\0\0\0").is_err());
        assert!(surface(b"garbage").is_err());
        assert!(surface(b"").is_err());
    }
}
