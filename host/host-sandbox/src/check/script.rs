//! Case files: lines of text.
//!
//! ```text
//! let doc = {"afr_ota":{…}}        a name for a text, used as ${doc}; before the first case for all of the file
//! source AWS IoT Jobs, section     where it is written; before the first case for all that name no other
//! case name-with-dashes            begins a case
//! about What it shows, and why.    any number of lines
//! own                              how the shipped build does it: nobody else is asked for it
//! set block_size 1024              what the world is like before the first input
//! > start                          an input
//! < publish 1 ~/jobs/$next/get …   what the agent did then
//! ```
//!
//! Empty lines and lines that begin with `#` mean nothing and stay where they are when a file is blessed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A script that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct ScriptError {
    /// Case file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// One file of cases.
#[derive(Debug)]
pub struct File {
    /// Its name, for messages.
    pub name: String,
    /// Its cases, in order.
    pub cases: Vec<Case>,
    /// Everything before the first case, as written.
    preamble: String,
}

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Unique name.
    pub name: String,
    /// Its file, for messages.
    pub file: String,
    /// What it shows, and why.
    pub about: String,
    /// Where it is written.
    pub source: String,
    /// How the shipped build does it; another one may do otherwise.
    pub own: bool,
    /// Lines of the set-up with their number.
    pub setup: Vec<(usize, String)>,
    /// Inputs with what must follow.
    pub steps: Vec<Step>,
    /// Everything before the first input, as written.
    head: String,
}

/// One input and what the agent must do then.
#[derive(Debug)]
pub struct Step {
    /// Line of the input.
    pub line: usize,
    /// The input, with all names replaced.
    pub input: String,
    /// What must follow, a line each.
    pub expected: Vec<String>,
    /// The input as written, with the comments before it.
    written: String,
}

/// Reads a file.
///
/// # Errors
/// The first line that is none of the above, and the first name that was not given.
pub fn parse(name: &str, text: &str) -> Result<File, ScriptError> {
    let mut file = File {
        name: name.to_owned(),
        cases: Vec::new(),
        preamble: String::new(),
    };
    let mut shared = BTreeMap::new();
    let mut own = BTreeMap::new();
    let mut source = String::new();
    // Comments and empty lines belong to what comes after them.
    let mut held = String::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let fail = |what: String| ScriptError {
            file: name.to_owned(),
            line: number,
            what,
        };
        if line.trim().is_empty() || line.starts_with('#') {
            held = held + line + "\n";
            continue;
        }
        let written = std::mem::take(&mut held) + line + "\n";
        if let Some(case) = line.strip_prefix("case ") {
            own.clone_from(&shared);
            file.cases.push(Case {
                name: case.trim().to_owned(),
                file: name.to_owned(),
                about: String::new(),
                source: source.clone(),
                own: false,
                setup: Vec::new(),
                steps: Vec::new(),
                head: written,
            });
            continue;
        }
        let Some(case) = file.cases.last_mut() else {
            if let Some(text) = line.strip_prefix("source ") {
                text.trim().clone_into(&mut source);
                file.preamble += &written;
                continue;
            }
            let (key, value) = parse_let(line)
                .ok_or_else(|| fail("a case, a let or a source was expected".to_owned()))?;
            shared.insert(key, replace(&value, &shared).map_err(fail)?);
            file.preamble += &written;
            continue;
        };
        if let Some(input) = line.strip_prefix("> ") {
            let input = replace(input, &own).map_err(fail)?;
            case.steps.push(Step {
                line: number,
                input,
                expected: Vec::new(),
                written,
            });
        } else if let Some(output) = line.strip_prefix("< ") {
            let step = case
                .steps
                .last_mut()
                .ok_or_else(|| fail("an output before the first input".to_owned()))?;
            step.expected.push(output.to_owned());
        } else if !case.steps.is_empty() {
            return Err(fail("`> input` or `< output` was expected".to_owned()));
        } else {
            if let Some((key, value)) = parse_let(line) {
                let value = replace(&value, &own).map_err(fail)?;
                own.insert(key, value);
            } else if let Some(text) = line.strip_prefix("about ") {
                let gap = if case.about.is_empty() { "" } else { " " };
                case.about = format!("{}{gap}{}", case.about, text.trim());
            } else if let Some(text) = line.strip_prefix("source ") {
                text.trim().clone_into(&mut case.source);
            } else if line == "own" {
                case.own = true;
            } else {
                case.setup
                    .push((number, replace(line, &own).map_err(fail)?));
            }
            case.head += &written;
        }
    }
    Ok(file)
}

impl Case {
    /// What it shows; where nobody wrote that down, its name says it.
    #[must_use]
    pub fn purpose(&self) -> String {
        if self.about.is_empty() {
            self.name.replace('-', " ")
        } else {
            self.about.clone()
        }
    }

    /// Makes an error of what is wrong in one of its lines.
    pub fn at(&self, line: usize) -> impl Fn(String) -> ScriptError + use<> {
        let file = self.file.clone();
        move |what| ScriptError {
            file: file.clone(),
            line,
            what,
        }
    }
}

impl File {
    /// The file with other outputs: `outputs[case][step]` are lines.
    #[must_use]
    pub fn blessed(&self, outputs: &[Vec<Vec<String>>]) -> String {
        let mut text = self.preamble.clone();
        for (case, steps) in self.cases.iter().zip(outputs) {
            text += &case.head;
            for (step, lines) in case.steps.iter().zip(steps) {
                text += &step.written;
                for line in lines {
                    // Writing to a string cannot fail.
                    let _written = writeln!(text, "< {line}");
                }
            }
        }
        text
    }
}

fn parse_let(line: &str) -> Option<(String, String)> {
    let (key, value) = line.strip_prefix("let ")?.split_once(" = ")?;
    Some((key.trim().to_owned(), value.to_owned()))
}

fn replace(text: &str, names: &BTreeMap<String, String>) -> Result<String, String> {
    let mut parts = text.split("${");
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part
            .split_once('}')
            .ok_or_else(|| format!("{text} has an open ${{"))?;
        replaced += names
            .get(name)
            .ok_or_else(|| format!("${{{name}}} has no value"))?;
        replaced += rest;
    }
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# head\nlet a = 1\nlet b = [${a}]\n\ncase one\nabout x\nlet a = 2\nset k ${a}\n\n# c\n> do ${b}\n< x\n< y\n> do\n\ncase two\n> do ${a}\n";

    #[test]
    fn a_file_is_read_and_written_back_as_it_was() {
        let file = parse("f", TEXT).unwrap();
        let names: Vec<&str> = file.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(file.cases[0].setup, [(8, "set k 2".to_owned())]);
        assert_eq!(file.cases[0].steps[0].input, "do [1]");
        assert_eq!(file.cases[0].steps[0].expected, ["x", "y"]);
        assert_eq!(file.cases[1].steps[0].input, "do 1");
        let outputs = vec![
            vec![vec!["x".to_owned(), "y".to_owned()], Vec::new()],
            vec![Vec::new()],
        ];
        assert_eq!(file.blessed(&outputs), TEXT);
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_line() {
        for (text, expected) in [
            ("x\n", "f:1: a case, a let or a source was expected"),
            ("case a\n< x\n", "f:2: an output before the first input"),
            (
                "case a\n> x\ny\n",
                "f:3: `> input` or `< output` was expected",
            ),
            ("case a\n> ${x}\n", "f:2: ${x} has no value"),
            ("case a\n> ${x\n", "f:2: ${x has an open ${"),
        ] {
            assert_eq!(parse("f", text).unwrap_err().to_string(), expected);
        }
    }
}
