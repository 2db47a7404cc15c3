//! The rows of the throughput table: what is measured, and what it is held against.

use host_mcu_sim::fault::Chance;
use host_mcu_sim::talk::{Talk, ceiling};
use host_mcu_sim::{Config, Error, Framing, Geometry, Timing, sample};
use smp_core::client::ClientError;

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Share of what `of` says.
    pub(crate) value: f64,
    pub(crate) of: &'static str,
    pub(crate) goal: f64,
}

impl Row {
    pub(crate) fn is_met(&self) -> bool {
        self.value >= self.goal
    }
}

/// Why a row could not be measured.
#[derive(Debug)]
pub(crate) enum Trouble {
    Mcu(Error),
    Client(ClientError),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mcu(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Trouble {}

const LINE: &str = "of the line";
const CEILING: &str = "of the ceiling";
const LOSS_FREE: &str = "of loss-free";
const WINDOW_1: &str = "of window 1";

/// One line with one server.
#[derive(Clone, Copy)]
struct Setting {
    baud: u32,
    buf_size: u16,
    framing: Framing,
    flash: Flash,
    loss: Loss,
    seed: u64,
}

/// What the line loses, in per mille.
#[derive(Clone, Copy)]
enum Loss {
    None,
    /// Packets, on either way.
    Packets(u16),
    /// Lines, of which a packet has up to five.
    Lines(u16),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flash {
    Instant,
    /// 85 ms to erase a page, 5 ms to write 512 bytes; lines are received meanwhile.
    Slow,
    /// The same, and what arrives meanwhile is lost but for two lines.
    SlowAndDeaf,
}

const PLAIN: Setting = Setting {
    baud: 115_200,
    buf_size: 384,
    framing: Framing::Console,
    flash: Flash::Instant,
    loss: Loss::None,
    seed: 1,
};

/// With the share of the loss-free rate that has to be left. One line in a hundred is one packet of five lines in twenty,
/// and each costs two packets at least, itself and the one behind it that a server drops: 90 % would be all there is.
const LOSSES: [(Loss, u64, f64); 4] = [
    (Loss::Packets(10), 1, 0.90),
    (Loss::Packets(10), 2, 0.90),
    (Loss::Lines(10), 1, 0.80),
    (Loss::Lines(10), 2, 0.80),
];

/// Measures all rows with a file of that size.
pub(crate) fn measure(bytes: usize) -> Result<Vec<Row>, Trouble> {
    let file = sample::image("2.0.0", bytes);
    let rate = |setting: Setting, window| rate(setting, window, &file);
    let share = |setting: Setting, rate: f64| rate * 10.0 / f64::from(setting.baud);
    let of_ceiling = |setting: Setting, rate: f64| {
        share(setting, rate) / ceiling(setting.framing, setting.buf_size)
    };
    let mut rows = Vec::new();
    let mut row = |name: String, value, of, goal| {
        rows.push(Row {
            name,
            value,
            of,
            goal,
        });
    };
    let one = rate(PLAIN, 1)?;
    row(named(PLAIN, "window 1"), share(PLAIN, one), LINE, 0.61);
    let two = rate(PLAIN, 2)?;
    row(
        named(PLAIN, "window 2"),
        of_ceiling(PLAIN, two),
        CEILING,
        0.96,
    );
    let large = Setting {
        buf_size: 2048,
        ..PLAIN
    };
    for window in [1, 2] {
        let value = of_ceiling(large, rate(large, window)?);
        row(
            named(large, &format!("window {window}")),
            value,
            CEILING,
            0.95,
        );
    }
    for baud in [921_600, 3_000_000] {
        let fast = Setting { baud, ..PLAIN };
        row(
            named(fast, "window 3"),
            of_ceiling(fast, rate(fast, 3)?),
            CEILING,
            0.95,
        );
    }
    let raw = Setting {
        framing: Framing::Raw,
        ..PLAIN
    };
    row(
        named(raw, "window 2"),
        share(raw, rate(raw, 2)?),
        LINE,
        0.90,
    );
    let slow = Setting {
        flash: Flash::Slow,
        ..PLAIN
    };
    let gain = rate(slow, 3)? / rate(slow, 1)?;
    row(named(slow, "window 3"), gain, WINDOW_1, 1.2);
    for (loss, seed, least) in LOSSES {
        let lossy = Setting {
            loss,
            seed,
            ..PLAIN
        };
        let name = format!("window 2, seed {seed}");
        row(named(lossy, &name), rate(lossy, 2)? / two, LOSS_FREE, least);
    }
    for setting in hostile_to_windows() {
        let one = rate(setting, 1)?;
        for window in [2, 3] {
            let name = named(setting, &format!("window {window}"));
            row(name, rate(setting, window)? / one, WINDOW_1, 1.0);
        }
    }
    Ok(rows)
}

/// Where a client that trusts its window is slower than one that has none.
fn hostile_to_windows() -> Vec<Setting> {
    let mut settings = Vec::new();
    for baud in [115_200, 230_400] {
        settings.push(Setting {
            baud,
            flash: Flash::SlowAndDeaf,
            ..PLAIN
        });
    }
    for loss in [Loss::Packets(10), Loss::Packets(30), Loss::Lines(10)] {
        settings.push(Setting {
            loss,
            seed: 5,
            ..PLAIN
        });
    }
    settings.push(Setting {
        flash: Flash::SlowAndDeaf,
        loss: Loss::Packets(10),
        ..PLAIN
    });
    settings
}

fn named(setting: Setting, rest: &str) -> String {
    let framing = match setting.framing {
        Framing::Console => "",
        Framing::Raw => " raw,",
    };
    let flash = match setting.flash {
        Flash::Instant => "",
        Flash::Slow => " slow flash,",
        Flash::SlowAndDeaf => " slow and deaf,",
    };
    let loss = match setting.loss {
        Loss::None => String::new(),
        Loss::Packets(lost) => format!(" {} % of packets lost,", lost / 10),
        Loss::Lines(lost) => format!(" {} % of lines lost,", lost / 10),
    };
    format!(
        "{}, {},{framing}{flash}{loss} {rest}",
        setting.baud, setting.buf_size
    )
}

/// Bytes of the file a second, from the first byte written to the last answer.
fn rate(setting: Setting, window: u8, file: &[u8]) -> Result<f64, Trouble> {
    let slot_bytes = u32::try_from(file.len() + (64 << 10)).unwrap_or(u32::MAX);
    let geometry =
        Geometry::new(4096, slot_bytes.next_multiple_of(4096), 1).map_err(Trouble::Mcu)?;
    let mut config = Config::new(geometry);
    config.factory.primary = vec![sample::image("1.0.0", 20_000)];
    config.framing = setting.framing;
    config.server.buf_size = setting.buf_size;
    config.chance = match setting.loss {
        Loss::None => Chance::default(),
        // Half of them are lost on either way.
        Loss::Packets(lost) => Chance::losing(2 * lost),
        Loss::Lines(lost) => Chance {
            lose_line: lost,
            ..Chance::default()
        },
    };
    config.seed = setting.seed;
    config.timing = Timing::line(setting.baud);
    if setting.flash != Flash::Instant {
        config.timing = Timing::slow_flash(setting.baud);
        config.timing.receives_while_flashing = setting.flash == Flash::Slow;
        // Page by page, as a server does whose slot takes seconds to erase.
        config.server.erases_progressively = true;
    }
    let mut talk = Talk::new(config, window).map_err(Trouble::Mcu)?;
    let begin_ns = talk.now_ns();
    talk.upload(file).map_err(Trouble::Client)?;
    Ok(file.len() as f64 * 1e9 / (talk.now_ns() - begin_ns) as f64)
}
