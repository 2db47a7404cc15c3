//! The invariants of a gateway, watched from outside: at the boot records, at the slots, at the launchers, at the end.
//!
//! An [`Invariant`] sees facts that the world gathers beside the ports and knows nothing of hosts or agents. It must not
//! change anything. [`standard`] are those of the design; a test may bring more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use host_cloud::service::ExecutionStatus;
use host_crypto::hex;
use host_runtime::agent::Command;

use crate::boot::{BootRecord, Image, Next};
use crate::ground::{Cut, CutKind};
use crate::net::Odds;
use crate::scenario::{Deed, Ending, Known, Scenario, WINDOW_BLOCKS, When};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When, in milliseconds of virtual time.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {} ms: {}",
            self.invariant, self.at_ms, self.detail
        )
    }
}

/// What a launcher has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The image.
    pub image: Image,
    /// Sequence of the boot record at that time.
    pub sequence: u32,
    /// When.
    pub since_ms: u64,
}

/// A boot record was written, or is another after a power cut.
pub struct RecordChange<'a> {
    /// The target's file id.
    pub target: usize,
    /// When.
    pub at_ms: u64,
    /// What counted before.
    pub before: Option<BootRecord>,
    /// What counts now; `None` = nothing that can be read.
    pub after: Option<BootRecord>,
    /// It was a power cut that changed it, not a write.
    pub by_cut: bool,
    /// What it marks has had its tries, and the confirmed image was started since: nobody starts it any more.
    pub went_back: bool,
    /// SHA-256 of as many bytes of a slot as an image says it has.
    pub digest: &'a dyn Fn(&Image) -> [u8; 32],
    /// Every image of this world.
    pub known: &'a BTreeMap<[u8; 32], Known>,
    /// What has run for a whole self-test, with the health check passed if there is one, and the sequence of the record
    /// that marked it. A process that was cut after its decision commits without another test.
    pub tested: Option<(u32, Image)>,
}

impl RecordChange<'_> {
    /// An image in words: `1.1.0 in slot b (7c8f1a2b)`.
    fn name(&self, image: &Image) -> String {
        let version = match self.known.get(&image.sha256) {
            Some(known) => format!("1.{}.0", known.minor),
            None => format!("an unknown image of {} bytes", image.length),
        };
        let digest = hex(&image.sha256[..4]);
        format!("{version} in slot {} ({digest})", letter(image.slot))
    }

    /// A record in words.
    fn record(&self, record: &BootRecord) -> String {
        let next = match &record.next {
            Next::None => String::new(),
            Next::Armed(image) => format!(", marks {}", self.name(image)),
            Next::Rejected(image) => format!(", rejects {}", self.name(image)),
        };
        let (sequence, confirmed) = (record.sequence, self.name(&record.confirmed));
        format!("record {sequence} (confirms {confirmed}{next})")
    }

    /// What is the matter with an image, in words.
    fn quality(&self, image: &Image) -> String {
        match self.known.get(&image.sha256) {
            Some(known) => format!("is {}", known.quality),
            None => "no job has brought".to_owned(),
        }
    }
}

fn letter(slot: u8) -> char {
    char::from(b'a'.saturating_add(slot))
}

/// A slot was written to or erased.
#[derive(Clone, Copy, Debug)]
pub struct SlotChange {
    /// The target's file id.
    pub target: usize,
    /// When.
    pub at_ms: u64,
    /// 0 = a, 1 = b.
    pub slot: u8,
    /// What the boot record says.
    pub record: Option<BootRecord>,
    /// What runs.
    pub running: Option<Running>,
}

/// A launcher was asked to start something.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// The target's file id.
    pub target: usize,
    /// When.
    pub at_ms: u64,
    /// What it has started; `None` = there was nothing that it may start.
    pub started: Option<Image>,
}

/// How a run has ended.
pub struct End<'a> {
    /// The story.
    pub scenario: &'a Scenario,
    /// When.
    pub at_ms: u64,
    /// It went on until nothing was to be done any more; otherwise it was given up.
    pub at_rest: bool,
    /// What it was doing.
    pub doing: String,
    /// Of the job.
    pub status: ExecutionStatus,
    /// The reason in its details.
    pub reason: Option<String>,
    /// Jobs that the service was given; what is said of one here is said of the last.
    pub jobs: usize,
    /// For each target, whether the confirmed image is the job's; `Some(false)` = the one from before it, `None` =
    /// something else, or unreadable.
    pub confirmed_new: Vec<Option<bool>>,
    /// For each target, whether what runs is what is confirmed.
    pub runs_confirmed: Vec<bool>,
    /// Blocks of all files.
    pub blocks: u64,
    /// Blocks that the service has sent.
    pub blocks_sent: u64,
    /// Cuts that have fallen, those of the scenario too.
    pub cuts: &'a [Cut],
    /// An MCU has lost its power: its bootloader went back from an image in test.
    pub mcu_cut: bool,
    /// Agent builds that broke on trial and were sent back.
    pub returns: u64,
}

impl End<'_> {
    /// What the targets confirm, in words.
    fn images(&self) -> String {
        let image = |(target, new): (usize, &Option<bool>)| {
            let image = match new {
                Some(true) => "the new image",
                Some(false) => "the old image",
                None => "neither the new nor the old image",
            };
            format!("target {target} confirms {image}")
        };
        let images: Vec<_> = (0..).zip(&self.confirmed_new).map(image).collect();
        images.join(", ")
    }
}

/// Where invariants say what they have seen.
#[derive(Debug, Default)]
pub struct Findings(pub(crate) Vec<Violation>);

impl Findings {
    /// An invariant did not hold.
    pub fn add(&mut self, invariant: &'static str, at_ms: u64, detail: impl Into<String>) {
        // The first ones tell the story; a loop would fill the memory.
        if self.0.len() < FINDINGS_MAX {
            self.0.push(Violation {
                invariant,
                at_ms,
                detail: detail.into(),
            });
        }
    }
}

/// Violations kept of a run.
const FINDINGS_MAX: usize = 32;

/// One invariant. All of its duties have a default: it looks at what it is about.
pub trait Invariant: Send {
    /// A boot record has changed.
    fn on_record(&mut self, _change: &RecordChange<'_>, _found: &mut Findings) {}
    /// A slot is about to change.
    fn on_slot(&mut self, _change: &SlotChange, _found: &mut Findings) {}
    /// A launcher has started something, or nothing.
    fn on_launch(&mut self, _launch: &Launch, _found: &mut Findings) {}
    /// The run is over.
    fn on_end(&mut self, _end: &End<'_>, _found: &mut Findings) {}
}

/// The invariants of the design, section 3, as far as they show outside.
#[must_use]
pub fn standard() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(Bootable),
        Box::new(Verified),
        Box::new(Tested),
        Box::new(Steps),
        Box::new(Kept),
        Box::new(Rest),
        Box::new(Agreement),
        Box::new(GatewayLast::default()),
        Box::new(Refetched),
        Box::new(AsTold),
    ]
}

/// At every instant a bootable, accepted image exists.
struct Bootable;

impl Invariant for Bootable {
    fn on_record(&mut self, change: &RecordChange<'_>, found: &mut Findings) {
        const NAME: &str = "bootable";
        let Some(record) = change.after else {
            return found.add(
                NAME,
                change.at_ms,
                format!("target {}: no boot record", change.target),
            );
        };
        let image = record.confirmed;
        let known = change.known.get(&image.sha256);
        let (target, name) = (change.target, change.name(&image));
        if !known.is_some_and(|known| known.quality.may_be_committed()) {
            let quality = change.quality(&image);
            let detail = format!("target {target} confirms {name}, which {quality}");
            found.add(NAME, change.at_ms, detail);
        }
        if (change.digest)(&image) != image.sha256 {
            let detail =
                format!("target {target} confirms {name}, which is not what the slot holds");
            found.add(NAME, change.at_ms, detail);
        }
    }

    fn on_launch(&mut self, launch: &Launch, found: &mut Findings) {
        if launch.started.is_none() {
            let detail = format!(
                "target {}: the launcher finds nothing to start",
                launch.target
            );
            found.add("bootable", launch.at_ms, detail);
        }
    }
}

/// Nothing unverified is ever activated.
struct Verified;

impl Invariant for Verified {
    fn on_record(&mut self, change: &RecordChange<'_>, found: &mut Findings) {
        let Some(Next::Armed(image)) = change.after.map(|record| record.next) else {
            return;
        };
        if change.went_back {
            // Its slot may be another job's by now.
            return;
        }
        let known = change.known.get(&image.sha256);
        let accepted = known.is_some_and(|known| known.quality.may_be_tried());
        let is_whole = (change.digest)(&image) == image.sha256;
        if !accepted || !is_whole {
            let quality = match accepted {
                true => "is not what the slot holds".to_owned(),
                false => change.quality(&image),
            };
            let (target, name) = (change.target, change.name(&image));
            let detail = format!("target {target} is to start {name}, which {quality}");
            found.add("nothing unverified", change.at_ms, detail);
        }
    }
}

/// A new image is committed only after its self-test.
struct Tested;

impl Invariant for Tested {
    fn on_record(&mut self, change: &RecordChange<'_>, found: &mut Findings) {
        let (Some(before), Some(after)) = (change.before, change.after) else {
            return;
        };
        if change.by_cut || before.confirmed == after.confirmed {
            return;
        }
        if change.tested != Some((before.sequence, after.confirmed)) {
            let tested = match &change.tested {
                None => "nothing has passed a self-test".to_owned(),
                Some((sequence, image)) => {
                    let name = change.name(image);
                    format!("{name} passed its self-test under record {sequence}")
                }
            };
            let (target, name) = (change.target, change.name(&after.confirmed));
            let before = before.sequence;
            let detail = format!("target {target} confirms {name} after record {before}; {tested}");
            found.add("commit after test", change.at_ms, detail);
        }
    }
}

/// A boot record goes from step to step, and each commit is one step.
struct Steps;

impl Invariant for Steps {
    fn on_record(&mut self, change: &RecordChange<'_>, found: &mut Findings) {
        let (Some(before), Some(after)) = (change.before, change.after) else {
            return;
        };
        if change.by_cut {
            return;
        }
        let kept = before.confirmed == after.confirmed;
        let allowed = match (before.next, after.next) {
            (Next::None | Next::Rejected(_), Next::Armed(_)) => kept,
            // What went back may be tried again, or another image in its place.
            (Next::Armed(_), Next::Armed(_)) => kept,
            (Next::Armed(image), Next::Rejected(rejected)) => kept && image == rejected,
            (Next::Armed(image), Next::None) => after.confirmed == image,
            // A commit that came too late for a launcher that went back is taken back.
            (Next::None, Next::Rejected(image)) => before.confirmed == image,
            (Next::None | Next::Rejected(_), Next::None)
            | (Next::Rejected(_), Next::Rejected(_)) => before == after,
        };
        if !allowed {
            let (before, after) = (change.record(&before), change.record(&after));
            let detail = format!("target {}: {before} became {after}", change.target);
            found.add("steps of the boot record", change.at_ms, detail);
        }
    }
}

/// The slot of the confirmed image, and the one that runs, are never written.
struct Kept;

impl Invariant for Kept {
    fn on_slot(&mut self, change: &SlotChange, found: &mut Findings) {
        let confirmed = change.record.map(|record| record.confirmed.slot);
        let runs = change.running.map(|running| running.image.slot);
        if confirmed == Some(change.slot) || runs == Some(change.slot) {
            let detail = format!(
                "slot {} of target {} is written",
                letter(change.slot),
                change.target
            );
            found.add("the good image is kept", change.at_ms, detail);
        }
    }
}

/// No wedge: every run comes to rest, with an end of the job and a reason for it.
struct Rest;

impl Invariant for Rest {
    fn on_end(&mut self, end: &End<'_>, found: &mut Findings) {
        const NAME: &str = "no wedge";
        if !end.at_rest || !end.status.is_terminal() {
            let (status, doing) = (end.status.as_str(), &end.doing);
            let detail = format!("the job is {status}, the device is {doing}");
            found.add(NAME, end.at_ms, detail);
        }
        let needs_reason = matches!(
            end.status,
            ExecutionStatus::Failed | ExecutionStatus::Rejected
        );
        if needs_reason && end.reason.as_deref().is_none_or(str::is_empty) {
            found.add(NAME, end.at_ms, "the job failed without a reason");
        }
    }
}

/// The cloud's status agrees with what runs, and all targets of a job agree with each other.
struct Agreement;

impl Invariant for Agreement {
    fn on_end(&mut self, end: &End<'_>, found: &mut Findings) {
        const NAME: &str = "status agrees with images";
        let new = end
            .confirmed_new
            .iter()
            .filter(|new| **new == Some(true))
            .count();
        let old = end
            .confirmed_new
            .iter()
            .filter(|new| **new == Some(false))
            .count();
        let all = end.confirmed_new.len();
        let detail = || format!("the job is {}, {}", end.status.as_str(), end.images());
        if new != all && old != all {
            found.add("all or nothing", end.at_ms, detail());
        }
        let agrees = match end.status {
            ExecutionStatus::Succeeded => new == all,
            // Withdrawn after the decision: the image stays.
            ExecutionStatus::Canceled | ExecutionStatus::Removed | ExecutionStatus::TimedOut => {
                true
            }
            ExecutionStatus::Failed
            | ExecutionStatus::Rejected
            | ExecutionStatus::Queued
            | ExecutionStatus::InProgress => old == all,
        };
        if !agrees {
            found.add(NAME, end.at_ms, detail());
        }
        for (target, _) in (0..).zip(&end.runs_confirmed).filter(|(_, runs)| !**runs) {
            let status = end.status.as_str();
            let detail =
                format!("the job is {status}, target {target} does not run what it confirms");
            found.add(NAME, end.at_ms, detail);
        }
    }
}

/// The gateway, target 0, is marked for its new image when all other targets of the job were: whoever coordinates goes
/// last.
#[derive(Default)]
struct GatewayLast {
    /// Target 0 is to start, or tests, an image.
    armed: bool,
    /// What the others were marked for so far.
    seen: BTreeSet<(usize, [u8; 32])>,
}

impl Invariant for GatewayLast {
    fn on_record(&mut self, change: &RecordChange<'_>, found: &mut Findings) {
        let next = change.after.map(|record| record.next);
        let armed = match next {
            Some(Next::Armed(image)) => Some(image.sha256),
            Some(Next::None | Next::Rejected(_)) | None => None,
        };
        if change.target == 0 {
            self.armed = armed.is_some();
        } else if let Some(sha256) = armed
            && self.seen.insert((change.target, sha256))
            && self.armed
        {
            let detail = format!("target {} is activated after it", change.target);
            found.add("the gateway goes last", change.at_ms, detail);
        }
    }
}

/// A killed process, an agent that broke, or one that was suspended, fetches at most one window again; a power cut costs at
/// most what was not synced besides.
struct Refetched;

impl Invariant for Refetched {
    fn on_end(&mut self, end: &End<'_>, found: &mut Findings) {
        let scenario = end.scenario;
        // What is doubled or late on its way back is no reason to ask again; what is lost, or cut off, is.
        let weather = &scenario.weather;
        let quiet = weather.requests == Odds::NONE
            && weather.replies.corrupted == 0
            && weather.blocks.lost == 0
            && weather.blocks.delayed == 0
            && weather.blocks.corrupted == 0
            && scenario.outages.is_empty()
            && scenario.spells.is_empty();
        if !quiet {
            return;
        }
        let unsynced = scenario.sync_bytes.div_ceil(scenario.block_bytes() as u64);
        let cost = |cut: &Cut| match cut.kind {
            CutKind::Kill => WINDOW_BLOCKS,
            CutKind::Power => WINDOW_BLOCKS + unsynced,
        };
        let cuts = end.cuts.iter().map(cost).sum::<u64>();
        // What is on its way to an agent that is suspended comes to nobody.
        let suspends = |(_, deed): &&(When, Deed)| matches!(deed, Deed::Order(Command::Suspend));
        let pauses = scenario.deeds.iter().filter(suspends).count() as u64;
        let again = cuts + (end.returns + pauses) * WINDOW_BLOCKS;
        let most = end.blocks * end.jobs as u64 + again;
        if end.blocks_sent > most {
            let detail = format!(
                "{} blocks were sent, at most {most} may be",
                end.blocks_sent
            );
            found.add("blocks are not fetched twice", end.at_ms, detail);
        }
    }
}

/// The run ends as its scenario says.
struct AsTold;

/// With more cuts than this a new image may use up the tries that its launcher gives it.
const CUTS_WITHOUT_A_TRY_LOST: usize = 2;

/// The reason when a self-test gave no verdict in time (`OtadErrSelfTestTimeout`). Whole: 0x41 is also a detail of others.
const TEST_TIMED_OUT: &str = "rejected: 0x00000041";

impl Invariant for AsTold {
    fn on_end(&mut self, end: &End<'_>, found: &mut Findings) {
        let new = end.confirmed_new.iter().all(|new| *new == Some(true));
        let old = end.confirmed_new.iter().all(|new| *new == Some(false));
        let reason = end.reason.as_deref().unwrap_or_default();
        let succeeded = end.status == ExecutionStatus::Succeeded;
        let failed = matches!(
            end.status,
            ExecutionStatus::Failed | ExecutionStatus::Rejected
        );
        // An image that does not reach its cloud in the time of its test goes back, however good it is otherwise.
        let weather = &end.scenario.weather;
        let deaf = weather.requests.lost > 0
            || weather.replies.lost > 0
            || !end.scenario.outages.is_empty();
        let unheard = deaf && reason == TEST_TIMED_OUT;
        let may_go_back = end.cuts.len() > CUTS_WITHOUT_A_TRY_LOST || end.mcu_cut || unheard;
        // A job that never came cannot end as told.
        let ending = match &end.scenario.ending {
            Ending::Updated if end.jobs < end.scenario.jobs() => &Ending::Whole,
            ending => ending,
        };
        let as_told = match *ending {
            Ending::Updated => (succeeded && new) || (may_go_back && failed && old),
            // A cut may turn one reason into another.
            Ending::Kept(wanted) => {
                failed && old && (reason.starts_with(wanted) || !end.cuts.is_empty() || end.mcu_cut)
            }
            Ending::Withdrawn => !succeeded && !failed && (old || !end.cuts.is_empty()),
            Ending::Whole => new || old,
        };
        if !as_told {
            let reason = match reason {
                "" => String::new(),
                reason => format!(" for `{reason}`"),
            };
            let (status, images) = (end.status.as_str(), end.images());
            let detail = format!("the job is {status}{reason}, {images}; it was to end {ending}");
            found.add("ends as told", end.at_ms, detail);
        }
    }
}

#[cfg(test)]
mod tests;
