//! A past job in words.

use host_runtime::history::{FileRecord, JobRecord};
use serde_json::{Value, json};

use super::time::{duration, utc};
use crate::explain::{Code, Question};

/// How a job ended, from the terminal status that the service took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `SUCCEEDED`, `FAILED`, `REJECTED`; `WITHDRAWN` of one that the service took back; `IN_PROGRESS`; `UNKNOWN` of a
    /// status that is none.
    pub status: String,
    /// `reason` of its details.
    pub reason: Option<String>,
}

/// How a job ended.
#[must_use]
pub fn outcome(job: &JobRecord) -> Outcome {
    let only = |status: &str| Outcome {
        status: status.to_owned(),
        reason: None,
    };
    let Some(end) = &job.end else {
        return only("IN_PROGRESS");
    };
    let Some(sent) = &end.sent else {
        return only("WITHDRAWN");
    };
    let sent: Value = serde_json::from_str(sent).unwrap_or_default();
    let Some(status) = sent["status"].as_str() else {
        return only("UNKNOWN");
    };
    Outcome {
        reason: sent["statusDetails"]["reason"].as_str().map(str::to_owned),
        ..only(status)
    }
}

/// What the reason of a job that did not succeed means.
fn meaning(outcome: &Outcome) -> Option<Code> {
    if outcome.status == "SUCCEEDED" {
        return None;
    }
    super::explained(&Question::read(outcome.reason.as_deref()?))
}

/// A job as an object, with its outcome in words.
#[must_use]
pub fn as_json(device: &str, job: &JobRecord) -> Value {
    let outcome = outcome(job);
    let mut value = json!(job);
    if job.only_end {
        for count in [
            "took_ms",
            "files",
            "bytes",
            "blocks_fetched",
            "blocks_twice",
            "restarts",
            "faults",
        ] {
            value[count] = Value::Null;
        }
    }
    value["device"] = json!(device);
    value["status"] = json!(outcome.status);
    value["reason"] = json!(outcome.reason);
    let code = meaning(&outcome);
    value["meaning"] = json!(code.map(|code| code.meaning));
    value["cure"] = json!(code.map(|code| code.cure));
    value
}

/// A job as lines for people, the first one whole in itself.
#[must_use]
pub fn lines(device: &str, job: &JobRecord) -> Vec<String> {
    let outcome = outcome(job);
    let at_s = match &job.end {
        Some(end) if job.only_end => end.at_s,
        Some(_) | None => job.began_s,
    };
    let mut lines = vec![format!(
        "{}  {device}  {}  {}  {}",
        at_s.map_or_else(|| "time unknown".to_owned(), utc),
        job.job_id,
        outcome.status,
        counts(job)
    )];
    if job.faults > 0 {
        lines.push(format!("    the agent broke {} times", job.faults));
    }
    if let Some(reason) = &outcome.reason {
        lines.push(format!("    reason: {reason}"));
    }
    let detail = job.end.as_ref().and_then(|end| end.failure.as_ref());
    if let Some(failure) = detail.filter(|failure| !failure.detail.is_empty()) {
        lines.push(format!("    {}", failure.detail));
    }
    if let Some(code) = meaning(&outcome) {
        lines.push(format!("    {}: {}", code.name, code.meaning));
        lines.push(format!("    do: {}", code.cure));
    }
    lines
}

/// What was done and what it cost.
fn counts(job: &JobRecord) -> String {
    if job.only_end {
        return "no more than its end is known".to_owned();
    }
    let files: Vec<String> = job.files.iter().map(file).collect();
    let files = match files.is_empty() {
        true => "no file".to_owned(),
        false => files.join(", "),
    };
    format!(
        "{files}  {} bytes in {}, {} blocks twice, {}",
        job.bytes,
        duration(job.took_ms),
        job.blocks_twice,
        counted(job.restarts, "restart"),
    )
}

fn counted(n: u32, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn file(file: &FileRecord) -> String {
    let version = |version: &Option<String>| version.as_deref().unwrap_or("?").to_owned();
    let name = match file.target.as_str() {
        "" => format!("file {}", file.file_id),
        name => name.to_owned(),
    };
    format!("{name} {} -> {}", version(&file.from), version(&file.to))
}

#[cfg(test)]
mod tests {
    use host_runtime::history::End;
    use host_runtime::types::Failure;

    use super::*;

    fn job(sent: Option<&str>) -> JobRecord {
        JobRecord {
            job_id: "AFR_OTA-7".to_owned(),
            began_s: Some(1_795_245_243),
            took_ms: 12_340,
            files: vec![FileRecord {
                target: "main".to_owned(),
                from: Some("1.0.0".to_owned()),
                to: Some("1.1.0".to_owned()),
                ..FileRecord::default()
            }],
            bytes: 2_097_280,
            blocks_twice: 3,
            restarts: 1,
            end: Some(End {
                sent: sent.map(str::to_owned),
                ..End::default()
            }),
            ..JobRecord::default()
        }
    }

    #[test]
    fn a_good_job_is_one_line_and_its_reason() {
        let sent = r#"{"status":"SUCCEEDED","statusDetails":{"reason":"accepted  v1.1.0"},"clientToken":"u1"}"#;
        let wanted = [
            "2026-11-21 07:14:03Z  pump-1  AFR_OTA-7  SUCCEEDED  main 1.0.0 -> 1.1.0  2097280 bytes in 12.3 s, \
             3 blocks twice, 1 restart",
            "    reason: accepted  v1.1.0",
        ];
        assert_eq!(lines("pump-1", &job(Some(sent))), wanted);
    }

    #[test]
    fn a_failed_job_says_what_its_code_means_and_what_to_do() {
        let sent = r#"{"status":"FAILED","statusDetails":{"reason":"0x000000e3: 0x00000005"}}"#;
        let mut failed = job(Some(sent));
        let end = failed.end.as_mut().unwrap();
        end.failure = Some(Failure::new(0xe3, 5, "not signed by \"signer\""));
        let text = lines("pump-1", &failed).join("\n");
        for words in ["FAILED", "0x000000e3", "not signed by", "    do: "] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        let value = as_json("pump-1", &failed);
        assert_eq!(value["status"], "FAILED");
        assert!(value["cure"].as_str().unwrap().len() > 10);
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_nothing() {
        let lost = JobRecord {
            job_id: "AFR_OTA-7".to_owned(),
            only_end: true,
            end: Some(End {
                at_s: Some(1_795_245_243),
                sent: Some(r#"{"status":"SUCCEEDED"}"#.to_owned()),
                ..End::default()
            }),
            ..JobRecord::default()
        };
        let wanted =
            "2026-11-21 07:14:03Z  pump-1  AFR_OTA-7  SUCCEEDED  no more than its end is known";
        assert_eq!(lines("pump-1", &lost), [wanted]);
        let value = as_json("pump-1", &lost);
        assert_eq!(
            (&value["bytes"], &value["took_ms"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(value["status"], "SUCCEEDED");
    }

    #[test]
    fn what_has_no_status_is_named_for_what_it_is() {
        let rows = [
            (job(None), "WITHDRAWN"),
            (job(Some("no JSON")), "UNKNOWN"),
            (job(Some("[1]")), "UNKNOWN"),
            (JobRecord::default(), "IN_PROGRESS"),
        ];
        for (job, status) in rows {
            assert_eq!(outcome(&job).status, status, "{job:?}");
            assert!(!lines("pump-1", &job).is_empty());
        }
    }
}
