//! Configurations, right and wrong, and what of them only the machine can tell.

mod reference;
mod wrong;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use self::wrong::WRONG;
use super::*;

/// A configuration that is right, with one device and one target.
pub(crate) const GOOD: &str = r#"
[daemon]
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

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("etc/otad.toml"), text, [])
}

#[test]
fn a_good_file_is_read_with_defaults_and_paths_beside_it() {
    let config = read(GOOD).expect("good");
    assert_eq!(config.daemon.state_dir.value, Path::new("etc/state"));
    assert_eq!(
        config.daemon.control_socket.value,
        Path::new("etc/state/control.sock")
    );
    assert_eq!(config.daemon.cache_dir, Path::new("etc/state/code"));
    let device = &config.devices[0];
    assert_eq!(
        (device.mqtt.port, device.mqtt.client_id.value.as_str()),
        (8883, "pump-1")
    );
    let target = &device.targets[0];
    let names: Vec<_> = target.regions.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["slot-a", "slot-b", "record", "tries"]);
    let Reset::Command(restart) = &target.reset else {
        panic!("{:?}", target.reset);
    };
    assert_eq!(restart.argv, ["etc/./restart.sh", "main"]);
}

#[test]
fn every_wrong_configuration_names_line_cause_and_cure() {
    for (from, to, line, message, help) in WRONG {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        let error = read(&text).expect_err(to);
        let found = error.diagnostics().iter().any(|d| {
            error.position(d).map_or(0, |(line, _)| line) == *line
                && d.message.contains(message)
                && d.help.as_deref().unwrap_or("").contains(help)
        });
        assert!(
            found,
            "{to}: expected line {line}, {message}, {help}; got\n{error}"
        );
    }
}

/// What follows [`GOOD`], the line of the error, words of its message.
const TWICE: &[(&str, usize, &str)] = &[
    (
        "[[device.target]]\nname='main'\nfile_id=1\nplugin='flash-file'\ndirectory='b'\n",
        20,
        "a second target \"main\"",
    ),
    (
        "[[device.target]]\nname='b'\nfile_id=0\nplugin='flash-file'\ndirectory='b'\n",
        20,
        "has file id 0, another target",
    ),
    (
        "[[device.target]]\nname='b'\nfile_id=1\nplugin='flash-file'\ndirectory='targets/main'\n",
        23,
        "is the storage of another target",
    ),
    (
        "[[device.target]]\nname='b'\nfile_id=1\nplugin='./p.so'\n[device.target.native]\ndirectories=['d']\n\
         [[device.target]]\nname='c'\nfile_id=2\nplugin='./p.so'\n[device.target.native]\ndirectories=['d/e']\n",
        30,
        "is given to another plugin",
    ),
    (
        "[[device.target]]\nname='b'\nfile_id=1\nplugin='build'\n\
         [[device.target]]\nname='c'\nfile_id=2\nplugin='build'\n",
        24,
        "a second target brings builds of the same",
    ),
    (
        "[[device.target]]\nname='b'\nfile_id=1\nplugin='build'\nof_target='b'\n",
        23,
        "is no target with a plugin of its own",
    ),
    (
        "[[device]]\nname='pump-1'\nmqtt={endpoint='localhost',tls=false}\ntarget=[]\n",
        20,
        "a second device \"pump-1\"",
    ),
    (
        "[[device]]\nname='b'\nmqtt={endpoint='localhost',tls=false,client_id='pump-1'}\ntarget=[]\n",
        21,
        "a second client id \"pump-1\"",
    ),
    (
        "[[device]]\nname='b'\nmqtt={endpoint='localhost',tls=false,client_id='c'}\ntarget=[]\n\
         [[device]]\nname='c'\nmqtt={endpoint='localhost',tls=false}\ntarget=[]\n",
        24,
        "a second client id \"c\"",
    ),
    (
        "[[device]]\nname='b'\nmqtt={connection_of='pump-2'}\ntarget=[]\n",
        21,
        "\"pump-2\" has no connection of its own",
    ),
    (
        "[[device]]\nname='b'\nmqtt={connection_of='b'}\ntarget=[]\n",
        21,
        "\"b\" has no connection of its own",
    ),
    (
        "[[device]]\nname='b'\nmqtt={connection_of='pump-1'}\ntarget=[]\n\
         [[device]]\nname='c'\nmqtt={connection_of='b'}\ntarget=[]\n",
        25,
        "\"b\" has no connection of its own",
    ),
    (
        "[[device]]\nname='b'\nmqtt={connection_of='pump-1',port=1883}\ntarget=[]\n",
        21,
        "`port` stands beside `connection_of`",
    ),
];

#[test]
fn what_must_be_unique_is_checked_across_devices_and_targets() {
    for (more, line, message) in TWICE {
        let error = read(&format!("{GOOD}{more}")).expect_err(message);
        let found = error
            .diagnostics()
            .iter()
            .any(|d| error.position(d).map(|p| p.0) == Some(*line) && d.message.contains(message));
        assert!(found, "line {line}, {message}; got\n{error}");
    }
}

#[test]
fn a_device_on_the_connection_of_another_has_what_belongs_to_it() {
    let more = "[[device]]\nname='b'\n[device.mqtt]\nconnection_of='pump-1'\nreply_subscriptions='always'\n\
                [[device.target]]\nname='b'\nfile_id=1\nplugin='flash-file'\ndirectory='b'\n";
    let config = read(&format!("{GOOD}{more}")).expect("good");
    let [owner, guest] = [0, 1].map(|n| &config.devices[n].mqtt);
    let of = guest.connection_of.as_ref().map(|of| of.value.as_str());
    assert_eq!((of, owner.connection_of.is_none()), (Some("pump-1"), true));
    assert_eq!(
        (&guest.endpoint, guest.port, &guest.client_id),
        (&owner.endpoint, owner.port, &owner.client_id)
    );
    assert_eq!(guest.reply_subscriptions, ReplySubscriptions::Always);
    for device in &config.devices {
        assert_eq!(device.connection_owner().value, "pump-1");
    }
    assert_eq!(guest.place(), owner.place());
}

#[test]
fn replies_are_subscribed_to_except_at_aws_unless_something_else_is_said() {
    let aws = "a1b2c3-ats.iot.eu-central-1.amazonaws.com";
    let rows = [
        ("localhost", "", (false, true)),
        ("localhost", "reply_subscriptions = 'never'", (false, false)),
        ("localhost", "aws = true", (true, false)),
        (aws, "", (true, false)),
        (aws, "reply_subscriptions = 'always'", (true, true)),
    ];
    for (endpoint, more, expected) in rows {
        let line = format!("endpoint = \"{endpoint}\"\n{more}\n");
        let text = GOOD.replace("endpoint = \"localhost\"\n", &line);
        let config = read(&text).expect("good");
        let mqtt = &config.devices[0].mqtt;
        assert_eq!(
            (mqtt.is_aws(), mqtt.subscribes_replies()),
            expected,
            "{line}"
        );
        assert_eq!(mqtt.place().host, endpoint);
    }
}

#[test]
fn an_override_counts_and_its_error_names_the_variable() {
    let with = |name: &str, value: &str| {
        parse(
            Path::new("otad.toml"),
            GOOD,
            [(name.to_owned(), value.to_owned())],
        )
    };
    let config = with("OTAD_DEVICE__0__MQTT__PORT", "443").expect("good");
    assert_eq!(config.devices[0].mqtt.port, 443);
    let config = with("OTAD_DEVICE__0__NAME", "17").expect("a name of digits");
    assert_eq!(config.devices[0].name.value, "17");
    let error = with("OTAD_DEVICE__0__MQTT__PORT", "0").expect_err("port 0");
    assert!(
        error
            .to_string()
            .starts_with("environment OTAD_DEVICE__0__MQTT__PORT=0: `port` is 0"),
        "{error}"
    );
    let error = with("OTAD_DEVICE__0__MQTT__PROT", "1").expect_err("unknown key");
    assert!(
        error.to_string().contains("did you mean `port`?"),
        "{error}"
    );
}

#[test]
fn a_chain_of_parsers_has_the_time_of_all_of_them() {
    let parser =
        |deadline_ms| format!("{{ command = [\"/bin/true\"], deadline_ms = {deadline_ms} }}");
    let chain = |parsers: &[String]| {
        let line = format!(
            "[device.hooks]\ncustom_job = [{}]\n[[device.target]]",
            parsers.join(", ")
        );
        read(&GOOD.replace("[[device.target]]", &line))
    };
    let config = chain(&[parser(7000), parser(5000)]).expect("good");
    let device = &config.devices[0];
    assert_eq!(device.hooks.custom_job.len(), 2);
    let answer = device.agent.iter().find(|s| s.key == "custom_answer_ms");
    assert_eq!(answer.map(|s| s.value.as_str()), Some("22000"));
    assert!(chain(&vec![parser(50); 8]).is_ok());
    let error = chain(&vec![parser(50); 9]).expect_err("too many");
    assert!(error.to_string().contains("9 parsers"), "{error}");
}

/// Where the numbers of a section are put for the next test.
fn with_number(section: &str, line: &str) -> Option<String> {
    let anchor = match section {
        "daemon" => "state_dir = \"state\"",
        "device.mqtt" => "endpoint = \"localhost\"",
        "device.target" => "name = \"main\"",
        "device.agent" => {
            return Some(GOOD.replace(
                "[[device.target]]",
                &format!("[device.agent]\n{line}\n[[device.target]]"),
            ));
        }
        "http" => return Some(format!("{GOOD}\n[http]\n{line}")),
        "bandwidth" => return Some(format!("{GOOD}\n[bandwidth]\n{line}")),
        "bandwidth.at" => return Some(format!("{GOOD}\n[[bandwidth.at]]\n{line}")),
        "command" => return Some(GOOD.replace("\"main\"] }", &format!("\"main\"], {line} }}"))),
        "device.target.region" => {
            return Some(format!("{GOOD}\n[[device.target.region]]\n{line}"));
        }
        "device.target.line" => {
            return Some(format!(
                "{}\n[device.target.line]\nport = \"/dev/ttyS1\"\n{line}",
                GOOD.replace("file_id = 0", "file_id = 1")
            ));
        }
        "device.target.hardware_reset" => {
            return Some(format!(
                "{GOOD}\n[device.target.hardware_reset]\ngpio = \"/dev/gpiochip0\"\n{line}"
            ));
        }
        _ => return None,
    };
    Some(GOOD.replace(anchor, &format!("{anchor}\n{line}")))
}

#[test]
fn every_number_is_taken_at_its_limits_and_refused_one_past_them() {
    for n in keys::NUMBERS {
        let complains = |value: i128| {
            let line = format!("{} = {value}", n.key);
            let text = with_number(n.section, &line).expect("a known section");
            let text = if n.key == "file_id" {
                text.replace("file_id = 0\n", "")
            } else {
                text
            };
            let wanted = format!("`{}` is {value}, expected", n.key);
            match read(&text) {
                Ok(_) => false,
                Err(e) => e
                    .diagnostics()
                    .iter()
                    .any(|d| d.message.starts_with(&wanted)),
            }
        };
        assert!(!complains(n.min.into()), "{} at {}", n.key, n.min);
        assert!(!complains(n.max.into()), "{} at {}", n.key, n.max);
        assert!(complains(i128::from(n.max) + 1), "{} past {}", n.key, n.max);
        assert!(
            complains(i128::from(n.min) - 1),
            "{} below {}",
            n.key,
            n.min
        );
    }
}

#[test]
fn every_error_of_a_file_is_reported_at_once() {
    let text = GOOD
        .replace("endpoint =", "endpont =")
        .replace("file_id = 0", "file_id = 300")
        .replace("pump-1", "pump 1");
    let error = read(&text).expect_err("three errors and more");
    assert!(error.diagnostics().len() >= 4, "{error}");
}

#[test]
fn development_settings_are_loud() {
    assert!(read(GOOD).expect("good").development.warnings().is_empty());
    for key in [
        "allow_unsigned_images",
        "allow_plaintext",
        "allow_plaintext_http",
        "allow_file_plugins",
        "allow_file_agents",
        "allow_older_code",
    ] {
        let text = format!("{GOOD}[development]\n{key} = true\n");
        let config = read(&text).expect("good");
        let [warning] = config.development.warnings()[..] else {
            panic!("{key}: {:?}", config.development.warnings());
        };
        let said = warning.strip_prefix(&format!("DEVELOPMENT SETTING {key}: "));
        assert!(
            said.is_some_and(|what| !what.is_empty()),
            "{key}: {warning}"
        );
    }
}

#[test]
fn urls_lead_to_public_addresses_over_tls_unless_the_file_says_otherwise() {
    let careful = read(GOOD).expect("good").http;
    assert!(careful.roots.is_empty() && careful.uses_proxy);
    assert!(!careful.config.allow_plain);
    let address = "10.1.2.3".parse().expect("an address");
    assert!(careful.config.check_address(address).is_err());
    let text = format!(
        "{GOOD}[http]\nroots = [\"roots/a.pem\"]\nallow_hosts = [\"*.example.com\"]\n\
         allow_networks = [\"10.1.0.0/16\"]\nproxy = \"none\"\nconnections_per_host_max = 4\n\
         [development]\nallow_plaintext_http = true\n"
    );
    let config = read(&text).expect("good");
    assert_eq!(config.development.warnings().len(), 1);
    let http = config.http;
    assert!(http.roots[0].value.ends_with("roots/a.pem"));
    assert_eq!(http.config.allow_hosts, ["*.example.com"]);
    assert!(http.config.check_address(address).is_ok());
    assert!(http.config.allow_plain && !http.uses_proxy);
    assert_eq!(http.config.limits.connections_per_host_max, 4);
}

#[test]
fn what_is_wrong_in_http_is_named() {
    let rows = [
        ("allow_hosts = [\"https://x\"]", "allowed host"),
        (
            "allow_networks = [\"localhost\"]",
            "`localhost` is no network",
        ),
        (
            "allow_networks = \"10.0.0.0/8\"",
            "expected a list of strings",
        ),
        (
            "proxy = \"http://p:3128\"",
            "expected \"environment\" or \"none\"",
        ),
        ("root = [\"a.pem\"]", "unknown key `root`"),
        ("connections_per_host_max = 0", "is 0, expected"),
    ];
    for (line, expected) in rows {
        let error = read(&format!("{GOOD}[http]\n{line}\n")).expect_err(line);
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
}

#[test]
fn a_cap_follows_the_table_of_the_day() {
    assert!(read(GOOD).expect("good").bandwidth.is_none());
    let text = format!(
        "{GOOD}[bandwidth]\nbytes_per_s = 500000\n\
         [[bandwidth.at]]\nfrom = \"08:00\"\nto = \"18:30\"\nbytes_per_s = 20000\n\
         [[bandwidth.at]]\nfrom = \"18:30\"\nto = \"19:00\"\npaused = true\n\
         [[bandwidth.at]]\nfrom = \"23:00\"\nto = \"04:00\"\nbytes_per_s = 0\n"
    );
    let cap = read(&text).expect("good").bandwidth;
    let rows = [
        (8 * 60, Some(20_000)),
        (18 * 60 + 29, Some(20_000)),
        (18 * 60 + 30, Some(0)),
        (19 * 60, Some(500_000)),
        (23 * 60, None),
        (0, None),
        (4 * 60, Some(500_000)),
    ];
    for (minute, expected) in rows {
        assert_eq!(cap.at(Some(minute * 60)), expected, "minute {minute}");
    }
}

#[test]
fn what_is_wrong_in_the_table_of_the_day_is_named() {
    let span = "from = \"08:00\"\nto = \"18:00\"\n";
    let rows = [
        (
            format!("{span}paused = true\nbytes_per_s = 5"),
            "neither or both",
        ),
        (span.to_owned(), "neither or both"),
        ("to = \"18:00\"\npaused = true".to_owned(), "`from`"),
        (
            "from = \"8:00\"\nto = \"18:00\"\npaused = true".to_owned(),
            "`from` is \"8:00\", expected a time of day",
        ),
        (
            "from = \"08:00\"\nto = \"24:00\"\npaused = true".to_owned(),
            "`to` is \"24:00\"",
        ),
        (
            "from = \"08:00\"\nto = \"08:00\"\npaused = true".to_owned(),
            "begins and ends at the same minute",
        ),
        (
            format!("{span}paused = true\nrate = 5"),
            "unknown key `rate`",
        ),
    ];
    for (lines, expected) in rows {
        let error = read(&format!("{GOOD}[[bandwidth.at]]\n{lines}\n")).expect_err(&lines);
        assert!(error.to_string().contains(expected), "{lines}: {error}");
    }
    let many = format!("[[bandwidth.at]]\n{span}paused = true\n").repeat(97);
    let error = read(&format!("{GOOD}{many}")).expect_err("97 of them");
    assert!(error.to_string().contains("97 tables `at`"), "{error}");
}

/// What the machine says about a configuration with these lines in its target, as far as it is about a word.
fn findings(directory: &Path, lines: &str, word: &str) -> Vec<Finding> {
    let text = GOOD.replace("targets/main", &directory.display().to_string());
    let config = read(&format!("{text}{lines}")).expect("good");
    let mut found = check(&config);
    found.retain(|f| f.diagnostic.message.contains(word));
    found
}

#[test]
fn a_group_that_cannot_come_as_far_as_the_socket_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let warnings = |more: &str| {
        let named = format!("state_dir = {state:?}\ncontrol_group = \"root\"\n{more}");
        let config = read(&GOOD.replace("state_dir = \"state\"", &named)).expect("good");
        let mut found = check(&config);
        found.retain(|f| f.diagnostic.message.contains("may not enter"));
        assert!(found.iter().all(|f| !f.is_error), "{found:?}");
        found.len()
    };
    // Otad makes it for its own user.
    assert_eq!(warnings(""), 1);
    for (mode, expected) in [(0o700, 1), (0o710, 0)] {
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(warnings(""), expected, "{mode:o}");
    }
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(warnings("control_socket = \"/run/otad/control.sock\""), 0);
}

#[test]
fn directories_of_otads_own_that_it_would_refuse_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    for (name, mode) in [("state", 0o777), ("cache", 0o755), ("good", 0o700)] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink(at("good"), at("link")).unwrap();
    let found = |state: &str, cache: &str| {
        let (state, cache) = (at(state), at(cache));
        let named = format!("state_dir = {state:?}\ncache_dir = {cache:?}");
        let config = read(&GOOD.replace("state_dir = \"state\"", &named)).expect("good");
        let found = check(&config).into_iter().filter(|f| f.is_error);
        let texts = found.map(|f| f.diagnostic.message);
        texts
            .filter(|text| text.contains("the cache") || text.contains("the state"))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("good", "good/cache"), [] as [&str; 0]);
    assert_eq!(found("good/not/yet", "not/yet"), [] as [&str; 0]);
    for (state, cache, word) in [
        ("state", "good", "may be written by group or others"),
        ("good", "cache", "is open to others (mode 0755)"),
        ("file", "good", "is no directory"),
        ("good", "file/below", "is no directory"),
        ("good", "file", "is no directory"),
        ("good", "link", "is no directory itself"),
    ] {
        let texts = found(state, cache);
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].contains(word), "{texts:?}");
    }
    // Only root can give it to somebody else.
    drop(std::os::unix::fs::chown(at("cache"), Some(4242), None));
    std::fs::set_permissions(at("cache"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let owner = |name| std::fs::metadata(at(name)).unwrap().uid();
    let is_foreign = owner("cache") != owner("good");
    let said = found("good", "cache").join("\n");
    assert_eq!(said.contains("belongs to user 4242"), is_foreign, "{said}");
}

#[test]
fn what_works_on_a_medium_that_takes_no_new_files_is_not_refused() {
    let found = |region: &str, cache: &str| {
        let (before, _) = GOOD.rsplit_once("directory = ").expect("it has one");
        let text = before.replace("[trust]", &format!("cache_dir = {cache:?}\n[trust]"));
        let text = format!(
            "{text}restart = {{ command = [\"./restart.sh\"] }}\nversion_from = \"none\"\n[[device.target.region]]\n\
             name = \"a\"\nkind = \"slot\"\npath = {region:?}\nsize_bytes = 4096\n"
        );
        check_writable(&read(&text).expect("good"))
    };
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("a");
    std::fs::write(&there, "").unwrap();
    let (cache, there) = (dir.path().to_str().unwrap(), there.to_str().unwrap());
    // A filled cache is read, and a file that is there is written.
    assert_eq!(found(there, "/proc/self"), []);
    assert_eq!(found("/proc/self/comm", cache), []);
    let found = found("/proc/self/none", cache);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_place_to_which_nothing_can_be_written_is_found() {
    let found = |directory: &Path| {
        let text = GOOD.replace("targets/main", &directory.display().to_string());
        check_writable(&read(&text).expect("good"))
    };
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(found(dir.path()), []);
    // Not even by root.
    let found = found(Path::new("/proc/self"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].diagnostic.message.contains("/proc/self"),
        "{found:?}"
    );
}

#[test]
fn a_target_whose_new_images_nobody_tests_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let found = findings(dir.path(), "", "health");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(!found[0].is_error);
    for tested in [
        "self_test = \"external\"\n",
        "health = { command = [\"/bin/true\"] }\n",
    ] {
        assert_eq!(findings(dir.path(), tested, "counts as good"), []);
    }
    let auto = findings(dir.path(), "self_test = \"auto\"\n", "counts as good");
    assert_eq!(auto.len(), 1);
}

#[test]
fn more_devices_on_a_connection_than_aws_takes_subscriptions_of_are_warned_about() {
    let aws = GOOD.replace("\"localhost\"", "\"x.iot.eu-west-1.amazonaws.com\"");
    // Three each, and the device that has the connection.
    let fits = (50 - 3) / 3;
    for (text, guests, more, is_warned) in [
        (&*aws, fits, "", false),
        (&*aws, fits + 1, "", true),
        (&*aws, fits, ",reply_subscriptions='always'", true),
        (GOOD, fits + 1, "", false),
    ] {
        let mut text = text.to_owned();
        for n in 0..guests {
            text.push_str(&format!(
                "[[device]]\nname='guest-{n}'\nmqtt={{connection_of='pump-1'{more}}}\n\
                 [[device.target]]\nname='b'\nfile_id=1\nplugin='flash-file'\ndirectory='guest-{n}'\n"
            ));
        }
        let mut found = check(&read(&text).expect("good"));
        found.retain(|f| f.diagnostic.message.contains("AWS IoT allows 50"));
        assert_eq!(found.len(), usize::from(is_warned), "{guests}: {found:?}");
        assert!(found.iter().all(|f| !f.is_error), "{found:?}");
    }
}

#[test]
fn storage_that_otad_never_reads_back_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let native = "carrier = \"native\"\n";
    assert_eq!(findings(dir.path(), native, "reads back"), []);
    for grant in ["directories", "devices"] {
        let lines = format!("{native}[device.target.native]\n{grant} = [\"/var/lib/board\"]\n");
        let found = findings(dir.path(), &lines, "reads back");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].is_error);
    }
}

#[test]
fn a_directory_that_leads_to_that_of_another_plugin_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(place("a/below")).unwrap();
    std::fs::create_dir(place("c")).unwrap();
    std::os::unix::fs::symlink(place("a"), place("b")).unwrap();
    let target = |file_id: u8, at: &str| {
        format!(
            "[[device.target]]\nname='t{file_id}'\nfile_id={file_id}\nplugin='./p.so'\n\
             [device.target.native]\ndirectories=['{}']\n",
            place(at).display()
        )
    };
    for (first, second, is_refused) in [
        ("a", "b", true),
        ("a", "c/../a/below", true),
        ("b/below", "a", true),
        ("a", "c", false),
    ] {
        let text = [GOOD, &target(1, first), &target(2, second)].concat();
        let mut found = check(&read(&text).expect("good"));
        found.retain(|f| f.is_error && f.diagnostic.message.contains("to another plugin"));
        assert_eq!(
            found.len(),
            usize::from(is_refused),
            "{first}, {second}: {found:?}"
        );
    }
}

#[test]
fn a_region_that_is_no_regular_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("slot-a"), b"an image").unwrap();
    assert_eq!(findings(dir.path(), "", "regular file"), []);
    std::os::unix::fs::symlink("/dev/null", dir.path().join("slot-b")).unwrap();
    std::fs::create_dir(dir.path().join("record")).unwrap();
    let found = findings(dir.path(), "", "regular file");
    let errors: Vec<_> = found.iter().filter(|f| f.is_error).collect();
    assert_eq!(errors.len(), 2, "{found:?}");
    for (error, region) in errors.iter().zip(["\"slot-b\"", "\"record\""]) {
        let message = &error.diagnostic.message;
        assert!(message.contains(region), "{message}");
    }
}

#[test]
fn a_file_is_carried_as_its_name_or_that_of_what_is_bundled_says() {
    for (file, is_native) in [
        ("pal.wasm", false),
        ("pal.so", true),
        ("pal.wasm.bundle", false),
        ("pal.so.bundle", true),
        ("./so.bundle", false),
    ] {
        let config = read(&GOOD.replace("flash-file", file)).expect(file);
        let target = &config.devices[0].targets[0];
        assert!(matches!(target.plugin, PluginChoice::File(_)), "{file}");
        let carrier = &target.carrier;
        assert_eq!(matches!(carrier, Carrier::Native(_)), is_native, "{file}");
    }
    let agent = "[device.agent]\ncomponent = \"agent.wasm.bundle\"\n[[device.target]]";
    let config = read(&GOOD.replace("[[device.target]]", agent)).expect("a bundle");
    let component = &config.devices[0].component;
    assert!(matches!(component, AgentChoice::File(_)), "{component:?}");
}

#[test]
fn settings_of_the_plugin_go_to_it_as_text() {
    let lines = "[device.target.settings]\nsettle_ms = 300\n";
    let config = read(&format!("{GOOD}{lines}")).expect("good");
    let settings = &config.devices[0].targets[0].plugin_settings;
    assert_eq!(settings.len(), 1);
    assert_eq!(
        (settings[0].key.as_str(), settings[0].value.as_str()),
        ("settle_ms", "300")
    );
}

#[test]
fn a_hook_has_its_questions_asked_unless_the_operator_has_decided() {
    const HOOKS: &str = "[hooks]\njob = { command = [\"/bin/true\"] }\nactivate = { command = [\"/bin/true\"] }\n\
        start_test = { command = [\"/bin/true\"] }\ncustom_job = { command = [\"/bin/true\"], deadline_ms = 7000 }\n";
    let settings = |text: &str| {
        let config = read(&format!("{HOOKS}{text}")).expect("good");
        let device = &config.devices[0];
        let find = |settings: &[host_runtime::types::Setting], key: &str| {
            let found = settings.iter().find(|s| s.key == key);
            found.map_or_else(String::new, |s| s.value.clone())
        };
        let target = &device.targets[0].agent_settings;
        [
            find(&device.agent, "on_job"),
            find(&device.agent, "custom_answer_ms"),
            find(target, "activation"),
            find(target, "self_test"),
        ]
    };
    assert_eq!(settings(GOOD), ["ask", "17000", "deferred", "external"]);
    let decided = GOOD
        .replace(
            "[[device.target]]",
            "[device.agent]\non_job = \"ignore\"\ncustom_answer_ms = 8000\n[[device.target]]",
        )
        .replace(
            "file_id = 0",
            "file_id = 0\nactivation = \"immediate\"\nself_test = \"auto\"",
        );
    assert_eq!(settings(&decided), ["ignore", "8000", "immediate", "auto"]);
}
