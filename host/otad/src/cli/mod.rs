//! The command line: parse, dispatch, print the error once, exit with a documented code.

mod agent;
pub mod args;
mod check;
mod cloud;
mod cloud_client;
mod config;
mod control;
mod demo;
mod explain;
mod group;
mod guest;
mod history;
mod image;
mod init;
mod launch;
mod mcu;
mod mcu_sim;
mod plugin;
mod problems;
mod project;
mod replay;
mod run;
mod sandbox;
mod sign;
mod status;
mod target;
mod thing;
mod update;
mod why;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use host_runtime::ports::commands;

use crate::config::{self as configuration, Config, Device, Target};
use crate::exit::{Exit, Failed, Verb as Ended};
use crate::gateway::native;
use crate::progress;
use args::{Cli, ConfigArg, Verb};

/// Run `otad` with these arguments (the first is the program's name).
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    let name = arguments.next();
    if arguments.next_if(|word| word == native::TIE).is_some() {
        return ExitCode::from(commands::be_starter(arguments));
    }
    let cli = match Cli::try_parse_from(name.into_iter().chain(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // Printing to a closed pipe fails; there is nobody left to tell.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    let exit = follow(cli.verb).unwrap_or_else(|failed| {
        complain(&failed);
        failed.exit
    });
    let Some(error) = progress::lost() else {
        return exit.into();
    };
    complain(&Failed::chain(
        Exit::Failed,
        "not all of the answer could be written to standard output",
        error,
    ));
    match exit {
        Exit::Done => Exit::Failed.into(),
        exit => exit.into(),
    }
}

fn complain(failed: &Failed) {
    use std::io::Write as _;
    // A closed standard error: there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "otad: {failed}");
}

fn follow(verb: Verb) -> Ended {
    match verb {
        Verb::Run(args) => run::follow(&args),
        Verb::Demo(args) => demo::follow(&args),
        Verb::Sandbox(args) => sandbox::follow(&args),
        Verb::Replay(args) => replay::follow(&args),
        Verb::Status(args) => wait(status::follow(&args)),
        Verb::Why(args) => wait(why::follow(&args)),
        Verb::History(args) => wait(history::follow(&args)),
        Verb::Config(verb) => config::follow(&verb),
        Verb::Explain(args) => explain::follow(&args),
        Verb::Launch(args) => launch::follow(&args),
        Verb::Check(args) => check::follow(&args),
        Verb::Sign(args) => sign::sign(&args),
        Verb::Verify(args) => sign::verify(&args),
        Verb::Image(verb) => image::follow(&verb),
        Verb::Target(verb) => wait(target::follow(&verb)),
        Verb::Cloud(args) => cloud::follow(&args),
        Verb::Mcu(verb) => wait(mcu::follow(&verb)),
        Verb::McuSim(args) => mcu_sim::follow(&args),
        Verb::PalHost => pal_host(),
        Verb::Thing(verb) => wait(thing::follow(&verb)),
        Verb::Group(verb) => wait(group::follow(&verb)),
        Verb::Update(verb) => wait(update::follow(&verb)),
        Verb::Suspend(args) => wait(control::suspend(&args)),
        Verb::Resume(args) => wait(control::resume(&args)),
        Verb::Abort(args) => wait(control::abort(&args)),
        Verb::Poll(args) => wait(control::poll(&args)),
        Verb::Activate(args) => wait(control::activate(&args)),
        Verb::Commit(args) => wait(control::commit(&args)),
        Verb::Rollback(args) => wait(control::rollback(&args)),
        Verb::Events(args) => wait(control::events(&args)),
        Verb::Job(verb) => wait(control::job(&verb)),
        Verb::Agent(verb) => wait(agent::follow(&verb)),
        Verb::Plugin(verb) => plugin::follow(&verb),
    }
}

/// Be the process of a native plugin. No runtime and no log: it confines itself before it does anything else.
fn pal_host() -> Ended {
    host_runtime::plugin::native::serve().map_err(|reason| Failed::new(Exit::Usage, reason))?;
    Ok(Exit::Done)
}

/// Run a client verb: one thread is enough for one connection.
fn wait(verb: impl Future<Output = Ended>) -> Ended {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failed::chain(Exit::Failed, "starting the runtime", &e))?
        .block_on(verb)
}

fn load(config: &ConfigArg) -> Result<Config, Failed> {
    configuration::load(&config.config).map_err(|e| Failed::new(Exit::Config, e.to_string()))
}

/// The device of this name, or the only one.
fn device<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Device, Failed> {
    config.device(name).ok_or_else(|| {
        let names: Vec<&str> = config
            .devices
            .iter()
            .map(|d| d.name.value.as_str())
            .collect();
        let names = names.join(", ");
        match name {
            Some(name) => Failed::new(
                Exit::Nothing,
                format!("no device \"{name}\"; there are: {names}"),
            ),
            None => Failed::new(
                Exit::Usage,
                format!("which device? name one with --device: {names}"),
            ),
        }
    })
}

fn target<'a>(device: &'a Device, name: &str) -> Result<&'a Target, Failed> {
    device
        .targets
        .iter()
        .find(|t| t.name.value == name)
        .ok_or_else(|| {
            let names: Vec<&str> = device
                .targets
                .iter()
                .map(|t| t.name.value.as_str())
                .collect();
            Failed::new(
                Exit::Nothing,
                format!(
                    "device \"{}\" has no target \"{name}\"; there are: {}",
                    device.name.value,
                    names.join(", ")
                ),
            )
        })
}
