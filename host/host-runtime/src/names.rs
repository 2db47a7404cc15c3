//! Names from outside as components of state file names.

/// One path component: what a thing name may hold stays readable, every other byte becomes `.` and two hex digits. So
/// different names give different components, and none is empty, `.` or `..`, or has a slash.
pub(crate) fn component(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    push_component(&mut text, name);
    text
}

/// The same, behind what is there.
fn push_component(text: &mut String, name: &str) {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':');
    if name.is_empty() {
        text.push_str("._");
    } else if name.bytes().all(stays) {
        // As most are.
        text.push_str(name);
    } else {
        for byte in name.bytes() {
            if stays(byte) {
                text.push(char::from(byte));
            } else {
                text.push('.');
                text.push_str(&host_crypto::hex(&[byte]));
            }
        }
    }
}

/// A file name: a folder, components below it, and a leaf. Whoever stores or appends makes one each time.
pub(crate) fn path(folder: &str, components: &[&str], leaf: &str) -> String {
    let names: usize = components.iter().map(|name| name.len() + 1).sum();
    let mut text = String::with_capacity(folder.len() + names + 1 + leaf.len());
    text.push_str(folder);
    for name in components {
        text.push('/');
        push_component(&mut text, name);
    }
    text.push('/');
    text.push_str(leaf);
    text
}

/// The name of a device's file in the state directory: `devices/<device>/<leaf>`.
pub(crate) fn state_name(device: &str, leaf: &str) -> String {
    path("devices", &[device], leaf)
}

#[cfg(test)]
mod tests {
    use super::{component, state_name};

    #[test]
    fn every_name_is_one_component_of_its_own() {
        let rows = [
            ("gateway-7", "gateway-7"),
            ("a:b_C", "a:b_C"),
            ("../x", ".2e.2e.2fx"),
            (".", ".2e"),
            ("", "._"),
            ("ü", ".c3.bc"),
        ];
        for (name, wanted) in rows {
            assert_eq!(component(name), wanted, "{name:?}");
            assert_eq!(
                state_name(name, "journal"),
                format!("devices/{wanted}/journal")
            );
        }
    }
}
