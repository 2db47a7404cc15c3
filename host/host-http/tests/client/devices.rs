//! A device's transport: every token ends once, by an answer, a failure or a cancel.

use std::sync::{Arc, Mutex};

use host_http::{HttpClient, HttpTransport};
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::ports::transport::Transport;
use host_runtime::types::{Outcome, Qos, Token};
use tokio::sync::Notify;

use crate::server::*;

/// Writes down what goes to the other adapter.
#[derive(Clone, Default)]
pub(crate) struct Other(Arc<Mutex<Vec<String>>>);

impl Other {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Transport for Other {
    fn subscribe(&mut self, token: Token, filter: &str, _: Qos) {
        self.note(format!("{token} subscribe {filter}"));
    }
    fn unsubscribe(&mut self, token: Token, filter: &str) {
        self.note(format!("{token} unsubscribe {filter}"));
    }
    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, _: Qos) {
        self.note(format!("{token} publish {topic} {}", payload.len()));
    }
    fn http_get(&mut self, token: Token, _: &str, _: u64, _: u32) {
        self.note(format!("{token} get"));
    }
    fn cancel(&mut self, token: Token) {
        self.note(format!("{token} cancel"));
    }
}

struct Device {
    transport: HttpTransport<Other>,
    other: Other,
    mailbox: Mailbox,
    woken: Arc<Notify>,
}

impl Device {
    fn new(client: &HttpClient) -> Self {
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let mailbox = Mailbox::new(Arc::new(move || wake.notify_one()));
        let other = Other::default();
        Self {
            transport: client.join(other.clone(), mailbox.clone()),
            other,
            mailbox,
            woken,
        }
    }

    async fn next(&self) -> String {
        loop {
            match self.mailbox.take() {
                Some(Input::HttpResponse {
                    token,
                    status,
                    total,
                    body,
                }) => {
                    return format!("{token} {status} {total:?} {}", body.len());
                }
                Some(Input::Done {
                    token,
                    outcome: Outcome::Failed(failure),
                }) => {
                    return format!("{token} failed {:x}", failure.main);
                }
                Some(other) => panic!("{other:?}"),
                None => patient("an end", self.woken.notified()).await,
            }
        }
    }
}

#[tokio::test]
async fn a_range_a_status_and_a_failure_each_end_their_token() {
    let server = Server::new().await;
    let mut device = Device::new(&client(config()));
    let url = server.url();
    device.transport.http_get(1, &url, 4, 4);
    let (mut peer, _) = server.answer(&partial(GOOD, 4, b"4567")).await;
    assert_eq!(device.next().await, "1 206 Some(10) 4");
    device.transport.http_get(2, &url, 4, 4);
    peer.request().await;
    peer.send(b"HTTP/1.1 403 x\r\nContent-Length: 3\r\n\r\nno!")
        .await;
    assert_eq!(device.next().await, "2 403 None 0");
    device.transport.http_get(3, &url, 4, 4);
    peer.request().await;
    peer.send(&partial("bytes 0-3/10", 4, b"0123")).await;
    assert_eq!(device.next().await, "3 failed c2");
    device.transport.http_get(4, "https://10.0.0.1/x", 0, 1);
    assert_eq!(device.next().await, "4 failed d0");
    device.transport.http_get(5, "demo://x", 0, 1);
    assert_eq!(device.next().await, "5 failed da");
    assert!(device.mailbox.is_empty());
}

#[tokio::test]
async fn a_cancelled_range_ends_once_and_its_connection_goes() {
    let server = Server::new().await;
    let mut device = Device::new(&client(config()));
    device.transport.http_get(7, &server.url(), 4, 4);
    let mut peer = server.accept().await;
    peer.request().await;
    device.transport.cancel(7);
    assert_eq!(device.next().await, "7 failed d7");
    peer.ended().await;
    // Its end is told; a second cancel is about a token that is not ours.
    device.transport.cancel(7);
    assert!(device.mailbox.is_empty());
    assert_eq!(*device.other.0.lock().unwrap(), ["7 cancel"]);
}

#[tokio::test]
async fn more_ranges_than_a_device_may_have_fail_at_once_and_those_of_others_do_not() {
    let server = Server::new().await;
    let client = client(limits(|l| l.ranges_per_device_max = 2));
    let (mut first, mut second) = (Device::new(&client), Device::new(&client));
    let url = server.url();
    for token in 1..=3 {
        first.transport.http_get(token, &url, 4, 4);
    }
    assert_eq!(first.next().await, "3 failed d1");
    second.transport.http_get(4, &url, 4, 4);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(server.answer(&partial(GOOD, 4, b"4567")).await);
    }
    assert_eq!(second.next().await, "4 206 Some(10) 4");
    let mut ends = [first.next().await, first.next().await];
    ends.sort();
    assert_eq!(ends, ["1 206 Some(10) 4", "2 206 Some(10) 4"]);
    // There is room again.
    first.transport.http_get(5, "demo://x", 4, 4);
    assert_eq!(first.next().await, "5 failed da");
}

#[tokio::test]
async fn a_device_that_goes_takes_its_ranges_along() {
    let server = Server::new().await;
    let client = client(config());
    let mut device = Device::new(&client);
    device.transport.http_get(1, &server.url(), 4, 4);
    let mut peer = server.accept().await;
    peer.request().await;
    drop(device.transport);
    peer.ended().await;
    assert!(device.mailbox.is_empty());
}

#[tokio::test]
async fn everything_else_is_the_other_adapters() {
    let mut device = Device::new(&client(config()));
    device.transport.subscribe(1, "a", Qos::AtLeastOnce);
    device.transport.unsubscribe(2, "a");
    device
        .transport
        .publish(3, "b", vec![0; 5], Qos::AtMostOnce);
    device.transport.cancel(3);
    let expected = [
        "1 subscribe a",
        "2 unsubscribe a",
        "3 publish b 5",
        "3 cancel",
    ];
    assert_eq!(*device.other.0.lock().unwrap(), expected);
}
