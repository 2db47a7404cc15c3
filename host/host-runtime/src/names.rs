//! Names from outside as components of state file names.

/// One path component: what a thing name may hold stays readable, every other byte becomes `.` and two hex digits. So
/// different names give different components, and none is empty, `.` or `..`, or has a slash.
pub(crate) fn component(name: &str) -> String {
    if name.is_empty() {
        return "._".to_owned();
    }
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':') {
            text.push(char::from(byte));
        } else {
            text.push('.');
            text.push_str(&host_crypto::hex(&[byte]));
        }
    }
    text
}

/// The name of a device's file in the state directory: `devices/<device>/<leaf>`.
pub(crate) fn state_name(device: &str, leaf: &str) -> String {
    format!("devices/{}/{leaf}", component(device))
}

#[cfg(test)]
mod tests {
    use super::component;

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
        }
    }
}
