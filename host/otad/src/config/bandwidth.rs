//! `[bandwidth]`: how many bytes a second may come in, by time of day.

use host_runtime::bandwidth::{Cap, Span};

use super::keys;
use super::reader::Reader;
use super::tree::Table;

/// Parts of a day that can be said: each quarter of an hour.
const SPANS_MAX: usize = 96;

pub(super) fn bandwidth(root: &Reader<'_>) -> Cap {
    let empty = Table::new();
    let section = root.table("bandwidth");
    let section = section.unwrap_or_else(|| Reader::root(&empty, root.sink));
    let otherwise = rate(section.number(&keys::BANDWIDTH_BYTES_PER_S));
    let tables = section.tables("at");
    if tables.len() > SPANS_MAX {
        section.sink.advise(
            &section.place("at"),
            format!("{} tables `at`, at most {SPANS_MAX}", tables.len()),
            "the first one that holds the time of day counts; leave out the others",
        );
    }
    let spans = tables.into_iter().filter_map(span).collect();
    section.finish();
    Cap::new(otherwise, spans)
}

/// 0 = no cap, as everywhere in the file; `paused` says that nothing may come.
fn rate(bytes_per_s: u64) -> Option<u64> {
    (bytes_per_s > 0).then_some(bytes_per_s)
}

fn span(table: Reader<'_>) -> Option<Span> {
    let (from, to) = (time(&table, "from"), time(&table, "to"));
    let paused = table.boolean("paused", false);
    let said = table.number_if_set(&keys::BANDWIDTH_AT_BYTES_PER_S);
    if said.is_some() == paused {
        table.sink.advise(
            table.origin(),
            "neither or both of `bytes_per_s` and `paused`".to_owned(),
            "write `bytes_per_s = 50000` (0 = no cap), or `paused = true` for nothing at all",
        );
    }
    let bytes_per_s = match paused {
        true => Some(0),
        false => rate(said.unwrap_or(0)),
    };
    let span = Span::new(from?, to?, bytes_per_s);
    if let Err(error) = &span {
        let advice = "from = \"08:00\", to = \"18:00\"; over midnight too";
        table.sink.advise(table.origin(), error.to_string(), advice);
    }
    table.finish();
    span.ok()
}

/// A minute of the day.
fn time(table: &Reader<'_>, key: &'static str) -> Option<u16> {
    let text = table.required_text(key, "\"08:00\"").value;
    let number = |digits: &str| match digits.as_bytes() {
        [b'0'..=b'9', b'0'..=b'9'] => digits.parse::<u16>().ok(),
        _ => None,
    };
    let minute = text
        .split_once(':')
        .and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)))
        .filter(|(hour, minute)| *hour < 24 && *minute < 60)
        .map(|(hour, minute)| hour * 60 + minute);
    if minute.is_none() && table.has(key) {
        table.sink.advise(
            &table.place(key),
            format!("`{key}` is \"{text}\", expected a time of day"),
            "hours and minutes in UTC, such as \"08:00\" or \"23:30\"",
        );
    }
    minute
}
