//! Drops the custom sections of a component: names for debuggers and the list of tools it was made with, 3 KB that
//! nobody runs. The contract is in the types of imports and exports, not in them.

/// Magic number, version and layer.
const PREAMBLE_BYTES: usize = 8;
/// Section numbers that mean the same in modules and components.
const CUSTOM: u8 = 0;
/// In a component: a module, and another component.
const NESTED: [u8; 2] = [1, 4];

/// The component, or the module, without custom sections in itself and in what it contains.
pub(crate) fn without_custom(binary: &[u8]) -> Result<Vec<u8>, String> {
    let Some((preamble, mut rest)) = binary.split_at_checked(PREAMBLE_BYTES) else {
        return Err("it has no preamble".to_owned());
    };
    // The layer is the upper half of the version.
    let is_component = preamble[6..] != [0, 0];
    let mut out = preamble.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let (body, after) = body(after).ok_or("a section is cut short")?;
        rest = after;
        if id == CUSTOM {
            continue;
        }
        out.push(id);
        if is_component && NESTED.contains(&id) {
            push_body(&mut out, &without_custom(body)?);
        } else {
            push_body(&mut out, body);
        }
    }
    Ok(out)
}

/// A section's bytes and what follows it, after its length: an unsigned LEB128 number of at most 32 bits.
fn body(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes[at + 1..].split_at_checked(length);
        }
    }
    None
}

fn push_body(out: &mut Vec<u8>, body: &[u8]) {
    let mut length = body.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::without_custom;

    const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
    const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

    #[test]
    fn custom_sections_go_at_every_depth_and_all_others_stay() {
        let custom = [&[0, 3, 1][..], b"nx"].concat();
        let inner = [&MODULE[..], &custom, &[1, 1, 0], &custom].concat();
        let bare = [&MODULE[..], &[1, 1, 0]].concat();
        assert_eq!(without_custom(&inner), Ok(bare.clone()));
        let nest = |module: &[u8]| [&[1, module.len() as u8][..], module].concat();
        let component = [&COMPONENT[..], &custom, &nest(&inner), &[7, 2, 0, 0]].concat();
        let expected = [&COMPONENT[..], &nest(&bare), &[7, 2, 0, 0]].concat();
        assert_eq!(without_custom(&component), Ok(expected));
    }

    #[test]
    fn a_long_section_keeps_its_length() {
        let long = [&MODULE[..], &[10, 0xac, 0x02], &[7; 300]].concat();
        assert_eq!(without_custom(&long), Ok(long));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let module = [&MODULE[..], &[1, 3, 0, 0, 0]].concat();
        for length in [0, 7, 9, 10, 12] {
            assert!(without_custom(&module[..length]).is_err(), "{length}");
        }
        let endless = [&MODULE[..], &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0]].concat();
        assert!(without_custom(&endless).is_err());
    }
}
