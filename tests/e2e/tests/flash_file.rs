//! pal-flash-file against the code that shares its formats and nothing else: the launcher of `otad` (state record and
//! tries) and the runtime's image trailer.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use host_runtime::target::trailer::{TRAILER_BYTES, Trailer};
use host_runtime::types::Version;
use otad::launch::choose;
use otad::launch::record::{Doubled, Image, Record, Slot, State, Tries};
use pal_flash_file::FlashFile;
use pal_sdk::fake::Fake;
use pal_sdk::lent::Region;
use pal_sdk::{Answer, Duty, ImageInfo, Plugin, Transfer};

const SLOT_BYTES: u64 = 4096;
const TRIES_MAX: u32 = 3;

fn region(name: &str, kind: u8, size: u64) -> Region {
    Region {
        name: name.to_owned(),
        kind,
        size,
        erase_size: 1,
        write_size: 1,
        read_only: name == "tries",
    }
}

/// A target whose first image was laid down as `otad target init` does it.
struct Bench {
    fake: Fake,
    plugin: FlashFile<Fake>,
}

impl Bench {
    fn new() -> Self {
        let fake = Fake::new(vec![
            region("slot-a", Region::SLOT, SLOT_BYTES),
            region("slot-b", Region::SLOT, SLOT_BYTES),
            region("record", Region::RECORD, 8192),
            region("tries", Region::RECORD, 8192),
        ]);
        for (at, sequence) in [(0, 1), (4096, 2)] {
            let first = Record {
                sequence,
                confirmed: Some(confirmed()),
                next: None,
                state: State::Settled,
            };
            fake.world().region("record").place(at, &first.encode());
        }
        let plugin = FlashFile::open(fake.clone(), Vec::new(), None).unwrap();
        Self { fake, plugin }
    }

    fn record(&self) -> Record {
        let bytes = self.fake.world().region("record").bytes.clone();
        Record::newest(&bytes).unwrap().1
    }

    /// What the launcher starts, and what it notes first.
    fn launch(&self) -> Slot {
        let record = self.record();
        let mut world = self.fake.world();
        let region = world.region("tries");
        let tries = Tries::newest(&region.bytes).map(|(_, tries)| tries);
        let choice = choose(&record, tries, TRIES_MAX, |_| true).unwrap();
        if let Some(note) = choice.note {
            let at = Tries::next_offset(&region.bytes);
            region.place(at, &note.encode());
        }
        choice.image.slot
    }

    /// Code and runs-new.
    fn told(&mut self) -> (u8, Option<bool>) {
        match self.plugin.state().unwrap() {
            Duty::Finished(Answer::State(state)) => (state.code, state.runs_new),
            other => panic!("{other:?}"),
        }
    }

    fn receive(&mut self, job: &str, image: &[u8]) {
        self.plugin.create(transfer(job, image)).unwrap();
        self.plugin.write_block(0, image.to_vec()).unwrap();
    }
}

fn transfer(job: &str, image: &[u8]) -> Transfer {
    Transfer {
        job_id: job.to_owned(),
        size: image.len() as u64,
        block_size: 4096,
        ..Transfer::default()
    }
}

const fn confirmed() -> Image {
    Image {
        slot: Slot::A,
        length: 700,
        sha256: [1; 32],
    }
}

#[test]
fn the_launcher_reads_what_the_plugin_writes_and_the_other_way_round() {
    let new = Image {
        slot: Slot::B,
        length: 900,
        sha256: [2; 32],
    };
    let mut bench = Bench::new();
    assert_eq!(bench.launch(), Slot::A);
    bench.receive("job-1", &[7; 900]);
    assert_eq!(bench.told(), (2, Some(false)));

    bench.plugin.activate(new.sha256).unwrap();
    let armed = Record {
        sequence: 3,
        confirmed: Some(confirmed()),
        next: Some(new),
        state: State::Armed,
    };
    assert_eq!(bench.record(), armed);
    assert_eq!(bench.told(), (4, Some(false)));

    assert_eq!(bench.launch(), Slot::B);
    assert_eq!(bench.told(), (1, Some(true)));
    bench.plugin.commit().unwrap();
    let settled = Record {
        sequence: 4,
        confirmed: Some(new),
        next: None,
        state: State::Settled,
    };
    assert_eq!(bench.record(), settled);
    assert_eq!(bench.launch(), Slot::B);
    assert_eq!(bench.told(), (2, Some(true)));
}

#[test]
fn both_agree_when_an_image_has_gone_back() {
    let mut bench = Bench::new();
    bench.receive("job-1", &[7; 900]);
    bench.plugin.activate([2; 32]).unwrap();
    for _ in 0..TRIES_MAX {
        assert_eq!(bench.launch(), Slot::B);
        assert_eq!(bench.told(), (1, Some(true)));
    }
    // And it stays so, however often it starts.
    for _ in 0..3 {
        assert_eq!(bench.launch(), Slot::A);
        assert_eq!(bench.told(), (3, Some(false)));
    }
    // Marked again it has all its tries again.
    bench.plugin.activate([2; 32]).unwrap();
    assert_eq!(bench.launch(), Slot::B);
    assert_eq!(bench.told(), (1, Some(true)));
}

#[test]
fn both_agree_on_a_rejected_image() {
    let mut bench = Bench::new();
    bench.receive("job-1", &[7; 900]);
    bench.plugin.activate([2; 32]).unwrap();
    bench.launch();
    let host_resets = Duty::Finished(Answer::HostResets);
    assert_eq!(bench.plugin.reject().unwrap(), host_resets);
    assert_eq!(bench.record().state, State::Rejected);
    assert_eq!(bench.launch(), Slot::A);
    let done = Duty::Finished(Answer::Nothing);
    assert_eq!(bench.plugin.reject().unwrap(), done);
    assert_eq!(bench.told(), (3, Some(false)));
}

#[test]
fn plugin_and_runtime_read_the_same_trailers() {
    let trailer = Trailer {
        version: Version {
            major: 1,
            minor: 2,
            revision: 300,
            build: 70_000,
        },
        product: "gateway".to_owned(),
        hardware: "rev-b".to_owned(),
        payload_bytes: 1000,
    };
    let good = trailer.encode().unwrap();
    let nameless = Trailer {
        product: String::new(),
        hardware: String::new(),
        ..trailer.clone()
    };
    let mut rows = vec![good.to_vec(), nameless.encode().unwrap().to_vec()];
    rows.push(vec![0; TRAILER_BYTES]);
    // Every byte changed, once as it is and once with a checksum that fits it.
    for at in 0..TRAILER_BYTES {
        for value in [0x00, 0x0a, 0x41, 0xff] {
            let mut changed = good.to_vec();
            changed[at] = value;
            rows.push(changed.clone());
            let crc = pal_sdk::record::crc32c(&changed[..124]).to_le_bytes();
            changed[124..].copy_from_slice(&crc);
            rows.push(changed);
        }
    }
    let mut bench = Bench::new();
    let mut valid = 0;
    for bytes in rows {
        let mut image = vec![0x55; 1000];
        image.extend(&bytes);
        bench.receive("job-1", &image);
        let size = image.len() as u64;
        let plugin = match bench.plugin.examine() {
            Ok(Duty::Finished(Answer::Info(info))) => Some(info),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        };
        let runtime = match Trailer::decode(&bytes, size) {
            Ok(trailer) => Some(info(&trailer)),
            Err(host_runtime::target::trailer::TrailerError::None) => Some(ImageInfo::default()),
            Err(_) => None,
        };
        valid += u32::from(runtime.as_ref().is_some_and(|info| info.version.is_some()));
        assert_eq!(plugin, runtime, "{bytes:02x?}");
    }
    assert!(valid > 100, "only {valid} rows were trailers at all");
}

fn info(trailer: &Trailer) -> ImageInfo {
    let Version {
        major,
        minor,
        revision,
        build,
    } = trailer.version;
    ImageInfo {
        version: Some(pal_sdk::Version {
            major,
            minor,
            revision,
            build,
        }),
        product: (!trailer.product.is_empty()).then(|| trailer.product.clone()),
    }
}
