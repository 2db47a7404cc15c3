//! The pieces of saved states: a writer and a reader of compact CBOR arrays, and the words that journal and snapshot
//! have in common.
//!
//! Schema 1. A field is never moved or re-used: whatever changes here is another schema. What is read is as hostile as
//! a network: a blob that does not fit is refused as a whole.

use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, CborError, Major};
use crate::document::{FileEntry, Signature, SignatureKind};
use crate::jobs::{ClientToken, CustomResult, JobId, Reason, Status, StreamId, VersionWord};
use crate::types::{ApplicationEvent, Failure, TargetState, Version};

use super::job::{Ending, FilePhase, Job, JobFile, Stage};
use super::ops::{Doing, Duty};

/// A blob that is not what its schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl From<CborError> for Damaged {
    fn from(_: CborError) -> Self {
        Self
    }
}

pub(super) type Read<T> = Result<T, Damaged>;

/// Writes compact CBOR: flags as 0 and 1, an option as an array of none or one.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(256))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn array(&mut self, len: usize) -> &mut Self {
        cbor::push_array(&mut self.0, len as u64);
        self
    }

    pub(super) fn uint(&mut self, value: u64) -> &mut Self {
        cbor::push_unsigned(&mut self.0, value);
        self
    }

    pub(super) fn flag(&mut self, value: bool) -> &mut Self {
        self.uint(value.into())
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        cbor::push_text(&mut self.0, value);
        self
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        cbor::push_bytes(&mut self.0, value);
        self
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.array(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.array(items.len());
        for item in items {
            write(self, item);
        }
    }

    pub(super) fn option_uint(&mut self, value: Option<u64>) {
        self.option(value, |w, value| {
            w.uint(value);
        });
    }
}

/// Reads what [`Writer`] wrote.
pub(super) struct Reader<'b>(cbor::Reader<'b>);

impl<'b> Reader<'b> {
    pub(super) const fn new(bytes: &'b [u8]) -> Self {
        Self(cbor::Reader::new(bytes))
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn array(&mut self, len: u64) -> Read<()> {
        if self.len()? == len {
            Ok(())
        } else {
            Err(Damaged)
        }
    }

    fn len(&mut self) -> Read<u64> {
        self.0.enter(Major::Array)?.count().ok_or(Damaged)
    }

    pub(super) fn uint(&mut self) -> Read<u64> {
        Ok(self.0.unsigned()?)
    }

    pub(super) fn uint32(&mut self) -> Read<u32> {
        u32::try_from(self.uint()?).map_err(|_| Damaged)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        u8::try_from(self.uint()?).map_err(|_| Damaged)
    }

    pub(super) fn flag(&mut self) -> Read<bool> {
        match self.uint()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }

    pub(super) fn text(&mut self) -> Read<String> {
        Ok(self.0.text()?.into_owned())
    }

    pub(super) fn bytes(&mut self) -> Read<Vec<u8>> {
        Ok(self.0.bytes()?.into_owned())
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.len()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Damaged),
        }
    }

    pub(super) fn list<T>(&mut self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        // Not reserved ahead: the count is only as true as the bytes behind it.
        let mut items = Vec::new();
        for _ in 0..self.len()? {
            items.push(read(self)?);
        }
        Ok(items)
    }

    pub(super) fn option_uint(&mut self) -> Read<Option<u64>> {
        self.option(Self::uint)
    }

    /// One of a list of constants, by its place.
    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> Read<T> {
        all.get(usize::from(self.byte()?)).copied().ok_or(Damaged)
    }
}

pub(super) fn write_version(w: &mut Writer, version: Version) {
    w.array(2)
        .uint(version.word().into())
        .uint(version.build.into());
}

pub(super) fn read_version(r: &mut Reader<'_>) -> Read<Version> {
    r.array(2)?;
    let word = r.uint32()?;
    Ok(Version {
        build: r.uint32()?,
        ..Version::from_word(word)
    })
}

pub(super) fn write_failure(w: &mut Writer, failure: &Failure) {
    w.array(3)
        .uint(failure.main.into())
        .uint(failure.sub.into())
        .text(&failure.detail);
}

pub(super) fn read_failure(r: &mut Reader<'_>) -> Read<Failure> {
    r.array(3)?;
    let main = r.byte()?;
    let sub = r.uint32()?;
    Ok(Failure::new(main, sub, &r.text()?))
}

pub(super) fn write_token(w: &mut Writer, token: ClientToken) {
    w.array(2).uint(token.number).uint(token.seed.into());
}

pub(super) fn read_token(r: &mut Reader<'_>) -> Read<ClientToken> {
    r.array(2)?;
    Ok(ClientToken {
        number: r.uint()?,
        seed: r.uint32()?,
    })
}

pub(super) fn read_job_id(r: &mut Reader<'_>) -> Read<JobId> {
    JobId::new(&r.text()?).map_err(|_| Damaged)
}

pub(super) fn write_status(w: &mut Writer, status: &Status) {
    let two = |w: &mut Writer, kind: u64, a: u32, b: u32| {
        w.array(3).uint(kind).uint(a.into()).uint(b.into());
    };
    match status {
        Status::Receiving { received, total } => two(w, 0, *received, *total),
        Status::SelfTestReady(version) => two(w, 1, version.0, 0),
        Status::SelfTestActive(version) => two(w, 2, version.0, 0),
        Status::Accepted {
            running,
            updated_by,
        } => two(w, 3, running.0, updated_by.0),
        Status::AcceptedFile { file_type } => two(w, 4, *file_type, 0),
        Status::Rejected { code } => two(w, 5, *code, 0),
        Status::Aborted { code } => two(w, 6, *code, 0),
        Status::Failed { main, sub } => two(w, 7, *main, *sub),
        Status::Declined(reason) => {
            w.array(3).uint(8).uint(0).text(reason.as_str());
        }
        Status::Custom(result) => {
            w.array(3).uint(9).uint(custom_number(result).into());
            w.list(result.details(), |w, (key, value)| {
                w.array(2).text(key).text(value);
            });
        }
    }
}

fn custom_number(result: &CustomResult) -> u8 {
    use crate::jobs::CustomStatus;
    match result.status() {
        CustomStatus::InProgress => 0,
        CustomStatus::Failed => 1,
        CustomStatus::Succeeded => 2,
        CustomStatus::Rejected => 3,
    }
}

pub(super) fn read_status(r: &mut Reader<'_>) -> Read<Status> {
    r.array(3)?;
    let kind = r.uint()?;
    let a = r.uint32()?;
    Ok(match kind {
        8 => Status::Declined(Reason::new(&r.text()?).map_err(|_| Damaged)?),
        9 => {
            let number = u8::try_from(a).map_err(|_| Damaged)?;
            let details = r.list(|r| {
                r.array(2)?;
                Ok((r.text()?, r.text()?))
            })?;
            Status::Custom(CustomResult::new(number, details).map_err(|_| Damaged)?)
        }
        _ => read_plain_status(kind, a, r.uint32()?)?,
    })
}

fn read_plain_status(kind: u64, a: u32, b: u32) -> Read<Status> {
    Ok(match kind {
        0 => Status::Receiving {
            received: a,
            total: b,
        },
        1 => Status::SelfTestReady(VersionWord(a)),
        2 => Status::SelfTestActive(VersionWord(a)),
        3 => Status::Accepted {
            running: VersionWord(a),
            updated_by: VersionWord(b),
        },
        4 => Status::AcceptedFile { file_type: a },
        5 => Status::Rejected { code: a },
        6 => Status::Aborted { code: a },
        7 => Status::Failed { main: a, sub: b },
        _ => return Err(Damaged),
    })
}

pub(super) fn write_ending(w: &mut Writer, ending: &Ending) {
    w.array(2);
    write_status(w, &ending.status);
    w.option(ending.failure.as_ref(), write_failure);
}

pub(super) fn read_ending(r: &mut Reader<'_>) -> Read<Ending> {
    r.array(2)?;
    Ok(Ending {
        status: read_status(r)?,
        failure: r.option(read_failure)?,
    })
}

/// What survives a power cut of a file.
fn write_file(w: &mut Writer, file: &JobFile) {
    w.array(11);
    w.uint(file.id.into())
        .uint(file.file_type.into())
        .flag(file.firmware);
    w.uint(file.phase as u64);
    w.option(file.image, write_version);
    w.option(file.old, write_version);
    w.uint(file.tries.into())
        .flag(file.approved)
        .flag(file.tested)
        .flag(file.ran);
    w.flag(file.reopen);
}

fn read_file(r: &mut Reader<'_>) -> Read<JobFile> {
    r.array(11)?;
    let mut file = JobFile::new(r.uint32()?, r.uint32()?, r.flag()?);
    file.phase = r.one_of(&FilePhase::ALL)?;
    file.image = r.option(read_version)?;
    file.old = r.option(read_version)?;
    file.tries = r.uint32()?;
    file.approved = r.flag()?;
    file.tested = r.flag()?;
    file.ran = r.flag()?;
    file.reopen = r.flag()?;
    Ok(file)
}

/// What survives a power cut of a job.
pub(super) fn write_job(w: &mut Writer, job: &Job) {
    w.array(8);
    w.option(job.id.as_ref(), |w, id| {
        w.text(id.as_str());
    });
    w.uint(job.stage as u64);
    w.list(&job.files, write_file);
    w.uint(job.block_size.into());
    w.option(job.ending.as_ref(), write_ending);
    w.flag(job.withdrawn)
        .uint(job.updated_by.0.into())
        .uint(job.starts.into());
}

pub(super) fn read_job(r: &mut Reader<'_>) -> Read<Job> {
    r.array(8)?;
    let id = r.option(read_job_id)?;
    let stage = r.one_of(&Stage::ALL)?;
    let files = r.list(read_file)?;
    let mut job = Job::new(id, stage, r.uint32()?);
    job.files = files;
    job.ending = r.option(read_ending)?;
    job.withdrawn = r.flag()?;
    job.updated_by = VersionWord(r.uint32()?);
    job.starts = r.uint32()?;
    // A report without an end to report cannot go on.
    let reports = matches!(stage, Stage::Report | Stage::Commit | Stage::Custom);
    if reports && job.ending.is_none() {
        Err(Damaged)
    } else {
        Ok(job)
    }
}

pub(super) fn write_entry(w: &mut Writer, entry: &FileEntry) {
    w.array(8)
        .uint(entry.file_id.into())
        .uint(entry.size)
        .text(&entry.path);
    w.text(&entry.certificate);
    w.option(entry.signature.as_ref(), |w, signature| {
        w.array(2)
            .text(signature.kind.key())
            .bytes(&signature.bytes);
    });
    w.uint(entry.attributes.into()).uint(entry.file_type.into());
    w.option(entry.url.as_ref(), |w, url| {
        w.text(url);
    });
}

pub(super) fn read_entry(r: &mut Reader<'_>) -> Read<FileEntry> {
    r.array(8)?;
    Ok(FileEntry {
        file_id: r.uint32()?,
        size: r.uint()?,
        path: r.text()?,
        certificate: r.text()?,
        signature: r.option(|r| {
            r.array(2)?;
            let key = r.text()?;
            let kind = kinds()
                .into_iter()
                .find(|kind| kind.key() == key)
                .ok_or(Damaged)?;
            Ok(Signature {
                kind,
                bytes: r.bytes()?,
            })
        })?,
        attributes: r.uint32()?,
        file_type: r.uint32()?,
        url: r.option(Reader::text)?,
        // Never used: pre-signed URLs carry their authentication.
        auth_scheme: None,
    })
}

const fn kinds() -> [SignatureKind; 4] {
    [
        SignatureKind::Sha256Ecdsa,
        SignatureKind::Sha256Rsa,
        SignatureKind::Sha1Rsa,
        SignatureKind::Sha1Ecdsa,
    ]
}

pub(super) fn read_stream(r: &mut Reader<'_>) -> Read<StreamId> {
    StreamId::new(&r.text()?).map_err(|_| Damaged)
}

/// An event; `document` is written only where the caller says so.
pub(super) fn write_event(w: &mut Writer, event: &ApplicationEvent, document: bool) {
    w.array(6).uint(event.kind.into());
    w.option(event.job_id.as_ref(), |w, id| {
        w.text(id);
    });
    w.option_uint(event.file.map(u64::from));
    w.option(event.failure.as_ref(), write_failure);
    w.option(event.version, write_version);
    w.bytes(if document { &event.document } else { &[] });
}

pub(super) fn read_event(r: &mut Reader<'_>) -> Read<ApplicationEvent> {
    r.array(6)?;
    Ok(ApplicationEvent {
        sequence: 0,
        kind: r.uint32()?,
        job_id: r.option(Reader::text)?,
        file: r.option(Reader::uint32)?,
        failure: r.option(read_failure)?,
        version: r.option(read_version)?,
        document: r.bytes()?,
    })
}

pub(super) fn write_state(w: &mut Writer, state: TargetState) {
    w.array(3).uint(state.code.into());
    w.option(state.running, write_version);
    w.option(state.runs_new, |w, new| {
        w.flag(new);
    });
}

pub(super) fn read_state(r: &mut Reader<'_>) -> Read<TargetState> {
    r.array(3)?;
    Ok(TargetState {
        code: r.byte()?,
        running: r.option(read_version)?,
        runs_new: r.option(Reader::flag)?,
    })
}

pub(super) fn write_doing(w: &mut Writer, doing: Doing) {
    let (kind, a, b) = match doing {
        Doing::Subscribe(id) => (0, id, 0),
        Doing::Unsubscribe => (1, 0, 0),
        Doing::Ask => (2, 0, 0),
        Doing::Status => (3, 0, 0),
        Doing::Progress => (4, 0, 0),
        Doing::Blocks => (5, 0, 0),
        Doing::Write(file, index) => (6, file, index),
        Doing::Duty(file, duty) => (7, file, duty as u32),
        Doing::Journal => (8, 0, 0),
    };
    w.array(3).uint(kind).uint(a.into()).uint(b.into());
}

pub(super) fn read_doing(r: &mut Reader<'_>) -> Read<Doing> {
    r.array(3)?;
    let (kind, a, b) = (r.uint()?, r.uint32()?, r.uint32()?);
    Ok(match kind {
        0 => Doing::Subscribe(a),
        1 => Doing::Unsubscribe,
        2 => Doing::Ask,
        3 => Doing::Status,
        4 => Doing::Progress,
        5 => Doing::Blocks,
        6 => Doing::Write(a, b),
        7 => Doing::Duty(a, *Duty::ALL.get(b as usize).ok_or(Damaged)?),
        8 => Doing::Journal,
        _ => return Err(Damaged),
    })
}
