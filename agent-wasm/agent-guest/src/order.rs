//! Orders of the agent as calls of imports.

use agent_core::types::{Order, Outcome, Token};

use crate::bindings::ota::agent::{os, transport};
use crate::pal::{self, Call};

/// What became of an order.
pub(crate) enum Begun {
    /// It has no end.
    Nothing,
    /// It goes on under this token.
    Pending(Token),
    /// It is over already.
    Over(Outcome),
}

/// Calls the import that an order names.
pub(crate) fn carry_out(order: &Order) -> Begun {
    match order {
        Order::Subscribe { filter, qos } => Begun::Pending(transport::subscribe(filter, *qos)),
        Order::Unsubscribe { filter } => Begun::Pending(transport::unsubscribe(filter)),
        Order::Publish {
            topic,
            payload,
            qos,
        } => Begun::Pending(transport::publish(topic, payload, *qos)),
        Order::HttpGet {
            url,
            offset,
            length,
        } => Begun::Pending(transport::http_get(url, *offset, *length)),
        Order::Cancel(token) => {
            transport::cancel(*token);
            Begun::Nothing
        }
        Order::Create(spec) => pal::create(spec),
        Order::Reopen { job_id, file } => pal::reopen(job_id, *file),
        Order::WriteBlock { file, offset, data } => {
            pal::write_block(*file, *offset, data.as_slice())
        }
        Order::Close(file) => pal::call(Call::Close, *file),
        Order::Install(file) => pal::call(Call::Install, *file),
        Order::Activate(file) => pal::call(Call::Activate, *file),
        Order::Reset(file) => pal::call(Call::Reset, *file),
        Order::SelfTest(file) => pal::call(Call::SelfTest, *file),
        Order::Commit(file) => pal::call(Call::Commit, *file),
        Order::Reject(file) => pal::call(Call::Reject, *file),
        Order::State(file) => pal::call(Call::State, *file),
        Order::Abort(file) => pal::call(Call::Abort, *file),
        Order::JournalStore(blob) => Begun::Pending(os::journal_store(blob)),
        Order::Log { level, text } => {
            os::log(*level, text);
            Begun::Nothing
        }
        Order::Emit(event) => {
            os::emit(event);
            Begun::Nothing
        }
    }
}
