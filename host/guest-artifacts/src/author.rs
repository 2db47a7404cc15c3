//! The files that a project of a plugin author's begins with, as text: what `otad plugin new` writes, at the places that
//! they have in this workspace, so that paths from one to the other hold there too. `build/author.rs` gathers them.

/// A text and its place, below the project's top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// With `/`.
    pub path: &'static str,
    /// What it holds.
    pub text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/author.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_gets_what_it_is_compiled_with_and_something_to_begin_with() {
        for (files, path, word) in [
            (C, "pal-plugins/freertos-pal/include/ota.h", "otaPal_"),
            (C, "wit/native/ota_pal.h", "OTA_PAL_ABI_VERSION"),
            (C_EXAMPLE, "pal.c", "otaPal_WriteBlock"),
            (RUST, "pal-plugins/pal-sdk/src/record/tests.rs", "fn "),
            (RUST, "wit/pal/image.wit", "write-block"),
            (RUST_EXAMPLE, "src/lib.rs", "export_plugin!"),
            (RUST_EXAMPLE, "build.rs", "stack-size"),
        ] {
            let file = files.iter().find(|file| file.path == path);
            assert!(file.is_some_and(|file| file.text.contains(word)), "{path}");
        }
    }
}
