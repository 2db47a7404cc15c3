//! `otad why`: what a device or a job waits for, from the daemon or from what a stopped one wrote down.

use host_runtime::history::JobRecord;
use serde_json::{Value, json};

use super::args::WhyArgs;
use super::control::{client, request};
use super::history::{Source, Told, asked, source, stories, warn};
use crate::control::protocol::Verb;
use crate::exit::{Exit, Failed, Verb as Ended};
use crate::lock;
use crate::past::time::duration;
use crate::past::{job, why};
use crate::progress::{is_heard, say};

pub(super) async fn follow(args: &WhyArgs) -> Ended {
    let known = match source(&args.device, args.state_dir.as_deref()).await? {
        Source::Daemon => from_daemon(args).await?,
        Source::Directory(dir) => {
            let is_running = lock::is_held(&dir);
            warn(&dir, is_running);
            let told = stories(&dir, args.device.device.as_deref(), is_running)?;
            Known {
                devices: told.iter().map(as_device).collect(),
                past: told
                    .into_iter()
                    .flat_map(|told| {
                        let device = told.device;
                        told.jobs.into_iter().map(move |job| (device.clone(), job))
                    })
                    .collect(),
            }
        }
    };
    let answers = known.answer(args.job.as_deref());
    if answers.is_empty() {
        return Err(Failed::new(
            Exit::Nothing,
            match &args.job {
                Some(job) => format!(
                    "no job \"{job}\" is under way, offered, or among the last ones; `otad history` lists those"
                ),
                None => "nothing is known of any device".to_owned(),
            },
        ));
    }
    if args.device.control.json {
        let list: Vec<&Value> = answers.iter().map(|answer| &answer.value).collect();
        say(&json!({ "answers": list }).to_string());
    } else {
        answers
            .iter()
            .flat_map(|answer| &answer.lines)
            .all(|line| is_heard(line));
    }
    Ok(Exit::Done)
}

/// Everything that an answer may come from.
struct Known {
    /// As in a status, or as written down.
    devices: Vec<Value>,
    past: Vec<(String, JobRecord)>,
}

struct Answer {
    value: Value,
    lines: Vec<String>,
}

async fn from_daemon(args: &WhyArgs) -> Result<Known, Failed> {
    let mut status = client(&args.device.control)?
        .gather(&request(&args.device, Verb::Status), "devices")
        .await?;
    Ok(Known {
        devices: match status["devices"].take() {
            Value::Array(devices) => devices,
            _ => Vec::new(),
        },
        past: match args.job {
            Some(_) => asked(&args.device, None).await?,
            None => Vec::new(),
        },
    })
}

/// The last words as a status has them.
fn as_device(told: &Told) -> Value {
    let Some(words) = &told.words else {
        // It never waited for long, and was never stopped in order.
        let open = told.jobs.last().filter(|job| job.end.is_none());
        return json!({
            "device": told.device, "stopped": false, "running": told.is_running, "job_id": open.map(|job| &job.job_id),
            "state_name": "not written down",
        });
    };
    let mut value = json!(words);
    value["running"] = json!(told.is_running);
    // The words may be older than the job.
    if let Some(open) = told.jobs.last().filter(|job| job.end.is_none()) {
        value["job_id"] = json!(open.job_id);
    }
    value
}

impl Known {
    fn answer(&self, job: Option<&str>) -> Vec<Answer> {
        let Some(job) = job else {
            return self.devices.iter().map(answer).collect();
        };
        let active = self.devices.iter().filter(|d| d["job_id"] == job);
        let active: Vec<Answer> = active.map(answer).collect();
        if !active.is_empty() {
            return active;
        }
        let of_job = |device: &&Value| device["offer"]["job_id"] == job;
        let offers = self.devices.iter().filter(of_job);
        let offers: Vec<Answer> = offers.map(offered).collect();
        if !offers.is_empty() {
            return offers;
        }
        let past = self.past.iter().filter(|(_, record)| record.job_id == job);
        past.map(|(device, record)| Answer {
            value: job::as_json(device, record),
            lines: job::lines(device, record),
        })
        .collect()
    }
}

fn answer(device: &Value) -> Answer {
    Answer {
        value: why::as_json(device),
        lines: why::lines(device),
    }
}

/// Of a job that waits for somebody's answer.
fn offered(device: &Value) -> Answer {
    let offer = &device["offer"];
    let word = |of: &Value| of.as_str().unwrap_or("?").to_owned();
    let (name, words) = (word(&device["device"]), word(&offer["words"]));
    let limit = offer["gives_up_in_ms"]
        .as_u64()
        .map_or_else(String::new, |ms| format!("; given up in {}", duration(ms)));
    Answer {
        value: offer.clone(),
        lines: vec![format!("{name}: {words}{limit}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let record = |id: &str| JobRecord {
            job_id: id.to_owned(),
            ..JobRecord::default()
        };
        Known {
            devices: vec![
                json!({ "device": "pump-1", "job_id": "now", "state_name": "Testing" }),
                json!({
                    "device": "pump-2", "job_id": null, "state_name": "WaitingForJob",
                    "offer": { "job_id": "offered", "words": "job offered waits", "gives_up_in_ms": 60_000 },
                }),
            ],
            past: vec![
                ("pump-1".to_owned(), record("then")),
                ("pump-1".to_owned(), record("now")),
            ],
        }
    }

    fn first_line(job: Option<&str>) -> Vec<String> {
        let answers = known().answer(job);
        answers.into_iter().map(|mut a| a.lines.remove(0)).collect()
    }

    #[test]
    fn without_a_job_every_device_answers() {
        let wanted = [
            "pump-1: job now, Testing",
            "pump-2: no job under way, WaitingForJob",
        ];
        assert_eq!(first_line(None), wanted);
    }

    #[test]
    fn a_job_is_found_where_it_is_first_under_way_then_offered_then_past() {
        assert_eq!(first_line(Some("now")), ["pump-1: job now, Testing"]);
        let offered = first_line(Some("offered")).remove(0);
        assert_eq!(offered, "pump-2: job offered waits; given up in 60.0 s");
        assert!(first_line(Some("then"))[0].contains("then  IN_PROGRESS"));
        assert_eq!(first_line(Some("other")), [""; 0]);
    }

    #[test]
    fn what_was_never_written_down_is_not_made_up() {
        let told = Told {
            device: "pump-1".to_owned(),
            jobs: vec![JobRecord {
                job_id: "j".to_owned(),
                ..JobRecord::default()
            }],
            words: None,
            is_running: false,
        };
        let device = as_device(&told);
        assert_eq!(device["job_id"], "j");
        let text = why::lines(&device).join("\n");
        assert!(text.ends_with("was not stopped in order"), "{text}");
        let device = as_device(&Told {
            is_running: true,
            ..told
        });
        // That a daemon runs is told once, not of each device.
        let head = "pump-1: job j, not written down";
        assert_eq!(why::lines(&device), [head]);
    }
}
