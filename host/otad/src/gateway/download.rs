//! Images whose URL has a scheme of the operator's own: `file:///app.img` is `app.img` in the directory that
//! `[[download]]` names for `file`.
//!
//! Whoever writes a job chooses the path, so it never leads out of the directory, through links neither. What comes from
//! there is verified like what comes over the network. Every other scheme goes on to the next transport.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::Workers;
use host_runtime::types::{Failure, Outcome, Qos, Token, code};

use crate::config::Download;

/// A device's transport with these downloads before it.
pub(super) struct Downloads<T> {
    pub(super) inner: T,
    pub(super) downloads: Vec<Download>,
    pub(super) mailbox: Mailbox,
    pub(super) workers: Arc<dyn Workers>,
}

impl<T: Transport> Transport for Downloads<T> {
    fn subscribe(&mut self, token: Token, filter: &str, qos: Qos) {
        self.inner.subscribe(token, filter, qos);
    }

    fn unsubscribe(&mut self, token: Token, filter: &str) {
        self.inner.unsubscribe(token, filter);
    }

    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, qos: Qos) {
        self.inner.publish(token, topic, payload, qos);
    }

    fn http_get(&mut self, token: Token, url: &str, offset: u64, length: u32) {
        let found = url.split_once("://").and_then(|(scheme, rest)| {
            let own = self.downloads.iter().find(|d| d.scheme == scheme)?;
            Some((own.directory.value.clone(), rest.to_owned()))
        });
        let Some((directory, rest)) = found else {
            return self.inner.http_get(token, url, offset, length);
        };
        let mailbox = self.mailbox.clone();
        self.workers.run(Box::new(move || {
            mailbox.send(answer(token, read(&directory, &rest, offset, length)));
        }));
    }

    /// A read is over before anybody could give it up: it ends by itself.
    fn cancel(&mut self, token: Token) {
        self.inner.cancel(token);
    }
}

/// What a reading gave, as the agent knows it of a server.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Size of the whole file, and the bytes asked for.
    Range(u64, Vec<u8>),
    /// 404: there is no such file.
    Nothing,
    /// 416: it is not that long.
    Beyond,
}

fn read(directory: &Path, rest: &str, offset: u64, length: u32) -> io::Result<Found> {
    let Some(path) = place(directory, rest)? else {
        return Ok(Found::Nothing);
    };
    // Before it is opened, which would wait on a pipe.
    let meta = fs::metadata(&path)?;
    if !meta.is_file() {
        return Ok(Found::Nothing);
    }
    let file = File::open(path)?;
    let total = meta.len();
    let left = total.saturating_sub(offset);
    if left == 0 {
        return Ok(Found::Beyond);
    }
    let mut bytes = vec![0; usize::try_from(left.min(length.into())).unwrap_or_default()];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Found::Range(total, bytes))
}

/// The file of a URL, without its scheme: a path below the directory, none if there is no such file or it lies elsewhere.
fn place(directory: &Path, rest: &str) -> io::Result<Option<PathBuf>> {
    let path = Path::new(rest.trim_start_matches('/'));
    let is_plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if !is_plain || path.as_os_str().is_empty() || rest.contains('\0') {
        return Ok(None);
    }
    let whole = match directory.join(path).canonicalize() {
        Ok(whole) => whole,
        Err(e) if is_not_there(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(whole
        .starts_with(directory.canonicalize()?)
        .then_some(whole))
}

/// There is no such file, or what should be its directory is none.
fn is_not_there(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn answer(token: Token, found: io::Result<Found>) -> Input {
    let (status, total, body) = match found {
        Ok(Found::Range(total, bytes)) => (206, Some(total), Bytes::from(bytes)),
        Ok(Found::Nothing) => (404, None, Bytes::new()),
        Ok(Found::Beyond) => (416, None, Bytes::new()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or_default();
            let failure = Failure::new(
                code::STORAGE,
                u32::try_from(errno).unwrap_or_default(),
                format!("the directory of images: {error}"),
            );
            let outcome = Outcome::Failed(failure);
            return Input::Done { token, outcome };
        }
    };
    Input::HttpResponse {
        token,
        status,
        total,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_what_lies_elsewhere_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        std::fs::create_dir_all(images.join("sub")).unwrap();
        std::fs::write(images.join("sub/app.img"), b"0123456789").unwrap();
        std::fs::write(dir.path().join("secret"), b"secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), images.join("link")).unwrap();
        let pipe = images.join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let range = |bytes: &[u8]| Found::Range(10, bytes.to_vec());
        let rows = [
            ("/sub/app.img", 0, 4, range(b"0123")),
            ("sub/app.img", 8, 4, range(b"89")),
            ("/sub/app.img", 10, 1, Found::Beyond),
            ("/sub/app.img", u64::MAX, 1, Found::Beyond),
            ("/sub", 0, 1, Found::Nothing),
            ("/none", 0, 1, Found::Nothing),
            ("/pipe", 0, 1, Found::Nothing),
            ("/sub/app.img/x", 0, 1, Found::Nothing),
            ("/../secret", 0, 1, Found::Nothing),
            ("/sub/../../secret", 0, 1, Found::Nothing),
            ("/link", 0, 1, Found::Nothing),
            ("", 0, 1, Found::Nothing),
            ("/", 0, 1, Found::Nothing),
            ("/a\0b", 0, 1, Found::Nothing),
        ];
        for (rest, offset, length, expected) in rows {
            let found = read(&images, rest, offset, length).unwrap();
            assert_eq!(found, expected, "{rest} {offset}");
        }
    }

    #[test]
    fn what_was_found_is_told_as_a_server_would() {
        let of = |found| match answer(7, found) {
            Input::HttpResponse {
                token: 7,
                status,
                total,
                body,
            } => (status, total, body.len()),
            Input::Done {
                token: 7,
                outcome: Outcome::Failed(failure),
            } => (failure.main.into(), Some(failure.sub.into()), 0),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(Ok(Found::Range(9, vec![1, 2]))), (206, Some(9), 2));
        assert_eq!(of(Ok(Found::Nothing)), (404, None, 0));
        assert_eq!(of(Ok(Found::Beyond)), (416, None, 0));
        let full = io::Error::from_raw_os_error(5);
        assert_eq!(of(Err(full)), (u16::from(code::STORAGE), Some(5), 0));
    }
}
