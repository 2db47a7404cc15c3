//! Jobs: replies, rejections and notifications.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_thing_without_jobs_gets_its_token_and_the_time() {
    let mut world = World::new();
    let out = world.ask("jobs/$next/get", json!({"clientToken": "0:gw"}));
    assert_eq!(levels(&out), ["jobs/$next/get/accepted"]);
    assert_eq!(
        String::from_utf8(out[0].payload.to_vec()).unwrap(),
        r#"{"clientToken":"0:gw","timestamp":1700000000}"#
    );
    assert_eq!((out[0].kind, out[0].qos), (Kind::Reply, QoS::AtLeastOnce));
}

#[test]
fn a_new_update_is_announced_with_its_document_in_the_order_of_aws() {
    let mut world = World::new();
    let out = world.update("job1", &image(2500));
    assert_eq!(levels(&out), ["jobs/notify", "jobs/notify-next"]);
    assert!(out.iter().all(|m| m.kind == Kind::Notification));
    assert_eq!(
        String::from_utf8(out[1].payload.to_vec()).unwrap(),
        concat!(
            r#"{"timestamp":1700000000,"execution":{"jobId":"AFR_OTA-job1","status":"QUEUED","#,
            r#""queuedAt":1700000000,"lastUpdatedAt":1700000000,"versionNumber":1,"executionNumber":1,"#,
            r#""jobDocument":{"afr_ota":{"protocols":["MQTT"],"streamname":"AFR_OTA-s-job1","#,
            r#""files":[{"filepath":"/fw.bin","filesize":2500,"fileid":0,"certfile":"/cert.pem","#,
            r#""sig-sha256-ecdsa":"MEQCIF2Q"}]}}}}"#
        )
    );
    assert_eq!(
        body(&out[0]),
        json!({"timestamp": 1_700_000_000, "jobs": {"QUEUED": [{
            "jobId": "AFR_OTA-job1", "queuedAt": 1_700_000_000, "lastUpdatedAt": 1_700_000_000,
            "versionNumber": 1, "executionNumber": 1,
        }]}})
    );
}

#[test]
fn a_job_is_announced_as_next_only_when_another_one_is_next() {
    let mut world = World::new();
    assert_eq!(levels(&world.job("a")), ["jobs/notify", "jobs/notify-next"]);
    // Behind a: the set changes, the next one does not.
    assert_eq!(levels(&world.job("b")), ["jobs/notify"]);
    // a begins: neither changes.
    assert_eq!(world.report("a", "IN_PROGRESS").len(), 1);
    // Details change: neither changes.
    assert_eq!(world.report("a", "IN_PROGRESS").len(), 1);
    // a ends: b is next.
    let out = world.report("a", "SUCCEEDED");
    assert_eq!(levels(&out)[1..], ["jobs/notify", "jobs/notify-next"]);
    assert_eq!(body(&out[2])["execution"]["jobId"], "b");
    // The last one ends: nothing is next.
    let out = world.report("b", "FAILED");
    assert_eq!(levels(&out)[1..], ["jobs/notify", "jobs/notify-next"]);
    assert_eq!(body(&out[2]), json!({"timestamp": 1_700_000_000}));
    assert_eq!(
        body(&out[1]),
        json!({"timestamp": 1_700_000_000, "jobs": {}})
    );
}

#[test]
fn a_younger_job_that_begins_overtakes_an_older_queued_one_and_is_announced() {
    let mut world = World::new();
    world.job("old");
    world.job("young");
    let out = world.report("young", "IN_PROGRESS");
    assert_eq!(
        levels(&out),
        ["jobs/young/update/accepted", "jobs/notify-next"]
    );
    assert_eq!(body(&out[1])["execution"]["jobId"], "young");
    let out = world.ask("jobs/$next/get", json!({}));
    assert_eq!(body(&out[0])["execution"]["jobId"], "young");
    let pending = body(&world.ask("jobs/get", json!({"clientToken": "p"}))[0]);
    assert_eq!(pending["inProgressJobs"][0]["jobId"], "young");
    assert_eq!(pending["queuedJobs"][0]["jobId"], "old");
    assert_eq!(pending["clientToken"], "p");
}

#[test]
fn asking_does_not_begin_a_job_but_start_next_does_once() {
    let mut world = World::new();
    world.job("a");
    let got = body(&world.ask("jobs/$next/get", json!({}))[0]);
    assert_eq!(got["execution"]["status"], "QUEUED");
    world.now_ms += 5000;
    let request = json!({"statusDetails": {"step": "one"}, "clientToken": "t"});
    let out = world.ask("jobs/start-next", request);
    assert_eq!(levels(&out), ["jobs/start-next/accepted"]);
    assert_eq!(
        body(&out[0]),
        json!({"clientToken": "t", "timestamp": 1_700_000_005, "execution": {
            "jobId": "a", "status": "IN_PROGRESS", "statusDetails": {"step": "one"},
            "queuedAt": 1_700_000_000, "startedAt": 1_700_000_005, "lastUpdatedAt": 1_700_000_005,
            "versionNumber": 2, "executionNumber": 1, "jobDocument": {"operation": "a"},
        }})
    );
    // What is under way is returned as it is.
    let again = body(&world.ask("jobs/start-next", json!({"statusDetails": {"step": "two"}}))[0]);
    assert_eq!(again["execution"]["versionNumber"], 2);
    assert_eq!(again["execution"]["statusDetails"], json!({"step": "one"}));
    // The orchestrator demos end with the version that start-next made.
    let done = json!({"status": "SUCCEEDED", "expectedVersion": "2"});
    let out = world.ask("jobs/a/update", done);
    assert_eq!(level(&out[0]), "jobs/a/update/accepted");
    let none = body(&world.ask("jobs/start-next", json!({"clientToken": "n"}))[0]);
    assert_eq!(
        none,
        json!({"clientToken": "n", "timestamp": 1_700_000_005})
    );
}

#[test]
fn details_stay_when_absent_and_are_replaced_as_a_whole_when_present() {
    let mut world = World::new();
    world.job("a");
    let rows: [(Value, Value); 4] = [
        (
            json!({"status": "IN_PROGRESS", "statusDetails": {"receive": "1/3"}}),
            json!({"receive": "1/3"}),
        ),
        (json!({"status": "IN_PROGRESS"}), json!({"receive": "1/3"})),
        (
            json!({"status": "IN_PROGRESS",
                   "statusDetails": {"self_test": "ready", "updatedBy": "0x01020002"}}),
            json!({"self_test": "ready", "updatedBy": "0x01020002"}),
        ),
        (
            json!({"status": "IN_PROGRESS", "statusDetails": {}}),
            Value::Null,
        ),
    ];
    for (at, (request, want)) in rows.into_iter().enumerate() {
        world.ask("jobs/a/update", request.clone());
        let got = body(&world.ask("jobs/a/get", json!({"includeJobDocument": false}))[0]);
        assert_eq!(got["execution"]["statusDetails"], want, "{request}");
        assert_eq!(got["execution"]["versionNumber"], at as u64 + 2);
        assert_eq!(got["execution"].get("jobDocument"), None);
    }
}

#[test]
fn an_update_is_answered_with_what_it_asked_for() {
    let mut world = World::new();
    world.job("a");
    let plain = json!({"status": "IN_PROGRESS", "clientToken": "u1"});
    assert_eq!(
        body(&world.ask("jobs/a/update", plain)[0]),
        json!({"clientToken": "u1", "timestamp": 1_700_000_000})
    );
    let full = json!({"status": "IN_PROGRESS", "includeJobExecutionState": true,
        "includeJobDocument": true, "statusDetails": {"k": "v"}});
    assert_eq!(
        body(&world.ask("jobs/a/update", full)[0]),
        json!({"timestamp": 1_700_000_000, "jobDocument": {"operation": "a"}, "executionState": {
            "status": "IN_PROGRESS", "statusDetails": {"k": "v"}, "versionNumber": 3}})
    );
}

/// One request on `jobs/…` and the code it must be rejected with.
#[test]
fn every_code_of_a_rejection_has_its_causes() {
    let mut world = World::new();
    world.job("open");
    world.job("begun");
    world.job("done");
    world.report("begun", "IN_PROGRESS");
    world.report("done", "SUCCEEDED");
    let long_token = "t".repeat(65);
    let many: serde_json::Map<_, _> = (0..11).map(|i| (format!("k{i}"), json!("v"))).collect();
    let rows: Vec<(&str, Value, &str)> = vec![
        ("jobs/nothing/here", json!({}), "InvalidTopic"),
        ("jobs/open/update/accepted", json!({}), "InvalidTopic"),
        (
            "jobs/$next/update",
            json!({"status": "FAILED"}),
            "InvalidTopic",
        ),
        ("jobs/open/update", json!([]), "InvalidRequest"),
        ("jobs/open/update", json!({}), "InvalidRequest"),
        ("jobs/open/update", json!({"status": 1}), "InvalidRequest"),
        (
            "jobs/open/update",
            json!({"status": "DONE"}),
            "InvalidRequest",
        ),
        (
            "jobs/open/get",
            json!({"clientToken": long_token}),
            "InvalidRequest",
        ),
        ("jobs/open/get", json!({"clientToken": 7}), "InvalidRequest"),
        (
            "jobs/open/get",
            json!({"includeJobDocument": "yes"}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": "x"}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"k": 1}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"k": ""}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"k": "a\nb"}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"k": "v".repeat(1025)}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"": "v"}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"a b": "v"}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": {"k".repeat(129): "v"}}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "statusDetails": many}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": 10081}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": -2}),
            "InvalidRequest",
        ),
        (
            "jobs/start-next",
            json!({"stepTimeoutInMinutes": -1}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "expectedVersion": "one"}),
            "InvalidRequest",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "expectedVersion": 2}),
            "VersionMismatch",
        ),
        (
            "jobs/open/update",
            json!({"status": "FAILED", "executionNumber": 2}),
            "ResourceNotFound",
        ),
        (
            "jobs/open/update",
            json!({"status": "QUEUED"}),
            "InvalidStateTransition",
        ),
        (
            "jobs/open/update",
            json!({"status": "CANCELED"}),
            "InvalidStateTransition",
        ),
        (
            "jobs/begun/update",
            json!({"status": "REJECTED"}),
            "InvalidStateTransition",
        ),
        (
            "jobs/done/update",
            json!({"status": "IN_PROGRESS"}),
            "InvalidStateTransition",
        ),
        (
            "jobs/done/update",
            json!({"status": "SUCCEEDED"}),
            "InvalidStateTransition",
        ),
        (
            "jobs/none/update",
            json!({"status": "FAILED"}),
            "ResourceNotFound",
        ),
        ("jobs/none/get", json!({}), "ResourceNotFound"),
        (
            "jobs/open/get",
            json!({"executionNumber": 2}),
            "ResourceNotFound",
        ),
        ("jobs/done/get", json!({}), "TerminalStateReached"),
    ];
    let before = world.service.state().clone();
    for (rest, request, code) in rows {
        let out = world.ask(rest, request.clone());
        assert_eq!(
            levels(&out),
            [format!("{rest}/rejected")],
            "{rest} {request}"
        );
        let got = body(&out[0]);
        assert_eq!(got["code"], code, "{rest} {request} {got}");
        assert!(got["message"].as_str().is_some_and(|m| !m.is_empty()));
        let shows = matches!(code, "InvalidStateTransition" | "VersionMismatch");
        assert_eq!(
            got.get("executionState").is_some(),
            shows,
            "{rest} {request}"
        );
    }
    for raw in [&b"{"[..], b"\xff\xfe", b"{}x", b""] {
        let got = body(&world.ask_raw("jobs/open/update", raw)[0]);
        assert_eq!(got["code"], "InvalidJson");
    }
    assert_eq!(*world.service.state(), before, "a refusal changes nothing");
}

#[test]
fn values_at_their_limits_are_accepted() {
    let mut world = World::new();
    world.job("a");
    let ten: serde_json::Map<_, _> = (0..9).map(|i| (format!("k{i}"), json!("v"))).collect();
    let mut details = ten;
    details.insert("K:_-".repeat(32), json!("é".repeat(1024)));
    let request = json!({"status": "IN_PROGRESS", "statusDetails": details,
        "clientToken": "t".repeat(64), "expectedVersion": "1", "executionNumber": 1,
        "stepTimeoutInMinutes": 10080});
    let out = world.ask("jobs/a/update", request);
    assert_eq!(levels(&out), ["jobs/a/update/accepted"]);
    assert_eq!(body(&out[0])["clientToken"], "t".repeat(64));
}

#[test]
fn a_rejection_echoes_the_token_and_shows_where_the_execution_stands() {
    let mut world = World::new();
    world.job("a");
    world
        .service
        .cancel(NOW_MS, &job_id("a"), true, None)
        .unwrap();
    let request = json!({"status": "IN_PROGRESS", "clientToken": "u7"});
    let got = body(&world.ask("jobs/a/update", request)[0]);
    assert_eq!(got["clientToken"], "u7");
    assert_eq!(
        got["executionState"],
        json!({"status": "CANCELED", "versionNumber": 2})
    );
    assert_eq!(got["timestamp"], 1_700_000_000);
}

#[test]
fn a_thing_that_does_not_exist_is_not_found_and_not_counted() {
    let mut world = World::new();
    let nobody = thing("nobody");
    let out = world
        .service
        .handle(NOW_MS, &nobody, "$aws/things/nobody/jobs/$next/get", b"{}");
    assert_eq!(body(&out[0])["code"], "ResourceNotFound");
    assert_eq!(world.service.counters().get(&nobody), None);
}

#[test]
fn one_thing_can_neither_ask_for_nor_report_on_another_ones_job() {
    let mut world = World::new();
    world.job("a");
    let other = thing("other");
    // Under its own name the job does not exist.
    for (rest, payload) in [
        ("jobs/a/get", &b"{}"[..]),
        ("jobs/a/update", b"{\"status\":\"FAILED\"}"),
    ] {
        let topic = format!("$aws/things/other/{rest}");
        let out = world.service.handle(NOW_MS, &other, &topic, payload);
        assert_eq!(body(&out[0])["code"], "ResourceNotFound");
    }
    // Under the other name it is nobody's request.
    let topic = "$aws/things/gw/jobs/a/update";
    let out = world
        .service
        .handle(NOW_MS, &other, topic, b"{\"status\":\"FAILED\"}");
    assert_eq!(out, []);
    let view = world.service.show(&job_id("a")).unwrap();
    assert_eq!(view.executions[0].status, ExecutionStatus::Queued);
}

#[test]
fn a_runaway_thing_is_throttled_and_recovers_while_others_go_on() {
    let mut world = World::new();
    let burst = crate::limits::AWS_JOBS_REQUEST_BURST;
    for _ in 0..burst {
        world.ask("jobs/get", json!({}));
    }
    let refused = world.ask("jobs/get", json!({"clientToken": "x"}));
    assert_eq!(body(&refused[0])["code"], "RequestThrottled");
    assert_eq!(body(&refused[0])["clientToken"], "x");
    let topic = "$aws/things/other/jobs/get";
    let out = world.service.handle(NOW_MS, &thing("other"), topic, b"");
    assert_eq!(level(&out[0]), "jobs/get/accepted");
    world.now_ms += 5;
    assert_eq!(
        level(&world.ask("jobs/get", json!({}))[0]),
        "jobs/get/accepted"
    );
    assert_eq!(
        level(&world.ask("jobs/get", json!({}))[0]),
        "jobs/get/rejected"
    );
    let mut free = World::with(Limits::None, &[]);
    for _ in 0..=burst {
        let out = free.ask("jobs/get", json!({}));
        assert_eq!(level(&out[0]), "jobs/get/accepted");
    }
}

#[test]
fn a_service_that_cannot_store_promises_nothing_but_still_answers_questions() {
    let mut world = World::new();
    world.job("a");
    world.service.set_unavailable(Some("disk full".to_owned()));
    let got = body(&world.ask("jobs/a/update", json!({"status": "FAILED"}))[0]);
    assert_eq!(got["code"], "InternalError");
    assert!(!got["message"].as_str().unwrap().contains("disk"));
    let got = body(&world.ask("jobs/start-next", json!({}))[0]);
    assert_eq!(got["code"], "InternalError");
    let got = body(&world.ask("jobs/$next/get", json!({}))[0]);
    assert_eq!(got["execution"]["status"], "QUEUED");
    world.service.set_unavailable(None);
    world.report("a", "FAILED");
}

#[test]
fn a_step_and_a_job_run_out_at_their_own_times() {
    let mut world = World::new();
    let job = NewJob {
        job_id: job_id("slow"),
        description: String::new(),
        things: vec![thing("gw")],
        document: json!({}),
        timeout_minutes: Some(10),
        plan: Default::default(),
    };
    world.service.create_job(NOW_MS, job).unwrap();
    assert_eq!(world.service.deadline(), None, "nothing runs while queued");
    world.report("slow", "IN_PROGRESS");
    assert_eq!(world.service.deadline(), Some(NOW_MS + 600_000));
    let step = json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": 2});
    world.ask("jobs/slow/update", step.clone());
    assert_eq!(world.service.deadline(), Some(NOW_MS + 120_000));
    world.now_ms += 60_000;
    world.ask("jobs/slow/update", step.clone());
    assert_eq!(world.service.deadline(), Some(NOW_MS + 180_000));
    // A plain report does not touch the step's time.
    world.report("slow", "IN_PROGRESS");
    assert_eq!(world.service.deadline(), Some(NOW_MS + 180_000));
    // -1 stops it, and only it.
    let stop = json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": -1});
    world.ask("jobs/slow/update", stop);
    assert_eq!(world.service.deadline(), Some(NOW_MS + 600_000));
    world.ask("jobs/slow/update", step);
    assert_eq!(world.service.deadline(), Some(NOW_MS + 180_000));
    assert_eq!(world.service.poll(NOW_MS + 179_999), []);
    let out = world.service.poll(NOW_MS + 180_000);
    assert_eq!(levels(&out), ["jobs/notify", "jobs/notify-next"]);
    let view = world.service.show(&job_id("slow")).unwrap();
    assert_eq!(view.executions[0].status, ExecutionStatus::TimedOut);
    assert_eq!(view.status, JobStatus::Completed);
    assert_eq!(world.service.deadline(), None);
    assert_eq!(world.service.poll(u64::MAX), []);
}

#[test]
fn a_list_names_at_most_ten_executions_of_each_status() {
    let mut world = World::new();
    let mut last = Vec::new();
    for i in 0..12 {
        last = world.job(&format!("j{i:02}"));
    }
    let queued = body(&last[0])["jobs"]["QUEUED"].clone();
    assert_eq!(queued.as_array().unwrap().len(), 10);
    assert_eq!(queued[0]["jobId"], "j00");
    let pending = body(&world.ask("jobs/get", json!({}))[0]);
    assert_eq!(pending["queuedJobs"].as_array().unwrap().len(), 12);
}

#[test]
fn topics_that_are_no_request_of_the_service_have_no_answer() {
    let mut world = World::new();
    for rest in ["shadow/get", "streams/s", "streams", ""] {
        assert_eq!(world.ask(rest, json!({})), [], "{rest}");
    }
    let gw = thing("gw");
    for topic in ["$aws/things/gw", "$aws/events/x", "", "a/b"] {
        assert_eq!(world.service.handle(NOW_MS, &gw, topic, b"{}"), []);
    }
}
