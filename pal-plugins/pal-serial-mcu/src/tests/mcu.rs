//! A small MCU: the server of smp-core, two slots that swap, test and revert. Time is the bench's.

use smp_core::code::{Refusal, image_rc, rc};
use smp_core::header::{HEADER_BYTES, Header};
use smp_core::mcuboot::{Image, ImageHeader, Version, sha256, tlv};
use smp_core::reply::{ImageState, Parameters, Reply, SlotSize};
use smp_core::request::Upload;
use smp_core::server::{Device, Outcome, Server, ServerConfig};

/// Life of the old server after the answer to a reset.
const LINGER_MS: u64 = 250;

/// A signed image of `body` bytes with a product.
pub(super) fn image(version: u8, body: usize, product: &[u8]) -> Vec<u8> {
    let protected = 8 + product.len() as u16;
    let header = ImageHeader {
        header_size: 32,
        body_size: body as u32,
        protected_size: protected,
        version: Version {
            major: version,
            ..Version::default()
        },
        ..ImageHeader::default()
    };
    let mut file = header.to_bytes().to_vec();
    file.extend((0..body).map(|i| (i * 31 + usize::from(version)) as u8));
    file.extend([0x08, 0x69]);
    file.extend(protected.to_le_bytes());
    put(&mut file, 0xa0, product);
    let hash = sha256(&file);
    file.extend([0x07, 0x69]);
    file.extend((4_u16 + 36 + 74).to_le_bytes());
    put(&mut file, tlv::SHA256, &hash);
    put(&mut file, 0x22, &[0x30; 70]);
    file
}

fn put(file: &mut Vec<u8>, kind: u16, value: &[u8]) {
    file.extend(kind.to_le_bytes());
    file.extend((value.len() as u16).to_le_bytes());
    file.extend(value);
}

pub(super) struct Mcu {
    server: Server,
    pub(super) board: Board,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnReset {
    Restarts,
    Refuses,
    /// It says yes.
    Ignores,
}

pub(super) struct Board {
    pub(super) slots: [Vec<u8>; 2],
    pub(super) pending: bool,
    pub(super) confirmed: bool,
    size: u64,
    /// The bootloader does not take what lies in slot 1.
    pub(super) refuses_signature: bool,
    /// Marks and confirmations are answered, and nothing changes.
    pub(super) keeps_no_mark: bool,
    /// An image that is not confirmed never answers.
    pub(super) new_is_dumb: bool,
    /// What an image that is not confirmed lists in place of the truth.
    pub(super) new_lists: Option<Outcome<Vec<ImageState>>>,
    /// Commands of this group, or this one of it alone, get no answer.
    pub(super) deaf: Option<(u16, Option<u8>)>,
    /// Answers to this command are none.
    pub(super) garbled: Option<(u16, u8)>,
    /// What it does with an order to reset, by force too.
    pub(super) on_reset: OnReset,
    /// Bootloader mode; none = the command is not there.
    pub(super) mode: Option<i32>,
    /// Refusals of the question for it, each told once, the last one first.
    pub(super) mode_refusals: Vec<Refusal>,
    pub(super) recovery: bool,
    /// Lists that are answered "busy", counted down.
    pub(super) busy_lists: u32,
    /// Times that the application's own test was begun.
    pub(super) tests: u32,
    /// Flash writes that fail, counted down.
    pub(super) failing_writes: u32,
    pub(super) erases: u32,
    pub(super) written: u64,
    pub(super) boots: u32,
    /// When the reset that was ordered happens, and when it is up again.
    reset_at: Option<u64>,
    pub(super) up_at: u64,
    pub(super) swap_ms: u64,
    now_ms: u64,
}

impl Mcu {
    pub(super) fn new() -> Self {
        Self {
            server: Server::new(ServerConfig::default()),
            board: Board {
                slots: [image(1, 3000, b"pump"), Vec::new()],
                pending: false,
                confirmed: true,
                size: 0,
                refuses_signature: false,
                keeps_no_mark: false,
                new_is_dumb: false,
                new_lists: None,
                deaf: None,
                garbled: None,
                on_reset: OnReset::Restarts,
                mode: Some(3),
                mode_refusals: Vec::new(),
                recovery: false,
                busy_lists: 0,
                tests: 0,
                failing_writes: 0,
                erases: 0,
                written: 0,
                boots: 0,
                reset_at: None,
                up_at: 0,
                swap_ms: 20_000,
                now_ms: 0,
            },
        }
    }

    /// One that drops version 2 without a word.
    pub(super) fn of_version_one() -> Self {
        let config = ServerConfig {
            v1_only: true,
            ..ServerConfig::default()
        };
        Self {
            server: Server::new(config),
            ..Self::new()
        }
    }

    /// A packet at this time; what it answers.
    pub(super) fn handle(&mut self, now_ms: u64, packet: &[u8]) -> Option<Vec<u8>> {
        self.pass(now_ms);
        let board = &mut self.board;
        let dumb = board.new_is_dumb && !board.confirmed;
        let asked = Header::parse(packet)?;
        let deaf = board
            .deaf
            .is_some_and(|(group, id)| group == asked.group && id.is_none_or(|id| id == asked.id));
        if now_ms < board.up_at || dumb || deaf {
            return None;
        }
        let answer = self.server.handle(board, packet)?;
        if self.board.garbled == Some((asked.group, asked.id)) {
            // A break outside of anything is no CBOR.
            let mut answer = answer;
            answer[HEADER_BYTES..].fill(0xff);
            return Some(answer);
        }
        Some(answer)
    }

    fn pass(&mut self, now_ms: u64) {
        self.board.now_ms = now_ms;
        if self.board.reset_at.is_some_and(|at| now_ms >= at) {
            self.boot();
        }
    }

    /// Restarts at once, as a power cut or the reset input does.
    pub(super) fn boot(&mut self) {
        self.server.forget();
        let board = &mut self.board;
        board.reset_at = None;
        board.boots += 1;
        board.up_at = board.now_ms + 1000;
        if board.pending {
            board.pending = false;
            if board.refuses_signature {
                board.slots[1].clear();
                return;
            }
            board.slots.swap(0, 1);
            board.confirmed = false;
            board.up_at += board.swap_ms;
        } else if !board.confirmed {
            board.slots.swap(0, 1);
            board.confirmed = true;
            board.up_at += board.swap_ms;
        }
    }
}

impl Board {
    pub(super) fn hash(&self, slot: usize) -> Option<Vec<u8>> {
        let bytes = &self.slots[slot];
        let image = Image::examine(&mut &bytes[..], bytes.len() as u64).ok()?;
        Some(image.hash)
    }

    fn version(&self, slot: usize) -> String {
        format!("{}.0.0", self.slots[slot][20])
    }

    fn busy(&self) -> bool {
        self.pending || !self.confirmed
    }
}

impl Device for Board {
    fn parameters(&mut self) -> Outcome<Parameters> {
        Ok(Parameters {
            buf_size: 384,
            buf_count: 4,
        })
    }

    fn images(&mut self) -> Outcome<Vec<ImageState>> {
        if self.busy_lists > 0 {
            self.busy_lists -= 1;
            return Err(Refusal::generic(rc::BUSY));
        }
        if !self.confirmed
            && let Some(listed) = &self.new_lists
        {
            return listed.clone();
        }
        let listed = (0..2).filter_map(|slot| {
            Some(ImageState {
                slot: slot as u32,
                version: self.hash(slot).map(|_| self.version(slot))?,
                hash: self.hash(slot)?,
                bootable: true,
                pending: slot == 1 && self.pending,
                confirmed: (slot == 0) == self.confirmed,
                active: slot == 0,
                ..ImageState::default()
            })
        });
        Ok(listed.collect())
    }

    fn set_state(&mut self, hash: Option<&[u8]>, confirm: bool) -> Outcome<()> {
        match hash {
            _ if self.keeps_no_mark => Ok(()),
            None if self.pending => Err(Refusal::image(image_rc::ALREADY_PENDING)),
            None => {
                self.confirmed = true;
                Ok(())
            }
            Some(hash) if self.hash(1).as_deref() == Some(hash) => {
                // The trap: the fall-back image marked while a new one runs confirms the new one.
                self.confirmed = true;
                self.pending = true;
                assert!(!confirm, "never for good");
                Ok(())
            }
            Some(_) => Err(Refusal::image(image_rc::HASH_NOT_FOUND)),
        }
    }

    fn upload_begin(&mut self, _: &Upload<'_>, size: u64, _: &[u8]) -> Outcome<()> {
        if self.busy() {
            return Err(Refusal::image(image_rc::NO_FREE_SLOT));
        }
        self.slots[1].clear();
        self.size = size;
        self.erases += 1;
        Ok(())
    }

    fn upload_write(&mut self, offset: u64, data: &[u8]) -> Outcome<usize> {
        if offset > 0 && self.failing_writes > 0 {
            self.failing_writes -= 1;
            return Err(Refusal::image(image_rc::FLASH_WRITE_FAILED));
        }
        assert_eq!(offset, self.slots[1].len() as u64);
        self.slots[1].extend_from_slice(data);
        self.written += data.len() as u64;
        Ok(data.len())
    }

    fn upload_end(&mut self, _: &[u8]) -> Option<bool> {
        None
    }

    fn erase(&mut self, _: Option<u32>) -> Outcome<()> {
        if self.busy() {
            return Err(Refusal::image(image_rc::NO_FREE_SLOT));
        }
        // As old servers do where there is nothing.
        if self.slots[1].is_empty() {
            return Err(Refusal::image(image_rc::UNKNOWN));
        }
        self.slots[1].clear();
        Ok(())
    }

    fn reset(&mut self, _: bool, _: Option<u32>) -> Outcome<()> {
        match self.on_reset {
            OnReset::Restarts => self.reset_at = Some(self.now_ms + LINGER_MS),
            OnReset::Refuses => return Err(Refusal::generic(rc::BAD_STATE)),
            OnReset::Ignores => {}
        }
        Ok(())
    }

    fn echo(&mut self, text: &str) -> Outcome<String> {
        if self.recovery {
            return Err(Refusal::generic(rc::UNSUPPORTED));
        }
        Ok(text.to_owned())
    }

    fn bootloader(&mut self, _: Option<&str>) -> Outcome<Reply> {
        if let Some(refusal) = self.mode_refusals.pop() {
            return Err(refusal);
        }
        let unsupported = Refusal::generic(rc::UNSUPPORTED);
        let mode = self.mode.ok_or(unsupported)?;
        Ok(Reply::BootloaderMode {
            mode,
            no_downgrade: false,
        })
    }

    fn other(&mut self, _: u8, group: u16, _: u8, _: &[u8]) -> Outcome<Vec<u8>> {
        if group != smp_core::code::group::USER {
            return Err(Refusal::generic(rc::UNSUPPORTED));
        }
        self.tests += 1;
        Ok(vec![0xa0])
    }

    fn slots(&mut self) -> Outcome<Vec<SlotSize>> {
        Ok(vec![SlotSize {
            slot: 1,
            size: 65_536,
            ..SlotSize::default()
        }])
    }
}
