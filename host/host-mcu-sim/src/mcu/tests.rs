//! The whole MCU over its line in virtual time: what real servers were seen to do, and every fault, each once.

mod faults;
mod life;
mod line;
mod uploads;

use smp_core::code::Refusal;
use smp_core::console;
use smp_core::frame::Framing;
use smp_core::header::{Header, Version};
use smp_core::reply::{ImageState, Reply};
use smp_core::request::{Request, Upload};

use super::*;
use crate::config::{Factory, Timing};
use crate::fault::Effect;
use crate::flash::Geometry;
use crate::profile::Profile;
use crate::sample;

const OLD: &str = "1.0.0";
const NEW: &str = "2.0.0";
/// Longest wait for an answer.
const PATIENCE_NS: u64 = 3_000 * MS;

fn config() -> Config {
    let mut config = Config::new(Geometry::new(1024, 16 * 1024, 1).unwrap());
    config.factory = Factory {
        primary: vec![sample::image(OLD, 3000)],
        secondary: Vec::new(),
    };
    config
}

fn config_of(profile: Profile) -> Config {
    Config {
        server: profile,
        ..config()
    }
}

/// A client that asks one thing at a time and believes nothing but answers.
struct Desk {
    mcu: Mcu,
    now_ns: u64,
    sequence: u8,
    version: Version,
    decoder: console::Decoder,
    /// Everything that came, for who looks at the line itself.
    seen: Vec<u8>,
}

impl Desk {
    fn new(config: Config) -> Self {
        let mut desk = Self {
            mcu: Mcu::new(config).unwrap(),
            now_ns: 0,
            sequence: 0,
            version: Version::V2,
            decoder: console::Decoder::new(4096),
            seen: Vec::new(),
        };
        desk.wait_up();
        desk
    }

    /// Goes on until the MCU does something lasting again.
    fn wait_up(&mut self) {
        for _ in 0..10_000 {
            self.mcu.transmit(self.now_ns, &mut self.seen);
            if !matches!(self.mcu.state(), State::Starting | State::Off) {
                break;
            }
            let Some(at_ns) = self.mcu.deadline_ns() else {
                break;
            };
            self.now_ns = self.now_ns.max(at_ns);
            self.mcu.advance(self.now_ns);
        }
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.mcu.advance(self.now_ns);
    }

    fn packet(&mut self, request: &Request<'_>) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        request.encode(self.version, self.sequence)
    }

    /// The next packet that the MCU sends, within so long.
    fn next_packet(&mut self, within_ns: u64) -> Option<Vec<u8>> {
        let end_ns = self.now_ns + within_ns;
        loop {
            let mut bytes = Vec::new();
            self.mcu.transmit(self.now_ns, &mut bytes);
            self.seen.extend_from_slice(&bytes);
            let mut packets = Vec::new();
            self.decoder.push(&bytes, &mut packets);
            if let Some(packet) = packets.pop() {
                assert!(packets.is_empty(), "two answers at one instant");
                return Some(packet);
            }
            let at_ns = self.mcu.deadline_ns().filter(|at_ns| *at_ns <= end_ns);
            let Some(at_ns) = at_ns else {
                self.now_ns = end_ns;
                self.mcu.advance(end_ns);
                return None;
            };
            self.now_ns = self.now_ns.max(at_ns);
        }
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.mcu.receive(self.now_ns, bytes);
    }

    fn send(&mut self, request: &Request<'_>) {
        let packet = self.packet(request);
        self.send_bytes(&console::encode(&packet));
    }

    fn try_ask(&mut self, request: &Request<'_>) -> Option<Reply> {
        self.send(request);
        let packet = self.next_packet(PATIENCE_NS)?;
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.sequence, self.sequence);
        Some(Reply::decode(&header, header.payload(&packet).unwrap()).unwrap())
    }

    fn ask(&mut self, request: &Request<'_>) -> Reply {
        self.try_ask(request).expect("an answer")
    }

    fn refusal(&mut self, request: &Request<'_>) -> Refusal {
        match self.ask(request) {
            Reply::Refused(refusal) => refusal,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    fn images(&mut self) -> Vec<ImageState> {
        match self.ask(&Request::Images) {
            Reply::Images(images) => images,
            other => panic!("{other:?}"),
        }
    }

    /// The list as the reference's table writes it: `0:1.0.0 AC | 1:2.0.0 P`.
    fn list(&mut self) -> String {
        let one = |state: ImageState| {
            let flags = [
                (state.active, 'A'),
                (state.confirmed, 'C'),
                (state.pending, 'P'),
                (state.permanent, '!'),
            ];
            let flags: String = flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, letter)| *letter)
                .collect();
            format!("{}:{} {flags}", state.slot, state.version)
        };
        let entries: Vec<String> = self.images().into_iter().map(one).collect();
        entries.join(" | ")
    }

    fn hash_of(&mut self, slot: u32) -> Vec<u8> {
        let images = self.images();
        images
            .into_iter()
            .find(|image| image.slot == slot)
            .unwrap()
            .hash
    }

    fn upload_piece(&mut self, file: &[u8], offset: usize, count: usize) -> Reply {
        let end = file.len().min(offset + count);
        let sha = smp_core::mcuboot::sha256(file);
        let first = offset == 0;
        self.ask(&Request::Upload(Upload {
            offset: Some(offset as u64),
            data: Some(&file[offset..end]),
            size: first.then_some(file.len() as u64),
            sha: first.then_some(&sha),
            image: None,
            upgrade: false,
        }))
    }

    /// Uploads it all; the last answer's `match`.
    fn upload(&mut self, file: &[u8]) -> Option<bool> {
        let mut offset = 0;
        loop {
            match self.upload_piece(file, offset, 256) {
                Reply::Upload {
                    offset: next,
                    matches,
                } => {
                    offset = usize::try_from(next).unwrap();
                    if offset >= file.len() {
                        return matches;
                    }
                }
                other => panic!("at {offset}: {other:?}"),
            }
        }
    }

    fn mark(&mut self, hash: &[u8], confirm: bool) -> Reply {
        self.ask(&Request::State {
            hash: Some(hash),
            confirm,
        })
    }

    fn confirm(&mut self) -> Reply {
        self.ask(&Request::State {
            hash: None,
            confirm: true,
        })
    }

    fn reset(&mut self) {
        let answer = self.try_ask(&RESET);
        assert_eq!(answer, Some(Reply::Nothing));
        self.pass(300 * MS);
        self.wait_up();
    }

    /// Uploads, marks for test and resets into it.
    fn try_image(&mut self, file: &[u8]) {
        self.upload(file);
        let hash = self.hash_of(1);
        self.mark(&hash, false);
        self.reset();
    }
}

const RESET: Request<'static> = Request::Reset {
    force: false,
    boot_mode: None,
};
