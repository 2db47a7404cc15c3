//! What operators do: register things, create OTA updates and other jobs, cancel them.
//!
//! Everything is checked before anything changes. Ids and image digests come from outside: nothing here is random, and
//! nothing is signed here.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    ImageId, Job, JobId, JobStatus, Outgoing, Plan, Selection, Service, ServiceError, Stage,
    Stream, StreamFile, StreamId, Thing, ThingName, job_api::TIMEOUT_MINUTES_MAX, record::Record,
    url,
};

/// Most characters of a description, and of a reason, at AWS.
const DESCRIPTION_CHARS_MAX: usize = 2028;
/// Longest `filepath` and `certfile`: a path.
const PATH_BYTES_MAX: usize = 4096;
/// Longest signature as base64: 512 bytes of RSA-4096 and some room.
const SIGNATURE_BYTES_MAX: usize = 1024;

/// How the device may fetch the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// MQTT file streams.
    Mqtt,
    /// Ranges of a pre-signed URL.
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "MQTT",
            Self::Http => "HTTP",
        })
    }
}

/// Algorithm of a signature: its key in the job document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigKey {
    /// ECDSA over SHA-256, DER.
    #[serde(rename = "sig-sha256-ecdsa")]
    Sha256Ecdsa,
    /// RSA PKCS#1 v1.5 over SHA-256.
    #[serde(rename = "sig-sha256-rsa")]
    Sha256Rsa,
}

impl SigKey {
    /// The key in the job document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256Ecdsa => "sig-sha256-ecdsa",
            Self::Sha256Rsa => "sig-sha256-rsa",
        }
    }
}

/// A signature over a whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Algorithm.
    pub key: SigKey,
    /// Signature in base64, as it goes into the job document.
    pub base64: String,
}

/// One file of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateFile {
    /// Selects the target on the device.
    pub file_id: u8,
    /// The bytes, by digest.
    pub image: ImageId,
    /// How many.
    pub size: u64,
    /// `fileType`, left out where there is none.
    pub file_type: Option<u8>,
    /// `filepath`: where the device should put it.
    pub file_path: String,
    /// `certfile`: which certificate verifies it.
    pub cert_file: String,
    /// Over the whole file; none for an unsigned one.
    pub signature: Option<Signature>,
}

/// An OTA update to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpdate {
    /// Job id, `AFR_OTA-<update id>`.
    pub job_id: JobId,
    /// Stream id, `AFR_OTA-<uuid>`.
    pub stream_id: StreamId,
    /// For people.
    pub description: String,
    /// Whom it is for.
    pub things: Vec<ThingName>,
    /// What it brings.
    pub files: Vec<UpdateFile>,
    /// How it may be fetched.
    pub protocols: Vec<Protocol>,
    /// Minutes the device may take once it began.
    pub timeout_minutes: Option<u32>,
    /// Groups, and how it spreads.
    pub plan: Plan,
}

/// A job of any kind to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Its id.
    pub job_id: JobId,
    /// For people.
    pub description: String,
    /// Whom it is for.
    pub things: Vec<ThingName>,
    /// What the devices get: an object.
    pub document: Value,
    /// Minutes the device may take once it began.
    pub timeout_minutes: Option<u32>,
    /// Groups, and how it spreads.
    pub plan: Plan,
}

impl Service {
    /// Registers a thing.
    ///
    /// # Errors
    /// It exists, or the state cannot be kept.
    pub fn create_thing(&mut self, now_ms: u64, name: ThingName) -> Result<(), ServiceError> {
        self.check_writable()?;
        if self.state.things.contains_key(&name) {
            return Err(ServiceError::ThingExists(name));
        }
        let thing = Thing {
            created_at_ms: now_ms,
            ..Thing::default()
        };
        self.state.things.insert(name.clone(), thing);
        self.touch(Record::Thing(name));
        Ok(())
    }

    /// Lets the holder of a certificate speak for a thing. `fingerprint` is the SHA-256 of its DER in lower-case hex.
    ///
    /// # Errors
    /// No such thing, or the state cannot be kept.
    pub fn attach_certificate(
        &mut self,
        name: &ThingName,
        fingerprint: &str,
    ) -> Result<(), ServiceError> {
        self.check_writable()?;
        let thing = self
            .state
            .things
            .get_mut(name)
            .ok_or_else(|| ServiceError::UnknownThing(name.clone()))?;
        if thing.certificates.insert(fingerprint.to_owned()) {
            let things = self.principals.entry(fingerprint.to_owned()).or_default();
            things.insert(name.clone());
            self.touch(Record::Thing(name.clone()));
        }
        Ok(())
    }

    /// Takes that back.
    ///
    /// # Errors
    /// No such thing, or the state cannot be kept.
    pub fn detach_certificate(
        &mut self,
        name: &ThingName,
        fingerprint: &str,
    ) -> Result<(), ServiceError> {
        self.check_writable()?;
        if !self.state.things.contains_key(name) {
            return Err(ServiceError::UnknownThing(name.clone()));
        }
        self.unbind(name, fingerprint);
        Ok(())
    }

    pub(super) fn unbind(&mut self, name: &ThingName, fingerprint: &str) {
        let Some(thing) = self.state.things.get_mut(name) else {
            return;
        };
        if !thing.certificates.remove(fingerprint) {
            return;
        }
        if let Some(things) = self.principals.get_mut(fingerprint) {
            things.remove(name);
            if things.is_empty() {
                self.principals.remove(fingerprint);
            }
        }
        self.touch(Record::Thing(name.clone()));
    }

    /// The things that the holder of a certificate may speak for; none = the certificate is not registered.
    #[must_use]
    pub fn things_of_certificate(&self, fingerprint: &str) -> BTreeSet<ThingName> {
        self.principals
            .get(fingerprint)
            .cloned()
            .unwrap_or_default()
    }

    /// Creates stream and job of an update and queues it on its things; returns the notifications.
    ///
    /// # Errors
    /// An id is in use, a thing is unknown, a limit is exceeded; nothing is created then.
    pub fn create_update(
        &mut self,
        now_ms: u64,
        update: NewUpdate,
    ) -> Result<Vec<Outgoing>, ServiceError> {
        self.check_files(&update)?;
        if self.state.streams.contains_key(&update.stream_id) {
            return Err(ServiceError::StreamExists(update.stream_id));
        }
        let job = NewJob {
            document: document(&update),
            job_id: update.job_id,
            description: update.description.clone(),
            things: update.things,
            timeout_minutes: update.timeout_minutes,
            plan: update.plan,
        };
        let members = self.check_job(&job)?;
        let files = update.files.into_iter().map(|file| {
            let stored = StreamFile {
                image: file.image,
                size: file.size,
            };
            (file.file_id, stored)
        });
        let stream = Stream {
            version: 1,
            description: update.description,
            job: job.job_id.clone(),
            files: files.collect(),
        };
        self.state.streams.insert(update.stream_id.clone(), stream);
        self.touch(Record::Stream(update.stream_id.clone()));
        Ok(self.insert_job(now_ms, job, members, Some(update.stream_id)))
    }

    /// Creates a job of any kind and queues it on its things; returns the notifications.
    ///
    /// # Errors
    /// The id is in use, a thing is unknown, a limit is exceeded; nothing is created then.
    pub fn create_job(&mut self, now_ms: u64, job: NewJob) -> Result<Vec<Outgoing>, ServiceError> {
        let members = self.check_job(&job)?;
        Ok(self.insert_job(now_ms, job, members, None))
    }

    /// Cancels a job. Executions that have not begun become CANCELED; with `force` those that have begun too.
    ///
    /// # Errors
    /// No such job, or it has ended. A cancelled job may be cancelled again with `force`.
    pub fn cancel(
        &mut self,
        now_ms: u64,
        id: &JobId,
        force: bool,
        reason: Option<String>,
    ) -> Result<Vec<Outgoing>, ServiceError> {
        self.check_writable()?;
        check_text("the reason", reason.as_deref().unwrap_or_default())?;
        let job = self
            .state
            .jobs
            .get(id)
            .ok_or_else(|| ServiceError::UnknownJob(id.clone()))?;
        if job.status == JobStatus::Completed || (job.status == JobStatus::Canceled && !force) {
            return Err(ServiceError::JobEnded {
                job: id.clone(),
                status: job.status.as_str(),
            });
        }
        let mut out = Vec::new();
        self.cancel_open(now_ms, id, force, reason, &mut out);
        Ok(out)
    }

    fn insert_job(
        &mut self,
        now_ms: u64,
        new: NewJob,
        members: Vec<ThingName>,
        stream: Option<StreamId>,
    ) -> Vec<Outgoing> {
        let job = Job {
            document: new.document,
            description: new.description,
            status: JobStatus::InProgress,
            things: new.things,
            stage: Stage::first(now_ms, new.plan.rollout),
            plan: new.plan,
            reason: None,
            departed: Vec::new(),
            created_at_ms: now_ms,
            timeout_minutes: new.timeout_minutes,
            stream,
        };
        self.state.jobs.insert(new.job_id.clone(), job);
        self.touch(Record::Job(new.job_id.clone()));
        let mut out = Vec::new();
        for thing in &members {
            self.hold(now_ms, thing, &new.job_id);
        }
        self.spread(now_ms, &new.job_id, &mut out);
        out
    }

    /// Whom a job is for: the things it names, then the members of its groups, each once.
    fn members(&self, things: &[ThingName], plan: &Plan) -> Result<Vec<ThingName>, ServiceError> {
        let mut members = Vec::with_capacity(things.len());
        let mut seen = BTreeSet::new();
        for thing in things {
            if !self.state.things.contains_key(thing) {
                return Err(ServiceError::UnknownThing(thing.clone()));
            }
            if !seen.insert(thing) {
                return Err(ServiceError::TargetTwice(thing.clone()));
            }
            members.push(thing.clone());
        }
        let mut groups = BTreeSet::new();
        for name in &plan.groups {
            let group = self.state.groups.get(name);
            let group = group.ok_or_else(|| ServiceError::UnknownGroup(name.clone()))?;
            if !groups.insert(name) {
                return Err(ServiceError::GroupTwice(name.clone()));
            }
            if group.things.is_empty() && plan.selection == Selection::Snapshot {
                return Err(ServiceError::GroupEmpty(name.clone()));
            }
            let others = group.things.iter().filter(|thing| seen.insert(thing));
            members.extend(others.cloned());
        }
        if things.is_empty() && plan.groups.is_empty() {
            return Err(ServiceError::NoTarget);
        }
        if plan.groups.is_empty() && plan.selection == Selection::Continuous {
            return Err(ServiceError::ContinuousWithoutGroup);
        }
        Ok(members)
    }

    /// Checks what can be checked of a job before its files are there; asked again when it is created.
    ///
    /// # Errors
    /// The id is in use, a thing or group is unknown, a figure of the plan is out of range.
    pub fn check_targets(
        &self,
        id: &JobId,
        things: &[ThingName],
        plan: &Plan,
    ) -> Result<(), ServiceError> {
        if self.state.jobs.contains_key(id) {
            return Err(ServiceError::JobExists(id.clone()));
        }
        plan.check()?;
        self.members(things, plan).map(|_| ())
    }

    fn check_job(&self, job: &NewJob) -> Result<Vec<ThingName>, ServiceError> {
        self.check_writable()?;
        if self.state.jobs.contains_key(&job.job_id) {
            return Err(ServiceError::JobExists(job.job_id.clone()));
        }
        job.plan.check()?;
        let members = self.members(&job.things, &job.plan)?;
        check_text("the description", &job.description)?;
        if let Some(minutes) = job.timeout_minutes
            && !(1..=TIMEOUT_MINUTES_MAX).contains(&minutes)
        {
            return Err(ServiceError::TimeoutOutOfRange(minutes));
        }
        if !job.document.is_object() {
            return Err(ServiceError::DocumentNotAnObject);
        }
        let chars = job.document.to_string().chars().count();
        let max = self.limits.document_chars_max();
        if chars > max {
            return Err(ServiceError::DocumentTooLong { chars, max });
        }
        Ok(members)
    }

    fn check_files(&self, update: &NewUpdate) -> Result<(), ServiceError> {
        if update.protocols.is_empty() {
            return Err(ServiceError::NoProtocol);
        }
        if let Some(other) = update.protocols.iter().find(|p| !self.serves(**p)) {
            return Err(ServiceError::ProtocolNotServed(*other));
        }
        if update.files.is_empty() {
            return Err(ServiceError::NoFile);
        }
        let max = self.limits.stream_files_max();
        if update.files.len() > max {
            return Err(ServiceError::TooManyFiles {
                given: update.files.len(),
                max,
            });
        }
        let mut seen = BTreeSet::new();
        for file in &update.files {
            if !seen.insert(file.file_id) {
                return Err(ServiceError::FileIdTwice(file.file_id));
            }
            let max = self.limits.file_bytes_max();
            if file.size > max {
                return Err(ServiceError::FileTooLarge {
                    file_id: file.file_id,
                    size: file.size,
                    max,
                });
            }
            let signature = file.signature.as_ref().map_or("", |s| &s.base64);
            let texts = [
                ("filepath", file.file_path.len(), PATH_BYTES_MAX),
                ("certfile", file.cert_file.len(), PATH_BYTES_MAX),
                ("the signature", signature.len(), SIGNATURE_BYTES_MAX),
            ];
            for (what, bytes, max) in texts {
                if bytes > max {
                    return Err(ServiceError::TextTooLong {
                        what,
                        file_id: file.file_id,
                        bytes,
                        max,
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_writable(&self) -> Result<(), ServiceError> {
        match &self.unavailable {
            None => Ok(()),
            Some(reason) => Err(ServiceError::Unavailable(reason.clone())),
        }
    }
}

/// A text for people has AWS's length at most.
pub(super) fn check_text(what: &'static str, text: &str) -> Result<(), ServiceError> {
    let chars = text.chars().count();
    if chars > DESCRIPTION_CHARS_MAX {
        return Err(ServiceError::DescriptionTooLong {
            what,
            chars,
            max: DESCRIPTION_CHARS_MAX,
        });
    }
    Ok(())
}

/// The job document that OTA agents expect.
fn document(update: &NewUpdate) -> Value {
    let has_urls = update.protocols.contains(&Protocol::Http);
    let files: Vec<Value> = update
        .files
        .iter()
        .map(|file| {
            let mut object = Map::new();
            object.insert("filepath".into(), json!(file.file_path));
            object.insert("filesize".into(), json!(file.size));
            object.insert("fileid".into(), json!(file.file_id));
            object.insert("certfile".into(), json!(file.cert_file));
            if let Some(file_type) = file.file_type {
                object.insert("fileType".into(), json!(file_type));
            }
            if has_urls {
                object.insert(url::MEMBER.into(), json!(url::PLACEHOLDER));
                object.insert("auth_scheme".into(), json!(url::AUTH_SCHEME));
            }
            if let Some(signature) = &file.signature {
                object.insert(signature.key.as_str().into(), json!(signature.base64));
            }
            Value::Object(object)
        })
        .collect();
    let mut ota = Map::new();
    ota.insert("protocols".into(), json!(update.protocols));
    // Without streams in its protocols a job names none, as at AWS.
    if update.protocols.contains(&Protocol::Mqtt) {
        ota.insert("streamname".into(), json!(update.stream_id));
    }
    ota.insert("files".into(), Value::Array(files));
    json!({ "afr_ota": ota })
}
