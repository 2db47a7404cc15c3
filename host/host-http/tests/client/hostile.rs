//! Answers that must not be believed.

use std::time::Duration;

use host_http::{Answer, FetchError, Wait};

use crate::server::*;

/// What the client makes of one answer, after which the server closes.
async fn made_of(answer: &[u8]) -> Result<Answer, FetchError> {
    let server = Server::new().await;
    let client = client(config());
    let serving = async {
        drop(server.answer(answer).await);
    };
    let url = server.url();
    tokio::join!(fetch(&client, &url), serving).0
}

/// As [`made_of`], with a connection that stays open.
async fn made_of_open(answer: &[u8]) -> Result<Answer, FetchError> {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let (made, _open) = tokio::join!(fetch(&client, &url), server.answer(answer));
    made
}

#[tokio::test]
async fn a_range_comes_whole_also_in_pieces_and_without_a_length() {
    assert_eq!(made_of(&partial(GOOD, 4, b"4567")).await, range(b"4567"));
    let chunked =
        b"HTTP/1.1 206 x\r\nContent-Range: bytes 4-7/10\r\nTransfer-Encoding: chunked\r\n\r\n\
        1\r\n4\r\n3\r\n567\r\n0\r\n\r\n";
    assert_eq!(made_of(chunked).await, range(b"4567"));
    let until_end =
        b"HTTP/1.1 206 x\r\nContent-Range: bytes 4-7/10\r\nConnection: close\r\n\r\n4567";
    assert_eq!(made_of(until_end).await, range(b"4567"));
    let unknown = Answer::Range {
        total: None,
        body: b"4567"[..].into(),
    };
    assert_eq!(
        made_of(&partial("bytes 4-7/*", 4, b"4567")).await,
        Ok(unknown)
    );
}

#[tokio::test]
async fn any_other_status_is_told_without_its_body() {
    for status in [200, 204, 304, 400, 403, 404, 416, 500, 503, 300] {
        let length = if matches!(status, 204 | 304) {
            ""
        } else {
            "Content-Length: 4\r\n"
        };
        let body = if length.is_empty() { "" } else { "4567" };
        let answer = format!("HTTP/1.1 {status} x\r\n{length}\r\n{body}");
        assert_eq!(
            made_of(answer.as_bytes()).await,
            Ok(Answer::Status(status)),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_whole_file_in_place_of_a_range_is_not_read() {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let serving = async {
        let mut peer = server
            .answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
            .await
            .0;
        // The connection goes, with all that is still to come.
        peer.ended().await;
    };
    let (made, ()) = tokio::join!(fetch(&client, &url), serving);
    assert_eq!(made, Ok(Answer::Status(200)));
}

#[tokio::test]
async fn wrong_ranges_and_bodies_are_errors_with_a_name() {
    type Is = fn(&FetchError) -> bool;
    let head = |more: &str| format!("HTTP/1.1 206 x\r\n{more}\r\n\r\n").into_bytes();
    let chunked = |body: &str| {
        format!(
            "HTTP/1.1 206 x\r\nContent-Range: {GOOD}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        )
        .into_bytes()
    };
    let rows: Vec<(&str, Vec<u8>, Is)> = vec![
        ("another range", partial("bytes 0-3/10", 4, b"0123"), |e| {
            matches!(
                e,
                FetchError::WrongRange {
                    first: 0,
                    last: 3,
                    ..
                }
            )
        }),
        (
            "more than asked",
            partial("bytes 4-9/10", 6, b"456789"),
            |e| matches!(e, FetchError::WrongRange { .. }),
        ),
        ("less than asked", partial("bytes 4-5/10", 2, b"45"), |e| {
            matches!(e, FetchError::WrongRange { .. })
        }),
        ("no range", head("Content-Length: 4"), |e| {
            *e == FetchError::NoRange
        }),
        (
            "several parts",
            head("Content-Type: multipart/byteranges; boundary=x"),
            |e| *e == FetchError::Multipart,
        ),
        (
            "compressed",
            head(&format!("Content-Range: {GOOD}\r\nContent-Encoding: gzip")),
            |e| *e == FetchError::Encoded,
        ),
        ("long by its length", partial(GOOD, 5, b"45678"), |e| {
            matches!(
                e,
                FetchError::Length {
                    said: 5,
                    expected: 4
                }
            )
        }),
        ("short by its length", partial(GOOD, 3, b"456"), |e| {
            matches!(e, FetchError::Length { said: 3, .. })
        }),
        ("short by its end", partial(GOOD, 4, b"456"), |e| {
            *e == FetchError::Short {
                got: 3,
                expected: 4,
            }
        }),
        (
            "short by its last piece",
            chunked("3\r\n456\r\n0\r\n\r\n"),
            |e| {
                *e == FetchError::Short {
                    got: 3,
                    expected: 4,
                }
            },
        ),
        (
            "long in pieces",
            chunked("4\r\n4567\r\n1\r\n8\r\n0\r\n\r\n"),
            |e| *e == FetchError::Long { expected: 4 },
        ),
        ("no pieces", chunked("zz\r\n"), |e| {
            matches!(e, FetchError::Broken { .. })
        }),
        ("nothing", Vec::new(), |e| {
            matches!(e, FetchError::Broken { .. })
        }),
        ("no HTTP", b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec(), |e| {
            matches!(e, FetchError::Broken { .. })
        }),
        (
            "half a head",
            b"HTTP/1.1 206 x\r\nContent-Ra".to_vec(),
            |e| matches!(e, FetchError::Broken { .. }),
        ),
        (
            "a long head",
            head(&format!("X: {}", "x".repeat(64 * 1024))),
            |e| matches!(e, FetchError::Broken { .. }),
        ),
        ("many lines", head(&"X: y\r\n".repeat(200)), |e| {
            matches!(e, FetchError::Broken { .. })
        }),
    ];
    for (name, answer, is) in rows {
        let error = made_of(&answer).await.unwrap_err();
        assert!(is(&error), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn an_endless_body_is_left_at_its_first_byte_too_many() {
    let endless = format!(
        "HTTP/1.1 206 x\r\nContent-Range: {GOOD}\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n{}",
        "x".repeat(100_000)
    );
    let made = made_of_open(endless.as_bytes()).await;
    assert_eq!(made, Err(FetchError::Long { expected: 4 }));
}

/// The wait that is too long for this answer, on a connection that stays open.
async fn wait_of(answer: &[u8], config: host_http::HttpConfig) -> Wait {
    let server = Server::new().await;
    let client = client(config);
    let url = server.url();
    let (made, _open) = tokio::join!(fetch(&client, &url), server.answer(answer));
    match made {
        Err(FetchError::TimedOut { wait, .. }) => wait,
        other => panic!("{other:?}"),
    }
}

const SHORT: Duration = Duration::from_millis(40);

#[tokio::test]
async fn every_wait_ends() {
    let head = limits(|l| l.head_timeout = SHORT);
    assert_eq!(wait_of(b"", head.clone()).await, Wait::Head);
    assert_eq!(wait_of(b"HTTP/1.1 206 x\r\nConte", head).await, Wait::Head);
    let body = limits(|l| l.idle_timeout = SHORT);
    assert_eq!(wait_of(&partial(GOOD, 4, b"45"), body).await, Wait::Body);
    // No TLS answer at all.
    let server = Server::new().await;
    let connect = client(limits(|l| l.connect_timeout = SHORT));
    let url = format!("https://127.0.0.1:{}/", server.port);
    let (made, _silent) = tokio::join!(fetch(&connect, &url), server.accept_socket());
    assert!(
        matches!(
            made,
            Err(FetchError::TimedOut {
                wait: Wait::Connect,
                ..
            } | FetchError::NoRoots { .. })
        ),
        "{made:?}"
    );
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_hold_a_range_for_ever() {
    let server = Server::new().await;
    let client = client(limits(|l| l.range_timeout = Duration::from_millis(150)));
    let url = server.url();
    let serving = async {
        let mut peer = server.accept().await;
        peer.request().await;
        peer.send(&partial("bytes 4-99999/100000", 99_996, b""))
            .await;
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..2000 {
            pace.tick().await;
            peer.send(b"x").await;
        }
    };
    let made = tokio::select! {
        made = patient("a range", client.fetch(&url, 4, 99_996)) => made,
        () = serving => panic!("the client has waited for all of it"),
    };
    let wait = Wait::Range;
    let after = Duration::from_millis(150);
    assert_eq!(made, Err(FetchError::TimedOut { wait, after }));
}
