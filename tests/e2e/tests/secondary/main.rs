//! Secondary MCUs through the real daemon: the built-in plugin over a pseudo terminal to a simulated MCU with MCUboot's
//! swap and revert. What the MCU's own bootloader started decides, and the job's reason. What may go wrong on the line
//! itself is judged in virtual time, in `tests/secondary`; kills and power cuts at random are in `soak.rs`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use e2e::gateway::{Lines, TargetLines, target};
use e2e::mcu::{self, Secondary};
use e2e::{Cloud, Ended, Gateway, Update, image};
use host_cloud::service::StatusDetails;
use host_mcu_sim::fault::{Effect, Rule, Trigger};
use host_mcu_sim::{Behaviour, Geometry, Slot, sample};
use support::deadline::{Deadline, PATIENCE, now, pass};
use support::proxy::Proxy;

mod soak;

const THING: &str = "field-7";

/// The gateway's own software in these tests.
const SOFTWARE_BYTES: usize = 6000;

/// A gateway whose only target is this MCU, as file 1.
fn gateway(cloud: &Cloud, mcu: &Secondary) -> Gateway {
    Gateway::with(cloud, &[THING], |lines| {
        lines.device().targets = vec![mcu.target("mcu", 1)];
    })
}

/// The same, for a target that has a command for its reset input; it writes how long it was to pull it into `resets`.
fn gateway_with_reset(cloud: &Cloud, mut target: TargetLines) -> Gateway {
    let reset = "[device.target.hardware_reset]\ncommand = [\"./reset.sh\"]\nhold_ms = 20\n";
    target.lines.push_str(reset);
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        lines.device().targets = vec![target];
    });
    gateway.script(
        "reset.sh",
        "#!/bin/sh\necho \"$OTAD_HOLD_MS\" >> \"$(dirname \"$0\")/resets\"\n",
    );
    gateway
}

/// A gateway whose own software is file 0, with MCUs as files 1 and 2.
fn gateway_of_three(
    cloud: &Cloud,
    mcus: &[Secondary; 2],
    change: impl FnOnce(&mut Lines),
) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        let [pump, valve] = mcus;
        lines.device().targets = vec![
            target(THING, "main", 0),
            pump.target("pump", 1),
            valve.target("valve", 2),
        ];
        change(lines);
    });
    gateway.init(&image::program("1.0.0", "", SOFTWARE_BYTES));
    gateway
}

fn file(file_id: u8, version: &str) -> Update {
    Update {
        file_id,
        ..Update::of(mcu::image(version))
    }
}

/// One job for all three.
fn group(version: &str) -> Vec<Update> {
    let software = Update::of(image::program(version, "", SOFTWARE_BYTES));
    vec![software, file(1, version), file(2, version)]
}

fn run(cloud: &Cloud, update: Update) -> Ended {
    let job = cloud.update(THING, update);
    cloud.wait_end(&job)
}

fn confirmed(version: &str) -> (String, bool) {
    (version.to_owned(), true)
}

/// Versions of the targets as the daemon has them, by file id.
fn reported(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status();
    let targets = status["devices"][0]["targets"].as_array().unwrap();
    let version = |t: &serde_json::Value| t["running_version"].as_str().unwrap_or("").to_owned();
    targets.iter().map(version).collect()
}

#[test]
fn an_update_of_one_mcu_goes_from_job_to_commit() {
    let cloud = Cloud::start();
    let mcu = Secondary::start();
    let gateway = gateway(&cloud, &mcu);
    let mut daemon = gateway.run();
    // The line was opened and the MCU asked before anybody asked for a job.
    daemon.wait_line("new state [RequestingJob]");
    assert!(mcu.view().stats.answered > 0, "{}", daemon.log());
    let ended = run(&cloud, file(1, "1.1.0"));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert_eq!(mcu.runs(), confirmed("1.1.0"));
    assert_eq!(reported(&gateway), ["1.1.0"]);
    // One swap, and no restart beyond it.
    assert_eq!(mcu.view().stats.starts, 2);
    daemon.stop();
}

#[test]
fn an_image_that_its_signer_did_not_make_is_never_marked() {
    let cloud = Cloud::start();
    let mcu = Secondary::start();
    let gateway = gateway(&cloud, &mcu);
    let daemon = gateway.run();
    let good = mcu::image("1.1.0");
    let mut changed = good.clone();
    changed[20_000] ^= 1;
    let tampered = Update {
        file_id: 1,
        image: changed,
        signed: e2e::cloud::Signed::Before(good),
        ..Update::default()
    };
    let ended = run(&cloud, tampered);
    assert_eq!(ended.status, "FAILED", "{}", daemon.log());
    assert!(ended.reason.starts_with("0x000000e3"), "{ended:?}");
    assert_eq!(mcu.runs(), confirmed("1.0.0"));
    assert_eq!(mcu.view().stats.starts, 1, "it was not restarted");
    let view = mcu.view();
    let other = view.slot(0, Slot::Secondary);
    assert!(other.is_none_or(|slot| !slot.is_pending), "{other:?}");
    assert_eq!(run(&cloud, file(1, "1.2.0")).status, "SUCCEEDED");
}

#[test]
fn a_slow_download_is_pushed_while_it_comes() {
    let cloud = Cloud::start();
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    let mcu = Secondary::start();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let device = lines.device();
        device.targets = vec![mcu.target("mcu", 1)];
        device.port = proxy.addr().port();
        device.agent =
            "block_size = 1024\nblocks_per_request = 4\nstatus_frequency = 4\n".to_owned();
    });
    let daemon = gateway.run();
    // 40 KB in some five seconds: the line could carry them in a fifth of one.
    proxy.set_rate(Some(12 * 1024));
    let job = cloud.update(THING, file(1, "1.1.0"));
    cloud.wait_received(&job, 20);
    let sent = mcu.view().stats.uploaded_bytes;
    assert!(sent > 8 * 1024, "{sent} bytes\n{}", daemon.log());
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED", "{}", daemon.log());
    assert_eq!(mcu.runs(), confirmed("1.1.0"));
    let size = mcu::image("1.1.0").len() as u64;
    assert_eq!(
        mcu.view().stats.uploaded_bytes,
        size,
        "nothing was sent twice"
    );
}

#[test]
fn an_idle_target_is_restarted_and_listed_by_its_name_while_the_daemon_runs() {
    let cloud = Cloud::start();
    let mcu = Secondary::start();
    let gateway = gateway(&cloud, &mcu);
    let _daemon = gateway.run();
    // The daemon looks at the target first; until it has, the line is not free.
    let deadline = Deadline::after(PATIENCE);
    let reset = loop {
        let output = gateway.verb(&["target", "reset", "mcu", "--json"]);
        if output.status.code() != Some(3) || deadline.left().is_none() {
            break output;
        }
        pass(Duration::from_millis(100));
    };
    let answer = String::from_utf8_lossy(&reset.stdout);
    assert!(answer.contains("\"version\":\"1.0.0\""), "{answer}");
    assert_eq!(mcu.view().stats.starts, 2);
    let listed = gateway.expect_verb(&["mcu", "image", "list", "--target", "mcu"]);
    assert!(listed.starts_with("0.0  1.0.0"), "{listed}");
    let missing = gateway.verb(&["target", "reset", "nobody"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_target_that_does_not_answer_is_restarted_by_its_reset_input() {
    let cloud = Cloud::start();
    let mcu = Secondary::with(|config| {
        config.behaviours = vec![("1.0.0".to_owned(), Behaviour::Silent)];
    });
    let gateway = gateway_with_reset(&cloud, mcu.target("mcu", 1));
    // No daemon: the line is free. The program that it would answer with never comes, so patience ends.
    let reset = gateway.verb(&["target", "reset", "mcu", "--timeout", "1"]);
    let said = String::from_utf8_lossy(&reset.stdout);
    assert!(said.contains("its reset input is pulled"), "{reset:?}");
    assert_eq!(reset.status.code(), Some(3), "{reset:?}");
    let pulled = || std::fs::read_to_string(gateway.path("resets")).unwrap();
    assert_eq!(pulled(), "20\n");
    let reset = gateway.verb(&["target", "reset", "mcu", "--hardware", "--timeout", "1"]);
    assert_eq!(reset.status.code(), Some(3), "{reset:?}");
    assert_eq!(pulled(), "20\n20\n");
}

#[test]
fn an_mcu_that_is_pulled_out_in_mid_update_and_put_back_is_updated() {
    let cloud = Cloud::start();
    let mcu = Secondary::with(|config| config.timing.baud = Some(115_200));
    let gateway = gateway(&cloud, &mcu);
    let daemon = gateway.run();
    let job = cloud.update(THING, file(1, "1.1.0"));
    mcu.wait("upload", |view| view.stats.uploaded_bytes > 8_000);
    mcu.with_mcu(|mcu, now_ns| mcu.unplug(now_ns, None));
    pass(Duration::from_secs(1));
    assert!(!mcu.port().exists(), "the device is gone");
    mcu.with_mcu(|mcu, now_ns| mcu.plug(now_ns));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED", "{}", daemon.log());
    assert_eq!(mcu.runs(), confirmed("1.1.0"));
    daemon.wait_said("the line is gone");
}

#[test]
fn a_new_image_that_never_answers_is_reset_by_the_operators_command() {
    let cloud = Cloud::start();
    let mcu = Secondary::with(|config| {
        config.behaviours = vec![("1.1.0".to_owned(), Behaviour::Silent)];
    });
    let mut target = mcu.target("mcu", 1);
    target.lines = target
        .lines
        .replace("swap_timeout_ms = 20000", "swap_timeout_ms = 3000");
    let gateway = gateway_with_reset(&cloud, target);
    let daemon = gateway.run();
    let job = cloud.update(THING, file(1, "1.1.0"));
    // The command stands for a relay: what it does to the MCU is done here.
    let resets = gateway.path("resets");
    let mut seen = 0;
    let deadline = Deadline::after(PATIENCE);
    while cloud.now(&job).status != "FAILED" {
        let count = std::fs::read_to_string(&resets).map_or(0, |text| text.lines().count());
        if count > seen {
            seen = count;
            mcu.with_mcu(|mcu, now_ns| mcu.hardware_reset(now_ns));
        }
        assert!(deadline.left().is_some(), "{}", daemon.log());
        pass(Duration::from_millis(20));
    }
    assert!(seen > 0, "{}", daemon.log());
    let held = std::fs::read_to_string(&resets).unwrap();
    assert!(held.lines().all(|line| line == "20"), "{held}");
    assert_eq!(mcu.runs(), confirmed("1.0.0"));
    assert_eq!(run(&cloud, file(1, "1.2.0")).status, "SUCCEEDED");
}

#[test]
fn software_and_two_mcus_are_updated_by_one_job() {
    let cloud = Cloud::start();
    let mcus = [Secondary::start(), Secondary::start()];
    let gateway = gateway_of_three(&cloud, &mcus, |_| {});
    let daemon = gateway.run();
    let job = cloud.update_group(THING, group("1.1.0"));
    let ended = cloud.wait_end(&job);
    assert_eq!(
        ended.as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0"),
        "{}",
        daemon.log()
    );
    for mcu in &mcus {
        assert_eq!(mcu.runs(), confirmed("1.1.0"));
    }
    assert_eq!(reported(&gateway), ["1.1.0"; 3]);
    assert_eq!(cloud.stats().connections, 1, "one for all of them");
    // What runs is told of each target at every start.
    daemon.stop();
    let daemon = gateway.run();
    for (file, name) in ["main", "pump", "valve"].into_iter().enumerate() {
        daemon.wait_said(&format!("target {name} (file {file}) runs version 1.1.0"));
    }
}

#[test]
fn an_mcu_that_is_not_there_at_the_start_is_named_and_holds_up_nobody_else() {
    const OTHER: &str = "other";
    let cloud = Cloud::start();
    let mcu = Secondary::start();
    mcu.with_mcu(|mcu, now| mcu.unplug(now, None));
    let gateway = Gateway::with(&cloud, &[THING, OTHER], |lines| {
        lines.device().targets = vec![mcu.target("mcu", 1)];
    });
    gateway.init(&image::program("1.0.0", "", SOFTWARE_BYTES));
    let daemon = gateway.run();
    let software = Update::of(image::program("1.1.0", "", SOFTWARE_BYTES));
    let ended = cloud.wait_end(&cloud.update(OTHER, software));
    assert_eq!(ended.status, "SUCCEEDED", "{}", daemon.log());
    let said = daemon.wait_said("no such device: is it plugged in?");
    assert!(said.contains(THING), "{said}");
    assert!(said.contains(mcu.port().to_str().unwrap()), "{said}");
    mcu.with_mcu(|mcu, now| mcu.plug(now));
    let ended = run(&cloud, file(1, "1.1.0"));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert_eq!(mcu.runs(), confirmed("1.1.0"));
}

#[test]
fn the_push_into_each_mcu_is_told_in_the_status_of_the_job() {
    let cloud = Cloud::start();
    let slow = || Secondary::with(|config| config.timing.baud = Some(115_200));
    let mcus = [slow(), slow()];
    let gateway = gateway_of_three(&cloud, &mcus, |_| {});
    let daemon = gateway.run();
    let job = cloud.update_group(THING, group("1.1.0"));
    let mut watch = cloud.operator().watch(&job).unwrap();
    let told = cloud.block_on(async {
        let mut told = Vec::new();
        while let Ok(Some(change)) = tokio::time::timeout(PATIENCE, watch.next()).await {
            told.push(change.status_details);
        }
        told
    });
    assert_eq!(cloud.now(&job).status, "SUCCEEDED", "{}", daemon.log());
    let text = |details: &StatusDetails, key: &str| {
        let value = details.get(key).and_then(|value| value.as_str());
        value.map(str::to_owned)
    };
    let pushes: Vec<_> = told.iter().filter(|d| d.contains_key("install")).collect();
    assert!(pushes.len() >= 2, "{told:?}");
    let size = mcu::image("1.1.0").len();
    for details in pushes {
        let now = text(details, "install").unwrap();
        assert!(now.ends_with(&format!("/{size}")), "{details:?}");
        let now = Some(format!("install {now}"));
        assert!(
            ["file-1", "file-2"]
                .iter()
                .any(|file| text(details, file) == now)
        );
        assert_eq!(text(details, "file-0").as_deref(), Some("receive 2/2"));
    }
}

/// Things of the gateway below, each with an MCU of its own.
const MANY: usize = 16;

/// Makespan in thousandths of the slowest update alone: with files that take their time, and where the machine's own
/// work weighs as much as the line's.
const MANY_BOUND_FULL: u128 = 1200;
const MANY_BOUND_SMALL: u128 = 6000;

#[test]
fn sixteen_mcus_behind_one_gateway_take_the_time_of_the_slowest_alone() {
    let asked = std::env::var("OTAD_MANY_KIB").ok();
    let asked: Option<usize> = asked.map(|kib| kib.parse().unwrap());
    let (baud, largest) = match asked {
        Some(kib) => (115_200, kib << 10),
        None => (mcu::FAST_BAUD, 8 << 10),
    };
    let cloud = Cloud::start();
    let things: Vec<String> = (0..MANY).map(|n| format!("field-{n}")).collect();
    let mcus: Vec<Secondary> = (0..MANY)
        .map(|_| {
            Secondary::with(|config| {
                config.timing.baud = Some(baud);
                let slot_bytes = (largest + (32 << 10)).next_multiple_of(4096);
                let slot_bytes = u32::try_from(slot_bytes).unwrap();
                config.geometry = Geometry::new(4096, slot_bytes, 1).unwrap();
                config.factory.primary = vec![sample::image("1.0.0", 2000)];
            })
        })
        .collect();
    let names: Vec<&str> = things.iter().map(String::as_str).collect();
    let gateway = Gateway::with(&cloud, &names, |lines| {
        for (device, mcu) in lines.devices.iter_mut().zip(&mcus) {
            let mut target = mcu.target("mcu", 1);
            let fast = format!("baud = {}", mcu::FAST_BAUD);
            target.lines = target.lines.replace(&fast, &format!("baud = {baud}"));
            device.targets = vec![target];
        }
    });
    let _daemon = gateway.run();
    let begin = |n: usize, version: &str| {
        let body = largest * (MANY + n + 1) / (2 * MANY);
        let update = Update {
            file_id: 1,
            ..Update::of(sample::image(version, body))
        };
        cloud.update(&things[n], update)
    };
    let time_alone = |version: &str| {
        let clock = now();
        let alone = begin(MANY - 1, version);
        assert_eq!(cloud.wait_end(&alone).status, "SUCCEEDED");
        clock.elapsed()
    };
    let before = time_alone("1.1.0");
    let clock = now();
    let jobs: Vec<_> = (0..MANY).map(|n| begin(n, "1.2.0")).collect();
    for job in &jobs {
        assert_eq!(cloud.wait_end(job).status, "SUCCEEDED");
    }
    let together = clock.elapsed();
    for mcu in &mcus {
        assert_eq!(mcu.runs(), confirmed("1.2.0"));
    }
    // Other tests run beside this one, and not all the time.
    let alone = before.max(time_alone("1.3.0"));
    let thousandths = together.as_micros() * 1000 / alone.as_micros().max(1);
    let bound = match asked {
        Some(_) => MANY_BOUND_FULL,
        None => MANY_BOUND_SMALL,
    };
    let figures = format!("{MANY} updates: {together:?}, the slowest alone {alone:?}");
    assert!(thousandths <= bound, "{figures}");
    println!("{figures}");
}

/// Two MCUs; the second one's new image crashes in its test, again and again.
fn one_that_crashes() -> [Secondary; 2] {
    let crashes = Behaviour::Crashes {
        after_ns: 400_000_000,
    };
    [
        Secondary::start(),
        Secondary::with(|config| config.behaviours = vec![("1.1.0".to_owned(), crashes)]),
    ]
}

#[test]
fn one_mcu_that_fails_its_test_takes_the_whole_group_back() {
    let cloud = Cloud::start();
    let mcus = one_that_crashes();
    let gateway = gateway_of_three(&cloud, &mcus, |_| {});
    let daemon = gateway.run();
    let job = cloud.update_group(THING, group("1.1.0"));
    assert_eq!(cloud.wait_end(&job).status, "FAILED", "{}", daemon.log());
    for mcu in &mcus {
        assert_eq!(mcu.runs(), confirmed("1.0.0"), "{}", daemon.log());
    }
    let next = cloud.update_group(THING, group("1.2.0"));
    assert_eq!(
        cloud.wait_end(&next).status,
        "SUCCEEDED",
        "{}",
        daemon.log()
    );
    assert_eq!(reported(&gateway), ["1.2.0"; 3]);
}

#[test]
fn what_cannot_be_confirmed_after_the_decision_is_told_as_a_split_group() {
    let cloud = Cloud::start();
    // The second state write is the confirmation: it is refused, and so is every later one.
    let refuses = Rule {
        effect: Effect::Answer(1),
        trigger: Trigger::StateWrite,
        at: 2,
        times: u32::MAX,
    };
    let mcus = [
        Secondary::start(),
        Secondary::with(|config| config.rules = vec![refuses]),
    ];
    let gateway = gateway_of_three(&cloud, &mcus, |lines| {
        lines.device().agent = "update_attempts = 1\nrequest_timeout_ms = 500\n".to_owned();
    });
    let daemon = gateway.run();
    let job = cloud.update_group(THING, group("1.1.0"));
    assert_eq!(cloud.wait_end(&job).status, "FAILED", "{}", daemon.log());
    let view = cloud.operator().show(&job).unwrap();
    let details = &view.executions[0].status_details;
    let split = details.get("group-split").and_then(|text| text.as_str());
    let split = split.unwrap_or_else(|| panic!("{details:?}\n{}", daemon.log()));
    assert!(split.starts_with("0=1.1.0 1=1.1.0 2="), "{split}");
    // What was decided stays; what never confirmed goes back at its next start.
    assert_eq!(mcus[0].runs(), confirmed("1.1.0"));
    mcus[1].with_mcu(|mcu, now_ns| mcu.power_cut(now_ns));
    mcus[1].wait("revert", |view| view.active_version() == Some("1.0.0"));
}

#[test]
fn with_best_effort_one_mcu_that_fails_takes_no_other_back() {
    let cloud = Cloud::start();
    let mcus = one_that_crashes();
    let gateway = gateway_of_three(&cloud, &mcus, |_| {});
    let daemon = gateway.run();
    let image = gateway.path("mcu.img");
    std::fs::write(&image, mcu::image("1.1.0")).unwrap();
    let mut command = support::binary::otad_command();
    command.args([
        "update",
        "create",
        "--wait",
        "--best-effort",
        "--thing",
        THING,
    ]);
    command.arg("--cloud").arg(cloud.dir());
    for file_id in [2, 1] {
        let keyed = format!("{file_id}={}", image.display());
        command.args(["--file", &keyed]);
    }
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{output:?}\n{}",
        daemon.log()
    );
    assert_eq!(mcus[0].runs(), confirmed("1.1.0"), "{}", daemon.log());
    assert_eq!(mcus[1].runs(), confirmed("1.0.0"));
}

#[test]
fn an_image_for_another_bootloader_key_is_refused_there_and_told() {
    let ours = sample::Signer::of_seed(1);
    let body = sample::noise("1.0.0", 20_000);
    let cloud = Cloud::start();
    let mcu = Secondary::with(|config| {
        config.key = Some(ours.key());
        config.factory.primary = vec![ours.image("1.0.0", &body)];
    });
    let gateway = gateway(&cloud, &mcu);
    let daemon = gateway.run();
    let foreign = Update {
        file_id: 1,
        ..Update::of(sample::Signer::of_seed(2).image("1.1.0", &body))
    };
    let ended = run(&cloud, foreign);
    assert_eq!(ended.status, "FAILED", "{}", daemon.log());
    assert_eq!(mcu.runs(), confirmed("1.0.0"));
    let good = Update {
        file_id: 1,
        ..Update::of(ours.image("1.1.0", &body))
    };
    assert_eq!(run(&cloud, good).status, "SUCCEEDED", "{}", daemon.log());
}
