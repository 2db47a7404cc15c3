//! The program's command line from outside: exit codes, help, and errors that say what to do. Rows: arguments, code,
//! words on standard error.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::process::{Command, Output};

fn otad(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otad"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTAD_") {
            command.env_remove(name);
        }
    }
    command.env("OTAD_CLOUD_WAIT_MS", "0");
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Arguments, exit code, words on standard error.
type Row = (&'static [&'static str], i32, &'static [&'static str]);

const WRONG: &[Row] = &[
    (&[], 64, &["Usage: otad <COMMAND>"]),
    (&["updat"], 64, &["unrecognized subcommand", "update"]),
    (&["run", "--config"], 64, &["a value is required"]),
    (
        &["run", "--config", "/nowhere/otad.toml"],
        78,
        &["/nowhere/otad.toml: cannot be read", "otad thing create"],
    ),
    (&["run", "--config", "/"], 78, &["not a file"]),
    (
        &["config", "check", "--config", "/nowhere/x"],
        78,
        &["cannot be read"],
    ),
    (
        &["status", "--socket", "/nowhere/control.sock"],
        3,
        &["no daemon listens", "otad run"],
    ),
    (
        &["events", "--socket", "/nowhere/control.sock"],
        3,
        &["no daemon listens"],
    ),
    (&["events", "--after", "x"], 64, &["invalid value 'x'"]),
    (
        &["commit", "--socket", "/nowhere/s"],
        3,
        &["no daemon listens"],
    ),
    (
        &["mcu-sim", "--slot-size", "1000"],
        64,
        &["1000 bytes is no multiple of its sectors of 4096"],
    ),
    (
        &["mcu-sim", "--fault", "busy"],
        64,
        &["`busy` is no fault", "lose-response@upload-last"],
    ),
    (&["launch"], 64, &["<TARGET>"]),
    (
        &["launch", "main", "--config", "/nowhere/x"],
        78,
        &["cannot be read"],
    ),
    (
        &["image", "pack", "/nowhere/app", "--version", "1.0"],
        64,
        &["--version: \"1.0\" is no version", "1.1.0"],
    ),
    (&["image", "pack", "/nowhere/app"], 64, &["--version <V>"]),
    (
        &["image", "pack", "/nowhere/app", "--version", "1.0.0"],
        1,
        &["/nowhere/app"],
    ),
    (&["image", "show", "/nowhere/app"], 1, &["/nowhere/app"]),
    (&["target", "init", "main"], 64, &["<FILE>"]),
    (
        &["update", "create"],
        64,
        &[
            "--cloud is missing",
            "--thing or --group is missing",
            "--file is missing",
        ],
    ),
    (
        &[
            "update", "create", "--cloud", "/nowhere", "--thing", "a b", "--file", "/x",
        ],
        64,
        &["--thing"],
    ),
    (
        &[
            "update", "create", "--cloud", "/nowhere", "--thing", "a", "--file", "/x",
        ],
        1,
        &["--file /x", "no cloud answers", "otad cloud"],
    ),
    (
        &[
            "update",
            "create",
            "--cloud",
            "c",
            "--thing",
            "a",
            "--file",
            "f",
            "--key",
            "k",
            "--unsigned",
        ],
        64,
        &["cannot be used with"],
    ),
    (
        &["update", "show", "--cloud", "/nowhere", "j"],
        3,
        &["no cloud answers"],
    ),
    (
        &[
            "thing", "create", "a b", "--cloud", "/nowhere", "--out", "x",
        ],
        64,
        &["otad: thing name \"a b\" is not valid", "1 to 128"],
    ),
    (
        &[
            "thing",
            "create",
            "a",
            "--cloud",
            "/nowhere",
            "--out",
            "/nowhere/x",
        ],
        3,
        &["no cloud answers"],
    ),
    (&["cloud"], 64, &["--dir <DIR>"]),
    (&["cloud", "--dir", "/proc/nowhere"], 1, &["/proc/nowhere"]),
    (
        &["demo", "--scenario", "toast"],
        64,
        &["no scenario \"toast\"", "bad-signature"],
    ),
    (&["demo", "--dir", "/proc"], 5, &["is not empty"]),
    (
        &["check", "--builtin", "simple", "--junit", "/proc/x.xml"],
        64,
        &["--junit /proc/x.xml: No such file"],
    ),
    (
        &["check", "--builtin", "agent", "--jobs", "0"],
        64,
        &["give 1 or more"],
    ),
    (
        &["sandbox", "--builtin", "agent", "--jobs", "0"],
        64,
        &["give 1 or more"],
    ),
    (
        &[
            "sandbox",
            "--builtin",
            "agent",
            "--plugin",
            "builtin:nosuch",
        ],
        64,
        &["no builtin:nosuch ships", "builtin:flash-file"],
    ),
    (
        &["replay", "/nowhere", "--builtin", "flash-file"],
        64,
        &["possible values: agent, simple]"],
    ),
];

#[test]
fn every_wrong_command_line_ends_with_its_code_and_says_what_to_do() {
    for (arguments, code, words) in WRONG {
        let output = otad(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {error}");
        for word in *words {
            assert!(
                error.contains(word),
                "{arguments:?}: no {word:?} in {error}"
            );
        }
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_who_has_seen_enough_is_none() {
    let explain = |stdout: std::process::Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otad"));
        command.arg("explain").stdout(stdout).output().unwrap()
    };
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = explain(full.into());
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("standard output: No space left"), "{error}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = explain(writer.into());
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn help_and_version_are_no_errors_and_the_help_teaches() {
    let help = otad(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for words in [
        "Quick start",
        "otad demo",
        "Exit codes:",
        "restart-pending",
        "OTAD_SECTION__KEY",
    ] {
        assert!(help.contains(words), "{words}");
    }
    let version = otad(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        text(&version.stdout).trim(),
        concat!("otad ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn every_verb_has_a_help_of_its_own() {
    const VERBS: &[&[&str]] = &[
        &["run"],
        &["demo"],
        &["cloud"],
        &["mcu-sim"],
        &["mcu", "echo"],
        &["mcu", "reset"],
        &["mcu", "image", "list"],
        &["mcu", "image", "upload"],
        &["mcu", "image", "test"],
        &["mcu", "image", "confirm"],
        &["mcu", "image", "erase"],
        &["thing", "create"],
        &["update", "create"],
        &["update", "show"],
        &["update", "list"],
        &["update", "cancel"],
        &["update", "delete"],
        &["explain"],
        &["config", "init"],
        &["status"],
        &["suspend"],
        &["resume"],
        &["abort"],
        &["activate"],
        &["commit"],
        &["rollback"],
        &["poll"],
        &["events"],
        &["job", "approve"],
        &["job", "decline"],
        &["job", "list"],
        &["job", "finish"],
        &["launch"],
        &["image", "pack"],
        &["image", "show"],
        &["target", "init"],
        &["target", "reset"],
        &["config", "check"],
        &["config", "keys"],
    ];
    for verb in VERBS {
        let mut arguments = verb.to_vec();
        arguments.push("--help");
        let output = otad(&arguments);
        assert!(output.status.success(), "{verb:?}");
        let help = text(&output.stdout);
        assert!(help.contains("Usage: otad"), "{verb:?}: {help}");
    }
}

#[test]
fn the_list_of_numbers_names_unit_range_and_default() {
    let output = otad(&["config", "keys"]);
    assert!(output.status.success());
    let list = text(&output.stdout);
    assert!(
        list.contains("[device.agent] block_size\n    bytes; 256 to 131072, default 4096"),
        "{list}"
    );
}

#[test]
fn the_list_of_keys_goes_table_by_table_and_says_how_each_is_written() {
    let output = otad(&["config", "keys"]);
    assert!(output.status.success());
    let list = text(&output.stdout);
    assert!(
        list.contains("[device.mqtt] tls\n    true or false, default true\n    "),
        "{list}"
    );
    assert!(
        list.contains("[daemon] state_dir\n    path\n    "),
        "{list}"
    );
    let mut tables: Vec<&str> = list
        .lines()
        .filter(|line| line.starts_with('['))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    tables.dedup();
    let each = tables.len();
    tables.sort_unstable();
    tables.dedup();
    assert_eq!((tables.len(), each > 15), (each, true), "{list}");
}

/// A configuration in a directory of its own whose files do not exist.
fn configuration() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otad.toml");
    let text = r#"
[daemon]
state_dir = "state"
[trust]
directory = "trust"
[[device]]
name = "pump-1"
[device.mqtt]
endpoint = "localhost"
root_certificate = "root.pem"
certificate = "certificate.pem"
private_key = "private-key.pem"
[[device.target]]
name = "main"
file_id = 0
plugin = "flash-file"
directory = "targets/main"
restart = { command = ["./restart.sh"] }
"#;
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_configuration_whose_files_are_missing_is_refused_with_every_line() {
    let (_dir, path) = configuration();
    for verb in [&["config", "check"][..], &["run"]] {
        let mut arguments = verb.to_vec();
        arguments.extend(["--config", &path]);
        let output = otad(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{error}");
        for words in [
            ":5:13: trust store",
            "root.pem: No such file",
            ":11:15:",
            ":12:15:",
            "`restart` of target \"main\"",
        ] {
            assert!(error.contains(words), "{words} in {error}");
        }
    }
}

#[test]
fn a_target_is_given_no_place_where_the_gateway_keeps_what_decides_about_it() {
    let (dir, path) = configuration();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("trust")).unwrap();
    std::fs::create_dir(at("plugins")).unwrap();
    std::fs::create_dir(at("beside")).unwrap();
    std::os::unix::fs::symlink(at("trust"), at("link")).unwrap();
    std::os::unix::fs::symlink("trust/main", at("dangling")).unwrap();
    std::os::unix::fs::symlink(&path, at("beside/record")).unwrap();
    std::fs::write(at("app.img"), "an image").unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let good = good.replace("[daemon]", "[daemon]\nplugin_dir = \"plugins\"");
    let image = at("app.img");
    let image = image.to_str().unwrap();
    for (directory, words) in [
        ("trust", "is the trust directory"),
        ("link", "is the trust directory"),
        ("trust/main", "lies in the trust directory"),
        ("state", "is the state directory"),
        ("state/targets", "lies in the state directory"),
        (".", "holds the state directory"),
        ("targets/../trust", "is the trust directory"),
        ("dangling", "lies in the trust directory"),
        ("plugins", "is the directory that plugins are put into"),
        ("beside", "record is the configuration"),
    ] {
        std::fs::write(&path, good.replace("targets/main", directory)).unwrap();
        for verb in [
            &["config", "check"][..],
            &["run"],
            &["target", "init", "main", image],
        ] {
            let mut arguments = verb.to_vec();
            arguments.extend(["--config", &path]);
            let output = otad(&arguments);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{directory}: {error}");
            assert!(error.contains(words), "{directory}: {error}");
            assert!(error.contains("a directory of its own"), "{error}");
        }
        assert!(!at("state").exists(), "{directory}");
        assert_eq!(std::fs::read_dir(at("trust")).unwrap().count(), 0);
    }
}

#[test]
fn a_target_is_laid_down_once_and_launched_with_its_arguments() {
    let (dir, path) = configuration();
    let app = dir.path().join("app");
    std::fs::write(
        &app,
        "#!/bin/sh\necho \"$OTAD_TARGET $OTAD_SLOT $*\"\nexit 7\n",
    )
    .unwrap();
    let app = app.to_str().unwrap();
    let packed = otad(&["image", "pack", app, "--version", "1.0.0"]);
    assert!(packed.status.success());
    let image = format!("{app}.img");

    let nothing = otad(&["launch", "main", "--config", &path]);
    assert_eq!(nothing.status.code(), Some(2), "{}", text(&nothing.stderr));
    assert!(
        otad(&["target", "init", "main", &image, "--config", &path])
            .status
            .success()
    );
    let again = otad(&["target", "init", "main", &image, "--config", &path]);
    assert_eq!(again.status.code(), Some(5));
    assert!(text(&again.stderr).contains("--force"));
    let unknown = otad(&["launch", "mian", "--config", &path]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("there are: main"));

    let launched = otad(&["launch", "main", "--config", &path, "--", "--port", "80"]);
    assert_eq!(launched.status.code(), Some(7));
    assert_eq!(text(&launched.stdout).trim(), "main slot-a --port 80");

    std::fs::write(
        dir.path().join("targets/main/slot-a"),
        "#!/bin/sh\nexit 0\n",
    )
    .unwrap();
    let changed = otad(&["launch", "main", "--config", &path]);
    assert_eq!(changed.status.code(), Some(6), "{}", text(&changed.stderr));
}

/// `otad sandbox` of the second agent, which refuses jobs of several files.
fn sandbox(more: &[&str]) -> (Option<i32>, String) {
    let told = ["sandbox", "--builtin", "simple", "--scenario"];
    let output = otad(&[&told[..], more].concat());
    (output.status.code(), text(&output.stdout))
}

const FAILING: [&str; 5] = ["two-files", "--fault", "none", "--seeds", "1..5"];

#[test]
fn every_failure_of_a_sandbox_is_told_or_listed() {
    let (code, said) = sandbox(&FAILING);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "\nFAILED  seed 3: two-files: no faults\n",
        "\nFAILED, too:\n  seed 4: two-files: ends as told\n  seed 5: two-files: ends as told\n",
        "found: 5 runs failed (ends as told 5); 3 of 5 shown in full\n",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let (_, said) = sandbox(&[&FAILING[..], &["--json"]].concat());
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["found"], 5);
    assert_eq!(answer["invariants"]["ends as told"], 5);
    assert_eq!(answer["failures"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["others"][1]["seed"], 5);
    assert_eq!(answer["others"][1]["scenario"], "two-files");
    assert_eq!(answer["others"][1]["invariants"][0], "ends as told");
}

#[test]
fn a_trace_of_a_sandbox_is_json_where_that_is_asked_for() {
    let (code, said) = sandbox(&[&FAILING[..4], &["1..2", "--json", "--trace"]].concat());
    assert_eq!(code, Some(1), "{said}");
    let lines: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [_, run, all] = lines.as_slice() else {
        panic!("{said}");
    };
    assert_eq!(all["found"], 2);
    assert_eq!(run["seed"], 2);
    assert_eq!(run["violations"][0]["invariant"], "ends as told");
    let first = run["trace"][0].as_str();
    assert!(
        first.is_some_and(|line| line.contains("#1 write")),
        "{said}"
    );
}

#[test]
fn a_fault_that_never_strikes_is_told() {
    let run = ["plain", "--seeds", "1", "--fault", "power=during-999999"];
    let (code, said) = sandbox(&run);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\nnever struck: power 1 of 1\n"), "{said}");
    let (_, said) = sandbox(&[&run[..], &["--trace"]].concat());
    assert!(
        said.contains("power=during-999999 never struck\n"),
        "{said}"
    );
}

#[test]
fn the_list_of_a_sandbox_tells_how_each_fault_is_written() {
    let (_, said) = sandbox(&["plain", "--list"]);
    for words in [
        "blocks-lost=N@UNTIL ",
        "cases of 1000 (N) and a last instant in ms, such as 300@60000",
        "full=FROM-UNTIL[@PLACE] ",
        "cancel=AT ",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn a_sandbox_refuses_a_plugin_that_its_targets_do_not_suit_and_one_that_does_not_begin() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (module, own) = (path("module.wasm"), path("own.wasm"));
    std::fs::write(&module, guest_artifacts::TEMPLATE_MODULE).unwrap();
    otad(&["plugin", "wrap", &module, "--output", &own]);
    let shipped = ["--builtin", "flash-file"];
    let agent = ["--builtin", "agent"];
    let ended = |who: &[&str], more: &[&str]| {
        let run = ["--scenario", "plain", "--fault", "none", "--seeds", "1"];
        let output = otad(&[&["sandbox"], who, &run, more].concat());
        (output.status.code(), text(&output.stderr))
    };
    let setting = |pair: &'static str| ["--setting", pair];
    let rows: [(&[&str], Vec<&str>, i32, &str); 7] = [
        (&[&own], vec![], 5, "is of kind data, and"),
        (&agent, vec!["--plugin", &own], 5, "is of kind data, and"),
        (
            &shipped,
            setting("speed=9600").to_vec(),
            5,
            "does not begin with these settings: ",
        ),
        (&shipped, setting("speed=9600").to_vec(), 5, "`speed`"),
        (&agent, setting("speed=9600").to_vec(), 64, "--plugin"),
        (&shipped, setting("settle_ms=20000").to_vec(), 0, ""),
        (&shipped, setting("settle_ms=500").to_vec(), 0, ""),
    ];
    for (who, more, code, words) in rows {
        let (came, said) = ended(who, &more);
        assert_eq!(came, Some(code), "{who:?} {more:?}: {said}");
        assert!(said.contains(words), "{who:?} {more:?}: {said}");
    }
}

#[test]
fn a_check_says_where_an_agent_with_another_conversation_is_judged() {
    let output = otad(&["check", "--builtin", "simple"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let end = said.rsplit("not fit: ").next();
    assert!(
        end.is_some_and(|end| end.contains("failed at the first question")),
        "{end:?}"
    );
    assert!(said.contains("`otad sandbox` judges it"));
}

#[test]
fn a_report_that_cannot_be_written_takes_no_verdict_away() {
    for (json, verdict) in [(false, "\nnot fit: "), (true, "\"fit\":false")] {
        let check = ["check", "--builtin", "simple", "--only", "cancel"];
        let mut arguments = [&check[..], &["--junit", "/dev/full"]].concat();
        arguments.extend(json.then_some("--json"));
        let output = otad(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("writing /dev/full: No space left"),
            "{error}"
        );
        let said = text(&output.stdout);
        assert!(said.contains(verdict), "{said}");
    }
}

#[test]
fn the_help_says_what_each_tool_is_for_and_how_it_ends() {
    for (verb, words) in [
        ("check", "judged by `otad sandbox`"),
        ("run", "5 the agent of --shadow is refused"),
        ("sandbox", "of all others seed, scenario and invariants"),
    ] {
        let help = text(&otad(&[verb, "--help"]).stdout);
        let help: Vec<&str> = help.split_whitespace().collect();
        assert!(help.join(" ").contains(words), "{verb}: {words}");
    }
}
