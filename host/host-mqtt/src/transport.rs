//! One device's [`Transport`] on a connection.

use std::sync::Arc;

use host_runtime::ports::transport::Transport;
use host_runtime::types::{Failure, Qos, Token, code};
use rumqttc::{
    AsyncClient, ClientError, PublishNoticeError, PublishOptions, QoS, SubscribeNoticeError,
    SubscribeReasonCode,
};

use crate::core::{Core, PUBLISH_FAILED, SUBSCRIBE_FAILED};
use crate::notice::Notice;

/// A device's way to the network. Calls return at once and end once, through the mailbox it was attached with. Publishes
/// keep their order, and so do subscriptions; a publish that must follow a subscription waits for its end.
/// Dropping it detaches the device; the connection stays.
pub struct MqttTransport {
    core: Arc<Core>,
    thing: String,
}

impl std::fmt::Debug for MqttTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttTransport")
            .field("thing", &self.thing)
            .finish_non_exhaustive()
    }
}

impl MqttTransport {
    pub(crate) fn new(core: Arc<Core>, thing: &str) -> Self {
        Self {
            core,
            thing: thing.to_owned(),
        }
    }
}

impl MqttTransport {
    /// Hear of jobs by these topics too, in place of those that were named before. Several devices may name the same.
    pub fn listen(&self, notices: Vec<Notice>) {
        self.core.listen(&self.thing, notices);
    }
}

impl Drop for MqttTransport {
    fn drop(&mut self) {
        self.core.detach(&self.thing);
    }
}

impl Transport for MqttTransport {
    fn subscribe(&mut self, token: Token, filter: &str, qos: Qos) {
        if self.core.comes_unasked(&self.thing, filter) {
            self.core.end_now(&self.thing, token, Ok(()));
            return;
        }
        self.core.begin(&self.thing, token, |client| {
            let notice = client
                .try_subscribe_tracked(filter, to_qos(qos))
                .map_err(|e| not_sent(SUBSCRIBE_FAILED, &e))?;
            let filter = filter.to_owned();
            Ok(Some(async move {
                let granted = notice.wait_async().await.map_err(|e| match e {
                    SubscribeNoticeError::Recv | SubscribeNoticeError::SessionReset => gone(),
                    other => Failure::new(SUBSCRIBE_FAILED, 0, other.to_string()),
                })?;
                if granted.return_codes.contains(&SubscribeReasonCode::Failure) {
                    let detail = format!("the broker refused the subscription to {filter}");
                    return Err(Failure::new(SUBSCRIBE_FAILED, SUBACK_FAILURE, detail));
                }
                Ok(())
            }))
        });
    }

    fn unsubscribe(&mut self, token: Token, filter: &str) {
        if self.core.comes_unasked(&self.thing, filter) {
            self.core.end_now(&self.thing, token, Ok(()));
            return;
        }
        self.core.begin(&self.thing, token, |client| {
            let notice = client
                .try_unsubscribe_tracked(filter)
                .map_err(|e| not_sent(UNSUBSCRIBE_FAILED, &e))?;
            Ok(Some(async move {
                // Without a connection, or a session, there is no subscription either.
                notice.wait_async().await.map(drop).map_err(|_| gone())
            }))
        });
    }

    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, qos: Qos) {
        self.core.begin(&self.thing, token, |client| match qos {
            Qos::AtMostOnce => {
                client
                    .try_publish(topic, payload, PublishOptions::at_most_once())
                    .map_err(|e| not_sent(PUBLISH_FAILED, &e))?;
                Ok(None)
            }
            Qos::AtLeastOnce => publish_acknowledged(client, topic, payload).map(Some),
        });
    }

    fn http_get(&mut self, token: Token, url: &str, _offset: u64, _length: u32) {
        // The URL may carry a signature that gives access: only its scheme is told.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let detail = format!("no downloader for `{scheme}` URLs on an MQTT connection");
        let failure = Failure::new(code::UNSUPPORTED, 0, detail);
        self.core.end_now(&self.thing, token, Err(failure));
    }

    fn cancel(&mut self, token: Token) {
        self.core.cancel(&self.thing, token);
    }
}

/// MQTT 3.1.1 section 3.9.3: the return code of a refused subscription.
const SUBACK_FAILURE: u32 = 0x80;

/// `failure.main`: OtaMqttUnsubscribeFailed.
const UNSUBSCRIBE_FAILED: u8 = 0xa2;

fn publish_acknowledged(
    client: &AsyncClient,
    topic: &str,
    payload: Vec<u8>,
) -> Result<impl Future<Output = Result<(), Failure>> + Send + use<>, Failure> {
    let notice = client
        .try_publish_tracked(topic, payload, PublishOptions::at_least_once())
        .map_err(|e| not_sent(PUBLISH_FAILED, &e))?;
    Ok(async move {
        notice.wait_async().await.map(drop).map_err(|e| match e {
            PublishNoticeError::Recv | PublishNoticeError::SessionReset => gone(),
            other => Failure::new(PUBLISH_FAILED, 0, other.to_string()),
        })
    })
}

const fn to_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}

fn gone() -> Failure {
    Failure::new(
        code::NOT_CONNECTED,
        0,
        "the connection ended before the broker acknowledged",
    )
}

fn not_sent(main: u8, error: &ClientError) -> Failure {
    match error {
        ClientError::RequestChannelFull(_) => Failure::new(
            code::LIMIT,
            0,
            "too many MQTT requests are waiting for the network",
        ),
        ClientError::RequestChannelDisconnected(_) => gone(),
        other => Failure::new(main, 0, other.to_string()),
    }
}
