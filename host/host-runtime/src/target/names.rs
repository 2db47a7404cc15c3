//! Names of the durable files of a target, all below `targets/<device>/<target>/`.

use crate::names::path;

/// The transfer under way and the last committed image.
pub(super) const RECORD: &str = "record.json";

/// The map of held blocks.
pub(super) const BLOCK_MAP: &str = "blocks.map";

/// Digests of verified images, for the launcher.
pub(super) const VERIFIED: &str = "verified.json";

/// The name of a target's file in the state directory: `targets/<device>/<target>/<leaf>`. Device and target names come
/// from the operator and the cloud; each becomes one path component, whatever is in it.
#[must_use]
pub fn state_name(device: &str, target: &str, leaf: &str) -> String {
    path("targets", &[device, target], leaf)
}
