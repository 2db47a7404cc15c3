//! The scenarios that everything is judged by, one row each.

use host_mcu_sim::Behaviour;
use host_runtime::agent::Command;

use super::{Deed, Ending, File, McuFile, Quality, Scenario, When};
use crate::ground::CutKind;

/// Blocks of the file of a standard scenario: three windows and a bit.
const BLOCKS: usize = 25;

/// A year, in seconds.
const YEAR_S: i64 = 365 * 24 * 3600;

/// States of the agent in which a job is cancelled (`agent-status.state`), with the name that its scenario ends in.
const CANCELLED_IN: [(u8, &str); 9] = [
    (4, "creating"),
    (6, "receiving"),
    (7, "closing"),
    (11, "installing"),
    (12, "waiting-for-activation"),
    (13, "waiting-for-restart"),
    (14, "testing"),
    (15, "committing"),
    (17, "reporting"),
];

/// All of them.
#[must_use]
pub fn standard() -> Vec<Scenario> {
    let mut all = vec![plain(), short(), two_files(), three_files()];
    all.extend(bad_images());
    all.extend(two_files_gone_wrong());
    all.push(three_files_gone_wrong());
    all.push(deferred());
    all.push(restarted_while_deferred());
    all.extend(clock_jumps());
    all.extend(two_jobs());
    all.extend(by_url());
    all.extend(in_json());
    all.extend(CANCELLED_IN.map(|(state, name)| cancelled(state, name)));
    all
}

/// The one of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<Scenario> {
    standard()
        .into_iter()
        .find(|scenario| scenario.name == name)
}

/// Jobs for the gateway's own software and two secondary MCUs: one that works, one that goes back. They need the plugin of
/// secondary MCUs, and are no standard ones for that reason.
#[must_use]
pub fn secondary() -> [Scenario; 2] {
    let mut works = story(
        "secondary",
        "a job for the gateway and two MCUs goes to all three",
    );
    works.files = vec![file(Quality::Good, 4)];
    let mcu = McuFile {
        body_bytes: 2000,
        behaviour: Behaviour::Serves,
    };
    works.mcus = vec![mcu.clone(), mcu];
    let mut goes_back = Scenario {
        name: "secondary-rollback".to_owned(),
        purpose: "an MCU that crashes in its test takes all three back".to_owned(),
        ending: Ending::Kept(""),
        ..works.clone()
    };
    // Later than the first look at it, in its self-test.
    goes_back.mcus[1].behaviour = Behaviour::Crashes {
        after_ns: 900_000_000,
    };
    [works, goes_back]
}

fn story(name: &str, purpose: &str) -> Scenario {
    Scenario {
        purpose: purpose.to_owned(),
        ..Scenario::plain(name, BLOCKS)
    }
}

fn plain() -> Scenario {
    story("plain", "an update from notification to commit")
}

fn short() -> Scenario {
    Scenario {
        purpose: "the shortest update: two blocks, for pairs of cuts".to_owned(),
        ..Scenario::plain("short", 2)
    }
}

fn two_files() -> Scenario {
    let mut scenario = story("two-files", "a job for two targets goes to both");
    scenario.files = vec![file(Quality::Good, 13), file(Quality::Good, 9)];
    scenario
}

fn three_files() -> Scenario {
    let mut scenario = story("three-files", "a job for three targets goes to all of them");
    scenario.files = [7, 5, 3].map(|blocks| file(Quality::Good, blocks)).to_vec();
    scenario
}

fn three_files_gone_wrong() -> Scenario {
    let mut scenario = story(
        "three-files-last-unhealthy",
        "one bad file takes all three back",
    );
    scenario.files = vec![
        file(Quality::Good, 5),
        file(Quality::Good, 4),
        file(Quality::Unhealthy, 3),
    ];
    scenario.ending = Ending::Kept("");
    scenario
}

fn file(quality: Quality, blocks: usize) -> File {
    File {
        size_bytes: blocks * super::BLOCK_BYTES,
        quality,
        settings: Vec::new(),
    }
}

fn bad_images() -> Vec<Scenario> {
    let rows = [
        (
            "bad-signature",
            "another image's signature: never marked for a start",
            Quality::BadSignature,
            "0x000000e3: 0x00000005",
        ),
        (
            "wrong-product",
            "an image for another product is refused before it is activated",
            Quality::WrongProduct,
            "0x000000d3",
        ),
        (
            "same-version",
            "the version that runs is refused before it is activated",
            Quality::SameVersion,
            "rejected: 0x00000010",
        ),
        (
            "unreadable",
            "a job that names no file is refused, and the service is told",
            Quality::Unreadable,
            "",
        ),
        (
            "never-starts",
            "an image that ends at once goes back by itself",
            Quality::NeverStarts,
            "rejected: 0x00000046",
        ),
        (
            "unhealthy",
            "an image that the health check refuses is taken back",
            Quality::Unhealthy,
            "",
        ),
        (
            "dies-in-test",
            "an image that ends again and again during its test goes back",
            Quality::Dies(4000),
            "",
        ),
    ];
    let row = |(name, purpose, quality, reason)| {
        let mut scenario = story(name, purpose);
        scenario.files[0].quality = quality;
        scenario.ending = Ending::Kept(reason);
        scenario
    };
    rows.map(row).to_vec()
}

fn two_files_gone_wrong() -> Vec<Scenario> {
    let rows = [
        (
            "two-files-first-unhealthy",
            Quality::Unhealthy,
            Quality::Good,
        ),
        (
            "two-files-second-unhealthy",
            Quality::Good,
            Quality::Unhealthy,
        ),
        (
            "two-files-second-never-starts",
            Quality::Good,
            Quality::NeverStarts,
        ),
        (
            "two-files-second-bad-signature",
            Quality::Good,
            Quality::BadSignature,
        ),
    ];
    let row = |(name, first, second)| {
        let mut scenario = story(name, "one bad file takes both back");
        scenario.files = vec![file(first, 7), file(second, 5)];
        scenario.ending = Ending::Kept("");
        scenario
    };
    rows.map(row).to_vec()
}

fn deferring(name: &str, purpose: &str) -> Scenario {
    let mut scenario = story(name, purpose);
    scenario.files[0].settings = vec![("activation".to_owned(), "deferred".to_owned())];
    scenario
}

fn deferred() -> Scenario {
    let mut scenario = deferring("deferred", "nothing is activated before it is ordered");
    scenario.deeds = vec![
        (When::InState(12), Deed::JumpWall(0)),
        (
            When::Then(90 * 60 * 1000),
            Deed::Order(Command::Activate(0)),
        ),
    ];
    scenario
}

fn restarted_while_deferred() -> Scenario {
    let mut scenario = deferring(
        "deferred-and-cut",
        "a deferral survives kills and power cuts",
    );
    scenario.deeds = vec![
        (When::InState(12), Deed::Cut(CutKind::Kill)),
        (When::Then(600_000), Deed::Cut(CutKind::Power)),
        (When::Then(600_000), Deed::Order(Command::Activate(0))),
    ];
    scenario
}

fn clock_jumps() -> Vec<Scenario> {
    let rows = [
        ("clock-forward", 10 * YEAR_S, Ending::Updated),
        ("clock-back", -3 * YEAR_S, Ending::Updated),
        // Beyond the certificate's validity: refused with its own number, not wedged.
        (
            "clock-beyond-validity",
            40 * YEAR_S,
            Ending::Kept("0x000000e7"),
        ),
        (
            "clock-before-validity",
            -50 * YEAR_S,
            Ending::Kept("0x000000e7"),
        ),
    ];
    let row = |(name, seconds, ending)| {
        let mut scenario = story(name, "a jump of the wall clock in mid-download");
        scenario.deeds = vec![(When::InState(6), Deed::JumpWall(seconds))];
        scenario.ending = ending;
        scenario
    };
    rows.map(row).to_vec()
}

fn two_jobs() -> Vec<Scenario> {
    // A notification takes 20 ms to the device: after 5 it has not heard of the empty queue yet.
    let after = |ms| (When::AfterEnd(ms), Deed::NextJob);
    let behind = (When::InState(6), Deed::NextJob);
    let rows = [
        (
            "two-jobs",
            "a second job that waits behind the first is done after it",
            Quality::Good,
            vec![behind.clone()],
        ),
        (
            "two-jobs-apart",
            "a job that comes just after another one has ended is done, though word of the empty queue comes late",
            Quality::Good,
            vec![after(5), (When::InState(6), Deed::StaleHint)],
        ),
        (
            "two-jobs-first-bad",
            "what a job has left behind that failed does no harm to the next",
            Quality::BadSignature,
            vec![after(1000)],
        ),
        (
            "two-jobs-first-unhealthy",
            "after an image that was taken back the next one is tried",
            Quality::Unhealthy,
            vec![behind],
        ),
        (
            "two-jobs-first-cancelled",
            "what is withdrawn in mid-download does no harm to the next",
            Quality::Good,
            vec![(When::InState(6), Deed::Cancel(true)), after(1000)],
        ),
    ];
    let row = |(name, purpose, quality, deeds)| {
        let mut scenario = story(name, purpose);
        scenario.files[0].quality = quality;
        scenario.deeds = deeds;
        scenario
    };
    rows.map(row).to_vec()
}

fn by_url() -> Vec<Scenario> {
    let rows = [
        ("by-url", "an update comes in ranges of its URLs", vec![25]),
        ("two-files-by-url", "so do two files", vec![13, 9]),
    ];
    let row = |(name, purpose, blocks)| {
        let prefer = ("protocols", "http,mqtt");
        let mut scenario = of_files(name, purpose, blocks, prefer);
        scenario.by_url = true;
        scenario
    };
    rows.map(row).to_vec()
}

fn in_json() -> Vec<Scenario> {
    let rows = [
        ("in-json", "an update comes in messages of JSON", vec![25]),
        ("two-files-in-json", "so do two files", vec![13, 9]),
    ];
    let encoding = ("stream_encoding", "json");
    rows.map(|(name, purpose, blocks)| of_files(name, purpose, blocks, encoding))
        .to_vec()
}

/// Good files of so many blocks each, and a setting.
fn of_files(name: &str, purpose: &str, blocks: Vec<usize>, setting: (&str, &str)) -> Scenario {
    let mut scenario = story(name, purpose);
    let files = blocks.into_iter();
    scenario.files = files.map(|blocks| file(Quality::Good, blocks)).collect();
    let (key, value) = setting;
    scenario.settings.push((key.to_owned(), value.to_owned()));
    scenario
}

fn cancelled(state: u8, name: &str) -> Scenario {
    let name = format!("cancelled-{name}");
    let purpose = "a job that is withdrawn leaves one good image, old or new, and an idle agent";
    let mut scenario = if state == 12 {
        deferring(&name, purpose)
    } else {
        story(&name, purpose)
    };
    scenario.deeds = vec![(When::InState(state), Deed::Cancel(true))];
    scenario.ending = Ending::Whole;
    scenario
}
