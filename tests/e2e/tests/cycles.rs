//! An application that starts and ends its agent over and over, in a process of its own: whatever an agent takes it gives
//! back. What the work itself leaves behind is judged in `tests/faults`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::time::Duration;

use e2e::{Cloud, Gateway, image};
use otad::application::rumqttc::AsyncClient;
use otad::application::{Gateway as Otad, SharedConnection};
use support::binary::{code_cache, warm_code_cache};
use support::deadline::{Deadline, PATIENCE, pass};
use support::usage::Usage;

const THING: &str = "cycles";

/// Starts that fill what is filled once: the allocator's arenas, lazy statics.
const FIRST: usize = 100;
const CYCLES: usize = 200;

/// An agent that stayed would be some 35 KB.
const GROWTH_MAX_KIB: u64 = 1024;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn an_agent_that_ends_gives_back_its_memory_and_its_descriptors() {
    let cloud = Cloud::start();
    let gateway = Gateway::new(&cloud, THING);
    gateway.init(&image::program("1.0.0", "exit 0", 20_000));
    let warming = warm_code_cache().unwrap();
    let mut config = otad::config::load(&gateway.config()).unwrap();
    config.daemon.cache_dir = code_cache();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _on_it = runtime.enter();
    let otad = Otad::open(config).unwrap();
    let options = otad
        .connection_config(THING)
        .unwrap()
        .mqtt_options()
        .unwrap();
    // Nobody polls it: an agent starts and ends without a connection too.
    let (client, _events) = AsyncClient::builder(options).capacity(64).build();
    let shared = SharedConnection::new(client).unwrap();
    let cycle = || {
        let agent = otad.share(THING, &shared).unwrap();
        let status = runtime.block_on(agent.stop());
        assert_eq!(status.device, THING);
    };
    (0..FIRST).for_each(|_| cycle());
    warming.done().unwrap();
    let look = || {
        (
            Usage::of(std::process::id()).unwrap().rss_kib,
            descriptors(),
        )
    };
    let before = look();
    (0..CYCLES).for_each(|_| cycle());
    let after = look();
    assert!(
        after.0 <= before.0 + GROWTH_MAX_KIB,
        "{before:?}, then {after:?}"
    );
    // What ends may hold one a moment longer than its agent.
    let deadline = Deadline::after(PATIENCE);
    while descriptors() > before.1 {
        assert!(deadline.left().is_some(), "{before:?}, then {after:?}");
        pass(Duration::from_millis(2));
    }
}
