//! Sets the stage: cloud, proxy, certificates, configuration, first images, running programs.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use host_cloud::fault::{Fault, FaultPlan};
use host_cloud::http::HttpConfig;
use host_cloud::service::{Protocol, ThingName};
use host_cloud::{BrokerConfig, Cloud, CloudConfig, CloudHandle};
use host_runtime::ports::state_dir::FileStateDir;
use rustix::process::Pid;

use super::build;
use super::mcu::{self, Secondary};
use super::program::{self, Behaviour};
use super::proxy::Proxy;
use super::scenario::{Image, Job, Scenario};
use crate::exit::{Exit, Failed, chain};
use crate::image;
use crate::launch::Files;
use crate::target_init::{self, Place};

/// The device.
pub(super) const THING: &str = "demo-gateway";

/// Names of the targets, by file id; the second one only where a scenario needs it.
pub(super) const TARGETS: [&str; 2] = ["main", "extra"];

/// What runs at the start.
pub(super) const OLD_VERSION: &str = "1.0.0";

/// The product that the targets' images must be for.
const PRODUCT: &str = "demo-gateway";

/// Bytes a second towards the daemon: 2 MiB take about a second and a half, so that there is something to see.
const BYTES_PER_S: u64 = 1_400_000;

/// The same for each connection to the image server; there may be several at once.
const HTTP_BYTES_PER_S: u64 = BYTES_PER_S / 2;

/// Size of the image that runs at the start.
const OLD_IMAGE_BYTES: usize = 64 * 1024;

const SLOT_SIZE_BYTES: u64 = 4 << 20;

/// Where the daemon finds the password for somebody else's broker.
const PASSWORD: &str = "password";

/// A program of the demo that does not stay up has ended after a tenth of this.
const SETTLE_MS: u32 = 500;

/// A broker that does not let the cloud in for so long is not going to.
const BROKER_MAX: Duration = Duration::from_secs(10);

/// Lots of the lossy scenario are drawn from this.
const FAULT_SEED: u64 = 2026;

/// Everything that is there before the daemon starts.
pub(super) struct Stage {
    pub(super) cloud: CloudHandle,
    pub(super) proxy: Proxy,
    /// Before the image server, where the job offers URLs.
    pub(super) http_proxy: Option<Proxy>,
    pub(super) config: PathBuf,
    /// Somebody else's broker between cloud and daemon.
    pub(super) broker: Option<BrokerConfig>,
    /// Targets of this scenario, by file id: programs of the gateway, then MCUs, then what takes builds of the agent.
    pub(super) targets: Vec<&'static str>,
    /// How many of them are programs.
    programs: usize,
    /// The processes of these before the job.
    first: Vec<Pid>,
    /// What carries their plugins.
    carrier: &'static str,
    /// The MCUs among them.
    mcus: Vec<Secondary>,
}

/// A failure to set something up.
pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Failed {
    Failed::new(Exit::Failed, format!("{what}: {}", chain(error)))
}

impl Stage {
    pub(super) async fn set(
        scenario: &Scenario,
        dir: &Path,
        carrier: &'static str,
        broker: Option<BrokerConfig>,
    ) -> Result<Self, Failed> {
        let no_proxy = |e: io::Error| failed("starting the proxy", &e);
        let mut proxy = Proxy::bind(BYTES_PER_S).await.map_err(no_proxy)?;
        let mut http_proxy = match scenario.protocols.contains(&Protocol::Http) {
            true => Some(Proxy::bind(HTTP_BYTES_PER_S).await.map_err(no_proxy)?),
            false => None,
        };
        let http_port = http_proxy.as_ref().map(Proxy::port);
        let cloud = start_cloud(scenario, dir, broker.clone(), http_port).await?;
        proxy.lead_to(upstream(&cloud, broker.as_ref()).await?);
        if let (Some(proxy), Some(address)) = (&mut http_proxy, cloud.http_addr()) {
            proxy.lead_to(address);
        }
        let programs = match &scenario.job {
            Job::Image(image) if image.file_id > 0 => &TARGETS[..],
            Job::Image(_) | Job::Agent(_) | Job::Group(_) | Job::Document(_) => &TARGETS[..1],
        };
        let builds: &[_] = match scenario.job {
            Job::Agent(_) => &[build::AGENT],
            Job::Image(_) | Job::Group(_) | Job::Document(_) => &[],
        };
        let mcus: Result<Vec<_>, _> = scenario
            .mcus
            .iter()
            .map(|name| Secondary::start(dir, name))
            .collect();
        let mut stage = Self {
            cloud,
            proxy,
            http_proxy,
            config: dir.join("otad.toml"),
            broker,
            targets: [programs, scenario.mcus, builds].concat(),
            programs: programs.len(),
            first: Vec::new(),
            carrier,
            mcus: mcus?,
        };
        stage.credentials(dir).await?;
        fs::write(&stage.config, stage.configuration(scenario))
            .map_err(|e| failed("writing the configuration", &e))?;
        let otad =
            std::env::current_exe().map_err(|e| failed("finding this program's own file", &e))?;
        program::write_scripts(dir, &otad).map_err(|e| failed("writing the scripts", &e))?;
        for target in programs {
            first_image(dir, target)?;
            stage.first.push(start_program(dir, target)?);
        }
        Ok(stage)
    }

    /// How many targets say themselves what they run: all but what takes builds, which is otad.
    pub(super) fn printing(&self) -> usize {
        self.programs + self.mcus.len()
    }

    /// What each target itself says that it runs, by file id.
    pub(super) fn printed(&self, dir: &Path) -> Vec<Option<String>> {
        let of_programs = self.targets[..self.programs]
            .iter()
            .map(|target| program::printed_version(dir, target));
        let of_mcus = self.mcus.iter().map(Secondary::running_version);
        of_programs.chain(of_mcus).collect()
    }

    /// The targets that are programs, each with the process that it began in.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'static str, Pid)> {
        self.targets.iter().copied().zip(self.first.iter().copied())
    }

    /// Whether the gateway's own program is the old version, in the process that it began in.
    pub(super) fn is_old(&self, dir: &Path) -> bool {
        let target = self.targets[0];
        program::running(dir, target) == self.first.first().copied()
            && program::printed_version(dir, target).as_deref() == Some(OLD_VERSION)
    }

    /// The image of the job for one target.
    pub(super) fn new_image(&self, dir: &Path, image: &Image) -> Result<Vec<u8>, Failed> {
        let file_id = image.file_id as usize;
        if file_id < self.programs {
            let path = new_image(dir, image)?;
            return fs::read(&path).map_err(|e| failed("reading the image", &e));
        }
        if file_id < self.printing() {
            return Ok(mcu::image(image));
        }
        let signer = self.cloud.code_signing();
        let signer = signer.map_err(|e| failed("signing key", &e))?;
        build::bundle(dir, &signer.private_key_path)
    }

    async fn credentials(&self, dir: &Path) -> Result<(), Failed> {
        let cloud_failed = |e: host_cloud::CloudError| failed("certificates", &e);
        let thing: ThingName = THING.parse().map_err(|e| failed("thing name", &e))?;
        let device = self
            .cloud
            .thing_create(&thing)
            .await
            .map_err(cloud_failed)?;
        let signer = self.cloud.code_signing().map_err(cloud_failed)?;
        // A broker has roots of its own; where it asks for a certificate, the daemon shows the cloud's.
        let broker = self.broker.as_ref();
        let root = broker.and_then(|b| b.ca.as_ref());
        let own = broker.and_then(|b| b.certificate.as_ref());
        let root = root.unwrap_or(&device.root_path);
        let (certificate, key) = match own {
            Some((certificate, key)) => (certificate, key),
            None => (&device.certificate_path, &device.private_key_path),
        };
        let write = || -> io::Result<()> {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(dir.join("trust"))?;
            fs::copy(root, dir.join("root.pem"))?;
            fs::copy(&device.root_path, dir.join("image-root.pem"))?;
            fs::copy(certificate, dir.join("certificate.pem"))?;
            // Permissions come along: the key stays 0600.
            fs::copy(key, dir.join("private-key.pem"))?;
            if let Some(login) = broker.and_then(|b| b.login.as_ref()) {
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(dir.join(PASSWORD))?;
                file.write_all(login.password.as_bytes())?;
            }
            fs::copy(&signer.certificate_path, dir.join("trust/signer.pem"))?;
            Ok(())
        };
        write().map_err(|e| failed("writing the certificates", &e))
    }

    /// How the daemon shows who it is: as the cloud does at somebody else's broker, as a thing at the cloud's own.
    fn identity(&self) -> String {
        let broker = self.broker.as_ref();
        let login = broker.and_then(|b| b.login.as_ref()).map(|login| {
            let password = match login.password.is_empty() {
                true => String::new(),
                false => format!("password_file = \"{PASSWORD}\"\n"),
            };
            format!("user_name = {:?}\n{password}", login.user)
        });
        let by_password = |b: &BrokerConfig| {
            b.certificate.is_none() && b.login.as_ref().is_some_and(|l| !l.password.is_empty())
        };
        let certificate = match !broker.is_some_and(by_password) {
            true => "certificate = \"certificate.pem\"\nprivate_key = \"private-key.pem\"\n",
            false => "",
        };
        login.unwrap_or_default() + certificate
    }

    fn configuration(&self, scenario: &Scenario) -> String {
        let mut text = format!(
            r#"# The gateway of `otad demo`.

[daemon]
state_dir = "state"

[trust]
directory = "trust"
default = "signer"
code_signers = ["signer"]

[http]
roots = ["image-root.pem"]
allow_networks = ["127.0.0.0/8", "::1"]
proxy = "none"

[[device]]
name = "{THING}"

[device.mqtt]
endpoint = "localhost"
port = {port}
tls = {tls}
root_certificate = "root.pem"
{identity}reconnect_min_ms = 200
reconnect_max_ms = 1000

[device.agent]
{agent_lines}"#,
            port = self.proxy.port(),
            tls = self.broker.as_ref().is_none_or(|b| b.url.tls),
            identity = self.identity(),
            agent_lines = scenario.agent_lines,
        );
        for (file_id, target) in self.targets.iter().enumerate().take(self.programs) {
            text.push_str(&format!(
                r#"
[[device.target]]
name = "{target}"
file_id = {file_id}
plugin = "flash-file"
carrier = "{carrier}"
directory = "targets/{target}"
slot_size_bytes = {SLOT_SIZE_BYTES}
product = "{PRODUCT}"
restart = {{ command = ["./restart.sh", "{target}"] }}
version_command = {{ command = ["./version.sh", "{target}"] }}
health = {{ command = ["./health.sh", "{target}"] }}
{target_lines}
[device.target.settings]
settle_ms = {SETTLE_MS}
"#,
                carrier = self.carrier,
                target_lines = scenario.target_lines,
            ));
        }
        for (file_id, mcu) in (self.programs..).zip(&self.mcus) {
            let is_sick = scenario.job.images().iter().any(|image| {
                image.file_id as usize == file_id && image.behaviour == Behaviour::Sick
            });
            text.push_str(&mcu.configuration(file_id, self.carrier, is_sick));
        }
        if matches!(scenario.job, Job::Agent(_)) {
            text.push_str(&build::configuration(self.programs));
        }
        text
    }
}

/// What the proxy stands before.
async fn upstream(
    cloud: &CloudHandle,
    broker: Option<&BrokerConfig>,
) -> Result<SocketAddr, Failed> {
    let Some(broker) = broker else {
        return cloud
            .tls_addr()
            .ok_or_else(|| Failed::new(Exit::Failed, "the cloud has no TLS endpoint"));
    };
    let connected = async {
        let mut status = cloud.broker()?;
        status.wait_for(|status| status.connected).await.ok()?;
        Some(())
    };
    let in_time = tokio::time::timeout(BROKER_MAX, connected).await;
    if in_time.is_err() {
        let status = cloud.broker().map(|status| status.borrow().clone());
        let error = status.and_then(|status| status.last_error);
        return Err(Failed::new(
            Exit::Failed,
            format!("{}: {}", broker.url, error.unwrap_or_default()),
        ));
    }
    let url = &broker.url;
    tokio::net::lookup_host((url.host.as_str(), url.port))
        .await
        .map_err(|e| failed("finding the broker", &e))?
        .next()
        .ok_or_else(|| Failed::new(Exit::Failed, "the broker has no address"))
}

async fn start_cloud(
    scenario: &Scenario,
    dir: &Path,
    broker: Option<BrokerConfig>,
    http_port: Option<u16>,
) -> Result<CloudHandle, Failed> {
    let faults = [
        (
            scenario.lost_percent,
            Fault::DropBlocksPercent(scenario.lost_percent),
        ),
        (
            scenario.doubled_percent,
            Fault::DuplicateBlocksPercent(scenario.doubled_percent),
        ),
    ];
    let faults = faults
        .into_iter()
        .filter_map(|(percent, fault)| (percent > 0).then_some(fault));
    let mut config = CloudConfig {
        faults: Box::new(FaultPlan::new(FAULT_SEED, faults)),
        http: http_port.map(|port| HttpConfig {
            port: Some(port),
            ..HttpConfig::new(([127, 0, 0, 1], 0).into())
        }),
        ..CloudConfig::new(dir.join("cloud"))
    };
    if broker.is_some() {
        config.tls = None;
        config.broker = broker;
    }
    Cloud::start(config)
        .await
        .map_err(|e| failed("starting the cloud", &e))
}

/// The files of a target.
pub(super) fn files(dir: &Path, target: &str) -> Files {
    let at = |name: &str| dir.join("targets").join(target).join(name);
    Files {
        slot_a: at("slot-a"),
        slot_b: at("slot-b"),
        record: at("record"),
        tries: at("tries"),
    }
}

/// An image, packed; its size is the one asked for, trailer included.
pub(super) fn pack(
    dir: &Path,
    version: &str,
    product: &str,
    behaviour: Behaviour,
    size_bytes: usize,
) -> Result<PathBuf, Failed> {
    let program = dir.join(format!("app-{version}"));
    let image = dir.join(format!("app-{version}.img"));
    let payload = size_bytes.saturating_sub(host_runtime::target::trailer::TRAILER_BYTES);
    fs::write(&program, program::application(version, behaviour, payload))
        .map_err(|e| failed("writing the application", &e))?;
    let number = image::parse_version(version).map_err(|e| Failed::new(Exit::Failed, e))?;
    image::pack(&program, &image, number, product, "")?;
    Ok(image)
}

/// The image of the job.
fn new_image(dir: &Path, image: &Image) -> Result<PathBuf, Failed> {
    pack(
        dir,
        image.version,
        image.product,
        image.behaviour,
        image.size_bytes,
    )
}

fn first_image(dir: &Path, target: &str) -> Result<(), Failed> {
    let image = pack(dir, OLD_VERSION, PRODUCT, Behaviour::Good, OLD_IMAGE_BYTES)?;
    let state =
        FileStateDir::open(&dir.join("state")).map_err(|e| failed("state directory", &e))?;
    let place = Place {
        device: THING,
        target,
        files: &files(dir, target),
        slot_size_bytes: SLOT_SIZE_BYTES,
        force: false,
    };
    target_init::init(&place, &image, &state).map(drop)
}

fn start_program(dir: &Path, target: &str) -> Result<Pid, Failed> {
    let status = Command::new(dir.join("restart.sh"))
        .arg(target)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| failed("starting the old version", &e))?;
    if let Some(pid) = program::running(dir, target)
        && status.success()
        && program::printed_version(dir, target).as_deref() == Some(OLD_VERSION)
    {
        return Ok(pid);
    }
    let log = fs::read_to_string(dir.join(format!("{target}.log"))).unwrap_or_default();
    Err(Failed::new(
        Exit::Failed,
        format!(
            "version {OLD_VERSION} of {target} does not start: {}",
            log.trim()
        ),
    ))
}
