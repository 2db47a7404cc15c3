//! The README's state table is the agent's: printed from its rows, so that a stranger reads what `set_state` checks.

use std::fs;

use agent_core::agent::table::{BOUNDS, Bound, Cause, ROWS};
use support::{binary, markdown};

const MARKER: &str = "<!-- state-table -->\n";
const HEAD: &str = "| no. | state | its deadline | leaves it |\n| --- | --- | --- | --- |\n";

/// The ways out of a job, which nearly every state has.
const WAYS_OUT: [Cause; 3] = [Cause::JobFailed, Cause::UserAbort, Cause::JobWithdrawn];

fn line(bound: &Bound) -> String {
    let rows: Vec<_> = ROWS.iter().filter(|row| row.state == bound.state).collect();
    let has_all = WAYS_OUT
        .iter()
        .all(|way| rows.iter().any(|row| row.event == *way));
    let mut exits: Vec<String> = Vec::new();
    for row in rows
        .iter()
        .filter(|row| !has_all || !WAYS_OUT.contains(&row.event))
    {
        let next: Vec<&str> = row.next.iter().map(|state| state.name()).collect();
        // A resume can lead anywhere; the list would say no more.
        let next = if next.len() > 6 {
            "where it was".to_owned()
        } else {
            next.join(" or ")
        };
        exits.push(format!("{} → {next}", row.event.name()));
    }
    if has_all {
        exits.push("job over → GoingBack".to_owned());
    }
    let timers: Vec<String> = bound
        .timers
        .iter()
        .map(|timer| format!("{timer:?}"))
        .collect();
    let deadline = match (bound.unbounded, timers.is_empty()) {
        (Some(why), true) => format!("none: {why}"),
        (Some(why), false) => format!("{}, or none: {why}", timers.join(", ")),
        (None, true) if bound.blocks => "block request".to_owned(),
        (None, true) => panic!("{:?} has no deadline", bound.state),
        (None, false) => timers.join(", "),
    };
    format!(
        "| {} | {} | {deadline} | {} |\n",
        bound.state.code(),
        bound.state.name(),
        exits.join("; ")
    )
}

fn table() -> String {
    HEAD.to_owned() + &BOUNDS.iter().map(line).collect::<String>()
}

#[test]
fn the_readme_prints_the_agents_state_table() {
    let path = binary::workspace().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, after) = readme.split_once(MARKER).unwrap();
    let printed = after
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('|'));
    let printed: String = printed.collect();
    if std::env::var_os("OTAD_BLESS").is_some() {
        let rest = &after[printed.len()..];
        fs::write(&path, format!("{before}{MARKER}{}{rest}", table())).unwrap();
    } else {
        assert_eq!(
            printed,
            table(),
            "run the test with OTAD_BLESS=1 and read the difference"
        );
    }
}

#[test]
fn every_row_of_the_agents_table_is_in_the_printed_one() {
    let rows = markdown::rows(&table());
    assert_eq!(rows.len(), BOUNDS.len());
    for row in ROWS {
        let (_, cells) = rows
            .iter()
            .find(|(_, cells)| cells[1] == row.state.name())
            .unwrap();
        let exits = &cells[3];
        let is_told = exits.contains(row.event.name())
            || (WAYS_OUT.contains(&row.event) && exits.ends_with("job over → GoingBack"));
        assert!(is_told, "{:?} {:?}", row.state, row.event);
    }
}
