//! A terminal device: opened for this process alone, set up, asked for little delay.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::termios::{
    ControlModes, OptionalActions, ioctl_tiocexcl, ioctl_tiocnxcl, isatty, tcgetattr, tcsetattr,
};
use serial2_tokio::{CharSize, SerialPort, Settings, StopBits};

use super::{BAUD_DEFAULT, FlowControl, LineConfig, Parity, kernel};
use crate::plugin::lend::LineParameters;

/// An open terminal device.
pub(super) struct Tty {
    port: SerialPort,
    /// The same device once more: holds the lock, and is what the kernel is asked through.
    lock: File,
}

impl Tty {
    /// Open it; `Err` says why not and what to do.
    pub(super) fn open(
        path: &Path,
        config: &LineConfig,
        parameters: &LineParameters,
    ) -> Result<Self, String> {
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|e| explain(&e))?;
        if !isatty(&lock) {
            return Err("it is no terminal device".to_owned());
        }
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            "another process holds it: end that, or close the line there".to_owned()
        })?;
        let port = SerialPort::open(path, |settings: Settings| {
            set_up(settings, config, parameters)
        })
        .map_err(|e| explain(&e))?;
        // The lock above is a matter of good manners; this one keeps everybody out but root.
        ioctl_tiocexcl(&lock).map_err(|e| format!("it cannot be locked: {e}"))?;
        let tty = Self { port, lock };
        let levels = tty
            .keep_levels()
            .and_then(|()| tty.set_control(config.dtr, config.rts, None));
        if let Err(e) = levels {
            tty.release();
            return Err(format!("its control lines cannot be set: {e}"));
        }
        if config.low_latency {
            kernel::ask_for_low_latency(&tty.lock, path);
        }
        tty.discard_input();
        Ok(tty)
    }

    pub(super) fn port(&self) -> &SerialPort {
        &self.port
    }

    /// Let others have it, also before the last handle is closed. What was not sent is thrown away: closing would wait
    /// for it, for half a minute if the other side holds it back.
    pub(super) fn release(&self) {
        let done = [
            self.port.discard_buffers().map_err(|e| e.to_string()),
            ioctl_tiocnxcl(&self.lock).map_err(|e| e.to_string()),
            flock(&self.lock, FlockOperation::Unlock).map_err(|e| e.to_string()),
        ];
        // A device that was pulled out refuses all of it, and is free.
        for reason in done.into_iter().filter_map(Result::err) {
            tracing::debug!("giving a line back: {reason}");
        }
    }

    /// Leave DTR and RTS as they are when the line is closed. The kernel would drop both (HUPCL), and a target whose reset
    /// hangs on one of them would be held in it until the line is opened again.
    fn keep_levels(&self) -> io::Result<()> {
        let mut settings = tcgetattr(&self.lock)?;
        settings.control_modes.remove(ControlModes::HUPCL);
        tcsetattr(&self.lock, OptionalActions::Now, &settings)?;
        Ok(())
    }

    pub(super) fn discard_input(&self) {
        // One that cannot is gone, and that shows in the next read.
        self.port.discard_input_buffer().ok();
    }

    /// Bytes that the driver has not sent yet.
    pub(super) fn unsent(&self) -> u32 {
        kernel::unsent(&self.lock)
    }

    pub(super) fn set_control(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> io::Result<()> {
        if let Some(level) = dtr {
            self.port.set_dtr(level)?;
        }
        if let Some(level) = rts {
            self.port.set_rts(level)?;
        }
        if let Some(on) = break_condition {
            self.port.set_break(on)?;
        }
        Ok(())
    }
}

/// The operator's word first, then the plugin's, then what is usual.
fn set_up(
    mut settings: Settings,
    config: &LineConfig,
    parameters: &LineParameters,
) -> io::Result<Settings> {
    settings.set_raw();
    let asked = Some(parameters.baud).filter(|baud| *baud > 0);
    settings.set_baud_rate(config.baud.or(asked).unwrap_or(BAUD_DEFAULT))?;
    settings.set_char_size(CharSize::Bits8);
    let parity = config.parity.unwrap_or(match parameters.parity {
        1 => Parity::Odd,
        2 => Parity::Even,
        _ => Parity::None,
    });
    settings.set_parity(match parity {
        Parity::None => serial2_tokio::Parity::None,
        Parity::Odd => serial2_tokio::Parity::Odd,
        Parity::Even => serial2_tokio::Parity::Even,
    });
    settings.set_stop_bits(match config.stop_bits.unwrap_or(parameters.stop_bits) {
        2 => StopBits::Two,
        _ => StopBits::One,
    });
    let flow = config
        .flow_control
        .unwrap_or(match parameters.flow_control {
            1 => FlowControl::RtsCts,
            2 => FlowControl::XonXoff,
            _ => FlowControl::None,
        });
    settings.set_flow_control(match flow {
        FlowControl::None => serial2_tokio::FlowControl::None,
        FlowControl::RtsCts => serial2_tokio::FlowControl::RtsCts,
        FlowControl::XonXoff => serial2_tokio::FlowControl::XonXoff,
    });
    Ok(settings)
}

/// What an operator can do about it.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such device: is it plugged in?".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("{error}: add the user that runs otad to the device's group (often `dialout`)")
        }
        io::ErrorKind::ResourceBusy => "another process holds it: end that first".to_owned(),
        _ => error.to_string(),
    }
}
