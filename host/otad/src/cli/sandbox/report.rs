//! What `otad sandbox` has found, for people and as JSON.

use std::borrow::Cow;

use host_crypto::hex;
use host_runtime::status::{STATE_NAMES, name_or_number};
use host_sandbox::Report;
use host_sandbox::coverage::Coverage;
use host_sandbox::fault::{Fault, KINDS};
use host_sandbox::judge::Violation;
use host_sandbox::recipe::{self, Recipe};
use host_sandbox::swarm::{FAILED_MAX, Failed, Tally};
use serde_json::{Map, Value, json};

use super::Told;
use crate::progress::say;

/// What was seen in a run, in the same words maybe more than once.
struct Seen<'v> {
    first: &'v Violation,
    times: usize,
    last_ms: u64,
}

fn seen(violations: &[Violation]) -> Vec<Seen<'_>> {
    let mut all: Vec<Seen<'_>> = Vec::new();
    for one in violations {
        let same = |seen: &&mut Seen<'_>| {
            (seen.first.invariant, &seen.first.detail) == (one.invariant, &one.detail)
        };
        match all.iter_mut().find(same) {
            Some(seen) => {
                seen.times += 1;
                seen.last_ms = seen.last_ms.max(one.at_ms);
            }
            None => all.push(Seen {
                first: one,
                times: 1,
                last_ms: one.at_ms,
            }),
        }
    }
    all
}

impl Seen<'_> {
    /// In words; what `before` has in the same words is not said again.
    fn line(&self, before: &[Violation]) -> String {
        let Violation {
            invariant,
            at_ms,
            detail,
        } = self.first;
        let again = match self.times {
            1 => String::new(),
            times => format!(", {times} times until {} ms", self.last_ms),
        };
        let is_known = before.iter().any(|one| one.detail == *detail);
        let detail = if is_known { "as above" } else { detail };
        format!("{invariant} at {at_ms} ms{again}: {detail}")
    }
}

/// A recipe in words.
fn words(recipe: &Recipe) -> String {
    let blocks = recipe.blocks.map(|n| format!(", {n} blocks a file"));
    let faults = match faults(recipe) {
        none if none.is_empty() => "no faults".to_owned(),
        faults => faults.join(" "),
    };
    format!("{}{}: {faults}", recipe.story, blocks.unwrap_or_default())
}

fn faults(recipe: &Recipe) -> Vec<String> {
    recipe.faults.iter().map(Fault::to_string).collect()
}

/// The failed runs that are listed and not told, and how many are neither.
fn others<'t>(tally: &'t Tally, told: &[Told<'_>]) -> (Vec<&'t Failed>, u64) {
    let is_told = |one: &&Failed| told.iter().any(|told| told.failed.number == one.number);
    let others = tally.failed.iter().filter(|one| !is_told(one)).collect();
    (others, tally.failures - tally.failed.len() as u64)
}

pub(super) fn print(who: &str, tally: &Tally, told: &[Told<'_>]) {
    say(who);
    for one in told {
        print_failure(one);
    }
    print_others(tally, told);
    coverage(&tally.coverage);
    let ends = listed(tally.ends.iter().map(|(end, n)| format!("{n} {end}")));
    let (runs, faulty, cuts) = (tally.runs, tally.with_faults, tally.cuts);
    say(&format!(
        "{runs} runs, {faulty} with faults, {cuts} cuts; jobs: {ends}"
    ));
    let never = tally.faults.iter().filter(|(_, (_, never))| *never > 0);
    let never = listed(never.map(|(kind, (all, never))| format!("{kind} {never} of {all}")));
    if !never.is_empty() {
        say(&format!("never struck: {never}"));
    }
    say(&format!("digest {}", hex(&tally.digest())));
    say(&match tally.failures {
        0 => "found: none".to_owned(),
        failures => {
            let broken = listed(tally.broken.iter().map(|(name, n)| format!("{name} {n}")));
            let told = told.len();
            format!("found: {failures} runs failed ({broken}); {told} of {failures} shown in full")
        }
    });
}

fn listed(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn print_failure(told: &Told<'_>) {
    let Told {
        failed,
        small,
        command,
    } = told;
    let Failed {
        recipe, violations, ..
    } = failed;
    say(&format!("FAILED  seed {}: {}", recipe.seed, words(recipe)));
    for one in seen(violations) {
        say(&format!("  {}", one.line(&[])));
    }
    if let Some(small) = small {
        let report = &small.served.report;
        say(&format!(
            "  shrunk in {} runs to {}",
            small.runs,
            words(&small.recipe)
        ));
        for one in seen(&report.violations) {
            say(&format!("  {}", one.line(violations)));
        }
        for line in report.trace.to_string().lines() {
            say(&format!("    {line}"));
        }
    }
    say(&format!("  again: {command}"));
}

/// A line each: seed, scenario, a fault that is the only one, invariants.
fn print_others(tally: &Tally, told: &[Told<'_>]) {
    let (others, more) = others(tally, told);
    if !others.is_empty() {
        say("FAILED, too:");
    }
    for one in others {
        let recipe = &one.recipe;
        let fault = match recipe.faults.as_slice() {
            [only] => format!(" {only}"),
            _ => String::new(),
        };
        let (seed, story) = (recipe.seed, &recipe.story);
        let invariants = one.invariants().join(", ");
        say(&format!("  seed {seed}: {story}{fault}: {invariants}"));
    }
    if more > 0 {
        say(&format!(
            "  and {more} more of what is listed {FAILED_MAX} times"
        ));
    }
}

/// One run in full.
pub(super) fn print_run(recipe: &Recipe, report: &Report) {
    say(&format!("seed {}: {}", recipe.seed, words(recipe)));
    for line in report.trace.to_string().lines() {
        say(line);
    }
    for one in seen(&report.violations) {
        say(&format!("FOUND  {}", one.line(&[])));
    }
    for fault in never_struck(recipe, report) {
        say(&format!("{fault} never struck"));
    }
    let reason = report.reason.as_deref().unwrap_or("-");
    say(&format!("{}, reason {reason}", report.status.as_str()));
}

fn never_struck(recipe: &Recipe, report: &Report) -> Vec<String> {
    let never = recipe.faults.iter().filter(|fault| !fault.struck(report));
    never.map(Fault::to_string).collect()
}

fn state(number: u8) -> Cow<'static, str> {
    name_or_number(&STATE_NAMES, number.into())
}

/// A row a change of state, with how often it was seen calm and under each kind.
fn coverage(coverage: &Coverage) {
    let (seen, all) = coverage.pairs();
    say(&format!(
        "coverage: {seen} of {all} pairs of a change of state and a kind of fault"
    ));
    for change in coverage.changes() {
        let (from, to) = change;
        let mut line = format!("  {} > {}:", state(from), state(to));
        line.push_str(&format!(" calm {}", coverage.seen(change, None)));
        for (kind, word) in KINDS {
            match coverage.seen(change, Some(kind)) {
                0 => {}
                count => line.push_str(&format!(" {word} {count}")),
            }
        }
        say(&line);
    }
}

pub(super) fn as_json(who: &str, tally: &Tally, told: &[Told<'_>]) -> Value {
    let rows = tally.coverage.changes().into_iter().map(|change| {
        let under = KINDS.iter().filter_map(|(kind, word)| {
            let count = tally.coverage.seen(change, Some(*kind));
            (count > 0).then(|| ((*word).to_owned(), Value::from(count)))
        });
        json!({
            "from": state(change.0),
            "to": state(change.1),
            "calm": tally.coverage.seen(change, None),
            "under": under.collect::<Map<_, _>>(),
        })
    });
    let (seen, all) = tally.coverage.pairs();
    let (others, more) = others(tally, told);
    let others = others.into_iter().map(|one| {
        json!({
            "seed": one.recipe.seed,
            "scenario": one.recipe.story,
            "blocks": one.recipe.blocks,
            "faults": faults(&one.recipe),
            "invariants": one.invariants(),
        })
    });
    let struck = tally.faults.iter().map(|(kind, (all, never))| {
        let counts = json!({ "given": all, "never_struck": never });
        (kind.word().to_owned(), counts)
    });
    json!({
        "judged": who,
        "runs": tally.runs,
        "with_faults": tally.with_faults,
        "faults": struck.collect::<Map<_, _>>(),
        "cuts": tally.cuts,
        "found": tally.failures,
        "invariants": tally.broken,
        "failures": told.iter().map(failure).collect::<Vec<_>>(),
        "others": others.collect::<Vec<_>>(),
        "not_listed": more,
        "jobs": tally.ends,
        "coverage": { "pairs_seen": seen, "pairs": all, "changes": rows.collect::<Vec<_>>() },
        "digest": hex(&tally.digest()),
    })
}

fn violations(list: &[Violation]) -> Vec<Value> {
    let row = |seen: Seen<'_>| {
        let Violation {
            invariant,
            at_ms,
            detail,
        } = seen.first;
        json!({ "invariant": invariant, "at_ms": at_ms, "detail": detail, "times": seen.times, "last_ms": seen.last_ms })
    };
    seen(list).into_iter().map(row).collect()
}

fn failure(told: &Told<'_>) -> Value {
    let recipe = &told.failed.recipe;
    let small = told.small.as_ref().map(|small| {
        let report = &small.served.report;
        json!({
            "scenario": small.recipe.story,
            "blocks": small.recipe.blocks,
            "faults": faults(&small.recipe),
            "runs": small.runs,
            "violations": violations(&report.violations),
            "trace": trace(report),
        })
    });
    json!({
        "seed": recipe.seed,
        "scenario": recipe.story,
        "blocks": recipe.blocks,
        "faults": faults(recipe),
        "violations": violations(&told.failed.violations),
        "shrunk": small,
        "command": told.command,
    })
}

fn trace(report: &Report) -> Vec<String> {
    report
        .trace
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// One run in full.
pub(super) fn run_as_json(recipe: &Recipe, report: &Report) -> Value {
    json!({
        "seed": recipe.seed,
        "scenario": recipe.story,
        "blocks": recipe.blocks,
        "faults": faults(recipe),
        "never_struck": never_struck(recipe, report),
        "violations": violations(&report.violations),
        "status": report.status.as_str(),
        "reason": report.reason,
        "trace": trace(report),
    })
}

pub(super) fn list(json: bool) {
    let stories = recipe::stories();
    if json {
        let stories: Vec<_> = stories
            .iter()
            .map(|(name, purpose)| json!({ "name": name, "purpose": purpose }))
            .collect();
        let faults = KINDS.iter().map(|(kind, word)| {
            let form = kind.form();
            json!({ "name": word, "syntax": form.syntax, "needs": form.needs, "example": form.example })
        });
        let faults: Vec<_> = faults.collect();
        return say(&json!({ "scenarios": stories, "faults": faults }).to_string());
    }
    for (name, purpose) in stories {
        say(&format!("{name:<32} {purpose}"));
    }
    say("\nfaults, for --fault; instants are of virtual time, which begins at 1000 ms:");
    for (kind, word) in KINDS {
        let form = kind.form();
        let syntax = format!("{word}={}", form.syntax);
        say(&format!("{syntax:<32} {form}"));
    }
}
