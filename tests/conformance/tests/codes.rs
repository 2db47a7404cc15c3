//! The page that explains codes to operators (`otad explain`) against the agent's own tables: the same numbers and names,
//! every one of them, in both directions.

use std::collections::BTreeMap;

use agent_core::code::{
    HostErr, HttpStatus, JobParseErr, JobsErr, MqttStatus, OsStatus, OtaErr, OtadErr, PalStatus,
    StreamErr, UNKNOWN, main_text,
};

const PAGE: &str = include_str!("../../../host/otad/src/explain/codes.txt");

/// Names of the page by class and number.
fn page() -> BTreeMap<(String, i64), String> {
    let rows = PAGE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [class, code, name, meaning, cure] = cells[..] else {
            panic!("five cells in {row}");
        };
        assert!(meaning.len() > 5 && cure.len() > 5, "{row}");
        let code = code.parse().expect("a number");
        ((class.to_owned(), code), name.to_owned())
    })
    .collect()
}

macro_rules! table {
    ($into:ident, $class:literal, $codes:ty) => {
        for code in <$codes>::ALL {
            let key = ($class.to_owned(), i64::from(code.code()));
            $into.insert(key, code.name().to_owned());
        }
    };
}

/// The same of the agent.
fn agent() -> BTreeMap<(String, i64), String> {
    let mut all = BTreeMap::new();
    table!(all, "ota", OtaErr);
    table!(all, "job-parse", JobParseErr);
    table!(all, "otad", OtadErr);
    table!(all, "os", OsStatus);
    table!(all, "mqtt", MqttStatus);
    table!(all, "http", HttpStatus);
    table!(all, "host", HostErr);
    table!(all, "pal", PalStatus);
    table!(all, "jobs", JobsErr);
    table!(all, "stream", StreamErr);
    all
}

#[test]
fn every_code_of_the_agent_is_explained_by_its_own_name_and_no_other_is() {
    let mut page = page();
    // Those are the trust store's; its own tests hold them.
    page.retain(|(class, _), _| class != "signature");
    assert_eq!(page, agent());
}

#[test]
fn what_a_status_prints_is_on_the_page() {
    let page = page();
    for main in 0..=u8::MAX {
        let text = main_text(main);
        let is_there = page.iter().any(|((class, code), name)| {
            *code == i64::from(main) && name == text && class != "jobs"
        });
        assert_eq!(is_there, text != UNKNOWN, "{main:#04x} {text}");
    }
}
