//! Loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

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
