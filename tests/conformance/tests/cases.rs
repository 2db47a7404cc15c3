//! All case files, played against agent-core.

use std::collections::BTreeSet;
use std::fs;

use conformance::{files, folder};
use host_sandbox::check::agent::world::{self, MISTAKE, Manner, Transcript};
use host_sandbox::check::script::File;
use host_sandbox::native_agent;

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

fn play(file: &File, manner: Manner) -> Vec<Transcript> {
    let agent = native_agent();
    let play = |case| world::play(&agent, case, manner);
    file.cases
        .iter()
        .map(|case| play(case).unwrap_or_else(|error| panic!("{}: {error}", case.name)))
        .collect()
}

#[test]
fn every_case_goes_as_written() {
    let bless = std::env::var_os("OTAD_BLESS").is_some();
    let mut text = String::new();
    for file in files() {
        let transcripts = play(&file, Manner::default());
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
    let swapped = Manner {
        swapped: true,
        ..Manner::default()
    };
    let text: String = files()
        .iter()
        .map(|file| differences(file, &play(file, swapped), without_tokens))
        .collect();
    assert!(text.is_empty(), "{text}");
}

#[test]
fn every_case_goes_the_same_way_twice() {
    for file in files() {
        assert_eq!(
            play(&file, Manner::default()),
            play(&file, Manner::default()),
            "{}",
            file.name
        );
    }
}

#[test]
fn every_case_goes_the_same_way_whatever_the_wall_clock_says() {
    for file in files() {
        let jumping = Manner {
            clock_jumps: true,
            ..Manner::default()
        };
        let jumping = play(&file, jumping);
        assert_eq!(play(&file, Manner::default()), jumping, "{}", file.name);
    }
}

/// The jobs of all events of a kind that a case tells of, in order: `emit 3 fail AFR_OTA-1 failure=…`.
fn told<'a>(transcript: &'a Transcript, kind: &str, also: &str) -> Vec<&'a str> {
    let job = |line: &'a String| {
        let mut words = line.strip_prefix("emit ")?.split(' ').skip(1);
        (words.next() == Some(kind) && line.contains(also)).then(|| words.next())?
    };
    transcript.iter().flatten().filter_map(job).collect()
}

#[test]
fn every_job_that_ends_failed_has_one_fail_event() {
    let mut ended = 0;
    for file in files() {
        for (case, transcript) in file.cases.iter().zip(play(&file, Manner::default())) {
            let fails = told(&transcript, "fail", "");
            for job in told(&transcript, "job-ended", "\"status\":\"FAILED\"") {
                let of_it = fails.iter().filter(|fail| **fail == job).count();
                assert_eq!(of_it, 1, "{}: {job} in {fails:?}", case.name);
                ended += 1;
            }
        }
    }
    assert!(ended >= 40, "only {ended} jobs end so");
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
    assert!(names.len() >= 180, "only {} cases were found", names.len());
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
