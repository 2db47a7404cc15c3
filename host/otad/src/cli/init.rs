//! `otad config init --aws`: a configuration of downloaded PEM files, checked before anything is written.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use host_cloud::service::ThingName;
use host_crypto::TrustStore;

use super::args::InitArgs;
use super::problems::Problems;
use crate::config::check::{certificates, go_together, of_version_3, private_key, read_pem};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;
use crate::restart_script;

/// What is written besides the signers' certificates.
const FILES: [&str; 5] = [
    "root.pem",
    "certificate.pem",
    "private-key.pem",
    "restart.sh",
    "otad.toml",
];

/// Readable by otad's user alone.
const PRIVATE: u32 = 0o600;
/// Readable by everybody, writable by the owner alone.
const PUBLIC: u32 = 0o644;

pub(super) fn follow(args: &InitArgs) -> Verb {
    let mut problems = Problems::default();
    check(args, &mut problems);
    let signers = signers(args, &mut problems);
    let old: Vec<&str> = FILES
        .into_iter()
        .filter(|file| args.out.join(file).exists())
        .collect();
    if !old.is_empty() && !args.force {
        problems.add(
            Exit::Refused,
            format!(
                "--out {} has {} already; --force replaces them",
                args.out.display(),
                old.join(", ")
            ),
        );
    }
    problems.into_result()?;
    write(args, &signers)?;
    for file in old {
        say(&format!("replaced {}", args.out.join(file).display()));
    }
    let path = args.out.join("otad.toml");
    say(&format!("wrote {}", path.display()));
    say(&format!(
        "next: otad target init main IMAGE --config {0}; otad config check --config {0}; otad run --config {0}",
        path.display()
    ));
    Ok(Exit::Done)
}

fn check(args: &InitArgs, problems: &mut Problems) {
    if let Err(e) = args.thing.parse::<ThingName>() {
        problems.usage(format!("--thing {:?}: {e}", args.thing));
    }
    if let Err(text) = endpoint(&args.endpoint, args.custom_domain) {
        problems.usage(format!("--endpoint {:?}: {text}", args.endpoint));
    }
    if let Err(text) = certificates(&args.root) {
        problems.usage(format!("--root {text}; AWS offers it as AmazonRootCA1.pem"));
    }
    match (
        certificates(&args.certificate),
        private_key(&args.private_key),
    ) {
        (Ok(chain), Ok(key)) => {
            if let Err(text) = of_version_3(&chain) {
                let path = args.certificate.display();
                problems.usage(format!("--certificate {path}: {text}"));
            } else if let Err(text) = go_together(chain, key) {
                problems.usage(format!(
                    "--private-key {}: {text}; AWS gives both files of a thing names that begin alike",
                    args.private_key.display()
                ));
            }
        }
        (chain, key) => {
            let swapped = private_key(&args.certificate).is_ok();
            if let Err(text) = chain {
                let advice = match swapped {
                    true => "; it is a private key: swap --certificate and --private-key",
                    false => "; it is the file that ends in -certificate.pem.crt",
                };
                problems.usage(format!("--certificate {text}{advice}"));
            }
            if let Err(text) = key {
                problems.usage(format!(
                    "--private-key {text}; it is the file that ends in -private.pem.key"
                ));
            }
        }
    }
}

/// Whether a host name can be the endpoint of an AWS account.
fn endpoint(host: &str, custom_domain: bool) -> Result<(), String> {
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if host.contains("://") || host.contains('/') || host.contains(':') {
        return Err("a host name alone: no scheme, no path, no port".to_owned());
    }
    if host.is_empty() || !host.chars().all(is_host) || host.starts_with('.') {
        return Err("no host name".to_owned());
    }
    if custom_domain {
        return Ok(());
    }
    let domain = ["amazonaws.com.cn", "amazonaws.com"]
        .into_iter()
        .find_map(|domain| host.strip_suffix(domain)?.strip_suffix('.'));
    let Some(rest) = domain else {
        return Err(
            "AWS endpoints end in .amazonaws.com; for a domain of your own add --custom-domain"
                .to_owned(),
        );
    };
    let parts: Vec<&str> = rest.split('.').collect();
    match parts[..] {
        [account, "iot", region]
            if account.ends_with("-ats") && crate::aws::names::is_region(region) =>
        {
            Ok(())
        }
        [account, "iot", _] if !account.ends_with("-ats") => Err(format!(
            "an endpoint whose certificate AmazonRootCA1.pem does not vouch for; {account}-ats.iot… is the one: aws iot describe-endpoint --endpoint-type iot:Data-ATS"
        )),
        _ => Err(
            "expected ACCOUNT-ats.iot.REGION.amazonaws.com: aws iot describe-endpoint --endpoint-type iot:Data-ATS"
                .to_owned(),
        ),
    }
}

/// Names and texts of the signers' certificates; each must be one that can verify an image.
fn signers(args: &InitArgs, problems: &mut Problems) -> Vec<(String, Vec<u8>)> {
    let mut store = TrustStore::default();
    let mut signers = Vec::new();
    for path in &args.signer {
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let pem = match read_pem(path) {
            Ok(pem) => pem,
            Err(text) => {
                problems.usage(format!("--signer {text}"));
                continue;
            }
        };
        match store.add(&name, &String::from_utf8_lossy(&pem)) {
            Ok(()) => signers.push((name, pem)),
            Err(e) => problems.usage(format!(
                "--signer {}: {}; expected the P-256 or RSA certificate of one who signs images",
                path.display(),
                crate::exit::chain(&e)
            )),
        }
    }
    signers
}

fn write(args: &InitArgs, signers: &[(String, Vec<u8>)]) -> Result<(), Failed> {
    let out = &args.out;
    let io = |path: &Path, e: &std::io::Error| {
        Failed::chain(Exit::Failed, &path.display().to_string(), e)
    };
    let trust = out.join("trust");
    // A trust directory that the group may write is refused, and the umask may say so.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&trust)
        .map_err(|e| io(&trust, &e))?;
    let put = |path: &Path, bytes: &[u8], mode: u32| {
        write_file(path, bytes, mode).map_err(|e| io(path, &e))
    };
    for (name, pem) in signers {
        put(&trust.join(format!("{name}.pem")), pem, PUBLIC)?;
    }
    for (from, to, mode) in [
        (&args.root, "root.pem", PUBLIC),
        (&args.certificate, "certificate.pem", PUBLIC),
        (&args.private_key, "private-key.pem", PRIVATE),
    ] {
        let bytes = read_pem(from).map_err(|text| Failed::new(Exit::Failed, text))?;
        put(&out.join(to), &bytes, mode)?;
    }
    let otad = std::env::current_exe().map_err(|e| io(Path::new("otad"), &e))?;
    restart_script::write(out, &otad).map_err(|e| io(&out.join("restart.sh"), &e))?;
    let default = signers.first().map_or("", |signer| &signer.0);
    // Last: with it the rest is whole.
    let text = configuration(&args.thing, &args.endpoint, default);
    put(&out.join("otad.toml"), text.as_bytes(), PUBLIC)
}

/// Write a file that is whole or not there; it never has a wider mode than it should, also where it is replaced.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    // One that an earlier try left behind keeps its own.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// A whole configuration; paths are relative to its own directory.
fn configuration(thing: &str, endpoint: &str, default: &str) -> String {
    // Names of files may hold anything; JSON's strings are TOML's.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (thing, endpoint, default) = (quoted(thing), quoted(endpoint), quoted(default));
    format!(
        r#"# Made by `otad config init --aws`. Paths are relative to this file; `otad config keys` lists all keys.

[daemon]
state_dir = "state"

[trust]
directory = "trust"     # certificates of those who may sign images, plugins and agents
# code_signers = [{default}]  # which of them may sign plugins and agents; left out: all, but none that comes by a job
default = {default}     # for jobs that name none
# Jobs of AWS name the signer's certificate by the `certname` of their signing profile (`--certfile`):
# labels = {{ "/cert.pem" = {default} }}

[[device]]
name = {thing}

[device.mqtt]
endpoint = {endpoint}
aws = true              # replies come unasked; 443 works too, with `port = 443`
root_certificate = "root.pem"
certificate = "certificate.pem"
private_key = "private-key.pem"

[[device.target]]
name = "main"
file_id = 0             # the gateway's own software
plugin = "flash-file"
directory = "targets/main"
# Ends the program and starts it again through `otad launch main`. With systemd:
# restart = {{ command = ["/usr/bin/systemctl", "restart", "main.service"] }}
restart = {{ command = ["./restart.sh", "main"] }}
# Exits 0 if the program is well:
# health = {{ command = ["/usr/local/bin/is-main-well"] }}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_looks_like_one() {
        for good in [
            "a1b2c3d4e5f6g7-ats.iot.eu-west-1.amazonaws.com",
            "a1-ats.iot.cn-north-1.amazonaws.com.cn",
        ] {
            assert_eq!(endpoint(good, false), Ok(()), "{good}");
        }
        let rows = [
            ("https://a1-ats.iot.eu-west-1.amazonaws.com", "no scheme"),
            ("a1-ats.iot.eu-west-1.amazonaws.com:8883", "no port"),
            ("a1.iot.eu-west-1.amazonaws.com", "a1-ats.iot"),
            ("a1-ats.iot.amazonaws.com", "ACCOUNT-ats"),
            ("broker.example", "--custom-domain"),
            ("evilamazonaws.com", "--custom-domain"),
            ("a b", "no host name"),
            ("", "no host name"),
        ];
        for (bad, words) in rows {
            let text = endpoint(bad, false).unwrap_err();
            assert!(text.contains(words), "{bad}: {text}");
        }
        assert_eq!(endpoint("iot.example.com", true), Ok(()));
        assert!(endpoint("iot.example.com:443", true).is_err());
    }

    #[test]
    fn the_configuration_is_one_that_otad_reads_whatever_the_names() {
        for (thing, default) in [("pump-1", "signer"), (&*"x:_-".repeat(32), "a \"b\" \\c")] {
            let text = configuration(thing, "a1-ats.iot.eu-west-1.amazonaws.com", default);
            let config = crate::config::parse(Path::new("/etc/otad.toml"), &text, []).unwrap();
            assert_eq!(config.devices[0].name.value, thing);
            assert_eq!(config.trust.default.unwrap().value, default);
            assert!(config.devices[0].mqtt.aws);
        }
    }
}
