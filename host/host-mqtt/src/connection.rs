//! A connection of our own: made, watched, and made anew.
//!
//! ```text
//!            ┌────────────── delay (doubles, jitter) ◄──────────┐
//!            ▼                                                  │
//!       Connecting ──CONNACK──► Connected ──error, peer, hung──►│
//!            └───────── refused, unreachable, TLS ─────────────►┘
//!   stop(): DISCONNECT where connected ──► Stopped
//! ```

use std::sync::Arc;
use std::time::Duration;

use host_runtime::mailbox::Mailbox;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NoticeFailureReason, Packet,
    TlsConfiguration,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::back_off::BackOff;
use crate::config::{ConnectionConfig, Security};
use crate::core::Core;
use crate::error::MqttError;
use crate::reason::{Lost, Reason};
use crate::socket::Dial;
use crate::take_over::TakeOver;
use crate::tls;
use crate::transport::MqttTransport;
use crate::turnstile::Turnstile;

/// How long an orderly end may wait for acknowledgements before the DISCONNECT is sent without them.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long `stop` waits after that.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Requests written to the socket with one flush.
const REQUEST_BATCH_MAX: usize = 16;

/// A connection of our own keeps its client for life.
const GENERATION: u64 = 0;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionState {
    /// An attempt is under way.
    Connecting,
    /// There is a connection.
    Connected,
    /// The next attempt follows after a delay, or when it is this connection's turn.
    Waiting {
        /// The delay.
        retry_ms: u64,
    },
    /// Ended for good.
    Stopped,
}

/// What there is to say about a connection.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConnectionStatus {
    /// Where it stands.
    pub state: ConnectionState,
    /// The broker.
    pub endpoint: String,
    /// The client id.
    pub client_id: String,
    /// Attempts since the last connection, or since the start.
    pub attempts: u32,
    /// Connections made so far.
    pub connections: u64,
    /// Why the last one ended or was not made.
    pub last_error: Option<String>,
}

/// A running connection. Clones are the same; it goes on until [`stop`](Self::stop).
#[derive(Clone)]
pub struct Connection {
    core: Arc<Core>,
    /// In the log.
    name: Arc<str>,
    client: AsyncClient,
    stop: Arc<watch::Sender<Stop>>,
    status: watch::Receiver<ConnectionStatus>,
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Not.
    No,
    /// With a DISCONNECT, if there is a connection.
    InOrder,
    /// As it is.
    Now,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection")
            .field(&*self.status.borrow())
            .finish()
    }
}

impl Connection {
    /// Read certificates and key and start connecting, in a task of its own.
    ///
    /// # Errors
    /// What the operator must mend: a value, a file, plaintext where it is not allowed.
    pub fn start(config: ConnectionConfig) -> Result<Self, MqttError> {
        Self::begin(config, None)
    }

    /// The same for one of many: it waits for its turn before each attempt.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_in_turn(
        config: ConnectionConfig,
        turnstile: &Turnstile,
    ) -> Result<Self, MqttError> {
        Self::begin(config, Some(turnstile.clone()))
    }

    fn begin(config: ConnectionConfig, turnstile: Option<Turnstile>) -> Result<Self, MqttError> {
        let runtime = Handle::try_current().map_err(|_| MqttError::NoRuntime)?;
        let options = config.mqtt_options()?;
        let (client, mut event_loop) = AsyncClient::builder(options)
            .capacity(config.limits.queue_max)
            .build();
        let mut network = event_loop.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(config.limits.connect_timeout.as_secs().max(1));
        event_loop.set_network_options(network);

        let limits = &config.limits;
        let core = Core::new(
            client.clone(),
            runtime.clone(),
            limits.ack_timeout,
            limits.unanswered_max,
        );
        let (stop, stopping) = watch::channel(Stop::No);
        let (publish, status) = watch::channel(ConnectionStatus {
            state: ConnectionState::Connecting,
            endpoint: config.endpoint.to_string(),
            client_id: config.client_id.clone(),
            attempts: 0,
            connections: 0,
            last_error: None,
        });
        let name = config.name.as_str().into();
        let task = Task {
            back_off: BackOff::new(config.back_off, seed()?),
            take_over: TakeOver::new(config.back_off),
            is_hung: core.is_hung.subscribe(),
            turnstile,
            config,
            core: core.clone(),
            client: client.clone(),
            event_loop,
            stopping,
            status: publish,
            connected_at: None,
        };
        // Not joined on purpose: its end is the state `Stopped`.
        drop(runtime.spawn(task.run()));
        Ok(Self {
            core,
            name,
            client,
            stop: Arc::new(stop),
            status,
        })
    }

    /// A device on it; `subscribe_replies` as [`ReplySubscriptions`](crate::ReplySubscriptions) resolves it. If there
    /// is a connection, the device is told at once.
    ///
    /// # Errors
    /// A device of that name is on it already.
    pub fn attach(
        &self,
        thing: &str,
        mailbox: Mailbox,
        subscribe_replies: bool,
    ) -> Result<MqttTransport, MqttError> {
        self.core.attach(thing, mailbox, subscribe_replies)?;
        Ok(MqttTransport::new(self.core.clone(), thing))
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ConnectionStatus {
        self.status.borrow().clone()
    }

    /// Every change of [`status`](Self::status).
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ConnectionStatus> {
        self.status.clone()
    }

    /// Devices that are on it now.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.core.devices()
    }

    /// Messages that came for no device.
    #[must_use]
    pub fn unrouted(&self) -> u64 {
        self.core.unrouted()
    }

    /// End it in order: what is under way is given a moment to be acknowledged, then DISCONNECT, then the end. Also to
    /// be called before the process that owns it restarts.
    pub async fn stop(&self) {
        self.stop.send_replace(Stop::InOrder);
        let mut status = self.status.clone();
        if self.core.is_connected() {
            // It may find no room behind what waits for the network.
            let is_asked = self.client.try_disconnect().is_ok();
            if !is_asked || !stopped(&mut status, DRAIN_MAX).await {
                debug!(
                    device = %self.name,
                    "{} calls are not acknowledged; disconnecting without",
                    self.core.pending()
                );
                // A loop that is gone has stopped.
                drop(self.client.try_disconnect_now());
            }
        }
        if !stopped(&mut status, STOP_MAX).await {
            warn!(device = %self.name, "the MQTT connection did not end in order");
            self.stop.send_replace(Stop::Now);
            stopped(&mut status, STOP_MAX).await;
        }
    }
}

/// Whether it has ended, after at most so long.
async fn stopped(status: &mut watch::Receiver<ConnectionStatus>, max: Duration) -> bool {
    let ended = status.wait_for(|status| status.state == ConnectionState::Stopped);
    // An error means that the task is gone, which is as good.
    tokio::time::timeout(max, ended).await.is_ok()
}

impl ConnectionConfig {
    /// What a client of rumqttc needs for this connection: for an application that makes its own and shares it.
    ///
    /// # Errors
    /// What the operator must mend: a value, a file, plaintext where it is not allowed.
    pub fn mqtt_options(&self) -> Result<MqttOptions, MqttError> {
        self.check()?;
        options(self)
    }
}

fn options(config: &ConnectionConfig) -> Result<MqttOptions, MqttError> {
    let endpoint = &config.endpoint;
    let mut options = MqttOptions::new(&config.client_id, (endpoint.host.clone(), endpoint.port));
    options
        .set_keep_alive(config.keep_alive_s)
        .set_clean_session(true)
        .set_max_packet_size(
            config.limits.packet_max_bytes,
            config.limits.packet_max_bytes,
        )
        .set_inflight(config.limits.in_flight_max)
        .set_max_request_batch(REQUEST_BATCH_MAX);
    if let Some(login) = &config.login {
        match login.password() {
            Some(password) => options.set_credentials(&login.user_name, password.to_owned()),
            None => options.set_username(&login.user_name),
        };
    }
    let alpn = config.alpn.protocols(endpoint, &config.security);
    if let Some(tls) = tls::client_config(&config.security, alpn)? {
        options.set_transport(rumqttc::Transport::tls_with_config(
            TlsConfiguration::Rustls(Arc::new(tls)),
        ));
    }
    let dial = Dial {
        endpoint: endpoint.clone(),
        loopback_only: config.security == Security::PlaintextLoopback,
        // What the broker itself would wait for us, MQTT 3.1.1 section 3.1.2.10.
        unacknowledged_max: Duration::from_millis(u64::from(config.keep_alive_s) * 1500),
        time: config.limits.connect_timeout,
    };
    options.set_socket_connector(move |_, network| dial.clone().connect(network));
    Ok(options)
}

fn seed() -> Result<u64, MqttError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| MqttError::Random(e.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// The task that drives the event loop; nothing else polls it.
struct Task {
    config: ConnectionConfig,
    /// None = it is the only one.
    turnstile: Option<Turnstile>,
    core: Arc<Core>,
    client: AsyncClient,
    event_loop: EventLoop,
    back_off: BackOff,
    take_over: TakeOver,
    is_hung: watch::Receiver<bool>,
    stopping: watch::Receiver<Stop>,
    status: watch::Sender<ConnectionStatus>,
    connected_at: Option<Instant>,
}

impl Task {
    async fn run(mut self) {
        while self.turn().await {
            self.attempt();
            let lost = loop {
                match self.next().await {
                    Ok(event) => self.on_event(&event),
                    Err(lost) => break lost,
                }
            };
            let lost = self.on_lost(lost);
            if self.is_stopping() || lost.reason == Reason::Asked || !self.delay(&lost).await {
                break;
            }
        }
        self.set_state(ConnectionState::Stopped);
        info!(device = %self.config.name, "disconnected from {}", self.config.endpoint);
    }

    /// The next event, or why there will be none.
    async fn next(&mut self) -> Result<Event, Lost> {
        let connected = self.connected_at.is_some();
        let result = if connected {
            // Polling is given up only to throw the connection away: that may lose what is half read.
            tokio::select! {
                biased;
                Ok(_) = self.stopping.wait_for(|stop| *stop == Stop::Now) => {
                    return Err(Lost::new(Reason::Asked, "disconnected"));
                }
                Ok(_) = self.is_hung.wait_for(|hung| *hung) => {
                    let detail = format!(
                        "{} calls in a row were not acknowledged",
                        self.config.limits.unanswered_max
                    );
                    return Err(Lost::new(Reason::KeepAlive, detail));
                }
                result = self.event_loop.poll() => result,
            }
        } else {
            tokio::select! {
                biased;
                // An error is the handle gone, and with it all who could want this connection to stop.
                Ok(_) = self.stopping.wait_for(|stop| *stop != Stop::No) => {
                    return Err(Lost::new(Reason::Asked, "disconnected"));
                }
                result = self.event_loop.poll() => result,
            }
        };
        result.map_err(|error| self.lost(&error, connected))
    }

    fn lost(&self, error: &ConnectionError, connected: bool) -> Lost {
        debug!(device = %self.config.name, "MQTT event loop: {error:?}");
        Lost::of(error, connected, self.config.security.ca())
    }

    fn on_event(&mut self, event: &Event) {
        let is_new = matches!(event, Event::Incoming(Packet::ConnAck(_)));
        if is_new {
            self.connected_at = Some(Instant::now());
            if !self.take_over.is_suspected() {
                self.back_off.reset();
            }
            self.status.send_modify(|status| {
                status.state = ConnectionState::Connected;
                status.attempts = 0;
                status.connections += 1;
            });
            info!(
                device = %self.config.name,
                "connected to {} as `{}`",
                self.config.endpoint, self.config.client_id
            );
        }
        self.core.on_event(GENERATION, event);
        // Who asks for the end looks for a connection after that, and this the other way round: one of them sees the other.
        if is_new && self.is_stopping() {
            drop(self.client.try_disconnect_now());
        }
    }

    /// There is no connection any more, or still none.
    fn on_lost(&mut self, lost: Lost) -> Lost {
        let lost = self.suspect_take_over(lost);
        // First the devices, under their lock; so nothing is queued after the queues are emptied below.
        self.core.lost(GENERATION, &lost);
        self.event_loop.clean();
        self.event_loop
            .drain_pending_as_failed(NoticeFailureReason::SessionReset);
        self.connected_at = None;
        self.status
            .send_modify(|status| status.last_error = Some(lost.to_string()));
        lost
    }

    fn suspect_take_over(&mut self, lost: Lost) -> Lost {
        let Some(since) = self.connected_at else {
            return lost;
        };
        let is_calm = self
            .take_over
            .ended(since.elapsed(), lost.reason == Reason::Peer);
        if is_calm {
            self.back_off.reset();
        }
        if lost.reason != Reason::Peer || !self.take_over.is_suspected() {
            return lost;
        }
        let detail = format!(
            "the broker closed the connection {} times in a row before it lasted: another client may use the client id `{}`",
            self.take_over.in_a_row(),
            self.config.client_id
        );
        Lost::new(Reason::TakenOver, detail)
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow() != Stop::No
    }

    /// Wait for the next attempt; false = stop instead.
    async fn delay(&mut self, lost: &Lost) -> bool {
        let delay = self.back_off.next_delay();
        let retry_ms = delay.total_ms();
        self.set_state(ConnectionState::Waiting { retry_ms });
        warn!(
            device = %self.config.name,
            reason = %lost.reason,
            "{}; retrying in {} s ({} s and jitter of {} s)",
            lost.detail,
            seconds(retry_ms),
            seconds(delay.base_ms),
            seconds(delay.jitter_ms)
        );
        tokio::select! {
            biased;
            Ok(_) = self.stopping.wait_for(|stop| *stop != Stop::No) => false,
            () = tokio::time::sleep(Duration::from_millis(retry_ms)) => true,
        }
    }

    /// Wait for the turn among all connections; false = stop instead.
    async fn turn(&mut self) -> bool {
        let Some(turnstile) = &self.turnstile else {
            return true;
        };
        let now = Instant::now();
        let turn = turnstile.take(now);
        let wait = turn.duration_since(now);
        if !wait.is_zero() {
            let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.set_state(ConnectionState::Waiting { retry_ms });
            debug!(device = %self.config.name, "the turn of this connection is in {} s", seconds(retry_ms));
        }
        tokio::select! {
            biased;
            Ok(_) = self.stopping.wait_for(|stop| *stop != Stop::No) => false,
            () = tokio::time::sleep_until(turn) => true,
        }
    }

    fn attempt(&self) {
        let client_id = &self.config.client_id;
        info!(
            device = %self.config.name,
            "connecting to {} as `{client_id}` (client id of {} characters)",
            self.config.endpoint,
            client_id.len()
        );
        if self.config.security == Security::PlaintextAnywhere {
            warn!(
                device = %self.config.name,
                "DEVELOPMENT SETTING: the connection to {} is not encrypted, and neither side proves who it is",
                self.config.endpoint
            );
        }
        self.status.send_modify(|status| {
            status.state = ConnectionState::Connecting;
            status.attempts = status.attempts.saturating_add(1);
        });
    }

    fn set_state(&self, state: ConnectionState) {
        self.status.send_modify(|status| status.state = state);
    }
}

/// Milliseconds as seconds with one digit.
fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}
