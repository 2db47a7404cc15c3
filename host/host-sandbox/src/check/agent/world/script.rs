//! What a script makes of a case's world: the lines of its set-up, and each input.

use host_runtime::agent::{Command, Event, Saved, Target as TargetConfig};
use host_runtime::types::{FileId, Setting};

use super::{EVENTS_MAX, World, misused};
use crate::check::agent::Error;
use crate::check::agent::input::{self, Answer, Input};
use crate::check::agent::model::Target;

impl World {
    pub(super) fn set_up(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let setting = |key: &str, value: &str| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        match words.as_slice() {
            ["device", name] => (*name).clone_into(&mut self.desk().device),
            ["set", key, value] => self.settings.push(setting(key, value)),
            ["show", "log"] => self.desk().show.log = true,
            ["show", "journal"] => self.desk().show.journal = true,
            ["show", "probes"] => self.desk().show.probes = true,
            ["target", file, running, pairs @ ..] => {
                let file: FileId = input::number(file)?;
                let running = if *running == "none" {
                    None
                } else {
                    Some(input::parse_version(running)?)
                };
                let pairs: Option<Vec<Setting>> = pairs
                    .iter()
                    .map(|pair| pair.split_once('=').map(|(key, value)| setting(key, value)))
                    .collect();
                let settings = pairs.ok_or("settings are key=value")?;
                self.configured.push(TargetConfig {
                    file,
                    name: format!("target-{file}"),
                    settings,
                });
                self.desk().targets.insert(file, Target::new(running));
            }
            ["image", file, version] => {
                let file: FileId = input::number(file)?;
                let next = if *version == "none" {
                    None
                } else {
                    Some(input::parse_version(version)?)
                };
                let mut desk = self.desk();
                desk.targets.get_mut(&file).ok_or("no such target")?.next = next;
            }
            _ => return Err(format!("{text:?} is no line of a set-up")),
        }
        Ok(())
    }

    /// Lets an input happen and plays on until the agent has nothing more to do at this instant.
    ///
    /// # Errors
    /// The script asks for what is not there, the agent goes round in circles or names no deadline, or it broke.
    pub fn enter(&mut self, input: &Input) -> Result<(), Error> {
        match input {
            Input::Start => self.start(Saved::None),
            Input::Restart => {
                let saved = {
                    let mut desk = self.desk();
                    desk.held.clear();
                    desk.due.clear();
                    desk.updates.clear();
                    desk.targets.values_mut().for_each(Target::forget_proof);
                    desk.journal.clone().filter(|blob| !blob.bytes.is_empty())
                };
                self.start(saved.map_or(Saved::None, Saved::Journal))
            }
            Input::Swap => self.swap(),
            Input::Connected(session_present) => {
                self.desk().forget_requests();
                self.handle(Event::Connected(*session_present))
            }
            Input::Disconnected(reason) => self.handle(Event::Disconnected {
                reason: *reason,
                detail: "as the script has it".to_owned(),
            }),
            Input::Next(_)
            | Input::Notify(_)
            | Input::NextRejected(_)
            | Input::JobReply(_)
            | Input::JobRejected(_)
            | Input::Accepted
            | Input::Rejected(..)
            | Input::Blocks(_)
            | Input::Block(_)
            | Input::Range(_) => self.serve(input),
            Input::Message(topic, payload) => {
                let topic = topic.replacen('~', &format!("$aws/things/{}", self.desk().device), 1);
                self.handle(Event::message(topic, payload.as_slice()))
            }
            Input::Together if self.together.is_some() => {
                Err(misused("messages are to come together already"))
            }
            Input::Together => {
                self.together = Some(Vec::new());
                Ok(())
            }
            Input::Told => {
                let together = self.together.take().unwrap_or_default();
                if together.is_empty() {
                    return Err(misused("no message was to come together"));
                }
                self.handle(Event::Messages(together))
            }
            Input::On { kind, answer, once } => {
                let mut desk = self.desk();
                if *answer == Answer::Model {
                    desk.rules.remove(kind);
                } else {
                    desk.rules.insert(kind.clone(), (answer.clone(), *once));
                }
                Ok(())
            }
            Input::End(kind, answer) => self.end_held(kind, answer, 1),
            Input::EndAgain(kind, answer) => self.end_held(kind, answer, 2),
            Input::Done(token, outcome) => self.handle(Event::Done {
                token: *token,
                outcome: outcome.clone(),
            }),
            Input::ProgressOf(token, done, total) => self.handle(Event::Progress {
                token: *token,
                done: *done,
                total: *total,
            }),
            Input::Http(token, status, body) => self.handle(Event::HttpResponse {
                token: *token,
                status: *status,
                total: None,
                body: body.clone(),
            }),
            Input::Allowance(rate) => self.handle(Event::Allowance(*rate)),
            Input::Tick => self.handle(Event::Timeout),
            Input::Progress(kind, done, total) => {
                let token = {
                    let desk = self.desk();
                    let held = desk.held.iter().find(|held| held.kind == *kind);
                    held.ok_or_else(|| misused(&format!("no {kind} is held")))?
                        .token
                };
                self.handle(Event::Progress {
                    token,
                    done: *done,
                    total: *total,
                })
            }
            Input::Target(..) | Input::Image(..) | Input::WentBack(_) => self.change_target(input),
            Input::Restarted(file) => self.handle(Event::TargetRestarted(*file)),
            Input::Command(command) => self.command(command),
            Input::Wait(time) => self.pass(*time),
            Input::Timeout => {
                let deadline = self
                    .deadline()
                    .ok_or_else(|| misused("the agent names no deadline"))?;
                self.advance(deadline);
                self.handle(Event::Timeout)
            }
            Input::Custom(name, bytes) => self.handle(Event::Custom {
                name: name.clone(),
                bytes: bytes.clone(),
            }),
            Input::Statistics => self.statistics(),
            Input::Why => {
                let why = self.why();
                self.desk().lines.push(why);
                Ok(())
            }
        }
    }

    fn statistics(&mut self) -> Result<(), Error> {
        let instance = self.instance.as_mut();
        let status = instance
            .ok_or_else(|| misused("no agent was started"))?
            .status()
            .map_err(Error::broken("status"))?;
        let (received, processed, dropped) = (status.received, status.processed, status.dropped);
        self.desk().lines.push(format!(
            "received={received} processed={processed} dropped={dropped}"
        ));
        Ok(())
    }

    fn end_held(&mut self, kind: &str, answer: &Answer, times: usize) -> Result<(), Error> {
        let (token, outcome) = {
            let mut desk = self.desk();
            let index = desk
                .held
                .iter()
                .position(|held| held.kind == kind && !held.lost);
            let index = index.ok_or_else(|| misused(&format!("no {kind} is held")))?;
            let held = desk.held.remove(index);
            let outcome = match answer {
                Answer::Model => desk.by_model(&held.order),
                Answer::End(outcome) => outcome.clone(),
                Answer::Hold | Answer::Lost => {
                    return Err(misused("an end is nothing, fail, state or model"));
                }
            };
            desk.on_done(&held.order, &outcome);
            (held.token, outcome)
        };
        for _ in 0..times {
            let outcome = outcome.clone();
            self.handle(Event::Done { token, outcome })?;
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Error> {
        self.handle(Event::Command(command.clone()))
    }

    fn change_target(&mut self, input: &Input) -> Result<(), Error> {
        let (Input::Target(file, _) | Input::Image(file, _) | Input::WentBack(file)) = input else {
            return Ok(());
        };
        let mut desk = self.desk();
        let target = desk
            .targets
            .get_mut(file)
            .ok_or_else(|| misused("no such target"))?;
        match input {
            Input::Target(_, state) => target.state = *state,
            Input::Image(_, version) => target.next = *version,
            _ => target.go_back(),
        }
        Ok(())
    }

    fn pass(&mut self, time: u64) -> Result<(), Error> {
        let end = self.now() + time;
        for _ in 0..EVENTS_MAX {
            match self.deadline().filter(|deadline| *deadline <= end) {
                Some(deadline) => {
                    self.advance(deadline);
                    self.handle(Event::Timeout)?;
                }
                None => {
                    self.advance(end);
                    return Ok(());
                }
            }
        }
        Err(Error::Misbehaved(
            "the agent's deadlines do not move on".to_owned(),
        ))
    }

    fn advance(&mut self, to: u64) {
        let mut desk = self.desk();
        desk.now = desk.now.max(to);
    }
}
