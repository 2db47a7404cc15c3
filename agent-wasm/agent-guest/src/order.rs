//! Orders of the agent as calls of imports.

use agent_core::types as core;
use agent_core::types::Order;

use crate::bindings::ota::agent::{os, pal, transport, types};
use crate::convert;

/// What became of an order.
pub(crate) enum Begun {
    /// It has no end.
    Nothing,
    /// It goes on under this token.
    Pending(core::Token),
    /// It is over already.
    Over(core::Outcome),
}

/// Calls the import that an order names.
pub(crate) fn carry_out(order: Order) -> Begun {
    match order {
        Order::Subscribe { filter, qos } => {
            Begun::Pending(transport::subscribe(&filter, convert::qos(qos)))
        }
        Order::Unsubscribe { filter } => Begun::Pending(transport::unsubscribe(&filter)),
        Order::Publish { topic, payload, qos } => {
            Begun::Pending(transport::publish(&topic, &payload, convert::qos(qos)))
        }
        Order::HttpGet { url, offset, length } => {
            Begun::Pending(transport::http_get(&url, offset, length))
        }
        Order::Cancel(token) => {
            transport::cancel(token);
            Begun::Nothing
        }
        Order::Create(spec) => begun(pal::create(&convert::file_spec(spec))),
        Order::Reopen { job_id, file } => begun(pal::reopen(&job_id, file)),
        Order::WriteBlock { file, offset, data } => {
            begun(pal::write_block(file, offset, data.as_slice()))
        }
        Order::Close(file) => begun(pal::close(file)),
        Order::Install(file) => with_image(file, pal::install),
        Order::Activate(file) => with_image(file, pal::activate),
        Order::Reset(file) => begun(pal::reset(file)),
        Order::SelfTest(file) => begun(pal::self_test(file)),
        Order::Commit(file) => begun(pal::commit(file)),
        Order::Reject(file) => begun(pal::reject(file)),
        Order::State(file) => begun(pal::state(file)),
        Order::Abort(file) => begun(pal::abort(file)),
        Order::JournalStore(blob) => Begun::Pending(os::journal_store(&convert::blob_out(blob))),
        Order::Log { level, text } => {
            os::log(convert::level(level), &text);
            Begun::Nothing
        }
        Order::Emit(event) => {
            os::emit(&convert::application_event(event));
            Begun::Nothing
        }
    }
}

/// The proof lives only for the call: it is the host's record that counts, not a handle kept here.
fn with_image(file: core::FileId, call: impl FnOnce(&pal::VerifiedImage) -> types::Started) -> Begun {
    match pal::verified(file) {
        Ok(image) => begun(call(&image)),
        Err(failure) => Begun::Over(core::Outcome::Failed(convert::failure_in(failure))),
    }
}

fn begun(started: types::Started) -> Begun {
    match started {
        types::Started::Done(outcome) => Begun::Over(convert::outcome(outcome)),
        types::Started::Pending(token) => Begun::Pending(token),
    }
}
