//! The command line's end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{ANSWER_MAX_BYTES, Answer, Body, Request, Verb};
use crate::exit::{Exit, Failed};

/// Talks to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the daemon behind this socket.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Whether a daemon listens; true also where that cannot be found out, so that the reason is told when it is asked.
    pub async fn is_there(&self) -> bool {
        let connected = UnixStream::connect(&self.path).await;
        !connected.is_err_and(|e| {
            matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            )
        })
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// [`Exit::Retry`] if nobody listens, or the daemon is silent for too long; otherwise what it says.
    pub async fn call(&self, request: &Request) -> Result<Value, Failed> {
        self.stream(request, |_| {}).await
    }

    /// One request that is answered in items: the answer, with these in a list as its member `key`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn gather(&self, request: &Request, key: &str) -> Result<Value, Failed> {
        let mut items = Vec::new();
        let mut answer = match self.stream(request, |item| items.push(item)).await? {
            Value::Object(answer) => answer,
            Value::Null => Map::new(),
            other => {
                let text = format!("the daemon's answer is not understood: no object, but {other}");
                return Err(Failed::new(Exit::Failed, text));
            }
        };
        answer.insert(key.to_owned(), items.into());
        Ok(answer.into())
    }

    /// One request; `on_item` sees every item before the answer.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn stream(
        &self,
        request: &Request,
        mut on_item: impl FnMut(Value),
    ) -> Result<Value, Failed> {
        let mut stream = self.connect().await?;
        let lost = |e: io::Error| Failed::new(Exit::Retry, format!("the daemon hung up: {e}"));
        let mut line =
            serde_json::to_vec(request).map_err(|e| Failed::chain(Exit::Usage, "request", &e))?;
        line.push(b'\n');
        // A daemon that turns a peer away does not read the request, but has answered.
        let sent = stream.write_all(&line).await;
        let mut reader = BufReader::new(stream);
        loop {
            line.clear();
            let mut limited = (&mut reader).take(ANSWER_MAX_BYTES as u64);
            let reading = limited.read_until(b'\n', &mut line);
            let read = match request.verb.silence_max() {
                Some(max) => {
                    let read = timeout(max, reading).await;
                    read.map_err(|_| self.silent(&request.verb, max))?
                }
                None => reading.await,
            };
            let n = read.map_err(lost)?;
            if n == 0 {
                if let Err(e) = sent {
                    return Err(lost(e));
                }
                return Err(Failed::new(
                    Exit::Retry,
                    "the daemon ended before it answered",
                ));
            }
            match Answer::parse(&line)?.body {
                Body::Item(item) => on_item(item),
                Body::Ok(value) => return Ok(value),
                Body::Error(refusal) => return Err(refusal.into()),
            }
        }
    }

    async fn connect(&self) -> Result<UnixStream, Failed> {
        let path = self.path.display();
        UnixStream::connect(&self.path)
            .await
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failed::new(
                    Exit::Retry,
                    format!("no daemon listens at {path}; start it with `otad run --config FILE`"),
                ),
                io::ErrorKind::PermissionDenied => Failed::new(
                    Exit::Refused,
                    format!("{path}: permission denied; use the daemon's user, root, or a member of its control_group"),
                ),
                _ => Failed::new(Exit::Retry, format!("{path}: {e}")),
            })
    }

    fn silent(&self, verb: &Verb, max: Duration) -> Failed {
        let order = match verb.is_order() {
            true => "the order may still be followed, look with `otad status`; ",
            false => "",
        };
        let text = format!(
            "the daemon behind {} has said nothing for {} s: it hangs, or is stopped; {order}`otad why --state-dir DIR` and \
             `otad history --state-dir DIR` read what it has written down",
            self.path.display(),
            max.as_secs()
        );
        Failed::new(Exit::Retry, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_daemon_is_named_and_what_may_become_of_an_order_is_told() {
        let client = Client::new(Path::new("/run/otad.sock"));
        for (verb, is_order) in [(Verb::Status, false), (Verb::Suspend, true)] {
            let max = verb.silence_max().unwrap();
            let text = client.silent(&verb, max).text;
            let named = format!(
                "behind /run/otad.sock has said nothing for {} s",
                max.as_secs()
            );
            assert!(text.contains(&named), "{text}");
            let told = text.contains("the order may still be followed");
            assert_eq!(told, is_order, "{text}");
        }
    }
}
