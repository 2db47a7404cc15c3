//! The files that a project of a plugin author's begins with, as text: what `otad plugin new` writes, at the places that
//! they have in this workspace, so that paths from one to the other hold there too.

/// A text and its place, below the project's top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// With `/`.
    pub path: &'static str,
    /// What it holds.
    pub text: &'static str,
}

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(File {
            path: $path,
            text: include_str!(concat!("../../../", $path)),
        }),*]
    };
}

/// What a plugin in C is compiled with.
pub const C: &[File] = files![
    "pal-plugins/freertos-pal/README.md",
    "pal-plugins/freertos-pal/include/ota.h",
    "pal-plugins/freertos-pal/include/ota_appversion32.h",
    "pal-plugins/freertos-pal/include/ota_config_defaults.h",
    "pal-plugins/freertos-pal/include/ota_pal.h",
    "pal-plugins/freertos-pal/include/ota_platform_interface.h",
    "pal-plugins/freertos-pal/include/ota_private.h",
    "pal-plugins/freertos-pal/shim.c",
    "wit/native/ota_pal.h",
];

/// A PAL to begin with.
pub const C_EXAMPLE: &str = include_str!("../../../pal-plugins/freertos-pal/example/pal.c");

/// What a plugin in Rust is compiled with: the SDK and the contract.
pub const RUST: &[File] = files![
    "pal-plugins/pal-sdk/Cargo.toml",
    "pal-plugins/pal-sdk/PORTING.md",
    "pal-plugins/pal-sdk/src/component.rs",
    "pal-plugins/pal-sdk/src/component/convert.rs",
    "pal-plugins/pal-sdk/src/failure.rs",
    "pal-plugins/pal-sdk/src/fake.rs",
    "pal-plugins/pal-sdk/src/lent.rs",
    "pal-plugins/pal-sdk/src/lib.rs",
    "pal-plugins/pal-sdk/src/native.rs",
    "pal-plugins/pal-sdk/src/plugin.rs",
    "pal-plugins/pal-sdk/src/record.rs",
    "pal-plugins/pal-sdk/src/record/tests.rs",
    "pal-plugins/pal-sdk/src/types.rs",
    "wit/native/ota_pal.rs",
    "wit/pal/block-device.wit",
    "wit/pal/clock.wit",
    "wit/pal/console.wit",
    "wit/pal/describe.wit",
    "wit/pal/hardware-reset.wit",
    "wit/pal/image.wit",
    "wit/pal/log.wit",
    "wit/pal/serial-line.wit",
    "wit/pal/staged-image.wit",
    "wit/pal/types.wit",
    "wit/pal/world.wit",
];

/// A plugin to begin with, for the top of the project.
pub const RUST_EXAMPLE: &[File] = &[
    File {
        path: "build.rs",
        text: include_str!("../../../pal-plugins/pal-template/build.rs"),
    },
    File {
        path: "src/lib.rs",
        text: include_str!("../../../pal-plugins/pal-template/src/lib.rs"),
    },
    File {
        path: "src/record.rs",
        text: include_str!("../../../pal-plugins/pal-template/src/record.rs"),
    },
    File {
        path: "src/tests.rs",
        text: include_str!("../../../pal-plugins/pal-template/src/tests.rs"),
    },
];

/// Manifest of this workspace: a project has the same versions and lints.
pub const WORKSPACE: &str = include_str!("../../../Cargo.toml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every file below a folder of the workspace.
    fn walk(top: &Path, folder: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(top.join(folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                walk(top, &path, found);
            } else {
                found.insert(path);
            }
        }
    }

    #[test]
    fn a_project_gets_every_file_of_what_it_is_compiled_with() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let rows: [(&[File], &[&str], &[&str]); 3] = [
            (C, &["pal-plugins/freertos-pal"], &["wit/native/ota_pal.h"]),
            (
                RUST,
                &["pal-plugins/pal-sdk", "wit/pal"],
                &["wit/native/ota_pal.rs"],
            ),
            (RUST_EXAMPLE, &["pal-plugins/pal-template"], &[]),
        ];
        // A project has its own.
        let own = [
            "pal-plugins/freertos-pal/example/pal.c",
            "pal-plugins/pal-template/Cargo.toml",
            "pal-plugins/pal-template/README.md",
        ];
        for (files, folders, more) in rows {
            let mut wanted: BTreeSet<String> = more.iter().map(|m| (*m).to_owned()).collect();
            for folder in folders {
                walk(&top, folder, &mut wanted);
            }
            wanted.retain(|path| !own.contains(&path.as_str()));
            // The example lies at the top of a project.
            let place = |file: &File| match files == RUST_EXAMPLE {
                true => format!("pal-plugins/pal-template/{}", file.path),
                false => file.path.to_owned(),
            };
            assert_eq!(files.iter().map(place).collect::<BTreeSet<_>>(), wanted);
        }
    }
}
