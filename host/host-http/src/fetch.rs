//! One range of one URL: redirects, deadlines, the check of the head, and a body of exactly that many bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderValue, LOCATION, RANGE, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::client::Shared;
use crate::connect::{Connected, broken, connect};
use crate::error::{FetchError, Wait};
use crate::pool::Turn;
use crate::range::{self, Range};
use crate::url::Target;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 206, and it is the range that was asked for.
    Range {
        /// Size of the whole file, where the server knows it.
        total: Option<u64>,
        /// The bytes: as many as asked for, or up to the end of the file.
        body: Bytes,
    },
    /// Another status. 200 is among them: a file that nobody asked for as a whole is not read.
    Status(u16),
}

/// What is read of a body that nobody wants, to keep the connection: error pages and redirects have some hundred bytes.
const DRAIN_MAX_BYTES: usize = 16 * 1024;

/// How long that may take; a new connection is cheaper than more.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Fetches a range.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    url: &str,
    asked: Range,
) -> Result<Answer, FetchError> {
    let mut target = Target::parse(url)?;
    let limits = &shared.config.limits;
    let mut redirects = 0;
    loop {
        check(shared, &target)?;
        let turn = shared.pool.turn(&target.origin).await;
        // The wait for a turn is not the server's fault; from here on it is.
        let step = step(shared, &turn, &target, asked);
        let step = within(Wait::Range, limits.range_timeout, step).await?;
        match step {
            Step::Answer(answer) => return Ok(answer),
            Step::Redirect(next) => target = next,
        }
        redirects += 1;
        if redirects > limits.redirects_max {
            return Err(FetchError::Redirects(limits.redirects_max));
        }
    }
}

fn check(shared: &Shared, target: &Target) -> Result<(), FetchError> {
    let origin = &target.origin;
    if !origin.is_tls && !shared.config.allow_plain {
        return Err(FetchError::Plain(origin.to_string()));
    }
    shared.config.check_host(&origin.host)
}

async fn within<T>(
    wait: Wait,
    after: Duration,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    match timeout(after, work).await {
        Ok(result) => result,
        Err(_) => Err(FetchError::TimedOut { wait, after }),
    }
}

enum Step {
    Answer(Answer),
    Redirect(Target),
}

async fn step(
    shared: &Arc<Shared>,
    turn: &Turn,
    target: &Target,
    asked: Range,
) -> Result<Step, FetchError> {
    let (connection, response) = exchange(shared, turn, target, asked).await?;
    let status = response.status();
    if status == StatusCode::PARTIAL_CONTENT {
        let announced = range::check(response.headers(), asked)?;
        let body = read(shared, target, response.into_body(), announced.length).await?;
        shared.pool.keep(turn, connection);
        let total = announced.total;
        return Ok(Step::Answer(Answer::Range { total, body }));
    }
    if let Some(asked) = retry_after(&response) {
        shared.pool.put_off(turn, asked);
    }
    let next = redirect(target, &response)?;
    if status != StatusCode::OK && drain(response.into_body()).await {
        shared.pool.keep(turn, connection);
    }
    Ok(match next {
        Some(next) => Step::Redirect(next),
        None => Step::Answer(Answer::Status(status.as_u16())),
    })
}

/// How long a busy server asks to be left alone (RFC 9110 section 10.2.3). A date does not count: the clock of a gateway
/// may be anywhere, and servers of images say seconds.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let status = response.status();
    if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    range::number(seconds).map(Duration::from_secs)
}

/// Where a redirect leads; none = it is no redirect.
fn redirect(target: &Target, response: &Response<Incoming>) -> Result<Option<Target>, FetchError> {
    // 304 answers a question that was not asked, and 300 leaves the choice to people.
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let Some(location) = location.and_then(|value| value.to_str().ok()) else {
        return Err(FetchError::Redirect {
            host: target.origin.to_string(),
            why: "without saying where to",
        });
    };
    target.follow(location).map(Some)
}

/// Sends the request and awaits the head of the answer, on a kept connection if there is one. Servers end idle
/// connections at any time, so one that ends before it answered is no failure: the next one is new.
async fn exchange(
    shared: &Arc<Shared>,
    turn: &Turn,
    target: &Target,
    asked: Range,
) -> Result<(Connected, Response<Incoming>), FetchError> {
    let limits = &shared.config.limits;
    let connecting = || {
        let connecting = connect(shared, &target.origin);
        within(Wait::Connect, limits.connect_timeout, connecting)
    };
    // Whichever comes first. A connection that is begun and not needed is given up.
    let (mut connection, is_new) = tokio::select! {
        biased;
        kept = shared.pool.returned(turn) => (kept, false),
        made = connecting() => (made?, true),
    };
    if !is_new {
        let request = request(target, asked)?;
        let sent = async {
            // It was given back when its last body ended, which its task may only be about to notice.
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        match timeout(limits.head_timeout, sent).await {
            Ok(Ok(response)) => return Ok((connection, response)),
            Ok(Err(error)) if error.is_parse() => return Err(broken(&target.origin, &error)),
            Ok(Err(error)) => {
                tracing::debug!(host = %target.origin, "a kept connection has ended: {error}");
            }
            Err(_) => return Err(timed_out(limits.head_timeout)),
        }
        connection = connecting().await?;
    }
    let sent = connection.sender.send_request(request(target, asked)?);
    match timeout(limits.head_timeout, sent).await {
        Ok(Ok(response)) => Ok((connection, response)),
        Ok(Err(error)) => Err(broken(&target.origin, &error)),
        Err(_) => Err(timed_out(limits.head_timeout)),
    }
}

fn timed_out(after: Duration) -> FetchError {
    FetchError::TimedOut {
        wait: Wait::Head,
        after,
    }
}

/// A pre-signed URL carries all there is to say; any further header might spoil the signature.
fn request(target: &Target, asked: Range) -> Result<Request<Empty<Bytes>>, FetchError> {
    let host = HeaderValue::try_from(target.origin.authority(false));
    Request::builder()
        .method(Method::GET)
        .uri(target.path.as_str())
        .header(HOST, host.map_err(|_| FetchError::Url("has no host"))?)
        .header(USER_AGENT, "otad")
        .header(ACCEPT_ENCODING, "identity")
        .header(RANGE, format!("bytes={}-{}", asked.offset, asked.last()))
        .body(Empty::new())
        .map_err(|_| FetchError::Url("cannot be asked for"))
}

/// Room that is made for a body before it comes: the longest range that an agent may ask for.
const CAPACITY_MAX_BYTES: usize = 128 * 1024;

/// The body, which is as long as it was announced or an error.
async fn read(
    shared: &Shared,
    target: &Target,
    mut body: Incoming,
    expected: usize,
) -> Result<Bytes, FetchError> {
    let after = shared.config.limits.idle_timeout;
    let mut bytes = BytesMut::with_capacity(expected.min(CAPACITY_MAX_BYTES));
    loop {
        let Ok(frame) = timeout(after, body.frame()).await else {
            let wait = Wait::Body;
            return Err(FetchError::TimedOut { wait, after });
        };
        let data = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers say nothing that matters.
                Err(_) => continue,
            },
            Some(Err(error)) if is_end(&error) => break,
            Some(Err(error)) => return Err(broken(&target.origin, &error)),
            None => break,
        };
        if bytes.len() + data.len() > expected {
            return Err(FetchError::Long { expected });
        }
        bytes.extend_from_slice(&data);
    }
    if bytes.len() < expected {
        let got = bytes.len();
        return Err(FetchError::Short { got, expected });
    }
    Ok(bytes.freeze())
}

/// Whether a body ended before its length was reached.
fn is_end(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    error.is_incomplete_message()
        || source.is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
}

/// Reads what is left of a body; false = that was too long a business, and the connection is of no more use.
async fn drain(mut body: Incoming) -> bool {
    let reading = async {
        let mut count = 0;
        while let Some(Ok(frame)) = body.frame().await {
            count += frame.data_ref().map_or(0, Bytes::len);
            if count > DRAIN_MAX_BYTES {
                return false;
            }
        }
        true
    };
    timeout(DRAIN_TIME, reading).await.unwrap_or(false)
}
