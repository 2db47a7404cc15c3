//! The job and stream service of a case: it remembers what it was asked, and says what the script tells it.

use host_runtime::agent::Event;
use serde_json::{Value, json};

use super::desk::Held;
use super::{World, misused, parse_json};
use crate::check::agent::Error;
use crate::check::agent::input::{Block, Input, Range};
use crate::check::agent::model;
use crate::check::agent::order::Order;
use crate::check::agent::wire::{self, BlockRequest};

impl World {
    /// Lets the service say what the input has.
    pub(super) fn serve(&mut self, input: &Input) -> Result<(), Error> {
        match input {
            Input::Next(execution) => {
                let token = self.asked()?;
                let topic = "jobs/$next/get/accepted";
                self.reply(topic, Some(&token), execution.as_deref(), &[])
            }
            Input::Notify(execution) => {
                self.reply("jobs/notify-next", None, execution.as_deref(), &[])
            }
            Input::NextRejected(code) => {
                let token = self.asked()?;
                let topic = "jobs/$next/get/rejected";
                self.reply(topic, Some(&token), None, &[("code", json!(code))])
            }
            Input::JobReply(execution) => {
                let (job, token) = self.asked_job()?;
                let topic = format!("jobs/{job}/get/accepted");
                self.reply(&topic, Some(&token), Some(execution), &[])
            }
            Input::JobRejected(code) => {
                let (job, token) = self.asked_job()?;
                let topic = format!("jobs/{job}/get/rejected");
                self.reply(&topic, Some(&token), None, &[("code", json!(code))])
            }
            Input::Accepted => self.answer_update("accepted", &[]),
            Input::Rejected(code, state) => {
                let mut members = vec![
                    ("code", json!(code)),
                    ("message", json!("as the script has it")),
                ];
                if let Some(state) = state {
                    members.push(("executionState", parse_json(state)?));
                }
                self.answer_update("rejected", &members)
            }
            Input::Blocks(count) => self.send_blocks(*count),
            Input::Block(block) => {
                let request = self.desk().requests.last().cloned();
                self.send_of(&request.unwrap_or_default(), block)
            }
            Input::Range(range) => self.send_range(range),
            _ => Ok(()),
        }
    }

    fn asked(&self) -> Result<String, Error> {
        let asked = self.desk().asked.take();
        asked.ok_or_else(|| misused("nothing was asked for: no request on jobs/$next/get"))
    }

    fn asked_job(&self) -> Result<(String, String), Error> {
        let asked = self.desk().asked_job.take();
        asked.ok_or_else(|| misused("no job was asked for: no request on jobs/<job>/get"))
    }

    fn reply(
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
        for (key, value) in members {
            body[*key] = value.clone();
        }
        let mut text = body.to_string();
        if let Some(execution) = execution {
            // Byte for byte the script's: as a value a number past 64 bits would be another one.
            parse_json(execution)?;
            text.pop();
            text += &format!(",\"execution\":{execution}}}");
        }
        let topic = format!("$aws/things/{}/{topic}", self.desk().device);
        self.handle(Event::message(topic, text))
    }

    fn answer_update(&mut self, verdict: &str, members: &[(&str, Value)]) -> Result<(), Error> {
        let update = self.desk().updates.pop_front();
        let (job, token) = update.ok_or_else(|| misused("no update is unanswered"))?;
        let topic = format!("jobs/{job}/update/{verdict}");
        self.reply(&topic, Some(&token), None, members)
    }

    /// Sends what was asked for last: where an agent asks in several requests at once, all of them.
    fn send_blocks(&mut self, count: Option<usize>) -> Result<(), Error> {
        let requests = {
            let mut desk = self.desk();
            desk.requests_answered = true;
            desk.requests.clone()
        };
        let wanted = requests.iter().flat_map(|request| {
            let indices = request.wanted().into_iter();
            indices.map(move |index| (request, index))
        });
        for (request, index) in wanted.take(count.unwrap_or(usize::MAX)) {
            let block = Block {
                index,
                ..Block::default()
            };
            self.send_of(request, &block)?;
        }
        Ok(())
    }

    /// The server answers the oldest request by URL.
    fn send_range(&mut self, range: &Range) -> Result<(), Error> {
        let (held, file, size) = {
            let mut desk = self.desk();
            let is = |held: &Held| held.kind == "http-get" && !held.lost;
            let at = desk.held.iter().position(is);
            let at = at.ok_or_else(|| misused("no range is asked for"))?;
            let held = desk.held.remove(at);
            let first = desk.sizes.iter().next();
            let (file, size) = first.map_or((0, 0), |(file, size)| (*file, *size));
            (held, file, size)
        };
        let Order::HttpGet { offset, length, .. } = held.order else {
            return Err(misused("no range is asked for"));
        };
        let status = range.status.unwrap_or(206);
        let count = match (status, range.bytes) {
            (_, Some(count)) => count,
            (206, None) => length as usize,
            _ => 0,
        };
        let image = model::image(file, size);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = image.get(start..).unwrap_or_default();
        self.handle(Event::HttpResponse {
            token: held.token,
            status,
            total: (status == 206).then_some(range.total.unwrap_or(size)),
            body: rest
                .iter()
                .copied()
                .chain(std::iter::repeat(0))
                .take(count)
                .collect(),
        })
    }

    fn send_of(&mut self, request: &BlockRequest, block: &Block) -> Result<(), Error> {
        let (size, topic) = {
            let desk = self.desk();
            let size = desk.sizes.get(&request.file).copied().unwrap_or_default();
            let (device, stream) = (&desk.device, &desk.stream);
            (
                size,
                format!("$aws/things/{device}/streams/{stream}/data/cbor"),
            )
        };
        let image = model::image(request.file, size);
        let start = usize::try_from(block.index.saturating_mul(request.block_size).min(size));
        let rest = image.get(start.unwrap_or(0)..).unwrap_or_default();
        let whole = usize::try_from(request.block_size).unwrap_or(usize::MAX);
        let count = block.payload.unwrap_or_else(|| rest.len().min(whole));
        // A payload that is longer than it should be goes on with zeros.
        let payload: Vec<u8> = rest
            .iter()
            .copied()
            .chain(std::iter::repeat(0))
            .take(count)
            .collect();
        let length = block.length.unwrap_or(payload.len() as u64);
        let file = block.file.unwrap_or(request.file);
        let message = wire::block_message(file, block.index, length, &payload);
        self.handle(Event::message(topic, message))
    }
}
