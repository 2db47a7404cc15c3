//! The operator socket: who may connect, and one task for each who does.

use std::{os::unix::fs::PermissionsExt, path::Path};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    Operator,
    local::to_value,
    wire::{Answer, AnswerBody, Op, REQUEST_BYTES_MAX, Refusal, Request, VERSION},
};
use crate::{error::CloudError, file, service::JobId};

/// Operators at once: people and scripts, not devices.
const OPERATORS_MAX: usize = 64;

/// Binds the socket. The directory belongs to this cloud alone (its lock is held), so what lies there is left over.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, CloudError> {
    file::remove_quietly(path);
    let failed = |error: &std::io::Error| CloudError::io("listen on", path, error);
    let listener = UnixListener::bind(path).map_err(|e| failed(&e))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|e| failed(&e))?;
    Ok(listener)
}

/// Serves operators until told to stop.
pub(crate) async fn serve(
    listener: UnixListener,
    operator: Operator,
    mut stop: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if sessions.len() < OPERATORS_MAX => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = sessions.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if is_allowed(&stream) => {
                let operator = operator.clone();
                sessions.spawn(async move {
                    if let Err(error) = session(stream, operator).await {
                        tracing::debug!(%error, "operator session ended");
                    }
                });
            }
            Ok(_) => tracing::warn!("an operator of another user was refused"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an operator");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// The cloud's own user, and root.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn session(stream: UnixStream, operator: Operator) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = match read_line(&mut reader, REQUEST_BYTES_MAX).await? {
            Line::Whole(line) => line,
            Line::End => return Ok(()),
            Line::TooLong => {
                let message = format!("a request line has at most {REQUEST_BYTES_MAX} bytes");
                let refused = AnswerBody::Error(refusal("bad_request", message));
                write(&mut writer, refused).await?;
                return Ok(());
            }
        };
        let op = match parse(&line) {
            Ok(op) => op,
            Err(refused) => {
                write(&mut writer, AnswerBody::Error(refused)).await?;
                continue;
            }
        };
        if let Op::Watch { job_id } = &op {
            watch_job(&mut writer, &operator, job_id).await?;
        } else {
            write(&mut writer, answer(&operator, op).await).await?;
        }
    }
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

fn refusal(code: &str, message: String) -> Refusal {
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

async fn watch_job(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    operator: &Operator,
    job_id: &JobId,
) -> std::io::Result<()> {
    let mut watch = match operator.watch(job_id) {
        Ok(watch) => watch,
        Err(error) => return write(writer, AnswerBody::Error(Refusal::from(&error))).await,
    };
    while let Some(change) = watch.next().await {
        write(writer, AnswerBody::Change(change)).await?;
    }
    write(writer, body(watch.job())).await
}

async fn write(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
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
