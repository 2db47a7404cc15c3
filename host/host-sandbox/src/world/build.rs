//! Makes the device of a world: configuration and ports.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use host_runtime::agent::{AgentBuild, FormerAgent};
use host_runtime::choice::{self, Build, Choice, Place};
use host_runtime::device::{Device, DeviceConfig, DevicePorts, PreparedDevice};
use host_runtime::plugin::{PluginFactory, capability};
use host_runtime::ports::commands::Command;
use host_runtime::ports::state_dir::{FileStateDir, Files, OpenFile, StateDir};
use host_runtime::target::verified_record::{self, VerifiedImage};
use host_runtime::target::{
    FormerPlugin, PathRule, RegionConfig, RegionKind, ResetPolicy, TargetConfig, VersionReader,
};
use host_runtime::types::Setting;

use super::{NewBuild, World};
use crate::ailment::Ailing;
use crate::ground::Ground;
use crate::plant::{Plant, THING};
use crate::scenario::{PRODUCT, Prepared};
use crate::signer;
use crate::store::DiskFiles;
use crate::wire::Inline;

/// Makes a state directory of a world's files.
pub type StateMaker = fn(WorldFiles) -> Arc<dyn StateDir>;

/// The files of a world's state directory, with what ails them.
pub struct WorldFiles(Ailing<DiskFiles>);

impl Files for WorldFiles {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.read(name)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        self.0.create(name)
    }
    fn append(&self, name: &str) -> io::Result<(Box<dyn OpenFile>, bool)> {
        self.0.append(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_directory(&self, of: &str) -> io::Result<()> {
        self.0.sync_directory(of)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }
}

fn setting((key, value): &(String, String)) -> Setting {
    Setting {
        key: key.clone(),
        value: value.clone(),
    }
}

/// What `otad target init` leaves in the state directory: the first images are verified and committed.
pub(super) fn lay_down_state(files: DiskFiles, plant: &Plant, prepared: &Prepared) {
    // Before the run: nothing of it is counted or cut.
    let state = FileStateDir::over(DiskFiles {
        ground: Ground::new(0, 0, None, Vec::new()),
        ..files
    });
    for (number, file) in prepared.files.iter().enumerate() {
        let image = VerifiedImage {
            sha256: file.old().sha256,
            size: file.old().bytes.len() as u64,
            version: None,
            signer: "initial".into(),
        };
        let name = plant.name(number);
        // Files in memory without faults take everything.
        drop(verified_record::enter_initial(
            &state, THING, &name, "slot-a", image,
        ));
    }
}

/// A device over the ports of this world, not yet started.
pub(super) fn device(world: &World<'_>) -> Result<Device, String> {
    let scenario = &world.prepared.scenario;
    let mut settings: Vec<_> = scenario.settings.iter().map(setting).collect();
    // Replies come unasked, as at AWS; and nobody reads a log here, so no agent spends its time on one.
    for (key, value) in [("reply_subscriptions", "never"), ("log_level", "5")] {
        settings.push(setting(&(key.to_owned(), value.to_owned())));
    }
    let (agent, former_agent) = agent(world);
    let config = DeviceConfig {
        name: THING.into(),
        agent,
        former_agent,
        settings,
        targets: targets(world)?,
        topics: vec![format!("$aws/things/{THING}/")],
    };
    let files = WorldFiles(Ailing {
        inner: world.files(),
        ground: world.ground.clone(),
        spells: scenario.spells.clone(),
    });
    let ports = DevicePorts {
        state: match world.options.state {
            Some(make) => make(files),
            None => Arc::new(FileStateDir::over(files)),
        },
        workers: Arc::new(Inline),
        commands: Arc::new(world.programs.clone()),
        clock: Arc::new(world.ground.clone()),
        seed: Arc::clone(&world.seeds) as _,
    };
    let woken = Arc::clone(&world.woken);
    let wake = Arc::new(move || woken.store(true, Ordering::Relaxed));
    let prepared = PreparedDevice::new(config, ports, wake);
    let mut prepared = prepared.map_err(|error| error.to_string())?;
    if let Some(quiet_ms) = world.options.park_after_ms {
        prepared.park_after(quiet_ms);
    }
    Ok(prepared.into_device(Box::new(world.wire.clone())))
}

fn targets(world: &World<'_>) -> Result<Vec<TargetConfig>, String> {
    let own = (0..world.plant.count()).map(|number| Ok(target(world, number)));
    let mcus = (0..world.mcus.count()).map(|number| mcu_target(world, number));
    own.chain(mcus).collect()
}

/// The target of a secondary MCU.
fn mcu_target(world: &World<'_>, number: usize) -> Result<TargetConfig, String> {
    let plugin = world.options.mcu_pal.clone();
    let plugin = plugin.ok_or("no plugin for secondary MCUs was given")?;
    let (line, reset) = world.mcus.lend(number);
    let own = world.plant.count();
    let settings = [
        ("soak_ms", "1000"),
        ("silence_ms", "8000"),
        ("swap_timeout_ms", "30000"),
    ];
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Ok(TargetConfig {
        name: world.mcus.name(number),
        file_id: u32::try_from(own + number).unwrap_or(u32::MAX),
        plugin,
        former_plugin: None,
        plugin_settings: settings.map(|s| setting(&pair(s))).to_vec(),
        agent_settings: vec![setting(&pair(("firmware", "true")))],
        regions: Vec::new(),
        staging: Some(world.mcus.staging(number)),
        line: Some(line),
        hardware_reset: Some(reset),
        version_from: VersionReader::Plugin,
        product: None,
        reset: ResetPolicy::Plugin,
        health: None,
        is_asked: true,
        ..target(world, 0)
    })
}

/// What the state directory says of which build serves.
fn choice(world: &World<'_>, place: &Place) -> Option<Choice> {
    if world.options.swaps.is_empty() {
        // Nobody can have chosen, and there is nothing to choose from.
        return None;
    }
    let state = FileStateDir::over(DiskFiles {
        ground: Ground::new(0, 0, None, Vec::new()),
        ..world.files()
    });
    // What cannot be read counts as nothing said, there as here.
    choice::load(&state, place).ok().flatten()
}

/// Of all builds of a run the one that serves and the one before it: the configured one where nothing was chosen.
fn serving<B: Clone>(
    choice: Option<&Choice>,
    configured: &B,
    swapped: impl Iterator<Item = B>,
    names: impl Fn(&B) -> Build,
) -> (B, Option<B>) {
    let known: Vec<B> = swapped.chain([configured.clone()]).collect();
    let find = |wanted: &Build| known.iter().find(|build| names(build) == *wanted).cloned();
    let serves = choice.and_then(|choice| find(&choice.serves));
    let former = choice.and_then(|choice| find(choice.former.as_ref()?));
    (serves.unwrap_or_else(|| configured.clone()), former)
}

/// The agent that serves and the one before it.
fn agent(world: &World<'_>) -> (Arc<AgentBuild>, Option<FormerAgent>) {
    let swapped = world.options.swaps.iter();
    let swapped = swapped.filter_map(|swap| match &swap.build {
        NewBuild::Agent(build) => Some(Arc::clone(build)),
        NewBuild::Plugin(..) => None,
    });
    let choice = choice(world, &Place::agent(THING));
    let configured = &world.options.agent;
    let (serves, former) = serving(choice.as_ref(), configured, swapped, |b| Build::of_agent(b));
    let on_trial = choice.is_some_and(|choice| choice.on_trial);
    (serves, former.map(|agent| FormerAgent { agent, on_trial }))
}

/// The plugin that serves a target and the one before it.
fn plugin(world: &World<'_>, target: &str) -> (Arc<dyn PluginFactory>, Option<FormerPlugin>) {
    let swapped = world.options.swaps.iter();
    let swapped = swapped.filter_map(|swap| match &swap.build {
        NewBuild::Plugin(_, build) => Some(Arc::clone(build)),
        NewBuild::Agent(_) => None,
    });
    let choice = choice(world, &Place::plugin(THING, target));
    let configured = &world.options.pal;
    let (serves, former) = serving(choice.as_ref(), configured, swapped, |b| {
        Build::of_plugin(&**b)
    });
    let on_trial = choice.is_some_and(|choice| choice.on_trial);
    (
        serves,
        former.map(|plugin| FormerPlugin { plugin, on_trial }),
    )
}

fn target(world: &World<'_>, number: usize) -> TargetConfig {
    let scenario = &world.prepared.scenario;
    let name = world.plant.name(number);
    let (plugin, former_plugin) = plugin(world, &name);
    let allow_no_revert = !plugin.description().can(capability::REVERT);
    let storages = world.plant.regions(number, &scenario.spells);
    let kinds = [
        ("slot-a", RegionKind::Slot),
        ("slot-b", RegionKind::Slot),
        ("record", RegionKind::Record),
        ("tries", RegionKind::Record),
    ];
    let regions = kinds.into_iter().zip(storages);
    let regions = regions.map(|((name, kind), storage)| RegionConfig {
        name: name.to_owned(),
        kind,
        erase_size: 1,
        write_size: 1,
        read_only: name == "tries",
        storage,
    });
    let command = |verb: &str| Command {
        argv: vec![verb.to_owned(), name.clone()],
        deadline_ms: 10_000,
    };
    let mut agent_settings = vec![("firmware".to_owned(), "true".to_owned())];
    if let Some(file) = scenario.files.get(number) {
        agent_settings.extend(file.settings.iter().cloned());
    }
    TargetConfig {
        file_id: u32::try_from(number).unwrap_or(u32::MAX),
        plugin,
        former_plugin,
        plugin_settings: world.options.pal_settings.clone(),
        agent_settings: agent_settings.iter().map(setting).collect(),
        regions: regions.collect(),
        staging: None,
        line: None,
        hardware_reset: None,
        version_from: VersionReader::Trailer,
        version_command: None,
        product: Some(PRODUCT.into()),
        hardware: None,
        reset: if number == 0 && !scenario.by_command {
            ResetPolicy::Process
        } else {
            ResetPolicy::Command(command("restart"))
        },
        inspect: None,
        health: scenario.health.then(|| command("health")),
        is_asked: false,
        trust: signer::trust(),
        // That is for its operator to say; what is judged here is what becomes of updates.
        allow_no_revert,
        paths: PathRule::default(),
        sync_bytes: scenario.sync_bytes,
        limits: host_runtime::target::Limits::default(),
        name,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host_runtime::plugin::lend::Lent;
    use host_runtime::plugin::{Description, Plugin, PluginError, PluginFactory, capability};

    use crate::scenario::Scenario;
    use crate::{Options, explore, native_pal};

    struct WithoutRevert(Arc<dyn PluginFactory>, Description);

    impl PluginFactory for WithoutRevert {
        fn label(&self) -> &str {
            self.0.label()
        }
        fn description(&self) -> &Description {
            &self.1
        }
        fn imports(&self) -> &[String] {
            self.0.imports()
        }
        fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
            self.0.make(lent)
        }
    }

    #[test]
    fn a_plugin_without_revert_gets_targets_that_allow_that() {
        let pal = native_pal(None);
        let mut who = pal.description().clone();
        who.capabilities &= !capability::REVERT;
        let options = Options {
            pal: Arc::new(WithoutRevert(pal, who)),
            ..Options::native(1)
        };
        let report = explore::run(&Scenario::plain("plain", 4).prepare(), options);
        assert_eq!(report.violations, []);
    }
}
