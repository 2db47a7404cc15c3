//! What a device waits for, in words that say who has to do something.

use serde_json::{Value, json};

use super::time::{duration, utc};

/// `wait.reason` in words: what it means for whoever waits for the update.
const WAITS: [&str; 11] = [
    "does not wait",
    "nothing to do: the job service has no job for it; a new one is told at once",
    "waits for the job service's answer",
    "waits for data of the image",
    "the gateway works",
    "the image is verified and lies ready: waits for the order to restart into it (`otad activate`, or the activate hook)",
    "waits for a target to come back with the new image",
    "the new image runs in its test: waits for the verdict",
    "the update is done here: waits until the job service has taken the status",
    "waits for a connection",
    "stopped by an operator: waits for `otad resume`",
];

/// `wait.reason` of those whose detail adds nothing.
const PLAIN: [u64; 6] = [0, 2, 5, 8, 9, 10];

/// `wait.reason`: a job, or somebody's word on one.
const IDLE: u64 = 1;

/// Its detail where it is the first, by the agents that are part of otad.
const A_JOB: [&str; 2] = ["a job", ""];

/// The words where it may be either, and nobody can be asked.
const ASKED: &str = "waits for a job, or for somebody's word on one";

/// `wait.reason`: data of the image.
const BLOCKS: u64 = 3;

/// What is known of one device, wherever it comes from: `device`, `state_name`, `job_id`, `files`, `wait`, `agent`,
/// `connected`, `connection`, `last_error` of a status, or what was written down of them; `offer`: the job that waits for
/// somebody's answer, with `words`, where that was asked.
#[must_use]
pub fn lines(device: &Value) -> Vec<String> {
    let name = device["device"].as_str().unwrap_or("?");
    if let Some(why) = device["failed"].as_str() {
        return vec![format!("{name}: does not run: {why}")];
    }
    let mut lines = vec![head(name, device)];
    let indented = told(device)
        .into_iter()
        .chain(broken(device))
        .chain(damaged(device))
        .chain(wait(device))
        .chain(connection(device));
    lines.extend(indented.map(|line| format!("  {line}")));
    if let Some(error) = device["last_error"].as_str() {
        lines.push(format!("  the gateway's last trouble: {error}"));
    }
    lines
}

fn head(name: &str, device: &Value) -> String {
    let state = device["state_name"].as_str().unwrap_or("unknown");
    let mut line = match device["job_id"].as_str() {
        Some(job) => format!("{name}: job {job}, {state}"),
        None => format!("{name}: no job under way, {state}"),
    };
    for file in device["files"].as_array().map_or(&[][..], Vec::as_slice) {
        let number = |key: &str| file[key].as_u64().unwrap_or(0);
        let phase = file["phase_name"].as_str().unwrap_or("?");
        line.push_str(&format!("; file {} {phase}", number("file_id")));
        if number("total") > 0 {
            line.push_str(&format!(" {} of {}", number("done"), number("total")));
        }
    }
    line
}

/// When it was written down, of a daemon that is not there.
fn told(device: &Value) -> Option<String> {
    let stopped = device["stopped"].as_bool()?;
    let is_running = device["running"] == true;
    let Some(at) = device.get("at_s") else {
        // Nothing was.
        let killed = "the daemon does not run and was not stopped in order";
        return (!is_running).then(|| killed.to_owned());
    };
    let at = at
        .as_u64()
        .map_or_else(|| "an unknown time".to_owned(), utc);
    Some(match (is_running, stopped) {
        (true, _) => format!("written down at {at}"),
        (false, true) => {
            format!(
                "the daemon does not run; it was stopped at {at}, and what follows was true then"
            )
        }
        (false, false) => format!(
            "the daemon does not run and was not stopped in order; what follows was true at {at}"
        ),
    })
}

fn broken(device: &Value) -> Option<String> {
    let agent = &device["agent"];
    if agent["life"] != "broken" {
        return None;
    }
    let strikes = agent["strikes"].as_u64().unwrap_or(0);
    let again = agent["retry_in_ms"]
        .as_u64()
        .map_or_else(String::new, |ms| {
            format!("; it is started again in {}", duration(ms))
        });
    Some(format!("the agent broke {strikes} times in a row{again}"))
}

/// The targets whose record or running image is damaged or out of date, with what the target says of that.
fn damaged(device: &Value) -> Vec<String> {
    let targets = device["targets"].as_array().map_or(&[][..], Vec::as_slice);
    let damaged = targets.iter().filter(|target| {
        let is_damaged = target["phase"] == "damaged" || target["image_state"] == "damaged";
        is_damaged || target["record_outdated"] == true
    });
    let line = |target: &Value| {
        let name = target["name"].as_str().unwrap_or("?");
        // Damage stands before what else there is to warn of.
        let words = target["warnings"][0].as_str().unwrap_or("damaged");
        format!("target {name}: {words}")
    };
    damaged.map(line).collect()
}

/// Whether it was written down.
fn is_stored(device: &Value) -> bool {
    device.get("stopped").is_some()
}

fn wait(device: &Value) -> Vec<String> {
    let wait = &device["wait"];
    let Some(reason) = wait["reason"].as_u64() else {
        return Vec::new();
    };
    let words = usize::try_from(reason).ok().and_then(|at| WAITS.get(at));
    let detail = wait["detail"].as_str().unwrap_or_default();
    let offer = device["offer"]["words"].as_str();
    let (words, is_plain) = match offer.filter(|_| reason == IDLE) {
        Some(words) => (words, true),
        None if reason == IDLE && !A_JOB.contains(&detail) => (ASKED, false),
        None => (
            *words.unwrap_or(&"waits"),
            reason == IDLE || PLAIN.contains(&reason),
        ),
    };
    let mut line = words.to_owned();
    if !detail.is_empty() && !is_plain {
        line.push_str(&format!(" ({detail})"));
    }
    let number = |key: &str| wait[key].as_u64();
    line.push_str(&format!(
        ", for {}",
        duration(number("waiting_ms").unwrap_or(0))
    ));
    let mut lines = vec![line];
    // The agent waits for something of its own, too.
    lines.extend(offer.filter(|_| reason != IDLE).map(str::to_owned));
    let tries = number("tries").unwrap_or(0);
    if tries > 0 {
        lines.push(format!("asked {tries} times without success"));
    }
    // Without a connection the agent's own time says little: it looks as soon as there is one.
    let tries_again = number("next_try_in_ms");
    let next = tries_again.filter(|_| device["connected"] != false);
    let next = next.map(|ms| format!("looks again in {}", duration(ms)));
    let end = match number("gives_up_in_ms") {
        Some(ms) => Some(format!("gives up in {}", duration(ms))),
        // Blocks are not given up by the clock, but after so many requests that brought nothing.
        None if tries_again.is_some() && reason != BLOCKS => Some("does not give up".to_owned()),
        None => None,
    };
    let times: Vec<String> = next.into_iter().chain(end).collect();
    if !times.is_empty() {
        lines.push(times.join("; "));
    }
    lines.extend(last_error(&wait["last_error"]));
    lines
}

fn last_error(error: &Value) -> Vec<String> {
    let (Some(main), Some(sub)) = (error["main"].as_u64(), error["sub"].as_u64()) else {
        return Vec::new();
    };
    let detail = error["detail"].as_str().unwrap_or_default();
    let mut lines = vec![format!("last error: {detail} (0x{main:02x}: {sub:#x})")];
    let known = super::failure(main, sub);
    if let (Some(meaning), Some(cure)) = (known["meaning"].as_str(), known["cure"].as_str()) {
        lines.push(format!("  {meaning}"));
        lines.push(format!("  do: {cure}"));
    }
    lines
}

fn connection(device: &Value) -> Option<String> {
    if device["connected"] != false {
        return None;
    }
    let connection = &device["connection"];
    let Some(endpoint) = connection["endpoint"].as_str() else {
        return Some("there was no connection".to_owned());
    };
    let attempts = connection["attempts"].as_u64().unwrap_or(0);
    let error = connection["last_error"].as_str().unwrap_or("nothing yet");
    Some(format!(
        "no connection to {endpoint} after {attempts} attempts: {error}{}",
        next_attempt(connection)
    ))
}

/// When a connection that waits is tried again; empty where it does not wait.
#[must_use]
pub fn next_attempt(connection: &Value) -> String {
    let pause = connection["state"]["waiting"]["retry_ms"].as_u64();
    pause.map_or_else(String::new, |ms| {
        format!(
            "; the next attempt is made after a pause of {}",
            duration(ms)
        )
    })
}

/// The same for programs: what the device shows, with the wait's words and the cure of its last error.
#[must_use]
pub fn as_json(device: &Value) -> Value {
    let mut value = json!({});
    for key in [
        "device",
        "failed",
        "state_name",
        "job_id",
        "files",
        "wait",
        "connected",
        "connection",
        "agent",
        "offer",
        "last_error",
        "at_s",
        "stopped",
        "running",
    ] {
        if let Some(known) = device.get(key) {
            value[key] = known.clone();
        }
    }
    let error = &device["wait"]["last_error"];
    if let (Some(main), Some(sub)) = (error["main"].as_u64(), error["sub"].as_u64()) {
        value["wait"]["last_error"]["explained"] = super::failure(main, sub);
    }
    value["words"] = json!(lines(device));
    value["from"] = json!(match is_stored(device) {
        true => "state directory",
        false => "daemon",
    });
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Value {
        json!({
            "device": "pump-1", "connected": false, "state_name": "WaitingForFileBlock", "job_id": "j-1",
            "files": [{ "file_id": 0, "phase_name": "Receiving", "done": 3, "total": 512 }],
            "connection": { "endpoint": "localhost:8883", "last_error": "closed by peer", "attempts": 4,
                            "state": { "waiting": { "retry_ms": 2000 } } },
            "agent": { "life": "running" },
            "wait": { "reason": 3, "reason_name": "blocks", "detail": "block 3 of file 0", "waiting_ms": 1234, "tries": 2,
                      "next_try_in_ms": 800, "gives_up_in_ms": 90_000,
                      "last_error": { "main": 0x0e, "sub": 0, "detail": "32 requests" } },
            "last_error": null,
        })
    }

    #[test]
    fn it_says_what_is_missing_since_when_how_often_until_when_and_what_to_do() {
        let text = lines(&device()).join("\n");
        for line in [
            "pump-1: job j-1, WaitingForFileBlock; file 0 Receiving 3 of 512",
            "  waits for data of the image (block 3 of file 0), for 1.2 s",
            "  asked 2 times without success",
            "  gives up in 90.0 s",
            "  last error: 32 requests (0x0e: 0x0)",
            "    do: check the network and the stream; raise `momentum_max` or `request_timeout_ms` on slow links",
            "  no connection to localhost:8883 after 4 attempts: closed by peer; the next attempt is made after a pause of 2.0 s",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let mut connected = device();
        connected["connected"] = json!(true);
        let text = lines(&connected).join("\n");
        assert!(
            text.contains("\n  looks again in 0.8 s; gives up in 90.0 s\n"),
            "{text}"
        );
    }

    #[test]
    fn an_idle_device_is_not_said_to_miss_anything() {
        let device = json!({
            "device": "pump-1", "connected": true, "state_name": "WaitingForJob", "job_id": null, "files": [],
            "wait": { "reason": 1, "detail": "a job", "waiting_ms": 200_000_000, "tries": 0 },
        });
        assert_eq!(
            lines(&device),
            [
                "pump-1: no job under way, WaitingForJob",
                "  nothing to do: the job service has no job for it; a new one is told at once, for 2 d 7 h",
            ]
        );
    }

    #[test]
    fn a_job_that_was_offered_waits_for_an_operator() {
        let mut device = json!({
            "device": "pump-1", "connected": true, "state_name": "WaitingForJob", "job_id": null, "files": [],
            "wait": { "reason": 1, "detail": "answer to job ask12", "waiting_ms": 26_400, "tries": 0 },
            "stopped": true, "at_s": 1_795_245_243,
        });
        // As it was written down.
        assert_eq!(
            lines(&device)[2],
            "  waits for a job, or for somebody's word on one (answer to job ask12), for 26.4 s"
        );
        device["wait"]["detail"] = json!("");
        assert_eq!(
            lines(&device)[2],
            "  nothing to do: the job service has no job for it; a new one is told at once, for 26.4 s"
        );
        // As the daemon knows it.
        device.as_object_mut().unwrap().remove("stopped");
        device["offer"] = json!({ "words": "job ask12 waits for an answer" });
        assert_eq!(
            lines(&device)[1],
            "  job ask12 waits for an answer, for 26.4 s"
        );
        device["wait"]["reason"] = json!(2);
        assert_eq!(
            lines(&device)[1..],
            [
                "  waits for the job service's answer, for 26.4 s",
                "  job ask12 waits for an answer",
            ]
        );
    }

    #[test]
    fn a_damaged_target_is_named_and_a_whole_one_is_not() {
        let target = |name: &str, phase: &str, image: &str| {
            let warning = format!("{name} is it");
            json!({ "name": name, "phase": phase, "image_state": image, "warnings": [warning] })
        };
        let mut device = device();
        device["targets"] = json!([
            target("a", "damaged", "unknown"),
            target("b", "none", "valid"),
            target("c", "committed", "damaged"),
        ]);
        let text = lines(&device).join("\n");
        assert!(
            text.contains("\n  target a: a is it\n  target c: c is it\n"),
            "{text}"
        );
        assert!(!text.contains("b is it"), "{text}");
    }

    #[test]
    fn what_a_stopped_daemon_left_says_when_it_was_true() {
        let mut device = device();
        device["at_s"] = json!(1_795_245_243);
        for (stopped, words) in [
            (true, "it was stopped at 2026-11-21 07:14:03Z"),
            (false, "was not stopped in order"),
        ] {
            device["stopped"] = json!(stopped);
            let text = lines(&device).join("\n");
            assert!(text.contains(words), "{words} is not in\n{text}");
            assert_eq!(as_json(&device)["from"], "state directory");
        }
    }

    #[test]
    fn a_broken_agent_and_a_device_that_does_not_run_are_named() {
        let mut device = device();
        device["agent"] = json!({ "life": "broken", "strikes": 5, "retry_in_ms": 2000 });
        let text = lines(&device).join("\n");
        assert!(
            text.contains("the agent broke 5 times in a row; it is started again in 2.0 s"),
            "{text}"
        );
        let silent = json!({ "device": "pump-2", "failed": "its record is damaged" });
        assert_eq!(
            lines(&silent),
            ["pump-2: does not run: its record is damaged"]
        );
    }

    #[test]
    fn every_reason_of_the_contract_has_words() {
        assert_eq!(WAITS.len(), host_runtime::status::WAIT_NAMES.len());
        // Of a newer agent, or of a damaged file.
        for reason in [11, u64::MAX] {
            let device = json!({ "device": "x", "wait": { "reason": reason } });
            assert!(lines(&device).join("\n").contains("waits, for 0.0 s"));
        }
    }
}
