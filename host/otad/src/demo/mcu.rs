//! The demo's secondary MCUs: simulated ones with MCUboot's swap, each on a pseudo terminal, in this process. What runs on
//! one is what its own bootloader says. Not here: how the daemon reaches them; that is the plugin's, over the terminal.

use std::fmt::Write as _;
use std::path::Path;

use host_mcu_sim::{Config, Geometry, Mcu, Port, Simulation, Timing, sample};

use super::scenario::Image;
use super::stage::{OLD_VERSION, failed};
use crate::exit::Failed;

/// Bits a second of the lines: fast for a UART, and still slow enough to be seen.
const BAUD: u32 = 460_800;

/// Slots of 256 KiB in sectors of 4 KiB.
const SLOT_BYTES: u32 = 256 << 10;

/// The demo looks at a new image for so long; an operator would wait longer.
const SOAK_MS: u32 = 500;

/// One of them.
pub(super) struct Secondary {
    pub(super) name: &'static str,
    simulation: Simulation,
}

impl Secondary {
    /// It runs the old version.
    pub(super) fn start(dir: &Path, name: &'static str) -> Result<Self, Failed> {
        let not_started = |e: host_mcu_sim::Error| failed("starting a simulated MCU", &e);
        let geometry = Geometry::new(4096, SLOT_BYTES, 1).map_err(not_started)?;
        let mut config = Config::new(geometry);
        config.factory.primary = vec![sample::image(OLD_VERSION, 20_000)];
        config.timing = Timing::line(BAUD);
        let link = dir.join(format!("tty-{name}"));
        let mcu = Mcu::new(config).map_err(not_started)?;
        let port = Port::Pty { link: Some(link) };
        let simulation = Simulation::start(mcu, &port).map_err(not_started)?;
        Ok(Self { name, simulation })
    }

    /// Version of the image that its bootloader started.
    pub(super) fn running_version(&self) -> Option<String> {
        self.simulation
            .with(|mcu, _| mcu.view().active_version().map(str::to_owned))
    }

    /// Its target in the daemon's configuration; `is_sick` = the operator's check says no.
    pub(super) fn configuration(&self, file_id: usize, carrier: &str, is_sick: bool) -> String {
        let name = self.name;
        let mut text = format!(
            "\n[[device.target]]\nname = \"{name}\"\nfile_id = {file_id}\nplugin = \"serial-mcu\"\ncarrier = \"{carrier}\"\n"
        );
        if is_sick {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "health = {{ command = [\"./sick.sh\"] }}");
        }
        let _ = write!(
            text,
            "\n[device.target.line]\nport = \"tty-{name}\"\nbaud = {BAUD}\n\n[device.target.settings]\nsoak_ms = {SOAK_MS}\n"
        );
        text
    }
}

/// An image for one of them: MCUboot's header and trailer round noise.
pub(super) fn image(image: &Image) -> Vec<u8> {
    sample::image(image.version, image.size_bytes)
}
