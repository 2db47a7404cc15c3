//! The reference of the keys against the reader: what it asks for stands there, and nothing else does.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::keys::NUMBERS;
use crate::config::reader::{Noted, Sink};
use crate::config::words::{PROGRAM, SECTIONS, SWITCH, WORDS, Word};
use crate::config::{BUILTIN_AGENTS, BUILTIN_PLUGINS, sections, tree};

/// Has every table, and every key that is read only where it stands.
const EVERYTHING: &str = r#"
[daemon]
state_dir = "state"
[development]
[trust]
directory = "trust"
labels = { "/cert.pem" = "signer" }
[http]
[bandwidth]
[[bandwidth.at]]
from = "08:00"
to = "18:30"
paused = true
[[download]]
scheme = "stick"
directory = "/media/stick"
[hooks]
job = { command = ["/bin/true"] }
activate = { command = ["/bin/true"] }
start_test = { command = ["/bin/true"] }
fail = { command = ["/bin/true"] }
custom_job = { command = ["/bin/true"] }
[[device]]
name = "pump-1"
[device.mqtt]
endpoint = "localhost"
root_certificate = "root.pem"
certificate = "certificate.pem"
private_key = "private-key.pem"
[device.agent]
foreign_jobs = "leave"
on_job = "ask"
stream_encoding = "json"
[[device.notice]]
topic = "site/pump-1/jobs"
[device.hooks]
job = { command = ["/bin/true"] }
activate = { command = ["/bin/true"] }
start_test = { command = ["/bin/true"] }
fail = { command = ["/bin/true"] }
custom_job = [{ command = ["/bin/true"] }]
[[device.target]]
name = "board"
file_id = 1
plugin = "./pal.so"
firmware = true
self_test = "external"
version_command = { command = ["./version.sh"] }
inspect = { command = ["./inspect.sh"] }
restart = { command = ["./restart.sh"] }
health = { command = ["./health.sh"] }
settings = { soak_ms = 30000 }
[[device.target.region]]
name = "slot-a"
path = "slot-a"
[device.target.line]
port = "/dev/ttyS1"
parity = "none"
flow_control = "none"
dtr = true
rts = true
[device.target.hardware_reset]
control = "dtr"
[device.target.native]
"#;

/// Asked for only to say what to write in its place.
const REFUSED: (&str, &str) = ("device.mqtt", "password");

/// All that is asked for in a file that has everything.
fn noted() -> Vec<Noted> {
    let table = tree::parse(EVERYTHING).expect("TOML");
    let sink = Sink::new(Path::new("etc"));
    sections::config(Path::new("etc/otad.toml"), &table, &sink);
    sink.noted.into_inner()
}

/// Where the reference has a key: those of a program stand there once.
fn home<'a>(table: &'a str, key: &'a str) -> (&'a str, &'a str) {
    let is_program = table.rsplit_once('.').is_some_and(|(section, name)| {
        let is_it = |w: &&Word| w.section == section && w.key == name;
        WORDS
            .iter()
            .find(is_it)
            .is_some_and(|w| w.form.starts_with(PROGRAM))
    });
    // A reset input may be a program, whose keys stand among its own.
    let is_deadline = (table, key) == ("device.target.hardware_reset", "deadline_ms");
    if is_program || is_deadline {
        ("command", key)
    } else {
        (table, key)
    }
}

/// Whether the key opens a table that is a section of the reference.
fn is_section(table: &str, key: &str) -> bool {
    let name = if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    };
    SECTIONS.iter().any(|section| *section == name)
}

#[test]
fn the_reference_has_every_key_that_is_read_and_no_other() {
    let noted = noted();
    let read: BTreeSet<(&str, &str)> = noted
        .iter()
        .map(|n| home(&n.table, n.key))
        .filter(|(table, key)| !is_section(table, key) && (*table, *key) != REFUSED)
        .collect();
    let numbers = NUMBERS.iter().map(|n| (n.section, n.key));
    let words = WORDS.iter().map(|w| (w.section, w.key));
    let listed: BTreeSet<(&str, &str)> = numbers.chain(words).collect();
    let unlisted: Vec<_> = read.difference(&listed).collect();
    let unread: Vec<_> = listed.difference(&read).collect();
    assert!(
        unlisted.is_empty() && unread.is_empty(),
        "read and not listed: {unlisted:?}, listed and not read: {unread:?}"
    );
    assert_eq!(
        listed.len(),
        NUMBERS.len() + WORDS.len(),
        "one stands twice"
    );
}

#[test]
fn each_section_stands_once_and_has_keys() {
    let mut names = BTreeSet::new();
    for section in SECTIONS {
        assert!(names.insert(*section), "{section}");
        let has_words = WORDS.iter().any(|w| w.section == *section);
        let has_numbers = NUMBERS.iter().any(|n| n.section == *section);
        assert!(has_words || has_numbers, "{section}");
    }
    for n in NUMBERS {
        assert!(names.contains(n.section), "{}", n.section);
    }
}

#[test]
fn switches_and_choices_are_written_as_the_reader_takes_them() {
    let noted = noted();
    for word in WORDS {
        let place = (word.section, word.key);
        let asked: Vec<&Noted> = noted
            .iter()
            .filter(|n| n.form.is_some() && home(&n.table, n.key) == place)
            .collect();
        // What ends in a quote is one of a few words; any text or path may stand there otherwise.
        let is_choice = word.form.starts_with('"') && word.form.ends_with('"');
        let is_bound = is_choice || word.form == SWITCH;
        assert_eq!(!asked.is_empty(), is_bound, "{place:?}");
        for n in asked {
            assert_eq!(n.form.as_deref(), Some(word.form), "{place:?}");
            if let (Some(stands), Some(holds)) = (word.default, n.default) {
                assert_eq!(stands, holds.to_string(), "{place:?}");
            }
        }
        let is_known = |default: &str| word.form.split(" | ").any(|form| form == default);
        assert!(!is_choice || word.default.is_none_or(is_known), "{place:?}");
    }
}

#[test]
fn every_word_is_explained_and_says_what_holds_without_it() {
    for word in WORDS {
        let place = (word.section, word.key);
        assert!(word.about.len() > 10, "{place:?}");
        let is_said = ["left out: ", "required"]
            .iter()
            .any(|how| word.about.contains(how));
        assert_eq!(word.default.is_none(), is_said, "{place:?}");
    }
    for (key, names) in [("component", BUILTIN_AGENTS), ("plugin", BUILTIN_PLUGINS)] {
        let word = WORDS.iter().find(|w| w.key == key).expect(key);
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        assert_eq!(word.form, format!("{} | path", names.join(" | ")));
    }
}
