//! Groups of this machine: the id of a name, and whether a process belongs to one.
//!
//! Reads `/etc/group` and `/proc`; groups of directory services are named by their number.

use std::fs;

/// The id of a group by its name or number.
#[must_use]
pub fn id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let text = fs::read_to_string("/etc/group").ok()?;
    find(&text, name)
}

/// `name:password:id:members` a line.
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Whether process `pid` has `group` among its supplementary groups.
#[must_use]
pub fn has_member(group: u32, pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| lists(&text, group))
}

fn lists(status: &str, group: u32) -> bool {
    let group = group.to_string();
    status
        .lines()
        .filter_map(|line| line.strip_prefix("Groups:"))
        .any(|groups| groups.split_whitespace().any(|g| g == group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_name_or_number() {
        let text = "root:x:0:\nbroken\notad:x:991:alice,bob\nnoid:x::\n";
        assert_eq!(find(text, "otad"), Some(991));
        assert_eq!(find(text, "noid"), None);
        assert_eq!(find(text, "alice"), None);
        assert_eq!(id("1234"), Some(1234));
    }

    #[test]
    fn supplementary_groups_are_read_from_the_status() {
        let status = "Name:\tx\nGid:\t7\t7\t7\t7\nGroups:\t4 24 991 \n";
        assert!(lists(status, 991));
        assert!(!lists(status, 99));
        assert!(!lists(status, 7));
    }
}
