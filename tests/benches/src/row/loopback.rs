//! Loopback, plaintext: the whole daemon from notify to verified against the raw receiver, in time and processor time.
//!
//! Verified includes sync, read-back, hash and signature. The daemon's own log says when it was told of the job and when
//! the image was verified; its processor time is read at the same instants from outside. Also here: one download of
//! either, for the rows that need some other pair.

use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::gateway::Lines;
use e2e::{Cloud, Daemon, Gateway, Update};
use host_cloud::{BrokerConfig, Limits};
use host_crypto::{Hasher, hex};
use support::deadline::{Deadline, PATIENCE, pass};
use support::image::random_bytes;
use support::mosquitto::{Mosquitto, Setup};
use support::usage::Usage;

use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};
use crate::receiver::{Order, Received};

/// The row.
pub const ROW: Row = Row {
    name: "loopback",
    about: "the daemon from notify to verified, to the raw receiver on the same broker, without TLS",
    sample: |rig, turn| sample(turn, &|| Ok(Site::new(rig, turn.seed())), rig),
};

/// The same with a broker that nobody here wrote, and the cloud as a client of it: what the C agent was measured with.
pub const MOSQUITTO: Row = Row {
    name: "loopback-mosquitto",
    about: "the same with mosquitto as the broker",
    sample: |rig, turn| sample(turn, &|| Site::at_mosquitto(rig, turn.seed()), rig),
};

/// How blocks are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks of a request.
    pub blocks: usize,
    /// Requests that are not answered yet; the raw receiver has one.
    pub requests: usize,
}

/// What the C agent was measured with: 31 blocks are its largest request of 4 KiB, 8 are 128 KiB.
pub const SHAPES: [Shape; 2] = [
    Shape {
        block_bytes: 4 << 10,
        blocks: 31,
        requests: 1,
    },
    Shape {
        block_bytes: 16 << 10,
        blocks: 8,
        requests: 1,
    },
];

/// Promised of processor time, floor and goal: 1.5 times and once what the C agent takes, for each of [`SHAPES`].
const CPU_BOUNDS: [(f64, f64); 2] = [(6.3, 4.2), (7.5, 5.0)];

/// The receiver's windows, in eighths of the shape's, which fills a request: it may be at its best with a smaller one.
const WINDOWS_OF_8: [usize; 4] = [2, 4, 6, 8];

fn sample(turn: Turn, site: &dyn Fn() -> Result<Site, Untaken>, rig: &Rig) -> Sample {
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    let mut taken = Vec::new();
    for (shape, (floor, goal)) in SHAPES.into_iter().zip(CPU_BOUNDS) {
        let site = site()?;
        let (daemon, (same, best)) = turn.both(
            || site.daemon(shape),
            || {
                let mut best = f64::INFINITY;
                let mut same = None;
                for eighths in WINDOWS_OF_8 {
                    let blocks = (shape.blocks * eighths / 8).max(1);
                    let received = site.receiver(rig, Shape { blocks, ..shape })?;
                    best = best.min(received.seconds);
                    if blocks == shape.blocks {
                        same = Some(received);
                    }
                }
                let same = same.ok_or_else(|| Untaken::because("no window is the daemon's"))?;
                Ok((same, best))
            },
        )?;
        let name = shape.name();
        let rate = |seconds: f64| site.mib() / seconds;
        let figure = Figure::rate(format!("{name}, speed"), "MiB/s").held(Of::Ratio, 0.75, 1.0);
        taken.push(figure.taken(rate(daemon.seconds), rate(same.seconds)));
        let figure = Figure::rate(format!("{name}, speed to the best window"), "MiB/s");
        taken.push(figure.taken(rate(daemon.seconds), rate(best)));
        let figure = Figure::cost(format!("{name}, processor"), "s").held(Of::Ratio, floor, goal);
        taken.push(figure.taken(daemon.cpu_seconds, same.cpu_seconds));
        let figure = Figure::rate(format!("{name}, cores at work"), "cores");
        taken.push(figure.taken(daemon.all_cpu_seconds / daemon.seconds, cores));
    }
    Ok(taken)
}

impl Shape {
    /// Such as `4 KiB x 31`, and the requests if there may be several.
    #[must_use]
    pub fn name(&self) -> String {
        let text = format!("{} KiB x {}", self.block_bytes >> 10, self.blocks);
        match self.requests {
            1 => text,
            requests => format!("{text} x {requests}"),
        }
    }
}

/// What a download has cost the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From notify to verified.
    pub seconds: f64,
    /// Processor time of the daemon and its children within it.
    pub cpu_seconds: f64,
    /// The same, and that of the cloud and of its broker.
    pub all_cpu_seconds: f64,
    /// Memory before the job, in KiB.
    pub idle_kib: u64,
    /// Most memory until the end of the job, in KiB.
    pub peak_kib: u64,
}

/// A cloud without TLS, and an image.
pub struct Site {
    /// None = the cloud is its own.
    broker: Option<Mosquitto>,
    cloud: Cloud,
    image: Vec<u8>,
    sha256: String,
}

/// The thing whose stream the raw receiver reads; no daemon takes its job.
const RAW: &str = "raw";

impl Site {
    /// With an image from a seed.
    #[must_use]
    pub fn new(rig: &Rig, seed: u64) -> Self {
        let cloud = Cloud::start_with(|config| {
            config.limits = Limits::None;
            config.plain = Some(([127, 0, 0, 1], 0).into());
        });
        Self::with(rig, seed, cloud, None)
    }

    /// The same with mosquitto between cloud and device.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn at_mosquitto(rig: &Rig, seed: u64) -> Result<Self, Untaken> {
        let setup = Setup {
            quiet: true,
            ..Setup::default()
        };
        let broker = Mosquitto::start_with(&setup);
        let broker = broker.map_err(|error| Untaken::by("starting mosquitto", &error))?;
        let Some(broker) = broker else {
            return Err(Untaken::because("mosquitto is not installed"));
        };
        let url = format!("mqtt://{}", broker.addr());
        let url = url
            .parse()
            .map_err(|error| Untaken::by("mosquitto's address", &error))?;
        let cloud = Cloud::start_with(|config| {
            config.limits = Limits::None;
            config.tls = None;
            config.broker = Some(BrokerConfig::new(url));
        });
        cloud.wait_broker();
        Ok(Self::with(rig, seed, cloud, Some(broker)))
    }

    fn with(rig: &Rig, seed: u64, cloud: Cloud, broker: Option<Mosquitto>) -> Self {
        let image = random_bytes(seed, rig.image_bytes);
        let mut hasher = Hasher::default();
        hasher.update(&image);
        let sha256 = hex(hasher.finish().sha256());
        let _credentials = cloud.thing(RAW);
        cloud.update(
            RAW,
            Update {
                stream_id: Some(RAW.to_owned()),
                ..Update::of(image.clone())
            },
        );
        Self {
            broker,
            cloud,
            image,
            sha256,
        }
    }

    /// The broker between cloud and device; none where the cloud is its own.
    #[must_use]
    pub fn broker(&self) -> Option<&Mosquitto> {
        self.broker.as_ref()
    }

    /// The cloud.
    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    fn port(&self) -> Result<u16, Untaken> {
        let address = match &self.broker {
            Some(broker) => Some(broker.addr()),
            None => self.cloud.running().plain_addr(),
        };
        let port = address.map(|address| address.port());
        port.ok_or_else(|| Untaken::because("the cloud has no endpoint without TLS"))
    }

    /// What the cloud, which is in this process, and its broker have cost so far.
    fn usage(&self) -> Result<Vec<Usage>, Untaken> {
        let broker = self.broker.as_ref().map(Mosquitto::id);
        let ids = [std::process::id()].into_iter().chain(broker);
        let usage = ids.map(Usage::of).collect::<Result<_, _>>();
        usage.map_err(|error| Untaken::by("what the cloud has cost", &error))
    }

    /// Size of the image in MiB.
    #[must_use]
    pub fn mib(&self) -> f64 {
        self.image.len() as f64 / f64::from(1 << 20)
    }

    /// What the raw receiver is to receive.
    ///
    /// # Errors
    /// There is no endpoint.
    pub fn order(&self, shape: Shape) -> Result<Order, Untaken> {
        Ok(Order {
            port: self.port()?,
            thing: RAW.to_owned(),
            stream: RAW.to_owned(),
            bytes: self.image.len(),
            block_bytes: shape.block_bytes,
            blocks: shape.blocks,
        })
    }

    /// Receives the image without an agent.
    ///
    /// # Errors
    /// It did not work, or other bytes came.
    pub fn receiver(&self, rig: &Rig, shape: Shape) -> Result<Received, Untaken> {
        let received = self.order(shape)?.elsewhere(&rig.program)?;
        if received.sha256 == self.sha256 {
            return Ok(received);
        }
        let text = "the raw receiver has received another image";
        Err(Untaken::because(text))
    }

    /// A gateway of these things, whose daemon asks as the shape says.
    ///
    /// # Errors
    /// There is no endpoint.
    pub fn gateway(&self, things: &[&str], shape: Shape) -> Result<Gateway, Untaken> {
        let port = self.port()?;
        let change = |lines: &mut Lines| {
            for device in &mut lines.devices {
                device.port = port;
                device.mqtt = "tls = false\n".to_owned();
                device.agent = format!(
                    "block_size = {}\nblocks_per_request = {}\nrequests_in_flight = {}\n",
                    shape.block_bytes, shape.blocks, shape.requests
                );
                for target in &mut device.targets {
                    target.lines =
                        "version_from = \"none\"\nslot_size_bytes = 1073741824\n".to_owned();
                }
            }
        };
        let gateway = Gateway::with(&self.cloud, things, change);
        gateway.init(b"first");
        Ok(gateway)
    }

    /// Downloads the image with the whole daemon.
    ///
    /// # Errors
    /// The log is not what it was.
    pub fn daemon(&self, shape: Shape) -> Result<Cost, Untaken> {
        const THING: &str = "daemon";
        let gateway = self.gateway(&[THING], shape)?;
        let mut daemon = gateway.run_with(told);
        until_idle(&daemon, 1)?;
        let before = usage(&daemon)?;
        let update = Update {
            // No firmware: it is verified and not started.
            file_type: Some(1),
            ..Update::of(self.image.clone())
        };
        let job = self.cloud.update(THING, update);
        let others = self.usage()?;
        let end = daemon.wait_line("state [ClosingFile] ");
        let after = usage(&daemon)?;
        let others = self.usage()?.into_iter().zip(&others);
        let others: f64 = others
            .map(|(now, then)| now.cpu_since(then).as_secs_f64())
            .sum();
        let ended = self.cloud.wait_end(&job);
        if ended.status != "SUCCEEDED" {
            return Err(Untaken::because(format!("the job ended as {ended:?}")));
        }
        let log = daemon.log();
        let begin = log.lines().find(|line| line.contains(TOLD));
        let begin = begin.ok_or_else(|| Untaken::because("the log lacks the job's beginning"))?;
        let cpu_seconds = after.cpu_since(&before).as_secs_f64();
        let cost = Cost {
            seconds: between(begin, &end)?,
            cpu_seconds,
            all_cpu_seconds: cpu_seconds + others,
            idle_kib: before.rss_kib,
            peak_kib: usage(&daemon)?.peak_kib,
        };
        daemon.stop();
        Ok(cost)
    }
}

/// A daemon that logs what is looked for here.
pub(crate) fn told(command: &mut Command) {
    command.args(["--log", "info", "--log-format", "json"]);
}

/// What the agent logs when the notification with the job has reached it.
const TOLD: &str = "state [WaitingForJob] event [ReceivedJobDocument]";

/// What the agent of each device logs once it has asked for a job and got none.
const IDLE: &str = "\"no job\"";

/// Waits until the agents of so many devices have nothing to do. The daemon was [`told`] to log.
///
/// # Errors
/// It takes too long.
pub(crate) fn until_idle(daemon: &Daemon, devices: usize) -> Result<(), Untaken> {
    let deadline = Deadline::after(PATIENCE);
    while daemon.log().matches(IDLE).count() < devices {
        if deadline.left().is_none() {
            let text = format!("no {devices} devices without a job:\n{}", daemon.log());
            return Err(Untaken::because(text));
        }
        pass(Duration::from_millis(5));
    }
    Ok(())
}

/// What a daemon has cost so far.
pub(crate) fn usage(daemon: &Daemon) -> Result<Usage, Untaken> {
    let usage = Usage::of(daemon.process.id());
    usage.map_err(|error| Untaken::by("what the daemon has cost", &error))
}

/// Seconds between two lines of a log in JSON.
fn between(begin: &str, end: &str) -> Result<f64, Untaken> {
    let at = |line: &str| {
        let found = second_of_day(line);
        found.ok_or_else(|| Untaken::because(format!("a log line without a time: {line}")))
    };
    // Past midnight it begins anew.
    Ok((at(end)? - at(begin)?).rem_euclid(86_400.0))
}

/// Of `{"timestamp":"2026-11-21T14:30:22.276036Z",…`.
fn second_of_day(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("\"timestamp\":\"")?;
    let (_, time) = rest.split_once('"')?.0.split_once('T')?;
    let mut parts = time.strip_suffix('Z')?.split(':');
    let mut number = || -> Option<f64> { parts.next()?.parse().ok() };
    Some(number()? * 3600.0 + number()? * 60.0 + number()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_log_are_subtracted_also_past_midnight() {
        let line =
            |time: &str| format!("{{\"timestamp\":\"2026-11-21T{time}Z\",\"level\":\"INFO\"}}");
        let check = |begin: &str, end: &str, expected: f64| {
            let seconds = between(&line(begin), &line(end)).unwrap();
            assert!((seconds - expected).abs() < 1e-6, "{seconds}");
        };
        check("14:30:22.276036", "14:30:22.776036", 0.5);
        check("14:59:59.000000", "15:00:00.250000", 1.25);
        check("23:59:59.500000", "00:00:01.000000", 1.5);
        assert!(between(&line("14:30"), "no time").is_err());
    }

    #[test]
    fn shapes_have_names() {
        assert_eq!(SHAPES[0].name(), "4 KiB x 31");
        let several = Shape {
            requests: 4,
            ..SHAPES[1]
        };
        assert_eq!(several.name(), "16 KiB x 8 x 4");
    }
}
