//! A line over a network whose terminal server is not there: it counts as open while the connection is tried.

use std::cell::Cell;

use pal_sdk::fake::Fake;
use pal_sdk::lent::{Clock, HardwareReset, Level, LineParameters, Log, SerialLine, StagedImage};
use pal_sdk::{Duty, Failure, Plugin, code};

use super::transfer;
use crate::SerialMcu;

/// So long the host tries to connect.
const CONNECT_MS: u64 = 10_000;

struct Network {
    fake: Fake,
    opened_ms: Cell<u64>,
    unsent: Cell<u32>,
}

impl Network {
    fn connecting(&self) -> Result<(), Failure> {
        if self.now_ms() < self.opened_ms.get() + CONNECT_MS {
            return Ok(());
        }
        Err(Failure::new(code::UNREACHABLE, 1, "no connection"))
    }
}

impl SerialLine for Network {
    fn open_line(&self, _: LineParameters) -> Result<(), Failure> {
        self.opened_ms.set(self.now_ms());
        self.unsent.set(0);
        Ok(())
    }

    fn write_line(&self, data: &[u8]) -> Result<u32, Failure> {
        self.connecting()?;
        self.unsent.set(self.unsent.get() + data.len() as u32);
        Ok(data.len() as u32)
    }

    fn read_line(&self, _: u32) -> Result<Vec<u8>, Failure> {
        self.connecting().map(|()| Vec::new())
    }

    fn unsent(&self) -> Result<u32, Failure> {
        self.connecting().map(|()| self.unsent.get())
    }

    fn drain(&self) -> Result<(), Failure> {
        self.connecting()
    }

    fn set_line(&self, _: Option<bool>, _: Option<bool>, _: Option<bool>) -> Result<(), Failure> {
        self.connecting()
    }

    fn close_line(&self) {}
}

impl StagedImage for Network {
    fn held(&self) -> u64 {
        self.fake.held()
    }

    fn verified(&self) -> bool {
        self.fake.verified()
    }

    fn read_staged(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.fake.read_staged(offset, length)
    }
}

impl HardwareReset for Network {
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure> {
        self.fake.pulse(hold_ms)
    }
}

impl Clock for Network {
    fn now_ms(&self) -> u64 {
        self.fake.now_ms()
    }
}

impl Log for Network {
    fn log(&self, level: Level, text: &str) {
        self.fake.log(level, text);
    }
}

#[test]
fn a_terminal_server_that_is_not_there_is_named_and_warned_of_once() {
    let fake = Fake::new(Vec::new());
    let network = Network {
        fake: fake.clone(),
        opened_ms: Cell::new(0),
        unsent: Cell::new(0),
    };
    let mut plugin = SerialMcu::open(network, Vec::new(), None).unwrap();
    let mut duty = plugin.create(transfer(8000));
    let failure = loop {
        match duty {
            Ok(Duty::Working(working)) => {
                let ms = working.wake.after_ms.unwrap_or(1);
                fake.world().now_ms += u64::from(ms);
            }
            Ok(Duty::Finished(answer)) => panic!("{answer:?}"),
            Err(failure) => break failure,
        }
        duty = plugin.step(65_536);
    };
    assert_eq!((failure.main, failure.sub), (code::UNREACHABLE, 1));
    let said = fake.world().log.clone();
    let warned = said.iter().filter(|(level, _)| *level == Level::Warn);
    assert_eq!(warned.count(), 1, "{said:?}");
}
