//! What the control socket's verbs do to the devices.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host_runtime::agent::{Command, CustomAnswer, OfferAnswer};
use host_runtime::plugin::PluginFactory;
use host_runtime::status::DeviceStatus;
use host_runtime::supervisor::DeviceHandle;
use host_runtime::types::{Failure, FileId, code};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::code::{Entry, Source};
use crate::control::protocol::{FinishStatus, Refusal, Request, Verb};
use crate::control::server::Backend;
use crate::control::view;
use crate::exit::Exit;
use crate::gateway::{Agents, ConnectedDevice, Hold, Plugins, to_its_end};
use crate::hooks;

use super::rollout::{self, Rollout};

/// Events that are read from the ring at a time.
const EVENTS_AT_A_TIME: usize = 32;

/// `main` of a failed self-test that an operator has decided: the application rejected the image (OTA_SetImageState).
const REJECTED_BY_OPERATOR: u8 = 0;

/// How long a device may take to say how it is. It answers within milliseconds, unless it waits for a medium.
const STATUS_MAX: Duration = Duration::from_secs(5);

/// Devices that are asked at a time.
const ASKED_AT_ONCE: usize = 64;

/// The devices of a daemon.
pub(super) struct Devices {
    pub(super) running: Vec<ConnectedDevice>,
    pub(super) failed: Vec<FailedDevice>,
    /// Where other builds come from; none where no device runs.
    pub(super) builds: Option<Builds>,
    /// They are being set up.
    pub(super) is_between: bool,
}

/// Where other builds come from.
#[derive(Clone)]
pub(super) struct Builds {
    pub(super) agents: Arc<Agents>,
    pub(super) plugins: Arc<Plugins>,
}

/// A device that could not be set up, or is not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedDevice {
    pub(super) name: String,
    /// For who wants something of it.
    pub(super) exit: Exit,
    pub(super) why: Cow<'static, str>,
}

/// What the control socket talks to: the devices of now, others after a reload.
pub(super) struct Switch(Mutex<Arc<Devices>>);

impl Switch {
    pub(super) fn new(devices: Devices) -> Self {
        Self(Mutex::new(Arc::new(devices)))
    }

    /// From the next request on these.
    pub(super) fn set(&self, devices: Devices) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(devices);
    }
}

impl Backend for Switch {
    async fn call(&self, request: Request, items: mpsc::Sender<Value>) -> Result<Value, Refusal> {
        let devices = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        devices.call(request, items).await
    }
}

impl Backend for Devices {
    async fn call(&self, request: Request, items: mpsc::Sender<Value>) -> Result<Value, Refusal> {
        if matches!(request.verb, Verb::Status) {
            return self.status(request.device.as_deref(), &items).await;
        }
        if self.is_between {
            // There is none to take an order, and what is kept of them is not nothing.
            let text = "the devices are being set up; ask again";
            return Err(Refusal::new(Exit::Retry, text));
        }
        if matches!(request.verb, Verb::Jobs) {
            return self.jobs(request.device.as_deref(), &items).await;
        }
        if let Verb::History { limit } = request.verb {
            return self.history(request.device.as_deref(), limit, &items).await;
        }
        if let Verb::SwapAgent(order) = &request.verb {
            let devices = self.chosen(request.device.as_deref(), order.all)?;
            if let Some(canary) = order.canary.as_deref() {
                // Of one that could not be set up it says why.
                self.one(Some(canary))?;
            }
            let devices = rollout::in_order(devices, order.canary.as_deref())?;
            let agents = Arc::clone(&self.builds()?.agents);
            let (rollout, places) = Rollout::load(agents, order, devices, items).await?;
            let end = match &places[..] {
                [only] if !order.all => rollout.swap(only).await,
                all => rollout.swap_all(all).await,
            };
            return self.passed_over(end, order.all);
        }
        if let Verb::RollBackAgent { all } = request.verb {
            let devices = self.chosen(request.device.as_deref(), all)?;
            let end = rollout::roll_back(&devices, &items).await;
            return self.passed_over(end, all);
        }
        let device = &self.one(request.device.as_deref())?.handle;
        let target = request.target.as_deref();
        match request.verb {
            Verb::Status
            | Verb::Jobs
            | Verb::History { .. }
            | Verb::SwapAgent(_)
            | Verb::RollBackAgent { .. } => Ok(Value::Null),
            Verb::Suspend => obey(device, Command::Suspend).await,
            Verb::Resume => obey(device, Command::Resume).await,
            Verb::Abort => obey(device, Command::UserAbort).await,
            Verb::Poll => obey(device, Command::CheckForUpdate).await,
            Verb::Activate => {
                let files = concerned(&device.status().await, target, is_installed)?;
                each(device, files, Command::Activate).await
            }
            Verb::Commit => {
                let files = concerned(&device.status().await, target, is_testing)?;
                let verdict = |file| Command::TestResult {
                    file,
                    failure: None,
                };
                each(device, files, verdict).await
            }
            Verb::Rollback { reason } => {
                let files = concerned(&device.status().await, target, is_testing)?;
                let text = reason.unwrap_or_else(|| "rejected by the operator".to_owned());
                // One verdict ends the job for all its files.
                let first = files.into_iter().take(1).collect();
                let verdict = |file| Command::TestResult {
                    file,
                    failure: Some(Failure::new(REJECTED_BY_OPERATOR, 0, text.clone())),
                };
                each(device, first, verdict).await
            }
            Verb::Approve { job } => answer(device, job, OfferAnswer::Accept).await,
            Verb::Decline { job, reason } => {
                let text = reason.unwrap_or_else(|| "declined by the operator".to_owned());
                answer(device, job, OfferAnswer::Reject(text)).await
            }
            Verb::Finish {
                job,
                status,
                reason,
            } => finish(device, job, status, reason).await,
            Verb::Events { after, follow } => events(device, after, follow, &items).await,
            Verb::SwapPlugin { file, allow_older } => {
                let target = one_target(target)?;
                let entry = Entry::put_in(allow_older);
                let kept = self.builds()?.plugins.hold().await;
                let taken = self.take_in(device.name(), target, &file, entry, &kept);
                swap(device, target, Some((taken.await?, kept))).await
            }
            Verb::RollBackPlugin => swap(device, one_target(target)?, None).await,
        }
    }
}

fn one_target(name: Option<&str>) -> Result<&str, Refusal> {
    name.ok_or_else(|| Refusal::new(Exit::Usage, "which target? name one"))
}

/// Let another plugin build, whose bytes are held, or the one before, serve a target.
async fn swap(
    device: &DeviceHandle,
    target: &str,
    build: Option<(Arc<dyn PluginFactory>, Hold)>,
) -> Result<Value, Refusal> {
    let (build, kept) = build.unzip();
    let (device, target) = (device.clone(), target.to_owned());
    let swap = async move { device.swap_plugin(&target, build).await };
    let end = to_its_end(swap, kept).await;
    end.map(|()| Value::Null)
        .map_err(|failure| Refusal::new(rollout::exit_of(&failure), failure.to_string()))
}

impl Devices {
    /// Load a plugin from a file.
    async fn take_in(
        &self,
        device: &str,
        target: &str,
        file: &str,
        entry: Entry,
        kept: &Hold,
    ) -> Result<Arc<dyn PluginFactory>, Refusal> {
        let plugins = Arc::clone(&self.builds()?.plugins);
        let source = Source::named(file);
        let taken = plugins.take_in(device, target, source, entry, kept).await;
        taken.map_err(|failed| {
            tracing::warn!(device, target, "plugin {}", failed.text);
            Refusal::new(failed.exit, failed.text)
        })
    }

    fn builds(&self) -> Result<&Builds, Refusal> {
        let builds = self.builds.as_ref();
        builds.ok_or_else(|| Refusal::new(Exit::Failed, "no device runs"))
    }

    /// The devices that a verb is for: one, or all that run.
    fn chosen(&self, name: Option<&str>, all: bool) -> Result<Vec<DeviceHandle>, Refusal> {
        if all {
            return Ok(self.running.iter().map(|d| d.handle.clone()).collect());
        }
        Ok(vec![self.one(name)?.handle.clone()])
    }

    /// The end of a verb: one for all devices has passed over those that do not run, however it went for the others.
    fn passed_over(&self, end: Result<(), Refusal>, all: bool) -> Result<Value, Refusal> {
        if !all || self.failed.is_empty() {
            return end.map(|()| Value::Null);
        }
        let why = |device: &FailedDevice| format!("{} ({})", device.name, device.why);
        let devices: Vec<String> = self.failed.iter().map(why).collect();
        let devices = devices.join(", ");
        Err(match end {
            Ok(()) => {
                let text = format!("done, but not for devices that do not run: {devices}");
                Refusal::new(Exit::Failed, text)
            }
            Err(refusal) => Refusal {
                text: format!("{}; devices that do not run: {devices}", refusal.text),
                ..refusal
            },
        })
    }

    fn one(&self, name: Option<&str>) -> Result<&ConnectedDevice, Refusal> {
        let named = |name: &str| self.running.iter().find(|d| d.handle.name() == name);
        match (name, &self.running[..], &self.failed[..]) {
            (Some(name), ..) => named(name).ok_or_else(|| self.missing(name)),
            (None, [only], []) => Ok(only),
            (None, [], [only]) => Err(self.missing(&only.name)),
            (None, ..) => Err(Refusal::new(
                Exit::Usage,
                format!("which device? name one with --device: {}", self.names()),
            )),
        }
    }

    /// Why there is no running device of this name.
    fn missing(&self, name: &str) -> Refusal {
        match self.failed.iter().find(|d| d.name == name) {
            Some(device) => Refusal::new(
                device.exit,
                format!("device \"{name}\" does not run: {}", device.why),
            ),
            None => Refusal::new(
                Exit::Nothing,
                format!("no device \"{name}\"; there are: {}", self.names()),
            ),
        }
    }

    fn names(&self) -> String {
        let running = self.running.iter().map(|d| d.handle.name());
        let failed = self.failed.iter().map(|d| d.name.as_str());
        running.chain(failed).collect::<Vec<_>>().join(", ")
    }

    /// How the devices are, those that do not run last.
    async fn status(
        &self,
        name: Option<&str>,
        items: &mpsc::Sender<Value>,
    ) -> Result<Value, Refusal> {
        let wanted = |other: &str| name.is_none_or(|name| name == other);
        let running = self.running.iter().filter(|d| wanted(d.handle.name()));
        let mut answers = Ahead::new(running.map(|d| tokio::spawn(look(d.clone()))));
        let mut any = name.is_none();
        while let Some(item) = answers.next().await {
            any = true;
            if items.send(item?).await.is_err() {
                return Ok(Value::Null);
            }
        }
        for device in self.failed.iter().filter(|d| wanted(&d.name)) {
            any = true;
            let item = view::silent(&device.name, &device.why, device.exit);
            if items.send(item).await.is_err() {
                return Ok(Value::Null);
            }
        }
        match name {
            Some(name) if !any => Err(self.missing(name)),
            Some(_) | None => Ok(json!({ "version": env!("CARGO_PKG_VERSION") })),
        }
    }
}

/// Answers of devices in the order in which they are asked, some at a time: one that does not answer keeps the others waiting
/// no longer than it must.
struct Ahead<I, T> {
    questions: I,
    asked: VecDeque<JoinHandle<T>>,
}

impl<T, I: Iterator<Item = JoinHandle<T>>> Ahead<I, T> {
    fn new(questions: I) -> Self {
        Self {
            questions,
            asked: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Option<Result<T, Refusal>> {
        while self.asked.len() < ASKED_AT_ONCE
            && let Some(next) = self.questions.next()
        {
            self.asked.push_back(next);
        }
        let answer = self.asked.pop_front()?.await;
        Some(answer.map_err(|e| Refusal::new(Exit::Failed, format!("asking a device broke: {e}"))))
    }
}

/// How a device is.
async fn look(device: ConnectedDevice) -> Value {
    match status_of(&device.handle).await {
        Ok(status) => {
            let mut item = view::device(&status, Some(&device.connection.status()));
            if let Some((job, words)) = hooks::waiting(&status, &device.handle.events()) {
                item["offer"] = json!(job);
                item["offer"]["words"] = words.into();
            }
            item
        }
        Err(silent) => silent,
    }
}

/// The jobs of a device.
async fn jobs_of(device: DeviceHandle) -> Vec<Value> {
    match status_of(&device).await {
        Ok(status) => {
            let events = device.events().after(0, usize::MAX);
            let jobs = hooks::jobs(&status, &events);
            jobs.iter().map(|job| json!(job)).collect()
        }
        Err(silent) => vec![silent],
    }
}

/// What a device says of itself, or what is said of one that does not answer.
async fn status_of(device: &DeviceHandle) -> Result<DeviceStatus, Value> {
    let status = tokio::time::timeout(STATUS_MAX, device.status()).await;
    status.map_err(|_| {
        let why = format!(
            "no answer within {} s; it waits for its storage, or is broken",
            STATUS_MAX.as_secs()
        );
        view::silent(device.name(), &why, Exit::Retry)
    })
}

impl Devices {
    /// The past jobs of a device, or of all.
    async fn history(
        &self,
        name: Option<&str>,
        limit: Option<usize>,
        items: &mpsc::Sender<Value>,
    ) -> Result<Value, Refusal> {
        let wanted = |other: &str| name.is_none_or(|name| name == other);
        let mut any = name.is_none();
        for device in self.running.iter().filter(|d| wanted(d.handle.name())) {
            any = true;
            let jobs = device.handle.history().story().jobs;
            let skip = jobs.len().saturating_sub(limit.unwrap_or(usize::MAX));
            for job in jobs.iter().skip(skip) {
                let item = json!({ "device": device.handle.name(), "job": job });
                if items.send(item).await.is_err() {
                    return Ok(Value::Null);
                }
            }
        }
        match name {
            Some(name) if !any => Err(self.missing(name)),
            Some(_) | None => Ok(Value::Null),
        }
    }

    /// The jobs of a device, or of all, and with all those that do not say theirs.
    async fn jobs(
        &self,
        name: Option<&str>,
        items: &mpsc::Sender<Value>,
    ) -> Result<Value, Refusal> {
        if let Some(name) = name
            && !self.running.iter().any(|d| d.handle.name() == name)
        {
            return Err(self.missing(name));
        }
        let wanted = |other: &str| name.is_none_or(|name| name == other);
        let running = self.running.iter().filter(|d| wanted(d.handle.name()));
        let mut answers = Ahead::new(running.map(|d| tokio::spawn(jobs_of(d.handle.clone()))));
        while let Some(jobs) = answers.next().await {
            for job in jobs? {
                if items.send(job).await.is_err() {
                    return Ok(Value::Null);
                }
            }
        }
        for device in self.failed.iter().filter(|d| wanted(&d.name)) {
            let item = view::silent(&device.name, &device.why, device.exit);
            if items.send(item).await.is_err() {
                return Ok(Value::Null);
            }
        }
        Ok(Value::Null)
    }
}

async fn finish(
    device: &DeviceHandle,
    job: String,
    status: FinishStatus,
    reason: Option<String>,
) -> Result<Value, Refusal> {
    let number = match status {
        FinishStatus::Succeeded => hooks::status::SUCCEEDED,
        FinishStatus::Failed => hooks::status::FAILED,
    };
    let result = hooks::result(
        number,
        reason.as_deref().unwrap_or_default(),
        BTreeMap::new(),
    );
    let command = Command::AnswerCustomJob {
        job_id: job,
        answer: CustomAnswer::Finished(result),
    };
    obey(device, command).await
}

async fn obey(device: &DeviceHandle, command: Command) -> Result<Value, Refusal> {
    device
        .command(command)
        .await
        .map(|()| Value::Null)
        .map_err(|failure| refusal(&failure))
}

async fn answer(device: &DeviceHandle, job: String, answer: OfferAnswer) -> Result<Value, Refusal> {
    let command = Command::AnswerOffer {
        job_id: job,
        answer,
    };
    obey(device, command).await
}

async fn each(
    device: &DeviceHandle,
    files: Vec<FileId>,
    command: impl Fn(FileId) -> Command,
) -> Result<Value, Refusal> {
    for file in files {
        obey(device, command(file)).await?;
    }
    Ok(Value::Null)
}

/// `file-status.phase` of a file whose activation may wait.
fn is_installed(phase: u8) -> bool {
    phase == 6
}

/// `file-status.phase` of a file in test.
fn is_testing(phase: u8) -> bool {
    phase == 9
}

/// The files that a verb concerns: those of the named target, or all in a phase.
fn concerned(
    status: &DeviceStatus,
    target: Option<&str>,
    phase: impl Fn(u8) -> bool,
) -> Result<Vec<FileId>, Refusal> {
    let Some(name) = target else {
        let files: Vec<FileId> = status
            .files
            .iter()
            .filter(|f| phase(f.phase))
            .map(|f| f.file_id)
            .collect();
        if files.is_empty() {
            return Err(Refusal::new(
                Exit::Nothing,
                format!(
                    "nothing waits for that; the agent's state is {}",
                    status.state_name
                ),
            ));
        }
        return Ok(files);
    };
    match status.targets.iter().find(|t| t.name == name) {
        Some(target) => Ok(vec![target.file_id]),
        None => {
            let names: Vec<&str> = status.targets.iter().map(|t| t.name.as_str()).collect();
            Err(Refusal::new(
                Exit::Nothing,
                format!("no target \"{name}\"; there are: {}", names.join(", ")),
            ))
        }
    }
}

/// The agent's and the host's codes as exit codes; tables in `wit/agent/types.wit` and agent-core.
fn refusal(failure: &Failure) -> Refusal {
    /// OtaErrImageStateMismatch, OtaErrNoActiveJob, OtaErrActivateFailed: nothing is there to act on.
    const NOTHING: [u8; 3] = [17, 18, 22];
    let exit = match failure.main {
        main if NOTHING.contains(&main) => Exit::Nothing,
        code::LIMIT | code::BUSY => Exit::Retry,
        _ => Exit::Refused,
    };
    Refusal::new(exit, failure.to_string())
}

async fn events(
    device: &DeviceHandle,
    after: u64,
    follow: bool,
    items: &mpsc::Sender<Value>,
) -> Result<Value, Refusal> {
    let last = device.events().last();
    // Numbers that none has that is kept: whoever waits above them might wait for ever.
    let mut cursor = if after > last { 0 } else { after };
    if after > last {
        tracing::debug!(
            "{}: events after {after} are wanted, and {last} is the last: all that are kept are told",
            device.name()
        );
    }
    loop {
        let batch = if follow {
            device.events_after(cursor, EVENTS_AT_A_TIME).await
        } else {
            device.events().after(cursor, EVENTS_AT_A_TIME)
        };
        if batch.is_empty() && follow {
            let text = format!(
                "{} was stopped, for a reload or for good: follow on with --after {cursor}",
                device.name()
            );
            return Err(Refusal::new(Exit::Retry, text));
        }
        if batch.is_empty() {
            return Ok(Value::Null);
        }
        for stored in batch {
            cursor = stored.event.sequence;
            let item = view::event(device.name(), &stored);
            if items.send(item).await.is_err() {
                return Ok(Value::Null);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use host_runtime::status::FileReport;
    use host_runtime::target::TargetReport;

    use crate::control::client::Client;
    use crate::control::protocol::{ANSWER_MAX_BYTES, AgentOrder};
    use crate::control::server::{Access, Server};

    use super::*;

    fn status(phases: &[u8]) -> DeviceStatus {
        let file = |(id, phase): (usize, &u8)| FileReport {
            file_id: id as u32,
            phase: *phase,
            ..FileReport::default()
        };
        DeviceStatus {
            state_name: "WaitingForActivation".to_owned(),
            files: phases.iter().enumerate().map(file).collect(),
            targets: vec![TargetReport {
                name: "mcu".to_owned(),
                file_id: 7,
                ..TargetReport::default()
            }],
            ..DeviceStatus::default()
        }
    }

    #[test]
    fn a_verb_concerns_the_named_target_or_all_files_in_its_phase() {
        let all = status(&[6, 9, 6]);
        assert_eq!(concerned(&all, None, is_installed).unwrap(), [0, 2]);
        assert_eq!(concerned(&all, None, is_testing).unwrap(), [1]);
        assert_eq!(concerned(&all, Some("mcu"), is_testing).unwrap(), [7]);
        let none = concerned(&status(&[2]), None, is_testing).unwrap_err();
        assert_eq!(none.exit, "nothing");
        assert!(none.text.contains("WaitingForActivation"), "{}", none.text);
        let unknown = concerned(&all, Some("x"), is_testing).unwrap_err();
        assert!(unknown.text.contains("there are: mcu"), "{}", unknown.text);
    }

    /// One that could not be set up.
    fn broken() -> Devices {
        Devices {
            running: Vec::new(),
            failed: vec![FailedDevice {
                name: "pump-1".to_owned(),
                exit: Exit::Failed,
                why: "its record is damaged".into(),
            }],
            builds: None,
            is_between: false,
        }
    }

    #[tokio::test]
    async fn a_device_that_could_not_be_set_up_is_shown_with_its_reason_and_takes_no_commands() {
        let devices = broken();
        let (items, mut told) = mpsc::channel(4);
        for name in [None, Some("pump-1")] {
            devices.status(name, &items).await.unwrap();
            let device = told.try_recv().unwrap();
            assert_eq!(device["device"], "pump-1");
            assert_eq!(device["failed"], "its record is damaged");
            assert_eq!(device["exit"], "failed");
        }
        for name in [None, Some("pump-1")] {
            let refusal = devices.one(name).unwrap_err();
            assert_eq!(refusal.exit, "failed");
            assert!(
                refusal.text.contains("its record is damaged"),
                "{}",
                refusal.text
            );
        }
        let unknown = devices.status(Some("pump-2"), &items).await.unwrap_err();
        assert_eq!(unknown.exit, "nothing");
        assert!(
            unknown.text.contains("there are: pump-1"),
            "{}",
            unknown.text
        );
    }

    #[tokio::test]
    async fn a_device_that_could_not_be_set_up_is_named_where_jobs_are_listed() {
        let devices = broken();
        let (items, mut told) = mpsc::channel(4);
        assert_eq!(devices.jobs(None, &items).await, Ok(Value::Null));
        let item = told.try_recv().unwrap();
        assert_eq!(item["device"], "pump-1");
        assert_eq!(item["failed"], "its record is damaged");
        for (name, exit) in [("pump-1", "failed"), ("pump-2", "nothing")] {
            let refusal = devices.jobs(Some(name), &items).await.unwrap_err();
            assert_eq!(refusal.exit, exit);
        }
        assert!(told.try_recv().is_err());
    }

    #[tokio::test]
    async fn many_are_asked_at_a_time_and_answer_in_their_order() {
        const AT_ONCE: u64 = ASKED_AT_ONCE as u64;
        let ask = |n: u64| {
            tokio::spawn(async move {
                // Of those that are asked together the first are the slow ones.
                tokio::time::sleep(Duration::from_millis(AT_ONCE - n % AT_ONCE)).await;
                n
            })
        };
        let mut answers = Ahead::new((0..2 * AT_ONCE).map(ask));
        for n in 0..2 * AT_ONCE {
            assert_eq!(answers.next().await, Some(Ok(n)));
            assert!(answers.asked.len() < ASKED_AT_ONCE);
        }
        assert_eq!(answers.next().await, None);
    }

    #[tokio::test]
    async fn thousands_of_devices_are_told_to_a_client() {
        const DEVICES: usize = 10_000;
        let failed = (0..DEVICES).map(|n| FailedDevice {
            name: format!("pump-{n}"),
            exit: Exit::Failed,
            why: "its record is damaged, and it takes some words to say how; "
                .repeat(3)
                .into(),
        });
        let devices = Devices {
            failed: failed.collect(),
            ..broken()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let access = Access {
            owner: rustix::process::geteuid().as_raw(),
            group: None,
        };
        let server = Server::bind(&path, access).unwrap();
        tokio::spawn(server.serve(Arc::new(Switch::new(devices))));
        let request = Request::new(Verb::Status);
        let status = Client::new(&path).gather(&request, "devices").await;
        let status = status.unwrap();
        let told = status["devices"].as_array().unwrap();
        assert_eq!(told.len(), DEVICES);
        assert_eq!(told[DEVICES - 1]["device"], format!("pump-{}", DEVICES - 1));
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert!(status.to_string().len() > ANSWER_MAX_BYTES);
    }

    #[tokio::test]
    async fn a_first_device_that_could_not_be_set_up_is_refused_with_its_reason() {
        let devices = broken();
        let order = |canary: &str| AgentOrder {
            file: "agent.wasm".to_owned(),
            trial_s: None,
            all: true,
            canary: Some(canary.to_owned()),
            allow_older: false,
        };
        for (canary, exit, why) in [
            ("pump-1", "failed", "its record is damaged"),
            ("pump-2", "nothing", "there are: pump-1"),
        ] {
            let (items, _told) = mpsc::channel(1);
            let request = Request::new(Verb::SwapAgent(order(canary)));
            let refusal = devices.call(request, items).await.unwrap_err();
            assert_eq!(refusal.exit, exit);
            assert!(refusal.text.contains(why), "{}", refusal.text);
        }
    }

    #[test]
    fn a_verb_for_all_devices_names_those_that_do_not_run() {
        let all_run = Devices {
            failed: Vec::new(),
            ..broken()
        };
        assert_eq!(all_run.passed_over(Ok(()), true), Ok(Value::Null));
        let devices = broken();
        assert_eq!(devices.passed_over(Ok(()), false), Ok(Value::Null));
        // Also where it did not go well on those that do.
        let sent_back = Refusal::new(Exit::Refused, "pump-2: sent back");
        for (end, exit, words) in [
            (Ok(()), "failed", "done, but not"),
            (Err(sent_back), "refused", "pump-2: sent back"),
        ] {
            let end = devices.passed_over(end, true).unwrap_err();
            assert_eq!(end.exit, exit);
            assert!(end.text.starts_with(words), "{}", end.text);
            let named = "pump-1 (its record is damaged)";
            assert!(end.text.contains(named), "{}", end.text);
        }
    }

    #[test]
    fn a_refused_command_has_an_exit_code() {
        let rows = [
            (18, "nothing"),
            (22, "nothing"),
            (6, "refused"),
            (code::LIMIT, "retry"),
        ];
        for (main, exit) in rows {
            assert_eq!(refusal(&Failure::new(main, 0, "x")).exit, exit, "{main}");
        }
    }
}
