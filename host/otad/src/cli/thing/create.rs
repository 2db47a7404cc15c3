//! `otad thing create`: a thing's credentials and a configuration that needs no editing.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use host_cloud::operator::OperatorClient;
use host_cloud::operator::wire::{CloudInfo, ThingCreated};
use host_cloud::service::ThingName;
use host_http::HttpConfig;

use crate::cli::args::AskArgs;
use crate::cli::cloud_client::{connect, refused};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::{note, say};
use crate::restart_script;

/// What is written in any case, in the order of the configuration.
const FILES: [&str; 6] = [
    "root.pem",
    "certificate.pem",
    "private-key.pem",
    "trust/signer.pem",
    "restart.sh",
    "otad.toml",
];

pub(super) async fn follow(name: ThingName, ask: &AskArgs, out: &Path, force: bool) -> Verb {
    let mut client: OperatorClient = connect(&ask.cloud).await?;
    let info = client.info().await.map_err(refused)?;
    let old: Vec<&str> = FILES
        .into_iter()
        .chain(info.http.as_ref().map(|_| IMAGE_ROOT))
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
    let thing = client.thing_create(name).await.map_err(refused)?;
    let images = match &info.http {
        Some(url) => Some(http_section(&addresses_of(url).await)),
        None => None,
    };
    write(out, &thing, &info, images.as_deref())?;
    let config = out.join("otad.toml");
    if is_nameless(&info) {
        note(&format!(
            "{} leads to this machine: for a device on another one start `otad cloud` with --name HOST, then make this again \
             with --force",
            config.display()
        ));
    }
    if ask.json {
        say(&serde_json::json!({
            "name": thing.name,
            "created": thing.created,
            "fingerprint": thing.fingerprint,
            "config": config,
            "replaced": old,
        })
        .to_string());
        return Ok(Exit::Done);
    }
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

/// Whether devices of other machines may come, and nobody said where to.
fn is_nameless(info: &CloudInfo) -> bool {
    info.host.is_none()
        && info
            .tls
            .is_some_and(|address| address.ip().is_unspecified())
}

/// Where devices connect, and whom they trust there.
struct Endpoint<'a> {
    host: String,
    port: u16,
    tls: bool,
    root_pem: &'a str,
}

impl<'a> Endpoint<'a> {
    /// The cloud's own endpoint, or the broker that it answers at.
    fn of(info: &'a CloudInfo, thing: &'a ThingCreated) -> Result<Self, Failed> {
        if let Some(address) = info.tls {
            let ip = address.ip();
            let host = match &info.host {
                Some(name) if ip.is_unspecified() => name.clone(),
                _ if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
                _ => ip.to_string(),
            };
            return Ok(Self {
                host,
                port: address.port(),
                tls: true,
                root_pem: &thing.root_pem,
            });
        }
        let broker = info.broker.as_ref().ok_or_else(|| {
            Failed::new(
                Exit::Failed,
                "the cloud has no endpoint with TLS; start `otad cloud` without turning it off",
            )
        })?;
        Ok(Self {
            host: broker.host.clone(),
            port: broker.port,
            tls: broker.tls,
            root_pem: broker.ca_pem.as_ref().unwrap_or(&thing.root_pem),
        })
    }

    /// Lines of `[device.mqtt]` that a connection with TLS does not need.
    fn plain_line(&self) -> &'static str {
        if self.tls {
            ""
        } else {
            "tls = false             # the broker's own machine, or the development setting `allow_plaintext`\n"
        }
    }
}

/// Where the host of a URL leads from here, as far as that can be told: whoever runs this may see other names than the
/// device will.
async fn addresses_of(url: &str) -> Vec<IpAddr> {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host(host)).await;
    match found {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn write(
    out: &Path,
    thing: &ThingCreated,
    info: &CloudInfo,
    images: Option<&str>,
) -> Result<(), Failed> {
    let endpoint = Endpoint::of(info, thing)?;
    let io =
        |path: &Path, e: &io::Error| Failed::chain(Exit::Failed, &path.display().to_string(), e);
    let trust = out.join("trust");
    // A trust directory that the group may write is refused, and the umask may say so.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&trust)
        .map_err(|e| io(&trust, &e))?;
    // By content, not by path: the cloud may be on another machine.
    let mut files: Vec<(&str, &str, u32)> = vec![
        ("root.pem", endpoint.root_pem, 0o644),
        ("certificate.pem", &thing.certificate_pem, 0o644),
        ("private-key.pem", &thing.private_key_pem, 0o600),
        ("trust/signer.pem", &info.signing_certificate_pem, 0o644),
    ];
    if images.is_some() {
        // `root.pem` may be a broker's.
        files.push((IMAGE_ROOT, &thing.root_pem, 0o644));
    }
    for (name, pem, mode) in files {
        let path = out.join(name);
        write_file(&path, pem, mode).map_err(|e| io(&path, &e))?;
    }
    let otad = std::env::current_exe().map_err(|e| io(Path::new("otad"), &e))?;
    restart_script::write(out, &otad).map_err(|e| io(&out.join("restart.sh"), &e))?;
    let path = out.join("otad.toml");
    let text = configuration(thing.name.as_str(), &endpoint, images);
    fs::write(&path, text).map_err(|e| io(&path, &e))
}

/// A new file with this mode from its first byte on; an old one of the name is replaced.
fn write_file(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options.open(path)?.write_all(text.as_bytes())
}

/// The root of image servers.
const IMAGE_ROOT: &str = "image-root.pem";

/// How long the name of the image server is looked for; without an answer its line is left to the operator.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// What a device needs to fetch images from the cloud in a box, whose image server is at these addresses.
fn http_section(addresses: &[IpAddr]) -> String {
    let mut networks = Vec::new();
    let public = HttpConfig::default();
    for address in addresses
        .iter()
        .filter(|a| public.check_address(**a).is_err())
    {
        let found = match address.is_loopback() {
            // This machine has both, whichever was found.
            true => vec!["\"127.0.0.0/8\"".to_owned(), "\"::1\"".to_owned()],
            false => vec![format!("\"{address}\"")],
        };
        for network in found {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
    }
    let mark = if networks.is_empty() { "# " } else { "" };
    let networks = networks.join(", ");
    format!(
        "\n[http]\nroots = [\"{IMAGE_ROOT}\"]\n\
         {mark}allow_networks = [{networks}]   # without it only public addresses are connected to\n"
    )
}

/// A whole configuration; paths are relative to its own directory.
fn configuration(thing: &str, endpoint: &Endpoint<'_>, images: Option<&str>) -> String {
    let Endpoint { host, port, .. } = endpoint;
    let plain = endpoint.plain_line();
    let http = images.unwrap_or_default();
    format!(
        r#"# Made by `otad thing create {thing}`. Paths are relative to this file; `otad config keys` lists all keys.

[daemon]
state_dir = "state"

[trust]
directory = "trust"     # certificates of those who may sign images, plugins and agents
# code_signers = ["signer"]  # which of them may sign plugins and agents; left out: all, but none that comes by a job
default = "signer"      # for jobs that name none
{http}
[[device]]
name = "{thing}"

[device.mqtt]
endpoint = "{host}"
port = {port}
{plain}root_certificate = "root.pem"
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
        for (thing, tls) in [("pump-1", true), (&"x:_-".repeat(32), false)] {
            let endpoint = Endpoint {
                host: "localhost".to_owned(),
                port: 8884,
                tls,
                root_pem: "",
            };
            let images = tls.then(|| http_section(&[IpAddr::from([10, 1, 2, 3])]));
            let text = configuration(thing, &endpoint, images.as_deref());
            let config = crate::config::parse(Path::new("/etc/otad.toml"), &text, []).unwrap();
            assert_eq!(config.devices[0].name.value, thing);
            assert_eq!(config.devices[0].mqtt.port, 8884);
            assert_eq!(config.devices[0].mqtt.tls, tls);
            assert_eq!(config.http.roots.len(), usize::from(tls));
            let lan = IpAddr::from([10, 1, 2, 3]);
            assert_eq!(config.http.config.check_address(lan).is_ok(), tls);
        }
    }

    #[test]
    fn a_cloud_of_all_addresses_is_called_by_its_name() {
        let rows = [
            ("0.0.0.0:8883", Some("cloud.lan"), "cloud.lan", false),
            ("[::]:8883", None, "localhost", true),
            // Whatever else it is called, devices come in on its own machine only.
            ("127.0.0.1:8883", Some("cloud.lan"), "localhost", false),
            ("127.0.0.1:8883", None, "localhost", false),
            ("10.0.0.1:8883", Some("cloud.lan"), "10.0.0.1", false),
        ];
        for (address, name, host, nameless) in rows {
            let info = CloudInfo {
                tls: Some(address.parse().unwrap()),
                host: name.map(str::to_owned),
                plain: None,
                http: None,
                broker: None,
                root_path: "root.pem".into(),
                signing_certificate_path: "signing.pem".into(),
                signing_certificate_pem: String::new(),
                signing_key_path: "signing.key".into(),
                dir: "cloud".into(),
            };
            let thing = ThingCreated {
                name: "pump-1".parse().unwrap(),
                created: true,
                certificate_path: "pump-1.pem".into(),
                private_key_path: "pump-1.key".into(),
                root_path: "root.pem".into(),
                fingerprint: String::new(),
                certificate_pem: String::new(),
                private_key_pem: String::new(),
                root_pem: String::new(),
            };
            let endpoint = Endpoint::of(&info, &thing).unwrap();
            let text = configuration("pump-1", &endpoint, None);
            let line = format!("endpoint = \"{host}\"");
            assert!(text.contains(&line), "{address} {name:?}: {text}");
            assert_eq!(is_nameless(&info), nameless, "{address} {name:?}");
        }
    }

    #[test]
    fn the_addresses_of_the_image_server_are_allowed_and_no_others() {
        let section = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let section = http_section(&addresses);
            let line = section.lines().nth(3).unwrap_or_default();
            line.split("   ").next().unwrap_or_default().to_owned()
        };
        let local = "allow_networks = [\"127.0.0.0/8\", \"::1\"]";
        assert_eq!(section(&["127.0.0.1", "::1"]), local);
        assert_eq!(section(&["::1"]), local);
        assert_eq!(
            section(&["192.168.7.9", "fd00::9"]),
            "allow_networks = [\"192.168.7.9\", \"fd00::9\"]"
        );
        // One that is public, or that nobody here knows, needs none or is the operator's to say.
        assert_eq!(section(&["1.2.3.4"]), "# allow_networks = []");
        assert_eq!(section(&[]), "# allow_networks = []");
    }
}
