//! The operator socket's language: one JSON object a line.
//!
//! A request is `{"v":1,"op":"…",…}`; its answer `{"v":1,"ok":…}` or `{"v":1,"error":{"code":"…","message":"…"}}`. `watch`
//! is answered by any number of `{"v":1,"change":{…}}` before the job as it ended. Members may be added; what is here does
//! not change its meaning within a version.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    broker::BrokerStatus,
    service::{
        Change, GroupName, ImageId, JobId, JobStatus, Plan, Protocol, Signature, StreamId,
        ThingName,
    },
    stats::CloudStats,
};

/// The version spoken here.
pub const VERSION: u32 = 1;
/// Longest request line: an update for some thousand things. Images come by path.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Longest answer line: the list of a large cloud.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the asker.
    pub v: u32,
    /// What it asks.
    #[serde(flatten)]
    pub op: Op,
}

/// The first line over TLS: who may ask. Answered by `{"v":1,"ok":null}`, or refused with the code `unauthorized`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticate {
    /// [`VERSION`] of the asker.
    pub v: u32,
    /// What the cloud's token file holds.
    pub token: String,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Creates an OTA update; answered by [`UpdateCreated`].
    CreateUpdate(CreateUpdate),
    /// Creates any other job; answered by its [`JobView`](crate::service::JobView).
    CreateJob(CreateJob),
    /// Sends an image: so many raw bytes follow the request's line; answered by [`ImageStored`]. It stays while the
    /// connection does, or while a stream names it.
    PutImage {
        /// How many bytes follow.
        size: u64,
        /// Their SHA-256 in lower-case hex, if the sender knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// Cancels a job; answered by its `JobView`.
    Cancel {
        /// Which.
        job_id: JobId,
        /// Also where the device has begun.
        #[serde(default)]
        force: bool,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Forgets a job that has ended, with its stream and the images that no other stream needs; answered by [`Deleted`].
    DeleteJob {
        /// Which.
        job_id: JobId,
        /// Also one that has not ended: it vanishes from its things.
        #[serde(default)]
        force: bool,
    },
    /// Jobs, oldest first; answered by a list of [`JobSummary`](crate::service::JobSummary).
    List(JobFilter),
    /// One job; answered by its `JobView`.
    Show {
        /// Which.
        job_id: JobId,
    },
    /// One job's changes until it ends; then its `JobView`. Whoever closes the connection, or its half of it, has left.
    Watch {
        /// Which.
        job_id: JobId,
    },
    /// Registers a thing, or finds it; with a new key where the one it had was detached. Answered by [`ThingCreated`].
    ThingCreate {
        /// Its name.
        name: ThingName,
    },
    /// All things; answered by a list of [`ThingView`](crate::service::ThingView).
    ThingList,
    /// One thing; answered by its [`ThingDescription`](crate::service::ThingDescription).
    ThingDescribe {
        /// Which.
        name: ThingName,
    },
    /// Forgets a thing: its certificates are detached, its connections end, its executions become REMOVED; answered by
    /// [`Deleted`].
    ThingDelete {
        /// Which.
        name: ThingName,
        /// Also while a job has not ended on it.
        #[serde(default)]
        force: bool,
    },
    /// Lets the holder of a certificate that somebody else made speak for a thing; answered by its `ThingDescription`.
    ThingAttach {
        /// Which.
        name: ThingName,
        /// The certificate in PEM, perhaps with its chain.
        certificate_pem: String,
        /// The root that it leads to, where the cloud does not know it yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root_pem: Option<String>,
    },
    /// Takes a certificate away from a thing and ends its connections; answered by its `ThingDescription`.
    ThingDetach {
        /// Which.
        name: ThingName,
        /// SHA-256 of the certificate in lower-case hex.
        fingerprint: String,
    },
    /// Makes a group; answered by its [`GroupView`](crate::service::GroupView).
    GroupCreate {
        /// Its name.
        name: GroupName,
        /// For people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        description: String,
    },
    /// All groups; answered by a list of `GroupView`.
    GroupList,
    /// One group; answered by its `GroupView`.
    GroupDescribe {
        /// Which.
        name: GroupName,
    },
    /// Forgets a group. Its members stay things, its continuous jobs get no more members; answered by [`Deleted`].
    GroupDelete {
        /// Which.
        name: GroupName,
    },
    /// Things join a group and get its continuous jobs; answered by its `GroupView`. Members stay members.
    GroupAdd {
        /// Which.
        name: GroupName,
        /// Who.
        things: Vec<ThingName>,
    },
    /// Things leave a group; its continuous jobs that they have not begun become REMOVED; answered by its `GroupView`.
    GroupRemove {
        /// Which.
        name: GroupName,
        /// Who.
        things: Vec<ThingName>,
    },
    /// All streams; answered by a list of [`StreamView`](crate::service::StreamView).
    StreamList,
    /// Forgets a stream, and the images that no other stream needs; answered by [`Deleted`].
    StreamDelete {
        /// Which.
        stream_id: StreamId,
        /// Also while its job has not ended.
        #[serde(default)]
        force: bool,
    },
    /// Where the cloud listens and what it trusts; answered by [`CloudInfo`].
    Info,
    /// Counters; answered by [`CloudStats`].
    Stats,
}

/// Which jobs to list; every member that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFilter {
    /// Jobs of this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// Jobs with an execution on this thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thing: Option<ThingName>,
    /// Jobs for this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
}

/// An image that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStored {
    /// What to call it by from now on: [`ImageInput::Stored`].
    pub sha256: ImageId,
    /// Its size in bytes.
    pub size: u64,
}

/// What was forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The stream that went with its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<StreamId>,
    /// Images that nobody needs any more, by SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Executions that had not ended.
    #[serde(default)]
    pub executions: usize,
}

/// An OTA update as an operator describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateUpdate {
    /// Things it is for; groups stand in the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<ThingName>,
    /// What it brings.
    pub files: Vec<FileSpec>,
    /// The job is called `AFR_OTA-<update id>`; drawn at random if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_id: Option<String>,
    /// `AFR_OTA-<uuid>` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<StreamId>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How devices may fetch it.
    #[serde(default = "mqtt")]
    pub protocols: Vec<Protocol>,
    /// Minutes a device may take once it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_minutes: Option<u32>,
    /// Groups, snapshot or continuous, roll-out, abort rules.
    #[serde(flatten)]
    pub plan: Plan,
}

fn mqtt() -> Vec<Protocol> {
    vec![Protocol::Mqtt]
}

impl CreateUpdate {
    /// An update with everything else left out.
    #[must_use]
    pub fn new(things: Vec<ThingName>, files: Vec<FileSpec>) -> Self {
        Self {
            things,
            files,
            update_id: None,
            stream_id: None,
            description: String::new(),
            protocols: mqtt(),
            timeout_minutes: None,
            plan: Plan::default(),
        }
    }
}

/// One file of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Selects the target on the device.
    pub file_id: u8,
    /// The image; the cloud copies it.
    #[serde(flatten)]
    pub image: ImageInput,
    /// SHA-256 in lower-case hex of what was signed: the cloud refuses a file that changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `fileType` of the job document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<u8>,
    /// `filepath` of the job document.
    pub file_path: String,
    /// `certfile` of the job document.
    pub cert_file: String,
    /// Over the whole file; left out for an unsigned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageInput {
    /// In a file that the cloud's process can read: an absolute path.
    #[serde(rename = "path")]
    Path(PathBuf),
    /// In the cloud already, by SHA-256: an update uses it, or it was sent on this connection.
    #[serde(rename = "stored")]
    Stored(ImageId),
    /// In memory; only within one process.
    #[serde(skip)]
    Bytes(bytes::Bytes),
}

impl ImageInput {
    /// Whether another process finds the same image by it.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        match self {
            Self::Path(path) => path.is_absolute(),
            Self::Stored(_) => true,
            Self::Bytes(_) => false,
        }
    }
}

/// A job of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateJob {
    /// Its id.
    pub job_id: JobId,
    /// Things it is for; groups stand in the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<ThingName>,
    /// What the devices get: an object.
    pub document: Value,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Minutes a device may take once it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_minutes: Option<u32>,
    /// Groups, snapshot or continuous, roll-out, abort rules.
    #[serde(flatten)]
    pub plan: Plan,
}

/// What came of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateCreated {
    /// Its job.
    pub job_id: JobId,
    /// Its stream.
    pub stream_id: StreamId,
    /// Its files.
    pub files: Vec<FileStored>,
}

/// A file as the cloud took it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStored {
    /// Its id.
    pub file_id: u8,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// A thing and the files of its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingCreated {
    /// Its name.
    pub name: ThingName,
    /// Whether it is new.
    pub created: bool,
    /// Its certificate.
    pub certificate_path: PathBuf,
    /// Its key, mode 0600.
    pub private_key_path: PathBuf,
    /// The root that vouches for the cloud.
    pub root_path: PathBuf,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// The certificate itself, for who cannot read the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate_pem: String,
    /// The key itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub private_key_pem: String,
    /// The root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root_pem: String,
}

/// What a device or a client of the cloud must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInfo {
    /// Address with TLS.
    pub tls: Option<std::net::SocketAddr>,
    /// The name that devices are to call that by, if one was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Address without.
    pub plain: Option<std::net::SocketAddr>,
    /// What the URLs of images begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Somebody else's broker that it answers at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerInfo>,
    /// Root certificate.
    pub root_path: PathBuf,
    /// Certificate of the cloud's signing key; made on first use.
    pub signing_certificate_path: PathBuf,
    /// The certificate itself, for who cannot read the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signing_certificate_pem: String,
    /// The cloud's signing key.
    pub signing_key_path: PathBuf,
    /// The cloud's directory.
    pub dir: PathBuf,
}

/// Somebody else's broker, as its devices need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerInfo {
    /// DNS name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether connections have TLS.
    pub tls: bool,
    /// Certificates that the broker's leads to, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// How the cloud's own connection stands.
    pub status: BrokerStatus,
}

/// One line from the cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`] of the cloud.
    pub v: u32,
    /// What it says.
    #[serde(flatten)]
    pub body: AnswerBody,
}

/// What the cloud says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerBody {
    /// Done; the last line of an answer.
    Ok(Value),
    /// Refused; the last line of an answer.
    Error(Refusal),
    /// A change of a watched job.
    Change(Change),
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

impl From<&crate::error::CloudError> for Refusal {
    fn from(error: &crate::error::CloudError) -> Self {
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
        }
    }
}

/// The counters, named here so that a client needs only this module.
pub type Stats = CloudStats;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::SigKey;

    #[test]
    fn a_request_to_create_an_update_reads_as_documented_and_needs_only_the_essentials() {
        let line = concat!(
            r#"{"v":1,"op":"create_update","things":["gw"],"files":[{"file_id":0,"path":"/fw.bin","#,
            r#""file_path":"/a","cert_file":"/b","signature":{"key":"sig-sha256-ecdsa","base64":"MEQC"}}],"#,
            r#""protocols":["MQTT"]}"#
        );
        let file = FileSpec {
            file_id: 0,
            image: ImageInput::Path("/fw.bin".into()),
            sha256: None,
            file_type: None,
            file_path: "/a".to_owned(),
            cert_file: "/b".to_owned(),
            signature: Some(Signature {
                key: SigKey::Sha256Ecdsa,
                base64: "MEQC".to_owned(),
            }),
        };
        let update = CreateUpdate::new(vec![ThingName::new("gw").unwrap()], vec![file]);
        let request = Request {
            v: VERSION,
            op: Op::CreateUpdate(update),
        };
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        let short = line.replace(r#","protocols":["MQTT"]"#, "");
        for text in [line, &short] {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        let typo = line.replace("\"path\"", "\"paht\"");
        assert!(serde_json::from_str::<Request>(&typo).is_err());
    }

    #[test]
    fn a_plan_stands_among_the_other_members_and_a_job_needs_none() {
        let line = concat!(
            r#"{"v":1,"op":"create_job","job_id":"j","document":{},"groups":["plant"],"#,
            r#""selection":"continuous","rollout":{"per_minute":50,"canary":5},"#,
            r#""abort":[{"failures":"ALL","percent":10}]}"#
        );
        let request: Request = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        let short = r#"{"v":1,"op":"create_job","job_id":"j","things":["gw"],"document":{}}"#;
        let request: Request = serde_json::from_str(short).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), short);
        let rows = [
            (r#"{"v":1,"op":"list"}"#, Op::List(JobFilter::default())),
            (
                r#"{"v":1,"op":"put_image","size":7}"#,
                Op::PutImage {
                    size: 7,
                    sha256: None,
                },
            ),
            (
                r#"{"v":1,"op":"group_add","name":"plant","things":["gw"]}"#,
                Op::GroupAdd {
                    name: GroupName::new("plant").unwrap(),
                    things: vec![ThingName::new("gw").unwrap()],
                },
            ),
        ];
        for (line, op) in rows {
            let request = Request { v: VERSION, op };
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
    }
}
