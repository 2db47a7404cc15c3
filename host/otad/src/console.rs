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
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

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

/// Start logging to standard error. The filter is `info`, `debug`, or `info,host_mqtt=debug` and so on.
///
/// # Errors
/// [`Exit::Usage`] for a filter that is none.
pub fn start(filter: &str, format: LogFormat) -> Result<(), Failed> {
    let filter = parse(filter).map_err(|e| {
        Failed::new(
            Exit::Usage,
            format!("log filter \"{filter}\": {e}; {SUCH_AS}"),
        )
    })?;
    let lines = Lines {
        journal: std::env::var_os("JOURNAL_STREAM").is_some(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let (filter, handle) = reload::Layer::new(filter);
    let registry = Registry::default().with(filter).with(Places);
    let started = match format {
        LogFormat::Text => registry
            .with(
                layer
                    .with_ansi(std::io::stderr().is_terminal() && !lines.journal)
                    .event_format(lines),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                layer
                    .fmt_fields(JsonFields::new())
                    .event_format(Format::default().json().flatten_event(false)),
            )
            .try_init(),
    };
    // A second start in one process (tests, the demo) keeps the first.
    if started.is_ok() {
        drop(FILTER.set(handle));
    }
    Ok(())
}

/// What a filter looks like.
pub(crate) const SUCH_AS: &str = "such as `info` or `info,host_mqtt=debug`";

/// Whether a filter is one.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|e| e.to_string())
}

/// The filter of this process's log.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Log by another filter from now on. One that is none is reported and changes nothing.
pub fn filter_again(filter: &str) {
    let Some(handle) = FILTER.get() else {
        return;
    };
    let changed = parse(filter).and_then(|filter| handle.reload(filter).map_err(|e| e.to_string()));
    if let Err(e) = changed {
        tracing::warn!("log filter \"{filter}\": {e}; the former one stays");
    }
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
        let mut line = Line::default();
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                if let Some(place) = span.extensions().get::<Place>() {
                    line.take_place(place);
                }
            }
        }
        event.record(&mut line);
        writeln!(writer, "{line}")
    }
}

/// Where something happens: the fields of spans and events that go before the text.
#[derive(Clone, Default)]
struct Place {
    device: Option<String>,
    target: Option<String>,
}

/// Remembers the place of each span; everything else about spans is for the JSON lines.
struct Places;

impl<S> Layer<S> for Places
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = Line::default();
        attributes.record(&mut line);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(line.place);
        }
    }
}

/// One line being put together.
#[derive(Default)]
struct Line {
    place: Place,
    operation: Option<String>,
    message: String,
    others: String,
}

impl Line {
    fn take_place(&mut self, place: &Place) {
        let take = |ours: &mut Option<String>, theirs: &Option<String>| {
            if theirs.is_some() {
                ours.clone_from(theirs);
            }
        };
        take(&mut self.place.device, &place.device);
        take(&mut self.place.target, &place.target);
    }

    fn field(&mut self, name: &str, value: String) {
        match name {
            "message" => self.message = value,
            "device" => self.place.device = Some(value),
            "target" => self.place.target = Some(value),
            // Of a target: `close failed: …`.
            "operation" => self.operation = Some(value),
            // `DEVICE/TARGET`, of a plugin's own lines and what is said of it.
            "plugin" => match value.split_once('/') {
                Some((device, target)) => {
                    self.place.device = Some(device.to_owned());
                    self.place.target = Some(target.to_owned());
                }
                None => self.others.push_str(&format!(" plugin={value}")),
            },
            // Said when the job is taken; the rest of the story is about it.
            "job" => {}
            // Records of libraries that log by the `log` crate: where in their source, which the target says well enough.
            "log.target" | "log.module_path" | "log.file" | "log.line" => {}
            _ => self.others.push_str(&format!(" {name}={value}")),
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field.name(), format!("{value:?}"));
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.place.device {
            write!(f, "{device}: ")?;
        }
        if let Some(target) = &self.place.target {
            write!(f, "{target}: ")?;
        }
        if let Some(operation) = &self.operation {
            write!(f, "{operation} ")?;
        }
        write!(f, "{}{}", self.message, self.others)
    }
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
    fn device_and_target_go_before_the_text_and_the_job_is_left_out() {
        let line = |fields: &[(&str, &str)]| {
            let mut line = Line::default();
            for (name, value) in fields {
                line.field(name, (*value).to_owned());
            }
            line.to_string()
        };
        let message = ("message", "slot-b is next");
        assert_eq!(line(&[message]), "slot-b is next");
        assert_eq!(
            line(&[message, ("plugin", "pump-1/main")]),
            "pump-1: main: slot-b is next"
        );
        assert_eq!(
            line(&[message, ("device", "pump-1"), ("job", "j"), ("code", "3")]),
            "pump-1: slot-b is next code=3"
        );
        assert_eq!(
            line(&[
                ("message", "no session"),
                ("log.target", "rustls"),
                ("log.line", "7")
            ]),
            "no session"
        );
        assert_eq!(
            line(&[("operation", "close"), ("message", "failed: no room")]),
            "close failed: no room"
        );
    }

    #[test]
    fn a_filter_that_is_none_is_refused_in_words() {
        let failed = start("info,=,=", LogFormat::Text).unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
    }
}
