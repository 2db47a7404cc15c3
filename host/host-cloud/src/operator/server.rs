//! One operator's session: a line is read, answered, and the next one read.
//!
//! Not here: who may have one; that is `socket` and `remote`.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    Operator,
    local::to_value,
    wire::{Answer, AnswerBody, ImageInput, Op, REQUEST_BYTES_MAX, Refusal, Request, VERSION},
};
use crate::{error::CloudError, service::JobId};

/// Images that a connection may hold in the cloud: the files of some updates.
const PINS_MAX: usize = 64;

/// Where an operator is: what it may ask for differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// On this machine, as the user that the cloud runs as.
    Socket,
    /// Anywhere, with the token. The cloud's files are not its.
    Token,
}

/// Serves one operator until it leaves.
pub(super) async fn session(
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    operator: &Operator,
    origin: Origin,
) -> std::io::Result<()> {
    // What it has sent stays as long as it does, or a stream names it.
    let mut pins = Vec::new();
    loop {
        let line = match read_line(reader, REQUEST_BYTES_MAX).await? {
            Line::Whole(line) => line,
            Line::End => return Ok(()),
            Line::TooLong => {
                let message = format!("a request line has at most {REQUEST_BYTES_MAX} bytes");
                let refused = AnswerBody::Error(refusal("bad_request", message));
                write(writer, refused).await?;
                return Ok(());
            }
        };
        let op = match parse(&line) {
            Ok(op) => op,
            Err(refused) => {
                write(writer, AnswerBody::Error(refused)).await?;
                continue;
            }
        };
        match op {
            Op::Watch { job_id } => watch_job(reader, writer, operator, &job_id).await?,
            Op::PutImage { .. } if pins.len() >= PINS_MAX => {
                let message = format!("a connection sends at most {PINS_MAX} images");
                return write(writer, AnswerBody::Error(refusal("limit", message))).await;
            }
            Op::PutImage { size, sha256 } => {
                match operator.receive_image(reader, size, sha256).await {
                    Ok((stored, pin)) => {
                        pins.push(pin);
                        write(writer, AnswerBody::Ok(to_value(stored))).await?;
                    }
                    Err(error) => {
                        // Some of its bytes may still come: they are no requests.
                        let refused = AnswerBody::Error(Refusal::from(&error));
                        return write(writer, refused).await;
                    }
                }
            }
            op => match refused_there(&op, origin) {
                Some(refused) => write(writer, AnswerBody::Error(refused)).await?,
                None => write(writer, answer(operator, op).await).await?,
            },
        }
    }
}

/// What only an operator on this machine may ask for: the cloud would read a file for it that it may not read itself.
fn refused_there(op: &Op, origin: Origin) -> Option<Refusal> {
    let Op::CreateUpdate(update) = op else {
        return None;
    };
    let by_path = |image: &ImageInput| matches!(image, ImageInput::Path(_));
    let file = update.files.iter().find(|file| by_path(&file.image))?;
    (origin == Origin::Token).then(|| {
        let message = format!(
            "file {} is given by a path on the cloud's machine; send the image first (put_image)",
            file.file_id
        );
        refusal("path", message)
    })
}

fn parse(line: &[u8]) -> Result<Op, Refusal> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        v: u32,
    }
    let bad = |error: serde_json::Error| refusal("bad_request", error.to_string());
    // The version first: a request of another one need not have the shape of this one.
    let Versioned { v } = serde_json::from_slice(line).map_err(bad)?;
    if v != VERSION {
        let message = format!("this cloud speaks version {VERSION}, the request has {v}");
        return Err(refusal("version", message));
    }
    let request: Request = serde_json::from_slice(line).map_err(bad)?;
    Ok(request.op)
}

pub(super) fn refusal(code: &str, message: String) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message,
    }
}

fn body<T: serde::Serialize>(result: Result<T, CloudError>) -> AnswerBody {
    match result {
        Ok(value) => AnswerBody::Ok(to_value(value)),
        Err(error) => AnswerBody::Error(Refusal::from(&error)),
    }
}

async fn answer(operator: &Operator, op: Op) -> AnswerBody {
    match op {
        Op::CreateUpdate(update) => {
            // This process has another working directory than the one that asks.
            let relative = update.files.iter().find(|f| !f.image.is_portable());
            if let Some(file) = relative {
                let message = format!("the path of file {} is not absolute", file.file_id);
                return AnswerBody::Error(refusal("relative_path", message));
            }
            body(operator.create_update(update).await)
        }
        Op::CreateJob(job) => body(operator.create_job(job).await),
        // `session` reads the bytes behind it.
        Op::PutImage { .. } => {
            let message = "images are not taken here".to_owned();
            AnswerBody::Error(refusal("not_served", message))
        }
        Op::Cancel {
            job_id,
            force,
            reason,
        } => body(operator.cancel(&job_id, force, reason).await),
        Op::DeleteJob { job_id, force } => body(operator.delete_job(&job_id, force).await),
        Op::List(filter) => body(Ok(operator.list_where(&filter))),
        Op::Show { job_id } | Op::Watch { job_id } => body(operator.show(&job_id)),
        Op::ThingCreate { name } => body(operator.thing_create(&name).await),
        Op::ThingList => body(Ok(operator.thing_list())),
        Op::Info => body(operator.info()),
        Op::Stats => body(Ok(operator.stats())),
        Op::ThingDescribe { name } => body(operator.describe_thing(&name)),
        Op::ThingDelete { name, force } => body(operator.delete_thing(&name, force).await),
        Op::ThingAttach {
            name,
            certificate_pem,
            root_pem,
        } => {
            let root = root_pem.as_deref();
            body(
                operator
                    .attach_certificate(&name, &certificate_pem, root)
                    .await,
            )
        }
        Op::ThingDetach { name, fingerprint } => {
            body(operator.detach_certificate(&name, &fingerprint).await)
        }
        Op::GroupCreate { name, description } => {
            body(operator.create_group(&name, description).await)
        }
        Op::GroupList => body(Ok(operator.groups())),
        Op::GroupDescribe { name } => body(operator.describe_group(&name)),
        Op::GroupDelete { name } => body(operator.delete_group(&name).await),
        Op::GroupAdd { name, things } => body(operator.join_group(&name, &things).await),
        Op::GroupRemove { name, things } => body(operator.leave_group(&name, &things).await),
        Op::StreamList => body(Ok(operator.streams())),
        Op::StreamDelete { stream_id, force } => {
            body(operator.delete_stream(&stream_id, force).await)
        }
    }
}

/// Tells of a job until it has ended, or until who asked has left or asks for something else: a job of a device that is
/// away may never end.
async fn watch_job(
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    operator: &Operator,
    job_id: &JobId,
) -> std::io::Result<()> {
    let mut watch = match operator.watch(job_id) {
        Ok(watch) => watch,
        Err(error) => return write(writer, AnswerBody::Error(Refusal::from(&error))).await,
    };
    loop {
        let change = tokio::select! {
            change = watch.next() => change,
            read = reader.fill_buf() => {
                if read?.is_empty() {
                    return Ok(());
                }
                let message = "another request came before the job's end, and ends the watch".to_owned();
                return write(writer, AnswerBody::Error(refusal("bad_request", message))).await;
            }
        };
        match change {
            Some(change) => write(writer, AnswerBody::Change(change)).await?,
            None => return write(writer, body(watch.job())).await,
        }
    }
}

pub(super) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    body: AnswerBody,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(&Answer { v: VERSION, body })?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

pub(super) enum Line {
    Whole(Vec<u8>),
    End,
    TooLong,
}

/// Reads up to a line feed, and no more than `max` bytes.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    max: usize,
) -> std::io::Result<Line> {
    let mut line = Vec::new();
    let mut limited = reader.take(max as u64 + 1);
    limited.read_until(b'\n', &mut line).await?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Line::Whole(line));
    }
    // The other end went away, in the middle of a line or not.
    Ok(if line.len() > max {
        Line::TooLong
    } else {
        Line::End
    })
}
