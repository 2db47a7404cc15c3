//! `otad config`: check a configuration against itself and the machine; list the keys that can be set.

use super::args::ConfigVerb;
use super::{init, load};
use crate::config::{ConfigError, check, check_code, check_plugins, check_writable, keys, words};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) fn follow(verb: &ConfigVerb) -> Verb {
    match verb {
        ConfigVerb::Check { config } => {
            let file = &config.config;
            let config = load(config)?;
            let (errors, warnings): (Vec<_>, Vec<_>) = check(&config)
                .into_iter()
                .chain(check_code(&config))
                .chain(check_writable(&config))
                .chain(check_plugins(&config, None))
                .partition(|f| f.is_error);
            // Read once more for the excerpts; what has vanished since has none.
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let render = |findings: Vec<crate::config::Finding>| {
                let diagnostics = findings.into_iter().map(|f| f.diagnostic).collect();
                ConfigError::new(file, &text, diagnostics).to_string()
            };
            if !warnings.is_empty() {
                say(&format!("warnings:\n{}", render(warnings)));
            }
            if !errors.is_empty() {
                return Err(Failed::new(Exit::Config, render(errors)));
            }
            let targets: usize = config.devices.iter().map(|d| d.targets.len()).sum();
            say(&format!(
                "{}: good, {} device(s) with {targets} target(s)",
                file.display(),
                config.devices.len()
            ));
            Ok(Exit::Done)
        }
        ConfigVerb::Init(args) => init::follow(args),
        ConfigVerb::Keys => {
            words::SECTIONS.iter().copied().for_each(list);
            Ok(Exit::Done)
        }
    }
}

/// The keys of a table: what is no number first.
fn list(section: &str) {
    for w in words::WORDS.iter().filter(|w| w.section == section) {
        say(&format!("[{section}] {}", w.key));
        let default = w.default.map(|text| format!(", default {text}"));
        say(&format!("    {}{}", w.form, default.unwrap_or_default()));
        say(&format!("    {}", w.about));
    }
    for n in keys::NUMBERS.iter().filter(|n| n.section == section) {
        say(&format!("[{section}] {}", n.key));
        let default = n.default.map(|n| format!(", default {n}"));
        let default = default.unwrap_or_default();
        say(&format!("    {}; {} to {}{default}", n.unit, n.min, n.max));
        say(&format!("    {}", n.about));
    }
}
