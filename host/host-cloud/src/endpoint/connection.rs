//! One client's connection: reads, asks the core, writes.
//!
//! ```text
//!  socket ─▶ scratch ─▶ Protocol ─▶ policy ─▶ Core (service) ─▶ pending ─▶ out ─▶ socket
//!                                        └──▶ Hub (others)      ▲
//!                       others' messages ─▶ Hub queue ──────────┘
//! ```
//!
//! Pacing: while much waits to be written, no packet is taken from the client, so what it asks for never piles up beyond
//! one answer. Every wait ends: CONNECT and the TLS handshake have a deadline, and so has silence (1.5 times keep-alive).

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use mqtt_protocol_core::mqtt::{packet::v3_1_1::Connect, result_code::ConnectReturnCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use super::{
    buffer::{Scratch, write_all},
    filter,
    hub::{Delivery, Kick, Seat},
    policy::Identity,
    protocol::{Message, Protocol, Received, Violation},
};
use crate::{
    core::Core,
    error::CloudError,
    id,
    service::{QoS, ThingName, split_thing},
};

/// Time to finish the TLS handshake, and then to send CONNECT.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// What AWS takes for "no keep-alive", and the longest it grants.
const KEEP_ALIVE_MAX_S: u64 = 1200;
/// Bytes waiting to be written above which nothing more is taken from the client: two full answers.
const OUT_HIGH_BYTES: usize = 256 * 1024;
/// Bytes waiting to be written above which others' messages wait in their queue. Lower than the mark above, so that a flood
/// from others cannot keep a client's own requests from being read.
const OUT_QUEUE_BYTES: usize = 64 * 1024;
/// Others' messages taken at once.
const QUEUE_BATCH: usize = 64;
/// Messages waiting for room or for acknowledgements above which nothing more is taken from the client.
const PENDING_MAX: usize = 1024;
/// QoS 1 messages without an acknowledgement: AWS's figure.
const IN_FLIGHT_MAX: usize = 100;
/// Filters in one SUBSCRIBE: AWS's figure is 8; our own bound is the packet's size.
const SUBSCRIBE_FILTERS_AWS_MAX: usize = 8;

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client disconnected")]
    Disconnected,
    #[error("the client closed the connection")]
    Closed,
    #[error("no sign of life within 1.5 times the keep-alive")]
    KeepAlive,
    #[error("no CONNECT in time")]
    NoConnect,
    #[error("{0}")]
    Kicked(Kick),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("{0} is not this client's to use")]
    Forbidden(String),
    #[error("a message of {0} bytes")]
    MessageTooLarge(usize),
    #[error("{0} filters in one SUBSCRIBE")]
    TooManyFilters(usize),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Cloud(#[from] CloudError),
}

/// What to publish should the client vanish.
struct Will {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
}

struct Connection<S> {
    io: S,
    core: Arc<Core>,
    identity: Identity,
    protocol: Protocol,
    seat: Seat,
    pending: VecDeque<Delivery>,
    scratch: Scratch,
    unflushed: bool,
    keep_alive: Duration,
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
    will: Option<Will>,
}

enum Step {
    /// Something moved; look again.
    Progress,
    Kicked(Kick),
    Silent,
    Closed,
    Failed(io::Error),
}

/// Serves a client until it ends, and says why it did.
pub(crate) async fn serve<S>(mut io: S, identity: Identity, core: Arc<Core>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut protocol = Protocol::new();
    let mut scratch = Scratch::default();
    let deadline = Instant::now() + CONNECT_TIME;
    let connect = timeout_at(
        deadline,
        await_connect(&mut io, &mut protocol, &mut scratch),
    );
    let connect = match connect.await {
        Ok(Ok(connect)) => connect,
        Ok(Err(end)) => {
            // A refusal the protocol has written is worth delivering; whether it arrives changes nothing.
            timeout_at(deadline, write_all(&mut io, &mut protocol.out))
                .await
                .ok();
            return end;
        }
        Err(_) => return End::NoConnect,
    };
    let will = match will(&connect, &identity) {
        Ok(will) => will,
        Err(end) => {
            if protocol.refuse(ConnectReturnCode::NotAuthorized).is_ok() {
                timeout_at(deadline, write_all(&mut io, &mut protocol.out))
                    .await
                    .ok();
            }
            core.hub.count_refused();
            return end;
        }
    };
    let client_id = match connect.client_id() {
        "" => match id::random_u64() {
            Ok(number) => format!("auto-{number:016x}"),
            Err(error) => return error.into(),
        },
        id => id.to_owned(),
    };
    if let Err(violation) = protocol.connack() {
        return violation.into();
    }
    let seconds = match u64::from(connect.keep_alive()) {
        0 => KEEP_ALIVE_MAX_S,
        seconds => seconds.min(KEEP_ALIVE_MAX_S),
    };
    let keep_alive = Duration::from_millis(seconds * 1500);
    let thing = identity
        .thing(&client_id)
        .filter(|thing| core.is_thing(thing));
    tracing::debug!(client = client_id, ?thing, "connected");
    let seat = core.hub.join(&identity, &client_id, thing);
    let number = seat.number;
    // Between the handshake and the seat somebody may have detached it: only who is seated can be told.
    if !identity.still_holds(|fingerprint| core.things_of_certificate(fingerprint)) {
        core.hub.leave(number);
        return End::Kicked(Kick::Detached);
    }
    let mut connection = Connection {
        io,
        identity,
        protocol,
        seat,
        pending: VecDeque::new(),
        scratch,
        unflushed: false,
        keep_alive,
        heard: Instant::now(),
        alarm: Box::pin(sleep_until(Instant::now() + keep_alive)),
        will,
        core: Arc::clone(&core),
    };
    let Err(end) = connection.run().await;
    core.hub.leave(number);
    if !matches!(end, End::Disconnected)
        && let Some(will) = connection.will.take()
    {
        core.hub
            .publish(number, &will.topic, &will.payload, will.qos);
    }
    tracing::debug!(client = client_id, reason = %end, "connection ended");
    end
}

/// Never a value: a connection's life has an end, not a result.
type Ended = Result<std::convert::Infallible, End>;

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(&mut self) -> Ended {
        loop {
            if let Some(until) = self.core.hub.stalled_until()
                && Instant::now() < until
            {
                tokio::select! {
                    () = sleep_until(until) => {}
                    kick = &mut self.seat.kick => return Err(kicked(kick)),
                }
            }
            self.pump()?;
            if self.takes_packets() && !self.scratch.rest().is_empty() {
                self.take_packet().await?;
                continue;
            }
            match poll_fn(|cx| self.poll_step(cx)).await {
                Step::Progress => {}
                Step::Kicked(kick) => return Err(End::Kicked(kick)),
                Step::Silent => return Err(End::KeepAlive),
                Step::Closed => return Err(End::Closed),
                Step::Failed(error) => return Err(error.into()),
            }
        }
    }

    /// Moves pending messages into the buffer as far as room and flight allow.
    fn pump(&mut self) -> Result<(), End> {
        while self.protocol.out.len() < OUT_HIGH_BYTES {
            let flying = self.protocol.in_flight >= IN_FLIGHT_MAX;
            match self.pending.front() {
                Some(next) if next.qos == QoS::AtLeastOnce && flying => break,
                Some(next) => self
                    .protocol
                    .publish(&next.topic, &next.payload, next.qos)?,
                None => break,
            }
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Whether the client may ask for more. Messages that wait for acknowledgements alone must not stop the reading that
    /// brings them.
    fn takes_packets(&self) -> bool {
        self.protocol.out.len() < OUT_HIGH_BYTES && self.pending.len() < PENDING_MAX
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(kick) = Pin::new(&mut self.seat.kick).poll(cx) {
            return Poll::Ready(match kicked(kick) {
                End::Kicked(kick) => Step::Kicked(kick),
                _ => Step::Closed,
            });
        }
        // First what waits, so that one write takes as much as possible.
        if self.poll_queue(cx).is_ready() {
            return Poll::Ready(Step::Progress);
        }
        if let Poll::Ready(step) = self.poll_write(cx) {
            return Poll::Ready(step);
        }
        if self.takes_packets()
            && let Poll::Ready(step) = self.poll_read(cx)
        {
            return Poll::Ready(step);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let end = self.heard + self.keep_alive;
            if Instant::now() >= end {
                return Poll::Ready(Step::Silent);
            }
            self.alarm.as_mut().reset(end);
        }
        Poll::Pending
    }

    /// Ready when others' messages were taken out of the queue.
    fn poll_queue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.pending.is_empty() || self.protocol.out.len() >= OUT_QUEUE_BYTES {
            return Poll::Pending;
        }
        while self.pending.len() < QUEUE_BATCH
            && let Poll::Ready(Some(delivery)) = self.seat.queue.poll_recv(cx)
        {
            self.seat
                .queued_bytes
                .fetch_sub(delivery.payload.len(), Ordering::Relaxed);
            self.pending.push_back(delivery);
        }
        if self.pending.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Ready when something moved or failed; pending when there is nothing to write, or no room for it outside.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let out = &mut self.protocol.out;
        if !out.is_empty() {
            return match Pin::new(&mut self.io).poll_write(cx, out) {
                Poll::Ready(Ok(0)) => Poll::Ready(Step::Closed),
                Poll::Ready(Ok(written)) => {
                    let full = out.len() >= OUT_HIGH_BYTES;
                    out.advance(written);
                    self.unflushed = true;
                    if full {
                        // Not reading on is our doing: taking what we write is sign enough of life.
                        self.heard = Instant::now();
                    }
                    if out.is_empty() && out.capacity() > OUT_HIGH_BYTES {
                        *out = BytesMut::new();
                    }
                    Poll::Ready(Step::Progress)
                }
                Poll::Ready(Err(error)) => Poll::Ready(Step::Failed(error)),
                Poll::Pending => Poll::Pending,
            };
        }
        if self.unflushed {
            return match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    Poll::Pending
                }
                Poll::Ready(Err(error)) => Poll::Ready(Step::Failed(error)),
                Poll::Pending => Poll::Pending,
            };
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        match self.scratch.poll_fill(Pin::new(&mut self.io), cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Step::Closed),
            Poll::Ready(Ok(_)) => Poll::Ready(Step::Progress),
            Poll::Ready(Err(error)) => Poll::Ready(Step::Failed(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    async fn take_packet(&mut self) -> Result<(), End> {
        let (taken, received) = self.protocol.receive(self.scratch.rest())?;
        self.scratch.take(taken);
        let Some(received) = received else {
            return Ok(());
        };
        self.heard = Instant::now();
        match received {
            Received::Publish(message) => self.on_publish(message).await,
            Received::Subscribe(id, filters) => self.on_subscribe(id, filters),
            Received::Unsubscribe(id, filters) => {
                for filter in &filters {
                    self.core.hub.unsubscribe(self.seat.number, filter);
                }
                Ok(self.protocol.unsuback(id)?)
            }
            Received::Ping => {
                self.core.hub.count_ping(self.seat.number);
                Ok(self.protocol.pingresp()?)
            }
            Received::PublishAcked => Ok(()),
            Received::Disconnect => {
                self.will = None;
                Err(End::Disconnected)
            }
            Received::Connect(_) => {
                Err(Violation::Malformed("CONNECT a second time".to_owned()).into())
            }
        }
    }

    async fn on_publish(&mut self, message: Message) -> Result<(), End> {
        let hub = &self.core.hub;
        hub.count_in(self.seat.number);
        if !self.identity.may_publish(&message.topic) {
            return Err(End::Forbidden(message.topic));
        }
        let payload = message.payload.as_slice();
        if payload.len() > self.core.limits().message_bytes_max() {
            return Err(End::MessageTooLarge(payload.len()));
        }
        let qos = match message.ack {
            Some(_) => QoS::AtLeastOnce,
            None => QoS::AtMostOnce,
        };
        if message.topic.starts_with('$') {
            let asked = split_thing(&message.topic).map(|(thing, _)| ThingName::new(thing));
            if let Some(Ok(thing)) = asked {
                let answer = self.core.handle(&thing, &message.topic, payload, qos).await;
                let Some(answer) = answer else {
                    // Not stored: neither acknowledged nor answered, so that the client asks again.
                    return Ok(());
                };
                if let Some(id) = message.ack {
                    self.protocol.puback(id)?;
                }
                let own = self.core.hub.reply(self.seat.number, answer.replies);
                self.pending.extend(own);
                if answer.cut {
                    self.flush_then_cut().await?;
                }
                return Ok(());
            }
        } else {
            let own = hub.publish(self.seat.number, &message.topic, payload, qos);
            self.pending.extend(own);
        }
        if let Some(id) = message.ack {
            self.protocol.puback(id)?;
        }
        Ok(())
    }

    /// A cut on purpose comes behind the message that asked for it, as far as the client takes it at all.
    async fn flush_then_cut(&mut self) -> Result<(), End> {
        let written = async {
            while !self.pending.is_empty() || !self.protocol.out.is_empty() {
                self.pump()?;
                if self.protocol.out.is_empty() {
                    break;
                }
                write_all(&mut self.io, &mut self.protocol.out).await?;
            }
            Ok::<_, End>(())
        };
        // The cut happens whether or not the bytes got through.
        tokio::time::timeout(Duration::from_secs(1), written)
            .await
            .ok();
        self.core.hub.cut();
        Ok(())
    }

    fn on_subscribe(&mut self, id: u16, filters: Vec<(String, QoS)>) -> Result<(), End> {
        let limits = self.core.limits();
        if limits == crate::limits::Limits::Aws && filters.len() > SUBSCRIBE_FILTERS_AWS_MAX {
            return Err(End::TooManyFilters(filters.len()));
        }
        let mut granted = Vec::with_capacity(filters.len());
        for (text, qos) in filters {
            if !filter::is_filter(&text) {
                return Err(Violation::Topic.into());
            }
            if !self.identity.may_subscribe(&text) {
                return Err(End::Forbidden(text));
            }
            let max = limits.subscriptions_max();
            let done = self.core.hub.subscribe(self.seat.number, &text, qos, max);
            granted.push(done.then_some(qos));
        }
        Ok(self.protocol.suback(id, &granted)?)
    }
}

async fn await_connect<S: AsyncRead + Unpin>(
    io: &mut S,
    protocol: &mut Protocol,
    scratch: &mut Scratch,
) -> Result<Box<Connect>, End> {
    loop {
        while !scratch.rest().is_empty() {
            let (taken, received) = protocol.receive(scratch.rest())?;
            scratch.take(taken);
            match received {
                Some(Received::Connect(connect)) => return Ok(connect),
                Some(_) => return Err(Violation::NotConnected.into()),
                None => {}
            }
        }
        let read = poll_fn(|cx| scratch.poll_fill(Pin::new(&mut *io), cx)).await?;
        if read == 0 {
            return Err(End::Closed);
        }
    }
}

/// The will, if the client may publish it.
fn will(connect: &Connect, identity: &Identity) -> Result<Option<Will>, End> {
    let (Some(topic), Some(payload)) = (connect.will_topic(), connect.will_payload()) else {
        return Ok(None);
    };
    // Requests of the service are for the living.
    if !filter::is_topic(topic) || topic.starts_with('$') || !identity.may_publish(topic) {
        return Err(End::Forbidden(topic.to_owned()));
    }
    Ok(Some(Will {
        topic: topic.to_owned(),
        payload: payload.to_owned(),
        qos: match connect.will_qos() {
            mqtt_protocol_core::mqtt::packet::Qos::AtMostOnce => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        },
    }))
}

fn kicked(kick: Result<Kick, tokio::sync::oneshot::error::RecvError>) -> End {
    // The hub drops its end only together with the seat.
    kick.map_or(End::Closed, End::Kicked)
}
