//! The operator's calls within the cloud's process.

use std::{
    net::SocketAddr,
    path::{self, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch::Receiver,
};

use super::{
    watch::Watch,
    wire::{
        BrokerInfo, CloudInfo, CreateJob, CreateUpdate, Deleted, FileSpec, FileStored, ImageInput,
        ImageStored, JobFilter, ThingCreated, UpdateCreated,
    },
};
use crate::{
    broker::{BrokerConfig, BrokerStatus},
    core::Core,
    error::CloudError,
    id,
    images::{self, ImagePin},
    service::{
        GroupName, GroupView, ImageId, JobId, JobSummary, JobView, NewJob, NewUpdate, Removal,
        Service, ServiceError, StreamId, StreamView, ThingDescription, ThingName, ThingView,
        UpdateFile,
    },
    stats::CloudStats,
};

/// Commands a running cloud. Cheap to clone; does not keep the cloud running.
#[derive(Clone)]
pub struct Operator {
    pub(super) core: Arc<Core>,
    tls: Option<SocketAddr>,
    /// What devices call that by, if it was said.
    host: Option<String>,
    plain: Option<SocketAddr>,
    /// What the URLs of images begin with.
    http: Option<String>,
    broker: Option<(BrokerConfig, Receiver<BrokerStatus>)>,
}

impl Operator {
    pub(crate) fn new(
        core: Arc<Core>,
        tls: Option<SocketAddr>,
        host: Option<String>,
        plain: Option<SocketAddr>,
        http: Option<String>,
        broker: Option<(BrokerConfig, Receiver<BrokerStatus>)>,
    ) -> Self {
        Self {
            core,
            http,
            tls,
            host,
            plain,
            broker,
        }
    }

    /// Creates an OTA update; it is announced once it is stored.
    ///
    /// # Errors
    /// An image cannot be read or changed since it was signed; whatever [`Service::create_update`] refuses.
    ///
    /// [`Service::create_update`]: crate::service::Service::create_update
    pub async fn create_update(&self, update: CreateUpdate) -> Result<UpdateCreated, CloudError> {
        let job_id = id::update_job_id(update.update_id.as_deref())?;
        let stream_id = match update.stream_id {
            Some(id) => id,
            None => id::stream_id()?,
        };
        // Before megabytes are copied; asked again when it counts.
        self.core
            .look(|service| service.check_targets(&job_id, &update.things, &update.plan))?;
        let mut files = Vec::with_capacity(update.files.len());
        // Dropped at the end: either the stream names the images by then, or they go.
        let mut pins = Vec::with_capacity(update.files.len());
        for file in update.files {
            let (file, pin) = self.take_in(file).await?;
            files.push(file);
            pins.push(pin);
        }
        let stored = files.iter().map(|file| FileStored {
            file_id: file.file_id,
            size: file.size,
            sha256: file.image.to_string(),
        });
        let created = UpdateCreated {
            job_id: job_id.clone(),
            stream_id: stream_id.clone(),
            files: stored.collect(),
        };
        let new = NewUpdate {
            job_id,
            stream_id,
            description: update.description,
            things: update.things,
            files,
            protocols: update.protocols,
            timeout_minutes: update.timeout_minutes,
            plan: update.plan,
        };
        self.core
            .operate(|service, now_ms| Ok(((), service.create_update(now_ms, new)?)))
            .await?;
        drop(pins);
        tracing::info!(job = %created.job_id, stream = %created.stream_id, "update created");
        Ok(created)
    }

    async fn take_in(&self, file: FileSpec) -> Result<(UpdateFile, ImagePin), CloudError> {
        let images = self.core.images();
        let size_max = self.core.limits().file_bytes_max();
        let (label, input) = (label(&file.image), file.image);
        let taken = tokio::task::spawn_blocking(move || match input {
            ImageInput::Path(path) => images.take_file(&path, size_max),
            ImageInput::Bytes(bytes) => images.take_bytes(&bytes),
            ImageInput::Stored(id) => images.find(&id).ok_or(CloudError::UnknownImage(id)),
        });
        let taken = taken.await.map_err(|_| CloudError::Stopped)??;
        check_announced(&label, taken.pin.image(), file.sha256)?;
        let update = UpdateFile {
            file_id: file.file_id,
            image: taken.pin.image().clone(),
            size: taken.size,
            file_type: file.file_type,
            file_path: file.file_path,
            cert_file: file.cert_file,
            signature: file.signature,
        };
        Ok((update, taken.pin))
    }

    /// Takes `size` bytes from `reader` in as an image. It stays while the pin does, or while a stream names it.
    ///
    /// # Errors
    /// It is larger than the limits in force, the reader ends early, the disk is full, or it is not what was announced.
    pub async fn receive_image(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        size: u64,
        announced: Option<String>,
    ) -> Result<(ImageStored, ImagePin), CloudError> {
        const LABEL: &str = "the image";
        let size_max = self.core.limits().file_bytes_max();
        let broken = |reason: String| CloudError::Io {
            step: "take in",
            path: LABEL.to_owned(),
            reason,
        };
        if size > size_max {
            let reason = format!("it has {size} bytes, at most {size_max} are allowed");
            return Err(broken(reason));
        }
        let mut incoming = self.core.images().begin()?;
        let mut left = size;
        while left > 0 {
            // At most 256 KiB, so it fits.
            let mut chunk = vec![0; left.min(images::COPY_BYTES as u64) as usize];
            reader
                .read_exact(&mut chunk)
                .await
                .map_err(|error| broken(error.to_string()))?;
            left -= chunk.len() as u64;
            let written = tokio::task::spawn_blocking(move || {
                incoming.write(&chunk)?;
                Ok::<_, std::io::Error>(incoming)
            });
            incoming = written
                .await
                .map_err(|_| CloudError::Stopped)?
                .map_err(|error| broken(error.to_string()))?;
        }
        let finished = tokio::task::spawn_blocking(move || incoming.finish());
        let taken = finished
            .await
            .map_err(|_| CloudError::Stopped)?
            .map_err(|error| broken(error.to_string()))?;
        check_announced(LABEL, taken.pin.image(), announced)?;
        let stored = ImageStored {
            sha256: taken.pin.image().clone(),
            size,
        };
        Ok((stored, taken.pin))
    }

    /// Creates a job of any kind.
    ///
    /// # Errors
    /// Whatever [`Service::create_job`](crate::service::Service::create_job) refuses.
    pub async fn create_job(&self, job: CreateJob) -> Result<JobView, CloudError> {
        let id = job.job_id.clone();
        let new = NewJob {
            job_id: job.job_id,
            description: job.description,
            things: job.things,
            document: job.document,
            timeout_minutes: job.timeout_minutes,
            plan: job.plan,
        };
        self.core
            .operate(|service, now_ms| {
                let caused = service.create_job(now_ms, new)?;
                Ok((service.show(&id)?, caused))
            })
            .await
    }

    /// Cancels a job; with `force` also where the device has begun.
    ///
    /// # Errors
    /// No such job, or it has ended.
    pub async fn cancel(
        &self,
        job_id: &JobId,
        force: bool,
        reason: Option<String>,
    ) -> Result<JobView, CloudError> {
        self.core
            .operate(|service, now_ms| {
                let caused = service.cancel(now_ms, job_id, force, reason)?;
                Ok((service.show(job_id)?, caused))
            })
            .await
    }

    /// Forgets a job, its stream and its images; with `force` also one that has not ended.
    ///
    /// # Errors
    /// No such job, or it has not ended.
    pub async fn delete_job(&self, job_id: &JobId, force: bool) -> Result<Deleted, CloudError> {
        self.remove(|service, now_ms| service.delete_job(now_ms, job_id, force))
            .await
    }

    /// Forgets a stream and its images; with `force` also while its job has not ended.
    ///
    /// # Errors
    /// No such stream, or its job has not ended.
    pub async fn delete_stream(&self, id: &StreamId, force: bool) -> Result<Deleted, CloudError> {
        self.remove(|service, _| service.delete_stream(id, force))
            .await
    }

    /// Forgets a thing with its key and ends its connections; with `force` also while a job has not ended on it.
    ///
    /// # Errors
    /// No such thing, it is busy, or its key cannot be removed.
    pub async fn delete_thing(&self, name: &ThingName, force: bool) -> Result<Deleted, CloudError> {
        // The key goes before the thing does: if only the thing went, whoever has the key would come back with the name.
        self.core
            .look(|service| service.check_removal(name, force).map(drop))?;
        self.core.pki().forget_device(name)?;
        let deleted = self
            .remove(|service, now_ms| service.delete_thing(now_ms, name, force))
            .await;
        // Another operator may have asked for credentials in between: before the thing went, or for a new one.
        let pki = self.core.pki();
        if !self.core.is_thing(name) {
            pki.forget_device(name)?;
        }
        deleted
    }

    async fn remove(
        &self,
        call: impl FnOnce(&mut Service, u64) -> Result<Removal, ServiceError>,
    ) -> Result<Deleted, CloudError> {
        let removal = self
            .core
            .operate(|service, now_ms| {
                let mut removal = call(service, now_ms)?;
                // A connection speaks to its end for what its certificate did when it began. Whoever has a certificate
                // that is still good for another thing comes back as that.
                for fingerprint in &removal.certificates {
                    self.core.hub.detach(fingerprint);
                }
                // Should it not be stored now, its images go when it is.
                self.core.loosen_images(&removal.images);
                let caused = std::mem::take(&mut removal.out);
                Ok((removal, caused))
            })
            .await?;
        // Only now that no stored stream names them: a restart must not find a stream without its images.
        let (core, gone) = (Arc::clone(&self.core), removal.images.clone());
        let removed = tokio::task::spawn_blocking(move || core.remove_images(&gone));
        removed.await.map_err(|_| CloudError::Stopped)?;
        Ok(Deleted {
            stream_id: removal.stream,
            images: removal.images.iter().map(ToString::to_string).collect(),
            executions: removal.executions,
        })
    }

    /// Makes a group.
    ///
    /// # Errors
    /// It exists.
    pub async fn create_group(
        &self,
        name: &GroupName,
        description: String,
    ) -> Result<GroupView, CloudError> {
        self.core
            .operate(|service, now_ms| {
                service.create_group(now_ms, name.clone(), description)?;
                Ok((service.describe_group(name)?, Vec::new()))
            })
            .await
    }

    /// Makes things members of a group; they get its continuous jobs.
    ///
    /// # Errors
    /// No such group or thing.
    pub async fn join_group(
        &self,
        name: &GroupName,
        things: &[ThingName],
    ) -> Result<GroupView, CloudError> {
        self.core
            .operate(|service, now_ms| {
                let caused = service.join_group(now_ms, name, things)?;
                Ok((service.describe_group(name)?, caused))
            })
            .await
    }

    /// Takes things out of a group.
    ///
    /// # Errors
    /// No such group or thing.
    pub async fn leave_group(
        &self,
        name: &GroupName,
        things: &[ThingName],
    ) -> Result<GroupView, CloudError> {
        self.core
            .operate(|service, now_ms| {
                let caused = service.leave_group(now_ms, name, things)?;
                Ok((service.describe_group(name)?, caused))
            })
            .await
    }

    /// Forgets a group; its members stay things.
    ///
    /// # Errors
    /// No such group.
    pub async fn delete_group(&self, name: &GroupName) -> Result<Deleted, CloudError> {
        self.core
            .operate(|service, _| {
                service.delete_group(name)?;
                Ok((Deleted::default(), Vec::new()))
            })
            .await
    }

    /// All groups, by name.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupView> {
        self.core.look(|service| service.groups())
    }

    /// One group.
    ///
    /// # Errors
    /// No such group.
    pub fn describe_group(&self, name: &GroupName) -> Result<GroupView, CloudError> {
        Ok(self.core.look(|service| service.describe_group(name))?)
    }

    /// All streams, by id.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamView> {
        self.core.look(|service| service.streams())
    }

    /// All jobs, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<JobSummary> {
        self.core.look(|service| service.list())
    }

    /// Some jobs, oldest first.
    #[must_use]
    pub fn list_where(&self, filter: &JobFilter) -> Vec<JobSummary> {
        self.core.look(|service| {
            let mut jobs = service.list();
            jobs.retain(|job| {
                let id = &job.job_id;
                filter.status.is_none_or(|status| job.status == status)
                    && filter.thing.as_ref().is_none_or(|t| service.runs_on(id, t))
                    && filter.group.as_ref().is_none_or(|g| service.is_for(id, g))
            });
            jobs
        })
    }

    /// One job.
    ///
    /// # Errors
    /// No such job.
    pub fn show(&self, job_id: &JobId) -> Result<JobView, CloudError> {
        Ok(self.core.look(|service| service.show(job_id))?)
    }

    /// A job's status changes from now on.
    ///
    /// # Errors
    /// No such job.
    pub fn watch(&self, job_id: &JobId) -> Result<Watch, CloudError> {
        let changed = self.core.changes();
        let cursor = self.core.look(|service| {
            if service.state().jobs.contains_key(job_id) {
                Ok(service.change_cursor())
            } else {
                Err(ServiceError::UnknownJob(job_id.clone()))
            }
        })?;
        Ok(Watch::new(self.clone(), job_id.clone(), changed, cursor))
    }

    /// Registers a thing with a certificate of its own, or finds it. Where that certificate was detached, it gets a new key.
    ///
    /// # Errors
    /// The state or the credentials cannot be stored.
    pub async fn thing_create(&self, name: &ThingName) -> Result<ThingCreated, CloudError> {
        let (credentials, created) = self.core.ensure_thing(name).await?;
        Ok(ThingCreated {
            name: name.clone(),
            created,
            certificate_path: credentials.certificate_path,
            private_key_path: credentials.private_key_path,
            root_path: credentials.root_path,
            fingerprint: credentials.fingerprint,
            certificate_pem: credentials.certificate_pem,
            private_key_pem: credentials.private_key_pem,
            root_pem: credentials.root_pem,
        })
    }

    /// All things, by name.
    #[must_use]
    pub fn thing_list(&self) -> Vec<ThingView> {
        self.core.look(|service| service.things())
    }

    /// One thing with its executions.
    ///
    /// # Errors
    /// No such thing.
    pub fn describe_thing(&self, name: &ThingName) -> Result<ThingDescription, CloudError> {
        Ok(self.core.look(|service| service.describe_thing(name))?)
    }

    /// Where the cloud listens, and its certificates.
    ///
    /// # Errors
    /// The signing certificate cannot be made or read.
    pub fn info(&self) -> Result<CloudInfo, CloudError> {
        let pki = self.core.pki();
        let signing = pki.code_signing()?;
        Ok(CloudInfo {
            tls: self.tls,
            host: self.host.clone(),
            plain: self.plain,
            http: self.http.clone(),
            broker: self.broker.as_ref().map(|(config, status)| BrokerInfo {
                host: config.url.host.clone(),
                port: config.url.port,
                tls: config.url.tls,
                ca_pem: config
                    .ca
                    .as_ref()
                    .and_then(|path| std::fs::read_to_string(path).ok()),
                status: status.borrow().clone(),
            }),
            // Whoever asks may be in another directory.
            root_path: absolute(pki.root_path()),
            signing_certificate_path: absolute(signing.certificate_path),
            signing_certificate_pem: signing.certificate_pem,
            signing_key_path: absolute(signing.private_key_path),
            dir: absolute(self.core.dir()),
        })
    }

    /// What the cloud has counted.
    #[must_use]
    pub fn stats(&self) -> CloudStats {
        self.core.stats()
    }
}

fn label(image: &ImageInput) -> String {
    match image {
        ImageInput::Path(path) => path.display().to_string(),
        ImageInput::Stored(id) => format!("image {id}"),
        ImageInput::Bytes(_) => "the image".to_owned(),
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    path::absolute(&path).unwrap_or(path)
}

fn check_announced(
    label: &str,
    found: &ImageId,
    announced: Option<String>,
) -> Result<(), CloudError> {
    match announced {
        Some(announced) if announced != found.as_str() => Err(CloudError::ImageChanged {
            path: label.to_owned(),
            found: found.to_string(),
            announced,
        }),
        _ => Ok(()),
    }
}

/// A value as it goes over the socket.
pub(super) fn to_value(value: impl serde::Serialize) -> Value {
    // Views have text keys and finite numbers: there is no way to fail.
    serde_json::to_value(value).unwrap_or_default()
}
