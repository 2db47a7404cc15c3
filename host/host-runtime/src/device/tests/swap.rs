//! Another agent build for a device that works: what is handed over, builds that are no good, the trial and its end.

use super::*;
use crate::agent::TRIAL_MS;
use crate::choice::{self, Build, Choice, Place, StandIn};
use crate::status::{STATE_STOPPED, event};
use crate::testing::{React, puppet_of};

type Puppet = (Arc<AgentBuild>, Arc<Mutex<Strings>>);

/// Where the answer to a swap arrives.
type Answer = Arc<Mutex<Option<Result<(), Failure>>>>;

impl Bench {
    fn swap(&mut self, build: Option<&Arc<AgentBuild>>) -> Answer {
        let answer = Answer::default();
        let place = Arc::clone(&answer);
        let reply = move |end| assert!(place.lock().unwrap().replace(end).is_none());
        let build = build.map(Arc::clone);
        self.device
            .swap_agent(self.now, build, TRIAL_MS, Box::new(reply));
        answer
    }

    /// Swap and let it happen.
    fn swapped(&mut self, build: Option<&Arc<AgentBuild>>) -> Result<(), Failure> {
        let answer = self.swap(build);
        self.settle();
        let end = answer.lock().unwrap().take();
        end.expect("an answer")
    }

    fn chosen(&self) -> Option<Choice> {
        choice::load(&*self.state, &Place::agent("gateway-7")).unwrap()
    }

    fn serves(&mut self) -> String {
        self.device.status(self.now).agent.label
    }

    /// The agent in charge is in the middle of a job, and has one publish under way.
    fn busy() -> Self {
        let mut bench = Self::new();
        bench.handle(Input::Connected {
            session_present: false,
        });
        bench.react(|outside, _| {
            outside.publish(TOPIC.into(), b"{}".to_vec(), Qos::AtLeastOnce);
            Ok(changed(6, Some("job-1")))
        });
        bench.handle(message(1));
        bench.react(|_, _| Ok(idle()));
        bench.settle();
        bench.seen();
        bench
    }
}

fn seen((_, strings): &Puppet) -> Vec<String> {
    std::mem::take(&mut strings.lock().unwrap().seen)
}

fn next() -> Puppet {
    puppet_of("next", &[3, 2])
}

#[test]
fn a_build_that_takes_over_gets_what_is_under_way_and_the_old_one_hears_nothing_more() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    let starts = next.1.lock().unwrap().starts.clone();
    // Once where it reaches nothing, and then in earnest, from what is true at that instant.
    assert_eq!(starts.len(), 2);
    for start in &starts {
        assert!(matches!(start.saved, Saved::Snapshot(_)), "{start:?}");
        assert_eq!((&start.outstanding[..], start.schema), (&[1][..], 3));
    }
    assert_eq!(bench.serves(), "next");
    bench.handle(done(1));
    bench.handle(message(2));
    assert_eq!(bench.seen(), [] as [&str; 0]);
    let seen = seen(&next);
    // The connection is no news.
    let wanted = ["start", "Timeout", "start", "Done { token: 1", "Message"];
    assert_eq!(seen.len(), wanted.len(), "{seen:?}");
    for (line, wanted) in seen.iter().zip(wanted) {
        assert!(line.starts_with(wanted), "{seen:?}");
    }
    let status = bench.device.status(bench.now).agent;
    assert_eq!((status.swaps, status.on_trial), (1, true));
    assert_eq!(status.former.as_deref(), Some("test"));
}

#[test]
fn what_was_chosen_is_on_the_medium_before_it_serves_and_a_trial_goes_on_after_a_restart() {
    let mut bench = Bench::busy();
    let next = next();
    let answer = bench.swap(Some(&next.0));
    for _ in 0..20 {
        let label = bench.serves();
        assert!(label == "test" || bench.chosen().is_some());
        let swapping = bench.device.status(bench.now).agent.swapping;
        assert_eq!(swapping, label == "test");
        bench.device.poll(bench.now);
        bench.workers.run_one();
    }
    answer.lock().unwrap().take().unwrap().unwrap();
    let chosen = bench.chosen().unwrap();
    assert_eq!(
        (&*chosen.configured, &*chosen.serves.label),
        ("test", "next")
    );
    assert_eq!(chosen.former.unwrap().label, "test");
    assert!(chosen.on_trial);
    // After a restart it is still on trial: a break brings the one before back.
    let former = FormerAgent {
        agent: puppet().0,
        on_trial: true,
    };
    let mut again = Bench::of(Arc::clone(&bench.state), next, Some(former), |_| {});
    again.device.start(again.now).unwrap();
    again.react(|_, _| Err(trap()));
    again.handle(message(1));
    again.settle();
    assert_eq!(again.serves(), "test");
    assert_eq!(again.chosen(), None);
}

#[test]
fn whoever_puts_a_build_in_can_end_its_trial() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    let answer = Answer::default();
    let place = Arc::clone(&answer);
    let reply = Box::new(move |end| *place.lock().unwrap() = Some(end));
    bench.device.end_trial(bench.now, None, reply);
    assert_eq!(
        *answer.lock().unwrap(),
        None,
        "before it stands on the medium"
    );
    bench.settle();
    assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    assert!(!bench.chosen().unwrap().on_trial);
    next.1.lock().unwrap().react = Box::new(|_, _| Err(trap()));
    bench.handle(message(1));
    bench.settle();
    assert_eq!(bench.serves(), "next");
}

/// A build of this label, which is not let in.
fn stood_in_for(label: &str) -> StandIn {
    StandIn {
        build: Build {
            label: label.to_owned(),
            sha256: [9; 32],
            manifest: None,
        },
        why: format!("{label}: nobody has signed it"),
    }
}

#[test]
fn a_choice_holds_while_another_build_stands_in_for_it_until_an_operator_chooses_again() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    bench.device.end_trial(bench.now, None, Box::new(drop));
    bench.settle();
    let chosen = bench.chosen();
    let names = Build::of_agent(&next.0);
    let why = "next: nobody vouches for it";
    let (before, strings) = puppet();
    let stand_in = before.in_place_of(StandIn {
        build: names.clone(),
        why: why.to_owned(),
    });
    let former = FormerAgent {
        agent: Arc::clone(&before),
        on_trial: false,
    };
    let state = Arc::clone(&bench.state);
    let mut again = Bench::of(state, (stand_in, strings), Some(former), |_| {});
    again.device.start(again.now).unwrap();
    again.handle(message(1));
    again.settle();
    let status = again.device.status(again.now).agent;
    assert_eq!(status.label, "test");
    assert_eq!(status.refused.as_deref(), Some(why));
    assert_eq!(again.chosen(), chosen);
    // Going back makes an end of that; and one can go there again.
    again.swapped(None).unwrap();
    again.settle();
    let back = again.chosen().unwrap();
    assert_eq!(
        (&*back.serves.label, back.former.as_ref()),
        ("test", Some(&names))
    );
    again.swapped(None).unwrap();
    again.settle();
    assert_eq!(again.chosen().unwrap().serves, names);
    // Also after one that was put in and sent back.
    let bad = puppet_of("bad", &[2]);
    again.swapped(Some(&bad.0)).unwrap();
    assert_eq!(again.chosen().unwrap().former.as_ref(), Some(&names));
    bad.1.lock().unwrap().react = Box::new(|_, _| Err(trap()));
    again.handle(message(2));
    again.settle();
    assert_eq!(again.serves(), "test");
    assert_eq!(again.chosen().unwrap().serves, names);
}

#[test]
fn a_build_that_stands_in_for_another_begins_with_nothing_where_it_knows_no_better() {
    let mut bench = Bench::busy();
    bench.react(|outside, _| {
        outside.journal_store(blob("theirs"));
        Ok(changed(6, Some("job-1")))
    });
    bench.handle(message(2));
    bench.settle();
    let (builtin, strings) = next();
    strings.lock().unwrap().on_start = Box::new(|info| match info.saved {
        Saved::None => Ok(Ok(idle())),
        _ => Ok(Err(Failure::new(code::SCHEMA, 9, "unknown"))),
    });
    let stand_in = builtin.in_place_of(stood_in_for("agent.wasm"));
    let state = Arc::clone(&bench.state);
    let mut again = Bench::of(state, (stand_in, strings), None, |_| {});
    again.device.start(again.now).unwrap();
    again.settle();
    let status = again.device.status(again.now).agent;
    assert_eq!((&*status.label, status.strikes), ("next", 0));
    assert_eq!(
        status.refused.as_deref(),
        Some("agent.wasm: nobody has signed it")
    );
    assert_eq!(status.life, crate::status::AgentLife::Running);
}

#[test]
fn what_became_of_the_agent_while_a_build_was_tried_is_looked_at_before_it_takes_over() {
    let mut bench = Bench::busy();
    let next = next();
    let answer = bench.swap(Some(&next.0));
    bench.react(|_, _| Ok(changed(STATE_STOPPED, None)));
    bench.handle(message(1));
    bench.settle();
    let refused = answer.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(refused.main, code::UNSUPPORTED, "{refused}");
    assert!(bench.device.is_stopped());
    assert_eq!(bench.chosen(), None);

    let mut bench = Bench::busy();
    let older = puppet_of("older", &[2]);
    let answer = bench.swap(Some(&older.0));
    bench.react(|outside, _| {
        outside.journal_store(blob("phases"));
        Ok(idle())
    });
    bench.handle(message(1));
    bench.settle();
    let refused = answer.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(refused.main, code::SCHEMA, "{refused}");
    assert_eq!(bench.serves(), "test");
    assert_eq!(bench.chosen(), None);
}

#[test]
fn a_build_that_is_no_good_is_refused_with_its_reason_before_it_reaches_anything() {
    type Spoil = fn(&Puppet);
    let rows: [(&str, &[u32], Spoil, &str); 6] = [
        ("schemas", &[9], |_| {}, "there would be no way back"),
        ("journal", &[2], |_| {}, "the journal is of schema 3"),
        (
            "refuses",
            &[3],
            |(_, strings)| {
                let refuse = || Ok(Err(Failure::new(code::SCHEMA, 3, "unknown")));
                strings.lock().unwrap().on_start = Box::new(move |_| refuse());
            },
            "it refuses to start",
        ),
        (
            "traps in start",
            &[3],
            |(_, strings)| strings.lock().unwrap().on_start = Box::new(|_| Err(trap())),
            "it breaks in `start`",
        ),
        (
            "traps in its first call",
            &[3],
            |(_, strings)| strings.lock().unwrap().react = Box::new(|_, _| Err(trap())),
            "it breaks in `handle`",
        ),
        (
            "publishes and traps",
            &[3],
            |(_, strings)| {
                strings.lock().unwrap().react = Box::new(|outside, _| {
                    outside.publish(TOPIC.into(), Vec::new(), Qos::AtLeastOnce);
                    outside.journal_store(blob("nonsense"));
                    Err(trap())
                });
            },
            "it breaks in `handle`",
        ),
    ];
    for (name, schemas, spoil, words) in rows {
        let mut bench = Bench::busy();
        bench.react(|outside, _| {
            outside.journal_store(blob("phases"));
            Ok(idle())
        });
        bench.handle(message(1));
        bench.react(|_, _| Ok(idle()));
        bench.settle();
        bench.seen();
        bench.wire();
        let writes = bench.state.writes();
        let bad = puppet_of(name, schemas);
        spoil(&bad);
        // What can be told without trying it is told before it is put in.
        let can_be_told = matches!(name, "schemas" | "journal");
        match bench.device.fits_agent(&bad.0) {
            Err(failure) => assert!(can_be_told && failure.detail.contains(words), "{failure}"),
            Ok(()) => assert!(!can_be_told, "{name}"),
        }
        let failure = bench.swapped(Some(&bad.0)).unwrap_err();
        assert!(failure.detail.contains(words), "{name}: {failure}");
        assert_eq!(bench.wire(), [] as [&str; 0], "{name}");
        assert_eq!(bench.state.writes(), writes, "{name}");
        assert_eq!(bench.serves(), "test");
        // The old one goes on, and was not even asked.
        bench.handle(done(1));
        assert_eq!(bench.seen(), ["Done { token: 1, outcome: Nothing }"]);
    }
}

#[test]
fn a_choice_that_cannot_be_written_is_refused_and_a_second_swap_waits_its_turn() {
    let mut bench = Bench::busy();
    let next = next();
    let first = bench.swap(Some(&next.0));
    let second = bench.swap(Some(&next.0));
    let busy = second.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(busy.main, code::BUSY);
    bench.state.fail_with(Some(28));
    bench.settle();
    let full = first.lock().unwrap().take().unwrap().unwrap_err();
    assert!(full.detail.contains("which build serves"), "{full}");
    assert_eq!(bench.serves(), "test");
    bench.state.fail_with(None);
    bench.swapped(Some(&next.0)).unwrap();
    assert_eq!(bench.serves(), "next");
}

#[test]
fn a_build_that_breaks_when_it_takes_over_leaves_the_old_one_and_its_journal() {
    let mut bench = Bench::busy();
    let next = next();
    let strings = Arc::clone(&next.1);
    // Its first start is the one that reaches nothing.
    let mut starts = 0;
    strings.lock().unwrap().on_start = Box::new(move |_| {
        starts += 1;
        if starts > 1 {
            Err(trap())
        } else {
            Ok(Ok(idle()))
        }
    });
    let failure = bench.swapped(Some(&next.0)).unwrap_err();
    assert!(failure.detail.contains("breaks in `start`"), "{failure}");
    assert_eq!(bench.serves(), "test");
    assert_eq!(bench.chosen(), None);
    let status = bench.device.status(bench.now).agent;
    assert_eq!((status.strikes, status.swaps), (0, 0));
    assert!(status.refused.unwrap().starts_with("next: "));
    bench.handle(done(1));
    assert_eq!(bench.seen(), ["Done { token: 1, outcome: Nothing }"]);
}

#[test]
fn a_build_that_breaks_on_trial_is_sent_back_and_the_one_before_goes_on_from_its_state() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    next.1.lock().unwrap().react = Box::new(|_, event| match event {
        Event::Messages(messages) if messages[0].payload.len() == 9 => Err(trap()),
        _ => Ok(changed(7, Some("job-1"))),
    });
    bench.handle(message(1));
    bench.handle(message(9));
    bench.settle();
    assert_eq!(bench.serves(), "test");
    // Of the new one's snapshots the newest: one of the trial, one of its start, one of its first turn.
    assert_eq!(bench.seen(), ["start from snapshot 3"]);
    let status = bench.device.status(bench.now).agent;
    assert_eq!((status.strikes, status.former), (0, None));
    let reason = status.refused.unwrap();
    assert!(
        reason.starts_with("next: the agent broke in `event`"),
        "{reason}"
    );
    assert_eq!(bench.device.agent_trial().returns, 1);
    assert_eq!(bench.chosen(), None);
    bench.handle(done(1));
    assert_eq!(bench.seen(), ["Done { token: 1, outcome: Nothing }"]);
}

#[test]
fn what_a_build_has_spoilt_that_was_sent_back_does_not_stop_the_one_before() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    next.1.lock().unwrap().react = Box::new(|outside, _| {
        outside.journal_store(blob("nonsense"));
        Err(trap())
    });
    let refuse = |info: &crate::agent::StartInfo| match &info.saved {
        Saved::Snapshot(blob) if blob.bytes == b"nonsense" => true,
        Saved::Journal(_) => true,
        Saved::Snapshot(_) | Saved::None => false,
    };
    bench.strings.lock().unwrap().on_start = Box::new(move |info| match refuse(info) {
        true => Ok(Err(Failure::new(code::BAD_ARGUMENT, 0, "nonsense"))),
        false => Ok(Ok(idle())),
    });
    bench.handle(message(1));
    bench.settle();
    assert_eq!(bench.serves(), "test");
    let seen = bench.seen();
    assert_eq!(seen[0], "start from journal nonsense");
    // What it had left itself when the other one came.
    assert!(seen[1].starts_with("start from snapshot "), "{seen:?}");
    assert_eq!(bench.device.status(bench.now).agent.strikes, 0);
    // Where that is no good either it begins from nothing: the targets are asked.
    let spoil = std::mem::replace(
        &mut next.1.lock().unwrap().react,
        Box::new(|_, _| Ok(idle())),
    );
    bench.swapped(Some(&next.0)).unwrap();
    bench.strings.lock().unwrap().on_start = Box::new(|info| match info.saved {
        Saved::None => Ok(Ok(idle())),
        Saved::Journal(_) | Saved::Snapshot(_) => Err(trap()),
    });
    next.1.lock().unwrap().react = spoil;
    bench.seen();
    bench.handle(message(1));
    bench.settle();
    let seen = bench.seen();
    assert_eq!(seen[2], "start from nothing", "{seen:?}");
    assert_eq!(
        bench.device.status(bench.now).agent.life,
        AgentLife::Running
    );
}

/// Tells of the ends of jobs.
fn ends(jobs: &'static [&'static str]) -> React {
    Box::new(move |outside, _| {
        tell_ends(outside, jobs);
        Ok(idle())
    })
}

fn tell_ends(outside: &mut dyn Outside, jobs: &[&str]) {
    for (sequence, job_id) in (1..).zip(jobs) {
        outside.emit(ApplicationEvent {
            sequence,
            kind: event::JOB_ENDED,
            job_id: Some((*job_id).to_owned()),
            file: None,
            failure: None,
            version: None,
            document: Vec::new(),
        });
    }
}

#[test]
fn the_end_of_a_job_that_is_told_in_a_start_that_breaks_is_no_proof_of_another_build() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    let bad = puppet_of("bad", &[3, 2]);
    // Where it is tried it reaches nothing.
    let mut starts = 0;
    let end = move |_: &_| {
        starts += 1;
        match starts {
            1 => Ok(Ok(idle())),
            _ => Err(trap()),
        }
    };
    bad.1.lock().unwrap().on_start = Box::new(end);
    bad.1.lock().unwrap().at_start = Box::new(|outside| tell_ends(outside, &["job-1"]));
    let refused = bench.swapped(Some(&bad.0)).unwrap_err();
    assert!(refused.detail.contains("breaks in `start`"), "{refused}");
    bench.handle(message(1));
    assert_eq!(bench.serves(), "next");
    assert!(bench.device.agent_trial().on_trial);
}

#[test]
fn the_end_of_a_job_that_is_told_in_a_call_that_breaks_is_no_proof_of_the_next_build() {
    type Break = fn(&Bench);
    let rows: [(&str, Break); 2] = [
        ("event", |bench| {
            bench.strings.lock().unwrap().on_start = Box::new(|_| Err(trap()));
            bench.react(|outside, _| {
                tell_ends(outside, &["job-1"]);
                Err(trap())
            });
        }),
        ("start", |bench| {
            bench.strings.lock().unwrap().at_start =
                Box::new(|outside| tell_ends(outside, &["job-1"]));
            bench.strings.lock().unwrap().on_start = Box::new(|_| Err(trap()));
            bench.react(|_, _| Err(trap()));
        }),
    ];
    for (call, breaks) in rows {
        let mut bench = Bench::busy();
        breaks(&bench);
        bench.handle(message(1));
        bench.settle();
        assert_eq!(bench.device.status(bench.now).agent.life, AgentLife::Broken);
        bench.swapped(Some(&next().0)).unwrap();
        assert_eq!(bench.serves(), "next");
        assert!(bench.device.agent_trial().on_trial, "{call}");
    }
}

#[test]
fn a_build_that_loses_its_job_has_not_proved_itself() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    let mut react = |react: React| {
        next.1.lock().unwrap().react = react;
        bench.handle(message(1));
        bench.settle();
        bench.serves()
    };
    assert_eq!(react(Box::new(|_, _| Ok(changed(3, None)))), "next");
    // The end of another job, of which its snapshot knew, was not brought about by it.
    assert_eq!(react(ends(&["job-0"])), "next");
    assert_eq!(react(Box::new(|_, _| Err(trap()))), "test");
}

#[test]
fn a_job_that_fails_is_no_proof_of_a_build() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    next.1.lock().unwrap().react = Box::new(|outside, _| {
        outside.emit(ApplicationEvent {
            sequence: 1,
            kind: event::JOB_ENDED,
            job_id: Some("job-1".to_owned()),
            file: None,
            failure: Some(Failure::new(0x0f, 0, "a downgrade")),
            version: None,
            document: Vec::new(),
        });
        Ok(changed(3, None))
    });
    bench.handle(message(1));
    bench.settle();
    assert!(bench.device.agent_trial().on_trial);
}

#[test]
fn a_build_has_proved_itself_once_a_job_is_over_or_after_its_time() {
    let by_jobs: [Option<&[&str]>; 4] = [
        Some(&["job-1"]),
        Some(&["job-1", "job-2"]),
        Some(&["job-0", "job-1"]),
        None,
    ];
    for by_job in by_jobs {
        let mut bench = Bench::busy();
        let next = next();
        bench.swapped(Some(&next.0)).unwrap();
        assert!(bench.device.agent_trial().on_trial);
        if let Some(jobs) = by_job {
            next.1.lock().unwrap().react = Box::new(|_, _| Ok(changed(3, None)));
            bench.handle(message(1));
            next.1.lock().unwrap().react = ends(jobs);
            bench.handle(message(2));
            next.1.lock().unwrap().react = Box::new(|_, _| Ok(idle()));
        } else {
            bench.now.now_ms += TRIAL_MS - 1;
            let due = bench.settle().unwrap();
            assert!(bench.device.agent_trial().on_trial);
            bench.now.now_ms = due;
        }
        bench.settle();
        assert!(!bench.device.agent_trial().on_trial, "by job: {by_job:?}");
        assert!(!bench.chosen().unwrap().on_trial);
        // A break is a strike as of any build.
        next.1.lock().unwrap().react = Box::new(|_, _| Err(trap()));
        bench.handle(message(1));
        bench.settle();
        assert_eq!(bench.serves(), "next");
        assert_eq!(bench.device.status(bench.now).agent.strikes, 1);
    }
}

#[test]
fn a_roll_back_is_a_swap_and_a_second_one_takes_it_back() {
    let mut bench = Bench::busy();
    let none = bench.swapped(None).unwrap_err();
    assert_eq!(none.main, code::NOT_FOUND);
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    bench.now.now_ms += TRIAL_MS;
    bench.settle();
    for label in ["test", "next", "test"] {
        bench.swapped(None).unwrap();
        assert_eq!(bench.serves(), label);
        bench.now.now_ms += TRIAL_MS;
        bench.settle();
    }
    let chosen = bench.chosen().unwrap();
    assert_eq!((&*chosen.serves.label, chosen.on_trial), ("test", false));
    // One that is rolled back to from a trial has proved itself long ago.
    for (label, on_trial) in [("next", true), ("test", false), ("next", true)] {
        bench.swapped(None).unwrap();
        assert_eq!(bench.serves(), label);
        assert_eq!(bench.device.agent_trial().on_trial, on_trial);
    }
}

#[test]
fn the_same_build_put_in_again_is_no_way_back_from_itself() {
    let mut bench = Bench::busy();
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    bench.now.now_ms += TRIAL_MS;
    bench.settle();
    bench.swapped(Some(&next.0)).unwrap();
    let chosen = bench.chosen().unwrap();
    assert_eq!((&*chosen.serves.label, chosen.on_trial), ("next", true));
    assert_eq!(chosen.former.unwrap().label, "test");
    next.1.lock().unwrap().react = Box::new(|_, _| Err(trap()));
    bench.handle(message(1));
    bench.settle();
    assert_eq!(bench.serves(), "test");
}

#[test]
fn what_is_chosen_and_put_in_again_over_what_stands_in_for_it_goes_back_to_the_build_before() {
    let (before, strings) = puppet();
    let former = FormerAgent {
        agent: puppet_of("before", &[2]).0,
        on_trial: false,
    };
    let stand_in = before.in_place_of(stood_in_for("next"));
    let state = Bench::busy().state;
    let mut bench = Bench::of(state, (stand_in, strings), Some(former), |_| {});
    bench.device.start(bench.now).unwrap();
    let again = next().0.of_digest([9; 32]);
    bench.swapped(Some(&again)).unwrap();
    let chosen = bench.chosen().unwrap();
    assert_eq!((&*chosen.serves.label, chosen.on_trial), ("next", true));
    assert_eq!(chosen.former.unwrap().label, "before");
}

#[test]
fn a_build_put_in_over_one_on_trial_goes_back_to_the_one_that_had_proved_itself() {
    let mut bench = Bench::busy();
    let (one, two) = (next(), puppet_of("two", &[3, 2]));
    bench.swapped(Some(&one.0)).unwrap();
    bench.swapped(Some(&two.0)).unwrap();
    assert_eq!(bench.serves(), "two");
    two.1.lock().unwrap().react = Box::new(|_, _| Err(trap()));
    bench.handle(message(1));
    bench.settle();
    assert_eq!(bench.serves(), "test");
}

#[test]
fn an_agent_that_is_broken_is_replaced_at_once() {
    let mut bench = Bench::busy();
    bench.react(|_, _| Err(trap()));
    bench.strings.lock().unwrap().on_start = Box::new(|_| Err(trap()));
    bench.handle(message(1));
    bench.settle();
    assert_eq!(bench.device.status(bench.now).agent.life, AgentLife::Broken);
    let next = next();
    bench.swapped(Some(&next.0)).unwrap();
    assert_eq!(bench.serves(), "next");
    let status = bench.device.status(bench.now).agent;
    assert_eq!((status.life, status.strikes), (AgentLife::Running, 0));
    let seen = seen(&next);
    // It is told that there is a connection.
    assert!(seen.contains(&"Connected(false)".to_owned()), "{seen:?}");
}

#[test]
fn as_long_as_there_is_a_way_back_states_are_written_that_the_build_before_reads() {
    let mut bench = Bench::busy();
    let newer = puppet_of("newer", &[4, 3]);
    bench.swapped(Some(&newer.0)).unwrap();
    bench.now.now_ms += TRIAL_MS;
    bench.settle();
    assert_eq!(newer.1.lock().unwrap().starts[1].schema, 3);
    bench.swapped(None).unwrap();
    assert_eq!(bench.serves(), "test");
    // One that does not read the snapshot is given the journal, and asks.
    let mut bench = Bench::busy();
    let older = puppet_of("older", &[2]);
    bench.swapped(Some(&older.0)).unwrap();
    let seen = seen(&older);
    assert_eq!(seen[0], "start from nothing");
    assert!(seen.contains(&"Connected(false)".to_owned()), "{seen:?}");
}

#[test]
fn a_build_on_trial_that_refuses_after_a_restart_is_sent_back() {
    let (next, test) = (next(), puppet());
    let refuse = || Ok(Err(Failure::new(code::SCHEMA, 3, "unknown")));
    next.1.lock().unwrap().on_start = Box::new(move |_| refuse());
    let former = FormerAgent {
        agent: Arc::clone(&test.0),
        on_trial: true,
    };
    let mut bench = Bench::of(Arc::default(), next, Some(former), |_| {});
    bench.device.start(bench.now).unwrap();
    bench.settle();
    assert_eq!(bench.serves(), "test");
    assert_eq!(seen(&test), ["start from nothing"]);
}
