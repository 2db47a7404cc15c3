//! The enumerations that agent-core has in another shape than the generated types. Nothing is checked or decided here.

use agent_core::types as core;

use crate::bindings::exports::ota::agent::job_agent;

pub(crate) fn event(event: job_agent::Event) -> core::Event {
    use job_agent::Event;
    match event {
        Event::Connected(session_present) => core::Event::Connected { session_present },
        Event::Disconnected(d) => core::Event::Disconnected {
            reason: d.reason,
            detail: d.detail,
        },
        Event::Message(m) => core::Event::Message {
            topic: m.topic,
            payload: m.payload,
        },
        Event::Done(c) => core::Event::Done {
            token: c.token,
            outcome: c.outcome,
        },
        Event::Progress(p) => core::Event::Progress {
            token: p.token,
            done: p.done,
            total: p.total,
        },
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
        Event::Custom(c) => core::Event::Custom {
            name: c.name,
            bytes: c.bytes,
        },
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
            failure: result.failure,
        },
        Command::UserAbort => core::Command::UserAbort,
        Command::AnswerOffer((job_id, answer)) => core::Command::AnswerOffer { job_id, answer },
        Command::AnswerCustomJob((job_id, answer)) => {
            core::Command::AnswerCustomJob { job_id, answer }
        }
        Command::Shutdown(unsubscribe) => core::Command::Shutdown { unsubscribe },
    }
}
