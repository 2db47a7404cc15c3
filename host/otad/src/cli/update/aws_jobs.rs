//! `otad update show|list|cancel|delete --aws`: the same verbs at AWS, in the same words and with the same exit codes.

use host_cloud::service::ExecutionStatus;
use serde_json::{Value, json};

use super::watch;
use crate::aws::jobs::{self, DETAILED_MAX, Job, Of};
use crate::aws::program::{CallError, Program};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) fn show(aws: &Program, id: &str, json: bool) -> Verb {
    let job = jobs::show(aws, id).map_err(|e| failed(&e))?;
    if json {
        say(&as_json(&job).to_string());
    } else {
        lines(&job).iter().for_each(|line| say(line));
    }
    Ok(Exit::Done)
}

pub(super) fn list(aws: &Program, thing: Option<&str>, group: Option<&str>, json: bool) -> Verb {
    let of = match (thing, group) {
        (None, None) => Of::Everybody,
        (Some(thing), None) => Of::Thing(thing),
        (None, Some(group)) => Of::Group(group),
        (Some(_), Some(_)) => {
            return Err(Failed::new(
                Exit::Usage,
                "--thing and --group: AWS lists the jobs of a thing or of a group, not of both",
            ));
        }
    };
    let listed = jobs::list(aws, of).map_err(|e| failed(&e))?;
    if json {
        let all: Vec<Value> = listed
            .iter()
            .map(|job| json!({ "job_id": job.id, "status": job.status, "continuous": job.continuous }))
            .collect();
        say(&json!(all).to_string());
    } else {
        for job in &listed {
            let continuous = if job.continuous { "  (continuous)" } else { "" };
            say(&format!("{}  {}{continuous}", job.id, job.status));
        }
    }
    Ok(match listed.is_empty() {
        true => Exit::Nothing,
        false => Exit::Done,
    })
}

pub(super) fn cancel(aws: &Program, id: &str, force: bool, reason: Option<&str>) -> Verb {
    jobs::cancel(aws, id, force, reason).map_err(|e| failed(&e))?;
    show(aws, id, false)
}

pub(super) fn delete(aws: &Program, id: &str, force: bool) -> Verb {
    jobs::delete(aws, id, force).map_err(|e| match e.code() {
        Some("InvalidStateTransitionException" | "InvalidRequestException") if !force => {
            let text = format!("{e}; what has not ended is forgotten with --force only");
            Failed::new(Exit::Failed, text)
        }
        _ => failed(&e),
    })?;
    if let Some(stream) = jobs::stream_of(id) {
        // No exit code says retry: the same command would not find the update again.
        jobs::delete_stream(aws, stream).map_err(|e| {
            let text = format!(
                "{e}; {id} is deleted, but its stream is left: aws iot delete-stream --stream-id {stream}"
            );
            Failed::new(Exit::Failed, text)
        })?;
    }
    say(&format!("deleted   {id}"));
    Ok(Exit::Done)
}

fn lines(job: &Job) -> Vec<String> {
    let continuous = if job.continuous { "  (continuous)" } else { "" };
    let mut lines = vec![
        format!("job       {}", job.id),
        format!("status    {}{continuous}", job.status),
    ];
    lines.extend(job.targets.iter().map(|name| format!("for       {name}")));
    for execution in &job.executions {
        let line = format!(
            "thing     {}  {} {}",
            execution.thing,
            execution.status,
            details(&execution.details)
        );
        lines.push(line.trim_end().to_owned());
    }
    let begun = job.executions.iter().filter(|e| e.status != "QUEUED");
    if begun.count() > DETAILED_MAX {
        lines.push(format!(
            "          (details of the first {DETAILED_MAX} that have begun)"
        ));
    }
    let statuses = job.executions.iter();
    let statuses = statuses.filter_map(|e| ExecutionStatus::parse(&e.status));
    lines.push(format!("sum       {}", watch::sum(statuses)));
    if let Some(comment) = &job.comment {
        lines.push(format!("comment   {comment}"));
    }
    lines
}

fn details(details: &Value) -> String {
    let members = details.as_object().into_iter().flatten();
    let members: Vec<String> = members
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    members.join(" ")
}

fn as_json(job: &Job) -> Value {
    let executions: Vec<Value> = job
        .executions
        .iter()
        .map(|execution| {
            json!({
                "thing": execution.thing,
                "status": execution.status,
                "status_details": execution.details,
            })
        })
        .collect();
    json!({
        "job_id": job.id,
        "status": job.status,
        "continuous": job.continuous,
        "targets": job.targets,
        "comment": job.comment,
        "executions": executions,
    })
}

/// What AWS says, and the exit code for it.
fn failed(error: &CallError) -> Failed {
    match error.code() {
        Some("ResourceNotFoundException") => Failed::new(
            Exit::Nothing,
            format!(
                "{error}; `otad update list --aws` names what is there, and --region where it is looked for"
            ),
        ),
        Some("InvalidStateTransitionException") => Failed::new(
            Exit::Nothing,
            format!("{error}; what has ended cannot be cancelled"),
        ),
        Some("ThrottlingException" | "LimitExceededException" | "ServiceUnavailableException") => {
            Failed::new(Exit::Retry, error.to_string())
        }
        // It did not come as far as AWS: the network, or no credentials.
        None if error.may_have_happened() => Failed::new(Exit::Retry, error.to_string()),
        Some(_) | None => Failed::new(Exit::Failed, error.to_string()),
    }
}
