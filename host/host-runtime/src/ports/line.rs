//! Serial lines in the real world: a tty or a TCP port behind [`SerialLine`], for plugins and for a field engineer's tools.
//!
//! No call waits. One task a line moves bytes between the port and two bounded buffers; whoever is lent the line reads and
//! writes those. A port that goes away ends the task: every call then fails with 0xd4 sub 1 until [`SerialLine::open`]
//! works again. What the bytes mean is not known here. SPI is not a carrier (README.md of this crate says why).
//!
//! ```text
//!   plugin ──write──▶ output ──▶ task ──▶ tty, TCP
//!          ◀──read─── input  ◀──       ◀──
//!                        └── wake: there is something, or the line came or went
//! ```

mod kernel;
mod pump;
mod tty;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::tty::Tty;
use super::workers::Wake;
use crate::plugin::lend::{LineParameters, SerialLine};
use crate::types::{Failure, code};

/// Most bytes that wait to be read. The largest answer of a server is some KiB; what is beyond comes from a line that
/// chatters while nobody listens, and then the oldest bytes go.
const INPUT_MAX_BYTES: usize = 64 * 1024;

/// Most bytes that wait to be sent: a window of eight packets of 4 KiB, in base64.
const OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// Longest time to connect to a TCP port; a terminal server in the same building answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Baud rate if neither the operator nor the plugin names one: that of nearly every console.
pub const BAUD_DEFAULT: u32 = 115_200;

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinePlace {
    /// A terminal device.
    Tty(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl LinePlace {
    /// `tcp://host:port`, or the path of a device.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("tcp://") {
            let port = address.rsplit_once(':').map(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            return match port {
                Some(true) => Ok(Self::Tcp(address.to_owned())),
                _ => Err(format!("`{text}` is not `tcp://host:port`")),
            };
        }
        // Something else's scheme; a device's name has a colon in its last parts at most.
        let is_scheme = text
            .split('/')
            .next()
            .is_some_and(|head| head.contains(':'));
        if text.is_empty() || is_scheme || text.contains('\0') {
            return Err(format!(
                "`{text}` is neither the path of a terminal device nor `tcp://host:port`"
            ));
        }
        Ok(Self::Tty(PathBuf::from(text)))
    }
}

impl std::fmt::Display for LinePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tty(path) => path.display().fmt(f),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// None.
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// Who holds the sender back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowControl {
    /// Nobody.
    None,
    /// The lines RTS and CTS.
    RtsCts,
    /// The characters XON and XOFF.
    XonXoff,
}

/// One line, as the operator configured it. What stands here counts; a plugin's parameters fill what is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineConfig {
    /// Where it is.
    pub place: LinePlace,
    /// Bits a second.
    pub baud: Option<u32>,
    /// Parity.
    pub parity: Option<Parity>,
    /// 1 or 2.
    pub stop_bits: Option<u8>,
    /// Flow control.
    pub flow_control: Option<FlowControl>,
    /// Level of DTR after opening, and before the line is given back; `None` = as the driver has it.
    pub dtr: Option<bool>,
    /// Level of RTS, likewise.
    pub rts: Option<bool>,
    /// Ask the driver to deliver each byte at once, where it can (an FTDI adapter gathers for 16 ms otherwise).
    pub low_latency: bool,
}

impl LineConfig {
    /// A line at this place, with nothing else said.
    #[must_use]
    pub const fn new(place: LinePlace) -> Self {
        Self {
            place,
            baud: None,
            parity: None,
            stop_bits: None,
            flow_control: None,
            dtr: None,
            rts: None,
            low_latency: true,
        }
    }
}

/// What a line's task and those who use the line share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Output was queued.
    output: Notify,
    /// Input has come, or the line came or went.
    changed: Notify,
}

#[derive(Default)]
struct State {
    link: Link,
    input: VecDeque<u8>,
    output: VecDeque<u8>,
    /// Of `output`, what the task has taken and the port not yet.
    moving: usize,
    /// The link is another than when it was last looked at.
    news: bool,
    /// Input that nobody fetched in time.
    lost: u64,
    wake: Option<Wake>,
    /// Counts openings; a task of an earlier one changes nothing.
    opening: u64,
}

#[derive(Default)]
enum Link {
    /// Not opened, or closed.
    #[default]
    Closed,
    /// A TCP connection is being made.
    Connecting,
    /// Bytes flow; a tty has control lines.
    Open(Option<Arc<Tty>>),
    /// It went away, for this reason.
    Gone(String),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and tells whoever waits.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let wake = {
            let mut state = self.state();
            change(&mut state);
            state.wake.clone()
        };
        self.changed.notify_waiters();
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// One serial line. Cheap to make: nothing is opened before [`SerialLine::open`]. It is closed when it is dropped.
pub struct Line {
    config: LineConfig,
    runtime: Handle,
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Line {
    /// A line whose bytes are moved by the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(config: LineConfig) -> Self {
        Self {
            config,
            runtime: Handle::current(),
            shared: Arc::default(),
            task: Mutex::default(),
        }
    }

    /// What was configured.
    #[must_use]
    pub fn config(&self) -> &LineConfig {
        &self.config
    }

    /// Waits until there is something to read or the line came or went; returns at once if that is so already.
    pub async fn changed(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed.
            changed.as_mut().enable();
            if self.has_news() {
                return;
            }
            changed.await;
        }
    }

    fn unplugged(&self, reason: &str) -> Failure {
        let text = format!("line {}: {reason}", self.config.place);
        Failure::new(code::UNREACHABLE, UNPLUGGED, text)
    }

    /// The state, if bytes can be moved, now or as soon as the connection stands.
    fn usable(&self) -> Result<MutexGuard<'_, State>, Failure> {
        let mut state = self.shared.state();
        state.news = false;
        match &state.link {
            Link::Open(_) | Link::Connecting => Ok(state),
            Link::Closed => Err(self.unplugged("it is not open")),
            Link::Gone(reason) => Err(self.unplugged(reason)),
        }
    }

    fn tty(&self) -> Result<Arc<Tty>, Failure> {
        // Not by `usable`: the end of a pulse is no use by the plugin, which has not heard the news then.
        match &self.shared.state().link {
            Link::Open(Some(tty)) => Ok(Arc::clone(tty)),
            Link::Closed => Err(self.unplugged("it is not open")),
            Link::Gone(reason) => Err(self.unplugged(reason)),
            Link::Open(None) | Link::Connecting => Err(Failure::new(
                code::UNSUPPORTED,
                0,
                format!("{} has no control lines", self.config.place),
            )),
        }
    }

    fn give_back(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
        drop(task);
        let link = {
            let mut state = self.shared.state();
            state.opening += 1;
            state.input.clear();
            state.output.clear();
            state.moving = 0;
            state.news = false;
            std::mem::take(&mut state.link)
        };
        if let Link::Open(Some(tty)) = link {
            // A reset by a control line may be under way, and ends with the line. A device that is gone refuses.
            tty.set_control(self.config.dtr, self.config.rts, None).ok();
            tty.release();
        }
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.runtime.spawn(task);
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }
}

/// `sub` of 0xd4 for a line that is not there (`wit/pal/types.wit`).
const UNPLUGGED: u32 = 1;

impl SerialLine for Line {
    fn open(&self, parameters: &LineParameters, wake: Wake) -> Result<(), Failure> {
        self.give_back();
        let shared = Arc::clone(&self.shared);
        let opening = {
            let mut state = self.shared.state();
            state.wake = Some(wake);
            state.opening
        };
        match &self.config.place {
            LinePlace::Tty(path) => {
                let tty = {
                    let _inside = self.runtime.enter();
                    Tty::open(path, &self.config, parameters)
                };
                let tty = Arc::new(tty.map_err(|reason| self.unplugged(&reason))?);
                self.shared.state().link = Link::Open(Some(Arc::clone(&tty)));
                self.run(pump::tty(shared, opening, tty));
            }
            LinePlace::Tcp(address) => {
                self.shared.state().link = Link::Connecting;
                self.run(pump::tcp(shared, opening, address.clone()));
            }
        }
        Ok(())
    }

    fn write(&self, data: &[u8]) -> Result<u32, Failure> {
        let mut state = self.usable()?;
        let room = OUTPUT_MAX_BYTES - state.output.len();
        let taken = room.min(data.len());
        state.output.extend(data.iter().take(taken));
        drop(state);
        self.shared.output.notify_one();
        Ok(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    fn read(&self, max: u32) -> Result<Vec<u8>, Failure> {
        let mut state = self.shared.state();
        if state.input.is_empty() {
            drop(state);
            return self.usable().map(|_| Vec::new());
        }
        // What came before the line went is still good.
        let count = state.input.len().min(max as usize);
        let lost = std::mem::take(&mut state.lost);
        let bytes = state.input.drain(..count).collect();
        drop(state);
        if lost > 0 {
            tracing::warn!(line = %self.config.place, "{lost} bytes came that nobody read in time");
        }
        Ok(bytes)
    }

    fn unsent(&self) -> Result<u32, Failure> {
        let state = self.usable()?;
        let queued = u32::try_from(state.output.len() + state.moving).unwrap_or(u32::MAX);
        let in_driver = match &state.link {
            Link::Open(Some(tty)) => tty.unsent(),
            _ => 0,
        };
        Ok(queued.saturating_add(in_driver))
    }

    fn drain(&self) -> Result<(), Failure> {
        let mut state = self.usable()?;
        state.input.clear();
        if let Link::Open(Some(tty)) = &state.link {
            tty.discard_input();
        }
        Ok(())
    }

    fn set_line(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> Result<(), Failure> {
        self.tty()?
            .set_control(dtr, rts, break_condition)
            .map_err(|e| self.unplugged(&format!("its control lines: {e}")))
    }

    fn close(&self) {
        self.give_back();
    }

    fn has_news(&self) -> bool {
        let state = self.shared.state();
        state.news || !state.input.is_empty()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests;
