//! The plugin on fake storage, with a launcher that knows the records from README.md and not from the plugin's code.

use pal_sdk::fake::{Cut, Fake, Survivors};
use pal_sdk::lent::Region;
use pal_sdk::{Answer, Blob, Duty, Failure, Plugin, Setting, TargetState, Transfer, Version};

use super::{FlashFile, sub};
use crate::trailer::tests::pack;

mod cuts;
mod duties;
mod launcher;
mod races;
mod stay_up;

const SLOT_BYTES: u64 = 4 * 1024;
const PAYLOAD_BYTES: u64 = 2500;
const BLOCK_BYTES: usize = 1024;
const OLD: Version = version(1, 0);
const NEW: Version = version(1, 1);

const fn version(major: u8, minor: u8) -> Version {
    Version {
        major,
        minor,
        revision: 0,
        build: 0,
    }
}

/// An image of some blocks with a trailer, and its "digest": the plugin only carries it.
fn image(version: Version) -> Vec<u8> {
    let mut bytes = vec![version.minor ^ 0x5a; PAYLOAD_BYTES as usize];
    bytes.extend(pack(version, "demo", "", PAYLOAD_BYTES));
    bytes
}

fn digest(image: &[u8]) -> [u8; 32] {
    let sum = image.iter().fold(image.len() as u64, |sum, byte| {
        sum.rotate_left(7) ^ u64::from(*byte)
    });
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&sum.to_le_bytes());
    digest
}

fn transfer(job: &str, image: &[u8]) -> Transfer {
    Transfer {
        device: "thing".to_owned(),
        job_id: job.to_owned(),
        file_id: 1,
        size: image.len() as u64,
        block_size: BLOCK_BYTES as u32,
        ..Transfer::default()
    }
}

fn region(name: &str, kind: u8, size: u64, read_only: bool) -> Region {
    Region {
        name: name.to_owned(),
        kind,
        size,
        erase_size: 1,
        write_size: 1,
        read_only,
    }
}

/// A gateway: storage, launcher, and what the host does round a plugin.
struct Bench {
    fake: Fake,
    plugin: FlashFile<Fake>,
}

impl Bench {
    /// Slots without an image, records never written.
    fn empty() -> Self {
        let fake = Fake::new(vec![
            region("slot-a", Region::SLOT, SLOT_BYTES, false),
            region("slot-b", Region::SLOT, SLOT_BYTES, false),
            region("record", Region::RECORD, 8192, false),
            region("tries", Region::RECORD, 8192, true),
        ]);
        let plugin = open(&fake);
        Self { fake, plugin }
    }

    /// As `otad target init` leaves it: the old image confirmed in slot a.
    fn new() -> Self {
        let bench = Self::empty();
        let old = image(OLD);
        bench.fake.world().region("slot-a").place(0, &old);
        launcher::init(&bench.fake, &old, digest(&old));
        bench
    }

    /// With the old image started.
    fn started() -> Self {
        let bench = Self::new();
        launcher::launch(&bench.fake);
        bench
    }

    /// With a new image received in slot b.
    fn received() -> Self {
        let mut bench = Self::started();
        bench.receive("job-1", &image(NEW)).unwrap();
        bench
    }

    fn receive(&mut self, job: &str, image: &[u8]) -> Result<(), Failure> {
        self.plugin.create(transfer(job, image))?;
        for (n, block) in image.chunks(BLOCK_BYTES).enumerate() {
            self.plugin
                .write_block((n * BLOCK_BYTES) as u64, block.to_vec())?;
        }
        Ok(())
    }

    fn activate(&mut self) -> Result<Duty, Failure> {
        self.plugin.activate(digest(&image(NEW)))
    }

    fn state(&mut self) -> TargetState {
        match self.plugin.state().unwrap() {
            Duty::Finished(Answer::State(state)) => state,
            other => panic!("{other:?}"),
        }
    }

    /// Code, minor version, runs-new.
    fn told(&mut self) -> (u8, Option<u8>, Option<bool>) {
        let state = self.state();
        (state.code, state.running.map(|v| v.minor), state.runs_new)
    }

    /// The whole self-test: the host steps whenever the plugin wants to be woken.
    fn self_test(&mut self) -> Result<Duty, Failure> {
        let mut duty = self.plugin.self_test();
        while let Ok(Duty::Working(working)) = &duty {
            let wait_ms = working.wake.after_ms.expect("it names a time");
            assert!((1..=500).contains(&wait_ms), "{wait_ms}");
            self.fake.world().now_ms += u64::from(wait_ms);
            duty = self.plugin.step(4096);
        }
        duty
    }

    /// The host process restarts: a new instance, and the transfer if there is one.
    fn restart_host(&mut self, transfer: Option<Transfer>) {
        self.plugin = open(&self.fake);
        if let Some(transfer) = transfer {
            self.plugin.reopen(transfer).unwrap();
        }
    }
}

fn open(fake: &Fake) -> FlashFile<Fake> {
    FlashFile::open(fake.clone(), Vec::new(), None).unwrap()
}

fn setting(key: &str, value: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

const DONE: Result<Duty, Failure> = Ok(Duty::Finished(Answer::Nothing));
const HOST_RESETS: Result<Duty, Failure> = Ok(Duty::Finished(Answer::HostResets));

fn codes<T: std::fmt::Debug>(result: Result<T, Failure>) -> (u8, u32) {
    let failure = result.unwrap_err();
    (failure.main, failure.sub)
}
