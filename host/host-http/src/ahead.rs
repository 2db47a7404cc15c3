//! Connections in advance: where a server is far, those that the next ranges will need are made while the first ones are
//! still on their way.
//!
//! An agent widens its window threefold a round trip, and a connection takes two or three of them: a range that had to
//! wait for its own would also look as if the line were full. Not here: how many ranges there are; that is the agent's to
//! say. What nobody has used after a while is closed like any other connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::Shared;
use crate::connect::connect_only;
use crate::url::Origin;

/// Round trip for which one more connection is needed: the longest range, 128 KiB, takes 10.5 ms of 100 Mbit/s, which is
/// more than a gateway's line has; and a window has a quarter more than the line carries. A server that is nearer is
/// connected to as ranges come.
const ROUND_TRIP_EACH: Duration = Duration::from_millis(8);

/// How many connections fill the way to a server.
fn wanted(round_trip: Duration) -> usize {
    usize::try_from(round_trip.as_millis() / ROUND_TRIP_EACH.as_millis()).unwrap_or(usize::MAX)
}

/// Makes what is missing, once several ranges are under way there. A way to the server has just been found open; that
/// another connection fails is told to nobody, for nobody waits for it.
pub(crate) fn connect_ahead(shared: &Arc<Shared>, origin: &Origin, round_trip: Duration) {
    for turn in shared.pool.turns_ahead(origin, wanted(round_trip)) {
        let (shared, origin) = (Arc::clone(shared), origin.clone());
        tokio::spawn(async move {
            let most = shared.config.limits.connect_timeout;
            match timeout(most, connect_only(&shared, &origin)).await {
                Ok(Ok(connection)) => shared.pool.keep(&turn, connection),
                Ok(Err(error)) => tracing::debug!(host = %origin, "no connection ahead: {error}"),
                Err(_) => tracing::debug!(host = %origin, "no connection ahead in time"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_the_way_the_more_connections_fill_it() {
        let rows = [(0, 0), (7, 0), (8, 1), (50, 6), (200, 25), (20_000, 2500)];
        for (ms, count) in rows {
            assert_eq!(wanted(Duration::from_millis(ms)), count, "{ms} ms");
        }
    }
}
