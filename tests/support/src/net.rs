//! Loopback ports, and whom a process is connected to.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use crate::Error;

/// Loopback, and any free port: what a server that can tell its port should bind.
pub const ANY_PORT: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A listener on a free loopback port.
///
/// # Errors
/// No port is free.
pub fn listen() -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(ANY_PORT).map_err(Error::io("binding a loopback port"))?;
    let addr = listener
        .local_addr()
        .map_err(Error::io("asking for the bound port"))?;
    Ok((listener, addr))
}

/// A port that was free a moment ago, for programs that cannot choose one by themselves. Somebody else may take it
/// first: whoever uses it starts the program again with another one.
///
/// # Errors
/// No port is free.
pub fn free_port() -> Result<u16, Error> {
    Ok(listen()?.1.port())
}

/// State of a socket that listens, in `/proc/PID/net/tcp` (`TCP_LISTEN` of `include/net/tcp_states.h`).
const LISTENS: &str = "0A";

/// The far ends of all TCP sockets that a process has open, in whatever state they are; those that listen have none.
///
/// # Errors
/// It does not live, or the kernel tells something else than it does today.
pub fn peers(process: u32) -> Result<BTreeSet<SocketAddr>, Error> {
    let folder = format!("/proc/{process}");
    let folder = Path::new(&folder);
    let sockets = sockets(folder)?;
    let mut peers = BTreeSet::new();
    for name in ["net/tcp", "net/tcp6"] {
        let path = folder.join(name);
        let told = fs::read_to_string(&path);
        let told = told.map_err(Error::io(format!("reading {}", path.display())))?;
        for line in told.lines().skip(1) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let &[_, _, far, state, _, _, _, _, _, socket, ..] = &cells[..] else {
                return Err(strange(&path));
            };
            if state != LISTENS && sockets.contains(socket) {
                peers.insert(address(far).ok_or_else(|| strange(&path))?);
            }
        }
    }
    Ok(peers)
}

/// The numbers of a process's sockets.
fn sockets(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let folder = folder.join("fd");
    let listed = || Error::io(format!("listing {}", folder.display()));
    let mut sockets = BTreeSet::new();
    for entry in fs::read_dir(&folder).map_err(listed())? {
        // One that was closed meanwhile is none.
        let Ok(link) = fs::read_link(entry.map_err(listed())?.path()) else {
            continue;
        };
        let number = link.to_str().and_then(|link| link.strip_prefix("socket:["));
        sockets.extend(number.map(|number| number.trim_end_matches(']').to_owned()));
    }
    Ok(sockets)
}

/// `0100007F:1F90`: words of 32 bits as this machine has them in memory, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

fn strange(path: &Path) -> Error {
    Error::io(format!("reading {}", path.display()))(std::io::Error::other(
        "it is in no form that is known",
    ))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_far_ends_of_this_process_are_those_that_it_connected_to() {
        let (listener, addr) = listen().unwrap();
        assert!(
            !peers(std::process::id()).unwrap().contains(&addr),
            "it only listens"
        );
        let near = TcpStream::connect(addr).unwrap();
        let (_far, from) = listener.accept().unwrap();
        let found = peers(std::process::id()).unwrap();
        assert!(found.contains(&addr) && found.contains(&from), "{found:?}");
        assert_eq!(near.local_addr().unwrap(), from);
        assert_eq!(
            address("0000000000000000FFFF00000100007F:1F90"),
            Some("127.0.0.1:8080".parse().unwrap())
        );
    }
}
