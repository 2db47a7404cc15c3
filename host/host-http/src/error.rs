//! What can be wrong with the configuration, and why a range could not be fetched.
//!
//! No message holds a path or a query: a pre-signed URL is a key.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use host_runtime::types::{Failure, code};

use crate::address::AddressKind;

/// The operator's to mend; trying again does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// A value that cannot be.
    #[error("HTTP {what} is `{value}`, expected {expected}")]
    Value {
        /// Which one.
        what: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A file of root certificates that cannot be read.
    #[error("root certificates {} cannot be read", path.display())]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that holds no root certificates.
    #[error("root certificates {} are of no use: {why}", path.display())]
    Unusable {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library takes no settings of ours.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// No tokio runtime.
    #[error("an HTTP client needs a tokio runtime")]
    NoRuntime,
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Resolving, TCP, proxy, TLS.
    Connect,
    /// The head of the answer.
    Head,
    /// The next piece of the body.
    Body,
    /// The whole of one range.
    Range,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "a connection",
            Self::Head => "the head of the answer",
            Self::Body => "the next bytes of the body",
            Self::Range => "the whole range",
        })
    }
}

/// Why there is no answer that could be believed. Sorted by whose fault it is: the URL's, the way's, the server's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The URL cannot be read.
    #[error("the URL {0}")]
    Url(&'static str),
    /// Neither https nor http.
    #[error("no downloader for `{0}` URLs")]
    Scheme(String),
    /// http without the development setting.
    #[error(
        "{0} is asked for without TLS; use https; in a laboratory: `allow_plaintext_http` in [development]"
    )]
    Plain(String),
    /// Not in the list of allowed hosts.
    #[error("{0} is not among the allowed hosts of [http]")]
    Host(String),
    /// An address that is not public.
    #[error("{address} is a {kind} address and in no network that [http] allows")]
    Address {
        /// Where the URL, or its name, leads.
        address: IpAddr,
        /// What is special about it.
        kind: AddressKind,
    },
    /// As many ranges are under way as may be.
    #[error("{0} ranges are under way, no more at once")]
    TooMany(usize),
    /// The name leads nowhere.
    #[error("{host} cannot be resolved: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// No TCP connection.
    #[error("{peer} cannot be connected to: {why}")]
    Connect {
        /// Address or name.
        peer: String,
        /// What the system says.
        why: String,
    },
    /// The proxy does not let us through.
    #[error("the proxy {proxy} {why}")]
    Proxy {
        /// Its name.
        proxy: String,
        /// What it did.
        why: String,
    },
    /// The certificate, or TLS itself.
    #[error("TLS with {host} failed: {why}")]
    Tls {
        /// The server.
        host: String,
        /// What the library says.
        why: String,
    },
    /// Nobody's certificates are believed.
    #[error("this machine has no root certificates{why}; install them, or set roots in [http]")]
    NoRoots {
        /// In brackets, if anything is known of it.
        why: String,
    },
    /// Something took too long.
    #[error("{wait} took longer than {after:?}")]
    TimedOut {
        /// What was waited for.
        wait: Wait,
        /// How long.
        after: Duration,
    },
    /// The connection ended, or what came is no HTTP.
    #[error("the connection to {host} broke: {why}")]
    Broken {
        /// The server.
        host: String,
        /// What the library says.
        why: String,
    },
    /// More redirects than may be.
    #[error("more than {0} redirects")]
    Redirects(u32),
    /// A redirect that leads nowhere we go.
    #[error("{host} redirects {why}")]
    Redirect {
        /// Who does.
        host: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Several ranges in one answer.
    #[error("the answer has several parts, asked was one range")]
    Multipart,
    /// A compressed answer.
    #[error("the answer is encoded, asked was the file as it is")]
    Encoded,
    /// 206 without, or with an unreadable Content-Range.
    #[error("the answer says not which range it holds")]
    NoRange,
    /// Another range than was asked for.
    #[error(
        "the answer holds bytes {first} to {last}, asked were {offset} and {length} from there"
    )]
    WrongRange {
        /// First byte of the answer.
        first: u64,
        /// Its last.
        last: u64,
        /// First byte asked for.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// Head and range do not fit.
    #[error("the body is said to have {said} bytes, the range has {expected}")]
    Length {
        /// Content-Length.
        said: u64,
        /// Bytes of the range.
        expected: usize,
    },
    /// The body ended early.
    #[error("the body ended after {got} bytes, expected {expected}")]
    Short {
        /// Bytes that came.
        got: usize,
        /// Bytes of the range.
        expected: usize,
    },
    /// The body went on.
    #[error("the body has more than the {expected} bytes of its range")]
    Long {
        /// Bytes of the range.
        expected: usize,
    },
}

/// `failure.main`: OtaHttpInitFailed, the server cannot be reached.
const INIT_FAILED: u8 = 0xc0;

/// `failure.main`: OtaHttpRequestFailed, it was reached and did not do what was asked.
const REQUEST_FAILED: u8 = 0xc2;

impl FetchError {
    /// As the agent is told.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let main = match self {
            Self::Url(_) | Self::Plain(_) | Self::Host(_) | Self::Address { .. } => {
                code::BAD_ARGUMENT
            }
            Self::Scheme(_) => code::UNSUPPORTED,
            Self::TooMany(_) => code::LIMIT,
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Tls { .. }
            | Self::NoRoots { .. } => INIT_FAILED,
            Self::TimedOut { .. } => code::TIMED_OUT,
            Self::Broken { .. }
            | Self::Redirects(_)
            | Self::Redirect { .. }
            | Self::Multipart
            | Self::Encoded
            | Self::NoRange
            | Self::WrongRange { .. }
            | Self::Length { .. }
            | Self::Short { .. }
            | Self::Long { .. } => REQUEST_FAILED,
        };
        Failure::new(main, 0, self.to_string())
    }
}
