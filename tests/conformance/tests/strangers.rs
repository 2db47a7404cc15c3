//! Components that were made without our SDK and without our compilers: a good plugin in WebAssembly text passes, bad ones do
//! not, and what is no component for this host is refused, each with a reason. And the agent of our own that leads another
//! conversation than the cases.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use host_runtime::agent::AgentBuild;
use host_runtime::engine::{Engine, EngineOptions, Time};
use host_runtime::plugin::ComponentPlugin;
use host_runtime::ports::clock::SystemClock;
use host_sandbox::Options as World;
use host_sandbox::check::verdict::{Report, Verdict};
use host_sandbox::check::{Options, Subject, agent_cases, plugin_cases, run};
use host_sandbox::recipe::{self, Kitchen, Recipe};
use support::binary;
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const PLUGIN: &str = include_str!("../strangers/plugin.wat");
const AGENT: &str = include_str!("../strangers/agent.wat");

/// A core module as a component of world `plugin`.
fn component(text: &str) -> Vec<u8> {
    component_of("pal", "plugin", text)
}

/// A core module as a component of a world.
fn component_of(package: &str, world: &str, text: &str) -> Vec<u8> {
    let module = module_of(package, world, text);
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    let mut encoder = encoder.expect("a module with types");
    encoder.encode().expect("it fits the world")
}

/// A core module that says which world it is of.
fn module_of(package: &str, world: &str, text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).expect("it is WebAssembly text");
    let contract = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let contract = contract.join(package);
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(contract).expect("the contract is WIT");
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("it has the world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("the types can be added");
    module
}

fn check(text: &str) -> Report {
    let engine = Engine::new(&EngineOptions::default()).expect("the engine runs here");
    let factory = ComponentPlugin::load(&engine, "plugin.wat", &component(text)).expect("it loads");
    let subject = Subject::Plugin {
        factory: Arc::clone(&factory) as Arc<_>,
        settings: Vec::new(),
    };
    let cases = plugin_cases().expect("the cases are scripts");
    let options = Options {
        jobs: NonZeroUsize::MIN,
        exact: true,
    };
    run(&subject, &cases, options, &SystemClock::new(), |_| {})
}

#[test]
fn a_good_plugin_in_webassembly_text_passes() {
    let report = check(PLUGIN);
    let bad: Vec<_> = report
        .cases
        .iter()
        .filter(|case| !matches!(case.verdict, Verdict::Passed | Verdict::Skipped(_)))
        .collect();
    assert!(report.is_fit(), "{bad:#?}");
    assert!(report.count("passed") >= 40, "{}", report.count("passed"));
}

#[test]
fn a_bad_plugin_in_webassembly_text_is_found() {
    let bugs = [
        // Never durable.
        ("(call $sync (i32.const 2) (i32.const 128)) ;; durable", ""),
        // A failed sync is not looked at.
        (
            "(if (i32.load8_u (i32.const 128)) (then (return (call $pass_on)))) ;; looked at",
            "",
        ),
        // What does not run is committed.
        (
            "(call $fail (i32.const 0xe8) (i32.const 7))",
            "(call $done)",
        ),
        // The end of a block is compared in 32 bits.
        (
            "(i64.gt_u (local.get $offset) (global.get $size))",
            "(i32.const 0)",
        ),
        // The file need not fit.
        (
            "(i64.gt_u (local.get $wanted) (i64.load offset=56 (i32.load (i32.const 128))))",
            "(i32.const 0)",
        ),
        // Memory is never free again.
        ("(global.set $bump (i32.const 4096))", ""),
    ];
    for (right, wrong) in bugs {
        assert!(PLUGIN.contains(right), "{right}");
        let report = check(&PLUGIN.replace(right, wrong));
        assert!(!report.is_fit(), "{right} -> {wrong}");
    }
}

fn otad(arguments: &[&str]) -> Output {
    Command::new(binary::otad())
        .arg("check")
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// Runs `otad check` on bytes; exit code, and what it said on standard error.
fn verdict(dir: &Path, name: &str, bytes: &[u8], more: &[&str]) -> (Option<i32>, String) {
    let file = dir.join(format!("{name}.wasm"));
    fs::write(&file, bytes).expect("a file can be written");
    let file = file.to_string_lossy();
    let output = otad(&[&[&*file], more].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

#[test]
fn what_is_no_component_for_this_host_is_refused_with_its_reason() {
    let dir = TempDir::new().expect("a temporary directory");
    let text = |text: &str| wat::parse_str(text).expect("it is WebAssembly text");
    let rows = [
        (
            "rubbish",
            b"MZ\x90\x00not at all".to_vec(),
            "not a WebAssembly component",
        ),
        ("empty", Vec::new(), "not a WebAssembly component"),
        ("module", text("(module)"), "core module"),
        (
            "nothing",
            text("(component)"),
            "neither an agent nor a plugin",
        ),
        (
            "wasi",
            text(
                "(component (import \"wasi:cli/environment@0.2.0\" (instance $w)) \
                 (export \"ota:pal/image@0.1.0\" (instance $w)))",
            ),
            "imports `wasi:cli/environment@0.2.0`",
        ),
        (
            "version",
            text("(component (instance $i) (export \"ota:pal/image@9.1.0\" (instance $i)))"),
            "of another contract version",
        ),
        (
            "half",
            text("(component (instance $i) (export \"ota:pal/image@0.1.0\" (instance $i)))"),
            "does not export `ota:pal/describe`",
        ),
        ("large", vec![0; 5 * 1024 * 1024], "bytes, at most"),
    ];
    for (name, bytes, reason) in rows {
        let (code, said) = verdict(dir.path(), name, &bytes, &[]);
        assert_eq!(code, Some(5), "{name}: {said}");
        assert!(said.contains(reason), "{name}: {said}");
    }
}

/// The plugin with one function more, whose cost grows faster than its length: loops within each other, each of which carries
/// as many values round as there are loops.
fn slow_to_compile(loops: usize) -> Vec<u8> {
    let locals = "i64 ".repeat(loops);
    let begin = "loop ".repeat(loops);
    let change: String = (0..loops)
        .map(|n| format!("(local.set {n} (i64.add (local.get {n}) (i64.const 1)))\n"))
        .collect();
    let end = "(br_if 0 (i64.eqz (local.get 0))) end\n".repeat(loops);
    let module = PLUGIN.trim_end().strip_suffix(')').expect("a module");
    component(&format!(
        "{module}\n(func $slow (local {locals}) {begin} {change} {end}))"
    ))
}

#[test]
fn what_takes_too_long_to_compile_is_stopped() {
    let dir = TempDir::new().expect("a temporary directory");
    let limited = ["--compile-seconds", "1", "--only", "no-such-case"];
    // How many loops a compiler manages in its second hangs on its profile and the machine. In a release build 64 take a
    // thirtieth of it and 128 nearly three, with some 50 MiB of memory.
    let grown = (6..=14).map(|power| slow_to_compile(1 << power));
    let mut ends = grown.map(|bytes| verdict(dir.path(), "slow", &bytes, &limited));
    // What was compiled in time is asked no case.
    let (code, said) = ends
        .find(|(code, _)| *code != Some(2))
        .expect("one of them takes too long");
    assert_eq!(code, Some(5), "{said}");
    // Which of the two limits comes first hangs on how busy the machine is.
    let by_cpu = said.contains("more than 1 s of processor time");
    assert!(by_cpu || said.contains("was not compiled within"), "{said}");
}

#[test]
fn a_good_and_a_bad_one_end_with_their_exit_codes_and_reports() {
    let dir = TempDir::new().expect("a temporary directory");
    let junit = dir.path().join("report.xml");
    let report = junit.to_string_lossy();
    let good = component(PLUGIN);
    let (code, said) = verdict(dir.path(), "good", &good, &["--junit", &report]);
    assert_eq!(code, Some(0), "{said}");
    let xml = fs::read_to_string(&junit).expect("the report is there");
    assert!(xml.contains("failures=\"0\"") && xml.contains("<testcase "));
    let right = "(call $sync (i32.const 2) (i32.const 128)) ;; durable";
    let bad = component(&PLUGIN.replace(right, ""));
    let (code, said) = verdict(dir.path(), "bad", &bad, &["--json"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, _) = verdict(dir.path(), "good", &good, &["--only", "no-such-case"]);
    assert_eq!(code, Some(2));
}

#[test]
fn what_misbehaves_at_its_start_is_stopped_each_time_with_its_reason() {
    let dir = TempDir::new().expect("a temporary directory");
    let rows = [
        (
            "loop",
            "(loop $on (br $on))",
            "did not end within 400000000 units of fuel",
        ),
        (
            "memory",
            "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))",
            "bytes of memory and may have",
        ),
        (
            "calls",
            "(loop $on (call $log (i32.const 2) (i32.const 1024) (i32.const 9)) (br $on))",
            "called the host more than 4096 times",
        ),
        (
            "list",
            "(drop (call $publish (i32.const 1024) (i32.const 9) (i32.const 0) (i32.const 100000000) (i32.const 1)))",
            "the guest trapped",
        ),
        (
            "trap",
            "unreachable",
            "the guest trapped: wasm trap: wasm `unreachable` instruction executed; error while",
        ),
        (
            "words",
            "(call $log (i32.const 4) (i32.const 1024) (i32.const 9)) unreachable",
            "instruction executed; last words `",
        ),
    ];
    for (name, start, reason) in rows {
        let text = AGENT.replace("(;start;)", start);
        let file = dir.path().join(format!("{name}.wasm"));
        fs::write(&file, component_of("agent", "agent", &text)).expect("a file can be written");
        let output = otad(&[&file.to_string_lossy(), "--json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("the report is JSON");
        let first = report["cases"].as_array().and_then(|cases| cases.first());
        let why = first.map(|case| case["why"].to_string());
        assert!(
            why.as_ref()
                .is_some_and(|why| why.contains(reason) && !why.contains('\u{fffd}')),
            "{name}: {why:?}"
        );
        // Not every case costs a budget.
        assert!(report["broken"].as_u64().is_some_and(|n| n <= 12), "{name}");
    }
}

#[test]
fn a_sandbox_tells_what_a_guest_said_before_it_trapped_and_says_it_once() {
    let dir = TempDir::new().expect("a temporary directory");
    let says = "(call $log (i32.const 4) (i32.const 1024) (i32.const 9)) unreachable";
    let file = dir.path().join("says.wasm");
    let text = AGENT.replace("(;start;)", says);
    fs::write(&file, component_of("agent", "agent", &text)).expect("a file can be written");
    let run = ["--scenario", "plain", "--fault", "none", "--seeds", "1"];
    let output = Command::new(binary::otad())
        .arg("sandbox")
        .arg(&file)
        .args(run)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    let told = said.matches("instruction executed; last words `").count();
    assert_eq!(told, 1, "{said}");
    assert!(
        said.contains("  no trap at 1000 ms, 8 times until"),
        "{said}"
    );
    assert!(said.contains("no wedge at "), "{said}");
}

#[test]
fn a_wrapped_agent_is_recommended_to_what_takes_agents() {
    let dir = TempDir::new().expect("a temporary directory");
    let made = dir.path().join("made.wasm");
    for (package, world, text, verb) in [
        ("agent", "agent", AGENT, "otad sandbox "),
        ("pal", "plugin", PLUGIN, "otad plugin test "),
    ] {
        let module = dir.path().join("module.wasm");
        fs::write(&module, module_of(package, world, text)).expect("a file can be written");
        let output = Command::new(binary::otad())
            .args(["plugin", "wrap"])
            .arg(&module)
            .arg("--output")
            .arg(&made)
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("is it fit? {verb}")), "{said}");
    }
}

#[test]
fn a_list_without_end_in_a_description_is_refused() {
    let dir = TempDir::new().expect("a temporary directory");
    let right = "(i32.store (i32.const 36) (i32.const 1)) ;; schemas";
    assert!(AGENT.contains(right));
    let wrong = "(i32.store (i32.const 36) (i32.const 500000000))";
    let bytes = component_of("agent", "agent", &AGENT.replace(right, wrong));
    let (code, said) = verdict(dir.path(), "description", &bytes, &[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("does not say who it is"), "{said}");
}

#[test]
fn a_component_that_would_reach_beyond_what_is_lent_is_refused_before_it_is_compiled() {
    let engine = Engine::new(&EngineOptions::default()).expect("the engine runs here");
    let hostile = include_str!("../../hostile.md");
    let rows = support::markdown::table(hostile, "hostile-imports").expect("the table is there");
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let name = row[0].trim_matches('`');
        let text = format!(
            "(component (import \"{name}\" (instance $x)) (export \"ota:pal/image@0.1.0\" (instance $x)))"
        );
        let bytes = wat::parse_str(&text).expect("it is WebAssembly text");
        let refusal = ComponentPlugin::load(&engine, "hostile.wasm", &bytes);
        let words = refusal.expect_err(name).to_string();
        assert!(words.contains(&format!("imports `{name}`")), "{words}");
    }
}

#[test]
fn the_second_agents_readme_tells_how_many_cases_it_does_not_follow() {
    let engine = Engine::new(&EngineOptions::default()).expect("the engine runs here");
    let agent = AgentBuild::load(&engine, "simple", guest_artifacts::AGENT_SIMPLE);
    let subject = Subject::Agent(agent.expect("it loads"));
    let cases = agent_cases().expect("the cases are scripts");
    let options = Options {
        jobs: NonZeroUsize::MIN,
        exact: false,
    };
    let report = run(&subject, &cases, options, &SystemClock::new(), |_| {});
    let [passed, failed, skipped] = ["passed", "failed", "skipped"].map(|how| report.count(how));
    let readme = binary::workspace().join("agent-wasm/agent-simple/README.md");
    let readme = fs::read_to_string(readme).expect("it has a README");
    let readme: Vec<&str> = readme.split_whitespace().collect();
    let readme = readme.join(" ");
    for words in [
        format!(
            "of {} `otad check --builtin simple` passes {passed}, parts from {failed},",
            cases.len()
        ),
        format!("and is not asked {skipped}."),
    ] {
        assert!(readme.contains(&words), "its README does not say: {words}");
    }
}

#[test]
fn the_second_agents_readme_has_the_fault_free_stories_that_it_fails() {
    let engine = Engine::new(&EngineOptions {
        time: Time::Virtual,
        ..EngineOptions::default()
    });
    let engine = engine.expect("the engine runs here");
    let agent = AgentBuild::load(&engine, "simple", guest_artifacts::AGENT_SIMPLE);
    let kitchen = Kitchen::new(World {
        agent: agent.expect("it loads"),
        ..World::native(0)
    });
    let fails = |story: &String| {
        let recipe = Recipe {
            story: story.clone(),
            blocks: None,
            faults: Vec::new(),
            seed: 1,
        };
        let served = kitchen.run(&recipe, false).expect("it is a story");
        !served.report.violations.is_empty()
    };
    let failed: BTreeSet<String> = recipe::stories()
        .into_iter()
        .map(|(story, _)| story)
        .filter(fails)
        .collect();
    let readme = binary::workspace().join("agent-wasm/agent-simple/README.md");
    let readme = fs::read_to_string(readme).expect("it has a README");
    let rows = readme.split("| fault-free stories |").nth(1);
    let rows = rows.expect("it has the table").lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let told: BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(told, failed);
}
