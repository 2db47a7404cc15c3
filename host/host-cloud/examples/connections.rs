//! What many connections cost: `cargo run --release -p host-cloud --example connections [COUNT]`.
//!
//! A child process connects that many things at once, over TLS with a certificate each, and then lets all of them fetch
//! 64 KiB at the same time. Printed are the time of the storm, the memory of this process a connection, and how evenly the
//! downloads ended. It is no test and no limit.

use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use host_cloud::{
    Cloud, CloudConfig,
    operator::wire::{CreateUpdate, FileSpec, ImageInput},
    service::ThingName,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    sync::{Barrier, mpsc},
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

type Failed = Box<dyn Error + Send + Sync>;

const IMAGE_BYTES: usize = 64 * 1024;
const BLOCK_BYTES: usize = 4096;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [word, dir, port, count] if word == "clients" => {
            clients(Path::new(dir), port.parse()?, count.parse()?).await
        }
        [] => serve(1000).await,
        [count, ..] => serve(count.parse()?).await,
    }
}

fn thing(number: usize) -> String {
    format!("thing-{number}")
}

fn say(line: &str) -> Result<(), Failed> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Resident memory of this process, in KiB (proc(5)).
fn resident_kib() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

/// Seconds of processor time of this process (proc(5): ticks of 10 ms).
fn processor_s() -> Result<f64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let field = |index| rest.split_whitespace().nth(index).unwrap_or("0");
    Ok((field(11).parse::<f64>()? + field(12).parse::<f64>()?) / 100.0)
}

async fn serve(count: usize) -> Result<(), Failed> {
    let dir = std::env::temp_dir().join(format!("otad-connections-{}", std::process::id()));
    let cloud = Cloud::start(CloudConfig::new(&dir)).await?;
    let mut names = Vec::new();
    for number in 0..count {
        let name: ThingName = thing(number).parse()?;
        cloud.thing_create(&name).await?;
        names.push(name);
    }
    let image = FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(vec![0x5a; IMAGE_BYTES].into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".into(),
        cert_file: "/signer.pem".into(),
        signature: None,
    };
    let mut update = CreateUpdate::new(names, vec![image]);
    update.stream_id = Some("s".parse()?);
    cloud.operator().create_update(update).await?;
    let port = cloud.tls_addr().ok_or("no address")?.port();
    let (before_kib, before_s) = (resident_kib()?, processor_s()?);
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "clients",
            &dir.display().to_string(),
            &port.to_string(),
            &count.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let mut go = child.stdin.take().ok_or("no pipe")?;
    let storm = lines.next_line().await?.ok_or("the clients ended")?;
    // What the handshakes left behind is given back by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (idle_kib, storm_s) = (resident_kib()?, processor_s()?);
    let each = idle_kib.saturating_sub(before_kib) as f64 / count as f64;
    say(&format!(
        "{count} connections with TLS: {storm}, {:.2} s of processor; {each:.1} KiB each ({before_kib} -> {idle_kib} KiB)",
        storm_s - before_s
    ))?;
    go.write_all(b"go\n").await?;
    let fetched = lines.next_line().await?.ok_or("the clients ended")?;
    say(&format!(
        "{} KiB to each at once: {fetched}, {:.2} s of processor, {} KiB at the end",
        IMAGE_BYTES / 1024,
        processor_s()? - storm_s,
        resident_kib()?
    ))?;
    drop(go);
    child.wait().await?;
    cloud.shutdown().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn clients(dir: &Path, port: u16, count: usize) -> Result<(), Failed> {
    let (done, mut ended) = mpsc::channel::<Result<Duration, Failed>>(count);
    let connected = Arc::new(Barrier::new(count + 1));
    let started = Arc::new(Barrier::new(count + 1));
    let begin = Instant::now();
    for number in 0..count {
        let (dir, done) = (dir.to_owned(), done.clone());
        let (connected, started) = (Arc::clone(&connected), Arc::clone(&started));
        tokio::spawn(async move {
            let client = connect(dir, port, number).await;
            connected.wait().await;
            started.wait().await;
            let begin = Instant::now();
            let fetched = match client {
                Ok(client) => fetch(client, number).await.map(|()| begin.elapsed()),
                Err(error) => Err(error),
            };
            // The receiver counts every one of them.
            done.send(fetched).await.ok();
        });
    }
    connected.wait().await;
    say(&format!(
        "all connected after {} ms",
        begin.elapsed().as_millis()
    ))?;
    BufReader::new(tokio::io::stdin())
        .lines()
        .next_line()
        .await?;
    started.wait().await;
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(ended.recv().await.ok_or("a client vanished")??.as_millis());
    }
    times.sort_unstable();
    let at = |percent: usize| times.get((count - 1) * percent / 100).copied().unwrap_or(0);
    let (first, median, last) = (at(0), at(50), at(100));
    say(&format!("first {first}, median {median}, last {last} ms"))?;
    Ok(())
}

async fn connect(dir: PathBuf, port: u16, number: usize) -> Result<TlsStream<TcpStream>, Failed> {
    let name = thing(number);
    let pki = dir.join("pki");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("root.pem"))?)?;
    let own = CertificateDer::from_pem_file(pki.join(format!("things/{name}.pem")))?;
    let key = PrivateKeyDer::from_pem_file(pki.join(format!("things/{name}.key")))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], key)?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let host = ServerName::try_from("localhost")?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(host, stream)
        .await?;
    let mut packet = b"\x00\x04MQTT\x04\x02\x04\xb0".to_vec();
    packet.extend(u16::try_from(name.len())?.to_be_bytes());
    packet.extend(name.as_bytes());
    stream
        .write_all(&[0x10, u8::try_from(packet.len())?])
        .await?;
    stream.write_all(&packet).await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    Ok(stream)
}

async fn fetch(mut stream: TlsStream<TcpStream>, number: usize) -> Result<(), Failed> {
    let topic = format!("$aws/things/{}/streams/s/get/cbor", thing(number));
    let blocks = IMAGE_BYTES / BLOCK_BYTES;
    // {"f": 0, "l": 4096, "n": 16}
    let payload = [b"\xa3\x61f\x00\x61l\x19\x10\x00\x61n", &[blocks as u8][..]].concat();
    let mut packet = vec![0x30, u8::try_from(2 + topic.len() + payload.len())?];
    packet.extend(u16::try_from(topic.len())?.to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend(payload);
    stream.write_all(&packet).await?;
    for _ in 0..blocks {
        if stream.read_u8().await? >> 4 != 3 {
            return Err("no block".into());
        }
        let mut length = 0;
        for shift in (0..28).step_by(7) {
            let byte = stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
    }
    Ok(())
}
