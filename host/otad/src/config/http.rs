//! `[http]`: where images may be fetched from by URL, and how.
//!
//! Only what can be told from the file. Names, addresses and certificates are checked whenever a URL is used
//! (`host-http`).

use std::path::PathBuf;
use std::time::Duration;

use host_http::{HttpConfig, Limits, Networks, Roots};

use super::keys;
use super::model::{Development, Http};
use super::reader::{Located, Reader};
use super::tree::Table;

pub(super) fn http(root: &Reader<'_>, development: Development) -> Http {
    let empty = Table::new();
    let section = root.table("http");
    let section = section.unwrap_or_else(|| Reader::root(&empty, root.sink));
    let roots = roots(&section);
    let config = HttpConfig {
        roots: match roots.is_empty() {
            true => Roots::System,
            false => Roots::Files(roots.iter().map(|root| root.value.clone()).collect()),
        },
        allow_hosts: section
            .texts("allow_hosts")
            .map_or_else(Vec::new, |hosts| hosts.value),
        allow_networks: networks(&section),
        allow_plain: development.allow_plaintext_http,
        limits: limits(&section),
        ..HttpConfig::default()
    };
    if let Err(error) = config.check() {
        section.sink.advise(
            &section.place("allow_hosts"),
            error.to_string(),
            "names without scheme, port and path; `*.` in front stands for all below it",
        );
    }
    let http = Http {
        config,
        roots,
        uses_proxy: section.choice("proxy", &[("environment", true), ("none", false)], true),
    };
    section.finish();
    http
}

fn roots(section: &Reader<'_>) -> Vec<Located<PathBuf>> {
    let Some(files) = section.texts("roots") else {
        return Vec::new();
    };
    let origin = files.origin;
    let files = files.value.into_iter().map(|file| Located {
        value: PathBuf::from(section.sink.resolve(&file)),
        origin: origin.clone(),
    });
    files.collect()
}

fn networks(section: &Reader<'_>) -> Networks {
    let mut networks = Networks::default();
    let Some(texts) = section.texts("allow_networks") else {
        return networks;
    };
    for text in &texts.value {
        if let Err(error) = networks.add(text) {
            section.sink.advise(
                &texts.origin,
                format!("`allow_networks`: {error}"),
                "addresses, not names: allow_networks = [\"10.1.0.0/16\", \"127.0.0.1\"]",
            );
        }
    }
    networks
}

fn limits(section: &Reader<'_>) -> Limits {
    let count = |spec| usize::try_from(section.number(spec)).unwrap_or(usize::MAX);
    let time = |spec| Duration::from_millis(section.number(spec));
    Limits {
        connections_per_host_max: count(&keys::HTTP_CONNECTIONS_PER_HOST_MAX),
        ranges_per_device_max: count(&keys::HTTP_RANGES_PER_DEVICE_MAX),
        connect_timeout: time(&keys::HTTP_CONNECT_TIMEOUT_MS),
        head_timeout: time(&keys::HTTP_HEAD_TIMEOUT_MS),
        idle_timeout: time(&keys::HTTP_IDLE_TIMEOUT_MS),
        range_timeout: time(&keys::HTTP_RANGE_TIMEOUT_MS),
        ..Limits::default()
    }
}
