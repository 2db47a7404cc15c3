//! Which lines of an agent somebody reads. A line that nobody reads costs as much as the block that it is about.

use host_runtime::device::is_level_read;
use host_runtime::types::Level;

/// The least level of the agents' lines that the log of this process shows, as the agent's setting `log_level` has it: 0 is
/// trace, 5 none at all. Asked when a device is set up.
pub(super) fn least_read() -> usize {
    let least = Level::ALL.iter().position(|level| is_level_read(*level));
    least.unwrap_or(Level::ALL.len())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::*;

    #[test]
    fn an_agent_makes_the_lines_that_the_log_shows() {
        let rows = [
            ("trace", 0),
            ("debug", 1),
            ("info", 2),
            ("warn", 3),
            ("error", 4),
            ("off", 5),
            ("warn,agent=debug", 1),
            ("debug,agent=off", 5),
            ("off,host_mqtt=trace", 5),
        ];
        for (filter, least) in rows {
            let log = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(filter))
                .with_writer(std::io::sink)
                .finish();
            let (found, read) = tracing::subscriber::with_default(log, || {
                (least_read(), Level::ALL.map(is_level_read))
            });
            assert_eq!(found, least, "{filter}");
            // Each of them is the log's own of that name, and what is worse than one that is read is read too.
            assert_eq!(read, [0, 1, 2, 3, 4].map(|n| n >= least), "{filter}");
        }
    }
}
