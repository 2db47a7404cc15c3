//! The operator's calls within the cloud's process.

use std::{collections::VecDeque, net::SocketAddr, path::Path, sync::Arc};

use serde_json::Value;
use tokio::sync::watch;

use super::wire::{
    CloudInfo, CreateJob, CreateUpdate, FileSpec, FileStored, ImageInput, ThingCreated,
    UpdateCreated,
};
use crate::{
    core::Core,
    error::CloudError,
    id,
    service::{
        Change, JobId, JobSummary, JobView, NewJob, NewUpdate, ServiceError, ThingName, ThingView,
        UpdateFile,
    },
    stats::CloudStats,
};

/// Commands a running cloud. Cheap to clone; does not keep the cloud running.
#[derive(Clone)]
pub struct Operator {
    core: Arc<Core>,
    tls: Option<SocketAddr>,
    plain: Option<SocketAddr>,
}

impl Operator {
    pub(crate) fn new(core: Arc<Core>, tls: Option<SocketAddr>, plain: Option<SocketAddr>) -> Self {
        Self { core, tls, plain }
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
        self.core.look(|service| {
            let state = service.state();
            for name in &update.things {
                if !state.things.contains_key(name) {
                    return Err(ServiceError::UnknownThing(name.clone()));
                }
            }
            if state.jobs.contains_key(&job_id) {
                return Err(ServiceError::JobExists(job_id.clone()));
            }
            Ok(())
        })?;
        let mut files = Vec::with_capacity(update.files.len());
        for file in update.files {
            files.push(self.take_in(file).await?);
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
        tracing::info!(job = %created.job_id, stream = %created.stream_id, "update created");
        Ok(created)
    }

    async fn take_in(&self, file: FileSpec) -> Result<UpdateFile, CloudError> {
        let images = self.core.images();
        let size_max = self.core.limits().file_bytes_max();
        let (label, input) = (label(&file.image), file.image);
        let taken = tokio::task::spawn_blocking(move || match input {
            ImageInput::Path(path) => images.take_file(&path, size_max),
            ImageInput::Bytes(bytes) => images.take_bytes(&bytes),
        });
        let (image, size) = taken.await.map_err(|_| CloudError::Stopped)??;
        if let Some(announced) = file.sha256
            && announced != image.as_str()
        {
            return Err(CloudError::ImageChanged {
                path: label,
                found: image.to_string(),
                announced,
            });
        }
        Ok(UpdateFile {
            file_id: file.file_id,
            image,
            size,
            file_type: file.file_type,
            file_path: file.file_path,
            cert_file: file.cert_file,
            signature: file.signature,
        })
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
    pub async fn cancel(&self, job_id: &JobId, force: bool) -> Result<JobView, CloudError> {
        self.core
            .operate(|service, now_ms| {
                let caused = service.cancel(now_ms, job_id, force)?;
                Ok((service.show(job_id)?, caused))
            })
            .await
    }

    /// All jobs, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<JobSummary> {
        self.core.look(|service| service.list())
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
            service.show(job_id)?;
            Ok::<_, ServiceError>(service.change_cursor())
        })?;
        Ok(Watch {
            operator: self.clone(),
            job_id: job_id.clone(),
            changed,
            cursor,
            waiting: VecDeque::new(),
        })
    }

    /// Registers a thing with a certificate of its own, or finds it.
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
        })
    }

    /// All things, by name.
    #[must_use]
    pub fn thing_list(&self) -> Vec<ThingView> {
        self.core.look(|service| service.things())
    }

    /// Takes a certificate away from a thing and ends its connections.
    ///
    /// # Errors
    /// No such thing.
    pub async fn detach_certificate(
        &self,
        name: &ThingName,
        fingerprint: &str,
    ) -> Result<(), CloudError> {
        self.core
            .operate(|service, _| {
                service.detach_certificate(name, fingerprint)?;
                Ok(((), Vec::new()))
            })
            .await?;
        self.core.hub.detach(fingerprint);
        Ok(())
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
            plain: self.plain,
            root_path: pki.root_path(),
            signing_certificate_path: signing.certificate_path,
            signing_key_path: signing.private_key_path,
            dir: self.core.dir(),
        })
    }

    /// What the cloud has counted.
    #[must_use]
    pub fn stats(&self) -> CloudStats {
        self.core.stats()
    }
}

fn label(image: &ImageInput) -> String {
    let path: &Path = match image {
        ImageInput::Path(path) => path,
        ImageInput::Bytes(_) => Path::new("the image"),
    };
    path.display().to_string()
}

/// A job's changes, one by one.
pub struct Watch {
    operator: Operator,
    job_id: JobId,
    changed: watch::Receiver<u64>,
    cursor: u64,
    waiting: VecDeque<Change>,
}

impl Watch {
    /// The next change; `None` once every execution has ended and every change was given out.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Some(change);
            }
            self.changed.borrow_and_update();
            let job_id = &self.job_id;
            let (changes, ended) = self.operator.core.look(|service| {
                let changes = service.changes_after(self.cursor).unwrap_or_else(|| {
                    // Away too long: the job itself says where it stands; what lay between is gone.
                    (Vec::new(), service.change_cursor())
                });
                let ended = service.show(job_id).map_or(true, |job| job.has_ended());
                (changes, ended)
            });
            let (changes, cursor) = changes;
            self.cursor = cursor;
            let of_job = changes.into_iter().filter(|c| c.job_id == self.job_id);
            self.waiting.extend(of_job);
            if self.waiting.is_empty() && (ended || self.changed.changed().await.is_err()) {
                return None;
            }
        }
    }

    /// The job as it stands.
    ///
    /// # Errors
    /// It is gone.
    pub fn job(&self) -> Result<JobView, CloudError> {
        self.operator.show(&self.job_id)
    }
}

/// A value as it goes over the socket.
pub(super) fn to_value(value: impl serde::Serialize) -> Value {
    // Views have text keys and finite numbers: there is no way to fail.
    serde_json::to_value(value).unwrap_or_default()
}
