//! What a field engineer does to an MCU by hand: `otad mcu` against a simulated one, on a terminal and on TCP.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::mcu::{self, Secondary};
use host_mcu_sim::{Config, Geometry, Mcu, Port, Profile, Simulation, Timing, sample};
use serde_json::{Value, json};
use support::binary;
use support::process::Process;

const PATIENCE: Duration = Duration::from_secs(20);
/// Slow enough that a kill can meet the middle of an upload.
const SLOW_BAUD: u32 = 230_400;

/// Runs `otad mcu VERB --port PORT --json ...`; exit code, answer, and what it complained about.
fn otad_mcu(port: &str, verb: &[&str], rest: &[&str]) -> (i32, Value, String) {
    let output = binary::otad_command()
        .arg("mcu")
        .args(verb)
        .args(["--port", port, "--json"])
        .args(rest)
        .output()
        .unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let complaint = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), answer, complaint)
}

/// Version and flags of each image, by slot: `1.0.0 AC | 2.0.0 P`.
fn told(answer: &Value) -> String {
    let one = |image: &Value| {
        let flags = [("active", 'A'), ("confirmed", 'C'), ("pending", 'P')];
        let flags: String = flags
            .iter()
            .filter(|(name, _)| image[*name] == true)
            .map(|(_, letter)| *letter)
            .collect();
        let line = format!("{} {flags}", image["version"].as_str().unwrap());
        line.trim_end().to_owned()
    };
    let images = answer["images"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    images.iter().map(one).collect::<Vec<_>>().join(" | ")
}

fn put(folder: &Path, version: &str) -> PathBuf {
    let path = folder.join(format!("{version}.bin"));
    std::fs::write(&path, mcu::image(version)).unwrap();
    path
}

#[test]
fn an_engineer_uploads_tests_goes_back_and_confirms() {
    let mcu = Secondary::start();
    let port = mcu.port().display().to_string();
    let folder = support::temp_dir("engineer").unwrap();
    let new = put(folder.path(), "2.0.0").display().to_string();
    let image = |verb: &str, rest: &[&str]| otad_mcu(&port, &["image", verb], rest);
    let list = || told(&image("list", &[]).1);

    assert_eq!(otad_mcu(&port, &["echo"], &["hello"]).1["echo"], "hello");
    assert_eq!(list(), "1.0.0 AC");
    let (code, uploaded, complaint) = image("upload", &[&new]);
    assert_eq!((code, complaint.as_str()), (0, ""));
    let size = std::fs::metadata(&new).unwrap().len();
    assert_eq!(uploaded["uploaded"], size);
    assert_eq!(
        (&uploaded["slot"], &uploaded["resumed_at"]),
        (&json!(1), &json!(0))
    );
    assert!(
        uploaded["bytes_per_s"].as_u64().unwrap() > 10_000,
        "{uploaded}"
    );
    // What lies there is not sent again.
    let (code, again, _) = image("upload", &[&new]);
    assert_eq!((code, &again["uploaded"]), (0, &json!(0)));

    let (code, marked, _) = image("test", &[]);
    assert_eq!((code, told(&marked).as_str()), (0, "1.0.0 AC | 2.0.0 P"));
    assert_eq!(image("test", &[]).0, 2, "marked already");
    let (code, _, complaint) = image("erase", &[]);
    assert_eq!(code, 5, "{complaint}");
    assert!(complaint.contains("no slot is free"), "{complaint}");

    let (code, tried, _) = otad_mcu(&port, &["reset"], &[]);
    assert_eq!((code, told(&tried).as_str()), (0, "2.0.0 A | 1.0.0 C"));
    // The trap: a test of the old image would confirm the new one.
    let (code, _, complaint) = image("test", &[]);
    assert_eq!(code, 5, "{complaint}");
    assert!(complaint.contains("2.0.0 runs on trial"), "{complaint}");
    let (_, back, _) = otad_mcu(&port, &["reset"], &[]);
    assert_eq!(told(&back), "1.0.0 AC | 2.0.0");

    let hash = &uploaded["hash"].as_str().unwrap()[..8];
    assert_eq!(image("test", &[hash]).0, 0);
    otad_mcu(&port, &["reset"], &[]);
    let (code, confirmed, _) = image("confirm", &[]);
    assert_eq!((code, told(&confirmed).as_str()), (0, "2.0.0 AC | 1.0.0"));
    assert_eq!(image("confirm", &[]).0, 0);
    assert_eq!(image("upload", &[&new]).0, 2, "it runs already");
    assert_eq!(image("erase", &[]).0, 0);
    assert_eq!(list(), "2.0.0 AC");
    assert_eq!(image("test", &[]).0, 2, "nothing is there to test");
}

#[test]
fn a_mark_whose_answer_is_lost_is_found_in_the_list() {
    let lost = "lose-response@state-write".parse().unwrap();
    let mcu = Secondary::with(|config| config.rules = vec![lost]);
    let port = mcu.port().display().to_string();
    let folder = support::temp_dir("engineer").unwrap();
    let new = put(folder.path(), "2.0.0").display().to_string();
    let (code, _, complaint) = otad_mcu(&port, &["image", "upload"], &[&new]);
    assert_eq!(code, 0, "{complaint}");
    let (code, marked, complaint) = otad_mcu(&port, &["image", "test"], &[]);
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(told(&marked), "1.0.0 AC | 2.0.0 P");
}

#[test]
fn an_upload_that_was_killed_goes_on_where_it_stopped() {
    let mut config = Config::new(Geometry::new(4096, 128 << 10, 1).unwrap());
    config.factory.primary = vec![sample::image("1.0.0", 8_000)];
    config.timing = Timing::line(SLOW_BAUD);
    let port = Port::Tcp(([127, 0, 0, 1], 0).into());
    let simulation = Simulation::start(Mcu::new(config).unwrap(), &port).unwrap();
    let port = format!("tcp://{}", simulation.address());
    let folder = support::temp_dir("engineer").unwrap();
    let new = put(folder.path(), "2.0.0").display().to_string();
    let mut command = binary::otad_command();
    command.args(["mcu", "image", "upload", &new, "--port", &port]);
    let mut first = Process::start("upload", command).unwrap();
    let line = first.wait_line("40 % of", PATIENCE).unwrap();
    assert!(line.contains("KiB/s") && line.contains("s left"), "{line}");
    first.kill(PATIENCE).unwrap();

    let (code, second, complaint) = otad_mcu(&port, &["image", "upload"], &[&new]);

    assert_eq!(code, 0, "{complaint}");
    let size = std::fs::metadata(&new).unwrap().len();
    let resumed_at = second["resumed_at"].as_u64().unwrap();
    assert!(resumed_at >= size * 4 / 10, "{second}");
    assert_eq!(second["uploaded"].as_u64().unwrap() + resumed_at, size);
    assert_eq!(
        simulation.with(|mcu, _| mcu.view()).stats.uploaded_bytes,
        size
    );
}

#[test]
fn an_upload_never_goes_over_what_runs_whichever_recovery_answers() {
    let folder = support::temp_dir("engineer").unwrap();
    let new = put(folder.path(), "2.0.0").display().to_string();
    let plain = Profile::recovery_4_4();
    // Built with an echo, it looks like an application.
    let like_an_application = Profile {
        has_echo: true,
        recovery_lists_active: true,
        ..plain.clone()
    };
    for recovery in [plain, like_an_application] {
        let mcu = Secondary::with(|config| config.recovery = Some(recovery));
        let port = mcu.port().display().to_string();
        let (_, _, complaint) = otad_mcu(&port, &["reset"], &["--recovery"]);
        let (code, _, refused) = otad_mcu(&port, &["image", "upload"], &[&new]);
        assert_eq!(code, 5, "{complaint}{refused}");
        assert!(refused.contains("a bootloader's own server"), "{refused}");
        assert_eq!(mcu.view().stats.uploaded_bytes, 0);
    }
}

/// Port, verb, the rest; exit code, and what the complaint holds.
type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], i32, &'a str);

#[test]
fn what_cannot_work_is_said_with_its_exit_code() {
    let folder = support::temp_dir("engineer").unwrap();
    let mcu = Secondary::start();
    let port = mcu.port().display().to_string();
    let mut bytes = mcu::image("2.0.0");
    bytes[5000] ^= 1;
    let damaged = folder.path().join("damaged.bin");
    std::fs::write(&damaged, bytes).unwrap();
    let text = folder.path().join("text.bin");
    std::fs::write(
        &text,
        "this is no image, whatever its name says; it is only text",
    )
    .unwrap();
    // A listener that takes the connection and never answers.
    let deaf = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let deaf = format!("tcp://{}", deaf.local_addr().unwrap());
    let upload = ["image", "upload"];
    let rows: &[Row<'_>] = &[
        (
            &port,
            &upload,
            &[damaged.to_str().unwrap()],
            6,
            "damaged.bin: ",
        ),
        (
            &port,
            &upload,
            &[text.to_str().unwrap()],
            6,
            "name a file that imgtool signed",
        ),
        (
            &port,
            &upload,
            &["/nowhere/new.bin"],
            1,
            "/nowhere/new.bin: ",
        ),
        (
            &port,
            &["image", "test"],
            &["xyz"],
            64,
            "hexadecimal digits",
        ),
        (&port, &["image", "test"], &["abcdef"], 2, "no such image"),
        ("/nowhere/tty", &["image", "list"], &[], 3, "/nowhere/tty"),
        ("ftp://x", &["image", "list"], &[], 64, "tcp://host:port"),
        (
            &deaf,
            &["echo"],
            &[],
            3,
            "the target does not answer; is it the right line",
        ),
    ];
    for (port, verb, rest, code, text) in rows {
        let (found, _, complaint) = otad_mcu(port, verb, rest);
        assert_eq!(found, *code, "{verb:?} {rest:?}: {complaint}");
        assert!(complaint.contains(text), "{verb:?} {rest:?}: {complaint}");
    }
    assert_eq!(mcu.view().stats.uploaded_bytes, 0);
}
