//! The component carrier: the world `ota:pal/plugin` round a [`Plugin`]. Only on wasm32; the generated types end here.
//!
//! An instance is single-threaded and its functions are called one at a time, so the plugin lives in a cell of the
//! crate that exports it ([`Instance`], written by [`export_plugin!`](crate::export_plugin)).

#[expect(
    missing_docs,
    reason = "generated from wit/pal, which holds the documentation"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/pal",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "pal_sdk::component::bindings",
        runtime_path: "wit_bindgen::rt",
    });
}

mod convert;

use core::marker::PhantomData;
use std::string::ToString;

use bindings::exports::ota::pal::{describe, image};
use bindings::ota::pal::{
    block_device, clock, hardware_reset, log, serial_line, staged_image, types,
};

use crate::lent::{
    BlockDevice, Clock, HardwareReset, Level, LineParameters, Log, Region, SerialLine, StagedImage,
};
use crate::{Failure, Plugin};

/// What the host lends to a component. Each function that is called becomes an import, no other does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lent;

/// Where the one plugin of this component lives.
pub trait Instance: Plugin<Lent = Lent> {
    /// Call `f` with it; `None` before `open`.
    fn with<R>(f: impl FnOnce(&mut Option<Self>) -> R) -> R;
}

/// The exports of the world, for any plugin.
#[derive(Debug)]
pub struct Component<P>(PhantomData<P>);

impl<P: Instance> Component<P> {
    fn call<T>(duty: impl FnOnce(&mut P) -> Result<T, Failure>) -> Result<T, types::Failure> {
        P::with(|plugin| match plugin {
            Some(plugin) => duty(plugin),
            None => Err(Failure::bad_argument("not open yet")),
        })
        .map_err(Into::into)
    }

    fn duty(
        duty: impl FnOnce(&mut P) -> Result<crate::Duty, Failure>,
    ) -> Result<types::Duty, types::Failure> {
        Self::call(duty).map(Into::into)
    }
}

impl<P: Instance> describe::Guest for Component<P> {
    fn describe() -> describe::Description {
        P::describe().into()
    }
}

impl<P: Instance> image::Guest for Component<P> {
    fn open(
        settings: Vec<types::Setting>,
        saved: Option<types::Blob>,
    ) -> Result<(), types::Failure> {
        log_panics();
        P::with(|place| {
            if place.is_some() {
                return Err(Failure::bad_argument("open already"));
            }
            let settings = settings.into_iter().map(Into::into).collect();
            *place = Some(P::open(Lent, settings, saved.map(Into::into))?);
            Ok(())
        })
        .map_err(Into::into)
    }

    fn create(transfer: image::Transfer) -> Result<types::Duty, types::Failure> {
        Self::duty(|plugin| plugin.create(transfer.into()))
    }

    fn reopen(transfer: image::Transfer) -> Result<types::Duty, types::Failure> {
        Self::duty(|plugin| plugin.reopen(transfer.into()))
    }

    fn write_block(offset: u64, data: Vec<u8>) -> Result<types::Duty, types::Failure> {
        Self::duty(|plugin| plugin.write_block(offset, data))
    }

    fn extents() -> Result<Vec<image::Extent>, types::Failure> {
        Self::call(P::extents).map(|extents| extents.into_iter().map(Into::into).collect())
    }

    fn examine() -> Result<types::Duty, types::Failure> {
        Self::duty(P::examine)
    }

    fn install() -> Result<types::Duty, types::Failure> {
        Self::duty(P::install)
    }

    fn activate(sha256: Vec<u8>) -> Result<types::Duty, types::Failure> {
        Self::duty(|plugin| match <[u8; 32]>::try_from(sha256) {
            Ok(sha256) => plugin.activate(sha256),
            Err(_) => Err(Failure::bad_argument("a digest has 32 bytes")),
        })
    }

    fn reset() -> Result<types::Duty, types::Failure> {
        Self::duty(P::reset)
    }

    fn self_test() -> Result<types::Duty, types::Failure> {
        Self::duty(P::self_test)
    }

    fn commit() -> Result<types::Duty, types::Failure> {
        Self::duty(P::commit)
    }

    fn reject() -> Result<types::Duty, types::Failure> {
        Self::duty(P::reject)
    }

    fn state() -> Result<types::Duty, types::Failure> {
        Self::duty(P::state)
    }

    fn abort() -> Result<types::Duty, types::Failure> {
        Self::duty(P::abort)
    }

    fn step(budget_bytes: u32) -> Result<types::Duty, types::Failure> {
        Self::duty(|plugin| plugin.step(budget_bytes))
    }

    fn suspend() -> Result<types::Blob, types::Failure> {
        Self::call(P::suspend).map(Into::into)
    }
}

/// A panic traps without a word; say it through the host's log first.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        Lent.log(Level::Error, &info.to_string());
    }));
}

impl BlockDevice for Lent {
    fn regions(&self) -> Vec<Region> {
        block_device::regions()
            .into_iter()
            .map(Into::into)
            .collect()
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        block_device::read_at(region, offset, length).map_err(Into::into)
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        block_device::write_at(region, offset, data).map_err(Into::into)
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        block_device::erase(region, offset, length).map_err(Into::into)
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        block_device::sync(region).map_err(Into::into)
    }
}

impl StagedImage for Lent {
    fn held(&self) -> u64 {
        staged_image::held()
    }

    fn verified(&self) -> bool {
        staged_image::verified()
    }

    fn read_staged(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        staged_image::read_at(offset, length).map_err(Into::into)
    }
}

impl SerialLine for Lent {
    fn open_line(&self, parameters: LineParameters) -> Result<(), Failure> {
        serial_line::open(parameters.into()).map_err(Into::into)
    }

    fn write_line(&self, data: &[u8]) -> Result<u32, Failure> {
        serial_line::write(data).map_err(Into::into)
    }

    fn read_line(&self, max: u32) -> Result<Vec<u8>, Failure> {
        serial_line::read(max).map_err(Into::into)
    }

    fn unsent(&self) -> Result<u32, Failure> {
        serial_line::unsent().map_err(Into::into)
    }

    fn drain(&self) -> Result<(), Failure> {
        serial_line::drain().map_err(Into::into)
    }

    fn set_line(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> Result<(), Failure> {
        serial_line::set_line(dtr, rts, break_condition).map_err(Into::into)
    }

    fn close_line(&self) {
        serial_line::close();
    }
}

impl HardwareReset for Lent {
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure> {
        hardware_reset::pulse(hold_ms).map_err(Into::into)
    }
}

impl Clock for Lent {
    fn now_ms(&self) -> u64 {
        clock::now_ms()
    }
}

impl Log for Lent {
    fn log(&self, level: Level, text: &str) {
        log::log(level.into(), text);
    }
}
