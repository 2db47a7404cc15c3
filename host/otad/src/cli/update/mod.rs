//! `otad update`: the operator's side of an update, against a running `otad cloud` or AWS.

mod aws;
mod aws_jobs;
mod create;
mod profile;
mod request;
pub(super) mod signing;
mod watch;

use host_cloud::operator::OperatorError;
use host_cloud::operator::wire::JobFilter;
use host_cloud::service::{JobId, JobView, NameError, WaitsFor};

use super::args::{CloudArg, PlaceArgs, UpdateVerb};
use super::cloud_client::{connect, refused, refused_by_name};
use crate::aws::program::Program;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) async fn follow(verb: &UpdateVerb) -> Verb {
    match verb {
        UpdateVerb::Create(args) => create::follow(args).await,
        UpdateVerb::Show { at, job, json } => {
            let id = job_id(job)?;
            let cloud = match place(at)? {
                Place::Box(cloud) => cloud,
                Place::Aws(aws) => return aws_jobs::show(&aws, id.as_str(), *json),
            };
            let job = connect(&cloud)
                .await?
                .show(id)
                .await
                .map_err(refused_of_job)?;
            print_job(&job, *json);
            Ok(Exit::Done)
        }
        UpdateVerb::List {
            at,
            thing,
            group,
            json,
        } => {
            let filter = JobFilter {
                status: None,
                thing: name("--thing", thing.as_deref())?,
                group: name("--group", group.as_deref())?,
            };
            match place(at)? {
                Place::Box(cloud) => list(&cloud, filter, *json).await,
                Place::Aws(aws) => aws_jobs::list(&aws, thing.as_deref(), group.as_deref(), *json),
            }
        }
        UpdateVerb::Cancel {
            at,
            job,
            force,
            reason,
        } => {
            let id = job_id(job)?;
            let cloud = match place(at)? {
                Place::Box(cloud) => cloud,
                Place::Aws(aws) => {
                    return aws_jobs::cancel(&aws, id.as_str(), *force, reason.as_deref());
                }
            };
            let mut client = connect(&cloud).await?;
            let job = client
                .cancel_because(id, *force, reason.clone())
                .await
                .map_err(refused_of_job)?;
            print_job(&job, false);
            Ok(Exit::Done)
        }
        UpdateVerb::Delete { at, job, force } => {
            let id = job_id(job)?;
            let cloud = match place(at)? {
                Place::Box(cloud) => cloud,
                Place::Aws(aws) => return aws_jobs::delete(&aws, id.as_str(), *force),
            };
            let mut client = connect(&cloud).await?;
            let deleted = client
                .delete_job(id, *force)
                .await
                .map_err(refused_of_job)?;
            say(&format!("deleted   {job}"));
            if let Some(stream) = deleted.stream_id {
                say(&format!("stream    {stream}"));
            }
            for image in deleted.images {
                say(&format!("image     {image}"));
            }
            if deleted.executions > 0 {
                say(&format!("given up  on {} thing(s)", deleted.executions));
            }
            Ok(Exit::Done)
        }
    }
}

/// Where updates are looked for.
enum Place {
    /// In a cloud in a box.
    Box(CloudArg),
    /// At AWS.
    Aws(Program),
}

fn place(at: &PlaceArgs) -> Result<Place, Failed> {
    if at.aws {
        return Ok(Place::Aws(Program {
            path: "aws".into(),
            profile: at.profile.clone(),
            region: at.region.clone(),
        }));
    }
    match &at.cloud {
        Some(cloud) => Ok(Place::Box(CloudArg {
            cloud: cloud.clone(),
        })),
        None => Err(Failed::new(
            Exit::Usage,
            "--cloud is missing: the directory of a running `otad cloud`, or $OTAD_CLOUD; at AWS --aws",
        )),
    }
}

/// Nothing of that name, or nothing to do.
fn refused_of_job(error: OperatorError) -> Failed {
    let ended = matches!(&error, OperatorError::Refused(r) if r.code == "job_ended");
    let failed = refused_by_name(error);
    match ended {
        true => Failed::new(Exit::Nothing, failed.text),
        false => failed,
    }
}

fn job_id(text: &str) -> Result<JobId, Failed> {
    text.parse()
        .map_err(|e: NameError| Failed::new(Exit::Usage, e.to_string()))
}

fn name<N>(option: &str, text: Option<&str>) -> Result<Option<N>, Failed>
where
    N: std::str::FromStr,
    N::Err: std::error::Error,
{
    text.map(|text| {
        text.parse()
            .map_err(|e| Failed::chain(Exit::Usage, option, &e))
    })
    .transpose()
}

fn print_job(job: &JobView, json: bool) {
    if json {
        say(&serde_json::json!(job).to_string());
        return;
    }
    say(&format!("job       {}", job.job_id));
    if let Some(stream) = &job.stream_id {
        say(&format!("stream    {stream}"));
    }
    for group in &job.plan.groups {
        say(&format!("group     {group}"));
    }
    for execution in &job.executions {
        let line = format!(
            "thing     {}  {} {}",
            execution.thing,
            execution.status.as_str(),
            watch::details(&execution.status_details)
        );
        say(line.trim_end());
    }
    let sum = watch::sum(job.executions.iter().map(|e| e.status));
    say(&format!("sum       {sum}"));
    if let Some(waits_for) = job.waits_for {
        say(&format!(
            "rest      {}",
            words(waits_for, job.progress.held)
        ));
    }
    if let Some(reason) = &job.reason {
        say(&format!("cancelled {reason}"));
    }
}

fn words(waits_for: WaitsFor, held: usize) -> String {
    let why = match waits_for {
        WaitsFor::Canary => "until the canary has ended",
        WaitsFor::Batch(_) => "for the next minute's batch",
        WaitsFor::Results => "until enough have ended for --abort-if-failed to judge",
    };
    format!("{held} thing(s) wait {why}")
}

async fn list(cloud: &CloudArg, filter: JobFilter, json: bool) -> Verb {
    let mut client = connect(cloud).await?;
    let jobs = client.list_where(filter).await.map_err(refused)?;
    if json {
        say(&serde_json::json!(jobs).to_string());
    } else {
        for job in &jobs {
            let counts: Vec<String> = job
                .executions
                .iter()
                .map(|(status, count)| format!("{} {count}", status.as_str()))
                .collect();
            let continuous = if job.continuous { "  (continuous)" } else { "" };
            say(&format!(
                "{}  {}{continuous}",
                job.job_id,
                counts.join(", ")
            ));
        }
    }
    Ok(if jobs.is_empty() {
        Exit::Nothing
    } else {
        Exit::Done
    })
}
