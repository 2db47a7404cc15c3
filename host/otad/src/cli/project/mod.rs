//! `otad plugin new` and `otad plugin wrap`: a project for the author of a plugin that needs nothing of this workspace, and the
//! step from what a compiler makes to a component.
//!
//! What a project is compiled with is in `guest_artifacts::author`; here are the files that are its own. Not here: what a
//! plugin has to be (`otad plugin test`), and who vouches for it (`otad sign`).

use std::fs;
use std::path::Path;

use guest_artifacts::author::{self, File};
use host_runtime::engine::{AGENT_WORLD, COMPONENT_MAX_BYTES, World, world_of};
use wit_component::ComponentEncoder;

use super::args::{GuestArg, NewArgs};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

/// Most bytes of a plugin's name, as in `wit/pal/describe.wit`.
const NAME_MAX_BYTES: usize = 64;

/// A module may be larger than its component may be: what is stripped from it is not counted yet.
const MODULE_MAX_BYTES: usize = 4 * COMPONENT_MAX_BYTES;

const C: &[File] = &[
    file("README.md", include_str!("c.md")),
    file("Makefile", include_str!("Makefile")),
    file(".gitignore", "*.so\n*.bundle\n*.manifest\n*.manifest.sig\n"),
];

const RUST: &[File] = &[
    file("README.md", include_str!("rust.md")),
    file("Cargo.toml", include_str!("cargo.toml")),
    file(
        ".gitignore",
        "/target\n*.wasm\n*.bundle\n*.manifest\n*.manifest.sig\n",
    ),
];

const fn file(path: &'static str, text: &'static str) -> File {
    File { path, text }
}

pub(super) fn new(args: &NewArgs) -> Verb {
    let name = &args.name;
    check_name(name)?;
    let place = Path::new(name);
    let failed = |path: &Path, e: &std::io::Error| {
        Failed::chain(Exit::Failed, &path.display().to_string(), e)
    };
    // Nobody's files are written over.
    fs::create_dir(place).map_err(|e| failed(place, &e))?;
    let (own, shared, first) = match args.rust {
        true => (
            [RUST, author::RUST_EXAMPLE].concat(),
            author::RUST,
            "cargo build --release --target wasm32-unknown-unknown",
        ),
        false => ([C, author::C_EXAMPLE].concat(), author::C, "make test"),
    };
    for file in own.iter().chain(shared) {
        let path = place.join(file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
        }
        // What is shared is as it is in otad.
        let text = match own.contains(file) {
            true => file
                .text
                .replace("@NAME@", name)
                .replace("@FILE@", &name.replace('-', "_")),
            false => file.text.to_owned(),
        };
        fs::write(&path, text).map_err(|e| failed(&path, &e))?;
    }
    say(&format!(
        "{name}/ is a plugin that works; its README.md says what to do with it. To begin with:\n  cd {name}\n  {first}"
    ));
    Ok(Exit::Done)
}

/// It becomes the name of a folder, of a plugin, and of a crate.
fn check_name(name: &str) -> Result<(), Failed> {
    let kebab = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(kebab)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-');
    match fits {
        true => Ok(()),
        false => Err(Failed::new(
            Exit::Usage,
            format!(
                "\"{name}\" is no name for a plugin: 1 to {NAME_MAX_BYTES} of [a-z0-9-], a letter first, such as pal-pump"
            ),
        )),
    }
}

pub(super) fn wrap(module: &Path, to: &Path) -> Verb {
    let label = module.display();
    let refuse = |why: String| Failed::new(Exit::Refused, format!("{label} is refused: {why}"));
    let bytes = GuestArg::at(module)?.bytes_within(MODULE_MAX_BYTES + 1)?;
    if bytes.len() > MODULE_MAX_BYTES {
        return Err(refuse(format!("it has more than {MODULE_MAX_BYTES} bytes")));
    }
    let (component, world) = component(&bytes).map_err(refuse)?;
    fs::write(to, &component)
        .map_err(|e| Failed::chain(Exit::Failed, &to.display().to_string(), &e))?;
    let verb = match *world == AGENT_WORLD {
        // `check` plays the shipped agent's conversation, which one of the SDK does not lead.
        true => "sandbox",
        false => "plugin test",
    };
    let (to, bytes) = (to.display(), component.len());
    say(&format!(
        "{to} is a component of {bytes} bytes; is it fit? otad {verb} {to}"
    ));
    Ok(Exit::Done)
}

/// A component of a module that was built with an SDK's bindings, and its world.
fn component(module: &[u8]) -> Result<(Vec<u8>, &'static World), String> {
    match module.get(..8) {
        Some(b"\0asm\x01\0\0\0") => {}
        Some([b'\0', b'a', b's', b'm', ..]) => {
            return Err("it is a component already, or of a newer WebAssembly".to_owned());
        }
        _ => return Err("it is no WebAssembly module".to_owned()),
    }
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode());
    let component =
        encoded.map_err(|e| format!("{e:#}; was it built with agent-sdk or pal-sdk?"))?;
    let world = world_of(&component).map_err(|refusal| refusal.to_string())?;
    Ok((component, world))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_the_sdk_becomes_a_component_and_others_say_why_not() {
        let (made, world) = component(guest_artifacts::TEMPLATE_MODULE).unwrap();
        assert_eq!(world.name, "plugin");
        let empty = b"\0asm\x01\0\0\0".to_vec();
        for (module, wanted) in [
            (made, "already"),
            (b"\x7fELF".to_vec(), "no WebAssembly"),
            (Vec::new(), "no WebAssembly"),
            (empty.clone(), ""),
            ([&empty[..], &[7; 40]].concat(), "pal-sdk?"),
        ] {
            let why = component(&module).unwrap_err();
            assert!(why.contains(wanted), "{wanted}: {why}");
        }
    }

    #[test]
    fn a_module_that_is_too_large_is_refused_for_that() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("large.wasm");
        let file = fs::File::create(&module).unwrap();
        for (more, wanted) in [(0, "no WebAssembly"), (1, "more than 16777216 bytes")] {
            file.set_len(MODULE_MAX_BYTES as u64 + more).unwrap();
            let refused = wrap(&module, &dir.path().join("made.wasm")).unwrap_err();
            assert_eq!(refused.exit, Exit::Refused);
            assert!(refused.text.contains(wanted), "{}", refused.text);
        }
    }

    #[test]
    fn names_are_those_of_plugins_and_crates() {
        for (name, fits) in [
            ("pal-pump", true),
            ("p2", true),
            ("2p", false),
            ("-p", false),
            ("p-", false),
            ("Pump", false),
            ("a/b", false),
            ("..", false),
            ("", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(check_name(name).is_ok(), fits, "{name}");
        }
    }

    /// A project is a workspace of its own: what the SDK takes from this one stands in it, with the same value.
    #[test]
    fn a_project_has_the_versions_of_this_workspace() {
        let read = |text: &str| text.parse::<toml::Table>().unwrap();
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let ours = read(&fs::read_to_string(manifest).unwrap());
        let theirs = read(include_str!("cargo.toml"));
        for path in [
            ["package", "edition"],
            ["package", "rust-version"],
            ["package", "license"],
            ["dependencies", "wit-bindgen"],
        ] {
            let at = |table: &toml::Table| table["workspace"][path[0]][path[1]].clone();
            assert_eq!(at(&ours), at(&theirs), "{path:?}");
        }
    }
}
