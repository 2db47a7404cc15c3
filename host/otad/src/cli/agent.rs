//! `otad agent`: which builds serve, and another one in their place. The daemon does it; this asks and tells.

use serde_json::Value;

use super::args::{AgentSwapArgs, AgentVerb, DeviceArgs};
use super::control::{client, request, silence};
use super::plugin::absolute;
use crate::control::protocol::{AgentOrder, Verb};
use crate::exit::{Exit, Verb as Ended};
use crate::progress::say;

pub(super) async fn follow(verb: &AgentVerb) -> Ended {
    match verb {
        AgentVerb::List(device) => list(device).await,
        AgentVerb::Swap(args) => swap(args).await,
        AgentVerb::Rollback { all, device } => {
            tell(device, Verb::RollBackAgent { all: *all }).await
        }
    }
}

async fn swap(args: &AgentSwapArgs) -> Ended {
    let order = AgentOrder {
        file: absolute(&args.file)?,
        trial_s: Some(args.trial),
        all: args.all,
        canary: args.canary.clone(),
        allow_older: args.allow_older,
    };
    tell(&args.device, Verb::SwapAgent(order)).await
}

/// Ask, and tell each step as it comes.
async fn tell(args: &DeviceArgs, verb: Verb) -> Ended {
    let json = args.control.json;
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    client(&args.control)?
        .stream(&request(args, verb), |item| {
            say(&match json {
                true => item.to_string(),
                false => {
                    let words = [text(&item, "build"), text(&item, "what")].join(" ");
                    format!("{}: {}", text(&item, "device"), words.trim_start())
                }
            });
        })
        .await?;
    Ok(Exit::Done)
}

async fn list(args: &DeviceArgs) -> Ended {
    let status = client(&args.control)?
        .gather(&request(args, Verb::Status), "devices")
        .await?;
    let rows = rows(&status);
    if args.control.json {
        say(&Value::from(rows).to_string());
    } else {
        rows.iter().for_each(|row| say(&line(row)));
    }
    Ok(Exit::Done)
}

/// One object a device, with its name.
fn rows(status: &Value) -> Vec<Value> {
    let devices = status["devices"].as_array().cloned().unwrap_or_default();
    let row = |device: Value| {
        let mut row = device["agent"].clone();
        for key in ["device", "failed"] {
            if device[key].is_string() {
                row[key] = device[key].clone();
            }
        }
        row
    };
    devices.into_iter().map(row).collect()
}

/// For people: a line, one for the manifest that vouches for it, and one for a build that was refused or sent back.
fn line(row: &Value) -> String {
    if row["failed"].is_string() {
        return silence(row);
    }
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!(
        "{}: {} {} ({})",
        text("device"),
        text("name"),
        text("version"),
        text("label"),
    );
    match (&row["former"], &row["on_trial"]) {
        (Value::String(former), Value::Bool(true)) => {
            line.push_str(&format!(", on trial in place of {former}"));
        }
        (Value::String(former), _) => line.push_str(&format!(", before it {former}")),
        _ => {}
    }
    if let Value::String(manifest) = &row["manifest"] {
        line.push_str(&format!("\n  its manifest's sha256: {manifest}"));
    }
    if let Value::String(refused) = &row["refused"] {
        line.push_str(&format!("\n  refused or sent back last: {refused}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_is_a_line_that_says_what_serves_and_what_came_before() {
        let agent = json!({
            "label": "/tmp/new.wasm", "name": "otad-agent", "version": "1.1.0", "former": "built-in", "on_trial": true,
            "refused": "/tmp/bad.wasm: it breaks in `start`",
        });
        let status = json!({ "devices": [{ "device": "pump-1", "agent": agent }] });
        let mut row = rows(&status).remove(0);
        let first = "pump-1: otad-agent 1.1.0 (/tmp/new.wasm), on trial in place of built-in";
        assert_eq!(
            line(&row),
            format!("{first}\n  refused or sent back last: /tmp/bad.wasm: it breaks in `start`")
        );
        row["on_trial"] = false.into();
        row["refused"] = Value::Null;
        assert!(line(&row).ends_with(", before it built-in"), "{row}");
        row["manifest"] = "cd".into();
        assert!(line(&row).ends_with("its manifest's sha256: cd"), "{row}");
    }
}
