//! Updates that are at AWS already: shown, listed, cancelled, forgotten. Each call but that for a stream gets its input as a
//! document, as those of a new update do.

use host_cloud::id::OTA_PREFIX;
use serde_json::{Value, json};

use super::program::{CallError, Program, text_of};

/// Executions of one job whose details are asked for, a call each: more is a fleet, of which the sum counts.
pub const DETAILED_MAX: usize = 50;

/// A job, as [`show`] tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Such as `IN_PROGRESS`.
    pub status: String,
    /// Also for those who join later.
    pub continuous: bool,
    /// Names of things and groups that it is for.
    pub targets: Vec<String>,
    /// Why it was cancelled, if somebody said so.
    pub comment: Option<String>,
    /// One for each thing.
    pub executions: Vec<Execution>,
}

/// A job on one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// Which thing.
    pub thing: String,
    /// Such as `SUCCEEDED`.
    pub status: String,
    /// `statusDetails`, of the first [`DETAILED_MAX`] that have begun.
    pub details: Value,
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Job id.
    pub id: String,
    /// Status of the job, or of its execution on the thing that was asked for.
    pub status: String,
    /// Also for those who join later.
    pub continuous: bool,
}

/// Whose jobs are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// All.
    Everybody,
    /// Those with an execution on this thing.
    Thing(&'a str),
    /// Those for this group.
    Group(&'a str),
}

/// A job and how it stands on each thing.
///
/// # Errors
/// AWS does not know it, or refuses to tell.
pub fn show(aws: &Program, id: &str) -> Result<Job, CallError> {
    const CALL: &str = "iot describe-job";
    let answer = aws.call_with("iot", "describe-job", &json!({ "jobId": id }))?;
    let job = &answer["job"];
    let targets = job["targets"].as_array().into_iter().flatten();
    Ok(Job {
        id: text_of(CALL, job, "/jobId")?,
        status: text_of(CALL, job, "/status")?,
        continuous: is_continuous(job),
        targets: targets.filter_map(Value::as_str).map(name).collect(),
        comment: job["comment"].as_str().map(str::to_owned),
        executions: executions(aws, id)?,
    })
}

fn executions(aws: &Program, id: &str) -> Result<Vec<Execution>, CallError> {
    const CALL: &str = "iot list-job-executions-for-job";
    let document = json!({ "jobId": id });
    let answer = aws.call_with("iot", "list-job-executions-for-job", &document)?;
    let mut detailed = 0;
    let mut executions = Vec::new();
    for entry in answer["executionSummaries"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let thing = name(&text_of(CALL, entry, "/thingArn")?);
        let status = text_of(CALL, entry, "/jobExecutionSummary/status")?;
        let has_begun = status != "QUEUED";
        let details = if has_begun && detailed < DETAILED_MAX {
            detailed += 1;
            details(aws, id, &thing)?
        } else {
            json!({})
        };
        executions.push(Execution {
            thing,
            status,
            details,
        });
    }
    Ok(executions)
}

fn details(aws: &Program, id: &str, thing: &str) -> Result<Value, CallError> {
    let document = json!({ "jobId": id, "thingName": thing });
    let answer = aws.call_with("iot", "describe-job-execution", &document)?;
    let details = answer.pointer("/execution/statusDetails/detailsMap");
    Ok(details.cloned().unwrap_or_else(|| json!({})))
}

/// All jobs, newest first as AWS has them, or those of a thing or group.
///
/// # Errors
/// AWS refuses to tell.
pub fn list(aws: &Program, of: Of<'_>) -> Result<Vec<Listed>, CallError> {
    let (operation, document, member, status) = match of {
        Of::Everybody => ("list-jobs", json!({}), "jobs", "/status"),
        Of::Group(group) => {
            let document = json!({ "thingGroupName": group });
            ("list-jobs", document, "jobs", "/status")
        }
        Of::Thing(thing) => (
            "list-job-executions-for-thing",
            json!({ "thingName": thing }),
            "executionSummaries",
            "/jobExecutionSummary/status",
        ),
    };
    let answer = aws.call_with("iot", operation, &document)?;
    let call = format!("iot {operation}");
    let listed = answer[member].as_array().into_iter().flatten();
    listed
        .map(|entry| {
            Ok(Listed {
                id: text_of(&call, entry, "/jobId")?,
                status: text_of(&call, entry, status)?,
                continuous: is_continuous(entry),
            })
        })
        .collect()
}

/// Cancel a job; `force` = also where it is in progress.
///
/// # Errors
/// AWS does not know it, or it has ended.
pub fn cancel(aws: &Program, id: &str, force: bool, reason: Option<&str>) -> Result<(), CallError> {
    let mut document = json!({ "jobId": id, "force": force });
    if let Some(reason) = reason {
        document["comment"] = json!(reason);
    }
    aws.call_with("iot", "cancel-job", &document).map(drop)
}

/// Forget a job; `force` = also one that has not ended. An OTA update goes with its job, any other job alone; the stream of
/// an update is left to [`delete_stream`]. Images stay in their bucket: AWS does not say whose else they are.
///
/// # Errors
/// AWS does not know it, or it has not ended.
pub fn delete(aws: &Program, id: &str, force: bool) -> Result<(), CallError> {
    match id.strip_prefix(OTA_PREFIX) {
        Some(update) => {
            // Of streams this takes only one that AWS made itself.
            let document =
                json!({ "otaUpdateId": update, "deleteStream": true, "forceDeleteAWSJob": force });
            aws.call_with("iot", "delete-ota-update", &document)
        }
        None => aws.call_with("iot", "delete-job", &json!({ "jobId": id, "force": force })),
    }
    .map(drop)
}

/// The stream of an OTA update's job, as otad calls it; another job has none.
#[must_use]
pub fn stream_of(id: &str) -> Option<&str> {
    id.strip_prefix(OTA_PREFIX)
}

/// Forget a stream, which `delete-ota-update` does not where the update was given it; one that is not there counts as
/// forgotten.
///
/// # Errors
/// AWS refuses to.
pub fn delete_stream(aws: &Program, stream: &str) -> Result<(), CallError> {
    match aws.call("iot", "delete-stream", &["--stream-id", stream]) {
        Err(e) if e.code() != Some("ResourceNotFoundException") => Err(e),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_continuous(job: &Value) -> bool {
    job["targetSelection"] == "CONTINUOUS"
}

/// The name at the end of `arn:aws:iot:REGION:ACCOUNT:thing/NAME`.
fn name(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or(arn).to_owned()
}
