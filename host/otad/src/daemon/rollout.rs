//! Another agent build, for one device or for all: one first, and once it has proved itself there the rest, one by one. Any
//! return stops it.
//!
//! Nothing of it is remembered but what each device remembers: who asks stays on the line, and a roll-out whose asker goes, or
//! that ends with the daemon, is taken up by asking again: devices that the build serves already are passed over. Not here:
//! what a swap is (`host-runtime`).

use std::sync::Arc;
use std::time::Duration;

use host_crypto::hex;
use host_runtime::agent::{AgentBuild, TRIAL_MS};
use host_runtime::status::AgentReport;
use host_runtime::supervisor::DeviceHandle;
use host_runtime::types::{Failure, code};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::code::{Entry, Source};
use crate::control::protocol::{AgentOrder, Refusal};
use crate::exit::{Exit, Failed};
use crate::gateway::{Agents, Hold, to_its_end};

const TRIAL: Duration = Duration::from_millis(TRIAL_MS);

/// How long an order waits for the one before it: a trial that has just ended is still being written down.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// How often it is tried again meanwhile.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// A build on its way to devices.
pub(super) struct Rollout {
    build: Arc<AgentBuild>,
    trial: Duration,
    items: mpsc::Sender<Value>,
    /// Until it has come to all of them.
    kept: Option<Hold>,
}

/// A device, and the build with those who look on there.
pub(super) type Place = (DeviceHandle, Arc<AgentBuild>);

impl Rollout {
    /// Load a build from its file, for these devices.
    pub(super) async fn load(
        agents: Arc<Agents>,
        order: &AgentOrder,
        devices: Vec<DeviceHandle>,
        items: mpsc::Sender<Value>,
    ) -> Result<(Self, Vec<Place>), Refusal> {
        let told = |failed: Failed| {
            tracing::warn!("agent {}", failed.text);
            Refusal::new(failed.exit, failed.text)
        };
        let source = Source::named(&order.file);
        let kept = agents.hold().await;
        // Whether it fits, the swap of each device says.
        let taken = Arc::clone(&agents).take_in(source, &kept, |_| Ok(()));
        let taken = taken.await.map_err(told)?;
        let entry = Entry::put_in(order.allow_older);
        let place = |device: DeviceHandle| {
            let build = agents.put_in(&taken, device.name(), entry);
            build.map(|build| (device, build)).map_err(told)
        };
        let places: Result<_, _> = devices.into_iter().map(place).collect();
        let rollout = Self {
            build: Arc::clone(&taken.agent),
            trial: order.trial_s.map_or(TRIAL, Duration::from_secs),
            items,
            kept: Some(kept),
        };
        Ok((rollout, places?))
    }

    /// Let it serve one device.
    pub(super) async fn swap(&self, (device, build): &Place) -> Result<(), Refusal> {
        let build = Some(Arc::clone(build));
        let end = swap(device, build, self.trial, self.kept.as_ref()).await;
        end.map_err(|failure| refusal(device, &failure))?;
        self.tell(device.name(), "serves").await;
        Ok(())
    }

    /// Let it serve all devices: the first of them, and once it has proved itself there the rest.
    pub(super) async fn swap_all(&self, places: &[Place]) -> Result<(), Refusal> {
        let mut trials = JoinSet::new();
        for (number, place) in places.iter().enumerate() {
            let (device, build) = place;
            let returns = device.agent_trial().returns;
            if serves(&device.status().await.agent, build) {
                self.tell(device.name(), "served already").await;
            } else {
                self.swap(place).await?;
            }
            trials.spawn(over(device.clone(), returns));
            while let Some(end) = match number {
                0 => trials.join_next().await,
                _ => trials.try_join_next(),
            } {
                self.end_trial(end).await?;
            }
        }
        while let Some(end) = trials.join_next().await {
            self.end_trial(end).await?;
        }
        Ok(())
    }

    async fn end_trial(
        &self,
        end: Result<Result<String, Refusal>, JoinError>,
    ) -> Result<(), Refusal> {
        let broke = |e| Refusal::new(Exit::Failed, format!("waiting for a trial broke: {e}"));
        let name = end.map_err(broke)??;
        self.tell(&name, "has proved itself").await;
        Ok(())
    }

    async fn tell(&self, device: &str, what: &str) {
        let item = json!({ "device": device, "build": self.build.label(), "what": what });
        // Who listens no more has hung up, which ends all of this.
        drop(self.items.send(item).await);
    }
}

/// Whether it is this build that serves: the same bytes under another manifest are another one, with other grants.
fn serves(report: &AgentReport, build: &AgentBuild) -> bool {
    report.label == build.label()
        && report.digest == hex(build.digest())
        && report.manifest.as_deref() == build.manifest()
}

/// Wait until the build that serves a device has proved itself; the device's name. `returns` were there before it came.
async fn over(device: DeviceHandle, returns: u64) -> Result<String, Refusal> {
    let name = device.name();
    match device.trial_over().await {
        Some(trial) if trial.returns == returns => Ok(name.to_owned()),
        Some(trial) => {
            let why = trial.refused.as_deref().unwrap_or_default();
            let text = format!("{name}: sent back, and nothing more is swapped: {why}");
            Err(Refusal::new(Exit::Refused, text))
        }
        None => {
            let text = format!("{name}: it has ended, and nothing more is swapped; ask again");
            Err(Refusal::new(Exit::Retry, text))
        }
    }
}

/// Let this build, whose bytes are held, serve a device, or the one before (`None`).
async fn swap(
    device: &DeviceHandle,
    build: Option<Arc<AgentBuild>>,
    trial: Duration,
    kept: Option<&Hold>,
) -> Result<(), Failure> {
    let until = Instant::now() + BUSY_MAX;
    loop {
        let (device, build) = (device.clone(), build.clone());
        let swap = async move { device.swap_agent(build, trial).await };
        match to_its_end(swap, kept.cloned()).await {
            Err(failure) if failure.main == code::BUSY && Instant::now() < until => {
                tokio::time::sleep(BUSY_POLL).await;
            }
            end => return end,
        }
    }
}

/// Let the build before serve devices again, each that has one. One that cannot go back does not keep the others from it: who
/// asks for all again takes back what went well.
pub(super) async fn roll_back(
    devices: &[DeviceHandle],
    items: &mpsc::Sender<Value>,
) -> Result<(), Refusal> {
    let mut done = 0;
    let mut refused = Vec::new();
    for device in devices {
        match swap(device, None, TRIAL, None).await {
            Ok(()) => done += 1,
            Err(failure) if failure.main == code::NOT_FOUND && devices.len() > 1 => continue,
            Err(failure) => {
                refused.push(refusal(device, &failure));
                continue;
            }
        }
        let item = json!({ "device": device.name(), "what": "is served by the build before" });
        drop(items.send(item).await);
    }
    let texts: Vec<&str> = refused.iter().map(|refusal| &*refusal.text).collect();
    match (refused.first(), done) {
        (Some(first), _) => Err(Refusal {
            exit: first.exit.clone(),
            text: texts.join("; "),
        }),
        (None, 0) => Err(Refusal::new(
            Exit::Nothing,
            "no device has a build to go back to",
        )),
        (None, _) => Ok(()),
    }
}

fn refusal(device: &DeviceHandle, failure: &Failure) -> Refusal {
    Refusal::new(exit_of(failure), format!("{}: {failure}", device.name()))
}

/// How a command ends whose swap, of an agent or a plugin, is refused.
pub(super) fn exit_of(failure: &Failure) -> Exit {
    match failure.main {
        code::NOT_FOUND => Exit::Nothing,
        code::BUSY => Exit::Retry,
        _ => Exit::Refused,
    }
}

/// The devices of a roll-out, the one that is to come first in front.
pub(super) fn in_order(
    mut devices: Vec<DeviceHandle>,
    canary: Option<&str>,
) -> Result<Vec<DeviceHandle>, Refusal> {
    if let Some(canary) = canary {
        let Some(at) = devices.iter().position(|device| device.name() == canary) else {
            let text = format!("no device \"{canary}\" runs here");
            return Err(Refusal::new(Exit::Nothing, text));
        };
        devices[..=at].rotate_right(1);
    }
    Ok(devices)
}

#[cfg(test)]
mod tests;
