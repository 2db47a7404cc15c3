//! Plugins that do harm, and somebody else's at the same time: it is served in the middle of their calls, and an update beside
//! them needs not one block more than alone. Counts are judged here, not times.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use e2e::gateway::TargetLines;
use e2e::hostile::{call, in_both_carriers, lent, library};
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::service::ThingName;
use host_runtime::engine::EngineOptions;
use host_runtime::plugin::PluginFactory;
use tokio::task::yield_now;

const HONEST: &str = "honest";

/// Blocks of 4 KiB.
const BLOCKS: u64 = 128;
const BLOCK_BYTES: usize = 4096;

/// Six times what a native call may take (`OTA_PAL_CALL_MAX_MS`), in milliseconds. A build is not known to be slow before its
/// first bad call, which holds up whoever shares its thread: on two cores half of the hostile devices share the honest one's.
const REQUEST_TIMEOUT_MS: u64 = 6 * 5000;

/// Blocks of an image for a hostile target.
const FEW: u64 = 2;

/// Deeds by carrier; there are more of them than the daemon has threads. The first of each keep the host waiting, or busy, for as
/// long as a call may take, the last one takes all memory.
const DEEDS: [(&str, &str); 6] = [
    ("native", "spin"),
    ("native", "flood-log"),
    ("native", "memory"),
    ("component", "spins"),
    ("component", "floods-log"),
    ("component", "exhausts-memory"),
];

/// A hostile target: the library is staged, the component has slots of its own.
fn target((carrier, deed): (&str, &str)) -> TargetLines {
    let lines = match carrier {
        "native" => format!(
            "plugin = \"./hostile.so\"\nstaging = \"staging/{deed}\"\nversion_from = \"none\"\n\
             [device.target.settings]\ndeed = \"{deed}\"\nplace = \"/nowhere\"\n"
        ),
        _ => format!(
            "plugin = \"./hostile.wasm\"\ndirectory = \"data/{deed}\"\nversion_from = \"none\"\n\
             [device.target.settings]\ndeed = \"{deed}\"\n"
        ),
    };
    TargetLines {
        name: "board".to_owned(),
        file_id: 1,
        restart: String::new(),
        lines,
    }
}

#[test]
fn an_update_beside_hostile_plugins_takes_as_many_blocks_as_alone() {
    let cloud = Cloud::start();
    let names = DEEDS.map(|(_, deed)| deed);
    let things = [&[HONEST][..], &names].concat();
    let gateway = Gateway::with(&cloud, &things, |lines| {
        lines.development = "allow_file_plugins = true".to_owned();
        lines.device().agent = format!("request_timeout_ms = {REQUEST_TIMEOUT_MS}\n");
        for (device, deed) in lines.devices.iter_mut().skip(1).zip(DEEDS) {
            device.targets = vec![target(deed)];
        }
    });
    fs::write(gateway.path("hostile.so"), library()).unwrap();
    let component = guest_artifacts::FLASH_FILE_MUTANTS;
    fs::write(gateway.path("hostile.wasm"), component).unwrap();
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut daemon = gateway.run();
    let few = FEW as usize * BLOCK_BYTES;
    let jobs = names.map(|deed| {
        let file = Update {
            file_id: 1,
            ..Update::of(vec![7; few])
        };
        cloud.update(deed, file)
    });
    let image = image::program("1.1.0", "", BLOCKS as usize * BLOCK_BYTES);
    let ended = cloud.wait_end(&cloud.update(HONEST, Update::of(image)));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    for job in &jobs {
        let ended = cloud.wait_end(job);
        assert_eq!(ended.status, "FAILED", "{ended:?}\n{}", daemon.log());
    }
    // It was never so late that anything was asked for twice.
    let sent = &cloud.stats().things[&ThingName::new(HONEST).unwrap()];
    assert_eq!(sent.service.blocks, BLOCKS, "{}", daemon.log());
    daemon.wait_line(" broke: ");
    daemon.stop();
}

/// Calls of an honest plugin that were answered while a hostile one was in a call, on a runtime with one thread.
fn served_meanwhile(plugin: &Arc<dyn PluginFactory>, deed: &'static str) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let mut honest = plugin.make(lent()).unwrap();
    honest.open(&[], None).unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&served);
    let hostile = Arc::clone(plugin);
    runtime.block_on(async {
        let other = tokio::spawn(async move {
            loop {
                honest.state().unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let meanwhile = tokio::spawn(async move {
            // The first call of a build tells what it is like.
            call(&*hostile, deed, "state").unwrap_err();
            let before = served.load(Ordering::Relaxed);
            call(&*hostile, deed, "state").unwrap_err();
            served.load(Ordering::Relaxed) - before
        });
        let meanwhile = meanwhile.await.unwrap();
        other.abort();
        meanwhile
    })
}

#[test]
fn another_target_is_served_in_the_middle_of_a_hostile_call() {
    for (carrier, plugin) in in_both_carriers(&EngineOptions::default()) {
        let served = served_meanwhile(&plugin, "spins");
        support::note(&format!("{carrier}: {served} calls of another target's"));
        assert!(served > 0, "{carrier}");
    }
}
