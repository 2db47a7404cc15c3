//! The look at everything that an update needs before any of it is made: account, things, role, bucket, images, signing
//! profile and certificate. Whatever is missing is named at once, all of it.

use super::documents;
use super::names::{Place, is_arn};
use super::program::{CallError, Program, text_of};
use super::{Image, Signing, Update};

/// What was found before anything is made.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where everything lies.
    pub place: Place,
    /// Whose credentials these are.
    pub caller: String,
    /// ARN of the role of the OTA service.
    pub role: String,
    /// Certificate of the signing profile.
    pub certificate: Option<String>,
    /// Whether the signing profile is there.
    pub profile_is_there: bool,
    /// Versions of images that are in a bucket already, in the order of the files.
    pub(super) versions: Vec<Option<String>>,
}

/// Look at account, names, role, bucket, profile and certificate; names everything that is missing.
///
/// # Errors
/// What is missing or wrong, one text each.
pub fn look(
    update: &Update,
    aws: &mut Program,
    account: Option<&str>,
) -> Result<Found, Vec<String>> {
    let one = |e: CallError| vec![e.to_string()];
    let version = aws.version().map_err(one)?;
    let custom = matches!(update.signing, Signing::Custom { .. });
    let mut problems = Vec::new();
    if custom && !version.contains("aws-cli/2") {
        problems.push(format!(
            "a signature of your own needs version 2 of the `aws` program, this is {}; update it, or sign with --signing-profile",
            version.split_whitespace().next().unwrap_or("unknown")
        ));
    }
    if aws.region.is_none() {
        aws.region = aws.own_region().map_err(one)?;
    }
    let Some(region) = aws.region.clone() else {
        problems.push(
            "--region is missing, and neither AWS_REGION, AWS_DEFAULT_REGION nor the configuration of the `aws` program has one"
                .to_owned(),
        );
        return Err(problems);
    };
    let identity = match aws.call("sts", "get-caller-identity", &[]) {
        Ok(identity) => identity,
        Err(e) => {
            problems.push(format!("{e}; check --profile and its credentials"));
            return Err(problems);
        }
    };
    let text = |pointer| text_of("sts get-caller-identity", &identity, pointer).map_err(one);
    let (own, caller) = (text("/Account")?, text("/Arn")?);
    if account.is_some_and(|given| given != own) {
        problems.push(format!(
            "--account {}: these credentials are of account {own}; choose others with --profile",
            account.unwrap_or_default()
        ));
    }
    let mut place = Place::of(&region, &own);
    if let Some(partition) = caller.split(':').nth(1) {
        place.partition = partition.to_owned();
    }
    look_at_targets(update, aws, &mut problems);
    let role = look_at_role(update, aws, &mut problems);
    look_at_bucket(update, aws, &mut problems);
    let versions = look_at_images(update, aws, &mut problems);
    let (profile_is_there, certificate) = look_at_profile(update, aws, &place, &mut problems);
    match role {
        Some(role) if problems.is_empty() => Ok(Found {
            place,
            caller,
            role,
            certificate,
            profile_is_there,
            versions,
        }),
        _ => Err(problems),
    }
}

fn look_at_targets(update: &Update, aws: &Program, problems: &mut Vec<String>) {
    for thing in &update.things {
        let name = ["--thing-name", thing.as_str()];
        if let Err(e) = aws.call("iot", "describe-thing", &name) {
            problems.push(missing(&format!("--thing {thing}"), "thing", &e));
        }
    }
    for group in &update.plan.groups {
        let name = ["--thing-group-name", group.as_str()];
        if let Err(e) = aws.call("iot", "describe-thing-group", &name) {
            problems.push(missing(&format!("--group {group}"), "thing group", &e));
        }
    }
}

fn missing(option: &str, what: &str, error: &CallError) -> String {
    match error.code() {
        Some("ResourceNotFoundException" | "NoSuchEntity" | "NoSuchBucket" | "404") => {
            format!("{option}: no such {what} in this account and region")
        }
        _ => format!("{option}: {error}"),
    }
}

/// The role's ARN; without one there is a problem. It is asked for because it holds the role's path, such as
/// `role/service-role/ota`, by which no role is looked up.
fn look_at_role(update: &Update, aws: &Program, problems: &mut Vec<String>) -> Option<String> {
    if is_arn(&update.role) {
        return Some(update.role.clone());
    }
    let answer = aws.call("iam", "get-role", &["--role-name", &update.role]);
    match answer.and_then(|answer| text_of("iam get-role", &answer, "/Role/Arn")) {
        Ok(arn) => Some(arn),
        Err(e) => {
            // Operators often may pass a role that they may not look at; its ARN says enough then.
            let advice = match e.code() {
                Some("AccessDenied") => "; give the role's ARN, which is not looked up",
                _ => "",
            };
            let text = missing(&format!("--role {}", update.role), "role", &e);
            problems.push(format!("{text}{advice}"));
            None
        }
    }
}

fn look_at_bucket(update: &Update, aws: &Program, problems: &mut Vec<String>) {
    let bucket = ["--bucket", &update.bucket];
    match aws.call("s3api", "get-bucket-versioning", &bucket) {
        Ok(answer) if answer["Status"] == "Enabled" => {}
        Ok(_) => problems.push(format!(
            "--bucket {0}: versioning is off, and signing needs it: aws s3api put-bucket-versioning --bucket {0} --versioning-configuration Status=Enabled",
            update.bucket
        )),
        Err(e) => problems.push(missing(&format!("--bucket {}", update.bucket), "bucket", &e)),
    }
}

fn look_at_images(
    update: &Update,
    aws: &Program,
    problems: &mut Vec<String>,
) -> Vec<Option<String>> {
    update
        .files
        .iter()
        .map(|file| {
            let Image::Stored { bucket, key } = &file.image else {
                return None;
            };
            version_of(aws, bucket, key)
                .map_err(|e| {
                    let option = format!("--file s3://{bucket}/{key}");
                    problems.push(missing(&option, "object", &e));
                })
                .ok()
        })
        .collect()
}

pub(super) fn version_of(aws: &Program, bucket: &str, key: &str) -> Result<String, CallError> {
    let head = aws.call_with("s3api", "head-object", &documents::head_object(bucket, key))?;
    text_of("s3api head-object", &head, "/VersionId")
}

/// Whether the profile is there, and the ARN of its certificate, which is looked at before it signs anything.
fn look_at_profile(
    update: &Update,
    aws: &Program,
    place: &Place,
    problems: &mut Vec<String>,
) -> (bool, Option<String>) {
    let Signing::Profile {
        name, certificate, ..
    } = &update.signing
    else {
        return (false, None);
    };
    let given = certificate.as_ref().map(|id| place.certificate(id));
    let option = format!("--signing-profile {name}");
    let (is_there, arn) = match aws.call("signer", "get-signing-profile", &["--profile-name", name])
    {
        Ok(profile) => {
            let status = profile["status"].as_str().unwrap_or("Active");
            if status != "Active" {
                problems.push(format!("{option} is {status}; name another one"));
            }
            let has = profile["signingMaterial"]["certificateArn"].as_str();
            if let (Some(given), Some(has)) = (&given, has)
                && given != has
            {
                problems.push(format!(
                    "--certificate-id {given}: {option} signs with {has}; leave the option out or name another profile"
                ));
            }
            (true, has.map(str::to_owned))
        }
        Err(e) if e.code() == Some("ResourceNotFoundException") => {
            if given.is_none() {
                problems.push(format!(
                    "{option} is not there yet; --certificate-id is missing to make it"
                ));
            }
            if update.certfile.is_empty() {
                problems.push(format!(
                    "{option} is not there yet; --certfile is missing to make it: the name of the signer's certificate on the device"
                ));
            }
            (false, given)
        }
        Err(e) => {
            problems.push(format!("{option}: {e}"));
            (false, None)
        }
    };
    if let Some(arn) = &arn {
        look_at_certificate(aws, arn, problems);
    }
    (is_there, arn)
}

/// Keys that devices can check: P-256, and RSA of at most 4096 bits.
const KEYS: [&str; 4] = ["EC_prime256v1", "RSA_2048", "RSA_3072", "RSA_4096"];

fn look_at_certificate(aws: &Program, arn: &str, problems: &mut Vec<String>) {
    let option = format!("signing certificate {arn}");
    let answer = match aws.call("acm", "describe-certificate", &["--certificate-arn", arn]) {
        Ok(answer) => answer,
        Err(e) => return problems.push(missing(&option, "certificate", &e)),
    };
    let certificate = &answer["Certificate"];
    if let Some(status) = certificate["Status"].as_str()
        && status != "ISSUED"
    {
        problems.push(format!("{option} is {status}; import one that is valid"));
    }
    // Certificate Manager writes RSA-2048 in some answers and RSA_2048 in others.
    let key = certificate["KeyAlgorithm"]
        .as_str()
        .map(|k| k.replace('-', "_"));
    if let Some(key) = key
        && !KEYS.contains(&key.as_str())
    {
        problems.push(format!(
            "{option} has a key of kind {key}; devices know P-256 and RSA of 2048 to 4096 bits"
        ));
    }
    let usages = certificate["ExtendedKeyUsages"].as_array();
    let usages: Vec<&str> = usages
        .into_iter()
        .flatten()
        .filter_map(|usage| usage["Name"].as_str())
        .collect();
    if !usages.is_empty() && !usages.iter().any(|u| matches!(*u, "CODE_SIGNING" | "ANY")) {
        problems.push(format!(
            "{option} is for {}, not for code signing",
            usages.join(", ")
        ));
    }
}
