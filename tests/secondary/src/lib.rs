//! A gateway's plugin for secondary MCUs against the simulated MCU, both in virtual time: the plugin's own code, MCUboot's
//! swap and revert, a real server's habits, and no process, wasm or clock. [`Bench`] plays the host: it begins a duty,
//! steps it when it wakes, and may be killed in between. What is judged stands in `tests/`.
//!
//! ```
//! use secondary::{Bench, End, config};
//!
//! assert_eq!(Bench::new(config()).update(), End::Committed);
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a helper of a test fails the test"
)]

use host_mcu_sim::fault::Rule;
use host_mcu_sim::{Config, Geometry, MS, Mcu, State, Timing, sample};
use pal_sdk::fake::Fake;
use pal_sdk::{Answer, Blob, Duty, Failure, Plugin, Setting, TargetState, Transfer};
use pal_serial_mcu::SerialMcu;

/// No duty takes longer in virtual time.
const HOUR_NS: u64 = 3_600_000 * MS;

/// Bytes of an image's body.
pub const BODY_BYTES: usize = 30_000;

/// A gateway with its plugin, and the MCU at the other end of the line.
pub struct Bench {
    /// What the plugin is lent.
    pub fake: Fake,
    /// The plugin under test; replaced when the host restarts.
    pub plugin: SerialMcu<Fake>,
    /// The MCU.
    pub mcu: Mcu,
    /// Virtual time.
    pub now_ns: u64,
    /// Hardware resets that have reached the MCU.
    pub pulses: u32,
    /// A reset input is there.
    pub wired: bool,
    /// Settings of the plugin.
    pub settings: Vec<Setting>,
    /// The image of the job.
    pub file: Vec<u8>,
    /// Its id.
    pub job: &'static str,
    /// The file is still arriving.
    pub download: Option<Download>,
    /// What goes wrong, and when.
    pub trouble: Option<(u64, Trouble)>,
    /// What the MCU was in the middle of then.
    pub hit: Option<Hit>,
    /// What a plugin that was swapped said of itself.
    kept: Option<Blob>,
    /// A busy gateway: the first step after this instant comes so many milliseconds later than it was due.
    pub stall: Option<(u64, u64)>,
    /// When the plugin wrote something on the line.
    pub sent_ns: Vec<u64>,
}

/// What goes wrong at an instant, whatever the host is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The MCU loses its power for a moment.
    PowerCut,
    /// The host is killed and comes up again so many milliseconds later.
    Kill {
        /// How long it is away.
        away_ms: u64,
    },
    /// The plugin is swapped for another instance, which is given what this one says of itself.
    Swap,
}

/// What the MCU is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// The old image runs and nothing is marked.
    Settled,
    /// The old image runs and the new one is marked.
    Marked,
    /// Its bootloader runs.
    Starting,
    /// The new image runs and is not confirmed.
    InTest,
    /// The new image runs for good.
    Committed,
}

/// A file on its way to the gateway, in order.
#[derive(Clone, Copy, Debug)]
pub struct Download {
    /// When its first byte was asked for.
    pub begin_ns: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that arrive at once.
    pub block_bytes: u64,
}

impl Download {
    /// When so many bytes are there.
    #[must_use]
    pub fn at_ns(&self, bytes: u64) -> u64 {
        self.begin_ns + (bytes * 1_000_000_000).div_ceil(self.rate)
    }
}

/// How an update ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The new image runs and is confirmed.
    Committed,
    /// A duty failed, with `main` and `sub`; everything went back.
    Failed(&'static str, u8, u32),
    /// After the restart the target said that the new image does not run.
    WentBack,
}

/// An MCU with 1.0.0 behind a line of 115200 baud.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::new(Geometry::new(4096, 128 << 10, 1).unwrap());
    config.factory.primary = vec![sample::image("1.0.0", BODY_BYTES)];
    config.timing = Timing::line(115_200);
    config
}

impl Bench {
    /// A gateway with this MCU.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with(config, &[])
    }

    /// The same, with settings of the plugin's.
    #[must_use]
    pub fn with(config: Config, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("baud", "115200"),
            ("silence_ms", "8000"),
            ("swap_timeout_ms", "30000"),
            ("soak_ms", "1000"),
        ];
        all.retain(|(key, _)| settings.iter().all(|(own, _)| own != key));
        all.extend(settings);
        let settings: Vec<Setting> = all
            .into_iter()
            .map(|(key, value)| Setting {
                key: key.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        let fake = Fake::new(Vec::new());
        let mut mcu = Mcu::new(config).unwrap();
        let now_ns = 2_000 * MS;
        mcu.advance(now_ns);
        Self {
            plugin: SerialMcu::open(fake.clone(), settings.clone(), None).unwrap(),
            fake,
            mcu,
            now_ns,
            pulses: 0,
            wired: true,
            settings,
            file: sample::image("2.0.0", BODY_BYTES),
            job: "job-1",
            download: None,
            trouble: None,
            hit: None,
            kept: None,
            stall: None,
            sent_ns: Vec::new(),
        }
    }

    /// The transfer as the plugin is told of it.
    pub fn transfer(&self) -> Transfer {
        Transfer {
            job_id: self.job.to_owned(),
            file_id: 1,
            size: self.file.len() as u64,
            signature: vec![1, 2, 3],
            ..Transfer::default()
        }
    }

    /// Runs a duty to its end; `Err(None)` = `stop` wanted it dropped, or trouble ended the instance.
    pub fn drive(
        &mut self,
        begin: impl FnOnce(&mut SerialMcu<Fake>) -> Result<Duty, Failure>,
        mut stop: impl FnMut(&mut Self) -> bool,
    ) -> Result<Answer, Option<Failure>> {
        self.fake.world().now_ms = self.now_ns / MS;
        let mut duty = begin(&mut self.plugin)?;
        let end = self.now_ns + HOUR_NS;
        loop {
            let working = match duty {
                Duty::Finished(answer) => return Ok(answer),
                Duty::Working(working) => working,
            };
            if stop(self) || self.is_ended() {
                return Err(None);
            }
            self.exchange();
            let wake_ns = self.now_ns + working.wake.after_ms.map_or(0, u64::from) * MS;
            // Time goes on to the next thing that happens.
            let held = self.fake.world().staged.len();
            while self.now_ns < wake_ns && !(working.wake.on_input && self.has_input()) {
                let arrives_ns = self.deliver();
                if working.wake.on_data && self.fake.world().staged.len() > held {
                    break;
                }
                let next = self.mcu.deadline_ns().unwrap_or(u64::MAX).min(arrives_ns);
                let next = self.trouble.map_or(next, |(at_ns, _)| at_ns.min(next));
                self.now_ns = next.clamp(self.now_ns + MS / 10, wake_ns);
                self.exchange();
                if self.is_ended() {
                    return Err(None);
                }
            }
            if let Some((_, ms)) = self.stall.take_if(|(at_ns, _)| *at_ns <= self.now_ns) {
                self.pass(ms);
            }
            assert!(self.now_ns < end, "an hour has passed");
            self.fake.world().now_ms = self.now_ns / MS;
            duty = self.plugin.step(65_536)?;
        }
    }

    /// Lets the trouble happen when its time has come; whether it has ended the plugin's instance.
    fn is_ended(&mut self) -> bool {
        let Some((_, trouble)) = self.trouble.filter(|(at_ns, _)| *at_ns <= self.now_ns) else {
            return false;
        };
        self.trouble = None;
        self.hit = Some(self.hit_now());
        match trouble {
            Trouble::PowerCut => {
                self.mcu.power_cut(self.now_ns);
                false
            }
            Trouble::Kill { away_ms } => {
                self.pass(away_ms);
                true
            }
            Trouble::Swap => {
                self.kept = self.plugin.suspend().ok();
                true
            }
        }
    }

    /// Lets time pass without a step of the plugin.
    pub fn pass(&mut self, ms: u64) {
        self.now_ns += ms * MS;
        self.exchange();
    }

    /// What the MCU is in the middle of.
    fn hit_now(&self) -> Hit {
        let view = self.mcu.view();
        let active = view.slots.iter().find(|slot| slot.is_active);
        let is_marked = view.slots.iter().any(|slot| slot.is_pending);
        match active {
            Some(active) if view.state == State::Serving => {
                match (&*active.version == "2.0.0", active.is_confirmed) {
                    (true, true) => Hit::Committed,
                    (true, false) => Hit::InTest,
                    (false, _) if is_marked => Hit::Marked,
                    (false, _) => Hit::Settled,
                }
            }
            _ => Hit::Starting,
        }
    }

    /// Puts down what has arrived of a download; when the next block comes.
    fn deliver(&mut self) -> u64 {
        let Some(download) = self.download else {
            return u64::MAX;
        };
        let size = self.file.len() as u64;
        let mut world = self.fake.world();
        loop {
            let held = world.staged.len() as u64;
            let next = (held + download.block_bytes).min(size);
            let at_ns = download.at_ns(next);
            if at_ns > self.now_ns {
                return at_ns;
            }
            world.staged = self.file[..next as usize].to_vec();
            if next == size {
                world.staged_verified = true;
                drop(world);
                self.download = None;
                return u64::MAX;
            }
        }
    }

    fn has_input(&self) -> bool {
        !self.fake.world().line_input.is_empty()
    }

    /// Moves bytes and pulses.
    pub fn exchange(&mut self) {
        let (output, resets) = {
            let mut world = self.fake.world();
            (std::mem::take(&mut world.line_output), world.resets)
        };
        if resets > self.pulses {
            self.pulses = resets;
            if self.wired {
                self.mcu.hardware_reset(self.now_ns);
            }
        }
        if !output.is_empty() {
            self.sent_ns.push(self.now_ns);
        }
        self.mcu.receive(self.now_ns, &output);
        let mut input = Vec::new();
        self.mcu.transmit(self.now_ns, &mut input);
        let mut world = self.fake.world();
        world.line_plugged = self.mcu.is_plugged();
        world.line_input.extend(input);
    }

    /// Runs a duty to its end.
    ///
    /// # Errors
    /// How it failed.
    pub fn duty(
        &mut self,
        name: &'static str,
        begin: impl FnOnce(&mut SerialMcu<Fake>) -> Result<Duty, Failure>,
    ) -> Result<Answer, End> {
        self.drive(begin, |_| false).map_err(|failure| {
            let failure = failure.expect("nobody stopped it");
            End::Failed(name, failure.main, failure.sub)
        })
    }

    /// What the target says of itself.
    pub fn state(&mut self) -> TargetState {
        loop {
            match self.drive(|p| p.state(), |_| false) {
                Ok(Answer::State(state)) => return state,
                Err(None) => self.begin_anew(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The instance that comes after one that trouble has ended.
    fn begin_anew(&mut self) {
        let kept = self.kept.take();
        self.restart_host(kept);
    }

    /// The host was killed; what it saved of the plugin is there or not.
    pub fn restart_host(&mut self, saved: Option<Blob>) {
        {
            let mut world = self.fake.world();
            world.line_input.clear();
            world.line_output.clear();
        }
        self.plugin = SerialMcu::open(self.fake.clone(), self.settings.clone(), saved).unwrap();
        let transfer = self.transfer();
        self.plugin.reopen(transfer).unwrap();
    }

    /// The file is complete and verified.
    pub fn stage_file(&mut self) {
        let mut world = self.fake.world();
        world.staged = self.file.clone();
        world.staged_verified = true;
    }

    /// From `create` to the end of `install`.
    ///
    /// # Errors
    /// Which duty failed.
    pub fn send(&mut self) -> Result<(), End> {
        let transfer = self.transfer();
        self.duty("create", |p| p.create(transfer))?;
        self.stage_file();
        self.duty("install", |p| p.install()).map(drop)
    }

    /// Marks the new image and restarts the target.
    ///
    /// # Errors
    /// Which duty failed.
    pub fn start_new(&mut self) -> Result<(), End> {
        self.duty("activate", |p| p.activate([0; 32]))?;
        self.duty("reset", |p| p.reset()).map(drop)
    }

    /// From the restart to the end.
    pub fn finish(&mut self) -> Result<(), End> {
        if self.state().runs_new != Some(true) {
            return Err(End::WentBack);
        }
        self.duty("self-test", |p| p.self_test())?;
        self.duty("commit", |p| p.commit()).map(drop)
    }

    /// A whole update; what fails goes back, as the host does it.
    pub fn update(&mut self) -> End {
        let began = self
            .send()
            .and_then(|()| self.start_new())
            .and_then(|()| self.finish());
        self.end(began)
    }

    /// What an update comes to; one that failed goes back first.
    pub fn end(&mut self, end: Result<(), End>) -> End {
        match end {
            Ok(()) => {
                assert_eq!(self.runs(), ("2.0.0".to_owned(), true));
                End::Committed
            }
            Err(end) => {
                self.go_back();
                end
            }
        }
    }

    /// Takes the new image back.
    pub fn go_back(&mut self) {
        // A target that does not come back cannot be cleaned, and the host tries again later.
        let rejected = self.persist("reject", |p| p.reject());
        if rejected.is_ok() {
            assert_eq!(self.runs(), ("1.0.0".to_owned(), true));
        }
    }

    /// Version that the MCU runs, and whether it is confirmed.
    pub fn runs(&self) -> (String, bool) {
        let view = self.mcu.view();
        let active = view.slots.iter().find(|slot| slot.is_active).unwrap();
        (active.version.clone(), active.is_confirmed)
    }

    /// The same with one more thing that goes wrong.
    pub fn rule(mut self, text: &str) -> Self {
        self.mcu.add_rule(text.parse::<Rule>().unwrap());
        self
    }

    /// An update in spite of trouble.
    pub fn update_through_trouble(&mut self) -> End {
        let transfer = self.transfer();
        let sent = self
            .persist("create", |p| p.create(transfer.clone()))
            .and_then(|()| {
                self.stage_file();
                self.persist("install", |p| p.install())
            });
        let end = sent.and_then(|()| self.go_on_through_trouble());
        self.end(end)
    }

    /// From the mark to the commit, in spite of trouble.
    ///
    /// # Errors
    /// How it failed.
    pub fn go_on_through_trouble(&mut self) -> Result<(), End> {
        self.persist("activate", |p| p.activate([0; 32]))?;
        self.persist("reset", |p| p.reset())?;
        if self.state().runs_new != Some(true) {
            return Err(End::WentBack);
        }
        self.persist("self-test", |p| p.self_test())?;
        self.persist("commit", |p| p.commit())
    }

    /// Runs a duty to its end. An instance that comes after another one is asked for the target's state and begins the
    /// duty again, as the host does.
    ///
    /// # Errors
    /// How it failed.
    pub fn persist(
        &mut self,
        name: &'static str,
        begin: impl Fn(&mut SerialMcu<Fake>) -> Result<Duty, Failure>,
    ) -> Result<(), End> {
        loop {
            match self.drive(&begin, |_| false) {
                Ok(_) => return Ok(()),
                Err(Some(failure)) => return Err(End::Failed(name, failure.main, failure.sub)),
                Err(None) => {
                    self.begin_anew();
                    self.state();
                }
            }
        }
    }
}
