//! The shipped guests as bytes: the agent and the built-in PAL plugins, components built from this workspace by the
//! build script, so that `otad` is one self-contained file.
//!
//! It holds bytes and their digests, and the files for authors of plugins ([`author`]); what a component is and may do is the
//! runtime's to judge.
//!
//! ```
//! let plugin = guest_artifacts::guest("pal-flash-file").expect("it is shipped");
//! assert_eq!(plugin.bytes, guest_artifacts::FLASH_FILE);
//! ```

pub mod author;

/// One shipped component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Name under which it ships and a configuration names it, such as `pal-flash-file`.
    pub name: &'static str,
    /// The component.
    pub bytes: &'static [u8],
    /// SHA-256 of `bytes`.
    pub sha256: [u8; 32],
}

include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// The guest of that name.
#[must_use]
pub fn guest(name: &str) -> Option<&'static Guest> {
    GUESTS.iter().find(|guest| guest.name == name)
}

#[cfg(test)]
#[path = "../build/branches.rs"]
mod branches;

#[cfg(test)]
#[path = "../build/code.rs"]
mod code;

#[cfg(test)]
#[path = "../build/constants.rs"]
mod constants;

#[cfg(test)]
#[path = "../build/dep_info.rs"]
mod dep_info;

#[cfg(test)]
#[path = "../build/elf.rs"]
mod elf;

#[cfg(test)]
#[path = "../build/flags.rs"]
mod flags;

#[cfg(test)]
#[path = "../build/flat.rs"]
mod flat;

#[cfg(test)]
#[path = "../build/folder.rs"]
mod folder;

#[cfg(test)]
#[path = "../build/joint.rs"]
mod joint;

#[cfg(test)]
#[path = "../build/live.rs"]
mod live;

#[cfg(test)]
#[path = "../build/outline.rs"]
mod outline;

#[cfg(test)]
#[path = "../build/piece.rs"]
mod piece;

#[cfg(test)]
#[path = "../build/shape.rs"]
mod shape;

#[cfg(test)]
#[path = "../build/shared.rs"]
mod shared;

#[cfg(test)]
#[path = "../build/slim.rs"]
mod slim;

#[cfg(test)]
mod rebuilt;

#[cfg(test)]
mod smaller;

#[cfg(test)]
mod tests;
