//! PAL plugin: a secondary MCU behind a serial line that speaks MCUmgr SMP and boots by MCUboot.
//!
//! The host stages and verifies the file; this plugin pushes it in order into the slot that does not run, also ahead of
//! the file's end, marks it for test as the very last step, restarts the target and asks it what is true. Nothing is
//! decided from memory: the list of images is looked at before and after everything that changes something.
//!
//! ```text
//!   settled ──install──► uploaded ──activate──► armed ──reset──► in test ──commit──► settled
//!      ▲                                                            │
//!      └──────────────────── reject, or any other restart ◄─────────┘
//! ```
//!
//! A duty is an `async fn` over `port::Port`, polled once a step: its course reads from top to bottom, and what it
//! awaits is an answer of the target, time, or more of the file. There is no executor and nothing runs beside it.

mod duty;
mod file;
mod look;
mod port;
mod settings;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pal_sdk::{
    Answer, Blob, Description, Duty, Failure, Plugin, Setting, Transfer, Working, capability,
    export_plugin,
};

use duty::Job;
pub use port::Lent;
use port::Port;
use settings::Settings;

/// `failure.sub`. Append-only; README.md has them too.
pub mod sub {
    /// The target lists no running image.
    pub const NOTHING_ACTIVE: u32 = 1;
    /// A new image is marked for the next start.
    pub const ARMED: u32 = 2;
    /// An image runs that is not confirmed.
    pub const PENDING: u32 = 3;
    /// The target does not restart.
    pub const NO_RESTART: u32 = 4;
    /// The upload failed twice.
    pub const UPLOAD: u32 = 5;
    /// The committed image cannot be rejected.
    pub const COMMITTED: u32 = 6;
    /// The new image does not run.
    pub const NOT_RUNNING: u32 = 7;
    /// The image is not in its slot.
    pub const NOT_LISTED: u32 = 8;
    /// No transfer is open.
    pub const NO_TRANSFER: u32 = 9;
    /// The slot cannot be erased.
    pub const ERASE: u32 = 10;
    /// The image could not be marked or confirmed.
    pub const NOT_MARKED: u32 = 11;
    /// The target tells another version than the image.
    pub const OTHER_VERSION: u32 = 12;
    /// No confirmed image is left to go back to.
    pub const NO_WAY_BACK: u32 = 13;
    /// The echo does not work.
    pub const ECHO: u32 = 14;
    /// The application's own test failed.
    pub const TEST_COMMAND: u32 = 15;
    /// The file is no MCUboot image.
    pub const NO_IMAGE: u32 = 16;
    /// The image is for another product.
    pub const OTHER_PRODUCT: u32 = 17;
    /// The target does not tell whether its bootloader can revert.
    pub const BOOTLOADER: u32 = 18;
    /// The target is too busy to list its images.
    pub const BUSY: u32 = 19;
}

/// What cannot be asked from the target.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The open transfer's image was marked: if an old one runs, it went back.
    pub(crate) activated: Cell<bool>,
    /// Something was sent into the slot.
    pub(crate) pushed: Cell<bool>,
    /// `reject` erased it: its slot is not empty because the bootloader refused it.
    pub(crate) erased: Cell<bool>,
}

type Task = Pin<Box<dyn Future<Output = Result<Answer, Failure>>>>;

/// The plugin; `L` is what it is lent.
pub struct SerialMcu<L: Lent> {
    port: Rc<Port<L>>,
    job: Option<Job>,
    told: Rc<Told>,
    /// Name of the transfer that `saved` speaks of, and its flags.
    saved: Vec<u8>,
    task: Option<Task>,
}

impl<L: Lent> core::fmt::Debug for SerialMcu<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SerialMcu")
            .field("job", &self.job)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

/// Encoding of what `suspend` gives: the transfer's name (32 bytes) and a byte of flags, or nothing. Flags that a build does
/// not know are nothing to it.
const SCHEMA: u32 = 1;
const ACTIVATED: u8 = 1;
const PUSHED: u8 = 2;
const ERASED: u8 = 4;

impl<L: Lent> Plugin for SerialMcu<L> {
    type Lent = L;

    fn describe() -> Description {
        Description {
            name: "pal-serial-mcu".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec!["serial-mcu".to_owned()],
            capabilities: capability::STAGED
                | capability::AHEAD
                | capability::REVERT
                | capability::SELF_TEST
                | capability::RUNNING_VERSION,
            largest_write: 0,
            schemas: vec![SCHEMA],
        }
    }

    fn open(lent: L, settings: Vec<Setting>, saved: Option<Blob>) -> Result<Self, Failure> {
        let settings = Settings::read(&settings)?;
        let saved = match saved {
            Some(blob) if blob.schema != SCHEMA => return Err(Failure::schema(blob.schema)),
            Some(blob) => blob.bytes,
            None => Vec::new(),
        };
        Ok(Self {
            port: Rc::new(Port::new(lent, settings)),
            job: None,
            told: Rc::default(),
            saved,
            task: None,
        })
    }

    fn create(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        let job = Job::of(&transfer);
        self.job = Some(job.clone());
        self.told = Rc::default();
        self.begin(duty::create(self.port.clone(), job))
    }

    fn reopen(&mut self, transfer: Transfer) -> Result<Duty, Failure> {
        let job = Job::of(&transfer);
        self.told = Rc::default();
        if let Some((name, [flags])) = self.saved.split_at_checked(32)
            && name == job.name
        {
            self.told.activated.set(flags & ACTIVATED != 0);
            self.told.pushed.set(flags & PUSHED != 0);
            self.told.erased.set(flags & ERASED != 0);
        }
        self.job = Some(job);
        self.task = None;
        Duty::done()
    }

    fn examine(&mut self) -> Result<Duty, Failure> {
        let job = self.job()?;
        self.begin(duty::examine(self.port.clone(), job))
    }

    fn install(&mut self) -> Result<Duty, Failure> {
        let job = self.job()?;
        self.begin(duty::install(self.port.clone(), job, self.told.clone()))
    }

    /// The digest is the file's; the bootloader knows the image by another one, which the file itself tells.
    fn activate(&mut self, _sha256: [u8; 32]) -> Result<Duty, Failure> {
        let job = self.job()?;
        self.begin(duty::activate(self.port.clone(), job, self.told.clone()))
    }

    fn reset(&mut self) -> Result<Duty, Failure> {
        let job = self.job.clone();
        self.begin(duty::reset(self.port.clone(), job))
    }

    fn self_test(&mut self) -> Result<Duty, Failure> {
        let job = self.job()?;
        self.begin(duty::self_test(self.port.clone(), job))
    }

    fn commit(&mut self) -> Result<Duty, Failure> {
        let job = self.job()?;
        self.begin(duty::commit(self.port.clone(), job))
    }

    fn reject(&mut self) -> Result<Duty, Failure> {
        let job = self.job.clone();
        self.begin(duty::reject(self.port.clone(), job, self.told.clone()))
    }

    fn state(&mut self) -> Result<Duty, Failure> {
        let job = self.job.clone();
        self.begin(duty::state(self.port.clone(), job, self.told.clone()))
    }

    fn abort(&mut self) -> Result<Duty, Failure> {
        let job = self.job.clone();
        self.begin(duty::abort(self.port.clone(), job, self.told.clone()))
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, Failure> {
        self.port.budget_bytes.set(budget_bytes);
        self.go_on()
    }

    fn suspend(&mut self) -> Result<Blob, Failure> {
        let mut bytes = Vec::new();
        if let Some(job) = &self.job {
            bytes.extend_from_slice(&job.name);
            let flag = |set: &Cell<bool>, bit| if set.get() { bit } else { 0 };
            let told = &self.told;
            let flags = flag(&told.activated, ACTIVATED)
                | flag(&told.pushed, PUSHED)
                | flag(&told.erased, ERASED);
            bytes.push(flags);
        }
        Ok(Blob {
            schema: SCHEMA,
            bytes,
        })
    }
}

impl<L: Lent> SerialMcu<L> {
    fn job(&self) -> Result<Job, Failure> {
        self.job.clone().ok_or_else(|| {
            Failure::new(
                pal_sdk::code::BAD_ARGUMENT,
                sub::NO_TRANSFER,
                "no transfer is open",
            )
        })
    }

    /// Begins a duty; what was under way is dropped.
    fn begin(
        &mut self,
        duty: impl Future<Output = Result<Answer, Failure>> + 'static,
    ) -> Result<Duty, Failure> {
        self.port.begins();
        self.task = Some(Box::pin(duty));
        self.go_on()
    }

    fn go_on(&mut self) -> Result<Duty, Failure> {
        let Some(mut task) = self.task.take() else {
            return Err(Failure::bad_argument("no duty is under way"));
        };
        match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result.map(Duty::Finished),
            Poll::Pending => {
                self.task = Some(task);
                let (done, total) = self.port.progress.get();
                Ok(Duty::Working(Working {
                    done,
                    total,
                    wake: self.port.wake.get(),
                }))
            }
        }
    }
}

export_plugin!(
    SerialMcu<pal_sdk::Lent>,
    need::STAGED_IMAGE | need::SERIAL_LINE | need::HARDWARE_RESET | need::CLOCK | need::LOG
);

#[cfg(test)]
mod tests;
