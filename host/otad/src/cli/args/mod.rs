//! The command line as data: verbs, options, help. What they do is beside, one file a verb.

mod check;
mod cloud;
mod config;
mod mcu;
mod mcu_sim;
mod sandbox;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::console::LogFormat;
use crate::control::protocol::FinishStatus;

pub use check::{Builtin, CheckArgs, GuestArg};
pub use cloud::{AskArgs, BrokerArgs, CloudArg, CloudArgs, GroupVerb, LimitsArg, ThingVerb};
pub use config::{ConfigVerb, InitArgs};
pub use mcu::{LinkArgs, McuImageVerb, McuVerb};
pub use mcu_sim::{McuFaultArgs, McuSimArgs, McuSizeArgs, McuTimeArgs};
pub use sandbox::{FaultArg, ReplayArgs, SandboxArgs, SeedsArg};
pub use update::{
    AwsArgs, CreateArgs, Keyed, PlaceArgs, ProtocolArg, SignatureKindArg, UpdateVerb,
};

const TOP_HELP: &str = "\
Quick start, with everything on this machine:
  otad cloud --dir cloud &                       the cloud in a box; prints its endpoint
  otad thing create pump-1 --cloud cloud --out pump-1
                                                 key, certificate and a ready configuration
  otad run --config pump-1/otad.toml &           the daemon
  otad update create --cloud cloud --thing pump-1 --file app.img --wait
  otad status --config pump-1/otad.toml

Or all of it in one go: otad demo";

/// Over-the-air updates for Linux gateways: the AWS IoT OTA agent as a sandboxed component, native verification, one
/// plugin per target.
#[derive(Debug, Parser)]
#[command(name = "otad", version, after_help = TOP_HELP, after_long_help = long_help(), max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do.
    pub verb: Verb,
}

fn long_help() -> String {
    format!(
        "{TOP_HELP}\n\n{}\nThe configuration is --config FILE, else $OTAD_CONFIG, else /etc/otad/otad.toml. Any of its \
         values can be overridden by the environment: OTAD_SECTION__KEY=value, such as \
         OTAD_DEVICE__0__MQTT__ENDPOINT=broker.example.",
        crate::exit::help()
    )
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon: connect every device of the configuration and update its targets.
    #[command(after_help = "\
Ends cleanly on SIGTERM and SIGINT. On SIGHUP it reads configuration, certificates and trust store again and goes on with \
them, updates under way too; state_dir, cache_dir, control_socket and control_group take a restart. Tells systemd how it is \
where NOTIFY_SOCKET is set (Type=notify-reload, WatchdogSec). Ends with exit code 4 when its own software (a target with reset = \"process\") is to \
be restarted: let the service manager start it again through `otad launch`.

Examples:
  otad run --config pump-1/otad.toml
  otad run --log info,host_mqtt=debug --log-format json

Exit codes: 0 told to end, 1 failed, 3 another daemon uses the state directory, 4 to be started again, 78 the configuration is wrong.")]
    Run(RunArgs),
    /// Show a whole update, from notification to commit, on this machine and with the real parts.
    #[command(after_help = "\
Examples:
  otad demo                                      a signed 2 MiB image over TLS, from 1.0.0 to 1.1.0
  otad demo --list                               the other scenarios
  otad demo --scenario bad-signature             an image that was changed after signing
  otad demo --dir /tmp/demo --keep               look at the files afterwards

Exit code 0 if the scenario ended as it should. The last line is the job's final status and reason.")]
    Demo(DemoArgs),
    /// Run an agent or a plugin through thousands of simulated updates in which everything goes wrong that can.
    #[command(after_help = "\
A whole gateway in virtual time: cloud, network, storage, power, launcher. Each seed is one update with faults of its own; the \
same seed is the same run to the byte, everywhere. Checkers watch from outside that the gateway always has an image that \
starts, that nothing unverified is activated, that nothing is committed untested, and, once the faults are over, that every job \
ends, with a reason. A failure is made small and printed with the command that repeats it.

Examples:
  otad sandbox agent.wasm --seeds 1..100000      a swarm
  otad sandbox agent.wasm --scenario plain --every-cut
                                                 every kill and every power cut of one update
  otad sandbox --builtin agent --list            the scenarios, and the kinds of faults
  otad sandbox agent.wasm --seeds 7 --scenario update --blocks 4 --fault power=during-17 --trace
                                                 one run, told in full

Exit code 0 if nothing was found, 1 if something was, 5 for a component that this host refuses.")]
    Sandbox(SandboxArgs),
    /// Let an agent do again, offline, what `otad run --record` has recorded.
    #[command(after_help = "\
A trace holds every call across the agent's boundary, images as zeros and secrets as tokens of the same length. The agent is \
asked what was asked then and given the answers of then; the first thing that it does differently is shown. Nothing that it \
does reaches anything.

Examples:
  otad replay pump-1/000007.trace --builtin agent
  otad replay pump-1/000007.trace agent.wasm --effects
                                                 another build: only what has an effect counts
  otad replay --diff old.wasm new.wasm pump-1/000007.trace
                                                 where two builds first differ

Exit code 0 if there is no difference, 1 if there is one, 5 for a component that this host refuses, 6 for a damaged trace.")]
    Replay(ReplayArgs),
    /// Run the cloud in a box: AWS IoT Jobs and file streams over an MQTT endpoint with TLS.
    #[command(after_help = "\
Examples:
  otad cloud --dir cloud                         an endpoint of its own on 127.0.0.1:8883
  otad cloud --dir cloud --broker mqtts://broker.example --broker-ca broker-ca.pem \\
             --broker-certificate cloud.pem --broker-key cloud.key

At somebody else's broker only its access list keeps things apart: let each client use $aws/things/<its name>/# and nobody but \
the cloud any more of $aws/ (host-cloud's README has one for mosquitto).

Exit codes: 0 told to end, 1 failed, 3 another cloud uses DIR.")]
    Cloud(CloudArgs),
    /// Things of the cloud in a box.
    #[command(subcommand)]
    Thing(ThingVerb),
    /// Groups of things.
    #[command(subcommand)]
    Group(GroupVerb),
    /// Updates: create one, watch it, cancel or forget it.
    #[command(subcommand)]
    Update(UpdateVerb),
    /// What every device of the daemon is doing.
    #[command(after_help = "\
The counters are those of the C agent, of file blocks only: received, queued (received and not yet looked at), processed \
(taken) and dropped (not wanted, twice, or no room).

Examples:
  otad status
  otad status --watch                            once a second, until interrupted
  otad status --json --device pump-1")]
    Status(StatusArgs),
    /// What a device or a job waits for: since when, how often asked, when it is tried again, when it gives up.
    #[command(after_help = "\
Where the daemon does not run, its state directory is read, and the answer says so and from when it is. A job that is over is \
shown as in `otad history`.

Examples:
  otad why
  otad why AFR_OTA-7 --json
  otad why --state-dir /var/lib/otad             of a gateway whose daemon is stopped

Exit code 2 for a job that nobody here knows.")]
    Why(WhyArgs),
    /// Past jobs: how they ended and why, versions, times, bytes, blocks fetched twice, restarts.
    #[command(after_help = "\
The last 100 jobs of each device are kept, over restarts and power cuts. Counts of bytes and blocks are exact to 1 MiB where \
the daemon was killed in between.

Examples:
  otad history
  otad history --limit 1 --json
  otad history --state-dir /var/lib/otad         of a gateway whose daemon is stopped

Exit code 2 if there was none.")]
    History(HistoryArgs),
    /// Stop requesting blocks and jobs until `resume`; a reconnect does not undo it.
    #[command(after_help = "\
What was received stays; a job under way waits where it is, and its deadlines wait with it.

Examples:
  otad suspend
  otad suspend --device pump-1                   where the daemon has several

Exit codes: 0 suspended, also if it was already, 3 no daemon answers.")]
    Suspend(DeviceArgs),
    /// Go on after `suspend`.
    #[command(after_help = "\
Example:
  otad resume --device pump-1

Exit codes: 0 it goes on, also if it was not suspended, 3 no daemon answers.")]
    Resume(DeviceArgs),
    /// Give up the active job; it ends FAILED with reason aborted.
    #[command(after_help = "\
What was received is thrown away, what was activated goes back. Once an update has decided to keep the new image, it is too
late.

Example:
  otad abort --device pump-1

Exit codes: 0 given up, 2 there is no job, or it is decided already, 3 no daemon answers.")]
    Abort(DeviceArgs),
    /// Let a deferred activation happen now.
    #[command(after_help = "\
Where `activation = \"deferred\"` is set for a target, a verified image waits for this.

Examples:
  otad activate                                  everything that waits
  otad activate --target main

Exit codes: 0 ordered, 2 none waits, 3 no daemon answers.")]
    Activate(TargetArgs),
    /// Say that the image in test is good (with self_test = "external", or ahead of the built-in test).
    #[command(after_help = "\
Without --target the verdict is the job's: all its targets in test. With --target it is that target's only; no member of an \
all-or-nothing job is confirmed by itself.

Example:
  otad commit --target main

Exit codes: 0 said, 2 nothing is in test, 3 no daemon answers.")]
    Commit(TargetArgs),
    /// Say that the image in test is bad: the old one comes back, the job ends FAILED.
    #[command(after_help = "\
Without --target the verdict is the job's: all its targets in test go back.

Example:
  otad rollback --reason 'the pump does not start'

Exit codes: 0 said, 2 nothing is in test, 3 no daemon answers.")]
    Rollback(RollbackArgs),
    /// Ask the job service for a job now, also without a notification.
    #[command(after_help = "\
A job that the service has is told at once in any case; this is for whoever does not want to wait, and for `poll_interval_ms` = 0 at
a service whose notifications were lost.

Example:
  otad poll --device pump-1

Exit codes: 0 asked, 3 no daemon answers.")]
    Poll(DeviceArgs),
    /// What the application is told: activate, start-test, fail, job-ended and so on.
    #[command(after_help = "\
Events are numbered per device and kept across restarts. An application remembers the number of the last one that it has \
dealt with and asks with --after.

Examples:
  otad events --json --after 41
  otad events --follow

Exit codes: 0 printed, 2 there is none, 3 no daemon answers.")]
    Events(EventsArgs),
    /// Jobs that wait for an answer (with on_job = "ask"), and jobs that are no update.
    #[command(subcommand)]
    Job(JobVerb),
    /// What a code in a job's status means, and what to do; without a code: all of them.
    #[command(after_help = "\
Examples:
  otad explain 0xe3
  otad explain '0x000000e3: 0x00000005'          the reason of a job, as it stands
  otad explain OtaErrMomentumAbort
  otad explain 3 --class job-parse
  otad explain --class pal                       all of a class

Exit code 2 for a code that nobody knows.")]
    Explain(ExplainArgs),
    /// Start the program of a flash-file target from the slot that counts. For service managers.
    #[command(after_help = "\
Counts a try before it starts an image that is not confirmed, and goes back to the old one when the tries are used up. \
Starts only bytes whose digest this host has verified. Put this into the service file, never a slot's own path:

  ExecStart=/usr/bin/otad launch main --config /etc/otad/otad.toml -- --port 80")]
    Launch(LaunchArgs),
    /// Is this agent or plugin fit to ship? Conformance of a component, without hardware, cloud or network.
    #[command(after_help = "\
It looks at the component's world, compiles it in a process of its own with limits, and plays every case for its world to it, \
through the same engine and limits as the daemon. What the contract leaves open is not asked for.

Examples:
  otad check my-agent.wasm
  otad check my-plugin.wasm --junit report.xml
  otad check --builtin agent --only cancel
  otad check --builtin flash-file --list

Exit code 0: fit. 1: a case failed, or the component broke in one. 2: no case of that name. 5: refused before any case was \
run (not a component, another contract version, an import or export too many or too few, too expensive to compile).")]
    Check(CheckArgs),
    /// Images: add the trailer with version and product, look at it.
    #[command(subcommand)]
    Image(ImageVerb),
    /// Targets: lay down the first image, look at them, reset one.
    #[command(subcommand)]
    Target(TargetVerb),
    /// Images, echo and reset of an MCU that speaks MCUmgr's SMP, on a terminal or a TCP port; without a daemon.
    #[command(subcommand)]
    Mcu(McuVerb),
    /// Run a simulated MCU on a pseudo terminal or a TCP port: MCUmgr's SMP, MCUboot's swap and revert.
    #[command(after_help = "\
Prints where it is and, whenever it changes, what runs and what lies in the slots. Takes a line on standard input: power-cut, \
power-off, power-on, reset, unplug, plug, stats, fault FAULT. An image whose body begins with mcu-sim:silent, mcu-sim:crash or \
mcu-sim:confirm does so.

Examples:
  otad mcu-sim --link /tmp/mcu                   then: smpmgr --port /tmp/mcu image state-read
  otad mcu-sim --tcp 127.0.0.1:1337 --flash mcu.bin
  otad mcu-sim --erase 85 --write 5000           with the flash of a small controller
  otad mcu-sim --fault lose-response@upload-last --lose 10")]
    McuSim(McuSimArgs),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigVerb),
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub struct ConfigArg {
    /// Configuration file.
    #[arg(
        long,
        value_name = "FILE",
        env = "OTAD_CONFIG",
        default_value = "/etc/otad/otad.toml"
    )]
    pub config: PathBuf,
}

/// `otad run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    /// Which configuration.
    pub config: ConfigArg,
    /// What is logged, in place of the configuration's `log`; such as `debug` or `info,host_mqtt=trace`.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Keep a flight recorder: every call across the agent's boundary, in `DIR/<device>/`, at most 24 MiB a device. For
    /// `otad replay`. Images and secrets are left out.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Let another agent do what the live one does, without any effect, until it does something else; the log says what.
    #[arg(long, value_name = "CANDIDATE.wasm")]
    pub shadow: Option<PathBuf>,
}

/// `otad demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Which scenario.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub scenario: String,
    /// List the scenarios and end.
    #[arg(long)]
    pub list: bool,
    /// Work in this directory, which must be empty or not exist, in place of a temporary one.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the directory behind and print its path.
    #[arg(long)]
    pub keep: bool,
    /// Print the daemon's console too.
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    /// Somebody else's broker between cloud and daemon.
    pub broker: BrokerArgs,
}

/// How the control socket of the daemon is found, and how answers look.
#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    #[command(flatten)]
    /// Which configuration.
    pub config: ConfigArg,
    /// Control socket, in place of the configuration's.
    #[arg(long, value_name = "PATH", env = "OTAD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// A verb on one device.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    /// The socket.
    pub control: ControlArgs,
    /// Which device; may be left out where there is one.
    #[arg(long, value_name = "THING")]
    pub device: Option<String>,
}

/// A verb on one target or on all that it concerns.
#[derive(Clone, Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Which target, by its name; without it all that the verb concerns.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
}

/// `otad rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    /// The target.
    pub target: TargetArgs,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `otad status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Once a second, until interrupted.
    #[arg(long)]
    pub watch: bool,
}

/// `otad why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Which job; without one what each device is about.
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Read this state directory, without asking a daemon.
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub state_dir: Option<PathBuf>,
}

/// `otad history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// At most so many jobs of each device, the newest.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Read this state directory, without asking a daemon.
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub state_dir: Option<PathBuf>,
}

/// `otad events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Only events after this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
    /// Wait for more, until interrupted.
    #[arg(long)]
    pub follow: bool,
}

/// `otad job`.
#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// The jobs that wait for an answer or for their end, and the one under way.
    #[command(after_help = "\
Offers (on_job = \"ask\", or a `job` hook) wait for `job approve` or `job decline`. Jobs that are no update wait for
somebody to take them, and then for `job finish`. Exit code 2 if there is none.

Examples:
  otad job list
  otad job list --json                           with the job documents")]
    List(DeviceArgs),
    /// Take the job.
    #[command(after_help = "\
Example:
  otad job approve AFR_OTA-pumps-7

Exit codes: 0 taken, 2 no such job waits, 3 no daemon answers.")]
    Approve {
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
        /// Job id.
        job: String,
    },
    /// Refuse the job: it ends REJECTED and is not offered again.
    #[command(after_help = "\
Example:
  otad job decline AFR_OTA-pumps-7 --reason 'not before the weekend'

Exit codes: 0 declined, 2 no such job waits, 3 no daemon answers.")]
    Decline {
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
        /// Job id.
        job: String,
        /// Why, for the job's status.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End a job that is no update and that the application has run; also after a restart of the daemon.
    #[command(after_help = "\
Example:
  otad job finish reboot-7 --status failed --reason 'no such service'")]
    Finish {
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
        /// Job id.
        job: String,
        /// How it ended.
        #[arg(long, value_enum)]
        status: FinishStatus,
        /// Why, for the job's status.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// `otad explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A number (decimal or 0x…), a name, or the whole reason of a job's status.
    #[arg(value_name = "CODE", allow_negative_numbers = true)]
    pub code: Vec<String>,
    /// Only codes of this class: ota, job-parse, otad, os, mqtt, http, host, pal, jobs, stream, signature.
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// `otad launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Target, by its name.
    pub target: String,
    #[command(flatten)]
    /// Which configuration.
    pub config: ConfigArg,
    /// Which device; may be left out where there is one.
    #[arg(long, value_name = "THING")]
    pub device: Option<String>,
    /// Arguments for the program.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<OsString>,
}

/// `otad image`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Append the trailer with version, product and hardware; a program stays executable.
    #[command(after_help = "\
The trailer is 128 bytes and lies under the image's signature.

Example:
  otad image pack app --version 1.1.0 --product pump --hardware rev-b -o app-1.1.0.img")]
    Pack(PackArgs),
    /// Print size, digest, version, product and hardware of an image.
    #[command(after_help = "\
Example:
  otad image show app-1.1.0.img")]
    Show {
        /// The image.
        file: PathBuf,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `otad image pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// What to pack.
    pub file: PathBuf,
    /// major.minor.revision, or major.minor.revision+build.
    #[arg(long = "version", value_name = "V")]
    pub image_version: String,
    /// Product that the image is for, at most 48 bytes.
    #[arg(long, value_name = "P", default_value = "")]
    pub product: String,
    /// Hardware that the image is for, at most 44 bytes.
    #[arg(long, value_name = "H", default_value = "")]
    pub hardware: String,
    /// Where to write; FILE.img if left out.
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// `otad target`.
#[derive(Debug, Subcommand)]
pub enum TargetVerb {
    /// Lay down the first image of a flash-file target and confirm it. The daemon must not run.
    #[command(after_help = "\
The running program is what this image brings: an update replaces it from then on. What lies there already is kept unless
--force is given.

Example:
  otad target init main app-1.0.0.img --config pump-1/otad.toml

Exit codes: 0 done, 1 the storage is of no use, 3 a daemon uses it, 5 an image lies there or this one is none.")]
    Init {
        /// Target, by its name.
        target: String,
        /// The image.
        file: PathBuf,
        #[command(flatten)]
        /// Which configuration.
        config: ConfigArg,
        /// Which device; may be left out where there is one.
        #[arg(long, value_name = "THING")]
        device: Option<String>,
        /// Replace what is there already. Until the new image lies there whole, the old one starts.
        #[arg(long)]
        force: bool,
    },
    /// All targets of the configuration: plugin, where each one is, and what runs, if the daemon does.
    #[command(after_help = "\
Example:
  otad target list --json

Exit code 0 also where no daemon answers: then what the configuration says is shown.")]
    List(DeviceArgs),
    /// One target: the same, and its line, reset input and settings.
    #[command(after_help = "\
Example:
  otad target info mcu

Exit code 2 for a target that the configuration does not have.")]
    Info {
        /// Target, by its name.
        target: String,
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
    },
    /// Restart a target behind a serial line and wait until it answers again.
    #[command(after_help = "\
Asks the target itself over its line, as `otad mcu reset --target` does; while a job runs the line is the daemon's. An image \
that runs on trial goes away.

Example:
  otad target reset mcu --timeout 60

Exit code 3 if it does not come back in time, or its line is in use.")]
    Reset {
        /// Target, by its name.
        target: String,
        #[command(flatten)]
        /// Which configuration.
        config: ConfigArg,
        /// Which device; may be left out where there is one.
        #[arg(long, value_name = "THING")]
        device: Option<String>,
        /// Also if its application objects.
        #[arg(long)]
        force: bool,
        /// Longest wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 180)]
        timeout: u64,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
}
