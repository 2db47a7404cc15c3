//! What the service promises, by rows and short stories: a file each for Jobs, streams, operators, groups, roll-outs,
//! removal and hostile input.

mod group;
mod hostile;
mod jobs;
mod operator;
mod removal;
mod rollout;
mod streams;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

pub(super) const NOW_MS: u64 = 1_700_000_000_000;

pub(super) fn thing(name: &str) -> ThingName {
    ThingName::new(name).unwrap()
}

pub(super) fn job_id(id: &str) -> JobId {
    JobId::new(id).unwrap()
}

/// An image of `size` bytes in which every block differs.
pub(super) fn image(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i / 7 + i % 251) as u8).collect()
}

/// A service with the things `gw` and `other`, and memory for images.
pub(super) struct World {
    pub(super) service: Service,
    pub(super) now_ms: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Limits::Aws, &[])
    }

    pub(super) fn with(limits: Limits, images: &[&[u8]]) -> Self {
        let mut memory = MemoryImages::default();
        for bytes in images {
            memory.insert(bytes.to_vec());
        }
        let mut service = Service::new(limits, Arc::new(memory));
        for name in ["gw", "other"] {
            service.create_thing(NOW_MS, thing(name)).unwrap();
        }
        Self {
            service,
            now_ms: NOW_MS,
        }
    }

    /// Creates an update of one file for `gw`; job `AFR_OTA-<id>`, stream `AFR_OTA-s-<id>`.
    pub(super) fn update(&mut self, id: &str, bytes: &[u8]) -> Vec<Outgoing> {
        let update = update(id, &[(0, bytes)]);
        self.service.create_update(self.now_ms, update).unwrap()
    }

    /// Creates a job without files for `gw`.
    pub(super) fn job(&mut self, id: &str) -> Vec<Outgoing> {
        let job = NewJob {
            job_id: job_id(id),
            description: String::new(),
            things: vec![thing("gw")],
            document: json!({"operation": id}),
            timeout_minutes: None,
            plan: Default::default(),
        };
        self.service.create_job(self.now_ms, job).unwrap()
    }

    /// `gw` publishes JSON below `$aws/things/gw/`.
    pub(super) fn ask(&mut self, rest: &str, payload: Value) -> Vec<Outgoing> {
        self.ask_raw(rest, payload.to_string().as_bytes())
    }

    pub(super) fn ask_raw(&mut self, rest: &str, payload: &[u8]) -> Vec<Outgoing> {
        let topic = format!("$aws/things/gw/{rest}");
        self.service
            .handle(self.now_ms, &thing("gw"), &topic, payload)
    }

    /// Reports a status of a job and expects it to be accepted.
    pub(super) fn report(&mut self, job: &str, status: &str) -> Vec<Outgoing> {
        let out = self.ask(&format!("jobs/{job}/update"), json!({"status": status}));
        assert_eq!(level(&out[0]), format!("jobs/{job}/update/accepted"));
        out
    }
}

pub(super) fn update(id: &str, files: &[(u8, &[u8])]) -> NewUpdate {
    NewUpdate {
        job_id: job_id(&format!("AFR_OTA-{id}")),
        stream_id: StreamId::new(&format!("AFR_OTA-s-{id}")).unwrap(),
        description: "a test".to_owned(),
        things: vec![thing("gw")],
        files: files
            .iter()
            .map(|(file_id, bytes)| UpdateFile {
                file_id: *file_id,
                image: ImageId::of(bytes),
                size: bytes.len() as u64,
                file_type: None,
                file_path: "/fw.bin".to_owned(),
                cert_file: "/cert.pem".to_owned(),
                signature: Some(Signature {
                    key: SigKey::Sha256Ecdsa,
                    base64: "MEQCIF2Q".to_owned(),
                }),
            })
            .collect(),
        protocols: vec![Protocol::Mqtt],
        timeout_minutes: None,
        plan: Default::default(),
    }
}

/// Topic without `$aws/things/<thing>/`.
pub(super) fn level(message: &Outgoing) -> &str {
    split_thing(&message.topic).unwrap().1
}

pub(super) fn levels(messages: &[Outgoing]) -> Vec<&str> {
    messages.iter().map(level).collect()
}

pub(super) fn body(message: &Outgoing) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}
