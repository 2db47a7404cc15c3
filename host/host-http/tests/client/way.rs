//! Where a URL may lead: schemes, hosts, addresses, redirects, proxies, certificates.

use std::path::PathBuf;

use host_http::{AddressKind, Answer, FetchError, HttpConfig, Proxies, Roots};

use crate::server::*;

#[tokio::test]
async fn what_may_not_be_asked_for_is_refused_before_anything_is_sent() {
    let server = Server::new().await;
    let port = server.port;
    let open = config();
    let https_only = HttpConfig {
        allow_plain: false,
        ..config()
    };
    let public = HttpConfig {
        allow_networks: Default::default(),
        ..config()
    };
    let listed = HttpConfig {
        allow_hosts: vec!["cdn.example".into()],
        ..config()
    };
    type Is = fn(&FetchError) -> bool;
    let rows: Vec<(String, &HttpConfig, Is)> = vec![
        (format!("http://127.0.0.1:{port}/"), &https_only, |e| {
            matches!(e, FetchError::Plain(_))
        }),
        (format!("http://127.0.0.1:{port}/"), &public, |e| {
            matches!(
                e,
                FetchError::Address {
                    kind: AddressKind::Loopback,
                    ..
                }
            )
        }),
        // The name is resolved, and what it leads to is looked at.
        (format!("http://localhost:{port}/"), &public, |e| {
            matches!(
                e,
                FetchError::Address {
                    kind: AddressKind::Loopback,
                    ..
                }
            )
        }),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), &public, |e| {
            matches!(
                e,
                FetchError::Address {
                    kind: AddressKind::Loopback,
                    ..
                }
            )
        }),
        // A number is a name to us and an address to the resolver.
        (format!("http://2130706433:{port}/"), &public, |e| {
            matches!(e, FetchError::Address { .. } | FetchError::Resolve { .. })
        }),
        ("http://169.254.169.254/latest".into(), &open, |e| {
            matches!(
                e,
                FetchError::Address {
                    kind: AddressKind::LinkLocal,
                    ..
                }
            )
        }),
        ("http://0.0.0.0/".into(), &open, |e| {
            matches!(e, FetchError::Address { .. })
        }),
        (format!("http://127.0.0.1:{port}/"), &listed, |e| {
            matches!(e, FetchError::Host(_))
        }),
        ("ftp://127.0.0.1/".into(), &open, |e| {
            matches!(e, FetchError::Scheme(_))
        }),
        ("file:///etc/passwd".into(), &open, |e| {
            matches!(e, FetchError::Scheme(_))
        }),
        ("http://user@127.0.0.1/".into(), &open, |e| {
            matches!(e, FetchError::Url(_))
        }),
    ];
    for (url, config, is) in rows {
        let error = fetch(&client(config.clone()), &url).await.unwrap_err();
        assert!(is(&error), "{url}: {error:?}");
    }
    assert_eq!(
        fetch_from(&server, &client(open)).await,
        range(b"4567"),
        "and nobody came before"
    );
}

async fn fetch_from(server: &Server, client: &host_http::HttpClient) -> Result<Answer, FetchError> {
    let url = server.url();
    let answer = partial(GOOD, 4, b"4567");
    tokio::join!(fetch(client, &url), server.answer(&answer)).0
}

fn redirect(status: u16, location: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_redirect_is_followed_with_the_same_range() {
    for status in [301, 302, 303, 307, 308] {
        let (first, second) = (Server::new().await, Server::new().await);
        let client = client(config());
        let url = first.url();
        let there = redirect(status, &format!("http://127.0.0.1:{}/b?c", second.port));
        let answer = partial(GOOD, 4, b"4567");
        let (made, _, (_, asked)) = tokio::join!(
            fetch(&client, &url),
            first.answer(&there),
            second.answer(&answer)
        );
        assert_eq!(made, range(b"4567"), "{status}");
        assert!(asked.starts_with("GET /b?c HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("range: bytes=4-7\r\n"), "{asked}");
    }
}

#[tokio::test]
async fn redirects_end_after_the_third() {
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let serving = async {
        let mut peer = server.accept().await;
        for count in 0..4 {
            peer.request().await;
            peer.send(&redirect(307, &format!("/{count}"))).await;
        }
        peer
    };
    let (made, mut peer) = tokio::join!(fetch(&client, &url), serving);
    assert_eq!(made, Err(FetchError::Redirects(3)));
    drop(client);
    peer.ended().await;
}

#[tokio::test]
async fn a_redirect_leads_nowhere_that_a_url_may_not_lead() {
    type Is = fn(&FetchError) -> bool;
    let rows: &[(&str, Is)] = &[
        ("https://127.0.0.1/", |e| {
            matches!(e, FetchError::Redirect { .. })
        }),
        ("ftp://127.0.0.1/", |e| {
            matches!(e, FetchError::Redirect { .. })
        }),
        ("//127.0.0.1/", |e| matches!(e, FetchError::Redirect { .. })),
        ("http://10.0.0.1/", |e| {
            matches!(e, FetchError::Address { .. })
        }),
        ("http://[::1]/", |e| matches!(e, FetchError::Address { .. })),
        ("http://other.example/", |e| {
            matches!(e, FetchError::Host(_))
        }),
        ("http://u:p@127.0.0.1/", |e| matches!(e, FetchError::Url(_))),
    ];
    for (location, is) in rows {
        let server = Server::new().await;
        let mut config = config();
        config.allow_hosts = ["127.0.0.1", "10.0.0.1", "::1"].map(String::from).into();
        let client = client(config);
        let url = server.url();
        let answer = redirect(302, location);
        let (made, _peer) = tokio::join!(fetch(&client, &url), server.answer(&answer));
        let error = made.unwrap_err();
        assert!(is(&error), "{location}: {error:?}");
    }
    let server = Server::new().await;
    let client = client(config());
    let url = server.url();
    let answer = b"HTTP/1.1 302 x\r\nContent-Length: 0\r\n\r\n";
    let (made, _peer) = tokio::join!(fetch(&client, &url), server.answer(answer));
    assert!(matches!(made, Err(FetchError::Redirect { .. })), "{made:?}");
}

fn trusting(dir: &tempfile::TempDir, pem: &str) -> HttpConfig {
    let path: PathBuf = dir.path().join("roots.pem");
    std::fs::write(&path, pem).unwrap();
    HttpConfig {
        roots: Roots::Files(vec![path]),
        allow_plain: false,
        ..config()
    }
}

#[tokio::test]
async fn tls_takes_the_configured_roots_and_the_right_name_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (server, pem) = Server::with_tls(&["127.0.0.1"]).await;
    let trusting_client = client(trusting(&dir, &pem));
    assert_eq!(fetch_from(&server, &trusting_client).await, range(b"4567"));

    let (other, other_pem) = Server::with_tls(&["elsewhere.example"]).await;
    let rows = [
        ("another root", client(trusting(&dir, &other_pem)), &server),
        ("another name", client(trusting(&dir, &other_pem)), &other),
    ];
    for (name, client, server) in rows {
        let url = server.url();
        let handshake = async { server.accept_tls_failing().await };
        let (made, ()) = tokio::join!(fetch(&client, &url), handshake);
        let error = made.unwrap_err();
        assert!(matches!(error, FetchError::Tls { .. }), "{name}: {error:?}");
        assert_eq!(error.failure().main, 0xc0, "{name}");
    }
}

/// A client whose way leads through this proxy.
fn behind(proxy: &Server, config: HttpConfig, no_proxy: &str) -> HttpConfig {
    let proxy = format!("http://me:pass@127.0.0.1:{}", proxy.port);
    let proxies = Proxies::from_environment(|name| match name {
        "HTTPS_PROXY" => Some(proxy.clone()),
        "NO_PROXY" => Some(no_proxy.to_owned()),
        _ => None,
    });
    HttpConfig {
        proxies: proxies.unwrap(),
        ..config
    }
}

#[tokio::test]
async fn a_proxy_makes_a_tunnel_and_sees_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let (server, pem) = Server::with_tls(&["image.example"]).await;
    let proxy = Server::new().await;
    // No network is allowed: the name is the proxy's to resolve, and its own address is the operator's choice.
    let config = HttpConfig {
        allow_networks: Default::default(),
        ..behind(&proxy, trusting(&dir, &pem), "other.example")
    };
    let client = client(config);
    let tunnel = async {
        let mut peer = proxy.accept().await;
        let asked = peer.request().await;
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await;
        let mut onward = tokio::net::TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        let _ended = tokio::io::copy_bidirectional(&mut peer.0, &mut onward).await;
        asked
    };
    let url = format!("https://image.example:{}/x?secret", server.port);
    let answer = partial(GOOD, 4, b"4567");
    let asking = async {
        let made = fetch(&client, &url).await;
        drop(client);
        made
    };
    let serving = async { drop(server.answer(&answer).await) };
    let (made, asked, ()) = tokio::join!(asking, tunnel, serving);
    assert_eq!(made, range(b"4567"));
    let port = server.port;
    let expected = format!(
        "CONNECT image.example:{port} HTTP/1.1\r\nHost: image.example:{port}\r\n\
         Proxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n"
    );
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_answer() {
    let proxy = Server::new().await;
    let client = client(behind(&proxy, config(), ""));
    let rows: &[(&[u8], &str)] = &[
        (
            b"HTTP/1.1 407 Who are you\r\n\r\n",
            "answers 407 for image.example:443",
        ),
        (b"HTTP/1.1 403 No\r\n\r\n", "answers 403"),
        (b"no proxy\r\n\r\n", "does not answer in HTTP"),
    ];
    for (answer, expected) in rows {
        let (made, _peer) = tokio::join!(
            fetch(&client, "https://image.example/x"),
            proxy.answer(answer)
        );
        let error = made.unwrap_err();
        assert!(matches!(error, FetchError::Proxy { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("pass"), "{error}");
    }
    let long = [b'x'; 9000];
    let (made, _peer) = tokio::join!(
        fetch(&client, "https://image.example/x"),
        proxy.answer(&long)
    );
    assert!(made.unwrap_err().to_string().contains("too long a head"));
    for url in ["https://localhost/x", "https://10.0.0.1/x"] {
        let error = fetch(&client, url).await.unwrap_err();
        assert!(
            matches!(error, FetchError::Proxy { .. } | FetchError::Address { .. }),
            "{url}: {error:?}"
        );
    }
}
