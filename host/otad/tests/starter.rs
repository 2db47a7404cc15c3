//! Programs of the operator's, started by a fork and through `otad tie`: what they find and how they end is the same.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use host_runtime::ports::commands::{
    CleanCommand, CleanEnd, Command, CommandEnd, Commands as _, Starter, TokioCommands, Way,
    start_through, start_with_files,
};

const OTAD: &str = env!("CARGO_BIN_EXE_otad");

fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        deadline_ms: 20_000,
    }
}

async fn clean(argv: &[&str]) -> CleanEnd {
    let command = CleanCommand {
        command: command(argv),
        environment: vec![
            ("OTAD_HOOK".to_owned(), "job".to_owned()),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ],
        input: b"read me\n".to_vec(),
    };
    command.run().await
}

async fn inherited(argv: &[&str]) -> CommandEnd {
    let (reply, end) = tokio::sync::oneshot::channel();
    let reply = Box::new(|end| reply.send(end).unwrap());
    let environment = [("OTAD_TARGET".to_owned(), "app".to_owned())];
    TokioCommands::current().run(&command(argv), &environment, reply);
    end.await.unwrap()
}

fn file(path: &Path, text: &str, mode: u32) -> String {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Signals that are blocked and ignored, limits, group, parent, open files, input, place, environment, arguments. (Of the
/// signals the first 28: two that the C library keeps for itself are left ignored by its `posix_spawn`.)
const LOOK: &str = "sed -n 's/^\\(Sig[BI]..:\\).*\\(.......\\)$/\\1 \\2/p' /proc/self/status; ulimit -Sn; ulimit -Hn; \
     test $(cut -d' ' -f5 /proc/$$/stat) = $$ && echo leads; test $PPID = $DAEMON && echo ours; ls /proc/$$/fd; cat; pwd; \
     env | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= | sort; echo $0 $# \"$@\"";

#[tokio::test]
async fn a_program_is_started_through_otad_as_by_a_fork() {
    let temp = tempfile::tempdir().unwrap();
    let closed = file(&temp.path().join("closed"), "#!/bin/sh\nexit 0\n", 0o644);
    let strange = file(&temp.path().join("strange"), "#!/no/such/shell\n", 0o755);
    let bare = file(&temp.path().join("bare"), "echo bare $1\nexit 4\n", 0o755);
    let folder = temp.path().to_str().unwrap().to_owned();
    let look = format!("DAEMON={}; {LOOK}", std::process::id());
    let rows: &[&[&str]] = &[
        &["/no/such/program"],
        &["no-such-program-anywhere"],
        &[&closed],
        &[&strange],
        &[&bare, "1"],
        &[&folder],
        &[""],
        &["true\0"],
        &["true"],
        &["/bin/sh", "-c", "echo some; echo of both >&2; exit 3"],
        &["/bin/sh", "-c", "exit 127"],
        &["/bin/sh", "-c", "kill -9 $$"],
        &["/bin/sh", "-c", "kill -PIPE $$"],
        &["sh", "-c", &look, "zero", "one", "--", "two  three", ""],
    ];
    start_with_files(200);
    let mut forked = Vec::new();
    for argv in rows {
        forked.push((clean(argv).await, inherited(argv).await));
    }
    // It notes what it starts, or nobody knows that it did.
    let (noted, note) = (temp.path().join("noted"), temp.path().join("note.sh"));
    let script = format!(
        "#!/bin/sh\necho \"$4\" >> {}\nexec {OTAD} \"$@\"\n",
        noted.display()
    );
    start_through(Starter {
        program: file(&note, &script, 0o755).into(),
        words: vec!["tie".into()],
    });
    for (argv, forked) in rows.iter().zip(&forked) {
        assert_eq!(
            &(clean(argv).await, inherited(argv).await),
            forked,
            "{argv:?}"
        );
    }
    // That something was compared at all.
    let ways = forked.iter().map(|(clean, _)| clean.way);
    let not_started = ways.filter(|way| *way == Way::NotStarted).count();
    assert_eq!(not_started, 7);
    let looked = String::from_utf8(forked.last().unwrap().0.end.stdout.clone()).unwrap();
    for word in [
        "\n200\n",
        "leads\n",
        "ours\n",
        "read me\n",
        "OTAD_HOOK=job\n",
        "zero 4 one -- two  three",
    ] {
        assert!(looked.contains(word), "{word:?} in {looked}");
    }
    // Of each row both commands, but for the word that no program can be given.
    let noted = std::fs::read_to_string(noted).unwrap();
    assert_eq!(noted.lines().count(), 2 * (rows.len() - 1));
}

fn tie(words: &[&str]) -> Output {
    let mut command = std::process::Command::new(OTAD);
    command.arg("tie").args(words).output().unwrap()
}

#[test]
fn a_program_is_not_started_for_a_parent_that_has_gone_and_not_without_words() {
    let this = std::process::id().to_string();
    for (words, told) in [
        (
            &["1", "-", "echo", "started"] as &[&str],
            "\0otad-starter 3\0\n",
        ),
        (&[this.as_str(), "-"], "PARENT FILES PROGRAM"),
        (&["me", "-", "echo", "started"], "PARENT FILES PROGRAM"),
        (
            &[this.as_str(), "many", "echo", "started"],
            "PARENT FILES PROGRAM",
        ),
        (&[], "PARENT FILES PROGRAM"),
    ] {
        let end = tie(words);
        assert_eq!(
            (end.status.code(), end.stdout.as_slice()),
            (Some(127), b"" as &[u8])
        );
        let text = String::from_utf8(end.stderr).unwrap();
        assert!(text.contains(told), "{words:?}: {text:?}");
    }
    let end = tie(&[this.as_str(), "64", "/bin/sh", "-c", "ulimit -Sn"]);
    assert_eq!(
        (end.status.code(), end.stdout.as_slice()),
        (Some(0), b"64\n" as &[u8])
    );
}

#[test]
fn a_program_dies_with_the_process_that_has_started_it() {
    let script = format!("{OTAD} tie $$ - sleep 1000 & echo $!; wait");
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = shell.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let look = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", line.trim()));
    while look("comm").unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    shell.kill().unwrap();
    shell.wait().unwrap();
    // Gone, or a zombie that waits for whoever collects orphans here.
    while look("stat").is_ok_and(|text| !text.contains(") Z")) {
        std::thread::yield_now();
    }
}
