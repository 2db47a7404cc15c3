//! Block sizes and windows of the daemon, each against the raw receiver with the same blocks and one request in flight.

use crate::figure::Figure;
use crate::harness::{Rig, Row, Sample, Turn};
use crate::row::loopback::{Shape, Site};

/// The row.
pub const ROW: Row = Row {
    name: "window",
    about: "the daemon with several requests in flight, to the raw receiver with one, per block size",
    sample,
};

/// Bytes of a block and blocks of a request: those of `loopback`, and for the others as many bytes a request.
const BLOCKS: [(usize, usize); 4] = [(1 << 10, 124), (4 << 10, 31), (16 << 10, 8), (64 << 10, 2)];

/// Requests in flight.
const REQUESTS: [usize; 3] = [1, 4, 32];

fn sample(rig: &Rig, turn: Turn) -> Sample {
    let mut taken = Vec::new();
    for (block_bytes, blocks) in BLOCKS {
        let site = Site::new(rig, turn.seed());
        let shape = |requests| Shape {
            block_bytes,
            blocks,
            requests,
        };
        let (daemon, raw) = turn.both(
            || {
                let costs = REQUESTS.map(|requests| site.daemon(shape(requests)));
                costs.into_iter().collect::<Result<Vec<_>, _>>()
            },
            || site.receiver(rig, shape(1)),
        )?;
        for (requests, cost) in REQUESTS.into_iter().zip(daemon) {
            let figure = Figure::rate(shape(requests).name(), "MiB/s");
            taken.push(figure.taken(site.mib() / cost.seconds, site.mib() / raw.seconds));
        }
    }
    Ok(taken)
}
