//! The command line as data: verbs, options, help. What they do is beside, one file a verb.

mod agent;
mod check;
mod cloud;
mod config;
mod control;
mod mcu;
mod mcu_sim;
mod plugin;
mod sandbox;
mod sign;
mod target;
mod update;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::console::LogFormat;

pub use agent::{AgentSwapArgs, AgentVerb};
pub(crate) use check::COMPILE_CPU_S;
pub use check::{Builtin, CheckArgs, GuestArg};
pub use cloud::{AskArgs, BrokerArgs, CloudArg, CloudArgs, GroupVerb, LimitsArg, ThingVerb};
pub use config::{ConfigVerb, InitArgs};
pub use control::{
    ControlArgs, DeviceArgs, EventsArgs, HistoryArgs, JobVerb, RollbackArgs, StatusArgs,
    TargetArgs, WhyArgs,
};
pub use mcu::{LinkArgs, McuImageVerb, McuVerb};
pub use mcu_sim::{McuFaultArgs, McuSimArgs, McuSizeArgs, McuTimeArgs};
pub use plugin::{NewArgs, PluginVerb};
pub use sandbox::{FaultArg, ReplayArgs, SandboxArgs, SeedsArg};
pub use sign::{SignArgs, TrustedArgs, VerifyArgs};
pub use target::{ImageVerb, LaunchArgs, PackArgs, TargetVerb};
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

Exit codes: 0 told to end, 1 failed, 3 another daemon uses the state directory, 4 to be started again, 5 the agent of --shadow \
is refused, 78 the configuration is wrong.")]
    Run(RunArgs),
    /// Show a whole update, from notification to commit, on this machine and with the real parts.
    #[command(after_help = "\
Examples:
  otad demo                                      a signed 2 MiB image over TLS, from 1.0.0 to 1.1.0
  otad demo --list                               the other scenarios
  otad demo --scenario bad-signature             an image that was changed after signing
  otad demo --carrier native                     the same with the plugin as a shared library
  otad demo --dir /tmp/demo --keep               look at the files afterwards

Exit code 0 if the scenario ended as it should. The last line is the job's final status and reason.")]
    Demo(DemoArgs),
    /// Run an agent or a plugin through thousands of simulated updates in which everything goes wrong that can.
    #[command(after_help = "\
A whole gateway in virtual time: cloud, network, storage, power, launcher. Each seed is one update with faults of its own; the \
same seed is the same run to the byte, everywhere. Checkers watch from outside that the gateway always has an image that \
starts, that nothing unverified is activated, that nothing is committed untested, and, once the faults are over, that every job \
ends, with a reason. Three failures, of different invariants first, are made small and printed with the command that repeats \
them; of all others seed, scenario and invariants are listed, of each invariant the first 1000.

Examples:
  otad sandbox agent.wasm --seeds 1..100000      a swarm
  otad sandbox agent.wasm --scenario plain --every-cut
                                                 every kill and every power cut of one update
  otad sandbox my-plugin.wasm --setting board=b  a plugin of kind flash-file, with a setting
  otad sandbox --builtin agent --list            the scenarios, and all faults with their units
  otad sandbox agent.wasm --seeds 7 --scenario update --blocks 4 --fault power=during-17 --trace
                                                 one run, told in full

Exit code 0 if nothing was found, 1 if something was, 5 for a component that this host refuses: also for a plugin of \
another kind than flash-file, or one that does not begin.")]
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

Exit code 0 if there is no difference, 1 if there is one, 2 if nothing was recorded or there is no such file, 5 for a component that this host refuses, 6 for a damaged trace.")]
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
The last 100 jobs of each device are kept, over restarts and power cuts. Where the daemon was killed in \
between, counts of bytes are exact to 1 MiB; those of blocks (fetched, twice, held) may be off by all that came since the \
agent last told of a change.

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

This gives the verdict and does not wait for what comes of it: a target that cannot keep the image goes back, and the job ends \
FAILED. `otad events` tells that (fail), `otad why` while it goes on, and `otad history` afterwards.

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
Events are numbered per device and kept across restarts, the last 256 of them or 1 MiB. An application remembers the number of the last one that it has \
dealt with and asks with --after.

Examples:
  otad events --json --after 41
  otad events --follow

Exit codes: 0 printed, 2 there is none, 3 no daemon answers, or with --follow the device was stopped, for a reload too: follow on \
with --after.")]
    Events(EventsArgs),
    /// Jobs that wait for an answer (with on_job = "ask"), and jobs that are no update.
    #[command(subcommand)]
    Job(JobVerb),
    /// Agent builds: which one serves a device, and another one in its place, in the middle of an update.
    #[command(subcommand)]
    Agent(AgentVerb),
    /// Plugins: begin one, test it, verify it; which build serves a target, and another one in its place, in mid-update.
    #[command(subcommand)]
    Plugin(PluginVerb),
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

The cases for agents are the conversation of the shipped agent, which is the C agent's: $next/get, blocks in CBOR. An agent \
with a conversation of its own, as those of agent-sdk with start-next and JSON, parts from nearly all of them at its first \
question: what holds whatever an agent says is judged by `otad sandbox`.

Examples:
  otad check my-agent.wasm
  otad check my-plugin.wasm --junit report.xml
  otad check --builtin agent --only cancel
  otad check --builtin flash-file --list

Exit code 0: fit. 1: a case failed, or the component broke in one. 2: no case of that name. 5: refused before any case was \
run (not a component, another contract version, an import or export too many or too few, too expensive to compile).")]
    Check(CheckArgs),
    /// Sign a plugin, an agent or the image of an update.
    #[command(after_help = "\
A gateway loads plugins and agents from files only where somebody of its trust store has signed them. What is signed is a \
manifest beside the file: its digest, who it is (it is asked, in a process of its own), what a configuration may lend or grant \
it at most, and limits. Manifest and signature are two more files, which go wherever FILE goes.

Examples:
  otad sign pump.wasm --key vendor.key
  otad sign board.so --key vendor.key --directory /var/lib/board --device /dev/spidev0.0
  otad sign pump.wasm --manifest-only            to be signed by openssl or an HSM
  otad sign pump.wasm --bundle                   all in one file, once that is done
  otad sign --image app-1.1.0.img --key vendor.key
                                                 writes app-1.1.0.img.sig

Exit codes: 0 signed, 5 it is refused (neither agent nor plugin, another contract), 64 the key or an option is wrong.")]
    Sign(Box<SignArgs>),
    /// Who has signed this plugin, agent or image, and what for?
    #[command(after_help = "\
With --config it answers as that gateway would: by its trust store, `code_signers`, and the versions that it has accepted. A \
plugin or an agent is also loaded, in a process of its own, and asked who it is.

Examples:
  otad verify pump.wasm --trust /etc/otad/trust
  otad verify board.so --config /etc/otad/otad.toml --json
  otad verify --image app-1.1.0.img --certificate vendor.pem

Exit codes: 0 somebody trusted has signed it, 5 refused (older than what was accepted, needs a newer otad, another contract), 6 \
not verified.")]
    Verify(VerifyArgs),
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
    /// Be the process of one native plugin. The daemon starts this; by hand there is nothing to do with it.
    #[command(
        hide = true,
        after_help = "\
Standard input is the channel to the daemon, standard output holds the library. wit/native/ota_pal.h says what a library is.

Examples:
  otad pal-host                                  says that it is not for hands"
    )]
    PalHost,
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
    /// What is logged, in place of the configuration's `log`, also after a reload; such as `debug` or `info,host_mqtt=trace`.
    #[arg(long, value_name = "FILTER", env = "OTAD_LOG")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Keep a flight recorder: every call across the agent's boundary, in `DIR/<device>/`, at most 24 MiB a device. For
    /// `otad replay`. Images and secrets are left out.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Let another agent do what the live one does, without any effect, until it does something else; the log says what.
    /// Agents that are followed are not parked.
    #[arg(long, value_name = "CANDIDATE.wasm")]
    pub shadow: Option<PathBuf>,
}

/// A plugin's carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CarrierArg {
    /// Components, in the daemon's process.
    Component,
    /// Shared libraries, each in a process of its own.
    Native,
}

/// `otad demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Which scenario.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub scenario: String,
    /// What carries the daemon's plugins.
    #[arg(long, value_enum, value_name = "CARRIER", default_value_t = CarrierArg::Component)]
    pub carrier: CarrierArg,
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
