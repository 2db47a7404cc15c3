//! What stays of builds, and for how long.

use std::fs;
use std::future::{poll_fn, ready};
use std::path::PathBuf;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use host_runtime::ports::state_dir::FileStateDir;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::super::aside;
use super::*;
use crate::lock;

/// Long enough for anybody's machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A state directory and its lock.
struct Scene {
    dir: TempDir,
    state: Arc<dyn StateDir>,
    lock: Option<Arc<Lock>>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Self {
            state: Arc::new(FileStateDir::open(dir.path()).unwrap()),
            lock: None,
            dir,
        };
        scene.reload();
        scene
    }

    /// The gateway ends, and another one takes the lock.
    fn reload(&mut self) {
        self.lock = None;
        self.lock = Some(Arc::new(lock::take(self.dir.path()).unwrap()));
    }

    /// That of a gateway with target "main" of pump.
    fn shelf(&self) -> Arc<Shelf> {
        let lock = self.lock.as_ref().unwrap();
        let places = [Place::plugin("pump", "main").choice_file()].into();
        Shelf::new(&self.state, Kind::Plugin, lock, places)
    }

    fn keep(&self, name: &str) {
        self.state.store(&format!("plugins/{name}"), b"x").unwrap();
    }

    /// What is left of a file that was not stored to its end.
    fn half(&self, name: &str) -> PathBuf {
        let half = self.dir.path().join(name);
        fs::create_dir_all(half.parent().unwrap()).unwrap();
        fs::write(&half, b"ha").unwrap();
        half
    }

    fn kept(&self) -> Vec<String> {
        self.state.list("plugins/").unwrap()
    }

    /// Wait until nothing is kept any more.
    async fn gone(&self) {
        let gone = async {
            while !self.kept().is_empty() {
                yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.expect("it stays");
    }

    /// A choice of a target's, of bytes that a manifest vouches for.
    fn choose(&self, place: &Place, sha256: &str, manifest: &str) {
        let choice = json!({
            "format": 1,
            "configured": "builtin:flash-file",
            "serves": { "label": "job", "sha256": sha256, "manifest": manifest },
        });
        let text = choice.to_string();
        let file = place.file("plugin.json");
        self.state.store(&file, text.as_bytes()).unwrap();
    }
}

/// For what is dropped outside of it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_swap_that_nobody_waits_for_any_more_keeps_its_bytes_to_its_end() {
    let scene = Scene::new();
    let shelf = scene.shelf();
    scene.keep("new");
    let (end, ends) = oneshot::channel::<()>();
    let swap = async move {
        ends.await.unwrap();
        Ok(())
    };
    let mut asked = Box::pin(to_its_end(swap, Some(shelf.hold().await)));
    tokio::select! {
        biased;
        _ = &mut asked => panic!("it has not ended"),
        () = ready(()) => {}
    }
    drop(asked);
    shelf.sweep();
    assert_eq!(scene.kept(), ["plugins/new"]);
    end.send(()).unwrap();
    scene.gone().await;
}

#[tokio::test]
async fn a_build_that_nobody_waits_for_any_more_stays_until_it_is_loaded() {
    let scene = Scene::new();
    let shelf = scene.shelf();
    let (go, goes) = mpsc::sync_channel::<()>(1);
    let (begun, begins) = oneshot::channel::<()>();
    let state = Arc::clone(&scene.state);
    let work = move || {
        begun.send(()).unwrap();
        goes.recv().unwrap();
        state.store("plugins/new", b"x").unwrap();
        Ok(())
    };
    let kept = shelf.hold().await;
    let workers = Handle::current();
    let mut asked = Box::pin(aside(&workers, Some(&kept), work));
    tokio::select! {
        biased;
        _ = &mut asked => panic!("it has not ended"),
        end = begins => end.unwrap(),
    }
    drop(asked);
    drop(kept);
    // What it has kept so far, it still needs.
    scene.keep("new.manifest");
    shelf.sweep();
    assert_eq!(scene.kept(), ["plugins/new.manifest"]);
    go.send(()).unwrap();
    scene.gone().await;
}

#[test]
fn a_build_is_loaded_by_the_gateways_workers_whichever_runtime_asks() {
    let named = |name: &str| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.thread_name(name).build().unwrap()
    };
    let (gateway, device) = (named("gateway"), named("device"));
    let load = || Ok(thread::current().name().map(str::to_owned));
    let loaded = device.block_on(aside(gateway.handle(), None, load));
    assert_eq!(loaded.unwrap().as_deref(), Some("gateway"));
}

#[test]
fn a_build_is_stored_under_the_lock_and_not_once_another_gateway_has_it() {
    let mut scene = Scene::new();
    let shelf = scene.shelf();
    let path = scene.dir.path().to_owned();
    let stored = shelf.keep(|state, folder| {
        // The gateway ends meanwhile.
        scene.lock = None;
        assert_eq!(lock::take_with(&path, || ()).unwrap_err().exit, Exit::Retry);
        state.store(&format!("{folder}new"), b"x")
    });
    stored.unwrap();
    assert_eq!(scene.kept(), ["plugins/new"]);
    scene.reload();
    let late = shelf.keep(|_, _| panic!("it is another gateway's"));
    assert_eq!(late.unwrap_err().exit, Exit::Retry);
}

#[test]
fn what_nothing_names_goes_when_the_last_build_on_its_way_has_arrived() {
    let (scene, runtime) = (Scene::new(), runtime());
    scene.keep("left-behind");
    let shelf = scene.shelf();
    assert_eq!(scene.kept(), [] as [&str; 0]);
    let hold = || runtime.block_on(shelf.hold());
    let (one, other) = (hold(), hold());
    let (sha256, manifest) = ("ab".repeat(32), "cd".repeat(32));
    let named = name("", &sha256, Some(&manifest));
    for file in [&named, &format!("{named}.manifest"), &sha256, "refused"] {
        scene.keep(file);
    }
    drop(one.clone());
    drop(one);
    assert_eq!(scene.kept().len(), 4);
    scene.choose(&Place::plugin("pump", "main"), &sha256, &manifest);
    drop(other);
    // The same bytes without that manifest are another build.
    let wanted = [
        format!("plugins/{named}"),
        format!("plugins/{named}.manifest"),
    ];
    assert_eq!(scene.kept(), wanted);
}

#[test]
fn what_a_kill_has_left_of_a_build_goes_once_nothing_is_on_its_way() {
    let (scene, runtime) = (Scene::new(), runtime());
    let (left, strangers) = (scene.half("plugins/left.new"), scene.half("mine/left.new"));
    let shelf = scene.shelf();
    assert!(!left.exists());
    let hold = runtime.block_on(shelf.hold());
    let on_its_way = scene.half("plugins/next.manifest.new");
    shelf.sweep();
    assert!(on_its_way.exists());
    drop(hold);
    assert!(!on_its_way.exists());
    // Also where nobody can tell which builds are named: this is none.
    let file = Place::plugin("pump", "main").file("plugin.json");
    scene.state.store(&file, b"{}").unwrap();
    let left = scene.half("plugins/left.new");
    assert!(shelf.try_sweep().is_err());
    assert!(!left.exists());
    assert!(strangers.exists());
}

#[test]
fn a_choice_that_cannot_be_read_keeps_everything() {
    let scene = Scene::new();
    let place = Place::plugin("pump", "main");
    scene.keep("new");
    let file = place.file("plugin.json");
    scene.state.store(&file, b"{}").unwrap();
    let shelf = scene.shelf();
    assert_eq!(scene.kept(), ["plugins/new"]);
    let error = shelf.try_sweep().unwrap_err().to_string();
    assert!(error.starts_with(&file), "{error}");
}

#[test]
fn a_damaged_choice_of_what_the_configuration_has_not_keeps_what_it_may_name() {
    let scene = Scene::new();
    let (named, other) = ("ab".repeat(32), "0123456789abcdef".repeat(4));
    for file in [&named, &format!("{named}.manifest"), &other] {
        scene.keep(file);
    }
    let gone = Place::plugin("former", "main").choice_file();
    scene.choose(&Place::plugin("former", "main"), &named, "");
    let text = scene.state.load(&gone).unwrap().unwrap();
    // The medium has lost a part of it.
    scene.state.store(&gone, &text[20..]).unwrap();
    let shelf = scene.shelf();
    let left = [
        format!("plugins/{named}"),
        format!("plugins/{named}.manifest"),
    ];
    assert_eq!(scene.kept(), left);
    // Of another build's format, it may name anything.
    scene.keep("any");
    scene.state.store(&gone, br#"{"format":9}"#).unwrap();
    let error = shelf.try_sweep().unwrap_err().to_string();
    assert!(error.starts_with(&gone), "{error}");
    assert_eq!(scene.kept().len(), 3);
    // It goes with the file.
    scene.state.remove(&gone).unwrap();
    shelf.sweep();
    assert_eq!(scene.kept(), [] as [&str; 0]);
}

#[test]
fn nothing_is_cleared_up_in_a_state_directory_that_another_gateway_has_by_now() {
    let (mut scene, runtime) = (Scene::new(), runtime());
    let late = runtime.block_on(scene.shelf().hold());
    scene.reload();
    let shelf = scene.shelf();
    let hold = runtime.block_on(shelf.hold());
    scene.keep("on-its-way");
    drop(late);
    assert_eq!(scene.kept(), ["plugins/on-its-way"]);
    drop(hold);
    assert_eq!(scene.kept(), [] as [&str; 0]);
}

#[tokio::test]
async fn whoever_holds_something_does_not_stop_its_thread_while_something_goes() {
    let scene = Scene::new();
    let shelf = scene.shelf();
    // As while it is swept.
    let alone = Arc::clone(&shelf.way).write_owned().await;
    let mut hold = Box::pin(shelf.hold());
    let waits = poll_fn(|context| Poll::Ready(hold.as_mut().poll(context).is_pending()));
    assert!(waits.await);
    drop(alone);
    drop(hold.await);
}

#[test]
fn a_choice_that_is_not_let_in_is_stood_in_for_and_stays_unless_it_was_on_trial() {
    let scene = Scene::new();
    let place = Place::plugin("pump", "main");
    let file = place.file("plugin.json");
    let choose = |on_trial: bool| {
        let build = |label: &str| json!({ "label": label, "sha256": "ab".repeat(32) });
        let choice = json!({
            "format": 1,
            "configured": "builtin:flash-file",
            "serves": build("new.wasm"),
            "former": build("old.wasm"),
            "on_trial": on_trial,
        });
        let text = choice.to_string();
        scene.state.store(&file, text.as_bytes()).unwrap();
    };
    let serving = |label: &str| {
        let kept = |build: &Build| match &*build.label {
            "new.wasm" => Err(Failed::new(Exit::Refused, "signed by nobody")),
            label => Ok(label.to_owned()),
        };
        let stand_in = |build: &Build, former: Option<&String>, error: &Failed| {
            Ok(format!("{former:?} for {}: {}", build.label, error.text))
        };
        let configured = || Ok("configured".to_owned());
        serving(&*scene.state, &place, label, configured, kept, stand_in).unwrap()
    };
    choose(false);
    let Serving {
        build,
        former,
        on_trial,
    } = serving("builtin:flash-file");
    let wanted = "Some(\"old.wasm\") for new.wasm: signed by nobody";
    assert_eq!((&*build, former.as_deref()), (wanted, Some("old.wasm")));
    assert!(!on_trial);
    assert!(scene.state.load(&file).unwrap().is_some());
    choose(true);
    let went_back = serving("builtin:flash-file");
    assert_eq!((&*went_back.build, went_back.former), ("old.wasm", None));
    // The configuration names another one.
    assert_eq!(serving("builtin:serial-mcu").build, "configured");
    assert!(scene.state.load(&file).unwrap().is_none());
}
