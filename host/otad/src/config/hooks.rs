//! `[hooks]`, for all devices, and `[device.hooks]`, which goes before it: programs of the application that decide and
//! are told (`crate::hooks`).
//!
//! A hook that decides needs an agent that asks. So its presence changes a default: `on_job` to `ask`, `activation` to
//! `deferred`, `self_test` to `external`. What the operator wrote stands, and then the hook is not asked.

use host_runtime::types::Setting;

use super::keys;
use super::model::{Hook, Hooks, Program, Target};
use super::reader::Reader;

/// Added to the deadline of a `custom_job` hook for the time in which the agent waits for its answer, in milliseconds: the
/// program has to be started, and hooks of other devices may be before it.
const ANSWER_MARGIN_MS: u64 = 10_000;

/// Most parsers of jobs that are no updates: one after the other they have to answer while the job service waits.
const PARSERS_MAX: usize = 8;

/// What stands in `hooks` below this table; each one that does not is taken from `general`.
pub(super) fn hooks(section: &Reader<'_>, general: Hooks) -> Hooks {
    let Some(section) = section.table("hooks") else {
        return general;
    };
    let hooks = Hooks {
        job: hook(&section, "job").or(general.job),
        activate: hook(&section, "activate").or(general.activate),
        start_test: hook(&section, "start_test").or(general.start_test),
        fail: hook(&section, "fail").or(general.fail),
        custom_job: match parsers(&section) {
            own if own.is_empty() => general.custom_job,
            own => own,
        },
    };
    section.finish();
    hooks
}

fn hook(section: &Reader<'_>, key: &'static str) -> Option<Hook> {
    Some(hook_of(section.table(key)?, key))
}

/// `custom_job`: one parser, or a list of them in the order in which they are asked.
fn parsers(section: &Reader<'_>) -> Vec<Hook> {
    const KEY: &str = "custom_job";
    let tables = section.table_or_tables(KEY);
    if tables.len() > PARSERS_MAX {
        section.sink.advise(
            &section.place(KEY),
            format!(
                "{} parsers in `{KEY}`, at most {PARSERS_MAX} are asked",
                tables.len()
            ),
            "let one program ask several others",
        );
    }
    tables
        .into_iter()
        .map(|table| hook_of(table, KEY))
        .collect()
}

fn hook_of(table: Reader<'_>, key: &'static str) -> Hook {
    let argv = table.texts("command");
    if !table.has("command") {
        table.missing("command", "[\"/usr/lib/otad/hook\", \"argument\"]");
    }
    let deadline_ms = table.number(&keys::DEADLINE_MS);
    if let Some(argv) = &argv {
        let program = argv.value.first().map_or("", String::as_str);
        if !program.starts_with('/') || argv.value.iter().any(|a| a.contains('\0')) {
            table.sink.advise(
                &argv.origin,
                format!(
                    "`command` of the hook `{key}` is \"{program}\", expected an absolute path"
                ),
                "a list of the program's whole path and its arguments; a hook is started in / and no shell reads it",
            );
        }
    }
    let hook = Hook {
        origin: table.place("command"),
        program: Program {
            argv: argv.map_or_else(Vec::new, |a| a.value),
            deadline_ms,
        },
    };
    table.finish();
    hook
}

/// Have the agent ask where there is a hook to answer, unless the operator has decided.
pub(super) fn imply(hooks: &Hooks, section: &Reader<'_>, agent: &mut Vec<Setting>) {
    let mut add = |key: &str, value: String| {
        if !agent.iter().any(|s| s.key == key) {
            agent.push(Setting {
                key: key.to_owned(),
                value,
            });
        }
    };
    if hooks.job.is_some() {
        add("on_job", "ask".to_owned());
    }
    let Some(first) = hooks.custom_job.first() else {
        return;
    };
    // Each of them may use up its time.
    let deadline_ms = hooks
        .custom_job
        .iter()
        .map(|hook| hook.program.deadline_ms)
        .sum::<u64>();
    let key = keys::CUSTOM_ANSWER_MS.key;
    add(
        key,
        (deadline_ms + ANSWER_MARGIN_MS)
            .min(keys::CUSTOM_ANSWER_MS.max)
            .to_string(),
    );
    let set = agent.iter().find(|s| s.key == key);
    let answer_ms = set.and_then(|s| s.value.parse().ok()).unwrap_or(u64::MAX);
    if answer_ms <= deadline_ms {
        section.sink.advise(
            &first.origin,
            format!("the hook `custom_job` has {deadline_ms} ms, `{key}` is {answer_ms}: its answer would come too late"),
            format!("set `deadline_ms` of the hook below {answer_ms}, or leave `{key}` out"),
        );
    }
}

/// Hooks that are never called, since the operator has decided what they would decide: key, and what is in the way.
pub(super) fn idle(
    hooks: &Hooks,
    agent: &[Setting],
    targets: &[Target],
) -> Vec<(&'static str, Hook, &'static str)> {
    let says = |settings: &[Setting], key: &str, value: &str| {
        settings.iter().any(|s| s.key == key && s.value == value)
    };
    let any = |key: &str, value: &str| targets.iter().any(|t| says(&t.agent_settings, key, value));
    let rows = [
        (
            "job",
            &hooks.job,
            says(agent, "on_job", "ask"),
            "`on_job` is not \"ask\"",
        ),
        (
            "activate",
            &hooks.activate,
            any("activation", "deferred"),
            "no target has `activation = \"deferred\"`",
        ),
        (
            "start_test",
            &hooks.start_test,
            any("self_test", "external"),
            "no target has `self_test = \"external\"`",
        ),
    ];
    rows.into_iter()
        .filter(|(.., is_asked, _)| !is_asked)
        .filter_map(|(key, hook, _, why)| Some((key, hook.clone()?, why)))
        .collect()
}
