//! Whose plugins a gateway loads: through the real `otad sign`, configuration check, daemon and updates. Each reason by itself is in
//! otad's unit tests.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::signer::as_version;
use e2e::{Cloud, Daemon, Gateway, Signer, Update, image};
use support::binary::otad_command;
use support::deadline::{Deadline, PATIENCE, pass};
use support::interop;
use support::process::Signal;

use super::update;

const THING: &str = "pump-5";

/// A gateway with a program in slots and a board behind a FreeRTOS PAL, whose plugin `vendor` may sign.
struct Scene {
    cloud: Cloud,
    gateway: Gateway,
    vendor: Signer,
}

impl Scene {
    fn new() -> Self {
        let cloud = Cloud::start();
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            lines
                .device()
                .targets
                .push(update::target(update::SETTINGS));
        });
        gateway.init(&image::program("1.0.0", "", 6000));
        fs::create_dir(gateway.path("pal")).unwrap();
        fs::write(gateway.path("pal/signer.pem"), cloud.signer_pem()).unwrap();
        let vendor = Signer::trusted(&gateway, "vendor");
        let scene = Self {
            cloud,
            gateway,
            vendor,
        };
        scene.build("1.0.0");
        scene
    }

    fn plugin(&self) -> PathBuf {
        self.gateway.path("pal.so")
    }

    fn build(&self, version: &str) {
        Self::build_at(&self.plugin(), version);
    }

    fn build_at(path: &Path, version: &str) {
        let flags = [format!("-DOTAD_PAL_VERSION=\"{version}\"")];
        update::build(path, &update::example(), &flags);
    }

    fn sign(&self, signer: &Signer, more: &[&str]) {
        signer.sign(&self.plugin(), more);
    }

    /// As the vendor does it.
    fn signed(&self, version: &str) {
        self.build(version);
        self.sign_for_board(&self.plugin());
    }

    fn sign_for_board(&self, path: &Path) {
        let pal = self.gateway.path("pal");
        self.vendor
            .sign(path, &["--directory", pal.to_str().unwrap()]);
    }

    /// Another build for the board, beside the configured one.
    fn other(&self, name: &str, version: &str) -> String {
        let path = self.gateway.path(name);
        Self::build_at(&path, version);
        path.display().to_string()
    }

    /// `otad plugin swap board …`: its exit code, and what it said.
    fn swap(&self, words: &[&str]) -> (Option<i32>, String) {
        let verb = [&["plugin", "swap", "board"], words].concat();
        let output = self.gateway.verb(&verb);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }

    /// What `otad plugin info` tells of the board's.
    fn info(&self) -> serde_json::Value {
        let verb = ["plugin", "info", "board", "--json"];
        let rows: serde_json::Value =
            serde_json::from_str(&self.gateway.expect_verb(&verb)).unwrap();
        rows[0].clone()
    }

    /// Version of the build that serves the board.
    fn serves(&self) -> String {
        self.info()["version"].as_str().unwrap().to_owned()
    }

    /// `config check` says that it would not be loaded, for this reason.
    fn refuses(&self, wanted: &str) {
        self.exits_78(&["config", "check"], wanted);
    }

    /// The operator is told what and where.
    fn exits_78(&self, verb: &[&str], wanted: &str) -> String {
        let output = self.gateway.verb(verb);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{wanted}: {said}");
        assert!(said.contains(wanted), "{wanted}: {said}");
        said
    }

    /// A job of the board fails for want of its plugin, and one of the program beside it does not notice.
    fn board_is_down(&self, daemon: &Daemon, version: &str) {
        let ended = self.updates_board(7);
        assert_eq!(ended.0, "FAILED", "{ended:?}\n{}", daemon.log());
        assert!(ended.1.contains("0xd5"), "{ended:?}");
        let program = Update::of(image::program(version, "", 6000));
        let ended = self.cloud.wait_end(&self.cloud.update(THING, program));
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    }

    fn updates_board(&self, seed: u64) -> (String, String) {
        let image = support::image::random_bytes(seed, 40_000);
        let job = self.cloud.update(THING, update::file(&image));
        let ended = self.cloud.wait_end(&job);
        (ended.status, ended.reason)
    }
}

#[test]
fn only_what_somebody_trusted_has_signed_is_loaded() {
    let scene = Scene::new();
    scene.refuses("nobody has signed it");
    let said = scene.exits_78(&["config", "check"], "otad sign ");
    assert!(said.contains("otad.toml:"), "with its place: {said}");
    let daemon = scene.gateway.run();
    daemon.wait_said("nobody has signed it");
    scene.board_is_down(&daemon, "1.1.0");
    daemon.stop();
    let stranger = Signer::new(&scene.gateway.path(""), "stranger");
    scene.sign(&stranger, &[]);
    scene.refuses("signed by nobody whom this gateway trusts (signer, vendor)");
    scene.sign(&scene.vendor, &[]);
    scene.refuses("which its manifest does not allow");
    scene.signed("1.1.0");
    let good = fs::read(scene.plugin()).unwrap();
    let changed = [&good[..], b"!"].concat();
    fs::write(scene.plugin(), changed).unwrap();
    scene.refuses("changed after it was signed");
    fs::write(scene.plugin(), good).unwrap();
    let daemon = scene.gateway.run();
    let ended = scene.updates_board(1);
    assert_eq!(ended.0, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.wait_said("signed by vendor");
    daemon.stop();
    // Accepted is accepted: what is older does not come in any more, unless somebody says so, loudly.
    scene.signed("1.0.9");
    scene.refuses("1.1.0 was accepted before");
    let mut scene = scene;
    scene.gateway.reconfigure(|lines| {
        lines.development = "allow_older_code = true".to_owned();
    });
    let daemon = scene.gateway.run();
    daemon.wait_said("DEVELOPMENT SETTING allow_older_code");
    daemon.stop();
}

#[test]
fn a_plugin_that_cannot_be_loaded_takes_no_other_target_down() {
    let mut scene = Scene::new();
    scene.gateway.reconfigure(|lines| {
        lines.development = "allow_file_plugins = true".to_owned();
    });
    fs::write(scene.plugin(), "no library").unwrap();
    let daemon = scene.gateway.run();
    daemon.wait_said("pal.so is refused: ");
    scene.board_is_down(&daemon, "1.1.0");
    daemon.stop();
}

#[test]
fn a_signer_who_is_not_trusted_any_more_loses_his_plugin_without_a_restart_and_another_may_follow()
{
    let scene = Scene::new();
    scene.signed("1.0.0");
    let mut daemon = scene.gateway.run();
    let next = Signer::new(&scene.gateway.path(""), "next");
    scene.vendor.trust(&scene.gateway, "vendor", false);
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again");
    daemon.wait_said("nobody whom this gateway trusts");
    scene.board_is_down(&daemon, "1.1.0");
    // A power cut does not take the rest of the gateway down.
    daemon.stop();
    let mut daemon = scene.gateway.run();
    scene.board_is_down(&daemon, "1.2.0");
    next.trust(&scene.gateway, "next", true);
    let pal = scene.gateway.path("pal");
    scene.sign(&next, &["--directory", pal.to_str().unwrap()]);
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again");
    let ended = scene.updates_board(2);
    assert_eq!(ended.0, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_signed_build_is_put_in_and_nothing_older_after_its_trial() {
    let scene = Scene::new();
    scene.signed("1.0.0");
    let mut daemon = scene.gateway.run();
    let next = scene.other("next.so", "1.1.0");
    let (code, said) = scene.swap(&[&next]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("nobody has signed it"), "{said}");
    let stranger = Signer::new(&scene.gateway.path(""), "stranger");
    stranger.sign(Path::new(&next), &[]);
    let (code, said) = scene.swap(&[&next]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("nobody whom this gateway trusts"), "{said}");
    scene.sign_for_board(Path::new(&next));
    let (code, said) = scene.swap(&[&next]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(scene.serves(), "1.1.0");
    // On trial it is no floor yet.
    let between = scene.other("between.so", "1.0.5");
    scene.sign_for_board(Path::new(&between));
    assert_eq!(scene.swap(&[&between]).0, Some(0));
    assert_eq!(scene.swap(&[&next]).0, Some(0));
    let ended = scene.updates_board(1);
    assert_eq!(ended.0, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.wait_line("1.1.0, signed by vendor, is accepted for target \"board\"");
    let account = scene.info()["account"].clone();
    let all = |key: &str| account[key]["all"].as_u64().expect(key);
    // A library reads the file from the host, which counts that, and not its instructions.
    assert!(all("host_call_bytes") >= 40_000, "{account}");
    assert!(
        all("handles") > 0 && all("memory_bytes") > 0 && all("calls") > 0,
        "{account}"
    );
    assert!(account["fuel"].is_null(), "{account}");
    daemon.stop();
    // The configured one is older than what was accepted, and does not serve: nothing is wrong with that.
    fs::remove_file(&next).unwrap();
    scene.gateway.expect_verb(&["config", "check"]);
    let daemon = scene.gateway.run();
    assert_eq!(scene.serves(), "1.1.0");
    let (code, said) = scene.swap(&[&between]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("1.1.0 was accepted before"), "{said}");
    assert!(said.contains("--allow-older"), "{said}");
    let (code, said) = scene.swap(&[&between, "--allow-older"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(scene.serves(), "1.0.5");
    scene.gateway.expect_verb(&["plugin", "rollback", "board"]);
    assert_eq!(scene.serves(), "1.1.0");
    daemon.stop();
}

#[test]
fn an_agent_from_a_file_is_signed_like_a_plugin() {
    let mut scene = Scene::new();
    scene.signed("1.0.0");
    let agent = scene.gateway.path("agent.wasm");
    fs::write(&agent, guest_artifacts::AGENT).unwrap();
    scene.gateway.reconfigure(|lines| {
        lines.device().agent = "component = \"./agent.wasm\"\n".to_owned();
    });
    scene.refuses("nobody has signed it");
    let stranger = Signer::new(&scene.gateway.path(""), "stranger");
    stranger.sign(&agent, &[]);
    scene.refuses("nobody whom this gateway trusts");
    // A plugin's manifest does not make a plugin an agent.
    fs::write(&agent, guest_artifacts::FLASH_FILE).unwrap();
    scene.vendor.sign(&agent, &[]);
    scene.refuses("and is to be agent");
    fs::write(&agent, guest_artifacts::AGENT).unwrap();
    scene.refuses("changed after it was signed");
    // The gateway comes up all the same, and says so.
    let daemon = scene.gateway.run();
    daemon.wait_said("changed after it was signed");
    daemon.wait_said("the built-in agent serves");
    let list = scene.gateway.expect_verb(&["agent", "list"]);
    assert!(list.contains("the built-in agent serves"), "{list}");
    let program = Update::of(image::program("1.0.1", "", 6000));
    let ended = scene.cloud.wait_end(&scene.cloud.update(THING, program));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.stop();
    scene.vendor.sign(&agent, &[]);
    let daemon = scene.gateway.run();
    let program = Update::of(image::program("1.1.0", "", 6000));
    let ended = scene.cloud.wait_end(&scene.cloud.update(THING, program));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.wait_said("agent.wasm, signed by vendor");
    let floor = scene
        .gateway
        .path(&format!("state/devices/{THING}/code.json"));
    assert!(fs::read_to_string(floor).unwrap().contains("sha256"));
    daemon.stop();
}

#[test]
fn a_signed_agent_is_put_in_and_nothing_older_after_its_trial() {
    let scene = Scene::new();
    scene.signed("1.0.0");
    let mut daemon = scene.gateway.run();
    let build = |version: &str| {
        let path = scene.gateway.path(&format!("agent-{version}.wasm"));
        fs::write(&path, as_version(guest_artifacts::AGENT, version)).unwrap();
        path
    };
    let swap = |path: &Path, more: &[&str]| {
        let verb = [&["agent", "swap", path.to_str().unwrap()], more].concat();
        let output = scene.gateway.verb(&verb);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let serves = || {
        let told = scene.gateway.expect_verb(&["agent", "list", "--json"]);
        let rows: serde_json::Value = serde_json::from_str(&told).unwrap();
        rows[0]["version"].as_str().unwrap().to_owned()
    };
    let refuses = |words: &str, path: &Path| {
        let before = serves();
        let (code, said) = swap(path, &[]);
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(serves(), before);
    };
    let next = build("1.1.0");
    refuses("nobody has signed it", &next);
    let stranger = Signer::new(&scene.gateway.path(""), "stranger");
    stranger.sign(&next, &[]);
    refuses("nobody whom this gateway trusts", &next);
    scene.vendor.sign(&next, &[]);
    let good = fs::read(&next).unwrap();
    fs::write(&next, [&good[..], b"!"].concat()).unwrap();
    refuses("changed after it was signed", &next);
    fs::write(&next, good).unwrap();
    assert_eq!(swap(&next, &["--trial", "1"]).0, Some(0));
    assert_eq!(serves(), "1.1.0");
    daemon.wait_line("1.1.0, signed by vendor, is accepted for");
    let older = build("1.0.5");
    scene.vendor.sign(&older, &[]);
    refuses("1.1.0 was accepted before", &older);
    let (code, said) = swap(&older, &["--allow-older"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(serves(), "1.0.5");
    scene.gateway.expect_verb(&["agent", "rollback"]);
    assert_eq!(serves(), "1.1.0");
    // Revoked, it serves until the next start; then something else does, as long as nobody vouches for it.
    scene.vendor.trust(&scene.gateway, "vendor", false);
    refuses("nobody whom this gateway trusts", &older);
    let chosen = format!("{}, which was put in for {THING}", next.display());
    scene.refuses(&chosen);
    daemon.stop();
    for _ in 0..2 {
        let daemon = scene.gateway.run();
        assert_eq!(serves(), "0.0.0");
        daemon.wait_said("built-in serves in its place");
        let list = scene.gateway.expect_verb(&["agent", "list"]);
        assert!(list.contains("nobody whom this gateway trusts"), "{list}");
        daemon.stop();
    }
    scene.vendor.trust(&scene.gateway, "vendor", true);
    let daemon = scene.gateway.run();
    assert_eq!(serves(), "1.1.0");
    daemon.stop();
}

#[test]
fn a_plugin_that_was_put_in_fails_all_jobs_while_nobody_vouches_for_it_and_serves_again_then() {
    let scene = Scene::new();
    scene.signed("1.0.0");
    let mut daemon = scene.gateway.run();
    let next = scene.other("next.so", "1.1.0");
    let maker = Signer::trusted(&scene.gateway, "maker");
    let pal = scene.gateway.path("pal");
    maker.sign(Path::new(&next), &["--directory", pal.to_str().unwrap()]);
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again");
    let (code, said) = scene.swap(&[&next]);
    assert_eq!(code, Some(0), "{said}");
    let ended = scene.updates_board(1);
    assert_eq!(ended.0, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.wait_line("1.1.0, signed by maker, is accepted for target \"board\"");
    maker.trust(&scene.gateway, "maker", false);
    let place = format!("which was put in for target \"board\" of {THING}");
    scene.refuses(&place);
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again");
    scene.board_is_down(&daemon, "1.1.0");
    daemon.stop();
    let mut daemon = scene.gateway.run();
    daemon.wait_said("nobody whom this gateway trusts");
    let info = scene.info();
    let refused = info["refused"].as_str().unwrap_or_default();
    assert!(
        refused.contains("nobody whom this gateway trusts"),
        "{info}"
    );
    assert_eq!(info["label"], *next, "{info}");
    scene.board_is_down(&daemon, "1.2.0");
    maker.trust(&scene.gateway, "maker", true);
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again");
    assert_eq!(scene.serves(), "1.1.0");
    let ended = scene.updates_board(2);
    assert_eq!(ended.0, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    // An operator need not wait for that.
    maker.trust(&scene.gateway, "maker", false);
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again");
    scene.gateway.expect_verb(&["plugin", "rollback", "board"]);
    assert_eq!(scene.serves(), "1.0.0");
    let ended = scene.updates_board(3);
    assert_eq!(ended.0, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_component_from_a_file_is_signed_and_verified_like_a_library() {
    let scene = Scene::new();
    let plugin = scene.gateway.path("slots.wasm");
    fs::write(&plugin, guest_artifacts::FLASH_FILE).unwrap();
    let run = |words: &[&str]| {
        let mut command = otad_command();
        command.args(words).current_dir(scene.gateway.path(""));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        (code, said, String::from_utf8(output.stdout).unwrap())
    };
    let (code, said, _) = run(&["verify", "slots.wasm", "--trust", "trust"]);
    assert_eq!(code, Some(6), "{said}");
    let (code, said, _) = run(&["sign", "slots.wasm", "--key", "vendor.key"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said, out) = run(&["verify", "slots.wasm", "--trust", "trust", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["signer"], "vendor");
    assert_eq!(told["name"], "pal-flash-file");
    // A bundle is judged as what is in it.
    fs::write(scene.gateway.path("agent.wasm"), guest_artifacts::AGENT).unwrap();
    let (code, said, _) = run(&["sign", "agent.wasm", "--key", "vendor.key", "--bundle"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said, out) = run(&["verify", "agent.wasm.bundle", "--trust", "trust", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["kind"], "agent");
    // Whoever keeps the key elsewhere signs the manifest with openssl.
    let (code, said, _) = run(&["sign", "slots.wasm", "--manifest-only"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said, _) = run(&["verify", "slots.wasm", "--trust", "trust"]);
    assert_eq!(code, Some(6), "{said}");
    // There is no bundle of what is not signed, nor does that change what was.
    let (code, said, _) = run(&["sign", "slots.wasm", "--bundle"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("there is no slots.wasm.manifest.sig"),
        "{said}"
    );
    let (code, said, _) = run(&["sign", "agent.wasm", "--bundle", "--fuel", "1000"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("the manifest stays as it is"), "{said}");
    let Some(openssl) = interop::program("openssl") else {
        return;
    };
    let sign = || {
        let status = Command::new(&openssl)
            .args(["dgst", "-sha256", "-sign", "vendor.key", "-out"])
            .args(["slots.wasm.manifest.sig", "slots.wasm.manifest"])
            .current_dir(scene.gateway.path(""))
            .status();
        assert!(status.unwrap().success());
    };
    sign();
    let (code, said, _) = run(&["verify", "slots.wasm", "--trust", "trust"]);
    assert_eq!(code, Some(0), "{said}");
    // And has the three in one file afterwards.
    let (code, said, _) = run(&["sign", "slots.wasm", "--bundle"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said, _) = run(&["verify", "slots.wasm.bundle", "--trust", "trust"]);
    assert_eq!(code, Some(0), "{said}");
    // Nor does a plugin become an agent by its manifest.
    let manifest = |name: &str| fs::read_to_string(scene.gateway.path(name)).unwrap();
    let (plugins, agents) = (
        manifest("slots.wasm.manifest"),
        manifest("agent.wasm.manifest"),
    );
    let line = |text: &str, key: &str| {
        let mut lines = text.lines();
        lines.find(|line| line.starts_with(key)).unwrap().to_owned()
    };
    let as_agent = ["kind = ", "world = "]
        .into_iter()
        .fold(plugins.clone(), |text, key| {
            text.replace(&line(&plugins, key), &line(&agents, key))
        });
    fs::write(scene.gateway.path("slots.wasm.manifest"), as_agent).unwrap();
    sign();
    let (code, said, _) = run(&["verify", "slots.wasm", "--trust", "trust"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("is to be plugin"), "{said}");
    fs::write(&plugin, guest_artifacts::AGENT).unwrap();
    let (code, said, _) = run(&["sign", "slots.wasm", "--bundle"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("changed after its manifest"), "{said}");
}

#[test]
fn an_image_is_verified_before_its_update_is_created() {
    let scene = Scene::new();
    let image = image::program("1.1.0", "", 6000);
    fs::write(scene.gateway.path("app.img"), &image).unwrap();
    let run = |words: &[&str]| {
        let mut command = otad_command();
        command.args(words).current_dir(scene.gateway.path(""));
        command.output().unwrap().status.code()
    };
    let verify = ["verify", "--image", "app.img", "--config", "otad.toml"];
    assert_eq!(run(&verify), Some(6), "nobody has signed it");
    assert_eq!(
        run(&["sign", "--image", "app.img", "--key", "vendor.key"]),
        Some(0)
    );
    assert_eq!(run(&verify), Some(0));
    // A gateway takes nothing by a certificate that has ended, whoever's key it is.
    let key = fs::read_to_string(&scene.vendor.key).unwrap();
    let pair = rcgen::KeyPair::from_pem(&key).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["ended".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let ended = params.self_signed(&pair).unwrap().pem();
    fs::write(scene.gateway.path("ended.pem"), ended).unwrap();
    let by_ended = ["verify", "--image", "app.img", "--certificate", "ended.pem"];
    assert_eq!(run(&by_ended), Some(6));
    fs::write(scene.gateway.path("app.img"), &image[1..]).unwrap();
    assert_eq!(run(&verify), Some(6));
}

#[test]
fn a_library_that_is_signed_for_two_targets_serves_both_after_a_restart() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let board = update::target(update::SETTINGS);
        let other = e2e::gateway::TargetLines {
            name: "other".to_owned(),
            file_id: 2,
            lines: board
                .lines
                .replace("staging/board", "staging/other")
                .replace("[\"pal\"]", "[\"other\"]"),
            ..board.clone()
        };
        lines.device().targets = vec![board, other];
    });
    let places = [("board", "pal"), ("other", "other")];
    let vendor = Signer::trusted(&gateway, "vendor");
    let directory = |place: &str| {
        let path = gateway.path(place);
        ["--directory".to_owned(), path.display().to_string()]
    };
    let sign = |path: &Path, granted: &[&str]| {
        let words: Vec<String> = granted.iter().flat_map(|at| directory(at)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        vendor.sign(path, &words);
    };
    for (_, place) in places {
        fs::create_dir(gateway.path(place)).unwrap();
        fs::write(gateway.path(place).join("signer.pem"), cloud.signer_pem()).unwrap();
    }
    Scene::build_at(&gateway.path("pal.so"), "1.0.0");
    sign(&gateway.path("pal.so"), &["pal", "other"]);
    let next = gateway.path("next.so");
    Scene::build_at(&next, "1.1.0");
    let daemon = gateway.run();
    for (target, place) in places {
        // Each time with the grants of one target and no more.
        sign(&next, &[place]);
        gateway.expect_verb(&["plugin", "swap", target, next.to_str().unwrap()]);
    }
    daemon.stop();
    let daemon = gateway.run();
    for (target, _) in places {
        let told = gateway.expect_verb(&["plugin", "info", target, "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told[0]["version"], "1.1.0", "{told:#}\n{}", daemon.log());
    }
    // What a swap has left that nobody goes back to is not kept until the next start.
    let kept = || fs::read_dir(gateway.path("state/plugins")).unwrap().count();
    let before = kept();
    for version in ["1.2.0", "1.3.0", "1.4.0"] {
        Scene::build_at(&next, version);
        sign(&next, &["pal"]);
        gateway.expect_verb(&["plugin", "swap", "board", next.to_str().unwrap()]);
    }
    let deadline = Deadline::after(PATIENCE);
    // The one that serves, the one before it, and the other target's: each with manifest and signature.
    while kept() > 9 {
        assert!(deadline.left().is_some(), "{before}, then {}", kept());
        pass(Duration::from_millis(20));
    }
    daemon.stop();
}
