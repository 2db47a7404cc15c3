//! A plugin of a stranger's, from nothing but the program: the project that `otad plugin new` makes is built, judged, signed,
//! and takes an update through the real daemon.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use e2e::gateway::TargetLines;
use e2e::{Cloud, Gateway, Signer, image};
use support::binary::{self, otad_command};
use support::interop;

use super::update::file;

const THING: &str = "pump-6";

fn run(folder: &Path, command: &mut Command) -> Output {
    let output = command.current_dir(folder).output().unwrap();
    let (said, told) = (&output.stderr, &output.stdout);
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(told),
        String::from_utf8_lossy(said)
    );
    output
}

fn otad(folder: &Path, words: &[&str]) -> String {
    let output = run(folder, otad_command().args(words));
    String::from_utf8(output.stdout).unwrap()
}

/// A gateway with a program in slots and one target more, whose lines are these.
fn gateway(cloud: &Cloud, lines: &str) -> Gateway {
    let target = TargetLines {
        name: "extra".to_owned(),
        file_id: 1,
        restart: String::new(),
        lines: lines.to_owned(),
    };
    let gateway = Gateway::with(cloud, &[THING], |lines| lines.device().targets.push(target));
    gateway.init(&image::program("1.0.0", "", 6000));
    gateway
}

/// Signs a plugin by a signer whom the gateway trusts from now on.
fn sign(gateway: &Gateway, plugin: &str, more: &[&str]) {
    let author = Signer::trusted(gateway, "author");
    author.sign(&gateway.path(plugin), more);
    gateway.expect_verb(&["plugin", "verify", plugin]);
}

/// An update of the target through the daemon; the image.
fn update(cloud: &Cloud, gateway: &Gateway) -> Vec<u8> {
    let daemon = gateway.run();
    let image = support::image::random_bytes(5, 50_000);
    let ended = cloud.wait_end(&cloud.update(THING, file(&image)));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.stop();
    image
}

#[test]
fn a_new_project_in_c_builds_is_fit_and_takes_an_update() {
    let Some(make) = interop::program("make") else {
        return;
    };
    let cloud = Cloud::start();
    let gateway = gateway(
        &cloud,
        "plugin = \"./board-pal.so\"\nstaging = \"staging/board\"\nversion_from = \"none\"\n\
         no_revert_allowed = true\n[device.target.native]\ndirectories = [\"board\"]\n\
         [device.target.settings]\nfilepath = \"image.bin\"\n",
    );
    let folder = gateway.path("");
    otad(&folder, &["plugin", "new", "board-pal", "--c"]);
    let again = otad_command()
        .args(["plugin", "new", "board-pal", "--c"])
        .current_dir(&folder)
        .output();
    assert_eq!(again.unwrap().status.code(), Some(1), "it is there");
    let project = folder.join("board-pal");
    let otad_folder = binary::otad().parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", otad_folder.display());
    let output = run(&project, Command::new(make).arg("test").env("PATH", path));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("a-staged-update-goes"), "{told}");
    fs::copy(project.join("board-pal.so"), folder.join("board-pal.so")).unwrap();
    let board = folder.join("board");
    fs::create_dir(&board).unwrap();
    sign(
        &gateway,
        "board-pal.so",
        &["--directory", board.to_str().unwrap()],
    );
    let image = update(&cloud, &gateway);
    assert!(fs::read(board.join("b")).unwrap() == image);
}

#[test]
fn a_new_project_in_rust_builds_and_is_fit() {
    let folder = support::temp_dir("project").unwrap();
    otad(folder.path(), &["plugin", "new", "pal-first", "--rust"]);
    let project = folder.path().join("pal-first");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Natively nothing is needed but what lies in the project.
    for words in [
        &["test", "--offline"][..],
        &["build", "--offline", "--features", "native"],
    ] {
        let target = project.join("target");
        run(
            &project,
            Command::new(&cargo)
                .args(words)
                .env("CARGO_TARGET_DIR", &target)
                .env_remove("RUSTFLAGS"),
        );
    }
    let library = "target/debug/libpal_first.so";
    otad(&project, &["plugin", "test", library]);
}

#[test]
fn a_module_is_wrapped_judged_signed_and_takes_an_update() {
    let cloud = Cloud::start();
    let gateway = gateway(
        &cloud,
        "plugin = \"./data.wasm\"\ndirectory = \"data\"\nversion_from = \"none\"\n\
         no_revert_allowed = true\n[device.target.settings]\n",
    );
    let folder = gateway.path("");
    fs::write(folder.join("module.wasm"), guest_artifacts::TEMPLATE_MODULE).unwrap();
    otad(
        &folder,
        &["plugin", "wrap", "module.wasm", "--output", "data.wasm"],
    );
    otad(&folder, &["plugin", "test", "data.wasm"]);
    sign(&gateway, "data.wasm", &[]);
    let image = update(&cloud, &gateway);
    let slot = fs::read(folder.join("data/slot-a")).unwrap();
    assert!(slot.starts_with(&image));
}
