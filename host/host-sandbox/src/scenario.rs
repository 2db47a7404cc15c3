//! Scenarios as data: what a job brings, what an operator does, what goes wrong, and how it is to end.
//!
//! A [`Scenario`] is plain data and says nothing of seeds, agents or cuts; [`Prepared`] is one with its images made and
//! signed, which is the same for all runs of it. [`standard`] are the ones that everything is judged by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use host_cloud::service::{ImageId, MemoryImages, UpdateFile};
use host_crypto::Hasher;
use host_mcu_sim::{Behaviour, sample};
use host_runtime::agent::Command;
use host_runtime::target::trailer::Trailer;
use host_runtime::types::Version;

use crate::ailment::Spell;
use crate::ground::CutKind;
use crate::net::{Outage, Weather};
use crate::random::Random;
use crate::signer::{self, SIGNER};

mod standard;

pub use standard::{by_name, secondary, standard};

/// The product that images are for.
pub(crate) const PRODUCT: &str = "demo";

/// What is the matter with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Nothing.
    Good,
    /// The signature in the job is of other bytes.
    BadSignature,
    /// It is for another product.
    WrongProduct,
    /// Its version is the one that runs.
    SameVersion,
    /// The job does not even name it: its document has no file.
    Unreadable,
    /// It ends as soon as it is started.
    NeverStarts,
    /// It runs, and the operator's health check says no.
    Unhealthy,
    /// It ends some time after each start, in milliseconds.
    Dies(u64),
}

impl Quality {
    /// Whether it may become the committed image.
    #[must_use]
    pub fn may_be_committed(self) -> bool {
        match self {
            Self::Good => true,
            Self::BadSignature
            | Self::WrongProduct
            | Self::SameVersion
            | Self::Unreadable
            | Self::NeverStarts
            | Self::Unhealthy
            | Self::Dies(_) => false,
        }
    }

    /// Whether it may be marked for a start: the host has verified it.
    #[must_use]
    pub fn may_be_tried(self) -> bool {
        match self {
            Self::Good | Self::NeverStarts | Self::Unhealthy | Self::Dies(_) => true,
            Self::BadSignature | Self::WrongProduct | Self::SameVersion | Self::Unreadable => false,
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::BadSignature => "badly signed",
            Self::WrongProduct => "for another product",
            Self::SameVersion => "of the version that runs",
            Self::Unreadable => "named by no job",
            Self::NeverStarts => "good and does not start",
            Self::Unhealthy => "good and found unhealthy",
            Self::Dies(_) => "good and dies",
        })
    }
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of its version, which is `1.minor.0`.
    pub minor: u8,
    /// What is the matter with it.
    pub quality: Quality,
}

/// One file of the job, and the target that it is for. File 0 is the gateway's own software: its restart is a restart of
/// the process under test; the others are restarted by a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Bytes of the image, trailer included; at least 256.
    pub size_bytes: usize,
    /// What is the matter with it.
    pub quality: Quality,
    /// Settings of its target for the agent, such as `activation` = `deferred`.
    pub settings: Vec<(String, String)>,
}

/// A file of the job for a secondary MCU behind the gateway; their file ids follow those of [`Scenario::files`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McuFile {
    /// Bytes of the new image's body.
    pub body_bytes: usize,
    /// What the new image does once it runs.
    pub behaviour: Behaviour,
}

/// Versions of the images of MCUs.
pub(crate) const OLD_VERSION: &str = "1.0.0";
pub(crate) const NEW_VERSION: &str = "1.1.0";

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At an instant.
    At(u64),
    /// As soon as the agent is in this state (its number in `agent-status.state`) or, having left it, past it.
    InState(u8),
    /// So many milliseconds after the deed before.
    Then(u64),
    /// So many milliseconds after the last job has ended.
    AfterEnd(u64),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The job is cancelled; with `true` also when it has begun.
    Cancel(bool),
    /// An operator's or application's command.
    Order(Command),
    /// The service gets another job: the same files, of the next version and good.
    NextJob,
    /// A notification arrives that is not true any more: that there is no job.
    StaleHint,
    /// The wall clock jumps by so many seconds.
    JumpWall(i64),
    /// The process or the power is cut.
    Cut(CutKind),
}

/// How a run is to end, if nothing but what the scenario says goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SUCCEEDED with the new images.
    Updated,
    /// FAILED or REJECTED with the old images, and a reason that begins so.
    Kept(&'static str),
    /// Withdrawn by the service, with the old images.
    Withdrawn,
    /// Either with the new images and SUCCEEDED, or with the old ones and something else.
    Whole,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Updated => f.write_str("SUCCEEDED with the new images"),
            Self::Kept("") => f.write_str("FAILED with the old images"),
            Self::Kept(reason) => write!(f, "FAILED for `{reason}` with the old images"),
            Self::Withdrawn => f.write_str("withdrawn with the old images"),
            Self::Whole => f.write_str("with all images new, or all old"),
        }
    }
}

/// A story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Kebab-case.
    pub name: String,
    /// What it is there to show.
    pub purpose: String,
    /// What the job brings; the number of a file is its file id.
    pub files: Vec<File>,
    /// What it brings for secondary MCUs. Such a world needs [`Options::mcu_pal`](crate::Options::mcu_pal).
    pub mcus: Vec<McuFile>,
    /// Device-wide settings of the agent.
    pub settings: Vec<(String, String)>,
    /// Data and map are made durable after so many bytes.
    pub sync_bytes: u64,
    /// What an operator does, in order.
    pub deeds: Vec<(When, Deed)>,
    /// The network.
    pub weather: Weather,
    /// Times without connection or service.
    pub outages: Vec<Outage>,
    /// What ails the storage.
    pub spells: Vec<Spell>,
    /// The job offers its files by URL as well, and the agent prefers that.
    pub by_url: bool,
    /// File 0 is not the gateway's own software: it is restarted by a command as all others are, and the process under test
    /// goes on.
    pub by_command: bool,
    /// The operator's health check is asked in the self-test.
    pub health: bool,
    /// Minutes that the job may take; `None` = for ever.
    pub timeout_minutes: Option<u32>,
    /// How it ends.
    pub ending: Ending,
}

/// The smallest block of the protocol: many of them in a small image. Of every scenario that does not set `block_size`.
pub const BLOCK_BYTES: usize = 256;

/// Blocks asked for at once, unless a scenario says otherwise.
pub const WINDOW_BLOCKS: u64 = 8;

/// Virtual time within which a run has to end once nothing goes wrong any more, in milliseconds: the agent's longest
/// wait of its own is a deferral of 7 days; of all others the 30 minutes of an operation without progress, thrice.
const PATIENCE_MS: u64 = 3 * 30 * 60 * 1000;

impl Scenario {
    /// An update of one file that simply works.
    #[must_use]
    pub fn plain(name: &str, blocks: usize) -> Self {
        let pairs = |list: &[(&str, String)]| -> Vec<(String, String)> {
            list.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect()
        };
        Self {
            name: name.to_owned(),
            purpose: String::new(),
            files: vec![File {
                size_bytes: blocks * BLOCK_BYTES,
                quality: Quality::Good,
                settings: Vec::new(),
            }],
            mcus: Vec::new(),
            settings: pairs(&[
                ("block_size", BLOCK_BYTES.to_string()),
                ("blocks_per_request", WINDOW_BLOCKS.to_string()),
                ("requests_in_flight", "1".to_owned()),
            ]),
            sync_bytes: 4 * BLOCK_BYTES as u64,
            deeds: Vec::new(),
            weather: Weather::default(),
            outages: Vec::new(),
            spells: Vec::new(),
            by_url: false,
            by_command: false,
            health: true,
            timeout_minutes: None,
            ending: Ending::Updated,
        }
    }

    /// Bytes of a block, by its settings.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        let mut settings = self.settings.iter();
        let setting = settings.find(|(key, _)| key == "block_size");
        let bytes = setting.and_then(|(_, value)| value.parse().ok());
        bytes.unwrap_or(BLOCK_BYTES).max(1)
    }

    /// Blocks of files of so many bytes each.
    fn blocks_of(&self, sizes: impl Iterator<Item = usize>) -> u64 {
        let block_bytes = self.block_bytes();
        sizes.map(|size| size.div_ceil(block_bytes) as u64).sum()
    }

    /// When nothing that the scenario says goes wrong any more.
    fn fair_from_ms(&self) -> u64 {
        let outages = self.outages.iter().map(|outage| outage.until_ms);
        let spells = self.spells.iter().map(|spell| spell.until_ms);
        let spells = spells.filter(|until| *until != u64::MAX);
        let weather = (!self.weather.is_fair()).then_some(self.weather.until_ms);
        outages.chain(spells).chain(weather).max().unwrap_or(0)
    }

    /// The instant by which a run has ended.
    pub(crate) fn ends_by_ms(&self) -> u64 {
        let deeds: u64 = self
            .deeds
            .iter()
            .map(|(when, _)| match when {
                When::At(ms) | When::Then(ms) | When::AfterEnd(ms) => *ms,
                When::InState(_) => 0,
            })
            .sum();
        let jobs = self.jobs() as u64;
        let timeout = u64::from(self.timeout_minutes.unwrap_or(0)) * 60_000;
        self.fair_from_ms() + deeds + jobs * (timeout + PATIENCE_MS)
    }

    /// Jobs, if all of its deeds are done.
    #[must_use]
    pub fn jobs(&self) -> usize {
        let deeds = self.deeds.iter();
        1 + deeds.filter(|(_, deed)| *deed == Deed::NextJob).count()
    }

    /// Make the images and sign them. The same scenario gives the same bytes everywhere.
    #[must_use]
    pub fn prepare(self) -> Prepared {
        let mut images = MemoryImages::default();
        let mut files = Vec::with_capacity(self.files.len());
        let mut known = BTreeMap::new();
        for (number, file) in self.files.iter().enumerate() {
            let old = PreparedImage::new(image(number, 0, PRODUCT, OLD_IMAGE_BYTES));
            let quality = Quality::Good;
            known.insert(old.sha256, Known { minor: 0, quality });
            let mut prepared = PreparedFile {
                images: vec![old],
                updates: Vec::new(),
            };
            for generation in 1..=self.jobs() {
                let first = generation == 1;
                let quality = if first { file.quality } else { Quality::Good };
                let (minor, product) = match quality {
                    Quality::SameVersion => (0, PRODUCT),
                    Quality::WrongProduct => (1, "another"),
                    _ => (u8::try_from(generation).unwrap_or(u8::MAX), PRODUCT),
                };
                let new = PreparedImage::new(image(number, minor, product, file.size_bytes));
                let signature = signer::sign(&new.bytes, quality != Quality::BadSignature);
                let id = images.insert(new.bytes.clone());
                prepared.updates.push(UpdateFile {
                    file_id: u8::try_from(number).unwrap_or(u8::MAX),
                    image: id,
                    size: new.bytes.len() as u64,
                    file_type: Some(0),
                    file_path: "app.img".into(),
                    cert_file: SIGNER.into(),
                    signature,
                });
                known.insert(new.sha256, Known { minor, quality });
                prepared.images.push(new);
            }
            files.push(prepared);
        }
        let mut mcus = Vec::with_capacity(self.mcus.len());
        for (number, mcu) in (self.files.len()..).zip(&self.mcus) {
            let old = PreparedImage::new(sample::image(OLD_VERSION, OLD_IMAGE_BYTES));
            let new = PreparedImage::new(sample::image(NEW_VERSION, mcu.body_bytes));
            let update = UpdateFile {
                file_id: u8::try_from(number).unwrap_or(u8::MAX),
                image: images.insert(new.bytes.clone()),
                size: new.bytes.len() as u64,
                file_type: Some(0),
                file_path: "mcu.bin".into(),
                cert_file: SIGNER.into(),
                signature: signer::sign(&new.bytes, true),
            };
            mcus.push(PreparedFile {
                images: vec![old, new],
                updates: vec![update],
            });
        }
        Prepared {
            scenario: self,
            files: files.into(),
            mcus: mcus.into(),
            images: Arc::new(images),
            known: Arc::new(known),
        }
    }
}

/// The image that a target runs at first.
const OLD_IMAGE_BYTES: usize = 1000;

/// A scenario with its images.
pub struct Prepared {
    /// What it is.
    pub scenario: Scenario,
    pub(crate) files: Arc<[PreparedFile]>,
    pub(crate) mcus: Arc<[PreparedFile]>,
    pub(crate) images: Arc<MemoryImages>,
    /// Every image of this world by its digest.
    pub(crate) known: Arc<BTreeMap<[u8; 32], Known>>,
}

impl Prepared {
    /// Blocks of all files.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        let files = self.files.iter().chain(self.mcus.iter());
        self.scenario
            .blocks_of(files.map(PreparedFile::update_bytes))
    }

    /// The image of a URL's name, if there is one.
    pub(crate) fn image(&self, id: &ImageId) -> Option<&[u8]> {
        let mut files = self.files.iter().chain(self.mcus.iter());
        files.find_map(|file| {
            let at = file.updates.iter().position(|update| update.image == *id)?;
            file.images.get(at + 1).map(|image| &*image.bytes)
        })
    }

    /// Another story of the same files, with no more jobs: its images are these.
    #[must_use]
    pub fn retold(&self, scenario: Scenario) -> Self {
        Self {
            scenario,
            files: Arc::clone(&self.files),
            mcus: Arc::clone(&self.mcus),
            images: Arc::clone(&self.images),
            known: Arc::clone(&self.known),
        }
    }
}

/// An image and its digest.
pub(crate) struct PreparedImage {
    pub(crate) bytes: Bytes,
    pub(crate) sha256: [u8; 32],
}

impl PreparedImage {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            sha256: digest(&bytes),
            bytes: bytes.into(),
        }
    }
}

/// A file in all its generations.
pub(crate) struct PreparedFile {
    /// The image that runs at first, and that of each job.
    pub(crate) images: Vec<PreparedImage>,
    /// What each job says of its image.
    pub(crate) updates: Vec<UpdateFile>,
}

impl PreparedFile {
    /// The image that runs at first.
    pub(crate) fn old(&self) -> &PreparedImage {
        &self.images[0]
    }

    /// SHA-256 of bytes, which mostly are one of these images.
    pub(crate) fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let known = self.images.iter().find(|image| image.bytes == bytes);
        known.map_or_else(|| digest(bytes), |image| image.sha256)
    }

    /// Length of what a job brings, in bytes: that of every job.
    fn update_bytes(&self) -> usize {
        self.images.last().map_or(0, |image| image.bytes.len())
    }
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    *hasher.finish().sha256()
}

/// An image: payload from its number and version, and the trailer.
fn image(number: usize, minor: u8, product: &str, size_bytes: usize) -> Vec<u8> {
    let trailer = |payload_bytes: usize| Trailer {
        version: Version {
            major: 1,
            minor,
            ..Version::default()
        },
        product: product.into(),
        hardware: String::new(),
        payload_bytes: payload_bytes as u64,
    };
    let payload_bytes = size_bytes.saturating_sub(host_runtime::target::trailer::TRAILER_BYTES);
    let seed = (number as u64) << 8 | u64::from(minor);
    let mut bytes = Random::stream(seed, "image").bytes(payload_bytes);
    // A product of this module's own fits.
    if let Ok(tail) = trailer(payload_bytes).encode() {
        bytes.extend_from_slice(&tail);
    }
    bytes
}
