//! The plugin builds of a gateway: those of the configuration, and those that an operator has put in their place.
//!
//! The bytes of a build that was put in are kept in the state directory by their digest, so that the choice
//! (`host_runtime::target::choice`) holds without the file that it came from. What no target names any more goes at the next
//! start. Not here: whether a file may be loaded (`admission.rs`), and the swap itself (`host-runtime`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use host_crypto::{Hasher, hex};
use host_runtime::agent::clean;
use host_runtime::engine::Engine;
use host_runtime::plugin::native::NativePlugin;
use host_runtime::plugin::{ComponentPlugin, PluginFactory};
use host_runtime::ports::state_dir::StateDir;
use host_runtime::target::FormerPlugin;
use host_runtime::target::choice::{self, PluginBuild, PluginChoice};
use tokio::task::spawn_blocking;

use super::{GatewayError, admission, native};
use crate::config::{Carrier, Config, PluginChoice as Configured, Target};
use crate::exit::{Exit, Failed, chain};

/// Where the bytes of builds are kept in the state directory.
const KEPT: &str = "plugins/";

/// Most bytes of a label: a path that somebody can still recognise.
const LABEL_MAX_BYTES: usize = 256;

/// See the module. It does not hold the lock of the state directory: who swaps may outlive a reload.
pub(crate) struct Plugins {
    config: Config,
    engine: Arc<Engine>,
    state: Arc<dyn StateDir>,
    /// Of the configuration, by label: loaded once for all targets that have it.
    configured: Mutex<BTreeMap<String, Arc<dyn PluginFactory>>>,
}

impl Plugins {
    pub(super) fn new(config: &Config, engine: &Arc<Engine>, state: &Arc<dyn StateDir>) -> Self {
        let plugins = Self {
            config: config.clone(),
            engine: Arc::clone(engine),
            state: Arc::clone(state),
            configured: Mutex::default(),
        };
        plugins.sweep();
        plugins
    }

    /// The build that serves a target, and the one before it.
    ///
    /// # Errors
    /// The configured build cannot be loaded. (A chosen one that cannot be is logged, and the one before it serves.)
    pub(super) fn serving(
        &self,
        device: &str,
        target: &Target,
    ) -> Result<(Arc<dyn PluginFactory>, Option<FormerPlugin>), GatewayError> {
        let configured = self.configured(target)?;
        let name = &target.name.value;
        let Some(choice) = self.choice(device, name) else {
            return Ok((configured, None));
        };
        if choice.configured != configured.label() {
            tracing::info!(
                "{device}: the configuration names another plugin for target \"{name}\" now: {} serves",
                configured.label()
            );
            if let Err(error) = choice::forget(&*self.state, device, name) {
                tracing::warn!("{device}: the former choice for target \"{name}\" stays: {error}");
            }
            return Ok((configured, None));
        }
        let former = choice.former.as_ref().and_then(|build| {
            let kept = self.kept(target, build, &configured);
            let lost = |error: &Failed| tracing::warn!("{device}: no way back: {error}");
            kept.inspect_err(lost).ok()
        });
        match self.kept(target, &choice.serves, &configured) {
            Ok(plugin) => {
                let on_trial = choice.on_trial;
                let former = former.map(|plugin| FormerPlugin { plugin, on_trial });
                Ok((plugin, former))
            }
            Err(error) => {
                let instead = former.unwrap_or(configured);
                tracing::error!(
                    "{device}: {} serves target \"{name}\": {error}",
                    instead.label()
                );
                Ok((instead, None))
            }
        }
    }

    /// Load a file for a swap, and keep its bytes. It takes as long as compiling does, off the tasks that serve others.
    ///
    /// # Errors
    /// [`Exit::Refused`] for one that may not be loaded or is none, with the reason; [`Exit::Nothing`] for a target that is
    /// not there; [`Exit::Failed`] for a medium.
    pub(crate) async fn take_in(
        self: Arc<Self>,
        device: &str,
        target: &str,
        path: &Path,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        let (device, target) = (device.to_owned(), target.to_owned());
        let path = path.to_owned();
        let taken = spawn_blocking(move || self.take_in_now(&device, &target, &path)).await;
        taken.unwrap_or_else(|e| {
            let text = format!("loading it broke: {e}");
            Err(Failed::new(Exit::Failed, text))
        })
    }

    fn take_in_now(
        &self,
        device: &str,
        target: &str,
        path: &Path,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        let targets = self.config.device(Some(device)).map(|d| &d.targets[..]);
        let named = |t: &&Target| t.name.value == target;
        let Some(target) = targets.unwrap_or_default().iter().find(named) else {
            let text = format!("device \"{device}\" has no target \"{target}\"");
            return Err(Failed::new(Exit::Nothing, text));
        };
        let bytes = admission::read(&self.config, path)?;
        let label = clean(&path.display().to_string(), LABEL_MAX_BYTES);
        let plugin = self.load(target, &label, &bytes).map_err(|error| {
            let text = format!("{} is refused: {}", path.display(), chain(&error));
            Failed::new(Exit::Refused, text)
        })?;
        let name = kept_name(plugin.digest());
        let kept = self.state.store(&name, &bytes);
        kept.map_err(|e| Failed::chain(Exit::Failed, "keeping the plugin", &e))?;
        Ok(plugin)
    }

    /// Load a build for a target, in the carrier and with the grants that the configuration has for it.
    fn load(
        &self,
        target: &Target,
        label: &str,
        bytes: &[u8],
    ) -> Result<Arc<dyn PluginFactory>, GatewayError> {
        let label = label.to_owned();
        match &target.carrier {
            Carrier::Component => match ComponentPlugin::load(&self.engine, &label, bytes) {
                Ok(plugin) => Ok(plugin),
                Err(source) => Err(GatewayError::Plugin { label, source }),
            },
            Carrier::Native(native) => {
                let isolation = native::isolation(&self.config, native).map_err(|source| {
                    GatewayError::Grant {
                        target: target.name.value.clone(),
                        source,
                    }
                })?;
                match NativePlugin::load(&label, bytes, isolation) {
                    Ok(plugin) => Ok(plugin),
                    Err(reason) => Err(GatewayError::Library { label, reason }),
                }
            }
        }
    }

    /// A build by its names.
    fn kept(
        &self,
        target: &Target,
        build: &PluginBuild,
        configured: &Arc<dyn PluginFactory>,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        if *build == PluginBuild::of(&**configured) {
            return Ok(Arc::clone(configured));
        }
        let name = kept_name(&build.sha256);
        let failed = |e: std::io::Error| Failed::chain(Exit::Failed, &name, &e);
        match self.state.load(&name).map_err(failed)? {
            Some(bytes) => {
                admission::allow(&self.config, Path::new(&build.label))?;
                // Before any of it is compiled or run.
                let mut hasher = Hasher::default();
                hasher.update(&bytes);
                if *hasher.finish().sha256() != build.sha256 {
                    let text = format!("{name} is damaged: its digest is another one");
                    return Err(Failed::new(Exit::Failed, text));
                }
                self.load(target, &build.label, &bytes)
                    .map_err(Failed::from)
            }
            // Of the same name in another otad, or a file that was changed since.
            None if build.label == configured.label() => Ok(Arc::clone(configured)),
            None => Err(Failed::new(
                Exit::Failed,
                format!("{} ({name}) is not there any more", build.label),
            )),
        }
    }

    fn choice(&self, device: &str, target: &str) -> Option<PluginChoice> {
        // What cannot be read is told where the target is set up.
        choice::load(&*self.state, device, target).unwrap_or_default()
    }

    /// Let go what no target names.
    fn sweep(&self) {
        if let Err(error) = self.try_sweep() {
            tracing::warn!("builds that no target has any more stay: {error}");
        }
    }

    /// Nothing goes if one choice cannot be read: that one may name it.
    fn try_sweep(&self) -> std::io::Result<()> {
        let mut named = BTreeSet::new();
        for device in &self.config.devices {
            for target in &device.targets {
                let choice = choice::load(&*self.state, &device.name.value, &target.name.value)?;
                let builds = choice.map(|choice| [Some(choice.serves), choice.former]);
                let builds = builds.into_iter().flatten().flatten();
                named.extend(builds.map(|build| kept_name(&build.sha256)));
            }
        }
        let names = self.state.list(KEPT)?;
        let mut unnamed = names.iter().filter(|name| !named.contains(*name));
        unnamed.try_for_each(|name| self.state.remove(name))
    }

    /// A plugin of the configuration, loaded once for all targets that have it in the same carrier with the same grants.
    fn configured(&self, target: &Target) -> Result<Arc<dyn PluginFactory>, GatewayError> {
        let label = match &target.plugin {
            Configured::Builtin(name) => format!("builtin:{name}"),
            Configured::File(path) => path.value.display().to_string(),
        };
        let key = format!("{label} {:?}", target.carrier);
        let mut plugins = self
            .configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = plugins.get(&key) {
            return Ok(Arc::clone(plugin));
        }
        let read;
        let bytes = match (&target.plugin, &target.carrier) {
            // `sections.rs` has checked the name against the same list.
            (Configured::Builtin("serial-mcu"), Carrier::Component) => guest_artifacts::SERIAL_MCU,
            (Configured::Builtin("serial-mcu"), Carrier::Native(_)) => {
                guest_artifacts::SERIAL_MCU_NATIVE
            }
            (Configured::Builtin(_), Carrier::Component) => guest_artifacts::FLASH_FILE,
            (Configured::Builtin(_), Carrier::Native(_)) => guest_artifacts::FLASH_FILE_NATIVE,
            (Configured::File(path), _) => {
                read =
                    admission::read(&self.config, &path.value).map_err(GatewayError::PluginFile)?;
                &read
            }
        };
        let plugin = self.load(target, &label, bytes)?;
        plugins.insert(key, Arc::clone(&plugin));
        Ok(plugin)
    }
}

fn kept_name(sha256: &[u8; 32]) -> String {
    format!("{KEPT}{}", hex(sha256))
}
