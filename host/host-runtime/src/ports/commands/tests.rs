//! Programs of the operator's, run for real: their ends, their output, and what outlives them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;

async fn end_of(argv: &[&str], deadline_ms: u64) -> CommandEnd {
    let command = Command {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        deadline_ms,
    };
    let (reply, end) = tokio::sync::oneshot::channel();
    let environment = [("OTAD_TARGET".to_owned(), "app".to_owned())];
    TokioCommands::current().run(
        &command,
        &environment,
        Box::new(|end| reply.send(end).unwrap()),
    );
    end.await.unwrap()
}

async fn shell(script: &str, deadline_ms: u64) -> CommandEnd {
    end_of(&["/bin/sh", "-c", script], deadline_ms).await
}

#[tokio::test]
async fn a_command_gives_its_exit_code_and_output_and_sees_its_environment() {
    let end = shell("echo $OTAD_TARGET 1.2.3; exit 0", 10_000).await;
    assert_eq!(end.code, Some(0));
    assert_eq!(end.stdout, b"app 1.2.3\n");
    assert_eq!(end.detail, "");
}

#[tokio::test]
async fn a_command_starts_with_the_limit_of_open_files_that_is_said_for_it() {
    // Of this process, and so of every test's commands here; none of them opens many.
    start_with_files(200);
    let end = shell("ulimit -Sn; ulimit -Hn", 10_000).await;
    let told = String::from_utf8(end.stdout).unwrap();
    let (soft, hard) = told.split_once('\n').unwrap();
    assert_eq!(soft, "200");
    let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let maximum = maximum.map_or_else(|| "unlimited".to_owned(), |files| files.to_string());
    assert_eq!(hard.trim(), maximum);
}

#[tokio::test]
async fn a_failed_command_tells_its_last_word() {
    let end = shell("echo first >&2; echo 'no   answer' >&2; exit 3", 10_000).await;
    assert_eq!((end.code, end.detail.as_str()), (Some(3), "no   answer"));
    let end = shell("kill -9 $$", 10_000).await;
    assert_eq!(
        (end.code, end.detail.as_str()),
        (None, "killed by signal 9")
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_a_named_error() {
    let end = end_of(&["/nonexistent/program"], 10_000).await;
    assert_eq!(end.code, None);
    assert!(
        end.detail
            .contains("`/nonexistent/program` cannot be started")
    );
    assert_eq!(end_of(&[], 10_000).await.detail, "the command is empty");
}

#[tokio::test]
async fn at_its_deadline_a_command_is_killed_with_everything_it_has_started() {
    let temp = tempfile::tempdir().unwrap();
    let pid_file = temp.path().join("pid");
    // The grandchild writes its process id; the shell waits for it without end.
    let script = format!(
        "sleep 1000 & echo $! > {}; echo out; wait",
        pid_file.display()
    );
    let end = shell(&script, 2000).await;
    assert_eq!(end.code, None);
    assert_eq!(end.detail, "not done within 2000 ms, killed");
    assert_eq!(end.stdout, b"out\n");
    wait_for_death(std::fs::read_to_string(pid_file).unwrap().trim());
}

/// Wait until a process is dead, or a zombie that waits for whoever collects orphans here.
fn wait_for_death(pid: &str) {
    let stat = format!("/proc/{pid}/stat");
    while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
        std::thread::yield_now();
    }
}

/// A command that writes the process id of what it has started and waits for it without end, once it has done so.
async fn endless(
    dir: &std::path::Path,
    cancel: Weak<AtomicBool>,
) -> (String, tokio::sync::oneshot::Receiver<CommandEnd>) {
    let pid_file = dir.join("pid");
    let script = format!(
        "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
        pid_file.display()
    );
    let command = Command {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        deadline_ms: 1_000_000,
    };
    let (reply, end) = tokio::sync::oneshot::channel();
    let reply = Box::new(|end| drop(reply.send(end)));
    TokioCommands::current().run_unless(&command, &[], cancel, reply);
    loop {
        if let Ok(pid) = std::fs::read_to_string(&pid_file) {
            return (pid.trim().to_owned(), end);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancelled_command_is_killed_with_everything_it_has_started() {
    let temp = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let (pid, end) = endless(temp.path(), Arc::downgrade(&cancel)).await;
    cancel.store(true, Ordering::Relaxed);
    let end = end.await.unwrap();
    assert_eq!((end.code, end.detail.as_str()), (None, "cancelled, killed"));
    wait_for_death(&pid);
}

#[tokio::test]
async fn a_command_whose_owner_has_gone_is_killed() {
    let temp = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let (pid, end) = endless(temp.path(), Arc::downgrade(&cancel)).await;
    drop(cancel);
    assert_eq!(end.await.unwrap().code, None);
    wait_for_death(&pid);
}

#[test]
fn a_command_does_not_outlive_its_runtime() {
    let temp = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (pid, _end) = runtime.block_on(endless(temp.path(), Arc::downgrade(&cancel)));
    drop(runtime);
    wait_for_death(&pid);
}

#[test]
fn a_command_outlives_the_thread_that_has_asked_for_it() {
    let temp = tempfile::tempdir().unwrap();
    let (began, go) = (temp.path().join("began"), temp.path().join("go"));
    let command = Command {
        argv: vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            format!(
                "touch {}; until [ -e {} ]; do sleep 0.01; done; exit 3",
                began.display(),
                go.display()
            ),
        ],
        deadline_ms: 100_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (reply, end) = tokio::sync::oneshot::channel();
    let asks = async {
        TokioCommands::current().run(&command, &[], Box::new(|end| reply.send(end).unwrap()));
        while !began.exists() {
            tokio::task::yield_now().await;
        }
    };
    // As with a runtime's own threads, which come and go.
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(asks)).join().unwrap());
    std::fs::write(&go, "").unwrap();
    let end = runtime.block_on(end).unwrap();
    assert_eq!((end.code, end.detail.as_str()), (Some(3), ""));
}

#[tokio::test]
async fn a_command_that_nobody_starts_ends_at_its_deadline_or_when_it_is_cancelled() {
    let (desk, _orders) = tokio::sync::mpsc::channel(1);
    let mut command = Command {
        argv: vec!["/bin/true".to_owned()],
        deadline_ms: 20,
    };
    let run = async |command: &Command, cancel| {
        let surroundings = Surroundings::Inherited(&[]);
        let end = child::run_by(&desk, command, &surroundings, cancel).await;
        (end.way, end.end.detail)
    };
    // The second finds no room to wait in.
    for _ in 0..2 {
        let (way, why) = run(&command, None).await;
        assert_eq!((way, &*why), (Way::NotStarted, "not started within 20 ms"));
    }
    command.deadline_ms = 1_000_000;
    let (way, why) = run(&command, Some(Weak::new())).await;
    assert_eq!(
        (way, &*why),
        (Way::NotStarted, "cancelled before it was started")
    );
}

#[tokio::test]
async fn a_start_that_breaks_leaves_alone_what_was_started_before() {
    let temp = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let (pid, end) = endless(temp.path(), Arc::downgrade(&cancel)).await;
    let (reply, answer) = tokio::sync::oneshot::channel();
    let breaks = starter::Order::new(|| panic!("as a mistake would"), reply);
    assert!(starter::desk().send(breaks).await.is_ok());
    assert!(answer.await.is_err());
    // Through the same thread as the one that lives.
    assert_eq!(shell("exit 4", 10_000).await.code, Some(4));
    let lives = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!lives.contains(") Z"), "{lives}");
    cancel.store(true, Ordering::Relaxed);
    assert_eq!(end.await.unwrap().detail, "cancelled, killed");
}

#[tokio::test]
async fn a_command_whose_start_broke_says_so() {
    let (desk, mut orders) = tokio::sync::mpsc::channel(1);
    let command = Command {
        argv: vec!["/bin/true".to_owned()],
        deadline_ms: 10_000,
    };
    let surroundings = Surroundings::Inherited(&[]);
    let run = child::run_by(&desk, &command, &surroundings, None);
    let (broken, ()) = tokio::join!(run, async { drop(orders.recv().await) });
    assert_eq!(broken.way, Way::NotStarted);
    assert!(broken.end.detail.contains("broke"), "{broken:?}");
}

/// Or one of a runtime that ends while it is being started would run, and be nobody's.
#[test]
fn a_command_hangs_on_nothing_of_the_runtime_that_has_asked_for_it() {
    // It looks after no pipes and no programs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let end = runtime.block_on(clean("cat; echo $OTAD_HOOK >&2; exit 5", 10_000, b"read").run());
    assert_eq!((end.end.code, &*end.end.stdout), (Some(5), &b"read"[..]));
    assert_eq!(end.stderr, b"job\n");
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_is_not_waited_for_and_not_killed() {
    let end = shell("sleep 1000 & echo $!; exit 0", 10_000).await;
    assert_eq!(end.code, Some(0));
    let pid: i32 = String::from_utf8(end.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn output_over_the_limit_is_cut_and_does_not_block_the_command() {
    let end = shell("head -c 1000000 /dev/zero; echo done >&2", 10_000).await;
    assert_eq!(end.code, Some(0));
    assert_eq!(end.stdout.len(), OUTPUT_MAX_BYTES);
}

fn clean(script: &str, deadline_ms: u64, input: &[u8]) -> CleanCommand {
    CleanCommand {
        command: Command {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            deadline_ms,
        },
        environment: vec![("OTAD_HOOK".to_owned(), "job".to_owned())],
        input: input.to_vec(),
    }
}

#[tokio::test]
async fn a_clean_command_reads_its_input_and_finds_nothing_else() {
    let script = "pwd; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=; cat; echo said >&2";
    let end = clean(script, 10_000, b"{\"a\":1}").run().await;
    assert_eq!(end.end.code, Some(0), "{end:?}");
    let text = String::from_utf8(end.end.stdout).unwrap();
    assert_eq!(text, "/\nOTAD_HOOK=job\n{\"a\":1}");
    assert_eq!(end.stderr, b"said\n");
}

#[tokio::test]
async fn input_that_nobody_reads_neither_blocks_nor_fails_a_command() {
    let end = clean("exit 5", 10_000, &vec![b'x'; 1 << 20]).run().await;
    assert_eq!(end.end.code, Some(5), "{end:?}");
    let hung = clean("exec sleep 1000", 200, &vec![b'x'; 1 << 20])
        .run()
        .await;
    assert_eq!((hung.end.code, hung.way), (None, Way::Killed));
    assert!(hung.end.detail.contains("200 ms"), "{hung:?}");
}
