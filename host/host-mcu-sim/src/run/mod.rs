//! A simulated MCU in real time, on a pseudo terminal or a TCP port: one thread that moves bytes and tells it the time.
//!
//! The line's rate is the MCU's own, whatever the client sets: a pseudo terminal has none. What the client writes faster
//! than the line carries waits in the terminal, as it would in a driver.

mod port;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::Error;
use crate::config::MS;
use crate::mcu::Mcu;
use port::Place;

/// What a read takes at once: a terminal's own buffer.
const READ_BYTES: usize = 4096;

/// How much of the line's time may wait inside the MCU: beyond it the client's bytes stay in the terminal.
const BACKLOG_NS_MAX: u64 = 20 * MS;

/// How often operations that wait for their time are brought to the flash's file, so that a kill finds it as it is.
const SETTLE_NS: u64 = 5 * MS;

/// Where an MCU is to be found.
#[derive(Debug, Clone)]
pub enum Port {
    /// A pseudo terminal, and a symbolic link to it that stays the same when it is plugged in again.
    Pty {
        /// The link; none if nobody needs a lasting name.
        link: Option<PathBuf>,
    },
    /// A TCP port; one client at a time. Port 0 takes a free one.
    Tcp(SocketAddr),
}

/// What tokio's timers can tell apart, and may be late.
const TIMER_NS: u64 = 2 * MS;

/// A running MCU. It ends when this is dropped.
#[derive(Debug)]
pub struct Simulation {
    shared: Arc<Shared>,
    address: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    mcu: Mutex<Mcu>,
    begin: Instant,
    ends: AtomicBool,
    wake: Notify,
}

impl Simulation {
    /// Puts an MCU on a port. Its time begins now.
    ///
    /// # Errors
    /// A port that cannot be opened.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where simulated time meets real time"
    )]
    pub fn start(mcu: Mcu, port: &Port) -> Result<Self, Error> {
        let place = Place::open(port)?;
        let address = place.address().to_owned();
        let failed = |source: std::io::Error| Error::Port {
            name: address.clone(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let shared = Arc::new(Shared {
            mcu: Mutex::new(mcu),
            begin: Instant::now(),
            ends: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("mcu-sim".to_owned())
            .spawn(move || own.run(&runtime, place))
            .map_err(failed)?;
        Ok(Self {
            shared,
            address,
            thread: Some(thread),
        })
    }

    /// The link or path of the terminal, or `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Does something to the MCU, or looks at it; the closure gets the time in nanoseconds.
    pub fn with<R>(&self, act: impl FnOnce(&mut Mcu, u64) -> R) -> R {
        let result = {
            let mut mcu = self.shared.lock();
            let now_ns = self.shared.now_ns();
            mcu.advance(now_ns);
            act(&mut mcu, now_ns)
        };
        self.shared.wake.notify_one();
        result
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nobody left to tell.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Mcu> {
        self.mcu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn run(&self, runtime: &Runtime, mut place: Place) {
        let mut buffer = vec![0; READ_BYTES];
        let mut out = Vec::new();
        while !self.ends.load(Ordering::Acquire) {
            let (wait, listens) = {
                let mut mcu = self.lock();
                let now_ns = self.now_ns();
                mcu.transmit(now_ns, &mut out);
                if let Some(trouble) = mcu.take_trouble() {
                    tracing::error!(error = %trouble, "the flash is kept in memory only from here on");
                }
                place.set_plugged(mcu.is_plugged());
                let wait = mcu.deadline_ns().map(|at_ns| {
                    let wait_ns = at_ns.saturating_sub(now_ns);
                    if mcu.flash_waits() {
                        wait_ns.min(SETTLE_NS)
                    } else {
                        wait_ns
                    }
                });
                (wait, mcu.backlog_ns() <= BACKLOG_NS_MAX)
            };
            place.write(&out);
            out.clear();
            let wait = if listens {
                wait
            } else {
                Some(wait.map_or(MS, |wait_ns| wait_ns.min(MS)))
            };
            if !runtime.block_on(self.wait_for(&place, wait, listens)) {
                continue;
            }
            // Whoever comes after the plug was put in is served, and nobody who comes before it.
            place.set_plugged(self.lock().is_plugged());
            if let Some(count) = place.read(&mut buffer) {
                let mut mcu = self.lock();
                let now_ns = self.now_ns();
                mcu.receive(now_ns, &buffer[..count]);
            }
        }
    }

    /// Waits for bytes, a wake-up or a time; whether there may be something to read.
    async fn wait_for(&self, place: &Place, wait_ns: Option<u64>, listens: bool) -> bool {
        if let Some(wait_ns) = wait_ns
            && wait_ns < TIMER_NS
        {
            // Shorter than the runtime's timers can tell, and this thread has nothing else to do.
            std::thread::sleep(Duration::from_nanos(wait_ns));
            return listens;
        }
        let handle = place.handle().filter(|_| listens);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the descriptor is borrowed from a port that stays open meanwhile"
        )]
        let handle =
            handle.and_then(|handle| AsyncFd::with_interest(handle, Interest::READABLE).ok());
        let readable = async {
            match &handle {
                // An error is read as well.
                Some(handle) => drop(handle.readable().await),
                None => std::future::pending().await,
            }
        };
        let time = async {
            match wait_ns {
                // The last bit is waited for with more care, next time.
                Some(wait_ns) => tokio::time::sleep(Duration::from_nanos(wait_ns - TIMER_NS)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = readable => true,
            () = self.wake.notified() => false,
            () = time => false,
        }
    }
}
