//! The duties. Each one looks first and then does what is missing, so that it may be begun again at any point.

use std::rc::Rc;

use pal_sdk::lent::Level;
use pal_sdk::{Answer, Failure, ImageInfo, TargetState, Transfer, Version, code, state};
use smp_core::client::{ClientError, Order, Plan};
use smp_core::code::mode;
use smp_core::header::op;
use smp_core::mcuboot::{HEADER_BYTES, ImageHeader, ReadAt, tag};
use smp_core::reply::{Reply, SlotSize};

use crate::file::{self, Staged};
use crate::look::{Unclear, View, insist, look, restart};
use crate::port::{Lent, Port, failed};
use crate::{Told, sub};

/// What a duty ends with.
type End = Result<Answer, Failure>;

/// Uploads of one install: the first, and one after erasing.
const UPLOADS: u32 = 2;
/// Silences in the uploads of one install; each may last `silence_ms`.
const SILENCES: u32 = 8;
/// What one counts before which nothing was moved, so that no more than two in a row are borne: the host takes a duty for hung
/// that stands still for ten minutes, and one may be 83 s of asking and `silence_ms` of waiting.
const IDLE_SILENCE: u32 = SILENCES / 2;
/// Above this, in milliseconds, two in a row would be too long.
const SILENCE_LONG_MS: u64 = 200_000;
/// Times that an image is marked, or confirmed: the request or its answer may be lost, and the target may lose its power.
const MARKS: u32 = 3;
/// How long the duties bear a target that does not list its images which may end without knowing them. A silent one is asked
/// twice in it: 3 or 6 s, and 6 s.
const GLANCE_MS: u64 = 8_000;
/// Time between two looks of the self-test.
const SOAK_LOOK_MS: u64 = 500;
/// Round trips of an echo that have to work.
const ECHOES: u32 = 3;
/// What the bootloader keeps at the end of a slot at least: magic, flags and sizes, 48 bytes.
const TRAILER_BYTES: u64 = 48;

/// The transfer, as far as a duty needs it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) size: u64,
    /// Name of the upload. The file's digest is not known while it is being received; this one is the same before and
    /// after, so an upload goes on across restarts of either side.
    pub(crate) name: [u8; 32],
}

impl Job {
    pub(crate) fn of(transfer: &Transfer) -> Self {
        Self {
            size: transfer.size,
            name: tag(&[
                transfer.job_id.as_bytes(),
                &transfer.file_id.to_be_bytes(),
                &transfer.size.to_be_bytes(),
                &transfer.signature,
            ]),
        }
    }
}

pub(crate) async fn create<L: Lent>(port: Rc<Port<L>>, job: Job) -> End {
    let view = look(&port, port.settings.silence_ms).await?;
    check_settled(&view)?;
    check_bootloader(&port).await?;
    port.learn_sizes().await;
    check_room(&port, job.size).await?;
    Ok(Answer::Nothing)
}

/// Nothing is marked, and what runs is confirmed.
fn check_settled(view: &View) -> Result<(), Failure> {
    let refuse = |number, text| Err(Failure::new(code::BAD_IMAGE_STATE, number, text));
    if view.pending() {
        return refuse(sub::ARMED, "a new image is marked for the next start");
    }
    if !view.active.confirmed {
        return refuse(sub::PENDING, "an image runs that is not confirmed");
    }
    Ok(())
}

/// It has to go back by itself from an image that is not confirmed. A server that does not know the question is an old one:
/// the list of images and the swap itself have to tell. Any other answer that tells nothing is not taken for a yes.
async fn check_bootloader<L: Lent>(port: &Port<L>) -> Result<(), Failure> {
    let allowed = port.settings.allow_no_revert.as_str();
    let untold = |error| failed(code::BAD_IMAGE_STATE, sub::BOOTLOADER, error);
    let mode = Order::Bootloader(Some("mode".to_owned()));
    let name = match insist(port, Order::Echo("otad".to_owned())).await {
        Err(ClientError::Refused(refusal)) if refusal.is_unsupported() => Some("recovery"),
        Err(error @ (ClientError::Silent | ClientError::Malformed)) => return Err(untold(error)),
        _ => match insist(port, mode).await {
            Ok(Reply::BootloaderMode { mode, .. }) => no_revert(mode),
            // An old application, or a recovery that has the echo.
            Err(ClientError::Refused(refusal)) if refusal.is_unsupported() => {
                match insist(port, Order::ConsoleEchoOff).await {
                    Ok(_) => Some("recovery"),
                    Err(ClientError::Refused(_)) => None,
                    Err(error) => return Err(untold(error)),
                }
            }
            Ok(_) => return Err(untold(ClientError::Malformed)),
            Err(error) => return Err(untold(error)),
        },
    };
    match name {
        Some(name) if name != allowed => {
            let text = [
                "the bootloader cannot revert, or not that anybody knew (",
                name,
                "); allow_no_revert names it",
            ];
            Err(Failure::new(code::NO_REVERT, 0, &text.concat()))
        }
        Some(name) => {
            port.say(Level::Warn, &["no way back after an update: ", name]);
            Ok(())
        }
        None => Ok(()),
    }
}

/// The name of a mode that is not known to revert.
const fn no_revert(number: i32) -> Option<&'static str> {
    match number {
        mode::SWAP_SCRATCH | mode::SWAP_MOVE | mode::SWAP_OFFSET | mode::DIRECT_XIP_REVERT => None,
        0 => Some("single"),
        mode::OVERWRITE => Some("overwrite"),
        mode::DIRECT_XIP => Some("direct-xip"),
        mode::RAM_LOAD => Some("ram-load"),
        _ => Some("unknown"),
    }
}

async fn check_room<L: Lent>(port: &Port<L>, size: u64) -> Result<(), Failure> {
    let image = port.settings.image.unwrap_or(0);
    let room = match insist(port, Order::Slots).await {
        Ok(Reply::Slots(slots)) => room(&slots, image),
        Err(error @ ClientError::Silent) => return Err(failed(code::BAD_IMAGE_STATE, 0, error)),
        // Not built in, or nothing that helps.
        _ => None,
    };
    let configured = Some(port.settings.slot_bytes).filter(|bytes| *bytes > 0);
    let room = room.or_else(|| configured.map(|bytes| bytes.saturating_sub(TRAILER_BYTES)));
    match room {
        Some(room) if size > room => {
            let text = format!("the file has {size} bytes, the slot takes {room}");
            Err(Failure::new(code::TOO_LARGE, 0, &text))
        }
        _ => Ok(()),
    }
}

/// What fits: what the server says, or the slot without what the bootloader keeps in it.
fn room(slots: &[SlotSize], image: u32) -> Option<u64> {
    let mut own = slots.iter().filter(|slot| slot.image == image);
    let told = own.clone().find_map(|slot| slot.image_max);
    let second = own.find(|slot| slot.slot == 1 && slot.size > 0);
    told.or_else(|| second.map(|slot| slot.size.saturating_sub(TRAILER_BYTES)))
}

pub(crate) async fn examine<L: Lent>(port: Rc<Port<L>>, job: Job) -> End {
    let image = file::examine(&port, job.size).await?;
    let version = image.header.version;
    Ok(Answer::Info(ImageInfo {
        version: Some(Version {
            major: version.major,
            minor: version.minor,
            revision: version.revision,
            build: version.build,
        }),
        product: file::product(&port, &image, job.size),
    }))
}

pub(crate) async fn install<L: Lent>(port: Rc<Port<L>>, job: Job, told: Rc<Told>) -> End {
    check_head(&port, &job).await?;
    let mut view = look(&port, port.settings.silence_ms).await?;
    let (mut uploads, mut silences, mut is_over) = (0, 0, false);
    // Begun again, or after a silence: it may be there, or run, already.
    while !is_there(&port, &job, &view).await? {
        if is_over {
            if uploads == UPLOADS {
                let text = "the target does not list the image that it was sent";
                return Err(Failure::new(code::BLOCK_FAILED, sub::NOT_LISTED, text));
            }
            port.say(Level::Warn, &["the upload failed; erasing the slot"]);
            erase(&port).await?;
            is_over = false;
        }
        check_settled(&view)?;
        // Not only in `create`: what answers may be the bootloader's own server by now, and that writes over what runs.
        check_bootloader(&port).await?;
        port.learn_sizes().await;
        told.pushed.set(true);
        told.erased.set(false);
        let moved = port.progress.get().0;
        match push(&port, &job).await {
            Ok(()) => (uploads, is_over) = (uploads + 1, true),
            Err(ClientError::Refused(_) | ClientError::Mismatch) if uploads + 1 < UPLOADS => {
                (uploads, is_over) = (uploads + 1, true);
            }
            Err(error) => {
                let is_idle = port.progress.get().0 == moved;
                silences += match is_idle {
                    true if port.settings.silence_ms > SILENCE_LONG_MS => SILENCES,
                    true => IDLE_SILENCE,
                    false => 1,
                };
                // Of these the look that follows says what became of the target.
                let passes = matches!(error, ClientError::Silent | ClientError::Recovery);
                if !passes || silences > SILENCES {
                    let failure = failed(code::BLOCK_FAILED, sub::UPLOAD, error);
                    return Err(port.explain(failure));
                }
            }
        }
        view = look(&port, port.settings.silence_ms).await?;
    }
    finish_install(&port, &job, view).await
}

/// Lies in its slot, or runs; of a file that is not complete that cannot be said.
async fn is_there<L: Lent>(port: &Port<L>, job: &Job, view: &View) -> Result<bool, Failure> {
    if port.lent.held() < job.size {
        return Ok(false);
    }
    let image = file::examine(port, job.size).await?;
    Ok(view.runs(&image.hash) || view.holds(&image.hash))
}

/// The first bytes of the file have to be an image's before anything is erased.
async fn check_head<L: Lent>(port: &Port<L>, job: &Job) -> Result<(), Failure> {
    while port.lent.held() < job.size.min(HEADER_BYTES as u64) {
        port.more_data().await;
    }
    let mut head = [0; HEADER_BYTES];
    let mut file = Staged {
        port,
        size: job.size,
        hash: None,
    };
    if !file.read_at(0, &mut head) {
        return Err(Failure::new(code::NOT_FOUND, 0, "the file cannot be read"));
    }
    let header = ImageHeader::parse(&head).map_err(file::bad_image)?;
    file::check_plain(&header)?;
    if header.hashed_size() > job.size {
        return Err(file::bad_image(smp_core::mcuboot::ImageError::Truncated));
    }
    Ok(())
}

/// Waits for the host's word on the file, and looks whether it is still there then.
async fn finish_install<L: Lent>(port: &Port<L>, job: &Job, mut view: View) -> End {
    let mut waited = false;
    while !port.lent.verified() {
        port.moved(job.size, job.size);
        port.more_data().await;
        waited = true;
    }
    let image = file::identify(port, job.size)?;
    if waited {
        view = look(port, port.settings.silence_ms).await?;
    }
    if view.holds(&image.hash) || view.runs(&image.hash) {
        return Ok(Answer::Nothing);
    }
    let text = "the image is not in its slot any more";
    Err(Failure::new(code::BLOCK_FAILED, sub::NOT_LISTED, text))
}

async fn push<L: Lent>(port: &Port<L>, job: &Job) -> Result<(), ClientError> {
    let plan = Plan {
        size: job.size,
        name: job.name.to_vec(),
        name_is_digest: false,
        image: port.settings.image,
        repeat_image: port.settings.allow_no_revert == "recovery",
        listed_image: port.settings.image.unwrap_or(0),
    };
    let mut file = Staged {
        port,
        size: job.size,
        hash: None,
    };
    port.upload(plan, &mut file).await.map(drop)
}

/// Erases the slot that does not run. Old servers refuse where it is empty already.
async fn erase<L: Lent>(port: &Port<L>) -> Result<(), Failure> {
    // Slots are numbered through all images; the default is that of the first one.
    let slot = port.settings.image.filter(|image| *image > 0);
    match port
        .ask(Order::Erase(slot.map(|image| 2 * image + 1)))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => {
            let view = look(port, port.settings.silence_ms).await?;
            match view.other {
                None => Ok(()),
                Some(_) => Err(failed(code::BLOCK_FAILED, sub::ERASE, error)),
            }
        }
    }
}

pub(crate) async fn activate<L: Lent>(port: Rc<Port<L>>, job: Job, told: Rc<Told>) -> End {
    let image = file::identify(&port, job.size)?;
    let mut why = None;
    for marks in 0..=MARKS {
        // Marked, it may lose its power and start the image: a swap takes its time.
        let view = look(&port, port.settings.patience_ms()).await?;
        // With the same hash in both slots marking would confirm what runs, and nothing would ever be swapped.
        if view.runs(&image.hash) {
            let in_test = !view.active.confirmed;
            told.activated.set(told.activated.get() || in_test);
            return Ok(Answer::Nothing);
        }
        if !view.holds(&image.hash) {
            let text = "the image is not in its slot";
            return Err(Failure::new(code::ACTIVATE_FAILED, sub::NOT_LISTED, text));
        }
        if view.pending() {
            told.activated.set(true);
            return Ok(Answer::Nothing);
        }
        check_settled(&view)?;
        if marks < MARKS {
            why = port.ask(Order::Test(image.hash.clone())).await.err();
        }
    }
    Err(not_marked(code::ACTIVATE_FAILED, why))
}

/// It answers, and does not list what it was asked to mark or to confirm: that is not silence, whatever became of the
/// request itself.
fn not_marked(main: u8, why: Option<ClientError>) -> Failure {
    let text = match why {
        Some(why) if why != ClientError::Silent => why.to_string(),
        _ => "the target answers and changes nothing".to_owned(),
    };
    Failure::new(main, sub::NOT_MARKED, &text)
}

pub(crate) async fn reset<L: Lent>(port: Rc<Port<L>>, job: Option<Job>) -> End {
    let image = job.and_then(|job| file::identify(&port, job.size).ok());
    // It may have come up already, perhaps before a restart of the host: another restart would revert it.
    let ours = |view: &View| image.as_ref().is_some_and(|image| view.runs(&image.hash));
    // With nothing marked any answer is a restart that cannot be told from none; the old server is gone by then.
    let view = restart(&port, Unclear::Stays, ours, |_| true).await?;
    port.say(Level::Info, &["the target runs ", &view.active.version]);
    Ok(Answer::Nothing)
}

pub(crate) async fn state<L: Lent>(port: Rc<Port<L>>, job: Option<Job>, told: Rc<Told>) -> End {
    let view = match look(&port, GLANCE_MS).await {
        Ok(view) => view,
        Err(failure) if failure.main == code::UNREACHABLE || failure.sub == sub::BUSY => {
            return Ok(Answer::State(TargetState::default()));
        }
        Err(failure) => return Err(failure),
    };
    let hash = match &job {
        Some(job) => file::identify(&port, job.size).ok().map(|i| i.hash),
        None => None,
    };
    let ours = hash.as_ref().map(|hash| view.runs(hash));
    let armed = hash.as_ref().is_some_and(|hash| view.holds(hash)) && view.pending();
    let code = match (ours, view.active.confirmed) {
        (Some(true), false) => state::PENDING_COMMIT,
        (_, false) => state::FOREIGN,
        (Some(true), true) => state::VALID,
        (_, true) if armed => state::ARMED,
        (_, true) if job.is_some() && told.activated.get() => {
            let why = match view.other {
                _ if told.erased.get() => None,
                None => Some("the bootloader refused the image: its slot is empty"),
                Some(_) => Some("the image was reverted before it was committed"),
            };
            if let Some(why) = why {
                port.say(Level::Warn, &[why]);
            }
            state::INVALID
        }
        (_, true) => state::VALID,
    };
    let running = smp_core::mcuboot::Version::parse(&view.active.version);
    Ok(Answer::State(TargetState {
        code,
        running: running.map(|version| Version {
            major: version.major,
            minor: version.minor,
            revision: version.revision,
            build: version.build,
        }),
        runs_new: job.map(|_| ours.unwrap_or(false)),
    }))
}

pub(crate) async fn self_test<L: Lent>(port: Rc<Port<L>>, job: Job) -> End {
    let image = file::identify(&port, job.size)?;
    let refuse = |number, text: &str| Err(Failure::new(code::BAD_IMAGE_STATE, number, text));
    let until = port.now_ms() + port.settings.soak_ms;
    let mut is_silent = false;
    loop {
        let view = look(&port, port.settings.patience_ms()).await?;
        if !view.runs(&image.hash) {
            return refuse(sub::NOT_RUNNING, "the new image does not run");
        }
        let version = smp_core::mcuboot::Version::parse(&view.active.version);
        if version.is_some_and(|version| version != image.header.version) {
            return refuse(sub::OTHER_VERSION, "the target tells another version");
        }
        let back = view.other.as_ref().is_some_and(|other| other.confirmed);
        if !view.active.confirmed && !back && port.settings.allow_no_revert.is_empty() {
            return refuse(sub::NO_WAY_BACK, "no confirmed image is left to go back to");
        }
        match check_application(&port).await {
            Ok(()) => is_silent = false,
            // It may have restarted: then the list says what runs now.
            Err((_, Some(ClientError::Silent))) if !is_silent => {
                is_silent = true;
                continue;
            }
            // A target that lists its images is there: it is the application that does not answer.
            Err((number, Some(error))) => return refuse(number, &error.to_string()),
            Err((number, None)) => return refuse(number, "the echo is another text"),
        }
        if port.now_ms() >= until {
            return Ok(Answer::Nothing);
        }
        port.sleep(SOAK_LOOK_MS).await;
    }
}

/// The application answers, and its own test passes; otherwise `sub` of what failed, and the client's error if there is one.
async fn check_application<L: Lent>(port: &Port<L>) -> Result<(), (u32, Option<ClientError>)> {
    for _ in 0..ECHOES {
        match port.ask(Order::Echo("otad".to_owned())).await {
            Ok(Reply::Echo(text)) if text == "otad" => {}
            Err(error) => return Err((sub::ECHO, Some(error))),
            Ok(_) => return Err((sub::ECHO, None)),
        }
    }
    let Some((group, id)) = port.settings.test_command else {
        return Ok(());
    };
    let order = Order::Other {
        op: op::READ,
        group,
        id,
        payload: vec![0xa0],
        wait_ms: port.settings.test_timeout_ms,
    };
    match port.ask(order).await {
        Ok(_) => Ok(()),
        Err(error) => Err((sub::TEST_COMMAND, Some(error))),
    }
}

pub(crate) async fn commit<L: Lent>(port: Rc<Port<L>>, job: Job) -> End {
    let image = file::identify(&port, job.size)?;
    let mut why = None;
    for marks in 0..=MARKS {
        let view = look(&port, port.settings.patience_ms()).await?;
        if !view.runs(&image.hash) {
            let text = "the new image does not run: it was reverted";
            return Err(Failure::new(code::BAD_IMAGE_STATE, sub::NOT_RUNNING, text));
        }
        if view.active.confirmed {
            return Ok(Answer::Nothing);
        }
        if marks < MARKS {
            why = port.ask(Order::Confirm).await.err();
        }
    }
    Err(not_marked(code::COMMIT_FAILED, why))
}

/// Back to the image that is confirmed. Never by marking that one: while an image runs in test, that would confirm the
/// new image and put the old one to test.
pub(crate) async fn reject<L: Lent>(port: Rc<Port<L>>, job: Option<Job>, told: Rc<Told>) -> End {
    let hash = match &job {
        Some(job) => file::identify(&port, job.size).ok().map(|i| i.hash),
        None => None,
    };
    let mut view = restart(&port, Unclear::Restarts, View::settled, |_| true).await?;
    if !view.settled() {
        let text = "a mark cannot be taken back: the new image runs once";
        port.say(Level::Warn, &[text]);
        view = restart(&port, Unclear::Restarts, View::settled, View::settled).await?;
    }
    if told.activated.get() && hash.as_ref().is_some_and(|hash| view.runs(hash)) {
        let text = "the new image is confirmed; only a new job can replace it";
        return Err(Failure::new(code::REJECT_FAILED, sub::COMMITTED, text));
    }
    if hash.is_some_and(|hash| view.holds(&hash)) {
        erase(&port).await?;
        told.erased.set(true);
    }
    told.pushed.set(false);
    Ok(Answer::Nothing)
}

pub(crate) async fn abort<L: Lent>(port: Rc<Port<L>>, job: Option<Job>, told: Rc<Told>) -> End {
    let Some(job) = job else {
        return Ok(Answer::Nothing);
    };
    let hash = file::identify(&port, job.size).ok().map(|i| i.hash);
    let view = look(&port, GLANCE_MS).await;
    let clean = match &view {
        Ok(view) => {
            let there = hash.is_some_and(|hash| view.holds(&hash));
            !(told.pushed.get() || there)
        }
        Err(_) => !told.pushed.get(),
    };
    if clean {
        return Ok(Answer::Nothing);
    }
    let view = view.map_err(|failure| Failure::new(code::ABORT_FAILED, 0, &failure.detail))?;
    if view.pending() || !view.active.confirmed {
        let text = "the image is marked or runs; reject takes it back";
        return Err(Failure::new(code::ABORT_FAILED, sub::ARMED, text));
    }
    erase(&port).await?;
    told.pushed.set(false);
    Ok(Answer::Nothing)
}
