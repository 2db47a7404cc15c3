//! What is held when something leaves the device: all that its agent was told as taken. A process that is killed fetches again
//! what it had asked for, and nothing of what it had.

use std::sync::{Arc, Mutex};

use super::medium::{MemoryState, MemoryStorage};
use super::world::{FILE, Setup, World};
use crate::agent::{Context, Event, Outside};
use crate::bandwidth::{Bandwidth, Cap};
use crate::device::{Device, DeviceConfig, DevicePorts, PreparedDevice};
use crate::mailbox::Input;
use crate::ports::state_dir::StateDir;
use crate::ports::transport::Transport;
use crate::target::names::BLOCK_MAP;
use crate::testing::{CountingSeed, Strings, changed, no_wake, puppet};
use crate::types::{Outcome, Qos, Started, Token};

const BLOCK: usize = 1024;

const TOPIC: &str = "$aws/things/gateway/streams/s/get/cbor";

const URL: &str = "https://cloud/file";

/// The largest range.
const RANGE: u32 = 128 * 1024;

/// The state of an agent whose job receives.
const RECEIVING: u8 = 6;

/// What is held: blocks of the image at the beginning of the slot, and bytes of the map.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    blocks: usize,
    map_bytes: usize,
}

/// A transport that notes what is held whenever something leaves.
#[derive(Clone)]
struct Scales {
    image: Arc<[u8]>,
    slot: Arc<MemoryStorage>,
    state: Arc<MemoryState>,
    left: Arc<Mutex<Vec<Held>>>,
}

impl Scales {
    fn held(&self) -> Held {
        let names = self.state.list("").unwrap();
        let map = names.iter().find(|name| name.ends_with(BLOCK_MAP));
        let map = map.and_then(|name| self.state.load(name).unwrap());
        let slot = self.slot.contents();
        let both = self.image.chunks(BLOCK).zip(slot.chunks(BLOCK));
        Held {
            blocks: both.take_while(|(wanted, there)| wanted == there).count(),
            map_bytes: map.map_or(0, |log| log.len()),
        }
    }

    fn weigh(&self) {
        let held = self.held();
        self.left.lock().unwrap().push(held);
    }
}

impl Transport for Scales {
    fn subscribe(&mut self, _: Token, _: &str, _: Qos) {}

    fn unsubscribe(&mut self, _: Token, _: &str) {}

    fn publish(&mut self, _: Token, _: &str, _: Vec<u8>, _: Qos) {
        self.weigh();
    }

    fn http_get(&mut self, _: Token, _: &str, _: u64, _: u32) {
        self.weigh();
    }

    fn cancel(&mut self, _: Token) {}
}

/// A device that receives an image, and the scales at its door.
struct Gate {
    scales: Scales,
    strings: Arc<Mutex<Strings>>,
    device: Device,
    now: Context,
}

impl Gate {
    /// Under a cap of so many bytes a second, if there is one.
    fn new(cap: Option<u64>) -> Self {
        let world = World::new(Setup {
            largest_write: Some(131_072),
            ..Setup::default()
        });
        let image = World::image(20 * BLOCK, 2);
        let spec = world.spec("job-1", &image);
        let (agent, strings) = puppet();
        let config = DeviceConfig {
            name: "gateway".into(),
            agent,
            former_agent: None,
            settings: Vec::new(),
            targets: vec![world.config()],
            topics: vec!["$aws/things/gateway/".into()],
        };
        let ports = DevicePorts {
            state: Arc::clone(&world.state) as _,
            workers: Arc::clone(&world.bench) as _,
            commands: Arc::clone(&world.programs) as _,
            clock: Arc::clone(&world.clock) as _,
            seed: Arc::new(CountingSeed::default()),
        };
        let mut prepared = PreparedDevice::new(config, ports, no_wake()).unwrap();
        if cap.is_some() {
            prepared.join(&Bandwidth::new(Cap::new(cap, Vec::new())));
        }
        let scales = Scales {
            image: image.into(),
            slot: Arc::clone(&world.slots[1]),
            state: Arc::clone(&world.state),
            left: Arc::default(),
        };
        let now = Context {
            now_ms: 1000,
            wall_s: None,
        };
        let mut device = prepared.into_device(Box::new(scales.clone()));
        device.start(now).unwrap();
        let mut gate = Self {
            scales,
            strings,
            device,
            now,
        };
        gate.tell(move |outside, event| {
            if matches!(event, Event::Messages(_)) {
                let started = outside.create(spec.clone());
                assert!(matches!(started, Started::Pending(_)), "{started:?}");
            }
        });
        assert_eq!(gate.scales.held().blocks, 0);
        gate
    }

    /// Tell the agent of a message; it does this with every event until nothing is left to do.
    fn tell(&mut self, mut react: impl FnMut(&mut dyn Outside, &Event) + Send + 'static) {
        self.strings.lock().unwrap().react = Box::new(move |outside, event| {
            react(outside, event);
            Ok(changed(RECEIVING, Some("job-1")))
        });
        let message = Input::Message {
            topic: TOPIC.into(),
            payload: Vec::new().into(),
            qos: Qos::AtLeastOnce,
        };
        self.device.handle(self.now, message);
        while (self.device.poll(self.now)).is_some_and(|at| at <= self.now.now_ms) {}
    }

    /// Brings the first three blocks, each of which is told as taken.
    fn bring(&self) -> impl Fn(&mut dyn Outside) + Send + 'static {
        let image = Arc::clone(&self.scales.image);
        move |outside| {
            for at in [0, BLOCK, 2 * BLOCK] {
                let started = outside.write_block(FILE, at as u64, &image[at..at + BLOCK]);
                assert_eq!(started, Started::Done(Outcome::Nothing));
            }
        }
    }

    /// What was held whenever something left since this was asked last.
    fn left(&self) -> Vec<Held> {
        std::mem::take(&mut *self.scales.left.lock().unwrap())
    }

    /// One thing has left since then, and the blocks were in the storage and in the map.
    fn expect_blocks_before_it(&self, map_bytes_before: usize) {
        let after = self.scales.held();
        assert_eq!(after.blocks, 3);
        assert!(after.map_bytes > map_bytes_before);
        assert_eq!(self.left(), [after]);
    }
}

#[test]
fn a_request_leaves_when_the_blocks_that_were_taken_before_it_are_held() {
    let asks: [fn(&mut dyn Outside) -> Token; 3] = [
        |outside| outside.publish(TOPIC.into(), vec![0xa0], Qos::AtMostOnce),
        |outside| outside.publish(TOPIC.into(), vec![0xa0], Qos::AtLeastOnce),
        |outside| outside.http_get(URL.into(), 4096, 4096),
    ];
    for ask in asks {
        let mut gate = Gate::new(None);
        let map_bytes = gate.scales.held().map_bytes;
        let bring = gate.bring();
        gate.tell(move |outside, event| {
            if matches!(event, Event::Messages(_)) {
                bring(outside);
                ask(outside);
            }
        });
        gate.expect_blocks_before_it(map_bytes);
    }
}

#[test]
fn a_request_that_the_bandwidth_cap_held_back_leaves_when_the_blocks_that_came_since_are_held() {
    let mut gate = Gate::new(Some(100_000));
    gate.tell(|outside, event| {
        if matches!(event, Event::Messages(_)) {
            outside.http_get(URL.into(), 0, RANGE);
        }
    });
    assert_eq!(gate.left(), [], "it has to wait");
    let map_bytes = gate.scales.held().map_bytes;
    gate.now.now_ms += 2000;
    let bring = gate.bring();
    gate.tell(move |outside, event| match event {
        Event::Messages(_) => {
            outside.publish("not/this/device".into(), Vec::new(), Qos::AtMostOnce);
        }
        // Refused, in the poll in which the range may leave.
        Event::Done { .. } => bring(outside),
        _ => {}
    });
    gate.expect_blocks_before_it(map_bytes);
}
