//! `otad update create`, read and checked as far as this machine can tell: what was asked for, and everything that is
//! missing or wrong with it, in one go.
//!
//! Not here: whether the cloud or AWS knows the names; `create.rs` and `aws.rs` ask and add to the same list.

use std::fs;
use std::path::PathBuf;

use host_cloud::Limits;
use host_cloud::id::OTA_PREFIX;
use host_cloud::service::{
    AbortRule, FailureKind, GroupName, JobId, Plan, Protocol, Rollout, Selection, ThingName,
};

use crate::cli::args::{CreateArgs, Keyed, ProtocolArg};
use crate::cli::problems::Problems;
use crate::exit::Exit;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file of this machine, by its absolute path.
    File(PathBuf),
    /// In the store of the cloud in a box, by its SHA-256.
    Stored(String),
    /// In a bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// What it is called there.
        key: String,
    },
}

/// One image and what the job says about it.
#[derive(Clone, Debug)]
pub(super) struct FileRequest {
    pub(super) file_id: u8,
    pub(super) source: Source,
    /// As the operator wrote it.
    pub(super) named: String,
    pub(super) file_type: Option<u8>,
    pub(super) filepath: Option<String>,
    pub(super) signature: Option<PathBuf>,
}

/// An update as it was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) things: Vec<ThingName>,
    pub(super) files: Vec<FileRequest>,
    pub(super) protocols: Vec<Protocol>,
    /// Without the prefix of OTA jobs.
    pub(super) update_id: Option<String>,
    pub(super) plan: Plan,
}

/// Read what was asked for; what is wrong goes to `problems`, and what is returned is then only good for more checks.
pub(super) fn read(args: &CreateArgs, problems: &mut Problems) -> Request {
    let things: Vec<ThingName> = names(&args.thing, "--thing", problems);
    let groups: Vec<GroupName> = names(&args.group, "--group", problems);
    if args.thing.is_empty() && args.group.is_empty() {
        problems.usage("--thing or --group is missing: whom is the update for?");
    }
    if args.continuous && args.group.is_empty() {
        problems.usage("--continuous is for groups: name one with --group, or leave it out");
    }
    let abort = args.abort_if_failed.map(|threshold| AbortRule {
        failures: FailureKind::All,
        threshold,
        minimum: args.abort_minimum,
    });
    let plan = Plan {
        groups,
        selection: match args.continuous {
            true => Selection::Continuous,
            false => Selection::Snapshot,
        },
        rollout: Rollout {
            per_minute: args.rate,
            canary: args.canary,
        },
        abort: abort.into_iter().collect(),
    };
    Request {
        files: if args.document.is_none() {
            files(args, problems)
        } else {
            Vec::new()
        },
        protocols: protocols(&args.protocols),
        update_id: update_id(args, problems),
        plan,
        things,
    }
}

fn names<N>(texts: &[String], option: &str, problems: &mut Problems) -> Vec<N>
where
    N: std::str::FromStr + PartialEq,
    N::Err: std::fmt::Display,
{
    let mut names = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(name) if names.contains(&name) => {
                problems.usage(format!("{option} {text} stands twice; name it once"));
            }
            Ok(name) => names.push(name),
            Err(e) => problems.usage(format!("{option}: {e}")),
        }
    }
    names
}

fn protocols(args: &[ProtocolArg]) -> Vec<Protocol> {
    let mut protocols = Vec::new();
    for arg in args {
        let protocol = match arg {
            ProtocolArg::Mqtt => Protocol::Mqtt,
            ProtocolArg::Http => Protocol::Http,
        };
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    protocols
}

/// The job of an update is called `AFR_OTA-<update id>`; an operator may name either.
fn update_id(args: &CreateArgs, problems: &mut Problems) -> Option<String> {
    let text = args.job_id.as_ref()?;
    let id = match args.document {
        // The name of any other job is its own.
        Some(_) => text.as_str(),
        None => text.strip_prefix(OTA_PREFIX).unwrap_or(text),
    };
    let whole = match args.document {
        Some(_) => id.to_owned(),
        None => format!("{OTA_PREFIX}{id}"),
    };
    if let Err(e) = JobId::new(&whole) {
        problems.usage(format!("--job-id: {e}"));
    }
    Some(id.to_owned())
}

fn files(args: &CreateArgs, problems: &mut Problems) -> Vec<FileRequest> {
    if args.file.is_empty() {
        problems.usage("--file is missing: what does the update bring?");
    }
    let mut files: Vec<FileRequest> = Vec::new();
    for file in &args.file {
        let file_id = file.id.unwrap_or(args.file_id);
        if files.iter().any(|f| f.file_id == file_id) {
            problems.usage(format!(
                "file id {file_id} stands twice; give each file its own: --file 0=A --file 1=B"
            ));
            continue;
        }
        files.push(FileRequest {
            file_id,
            source: source(args, &file.value, problems),
            named: file.value.clone(),
            file_type: None,
            filepath: None,
            signature: None,
        });
    }
    let max = Limits::Aws.stream_files_max();
    if files.len() > max && args.cloud.is_none() {
        problems.usage(format!(
            "--file: {} files, AWS takes at most {max} in an update",
            files.len()
        ));
    }
    let id = args.file_id;
    let option = ("--file-type", &args.file_type[..]);
    each(
        option,
        id,
        &mut files,
        problems,
        |file, text, problems| match text.parse::<u8>() {
            Ok(0) => {}
            Ok(file_type) => file.file_type = Some(file_type),
            Err(_) => problems.usage(format!("--file-type {text}: expected 0 to 255")),
        },
    );
    let option = ("--filepath", &args.filepath[..]);
    each(option, id, &mut files, problems, |file, text, _| {
        file.filepath = Some(text.to_owned());
    });
    let option = ("--signature", &args.signature[..]);
    each(option, id, &mut files, problems, |file, text, _| {
        file.signature = Some(PathBuf::from(text));
    });
    if !args.signature.is_empty() {
        for file in files.iter().filter(|f| f.signature.is_none()) {
            problems.usage(format!(
                "--signature {}=FILE is missing: each file needs its own",
                file.file_id
            ));
        }
    }
    files
}

/// Give each file what an option says for it.
fn each(
    option: (&str, &[Keyed]),
    default_id: u8,
    files: &mut [FileRequest],
    problems: &mut Problems,
    mut put: impl FnMut(&mut FileRequest, &str, &mut Problems),
) {
    let (option, given) = option;
    let mut seen = Vec::new();
    for keyed in given {
        let id = keyed.id.unwrap_or(default_id);
        if seen.contains(&id) {
            problems.usage(format!("{option} stands twice for file {id}"));
            continue;
        }
        seen.push(id);
        match files.iter_mut().find(|f| f.file_id == id) {
            Some(file) => put(file, &keyed.value, problems),
            None => problems.usage(format!("{option} {}: no --file has id {id}", keyed.value)),
        }
    }
}

fn source(args: &CreateArgs, text: &str, problems: &mut Problems) -> Source {
    let at_aws = args.aws || args.aws_json.is_some();
    if let Some(digest) = text.strip_prefix("sha256:") {
        let digest = digest.to_ascii_lowercase();
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            problems.usage(format!(
                "--file {text}: a SHA-256 has 64 hexadecimal digits"
            ));
        } else if at_aws {
            problems.usage(format!(
                "--file {text}: AWS finds images by s3://BUCKET/KEY"
            ));
        }
        return Source::Stored(digest);
    }
    if let Some(place) = text.strip_prefix("s3://") {
        let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || key.is_empty() {
            problems.usage(format!("--file {text}: expected s3://BUCKET/KEY"));
        } else if !at_aws {
            problems.usage(format!(
                "--file {text} is for --aws; the cloud in a box finds images by sha256:DIGEST"
            ));
        }
        return Source::S3 {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        };
    }
    let path = match fs::canonicalize(text) {
        Ok(path) => path,
        Err(e) => {
            problems.add(Exit::Failed, format!("--file {text}: {e}"));
            return Source::File(PathBuf::from(text));
        }
    };
    match fs::metadata(&path) {
        Ok(meta) if !meta.is_file() => {
            problems.add(Exit::Failed, format!("--file {text} is no regular file"));
        }
        Ok(meta) if at_aws && meta.len() > Limits::Aws.file_bytes_max() => problems.add(
            Exit::Failed,
            format!(
                "--file {text} has {} bytes, AWS takes at most {}",
                meta.len(),
                Limits::Aws.file_bytes_max()
            ),
        ),
        Ok(_) => {}
        Err(e) => problems.add(Exit::Failed, format!("--file {text}: {e}")),
    }
    Source::File(path)
}
