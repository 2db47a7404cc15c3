//! Forgetting things, jobs and streams.

use super::*;

#[test]
fn a_job_that_has_not_ended_is_forgotten_only_by_force_and_its_things_hear_of_it() {
    let bytes = image(1000);
    let mut world = World::with(Limits::Aws, &[&bytes]);
    world.update("u", &bytes);
    world.job("second");
    world.report("AFR_OTA-u", "IN_PROGRESS");
    let id = job_id("AFR_OTA-u");
    let refused = world.service.delete_job(NOW_MS, &id, false).unwrap_err();
    assert_eq!(refused.code(), "job_running");
    assert!(refused.to_string().contains("AFR_OTA-u"), "{refused}");
    let removal = world.service.delete_job(NOW_MS, &id, true).unwrap();
    assert_eq!(levels(&removal.out), ["jobs/notify", "jobs/notify-next"]);
    assert_eq!(body(&removal.out[1])["execution"]["jobId"], "second");
    assert_eq!(removal.executions, 1);
    assert_eq!(removal.stream.unwrap().as_str(), "AFR_OTA-s-u");
    assert_eq!(removal.images, [ImageId::of(&bytes)]);
    // What the device still asks is answered like anything that never was.
    for (rest, code) in [
        ("jobs/AFR_OTA-u/update", "ResourceNotFound"),
        ("jobs/AFR_OTA-u/get", "ResourceNotFound"),
        ("streams/AFR_OTA-s-u/get/json", "ResourceNotFound"),
    ] {
        let ask = json!({"status": "SUCCEEDED", "f": 0, "l": 1024, "n": 1});
        assert_eq!(body(&world.ask(rest, ask)[0])["code"], code, "{rest}");
    }
    let error = world.service.show(&id).unwrap_err();
    assert_eq!(error.code(), "unknown_job");
    let again = world.service.delete_job(NOW_MS, &id, true);
    assert_eq!(again.unwrap_err().code(), "unknown_job");
    // Both ids are free again.
    world.update("u", &bytes);
}

#[test]
fn a_job_that_ended_goes_without_a_word() {
    let mut world = World::new();
    world.job("j");
    world.report("j", "SUCCEEDED");
    let removal = world
        .service
        .delete_job(NOW_MS, &job_id("j"), false)
        .unwrap();
    assert_eq!(removal, Removal::default());
    let gw = &world.service.state().things["gw"];
    assert!(gw.ended.is_empty());
    // A cancelled one in which a device still works has not ended.
    world.job("k");
    world.report("k", "IN_PROGRESS");
    world
        .service
        .cancel(NOW_MS, &job_id("k"), false, None)
        .unwrap();
    let refused = world.service.delete_job(NOW_MS, &job_id("k"), false);
    assert_eq!(refused.unwrap_err().code(), "job_running");
}

#[test]
fn the_time_outs_of_a_forgotten_job_are_forgotten() {
    let mut world = World::new();
    let mut timed = update("u", &[(0, b"x")]);
    timed.timeout_minutes = Some(1);
    world.service.create_update(NOW_MS, timed).unwrap();
    world.report("AFR_OTA-u", "IN_PROGRESS");
    assert!(world.service.deadline().is_some());
    world
        .service
        .delete_job(NOW_MS, &job_id("AFR_OTA-u"), true)
        .unwrap();
    assert_eq!(world.service.deadline(), None);
    assert_eq!(world.service.poll(NOW_MS + 120_000), []);
}

#[test]
fn an_image_that_two_streams_share_goes_with_the_second() {
    let bytes = image(1000);
    let mut world = World::with(Limits::Aws, &[&bytes]);
    world.update("u", &bytes);
    world.update("v", &bytes);
    let mut delete = |id| {
        let removal = world.service.delete_job(NOW_MS, &job_id(id), true);
        removal.unwrap().images
    };
    assert_eq!(delete("AFR_OTA-u"), []);
    assert_eq!(delete("AFR_OTA-v"), [ImageId::of(&bytes)]);
}

#[test]
fn a_stream_goes_alone_once_its_job_has_ended_or_by_force() {
    let bytes = image(1000);
    let mut world = World::with(Limits::Aws, &[&bytes]);
    world.update("u", &bytes);
    let stream = StreamId::new("AFR_OTA-s-u").unwrap();
    let view = &world.service.streams()[0];
    assert_eq!(view.files[0].size, 1000);
    assert_eq!(view.files[0].sha256, ImageId::of(&bytes).as_str());
    let refused = world.service.delete_stream(&stream, false).unwrap_err();
    assert_eq!(refused.code(), "stream_in_use");
    world.report("AFR_OTA-u", "SUCCEEDED");
    let removal = world.service.delete_stream(&stream, false).unwrap();
    assert_eq!(removal.images.len(), 1);
    assert_eq!(world.service.streams(), []);
    let gone = world.service.delete_stream(&stream, true);
    assert_eq!(gone.unwrap_err().code(), "unknown_stream");
    // The job is still there, and can go too.
    world
        .service
        .delete_job(NOW_MS, &job_id("AFR_OTA-u"), false)
        .unwrap();
}

#[test]
fn a_forgotten_thing_leaves_its_executions_to_its_jobs() {
    use ExecutionStatus::{Queued, Removed, Succeeded};
    let mut world = World::new();
    world.job("old");
    world.report("old", "SUCCEEDED");
    let both = NewJob {
        job_id: job_id("both"),
        description: String::new(),
        things: vec![thing("gw"), thing("other")],
        document: json!({}),
        timeout_minutes: Some(5),
        plan: Plan::default(),
    };
    world.service.create_job(NOW_MS, both).unwrap();
    world.report("both", "IN_PROGRESS");
    let gw = thing("gw");
    for (name, print) in [("gw", "own"), ("gw", "shared"), ("other", "shared")] {
        let service = &mut world.service;
        service.attach_certificate(&thing(name), print).unwrap();
    }
    let plant = GroupName::new("plant").unwrap();
    let service = &mut world.service;
    service
        .create_group(NOW_MS, plant.clone(), String::new())
        .unwrap();
    service
        .join_group(NOW_MS, &plant, std::slice::from_ref(&gw))
        .unwrap();

    let refused = service.delete_thing(NOW_MS, &gw, false).unwrap_err();
    assert_eq!(refused.code(), "thing_busy");
    assert!(refused.to_string().contains("both"), "{refused}");
    let removal = service.delete_thing(NOW_MS, &gw, true).unwrap();
    assert_eq!(removal.out, []);
    assert_eq!(removal.executions, 1);
    // The shared one too: who is connected with it must not go on as `gw`.
    assert_eq!(removal.certificates, ["own", "shared"]);
    assert!(service.things_of_certificate("own").is_empty());
    assert_eq!(
        service.things_of_certificate("shared"),
        [thing("other")].into()
    );
    assert_eq!(service.describe_group(&plant).unwrap().things, []);
    assert_eq!(service.deadline(), None);
    let statuses = |service: &Service, id: &str| -> Vec<ExecutionStatus> {
        let view = service.show(&job_id(id)).unwrap();
        view.executions.iter().map(|e| e.status).collect()
    };
    assert_eq!(statuses(service, "old"), [Succeeded]);
    assert_eq!(statuses(service, "both"), [Queued, Removed]);
    // Nobody speaks for it any more, and who comes back under its name is new.
    let topic = "$aws/things/gw/jobs/both/update";
    let out = service.handle(NOW_MS, &gw, topic, br#"{"status":"SUCCEEDED"}"#);
    assert_eq!(body(&out[0])["code"], "ResourceNotFound");
    service.create_thing(NOW_MS, gw.clone()).unwrap();
    assert_eq!(service.describe_thing(&gw).unwrap().jobs, []);
    let gone = service.delete_thing(NOW_MS, &thing("nobody"), true);
    assert_eq!(gone.unwrap_err().code(), "unknown_thing");
}

#[test]
fn a_job_is_completed_when_its_last_thing_is_forgotten() {
    let mut world = World::new();
    world.job("j");
    world
        .service
        .delete_thing(NOW_MS, &thing("gw"), true)
        .unwrap();
    let view = world.service.show(&job_id("j")).unwrap();
    assert_eq!(view.status, JobStatus::Completed);
    assert_eq!(view.progress.removed, 1);
}
