//! A configuration as a tree of values that know where they came from: the TOML file, then overrides from the
//! environment.
//!
//! `OTAD_SECTION__KEY=value` replaces one value; list items go by index: `OTAD_DEVICE__0__MQTT__PORT=443`. A value that
//! reads as TOML (number, boolean, array, quoted string) is taken as such, anything else as text. Not here: which keys
//! exist; `reader.rs` finds those that nobody asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Origin};

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// Floats and dates: no key of ours takes one.
    Other(&'static str),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A table: the key's own place beside the value.
pub(crate) type Table = BTreeMap<String, (Origin, Node)>;

/// What the variables that override a value begin with.
pub(crate) const PREFIX: &str = "OTAD_";

/// Deepest path of an override; the deepest key there is has 6 parts.
const DEPTH_MAX: usize = 8;

/// Read a document. Every syntax error is reported, not only the first one.
pub(crate) fn parse(source: &str) -> Result<Table, Vec<Diagnostic>> {
    let (document, errors) = DeTable::parse_recoverable(source);
    if errors.is_empty() {
        return Ok(table(document.get_ref()));
    }
    Err(errors
        .iter()
        .map(|e| {
            let origin = e.span().map_or(Origin::File, Origin::Span);
            let message = format!("not TOML: {}", one_line(e.message()));
            Diagnostic::new(origin, message).help(
                "text stands in quotes, sections in [brackets], items of lists between commas",
            )
        })
        .collect())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table(source: &DeTable<'_>) -> Table {
    source
        .iter()
        .map(|(key, value)| {
            let node = node(value.get_ref(), Origin::Span(value.span()));
            let key_origin = Origin::Span(key.span());
            (key.get_ref().to_string(), (key_origin, node))
        })
        .collect()
}

fn node(value: &DeValue<'_>, origin: Origin) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(Cow::to_string(text)),
        DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Other("a number with too many digits"),
        },
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| {
                    let place = match &origin {
                        Origin::Span(_) => Origin::Span(item.span()),
                        other => other.clone(),
                    };
                    node(item.get_ref(), place)
                })
                .collect(),
        ),
        DeValue::Table(inner) => {
            let mut inner = table(inner);
            if !matches!(origin, Origin::Span(_)) {
                relocate(&mut inner, &origin);
            }
            Value::Table(inner)
        }
    };
    Node { value, origin }
}

/// A table that came out of the environment lies there, whatever spans its text had.
fn relocate(table: &mut Table, origin: &Origin) {
    for (key, node) in table.values_mut() {
        *key = origin.clone();
        node.origin = origin.clone();
        if let Value::Table(inner) = &mut node.value {
            relocate(inner, origin);
        }
    }
}

/// Put the overrides among `environment` into the tree.
pub(crate) fn override_from(
    root: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    // In the order of their names, so that `…__0__…` comes before `…__1__…`.
    let named: BTreeMap<String, String> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__"))
        .collect();
    for (name, text) in named {
        let path: Vec<String> = name[PREFIX.len()..]
            .split("__")
            .map(str::to_lowercase)
            .collect();
        let origin = Origin::Environment { name, text };
        if let Err(message) = insert(root, &path, &origin) {
            diagnostics.push(
                Diagnostic::new(origin, message).help(
                    "an override is OTAD_SECTION__KEY, or OTAD_DEVICE__0__SECTION__KEY with the index of the list item",
                ),
            );
        }
    }
    diagnostics
}

fn insert(root: &mut Table, path: &[String], origin: &Origin) -> Result<(), String> {
    if path.len() > DEPTH_MAX || path.iter().any(String::is_empty) {
        return Err("this name has an empty part or too many parts".to_owned());
    }
    let Some((key, rest)) = path.split_first() else {
        return Err("this name has no key".to_owned());
    };
    if rest.is_empty() {
        root.insert(key.clone(), (origin.clone(), leaf(origin)));
        return Ok(());
    }
    let is_item = rest[0].bytes().all(|b| b.is_ascii_digit());
    let (_, child) = root.entry(key.clone()).or_insert_with(|| {
        let value = if is_item {
            Value::List(Vec::new())
        } else {
            Value::Table(Table::new())
        };
        let origin = origin.clone();
        (origin.clone(), Node { value, origin })
    });
    match &mut child.value {
        Value::Table(inner) => insert(inner, rest, origin),
        Value::List(items) => insert_item(items, key, rest, origin),
        other => Err(format!("`{key}` is {}, it has no keys", other.kind())),
    }
}

fn insert_item(
    items: &mut Vec<Node>,
    key: &str,
    rest: &[String],
    origin: &Origin,
) -> Result<(), String> {
    let index: usize = rest[0]
        .parse()
        .map_err(|_| format!("`{key}` is a list, `{}` is no index of it", rest[0]))?;
    if index > items.len() {
        return Err(format!(
            "`{key}` has {} items, none is {index}",
            items.len()
        ));
    }
    if index == items.len() {
        items.push(Node {
            value: Value::Table(Table::new()),
            origin: origin.clone(),
        });
    }
    if rest.len() == 1 {
        items[index] = leaf(origin);
        return Ok(());
    }
    match &mut items[index].value {
        Value::Table(inner) => insert(inner, &rest[1..], origin),
        other => Err(format!(
            "item {index} of `{key}` is {}, it has no keys",
            other.kind()
        )),
    }
}

fn leaf(origin: &Origin) -> Node {
    let Origin::Environment { text, .. } = origin else {
        return Node {
            value: Value::Other("nothing"),
            origin: origin.clone(),
        };
    };
    match DeValue::parse(text) {
        Ok(value) => match value.get_ref() {
            // `2024-01-01` or `1.0` is more likely meant as text.
            DeValue::Float(_) | DeValue::Datetime(_) => text_leaf(text, origin),
            plain => node(plain, origin.clone()),
        },
        Err(_) => text_leaf(text, origin),
    }
}

fn text_leaf(text: &str, origin: &Origin) -> Node {
    Node {
        value: Value::Text(text.to_owned()),
        origin: origin.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overridden(source: &str, name: &str, text: &str) -> (Table, Vec<Diagnostic>) {
        let mut root = parse(source).expect("test document");
        let diagnostics = override_from(&mut root, [(name.to_owned(), text.to_owned())]);
        (root, diagnostics)
    }

    fn at<'a>(root: &'a Table, path: &[&str]) -> &'a Value {
        let node = &root[path[0]].1;
        path[1..]
            .iter()
            .fold(&node.value, |value, key| match value {
                Value::Table(t) => &t[*key].1.value,
                Value::List(l) => &l[key.parse::<usize>().unwrap()].value,
                other => panic!("{key} in {}", other.kind()),
            })
    }

    #[test]
    fn an_override_reaches_an_item_of_a_list() {
        let (root, diagnostics) = overridden(
            "[[device]]\nname='a'\nmqtt.port=1",
            "OTAD_DEVICE__0__MQTT__PORT",
            "443",
        );
        assert!(diagnostics.is_empty());
        assert!(matches!(
            at(&root, &["device", "0", "mqtt", "port"]),
            Value::Integer(443)
        ));
    }

    #[test]
    fn what_is_no_toml_value_is_text() {
        for text in ["127.0.0.1", "host.example", "1.0", "2024-01-01", "a b"] {
            let (root, _) = overridden("", "OTAD_DAEMON__X", text);
            let Value::Text(found) = at(&root, &["daemon", "x"]) else {
                panic!("{text} is not text");
            };
            assert_eq!(found, text);
        }
    }

    #[test]
    fn a_variable_without_a_section_is_not_an_override() {
        let (root, diagnostics) = overridden("", "OTAD_REQUIRE_INTEROP", "1");
        assert!(root.is_empty() && diagnostics.is_empty());
    }

    #[test]
    fn an_override_that_fits_nowhere_is_reported() {
        for name in [
            "OTAD_A____B",
            "OTAD_DEVICE__7__NAME",
            "OTAD_DEVICE__X__NAME",
            "OTAD_N__X",
        ] {
            let (_, diagnostics) = overridden("n = 1\n[[device]]", name, "v");
            assert_eq!(diagnostics.len(), 1, "{name}");
        }
    }

    #[test]
    fn every_syntax_error_is_reported() {
        let errors = parse("a = \nb = 1\nc = ]\n").expect_err("not TOML");
        assert!(errors.len() >= 2, "{errors:?}");
    }
}
