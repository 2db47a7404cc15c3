//! The calls in their order, once everything was looked at: upload, sign, stream, update; and what is left behind where one
//! fails.
//!
//! Nothing is taken back by itself: what exists is named, each with the command that removes it.

use std::time::Duration;

use serde_json::{Value, json};

use super::documents::{self, Object};
use super::look::{Found, version_of};
use super::program::{CallError, Program, text_of};
use super::{File, Image, Signing, Update};

/// How long AWS may take to sign, and to make the job: both take seconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two questions.
    pub interval: Duration,
    /// Questions before it counts as stuck.
    pub questions: u32,
}

impl Default for Pace {
    fn default() -> Self {
        // 300 x 1 s: five minutes.
        Self {
            interval: Duration::from_secs(1),
            questions: 300,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Id of the job.
    pub job_id: String,
    /// For `--json`.
    pub facts: Value,
}

/// What exists although the update failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What, and whether that is certain.
    pub what: String,
    /// The command that removes it.
    pub remove: String,
}

/// A sequence that broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Why.
    pub error: String,
    /// Whether the same command may work later.
    pub may_work_later: bool,
    /// What is left behind, oldest first.
    pub left: Vec<Left>,
}

/// Make the update.
///
/// # Errors
/// What failed, with everything that exists by then.
pub fn run(
    update: &Update,
    found: &Found,
    aws: &Program,
    pace: Pace,
    tell: &mut dyn FnMut(&str),
) -> Result<Made, Broken> {
    let mut run = Run {
        update,
        found,
        aws,
        pace,
        tell,
        left: Vec::new(),
    };
    run.follow().map_err(|failed| Broken {
        may_work_later: failed.may_work_later,
        error: failed.text,
        left: run.left,
    })
}

struct Failed {
    text: String,
    may_work_later: bool,
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self {
            may_work_later: error.may_have_happened(),
            text: error.to_string(),
        }
    }
}

struct Run<'a> {
    update: &'a Update,
    found: &'a Found,
    aws: &'a Program,
    pace: Pace,
    tell: &'a mut dyn FnMut(&str),
    left: Vec<Left>,
}

impl Run<'_> {
    fn say(&mut self, line: &str) {
        (self.tell)(line);
    }

    fn left(&mut self, what: String, remove: String) {
        self.left.push(Left { what, remove });
    }

    /// A call that makes something: where it fails without a verdict, the thing is named as perhaps there.
    fn make(
        &mut self,
        service: &str,
        operation: &str,
        document: &Value,
        more: &[&str],
        thing: (String, String),
    ) -> Result<Value, Failed> {
        let text = document.to_string();
        let mut arguments = vec!["--cli-input-json", &text];
        arguments.extend(more);
        let (what, remove) = thing;
        match self.aws.call(service, operation, &arguments) {
            Ok(answer) => {
                self.left(what, remove);
                Ok(answer)
            }
            Err(e) => {
                if e.may_have_happened() {
                    self.left(format!("perhaps {what}"), remove);
                }
                Err(e.into())
            }
        }
    }

    fn follow(&mut self) -> Result<Made, Failed> {
        let (update, found) = (self.update, self.found);
        let mut versions = Vec::new();
        for (file, known) in update.files.iter().zip(&found.versions) {
            versions.push(match known {
                Some(version) => version.clone(),
                None => self.upload(file)?,
            });
        }
        let (objects, jobs) = match &update.signing {
            Signing::Profile { name, platform, .. } => {
                self.profile(name, platform)?;
                self.sign(name, &versions)?
            }
            Signing::Custom { .. } => {
                let files = update.files.iter().zip(&versions);
                let objects = files.map(|(file, version)| {
                    let (bucket, key) = file.place(update);
                    Object {
                        bucket: bucket.to_owned(),
                        key,
                        version: version.clone(),
                    }
                });
                (objects.collect(), Vec::new())
            }
        };
        let stream = self.stream(&objects)?;
        let made = self.update(&jobs)?;
        let status = self.wait_for_the_job()?;
        let facts = json!({
            "account": found.place.account,
            "region": found.place.region,
            "certificate": found.certificate,
            "stream": stream,
            "update_id": update.id,
            "address": made["otaUpdateArn"],
            "job_id": status.1,
            "status": status.0,
        });
        Ok(Made {
            job_id: status.1,
            facts,
        })
    }

    fn upload(&mut self, file: &File) -> Result<String, Failed> {
        let (bucket, key) = file.place(self.update);
        let path = match &file.image {
            Image::Local(path) => path.display().to_string(),
            Image::Stored { .. } => String::new(),
        };
        let document = documents::put_object(self.update, file);
        let thing = (
            format!("image s3://{bucket}/{key}"),
            format!("aws s3api delete-object --bucket {bucket} --key {key}"),
        );
        let answer = self.make("s3api", "put-object", &document, &["--body", &path], thing)?;
        let version = text_of("s3api put-object", &answer, "/VersionId")?;
        self.say(&format!(
            "uploaded     s3://{bucket}/{key} version {version}"
        ));
        Ok(version)
    }

    fn profile(&mut self, name: &str, platform: &str) -> Result<(), Failed> {
        if self.found.profile_is_there {
            self.say(&format!("profile      {name} found"));
            return Ok(());
        }
        let certificate = self.found.certificate.as_deref().unwrap_or_default();
        let document =
            documents::put_signing_profile(name, certificate, platform, &self.update.certfile);
        let thing = (
            format!("signing profile {name}, which serves later updates"),
            format!("aws signer cancel-signing-profile --profile-name {name}"),
        );
        self.make("signer", "put-signing-profile", &document, &[], thing)?;
        self.say(&format!("profile      {name} made"));
        Ok(())
    }

    /// Sign every image; the signed objects, and the ids of the signing jobs.
    fn sign(
        &mut self,
        profile: &str,
        versions: &[String],
    ) -> Result<(Vec<Object>, Vec<String>), Failed> {
        let update = self.update;
        let mut jobs = Vec::new();
        for (file, version) in update.files.iter().zip(versions) {
            let document = documents::start_signing_job(update, file, profile, version);
            let thing = (
                format!(
                    "signing job of file {}; its result is an object of bucket {}",
                    file.file_id, update.bucket
                ),
                format!(
                    "aws s3api list-objects-v2 --bucket {} and delete-object",
                    update.bucket
                ),
            );
            let answer = self.make("signer", "start-signing-job", &document, &[], thing)?;
            jobs.push(text_of("signer start-signing-job", &answer, "/jobId")?);
        }
        let mut objects = Vec::new();
        for job in &jobs {
            self.say(&format!("signing      job {job}, waiting"));
            let signed = self.wait_for_signature(job)?;
            let text = |pointer| text_of("signer describe-signing-job", &signed, pointer);
            let bucket = text("/signedObject/s3/bucketName")?;
            let key = text("/signedObject/s3/key")?;
            self.say(&format!("signed       s3://{bucket}/{key}"));
            let version = version_of(self.aws, &bucket, &key)?;
            objects.push(Object {
                bucket,
                key,
                version,
            });
        }
        Ok((objects, jobs))
    }

    fn wait_for_signature(&mut self, job: &str) -> Result<Value, Failed> {
        for question in 0..self.pace.questions {
            if question > 0 {
                std::thread::sleep(self.pace.interval);
            }
            let answer = self
                .aws
                .call("signer", "describe-signing-job", &["--job-id", job])?;
            match answer["status"].as_str() {
                Some("Succeeded") => return Ok(answer),
                Some("Failed") => {
                    let why = answer["statusReason"].as_str().unwrap_or("no reason given");
                    return Err(Failed {
                        text: format!("signing job {job} failed: {why}"),
                        may_work_later: false,
                    });
                }
                _ => {}
            }
        }
        Err(self.stuck(&format!("signing job {job} has not ended")))
    }

    fn stuck(&self, what: &str) -> Failed {
        let waited = self.pace.interval * self.pace.questions;
        Failed {
            text: format!("{what} after {} s", waited.as_secs()),
            may_work_later: true,
        }
    }

    fn stream(&mut self, objects: &[Object]) -> Result<String, Failed> {
        let id = &self.update.id;
        let document = documents::create_stream(self.update, &self.found.role, objects);
        let thing = (
            format!("stream {id}"),
            format!("aws iot delete-stream --stream-id {id}"),
        );
        self.make("iot", "create-stream", &document, &[], thing)?;
        self.say(&format!("stream       {id}"));
        Ok(id.clone())
    }

    fn update(&mut self, jobs: &[String]) -> Result<Value, Failed> {
        let id = &self.update.id;
        let (place, role) = (&self.found.place, &self.found.role);
        let document = documents::create_ota_update(self.update, place, role, jobs);
        let thing = (
            format!("OTA update {id}"),
            format!("aws iot delete-ota-update --ota-update-id {id} --force-delete-aws-job"),
        );
        // A blob of our own stands in the document in base64, whatever the operator has configured.
        let more: &[&str] = match self.update.signing {
            Signing::Custom { .. } => &["--cli-binary-format", "base64"],
            Signing::Profile { .. } => &[],
        };
        let answer = self.make("iot", "create-ota-update", &document, more, thing)?;
        self.say(&format!("update       {id}"));
        if let Some(arn) = answer["otaUpdateArn"].as_str() {
            self.say(&format!("address      {arn}"));
        }
        let status = answer["otaUpdateStatus"].as_str().unwrap_or_default();
        self.say(&format!("status       {status}, waiting"));
        Ok(answer)
    }

    /// Status of the update, and its job.
    fn wait_for_the_job(&mut self) -> Result<(String, String), Failed> {
        let id = &self.update.id;
        for question in 0..self.pace.questions {
            if question > 0 {
                std::thread::sleep(self.pace.interval);
            }
            let answer = self
                .aws
                .call("iot", "get-ota-update", &["--ota-update-id", id])?;
            let info = &answer["otaUpdateInfo"];
            let status = text_of("iot get-ota-update", info, "/otaUpdateStatus")?;
            match status.as_str() {
                "CREATE_COMPLETE" => {
                    let job = text_of("iot get-ota-update", info, "/awsIotJobId")?;
                    self.say(&format!("job          {job}"));
                    self.say(&format!("status       {status}"));
                    return Ok((status, job));
                }
                "CREATE_PENDING" | "CREATE_IN_PROGRESS" => {}
                _ => {
                    let error = &info["errorInfo"];
                    let text = |key: &str| error[key].as_str().unwrap_or("not given").to_owned();
                    return Err(Failed {
                        text: format!(
                            "OTA update {id} is {status}: {} (code {})",
                            text("message"),
                            text("code")
                        ),
                        may_work_later: false,
                    });
                }
            }
        }
        Err(self.stuck(&format!("OTA update {id} is not complete")))
    }
}
