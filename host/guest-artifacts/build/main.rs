//! Builds the guests for wasm32, wraps each as a component and writes the table that `src/lib.rs` includes.
//!
//! The guests are built by a cargo of their own, in a target directory of their own (`<target>/guests`), so that no
//! lock of the outer build is waited for, debug and release builds of the host share them, and the host's flags do not
//! reach them. The bytes do not depend on where the workspace, the toolchain or the registry lie.
//! It does not decide what a guest may import: the world of the guest does, and the runtime checks it at load.

mod author;
mod branches;
mod code;
mod constants;
mod dep_info;
mod elf;
mod flags;
mod flat;
mod folder;
mod joint;
mod live;
mod outline;
mod piece;
mod shape;
mod shared;
mod slim;
mod toolchain;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// Where guests come from instead, for a machine that cannot build for wasm32: a directory with the files of a release. A
/// relative one begins at the workspace's root: cargo runs this in the folder of this package, which nobody has in mind.
const PREBUILT: &str = "OTAD_GUESTS";

/// Profile in the root manifest, whatever the profile of the host build.
const PROFILE: &str = "guest";

/// One guest.
struct Guest {
    /// Cargo package.
    package: &'static str,
    /// Name under which the component ships; the file is `<name>.wasm`.
    name: &'static str,
    /// Name of the constant in the table.
    constant: &'static str,
    /// Whether its size counts for more than its speed.
    small: bool,
    /// Cargo features.
    features: &'static str,
    /// Whether it ships; what does not is for tests, and empty where ready-made guests are taken.
    ships: bool,
    /// Name of the constant of its native form, a shared library; where there is none it has no such form.
    native: Option<&'static str>,
    /// It stays the module that the compiler leaves: the tests wrap it.
    is_module: bool,
}

const GUESTS: &[Guest] = &[
    // As below: before the shipped one.
    Guest {
        package: "agent-guest",
        name: "agent-mutants",
        constant: "AGENT_MUTANTS",
        small: false,
        features: "mutants",
        ships: false,
        native: None,
        is_module: false,
    },
    Guest {
        package: "agent-guest",
        name: "agent",
        constant: "AGENT",
        small: true,
        features: "",
        ships: true,
        native: None,
        is_module: false,
    },
    Guest {
        package: "agent-simple",
        name: "agent-simple",
        constant: "AGENT_SIMPLE",
        small: false,
        features: "",
        ships: true,
        native: None,
        is_module: false,
    },
    // Before the shipped one, which is left in the place of both.
    Guest {
        package: "pal-flash-file",
        name: "pal-flash-file-mutants",
        constant: "FLASH_FILE_MUTANTS",
        small: false,
        features: "mutants",
        ships: false,
        native: Some("FLASH_FILE_MUTANTS_NATIVE"),
        is_module: false,
    },
    Guest {
        package: "pal-flash-file",
        name: "pal-flash-file",
        constant: "FLASH_FILE",
        small: false,
        features: "",
        ships: true,
        native: Some("FLASH_FILE_NATIVE"),
        is_module: false,
    },
    Guest {
        package: "pal-serial-mcu",
        name: "pal-serial-mcu",
        constant: "SERIAL_MCU",
        small: false,
        features: "",
        ships: true,
        native: Some("SERIAL_MCU_NATIVE"),
        is_module: false,
    },
    Guest {
        package: "pal-template",
        name: "pal-template",
        constant: "TEMPLATE_MODULE",
        small: false,
        features: "",
        ships: false,
        native: None,
        is_module: true,
    },
];

fn main() {
    if let Err(message) = run() {
        for line in message.lines() {
            tell("error", line);
        }
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    tell("rerun-if-changed", "build");
    tell("rerun-if-env-changed", PREBUILT);
    let out_dir = path_from_env("OUT_DIR")?;
    let workspace = workspace()?;
    let prebuilt = env::var_os(PREBUILT).map(|dir| workspace.join(dir));
    let builder = match prebuilt {
        Some(_) => None,
        None => Some(Builder::new(&out_dir, &workspace)?),
    };
    let mut table = String::new();
    let mut list = String::new();
    for guest in GUESTS {
        let component = match (&prebuilt, &builder) {
            (Some(_), _) if !guest.ships => Vec::new(),
            (Some(dir), _) => read_prebuilt(dir, guest)?,
            (None, Some(builder)) => builder.component(guest)?,
            (None, None) => return Err("no way to get the guests".to_owned()),
        };
        let file = out_dir.join(format!("{}.wasm", guest.name));
        write(&file, &component)?;
        add_to_table(&mut table, &mut list, guest, &component);
        if let Some(constant) = guest.native {
            let library = match (&prebuilt, &builder) {
                // A program without a dynamic loader loads no library.
                _ if flags::is_static(&target("FEATURE")?) => Vec::new(),
                (Some(_), _) if !guest.ships => Vec::new(),
                (Some(dir), _) => read_prebuilt_library(dir, guest)?,
                (None, Some(builder)) => builder.library(guest)?,
                (None, None) => return Err("no way to get the guests".to_owned()),
            };
            let file = format!("{}.so", guest.name);
            write(&out_dir.join(&file), &library)?;
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "/// `{file}`, {} bytes: the same plugin as a shared library; empty where ready-made guests have none, or this program could load none.\n\
                 pub const {constant}: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\"));",
                library.len(),
            );
        }
    }
    let _ = writeln!(
        table,
        "/// All of them.\npub const GUESTS: &[Guest] = &[\n{list}];"
    ); // writing to a String cannot fail
    write(&out_dir.join("guests.rs"), table.as_bytes())?;
    let authors = author::table(&workspace)?;
    write(&out_dir.join("author.rs"), authors.as_bytes())
}

fn workspace() -> Result<PathBuf, String> {
    path_from_env("CARGO_MANIFEST_DIR")?
        .join("../..")
        .canonicalize()
        .map_err(|e| format!("workspace root: {e}"))
}

/// Runs cargo for the guests.
struct Builder {
    workspace: PathBuf,
    target_dir: PathBuf,
    rustflags: Vec<String>,
}

impl Builder {
    fn new(out_dir: &Path, workspace: &Path) -> Result<Self, String> {
        // Everything a guest is made of that its dep-info does not name.
        for path in [
            "Cargo.toml",
            "Cargo.lock",
            "wit/agent",
            "wit/pal",
            ".cargo/config.toml",
        ] {
            rerun_if_changed(&workspace.join(path));
        }
        for room in ["agent-wasm", "pal-plugins"] {
            for entry in fs::read_dir(workspace.join(room)).into_iter().flatten() {
                rerun_if_changed(
                    &entry
                        .map_err(|e| format!("{room}: {e}"))?
                        .path()
                        .join("Cargo.toml"),
                );
            }
        }
        let rustc = path_from_env("RUSTC")?;
        toolchain::require_target(&rustc)?;
        let target_dir = shared::dir(out_dir, &env_text("TARGET")?);
        let rustflags = toolchain::remap_flags(&rustc, workspace, &target_dir)?;
        Ok(Self {
            workspace: workspace.to_owned(),
            target_dir,
            rustflags,
        })
    }

    /// The native form, for the machine that the outer build is for.
    fn library(&self, guest: &Guest) -> Result<Vec<u8>, String> {
        let features = format!("native {}", guest.features);
        let mut rustflags = self.rustflags.clone();
        let linking = flags::linking(&target("ENV")?, &target("FEATURE")?);
        rustflags.extend(linking.map(str::to_owned));
        let file = format!("lib{}", guest.package.replace('-', "_"));
        let files = [format!("{file}.d"), format!("{file}.so")];
        self.cargo(
            guest,
            &env_text("TARGET")?,
            &features,
            &rustflags,
            &[],
            files,
        )
    }

    fn component(&self, guest: &Guest) -> Result<Vec<u8>, String> {
        // Without the first the linker leaves every address and every call the five bytes that any of them might need: a
        // tenth of the code. It cannot be done with debug information, so it is not for builds by hand. Then two passes
        // that trade size for speed even where size is all that is asked for.
        let more = [
            "-C",
            "link-arg=--compress-relocations",
            "-C",
            "llvm-args=-disable-lsr -enable-pre=false",
        ];
        let file = guest.package.replace('-', "_");
        let files = [format!("{file}.d"), format!("{file}.wasm")];
        let rustflags = &self.rustflags;
        let mut module = self.cargo(
            guest,
            toolchain::TARGET,
            guest.features,
            rustflags,
            &more,
            files,
        )?;
        if guest.is_module {
            return Ok(module);
        }
        if guest.small {
            module = branches::fold(&module)
                .and_then(|module| constants::hoist(&module))
                .and_then(|module| outline::outline(&module))
                .map_err(|e| format!("the code of {} stays large: {e}", guest.package))?;
        }
        let component = wit_component::ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|e| format!("{} does not fit its world: {e:#}", guest.package))?;
        let component = flat::flat(&component)
            .and_then(|component| slim::slim(&component))
            .map_err(|e| format!("the component of {} cannot be read: {e}", guest.package))?;
        // Also as a file, for those who want to look at it or to ship it by itself.
        if !guest.ships {
            return Ok(component);
        }
        let shipped = self.target_dir.join("components");
        fs::create_dir_all(&shipped).map_err(|e| format!("{}: {e}", shipped.display()))?;
        write(&shipped.join(format!("{}.wasm", guest.name)), &component)?;
        Ok(component)
    }

    /// What cargo makes of a guest: its dep-info and the file itself.
    fn cargo(
        &self,
        guest: &Guest,
        target: &str,
        features: &str,
        rustflags: &[String],
        more: &[&str],
        files: [String; 2],
    ) -> Result<Vec<u8>, String> {
        let mut command = Command::new(path_from_env("CARGO")?);
        command
            .current_dir(&self.workspace)
            .args(["rustc", "--package", guest.package, "--lib"])
            // Alone, or an additional rlib turns link-time optimisation off.
            .args(["--crate-type", "cdylib"])
            .args(["--target", target, "--profile", PROFILE])
            .args(["--features", features])
            // The outer cargo has just resolved this workspace; its lock file is what both builds use. With the
            // registry filled this needs no network.
            .arg("--locked")
            .arg("--target-dir")
            .arg(&self.target_dir)
            .arg("--")
            .args(more)
            .env("CARGO_BUILD_BUILD_DIR", &self.target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"))
            .env("CARGO_INCREMENTAL", "0");
        // Flags, wrappers (clippy, coverage, sccache) and profile overrides of the host build are not for the guests.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let foreign = matches!(
                &*name,
                "RUSTFLAGS"
                    | "RUSTC_WRAPPER"
                    | "RUSTC_WORKSPACE_WRAPPER"
                    | "CARGO_BUILD_RUSTFLAGS"
                    | "CARGO_BUILD_RUSTC_WRAPPER"
                    | "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER"
                    | "CARGO_BUILD_TARGET"
                    | "CARGO_BUILD_TARGET_DIR"
                    | "CARGO_TARGET_DIR"
            ) || name.starts_with("CARGO_PROFILE_");
            if foreign {
                command.env_remove(&*name);
            }
        }
        let dir = self.target_dir.join(target).join(PROFILE);
        let files = files.map(|file| dir.join(file));
        let read = shared::run_and_read(&self.target_dir, &mut command, files);
        let [dep_info, built] = read.map_err(|e| {
            format!(
                "the guest `{}` did not build ({e}); its errors are above, or run\n    cargo rustc -p {} --lib --crate-type cdylib \
                 --target {target} --profile {PROFILE} --features \"{features}\"",
                guest.name, guest.package
            )
        })?;
        for source in dep_info::sources(&String::from_utf8_lossy(&dep_info)) {
            tell("rerun-if-changed", &source);
        }
        Ok(built)
    }
}

fn read_prebuilt(dir: &Path, guest: &Guest) -> Result<Vec<u8>, String> {
    let path = dir.join(format!("{}.wasm", guest.name));
    tell("rerun-if-changed", &path.to_string_lossy());
    let bytes = read(&path).map_err(|e| format!("{PREBUILT}: {e}"))?;
    // Magic, then version 13 and layer 1: a component, not a core module.
    if bytes.get(..8) != Some(b"\0asm\x0d\0\x01\0") {
        return Err(format!("{PREBUILT}: {} is not a component", path.display()));
    }
    Ok(bytes)
}

/// The native form; a release without one is a release, too.
fn read_prebuilt_library(dir: &Path, guest: &Guest) -> Result<Vec<u8>, String> {
    let path = dir.join(format!("{}.so", guest.name));
    rerun_if_changed(&path);
    // One that comes later.
    rerun_if_changed(dir);
    let arch = target("ARCH")?;
    match fs::read(&path) {
        Ok(bytes) if elf::is_library(&bytes, &arch, &target("POINTER_WIDTH")?) => Ok(bytes),
        Ok(_) => Err(format!(
            "{PREBUILT}: {} is no shared library for {arch}; take the one of the release for it, or none",
            path.display()
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(format!("{PREBUILT}: {}: {e}", path.display())),
    }
}

fn add_to_table(table: &mut String, list: &mut String, guest: &Guest, component: &[u8]) {
    let Guest { name, constant, .. } = guest;
    let digest = Sha256::digest(component);
    let digest: Vec<String> = digest.iter().map(|b| format!("0x{b:02x}")).collect();
    let digest = digest.join(", ");
    // Writing to a String cannot fail.
    let _ = writeln!(
        table,
        "/// `{name}.wasm`, {} bytes{}.\npub const {constant}: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.wasm\"));",
        component.len(),
        if guest.ships {
            ""
        } else {
            "; for tests, empty where ready-made guests are taken"
        },
    );
    if !guest.ships {
        return;
    }
    let _ = writeln!(
        list,
        "    Guest {{ name: \"{name}\", bytes: {constant}, sha256: [{digest}] }},"
    );
}

/// An instruction to the outer cargo.
#[expect(
    clippy::print_stdout,
    reason = "this is how a build script speaks to cargo"
)]
fn tell(key: &str, value: &str) {
    println!("cargo::{key}={value}");
}

/// A path that does not exist would count as changed every time.
fn rerun_if_changed(path: &Path) {
    if path.exists() {
        tell("rerun-if-changed", &path.to_string_lossy());
    }
}

fn path_from_env(name: &str) -> Result<PathBuf, String> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{name} is not set; this is cargo's to run"))
}

fn env_text(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// What the outer build is for. A target without features has no variable for them.
fn target(what: &str) -> Result<String, String> {
    match env::var(format!("CARGO_CFG_TARGET_{what}")) {
        Err(env::VarError::NotPresent) => Ok(String::new()),
        other => other.map_err(|e| format!("the target's {what}: {e}")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Leaves a file alone that is already right, so that its time stamp stays.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
