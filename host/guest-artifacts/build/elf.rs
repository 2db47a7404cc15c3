//! Reads for which machine a ready-made library is.

/// What the architectures of the compiler are called in a library.
const MACHINES: [(&str, u16); 9] = [
    ("aarch64", 183),
    ("arm", 40),
    ("loongarch64", 258),
    ("powerpc64", 21),
    ("riscv32", 243),
    ("riscv64", 243),
    ("s390x", 22),
    ("x86", 3),
    ("x86_64", 62),
];

/// What e_type says of a shared library.
const SHARED_LIBRARY: u16 = 3;

/// Whether this is a shared library for that architecture, with addresses of so many bits. Of an architecture that is not
/// in the list nobody can say, so any machine passes.
pub(crate) fn is_library(bytes: &[u8], arch: &str, address_bits: &str) -> bool {
    // e_ident: the magic, the class, the order of bytes; then, behind its 16 bytes, e_type and e_machine.
    let Some(&[0x7f, b'E', b'L', b'F', class, order, .., t0, t1, m0, m1]) =
        bytes.first_chunk::<20>()
    else {
        return false;
    };
    let number = match order {
        1 => u16::from_le_bytes,
        2 => u16::from_be_bytes,
        _ => return false,
    };
    let known = MACHINES.iter().find(|(name, _)| *name == arch);
    let address_bits_found = match class {
        1 => "32",
        2 => "64",
        _ => return false,
    };
    number([t0, t1]) == SHARED_LIBRARY
        && address_bits_found == address_bits
        && known.is_none_or(|(_, machine)| number([m0, m1]) == *machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_for_one_kind_of_machine() {
        let header = |class, order, rest: [u8; 4]| {
            let mut bytes = b"\x7fELF".to_vec();
            bytes.extend([class, order]);
            bytes.extend([0; 10]);
            bytes.extend(rest);
            bytes
        };
        let x86_64 = header(2, 1, [3, 0, 62, 0]);
        let rows = [
            ("x86_64", "64", x86_64.clone(), true),
            ("aarch64", "64", x86_64.clone(), false),
            ("x86_64", "32", x86_64.clone(), false),
            ("another", "64", x86_64.clone(), true),
            ("another", "32", x86_64.clone(), false),
            ("aarch64", "64", header(2, 1, [3, 0, 183, 0]), true),
            ("arm", "32", header(1, 1, [3, 0, 40, 0]), true),
            ("s390x", "64", header(2, 2, [0, 3, 0, 22]), true),
            ("s390x", "64", header(2, 1, [0, 3, 0, 22]), false),
            // A program.
            ("x86_64", "64", header(2, 1, [2, 0, 62, 0]), false),
            ("x86_64", "64", header(2, 3, [3, 0, 62, 0]), false),
            ("x86_64", "64", header(3, 1, [3, 0, 62, 0]), false),
            ("x86_64", "64", x86_64[..19].to_vec(), false),
            ("x86_64", "64", b"!<arch>\n".repeat(3), false),
        ];
        for (arch, address_bits, bytes, expected) in rows {
            let found = is_library(&bytes, arch, address_bits);
            assert_eq!(found, expected, "{arch} {address_bits} {bytes:?}");
        }
    }
}
