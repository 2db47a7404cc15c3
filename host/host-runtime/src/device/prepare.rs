//! Before a device: what an operator configures, what is read from the state directory, what can be wrong with both.

use std::sync::Arc;

use super::host::{Door, Host};
use super::pace::Pace;
use super::{Connection, Device};
use crate::agent::{AgentBuild, AgentSlot, FormerAgent};
use crate::bandwidth::{Bandwidth, Seat};
use crate::choice::{self, Book, Names, Place};
use crate::common::Common;
use crate::desk::Desk;
use crate::events::EventRing;
use crate::history::History;
use crate::journal::{Found, Journal};
use crate::mailbox::Mailbox;
use crate::ports::clock::Clock;
use crate::ports::commands::Commands;
use crate::ports::seed::Seed;
use crate::ports::state_dir::StateDir;
use crate::ports::transport::Transport;
use crate::ports::workers::{Wake, Workers};
use crate::target::{TargetConfig, TargetError, Targets};
use crate::types::{Failure, Setting};

/// Longest thing name, in bytes; the limit of AWS IoT.
const NAME_MAX_BYTES: usize = 128;

/// The settings of the devices of this process.
static SETTINGS: Common<Vec<Setting>> = Common::new();

/// What an operator configures for one device.
pub struct DeviceConfig {
    /// Thing name, 1 to 128 of `[a-zA-Z0-9:_-]`.
    pub name: String,
    /// The agent that serves it.
    pub agent: Arc<AgentBuild>,
    /// The build that served it before, where an operator has put another one in its place ([`choice`](crate::choice)).
    pub former_agent: Option<FormerAgent>,
    /// Device-wide settings for the agent.
    pub settings: Vec<Setting>,
    /// Its targets.
    pub targets: Vec<TargetConfig>,
    /// Topic prefixes that are this device's own, such as `$aws/things/NAME/`. The agent may use no other topic.
    pub topics: Vec<String>,
}

/// What a device needs from the world, beside its transport.
#[derive(Clone)]
pub struct DevicePorts {
    /// Journals, events, transfer records.
    pub state: Arc<dyn StateDir>,
    /// What takes long.
    pub workers: Arc<dyn Workers>,
    /// The operator's programs.
    pub commands: Arc<dyn Commands>,
    /// Lent to plugins; the device itself is told the time.
    pub clock: Arc<dyn Clock>,
    /// One for each start of an agent.
    pub seed: Arc<dyn Seed>,
}

/// Why a device cannot be made or started.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The configuration contradicts itself.
    #[error("device `{device}`: {reason}")]
    Config {
        /// The device.
        device: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A target cannot be set up.
    #[error("device `{device}`")]
    Target {
        /// The device.
        device: String,
        /// Which and why.
        #[source]
        source: TargetError,
    },
    /// The state directory cannot be read.
    #[error("device `{device}`: the {what} cannot be read from the state directory")]
    State {
        /// The device.
        device: String,
        /// Journal or events.
        what: &'static str,
        /// What the medium says.
        #[source]
        source: std::io::Error,
    },
    /// The agent refused its configuration or its saved state.
    #[error("device `{device}`: the agent refuses to start")]
    Refused {
        /// The device.
        device: String,
        /// Its words.
        #[source]
        source: Failure,
    },
}

/// Everything of a device but its transport: the mailbox exists before the transport does.
pub struct PreparedDevice {
    name: Arc<str>,
    topics: Vec<String>,
    slot_build: Arc<AgentBuild>,
    former_build: Option<FormerAgent>,
    book: Book,
    settings: Arc<Vec<Setting>>,
    targets: Targets,
    journal: Journal,
    journal_damaged: bool,
    events: EventRing,
    history: History,
    mailbox: Mailbox,
    seat: Option<Seat>,
    park_after_ms: Option<u64>,
    ports: DevicePorts,
}

impl PreparedDevice {
    /// Check the configuration, read the state directory, set up the targets. `wake` is called from any thread when
    /// [`Device::poll`] has something to do.
    ///
    /// # Errors
    /// [`DeviceError`], never `Refused`.
    pub fn new(config: DeviceConfig, ports: DevicePorts, wake: Wake) -> Result<Self, DeviceError> {
        check(&config)?;
        let device = config.name;
        let name: Arc<str> = device.as_str().into();
        let desk = Arc::new(Desk {
            device: Arc::clone(&name),
            state: Arc::clone(&ports.state),
            workers: Arc::clone(&ports.workers),
            commands: Arc::clone(&ports.commands),
            clock: Arc::clone(&ports.clock),
            wake: Arc::clone(&wake),
        });
        let targets = Targets::at(&desk, config.targets).map_err(|source| DeviceError::Target {
            device: device.clone(),
            source,
        })?;
        let unreadable = |what| {
            let device = device.clone();
            move |source| DeviceError::State {
                device,
                what,
                source,
            }
        };
        let (journal, found) = Journal::load(Arc::clone(&desk)).map_err(unreadable("journal"))?;
        let events = EventRing::load(Arc::clone(&desk)).map_err(unreadable("event ring"))?;
        let history = History::load(Arc::clone(&desk), &events).map_err(unreadable("history"))?;
        let place = Place::agent_of(Arc::clone(&name));
        let choice = choice::read(&*ports.state, &place);
        Ok(Self {
            topics: config.topics,
            book: Book::of(place, Names::of_agent(&config.agent), choice, desk),
            slot_build: config.agent,
            former_build: config.former_agent,
            name,
            settings: SETTINGS.hold(config.settings),
            targets,
            journal,
            journal_damaged: found == Found::Damaged,
            events,
            history,
            mailbox: Mailbox::new(wake),
            seat: None,
            park_after_ms: None,
            ports,
        })
    }

    /// Thing name.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The way in, for adapters.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    /// The application's events.
    #[must_use]
    pub fn events(&self) -> EventRing {
        self.events.clone()
    }

    /// The device's past jobs.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// Let it receive no more than its share.
    pub fn join(&mut self, bandwidth: &Bandwidth) {
        self.seat = Some(bandwidth.seat(self.mailbox.wake()));
    }

    /// Park its agent whenever that has no job and was given no event for so many milliseconds. Without this it stays awake.
    pub fn park_after(&mut self, quiet_ms: u64) {
        self.park_after_ms = Some(quiet_ms);
    }

    /// Give it its transport. The agent is started by [`Device::start`].
    #[must_use]
    pub fn into_device(self, transport: Box<dyn Transport>) -> Device {
        let mut host = Host::new(
            self.topics,
            transport,
            self.targets,
            self.journal,
            self.events,
            self.history,
        );
        host.pace = Pace::new(self.seat);
        let door = Door::new(host);
        let inside = door.clone();
        let stands_in = self.slot_build.stands_in();
        let refused = stands_in.map(|chosen| chosen.why.as_str().into());
        let slot = AgentSlot::new(
            Arc::clone(&self.name),
            self.slot_build,
            self.former_build,
            Box::new(move || Box::new(inside.clone())),
        );
        let last_error = self.journal_damaged.then(|| {
            let text =
                "the journal was damaged and has been put aside; targets and job service are asked";
            tracing::error!(device = %self.name, "{text}");
            text.to_owned()
        });
        Device {
            name: self.name,
            settings: self.settings,
            door,
            slot,
            swap: None,
            book: self.book,
            refused,
            swaps: 0,
            returns: 0,
            mailbox: self.mailbox,
            workers: self.ports.workers,
            seed: self.ports.seed,
            connection: Connection::default(),
            restart_requested: None,
            delivered: 0,
            quiet_since_ms: 0,
            park_after_ms: self.park_after_ms,
            dropped_before: 0,
            job: None,
            last_error,
        }
    }
}

pub(super) fn check(config: &DeviceConfig) -> Result<(), DeviceError> {
    let name = &config.name;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    let refuse = |reason: String| {
        Err(DeviceError::Config {
            device: name.clone(),
            reason,
        })
    };
    if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(legal) {
        return refuse(format!(
            "a thing name has 1 to {NAME_MAX_BYTES} of `a-z A-Z 0-9 : _ -`"
        ));
    }
    if let Some(bad) = config
        .topics
        .iter()
        .find(|topic| !topic.ends_with('/') || topic.contains(['+', '#']))
    {
        return refuse(format!(
            "topic prefix `{bad}` must end with `/` and have no wildcard"
        ));
    }
    Ok(())
}
