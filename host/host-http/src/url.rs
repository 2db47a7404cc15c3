//! A URL, as far as one request needs it.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use hyper::http::uri::{PathAndQuery, Scheme};

use crate::error::FetchError;

/// Longest URL. The runtime lets 8 KiB through; a pre-signed one of S3 has some 1.5 KiB.
pub(crate) const URL_MAX_BYTES: usize = 8 * 1024;

/// Longest host name of DNS.
const HOST_MAX_BYTES: usize = 253;

/// Where to connect: what connections are kept by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) is_tls: bool,
    /// In lower case, an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The address, where the host is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// As in a `Host` header, and in CONNECT with `always_port`.
    pub(crate) fn authority(&self, always_port: bool) -> String {
        let default = if self.is_tls { 443 } else { 80 };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == default && !always_port {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority(false))
    }
}

/// One thing to ask for. Its `Debug` keeps path and query to itself: they may be a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) origin: Origin,
    pub(crate) path: PathAndQuery,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.origin)
    }
}

impl Target {
    /// Reads an absolute URL.
    pub(crate) fn parse(url: &str) -> Result<Self, FetchError> {
        if url.len() > URL_MAX_BYTES {
            return Err(FetchError::Url("is longer than 8 KiB"));
        }
        let Some((scheme, _)) = url.split_once("://") else {
            return Err(FetchError::Url("has no scheme"));
        };
        let is_tls = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return Err(FetchError::Scheme(scheme.chars().take(32).collect()));
        };
        // The part behind it is for browsers; the library would cut it off in silence.
        if url.contains('#') {
            return Err(FetchError::Url("has a fragment"));
        }
        let uri: Uri = url.parse().map_err(|_| FetchError::Url("cannot be read"))?;
        Self::of(&uri, is_tls)
    }

    fn of(uri: &Uri, is_tls: bool) -> Result<Self, FetchError> {
        let authority = uri.authority().ok_or(FetchError::Url("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(FetchError::Url("holds a user name or password"));
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host)
            .to_ascii_lowercase();
        if host.is_empty() || host.len() > HOST_MAX_BYTES {
            return Err(FetchError::Url("has no host"));
        }
        let rest = authority.as_str().rsplit(']').next().unwrap_or_default();
        let port = match authority.port_u16() {
            Some(0) => return Err(FetchError::Url("has no valid port")),
            Some(port) => port,
            None if rest.contains(':') => return Err(FetchError::Url("has no valid port")),
            None if is_tls => 443,
            None => 80,
        };
        let path = uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self {
            origin: Origin { is_tls, host, port },
            path,
        })
    }

    /// Where a `Location` leads from here: to the same scheme only.
    pub(crate) fn follow(&self, location: &str) -> Result<Self, FetchError> {
        let wrong = |why| FetchError::Redirect {
            host: self.origin.to_string(),
            why,
        };
        // Browsers ignore the fragment of a redirect; there is nothing to find at it.
        let location = location.split('#').next().unwrap_or_default();
        if location.len() > URL_MAX_BYTES {
            return Err(wrong("to a URL of more than 8 KiB"));
        }
        if location.starts_with('/') && !location.starts_with("//") {
            let path = location
                .parse()
                .map_err(|_| wrong("to a path that cannot be read"))?;
            return Ok(Self {
                origin: self.origin.clone(),
                path,
            });
        }
        let uri: Uri = location
            .parse()
            .map_err(|_| wrong("to a URL that cannot be read"))?;
        let scheme = if self.origin.is_tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        match uri.scheme() {
            Some(found) if *found == scheme => Self::of(&uri, self.origin.is_tls),
            Some(_) => Err(wrong("to another scheme")),
            None => Err(wrong("to what is neither a URL nor a path")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match Target::parse(url) {
            Ok(target) => format!(
                "{} {} {}",
                target.origin.is_tls,
                target.origin.authority(true),
                target.path
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_url_is_read_or_named_as_what_it_is() {
        let rows = [
            ("https://a.b/c?d=e%2f", "true a.b:443 /c?d=e%2f"),
            ("HTTPS://A.B:8443", "true a.b:8443 /"),
            ("http://[::1]:80/x", "false [::1]:80 /x"),
            ("https://[::1]/x", "true [::1]:443 /x"),
            ("https://a?x=1", "true a:443 /?x=1"),
            ("ftp://a/b", "no downloader for `ftp` URLs"),
            ("demo://x", "no downloader for `demo` URLs"),
            ("a/b", "the URL has no scheme"),
            ("https://", "the URL cannot be read"),
            ("https:///x", "the URL cannot be read"),
            ("https://u:p@a/x", "the URL holds a user name or password"),
            ("https://a:0/x", "the URL has no valid port"),
            ("https://a:99999/x", "the URL has no valid port"),
            ("https://a:/x", "the URL has no valid port"),
            ("https://a/x#y", "the URL has a fragment"),
            ("https://a/x y", "the URL cannot be read"),
            ("https://ä/x", "the URL cannot be read"),
            ("https://a\r\nX: y/", "the URL cannot be read"),
        ];
        for (url, expected) in rows {
            assert_eq!(shown(url), expected, "{url:?}");
        }
        assert_eq!(
            shown(&format!("https://a/{}", "x".repeat(8 * 1024))),
            "the URL is longer than 8 KiB"
        );
    }

    #[test]
    fn a_redirect_keeps_its_scheme() {
        let from = Target::parse("https://a.b/c?k").unwrap();
        let rows = [
            ("https://x.y/z?q", Ok("x.y:443 /z?q")),
            ("https://x.y:444/", Ok("x.y:444 /")),
            ("/other?r#there", Ok("a.b:443 /other?r")),
            ("http://x.y/z", Err("to another scheme")),
            ("ftp://x.y/z", Err("to another scheme")),
            ("//x.y/z", Err("neither a URL")),
            ("other", Err("neither a URL")),
            ("", Err("cannot be read")),
            ("https://u@x.y/", Err("user name")),
        ];
        for (location, expected) in rows {
            let found = from.follow(location);
            match (found, expected) {
                (Ok(t), Ok(text)) => {
                    assert_eq!(format!("{} {}", t.origin.authority(true), t.path), text);
                }
                (Err(e), Err(part)) => {
                    assert!(e.to_string().contains(part), "{location}: {e}");
                }
                (found, _) => panic!("{location}: {found:?}"),
            }
        }
    }

    #[test]
    fn neither_path_nor_query_is_shown() {
        let target = Target::parse("https://a.b/secret?X-Amz-Signature=00").unwrap();
        assert_eq!(format!("{target:?}"), "a.b/…");
    }
}
