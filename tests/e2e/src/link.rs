//! A download over a link with a delay, a rate and losses, and what it cost: both data planes, measured from outside.
//!
//! The daemon is the built program, the cloud is the real one, the link is `support::proxy`. Time runs from the first
//! request, half a round trip before the cloud saw it, to the last block, as the link delivered it. Nothing here judges.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host_cloud::Limits;
use host_cloud::http::HttpConfig;
use host_cloud::service::Protocol;
use support::deadline::{PATIENCE, now, pass};
use support::image::random_bytes;
use support::proxy::{Direction, Loss, Proxy};
use support::usage::Usage;

use crate::gateway::{Daemon, Lines};
use crate::{Cloud, Ended, Gateway, Update};

const THING: &str = "link";

/// A link and what goes over it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// For the table.
    pub name: &'static str,
    /// What carries the image.
    pub plane: Protocol,
    /// TLS on both; losses can only be chosen where messages can be read.
    pub tls: bool,
    /// There and back.
    pub round_trip: Duration,
    /// Payload bytes a second in each direction, none = as fast as it goes.
    pub bytes_per_s: Option<u64>,
    /// MQTT messages of the stream that are lost, or range responses that are cut, of a thousand.
    pub lost_per_mille: u64,
    /// The image.
    pub image_bytes: usize,
    /// Blocks of the stream, and the grid of the block map.
    pub block_bytes: usize,
    /// More lines of `[device.agent]`.
    pub agent: &'static str,
    /// `bytes_per_s` of `[bandwidth]`.
    pub cap_bytes_per_s: Option<u64>,
}

/// What a download has cost.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From the first request to the last block.
    pub seconds: f64,
    /// Image bytes a second, as a share of the link's rate.
    pub share: Option<f64>,
    /// Bytes on the link towards the gateway for each byte of the image.
    pub wire: f64,
    /// Image bytes that came twice, of all that were needed; what was lost on purpose does not count.
    pub wasted: f64,
    /// Most memory that the daemon ever had, in KiB.
    pub peak_kib: u64,
}

/// Downloads once.
///
/// # Panics
/// If the job does not succeed, or not in the time that the link allows: with what became of it.
#[must_use]
pub fn measure(case: &Case, seed: u64) -> Measured {
    let loss = Loss::new(case.lost_per_mille, seed);
    let http = http_link(case, &loss);
    let http_port = http.addr().port();
    let cloud = Cloud::start_with(|config| {
        config.limits = Limits::None;
        config.plain = (!case.tls).then_some(([127, 0, 0, 1], 0).into());
        config.http = Some(HttpConfig {
            port: Some(http_port),
            plain: !case.tls,
            ..HttpConfig::new(([127, 0, 0, 1], 0).into())
        });
    });
    let handle = cloud.running();
    http.set_upstream(handle.http_addr().expect("an image server"));
    let upstream = match case.tls {
        true => handle.tls_addr(),
        false => handle.plain_addr(),
    };
    let mqtt = mqtt_link(case, upstream.expect("an endpoint"), &loss);
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        configure(lines, case, mqtt.addr().port());
    });
    gateway.init(b"first");
    let daemon = gateway.run();
    let data = match case.plane {
        Protocol::Mqtt => &mqtt,
        Protocol::Http => &http,
    };
    let watch = Watch::default();
    let update = Update {
        // No firmware: it is verified and not started.
        file_type: Some(1),
        protocols: vec![case.plane],
        ..Update::of(random_bytes(seed, case.image_bytes))
    };
    let before = data.forwarded(Direction::Down);
    let (begun, patience) = (now(), patience(case));
    let job = cloud.update(THING, update);
    let (ended, span) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch.run(&cloud, data));
        let ended = cloud.end_within(&job, patience);
        watch.stop();
        (ended, watched.join().expect("the watch"))
    });
    let bytes = data.forwarded(Direction::Down) - before;
    let (Ok(Ended { status, .. }), Some(first), Some(last)) =
        (&ended, span.first_request, span.last_burst)
    else {
        panic!("{}", story(case, &ended, begun, bytes, &daemon));
    };
    assert_eq!(
        status,
        "SUCCEEDED",
        "{}",
        story(case, &ended, begun, bytes, &daemon)
    );
    let first = first - case.round_trip / 2;
    let seconds = last.duration_since(first).as_secs_f64();
    let image = case.image_bytes as f64;
    Measured {
        seconds,
        share: case.bytes_per_s.map(|rate| image / seconds / rate as f64),
        wire: bytes as f64 / image,
        wasted: wasted(case, &cloud, &loss),
        peak_kib: Usage::of(daemon.process.id()).map_or(0, |usage| usage.peak_kib),
    }
}

/// Least share of the link that is waited for: the C agent's way, a window a round trip, makes 5 % of 200 ms.
const SHARE_MIN: f64 = 0.02;

/// What a link without a rate carries at least, in bytes a second, on a busy machine.
const UNSHAPED_BYTES_PER_S: u64 = 20_000_000;

/// What a download may take, so that one that is merely slow is a figure: by the link's rate, or the cap's.
fn patience(case: &Case) -> Duration {
    let rate = case.bytes_per_s.unwrap_or(UNSHAPED_BYTES_PER_S);
    let rate = case.cap_bytes_per_s.unwrap_or(rate).min(rate);
    PATIENCE + Duration::from_secs_f64(case.image_bytes as f64 / (SHARE_MIN * rate as f64))
}

/// Last lines of the daemon's log that are told.
const LINES_TOLD: usize = 40;

/// What became of a download that gives no figure.
fn story(
    case: &Case,
    ended: &Result<Ended, Ended>,
    begun: Instant,
    bytes: u64,
    daemon: &Daemon,
) -> String {
    let (Ok(how) | Err(how)) = ended;
    let over = if ended.is_ok() { "ended" } else { "not ended" };
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().collect();
    let told = lines.get(lines.len().saturating_sub(LINES_TOLD)..);
    format!(
        "{}: {over} after {:.1} s of at most {:.0}: {} {:?}; {bytes} bytes came for an image of {}; the daemon's last words:\n{}",
        case.name,
        now().duration_since(begun).as_secs_f64(),
        patience(case).as_secs_f64(),
        how.status,
        how.reason,
        case.image_bytes,
        told.unwrap_or_default().join("\n"),
    )
}

fn wasted(case: &Case, cloud: &Cloud, loss: &Loss) -> f64 {
    let stats = cloud.stats();
    let blocks = case.image_bytes.div_ceil(case.block_bytes) as f64;
    match case.plane {
        // A lost message may be a request, whose blocks never left; then nothing was wasted, and this says too little.
        Protocol::Mqtt => (stats.blocks as f64 - loss.lost() as f64) / blocks - 1.0,
        Protocol::Http => stats.range_bytes as f64 / case.image_bytes as f64 - 1.0,
    }
    .max(0.0)
}

fn http_link(case: &Case, loss: &Loss) -> Proxy {
    // Where it leads is known once the cloud runs, whose URLs name this port.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let proxy = match case.lost_per_mille {
        0 => Proxy::start(nowhere),
        _ => Proxy::start_cutting(nowhere, loss),
    };
    shaped(case, proxy.expect("a port"))
}

fn mqtt_link(case: &Case, upstream: SocketAddr, loss: &Loss) -> Proxy {
    let is_stream = |topic: &str| topic.contains("/streams/");
    let proxy = match (case.lost_per_mille, case.plane) {
        (0, _) | (_, Protocol::Http) => Proxy::start(upstream),
        (_, Protocol::Mqtt) => Proxy::start_filtered(upstream, loss.of_topics(is_stream)),
    };
    shaped(case, proxy.expect("a port"))
}

fn shaped(case: &Case, proxy: Proxy) -> Proxy {
    proxy.set_delay(case.round_trip / 2);
    proxy.set_rate(case.bytes_per_s);
    proxy
}

fn configure(lines: &mut Lines, case: &Case, port: u16) {
    let blocks = (128 * 1024 / case.block_bytes).max(1);
    let plane = match case.plane {
        Protocol::Mqtt => "mqtt",
        Protocol::Http => "http",
    };
    lines.http = format!(
        "roots = [\"credentials/{THING}/root.pem\"]\nallow_networks = [\"127.0.0.0/8\", \"::1\"]\nproxy = \"none\"\n"
    );
    if !case.tls {
        lines.development = "allow_plaintext_http = true\n".to_owned();
        lines.device().mqtt = "tls = false\n".to_owned();
    }
    lines.device().port = port;
    lines.device().agent = format!(
        "block_size = {}\nblocks_per_request = {blocks}\nprotocols = [\"{plane}\"]\n{}",
        case.block_bytes, case.agent
    );
    lines.bandwidth = case
        .cap_bytes_per_s
        .map_or_else(String::new, |cap| format!("bytes_per_s = {cap}\n"));
    lines.target().lines = "version_from = \"none\"\nslot_size_bytes = 1073741824\n".to_owned();
}

/// Looks at cloud and link while a download runs.
#[derive(Default)]
struct Watch {
    stopped: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Span {
    /// The cloud has seen a request for data.
    first_request: Option<Instant>,
    /// More bytes have come than any message of control has.
    last_burst: Option<Instant>,
}

/// How often it looks: a thousandth of a download of some seconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// More than the messages of a job's end have.
const BURST_BYTES: u64 = 4096;

impl Watch {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn run(&self, cloud: &Cloud, data: &Proxy) -> Span {
        let mut span = Span::default();
        let mut seen = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            let at = now();
            if span.first_request.is_none() {
                let stats = cloud.stats();
                span.first_request = (stats.ranges + stats.stream_requests > 0).then_some(at);
                seen = data.forwarded(Direction::Down);
            } else {
                let bytes = data.forwarded(Direction::Down);
                if bytes >= seen + BURST_BYTES {
                    span.last_burst = Some(at);
                    seen = bytes;
                }
            }
            pass(LOOK_EVERY);
        }
        span
    }
}
