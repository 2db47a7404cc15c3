//! The devices of one configuration, and the tasks that belong to them, from their start to their end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::backend::{Builds, Devices, FailedDevice};
use super::notify::Notifier;
use super::threads::Threads;
use super::{STOP_MAX, dropped, pages, story, watchdog};
use crate::exit::{Exit, Failed};
use crate::gateway::{ConnectedDevice, Gateway};
use crate::hooks;

/// How long devices may take to end: a connection needs up to 5 s of what is left.
const DEVICES_STOP_MAX: Duration = STOP_MAX.saturating_sub(Duration::from_secs(5));

/// Running devices.
pub(super) struct Session {
    pub(super) gateway: Gateway,
    pub(super) running: Vec<ConnectedDevice>,
    failed: Vec<FailedDevice>,
    tasks: JoinSet<()>,
}

impl Session {
    /// Set up the devices and what goes with them.
    ///
    /// # Errors
    /// None of the devices can be set up: those of the first.
    pub(super) fn start(
        gateway: Gateway,
        notifier: &Arc<Notifier>,
        threads: &Threads,
    ) -> Result<Self, Failed> {
        let (running, failed) = connect(&gateway, threads)?;
        let mut tasks = JoinSet::new();
        for device in &running {
            tasks.spawn(story::tell(device.handle.clone()));
        }
        let places = Arc::new(Semaphore::new(hooks::HOOKS_MAX));
        for device in &running {
            let configured = gateway.config().device(Some(device.handle.name()));
            let plan = configured.and_then(|c| hooks::Plan::new(gateway.config(), c, &places));
            if let Some(plan) = plan {
                let (handle, former) = (device.handle.clone(), device.former_events);
                tasks.spawn(hooks::serve(handle, plan, former));
            }
        }
        if let Some(dir) = &gateway.config().daemon.plugin_dir {
            let handles = running.iter().map(|d| d.handle.clone()).collect();
            let shared = gateway.config().daemon.plugin_dir_shared;
            let dir = dir.value.clone();
            tasks.spawn(dropped::serve(dir, shared, handles, gateway.plugins()));
        }
        let handles = running.iter().map(|d| d.handle.clone()).collect();
        tasks.spawn(watchdog::tell(
            Arc::clone(notifier),
            handles,
            gateway.clock(),
        ));
        pages::give_back();
        Ok(Self {
            gateway,
            running,
            failed,
            tasks,
        })
    }

    /// The devices, for the control socket.
    pub(super) fn devices(&self) -> Devices {
        Devices {
            running: self.running.clone(),
            failed: self.failed.clone(),
            is_between: false,
            builds: Some(Builds {
                agents: self.gateway.agents(),
                plugins: self.gateway.plugins(),
            }),
        }
    }

    /// End them in order, within [`STOP_MAX`](super::STOP_MAX): first the devices, so that nothing new is sent, then the
    /// connections.
    pub(super) async fn end(mut self) {
        match tokio::time::timeout(DEVICES_STOP_MAX, stop(self.running)).await {
            Ok(()) => self.gateway.ended(),
            Err(_) => {
                let seconds = DEVICES_STOP_MAX.as_secs();
                tracing::warn!("not every device ended within {seconds} s");
            }
        }
        self.gateway.disconnect().await;
        self.tasks.shutdown().await;
    }
}

/// Set up every device. One that cannot be (a journal that cannot be read, storage that is gone) is logged and shown in the
/// status; the others go on.
///
/// # Errors
/// None can be: those of the first.
fn connect(
    gateway: &Gateway,
    threads: &Threads,
) -> Result<(Vec<ConnectedDevice>, Vec<FailedDevice>), Failed> {
    let mut running = Vec::new();
    let mut failed = Vec::new();
    let mut first = None;
    for (index, device) in gateway.config().devices.iter().enumerate() {
        let name = &device.name.value;
        let mqtt = &device.mqtt;
        match &mqtt.connection_of {
            Some(owner) => tracing::info!("{name}: by the connection of {}", owner.value),
            None => tracing::info!(
                "{name}: creating MQTT client `{}` ({} bytes) for {}:{}",
                mqtt.client_id.value,
                mqtt.client_id.value.len(),
                mqtt.endpoint.value,
                mqtt.port
            ),
        }
        let connected = threads.place(index).and_then(|there| {
            let _there = there.enter();
            gateway.connect(name).map_err(Failed::from)
        });
        match connected {
            Ok(device) => running.push(device),
            Err(error) => {
                tracing::error!(
                    "{name}: does not run until this is mended and otad started again: {}",
                    error.text
                );
                failed.push(FailedDevice {
                    name: name.clone(),
                    exit: Exit::Failed,
                    why: error.text.clone().into(),
                });
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if running.is_empty() => Err(error),
        Some(_) | None => Ok((running, failed)),
    }
}

async fn stop(devices: Vec<ConnectedDevice>) {
    let mut ends = JoinSet::new();
    for device in devices {
        ends.spawn(async move { device.handle.stop().await });
    }
    while ends.join_next().await.is_some() {}
}
