//! Invariants find what they are there to find, and let pass what they allow. The worlds of the swarm rarely break one.

use super::*;

/// So many blocks, sent once each, and the job has ended as told.
const BLOCKS: u64 = 25;

fn scenario() -> Scenario {
    Scenario::plain("judged", BLOCKS as usize)
}

fn end(scenario: &Scenario) -> End<'_> {
    End {
        scenario,
        at_ms: 1000,
        at_rest: true,
        doing: String::new(),
        status: ExecutionStatus::Succeeded,
        reason: None,
        jobs: 1,
        confirmed_new: vec![Some(true)],
        runs_confirmed: vec![true],
        blocks: BLOCKS,
        blocks_sent: BLOCKS,
        cuts: &[],
        mcu_cut: false,
        returns: 0,
    }
}

/// What this one finds at the end.
fn found(mut invariant: impl Invariant, end: &End<'_>) -> usize {
    let mut found = Findings::default();
    invariant.on_end(end, &mut found);
    found.0.len()
}

#[test]
fn a_good_image_may_go_back_only_where_its_cloud_could_not_hear_it() {
    let fair = scenario();
    let mut deaf = scenario();
    deaf.weather.requests.lost = 100;
    let rows = [
        (&deaf, "rejected: 0x00000041", 0),
        (&fair, "rejected: 0x00000041", 1),
        // Whatever else has 65 as its detail: errno of a storage, code of a health check.
        (&deaf, "aborted: 0xd8000041", 1),
        (&deaf, "0x000000e3: 0x00000041", 1),
        (&deaf, "rejected: 0xde000041", 1),
        (&deaf, "rejected: 0x00000046", 1),
    ];
    for (scenario, reason, findings) in rows {
        let mut end = end(scenario);
        end.status = ExecutionStatus::Failed;
        end.reason = Some(reason.to_owned());
        end.confirmed_new = vec![Some(false)];
        assert_eq!(found(AsTold, &end), findings, "{reason}");
    }
}

#[test]
fn a_suspended_agent_may_fetch_one_window_again_and_no_more() {
    let running = scenario();
    let mut suspended = scenario();
    let deed = (When::At(500), Deed::Order(Command::Suspend));
    suspended.deeds = vec![deed, (When::Then(500), Deed::Order(Command::Resume))];
    let rows = [
        (&running, BLOCKS, 0),
        (&running, BLOCKS + 1, 1),
        (&suspended, BLOCKS + WINDOW_BLOCKS, 0),
        (&suspended, BLOCKS + WINDOW_BLOCKS + 1, 1),
    ];
    for (scenario, blocks_sent, findings) in rows {
        let mut end = end(scenario);
        end.blocks_sent = blocks_sent;
        assert_eq!(found(Refetched, &end), findings, "{blocks_sent}");
    }
}
