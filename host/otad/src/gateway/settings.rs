//! Whether a plugin fits its target and takes its settings, asked before there is a job: by `otad config check`, and before a
//! reload.
//!
//! Only the plugin knows its settings, so the plugin is asked: an instance is opened with them and thrown away, in the
//! sandbox, with nothing behind what it is lent ([`takes_settings`]). Not here: a shared library from a file, which runs code
//! of its own as soon as it is loaded, beside the one that serves; and a start, which asks every plugin anyway, and goes on
//! without a target whose plugin refuses. Nor what the gate does not let in: `config::check_code` says that.

use std::collections::BTreeMap;
use std::sync::Arc;

use host_runtime::engine::{Budget, Engine, EngineOptions};
use host_runtime::plugin::{ComponentPlugin, PluginError, PluginFactory};
use host_runtime::ports::clock::SystemClock;
use host_runtime::target::{check_plugin, takes_settings};

use super::plugins::{builtin, label};
use super::target::{has, plugin_settings};
use crate::code::{Code, Entry, Gate, Kind, Place, Signed};
use crate::config::{Carrier, Config, PluginChoice, Target};
use crate::exit::chain;

/// Why a plugin would not serve a target.
#[derive(Clone, Debug)]
pub(crate) enum Denial {
    /// It cannot be loaded, or is not what was signed: none of the configuration's fault, and a start goes on.
    Load(String),
    /// It breaks over the target's settings, as far as can be seen.
    Breaks(String),
    /// It needs what the target does not have: its whole device would not run.
    Fit(String),
    /// It does not take the target's settings.
    Settings(String),
}

/// What was asked about targets, or need not be asked any more.
pub(crate) type Questions = BTreeMap<Place, String>;

/// All that the answer about a target hangs on. `sha256` is that of the plugin's file, in hex; empty where it has none. Who
/// vouches for it says what it may be lent and how much it may use.
pub(crate) fn question(target: &Target, sha256: &str, signed: Option<&Signed>) -> String {
    let has = LENT.map(|interface| has(target, interface));
    let (label, settings) = (label(target), plugin_settings(target));
    let manifest = signed.map(Signed::manifest_sha256);
    format!("{label} {sha256} {manifest:?} {settings:?} {has:?}")
}

/// The interfaces that not every target has.
const LENT: [&str; 3] = ["block-device", "staged-image", "serial-line"];

/// Asks plugins; each build is read and loaded once, and asked once about the same.
pub(crate) struct Asker<'a> {
    config: &'a Config,
    gate: Gate,
    known: &'a Questions,
    engine: Option<Arc<Engine>>,
    /// By label; None = the gate refuses it.
    builds: BTreeMap<String, Option<Build>>,
    /// By question.
    answers: BTreeMap<String, Result<(), Denial>>,
}

/// A build that is configured.
struct Build {
    /// None = it is part of otad.
    code: Option<Code>,
    loaded: Option<Result<Arc<dyn PluginFactory>, Denial>>,
}

impl<'a> Asker<'a> {
    /// Nobody is asked yet; what is `known` is good.
    pub(crate) fn new(config: &'a Config, gate: Gate, known: &'a Questions) -> Self {
        Self {
            config,
            gate,
            known,
            engine: None,
            builds: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Whether a target's plugin fits it and takes its settings; nothing is said of one that the gate does not let in.
    ///
    /// # Errors
    /// [`Denial`].
    pub(crate) fn ask(&mut self, place: &Place, target: &Target) -> Result<(), Denial> {
        let label = label(target);
        let gate = &self.gate;
        let build = self.builds.entry(label.clone());
        let Some(build) = build.or_insert_with(|| read(gate, target)) else {
            return Ok(());
        };
        let code = build.code.as_ref();
        let sha256 = code.map_or("", |code| &code.sha256);
        let question = question(target, sha256, code.and_then(|code| code.signed.as_ref()));
        if self.known.get(place) == Some(&question) {
            return Ok(());
        }
        // Before any of it is compiled or run.
        if let Some(code) = &build.code
            && gate.check(code.signed.as_ref(), place, Entry::New).is_err()
        {
            return Ok(());
        }
        let (config, engine) = (self.config, &mut self.engine);
        let load = || load(config, engine, target, &label, build.code.as_ref());
        let plugin = build.loaded.get_or_insert_with(load).clone()?;
        let answer = || answer(&*plugin, target);
        let answers = self.answers.entry(question);
        answers.or_insert_with(answer).clone()
    }
}

fn read(gate: &Gate, target: &Target) -> Option<Build> {
    let code = match &target.plugin {
        PluginChoice::Builtin(_) => None,
        PluginChoice::File(file) => Some(gate.read(Kind::Plugin, &file.value).ok()?),
    };
    Some(Build { code, loaded: None })
}

fn answer(plugin: &dyn PluginFactory, target: &Target) -> Result<(), Denial> {
    check_plugin(plugin, |interface| has(target, interface)).map_err(Denial::Fit)?;
    let clock = Arc::new(SystemClock::new());
    takes_settings(plugin, &plugin_settings(target), clock).map_err(|error| match error {
        PluginError::Failed(failure) => Denial::Settings(failure.to_string()),
        PluginError::Broken(reason) => Denial::Breaks(reason),
    })
}

fn load(
    config: &Config,
    engine: &mut Option<Arc<Engine>>,
    target: &Target,
    label: &str,
    code: Option<&Code>,
) -> Result<Arc<dyn PluginFactory>, Denial> {
    let bytes = match &target.plugin {
        // Either carrier of it is built of the same source.
        PluginChoice::Builtin(name) => builtin(name, &Carrier::Component),
        PluginChoice::File(_) => code.map_or(&[][..], |code| &code.bytes),
    };
    let budget = code.map_or(Budget::PLUGIN, Code::budget);
    let engine = match engine {
        Some(engine) => engine,
        None => engine.insert(self::engine(config).map_err(Denial::Load)?),
    };
    let plugin = ComponentPlugin::load_within(engine, label, bytes, &budget)
        .map_err(|refusal| Denial::Load(chain(&refusal)))?;
    if let Some(code) = code {
        let who = plugin.description();
        code.admit(&who.name, &who.version, plugin.imports())
            .map_err(|e| Denial::Load(chain(&e)))?;
    }
    Ok(plugin)
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
