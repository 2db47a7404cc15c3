//! smp-core's client on the line of a simulated MCU, in virtual time: what a whole exchange comes to, exactly and at once.
//! Tests, the throughput table and whoever asks "how long would that take" use it. No port and no clock.

use smp_core::client::{Client, ClientConfig, ClientError, Order, Plan, Poll, Source, Whole};
use smp_core::console;
use smp_core::frame::Framing;
use smp_core::reply::{ImageState, Parameters, Reply};

use crate::config::{Config, MS};
use crate::error::Error;
use crate::mcu::{Mcu, State};

/// After the answer to a reset the old server lives for 250 ms more and would still answer.
const AFTER_RESET_NS: u64 = 600 * MS;

/// Looks at a target that restarts, twice a second: 180 s.
const LOOKS_MAX: u32 = 360;
const LOOK_NS: u64 = 500 * MS;

/// What takes longer than a day of virtual time has stopped.
const END_NS: u64 = 24 * 3_600_000 * MS;

/// Bytes of a file in each byte of the line that the framing leaves for it at best: a full packet of a server with such a
/// buffer, without the first one's size and name.
#[must_use]
pub fn ceiling(framing: Framing, buf_size: u16) -> f64 {
    // Header, map, "off" with five bytes, "data" with the head of a byte string.
    const OVERHEAD_BYTES: usize = 8 + 1 + 4 + 5 + 5 + 3;
    let packet = usize::from(buf_size).saturating_sub(console::OVERHEAD_BYTES);
    let payload = packet.saturating_sub(OVERHEAD_BYTES);
    payload as f64 / framing.wire_bytes(packet).max(1) as f64
}

/// A client and an MCU with a line between them.
#[derive(Debug)]
pub struct Talk {
    mcu: Mcu,
    client: Client,
    client_config: ClientConfig,
    now_ns: u64,
    written_bytes: u64,
}

impl Talk {
    /// Makes the MCU and waits until it has started. The client knows the line and allows itself so large a window; it
    /// has been told the sizes of the server's buffers.
    ///
    /// # Errors
    /// An MCU that cannot be made.
    pub fn new(config: Config, window_max: u8) -> Result<Self, Error> {
        let client_config = ClientConfig {
            framing: config.framing,
            baud: config.timing.baud.unwrap_or(0),
            window_max,
        };
        let mut talk = Self {
            client: Client::new(client_config),
            client_config,
            mcu: Mcu::new(config)?,
            now_ns: 0,
            written_bytes: 0,
        };
        talk.wait_started();
        talk.renew_client();
        Ok(talk)
    }

    /// The MCU, to look at it or to do something to it.
    pub const fn mcu(&mut self) -> &mut Mcu {
        &mut self.mcu
    }

    /// The time, in nanoseconds.
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Bytes that the client has written so far.
    #[must_use]
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The client, to ask it something.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Another client in place of this one, as after a restart of whatever it ran in: it knows of nothing under way.
    pub fn renew_client(&mut self) {
        let server = &self.mcu.config().server;
        let sizes = Parameters {
            buf_size: server.buf_size.into(),
            buf_count: server.buf_count.into(),
        };
        self.client = Client::new(self.client_config);
        self.client.set_sizes(Some(sizes));
    }

    /// Lets time pass.
    pub fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.mcu.advance(self.now_ns);
    }

    fn wait_started(&mut self) {
        let mut unread = Vec::new();
        while matches!(self.mcu.state(), State::Starting | State::Off) {
            let Some(at_ns) = self.mcu.deadline_ns() else {
                break;
            };
            self.now_ns = self.now_ns.max(at_ns);
            self.mcu.transmit(self.now_ns, &mut unread);
        }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// As the client's.
    pub fn ask(&mut self, order: Order) -> Result<Reply, ClientError> {
        self.client.begin(self.now_ns / MS, order);
        self.run(&mut (), |_| false)
            .unwrap_or(Err(ClientError::Silent))
    }

    /// Uploads a file to its end.
    ///
    /// # Errors
    /// As the client's.
    pub fn upload(&mut self, file: &[u8]) -> Result<Reply, ClientError> {
        self.upload_until(file, |_| false)
            .unwrap_or(Err(ClientError::Silent))
    }

    /// Uploads a file until it is over or `stop` says so; none = stopped. What was under way then is dropped.
    pub fn upload_until(
        &mut self,
        file: &[u8],
        stop: impl FnMut(&mut Self) -> bool,
    ) -> Option<Result<Reply, ClientError>> {
        let mut source = Whole::new(file);
        self.client.upload(self.now_ns / MS, source.plan());
        self.run(&mut source, stop)
    }

    /// Uploads something in another way than by its digest.
    ///
    /// # Errors
    /// As the client's.
    pub fn upload_as(
        &mut self,
        plan: Plan,
        source: &mut impl Source,
    ) -> Result<Reply, ClientError> {
        self.client.upload(self.now_ns / MS, plan);
        self.run(source, |_| false)
            .unwrap_or(Err(ClientError::Silent))
    }

    /// What is listed; a target that was silent is found again, whichever version it speaks.
    ///
    /// # Errors
    /// As the client's.
    pub fn images(&mut self) -> Result<Vec<ImageState>, ClientError> {
        match self.ask(Order::Probe)? {
            Reply::Images(images) => Ok(images),
            _ => Err(ClientError::Malformed),
        }
    }

    /// Restarts the MCU and waits until it answers again.
    ///
    /// # Errors
    /// It does not come back in three minutes.
    pub fn restart(&mut self) -> Result<Vec<ImageState>, ClientError> {
        self.ask(Order::Reset {
            force: false,
            boot_mode: None,
        })?;
        self.pass(AFTER_RESET_NS);
        for _ in 0..LOOKS_MAX {
            if let Ok(images) = self.images() {
                return Ok(images);
            }
            self.pass(LOOK_NS);
        }
        Err(ClientError::Silent)
    }

    fn run(
        &mut self,
        source: &mut impl Source,
        mut stop: impl FnMut(&mut Self) -> bool,
    ) -> Option<Result<Reply, ClientError>> {
        let mut arrived = Vec::new();
        loop {
            if let Poll::Done(result) = self.client.poll(self.now_ns / MS, source) {
                return Some(result);
            }
            let output = self.client.output().to_vec();
            self.client.written(output.len());
            self.written_bytes += output.len() as u64;
            self.mcu.receive(self.now_ns, &output);
            if stop(self) {
                self.client.cancel();
                return None;
            }
            arrived.clear();
            self.mcu.transmit(self.now_ns, &mut arrived);
            if !arrived.is_empty() {
                self.client.receive(self.now_ns / MS, &arrived);
                continue;
            }
            let deadline_ns = self.client.deadline().map(|ms| ms.saturating_mul(MS));
            let next_ns = [self.mcu.deadline_ns(), deadline_ns]
                .into_iter()
                .flatten()
                .min();
            // The client counts whole milliseconds: one that is not over yet has to pass.
            self.now_ns = next_ns
                .filter(|at_ns| *at_ns > self.now_ns)
                .unwrap_or(self.now_ns + MS);
            if self.now_ns > END_NS {
                return Some(Err(ClientError::Silent));
            }
        }
    }
}
