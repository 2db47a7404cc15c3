//! MQTT 3.1.1 from the server's side, between bytes and packets. No I/O.
//!
//! A thin layer over mqtt-protocol-core: it checks what that leaves to its user (a packet before CONNECT, QoS 2, illegal
//! topics), and writes QoS 0 messages itself, because those have no protocol state and blocks are written once that way.
//! Timers are the connection's: keep-alive is one deadline there.

use bytes::{BufMut, BytesMut};
use mqtt_protocol_core::mqtt::{
    ArcPayload, Connection, Version,
    common::Cursor,
    connection::{ConnectionOptions, Event},
    packet::{GenericPacketTrait, Packet, Qos, v3_1_1},
    prelude::Sendable,
    result_code::{ConnectReturnCode, MqttError, SubackReturnCode},
    role,
};

use super::filter;
use crate::service::QoS;

/// Largest packet taken from a client: 128 KiB of payload, topic and headers, with room to spare.
pub(crate) const PACKET_IN_BYTES_MAX: u32 = 160 * 1024;

/// What a client sent, checked as far as the protocol goes.
pub(crate) enum Received {
    Connect(Box<v3_1_1::Connect>),
    Publish(Message),
    PublishAcked,
    Subscribe(u16, Vec<(String, QoS)>),
    Unsubscribe(u16, Vec<String>),
    Ping,
    Disconnect,
}

/// A published message.
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: ArcPayload,
    /// Packet id of a QoS 1 message, to be acknowledged.
    pub(crate) ack: Option<u16>,
}

/// Why the protocol ends a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a packet of more than {PACKET_IN_BYTES_MAX} bytes")]
    TooLarge,
    #[error("not MQTT 3.1.1: {0}")]
    Malformed(String),
    #[error("a packet before CONNECT")]
    NotConnected,
    #[error("QoS 2, which is not offered")]
    QoS2,
    #[error("an illegal topic or filter")]
    Topic,
}

/// One connection's protocol state and what it wants written.
pub(crate) struct Protocol {
    core: Connection<role::Server>,
    connected: bool,
    /// Bytes to write.
    pub(crate) out: BytesMut,
    /// QoS 1 messages sent and not yet acknowledged.
    pub(crate) in_flight: usize,
}

impl Protocol {
    pub(crate) fn new() -> Self {
        let options = ConnectionOptions::new().maximum_packet_size_recv(PACKET_IN_BYTES_MAX);
        Self {
            core: Connection::with_options(Version::V3_1_1, options),
            connected: false,
            out: BytesMut::new(),
            in_flight: 0,
        }
    }

    /// Takes bytes up to the end of one packet; returns how many, and the packet if one is whole.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(usize, Option<Received>), Violation> {
        let mut cursor = Cursor::new(bytes);
        let events = self.core.recv(&mut cursor);
        // The cursor stands within the slice.
        let taken = cursor.position() as usize;
        let mut received = None;
        let mut violation = None;
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => received = Some(packet),
                Event::RequestSendPacket { packet, .. } => {
                    self.out.extend_from_slice(&packet.to_continuous_buffer());
                }
                Event::NotifyError(MqttError::PacketTooLarge) => {
                    violation = Some(Violation::TooLarge);
                }
                Event::NotifyError(error) => {
                    violation = Some(Violation::Malformed(error.to_string()));
                }
                Event::RequestClose => {
                    violation.get_or_insert_with(|| Violation::Malformed("closed".to_owned()));
                }
                Event::NotifyPacketIdReleased(_)
                | Event::RequestTimerReset { .. }
                | Event::RequestTimerCancel(_) => {}
            }
        }
        match (violation, received) {
            (Some(violation), _) => Err(violation),
            (None, Some(packet)) => Ok((taken, Some(self.check(packet)?))),
            (None, None) => Ok((taken, None)),
        }
    }

    fn check(&mut self, packet: Packet) -> Result<Received, Violation> {
        if !self.connected && !matches!(packet, Packet::V3_1_1Connect(_)) {
            return Err(Violation::NotConnected);
        }
        match packet {
            Packet::V3_1_1Connect(connect) => Ok(Received::Connect(Box::new(connect))),
            Packet::V3_1_1Publish(publish) => {
                if publish.qos() == Qos::ExactlyOnce {
                    return Err(Violation::QoS2);
                }
                if !filter::is_topic(publish.topic_name()) {
                    return Err(Violation::Topic);
                }
                Ok(Received::Publish(Message {
                    topic: publish.topic_name().to_owned(),
                    payload: publish.payload().clone(),
                    ack: publish.packet_id(),
                }))
            }
            Packet::V3_1_1Puback(_) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                Ok(Received::PublishAcked)
            }
            Packet::V3_1_1Subscribe(subscribe) => {
                let entries = subscribe.entries().iter();
                let filters = entries.map(|entry| {
                    let qos = match entry.sub_opts().qos() {
                        Qos::AtMostOnce => QoS::AtMostOnce,
                        // QoS 2 is granted as 1.
                        Qos::AtLeastOnce | Qos::ExactlyOnce => QoS::AtLeastOnce,
                    };
                    (entry.topic_filter().to_owned(), qos)
                });
                Ok(Received::Subscribe(
                    subscribe.packet_id(),
                    filters.collect(),
                ))
            }
            Packet::V3_1_1Unsubscribe(unsubscribe) => {
                let entries = unsubscribe.entries().iter();
                let filters = entries.map(|entry| entry.as_str().to_owned()).collect();
                Ok(Received::Unsubscribe(unsubscribe.packet_id(), filters))
            }
            Packet::V3_1_1Pingreq(_) => Ok(Received::Ping),
            Packet::V3_1_1Disconnect(_) => Ok(Received::Disconnect),
            // PUBREC and its kin belong to QoS 2; the rest a server does not get.
            other => Err(Violation::Malformed(format!(
                "a packet of type {:?} from a client",
                other.packet_type()
            ))),
        }
    }

    /// Accepts the client.
    pub(crate) fn connack(&mut self) -> Result<(), Violation> {
        let connack = v3_1_1::Connack::builder()
            // There are no stored sessions: each connection begins anew.
            .session_present(false)
            .return_code(ConnectReturnCode::Accepted)
            .build();
        self.send(connack)?;
        self.connected = true;
        Ok(())
    }

    /// Refuses the client for want of rights.
    pub(crate) fn refuse(&mut self, code: ConnectReturnCode) -> Result<(), Violation> {
        let connack = v3_1_1::Connack::builder()
            .session_present(false)
            .return_code(code)
            .build();
        self.send(connack)
    }

    pub(crate) fn puback(&mut self, id: u16) -> Result<(), Violation> {
        self.send(v3_1_1::Puback::builder().packet_id(id).build())
    }

    /// Answers a SUBSCRIBE: a granted QoS, or none where the filter was refused.
    pub(crate) fn suback(&mut self, id: u16, granted: &[Option<QoS>]) -> Result<(), Violation> {
        let codes = granted.iter().map(|granted| match granted {
            Some(QoS::AtMostOnce) => SubackReturnCode::SuccessMaximumQos0,
            Some(QoS::AtLeastOnce) => SubackReturnCode::SuccessMaximumQos1,
            None => SubackReturnCode::Failure,
        });
        let suback = v3_1_1::Suback::builder()
            .packet_id(id)
            .return_codes(codes.collect())
            .build();
        self.send(suback)
    }

    pub(crate) fn unsuback(&mut self, id: u16) -> Result<(), Violation> {
        self.send(v3_1_1::Unsuback::builder().packet_id(id).build())
    }

    pub(crate) fn pingresp(&mut self) -> Result<(), Violation> {
        self.send(v3_1_1::Pingresp::builder().build())
    }

    /// Writes a message for the client.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
    ) -> Result<(), Violation> {
        match qos {
            QoS::AtMostOnce => {
                write_publish(&mut self.out, topic, payload);
                Ok(())
            }
            QoS::AtLeastOnce => {
                let id = self.core.acquire_packet_id().map_err(malformed)?;
                let publish = v3_1_1::Publish::builder()
                    .topic_name(topic)
                    .map_err(malformed)?
                    .qos(Qos::AtLeastOnce)
                    .packet_id(id)
                    .payload(payload)
                    .build();
                self.send(publish)?;
                self.in_flight += 1;
                Ok(())
            }
        }
    }

    fn send<P>(&mut self, packet: Result<P, MqttError>) -> Result<(), Violation>
    where
        P: Sendable<role::Server, u16>,
    {
        for event in self.core.checked_send(packet.map_err(malformed)?) {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    self.out.extend_from_slice(&packet.to_continuous_buffer());
                }
                Event::NotifyError(error) => return Err(malformed(error)),
                // A refused client is closed by the connection.
                Event::RequestClose
                | Event::NotifyPacketReceived(_)
                | Event::NotifyPacketIdReleased(_)
                | Event::RequestTimerReset { .. }
                | Event::RequestTimerCancel(_) => {}
            }
        }
        Ok(())
    }
}

fn malformed(error: MqttError) -> Violation {
    Violation::Malformed(error.to_string())
}

/// PUBLISH with QoS 0 (MQTT 3.1.1, section 3.3): 0x30, remaining length, topic, payload.
fn write_publish(out: &mut BytesMut, topic: &str, payload: &[u8]) {
    let mut remaining = 2 + topic.len() + payload.len();
    out.reserve(5 + remaining);
    out.put_u8(0x30);
    loop {
        // Seven bits a byte, lowest first.
        let low = (remaining & 0x7f) as u8;
        remaining >>= 7;
        if remaining == 0 {
            out.put_u8(low);
            break;
        }
        out.put_u8(low | 0x80);
    }
    // Topics are at most a few hundred bytes long.
    out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    out.put_slice(topic.as_bytes());
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CONNECT of client `c` with keep-alive 60.
    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";

    fn connected() -> Protocol {
        let mut protocol = Protocol::new();
        let (taken, received) = protocol.receive(CONNECT).unwrap();
        assert_eq!(taken, CONNECT.len());
        assert!(matches!(received, Some(Received::Connect(_))));
        protocol.connack().unwrap();
        assert_eq!(protocol.out[..], [0x20, 2, 0, 0]);
        protocol.out.clear();
        protocol
    }

    #[test]
    fn a_message_of_each_length_form_is_what_the_library_would_write() {
        for length in [0, 1, 100, 128, 16_383, 16_384, 200_000] {
            let payload = vec![7; length];
            let mut ours = BytesMut::new();
            write_publish(&mut ours, "a/b", &payload);
            let theirs = v3_1_1::Publish::builder()
                .topic_name("a/b")
                .unwrap()
                .qos(Qos::AtMostOnce)
                .payload(&payload)
                .build()
                .unwrap();
            assert_eq!(ours[..], theirs.to_continuous_buffer()[..], "{length}");
        }
    }

    #[test]
    fn packets_are_taken_one_by_one_and_in_pieces() {
        let mut protocol = connected();
        let two = b"\xc0\x00\xc0\x00";
        let (taken, received) = protocol.receive(two).unwrap();
        assert_eq!(taken, 2);
        assert!(matches!(received, Some(Received::Ping)));
        let publish = b"\x32\x08\x00\x01t\x00\x05abc";
        for byte in &publish[..publish.len() - 1] {
            assert!(protocol.receive(&[*byte]).unwrap().1.is_none());
        }
        let (_, received) = protocol.receive(&publish[publish.len() - 1..]).unwrap();
        let Some(Received::Publish(message)) = received else {
            panic!("no message");
        };
        assert_eq!((message.topic.as_str(), message.ack), ("t", Some(5)));
        assert_eq!(message.payload.as_slice(), b"abc");
        protocol.puback(5).unwrap();
        assert_eq!(protocol.out[..], [0x40, 2, 0, 5]);
    }

    #[test]
    fn what_breaks_the_protocol_is_a_violation_and_not_a_panic() {
        type Row<'a> = (&'a str, bool, &'a [u8]);
        let rows: [Row<'_>; 13] = [
            ("publish before connect", false, b"\x30\x04\x00\x01ta"),
            ("ping before connect", false, b"\xc0\x00"),
            ("connect twice", true, CONNECT),
            ("connack from a client", true, b"\x20\x02\x00\x00"),
            ("QoS 2", true, b"\x34\x06\x00\x01t\x00\x01a"),
            ("QoS 3", true, b"\x36\x06\x00\x01t\x00\x01a"),
            ("a wildcard in a topic", true, b"\x30\x04\x00\x01+a"),
            ("an empty topic", true, b"\x30\x03\x00\x00a"),
            (
                "a topic longer than the packet",
                true,
                b"\x30\x04\x00\xffta",
            ),
            ("subscribe to nothing", true, b"\x82\x02\x00\x01"),
            ("an endless length", true, b"\x30\xff\xff\xff\xff\x01"),
            ("a huge packet", true, b"\x30\xff\xff\xff\x7f"),
            ("an unknown type", true, b"\xf0\x00"),
        ];
        for (what, is_connected, bytes) in rows {
            let mut protocol = if is_connected {
                connected()
            } else {
                Protocol::new()
            };
            assert!(protocol.receive(bytes).is_err(), "{what}");
        }
        let mut old = Protocol::new();
        assert!(
            old.receive(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c")
                .is_err()
        );
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 2026_u64;
        for _ in 0..20_000 {
            let mut protocol = connected();
            let mut bytes = [0; 24];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            // Half of them look like a packet that fits.
            if state & 1 == 0 {
                bytes[1] = 22;
            }
            let mut rest = &bytes[..];
            while let Ok((taken @ 1.., _)) = protocol.receive(rest) {
                rest = &rest[taken..];
            }
        }
    }

    #[test]
    fn acknowledged_messages_leave_the_flight() {
        let mut protocol = connected();
        protocol.publish("t", b"x", QoS::AtLeastOnce).unwrap();
        assert_eq!(protocol.in_flight, 1);
        assert_eq!(protocol.out[..], *b"\x32\x06\x00\x01t\x00\x01x");
        let (_, received) = protocol.receive(b"\x40\x02\x00\x01").unwrap();
        assert!(matches!(received, Some(Received::PublishAcked)));
        assert_eq!(protocol.in_flight, 0);
        // An acknowledgement of nothing is against the protocol.
        assert!(protocol.receive(b"\x40\x02\x00\x01").is_err());
    }
}
