//! The proxy between two sockets of this process.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A client and the server's end of its connection.
fn joined(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let before = proxy.accepted();
    let client = TcpStream::connect(proxy.addr()).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert!(proxy.wait_accepted(before + 1, LONG));
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    (client, server)
}

fn received(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_go_both_ways_and_are_counted() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    client.write_all(b"hello").unwrap();
    assert_eq!(received(&mut server, 5), b"hello");
    server.write_all(b"you").unwrap();
    assert_eq!(received(&mut client, 3), b"you");
    assert!(proxy.wait_forwarded(Direction::Up, 5, LONG));
    assert!(proxy.wait_forwarded(Direction::Down, 3, LONG));
    assert_eq!((proxy.accepted(), proxy.live()), (1, 1));
}

#[test]
fn a_delay_holds_bytes_back_and_keeps_their_order() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    let delay = Duration::from_millis(40);
    proxy.set_delay(delay);
    let begin = crate::deadline::now();
    client.write_all(b"slow").unwrap();
    assert_eq!(received(&mut server, 4), b"slow");
    assert!(crate::deadline::now() - begin >= delay);
}

#[test]
fn a_rate_bounds_how_fast_bytes_come() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    proxy.set_rate(Some(1_000_000));
    let begin = crate::deadline::now();
    client.write_all(&[1; 50_000]).unwrap();
    assert_eq!(received(&mut server, 50_000), [1; 50_000]);
    assert!(crate::deadline::now() - begin >= Duration::from_millis(50));
}

#[test]
fn a_stall_holds_everything_until_it_is_resumed() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    proxy.stall();
    client.write_all(b"x").unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    assert!(server.read(&mut [0]).is_err());
    proxy.resume();
    server.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(received(&mut server, 1), b"x");
}

#[test]
fn a_cut_ends_both_sides_and_new_connections_work() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    assert_eq!(proxy.cut(), 1);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(server.read(&mut [0]).unwrap_or(0), 0);
    let (mut client, mut server) = joined(&proxy, &listener);
    client.write_all(b"again").unwrap();
    assert_eq!(received(&mut server, 5), b"again");
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_cut_after_so_many_bytes_happens_once() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    proxy.cut_after(Direction::Up, 3);
    client.write_all(b"abc").unwrap();
    assert_eq!(received(&mut server, 3), b"abc");
    assert_eq!(server.read(&mut [0]).unwrap_or(0), 0);
    let (mut client, mut server) = joined(&proxy, &listener);
    client.write_all(b"defg").unwrap();
    assert_eq!(received(&mut server, 4), b"defg");
}

#[test]
fn a_refused_client_sees_its_connection_close() {
    let (_listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    proxy.refuse(true);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(proxy.accepted(), 0);
}

#[test]
fn a_filter_drops_and_repeats_whole_messages() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start_filtered(upstream, |direction, packet| {
        match (direction, packet.message()) {
            (Direction::Up, Some((_, b"lost"))) => Verdict::Drop,
            (Direction::Up, Some((_, b"two"))) => Verdict::Repeat,
            _ => Verdict::Pass,
        }
    })
    .unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    let message = |payload: &[u8]| [&[0x30, 3 + payload.len() as u8, 0, 1, b't'], payload].concat();
    let sent = [
        message(b"one"),
        message(b"lost"),
        message(b"two"),
        message(b"end"),
    ]
    .concat();
    client.write_all(&sent).unwrap();
    let expected = [
        message(b"one"),
        message(b"two"),
        message(b"two"),
        message(b"end"),
    ]
    .concat();
    assert_eq!(received(&mut server, expected.len()), expected);
}
