//! What the console of `otad run` looks like: one line an event, on standard error, with time, level and device.
//!
//! ```text
//! 23:39:32.123  info pump-1: connected to gateway.example:8883, session present: no
//! ```
//!
//! Under systemd (which says so through `JOURNAL_STREAM`) the time is left to the journal and the level goes in its
//! priority prefix; with `--log-format json` every line is a JSON object. Not here: what is said; that is the agent's and
//! the adapters' business.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::exit::{Exit, Failed};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people and the journal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Start logging to standard error. The filter is `info`, `debug`, or `info,host_mqtt=debug` and so on; `OTAD_LOG`
/// overrides it.
///
/// # Errors
/// [`Exit::Usage`] for a filter that is none.
pub fn start(filter: &str, format: LogFormat) -> Result<(), Failed> {
    let text = std::env::var("OTAD_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|e| {
        Failed::new(
            Exit::Usage,
            format!("log filter \"{text}\": {e}; such as `info` or `info,host_mqtt=debug`"),
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let lines = Lines {
        journal: std::env::var_os("JOURNAL_STREAM").is_some(),
    };
    let started = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal() && !lines.journal)
            .event_format(lines)
            .try_init(),
        LogFormat::Json => builder
            .fmt_fields(JsonFields::new())
            .event_format(Format::default().json().flatten_event(true))
            .try_init(),
    };
    // A second start in one process (tests, the demo) keeps the first.
    drop(started);
    Ok(())
}

/// Formats lines for people.
struct Lines {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            write!(writer, "<{}>", priority(level))?;
        } else {
            write!(writer, "{} ", time_of_day())?;
            level_word(&mut writer, level)?;
        }
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                if let Some(fields) = extensions.get::<FormattedFields<N>>()
                    && !fields.is_empty()
                {
                    write!(writer, "{}: ", values(fields))?;
                }
            }
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// `name="pump-1" job="x"` -> `pump-1 x`: the names of the fields are plain from their place.
fn values(fields: &str) -> String {
    let mut out = String::new();
    for part in fields.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        let value = part.split_once('=').map_or(part, |(_, value)| value);
        out.push_str(value.trim_matches('"'));
    }
    out
}

/// syslog(3), as sd-daemon(3) has them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn level_word(writer: &mut Writer<'_>, level: Level) -> fmt::Result {
    let (word, colour) = match level {
        Level::ERROR => ("error", 31),
        Level::WARN => (" warn", 33),
        Level::INFO => (" info", 32),
        Level::DEBUG => ("debug", 34),
        Level::TRACE => ("trace", 35),
    };
    if writer.has_ansi_escapes() {
        write!(writer, "\x1b[{colour}m{word}\x1b[0m ")
    } else {
        write!(writer, "{word} ")
    }
}

/// UTC, `hh:mm:ss.mmm`.
#[expect(
    clippy::disallowed_methods,
    reason = "the time of a log line; no decision hangs on it"
)]
fn time_of_day() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let (s, ms) = (now.as_secs() % 86_400, now.subsec_millis());
    let mut text = String::with_capacity(12);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:02}:{:02}:{:02}.{ms:03}",
        s / 3600,
        s / 60 % 60,
        s % 60
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_fields_are_shown_by_their_values() {
        assert_eq!(values("name=\"pump-1\""), "pump-1");
        assert_eq!(values("name=\"pump-1\" job=\"j-1\""), "pump-1 j-1");
    }

    #[test]
    fn a_filter_that_is_none_is_refused_in_words() {
        let failed = start("info,=,=", LogFormat::Text).unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
    }
}
