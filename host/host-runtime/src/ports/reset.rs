//! Reset inputs of targets in the real world: a GPIO line of the gateway, a control line of the target's serial port, or
//! a program of the operator's (a power switch, a relay).
//!
//! GPIO goes through the kernel's character devices (`/dev/gpiochipN`, ABI version 2), not through `/sys/class/gpio`:
//! that one is deprecated, is not built into many kernels, and leaves a line as it was when its user dies. Nothing here
//! waits for the target: a pulse begins, the host ends it, and whoever asked looks afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::Value;
use tokio::runtime::Handle;

use super::commands::{Command, Commands};
use crate::plugin::lend::{HardwareReset, SerialLine};
use crate::types::Failure;

/// How long a reset input is held if nothing is configured: the longest that common supervisors and RC circuits ask for.
pub const HOLD_MS: u32 = 100;

/// Longest hold: beyond that it is a switch, not a reset.
pub const HOLD_MAX_MS: u32 = 10_000;

/// A control line of a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlLine {
    /// Data terminal ready.
    Dtr,
    /// Request to send.
    Rts,
}

/// What the target's reset hangs on.
#[derive(Clone)]
pub enum ResetWire {
    /// A line of a GPIO chip.
    Gpio {
        /// Such as `/dev/gpiochip0`.
        chip: PathBuf,
        /// Its number on that chip.
        offset: u32,
        /// The target is in reset while the line is low.
        active_low: bool,
    },
    /// A control line of the target's own serial line, which must be open.
    Control {
        /// The line.
        line: Arc<dyn SerialLine>,
        /// Which.
        control: ControlLine,
        /// The target is in reset while the driver says `false`.
        active_low: bool,
    },
    /// A program of the operator's that resets the target and ends; `OTAD_HOLD_MS` says for how long.
    Command {
        /// What is run.
        command: Command,
        /// By whom.
        commands: Arc<dyn Commands>,
    },
}

/// The reset input of one target.
pub struct WiredReset {
    /// `device/target`, for the log.
    name: String,
    wire: ResetWire,
    hold_ms: u32,
    runtime: Handle,
}

impl WiredReset {
    /// The reset input of `name` (`device/target`), held for `hold_ms` unless asked otherwise.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(name: String, wire: ResetWire, hold_ms: u32) -> Self {
        Self {
            name,
            wire,
            hold_ms,
            runtime: Handle::current(),
        }
    }
}

impl HardwareReset for WiredReset {
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure> {
        let hold_ms = if hold_ms == 0 { self.hold_ms } else { hold_ms };
        let hold_ms = hold_ms.min(HOLD_MAX_MS);
        let hold = Duration::from_millis(hold_ms.into());
        let name = self.name.clone();
        tracing::info!(target = %name, hold_ms, "hardware reset");
        match &self.wire {
            ResetWire::Gpio {
                chip,
                offset,
                active_low,
            } => {
                let (chip, offset, active_low) = (chip.clone(), *offset, *active_low);
                // Not joined on purpose: it shows in the target whether it worked.
                drop(self.runtime.spawn(async move {
                    if let Err(e) = hold_gpio(&chip, offset, active_low, hold).await {
                        let chip = chip.display();
                        tracing::warn!(target = %name, "{chip} line {offset}: {e}; is it free, and may this user use it?");
                    }
                }));
            }
            ResetWire::Control {
                line,
                control,
                active_low,
            } => {
                let (line, control, active) = (Arc::clone(line), *control, !active_low);
                set(&*line, control, active)?;
                drop(self.runtime.spawn(async move {
                    tokio::time::sleep(hold).await;
                    if let Err(failure) = set(&*line, control, !active) {
                        tracing::warn!(target = %name, "the target may still be in reset: {failure}");
                    }
                }));
            }
            ResetWire::Command { command, commands } => {
                let environment = [("OTAD_HOLD_MS".to_owned(), hold_ms.to_string())];
                // A failure is logged by whoever runs it, and shows in the target.
                commands.run(command, &environment, Box::new(|_| ()));
            }
        }
        Ok(())
    }
}

fn set(line: &dyn SerialLine, control: ControlLine, level: bool) -> Result<(), Failure> {
    match control {
        ControlLine::Dtr => line.set_line(Some(level), None, None),
        ControlLine::Rts => line.set_line(None, Some(level), None),
    }
}

async fn hold_gpio(
    chip: &Path,
    offset: u32,
    active_low: bool,
    hold: Duration,
) -> Result<(), gpiocdev::Error> {
    let mut request = Request::builder();
    request
        .on_chip(chip)
        .with_consumer("otad reset")
        .with_line(offset);
    if active_low {
        request.as_active_low();
    }
    let lines = request.as_output(Value::Active).request()?;
    tokio::time::sleep(hold).await;
    // Driven back before it is let go: what a chip does with a line that nobody holds is its own business.
    lines.set_value(offset, Value::Inactive)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::plugin::lend::LineParameters;
    use crate::ports::commands::CommandEnd;
    use crate::ports::workers::{Reply, Wake};
    use crate::types::code;

    /// Says what is set.
    struct Wires(mpsc::Sender<(Option<bool>, Option<bool>)>);

    impl SerialLine for Wires {
        fn open(&self, _: &LineParameters, _: Wake) -> Result<(), Failure> {
            Ok(())
        }
        fn write(&self, _: &[u8]) -> Result<u32, Failure> {
            Ok(0)
        }
        fn read(&self, _: u32) -> Result<Vec<u8>, Failure> {
            Ok(Vec::new())
        }
        fn unsent(&self) -> Result<u32, Failure> {
            Ok(0)
        }
        fn drain(&self) -> Result<(), Failure> {
            Ok(())
        }
        fn set_line(
            &self,
            dtr: Option<bool>,
            rts: Option<bool>,
            _: Option<bool>,
        ) -> Result<(), Failure> {
            let told = self.0.try_send((dtr, rts));
            told.map_err(|_| Failure::new(code::UNREACHABLE, 1, "nobody listens"))
        }
        fn close(&self) {}
        fn has_news(&self) -> bool {
            false
        }
    }

    /// A command line, and its environment.
    type Call = (Vec<String>, Vec<(String, String)>);

    /// Keeps what it is asked to run.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Call>>);

    impl Commands for Kept {
        fn run(&self, command: &Command, environment: &[(String, String)], _: Reply<CommandEnd>) {
            let entry = (command.argv.clone(), environment.to_vec());
            self.0.lock().unwrap().push(entry);
        }
    }

    #[tokio::test]
    async fn a_control_line_is_held_for_its_time_and_let_go() {
        let (told, mut hears) = mpsc::channel(4);
        let wire = ResetWire::Control {
            line: Arc::new(Wires(told)),
            control: ControlLine::Rts,
            active_low: true,
        };
        WiredReset::new("pump/mcu".into(), wire, 1)
            .pulse(0)
            .unwrap();
        assert_eq!(hears.recv().await, Some((None, Some(false))));
        assert_eq!(hears.recv().await, Some((None, Some(true))));
    }

    #[tokio::test]
    async fn a_control_line_of_a_line_that_is_not_open_is_an_error() {
        let (told, hears) = mpsc::channel(1);
        drop(hears);
        let wire = ResetWire::Control {
            line: Arc::new(Wires(told)),
            control: ControlLine::Dtr,
            active_low: false,
        };
        let reset = WiredReset::new("pump/mcu".into(), wire, 1);
        assert_eq!(reset.pulse(0).unwrap_err().main, code::UNREACHABLE);
    }

    #[tokio::test]
    async fn a_command_is_told_how_long() {
        let kept = Arc::new(Kept::default());
        let command = Command {
            argv: vec!["/bin/relay".into()],
            deadline_ms: 1000,
        };
        let wire = ResetWire::Command {
            command,
            commands: kept.clone(),
        };
        let reset = WiredReset::new("pump/mcu".into(), wire, 250);
        reset.pulse(0).unwrap();
        reset.pulse(60_000).unwrap();
        let ran = kept.0.lock().unwrap();
        let holds: Vec<&str> = ran.iter().map(|(_, env)| env[0].1.as_str()).collect();
        assert_eq!(holds, ["250", "10000"], "cut to the longest hold");
    }

    #[tokio::test]
    async fn a_chip_that_is_not_there_is_said_and_harms_nothing() {
        let end = hold_gpio(
            Path::new("/nonexistent/gpiochip9"),
            1,
            false,
            Duration::ZERO,
        )
        .await;
        assert!(end.is_err());
        let wire = ResetWire::Gpio {
            chip: "/nonexistent/gpiochip9".into(),
            offset: 1,
            active_low: true,
        };
        WiredReset::new("pump/mcu".into(), wire, 1)
            .pulse(0)
            .unwrap();
    }
}
