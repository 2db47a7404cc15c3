//! The shipped flash-file component in a target: the same walks as with the double, with a launcher that reads the
//! record and writes the tries as `pal-plugins/pal-flash-file/README.md` says.

use std::sync::{Arc, OnceLock};

use super::medium::{Cut, MemoryStorage};
use super::world::{Setup, World, command, main_of};
use crate::engine::{Engine, EngineOptions, Refusal};
use crate::plugin::{ComponentPlugin, PluginFactory, capability};
use crate::target::{ResetPolicy, VersionReader};
use crate::types::{Outcome, code};

fn plugin() -> Arc<ComponentPlugin> {
    static PLUGIN: OnceLock<Arc<ComponentPlugin>> = OnceLock::new();
    let load = || {
        let engine = Engine::new(&EngineOptions::default()).unwrap();
        ComponentPlugin::load(&engine, "builtin:flash-file", guest_artifacts::FLASH_FILE).unwrap()
    };
    Arc::clone(PLUGIN.get_or_init(load))
}

/// Lay down the newer copy of a record that is kept twice; `body` is what stands between sequence and CRC.
fn lay(storage: &MemoryStorage, magic: &[u8; 8], length: usize, body: &[u8]) {
    let mut bytes = storage.contents();
    bytes.resize(8192, 0xff);
    let sequence = |at: usize| {
        (&bytes[at..at + 8] == magic)
            .then(|| u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()))
    };
    let (a, b) = (sequence(0), sequence(4096));
    let newest = a.max(b).unwrap_or(0);
    let at = if a == Some(newest) { 4096 } else { 0 };
    let mut copy = vec![0; length];
    copy[..8].copy_from_slice(magic);
    copy[8..12].copy_from_slice(&(newest + 1).to_le_bytes());
    copy[12..12 + body.len()].copy_from_slice(body);
    let crc = crc32c::crc32c(&copy[..length - 4]);
    copy[length - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes[at..at + length].copy_from_slice(&copy);
    storage.fill(&bytes);
}

/// The newest copy of the state record: sequence, confirmed slot, next slot, state.
fn record(storage: &MemoryStorage) -> (u32, u8, u8, u8) {
    let mut bytes = storage.contents();
    bytes.resize(8192, 0xff);
    [0, 4096]
        .into_iter()
        .filter(|at| {
            let crc = u32::from_le_bytes(bytes[at + 124..at + 128].try_into().unwrap());
            crc32c::crc32c(&bytes[*at..at + 124]) == crc
        })
        .map(|at| {
            let sequence = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
            (sequence, bytes[at + 12], bytes[at + 13], bytes[at + 14])
        })
        .max()
        .expect("a record")
}

/// What `otad target init` does: slot a is confirmed.
fn init(world: &World) {
    let old = world.slots[0].contents();
    let mut hasher = host_crypto::Hasher::default();
    hasher.update(&old);
    let mut body = vec![0, 0xff, 0, 0];
    body.extend((old.len() as u64).to_le_bytes());
    body.extend(hasher.finish().sha256());
    for _ in 0..2 {
        lay(&world.record, b"OTADREC1", 128, &body);
    }
}

/// What `otad launch` does: start the next slot if it is armed and `stays_up`, else the confirmed one; returns it.
fn launch(world: &World, stays_up: bool) -> u8 {
    let (sequence, confirmed, next, state) = record(&world.record);
    let slot = if state == 1 && stays_up {
        next
    } else {
        confirmed
    };
    let mut body = sequence.to_le_bytes().to_vec();
    body.extend(u32::from(state == 1).to_le_bytes());
    body.push(slot);
    lay(&world.tries, b"OTADTRY1", 64, &body);
    slot
}

fn world(setup: Setup) -> World {
    let plugin: Arc<dyn PluginFactory> = plugin();
    let world = World::new(Setup {
        plugin: Some(plugin),
        reset: Some(ResetPolicy::Command(command("reset"))),
        ..setup
    });
    init(&world);
    world
}

#[test]
fn it_says_who_it_is_and_imports_what_it_needs() {
    let plugin = plugin();
    let description = plugin.description();
    assert_eq!(description.name, "pal-flash-file");
    assert!(description.can(capability::DIRECT) && description.can(capability::REVERT));
    assert!(
        plugin
            .imports()
            .iter()
            .all(|i| ["block-device", "clock", "log"].contains(&i.as_str()))
    );
}

#[test]
fn an_update_goes_from_create_to_commit() {
    let mut world = world(Setup::default());
    assert_eq!(world.state_now().code, 2);
    let image = World::image(50_000, 2);
    world.deliver("job-1", &image);
    assert_eq!(world.slots[1].contents(), image);
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.activate(), Outcome::Nothing);
    assert_eq!(world.state_now().code, 4);
    assert_eq!(world.reset(), Outcome::Nothing);
    assert_eq!(launch(&world, true), 1);
    let state = world.state_now();
    assert_eq!((state.code, state.runs_new), (1, Some(true)));
    assert_eq!(
        state.running.map(|v| v.major),
        Some(2),
        "from the slot's trailer"
    );
    assert_eq!(world.self_test(), Outcome::Nothing);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(record(&world.record).1, 1);
    // And the next one goes to the other slot.
    let next = World::image(300, 3);
    world.deliver_and_start("job-2", &next);
    assert_eq!(launch(&world, true), 0);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.slots[0].contents(), next);
}

#[test]
fn an_image_that_never_stays_up_goes_back_and_one_that_is_rejected_too() {
    let mut world = world(Setup::default());
    world.deliver_and_start("job-1", &World::image(300, 2));
    assert_eq!(launch(&world, false), 0);
    assert_eq!(world.state_now().code, 3);
    assert_eq!(world.reject(), Outcome::Nothing);
    world.deliver_and_start("job-2", &World::image(300, 3));
    launch(&world, true);
    assert_eq!(world.state_now().code, 1);
    // The reset command is the launcher here: it runs within `reject`.
    let (record_storage, tries) = (Arc::clone(&world.record), Arc::clone(&world.tries));
    world.programs.on_reset(move || {
        let (sequence, confirmed, ..) = record(&record_storage);
        let mut body = sequence.to_le_bytes().to_vec();
        body.extend([0, 0, 0, 0, confirmed]);
        lay(&tries, b"OTADTRY1", 64, &body);
    });
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(world.phase(), "rejected");
    assert_eq!(record(&world.record).1, 0);
}

#[test]
fn a_restart_in_the_middle_goes_on_with_a_fresh_instance() {
    let mut world = world(Setup::default());
    let image = World::image(50_000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, (0..49).step_by(2));
    world.restart();
    assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
    world.write_all(&image);
    world.close();
    world.install();
    world.restart();
    world.close();
    assert_eq!(world.activate(), Outcome::Nothing);
    world.restart();
    world.reset();
    launch(&world, true);
    world.restart();
    assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
    assert!(
        matches!(world.close(), Outcome::Verified(_)),
        "the slot that runs is read again"
    );
    assert_eq!(world.commit(), Outcome::Nothing);
}

#[test]
fn the_plugin_and_the_host_read_the_same_trailer() {
    let image = World::image(1234, 7);
    let read = |version_from| {
        let mut world = world(Setup {
            version_from,
            ..Setup::default()
        });
        world.create("job-1", &image);
        world.write_all(&image);
        match world.close() {
            Outcome::Verified(info) => info,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(VersionReader::Trailer), read(VersionReader::Plugin));
}

#[test]
fn a_cut_at_every_change_of_activate_and_commit_leaves_one_bootable_image() {
    let image = World::image(300, 2);
    for verb in ["activate", "commit"] {
        for cut in [Cut::Before, Cut::During, Cut::After] {
            for at in 0.. {
                let mut world = world(Setup::default());
                world.deliver("job-1", &image);
                world.install();
                if verb == "commit" {
                    world.activate();
                    world.reset();
                    launch(&world, true);
                }
                world.power.cut_at(at, cut);
                let end = if verb == "commit" {
                    world.commit()
                } else {
                    world.activate()
                };
                if !world.power.is_dark() {
                    assert_eq!(end, Outcome::Nothing);
                    assert!(at >= 4, "{verb} changes more than {at} things");
                    break;
                }
                world.power_cut();
                let slot = launch(&world, true);
                let bytes = world.slots[usize::from(slot)].contents();
                assert!(
                    bytes == image || bytes == b"the old image",
                    "{verb} {cut:?} {at}"
                );
                // And on it goes to the end.
                world.reopen("job-1");
                assert!(matches!(world.close(), Outcome::Verified(_)));
                assert_eq!(world.activate(), Outcome::Nothing, "{verb} {cut:?} {at}");
                world.reset();
                launch(&world, true);
                assert_eq!(world.commit(), Outcome::Nothing, "{verb} {cut:?} {at}");
                assert_eq!(record(&world.record).1, 1);
            }
        }
    }
}

#[test]
fn a_target_without_a_first_image_is_named() {
    let mut world = world(Setup::default());
    world.record.fill(&[0xff; 8192]);
    world.restart();
    assert_eq!(world.state_now().code, 0);
    let end = world.create("job-1", &World::image(300, 2));
    assert_eq!(main_of(&end), code::BAD_IMAGE_STATE);
}

#[test]
fn what_is_no_plugin_or_wants_more_than_is_lent_is_refused_when_it_is_loaded() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let load = |text: &str| {
        let bytes = wat::parse_str(text).unwrap();
        ComponentPlugin::load(&engine, "test", &bytes).unwrap_err()
    };
    assert_eq!(load("(module)"), Refusal::CoreModule);
    assert!(matches!(load("(component)"), Refusal::MissingExport { .. }));
    let radio = "(component (import \"ota:pal/radio@0.1.0\" (instance)))";
    assert!(matches!(load(radio), Refusal::UnknownImport { .. }));
    let wasi = "(component (import \"wasi:cli/environment@0.2.0\" (instance)))";
    assert!(matches!(load(wasi), Refusal::UnknownImport { .. }));
}

#[test]
fn a_plugin_for_a_serial_line_needs_one_to_be_configured() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let bytes = guest_artifacts::SERIAL_MCU;
    let plugin = ComponentPlugin::load(&engine, "builtin:serial-mcu", bytes).unwrap();
    let mut config = World::staged().config();
    config.plugin = plugin;
    let refused = crate::target::config::check(&config)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("needs serial-line"), "{refused}");
}

#[test]
fn its_account_says_what_it_has_used_beside_what_it_may() {
    let mut world = world(Setup::default());
    let image = World::image(5000, 2);
    world.deliver("job-1", &image);
    let account = world.targets.report().remove(0).build.account;
    let used = |key: &str| account[key];
    assert_eq!(used("bytes_written").all, image.len() as u64);
    // One write of a block each, and what it reads of its records.
    assert!(used("bytes_moved").all > image.len() as u64);
    assert_eq!(used("syncs").all, 0);
    for key in ["fuel", "host_calls", "bytes_written", "bytes_moved"] {
        let used = used(key);
        assert!(0 < used.most && used.most < used.all, "{key}: {used:?}");
        assert!(used.most < used.limit, "{key}: {used:?}");
    }
    let memory = used("memory_bytes");
    assert!(0 < memory.all && memory.all <= memory.limit, "{memory:?}");
}
