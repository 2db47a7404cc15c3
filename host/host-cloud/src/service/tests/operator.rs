//! What operators do, and what survives a restart of the service.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::limits::AWS_FILE_BYTES_MAX;

fn refused(world: &mut World, update: NewUpdate) -> ServiceError {
    let before = world.service.state().clone();
    let error = world.service.create_update(NOW_MS, update).unwrap_err();
    assert_eq!(*world.service.state(), before, "a refusal changes nothing");
    error
}

#[test]
fn an_update_is_checked_whole_before_anything_is_created() {
    let mut world = World::new();
    world.update("taken", b"x");
    let good = update("new", &[(0, b"abc")]);
    type Edit = fn(&mut NewUpdate);
    let rows: [(&str, Edit); 13] = [
        ("job_exists", |u| u.job_id = job_id("AFR_OTA-taken")),
        ("stream_exists", |u| {
            u.stream_id = StreamId::new("AFR_OTA-s-taken").unwrap();
        }),
        ("unknown_thing", |u| u.things.push(thing("nobody"))),
        ("target_twice", |u| u.things.push(thing("gw"))),
        ("no_target", |u| u.things.clear()),
        ("no_file", |u| u.files.clear()),
        ("file_id_twice", |u| u.files.push(u.files[0].clone())),
        ("too_many_files", |u| {
            u.files = (0..11)
                .map(|file_id| UpdateFile {
                    file_id,
                    ..u.files[0].clone()
                })
                .collect();
        }),
        ("file_too_large", |u| {
            u.files[0].size = AWS_FILE_BYTES_MAX + 1;
        }),
        ("text_too_long", |u| u.files[0].file_path = "p".repeat(4097)),
        ("no_protocol", |u| u.protocols.clear()),
        ("protocol_not_served", |u| u.protocols.push(Protocol::Http)),
        ("timeout_out_of_range", |u| u.timeout_minutes = Some(10_081)),
    ];
    for (code, edit) in rows {
        let mut bad = good.clone();
        edit(&mut bad);
        assert_eq!(refused(&mut world, bad).code(), code);
    }
    let mut limit = good;
    limit.files[0].size = AWS_FILE_BYTES_MAX;
    limit.timeout_minutes = Some(10_080);
    world.service.create_update(NOW_MS, limit).unwrap();
}

#[test]
fn a_refusal_names_what_is_wrong() {
    let mut world = World::new();
    let mut bad = update("u", &[(0, b"abc")]);
    bad.things = vec![thing("nobody")];
    let text = refused(&mut world, bad).to_string();
    assert!(text.contains("nobody"), "{text}");
}

#[test]
fn a_document_is_an_object_of_at_most_32768_characters() {
    let mut world = World::new();
    let mut job = NewJob {
        job_id: job_id("j"),
        description: String::new(),
        things: vec![thing("gw")],
        document: json!([]),
        timeout_minutes: None,
        plan: Default::default(),
    };
    let error = world.service.create_job(NOW_MS, job.clone()).unwrap_err();
    assert_eq!(error, ServiceError::DocumentNotAnObject);
    job.document = json!({"k": "é".repeat(32_768 - 7)});
    let error = world.service.create_job(NOW_MS, job.clone()).unwrap_err();
    assert_eq!(error.code(), "document_too_long");
    job.document = json!({"k": "é".repeat(32_768 - 8)});
    world.service.create_job(NOW_MS, job).unwrap();
}

#[test]
fn a_file_type_and_an_unsigned_file_show_in_the_document() {
    let mut world = World::new();
    let mut two = update("u", &[(0, b"a"), (1, b"b")]);
    two.files[0].file_type = Some(2);
    two.files[0].signature = None;
    two.files[1].signature = Some(Signature {
        key: SigKey::Sha256Rsa,
        base64: "AAAA".to_owned(),
    });
    world.service.create_update(NOW_MS, two).unwrap();
    let view = world.service.show(&job_id("AFR_OTA-u")).unwrap();
    let files = &view.document["afr_ota"]["files"];
    assert_eq!(
        files[0].to_string(),
        r#"{"filepath":"/fw.bin","filesize":1,"fileid":0,"certfile":"/cert.pem","fileType":2}"#
    );
    assert_eq!(files[1]["sig-sha256-rsa"], "AAAA");
    assert_eq!(view.stream_id.unwrap().as_str(), "AFR_OTA-s-u");
}

#[test]
fn a_cancel_reaches_what_has_not_begun_and_with_force_the_rest() {
    let mut world = World::new();
    let job = NewJob {
        job_id: job_id("j"),
        description: String::new(),
        things: vec![thing("gw"), thing("other")],
        document: json!({}),
        timeout_minutes: None,
        plan: Default::default(),
    };
    world.service.create_job(NOW_MS, job).unwrap();
    world.report("j", "IN_PROGRESS");
    let out = world
        .service
        .cancel(NOW_MS, &job_id("j"), false, None)
        .unwrap();
    assert_eq!(levels(&out), ["jobs/notify", "jobs/notify-next"]);
    assert!(out.iter().all(|m| m.to == thing("other")));
    let view = world.service.show(&job_id("j")).unwrap();
    assert_eq!(view.status, JobStatus::Canceled);
    assert_eq!(view.executions[0].status, ExecutionStatus::InProgress);
    assert_eq!(view.executions[1].status, ExecutionStatus::Canceled);
    assert!(!view.has_ended());
    // The one that began may still end on its own, or be cancelled by force.
    let error = world.service.cancel(NOW_MS, &job_id("j"), false, None);
    assert_eq!(error.unwrap_err().code(), "job_ended");
    let out = world
        .service
        .cancel(NOW_MS, &job_id("j"), true, None)
        .unwrap();
    assert!(out.iter().all(|m| m.to == thing("gw")));
    assert!(world.service.show(&job_id("j")).unwrap().has_ended());
    let gone = world.service.cancel(NOW_MS, &job_id("none"), true, None);
    assert_eq!(gone.unwrap_err().code(), "unknown_job");
}

#[test]
fn a_job_is_completed_with_its_last_execution_and_cannot_be_cancelled_then() {
    let mut world = World::new();
    world.job("j");
    world.report("j", "REJECTED");
    let view = world.service.show(&job_id("j")).unwrap();
    assert_eq!(view.status, JobStatus::Completed);
    let error = world.service.cancel(NOW_MS, &job_id("j"), true, None);
    assert_eq!(error.unwrap_err().code(), "job_ended");
    let list = world.service.list();
    assert_eq!(list[0].executions, [(ExecutionStatus::Rejected, 1)]);
}

#[test]
fn watchers_see_every_change_in_order() {
    let mut world = World::new();
    let start = world.service.change_cursor();
    world.job("j");
    world.report("j", "IN_PROGRESS");
    let details = json!({"status": "IN_PROGRESS", "statusDetails": {"receive": "1/2"}});
    world.ask("jobs/j/update", details);
    world.report("j", "SUCCEEDED");
    let (changes, _) = world.service.changes_after(start).unwrap();
    let statuses: Vec<_> = changes.iter().map(|c| c.status.as_str()).collect();
    assert_eq!(
        statuses,
        ["QUEUED", "IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]
    );
    assert_eq!(changes[2].status_details["receive"], "1/2");
    assert_eq!(changes[3].version, 4);
}

#[test]
fn a_restarted_service_goes_on_where_it_stopped() {
    let bytes = image(2500);
    let mut world = World::with(Limits::Aws, &[&bytes]);
    let mut timed = update("u", &[(0, &bytes)]);
    timed.timeout_minutes = Some(1);
    world.service.create_update(NOW_MS, timed).unwrap();
    world.job("second");
    world
        .service
        .attach_certificate(&thing("gw"), "aabb")
        .unwrap();
    let ready = json!({"status": "IN_PROGRESS", "statusDetails": {"self_test": "ready"}});
    world.ask("jobs/AFR_OTA-u/update", ready);

    let stored = serde_json::to_vec(world.service.state()).unwrap();
    let state: State = serde_json::from_slice(&stored).unwrap();
    assert_eq!(state, *world.service.state());
    let mut images = MemoryImages::default();
    images.insert(bytes);
    world.service = Service::restore(Limits::Aws, Arc::new(images), state).unwrap();

    let got = body(&world.ask("jobs/$next/get", json!({}))[0]);
    assert_eq!(got["execution"]["jobId"], "AFR_OTA-u");
    assert_eq!(got["execution"]["versionNumber"], 2);
    assert_eq!(got["execution"]["statusDetails"]["self_test"], "ready");
    let members = got["execution"]["jobDocument"]["afr_ota"].to_string();
    assert!(
        members.starts_with(r#"{"protocols""#),
        "order survives: {members}"
    );
    assert_eq!(
        world.service.things_of_certificate("aabb"),
        [thing("gw")].into()
    );
    // A block is served, the queue's order goes on, and the clock that ran before still runs.
    let request = br#"{"f":0,"l":1024,"n":1}"#;
    let out = world.ask_raw("streams/AFR_OTA-s-u/get/json", request);
    assert_eq!(out[0].kind, Kind::Block);
    world.job("third");
    assert_eq!(world.service.deadline(), Some(NOW_MS + 60_000));
    world.service.poll(NOW_MS + 60_000);
    let got = body(&world.ask("jobs/$next/get", json!({}))[0]);
    assert_eq!(got["execution"]["jobId"], "second");
}

#[test]
fn a_state_of_another_schema_is_refused() {
    let state = State {
        schema: 3,
        ..State::default()
    };
    let images = Arc::new(MemoryImages::default());
    let Err(error) = Service::restore(Limits::Aws, images, state) else {
        panic!("accepted");
    };
    assert_eq!(error.code(), "unknown_schema");
}

#[test]
fn certificates_speak_for_the_things_they_were_registered_for_until_they_are_not() {
    let mut world = World::new();
    let (gw, other) = (thing("gw"), thing("other"));
    world.service.attach_certificate(&gw, "f1").unwrap();
    world.service.attach_certificate(&other, "f1").unwrap();
    world.service.attach_certificate(&other, "f2").unwrap();
    let both = [gw.clone(), other.clone()].into();
    assert_eq!(world.service.things_of_certificate("f1"), both);
    world.service.detach_certificate(&gw, "f1").unwrap();
    assert_eq!(
        world.service.things_of_certificate("f1"),
        [other.clone()].into()
    );
    world.service.detach_certificate(&other, "f1").unwrap();
    assert!(world.service.things_of_certificate("f1").is_empty());
    let error = world.service.attach_certificate(&thing("no"), "f3");
    assert_eq!(error.unwrap_err().code(), "unknown_thing");
    assert_eq!(
        world.service.create_thing(NOW_MS, gw).unwrap_err().code(),
        "thing_exists"
    );
}

#[test]
fn the_longest_names_work_together() {
    let bytes = image(1000);
    let mut world = World::with(Limits::Aws, &[&bytes]);
    let name = thing(&"t".repeat(THING_NAME_BYTES_MAX));
    world.service.create_thing(NOW_MS, name.clone()).unwrap();
    let long_stream = "s".repeat(STREAM_ID_BYTES_MAX);
    let mut long = update("u", &[(0, &bytes)]);
    long.job_id = job_id(&"j".repeat(JOB_ID_BYTES_MAX));
    long.stream_id = StreamId::new(&long_stream).unwrap();
    long.things = vec![name.clone()];
    world.service.create_update(NOW_MS, long).unwrap();
    let topic = format!("$aws/things/{name}/streams/{long_stream}/get/json");
    let out = world
        .service
        .handle(NOW_MS, &name, &topic, br#"{"f":0,"l":1024,"n":1}"#);
    assert_eq!(out[0].kind, Kind::Block);
    let topic = format!("$aws/things/{name}/jobs/{}/update", "j".repeat(64));
    let out = world
        .service
        .handle(NOW_MS, &name, &topic, br#"{"status":"SUCCEEDED"}"#);
    assert!(out[0].topic.ends_with("/update/accepted"));
}
