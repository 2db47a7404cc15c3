//! Operators on other machines: TLS with the cloud's certificate, and a token in the first line.
//!
//! The token is a secret like a root password: it lies in a file of mode 0600, is compared in constant time, and a wrong one
//! is answered late. Who has it may do everything but name files of the cloud's machine.

use std::{
    fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use rustix::net::sockopt;
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Operator,
    server::{Line, Origin, read_line, refusal, session, write},
    socket::OPERATORS_MAX,
    wire::{AnswerBody, Authenticate, VERSION},
};
use crate::{
    accept::next_client,
    error::CloudError,
    file::{self, PRIVATE, PUBLIC},
    id,
    pki::ServerIdentity,
};

/// Time for the handshake and the token.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// Connections that have not shown the token yet: whoever has none keeps no operator from a seat.
const GREETINGS_MAX: usize = 64;
/// The other end of a connection answers the system's probes within this time, or counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How late a wrong token is answered.
const WRONG_TOKEN_TIME: Duration = Duration::from_secs(1);
/// Longest first line.
const GREETING_BYTES_MAX: usize = 4096;
/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 1024;

/// What an operator of another machine needs, in a directory to be copied there: address, root certificate, token.
pub const KIT_DIR: &str = "operator";
/// `HOST:PORT`, where operators come in.
pub const ADDRESS_FILE: &str = "address";
/// The cloud's root certificate.
const ROOT_FILE: &str = "root.pem";
/// The token, mode 0600.
const TOKEN_FILE: &str = "token";

/// What a kit holds.
pub(super) struct Kit {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) root_pem: String,
    pub(super) token: String,
}

impl Kit {
    pub(super) fn read(dir: &Path) -> Result<Self, CloudError> {
        let text = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|e| CloudError::io("read", &path, &e))
        };
        let address = text(ADDRESS_FILE)?;
        let parts = address.trim().rsplit_once(':');
        let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parts else {
            return Err(CloudError::Damaged {
                path: dir.join(ADDRESS_FILE).display().to_string(),
                reason: "it is not HOST:PORT".to_owned(),
            });
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            root_pem: text(ROOT_FILE)?,
            token: read_token(&dir.join(TOKEN_FILE))?,
        })
    }

    /// Lays down what is not secret beside the token.
    fn write(dir: &Path, host: &str, port: u16, root_pem: &str) -> Result<(), CloudError> {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let address = format!("{host}:{port}\n");
        file::write_atomic(&dir.join(ADDRESS_FILE), address.as_bytes(), PUBLIC)?;
        file::write_atomic(&dir.join(ROOT_FILE), root_pem.as_bytes(), PUBLIC)
    }
}

/// Reads a token file: one line, readable by its owner only.
///
/// # Errors
/// It cannot be read, others may read it, or what is in it is no token.
pub(super) fn read_token(path: &Path) -> Result<String, CloudError> {
    let failed = |e: &std::io::Error| CloudError::io("read", path, e);
    let bad = |reason: String| CloudError::Token {
        path: path.display().to_string(),
        reason,
    };
    let metadata = fs::metadata(path).map_err(|e| failed(&e))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let text = format!("others may read it; `chmod 600 {}`", path.display());
        return Err(bad(text));
    }
    let text = fs::read_to_string(path).map_err(|e| failed(&e))?;
    let token = text.trim();
    let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len());
    if !fits || token.contains(char::is_whitespace) {
        return Err(bad(format!(
            "a token is one word of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes"
        )));
    }
    Ok(token.to_owned())
}

fn read_or_make_token(path: &Path) -> Result<String, CloudError> {
    if !path.exists() {
        let mut token = String::new();
        for _ in 0..4 {
            token += &format!("{:016x}", id::random_u64()?);
        }
        file::write_atomic(path, format!("{token}\n").as_bytes(), PRIVATE)?;
    }
    read_token(path)
}

/// A listener that has its token and certificate.
pub(crate) struct Remote {
    listener: TcpListener,
    tls: TlsAcceptor,
    /// SHA-256 of the token: all comparisons are of the same length.
    token: [u8; 32],
    /// For who has shown it.
    seats: Arc<Semaphore>,
}

impl Remote {
    /// Listens, and lays down the kit in `dir`. `host` is how others call this machine.
    pub(crate) async fn bind(
        dir: &Path,
        address: SocketAddr,
        host: &str,
        root_pem: &str,
        identity: ServerIdentity,
    ) -> Result<Self, CloudError> {
        let kit = dir.join(KIT_DIR);
        file::private_dir(&kit)?;
        let token = read_or_make_token(&kit.join(TOKEN_FILE))?;
        let failed = |e: &dyn std::fmt::Display| CloudError::pki("TLS for operators", e);
        let provider = Arc::new(default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .map_err(|e| failed(&e))?;
        let listening = |e: std::io::Error| CloudError::Listen {
            address,
            reason: e.to_string(),
        };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let port = listener.local_addr().map_err(listening)?.port();
        Kit::write(&kit, host, port, root_pem)?;
        Ok(Self {
            listener,
            tls: TlsAcceptor::from(Arc::new(tls)),
            token: Sha256::digest(token).into(),
            seats: Arc::new(Semaphore::new(OPERATORS_MAX)),
        })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves operators until told to stop.
    pub(crate) async fn serve(self, operator: Operator, mut stop: watch::Receiver<bool>) {
        let remote = Arc::new(self);
        let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
        let mut clients = JoinSet::new();
        loop {
            // Until there is a place, the next one waits in the system's queue.
            let greeting = tokio::select! {
                greeting = Arc::clone(&greetings).acquire_owned() => greeting,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let client = next_client(&remote.listener, &mut clients, &mut stop).await;
            let (Ok(greeting), Some((stream, peer))) = (greeting, client) else {
                return;
            };
            let (remote, operator) = (Arc::clone(&remote), operator.clone());
            clients.spawn(async move {
                if let Err(error) = remote.attend(stream, peer, greeting, &operator).await {
                    tracing::debug!(%peer, %error, "operator session ended");
                }
            });
        }
    }

    async fn attend(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        greeting: OwnedSemaphorePermit,
        operator: &Operator,
    ) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        end_when_silent(&stream)?;
        let (mut reader, mut writer, seat) =
            timeout(GREETING_TIME, self.welcome(stream, peer)).await??;
        drop(greeting);
        if seat.is_some() {
            session(&mut reader, &mut writer, operator, Origin::Token).await?;
        }
        writer.shutdown().await
    }

    /// Lets an operator in who has the token and for whom there is a seat; the others are told.
    async fn welcome(&self, stream: TcpStream, peer: SocketAddr) -> std::io::Result<Welcomed> {
        let (reader, mut writer) = tokio::io::split(self.tls.accept(stream).await?);
        let mut reader = BufReader::new(reader);
        let known = greet(&mut reader, &self.token).await?;
        let seat = known.then(|| Arc::clone(&self.seats).try_acquire_owned().ok());
        let body = match &seat {
            Some(Some(_)) => AnswerBody::Ok(serde_json::Value::Null),
            Some(None) => {
                let message = format!("{OPERATORS_MAX} operators are here; try again later");
                AnswerBody::Error(refusal("busy", message))
            }
            None => {
                tracing::warn!(%peer, "an operator with a wrong token was refused");
                sleep(WRONG_TOKEN_TIME).await;
                let message = "the token is not this cloud's".to_owned();
                AnswerBody::Error(refusal("unauthorized", message))
            }
        };
        write(&mut writer, body).await?;
        Ok((reader, writer, seat.flatten()))
    }
}

/// Both ways of a connection, and the seat that it has, if it may stay.
type Welcomed = (
    BufReader<ReadHalf<TlsStream<TcpStream>>>,
    WriteHalf<TlsStream<TcpStream>>,
    Option<OwnedSemaphorePermit>,
);

/// A machine that vanished ends its session, also where nothing is on its way to it.
fn end_when_silent(stream: &TcpStream) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE_MAX / 2)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE_MAX / 8)?;
    sockopt::set_tcp_user_timeout(stream, SILENCE_MAX.as_millis() as u32)?;
    Ok(())
}

/// Whether the first line holds the token.
async fn greet(
    reader: &mut (impl AsyncBufRead + Unpin),
    token: &[u8; 32],
) -> std::io::Result<bool> {
    let Line::Whole(line) = read_line(reader, GREETING_BYTES_MAX).await? else {
        return Ok(false);
    };
    let Ok(greeting) = serde_json::from_slice::<Authenticate>(&line) else {
        return Ok(false);
    };
    let shown: [u8; 32] = Sha256::digest(&greeting.token).into();
    let same = verify_slices_are_equal(&shown, token).is_ok();
    Ok(same && greeting.v == VERSION)
}

/// What a client sends first.
pub(super) async fn authenticate(
    writer: &mut (impl AsyncWrite + Unpin),
    token: &str,
) -> std::io::Result<()> {
    let greeting = Authenticate {
        v: VERSION,
        token: token.to_owned(),
    };
    let mut line = serde_json::to_vec(&greeting)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_must_be_private_and_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.token");
        let token = read_or_make_token(&path).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(read_or_make_token(&path).unwrap(), token);
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        let error = read_or_make_token(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        mode(0o600);
        for wrong in ["", "short", "two words of some length"] {
            fs::write(&path, wrong).unwrap();
            let error = read_token(&path).unwrap_err();
            assert_eq!(error.code(), "token", "{wrong}");
        }
    }
}
