//! Reads each table of the file into `model.rs`, with what can be told from the file alone: ranges, words, and keys that
//! exclude or need each other.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::Path;

use host_runtime::types::Setting;

use super::agent;
use super::bandwidth;
use super::build::{self, BUILD};
use super::diagnostic::Origin;
use super::hooks;
use super::http;
use super::keys;
use super::line;
use super::model::{
    Activation, AgentChoice, Config, Daemon, Development, Device, Hooks, PluginChoice, Program,
    Region, RegionKind, Reset, Target, Trust, VersionFrom,
};
use super::mqtt;
use super::native;
use super::parts;
use super::reader::{Located, Reader, Sink};
use super::tree::Table;
use crate::console;
use crate::control::server::PATH_MAX_BYTES;

/// Plugins that are part of otad.
pub const BUILTIN_PLUGINS: &[&str] = &["flash-file", "serial-mcu", BUILD];

/// Region names of a flash-file target, with the sizes of those that are not slots. A record is two copies, one in each
/// 4 KiB, so that a torn write hits one of them.
const FLASH_FILE_RECORDS: [(&str, u64, bool); 2] = [("record", 8192, false), ("tries", 8192, true)];

pub(crate) fn config(file: &Path, table: &Table, sink: &Sink) -> Config {
    let root = Reader::root(table, sink);
    let development = development(&root);
    let general = hooks::hooks(&root, Hooks::default());
    let mut config = Config {
        file: file.to_owned(),
        daemon: daemon(&root),
        development,
        trust: trust(&root, development),
        http: http::http(&root, development),
        bandwidth: bandwidth::bandwidth(&root),
        downloads: parts::downloads(&root),
        devices: root
            .tables("device")
            .into_iter()
            .map(|r| device(r, development, &general))
            .collect(),
    };
    if config.devices.is_empty() && !root.has("device") {
        sink.advise(
            &Origin::File,
            "no device",
            "add `[[device]]` with a name, `[device.mqtt]` and at least one `[[device.target]]`",
        );
    }
    root.finish();
    mqtt::share(&mut config.devices, sink);
    unique(&config, sink);
    config
}

fn daemon(root: &Reader<'_>) -> Daemon {
    let empty = Table::new();
    let section = root.table("daemon");
    if section.is_none() && !root.has("daemon") {
        root.missing("daemon", "{ state_dir = \"/var/lib/otad\" }");
    }
    let section = section.unwrap_or_else(|| Reader::root(&empty, root.sink));
    let state_dir = section.path("state_dir");
    if state_dir.is_none() && root.has("daemon") && !section.has("state_dir") {
        section.missing("state_dir", "\"/var/lib/otad\"");
    }
    let state_dir = state_dir.unwrap_or_else(|| Located {
        value: "state".into(),
        origin: section.origin().clone(),
    });
    let control_socket = section.path("control_socket").unwrap_or_else(|| Located {
        value: state_dir.value.join("control.sock"),
        origin: state_dir.origin.clone(),
    });
    let length = control_socket.value.as_os_str().len();
    if length > PATH_MAX_BYTES {
        section.sink.advise(
            &control_socket.origin,
            format!("the path of the control socket has {length} bytes, there is room for {PATH_MAX_BYTES}"),
            "set `control_socket` to a shorter path, such as \"/run/otad/control.sock\"",
        );
    }
    let daemon = Daemon {
        control_group: section.text("control_group"),
        plugin_dir: section.path("plugin_dir"),
        park_after_ms: section.number(&keys::PARK_AFTER_MS),
        connects_per_s_max: u32::try_from(section.number(&keys::CONNECTS_PER_S_MAX))
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN),
        plugin_dir_shared: section.boolean("plugin_dir_shared", false),
        log: log(&section),
        cache_dir: section
            .path("cache_dir")
            .map_or_else(|| state_dir.value.join("code"), |p| p.value),
        state_dir,
        control_socket,
    };
    section.finish();
    daemon
}

/// The filter of the log; otherwise only the start would find that it is none.
fn log(section: &Reader<'_>) -> String {
    let Some(log) = section.text("log") else {
        return "info".to_owned();
    };
    if let Err(why) = console::check_filter(&log.value) {
        let text = format!("`log` is \"{}\": {why}", log.value);
        section.sink.advise(&log.origin, text, console::SUCH_AS);
    }
    log.value
}

fn development(root: &Reader<'_>) -> Development {
    let Some(section) = root.table("development") else {
        return Development::default();
    };
    let development = Development {
        allow_unsigned_images: section.boolean("allow_unsigned_images", false),
        allow_plaintext: section.boolean("allow_plaintext", false),
        allow_plaintext_http: section.boolean("allow_plaintext_http", false),
        allow_file_plugins: section.boolean("allow_file_plugins", false),
        allow_file_agents: section.boolean("allow_file_agents", false),
        allow_older_code: section.boolean("allow_older_code", false),
    };
    section.finish();
    development
}

fn trust(root: &Reader<'_>, development: Development) -> Trust {
    let Some(section) = root.table("trust") else {
        if !development.allow_unsigned_images && !root.has("trust") {
            root.sink.advise(
                &Origin::File,
                "no trust store: no image could be verified",
                "add `[trust]` with `directory = \"trust\"`, a directory of signers' certificates (PEM)",
            );
        }
        return Trust {
            directory: None,
            default: None,
            labels: Vec::new(),
            code_signers: None,
        };
    };
    let trust = Trust {
        directory: section.path("directory"),
        default: section.text("default"),
        labels: section.free_table("labels"),
        code_signers: section.texts("code_signers"),
    };
    if trust.directory.is_none() && !section.has("directory") {
        section.missing("directory", "\"trust\"");
    }
    section.finish();
    trust
}

fn device(section: Reader<'_>, development: Development, general: &Hooks) -> Device {
    let name = section.required_text("name", "\"pump-1\"");
    if !name.value.is_empty() || section.has("name") {
        check_thing_name(&name, section.sink);
    }
    let mqtt = mqtt::mqtt(&section, &name, development);
    let (component, mut agent) = match section.table("agent") {
        Some(table) => (agent::choice(&table), agent_settings(table)),
        None => (AgentChoice::Builtin(agent::BUILTIN_AGENTS[0]), Vec::new()),
    };
    let notices = parts::notices(&section);
    let hooks = hooks::hooks(&section, general.clone());
    hooks::imply(&hooks, &section, &mut agent);
    let targets: Vec<Target> = section
        .tables("target")
        .into_iter()
        .map(|t| target(t, &hooks))
        .collect();
    if targets.is_empty() && !section.has("target") {
        section.sink.advise(
            section.origin(),
            format!("device \"{}\" has no target", name.value),
            "add `[[device.target]]` with a name, a file_id and a plugin",
        );
    }
    section.finish();
    Device {
        name,
        mqtt,
        notices,
        component,
        agent,
        hooks,
        targets,
    }
}

/// AWS: 1 to 128 of `[a-zA-Z0-9:_-]`.
const THING_NAME_MAX_BYTES: usize = 128;

/// Whether a thing may have this name.
#[must_use]
pub fn is_thing_name(name: &str) -> bool {
    (1..=THING_NAME_MAX_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":_-".contains(&b))
}

fn check_thing_name(name: &Located<String>, sink: &Sink) {
    if !is_thing_name(&name.value) {
        sink.advise(
            &name.origin,
            format!("\"{}\" is no thing name", name.value),
            format!(
                "a thing name has 1 to {THING_NAME_MAX_BYTES} letters, digits, `:`, `_` or `-`"
            ),
        );
    }
}

fn setting(key: &str, value: impl ToString) -> Setting {
    Setting {
        key: key.to_owned(),
        value: value.to_string(),
    }
}

/// `block_size` x `blocks_per_request` at most: the largest payload of the service, 128 KiB.
const REQUEST_MAX_BYTES: u64 = 128 * 1024;

/// Largest block in JSON: as base64 it is a third longer, and with its envelope of at most 96 bytes it has to fit a message
/// of 128 KiB. (131072 - 96) / 4 * 3 = 98232, of which 383 blocks of 256 bytes are whole.
const JSON_BLOCK_MAX_BYTES: u64 = 383 * 256;

fn agent_settings(section: Reader<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let block = section.number(&keys::BLOCK_SIZE);
    // The default shrinks with the block size; a value of the operator's is taken as it is, or refused.
    let fitting = (REQUEST_MAX_BYTES / block).max(1);
    let blocks = section
        .number_if_set(&keys::BLOCKS_PER_REQUEST)
        .unwrap_or_else(|| keys::BLOCKS_PER_REQUEST.otherwise().min(fitting));
    if blocks * block > REQUEST_MAX_BYTES {
        section.sink.advise(
            &section.place(keys::BLOCKS_PER_REQUEST.key),
            format!("`blocks_per_request` {blocks} x `block_size` {block} is {} bytes, at most {REQUEST_MAX_BYTES}", blocks * block),
            format!("set `blocks_per_request` to at most {fitting}"),
        );
    }
    settings.push(setting(keys::BLOCK_SIZE.key, block));
    settings.push(setting(keys::BLOCKS_PER_REQUEST.key, blocks));
    let is_window = |key| key == keys::BLOCK_SIZE.key || key == keys::BLOCKS_PER_REQUEST.key;
    for spec in keys::NUMBERS
        .iter()
        .filter(|n| n.section == "device.agent" && !is_window(n.key))
    {
        if let Some(n) = section.number_if_set(spec) {
            settings.push(setting(spec.key, n));
        }
    }
    let words = |list: &[&'static str]| list.iter().map(|w| (*w, *w)).collect::<Vec<_>>();
    let choices: [(&'static str, &[&'static str]); 3] = [
        ("foreign_jobs", &["refuse", "leave"]),
        ("on_job", &["accept", "ask", "ignore"]),
        ("stream_encoding", &["cbor", "json"]),
    ];
    for (key, list) in choices {
        if section.has(key) {
            settings.push(setting(key, section.choice(key, &words(list), list[0])));
        }
    }
    if block > JSON_BLOCK_MAX_BYTES && settings.contains(&setting("stream_encoding", "json")) {
        section.sink.advise(
            &section.place(keys::BLOCK_SIZE.key),
            format!("`block_size` {block} with `stream_encoding = \"json\"` is more than a message of 128 KiB, at most {JSON_BLOCK_MAX_BYTES}"),
            "JSON makes a block a third longer: take smaller blocks, or CBOR",
        );
    }
    if let Some(protocols) = section.texts("protocols") {
        // Jobs are announced and controlled over MQTT always; this is the data plane.
        let known = ["mqtt", "http"];
        let mut seen = Vec::new();
        for protocol in &protocols.value {
            if !known.contains(&protocol.as_str()) || seen.contains(&protocol) {
                section.sink.advise(
                    &protocols.origin,
                    format!(
                        "`protocols` has \"{protocol}\", expected \"mqtt\" and \"http\", each once"
                    ),
                    "write those that this device may use, the preferred one first",
                );
            }
            seen.push(protocol);
        }
        if protocols.value.is_empty() {
            section.sink.advise(
                &protocols.origin,
                "`protocols` is empty",
                "write protocols = [\"mqtt\", \"http\"], or leave it out",
            );
        }
        settings.push(setting("protocols", protocols.value.join(",")));
    }
    section.finish();
    settings
}

/// Names that become parts of state paths.
fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn target(section: Reader<'_>, hooks: &Hooks) -> Target {
    let sink = section.sink;
    let name = section.required_text("name", "\"main\"");
    if section.has("name") && !is_plain_name(&name.value) {
        sink.advise(
            &name.origin,
            format!("\"{}\" is no target name", name.value),
            "1 to 64 letters, digits, `_` or `-`, a letter or digit first",
        );
    }
    if !section.has("file_id") {
        section.missing("file_id", "0");
    }
    let file_id = u32::try_from(section.number(&keys::FILE_ID)).unwrap_or(0);
    let plugin = plugin(&section);
    let is_secondary = plugin == PluginChoice::Builtin("serial-mcu") || section.has("line");
    if is_secondary && section.has("file_id") && file_id == 0 {
        sink.advise(
            &section.place(keys::FILE_ID.key),
            "`file_id` 0 on a secondary processor: that is the gateway's own software",
            "give the target the `fileid` of its images, 1 to 255",
        );
    }
    let of_target = build::of_target(&section, &plugin, file_id);
    let directory = section.path("directory");
    let regions = regions(&section, &plugin, directory.as_ref());
    let mut line = line::line(&section, &plugin);
    let carrier = native::carrier(&section, &plugin);
    let hardware_reset = line::hardware_reset(&section, line.as_mut());
    let activation = section.choice(
        "activation",
        &[
            ("immediate", Activation::Immediate),
            ("deferred", Activation::Deferred),
        ],
        match hooks.activate {
            Some(_) => Activation::Deferred,
            None => Activation::Immediate,
        },
    );
    let target = Target {
        agent_settings: target_agent_settings(&section, activation, hooks),
        settings_at: section.place("settings"),
        plugin_settings: section
            .free_table("settings")
            .into_iter()
            .map(|(key, value)| setting(&key, value.value))
            .collect(),
        version_from: version_from(&section, &plugin),
        version_command: program(&section, "version_command"),
        product: section.text("product").map(|t| t.value),
        hardware: section.text("hardware").map(|t| t.value),
        reset: reset(&section, file_id),
        inspect: program(&section, "inspect"),
        health: program(&section, "health"),
        certificate: section.text("certificate"),
        filepaths: section
            .texts("filepaths")
            .map_or_else(Vec::new, |t| t.value),
        tries_max: u32::try_from(section.number(&keys::TRIES_MAX)).unwrap_or(3),
        sync_bytes: section.number(&keys::SYNC_BYTES),
        name,
        file_id,
        plugin,
        of_target,
        carrier,
        directory,
        regions,
        staging: section.path("staging"),
        line,
        hardware_reset,
        activation,
    };
    section.finish();
    target
}

/// What names of parts of otad may begin with, so that nobody takes them for files.
pub const BUILTIN: &str = "builtin:";

fn plugin(section: &Reader<'_>) -> PluginChoice {
    let text = section.required_text("plugin", "\"flash-file\"");
    let name = text.value.strip_prefix(BUILTIN).unwrap_or(&text.value);
    if let Some(builtin) = BUILTIN_PLUGINS.iter().find(|b| **b == name) {
        return PluginChoice::Builtin(builtin);
    }
    let endings = [".wasm", ".so", ".bundle"];
    let is_path = endings.iter().any(|e| text.value.ends_with(e));
    let is_path = is_path || text.value.contains('/');
    if !is_path {
        if section.has("plugin") {
            section.sink.advise(
                &text.origin,
                format!("no plugin \"{}\"", text.value),
                format!(
                    "built in: {}; a file is named with its path: \"./{}.wasm\"",
                    BUILTIN_PLUGINS.join(", "),
                    text.value
                ),
            );
        }
        return PluginChoice::Builtin(BUILTIN_PLUGINS[0]);
    }
    section.path("plugin").map_or(
        PluginChoice::Builtin(BUILTIN_PLUGINS[0]),
        PluginChoice::File,
    )
}

fn regions(
    section: &Reader<'_>,
    plugin: &PluginChoice,
    directory: Option<&Located<std::path::PathBuf>>,
) -> Vec<Region> {
    let listed: Vec<Region> = section.tables("region").into_iter().map(region).collect();
    let slot_size = section.number(&keys::SLOT_SIZE_BYTES);
    let sink = section.sink;
    let Some(directory) = directory else {
        if listed.is_empty() && matches!(plugin, PluginChoice::Builtin("flash-file")) {
            section.missing("directory", "\"/var/lib/otad/targets/main\"");
        }
        if section.has(keys::SLOT_SIZE_BYTES.key) {
            sink.advise(
                &section.place(keys::SLOT_SIZE_BYTES.key),
                "`slot_size_bytes` belongs to `directory`",
                "give each region its `size_bytes`, or name a `directory` in place of the regions",
            );
        }
        return listed;
    };
    if !listed.is_empty() {
        sink.advise(
            &directory.origin,
            "`directory` and `[[device.target.region]]` exclude each other",
            "with `directory` all regions are files in it; remove one of the two",
        );
        return listed;
    }
    let region = |name: &str, kind, size_bytes, read_only| Region {
        name: name.to_owned(),
        kind,
        path: Located {
            value: directory.value.join(name),
            origin: directory.origin.clone(),
        },
        size_bytes,
        read_only,
    };
    let mut regions = vec![
        region("slot-a", RegionKind::Slot, slot_size, false),
        region("slot-b", RegionKind::Slot, slot_size, false),
    ];
    for (name, size, read_only) in FLASH_FILE_RECORDS {
        regions.push(region(name, RegionKind::Record, size, read_only));
    }
    regions
}

fn region(section: Reader<'_>) -> Region {
    let name = section.required_text("name", "\"slot-a\"");
    let kind = section.choice(
        "kind",
        &[("slot", RegionKind::Slot), ("record", RegionKind::Record)],
        RegionKind::Slot,
    );
    let path = section.path("path");
    if path.is_none() && !section.has("path") {
        section.missing("path", "\"/var/lib/otad/targets/main/slot-a\"");
    }
    let region = Region {
        kind,
        path: path.unwrap_or_else(|| Located {
            value: name.value.clone().into(),
            origin: section.origin().clone(),
        }),
        size_bytes: section.number(&keys::REGION_SIZE_BYTES),
        read_only: section.boolean("read_only", false),
        name: name.value,
    };
    section.finish();
    region
}

fn target_agent_settings(
    section: &Reader<'_>,
    activation: Activation,
    hooks: &Hooks,
) -> Vec<Setting> {
    let word = match activation {
        Activation::Immediate => "immediate",
        Activation::Deferred => "deferred",
    };
    let mut settings = vec![setting("activation", word)];
    for key in ["allow_downgrade", "no_revert_allowed"] {
        if section.boolean(key, false) {
            settings.push(setting(key, true));
        }
    }
    if section.has("firmware") {
        settings.push(setting("firmware", section.boolean("firmware", true)));
    }
    if !section.has("self_test") && hooks.start_test.is_some() {
        settings.push(setting("self_test", "external"));
    } else if section.has("self_test") {
        let words = [("auto", "auto"), ("external", "external")];
        settings.push(setting(
            "self_test",
            section.choice("self_test", &words, "auto"),
        ));
    }
    for spec in [
        &keys::TARGET_SELF_TEST_DEADLINE_MS,
        &keys::TARGET_RESTART_DEADLINE_MS,
    ] {
        if let Some(n) = section.number_if_set(spec) {
            settings.push(setting(spec.key, n));
        }
    }
    settings
}

fn version_from(section: &Reader<'_>, plugin: &PluginChoice) -> VersionFrom {
    let offset = section.number_if_set(&keys::VERSION_OFFSET);
    let from = section.choice(
        "version_from",
        &[
            ("trailer", VersionFrom::Trailer),
            ("plugin", VersionFrom::Plugin),
            ("mcuboot", VersionFrom::Mcuboot),
            ("offset", VersionFrom::Offset(offset.unwrap_or(0))),
            ("none", VersionFrom::None),
        ],
        match plugin {
            // Its images are the bootloader's, with a header of their own.
            PluginChoice::Builtin("serial-mcu") => VersionFrom::Mcuboot,
            PluginChoice::Builtin(BUILD) => VersionFrom::Plugin,
            PluginChoice::Builtin(_) | PluginChoice::File(_) => VersionFrom::Trailer,
        },
    );
    match (from, section.has(keys::VERSION_OFFSET.key)) {
        (VersionFrom::Offset(_), false) => section.missing(keys::VERSION_OFFSET.key, "64"),
        (
            VersionFrom::Trailer | VersionFrom::Mcuboot | VersionFrom::Plugin | VersionFrom::None,
            true,
        ) => {
            section.sink.advise(
                &section.place(keys::VERSION_OFFSET.key),
                "`version_offset` has no use here",
                "add `version_from = \"offset\"` or remove it",
            );
        }
        _ => {}
    }
    from
}

fn program(section: &Reader<'_>, key: &'static str) -> Option<Program> {
    let table = section.table(key)?;
    if !table.has("command") {
        table.missing("command", "[\"/usr/bin/program\", \"argument\"]");
    }
    let program = program_of(&table, key);
    table.finish();
    Some(program.unwrap_or_else(|| Program {
        argv: Vec::new(),
        deadline_ms: keys::DEADLINE_MS.otherwise(),
    }))
}

/// `command` and `deadline_ms` of a table that may hold more; `None` without a command.
pub(super) fn program_of(table: &Reader<'_>, key: &str) -> Option<Program> {
    let argv = table.texts("command");
    let deadline_ms = table.number(&keys::DEADLINE_MS);
    if let Some(argv) = &argv {
        let program = argv.value.first().map_or("", String::as_str);
        if program.is_empty()
            || !program.contains('/')
            || argv.value.iter().any(|a| a.contains('\0'))
        {
            table.sink.advise(
                &argv.origin,
                format!("`command` of `{key}` does not begin with the path of a program"),
                "a list of the program's path and its arguments; no shell reads it",
            );
        }
    }
    let mut argv = argv?.value;
    if let Some(program) = argv.first_mut() {
        *program = table.sink.resolve(program);
    }
    Some(Program { argv, deadline_ms })
}

fn reset(section: &Reader<'_>, file_id: u32) -> Reset {
    #[derive(Clone, Copy, PartialEq)]
    enum How {
        Plugin,
        Command,
        Process,
    }
    let restart = program(section, "restart");
    let default = if restart.is_some() {
        How::Command
    } else {
        How::Plugin
    };
    let how = section.choice(
        "reset",
        &[
            ("plugin", How::Plugin),
            ("command", How::Command),
            ("process", How::Process),
        ],
        default,
    );
    let sink = section.sink;
    if how != How::Command && section.has("restart") {
        sink.advise(
            &section.place("restart"),
            "`restart` is used with `reset = \"command\"` only",
            "remove `restart`, or set `reset = \"command\"`",
        );
    }
    match (how, restart) {
        (How::Command, Some(program)) => Reset::Command(program),
        (How::Command, None) => {
            section.missing(
                "restart",
                "{ command = [\"/usr/bin/systemctl\", \"restart\", \"app\"] }",
            );
            Reset::Plugin
        }
        (How::Process, _) => {
            if file_id != 0 {
                sink.advise(
                    &section.place("reset"),
                    format!("`reset = \"process\"` at file id {file_id}: otad itself is file id 0"),
                    "set `file_id = 0`, or restart this target by a command",
                );
            }
            Reset::Process
        }
        (How::Plugin, _) => Reset::Plugin,
    }
}

/// What must not be there twice.
fn unique(config: &Config, sink: &Sink) {
    // Sets: there may be thousands of devices, and every verb reads all of them.
    let twice = |seen: &mut BTreeSet<String>, key: String| !seen.insert(key);
    let (mut names, mut clients, mut paths) = Default::default();
    let (mut lines, mut granted) = (BTreeSet::new(), Vec::new());
    for device in &config.devices {
        let name = &device.name;
        let is_told = twice(&mut names, name.value.clone());
        if is_told {
            sink.advise(
                &name.origin,
                format!("a second device \"{}\"", name.value),
                "a thing has one device; put its targets into one [[device]]",
            );
        }
        let mqtt = &device.mqtt;
        let client = format!("{}@{}", mqtt.client_id.value, mqtt.endpoint.value);
        let is_second = mqtt.connection_of.is_none() && twice(&mut clients, client);
        if is_second && !is_told {
            sink.advise(
                &mqtt.client_id.origin,
                format!("a second client id \"{}\" at the same endpoint", mqtt.client_id.value),
                "two connections of one client id cut each other off; leave `client_id` out to use the thing name, or share the connection: `connection_of`",
            );
        }
        build::check(device, sink);
        let (mut targets, mut files) = Default::default();
        for target in &device.targets {
            if twice(&mut targets, target.name.value.clone()) {
                sink.advise(
                    &target.name.origin,
                    format!(
                        "a second target \"{}\" of \"{}\"",
                        target.name.value, name.value
                    ),
                    "commands name targets: give each its own `name`",
                );
            }
            if twice(&mut files, target.file_id.to_string()) {
                sink.advise(
                    &target.name.origin,
                    format!(
                        "target \"{}\" has file id {}, another target of \"{}\" has it too",
                        target.name.value, target.file_id, name.value
                    ),
                    "jobs name targets by file id: give each its own `file_id`",
                );
            }
            if let Some(line) = &target.line
                && twice(&mut lines, line.config.place.to_string())
            {
                sink.advise(
                    &line.origin,
                    format!("a second target on the line {}", line.config.place),
                    "one line serves one target: give each its own `port`",
                );
            }
            if let Some(staging) = &target.staging
                && twice(&mut paths, staging.value.display().to_string())
            {
                sink.advise(
                    &staging.origin,
                    format!(
                        "\"{}\" is the storage of another target or region",
                        staging.value.display()
                    ),
                    "give each its own file, or leave `staging` out",
                );
            }
            native::alone(target, &mut granted, sink);
            for region in &target.regions {
                if twice(&mut paths, region.path.value.display().to_string()) {
                    sink.advise(
                        &region.path.origin,
                        format!(
                            "\"{}\" is the storage of another target or region",
                            region.path.value.display()
                        ),
                        "give each its own directory or file",
                    );
                }
            }
        }
    }
}
