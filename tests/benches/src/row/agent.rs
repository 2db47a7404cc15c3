//! The agent alone on the block path: the shipped component against agent-core compiled in, in the same simulated world.
//!
//! Only what is spent within the agent counts, not what its calls cost the world. The boundary's own cost is seen with an
//! event that the agent has no use for; what wasm costs in all is also given as a share of the daemon's processor time.

use std::sync::Arc;
use std::time::Duration;

use host_cloud::service::ExecutionStatus;
use host_runtime::agent::{AgentBuild, Event};
use host_sandbox::scenario::{Prepared, Scenario};
use host_sandbox::{Options, explore, native_agent};
use support::deadline::now;

use super::idle::Idle;
use super::meter::metered;
use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};
use crate::row::loopback::{SHAPES, Site};

/// The row.
pub const ROW: Row = Row {
    name: "agent",
    about: "the agent in wasm on the block path, to agent-core compiled in; and to the daemon's processor time",
    sample,
};

/// Events that the agent has no use for.
const STRAY_EVENTS: usize = 2000;

fn sample(rig: &Rig, turn: Turn) -> Sample {
    let shape = SHAPES[0];
    let blocks = rig.image_bytes.div_ceil(shape.block_bytes);
    let mut scenario = Scenario::plain("blocks", blocks);
    for file in &mut scenario.files {
        file.size_bytes = blocks * shape.block_bytes;
    }
    scenario.sync_bytes = 4 << 20;
    scenario.settings = [
        ("block_size", shape.block_bytes),
        ("blocks_per_request", shape.blocks),
        ("requests_in_flight", shape.requests),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_string()))
    .into();
    let prepared = scenario.prepare();
    let build = Arc::clone(&rig.shipped()?.agent);
    let (wasm, native) = turn.both(
        || path(&prepared, &build, blocks, turn),
        || path(&prepared, &native_agent(), blocks, turn),
    )?;
    let (crossing, call) = turn.both(
        || stray(&build, shape.block_bytes),
        || stray(&native_agent(), shape.block_bytes),
    )?;
    let daemon = Site::new(rig, turn.seed()).daemon(shape)?.cpu_seconds;
    let more = (1.0 / wasm.blocks_per_s - 1.0 / native.blocks_per_s) * blocks as f64;
    let name = |what: &str| format!("{}, {what}", shape.name());
    Ok(vec![
        Figure::rate(name("blocks"), "1/s").taken(wasm.blocks_per_s, native.blocks_per_s),
        Figure::rate(name("events"), "1/s").taken(wasm.events_per_s, native.events_per_s),
        Figure::cost("boundary alone: 4 KiB that nobody wants", "µs").taken(
            crossing.as_secs_f64() * 1e6 / STRAY_EVENTS as f64,
            call.as_secs_f64() * 1e6 / STRAY_EVENTS as f64,
        ),
        Figure::cost(name("what wasm adds, to the daemon's processor time"), "s")
            .held(Of::Ratio, 0.10, 0.05)
            .taken(more, daemon),
    ])
}

/// What an agent does within a second of its own.
struct Path {
    blocks_per_s: f64,
    events_per_s: f64,
}

fn path(
    prepared: &Prepared,
    build: &Arc<AgentBuild>,
    blocks: usize,
    turn: Turn,
) -> Result<Path, Untaken> {
    let (agent, meter) = metered(build);
    let options = Options {
        agent,
        ..Options::native(turn.seed())
    };
    let report = explore::run(prepared, options);
    if report.status != ExecutionStatus::Succeeded || !report.violations.is_empty() {
        let text = format!(
            "the update ended {:?}: {:?}",
            report.status, report.violations
        );
        return Err(Untaken::because(text));
    }
    if meter.blocks() != blocks as u64 {
        let text = format!("{} of {blocks} blocks were written", meter.blocks());
        return Err(Untaken::because(text));
    }
    Ok(Path {
        blocks_per_s: meter.blocks() as f64 / meter.seconds(),
        events_per_s: meter.events() as f64 / meter.seconds(),
    })
}

/// How long an idle agent takes over messages of a topic that it has not asked for.
fn stray(build: &Arc<AgentBuild>, bytes: usize) -> Result<Duration, Untaken> {
    let mut idle = Idle::start(build)?;
    let events = vec![Event::message("nobody/wants/this", vec![7; bytes]); STRAY_EVENTS];
    let begun = now();
    for event in events {
        idle.handle(event)?;
    }
    Ok(now().duration_since(begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_messages_cost_something_and_end_nothing() {
        assert!(stray(&native_agent(), 256).unwrap() > Duration::ZERO);
    }
}
