//! What a component is, seen before it is compiled: its imports and exports against a world of the contract.
//!
//! First a walk over the outermost sections, in which nested modules are skipped by their length; then, for what is to be
//! compiled, the whole of it is validated: wasmtime itself validates each function only when it compiles it. Types are
//! not compared here: wasmtime does that when it links, and a mismatch becomes [`Refusal::Link`].

use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

/// Most bytes of a component. The shipped ones are under 100 KiB; a C library with its tables fits into 4 MiB, and
/// compiling that much takes seconds.
pub const COMPONENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Most imports and most exports of a component. The worlds have eight; the rest is room for additions.
const NAMES_MAX: usize = 64;

/// Sections of the outermost component. A component made by wit-component has some 20 to 80.
const SECTIONS_MAX: usize = 10_000;

/// How deep components and modules may lie in each other. Whoever writes a component anew (`unfold`) has a call for each
/// level, and one of 4 MiB may have hundreds of thousands. wit-component makes one, and what is composed of such has few more.
const DEPTH_MAX: usize = 8;

/// What WebAssembly begins with.
const MAGIC: &[u8] = b"\0asm";

/// A world of the contract, as the host knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Its name in WIT.
    pub name: &'static str,
    /// Its package, `namespace:name`.
    pub package: &'static str,
    /// Version of the package in this host: major, minor, patch. Another patch is the same contract, another major or
    /// minor is not.
    pub version: (u64, u64, u64),
    /// Interfaces that a component of this world may import, beside `types`.
    pub imports: &'static [&'static str],
    /// Interfaces that it must export.
    pub exports: &'static [&'static str],
}

/// `ota:agent`, world `agent`.
pub const AGENT_WORLD: World = World {
    name: "agent",
    package: "ota:agent",
    version: (0, 1, 0),
    imports: &["transport", "pal", "os"],
    exports: &["job-agent"],
};

/// `ota:pal`, world `plugin`.
pub const PLUGIN_WORLD: World = World {
    name: "plugin",
    package: "ota:pal",
    version: (0, 1, 0),
    imports: &[
        "block-device",
        "staged-image",
        "serial-line",
        "hardware-reset",
        "clock",
        "log",
    ],
    exports: &["describe", "image"],
};

/// The interfaces of a component that belong to its world's package, without package and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// What it wants lent.
    pub imports: Vec<String>,
    /// What it gives, also what the world does not ask for.
    pub exports: Vec<String>,
}

/// Why a component is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More bytes than [`COMPONENT_MAX_BYTES`], or more names or sections than make sense.
    #[error("it has {found} {what}, at most {max} are taken")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Not WebAssembly, or cut off.
    #[error("it is not a WebAssembly component: {0}")]
    Unreadable(String),
    /// A core module.
    #[error(
        "it is a core module, not a component; wrap it with `otad plugin wrap` or `wasm-tools component new`"
    )]
    CoreModule,
    /// An import that no world offers, such as `wasi:cli/environment@0.2.0`.
    #[error(
        "it imports `{import}`, which the world `{world}` does not have; build it for wasm32-unknown-unknown, without WASI"
    )]
    UnknownImport {
        /// The full name.
        import: String,
        /// The world.
        world: &'static str,
    },
    /// Built against another version of the contract.
    #[error(
        "`{interface}` is of another contract version; this host speaks {package}@{major}.{minor}.x: \
         rebuild it, or take the build for this host"
    )]
    Version {
        /// The full name as the component has it.
        interface: String,
        /// The package.
        package: &'static str,
        /// What the host speaks.
        major: u64,
        /// What the host speaks.
        minor: u64,
    },
    /// It wants something that the operator has not granted, or that this host does not lend.
    #[error(
        "it imports `{interface}`, which is not granted to it here; grant it in the configuration or use a build without it"
    )]
    NotGranted {
        /// The interface.
        interface: String,
    },
    /// It is neither an agent nor a plugin.
    #[error(
        "it is neither an agent nor a plugin: it exports [{exports}], not `ota:agent/job-agent` and not `ota:pal/image`"
    )]
    NoWorld {
        /// What it exports.
        exports: String,
    },
    /// A duty of the world is missing.
    #[error("it does not export `{package}/{interface}`, which the world `{world}` asks for")]
    MissingExport {
        /// The package.
        package: &'static str,
        /// The interface.
        interface: &'static str,
        /// The world.
        world: &'static str,
    },
    /// Its names fit, its content is not valid.
    #[error("it is not valid WebAssembly: {0}")]
    Invalid(String),
    /// It was to be compiled elsewhere, and the code is not there or not of this engine.
    #[error("its compiled code is not in the directory that it was compiled into")]
    NotCompiled,
    /// It is valid, and wasmtime's compiler does not take it.
    #[error("it does not compile: {0}")]
    Compile(String),
    /// The names fit, the types do not.
    #[error("its interfaces have other types than this host's contract: {0}")]
    Link(String),
    /// It was asked who it is, and did not answer sensibly.
    #[error("it does not say who it is: {0}")]
    Describe(String),
}

/// The world that a component is of: the one whose package it exports something of. Where that is none or both, the world
/// whose check says most clearly what is wrong.
///
/// # Errors
/// It is no component, or gives what neither world asks for.
pub fn world_of(bytes: &[u8]) -> Result<&'static World, Refusal> {
    limit("bytes", bytes.len(), COMPONENT_MAX_BYTES)?;
    let (imports, exports) = names(bytes)?;
    let is_of = |names: &[String], world: &World| {
        let prefix = format!("{}/", world.package);
        names.iter().any(|name| name.starts_with(&prefix))
    };
    [&AGENT_WORLD, &PLUGIN_WORLD]
        .into_iter()
        .find(|world| is_of(&exports, world))
        .or_else(|| {
            [&AGENT_WORLD, &PLUGIN_WORLD]
                .into_iter()
                .find(|world| is_of(&imports, world))
        })
        .ok_or_else(|| Refusal::NoWorld {
            exports: printable(&exports.join(", ")),
        })
}

/// Read the shape of `bytes` and hold it against `world`; of the world's imports only those in `lent` are granted.
pub(super) fn check(bytes: &[u8], world: &World, lent: &[&str]) -> Result<Shape, Refusal> {
    limit("bytes", bytes.len(), COMPONENT_MAX_BYTES)?;
    let (imports, exports) = names(bytes)?;
    let mut shape = Shape::default();
    for import in &imports {
        let Some(interface) = interface(import, world)? else {
            return Err(Refusal::UnknownImport {
                import: printable(import),
                world: world.name,
            });
        };
        if interface == "types" {
            continue;
        }
        if !world.imports.contains(&interface) {
            return Err(Refusal::UnknownImport {
                import: printable(import),
                world: world.name,
            });
        }
        if !lent.contains(&interface) {
            return Err(Refusal::NotGranted {
                interface: interface.to_owned(),
            });
        }
        shape.imports.push(interface.to_owned());
    }
    for export in &exports {
        // What is of another package is the component's own business: nobody here will call it.
        if let Some(interface) = interface(export, world)? {
            shape.exports.push(interface.to_owned());
        }
    }
    match world
        .exports
        .iter()
        .find(|duty| !shape.exports.iter().any(|e| e == *duty))
    {
        Some(duty) => Err(Refusal::MissingExport {
            package: world.package,
            interface: duty,
            world: world.name,
        }),
        None => Ok(shape),
    }
}

/// Proposals that the engine has turned off, or is built without: no code of theirs is even begun to be compiled.
const NOT_TAKEN: WasmFeatures = WasmFeatures::MEMORY64
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::THREADS)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::GC);

/// Validate every section and every function of a component.
pub(super) fn validate(bytes: &[u8]) -> Result<(), Refusal> {
    check_depth(bytes)?;
    let features = WasmFeatures::default().difference(NOT_TAKEN);
    match Validator::new_with_features(features).validate_all(bytes) {
        Ok(_) => Ok(()),
        Err(e) => Err(Refusal::Invalid(printable(&e.to_string()))),
    }
}

/// Not by the validator: it knows no such limit.
fn check_depth(bytes: &[u8]) -> Result<(), Refusal> {
    let mut depth: usize = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => {
                depth += 1;
                limit("components within each other", depth, DEPTH_MAX)?;
            }
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(_) => {}
            // The validator comes to it, too, and has the words for it.
            Err(_) => break,
        }
    }
    Ok(())
}

/// SHA-256 of a component's bytes: its name in caches and reports.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Names of the outermost imports and exports.
fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let bad = |e: wasmparser::BinaryReaderError| Refusal::Unreadable(printable(&e.to_string()));
    if !bytes.starts_with(MAGIC) {
        // The parser would list the bytes that it found.
        return Err(Refusal::Unreadable(
            "it does not begin with `\\0asm`".into(),
        ));
    }
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut parser = Parser::new(0);
    let mut at = 0;
    for _ in 0..SECTIONS_MAX {
        let rest = bytes.get(at..).unwrap_or_default();
        let (used, payload) = match parser.parse(rest, true).map_err(bad)? {
            wasmparser::Chunk::Parsed { consumed, payload } => (consumed, payload),
            wasmparser::Chunk::NeedMoreData(_) => {
                return Err(Refusal::Unreadable("it is cut off".into()));
            }
        };
        at += used;
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } => return Err(Refusal::CoreModule),
            Payload::ComponentImportSection(reader) => {
                for import in reader {
                    imports.push(import.map_err(bad)?.name.name.to_owned());
                    limit("imports", imports.len(), NAMES_MAX)?;
                }
            }
            Payload::ComponentExportSection(reader) => {
                for export in reader {
                    exports.push(export.map_err(bad)?.name.name.to_owned());
                    limit("exports", exports.len(), NAMES_MAX)?;
                }
            }
            Payload::ModuleSection {
                unchecked_range, ..
            }
            | Payload::ComponentSection {
                unchecked_range, ..
            } => {
                if unchecked_range.end > bytes.len() {
                    return Err(Refusal::Unreadable("a nested module is cut off".into()));
                }
                // The parser has already counted the nested bytes; it only must not be given them.
                at = unchecked_range.end;
            }
            Payload::End(_) => return Ok((imports, exports)),
            _ => {}
        }
    }
    Err(Refusal::TooLarge {
        what: "sections",
        found: SECTIONS_MAX + 1,
        max: SECTIONS_MAX,
    })
}

/// The interface part of `namespace:package/interface@version` if the package is the world's own.
fn interface<'n>(name: &'n str, world: &World) -> Result<Option<&'n str>, Refusal> {
    let Some(rest) = name
        .strip_prefix(world.package)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return Ok(None);
    };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let (major, minor, _) = world.version;
    let mut parts = version.splitn(3, '.');
    let same = [major, minor].iter().all(|want| {
        parts
            .next()
            .and_then(|part| part.parse::<u64>().ok())
            .is_some_and(|part| part == *want)
    });
    let patch = parts.next().is_some_and(|p| p.parse::<u64>().is_ok());
    if same && patch {
        return Ok(Some(interface));
    }
    Err(Refusal::Version {
        interface: printable(name),
        package: world.package,
        major,
        minor,
    })
}

fn limit(what: &'static str, found: usize, max: usize) -> Result<(), Refusal> {
    if found > max {
        return Err(Refusal::TooLarge { what, found, max });
    }
    Ok(())
}

/// Names come from a stranger: cut, and without control characters.
fn printable(name: &str) -> String {
    /// Enough to recognise a name.
    const CHARS_MAX: usize = 160;
    name.chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
