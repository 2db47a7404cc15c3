//! The JSON that Jobs sends: replies, rejections and notifications, with members in AWS's order.
//!
//! Only writes; what devices send is read in `job_api`. Timestamps on the wire are whole seconds.

use serde::Serialize;
use serde_json::Value;

use super::{Execution, ExecutionStatus, JobId, RejectCode, StatusDetails, state::Thing};

/// `notify` names at most this many executions of each status.
const NOTIFY_JOBS_MAX: usize = 10;

/// An execution as devices see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionWire<'a> {
    job_id: &'a JobId,
    status: ExecutionStatus,
    #[serde(skip_serializing_if = "StatusDetails::is_empty")]
    status_details: &'a StatusDetails,
    queued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    last_updated_at: u64,
    version_number: u64,
    execution_number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_document: Option<&'a Value>,
}

/// An execution in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SummaryWire<'a> {
    job_id: &'a JobId,
    queued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    last_updated_at: u64,
    version_number: u64,
    execution_number: u64,
}

/// Where an execution stands, without its document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionStateWire<'a> {
    status: ExecutionStatus,
    #[serde(skip_serializing_if = "StatusDetails::is_empty")]
    status_details: &'a StatusDetails,
    version_number: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AcceptedWire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<&'a str>,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<ExecutionWire<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_state: Option<ExecutionStateWire<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_document: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_progress_jobs: Option<Vec<SummaryWire<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_jobs: Option<Vec<SummaryWire<'a>>>,
}

impl<'a> AcceptedWire<'a> {
    fn new(now_ms: u64, client_token: Option<&'a str>) -> Self {
        Self {
            client_token,
            timestamp: now_ms / 1000,
            execution: None,
            execution_state: None,
            job_document: None,
            in_progress_jobs: None,
            queued_jobs: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RejectedWire<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<&'a str>,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_state: Option<ExecutionStateWire<'a>>,
}

#[derive(Serialize)]
struct NotifyWire<'a> {
    timestamp: u64,
    jobs: NotifyJobs<'a>,
}

#[derive(Serialize)]
struct NotifyJobs<'a> {
    #[serde(rename = "IN_PROGRESS", skip_serializing_if = "Vec::is_empty")]
    in_progress: Vec<SummaryWire<'a>>,
    #[serde(rename = "QUEUED", skip_serializing_if = "Vec::is_empty")]
    queued: Vec<SummaryWire<'a>>,
}

/// Reply with one execution, or with none.
pub(super) fn accepted_execution(
    now_ms: u64,
    token: Option<&str>,
    execution: Option<(&JobId, &Execution)>,
    document: Option<&Value>,
) -> Vec<u8> {
    json(&AcceptedWire {
        execution: execution.map(|(job, e)| execution_wire(job, e, document)),
        ..AcceptedWire::new(now_ms, token)
    })
}

/// Reply to an update.
pub(super) fn accepted_update(
    now_ms: u64,
    token: Option<&str>,
    state: Option<&Execution>,
    document: Option<&Value>,
) -> Vec<u8> {
    json(&AcceptedWire {
        execution_state: state.map(state_wire),
        job_document: document,
        ..AcceptedWire::new(now_ms, token)
    })
}

/// Reply with everything pending.
pub(super) fn accepted_pending(now_ms: u64, token: Option<&str>, thing: &Thing) -> Vec<u8> {
    json(&AcceptedWire {
        in_progress_jobs: Some(summaries(thing, ExecutionStatus::InProgress, usize::MAX)),
        queued_jobs: Some(summaries(thing, ExecutionStatus::Queued, usize::MAX)),
        ..AcceptedWire::new(now_ms, token)
    })
}

/// Refusal of a request.
pub(super) fn rejected(
    now_ms: u64,
    token: Option<&str>,
    code: RejectCode,
    message: &str,
    state: Option<&Execution>,
) -> Vec<u8> {
    json(&RejectedWire {
        code: code.as_str(),
        message,
        client_token: token,
        timestamp: now_ms / 1000,
        execution_state: state.map(state_wire),
    })
}

/// The list of pending executions.
pub(super) fn notify(now_ms: u64, thing: &Thing) -> Vec<u8> {
    json(&NotifyWire {
        timestamp: now_ms / 1000,
        jobs: NotifyJobs {
            in_progress: summaries(thing, ExecutionStatus::InProgress, NOTIFY_JOBS_MAX),
            queued: summaries(thing, ExecutionStatus::Queued, NOTIFY_JOBS_MAX),
        },
    })
}

/// The execution that is next from now on, or none.
pub(super) fn notify_next(
    now_ms: u64,
    next: Option<(&JobId, &Execution)>,
    document: Option<&Value>,
) -> Vec<u8> {
    accepted_execution(now_ms, None, next, document)
}

fn execution_wire<'a>(
    job_id: &'a JobId,
    execution: &'a Execution,
    job_document: Option<&'a Value>,
) -> ExecutionWire<'a> {
    ExecutionWire {
        job_id,
        status: execution.status,
        status_details: &execution.details,
        queued_at: execution.queued_at_ms / 1000,
        started_at: execution.started_at_ms.map(|ms| ms / 1000),
        last_updated_at: execution.updated_at_ms / 1000,
        version_number: execution.version,
        execution_number: execution.number,
        job_document,
    }
}

fn state_wire(execution: &Execution) -> ExecutionStateWire<'_> {
    ExecutionStateWire {
        status: execution.status,
        status_details: &execution.details,
        version_number: execution.version,
    }
}

fn summaries(thing: &Thing, status: ExecutionStatus, max: usize) -> Vec<SummaryWire<'_>> {
    let mut list: Vec<_> = thing
        .pending
        .iter()
        .filter(|(_, e)| e.status == status)
        .collect();
    list.sort_by_key(|(_, e)| e.sequence);
    list.truncate(max);
    list.into_iter()
        .map(|(job_id, e)| SummaryWire {
            job_id,
            queued_at: e.queued_at_ms / 1000,
            started_at: e.started_at_ms.map(|ms| ms / 1000),
            last_updated_at: e.updated_at_ms / 1000,
            version_number: e.version,
            execution_number: e.number,
        })
        .collect()
}

fn json(message: &impl Serialize) -> Vec<u8> {
    // Maps with text keys into memory: serde_json has no way to fail here.
    serde_json::to_vec(message).unwrap_or_default()
}
