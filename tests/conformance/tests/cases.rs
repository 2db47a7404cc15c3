//! All case files, played against agent-core.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use conformance::script::{self, File};
use conformance::world::{self, MISTAKE, Transcript};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases")
}

fn files() -> Vec<File> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder())
        .expect("the folder exists")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    let parse = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).expect("a case file can be read");
        script::parse(&name, &text).unwrap_or_else(|error| panic!("{error}"))
    };
    paths.iter().map(parse).collect()
}

/// What the agent did otherwise than expected, step by step.
fn differences(file: &File, transcripts: &[Transcript], normal: fn(&str) -> String) -> String {
    let mut text = String::new();
    for (case, transcript) in file.cases.iter().zip(transcripts) {
        for (step, lines) in case.steps.iter().zip(transcript) {
            let expected: Vec<String> = step.expected.iter().map(|line| normal(line)).collect();
            let lines: Vec<String> = lines.iter().map(|line| normal(line)).collect();
            if expected != lines {
                let (line, name) = (step.line, &case.name);
                text += &format!("\n{}:{line}: case {name}\n> {}\n", file.name, step.input);
                text += &expected
                    .iter()
                    .map(|line| format!("  expected {line}\n"))
                    .collect::<String>();
                text += &lines
                    .iter()
                    .map(|line| format!("       got {line}\n"))
                    .collect::<String>();
                // What follows a difference is seldom worth reading.
                break;
            }
        }
    }
    text
}

/// What no case may hold, whatever its script expects.
fn mistakes(file: &File, transcripts: &[Transcript]) -> String {
    let mut text = String::new();
    for (case, transcript) in file.cases.iter().zip(transcripts) {
        for (step, lines) in case.steps.iter().zip(transcript) {
            for line in lines.iter().filter(|line| line.starts_with(MISTAKE)) {
                text += &format!("\n{}:{}: case {}: {line}", file.name, step.line, case.name);
            }
        }
    }
    text
}

fn play(file: &File, swapped: bool) -> Vec<Transcript> {
    file.cases
        .iter()
        .map(|case| {
            world::play(&file.name, case, swapped)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        })
        .collect()
}

#[test]
fn every_case_goes_as_written() {
    let bless = std::env::var_os("OTAD_BLESS").is_some();
    let mut text = String::new();
    for file in files() {
        let transcripts = play(&file, false);
        if bless {
            fs::write(folder().join(&file.name), file.blessed(&transcripts))
                .expect("a case file can be written");
        } else {
            text += &differences(&file, &transcripts, str::to_owned);
        }
        text += &mistakes(&file, &transcripts);
    }
    assert!(text.is_empty(), "{text}");
}

#[test]
fn every_case_goes_the_same_way_with_a_swap_after_each_input() {
    let text: String = files()
        .iter()
        .map(|file| differences(file, &play(file, true), without_tokens))
        .collect();
    assert!(text.is_empty(), "{text}");
}

#[test]
fn every_case_goes_the_same_way_twice() {
    for file in files() {
        assert_eq!(play(&file, false), play(&file, false), "{}", file.name);
    }
}

#[test]
fn every_case_goes_the_same_way_whatever_the_wall_clock_says() {
    for file in files() {
        let jumping: Vec<Transcript> = file
            .cases
            .iter()
            .map(|case| {
                world::play_with_jumping_clock(&file.name, case)
                    .unwrap_or_else(|error| panic!("{}: {error}", case.name))
            })
            .collect();
        assert_eq!(play(&file, false), jumping, "{}", file.name);
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for case in files().iter().flat_map(|file| &file.cases) {
        assert!(
            names.insert(case.name.clone()),
            "{} stands twice",
            case.name
        );
        assert!(!case.steps.is_empty(), "{} does nothing", case.name);
    }
    assert!(names.len() >= 60, "only {} cases were found", names.len());
}

/// Client tokens differ from start to start; everything else must not.
fn without_tokens(line: &str) -> String {
    const MEMBER: &str = "\"clientToken\":\"u";
    match line.split_once(MEMBER) {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
            format!("{before}{MEMBER}{rest}")
        }
        None => line.to_owned(),
    }
}
