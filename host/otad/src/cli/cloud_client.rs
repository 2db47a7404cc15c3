//! The way from a verb to a running `otad cloud`, and what its refusals mean for the exit code.

use std::time::Duration;

use host_cloud::operator::{self, OperatorClient, OperatorError};

use super::args::CloudArg;
use crate::exit::{Exit, Failed};
use crate::progress::note;

/// How long a cloud that has just been started may take until its socket is there, in milliseconds.
const CLOUD_START_MS: u64 = 5000;
/// In place of it, for scripts that know that the cloud runs, or that it takes longer.
const CLOUD_START_VARIABLE: &str = "OTAD_CLOUD_WAIT_MS";
/// Most that one may wish for: an hour.
const CLOUD_START_MAX_MS: u64 = 3_600_000;
/// Between two looks.
const CLOUD_LOOK: Duration = Duration::from_millis(100);
/// After so long it is said what is waited for.
const CLOUD_SAY: Duration = Duration::from_secs(1);

/// The operator socket of the cloud with this directory. Waits a little for one that is only just starting.
pub(super) async fn connect(cloud: &CloudArg) -> Result<OperatorClient, Failed> {
    let patience = patience()?;
    let mut waited = Duration::ZERO;
    while waited < patience {
        match try_connect(cloud).await {
            Err(OperatorError::Connect { .. }) => {}
            other => return other.map_err(refused),
        }
        if waited == CLOUD_SAY {
            let seconds = patience.as_secs_f32();
            note(&format!(
                "no cloud answers in {} yet; waiting for {seconds} s in all",
                cloud.cloud.display()
            ));
        }
        tokio::time::sleep(CLOUD_LOOK).await;
        waited += CLOUD_LOOK;
    }
    connect_now(cloud).await
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
        OperatorError::Connect { .. } | OperatorError::Broken(_) | OperatorError::Gone => {
            Exit::Retry
        }
        OperatorError::Request(_) => Exit::Usage,
        OperatorError::Refused(_) | OperatorError::Protocol(_) => Exit::Failed,
    };
    // Its words have those of its source in them already.
    Failed::new(exit, error.to_string())
}
