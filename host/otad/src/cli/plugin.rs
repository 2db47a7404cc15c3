//! `otad plugin`: which builds serve, and another one in their place. The daemon does it; this asks and tells. What an author
//! does with a plugin goes elsewhere from here: `sign`, `check`, `project`.

use std::path::Path;

use host_runtime::engine::AGENT_WORLD;
use serde_json::Value;

use super::args::{CheckArgs, DeviceArgs, PluginVerb};
use super::control::{client, done, note_silent, request};
use super::{check, project, sign, wait};
use crate::config::BUILTIN;
use crate::control::protocol::{Request, Verb};
use crate::exit::{Exit, Failed, Verb as Ended};
use crate::progress::say;

pub(super) fn follow(verb: &PluginVerb) -> Ended {
    match verb {
        PluginVerb::List(device) => wait(list(device, None)),
        PluginVerb::Info { target, device } => wait(list(device, Some(target))),
        PluginVerb::Swap {
            target,
            file,
            allow_older,
            device,
        } => {
            let file = absolute(file)?;
            let words = format!(
                "{file} serves target \"{target}\", on trial until it has committed or rejected an image"
            );
            let allow_older = *allow_older;
            let verb = Verb::SwapPlugin { file, allow_older };
            wait(on_target(device, target, verb, &words))
        }
        PluginVerb::Rollback { target, device } => {
            let words = format!("the build before serves target \"{target}\"");
            wait(on_target(device, target, Verb::RollBackPlugin, &words))
        }
        PluginVerb::Verify {
            file,
            trusted,
            json,
        } => sign::verify_code(file, trusted, *json),
        PluginVerb::Test(args) => test(args),
        PluginVerb::New(args) => project::new(args),
        PluginVerb::Wrap { module, output } => project::wrap(module, output),
    }
}

fn test(args: &CheckArgs) -> Ended {
    if *args.guest.world()? == AGENT_WORLD {
        let label = args.guest.label();
        let text = format!("{label} is an agent, not a plugin: `otad check` tests it");
        return Err(Failed::new(Exit::Refused, text));
    }
    check::follow(args)
}

/// The daemon has a working directory of its own. A part of otad is named the same everywhere.
pub(super) fn absolute(file: &Path) -> Result<String, Failed> {
    if let Some(name) = file.to_str().filter(|name| name.starts_with(BUILTIN)) {
        return Ok(name.to_owned());
    }
    let file = std::path::absolute(file)
        .map_err(|e| Failed::chain(Exit::Failed, &file.display().to_string(), &e))?;
    file.into_os_string().into_string().map_err(|file| {
        let text = format!("{} is no UTF-8: give it another name", file.display());
        Failed::new(Exit::Usage, text)
    })
}

async fn on_target(args: &DeviceArgs, target: &str, verb: Verb, words: &str) -> Ended {
    let request = Request {
        target: Some(target.to_owned()),
        ..request(args, verb)
    };
    done(args, request, words).await
}

async fn list(args: &DeviceArgs, only: Option<&str>) -> Ended {
    let status = client(&args.control)?
        .gather(&request(args, Verb::Status), "devices")
        .await?;
    let rows = rows(&status, only);
    let some_are_silent = note_silent(&status);
    if let (Some(only), []) = (only, &rows[..]) {
        return Err(if some_are_silent {
            let text = format!("no target \"{only}\" of a device that answers");
            Failed::new(Exit::Retry, text)
        } else {
            Failed::new(Exit::Nothing, format!("no target \"{only}\""))
        });
    }
    if args.control.json {
        say(&Value::from(rows).to_string());
    } else {
        rows.iter().for_each(|row| say(&lines(row, only.is_some())));
    }
    Ok(Exit::Done)
}

/// One object a target, with its device's name.
fn rows(status: &Value, only: Option<&str>) -> Vec<Value> {
    let array = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for device in array(status, "devices") {
        for target in array(&device, "targets") {
            if only.is_none_or(|only| target["name"] == only) {
                let mut row = target["build"].clone();
                row["device"] = device["device"].clone();
                row["target"] = target["name"].clone();
                rows.push(row);
            }
        }
    }
    rows
}

/// For people: a line in a list, some more of one alone.
fn lines(row: &Value, long: bool) -> String {
    let text = |key: &str| match &row[key] {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let words: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            words.join(", ")
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines = format!(
        "{} {}: {} {} ({})",
        text("device"),
        text("target"),
        text("name"),
        text("version"),
        text("label"),
    );
    if row["on_trial"] == true {
        lines.push_str(&format!(", on trial in place of {}", text("former")));
    }
    if !long {
        return lines;
    }
    for (key, words) in [
        ("sha256", "sha256"),
        ("manifest", "its manifest's sha256"),
        ("kinds", "serves kinds"),
        ("capabilities", "can"),
        ("imports", "is lent"),
        ("former", "before it"),
        ("refused", "refused or sent back last"),
        ("swaps", "builds taken over since the start"),
        ("strikes", "breaks in this transfer"),
    ] {
        lines.push_str(&format!("\n  {words}: {}", text(key)));
    }
    for warning in row["warnings"].as_array().into_iter().flatten() {
        lines.push_str(&format!("\n  {}", warning.as_str().unwrap_or_default()));
    }
    if let Some(account) = row["account"].as_object() {
        for (key, used) in account {
            lines.push_str(&format!("\n  {key}: {}", words(key, used)));
        }
    }
    lines
}

/// A row of the account: what was used, beside what may be.
fn words(key: &str, used: &Value) -> String {
    let (all, most, limit) = (&used["all"], &used["most"], &used["limit"]);
    match key {
        "calls" => format!("{all} in all, at most {most} a second"),
        "memory_bytes" | "table_elements" | "handles" => format!("{all} of {limit}"),
        "host_call_bytes" => format!("{all} in all, at most {most} in one of {limit}"),
        _ => format!("{all} in all, at most {most} a call of {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_is_a_line_and_one_alone_tells_more() {
        let build = json!({
            "label": "/tmp/new.wasm", "name": "pal-x", "version": "1.1.0", "sha256": "00", "manifest": "cd",
            "kinds": ["flash-file"], "capabilities": ["direct"], "imports": [], "former": "builtin:flash-file",
            "on_trial": true, "refused": null, "swaps": 1, "strikes": 0, "warnings": ["RUNS IN THIS PROCESS"],
            "account": {
                "fuel": { "all": 7, "most": 5, "limit": 9 },
                "calls": { "all": 30, "most": 6, "limit": 0 },
                "handles": { "all": 3, "most": 3, "limit": 64 },
            },
        });
        let status = json!({
            "devices": [{ "device": "pump-1", "targets": [{ "name": "main", "build": build }, { "name": "mcu" }] }]
        });
        assert_eq!(rows(&status, None).len(), 2);
        let rows = rows(&status, Some("main"));
        let line =
            "pump-1 main: pal-x 1.1.0 (/tmp/new.wasm), on trial in place of builtin:flash-file";
        assert_eq!(lines(&rows[0], false), line);
        let long = lines(&rows[0], true);
        assert!(long.starts_with(line), "{long}");
        assert!(
            long.contains("fuel: 7 in all, at most 5 a call of 9"),
            "{long}"
        );
        assert!(
            long.contains("calls: 30 in all, at most 6 a second"),
            "{long}"
        );
        assert!(long.contains("handles: 3 of 64"), "{long}");
        assert!(long.contains("\n  RUNS IN THIS PROCESS"), "{long}");
        assert!(long.contains("before it: builtin:flash-file"), "{long}");
        assert!(long.contains("its manifest's sha256: cd"), "{long}");
    }
}
