//! The daemon as a child of the demo: this very program with `run`, its log lines read as they come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::stage::failed;
use crate::control::client::Client;
use crate::control::protocol::{Request, Verb};
use crate::exit::{Exit, Failed};
use crate::progress::say;

/// A debug build compiles the agent in some ten seconds, once.
const READY_MAX: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long an orderly end may take.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Lines on their way to the timeline.
const LINES_MAX: usize = 1024;

/// A running daemon; killed when dropped.
pub(super) struct Daemon {
    child: Child,
    pub(super) client: Client,
    log: PathBuf,
}

/// What a line of the daemon's log says in fields.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct LogLine {
    #[serde(default)]
    pub(super) level: String,
    #[serde(default)]
    pub(super) fields: BTreeMap<String, Value>,
}

impl LogLine {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or("")
    }
}

impl Daemon {
    /// Start it; its log lines go to the returned channel and to `otad.log`.
    pub(super) fn start(
        config: &Path,
        verbose: bool,
    ) -> Result<(Self, mpsc::Receiver<LogLine>), Failed> {
        let dir = config.parent().unwrap_or_else(|| Path::new("."));
        let otad =
            std::env::current_exe().map_err(|e| failed("finding this program's own file", &e))?;
        let mut command = Command::new(otad);
        // What the timeline shows are the ends of the targets' operations.
        command
            .args(["run", "--log-format", "json"])
            .args(["--log", "info,host_runtime::target=debug"])
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        environment(&mut command);
        let mut child = command
            .spawn()
            .map_err(|e| failed("starting the daemon", &e))?;
        let (lines, received) = mpsc::channel(LINES_MAX);
        let log = dir.join("otad.log");
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(read(stderr, log.clone(), lines, verbose));
        }
        let client = Client::new(&dir.join("state/control.sock"));
        Ok((Self { child, client, log }, received))
    }

    /// Wait until it is connected.
    pub(super) async fn ready(&mut self) -> Result<(), Failed> {
        let until_ready = async {
            loop {
                if let Ok(status) = self.status().await
                    && status["connected"] == true
                {
                    return Ok(());
                }
                if let Ok(Some(status)) = self.child.try_wait() {
                    let text = format!("the daemon ended at once ({status}): {}", self.last_line());
                    return Err(Failed::new(Exit::Failed, text));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(READY_MAX, until_ready).await {
            Ok(ended) => ended,
            Err(_) => Err(Failed::new(
                Exit::Failed,
                format!(
                    "the daemon is not connected after {} s: {}",
                    READY_MAX.as_secs(),
                    self.last_line()
                ),
            )),
        }
    }

    fn last_line(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// The status of the only device.
    pub(super) async fn status(&self) -> Result<Value, Failed> {
        let mut status = self
            .client
            .gather(&Request::new(Verb::Status), "devices")
            .await?;
        Ok(status["devices"][0].take())
    }

    /// SIGTERM, and wait for the orderly end.
    pub(super) async fn stop(mut self) -> Result<(), Failed> {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|e| failed("stopping the daemon", &e))?;
        }
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failed::new(
                Exit::Failed,
                format!("the daemon ended with {status}: {}", self.last_line()),
            )),
            Ok(Err(e)) => Err(failed("waiting for the daemon", &e)),
            Err(_) => Err(Failed::new(
                Exit::Failed,
                "the daemon does not end on SIGTERM",
            )),
        }
    }
}

/// Without overrides that the user's own environment may hold, and with a cache that the next run finds.
fn environment(command: &mut Command) {
    const CACHE_DIR: &str = "OTAD_DAEMON__CACHE_DIR";
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OTAD_") && name != CACHE_DIR {
            command.env_remove(&*name);
        }
    }
    if std::env::var_os(CACHE_DIR).is_some() {
        return;
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".cache")));
    // Without a home the state directory's own cache serves: the demo is only slower.
    if let Some(cache) = cache
        && std::fs::create_dir_all(&cache).is_ok()
    {
        command.env(CACHE_DIR, cache.join("otad"));
    }
}

async fn read(
    stderr: tokio::process::ChildStderr,
    path: PathBuf,
    lines: mpsc::Sender<LogLine>,
    verbose: bool,
) {
    let mut log = match tokio::fs::File::create(&path).await {
        Ok(log) => Some(log),
        Err(e) => {
            tracing::warn!("{}: {e}", path.display());
            None
        }
    };
    let mut reader = BufReader::new(stderr).lines();
    while let Ok(Some(text)) = reader.next_line().await {
        if let Some(file) = &mut log {
            // The log is for whoever looks later; the demo goes on without it.
            let written = async {
                file.write_all(text.as_bytes()).await?;
                file.write_all(b"\n").await?;
                file.flush().await
            };
            if written.await.is_err() {
                log = None;
            }
        }
        match serde_json::from_str::<LogLine>(&text) {
            Ok(line) => {
                if verbose && line.level != "DEBUG" {
                    say(&format!("    | {}", line.field("message")));
                }
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            Err(_) => say(&format!("    | {text}")),
        }
    }
}
