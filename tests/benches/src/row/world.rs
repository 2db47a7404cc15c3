//! Simulated updates a second of one core: the shipped components, to agent and plugin compiled in.

use host_sandbox::larder;
use host_sandbox::recipe::{Kitchen, Recipe, UPDATE};
use host_sandbox::{Options, swarm};
use support::usage::of_this_thread;

use crate::figure::{Figure, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};

/// The row.
pub const ROW: Row = Row {
    name: "world",
    about: "simulated updates a second of one core, shipped components, to agent and plugin compiled in",
    sample,
};

/// Updates of one sample: a second of a debug build.
const UPDATES: u64 = 20;

fn sample(rig: &Rig, turn: Turn) -> Sample {
    // A good build does not break: there is nothing to be made again.
    let careful = || Err("a shipped component broke".to_owned());
    let wasm = Kitchen::hasty(rig.hasty()?.options(0), careful);
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
        ("no faults", plain.collect::<Result<Vec<_>, _>>()),
        ("faults of a swarm", drawn.collect()),
    ];
    for (name, recipes) in kinds {
        let recipes = recipes.map_err(|error| Untaken::by("a recipe", &error))?;
        let (wasm, native) = turn.both(|| rate(&wasm, &recipes), || rate(&native, &recipes))?;
        taken.push(Figure::rate(name, "updates/s").taken(wasm, native));
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
