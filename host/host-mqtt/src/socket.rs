//! The TCP socket below the connection: names resolved with their errors told, plaintext kept on this machine, and a
//! time-out of the kernel's for a peer that vanished.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{NetworkOptions, default_socket_connect};
use tokio::net::TcpStream;
use tokio::time::Instant;

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
    /// For the whole connection, of which name and TCP may take [three quarters](TCP_SHARE).
    pub(crate) time: Duration,
}

/// What is left is for TLS and CONNACK.
const TCP_SHARE: (u32, u32) = (3, 4);

impl Dial {
    pub(crate) async fn connect(self, options: NetworkOptions) -> io::Result<ReadAhead<TcpStream>> {
        let until = Instant::now() + self.time * TCP_SHARE.0 / TCP_SHARE.1;
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
        let stream = self.first_of(&addresses, until, &options).await?;
        let milliseconds = u32::try_from(self.unacknowledged_max.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, milliseconds)?;
        Ok(ReadAhead::new(stream))
    }

    /// The first address that answers. One that swallows all (a name has two, and IPv6 leads nowhere) leaves the others their
    /// part of the time.
    async fn first_of(
        &self,
        addresses: &[SocketAddr],
        until: Instant,
        options: &NetworkOptions,
    ) -> io::Result<TcpStream> {
        let host = &self.endpoint.host;
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
        for (n, address) in addresses.iter().enumerate() {
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
            let left = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
            let time = until.saturating_duration_since(Instant::now()) / left;
            let connected = default_socket_connect(address.to_string(), options.clone());
            let connected = tokio::time::timeout(time, connected).await;
            let error = match connected.unwrap_or_else(|_| Err(no_answer(time))) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let text = format!("cannot connect to {address}: {error}");
            last = io::Error::new(error.kind(), text);
        }
        Err(last)
    }
}

fn no_answer(time: Duration) -> io::Error {
    let text = format!("no answer within {:.1} s", time.as_secs_f64());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::config::Endpoint;

    fn dial(host: &str, port: u16, loopback_only: bool) -> Dial {
        Dial {
            endpoint: Endpoint {
                host: host.to_owned(),
                port,
            },
            loopback_only,
            unacknowledged_max: Duration::from_secs(90),
            time: Duration::from_secs(20),
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

    /// An address that swallows whoever comes, as long as what comes with it lives: nobody accepts, and no place is left.
    fn swallower() -> (SocketAddr, impl Sized) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // Linux lets in one more than was asked for.
        let waiting = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
        (address, (listener, waiting))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answers_leaves_time_for_the_next_one() {
        let (silent, _kept) = swallower();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let dial = dial("localhost", silent.port(), true);
        let options = NetworkOptions::new();
        let connect = async |addresses: &[SocketAddr]| {
            let until = Instant::now() + Duration::from_secs(15);
            dial.first_of(addresses, until, &options).await
        };
        let begun = Instant::now();
        let stream = connect(&[silent, silent, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert_eq!(begun.elapsed().as_secs(), 10);
        let error = connect(&[silent, silent]).await.unwrap_err();
        let expected = format!("cannot connect to {silent}: no answer within 7.5 s");
        assert_eq!(error.to_string(), expected);
    }
}
