//! What came of a check, on a screen, as JUnit XML and as JSON.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use host_sandbox::check::verdict::{Finding, Judged, Report, Verdict};
use serde_json::{Value, json};

use crate::progress::say;

/// Lines of a transcript that a report shows; the last ones say what went wrong.
const LINES_SHOWN: usize = 20;

/// Prints as cases end: a line each, failures with their details.
pub(super) struct Screen {
    colour: bool,
    verbose: bool,
    quiet: bool,
    total: usize,
    done: AtomicUsize,
}

impl Screen {
    pub(super) fn new(verbose: bool, total: usize, quiet: bool) -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            verbose,
            quiet,
            total,
            done: AtomicUsize::new(0),
        }
    }

    pub(super) fn head(&self, label: &str, title: &str) {
        if !self.quiet {
            say(&format!("{label}: {title}, {} cases", self.total));
        }
    }

    pub(super) fn case(&self, ended: &Judged) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.quiet || (matches!(ended.verdict, Verdict::Skipped(_)) && !self.verbose) {
            return;
        }
        let width = self.total.to_string().len();
        let mark = self.paint(&ended.verdict, &format!("{:>7}", ended.verdict.name()));
        let mut text = format!("{done:>width$}/{} {mark}  {}", self.total, ended.name);
        match &ended.verdict {
            Verdict::Passed => {}
            Verdict::Failed(finding) => {
                let _ = write!(text, "\n{}", indented(&details(ended, finding)));
            }
            Verdict::Broken(why) => {
                let _ = write!(text, ": {why}");
            }
            Verdict::Skipped(why) => {
                let _ = write!(text, ": {why}");
            }
        }
        say(&text);
    }

    pub(super) fn summary(&self, report: &Report) {
        let counts: Vec<String> = ["passed", "failed", "broken", "skipped"]
            .iter()
            .map(|name| (report.count(name), name))
            .filter(|(count, name)| *count > 0 || **name == "failed")
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        let seconds = report.took_ms / 1000;
        let tenths = report.took_ms % 1000 / 100;
        let word = if report.is_fit() { "fit" } else { "not fit" };
        let verdict = if report.is_fit() {
            self.paint(&Verdict::Passed, word)
        } else {
            self.paint(&Verdict::Broken(String::new()), word)
        };
        say(&format!(
            "{verdict}: {} in {seconds}.{tenths} s",
            counts.join(", ")
        ));
        let (early, asked) = at_first_question(report);
        if early * 10 >= asked * 9 && early > 0 {
            say(&format!(
                "{early} failed at the first question: if this agent leads another conversation than the cases, which follow \
                 the shipped agent's, `otad sandbox` judges it"
            ));
        }
        if let Some(untried) = untried(report) {
            say(untried);
        }
        let skipped = report.count("skipped");
        if skipped > 0 && !self.verbose {
            say(&format!(
                "{skipped} were not asked of this component; --verbose says why"
            ));
        }
    }

    fn paint(&self, verdict: &Verdict, text: &str) -> String {
        let colour = match verdict {
            Verdict::Passed => 32,
            Verdict::Failed(_) | Verdict::Broken(_) => 31,
            Verdict::Skipped(_) => 33,
        };
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// What a component that is fit may still do wrong.
fn untried(report: &Report) -> Option<&'static str> {
    (report.is_fit() && report.ends_before_a_start()).then_some(
        "fit as far as it was asked: reset, self-test, commit and reject of an image that runs were not tried, for its host \
         restarts the target, and who starts that is known of the kind flash-file alone; try an update on a target",
    )
}

/// How many cases an agent failed before it was told anything, and how many were asked of it.
fn at_first_question(report: &Report) -> (usize, usize) {
    let is_early = |case: &&Judged| match &case.verdict {
        Verdict::Failed(finding) => matches!(finding.input.as_str(), "start" | "connected"),
        Verdict::Passed | Verdict::Broken(_) | Verdict::Skipped(_) => false,
    };
    let early = report.cases.iter().filter(is_early).count();
    (early, report.cases.len() - report.count("skipped"))
}

/// A failure for people: what was expected, what came, where it is written.
fn details(ended: &Judged, finding: &Finding) -> String {
    let mut text = format!("{}\n", finding.what);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "shows: {}", ended.purpose);
    let _ = writeln!(text, "source: {}", ended.source);
    let _ = writeln!(text, "at: {}", finding.place);
    if !finding.input.is_empty() {
        let _ = writeln!(text, "> {}", finding.input);
    }
    for line in &finding.expected {
        let _ = writeln!(text, "  expected {line}");
    }
    let hidden = finding.came.len().saturating_sub(LINES_SHOWN);
    if hidden > 0 {
        let _ = writeln!(text, "      came … {hidden} lines before these");
    }
    for line in finding.came.iter().skip(hidden) {
        let _ = writeln!(text, "      came {line}");
    }
    text
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("        {line}")).collect();
    lines.join("\n")
}

/// The report for programs.
pub(super) fn json(label: &str, title: &str, report: &Report) -> Value {
    let cases: Vec<Value> = report.cases.iter().map(case_json).collect();
    json!({
        "component": label,
        "is": title,
        "fit": report.is_fit(),
        "untried": untried(report),
        "passed": report.count("passed"),
        "failed": report.count("failed"),
        "broken": report.count("broken"),
        "skipped": report.count("skipped"),
        "milliseconds": report.took_ms,
        "cases": cases,
    })
}

fn case_json(case: &Judged) -> Value {
    let mut value = json!({
        "name": case.name,
        "purpose": case.purpose,
        "source": case.source,
        "verdict": case.verdict.name(),
        "milliseconds": case.took_ms,
    });
    match &case.verdict {
        Verdict::Passed => {}
        Verdict::Broken(why) => value["why"] = json!(why),
        Verdict::Skipped(why) => value["why"] = json!(why.to_string()),
        Verdict::Failed(finding) => {
            value["why"] = json!(finding.what);
            value["place"] = json!(finding.place);
            value["input"] = json!(finding.input);
            value["expected"] = json!(finding.expected);
            value["came"] = json!(finding.came);
        }
    }
    value
}

/// The report for build servers, in the dialect that Jenkins, GitLab and GitHub's actions read.
pub(super) fn junit(label: &str, report: &Report) -> String {
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let head = format!(
        "name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\"",
        escaped(label),
        report.cases.len(),
        report.count("failed"),
        report.count("broken"),
        report.count("skipped"),
        seconds(report.took_ms)
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(xml, "<testsuites>\n<testsuite {head}>");
    for case in &report.cases {
        let _ = write!(
            xml,
            "<testcase classname=\"otad.check\" name=\"{}\" time=\"{}\"",
            escaped(&case.name),
            seconds(case.took_ms)
        );
        let _ = match &case.verdict {
            Verdict::Passed => writeln!(xml, "/>"),
            Verdict::Failed(finding) => writeln!(
                xml,
                "><failure message=\"{}\">{}</failure></testcase>",
                escaped(&finding.what),
                escaped(&details(case, finding))
            ),
            Verdict::Broken(why) => writeln!(
                xml,
                "><error message=\"{}\">{}</error></testcase>",
                escaped(why),
                escaped(&case.purpose)
            ),
            Verdict::Skipped(why) => writeln!(
                xml,
                "><skipped message=\"{}\"/></testcase>",
                escaped(&why.to_string())
            ),
        };
    }
    xml.push_str("</testsuite>\n</testsuites>\n");
    xml
}

/// Text as XML 1.0 takes it: five characters as entities, and none that it cannot hold at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use host_sandbox::check::verdict::Skip;

    use super::*;

    fn report() -> Report {
        let judged = |name: &str, verdict: Verdict| Judged {
            name: name.to_owned(),
            purpose: "a & b".to_owned(),
            source: "there".to_owned(),
            verdict,
            took_ms: 1234,
        };
        let finding = Finding {
            place: "x.txt:7".to_owned(),
            what: "it said \"<no>\"\u{1}".to_owned(),
            input: "connected".to_owned(),
            expected: vec!["close 0".to_owned()],
            came: (0..30).map(|n| format!("line {n}")).collect(),
        };
        Report {
            cases: vec![
                judged("one", Verdict::Passed),
                judged("two", Verdict::Failed(finding)),
                judged("three", Verdict::Broken("it trapped".to_owned())),
                judged("four", Verdict::Skipped(Skip::Own)),
            ],
            took_ms: 5000,
        }
    }

    #[test]
    fn junit_counts_and_escapes() {
        let xml = junit("a<b>.wasm", &report());
        assert!(xml.contains(
            "name=\"a&lt;b&gt;.wasm\" tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"1\" time=\"5.000\""
        ));
        assert!(xml.contains("<failure message=\"it said &quot;&lt;no&gt;&quot;\u{fffd}\">"));
        assert!(xml.contains("shows: a &amp; b") && xml.contains("expected close 0"));
        assert!(xml.contains("came … 10 lines before these") && !xml.contains("came line 9\n"));
        assert!(!xml.contains('\u{1}'));
    }

    #[test]
    fn an_agent_with_another_conversation_is_known_by_where_it_fails() {
        let mut report = report();
        if let Verdict::Failed(finding) = &mut report.cases[1].verdict {
            finding.input = "start".to_owned();
        }
        assert_eq!(at_first_question(&report), (1, 3));
    }

    #[test]
    fn what_a_fit_plugin_was_never_started_for_is_said() {
        let skipped = |skip| Judged {
            verdict: Verdict::Skipped(skip),
            ..report().cases[0].clone()
        };
        let mut report = report();
        report.cases.truncate(1);
        report
            .cases
            .push(skipped(Skip::Needs("own-reset".to_owned())));
        assert_eq!(untried(&report), None);
        report.cases.push(skipped(Skip::HostResets));
        let said = untried(&report).unwrap_or_default();
        assert!(said.starts_with("fit as far as it was asked: "), "{said}");
        assert_eq!(json("x.wasm", "plugin a 1", &report)["untried"], said);
    }

    #[test]
    fn json_says_what_came_of_each_case() {
        let value = json("x.wasm", "agent a 1", &report());
        assert_eq!(value["fit"], false);
        assert_eq!(value["passed"], 1);
        assert_eq!(value["cases"][1]["place"], "x.txt:7");
        assert_eq!(value["cases"][2]["why"], "it trapped");
    }
}
