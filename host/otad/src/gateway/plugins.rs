//! The plugin builds of a gateway: those of the configuration, and those that an operator has put in their place.
//!
//! What comes from a file is looked at by the gate (`code/`) each time, also when it was kept. Not here: what is kept of a build
//! (`kept.rs`), the swap itself (`host-runtime`), and what stands where a build is refused (`placed.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_crypto::hex;
use host_runtime::agent::clean;
use host_runtime::choice::{self, Build};
use host_runtime::engine::{Budget, Engine};
use host_runtime::plugin::native::NativePlugin;
use host_runtime::plugin::{ComponentPlugin, PluginFactory};
use host_runtime::ports::state_dir::StateDir;
use host_runtime::target::FormerPlugin;
use tokio::runtime::Handle;

use super::kept::{Hold, PLUGINS, Shelf};
use super::placed::{Placed, Refused};
use super::settings::{Questions, question};
use super::{GatewayError, LABEL_MAX_BYTES, aside, kept, native, verdict};
use crate::code::{Code, CodeError, Entry, Gate, Kind, Place, Signed, Source};
use crate::config::{
    BUILD, BUILTIN, BUILTIN_PLUGINS, Carrier, Config, Device, PluginChoice as Configured, Target,
};
use crate::exit::{Exit, Failed, chain};

/// See the module. It does not hold the lock of the state directory: who swaps may outlive a reload.
pub(crate) struct Plugins {
    config: Config,
    engine: Arc<Engine>,
    state: Arc<dyn StateDir>,
    gate: Arc<Gate>,
    shelf: Arc<Shelf>,
    /// Where builds are loaded.
    workers: Handle,
    /// Of the configuration, by label: loaded once for all targets that have it.
    configured: Mutex<BTreeMap<String, Loaded>>,
}

/// A build, and who vouches for it.
#[derive(Clone)]
struct Loaded {
    plugin: Arc<dyn PluginFactory>,
    signed: Option<Signed>,
}

impl Loaded {
    /// As the state directory knows it.
    fn names(&self) -> Build {
        let signed = self.signed.as_ref();
        Build {
            manifest: signed.map(Signed::manifest_sha256),
            ..Build::of_plugin(&*self.plugin)
        }
    }
}

impl Plugins {
    pub(super) fn new(
        config: &Config,
        engine: &Arc<Engine>,
        state: &Arc<dyn StateDir>,
        gate: &Arc<Gate>,
        shelf: Arc<Shelf>,
        workers: &Handle,
    ) -> Self {
        Self {
            shelf,
            workers: workers.clone(),
            config: config.clone(),
            engine: Arc::clone(engine),
            state: Arc::clone(state),
            gate: Arc::clone(gate),
            configured: Mutex::default(),
        }
    }

    /// The build that serves a target, and the one before it.
    ///
    /// # Errors
    /// A built-in build cannot be loaded. (One that was chosen, and one from a file, is stood in for while it is refused: by
    /// what fails every job, for a build that nobody wants there now may not know the target.)
    pub(super) fn serving(
        &self,
        device: &str,
        target: &Target,
    ) -> Result<(Arc<dyn PluginFactory>, Option<FormerPlugin>), GatewayError> {
        let name = &target.name.value;
        let place = Place::plugin(device, name);
        let serving = kept::serving(
            &*self.state,
            &choice::Place::plugin(device, name),
            &label(target),
            || self.configured_at(&place, target),
            |build| self.kept(&place, target, build),
            |build, _, error| Ok(Refused::new(target, build.clone(), &error.text)),
        )?;
        let on_trial = serving.on_trial;
        let former = serving.former;
        let former = former.map(|plugin| FormerPlugin { plugin, on_trial });
        Ok((serving.build, former))
    }

    /// What the configured builds of its targets are known to take.
    pub(crate) fn questions(&self) -> Questions {
        let configured = self.lock_configured();
        let of = |device: &Device, target: &Target| {
            let place = Place::plugin(&device.name.value, &target.name.value);
            let asked = match &target.plugin {
                Configured::Builtin(_) => question(target, "", None),
                Configured::File(_) => {
                    let Loaded { plugin, signed } = configured.get(&key(target))?;
                    question(target, &hex(plugin.digest()), signed.as_ref())
                }
            };
            Some((place, asked))
        };
        let devices = self.config.devices.iter();
        devices
            .flat_map(|device| device.targets.iter().filter_map(move |t| of(device, t)))
            .collect()
    }

    fn lock_configured(&self) -> MutexGuard<'_, BTreeMap<String, Loaded>> {
        self.configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is kept stays until this goes, when the swap has ended.
    pub(crate) async fn hold(&self) -> Hold {
        self.shelf.hold().await
    }

    /// Load a build for a swap, and keep its bytes, which stay for as long as they are held. It takes as long as compiling does,
    /// off the tasks that serve others.
    ///
    /// # Errors
    /// [`Exit::Refused`] for one that may not be loaded or is none, with the reason; [`Exit::Nothing`] for a target that is
    /// not there; [`Exit::Failed`] for a medium; [`Exit::Retry`] once the gateway has ended.
    pub(crate) async fn take_in(
        self: Arc<Self>,
        device: &str,
        target: &str,
        source: Source,
        entry: Entry,
        kept: &Hold,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        let (device, target) = (device.to_owned(), target.to_owned());
        let workers = self.workers.clone();
        let work = move || self.take_in_now(&device, &target, source, entry);
        aside(&workers, Some(kept), work).await
    }

    /// Whether a build that was taken in from there, and did not get to serve, still may: who may vouch for it, and what was
    /// accepted, can have changed. False: it may, but that is another one by now, or another manifest vouches for it.
    ///
    /// # Errors
    /// As [`Plugins::take_in`].
    pub(crate) async fn check_again(
        self: Arc<Self>,
        device: &str,
        target: &str,
        source: Source,
        entry: Entry,
        taken: &dyn PluginFactory,
    ) -> Result<bool, Failed> {
        let place = Place::plugin(device, target);
        let taken = (hex(taken.digest()), taken.manifest().map(str::to_owned));
        let workers = self.workers.clone();
        aside(&workers, None, move || {
            let code = self.let_in(&place, source, entry)?;
            let manifest = code.signed.as_ref().map(Signed::manifest_sha256);
            Ok((code.sha256, manifest) == taken)
        })
        .await
    }

    fn take_in_now(
        &self,
        device: &str,
        target: &str,
        source: Source,
        entry: Entry,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        let targets = self.config.device(Some(device)).map(|d| &d.targets[..]);
        let named = |t: &&Target| t.name.value == target;
        let Some(target) = targets.unwrap_or_default().iter().find(named) else {
            let text = format!("device \"{device}\" has no target \"{target}\"");
            return Err(Failed::new(Exit::Nothing, text));
        };
        if target.plugin == Configured::Builtin(BUILD) {
            let text = format!(
                "target \"{}\" is otad itself: builds come to it by jobs",
                target.name.value
            );
            return Err(Failed::new(Exit::Refused, text));
        }
        let place = Place::plugin(device, &target.name.value);
        if let Source::Builtin(name) = &source
            && let Some(target) = with_builtin(target, name)
        {
            let loaded = self.configured(&target)?;
            return Ok(self.placed(&place, loaded));
        }
        let words = source.to_string();
        let code = self.let_in(&place, source, entry)?;
        let label = clean(&words, LABEL_MAX_BYTES);
        let plugin = self.load_code(target, &label, &code).map_err(|error| {
            let text = format!("{words} is refused: {}", chain(&error));
            Failed::new(Exit::Refused, text)
        })?;
        self.shelf.keep(|state, folder| code.keep(state, folder))?;
        let signed = code.signed;
        Ok(self.placed(&place, Loaded { plugin, signed }))
    }

    /// What the gate says of a build for a place; nothing of it is loaded.
    fn let_in(&self, place: &Place, source: Source, entry: Entry) -> Result<Code, Failed> {
        let words = source.to_string();
        let let_in = self.gate.take(Kind::Plugin, source).and_then(|code| {
            self.gate.check(code.signed.as_ref(), place, entry)?;
            Ok(code)
        });
        let_in.map_err(|error| verdict(&words, &error))
    }

    /// The configured build for a target: it serves without a trial. A file, and what may be granted to it, can change under
    /// the configuration: where it is refused something stands in, so that the device and its other targets come up.
    fn configured_at(
        &self,
        place: &Place,
        target: &Target,
    ) -> Result<Arc<dyn PluginFactory>, GatewayError> {
        let label = label(target);
        let serves = self.configured(target).and_then(|loaded| {
            let signed = loaded.signed.as_ref();
            self.gate
                .check(signed, place, Entry::New)
                .and_then(|()| self.gate.accept(signed, place))
                .map_err(|source| not_let_in(&label, source))?;
            Ok(self.placed(place, loaded))
        });
        let reason = match (&serves, &target.plugin) {
            (Err(GatewayError::Code { source, .. }), _) => chain(source),
            (Err(GatewayError::Plugin { source, .. }), Configured::File(_)) => chain(source),
            (Err(GatewayError::Grant { source, .. }), Configured::File(_)) => chain(source),
            (Err(GatewayError::Library { reason, .. }), Configured::File(_)) => reason.clone(),
            _ => return serves,
        };
        let build = Build {
            label,
            sha256: [0; 32],
            manifest: None,
        };
        Ok(Refused::new(target, build, &reason))
    }

    fn placed(&self, place: &Place, loaded: Loaded) -> Arc<dyn PluginFactory> {
        match loaded.signed {
            Some(signed) => Arc::new(Placed {
                plugin: loaded.plugin,
                manifest: signed.manifest_sha256(),
                signed,
                gate: Arc::clone(&self.gate),
                place: place.clone(),
            }),
            None => loaded.plugin,
        }
    }

    /// Load what the gate has read.
    fn load_code(
        &self,
        target: &Target,
        label: &str,
        code: &Code,
    ) -> Result<Arc<dyn PluginFactory>, GatewayError> {
        let plugin = self.load(target, label, &code.bytes, Some(code))?;
        let who = plugin.description();
        code.admit(&who.name, &who.version, plugin.imports())
            .map_err(|source| not_let_in(label, source))?;
        let (name, version, whose) = (&who.name, &who.version, code.whose());
        tracing::info!("plugin {name} {version} ({label}, {whose})");
        Ok(plugin)
    }

    /// Load a build for a target, in the carrier and with the grants that the configuration has for it; `code` is what the
    /// gate has let in.
    fn load(
        &self,
        target: &Target,
        label: &str,
        bytes: &[u8],
        code: Option<&Code>,
    ) -> Result<Arc<dyn PluginFactory>, GatewayError> {
        match &target.carrier {
            Carrier::Component => {
                let budget = code.map_or(Budget::PLUGIN, Code::budget);
                match ComponentPlugin::load_within(&self.engine, label, bytes, &budget) {
                    Ok(plugin) => Ok(plugin),
                    Err(source) => Err(GatewayError::Plugin {
                        label: label.to_owned(),
                        source,
                    }),
                }
            }
            Carrier::Native(native) => {
                let isolation = native::isolation(&self.config, native).map_err(|source| {
                    GatewayError::Grant {
                        target: target.name.value.clone(),
                        source,
                    }
                })?;
                let isolation = match code {
                    Some(code) => code.confine(isolation).map_err(|e| not_let_in(label, e))?,
                    None => isolation,
                };
                match NativePlugin::load(label, bytes, isolation) {
                    Ok(plugin) => Ok(plugin),
                    Err(reason) => Err(GatewayError::Library {
                        label: label.to_owned(),
                        reason,
                    }),
                }
            }
        }
    }

    /// A build by its names. It was let in when it came, so neither its age counts nor that a certificate has ended since.
    fn kept(
        &self,
        place: &Place,
        target: &Target,
        build: &Build,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        let is_configured = build.label == label(target);
        let named = match is_configured {
            true => Some(target.clone()),
            false => build
                .label
                .strip_prefix(BUILTIN)
                .and_then(|name| with_builtin(target, name)),
        };
        let loaded = named.as_ref().and_then(|named| self.configured(named).ok());
        if let Some(loaded) = loaded.filter(|loaded| loaded.names() == *build) {
            return self.let_in_again(place, loaded);
        }
        let dir = &self.config.daemon.state_dir.value;
        match kept::read(&self.gate, dir, choice::Kind::Plugin, build)? {
            Some(code) => {
                let plugin = self.load_code(target, &build.label, &code)?;
                let signed = code.signed;
                self.let_in_again(place, Loaded { plugin, signed })
            }
            // Of the same name in another otad, or a file that was changed since.
            None => match named {
                Some(named) => Ok(self.configured_at(place, &named)?),
                None => {
                    let text = kept::gone(&kept::name_of(PLUGINS, build));
                    Err(Failed::new(Exit::Failed, text))
                }
            },
        }
    }

    fn let_in_again(
        &self,
        place: &Place,
        loaded: Loaded,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        self.gate
            .check(loaded.signed.as_ref(), place, Entry::Before)
            .map_err(|error| kept::refused(&error))?;
        Ok(self.placed(place, loaded))
    }

    /// A plugin of the configuration, loaded once for all targets that have it in the same carrier with the same grants.
    fn configured(&self, target: &Target) -> Result<Loaded, GatewayError> {
        let (label, key) = (label(target), key(target));
        let mut plugins = self.lock_configured();
        if let Some(loaded) = plugins.get(&key) {
            return Ok(loaded.clone());
        }
        let loaded = match &target.plugin {
            Configured::Builtin(name) => {
                let bytes = native::there(builtin(name, &target.carrier));
                let bytes = bytes.map_err(|reason| GatewayError::Library {
                    label: label.clone(),
                    reason,
                })?;
                Loaded {
                    plugin: self.load(target, &label, bytes, None)?,
                    signed: None,
                }
            }
            Configured::File(path) => {
                let code = self.gate.read(Kind::Plugin, &path.value);
                let code = code.map_err(|source| not_let_in(&label, source))?;
                Loaded {
                    plugin: self.load_code(target, &label, &code)?,
                    signed: code.signed,
                }
            }
        };
        plugins.insert(key, loaded.clone());
        Ok(loaded)
    }
}

/// The target, with the part of otad that has this name for its plugin.
fn with_builtin(target: &Target, name: &str) -> Option<Target> {
    let known = BUILTIN_PLUGINS.iter().find(|known| **known == name);
    let name = known.filter(|known| **known != BUILD)?;
    Some(Target {
        plugin: Configured::Builtin(name),
        ..target.clone()
    })
}

/// Targets with the same one share a build.
fn key(target: &Target) -> String {
    format!("{} {:?}", label(target), target.carrier)
}

/// What the configuration calls a target's plugin.
pub(crate) fn label(target: &Target) -> String {
    match &target.plugin {
        Configured::Builtin(name) => format!("{BUILTIN}{name}"),
        Configured::File(path) => path.value.display().to_string(),
    }
}

/// A plugin that is part of otad; `sections.rs` has checked the name against the same list. Of a native form that this otad
/// was built without there are no bytes.
pub(super) fn builtin(name: &str, carrier: &Carrier) -> &'static [u8] {
    match (name, carrier) {
        ("serial-mcu", Carrier::Component) => guest_artifacts::SERIAL_MCU,
        ("serial-mcu", Carrier::Native(_)) => guest_artifacts::SERIAL_MCU_NATIVE,
        (_, Carrier::Component) => guest_artifacts::FLASH_FILE,
        (_, Carrier::Native(_)) => guest_artifacts::FLASH_FILE_NATIVE,
    }
}

fn not_let_in(label: &str, source: CodeError) -> GatewayError {
    GatewayError::Code {
        kind: Kind::Plugin,
        label: label.to_owned(),
        source,
    }
}
