//! Every trouble that a gateway is known to meet, one after the other, and how each ends: a table of what happened and
//! how long it took.
//!
//! ```text
//! cargo test -p e2e --test gateway -- --nocapture every_trouble_has_its_way_out
//! ```
//!
//! Each row is a gateway and a cloud of its own; all run side by side. After each trouble the daemon lives, and a good
//! update works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use e2e::gateway::{Daemon, Lines};
use e2e::{Cloud, Ended, Gateway, Update, WallClock, image};
use host_cloud::fault::{Fault, FaultPlan, NoFaults};
use host_cloud::service::{JobId, RejectCode};
use support::deadline::now;
use support::note;
use support::proxy::Proxy;

const THING: &str = "trouble";
const SMALL: usize = 6000;

/// 256 blocks of 4 KiB.
const LONG: usize = 1 << 20;

/// `main` of a failure of storage, as in `wit/agent/types.wit`.
const STORAGE: &str = "d6";

/// `main` of a certificate that is not valid at the time that the clock shows.
const VALIDITY: &str = "e7";

/// With ten leap days; the certificates of these tests are valid from 2020 to 2049.
const FORTY_YEARS_S: i64 = (40 * 365 + 10) * 86_400;

/// A gateway in trouble.
struct Scene {
    cloud: Cloud,
    proxy: Proxy,
    gateway: Gateway,
    daemon: Daemon,
    /// When the daemon was ready.
    began: Instant,
}

impl Scene {
    /// `prepare` is given the directory of the target before anything lies there.
    fn with(change: impl FnOnce(&mut Lines), prepare: impl FnOnce(&Gateway)) -> Self {
        let run = |gateway: &Gateway| Some(gateway.run());
        Self::started(change, prepare, run).unwrap()
    }

    fn started(
        change: impl FnOnce(&mut Lines),
        prepare: impl FnOnce(&Gateway),
        run: impl FnOnce(&Gateway) -> Option<Daemon>,
    ) -> Option<Self> {
        let cloud = Cloud::start();
        let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            let device = lines.device();
            device.port = proxy.addr().port();
            device.mqtt =
                "reconnect_min_ms = 10\nreconnect_max_ms = 100\nkeep_alive_s = 5\n".to_owned();
            device.agent = "status_frequency = 8\nrequest_timeout_ms = 2000\n".to_owned();
            change(lines);
        });
        prepare(&gateway);
        gateway.init(&image::program("1.0.0", "", SMALL));
        let daemon = run(&gateway)?;
        Some(Self {
            cloud,
            proxy,
            gateway,
            daemon,
            began: now(),
        })
    }

    fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    fn update(&self, size: usize) -> JobId {
        self.cloud
            .update(THING, Update::of(image::program("1.1.0", "", size)))
    }

    /// In the middle of a download that is slow until `hurry`.
    fn downloading(&self) -> JobId {
        self.proxy.set_rate(Some(256 * 1024));
        let job = self.update(LONG);
        self.cloud.wait_received(&job, 64);
        job
    }

    fn hurry(&self) {
        self.proxy.set_rate(None);
    }

    fn succeeded(&self, job: &JobId) -> String {
        let ended = self.cloud.wait_end(job);
        assert_eq!(
            ended.as_pair(),
            ("SUCCEEDED", "accepted  v1.1.0"),
            "{}",
            self.daemon.log()
        );
        let words = self.words(&ended);
        self.alive("1.1.0");
        words
    }

    /// The job failed by `main` and `sub` of a failure, the old image runs, and the next update is a good one.
    fn failed(&self, job: &JobId, codes: [&str; 2], mend: impl FnOnce()) -> String {
        let ended = self.cloud.wait_end(job);
        assert_eq!(ended.status, "FAILED", "{ended:?}");
        for code in codes {
            assert!(
                ended.reason.contains(code),
                "{code} is not in {ended:?}: {}",
                self.daemon.log()
            );
        }
        let words = self.words(&ended);
        mend();
        self.alive("1.0.0");
        words
    }

    /// How a job ended, and how long after the start: to be asked as soon as it has.
    fn words(&self, ended: &Ended) -> String {
        let seconds = (now() - self.began).as_secs_f64();
        format!("{seconds:>6.1} s  {} {}", ended.status, ended.reason)
    }

    /// This version runs, the daemon is the same, and it does its next job.
    fn alive(&self, version: &str) {
        self.gateway.wait_status(version, |status| {
            status["devices"][0]["targets"][0]["running_version"] == version
        });
        self.next();
    }

    fn next(&self) {
        let next = Update::of(image::program("1.2.0", "", SMALL));
        let ended = self.cloud.wait_end(&self.cloud.update(THING, next));
        assert_eq!(
            ended.as_pair(),
            ("SUCCEEDED", "accepted  v1.2.0"),
            "{}",
            self.daemon.log()
        );
    }
}

/// A file system of its own for a directory; gone when dropped.
struct Medium(PathBuf);

impl Medium {
    /// None = this user may not mount anything.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "otad-test"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(_) | Err(_) => None,
        }
    }

    fn remount(&self, mode: &str) {
        let options = format!("remount,{mode}");
        let output = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        // Detached: the daemon may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn target_dir(gateway: &Gateway) -> PathBuf {
    gateway.target_file("main", "")
}

/// How long a row took and how it ended; none = this machine cannot show it.
type Row = (&'static str, fn() -> Option<String>);

fn full_disk() -> Option<String> {
    let mut medium = None;
    let scene = Scene::with(
        |_| {},
        |gateway| medium = Medium::mount(&target_dir(gateway), "600k"),
    );
    let _medium = medium?;
    let job = scene.update(LONG);
    Some(scene.failed(&job, [STORAGE, "1c"], || {}))
}

fn read_only_disk() -> Option<String> {
    let mut medium = None;
    let scene = Scene::with(
        |_| {},
        |gateway| medium = Medium::mount(&target_dir(gateway), "4m"),
    );
    let medium = medium?;
    medium.remount("ro");
    let job = scene.update(LONG);
    Some(scene.failed(&job, [STORAGE, "1e"], || medium.remount("rw")))
}

fn full_state_directory() -> Option<String> {
    let mut medium = None;
    let scene = Scene::with(
        |_| {},
        |gateway| medium = Medium::mount(&gateway.path("state"), "256k"),
    );
    let _medium = medium?;
    let filler = scene.gateway.path("state/filler");
    // Until nothing more goes in.
    let _full = fs::write(&filler, vec![0; 300_000]);
    let job = scene.update(SMALL);
    Some(scene.failed(&job, [STORAGE, "1c"], || fs::remove_file(&filler).unwrap()))
}

/// What runs cannot be asked while the directory is out of reach; the next job looks again.
fn out_of_reach(scene: &Scene, code: &str, leave: impl FnOnce(), back: impl FnOnce()) -> String {
    leave();
    let ended = scene.cloud.wait_end(&scene.update(LONG));
    assert_eq!(ended.status, "FAILED", "{ended:?}");
    assert!(
        ended.reason.contains(STORAGE) && ended.reason.ends_with(code),
        "{ended:?}"
    );
    let words = scene.words(&ended);
    back();
    scene.next();
    words
}

fn missing_device() -> Option<String> {
    let scene = Scene::new();
    let dir = target_dir(&scene.gateway);
    let away = scene.gateway.path("unplugged");
    let move_it = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    let (leave, back) = (|| move_it(&dir, &away), || move_it(&away, &dir));
    Some(out_of_reach(&scene, "02", leave, back))
}

fn no_permission() -> Option<String> {
    let scene = Scene::started(|_| {}, |_| {}, Gateway::run_permitted)?;
    let dir = target_dir(&scene.gateway);
    let permit = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    let (leave, back) = (|| permit(0o000), || permit(0o700));
    Some(out_of_reach(&scene, "0d", leave, back))
}

fn half_open_connection() -> Option<String> {
    let scene = Scene::new();
    let job = scene.downloading();
    assert_eq!(scene.proxy.half_open(), 1);
    scene.hurry();
    let why = scene.gateway.expect_verb(&["why", job.as_str()]);
    assert!(why.contains("waits for data of the image (block "), "{why}");
    Some(scene.succeeded(&job))
}

fn silence() -> Option<String> {
    let scene = Scene::new();
    let job = scene.downloading();
    let until = scene.cloud.running().now_ms() + 10_000;
    let plan = FaultPlan::new(1, [Fault::SilenceUntil(until)]);
    scene.cloud.running().set_faults(Box::new(plan));
    scene.hurry();
    Some(scene.succeeded(&job))
}

fn lost_blocks() -> Option<String> {
    let scene = Scene::new();
    let plan = FaultPlan::new(7, [Fault::DropBlocksPercent(30)]);
    scene.cloud.running().set_faults(Box::new(plan));
    let job = scene.update(LONG / 8);
    Some(scene.succeeded(&job))
}

fn refused_statuses() -> Option<String> {
    let scene = Scene::new();
    let plan = FaultPlan::new(1, [Fault::RejectUpdates(2, RejectCode::RequestThrottled)]);
    scene.cloud.running().set_faults(Box::new(plan));
    let job = scene.update(SMALL);
    Some(scene.succeeded(&job))
}

fn statuses_refused_for_good() -> Option<String> {
    let scene = Scene::new();
    let plan = FaultPlan::new(1, [Fault::RejectUpdates(1000, RejectCode::InvalidRequest)]);
    scene.cloud.running().set_faults(Box::new(plan));
    let job = scene.update(SMALL);
    // Nobody hears that it has failed; the agent does not wait for ever to be heard.
    let mut scene = scene;
    scene.daemon.wait_line("new state [GoingBack]");
    scene.daemon.wait_line("new state [RequestingJob]");
    let words = scene.words(&scene.cloud.now(&job));
    scene.cloud.running().set_faults(Box::new(NoFaults));
    cancel(&scene, &job);
    scene.alive("1.0.0");
    Some(format!("{words}, given up here with a code of its own"))
}

fn cancel(scene: &Scene, job: &JobId) {
    let cancel = scene.cloud.operator().cancel(job, true, None);
    scene.cloud.block_on(cancel).unwrap();
}

fn cancelled_job() -> Option<String> {
    let mut scene = Scene::new();
    let job = scene.downloading();
    cancel(&scene, &job);
    scene.hurry();
    scene.daemon.wait_line("withdrawn by the service");
    scene.daemon.wait_line("new state [RequestingJob]");
    let words = scene.words(&scene.cloud.now(&job));
    scene.alive("1.0.0");
    let why = scene.gateway.expect_verb(&["why", job.as_str()]);
    assert!(why.contains("WITHDRAWN"), "{why}");
    Some(words)
}

fn with_clock() -> Option<(WallClock, Scene)> {
    let clock = WallClock::new()?;
    let run = |gateway: &Gateway| Some(gateway.run_with(|command| clock.give(command)));
    let scene = Scene::started(|_| {}, |_| {}, run)?;
    Some((clock, scene))
}

/// Nobody can be connected to while the clock is wrong; this is said, and all goes on once it is right.
fn clock_wrong_in_reconnecting(seconds: i64, said: &str) -> Option<String> {
    let (clock, mut scene) = with_clock()?;
    let job = scene.downloading();
    clock.turn(seconds);
    scene.proxy.cut();
    scene.daemon.wait_line(said);
    let why = scene.gateway.expect_verb(&["why", job.as_str()]);
    assert!(why.contains(said) && why.contains("set the clock"), "{why}");
    clock.turn(0);
    scene.hurry();
    Some(scene.succeeded(&job))
}

fn clock_ahead_in_reconnecting() -> Option<String> {
    clock_wrong_in_reconnecting(FORTY_YEARS_S, "certificate is not valid any more")
}

fn clock_behind_in_reconnecting() -> Option<String> {
    clock_wrong_in_reconnecting(-FORTY_YEARS_S, "certificate is not valid yet")
}

fn clock_ahead_in_verifying() -> Option<String> {
    let (clock, scene) = with_clock()?;
    let job = scene.downloading();
    clock.turn(FORTY_YEARS_S);
    scene.hurry();
    Some(scene.failed(&job, [VALIDITY, "0x"], || clock.turn(0)))
}

/// Such a clock was never set: what it says is held against no certificate of a signer, and that is warned of.
fn clock_behind_in_verifying() -> Option<String> {
    let (clock, scene) = with_clock()?;
    let job = scene.downloading();
    clock.turn(-FORTY_YEARS_S);
    scene.hurry();
    let words = scene.succeeded(&job);
    scene.daemon.wait_said("the wall clock is not known");
    Some(words)
}

#[test]
fn every_trouble_has_its_way_out() {
    let rows: [Row; 15] = [
        ("disk of the target full", full_disk),
        ("disk of the target read-only", read_only_disk),
        ("directory of the target forbidden", no_permission),
        ("state directory full", full_state_directory),
        ("directory of the target gone", missing_device),
        ("half-open connection", half_open_connection),
        ("10 s of silence", silence),
        ("30 % of 32 blocks lost", lost_blocks),
        ("2 statuses throttled", refused_statuses),
        ("every status refused", statuses_refused_for_good),
        ("job cancelled", cancelled_job),
        (
            "clock +40 y, then disconnected",
            clock_ahead_in_reconnecting,
        ),
        (
            "clock -40 y, then disconnected",
            clock_behind_in_reconnecting,
        ),
        ("clock +40 y at the verification", clock_ahead_in_verifying),
        ("clock -40 y at the verification", clock_behind_in_verifying),
    ];
    let only = std::env::var("OTAD_TROUBLE").unwrap_or_default();
    let chosen = rows.iter().filter(|(name, _)| name.contains(&only));
    // Compiled once, not by all of them at once.
    drop(Scene::new());
    let ended: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = chosen
            .map(|(name, row)| (*name, scope.spawn(row)))
            .collect();
        running
            .into_iter()
            .map(|(name, row)| (name, row.join()))
            .collect()
    });
    let (mut skipped, mut stuck) = (0, Vec::new());
    for (name, row) in &ended {
        match row {
            Ok(Some(how)) => note(&format!("{name:<34} {how}")),
            Ok(None) => {
                skipped += 1;
                note(&format!(
                    "{name:<34} SKIPPED: this user may not mount a file system or may do everything, or there is no \
                     C compiler"
                ));
            }
            Err(_) => stuck.push(*name),
        }
    }
    assert!(
        stuck.is_empty(),
        "no way out of: {stuck:?}; what went wrong stands above"
    );
    note(&format!("{} rows, {skipped} skipped", ended.len()));
    let required = std::env::var_os("OTAD_REQUIRE_INTEROP").is_some_and(|v| v == "1");
    assert!(
        skipped == 0 || !required,
        "OTAD_REQUIRE_INTEROP=1 requires all rows"
    );
}
