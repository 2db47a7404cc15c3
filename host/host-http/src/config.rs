//! What an operator says about fetching by URL, checked before anything is opened.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{self, Networks};
use crate::error::{FetchError, HttpError};
use crate::proxy::Proxies;

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of the machine.
    #[default]
    System,
    /// Those in these PEM files, and no others.
    Files(Vec<PathBuf>),
}

/// Numbers with a unit and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to one server, and so ranges under way at it. 32 ranges of 128 KiB are 4 MiB, which fills 100 Mbit/s at
    /// 200 ms (2.5 MB) with air.
    pub connections_per_host_max: usize,
    /// Ranges that one device may have asked for and not got yet; more fail at once with 0xd1. Twice the connections, so
    /// that the next ranges wait here while the last arrive: 8 MiB of bodies at most.
    pub ranges_per_device_max: usize,
    /// Connections that nobody uses now, to all servers together.
    pub idle_connections_max: usize,
    /// After this long without use a connection is closed. S3 does so after some 20 s, most others after a minute.
    pub idle_connection_max: Duration,
    /// Name resolution, TCP, proxy and TLS together.
    pub connect_timeout: Duration,
    /// From the request to the end of the answer's head.
    pub head_timeout: Duration,
    /// Between two pieces of a body.
    pub idle_timeout: Duration,
    /// One range, redirects and all, once it has its turn: 128 KiB in 120 s are 1.1 kB/s, so who sends a byte now and then
    /// holds a connection no longer than that.
    pub range_timeout: Duration,
    /// Redirects of one request. S3 sends one.
    pub redirects_max: u32,
    /// Head of an answer; S3's have some 500 bytes.
    pub head_max_bytes: usize,
    /// Longest that a busy server (429, 503) is left alone because it asks for that. Servers ask for seconds; and the range
    /// that waits for it must still be wanted then, which an agent gives 60 s in all unless it is told otherwise. Eight such
    /// waits, after which an agent takes another way, are no longer than an outage that it has to bear anyway.
    pub retry_after_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_host_max: 32,
            ranges_per_device_max: 64,
            idle_connections_max: 64,
            idle_connection_max: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(20),
            head_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(10),
            range_timeout: Duration::from_secs(120),
            redirects_max: 3,
            head_max_bytes: 32 * 1024,
            retry_after_max: Duration::from_secs(45),
        }
    }
}

/// Everything about fetching by URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Whose certificates are believed.
    pub roots: Roots,
    /// Hosts that may be asked, by name or as `*.example.com`; empty = any.
    pub allow_hosts: Vec<String>,
    /// Networks that may be connected to although they are not public.
    pub allow_networks: Networks,
    /// Development only: URLs without TLS.
    pub allow_plain: bool,
    /// Proxies between here and the servers.
    pub proxies: Proxies,
    /// Sizes and times.
    pub limits: Limits,
}

/// Smallest [`Limits::head_max_bytes`] that the HTTP library takes.
const HEAD_MIN_BYTES: usize = 8 * 1024;

impl HttpConfig {
    /// What can be seen without opening anything.
    ///
    /// # Errors
    /// A value that cannot be.
    pub fn check(&self) -> Result<(), HttpError> {
        for host in &self.allow_hosts {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let is_address = host.parse::<IpAddr>().is_ok();
            if !is_address && (name.is_empty() || name.contains(['*', '/', ':', '@', ' '])) {
                return Err(HttpError::Value {
                    what: "allowed host",
                    value: host.clone(),
                    expected: "a name such as bucket.s3.amazonaws.com or *.amazonaws.com",
                });
            }
        }
        let limits = &self.limits;
        let counts = [
            limits.connections_per_host_max,
            limits.ranges_per_device_max,
        ];
        if counts.contains(&0) {
            return Err(HttpError::Value {
                what: "connections or ranges",
                value: "0".to_owned(),
                expected: "at least 1",
            });
        }
        if limits.head_max_bytes < HEAD_MIN_BYTES {
            return Err(HttpError::Value {
                what: "head limit",
                value: limits.head_max_bytes.to_string(),
                expected: "at least 8192 bytes",
            });
        }
        Ok(())
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// [`FetchError::Address`]: it is not public and lies in no network that was allowed.
    pub fn check_address(&self, address: IpAddr) -> Result<(), FetchError> {
        match address::special(address) {
            Some(kind) if !self.allow_networks.contain(address) => {
                Err(FetchError::Address { address, kind })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a host may be asked, by its name alone.
    pub(crate) fn check_host(&self, host: &str) -> Result<(), FetchError> {
        let is_listed = |entry: &String| match entry.strip_prefix("*.") {
            None => entry.eq_ignore_ascii_case(host),
            Some(domain) => host.len().checked_sub(domain.len() + 1).is_some_and(|at| {
                host.is_char_boundary(at + 1)
                    && host.as_bytes()[at] == b'.'
                    && host[at + 1..].eq_ignore_ascii_case(domain)
            }),
        };
        if self.allow_hosts.is_empty() || self.allow_hosts.iter().any(is_listed) {
            Ok(())
        } else {
            Err(FetchError::Host(host.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_hosts_lets_its_names_and_their_subdomains_in() {
        let config = HttpConfig {
            allow_hosts: vec!["cdn.example.org".into(), "*.Amazonaws.com".into()],
            ..HttpConfig::default()
        };
        config.check().unwrap();
        let rows = [
            ("cdn.example.org", true),
            ("CDN.Example.ORG", true),
            ("x.cdn.example.org", false),
            ("bucket.s3.amazonaws.com", true),
            ("amazonaws.com", false),
            ("notamazonaws.com", false),
            ("amazonaws.com.example", false),
            ("", false),
        ];
        for (host, allowed) in rows {
            assert_eq!(config.check_host(host).is_ok(), allowed, "{host}");
        }
        assert!(HttpConfig::default().check_host("anything").is_ok());
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        type Change = fn(&mut HttpConfig);
        let rows: &[(&str, Change)] = &[
            ("allowed host", |c| c.allow_hosts.push("*.".into())),
            ("allowed host", |c| c.allow_hosts.push("https://x".into())),
            ("connections", |c| c.limits.connections_per_host_max = 0),
            ("ranges", |c| c.limits.ranges_per_device_max = 0),
            ("head limit", |c| c.limits.head_max_bytes = 8191),
        ];
        for (name, change) in rows {
            let mut config = HttpConfig::default();
            assert!(config.check().is_ok());
            change(&mut config);
            let text = config.check().unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
        }
    }
}
