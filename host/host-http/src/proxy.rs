//! Proxies, as the environment of most programs says them: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in either case.
//!
//! Only what goes over TLS is sent through one, by CONNECT: the proxy sees names, never content. URLs without TLS are a
//! development setting and go straight. Not here: SOCKS, proxies that speak TLS themselves, automatic configuration.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;

use crate::address::Networks;

/// Most entries of a list of exceptions.
const EXCEPTIONS_MAX: usize = 256;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of `Proxy-Authorization`.
    pub(crate) authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Which way to which server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Proxy>,
    all_direct: bool,
    names: Vec<String>,
    networks: Networks,
}

/// A variable that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {why}, expected http://host:port")]
pub struct ProxyError {
    variable: String,
    why: &'static str,
}

impl Proxies {
    /// No proxy at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What the environment says; `variable` looks one up. The lower-case name wins, as in curl.
    ///
    /// # Errors
    /// A proxy that is none. Its value may hold a password and is not told.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let find = |names: &[&'static str]| {
            names
                .iter()
                .find_map(|&name| Some((name, variable(name).filter(|v| !v.trim().is_empty())?)))
        };
        let mut proxies = Self::default();
        let https = find(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
        if let Some((name, value)) = https {
            let proxy = parse(value.trim()).map_err(|why| ProxyError {
                variable: name.to_owned(),
                why,
            })?;
            proxies.https = Some(proxy);
        }
        if let Some((_, list)) = find(&["no_proxy", "NO_PROXY"]) {
            proxies.except(&list);
        }
        Ok(proxies)
    }

    /// Hosts that are connected to directly: names (with their subdomains), addresses, networks, `*`.
    fn except(&mut self, list: &str) {
        let entries = list.split([',', ' ']).map(str::trim);
        for entry in entries.filter(|e| !e.is_empty()).take(EXCEPTIONS_MAX) {
            if entry == "*" {
                self.all_direct = true;
            } else if self.networks.add(entry).is_err() {
                // Any spelling of a domain is in use: example.com, .example.com, *.example.com, with a port.
                let name = entry.trim_start_matches('*').trim_start_matches('.');
                let name = name.split_once(':').map_or(name, |(name, _)| name);
                self.names.push(name.to_ascii_lowercase());
            }
        }
    }

    /// The proxy on the way to a host (in lower case) over TLS; none = straight.
    pub(crate) fn to(&self, host: &str) -> Option<&Proxy> {
        let proxy = self.https.as_ref()?;
        let is_excepted = match host.parse::<IpAddr>() {
            Ok(address) => self.networks.contain(address),
            Err(_) => self.names.iter().any(|name| {
                host.strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        };
        (!self.all_direct && !is_excepted).then_some(proxy)
    }
}

fn parse(text: &str) -> Result<Proxy, &'static str> {
    let text = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err("is no http:// proxy"),
        None => text,
    };
    let text = text.trim_end_matches('/');
    let (login, address) = match text.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, text),
    };
    let uri: Uri = format!("http://{address}/")
        .parse()
        .map_err(|_| "cannot be read")?;
    let host = uri.host().unwrap_or_default();
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || uri.path() != "/" {
        return Err("cannot be read");
    }
    let authorization = match login {
        Some(login) => {
            let login = unescaped(login).ok_or("has a login that cannot be read")?;
            Some(format!("Basic {}", STANDARD.encode(login)))
        }
        None => None,
    };
    Ok(Proxy {
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(80),
        authorization,
    })
}

/// Resolves %XX; none = a broken escape, or a control character behind one.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        let value = u8::from_str_radix(digits, 16).ok()?;
        if value.is_ascii_control() {
            return None;
        }
        bytes.push(value);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(set: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_environment(|name| {
            set.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_way_is_the_one_that_the_environment_says() {
        let proxy = ("HTTPS_PROXY", "http://p.example:3128");
        /// Variables, the host asked for, the proxy it goes through.
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);
        let rows: &[Row<'_>] = &[
            (&[], "a.b", None),
            (&[proxy], "a.b", Some("p.example:3128")),
            (&[("https_proxy", "q:1"), proxy], "a.b", Some("q:1")),
            (&[("ALL_PROXY", "[::1]:8080/")], "a.b", Some("::1:8080")),
            (&[("HTTP_PROXY", "http://x:1")], "a.b", None),
            (&[proxy, ("NO_PROXY", "*")], "a.b", None),
            (&[proxy, ("NO_PROXY", "b")], "a.b", None),
            (&[proxy, ("NO_PROXY", "x, .A.b:443")], "a.b", None),
            (&[proxy, ("NO_PROXY", "*.a.b")], "c.a.b", None),
            (
                &[proxy, ("no_proxy", "a.b")],
                "xa.b",
                Some("p.example:3128"),
            ),
            (&[proxy, ("NO_PROXY", "10.0.0.0/8")], "10.2.3.4", None),
            (
                &[proxy, ("NO_PROXY", "10.0.0.0/8")],
                "11.2.3.4",
                Some("p.example:3128"),
            ),
            (&[proxy, ("NO_PROXY", "::1")], "::1", None),
        ];
        for (set, host, expected) in rows {
            let proxies = proxies(set).unwrap();
            let way = proxies.to(host).map(|p| format!("{p:?}"));
            assert_eq!(way.as_deref(), *expected, "{set:?} {host}");
        }
    }

    #[test]
    fn a_login_is_sent_and_never_shown() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://me:s%40cret@p:3128")]).unwrap();
        let proxy = proxies.to("a.b").unwrap();
        let expected = format!("Basic {}", STANDARD.encode("me:s@cret"));
        assert_eq!(proxy.authorization.as_deref(), Some(expected.as_str()));
        assert!(!format!("{proxies:?}").contains("cret"));
    }

    #[test]
    fn a_variable_that_is_no_proxy_is_named_without_its_value() {
        for bad in [
            "https://u:secret@p:1",
            "socks5://u:secret@p",
            "http://u:secret@",
            "u:secr%4@p:1",
            "u:secr%0aet@p",
            "http://u:secret@p/x",
        ] {
            let error = proxies(&[("https_proxy", bad)]).unwrap_err().to_string();
            assert!(
                error.contains("https_proxy") && !error.contains("secr"),
                "{error}"
            );
        }
    }
}
