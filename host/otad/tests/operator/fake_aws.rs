//! A program called `aws` that writes down how it was called and answers what it was told to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Answers `answers/SERVICE-OPERATION.N` to the Nth call of that name, else `answers/SERVICE-OPERATION`; where there is
/// `refusals/SERVICE-OPERATION`, prints that and fails, as often as it is asked.
const SCRIPT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
{ for argument in "$@"; do printf '%s\n' "$argument"; done; printf '\n'; } >> "$dir/log"
case "$1" in
--version) cat "$dir/version"; exit 0 ;;
configure) cat "$dir/region" 2> /dev/null; exit ;;
esac
while :; do
  case "$1" in
  --profile | --region | --output) shift 2 ;;
  *) break ;;
  esac
done
call="$1-$2"
if [ -f "$dir/refusals/$call" ]; then
  cat "$dir/refusals/$call" >&2
  exit 254
fi
count=$(($(cat "$dir/count-$call" 2> /dev/null || echo 0) + 1))
echo $count > "$dir/count-$call"
if [ -f "$dir/answers/$call.$count" ]; then
  cat "$dir/answers/$call.$count"
else
  cat "$dir/answers/$call"
fi
"#;

pub(crate) const SIGNER: &str = "arn:aws:acm:eu-west-1:123456789012:certificate/0b7d2c52";

/// A folder with the program, an image, and answers of an account where all is well but the signing profile is not there.
pub(crate) struct FakeAws {
    dir: TempDir,
}

impl FakeAws {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["answers", "refusals"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let program = dir.path().join("aws");
        fs::write(&program, SCRIPT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let fake = Self { dir };
        fake.write("version", "aws-cli/2.17.0 Python/3.11.8 Linux/6.1\n");
        // The seed's file.
        fs::write(fake.path("update.bin"), vec![0x5a; 10_446]).unwrap();
        fake.account();
        fake
    }

    fn account(&self) {
        let object = |key: &str| json!({ "bucketName": "images", "key": key });
        let answers = [
            (
                "sts-get-caller-identity",
                json!({ "Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/operator" }),
            ),
            ("iot-describe-thing", json!({ "thingName": "pump-1" })),
            (
                "iot-describe-thing-group",
                json!({ "thingGroupName": "pumps" }),
            ),
            (
                "iam-get-role",
                json!({ "Role": { "RoleName": "ota", "Arn": "arn:aws:iam::123456789012:role/ota" } }),
            ),
            (
                "s3api-get-bucket-versioning",
                json!({ "Status": "Enabled" }),
            ),
            (
                "acm-describe-certificate",
                certificate("ISSUED", "EC_prime256v1", "CODE_SIGNING"),
            ),
            ("s3api-put-object", json!({ "VersionId": "v-image" })),
            ("s3api-head-object", json!({ "VersionId": "v-signed" })),
            (
                "signer-put-signing-profile",
                json!({ "arn": "arn:profile" }),
            ),
            ("signer-start-signing-job", json!({ "jobId": "sign-1" })),
            (
                "signer-describe-signing-job",
                json!({ "status": "Succeeded", "signedObject": { "s3": object("sign-1") } }),
            ),
            ("iot-create-stream", json!({ "streamId": "device-8673" })),
            (
                "iot-create-ota-update",
                json!({
                    "otaUpdateId": "device-8673",
                    "otaUpdateArn": "arn:aws:iot:eu-west-1:123456789012:otaupdate/device-8673",
                    "otaUpdateStatus": "CREATE_PENDING",
                }),
            ),
            (
                "iot-get-ota-update",
                json!({ "otaUpdateInfo": {
                    "otaUpdateStatus": "CREATE_COMPLETE",
                    "awsIotJobId": "AFR_OTA-device-8673",
                }}),
            ),
        ];
        self.jobs();
        for (call, answer) in answers {
            self.answer(call, &answer);
        }
        self.refuse("signer-get-signing-profile", "ResourceNotFoundException");
    }

    /// A continuous update of a group with two members, and an old job.
    fn jobs(&self) {
        let of = |name: &str| format!("arn:aws:iot:eu-west-1:123456789012:{name}");
        let job = json!({
            "jobId": "AFR_OTA-device-8673", "status": "IN_PROGRESS", "targetSelection": "CONTINUOUS",
            "targets": [of("thinggroup/pumps")],
        });
        let old = json!({ "jobId": "old", "status": "COMPLETED", "targetSelection": "SNAPSHOT" });
        let execution = |thing: &str, status: &str| json!({ "thingArn": of(&format!("thing/{thing}")), "jobExecutionSummary": { "status": status } });
        let on_thing = json!({ "jobId": "AFR_OTA-device-8673", "jobExecutionSummary": { "status": "FAILED" } });
        let details = json!({ "detailsMap": { "reason": "0x000000e3: 0x00000000" } });
        for (call, answer) in [
            ("iot-describe-job", json!({ "job": job })),
            ("iot-list-jobs", json!({ "jobs": [job, old] })),
            (
                "iot-list-job-executions-for-job",
                json!({ "executionSummaries": [execution("pump-1", "FAILED"), execution("pump-2", "QUEUED")] }),
            ),
            (
                "iot-list-job-executions-for-thing",
                json!({ "executionSummaries": [on_thing] }),
            ),
            (
                "iot-describe-job-execution",
                json!({ "execution": { "statusDetails": details } }),
            ),
            ("iot-cancel-job", json!({ "jobId": "AFR_OTA-device-8673" })),
        ] {
            self.answer(call, &answer);
        }
        // These answer nothing at all.
        for call in [
            "iot-delete-ota-update",
            "iot-delete-stream",
            "iot-delete-job",
        ] {
            self.write(&format!("answers/{call}"), "");
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn answer(&self, call: &str, answer: &Value) {
        let _ = fs::remove_file(self.path("refusals").join(call));
        self.write(&format!("answers/{call}"), &answer.to_string());
    }

    /// The call is refused with this code, as AWS does it.
    pub(crate) fn refuse(&self, call: &str, code: &str) {
        let text =
            format!("\nAn error occurred ({code}) when calling the operation: no such luck\n");
        self.write(&format!("refusals/{call}"), &text);
    }

    /// The call fails before AWS says anything about it.
    pub(crate) fn cut(&self, call: &str) {
        let text = "Could not connect to the endpoint URL";
        self.write(&format!("refusals/{call}"), text);
    }

    /// `otad ARGUMENTS` with this program first on the path.
    pub(crate) fn otad(&self, arguments: &[&str]) -> Output {
        self.otad_in(&[], arguments)
    }

    /// The same with these variables in its environment.
    pub(crate) fn otad_in(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.dir.path().display());
        let mut command = super::command(self.dir.path(), arguments);
        command.envs(variables.iter().copied());
        command.env("PATH", path).output().unwrap()
    }

    /// `otad update create --aws …` as in the seed, and more.
    pub(crate) fn create(&self, more: &[&str]) -> Output {
        let seed = [
            "update",
            "create",
            "--aws",
            "--profile",
            "ops",
            "--region",
            "eu-west-1",
            "--thing",
            "pump-1",
            "--role",
            "ota",
            "--bucket",
            "images",
            "--signing-profile",
            "pumps",
            "--certificate-id",
            "0b7d2c52",
            "--certfile",
            "signer",
            "--file-id",
            "1",
            "--file",
            "update.bin",
            "--job-id",
            "device-8673",
        ];
        self.otad(&[&seed[..], more].concat())
    }

    /// Every call so far, a line of arguments each.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.split("\n\n")
            .filter(|call| !call.is_empty())
            .map(|call| call.lines().map(str::to_owned).collect())
            .collect()
    }

    /// Service, operation and document of every call that carried one.
    pub(crate) fn documents(&self) -> Vec<(String, String, Value)> {
        let calls = self.calls();
        let with_document = calls.iter().filter_map(|call| {
            let at = call.iter().position(|a| a == "--cli-input-json")?;
            let output = call.iter().position(|a| a == "--output")?;
            let document = serde_json::from_str(&call[at + 1]).unwrap();
            Some((call[output + 2].clone(), call[output + 3].clone(), document))
        });
        with_document.collect()
    }
}

pub(crate) fn certificate(status: &str, key: &str, usage: &str) -> Value {
    json!({ "Certificate": {
        "CertificateArn": SIGNER,
        "Status": status,
        "KeyAlgorithm": key,
        "ExtendedKeyUsages": [{ "Name": usage }],
    }})
}
