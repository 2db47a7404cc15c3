//! The verbs that ask the running daemon: suspend, resume, abort, poll, activate, commit, rollback, events, job.

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{ControlArgs, DeviceArgs, EventsArgs, JobVerb, RollbackArgs, TargetArgs};
use super::load;
use crate::control::client::Client;
use crate::control::protocol::{Request, Verb};
use crate::exit::{Exit, Failed, Verb as Ended};
use crate::hooks::{JobView, Waiting};
use crate::progress::{is_heard, note, say};

/// A client of the daemon: by --socket, or by the configuration's socket.
pub(super) fn client(args: &ControlArgs) -> Result<Client, Failed> {
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => load(&args.config)?.daemon.control_socket.value,
    };
    Ok(Client::new(&path))
}

pub(super) fn request(args: &DeviceArgs, verb: Verb) -> Request {
    Request {
        device: args.device.clone(),
        ..Request::new(verb)
    }
}

/// Ask, and say that it is done.
pub(super) async fn done(args: &DeviceArgs, request: Request, words: &str) -> Ended {
    let value = client(&args.control)?.call(&request).await?;
    if args.control.json {
        say(&value.to_string());
    } else {
        say(words);
    }
    Ok(Exit::Done)
}

pub(super) async fn suspend(args: &DeviceArgs) -> Ended {
    done(args, request(args, Verb::Suspend), "suspended").await
}

pub(super) async fn resume(args: &DeviceArgs) -> Ended {
    done(args, request(args, Verb::Resume), "resumed").await
}

pub(super) async fn abort(args: &DeviceArgs) -> Ended {
    done(args, request(args, Verb::Abort), "the job is given up").await
}

pub(super) async fn poll(args: &DeviceArgs) -> Ended {
    done(
        args,
        request(args, Verb::Poll),
        "the job service will be asked",
    )
    .await
}

async fn on_target(args: &TargetArgs, verb: Verb, words: &str) -> Ended {
    let request = Request {
        target: args.target.clone(),
        ..request(&args.device, verb)
    };
    done(&args.device, request, words).await
}

pub(super) async fn activate(args: &TargetArgs) -> Ended {
    on_target(args, Verb::Activate, "the activation goes on").await
}

pub(super) async fn commit(args: &TargetArgs) -> Ended {
    on_target(args, Verb::Commit, "noted: the image in test is good").await
}

pub(super) async fn rollback(args: &RollbackArgs) -> Ended {
    let reason = args.reason.clone();
    on_target(
        &args.target,
        Verb::Rollback { reason },
        "noted: the image in test is bad",
    )
    .await
}

pub(super) async fn job(verb: &JobVerb) -> Ended {
    match verb {
        JobVerb::List(device) => jobs(device).await,
        JobVerb::Finish {
            device,
            job,
            status,
            reason,
        } => {
            let verb = Verb::Finish {
                job: job.clone(),
                status: *status,
                reason: reason.clone(),
            };
            done(device, request(device, verb), "the job's end is noted").await
        }
        JobVerb::Approve { device, job } => {
            let verb = Verb::Approve { job: job.clone() };
            done(device, request(device, verb), "the job is taken").await
        }
        JobVerb::Decline {
            device,
            job,
            reason,
        } => {
            let verb = Verb::Decline {
                job: job.clone(),
                reason: reason.clone(),
            };
            done(device, request(device, verb), "the job is refused").await
        }
    }
}

async fn jobs(args: &DeviceArgs) -> Ended {
    let (mut jobs, mut silent) = (Vec::new(), Vec::new());
    let each = |item: Value| {
        let is_job = item["failed"].is_null();
        if is_job { &mut jobs } else { &mut silent }.push(item);
    };
    client(&args.control)?
        .stream(&request(args, Verb::Jobs), each)
        .await?;
    if args.control.json {
        say(&json!({ "jobs": jobs, "silent": silent }).to_string());
    } else {
        for job in &jobs {
            let job = JobView::deserialize(job);
            let job = job.map_err(|e| Failed::chain(Exit::Failed, "the daemon's answer", &e))?;
            say(&job_line(&job));
        }
    }
    silent.iter().for_each(|device| note(&silence(device)));
    Ok(match (&jobs[..], &silent[..]) {
        ([], []) => Exit::Nothing,
        // Whether there are any is not known.
        ([], _) => Exit::Retry,
        _ => Exit::Done,
    })
}

/// Says which devices say nothing of themselves; false = there are none of these.
pub(super) fn note_silent(status: &Value) -> bool {
    let devices = status["devices"].as_array().map_or(&[][..], Vec::as_slice);
    let silent: Vec<_> = devices.iter().filter(|d| d["failed"].is_string()).collect();
    silent.iter().for_each(|device| note(&silence(device)));
    !silent.is_empty()
}

/// A device that says nothing of itself: `pump-1: no status: its record is damaged`.
pub(super) fn silence(device: &Value) -> String {
    let text = |key: &str| device[key].as_str().unwrap_or("-");
    format!("{}: no status: {}", text("device"), text("failed"))
}

/// One job for people: `reboot-7 of pump-1: runs elsewhere, ends by otad job finish; given up in 3600 s`.
fn job_line(job: &JobView) -> String {
    let what = match job.waits_for {
        Waiting::Offer => "offered: otad job approve or decline",
        Waiting::Taker => "no update: waits for a hook or otad job finish",
        Waiting::Finish => "run by the application: ends by otad job finish",
        Waiting::Nothing => job.state_name.as_str(),
    };
    let limit = match (job.waits_for, job.gives_up_in_ms) {
        (Waiting::Nothing, _) | (_, None) => String::new(),
        (_, Some(ms)) => format!("; given up in {} s", ms / 1000),
    };
    format!("{} of {}: {what}{limit}", job.job_id, job.device)
}

pub(super) async fn events(args: &EventsArgs) -> Ended {
    let verb = Verb::Events {
        after: args.after,
        follow: args.follow,
    };
    let request = request(&args.device, verb);
    let json = args.device.control.json;
    let mut any = false;
    client(&args.device.control)?
        .stream(&request, |event| {
            let is_before = event["sequence"].as_u64().is_some_and(|n| n <= args.after);
            if is_before && !any {
                note(&format!(
                    "no event that is kept has a number above {}: these are all",
                    args.after
                ));
            }
            any = true;
            let text = if json {
                event.to_string()
            } else {
                line(&event)
            };
            if !is_heard(&text) {
                // Nobody reads any more, and nothing here wants an orderly end.
                std::process::exit(i32::from(Exit::Done.code()));
            }
        })
        .await?;
    Ok(if any { Exit::Done } else { Exit::Nothing })
}

/// One event for people: `41 pump-1 activate job AFR_OTA-7 file 0 version 1.1.0`.
fn line(event: &Value) -> String {
    let text = |key: &str| match &event[key] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let mut line = format!(
        "{:>6} {}",
        text("sequence").unwrap_or_default(),
        text("name").unwrap_or_default()
    );
    for key in ["device", "job_id", "file", "version"] {
        if let Some(value) = text(key) {
            line.push_str(&format!(" {} {value}", key.trim_end_matches("_id")));
        }
    }
    if let Some(detail) = event["failure"]["detail"].as_str() {
        line.push_str(&format!(": {detail}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_what_is_known() {
        let event = serde_json::json!({
            "sequence": 41, "name": "fail", "device": "pump-1", "job_id": "j-1", "file": null,
            "failure": { "main": 227, "sub": 0, "detail": "signature does not fit" },
        });
        assert_eq!(
            line(&event),
            "    41 fail device pump-1 job j-1: signature does not fit"
        );
    }
}
