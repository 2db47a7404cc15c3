//! The line as duties see it: commands and uploads that are awaited, and sleeping. What a duty awaits is one question to
//! the client; between two polls the host runs, so the wake that it gets is kept here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::Poll as Task;

use pal_sdk::lent::{Clock, HardwareReset, Level, Log, SerialLine, StagedImage};
use pal_sdk::{Failure, Wake, code};
use smp_core::client::{Client, ClientConfig, ClientError, Order, Plan, Poll, Source};
use smp_core::reply::Reply;

use crate::settings::Settings;

/// Everything that this plugin is lent.
pub trait Lent: StagedImage + SerialLine + HardwareReset + Clock + Log + 'static {}
impl<L: StagedImage + SerialLine + HardwareReset + Clock + Log + 'static> Lent for L {}

/// Most bytes read from the line at once.
const READ_BYTES: u32 = 4096;
/// Longest sleep that the contract knows.
const SLEEP_MAX_MS: u64 = 60_000;
/// Time between two tries to open a line that was unplugged.
const REOPEN_MS: u64 = 500;

/// How far the uploads of a duty are.
#[derive(Clone, Copy, Debug, Default)]
struct Uploads {
    /// Bytes that the target has.
    sent: u64,
    /// Bytes of the file.
    size: u64,
    /// Bytes that it had and that are sent again, by a second upload or because it has lost them. They count as well: over a
    /// slow line the host would take the time until it has as many again for a duty that hangs.
    again: u64,
}

/// The lent things, the client and what the host is to be told.
pub(crate) struct Port<L> {
    pub(crate) lent: L,
    pub(crate) settings: Settings,
    client: RefCell<Client>,
    open: Cell<bool>,
    /// Why it is not open, or was not until bytes went over it: a connection over a network counts as open while it is tried.
    fault: RefCell<Option<Failure>>,
    /// Something was written since it was opened.
    wrote: Cell<bool>,
    reopen_at_ms: Cell<u64>,
    pub(crate) wake: Cell<Wake>,
    pub(crate) progress: Cell<(u64, u64)>,
    uploads: Cell<Uploads>,
    /// When the duty that is under way was begun.
    begun_ms: Cell<u64>,
    /// It answered the last question, in the version that the client speaks.
    pub(crate) met: Cell<bool>,
    /// When it was first heard after the last reset that this instance, or one before it, can have sent.
    heard_ms: Cell<Option<u64>>,
    /// Since when it has not answered what it was asked.
    silent_ms: Cell<Option<u64>>,
    pub(crate) budget_bytes: Cell<u32>,
}

impl<L: Lent> Port<L> {
    pub(crate) fn new(lent: L, settings: Settings) -> Self {
        let config = ClientConfig {
            framing: settings.framing,
            // 0 = as the host configured it: not known here, time-outs follow what is measured.
            baud: settings.line.baud,
            window_max: settings.window,
        };
        Self {
            lent,
            settings,
            client: RefCell::new(Client::new(config)),
            open: Cell::new(false),
            fault: RefCell::default(),
            wrote: Cell::new(false),
            reopen_at_ms: Cell::new(0),
            wake: Cell::default(),
            progress: Cell::default(),
            uploads: Cell::default(),
            begun_ms: Cell::default(),
            met: Cell::new(false),
            heard_ms: Cell::default(),
            silent_ms: Cell::default(),
            budget_bytes: Cell::new(READ_BYTES),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.lent.now_ms()
    }

    /// A duty begins.
    pub(crate) fn begins(&self) {
        self.progress.set((0, 0));
        self.uploads.set(Uploads::default());
        self.begun_ms.set(self.now_ms());
    }

    pub(crate) fn say(&self, level: Level, parts: &[&str]) {
        self.lent.log(level, &parts.concat());
    }

    /// The target is asked; since when it has not answered.
    pub(crate) fn asked(&self) -> u64 {
        let since_ms = self.silent_ms.get().unwrap_or_else(|| self.now_ms());
        self.silent_ms.set(Some(since_ms));
        since_ms
    }

    /// The target has answered; when it first did after what may have been a reset.
    pub(crate) fn heard(&self) -> u64 {
        self.met.set(true);
        self.silent_ms.set(None);
        let first_ms = self.heard_ms.get().unwrap_or_else(|| self.now_ms());
        self.heard_ms.set(Some(first_ms));
        first_ms
    }

    /// The target is being reset.
    pub(crate) fn resets(&self) {
        self.heard_ms.set(None);
    }

    /// A command and its answer.
    pub(crate) async fn ask(&self, order: Order) -> Result<Reply, ClientError> {
        self.client.borrow_mut().begin(self.now_ms(), order);
        self.work(&mut ()).await
    }

    /// An upload.
    pub(crate) async fn upload(
        &self,
        plan: Plan,
        source: &mut impl Source,
    ) -> Result<Reply, ClientError> {
        let uploads = self.uploads.get();
        self.moved(uploads.sent, plan.size);
        self.client.borrow_mut().upload(self.now_ms(), plan);
        self.work(source).await
    }

    /// Sizes of the server's buffers, asked anew.
    pub(crate) async fn learn_sizes(&self) {
        let sizes = match self.ask(Order::Parameters).await {
            Ok(Reply::Parameters(sizes)) => Some(sizes),
            // Not built in, or a server that says something else: the least is assumed.
            _ => None,
        };
        self.client.borrow_mut().set_sizes(sizes);
    }

    async fn work(&self, source: &mut impl Source) -> Result<Reply, ClientError> {
        poll_fn(|_| {
            let now_ms = self.now_ms();
            self.pump(now_ms);
            let mut client = self.client.borrow_mut();
            match client.poll(now_ms, source) {
                Poll::Done(result) => return Task::Ready(result),
                // Nothing was begun: it cannot be, and waiting for it would be for ever.
                Poll::Idle => return Task::Ready(Err(ClientError::Silent)),
                Poll::Working => {}
            }
            let starved = client.is_starved();
            let deadline = client.deadline();
            // 0 of commands, which move no bytes.
            if client.uploaded() > 0 {
                self.moved(client.uploaded(), self.uploads.get().size);
            }
            drop(client);
            let flushed = self.flush();
            let until = deadline.unwrap_or(now_ms + SLEEP_MAX_MS);
            let until = match (self.open.get(), flushed) {
                (false, _) => until.min(self.reopen_at_ms.get()),
                (true, true) => until,
                (true, false) => now_ms + 5,
            };
            self.wait(now_ms, until, true, starved);
            Task::Pending
        })
        .await
    }

    /// The target has so much of a file of this size.
    pub(crate) fn moved(&self, sent: u64, size: u64) {
        let before = self.uploads.get();
        let again = before.again + before.sent.saturating_sub(sent);
        self.uploads.set(Uploads { sent, size, again });
        let total = again + size;
        // What was told in seconds before is not taken back.
        let done = self.progress.get().0.max(again + sent).min(total);
        self.progress.set((done, total));
    }

    /// Takes what has arrived. A line that was unplugged is opened again; to the client it is silent meanwhile.
    fn pump(&self, now_ms: u64) {
        if !self.open.get() {
            if now_ms < self.reopen_at_ms.get() {
                return;
            }
            self.reopen_at_ms.set(now_ms + REOPEN_MS);
            if let Err(failure) = self.lent.open_line(self.settings.line) {
                self.lost(&failure);
                return;
            }
            self.open.set(true);
            self.wrote.set(false);
        }
        let most = READ_BYTES.min(self.budget_bytes.get().max(1));
        match self.lent.read_line(most) {
            Ok(bytes) => {
                let has_sent = || self.wrote.get() && self.lent.unsent() == Ok(0);
                if self.fault.borrow().is_some() && (!bytes.is_empty() || has_sent()) {
                    self.fault.replace(None);
                }
                self.client.borrow_mut().receive(now_ms, &bytes);
            }
            Err(failure) => self.lost(&failure),
        }
    }

    /// Writes what there is to write; false if the line takes no more now.
    fn flush(&self) -> bool {
        let mut client = self.client.borrow_mut();
        if !self.open.get() {
            // Bytes for a line that is not there are of no use later.
            let count = client.output().len();
            client.written(count);
            return true;
        }
        while !client.output().is_empty() {
            match self.lent.write_line(client.output()) {
                Ok(0) => return false,
                Ok(count) => {
                    self.wrote.set(true);
                    client.written(count as usize);
                }
                Err(failure) => {
                    drop(client);
                    self.lost(&failure);
                    return true;
                }
            }
        }
        true
    }

    fn lost(&self, failure: &Failure) {
        self.open.set(false);
        // Said once, however often it is tried.
        if self.fault.replace(Some(failure.clone())).is_none() {
            self.say(Level::Warn, &["the line is gone: ", &failure.detail]);
        }
    }

    /// A failure; if nothing was heard because the line is not there, it says that.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        match &*self.fault.borrow() {
            Some(fault) if failure.main == code::UNREACHABLE => fault.clone(),
            _ => failure,
        }
    }

    /// Sleeps, and throws away what arrives meanwhile.
    pub(crate) async fn sleep(&self, ms: u64) {
        let until = self.now_ms() + ms;
        poll_fn(|_| {
            let now_ms = self.now_ms();
            if now_ms >= until {
                if self.open.get()
                    && let Err(failure) = self.lent.drain()
                {
                    self.lost(&failure);
                }
                return Task::Ready(());
            }
            self.wait(now_ms, until, false, false);
            Task::Pending
        })
        .await;
    }

    /// Until more of the file is held or it is verified.
    pub(crate) async fn more_data(&self) {
        let mut waited = false;
        poll_fn(|_| {
            if waited {
                return Task::Ready(());
            }
            waited = true;
            self.wake.set(Wake {
                on_data: true,
                after_ms: Some(1000),
                ..Wake::default()
            });
            Task::Pending
        })
        .await;
    }

    /// Gives the host a turn.
    pub(crate) async fn breathe(&self) {
        let mut waited = false;
        poll_fn(|_| {
            if waited {
                return Task::Ready(());
            }
            waited = true;
            self.wake.set(Wake::default());
            Task::Pending
        })
        .await;
    }

    /// Every wait here has an end of its own, and some last longer than the host lets a duty stand still: where no bytes
    /// move, the seconds do.
    fn wait(&self, now_ms: u64, until: u64, on_input: bool, on_data: bool) {
        if self.progress.get().1 == 0 {
            let seconds = now_ms.saturating_sub(self.begun_ms.get()) / 1000;
            self.progress.set((seconds, 0));
        }
        let ms = until.saturating_sub(now_ms).clamp(1, SLEEP_MAX_MS);
        self.wake.set(Wake {
            on_input,
            on_data,
            after_ms: u32::try_from(ms).ok(),
        });
    }
}

/// A client's error as a duty's: silent is 0xd4, the rest is `main`.
pub(crate) fn failed(main: u8, sub: u32, error: ClientError) -> Failure {
    match error {
        ClientError::Silent => Failure::new(code::UNREACHABLE, 0, &error.to_string()),
        _ => Failure::new(main, sub, &error.to_string()),
    }
}
