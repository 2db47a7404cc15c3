//! Between the generated types and agent-core's, field by field. Nothing is checked or decided here.

use agent_core::types as core;

use crate::bindings::exports::ota::agent::job_agent;
use crate::bindings::ota::agent::{os, pal, transport, types};

// In: what the host tells the agent.

pub(crate) fn context(context: job_agent::Context) -> core::Context {
    core::Context { now_ms: context.now_ms, wall_s: context.wall_s }
}

pub(crate) fn start_info(info: job_agent::StartInfo) -> core::StartInfo {
    core::StartInfo {
        config: core::Config {
            device: info.config.device,
            settings: settings(info.config.settings),
            targets: info.config.targets.into_iter().map(target).collect(),
        },
        saved: match info.saved {
            job_agent::Saved::None => core::Saved::None,
            job_agent::Saved::Journal(blob) => core::Saved::Journal(blob_in(blob)),
            job_agent::Saved::Snapshot(blob) => core::Saved::Snapshot(blob_in(blob)),
        },
        schema: info.schema,
        seed: info.seed,
        outstanding: info.outstanding,
        last_event: info.last_event,
    }
}

fn target(target: job_agent::Target) -> core::Target {
    core::Target { file: target.file, name: target.name, settings: settings(target.settings) }
}

fn settings(settings: Vec<types::Setting>) -> Vec<core::Setting> {
    settings.into_iter().map(|s| core::Setting { key: s.key, value: s.value }).collect()
}

pub(crate) fn event(event: job_agent::Event) -> core::Event {
    use job_agent::Event;
    match event {
        Event::Connected(session_present) => core::Event::Connected { session_present },
        Event::Disconnected(d) => core::Event::Disconnected { reason: d.reason, detail: d.detail },
        Event::Message(m) => core::Event::Message { topic: m.topic, payload: m.payload },
        Event::Done(c) => core::Event::Done { token: c.token, outcome: outcome(c.outcome) },
        Event::Progress(p) => {
            core::Event::Progress { token: p.token, done: p.done, total: p.total }
        }
        Event::HttpResponse(r) => core::Event::HttpResponse {
            token: r.token,
            status: r.status,
            total: r.total,
            body: r.body,
        },
        Event::TargetRestarted(file) => core::Event::TargetRestarted(file),
        Event::Timeout => core::Event::Timeout,
        Event::Command(c) => core::Event::Command(command(c)),
        Event::Allowance(bytes_per_s) => core::Event::Allowance(bytes_per_s),
        Event::Custom(c) => core::Event::Custom { name: c.name, bytes: c.bytes },
    }
}

fn command(command: job_agent::Command) -> core::Command {
    use job_agent::Command;
    match command {
        Command::CheckForUpdate => core::Command::CheckForUpdate,
        Command::Suspend => core::Command::Suspend,
        Command::Resume => core::Command::Resume,
        Command::Activate(file) => core::Command::Activate(file),
        Command::TestResult(result) => core::Command::TestResult {
            file: result.file,
            failure: result.failure.map(failure_in),
        },
        Command::UserAbort => core::Command::UserAbort,
        Command::AnswerOffer((job_id, answer)) => core::Command::AnswerOffer {
            job_id,
            answer: match answer {
                job_agent::OfferAnswer::Accept => core::OfferAnswer::Accept,
                job_agent::OfferAnswer::Defer(ms) => core::OfferAnswer::Defer(ms),
                job_agent::OfferAnswer::Reject(reason) => core::OfferAnswer::Reject(reason),
            },
        },
        Command::AnswerCustomJob((job_id, answer)) => core::Command::AnswerCustomJob {
            job_id,
            answer: match answer {
                job_agent::CustomAnswer::Nobody => core::CustomAnswer::Nobody,
                job_agent::CustomAnswer::Taken => core::CustomAnswer::Taken,
                job_agent::CustomAnswer::Document(bytes) => core::CustomAnswer::Document(bytes),
                job_agent::CustomAnswer::Finished(result) => {
                    core::CustomAnswer::Finished(core::JobResult {
                        status: result.status,
                        details: result.details,
                    })
                }
            },
        },
        Command::Shutdown(unsubscribe) => core::Command::Shutdown { unsubscribe },
    }
}

pub(crate) fn outcome(outcome: types::Outcome) -> core::Outcome {
    use types::Outcome;
    match outcome {
        Outcome::Nothing => core::Outcome::Nothing,
        Outcome::Held(bits) => core::Outcome::Held(bits),
        Outcome::Verified(info) => core::Outcome::Verified(core::ImageInfo {
            size: info.size,
            sha256: info.sha256,
            version: info.version.map(version_in),
            product: info.product,
            signer: info.signer,
        }),
        Outcome::State(state) => core::Outcome::State(core::TargetState {
            code: state.code,
            running: state.running.map(version_in),
            runs_new: state.runs_new,
        }),
        Outcome::Other(bytes) => core::Outcome::Other(bytes),
        Outcome::Failed(failure) => core::Outcome::Failed(failure_in(failure)),
    }
}

pub(crate) fn failure_in(failure: types::Failure) -> core::Failure {
    core::Failure { main: failure.main, sub: failure.sub, detail: failure.detail }
}

fn version_in(v: types::Version) -> core::Version {
    core::Version { major: v.major, minor: v.minor, revision: v.revision, build: v.build }
}

fn blob_in(blob: types::Blob) -> core::Blob {
    core::Blob { schema: blob.schema, bytes: blob.bytes }
}

// Out: what the agent tells the host.

impl From<core::Failure> for types::Failure {
    fn from(failure: core::Failure) -> Self {
        Self { main: failure.main, sub: failure.sub, detail: failure.detail }
    }
}

fn version_out(v: core::Version) -> types::Version {
    types::Version { major: v.major, minor: v.minor, revision: v.revision, build: v.build }
}

pub(crate) fn blob_out(blob: core::Blob) -> types::Blob {
    types::Blob { schema: blob.schema, bytes: blob.bytes }
}

pub(crate) fn turn(turn: core::Turn) -> job_agent::Turn {
    job_agent::Turn {
        deadline: turn.deadline,
        status: turn.status.map(status),
        wait: turn.wait.map(wait),
        refused: turn.refused.map(Into::into),
    }
}

fn wait(wait: core::Wait) -> job_agent::Wait {
    job_agent::Wait {
        reason: wait.reason,
        detail: wait.detail,
        since: wait.since,
        tries: wait.tries,
        gives_up: wait.gives_up,
        last_error: wait.last_error.map(Into::into),
    }
}

pub(crate) fn status(status: core::AgentStatus) -> job_agent::AgentStatus {
    job_agent::AgentStatus {
        state: status.state,
        job_id: status.job_id,
        files: status.files.into_iter().map(file_status).collect(),
        received: status.received,
        processed: status.processed,
        dropped: status.dropped,
    }
}

fn file_status(file: core::FileStatus) -> job_agent::FileStatus {
    job_agent::FileStatus {
        file: file.file,
        phase: file.phase,
        done: file.done,
        total: file.total,
        version: file.version.map(version_out),
    }
}

pub(crate) fn qos(qos: core::Qos) -> transport::Qos {
    match qos {
        core::Qos::AtMostOnce => transport::Qos::AtMostOnce,
        core::Qos::AtLeastOnce => transport::Qos::AtLeastOnce,
    }
}

pub(crate) fn level(level: core::Level) -> os::Level {
    match level {
        core::Level::Trace => os::Level::Trace,
        core::Level::Debug => os::Level::Debug,
        core::Level::Info => os::Level::Info,
        core::Level::Warn => os::Level::Warn,
        core::Level::Error => os::Level::Error,
    }
}

pub(crate) fn file_spec(spec: core::FileSpec) -> pal::FileSpec {
    pal::FileSpec {
        job_id: spec.job_id,
        file_id: spec.file_id,
        size: spec.size,
        block_size: spec.block_size,
        file_type: spec.file_type,
        attributes: spec.attributes,
        path: spec.path,
        certificate: spec.certificate,
        signature_kind: spec.signature_kind,
        signature: spec.signature,
    }
}

pub(crate) fn application_event(event: core::ApplicationEvent) -> os::ApplicationEvent {
    os::ApplicationEvent {
        sequence: event.sequence,
        kind: event.kind,
        job_id: event.job_id,
        file: event.file,
        failure: event.failure.map(Into::into),
        version: event.version.map(version_out),
        document: event.document,
    }
}
