//! A field engineer's hand on an MCU: smp-core's client on the same serial line that plugins are lent. One thing at a time,
//! and what the target says is what counts; nothing is remembered. No daemon is needed, and none may hold the line.

mod view;

use std::sync::Arc;
use std::time::Duration;

use host_runtime::plugin::lend::{LineParameters, SerialLine};
use host_runtime::ports::line::{BAUD_DEFAULT, Line, LineConfig, LinePlace};
use host_runtime::types::Failure;
use smp_core::client::{Client, ClientConfig, ClientError, Order, Plan, Poll, Source};
use smp_core::frame::Framing;
use smp_core::reply::{ImageState, Parameters, Reply};
use tokio::time::Instant;

pub use view::{NotTestable, View, hex};

/// What is read from the line at once: more than the largest answer.
const READ_BYTES_MAX: u32 = 16 * 1024;

/// How long to wait where the line takes no more bytes: it empties by the packet, which takes tens of ms.
const FULL: Duration = Duration::from_millis(5);

/// After the answer to a reset the old server lives for 250 ms more and would still answer.
const AFTER_RESET: Duration = Duration::from_millis(600);

/// Time between two looks at a target that restarts.
const LOOK: Duration = Duration::from_millis(500);

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum McuError {
    /// The line is not there.
    #[error("{0}")]
    Line(String),
    /// What the client says.
    #[error("{what}: {error}")]
    Client {
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: ClientError,
    },
}

impl From<Failure> for McuError {
    fn from(failure: Failure) -> Self {
        Self::Line(failure.detail)
    }
}

/// How the target is reached.
#[derive(Clone, Debug)]
pub struct Link {
    /// The line.
    pub line: LineConfig,
    /// How packets lie on it.
    pub framing: Framing,
    /// Chunks of an upload that may be under way.
    pub window: u8,
}

/// How an upload went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uploaded {
    /// Bytes that the target had already; 0 = it began anew.
    pub resumed_at: u64,
    /// How long it took.
    pub took: Duration,
}

/// An open line with a client on it.
#[derive(Debug)]
pub struct Session {
    line: Arc<Line>,
    client: Client,
    sizes: Option<Parameters>,
    begin: Instant,
}

impl Session {
    /// Opens the line.
    ///
    /// # Errors
    /// It is not there, or somebody else has it.
    pub fn open(link: &Link) -> Result<Self, McuError> {
        let baud = match link.line.place {
            LinePlace::Tty(_) => link.line.baud.unwrap_or(BAUD_DEFAULT),
            // Its speed is the terminal server's business.
            LinePlace::Tcp(_) => 0,
        };
        let line = Arc::new(Line::new(link.line.clone()));
        let parameters = LineParameters {
            baud: 0,
            parity: 0,
            stop_bits: 1,
            flow_control: 0,
        };
        // `changed` is what waits here; nobody needs to be called.
        line.open(&parameters, Arc::new(|| {}))?;
        Ok(Self {
            line,
            client: Client::new(ClientConfig {
                framing: link.framing,
                baud,
                window_max: link.window,
            }),
            sizes: None,
            begin: Instant::now(),
        })
    }

    /// The line, for a reset input that hangs on it.
    #[must_use]
    pub fn line(&self) -> Arc<dyn SerialLine> {
        Arc::clone(&self.line) as _
    }

    /// Finds out which version the target speaks and what it has; to be called first, and after each restart.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn meet(&mut self) -> Result<View, McuError> {
        let images = self.ask("listing the images", Order::Probe).await?;
        self.sizes = match self.ask("asking for sizes", Order::Parameters).await {
            Ok(Reply::Parameters(sizes)) => Some(sizes),
            // Not built in: the smallest that servers have.
            Ok(_)
            | Err(McuError::Client {
                error: ClientError::Refused(_),
                ..
            }) => None,
            Err(error) => return Err(error),
        };
        self.client.set_sizes(self.sizes);
        Ok(View::new(listed(images)))
    }

    /// What the target lists.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn look(&mut self) -> Result<View, McuError> {
        let images = self.ask("listing the images", Order::Images).await?;
        Ok(View::new(listed(images)))
    }

    /// Whether this is a bootloader's own server: the only one that knows the echo of a console, or one without an echo.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn is_recovery(&mut self) -> Result<bool, McuError> {
        // Most have no echo, but some are built with one.
        let console = self.ask("console echo", Order::ConsoleEchoOff).await;
        if unsupported(console)?.is_none() {
            return Ok(true);
        }
        let echo = self.ask("echo", Order::Echo("otad".to_owned())).await;
        Ok(unsupported(echo)? == Some(true))
    }

    /// Runs one command; `what` names it in errors.
    ///
    /// # Errors
    /// The line, or the target.
    pub async fn ask(&mut self, what: &'static str, order: Order) -> Result<Reply, McuError> {
        self.client.begin(self.now_ms(), order);
        self.run(what, &mut (), |_| {}).await
    }

    /// Uploads a file; `told` hears how many bytes the target has.
    ///
    /// # Errors
    /// The line, or the target.
    pub async fn upload(
        &mut self,
        plan: Plan,
        source: &mut impl Source,
        mut told: impl FnMut(u64),
    ) -> Result<Uploaded, McuError> {
        let buffer_bytes = self.sizes.map_or(0, |sizes| u64::from(sizes.buf_size));
        let size = plan.size;
        let begin = Instant::now();
        let mut first = None;
        self.client.upload(self.now_ms(), plan);
        self.run("upload", source, |done| {
            if done > 0 {
                first.get_or_insert(done);
            }
            told(done);
        })
        .await?;
        // The first answer of a target that began anew is for one chunk.
        let first = first.unwrap_or(size);
        Ok(Uploaded {
            resumed_at: if first > buffer_bytes { first } else { 0 },
            took: begin.elapsed(),
        })
    }

    /// Waits, after a reset was sent, until the target answers again.
    ///
    /// # Errors
    /// It does not within `patience`.
    pub async fn wait_restarted(&mut self, patience: Duration) -> Result<View, McuError> {
        let until = Instant::now() + patience;
        tokio::time::sleep(AFTER_RESET).await;
        loop {
            match self.meet().await {
                Ok(view) => return Ok(view),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(McuError::Line(_)) => {
                    // An adapter that is part of the target goes away with it.
                    tokio::time::sleep(LOOK).await;
                    self.reopen();
                }
                Err(McuError::Client { .. }) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn reopen(&self) {
        let parameters = LineParameters {
            baud: 0,
            parity: 0,
            stop_bits: 1,
            flow_control: 0,
        };
        // Not there yet: the next look says so, until patience ends.
        self.line.open(&parameters, Arc::new(|| {})).ok();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(
        &mut self,
        what: &'static str,
        source: &mut impl Source,
        mut told: impl FnMut(u64),
    ) -> Result<Reply, McuError> {
        loop {
            match self.client.poll(self.now_ms(), source) {
                Poll::Done(Ok(reply)) => return Ok(reply),
                Poll::Done(Err(error)) => return Err(McuError::Client { what, error }),
                Poll::Idle | Poll::Working => {}
            }
            let taken = self.line.write(self.client.output())?;
            self.client.written(taken as usize);
            let bytes = self.line.read(READ_BYTES_MAX)?;
            if !bytes.is_empty() {
                self.client.receive(self.now_ms(), &bytes);
                continue;
            }
            told(self.client.uploaded());
            let wait = match self.client.deadline() {
                _ if !self.client.output().is_empty() => FULL,
                Some(at_ms) => Duration::from_millis(at_ms.saturating_sub(self.now_ms())),
                None => LOOK,
            };
            tokio::select! {
                () = self.line.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// Of a question that was answered none; else whether the target does not know it.
fn unsupported(answer: Result<Reply, McuError>) -> Result<Option<bool>, McuError> {
    match answer {
        Ok(_) => Ok(None),
        Err(McuError::Client {
            error: ClientError::Refused(refusal),
            ..
        }) => Ok(Some(refusal.is_unsupported())),
        Err(error) => Err(error),
    }
}

fn listed(reply: Reply) -> Vec<ImageState> {
    match reply {
        Reply::Images(images) => images,
        _ => Vec::new(),
    }
}
