//! Words to the service manager: systemd's notification protocol, a datagram of `KEY=value` lines.
//!
//! ```text
//! READY=1, STATUS=…, WATCHDOG=1, RELOADING=1 with MONOTONIC_USEC=…, STOPPING=1 ─▶ $NOTIFY_SOCKET
//! ```
//!
//! Without that variable there is no manager and nothing is said. A manager that does not read is not waited for longer
//! than [`SEND_MAX`]. Not here: when what is said (`watchdog.rs`, `run`).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a full queue of the manager may hold a message up; lost ones cost a status text or a reload's end in time.
const SEND_MAX: Duration = Duration::from_millis(500);

/// Most bytes of a status text: a line of a terminal or two.
const STATUS_MAX_BYTES: usize = 200;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Up, or up again after a reload.
    Ready,
    /// SIGHUP was heard.
    Reloading,
    /// The end has begun.
    Stopping,
    /// It lives.
    Watchdog,
    /// What it does.
    Status(String),
}

impl Notifier {
    /// What the environment says.
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        Self::new(
            variable("NOTIFY_SOCKET").as_deref(),
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
        )
    }

    /// `socket`: a path, or `@` and an abstract name. `pid`: whose watchdog it is, if that is said.
    fn new(socket: Option<&OsStr>, usec: Option<&OsStr>, pid: Option<&OsStr>) -> Self {
        let number = |text: Option<&OsStr>| text?.to_str()?.trim().parse::<u64>().ok();
        let others = number(pid).is_some_and(|pid| pid != u64::from(std::process::id()));
        let usec = number(usec).filter(|usec| *usec > 0 && !others);
        let manager = socket.and_then(|socket| match open(socket) {
            Ok(manager) => Some(manager),
            Err(e) => {
                tracing::warn!(
                    "NOTIFY_SOCKET {}: {e}; the service manager is not told anything",
                    socket.display()
                );
                None
            }
        });
        Self {
            watchdog: usec
                .map(Duration::from_micros)
                .filter(|_| manager.is_some()),
            manager,
        }
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.manager.is_some()
    }

    /// How long the manager waits for a sign of life.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Say it. A manager that cannot be told is no reason to end.
    pub(super) fn say(&self, word: &Word) {
        let Some((socket, address)) = &self.manager else {
            return;
        };
        if let Err(e) = socket.send_to_addr(text(word).as_bytes(), address) {
            tracing::debug!("service manager: {word:?} was not taken: {e}");
        }
    }
}

fn open(socket: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(OsString::from(socket))?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a path from the root nor `@` and a name",
            ));
        }
    };
    let own = UnixDatagram::unbound()?;
    own.set_write_timeout(Some(SEND_MAX))?;
    Ok((own, address))
}

fn text(word: &Word) -> String {
    match word {
        Word::Ready => "READY=1\n".to_owned(),
        Word::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", uptime_usec()),
        Word::Stopping => "STOPPING=1\n".to_owned(),
        Word::Watchdog => "WATCHDOG=1\n".to_owned(),
        // A line end would begin another variable.
        Word::Status(text) => {
            format!(
                "STATUS={}\n",
                host_runtime::agent::clean(text, STATUS_MAX_BYTES)
            )
        }
    }
}

/// Microseconds of a clock that the manager holds against the moment at which it asked for the reload: no less than the
/// monotonic clock shows now. The kernel tells the time since the start in hundredths, cut off, and with the time that
/// the machine slept; later than it is will do, earlier would be taken for an answer to an older request.
fn uptime_usec() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    upper_usec(&text).unwrap_or(u64::MAX / 2)
}

/// `12345.67 …` as microseconds, with the next hundredth.
fn upper_usec(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let (seconds, hundredths): (u64, u64) = (seconds.parse().ok()?, hundredths.parse().ok()?);
    Some(seconds * 1_000_000 + (hundredths + 1) * 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram, socket: &OsStr) {
        manager
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let notifier = Notifier::new(Some(socket), None, None);
        assert!(notifier.is_heard());
        let rows = [
            (Word::Ready, "READY=1\n"),
            (Word::Status("a\nREADY=1".to_owned()), "STATUS=a READY=1\n"),
            (Word::Watchdog, "WATCHDOG=1\n"),
            (Word::Stopping, "STOPPING=1\n"),
        ];
        let mut bytes = [0; 512];
        let mut next = || {
            let n = manager.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..n].to_vec()).unwrap()
        };
        for (word, wanted) in rows {
            notifier.say(&word);
            assert_eq!(next(), wanted);
        }
        notifier.say(&Word::Reloading);
        let text = next();
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.trim_end().parse::<u64>().unwrap() > 0, "{text}");
    }

    #[test]
    fn a_manager_at_a_path_hears_every_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        heard(&manager, path.as_os_str());
    }

    #[test]
    fn a_manager_with_an_abstract_name_hears_every_word() {
        let name = format!("otad-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        heard(&manager, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn without_a_manager_or_with_one_that_does_not_read_nothing_is_waited_for() {
        let silent = Notifier::new(None, Some(OsStr::new("1000")), None);
        assert!(!silent.is_heard());
        assert_eq!(silent.watchdog(), None, "nobody would hear it");
        silent.say(&Word::Ready);
        for strange in ["notify", "", "/nowhere/at/all"] {
            Notifier::new(Some(OsStr::new(strange)), None, None).say(&Word::Ready);
        }
    }

    #[test]
    fn the_watchdog_is_ours_unless_it_is_said_to_be_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let own = std::process::id().to_string();
        let rows = [
            (Some("3000000"), None, Some(3)),
            (Some("3000000"), Some(own.as_str()), Some(3)),
            (Some("3000000"), Some("1"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, None, None),
        ];
        for (usec, pid, wanted) in rows {
            let notifier = Notifier::new(
                Some(path.as_os_str()),
                usec.map(OsStr::new),
                pid.map(OsStr::new),
            );
            assert_eq!(
                notifier.watchdog(),
                wanted.map(Duration::from_secs),
                "{usec:?} {pid:?}"
            );
        }
    }

    #[test]
    fn the_time_of_a_reload_is_never_before_its_request() {
        assert_eq!(upper_usec("35.25 127.18\n"), Some(35_260_000));
        assert_eq!(upper_usec("0.00 0.00"), Some(10_000));
        assert_eq!(upper_usec(""), None);
    }
}
