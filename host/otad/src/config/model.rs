//! The configuration as the rest of the program sees it: typed, checked, with defaults filled in.
//!
//! Values that can still turn out wrong when they are used (files, certificates) keep their place in the file. Not here:
//! reading (`sections.rs`) and what can only be checked against the machine (`check.rs`).

use std::num::NonZeroU32;
use std::path::PathBuf;

use host_runtime::ports::line::LineConfig;
use host_runtime::ports::reset::ControlLine;
use host_runtime::types::Setting;

use super::build::BUILD;
use super::diagnostic::Origin;
use super::reader::Located;

/// One configuration file.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub file: PathBuf,
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[development]`.
    pub development: Development,
    /// `[trust]`.
    pub trust: Trust,
    /// `[http]`.
    pub http: Http,
    /// `[bandwidth]`.
    pub bandwidth: host_runtime::bandwidth::Cap,
    /// `[[download]]`.
    pub downloads: Vec<Download>,
    /// `[[device]]`.
    pub devices: Vec<Device>,
}

/// `[[download]]`: where images lie whose URL has this scheme.
#[derive(Clone, Debug)]
pub struct Download {
    /// Of the URL, without `://`.
    pub scheme: String,
    /// What the path of the URL is below.
    pub directory: Located<PathBuf>,
}

/// `[http]`: fetching images by URL.
#[derive(Clone, Debug)]
pub struct Http {
    /// As the adapter takes it, but for proxies.
    pub config: host_http::HttpConfig,
    /// Files of root certificates; none = those of the machine.
    pub roots: Vec<Located<PathBuf>>,
    /// Whether the proxies of the environment are used.
    pub uses_proxy: bool,
}

/// `[daemon]`.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Journals, block maps, records, locks.
    pub state_dir: Located<PathBuf>,
    /// Compiled components, which only save the next start some time; `state_dir`/code if not set. Ours alone (0700).
    pub cache_dir: PathBuf,
    /// Where `otad status` and its siblings reach the daemon.
    pub control_socket: Located<PathBuf>,
    /// Where plugin builds are dropped that are to be put in.
    pub plugin_dir: Option<Located<PathBuf>>,
    /// Others than otad's own user and root may write there.
    pub plugin_dir_shared: bool,
    /// Group that may use the socket (mode 0660); otherwise only the owner (0600).
    pub control_group: Option<Located<String>>,
    /// Agents of devices without a job are parked after so many milliseconds without an event; 0 = never.
    pub park_after_ms: u64,
    /// Connections that are begun in a second.
    pub connects_per_s_max: NonZeroU32,
    /// Log filter of the console, such as `info` or `info,host_mqtt=debug`.
    pub log: String,
}

/// `[development]`: each of these is announced at every start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Development {
    /// Images without a signature are taken.
    pub allow_unsigned_images: bool,
    /// MQTT without TLS beyond loopback.
    pub allow_plaintext: bool,
    /// URLs of images without TLS.
    pub allow_plaintext_http: bool,
    /// Plugins from files that nobody has signed.
    pub allow_file_plugins: bool,
    /// Agents from files that nobody has signed.
    pub allow_file_agents: bool,
    /// Plugins and agents that are older than what was accepted before.
    pub allow_older_code: bool,
}

impl Development {
    /// What to shout at every start.
    #[must_use]
    pub fn warnings(self) -> Vec<&'static str> {
        [
            (
                self.allow_unsigned_images,
                "DEVELOPMENT SETTING allow_unsigned_images: images without a signature are installed",
            ),
            (
                self.allow_plaintext,
                "DEVELOPMENT SETTING allow_plaintext: MQTT runs without TLS, anybody on the way can read and write it",
            ),
            (
                self.allow_plaintext_http,
                "DEVELOPMENT SETTING allow_plaintext_http: images are fetched without TLS, anybody on the way can read them",
            ),
            (
                self.allow_file_plugins,
                "DEVELOPMENT SETTING allow_file_plugins: plugins are loaded also from files that nobody has signed",
            ),
            (
                self.allow_file_agents,
                "DEVELOPMENT SETTING allow_file_agents: agents are loaded also from files that nobody has signed",
            ),
            (
                self.allow_older_code,
                "DEVELOPMENT SETTING allow_older_code: plugins and agents may be older than those accepted before",
            ),
        ]
        .into_iter()
        .filter_map(|(on, text)| on.then_some(text))
        .collect()
    }
}

/// `[trust]`: who may sign images, plugins and agents.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Directory of PEM certificates; an entry is named as its file without the extension.
    pub directory: Option<Located<PathBuf>>,
    /// Entry for jobs that name none.
    pub default: Option<Located<String>>,
    /// `certfile` of a job -> entry.
    pub labels: Vec<(String, Located<String>)>,
    /// Entries whose signatures count for plugins and agents; `None` = all, for what does not come by a job.
    pub code_signers: Option<Located<Vec<String>>>,
}

/// `[[device]]`: one AWS thing.
#[derive(Clone, Debug)]
pub struct Device {
    /// Thing name.
    pub name: Located<String>,
    /// `[device.mqtt]`.
    pub mqtt: Mqtt,
    /// `[[device.notice]]`.
    pub notices: Vec<host_mqtt::Notice>,
    /// `component` of `[device.agent]`.
    pub component: AgentChoice,
    /// `[device.agent]`, as the agent gets it.
    pub agent: Vec<Setting>,
    /// `[device.hooks]`, completed by `[hooks]`.
    pub hooks: Hooks,
    /// `[[device.target]]`.
    pub targets: Vec<Target>,
}

impl Device {
    /// The device that has the connection: this one, unless it uses another one's.
    #[must_use]
    pub fn connection_owner(&self) -> &Located<String> {
        self.mqtt.connection_of.as_ref().unwrap_or(&self.name)
    }
}

/// How replies of the job service reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplySubscriptions {
    /// Subscribe, except at AWS IoT, which delivers unasked.
    Auto,
    /// Subscribe.
    Always,
    /// Do not.
    Never,
}

/// Where a password is; the configuration itself holds none.
#[derive(Clone, Debug)]
pub enum Password {
    /// The first line of this file.
    File(Located<PathBuf>),
    /// The environment variable of this name.
    Environment(Located<String>),
}

/// What a broker is told besides a certificate.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub user_name: Located<String>,
    /// Its password, if it has one.
    pub password: Option<Password>,
}

/// `[device.mqtt]`.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// The device of this configuration whose connection this one uses; all but `reply_subscriptions` is that one's then.
    pub connection_of: Option<Located<String>>,
    /// Host name or address.
    pub endpoint: Located<String>,
    /// TCP port.
    pub port: u16,
    /// Client id, by default the thing name.
    pub client_id: Located<String>,
    /// TLS, on unless turned off.
    pub tls: bool,
    /// Certificates that the endpoint's certificate must lead to.
    pub root_certificate: Option<Located<PathBuf>>,
    /// The device's certificate.
    pub certificate: Option<Located<PathBuf>>,
    /// Its private key.
    pub private_key: Option<Located<PathBuf>>,
    /// User name and password, beside the certificate or in its place.
    pub login: Option<Login>,
    /// ALPN protocol, `off` for none; by default what AWS wants on 443, none elsewhere.
    pub alpn: Option<String>,
    /// Whether this is AWS IoT under another name.
    pub aws: bool,
    /// See [`ReplySubscriptions`].
    pub reply_subscriptions: ReplySubscriptions,
    /// Seconds.
    pub keep_alive_s: u16,
    /// Milliseconds.
    pub connect_timeout_ms: u64,
    /// Milliseconds.
    pub reconnect_min_ms: u64,
    /// Milliseconds.
    pub reconnect_max_ms: u64,
    /// Failed publishes in a row.
    pub publish_failures_max: u32,
}

impl Mqtt {
    /// Where it connects to.
    #[must_use]
    pub fn place(&self) -> host_mqtt::Endpoint {
        host_mqtt::Endpoint {
            host: self.endpoint.value.clone(),
            port: self.port,
        }
    }

    /// Whether AWS IoT is there.
    #[must_use]
    pub fn is_aws(&self) -> bool {
        self.aws || self.place().is_aws()
    }

    /// Whether the device subscribes to the replies of the job service.
    #[must_use]
    pub fn subscribes_replies(&self) -> bool {
        match self.reply_subscriptions {
            ReplySubscriptions::Auto => host_mqtt::ReplySubscriptions::Auto,
            ReplySubscriptions::Always => host_mqtt::ReplySubscriptions::Always,
            ReplySubscriptions::Never => host_mqtt::ReplySubscriptions::Never,
        }
        .resolve(&self.place(), self.aws)
    }

    /// Whether the endpoint is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.endpoint.value.as_str();
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|a| a.is_loopback())
    }
}

/// One program of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Killed after this.
    pub deadline_ms: u64,
}

/// One program of the application's that decides or is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What is run; the path is absolute.
    pub program: Program,
    /// Where it stands.
    pub origin: Origin,
}

/// The hooks of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Is the offered job to be taken?
    pub job: Option<Hook>,
    /// May the target restart into the new image now?
    pub activate: Option<Hook>,
    /// Is the image in test good?
    pub start_test: Option<Hook>,
    /// A job has failed.
    pub fail: Option<Hook>,
    /// Whose is this job that is no update? Asked one after the other, until one takes it.
    pub custom_job: Vec<Hook>,
}

impl Hooks {
    /// Each one that there is, with its key.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        [
            ("job", &self.job),
            ("activate", &self.activate),
            ("start_test", &self.start_test),
            ("fail", &self.fail),
        ]
        .into_iter()
        .filter_map(|(key, hook)| Some((key, hook.as_ref()?)))
        .chain(self.custom_job.iter().map(|hook| ("custom_job", hook)))
    }
}

/// Which agent a device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentChoice {
    /// One that is part of otad.
    Builtin(&'static str),
    /// A component in a file.
    File(Located<PathBuf>),
}

/// Which plugin serves a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginChoice {
    /// One that is part of otad.
    Builtin(&'static str),
    /// One in a file.
    File(Located<PathBuf>),
}

/// What carries a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// It is a component.
    Component,
    /// It is a shared library.
    Native(Native),
}

/// `[device.target.native]`: what the process of a native plugin may open beside what the plugin is lent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Native {
    /// It runs in the daemon's own process. Announced at every start.
    pub in_process: bool,
    /// It runs where the kernel cannot confine it, too. Announced where that is so.
    pub allow_unconfined: bool,
    /// Directories to read and write in; the first is where it works.
    pub directories: Vec<Located<PathBuf>>,
    /// Devices.
    pub devices: Vec<Located<PathBuf>>,
}

/// How version and product are read from an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionFrom {
    /// The otad image trailer.
    Trailer,
    /// The MCUboot header.
    Mcuboot,
    /// The plugin reads them.
    Plugin,
    /// A fixed place in the image.
    Offset(u64),
    /// Known only after a restart.
    None,
}

/// How a target is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The plugin does it.
    Plugin,
    /// A command of the operator's does it.
    Command(Program),
    /// otad itself is the target: it ends, and the service manager starts it through `otad launch`.
    Process,
}

/// When a verified image is activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// At once.
    Immediate,
    /// On `otad activate`.
    Deferred,
}

/// What a region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Images.
    Slot,
    /// What the boot reader reads.
    Record,
}

/// Storage that is lent to a plugin.
#[derive(Clone, Debug)]
pub struct Region {
    /// Name the plugin knows it by.
    pub name: String,
    /// What it is for.
    pub kind: RegionKind,
    /// The file.
    pub path: Located<PathBuf>,
    /// Bytes it may hold.
    pub size_bytes: u64,
    /// The plugin may not write it.
    pub read_only: bool,
}

/// `[device.target.line]`.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it is and how it is set.
    pub config: LineConfig,
    /// Where `port` stands.
    pub origin: Origin,
}

/// `[device.target.hardware_reset]`.
#[derive(Clone, Debug)]
pub struct HardwareReset {
    /// By what.
    pub by: ResetBy,
    /// How long it is held.
    pub hold_ms: u32,
}

/// What resets a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// A line of a GPIO chip.
    Gpio {
        /// Its device.
        chip: PathBuf,
        /// Number of the line.
        offset: u32,
        /// Low = in reset.
        active_low: bool,
    },
    /// A control line of the target's own port.
    Control {
        /// Which.
        control: ControlLine,
        /// The driver's `false` = in reset.
        active_low: bool,
    },
    /// A program.
    Command(Program),
}

/// `[[device.target]]`.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name, unique within the device.
    pub name: Located<String>,
    /// `fileid` of job documents.
    pub file_id: u32,
    /// Which plugin.
    pub plugin: PluginChoice,
    /// Of a target that brings builds: whose plugin; `None` = the device's agent.
    pub of_target: Option<Located<String>>,
    /// What carries it.
    pub carrier: Carrier,
    /// `[device.target.settings]`, for the plugin.
    pub plugin_settings: Vec<Setting>,
    /// Where these stand, or would.
    pub settings_at: Origin,
    /// What the agent is told about this target.
    pub agent_settings: Vec<Setting>,
    /// Directory of a flash-file target.
    pub directory: Option<Located<PathBuf>>,
    /// Storage.
    pub regions: Vec<Region>,
    /// File in which a staged target's image is put together; otherwise one in the state directory.
    pub staging: Option<Located<PathBuf>>,
    /// Its line.
    pub line: Option<Line>,
    /// Its reset input.
    pub hardware_reset: Option<HardwareReset>,
    /// Where version and product are read.
    pub version_from: VersionFrom,
    /// Prints the version that runs.
    pub version_command: Option<Program>,
    /// Product that images must be for.
    pub product: Option<String>,
    /// Hardware that images must be for.
    pub hardware: Option<String>,
    /// How it is restarted.
    pub reset: Reset,
    /// Exits 0 if an image that is verified already may be used.
    pub inspect: Option<Program>,
    /// Exits 0 if the target is well.
    pub health: Option<Program>,
    /// Trust entry for jobs that name none, in place of `trust.default`.
    pub certificate: Option<Located<String>>,
    /// What a job's `filepath` may say, to the letter; empty = any relative path without `..`. It opens nothing.
    pub filepaths: Vec<String>,
    /// When it is activated.
    pub activation: Activation,
    /// See `keys.rs`.
    pub tries_max: u32,
    /// See `keys.rs`.
    pub sync_bytes: u64,
}

impl Target {
    /// Whether its plugin asks it in the self-test: an MCU for its image, its version and an echo; a build by what it serves.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self.plugin, PluginChoice::Builtin("serial-mcu" | BUILD))
    }
}

impl Config {
    /// The device of this name; without a name the only one there is.
    #[must_use]
    pub fn device(&self, name: Option<&str>) -> Option<&Device> {
        match name {
            Some(name) => self.devices.iter().find(|d| d.name.value == name),
            None if self.devices.len() == 1 => self.devices.first(),
            None => None,
        }
    }
}
