//! A secondary MCU: the simulated one on a pseudo terminal in the test's own process, and the lines by which a gateway
//! finds it. What the MCU itself says runs can be asked directly.

use std::path::PathBuf;
use std::time::Duration;

use host_mcu_sim::{Config, Geometry, Mcu, Port, Simulation, Timing, View, sample};
use support::deadline::{Deadline, PATIENCE, pass};
use tempfile::TempDir;

use crate::gateway::TargetLines;

/// Slots of 128 KiB in sectors of 4 KiB.
const SLOT_BYTES: u32 = 128 << 10;

/// Bytes of an image's body: some hundred packets.
pub const BODY_BYTES: usize = 40_000;

/// A line so fast that a test of behaviour does not wait for it.
pub const FAST_BAUD: u32 = 3_000_000;

/// A simulated MCU and the terminal that it hangs on.
#[derive(Debug)]
pub struct Secondary {
    simulation: Simulation,
    dir: TempDir,
}

impl Secondary {
    /// One that runs version 1.0.0 behind a fast line.
    #[must_use]
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, with other settings.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = support::temp_dir("mcu").unwrap();
        let mut config = Config::new(Geometry::new(4096, SLOT_BYTES, 1).unwrap());
        config.factory.primary = vec![sample::image("1.0.0", BODY_BYTES)];
        config.timing = Timing::line(FAST_BAUD);
        change(&mut config);
        let link = Some(dir.path().join("tty"));
        let simulation = Simulation::start(Mcu::new(config).unwrap(), &Port::Pty { link }).unwrap();
        Self { simulation, dir }
    }

    /// The terminal.
    #[must_use]
    pub fn port(&self) -> PathBuf {
        self.dir.path().join("tty")
    }

    /// Lines of a target that is this MCU; its self-test is short.
    #[must_use]
    pub fn target(&self, name: &str, file_id: u8) -> TargetLines {
        self.target_with(name, file_id, "", "")
    }

    /// The same, with more lines of the target and of its settings.
    #[must_use]
    pub fn target_with(&self, name: &str, file_id: u8, lines: &str, settings: &str) -> TargetLines {
        TargetLines {
            name: name.to_owned(),
            file_id,
            restart: String::new(),
            lines: format!(
                "plugin = \"serial-mcu\"\n{lines}\n[device.target.line]\nport = \"{}\"\nbaud = {FAST_BAUD}\n\
                 [device.target.settings]\nsoak_ms = 100\nsilence_ms = 10000\nswap_timeout_ms = 20000\n{settings}\n",
                self.port().display()
            ),
        }
    }

    /// What the MCU is now.
    #[must_use]
    pub fn view(&self) -> View {
        self.simulation.with(|mcu, _| mcu.view())
    }

    /// Does something to it.
    pub fn with_mcu<R>(&self, act: impl FnOnce(&mut Mcu, u64) -> R) -> R {
        self.simulation.with(act)
    }

    /// Version that runs, and whether it is confirmed.
    #[must_use]
    pub fn runs(&self) -> (String, bool) {
        let view = self.view();
        let active = view.slots.iter().find(|slot| slot.is_active);
        active.map_or_else(Default::default, |slot| {
            (slot.version.clone(), slot.is_confirmed)
        })
    }

    /// Waits until the MCU is as it is wanted.
    ///
    /// # Panics
    /// If it does not become so.
    pub fn wait(&self, what: &str, wanted: impl Fn(&View) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !wanted(&self.view()) {
            assert!(deadline.left().is_some(), "{what}: {:?}", self.view());
            pass(Duration::from_millis(2));
        }
    }
}

/// An image for it.
#[must_use]
pub fn image(version: &str) -> Vec<u8> {
    sample::image(version, BODY_BYTES)
}
