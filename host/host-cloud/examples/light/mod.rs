//! A light simulated thing: just enough MQTT 3.1.1 and CBOR to take a job, fetch its image and report, over a real
//! connection. Shared by the fleet test and the fleet example; it knows nothing of the cloud's insides.

use std::{collections::HashSet, io};

use minicbor::{Decoder, Encoder};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// Block size that things ask for.
const BLOCK_BYTES: u64 = 4096;
/// Blocks that things ask for at once.
const WINDOW: u64 = 31;

/// How a thing ends its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The image is good.
    Succeed,
    /// The image is bad.
    Fail,
}

/// What a thing has lived through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Bytes of image it fetched.
    pub(crate) fetched: u64,
    /// Whether it was offered a job.
    pub(crate) offered: bool,
    /// Last status it reported that was accepted.
    pub(crate) reported: Option<String>,
    /// What Jobs says about the job, when asked at the end.
    pub(crate) told: String,
}

/// A connected thing.
pub(crate) struct Thing<S> {
    name: String,
    reader: ReadHalf<S>,
    /// Read, and not yet a whole packet.
    buffer: Vec<u8>,
    writer: WriteHalf<S>,
    packet: u16,
}

struct Message {
    topic: String,
    payload: Vec<u8>,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl<S: AsyncRead + AsyncWrite> Thing<S> {
    /// Connects and subscribes to `notify-next`.
    pub(crate) async fn connect(name: &str, stream: S) -> io::Result<Self> {
        let (reader, writer) = tokio::io::split(stream);
        let mut thing = Self {
            name: name.to_owned(),
            reader,
            buffer: Vec::new(),
            writer,
            packet: 0,
        };
        // Clean session, keep alive of 20 minutes.
        let mut connect = text("MQTT");
        connect.extend([4, 2, 0x04, 0xb0]);
        connect.extend(text(name));
        thing.send(0x10, &connect).await?;
        let (kind, body) = thing.packet().await?;
        if kind != 0x20 || body != [0, 0] {
            return Err(wrong(format!("{name}: no CONNACK but {kind:#x} {body:?}")));
        }
        let mut subscribe = thing.next_packet();
        subscribe.extend(text(&thing.topic("jobs/notify-next")));
        subscribe.push(1);
        thing.send(0x82, &subscribe).await?;
        let (kind, body) = thing.packet().await?;
        if kind != 0x90 || body.last() != Some(&1) {
            return Err(wrong(format!("{name}: no SUBACK but {kind:#x} {body:?}")));
        }
        Ok(thing)
    }

    /// Takes the next job as soon as one comes, fetches its image and ends it; `over` resolves when no more will come.
    /// Asks at the end what became of `job`.
    pub(crate) async fn live(
        mut self,
        job: &str,
        verdict: Verdict,
        over: impl Future<Output = ()>,
    ) -> io::Result<Life> {
        let mut life = Life::default();
        self.publish("jobs/$next/get", b"{}", 1).await?;
        let mut over = std::pin::pin!(over);
        loop {
            let message = tokio::select! {
                biased;
                message = self.message() => message?,
                () = &mut over => break,
            };
            let Ok(body) = serde_json::from_slice::<Value>(&message.payload) else {
                continue;
            };
            let execution = &body["execution"];
            if execution["status"] == "QUEUED" {
                life.offered = true;
                life.reported = self.work(execution, verdict, &mut life.fetched).await?;
            }
        }
        let answer = self.ask(&format!("jobs/{job}/get"), &json!({})).await?;
        life.told = match answer["code"].as_str() {
            Some(code) => format!("{code}: {}", answer["message"].as_str().unwrap_or_default()),
            None => answer["execution"]["status"]
                .as_str()
                .unwrap_or("none")
                .to_owned(),
        };
        Ok(life)
    }

    async fn work(
        &mut self,
        execution: &Value,
        verdict: Verdict,
        fetched: &mut u64,
    ) -> io::Result<Option<String>> {
        let job = execution["jobId"].as_str().unwrap_or_default();
        let ota = &execution["jobDocument"]["afr_ota"];
        let stream = ota["streamname"].as_str().unwrap_or_default().to_owned();
        let size = ota["files"][0]["filesize"].as_u64().unwrap_or_default();
        let update = format!("jobs/{job}/update");
        let begun = json!({"status": "IN_PROGRESS", "statusDetails": {"receive": "0/1"}});
        let answer = self.ask(&update, &begun).await?;
        if answer["code"].is_string() {
            return Ok(None);
        }
        *fetched += self.fetch(&stream, size).await?;
        let status = match verdict {
            Verdict::Succeed => "SUCCEEDED",
            Verdict::Fail => "FAILED",
        };
        let details = json!({"status": status, "statusDetails": {"reason": "checked"}});
        let answer = self.ask(&update, &details).await?;
        Ok(answer["code"].is_null().then(|| status.to_owned()))
    }

    /// Fetches a whole file, a window at a time, and checks that every block comes once.
    async fn fetch(&mut self, stream: &str, size: u64) -> io::Result<u64> {
        let blocks = size.div_ceil(BLOCK_BYTES);
        let mut bytes = 0;
        for first in (0..blocks).step_by(WINDOW as usize) {
            let count = WINDOW.min(blocks - first);
            let request = request(first, count).map_err(|e| wrong(e.to_string()))?;
            self.publish(&format!("streams/{stream}/get/cbor"), &request, 0)
                .await?;
            let mut missing: HashSet<u64> = (first..first + count).collect();
            while !missing.is_empty() {
                let message = self.message().await?;
                if message.topic.ends_with("/rejected/cbor") {
                    return Err(wrong(format!("{}: stream refused", self.name)));
                }
                if !message.topic.ends_with("/data/cbor") {
                    continue;
                }
                let (index, length) = block(&message.payload).map_err(|e| wrong(e.to_string()))?;
                if !missing.remove(&index) {
                    return Err(wrong(format!("block {index} was not asked for")));
                }
                bytes += length;
            }
        }
        Ok(bytes)
    }

    /// Publishes a Jobs request and waits for its answer.
    async fn ask(&mut self, rest: &str, request: &Value) -> io::Result<Value> {
        self.publish(rest, request.to_string().as_bytes(), 1)
            .await?;
        let topic = self.topic(rest);
        loop {
            let message = self.message().await?;
            let level = message.topic.strip_prefix(&topic);
            if matches!(level, Some("/accepted" | "/rejected")) {
                return serde_json::from_slice(&message.payload).map_err(io::Error::from);
            }
        }
    }

    fn topic(&self, rest: &str) -> String {
        format!("$aws/things/{}/{rest}", self.name)
    }

    fn next_packet(&mut self) -> Vec<u8> {
        self.packet = self.packet % u16::MAX + 1;
        self.packet.to_be_bytes().to_vec()
    }

    async fn publish(&mut self, rest: &str, payload: &[u8], qos: u8) -> io::Result<()> {
        let mut body = text(&self.topic(rest));
        if qos > 0 {
            body.extend(self.next_packet());
        }
        body.extend(payload);
        self.send(0x30 | qos << 1, &body).await
    }

    /// The next message, acknowledged.
    async fn message(&mut self) -> io::Result<Message> {
        loop {
            let (kind, mut body) = self.packet().await?;
            if kind & 0xf0 != 0x30 {
                continue;
            }
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8_lossy(&body[2..2 + length]).into_owned();
            let mut start = 2 + length;
            if kind & 0x06 != 0 {
                let id = [body[start], body[start + 1]];
                start += 2;
                self.send(0x40, &id).await?;
            }
            let payload = body.split_off(start);
            return Ok(Message { topic, payload });
        }
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![kind];
        let mut left = body.len();
        loop {
            let low = (left & 0x7f) as u8;
            left >>= 7;
            packet.push(if left > 0 { low | 0x80 } else { low });
            if left == 0 {
                break;
            }
        }
        packet.extend(body);
        self.writer.write_all(&packet).await
    }

    /// The next packet. May be given up at any time: what was read of it stays.
    async fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((start, end)) = whole(&self.buffer) {
                let kind = self.buffer[0];
                let body = self.buffer[start..end].to_vec();
                self.buffer.drain(..end);
                return Ok((kind, body));
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(wrong(format!("{}: the cloud hung up", self.name)));
            }
        }
    }
}

/// Where the body of the first packet begins and ends, once all of it is there.
fn whole(buffer: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut at) = (0usize, 1);
    loop {
        let byte = *buffer.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (buffer.len() >= at + length).then_some((at, at + length))
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

type EncodeError = minicbor::encode::Error<std::convert::Infallible>;

fn request(first: u64, count: u64) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.map(4)?;
    encoder.str("f")?.u8(0)?.str("l")?.u64(BLOCK_BYTES)?;
    encoder.str("o")?.u64(first)?.str("n")?.u64(count)?;
    Ok(encoder.into_writer())
}

/// Number and length of a block.
fn block(payload: &[u8]) -> Result<(u64, u64), minicbor::decode::Error> {
    let mut decoder = Decoder::new(payload);
    let (mut index, mut length) = (0, 0);
    let members = decoder.map()?.unwrap_or(0);
    for _ in 0..members {
        match decoder.str()? {
            "i" => index = decoder.u64()?,
            "p" => length = decoder.bytes()?.len() as u64,
            _ => decoder.skip()?,
        }
    }
    Ok((index, length))
}
