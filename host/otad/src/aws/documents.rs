//! The input of each call as the service reads it: the very values that `--cli-input-json` takes.

use host_cloud::service::{FailureKind, Plan, Protocol, Selection, Threshold};
use serde_json::{Value, json};

use super::names::Place;
use super::{File, Signing, Update};

/// `signer put-signing-profile`.
#[must_use]
pub fn put_signing_profile(
    name: &str,
    certificate_arn: &str,
    platform: &str,
    certfile: &str,
) -> Value {
    json!({
        "profileName": name,
        "signingMaterial": { "certificateArn": certificate_arn },
        "platformId": platform,
        "signingParameters": { "certname": certfile },
    })
}

/// `s3api put-object`, without the body.
#[must_use]
pub fn put_object(update: &Update, file: &File) -> Value {
    let (bucket, key) = file.place(update);
    json!({ "Bucket": bucket, "Key": key })
}

/// `s3api head-object`.
#[must_use]
pub fn head_object(bucket: &str, key: &str) -> Value {
    json!({ "Bucket": bucket, "Key": key })
}

/// `signer start-signing-job`. The token makes a repeated call the same job.
#[must_use]
pub fn start_signing_job(update: &Update, file: &File, profile: &str, version: &str) -> Value {
    let (bucket, key) = file.place(update);
    json!({
        "source": { "s3": { "bucketName": bucket, "key": key, "version": version } },
        "destination": { "s3": { "bucketName": update.bucket } },
        "profileName": profile,
        "clientRequestToken": format!("{}-{}", update.id, file.file_id),
    })
}

/// An object that a stream or an update reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: String,
}

/// `iot create-stream`: the ARN of the role, and `objects` in the order of the files.
#[must_use]
pub fn create_stream(update: &Update, role: &str, objects: &[Object]) -> Value {
    let files: Vec<Value> = update
        .files
        .iter()
        .zip(objects)
        .map(|(file, object)| {
            json!({
                "fileId": file.file_id,
                "s3Location": {
                    "bucket": object.bucket,
                    "key": object.key,
                    "version": object.version,
                },
            })
        })
        .collect();
    json!({
        "streamId": update.id,
        "files": files,
        "roleArn": role,
    })
}

/// `iot create-ota-update`: the ARN of the role, and `signing_jobs` in the order of the files, where AWS signs.
#[must_use]
pub fn create_ota_update(
    update: &Update,
    place: &Place,
    role: &str,
    signing_jobs: &[String],
) -> Value {
    let mut targets: Vec<String> = update
        .things
        .iter()
        .map(|t| place.thing(t.as_str()))
        .collect();
    targets.extend(update.plan.groups.iter().map(|g| place.group(g.as_str())));
    let protocols: Vec<&str> = update
        .protocols
        .iter()
        .map(|protocol| match protocol {
            Protocol::Mqtt => "MQTT",
            Protocol::Http => "HTTP",
        })
        .collect();
    let files: Vec<Value> = update
        .files
        .iter()
        .enumerate()
        .map(|(index, file)| ota_file(update, file, signing_jobs.get(index)))
        .collect();
    let mut document = json!({
        "otaUpdateId": update.id,
        "targets": targets,
        "protocols": protocols,
        "targetSelection": match update.plan.selection {
            Selection::Snapshot => "SNAPSHOT",
            Selection::Continuous => "CONTINUOUS",
        },
        "files": files,
        "roleArn": role,
    });
    if let Some(rollout) = rollout(&update.plan) {
        document["awsJobExecutionsRolloutConfig"] = rollout;
    }
    if let Some(abort) = abort(&update.plan) {
        document["awsJobAbortConfig"] = abort;
    }
    if let Some(minutes) = update.timeout_minutes {
        document["awsJobTimeoutConfig"] = json!({ "inProgressTimeoutInMinutes": minutes });
    }
    document
}

fn ota_file(update: &Update, file: &File, signing_job: Option<&String>) -> Value {
    let mut value = json!({
        "fileName": file.name,
        "fileVersion": "1",
        "fileLocation": { "stream": { "streamId": update.id, "fileId": file.file_id } },
        "codeSigning": code_signing(update, file, signing_job),
    });
    if let Some(file_type) = file.file_type {
        value["fileType"] = json!(file_type);
    }
    value
}

fn code_signing(update: &Update, file: &File, signing_job: Option<&String>) -> Value {
    let Some(custom) = &file.signature else {
        return json!({ "awsSignerJobId": signing_job });
    };
    let mut chain = json!({ "certificateName": update.certfile });
    if let Signing::Custom {
        certificate_pem: Some(pem),
    } = &update.signing
    {
        chain["inlineDocument"] = json!(pem);
    }
    json!({
        "customCodeSigning": {
            "signature": { "inlineDocument": custom.base64 },
            "certificateChain": chain,
            "hashAlgorithm": "SHA256",
            "signatureAlgorithm": custom.algorithm,
        },
    })
}

/// AWS takes growth factors of 1.1 to 5.
const GROWTH_TENTHS: (u32, u32) = (11, 50);
/// The rate that a canary grows to where none is named: the highest of AWS.
const RATE_MAX: u32 = 1000;

/// AWS has no canary, but a rate that grows only after so many things succeeded.
fn rollout(plan: &Plan) -> Option<Value> {
    match (plan.rollout.per_minute, plan.rollout.canary) {
        (None, None) => None,
        (Some(rate), None) => Some(json!({ "maximumPerMinute": rate })),
        (rate, Some(canary)) => {
            let rate = rate.unwrap_or(RATE_MAX);
            let base = canary.min(rate);
            let tenths = (rate * 10 / base).clamp(GROWTH_TENTHS.0, GROWTH_TENTHS.1);
            Some(json!({
                "maximumPerMinute": rate,
                "exponentialRate": {
                    "baseRatePerMinute": base,
                    "incrementFactor": f64::from(tenths) / 10.0,
                    "rateIncreaseCriteria": { "numberOfSucceededThings": canary },
                },
            }))
        }
    }
}

fn abort(plan: &Plan) -> Option<Value> {
    let rules: Vec<Value> = plan
        .abort
        .iter()
        .filter_map(|rule| {
            // A count was refused where the options were read.
            let Threshold::Percent(percent) = rule.threshold else {
                return None;
            };
            Some(json!({
                "failureType": match rule.failures {
                    FailureKind::Failed => "FAILED",
                    FailureKind::Rejected => "REJECTED",
                    FailureKind::TimedOut => "TIMED_OUT",
                    FailureKind::All => "ALL",
                },
                "action": "CANCEL",
                "thresholdPercentage": percent,
                "minNumberOfExecutedThings": rule.minimum.or(plan.rollout.canary).unwrap_or(1),
            }))
        })
        .collect();
    (!rules.is_empty()).then(|| json!({ "abortCriteriaList": rules }))
}
