//! Updates in the cloud in a box: everything is checked first and told in one go, several files and targets make one job,
//! and a signing profile serves later updates.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use host_cloud::operator::OperatorClient;
use host_cloud::service::{GroupName, JobView, ThingName};
use host_cloud::{Cloud, CloudConfig, CloudHandle};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{command, done, otad, out, refused};

/// A cloud with two things, and a folder with images and signers.
struct Operator {
    runtime: Runtime,
    cloud: CloudHandle,
    dir: TempDir,
}

impl Operator {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = CloudConfig::new(dir.path().join("cloud"));
        let cloud = runtime.block_on(Cloud::start(config)).unwrap();
        for thing in ["pump-1", "pump-2"] {
            let name = ThingName::new(thing).unwrap();
            runtime.block_on(cloud.thing_create(&name)).unwrap();
        }
        for (name, byte) in [("app.img", 1), ("mcu.img", 2)] {
            fs::write(dir.path().join(name), vec![byte; 5000]).unwrap();
        }
        let operator = Self {
            runtime,
            cloud,
            dir,
        };
        operator.signer("signer", |_| {});
        operator
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A key and a certificate of it.
    fn signer(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
    }

    fn otad(&self, arguments: &[&str]) -> Output {
        otad(self.dir.path(), arguments)
    }

    fn create(&self, arguments: &[&str]) -> Output {
        let fixed = ["update", "create", "--cloud", "cloud"];
        self.otad(&[&fixed[..], arguments].concat())
    }

    fn jobs(&self) -> Vec<JobView> {
        let operator = self.cloud.operator();
        let jobs = operator.list();
        jobs.iter()
            .map(|job| operator.show(&job.job_id).unwrap())
            .collect()
    }

    /// The job document's files of the latest job.
    fn files(&self) -> Value {
        self.jobs().last().unwrap().document["afr_ota"]["files"].clone()
    }
}

#[test]
fn several_files_and_things_make_one_job() {
    let operator = Operator::new();
    let said = done(&operator.create(&[
        "--thing",
        "pump-1",
        "--thing",
        "pump-2",
        "--file",
        "0=app.img",
        "--file",
        "7=mcu.img",
        "--file-type",
        "7=2",
        "--filepath",
        "7=/opt/mcu.img",
        "--certfile",
        "signer",
        "--job-id",
        "both",
        "--timeout",
        "60",
    ]));
    let jobs = operator.jobs();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].executions.len(), 2);
    assert_eq!(jobs[0].timeout_minutes, Some(60));
    let files = operator.files();
    assert_eq!(files[0]["fileid"], 0);
    assert_eq!(files[1]["fileid"], 7);
    assert_eq!(files[1]["fileType"], 2);
    assert_eq!(files[1]["filepath"], "/opt/mcu.img");
    assert_ne!(files[0]["sig-sha256-ecdsa"], files[1]["sig-sha256-ecdsa"]);
    for words in [
        "image     7=",
        "signing   2 image(s), waiting",
        "signed by ",
        "certificate ",
        "update    both",
        "address   ",
        "status    IN_PROGRESS",
        "job       AFR_OTA-both",
    ] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    let show = done(&operator.otad(&["update", "show", "AFR_OTA-both", "--cloud", "cloud"]));
    assert!(show.contains("thing     pump-2  QUEUED"), "{show}");
    assert!(show.contains("sum       2 QUEUED"), "{show}");
}

#[test]
fn everything_that_is_missing_is_named_in_one_go_and_nothing_is_created() {
    let operator = Operator::new();
    let empty = operator.otad(&["update", "create"]);
    refused(
        &empty,
        64,
        &[
            "3 things",
            "--thing or --group is missing",
            "--file is missing",
            "--cloud is missing",
        ],
    );
    let names = operator.create(&[
        "--thing",
        "pump-1",
        "--thing",
        "pump-9",
        "--group",
        "pumps",
        "--file",
        "0=nowhere.img",
        "--file",
        "sha256:00",
        "--key",
        "nowhere.key",
        "--certificate",
        "nowhere.pem",
    ]);
    refused(
        &names,
        64,
        &[
            "nothing was created",
            "--thing pump-9: no such thing; `otad thing create pump-9`",
            "--group pumps: no such group",
            "--file nowhere.img: No such file",
            "file id 0 stands twice",
            "nowhere.key",
            "--certificate nowhere.pem",
        ],
    );
    let unknown = ["--thing", "pump-9", "--file", "app.img"];
    refused(
        &operator.create(&unknown),
        1,
        &["--thing pump-9: no such thing"],
    );
    assert!(operator.jobs().is_empty());
}

#[test]
fn a_wrong_signing_certificate_is_refused_before_anything_is_created() {
    let operator = Operator::new();
    operator.signer("other", |_| {});
    operator.signer("ended", |p| {
        p.not_before = rcgen::date_time_ymd(2001, 1, 1);
        p.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    operator.signer("future", |p| {
        p.not_before = rcgen::date_time_ymd(2199, 1, 1)
    });
    operator.signer("server", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = CertificateParams::new(vec!["p384".to_owned()])
        .unwrap()
        .self_signed(&p384)
        .unwrap();
    fs::write(operator.path("p384.pem"), certificate.pem()).unwrap();
    fs::write(operator.path("p384.key"), p384.serialize_pem()).unwrap();
    let rows = [
        ("signer.key", "other.pem", 6, "does not belong to the key"),
        ("ended.key", "ended.pem", 6, "it ended at"),
        ("future.key", "future.pem", 6, "mend the clock"),
        ("server.key", "server.pem", 64, "codeSigning"),
        ("signer.key", "p384.pem", 64, "another curve than P-256"),
        ("p384.key", "signer.pem", 64, "no P-256 private key"),
        ("signer.key", "app.img", 64, "--certificate app.img"),
    ];
    for (key, certificate, code, words) in rows {
        let arguments = [
            "--thing",
            "pump-1",
            "--file",
            "app.img",
            "--key",
            key,
            "--certificate",
            certificate,
        ];
        refused(&operator.create(&arguments), code, &[words]);
    }
    // A signature from elsewhere is held against its certificate too.
    fs::write(operator.path("app.sig"), [0x30, 0x06, 2, 1, 1, 2, 1, 1]).unwrap();
    let elsewhere = [
        "--thing",
        "pump-1",
        "--file",
        "app.img",
        "--signature",
        "app.sig",
        "--certificate",
        "signer.pem",
    ];
    refused(
        &operator.create(&elsewhere),
        6,
        &["the signature of", "app.img"],
    );
    assert!(operator.jobs().is_empty());
    let right = [
        "--thing",
        "pump-1",
        "--file",
        "app.img",
        "--key",
        "signer.key",
        "--certificate",
        "signer.pem",
    ];
    let said = done(&operator.create(&right));
    assert!(said.contains("signer.pem"), "{said}");
}

#[test]
fn a_signing_profile_is_made_once_and_serves_later_updates() {
    let operator = Operator::new();
    let with = |more: &[&str]| {
        let fixed = [
            "--thing",
            "pump-1",
            "--file",
            "app.img",
            "--signing-profile",
            "pumps",
        ];
        operator.create(&[&fixed[..], more].concat())
    };
    refused(
        &with(&[]),
        64,
        &[
            "--key is missing",
            "--certificate is missing",
            "not there yet",
        ],
    );
    let options = [
        "--key",
        "signer.key",
        "--certificate",
        "signer.pem",
        "--certfile",
        "signer",
    ];
    let said = done(&with(&options));
    assert!(said.contains("profile   pumps made"), "{said}");
    let first = operator.files();
    let said = done(&with(&[]));
    assert!(said.contains("profile   pumps found"), "{said}");
    assert_eq!(operator.files(), first);
    assert_eq!(first[0]["certfile"], "signer");
    // The same options again are no contradiction, others are.
    done(&with(&options));
    operator.signer("other", |_| {});
    refused(
        &with(&["--key", "other.key"]),
        64,
        &["--key other.key", "has", "another profile"],
    );
    let bad = [
        "--thing",
        "pump-1",
        "--file",
        "app.img",
        "--signing-profile",
        "../x",
    ];
    refused(&operator.create(&bad), 64, &["--signing-profile \"../x\""]);
    assert_eq!(operator.jobs().len(), 3);
}

#[test]
fn a_file_and_a_stored_image_give_the_same_job() {
    let operator = Operator::new();
    done(&operator.create(&["--thing", "pump-1", "--file", "app.img"]));
    let first = operator.files();
    let mut hasher = host_crypto::Hasher::default();
    hasher.update(&[1; 5000]);
    let digest = host_crypto::hex(hasher.finish().sha256());
    assert!(
        operator.path("cloud/images").join(&digest).is_file(),
        "the store of the operator's choice"
    );
    fs::remove_file(operator.path("app.img")).unwrap();
    let stored = format!("sha256:{digest}");
    done(&operator.create(&["--thing", "pump-1", "--file", &stored]));
    assert_eq!(operator.files(), first);
    let unknown = format!("sha256:{}", "0".repeat(64));
    let unknown = operator.create(&["--thing", "pump-1", "--file", &unknown]);
    refused(&unknown, 1, &["no such image"]);
}

#[test]
fn what_a_new_thing_would_replace_is_refused_by_name() {
    let operator = Operator::new();
    let trust = operator.path("pump-3/trust");
    fs::create_dir_all(&trust).unwrap();
    fs::write(trust.join("signer.pem"), "mine").unwrap();
    let create = [
        "thing", "create", "pump-3", "--cloud", "cloud", "--out", "pump-3",
    ];
    refused(&operator.otad(&create), 5, &["trust/signer.pem", "--force"]);
    assert_eq!(fs::read(trust.join("signer.pem")).unwrap(), b"mine");
    assert_eq!(operator.cloud.operator().thing_list().len(), 2);
    let said = done(&operator.otad(&[&create[..], &["--force"]].concat()));
    assert!(said.contains("replaced pump-3/trust/signer.pem"), "{said}");
}

#[test]
fn a_group_has_an_execution_for_each_member_and_nobody_else() {
    let operator = Operator::new();
    let socket = operator.path("cloud/operator.sock");
    operator.runtime.block_on(async {
        let mut client = OperatorClient::connect(&socket).await.unwrap();
        let group = GroupName::new("pumps").unwrap();
        let created = client.group_create(group.clone(), String::new()).await;
        created.unwrap();
        let members = vec![ThingName::new("pump-2").unwrap()];
        client.group_add(group, members).await.unwrap();
    });
    let said = done(&operator.create(&[
        "--group",
        "pumps",
        "--file",
        "app.img",
        "--rate",
        "50",
        "--canary",
        "1",
        "--abort-if-failed",
        "10%",
        "--json",
    ]));
    let facts: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(facts["status"], "IN_PROGRESS");
    assert!(
        facts["address"]
            .as_str()
            .unwrap()
            .ends_with(facts["job_id"].as_str().unwrap())
    );
    let jobs = operator.jobs();
    assert_eq!(jobs[0].executions.len(), 1);
    assert_eq!(jobs[0].executions[0].thing.as_str(), "pump-2");
    assert_eq!(jobs[0].plan.rollout.per_minute, Some(50));
    assert_eq!(jobs[0].plan.abort.len(), 1);
}

#[test]
fn an_update_is_listed_cancelled_and_deleted() {
    let operator = Operator::new();
    done(&operator.create(&["--thing", "pump-1", "--file", "app.img", "--job-id", "x"]));
    let of = |verb: &str, more: &[&str]| {
        let fixed = ["update", verb, "--cloud", "cloud"];
        operator.otad(&[&fixed[..], more].concat())
    };
    let listed = |thing: &str| of("list", &["--thing", thing]);
    assert!(done(&listed("pump-1")).contains("AFR_OTA-x  QUEUED 1"));
    assert_eq!(listed("pump-2").status.code(), Some(2));
    refused(&of("delete", &["AFR_OTA-x"]), 1, &["AFR_OTA-x", "--force"]);
    let cancelled = of("cancel", &["AFR_OTA-x", "--reason", "wrong image"]);
    let said = done(&cancelled);
    assert!(
        said.contains("CANCELED") && said.contains("wrong image"),
        "{said}"
    );
    let said = done(&of("delete", &["AFR_OTA-x"]));
    assert!(said.contains("deleted   AFR_OTA-x"), "{said}");
    refused(
        &of("show", &["AFR_OTA-x"]),
        2,
        &["no job is called AFR_OTA-x"],
    );
    assert!(out(&of("list", &[])).is_empty());
    assert!(Path::new(&operator.path("cloud")).is_dir());
}

#[test]
fn a_cloud_that_goes_away_is_no_end_of_the_update_that_is_waited_for() {
    let Operator {
        runtime,
        cloud,
        dir,
    } = Operator::new();
    let mut waiting = command(
        dir.path(),
        &[
            "update", "create", "--cloud", "cloud", "--thing", "pump-1", "--file", "app.img",
            "--job-id", "x", "--wait",
        ],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut said = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let told = said.any(|line| line.unwrap().contains("AFR_OTA-x"));
    assert!(told, "it never named its job");
    runtime.block_on(cloud.shutdown());
    let end = waiting.wait_with_output().unwrap();
    refused(&end, 3, &["the cloud", "otad update show AFR_OTA-x"]);
}
