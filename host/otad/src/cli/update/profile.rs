//! Signing profiles of the cloud in a box: `<cloud>/signing-profiles/<NAME>.json` holds what a profile at AWS holds (name,
//! platform, certificate with its key, name of the certificate on the device), so that later updates need only its name.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::args::CreateArgs;
use crate::cli::problems::Problems;
use crate::exit::{Exit, Failed};

/// One profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) platform: String,
    pub(super) key: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) certfile: String,
}

/// Where a profile came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there.
    Found,
    /// It is to be written once everything else is well.
    New,
}

/// AWS: 2 to 64 of `[a-zA-Z0-9_]`.
pub(crate) fn is_profile_name(name: &str) -> bool {
    (2..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What is wrong with a name that is none.
pub(super) fn name_problem(name: &str) -> String {
    format!("--signing-profile {name:?}: a profile name has 2 to 64 letters, digits or `_`")
}

/// Find the profile that the options name, or make it of them.
pub(super) fn read(
    cloud: &Path,
    args: &CreateArgs,
    problems: &mut Problems,
) -> Option<(Profile, Origin)> {
    let name = args.signing_profile.as_deref()?;
    if !is_profile_name(name) {
        problems.usage(name_problem(name));
        return None;
    }
    let path = path(cloud, name);
    match fs::read(&path) {
        Ok(bytes) => found(&path, &bytes, args, problems).map(|p| (p, Origin::Found)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            made(name, args, problems).map(|p| (p, Origin::New))
        }
        Err(e) => {
            problems.add(
                Exit::Failed,
                format!("--signing-profile {name}: {}: {e}", path.display()),
            );
            None
        }
    }
}

fn path(cloud: &Path, name: &str) -> PathBuf {
    cloud.join("signing-profiles").join(format!("{name}.json"))
}

fn found(path: &Path, bytes: &[u8], args: &CreateArgs, problems: &mut Problems) -> Option<Profile> {
    let profile: Profile = match serde_json::from_slice(bytes) {
        Ok(profile) => profile,
        Err(e) => {
            problems.add(
                Exit::Failed,
                format!("{}: {e}; remove it and make it anew", path.display()),
            );
            return None;
        }
    };
    let mut differs = |option: &str, given: &str, has: &str| {
        problems.usage(format!(
            "{option} {given}: signing profile {} has {has} already; leave the option out or name another profile",
            profile.name
        ));
    };
    for (option, given, has) in [
        ("--key", &args.key, &profile.key),
        ("--certificate", &args.certificate, &profile.certificate),
    ] {
        if let Some(given) = given
            && fs::canonicalize(given).unwrap_or_else(|_| given.clone()) != *has
        {
            differs(
                option,
                &given.display().to_string(),
                &has.display().to_string(),
            );
        }
    }
    if let Some(given) = &args.certfile
        && *given != profile.certfile
    {
        differs("--certfile", given, &format!("\"{}\"", profile.certfile));
    }
    Some(profile)
}

fn made(name: &str, args: &CreateArgs, problems: &mut Problems) -> Option<Profile> {
    let mut needs = |option: &str, given: &Option<PathBuf>| match given {
        // An absolute path: the profile outlives this working directory.
        Some(path) => Some(fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
        None => {
            problems.usage(format!(
                "{option} is missing: signing profile {name} is not there yet and is made of --key, --certificate and --certfile"
            ));
            None
        }
    };
    let key = needs("--key", &args.key);
    let certificate = needs("--certificate", &args.certificate);
    Some(Profile {
        name: name.to_owned(),
        platform: args.place.platform.clone(),
        key: key?,
        certificate: certificate?,
        certfile: args.certfile.clone().unwrap_or_default(),
    })
}

/// Write a new profile.
pub(super) fn store(cloud: &Path, profile: &Profile) -> Result<(), Failed> {
    let path = path(cloud, &profile.name);
    let failed = |e: &std::io::Error| Failed::chain(Exit::Failed, &path.display().to_string(), e);
    let folder = path.parent().unwrap_or(cloud);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| failed(&e))?;
    let text = serde_json::to_string_pretty(profile)
        .map_err(|e| Failed::chain(Exit::Failed, &profile.name, &e))?;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|e| failed(&e))
}
