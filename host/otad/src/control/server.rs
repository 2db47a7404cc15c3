//! The daemon's end of the control socket.
//!
//! Not here: what the verbs do ([`Backend`] does), and the lock that makes sure that there is one daemon.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::group;
use super::protocol::{Answer, Body, REQUEST_MAX_BYTES, Refusal, Request, Verb};
use crate::exit::Exit;

/// Requests at a time: a handful of operators and scripts. The next one is told to come again, so that nobody waits
/// without a word.
const CONNECTIONS_MAX: usize = 32;

/// Of `events --follow` at a time, beside the other requests: they stay for as long as their reader likes.
const FOLLOWERS_MAX: usize = 16;

/// How long a reader may leave an answer lying before it is taken for gone.
const WRITE_WAIT: Duration = Duration::from_secs(30);

/// How long a peer may take to send its request.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Items on their way to a slow reader.
const ITEMS_MAX: usize = 64;

/// Longest path of a control socket. Linux: `sockaddr_un.sun_path` has 108 bytes with its NUL, and the socket is bound
/// under a longer name first.
pub const PATH_MAX_BYTES: usize = 108 - 1 - DRAFT.len();

/// Ending of the name under which the socket is bound first.
const DRAFT: &str = ".new";

/// What the verbs do.
pub trait Backend: Send + Sync + 'static {
    /// Follow one request. Items go through `items` before the answer; a closed channel means that the peer has gone.
    fn call(
        &self,
        request: Request,
        items: mpsc::Sender<Value>,
    ) -> impl Future<Output = Result<Value, Refusal>> + Send;
}

/// Who may talk to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The daemon's own user.
    pub owner: u32,
    /// The configured group.
    pub group: Option<u32>,
}

impl Access {
    /// Whether a peer with these credentials may.
    #[must_use]
    pub fn allows(self, uid: u32, gid: u32, pid: Option<i32>) -> bool {
        if uid == 0 || uid == self.owner {
            return true;
        }
        self.group
            .is_some_and(|g| g == gid || pid.is_some_and(|pid| group::has_member(g, pid)))
    }

    fn mode(self) -> u32 {
        if self.group.is_some() { 0o660 } else { 0o600 }
    }
}

/// The bound socket; its file is removed when this goes.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    access: Access,
}

impl Server {
    /// Bind `path` with the mode that `access` asks for. What lies there is replaced: the lock on the state directory
    /// says that no other daemon of this configuration lives.
    ///
    /// # Errors
    /// The directory is missing, the path is taken by something that is not a socket, or the group cannot be set.
    pub fn bind(path: &Path, access: Access) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt as _;
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is not a socket lies there",
                ));
            }
            _ => {}
        }
        // Bound under another name first: the real name never has a wrong mode.
        let mut draft = path.as_os_str().to_owned();
        draft.push(DRAFT);
        let draft = PathBuf::from(draft);
        remove(&draft)?;
        let listener = UnixListener::bind(&draft)?;
        if let Some(group) = access.group {
            chown(&draft, None, Some(group))?;
        }
        fs::set_permissions(&draft, fs::Permissions::from_mode(access.mode()))?;
        fs::rename(&draft, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            access,
        })
    }

    /// Serve until dropped.
    pub async fn serve<B: Backend>(self, backend: Arc<B>) {
        let places = Places {
            requests: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(place) = Arc::clone(&places.requests).try_acquire_owned() else {
                        turn_away(&stream);
                        continue;
                    };
                    let (backend, access) = (Arc::clone(&backend), self.access);
                    let places = places.clone();
                    tokio::spawn(async move {
                        if let Err(e) = connection(stream, access, &*backend, &places, place).await
                        {
                            tracing::debug!("control connection: {e}");
                        }
                    });
                }
                Err(e) => {
                    tracing::warn!("control socket: {e}");
                    // Out of descriptors, most likely: waiting is all there is.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.path) {
            tracing::debug!("control socket {}: {e}", self.path.display());
        }
    }
}

/// What is free.
#[derive(Clone)]
struct Places {
    requests: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

/// A worded refusal that costs no task: it fits the buffer of a socket that nothing was sent on.
fn turn_away(stream: &UnixStream) {
    let line = Answer::line(Body::Error(busy(CONNECTIONS_MAX, "requests")));
    if let Err(e) = stream.try_write(&line) {
        tracing::debug!("control socket: a connection is turned away without a word: {e}");
    }
}

fn busy(max: usize, what: &str) -> Refusal {
    Refusal::new(
        Exit::Retry,
        format!("the daemon is busy with {max} {what}, its limit; try again when one has ended"),
    )
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

async fn connection<B: Backend>(
    stream: UnixStream,
    access: Access,
    backend: &B,
    places: &Places,
    mut place: OwnedSemaphorePermit,
) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    if !allowed(access, &peer) {
        tracing::warn!(
            "control socket: refused uid {} gid {}",
            peer.uid(),
            peer.gid()
        );
        let refusal = Refusal::new(
            Exit::Refused,
            format!(
                "uid {} may not control this daemon; use its user, root, or the configured control_group",
                peer.uid()
            ),
        );
        return write(&mut writer, Body::Error(refusal)).await;
    }
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let limit = REQUEST_MAX_BYTES as u64 + 1;
    let mut limited = (&mut reader).take(limit);
    let read = tokio::time::timeout(REQUEST_WAIT, limited.read_until(b'\n', &mut line));
    let refused = match read.await {
        Err(_) => Some("no request within 10 s".to_owned()),
        Ok(Err(e)) => return Err(e),
        Ok(Ok(0)) => return Ok(()),
        Ok(Ok(_)) if line.len() > REQUEST_MAX_BYTES => Some(format!(
            "the request has more than {REQUEST_MAX_BYTES} bytes"
        )),
        Ok(Ok(_)) => None,
    };
    let request = match refused {
        Some(text) => Err(Refusal::new(Exit::Usage, text)),
        None => Request::parse(&line),
    };
    let request = request.and_then(|request| {
        if let Verb::Events { follow: true, .. } = request.verb {
            // The place among the requests is free again with this.
            place = Arc::clone(&places.followers)
                .try_acquire_owned()
                .map_err(|_| busy(FOLLOWERS_MAX, "followers of events"))?;
        }
        Ok(request)
    });
    let body = match request {
        Err(refusal) => Body::Error(refusal),
        Ok(request) => match follow(request, backend, &mut reader, &mut writer).await? {
            Some(body) => body,
            None => return Ok(()),
        },
    };
    write(&mut writer, body).await?;
    drop(place);
    Ok(())
}

/// Write one line to a reader that takes it in time.
async fn write(writer: &mut (impl tokio::io::AsyncWrite + Unpin), body: Body) -> io::Result<()> {
    let line = Answer::line(body);
    match tokio::time::timeout(WRITE_WAIT, writer.write_all(&line)).await {
        Ok(end) => end,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the reader does not take its answer",
        )),
    }
}

fn allowed(access: Access, peer: &UCred) -> bool {
    access.allows(peer.uid(), peer.gid(), peer.pid())
}

/// Run the verb and pass its items on; `None` = the peer has gone.
async fn follow<B: Backend>(
    request: Request,
    backend: &B,
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<Option<Body>> {
    let (sender, mut items) = mpsc::channel(ITEMS_MAX);
    let call = backend.call(request, sender);
    tokio::pin!(call);
    let mut unexpected = [0u8; 1];
    loop {
        tokio::select! {
            // Items first, or the answer would overtake them.
            biased;
            Some(item) = items.recv() => write(writer, Body::Item(item)).await?,
            result = &mut call => {
                while let Ok(item) = items.try_recv() {
                    write(writer, Body::Item(item)).await?;
                }
                return Ok(Some(result.map_or_else(Body::Error, Body::Ok)));
            }
            // A peer that hangs up ends a follow; more bytes than one request are of no interest.
            read = reader.read(&mut unexpected) => if read? == 0 {
                return Ok(None);
            },
        }
    }
}

#[cfg(test)]
mod tests;
