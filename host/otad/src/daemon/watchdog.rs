//! What the service manager hears while the daemon runs: a sign of life, and a line on what it does.
//!
//! The sign is given only where every device's task does what it has said: it has had a turn, or waits for a deadline
//! that lies ahead (`Pulse`). The timer here only says when to look. A task that hangs in a turn, or sleeps over its
//! deadline, ends the signs, and the manager starts the daemon again; its updates go on from their journals. A device
//! that has ended with a panic is not waited for: the others go on.

use std::sync::Arc;
use std::time::Duration;

use host_runtime::ports::clock::Clock;
use host_runtime::status::{DeviceStatus, WAIT_RESUME};
use host_runtime::supervisor::{DeviceHandle, Pulse};

use super::notify::{Notifier, Word};
use crate::past::time::duration;

/// How often the status line is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Devices whose state is asked for the status line; a line has room for no more.
const TOLD_MAX: usize = 8;

/// How long a device may take to say how it is.
const STATUS_MAX: Duration = Duration::from_secs(1);

/// Longest that a deadline may be overdue, or a turn last, in milliseconds, however patient the manager is.
const SLACK_MAX_MS: u64 = 30_000;

/// Tell the manager until dropped.
pub(super) async fn tell(
    notifier: Arc<Notifier>,
    devices: Vec<DeviceHandle>,
    clock: Arc<dyn Clock>,
) {
    if !notifier.is_heard() {
        return;
    }
    let watchdog = notifier.watchdog();
    // Three looks in the manager's time: one may come late, and one be lost.
    let every = watchdog.map_or(LOOK_EVERY, |within| LOOK_EVERY.min(within / 3));
    let slack_ms = watchdog.map_or(SLACK_MAX_MS, slack_ms);
    let (mut line, mut dead) = (String::new(), None);
    loop {
        let now_ms = clock.now_ms();
        let pulses = devices.iter().map(|d| (d.name(), d.pulse()));
        let stuck = stuck(pulses, now_ms, slack_ms);
        if stuck.is_none() && watchdog.is_some() {
            notifier.say(&Word::Watchdog);
        }
        if stuck != dead {
            if let Some(why) = &stuck {
                tracing::error!("{why}; the service manager is not told that this process lives");
            }
            dead.clone_from(&stuck);
        }
        let text = match stuck {
            Some(why) => why,
            None => summary(&devices).await,
        };
        if text != line {
            notifier.say(&Word::Status(text.clone()));
            line = text;
        }
        tokio::time::sleep(every).await;
    }
}

/// Half the manager's time: the other half is for the looks.
fn slack_ms(within: Duration) -> u64 {
    u64::try_from(within.as_millis() / 2).map_or(SLACK_MAX_MS, |half| half.min(SLACK_MAX_MS))
}

/// The first device that does not do what it has said.
fn stuck<'a>(
    mut pulses: impl Iterator<Item = (&'a str, Option<Pulse>)>,
    now_ms: u64,
    slack_ms: u64,
) -> Option<String> {
    let (name, pulse) =
        pulses.find(|(_, pulse)| pulse.is_some_and(|pulse| !pulse.is_alive(now_ms, slack_ms)))?;
    Some(match pulse.and_then(|pulse| pulse.busy_since_ms) {
        Some(since) => format!(
            "{name} has been in one turn for {}",
            duration(now_ms.saturating_sub(since))
        ),
        None => format!("{name} sleeps over its deadline"),
    })
}

/// One line on what all devices do.
async fn summary(devices: &[DeviceHandle]) -> String {
    let mut told = Vec::new();
    for device in devices.iter().take(TOLD_MAX) {
        if let Ok(status) = tokio::time::timeout(STATUS_MAX, device.status()).await {
            told.push(status);
        }
    }
    line(devices.len(), &told)
}

fn line(devices: usize, told: &[DeviceStatus]) -> String {
    let connected = told.iter().filter(|status| status.connected).count();
    let busy: Vec<String> = told.iter().filter_map(busy).collect();
    let count = match devices {
        1 => "1 device".to_owned(),
        n => format!("{n} devices"),
    };
    let more = match devices > told.len() {
        true => format!(" of the first {}", told.len()),
        false => String::new(),
    };
    match busy.is_empty() {
        true => format!("{count}, {connected}{more} connected, no job"),
        false => format!("{count}, {connected}{more} connected; {}", busy.join("; ")),
    }
}

fn busy(status: &DeviceStatus) -> Option<String> {
    let job = match &status.job_id {
        Some(job) => job,
        None if status
            .wait
            .as_ref()
            .is_some_and(|w| w.reason == WAIT_RESUME) =>
        {
            return Some(format!("{}: suspended", status.device));
        }
        None => return None,
    };
    let mut line = format!("{}: {job} {}", status.device, status.state_name);
    for file in &status.files {
        if let Some(percent) = (file.done.saturating_mul(100)).checked_div(file.total) {
            line.push_str(&format!(", file {} {percent} %", file.file_id));
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use host_runtime::status::FileReport;

    use super::*;

    const NOW_MS: u64 = 100_000;

    fn pulse(busy_since_ms: Option<u64>, due_ms: Option<u64>) -> Option<Pulse> {
        Some(Pulse {
            turns: 1,
            busy_since_ms,
            due_ms,
        })
    }

    #[test]
    fn a_sign_of_life_needs_progress_or_a_deadline_that_is_kept() {
        let slack = 15_000;
        let rows = [
            // Waits to be told.
            (pulse(None, None), None),
            // Waits for a deadline ahead, just passed, long passed.
            (pulse(None, Some(NOW_MS + 1_000_000)), None),
            (pulse(None, Some(NOW_MS - slack)), None),
            (
                pulse(None, Some(NOW_MS - slack - 1)),
                Some("pump-1 sleeps over its deadline"),
            ),
            // At work: just now, too long, whatever it had promised before.
            (pulse(Some(NOW_MS - slack), Some(0)), None),
            (
                pulse(Some(NOW_MS - 20_000), Some(NOW_MS + 1)),
                Some("pump-1 has been in one turn for 20.0 s"),
            ),
            // Ended: nobody waits for it.
            (None, None),
        ];
        for (pulse, wanted) in rows {
            let pulses = [("pump-0", Some(Pulse::default())), ("pump-1", pulse)];
            let stuck = stuck(pulses.into_iter(), NOW_MS, slack);
            assert_eq!(stuck.as_deref(), wanted, "{pulse:?}");
        }
    }

    #[test]
    fn a_manager_s_patience_is_halved_and_bounded() {
        assert_eq!(slack_ms(Duration::from_secs(10)), 5000);
        assert_eq!(slack_ms(Duration::MAX), SLACK_MAX_MS);
    }

    #[test]
    fn the_status_line_says_what_is_done() {
        let idle = DeviceStatus {
            connected: true,
            ..DeviceStatus::default()
        };
        let busy = DeviceStatus {
            device: "pump-1".to_owned(),
            job_id: Some("j-1".to_owned()),
            state_name: "WaitingForFileBlock".to_owned(),
            files: vec![FileReport {
                done: 128,
                total: 512,
                ..FileReport::default()
            }],
            ..DeviceStatus::default()
        };
        assert_eq!(
            line(1, std::slice::from_ref(&idle)),
            "1 device, 1 connected, no job"
        );
        assert_eq!(
            line(2, &[idle, busy]),
            "2 devices, 1 connected; pump-1: j-1 WaitingForFileBlock, file 0 25 %"
        );
        assert_eq!(
            line(20, &[]),
            "20 devices, 0 of the first 0 connected, no job"
        );
    }
}
