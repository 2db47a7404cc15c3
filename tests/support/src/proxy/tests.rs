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

#[test]
fn a_forgotten_connection_stays_open_and_moves_nothing_and_a_new_one_works() {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    client.write_all(b"a").unwrap();
    assert_eq!(received(&mut server, 1), b"a");
    assert_eq!(proxy.half_open(), 1);
    assert_eq!(proxy.half_open(), 0);
    client.write_all(b"b").unwrap();
    server.write_all(b"c").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    for stream in [&mut client, &mut server] {
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        assert!(stream.read(&mut [0]).is_err(), "neither bytes nor the end");
    }
    let (mut other, mut other_server) = joined(&proxy, &listener);
    other.write_all(b"new").unwrap();
    assert_eq!(received(&mut other_server, 3), b"new");
    assert_eq!(proxy.cut(), 2);
    client.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}

/// Sends so many bytes over as many connections at once and returns the rate that the proxy saw.
fn measured_rate(bytes: usize, connections: usize, bytes_per_s: u64) -> f64 {
    let (listener, upstream) = net::listen().unwrap();
    let proxy = Proxy::start(upstream).unwrap();
    proxy.set_rate(Some(bytes_per_s));
    let share = bytes / connections;
    let threads: Vec<_> = (0..connections)
        .flat_map(|_| {
            let (mut client, mut server) = joined(&proxy, &listener);
            let sending = thread::spawn(move || server.write_all(&vec![3; share]).unwrap());
            let receiving = thread::spawn(move || drop(received(&mut client, share)));
            [sending, receiving]
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(proxy.wait_forwarded(Direction::Down, (share * connections) as u64, LONG));
    proxy.flow(Direction::Down).bytes_per_s().unwrap()
}

#[test]
fn a_second_of_a_link_carries_its_rate_within_two_per_cent() {
    const RATE: u64 = 12_500_000;
    // Never faster. Slower only where the machine was busy, which it is not five times in a row.
    let mut measured = Vec::new();
    while measured.len() < 5 && measured.last().is_none_or(|share| *share < 0.98) {
        measured.push(measured_rate(RATE as usize, 2, RATE) / RATE as f64);
    }
    assert!(measured.iter().all(|share| *share < 1.02), "{measured:?}");
    assert!(
        measured.last().is_some_and(|share| *share >= 0.98),
        "{measured:?}"
    );
}

#[test]
fn a_cut_range_response_ends_in_its_body_and_others_do_not() {
    let (listener, upstream) = net::listen().unwrap();
    let loss = Loss::new(1000, 1);
    let proxy = Proxy::start_cutting(upstream, &loss).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    let other = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let range = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 100\r\n\r\n";
    server.write_all(other).unwrap();
    assert_eq!(received(&mut client, other.len()), other);
    server.write_all(range).unwrap();
    server.write_all(&[9; 100]).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(range) && rest.len() < range.len() + 100);
    assert_eq!((loss.judged(), loss.lost()), (1, 1));
}

#[test]
fn lost_messages_are_those_of_the_chosen_topics() {
    let (listener, upstream) = net::listen().unwrap();
    let loss = Loss::new(1000, 1);
    let proxy =
        Proxy::start_filtered(upstream, loss.of_topics(|topic| topic.starts_with('d'))).unwrap();
    let (mut client, mut server) = joined(&proxy, &listener);
    let message = |topic: u8| [0x30, 4, 0, 1, topic, b'x'];
    server
        .write_all(&[message(b'a'), message(b'd'), message(b'b')].concat())
        .unwrap();
    let expected = [message(b'a'), message(b'b')].concat();
    assert_eq!(received(&mut client, expected.len()), expected);
    assert_eq!((loss.judged(), loss.lost()), (1, 1));
}
