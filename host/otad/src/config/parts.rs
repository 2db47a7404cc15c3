//! Parts that stand in for the usual ones: `[[device.notice]]`, topics by which jobs are announced, and `[[download]]`,
//! where images lie whose URL has a scheme of the operator's own.

use host_mqtt::{Brings, Notice};

use super::model::Download;
use super::reader::{Located, Reader, Sink};

/// Most topics of a device: AWS allows 50 subscriptions a connection, of which the agent needs at most 7.
const NOTICES_MAX: usize = 8;

/// Schemes that are fetched over the network.
const NETWORK: [&str; 2] = ["http", "https"];

/// `[[device.notice]]`.
pub(super) fn notices(section: &Reader<'_>) -> Vec<Notice> {
    const KEY: &str = "notice";
    let tables = section.tables(KEY);
    if tables.len() > NOTICES_MAX {
        section.sink.advise(
            &section.place(KEY),
            format!(
                "{} notices of a device, at most {NOTICES_MAX}",
                tables.len()
            ),
            "let several announce on one topic",
        );
    }
    tables.into_iter().filter_map(notice).collect()
}

fn notice(section: Reader<'_>) -> Option<Notice> {
    let topic = section.required_text("topic", "\"site/pump-1/jobs\"");
    let words = [("news", Brings::News), ("job", Brings::Job)];
    let brings = section.choice("brings", &words, Brings::News);
    let has_topic = section.has("topic");
    let sink = section.sink;
    section.finish();
    match Notice::new(&topic.value, brings) {
        Ok(notice) => Some(notice),
        Err(message) => {
            if has_topic {
                sink.advise(
                    &topic.origin,
                    format!("`topic` is {message}"),
                    "name one topic of the broker's that nobody but your own service may publish on",
                );
            }
            None
        }
    }
}

/// `[[download]]`.
pub(super) fn downloads(root: &Reader<'_>) -> Vec<Download> {
    let mut downloads: Vec<Download> = Vec::new();
    for section in root.tables("download") {
        let scheme = section.required_text("scheme", "\"file\"");
        if section.has("scheme") {
            check_scheme(&scheme, &downloads, root.sink);
        }
        let directory = section.path("directory");
        if directory.is_none() && !section.has("directory") {
            section.missing("directory", "\"/srv/images\"");
        }
        section.finish();
        downloads.extend(directory.map(|directory| Download {
            scheme: scheme.value,
            directory,
        }));
    }
    downloads
}

/// RFC 3986 section 3.1, in lower case.
fn check_scheme(scheme: &Located<String>, before: &[Download], sink: &Sink) {
    let text = scheme.value.as_str();
    let is_scheme = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let why = if NETWORK.contains(&text) {
        "is fetched over the network: [http] says how"
    } else if !is_scheme {
        "is no scheme of a URL"
    } else if before.iter().any(|d| d.scheme == text) {
        "stands twice"
    } else {
        return;
    };
    sink.advise(
        &scheme.origin,
        format!("`scheme` \"{text}\" {why}"),
        "write a word of your own in lower case, such as \"file\"; jobs then say `file:///app.img`",
    );
}
