//! A real port with a client on it. Reads wait for a moment, so that one thread is enough.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use host_mcu_sim::{Framing, Mcu, Simulation};
use serial2::SerialPort;
use smp_core::client::{Client, ClientConfig, ClientError, Order, Plan, Poll, Source, Whole};
use smp_core::reply::{ImageState, Parameters, Reply};

/// Longest time that a read waits; the client's deadlines are coarser.
const READ: Duration = Duration::from_millis(5);
/// Longest swap: 512 KiB take up to a minute on real flash.
const SWAP: Duration = Duration::from_secs(180);
/// After the answer to a reset the old server lives for 250 ms more.
const AFTER_RESET: Duration = Duration::from_millis(600);
const LOOK: Duration = Duration::from_millis(100);
const WINDOW: u8 = 3;

/// Where the server is.
#[derive(Debug)]
pub(crate) enum Place {
    Tty(PathBuf),
    Tcp(String),
}

/// How its power is cut.
#[derive(Debug)]
pub(crate) enum Power {
    /// Not at all: a reset has to do.
    Reset,
    /// By a shell command.
    Command(String),
    /// It is simulated.
    Simulated(Box<Simulation>),
}

#[derive(Debug)]
enum Wire {
    Tty(SerialPort),
    Tcp(TcpStream),
}

/// A port and the client on it.
#[derive(Debug)]
pub(crate) struct Bench {
    place: Place,
    pub(crate) power: Power,
    wire: Wire,
    config: ClientConfig,
    client: Client,
    sizes: Option<Parameters>,
    begin: Instant,
    /// Bytes that were written since it was last reset to 0.
    pub(crate) written: u64,
}

impl Bench {
    pub(crate) fn new(place: Place, baud: u32, framing: Framing, power: Power) -> Self {
        let config = ClientConfig {
            framing,
            baud,
            window_max: WINDOW,
        };
        Self {
            wire: open(&place, baud),
            place,
            power,
            client: Client::new(config),
            config,
            sizes: None,
            begin: now(),
            written: 0,
        }
    }

    /// Closes the port and forgets everything, as a restart of the gateway does; then meets the server anew.
    pub(crate) fn begin_anew(&mut self) -> Vec<ImageState> {
        // A server that takes one connection has to see the old one go first.
        if let Wire::Tcp(stream) = &self.wire {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        self.wire = open(&self.place, self.config.baud);
        self.client = Client::new(self.config);
        self.meet().unwrap()
    }

    /// What is listed; sizes are asked for along with it.
    pub(crate) fn meet(&mut self) -> Result<Vec<ImageState>, ClientError> {
        let Reply::Images(images) = self.ask(Order::Probe)? else {
            return Err(ClientError::Malformed);
        };
        self.sizes = match self.ask(Order::Parameters) {
            Ok(Reply::Parameters(sizes)) => Some(sizes),
            Ok(_) | Err(ClientError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        self.client.set_sizes(self.sizes);
        Ok(images
            .into_iter()
            .filter(|image| !image.is_empty_slot())
            .collect())
    }

    /// Bytes of the server's packet buffer.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.sizes.map_or(256, |sizes| sizes.buf_size.into())
    }

    pub(crate) fn ask(&mut self, order: Order) -> Result<Reply, ClientError> {
        self.client.begin(self.now_ms(), order);
        self.run(&mut (), u64::MAX)
            .unwrap_or(Err(ClientError::Silent))
    }

    /// Uploads until the server has `stop_at` bytes; none = stopped there.
    pub(crate) fn upload(
        &mut self,
        file: &[u8],
        change: impl FnOnce(&mut Plan),
        stop_at: u64,
    ) -> Option<Result<Reply, ClientError>> {
        let mut source = Whole::new(file);
        let mut plan = source.plan();
        change(&mut plan);
        self.client.upload(self.now_ms(), plan);
        self.run(&mut source, stop_at)
    }

    /// Restarts the server and waits until it is there again.
    pub(crate) fn restart(&mut self) -> Vec<ImageState> {
        self.ask(Order::Reset {
            force: false,
            boot_mode: None,
        })
        .unwrap();
        self.wait_back()
    }

    /// Cuts the power, or does what comes nearest to it, and waits.
    pub(crate) fn cut_power(&mut self) -> Vec<ImageState> {
        match &self.power {
            Power::Reset => return self.restart(),
            Power::Command(command) => {
                let status = Command::new("sh").args(["-c", command]).status().unwrap();
                assert!(status.success(), "{command}: {status}");
            }
            Power::Simulated(simulation) => simulation.with(Mcu::power_cut),
        }
        self.wait_back()
    }

    fn wait_back(&mut self) -> Vec<ImageState> {
        let until = now() + SWAP;
        self.be_silent(AFTER_RESET);
        loop {
            match self.meet() {
                Ok(images) => return images,
                Err(error) => assert!(now() < until, "it does not come back: {error}"),
            }
            self.be_silent(LOOK);
        }
    }

    /// Says nothing, and throws away what comes meanwhile.
    fn be_silent(&mut self, time: Duration) {
        let until = now() + time;
        while now() < until {
            self.wire.read(&mut [0; 4096]);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }

    fn run(
        &mut self,
        source: &mut impl Source,
        stop_at: u64,
    ) -> Option<Result<Reply, ClientError>> {
        let mut buffer = [0; 4096];
        loop {
            if let Poll::Done(result) = self.client.poll(self.now_ms(), source) {
                return Some(result);
            }
            if self.client.uploaded() >= stop_at {
                self.client.cancel();
                return None;
            }
            let output = self.client.output().to_vec();
            self.client.written(output.len());
            self.written += output.len() as u64;
            self.wire.write(&output);
            let count = self.wire.read(&mut buffer);
            if count > 0 {
                self.client.receive(self.now_ms(), &buffer[..count]);
            }
        }
    }
}

impl Wire {
    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Tty(port) => port.write_all(bytes).unwrap(),
            Self::Tcp(stream) => stream.write_all(bytes).unwrap(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let read = match self {
            Self::Tty(port) => port.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        };
        match read {
            Ok(count) => count,
            Err(error) => {
                let waits = [
                    ErrorKind::WouldBlock,
                    ErrorKind::TimedOut,
                    ErrorKind::Interrupted,
                ];
                assert!(waits.contains(&error.kind()), "{error}");
                0
            }
        }
    }
}

fn open(place: &Place, baud: u32) -> Wire {
    match place {
        Place::Tty(path) => {
            let mut port = SerialPort::open(path, baud).unwrap();
            port.set_read_timeout(READ).unwrap();
            Wire::Tty(port)
        }
        Place::Tcp(address) => {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(READ)).unwrap();
            Wire::Tcp(stream)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a real port runs in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Says where it is: a suite against hardware takes minutes.
#[expect(clippy::print_stderr, reason = "nobody else says how far it is")]
pub(crate) fn step(text: &str) {
    eprintln!("  {text}");
}
