//! agent-core's twins of the contract's words to the host's, and back. Texts from the agent are cut and cleaned as the
//! host does with a component's.

use agent_core::types as core;
use host_runtime::agent::{
    AgentStatus, ApplicationEvent, Command, Context, CustomAnswer, Event, FileStatus, Message,
    OfferAnswer, Saved, StartInfo, Turn, Wait, clean,
};
use host_runtime::types::{
    Blob, DETAIL_MAX_BYTES, Failure, FileSpec, ImageInfo, Level, Outcome, Qos, Setting,
    TargetState, Version,
};

pub(super) fn context(from: Context) -> core::Context {
    core::Context {
        now_ms: from.now_ms,
        wall_s: from.wall_s,
    }
}

pub(super) fn start_info(from: StartInfo) -> core::StartInfo {
    let targets = from.config.targets.into_iter().map(|target| core::Target {
        file: target.file,
        name: target.name,
        settings: settings(target.settings),
    });
    core::StartInfo {
        config: core::Config {
            device: from.config.device,
            settings: settings(from.config.settings),
            targets: targets.collect(),
        },
        saved: match from.saved {
            Saved::None => core::Saved::None,
            Saved::Journal(saved) => core::Saved::Journal(blob(saved)),
            Saved::Snapshot(saved) => core::Saved::Snapshot(blob(saved)),
        },
        schema: from.schema,
        seed: from.seed,
        outstanding: from.outstanding,
        last_event: from.last_event,
    }
}

fn settings(from: Vec<Setting>) -> Vec<core::Setting> {
    from.into_iter()
        .map(|Setting { key, value }| core::Setting { key, value })
        .collect()
}

pub(super) fn events(from: Event) -> Vec<core::Event> {
    let event = match from {
        Event::Connected(session_present) => core::Event::Connected { session_present },
        Event::Disconnected { reason, detail } => core::Event::Disconnected { reason, detail },
        Event::Messages(messages) => {
            let messages = messages.into_iter();
            return messages
                .map(|Message { topic, payload }| core::Event::Message { topic, payload })
                .collect();
        }
        Event::Done {
            token,
            outcome: ended,
        } => core::Event::Done {
            token,
            outcome: outcome(ended),
        },
        Event::Progress { token, done, total } => core::Event::Progress { token, done, total },
        Event::HttpResponse {
            token,
            status,
            total,
            body,
        } => core::Event::HttpResponse {
            token,
            status,
            total,
            body,
        },
        Event::TargetRestarted(file) => core::Event::TargetRestarted(file),
        Event::Timeout => core::Event::Timeout,
        Event::Command(ordered) => core::Event::Command(command(ordered)),
        Event::Allowance(rate) => core::Event::Allowance(rate),
        Event::Custom { name, bytes } => core::Event::Custom { name, bytes },
    };
    vec![event]
}

fn command(from: Command) -> core::Command {
    match from {
        Command::CheckForUpdate => core::Command::CheckForUpdate,
        Command::Suspend => core::Command::Suspend,
        Command::Resume => core::Command::Resume,
        Command::Activate(file) => core::Command::Activate(file),
        Command::TestResult { file, failure } => core::Command::TestResult {
            file,
            failure: failure.map(failure_in),
        },
        Command::UserAbort => core::Command::UserAbort,
        Command::AnswerOffer { job_id, answer } => core::Command::AnswerOffer {
            job_id,
            answer: match answer {
                OfferAnswer::Accept => core::OfferAnswer::Accept,
                OfferAnswer::Defer(ms) => core::OfferAnswer::Defer(ms),
                OfferAnswer::Reject(reason) => core::OfferAnswer::Reject(reason),
            },
        },
        Command::AnswerCustomJob { job_id, answer } => core::Command::AnswerCustomJob {
            job_id,
            answer: match answer {
                CustomAnswer::Nobody => core::CustomAnswer::Nobody,
                CustomAnswer::Taken => core::CustomAnswer::Taken,
                CustomAnswer::Document(bytes) => core::CustomAnswer::Document(bytes),
                CustomAnswer::Finished(end) => core::CustomAnswer::Finished(core::JobResult {
                    status: end.status,
                    details: end.details,
                }),
            },
        },
        Command::Shutdown { unsubscribe } => core::Command::Shutdown { unsubscribe },
    }
}

pub(super) fn outcome(from: Outcome) -> core::Outcome {
    match from {
        Outcome::Nothing => core::Outcome::Nothing,
        Outcome::Held(map) => core::Outcome::Held(map),
        Outcome::Verified(info) => core::Outcome::Verified(image_info(info)),
        Outcome::State(state) => core::Outcome::State(target_state(state)),
        Outcome::Other(bytes) => core::Outcome::Other(bytes),
        Outcome::Failed(failure) => core::Outcome::Failed(failure_in(failure)),
    }
}

fn image_info(from: ImageInfo) -> core::ImageInfo {
    core::ImageInfo {
        size: from.size,
        sha256: from.sha256.to_vec(),
        version: from.version.map(version_in),
        product: from.product,
        signer: from.signer,
    }
}

fn target_state(from: TargetState) -> core::TargetState {
    core::TargetState {
        code: from.code,
        running: from.running.map(version_in),
        runs_new: from.runs_new,
    }
}

fn version_in(from: Version) -> core::Version {
    core::Version {
        major: from.major,
        minor: from.minor,
        revision: from.revision,
        build: from.build,
    }
}

fn failure_in(from: Failure) -> core::Failure {
    core::Failure {
        main: from.main,
        sub: from.sub,
        detail: from.detail,
    }
}

fn blob(from: Blob) -> core::Blob {
    core::Blob {
        schema: from.schema,
        bytes: from.bytes,
    }
}

pub(super) fn blob_out(from: core::Blob) -> Blob {
    Blob {
        schema: from.schema,
        bytes: from.bytes,
    }
}

pub(super) fn turn(from: core::Turn) -> Turn {
    Turn {
        deadline_ms: from.deadline,
        status: from.status.map(status),
        wait: from.wait.map(wait),
        refused: from.refused.map(failure),
    }
}

fn wait(from: core::Wait) -> Wait {
    Wait {
        reason: from.reason,
        detail: clean(&from.detail, DETAIL_MAX_BYTES),
        since_ms: from.since,
        tries: from.tries,
        gives_up_ms: from.gives_up,
        last_error: from.last_error.map(failure),
    }
}

pub(super) fn status(from: core::AgentStatus) -> AgentStatus {
    let files = from.files.into_iter().map(|file| FileStatus {
        file: file.file,
        phase: file.phase,
        done: file.done,
        total: file.total,
        version: file.version.map(version),
    });
    AgentStatus {
        state: from.state,
        job_id: from.job_id,
        files: files.collect(),
        received: from.received,
        processed: from.processed,
        dropped: from.dropped,
    }
}

pub(super) fn failure(from: core::Failure) -> Failure {
    Failure::new(from.main, from.sub, clean(&from.detail, DETAIL_MAX_BYTES))
}

fn version(from: core::Version) -> Version {
    Version {
        major: from.major,
        minor: from.minor,
        revision: from.revision,
        build: from.build,
    }
}

pub(super) fn qos(from: core::Qos) -> Qos {
    match from {
        core::Qos::AtMostOnce => Qos::AtMostOnce,
        core::Qos::AtLeastOnce => Qos::AtLeastOnce,
    }
}

pub(super) fn level(from: core::Level) -> Level {
    match from {
        core::Level::Trace => Level::Trace,
        core::Level::Debug => Level::Debug,
        core::Level::Info => Level::Info,
        core::Level::Warn => Level::Warn,
        core::Level::Error => Level::Error,
    }
}

pub(super) fn file_spec(from: core::FileSpec) -> FileSpec {
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

pub(super) fn application_event(from: core::ApplicationEvent) -> ApplicationEvent {
    ApplicationEvent {
        sequence: from.sequence,
        kind: from.kind,
        job_id: from.job_id,
        file: from.file,
        failure: from.failure.map(failure),
        version: from.version.map(version),
        document: from.document,
    }
}
