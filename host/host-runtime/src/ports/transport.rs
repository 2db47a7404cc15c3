//! MQTT and HTTP as a device sees them: `wit/agent/transport.wit` with the tokens made by the caller.

use crate::types::{Qos, Token};

/// One device's way to the network. Every call returns at once; exactly one completion per token comes back through the
/// device's mailbox ([`Input::Done`](crate::mailbox::Input)). The adapter owns connection, reconnecting, TLS and rate
/// limits; the runtime has checked lengths and that the topic is the device's own.
pub trait Transport: Send {
    /// Subscribe; done after SUBACK, or at once where replies come unasked.
    fn subscribe(&mut self, token: Token, filter: &str, qos: Qos);
    /// Unsubscribe; what was not subscribed is not an error.
    fn unsubscribe(&mut self, token: Token, filter: &str);
    /// Publish without retain, in call order. QoS 0 is done when queued, QoS 1 when acknowledged.
    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, qos: Qos);
    /// Fetch a range of a URL; ends with `Input::HttpResponse` or a failed completion.
    fn http_get(&mut self, token: Token, url: &str, offset: u64, length: u32);
    /// Give up an operation; it still ends once, with failure 0xd7 unless it was faster.
    fn cancel(&mut self, token: Token);
}
