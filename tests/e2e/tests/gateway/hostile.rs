//! Job documents as large as a message may be, made to cost: the component's fuel and memory suffice or the job ends with
//! a reason, and the daemon takes the next update.

use e2e::{Cloud, Gateway, Update, image};
use host_cloud::Limits;
use serde_json::{Map, Value, json};

const THING: &str = "target";

/// The largest message of AWS IoT, which carries the document and some 200 bytes of envelope.
const MESSAGE_MAX: usize = 128 * 1024;

/// What the document may take of it.
const DOCUMENT_MAX: usize = MESSAGE_MAX - 1024;

/// As many of a piece as fit.
fn fill(piece: &str) -> usize {
    DOCUMENT_MAX / piece.len()
}

/// An update's document with this in the place of its files.
fn update(files: Value) -> Value {
    json!({ "afr_ota": { "protocols": ["MQTT"], "streamname": "s", "files": files } })
}

/// A description of a file that all but the last check lets through.
fn file() -> Map<String, Value> {
    let file = json!({
        "filepath": "app", "filesize": 100, "fileid": 0, "certfile": "signer", "sig-sha256-ecdsa": "MEUCIQ==",
    });
    file.as_object().cloned().unwrap_or_default()
}

/// Name and document; each close to the limit.
fn documents() -> Vec<(&'static str, Value)> {
    let nested = (0..100).fold(json!(0), |inner, _| json!([inner]));
    let mut many_members = file();
    many_members.extend((0..fill("\"m123456\":0,") - 100).map(|n| (format!("m{n:06}"), json!(0))));
    let mut long_name = file();
    long_name.insert("x".repeat(DOCUMENT_MAX - 400), json!(1));
    let mut long_signature = file();
    let signature = "QUJD".repeat(fill("QUJD") - 100);
    long_signature.insert("sig-sha256-ecdsa".to_owned(), json!(signature));
    let escapes = "\u{1}".repeat(fill("\\u0001") - 100);
    let tabs = "\t".repeat(fill("\\t") - 100);
    vec![
        (
            "one long stream name",
            json!({ "afr_ota": { "protocols": ["MQTT"],
            "streamname": "s".repeat(DOCUMENT_MAX - 400), "files": [file()] } }),
        ),
        ("a string of escapes", json!({ "afr_ota": escapes })),
        ("a string of short escapes", json!({ "afr_ota": tabs })),
        (
            "files without anything",
            update(vec![json!({}); fill("{},") - 100].into()),
        ),
        (
            "lists in lists",
            update(vec![nested; DOCUMENT_MAX / 210].into()),
        ),
        ("numbers", update(vec![json!(9); fill("9,") - 100].into())),
        ("members that nobody knows", update(json!([many_members]))),
        ("a long name", update(json!([long_name]))),
        ("a long signature", update(json!([long_signature]))),
        (
            "protocols without end",
            json!({ "afr_ota": {
            "protocols": vec!["X"; fill("\"X\",") - 100], "streamname": "s", "files": [file()] } }),
        ),
        (
            "another job",
            json!({ "steps": vec![json!({ "a": [1] }); fill("{\"a\":[1]},") - 100] }),
        ),
    ]
}

#[test]
fn a_document_of_128_kib_that_is_made_to_cost_ends_its_own_job_and_nothing_else() {
    let cloud = Cloud::start_with(|config| config.limits = Limits::None);
    let gateway = Gateway::new(&cloud, THING);
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut daemon = gateway.run();
    for (number, (name, document)) in documents().into_iter().enumerate() {
        let size = document.to_string().len();
        assert!(
            (DOCUMENT_MAX * 9 / 10..=DOCUMENT_MAX).contains(&size),
            "{name}: {size} bytes"
        );
        let job = cloud.job(THING, &format!("hostile-{number}"), document);
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.status, "FAILED", "{name}: {ended:?}");
        assert!(ended.reason.contains("0x"), "{name}: {ended:?}");
    }
    let log = daemon.log();
    for words in ["units of fuel", "the agent broke", "trapped"] {
        assert!(!log.contains(words), "{words}: {log}");
    }
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", 6000)));
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
    daemon.wait_line("has ended");
}
