//! Groups, snapshot and continuous jobs.

use super::*;

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

/// The things `gw`, `other` and `late`; `gw` and `other` are in the group `plant`.
fn world() -> World {
    let mut world = World::new();
    world.service.create_thing(NOW_MS, thing("late")).unwrap();
    world
        .service
        .create_group(NOW_MS, group("plant"), "the first one".to_owned())
        .unwrap();
    world
        .service
        .join_group(NOW_MS, &group("plant"), &[thing("gw"), thing("other")])
        .unwrap();
    world
}

fn job(id: &str, things: &[&str], groups: &[&str], selection: Selection) -> NewJob {
    NewJob {
        job_id: job_id(id),
        description: String::new(),
        things: things.iter().map(|name| thing(name)).collect(),
        document: json!({}),
        timeout_minutes: None,
        plan: Plan {
            groups: groups.iter().map(|name| group(name)).collect(),
            selection,
            ..Plan::default()
        },
    }
}

/// Who has an execution, and how it stands.
fn standing(world: &World, id: &str) -> Vec<(String, ExecutionStatus)> {
    let view = world.service.show(&job_id(id)).unwrap();
    let executions = view.executions.into_iter();
    executions
        .map(|e| (e.thing.to_string(), e.status))
        .collect()
}

fn names(world: &World, id: &str) -> Vec<String> {
    standing(world, id)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn a_job_for_a_group_gives_each_member_one_execution_and_nobody_else_hears_of_it() {
    let mut world = world();
    let new = job("j", &["gw"], &["plant"], Selection::Snapshot);
    let out = world.service.create_job(NOW_MS, new).unwrap();
    assert_eq!(names(&world, "j"), ["gw", "other"]);
    assert!(out.iter().all(|m| m.to != thing("late")));
    let heard = out.iter().filter(|m| m.to == thing("gw")).count();
    assert_eq!(
        heard, 2,
        "one notify and one notify-next, though it is named twice"
    );
}

#[test]
fn a_snapshot_keeps_its_members_whoever_joins_or_leaves() {
    let mut world = world();
    let new = job("j", &[], &["plant"], Selection::Snapshot);
    world.service.create_job(NOW_MS, new).unwrap();
    let out = world
        .service
        .join_group(NOW_MS, &group("plant"), &[thing("late")])
        .unwrap();
    assert_eq!(out, []);
    let out = world
        .service
        .leave_group(NOW_MS, &group("plant"), &[thing("gw")])
        .unwrap();
    assert_eq!(out, []);
    assert_eq!(names(&world, "j"), ["gw", "other"]);
    world.report("j", "SUCCEEDED");
    let topic = "$aws/things/other/jobs/j/update";
    let payload = br#"{"status":"SUCCEEDED"}"#;
    world
        .service
        .handle(NOW_MS, &thing("other"), topic, payload);
    let view = world.service.show(&job_id("j")).unwrap();
    assert_eq!(view.status, JobStatus::Completed);
}

#[test]
fn who_joins_a_group_gets_its_continuous_job_and_the_job_does_not_complete() {
    let mut world = world();
    let new = job("j", &[], &["plant"], Selection::Continuous);
    world.service.create_job(NOW_MS, new).unwrap();
    world.report("j", "SUCCEEDED");
    let topic = "$aws/things/other/jobs/j/update";
    let payload = br#"{"status":"SUCCEEDED"}"#;
    world
        .service
        .handle(NOW_MS, &thing("other"), topic, payload);
    let view = world.service.show(&job_id("j")).unwrap();
    assert_eq!(view.status, JobStatus::InProgress);
    assert!(!view.has_ended());
    let plant = group("plant");
    let joining = [thing("late"), thing("gw")];
    let out = world.service.join_group(NOW_MS, &plant, &joining).unwrap();
    assert_eq!(levels(&out), ["jobs/notify", "jobs/notify-next"]);
    assert!(out.iter().all(|m| m.to == thing("late")));
    // Members stay members; who has had it does not get it again.
    let out = world.service.join_group(NOW_MS, &plant, &joining).unwrap();
    assert_eq!(out, []);
    assert_eq!(
        world.service.describe_group(&plant).unwrap().jobs,
        [job_id("j")]
    );
    world
        .service
        .cancel(NOW_MS, &job_id("j"), false, None)
        .unwrap();
    assert!(world.service.show(&job_id("j")).unwrap().has_ended());
    // A cancelled one is over for those who come later, too.
    world.service.create_thing(NOW_MS, thing("last")).unwrap();
    let out = world
        .service
        .join_group(NOW_MS, &plant, &[thing("last")])
        .unwrap();
    assert_eq!(out, []);
}

#[test]
fn who_leaves_a_group_loses_what_it_has_not_begun_and_gets_it_back_on_joining_again() {
    use ExecutionStatus::{InProgress, Queued, Removed};
    let mut world = world();
    let plant = group("plant");
    let new = job("j", &[], &["plant"], Selection::Continuous);
    world.service.create_job(NOW_MS, new).unwrap();
    world.report("j", "IN_PROGRESS");
    let leaving = [thing("gw"), thing("other"), thing("late")];
    let out = world.service.leave_group(NOW_MS, &plant, &leaving).unwrap();
    assert_eq!(levels(&out), ["jobs/notify", "jobs/notify-next"]);
    assert!(out.iter().all(|m| m.to == thing("other")));
    let after = [("gw".to_owned(), InProgress), ("other".to_owned(), Removed)];
    assert_eq!(standing(&world, "j"), after);
    let out = world
        .service
        .join_group(NOW_MS, &plant, &[thing("other")])
        .unwrap();
    let next = body(out.last().unwrap());
    assert_eq!(next["execution"]["executionNumber"], 2);
    assert_eq!(standing(&world, "j")[1].1, Queued);
    // The number is the execution's.
    let topic = "$aws/things/other/jobs/j/get";
    for (number, level) in [(1, "rejected"), (2, "accepted")] {
        let payload = json!({"executionNumber": number}).to_string();
        let out = world
            .service
            .handle(NOW_MS, &thing("other"), topic, payload.as_bytes());
        assert!(out[0].topic.ends_with(level), "{number}");
    }
}

#[test]
fn who_is_reached_on_another_way_keeps_the_job() {
    let mut world = world();
    world
        .service
        .create_group(NOW_MS, group("spare"), String::new())
        .unwrap();
    world
        .service
        .join_group(NOW_MS, &group("spare"), &[thing("other")])
        .unwrap();
    let new = job("j", &["gw"], &["plant", "spare"], Selection::Continuous);
    world.service.create_job(NOW_MS, new).unwrap();
    let out = world
        .service
        .leave_group(NOW_MS, &group("plant"), &[thing("gw"), thing("other")])
        .unwrap();
    assert_eq!(out, []);
    let statuses = standing(&world, "j");
    assert!(statuses.iter().all(|(_, s)| *s == ExecutionStatus::Queued));
}

#[test]
fn who_joins_during_a_roll_out_waits_for_its_turn() {
    let mut world = world();
    let mut new = job("j", &[], &["plant"], Selection::Continuous);
    new.plan.rollout.canary = Some(1);
    world.service.create_job(NOW_MS, new).unwrap();
    let out = world
        .service
        .join_group(NOW_MS, &group("plant"), &[thing("late")])
        .unwrap();
    assert_eq!(out, []);
    let out = world.report("j", "SUCCEEDED");
    let heard: Vec<_> = out.iter().map(|m| m.to.as_str()).collect();
    assert!(heard.contains(&"other") && heard.contains(&"late"));
}

#[test]
fn what_is_not_there_is_refused_by_name_and_nothing_changes() {
    let mut world = world();
    world
        .service
        .create_group(NOW_MS, group("empty"), String::new())
        .unwrap();
    let before = world.service.state().clone();
    let snapshot = Selection::Snapshot;
    let continuous = Selection::Continuous;
    let rows = [
        (
            job("j", &[], &["nowhere"], snapshot),
            "unknown_group",
            "nowhere",
        ),
        (
            job("j", &["nobody"], &["plant"], snapshot),
            "unknown_thing",
            "nobody",
        ),
        (
            job("j", &[], &["plant", "plant"], snapshot),
            "group_twice",
            "plant",
        ),
        (job("j", &[], &["empty"], snapshot), "group_empty", "empty"),
        (job("j", &[], &[], snapshot), "no_target", "group"),
        (
            job("j", &["gw"], &[], continuous),
            "continuous_without_group",
            "group",
        ),
    ];
    for (new, code, named) in rows {
        let error = world.service.create_job(NOW_MS, new).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(named), "{error}");
    }
    let service = &mut world.service;
    let plant = group("plant");
    let twice = service.create_group(NOW_MS, plant.clone(), String::new());
    assert_eq!(twice.unwrap_err().code(), "group_exists");
    let long = service.create_group(NOW_MS, group("g"), "ä".repeat(2029));
    assert_eq!(long.unwrap_err().code(), "description_too_long");
    let things = [thing("late"), thing("nobody")];
    for error in [
        service.join_group(NOW_MS, &plant, &things),
        service.leave_group(NOW_MS, &plant, &things),
    ] {
        assert_eq!(error.unwrap_err().code(), "unknown_thing");
    }
    let nowhere = group("nowhere");
    for error in [
        service.join_group(NOW_MS, &nowhere, &[]).unwrap_err(),
        service.leave_group(NOW_MS, &nowhere, &[]).unwrap_err(),
        service.delete_group(&nowhere).unwrap_err(),
        service.describe_group(&nowhere).unwrap_err(),
    ] {
        assert_eq!(error.code(), "unknown_group");
    }
    assert_eq!(*service.state(), before);
    service
        .create_group(NOW_MS, group("g"), "ä".repeat(2028))
        .unwrap();
    // An empty group is enough for a job that waits for its members.
    let new = job("j", &[], &["empty"], continuous);
    service.create_job(NOW_MS, new).unwrap();
}

#[test]
fn groups_show_their_members_and_things_their_groups() {
    let mut world = world();
    let view = world.service.describe_group(&group("plant")).unwrap();
    assert_eq!(view.things, [thing("gw"), thing("other")]);
    assert_eq!(view.description, "the first one");
    assert_eq!(world.service.things()[0].groups, [group("plant")]);
    assert_eq!(world.service.groups().len(), 1);
    let new = job("j", &[], &["plant"], Selection::Snapshot);
    world.service.create_job(NOW_MS, new).unwrap();
    assert!(world.service.is_for(&job_id("j"), &group("plant")));
    assert!(world.service.runs_on(&job_id("j"), &thing("gw")));
    assert!(!world.service.runs_on(&job_id("j"), &thing("late")));
    world.service.delete_group(&group("plant")).unwrap();
    assert_eq!(world.service.groups(), []);
    assert_eq!(world.service.things()[0].groups, []);
    assert_eq!(names(&world, "j"), ["gw", "other"], "what is queued stays");
}
