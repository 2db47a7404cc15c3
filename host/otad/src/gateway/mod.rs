//! The host library: from a configuration to running devices.
//!
//! ```text
//! Config ─▶ Gateway (lock, engine, agent build, plugins, trust store) ─▶ prepare(device) ─▶ start(transport)
//! ```
//!
//! An application that owns its MQTT connection shares it by [`Gateway::share`], as `examples/shared_connection.rs`
//! does; [`Gateway::connect`] makes a connection for the device; [`Gateway::prepare`] is for any other transport. Not here: signals,
//! control socket and exit code of the daemon (`daemon.rs`).

mod agents;
mod build;
pub(crate) mod connection;
mod download;
pub(crate) mod kept;
mod level;
pub(crate) mod native;
mod placed;
mod plugins;
mod settings;
mod target;
mod trusted;
mod witness;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host_crypto::TrustError;
use host_http::{HttpClient, HttpError, ProxyError};
use host_mqtt::{
    Connection, ConnectionConfig, ConnectionState, MqttError, MqttTransport, SharedConnection,
    Turnstile,
};
use host_runtime::bandwidth::Bandwidth;
use host_runtime::choice;
use host_runtime::device::{DeviceConfig, DeviceError, DevicePorts};
use host_runtime::engine::{Engine, EngineError, EngineOptions, Refusal};
use host_runtime::mailbox::Mailbox;
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::clock::{Clock, SystemClock};
use host_runtime::ports::commands::TokioCommands;
use host_runtime::ports::seed::SystemSeed;
use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::BlockingPool;
use host_runtime::supervisor::{self, DeviceHandle, OwnDevice, PendingDevice, Presence};
use host_runtime::target::TargetConfig;
use host_runtime::types::Setting;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::code::{CodeError, Gate, Kind};
use crate::config::keys::LOG_LEVEL;
use crate::config::{BUILD, Config, Device, PluginChoice, Target};
use crate::exit::{Exit, Failed, chain};
use crate::lock::{self, Keeping, Lock};

pub(crate) use agents::{Agents, label as agent_label};
use build::{BuildTarget, Guest};
use download::Downloads;
use kept::Shelf;
pub(crate) use kept::{Hold, to_its_end};
pub use native::GrantError;
pub(crate) use plugins::{Plugins, label};
#[cfg(test)]
pub(crate) use settings::question;
pub(crate) use settings::{Asker, Denial, Questions};
pub(crate) use target::{STAGING, hardware_reset, version_reader};
pub(crate) use trusted::Trusted;
pub use witness::Witnesses;

/// Most bytes of a build's label: a path that somebody can still recognise.
const LABEL_MAX_BYTES: usize = 256;

/// Why a gateway or one of its devices cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Another process uses the state directory, or it cannot be used.
    #[error("{0}")]
    Lock(Failed),
    /// The state directory cannot be used.
    #[error("state directory {}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
    /// The component engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The agent is refused.
    #[error("agent {label}")]
    Agent {
        /// Where it came from.
        label: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// A file is not let in.
    #[error("{kind} {label}")]
    Code {
        /// Agent or plugin.
        kind: Kind,
        /// The file.
        label: String,
        /// Why.
        #[source]
        source: CodeError,
    },
    /// A plugin is refused.
    #[error("plugin {label}")]
    Plugin {
        /// Where it came from.
        label: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// A native plugin is refused.
    #[error("plugin {label}: {reason}")]
    Library {
        /// Where it came from.
        label: String,
        /// Why.
        reason: String,
    },
    /// A native plugin cannot be given what the configuration grants it.
    #[error("grants of target \"{target}\"")]
    Grant {
        /// The target.
        target: String,
        /// Why.
        #[source]
        source: native::GrantError,
    },
    /// The trust store.
    #[error("trust store")]
    Trust(#[source] TrustError),
    /// Nothing can be recorded there.
    #[error("--record {}", path.display())]
    Record {
        /// The directory.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: io::Error,
    },
    /// There is no thread for a shadow.
    #[error("--shadow")]
    Shadow(#[source] io::Error),
    /// Storage of a target.
    #[error("{}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: io::Error,
    },
    /// No such device in the configuration.
    #[error("the configuration has no device \"{0}\"")]
    NoDevice(String),
    /// It is set up already: a second agent would share its journal and its targets.
    #[error(
        "device \"{0}\" has an agent in this process: use its handle, or stop it and wait until it has stopped"
    )]
    Running(String),
    /// The device cannot be set up.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The HTTP client cannot be made.
    #[error("[http]")]
    Http(#[from] HttpError),
    /// The environment names a proxy that is none.
    #[error("no proxy: mend the variable, or set `proxy = \"none\"` in [http]")]
    Proxy(#[from] ProxyError),
    /// The MQTT client cannot be made at all. (That a connection fails is no error: it is tried again.)
    #[error("device \"{device}\": no MQTT client")]
    Mqtt {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: MqttError,
    },
}

impl From<GatewayError> for Failed {
    fn from(error: GatewayError) -> Self {
        let exit = match &error {
            GatewayError::Lock(failed) => failed.exit,
            GatewayError::Trust(_)
            | GatewayError::NoDevice(_)
            | GatewayError::Http(_)
            | GatewayError::Proxy(_)
            | GatewayError::Grant { .. }
            | GatewayError::Code { .. }
            | GatewayError::Mqtt { .. } => Exit::Config,
            GatewayError::Device(DeviceError::Config { .. } | DeviceError::Refused { .. }) => {
                Exit::Config
            }
            GatewayError::State { .. }
            | GatewayError::Random(_)
            | GatewayError::Engine(_)
            | GatewayError::Agent { .. }
            | GatewayError::Plugin { .. }
            | GatewayError::Library { .. }
            | GatewayError::Record { .. }
            | GatewayError::Shadow(_)
            | GatewayError::Storage { .. }
            | GatewayError::Running(_)
            | GatewayError::Device(_) => Exit::Failed,
        };
        Self::new(exit, chain(&error))
    }
}

/// Everything that the devices of one configuration share. It holds the lock of the state directory, and so do its
/// devices, until the last of them and the last work begun for them has ended.
pub struct Gateway {
    config: Config,
    trusted: Trusted,
    ports: DevicePorts,
    turnstile: Turnstile,
    /// Devices that were set up, by their names.
    devices: Mutex<BTreeMap<String, Presence>>,
    /// Of devices, by their names, as far as they are made.
    connections: Mutex<BTreeMap<String, Connection>>,
    /// How many devices use the connection of another one, by that one's name.
    guests: BTreeMap<String, usize>,
    /// None = no cap, and nobody counts.
    bandwidth: Option<Bandwidth>,
    plugins: Arc<Plugins>,
    agents: Arc<Agents>,
    lock: Arc<Lock>,
}

/// A device with its connection.
#[derive(Clone, Debug)]
pub struct ConnectedDevice {
    /// The device.
    pub handle: DeviceHandle,
    /// Its connection, which others may use as well.
    pub connection: Connection,
    /// Application events up to this one were stored before it was started.
    pub former_events: u64,
}

impl Gateway {
    /// Load the trust store, take the lock, load the engine. To be called on a tokio runtime.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn open(config: Config) -> Result<Self, GatewayError> {
        let trusted = Trusted::read(&config)?;
        Self::open_with(config, trusted)
    }

    /// The same, with what was read before.
    pub(crate) fn open_with(config: Config, trusted: Trusted) -> Result<Self, GatewayError> {
        let state_dir = &config.daemon.state_dir.value;
        let lock = Arc::new(lock::take(state_dir).map_err(GatewayError::Lock)?);
        let state = FileStateDir::open(state_dir).map_err(|source| GatewayError::State {
            path: state_dir.clone(),
            source,
        })?;
        let engine = Engine::new(&EngineOptions {
            cache_dir: Some(config.daemon.cache_dir.clone()),
            ..EngineOptions::default()
        })?;
        let ports = DevicePorts {
            state: Arc::new(state),
            workers: Arc::new(Keeping::new(BlockingPool::current(), Arc::clone(&lock))),
            commands: Arc::new(TokioCommands::current()),
            clock: Arc::new(SystemClock::new()),
            seed: Arc::new(SystemSeed::new().map_err(GatewayError::Random)?),
        };
        let gate = Arc::new(Gate::new(&config, Arc::clone(&ports.clock)));
        let shelf = |kind| {
            let places = kept::places(&config, kind);
            Shelf::new(&ports.state, kind, &lock, places)
        };
        let workers = Handle::current();
        Ok(Self {
            trusted,
            turnstile: Turnstile::new(config.daemon.connects_per_s_max),
            devices: Mutex::default(),
            connections: Mutex::default(),
            guests: guests(&config),
            bandwidth: (!config.bandwidth.is_none())
                .then(|| Bandwidth::new(config.bandwidth.clone())),
            agents: Arc::new(Agents::new(
                &config,
                &engine,
                &ports.state,
                &gate,
                shelf(choice::Kind::Agent),
                &workers,
            )),
            plugins: Arc::new(Plugins::new(
                &config,
                &engine,
                &ports.state,
                &gate,
                shelf(choice::Kind::Plugin),
                &workers,
            )),
            config,
            ports,
            lock,
        })
    }

    /// Let somebody look on at the agents of all devices that are set up from now on.
    #[must_use]
    pub fn with_witnesses(mut self, witnesses: Witnesses) -> Self {
        self.agents = Arc::new(self.agents.with_witnesses(witnesses));
        self
    }

    /// Who looks on.
    #[must_use]
    pub fn witnesses(&self) -> &Witnesses {
        self.agents.witnesses()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whom it trusts, as it was read.
    pub(crate) fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Its agent builds, for whoever puts another one in.
    pub(crate) fn agents(&self) -> Arc<Agents> {
        Arc::clone(&self.agents)
    }

    /// Its plugin builds, for whoever puts another one in.
    pub(crate) fn plugins(&self) -> Arc<Plugins> {
        Arc::clone(&self.plugins)
    }

    /// The clock that its devices go by.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.ports.clock)
    }

    /// Set up a device; its transport comes with [`PendingDevice::start`]. Another one may be set up for it when this one has
    /// ended, or was dropped without a start. A device whose last handle was dropped ends a moment later;
    /// whoever wants to know when calls [`stop`](DeviceHandle::stop) before.
    ///
    /// # Errors
    /// [`GatewayError`]; [`Running`](GatewayError::Running) as long as it has an agent.
    pub fn prepare(&self, device: &str) -> Result<PendingDevice, GatewayError> {
        let device = self.device(device)?;
        let name = &device.name.value;
        // Until it is entered: of two that ask at once, one is told.
        let mut devices = locked(&self.devices);
        if devices.get(name).is_some_and(|former| !former.is_over()) {
            return Err(GatewayError::Running(name.clone()));
        }
        let pending = self.set_up(device)?;
        devices.insert(name.clone(), pending.presence());
        Ok(pending)
    }

    fn set_up(&self, device: &Device) -> Result<PendingDevice, GatewayError> {
        let own = OwnDevice::default();
        let targets: Result<Vec<_>, GatewayError> = device
            .targets
            .iter()
            .map(|t| {
                let name = &device.name.value;
                let (plugin, former_plugin) = match self.build_target(t, &own) {
                    Some(plugin) => (plugin, None),
                    None => self.plugins.serving(name, t)?,
                };
                let (trust, commands) = (&self.trusted.store, &self.ports.commands);
                let target = target::target(&self.config, trust, name, t, plugin, commands)?;
                Ok(TargetConfig {
                    former_plugin,
                    ..target
                })
            })
            .collect();
        let name = device.name.value.clone();
        let mut settings = device.agent.clone();
        settings.push(Setting {
            key: "reply_subscriptions".to_owned(),
            value: match device.mqtt.subscribes_replies() {
                true => "always".to_owned(),
                false => "never".to_owned(),
            },
        });
        if !settings.iter().any(|setting| setting.key == LOG_LEVEL.key) {
            settings.push(Setting {
                key: LOG_LEVEL.key.to_owned(),
                value: level::least_read().to_string(),
            });
        }
        let (agent, former_agent) = self.agents.serving(device)?;
        let config = DeviceConfig {
            agent,
            former_agent,
            settings,
            targets: targets?,
            topics: vec![format!("$aws/things/{name}/")],
            name,
        };
        let mut pending = supervisor::prepare(config, self.ports.clone())?;
        self.lock.set_in_order(false);
        if device.targets.iter().any(brings_builds) {
            pending.introduce(own);
        }
        if let Some(bandwidth) = &self.bandwidth {
            pending.join(bandwidth);
        }
        let park_after_ms = self.config.daemon.park_after_ms;
        // A candidate would be started anew with each wake, from what the live one knows: it would be led, and not follow.
        let is_followed = self.witnesses().candidate.is_some();
        if park_after_ms > 0 && !is_followed {
            pending.park_after(Duration::from_millis(park_after_ms));
        }
        Ok(pending)
    }

    /// The plugin of a target that brings builds; none for another.
    fn build_target(&self, target: &Target, own: &OwnDevice) -> Option<Arc<dyn PluginFactory>> {
        if !brings_builds(target) {
            return None;
        }
        let guest = match &target.of_target {
            Some(name) => Guest::Plugin(self.plugins(), name.value.clone()),
            None => Guest::Agent(self.agents()),
        };
        Some(BuildTarget::new(target, own.clone(), guest))
    }

    /// Set up a device on a connection that the application makes, keeps and ends as it likes.
    ///
    /// # Errors
    /// [`GatewayError`]; [`Running`](GatewayError::Running) as long as the device has an agent, on this connection or another.
    pub fn share(
        &self,
        device: &str,
        connection: &SharedConnection,
    ) -> Result<DeviceHandle, GatewayError> {
        let pending = self.prepare(device)?;
        let device = self.device(device)?;
        let name = &device.name.value;
        let replies = device.mqtt.subscribes_replies();
        let transport = connection
            .attach(name, pending.mailbox(), replies)
            .map_err(|source| GatewayError::Mqtt {
                device: name.clone(),
                source,
            })?;
        let transport = self.equip(device, transport, pending.mailbox());
        Ok(pending.start(transport)?)
    }

    /// The client that fetches by URL: an application that brings a transport of its own joins the two
    /// ([`HttpClient::join`]).
    #[must_use]
    pub fn http(&self) -> &HttpClient {
        &self.trusted.http
    }

    /// How a device connects: for an application that makes the connection itself. Of a device that uses another one's, it
    /// is that one's, client id included: two connections with it would throw each other out.
    ///
    /// # Errors
    /// No such device, or its password cannot be read.
    pub fn connection_config(&self, device: &str) -> Result<ConnectionConfig, GatewayError> {
        let device = self.device(device)?;
        let plain = self.config.development.allow_plaintext;
        let mut config =
            connection::config(device, plain).map_err(|source| GatewayError::Mqtt {
                device: device.name.value.clone(),
                source,
            })?;
        let owner = &device.connection_owner().value;
        let guests = self.guests.get(owner).copied().unwrap_or_default();
        config.limits.queue_max += guests * connection::QUEUE_OF_A_GUEST;
        Ok(config)
    }

    /// Set up a device and give it a connection: its own, or that of the device which its configuration names.
    ///
    /// # Errors
    /// [`GatewayError`]. That the connection cannot be made is none: it is tried again.
    pub fn connect(&self, device: &str) -> Result<ConnectedDevice, GatewayError> {
        let pending = self.prepare(device)?;
        let device = self.device(device)?;
        let (connection, transport) = self.attach(device, pending.mailbox())?;
        let transport = self.equip(device, transport, pending.mailbox());
        let former_events = pending.events().last();
        match pending.start(transport) {
            Ok(handle) => Ok(ConnectedDevice {
                handle,
                connection,
                former_events,
            }),
            Err(error) => {
                self.disconnect_unused();
                Err(error.into())
            }
        }
    }

    /// Put a device on its connection, which is made by whoever needs it first, or first after it was stopped.
    fn attach(
        &self,
        device: &Device,
        mailbox: Mailbox,
    ) -> Result<(Connection, MqttTransport), GatewayError> {
        let name = &device.name.value;
        let owner = &device.connection_owner().value;
        let no_client = |device: &str, source| GatewayError::Mqtt {
            device: device.to_owned(),
            source,
        };
        // Until the device is on it: one that nobody is on is ended.
        let mut connections = locked(&self.connections);
        let lives = |made: &&Connection| made.status().state != ConnectionState::Stopped;
        let connection = match connections.get(owner).filter(lives).cloned() {
            Some(made) => made,
            None => {
                let config = self.connection_config(owner)?;
                let made = Connection::start_in_turn(config, &self.turnstile)
                    .map_err(|source| no_client(owner, source))?;
                connections.insert(owner.clone(), made.clone());
                made
            }
        };
        let transport = connection
            .attach(name, mailbox, device.mqtt.subscribes_replies())
            .map_err(|source| no_client(name, source))?;
        Ok((connection, transport))
    }

    /// End the connections that no device is on, such as that of a device whose agent did not start. By itself a connection
    /// goes on.
    fn disconnect_unused(&self) {
        locked(&self.connections).retain(|_, connection| {
            if connection.devices() > 0 {
                return true;
            }
            let connection = connection.clone();
            // It ends by itself, and within a few seconds.
            drop(tokio::spawn(async move { connection.stop().await }));
            false
        });
    }

    /// All devices have ended in order: what they said last is how things are. Without this word the next `otad why` takes it
    /// that they were killed.
    pub fn ended(&self) {
        self.lock.set_in_order(true);
    }

    /// End all connections, in order. For after the devices: by themselves they go on, also those that no device uses.
    pub async fn disconnect(&self) {
        let connections = std::mem::take(&mut *locked(&self.connections));
        let mut ends = JoinSet::new();
        for connection in connections.into_values() {
            ends.spawn(async move { connection.stop().await });
        }
        while ends.join_next().await.is_some() {}
    }

    /// Notices by other topics, URLs, and URLs of the operator's own: what a device has beside its MQTT.
    fn equip(&self, device: &Device, mqtt: MqttTransport, mailbox: Mailbox) -> Box<dyn Transport> {
        mqtt.listen(device.notices.clone());
        Box::new(Downloads {
            inner: self.http().join(mqtt, mailbox.clone()),
            downloads: self.config.downloads.clone(),
            mailbox,
            workers: Arc::clone(&self.ports.workers),
        })
    }

    fn device(&self, name: &str) -> Result<&Device, GatewayError> {
        self.config
            .device(Some(name))
            .ok_or_else(|| GatewayError::NoDevice(name.to_owned()))
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn guests(config: &Config) -> BTreeMap<String, usize> {
    let mut guests = BTreeMap::new();
    for device in &config.devices {
        if let Some(owner) = &device.mqtt.connection_of {
            *guests.entry(owner.value.clone()).or_default() += 1;
        }
    }
    guests
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("config", &self.config.file)
            .finish_non_exhaustive()
    }
}

/// Load a build off the tasks that serve others, by workers of the gateway's own runtime: whoever waits for it may go, and the
/// runtime of a device with it. What it is `kept` by stays to its end.
async fn aside<T: Send + 'static>(
    workers: &Handle,
    kept: Option<&Hold>,
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    let kept = kept.cloned();
    let work = move || {
        let end = work();
        drop(kept);
        end
    };
    let end = workers.spawn_blocking(work).await;
    end.unwrap_or_else(|e| {
        let text = format!("loading it broke: {e}");
        Err(Failed::new(Exit::Failed, text))
    })
}

/// How a command ends whose build the gate does not let in.
fn verdict(label: &str, error: &CodeError) -> Failed {
    let exit = match error.is_verdict() {
        true => Exit::Refused,
        false => Exit::Failed,
    };
    let why = chain(error);
    let text = match error {
        // It names the file itself.
        CodeError::File { .. } => why,
        _ => format!("{label}: {why}"),
    };
    Failed::new(exit, text)
}

/// Whether the images of a target are builds of otad's own guests.
fn brings_builds(target: &Target) -> bool {
    target.plugin == PluginChoice::Builtin(BUILD)
}
