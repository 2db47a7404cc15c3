//! Writes the table of the files that a project of a plugin author's begins with (`src/author.rs`): whole folders of the
//! plugins' room and of the contract, as text. Nothing is compiled here, and nothing is changed in them.

use std::fmt::Write as _;
use std::path::Path;

use super::{folder, rerun_if_changed};

/// A constant: its name, what it is for people, the folders and files that it has, and what is left away of their paths.
struct Part {
    constant: &'static str,
    purpose: &'static str,
    sources: &'static [&'static str],
    /// A project has them at its top.
    top: &'static str,
}

const PARTS: &[Part] = &[
    Part {
        constant: "C",
        purpose: "What a plugin in C is compiled with",
        sources: &[
            "pal-plugins/freertos-pal/README.md",
            "pal-plugins/freertos-pal/include",
            "pal-plugins/freertos-pal/shim.c",
            "wit/native/ota_pal.h",
        ],
        top: "",
    },
    Part {
        constant: "C_EXAMPLE",
        purpose: "A PAL to begin with",
        sources: &["pal-plugins/freertos-pal/example/pal.c"],
        top: "pal-plugins/freertos-pal/example/",
    },
    Part {
        constant: "RUST",
        purpose: "What a plugin in Rust is compiled with: the SDK and the contract",
        sources: &["pal-plugins/pal-sdk", "wit/native/ota_pal.rs", "wit/pal"],
        top: "",
    },
    Part {
        constant: "RUST_EXAMPLE",
        purpose: "A plugin to begin with",
        sources: &[
            "pal-plugins/pal-template/build.rs",
            "pal-plugins/pal-template/src",
        ],
        top: "pal-plugins/pal-template/",
    },
];

/// The table, as Rust.
pub(super) fn table(workspace: &Path) -> Result<String, String> {
    let mut table = String::new();
    for part in PARTS {
        let mut files = Vec::new();
        for source in part.sources {
            rerun_if_changed(&workspace.join(source));
            folder::walk(workspace, source, &mut files)?;
        }
        files.sort();
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "/// {}.\npub const {}: &[File] = &[",
            part.purpose, part.constant
        );
        for file in files {
            let path = file.strip_prefix(part.top).unwrap_or(&file);
            let at = workspace.join(&file);
            let _ = writeln!(
                table,
                "    File {{ path: {path:?}, text: include_str!({at:?}) }},"
            );
        }
        table.push_str("];\n");
    }
    Ok(table)
}
