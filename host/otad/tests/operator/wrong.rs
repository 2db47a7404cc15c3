//! Wrong configurations and command lines, one row each in `wrong.txt`: every error names place, cause and cure and ends
//! with its exit code, and nothing is left behind.

use std::fs;

use crate::{command, error};

const ROWS: &str = include_str!("wrong.txt");

/// What every row changes a part of.
const GOOD: &str = r#"[daemon]
state_dir = "state"
[trust]
directory = "trust"
[[device]]
name = "pump-1"
[device.mqtt]
endpoint = "localhost"
root_certificate = "root.pem"
certificate = "certificate.pem"
private_key = "private-key.pem"
[[device.target]]
name = "main"
file_id = 0
plugin = "flash-file"
directory = "targets/main"
restart = { command = ["./restart.sh", "main"] }
"#;

#[derive(Default)]
struct Row {
    name: String,
    from: String,
    to: String,
    arguments: String,
    code: i32,
    place: String,
    cause: String,
    cure: String,
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in ROWS
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (mark, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.trim().replace("\\n", "\n");
        if mark == "==" {
            rows.push(Row {
                name: text,
                ..Row::default()
            });
            continue;
        }
        let row = rows.last_mut().unwrap();
        match mark {
            "-" => row.from = text,
            "+" => row.to = text,
            "$" => row.arguments = text,
            "=" => row.code = text.parse().unwrap(),
            "place" => row.place = text,
            "cause" => row.cause = text,
            "cure" => row.cure = text,
            other => unreachable!("{other} in a row"),
        }
    }
    rows
}

/// Everything below a folder.
pub(crate) fn listing(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn every_error_of_an_operator_names_place_cause_and_cure() {
    let rows = rows();
    assert!(rows.len() >= 50, "{} rows", rows.len());
    let mut wrong = String::new();
    for row in &rows {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("otad.toml");
        assert!(GOOD.contains(&row.from), "{}", row.name);
        fs::write(&config, GOOD.replacen(&row.from, &row.to, 1)).unwrap();
        fs::write(dir.path().join("app.img"), "an image").unwrap();
        let before = listing(dir.path());
        let mut words: Vec<&str> = row.arguments.split(' ').collect();
        let setting = words[0]
            .split_once('=')
            .filter(|(name, _)| name.starts_with("OTAD_"));
        if setting.is_some() {
            words.remove(0);
        }
        for word in &mut words {
            if *word == "{config}" {
                *word = config.to_str().unwrap();
            }
        }
        let mut otad = command(dir.path(), &words);
        otad.envs(setting);
        otad.env("OTAD_CLOUD_WAIT_MS", "0");
        // No program of this machine's called `aws` is asked for anything.
        otad.env("PATH", dir.path());
        let output = otad.output().unwrap();
        let said = error(&output);
        let all = [&row.place, &row.cause, &row.cure];
        let missing: Vec<_> = all
            .iter()
            .filter(|words| words.is_empty() || !said.contains(words.as_str()))
            .collect();
        if !missing.is_empty() || output.status.code() != Some(row.code) {
            wrong.push_str(&format!(
                "== {}: {:?}, without {missing:?}\n{said}\n",
                row.name,
                output.status.code()
            ));
        }
        assert_eq!(listing(dir.path()), before, "{}", row.name);
    }
    assert!(wrong.is_empty(), "{wrong}");
}
