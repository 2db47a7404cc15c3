//! The two packages as they are now: parsed, documented, and with the functions that guests were built for.
//!
//! The golden lines are what a guest must give and what it may call. What a guest must give never changes within a
//! version: DO NOT CHANGE THE TEST, give the package a new version. What is lent may get lines, never lose one.

use std::collections::BTreeSet;

use versioning::contract::Package;

fn package(name: &str) -> Package {
    Package::read(&versioning::wit().join(name)).expect("the package parses")
}

fn check(package: &Package, interface: &str, golden: &[&str]) {
    assert_eq!(
        package.functions(interface).as_deref(),
        Some(golden.map_owned().as_slice()),
        "{interface}"
    );
}

trait Owned {
    fn map_owned(&self) -> Vec<String>;
}

impl Owned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|line| (*line).to_owned()).collect()
    }
}

#[test]
fn everything_in_the_contract_is_documented() {
    for name in ["agent", "pal"] {
        assert_eq!(package(name).undocumented(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn an_agent_gives_these_five_functions() {
    let golden = [
        "describe() -> description",
        "start(context: context, info: start-info) -> result<turn, failure>",
        "handle(context: context, event: event) -> turn",
        "status() -> agent-status",
        "snapshot(context: context) -> blob",
    ];
    check(&package("agent"), "job-agent", &golden);
}

#[test]
fn a_plugin_gives_these_functions() {
    let pal = package("pal");
    check(&pal, "describe", &["describe() -> description"]);
    let golden = [
        "open(settings: list<setting>, saved: option<blob>) -> result<_, failure>",
        "create(transfer: transfer) -> result<duty, failure>",
        "reopen(transfer: transfer) -> result<duty, failure>",
        "write-block(offset: u64, data: list<u8>) -> result<duty, failure>",
        "extents() -> result<list<extent>, failure>",
        "examine() -> result<duty, failure>",
        "install() -> result<duty, failure>",
        "activate(sha256: list<u8>) -> result<duty, failure>",
        "reset() -> result<duty, failure>",
        "self-test() -> result<duty, failure>",
        "commit() -> result<duty, failure>",
        "reject() -> result<duty, failure>",
        "state() -> result<duty, failure>",
        "abort() -> result<duty, failure>",
        "step(budget-bytes: u32) -> result<duty, failure>",
        "suspend() -> result<blob, failure>",
    ];
    check(&pal, "image", &golden);
}

#[test]
fn an_agent_is_lent_these_functions() {
    let agent = package("agent");
    let golden = [
        "subscribe(filter: string, qos: qos) -> token",
        "unsubscribe(filter: string) -> token",
        "publish(topic: string, payload: list<u8>, qos: qos) -> token",
        "http-get(url: string, offset: u64, length: u32) -> token",
        "cancel(token: token)",
    ];
    check(&agent, "transport", &golden);
    let golden = [
        "journal-store(journal: blob) -> token",
        "log(level: level, text: string)",
        "emit(event: application-event)",
    ];
    check(&agent, "os", &golden);
    let golden = [
        "create(file: file-spec) -> started",
        "reopen(job-id: string, file: file-id) -> started",
        "write-block(file: file-id, offset: u64, data: list<u8>) -> started",
        "close(file: file-id) -> started",
        "verified(file: file-id) -> result<verified-image, failure>",
        "install(image: borrow<verified-image>) -> started",
        "activate(image: borrow<verified-image>) -> started",
        "reset(file: file-id) -> started",
        "self-test(file: file-id) -> started",
        "commit(file: file-id) -> started",
        "reject(file: file-id) -> started",
        "state(file: file-id) -> started",
        "abort(file: file-id) -> started",
        "[method]verified-image.info() -> image-info",
    ];
    let lines: BTreeSet<String> = agent.functions("pal").unwrap().into_iter().collect();
    assert_eq!(lines, golden.map_owned().into_iter().collect());
}

#[test]
fn an_agent_cannot_connect_disconnect_or_reconnect() {
    let agent = package("agent");
    let surface = agent.surface("agent").unwrap();
    assert!(!surface.imports.is_empty());
    for interface in agent.interfaces() {
        let lent = surface
            .imports
            .iter()
            .any(|name| name.contains(&format!("/{interface}@")));
        for line in agent.functions(interface).unwrap() {
            assert!(
                !lent || !line.contains("connect"),
                "{interface} lends {line}"
            );
        }
    }
}

#[test]
fn the_worlds_are_made_of_these_interfaces() {
    let version = "@0.1.0";
    let names = |package: &str, list: &[&str]| -> BTreeSet<String> {
        list.iter()
            .map(|name| format!("ota:{package}/{name}{version}"))
            .collect()
    };
    let agent = package("agent").surface("agent").unwrap();
    assert_eq!(
        agent.imports,
        names("agent", &["os", "pal", "transport", "types"])
    );
    assert_eq!(agent.exports, names("agent", &["job-agent"]));
    let lent = [
        "block-device",
        "clock",
        "hardware-reset",
        "log",
        "serial-line",
        "staged-image",
        "types",
    ];
    let plugin = package("pal").surface("plugin").unwrap();
    assert_eq!(plugin.imports, names("pal", &lent));
    assert_eq!(plugin.exports, names("pal", &["describe", "image"]));
}
