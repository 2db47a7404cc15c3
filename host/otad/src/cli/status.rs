//! `otad status`: for people a few lines a device, once or every second.

use std::time::Duration;

use serde_json::Value;

use super::args::StatusArgs;
use super::control::{client, request};
use crate::control::protocol::Verb;
use crate::exit::{Exit, Verb as Ended};
use crate::past::time::duration;
use crate::past::why::next_attempt;
use crate::progress::is_heard;

const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn follow(args: &StatusArgs) -> Ended {
    let control = &args.device.control;
    let client = client(control)?;
    let request = request(&args.device, Verb::Status);
    loop {
        let status = client.gather(&request, "devices").await?;
        let devices = list(&status, "devices").iter();
        let lines: Vec<String> = match (control.json, args.watch) {
            (true, _) => vec![status.to_string()],
            (false, true) => devices.map(short).collect(),
            (false, false) => devices.map(long).collect(),
        };
        if !lines.iter().all(|line| is_heard(line)) || !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// The C demo's line, and how far the download is.
fn short(device: &Value) -> String {
    if let Some(why) = device["failed"].as_str() {
        return format!("{}  no status: {why}", text(device, "device"));
    }
    let counters = &device["counters"];
    let mut line = format!(
        "{}  State: {}  Received: {}  Queued: {}  Processed: {}  Dropped: {}",
        text(device, "device"),
        text(device, "state_name"),
        number(counters, "received"),
        number(counters, "queued"),
        number(counters, "processed"),
        number(counters, "dropped"),
    );
    for file in list(device, "files") {
        let (done, total) = (number(file, "done"), number(file, "total"));
        line.push_str(&format!(
            "  file {} {} {done}/{total}",
            number(file, "file_id"),
            text(file, "phase_name")
        ));
    }
    line
}

fn long(device: &Value) -> String {
    let mut lines = vec![short(device)];
    if device["failed"].is_string() {
        return lines.remove(0);
    }
    let connection = &device["connection"];
    if device["connected"] == true {
        lines.push(format!("  connected to {}", text(connection, "endpoint")));
    } else {
        lines.push(format!(
            "  not connected to {}: {}{}",
            text(connection, "endpoint"),
            text(connection, "last_error"),
            next_attempt(connection)
        ));
    }
    if let Some(job) = device["job_id"].as_str() {
        lines.push(format!("  job {job}"));
    }
    if device["agent"]["life"] == "parked" {
        lines.push("  agent parked, until something happens".to_owned());
    }
    if let Some(wait) = wait(device) {
        lines.push(format!("  waits for {wait}"));
    }
    for target in list(device, "targets") {
        lines.push(format!(
            "  target {} (file {}): version {}, image {}, plugin {}",
            text(target, "name"),
            number(target, "file_id"),
            text(target, "running_version"),
            image_state(target),
            text(target, "plugin"),
        ));
        for warning in list(target, "warnings") {
            lines.push(format!("    warning: {}", warning.as_str().unwrap_or("")));
        }
    }
    if let Some(error) = device["last_error"].as_str() {
        lines.push(format!("  last error: {error}"));
    }
    lines.join("\n")
}

/// `target-state` for people: the contract's `invalid` is said of the new image, not of the one that runs.
fn image_state(target: &Value) -> &str {
    match text(target, "image_state") {
        "invalid" => "valid, the new one was refused",
        other => other,
    }
}

/// What it waits for, since when, and when it tries again or gives up.
fn wait(device: &Value) -> Option<String> {
    let wait = &device["wait"];
    let mut line = wait["reason_name"].as_str()?.to_owned();
    let detail = text(wait, "detail");
    if detail != "-" && !detail.is_empty() && detail != line {
        line.push_str(&format!(" ({detail})"));
    }
    line.push_str(&format!(" for {}", duration(number(wait, "waiting_ms"))));
    let tries = number(wait, "tries");
    if tries > 1 {
        line.push_str(&format!(", asked {tries} times"));
    }
    for (key, words) in [
        ("next_try_in_ms", "next look in"),
        ("gives_up_in_ms", "gives up in"),
    ] {
        // Without a connection the agent's own time says little: it looks as soon as there is one.
        let counts = key != "next_try_in_ms" || device["connected"] == true;
        if let Some(ms) = wait[key].as_u64().filter(|_| counts) {
            line.push_str(&format!(", {words} {}", duration(ms)));
        }
    }
    if let Some(detail) = wait["last_error"]["detail"].as_str() {
        line.push_str(&format!("; last error: {detail}"));
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Value {
        serde_json::json!({
            "device": "pump-1", "connected": false, "state_name": "WaitingForFileBlock", "job_id": "j-1",
            "counters": { "received": 5, "queued": 4, "processed": 3, "dropped": 1 },
            "files": [{ "file_id": 0, "phase_name": "Receiving", "done": 3, "total": 512 }],
            "connection": { "endpoint": "localhost:8883", "last_error": "closed by peer",
                            "state": { "waiting": { "retry_ms": 2000 } } },
            "wait": { "reason_name": "blocks", "detail": "block 3 of file 0", "waiting_ms": 1234, "tries": 2,
                      "next_try_in_ms": 800, "gives_up_in_ms": null, "last_error": null },
            "targets": [{ "name": "main", "file_id": 0, "running_version": "1.0.0", "image_state": "valid",
                          "plugin": "builtin:flash-file", "warnings": ["unsigned images are taken"] }],
            "last_error": null,
        })
    }

    #[test]
    fn the_watch_line_is_the_one_of_the_c_demo() {
        assert_eq!(
            short(&device()),
            "pump-1  State: WaitingForFileBlock  Received: 5  Queued: 4  Processed: 3  Dropped: 1  file 0 Receiving 3/512"
        );
    }

    #[test]
    fn a_device_that_says_nothing_is_one_line_with_the_reason() {
        let device = serde_json::json!({ "device": "pump-1", "failed": "its record is damaged" });
        let line = "pump-1  no status: its record is damaged";
        assert_eq!((short(&device), long(&device)), (line.into(), line.into()));
    }

    #[test]
    fn the_long_form_says_what_is_waited_for() {
        let text = long(&device());
        for line in [
            "  not connected to localhost:8883: closed by peer; the next attempt is made after a pause of 2.0 s",
            "  job j-1",
            "  waits for blocks (block 3 of file 0) for 1.2 s, asked 2 times",
            "  target main (file 0): version 1.0.0, image valid, plugin builtin:flash-file",
            "    warning: unsigned images are taken",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(!text.contains("parked"), "{text}");
        let mut connected = device();
        connected["connected"] = true.into();
        let text = long(&connected);
        assert!(
            text.contains("asked 2 times, next look in 0.8 s\n"),
            "{text}"
        );
        let mut parked = device();
        parked["agent"]["life"] = "parked".into();
        let text = long(&parked);
        assert!(
            text.contains("\n  agent parked, until something happens\n"),
            "{text}"
        );
    }
}
