//! A broker made by hand, one packet at a time, and an inbox that waits: the tests see bytes, not rumqttc's view.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::sync::Arc;
use std::time::Duration;

use host_mqtt::{BackOffLimits, ConnectionConfig, Endpoint, Security};
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::types::{Failure, Outcome, Token};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const THING: &str = "thing-1";

/// Packet types of MQTT 3.1.1, section 2.2.1.
pub(crate) const CONNECT: u8 = 1;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const DISCONNECT: u8 = 14;

pub(crate) async fn patient<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

pub(crate) struct Broker {
    listener: TcpListener,
    pub(crate) port: u16,
}

impl Broker {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    pub(crate) fn config(&self) -> ConnectionConfig {
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        };
        let mut config = ConnectionConfig::new(endpoint, THING, Security::PlaintextLoopback);
        config.back_off = BackOffLimits {
            base_ms: 1,
            cap_ms: 4,
        };
        config
    }

    pub(crate) async fn accept_socket(&self) -> TcpStream {
        patient("a client", self.listener.accept()).await.unwrap().0
    }

    /// A client, as far as its CONNECT.
    pub(crate) async fn accept(&self) -> (Peer<TcpStream>, Packet) {
        let mut peer = Peer(self.accept_socket().await);
        let connect = peer.read().await;
        assert_eq!(connect.kind, CONNECT);
        (peer, connect)
    }

    /// A client with its connection accepted.
    pub(crate) async fn accept_connected(&self) -> Peer<TcpStream> {
        let (mut peer, _) = self.accept().await;
        peer.write(&[0x20, 2, 0, 0]).await;
        peer
    }
}

#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    /// The packet id of a SUBSCRIBE or UNSUBSCRIBE.
    pub(crate) fn id(&self) -> [u8; 2] {
        [self.body[0], self.body[1]]
    }

    /// Topic, packet id (QoS 1) and payload of a PUBLISH.
    pub(crate) fn publish(&self) -> (String, Option<[u8; 2]>, Vec<u8>) {
        assert_eq!(self.kind, PUBLISH, "{self:?}");
        let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let topic = String::from_utf8(self.body[2..2 + length].to_vec()).unwrap();
        let rest = &self.body[2 + length..];
        match self.flags >> 1 & 3 {
            0 => (topic, None, rest.to_vec()),
            _ => (topic, Some([rest[0], rest[1]]), rest[2..].to_vec()),
        }
    }
}

pub(crate) struct Peer<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn try_read(&mut self) -> std::io::Result<Packet> {
        let first = self.0.read_u8().await?;
        let mut length = 0_usize;
        for shift in 0..4 {
            let byte = self.0.read_u8().await?;
            length |= usize::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(Packet {
            kind: first >> 4,
            flags: first & 0x0f,
            body,
        })
    }

    pub(crate) async fn read(&mut self) -> Packet {
        patient("a packet", self.try_read()).await.unwrap()
    }

    /// The client has ended the connection.
    pub(crate) async fn read_end(&mut self) {
        if let Ok(packet) = patient("the end", self.try_read()).await {
            panic!("{packet:?} instead of the end");
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(crate) async fn publish(&mut self, topic: &str, qos: u8, payload: &[u8]) {
        self.write(&publish_bytes(topic, qos, payload)).await;
    }
}

pub(crate) fn publish_bytes(topic: &str, qos: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&[0, 9]);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x30 | qos << 1];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        packet.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// A device's end of its mailbox.
pub(crate) struct Inbox {
    pub(crate) mailbox: Mailbox,
    notify: Arc<Notify>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        let notify = Arc::new(Notify::new());
        let wake = notify.clone();
        Self {
            mailbox: Mailbox::new(Arc::new(move || wake.notify_one())),
            notify,
        }
    }

    pub(crate) async fn next(&self) -> Input {
        patient("an input", async {
            loop {
                if let Some(input) = self.mailbox.take() {
                    return input;
                }
                self.notify.notified().await;
            }
        })
        .await
    }

    pub(crate) async fn connected(&self) {
        match self.next().await {
            Input::Connected {
                session_present: false,
            } => {}
            other => panic!("{other:?}"),
        }
    }

    /// Reason and detail.
    pub(crate) async fn disconnected(&self) -> (u32, String) {
        match self.next().await {
            Input::Disconnected { reason, detail } => (reason, detail),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn message(&self) -> (String, Vec<u8>) {
        match self.next().await {
            Input::Message { topic, payload, .. } => (topic, payload.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    /// A call's end: its token, and the failure if it is one.
    pub(crate) async fn done(&self) -> (Token, Option<Failure>) {
        match self.next().await {
            Input::Done { token, outcome } => match outcome {
                Outcome::Nothing => (token, None),
                Outcome::Failed(failure) => (token, Some(failure)),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// A call that failed: token, main and sub.
    pub(crate) async fn failed(&self) -> (Token, u8, u32) {
        match self.done().await {
            (token, Some(failure)) => (token, failure.main, failure.sub),
            (token, None) => panic!("call {token} did not fail"),
        }
    }
}

pub(crate) fn topic(rest: &str) -> String {
    format!("$aws/things/{THING}/{rest}")
}
