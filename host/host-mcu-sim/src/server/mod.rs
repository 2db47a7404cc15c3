//! The SMP server's device: what each request does to the flash and the marks, with the refusals and quirks of the
//! profile. Packets, dispatch and the order of an upload are smp-core's.
//!
//! It waits for nothing: flash operations take their time on the flash, and the answer leaves when they are done.

mod images;
mod upload;

use smp_core::code::{Refusal, group, image_rc, rc};
use smp_core::header::Header;
use smp_core::reply::{Dialect, ErrorStyle, ImageState, Parameters, Reply, SlotSize};
use smp_core::request::{Request, Upload};
use smp_core::server::{Device, Outcome, Server as Protocol, ServerConfig};

use crate::boot::{self, BootMode};
use crate::fault::{Effect, Seen, Trigger};
use crate::flash::{ERASED, Flash, Slot};
use crate::profile::{ErrorShape, Profile};
use upload::Transfer;

/// Longest echo that is answered: what a packet of the largest buffer holds is more than anybody sends.
const ECHO_BYTES_MAX: usize = 512;

const UNSUPPORTED: Refusal = Refusal::generic(rc::UNSUPPORTED);

/// The MCU round the server, for the time of one request.
pub(crate) struct Running<'a> {
    pub(crate) flash: &'a mut Flash,
    pub(crate) mode: BootMode,
    /// The slot that runs; none in the recovery.
    pub(crate) active: Option<Slot>,
    pub(crate) uploaded_bytes: &'a mut u64,
    pub(crate) uptime_ms: u64,
}

/// What is sent back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) packet: Vec<u8>,
    pub(crate) reset: Option<Reset>,
}

/// The MCU resets a while after the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reset {
    pub(crate) to_recovery: bool,
}

/// A server with what it holds in memory.
#[derive(Debug)]
pub(crate) struct Server {
    profile: Profile,
    protocol: Protocol,
    transfer: Option<Transfer>,
}

/// The device behind the protocol, while it answers.
struct Desk<'a> {
    profile: &'a Profile,
    running: Running<'a>,
    transfer: &'a mut Option<Transfer>,
    /// A rule says so.
    never_matches: bool,
    /// Another one does.
    lists_other_hashes: bool,
    reset: Option<Reset>,
}

impl Server {
    pub(crate) fn new(profile: Profile) -> Self {
        let config = ServerConfig {
            dialect: dialect(&profile),
            v1_only: profile.ignores_v2,
            checks_header: profile.checks_header,
            checks_overrun: profile.checks_size,
        };
        Self {
            profile,
            protocol: Protocol::new(config),
            transfer: None,
        }
    }

    /// Forgets what it held in memory.
    pub(crate) fn forget(&mut self) {
        self.protocol.forget();
        self.transfer = None;
    }

    /// What the rules know of a request; none for what is no request.
    pub(crate) fn seen(&self, packet: &[u8]) -> Option<Seen> {
        let header = Header::parse(packet)?;
        let request = Request::decode(&header, header.payload(packet)?).ok()?;
        let seen = |trigger| Seen {
            trigger,
            is_first: false,
            is_last: false,
        };
        Some(match request {
            Request::Echo(_) => seen(Trigger::Echo),
            Request::Reset { .. } => seen(Trigger::Reset),
            Request::Images => seen(Trigger::List),
            Request::State { .. } => seen(Trigger::StateWrite),
            Request::Erase(_) => seen(Trigger::Erase),
            Request::Upload(upload) => self.seen_upload(&upload),
            Request::ConsoleEcho(_)
            | Request::Parameters
            | Request::Info(_)
            | Request::Bootloader(_)
            | Request::Slots
            | Request::Other { .. } => seen(Trigger::Any),
        })
    }

    fn seen_upload(&self, upload: &Upload<'_>) -> Seen {
        let size = upload.size.or_else(|| Some(self.transfer.as_ref()?.size()));
        let length = upload.data.map_or(0, <[u8]>::len) as u64;
        let end = upload.offset.unwrap_or_default().saturating_add(length);
        Seen {
            trigger: Trigger::Upload,
            is_first: upload.offset == Some(0),
            is_last: size.is_some_and(|size| end >= size),
        }
    }

    /// Does what a request asks. Nothing is answered to what is no request, and to a version that this server does not
    /// hear.
    pub(crate) fn answer(
        &mut self,
        running: Running<'_>,
        packet: &[u8],
        effects: &[Effect],
    ) -> Option<Answer> {
        let forced = effects.iter().find_map(|effect| match effect {
            Effect::Answer(code) => Some(u32::from(*code)),
            Effect::Busy => Some(rc::BUSY),
            _ => None,
        });
        if let Some(code) = forced {
            let header = Header::parse(packet)?;
            let packet =
                Reply::Refused(Refusal::generic(code)).encode(&header, &dialect(&self.profile));
            return Some(Answer {
                packet,
                reset: None,
            });
        }
        let mut desk = Desk {
            profile: &self.profile,
            running,
            transfer: &mut self.transfer,
            never_matches: effects.contains(&Effect::NoMatch),
            lists_other_hashes: effects.contains(&Effect::OtherHash),
            reset: None,
        };
        let mut answer = self.protocol.handle(&mut desk, packet)?;
        let reset = desk.reset;
        if answer.len() > self.profile.packet_bytes_max() {
            let header = Header::parse(packet)?;
            let refused = Reply::Refused(Refusal::generic(rc::TOO_LARGE));
            answer = refused.encode(&header, &dialect(&self.profile));
        }
        Some(Answer {
            packet: answer,
            reset,
        })
    }
}

const fn dialect(profile: &Profile) -> Dialect {
    Dialect {
        errors: match profile.errors {
            ErrorShape::Rc => ErrorStyle::Generic,
            ErrorShape::Ret => ErrorStyle::Ret,
            ErrorShape::Err => ErrorStyle::Err,
        },
        legacy_rc: profile.legacy_rc,
        indefinite: true,
        frugal: profile.frugal_list,
        split_status: !profile.legacy_rc,
    }
}

impl Desk<'_> {
    /// The slot that runs; the recovery counts as the primary one.
    fn active(&self) -> Slot {
        self.running.active.unwrap_or(Slot::Primary)
    }

    /// Nothing pending, nothing on trial.
    fn is_settled(&self, image: u8) -> bool {
        if self.running.mode.runs_in_place() {
            return boot::is_confirmed(self.running.flash, image, self.active());
        }
        boot::swap_type(self.running.flash, image) == boot::SwapType::None
    }
}

fn granted(has: bool) -> Outcome<()> {
    if has { Ok(()) } else { Err(UNSUPPORTED) }
}

impl Device for Desk<'_> {
    fn parameters(&mut self) -> Outcome<Parameters> {
        granted(self.profile.has_params)?;
        Ok(Parameters {
            buf_size: self.profile.buf_size.into(),
            buf_count: self.profile.buf_count.into(),
        })
    }

    fn images(&mut self) -> Outcome<Vec<ImageState>> {
        Ok(self.list())
    }

    fn set_state(&mut self, hash: Option<&[u8]>, confirm: bool) -> Outcome<()> {
        granted(self.profile.has_state_write && self.running.mode.has_marks())?;
        self.mark(hash, confirm)
    }

    fn upload_begin(&mut self, upload: &Upload<'_>, size: u64, first: &[u8]) -> Outcome<()> {
        self.begin(upload, size, first)
    }

    fn upload_write(&mut self, offset: u64, data: &[u8]) -> Outcome<usize> {
        self.write(offset, data)
    }

    fn upload_end(&mut self, sha: &[u8]) -> Option<bool> {
        let transfer = self.transfer.take()?;
        if self.never_matches {
            return Some(false);
        }
        self.profile
            .has_image_check
            .then(|| transfer.matches(self.running.flash, sha))
    }

    fn upload_holds(&mut self, size: u64, sha: &[u8]) -> bool {
        self.profile.has_image_check
            && self.is_settled(0)
            && upload::holds(self.running.flash, (0, self.active().other()), size, sha)
    }

    fn erase(&mut self, slot: Option<u32>) -> Outcome<()> {
        granted(self.profile.has_erase)?;
        let active = self.active();
        let (image, slot) = match slot {
            None => (0, active.other()),
            Some(number) => self.slot_of(number)?,
        };
        if slot == active || !self.is_settled(image) {
            return Err(Refusal::image(image_rc::NO_FREE_SLOT));
        }
        *self.transfer = None;
        let bytes = self.running.flash.slot(image, slot);
        if bytes.iter().all(|byte| *byte == ERASED) {
            return if self.profile.refuses_empty_erase {
                Err(Refusal::image(image_rc::UNKNOWN))
            } else {
                Ok(())
            };
        }
        boot::erase_slot(self.running.flash, image, slot)
            .map_err(|_| Refusal::image(image_rc::FLASH_ERASE_FAILED))
    }

    fn reset(&mut self, _force: bool, boot_mode: Option<u32>) -> Outcome<()> {
        self.reset = Some(Reset {
            to_recovery: boot_mode == Some(1) && self.profile.has_boot_mode,
        });
        Ok(())
    }

    fn echo(&mut self, text: &str) -> Outcome<String> {
        granted(self.profile.has_echo)?;
        if text.len() > ECHO_BYTES_MAX {
            return Err(Refusal::generic(rc::NO_MEMORY));
        }
        Ok(text.to_owned())
    }

    /// Recovery takes it; an application has no such command.
    fn console_echo(&mut self, _on: bool) -> Outcome<()> {
        granted(self.running.active.is_none())
    }

    fn info(&mut self, format: Option<&str>) -> Outcome<String> {
        granted(self.profile.has_os_info)?;
        info(format.unwrap_or("s"), self.running.uptime_ms)
    }

    fn bootloader(&mut self, query: Option<&str>) -> Outcome<Reply> {
        granted(self.profile.has_bootloader_info)?;
        match query {
            None | Some("") => Ok(Reply::Bootloader("MCUboot".to_owned())),
            Some("mode") => Ok(Reply::BootloaderMode {
                mode: self.running.mode.number().into(),
                no_downgrade: false,
            }),
            Some(_) => Err(os_refusal(QUERY_WITHOUT_ANSWER)),
        }
    }

    fn slots(&mut self) -> Outcome<Vec<SlotSize>> {
        granted(self.profile.has_slot_info)?;
        let geometry = self.running.flash.geometry();
        let mut slots = Vec::new();
        for image in 0..geometry.images() {
            for slot in [Slot::Primary, Slot::Secondary] {
                let takes_uploads = slot == self.active().other();
                slots.push(SlotSize {
                    image: image.into(),
                    slot: slot.number().into(),
                    size: geometry.slot_bytes().into(),
                    upload_image: takes_uploads.then_some(image.into()),
                    image_max: Some(geometry.image_bytes_max().into()),
                });
            }
        }
        Ok(slots)
    }
}

impl Desk<'_> {
    /// The slot that erase numbers through all images.
    fn slot_of(&self, number: u32) -> Outcome<(u8, Slot)> {
        let image = u8::try_from(number / 2).unwrap_or(u8::MAX);
        match Slot::of_number(u64::from(number % 2)) {
            Some(slot) if image < self.running.flash.geometry().images() => Ok((image, slot)),
            _ => Err(Refusal::image(image_rc::INVALID_SLOT)),
        }
    }
}

/// Codes of the OS group.
const INVALID_FORMAT: u32 = 2;
const QUERY_WITHOUT_ANSWER: u32 = 3;

const fn os_refusal(code: u32) -> Refusal {
    Refusal {
        group: Some(group::OS),
        code,
    }
}

/// What `os info` tells, letter by letter.
fn info(format: &str, uptime_ms: u64) -> Outcome<String> {
    let mut words = Vec::new();
    for letter in format.chars() {
        words.push(match letter {
            's' | 'o' => "Zephyr".to_owned(),
            'n' => "mcu-sim".to_owned(),
            'r' | 'v' => format!("up {uptime_ms} ms"),
            'b' | 'm' | 'p' | 'i' => "simulated".to_owned(),
            'a' => format!("Zephyr mcu-sim up {uptime_ms} ms simulated"),
            _ => return Err(os_refusal(INVALID_FORMAT)),
        });
    }
    Ok(words.join(" "))
}
