//! Compiler flags of the guests: what the places of this machine are called in them, and how a library is linked.

use std::path::PathBuf;

/// Flags that give each directory the name beside it. Of several that match a path the compiler takes the last one, so
/// one that lies in another one comes behind it, whichever of them that is on this machine.
pub(crate) fn remap(mut pairs: Vec<(PathBuf, String)>) -> Vec<String> {
    pairs.sort_by_key(|(from, _)| from.as_os_str().len());
    pairs
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect()
}

/// Whether a program for a target with these features has the C library in it. Without a dynamic loader it loads none.
pub(crate) fn is_static(target_features: &str) -> bool {
    let mut features = target_features.split(',');
    features.any(|feature| feature == "crt-static")
}

/// The flag by which a target becomes the one that the outer build is for, where its environment would have it otherwise.
pub(crate) fn linking(target_env: &str, target_features: &str) -> Option<&'static str> {
    (target_env == "musl" && !is_static(target_features)).then_some("-Ctarget-feature=-crt-static")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_directories_in_each_other_the_inner_one_comes_last() {
        let rows = [
            (["/s", "/s/cargo", "/s/cargo/registry"], [0, 1, 2]),
            (["/s/cargo/registry", "/s", "/s/cargo"], [1, 2, 0]),
            (["/h/cargo", "/s", "/h"], [1, 2, 0]),
        ];
        for (places, order) in rows {
            let pair = |place: &str| (PathBuf::from(place), "/x".to_owned());
            let expected = order.map(|at: usize| format!("--remap-path-prefix={}=/x", places[at]));
            assert_eq!(remap(places.map(pair).to_vec()), expected, "{places:?}");
        }
    }

    #[test]
    fn a_library_is_linked_as_the_outer_build_is() {
        let flag = Some("-Ctarget-feature=-crt-static");
        let rows = [
            ("gnu", "fxsr,sse,sse2", None),
            ("gnu", "crt-static,fxsr", None),
            ("musl", "crt-static,fxsr", None),
            ("musl", "fxsr,sse", flag),
            ("musl", "", flag),
        ];
        for (env, features, expected) in rows {
            assert_eq!(linking(env, features), expected, "{env} {features}");
        }
    }
}
