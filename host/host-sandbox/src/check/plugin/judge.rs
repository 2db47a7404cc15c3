//! What a case asks of a plugin, and whether it gives it: one answer after each input, and no mistake of the bench's.
//!
//! An answer is `done`, `failed MAIN:SUB`, `state CODE VERSION new|old`, `info VERSION`, `host-resets`, or what the
//! input's line in `cases/README.md` says. A case may leave words away, and give several answers with ` | ` between.

use std::sync::Arc;

use host_runtime::plugin::{Answer, PluginFactory, capability};
use host_runtime::types::{Blob, Setting};

use super::bench::{Bench, Broken, End};
use super::device::Hands;
use super::input::{self, Duty, Input, Which};
use super::launcher;
use crate::check::script::{Case, ScriptError, Step};
use crate::check::verdict::{Finding, Skip, Verdict};

/// Bytes of a slot unless a case says otherwise.
const SLOT_BYTES: usize = 256 * 1024;

/// Plays a case with a plugin and judges it. `settings` are the operator's, for every instance.
#[must_use]
pub(crate) fn judge(
    factory: &Arc<dyn PluginFactory>,
    settings: &[Setting],
    case: &Case,
) -> Verdict {
    match Trial::set(factory, settings, case) {
        Ok(Ok(trial)) => trial.run(case),
        Ok(Err(skip)) => Verdict::Skipped(skip),
        Err(error) => Verdict::Failed(Finding {
            place: case.file.clone(),
            what: error.to_string(),
            ..Finding::default()
        }),
    }
}

struct Trial {
    bench: Bench,
    /// The case is over, and not asked, where the plugin's `reset` leaves the restart to its host.
    own_reset: bool,
}

impl Trial {
    /// The bench as the case's set-up has it; the inner error says why it is not for this plugin.
    fn set(
        factory: &Arc<dyn PluginFactory>,
        settings: &[Setting],
        case: &Case,
    ) -> Result<Result<Self, Skip>, ScriptError> {
        let who = factory.description();
        let is_flash_file = who.kinds.iter().any(|kind| kind == "flash-file");
        let has_line = factory.imports().iter().any(|i| i == "serial-line");
        let (mut slot, mut units) = (SLOT_BYTES, (1, 1));
        let mut own_reset = false;
        for (line, text) in &case.setup {
            let words: Vec<&str> = text.split_whitespace().collect();
            let has = match words.as_slice() {
                ["needs", "direct"] => who.can(capability::DIRECT),
                ["needs", "staged"] => who.can(capability::STAGED) && !has_line,
                ["needs", "serial-line"] => has_line,
                ["needs", "answers"] => !has_line,
                ["needs", "self-test"] => who.can(capability::SELF_TEST),
                ["needs", "running-version"] => who.can(capability::RUNNING_VERSION),
                ["needs", "flash-file"] => is_flash_file,
                // What the plugin says when it is asked to.
                ["needs", "own-reset"] => {
                    own_reset = true;
                    !is_flash_file
                }
                ["needs", "smp"] => who.kinds.iter().any(|kind| kind == "serial-mcu"),
                ["slots", bytes] => bytes.parse().map(|b| slot = b).is_ok(),
                ["units", erase, write] => match (erase.parse(), write.parse()) {
                    (Ok(erase), Ok(write)) => {
                        units = (erase, write);
                        true
                    }
                    _ => false,
                },
                _ => return Err(case.at(*line)(format!("{text:?} is no line of a set-up"))),
            };
            if !has && words.first() == Some(&"needs") {
                let what = words.get(1).copied().unwrap_or_default();
                return Ok(Err(Skip::Needs(what.to_owned())));
            }
        }
        let bench = Bench::new(factory, settings);
        {
            let mut shelf = bench.device.shelf();
            shelf.stores = launcher::regions(slot, is_flash_file);
            for store in &mut shelf.stores {
                (store.region.erase_size, store.region.write_size) = units;
            }
        }
        Ok(Ok(Self { bench, own_reset }))
    }

    fn run(mut self, case: &Case) -> Verdict {
        for step in &case.steps {
            let input = match input::parse(&step.input) {
                Ok(input) => input,
                Err(what) => return failed(case, step, what, &[]),
            };
            let answer = match self.enter(&input) {
                Ok(answer) => answer,
                Err(Broken(why)) => {
                    return Verdict::Broken(format!("in `{}`: {why}", step.input));
                }
            };
            let came = [answer.clone()];
            if let Some(mistake) = self.bench.take_mistakes().into_iter().next() {
                return failed(case, step, mistake, &came);
            }
            if self.own_reset && input.resets() && answer == "host-resets" {
                return Verdict::Skipped(Skip::HostResets);
            }
            let fits = match step.expected.first() {
                Some(expected) => expected.split(" | ").any(|one| is_like(&answer, one)),
                None => is_like(&answer, "done"),
            };
            if !fits {
                return failed(case, step, "it answers otherwise".to_owned(), &came);
            }
        }
        Verdict::Passed
    }

    fn enter(&mut self, input: &Input) -> Result<String, Broken> {
        let bench = &mut self.bench;
        let end = match input {
            Input::Open {
                settings,
                blob,
                schema,
            } => {
                let blob = blob.as_ref().map(|bytes| Blob {
                    schema: schema.unwrap_or(1),
                    bytes: bytes.clone(),
                });
                bench.open(settings, blob.as_ref())?
            }
            Input::Successor => bench.replace(true)?,
            Input::Kill => bench.replace(false)?,
            Input::PowerCut(survivors) => bench.power_cut(*survivors)?,
            Input::Duty(duty) => bench.duty(duty)?,
            Input::Begin(duty) => {
                return Ok(match bench.begin(duty)? {
                    Ok(host_runtime::plugin::Duty::Working { .. }) => "working".to_owned(),
                    Ok(host_runtime::plugin::Duty::Finished(answer)) => said(&End::Done(answer)),
                    Err(failure) => said(&End::Failed(failure)),
                });
            }
            Input::EachCut(duty) => bench.each_cut(duty)?,
            Input::Extents => {
                bench.check_extents()?;
                End::Done(Answer::Nothing)
            }
            Input::Close => {
                return Ok(match bench.close()? {
                    true => "complete".to_owned(),
                    false => "differs".to_owned(),
                });
            }
            Input::Suspend => match bench.suspend()? {
                Ok(_) => End::Done(Answer::Nothing),
                Err(failure) => End::Failed(failure),
            },
            Input::Cycles(count) => return self.cycles(*count),
            Input::Boot { .. }
            | Input::Trouble(_)
            | Input::NoTrouble
            | Input::Slow(_)
            | Input::Wait(_)
            | Input::Damage { .. }
            | Input::Staged(_)
            | Input::Line(_)
            | Input::Mcu(_)
            | Input::McuPowerCut
            | Input::McuRule(_)
            | Input::McuImages
            | Input::Verified => return Ok(self.arrange(input)),
        };
        Ok(said(&end))
    }

    /// What happens to the world and not to the plugin.
    fn arrange(&mut self, input: &Input) -> String {
        let image = self.bench.image();
        let clock: &Hands = &self.bench.device.clock;
        match input {
            Input::Wait(ms) => clock.pass(*ms),
            Input::McuPowerCut => self.bench.device.cut_mcu(),
            Input::McuRule(rule) => self.bench.device.spoil_mcu(*rule),
            Input::McuImages => {
                let versions = self.bench.device.standing().map(|mcu| mcu.versions);
                return format!("images {}", versions.unwrap_or_default().join(" "));
            }
            Input::Mcu(breed) => {
                if let Err(error) = self.bench.device.attach(*breed) {
                    return error.to_string();
                }
            }
            _ => {}
        }
        let mut shelf = self.bench.device.shelf();
        match input {
            Input::Boot { dies } => return launcher::start(&mut shelf, *dies),
            Input::Trouble(trouble) => shelf.troubles.push(trouble.clone()),
            Input::NoTrouble => shelf.troubles.clear(),
            Input::Slow(ms) => shelf.slow_ms = *ms,
            Input::Damage { region, copy } => {
                let Some(store) = shelf.store(region) else {
                    return "no such region".to_owned();
                };
                let places = copy.map_or(vec![0, 1], |copy| vec![copy]);
                for place in places {
                    store.place(usize::from(place) * 4096 + 20, &[0x5a; 8]);
                }
            }
            Input::Staged(bytes) => {
                shelf.held = (*bytes).min(image.len() as u64);
                shelf.staged = image;
            }
            Input::Verified => shelf.verified = true,
            Input::Line(far) => shelf.far = *far,
            _ => {}
        }
        "done".to_owned()
    }

    fn cycles(&mut self, count: u32) -> Result<String, Broken> {
        for number in 0..count {
            let create = Duty::Create {
                job: format!("job-{number}"),
                size: 20_000,
                block: 4096,
            };
            for duty in [create, Duty::Write(Which::All), Duty::Abort, Duty::State] {
                if let failed @ End::Failed(_) = self.bench.duty(&duty)? {
                    return Ok(format!("{} in round {number}", said(&failed)));
                }
            }
            if let Err(failure) = self.bench.suspend()? {
                return Ok(said(&End::Failed(failure)));
            }
        }
        Ok("done".to_owned())
    }
}

fn failed(case: &Case, step: &Step, what: String, came: &[String]) -> Verdict {
    Verdict::Failed(Finding {
        place: format!("{}:{}", case.file, step.line),
        what,
        input: step.input.clone(),
        expected: step.expected.clone(),
        came: came.to_vec(),
    })
}

/// An end as the cases write it.
fn said(end: &End) -> String {
    match end {
        End::Done(Answer::Nothing) => "done".to_owned(),
        End::Done(Answer::HostResets) => "host-resets".to_owned(),
        End::Done(Answer::Info(info)) => {
            let version = info
                .version
                .map_or_else(|| "none".to_owned(), |v| v.to_string());
            format!("info {version}")
        }
        End::Done(Answer::State(state)) => {
            let version = state
                .running
                .map_or_else(|| "none".to_owned(), |v| v.to_string());
            let new = match state.runs_new {
                Some(true) => " new",
                Some(false) => " old",
                None => "",
            };
            format!("state {} {version}{new}", state.code)
        }
        End::Done(Answer::Other(_)) => "other".to_owned(),
        End::Failed(failure) => {
            format!(
                "failed {:#04x}:{} {}",
                failure.main, failure.sub, failure.detail
            )
        }
    }
}

/// Whether an answer has all words of a pattern, the first one first, and none behind a `!`. `0xe8` is like `0xe8:3`.
fn is_like(answer: &str, pattern: &str) -> bool {
    let words: Vec<&str> = answer.split_whitespace().collect();
    let mut wanted = pattern.split_whitespace();
    if wanted.next() != words.first().copied() {
        return false;
    }
    wanted.all(|wanted| {
        let is = |word: &&str| {
            **word == *wanted
                || word
                    .split_once(':')
                    .is_some_and(|(main, _)| main == wanted && main.starts_with("0x"))
        };
        match wanted.strip_prefix('!') {
            Some(unwanted) => !words.contains(&unwanted),
            None => words.iter().skip(1).any(is),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn a_pattern_may_leave_words_away() {
        for (answer, pattern, is) in [
            ("done", "done", true),
            ("failed 0xe8:3 no", "failed", true),
            ("failed 0xe8:3 no", "failed 0xe8", true),
            ("failed 0xe8:3 no", "failed 0xe8:3", true),
            ("failed 0xe8:3 no", "failed 0xe9", false),
            ("state 1 1.2.0 new", "state 1 new", true),
            ("state 1 1.2.0 new", "state 2", false),
            ("state 1 none", "state 1 !old", true),
            ("state 1 none old", "state 1 !old", false),
            ("host-resets", "done", false),
        ] {
            assert_eq!(is_like(answer, pattern), is, "{answer} like {pattern}");
        }
    }
}
