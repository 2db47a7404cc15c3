//! What only the kernel's own calls tell of a terminal. No library has safe words for these three.

use std::fs::File;
use std::path::Path;

use rustix::ioctl::{Getter, Updater, ioctl};

/// `TIOCOUTQ`: bytes in the driver's output buffer.
const OUTPUT_QUEUE: rustix::ioctl::Opcode = 0x5411;
/// `TIOCGSERIAL` and `TIOCSSERIAL`.
const GET_SERIAL: rustix::ioctl::Opcode = 0x541e;
const SET_SERIAL: rustix::ioctl::Opcode = 0x541f;

/// Whether this machine numbers its calls as asm-generic does; elsewhere they are not tried.
const NUMBERS_ARE_GENERIC: bool = cfg!(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "riscv64",
));

/// `struct serial_struct` has 60 bytes on 32-bit machines and 72 on 64-bit ones; this has room for either.
type SerialStruct = [i32; 32];
/// Its fifth member, after type, line, port and irq.
const FLAGS: usize = 4;
/// `ASYNC_LOW_LATENCY`, bit 13.
const LOW_LATENCY: i32 = 1 << 13;

/// Bytes that the driver has not sent yet; 0 where it does not tell.
pub(super) fn unsent(tty: &File) -> u32 {
    if !NUMBERS_ARE_GENERIC {
        return 0;
    }
    #[expect(unsafe_code, reason = "no safe wrapper exists")]
    // SAFETY: TIOCOUTQ writes one int through its argument, which is what `Getter` hands it.
    let count = unsafe { ioctl(tty, Getter::<OUTPUT_QUEUE, i32>::new()) };
    count.ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// Asks the driver to hand each byte on at once. Pseudo terminals and most on-chip ports need no asking and refuse.
pub(super) fn ask_for_low_latency(tty: &File, path: &Path) {
    if NUMBERS_ARE_GENERIC && set_flag(tty).is_err() {
        tracing::debug!(line = %path.display(), "the driver has no low latency flag");
    }
    // An FTDI adapter's own timer, in ms, where the kernel lets this user set it.
    if let Some(name) = path
        .canonicalize()
        .ok()
        .as_deref()
        .and_then(Path::file_name)
    {
        let timer = Path::new("/sys/class/tty")
            .join(name)
            .join("device/latency_timer");
        if timer.exists()
            && let Err(e) = std::fs::write(&timer, "1")
        {
            tracing::debug!("{}: {e}", timer.display());
        }
    }
}

fn set_flag(tty: &File) -> rustix::io::Result<()> {
    let mut serial: SerialStruct = [0; 32];
    #[expect(unsafe_code, reason = "no safe wrapper exists")]
    // SAFETY: the kernel writes a `serial_struct`, at most 72 bytes, into 128 that are ours.
    unsafe {
        ioctl(tty, Updater::<GET_SERIAL, SerialStruct>::new(&mut serial))?;
    }
    if serial[FLAGS] & LOW_LATENCY != 0 {
        return Ok(());
    }
    serial[FLAGS] |= LOW_LATENCY;
    #[expect(unsafe_code, reason = "no safe wrapper exists")]
    // SAFETY: the kernel reads a `serial_struct` from our bytes, which it has just filled.
    unsafe {
        ioctl(tty, Updater::<SET_SERIAL, SerialStruct>::new(&mut serial))
    }
}
