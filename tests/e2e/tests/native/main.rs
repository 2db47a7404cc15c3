//! Native plugins in processes of their own: what a hostile library may try, and what becomes of it and of the host.
//!
//! Each row of `tests/hostile.md` is a deed of `hostile.c`, done in a child that the real `otad` confines. What became of it is
//! printed (`--nocapture`). Whole updates are in `update.rs`.

mod beside;
mod both;
mod freertos;
mod patch;
mod project;
mod shipped;
mod signed;
mod update;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use e2e::hostile::{build, cc, lent, library, process, rows, setting, source};
use host_runtime::plugin::native::{Confinement, HostProgram, Isolation, NativePlugin};
use host_runtime::plugin::{Answer, Duty, Plugin, PluginError, PluginFactory as _};
use host_runtime::types::Blob;

/// Errors of the kernel that mean "you may not": EPERM, EACCES, EXDEV (a file may not go elsewhere); for a limit EMFILE,
/// ENOMEM; and ENOENT where the way to a file could not be made.
const REFUSED: &[u32] = &[1, 13, 18, 24, 12, 2];

/// An instance that does this deed in `state`, on this file.
fn instance(confinement: Confinement, deed: &str, place: &Path) -> Box<dyn Plugin> {
    let plugin = NativePlugin::load("hostile.so", library(), process(confinement));
    let plugin = plugin.expect("it loads like any other");
    let mut instance = plugin.make(lent()).expect("an instance");
    let settings = [
        setting("deed", deed),
        setting("place", &place.to_string_lossy()),
    ];
    instance.open(&settings, None).expect("it opens");
    instance
}

/// A file that is no business of the plugin's.
fn secret(folder: &Path) -> PathBuf {
    let path = folder.join("secret");
    fs::write(&path, "of another target").expect("a file");
    path
}

#[test]
fn what_a_plugin_must_not_do_is_refused_by_the_kernel_and_the_plugin_lives() {
    let folder = support::temp_dir("refusals").unwrap();
    let place = secret(folder.path());
    let check = |deed: &str| {
        let mut plugin = instance(Confinement::default(), deed, &place);
        match plugin.state() {
            Err(PluginError::Failed(failure)) => {
                assert_eq!(failure.main, 0xd6, "{deed}: {failure}");
                assert!(REFUSED.contains(&failure.sub), "{deed}: {failure}");
                assert!(!failure.detail.contains(['\n', '\x1b']), "{failure:?}");
                support::note(&format!("{deed:<18} refused: {failure}"));
            }
            end => panic!("{deed}: {end:?}"),
        }
        assert!(plugin.abort().is_ok(), "{deed}: it lives");
    };
    let rows = rows("hostile-refused");
    for half in rows.chunks(rows.len().div_ceil(2)) {
        thread::scope(|scope| {
            for row in half {
                scope.spawn(|| check(&row[0]));
            }
        });
    }
    let kept = fs::read_to_string(&place).unwrap();
    assert_eq!(kept, "of another target");
}

#[test]
fn what_breaks_a_plugin_breaks_its_process_and_nothing_else() {
    let place = Path::new("/nowhere");
    let check = |row: &[String]| {
        let (deed, wanted) = (&*row[0], &*row[2]);
        let mut plugin = instance(Confinement::default(), deed, place);
        match plugin.state() {
            Err(PluginError::Broken(reason)) => {
                let late = deed.starts_with("flood") && reason.contains("did not end");
                // Its own watchman ends it at once if he looks only after it has closed his channel, too.
                let early = deed == "hang-up" && reason.contains("by signal 9");
                assert!(reason.contains(wanted) || late || early, "{deed}: {reason}");
                support::note(&format!("{deed:<18} broken: {reason}"));
            }
            end => panic!("{deed}: {end:?}"),
        }
        // Whoever calls it all the same hears that it is gone.
        assert!(matches!(
            plugin.abort(),
            Ok(_) | Err(PluginError::Broken(_))
        ));
    };
    let rows = rows("hostile-broken");
    thread::scope(|scope| {
        for row in &rows {
            scope.spawn(move || check(row));
        }
    });
}

#[test]
fn what_is_saved_has_a_limit() {
    let mut plugin = instance(Confinement::default(), "too-much-saved", Path::new("/"));
    let end = plugin.suspend();
    assert!(matches!(end, Err(PluginError::Broken(_))), "{end:?}");
}

#[test]
fn a_granted_directory_may_be_used_and_nothing_beside_it() {
    let folder = support::temp_dir("granted").unwrap();
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).unwrap();
    let secret = secret(folder.path());
    let granted = || Confinement {
        directories: vec![mine.clone()],
        ..Confinement::default()
    };
    let rows = [
        ("write-place", mine.join("a"), true),
        ("read-place", mine.join("a"), true),
        ("write-place", PathBuf::from("relative"), true),
        ("write-place", secret.clone(), false),
        ("read-place", secret.clone(), false),
        ("read-place", mine.join("../secret"), false),
        ("symlink-place", secret.clone(), false),
        ("link-place", secret.clone(), false),
        ("rename-place", secret, false),
    ];
    for (deed, place, may) in rows {
        let end = instance(granted(), deed, &place).state();
        match end {
            Ok(_) => assert!(may, "{deed} {}", place.display()),
            Err(PluginError::Failed(f)) => assert!(!may, "{deed} {}: {f}", place.display()),
            Err(end) => panic!("{deed}: {end}"),
        }
    }
    assert!(
        mine.join("relative").is_file(),
        "the first one is where it works"
    );
}

/// The daemon's program, started on a kernel that lacks this system call.
fn host_without(folder: &Path, call: &str) -> HostProgram {
    let program = folder.join(call);
    let otad = support::binary::otad();
    let words = [
        format!("-DMISSING={call}"),
        format!("-DPROGRAM=\"{}\"", otad.display()),
    ];
    cc(
        &program,
        &[source("lacking.c")],
        &words.each_ref().map(String::as_str),
    );
    HostProgram {
        program,
        ..HostProgram::this()
    }
}

#[test]
fn a_kernel_that_cannot_confine_is_named_and_runs_a_plugin_only_where_the_operator_allows_it() {
    let folder = support::temp_dir("lacking").unwrap();
    for (call, what) in [
        ("__NR_landlock_create_ruleset", "no landlock"),
        ("__NR_seccomp", "no seccomp"),
    ] {
        let host = host_without(folder.path(), call);
        let load = |allow_unconfined| {
            let confinement = Confinement {
                allow_unconfined,
                ..Confinement::default()
            };
            let isolation = Isolation::Process(host.clone(), confinement);
            NativePlugin::load("hostile.so", library(), isolation)
        };
        let end = load(false).unwrap_err();
        assert!(end.contains(what), "{call}: {end}");
        assert!(end.contains("allow_unconfined = true"), "{call}: {end}");
        assert!(load(true).is_ok(), "{call}");
    }
}

#[test]
fn a_grant_that_is_not_there_is_named() {
    let confinement = Confinement {
        directories: vec!["/nowhere/at/all".into()],
        ..Confinement::default()
    };
    let end = NativePlugin::load("x", library(), process(confinement)).unwrap_err();
    assert!(end.starts_with("/nowhere/at/all"), "{end}");
}

#[test]
fn what_is_no_plugin_is_refused_with_the_reason() {
    let folder = support::temp_dir("no-plugin").unwrap();
    let with = |more: &[&str]| build(folder.path(), "x.so", more);
    let rows: [(&str, Vec<u8>, &str); 11] = [
        ("empty", Vec::new(), "it cannot be loaded"),
        ("text", b"hello".to_vec(), "it cannot be loaded"),
        ("half", library()[..100].to_vec(), "it cannot be loaded"),
        (
            "no symbol",
            with(&["-Dota_pal_plugin_entry=another"]),
            "exports no ota_pal_plugin_entry",
        ),
        (
            "no table",
            with(&["-DAT_LOAD=return NULL"]),
            "refuses to be loaded",
        ),
        (
            "ends",
            with(&["-DAT_LOAD=exit(7)"]),
            "ended in its start with status 7",
        ),
        (
            "falls while it is loaded",
            with(&["-DCONSTRUCTOR=abort()"]),
            "by signal 6",
        ),
        (
            "another version",
            with(&[
                "-DAT_LOAD=static ota_pal_plugin other; other = table; other.abi_version = 2; return &other",
            ]),
            "built for version 2",
        ),
        (
            "no name",
            with(&["-DNAME=\"No Name\""]),
            "its name must be 1 to 64 of [a-z0-9-]",
        ),
        (
            "a function that is nowhere",
            with(&["-Wl,-z,lazy", "-DAT_ACTIVATE=void nobodys(void); nobodys()"]),
            "undefined symbol: nobodys",
        ),
        (
            "needs of a later version",
            with(&["-DNEEDS=0x40"]),
            "needs interfaces that this host does not have",
        ),
    ];
    for (what, bytes, wanted) in rows {
        let end = NativePlugin::load(what, &bytes, process(Confinement::default())).unwrap_err();
        assert!(end.contains(wanted), "{what}: {end}");
    }
}

#[test]
fn constructors_run_confined() {
    let folder = support::temp_dir("constructor").unwrap();
    let place = folder.path().join("written");
    let write = format!(
        "-DCONSTRUCTOR=if(fork()==0)_exit(0);open_and_close(\"{}\",O_CREAT|O_WRONLY)",
        place.display()
    );
    let bytes = build(folder.path(), "x.so", &[&write]);
    let end = NativePlugin::load("x", &bytes, process(Confinement::default()));
    assert!(end.is_ok(), "{end:?}");
    assert!(!place.exists());
}

#[test]
fn the_end_of_the_process_in_activate_is_the_restart_of_the_target() {
    let mut plugin = instance(Confinement::default(), "exit", Path::new("/"));
    let done = Ok(Duty::Finished(Answer::Nothing));
    assert_eq!(plugin.activate(&[0; 32]), done);
    // The restart has been; a new process knows what the old one was told.
    assert_eq!(plugin.reset(), done);
    assert!(matches!(plugin.state(), Err(PluginError::Broken(_))));
    let mut plugin = instance(Confinement::default(), "exit", Path::new("/"));
    assert_eq!(plugin.reset(), done);
    let end = plugin.commit();
    assert!(matches!(end, Err(PluginError::Broken(_))), "{end:?}");
}

#[test]
fn a_new_process_is_told_of_the_transfer_in_as_many_calls_as_it_takes() {
    let mut plugin = instance(Confinement::default(), "told-in-steps", Path::new("/"));
    let works = |end: &Result<Duty, PluginError>| matches!(end, Ok(Duty::Working { .. }));
    let done = Ok(Duty::Finished(Answer::Nothing));
    assert!(works(&plugin.create(&freertos::transfer(1))));
    assert!(works(&plugin.step(1)));
    assert_eq!(plugin.step(1), done);
    assert_eq!(plugin.activate(&[0; 32]), done, "it ends in here");
    assert_eq!(plugin.reset(), done);
    // Its successor has to be told of the transfer before it can be asked.
    assert!(works(&plugin.state()));
    assert!(works(&plugin.step(1)));
    let end = plugin.step(1);
    assert!(
        matches!(end, Ok(Duty::Finished(Answer::State(s))) if s.code == 2),
        "{end:?}"
    );
}

#[test]
fn what_was_restarted_saves_nothing_and_is_not_restarted_again() {
    let mut plugin = instance(Confinement::default(), "told-in-steps", Path::new("/"));
    let works = |end: &Result<Duty, PluginError>| matches!(end, Ok(Duty::Working { .. }));
    let done = Ok(Duty::Finished(Answer::Nothing));
    assert!(works(&plugin.create(&freertos::transfer(1))));
    assert!(works(&plugin.step(1)));
    assert_eq!(plugin.step(1), done);
    assert_eq!(plugin.activate(&[0; 32]), done, "it ends in here");
    let nothing = |end: Result<Blob, PluginError>| {
        let none = matches!(&end, Err(PluginError::Failed(f)) if f.main == 0xda);
        assert!(none, "{end:?}");
    };
    nothing(plugin.suspend());
    // A new process would have to be told of the transfer before it could be asked.
    assert_eq!(plugin.reset(), done);
    assert!(works(&plugin.state()));
    nothing(plugin.suspend());
    assert!(works(&plugin.step(1)), "it is told all the same");
    let end = plugin.step(1);
    assert!(matches!(end, Ok(Duty::Finished(_))), "{end:?}");
    assert!(plugin.suspend().is_ok());
}

#[test]
fn a_new_process_that_does_not_begin_is_followed_by_another() {
    let done = Ok(Duty::Finished(Answer::Nothing));
    for deed in ["refuses-open", "refuses-transfer"] {
        let folder = support::temp_dir("refuses").unwrap();
        let place = folder.path().join("refuse");
        let granted = Confinement {
            directories: vec![folder.path().to_owned()],
            ..Confinement::default()
        };
        let mut plugin = instance(granted, deed, &place);
        assert_eq!(plugin.create(&freertos::transfer(1)), done);
        fs::write(&place, "").unwrap();
        assert_eq!(plugin.reset(), done, "{deed}: it ends in here");
        for _ in 0..2 {
            let end = plugin.state();
            let refused = matches!(&end, Err(PluginError::Failed(f)) if f.main == 0xd6);
            assert!(refused, "{deed}: {end:?}");
        }
        fs::remove_file(&place).unwrap();
        let end = plugin.state();
        let told = matches!(end, Ok(Duty::Finished(Answer::State(_))));
        assert!(told, "{deed}: {end:?}");
    }
}

#[test]
fn more_than_a_call_moves_is_no_restart_of_the_target() {
    // A line takes what fits; here there is none.
    for (deed, main) in [("long-write", 0xd0), ("long-line", 0xd1)] {
        let mut plugin = instance(Confinement::default(), deed, Path::new("/"));
        match plugin.activate(&[0; 32]) {
            Err(PluginError::Failed(failure)) => assert_eq!(failure.main, main, "{failure}"),
            end => panic!("{deed}: {end:?}"),
        }
    }
}

#[test]
fn signals_that_end_the_daemon_end_no_call() {
    let mut plugin = instance(Confinement::default(), "told-to-end", Path::new("/"));
    assert_eq!(plugin.reset(), Ok(Duty::Finished(Answer::Nothing)));
}

#[test]
fn a_library_in_this_process_answers_alike() {
    let plugin = NativePlugin::load("hostile.so", library(), Isolation::InProcess).unwrap();
    let mut instance = plugin.make(lent()).unwrap();
    instance.open(&[setting("deed", "nothing")], None).unwrap();
    let end = instance.state();
    assert!(
        matches!(end, Ok(Duty::Finished(Answer::State(s))) if s.code == 2),
        "{end:?}"
    );
    let deed = [
        setting("deed", "read-place"),
        setting("place", "/nowhere/at/all"),
    ];
    instance = plugin.make(lent()).unwrap();
    instance.open(&deed, None).unwrap();
    match instance.state() {
        Err(PluginError::Failed(failure)) => {
            assert_eq!(failure.main, 0xd6, "{failure}");
            assert!(!failure.detail.contains(['\n', '\x1b']), "{failure:?}");
        }
        end => panic!("{end:?}"),
    }
}

#[test]
fn libraries_that_follow_each_other_in_this_process_are_not_taken_for_one() {
    let folder = support::temp_dir("two").unwrap();
    for name in ["hostile", "other", "hostile"] {
        let bytes = match name {
            "other" => build(folder.path(), "x.so", &["-DNAME=\"other\""]),
            _ => library().to_vec(),
        };
        let plugin = NativePlugin::load(name, &bytes, Isolation::InProcess).unwrap();
        assert_eq!(plugin.description().name, name);
    }
}

/// A child that is started by the test, and its channel.
fn child() -> (Child, UnixStream) {
    let folder = support::temp_dir("orphan").expect("a folder");
    let file = folder.path().join("hostile.so");
    fs::write(&file, library()).expect("a file");
    let (mine, theirs) = UnixStream::pair().expect("a channel");
    let child = Command::new(support::binary::otad())
        .arg("pal-host")
        .stdin(OwnedFd::from(theirs))
        .stdout(fs::File::open(&file).expect("a file"))
        .spawn()
        .expect("a child");
    (child, mine)
}

#[test]
fn a_child_that_nobody_tells_how_to_live_ends() {
    let (mut child, channel) = child();
    drop(channel);
    let status = child.wait().unwrap();
    assert!(!status.success(), "it was never started");
}

#[test]
fn a_child_of_another_build_says_so() {
    // Lengths of message and data, then the message: a start with the number of a protocol that is none, and one that has
    // another number and goes on in another way.
    for start in [
        b"\x06\0\0\0\0\0\0\0\0\x63\0\0\0\0".as_slice(),
        b"\x02\0\0\0\0\0\0\0\0\x63",
    ] {
        let (mut child, mut channel) = child();
        channel.write_all(start).unwrap();
        let mut told = Vec::new();
        channel.read_to_end(&mut told).unwrap();
        child.wait().unwrap();
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains("of another build"), "{told:?}");
    }
}
