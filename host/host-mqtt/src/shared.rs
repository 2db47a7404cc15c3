//! A connection that an application owns: it connects, reconnects and disconnects as it likes, and the devices of otad
//! ride along. Nothing here ever disconnects.

use std::sync::Arc;

use host_runtime::mailbox::Mailbox;
use rumqttc::{AsyncClient, ConnectionError, Event};
use tokio::runtime::Handle;

use crate::config::Limits;
use crate::core::Core;
use crate::error::MqttError;
use crate::reason::{Lost, Reason};
use crate::transport::MqttTransport;

/// Devices on somebody else's connection. Clones are the same.
///
/// The application runs its event loop and shows every result to [`incoming`](Self::incoming) or [`lost`](Self::lost);
/// both return at once. It wants a packet limit above 160 KiB, for rumqttc's default of 10 KiB ends the connection at
/// the first larger block.
///
/// ```no_run
/// # async fn run(mailbox: host_runtime::mailbox::Mailbox) -> Result<(), host_mqtt::MqttError> {
/// use rumqttc::{AsyncClient, MqttOptions};
///
/// let mut options = MqttOptions::new("thing", ("localhost", 1883));
/// options.set_max_packet_size(256 * 1024, 256 * 1024);
/// let (client, mut event_loop) = AsyncClient::builder(options).capacity(64).build();
/// let shared = host_mqtt::SharedConnection::new(client)?;
/// let transport = shared.attach("thing", mailbox, true)?;
/// // … start the device with `transport`, then:
/// loop {
///     match event_loop.poll().await {
///         Ok(event) => shared.incoming(&event),
///         Err(error) => shared.lost(&error),
///     }
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct SharedConnection {
    core: Arc<Core>,
    generation: u64,
}

impl std::fmt::Debug for SharedConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedConnection")
            .field("connected", &self.core.is_connected())
            .finish_non_exhaustive()
    }
}

impl SharedConnection {
    /// Share this client's connection, not connected yet: the CONNACK comes through [`incoming`](Self::incoming).
    ///
    /// # Errors
    /// Outside a tokio runtime.
    pub fn new(client: AsyncClient) -> Result<Self, MqttError> {
        let runtime = Handle::try_current().map_err(|_| MqttError::NoRuntime)?;
        let limits = Limits::default();
        Ok(Self {
            core: Core::new(client, runtime, limits.ack_timeout, limits.unanswered_max),
            generation: 0,
        })
    }

    /// A device on it; `subscribe_replies` as [`ReplySubscriptions`](crate::ReplySubscriptions) resolves it.
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

    /// An event of the loop. Messages that are not for a device of ours are left to the application.
    pub fn incoming(&self, event: &Event) {
        self.core.on_event(self.generation, event);
    }

    /// The loop has failed: the connection is gone, and every call under way with it.
    pub fn lost(&self, error: &ConnectionError) {
        // Whose files it has, the application knows.
        let lost = Lost::of(error, self.core.is_connected(), None);
        self.core.lost(self.generation, &lost);
    }

    /// The application ends the connection itself.
    pub fn closed(&self) {
        self.core.lost(self.generation, &closed());
    }

    /// The application goes on with another client: the devices move to it, and what is still shown to earlier handles
    /// no longer counts.
    #[must_use]
    pub fn renew(&self, client: AsyncClient) -> Self {
        Self {
            core: self.core.clone(),
            generation: self.core.replace_client(client, &closed()),
        }
    }

    /// The connection is there already; use it where the CONNACK was read before this was made.
    pub fn connected(&self, session_present: bool) {
        self.core.connected(self.generation, session_present);
    }
}

fn closed() -> Lost {
    Lost::new(Reason::Asked, "closed by the application")
}
