//! TCP to the broker: its name's addresses in turn, each with its share of the time.

use std::{io, net::SocketAddr, time::Duration};

use rumqttc::{NetworkOptions, default_socket_connect};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::BrokerUrl;

/// Name and TCP. 5 s of the link's 20 s are left to TLS, CONNACK and SUBACK, so that what is wrong here is told by name.
const DIAL_TIME: Duration = Duration::from_secs(15);

/// Connects; what has no TLS does not leave this machine, whatever a name resolves to.
pub(super) async fn dial(
    url: BrokerUrl,
    loopback_only: bool,
    network: NetworkOptions,
) -> io::Result<TcpStream> {
    let until = Instant::now() + DIAL_TIME;
    let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await?;
    let (allowed, elsewhere): (Vec<_>, Vec<_>) =
        found.partition(|address| !loopback_only || address.ip().is_loopback());
    if let ([], [address, ..]) = (&allowed[..], &elsewhere[..]) {
        let text = format!("{} is another machine, and there is no TLS", address.ip());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    connect_in_turn(&allowed, until, &network).await
}

/// Connects to the first address that answers. Each has an equal share of the time that is left when its turn comes: one
/// that swallows everything must not use up the others' time.
///
/// # Errors
/// The last address's, with that address; or there is none.
async fn connect_in_turn(
    addresses: &[SocketAddr],
    until: Instant,
    network: &NetworkOptions,
) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // A name with more addresses than that has no time for any of them.
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for (address, left) in addresses.iter().zip((1..=count).rev()) {
        let share = until.saturating_duration_since(Instant::now()) / left;
        let connect = default_socket_connect(address.to_string(), network.clone());
        last = match timeout(share, connect).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => io::Error::new(
                error.kind(),
                format!("cannot connect to {address}: {error}"),
            ),
            Err(_) => {
                let seconds = share.as_secs_f32();
                let text = format!("{address} did not answer within {seconds:.1} s");
                io::Error::new(io::ErrorKind::TimedOut, text)
            }
        };
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// An address that swallows whoever comes, as long as what comes with it lives: nobody accepts, and all places are
    /// taken.
    fn swallower() -> (SocketAddr, impl Sized) {
        const PLACES: u32 = 1;
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(ANY).unwrap();
        let listener = socket.listen(PLACES).unwrap();
        let address = listener.local_addr().unwrap();
        // Linux lets in one more than was asked for.
        let waiting = (0..=PLACES).map(|_| std::net::TcpStream::connect(address).unwrap());
        let waiting: Vec<_> = waiting.collect();
        (address, (listener, waiting))
    }

    async fn connect(addresses: &[SocketAddr], seconds: u64) -> io::Result<TcpStream> {
        let until = Instant::now() + Duration::from_secs(seconds);
        connect_in_turn(addresses, until, &NetworkOptions::new()).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_everything_leaves_the_next_one_its_time() {
        let (black_hole, _guard) = swallower();
        let good = TcpListener::bind(ANY).await.unwrap();
        let good = good.local_addr().unwrap();
        let began = Instant::now();
        let stream = connect(&[black_hole, black_hole, good], 15).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_is_named_with_the_time_it_was_given() {
        let (black_hole, _guard) = swallower();
        let error = connect(&[black_hole, black_hole], 15).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let want = format!("{black_hole} did not answer within 7.5 s");
        assert_eq!(error.to_string(), want);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_named_and_the_next_one_is_tried() {
        let gone = TcpListener::bind(ANY).await.unwrap();
        let refuses = gone.local_addr().unwrap();
        drop(gone);
        let error = connect(&[refuses], 15).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&refuses.to_string()), "{error}");
        let good = TcpListener::bind(ANY).await.unwrap();
        let good = good.local_addr().unwrap();
        let stream = connect(&[refuses, good], 15).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn what_has_no_tls_does_not_leave_this_machine() {
        // 0.0.0.0 leads to this machine, but its name does not say so.
        let url: BrokerUrl = "mqtt://0.0.0.0:1883".parse().unwrap();
        let error = dial(url, true, NetworkOptions::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("no TLS"), "{error}");
    }
}
