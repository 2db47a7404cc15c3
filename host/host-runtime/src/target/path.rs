//! What the `filepath` of a job may say.
//!
//! It opens nothing: the storage is the operator's regions and staging file. It is checked all the same, because a
//! plugin is told of it and a native one may use it below what it was granted.

use super::config::PathRule;
use crate::types::{Failure, code};

/// Most bytes of a path: the C agent's buffer.
const PATH_MAX_BYTES: usize = 512;

/// Whether a path is allowed.
pub(super) fn check(rule: &PathRule, path: &str) -> Result<(), Failure> {
    let refuse = |reason: &str| {
        let shown: String = path.escape_debug().take(80).collect();
        Err(Failure::new(
            code::BAD_ARGUMENT,
            1,
            format!("filepath `{shown}` {reason}"),
        ))
    };
    if path.len() > PATH_MAX_BYTES {
        return refuse("is longer than 512 bytes");
    }
    if path.chars().any(char::is_control) {
        return refuse("has control characters");
    }
    if rule.allowed.iter().any(|allowed| allowed == path) {
        return Ok(());
    }
    if !rule.allowed.is_empty() {
        return refuse("is not one of those that the target's configuration allows");
    }
    if path.starts_with('/') {
        return refuse("is absolute; list it in the target's allowed paths");
    }
    if path.split('/').any(|part| part == "..") {
        return refuse("leads out of its directory");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_any_relative_path_is_allowed_and_nothing_that_escapes() {
        let rule = PathRule::default();
        for (path, good) in [
            ("", true),
            ("update.bin", true),
            ("a/b..c/d", true),
            ("./x", true),
            ("..", false),
            ("a/../b", false),
            ("a/..", false),
            ("/etc/passwd", false),
            ("/", false),
            ("a\0b", false),
            ("a\nb", false),
        ] {
            assert_eq!(check(&rule, path).is_ok(), good, "{path:?}");
        }
        assert!(check(&rule, &"x".repeat(512)).is_ok());
        assert!(check(&rule, &"x".repeat(513)).is_err());
    }

    #[test]
    fn a_list_allows_its_entries_to_the_letter_and_nothing_else() {
        let rule = PathRule {
            allowed: vec!["/opt/app".into(), "../x".into()],
        };
        for (path, good) in [
            ("/opt/app", true),
            ("../x", true),
            ("/opt/app/", false),
            ("update.bin", false),
            ("", false),
        ] {
            assert_eq!(check(&rule, path).is_ok(), good, "{path:?}");
        }
    }
}
