//! What only the machine can tell about a configuration: do the files exist, do they hold what they should, is there a
//! program behind a command.
//!
//! `otad config check` prints all findings; `otad run` refuses to start on an error and logs the warnings. Nothing is
//! created or changed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::iter;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_cloud::limits::AWS_SUBSCRIPTIONS_MAX;
use host_crypto::{Certificate, Facts, TrustStore};
use host_http::{Proxies, Roots};
use host_mqtt::{MqttError, Notice};
use host_runtime::choice;
use host_runtime::engine::cache_refusal;
use host_runtime::ports::clock::{Clock as _, SystemClock, utc};
use host_runtime::ports::line::LinePlace;
use host_runtime::ports::state_dir::FileStateDir;
use rustix::fs::Access;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::build::BUILD;
use super::diagnostic::{Diagnostic, Origin};
use super::hooks;
use super::model::{
    AgentChoice, Carrier, Config, Daemon, Development, Device, Line, Login, Mqtt, Password,
    PluginChoice, Program, Region, Reset, Target, VersionFrom,
};
use super::place::{Own, TAKEN_HELP, Taken};
use super::reader::Located;
use crate::code::{Entry, Gate, Kind, Place, lapse};
use crate::control::group;
use crate::daemon::check_dir;
use crate::exit::chain;
use crate::gateway::kept::{Barred, Look};
use crate::gateway::{self, Denial, Questions};
use crate::lock;

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether `otad config check` fails; of what [`check`] finds, also whether `otad run` refuses to start.
    pub is_error: bool,
    /// What and where.
    pub diagnostic: Diagnostic,
}

/// Largest PEM file read: a root store with every public authority has some 250 KiB.
const PEM_MAX_BYTES: u64 = 1 << 20;

/// Those of an agent in a job: `notify-next`, blocks, and refusals of the stream's.
const AGENT_SUBSCRIPTIONS: usize = 3;

/// Besides, where it subscribes to replies: to the question for a job and to a status, accepted and rejected.
const REPLY_SUBSCRIPTIONS: usize = 4;

struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, origin: &Origin, message: String, help: &str) {
        self.push(true, origin, message, help);
    }

    fn warning(&mut self, origin: &Origin, message: String, help: &str) {
        self.push(false, origin, message, help);
    }

    fn push(&mut self, is_error: bool, origin: &Origin, message: String, help: &str) {
        let diagnostic = Diagnostic::new(origin.clone(), message).help(help);
        self.0.push(Finding {
            is_error,
            diagnostic,
        });
    }
}

/// Look at the machine.
#[must_use]
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    for text in config.development.warnings() {
        findings.warning(
            &Origin::File,
            text.to_owned(),
            "remove it before the device leaves the laboratory",
        );
    }
    if let Some(name) = &config.daemon.control_group
        && group::id(&name.value).is_none()
    {
        findings.error(
            &name.origin,
            format!("no group \"{}\" on this machine", name.value),
            "create it with `groupadd`, or remove `control_group`",
        );
    }
    if let Some(group) = &config.daemon.control_group
        && !may_be_entered_by_a_group(&config.daemon)
    {
        findings.warning(
            &group.origin,
            format!(
                "the control socket lies in the state directory, which \"{}\" may not enter",
                group.value
            ),
            "set `control_socket` to a path in a directory that the group may enter, such as \"/run/otad/control.sock\"",
        );
    }
    if let Some(dir) = &config.daemon.plugin_dir
        && !dir.value.is_dir()
    {
        findings.error(
            &dir.origin,
            format!("{} is no directory", dir.value.display()),
            "create it; it belongs to otad's user, and nobody else may write there",
        );
    }
    own_directories(config, &mut findings);
    trust(config, &mut findings);
    code_signers(config, &mut findings);
    http(config, &mut findings);
    for download in &config.downloads {
        let directory = &download.directory;
        if !directory.value.is_dir() {
            findings.error(
                &directory.origin,
                format!("{} is no directory", directory.value.display()),
                "create it and put the images into it, where nobody but their owner may write",
            );
        }
    }
    let (own, mut granted) = (Own::of(config), Vec::new());
    for device in &config.devices {
        if device.mqtt.connection_of.is_none() {
            mqtt(&device.mqtt, config.development, &mut findings);
        }
        hooks(device, &mut findings);
        for t in &device.targets {
            target(&device.name.value, t, &mut findings);
            for Taken { place, why } in own.taken(t) {
                findings.error(&place.origin, why, TAKEN_HELP);
            }
            grants(config, t, &mut findings);
            alone(t, &mut granted, &mut findings);
        }
    }
    subscriptions(config, &mut findings);
    findings.0
}

/// Whether agents and plugins from files would be let in. Apart from [`check`], for `otad run` goes on where one would not:
/// without what it serves.
#[must_use]
pub fn check_code(config: &Config) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    let daemon = &config.daemon;
    if let Some(dir) = daemon.plugin_dir.as_ref().filter(|dir| dir.value.is_dir())
        && let Err(why) = check_dir(&dir.value, user(config), daemon.plugin_dir_shared)
    {
        let text = format!("{}: {why}", dir.value.display());
        findings.error(&dir.origin, text, "otad would run without it");
    }
    let gate = gate(config);
    let state = state(config);
    let mut look = |place: &Place,
                    label: &str,
                    file: &Located<PathBuf>,
                    target: Option<&Target>| {
        let kind = target.map_or(Kind::Agent, |_| Kind::Plugin);
        let entry = match state.as_ref().is_some_and(|s| is_replaced(s, place, label)) {
            true => Entry::Before,
            false => Entry::New,
        };
        let end = gate.read(kind, &file.value).and_then(|code| {
            gate.check(code.signed.as_ref(), place, entry)?;
            let Some(Carrier::Native(native)) = target.map(|target| &target.carrier) else {
                return Ok(());
            };
            match gateway::native::isolation(config, native) {
                Ok(isolation) => code.confine(isolation).map(drop),
                // Said by `check`.
                Err(_) => Ok(()),
            }
        });
        if let Err(e) = end {
            findings.error(
                &file.origin,
                format!("{kind} {}: {}", file.value.display(), chain(&e)),
                "`otad sign` signs agents and plugins, `otad verify` says what is wrong; or use a built-in one by its name",
            );
        }
    };
    for device in &config.devices {
        let name = &device.name.value;
        if let AgentChoice::File(file) = &device.component {
            let label = gateway::agent_label(&device.component);
            look(&Place::agent(name), &label, file, None);
        }
        for target in &device.targets {
            if let PluginChoice::File(file) = &target.plugin {
                let place = Place::plugin(name, &target.name.value);
                look(&place, &gateway::label(target), file, Some(target));
            }
        }
    }
    if let Some(state) = &state {
        put_in(config, &gate, state, &mut findings);
    }
    findings.0
}

/// What was put in the place of configured builds is looked at by every start, too.
fn put_in(config: &Config, gate: &Gate, state: &FileStateDir, findings: &mut Findings) {
    let mut look = Look::new(gate, state, &config.daemon.state_dir.value);
    for device in &config.devices {
        let name = &device.name;
        let of_agent = (
            Place::agent(&name.value),
            choice::Kind::Agent,
            gateway::agent_label(&device.component),
            &name.origin,
        );
        let of_targets = device.targets.iter().map(|target| {
            let place = Place::plugin(&name.value, &target.name.value);
            let label = gateway::label(target);
            (place, choice::Kind::Plugin, label, &target.name.origin)
        });
        for (place, kind, label, origin) in iter::once(of_agent).chain(of_targets) {
            let Err(barred) = look.check(&place, kind, &label) else {
                continue;
            };
            let what = match kind {
                choice::Kind::Agent => "agent",
                choice::Kind::Plugin => "plugin",
            };
            let help = match kind {
                _ if barred.goes_back => {
                    "it is on trial: have it vouched for again before the next start, at which the build before it serves for good"
                }
                choice::Kind::Agent => {
                    "have it vouched for again, or `otad agent swap` another one: until then the one before it, or the \
                     configured one, serves"
                }
                choice::Kind::Plugin => {
                    "have it vouched for again, or `otad plugin swap` another one: until then every job of the target fails"
                }
            };
            let Barred { label, why, .. } = barred;
            let text = format!("{what} {label}, which was put in for {place}: {why}");
            findings.error(origin, text, help);
        }
    }
}

/// Whether plugins can be loaded, fit their targets and take their settings: each is asked. Apart from [`check`], for `otad run`
/// goes on where one does not: what else there is can still be updated.
///
/// A reload says what is `served` already, the same builds with the same settings: of that nobody is asked. Where a file cannot
/// be loaded it goes on, as a start does.
pub(crate) fn check_plugins(config: &Config, served: Option<&Questions>) -> Vec<Finding> {
    let state = state(config);
    let nothing = Questions::new();
    let mut asker = gateway::Asker::new(config, gate(config), served.unwrap_or(&nothing));
    let mut findings = Findings(Vec::new());
    for (place, target) in targets(config) {
        let is_asked = match (&target.plugin, &target.carrier) {
            // These need none.
            (PluginChoice::Builtin(_), _) => !target.plugin_settings.is_empty(),
            (PluginChoice::File(_), Carrier::Component) => true,
            (PluginChoice::File(_), Carrier::Native(_)) => false,
        };
        // Another build serves there, and the settings may be for that one.
        let is_replaced =
            |state: &FileStateDir| is_replaced(state, &place, &gateway::label(target));
        if !is_asked || state.as_ref().is_some_and(is_replaced) {
            continue;
        }
        match asker.ask(&place, target) {
            Ok(()) => {}
            Err(Denial::Load(_)) if served.is_some() => {}
            Err(denial) => denied(target, &denial, &mut findings),
        }
    }
    findings.0
}

fn targets(config: &Config) -> impl Iterator<Item = (Place, &Target)> {
    config.devices.iter().flat_map(|device| {
        let place = |target: &Target| Place::plugin(&device.name.value, &target.name.value);
        device
            .targets
            .iter()
            .map(move |target| (place(target), target))
    })
}

fn denied(target: &Target, denial: &Denial, findings: &mut Findings) {
    let (name, label) = (&target.name.value, gateway::label(target));
    let (origin, message, help) = match denial {
        Denial::Settings(why) => (
            &target.settings_at,
            format!("plugin {label} does not begin with the settings of target \"{name}\": {why}"),
            "mend [device.target.settings]; the README of the plugin lists what it knows",
        ),
        Denial::Breaks(why) => (
            &target.settings_at,
            format!(
                "plugin {label} breaks as it begins with the settings of target \"{name}\": {why}"
            ),
            "mend [device.target.settings], or use another build: one that breaks serves no job",
        ),
        Denial::Fit(why) => (
            &target.name.origin,
            format!("target \"{name}\": {why}"),
            "configure what it needs, or name another plugin: as it is, the whole device does not run",
        ),
        Denial::Load(why) => (
            &target.name.origin,
            format!("plugin {label} of target \"{name}\" cannot be loaded: {why}"),
            "`otad check FILE` says more; or use a built-in one by its name",
        ),
    };
    findings.error(origin, message, help);
}

/// Whether others than otad's user come as far as the control socket. A state directory that otad makes is its user's alone.
fn may_be_entered_by_a_group(daemon: &Daemon) -> bool {
    let state = &daemon.state_dir.value;
    !daemon.control_socket.value.starts_with(state)
        || fs::metadata(state).is_ok_and(|state| state.mode() & 0o010 != 0)
}

/// As the user that otad runs as has it.
fn gate(config: &Config) -> Gate {
    Gate::for_user(config, user(config), Arc::new(SystemClock::new()))
}

/// The user that otad runs as, who owns the state directory. Before there is one, whoever asks, but for root: that may be an
/// administrator who looks at the configuration of a service.
fn user(config: &Config) -> Option<u32> {
    let asks = rustix::process::geteuid().as_raw();
    match fs::metadata(&config.daemon.state_dir.value) {
        Ok(meta) => Some(meta.uid()),
        Err(_) => (asks != 0).then_some(asks),
    }
}

/// The state directory, where there is one.
fn state(config: &Config) -> Option<FileStateDir> {
    let path = &config.daemon.state_dir.value;
    path.is_dir().then(|| FileStateDir::open(path).ok())?
}

/// Whether an operator has put another build in the place of the configured one, `label`: that may be older then.
fn is_replaced(state: &FileStateDir, place: &Place, label: &str) -> bool {
    matches!(choice::load(state, place), Ok(Some(choice)) if choice.configured == label)
}

fn hooks(device: &Device, findings: &mut Findings) {
    let name = &device.name.value;
    for (key, hook) in device.hooks.all() {
        if let Err(message) = executable(&hook.program) {
            findings.error(
                &hook.origin,
                format!("hook `{key}` of device \"{name}\": {message}"),
                "the first word of `command` is the path of an executable file",
            );
        }
    }
    for (key, hook, why) in hooks::idle(&device.hooks, &device.agent, &device.targets) {
        findings.warning(
            &hook.origin,
            format!("hook `{key}` of device \"{name}\" is never called: {why}"),
            "remove that setting; the hook asks for the right one by itself",
        );
    }
}

/// Who may replace the agent or a plugin by a job is said by name.
fn code_signers(config: &Config, findings: &mut Findings) {
    let mut targets = config.devices.iter().flat_map(|device| &device.targets);
    let takes_builds = |target: &&Target| target.plugin == PluginChoice::Builtin(BUILD);
    if let (None, Some(target)) = (&config.trust.code_signers, targets.find(takes_builds)) {
        let name = &target.name;
        findings.error(
            &name.origin,
            format!(
                "target \"{}\" takes builds that come by jobs, and nobody is named who may sign them",
                name.value
            ),
            "name entries of the trust store in `[trust]`: code_signers = [\"ours\"]",
        );
    }
}

fn trust(config: &Config, findings: &mut Findings) {
    let Some(directory) = &config.trust.directory else {
        return;
    };
    let store = match TrustStore::load_for(&directory.value, user(config)) {
        Ok(store) => store,
        Err(e) => {
            findings.error(
                &directory.origin,
                format!("trust store: {}", chain(&e)),
                "a directory with the certificates (PEM, P-256 or RSA) of those who may sign, each in a file of its own",
            );
            return;
        }
    };
    let names: Vec<&str> = store.entries().map(Certificate::entry).collect();
    if names.is_empty() && !config.development.allow_unsigned_images {
        findings.error(
            &directory.origin,
            format!("trust store {} is empty", directory.value.display()),
            "put the certificates (PEM) of those who may sign images into it",
        );
    }
    let entries = config
        .trust
        .labels
        .iter()
        .map(|(_, entry)| entry)
        .chain(&config.trust.default)
        .chain(
            config
                .devices
                .iter()
                .flat_map(|d| d.targets.iter().filter_map(|t| t.certificate.as_ref())),
        );
    if let Some(signers) = &config.trust.code_signers {
        for entry in signers.value.iter().filter(|e| store.entry(e).is_none()) {
            findings.error(
                &signers.origin,
                format!("the trust store has no entry \"{entry}\""),
                &format!("entries: {}", names.join(", ")),
            );
        }
    }
    for entry in entries {
        if store.entry(&entry.value).is_none() {
            findings.error(
                &entry.origin,
                format!("the trust store has no entry \"{}\"", entry.value),
                &format!("entries: {}", names.join(", ")),
            );
        }
    }
}

/// The bytes of a PEM file, within the limit.
///
/// # Errors
/// Worded: the file cannot be read, or is too large.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let name = path.display();
    let file = File::open(path).map_err(|e| format!("{name}: {e}"))?;
    let mut bytes = Vec::new();
    file.take(PEM_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{name}: {e}"))?;
    if bytes.len() as u64 > PEM_MAX_BYTES {
        return Err(format!(
            "{name}: more than {PEM_MAX_BYTES} bytes, no PEM file of ours"
        ));
    }
    Ok(bytes)
}

/// The certificates of a PEM file: one at least.
///
/// # Errors
/// Worded: the file cannot be read, or holds none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read_pem(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|e| format!("{}: {e}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{}: holds no PEM certificate", path.display()));
    }
    Ok(found)
}

/// Whether a device's certificate is one that TLS takes.
///
/// # Errors
/// Worded: it is too old, and how to make another one.
pub(crate) fn of_version_3(chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let facts = chain.first().and_then(|own| Facts::of_der(own).ok());
    match facts {
        Some(Facts { version, .. }) if version != 3 => Err(format!(
            "the certificate is of X.509 version {version}, and TLS takes version 3 alone: make it anew with an extension, such \
             as `openssl x509 -req … -extfile FILE` where FILE says `basicConstraints=CA:FALSE`"
        )),
        Some(_) | None => Ok(()),
    }
}

/// The private key of a PEM file.
///
/// # Errors
/// Worded: the file cannot be read, or holds none.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read_pem(path)?)
        .map_err(|_| format!("{}: holds no PEM private key", path.display()))
}

/// Whether a key is the one of a certificate.
///
/// # Errors
/// Worded: it is not.
pub(crate) fn go_together(
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
) -> Result<(), String> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, private, &provider)
        .map(drop)
        .map_err(|e| format!("certificate and private key do not go together: {e}"))
}

fn http(config: &Config, findings: &mut Findings) {
    for root in &config.http.roots {
        if let Err(error) = Roots::Files(vec![root.value.clone()]).check() {
            findings.error(
                &root.origin,
                chain(&error),
                "PEM files of those who vouch for image servers; without `roots` the machine's are used",
            );
        }
    }
    // Whoever checks is often not whom the service manager starts.
    if config.http.uses_proxy
        && let Err(error) = Proxies::from_environment(|name| std::env::var(name).ok())
    {
        findings.warning(
            &Origin::File,
            format!(
                "[http] takes the proxies of the environment: {}",
                chain(&error)
            ),
            "mend the variable where `otad run` is started, or set `proxy = \"none\"` in [http]",
        );
    }
}

fn mqtt(mqtt: &Mqtt, development: Development, findings: &mut Findings) {
    if let Some(login) = &mqtt.login {
        password(login, findings);
    }
    if let Some(key) = &mqtt.private_key {
        private_mode(key, findings);
    }
    if let Some(certificate) = &mqtt.certificate {
        holds(certificate, findings);
    }
    let Err(error) = gateway::connection::check(mqtt, development.allow_plaintext) else {
        return;
    };
    let before = findings.0.len();
    identity(mqtt, findings);
    let file = match &error {
        MqttError::Unreadable { path, .. } | MqttError::Unusable { path, .. } => Some(path),
        MqttError::Identity { certificate, .. } => Some(certificate),
        _ => None,
    };
    if file.is_none() || findings.0.len() == before {
        let files = [&mqtt.root_certificate, &mqtt.certificate, &mqtt.private_key];
        let named = |at: &&Located<PathBuf>| Some(&at.value) == file;
        let at = files.into_iter().flatten().find(named);
        let origin = at.map_or(&mqtt.endpoint.origin, |at| &at.origin);
        let help = "host, port and PEM files are those that the broker expects";
        findings.error(origin, chain(&error), help);
    }
}

/// What is wrong with each of the files of a connection.
fn identity(mqtt: &Mqtt, findings: &mut Findings) {
    const HELP: &str = "PEM files; `otad thing create` and the AWS console write them";
    if let Some(root) = &mqtt.root_certificate
        && let Err(message) = certificates(&root.value)
    {
        findings.error(&root.origin, message, HELP);
    }
    let (Some(certificate), Some(key)) = (&mqtt.certificate, &mqtt.private_key) else {
        return;
    };
    let chain = certificates(&certificate.value);
    match (chain, private_key(&key.value)) {
        (Ok(chain), Ok(private)) => {
            if let Err(message) = of_version_3(&chain) {
                let text = format!("{}: {message}", certificate.value.display());
                findings.error(&certificate.origin, text, HELP);
            } else if let Err(message) = go_together(chain, private) {
                findings.error(&key.origin, message, HELP);
            }
        }
        (chain, private) => {
            if let Err(message) = chain {
                findings.error(&certificate.origin, message, HELP);
            }
            if let Err(message) = private {
                findings.error(&key.origin, message, HELP);
            }
        }
    }
}

/// Whether AWS takes what all devices of a connection subscribe to. One whose subscription it refuses hears of no job, or fails
/// the one that it has.
fn subscriptions(config: &Config, findings: &mut Findings) {
    let mut needed: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for device in &config.devices {
        let replies = match device.mqtt.subscribes_replies() {
            true => REPLY_SUBSCRIPTIONS,
            false => 0,
        };
        let owner = device.connection_owner().value.as_str();
        let (agents, topics) = needed.entry(owner).or_default();
        *agents += AGENT_SUBSCRIPTIONS + replies;
        topics.extend(device.notices.iter().map(Notice::topic));
    }
    for Device { name, mqtt, .. } in &config.devices {
        // By the names of those that have a connection of their own.
        let Some((agents, topics)) = needed.get(name.value.as_str()) else {
            continue;
        };
        let count = agents + topics.len();
        if mqtt.is_aws() && count > AWS_SUBSCRIPTIONS_MAX {
            findings.warning(
                &name.origin,
                format!(
                    "the devices on the connection of \"{}\" need {count} subscriptions while all of them have a job, AWS IoT allows {AWS_SUBSCRIPTIONS_MAX} a connection",
                    name.value
                ),
                "spread them over several connections: `connection_of` may name another device, or be left out",
            );
        }
    }
}

fn password(login: &Login, findings: &mut Findings) {
    match &login.password {
        Some(Password::File(file)) => {
            if let Err(error) = host_mqtt::Login::from_file("", &file.value) {
                findings.error(
                    &file.origin,
                    chain(&error),
                    "a file whose first line is the password that the broker knows",
                );
            }
            private_mode(file, findings);
        }
        // Whoever checks is often not whom the service manager starts.
        Some(Password::Environment(variable)) if std::env::var_os(&variable.value).is_none() => {
            findings.warning(
                &variable.origin,
                format!(
                    "the environment variable {} is not set here",
                    variable.value
                ),
                "it must be where `otad run` is started, such as in `EnvironmentFile=` of its unit",
            );
        }
        None | Some(Password::Environment(_)) => {}
    }
}

/// The clock of a gateway may be wrong when it starts, so one that does not hold by it is worth a warning and no more.
fn holds(certificate: &Located<PathBuf>, findings: &mut Findings) {
    let chain = certificates(&certificate.value).unwrap_or_default();
    let facts = chain.first().and_then(|own| Facts::of_der(own).ok());
    let (Some(Facts { validity, .. }), Some(now)) = (facts, SystemClock::new().wall_s()) else {
        return;
    };
    if let Some(what) = lapse(validity, now) {
        findings.warning(
            &certificate.origin,
            format!(
                "certificate {} {what}: it holds from {} to {}, this machine's clock says {}",
                certificate.value.display(),
                utc(validity.not_before),
                utc(validity.not_after),
                utc(now)
            ),
            "the broker will refuse it: renew it, or set the clock",
        );
    }
}

fn private_mode(key: &Located<PathBuf>, findings: &mut Findings) {
    let Ok(meta) = fs::metadata(&key.value) else {
        return;
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        findings.warning(
            &key.origin,
            format!(
                "{} has mode {mode:04o}, others may read it",
                key.value.display()
            ),
            "chmod 0600",
        );
    }
}

fn grants(config: &Config, target: &Target, findings: &mut Findings) {
    let Carrier::Native(native) = &target.carrier else {
        return;
    };
    let place = &target.name.origin;
    let name = &target.name.value;
    if native.in_process {
        findings.warning(
            place,
            format!("the plugin of target \"{name}\" runs in otad's own process"),
            "remove `isolation`: in a process of its own a mistake of the plugin's harms nobody else",
        );
    }
    if !native.directories.is_empty() || !native.devices.is_empty() {
        findings.warning(
            place,
            format!("what the plugin of target \"{name}\" writes to its own directories and devices, otad never reads back"),
            "let the bootloader there check each image before it starts it: it is the last gate",
        );
    }
    if let Err(e) = gateway::native::isolation(config, native) {
        findings.error(
            place,
            format!("grants of target \"{name}\": {}", chain(&e)),
            "name directories that are there and are the plugin's alone",
        );
    }
}

/// `config/native.rs` has compared the names of directories; two of them may lead to one place.
fn alone(target: &Target, granted: &mut Vec<PathBuf>, findings: &mut Findings) {
    let Carrier::Native(native) = &target.carrier else {
        return;
    };
    let mut own = Vec::new();
    for directory in &native.directories {
        let real = gateway::native::real_ancestor(&directory.value);
        let overlaps = |other: &&PathBuf| real.starts_with(other) || other.starts_with(&real);
        if let Some(other) = granted.iter().find(overlaps) {
            findings.error(
                &directory.origin,
                format!(
                    "{} leads to what is given to another plugin, too ({})",
                    directory.value.display(),
                    other.display()
                ),
                "give each native plugin a directory of its own",
            );
        }
        own.push(real);
    }
    granted.extend(own);
}

fn target(device: &str, target: &Target, findings: &mut Findings) {
    let place = &target.name.origin;
    let restart = match &target.reset {
        Reset::Command(program) => Some(program),
        Reset::Plugin | Reset::Process => None,
    };
    for (key, program) in [
        ("restart", restart),
        ("inspect", target.inspect.as_ref()),
        ("health", target.health.as_ref()),
        ("version_command", target.version_command.as_ref()),
    ] {
        if let Some(program) = program
            && let Err(message) = executable(program)
        {
            findings.error(
                place,
                format!("`{key}` of target \"{}\": {message}", target.name.value),
                "the first word of `command` is the path of an executable file",
            );
        }
    }
    let is_external = target
        .agent_settings
        .iter()
        .any(|s| s.key == "self_test" && s.value == "external");
    if target.health.is_none() && !is_external && !target.is_asked() {
        findings.warning(
            place,
            format!(
                "target \"{}\" of {device} has no `health` command and no external test: a new image counts as good if it stays \
                 up, as far as its plugin can tell",
                target.name.value
            ),
            "set `health` to a command that exits 0 if the program is well, or `self_test = \"external\"`",
        );
    }
    for region in &target.regions {
        if let Err(message) = file_or_nothing(&region.path.value) {
            findings.error(
                &region.path.origin,
                format!("region \"{}\": {message}", region.name),
                "slots and records are files of a file system; block devices are not supported yet",
            );
        }
    }
    slot_directories(target, findings);
    if let Some(line) = &target.line {
        check_line(line, findings);
    }
    let compared = (target.product.as_deref(), target.hardware.as_deref());
    if let Err(why) = gateway::version_reader(target.version_from).check(compared.0, compared.1) {
        findings.error(
            place,
            format!("target \"{}\": {why}", target.name.value),
            "`version_from` says what reads the image: \"trailer\" tells version, product and hardware",
        );
    }
    if target.version_from == VersionFrom::None && target.version_command.is_none() {
        findings.warning(
            place,
            format!(
                "target \"{}\": its version is known neither before nor after an update",
                target.name.value
            ),
            "set `version_from` or `version_command`; downgrades cannot be told otherwise",
        );
    }
}

/// A line that is not there may be plugged in later; something else under its name never works.
fn check_line(line: &Line, findings: &mut Findings) {
    let LinePlace::Tty(path) = &line.config.place else {
        return;
    };
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_char_device() => {}
        Ok(_) => findings.error(
            &line.origin,
            format!("`port` {} is no terminal device", path.display()),
            "name the device of the serial port, best by its link in /dev/serial/by-id",
        ),
        Err(e) => findings.warning(
            &line.origin,
            format!("`port` {}: {e}", path.display()),
            "plug it in; until then its target cannot be reached",
        ),
    }
}

/// The state directory and the cache, as far as they are there: what otad refuses at its start. Who asks may be somebody else.
fn own_directories(config: &Config, findings: &mut Findings) {
    let daemon = &config.daemon;
    let (state, cache) = (&daemon.state_dir, &daemon.cache_dir);
    let rows = [
        (&state.value, &state.origin, "the state directory"),
        (cache, &Origin::File, "the cache of compiled code"),
    ];
    for (path, origin, what) in rows {
        let mut there = path.ancestors().filter(|above| above.exists());
        if let Some(file) = there.next().filter(|above| !above.is_dir()) {
            findings.error(
                origin,
                format!(
                    "{what} {}: {} is no directory",
                    path.display(),
                    file.display()
                ),
                "name another place, or move away what lies there",
            );
        }
    }
    if let Ok(found) = fs::metadata(&state.value)
        && let Some(wrong) = lock::refusal(&state.value, &found, found.uid())
    {
        let text = format!("the {wrong}");
        findings.error(&state.origin, text, "`otad run` does not start with it");
    }
    if let Ok(found) = fs::symlink_metadata(cache)
        && cache.is_dir()
        && let Some(wrong) = cache_refusal(&found, user(config).unwrap_or_else(|| found.uid()))
    {
        findings.error(
            &Origin::File,
            format!("the cache of compiled code {} {wrong}", cache.display()),
            "name one that is otad's user's alone (mode 0700): compiled code is as trusted as otad itself",
        );
    }
}

/// Whether this process may write what it must. Apart from [`check`], for a medium that is mended needs no other configuration:
/// what cannot be written is told by a start, too. The cache of compiled code is none of it: one that is filled is read.
pub(crate) fn check_writable(config: &Config) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    let asks = rustix::process::geteuid().as_raw();
    if user(config).is_some_and(|user| asks != user && asks != 0) {
        return findings.0;
    }
    let state = &config.daemon.state_dir;
    let new_files = Access::WRITE_OK | Access::EXEC_OK;
    let mut places = BTreeMap::from([(&*state.value, (&state.origin, new_files))]);
    for target in config.devices.iter().flat_map(|device| &device.targets) {
        for Region { path, .. } in &target.regions {
            // A new file is made only where there is none.
            let place = match path.value.exists() {
                true => Some((&*path.value, (&path.origin, Access::WRITE_OK))),
                false => path
                    .value
                    .parent()
                    .map(|dir| (dir, (&path.origin, new_files))),
            };
            places.extend(place);
        }
        if let Some(staging) = &target.staging {
            let dir = staging.value.parent();
            places.extend(dir.map(|dir| (dir, (&staging.origin, new_files))));
        }
    }
    for (place, (origin, may)) in places.into_iter().filter(|(place, _)| place.exists()) {
        if let Err(e) = rustix::fs::access(place, may) {
            findings.error(
                origin,
                format!("nothing can be written to {}: {e}", place.display()),
                "mount it for writing, or give it to otad's user",
            );
        }
    }
    findings.0
}

/// Whoever may write there may put something else into the place of what was verified, just before it is started.
fn slot_directories(target: &Target, findings: &mut Findings) {
    let mut seen = Vec::new();
    for region in &target.regions {
        let Some(directory) = region.path.value.parent() else {
            continue;
        };
        if seen.contains(&directory) {
            continue;
        }
        seen.push(directory);
        // One that is not there is made, with the right mode.
        if let Ok(Some(wrong)) = lock::unsafe_rights(directory) {
            findings.warning(
                &region.path.origin,
                format!("directory {} {wrong}", directory.display()),
                "programs are started from there: let nobody but their owner write",
            );
        }
    }
}

/// What `FileStorage` refuses; nothing is opened here, for a device may act on that.
fn file_or_nothing(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(format!("{} is no regular file", path.display())),
        _ => Ok(()),
    }
}

fn executable(program: &Program) -> Result<(), String> {
    let path = program.argv.first().map_or("", String::as_str);
    let meta = fs::metadata(path).map_err(|e| format!("{path}: {e}"))?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(format!("{path} is not executable"));
    }
    Ok(())
}
