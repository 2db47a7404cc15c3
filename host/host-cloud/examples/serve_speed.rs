//! How fast the cloud hands out blocks: `cargo run --release -p host-cloud --example serve_speed [MiB]`.
//!
//! A client that only counts (no flash, no signature) asks over loopback without TLS for windows of 31 blocks of 4 KiB,
//! two windows ahead, and for windows of 2 blocks of 64 KiB. It prints MB/s of payload; it is no test and no limit.

use std::{
    error::Error,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use host_cloud::{
    Cloud, CloudConfig, Limits,
    operator::wire::{CreateUpdate, FileSpec, ImageInput},
};

/// Windows asked for before the first is answered.
const AHEAD: u64 = 2;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mib: usize = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 256,
    };
    let dir = std::env::temp_dir().join(format!("otad-serve-speed-{}", std::process::id()));
    let cloud = Cloud::start(CloudConfig {
        tls: None,
        plain: Some(([127, 0, 0, 1], 0).into()),
        limits: Limits::None,
        things: vec!["gw".parse()?],
        ..CloudConfig::new(&dir)
    })
    .await?;
    let image = FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(vec![0x5a; mib * 1024 * 1024].into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".into(),
        cert_file: "/signer.pem".into(),
        signature: None,
    };
    let mut update = CreateUpdate::new(vec!["gw".parse()?], vec![image]);
    update.stream_id = Some("s".parse()?);
    cloud.operator().create_update(update).await?;
    let address = cloud.plain_addr().ok_or("no address")?;
    let bytes = mib as u64 * 1024 * 1024;
    for (block, window) in [(4096, 31), (65_536, 2)] {
        let run = move || fetch(address, bytes, block, window).map_err(|e| e.to_string());
        let took = tokio::task::spawn_blocking(run).await??;
        let speed = bytes as f64 / 1e6 / took.as_secs_f64();
        let line = format!("{mib} MiB in blocks of {block}, {window} a request: {speed:.0} MB/s\n");
        std::io::stdout().write_all(line.as_bytes())?;
    }
    cloud.shutdown().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn fetch(
    address: std::net::SocketAddr,
    bytes: u64,
    block: u64,
    window: u64,
) -> Result<Duration, Box<dyn Error>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.write_all(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02gw")?;
    let mut connack = [0; 4];
    socket.read_exact(&mut connack)?;
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    let start = std::time::Instant::now();
    let total = bytes.div_ceil(block);
    let (mut asked, mut got) = (0, 0);
    let mut packet = vec![0; 256 * 1024];
    while got < total {
        while asked < total && asked < got + AHEAD * window {
            ask(&mut socket, asked, block, window)?;
            asked += window;
        }
        read_packet(&mut socket, &mut packet)?;
        got += 1;
    }
    Ok(start.elapsed())
}

fn ask(socket: &mut TcpStream, offset: u64, block: u64, window: u64) -> std::io::Result<()> {
    let topic = b"$aws/things/gw/streams/s/get/cbor";
    // {"f": 0, "l": block, "o": offset, "n": window}, numbers as 32 bits.
    let mut body = vec![0xa4, 0x61, b'f', 0];
    for (key, number) in [(b'l', block), (b'o', offset), (b'n', window)] {
        body.extend([0x61, key, 0x1a]);
        body.extend(&number.to_be_bytes()[4..]);
    }
    let length = 2 + topic.len() + body.len();
    let mut packet = vec![0x30, length as u8, 0, topic.len() as u8];
    packet.extend(topic);
    packet.extend(body);
    socket.write_all(&packet)
}

fn read_packet(socket: &mut TcpStream, packet: &mut [u8]) -> std::io::Result<()> {
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    let (mut length, mut shift) = (0, 0);
    loop {
        socket.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    socket.read_exact(&mut packet[..length])
}
