//! `otad sign` and `otad verify`: manifests of plugins and agents, and images of updates.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_crypto::{Hasher, SigningKey, TrustStore};
use host_runtime::engine::{AGENT_WORLD, Time, world_of};
use host_runtime::ports::clock::{Clock, SystemClock};
use serde_json::json;

use super::args::{COMPILE_CPU_S, ConfigArg, GuestArg, SignArgs, TrustedArgs, VerifyArgs};
use super::load;
use super::update::signing::{hash_file, read_key, read_signature};
use crate::code::{
    BUNDLE, Code, CodeError, Entry, Form, Gate, Grants, Kind, Limits, MANIFEST, Manifest, Parts,
    Place, SIGNATURE, Signed, beside, bundle, lapse, world,
};
use crate::config::{Config, Device};
use crate::exit::{Exit, Failed, Verb, chain};
use crate::image::parse_version;
use crate::progress::say;

/// Ending of an image's signature, after the file's name.
const IMAGE_SIGNATURE: &str = "sig";

pub(super) fn sign(args: &SignArgs) -> Verb {
    let key = args.key.as_deref().map(read_key).transpose()?;
    if let (true, Some(key)) = (args.image, &key) {
        return sign_image(&args.file, key);
    }
    if args.bundle && key.is_none() {
        if args.allows_something() {
            let text = "without --key the manifest stays as it is: leave out what the signer allows, or sign it anew";
            return Err(Failed::new(Exit::Usage, text));
        }
        return bundle_signed(&args.file);
    }
    let bytes = GuestArg::at(&args.file)?.bytes()?;
    let manifest = manifest(args, &bytes)?;
    let usage = |why: String| Failed::new(Exit::Usage, format!("{}: {why}", args.file.display()));
    let text = manifest.text().map_err(usage)?;
    // A manifest that no gateway would read is not signed.
    Manifest::parse(&text).map_err(usage)?;
    let to = beside(&args.file, MANIFEST);
    write(&to, text.as_bytes())?;
    say(&text);
    let signature = beside(&args.file, SIGNATURE);
    let Some(key) = key else {
        // The signature of another text must not stay beside it.
        match fs::remove_file(&signature) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(failed(&signature, &e));
            }
            Ok(()) | Err(_) => {}
        }
        say(&format!(
            "written to {}, not signed; sign it with a P-256 key:\n  openssl dgst -sha256 -sign KEY.pem -out {} {}",
            to.display(),
            signature.display(),
            to.display()
        ));
        return Ok(Exit::Done);
    };
    let mut hasher = Hasher::default();
    hasher.update(text.as_bytes());
    let signed = key.sign(&hasher.finish());
    let signed = signed.map_err(|e| Failed::new(Exit::Failed, e.to_string()))?;
    write(&signature, &signed)?;
    say(&format!(
        "written to {}, signed in {}; the three files go together",
        to.display(),
        signature.display()
    ));
    if args.bundle {
        return write_bundle(&args.file, &bytes, text.as_bytes(), &signed);
    }
    Ok(Exit::Done)
}

/// The bundle of what was signed elsewhere. By whom, a gateway asks.
fn bundle_signed(file: &Path) -> Verb {
    let read = |ending: &str| {
        let path = beside(file, ending);
        fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let (path, file) = (path.display(), file.display());
                let text = format!("there is no {path}: give --key KEY.pem, or sign {file} first");
                Failed::new(Exit::Failed, text)
            }
            _ => failed(&path, &error),
        })
    };
    let bytes = GuestArg::at(file)?.bytes()?;
    let (text, signature) = (read(MANIFEST)?, read(SIGNATURE)?);
    let refuse = |why: String| Failed::new(Exit::Refused, format!("{}: {why}", file.display()));
    let read = std::str::from_utf8(&text).map_err(|e| refuse(e.to_string()))?;
    let manifest = Manifest::parse(read).map_err(&refuse)?;
    let mut hasher = Hasher::default();
    hasher.update(&bytes);
    if manifest.sha256 != host_crypto::hex(hasher.finish().sha256()) {
        let why = "it was changed after its manifest was written; sign it again";
        return Err(refuse(why.to_owned()));
    }
    write_bundle(file, &bytes, &text, &signature)
}

fn write_bundle(file: &Path, bytes: &[u8], manifest: &[u8], signature: &[u8]) -> Verb {
    let usage = |why: String| Failed::new(Exit::Usage, format!("{}: {why}", file.display()));
    let to = beside(file, BUNDLE);
    write(&to, &bundle(bytes, manifest, signature).map_err(usage)?)?;
    say(&format!(
        "all three in {}, for `otad update create`",
        to.display()
    ));
    Ok(Exit::Done)
}

fn sign_image(file: &Path, key: &SigningKey) -> Verb {
    let source = File::open(file).map_err(|e| failed(file, &e))?;
    let (hashed, signature) = key.sign_stream(source).map_err(|e| failed(file, &e))?;
    let to = beside(file, IMAGE_SIGNATURE);
    write(&to, &signature)?;
    let sha256 = host_crypto::hex(hashed.sha256());
    say(&format!(
        "sha256    {sha256}\nsignature {}, for `otad update create --signature`",
        to.display()
    ));
    Ok(Exit::Done)
}

/// The manifest of a file, by what it says of itself: a component is compiled in a child, a library asked in one.
fn manifest(args: &SignArgs, bytes: &[u8]) -> Result<Manifest, Failed> {
    let file = &args.file;
    let guest = GuestArg::at(file)?;
    let refuse = |why: String| Failed::new(Exit::Refused, format!("{}: {why}", file.display()));
    let form = Form::of(bytes).ok_or_else(|| {
        refuse(
            "it is neither a component nor a shared library; --image signs the image of an update"
                .to_owned(),
        )
    })?;
    let guest = guest.load_bytes(bytes, COMPILE_CPU_S, Time::Real)?;
    let (kind, (name, version)) = (guest.kind(), guest.who());
    let usage = |why: String| Failed::new(Exit::Usage, why);
    let absolute = |paths: &[PathBuf]| -> Result<Vec<PathBuf>, Failed> {
        paths
            .iter()
            .map(|path| std::path::absolute(path).map_err(|e| failed(path, &e)))
            .collect()
    };
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    Ok(Manifest {
        kind,
        form,
        world: world(kind, form),
        version: parse_version(version)
            .map_err(|why| refuse(format!("it says that it is version \"{version}\": {why}")))?,
        name: name.to_owned(),
        least_host: parse_version(&args.least_host)
            .map_err(|why| usage(format!("--least-host: {why}")))?,
        size: bytes.len() as u64,
        sha256: host_crypto::hex(hasher.finish().sha256()),
        grants: Grants {
            lent: guest.imports().to_vec(),
            directories: absolute(&args.directory)?,
            devices: absolute(&args.device)?,
            in_process: args.in_process,
        },
        limits: Limits {
            memory_bytes: args.memory_bytes,
            fuel: args.fuel,
            host_calls: args.host_calls,
        },
    })
}

pub(super) fn verify(args: &VerifyArgs) -> Verb {
    match args.image {
        true => verify_image(args),
        false => verify_code(&args.file, &args.trusted, args.json),
    }
}

/// Would it be let in? It is loaded too, in a process of its own, for it may say other things than its manifest.
pub(super) fn verify_code(file: &Path, trusted: &TrustedArgs, json: bool) -> Verb {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = trusted.config()?;
    let gate = match &config {
        Some(config) => Gate::new(config, clock),
        None => Gate::over(store(trusted)?, clock),
    };
    let refused = |error: CodeError| unverified(file, &error);
    let guest = GuestArg::at(file)?;
    let code = gate.read(looks_like(&guest), file).map_err(refused)?;
    let Some(signed) = &code.signed else {
        return Err(Failed::new(
            Exit::Unverified,
            format!(
                "{}: nobody has signed it; this configuration's development setting lets it in",
                file.display()
            ),
        ));
    };
    match &config {
        Some(config) => places(config, code.kind)
            .iter()
            .try_for_each(|place| gate.check(Some(signed), place, Entry::New)),
        None => gate.check_validity(signed, false),
    }
    .map_err(refused)?;
    let loaded = guest.load_bytes(&code.bytes, COMPILE_CPU_S, Time::Real)?;
    let (name, version) = loaded.who();
    code.admit(name, version, loaded.imports())
        .map_err(refused)?;
    print(&code, signed, json);
    Ok(Exit::Done)
}

/// What a file is to be: what it looks like, or what is in it looks like, if it is a bundle. What looks like neither, or cannot be
/// read, is refused as a plugin.
fn looks_like(guest: &GuestArg) -> Kind {
    let bytes = guest.bytes().unwrap_or_default();
    let code = match Parts::of(&bytes, bytes.len() as u64) {
        Ok(Some(parts)) => usize::try_from(parts.manifest.start).ok(),
        Ok(None) | Err(_) => None,
    };
    let code = code.and_then(|end| bytes.get(..end)).unwrap_or(&bytes);
    match world_of(code) {
        Ok(world) if *world == AGENT_WORLD => Kind::Agent,
        Ok(_) | Err(_) => Kind::Plugin,
    }
}

/// Where a configuration could have it.
fn places(config: &Config, kind: Kind) -> Vec<Place> {
    let of = |device: &Device| -> Vec<Place> {
        let name = &device.name.value;
        match kind {
            Kind::Agent => vec![Place::agent(name)],
            Kind::Plugin => {
                let targets = device.targets.iter();
                targets
                    .map(|t| Place::plugin(name, &t.name.value))
                    .collect()
            }
        }
    };
    config.devices.iter().flat_map(of).collect()
}

fn unverified(file: &Path, error: &CodeError) -> Failed {
    let exit = match error {
        CodeError::Older { .. } | CodeError::Host { .. } | CodeError::Other { .. } => Exit::Refused,
        error if error.is_verdict() => Exit::Unverified,
        _ => Exit::Failed,
    };
    Failed::new(exit, format!("{}: {}", file.display(), chain(error)))
}

impl TrustedArgs {
    fn config(&self) -> Result<Option<Config>, Failed> {
        let config = self.config.clone().map(|config| ConfigArg { config });
        config.map(|config| load(&config)).transpose()
    }
}

/// The certificates that the options name.
fn store(trusted: &TrustedArgs) -> Result<TrustStore, Failed> {
    let failed = |e| Failed::new(Exit::Config, chain(&e));
    let directory = match trusted.config()? {
        Some(config) => config.trust.directory.map(|at| at.value),
        None => trusted.trust.clone(),
    };
    if let Some(directory) = directory {
        return TrustStore::load(&directory).map_err(failed);
    }
    let mut store = TrustStore::default();
    if let Some(path) = &trusted.certificate {
        let pem = fs::read_to_string(path).map_err(|e| self::failed(path, &e))?;
        let entry = path.file_stem().unwrap_or_default().to_string_lossy();
        store.add(&entry, &pem).map_err(failed)?;
    }
    Ok(store)
}

fn print(code: &Code, signed: &Signed, json: bool) {
    let Signed {
        signer, manifest, ..
    } = signed;
    let Manifest {
        kind,
        name,
        version,
        grants,
        limits,
        ..
    } = manifest;
    if json {
        let value = json!({
            "file": code.path.display().to_string(),
            "sha256": code.sha256,
            "kind": kind,
            "carrier": manifest.form,
            "name": name,
            "version": version.to_string(),
            "world": manifest.world,
            "least_host": manifest.least_host.to_string(),
            "signer": signer,
            "grants": grants,
            "limits": limits,
        });
        say(&value.to_string());
        return;
    }
    say(&format!("file      {}", code.path.display()));
    say(&format!("sha256    {}", code.sha256));
    say(&format!(
        "{kind:<10}{name} {version}, for {}",
        manifest.world
    ));
    say(&format!("signed by {signer}"));
    let list = |what: &str, items: Vec<String>| {
        if !items.is_empty() {
            say(&format!("{what:<10}{}", items.join(", ")));
        }
    };
    let paths = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect();
    list("lent", grants.lent.clone());
    list("below", paths(&grants.directories));
    list("devices", paths(&grants.devices));
    if grants.in_process {
        say("may run in otad's own process");
    }
    list("at most", limits.words());
}

fn verify_image(args: &VerifyArgs) -> Verb {
    let path = args
        .signature
        .clone()
        .unwrap_or_else(|| beside(&args.file, IMAGE_SIGNATURE));
    if args.signature.is_none() && is_missing(&path) && !is_missing(&args.file) {
        return Err(Failed::new(
            Exit::Unverified,
            format!(
                "{0}: nobody has signed it: there is no {1}; sign it with `otad sign --image {0} --key KEY.pem`, or name its \
                 signature with --signature",
                args.file.display(),
                path.display()
            ),
        ));
    }
    let signature = read_signature(&path)?;
    let store = store(&args.trusted)?;
    let hashed = hash_file(&args.file)?;
    let now = SystemClock::new().wall_s();
    let mut why = format!(
        "{} is no signature of these bytes by a trusted certificate",
        path.display()
    );
    for certificate in store.entries() {
        // One of another kind of key calls it malformed.
        if !matches!(certificate.verifier().fits(&hashed, &signature), Ok(true)) {
            continue;
        }
        let entry = certificate.entry();
        if let Some(what) = now.and_then(|now| lapse(certificate.validity(), now)) {
            why =
                format!("certificate `{entry}` of its signer {what}; sign it with one that holds");
            continue;
        }
        let sha256 = host_crypto::hex(hashed.sha256());
        let kind = certificate.verifier().kind().name();
        if args.json {
            let value = json!({ "file": args.file.display().to_string(), "sha256": sha256, "signer": entry, "signature": kind });
            say(&value.to_string());
        } else {
            say(&format!("sha256    {sha256}\nsigned by {entry} ({kind})"));
        }
        return Ok(Exit::Done);
    }
    Err(Failed::new(
        Exit::Unverified,
        format!("{}: {why}", args.file.display()),
    ))
}

/// Whether nothing has this name. What cannot be looked at is told by whoever reads it.
fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    fs::write(path, bytes).map_err(|e| failed(path, &e))
}

fn failed(path: &Path, error: &std::io::Error) -> Failed {
    Failed::chain(Exit::Failed, &path.display().to_string(), error)
}
