//! `otad sandbox`: a swarm of simulated updates, and what it found.
//!
//! The answer goes to standard output and depends on nothing but seeds and component; progress and speed go to standard
//! error. What runs and what is found is `host_sandbox`'s; how it is told, `report.rs`'.

mod report;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_runtime::engine::{Time, haste_faults};
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::clock::SystemClock;
use host_runtime::target::takes_settings;
use host_runtime::types::Setting;
use host_sandbox::Options;
use host_sandbox::fault::Fault;
use host_sandbox::recipe::{self, Kitchen, Recipe, RecipeError};
use host_sandbox::shrink::{Shrunk, shrink};
use host_sandbox::swarm::{self, Batch, Failed as FailedRun, Tally};
use serde_json::json;

use super::args::{Builtin, GuestArg, SandboxArgs, SeedsArg};
use super::check::settings;
use super::guest::Guest;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::{note, say};

/// Seeds where none are given.
const SEEDS: SeedsArg = SeedsArg {
    first: 1,
    count: 1000,
};

/// As above, with every cut of each.
const ONE_SEED: SeedsArg = SeedsArg { first: 1, count: 1 };

/// Failures that are made small and told in full: a few hundred runs each. The others are listed.
const TOLD_MAX: usize = 3;

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

pub(super) fn follow(args: &SandboxArgs) -> Verb {
    if args.list {
        report::list(args.json);
        return Ok(Exit::Done);
    }
    let judged = Judged::load(args)?;
    let plan = Plan::new(args, &judged.kitchen)?;
    let batch = Batch {
        runs: plan.runs(),
        jobs: args.jobs.unwrap_or_else(cores),
        first: args.first,
    };
    let kitchen = &judged.kitchen;
    if args.trace {
        return traces(&judged, &plan, args);
    }
    let began = now();
    let mut progress = Progress::new(batch.runs);
    let tally = swarm::make(kitchen, batch, &|n| plan.recipe(kitchen, n), &mut |tally| {
        progress.update(tally);
    })
    .map_err(|error| wrong(&error))?;
    let speed = Speed::of(&tally, began.elapsed(), batch.jobs);
    let told = tally.first_of_each(TOLD_MAX).into_iter();
    let told: Vec<_> = told
        .map(|(failed, invariant)| judged.tell(args, failed, invariant))
        .collect();
    if args.json {
        say(&report::as_json(&judged.who, &tally, &told).to_string());
    } else {
        report::print(&judged.who, &tally, &told);
    }
    note(&speed.line());
    Ok(match tally.failures {
        0 => Exit::Done,
        _ => Exit::Failed,
    })
}

fn wrong(error: &RecipeError) -> Failed {
    let exit = match error {
        RecipeError::Story(_) | RecipeError::Blocks(_) | RecipeError::Fault(_) => Exit::Usage,
        // That is the machine's: the command line is right.
        RecipeError::Again(_) => Exit::Failed,
    };
    Failed::chain(exit, "otad sandbox", error)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how fast it goes is told beside the answer; nothing that runs reads it"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// What a plugin may need and the targets here do not have.
const NOT_LENT: [&str; 2] = ["serial-line", "staged-image"];

/// The components that are judged, as they were read.
#[derive(Clone)]
struct Components {
    guest: (GuestArg, Vec<u8>),
    /// In place of the plugin of this program.
    plugin: Option<(GuestArg, Vec<u8>)>,
    /// Of that plugin, on all targets.
    settings: Vec<Setting>,
    compile_s: u64,
}

impl Components {
    fn read(args: &SandboxArgs) -> Result<Self, Failed> {
        let read = |guest: GuestArg| guest.bytes().map(|bytes| (guest, bytes));
        let plugin = args.plugin.as_ref();
        Ok(Self {
            guest: read(args.guest.clone())?,
            plugin: plugin.map(|path| read(GuestArg::at(path)?)).transpose()?,
            settings: settings(&args.setting)?,
            compile_s: args.compile_seconds,
        })
    }

    /// What runs are made with, and its name.
    fn load(&self, time: Time) -> Result<(Options, String), Failed> {
        let load = |(guest, bytes): &(GuestArg, Vec<u8>)| {
            let label = guest.label();
            let loaded = guest.load_bytes(bytes, self.compile_s, time)?;
            let needs = |name: &&&str| loaded.imports().iter().any(|i| i == **name);
            let missing = NOT_LENT.iter().find(needs);
            if let Some(missing) = missing {
                let text = format!(
                    "{label} needs {missing}, which no target of the sandbox has: `otad check` tries it out on one"
                );
                return Err(Failed::new(Exit::Refused, text));
            }
            Ok::<_, Failed>((label, loaded))
        };
        let mut options = Options::native(0);
        let guest = load(&self.guest)?;
        let is_plugin = matches!(guest.1, Guest::Plugin(_));
        let who = match guest {
            (label, Guest::Agent(agent)) => {
                let who = agent.description();
                let who = format!("{} {} ({label})", who.name, who.version);
                options.agent = agent;
                who
            }
            (label, Guest::Plugin(plugin)) => {
                if self.plugin.is_some() {
                    let text = format!("{label} is a plugin already; leave --plugin out");
                    return Err(Failed::new(Exit::Usage, text));
                }
                options.pal = self.fitting(&label, plugin)?;
                options.pal_settings.clone_from(&self.settings);
                format!("plugin {label}, with the agent of this program")
            }
        };
        match self.plugin.as_ref().map(load).transpose()? {
            Some((label, Guest::Plugin(plugin))) => {
                options.pal = self.fitting(&label, plugin)?;
                options.pal_settings.clone_from(&self.settings);
            }
            Some((label, Guest::Agent(_))) => {
                let text = format!("{label} is refused: it is an agent, not a plugin");
                return Err(Failed::new(Exit::Refused, text));
            }
            None if !self.settings.is_empty() && !is_plugin => {
                let text = "--setting is for a plugin; give that with --plugin";
                return Err(Failed::new(Exit::Usage, text));
            }
            None => {}
        }
        Ok((options, who))
    }

    /// A plugin that the targets here can be given, or why not.
    fn fitting(
        &self,
        label: &str,
        plugin: Arc<dyn PluginFactory>,
    ) -> Result<Arc<dyn PluginFactory>, Failed> {
        let kinds = &plugin.description().kinds;
        let refused =
            |why: String| Failed::new(Exit::Refused, format!("{label} is refused: {why}"));
        if !kinds.iter().any(|kind| kind == "flash-file") {
            let of_kind = match kinds.as_slice() {
                [] => "says no kind".to_owned(),
                kinds => format!("is of kind {}", kinds.join(", ")),
            };
            return Err(refused(format!(
                "it {of_kind}, and what starts images here knows the records of the kind flash-file alone: `otad check` tries \
                 out any kind"
            )));
        }
        takes_settings(&*plugin, &self.settings, Arc::new(SystemClock::new()))
            .map_err(|why| refused(format!("it does not begin with these settings: {why}")))?;
        Ok(plugin)
    }
}

/// What is judged, and how it is named on a command line.
struct Judged {
    kitchen: Kitchen,
    words: Vec<String>,
    who: String,
}

impl Judged {
    fn load(args: &SandboxArgs) -> Result<Self, Failed> {
        let components = Components::read(args)?;
        let before = haste_faults();
        let hasty = components.load(Time::Hasty);
        let (kitchen, who) = match hasty {
            Ok((options, who)) => {
                let components = components.clone();
                let careful = move || match components.load(Time::Virtual) {
                    Ok((options, _)) => Ok(options),
                    Err(failed) => Err(failed.to_string()),
                };
                (Kitchen::hasty(options, careful), who)
            }
            // It was refused for what it is: with more time it would be so in the same words.
            Err(refused) if haste_faults() == before => return Err(refused),
            // It broke when it was asked who it is, in haste: it is asked once more.
            Err(_) => {
                let (options, who) = components.load(Time::Virtual)?;
                (Kitchen::new(options), who)
            }
        };
        let mut words = match (&args.guest.file, args.guest.builtin) {
            (Some(path), _) => vec![path.display().to_string()],
            (None, name) => {
                let name = name.map_or("", Builtin::name);
                vec!["--builtin".to_owned(), name.to_owned()]
            }
        };
        if let Some(path) = &args.plugin {
            words.extend(["--plugin".to_owned(), path.display().to_string()]);
        }
        for setting in &args.setting {
            words.extend(["--setting".to_owned(), setting.clone()]);
        }
        Ok(Self {
            kitchen,
            words,
            who,
        })
    }

    /// The command that repeats a run.
    fn command(&self, recipe: &Recipe) -> String {
        let mut words = vec!["otad".to_owned(), "sandbox".to_owned()];
        words.extend(self.words.iter().map(|word| quoted(word)));
        words.push(format!(
            "--seeds {} --scenario {}",
            recipe.seed, recipe.story
        ));
        if let Some(blocks) = recipe.blocks {
            words.push(format!("--blocks {blocks}"));
        }
        match recipe.faults.as_slice() {
            [] => words.push("--fault none".to_owned()),
            faults => words.extend(faults.iter().map(|fault| format!("--fault {fault}"))),
        }
        words.push("--trace".to_owned());
        words.join(" ")
    }

    fn tell<'f>(
        &self,
        args: &SandboxArgs,
        failed: &'f FailedRun,
        invariant: &'static str,
    ) -> Told<'f> {
        let small = shrink(&self.kitchen, &failed.recipe, invariant);
        if small.is_none() && !args.json {
            note("that failure does not repeat: the component does not act the same way twice");
        }
        Told {
            command: self.command(small.as_ref().map_or(&failed.recipe, |s| &s.recipe)),
            failed,
            small,
        }
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A failure as it is told.
struct Told<'f> {
    failed: &'f FailedRun,
    small: Option<Shrunk>,
    command: String,
}

/// What the n-th run is.
enum Plan {
    /// Drawn by the seed.
    Swarm {
        seeds: SeedsArg,
        story: Option<String>,
        blocks: Option<usize>,
    },
    /// The same faults for each seed.
    Told { seeds: SeedsArg, recipe: Recipe },
    /// All of them.
    Cuts(Vec<Recipe>),
}

impl Plan {
    fn new(args: &SandboxArgs, kitchen: &Kitchen) -> Result<Self, Failed> {
        if let Some(story) = &args.scenario {
            recipe::story(story, args.blocks).map_err(|e| wrong(&e))?;
        }
        if args.every_cut {
            let seeds = args.seeds.unwrap_or(ONE_SEED);
            let stories = match &args.scenario {
                Some(story) => vec![story.clone()],
                None => host_sandbox::scenario::standard()
                    .into_iter()
                    .map(|s| s.name)
                    .collect(),
            };
            let mut all = Vec::new();
            for story in &stories {
                for n in 0..seeds.count {
                    let seed = seeds.first.wrapping_add(n);
                    let cuts = swarm::every_cut(kitchen, story, args.blocks, seed);
                    all.extend(cuts.map_err(|e| wrong(&e))?);
                }
            }
            return Ok(Self::Cuts(all));
        }
        let seeds = args.seeds.unwrap_or(SEEDS);
        if args.faults.is_empty() {
            return Ok(Self::Swarm {
                seeds,
                story: args.scenario.clone(),
                blocks: args.blocks,
            });
        }
        let faults: Vec<Fault> = args.faults.iter().filter_map(|f| f.0.clone()).collect();
        let recipe = Recipe {
            // clap asks for a scenario with --fault.
            story: args.scenario.clone().unwrap_or_default(),
            blocks: args.blocks,
            faults,
            seed: 0,
        };
        kitchen.check(&recipe).map_err(|e| wrong(&e))?;
        Ok(Self::Told { seeds, recipe })
    }

    fn runs(&self) -> u64 {
        match self {
            Self::Swarm { seeds, .. } | Self::Told { seeds, .. } => seeds.count,
            Self::Cuts(recipes) => recipes.len() as u64,
        }
    }

    fn recipe(&self, kitchen: &Kitchen, number: u64) -> Result<Recipe, RecipeError> {
        match self {
            Self::Swarm {
                seeds,
                story,
                blocks,
            } => {
                let seed = seeds.first.wrapping_add(number);
                swarm::draw(kitchen, seed, story.as_deref(), *blocks)
            }
            Self::Told { seeds, recipe } => Ok(Recipe {
                seed: seeds.first.wrapping_add(number),
                ..recipe.clone()
            }),
            Self::Cuts(recipes) => usize::try_from(number)
                .ok()
                .and_then(|at| recipes.get(at))
                .cloned()
                .ok_or(RecipeError::Blocks(0)),
        }
    }
}

/// Tell each run in full, as it ends; in JSON a line each, and one with what came of all.
fn traces(judged: &Judged, plan: &Plan, args: &SandboxArgs) -> Verb {
    let mut found = 0;
    for number in 0..plan.runs() {
        let kitchen = &judged.kitchen;
        let recipe = plan.recipe(kitchen, number).map_err(|e| wrong(&e))?;
        let served = kitchen.run(&recipe, true).map_err(|e| wrong(&e))?;
        found += u64::from(!served.report.violations.is_empty());
        if args.json {
            say(&report::run_as_json(&recipe, &served.report).to_string());
        } else {
            report::print_run(&recipe, &served.report);
        }
        if args.first && found > 0 {
            break;
        }
    }
    if args.json {
        say(&json!({ "judged": judged.who, "found": found }).to_string());
    }
    Ok(match found {
        0 => Exit::Done,
        _ => Exit::Failed,
    })
}

/// A line now and then.
struct Progress {
    runs: u64,
    began: Instant,
    told: Instant,
}

impl Progress {
    fn new(runs: u64) -> Self {
        let now = now();
        Self {
            runs,
            began: now,
            told: now,
        }
    }

    fn update(&mut self, tally: &Tally) {
        if self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = now();
        let per_s = rate(tally.runs, self.began.elapsed());
        let (runs, all, found) = (tally.runs, self.runs, tally.failures);
        note(&format!(
            "{runs} of {all} runs, {per_s} runs/s, {found} found"
        ));
    }
}

fn rate(runs: u64, time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    runs.saturating_mul(1000) / ms
}

/// How fast it went.
struct Speed {
    runs: u64,
    time: Duration,
    jobs: NonZeroUsize,
}

impl Speed {
    fn of(tally: &Tally, time: Duration, jobs: NonZeroUsize) -> Self {
        let runs = tally.runs;
        Self { runs, time, jobs }
    }

    fn line(&self) -> String {
        let Self { runs, time, jobs } = self;
        let seconds = time.as_secs_f64();
        let per_s = rate(*runs, *time);
        format!("{runs} runs in {seconds:.1} s with {jobs} at a time: {per_s} runs/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_given_with_both_ends() {
        let seeds = |text: &str| text.parse::<SeedsArg>().map(|s| (s.first, s.count));
        assert_eq!(seeds("1..1000"), Ok((1, 1000)));
        assert_eq!(seeds("7"), Ok((7, 1)));
        assert_eq!(seeds("7..7"), Ok((7, 1)));
        assert!(seeds("9..7").is_err_and(|text| text.contains("both ends")));
        assert!(seeds("a..7").is_err_and(|text| text.contains("no seed")));
        assert!(seeds("0..18446744073709551615").is_err());
    }

    #[test]
    fn only_what_the_command_line_says_is_wrong_usage() {
        let why = || "why".to_owned();
        assert_eq!(wrong(&RecipeError::Story(why())).exit, Exit::Usage);
        assert_eq!(wrong(&RecipeError::Blocks(0)).exit, Exit::Usage);
        assert_eq!(wrong(&RecipeError::Again(why())).exit, Exit::Failed);
    }

    #[test]
    fn a_word_that_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("out/agent.wasm"), "out/agent.wasm");
        assert_eq!(quoted("my agent.wasm"), "'my agent.wasm'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
