//! What a target's plugin says of its settings, asked before there is a job: by `otad config check`, and before a reload.
//!
//! Only the plugin knows its settings, so the plugin is asked: an instance is opened with them and thrown away, in the
//! sandbox, with nothing behind what it is lent ([`takes_settings`]). Not here: a shared library from a file, which runs code
//! of its own as soon as it is loaded, beside the one that serves; and a start, which asks every plugin anyway, and goes on
//! without a target whose plugin refuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use host_runtime::engine::{Budget, Engine, EngineOptions};
use host_runtime::plugin::{ComponentPlugin, PluginFactory};
use host_runtime::ports::clock::SystemClock;
use host_runtime::target::takes_settings;

use super::plugins::{builtin, label};
use super::target::plugin_settings;
use crate::code::{Code, Entry, Gate, Kind, Place};
use crate::config::{Carrier, Config, PluginChoice, Target};
use crate::exit::chain;

/// Why a plugin would not serve a target.
#[derive(Clone, Debug)]
pub(crate) enum Denial {
    /// The gate does not let it in.
    Gate,
    /// It cannot be loaded: something stands in for it.
    Load(String),
    /// It does not take the target's settings.
    Settings(String),
}

/// Asks plugins; each build is loaded once, and asked once about the same settings.
pub(crate) struct Asker<'a> {
    config: &'a Config,
    gate: Gate,
    engine: Option<Arc<Engine>>,
    /// By label.
    builds: BTreeMap<String, Build>,
}

/// A build that is configured.
struct Build {
    /// None = it is part of otad.
    code: Option<Code>,
    loaded: Option<Result<Arc<dyn PluginFactory>, Denial>>,
    /// By settings.
    answers: BTreeMap<String, Result<(), Denial>>,
}

impl<'a> Asker<'a> {
    /// Nobody is asked yet.
    pub(crate) fn new(config: &'a Config) -> Self {
        Self {
            config,
            gate: Gate::new(config, Arc::new(SystemClock::new())),
            engine: None,
            builds: BTreeMap::new(),
        }
    }

    /// Whether a target's plugin takes its settings.
    ///
    /// # Errors
    /// [`Denial`].
    pub(crate) fn ask(&mut self, place: &Place, target: &Target) -> Result<(), Denial> {
        let label = label(target);
        if !self.builds.contains_key(&label) {
            let build = self.read(target)?;
            self.builds.insert(label.clone(), build);
        }
        let Some(build) = self.builds.get_mut(&label) else {
            return Err(Denial::Gate);
        };
        // Before any of it is compiled or run.
        if let Some(code) = &build.code {
            let let_in = self.gate.check(code.signed.as_ref(), place, Entry::New);
            let_in.map_err(|_| Denial::Gate)?;
        }
        let (config, engine) = (self.config, &mut self.engine);
        let load = || load(config, engine, target, &label, build.code.as_ref());
        let plugin = build.loaded.get_or_insert_with(load).clone()?;
        let settings = plugin_settings(target);
        let answer = || {
            let clock = Arc::new(SystemClock::new());
            takes_settings(&*plugin, &settings, clock)
                .map_err(|failure| Denial::Settings(failure.to_string()))
        };
        let key = format!("{settings:?}");
        build.answers.entry(key).or_insert_with(answer).clone()
    }

    fn read(&self, target: &Target) -> Result<Build, Denial> {
        let code = match &target.plugin {
            PluginChoice::Builtin(_) => None,
            PluginChoice::File(file) => {
                let code = self.gate.read(Kind::Plugin, &file.value);
                Some(code.map_err(|_| Denial::Gate)?)
            }
        };
        Ok(Build {
            code,
            loaded: None,
            answers: BTreeMap::new(),
        })
    }
}

fn load(
    config: &Config,
    engine: &mut Option<Arc<Engine>>,
    target: &Target,
    label: &str,
    code: Option<&Code>,
) -> Result<Arc<dyn PluginFactory>, Denial> {
    let (bytes, budget) = match (code, &target.plugin) {
        (Some(code), _) => (&code.bytes[..], code.budget()),
        // Either carrier of it is built of the same source.
        (None, PluginChoice::Builtin(name)) => (builtin(name, &Carrier::Component), Budget::PLUGIN),
        (None, PluginChoice::File(_)) => return Err(Denial::Gate),
    };
    let engine = match engine {
        Some(engine) => engine,
        None => engine.insert(self::engine(config).map_err(Denial::Load)?),
    };
    let loaded = ComponentPlugin::load_within(engine, label, bytes, &budget);
    loaded
        .map(|plugin| plugin as _)
        .map_err(|refusal| Denial::Load(chain(&refusal)))
}

/// With the cache of compiled code if that is there and this user's: one that a service is to use is not made here.
fn engine(config: &Config) -> Result<Arc<Engine>, String> {
    let options = |cache_dir| EngineOptions {
        cache_dir,
        ..EngineOptions::default()
    };
    let cache = Some(config.daemon.cache_dir.clone()).filter(|dir| dir.is_dir());
    Engine::new(&options(cache))
        .or_else(|_| Engine::new(&options(None)))
        .map_err(|e| chain(&e))
}
