//! The manifest of a plugin or an agent: who it is, of which bytes, what it may be lent and how much it may use. The signer
//! vouches for all of it, so nothing in it is a wish that somebody else grants: a configuration can only grant less.
//!
//! It is a TOML text, `<file>.manifest`, and its signature is over the bytes of that text as they stand. A key that this host
//! does not know is refused: it may be a limit. Not here: signatures, and what a file really says of itself (`gate.rs`).

use std::fmt;
use std::path::PathBuf;

use host_runtime::engine::{AGENT_WORLD, Budget, PLUGIN_WORLD, World};
use host_runtime::plugin::native;
use host_runtime::types::Version;
use serde::{Deserialize, Serialize};

use crate::image::parse_version;

/// The format that this host reads and writes.
const FORMAT: u32 = 1;

/// Most bytes of a manifest: a dozen keys and some paths, ten times over.
pub(crate) const MANIFEST_MAX_BYTES: u64 = 16 * 1024;

/// Most entries of a list in it.
const LIST_MAX: usize = 64;

/// Most bytes of a name, as in `wit/pal/describe.wit`.
const NAME_MAX_BYTES: usize = 64;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It serves a device.
    Agent,
    /// It serves a target.
    Plugin,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Plugin => "plugin",
        })
    }
}

/// What carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A component.
    Component,
    /// A shared library.
    Native,
}

impl Form {
    /// By the file's first bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..4)? {
            b"\0asm" => Some(Self::Component),
            b"\x7fELF" => Some(Self::Native),
            _ => None,
        }
    }
}

/// The contract that this host speaks, as manifests spell it.
#[must_use]
pub fn world(kind: Kind, form: Form) -> String {
    let of = |world: &World| {
        let (major, minor, _) = world.version;
        format!("{}/{}@{major}.{minor}", world.package, world.name)
    };
    match (kind, form) {
        (Kind::Agent, _) => of(&AGENT_WORLD),
        (Kind::Plugin, Form::Component) => of(&PLUGIN_WORLD),
        (Kind::Plugin, Form::Native) => format!("ota_pal.h@{}", native::ABI_VERSION),
    }
}

/// What a configuration may grant at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Interfaces that it may be lent, by their WIT names.
    pub lent: Vec<String>,
    /// Native: places at or below which it may be given directories; `/` is any place.
    pub directories: Vec<PathBuf>,
    /// Native: places at or below which it may be given devices.
    pub devices: Vec<PathBuf>,
    /// Native: it may run in the daemon's own process.
    pub in_process: bool,
}

/// What it may use, where that is less than what this host gives anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes: linear memory of a component, address space beside the program's of a library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Instructions a call, by wasmtime's count; components only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Calls of what it is lent, in one call; components only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_calls: Option<u32>,
}

impl Limits {
    /// What this host gives at most.
    #[must_use]
    pub fn most(kind: Kind, form: Form) -> Self {
        let budget = match kind {
            Kind::Agent => Budget::AGENT,
            Kind::Plugin => Budget::PLUGIN,
        };
        match form {
            Form::Component => Self {
                memory_bytes: Some(budget.memory_bytes as u64),
                fuel: Some(budget.fuel),
                host_calls: Some(budget.host_calls),
            },
            Form::Native => Self {
                memory_bytes: Some(native::MEMORY_MAX_BYTES),
                fuel: None,
                host_calls: None,
            },
        }
    }

    /// For people.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let set = |(key, value): (&str, Option<u64>)| Some(format!("{key} {}", value?));
        self.rows().into_iter().filter_map(set).collect()
    }

    fn rows(self) -> [(&'static str, Option<u64>); 3] {
        [
            ("memory_bytes", self.memory_bytes),
            ("fuel", self.fuel),
            ("host_calls", self.host_calls.map(u64::from)),
        ]
    }
}

/// What a signer vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Agent or plugin.
    pub kind: Kind,
    /// What carries it.
    pub form: Form,
    /// As it describes itself.
    pub name: String,
    /// As it describes itself.
    pub version: Version,
    /// Contract that it was built for, as [`world`] spells it.
    pub world: String,
    /// The oldest otad that may load it.
    pub least_host: Version,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// See [`Grants`].
    pub grants: Grants,
    /// See [`Limits`].
    pub limits: Limits,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    kind: Kind,
    carrier: Form,
    name: String,
    version: String,
    world: String,
    least_host: String,
    size: u64,
    sha256: String,
    #[serde(default)]
    grants: Grants,
    #[serde(default)]
    limits: Limits,
}

impl Manifest {
    /// Read a manifest's text.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Text = toml::from_str(text).map_err(|e| {
            let place = e.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(place).filter(|b| *b == b'\n').count();
            format!("line {line}: {}", printable(e.message()))
        })?;
        if read.format != FORMAT {
            return Err(format!(
                "it has format {}, this host reads {FORMAT}",
                read.format
            ));
        }
        let version = |key: &str, text: &str| {
            parse_version(text).map_err(|e| format!("`{key}`: {}", printable(&e)))
        };
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if read.sha256.len() != 64 || !read.sha256.bytes().all(hex) {
            return Err("`sha256` is no digest of 64 hexadecimal digits".to_owned());
        }
        let kebab = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=NAME_MAX_BYTES).contains(&read.name.len()) || !read.name.bytes().all(kebab) {
            return Err(format!("`name` must be 1 to {NAME_MAX_BYTES} of [a-z0-9-]"));
        }
        let grants = &read.grants;
        let longest = grants
            .lent
            .len()
            .max(grants.directories.len())
            .max(grants.devices.len());
        if longest > LIST_MAX {
            return Err(format!("a list of {longest} grants, at most {LIST_MAX}"));
        }
        let relative = |path: &&PathBuf| !path.is_absolute();
        if let Some(path) = grants
            .directories
            .iter()
            .chain(&grants.devices)
            .find(relative)
        {
            return Err(format!(
                "grant {} is no absolute path",
                printable(&path.to_string_lossy())
            ));
        }
        let most = Limits::most(read.kind, read.carrier);
        for ((key, asked), (_, most)) in read.limits.rows().into_iter().zip(most.rows()) {
            match (asked, most) {
                (Some(asked), Some(most)) if asked > most => {
                    return Err(format!(
                        "`{key}` is {asked}, this host gives at most {most}"
                    ));
                }
                (Some(_), None) => {
                    return Err(format!("`{key}` is no limit of this carrier"));
                }
                (Some(_) | None, _) => {}
            }
        }
        Ok(Self {
            kind: read.kind,
            form: read.carrier,
            version: version("version", &read.version)?,
            least_host: version("least_host", &read.least_host)?,
            name: read.name,
            world: read.world,
            size: read.size,
            sha256: read.sha256,
            grants: read.grants,
            limits: read.limits,
        })
    }

    /// The text to be signed.
    ///
    /// # Errors
    /// A path that is no text, in words.
    pub fn text(&self) -> Result<String, String> {
        toml::to_string(&Text {
            format: FORMAT,
            kind: self.kind,
            carrier: self.form,
            name: self.name.clone(),
            version: self.version.to_string(),
            world: self.world.clone(),
            least_host: self.least_host.to_string(),
            size: self.size,
            sha256: self.sha256.clone(),
            grants: self.grants.clone(),
            limits: self.limits,
        })
        .map_err(|e| e.to_string())
    }
}

/// Text of a stranger's: one line, cut.
pub(super) fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    text.chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Manifest {
        Manifest {
            kind: Kind::Plugin,
            form: Form::Native,
            name: "pal-pump".to_owned(),
            version: parse_version("1.2.3+4").unwrap(),
            world: world(Kind::Plugin, Form::Native),
            least_host: parse_version("0.0.0").unwrap(),
            size: 70_000,
            sha256: "0f".repeat(32),
            grants: Grants {
                lent: vec!["log".to_owned()],
                directories: vec!["/var/lib/pump".into()],
                devices: vec!["/dev".into()],
                in_process: true,
            },
            limits: Limits {
                memory_bytes: Some(1 << 20),
                ..Limits::default()
            },
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let manifest = good();
        assert_eq!(Manifest::parse(&manifest.text().unwrap()), Ok(manifest));
    }

    #[test]
    fn every_wrong_value_is_named() {
        let text = good().text().unwrap();
        for (from, to, wanted) in [
            ("format = 1", "format = 2", "format 2"),
            ("format = 1\n", "", "format"),
            ("kind = \"plugin\"", "kind = \"driver\"", "line 2"),
            ("1.2.3+4", "1.2", "`version`"),
            ("0.0.0", "x", "`least_host`"),
            ("pal-pump", "Pal Pump", "`name`"),
            ("pal-pump", "", "`name`"),
            ("0f0f", "0F0f", "`sha256`"),
            ("0f0f", "0f", "`sha256`"),
            ("size = 70000", "size = -1", "line 8"),
            (
                "in_process = true",
                "in_process = true\nraw_io = true",
                "raw_io",
            ),
            ("/var/lib/pump", "pump", "no absolute path"),
            ("1048576", "99999999999", "at most 134217728"),
            ("memory_bytes = 1048576", "fuel = 1", "`fuel`"),
            (
                "memory_bytes = 1048576",
                "host_calls = 99999",
                "`host_calls`",
            ),
            ("[limits]", "[limits", "line"),
        ] {
            assert!(text.contains(from), "{from}\n{text}");
            let end = Manifest::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(end.contains(wanted), "{to}: {end}");
        }
    }

    #[test]
    fn lists_and_names_are_taken_at_their_limits_and_refused_one_past_them() {
        let mut manifest = good();
        for (count, fits) in [(LIST_MAX, true), (LIST_MAX + 1, false)] {
            manifest.grants.lent = vec!["log".to_owned(); count];
            let end = Manifest::parse(&manifest.text().unwrap());
            assert_eq!(end.is_ok(), fits, "{count}");
        }
        manifest.grants.lent.clear();
        for (count, fits) in [(NAME_MAX_BYTES, true), (NAME_MAX_BYTES + 1, false)] {
            manifest.name = "x".repeat(count);
            let end = Manifest::parse(&manifest.text().unwrap());
            assert_eq!(end.is_ok(), fits, "{count}");
        }
    }
}
