//! What is wrong with a configuration, where, and what to do: `file:line:column: message`, the source line, a caret.
//!
//! All errors of a run are collected and printed together, in the order of the file. Not here: any knowledge of keys.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file as a whole.
    File,
    /// A run of bytes of the file.
    Span(Range<usize>),
    /// An environment variable, with the text it holds.
    Environment {
        /// Its name.
        name: String,
        /// Its value.
        text: String,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub origin: Origin,
    /// What was wrong, with both values.
    pub message: String,
    /// What to do, if known.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without advice.
    #[must_use]
    pub fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            origin,
            message: message.into(),
            help: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Everything that is wrong with one configuration.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.render())]
pub struct ConfigError {
    file: PathBuf,
    source_text: String,
    diagnostics: Vec<Diagnostic>,
}

/// Most diagnostics printed; the rest is counted. More than a screen helps nobody.
const SHOWN_MAX: usize = 20;

impl ConfigError {
    /// An error over `file` with text `source`; diagnostics are put in the order of the file.
    #[must_use]
    pub fn new(file: &Path, source: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|d| match &d.origin {
            Origin::Span(span) => (0, span.start),
            Origin::File => (1, 0),
            Origin::Environment { .. } => (2, 0),
        });
        Self {
            file: file.to_owned(),
            source_text: source.to_owned(),
            diagnostics,
        }
    }

    /// What is wrong, in the order of the file.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Line and column (from 1) of a diagnostic, if it lies in the file.
    #[must_use]
    pub fn position(&self, diagnostic: &Diagnostic) -> Option<(usize, usize)> {
        match &diagnostic.origin {
            Origin::Span(span) => Some(position(&self.source_text, span.start)),
            Origin::File | Origin::Environment { .. } => None,
        }
    }

    fn render(&self) -> String {
        let mut out = String::new();
        for diagnostic in self.diagnostics.iter().take(SHOWN_MAX) {
            self.render_one(&mut out, diagnostic);
        }
        let hidden = self.diagnostics.len().saturating_sub(SHOWN_MAX);
        if hidden > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "and {hidden} more");
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn render_one(&self, out: &mut String, diagnostic: &Diagnostic) {
        let file = self.file.display();
        let message = &diagnostic.message;
        // Writing to a String cannot fail, so the results below carry nothing.
        let _ = match &diagnostic.origin {
            Origin::File => writeln!(out, "{file}: {message}"),
            Origin::Environment { name, text } => {
                let text = if is_secret(name) {
                    "…"
                } else {
                    &shorten(text)
                };
                writeln!(out, "environment {name}={text}: {message}")
            }
            Origin::Span(span) => {
                let (line, column) = position(&self.source_text, span.start);
                let _ = writeln!(out, "{file}:{line}:{column}: {message}");
                excerpt(out, &self.source_text, span, line, column)
            }
        };
        if let Some(help) = &diagnostic.help {
            let _ = writeln!(out, "  help: {help}");
        }
    }
}

/// Whether what is called so must not be shown: a password belongs neither into the file nor into an override, and
/// whoever puts it there all the same is told so in a log.
fn is_secret(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("password")
}

/// Line and column of a byte, both from 1; columns count characters.
fn position(source: &str, byte: usize) -> (usize, usize) {
    let byte = floor_boundary(source, byte);
    let before = &source[..byte];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (line, source[start..byte].chars().count() + 1)
}

fn floor_boundary(source: &str, byte: usize) -> usize {
    (0..=byte.min(source.len()))
        .rev()
        .find(|i| source.is_char_boundary(*i))
        .unwrap_or(0)
}

fn excerpt(
    out: &mut String,
    source: &str,
    span: &Range<usize>,
    line: usize,
    column: usize,
) -> std::fmt::Result {
    let text = masked(source.lines().nth(line - 1).unwrap_or(""));
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let end = floor_boundary(source, span.end);
    let start = floor_boundary(source, span.start).min(end);
    let marked = source[start..end].lines().next().unwrap_or("");
    let carets = "^".repeat(marked.chars().count().max(1));
    let pad: String = text
        .chars()
        .take(column - 1)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    writeln!(out, "{gutter} |")?;
    writeln!(out, "{number} | {text}")?;
    writeln!(out, "{gutter} | {pad}{carets}")
}

/// A line of the file up to the value of a `password`.
fn masked(line: &str) -> String {
    let value = line.match_indices("password").find_map(|(at, word)| {
        let rest = line[at + word.len()..].trim_start_matches(['"', '\'', ' ', '\t']);
        rest.starts_with('=').then(|| line.len() - rest.len() + 1)
    });
    match value {
        Some(at) => format!("{} …", &line[..at]),
        None => line.to_owned(),
    }
}

fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The known word nearest to `word`, if one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (distance(word, k), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// Levenshtein's distance; words of a configuration are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_stands_where_it_should_not_is_told_and_not_shown() {
        let source =
            "mqtt = { user_name = \"x\", \"password\" = \"s3cret\" }\npassword_file = \"p\"\n";
        let variable = Origin::Environment {
            name: "OTAD_DEVICE__0__MQTT__PASSWORD".to_owned(),
            text: "s3cret".to_owned(),
        };
        let error = ConfigError::new(
            Path::new("otad.toml"),
            source,
            vec![
                Diagnostic::new(Origin::Span(0..4), "no"),
                Diagnostic::new(Origin::Span(50..63), "no"),
                Diagnostic::new(variable, "no"),
            ],
        );
        let text = error.to_string();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("password_file = \"p\""), "{text}");
        assert!(text.contains("\"password\" = …"), "{text}");
        assert!(text.contains("MQTT__PASSWORD=…: no"), "{text}");
    }

    #[test]
    fn a_diagnostic_shows_line_column_source_and_help() {
        let source = "a = 1\nendpont = \"x\"\n";
        let error = ConfigError::new(
            Path::new("otad.toml"),
            source,
            vec![
                Diagnostic::new(Origin::Span(6..13), "unknown key `endpont`")
                    .help("did you mean `endpoint`?"),
            ],
        );
        assert_eq!(
            error.to_string(),
            "otad.toml:2:1: unknown key `endpont`\n  |\n2 | endpont = \"x\"\n  | ^^^^^^^\n  help: did you mean `endpoint`?"
        );
    }

    #[test]
    fn a_span_beyond_or_inside_a_character_does_not_panic() {
        let source = "ä = 1";
        for start in 0..9 {
            let error = ConfigError::new(
                Path::new("f"),
                source,
                vec![Diagnostic::new(Origin::Span(start..start + 3), "m")],
            );
            assert!(error.to_string().starts_with("f:1:"));
        }
    }

    #[test]
    fn the_nearest_word_is_near_or_none() {
        let known = ["endpoint", "port", "client_id"];
        assert_eq!(nearest("endpont", known), Some("endpoint"));
        assert_eq!(nearest("banana", known), None);
    }
}
