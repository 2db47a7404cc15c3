//! Every document for AWS against the service's own description of its input, as botocore carries it; no account and no
//! network. Python with botocore is looked for as `$OTAD_PYTHON` and `python3`; without it the test says that it is
//! skipped, and fails under `OTAD_REQUIRE_INTEROP=1`.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::done;
use crate::fake_aws::FakeAws;

/// Reads `[service, operation, document]` a line; prints what is wrong with each. Beyond botocore's own validation it looks
/// at patterns, lengths and words, which botocore leaves to the service.
const CHECK: &str = r#"
import json, re, sys
import botocore.session
from botocore.validate import ParamValidator

session = botocore.session.get_session()

def walk(shape, value, path):
    limits = shape.metadata
    kind = shape.type_name
    size = len(value) if kind in ("string", "list", "map") else value
    if kind == "structure":
        for name, inner in value.items():
            walk(shape.members[name], inner, path + "." + name)
    elif kind == "list":
        for index, inner in enumerate(value):
            walk(shape.member, inner, "%s[%d]" % (path, index))
    if kind in ("string", "list", "map", "integer", "long"):
        if "min" in limits and size < limits["min"]:
            print("%s: below %s" % (path, limits["min"]))
        if "max" in limits and size > limits["max"]:
            print("%s: above %s" % (path, limits["max"]))
    if kind == "string":
        if limits.get("enum") and value not in limits["enum"]:
            print("%s: %r is none of %s" % (path, value, limits["enum"]))
        pattern = limits.get("pattern")
        if pattern and "\\p" not in pattern and not re.fullmatch(pattern, value):
            print("%s: %r does not match %s" % (path, value, pattern))

for line in sys.stdin:
    service, operation, document = json.loads(line)
    model = session.get_service_model(service)
    names = {re.sub(r"[^a-z0-9]", "", n.lower()): n for n in model.operation_names}
    shape = model.operation_model(names[operation.replace("-", "")]).input_shape
    report = ParamValidator().validate(document, shape)
    if report.has_errors():
        print("%s %s: %s" % (service, operation, report.generate_report()))
    else:
        walk(shape, document, service + " " + operation)
"#;

/// A Python that has botocore, or the test is skipped.
fn python() -> Option<String> {
    let named = std::env::var("OTAD_PYTHON").ok();
    // Where continuous integration installs it: target/interop-python beside target/debug/deps/THIS.
    let made = std::env::current_exe().ok().and_then(|exe| {
        let python = exe.ancestors().nth(3)?.join("interop-python/bin/python");
        python.to_str().map(str::to_owned)
    });
    let found = named
        .into_iter()
        .chain(made)
        .chain(["python3".to_owned()])
        .find(|python| {
            let asked = Command::new(python)
                .args(["-c", "import botocore.session"])
                .output();
            asked.is_ok_and(|output| output.status.success())
        });
    if found.is_none() {
        let required = std::env::var_os("OTAD_REQUIRE_INTEROP").is_some_and(|v| v == "1");
        assert!(
            !required,
            "no Python with botocore, and OTAD_REQUIRE_INTEROP=1 requires it: pip install botocore, or set OTAD_PYTHON"
        );
        // Not println: the harness swallows that where tests pass.
        let _ = writeln!(std::io::stderr(), "skipped: no Python with botocore");
    }
    found
}

/// What botocore says about documents; empty = all are good.
fn complaints(python: &str, documents: &[(String, String, Value)]) -> String {
    let mut child = Command::new(python)
        .args(["-c", CHECK])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for (service, operation, document) in documents {
        // `s3api` is what the program calls the service s3.
        let service = service.trim_end_matches("api");
        writeln!(input, "{}", json!([service, operation, document])).unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Command lines beyond the fixed ones, which between them use every member of every document.
const UPDATES: &[&[&str]] = &[
    &[
        "--thing",
        "pump-1",
        "--signing-profile",
        "pumps",
        "--certificate-id",
        "0b7d2c52",
        "--file",
        "1=update.bin",
    ],
    &[
        "--group",
        "pumps",
        "--continuous",
        "--signing-profile",
        "pumps",
        "--certificate-id",
        "0b7d2c52",
        "--file",
        "0=s3://images/a/b.img",
        "--file",
        "7=update.bin",
        "--file-type",
        "7=2",
        "--filepath",
        "7=/opt/mcu.img",
        "--rate",
        "50",
        "--canary",
        "5",
        "--abort-if-failed",
        "10%",
        "--abort-minimum",
        "3",
        "--timeout",
        "60",
        "--protocols",
        "mqtt,http",
    ],
    &[
        "--thing",
        "pump-1",
        "--rate",
        "1000",
        "--key",
        "signer.key",
        "--certificate",
        "signer.pem",
        "--file",
        "255=update.bin",
    ],
    &[
        "--thing",
        "pump-1",
        "--canary",
        "1000",
        "--signature",
        "update.sig",
        "--signature-kind",
        "sig-sha256-rsa",
        "--file",
        "update.bin",
    ],
];

fn signer(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["signer".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(folder.join("signer.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("signer.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("update.sig"), [0x30; 256]).unwrap();
}

#[test]
fn every_document_passes_the_services_own_description_of_its_input() {
    let Some(python) = python() else { return };
    let mut documents = Vec::new();
    for update in UPDATES {
        let fake = FakeAws::new();
        signer(&fake.path(""));
        let fixed = [
            "update",
            "create",
            "--role",
            "ota",
            "--bucket",
            "images",
            "--certfile",
            "signer",
            "--region",
            "eu-west-1",
            "--account",
            "123456789012",
        ];
        // The calls as they are made, and the documents as they are written.
        done(&fake.otad(&[&fixed[..], &["--aws"], update].concat()));
        documents.extend(fake.documents());
        done(&fake.otad(&[&fixed[..], &["--aws-json", "documents"], update].concat()));
        let commands = fs::read_to_string(fake.path("documents/commands.txt")).unwrap();
        for command in commands.lines().filter(|line| line.starts_with("aws ")) {
            let words: Vec<&str> = command.split(' ').collect();
            let file = command.rsplit("file://").next().unwrap();
            let text = fs::read(fake.path("documents").join(file)).unwrap();
            let document = serde_json::from_slice(&text).unwrap();
            documents.push((words[3].to_owned(), words[4].to_owned(), document));
        }
    }
    let fake = FakeAws::new();
    for verb in [
        &["show", "AFR_OTA-x"][..],
        &["list"],
        &["list", "--thing", "pump-1"],
        &["list", "--group", "pumps"],
        &["cancel", "AFR_OTA-x"],
        &["cancel", "AFR_OTA-x", "--force", "--reason", "wrong image"],
        &["delete", "AFR_OTA-x"],
        &["delete", "x", "--force"],
    ] {
        done(&fake.otad(&[&["update"], verb, &["--aws"]].concat()));
    }
    documents.extend(fake.documents());
    let kinds: std::collections::BTreeSet<&str> = documents.iter().map(|d| &*d.1).collect();
    let all = [
        "cancel-job",
        "create-ota-update",
        "create-stream",
        "delete-job",
        "delete-ota-update",
        "describe-job",
        "describe-job-execution",
        "head-object",
        "list-job-executions-for-job",
        "list-job-executions-for-thing",
        "list-jobs",
        "put-object",
        "put-signing-profile",
        "start-signing-job",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    assert_eq!(complaints(&python, &documents), "");
}

#[test]
fn the_check_of_documents_finds_what_is_wrong() {
    let Some(python) = python() else { return };
    let rows = [
        (json!({ "streamId": "a" }), "roleArn"),
        (
            json!({ "streamId": "a b", "files": [{ "fileId": 1 }], "roleArn": "arn:aws:iam::1:role/x" }),
            "does not match",
        ),
        (
            json!({ "streamId": "a", "files": [{ "fileId": 256 }], "roleArn": "arn:aws:iam::1:role/x" }),
            "above 255",
        ),
        (
            json!({ "streamId": "a", "files": [{ "fileID": 1 }], "roleArn": "arn:aws:iam::1:role/x" }),
            "fileID",
        ),
    ];
    for (document, word) in rows {
        let documents = [("iot".to_owned(), "create-stream".to_owned(), document)];
        let said = complaints(&python, &documents);
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn written_documents_hold_region_account_role_and_bucket() {
    let fake = FakeAws::new();
    let arguments = [
        "update",
        "create",
        "--aws-json",
        "documents",
        "--role",
        "ota-role",
        "--bucket",
        "ota-bucket",
        "--certfile",
        "signer",
        "--region",
        "us-east-1",
        "--account",
        "123456789012",
        "--thing",
        "mythingname",
        "--signing-profile",
        "signingprofile",
        "--certificate-id",
        "cert-uuid",
        "--file-id",
        "1",
        "--file",
        "update.bin",
        "--job-id",
        "device-8673-0-0-0",
    ];
    done(&fake.otad(&arguments));
    assert!(fake.calls().is_empty(), "nobody is asked");
    let mut text = String::new();
    let mut names: Vec<_> = fs::read_dir(fake.path("documents"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let folder = fs::canonicalize(fake.path("")).unwrap();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        text.push_str(&format!(
            "== {name}\n{}",
            fs::read_to_string(&path).unwrap()
        ));
    }
    crate::golden(
        "aws-json.txt",
        &text.replace(folder.to_str().unwrap(), "FOLDER"),
    );
}
