//! Builds that an operator has put in the place of configured ones: which of them serves at a place, and their bytes.
//!
//! The bytes are kept in the state directory by their digest, so that the choice (`host_runtime::choice`) holds without the
//! file that they came from. What no place names any more goes when a swap has ended, and at the next start; so does what a kill
//! has left half stored. Not here: whether a file may be loaded, and the swap itself (`host-runtime`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use host_crypto::hex;
use host_runtime::choice::{self, Build, Choice, Damaged, Kind, Place};
use host_runtime::ports::state_dir::StateDir;
use host_runtime::types::Failure;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::GatewayError;
use super::agents::BUILTIN_AGENT;
use crate::code::{self, Code, CodeError, Entry, Gate, Signed};
use crate::config::{BUILTIN, Config, Device};
use crate::exit::{Exit, Failed, chain};
use crate::lock::Lock;

/// The files of the choices for what the configuration has.
pub(super) fn places(config: &Config, kind: Kind) -> BTreeSet<String> {
    let of_device = |device: &Device| -> Vec<Place> {
        let name = &device.name.value;
        let targets = device.targets.iter();
        match kind {
            Kind::Agent => vec![Place::agent(name)],
            Kind::Plugin => targets
                .map(|t| Place::plugin(name, &t.name.value))
                .collect(),
        }
    };
    let places = config.devices.iter().flat_map(of_device);
    places.map(|place| place.choice_file()).collect()
}

/// Where the bytes of agents are kept in the state directory.
pub(super) const AGENTS: &str = "agents/";

/// The same of plugins.
pub(super) const PLUGINS: &str = "plugins/";

/// Of a manifest's digest what stands in the name of what is kept: 64 bits of it, for names that people read.
const MANIFEST_DIGITS: usize = 16;

/// What serves at a place.
pub(super) struct Serving<B> {
    pub(super) build: B,
    /// The build before it.
    pub(super) former: Option<B>,
    /// The one that serves has not proved itself yet.
    pub(super) on_trial: bool,
}

/// The build that serves at a place: the one that was chosen, as long as the configuration names the one, `label`, that it
/// was chosen in place of. While that is not let in, or cannot be loaded, it stays chosen, and what `stand_in` makes of that,
/// of the build before it, and of the reason is in its place. One that was still on trial goes back to the build before it.
///
/// # Errors
/// The configured build, or what stands in, cannot be loaded.
pub(super) fn serving<B>(
    state: &dyn StateDir,
    place: &Place,
    label: &str,
    configured: impl Fn() -> Result<B, GatewayError>,
    kept: impl Fn(&Build) -> Result<B, Failed>,
    stand_in: impl Fn(&Build, Option<&B>, &Failed) -> Result<B, GatewayError>,
) -> Result<Serving<B>, GatewayError> {
    let only = |build| Serving {
        build,
        former: None,
        on_trial: false,
    };
    let Some(choice) = chosen(state, place) else {
        return configured().map(only);
    };
    if choice.configured != label {
        tracing::info!("{place}: the configuration names another build now: {label} serves");
        if let Err(error) = choice::forget(state, place) {
            tracing::warn!("{place}: the former choice stays: {error}");
        }
        return configured().map(only);
    }
    let former = choice.former.as_ref().and_then(|build| {
        let label = &build.label;
        let lost = |error: &Failed| tracing::warn!("{place}: no way back to {label}: {error}");
        kept(build).inspect_err(lost).ok()
    });
    match kept(&choice.serves) {
        Ok(build) => Ok(Serving {
            build,
            former,
            on_trial: choice.on_trial,
        }),
        Err(error) => match former {
            Some(former) if choice.on_trial => {
                let label = &choice.serves.label;
                tracing::error!(
                    "{place}: {label}: {error}; it was on trial, so the build before serves"
                );
                Ok(only(former))
            }
            former => Ok(Serving {
                build: stand_in(&choice.serves, former.as_ref(), &error)?,
                former,
                on_trial: false,
            }),
        },
    }
}

/// Looks at what was put in the place of configured builds; what is kept is read once, in however many places it serves.
pub(crate) struct Look<'a> {
    gate: &'a Gate,
    state: &'a dyn StateDir,
    dir: &'a Path,
    /// By name.
    seen: BTreeMap<String, Result<Option<Signed>, String>>,
}

/// A build that was put in and would not be let in.
pub(crate) struct Barred {
    pub(crate) label: String,
    pub(crate) why: String,
    /// It has not proved itself yet, and the build before it would be let in.
    pub(crate) goes_back: bool,
}

impl<'a> Look<'a> {
    /// At a state directory, which lies at `dir`.
    pub(crate) fn new(gate: &'a Gate, state: &'a dyn StateDir, dir: &'a Path) -> Self {
        Self {
            gate,
            state,
            dir,
            seen: BTreeMap::new(),
        }
    }

    /// Whether the build that was chosen in place of the configured one, `label`, would be let in, as far as can be seen
    /// without loading it.
    ///
    /// # Errors
    /// [`Barred`].
    pub(crate) fn check(&mut self, place: &Place, kind: Kind, label: &str) -> Result<(), Barred> {
        let chosen = chosen(self.state, place).filter(|choice| choice.configured == label);
        let Some(Choice {
            serves,
            former,
            on_trial,
            ..
        }) = chosen
        else {
            return Ok(());
        };
        let Err(why) = self.is_let_in(place, kind, label, &serves) else {
            return Ok(());
        };
        let mut is_good = |former: Build| self.is_let_in(place, kind, label, &former).is_ok();
        Err(Barred {
            goes_back: on_trial && former.is_some_and(&mut is_good),
            label: serves.label,
            why,
        })
    }

    /// One that is part of otad is, and of the configured one others tell.
    fn is_let_in(
        &mut self,
        place: &Place,
        kind: Kind,
        label: &str,
        build: &Build,
    ) -> Result<(), String> {
        let is_part_of_otad = build.sha256 == [0; 32]
            || build.label.starts_with(BUILTIN)
            || (kind == Kind::Agent && build.label == BUILTIN_AGENT);
        if is_part_of_otad || build.label == label {
            return Ok(());
        }
        let (gate, dir) = (self.gate, self.dir);
        let name = name_of(folder(kind), build);
        let seen = self.seen.entry(name).or_insert_with_key(|name| {
            let code = read(gate, dir, kind, build).map_err(|failed| failed.text)?;
            Ok(code.ok_or_else(|| gone(name))?.signed)
        });
        let signed = seen.as_ref().map_err(String::clone)?;
        let end = gate.check(signed.as_ref(), place, Entry::Before);
        end.map_err(|error| chain(&error))
    }
}

/// The bytes that are kept of a build in the state directory at `dir`, and who vouches for them, before any of it is compiled
/// or run; none if they are gone. Whether their signer's certificate still counts is asked at each place.
///
/// # Errors
/// [`Exit::Refused`]: the gate does not let them in; [`Exit::Failed`]: they cannot be read, or are damaged.
pub(super) fn read(
    gate: &Gate,
    dir: &Path,
    kind: Kind,
    build: &Build,
) -> Result<Option<Code>, Failed> {
    let name = name_of(folder(kind), build);
    let path = dir.join(&name);
    let code_kind = match kind {
        Kind::Agent => code::Kind::Agent,
        Kind::Plugin => code::Kind::Plugin,
    };
    let code = match gate.read(code_kind, &path) {
        Err(CodeError::File {
            path: missing,
            source,
        }) if missing == path && source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error @ CodeError::File { .. }) => {
            return Err(Failed::new(Exit::Failed, chain(&error)));
        }
        code => code.map_err(|error| refused(&error))?,
    };
    match code.sha256 == hex(&build.sha256) {
        true => Ok(Some(code)),
        false => Err(Failed::new(
            Exit::Failed,
            format!("{name} is damaged: its digest is another one"),
        )),
    }
}

/// Why a build that was kept is not let in now; whoever says so names it.
pub(super) fn refused(error: &CodeError) -> Failed {
    Failed::new(Exit::Refused, chain(error))
}

/// Words for kept bytes that are not there.
pub(super) fn gone(name: &str) -> String {
    format!("{name} is not there any more")
}

/// What was chosen for a place. What cannot be read is told where the place is set up.
fn chosen(state: &dyn StateDir, place: &Place) -> Option<Choice> {
    choice::load(state, place).unwrap_or_default()
}

/// Name of a build's bytes in a folder of the state directory, which ends with a slash: their digest, and that of the manifest
/// that vouches for them, shortened. The same bytes may be signed for more than one use.
pub(crate) fn name(folder: &str, sha256: &str, manifest: Option<&str>) -> String {
    match manifest.and_then(|manifest| manifest.get(..MANIFEST_DIGITS)) {
        Some(manifest) => format!("{folder}{sha256}-{manifest}"),
        None => format!("{folder}{sha256}"),
    }
}

/// The digest of the bytes in such a name.
fn sha256_of<'a>(folder: &str, name: &'a str) -> &'a str {
    let digests = name.strip_prefix(folder).unwrap_or(name);
    digests.split('-').next().unwrap_or_default()
}

/// Where builds of a kind are kept.
fn folder(kind: Kind) -> &'static str {
    match kind {
        Kind::Agent => AGENTS,
        Kind::Plugin => PLUGINS,
    }
}

/// The same of a build by its names.
pub(super) fn name_of(folder: &str, build: &Build) -> String {
    name(folder, &hex(&build.sha256), build.manifest.as_deref())
}

/// A folder of the state directory with builds of one kind.
pub(super) struct Shelf {
    state: Arc<dyn StateDir>,
    kind: Kind,
    /// Of the state directory. Without it the directory is another gateway's, who clears it up itself.
    lock: Weak<Lock>,
    /// See [`places`].
    places: BTreeSet<String>,
    /// Shared by builds on their way to a place that does not name them yet; whoever lets go what nothing names has it alone.
    way: Arc<RwLock<()>>,
}

/// As long as there is one, nothing of a shelf goes: a build is on its way. When the last one goes, so does what no place names.
#[derive(Clone)]
pub(crate) struct Hold {
    _held: Arc<Held>,
}

struct Held {
    shelf: Arc<Shelf>,
    way: Option<OwnedRwLockReadGuard<()>>,
}

impl Shelf {
    /// The folder, without what no place names any more.
    pub(super) fn new(
        state: &Arc<dyn StateDir>,
        kind: Kind,
        lock: &Arc<Lock>,
        places: BTreeSet<String>,
    ) -> Arc<Self> {
        let shelf = Self {
            state: Arc::clone(state),
            kind,
            lock: Arc::downgrade(lock),
            places,
            way: Arc::default(),
        };
        shelf.sweep();
        Arc::new(shelf)
    }

    /// Keep everything until this goes. It waits for what goes just now.
    pub(super) async fn hold(self: &Arc<Self>) -> Hold {
        let way = Some(Arc::clone(&self.way).read_owned().await);
        let shelf = Arc::clone(self);
        let _held = Arc::new(Held { shelf, way });
        Hold { _held }
    }

    /// Store a build here, as long as the directory is this gateway's: nobody else takes it before that has ended. It needs a
    /// [`Hold`].
    ///
    /// # Errors
    /// [`Exit::Retry`] once this gateway has ended; [`Exit::Failed`] for a medium.
    pub(super) fn keep(
        &self,
        store: impl FnOnce(&dyn StateDir, &'static str) -> io::Result<()>,
    ) -> Result<(), Failed> {
        let Some(_lock) = self.lock.upgrade() else {
            let text = "the devices are being stopped, or started again with another configuration; ask again";
            return Err(Failed::new(Exit::Retry, text));
        };
        let what = match self.kind {
            Kind::Agent => "keeping the agent",
            Kind::Plugin => "keeping the plugin",
        };
        store(&*self.state, self.folder()).map_err(|e| Failed::chain(Exit::Failed, what, &e))
    }

    fn folder(&self) -> &'static str {
        folder(self.kind)
    }

    /// Let go what no place names, if nothing is on its way.
    fn sweep(&self) {
        let (Some(_lock), Ok(_alone)) = (self.lock.upgrade(), self.way.try_write()) else {
            return;
        };
        if let Err(error) = self.try_sweep() {
            let folder = self.folder();
            tracing::warn!(
                "builds that nothing names any more stay in {folder}: {error}; a file that is damaged may be removed, what it \
                 is about is served by the configured build then"
            );
        }
    }

    /// What is kept of a build begins with its name. A device or target that the configuration does not have now may come
    /// back, and is served by what serves it now. Nothing goes if a choice cannot be read: that one may name it. But where the
    /// file is damaged and the configuration does not have the place, nobody is served by it, now or when the place comes
    /// back, unless somebody mends the file; what a part of its digest stands for in it stays for that.
    fn try_sweep(&self) -> io::Result<()> {
        // Nothing is on its way, so a kill has left them. Such a build may never come again.
        let drafts = self.state.drafts(self.folder())?;
        drafts.iter().try_for_each(|file| self.state.remove(file))?;
        let choice::Chosen { choices, damaged } = choice::all(&*self.state, self.kind)?;
        let mut named = BTreeSet::new();
        for choice in choices {
            let builds = [Some(choice.serves), choice.former].into_iter().flatten();
            named.extend(builds.map(|build| name_of(self.folder(), &build)));
        }
        for Damaged { name, error, .. } in &damaged {
            if self.places.contains(name) {
                return Err(io::Error::new(error.kind(), format!("{name}: {error}")));
            }
            tracing::warn!(
                "{name} is damaged ({error}) and about nothing that the configuration has: it may be removed; builds that it \
                 may name stay till then"
            );
        }
        let files = self.state.list(self.folder())?;
        let stem = |file: &str| file.split('.').next().unwrap_or_default().to_owned();
        let is_named = |file: &&String| {
            let stem = stem(file);
            let sha256 = sha256_of(self.folder(), &stem);
            named.contains(&stem) || damaged.iter().any(|damaged| damaged.may_name(sha256))
        };
        let mut unnamed = files.iter().filter(|file| !is_named(file));
        unnamed.try_for_each(|file| self.state.remove(file))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.way.take());
        let shelf = Arc::clone(&self.shelf);
        // It reads a file of each place: not on a task that serves others.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || shelf.sweep())),
            Err(_) => shelf.sweep(),
        }
    }
}

/// Wait for a swap, which needs what is held to its end. Whoever waits may go: a swap that a device has taken goes on, and
/// names its build on the medium only after some time.
pub(crate) async fn to_its_end<F>(swap: F, held: Option<Hold>) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    match held {
        Some(held) => Lasting(Some((Box::pin(swap), held))).await,
        None => swap.await,
    }
}

/// A swap under way, with what it needs. It goes on by itself when this goes.
struct Lasting(Option<(Swap, Hold)>);

type Swap = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Future for Lasting {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((swap, _)) = self.0.as_mut() else {
            return Poll::Pending;
        };
        let end = ready!(swap.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(end)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let Some((swap, held)) = self.0.take() else {
            return;
        };
        // Without a runtime the device has ended, too.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(async move {
                // Nobody waits for it; how it went, the device tells.
                drop(swap.await);
                drop(held);
            }));
        }
    }
}

#[cfg(test)]
mod tests;
