//! What the control socket's verbs do to the devices.

use host_runtime::agent::{Command, OfferAnswer};
use host_runtime::status::DeviceStatus;
use host_runtime::supervisor::DeviceHandle;
use host_runtime::types::{Failure, FileId, code};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::control::protocol::{Refusal, Request, Verb};
use crate::control::server::Backend;
use crate::control::view;
use crate::exit::Exit;
use crate::gateway::ConnectedDevice;

/// Events that are read from the ring at a time.
const EVENTS_AT_A_TIME: usize = 32;

/// `main` of a failed self-test that an operator has decided: the application rejected the image (OTA_SetImageState).
const REJECTED_BY_OPERATOR: u8 = 0;

/// The devices of a daemon.
pub(super) struct Devices(pub(super) Vec<ConnectedDevice>);

impl Backend for Devices {
    async fn call(&self, request: Request, items: mpsc::Sender<Value>) -> Result<Value, Refusal> {
        if matches!(request.verb, Verb::Status) {
            return self.status(request.device.as_deref()).await;
        }
        let device = &self.one(request.device.as_deref())?.handle;
        let target = request.target.as_deref();
        match request.verb {
            Verb::Status => Ok(Value::Null),
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
            Verb::Events { after, follow } => events(device, after, follow, &items).await,
        }
    }
}

impl Devices {
    fn one(&self, name: Option<&str>) -> Result<&ConnectedDevice, Refusal> {
        let names = || {
            let names: Vec<&str> = self.0.iter().map(|d| d.handle.name()).collect();
            names.join(", ")
        };
        match (name, &self.0[..]) {
            (Some(name), all) => all.iter().find(|d| d.handle.name() == name).ok_or_else(|| {
                Refusal::new(
                    Exit::Nothing,
                    format!("no device \"{name}\"; there are: {}", names()),
                )
            }),
            (None, [only]) => Ok(only),
            (None, _) => Err(Refusal::new(
                Exit::Usage,
                format!("which device? name one with --device: {}", names()),
            )),
        }
    }

    async fn status(&self, name: Option<&str>) -> Result<Value, Refusal> {
        let devices: Vec<&ConnectedDevice> = match name {
            Some(_) => vec![self.one(name)?],
            None => self.0.iter().collect(),
        };
        let mut list = Vec::with_capacity(devices.len());
        for device in devices {
            let status = device.handle.status().await;
            list.push(view::device(&status, Some(&device.connection.status())));
        }
        Ok(json!({ "version": env!("CARGO_PKG_VERSION"), "devices": list }))
    }
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
    let mut cursor = after;
    loop {
        let batch = if follow {
            device.events_after(cursor, EVENTS_AT_A_TIME).await
        } else {
            device.events().after(cursor, EVENTS_AT_A_TIME)
        };
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
