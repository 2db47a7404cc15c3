//! Connections: kept, shared, several at once, and never trusted to be still there.

use std::time::Duration;

use host_http::Answer;

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
