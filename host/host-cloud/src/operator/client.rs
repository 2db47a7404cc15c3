//! The operator's calls from another process, over the socket.

use std::{io::ErrorKind, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::de::DeserializeOwned;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    remote,
    server::{Line, read_line},
    wire::{
        ANSWER_BYTES_MAX, Answer, AnswerBody, CloudInfo, CreateJob, CreateUpdate, Deleted,
        ImageInput, ImageStored, JobFilter, Op, Refusal, Request, Stats, ThingCreated,
        UpdateCreated, VERSION,
    },
};
use crate::service::{
    Change, GroupName, GroupView, JobId, JobSummary, JobView, StreamId, StreamView,
    ThingDescription, ThingName, ThingView,
};

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nobody listens there.
    #[error("no cloud answers at {path}, start one with `otad cloud`")]
    Absent {
        /// The socket or address.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The way there is closed, or too long.
    #[error("cannot connect to the cloud at {path}")]
    Connect {
        /// The socket or address.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Who answers does not prove to be the cloud that is meant.
    #[error(
        "no trust in the cloud at {path}; copy its directory `operator` again, or start it with --name for that host"
    )]
    Untrusted {
        /// The address.
        path: String,
        /// What is wrong with its certificate.
        source: std::io::Error,
    },
    /// It cannot be asked like this.
    #[error("{0}")]
    Request(String),
    /// The cloud refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke.
    #[error("the connection to the cloud broke")]
    Broken(#[from] std::io::Error),
    /// The cloud went away.
    #[error("the cloud has closed the connection")]
    Gone,
    /// The cloud says what this client does not understand.
    #[error("the cloud's answer makes no sense: {0}")]
    Protocol(String),
}

impl OperatorError {
    fn connect(path: String, source: std::io::Error) -> Self {
        let inner = source.get_ref();
        let is_of_tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Self::Absent { path, source },
            _ if is_of_tls.is_some() => Self::Untrusted { path, source },
            _ => Self::Connect { path, source },
        }
    }
}

/// A connection to a cloud; one call at a time.
pub struct OperatorClient {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Whether the cloud runs on another machine, or might: files do not go by path.
    is_remote: bool,
}

/// Bytes of an image sent at once.
const SEND_BYTES: usize = 256 * 1024;
/// For TCP, TLS and the token together: what the cloud allows for the last two.
const CONNECT_TIME: Duration = Duration::from_secs(10);

impl OperatorClient {
    /// Connects to the socket.
    ///
    /// # Errors
    /// Nobody listens there, or this user may not.
    pub async fn connect(path: &Path) -> Result<Self, OperatorError> {
        let connected = UnixStream::connect(path).await;
        let failed = |source| OperatorError::connect(path.display().to_string(), source);
        let stream = connected.map_err(failed)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: Box::new(BufReader::new(reader)),
            writer: Box::new(writer),
            is_remote: false,
        })
    }

    /// Whether the cloud may run on another machine.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Connects to a cloud on any machine with a copy of its directory [`KIT_DIR`](super::KIT_DIR).
    ///
    /// # Errors
    /// The copy is not whole or others may read its token; and as [`connect_tls`](Self::connect_tls).
    pub async fn connect_kit(dir: &Path) -> Result<Self, OperatorError> {
        let kit = remote::Kit::read(dir).map_err(|e| OperatorError::Request(e.to_string()))?;
        Self::connect_tls(&kit.host, kit.port, &kit.root_pem, &kit.token).await
    }

    /// Connects to a cloud on any machine. `root_pem` is the cloud's root certificate, `host` a name in its certificate.
    ///
    /// # Errors
    /// Nobody listens there or answers in time, it is another cloud, or the token is wrong.
    pub async fn connect_tls(
        host: &str,
        port: u16,
        root_pem: &str,
        token: &str,
    ) -> Result<Self, OperatorError> {
        let connected = timeout(CONNECT_TIME, Self::greet(host, port, root_pem, token)).await;
        connected.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", CONNECT_TIME.as_secs());
            let late = std::io::Error::new(ErrorKind::TimedOut, text);
            Err(OperatorError::connect(format!("{host}:{port}"), late))
        })
    }

    async fn greet(
        host: &str,
        port: u16,
        root_pem: &str,
        token: &str,
    ) -> Result<Self, OperatorError> {
        let failed = |source| OperatorError::connect(format!("{host}:{port}"), source);
        let tls = TlsConnector::from(client_config(root_pem)?);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| OperatorError::Request(format!("\"{host}\": {e}")))?;
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        stream.set_nodelay(true)?;
        let stream = tls.connect(name, stream).await.map_err(failed)?;
        let (reader, mut writer) = tokio::io::split(stream);
        remote::authenticate(&mut writer, token).await?;
        let mut client = Self {
            reader: Box::new(BufReader::new(reader)),
            writer: Box::new(writer),
            is_remote: true,
        };
        match client.receive().await? {
            AnswerBody::Ok(_) => Ok(client),
            AnswerBody::Error(refusal) => Err(refusal.into()),
            AnswerBody::Change(_) => Err(OperatorError::Protocol("a change".to_owned())),
        }
    }

    /// Creates an OTA update. Images are given by absolute path: a cloud on this machine opens them, another one is sent
    /// them first.
    ///
    /// # Errors
    /// An image is not given by path or cannot be read, the cloud refused, or it went away.
    pub async fn create_update(
        &mut self,
        mut update: CreateUpdate,
    ) -> Result<UpdateCreated, OperatorError> {
        if let Some(file) = update.files.iter().find(|f| !f.image.is_portable()) {
            return Err(OperatorError::Request(format!(
                "the image of file {} is not given by an absolute path",
                file.file_id
            )));
        }
        if self.is_remote {
            for file in &mut update.files {
                if let ImageInput::Path(path) = &file.image {
                    let path = path.clone();
                    let stored = self.put_image(&path, file.sha256.clone()).await?;
                    file.image = ImageInput::Stored(stored.sha256);
                }
            }
        }
        self.call(Op::CreateUpdate(update)).await
    }

    /// Sends an image; the cloud keeps it while this connection lasts, or while a stream names it. `sha256` is what was
    /// announced of it: a file that changed since is refused.
    ///
    /// # Errors
    /// It cannot be read, the cloud refused, or it went away.
    pub async fn put_image(
        &mut self,
        path: &Path,
        sha256: Option<String>,
    ) -> Result<ImageStored, OperatorError> {
        let unreadable =
            |e: std::io::Error| OperatorError::Request(format!("{}: {e}", path.display()));
        let mut file = File::open(path).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        self.send(Op::PutImage { size, sha256 }).await?;
        let mut left = size;
        let mut buffer = vec![0; SEND_BYTES];
        while left > 0 {
            let read = file.read(&mut buffer).await.map_err(unreadable)?;
            if read == 0 {
                let text = format!("{}: it became shorter", path.display());
                return Err(OperatorError::Request(text));
            }
            let take = read.min(usize::try_from(left).unwrap_or(read));
            if self.writer.write_all(&buffer[..take]).await.is_err() {
                // The cloud has hung up, and perhaps said why.
                break;
            }
            left -= take as u64;
        }
        if left == 0 {
            self.writer.flush().await?;
        }
        self.answer().await
    }

    /// Creates a job of any kind.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn create_job(&mut self, job: CreateJob) -> Result<JobView, OperatorError> {
        self.call(Op::CreateJob(job)).await
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn cancel(&mut self, job_id: JobId, force: bool) -> Result<JobView, OperatorError> {
        self.cancel_because(job_id, force, None).await
    }

    /// Cancels a job and says why.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn cancel_because(
        &mut self,
        job_id: JobId,
        force: bool,
        reason: Option<String>,
    ) -> Result<JobView, OperatorError> {
        let op = Op::Cancel {
            job_id,
            force,
            reason,
        };
        self.call(op).await
    }

    /// Forgets a job, its stream and its images; with `force` also one that has not ended.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn delete_job(
        &mut self,
        job_id: JobId,
        force: bool,
    ) -> Result<Deleted, OperatorError> {
        self.call(Op::DeleteJob { job_id, force }).await
    }

    /// All jobs, oldest first.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn list(&mut self) -> Result<Vec<JobSummary>, OperatorError> {
        self.list_where(JobFilter::default()).await
    }

    /// Some jobs, oldest first.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn list_where(
        &mut self,
        filter: JobFilter,
    ) -> Result<Vec<JobSummary>, OperatorError> {
        self.call(Op::List(filter)).await
    }

    /// One job.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn show(&mut self, job_id: JobId) -> Result<JobView, OperatorError> {
        self.call(Op::Show { job_id }).await
    }

    /// Follows a job: `changed` sees every change, and the job as it ended is returned.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn watch(
        &mut self,
        job_id: JobId,
        mut changed: impl FnMut(Change),
    ) -> Result<JobView, OperatorError> {
        self.send(Op::Watch { job_id }).await?;
        loop {
            match self.receive().await? {
                AnswerBody::Change(change) => changed(change),
                AnswerBody::Ok(value) => return decode(value),
                AnswerBody::Error(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Registers a thing, or finds it.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_create(&mut self, name: ThingName) -> Result<ThingCreated, OperatorError> {
        self.call(Op::ThingCreate { name }).await
    }

    /// All things.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn thing_list(&mut self) -> Result<Vec<ThingView>, OperatorError> {
        self.call(Op::ThingList).await
    }

    /// One thing, with its executions.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_describe(
        &mut self,
        name: ThingName,
    ) -> Result<ThingDescription, OperatorError> {
        self.call(Op::ThingDescribe { name }).await
    }

    /// Forgets a thing; with `force` also while a job has not ended on it.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_delete(
        &mut self,
        name: ThingName,
        force: bool,
    ) -> Result<Deleted, OperatorError> {
        self.call(Op::ThingDelete { name, force }).await
    }

    /// Lets the holder of a certificate that somebody else made speak for a thing; `root_pem` where the cloud does not know
    /// its root yet.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_attach(
        &mut self,
        name: ThingName,
        certificate_pem: String,
        root_pem: Option<String>,
    ) -> Result<ThingDescription, OperatorError> {
        let op = Op::ThingAttach {
            name,
            certificate_pem,
            root_pem,
        };
        self.call(op).await
    }

    /// Takes a certificate away from a thing and ends its connections.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_detach(
        &mut self,
        name: ThingName,
        fingerprint: String,
    ) -> Result<ThingDescription, OperatorError> {
        self.call(Op::ThingDetach { name, fingerprint }).await
    }

    /// Makes a group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_create(
        &mut self,
        name: GroupName,
        description: String,
    ) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupCreate { name, description }).await
    }

    /// All groups.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn group_list(&mut self) -> Result<Vec<GroupView>, OperatorError> {
        self.call(Op::GroupList).await
    }

    /// One group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_describe(&mut self, name: GroupName) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupDescribe { name }).await
    }

    /// Forgets a group; its members stay things.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_delete(&mut self, name: GroupName) -> Result<Deleted, OperatorError> {
        self.call(Op::GroupDelete { name }).await
    }

    /// Things join a group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_add(
        &mut self,
        name: GroupName,
        things: Vec<ThingName>,
    ) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupAdd { name, things }).await
    }

    /// Things leave a group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_remove(
        &mut self,
        name: GroupName,
        things: Vec<ThingName>,
    ) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupRemove { name, things }).await
    }

    /// All streams.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn stream_list(&mut self) -> Result<Vec<StreamView>, OperatorError> {
        self.call(Op::StreamList).await
    }

    /// Forgets a stream; with `force` also while its job has not ended.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn stream_delete(
        &mut self,
        stream_id: StreamId,
        force: bool,
    ) -> Result<Deleted, OperatorError> {
        self.call(Op::StreamDelete { stream_id, force }).await
    }

    /// Where the cloud listens, and its certificates.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn info(&mut self) -> Result<CloudInfo, OperatorError> {
        self.call(Op::Info).await
    }

    /// What the cloud has counted.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn stats(&mut self) -> Result<Stats, OperatorError> {
        self.call(Op::Stats).await
    }

    async fn call<T: DeserializeOwned>(&mut self, op: Op) -> Result<T, OperatorError> {
        self.send(op).await?;
        self.answer().await
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, OperatorError> {
        match self.receive().await? {
            AnswerBody::Ok(value) => decode(value),
            AnswerBody::Error(refusal) => Err(refusal.into()),
            AnswerBody::Change(_) => Err(OperatorError::Protocol(
                "a change without a watch".to_owned(),
            )),
        }
    }

    async fn send(&mut self, op: Op) -> Result<(), OperatorError> {
        let encoded = serde_json::to_vec(&Request { v: VERSION, op });
        let mut line = encoded.map_err(|e| OperatorError::Request(e.to_string()))?;
        line.push(b'\n');
        self.writer.write_all(&line).await?;
        self.writer.flush().await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<AnswerBody, OperatorError> {
        let line = match read_line(&mut self.reader, ANSWER_BYTES_MAX).await? {
            Line::Whole(line) => line,
            Line::End => return Err(OperatorError::Gone),
            Line::TooLong => return Err(OperatorError::Protocol("a line without end".to_owned())),
        };
        let answer: Answer =
            serde_json::from_slice(&line).map_err(|e| OperatorError::Protocol(e.to_string()))?;
        if answer.v == VERSION {
            Ok(answer.body)
        } else {
            Err(OperatorError::Protocol(format!(
                "it speaks version {}, this client {VERSION}",
                answer.v
            )))
        }
    }
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, OperatorError> {
    serde_json::from_value(value).map_err(|e| OperatorError::Protocol(e.to_string()))
}

fn client_config(root_pem: &str) -> Result<Arc<ClientConfig>, OperatorError> {
    let bad = |e: &dyn std::fmt::Display| OperatorError::Request(format!("root certificate: {e}"));
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(|e| bad(&e))?;
    roots.add(root).map_err(|e| bad(&e))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
