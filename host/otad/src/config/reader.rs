//! Reads typed values out of a table and remembers which keys were asked for, so that the rest is an unknown key.
//!
//! An error is noted and a default handed back: the reader goes on, and all errors come out together. Not here: which
//! keys exist; that is `sections.rs`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Origin, nearest};
use super::keys::Number;
use super::tree::{Node, Table, Value};
use super::words::SWITCH;

/// A value that knows where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub origin: Origin,
}

/// Where errors go, and what relative paths are relative to.
#[derive(Debug)]
pub(crate) struct Sink {
    diagnostics: RefCell<Vec<Diagnostic>>,
    base: PathBuf,
    /// All keys that were asked for, in whichever table: a test holds the reference of them against it.
    #[cfg(test)]
    pub(crate) noted: RefCell<Vec<Noted>>,
}

/// A key that was asked for.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Noted {
    /// Name of the table it was asked of.
    pub(crate) table: String,
    pub(crate) key: &'static str,
    /// How it is written, of a switch and of a choice among words.
    pub(crate) form: Option<String>,
    /// What a switch is without it.
    pub(crate) default: Option<bool>,
}

impl Sink {
    pub(crate) fn new(base: &Path) -> Self {
        Self {
            diagnostics: RefCell::new(Vec::new()),
            base: base.to_owned(),
            #[cfg(test)]
            noted: RefCell::default(),
        }
    }

    pub(crate) fn add(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    pub(crate) fn advise(
        &self,
        origin: &Origin,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Diagnostic::new(origin.clone(), message).help(help));
    }

    /// A program's path, relative to the configuration file.
    pub(crate) fn resolve(&self, path: &str) -> String {
        self.base.join(path).to_string_lossy().into_owned()
    }

    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics.into_inner()
    }
}

/// A table being read.
pub(crate) struct Reader<'a> {
    table: &'a Table,
    /// As in the file: `[device.mqtt]`; for messages.
    name: String,
    origin: Origin,
    asked: RefCell<Vec<&'static str>>,
    pub(crate) sink: &'a Sink,
}

impl<'a> Reader<'a> {
    pub(crate) fn root(table: &'a Table, sink: &'a Sink) -> Self {
        Self {
            table,
            name: String::new(),
            origin: Origin::File,
            asked: RefCell::new(Vec::new()),
            sink,
        }
    }

    fn below(&self, key: &str, table: &'a Table, origin: &Origin) -> Self {
        let dot = if self.name.is_empty() { "" } else { "." };
        Reader {
            table,
            name: format!("{}{dot}{key}", self.name),
            origin: origin.clone(),
            asked: RefCell::new(Vec::new()),
            sink: self.sink,
        }
    }

    /// Where this table begins.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    #[cfg(test)]
    fn note(&self, key: &'static str, form: Option<String>, default: Option<bool>) {
        self.sink.noted.borrow_mut().push(Noted {
            table: self.name.clone(),
            key,
            form,
            default,
        });
    }

    fn find(&self, key: &'static str) -> Option<&'a Node> {
        #[cfg(test)]
        self.note(key, None, None);
        self.asked.borrow_mut().push(key);
        self.table.get(key).map(|(_, node)| node)
    }

    /// Whether the key stands there.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        // Some are read only where they stand.
        #[cfg(test)]
        self.note(key, None, None);
        self.table.contains_key(key)
    }

    /// Every key that stands there, and where.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a str, &'a Origin)> {
        let keys = self.table.iter();
        keys.map(|(key, (_, node))| (key.as_str(), &node.origin))
    }

    /// Where the value of `key` stands, or the table if it does not.
    pub(crate) fn place(&self, key: &str) -> Origin {
        self.table
            .get(key)
            .map_or_else(|| self.origin.clone(), |(_, node)| node.origin.clone())
    }

    fn expected(&self, key: &str, what: &str, node: &Node) {
        self.sink.advise(
            &node.origin,
            format!("`{key}` is {}, expected {what}", node.value.kind()),
            how_to_write(key, what),
        );
    }

    pub(crate) fn missing(&self, key: &str, example: &str) {
        let table = if self.name.is_empty() {
            "the file".to_owned()
        } else {
            format!("[{}]", self.name)
        };
        self.sink.advise(
            &self.origin,
            format!("{table} has no `{key}`"),
            format!("add `{key} = {example}`"),
        );
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<Located<String>> {
        let node = self.find(key)?;
        match (&node.value, &node.origin) {
            (Value::Text(text), _) => Some(Located {
                value: text.clone(),
                origin: node.origin.clone(),
            }),
            // The shell has no quotes to say that 12 is a name.
            (Value::Integer(_) | Value::Boolean(_), Origin::Environment { text, .. }) => {
                Some(Located {
                    value: text.clone(),
                    origin: node.origin.clone(),
                })
            }
            _ => {
                self.expected(key, "a string", node);
                None
            }
        }
    }

    pub(crate) fn required_text(&self, key: &'static str, example: &str) -> Located<String> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            self.missing(key, example);
        }
        self.text(key).unwrap_or_else(|| Located {
            value: String::new(),
            origin: self.origin.clone(),
        })
    }

    /// A path; a relative one is relative to the configuration file.
    pub(crate) fn path(&self, key: &'static str) -> Option<Located<PathBuf>> {
        let text = self.text(key)?;
        if text.value.is_empty() || text.value.contains('\0') {
            self.sink.advise(
                &text.origin,
                format!("`{key}` is no path"),
                "name a file or directory; a relative one is relative to the configuration file",
            );
            return None;
        }
        Some(Located {
            value: self.sink.base.join(&text.value),
            origin: text.origin,
        })
    }

    pub(crate) fn boolean(&self, key: &'static str, default: bool) -> bool {
        #[cfg(test)]
        self.note(key, Some(SWITCH.to_owned()), Some(default));
        let Some(node) = self.find(key) else {
            return default;
        };
        if let Value::Boolean(b) = node.value {
            return b;
        }
        self.expected(key, SWITCH, node);
        default
    }

    /// The number of `spec`, within its range; its default if it is not there.
    pub(crate) fn number(&self, spec: &Number) -> u64 {
        self.number_if_set(spec).unwrap_or_else(|| spec.otherwise())
    }

    pub(crate) fn number_if_set(&self, spec: &Number) -> Option<u64> {
        let node = self.find(spec.key)?;
        let Value::Integer(n) = node.value else {
            self.expected(spec.key, &format!("an integer ({})", spec.unit), node);
            return None;
        };
        match u64::try_from(n) {
            Ok(n) if (spec.min..=spec.max).contains(&n) => Some(n),
            _ => {
                self.sink.advise(
                    &node.origin,
                    format!(
                        "`{}` is {n}, expected {} to {} ({})",
                        spec.key, spec.min, spec.max, spec.unit
                    ),
                    match spec.default {
                        Some(default) => format!("{}; without the key it is {default}", spec.about),
                        None => spec.about.to_owned(),
                    },
                );
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
        default: T,
    ) -> T {
        #[cfg(test)]
        self.note(key, Some(quoted(words, " | ")), None);
        let Some(text) = self.text(key) else {
            return default;
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return *value;
        }
        let message = format!(
            "`{key}` is \"{}\", expected {}",
            text.value,
            quoted(words, " or ")
        );
        let help = match nearest(&text.value, words.iter().map(|(w, _)| *w)) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => "write one of these words, or leave the key out".to_owned(),
        };
        self.sink.advise(&text.origin, message, help);
        default
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &'static str) -> Option<Located<Vec<String>>> {
        let node = self.find(key)?;
        let Value::List(items) = &node.value else {
            self.expected(key, "a list of strings", node);
            return None;
        };
        let mut value = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) => value.push(text.clone()),
                other => self.sink.advise(
                    &item.origin,
                    format!("an item of `{key}` is {}, expected a string", other.kind()),
                    format!("put it in quotes: {key} = [\"…\"]"),
                ),
            }
        }
        Some(Located {
            value,
            origin: node.origin.clone(),
        })
    }

    pub(crate) fn table(&self, key: &'static str) -> Option<Self> {
        let node = self.find(key)?;
        match &node.value {
            Value::Table(table) => Some(self.below(key, table, &node.origin)),
            _ => {
                self.expected(key, "a table", node);
                None
            }
        }
    }

    /// One table, or the tables of a list.
    pub(crate) fn table_or_tables(&self, key: &'static str) -> Vec<Self> {
        match self.find(key).map(|node| &node.value) {
            Some(Value::List(_)) => self.tables(key),
            Some(_) => self.table(key).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(node) = self.find(key) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            let message = format!(
                "`{key}` is {}, expected a list of tables",
                node.value.kind()
            );
            let help = format!("write `[[{key}]]`, one for each {key}");
            self.sink.advise(&node.origin, message, help);
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Table(table) => Some(self.below(key, table, &item.origin)),
                _ => {
                    self.expected(key, "a table", item);
                    None
                }
            })
            .collect()
    }

    /// A table whose keys are the operator's own, with values as text.
    pub(crate) fn free_table(&self, key: &'static str) -> Vec<(String, Located<String>)> {
        let Some(inner) = self.table(key) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, (_, node)) in inner.table {
            let value = match &node.value {
                Value::Text(text) => text.clone(),
                Value::Integer(n) => n.to_string(),
                Value::Boolean(b) => b.to_string(),
                Value::List(_) | Value::Table(_) | Value::Other(_) => {
                    self.expected(name, "a string, an integer or a boolean", node);
                    continue;
                }
            };
            let origin = node.origin.clone();
            pairs.push((name.clone(), Located { value, origin }));
        }
        pairs
    }

    /// All keys have been asked for: what is left is unknown.
    pub(crate) fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, (origin, _)) in self.table {
            if asked.contains(&key.as_str()) {
                continue;
            }
            let place = if self.name.is_empty() {
                String::new()
            } else {
                format!(" in [{}]", self.name)
            };
            let message = format!("unknown key `{key}`{place}");
            let help = match nearest(key, asked.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known keys: {}", list(&asked)),
            };
            self.sink.advise(origin, message, help);
        }
    }
}

fn quoted<T>(words: &[(&'static str, T)], between: &str) -> String {
    let list: Vec<String> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
    list.join(between)
}

/// How a value of a kind is written in TOML.
fn how_to_write(key: &str, what: &str) -> String {
    let form = match what {
        "a string" => "put it in quotes: KEY = \"…\"",
        SWITCH => "no quotes: KEY = true, or KEY = false",
        "a list of strings" => "write a list: KEY = [\"…\", \"…\"]",
        "a table" => "write a table: KEY = { … }, or a section [KEY] of its own",
        _ => "write a whole number without quotes: KEY = 1",
    };
    form.replace("KEY", key)
}

fn list(keys: &[&'static str]) -> String {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    keys.join(", ")
}
