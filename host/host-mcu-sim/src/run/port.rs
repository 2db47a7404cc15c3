//! The two things a simulated MCU hangs on: a pseudo terminal and a TCP listener. Pulling the plug closes them for the
//! client as a real adapter goes away; nothing here knows what the bytes mean.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serial2::SerialPort;

use super::Port;
use crate::Error;

/// An open port.
#[derive(Debug)]
pub(super) enum Place {
    Terminal(Terminal),
    Network(Network),
}

impl Place {
    pub(super) fn open(port: &Port) -> Result<Self, Error> {
        match port {
            Port::Pty { link } => Terminal::open(link.as_deref()).map(Self::Terminal),
            Port::Tcp(address) => Network::open(*address).map(Self::Network),
        }
    }

    pub(super) fn address(&self) -> &str {
        match self {
            Self::Terminal(terminal) => &terminal.address,
            Self::Network(network) => &network.address,
        }
    }

    pub(super) const fn is_plugged(&self) -> bool {
        match self {
            Self::Terminal(terminal) => terminal.pair.is_some(),
            Self::Network(network) => network.is_plugged,
        }
    }

    pub(super) fn set_plugged(&mut self, plugged: bool) {
        if plugged == self.is_plugged() {
            return;
        }
        match self {
            Self::Terminal(terminal) => terminal.set_plugged(plugged),
            Self::Network(network) => {
                network.is_plugged = plugged;
                network.client = None;
            }
        }
    }

    /// What to wait for.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Terminal(terminal) => terminal.pair.as_ref().map(|pair| pair.master.as_fd()),
            Self::Network(network) => Some(
                network
                    .client
                    .as_ref()
                    .map_or_else(|| network.listener.as_fd(), TcpStream::as_fd),
            ),
        }
    }

    /// Takes what is there, without waiting; none if there is nothing.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self {
            Self::Terminal(terminal) => {
                let pair = terminal.pair.as_mut()?;
                pair.master.read(buffer).ok().filter(|count| *count > 0)
            }
            Self::Network(network) => network.read(buffer),
        }
    }

    /// Sends as much as fits; the rest is lost, as on a line that nobody reads.
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = match self {
                Self::Terminal(terminal) => match &mut terminal.pair {
                    Some(pair) => pair.master.write(bytes),
                    None => return,
                },
                Self::Network(network) => match &mut network.client {
                    Some(client) => client.write(bytes),
                    None => return,
                },
            };
            match written {
                Ok(count) if count > 0 => bytes = &bytes[count..],
                _ => return,
            }
        }
    }
}

/// A pseudo terminal. The side of the client is kept open too, so that one client may leave and another come.
#[derive(Debug)]
pub(super) struct Terminal {
    pair: Option<Pair>,
    link: Option<PathBuf>,
    address: String,
}

#[derive(Debug)]
struct Pair {
    master: File,
    _client: OwnedFd,
}

impl Terminal {
    fn open(link: Option<&Path>) -> Result<Self, Error> {
        let mut terminal = Self {
            pair: None,
            link: link.map(Path::to_owned),
            address: String::new(),
        };
        let path = terminal.plug().map_err(|source| Error::Port {
            name: link.map_or_else(|| "pty".to_owned(), |link| link.display().to_string()),
            source,
        })?;
        terminal.address = link.unwrap_or(&path).display().to_string();
        Ok(terminal)
    }

    fn set_plugged(&mut self, plugged: bool) {
        if !plugged {
            self.pair = None;
            self.remove_link();
        } else if let Err(error) = self.plug() {
            tracing::error!(%error, address = self.address, "cannot be plugged in again");
        }
    }

    fn plug(&mut self) -> std::io::Result<PathBuf> {
        let (master, client) = SerialPort::pair()?;
        let client = OwnedFd::from(client);
        // The kernel's own name of it; there is no call for it without unsafe code.
        let path = std::fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd()))?;
        let master = OwnedFd::from(master);
        let mut settings = tcgetattr(&client)?;
        settings.make_raw();
        tcsetattr(&client, OptionalActions::Now, &settings)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(link) = &self.link {
            make_link(&path, link)?;
        }
        self.pair = Some(Pair {
            master: File::from(master),
            _client: client,
        });
        Ok(path)
    }

    fn remove_link(&self) {
        if let Some(link) = &self.link
            && link.is_symlink()
        {
            // A link that is gone is what was wanted.
            std::fs::remove_file(link).ok();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.remove_link();
    }
}

/// Makes the link, in place of an older link, never of a file.
fn make_link(path: &Path, link: &Path) -> std::io::Result<()> {
    if link.is_symlink() {
        std::fs::remove_file(link)?;
    }
    std::os::unix::fs::symlink(path, link)
}

/// A listener with at most one client.
#[derive(Debug)]
pub(super) struct Network {
    listener: TcpListener,
    client: Option<TcpStream>,
    is_plugged: bool,
    address: String,
}

impl Network {
    fn open(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Port {
            name: address.to_string(),
            source,
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        Ok(Self {
            listener,
            client: None,
            is_plugged: true,
            address,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let Some(client) = &mut self.client else {
            self.accept();
            return None;
        };
        match client.read(buffer) {
            Ok(count) if count > 0 => Some(count),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            _ => {
                self.client = None;
                None
            }
        }
    }

    fn accept(&mut self) {
        let Ok((client, _)) = self.listener.accept() else {
            return;
        };
        // While the plug is pulled a client finds nobody.
        if self.is_plugged && client.set_nonblocking(true).is_ok() {
            // Answers are small and wanted at once.
            client.set_nodelay(true).ok();
            self.client = Some(client);
        }
    }
}
