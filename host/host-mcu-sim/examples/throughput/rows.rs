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

/// What an upload is held against; with several seeds, what they come to on the average.
struct Goal {
    setting: Setting,
    seeds: u64,
    window: u8,
    against: Against,
    least: f64,
}

enum Against {
    Line,
    /// What a full packet's framing leaves of the line.
    Ceiling,
    /// The same window on the same line without losses.
    LossFree,
    /// The same line and server with one chunk at a time.
    WindowOne,
}

/// Measures all rows with a file of that size.
pub(crate) fn measure(bytes: usize) -> Result<Vec<Row>, Trouble> {
    let file = sample::image("2.0.0", bytes);
    let mut rows = Vec::new();
    for goal in goals(bytes) {
        let mut sum = 0.0;
        let mut of = "";
        for seed in goal.setting.seed..goal.setting.seed + goal.seeds {
            let setting = Setting {
                seed,
                ..goal.setting
            };
            let (value, against) = held_against(&goal, setting, &file)?;
            sum += value;
            of = against;
        }
        rows.push(Row {
            name: named(&goal),
            value: sum / goal.seeds as f64,
            of,
            goal: goal.least,
        });
    }
    Ok(rows)
}

/// One upload, and the share that it makes of what it is held against.
fn held_against(
    goal: &Goal,
    setting: Setting,
    file: &[u8],
) -> Result<(f64, &'static str), Trouble> {
    let rate = rate(setting, goal.window, file)?;
    let share = rate * 10.0 / f64::from(setting.baud);
    Ok(match goal.against {
        Against::Line => (share, LINE),
        Against::Ceiling => {
            let ceiling = ceiling(setting.framing, setting.buf_size);
            (share / ceiling, CEILING)
        }
        Against::LossFree => {
            let loss_free = Setting {
                loss: Loss::None,
                ..setting
            };
            (rate / self::rate(loss_free, goal.window, file)?, LOSS_FREE)
        }
        Against::WindowOne => (rate / self::rate(setting, 1, file)?, WINDOW_1),
    })
}

/// A file so large has left behind what it was slower at first.
const LARGE_BYTES: usize = 512 << 10;

fn goals(bytes: usize) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut goal = |setting, window, against, least| {
        goals.push(Goal {
            setting,
            seeds: 1,
            window,
            against,
            least,
        });
    };
    goal(PLAIN, 1, Against::Line, 0.61);
    goal(PLAIN, 2, Against::Ceiling, 0.96);
    let large = Setting {
        buf_size: 2048,
        ..PLAIN
    };
    goal(large, 1, Against::Ceiling, 0.95);
    goal(large, 2, Against::Ceiling, 0.95);
    for baud in [921_600, 3_000_000] {
        goal(Setting { baud, ..PLAIN }, 3, Against::Ceiling, 0.95);
    }
    let raw = Setting {
        framing: Framing::Raw,
        ..PLAIN
    };
    goal(raw, 2, Against::Line, 0.90);
    let slow = Setting {
        flash: Flash::Slow,
        ..PLAIN
    };
    goal(slow, 3, Against::WindowOne, 1.2);
    for seed in [1, 2, 3] {
        let lossy = Setting {
            loss: Loss::Packets(10),
            seed,
            ..PLAIN
        };
        goal(lossy, 2, Against::LossFree, 0.90);
    }
    for setting in hostile_to_windows() {
        goal(setting, 2, Against::WindowOne, 1.0);
        goal(setting, 3, Against::WindowOne, 1.0);
    }
    // One line in a hundred is one packet of four lines in 25, and each costs two packets at least, itself and the one
    // behind it that a server drops: 92 % is all there is, and a small file has a part of its way to go one by one.
    // Lines are lost by chance, so several uploads show what it comes to.
    let (seeds, least) = if bytes < LARGE_BYTES {
        (4, 0.86)
    } else {
        (24, 0.90)
    };
    for window in [2, 3] {
        goals.push(Goal {
            setting: Setting {
                loss: Loss::Lines(10),
                ..PLAIN
            },
            seeds,
            window,
            against: Against::LossFree,
            least,
        });
    }
    goals
}

/// Where a client that trusts its window is slower than one that has none.
fn hostile_to_windows() -> Vec<Setting> {
    let deaf = Setting {
        flash: Flash::SlowAndDeaf,
        ..PLAIN
    };
    let mut settings = vec![
        deaf,
        Setting {
            baud: 230_400,
            ..deaf
        },
        Setting {
            loss: Loss::Packets(10),
            ..deaf
        },
    ];
    for loss in [Loss::Packets(10), Loss::Packets(30), Loss::Lines(10)] {
        settings.push(Setting {
            loss,
            seed: 5,
            ..PLAIN
        });
    }
    settings
}

fn named(goal: &Goal) -> String {
    let Goal {
        setting, window, ..
    } = goal;
    let seed = match goal.seeds {
        1 => setting.seed.to_string(),
        several => format!("mean of {several}"),
    };
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
        Loss::Packets(lost) => format!(" {} % of packets lost ({seed}),", lost / 10),
        Loss::Lines(lost) => format!(" {} % of lines lost ({seed}),", lost / 10),
    };
    format!(
        "{}, {},{framing}{flash}{loss} window {window}",
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
