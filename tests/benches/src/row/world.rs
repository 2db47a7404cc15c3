//! Simulated updates a second of one core: the shipped agent, alone as `otad sandbox` judges it and with the shipped plugin, to
//! both compiled in.

use std::sync::Arc;

use host_sandbox::larder;
use host_sandbox::recipe::{Kitchen, Recipe, UPDATE};
use host_sandbox::{Options, swarm};
use support::usage::of_this_thread;

use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};

/// The row.
pub const ROW: Row = Row {
    name: "world",
    about: "simulated updates a second of one core: the shipped agent, alone and with the shipped plugin, to both compiled in",
    sample,
};

/// Updates of one sample: a second of a debug build; of a release build so many that caches are warm for most of them.
const UPDATES: u64 = if cfg!(debug_assertions) { 20 } else { 200 };

/// What an update without faults is called.
const PLAIN: &str = "no faults";

fn sample(rig: &Rig, turn: Turn) -> Sample {
    // A good build does not break: there is nothing to be made again.
    let careful = || Err("a shipped component broke".to_owned());
    let shipped = rig.hasty()?;
    let agent = Options {
        agent: Arc::clone(&shipped.agent),
        ..Options::native(0)
    };
    let agent = Kitchen::hasty(agent, careful);
    let both = Kitchen::hasty(shipped.options(0), careful);
    let native = Kitchen::new(Options::native(0));
    let seeds = (turn.seed() - 1) * UPDATES..turn.seed() * UPDATES;
    let plain = seeds.clone().map(|seed| {
        Ok(Recipe {
            story: UPDATE.to_owned(),
            blocks: None,
            faults: Vec::new(),
            seed,
        })
    });
    let drawn = seeds.map(|seed| swarm::draw(&native, seed, Some(UPDATE), None));
    let mut taken = Vec::new();
    let kinds = [
        (PLAIN, plain.collect::<Result<Vec<_>, _>>()),
        ("faults of a swarm", drawn.collect()),
    ];
    for (name, recipes) in kinds {
        let recipes = recipes.map_err(|error| Untaken::by("a recipe", &error))?;
        for (who, kitchen) in [("agent", &agent), ("agent and plugin", &both)] {
            let (wasm, native) =
                turn.both(|| rate(kitchen, &recipes), || rate(&native, &recipes))?;
            let mut figure = Figure::rate(format!("{who}, {name}"), "updates/s");
            if who == "agent" && name != PLAIN {
                figure = figure.held(Of::Subject, 1000.0, 5000.0);
            }
            taken.push(figure.taken(wasm, native));
        }
    }
    Ok(taken)
}

fn rate(kitchen: &Kitchen, recipes: &[Recipe]) -> Result<f64, Untaken> {
    let spent = || of_this_thread().map_err(|error| Untaken::by("own processor time", &error));
    larder::open(|| {
        // Its images are made once.
        run(kitchen, &recipes[..1])?;
        let before = spent()?;
        run(kitchen, recipes)?;
        Ok(recipes.len() as f64 / (spent()? - before).as_secs_f64())
    })
}

fn run(kitchen: &Kitchen, recipes: &[Recipe]) -> Result<(), Untaken> {
    for recipe in recipes {
        let served = kitchen.run(recipe, false);
        let served = served.map_err(|error| Untaken::by("a run", &error))?;
        if !served.report.violations.is_empty() {
            let text = format!("{recipe:?}: {:?}", served.report.violations);
            return Err(Untaken::because(text));
        }
    }
    Ok(())
}
