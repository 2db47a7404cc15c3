//! The raw receiver: what a download costs without an agent, a file or a check. It runs in a process of its own.
//!
//! It asks for `blocks` blocks at a time, one request in flight, and puts each into its place in memory. What a request
//! lost is asked for again after a second of silence. After the clock has stopped, the image is hashed: a receiver that is
//! fast because it is wrong would be no baseline.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use host_crypto::{Hasher, hex};
use minicbor::{Decoder, Encoder};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use serde::{Deserialize, Serialize};
use support::deadline::{PATIENCE, now};
use support::process::Process;
use support::usage::Usage;

use crate::figure::Untaken;

/// A request that is not answered for so long is made again: far more than any loopback takes.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Largest packet: the protocol's largest block and an envelope, and room.
const PACKET_BYTES_MAX: usize = 512 * 1024;

/// What it says once it is subscribed.
pub const SUBSCRIBED: &str = "subscribed";

/// What is received.
#[derive(Args, Clone, Debug)]
pub struct Order {
    /// Port of the broker on this machine, without TLS.
    #[arg(long)]
    pub port: u16,
    /// Whose stream.
    #[arg(long)]
    pub thing: String,
    /// Name of the stream; its file is number 0.
    #[arg(long)]
    pub stream: String,
    /// Bytes of the file; 0 = subscribe and stay.
    #[arg(long)]
    pub bytes: usize,
    /// Bytes of a block.
    #[arg(long)]
    pub block_bytes: usize,
    /// Blocks of a request; the cloud sends at most 128 KiB for each.
    #[arg(long)]
    pub blocks: usize,
}

/// What it has cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// From the first request to the last block.
    pub seconds: f64,
    /// Processor time within it.
    pub cpu_seconds: f64,
    /// Requests that were made again.
    pub again: u64,
    /// SHA-256 of what was received, in hexadecimal.
    pub sha256: String,
}

impl Order {
    /// The command that receives it in another process.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let numbers = [
            ("--port", usize::from(self.port)),
            ("--bytes", self.bytes),
            ("--block-bytes", self.block_bytes),
            ("--blocks", self.blocks),
        ];
        command.args(["receive", "--thing", &self.thing, "--stream", &self.stream]);
        for (name, number) in numbers {
            command.arg(name).arg(number.to_string());
        }
        command
    }

    /// Receives it in another process.
    ///
    /// # Errors
    /// It did not work.
    pub fn elsewhere(&self, program: &Path) -> Result<Received, Untaken> {
        let failed = |error: &support::Error| Untaken::by("the raw receiver", error);
        let command = self.command(program);
        let mut process = Process::start("receiver", command).map_err(|e| failed(&e))?;
        let line = process.wait_line("{", PATIENCE).map_err(|e| failed(&e))?;
        serde_json::from_str(&line).map_err(|error| Untaken::by("the raw receiver's word", &error))
    }

    /// Receives it in this process and prints what it has cost.
    ///
    /// # Errors
    /// It did not work.
    pub fn receive(&self) -> Result<(), Untaken> {
        if self.block_bytes == 0 || self.blocks == 0 {
            let text = "a block has at least one byte, and a request one block";
            return Err(Untaken::because(text));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Untaken::by("making a runtime", &error))?;
        let (mut cost, image) = runtime.block_on(async {
            let mut line = Line::open(self).await?;
            say(SUBSCRIBED)?;
            let image = line.receive(self).await?;
            Ok::<_, Untaken>((line.cost, image))
        })?;
        let mut hasher = Hasher::default();
        hasher.update(&image);
        cost.sha256 = hex(hasher.finish().sha256());
        let text = serde_json::to_string(&cost);
        say(&text.map_err(|error| Untaken::by("writing the figures", &error))?)
    }
}

/// A line on standard output, for the process that waits for it.
pub(crate) fn say(text: &str) -> Result<(), Untaken> {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{text}").and_then(|()| out.flush());
    said.map_err(|error| Untaken::by("writing", &error))
}

struct Line {
    client: AsyncClient,
    events: EventLoop,
    cost: Received,
}

impl Line {
    async fn open(order: &Order) -> Result<Self, Untaken> {
        let broker = ("127.0.0.1".to_owned(), order.port);
        let mut options = MqttOptions::new(order.thing.as_str(), broker);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        let (client, mut events) = AsyncClient::builder(options).capacity(16).build();
        let mut network = events.network_options();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let cost = Received {
            seconds: 0.0,
            cpu_seconds: 0.0,
            again: 0,
            sha256: String::new(),
        };
        let mut line = Self {
            client,
            events,
            cost,
        };
        let filter = format!("{}/data/cbor", topic(order));
        let asked = line.client.subscribe(filter, QoS::AtMostOnce).await;
        asked.map_err(|error| Untaken::by("subscribing", &error))?;
        while !matches!(line.next().await?, Event::Incoming(Packet::SubAck(_))) {}
        Ok(line)
    }

    async fn next(&mut self) -> Result<Event, Untaken> {
        let event = self.events.poll().await;
        event.map_err(|error| Untaken::by("the connection", &error))
    }

    async fn receive(&mut self, order: &Order) -> Result<Vec<u8>, Untaken> {
        if order.bytes == 0 {
            // It is there, and nothing else, until the connection is gone.
            loop {
                self.next().await?;
            }
        }
        let usage = || {
            let usage = Usage::of(std::process::id());
            usage.map_err(|error| Untaken::by("own processor time", &error))
        };
        let mut image = Image::new(order);
        let (begun, before) = (now(), usage()?);
        let mut first = 0;
        while first < image.have.len() {
            let end = image.have.len().min(first + order.blocks);
            self.request(order, first, end).await?;
            while image.first_missing(first, end) < end {
                match tokio::time::timeout(SILENCE_MAX, self.next()).await {
                    Ok(event) => {
                        if let Event::Incoming(Packet::Publish(publish)) = event? {
                            image.put(&publish.payload)?;
                        }
                    }
                    Err(_) => {
                        self.cost.again += 1;
                        let lost = image.first_missing(first, end);
                        self.request(order, lost, end).await?;
                    }
                }
            }
            first = end;
        }
        self.cost.seconds = now().duration_since(begun).as_secs_f64();
        self.cost.cpu_seconds = usage()?.cpu_since(&before).as_secs_f64();
        Ok(image.bytes)
    }

    async fn request(&mut self, order: &Order, first: usize, end: usize) -> Result<(), Untaken> {
        let topic = format!("{}/get/cbor", topic(order));
        let published = self
            .client
            .publish(
                topic,
                request(order, first, end)?,
                PublishOptions::new(QoS::AtMostOnce),
            )
            .await;
        published.map_err(|error| Untaken::by("asking", &error))
    }
}

fn topic(order: &Order) -> String {
    format!("$aws/things/{}/streams/{}", order.thing, order.stream)
}

/// `GetStream` of blocks `first..end` of file 0.
fn request(order: &Order, first: usize, end: usize) -> Result<Vec<u8>, Untaken> {
    let mut message = Vec::new();
    let mut encode = || {
        let mut to = Encoder::new(&mut message);
        to.map(4)?.str("f")?.u8(0)?;
        to.str("l")?.u64(order.block_bytes as u64)?;
        to.str("o")?.u64(first as u64)?;
        to.str("n")?.u64((end - first) as u64)?;
        Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
    };
    match encode() {
        Ok(()) => Ok(message),
        Err(error) => Err(Untaken::by("writing a request", &error)),
    }
}

/// The image as far as it is there.
struct Image {
    bytes: Vec<u8>,
    have: Vec<bool>,
    block_bytes: usize,
}

impl Image {
    fn new(order: &Order) -> Self {
        Self {
            bytes: vec![0; order.bytes],
            have: vec![false; order.bytes.div_ceil(order.block_bytes)],
            block_bytes: order.block_bytes,
        }
    }

    /// The first block of `first..end` that is not there; `end` if all are.
    fn first_missing(&self, first: usize, end: usize) -> usize {
        let missing = self.have[first..end].iter().position(|have| !have);
        missing.map_or(end, |at| first + at)
    }

    /// Puts a message's block into its place.
    fn put(&mut self, message: &[u8]) -> Result<(), Untaken> {
        let strange = |what: String| Untaken::because(format!("the cloud sent {what}"));
        let (index, block) = block(message).map_err(|error| strange(error.to_string()))?;
        let at = index.checked_mul(self.block_bytes);
        let place = at.and_then(|at| {
            let end = self.bytes.len().min(at.checked_add(self.block_bytes)?);
            self.bytes.get_mut(at..end)
        });
        match (place, self.have.get_mut(index)) {
            (Some(place), Some(have)) if place.len() == block.len() => {
                place.copy_from_slice(block);
                *have = true;
                Ok(())
            }
            _ => Err(strange(format!("block {index} of {} bytes", block.len()))),
        }
    }
}

/// Number and bytes of a block.
fn block(message: &[u8]) -> Result<(usize, &[u8]), minicbor::decode::Error> {
    let mut from = Decoder::new(message);
    let (mut index, mut payload) = (None, None);
    let members = from.map()?;
    for _ in 0..members.unwrap_or(0) {
        match from.str()? {
            "i" => index = usize::try_from(from.u64()?).ok(),
            "p" => payload = Some(from.bytes()?),
            _ => from.skip()?,
        }
    }
    let missing = || minicbor::decode::Error::message("a message without number or bytes");
    index.zip(payload).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(bytes: usize) -> Order {
        Order {
            port: 1,
            thing: "t".into(),
            stream: "s".into(),
            bytes,
            block_bytes: 4,
            blocks: 2,
        }
    }

    fn message(index: u64, block: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        let mut to = Encoder::new(&mut message);
        to.map(4).unwrap().str("f").unwrap().u8(0).unwrap();
        to.str("i").unwrap().u64(index).unwrap();
        to.str("l").unwrap().u64(block.len() as u64).unwrap();
        to.str("p").unwrap().bytes(block).unwrap();
        message
    }

    #[test]
    fn blocks_in_any_order_make_the_image() {
        let mut image = Image::new(&order(10));
        for (index, block) in [(2, &b"ij"[..]), (0, b"abcd"), (0, b"abcd")] {
            image.put(&message(index, block)).unwrap();
        }
        assert_eq!(
            (image.first_missing(0, 3), image.first_missing(2, 3)),
            (1, 3)
        );
        image.put(&message(1, b"efgh")).unwrap();
        assert_eq!(image.first_missing(0, 3), 3);
        assert_eq!(image.bytes, b"abcdefghij");
    }

    #[test]
    fn what_is_no_block_of_the_image_is_refused() {
        let mut image = Image::new(&order(10));
        for strange in [
            message(0, b"abc"),
            message(2, b"ijkl"),
            message(3, b""),
            message(u64::MAX, b"abcd"),
            b"\xa1ac".to_vec(),
            b"no map".to_vec(),
        ] {
            assert!(image.put(&strange).is_err(), "{strange:?}");
        }
    }
}
