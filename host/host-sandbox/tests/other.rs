//! An agent that does otherwise wherever the contract leaves it open: its own tokens, its own numbers for its own errors,
//! another order of JSON members, more of what does no harm.

use std::num::NonZeroUsize;
use std::sync::Arc;

use host_runtime::agent::{
    AgentBuild, AgentInstance, ApplicationEvent, Around, Context, Event, Message, Outside, Turn,
};
use host_runtime::engine::GuestFault;
use host_runtime::ports::clock::SystemClock;
use host_runtime::target::VerifiedRef;
use host_runtime::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Started, Token};
use host_sandbox::check::verdict::Verdict;
use host_sandbox::check::{Options, Subject, agent_cases, run};
use host_sandbox::native_agent;

const OURS: &str = "\"clientToken\":\"u";
const THEIRS: &str = "\"clientToken\":\"other-u";

/// What the other agent calls.
struct Other(Box<dyn Outside>);

impl Other {
    /// A payload as the other agent writes it.
    fn payload(payload: Vec<u8>) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(&payload) else {
            return payload;
        };
        let text = text
            .replace(OURS, THEIRS)
            .replace("0x0000004", "0x0000007")
            .replace("0x0000005", "0x0000006");
        // The token first, not last.
        let moved = text.strip_suffix('}').and_then(|text| {
            let (rest, token) = text.rsplit_once(",\"clientToken\"")?;
            let rest = rest.strip_prefix('{')?;
            Some(format!("{{\"clientToken\"{token},{rest}}}"))
        });
        moved.unwrap_or(text).into_bytes()
    }
}

impl Outside for Other {
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token {
        let token = self.0.subscribe(filter.clone(), qos);
        // Once more does no harm.
        self.0.subscribe(filter, qos);
        token
    }
    fn unsubscribe(&mut self, filter: String) -> Token {
        self.0.unsubscribe(filter)
    }
    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        self.0.log(Level::Info, format!("on {topic}"));
        self.0.publish(topic, Self::payload(payload), qos)
    }
    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token {
        self.0.http_get(url, offset, length)
    }
    fn cancel(&mut self, token: Token) {
        self.0.cancel(token);
    }
    fn create(&mut self, spec: FileSpec) -> Started {
        self.0.create(spec)
    }
    fn reopen(&mut self, job_id: String, file: FileId) -> Started {
        self.0.reopen(job_id, file)
    }
    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        self.0.write_block(file, offset, data)
    }
    fn close(&mut self, file: FileId) -> Started {
        self.0.close(file)
    }
    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        self.0.verified(file)
    }
    fn install(&mut self, image: &VerifiedRef) -> Started {
        self.0.install(image)
    }
    fn activate(&mut self, image: &VerifiedRef) -> Started {
        self.0.activate(image)
    }
    fn reset(&mut self, file: FileId) -> Started {
        self.0.reset(file)
    }
    fn self_test(&mut self, file: FileId) -> Started {
        self.0.self_test(file)
    }
    fn commit(&mut self, file: FileId) -> Started {
        self.0.commit(file)
    }
    fn reject(&mut self, file: FileId) -> Started {
        self.0.reject(file)
    }
    fn state(&mut self, file: FileId) -> Started {
        self.0.state(file)
    }
    fn abort(&mut self, file: FileId) -> Started {
        self.0.abort(file)
    }
    fn journal_store(&mut self, journal: Blob) -> Token {
        self.0.journal_store(journal)
    }
    fn log(&mut self, level: Level, text: String) {
        self.0.log(level, text.to_uppercase());
    }
    fn emit(&mut self, mut event: ApplicationEvent) {
        if let Some(failure) = &mut event.failure {
            "other words".clone_into(&mut failure.detail);
        }
        self.0.emit(event);
    }
}

struct Instance(Box<dyn AgentInstance>);

impl Around for Instance {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.0
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let event = match event {
            Event::Messages(mut messages) => {
                for Message { payload, .. } in &mut messages {
                    let text = std::str::from_utf8(payload).map(|text| text.replace(THEIRS, OURS));
                    if let Ok(text) = text {
                        *payload = text.into_bytes();
                    }
                }
                Event::Messages(messages)
            }
            event => event,
        };
        self.0.handle(context, event)
    }
}

#[test]
fn an_agent_that_differs_where_it_may_passes() {
    let native = native_agent();
    let description = native.description().clone();
    let other = AgentBuild::native("other", description, move |outside| {
        let instance = native.instantiate(Box::new(Other(outside)))?;
        Ok(Box::new(Instance(instance)))
    });
    let cases = agent_cases().unwrap();
    let options = Options {
        jobs: NonZeroUsize::new(2).unwrap(),
        exact: false,
    };
    let subject = Subject::Agent(Arc::clone(&other));
    let report = run(&subject, &cases, options, &SystemClock::new(), |_| {});
    let bad: Vec<_> = report
        .cases
        .iter()
        .filter(|case| !matches!(case.verdict, Verdict::Passed | Verdict::Skipped(_)))
        .collect();
    assert!(report.is_fit(), "{bad:#?}");
    assert!(report.count("passed") >= 120);
}
