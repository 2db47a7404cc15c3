//! What a target hangs on: `[device.target.line]` and `[device.target.hardware_reset]`. Whether the port is there is not
//! asked here: a line may come and go.

use std::path::PathBuf;

use host_runtime::ports::line::{FlowControl, LineConfig, LinePlace, Parity};
use host_runtime::ports::reset::ControlLine;

use super::diagnostic::Origin;
use super::keys;
use super::model::{HardwareReset, Line, PluginChoice, ResetBy};
use super::reader::Reader;
use super::sections::program_of;

/// The line of a target, if its plugin needs one or the operator names one.
pub(super) fn line(target: &Reader<'_>, plugin: &PluginChoice) -> Option<Line> {
    let Some(section) = target.table("line") else {
        if *plugin == PluginChoice::Builtin("serial-mcu") && !target.has("line") {
            target.missing("line", "{ port = \"/dev/ttyUSB0\", baud = 115200 }");
        }
        return None;
    };
    let port = section.required_text("port", "\"/dev/ttyUSB0\", or \"tcp://host:port\"");
    let place = match LinePlace::parse(&port.value) {
        // A path beside the file, as everywhere.
        Ok(LinePlace::Tty(path)) => {
            let path = path.to_string_lossy();
            LinePlace::Tty(PathBuf::from(section.sink.resolve(&path)))
        }
        Ok(tcp) => tcp,
        Err(reason) => {
            if section.has("port") {
                let help = if port.value.starts_with("spi:") {
                    "SPI is not a carrier of this build: use a UART, or `tcp://host:port` of a bridge"
                } else {
                    "write the path of a terminal device, or `tcp://host:port`"
                };
                section.sink.advise(&port.origin, reason, help);
            }
            LinePlace::Tty(PathBuf::new())
        }
    };
    let is_tcp = matches!(place, LinePlace::Tcp(_));
    let line = Line {
        config: LineConfig {
            baud: section
                .number_if_set(&keys::LINE_BAUD)
                .and_then(|baud| u32::try_from(baud).ok()),
            parity: choice(&section, "parity", &PARITIES),
            stop_bits: section
                .number_if_set(&keys::LINE_STOP_BITS)
                .and_then(|bits| u8::try_from(bits).ok()),
            flow_control: choice(&section, "flow_control", &FLOW_CONTROLS),
            dtr: level(&section, "dtr"),
            rts: level(&section, "rts"),
            low_latency: section.boolean("low_latency", true),
            ..LineConfig::new(place)
        },
        origin: port.origin.clone(),
    };
    if is_tcp {
        for key in ["baud", "parity", "stop_bits", "flow_control", "dtr", "rts"] {
            if section.has(key) {
                section.sink.advise(
                    &section.place(key),
                    format!("`{key}` has no use on a TCP port"),
                    "remove it, and set it at the terminal server",
                );
            }
        }
    }
    section.finish();
    Some(line)
}

const PARITIES: [(&str, Parity); 3] = [
    ("none", Parity::None),
    ("odd", Parity::Odd),
    ("even", Parity::Even),
];

const FLOW_CONTROLS: [(&str, FlowControl); 3] = [
    ("none", FlowControl::None),
    ("rts-cts", FlowControl::RtsCts),
    ("xon-xoff", FlowControl::XonXoff),
];

fn choice<T: Copy>(
    section: &Reader<'_>,
    key: &'static str,
    words: &[(&'static str, T)],
) -> Option<T> {
    let first = words.first()?.1;
    section.has(key).then(|| section.choice(key, words, first))
}

fn level(section: &Reader<'_>, key: &'static str) -> Option<bool> {
    section.has(key).then(|| section.boolean(key, false))
}

/// The reset input of a target.
///
/// A line that resets by a control line keeps that one at the level of a target that runs, also where nobody said so: Linux
/// raises both when a port is opened.
pub(super) fn hardware_reset(
    target: &Reader<'_>,
    line: Option<&mut Line>,
) -> Option<HardwareReset> {
    let section = target.table("hardware_reset")?;
    let ways: Vec<&'static str> = ["gpio", "control", "command"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let chip = section.path("gpio");
    let offset = section.number_if_set(&keys::RESET_OFFSET);
    let control = choice(
        &section,
        "control",
        &[("dtr", ControlLine::Dtr), ("rts", ControlLine::Rts)],
    );
    let program = program_of(&section, "hardware_reset");
    let active_low = section.boolean("active_low", true);
    let hold_ms = u32::try_from(section.number(&keys::RESET_HOLD_MS)).unwrap_or(u32::MAX);
    let by = match (ways.as_slice(), chip, control, program) {
        (["gpio"], Some(chip), _, _) => {
            if offset.is_none() && !section.has(keys::RESET_OFFSET.key) {
                section.missing(keys::RESET_OFFSET.key, "17");
            }
            Some(ResetBy::Gpio {
                chip: chip.value,
                offset: u32::try_from(offset.unwrap_or(0)).unwrap_or(0),
                active_low,
            })
        }
        (["control"], _, Some(control), _) => {
            rest_control(&section, line, control, active_low);
            Some(ResetBy::Control {
                control,
                active_low,
            })
        }
        (["command"], _, _, Some(program)) => Some(ResetBy::Command(program)),
        ([_], ..) => None,
        ([], ..) => {
            section.sink.advise(
                section.origin(),
                "`hardware_reset` does not say how",
                "add one of `gpio` and `offset`, `control`, `command`; or remove the table",
            );
            None
        }
        (several, ..) => {
            section.sink.advise(
                &section.place(several[1]),
                format!("`{}` and `{}` exclude each other", several[0], several[1]),
                "a target has one reset input: keep one of them",
            );
            None
        }
    };
    section.finish();
    Some(HardwareReset { by: by?, hold_ms })
}

/// A control line resets a target only over a tty, and not if the line is to hold it in reset.
fn rest_control(
    section: &Reader<'_>,
    line: Option<&mut Line>,
    control: ControlLine,
    active_low: bool,
) {
    let origin: Origin = section.place("control");
    match line.map(|line| &mut line.config) {
        Some(config) if matches!(config.place, LinePlace::Tty(_)) => {
            let (name, level) = match control {
                ControlLine::Dtr => ("dtr", &mut config.dtr),
                ControlLine::Rts => ("rts", &mut config.rts),
            };
            if *level.get_or_insert(active_low) != active_low {
                section.sink.advise(
                    &origin,
                    "the target is in reset as long as its line is open",
                    format!("write `{name} = {active_low}` into `line`, or leave `{name}` out"),
                );
            }
        }
        Some(_) => section.sink.advise(
            &origin,
            "a TCP port has no control lines",
            "reset the target by `gpio` or `command`",
        ),
        None => section.sink.advise(
            &origin,
            "`control` without a line",
            "add `line = { port = \"/dev/ttyUSB0\" }` to the target",
        ),
    }
}
