//! Builds that an operator has put in the place of configured ones: which of them serves at a place, and their bytes.
//!
//! The bytes are kept in the state directory by their digest, so that the choice (`host_runtime::choice`) holds without the
//! file that they came from. What no place names any more goes when a swap has ended, and at the next start. Not here: whether
//! a file may be loaded, and the swap itself (`host-runtime`).

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use host_crypto::hex;
use host_runtime::choice::{self, Build, Choice, Place};
use host_runtime::ports::state_dir::StateDir;
use host_runtime::types::Failure;
use tokio::runtime::Handle;

use super::GatewayError;
use crate::exit::Failed;

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
/// was chosen in place of.
///
/// # Errors
/// The configured build cannot be loaded. (A chosen one that cannot be is logged, and the one before it serves.)
pub(super) fn serving<B>(
    state: &dyn StateDir,
    place: &Place,
    label: &str,
    configured: impl Fn() -> Result<B, GatewayError>,
    kept: impl Fn(&Build) -> Result<B, Failed>,
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
        let lost = |error: &Failed| tracing::warn!("{place}: no way back: {error}");
        kept(build).inspect_err(lost).ok()
    });
    match kept(&choice.serves) {
        Ok(build) => Ok(Serving {
            build,
            former,
            on_trial: choice.on_trial,
        }),
        Err(error) => {
            tracing::error!("{place}: the build before serves: {error}");
            match former {
                Some(former) => Ok(only(former)),
                None => configured().map(only),
            }
        }
    }
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

/// The same of a build by its names.
pub(super) fn name_of(folder: &str, build: &Build) -> String {
    name(folder, &hex(&build.sha256), build.manifest.as_deref())
}

/// A folder of the state directory with builds for these places.
pub(super) struct Shelf {
    state: Arc<dyn StateDir>,
    folder: &'static str,
    places: Vec<Place>,
    /// How many are on their way to a place that does not name them yet.
    holds: Mutex<usize>,
}

/// As long as there is one, nothing of a shelf goes: a build is on its way. When the last one goes, so does what no place names.
pub(crate) struct Hold(Arc<Shelf>);

impl Shelf {
    /// The folder, without what no place names any more.
    pub(super) fn new(
        state: &Arc<dyn StateDir>,
        folder: &'static str,
        places: impl Iterator<Item = Place>,
    ) -> Arc<Self> {
        let shelf = Self {
            state: Arc::clone(state),
            folder,
            places: places.collect(),
            holds: Mutex::default(),
        };
        shelf.sweep();
        Arc::new(shelf)
    }

    /// Keep everything until this goes.
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        *self.holds() += 1;
        Hold(Arc::clone(self))
    }

    fn holds(&self) -> MutexGuard<'_, usize> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Let go what no place names, if nothing is on its way.
    fn sweep(&self) {
        // Whoever holds something from now on waits until this is over.
        let holds = self.holds();
        if *holds > 0 {
            return;
        }
        if let Err(error) = self.try_sweep() {
            let folder = self.folder;
            tracing::warn!("builds that nothing names any more stay in {folder}: {error}");
        }
    }

    /// What is kept of a build begins with its name. Nothing goes if one choice cannot be read: that one may name it.
    fn try_sweep(&self) -> io::Result<()> {
        let mut named = BTreeSet::new();
        for place in &self.places {
            let choice = choice::load(&*self.state, place)?;
            let builds = choice.map(|choice| [Some(choice.serves), choice.former]);
            let builds = builds.into_iter().flatten().flatten();
            named.extend(builds.map(|build| name_of(self.folder, &build)));
        }
        let files = self.state.list(self.folder)?;
        let stem = |file: &str| file.split('.').next().unwrap_or_default().to_owned();
        let mut unnamed = files.iter().filter(|file| !named.contains(&stem(file)));
        unnamed.try_for_each(|file| self.state.remove(file))
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.0.hold()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.0.holds();
        *holds -= 1;
        if *holds > 0 {
            return;
        }
        drop(holds);
        let shelf = Arc::clone(&self.0);
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
mod tests {
    use std::future::ready;
    use std::time::Duration;

    use host_runtime::ports::state_dir::FileStateDir;
    use serde_json::json;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    /// Long enough for anybody's machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_swap_that_nobody_waits_for_any_more_keeps_its_bytes_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let state: Arc<dyn StateDir> = Arc::new(FileStateDir::open(dir.path()).unwrap());
        let shelf = Shelf::new(&state, "plugins/", std::iter::empty());
        state.store("plugins/new", b"x").unwrap();
        let (end, ends) = oneshot::channel::<()>();
        let swap = async move {
            ends.await.unwrap();
            Ok(())
        };
        let mut asked = Box::pin(to_its_end(swap, Some(shelf.hold())));
        tokio::select! {
            biased;
            _ = &mut asked => panic!("it has not ended"),
            () = ready(()) => {}
        }
        drop(asked);
        shelf.sweep();
        assert_eq!(state.list("plugins/").unwrap(), ["plugins/new"]);
        end.send(()).unwrap();
        let gone = async {
            while !state.list("plugins/").unwrap().is_empty() {
                yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.expect("it stays");
    }

    #[test]
    fn what_nothing_names_goes_when_the_last_build_on_its_way_has_arrived() {
        let dir = tempfile::tempdir().unwrap();
        let state: Arc<dyn StateDir> = Arc::new(FileStateDir::open(dir.path()).unwrap());
        let place = Place::plugin("pump", "main");
        let keep = |name: &str| state.store(&format!("plugins/{name}"), b"x").unwrap();
        let kept = || {
            let mut files = state.list("plugins/").unwrap();
            files.sort();
            files
        };
        keep("left-behind");
        let shelf = Shelf::new(&state, "plugins/", [place.clone()].into_iter());
        assert_eq!(kept(), [] as [&str; 0]);
        let (one, other) = (shelf.hold(), shelf.hold());
        let (sha256, manifest) = ("ab".repeat(32), "cd".repeat(32));
        let named = name("", &sha256, Some(&manifest));
        for file in [&named, &format!("{named}.manifest"), &sha256, "refused"] {
            keep(file);
        }
        drop(one);
        assert_eq!(kept().len(), 4);
        let choice = json!({
            "format": 1,
            "configured": "builtin:flash-file",
            "serves": { "label": "job", "sha256": sha256, "manifest": manifest },
        });
        let text = choice.to_string();
        state
            .store(&place.file("plugin.json"), text.as_bytes())
            .unwrap();
        drop(other);
        // The same bytes without that manifest are another build.
        let wanted = [
            format!("plugins/{named}"),
            format!("plugins/{named}.manifest"),
        ];
        assert_eq!(kept(), wanted);
    }
}
