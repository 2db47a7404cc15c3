//! `otad mcu-sim`: a simulated MCU on a pseudo terminal or a TCP port until it is told to end. It prints where it is, and
//! a line whenever something else runs; what is typed does to it what hands would do to a board.

use std::path::Path;
use std::time::Duration;

use host_mcu_sim::{
    BootMode, Config, FlashTiming, Framing, Geometry, Key, MS, Mcu, Port, Profile, Simulation,
    State, View, sample,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::args::McuSimArgs;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

/// How often the MCU is looked at; a swap takes longer.
const LOOK: Duration = Duration::from_millis(20);

/// Body of the sample image, in bytes: what a small application has.
const SAMPLE_BODY_BYTES: usize = 40 << 10;

/// Longest typed line that is looked at, in bytes; all commands are shorter.
const COMMAND_BYTES_MAX: usize = 80;

/// Commands that wait; who types faster waits too.
const COMMANDS_MAX: usize = 16;

pub(super) fn follow(args: &McuSimArgs) -> Verb {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failed::chain(Exit::Failed, "starting the runtime", &e))?
        .block_on(serve(args))
}

async fn serve(args: &McuSimArgs) -> Verb {
    let failed = |what: &str, e: &dyn std::error::Error| Failed::chain(Exit::Failed, what, e);
    // Before the first line is printed: whoever reads it may send a signal at once.
    let mut term =
        signal(SignalKind::terminate()).map_err(|e| failed("waiting for SIGTERM", &e))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|e| failed("waiting for SIGINT", &e))?;
    let mcu = Mcu::new(config(args)?).map_err(|e| failed("making the MCU", &e))?;
    let port = args.tcp.map_or_else(
        || Port::Pty {
            link: args.link.clone(),
        },
        Port::Tcp,
    );
    let simulation = Simulation::start(mcu, &port).map_err(|e| failed("opening the port", &e))?;
    say(&format!("port      {}", simulation.address()));
    let mut typed = typed_lines();
    let mut look = tokio::time::interval(LOOK);
    let mut shown = String::new();
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(Exit::Done),
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = look.tick() => {
                let now = describe(&simulation.with(|mcu, _| mcu.view()));
                if now != shown {
                    say(&now);
                    shown = now;
                }
            }
            // Nobody types any more: it goes on until a signal.
            Some(line) = typed.recv() => obey(&simulation, &line),
        }
    }
}

/// What is typed, line by line. A thread of its own: a read of standard input cannot be called off, and must not keep the
/// program from ending.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// One line about what runs and what lies beside it.
fn describe(view: &View) -> String {
    let state = match view.state {
        State::Off => "off",
        State::Starting => "starting",
        State::Serving => "serving",
        State::Silent => "silent",
        State::Recovering => "recovery",
        State::Stuck => "stuck",
    };
    let mut line = format!("{state:<9}");
    for slot in &view.slots {
        let number = slot.slot.number();
        line.push_str(&format!(" {}.{number} {}", slot.image, slot.version));
        for (is_so, word) in [
            (slot.is_active, " active"),
            (slot.is_confirmed, " confirmed"),
            (slot.is_pending, " pending"),
        ] {
            if is_so {
                line.push_str(word);
            }
        }
        line.push(';');
    }
    line.trim_end_matches(';').to_owned()
}

fn obey(simulation: &Simulation, line: &str) {
    let command = line.get(..line.len().min(COMMAND_BYTES_MAX)).unwrap_or("");
    match command.trim() {
        "" => {}
        "power-cut" => simulation.with(Mcu::power_cut),
        "power-off" => simulation.with(Mcu::power_off),
        "power-on" => simulation.with(Mcu::power_on),
        "reset" => simulation.with(Mcu::hardware_reset),
        "unplug" => simulation.with(|mcu, now_ns| mcu.unplug(now_ns, None)),
        "plug" => simulation.with(Mcu::plug),
        "stats" => {
            let view = simulation.with(|mcu, _| mcu.view());
            say(&format!(
                "{:?} {:?} {:?}",
                view.stats, view.received, view.flash
            ));
        }
        fault if fault.starts_with("fault ") => match fault.trim_start_matches("fault ").parse() {
            Ok(rule) => simulation.with(|mcu, _| mcu.add_rule(rule)),
            Err(error) => say(&error.to_string()),
        },
        other => say(&format!(
            "`{other}` is no command; there are power-cut, power-off, power-on, reset, unplug, plug, stats, fault FAULT"
        )),
    }
}

fn config(args: &McuSimArgs) -> Result<Config, Failed> {
    let sizes = &args.sizes;
    let usage = |e: &dyn std::error::Error| Failed::new(Exit::Usage, e.to_string());
    let geometry =
        Geometry::new(sizes.sector_size, sizes.slot_size, sizes.images).map_err(|e| usage(&e))?;
    let mut config = Config::new(geometry);
    config.flash_file.clone_from(&args.flash);
    config.factory.primary = match &args.image {
        Some(path) => vec![read(path)?],
        None => vec![sample::image("1.0.0", SAMPLE_BODY_BYTES)],
    };
    if let Some(path) = &args.key {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        config.key = Some(Key::from_pem(&text).map_err(|e| usage(&e))?);
    }
    config.server = profile(&args.profile)?;
    config.recovery = args.recovery.as_deref().map(profile).transpose()?;
    config.server.buf_size = sizes.buffer_size.unwrap_or(config.server.buf_size);
    config.server.buf_count = sizes.buffer_count.unwrap_or(config.server.buf_count);
    config.mode = BootMode::ALL
        .into_iter()
        .find(|mode| mode.name() == args.mode)
        .unwrap_or_default();
    if args.raw {
        config.framing = Framing::Raw;
    }
    let times = &args.times;
    config.timing.baud = (times.baud > 0).then_some(times.baud);
    config.timing.turnaround_ns = u64::from(times.turnaround) * MS;
    config.timing.line_drain_ns = u64::from(times.line_drain) * 1000;
    config.timing.boot_ns = u64::from(times.boot) * MS;
    config.timing.receives_while_flashing = !times.deaf_while_flashing;
    config.timing.flash = FlashTiming {
        erase_sector_ns: u64::from(times.erase) * MS,
        write_byte_ns: u64::from(times.write) * 1000 / 512,
    };
    let faults = &args.faults;
    config.chance.lose_request = faults.lose;
    config.chance.lose_response = faults.lose;
    config.chance.garble = faults.garble;
    config.chance.log_line = faults.chatter;
    config.rules.clone_from(&faults.faults);
    config.seed = faults.seed;
    Ok(config)
}

fn profile(name: &str) -> Result<Profile, Failed> {
    Profile::of_name(name).ok_or_else(|| Failed::new(Exit::Usage, format!("no profile `{name}`")))
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    std::fs::read(path).map_err(|e| Failed::chain(Exit::Failed, &path.display().to_string(), &e))
}
