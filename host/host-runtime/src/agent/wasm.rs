//! An agent in wasmtime: the bindings of world `agent`, and the instance with its budget.
//!
//! Generated types go no further than this file and `convert.rs`. Every import counts as a host call and is handed to
//! the [`Outside`]; nothing is decided here.

use std::cell::RefCell;
use std::sync::Arc;

use wasmtime::component::{HasSelf, Resource, ResourceTable, ResourceTableError, WasmList};
use wasmtime::{Store, StoreContextMut};

use super::nowhere::Nowhere;
use super::{
    AgentInstance, AgentStatus, Context, Description, Event, Outside, StartInfo, Turn, convert,
};
use crate::engine::{Budget, Engine, GuestFault, Loaded, Meter, Metered, Refusal};
use crate::target::VerifiedRef;
use crate::types::{Blob, Failure};

mod bindings {
    //! Generated from `wit/agent`.
    wasmtime::component::bindgen!({
        path: "../../wit/agent",
        world: "agent",
        imports: { default: trappable },
        with: { "ota:agent/pal.verified-image": crate::target::VerifiedRef },
    });
}

pub(super) use bindings::exports::ota::agent::job_agent as wit_agent;
pub(super) use bindings::ota::agent::types as wit_types;
pub(super) use bindings::ota::agent::{os as wit_os, pal as wit_pal, transport as wit_transport};

/// The interface of `write-block`, as [`bindings`] link it: under another name there would be two.
const PAL: &str = "ota:agent/pal@0.1.0";

/// What a store of an agent holds.
struct Inside {
    meter: Meter,
    table: ResourceTable,
    /// A cell, so that it can be lent what lies in the guest's memory.
    outside: RefCell<Box<dyn Outside>>,
}

impl Metered for Inside {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl Inside {
    /// The outside, one host call later.
    fn outside(&mut self) -> wasmtime::Result<&mut dyn Outside> {
        self.meter.host_call()?;
        Ok(&mut **self.outside.get_mut())
    }
}

/// A linked agent component.
pub(super) struct Program {
    engine: Arc<Engine>,
    budget: Budget,
    pre: bindings::AgentPre<Inside>,
}

impl Program {
    /// Bind the component's imports to an [`Outside`].
    pub(super) fn link(
        engine: &Arc<Engine>,
        loaded: &Loaded,
        budget: &Budget,
    ) -> Result<Self, Refusal> {
        let refuse = |e: wasmtime::Error| Refusal::Link(format!("{e:#}"));
        let mut linker = engine.linker();
        bindings::Agent::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |inside| inside)
            .and_then(|()| {
                linker.allow_shadowing(true);
                let linked = linker.instance(PAL)?.func_wrap("write-block", write_block);
                linker.allow_shadowing(false);
                linked
            })
            .map_err(refuse)?;
        let pre = linker
            .instantiate_pre(&loaded.component)
            .and_then(bindings::AgentPre::new)
            .map_err(refuse)?;
        Ok(Self {
            engine: Arc::clone(engine),
            budget: budget.clone(),
            pre,
        })
    }

    /// Ask an instance that is thrown away afterwards who it is. Every call outside traps.
    pub(super) fn describe(&self) -> Result<Description, Refusal> {
        let refuse = |fault: GuestFault| Refusal::Describe(fault.to_string());
        // `describe` calls no import: a component that does so has no budget for it.
        let budget = Budget {
            host_calls: 0,
            ..Budget::AGENT
        };
        let (mut store, agent) = self
            .create(Box::new(Nowhere::after(&[])), budget)
            .map_err(refuse)?;
        let description = self
            .engine
            .call(&mut store, |store| {
                agent.ota_agent_job_agent().call_describe(store)
            })
            .map_err(refuse)?;
        convert::description(description).map_err(Refusal::Describe)
    }

    /// A fresh instance.
    pub(super) fn instantiate(
        &self,
        outside: Box<dyn Outside>,
    ) -> Result<Box<dyn AgentInstance>, GuestFault> {
        let (store, agent) = self.create(outside, self.budget.clone())?;
        Ok(Box::new(Instance {
            engine: Arc::clone(&self.engine),
            store,
            agent,
        }))
    }

    fn create(
        &self,
        outside: Box<dyn Outside>,
        budget: Budget,
    ) -> Result<(Store<Inside>, bindings::Agent), GuestFault> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(budget.handles);
        let mut store = self.engine.store(Inside {
            meter: Meter::new(budget),
            table,
            outside: RefCell::new(outside),
        });
        let agent = self
            .engine
            .call(&mut store, |store| self.pre.instantiate(store))?;
        Ok((store, agent))
    }
}

/// A running agent component.
struct Instance {
    engine: Arc<Engine>,
    store: Store<Inside>,
    agent: bindings::Agent,
}

impl AgentInstance for Instance {
    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        let info = convert::start_info(info);
        let result = self.engine.call(&mut self.store, |store| {
            self.agent
                .ota_agent_job_agent()
                .call_start(store, convert::context(context), &info)
        })?;
        Ok(match result {
            Ok(turn) => Ok(convert::turn(turn)),
            Err(failure) => Err(convert::failure(failure)),
        })
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let event = convert::event(event);
        let turn = self.engine.call(&mut self.store, |store| {
            self.agent
                .ota_agent_job_agent()
                .call_handle(store, convert::context(context), &event)
        })?;
        Ok(convert::turn(turn))
    }

    fn status(&mut self) -> Result<AgentStatus, GuestFault> {
        let status = self.engine.call(&mut self.store, |store| {
            self.agent.ota_agent_job_agent().call_status(store)
        })?;
        Ok(convert::status(status))
    }

    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        let blob = self.engine.call(&mut self.store, |store| {
            self.agent
                .ota_agent_job_agent()
                .call_snapshot(store, convert::context(context))
        })?;
        Ok(convert::blob(blob))
    }

    fn memory_bytes(&mut self) -> usize {
        self.store.data_mut().meter.memory_bytes()
    }
}

impl wit_types::Host for Inside {}

impl wit_transport::Host for Inside {
    fn subscribe(&mut self, filter: String, qos: wit_transport::Qos) -> wasmtime::Result<u64> {
        Ok(self.outside()?.subscribe(filter, convert::qos(qos)))
    }

    fn unsubscribe(&mut self, filter: String) -> wasmtime::Result<u64> {
        Ok(self.outside()?.unsubscribe(filter))
    }

    fn publish(
        &mut self,
        topic: String,
        payload: Vec<u8>,
        qos: wit_transport::Qos,
    ) -> wasmtime::Result<u64> {
        self.excused(|outside| outside.publish(topic, payload, convert::qos(qos)))
    }

    fn http_get(&mut self, url: String, offset: u64, length: u32) -> wasmtime::Result<u64> {
        self.excused(|outside| outside.http_get(url, offset, length))
    }

    fn cancel(&mut self, token: u64) -> wasmtime::Result<()> {
        self.outside()?.cancel(token);
        Ok(())
    }
}

impl wit_pal::Host for Inside {
    fn create(&mut self, file: wit_pal::FileSpec) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.create(convert::file_spec(file)))
    }

    fn reopen(&mut self, job_id: String, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.reopen(job_id, file))
    }

    fn write_block(&mut self, _: u32, _: u64, _: Vec<u8>) -> wasmtime::Result<wit_types::Started> {
        Err(wasmtime::Error::msg("`write-block` is linked by itself"))
    }

    fn close(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.close(file))
    }

    fn verified(
        &mut self,
        file: u32,
    ) -> wasmtime::Result<Result<Resource<VerifiedRef>, wit_types::Failure>> {
        Ok(match self.outside()?.verified(file) {
            Ok(image) => match self.table.push(image) {
                Ok(handle) => Ok(handle),
                // The agent hoards handles; its next call may drop some.
                Err(ResourceTableError::Full) => Err(convert::too_many_handles()),
                Err(other) => return Err(other.into()),
            },
            Err(failure) => Err(convert::failure_out(failure)),
        })
    }

    fn install(&mut self, image: Resource<VerifiedRef>) -> wasmtime::Result<wit_types::Started> {
        self.with_image(&image, |outside, image| outside.install(image))
    }

    fn activate(&mut self, image: Resource<VerifiedRef>) -> wasmtime::Result<wit_types::Started> {
        self.with_image(&image, |outside, image| outside.activate(image))
    }

    fn reset(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.reset(file))
    }

    fn self_test(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.self_test(file))
    }

    fn commit(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.commit(file))
    }

    fn reject(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.reject(file))
    }

    fn state(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.state(file))
    }

    fn abort(&mut self, file: u32) -> wasmtime::Result<wit_types::Started> {
        self.started(|outside| outside.abort(file))
    }
}

/// `pal.write-block`, in place of the generated one, which has the block copied before it is called: here the target takes it
/// out of the guest's memory. It counts for the bytes of a host call all the same.
fn write_block(
    mut store: StoreContextMut<'_, Inside>,
    (file, offset, data): (u32, u64, WasmList<u8>),
) -> wasmtime::Result<(wit_types::Started,)> {
    let inside = store.data_mut();
    inside.meter.host_call()?;
    let began = inside.meter.ticks();
    let block = data.as_le_slice(&store);
    let started = (store.data().outside.borrow_mut()).write_block(file, offset, block);
    store.data_mut().meter.excuse_since(began);
    Ok((convert::started(started),))
}

impl Inside {
    /// A call of the outside that has blocks which came before it written first: a slow plugin or storage is not the agent's
    /// fault.
    fn excused<R>(&mut self, call: impl FnOnce(&mut dyn Outside) -> R) -> wasmtime::Result<R> {
        let began = self.meter.ticks();
        let answer = call(self.outside()?);
        self.meter.excuse_since(began);
        Ok(answer)
    }

    /// A call of a target.
    fn started(
        &mut self,
        call: impl FnOnce(&mut dyn Outside) -> crate::types::Started,
    ) -> wasmtime::Result<wit_types::Started> {
        self.excused(call).map(convert::started)
    }

    fn with_image(
        &mut self,
        image: &Resource<VerifiedRef>,
        call: impl FnOnce(&mut dyn Outside, &VerifiedRef) -> crate::types::Started,
    ) -> wasmtime::Result<wit_types::Started> {
        let image = self.table.get(image)?.clone();
        self.started(|outside| call(outside, &image))
    }
}

impl wit_pal::HostVerifiedImage for Inside {
    fn info(&mut self, image: Resource<VerifiedRef>) -> wasmtime::Result<wit_types::ImageInfo> {
        self.meter.host_call()?;
        Ok(convert::image_info(self.table.get(&image)?.info()))
    }

    fn drop(&mut self, image: Resource<VerifiedRef>) -> wasmtime::Result<()> {
        self.table.delete(image)?;
        Ok(())
    }
}

impl wit_os::Host for Inside {
    fn journal_store(&mut self, journal: wit_types::Blob) -> wasmtime::Result<u64> {
        Ok(self.outside()?.journal_store(convert::blob(journal)))
    }

    fn log(&mut self, level: wit_os::Level, text: String) -> wasmtime::Result<()> {
        let level = convert::level(level);
        self.meter.hear(level, &text);
        self.outside()?.log(level, text);
        Ok(())
    }

    fn emit(&mut self, event: wit_os::ApplicationEvent) -> wasmtime::Result<()> {
        self.outside()?.emit(convert::application_event(event));
        Ok(())
    }
}
