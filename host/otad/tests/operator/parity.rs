//! The tables of `PARITY.md` against the program, the contract and the keys, row by row.

use std::fs;
use std::path::Path;

use otad::config::keys::{NUMBERS, Number};

use crate::wrong::listing;
use crate::{done, otad, out};

/// Rows of the table below a marker, without its head: cells without backquotes and blanks.
fn table(marker: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("PARITY.md")).unwrap();
    let marker = format!("<!-- {marker} -->\n");
    let table = text.split_once(&marker).unwrap().1;
    let rows: Vec<Vec<String>> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty());
    rows
}

/// The words in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Everything that a verb can be asked, from its help.
fn help(verb: &[&str]) -> String {
    done(&otad(Path::new("/"), &[verb, &["--help"]].concat()))
}

/// A reason where there is nothing, or names.
fn says_why(cell: &str) -> bool {
    cell.strip_prefix("none").is_some_and(|why| why.len() > 8)
}

/// What the library is written in: `otad`, and the runtime behind it.
fn sources() -> Vec<String> {
    ["src", "../host-runtime/src"]
        .into_iter()
        .flat_map(|folder| listing(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)))
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

/// Whether there is a public module, type or function of this name; one of a type's beside what that type can do.
fn is_public(name: &str, sources: &[String]) -> bool {
    let (path, last) = name.rsplit_once("::").unwrap_or(("", name));
    let owner = path.rsplit("::").next().unwrap_or_default();
    let is_type = owner.starts_with(|c: char| c.is_ascii_uppercase());
    let declares = |line: &str| {
        ["pub fn ", "pub async fn ", "pub mod ", "pub struct "]
            .iter()
            .filter_map(|form| line.trim_start().strip_prefix(form)?.strip_prefix(last))
            .any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    sources
        .iter()
        .filter(|text| !is_type || text.contains(&format!("\nimpl {owner} {{\n")))
        .any(|text| text.lines().any(declares))
}

#[test]
fn each_of_the_scripts_13_options_is_an_option_here() {
    let rows = table("script-options");
    let theirs = [
        "-h",
        "--fileId",
        "--profile",
        "--region",
        "--account",
        "--devicetype",
        "--name",
        "--role",
        "--s3bucket",
        "--otasigningprofile",
        "--signingcertificateid",
        "--codelocation",
        "--filelocation",
    ];
    let named: Vec<&str> = rows.iter().map(|row| quoted(&row[0])[0]).collect();
    assert_eq!(named, theirs);
    let (update, cloud) = (help(&["update", "create"]), help(&["cloud"]));
    for row in &rows {
        for cell in &row[1..] {
            let options = quoted(cell);
            let options = options
                .iter()
                .filter_map(|o| o.split(' ').find(|w| w.starts_with("--")));
            for option in options {
                assert!(
                    update.contains(option) || cloud.contains(option),
                    "{option}"
                );
            }
        }
        assert!(!quoted(&row[1]).is_empty(), "{row:?}");
    }
}

#[test]
fn each_function_is_in_the_contract_the_library_and_the_program_or_says_why_not() {
    const SEED: [&str; 16] = [
        "OTA_Init",
        "OTA_Shutdown",
        "OTA_GetState",
        "OTA_ActivateNewImage",
        "OTA_SetImageState",
        "OTA_GetImageState",
        "OTA_CheckForUpdate",
        "OTA_Suspend",
        "OTA_Resume",
        "OTA_SignalEvent",
        "OTA_EventProcessingTask",
        "OTA_GetStatistics",
        "OTA_Err_strerror",
        "OTA_JobParse_strerror",
        "OTA_PalStatus_strerror",
        "OTA_OsStatus_strerror",
    ];
    let rows = table("functions");
    let named: Vec<&str> = rows.iter().map(|row| quoted(&row[0])[0]).collect();
    assert_eq!(named, SEED);
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/agent/job-agent.wit");
    let contract = fs::read_to_string(contract).unwrap();
    let sources = sources();
    assert!(!is_public("DeviceHandle::attach", &sources));
    for row in &rows {
        let words = quoted(&row[1]);
        for word in &words {
            let stands = [
                format!(" {word}:"),
                format!(" {word},"),
                format!(" {word}("),
            ]
            .iter()
            .any(|form| contract.contains(form));
            assert!(stands, "{word} is not in the contract");
        }
        assert!(!words.is_empty() || says_why(&row[1]), "{row:?}");
        let library = quoted(&row[2]);
        assert!(!library.is_empty(), "{row:?}");
        for name in library {
            assert!(is_public(name, &sources), "{name} is not in the library");
        }
        let commands = quoted(&row[3]);
        for command in &commands {
            let verb: Vec<&str> = command.split(' ').skip(1).collect();
            assert!(help(&verb).contains("Usage: otad"), "{command}");
        }
        assert!(!commands.is_empty() || says_why(&row[3]), "{row:?}");
    }
}

#[test]
fn each_event_of_the_callback_has_its_number_and_name() {
    for (number, row) in table("events").iter().enumerate() {
        assert_eq!(row[1], number.to_string());
        let name = host_runtime::status::event_name(u32::try_from(number).unwrap());
        assert_eq!(quoted(&row[2]), [name]);
    }
    assert_eq!(table("events").len(), 9);
}

const MACROS: [&str; 21] = [
    "otaconfigSTACK_SIZE",
    "otaconfigAGENT_PRIORITY",
    "otaconfigLOG2_FILE_BLOCK_SIZE",
    "otaconfigMAX_BLOCK_BITMAP_SIZE",
    "otaconfigSELF_TEST_RESPONSE_WAIT_MS",
    "otaconfigFILE_REQUEST_WAIT_MS",
    "otaconfigMAX_THINGNAME_LEN",
    "otaconfigMAX_NUM_BLOCKS_REQUEST",
    "otaconfigMAX_NUM_REQUEST_MOMENTUM",
    "otaconfigOTA_UPDATE_STATUS_FREQUENCY",
    "otaconfigMAX_NUM_OTA_DATA_BUFFERS",
    "otaconfigOTA_FILE_TYPE",
    "otaconfigAllowDowngrade",
    "configOTA_FIRMWARE_UPDATE_FILE_TYPE_ID",
    "configENABLED_CONTROL_PROTOCOL",
    "configENABLED_DATA_PROTOCOLS",
    "configOTA_PRIMARY_DATA_PROTOCOL",
    "configOTA_POLLING_EVENTS_TIMEOUT_MS",
    "OTA_USE_NONCONST_APPVERSION",
    "LogError",
    "OTA_DO_NOT_USE_CUSTOM_CONFIG",
];

/// A configuration with a line in a section of its device.
fn configuration(section: &str, line: &str) -> String {
    let (agent, target) = match section {
        "device.agent" => (line, ""),
        _ => ("", line),
    };
    format!(
        "[daemon]\nstate_dir = \"state\"\n[trust]\ndirectory = \"trust\"\n[[device]]\nname = \"pump-1\"\n\
         [device.mqtt]\nendpoint = \"localhost\"\nroot_certificate = \"r\"\ncertificate = \"c\"\nprivate_key = \"k\"\n\
         [device.agent]\n{agent}\n[[device.target]]\nname = \"main\"\nfile_id = 0\nplugin = \"flash-file\"\n\
         directory = \"targets/main\"\nrestart = {{ command = [\"./restart.sh\"] }}\n{target}\n"
    )
}

fn is_taken(section: &str, line: &str) -> Result<(), String> {
    let text = configuration(section, line);
    otad::config::parse(Path::new("/etc/otad.toml"), &text, [])
        .map(drop)
        .map_err(|e| e.to_string())
}

#[test]
fn each_macro_is_a_key_with_its_limits_or_says_why_not() {
    let rows = table("macros");
    let named: Vec<&str> = rows.iter().map(|row| quoted(&row[0])[0]).collect();
    assert_eq!(named, MACROS);
    for row in &rows {
        let Some(key) = quoted(&row[1]).first().copied() else {
            assert_eq!(row[1], "none");
            assert!(row[6].len() > 8, "{row:?} says no reason");
            continue;
        };
        let Some(number) = NUMBERS.iter().find(|n| n.key == key) else {
            // Words, not numbers: the default is taken, and one that is none is refused.
            let (section, line, bad) = match key {
                "allow_downgrade" => (
                    "device.target",
                    "allow_downgrade = false",
                    "allow_downgrade = 2",
                ),
                "protocols" => (
                    "device.agent",
                    "protocols = [\"mqtt\", \"http\"]",
                    "protocols = [\"carrier pigeon\"]",
                ),
                "log" => continue,
                other => panic!("{other} is no key"),
            };
            assert_eq!(is_taken(section, line), Ok(()));
            assert!(
                is_taken(section, bad).is_err_and(|e| e.contains(key)),
                "{bad}"
            );
            continue;
        };
        check_number(row, number);
    }
}

fn check_number(row: &[String], n: &Number) {
    let stands = [
        n.unit.to_owned(),
        n.default.map(|n| n.to_string()).unwrap_or_default(),
        n.min.to_string(),
        n.max.to_string(),
    ];
    assert_eq!(row[2..6], stands, "{}", n.key);
    let line = |value: i128| {
        // A window is limited by both of its keys.
        let window = match n.key {
            "blocks_per_request" if value > 32 => "block_size = 256\n",
            _ => "",
        };
        format!("{window}{} = {value}", n.key)
    };
    for good in [Some(n.min), n.default, Some(n.max)].into_iter().flatten() {
        assert_eq!(is_taken(n.section, &line(good.into())), Ok(()), "{}", n.key);
    }
    for bad in [i128::from(n.min) - 1, i128::from(n.max) + 1] {
        let wanted = format!("`{}` is {bad}, expected {} to {}", n.key, n.min, n.max);
        let refused = is_taken(n.section, &line(bad)).unwrap_err();
        assert!(refused.contains(&wanted), "{refused}");
    }
}

#[test]
fn the_list_of_keys_that_the_program_prints_is_the_same() {
    let list = out(&otad(Path::new("/"), &["config", "keys"]));
    for row in table("macros") {
        if row[5].is_empty() {
            continue;
        }
        let key = quoted(&row[1])[0];
        let line = format!(
            "{key}\n    {}; {} to {}, default {}",
            row[2], row[4], row[5], row[3]
        );
        assert!(list.contains(&line), "{line}");
    }
    // What holds without it is no number.
    assert!(list.contains("log_level\n    level; 0 to 5\n"), "{list}");
}
