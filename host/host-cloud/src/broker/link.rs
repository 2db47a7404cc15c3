//! The connection to the broker: made, subscribed, and made anew with back-off.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, NoticeFailureReason,
    Packet, Publish, PublishOptions, SubscribeFilter, SubscribeReasonCode, TlsConfiguration,
    Transport,
};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    BrokerConfig, BrokerStatus, BrokerUrl, FILTERS, Outbox,
    dial::dial,
    lane::{Lanes, Request},
};
use crate::{
    core::Core,
    error::CloudError,
    id,
    service::{Outgoing, QoS, ThingName, split_thing},
};

/// First pause between attempts, and the longest. Shorter than what devices begin with, so that whoever comes back after
/// a restart of the broker finds the cloud there.
const PAUSE_MS: (u64, u64) = (100, 10_000);
/// Name, TCP, TLS, CONNACK and SUBACK together.
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// Time for a DISCONNECT to leave.
const STOP_TIME: Duration = Duration::from_secs(1);
/// Seconds between packets.
const KEEP_ALIVE_S: u16 = 30;
/// Largest packet. A device that may publish larger ones could end the cloud's connection with one: the broker's own
/// limit belongs below this (README).
const PACKET_BYTES_MAX: usize = 1024 * 1024;
/// Messages on their way into the socket; a lane whose answer finds no room waits.
const SEND_QUEUE: usize = 128;
/// QoS 1 messages without an acknowledgement: replies.
const IN_FLIGHT_MAX: u16 = 256;
/// Notifications without an acknowledgement, out of the same number.
const NOTIFICATIONS_IN_FLIGHT_MAX: usize = 64;

/// What lanes, notifications and the connection's task have in common.
pub(super) struct Shared {
    core: Arc<Core>,
    client: AsyncClient,
    /// Number of the connection; 0 = none.
    connection: watch::Sender<u64>,
    status: watch::Sender<BrokerStatus>,
    /// Asks for the end of the connection: a fault on purpose.
    cut: Notify,
}

/// A link that runs in tasks of the cloud.
pub(crate) struct Started {
    /// How it stands.
    pub(crate) status: watch::Receiver<BrokerStatus>,
    /// Where the hub puts notifications.
    pub(crate) outbox: Arc<Outbox>,
}

/// The connection's task.
pub(crate) struct Link {
    shared: Arc<Shared>,
    events: EventLoop,
    url: BrokerUrl,
    connections: u64,
    pause_ms: u64,
}

impl Link {
    /// Starts connecting, in `tasks`.
    ///
    /// # Errors
    /// What the operator must mend: a value, a file, no TLS where it must be.
    pub(crate) fn start(
        config: &BrokerConfig,
        core: &Arc<Core>,
        tasks: &mut JoinSet<()>,
        stop: watch::Receiver<bool>,
    ) -> Result<Started, CloudError> {
        let (client, mut events) = AsyncClient::builder(options(config)?)
            .capacity(SEND_QUEUE)
            .build();
        let mut network = events.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIME.as_secs());
        events.set_network_options(network);
        let url = config.url.clone();
        if !url.tls && !url.is_loopback() {
            tracing::warn!(
                %url,
                "DEVELOPMENT SETTING: the connection to the broker is not encrypted, and neither side proves who it is"
            );
        }
        let status = watch::Sender::new(BrokerStatus {
            url: url.to_string(),
            ..BrokerStatus::default()
        });
        let started = Started {
            status: status.subscribe(),
            outbox: Arc::default(),
        };
        let shared = Arc::new(Shared {
            core: Arc::clone(core),
            client,
            connection: watch::Sender::new(0),
            status,
            cut: Notify::new(),
        });
        let lanes = Lanes::start(&shared, tasks);
        let outbox = Arc::clone(&started.outbox);
        tasks.spawn(notify(Arc::clone(&shared), outbox, stop.clone()));
        let link = Self {
            shared,
            events,
            url,
            connections: 0,
            pause_ms: PAUSE_MS.0,
        };
        tasks.spawn(link.run(lanes, stop));
        Ok(started)
    }

    async fn run(mut self, lanes: Lanes, mut stop: watch::Receiver<bool>) {
        loop {
            let lost = tokio::select! {
                lost = self.connection(&lanes) => Some(lost),
                _ = stop.wait_for(|stop| *stop) => None,
            };
            let Some(lost) = lost else {
                return self.disconnect().await;
            };
            self.on_lost(&lost);
            let pause = self.pause();
            tracing::warn!(url = %self.url, reason = lost, retry_ms = pause, "no connection to the broker");
            tokio::select! {
                () = sleep(Duration::from_millis(pause)) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Connects and serves; returns why there is no connection any more.
    async fn connection(&mut self, lanes: &Lanes) -> String {
        let deadline = Instant::now() + CONNECT_TIME;
        match timeout_at(deadline, self.subscribe()).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return reason,
            Err(_) => return format!("no answer within {} s", CONNECT_TIME.as_secs()),
        }
        self.on_subscribed();
        loop {
            let event = tokio::select! {
                event = self.events.poll() => event,
                () = self.shared.cut.notified() => return "cut on purpose".to_owned(),
            };
            match event {
                Ok(Event::Incoming(Packet::Publish(publish))) => self.on_publish(lanes, publish),
                Ok(_) => {}
                Err(error) => return words(&error),
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), String> {
        loop {
            match self.events.poll().await.map_err(|e| words(&e))? {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let filters = FILTERS
                        .map(|f| SubscribeFilter::new(f.to_owned(), rumqttc::QoS::AtLeastOnce));
                    let asked = self.shared.client.try_subscribe_many(filters);
                    asked.map_err(|e| e.to_string())?;
                }
                Event::Incoming(Packet::SubAck(ack)) => {
                    return match refused(&ack.return_codes) {
                        None => Ok(()),
                        Some(filter) => Err(format!(
                            "the broker refuses the subscription to {filter}; allow the cloud's client id or user to read it"
                        )),
                    };
                }
                _ => {}
            }
        }
    }

    fn on_subscribed(&mut self) {
        self.connections += 1;
        self.pause_ms = PAUSE_MS.0;
        self.shared.connection.send_replace(self.connections);
        self.shared.status.send_modify(|status| {
            status.connected = true;
            status.connections = self.connections;
        });
        tracing::info!(url = %self.url, "answering at the broker");
    }

    fn on_publish(&self, lanes: &Lanes, publish: Publish) {
        let topic = std::str::from_utf8(&publish.topic).unwrap_or_default();
        // A broker that delivers what was not subscribed to is not ours to mend.
        let Some(Ok(thing)) = split_thing(topic).map(|(thing, _)| ThingName::new(thing)) else {
            return self.shared.count_dropped();
        };
        let max = self.shared.core.limits().message_bytes_max();
        let request = Request {
            connection: self.connections,
            thing,
            topic: topic.to_owned(),
            payload: publish.payload,
            qos: match publish.qos {
                rumqttc::QoS::AtMostOnce => QoS::AtMostOnce,
                rumqttc::QoS::AtLeastOnce | rumqttc::QoS::ExactlyOnce => QoS::AtLeastOnce,
            },
        };
        if request.payload.len() > max || !lanes.put(request) {
            self.shared.count_dropped();
        }
    }

    fn on_lost(&mut self, reason: &str) {
        self.shared.connection.send_replace(0);
        self.shared.status.send_modify(|status| {
            status.connected = false;
            status.last_error = Some(reason.to_owned());
        });
        // Nothing of an old connection is sent over the next one.
        self.events.clean();
        self.events
            .drain_pending_as_failed(NoticeFailureReason::SessionReset);
    }

    /// Doubles from attempt to attempt, with up to half as much again, so that several clouds do not come together.
    fn pause(&mut self) -> u64 {
        let pause = self.pause_ms;
        self.pause_ms = (pause * 2).min(PAUSE_MS.1);
        let jitter = id::random_u64().unwrap_or_default() % (pause / 2 + 1);
        pause + jitter
    }

    async fn disconnect(mut self) {
        self.shared.connection.send_replace(0);
        if self.shared.client.try_disconnect_now().is_ok() {
            let ended = async { while self.events.poll().await.is_ok() {} };
            // A broker that does not read any more hears of it from the closed socket.
            timeout(STOP_TIME, ended).await.ok();
        }
    }
}

impl Shared {
    fn count_dropped(&self) {
        self.status.send_modify(|status| status.dropped += 1);
    }

    /// Asks the service and sends what it says, in order.
    pub(super) async fn answer(&self, request: Request) {
        let Request {
            connection,
            thing,
            topic,
            payload,
            qos,
        } = request;
        if *self.connection.borrow() != connection {
            return;
        }
        let answer = self.core.handle(&thing, &topic, &payload, qos).await;
        let Some(answer) = answer else {
            return;
        };
        for message in answer.replies {
            if !self.publish(connection, message).await {
                return;
            }
        }
        if answer.cut {
            self.cut.notify_one();
        }
    }

    /// Hands a message to the connection it belongs to; false = that one has ended.
    async fn publish(&self, connection: u64, message: Outgoing) -> bool {
        if *self.connection.borrow() != connection {
            return false;
        }
        let options = PublishOptions::new(to_qos(message.qos));
        let topic = message.topic.to_string();
        match self
            .client
            .try_publish(topic.as_str(), message.payload.clone(), options)
        {
            Ok(()) => true,
            Err(ClientError::RequestChannelFull(_)) => {
                let mut now = self.connection.subscribe();
                let sent = self.client.publish(topic, message.payload, options);
                tokio::select! {
                    sent = sent => sent.is_ok(),
                    _ = now.wait_for(|now| *now != connection) => false,
                }
            }
            Err(_) => false,
        }
    }

    /// Publishes a notification; false = it has not arrived at the broker.
    async fn deliver(&self, message: &Outgoing) -> bool {
        let sent = self
            .client
            .publish_tracked(
                message.topic.to_string(),
                Bytes::clone(&message.payload),
                PublishOptions::new(to_qos(message.qos)),
            )
            .await;
        match sent {
            Ok(notice) => notice.wait_async().await.is_ok(),
            Err(_) => false,
        }
    }
}

/// Sends notifications as long as there is a connection, each until the broker has it.
async fn notify(shared: Arc<Shared>, outbox: Arc<Outbox>, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(NOTIFICATIONS_IN_FLIGHT_MAX));
    let mut connection = shared.connection.subscribe();
    let mut flying = JoinSet::new();
    let send = async {
        loop {
            // Neither the semaphore nor the connection's sender is ever closed.
            let Ok(seat) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            if connection.wait_for(|number| *number != 0).await.is_err() {
                return;
            }
            let message = outbox.take().await;
            if *connection.borrow() == 0 {
                // It ended while nothing was to be told.
                outbox.put_back(message);
                continue;
            }
            let (shared, outbox) = (Arc::clone(&shared), Arc::clone(&outbox));
            flying.spawn(async move {
                match shared.deliver(&message).await {
                    true => outbox.arrived(&message.topic),
                    false => outbox.put_back(message),
                }
                drop(seat);
            });
            while flying.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = send => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

fn refused(codes: &[SubscribeReasonCode]) -> Option<&'static str> {
    let failed = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Failure);
    FILTERS
        .iter()
        .zip(codes)
        .find(|(_, code)| failed(code))
        .map(|(filter, _)| *filter)
}

fn to_qos(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
    }
}

/// An error with its causes, on one line.
fn words(error: &ConnectionError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = inner.source();
    }
    text
}

fn options(config: &BrokerConfig) -> Result<MqttOptions, CloudError> {
    let tls = config.tls()?;
    let url = &config.url;
    let mut options = MqttOptions::new(&config.client_id, (url.host.clone(), url.port));
    options
        .set_keep_alive(KEEP_ALIVE_S)
        .set_clean_session(true)
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
        .set_inflight(IN_FLIGHT_MAX)
        .set_max_request_batch(64);
    if let Some(login) = &config.login {
        options.set_credentials(&login.user, login.password.clone());
    }
    let loopback_only = tls.is_none() && !config.plain_beyond_loopback;
    if let Some(tls) = tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    let url = url.clone();
    options.set_socket_connector(move |_, network| {
        let url = url.clone();
        async move {
            let stream = dial(url, loopback_only, network).await?;
            // A machine that vanished: rumqttc pings only when nothing else is sent.
            set_tcp_user_timeout(&stream, u32::from(KEEP_ALIVE_S) * 1500)?;
            Ok(stream)
        }
    });
    Ok(options)
}
