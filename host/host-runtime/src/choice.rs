//! Which build serves, once an operator has put another one in the place of the configured one: for a target's plugin and for
//! a device's agent alike.
//!
//! The file is written before a build takes over, when it is sent back and when its trial is over, so that a start after a
//! kill at any instant finds either build, and knows whether the one that serves is still on trial. The bytes of a build are
//! whoever's who loads it; here it has a label and a digest. Not here: how a build is tried, and when it takes over
//! (`target/swap.rs`, `device/swap.rs`).

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::AgentBuild;
use crate::common::Common;
use crate::desk::Desk;
use crate::names::component;
use crate::plugin::PluginFactory;
use crate::ports::state_dir::StateDir;
use crate::ports::workers::{Errand, Reply};
use crate::target::hex32;
use crate::types::{Failure, code};

/// Encoding of the file; another one is refused. Within one, members are only added, with a default, and what is unknown is
/// passed over: while an update of otad itself is in test, the build before may have to read it again. So it changes only where
/// that must not be.
const FORMAT: u32 = 1;

/// A build, by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Where it came from: `builtin:flash-file`, a path.
    pub label: String,
    /// SHA-256 of its bytes; zeros for one that is part of this process.
    #[serde(with = "hex32")]
    pub sha256: [u8; 32],
    /// SHA-256 of the manifest that vouches for them, in hex: the same bytes may be signed for more than one use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

impl Build {
    /// The names of a plugin that is loaded.
    #[must_use]
    pub fn of_plugin(plugin: &dyn PluginFactory) -> Self {
        Names::of_plugin(plugin).into()
    }

    /// The names of an agent that is loaded.
    #[must_use]
    pub fn of_agent(agent: &AgentBuild) -> Self {
        Names::of_agent(agent).into()
    }
}

/// Why a build serves, or refuses, in the place of another one, which was chosen there and is not let in.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// The one that was chosen: it stays so.
    pub build: Build,
    /// Why it does not serve, in words that begin with its label and a colon.
    pub why: String,
}

/// The names of a build that is loaded, where they lie: they are looked at in every turn of a device.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    label: &'a str,
    sha256: &'a [u8; 32],
    manifest: Option<&'a str>,
    /// Another one serves in its place for now.
    is_stood_in_for: bool,
}

impl<'a> Names<'a> {
    /// Those of the one that was chosen, where this one stands in for it.
    pub(crate) fn of_plugin(plugin: &'a dyn PluginFactory) -> Self {
        match plugin.stands_in() {
            Some(chosen) => chosen.names(),
            None => Self {
                label: plugin.label(),
                sha256: plugin.digest(),
                manifest: plugin.manifest(),
                is_stood_in_for: false,
            },
        }
    }

    /// The same of an agent.
    pub(crate) fn of_agent(agent: &'a AgentBuild) -> Self {
        match agent.stands_in() {
            Some(chosen) => chosen.names(),
            None => Self {
                label: agent.label(),
                sha256: agent.digest(),
                manifest: agent.manifest(),
                is_stood_in_for: false,
            },
        }
    }

    /// Whether two builds are the same bytes; of one that is part of this process nobody knows.
    pub(crate) fn is_same(self, other: Names<'_>) -> bool {
        self.sha256 == other.sha256 && *self.sha256 != [0; 32]
    }

    fn are_of(self, build: &Build) -> bool {
        self.label == build.label
            && *self.sha256 == build.sha256
            && self.manifest == build.manifest.as_deref()
    }
}

impl StandIn {
    fn names(&self) -> Names<'_> {
        Names {
            label: &self.build.label,
            sha256: &self.build.sha256,
            manifest: self.build.manifest.as_deref(),
            is_stood_in_for: true,
        }
    }
}

impl From<Names<'_>> for Build {
    fn from(names: Names<'_>) -> Self {
        Self {
            label: names.label.to_owned(),
            sha256: *names.sha256,
            manifest: names.manifest.map(str::to_owned),
        }
    }
}

/// What was chosen for a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Label of the build that the configuration named at that time: another one there ends the choice.
    pub configured: String,
    /// The build that serves.
    pub serves: Build,
    /// The build before it: what a roll-back goes to.
    #[serde(default)]
    pub former: Option<Build>,
    /// The build that serves has not proved itself yet: a break of its sends it back.
    #[serde(default)]
    pub on_trial: bool,
}

/// A build on trial that was sent back, and why, in words.
#[derive(Clone, Debug)]
pub(crate) struct SentBack {
    pub(crate) label: String,
    pub(crate) reason: String,
}

/// What serves at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A device.
    Agent,
    /// A target.
    Plugin,
}

impl Kind {
    /// Where its places have their folders in the state directory.
    fn folder(self) -> &'static str {
        match self {
            Self::Agent => "devices/",
            Self::Plugin => "targets/",
        }
    }

    /// Name of the choice's file in the folder of a place.
    fn leaf(self) -> &'static str {
        match self {
            Self::Agent => "agent.json",
            Self::Plugin => "plugin.json",
        }
    }
}

/// Where a build serves; shown as people call it: `pump-1`, `target "main" of pump-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    device: Arc<str>,
    /// None = the device's agent.
    target: Option<Arc<str>>,
}

impl Place {
    /// A target's plugin: `targets/<device>/<target>/plugin.json`.
    #[must_use]
    pub fn plugin(device: &str, target: &str) -> Self {
        Self {
            device: device.into(),
            target: Some(target.into()),
        }
    }

    /// A device's agent: `devices/<device>/agent.json`.
    #[must_use]
    pub fn agent(device: &str) -> Self {
        Self::agent_of(device.into())
    }

    /// The same for a name that is held already.
    pub(crate) fn agent_of(device: Arc<str>) -> Self {
        Self {
            device,
            target: None,
        }
    }

    /// The name in the state directory of a file of this place.
    #[must_use]
    pub fn file(&self, leaf: &str) -> String {
        let device = component(&self.device);
        match &self.target {
            Some(target) => {
                let folder = Kind::Plugin.folder();
                format!("{folder}{device}/{}/{leaf}", component(target))
            }
            None => format!("{}{device}/{leaf}", Kind::Agent.folder()),
        }
    }

    /// The name in the state directory of what was chosen for this place.
    #[must_use]
    pub fn choice_file(&self) -> String {
        let kind = match &self.target {
            Some(_) => Kind::Plugin,
            None => Kind::Agent,
        };
        self.file(kind.leaf())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "target \"{target}\" of {}", self.device),
            None => f.write_str(&self.device),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    #[serde(flatten)]
    choice: Choice,
}

/// What was chosen for a place; none = the configured build.
///
/// # Errors
/// What the medium says, and `InvalidData` for a file that is damaged or of another format.
pub fn load(state: &dyn StateDir, place: &Place) -> io::Result<Option<Choice>> {
    match state.load(&place.choice_file())? {
        Some(bytes) => Ok(Some(parse(&bytes)?)),
        None => Ok(None),
    }
}

/// What was chosen at all places of a kind.
#[derive(Debug, Default)]
pub struct Chosen {
    /// What can be read.
    pub choices: Vec<Choice>,
    /// Files that are no choices: nobody serves by them.
    pub damaged: Vec<Damaged>,
}

/// A file that is no choice.
#[derive(Debug)]
pub struct Damaged {
    /// Its name in the state directory.
    pub name: String,
    /// What is wrong with it.
    pub error: io::Error,
    bytes: Vec<u8>,
}

/// Digits of a digest in a row by which a damaged file may still name it: one in 4 billion has them by chance.
const NAMING_DIGITS: usize = 8;

impl Damaged {
    /// Whether there may stand, or have stood, this digest in hex: a part of it does.
    #[must_use]
    pub fn may_name(&self, sha256: &str) -> bool {
        let mut parts = sha256.as_bytes().windows(NAMING_DIGITS);
        parts.any(|part| self.bytes.windows(part.len()).any(|bytes| bytes == part))
    }
}

/// All that was chosen, also in places that the configuration does not name now.
///
/// # Errors
/// What the medium says, and `InvalidData` for a file of another format, with its name.
pub fn all(state: &dyn StateDir, kind: Kind) -> io::Result<Chosen> {
    let mut chosen = Chosen::default();
    for name in state.list(kind.folder())? {
        let is_choice = name
            .rsplit_once('/')
            .is_some_and(|(_, leaf)| leaf == kind.leaf());
        if !is_choice {
            continue;
        }
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{name}: {e}"));
        let Some(bytes) = state.load(&name).map_err(named)? else {
            continue;
        };
        match parse(&bytes) {
            Ok(choice) => chosen.choices.push(choice),
            // Whole, and of a build to which this one may give way again.
            Err(error @ Unreadable::Format(_)) => return Err(named(error.into())),
            Err(error @ Unreadable::Damaged(_)) => chosen.damaged.push(Damaged {
                error: error.into(),
                name,
                bytes,
            }),
        }
    }
    Ok(chosen)
}

/// Why a file is no choice that this build reads.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("format {0}, this build reads {FORMAT}")]
    Format(u64),
    #[error("{0}")]
    Damaged(serde_json::Error),
}

impl From<Unreadable> for io::Error {
    fn from(error: Unreadable) -> Self {
        Self::new(io::ErrorKind::InvalidData, error.to_string())
    }
}

fn parse(bytes: &[u8]) -> Result<Choice, Unreadable> {
    /// What all formats begin with.
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(Unreadable::Damaged)?;
    if head.format != u64::from(FORMAT) {
        return Err(Unreadable::Format(head.format));
    }
    let file: File = serde_json::from_slice(bytes).map_err(Unreadable::Damaged)?;
    Ok(file.choice)
}

/// What the medium says. What cannot be read counts as nothing said: the configured build serves.
pub(crate) fn read(state: &dyn StateDir, place: &Place) -> Word {
    let stored = load(state, place).unwrap_or_else(|error| {
        tracing::warn!(
            "{place}: which build serves cannot be read, the configured one does: {error}"
        );
        None
    });
    stored.map(Box::new)
}

/// The configured build serves again.
///
/// # Errors
/// What the medium says.
pub fn forget(state: &dyn StateDir, place: &Place) -> io::Result<()> {
    store(state, place, None)
}

/// Write it down; durable when it returns.
fn store(state: &dyn StateDir, place: &Place, choice: Option<&Choice>) -> io::Result<()> {
    let Some(choice) = choice else {
        return state.remove(&place.choice_file());
    };
    let file = File {
        format: FORMAT,
        choice: choice.clone(),
    };
    state.store(&place.choice_file(), &serde_json::to_vec(&file)?)
}

/// How far a build is on its way in.
pub(crate) enum Arrival {
    /// A worker tries it.
    Trying(Errand<Result<(), Failure>>),
    /// The choice is written down.
    Storing,
    /// It takes over when whoever is in charge is between two steps.
    Ready,
    /// It is in charge, and is still told of what goes on.
    Serving,
}

/// What the medium says, or is to say. A book holds some of them, and mostly there is nothing to be said.
pub(crate) type Word = Option<Box<Choice>>;

/// What is being written, and by whom.
type Writing = (Word, Errand<Result<(), Failure>>);

/// The labels of configured builds.
static LABELS: Common<String> = Common::new();

/// The durable word on which build serves at one place, written off the device's task.
pub(crate) struct Book {
    place: Place,
    desk: Arc<Desk>,
    /// Label of the configured build.
    configured: Arc<String>,
    /// As it stands on the medium.
    stored: Word,
    /// None where nothing is.
    open: Option<Box<Open>>,
}

/// What is open in a book.
#[derive(Default)]
struct Open {
    writing: Option<Writing>,
    /// What could not be written, and is not tried again by itself.
    unwritten: Option<Word>,
    /// Who waits for the medium to say what it is to say.
    waiting: Vec<Reply<Result<(), Failure>>>,
}

impl Book {
    /// The book of a place where the medium says this, and of the build that serves now.
    pub(crate) fn of(place: Place, serves: Names<'_>, stored: Word, desk: Arc<Desk>) -> Self {
        let configured = stored.as_ref().map(|choice| &choice.configured);
        let label = || serves.label.to_owned();
        Self {
            configured: LABELS.hold(configured.map_or_else(label, Clone::clone)),
            place,
            desk,
            stored,
            open: None,
        }
    }

    /// Whether it can be made again from what the medium says and the build that serves.
    pub(crate) fn may_rest(&self, serves: Names<'_>) -> bool {
        self.open.is_none() && (self.stored.is_some() || *self.configured == serves.label)
    }

    /// What the medium says, of a book that is not needed any more.
    pub(crate) fn take_word(&mut self) -> Word {
        self.stored.take()
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.writing.is_some())
    }

    /// Take a build further on its way in: one that was tried well is written down as what serves on trial in place of
    /// `former`, and once that stands it is ready.
    ///
    /// # Errors
    /// It is no good, or cannot be written down.
    pub(crate) fn let_in(
        &mut self,
        arrival: &mut Arrival,
        serves: Names<'_>,
        former: Names<'_>,
    ) -> Result<(), Failure> {
        if let Arrival::Trying(errand) = arrival
            && let Some(end) = errand.end()
        {
            end?;
            *arrival = Arrival::Storing;
            let choice = self.choice(serves.into(), Some(former.into()), true);
            self.write(choice, || {});
        }
        if matches!(arrival, Arrival::Storing)
            && let Some(end) = self.end()
        {
            end?;
            *arrival = Arrival::Ready;
        }
        Ok(())
    }

    /// See whether what was written down otherwise stands.
    pub(crate) fn look(&mut self) {
        if let Some(Err(failure)) = self.end() {
            let place = &self.place;
            tracing::warn!("{place}: after a restart another build may serve: {failure}");
        }
    }

    /// Have the medium say this, unless it does, or could not be told so. `passed` is done before it says that a build has
    /// proved itself.
    pub(crate) fn keep(
        &mut self,
        serves: Names<'_>,
        former: Option<Names<'_>>,
        on_trial: bool,
        passed: impl FnOnce() + Send + 'static,
    ) {
        if self.is_writing() {
            return;
        }
        if self.says(serves, former, on_trial) {
            return self.tell(&Ok(()));
        }
        let choice = self.choice(serves.into(), former.map(Build::from), on_trial);
        let unwritten = self.open.as_ref().and_then(|open| open.unwritten.as_ref());
        if unwritten == Some(&choice) {
            let text = "which build serves could not be written down";
            return self.tell(&Err(Failure::new(code::STORAGE, 0, text)));
        }
        let has_passed = choice.as_ref().is_some_and(|choice| !choice.on_trial);
        self.write(choice, move || {
            if has_passed {
                passed();
            }
        });
    }

    fn says(&self, serves: Names<'_>, former: Option<Names<'_>>, on_trial: bool) -> bool {
        let Some(stored) = &self.stored else {
            return former.is_none() && serves.label == *self.configured;
        };
        if serves.is_stood_in_for && serves.are_of(&stored.serves) {
            // It goes on where it was, once it is let in again.
            return true;
        }
        let same_former = match (former, &stored.former) {
            (Some(former), Some(stored)) => former.are_of(stored),
            (former, stored) => former.is_none() && stored.is_none(),
        };
        serves.are_of(&stored.serves) && same_former && on_trial == stored.on_trial
    }

    /// Have `reply` hear when the medium says what [`Book::keep`] is told next. What could not be written is tried again.
    pub(crate) fn tell_when_kept(&mut self, reply: Reply<Result<(), Failure>>) {
        let open = self.open.get_or_insert_default();
        open.unwritten = None;
        open.waiting.push(reply);
    }

    fn tell(&mut self, end: &Result<(), Failure>) {
        if let Some(open) = &mut self.open {
            for reply in std::mem::take(&mut open.waiting) {
                reply(end.clone());
            }
            self.open
                .take_if(|open| open.writing.is_none() && open.unwritten.is_none());
        }
    }

    /// How the last writing ended, once.
    fn end(&mut self) -> Option<Result<(), Failure>> {
        let open = self.open.as_mut()?;
        let (_, errand) = open.writing.as_ref()?;
        let end = errand.end()?;
        let (choice, _) = open.writing.take()?;
        match &end {
            Ok(()) => {
                self.stored = choice;
                open.unwritten = None;
            }
            Err(_) => open.unwritten = Some(choice),
        }
        Some(end)
    }

    /// Nothing where the configured build serves and there was none before it.
    fn choice(&self, serves: Build, former: Option<Build>, on_trial: bool) -> Word {
        if former.is_none() && serves.label == *self.configured {
            return None;
        }
        Some(Box::new(Choice {
            configured: self.configured.to_string(),
            serves,
            former,
            on_trial,
        }))
    }

    fn write(&mut self, choice: Word, before: impl FnOnce() + Send + 'static) {
        let (state, place) = (Arc::clone(&self.desk.state), self.place.clone());
        let lost = Failure::new(code::STORAGE, 0, "the worker that writes it has died");
        let written = choice.clone();
        let errand = Errand::start(&*self.desk.workers, &self.desk.wake, Err(lost), move || {
            before();
            let end = store(&*state, &place, written.as_deref());
            end.map_err(|e| Failure::storage("write which build serves", &e))
        });
        self.open.get_or_insert_default().writing = Some((choice, errand));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeState;

    fn read(text: &str) -> io::Result<Option<Choice>> {
        let (state, place) = (FakeState::default(), Place::agent("pump"));
        state.store("devices/pump/agent.json", text.as_bytes())?;
        let one = load(&state, &place);
        // Whoever reads all of them names the one that cannot be read, and goes on unless it is whole.
        let name = "devices/pump/agent.json";
        match (&one, all(&state, Kind::Agent)) {
            (Ok(choice), Ok(all)) => {
                assert_eq!(all.choices, Vec::from_iter(choice.clone()));
                assert!(all.damaged.is_empty());
            }
            (Err(e), Ok(all)) => {
                assert_eq!((all.choices.len(), all.damaged.len()), (0, 1));
                let damaged = &all.damaged[0];
                assert_eq!(
                    (&*damaged.name, damaged.error.to_string()),
                    (name, e.to_string())
                );
            }
            (Err(e), Err(of_all)) => {
                assert_eq!(of_all.to_string(), format!("{name}: {e}"));
                assert!(e.to_string().starts_with("format "), "{e}");
            }
            (Ok(choice), Err(e)) => panic!("{choice:?}: {e}"),
        }
        one
    }

    #[test]
    fn a_file_of_an_older_or_a_newer_build_is_read_unless_its_format_is_another_one() {
        let serves = format!(r#""serves":{{"label":"job","sha256":"{}""#, "ab".repeat(32));
        let file = |format: u32, more: &str| {
            format!(r#"{{"format":{format},"configured":"built-in",{serves}{more}"#)
        };
        let first = read(&file(FORMAT, "}}")).unwrap().unwrap();
        assert_eq!(first.serves.manifest, None);
        assert_eq!((first.former, first.on_trial), (None, false));
        let newer = r#","manifest":"cd","of-tomorrow":1},"on_trial":true,"of-tomorrow":2}"#;
        let newer = read(&file(FORMAT, newer)).unwrap().unwrap();
        assert_eq!(newer.serves.manifest.as_deref(), Some("cd"));
        assert!(newer.on_trial);
        let cut = file(FORMAT, "}");
        let others = [
            file(FORMAT + 1, "}}"),
            r#"{"format":9,"members":"of tomorrow"}"#.to_owned(),
        ];
        for bad in others
            .into_iter()
            .chain([cut, "{}".to_owned(), "x".to_owned()])
        {
            let error = read(&bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad}");
        }
    }

    #[test]
    fn a_damaged_file_may_name_what_a_part_of_stands_in_it() {
        let state = FakeState::default();
        let digest = "0123456789abcdef".repeat(4);
        let rows = [
            (format!("{{\"sha256\":\"{digest}"), true),
            (format!("\0\0{}\0\0", &digest[3..11]), true),
            (format!("\0\0{}\0\0", &digest[3..10]), false),
            (String::new(), false),
        ];
        for (text, may) in rows {
            state
                .store("targets/a/b/plugin.json", text.as_bytes())
                .unwrap();
            let chosen = all(&state, Kind::Plugin).unwrap();
            assert_eq!(chosen.damaged[0].may_name(&digest), may, "{text:?}");
        }
    }

    #[test]
    fn what_is_chosen_is_found_whatever_the_configuration_has() {
        let state = FakeState::default();
        let choice = |label: &str| Choice {
            configured: "built-in".to_owned(),
            serves: Build {
                label: label.to_owned(),
                sha256: [7; 32],
                manifest: None,
            },
            former: None,
            on_trial: false,
        };
        let places = [
            (Place::agent("pump"), "agent"),
            (Place::plugin("pump", "main"), "main"),
            (Place::plugin("pump", "mcu"), "mcu"),
        ];
        for (place, label) in &places {
            store(&state, place, Some(&choice(label))).unwrap();
            // Other files of a place are none.
            state.store(&place.file("record.json"), b"x").unwrap();
        }
        let found = |kind| all(&state, kind).unwrap().choices;
        assert_eq!(found(Kind::Agent), [choice("agent")]);
        assert_eq!(found(Kind::Plugin), [choice("main"), choice("mcu")]);
    }
}
