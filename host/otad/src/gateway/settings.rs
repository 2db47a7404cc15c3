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
use crate::code::Code;
use crate::config::{Carrier, Config, PluginChoice, Target};
use crate::exit::chain;

/// Asks plugins; each build is loaded once.
pub(crate) struct Asker<'a> {
    config: &'a Config,
    engine: Option<Arc<Engine>>,
    loaded: BTreeMap<String, Result<Arc<dyn PluginFactory>, String>>,
}

impl<'a> Asker<'a> {
    /// Nobody is asked yet.
    pub(crate) fn new(config: &'a Config) -> Self {
        Self {
            config,
            engine: None,
            loaded: BTreeMap::new(),
        }
    }

    /// Whether a target's plugin takes its settings; `code` is what the gate has let in for one from a file.
    ///
    /// # Errors
    /// In words: what the plugin says, or why it cannot be loaded.
    pub(crate) fn ask(&mut self, target: &Target, code: Option<&Code>) -> Result<(), String> {
        let label = label(target);
        let plugin = match self.loaded.get(&label) {
            Some(loaded) => loaded.clone(),
            None => {
                let loaded = self.load(target, &label, code);
                self.loaded.insert(label, loaded.clone());
                loaded
            }
        }?;
        let clock = Arc::new(SystemClock::new());
        takes_settings(&*plugin, &plugin_settings(target), clock).map_err(|e| e.to_string())
    }

    fn load(
        &mut self,
        target: &Target,
        label: &str,
        code: Option<&Code>,
    ) -> Result<Arc<dyn PluginFactory>, String> {
        let engine = self.engine()?;
        let (bytes, budget) = match (code, &target.plugin) {
            (Some(code), _) => (&code.bytes[..], code.budget()),
            // Either carrier of it is built of the same source.
            (None, PluginChoice::Builtin(name)) => {
                (builtin(name, &Carrier::Component), Budget::PLUGIN)
            }
            (None, PluginChoice::File(_)) => return Err("it is not let in".to_owned()),
        };
        let loaded = ComponentPlugin::load_within(&engine, label, bytes, &budget);
        loaded
            .map(|plugin| plugin as _)
            .map_err(|refusal| refusal.to_string())
    }

    /// With the cache of compiled code if that is there and this user's: one that a service is to use is not made here.
    fn engine(&mut self) -> Result<Arc<Engine>, String> {
        if let Some(engine) = &self.engine {
            return Ok(Arc::clone(engine));
        }
        let options = |cache_dir| EngineOptions {
            cache_dir,
            ..EngineOptions::default()
        };
        let cache = Some(self.config.daemon.cache_dir.clone()).filter(|dir| dir.is_dir());
        let engine = Engine::new(&options(cache))
            .or_else(|_| Engine::new(&options(None)))
            .map_err(|e| chain(&e))?;
        Ok(Arc::clone(self.engine.insert(engine)))
    }
}
