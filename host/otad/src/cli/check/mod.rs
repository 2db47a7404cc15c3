//! `otad check`: conformance of a component, for people, for a build server and for programs.

mod library;
mod report;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use host_runtime::engine::{AGENT_WORLD, Time};
use host_runtime::ports::clock::SystemClock;
use host_runtime::types::Setting;
use host_sandbox::check::script::Case;
use host_sandbox::check::{Options, Subject, agent_cases, plugin_cases, run};
use serde_json::json;

use super::args::{Builtin, CheckArgs, GuestArg};
use super::guest::{Guest, compile_into};
use crate::code::Form;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;
use report::Screen;

pub(super) fn follow(args: &CheckArgs) -> Verb {
    if let Some(dir) = &args.compile_into {
        let time = match (args.virtual_time, args.hasty_time) {
            (true, _) => Time::Virtual,
            (_, true) => Time::Hasty,
            _ => Time::Real,
        };
        compile_into(dir, &args.guest.label(), args.compile_seconds, time)?;
        return Ok(Exit::Done);
    }
    let broken = |e| Failed::chain(Exit::Failed, "a case file of this build is damaged", &e);
    if args.list {
        let cases = cases_of(&args.guest).map_err(|e| e.unwrap_or_else(broken))?;
        return list(&chosen(cases, &args.only), args.json);
    }
    let settings = settings(&args.setting)?;
    let label = args.guest.label();
    let bytes = args.guest.bytes()?;
    // Cases live in virtual time: on a slow machine they must not end otherwise.
    let guest = args
        .guest
        .load_bytes(&bytes, args.compile_seconds, Time::Virtual)?;
    let title = guest.title();
    let subject = match guest {
        Guest::Agent(build) => Subject::Agent(build),
        Guest::Plugin(_) if Form::of(&bytes) == Some(Form::Native) => {
            let label = label.clone();
            let load = Arc::new(move || library::load(&label, &bytes));
            Subject::PluginAnew { load, settings }
        }
        Guest::Plugin(factory) => Subject::Plugin { factory, settings },
    };
    let cases = chosen(subject.cases().map_err(broken)?, &args.only);
    if cases.is_empty() {
        return Err(nothing(&args.only));
    }
    // Before the cases, so that none is played for nothing.
    let junit = args.junit.as_ref().map(|path| open(path)).transpose()?;
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let options = Options {
        jobs: args.jobs.unwrap_or(cores),
        exact: args.exact || args.guest.builtin.is_some_and(Builtin::is_exact),
    };
    let screen = Screen::new(args.verbose, cases.len(), args.json);
    screen.head(&label, &title);
    let report = run(
        &subject,
        &cases,
        options,
        &SystemClock::default(),
        |ended| {
            screen.case(ended);
        },
    );
    if args.json {
        say(&report::json(&label, &title, &report).to_string());
    } else {
        screen.summary(&report);
    }
    if let (Some(mut file), Some(path)) = (junit, &args.junit) {
        file.write_all(report::junit(&label, &report).as_bytes())
            .map_err(|e| Failed::chain(Exit::Failed, &format!("writing {}", path.display()), &e))?;
    }
    Ok(if report.is_fit() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// A file for a report.
fn open(path: &Path) -> Result<File, Failed> {
    File::create(path)
        .map_err(|e| Failed::chain(Exit::Usage, &format!("--junit {}", path.display()), &e))
}

/// The cases that a component's world has.
fn cases_of(
    guest: &GuestArg,
) -> Result<Vec<Case>, Result<Failed, host_sandbox::check::script::ScriptError>> {
    let world = guest.world().map_err(Ok)?;
    if *world == AGENT_WORLD {
        agent_cases().map_err(Err)
    } else {
        plugin_cases().map_err(Err)
    }
}

/// `KEY=VALUE`, as often as it was given.
pub(super) fn settings(pairs: &[String]) -> Result<Vec<Setting>, Failed> {
    let read = |pair: &String| {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Failed::new(Exit::Usage, format!("--setting {pair}: expected KEY=VALUE"))
        })?;
        Ok(Setting {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    };
    pairs.iter().map(read).collect()
}

fn chosen(cases: Vec<Case>, only: &[String]) -> Vec<Case> {
    let is_chosen =
        |case: &Case| only.is_empty() || only.iter().any(|text| case.name.contains(text.as_str()));
    cases.into_iter().filter(is_chosen).collect()
}

fn nothing(only: &[String]) -> Failed {
    Failed::new(
        Exit::Nothing,
        format!(
            "no case has {} in its name; `--list` shows all",
            only.join(" or ")
        ),
    )
}

fn list(cases: &[Case], json: bool) -> Verb {
    if cases.is_empty() {
        return Ok(Exit::Nothing);
    }
    if json {
        let cases: Vec<_> = cases
            .iter()
            .map(
                |case| json!({"name": case.name, "purpose": case.purpose(), "source": case.source}),
            )
            .collect();
        say(&json!(cases).to_string());
        return Ok(Exit::Done);
    }
    let bold = std::io::stdout().is_terminal();
    for case in cases {
        let name = if bold {
            format!("\x1b[1m{}\x1b[0m", case.name)
        } else {
            case.name.clone()
        };
        say(&format!(
            "{name}\n    {}\n    {}",
            case.purpose(),
            case.source
        ));
    }
    Ok(Exit::Done)
}
