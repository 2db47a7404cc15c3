//! The durable record of a target: the transfer under way, with its phase, and where the last committed image lies.
//!
//! One small file of JSON, a value a line: the record as a whole, then what has changed since, as merge patches (RFC
//! 7396). A transfer is some ten changes of a few bytes to a record of a kilobyte; the file is written anew where it
//! gets too long, and where it was torn. It is written before a phase is entered whose effects outlive this process (so that a
//! restart finds at least what was begun), and after one whose effects are needed for it. A torn last line is a change
//! that nobody was told of; anything else that cannot be read is damage. The locks on lent storage follow from the record
//! alone, so they hold across restarts.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::{RECORD, state_name};
use super::serial;
use super::verified_record::VerifiedImage;
use crate::ports::state_dir::StateDir;
use crate::types::{Blob, FileSpec, ImageInfo};

/// Encoding of the file. Within one, fields are only added, with a default: a build before reads what this one wrote.
const FORMAT: u32 = 2;

/// The oldest encoding that is read: one value, with the signature as a list of numbers.
const FORMAT_MIN: u32 = 1;

/// The file is written anew when it would get longer, in bytes: some three transfers.
const FILE_MAX_BYTES: usize = 4096;

/// What is known of a target across restarts. Held three times over, and mostly by targets that have neither: what may be
/// missing lies elsewhere, and is shared by those who hold the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetRecord {
    /// Encoding.
    #[serde(default)]
    pub(super) format: u32,
    /// Transfers so far; the number of the next one.
    #[serde(default)]
    pub(super) transfers: u64,
    /// The last image that was committed here.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serial::shared"
    )]
    pub(super) committed: Option<Arc<Committed>>,
    /// The transfer under way, or the last one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serial::shared"
    )]
    pub(super) transfer: Option<Arc<TransferRecord>>,
}

/// The last committed image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    /// The slots that hold it (direct targets): never written, never erased.
    #[serde(default)]
    pub(super) regions: Vec<String>,
    /// What it is.
    pub(super) image: VerifiedImage,
    /// What it says it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) product: Option<String>,
}

impl Committed {
    /// As the report shows it.
    pub(super) fn info(&self) -> ImageInfo {
        ImageInfo {
            size: self.image.size,
            sha256: self.image.sha256,
            version: self.image.version,
            product: self.product.clone(),
            signer: self.image.signer.clone(),
        }
    }
}

/// A transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TransferRecord {
    /// Its number: a block map of another number is not its map.
    pub(super) number: u64,
    /// What the job document says.
    pub(super) spec: FileSpec,
    /// Where its bytes lie (direct targets), in the order of the file.
    #[serde(default)]
    pub(super) extents: Vec<StoredExtent>,
    /// How far it is.
    pub(super) phase: Phase,
    /// What was verified, from phase [`Phase::Verified`] on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<StoredImage>,
    /// What the plugin's last `suspend` said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<StoredBlob>,
}

/// A run of bytes in a region, by the region's name: numbers change when an operator adds a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredExtent {
    pub(super) region: String,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A verified image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredImage {
    #[serde(flatten)]
    pub(super) image: VerifiedImage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) product: Option<String>,
}

/// Saved state of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredBlob {
    pub(super) schema: u32,
    #[serde(with = "serial::hex")]
    pub(super) bytes: Vec<u8>,
}

impl TargetRecord {
    /// The transfer, to be changed: whoever else holds this one keeps it as it is.
    pub(super) fn transfer_mut(&mut self) -> Option<&mut TransferRecord> {
        self.transfer.as_mut().map(Arc::make_mut)
    }
}

impl From<&Blob> for StoredBlob {
    fn from(blob: &Blob) -> Self {
        Self {
            schema: blob.schema,
            bytes: blob.bytes.clone(),
        }
    }
}

impl From<&StoredBlob> for Blob {
    fn from(blob: &StoredBlob) -> Self {
        Self {
            schema: blob.schema,
            bytes: blob.bytes.clone(),
        }
    }
}

/// How far a transfer is. The order is the order of a good update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// The plugin is asked for room, the slot is erased. Cannot be reopened.
    Creating,
    /// Blocks are taken; the only phase in which the extents may be written.
    Receiving,
    /// Complete and locked, perhaps not verified yet.
    Closed,
    /// Read back and verified.
    Verified,
    /// In the target, marked nowhere.
    Installed,
    /// Perhaps marked for the next boot.
    Activating,
    /// Marked for the next boot, or running in test.
    Activated,
    /// Perhaps permanent.
    Committing,
    /// Permanent.
    Committed,
    /// Perhaps on the way back.
    Rejecting,
    /// Gone back, or never run.
    Rejected,
}

impl Phase {
    /// As reports and logs name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Receiving => "receiving",
            Self::Closed => "closed",
            Self::Verified => "verified",
            Self::Installed => "installed",
            Self::Activating => "activating",
            Self::Activated => "activated",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Rejecting => "rejecting",
            Self::Rejected => "rejected",
        }
    }

    /// Something permanent was said about the image: nothing is left to be done with its transfer.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Committed | Self::Rejected)
    }

    /// The new image is, or may be, what boots next or runs, and nothing permanent was said about it: neither thrown
    /// away nor overwritten until the target says where it stands.
    pub(super) fn in_test(self) -> bool {
        match self {
            Self::Activating | Self::Activated | Self::Committing | Self::Rejecting => true,
            Self::Creating
            | Self::Receiving
            | Self::Closed
            | Self::Verified
            | Self::Installed
            | Self::Committed
            | Self::Rejected => false,
        }
    }
}

/// Read a target's record; none is an empty one.
pub(super) fn load(state: &dyn StateDir, device: &str, target: &str) -> io::Result<TargetRecord> {
    Ok(load_to_write(state, device, target)?.0)
}

/// As [`load`], for whoever will write to it.
pub(super) fn load_to_write(
    state: &dyn StateDir,
    device: &str,
    target: &str,
) -> io::Result<(TargetRecord, Memo)> {
    let Some(bytes) = state.load(&state_name(device, target, RECORD))? else {
        return Ok(Default::default());
    };
    let (said, is_whole) = replay(&bytes)?;
    if !is_whole {
        tracing::info!(
            device,
            target,
            "`{RECORD}` ends with half a line, which counts for nothing"
        );
    }
    let record = TargetRecord::deserialize(&said)?;
    if !(FORMAT_MIN..=FORMAT).contains(&record.format) {
        let (format, detail) = (record.format, "this build reads");
        return Err(invalid(format!(
            "format {format}, {detail} {FORMAT_MIN} to {FORMAT}"
        )));
    }
    // What another build has written may say more than this one knows of, or say it otherwise.
    let is_ours = is_whole && value(&record)? == said;
    let memo = is_ours.then(|| (bytes, record.clone()));
    Ok((record, Memo(memo)))
}

/// What a file of these bytes says: who writes it again and again need not read it again and again. Whatever else has
/// written to it meanwhile, it is not mistaken for what it was.
#[derive(Debug, Default)]
pub(super) struct Memo(Option<(Vec<u8>, TargetRecord)>);

impl Memo {
    /// The line that makes a file of these bytes say `record`; none where something could not be written behind it, or
    /// it says that already.
    fn change(&mut self, there: &[u8], record: &TargetRecord) -> io::Result<Option<Vec<u8>>> {
        let patch = match self.0.take() {
            Some((bytes, said)) if bytes == there => patch(&said, record)?,
            Some(_) | None => match replay(there) {
                Ok((said, true)) => difference(&said, &value(record)?),
                Ok((_, false)) | Err(_) => None,
            },
        };
        patch.as_ref().map(line).transpose()
    }
}

/// Write a target's record down; durable when it returns.
pub(super) fn store(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    record: &TargetRecord,
    memo: &mut Memo,
) -> io::Result<()> {
    let name = state_name(device, target, RECORD);
    let record = TargetRecord {
        format: FORMAT,
        ..record.clone()
    };
    // What cannot be read now is replaced; whoever loads it hears of the damage.
    let mut there = state.load(&name).ok().flatten().unwrap_or_default();
    // Where it says this already, that is perhaps not on the medium.
    if let Some(change) = memo.change(&there, &record)?
        && there.len() + change.len() <= FILE_MAX_BYTES
        && is_shorter(&change, &record)?
        && state.append(&name, &change, true).is_ok()
    {
        there.extend(change);
        memo.0 = Some((there, record));
        return Ok(());
    }
    let whole = line(&record)?;
    state.store(&name, &whole)?;
    memo.0 = Some((whole, record));
    Ok(())
}

/// Whether a line is shorter than the record as a whole. That is mostly seen by what the record has at least: names, and a
/// signature in hexadecimal.
fn is_shorter(change: &[u8], record: &TargetRecord) -> io::Result<bool> {
    let least = record.transfer.as_ref().map_or(0, |transfer| {
        transfer.spec.job_id.len() + 2 * transfer.spec.signature.len()
    });
    Ok(change.len() < least || change.len() < line(record)?.len())
}

/// The merge patch that makes one record of another; none where they are the same. It is [`difference`] of what is
/// written of both, without writing what has not changed.
fn patch(old: &TargetRecord, new: &TargetRecord) -> io::Result<Option<Value>> {
    let TargetRecord {
        format,
        transfers,
        committed,
        transfer,
    } = new;
    let mut patch = Patch::default();
    patch.member("format", &old.format, format)?;
    patch.member("transfers", &old.transfers, transfers)?;
    patch.member(
        "committed",
        &old.committed.as_deref(),
        &committed.as_deref(),
    )?;
    match (&old.transfer, transfer) {
        (Some(old), Some(new)) => patch.put("transfer", patch_of_transfer(old, new)?),
        _ => patch.member("transfer", &old.transfer.as_deref(), &transfer.as_deref())?,
    }
    Ok(patch.whole())
}

fn patch_of_transfer(old: &TransferRecord, new: &TransferRecord) -> io::Result<Option<Value>> {
    let TransferRecord {
        number,
        spec,
        extents,
        phase,
        image,
        blob,
    } = new;
    let mut patch = Patch::default();
    patch.member("number", &old.number, number)?;
    patch.member("spec", &old.spec, spec)?;
    patch.member("extents", &old.extents, extents)?;
    patch.member("phase", &old.phase, phase)?;
    patch.member("image", &old.image, image)?;
    patch.member("blob", &old.blob, blob)?;
    Ok(patch.whole())
}

/// A merge patch in the making. What it takes away stands before what it sets.
#[derive(Default)]
struct Patch {
    gone: Map<String, Value>,
    set: Map<String, Value>,
}

impl Patch {
    /// What has become of a member.
    fn member<T: Serialize + PartialEq>(&mut self, key: &str, old: &T, new: &T) -> io::Result<()> {
        if old == new {
            return Ok(());
        }
        match (value(old)?, value(new)?) {
            (_, Value::Null) => {
                self.gone.insert(key.to_owned(), Value::Null);
            }
            (Value::Null, new) => self.put(key, Some(new)),
            (old, new) => self.put(key, difference(&old, &new)),
        }
        Ok(())
    }

    fn put(&mut self, key: &str, change: Option<Value>) {
        if let Some(change) = change {
            self.set.insert(key.to_owned(), change);
        }
    }

    fn whole(self) -> Option<Value> {
        let Self { mut gone, set } = self;
        gone.extend(set);
        (!gone.is_empty()).then_some(Value::Object(gone))
    }
}

/// What is written of something.
fn value<T: Serialize>(of: &T) -> io::Result<Value> {
    Ok(serde_json::to_value(of)?)
}

fn line<T: Serialize>(of: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(of)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn invalid(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

/// What the lines say together, and whether the file ends with a whole one.
fn replay(bytes: &[u8]) -> io::Result<(Value, bool)> {
    let mut first = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let mut said = match first.next() {
        Some(value) => value?,
        None => return Err(invalid("it is empty".to_owned())),
    };
    let changes = bytes.get(first.byte_offset()..).unwrap_or_default();
    let mut lines = changes.split(|byte| *byte == b'\n').peekable();
    while let Some(change) = lines.next() {
        let is_last = lines.peek().is_none();
        if change.is_empty() {
            continue;
        }
        match serde_json::from_slice(change) {
            Ok(patch @ Value::Object(_)) if !is_last => merge(&mut said, patch),
            // Without its end it was not written, whatever it says.
            _ if is_last || lines.clone().all(<[u8]>::is_empty) => return Ok((said, false)),
            Ok(_) => return Err(invalid("a change is no object".to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((said, true))
}

/// Apply a merge patch: `null` takes a member away.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(members), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    members.remove(&key);
                } else {
                    merge(members.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

/// The merge patch that makes `new` of `old`; none where they are the same. Neither has a member that is `null`: to leave
/// it out says the same.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = serde_json::Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        let change = match before.get(key) {
            Some(old) => difference(old, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests;
