//! The way from a verb to a running `otad cloud`, and what its refusals mean for the exit code.

use std::io::ErrorKind;
use std::time::Duration;

use host_cloud::operator::{self, OperatorClient, OperatorError};
use tokio::time::{Instant, sleep, timeout};

use super::args::CloudArg;
use crate::exit::{Exit, Failed, chain};
use crate::progress::note;

/// How long a cloud that has just been started may take until its socket is there, in milliseconds.
const CLOUD_START_MS: u64 = 5000;
/// In place of it, for scripts that know that the cloud runs, or that it takes longer.
const CLOUD_START_VARIABLE: &str = "OTAD_CLOUD_WAIT_MS";
/// Most that one may wish for: an hour.
const CLOUD_START_MAX_MS: u64 = 3_600_000;
/// A try has so long in any case: a way over a slow network is longer than one may want to wait for a start.
const CLOUD_TRY: Duration = Duration::from_secs(5);
/// Between two looks.
const CLOUD_LOOK: Duration = Duration::from_millis(100);
/// After so long it is said what is waited for.
const CLOUD_SAY: Duration = Duration::from_secs(1);

/// The operator socket of the cloud with this directory. Waits a little for one that is only just starting.
pub(super) async fn connect(cloud: &CloudArg) -> Result<OperatorClient, Failed> {
    connect_within(cloud, patience()?, CLOUD_TRY).await
}

async fn connect_within(
    cloud: &CloudArg,
    patience: Duration,
    try_max: Duration,
) -> Result<OperatorClient, Failed> {
    let start = Instant::now();
    let mut is_said = false;
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let tried = timeout(left.max(try_max), try_connect(cloud)).await;
        let error = match tried.unwrap_or_else(|_| Err(late(cloud))) {
            Err(error) if may_come(&error) => error,
            other => return other.map_err(refused),
        };
        let waited = start.elapsed();
        if waited >= patience {
            return Err(refused(error));
        }
        if waited >= CLOUD_SAY && !is_said {
            is_said = true;
            let seconds = patience.as_secs_f32();
            note(&format!(
                "no cloud answers in {} yet; waiting for {seconds} s in all",
                cloud.cloud.display()
            ));
        }
        sleep(CLOUD_LOOK).await;
    }
}

fn late(cloud: &CloudArg) -> OperatorError {
    OperatorError::Connect {
        path: cloud.cloud.display().to_string(),
        source: std::io::Error::new(ErrorKind::TimedOut, "no answer in time"),
    }
}

/// Whether the same may work a moment later.
fn may_come(error: &OperatorError) -> bool {
    match error {
        OperatorError::Absent { .. } => true,
        OperatorError::Connect { source, .. } => source.kind() != ErrorKind::PermissionDenied,
        OperatorError::Refused(refusal) => refusal.code == "busy",
        OperatorError::Untrusted { .. }
        | OperatorError::Request(_)
        | OperatorError::Broken(_)
        | OperatorError::Gone
        | OperatorError::Protocol(_) => false,
    }
}

fn patience() -> Result<Duration, Failed> {
    let Some(text) = std::env::var_os(CLOUD_START_VARIABLE) else {
        return Ok(Duration::from_millis(CLOUD_START_MS));
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let milliseconds = number.filter(|ms| *ms <= CLOUD_START_MAX_MS);
    milliseconds.map(Duration::from_millis).ok_or_else(|| {
        Failed::new(
            Exit::Usage,
            format!(
                "environment {CLOUD_START_VARIABLE}={}: expected milliseconds, at most {CLOUD_START_MAX_MS}",
                text.display()
            ),
        )
    })
}

/// The same without waiting.
pub(super) async fn connect_now(cloud: &CloudArg) -> Result<OperatorClient, Failed> {
    try_connect(cloud).await.map_err(refused)
}

/// The socket of a cloud on this machine, or the way to one on another.
async fn try_connect(cloud: &CloudArg) -> Result<OperatorClient, OperatorError> {
    let dir = &cloud.cloud;
    if dir.join(operator::ADDRESS_FILE).exists() {
        OperatorClient::connect_kit(dir).await
    } else {
        OperatorClient::connect(&dir.join("operator.sock")).await
    }
}

/// As [`refused`], for verbs whose job is to find something: what has no such name is [`Exit::Nothing`].
pub(super) fn refused_by_name(error: OperatorError) -> Failed {
    let unknown = matches!(&error, OperatorError::Refused(r) if r.code.starts_with("unknown_"));
    let failed = refused(error);
    if unknown {
        Failed::new(Exit::Nothing, failed.text)
    } else {
        failed
    }
}

/// What went wrong with the cloud, with the exit code for it.
pub(super) fn refused(error: OperatorError) -> Failed {
    let exit = match &error {
        OperatorError::Broken(_) | OperatorError::Gone => Exit::Retry,
        OperatorError::Request(_) => Exit::Usage,
        other if may_come(other) => Exit::Retry,
        _ => Exit::Failed,
    };
    Failed::new(exit, chain(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;
    use std::path::Path;

    use host_cloud::{Cloud, CloudConfig, Pki};

    use super::*;

    /// Connects with a directory that somebody copied here.
    async fn connect_kit(dir: &Path, try_max: Duration) -> Failed {
        let cloud = CloudArg {
            cloud: dir.to_owned(),
        };
        let patience = Duration::from_millis(300);
        let connected = connect_within(&cloud, patience, try_max).await;
        connected.err().expect("nobody is to be reached")
    }

    #[tokio::test]
    async fn a_cloud_of_another_root_is_named_at_once_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let config = CloudConfig {
            operators: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..CloudConfig::new(dir.path().join("cloud"))
        };
        let cloud = Cloud::start(config).await.unwrap();
        let kit = dir.path().join("cloud/operator");
        let other = Pki::open(&dir.path().join("other")).unwrap();
        fs::write(kit.join("root.pem"), other.root_pem()).unwrap();
        let failed = connect_kit(&kit, CLOUD_TRY * 6).await;
        assert_eq!(failed.exit, Exit::Failed);
        assert!(failed.text.contains("certificate"), "{failed}");
        assert!(!failed.text.contains("`otad cloud`"), "{failed}");
        cloud.shutdown().await;
    }

    #[tokio::test]
    async fn who_accepts_and_never_answers_is_not_waited_for_much_longer_than_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let root = Pki::open(&dir.path().join("pki")).unwrap();
        let files = [
            ("address", address.as_str()),
            ("root.pem", root.root_pem()),
            ("token", "0123456789abcdef"),
        ];
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(dir.path().join("token"), private).unwrap();
        let failed = connect_kit(dir.path(), Duration::ZERO).await;
        assert_eq!(failed.exit, Exit::Retry, "{failed}");
        assert!(failed.text.contains("no answer in time"), "{failed}");
    }

    #[test]
    fn what_no_patience_mends_is_told_with_its_cause() {
        let connect = |kind: ErrorKind| OperatorError::Connect {
            path: "operator.sock".to_owned(),
            source: kind.into(),
        };
        let denied = refused(connect(ErrorKind::PermissionDenied));
        assert_eq!(denied.exit, Exit::Failed);
        assert!(denied.text.contains("permission denied"), "{denied}");
        assert_eq!(refused(connect(ErrorKind::TimedOut)).exit, Exit::Retry);
    }
}
