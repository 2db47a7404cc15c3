//! How many connections this process can hold: each is an open file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::CONNECTIONS_MAX;
use crate::error::CloudError;

/// Files besides connections: images, state, operators, listeners, the runtime's own.
const FILES_BESIDES: u64 = 160;
/// Fewer connections than this make no cloud.
const CONNECTIONS_MIN: u64 = 16;

/// Raises the limit of open files as far as the system lets it, and says how many connections fit.
///
/// # Errors
/// There is room for hardly any.
pub(crate) fn connections() -> Result<usize, CloudError> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = CONNECTIONS_MAX as u64 + FILES_BESIDES;
    let raised = raised(limit, wanted);
    let files = match raised {
        // Refused: what is there already counts.
        Some(raised) if setrlimit(Resource::Nofile, raised).is_ok() => raised.current,
        _ => limit.current,
    };
    let max = fitting(files)?;
    if max < CONNECTIONS_MAX {
        tracing::warn!(
            connections = max,
            files,
            "the limit of open files allows fewer connections than this cloud can serve; raise it to {wanted} (LimitNOFILE, ulimit -n)"
        );
    }
    Ok(max)
}

/// The limit to ask for; `None` = it is high enough, or there is none.
fn raised(limit: Rlimit, wanted: u64) -> Option<Rlimit> {
    let current = limit.current?;
    if current >= wanted {
        return None;
    }
    let highest = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    Some(Rlimit {
        current: Some(highest.max(current)),
        maximum: limit.maximum,
    })
}

/// Connections for so many files; `None` = no limit.
fn fitting(files: Option<u64>) -> Result<usize, CloudError> {
    let Some(files) = files else {
        return Ok(CONNECTIONS_MAX);
    };
    let room = files.saturating_sub(FILES_BESIDES);
    if room < CONNECTIONS_MIN {
        return Err(CloudError::Files {
            limit: files,
            needed: FILES_BESIDES + CONNECTIONS_MIN,
        });
    }
    Ok(usize::try_from(room).map_or(CONNECTIONS_MAX, |room| room.min(CONNECTIONS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_wanted_or_allowed() {
        let limit = |current, maximum| Rlimit { current, maximum };
        let rows = [
            (limit(Some(1024), Some(4096)), Some(4096)),
            (limit(Some(1024), Some(1_000_000)), Some(8000)),
            (limit(Some(1024), None), Some(8000)),
            (limit(Some(1024), Some(1024)), Some(1024)),
            (limit(Some(9000), Some(9000)), None),
            (limit(None, None), None),
        ];
        for (limit, want) in rows {
            let raised = raised(limit, 8000);
            assert_eq!(raised.and_then(|r| r.current), want, "{limit:?}");
        }
    }

    #[test]
    fn too_few_files_are_told_with_how_many_are_needed() {
        assert_eq!(fitting(None).unwrap(), CONNECTIONS_MAX);
        assert_eq!(fitting(Some(1024)).unwrap(), 1024 - 160);
        assert_eq!(fitting(Some(1_000_000)).unwrap(), CONNECTIONS_MAX);
        let error = fitting(Some(100)).unwrap_err().to_string();
        assert!(error.contains("100") && error.contains("176"), "{error}");
    }
}
