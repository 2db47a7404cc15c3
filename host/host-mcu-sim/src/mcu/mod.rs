//! One simulated MCU with its line, in virtual time: bytes and `now` come in, bytes and a deadline go out.
//!
//! Time is in nanoseconds from an origin of the caller's choice and never goes back. Whatever lies between two calls is
//! done at its own instant, in order, when the later one comes; so calls may be as rare as the caller likes.
//!
//! ```text
//!            power_on               swap, boot time            active image
//!  Off ------------------> Starting ----------------> Serving / Silent / Recovering
//!   ^                         ^   |                        |
//!   |  power fails, anywhere  |   '--> Stuck               |  reset, watchdog
//!   '-------------------------+----------------------------'
//! ```

mod exchange;
mod inbox;
mod view;
mod wire;

use crate::Error;
use crate::boot::{self, BootAction, Started};
use crate::config::{Behaviour, Config, MS};
use crate::fault::{Chance, Rule, Rules, Seen, Trigger};
use crate::flash::{CutPoint, Flash, FlashError, Medium, Slot};
use crate::image::Image;
use crate::random::Random;
use crate::server::Server;
use inbox::Inbox;
use wire::{Downlink, Uplink};

pub use inbox::ReceiveStats;
pub use view::{SlotView, View};

/// A start takes at least this, so that an image which crashes at once does not stop time.
const BOOT_NS_MIN: u64 = MS;

/// What the MCU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Without power.
    Off,
    /// The bootloader runs.
    Starting,
    /// The application answers.
    Serving,
    /// The application runs and does not answer.
    Silent,
    /// The bootloader's own server answers.
    Recovering,
    /// There is nothing to start.
    Stuck,
}

/// What has happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Starts of the bootloader, finished or not.
    pub starts: u64,
    /// Power cuts and hardware resets.
    pub cuts: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Bytes of upload that were written.
    pub uploaded_bytes: u64,
    /// What starts did with image 0, in order; nothing is not counted.
    pub actions: Vec<BootAction>,
}

/// A simulated MCU.
#[derive(Debug)]
pub struct Mcu {
    config: Config,
    now_ns: u64,
    state: State,
    flash: Flash,
    server: Server,
    inbox: Inbox,
    uplink: Uplink,
    downlink: Downlink,
    rules: Rules,
    random: Random,
    stats: Stats,
    running: Option<Slot>,
    /// When the server is done with the request in hand, and its answer has left.
    server_free_ns: u64,
    up_since_ns: u64,
    timers: Timers,
    to_recovery: bool,
    is_plugged: bool,
    /// The request under way on the uplink is lost or damaged.
    uplink_fate: Fate,
}

#[derive(Debug, Default)]
struct Timers {
    power_on_ns: Option<u64>,
    started_ns: Option<u64>,
    reset_ns: Option<u64>,
    watchdog_ns: Option<u64>,
    cut_ns: Option<u64>,
    plug_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Vanishes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    PowerFails,
    PowerComes,
    Started,
    Resets,
    Barks,
    Plugs,
    Packet,
    Line,
    Arrival,
}

impl Mcu {
    /// Makes an MCU and gives it power at time 0.
    ///
    /// # Errors
    /// A flash file that cannot be used; factory images that do not fit.
    pub fn new(config: Config) -> Result<Self, Error> {
        let bytes = config.geometry.total_bytes();
        let medium = match &config.flash_file {
            Some(path) => Medium::in_file(path, bytes)?,
            None => Medium::in_memory(bytes),
        };
        let mut flash = Flash::new(config.geometry, config.timing.flash, medium, config.seed);
        put_factory_images(&mut flash, &config)?;
        let mut mcu = Self {
            now_ns: 0,
            state: State::Off,
            flash,
            server: Server::new(config.server.clone()),
            inbox: Inbox::new(config.framing, &config.server),
            uplink: Uplink::default(),
            downlink: Downlink::default(),
            rules: Rules::new(&config.rules),
            random: Random::new(config.seed),
            stats: Stats::default(),
            running: None,
            server_free_ns: 0,
            up_since_ns: 0,
            timers: Timers::default(),
            to_recovery: false,
            is_plugged: true,
            uplink_fate: Fate::Passes,
            config,
        };
        mcu.start(0);
        Ok(mcu)
    }

    /// Lets time pass.
    pub fn advance(&mut self, now_ns: u64) {
        while let Some((at_ns, event)) = self.next_event()
            && at_ns <= now_ns
        {
            self.now_ns = self.now_ns.max(at_ns);
            self.on_event(event);
        }
        self.now_ns = self.now_ns.max(now_ns);
        self.flash.settle(self.now_ns);
    }

    /// Takes bytes that the host writes now. While the plug is pulled they go nowhere.
    pub fn receive(&mut self, now_ns: u64, bytes: &[u8]) {
        self.advance(now_ns);
        if self.is_plugged {
            self.uplink
                .feed(self.now_ns, bytes, self.config.framing, &self.config.timing);
            self.advance(now_ns);
        }
    }

    /// Appends what the host can read by now.
    pub fn transmit(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.advance(now_ns);
        let kept = out.len();
        self.downlink.take(self.now_ns, out);
        if !self.is_plugged {
            out.truncate(kept);
        }
    }

    /// When something happens next without new bytes; later calls miss nothing.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let event = self.next_event().map(|(at_ns, _)| at_ns);
        let flash = Some(self.flash.free_ns()).filter(|free| *free > self.now_ns);
        [event, self.downlink.next_ns(), flash]
            .into_iter()
            .flatten()
            .min()
    }

    /// The time of the last call.
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// How long the line is busy with what the host has written, in nanoseconds.
    #[must_use]
    pub fn backlog_ns(&self) -> u64 {
        self.uplink.free_ns().saturating_sub(self.now_ns)
    }

    /// Whether the flash is still at work on what it was told.
    pub(crate) const fn flash_waits(&self) -> bool {
        self.flash.free_ns() > self.now_ns
    }

    /// Why the flash's file could not be written, once.
    pub(crate) const fn take_trouble(&mut self) -> Option<Error> {
        self.flash.take_trouble()
    }

    /// What it was made from.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the plug is in.
    #[must_use]
    pub const fn is_plugged(&self) -> bool {
        self.is_plugged
    }

    /// Pulls the plug, until [`Mcu::plug`] or for the given time.
    pub fn unplug(&mut self, now_ns: u64, for_ns: Option<u64>) {
        self.advance(now_ns);
        self.is_plugged = false;
        self.uplink.clear(self.now_ns);
        self.downlink.cut(self.now_ns);
        self.timers.plug_ns = for_ns.map(|time| self.now_ns.saturating_add(time));
    }

    /// Puts the plug in.
    pub fn plug(&mut self, now_ns: u64) {
        self.advance(now_ns);
        self.is_plugged = true;
        self.timers.plug_ns = None;
    }

    /// Cuts the power; it comes back after the configured time.
    pub fn power_cut(&mut self, now_ns: u64) {
        self.advance(now_ns);
        self.fail_power();
    }

    /// Cuts the power for good, until [`Mcu::power_on`].
    pub fn power_off(&mut self, now_ns: u64) {
        self.advance(now_ns);
        self.fail_power();
        self.timers.power_on_ns = None;
    }

    /// Gives power.
    pub fn power_on(&mut self, now_ns: u64) {
        self.advance(now_ns);
        if self.state == State::Off {
            self.start(self.now_ns);
        }
    }

    /// Pulls the reset line: whatever the flash is doing is torn, and the bootloader starts.
    pub fn hardware_reset(&mut self, now_ns: u64) {
        self.advance(now_ns);
        if self.state != State::Off {
            self.stats.cuts += 1;
            self.stop();
            self.start(self.now_ns);
        }
    }

    /// Plans a power cut at the flash operation of this number, counted from the first one since it was made, whatever
    /// happens until then.
    pub const fn plan_cut(&mut self, number: u64, point: CutPoint) {
        self.flash.plan_cut_at(number, point);
    }

    /// Changes the chance on the line.
    pub const fn set_chance(&mut self, chance: Chance) {
        self.config.chance = chance;
    }

    /// Adds a rule; its count begins now.
    pub fn add_rule(&mut self, rule: Rule) {
        self.rules.add(rule);
    }

    /// Drops all rules.
    pub fn clear_rules(&mut self) {
        self.rules.clear();
    }

    fn next_event(&self) -> Option<(u64, Event)> {
        let timers = &self.timers;
        let packet = self
            .inbox
            .next_packet_ns()
            .map(|at_ns| at_ns.max(self.server_free_ns));
        // Of the same instant the first in this order.
        [
            (timers.cut_ns, Event::PowerFails),
            (timers.power_on_ns, Event::PowerComes),
            (timers.started_ns, Event::Started),
            (timers.reset_ns, Event::Resets),
            (timers.watchdog_ns, Event::Barks),
            (timers.plug_ns, Event::Plugs),
            (packet, Event::Packet),
            (self.inbox.next_line_ns(), Event::Line),
            (self.uplink.next_ns(), Event::Arrival),
        ]
        .into_iter()
        .filter_map(|(at_ns, event)| Some((at_ns?, event)))
        .min_by_key(|(at_ns, _)| *at_ns)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::PowerFails => self.fail_power(),
            Event::PowerComes => {
                self.timers.power_on_ns = None;
                self.start(self.now_ns);
            }
            Event::Started => self.on_started(),
            Event::Resets | Event::Barks => {
                self.stop();
                self.start(self.now_ns);
            }
            Event::Plugs => {
                self.is_plugged = true;
                self.timers.plug_ns = None;
            }
            Event::Packet => self.on_packet(),
            Event::Line => {
                let is_serving = self.server_free_ns > self.now_ns;
                self.inbox.read_line(is_serving);
            }
            Event::Arrival => self.on_arrival(),
        }
    }

    /// What the program held is gone; the flash keeps what it held.
    fn stop(&mut self) {
        self.flash.cut(self.now_ns);
        self.downlink.cut(self.now_ns);
        self.server.forget();
        self.inbox.restart(&self.config.server);
        self.timers = Timers {
            plug_ns: self.timers.plug_ns,
            ..Timers::default()
        };
        self.server_free_ns = self.now_ns;
        self.running = None;
    }

    fn fail_power(&mut self) {
        self.stats.cuts += 1;
        self.stop();
        // What a reset keeps, a cut does not.
        self.to_recovery = false;
        self.state = State::Off;
        let off_ns = self.config.timing.power_off_ns.max(1);
        self.timers.power_on_ns = Some(self.now_ns.saturating_add(off_ns));
    }

    fn start(&mut self, now_ns: u64) {
        self.state = State::Starting;
        self.stats.starts += 1;
        self.timers.power_on_ns = None;
        self.flash.begin_at(now_ns);
        self.downlink
            .send(now_ns, self.config.banner.clone(), &self.config.timing);
        let seen = Seen {
            trigger: Trigger::Boot,
            is_first: false,
            is_last: false,
        };
        for effect in self.rules.strike(seen) {
            self.apply(effect);
        }
        match boot::start(&mut self.flash, self.config.mode, self.config.key.as_ref()) {
            Ok(started) => self.on_slots_ready(&started),
            // A bootloader that meets an error resets itself; time passes, so that it does not do so for ever at once.
            Err(FlashError::PowerCut) => self.timers.cut_ns = self.flash.cut_at_ns(),
            Err(_) => self.timers.reset_ns = Some(self.flash.free_ns() + BOOT_NS_MIN),
        }
    }

    fn on_slots_ready(&mut self, started: &Started) {
        self.running = started.active;
        if let Some(action) = started.actions.first()
            && *action != BootAction::None
        {
            self.stats.actions.push(*action);
        }
        let boot_ns = self.config.timing.boot_ns.max(BOOT_NS_MIN);
        self.timers.started_ns = Some(self.flash.free_ns().saturating_add(boot_ns));
    }

    fn on_started(&mut self) {
        self.timers.started_ns = None;
        self.up_since_ns = self.now_ns;
        let to_recovery = std::mem::take(&mut self.to_recovery) || self.running.is_none();
        if to_recovery {
            let Some(recovery) = self.config.recovery.clone() else {
                self.state = State::Stuck;
                return;
            };
            self.inbox.restart(&recovery);
            self.server = Server::new(recovery);
            self.running = None;
            self.state = State::Recovering;
            return;
        }
        self.inbox.restart(&self.config.server);
        self.server = Server::new(self.config.server.clone());
        self.state = State::Serving;
        match self.behaviour() {
            Behaviour::Serves => {}
            Behaviour::Silent => self.state = State::Silent,
            Behaviour::Crashes { after_ns } => {
                self.timers.watchdog_ns = Some(self.now_ns.saturating_add(after_ns));
            }
            Behaviour::ConfirmsItself => {
                self.flash.begin_at(self.now_ns);
                let slot = self.running.unwrap_or(Slot::Primary);
                // A cut in it is a cut; the image stays unconfirmed otherwise, as on a real device.
                if boot::confirm(&mut self.flash, 0, slot).is_err() {
                    self.timers.cut_ns = self.flash.cut_at_ns();
                }
            }
        }
    }

    fn behaviour(&self) -> Behaviour {
        let slot = self.running.unwrap_or(Slot::Primary);
        let bytes = self.flash.slot(0, slot);
        let Some(image) = Image::find(bytes) else {
            return Behaviour::Silent;
        };
        let version = image.version();
        let version = format!("{}.{}.{}", version.major, version.minor, version.revision);
        let chosen = self.config.behaviours.iter().find(|(of, _)| *of == version);
        chosen.map_or_else(|| image.own_behaviour(), |(_, behaviour)| *behaviour)
    }
}

/// Fills a flash that nobody ever wrote on with the factory's images. Any byte there is somebody's: a slot may be empty
/// because a cut interrupted a swap.
fn put_factory_images(flash: &mut Flash, config: &Config) -> Result<(), Error> {
    let is_new = flash.is_new();
    let slots = [
        (Slot::Primary, &config.factory.primary),
        (Slot::Secondary, &config.factory.secondary),
    ];
    for (slot, images) in slots {
        for (index, bytes) in images.iter().enumerate() {
            let image = u8::try_from(index).unwrap_or(u8::MAX);
            if image >= config.geometry.images() {
                return Err(Error::Image(format!("there is no image {image}")));
            }
            if Image::find(bytes).is_none() {
                return Err(Error::Image("it has no image header and hash".to_owned()));
            }
            let limit = config.geometry.image_bytes_max() as usize;
            if bytes.len() > limit {
                let size = bytes.len();
                return Err(Error::Image(format!("{size} bytes do not fit {limit}")));
            }
            if is_new {
                flash.program(image, slot, bytes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
