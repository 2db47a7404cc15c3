//! `otad update create` in the cloud in a box: everything is checked, then signed, then created in one call.

use std::fs;
use std::path::{Path, PathBuf};

use host_cloud::id::{self, OTA_PREFIX};
use host_cloud::operator::OperatorClient;
use host_cloud::operator::wire::{
    CloudInfo, CreateJob, CreateUpdate, FileSpec, ImageInput, UpdateCreated,
};
use host_cloud::service::{ImageId, JobId, JobStatus};
use serde_json::{Value, json};

use super::profile::{self, Origin};
use super::request::{self, FileRequest, Request, Source};
use super::signing::{Signed, Signer, file_failed};
use super::{aws, watch};
use crate::cli::args::{CloudArg, CreateArgs};
use crate::cli::cloud_client::{connect, connect_now, refused};
use crate::cli::problems::Problems;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) async fn follow(args: &CreateArgs) -> Verb {
    let mut problems = Problems::default();
    let request = request::read(args, &mut problems);
    if args.aws || args.aws_json.is_some() {
        return aws::follow(args, request, problems);
    }
    let Some(cloud) = &args.cloud() else {
        problems.usage(
            "--cloud is missing: the directory of a running `otad cloud`, or $OTAD_CLOUD; with AWS --aws or --aws-json",
        );
        // Without the cloud's own key there may be none; the key that was named can still be wrong.
        Signer::read(args, None, None, &mut problems);
        problems.into_result()?;
        return Ok(Exit::Usage);
    };
    let Some((mut client, info)) = look(cloud, &request, &mut problems).await else {
        Signer::read(args, None, None, &mut problems);
        problems.into_result()?;
        return Ok(Exit::Retry);
    };
    let jobs = match &args.document {
        Some(path) => vec![create_job(&mut client, args, request, path, problems).await?],
        None => create_update(&mut client, &info, (args, &cloud.cloud), request, problems).await?,
    };
    let mut ends = Vec::new();
    for (job, facts) in jobs {
        if args.wait {
            ends.push(watch::follow(&mut client, job, args.json).await?);
        } else if args.json {
            say(&facts.to_string());
        }
    }
    Ok(watch::worst(ends))
}

/// Reach the cloud and ask it for every name; `None` if it cannot be reached.
async fn look(
    cloud: &CloudArg,
    request: &Request,
    problems: &mut Problems,
) -> Option<(OperatorClient, CloudInfo)> {
    // Where something is wrong already there is no reason to wait for a cloud that is starting.
    let connected = match problems.is_empty() {
        true => connect(cloud).await,
        false => connect_now(cloud).await,
    };
    let mut client = problems.take(connected)?;
    let info = client.info().await.map_err(refused);
    let info = problems.take(info)?;
    if !request.things.is_empty() {
        let known = client.thing_list().await.map_err(refused);
        let known = problems.take(known)?;
        for name in &request.things {
            if !known.iter().any(|thing| thing.name == *name) {
                problems.add(
                    Exit::Failed,
                    format!("--thing {name}: no such thing; `otad thing create {name}` makes it"),
                );
            }
        }
    }
    if !request.plan.groups.is_empty() {
        let known = client.group_list().await.map_err(refused);
        let known = problems.take(known)?;
        for name in &request.plan.groups {
            if !known.iter().any(|group| group.name == *name) {
                problems.add(
                    Exit::Failed,
                    format!("--group {name}: no such group; `otad group create {name}` makes it"),
                );
            }
        }
    }
    Some((client, info))
}

async fn create_job(
    client: &mut OperatorClient,
    args: &CreateArgs,
    request: Request,
    document: &Path,
    mut problems: Problems,
) -> Result<(JobId, Value), Failed> {
    let text = fs::read(document).map_err(|e| file_failed(document, &e));
    let document = problems.take(text).and_then(|text| {
        let parsed = serde_json::from_slice::<Value>(&text).map_err(|e| {
            let what = format!("--document {}", document.display());
            Failed::chain(Exit::Usage, &what, &e)
        });
        problems.take(parsed)
    });
    problems.into_result()?;
    let job_id = match &request.update_id {
        Some(text) => super::job_id(text)?,
        None => id::update_job_id(None)
            .map_err(|e| Failed::chain(Exit::Failed, "making up a job id", &e))?,
    };
    let job = client
        .create_job(CreateJob {
            job_id,
            things: request.things,
            document: document.unwrap_or_default(),
            description: String::new(),
            timeout_minutes: args.timeout,
            plan: request.plan,
        })
        .await
        .map_err(refused)?;
    if !args.json {
        say(&format!("job       {}", job.job_id));
    }
    let facts = json!({ "job_id": job.job_id, "status": job.status });
    Ok((job.job_id, facts))
}

async fn create_update(
    client: &mut OperatorClient,
    info: &CloudInfo,
    (args, cloud): (&CreateArgs, &Path),
    request: Request,
    mut problems: Problems,
) -> Result<Vec<(JobId, Value)>, Failed> {
    let tell = |line: String| {
        if !args.json {
            say(&line);
        }
    };
    let profile = profile::read(cloud, args, &mut problems);
    let own = (&*info.signing_key_path, &*info.signing_certificate_path);
    // A profile that could not be read leaves nothing to sign with.
    let default = match (&args.signing_profile, &profile) {
        (Some(_), None) => None,
        _ => Some(own),
    };
    let known = profile.as_ref().map(|(profile, _)| profile);
    let signer = Signer::read(args, known, default, &mut problems);
    let store = (client.is_remote(), info.dir.join("images"));
    let images: Vec<Image> = request
        .files
        .iter()
        .map(|file| image(&store, &file.source, &file.named, &mut problems))
        .collect();
    let signed = match (&signer, problems.is_empty()) {
        (Some(signer), true) => {
            announce(signer, profile.as_ref(), &request, &images, &tell);
            sign_all(signer, &request, &images, &mut problems)
        }
        _ => Vec::new(),
    };
    problems.into_result()?;
    if let Some((profile, Origin::New)) = &profile {
        profile::store(cloud, profile)?;
        tell(format!("profile   {} made", profile.name));
    }
    let certfile = match &args.certfile {
        Some(certfile) => Some(certfile.clone()),
        None => profile.map(|(p, _)| p.certfile),
    };
    let files = request.files.iter().zip(images).zip(signed);
    let files = files.map(|((file, image), signed)| FileSpec {
        file_id: file.file_id,
        image: image.into(),
        sha256: Some(signed.sha256),
        file_type: file.file_type,
        file_path: file.filepath.clone().unwrap_or_default(),
        cert_file: certfile.clone().unwrap_or_default(),
        signature: signed.signature,
    });
    // All of a job's files are updated, or none: where one may fail without the others, each is a job.
    let groups: Vec<Vec<FileSpec>> = if args.best_effort {
        files.map(|file| vec![file]).collect()
    } else {
        vec![files.collect()]
    };
    let mut jobs = Vec::new();
    for files in groups {
        let mut update = CreateUpdate::new(request.things.clone(), files);
        update.update_id.clone_from(&request.update_id);
        update.protocols.clone_from(&request.protocols);
        update.timeout_minutes = args.timeout;
        update.plan = request.plan.clone();
        let created = client
            .create_update(update)
            .await
            .map_err(|e| after(&jobs, refused(e)))?;
        let facts = facts(info, &created);
        for line in lines(&facts, &created) {
            tell(line);
        }
        jobs.push((created.job_id, facts));
    }
    Ok(jobs)
}

/// A refusal names what exists by then: the same command again would make it twice.
fn after(jobs: &[(JobId, Value)], mut failed: Failed) -> Failed {
    if !jobs.is_empty() {
        let made: Vec<&str> = jobs.iter().map(|(id, _)| id.as_str()).collect();
        failed.text = format!(
            "{}; made before that: {} (create the rest, or take these back with `otad update cancel`)",
            failed.text,
            made.join(", ")
        );
    }
    failed
}

/// Say what will be signed, and by whom.
fn announce(
    signer: &Signer,
    profile: Option<&(profile::Profile, Origin)>,
    request: &Request,
    images: &[Image],
    tell: &impl Fn(String),
) {
    if let Some(certificate) = signer.certificate() {
        tell(format!("certificate {}", certificate.path.display()));
    }
    if let Some((profile, Origin::Found)) = profile {
        tell(format!("profile   {} found", profile.name));
    }
    for (file, image) in request.files.iter().zip(images) {
        let named = match image {
            Image::Here(path) => path.display().to_string(),
            Image::Away(_) => file.named.clone(),
        };
        match request.files.len() {
            1 => tell(format!("image     {named}")),
            _ => tell(format!("image     {}={named}", file.file_id)),
        }
    }
    tell(format!("signing   {} image(s), waiting", images.len()));
    tell(format!("signed by {}", signer.name()));
}

fn sign_all(
    signer: &Signer,
    request: &Request,
    images: &[Image],
    problems: &mut Problems,
) -> Vec<Signed> {
    let signed = |(file, image): (&FileRequest, &Image)| match image {
        Image::Here(path) => signer.sign(file, path),
        Image::Away(id) => signer.sign_unseen(file, id),
    };
    let files = request.files.iter().zip(images);
    files
        .filter_map(|pair| problems.take(signed(pair)))
        .collect()
}

/// Where an image lies.
enum Image {
    /// On this machine.
    Here(PathBuf),
    /// In the store of a cloud on another one.
    Away(ImageId),
}

impl From<Image> for ImageInput {
    fn from(image: Image) -> Self {
        match image {
            Image::Here(path) => Self::Path(path),
            Image::Away(id) => Self::Stored(id),
        }
    }
}

/// The image of a file; `store` is where the cloud keeps its own, and whether that may be on another machine.
fn image(
    (is_remote, store): &(bool, PathBuf),
    source: &Source,
    named: &str,
    problems: &mut Problems,
) -> Image {
    let path = match source {
        Source::File(path) => path.clone(),
        Source::Stored(digest) => {
            let path = store.join(digest);
            match ImageId::try_from(digest.clone()) {
                _ if path.is_file() => {}
                Ok(id) if *is_remote => return Image::Away(id),
                _ => problems.add(
                    Exit::Failed,
                    format!(
                        "--file {named}: the cloud's store has no such image; give the file itself"
                    ),
                ),
            }
            path
        }
        // Refused where it was read.
        Source::S3 { .. } => PathBuf::new(),
    };
    Image::Here(path)
}

fn facts(info: &CloudInfo, created: &UpdateCreated) -> Value {
    let job = created.job_id.as_str();
    json!({
        "update_id": job.strip_prefix(OTA_PREFIX).unwrap_or(job),
        "address": format!("{}#{job}", info.dir.display()),
        "status": JobStatus::InProgress,
        "job_id": created.job_id,
        "stream_id": created.stream_id,
        "files": created.files,
    })
}

fn lines(facts: &Value, created: &UpdateCreated) -> Vec<String> {
    let text = |key: &str| facts[key].as_str().unwrap_or_default();
    let mut lines: Vec<String> = created
        .files
        .iter()
        .map(|file| format!("sha256    {} ({} bytes)", file.sha256, file.size))
        .collect();
    lines.extend([
        format!("stream    {}", created.stream_id),
        format!("update    {}", text("update_id")),
        format!("address   {}", text("address")),
        format!("status    {}", text("status")),
        format!("job       {}", created.job_id),
    ]);
    lines
}
