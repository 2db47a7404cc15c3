//! The service with its store, clock and network: what connections and operators call.
//!
//! The service itself is short, pure work under one lock. Whoever is promised something waits until it is stored: the
//! answer to a QoS 1 request, and an operator's call. What came with QoS 0 (progress) is stored soon, not first, and a
//! device may hear of a job a moment before it is stored: hearing is no promise.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    clock::Clock,
    endpoint::Hub,
    error::CloudError,
    fault::{Faults, Verdict},
    images::ImageDir,
    limits::Limits,
    pki::{Credentials, Pki},
    service::{ImageId, Kind, Outgoing, QoS, Service, ThingName, UrlSource},
    stats::{CloudStats, RangeCounters},
    store::Store,
};

/// How long a change that nobody waits for may stay in memory only.
const LAZY_STORE: Duration = Duration::from_secs(1);
/// Pause between attempts to store after one failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What a request caused.
pub(crate) struct Answer {
    pub(crate) replies: Vec<Outgoing>,
    /// All connections are to be cut, on purpose.
    pub(crate) cut: bool,
}

/// How far the store has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    revision: u64,
    /// Attempts that failed, ever: a waiter that sees one more gives up.
    failures: u64,
    reason: String,
}

struct Handler {
    service: Service,
    faults: Box<dyn Faults>,
}

/// See the module.
pub(crate) struct Core {
    handler: Mutex<Handler>,
    pub(crate) hub: Hub,
    clock: Clock,
    limits: Limits,
    store: Arc<Store>,
    images: Arc<ImageDir>,
    ranges: Arc<RangeCounters>,
    pki: Mutex<Pki>,
    /// Revision of the service.
    changed: watch::Sender<u64>,
    /// Revision that somebody waits for.
    urgent: watch::Sender<u64>,
    stored: watch::Sender<Stored>,
}

impl Core {
    pub(crate) fn open(
        dir: &Path,
        limits: Limits,
        faults: Box<dyn Faults>,
    ) -> Result<Arc<Self>, CloudError> {
        let (store, state) = Store::open(dir)?;
        let pki = Pki::open(&dir.join("pki"))?;
        let images = Arc::new(store.images()?);
        let service = Service::restore(limits, images.clone(), state)?;
        images.keep_only(&service.images_in_use())?;
        Ok(Arc::new(Self {
            handler: Mutex::new(Handler { service, faults }),
            hub: Hub::new(),
            clock: Clock::start(),
            limits,
            store: Arc::new(store),
            images,
            ranges: Arc::default(),
            pki: Mutex::new(pki),
            changed: watch::Sender::new(0),
            urgent: watch::Sender::new(0),
            stored: watch::Sender::new(Stored::default()),
        }))
    }

    fn handler(&self) -> MutexGuard<'_, Handler> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pki(&self) -> MutexGuard<'_, Pki> {
        self.pki.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.store.dir().to_owned()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Answers a request. `None` = it was lost on purpose, or could not be stored: then nothing may be said about it.
    pub(crate) async fn handle(
        &self,
        from: &ThingName,
        topic: &str,
        payload: &[u8],
        qos: QoS,
    ) -> Option<Answer> {
        let (answer, revision) = {
            let mut guard = self.handler();
            let handler = &mut *guard;
            let now_ms = self.now_ms();
            let before = handler.service.revision();
            let caused = match handler.faults.incoming(now_ms, from, topic, payload) {
                Verdict::Pass => handler.service.handle(now_ms, from, topic, payload),
                Verdict::Drop => return None,
                Verdict::Answer(answer) => vec![answer],
            };
            let answer = self.release(handler, now_ms, caused);
            let revision = handler.service.revision();
            (answer, (revision != before).then_some(revision))
        };
        if let Some(revision) = revision {
            self.tell(revision);
            if qos == QoS::AtLeastOnce && self.await_stored(revision).await.is_err() {
                return None;
            }
        }
        Some(answer)
    }

    /// Runs an operator's call and waits until what it changed is stored.
    ///
    /// # Errors
    /// What the call refuses, and nothing has changed then; or the change is in force and not stored, which is
    /// [`CloudError::Unstored`].
    pub(crate) async fn operate<T>(
        &self,
        call: impl FnOnce(&mut Service, u64) -> Result<(T, Vec<Outgoing>), CloudError>,
    ) -> Result<T, CloudError> {
        let (value, answer, revision) = {
            let mut guard = self.handler();
            let handler = &mut *guard;
            let now_ms = self.now_ms();
            let (value, caused) = call(&mut handler.service, now_ms)?;
            let answer = self.release(handler, now_ms, caused);
            (value, answer, handler.service.revision())
        };
        self.tell(revision);
        if answer.cut {
            self.hub.cut();
        }
        self.await_stored(revision).await?;
        Ok(value)
    }

    /// Lets updates be fetched by URL.
    pub(crate) fn serve_urls(&self, urls: Arc<dyn UrlSource>) {
        self.handler().service.serve_urls(urls);
    }

    /// Looks at the service.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Service) -> T) -> T {
        at(&self.handler().service)
    }

    pub(crate) fn set_faults(&self, faults: Box<dyn Faults>) {
        self.handler().faults = faults;
    }

    fn tell(&self, revision: u64) {
        raise(&self.changed, revision);
    }

    /// Lets messages go, through the faults. Notifications leave here, under the service's lock, so that everybody sees
    /// them in the order of the changes they tell of; replies go back to the connection that asked.
    fn release(&self, handler: &mut Handler, now_ms: u64, caused: Vec<Outgoing>) -> Answer {
        let mut out = Vec::with_capacity(caused.len());
        for message in caused {
            handler.faults.outgoing(now_ms, message, &mut out);
        }
        let (notifications, replies) = out
            .into_iter()
            .partition(|message| message.kind == Kind::Notification);
        self.hub.notify(notifications);
        Answer {
            replies,
            cut: handler.faults.take_cut(),
        }
    }

    pub(crate) fn things_of_certificate(&self, fingerprint: &str) -> BTreeSet<ThingName> {
        self.look(|service| service.things_of_certificate(fingerprint))
    }

    pub(crate) fn images(&self) -> Arc<ImageDir> {
        Arc::clone(&self.images)
    }

    /// Removes images that no stream named any more when they were chosen, and none names now.
    pub(crate) fn remove_images<'a>(&self, images: impl IntoIterator<Item = &'a ImageId>) {
        self.images
            .remove(images, || self.look(Service::images_in_use));
    }

    /// Has images removed as soon as the disk knows of no stream that names them.
    pub(crate) fn loosen_images<'a>(&self, images: impl IntoIterator<Item = &'a ImageId>) {
        self.images.loosen(images);
    }

    /// What the image server has handed out.
    pub(crate) fn ranges(&self) -> Arc<RangeCounters> {
        Arc::clone(&self.ranges)
    }

    pub(crate) fn stats(&self) -> CloudStats {
        let endpoint = self.hub.stats();
        self.look(|service| CloudStats::new(endpoint, &self.ranges, service.counters()))
    }

    /// Tells of every change of the service's state.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many listen to changes, besides the two tasks of the core itself.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.changed.receiver_count() - 2
    }

    /// As after an error: the next transaction opens the store again.
    #[cfg(test)]
    pub(crate) fn close_store_for_tests(&self) {
        self.store.close();
    }

    pub(crate) fn is_thing(&self, name: &ThingName) -> bool {
        self.look(|service| service.state().things.contains_key(name))
    }

    /// Registers a thing, or finds it, with its certificate: a new one where that was detached.
    pub(crate) async fn ensure_thing(
        &self,
        name: &ThingName,
    ) -> Result<(Credentials, bool), CloudError> {
        let (credentials, renewed) = self.credentials(name)?;
        let fingerprint = credentials.fingerprint.clone();
        let created = self
            .operate(|service, now_ms| {
                let known = service.state().things.contains_key(name);
                if !known {
                    service.create_thing(now_ms, name.clone())?;
                }
                // What was found is attached already, or was detached a moment ago and stays so.
                if !known || renewed {
                    service.attach_certificate(name, &fingerprint)?;
                }
                Ok((!known, Vec::new()))
            })
            .await?;
        Ok((credentials, created))
    }

    /// A thing's credentials, and whether they take the place of some that were detached. Somebody else may have that key:
    /// it is not let in again behind the operator's back.
    fn credentials(&self, name: &ThingName) -> Result<(Credentials, bool), CloudError> {
        let pki = self.pki();
        let found = pki.device(name)?;
        let detached = self.look(|service| {
            let thing = service.state().things.get(name);
            thing.is_some_and(|thing| !thing.certificates.contains(&found.fingerprint))
        });
        if !detached {
            return Ok((found, false));
        }
        pki.forget_device(name)?;
        Ok((pki.device(name)?, true))
    }

    async fn await_stored(&self, revision: u64) -> Result<(), CloudError> {
        let mut stored = self.stored.subscribe();
        let failures = stored.borrow_and_update().failures;
        raise(&self.urgent, revision);
        let done = stored
            .wait_for(|stored| stored.revision >= revision || stored.failures != failures)
            .await
            .map_err(|_| CloudError::Stopped)?;
        if done.revision >= revision {
            Ok(())
        } else {
            Err(CloudError::Unstored(done.reason.clone()))
        }
    }

    /// Stores changes until `stop`, and once more then.
    pub(crate) async fn run_store(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut changed = self.changed.subscribe();
        let mut urgent = self.urgent.subscribe();
        loop {
            let stored = self.stored.borrow().revision;
            let stopping = tokio::select! {
                // Both senders live in `self`.
                _ = changed.wait_for(|revision| *revision > stored) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if stopping {
                if *changed.borrow() > stored {
                    self.store_now().await;
                }
                return;
            }
            tokio::select! {
                _ = urgent.wait_for(|revision| *revision > stored) => {}
                () = sleep(LAZY_STORE) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            if !self.store_now().await {
                tokio::select! {
                    () = sleep(STORE_RETRY) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        }
    }

    async fn store_now(&self) -> bool {
        let (changes, revision) = {
            let service = &mut self.handler().service;
            (service.take_changes(), service.revision())
        };
        let changes = Arc::new(changes);
        let (store, rows) = (Arc::clone(&self.store), Arc::clone(&changes));
        let stored = tokio::task::spawn_blocking(move || store.commit(&rows.rows)).await;
        let failure = match stored {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if failure.is_some() {
            self.handler().service.put_changes_back(&changes);
        }
        self.handler().service.set_unavailable(failure.clone());
        match failure {
            None => {
                self.stored.send_modify(|stored| {
                    stored.revision = revision;
                });
                true
            }
            Some(reason) => {
                tracing::error!(reason, "cannot store the state; trying again");
                self.stored.send_modify(|stored| {
                    stored.failures += 1;
                    stored.reason = reason;
                });
                false
            }
        }
    }

    /// Removes images that were taken in and came to nothing, or that a device still read when they were to go, until `stop`.
    pub(crate) async fn run_images(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let loose = tokio::select! {
                loose = self.loose_images() => loose,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let core = Arc::clone(&self);
            let removed = tokio::task::spawn_blocking(move || core.remove_images(&loose)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "images stay until the next start");
            }
        }
    }

    async fn loose_images(&self) -> BTreeSet<ImageId> {
        let (loose, revision) = loop {
            let mut loose = self.images.loose().await;
            let revision = self.look(|service| {
                let used = service.images_in_use();
                loose.retain(|image| !used.contains(image));
                service.revision()
            });
            if !loose.is_empty() {
                break (loose, revision);
            }
        };
        // A restart must not find a stream without its images: the disk, too, has to know of none.
        while self.await_stored(revision).await.is_err() {
            sleep(STORE_RETRY).await;
        }
        loose
    }

    /// Ends executions at their time until `stop`.
    pub(crate) async fn run_timers(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut changed = self.changed.subscribe();
        loop {
            let deadline = self.look(Service::deadline);
            let at = deadline.map(|at| self.clock.instant(at));
            let due = tokio::select! {
                () = sleep_or_never(at) => true,
                _ = changed.changed() => false,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if due {
                let (answer, revision) = {
                    let mut guard = self.handler();
                    let handler = &mut *guard;
                    let now_ms = self.now_ms();
                    let caused = handler.service.poll(now_ms);
                    let answer = self.release(handler, now_ms, caused);
                    (answer, handler.service.revision())
                };
                self.tell(revision);
                if answer.cut {
                    self.hub.cut();
                }
            }
        }
    }
}

/// Two threads may come in the wrong order; a revision never goes back.
fn raise(sender: &watch::Sender<u64>, revision: u64) {
    sender.send_if_modified(|highest| {
        let later = revision > *highest;
        *highest = revision.max(*highest);
        later
    });
}

async fn sleep_or_never(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
