//! `otad thing create`: a thing's credentials and a configuration that needs no editing.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use host_cloud::operator::OperatorClient;
use host_cloud::operator::wire::{CloudInfo, ThingCreated};
use host_cloud::service::ThingName;

use super::args::ThingVerb;
use super::cloud_client::{connect, refused};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;
use crate::restart_script;

/// What is written, in the order of the configuration.
const FILES: [&str; 4] = [
    "root.pem",
    "certificate.pem",
    "private-key.pem",
    "otad.toml",
];

pub(super) async fn follow(verb: &ThingVerb) -> Verb {
    let ThingVerb::Create {
        name,
        cloud,
        out,
        force,
    } = verb;
    let name: ThingName = name
        .parse()
        .map_err(|e| Failed::chain(Exit::Usage, "NAME", &e))?;
    let old: Vec<&str> = FILES
        .into_iter()
        .filter(|file| out.join(file).exists())
        .collect();
    if !old.is_empty() && !force {
        return Err(Failed::new(
            Exit::Refused,
            format!(
                "{} has {} already; --force replaces them",
                out.display(),
                old.join(", ")
            ),
        ));
    }
    let mut client: OperatorClient = connect(cloud).await?;
    let info = client.info().await.map_err(refused)?;
    let thing = client.thing_create(name).await.map_err(refused)?;
    write(out, &thing, &info)?;
    let (what, verb) = if thing.created {
        ("new", "registered")
    } else {
        ("known", "found")
    };
    say(&format!("{verb} the {what} thing {}", thing.name));
    for file in old {
        say(&format!("replaced {}", out.join(file).display()));
    }
    say(&format!("wrote {}", out.join("otad.toml").display()));
    say(&format!(
        "next: otad target init main IMAGE --config {0}; otad run --config {0}",
        out.join("otad.toml").display()
    ));
    Ok(Exit::Done)
}

fn write(out: &Path, thing: &ThingCreated, info: &CloudInfo) -> Result<(), Failed> {
    let endpoint = info.tls.ok_or_else(|| {
        Failed::new(
            Exit::Failed,
            "the cloud has no endpoint with TLS; start `otad cloud` without turning it off",
        )
    })?;
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
    let copies: [(&PathBuf, PathBuf); 4] = [
        (&info.root_path, out.join("root.pem")),
        (&thing.certificate_path, out.join("certificate.pem")),
        (&thing.private_key_path, out.join("private-key.pem")),
        (&info.signing_certificate_path, trust.join("signer.pem")),
    ];
    for (from, to) in copies {
        // Permissions come along: the key stays 0600.
        fs::copy(from, &to).map_err(|e| io(&to, &e))?;
    }
    let otad = std::env::current_exe().map_err(|e| io(Path::new("otad"), &e))?;
    restart_script::write(out, &otad).map_err(|e| io(&out.join("restart.sh"), &e))?;
    let path = out.join("otad.toml");
    let host = if endpoint.ip().is_loopback() || endpoint.ip().is_unspecified() {
        "localhost".to_owned()
    } else {
        endpoint.ip().to_string()
    };
    let text = configuration(thing.name.as_str(), &host, endpoint.port());
    fs::write(&path, text).map_err(|e| io(&path, &e))
}

/// A whole configuration; paths are relative to its own directory.
fn configuration(thing: &str, host: &str, port: u16) -> String {
    format!(
        r#"# Made by `otad thing create {thing}`. Paths are relative to this file; `otad config keys` lists all numbers.

[daemon]
state_dir = "state"

[trust]
directory = "trust"     # certificates of those who may sign images
default = "signer"      # for jobs that name none

[[device]]
name = "{thing}"

[device.mqtt]
endpoint = "{host}"
port = {port}
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
# Exits 0 if the program is well. Without it a new version counts as good if it stays up for `settle_ms`:
# health = {{ command = ["/usr/local/bin/is-main-well"] }}

[device.target.settings]
# How long a new version has to stay up before it passes its self-test, 100 to 60000. Longer than the service manager
# waits before it starts a program again that has ended (systemd: RestartSec=), else a dead version passes.
settle_ms = 10000
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_otad_reads_whatever_the_name() {
        for thing in ["pump-1", &"x:_-".repeat(32)] {
            let text = configuration(thing, "localhost", 8883);
            let config = crate::config::parse(Path::new("/etc/otad.toml"), &text, []).unwrap();
            assert_eq!(config.devices[0].name.value, thing);
            assert_eq!(config.devices[0].mqtt.port, 8883);
        }
    }
}
