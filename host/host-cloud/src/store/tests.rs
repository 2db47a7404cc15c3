//! The store: found again, moved from an earlier build, refused when damaged, whole after a kill at any instant.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::json;

use super::*;
use crate::{
    limits::Limits,
    service::{JobId, MemoryImages, NewJob, Plan, Service, ThingName},
};

fn service(state: State) -> Service {
    Service::restore(Limits::None, Arc::new(MemoryImages::default()), state).unwrap()
}

fn thing(number: u64) -> ThingName {
    ThingName::new(&format!("thing-{number}")).unwrap()
}

fn job(id: &str, things: Vec<ThingName>) -> NewJob {
    NewJob {
        job_id: JobId::new(id).unwrap(),
        description: String::new(),
        things,
        document: json!({"z": 1, "a": [2, {"y": 3, "b": 4}]}),
        timeout_minutes: Some(5),
        plan: Plan::default(),
    }
}

fn save(store: &Store, service: &mut Service) {
    store.commit(&service.take_changes().rows).unwrap();
}

/// A service with something in every table, stored.
fn filled(store: &Store, state: State) -> Service {
    let mut service = service(state);
    for number in 0..20 {
        service.create_thing(number, thing(number)).unwrap();
        service
            .attach_certificate(&thing(number), &format!("fingerprint-{number}"))
            .unwrap();
    }
    let group = "plant".parse().unwrap();
    service.create_group(1, group, "all".to_owned()).unwrap();
    let things: Vec<_> = (0..20).map(thing).collect();
    service
        .join_group(2, &"plant".parse().unwrap(), &things)
        .unwrap();
    service.create_job(3, job("one", things)).unwrap();
    let topic = "$aws/things/thing-3/jobs/one/update";
    let progress = br#"{"status":"IN_PROGRESS","statusDetails":{"receive":"1/3"}}"#;
    service.handle(4, &thing(3), topic, progress);
    service.delete_thing(5, &thing(7), true).unwrap();
    save(store, &mut service);
    service
}

#[test]
fn a_thing_alone_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, state) = Store::open(dir.path()).unwrap();
    let mut service = service(state);
    service.create_thing(1, thing(1)).unwrap();
    save(&store, &mut service);
    drop(store);
    let (_store, state) = Store::open(dir.path()).unwrap();
    assert_eq!(state, *service.state());
}

#[test]
fn a_state_is_found_again_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let (store, state) = Store::open(dir.path()).unwrap();
    assert_eq!(state, State::default());
    let mut service = filled(&store, state);
    drop(store);
    let (store, state) = Store::open(dir.path()).unwrap();
    assert_eq!(state, *service.state());
    // What is forgotten is gone from the file too.
    let id = JobId::new("one").unwrap();
    service.delete_job(6, &id, true).unwrap();
    service.delete_group(&"plant".parse().unwrap()).unwrap();
    service.delete_thing(7, &thing(0), true).unwrap();
    save(&store, &mut service);
    drop(store);
    let (_, state) = Store::open(dir.path()).unwrap();
    assert_eq!(state, *service.state());
    assert!(state.jobs.is_empty() && state.groups.is_empty());
    let mode = fs::metadata(dir.path().join(STATE)).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
}

#[test]
fn only_rows_that_changed_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let (store, state) = Store::open(dir.path()).unwrap();
    let mut service = filled(&store, state);
    assert_eq!(service.take_changes().rows, []);
    let topic = "$aws/things/thing-9/jobs/one/update";
    service.handle(9, &thing(9), topic, br#"{"status":"IN_PROGRESS"}"#);
    let changes = service.take_changes();
    let keys: Vec<_> = changes.rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["thing-9/one"]);
    // What could not be stored comes again, with what changed since.
    service.put_changes_back(&changes);
    service.handle(9, &thing(9), topic, br#"{"status":"SUCCEEDED"}"#);
    let again = service.take_changes();
    assert_eq!(again.rows.len(), 1);
    assert_ne!(again.rows, changes.rows);
}

#[test]
fn two_clouds_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).unwrap();
    let Err(error) = Store::open(dir.path()) else {
        panic!("shared");
    };
    assert_eq!(error.code(), "in_use");
    drop(first);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_state_of_an_earlier_build_moves_once_and_a_strange_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("state.json");
    let text = r#"{"schema":1,"sequence":2,"things":{"gw":{"created_at_ms":5,"certificates":["aa"],
        "pending":{"j":{"status":"IN_PROGRESS","details":{"receive":"1/3"},"version":2,"sequence":1,
            "queued_at_ms":6,"started_at_ms":7,"updated_at_ms":8}},"ended":{}}},
        "jobs":{"j":{"document":{"z":1,"a":2},"status":"IN_PROGRESS","targets":[{"thing":"gw"}],
            "created_at_ms":6,"stream":"s"}},
        "streams":{"s":{"version":1,"description":"","job":"j","files":{}}}}"#;
    fs::write(&old, text).unwrap();
    let (store, state) = Store::open(dir.path()).unwrap();
    assert!(!old.exists() && dir.path().join("state.json.moved").exists());
    let gw = &state.things[&ThingName::new("gw").unwrap()];
    let execution = &gw.pending[&JobId::new("j").unwrap()];
    assert_eq!((execution.number, execution.offered_at_ms), (1, Some(6)));
    assert_eq!(execution.details["receive"], "1/3");
    assert_eq!(state.jobs["j"].things, [ThingName::new("gw").unwrap()]);
    assert_eq!(state.jobs["j"].document.to_string(), r#"{"z":1,"a":2}"#);
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().1, state);

    for (text, code) in [
        ("{\"schema\":1", "damaged"),
        ("{\"schema\":7}", "unknown_schema"),
        ("{\"schema\":1,\"sequence\":\"x\"}", "damaged"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), text).unwrap();
        let Err(error) = Store::open(dir.path()) else {
            panic!("accepted {text}");
        };
        assert_eq!(error.code(), code, "{text}");
    }
}

#[test]
fn a_damaged_store_is_an_error_by_name_and_never_a_smaller_state() {
    let dir = tempfile::tempdir().unwrap();
    let (store, state) = Store::open(dir.path()).unwrap();
    let whole = filled(&store, state).state().clone();
    drop(store);
    let path = dir.path().join(STATE);
    let sound = fs::read(&path).unwrap();
    let mut refused = 0;
    // Every byte that lies in a used page matters; many of the file's are free.
    let count: usize = std::env::var("OTAD_DAMAGES").map_or(12, |n| n.parse().unwrap());
    let places = (0..sound.len()).step_by((sound.len() / count.max(1)).max(1));
    for (round, at) in places.chain((0..320).step_by(16)).enumerate() {
        let mut bytes = sound.clone();
        match round % 3 {
            0 => bytes[at] ^= 1 << (round % 8),
            1 => bytes[at..].iter_mut().take(64).for_each(|b| *b = !*b),
            _ => bytes.truncate(at),
        }
        fs::write(&path, &bytes).unwrap();
        match Store::open(dir.path()) {
            Ok((_, state)) => assert_eq!(state, whole, "round {round} at {at}"),
            Err(error) => {
                assert_eq!(error.code(), "damaged", "round {round} at {at}: {error}");
                assert!(error.to_string().contains("state.redb"), "{error}");
                refused += 1;
            }
        }
    }
    println!("refused {refused}");
    assert!(refused > 10, "{refused}");
}

#[test]
fn rows_that_do_not_fit_together_are_refused() {
    let rows = |rows: &[(Table, &str, &str)]| {
        State::from_rows(
            rows.iter()
                .map(|(table, key, value)| (*table, (*key).to_owned(), value.as_bytes().to_vec())),
        )
    };
    let meta = (Table::Meta, "state", r#"{"schema":2,"sequence":0}"#);
    assert_eq!(rows(&[]).unwrap(), State::default());
    assert_eq!(rows(&[meta]).unwrap(), State::default());
    let thing = (Table::Things, "gw", r#"{"created_at_ms":0}"#);
    let bad: [&[(Table, &str, &str)]; 8] = [
        &[thing],
        &[meta, (Table::Things, "a/b", r#"{"created_at_ms":0}"#)],
        &[meta, (Table::Things, "gw", "{")],
        &[
            meta,
            (Table::Groups, "g", r#"{"created_at_ms":0,"things":["gw"]}"#),
        ],
        &[
            meta,
            (
                Table::Streams,
                "s",
                r#"{"version":1,"description":"","job":"j","files":{}}"#,
            ),
        ],
        &[meta, thing, (Table::Executions, "gw", "{}")],
        &[
            meta,
            thing,
            (
                Table::Executions,
                "gw/j",
                r#"{"status":"QUEUED","version":1,"sequence":1,"queued_at_ms":1,"updated_at_ms":1}"#,
            ),
        ],
        &[(Table::Meta, "state", r#"{"schema":3,"sequence":0}"#)],
    ];
    for rows_of in bad {
        let error = rows(rows_of).unwrap_err();
        let last = rows_of.last().unwrap();
        match error {
            RowError::Row { table, .. } if rows_of.len() > 1 => assert_eq!(table, last.0.name()),
            RowError::Row { table, .. } => assert_eq!(table, "meta"),
            RowError::Schema { found, known } => assert_eq!((found, known), (3, 2)),
        }
    }
}

/// Names the directory to a child process that is this test binary.
const CHILD: &str = "OTAD_STORE_CHILD";

/// What the killed process does: after each acknowledged transaction it says how far it is.
fn write_until_killed(dir: &Path) {
    let (store, state) = Store::open(dir).unwrap();
    let mut service = service(state);
    let mut out = std::io::stdout().lock();
    for number in service.state().things.len() as u64.. {
        service.create_thing(number, thing(number)).unwrap();
        let id = format!("job-{number}");
        let new = job(&id, vec![thing(number)]);
        service.create_job(number, new).unwrap();
        if number % 3 == 2 {
            let gone = JobId::new(&format!("job-{}", number - 1)).unwrap();
            service.delete_job(number, &gone, true).unwrap();
        }
        save(&store, &mut service);
        writeln!(out, "stored {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_cloud_killed_at_any_instant_has_everything_it_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&dir));
        return;
    }
    let name = "store::tests::a_cloud_killed_at_any_instant_has_everything_it_acknowledged";
    let dir = tempfile::tempdir().unwrap();
    let kills: u64 = std::env::var("OTAD_KILLS").map_or(4, |n| n.parse().unwrap());
    let mut known = 0;
    for round in 0..kills.max(1) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The instant is drawn by the scheduler, behind a number of transactions that differs each time.
        let mut stored = || {
            let line = lines.next()?.ok()?;
            line.strip_prefix("stored ")?.parse::<u64>().ok()
        };
        let mut left = 1 + round % 5;
        while left > 0 {
            if let Some(number) = stored() {
                known = known.max(number);
                left -= 1;
            }
        }
        child.kill().unwrap();
        while let Some(number) = stored() {
            known = known.max(number);
        }
        child.wait().unwrap();

        let (_, state) = Store::open(dir.path()).unwrap();
        let things = state.things.len() as u64;
        assert!(things > known, "acknowledged up to {known}, found {things}");
        // Whole transactions only: a thing and its job come together, and what was deleted stays so.
        for number in 0..things {
            let deleted = number % 3 == 1 && number + 1 < things;
            let id = format!("job-{number}");
            assert_eq!(state.jobs.contains_key(id.as_str()), !deleted, "{id}");
            let found = state.things[&thing(number)].execution(&id).is_some();
            assert_eq!(found, !deleted, "{id}");
        }
    }
}
