//! `otad demo`: a whole update on this machine with the real parts.
//!
//! ```text
//! this process: cloud in a box (TLS) ◀── proxy (slows, cuts) ◀── child: otad run ──▶ restart.sh ──▶ otad launch ──▶ program
//!        └── operator: creates the update, cancels            └── its log lines ──▶ timeline
//! ```
//!
//! The daemon is this very program as a child; slots, record, state, control socket and certificates are real files; what
//! runs is what the launcher started. Only the service manager is a script. Not here: any short cut through the daemon.

mod build;
mod daemon;
mod judge;
mod mcu;
mod play;
mod program;
mod proxy;
mod scenario;
mod stage;
mod timeline;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use host_cloud::BrokerConfig;

use crate::console::{self, LogFormat};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;
use scenario::{SCENARIOS, Scenario};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenario.
    pub scenario: String,
    /// `carrier` of all targets.
    pub carrier: &'static str,
    /// Work here instead of in a temporary directory.
    pub dir: Option<PathBuf>,
    /// Leave the directory behind.
    pub keep: bool,
    /// Print the daemon's console too.
    pub verbose: bool,
    /// Somebody else's broker between cloud and daemon.
    pub broker: Option<BrokerConfig>,
}

/// Print the names of the scenarios and what they show.
pub fn list() {
    for s in SCENARIOS {
        say(&format!("{:<18} {}", s.name, s.about));
    }
}

/// Play a scenario. [`Exit::Done`] if it ended as it should.
///
/// # Errors
/// [`Exit::Usage`] for a name that is none, [`Exit::Failed`] if the parts cannot be set up.
pub async fn run(options: Options) -> Verb {
    let scenario = find(&options.scenario)?;
    if options.verbose {
        console::start("info", LogFormat::Text)?;
    }
    let place = Place::new(options.dir.as_deref(), options.keep)?;
    say(&format!("{}: {}", scenario.name, scenario.about));
    let ended = tokio::select! {
        ended = play::play(scenario, &place.dir, options) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failed::new(Exit::Failed, "interrupted")),
    };
    // Also where it did not come to an end.
    for name in stage::TARGETS {
        program::stop(&place.dir, name);
    }
    if place.keep {
        say(&format!("files: {}", place.dir.display()));
    }
    let verdict = ended?;
    for line in &verdict.complaints {
        say(&format!("NOT AS IT SHOULD: {line}"));
    }
    if verdict.complaints.is_empty() {
        say("as it should");
    }
    // The last line is for scripts: status and reason of the job.
    say(&verdict.last_line);
    Ok(if verdict.complaints.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn find(name: &str) -> Result<&'static Scenario, Failed> {
    scenario::find(name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
        Failed::new(
            Exit::Usage,
            format!("no scenario \"{name}\"; there are: {}", names.join(", ")),
        )
    })
}

/// The directory of a run; removed afterwards unless kept.
struct Place {
    dir: PathBuf,
    keep: bool,
}

impl Place {
    fn new(dir: Option<&Path>, keep: bool) -> Result<Self, Failed> {
        let failed = |dir: &Path, e: std::io::Error| {
            Failed::new(Exit::Failed, format!("{}: {e}", dir.display()))
        };
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        let dir = match dir {
            Some(dir) => {
                let dir = std::path::absolute(dir).map_err(|e| failed(dir, e))?;
                builder
                    .recursive(true)
                    .create(&dir)
                    .map_err(|e| failed(&dir, e))?;
                let mut entries = std::fs::read_dir(&dir).map_err(|e| failed(&dir, e))?;
                if entries.next().is_some() {
                    return Err(Failed::new(
                        Exit::Refused,
                        format!(
                            "{} is not empty; name a directory that does not exist",
                            dir.display()
                        ),
                    ));
                }
                // Whoever names a directory wants to look into it.
                return Ok(Self { dir, keep: true });
            }
            None => {
                let random = getrandom::u32()
                    .map_err(|e| Failed::new(Exit::Failed, format!("no random numbers: {e}")))?;
                std::env::temp_dir().join(format!("otad-demo-{random:08x}"))
            }
        };
        builder.create(&dir).map_err(|e| failed(&dir, e))?;
        Ok(Self { dir, keep })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = std::fs::remove_dir_all(&self.dir)
        {
            tracing::warn!("{}: {e}", self.dir.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scenario_lists_the_known_ones() {
        let failed = find("toast").unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
        for s in SCENARIOS {
            assert!(failed.text.contains(s.name), "{}", failed.text);
        }
    }

    #[test]
    fn a_directory_that_is_not_empty_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("precious");
        std::fs::write(&file, "x").unwrap();
        let failed = Place::new(Some(dir.path()), false).err().unwrap();
        assert_eq!(failed.exit, Exit::Refused);
        assert!(file.exists());
    }

    #[test]
    fn a_temporary_directory_goes_with_its_run_unless_it_is_kept() {
        for keep in [false, true] {
            let place = Place::new(None, keep).unwrap();
            let dir = place.dir.clone();
            assert!(dir.exists());
            drop(place);
            assert_eq!(dir.exists(), keep);
            if keep {
                std::fs::remove_dir_all(dir).unwrap();
            }
        }
    }
}
