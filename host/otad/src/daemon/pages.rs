//! Pages of the program that only its start has used, given back to the kernel.
//!
//! Reading a configuration, loading components and setting up devices run through some 12 MB of code once. The kernel counts
//! such pages as the process's until memory is short, and a gateway's operator does too. What is used again comes back from
//! the kernel's cache of the file, 64 KiB at a time.

use std::ffi::c_void;
use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// Give them back. For after a piece of work that is done once; what goes wrong costs nothing but the memory.
pub(super) fn give_back() {
    if let Err(error) = try_give_back() {
        tracing::debug!("pages of the program stay in memory: {error}");
    }
}

fn try_give_back() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let here = give_back as fn() as usize;
    let mut code = maps.lines().filter_map(Code::parse);
    let Some(code) = code.find(|code| code.holds(here)) else {
        return Err(io::Error::other("the program's code is in no mapping"));
    };
    #[expect(unsafe_code, reason = "advice that takes pages away")]
    // SAFETY: the range is one mapping of a file, private and never writable, so nothing but the file's bytes can be in it;
    // whoever reads or runs it next, in any thread, finds the same ones again.
    unsafe {
        madvise(
            code.begin as *mut c_void,
            code.end - code.begin,
            Advice::LinuxDontNeed,
        )?;
    }
    Ok(())
}

/// A mapping of a file's code.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    begin: usize,
    end: usize,
}

impl Code {
    /// Of a line of `/proc/PID/maps` (proc(5)): `begin-end permissions offset device inode path`; none for any that could
    /// hold other bytes than its file.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let inode = fields.nth(2)?;
        if permissions != "r-xp" || inode == "0" {
            return None;
        }
        Some(Self {
            begin: usize::from_str_radix(begin, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
        })
    }

    fn holds(&self, address: usize) -> bool {
        (self.begin..self.end).contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_code_of_a_file_is_given_back() {
        let code = "55d0c0a00000-55d0c1e00000 r-xp 00a00000 fe:00 1234  /usr/bin/otad";
        let range = Code {
            begin: 0x55d0_c0a0_0000,
            end: 0x55d0_c1e0_0000,
        };
        assert_eq!(Code::parse(code), Some(range));
        for other in [
            "55d0c0a00000-55d0c1e00000 r--p 00a00000 fe:00 1234  /usr/bin/otad",
            "55d0c0a00000-55d0c1e00000 rw-p 00a00000 fe:00 1234  /usr/bin/otad",
            "55d0c0a00000-55d0c1e00000 r-xs 00a00000 fe:00 1234  /usr/bin/otad",
            "7f5e4c000000-7f5e4c021000 r-xp 00000000 00:00 0",
            "7ffd1b9f0000-7ffd1b9f2000 r-xp 00000000 00:00 0     [vdso]",
            "",
        ] {
            assert_eq!(Code::parse(other), None, "{other}");
        }
    }

    /// KiB of this program's code that count as this process's.
    fn resident_kib() -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let here = give_back as fn() as usize;
        let mut lines = smaps.lines();
        lines
            .find(|line| Code::parse(line).is_some_and(|code| code.holds(here)))
            .expect("the mapping");
        let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
        let number = line.split_ascii_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }

    #[test]
    fn the_program_runs_on_without_the_pages_that_it_gave_back() {
        let text = format!("{:?}", parsed());
        let before = resident_kib();
        try_give_back().unwrap();
        let after = resident_kib();
        assert!(after < before, "{before} KiB, then {after} KiB");
        assert_eq!(format!("{:?}", parsed()), text);
    }

    /// Some code that is used before and after.
    fn parsed() -> Vec<Option<Code>> {
        ["1-2 r-xp 0 0:0 1", "2-1"].map(Code::parse).into()
    }
}
