//! A roll-out to many things on real connections, and what it costs the cloud:
//! `cargo run --release -p host-cloud --example fleet [things] [plain|tls]`.
//!
//! First a bad image with a canary of 10, batches of 100 a minute and an abort rule of 20 failures; then a good one to
//! everybody at once. The things live in a second process, so that CPU and memory printed here are the cloud's alone. It
//! is no test and no limit; the test `fleet` asserts the same story on a small fleet.

#[path = "light/mod.rs"]
mod light;

use std::{
    error::Error,
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use host_cloud::{
    Cloud, CloudConfig, CloudHandle,
    operator::wire::{CreateUpdate, FileSpec, ImageInput},
    service::{AbortRule, JobId, JobView, Plan, Rollout, ThingName, Threshold},
};
use light::{Life, Thing, Verdict};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

type Any = Box<dyn Error + Send + Sync>;

const IMAGE_BYTES: usize = 64 * 1024;
const GROUP: &str = "fleet";

#[tokio::main]
async fn main() -> Result<(), Any> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("things") => things(&args.collect::<Vec<_>>()).await,
        Some(count) => cloud(count.parse()?, args.next().as_deref() == Some("tls")).await,
        None => cloud(1000, false).await,
    }
}

async fn cloud(count: usize, tls: bool) -> Result<(), Any> {
    let dir = std::env::temp_dir().join(format!("otad-fleet-{}", std::process::id()));
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let cloud = Cloud::start(CloudConfig {
        tls: tls.then_some(loopback),
        plain: (!tls).then_some(loopback),
        ..CloudConfig::new(&dir)
    })
    .await?;
    say(&format!(
        "{count} things, {}",
        if tls { "TLS" } else { "plain" }
    ))?;
    let began = Instant::now();
    let list = register(&cloud, count, &dir).await?;
    say(&format!(
        "registered in {:.1} s",
        began.elapsed().as_secs_f64()
    ))?;

    let bad = Plan {
        rollout: Rollout {
            per_minute: Some(100),
            canary: Some(10),
        },
        abort: vec![AbortRule::new(Threshold::Count(20))],
        ..Plan::default()
    };
    for (id, verdict, plan) in [("bad", "fail", bad), ("good", "succeed", Plan::default())] {
        let fleet = Fleet::connect(&cloud, &list, id, verdict).await?;
        fleet.roll_out(&cloud, id, plan).await?;
    }
    cloud.shutdown().await;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Registers the things and their group; returns a file with a line for each: name, certificate, key.
async fn register(cloud: &CloudHandle, count: usize, dir: &Path) -> Result<PathBuf, Any> {
    let group = GROUP.parse()?;
    let operator = cloud.operator();
    operator.create_group(&group, String::new()).await?;
    let mut lines = String::new();
    let mut names: Vec<ThingName> = Vec::with_capacity(count);
    for number in 0..count {
        let name: ThingName = format!("thing-{number:05}").parse()?;
        let credentials = cloud.thing_create(&name).await?;
        lines.push_str(&format!(
            "{name} {} {} {}\n",
            credentials.certificate_path.display(),
            credentials.private_key_path.display(),
            credentials.root_path.display()
        ));
        names.push(name);
    }
    operator.join_group(&group, &names).await?;
    let list = dir.join("fleet.txt");
    fs::write(&list, lines)?;
    Ok(list)
}

/// The process of the things.
struct Fleet {
    child: Child,
    stdin: ChildStdin,
    before: Usage,
}

impl Fleet {
    async fn connect(
        cloud: &CloudHandle,
        list: &Path,
        id: &str,
        verdict: &str,
    ) -> Result<Self, Any> {
        let address = cloud
            .tls_addr()
            .or_else(|| cloud.plain_addr())
            .ok_or("no address")?;
        let kind = if cloud.tls_addr().is_some() {
            "tls"
        } else {
            "plain"
        };
        let before = Usage::now()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["things", kind, &address.to_string(), id, verdict])
            .arg(list)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let mut lines = BufReader::new(child.stdout.as_mut().ok_or("no stdout")?).lines();
        let line = lines.next_line().await?.ok_or("the things stopped")?;
        let spent = before.since()?;
        say(&format!(
            "{line}; cloud: {:.2} s CPU, {} connected, RSS {:.1} MB",
            spent.cpu_s,
            cloud.stats().connected,
            spent.rss_mb
        ))?;
        Ok(Self {
            child,
            stdin,
            before: Usage::now()?,
        })
    }

    async fn roll_out(mut self, cloud: &CloudHandle, id: &str, plan: Plan) -> Result<(), Any> {
        let operator = cloud.operator();
        let mut update = CreateUpdate::new(Vec::new(), vec![image()]);
        update.update_id = Some(id.to_owned());
        update.plan = Plan {
            groups: vec![GROUP.parse()?],
            ..plan
        };
        let began = Instant::now();
        let job: JobId = operator.create_update(update).await?.job_id;
        let created = began.elapsed();
        let mut watch = operator.watch(&job)?;
        while watch.next().await.is_some() {}
        let (took, spent) = (began.elapsed(), self.before.since()?);
        let view = operator.show(&job)?;
        tell(&view)?;
        say(&format!(
            "  created in {:.2} s, over after {:.2} s; cloud: {:.2} s CPU, RSS {:.1} MB (peak {:.1})",
            created.as_secs_f64(),
            took.as_secs_f64(),
            spent.cpu_s,
            spent.rss_mb,
            spent.peak_mb
        ))?;
        self.stdin.write_all(b"over\n").await?;
        drop(self.stdin);
        let out = self.child.stdout.take().ok_or("no stdout")?;
        let mut lines = BufReader::new(out).lines();
        while let Some(line) = lines.next_line().await? {
            say(&format!("  {line}"))?;
        }
        self.child.wait().await?;
        Ok(())
    }
}

fn tell(job: &JobView) -> Result<(), Any> {
    let p = job.progress;
    let reached = job.executions.iter().filter(|e| e.offered).count();
    say(&format!(
        "{}: {}, offered to {reached}; succeeded {}, failed {}, canceled {}{}",
        job.job_id,
        job.status.as_str(),
        p.succeeded,
        p.failed,
        p.canceled,
        job.reason
            .as_ref()
            .map_or(String::new(), |r| format!("; {r}"))
    ))
}

fn image() -> FileSpec {
    FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(vec![0x5a; IMAGE_BYTES].into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".into(),
        cert_file: "/signer.pem".into(),
        signature: None,
    }
}

/// The second process: `things plain|tls ADDRESS UPDATE-ID fail|succeed LIST`.
async fn things(args: &[String]) -> Result<(), Any> {
    let [kind, address, id, verdict, list] = args else {
        return Err("things KIND ADDRESS ID VERDICT LIST".into());
    };
    let address: SocketAddr = address.parse()?;
    let verdict = match verdict.as_str() {
        "fail" => Verdict::Fail,
        _ => Verdict::Succeed,
    };
    let job = format!("AFR_OTA-{id}");
    let (end, ended) = watch::channel(false);
    let mut lives = JoinSet::new();
    let began = Instant::now();
    let list = fs::read_to_string(list)?;
    for line in list.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, certificate, key, root] = words[..] else {
            return Err("a line is not name, certificate, key, root".into());
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (job, ended) = (job.clone(), ended.clone());
        if kind == "tls" {
            let config = client_config(certificate, key, root)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let host = ServerName::try_from("127.0.0.1")?;
            let stream = connector.connect(host, stream).await?;
            let thing = Thing::connect(name, stream).await?;
            lives.spawn(live(thing, job, verdict, ended));
        } else {
            let thing = Thing::connect(name, stream).await?;
            lives.spawn(live(thing, job, verdict, ended));
        }
    }
    say(&format!(
        "{} things connected in {:.2} s",
        lives.len(),
        began.elapsed().as_secs_f64()
    ))?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    end.send_replace(true);
    let (mut offered, mut fetched, mut canceled) = (0, 0, 0);
    while let Some(life) = lives.join_next().await {
        let life = life??;
        offered += usize::from(life.offered);
        fetched += life.fetched;
        canceled += usize::from(life.told.contains("CANCELED"));
    }
    say(&format!(
        "things: {offered} were offered it, {canceled} see CANCELED, {:.1} MB fetched",
        fetched as f64 / 1e6
    ))
}

async fn live<S: AsyncRead + AsyncWrite + Send>(
    thing: Thing<S>,
    job: String,
    verdict: Verdict,
    mut ended: watch::Receiver<bool>,
) -> std::io::Result<Life> {
    let over = async move {
        // An error is the sender gone, which is the end too.
        ended.wait_for(|ended| *ended).await.ok();
    };
    thing.live(&job, verdict, over).await
}

fn client_config(certificate: &str, key: &str, root: &str) -> Result<rustls::ClientConfig, Any> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?)
}

/// What this process has used.
#[derive(Clone, Copy)]
struct Usage {
    cpu_s: f64,
    rss_mb: f64,
    peak_mb: f64,
}

impl Usage {
    fn now() -> Result<Self, Any> {
        // Behind the name in parentheses: state is field 3, utime and stime are 14 and 15, in ticks of 1/100 s.
        let stat = fs::read_to_string("/proc/self/stat")?;
        let rest = stat.rsplit_once(')').ok_or("no name in stat")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let status = fs::read_to_string("/proc/self/status")?;
        let kib = |key: &str| -> Result<f64, Any> {
            let line = status.lines().find(|line| line.starts_with(key));
            let word = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(word.ok_or("no such line in status")?.parse()?)
        };
        Ok(Self {
            cpu_s: ticks / 100.0,
            rss_mb: kib("VmRSS:")? * 1024.0 / 1e6,
            peak_mb: kib("VmHWM:")? * 1024.0 / 1e6,
        })
    }

    /// CPU used since then; memory as it is now.
    fn since(self) -> Result<Self, Any> {
        let now = Self::now()?;
        Ok(Self {
            cpu_s: now.cpu_s - self.cpu_s,
            ..now
        })
    }
}

fn say(line: &str) -> Result<(), Any> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
