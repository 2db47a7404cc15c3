//! Inputs of a plugin's case, as values. The list is in `cases/README.md`.

use host_mcu_sim::fault::Rule;
use host_runtime::types::{Failure, Setting};

use super::board::Breed;
use super::device::{Far, Survivors, Trouble, Verb};

/// A duty that is begun and goes on until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Create {
        job: String,
        size: u64,
        block: u32,
    },
    Reopen,
    /// Each block with a call of its own.
    Write(Which),
    /// Blocks that lie side by side with one call, as the host gives them to a plugin.
    WriteTogether(Which),
    /// Bytes at any offset, which no host would ask for.
    WriteAt {
        offset: u64,
        length: usize,
    },
    Examine,
    Install,
    Activate,
    Reset,
    SelfTest,
    Commit,
    Reject,
    State,
    Abort,
    Step,
}

/// Which blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    Backwards,
    /// All that are not held.
    Rest,
    /// In an order that looks random.
    Shuffled,
    These(Vec<u64>),
}

/// One input.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A fresh instance is opened.
    Open {
        settings: Vec<Setting>,
        blob: Option<Vec<u8>>,
        schema: Option<u32>,
    },
    /// Another instance takes over by what this one saves.
    Successor,
    /// The instance is gone and another one begins without anything saved.
    Kill,
    /// Power fails and comes back; another instance begins.
    PowerCut(Survivors),
    /// A duty, to its end.
    Duty(Duty),
    /// A duty is only begun.
    Begin(Duty),
    /// A duty with a power cut at each call that leaves a mark, one run for each; then it is done again.
    EachCut(Duty),
    /// The extents are asked for.
    Extents,
    /// The file is complete: locked, read back and compared.
    Close,
    /// The launcher starts what counts; true: the new image does not stay up.
    Boot {
        dies: bool,
    },
    /// State is asked for.
    Suspend,
    Trouble(Trouble),
    NoTrouble,
    Slow(u64),
    Wait(u64),
    /// A record is damaged: the copy of that number, or all.
    Damage {
        region: String,
        copy: Option<u8>,
    },
    /// The staged file: so many bytes are there.
    Staged(u64),
    Verified,
    /// What is at the other end of the line.
    Line(Far),
    /// A simulated MCU of this kind is.
    Mcu(Breed),
    /// The MCU loses its power, and has it back.
    McuPowerCut,
    /// Something goes wrong at one of the MCU's next requests.
    McuRule(Rule),
    /// The images that lie in the MCU.
    McuImages,
    /// The same inputs again, so many times: create, write all, abort.
    Cycles(u32),
}

impl Input {
    /// Whether the plugin is asked to restart its target.
    pub(super) fn resets(&self) -> bool {
        matches!(self, Self::Duty(Duty::Reset) | Self::EachCut(Duty::Reset))
    }
}

/// Reads an input.
pub(super) fn parse(text: &str) -> Result<Input, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words.as_slice() {
        ["open", pairs @ ..] => open(pairs)?,
        ["successor"] => Input::Successor,
        ["kill"] => Input::Kill,
        ["power-cut", what] => Input::PowerCut(survivors(what)?),
        ["begin", duty @ ..] => Input::Begin(self::duty(duty)?),
        ["each-cut", duty @ ..] => Input::EachCut(self::duty(duty)?),
        ["extents"] => Input::Extents,
        ["close"] => Input::Close,
        ["boot"] => Input::Boot { dies: false },
        ["boot", "dies"] => Input::Boot { dies: true },
        ["suspend"] => Input::Suspend,
        ["trouble", "none"] => Input::NoTrouble,
        ["trouble", verb, rest @ ..] => Input::Trouble(trouble(verb, rest)?),
        ["slow", ms] => Input::Slow(number(ms)?),
        ["wait", ms] => Input::Wait(number(ms)?),
        ["damage", region] => Input::Damage {
            region: (*region).to_owned(),
            copy: None,
        },
        ["damage", region, copy] => Input::Damage {
            region: (*region).to_owned(),
            copy: Some(number(copy)?),
        },
        ["staged", bytes] => Input::Staged(number(bytes)?),
        ["line", "silent"] => Input::Line(Far::Silent),
        ["line", "unplugged"] => Input::Line(Far::Unplugged),
        ["line", "noise"] => Input::Line(Far::Noise),
        ["line", "mcu"] => Input::Mcu(Breed::Sound),
        ["line", "mcu", breed] => Input::Mcu(self::breed(breed)?),
        ["mcu", "power-cut"] => Input::McuPowerCut,
        ["mcu", "images"] => Input::McuImages,
        ["mcu", rule] => Input::McuRule(rule.parse().map_err(|e| format!("{e}"))?),
        ["verified"] => Input::Verified,
        ["cycles", count] => Input::Cycles(number(count)?),
        duty => Input::Duty(self::duty(duty)?),
    })
}

fn breed(text: &str) -> Result<Breed, String> {
    Ok(match text {
        "silent" => Breed::Silent,
        "crashes" => Breed::Crashes,
        "old" => Breed::Old,
        "strict" => Breed::Strict,
        "overwrites" => Breed::Overwrites,
        _ => return Err(format!("{text:?} is no kind of an MCU")),
    })
}

fn open(pairs: &[&str]) -> Result<Input, String> {
    let (mut settings, mut blob, mut schema) = (Vec::new(), None, None);
    for pair in pairs {
        let (key, value) = pair.split_once('=').ok_or("open takes key=value")?;
        match key {
            "blob" => blob = Some(value.as_bytes().to_vec()),
            "schema" => schema = Some(number(value)?),
            _ => settings.push(Setting {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
        }
    }
    Ok(Input::Open {
        settings,
        blob,
        schema,
    })
}

fn duty(words: &[&str]) -> Result<Duty, String> {
    Ok(match words {
        ["create", size, pairs @ ..] => {
            let (mut job, mut block) = ("job-1".to_owned(), 1024);
            for pair in pairs {
                match pair.split_once('=') {
                    Some(("job", value)) => value.clone_into(&mut job),
                    Some(("block", value)) => block = number(value)?,
                    _ => return Err(format!("{pair:?} is neither job= nor block=")),
                }
            }
            Duty::Create {
                job,
                size: number(size)?,
                block,
            }
        }
        ["reopen"] => Duty::Reopen,
        ["write", "together", blocks @ ..] => Duty::WriteTogether(which(blocks)?),
        ["write", blocks @ ..] => Duty::Write(which(blocks)?),
        ["write-at", offset, length] => Duty::WriteAt {
            offset: number(offset)?,
            length: number(length)?,
        },
        ["examine"] => Duty::Examine,
        ["install"] => Duty::Install,
        ["activate"] => Duty::Activate,
        ["reset"] => Duty::Reset,
        ["self-test"] => Duty::SelfTest,
        ["commit"] => Duty::Commit,
        ["reject"] => Duty::Reject,
        ["state"] => Duty::State,
        ["abort"] => Duty::Abort,
        ["step"] => Duty::Step,
        _ => return Err(format!("{} is no input", words.join(" "))),
    })
}

fn which(words: &[&str]) -> Result<Which, String> {
    Ok(match words {
        [] => return Err("write says which blocks".to_owned()),
        ["all"] => Which::All,
        ["backwards"] => Which::Backwards,
        ["shuffled"] => Which::Shuffled,
        ["rest"] => Which::Rest,
        blocks => {
            let blocks: Result<Vec<u64>, String> = blocks.iter().map(|b| number(b)).collect();
            Which::These(blocks?)
        }
    })
}

pub(super) fn survivors(text: &str) -> Result<Survivors, String> {
    match text {
        "all" => Ok(Survivors::All),
        "none" => Ok(Survivors::None),
        "torn" => Ok(Survivors::Torn),
        "last" => Ok(Survivors::Last),
        _ => Err(format!("{text:?} is neither all, none, torn nor last")),
    }
}

/// `write 0xd6:28 [after=N] [count=N] [torn]`.
fn trouble(verb: &str, rest: &[&str]) -> Result<Trouble, String> {
    let verb = match verb {
        "read" => Verb::Read,
        "write" => Verb::Write,
        "erase" => Verb::Erase,
        "sync" => Verb::Sync,
        "regions" => Verb::Regions,
        _ => return Err(format!("{verb:?} is no lent call")),
    };
    let mut trouble = Trouble {
        verb,
        failure: Failure::new(0xd6, 5, "as the script has it"),
        after: 0,
        count: u32::MAX,
        torn: false,
    };
    for word in rest {
        match word.split_once(['=', ':']) {
            Some(("after", value)) => trouble.after = number(value)?,
            Some(("count", value)) => trouble.count = number(value)?,
            Some((main, sub)) => {
                let digits = main.trim_start_matches("0x");
                let main = u8::from_str_radix(digits, 16).map_err(|e| e.to_string())?;
                trouble.failure = Failure::new(main, number(sub)?, "as the script has it");
            }
            None if *word == "torn" => trouble.torn = true,
            None => return Err(format!("{word:?} is no part of a trouble")),
        }
    }
    Ok(trouble)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number in range"))
}
