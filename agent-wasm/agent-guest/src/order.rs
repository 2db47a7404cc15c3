//! Orders of the agent as calls of imports.

use agent_core::types::{FileId, Order, Outcome, Token};

use crate::bindings::ota::agent::types::Started;
use crate::bindings::ota::agent::{os, pal, transport};

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
        Order::Create(spec) => begun(pal::create(spec)),
        Order::Reopen { job_id, file } => begun(pal::reopen(job_id, *file)),
        Order::WriteBlock { file, offset, data } => {
            begun(pal::write_block(*file, *offset, data.as_slice()))
        }
        Order::Close(file) => begun(pal::close(*file)),
        Order::Install(file) => with_image(*file, pal::install),
        Order::Activate(file) => with_image(*file, pal::activate),
        Order::Reset(file) => begun(pal::reset(*file)),
        Order::SelfTest(file) => begun(pal::self_test(*file)),
        Order::Commit(file) => begun(pal::commit(*file)),
        Order::Reject(file) => begun(pal::reject(*file)),
        Order::State(file) => begun(pal::state(*file)),
        Order::Abort(file) => begun(pal::abort(*file)),
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

/// The proof lives only for the call: it is the host's record that counts, not a handle kept here.
fn with_image(file: FileId, call: fn(&pal::VerifiedImage) -> Started) -> Begun {
    match pal::verified(file) {
        Ok(image) => begun(call(&image)),
        Err(failure) => Begun::Over(Outcome::Failed(failure)),
    }
}

fn begun(started: Started) -> Begun {
    match started {
        Started::Done(outcome) => Begun::Over(outcome),
        Started::Pending(token) => Begun::Pending(token),
    }
}
