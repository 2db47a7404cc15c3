//! `--wait` at AWS: a job and its executions, asked again and again until the job and all of them have ended.

use std::time::Duration;

use host_cloud::service::ExecutionStatus;
use serde_json::Value;

use super::program::{CallError, Program, text_of};

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// On which thing.
    pub thing: String,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// `statusDetails.reason`, once it has ended.
    pub reason: String,
}

/// Follow a job until it and every execution has ended, or somebody deletes it; `changed` sees each change of a status.
///
/// # Errors
/// AWS refused to tell.
pub fn follow(
    aws: &Program,
    job: &str,
    interval: Duration,
    changed: &mut dyn FnMut(&Execution),
) -> Result<Vec<Execution>, CallError> {
    let mut last: Vec<Execution> = Vec::new();
    loop {
        // Asked before the list: a job that has ended makes no more executions, so the list after it lacks none.
        let status = status(aws, job)?;
        let mut now = list(aws, job)?;
        for execution in &mut now {
            let before = last.iter().find(|e| e.thing == execution.thing);
            if before.is_some_and(|before| before.status == execution.status) {
                execution.reason = before.map(|b| b.reason.clone()).unwrap_or_default();
                continue;
            }
            if execution.status.is_terminal() {
                execution.reason = reason(aws, job, &execution.thing)?;
            }
            changed(execution);
        }
        let is_over = match status.as_str() {
            // A cancelled job has ended while what is in progress on a thing may go on.
            "COMPLETED" | "CANCELED" => now.iter().all(|e| e.status.is_terminal()),
            // No thing can end its part any more.
            "DELETION_IN_PROGRESS" => true,
            // That all listed executions have ended says nothing here: AWS makes them as the rollout goes.
            _ => false,
        };
        if is_over {
            return Ok(now);
        }
        last = now;
        std::thread::sleep(interval);
    }
}

/// Such as `IN_PROGRESS`.
fn status(aws: &Program, job: &str) -> Result<String, CallError> {
    let answer = aws.call("iot", "describe-job", &["--job-id", job])?;
    text_of("iot describe-job", &answer, "/job/status")
}

fn list(aws: &Program, job: &str) -> Result<Vec<Execution>, CallError> {
    const CALL: &str = "iot list-job-executions-for-job";
    let answer = aws.call("iot", "list-job-executions-for-job", &["--job-id", job])?;
    let listed = answer["executionSummaries"].as_array();
    listed
        .into_iter()
        .flatten()
        .map(|entry| {
            let arn = text_of(CALL, entry, "/thingArn")?;
            let status = text_of(CALL, entry, "/jobExecutionSummary/status")?;
            Ok(Execution {
                // arn:aws:iot:region:account:thing/NAME
                thing: arn.rsplit('/').next().unwrap_or(&arn).to_owned(),
                status: ExecutionStatus::parse(&status).ok_or_else(|| CallError::Answer {
                    call: CALL.to_owned(),
                    what: format!("status that is known: {status}"),
                })?,
                reason: String::new(),
            })
        })
        .collect()
}

fn reason(aws: &Program, job: &str, thing: &str) -> Result<String, CallError> {
    let arguments = ["--job-id", job, "--thing-name", thing];
    let answer = aws.call("iot", "describe-job-execution", &arguments)?;
    let reason = answer.pointer("/execution/statusDetails/detailsMap/reason");
    Ok(reason
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned())
}
