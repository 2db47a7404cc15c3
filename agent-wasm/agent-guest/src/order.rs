//! Orders of the agent as calls of imports.

use agent_core::types::Order;

use crate::bindings::ota::agent::{os, transport};
use crate::contract::Started;
use crate::import;

/// Calls the import that an order names. `None`: it has no end.
pub(crate) fn carry_out(order: &Order) -> Option<Started> {
    let started = match order {
        Order::Subscribe { filter, qos } => Started::Pending(transport::subscribe(filter, *qos)),
        Order::Unsubscribe { filter } => Started::Pending(transport::unsubscribe(filter)),
        Order::Publish {
            topic,
            payload,
            qos,
        } => Started::Pending(transport::publish(topic, payload, *qos)),
        Order::HttpGet {
            url,
            offset,
            length,
        } => Started::Pending(transport::http_get(url, *offset, *length)),
        Order::Cancel(token) => {
            transport::cancel(*token);
            return None;
        }
        Order::Create(spec) => import::create(spec),
        Order::Reopen { job_id, file } => import::reopen(job_id, *file),
        Order::WriteBlock { file, offset, data } => {
            import::write_block(*file, *offset, data.as_slice())
        }
        Order::Pal(call, file) => import::call(*call, *file),
        Order::JournalStore(blob) => Started::Pending(os::journal_store(blob)),
        Order::Log { level, text } => {
            os::log(*level, text);
            return None;
        }
        Order::Emit(event) => {
            import::emit(event);
            return None;
        }
    };
    Some(started)
}
