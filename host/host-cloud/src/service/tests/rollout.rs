//! How jobs spread over many things, and when they give up.

use super::*;

/// Things `t0` to `t<n-1>` and nothing else, with images in memory.
struct Fleet {
    service: Service,
    now_ms: u64,
    count: usize,
}

impl Fleet {
    fn new(count: usize) -> Self {
        let mut service = Service::new(Limits::Aws, Arc::new(MemoryImages::default()));
        for number in 0..count {
            service.create_thing(NOW_MS, name(number)).unwrap();
        }
        Self {
            service,
            now_ms: NOW_MS,
            count,
        }
    }

    fn create(&mut self, plan: Plan) -> Vec<Outgoing> {
        let job = NewJob {
            job_id: job_id("j"),
            description: String::new(),
            things: (0..self.count).map(name).collect(),
            document: json!({"operation": "try"}),
            timeout_minutes: Some(60),
            plan,
        };
        self.service.create_job(self.now_ms, job).unwrap()
    }

    fn ask(&mut self, number: usize, rest: &str, payload: &Value) -> Vec<Outgoing> {
        let thing = name(number);
        let topic = format!("$aws/things/{thing}/{rest}");
        let payload = payload.to_string();
        self.service
            .handle(self.now_ms, &thing, &topic, payload.as_bytes())
    }

    fn report(&mut self, number: usize, status: &str) -> Vec<Outgoing> {
        let out = self.ask(number, "jobs/j/update", &json!({"status": status}));
        assert_eq!(
            level(&out[0]),
            "jobs/j/update/accepted",
            "{}",
            body(&out[0])
        );
        out
    }

    /// Everybody who has the job ends it like this; how many did.
    fn all_end(&mut self, status: &str) -> usize {
        let offered: Vec<usize> = (0..self.count)
            .filter(|number| {
                let thing = &self.service.state().things[&name(*number)];
                !thing.pending.is_empty()
            })
            .collect();
        for number in &offered {
            // An abort may have come between.
            let thing = &self.service.state().things[&name(*number)];
            if !thing.pending.is_empty() {
                self.report(*number, status);
            }
        }
        offered.len()
    }

    fn wait(&mut self, seconds: u64) -> Vec<Outgoing> {
        self.now_ms += seconds * 1000;
        self.service.poll(self.now_ms)
    }

    fn view(&self) -> JobView {
        self.service.show(&job_id("j")).unwrap()
    }

    fn progress(&self) -> JobProgress {
        self.view().progress
    }

    /// Things that were ever told of the job.
    fn reached(&self) -> usize {
        self.view().executions.iter().filter(|e| e.offered).count()
    }
}

fn name(number: usize) -> ThingName {
    thing(&format!("t{number}"))
}

fn plan(per_minute: Option<u32>, canary: Option<u32>, abort: &[AbortRule]) -> Plan {
    Plan {
        rollout: Rollout { per_minute, canary },
        abort: abort.to_vec(),
        ..Plan::default()
    }
}

fn percent(percent: u8) -> AbortRule {
    AbortRule::new(Threshold::Percent(percent))
}

fn told(out: &[Outgoing]) -> usize {
    out.iter()
        .filter(|m| m.topic.ends_with("/notify-next"))
        .count()
}

#[test]
fn a_bad_image_reaches_the_canary_and_one_batch_at_most_and_the_rest_see_canceled() {
    // rate, canary, rule, most things that may ever hear of it
    let count = |n| AbortRule::new(Threshold::Count(n));
    let rows = [
        (Some(100), Some(10), percent(10), 10),
        (Some(100), Some(10), percent(100), 10),
        (Some(100), Some(10), count(20), 110),
        (Some(100), None, percent(50), 100),
        (None, Some(5), percent(1), 5),
        (Some(50), None, count(50), 50),
        (
            Some(100),
            Some(10),
            AbortRule {
                minimum: Some(60),
                ..percent(20)
            },
            110,
        ),
    ];
    for (rate, canary, rule, most) in rows {
        let mut fleet = Fleet::new(1000);
        fleet.create(plan(rate, canary, &[rule]));
        // Things that take it begin at once and fail only after an hour and a half of minutes have passed.
        for _ in 0..10 {
            for _ in 0..9 {
                fleet.wait(60);
            }
            if fleet.view().status != JobStatus::InProgress {
                break;
            }
            fleet.all_end("FAILED");
        }
        let (view, row) = (fleet.view(), (rate, canary, rule));
        assert_eq!(view.status, JobStatus::Canceled, "{row:?}");
        assert!(
            fleet.reached() <= most,
            "{} > {most} {row:?}",
            fleet.reached()
        );
        let progress = view.progress;
        assert_eq!(progress.failed + progress.canceled, 1000, "{row:?}");
        assert!(progress.canceled >= 1000 - most, "{row:?}");
        let reason = view.reason.unwrap();
        assert!(reason.contains("failures"), "{reason}");
        // Nobody is told of it any more, and the ones that were never told know nothing to end.
        assert_eq!(fleet.service.deadline(), None, "{row:?}");
        assert_eq!(told(&fleet.wait(3600)), 0);
        let out = fleet.ask(999, "jobs/j/get", &json!({}));
        assert_eq!(body(&out[0])["code"], "TerminalStateReached", "{row:?}");
        let out = fleet.ask(999, "jobs/$next/get", &json!({}));
        assert_eq!(body(&out[0]).get("execution"), None);
    }
}

#[test]
fn a_good_image_reaches_everybody_a_canary_first_and_then_a_batch_a_minute() {
    let mut fleet = Fleet::new(100);
    let out = fleet.create(plan(Some(30), Some(10), &[percent(10)]));
    assert_eq!((told(&out), fleet.reached()), (10, 10));
    assert_eq!(fleet.view().waits_for, Some(WaitsFor::Canary));
    // Time alone moves nothing; neither do nine of ten.
    fleet.wait(600);
    for number in 0..9 {
        fleet.report(number, "SUCCEEDED");
    }
    assert_eq!(fleet.reached(), 10);
    let out = fleet.report(9, "SUCCEEDED");
    assert_eq!((told(&out), fleet.reached()), (31, 40));
    let next = fleet.now_ms + 60_000;
    assert_eq!(fleet.view().waits_for, Some(WaitsFor::Batch(next)));
    assert_eq!(fleet.service.deadline(), Some(next));
    assert_eq!(told(&fleet.wait(59)), 0);
    assert_eq!(told(&fleet.wait(1)), 30);
    // A batch that was due while the cloud was busy does not make two.
    fleet.now_ms += 240_000;
    assert_eq!(told(&fleet.wait(0)), 30);
    assert_eq!(fleet.reached(), 100);
    assert_eq!(fleet.view().waits_for, None);
    assert_eq!(fleet.service.deadline(), None);
    fleet.all_end("SUCCEEDED");
    let view = fleet.view();
    assert_eq!(
        (view.status, view.progress.succeeded),
        (JobStatus::Completed, 100)
    );
}

#[test]
fn with_a_rule_a_batch_waits_for_results_and_without_one_only_for_the_minute() {
    let rule = AbortRule {
        minimum: Some(20),
        ..percent(50)
    };
    let mut fleet = Fleet::new(100);
    fleet.create(plan(Some(20), None, &[rule]));
    fleet.wait(600);
    assert_eq!(fleet.reached(), 20);
    assert_eq!(fleet.view().waits_for, Some(WaitsFor::Results));
    for number in 0..19 {
        fleet.report(number, "SUCCEEDED");
    }
    assert_eq!(fleet.reached(), 20);
    fleet.report(19, "FAILED");
    assert_eq!(fleet.reached(), 40, "judged, and the minute is long over");
    fleet.wait(60);
    assert_eq!(fleet.reached(), 60);

    let mut fleet = Fleet::new(100);
    fleet.create(plan(Some(20), None, &[]));
    for minute in 1..5 {
        fleet.wait(60);
        assert_eq!(fleet.reached(), 20 * (minute + 1));
    }
}

#[test]
fn without_a_rule_a_canary_that_does_not_succeed_ends_the_job() {
    for (last, status, reached) in [
        ("FAILED", JobStatus::Canceled, 3),
        ("REJECTED", JobStatus::Canceled, 3),
        ("SUCCEEDED", JobStatus::InProgress, 20),
    ] {
        let mut fleet = Fleet::new(20);
        fleet.create(plan(None, Some(3), &[]));
        fleet.report(0, "SUCCEEDED");
        fleet.report(1, "SUCCEEDED");
        fleet.report(2, last);
        assert_eq!((fleet.view().status, fleet.reached()), (status, reached));
        let reason = fleet.view().reason;
        assert_eq!(
            reason.is_some(),
            status == JobStatus::Canceled,
            "{reason:?}"
        );
    }
    // A canary that is removed is replaced.
    let mut fleet = Fleet::new(20);
    fleet.create(plan(None, Some(3), &[]));
    fleet
        .service
        .delete_thing(fleet.now_ms, &name(1), true)
        .unwrap();
    assert_eq!(fleet.reached(), 4);
    fleet.count = 0;
    for number in [0, 2, 3] {
        fleet.report(number, "SUCCEEDED");
    }
    assert_eq!(fleet.progress().queued, 16);
}

#[test]
fn a_thing_knows_nothing_of_a_job_that_has_not_come_to_it() {
    let bytes = image(1000);
    let mut fleet = Fleet::new(2);
    let mut memory = MemoryImages::default();
    memory.insert(bytes.clone());
    fleet.service =
        Service::restore(Limits::Aws, Arc::new(memory), fleet.service.state().clone()).unwrap();
    let mut new = update("u", &[(0, &bytes)]);
    new.things = vec![name(0), name(1)];
    new.plan = plan(None, Some(1), &[]);
    let out = fleet.service.create_update(NOW_MS, new).unwrap();
    assert!(out.iter().all(|m| m.to == name(0)));
    for (rest, code) in [
        ("jobs/AFR_OTA-u/get", "ResourceNotFound"),
        ("streams/AFR_OTA-s-u/describe/json", "ResourceNotFound"),
        ("streams/AFR_OTA-s-u/get/json", "ResourceNotFound"),
    ] {
        let out = fleet.ask(1, rest, &json!({"f": 0, "l": 1024, "n": 1}));
        assert_eq!(body(&out[0])["code"], code, "{rest}");
    }
    let out = fleet.ask(1, "jobs/AFR_OTA-u/update", &json!({"status": "SUCCEEDED"}));
    assert_eq!(body(&out[0])["code"], "ResourceNotFound");
    let out = fleet.ask(1, "jobs/get", &json!({}));
    assert_eq!(body(&out[0])["queuedJobs"], json!([]));
    let out = fleet.ask(1, "jobs/start-next", &json!({}));
    assert_eq!(body(&out[0]).get("execution"), None);
    let description = fleet.service.describe_thing(&name(1)).unwrap();
    assert_eq!(description.jobs, []);
}

#[test]
fn a_roll_out_goes_on_where_it_was_after_a_restart() {
    let mut fleet = Fleet::new(50);
    fleet.create(plan(Some(10), Some(5), &[percent(50)]));
    fleet.all_end("SUCCEEDED");
    fleet.wait(60);
    assert_eq!(fleet.reached(), 25);
    let before = fleet.view();
    let rows = fleet.service.state().rows().into_iter();
    let rows = rows.map(|row| (row.table, row.key, row.value.unwrap()));
    let state = State::from_rows(rows).unwrap();
    assert_eq!(state, *fleet.service.state());
    let images = Arc::new(MemoryImages::default());
    fleet.service = Service::restore(Limits::Aws, images, state).unwrap();
    assert_eq!(fleet.view(), before);
    fleet.wait(30);
    assert_eq!(fleet.reached(), 25);
    fleet.wait(30);
    assert_eq!(fleet.reached(), 35);
    // Down for ten minutes: one batch, not ten.
    fleet.now_ms += 600_000;
    fleet.wait(0);
    assert_eq!(fleet.reached(), 45);
}

#[test]
fn time_outs_and_rejections_count_as_the_rule_says() {
    let rule = |failures| AbortRule {
        failures,
        ..AbortRule::new(Threshold::Count(1))
    };
    let rows = [
        (FailureKind::All, JobStatus::Canceled, JobStatus::Canceled),
        (
            FailureKind::TimedOut,
            JobStatus::Canceled,
            JobStatus::InProgress,
        ),
        (
            FailureKind::Rejected,
            JobStatus::InProgress,
            JobStatus::Canceled,
        ),
        (
            FailureKind::Failed,
            JobStatus::InProgress,
            JobStatus::InProgress,
        ),
    ];
    for (failures, after_time_out, after_rejection) in rows {
        let mut fleet = Fleet::new(5);
        fleet.create(plan(None, None, &[rule(failures)]));
        fleet.report(0, "IN_PROGRESS");
        fleet.wait(3600);
        assert_eq!(fleet.progress().timed_out, 1);
        assert_eq!(fleet.view().status, after_time_out, "{failures:?}");
        let mut fleet = Fleet::new(5);
        fleet.create(plan(None, None, &[rule(failures)]));
        fleet.report(0, "REJECTED");
        assert_eq!(fleet.view().status, after_rejection, "{failures:?}");
    }
}

#[test]
fn an_abort_leaves_alone_what_has_begun_and_a_forced_cancel_does_not() {
    let mut fleet = Fleet::new(10);
    fleet.create(plan(None, None, &[percent(10)]));
    fleet.report(0, "IN_PROGRESS");
    let out = fleet.report(1, "FAILED");
    // Eight that were queued hear of it, and the one that failed that nothing is next.
    assert_eq!(told(&out), 9);
    let progress = fleet.progress();
    assert_eq!((progress.in_progress, progress.canceled), (1, 8));
    assert!(!fleet.view().has_ended());
    fleet.report(0, "IN_PROGRESS");
    let why = Some("enough".to_owned());
    fleet
        .service
        .cancel(fleet.now_ms, &job_id("j"), true, why)
        .unwrap();
    assert!(fleet.view().has_ended());
    assert_eq!(fleet.view().reason.as_deref(), Some("enough"));
    let out = fleet.ask(0, "jobs/j/update", &json!({"status": "SUCCEEDED"}));
    assert_eq!(body(&out[0])["code"], "InvalidStateTransition");
}

#[test]
fn the_last_failure_of_a_job_completes_it_and_cancels_nothing() {
    let mut fleet = Fleet::new(1);
    fleet.create(plan(None, None, &[percent(100)]));
    fleet.report(0, "FAILED");
    let view = fleet.view();
    assert_eq!((view.status, view.reason), (JobStatus::Completed, None));
}

#[test]
fn sums_agree_with_the_executions_whatever_happens() {
    let mut fleet = Fleet::new(40);
    fleet.create(plan(Some(7), Some(3), &[percent(60)]));
    let check = |fleet: &Fleet| {
        let view = fleet.view();
        assert_eq!(view.progress.total(), 40);
        assert_eq!(view.executions.len(), 40);
        for status in ExecutionStatus::ALL {
            let found = view.executions.iter().filter(|e| e.status == status);
            assert_eq!(view.progress.count(status), found.count(), "{status:?}");
        }
        let held = view
            .executions
            .iter()
            .filter(|e| e.status == ExecutionStatus::Queued && !e.offered);
        assert_eq!(view.progress.held, held.count());
    };
    for (step, status) in [
        "IN_PROGRESS",
        "SUCCEEDED",
        "FAILED",
        "SUCCEEDED",
        "REJECTED",
    ]
    .into_iter()
    .cycle()
    .take(60)
    .enumerate()
    {
        let number = step * 7 % 40;
        fleet.ask(number, "jobs/j/update", &json!({"status": status}));
        if step % 10 == 9 {
            let gone = name(step);
            fleet.service.delete_thing(fleet.now_ms, &gone, true).ok();
        }
        fleet.wait(20);
        check(&fleet);
    }
    fleet
        .service
        .cancel(fleet.now_ms, &job_id("j"), true, None)
        .ok();
    check(&fleet);
    assert!(fleet.view().has_ended());
}
