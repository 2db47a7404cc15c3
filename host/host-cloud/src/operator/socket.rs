//! The operator socket: who on this machine may connect.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    Operator,
    server::{Origin, session},
};
use crate::{error::CloudError, file};

/// Operators at once: people and scripts, not devices.
pub(super) const OPERATORS_MAX: usize = 64;

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
                    let (reader, mut writer) = stream.into_split();
                    let mut reader = BufReader::new(reader);
                    let ended = session(&mut reader, &mut writer, &operator, Origin::Socket).await;
                    if let Err(error) = ended {
                        tracing::debug!(%error, "operator session ended");
                    }
                });
            }
            Ok(_) => tracing::warn!("an operator of another user was refused"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an operator");
                tokio::time::sleep(Duration::from_millis(50)).await;
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
