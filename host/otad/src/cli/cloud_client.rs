//! The way from a verb to a running `otad cloud`, and what its refusals mean for the exit code.

use std::time::Duration;

use host_cloud::operator::{self, OperatorClient, OperatorError};

use super::args::CloudArg;
use crate::exit::{Exit, Failed};

/// How long a cloud that has just been started may take until its socket is there.
const CLOUD_START: Duration = Duration::from_secs(5);
/// Between two looks.
const CLOUD_LOOK: Duration = Duration::from_millis(100);

/// The operator socket of the cloud with this directory. Waits a little for one that is only just starting.
pub(super) async fn connect(cloud: &CloudArg) -> Result<OperatorClient, Failed> {
    let looks = CLOUD_START.as_millis() / CLOUD_LOOK.as_millis();
    for _ in 0..looks {
        match try_connect(cloud).await {
            Err(OperatorError::Connect { .. }) => tokio::time::sleep(CLOUD_LOOK).await,
            other => return other.map_err(refused),
        }
    }
    connect_now(cloud).await
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
        OperatorError::Connect { .. } | OperatorError::Broken(_) => Exit::Retry,
        OperatorError::Request(_) => Exit::Usage,
        OperatorError::Refused(_) | OperatorError::Protocol(_) => Exit::Failed,
    };
    // Its words have those of its source in them already.
    Failed::new(exit, error.to_string())
}
