//! `otad update create --aws` and `--aws-json`: from the options to the update that `crate::aws` makes, and back to lines
//! and exit codes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host_cloud::id;
use host_cloud::id::OTA_PREFIX;
use host_cloud::service::{SigKey, Threshold};
use serde_json::{Value, json};

use super::profile::{is_profile_name, name_problem};
use super::request::{FileRequest, Request, Source};
use super::signing::Signer;
use super::watch::{End, end_lines, exit_of_all};
use crate::aws::documents::{self, Object};
use crate::aws::look;
use crate::aws::names::{Place, is_account, is_region};
use crate::aws::program::Program;
use crate::aws::sequence::{self, Broken, Pace};
use crate::aws::{Custom, File, Image, Signing, Update, watch};
use crate::cli::args::CreateArgs;
use crate::cli::problems::Problems;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

/// Between two questions of `--wait`: a fleet's executions are listed anew each time.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn follow(args: &CreateArgs, request: Request, mut problems: Problems) -> Verb {
    check(args, &request, &mut problems);
    let signer = Signer::read(args, None, None, &mut problems);
    let update = update(args, request, signer.as_ref(), &mut problems);
    match &args.aws_json {
        Some(dir) => {
            problems.into_result()?;
            write_documents(args, &update, dir)
        }
        None => create(args, &update, problems),
    }
}

/// What AWS asks for besides, as far as the options show it.
fn check(args: &CreateArgs, request: &Request, problems: &mut Problems) {
    let place = &args.place;
    for (option, given, why) in [
        (
            "--role",
            &place.role,
            "the role of the OTA service, by name or ARN",
        ),
        ("--bucket", &place.bucket, "the bucket for the images"),
    ] {
        if given.is_none() {
            problems.usage(format!("{option} is missing: {why}"));
        }
    }
    let own = args.key.is_some() || !args.signature.is_empty();
    match (&args.signing_profile, own) {
        (None, false) => problems.usage(
            "--signing-profile is missing: AWS signs by a profile; or sign with --key or --signature",
        ),
        (Some(_), true) => {
            problems.usage("--key: at AWS either a signing profile signs or your own key, not both");
        }
        (Some(name), false) if !is_profile_name(name) => problems.usage(name_problem(name)),
        _ => {}
    }
    if own && args.certfile.is_none() {
        problems.usage("--certfile is missing: the name of the signer's certificate on the device");
    }
    if args.aws_json.is_some() {
        for (option, given, why) in [
            ("--region", &place.region, "nobody is asked for it"),
            ("--account", &place.account, "nobody is asked for it"),
        ] {
            if given.is_none() {
                problems.usage(format!("{option} is missing: with --aws-json {why}"));
            }
        }
        if args.wait {
            problems.usage("--wait has no use with --aws-json, which creates nothing");
        }
        if args.signing_profile.is_some()
            && place.certificate_id.is_some()
            && args.certfile.is_none()
        {
            problems.usage(
                "--certfile is missing: a new signing profile names the certificate on the device",
            );
        }
    }
    if let Some(region) = place.region.as_deref().filter(|r| !is_region(r)) {
        problems.usage(format!(
            "--region {region:?}: expected a name such as eu-west-1"
        ));
    }
    if let Some(account) = place.account.as_deref().filter(|a| !is_account(a)) {
        problems.usage(format!(
            "--account {account:?}: an account id has 12 digits"
        ));
    }
    let counts =
        |rule: &host_cloud::service::AbortRule| matches!(rule.threshold, Threshold::Count(_));
    if request.plan.abort.iter().any(counts) {
        problems.usage("--abort-if-failed: AWS takes a percentage only, such as 10%");
    }
}

fn update(
    args: &CreateArgs,
    request: Request,
    signer: Option<&Signer>,
    problems: &mut Problems,
) -> Update {
    let signing = match &args.signing_profile {
        Some(name) => Signing::Profile {
            name: name.clone(),
            certificate: args.place.certificate_id.clone(),
            platform: args.place.platform.clone(),
        },
        None => Signing::Custom {
            certificate_pem: signer
                .and_then(Signer::certificate)
                .map(|certificate| certificate.pem.clone()),
        },
    };
    let own = match signing {
        Signing::Custom { .. } => signer,
        Signing::Profile { .. } => None,
    };
    let files: Vec<File> = request
        .files
        .iter()
        .map(|file| self::file(file, own, problems))
        .collect();
    for (index, file) in files.iter().enumerate() {
        let is_local = |f: &File| matches!(f.image, Image::Local(_));
        if is_local(file)
            && files[..index]
                .iter()
                .any(|f| is_local(f) && f.name == file.name)
        {
            problems.usage(format!(
                "two files are called {:?} in the bucket; name one with --filepath {}=NAME",
                file.name, file.file_id
            ));
        }
    }
    let id = request.update_id.unwrap_or_else(|| new_id(problems));
    Update {
        id,
        things: request.things,
        plan: request.plan,
        files,
        protocols: request.protocols,
        timeout_minutes: args.timeout,
        role: args.place.role.clone().unwrap_or_default(),
        bucket: args.place.bucket.clone().unwrap_or_default(),
        signing,
        certfile: args.certfile.clone().unwrap_or_default(),
    }
}

fn new_id(problems: &mut Problems) -> String {
    match id::update_job_id(None) {
        Ok(job) => job.as_str().trim_start_matches(OTA_PREFIX).to_owned(),
        Err(e) => {
            problems.add(Exit::Failed, format!("making up a job id: {e}"));
            String::new()
        }
    }
}

fn file(request: &FileRequest, signer: Option<&Signer>, problems: &mut Problems) -> File {
    let base = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let (image, name) = match &request.source {
        Source::File(path) => (Image::Local(path.clone()), base(path)),
        Source::S3 { bucket, key } => {
            if signer.is_some() {
                problems.usage(format!(
                    "--file {}: what lies in a bucket is signed by --signing-profile; give the file itself to sign it here",
                    request.named
                ));
            }
            let image = Image::Stored {
                bucket: bucket.clone(),
                key: key.clone(),
            };
            (image, base(Path::new(key)))
        }
        // Refused where it was read.
        Source::Stored(digest) => (Image::Local(PathBuf::new()), Some(digest.clone())),
    };
    let signature = match (&image, signer) {
        (Image::Local(path), Some(signer)) if path.is_file() => problems
            .take(signer.sign(request, path))
            .and_then(|signed| signed.signature)
            .map(|signature| Custom {
                algorithm: match signature.key {
                    SigKey::Sha256Ecdsa => "ECDSA",
                    SigKey::Sha256Rsa => "RSA",
                },
                base64: signature.base64,
            }),
        _ => None,
    };
    File {
        file_id: request.file_id,
        name: request.filepath.clone().or(name).unwrap_or_default(),
        file_type: request.file_type,
        image,
        signature,
    }
}

fn create(args: &CreateArgs, update: &Update, mut problems: Problems) -> Verb {
    let mut aws = Program {
        path: "aws".into(),
        profile: args.place.profile.clone(),
        region: args.place.region.clone(),
    };
    // What the options lack AWS cannot be asked for; the rest is asked, so that one go names all.
    let found = look::look(update, &mut aws, args.place.account.as_deref());
    let found = match found {
        Ok(found) => Some(found),
        Err(texts) => {
            texts
                .into_iter()
                .for_each(|text| problems.add(Exit::Failed, text));
            None
        }
    };
    problems.into_result()?;
    let Some(found) = found else {
        return Ok(Exit::Failed);
    };
    let mut tell = |line: &str| {
        if !args.json {
            say(line);
        }
    };
    tell(&format!(
        "account      {} in {} ({})",
        found.place.account, found.place.region, found.caller
    ));
    if let Some(certificate) = &found.certificate {
        tell(&format!("certificate  {certificate}"));
    }
    for file in &update.files {
        let image = match &file.image {
            Image::Local(path) => path.display().to_string(),
            Image::Stored { bucket, key } => format!("s3://{bucket}/{key}"),
        };
        tell(&format!("image        {}={image}", file.file_id));
    }
    let made = sequence::run(update, &found, &aws, Pace::default(), &mut tell);
    let made = made.map_err(|broken| failed(&broken))?;
    if args.json {
        say(&made.facts.to_string());
    }
    match args.wait {
        true => wait(&aws, &made.job_id, args.json),
        false => Ok(Exit::Done),
    }
}

/// Why it broke off, and everything that is left behind.
fn failed(broken: &Broken) -> Failed {
    let mut text = broken.error.clone();
    // Writing to a String cannot fail.
    let _ = match broken.left.is_empty() {
        true => write!(text, "\nnothing was created"),
        false => write!(
            text,
            "\nleft behind, each with the command that removes it:"
        ),
    };
    for left in &broken.left {
        let _ = write!(text, "\n  - {}: {}", left.what, left.remove);
    }
    let exit = match broken.may_work_later {
        true => Exit::Retry,
        false => Exit::Failed,
    };
    Failed::new(exit, text)
}

fn wait(aws: &Program, job: &str, json: bool) -> Verb {
    let mut changed = |execution: &watch::Execution| {
        if json {
            let change = json!({
                "thing": execution.thing,
                "status": execution.status,
                "reason": execution.reason,
            });
            say(&json!({ "change": change }).to_string());
        } else if !execution.status.is_terminal() {
            say(&format!(
                "{}  {}",
                execution.thing,
                execution.status.as_str()
            ));
        }
    };
    let ended = watch::follow(aws, job, WATCH_INTERVAL, &mut changed)
        .map_err(|e| Failed::new(Exit::Retry, format!("{e}; the job goes on")))?;
    let ends: Vec<End> = ended
        .into_iter()
        .map(|execution| End {
            thing: execution.thing,
            status: execution.status,
            reason: execution.reason,
        })
        .collect();
    if !json {
        end_lines(job, &ends).iter().for_each(|line| say(line));
    }
    Ok(exit_of_all(&ends))
}

/// Stands in a document for what only an answer can tell.
fn blank(what: &str, file: &File) -> String {
    format!("@{what}-{}@", file.file_id)
}

fn write_documents(args: &CreateArgs, update: &Update, dir: &Path) -> Verb {
    let region = args.place.region.as_deref().unwrap_or_default();
    let place = Place::of(region, args.place.account.as_deref().unwrap_or_default());
    let documents = all_documents(update, &place);
    let io = |path: &Path, e: &std::io::Error| {
        Failed::chain(Exit::Failed, &path.display().to_string(), e)
    };
    fs::create_dir_all(dir).map_err(|e| io(dir, &e))?;
    let mut commands = String::from(
        "In this order. What stands between @ and @ in a document comes from the answer before it: a VersionId of\n\
         put-object or head-object, the jobId of start-signing-job, signedObject of describe-signing-job.\n\n",
    );
    for (name, command, document) in &documents {
        let path = dir.join(format!("{name}.json"));
        let text = format!("{document:#}\n");
        fs::write(&path, text).map_err(|e| io(&path, &e))?;
        // Writing to a String cannot fail.
        let _ = writeln!(
            commands,
            "aws --region {region} {command} --cli-input-json file://{name}.json"
        );
        if !args.json {
            say(&format!("wrote     {}", path.display()));
        }
    }
    let path = dir.join("commands.txt");
    fs::write(&path, commands).map_err(|e| io(&path, &e))?;
    if args.json {
        let names: Vec<String> = documents.iter().map(|d| format!("{}.json", d.0)).collect();
        say(&json!({ "update_id": update.id, "documents": names }).to_string());
    } else {
        say(&format!("wrote     {}", path.display()));
        say(&format!("update    {}", update.id));
    }
    Ok(Exit::Done)
}

/// Name, command and document of every call, in their order.
fn all_documents(update: &Update, place: &Place) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    let mut versions = Vec::new();
    for file in &update.files {
        let (bucket, key) = file.place(update);
        let (call, document) = match &file.image {
            Image::Local(path) => (
                format!("s3api put-object --body {:?}", path.display()),
                documents::put_object(update, file),
            ),
            Image::Stored { .. } => (
                "s3api head-object".to_owned(),
                documents::head_object(bucket, &key),
            ),
        };
        let verb = call.split(' ').nth(1).unwrap_or_default();
        all.push((format!("{verb}-{}", file.file_id), call.clone(), document));
        versions.push(blank("VersionId-of-image", file));
    }
    let mut objects = Vec::new();
    let mut jobs = Vec::new();
    match &update.signing {
        Signing::Profile {
            name,
            certificate,
            platform,
        } => {
            if let Some(id) = certificate {
                let arn = place.certificate(id);
                let document =
                    documents::put_signing_profile(name, &arn, platform, &update.certfile);
                let command = "signer put-signing-profile".to_owned();
                all.push(("put-signing-profile".to_owned(), command, document));
            }
            for (file, version) in update.files.iter().zip(&versions) {
                let document = documents::start_signing_job(update, file, name, version);
                let command = "signer start-signing-job".to_owned();
                all.push((
                    format!("start-signing-job-{}", file.file_id),
                    command,
                    document,
                ));
                jobs.push(blank("jobId-of-image", file));
                objects.push(Object {
                    bucket: update.bucket.clone(),
                    key: blank("signedObject-key-of-image", file),
                    version: blank("VersionId-of-signedObject", file),
                });
            }
        }
        Signing::Custom { .. } => {
            for (file, version) in update.files.iter().zip(versions) {
                let (bucket, key) = file.place(update);
                objects.push(Object {
                    bucket: bucket.to_owned(),
                    key,
                    version,
                });
            }
        }
    }
    // Nobody is asked for the role's path.
    let role = place.role(&update.role);
    let stream = documents::create_stream(update, &role, &objects);
    all.push(("create-stream".into(), "iot create-stream".into(), stream));
    let ota = documents::create_ota_update(update, place, &role, &jobs);
    let command = match update.signing {
        Signing::Custom { .. } => "iot create-ota-update --cli-binary-format base64",
        Signing::Profile { .. } => "iot create-ota-update",
    };
    all.push(("create-ota-update".into(), command.into(), ota));
    all
}
