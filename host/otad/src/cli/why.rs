//! `otad why`: what a device or a job waits for, from the daemon or from what a stopped one wrote down.

use std::collections::BTreeMap;

use host_runtime::history::JobRecord;
use serde_json::{Value, json};

use super::args::WhyArgs;
use super::control::{client, request};
use super::history::{Source, Told, asked, source, stories, warn};
use crate::control::client::Client;
use crate::control::protocol::Verb;
use crate::exit::{Exit, Failed, Verb as Ended};
use crate::hooks::{JobView, Waiting};
use crate::lock;
use crate::past::{job, why};
use crate::progress::{is_heard, note, say};

pub(super) async fn follow(args: &WhyArgs) -> Ended {
    let known = match source(&args.device, args.state_dir.as_deref()).await? {
        Source::Daemon => from_daemon(args).await?,
        Source::Directory(dir) => {
            let is_running = lock::is_held(&dir);
            warn(&dir, is_running);
            let told = stories(&dir, args.device.device.as_deref(), is_running)?;
            Known {
                devices: told.iter().map(as_device).collect(),
                offers: Vec::new(),
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
    /// Jobs that wait for somebody's answer.
    offers: Vec<JobView>,
    past: Vec<(String, JobRecord)>,
}

struct Answer {
    value: Value,
    lines: Vec<String>,
}

async fn from_daemon(args: &WhyArgs) -> Result<Known, Failed> {
    let client = client(&args.device.control)?;
    let mut status = client
        .gather(&request(&args.device, Verb::Status), "devices")
        .await?;
    let mut devices = match status["devices"].take() {
        Value::Array(devices) => devices,
        _ => Vec::new(),
    };
    let offers = match offers(args, &client).await {
        // The others are known all the same.
        Err(failed) if args.job.is_none() => {
            note(&format!(
                "which jobs wait for somebody's answer is not known: {failed}"
            ));
            Vec::new()
        }
        offers => offers?,
    };
    attach(&offers, &mut devices);
    let past = match args.job {
        Some(_) => asked(&args.device, None).await?,
        None => Vec::new(),
    };
    Ok(Known {
        devices,
        offers,
        past,
    })
}

/// The jobs that wait for somebody's answer.
async fn offers(args: &WhyArgs, client: &Client) -> Result<Vec<JobView>, Failed> {
    let mut jobs = client
        .gather(&request(&args.device, Verb::Jobs), "jobs")
        .await?;
    let mut offers: Vec<JobView> = serde_json::from_value(jobs["jobs"].take())
        .map_err(|e| Failed::chain(Exit::Failed, "the daemon's answer", &e))?;
    offers.retain(|job| job.waits_for != Waiting::Nothing);
    Ok(offers)
}

/// What a device's job waits for is said of the device, too. A device has one at most.
fn attach(offers: &[JobView], devices: &mut [Value]) {
    let offers: BTreeMap<&str, &JobView> = offers.iter().map(|o| (&*o.device, o)).collect();
    for device in devices {
        let offer = device["device"].as_str().and_then(|name| offers.get(name));
        if let Some(offer) = offer {
            device["offer"] = json!({
                "job_id": offer.job_id, "waits_for": offer.waits_for, "words": offer.words(),
            });
        }
    }
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
        let offers: Vec<Answer> = self
            .offers
            .iter()
            .filter(|offer| offer.job_id == job)
            .map(offered)
            .collect();
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

fn offered(offer: &JobView) -> Answer {
    let (device, words) = (&offer.device, offer.words());
    let limit = offer.gives_up_in_ms.map_or_else(String::new, |ms| {
        format!("; given up in {}", crate::past::time::duration(ms))
    });
    Answer {
        value: json!(offer),
        lines: vec![format!("{device}: {words}{limit}")],
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
                json!({ "device": "pump-2", "job_id": null, "state_name": "WaitingForJob" }),
            ],
            offers: vec![JobView {
                device: "pump-2".to_owned(),
                job_id: "offered".to_owned(),
                waits_for: Waiting::Offer,
                state_name: String::new(),
                gives_up_in_ms: Some(60_000),
                document: None,
            }],
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
        assert!(offered.contains("otad job approve offered"), "{offered}");
        assert!(offered.ends_with("given up in 60.0 s"), "{offered}");
        assert!(first_line(Some("then"))[0].contains("then  IN_PROGRESS"));
        assert_eq!(first_line(Some("other")), [""; 0]);
    }

    #[test]
    fn what_an_offer_waits_for_is_said_of_its_device() {
        let mut known = known();
        attach(&known.offers, &mut known.devices);
        known.devices[1]["wait"] = json!({ "reason": 1, "detail": "?", "waiting_ms": 26_400 });
        let answers = known.answer(None);
        assert_eq!(
            answers[1].lines[1],
            "  job offered waits for an answer: that of a hook, or `otad job approve offered` or decline, for 26.4 s"
        );
        assert_eq!(answers[1].value["offer"]["waits_for"], "offer");
        assert_eq!(answers[0].value.get("offer"), None);
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
