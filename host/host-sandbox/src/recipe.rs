//! What makes one run, in words that fit a command line: a story, its size, faults, a seed.
//!
//! A recipe is small data; [`Kitchen`] makes worlds of it, with the images of each story made once. Runs of one recipe are
//! the same to the byte wherever they are made.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use host_runtime::engine::haste_faults;

use crate::coverage::{self, Move};
use crate::explore;
use crate::fault::{Fault, FaultError, inflict};
use crate::ground::Verb;
use crate::scenario::{self, Prepared, Scenario};
use crate::world::{Options, Report};

/// Name of the story that a swarm mostly tells: one file of [`UPDATE_BLOCKS`] blocks. It is no standard scenario.
pub const UPDATE: &str = "update";

/// Its blocks: 16 KiB of image, eight windows.
pub const UPDATE_BLOCKS: usize = 64;

/// Fewest and most blocks of a story whose size is given.
pub const BLOCKS_MIN: usize = 1;
/// As above: 4 MiB of image.
pub const BLOCKS_MAX: usize = 16_384;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Name of a standard scenario, or [`UPDATE`].
    pub story: String,
    /// Blocks of each file; `None` = as the story says.
    pub blocks: Option<usize>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Of everything that looks random.
    pub seed: u64,
}

/// Why a recipe is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// There is no such story.
    #[error("no scenario is called `{0}`; `--list` shows them")]
    Story(String),
    /// A size that no story has.
    #[error("{0} blocks; a file has {BLOCKS_MIN} to {BLOCKS_MAX}")]
    Blocks(usize),
    /// A fault that does not go with the story.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// A run in haste is to be made again, and the builds for that cannot be had.
    #[error("a guest broke, and cannot be run again with its instructions counted: {0}")]
    Again(String),
}

/// Every story: name and purpose.
#[must_use]
pub fn stories() -> Vec<(String, String)> {
    let update = (
        UPDATE.to_owned(),
        format!("one file of {UPDATE_BLOCKS} blocks"),
    );
    let standard = scenario::standard().into_iter();
    let standard = standard.map(|scenario| (scenario.name, scenario.purpose));
    std::iter::once(update).chain(standard).collect()
}

/// A story without faults.
///
/// # Errors
/// [`RecipeError::Story`], [`RecipeError::Blocks`].
pub fn story(name: &str, blocks: Option<usize>) -> Result<Scenario, RecipeError> {
    if let Some(blocks) = blocks
        && !(BLOCKS_MIN..=BLOCKS_MAX).contains(&blocks)
    {
        return Err(RecipeError::Blocks(blocks));
    }
    let mut scenario = if name == UPDATE {
        Scenario::plain(UPDATE, UPDATE_BLOCKS)
    } else {
        scenario::by_name(name).ok_or_else(|| RecipeError::Story(name.to_owned()))?
    };
    let block_bytes = scenario.block_bytes();
    for file in &mut scenario.files {
        if let Some(blocks) = blocks {
            file.size_bytes = blocks * block_bytes;
        }
    }
    Ok(scenario)
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Served {
    /// As the world says.
    pub report: Report,
    /// Changes of the agent's state.
    pub moves: Vec<Move>,
}

/// Makes runs. Clones are cheap and share the images.
#[derive(Clone)]
pub struct Kitchen {
    options: Options,
    /// Of the same builds for [`Time::Virtual`](host_runtime::engine::Time::Virtual), where these are for haste.
    careful: Option<Arc<Careful>>,
    settings: Vec<(String, String)>,
    prepared: Arc<Mutex<BTreeMap<Key, Arc<Prepared>>>>,
    calls: Arc<Mutex<BTreeMap<Key, Vec<Verb>>>>,
}

/// Options that are made when they are needed.
type Careful =
    LazyLock<Result<Options, String>, Box<dyn FnOnce() -> Result<Options, String> + Send>>;

/// A story's name and size.
type Key = (String, Option<usize>);

/// Stories that are kept: all standard ones, and some sizes.
const KEPT_MAX: usize = 64;

impl Kitchen {
    /// Of agent and plugin; seed, cuts and trace of `options` do not matter.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            careful: None,
            settings: Vec::new(),
            prepared: Arc::default(),
            calls: Arc::default(),
        }
    }

    /// As [`new`](Self::new), of builds for [`Time::Hasty`](host_runtime::engine::Time::Hasty). A run in which one of them
    /// broke is thrown away and made again with those of `careful`, so that what is said of it is the same to the byte.
    #[must_use]
    pub fn hasty(
        options: Options,
        careful: impl FnOnce() -> Result<Options, String> + Send + 'static,
    ) -> Self {
        let careful: Box<dyn FnOnce() -> Result<Options, String> + Send> = Box::new(careful);
        Self {
            careful: Some(Arc::new(LazyLock::new(careful))),
            ..Self::new(options)
        }
    }

    /// With one more setting of the agent in every story.
    #[must_use]
    pub fn with_setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Whether a recipe can be made.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let mut scenario = story(&recipe.story, recipe.blocks)?;
        inflict(&recipe.faults, &mut scenario)?;
        Ok(())
    }

    /// Make a run; with `trace` its trace is kept.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn run(&self, recipe: &Recipe, trace: bool) -> Result<Served, RecipeError> {
        let plain = self.prepared(&recipe.story, recipe.blocks)?;
        let mut scenario = plain.scenario.clone();
        scenario.settings.extend(self.settings.iter().cloned());
        let cuts = inflict(&recipe.faults, &mut scenario)?;
        let prepared = plain.retold(scenario);
        let run = |options: &Options| {
            let (agent, watch) = coverage::watched(&options.agent);
            let options = Options {
                seed: recipe.seed,
                cuts: cuts.clone(),
                trace,
                agent,
                ..options.clone()
            };
            let mut report = explore::run(&prepared, options);
            let (moves, broken) = watch.take();
            report.violations.extend(broken);
            Served { report, moves }
        };
        let before = haste_faults();
        let served = run(&self.options);
        match &self.careful {
            Some(careful) if haste_faults() != before => match &***careful {
                Ok(options) => Ok(run(options)),
                Err(why) => Err(RecipeError::Again(why.clone())),
            },
            _ => Ok(served),
        }
    }

    /// Calls of a story in which nothing goes wrong, to choose cuts among.
    ///
    /// # Errors
    /// [`RecipeError::Story`], [`RecipeError::Blocks`].
    pub fn calls(&self, name: &str, blocks: Option<usize>) -> Result<Vec<Verb>, RecipeError> {
        let key = (name.to_owned(), blocks);
        let known = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = known.get(&key) {
            return Ok(calls.clone());
        }
        drop(known);
        let plain = Recipe {
            story: name.to_owned(),
            blocks,
            faults: Vec::new(),
            seed: 0,
        };
        let calls = self.run(&plain, false)?.report.verbs;
        let mut known = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, calls.clone());
        Ok(calls)
    }

    fn prepared(&self, name: &str, blocks: Option<usize>) -> Result<Arc<Prepared>, RecipeError> {
        let key = (name.to_owned(), blocks);
        let mut kept = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = kept.get(&key) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(story(name, blocks)?.prepare());
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&prepared));
        Ok(prepared)
    }
}
