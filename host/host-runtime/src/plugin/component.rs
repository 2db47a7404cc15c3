//! A plugin in wasmtime: the bindings of world `plugin`, the instance with its budget, and what it is lent.
//!
//! Generated types go no further than this file and `convert.rs`. An import is linked only if this host lends it; one
//! that the target was not granted is refused before an instance is made. Nothing is decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::component::{HasSelf, Linker, WasmList};
use wasmtime::{Store, StoreContextMut};

use super::convert;
use super::lend::{LENDABLE, Lent, SerialLine};
use super::{
    Description, Duty, Extent, Plugin, PluginError, PluginFactory, Transfer, apart, check_lent,
};
use crate::engine::{
    Budget, COSTLY, Engine, GuestFault, Loaded, Meter, Metered, PLUGIN_WORLD, Refusal, Usage,
};
use crate::types::{Blob, Failure, Setting};

mod bindings {
    //! Generated from `wit/pal`.
    wasmtime::component::bindgen!({
        path: "../../wit/pal",
        world: "plugin",
        imports: { default: trappable },
    });
}

pub(super) use bindings::exports::ota::pal::{describe as wit_describe, image as wit_image};
pub(super) use bindings::ota::pal::types as wit_types;
pub(super) use bindings::ota::pal::{
    block_device as wit_block_device, clock as wit_clock, hardware_reset as wit_hardware_reset,
    log as wit_log, serial_line as wit_serial_line, staged_image as wit_staged_image,
};

/// The interface of `write-at`, as [`bindings`] link it: under another name there would be two.
const BLOCK_DEVICE: &str = "ota:pal/block-device@0.1.0";

/// What a store of a plugin holds.
struct Inside {
    meter: Meter,
    /// `None` while it is asked who it is.
    lent: Option<Lent>,
}

impl Metered for Inside {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl Inside {
    /// Let the host touch storage for the guest; how long that takes is not the guest's fault. Bytes and syncs are
    /// counted by what is lent.
    fn storage<R>(
        &mut self,
        call: impl FnOnce() -> Result<R, Failure>,
    ) -> Result<R, wit_types::Failure> {
        let began = self.meter.ticks();
        let end = call();
        self.meter.excuse_since(began);
        end.map_err(convert::failure_out)
    }

    /// Bytes for the guest.
    fn brings<E>(&mut self, end: Result<Vec<u8>, E>) -> wasmtime::Result<Result<Vec<u8>, E>> {
        self.meter.carry(end.as_ref().map_or(0, Vec::len));
        Ok(end)
    }

    /// What is lent, one host call later.
    fn lent(&mut self) -> wasmtime::Result<&Lent> {
        self.meter.host_call()?;
        self.lent
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("nothing is lent in `describe`"))
    }
}

/// A plugin component, loaded and asked who it is.
pub struct ComponentPlugin {
    engine: Arc<Engine>,
    label: String,
    digest: [u8; 32],
    description: Description,
    imports: Vec<String>,
    budget: Budget,
    /// A call of an instance has taken long: each of the next ones may, too.
    slow: Arc<AtomicBool>,
    pre: bindings::PluginPre<Inside>,
}

impl ComponentPlugin {
    /// Check, compile and link a component, and ask it who it is. `label` is for people: `builtin:flash-file`, a path.
    ///
    /// # Errors
    /// What is wrong with the component, and what to do.
    pub fn load(engine: &Arc<Engine>, label: &str, bytes: &[u8]) -> Result<Arc<Self>, Refusal> {
        Self::load_within(engine, label, bytes, &Budget::PLUGIN)
    }

    /// As [`load`](Self::load), with a budget of its own for each instance.
    ///
    /// # Errors
    /// As there.
    pub fn load_within(
        engine: &Arc<Engine>,
        label: &str,
        bytes: &[u8],
        budget: &Budget,
    ) -> Result<Arc<Self>, Refusal> {
        let loaded = engine.load(bytes, &PLUGIN_WORLD, &LENDABLE)?;
        let pre = link(engine, &loaded)?;
        let description = describe(engine, &pre)?;
        Ok(Arc::new(Self {
            engine: Arc::clone(engine),
            label: label.to_owned(),
            digest: loaded.digest,
            description,
            imports: loaded.shape.imports,
            budget: budget.clone(),
            slow: Arc::default(),
            pre,
        }))
    }
}

impl std::fmt::Debug for ComponentPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentPlugin")
            .field("label", &self.label)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

impl PluginFactory for ComponentPlugin {
    fn label(&self) -> &str {
        &self.label
    }

    fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        check_lent(&self.imports, &lent)?;
        // Its modules may compute when they are instantiated, too.
        let made = paced(&self.slow, || {
            create(&self.engine, &self.pre, Some(lent), self.budget.clone())
        });
        if made.is_err() {
            self.slow.store(true, Ordering::Relaxed);
        }
        let (store, plugin) = made.map_err(broken)?;
        Ok(Box::new(Instance {
            engine: Arc::clone(&self.engine),
            slow: Arc::clone(&self.slow),
            store,
            plugin,
        }))
    }
}

/// Bind what this host lends; a component has been refused that imports more.
fn link(engine: &Arc<Engine>, loaded: &Loaded) -> Result<bindings::PluginPre<Inside>, Refusal> {
    let refuse = |e: wasmtime::Error| Refusal::Link(format!("{e:#}"));
    let mut linker: Linker<Inside> = engine.linker();
    wit_types::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    wit_block_device::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    wit_staged_image::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    wit_serial_line::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    wit_hardware_reset::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    wit_clock::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    wit_log::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |i| i).map_err(refuse)?;
    linker.allow_shadowing(true);
    linker
        .instance(BLOCK_DEVICE)
        .and_then(|mut device| device.func_wrap("write-at", write_at))
        .map_err(refuse)?;
    linker.allow_shadowing(false);
    linker
        .instantiate_pre(&loaded.component)
        .and_then(bindings::PluginPre::new)
        .map_err(refuse)
}

/// Ask an instance that is thrown away afterwards who it is; it may call nothing.
fn describe(engine: &Engine, pre: &bindings::PluginPre<Inside>) -> Result<Description, Refusal> {
    let refuse = |fault: GuestFault| Refusal::Describe(fault.to_string());
    let budget = Budget {
        host_calls: 0,
        ..Budget::PLUGIN
    };
    let (mut store, plugin) = create(engine, pre, None, budget).map_err(refuse)?;
    let description = engine
        .call(&mut store, |store| {
            plugin.ota_pal_describe().call_describe(store)
        })
        .map_err(refuse)?;
    let description = convert::description(description);
    description.check().map_err(Refusal::Describe)?;
    Ok(description)
}

fn create(
    engine: &Engine,
    pre: &bindings::PluginPre<Inside>,
    lent: Option<Lent>,
    budget: Budget,
) -> Result<(Store<Inside>, bindings::Plugin), GuestFault> {
    let mut store = engine.store(Inside {
        meter: Meter::new(budget),
        lent,
    });
    let plugin = engine.call(&mut store, |store| pre.instantiate(store))?;
    Ok((store, plugin))
}

fn broken(fault: GuestFault) -> PluginError {
    PluginError::Broken(fault.to_string())
}

/// Call it where it holds up nobody else, if it may take long: to let others take over costs more than most calls do.
fn paced<R>(slow: &AtomicBool, call: impl FnOnce() -> R) -> R {
    match slow.load(Ordering::Relaxed) {
        true => apart(call),
        false => call(),
    }
}

/// A running plugin component.
struct Instance {
    engine: Arc<Engine>,
    /// The build's.
    slow: Arc<AtomicBool>,
    store: Store<Inside>,
    plugin: bindings::Plugin,
}

impl Instance {
    /// One call of interface `image`: a trap breaks the instance, a failure does not.
    fn call<R>(
        &mut self,
        call: impl FnOnce(
            &wit_image::Guest,
            &mut Store<Inside>,
        ) -> wasmtime::Result<Result<R, wit_types::Failure>>,
    ) -> Result<R, PluginError> {
        let image = self.plugin.ota_pal_image();
        let (engine, store) = (&self.engine, &mut self.store);
        let end = paced(&self.slow, || {
            engine.call(store, |store| call(image, store))
        });
        let most = self.store.data().meter.usage().fuel.most;
        let was_slow = matches!(
            end,
            Err(GuestFault::TooSlow { .. } | GuestFault::TooManyHostCalls { .. })
        );
        // Of the host's budget: a signer's may be so small that a sixteenth of it is no time at all.
        if was_slow || most > Budget::PLUGIN.fuel / COSTLY {
            self.slow.store(true, Ordering::Relaxed);
        }
        end.map_err(broken)?
            .map_err(|failure| PluginError::Failed(convert::failure(failure)))
    }

    fn duty(
        &mut self,
        call: impl FnOnce(
            &wit_image::Guest,
            &mut Store<Inside>,
        ) -> wasmtime::Result<Result<wit_types::Duty, wit_types::Failure>>,
    ) -> Result<Duty, PluginError> {
        self.call(call).map(convert::duty)
    }
}

impl Plugin for Instance {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        let settings: Vec<_> = settings.iter().map(convert::setting).collect();
        let saved = saved.map(convert::blob_in);
        self.call(|image, store| image.call_open(store, &settings, saved.as_ref()))
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        let transfer = convert::transfer(transfer);
        self.duty(|image, store| image.call_create(store, &transfer))
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        let transfer = convert::transfer(transfer);
        self.duty(|image, store| image.call_reopen(store, &transfer))
    }

    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_write_block(store, offset, data))
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        let extents = self.call(|image, store| image.call_extents(store))?;
        Ok(extents.into_iter().map(convert::extent).collect())
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_examine(store))
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_install(store))
    }

    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_activate(store, sha256))
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_reset(store))
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_self_test(store))
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_commit(store))
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_reject(store))
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_state(store))
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_abort(store))
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        self.duty(|image, store| image.call_step(store, budget_bytes))
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        let blob = self.call(|image, store| image.call_suspend(store))?;
        Ok(convert::blob(blob))
    }

    fn usage(&self) -> Usage {
        self.store.data().meter.usage()
    }
}

impl wit_types::Host for Inside {}

impl wit_block_device::Host for Inside {
    fn regions(&mut self) -> wasmtime::Result<Vec<wit_block_device::Region>> {
        let regions = self.lent()?.regions();
        Ok(regions.into_iter().map(convert::region).collect())
    }

    fn read_at(
        &mut self,
        region: u32,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit_types::Failure>> {
        let device = self.lent()?.storage();
        let end = self.storage(|| device?.read_at(region, offset, length));
        self.brings(end)
    }

    fn write_at(
        &mut self,
        _: u32,
        _: u64,
        _: Vec<u8>,
    ) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        Err(wasmtime::Error::msg("`write-at` is linked by itself"))
    }

    fn erase(
        &mut self,
        region: u32,
        offset: u64,
        length: u64,
    ) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        let device = self.lent()?.storage();
        Ok(self.storage(|| device?.erase(region, offset, length)))
    }

    fn sync(&mut self, region: u32) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        let device = self.lent()?.storage();
        Ok(self.storage(|| device?.sync(region)))
    }
}

/// `block-device.write-at`, in place of the generated one, which has the bytes copied before it is called: here they go from the
/// guest's memory to the storage. They count for those of a host call all the same.
fn write_at(
    mut store: StoreContextMut<'_, Inside>,
    (region, offset, data): (u32, u64, WasmList<u8>),
) -> wasmtime::Result<(Result<(), wit_types::Failure>,)> {
    let inside = store.data_mut();
    let device = inside.lent()?.storage();
    inside.meter.carry(data.len());
    let began = inside.meter.ticks();
    let bytes = data.as_le_slice(&store);
    let end = device.and_then(|device| device.write_at(region, offset, bytes));
    store.data_mut().meter.excuse_since(began);
    Ok((end.map_err(convert::failure_out),))
}

impl wit_staged_image::Host for Inside {
    fn held(&mut self) -> wasmtime::Result<u64> {
        Ok(self.lent()?.staged_image.as_ref().map_or(0, |s| s.held()))
    }

    fn verified(&mut self) -> wasmtime::Result<bool> {
        let staged = &self.lent()?.staged_image;
        Ok(staged.as_ref().is_some_and(|s| s.verified()))
    }

    fn read_at(
        &mut self,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit_types::Failure>> {
        let staged = self.lent()?.staged();
        let end = self.storage(|| staged?.read_at(offset, length));
        self.brings(end)
    }
}

impl Inside {
    /// The line that the target is lent.
    fn line<R>(
        &mut self,
        call: impl FnOnce(&dyn SerialLine) -> Result<R, Failure>,
    ) -> wasmtime::Result<Result<R, wit_types::Failure>> {
        let line = self.lent()?.line();
        Ok(line
            .and_then(|line| call(&*line))
            .map_err(convert::failure_out))
    }
}

impl wit_serial_line::Host for Inside {
    fn open(
        &mut self,
        parameters: wit_serial_line::Parameters,
    ) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        let wake = Arc::clone(&self.lent()?.wake);
        // Opening a device is the kernel's time, not the guest's.
        let began = self.meter.ticks();
        let end = self.line(|line| line.open(&convert::parameters(parameters), wake));
        self.meter.excuse_since(began);
        end
    }

    fn write(&mut self, data: Vec<u8>) -> wasmtime::Result<Result<u32, wit_types::Failure>> {
        self.meter.carry(data.len());
        self.line(|line| line.write(&data))
    }

    fn read(&mut self, max: u32) -> wasmtime::Result<Result<Vec<u8>, wit_types::Failure>> {
        let end = self.lent()?.read_line(max).map_err(convert::failure_out);
        self.brings(end)
    }

    fn unsent(&mut self) -> wasmtime::Result<Result<u32, wit_types::Failure>> {
        self.line(|line| line.unsent())
    }

    fn drain(&mut self) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        self.line(|line| line.drain())
    }

    fn set_line(
        &mut self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        self.line(|line| line.set_line(dtr, rts, break_condition))
    }

    fn close(&mut self) -> wasmtime::Result<()> {
        let line = self.lent()?.serial_line.clone();
        if let Some(line) = line {
            line.close();
        }
        Ok(())
    }
}

impl wit_hardware_reset::Host for Inside {
    fn pulse(&mut self, hold_ms: u32) -> wasmtime::Result<Result<(), wit_types::Failure>> {
        Ok(self.lent()?.pulse(hold_ms).map_err(convert::failure_out))
    }
}

impl wit_clock::Host for Inside {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(self.lent()?.clock.now_ms())
    }
}

impl wit_log::Host for Inside {
    fn log(&mut self, level: wit_log::Level, text: String) -> wasmtime::Result<()> {
        self.meter.carry(text.len());
        let level = convert::level(level);
        self.meter.hear(level, &text);
        self.lent()?.log.log(level, &text);
        Ok(())
    }
}
