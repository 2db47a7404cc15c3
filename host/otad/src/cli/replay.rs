//! `otad replay`: an agent does again what a trace says.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use host_runtime::agent::replay::{Compared, Difference, Likeness, Replayed, diff, replay};
use host_runtime::agent::trace::{TRACE_MAX_BYTES, Trace, TraceError};
use serde_json::{Value, json};

use super::args::{GuestArg, ReplayArgs};
use super::sandbox::now;
use crate::exit::{Exit, Failed, Verb};
use crate::progress::{note, say};

pub(super) fn follow(args: &ReplayArgs) -> Verb {
    let bytes = read(&args.trace)?;
    let damaged = |error: TraceError| {
        let file = args.trace.display().to_string();
        Failed::chain(Exit::Unverified, &file, &error)
    };
    let trace = Trace::open(&bytes).map_err(damaged)?;
    let likeness = match args.effects {
        true => Likeness::Effects,
        false => Likeness::Exact,
    };
    if let Some([old, new]) = args.diff.as_deref() {
        let old = GuestArg::at(old)?.load_agent(args.compile_seconds)?;
        let new = GuestArg::at(new)?.load_agent(args.compile_seconds)?;
        let compared = diff(&old, &new, trace, likeness).map_err(damaged)?;
        return Ok(tell_compared(&compared, args.json));
    }
    let agent = GuestArg {
        file: args.file.clone(),
        builtin: args.builtin,
    };
    let agent = agent.load_agent(args.compile_seconds)?;
    let of = trace.header().clone();
    let began = now();
    let replayed = replay(&agent, trace, likeness).map_err(damaged)?;
    let seconds = began.elapsed().as_secs_f64();
    if !args.json {
        let (name, version) = (&of.agent, &of.version);
        say(&format!("recorded of {name} {version} on {}", of.device));
    }
    let exit = tell_replayed(&replayed, args.json);
    note(&format!(
        "{} exchanges in {seconds:.2} s",
        replayed.exchanges
    ));
    Ok(exit)
}

/// One byte more than is taken tells a file that is too large.
fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let most = TRACE_MAX_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failed::new(
            Exit::Nothing,
            format!("{}: {error}", path.display()),
        )),
    }
}

fn tell_replayed(replayed: &Replayed, json: bool) -> Exit {
    let Replayed {
        exchanges,
        calls,
        cut,
        difference,
    } = replayed;
    if json {
        let answer = json!({
            "exchanges": exchanges,
            "calls": calls,
            "cut": cut,
            "difference": difference.as_ref().map(as_json),
        });
        say(&answer.to_string());
    } else if let Some(difference) = difference {
        print(difference, "recorded", "instead");
    } else if *exchanges == 0 {
        say("the trace holds no exchange: nothing was compared");
    } else {
        say(&format!(
            "the same in {exchanges} exchanges with {calls} calls"
        ));
        if *cut {
            say("the trace was cut off within its last line");
        }
    }
    match difference {
        None if *exchanges == 0 => Exit::Nothing,
        None => Exit::Done,
        Some(_) => Exit::Failed,
    }
}

fn as_json(difference: &Difference) -> Value {
    json!({
        "exchange": difference.exchange,
        "at_ms": difference.at_ms,
        "asked": difference.asked,
        "recorded": difference.recorded,
        "instead": difference.instead,
    })
}

fn print(difference: &Difference, one: &str, other: &str) {
    let Difference {
        exchange,
        at_ms,
        asked,
        recorded,
        instead,
    } = difference;
    say(&format!(
        "first difference in exchange {exchange}, at {at_ms} ms"
    ));
    say(&format!("  {:<9} {asked}", "asked"));
    say(&format!("  {one:<9} {recorded}"));
    say(&format!("  {other:<9} {instead}"));
}

fn tell_compared(compared: &Compared, json: bool) -> Exit {
    let (words, answer) = match compared {
        Compared::Same { exchanges: 0 } => (
            "the trace holds no exchange: nothing was compared".to_owned(),
            json!({ "same": 0 }),
        ),
        Compared::Same { exchanges } => (
            format!("both did the same in {exchanges} exchanges"),
            json!({ "same": exchanges }),
        ),
        Compared::Left(difference) => (String::new(), json!({ "left": as_json(difference) })),
        Compared::Differ {
            exchange,
            at_ms,
            asked,
            old,
            new,
        } => (
            String::new(),
            json!({ "differ": {
                "exchange": exchange, "at_ms": at_ms, "asked": asked, "old": old, "new": new,
            } }),
        ),
    };
    if json {
        say(&answer.to_string());
    } else {
        match compared {
            Compared::Same { .. } => say(&words),
            Compared::Left(difference) => {
                say(
                    "both do the same, and something else than was recorded: what would follow is not known",
                );
                print(difference, "recorded", "both");
            }
            Compared::Differ {
                exchange,
                at_ms,
                asked,
                old,
                new,
            } => print(
                &Difference {
                    exchange: *exchange,
                    at_ms: *at_ms,
                    asked: asked.clone(),
                    recorded: old.clone(),
                    instead: new.clone(),
                },
                "old",
                "new",
            ),
        }
    }
    match compared {
        Compared::Same { exchanges: 0 } => Exit::Nothing,
        Compared::Same { .. } => Exit::Done,
        Compared::Left(_) | Compared::Differ { .. } => Exit::Failed,
    }
}
