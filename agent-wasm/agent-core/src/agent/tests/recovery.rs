//! Every cell of the recovery table, lived through: a host dies with this in its journal, finds its target so and the
//! job so, and what comes of it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use super::world::{World, config, version};
use crate::agent::recover::{Memory, Service, Sight};
use crate::code::State;
use crate::types::Failure;

const SIGHTS: [Sight; 9] = [
    Sight::Unknown,
    Sight::PendingNew,
    Sight::PendingOther,
    Sight::ValidNew,
    Sight::ValidOld,
    Sight::ValidUnclear,
    Sight::Invalid,
    Sight::Armed,
    Sight::Foreign,
];

const SERVICES: [Service; 5] = [
    Service::Unknown,
    Service::Gone,
    Service::Open,
    Service::Ready,
    Service::Active,
];

/// Settings of the target.
type Policy = &'static [(&'static str, &'static str)];

/// The verb that hangs, so that the journal says no more than that.
const fn stuck_at(memory: Memory) -> &'static str {
    match memory {
        Memory::None => "create 0",
        Memory::Taken => "close 0",
        Memory::Installed => "activate 0",
        Memory::Armed => "reset 0",
        Memory::Testing => "self-test 0",
        Memory::Commit => "commit 0",
        Memory::Back => "reject 0",
    }
}

/// A world whose journal says this.
fn remembering(memory: Memory, policy: Policy) -> World {
    let mut world = World::with_config(config(&[], &[(0, policy)]));
    let stuck = stuck_at(memory);
    world.hang.push(stuck);
    if memory == Memory::Back {
        let failure = Failure::new(0xd9, 0, "no");
        world.fail.push(("self-test 0", failure, 1));
    }
    world.usual_job();
    world.connect();
    world.run_until(stuck, |world| world.count(stuck) == 1);
    world.settle();
    if memory == Memory::None {
        world.journal = None;
    }
    world.hang.clear();
    world.fail.clear();
    world
}

fn show(world: &mut World, sight: Sight) {
    let target = world.targets.get_mut(&0).unwrap();
    let (code, runs_new, running) = match sight {
        Sight::Unknown => (0, false, version(1, 0, 0)),
        Sight::PendingNew => (1, true, version(1, 1, 0)),
        Sight::PendingOther => (1, false, version(7, 0, 0)),
        Sight::ValidNew => (2, true, version(1, 1, 0)),
        Sight::ValidOld | Sight::ValidUnclear => (2, false, version(1, 0, 0)),
        Sight::Invalid => (3, false, version(1, 0, 0)),
        Sight::Armed => (4, false, version(1, 0, 0)),
        Sight::Foreign => (5, false, version(7, 0, 0)),
    };
    target.old = version(1, 0, 0);
    target.code = code;
    target.runs_new = runs_new;
    target.running = running;
    target.tells_new = sight != Sight::ValidUnclear;
    target.tells_running = sight != Sight::ValidUnclear;
}

fn tell(world: &mut World, service: Service) {
    let (status, details) = match service {
        Service::Unknown | Service::Open => ("IN_PROGRESS", r#"{"receive":"1/3"}"#),
        Service::Gone => ("CANCELED", "{}"),
        Service::Ready => (
            "IN_PROGRESS",
            r#"{"self_test":"ready","updatedBy":"0x01000000"}"#,
        ),
        Service::Active => (
            "IN_PROGRESS",
            r#"{"self_test":"active","updatedBy":"0x01010000"}"#,
        ),
    };
    status.clone_into(&mut world.jobs[0].status);
    details.clone_into(&mut world.jobs[0].details);
}

/// How a cell ends, in a letter: (S)ucceeded, (F)ailed or cancelled and (B)ack on the old image, cancelled and (K)ept, or
/// small where nobody can be told yet; `.` = nothing
/// was done to the target; `?` = succeeded although the old image runs, which no cell does.
fn live_through(memory: Memory, sight: Sight, service: Service, policy: Policy) -> char {
    let what = format!("{memory:?} {sight:?} {service:?}");
    let mut world = remembering(memory, policy);
    show(&mut world, sight);
    tell(&mut world, service);
    world.calls.clear();
    world.connected = service != Service::Unknown;
    world.crash();
    let end = world.now + 3 * 3_600_000;
    let rests = |world: &World| {
        world.state() == State::WaitingForJob
            && world.inbox.is_empty()
            && world.jobs.iter().all(|job| !job.is_open())
            && world.agent.status().job_id.is_none()
    };
    while !rests(&world) && world.now < end && world.turn() {}
    assert_eq!(
        rests(&world),
        service != Service::Unknown,
        "{what}\n{}",
        world.story()
    );
    let target = &world.targets[&0];
    // At rest nothing is left half done, but by a target that somebody else has changed behind a job just begun.
    let strange = memory == Memory::Taken || sight == Sight::Unknown;
    assert!(
        strange || !matches!(target.code, 1 | 4),
        "{what}: {}",
        target.code
    );
    let stays = target.code == 2 && target.runs_new;
    let rejected = world.count("reject 0") > 0;
    // A good old image is not touched, whatever becomes of the job.
    let good = matches!(sight, Sight::ValidOld | Sight::ValidUnclear);
    let changed = world.count("activate 0") + world.count("reset 0") > 0;
    assert!(
        !good || changed || !rejected,
        "{what}: a good image was rejected"
    );
    assert!(
        !stays || world.count("commit 0") == 1 || sight == Sight::ValidNew,
        "{what}"
    );
    match (world.verdict().0, stays) {
        ("SUCCEEDED", true) => 'S',
        ("SUCCEEDED", false) => '?',
        ("FAILED", _) => 'F',
        ("CANCELED", true) => 'K',
        ("CANCELED", false) => 'B',
        (_, true) => 's',
        _ if world.calls.iter().all(|call| call.starts_with("state")) => '.',
        _ => 'f',
    }
}

#[test]
fn every_cell_of_the_recovery_table_ends_as_written_here() {
    // Columns: Unknown, PendingNew, PendingOther, ValidNew, ValidOld, ValidUnclear, Invalid, Armed, Foreign.
    // Rows of a memory: service Unknown, Gone, Open, Ready, Active.
    let expected: [(Memory, [&str; 5]); 7] = [
        (
            Memory::None,
            [
                ".ffs...f.",
                "BBBKBBBBB",
                "SSFFSSSSF",
                "FSFFFFFFF",
                "FSFSFFFFF",
            ],
        ),
        (
            Memory::Taken,
            [
                "...s.....",
                "BBBKBBBBB",
                "SFFFSSSSF",
                "SFFFSSSSF",
                "SFFFSSSSF",
            ],
        ),
        (
            Memory::Installed,
            [
                "ffffffff.",
                "BBBBBBBBB",
                "FSFSSSFSF",
                "FSFSSSFSF",
                "FSFSSSFSF",
            ],
        ),
        (
            Memory::Armed,
            [
                "ffff..ff.",
                "BBBBBBBBB",
                "FSFSFFFSF",
                "FSFSFFFSF",
                "FSFSFFFSF",
            ],
        ),
        (
            Memory::Testing,
            [
                "ffff..ff.",
                "BBBBBBBBB",
                "FSFSFFFFF",
                "FSFSFFFFF",
                "FSFSFFFFF",
            ],
        ),
        (
            Memory::Commit,
            [
                "fssssfsss",
                "BKKKKBKKK",
                "FSSSSFSSS",
                "FSSSSFSSS",
                "FSSSSFSSS",
            ],
        ),
        (
            Memory::Back,
            [
                "ffff...f.",
                "BBBBBBBBB",
                "FFFFFFFFF",
                "FFFFFFFFF",
                "FFFFFFFFF",
            ],
        ),
    ];
    let mut wrong = String::new();
    for (memory, rows) in expected {
        for (service, expected) in SERVICES.into_iter().zip(rows) {
            let cells: String = SIGHTS
                .into_iter()
                .map(|sight| live_through(memory, sight, service, &[]))
                .collect();
            if cells != expected {
                wrong.push_str(&format!(
                    "{memory:?} x {service:?}: {cells}, not {expected}\n"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_target_that_may_run_an_older_version_is_not_believed_to_have_brought_it() {
    let rows = [
        (Service::Ready, "FSFFFFFFF"),
        (Service::Active, "FSFSFFFFF"),
    ];
    for (service, expected) in rows {
        let live = |sight| {
            let policy = &[("allow_downgrade", "true")];
            live_through(Memory::None, sight, service, policy)
        };
        let cells: String = SIGHTS.into_iter().map(live).collect();
        assert_eq!(cells, expected, "{service:?}");
    }
}
