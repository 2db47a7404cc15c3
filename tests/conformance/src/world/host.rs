//! The host of a case: it obeys the agent's orders, as the script says or as the model does, and gives the answers back
//! in the order in which they fell due.

use agent_core::code::State;
use agent_core::types::{Action, Call, Event, Failure, Op, Order, Outcome, Token, Turn};
use serde_json::json;

use super::{Due, EVENTS_MAX, Held, World, misused, state_name};
use crate::Error;
use crate::input::Answer;
use crate::{model, render};

impl World {
    /// Obeys orders and gives due answers until there are none.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        for _ in 0..EVENTS_MAX {
            while let Some(action) = self.agent()?.poll_action() {
                self.obey(action)?;
            }
            let turn = self.agent()?.turn();
            self.note(turn)?;
            let context = self.context();
            let event = match self.due.pop_front() {
                None => return Ok(()),
                Some(Due::Message(topic, payload)) => Event::Message { topic, payload },
                Some(Due::Done(token, order, outcome)) => {
                    self.on_done(&order, &outcome);
                    Event::Done { token, outcome }
                }
            };
            self.agent()?.handle(context, event);
        }
        Err(Error::Misbehaved(
            "the agent goes round in circles".to_owned(),
        ))
    }

    /// Writes a turn down and checks the deadline.
    pub(super) fn note(&mut self, turn: Turn) -> Result<(), Error> {
        if let Some(failure) = turn.refused {
            self.lines.push(format!(
                "refused {} {}",
                render::numbers(&failure),
                failure.detail
            ));
        }
        if let Some(status) = turn.status
            && self.state != Some(status.state)
        {
            self.state = Some(status.state);
            self.lines.push(state_name(status.state));
        }
        if turn.wait.is_some() {
            self.wait = turn.wait;
        }
        let may_wait = self.state.is_some_and(|state| {
            [State::WaitingForJob, State::Suspended, State::Stopped]
                .iter()
                .any(|allowed| allowed.code() == state)
        });
        if turn.deadline.is_none() && !may_wait {
            return Err(Error::Misbehaved(format!(
                "no deadline in {}",
                self.state.map_or_else(String::new, state_name)
            )));
        }
        Ok(())
    }

    pub(super) fn obey(&mut self, action: Action) -> Result<(), Error> {
        let Action { op, order } = action;
        let line = render::order(&order, &self.device);
        let kind = line.split(' ').next().unwrap_or_default().to_owned();
        let hidden = match kind.as_str() {
            "log" => !self.show.log,
            "journal" => !self.show.journal,
            "state" => !self.show.probes,
            _ => false,
        };
        if !hidden {
            self.lines.push(line);
        }
        self.take_note(&order)?;
        if op == 0 {
            return Ok(());
        }
        if op <= self.last_op {
            return Err(Error::Misbehaved(format!(
                "operation {op} was named before"
            )));
        }
        self.last_op = op;
        self.answer(op, kind, order)
    }

    /// What the world learns from an order before it is answered.
    pub(super) fn take_note(&mut self, order: &Order) -> Result<(), Error> {
        match order {
            Order::Publish { topic, payload, .. } => self.take_publish(topic, payload),
            Order::Create(spec) => {
                self.sizes.insert(spec.file_id.into(), spec.size);
                Ok(())
            }
            Order::Emit(event) if event.sequence != self.last_event + 1 => Err(Error::Misbehaved(
                format!("event {} follows {}", event.sequence, self.last_event),
            )),
            Order::Emit(event) => {
                self.last_event = event.sequence;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn answer(&mut self, op: Op, kind: String, order: Order) -> Result<(), Error> {
        let rule = match self.rules.get(&kind) {
            Some((_, true)) => self.rules.remove(&kind).map(|(answer, _)| answer),
            Some((answer, false)) => Some(answer.clone()),
            None => None,
        };
        let rule = rule.unwrap_or(Answer::Model);
        // What takes no time in a real host is over at once, everything else gets a token first.
        let at_once = matches!(order, Order::Pal(Call::State, _) | Order::WriteBlock { .. });
        let outcome = match rule {
            Answer::Model => self.by_model(&order)?,
            Answer::End(outcome) => outcome,
            Answer::Hold | Answer::Lost => {
                let token = self.bind(op)?;
                self.held.push(Held {
                    token,
                    kind,
                    order,
                    lost: rule == Answer::Lost,
                });
                return Ok(());
            }
        };
        if at_once {
            let context = self.context();
            self.agent()?.handle(context, Event::Ended { op, outcome });
        } else {
            let token = self.bind(op)?;
            self.due.push_back(Due::Done(token, order, outcome));
        }
        Ok(())
    }

    pub(super) fn bind(&mut self, op: Op) -> Result<Token, Error> {
        self.last_token += 1;
        let token = self.last_token;
        self.agent()?.bind(op, token);
        Ok(token)
    }

    pub(super) fn by_model(&mut self, order: &Order) -> Result<Outcome, Error> {
        let Some(file) = model::file_of(order) else {
            return Ok(Outcome::Nothing);
        };
        match self.targets.get_mut(&file) {
            Some(target) => Ok(target.obey(order)?.unwrap_or(Outcome::Nothing)),
            None => Ok(Outcome::Failed(Failure::new(0xd0, 0, "no such target"))),
        }
    }

    /// What follows from the end of an order besides the event.
    pub(super) fn on_done(&mut self, order: &Order, outcome: &Outcome) {
        if *outcome != Outcome::Nothing {
            return;
        }
        match order {
            Order::JournalStore(blob) => self.journal = Some(blob.clone()),
            // A sane service accepts every update that reaches it, unless the script says otherwise.
            Order::Publish { topic, .. }
                if topic.ends_with("/update") && !self.rules.contains_key("update") =>
            {
                if let Some((job, token)) = self.updates.pop_front() {
                    let topic = format!("$aws/things/{}/jobs/{job}/update/accepted", self.device);
                    let payload = json!({"timestamp": 1_700_000_000, "clientToken": token});
                    self.due
                        .push_back(Due::Message(topic, payload.to_string().into_bytes()));
                }
            }
            _ => {}
        }
    }

    pub(super) fn end_held(&mut self, kind: &str, answer: &Answer) -> Result<(), Error> {
        let index = self
            .held
            .iter()
            .position(|held| held.kind == kind && !held.lost);
        let held = self
            .held
            .remove(index.ok_or_else(|| misused(&format!("no {kind} is held")))?);
        let outcome = match answer {
            Answer::Model => self.by_model(&held.order)?,
            Answer::End(outcome) => outcome.clone(),
            Answer::Hold | Answer::Lost => {
                return Err(misused("an end is nothing, fail, state or model"));
            }
        };
        self.on_done(&held.order, &outcome);
        self.handle(Event::Done {
            token: held.token,
            outcome,
        })
    }
}
