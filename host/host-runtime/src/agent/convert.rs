//! Generated types to host types and back. What a guest gave is cut to the contract's limits here, once.

use super::text::clean;
use super::wasm::{wit_agent, wit_os, wit_pal, wit_transport, wit_types};
use super::{
    AgentStatus, ApplicationEvent, Command, Context, CustomAnswer, Description, Event, FileStatus,
    Message, OfferAnswer, Saved, StartInfo, Turn, Wait,
};
use crate::types::{
    Blob, DETAIL_MAX_BYTES, Failure, FileSpec, ImageInfo, Level, Outcome, Qos, Setting, Started,
    TargetState, Version, code,
};

/// Names of builds, and job ids: `[a-zA-Z0-9_-]{1,64}` at AWS.
const NAME_MAX_BYTES: usize = 64;

/// Files of a job; the contract's limit.
const FILES_MAX: usize = 16;

/// Schemas that a build may list: more than anybody will keep readable.
const SCHEMAS_MAX: usize = 16;

pub(super) fn description(from: wit_agent::Description) -> Result<Description, String> {
    let to = Description {
        name: clean(&from.name, NAME_MAX_BYTES),
        version: clean(&from.version, NAME_MAX_BYTES),
        schemas: from.schemas,
    };
    if to.name.is_empty() || to.name != from.name || to.version != from.version {
        return Err(format!(
            "name `{}` and version `{}` must be printable, 1 to {NAME_MAX_BYTES} bytes",
            to.name, to.version
        ));
    }
    if to.schemas.is_empty() || to.schemas.len() > SCHEMAS_MAX {
        return Err(format!(
            "it lists {} schemas, 1 to {SCHEMAS_MAX} are asked for",
            to.schemas.len()
        ));
    }
    Ok(to)
}

pub(super) fn context(from: Context) -> wit_agent::Context {
    wit_agent::Context {
        now_ms: from.now_ms,
        wall_s: from.wall_s,
    }
}

pub(super) fn start_info(from: StartInfo) -> wit_agent::StartInfo {
    let settings = |from: Vec<Setting>| from.into_iter().map(setting).collect::<Vec<_>>();
    wit_agent::StartInfo {
        config: wit_agent::Config {
            device: from.config.device,
            settings: settings(from.config.settings),
            targets: from
                .config
                .targets
                .into_iter()
                .map(|target| wit_agent::Target {
                    file: target.file,
                    name: target.name,
                    settings: settings(target.settings),
                })
                .collect(),
        },
        saved: match from.saved {
            Saved::None => wit_agent::Saved::None,
            Saved::Journal(blob) => wit_agent::Saved::Journal(blob_out(blob)),
            Saved::Snapshot(blob) => wit_agent::Saved::Snapshot(blob_out(blob)),
        },
        schema: from.schema,
        seed: from.seed,
        outstanding: from.outstanding,
        last_event: from.last_event,
    }
}

fn setting(from: Setting) -> wit_types::Setting {
    wit_types::Setting {
        key: from.key,
        value: from.value,
    }
}

fn message(from: Message) -> wit_agent::Message {
    wit_agent::Message {
        topic: from.topic,
        payload: from.payload,
    }
}

pub(super) fn event(from: Event) -> wit_agent::Event {
    match from {
        Event::Connected(kept) => wit_agent::Event::Connected(kept),
        Event::Disconnected { reason, detail } => {
            wit_agent::Event::Disconnected(wit_agent::Disconnection { reason, detail })
        }
        Event::Messages(messages) => {
            wit_agent::Event::Messages(messages.into_iter().map(message).collect())
        }
        Event::Done { token, outcome } => wit_agent::Event::Done(wit_agent::Completion {
            token,
            outcome: outcome_out(outcome),
        }),
        Event::Progress { token, done, total } => {
            wit_agent::Event::Progress(wit_agent::Progress { token, done, total })
        }
        Event::HttpResponse {
            token,
            status,
            total,
            body,
        } => wit_agent::Event::HttpResponse(wit_agent::HttpResponse {
            token,
            status,
            total,
            body,
        }),
        Event::TargetRestarted(file) => wit_agent::Event::TargetRestarted(file),
        Event::Timeout => wit_agent::Event::Timeout,
        Event::Command(from) => wit_agent::Event::Command(command(from)),
        Event::Allowance(rate) => wit_agent::Event::Allowance(rate),
        Event::Custom { name, bytes } => {
            wit_agent::Event::Custom(wit_agent::Custom { name, bytes })
        }
    }
}

fn command(from: Command) -> wit_agent::Command {
    match from {
        Command::CheckForUpdate => wit_agent::Command::CheckForUpdate,
        Command::Suspend => wit_agent::Command::Suspend,
        Command::Resume => wit_agent::Command::Resume,
        Command::Activate(file) => wit_agent::Command::Activate(file),
        Command::TestResult { file, failure } => {
            wit_agent::Command::TestResult(wit_agent::TestResult {
                file,
                failure: failure.map(failure_out),
            })
        }
        Command::UserAbort => wit_agent::Command::UserAbort,
        Command::AnswerOffer { job_id, answer } => wit_agent::Command::AnswerOffer((
            job_id,
            match answer {
                OfferAnswer::Accept => wit_agent::OfferAnswer::Accept,
                OfferAnswer::Defer(ms) => wit_agent::OfferAnswer::Defer(ms),
                OfferAnswer::Reject(reason) => wit_agent::OfferAnswer::Reject(reason),
            },
        )),
        Command::AnswerCustomJob { job_id, answer } => wit_agent::Command::AnswerCustomJob((
            job_id,
            match answer {
                CustomAnswer::Nobody => wit_agent::CustomAnswer::Nobody,
                CustomAnswer::Taken => wit_agent::CustomAnswer::Taken,
                CustomAnswer::Document(bytes) => wit_agent::CustomAnswer::Document(bytes),
                CustomAnswer::Finished(result) => {
                    wit_agent::CustomAnswer::Finished(wit_agent::JobResult {
                        status: result.status,
                        details: result.details,
                    })
                }
            },
        )),
        Command::Shutdown { unsubscribe } => wit_agent::Command::Shutdown(unsubscribe),
    }
}

pub(super) fn turn(from: wit_agent::Turn) -> Turn {
    Turn {
        deadline_ms: from.deadline,
        status: from.status.map(status),
        wait: from.wait.map(wait),
        refused: from.refused.map(failure),
    }
}

fn wait(from: wit_agent::Wait) -> Wait {
    Wait {
        reason: from.reason,
        detail: clean(&from.detail, DETAIL_MAX_BYTES),
        since_ms: from.since,
        tries: from.tries,
        gives_up_ms: from.gives_up,
        last_error: from.last_error.map(failure),
    }
}

pub(super) fn status(mut from: wit_agent::AgentStatus) -> AgentStatus {
    from.files.truncate(FILES_MAX);
    AgentStatus {
        state: from.state,
        job_id: from.job_id.map(|id| clean(&id, NAME_MAX_BYTES)),
        files: from
            .files
            .into_iter()
            .map(|file| FileStatus {
                file: file.file,
                phase: file.phase,
                done: file.done,
                total: file.total,
                version: file.version.map(version),
            })
            .collect(),
        received: from.received,
        processed: from.processed,
        dropped: from.dropped,
    }
}

pub(super) fn application_event(from: wit_os::ApplicationEvent) -> ApplicationEvent {
    ApplicationEvent {
        sequence: from.sequence,
        kind: from.kind,
        job_id: from.job_id.map(|id| clean(&id, NAME_MAX_BYTES)),
        file: from.file,
        failure: from.failure.map(failure),
        version: from.version.map(version),
        document: from.document,
    }
}

pub(super) fn file_spec(from: wit_pal::FileSpec) -> FileSpec {
    FileSpec {
        job_id: from.job_id,
        file_id: from.file_id,
        size: from.size,
        block_size: from.block_size,
        file_type: from.file_type,
        attributes: from.attributes,
        path: from.path,
        certificate: from.certificate,
        signature_kind: from.signature_kind,
        signature: from.signature,
    }
}

pub(super) fn qos(from: wit_transport::Qos) -> Qos {
    match from {
        wit_transport::Qos::AtMostOnce => Qos::AtMostOnce,
        wit_transport::Qos::AtLeastOnce => Qos::AtLeastOnce,
    }
}

pub(super) fn level(from: wit_os::Level) -> Level {
    match from {
        wit_os::Level::Trace => Level::Trace,
        wit_os::Level::Debug => Level::Debug,
        wit_os::Level::Info => Level::Info,
        wit_os::Level::Warn => Level::Warn,
        wit_os::Level::Error => Level::Error,
    }
}

pub(super) fn blob(from: wit_types::Blob) -> Blob {
    Blob {
        schema: from.schema,
        bytes: from.bytes,
    }
}

fn blob_out(from: Blob) -> wit_types::Blob {
    wit_types::Blob {
        schema: from.schema,
        bytes: from.bytes,
    }
}

pub(super) fn failure(from: wit_types::Failure) -> Failure {
    Failure::new(from.main, from.sub, clean(&from.detail, DETAIL_MAX_BYTES))
}

pub(super) fn failure_out(from: Failure) -> wit_types::Failure {
    wit_types::Failure {
        main: from.main,
        sub: from.sub,
        detail: from.detail,
    }
}

/// The agent holds more proofs than it can have files.
pub(super) fn too_many_handles() -> wit_types::Failure {
    failure_out(Failure::new(
        code::LIMIT,
        0,
        "too many verified-image handles are held; drop some",
    ))
}

fn version(from: wit_types::Version) -> Version {
    Version {
        major: from.major,
        minor: from.minor,
        revision: from.revision,
        build: from.build,
    }
}

fn version_out(from: Version) -> wit_types::Version {
    wit_types::Version {
        major: from.major,
        minor: from.minor,
        revision: from.revision,
        build: from.build,
    }
}

pub(super) fn image_info(from: &ImageInfo) -> wit_types::ImageInfo {
    wit_types::ImageInfo {
        size: from.size,
        sha256: from.sha256.to_vec(),
        version: from.version.map(version_out),
        product: from.product.clone(),
        signer: from.signer.clone(),
    }
}

fn target_state(from: TargetState) -> wit_types::TargetState {
    wit_types::TargetState {
        code: from.code,
        running: from.running.map(version_out),
        runs_new: from.runs_new,
    }
}

fn outcome_out(from: Outcome) -> wit_types::Outcome {
    match from {
        Outcome::Nothing => wit_types::Outcome::Nothing,
        Outcome::Held(map) => wit_types::Outcome::Held(map),
        Outcome::Verified(info) => wit_types::Outcome::Verified(image_info(&info)),
        Outcome::State(state) => wit_types::Outcome::State(target_state(state)),
        Outcome::Other(bytes) => wit_types::Outcome::Other(bytes),
        Outcome::Failed(failure) => wit_types::Outcome::Failed(failure_out(failure)),
    }
}

pub(super) fn started(from: Started) -> wit_types::Started {
    match from {
        Started::Done(outcome) => wit_types::Started::Done(outcome_out(outcome)),
        Started::Pending(token) => wit_types::Started::Pending(token),
    }
}
