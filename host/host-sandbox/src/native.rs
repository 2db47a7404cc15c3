//! The agent compiled into this process: agent-core behind the host's [`AgentInstance`], in place of `agent.wasm`.
//!
//! It does what `agent-guest` does, one call of the outside an order, and what the host's edge does to a component's
//! texts; so that both make the same trace of the same world. Values are converted, nothing is decided.

use std::sync::Arc;

use agent_core::agent::Agent;
use agent_core::types as core;
use host_runtime::agent::{
    AgentBuild, AgentInstance, AgentStatus, Context, Description, Event, Outside, StartInfo, Turn,
};
use host_runtime::engine::GuestFault;
use host_runtime::types::{Blob, Failure, Outcome, Started};

mod convert;

/// agent-core as a build of an agent.
#[must_use]
pub fn native_agent() -> Arc<AgentBuild> {
    let who = Agent::describe();
    let description = Description {
        name: who.name.to_owned(),
        version: who.version.to_owned(),
        schemas: who.schemas.to_vec(),
    };
    AgentBuild::native("agent-core", description, |outside| {
        Ok(Box::new(Native {
            outside,
            agent: None,
        }))
    })
}

struct Native {
    outside: Box<dyn Outside>,
    agent: Option<Agent>,
}

impl Native {
    fn agent(&mut self) -> Result<&mut Agent, GuestFault> {
        self.agent
            .as_mut()
            .ok_or_else(|| GuestFault::Trapped("called before start".into()))
    }

    /// Do all that the agent wants done.
    fn carry_out_all(&mut self, now: core::Context) -> Result<(), GuestFault> {
        while let Some(core::Action { op, order }) = self.agent()?.poll_action() {
            match self.carry_out(order) {
                None => {}
                Some(Started::Pending(token)) => self.agent()?.bind(op, token),
                Some(Started::Done(outcome)) => {
                    let outcome = convert::outcome(outcome);
                    self.agent()?
                        .handle(now, core::Event::Ended { op, outcome });
                }
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, order: core::Order) -> Option<Started> {
        let outside = &mut *self.outside;
        Some(match order {
            core::Order::Subscribe { filter, qos } => {
                Started::Pending(outside.subscribe(filter, convert::qos(qos)))
            }
            core::Order::Unsubscribe { filter } => Started::Pending(outside.unsubscribe(filter)),
            core::Order::Publish {
                topic,
                payload,
                qos,
            } => Started::Pending(outside.publish(topic, payload, convert::qos(qos))),
            core::Order::HttpGet {
                url,
                offset,
                length,
            } => Started::Pending(outside.http_get(url, offset, length)),
            core::Order::Cancel(token) => {
                outside.cancel(token);
                return None;
            }
            core::Order::Create(spec) => outside.create(convert::file_spec(spec)),
            core::Order::Reopen { job_id, file } => outside.reopen(job_id, file),
            core::Order::WriteBlock { file, offset, data } => {
                outside.write_block(file, offset, data.as_slice())
            }
            core::Order::Pal(call, file) => self.call(call, file),
            core::Order::JournalStore(blob) => {
                Started::Pending(outside.journal_store(convert::blob_out(blob)))
            }
            core::Order::Log { level, text } => {
                outside.log(convert::level(level), text);
                return None;
            }
            core::Order::Emit(event) => {
                outside.emit(convert::application_event(event));
                return None;
            }
        })
    }

    fn call(&mut self, call: core::Call, file: core::FileId) -> Started {
        let outside = &mut *self.outside;
        match call {
            core::Call::Close => outside.close(file),
            core::Call::Install => match outside.verified(file) {
                Ok(image) => outside.install(&image),
                Err(failure) => failed(failure),
            },
            core::Call::Activate => match outside.verified(file) {
                Ok(image) => outside.activate(&image),
                Err(failure) => failed(failure),
            },
            core::Call::Reset => outside.reset(file),
            core::Call::SelfTest => outside.self_test(file),
            core::Call::Commit => outside.commit(file),
            core::Call::Reject => outside.reject(file),
            core::Call::State => outside.state(file),
            core::Call::Abort => outside.abort(file),
        }
    }
}

fn failed(failure: Failure) -> Started {
    Started::Done(Outcome::Failed(failure))
}

impl AgentInstance for Native {
    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        let now = convert::context(context);
        match Agent::start(now, convert::start_info(info)) {
            Ok(agent) => {
                self.agent = Some(agent);
                self.carry_out_all(now)?;
                Ok(Ok(convert::turn(self.agent()?.turn())))
            }
            Err(failure) => Ok(Err(convert::failure(failure))),
        }
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let now = convert::context(context);
        for event in convert::events(event) {
            self.agent()?.handle(now, event);
            self.carry_out_all(now)?;
        }
        Ok(convert::turn(self.agent()?.turn()))
    }

    fn status(&mut self) -> Result<AgentStatus, GuestFault> {
        Ok(convert::status(self.agent()?.status()))
    }

    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        let now = convert::context(context);
        Ok(convert::blob_out(self.agent()?.snapshot(now)))
    }

    fn memory_bytes(&mut self) -> usize {
        0
    }
}
