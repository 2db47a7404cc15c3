//! `otad history`: past jobs, from the daemon or from the state directory of a stopped one.

use std::path::{Path, PathBuf};

use host_runtime::history::{self, JobRecord, Words};
use host_runtime::ports::state_dir::FileStateDir;
use serde_json::Value;

use super::args::{DeviceArgs, HistoryArgs};
use super::control::{client, request};
use super::load;
use crate::control::protocol::Verb;
use crate::exit::{Exit, Failed, Verb as Ended};
use crate::lock;
use crate::past::job;
use crate::progress::{is_heard, note, say};

pub(super) async fn follow(args: &HistoryArgs) -> Ended {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let jobs = match source(&args.device, args.state_dir.as_deref()).await? {
        Source::Daemon => asked(&args.device, Some(limit)).await?,
        Source::Directory(dir) => {
            let is_running = lock::is_held(&dir);
            warn(&dir, is_running);
            let stories = stories(&dir, args.device.device.as_deref(), is_running)?;
            stories
                .into_iter()
                .flat_map(|told| {
                    let skip = told.jobs.len().saturating_sub(limit);
                    let device = told.device;
                    let jobs = told.jobs.into_iter().skip(skip);
                    jobs.map(move |job| (device.clone(), job))
                })
                .collect()
        }
    };
    if args.device.control.json {
        let jobs: Vec<Value> = jobs.iter().map(|(d, j)| job::as_json(d, j)).collect();
        say(&serde_json::json!({ "jobs": jobs }).to_string());
    } else {
        jobs.iter()
            .flat_map(|(device, job)| job::lines(device, job))
            .all(|line| is_heard(&line));
    }
    Ok(match jobs.is_empty() {
        true => Exit::Nothing,
        false => Exit::Done,
    })
}

/// Where the facts come from.
pub(super) enum Source {
    Daemon,
    Directory(PathBuf),
}

/// The daemon if it is there; otherwise the state directory that was named, or that of the configuration.
pub(super) async fn source(args: &DeviceArgs, state_dir: Option<&Path>) -> Result<Source, Failed> {
    if let Some(dir) = state_dir {
        return Ok(Source::Directory(dir.to_owned()));
    }
    if client(&args.control)?.is_there().await {
        return Ok(Source::Daemon);
    }
    match load(&args.control.config) {
        Ok(config) => Ok(Source::Directory(config.daemon.state_dir.value)),
        // With --socket alone there is no configuration to look into: the socket is what was meant.
        Err(_) if args.control.socket.is_some() => Ok(Source::Daemon),
        Err(failed) => Err(failed),
    }
}

/// Say on standard error that nobody was asked.
pub(super) fn warn(dir: &Path, is_running: bool) {
    let dir = dir.display();
    note(&match is_running {
        true => format!(
            "a daemon uses {dir} and was not asked; what follows may be old (if it answers, ask it: without --state-dir, or \
             with --socket)"
        ),
        false => format!("no daemon was asked; this is what the state directory {dir} holds"),
    });
}

/// The jobs that the daemon knows, with their devices.
pub(super) async fn asked(
    args: &DeviceArgs,
    limit: Option<usize>,
) -> Result<Vec<(String, JobRecord)>, Failed> {
    let mut jobs = Vec::new();
    let mut strange = None;
    client(&args.control)?
        .stream(&request(args, Verb::History { limit }), |mut item| {
            let device = item["device"].as_str().unwrap_or_default().to_owned();
            match serde_json::from_value(item["job"].take()) {
                Ok(job) => jobs.push((device, job)),
                Err(e) => strange = Some(e),
            }
        })
        .await?;
    match strange {
        Some(e) => Err(Failed::chain(Exit::Failed, "the daemon's answer", &e)),
        None => Ok(jobs),
    }
}

/// What is kept of one device of a stopped daemon.
pub(super) struct Told {
    pub(super) device: String,
    pub(super) jobs: Vec<JobRecord>,
    pub(super) words: Option<Words>,
    /// A daemon has the state directory.
    pub(super) is_running: bool,
}

/// What a state directory holds, of one device or of all. `is_running`: a daemon has it.
pub(super) fn stories(
    dir: &Path,
    name: Option<&str>,
    is_running: bool,
) -> Result<Vec<Told>, Failed> {
    let unreadable = |e: std::io::Error| {
        let help = match e.kind() {
            std::io::ErrorKind::PermissionDenied => "; use the daemon's user, or root",
            _ => "",
        };
        Failed::new(
            Exit::Failed,
            format!("state directory {}: {e}{help}", dir.display()),
        )
    };
    // Only to look: nothing is created where there is nothing.
    std::fs::read_dir(dir).map_err(unreadable)?;
    let state = FileStateDir::open(dir).map_err(unreadable)?;
    let killed = lock::is_left_behind(dir);
    let mut names = history::devices(&state).map_err(unreadable)?;
    if let Some(name) = name {
        let known = names.join(", ");
        names.retain(|known| known == name);
        if names.is_empty() {
            return Err(Failed::new(
                Exit::Nothing,
                format!("nothing is kept of a device \"{name}\"; there is something of: {known}"),
            ));
        }
    }
    names
        .into_iter()
        .map(|device| {
            let story = history::read(&state, &device).map_err(unreadable)?;
            if let Some(lost) = story.lost_bytes {
                note(&format!(
                    "the history of device \"{device}\" is damaged, {lost} bytes of it are lost"
                ));
            }
            // Words of an orderly stop may be older than the process that came after it.
            let words = story.words.map(|words| Words {
                stopped: words.stopped && !killed,
                ..words
            });
            Ok(Told {
                device,
                jobs: story.jobs,
                words,
                is_running,
            })
        })
        .collect()
}
