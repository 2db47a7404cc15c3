//! The TCP socket below the connection: names resolved with their errors told, plaintext kept on this machine, and a
//! time-out of the kernel's for a peer that vanished.

use std::io;
use std::time::Duration;

use rumqttc::{NetworkOptions, default_socket_connect};
use tokio::net::TcpStream;

use crate::ahead::ReadAhead;
use crate::config::Endpoint;

/// What the socket must know beside rumqttc's options.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) endpoint: Endpoint,
    /// Without TLS, and not allowed to leave this machine.
    pub(crate) loopback_only: bool,
    /// Sent and not acknowledged by the peer's kernel for so long = dead. rumqttc pings only when nothing else was
    /// sent, so requests into a dead connection would keep it alive for the kernel's 15 minutes.
    pub(crate) unacknowledged_max: Duration,
}

impl Dial {
    pub(crate) async fn connect(self, options: NetworkOptions) -> io::Result<ReadAhead<TcpStream>> {
        let Endpoint { host, port } = &self.endpoint;
        let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(|e| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("cannot resolve `{host}`: {e}"),
                )
            })?
            .collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
        for address in addresses {
            if self.loopback_only && !address.ip().is_loopback() {
                last = io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "`{host}` is {}, another machine, and the connection has no TLS",
                        address.ip()
                    ),
                );
                continue;
            }
            match default_socket_connect(address.to_string(), options.clone()).await {
                Ok(stream) => {
                    let milliseconds =
                        u32::try_from(self.unacknowledged_max.as_millis()).unwrap_or(u32::MAX);
                    rustix::net::sockopt::set_tcp_user_timeout(&stream, milliseconds)?;
                    return Ok(ReadAhead::new(stream));
                }
                Err(error) => {
                    last = io::Error::new(
                        error.kind(),
                        format!("cannot connect to {address}: {error}"),
                    );
                }
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use rumqttc::NetworkOptions;
    use tokio::net::TcpListener;

    use super::Dial;
    use crate::config::Endpoint;

    fn dial(host: &str, port: u16, loopback_only: bool) -> Dial {
        Dial {
            endpoint: Endpoint {
                host: host.to_owned(),
                port,
            },
            loopback_only,
            unacknowledged_max: Duration::from_secs(90),
        }
    }

    #[tokio::test]
    async fn plaintext_does_not_leave_this_machine_whatever_a_name_resolves_to() {
        // 0.0.0.0 leads to this machine, but its name does not say so.
        let error = dial("0.0.0.0", 1883, true)
            .connect(NetworkOptions::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("no TLS"), "{error}");
    }

    #[tokio::test]
    async fn the_kernel_gives_up_a_peer_that_acknowledges_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = dial("127.0.0.1", port, true)
            .connect(NetworkOptions::new())
            .await
            .unwrap();
        let set = rustix::net::sockopt::tcp_user_timeout(stream.stream()).unwrap();
        assert_eq!(set, 90_000);
    }

    #[tokio::test]
    async fn a_port_on_which_nobody_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = dial("127.0.0.1", address.port(), true)
            .connect(NetworkOptions::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
