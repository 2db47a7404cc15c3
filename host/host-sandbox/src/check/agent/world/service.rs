//! The job and stream service of a case: it remembers what it was asked, and says what the script tells it.

use agent_core::types::Event;
use serde_json::{Value, json};
use support::image::random_bytes;

use super::{World, misused, parse_json};
use crate::Error;
use crate::input::Block;
use crate::render::{self, BlockRequest};

impl World {
    pub(super) fn take_publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), Error> {
        let Some(rest) = topic.strip_prefix(&format!("$aws/things/{}/", self.device)) else {
            return Err(Error::Misbehaved(format!("{topic} is not this device's")));
        };
        if let Some(stream) = rest
            .strip_prefix("streams/")
            .and_then(|rest| rest.strip_suffix("/get/cbor"))
        {
            stream.clone_into(&mut self.stream);
            self.request = BlockRequest::decode(payload).ok_or_else(|| {
                Error::Misbehaved("a block request that does not decode".to_owned())
            })?;
            return Ok(());
        }
        let body = parse_json(&String::from_utf8_lossy(payload))?;
        let token = body["clientToken"].as_str().unwrap_or_default().to_owned();
        if rest == "jobs/$next/get" {
            self.asked = Some(token);
        } else if let Some((job, verb)) = rest
            .strip_prefix("jobs/")
            .and_then(|rest| rest.split_once('/'))
        {
            match verb {
                "update" => self.updates.push_back((job.to_owned(), token)),
                "get" => self.asked_job = Some((job.to_owned(), token)),
                _ => {
                    return Err(Error::Misbehaved(format!(
                        "{topic} is no topic of the service"
                    )));
                }
            }
        }
        Ok(())
    }

    pub(super) fn reply(
        &mut self,
        topic: &str,
        token: Option<&str>,
        execution: Option<&str>,
        members: &[(&str, Value)],
    ) -> Result<(), Error> {
        let mut body = json!({"timestamp": 1_700_000_000});
        if let Some(token) = token {
            body["clientToken"] = json!(token);
        }
        if let Some(execution) = execution {
            body["execution"] = parse_json(execution)?;
        }
        for (key, value) in members {
            body[*key] = value.clone();
        }
        let topic = format!("$aws/things/{}/{topic}", self.device);
        self.handle(Event::Message {
            topic,
            payload: body.to_string().into_bytes(),
        })
    }

    pub(super) fn answer_update(
        &mut self,
        verdict: &str,
        members: &[(&str, Value)],
    ) -> Result<(), Error> {
        let (job, token) = self
            .updates
            .pop_front()
            .ok_or_else(|| misused("no update is unanswered"))?;
        self.reply(
            &format!("jobs/{job}/update/{verdict}"),
            Some(&token),
            None,
            members,
        )
    }

    pub(super) fn send_blocks(&mut self, count: Option<usize>) -> Result<(), Error> {
        let request = self.request.clone();
        for index in request
            .wanted()
            .into_iter()
            .take(count.unwrap_or(usize::MAX))
        {
            self.send_of(
                &request,
                &Block {
                    index,
                    ..Block::default()
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn send_block(&mut self, block: &Block) -> Result<(), Error> {
        let request = self.request.clone();
        self.send_of(&request, block)
    }

    pub(super) fn send_of(&mut self, request: &BlockRequest, block: &Block) -> Result<(), Error> {
        let size = self.sizes.get(&request.file).copied().unwrap_or_default();
        let image = random_bytes(request.file, size as usize);
        let start = (block.index * request.block_size).min(size) as usize;
        let rest = &image[start..];
        let count = block
            .payload
            .unwrap_or_else(|| rest.len().min(request.block_size as usize));
        // A payload that is longer than it should be goes on with zeros.
        let payload: Vec<u8> = rest
            .iter()
            .copied()
            .chain(std::iter::repeat(0))
            .take(count)
            .collect();
        let length = block.length.unwrap_or(payload.len() as u64);
        let message = render::block_message(
            block.file.unwrap_or(request.file),
            block.index,
            length,
            &payload,
        );
        let topic = format!(
            "$aws/things/{}/streams/{}/data/cbor",
            self.device, self.stream
        );
        self.handle(Event::Message {
            topic,
            payload: message,
        })
    }
}
