//! `otad update`: the operator's side of an update, against a running `otad cloud`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use host_cloud::id;
use host_cloud::operator::wire::{
    CloudInfo, CreateJob, CreateUpdate, FileSpec, ImageInput, UpdateCreated,
};
use host_cloud::operator::{OperatorClient, OperatorError};
use host_cloud::service::{
    Change, ExecutionStatus, JobId, JobView, SigKey, Signature, StatusDetails, ThingName,
};
use host_crypto::{SigningKey, hex};
use serde_json::Value;

use super::args::{CloudArg, CreateArgs, UpdateVerb};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::{Progress, say};

/// Largest signature that a job document carries, in bytes: RSA with 4096 bits.
const SIGNATURE_MAX_BYTES: usize = 512;

pub(super) async fn follow(verb: &UpdateVerb) -> Verb {
    match verb {
        UpdateVerb::Create(args) => create(args).await,
        UpdateVerb::Show { cloud, job, json } => {
            let job = connect(cloud)
                .await?
                .show(job_id(job)?)
                .await
                .map_err(refused)?;
            print_job(&job, *json);
            Ok(Exit::Done)
        }
        UpdateVerb::List { cloud, json } => list(cloud, *json).await,
        UpdateVerb::Cancel { cloud, job, force } => {
            let job = connect(cloud)
                .await?
                .cancel(job_id(job)?, *force)
                .await
                .map_err(refused)?;
            print_job(&job, false);
            Ok(Exit::Done)
        }
    }
}

/// How long a cloud that has just been started may take until its socket is there.
const CLOUD_START: Duration = Duration::from_secs(5);
/// Between two looks.
const CLOUD_LOOK: Duration = Duration::from_millis(100);

/// The operator socket of the cloud with this directory. Waits a little for one that is only just starting.
pub(super) async fn connect(cloud: &CloudArg) -> Result<OperatorClient, Failed> {
    let socket = cloud.cloud.join("operator.sock");
    let looks = CLOUD_START.as_millis() / CLOUD_LOOK.as_millis();
    for _ in 0..looks {
        match OperatorClient::connect(&socket).await {
            Err(OperatorError::Connect { .. }) => tokio::time::sleep(CLOUD_LOOK).await,
            other => return other.map_err(refused),
        }
    }
    OperatorClient::connect(&socket).await.map_err(refused)
}

/// What went wrong with the cloud, with the exit code for it.
pub(super) fn refused(error: OperatorError) -> Failed {
    let exit = match &error {
        OperatorError::Connect { .. } | OperatorError::Broken(_) => Exit::Retry,
        OperatorError::Request(_) => Exit::Usage,
        OperatorError::Refused(_) | OperatorError::Protocol(_) => Exit::Failed,
    };
    Failed::new(exit, crate::exit::chain(&error))
}

fn job_id(text: &str) -> Result<JobId, Failed> {
    text.parse()
        .map_err(|e| Failed::chain(Exit::Usage, &format!("job id \"{text}\""), &e))
}

async fn create(args: &CreateArgs) -> Verb {
    let thing: ThingName = args
        .thing
        .parse()
        .map_err(|e| Failed::chain(Exit::Usage, "--thing", &e))?;
    let mut client = connect(&args.cloud).await?;
    let (job, facts) = match (&args.document, &args.file) {
        (Some(document), _) => create_job(&mut client, args, thing, document).await?,
        (None, Some(file)) => create_update(&mut client, args, thing, file).await?,
        (None, None) => return Err(Failed::new(Exit::Usage, "--file is missing")),
    };
    if args.json && !args.wait {
        say(&facts.to_string());
    } else if !args.json {
        say(&format!("job       {job}"));
    }
    if !args.wait {
        return Ok(Exit::Done);
    }
    wait(&mut client, job, args.json).await
}

async fn create_job(
    client: &mut OperatorClient,
    args: &CreateArgs,
    thing: ThingName,
    document: &Path,
) -> Result<(JobId, Value), Failed> {
    let text = fs::read(document).map_err(|e| file_failed(document, &e))?;
    let document = serde_json::from_slice(&text).map_err(|e| {
        Failed::chain(
            Exit::Usage,
            &format!("--document {}", document.display()),
            &e,
        )
    })?;
    let job_id = match &args.job_id {
        Some(text) => job_id(text)?,
        None => id::update_job_id(None)
            .map_err(|e| Failed::chain(Exit::Failed, "making up a job id", &e))?,
    };
    let job = client
        .create_job(CreateJob {
            job_id,
            things: vec![thing],
            document,
            description: String::new(),
            timeout_minutes: None,
            plan: Default::default(),
        })
        .await
        .map_err(refused)?;
    let facts = serde_json::json!({ "job_id": job.job_id, "status": job.status });
    Ok((job.job_id, facts))
}

async fn create_update(
    client: &mut OperatorClient,
    args: &CreateArgs,
    thing: ThingName,
    file: &Path,
) -> Result<(JobId, Value), Failed> {
    let path = fs::canonicalize(file).map_err(|e| file_failed(file, &e))?;
    let info = client.info().await.map_err(refused)?;
    let byte = |option: &str, value: u32| {
        u8::try_from(value)
            .map_err(|_| Failed::new(Exit::Usage, format!("{option} {value}: AWS takes 0 to 255")))
    };
    let signed = sign(args, &info, &path)?;
    let mut update = CreateUpdate::new(
        vec![thing],
        vec![FileSpec {
            file_id: byte("--file-id", args.file_id)?,
            image: ImageInput::Path(path.clone()),
            sha256: signed.sha256,
            file_type: match args.file_type {
                0 => None,
                other => Some(byte("--file-type", other)?),
            },
            file_path: args.filepath.clone(),
            cert_file: args.certfile.clone(),
            signature: signed.signature,
        }],
    );
    // The job of an update is called AFR_OTA-<update id>; an operator may name either.
    update.update_id = args
        .job_id
        .as_ref()
        .map(|id| id.strip_prefix(id::OTA_PREFIX).unwrap_or(id).to_owned());
    if !args.json {
        say(&format!("image     {}", path.display()));
        say(&format!("signed by {}", signed.by));
    }
    let UpdateCreated {
        job_id,
        stream_id,
        files,
    } = client.create_update(update).await.map_err(refused)?;
    if !args.json {
        for file in &files {
            say(&format!("sha256    {} ({} bytes)", file.sha256, file.size));
        }
        say(&format!("stream    {stream_id}"));
    }
    let facts = serde_json::json!({ "job_id": job_id, "stream_id": stream_id, "files": files });
    Ok((job_id, facts))
}

/// A signature and where it is from.
struct Signed {
    signature: Option<Signature>,
    sha256: Option<String>,
    by: String,
}

fn sign(args: &CreateArgs, info: &CloudInfo, image: &Path) -> Result<Signed, Failed> {
    if args.unsigned {
        return Ok(Signed {
            signature: None,
            sha256: None,
            by: "nobody: only devices under their development setting will take it".to_owned(),
        });
    }
    if let Some(path) = &args.signature {
        return Ok(Signed {
            signature: Some(Signature {
                key: signature_kind(&args.signature_kind)?,
                base64: read_signature(path)?,
            }),
            sha256: None,
            by: path.display().to_string(),
        });
    }
    let key_path: &PathBuf = args.key.as_ref().unwrap_or(&info.signing_key_path);
    let pem = fs::read_to_string(key_path).map_err(|e| file_failed(key_path, &e))?;
    let key = SigningKey::from_pem(&pem)
        .map_err(|e| Failed::chain(Exit::Usage, &key_path.display().to_string(), &e))?;
    let file = File::open(image).map_err(|e| file_failed(image, &e))?;
    let (hashed, signature) = key.sign_stream(file).map_err(|e| file_failed(image, &e))?;
    Ok(Signed {
        signature: Some(Signature {
            key: SigKey::Sha256Ecdsa,
            base64: BASE64.encode(signature),
        }),
        sha256: Some(hex(hashed.sha256())),
        by: key_path.display().to_string(),
    })
}

fn signature_kind(text: &str) -> Result<SigKey, Failed> {
    [SigKey::Sha256Ecdsa, SigKey::Sha256Rsa]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| {
            Failed::new(
                Exit::Usage,
                format!("--signature-kind {text}: sig-sha256-ecdsa or sig-sha256-rsa"),
            )
        })
}

/// The base64 of a signature file, which holds it raw or in base64 already.
fn read_signature(path: &Path) -> Result<String, Failed> {
    let bytes = fs::read(path).map_err(|e| file_failed(path, &e))?;
    let text: Option<String> = std::str::from_utf8(&bytes)
        .ok()
        .map(|text| text.split_ascii_whitespace().collect());
    let raw = text
        .and_then(|text| BASE64.decode(text).ok())
        .unwrap_or(bytes);
    if raw.is_empty() || raw.len() > SIGNATURE_MAX_BYTES {
        return Err(Failed::new(
            Exit::Usage,
            format!(
                "{}: {} bytes are not a signature; make one with `openssl dgst -sha256 -sign`",
                path.display(),
                raw.len()
            ),
        ));
    }
    Ok(BASE64.encode(raw))
}

fn file_failed(path: &Path, error: &std::io::Error) -> Failed {
    Failed::chain(Exit::Failed, &path.display().to_string(), error)
}

/// Follow a job to its end.
async fn wait(client: &mut OperatorClient, job: JobId, json: bool) -> Verb {
    let mut progress = Progress::new("downloading");
    let mut last = None;
    let ended = client
        .watch(job, |change| {
            if json {
                say(&serde_json::json!({ "change": change }).to_string());
            } else {
                show_change(&change, &mut progress, &mut last);
            }
        })
        .await
        .map_err(refused)?;
    progress.finish();
    if json {
        say(&serde_json::json!({ "job": ended }).to_string());
    }
    let mut exit = Exit::Done;
    for execution in &ended.executions {
        let reason = reason(&execution.status_details);
        exit = exit.max(exit_of(execution.status, &reason));
        if !json {
            say(&ended_line(
                &ended,
                execution.thing.as_str(),
                execution.status,
                &reason,
            ));
        }
    }
    Ok(exit)
}

/// One line or one step of the bar; the same status twice is no news.
fn show_change(change: &Change, progress: &mut Progress, last: &mut Option<String>) {
    if let Some((done, total)) = received(&change.status_details) {
        progress.update(done, total);
        return;
    }
    let line = format!(
        "{}  {} {}",
        change.thing,
        change.status.as_str(),
        details(&change.status_details)
    );
    if last.as_deref() != Some(&line) && !change.status.is_terminal() {
        progress.print(line.trim_end());
        *last = Some(line);
    }
}

fn ended_line(job: &JobView, thing: &str, status: ExecutionStatus, reason: &str) -> String {
    let line = format!("{} on {thing}: {} {reason}", job.job_id, status.as_str());
    line.trim_end().to_owned()
}

/// `receive: "17/64"`.
fn received(details: &StatusDetails) -> Option<(u64, u64)> {
    let (done, total) = details.get("receive")?.as_str()?.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

fn reason(details: &StatusDetails) -> String {
    text(details.get("reason"))
}

fn details(details: &StatusDetails) -> String {
    let members: Vec<String> = details
        .iter()
        .map(|(key, value)| format!("{key}={}", text(Some(value))))
        .collect();
    members.join(" ")
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The exit code of `--wait`: the outcome, and for a failure whose it was.
fn exit_of(status: ExecutionStatus, reason: &str) -> Exit {
    match status {
        ExecutionStatus::Succeeded => Exit::Done,
        ExecutionStatus::Canceled | ExecutionStatus::Removed => Exit::Nothing,
        ExecutionStatus::TimedOut => Exit::Retry,
        ExecutionStatus::Rejected => Exit::Refused,
        ExecutionStatus::Queued | ExecutionStatus::InProgress => Exit::Failed,
        ExecutionStatus::Failed => match failure_main(reason) {
            // Same version, downgrade, wrong product.
            Some(0x0f | 0x10 | 0xd3) => Exit::Refused,
            // Signature, signer, extra check.
            Some(0xe3 | 0xe7 | 0xde) => Exit::Unverified,
            _ => Exit::Failed,
        },
    }
}

/// The code that says whose fault a failure was: `0x000000e3: 0x…`, `rejected: 0x0000000f`, `aborted: 0xe4000005`.
fn failure_main(reason: &str) -> Option<u32> {
    let at = reason.find("0x")? + 2;
    let digits = reason.get(at..at + 8)?;
    let word = u32::from_str_radix(digits, 16).ok()?;
    Some(if word > 0xff { word >> 24 } else { word })
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
    for execution in &job.executions {
        let line = format!(
            "thing     {}  {} {}",
            execution.thing,
            execution.status.as_str(),
            details(&execution.status_details)
        );
        say(line.trim_end());
    }
}

async fn list(cloud: &CloudArg, json: bool) -> Verb {
    let jobs = connect(cloud).await?.list().await.map_err(refused)?;
    if json {
        say(&serde_json::json!(jobs).to_string());
    } else {
        for job in &jobs {
            let counts: Vec<String> = job
                .executions
                .iter()
                .map(|(status, count)| format!("{} {count}", status.as_str()))
                .collect();
            say(&format!("{}  {}", job.job_id, counts.join(", ")));
        }
    }
    Ok(if jobs.is_empty() {
        Exit::Nothing
    } else {
        Exit::Done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_outcome() {
        let rows = [
            (ExecutionStatus::Succeeded, "accepted  v1.1.0", Exit::Done),
            (
                ExecutionStatus::Failed,
                "rejected: 0x0000000f",
                Exit::Refused,
            ),
            (
                ExecutionStatus::Failed,
                "rejected: 0x00000010",
                Exit::Refused,
            ),
            (
                ExecutionStatus::Failed,
                "0x000000d3: 0x00000000",
                Exit::Refused,
            ),
            (
                ExecutionStatus::Failed,
                "0x000000e3: 0x00000000",
                Exit::Unverified,
            ),
            (
                ExecutionStatus::Failed,
                "aborted: 0xe7000001",
                Exit::Unverified,
            ),
            (ExecutionStatus::Failed, "aborted: 0x00000013", Exit::Failed),
            (ExecutionStatus::Failed, "", Exit::Failed),
            (ExecutionStatus::Canceled, "", Exit::Nothing),
            (ExecutionStatus::TimedOut, "", Exit::Retry),
            (ExecutionStatus::Rejected, "not now", Exit::Refused),
        ];
        for (status, reason, exit) in rows {
            assert_eq!(exit_of(status, reason), exit, "{status:?} {reason}");
        }
    }

    #[test]
    fn a_signature_file_may_be_raw_or_base64() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signature");
        let raw = [0x30, 0x44, 0xff, 0x00];
        fs::write(&path, raw).unwrap();
        assert_eq!(read_signature(&path).unwrap(), BASE64.encode(raw));
        fs::write(&path, format!("{}\n", BASE64.encode(raw))).unwrap();
        assert_eq!(read_signature(&path).unwrap(), BASE64.encode(raw));
        fs::write(&path, []).unwrap();
        assert_eq!(read_signature(&path).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn progress_is_read_from_the_receive_detail() {
        let of = |text: &str| {
            let mut details = StatusDetails::new();
            details.insert("receive".to_owned(), text.into());
            received(&details)
        };
        assert_eq!(of("17/64"), Some((17, 64)));
        assert_eq!(of("64"), None);
    }
}
