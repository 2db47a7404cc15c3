//! The target whose images are builds of otad's own guests: a job brings a bundle (`code/bundle.rs`), and what is in it takes
//! the place of the device's agent, or of another target's plugin, as by `otad agent swap` and `otad plugin swap`.
//!
//! ```text
//! install   the gate looks at it, it is loaded, it fits, its bytes are kept   refused: the job fails, nothing was touched
//! activate  swap: tried, written down, handed over                            a new agent carries the job on from here
//! reset     nothing: whoever took over runs
//! self-test it serves still; a plugin is opened and asks its target           sent back: the job fails with the reason
//! commit    its trial is over
//! reject    the build before serves again
//! ```
//!
//! It remembers nothing: which build serves, and whether it is on trial, is asked of the device, and which one is meant is
//! read from the staged file. So a start after a kill at any instant goes on from what is true. To the host it is a staged
//! plugin like any other: the file is verified before it sees it. Not here: the swap (`host-runtime`), who may be let in
//! (`code/gate.rs`).

use std::sync::Arc;
use std::time::Duration;

use host_runtime::agent::{AgentBuild, TRIAL_MS, clean};
use host_runtime::plugin::lend::{Lent, TRANSFER_MAX_BYTES};
use host_runtime::plugin::{
    Answer, Description, Duty, ExaminedImage, Extent, Plugin, PluginError, PluginFactory, Transfer,
    WakeOn, capability,
};
use host_runtime::supervisor::{DeviceHandle, OwnDevice};
use host_runtime::types::{Blob, Failure, Setting, TargetState, code};
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::sleep;

use super::{Agents, Hold, LABEL_MAX_BYTES, Plugins, to_its_end};
use crate::code::{BUNDLE_MAX_BYTES, END_BYTES, Entry, Manifest, Parts, Source, hash};
use crate::config::{BUILD, Target};
use crate::exit::{Exit, Failed};
use crate::image::parse_version;

/// How often the end of what a duty waits for is looked for, in milliseconds.
const LOOK_EVERY_MS: u32 = 10;

/// How long a swap waits while another one is under way: that one ends, or is refused, long before.
const BUSY_MAX: Duration = Duration::from_secs(30);

/// How long a device may take to have started: its targets are asked while it does.
const START_MAX: Duration = Duration::from_secs(10);

/// An agent that has run for so long without a break has proved itself, should the job not have ended by then.
const TRIAL: Duration = Duration::from_millis(TRIAL_MS);

/// Pause between two tries of either.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Codes of `target-state` (`wit/pal/types.wit`).
const PENDING: u8 = 1;
const VALID: u8 = 2;

/// Makes the plugin of one such target.
pub(super) struct BuildTarget {
    description: Description,
    place: Arc<Place>,
}

/// Where builds go.
struct Place {
    device: OwnDevice,
    guest: Guest,
    /// Whether an older one may come.
    entry: Entry,
}

/// Whose builds come.
pub(super) enum Guest {
    /// The device's.
    Agent(Arc<Agents>),
    /// Of the target of this name.
    Plugin(Arc<Plugins>, String),
}

/// A build that was let in.
#[derive(Clone)]
struct Build {
    code: Code,
    /// Its bytes are kept until its swap has ended.
    kept: Hold,
}

#[derive(Clone)]
enum Code {
    Agent(Arc<AgentBuild>),
    Plugin(Arc<dyn PluginFactory>),
}

/// Which build it is. The same bytes under another manifest are another one: that grants, and limits, something else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    /// Of its bytes, hexadecimal.
    sha256: String,
    /// SHA-256 of the manifest that vouches for it, hexadecimal.
    manifest: Option<String>,
}

/// The build that serves there now.
struct Serving {
    names: Names,
    version: String,
    on_trial: bool,
    /// Another one is about to take its place.
    swapping: bool,
    /// The build that was refused or sent back last, and why.
    refused: Option<String>,
}

impl BuildTarget {
    /// For a target of a device; `guest` is what it brings builds of.
    pub(super) fn new(target: &Target, device: OwnDevice, guest: Guest) -> Arc<Self> {
        let older = |s: &Setting| s.key == "allow_downgrade" && s.value == "true";
        let entry = match target.agent_settings.iter().any(older) {
            true => Entry::Older,
            false => Entry::New,
        };
        Arc::new(Self {
            description: Description {
                name: BUILD.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                kinds: vec![BUILD.to_owned()],
                capabilities: capability::STAGED
                    | capability::REVERT
                    | capability::SELF_TEST
                    | capability::RUNNING_VERSION,
                largest_write: 0,
                schemas: vec![0],
            },
            place: Arc::new(Place {
                device,
                guest,
                entry,
            }),
        })
    }
}

impl PluginFactory for BuildTarget {
    fn label(&self) -> &'static str {
        "builtin:build"
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        &[]
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        Ok(Box::new(Instance {
            place: Arc::clone(&self.place),
            lent,
            transfer: None,
            loaded: None,
            work: None,
        }))
    }
}

impl Place {
    async fn device(&self) -> Result<DeviceHandle, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            match self.device.handle() {
                Some(handle) => return Ok(handle),
                None if waited >= START_MAX => {
                    return Err(Failure::new(code::UNREACHABLE, 0, "the device has ended"));
                }
                None => {}
            }
            sleep(TRY_EVERY).await;
            waited += TRY_EVERY;
        }
    }

    async fn serving(&self) -> Result<Serving, Failure> {
        let status = self.device().await?.status().await;
        match &self.guest {
            Guest::Agent(_) => Ok(Serving {
                names: Names {
                    sha256: status.agent.digest,
                    manifest: status.agent.manifest,
                },
                version: status.agent.version,
                on_trial: status.agent.on_trial,
                swapping: status.agent.swapping,
                refused: status.agent.refused,
            }),
            Guest::Plugin(_, name) => {
                let mut targets = status.targets.into_iter();
                let target = targets.find(|target| target.name == *name);
                let build = target.map(|target| target.build).ok_or_else(|| {
                    let text = format!("target `{name}` does not run");
                    Failure::new(code::UNREACHABLE, 0, text)
                })?;
                Ok(Serving {
                    names: Names {
                        sha256: build.sha256,
                        manifest: build.manifest,
                    },
                    version: build.version,
                    on_trial: build.on_trial,
                    swapping: build.swapping,
                    refused: build.refused,
                })
            }
        }
    }

    /// The build that serves there once no swap is under way: that of a duty that was given up goes on.
    async fn settled(&self) -> Result<Serving, Failure> {
        settled(|| self.serving()).await
    }

    async fn load(&self, source: Source) -> Result<Build, Failure> {
        let device = self.device().await?;
        let taken = match &self.guest {
            Guest::Agent(agents) => {
                let kept = agents.hold().await;
                let (runtime, asked) = (Handle::current(), device.clone());
                let fits = move |agent: &Arc<AgentBuild>| runtime.block_on(fits(&asked, agent));
                let taken = Arc::clone(agents).take_in(source, &kept, fits);
                taken
                    .await
                    .and_then(|loaded| agents.put_in(&loaded, device.name(), self.entry))
                    .map(|agent| (Code::Agent(agent), kept))
            }
            Guest::Plugin(plugins, name) => {
                let kept = plugins.hold().await;
                let taken = Arc::clone(plugins)
                    .take_in(device.name(), name, source, self.entry, &kept)
                    .await;
                taken.map(|plugin| (Code::Plugin(plugin), kept))
            }
        };
        let build = taken.map(|(code, kept)| Build { code, kept });
        build.map_err(|Failed { exit, text }| match exit {
            Exit::Refused => Failure::new(code::EXTRA_CHECK, 0, text),
            _ => Failure::new(code::STORAGE, 0, text),
        })
    }

    /// Let a build serve, or, without one, the build before.
    async fn swap(&self, build: Option<Build>) -> Result<(), Failure> {
        let device = self.device().await?;
        let mut waited = Duration::ZERO;
        let target = match &self.guest {
            Guest::Agent(_) => None,
            Guest::Plugin(_, name) => Some(name),
        };
        loop {
            let (agent, plugin) = match build.as_ref().map(|build| build.code.clone()) {
                Some(Code::Agent(agent)) => (Some(agent), None),
                Some(Code::Plugin(plugin)) => (None, Some(plugin)),
                None => (None, None),
            };
            let (device, target) = (device.clone(), target.cloned());
            let swap = async move {
                match target {
                    None => device.swap_agent(agent, TRIAL).await,
                    Some(name) => device.swap_plugin(&name, plugin).await,
                }
            };
            let kept = build.as_ref().map(|build| build.kept.clone());
            match to_its_end(swap, kept).await {
                Err(failure) if failure.main == code::BUSY && waited < BUSY_MAX => {}
                end => return end,
            }
            sleep(TRY_EVERY).await;
            waited += TRY_EVERY;
        }
    }

    /// Whether the build of a job serves; `label` is the job's.
    async fn check(&self, wanted: &Names, label: &str) -> Result<(), Failure> {
        let serving = self.serving().await?;
        if serving.names == *wanted {
            return Ok(());
        }
        let why = serving.refused.filter(|why| is_about(why, label));
        let why = why.unwrap_or_else(|| "by hand".to_owned());
        let text = format!("the build before serves again: {why}");
        Err(Failure::new(code::PLUGIN_FAILED, 0, text))
    }

    async fn state(&self, wanted: Option<Names>) -> Result<TargetState, Failure> {
        let serving = self.settled().await?;
        let runs_new = wanted.map(|wanted| serving.names == wanted);
        let in_test = runs_new == Some(true) && serving.on_trial;
        Ok(TargetState {
            code: if in_test { PENDING } else { VALID },
            running: parse_version(&serving.version).ok(),
            runs_new,
        })
    }

    async fn install(&self, source: Source, wanted: &Names) -> Result<Build, Failure> {
        if self.serving().await?.names == *wanted {
            let text = "this build serves already";
            return Err(Failure::new(code::EXTRA_CHECK, 0, text));
        }
        self.load(source).await
    }

    async fn activate(&self, from: Loadable, wanted: &Names) -> Result<(), Failure> {
        if self.serving().await?.names == *wanted {
            // Before a restart, by this job.
            return Ok(());
        }
        let build = match from {
            Loadable::Loaded(build) => build,
            Loadable::Bytes(source) => self.load(source).await?,
        };
        self.swap(Some(build)).await
    }

    async fn self_test(&self, wanted: &Names, label: &str) -> Result<(), Failure> {
        self.check(wanted, label).await?;
        // An agent has done something by asking for this test.
        if let Guest::Plugin(_, name) = &self.guest {
            self.device().await?.ask_target(name).await?;
        }
        self.check(wanted, label).await
    }

    async fn commit(&self, wanted: &Names, label: &str) -> Result<(), Failure> {
        self.check(wanted, label).await?;
        let device = self.device().await?;
        match &self.guest {
            Guest::Agent(_) => device.end_trial(None).await?,
            Guest::Plugin(_, name) => device.end_trial(Some(name)).await?,
        }
        // One that broke in between was sent back, and its trial with it.
        self.check(wanted, label).await
    }

    async fn reject(&self, wanted: &Names) -> Result<(), Failure> {
        let serving = self.settled().await?;
        if serving.swapping {
            // Which one will serve cannot be said, and going back twice would be going there again.
            let text = "a swap is under way, and does not end";
            return Err(Failure::new(code::BUSY, 0, text));
        }
        match serving.names == *wanted {
            true => self.swap(None).await,
            false => Ok(()),
        }
    }
}

/// Whether a build may take over on a device: it reads what the one before has left, and the way back is open.
async fn fits(device: &DeviceHandle, agent: &Arc<AgentBuild>) -> Result<(), Failed> {
    match device.fits_agent(Arc::clone(agent)).await {
        // That is over by the time that it is activated, and asked again then.
        Err(failure) if failure.main == code::BUSY => Ok(()),
        Err(failure) => {
            // Anything else is about the device as it is just now, and not about the build.
            let exit = match failure.main {
                code::SCHEMA => Exit::Refused,
                _ => Exit::Retry,
            };
            Err(Failed::new(exit, failure.to_string()))
        }
        Ok(()) => Ok(()),
    }
}

/// Whether a report of a build that was refused or sent back speaks of the one with this label: it begins with that.
fn is_about(refused: &str, label: &str) -> bool {
    let rest = refused.strip_prefix(label);
    rest.is_some_and(|rest| rest.starts_with(": "))
}

/// Look until no swap is under way, or one takes longer than any does.
async fn settled<F>(mut look: impl FnMut() -> F) -> Result<Serving, Failure>
where
    F: Future<Output = Result<Serving, Failure>>,
{
    let mut waited = Duration::ZERO;
    loop {
        let serving = look().await?;
        if !serving.swapping || waited >= BUSY_MAX {
            return Ok(serving);
        }
        sleep(TRY_EVERY).await;
        waited += TRY_EVERY;
    }
}

/// What a build is made of.
enum Loadable {
    Loaded(Build),
    Bytes(Source),
}

/// One life of it.
struct Instance {
    place: Arc<Place>,
    lent: Lent,
    transfer: Option<Transfer>,
    /// What `install` has let in, for `activate`.
    loaded: Option<Build>,
    work: Option<Work>,
}

/// What a duty is about.
enum Work {
    /// The file comes into memory, for one of two duties.
    Reading(Vec<u8>, Verb),
    /// The device is asked.
    Asking(oneshot::Receiver<Result<End, Failure>>),
}

#[derive(Clone, Copy)]
enum Verb {
    Install,
    Activate,
}

/// How a duty ends.
enum End {
    Answer(Answer),
    Loaded(Build),
}

/// The end of a duty that says nothing.
fn nothing((): ()) -> End {
    End::Answer(Answer::Nothing)
}

impl Instance {
    /// Let somebody do it who may wait.
    fn ask<F>(&mut self, work: impl FnOnce(Arc<Place>) -> F) -> Duty
    where
        F: Future<Output = Result<End, Failure>> + Send + 'static,
    {
        self.work = Some(Work::Asking(begin(work(Arc::clone(&self.place)))));
        waiting()
    }

    fn transfer(&self) -> Result<&Transfer, Failure> {
        let none = || Failure::new(code::NOT_FOUND, 0, "there is no transfer");
        self.transfer.as_ref().ok_or_else(none)
    }

    /// What a build of this job is called.
    fn label(&self) -> Result<String, Failure> {
        let label = format!("job {}", self.transfer()?.job_id);
        Ok(clean(&label, LABEL_MAX_BYTES))
    }

    /// The manifest of the staged bundle. It is the job's file that was verified; who has signed the manifest is looked at
    /// when it is loaded.
    fn manifest(&self) -> Result<Manifest, Failure> {
        Ok(self.vouched()?.0)
    }

    /// Which build the job brings.
    fn wanted(&self) -> Result<Names, Failure> {
        let (manifest, text) = self.vouched()?;
        Ok(Names {
            sha256: manifest.sha256,
            manifest: Some(hash(text.as_bytes())),
        })
    }

    /// The manifest and its text.
    fn vouched(&self) -> Result<(Manifest, String), Failure> {
        let (size, staged) = (self.transfer()?.size, self.lent.staged()?);
        let bad = |why: String| Failure::new(code::EXTRA_CHECK, 0, clean(&why, 256));
        let at = size.saturating_sub(END_BYTES as u64);
        let end = staged.read_at(at, u32::try_from(size - at).unwrap_or(u32::MAX))?;
        let parts = Parts::of(&end, size).map_err(|e| bad(e.to_string()))?;
        let parts = parts.ok_or_else(|| bad(crate::code::CodeError::NoBundle.to_string()))?;
        let length = parts.manifest.end - parts.manifest.start;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let text = staged.read_at(parts.manifest.start, length)?;
        let text = String::from_utf8(text).map_err(|e| bad(e.to_string()))?;
        Ok((Manifest::parse(&text).map_err(bad)?, text))
    }

    fn read(&mut self, verb: Verb) -> Duty {
        self.work = Some(Work::Reading(Vec::new(), verb));
        Duty::Working {
            done: 0,
            total: 0,
            wake: WakeOn::default(),
        }
    }

    /// Read on; with all of it, go on with the duty.
    fn read_on(&mut self, mut bytes: Vec<u8>, verb: Verb, budget: u32) -> Result<Duty, Failure> {
        let size = self.transfer()?.size;
        let (done, budget) = (bytes.len() as u64, budget.min(TRANSFER_MAX_BYTES));
        let length = u32::try_from(size - done).unwrap_or(budget).min(budget);
        bytes.extend(self.lent.staged()?.read_at(done, length)?);
        let done = bytes.len() as u64;
        if done < size {
            self.work = Some(Work::Reading(bytes, verb));
            let wake = WakeOn::default();
            return Ok(Duty::Working {
                done,
                total: size,
                wake,
            });
        }
        let (label, wanted) = (self.label()?, self.wanted()?);
        let source = Source::Bundle { label, bytes };
        Ok(match verb {
            Verb::Install => self.ask(|place| async move {
                let build = place.install(source, &wanted).await;
                build.map(End::Loaded)
            }),
            Verb::Activate => {
                let from = Loadable::Bytes(source);
                self.ask(|place| async move { place.activate(from, &wanted).await.map(nothing) })
            }
        })
    }
}

/// Let work go on by itself, as long as somebody waits for its end: a swap that has not begun when its job is given up must not
/// come after that. What has begun goes on, and what is true then, `state` tells.
fn begin<F>(work: F) -> oneshot::Receiver<Result<End, Failure>>
where
    F: Future<Output = Result<End, Failure>> + Send + 'static,
{
    let (mut told, end) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            said = work => drop(told.send(said)),
            () = told.closed() => {}
        }
    });
    end
}

fn waiting() -> Duty {
    Duty::Working {
        done: 0,
        total: 0,
        wake: WakeOn {
            after_ms: Some(LOOK_EVERY_MS),
            ..WakeOn::default()
        },
    }
}

const NOTHING: Result<Duty, PluginError> = Ok(Duty::Finished(Answer::Nothing));

impl Plugin for Instance {
    fn open(&mut self, _: &[Setting], _: Option<&Blob>) -> Result<(), PluginError> {
        Ok(())
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        if transfer.size > BUNDLE_MAX_BYTES {
            let text = format!("{} bytes, at most {BUNDLE_MAX_BYTES}", transfer.size);
            return Err(PluginError::Failed(Failure::new(code::TOO_LARGE, 0, text)));
        }
        self.reopen(transfer)
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        (self.transfer, self.loaded, self.work) = (Some(transfer.clone()), None, None);
        NOTHING
    }

    fn write_block(&mut self, _: u64, _: &[u8]) -> Result<Duty, PluginError> {
        Err(staged())
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        Err(staged())
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        let manifest = self.manifest()?;
        Ok(Duty::Finished(Answer::Info(ExaminedImage {
            version: Some(manifest.version),
            product: Some(manifest.name),
        })))
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        Ok(self.read(Verb::Install))
    }

    fn activate(&mut self, _: &[u8; 32]) -> Result<Duty, PluginError> {
        let Some(build) = self.loaded.take() else {
            return Ok(self.read(Verb::Activate));
        };
        let (from, wanted) = (Loadable::Loaded(build), self.wanted()?);
        Ok(self.ask(|place| async move { place.activate(from, &wanted).await.map(nothing) }))
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        let (label, wanted) = (self.label()?, self.wanted()?);
        Ok(self.ask(|place| async move { place.self_test(&wanted, &label).await.map(nothing) }))
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        let (label, wanted) = (self.label()?, self.wanted()?);
        Ok(self.ask(|place| async move { place.commit(&wanted, &label).await.map(nothing) }))
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        let wanted = self.wanted()?;
        Ok(self.ask(|place| async move { place.reject(&wanted).await.map(nothing) }))
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        // A file that is not whole yet, or is no bundle, is not what serves.
        let wanted = self.wanted().ok();
        Ok(self.ask(|place| async move {
            let state = place.state(wanted).await?;
            Ok(End::Answer(Answer::State(state)))
        }))
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        (self.transfer, self.loaded, self.work) = (None, None, None);
        NOTHING
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        match self.work.take() {
            Some(Work::Reading(bytes, verb)) => Ok(self.read_on(bytes, verb, budget_bytes)?),
            Some(Work::Asking(mut end)) => match end.try_recv() {
                Ok(Ok(End::Answer(answer))) => Ok(Duty::Finished(answer)),
                Ok(Ok(End::Loaded(build))) => {
                    self.loaded = Some(build);
                    NOTHING
                }
                Ok(Err(failure)) => Err(PluginError::Failed(failure)),
                Err(TryRecvError::Empty) => {
                    self.work = Some(Work::Asking(end));
                    Ok(waiting())
                }
                Err(TryRecvError::Closed) => {
                    Err(PluginError::Broken("what was asked for died".to_owned()))
                }
            },
            None => {
                let text = "no duty is under way";
                Err(PluginError::Failed(Failure::new(
                    code::BAD_ARGUMENT,
                    0,
                    text,
                )))
            }
        }
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        Ok(Blob {
            schema: 0,
            bytes: Vec::new(),
        })
    }
}

fn staged() -> PluginError {
    let text = "this target takes its file whole";
    PluginError::Failed(Failure::new(code::UNSUPPORTED, 0, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for anybody's machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_given_up() {
        let (begun, begins) = oneshot::channel();
        let (held, gone) = oneshot::channel::<()>();
        let end = begin(async move {
            // Dropped with the work.
            let _held = held;
            begun.send(()).unwrap();
            std::future::pending::<Result<End, Failure>>().await
        });
        begins.await.unwrap();
        drop(end);
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        assert!(gone.expect("it goes on").is_err());
    }

    #[tokio::test]
    async fn what_serves_is_told_when_the_swap_of_a_duty_that_was_given_up_is_over() {
        let mut looks = 0;
        let serving = settled(|| {
            looks += 1;
            let swapping = looks < 3;
            let serving = Serving {
                names: Names {
                    sha256: if swapping { "old" } else { "new" }.to_owned(),
                    manifest: None,
                },
                version: "1.0.0".to_owned(),
                on_trial: !swapping,
                swapping,
                refused: None,
            };
            std::future::ready(Ok(serving))
        });
        let serving = serving.await.unwrap();
        assert_eq!(
            (&*serving.names.sha256, serving.swapping, looks),
            ("new", false, 3)
        );
    }

    #[test]
    fn a_build_that_was_refused_for_another_job_is_not_this_ones() {
        for (refused, is) in [
            ("job AFR_OTA-7: it trapped", true),
            ("job AFR_OTA-77: it trapped", false),
            ("/srv/next.wasm: it trapped", false),
            ("job AFR_OTA-7", false),
        ] {
            assert_eq!(is_about(refused, "job AFR_OTA-7"), is, "{refused}");
        }
    }

    #[tokio::test]
    async fn work_that_is_waited_for_tells_its_end() {
        let end = begin(async { Err::<End, _>(Failure::new(code::BUSY, 0, "later")) });
        let Err(failure) = end.await.unwrap() else {
            panic!("it has failed");
        };
        assert_eq!(failure.main, code::BUSY);
    }
}
