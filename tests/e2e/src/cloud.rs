//! The cloud in a box, within the test's process: what it counts and what becomes of jobs can be asked directly.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use host_cloud::operator::Operator;
use host_cloud::operator::wire::{CreateJob, CreateUpdate, FileSpec, ImageInput};
use host_cloud::service::{JobId, Protocol, SigKey, Signature, ThingName};
use host_cloud::{CloudConfig, CloudHandle, CloudStats, Credentials};
use host_crypto::SigningKey;
use serde_json::Value;
use support::deadline::PATIENCE;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A running cloud.
pub struct Cloud {
    runtime: Runtime,
    handle: Option<CloudHandle>,
    key: SigningKey,
    signer: Credentials,
    dir: TempDir,
}

/// An update to be created.
#[derive(Debug, Default)]
pub struct Update {
    /// `fileid`.
    pub file_id: u8,
    /// `fileType`, 0 if left out.
    pub file_type: Option<u8>,
    /// The image.
    pub image: Vec<u8>,
    /// `filepath`.
    pub filepath: String,
    /// `certfile`.
    pub certfile: String,
    /// Whose signature.
    pub signed: Signed,
    /// The job is called `AFR_OTA-` and this.
    pub update_id: Option<String>,
    /// Name of the stream.
    pub stream_id: Option<String>,
    /// What the job offers; MQTT if empty.
    pub protocols: Vec<Protocol>,
}

/// Whose signature an update carries.
#[derive(Debug, Default)]
pub enum Signed {
    /// The cloud's own key, over the image.
    #[default]
    Cloud,
    /// The cloud's own key, over other bytes: the image was changed afterwards.
    Before(Vec<u8>),
    /// A key of somebody else's, in PEM.
    Key(String),
    /// Made elsewhere: `sig-sha256-rsa` or `sig-sha256-ecdsa`, and the bytes.
    Given(&'static str, Vec<u8>),
    /// Nobody's.
    Unsigned,
}

impl Update {
    /// A signed update of file 0.
    #[must_use]
    pub fn of(image: Vec<u8>) -> Self {
        Self {
            image,
            ..Self::default()
        }
    }
}

/// How a job ended for its first thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// `SUCCEEDED`, `FAILED`, …
    pub status: String,
    /// `statusDetails.reason`; empty if there is none.
    pub reason: String,
}

impl Ended {
    /// What `assert_eq!` compares with.
    #[must_use]
    pub fn as_pair(&self) -> (&str, &str) {
        (&self.status, &self.reason)
    }
}

impl Cloud {
    /// A cloud with AWS's limits on any port.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same, with other settings.
    #[must_use]
    pub fn start_with(change: impl FnOnce(&mut CloudConfig)) -> Self {
        let dir = support::temp_dir("cloud").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut config = CloudConfig::new(dir.path().join("cloud"));
        change(&mut config);
        let handle = runtime.block_on(host_cloud::Cloud::start(config)).unwrap();
        let signer = handle.code_signing().unwrap();
        Self {
            key: SigningKey::from_pem(&signer.private_key_pem).unwrap(),
            signer,
            handle: Some(handle),
            runtime,
            dir,
        }
    }

    fn handle(&self) -> &CloudHandle {
        self.handle.as_ref().unwrap()
    }

    /// The port that devices use: its own for MQTT over TLS, or its broker's.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self.handle().tls_addr() {
            Some(address) => address.port(),
            None => self.operator().info().unwrap().broker.unwrap().port,
        }
    }

    /// Waits until it answers at its broker.
    ///
    /// # Panics
    /// If the broker does not let it in.
    pub fn wait_broker(&self) {
        let mut status = self.handle().broker().unwrap();
        let connected = status.wait_for(|status| status.connected);
        let waited =
            self.block_on(async { tokio::time::timeout(PATIENCE, connected).await.is_ok() });
        assert!(waited, "{:?}", self.handle().broker().unwrap().borrow());
    }

    /// Its directory, for `otad … --cloud`.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("cloud")
    }

    /// The operator's calls.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        self.handle().operator()
    }

    /// Everything it has counted.
    #[must_use]
    pub fn stats(&self) -> CloudStats {
        self.handle().stats()
    }

    /// The running cloud itself: faults, cuts.
    #[must_use]
    pub fn running(&self) -> &CloudHandle {
        self.handle()
    }

    /// Runs something on the cloud's runtime.
    pub fn block_on<R>(&self, future: impl Future<Output = R>) -> R {
        self.runtime.block_on(future)
    }

    /// The cloud's signing certificate.
    #[must_use]
    pub fn signer_pem(&self) -> &str {
        &self.signer.certificate_pem
    }

    /// Registers a thing.
    #[must_use]
    pub fn thing(&self, name: &str) -> Credentials {
        let name = ThingName::new(name).unwrap();
        self.block_on(self.handle().thing_create(&name)).unwrap()
    }

    /// Creates an update.
    ///
    /// # Panics
    /// If the cloud refuses it.
    pub fn update(&self, thing: &str, update: Update) -> JobId {
        self.update_all(&[thing], update)
    }

    /// Creates an update of several things: one job, with an execution for each.
    ///
    /// # Panics
    /// If the cloud refuses it.
    pub fn update_all(&self, things: &[&str], update: Update) -> JobId {
        let things = things.iter().map(|thing| ThingName::new(thing).unwrap());
        let (update_id, stream_id) = (update.update_id.clone(), update.stream_id.clone());
        let protocols = update.protocols.clone();
        let mut create = CreateUpdate::new(things.collect(), vec![self.file(update)]);
        if !protocols.is_empty() {
            create.protocols = protocols;
        }
        create.update_id = update_id;
        create.stream_id = stream_id.map(|id| id.parse().unwrap());
        self.block_on(self.operator().create_update(create))
            .unwrap()
            .job_id
    }

    /// Creates one job of several files.
    ///
    /// # Panics
    /// If the cloud refuses it.
    pub fn update_group(&self, thing: &str, updates: Vec<Update>) -> JobId {
        let files = updates.into_iter().map(|u| self.file(u)).collect();
        let create = CreateUpdate::new(vec![ThingName::new(thing).unwrap()], files);
        self.block_on(self.operator().create_update(create))
            .unwrap()
            .job_id
    }

    fn file(&self, update: Update) -> FileSpec {
        FileSpec {
            file_id: update.file_id,
            signature: self.signature(&update),
            image: ImageInput::Bytes(update.image.into()),
            sha256: None,
            file_type: update.file_type,
            file_path: update.filepath,
            cert_file: update.certfile,
        }
    }

    /// The cloud's own signature of an image, as a job document has it.
    ///
    /// # Panics
    /// It cannot sign.
    #[must_use]
    pub fn sign(&self, image: &[u8]) -> String {
        sign(&self.key, image)
    }

    fn signature(&self, update: &Update) -> Option<Signature> {
        let ecdsa = |key: &SigningKey, bytes: &[u8]| Signature {
            key: SigKey::Sha256Ecdsa,
            base64: sign(key, bytes),
        };
        match &update.signed {
            Signed::Cloud => Some(ecdsa(&self.key, &update.image)),
            Signed::Before(bytes) => Some(ecdsa(&self.key, bytes)),
            Signed::Key(pem) => Some(ecdsa(&SigningKey::from_pem(pem).unwrap(), &update.image)),
            Signed::Given(kind, bytes) => Some(Signature {
                key: match *kind {
                    "sig-sha256-rsa" => SigKey::Sha256Rsa,
                    "sig-sha256-ecdsa" => SigKey::Sha256Ecdsa,
                    other => panic!("{other} is no kind of signature"),
                },
                base64: BASE64.encode(bytes),
            }),
            Signed::Unsigned => None,
        }
    }

    /// Creates a job with any document.
    ///
    /// # Panics
    /// If the cloud refuses it.
    pub fn job(&self, thing: &str, job_id: &str, document: Value) -> JobId {
        let job = CreateJob {
            job_id: JobId::new(job_id).unwrap(),
            things: vec![ThingName::new(thing).unwrap()],
            document,
            description: String::new(),
            timeout_minutes: None,
            plan: Default::default(),
        };
        self.block_on(self.operator().create_job(job))
            .unwrap()
            .job_id
    }

    /// How a job stands for its first thing.
    ///
    /// # Panics
    /// If there is no such job.
    #[must_use]
    pub fn now(&self, job: &JobId) -> Ended {
        let view = self.operator().show(job).unwrap();
        let execution = &view.executions[0];
        let reason = execution.status_details.get("reason");
        Ended {
            status: execution.status.as_str().to_owned(),
            reason: reason
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// How many things of a job stand how.
    ///
    /// # Panics
    /// If there is no such job.
    #[must_use]
    pub fn counts(&self, job: &JobId) -> BTreeMap<String, usize> {
        let view = self.operator().show(job).unwrap();
        let mut counts = BTreeMap::new();
        for execution in &view.executions {
            let status = execution.status.as_str().to_owned();
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    /// Waits for the end of a job.
    ///
    /// # Panics
    /// If it does not end in time.
    #[must_use]
    pub fn wait_end(&self, job: &JobId) -> Ended {
        match self.end_within(job, PATIENCE) {
            Ok(ended) => ended,
            Err(now) => panic!("{job} has not ended: {now:?}"),
        }
    }

    /// Waits for the end of a job, of all its things, for so long.
    ///
    /// # Errors
    /// It has not ended: how it stands then.
    pub fn end_within(&self, job: &JobId, patience: Duration) -> Result<Ended, Ended> {
        let mut watch = self.operator().watch(job).unwrap();
        let ended = self.block_on(async {
            tokio::time::timeout(patience, async { while watch.next().await.is_some() {} }).await
        });
        let now = self.now(job);
        if ended.is_ok() { Ok(now) } else { Err(now) }
    }

    /// Waits until the device has reported so many blocks of a job; the configuration says how often it reports.
    ///
    /// # Panics
    /// If the job ends first, or it takes too long.
    pub fn wait_received(&self, job: &JobId, blocks: u64) {
        let received = || -> Option<u64> {
            let view = self.operator().show(job).unwrap();
            let text = view.executions[0].status_details.get("receive")?.as_str()?;
            text.split_once('/')?.0.parse().ok()
        };
        let mut watch = self.operator().watch(job).unwrap();
        let seen = self.block_on(async {
            let look = async {
                while received().is_none_or(|count| count < blocks) {
                    watch.next().await?;
                }
                Some(())
            };
            tokio::time::timeout(PATIENCE, look).await
        });
        assert_eq!(seen, Ok(Some(())), "{job}: {:?}", received());
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.runtime.block_on(handle.shutdown());
        }
    }
}

fn sign(key: &SigningKey, bytes: &[u8]) -> String {
    BASE64.encode(key.sign_stream(bytes).unwrap().1)
}
