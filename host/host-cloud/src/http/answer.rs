//! From a request to its answer, in the words of S3 where it has them.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{
        ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, LOCATION,
        RANGE, RETRY_AFTER,
    },
    http::response::Builder,
};

use super::{
    Site,
    body::{ImageBody, Part},
    fault::HttpFault,
    range::{self, Wanted},
    sign::Denied,
};
use crate::images::Taken;

type Answer = Response<ImageBody>;

/// Answers a request.
pub(super) fn answer<B>(site: &Arc<Site>, request: &Request<B>) -> Result<Answer, Infallible> {
    let fault = site.faults.next();
    Ok(answer_with(site, request, fault).unwrap_or_else(|error| {
        // Only a header that cannot be written gets here, and ours can.
        tracing::error!(%error, "no answer could be made");
        Response::new(ImageBody::Text(None))
    }))
}

fn answer_with<B>(
    site: &Arc<Site>,
    request: &Request<B>,
    fault: Option<HttpFault>,
) -> Result<Answer, hyper::http::Error> {
    match fault {
        Some(HttpFault::Expired) => return denied(Denied::Expired),
        Some(HttpFault::Status(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return refused(status, "SlowDown", "on purpose");
        }
        Some(HttpFault::Busy) => {
            return builder(StatusCode::SERVICE_UNAVAILABLE)
                .header(RETRY_AFTER, "1")
                .body(text("SlowDown", "on purpose"));
        }
        Some(HttpFault::RedirectLoop) => return redirect(request, "https"),
        Some(HttpFault::RedirectPlain) => return redirect(request, "http"),
        Some(
            HttpFault::Nothing
            | HttpFault::WrongRange
            | HttpFault::Whole
            | HttpFault::Short
            | HttpFault::Long
            | HttpFault::Slow
            | HttpFault::BrokenTls,
        )
        | None => {}
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let text = text("MethodNotAllowed", "only GET and HEAD");
        return builder(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD")
            .body(text);
    }
    let uri = request.uri();
    let image = match site.signer.check(uri.path(), uri.query(), (site.now_ms)()) {
        Ok(image) => image,
        Err(reason) => return denied(reason),
    };
    let Some(taken) = site.images.find(&image) else {
        return denied(Denied::NotFound);
    };
    let range = request.headers().get(RANGE).and_then(|r| r.to_str().ok());
    let wanted = range::parse(range, taken.size);
    let is_head = request.method() == Method::HEAD;
    send(site, taken, wanted, fault, is_head)
}

fn send(
    site: &Site,
    taken: Taken,
    wanted: Wanted,
    fault: Option<HttpFault>,
    is_head: bool,
) -> Result<Answer, hyper::http::Error> {
    let size = taken.size;
    let etag = format!("\"{}\"", taken.pin.image());
    let wanted = match fault {
        Some(HttpFault::Whole) => Wanted::Whole,
        _ => wanted,
    };
    let (status, first, end) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last + 1),
        Wanted::Nothing => {
            return builder(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(CONTENT_RANGE, format!("bytes */{size}"))
                .body(text("InvalidRange", "the range is outside of the file"));
        }
    };
    // A wrong range begins a byte later; one of a single byte a byte earlier, if the file has one there.
    let first = match fault {
        Some(HttpFault::WrongRange) if first + 1 < end => first + 1,
        Some(HttpFault::WrongRange) => first.saturating_sub(1),
        _ => first,
    };
    let missing = u64::from(fault == Some(HttpFault::Long));
    let short = match fault {
        Some(HttpFault::Short) => (end - first).div_ceil(2),
        _ => 0,
    };
    let mut answer = builder(status)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, etag)
        .header(CONTENT_LENGTH, end - first + missing);
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header(CONTENT_RANGE, format!("bytes {first}-{}/{size}", end - 1));
    }
    if is_head {
        return answer.body(ImageBody::Text(None));
    }
    site.ranges.answer();
    let part = Part {
        counters: Arc::clone(&site.ranges),
        images: Arc::clone(&site.images),
        pin: taken.pin,
        next: first,
        end: end - short,
        missing: missing + short,
        slow: None,
        breaks: None,
    };
    answer.body(ImageBody::Part(match fault {
        Some(HttpFault::Slow) => part.slowly(),
        _ => part,
    }))
}

fn redirect<B>(request: &Request<B>, scheme: &str) -> Result<Answer, hyper::http::Error> {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    builder(StatusCode::TEMPORARY_REDIRECT)
        .header(
            LOCATION,
            format!("{scheme}://{}{path}", host.unwrap_or_default()),
        )
        .body(text("TemporaryRedirect", "on purpose"))
}

fn denied(reason: Denied) -> Result<Answer, hyper::http::Error> {
    let (status, code, message) = match reason {
        Denied::NotFound => (StatusCode::NOT_FOUND, "NoSuchKey", "there is no such image"),
        Denied::Malformed => (
            StatusCode::BAD_REQUEST,
            "AuthorizationQueryParametersError",
            "Expires or Signature cannot be read",
        ),
        Denied::Signature => (
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "the URL was not made by this cloud",
        ),
        Denied::Expired => (StatusCode::FORBIDDEN, "AccessDenied", "Request has expired"),
    };
    refused(status, code, message)
}

fn refused(status: StatusCode, code: &str, message: &str) -> Result<Answer, hyper::http::Error> {
    builder(status).body(text(code, message))
}

fn builder(status: StatusCode) -> Builder {
    Response::builder().status(status)
}

/// An error as S3 writes it. Neither text holds anything that XML would take for its own.
fn text(code: &str, message: &str) -> ImageBody {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    ImageBody::Text(Some(Bytes::from(text)))
}
