//! Connections: kept, shared, several at once, and never trusted to be still there.

use std::time::Duration;

use host_http::{Answer, HttpConfig, Roots};
use tokio::time::Instant;

use crate::server::*;

#[tokio::test]
async fn ranges_share_a_connection_and_say_what_they_want() {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let serving = async {
        let mut peer = server.accept().await;
        let mut heads = Vec::new();
        for _ in 0..3 {
            heads.push(peer.request().await);
            peer.send(&partial(GOOD, 4, b"4567")).await;
        }
        heads
    };
    let asking = async {
        for _ in 0..3 {
            assert_eq!(fetch(&client, &url).await, range(b"4567"));
        }
    };
    let (heads, ()) = tokio::join!(serving, asking);
    let expected = format!(
        "GET /image?key=1 HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nuser-agent: otad\r\n\
         accept-encoding: identity\r\nrange: bytes=4-7\r\n\r\n",
        server.port
    );
    assert_eq!(heads, [expected.clone(), expected.clone(), expected]);
}

#[tokio::test]
async fn a_refusal_does_not_cost_the_connection() {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let serving = async {
        let mut peer = server.accept().await;
        peer.request().await;
        peer.send(b"HTTP/1.1 403 x\r\nContent-Length: 7\r\n\r\nexpired")
            .await;
        peer.request().await;
        peer.send(&partial(GOOD, 4, b"4567")).await;
    };
    let asking = async {
        assert_eq!(fetch(&client, &url).await, Ok(Answer::Status(403)));
        assert_eq!(fetch(&client, &url).await, range(b"4567"));
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn a_kept_connection_that_has_ended_is_made_anew() {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let serving = async {
        let (mut first, _) = server.answer(&partial(GOOD, 4, b"4567")).await;
        // The next request comes, and the connection goes without an answer.
        first.request().await;
        drop(first);
        drop(server.answer(&partial(GOOD, 4, b"4567")).await);
    };
    let asking = async {
        assert_eq!(fetch(&client, &url).await, range(b"4567"));
        assert_eq!(fetch(&client, &url).await, range(b"4567"));
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn as_many_ranges_are_under_way_as_there_may_be_connections() {
    let server = Server::new().await;
    let client = client(limits(|l| l.connections_per_host_max = 3));
    let asking: Vec<_> = (0..5)
        .map(|_| {
            let (client, url) = (client.clone(), server.url());
            tokio::spawn(async move { fetch(&client, &url).await })
        })
        .collect();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = server.accept().await;
        peer.request().await;
        peers.push(peer);
    }
    // The others wait for one of the three.
    for peer in &mut peers[..2] {
        peer.send(&partial(GOOD, 4, b"4567")).await;
        peer.request().await;
    }
    for peer in &mut peers {
        peer.send(&partial(GOOD, 4, b"4567")).await;
    }
    for asked in asking {
        assert_eq!(patient("the ranges", asked).await.unwrap(), range(b"4567"));
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = Server::new().await;
    let client = client(limits(|l| {
        l.idle_connection_max = Duration::from_millis(20)
    }));
    let url = server.url();
    let serving = async {
        let (mut peer, _) = server.answer(&partial(GOOD, 4, b"4567")).await;
        peer.ended().await;
    };
    let (made, ()) = tokio::join!(fetch(&client, &url), serving);
    assert_eq!(made, range(b"4567"));
}

#[tokio::test]
async fn a_range_that_is_given_up_takes_its_connection_along() {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let asking = tokio::spawn(async move { fetch(&client, &url).await });
    let (mut peer, _) = server.answer(&partial(GOOD, 4, b"45")).await;
    asking.abort();
    peer.ended().await;
}

/// How long it takes until a second range is asked for, after an answer with this head to the first one, where nobody
/// may wait longer than `most`.
async fn rest_after(head: &str, most: Duration) -> Duration {
    let server = Server::new().await;
    let client = client(limits(|l| l.retry_after_max = most));
    let url = server.url();
    let busy = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
    let serving = async {
        let (mut peer, _) = server.answer(busy.as_bytes()).await;
        let answered = Instant::now();
        peer.request().await;
        peer.send(&partial(GOOD, 4, b"4567")).await;
        answered.elapsed()
    };
    let asking = async {
        assert!(matches!(fetch(&client, &url).await, Ok(Answer::Status(_))));
        assert_eq!(fetch(&client, &url).await, range(b"4567"));
    };
    tokio::join!(serving, asking).0
}

#[tokio::test]
async fn a_busy_server_is_left_alone_as_long_as_it_asks_for_and_no_longer_than_the_limit() {
    for head in [
        "503 x\r\nRetry-After: 3600",
        "429 x\r\nRetry-After: 18446744073709551615",
    ] {
        let most = Duration::from_millis(200);
        // Whoever waits for as long as it is told is given up by the test.
        assert!(rest_after(head, most).await >= most * 9 / 10, "{head}");
    }
}

#[tokio::test]
async fn an_answer_that_asks_for_nothing_or_for_nonsense_is_followed_at_once() {
    for head in [
        "503 x",
        "503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT",
        "503 x\r\nRetry-After: -1",
        "503 x\r\nRetry-After: 99999999999999999999",
        "404 x\r\nRetry-After: 3600",
    ] {
        rest_after(head, Duration::from_secs(3600)).await;
    }
}

#[tokio::test]
async fn a_busy_server_keeps_nobody_from_another_one() {
    let (busy, other) = (Server::new().await, Server::new().await);
    let client = client(config());
    let (first, second) = (busy.url(), other.url());
    let serving = busy.answer(b"HTTP/1.1 503 x\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n");
    let (made, _peer) = tokio::join!(fetch(&client, &first), serving);
    assert_eq!(made, Ok(Answer::Status(503)));
    let answer = partial(GOOD, 4, b"4567");
    let (made, _peer) = tokio::join!(fetch(&client, &second), other.answer(&answer));
    assert_eq!(made, range(b"4567"));
}

#[tokio::test]
async fn a_range_that_waits_for_its_own_connection_takes_one_that_comes_back_first() {
    let dir = tempfile::tempdir().unwrap();
    let (server, pem) = Server::with_tls(&["127.0.0.1"]).await;
    let path = dir.path().join("roots.pem");
    std::fs::write(&path, pem).unwrap();
    let client = client(HttpConfig {
        roots: Roots::Files(vec![path]),
        ..config()
    });
    let url = server.url();
    // It speaks TLS to its first client only.
    let serving = async {
        let mut peer = server.accept().await;
        for _ in 0..2 {
            peer.request().await;
            peer.send(&partial(GOOD, 4, b"4567")).await;
        }
    };
    let (first, second, ()) = tokio::join!(fetch(&client, &url), fetch(&client, &url), serving);
    assert_eq!((first, second), (range(b"4567"), range(b"4567")));
}
