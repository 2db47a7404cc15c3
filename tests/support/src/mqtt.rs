//! MQTT packets as a proxy sees them: cut out of a byte stream, with topic and payload of a PUBLISH.
//!
//! Enough of MQTT 3.1.1 to drop, delay and count whole messages on a plaintext connection; it understands no other
//! packet and checks nothing that a broker checks.

/// Biggest packet that is collected. 1 MiB: a message of 128 KiB with its topic, eight times over.
pub const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Packet type of PUBLISH.
const PUBLISH: u8 = 3;

/// One whole packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    bytes: Vec<u8>,
    /// Bytes before the variable header.
    head: usize,
}

/// The stream is not MQTT, or holds a packet past [`PACKET_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not MQTT, or holds a packet of more than {PACKET_BYTES_MAX} bytes")]
pub struct NotMqtt;

impl Packet {
    /// The packet as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Packet type: 1 CONNECT, 3 PUBLISH, 8 SUBSCRIBE, 14 DISCONNECT, …
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.bytes[0] >> 4
    }

    /// Quality of service of a PUBLISH.
    #[must_use]
    pub fn qos(&self) -> u8 {
        (self.bytes[0] >> 1) & 3
    }

    /// Topic and payload, if it is a PUBLISH.
    #[must_use]
    pub fn message(&self) -> Option<(&str, &[u8])> {
        if self.kind() != PUBLISH {
            return None;
        }
        let body = &self.bytes[self.head..];
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let id_bytes = if self.qos() == 0 { 0 } else { 2 };
        Some((std::str::from_utf8(topic).ok()?, rest.get(id_bytes..)?))
    }
}

/// Cuts a byte stream into packets.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes bytes as they come and returns the packets that they complete.
    ///
    /// # Errors
    /// What comes cannot be MQTT.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<Vec<Packet>, NotMqtt> {
        self.pending.extend_from_slice(bytes);
        let mut packets = Vec::new();
        while let Some((head, total)) = lengths(&self.pending)? {
            if self.pending.len() < total {
                break;
            }
            let rest = self.pending.split_off(total);
            packets.push(Packet {
                bytes: std::mem::replace(&mut self.pending, rest),
                head,
            });
        }
        Ok(packets)
    }
}

/// Bytes of the fixed header and of the whole packet, once they can be told.
fn lengths(bytes: &[u8]) -> Result<Option<(usize, usize)>, NotMqtt> {
    let mut length = 0;
    for index in 1..=4 {
        let Some(&byte) = bytes.get(index) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * (index - 1));
        if byte & 0x80 == 0 {
            let total = index + 1 + length;
            return if total <= PACKET_BYTES_MAX {
                Ok(Some((index + 1, total)))
            } else {
                Err(NotMqtt)
            };
        }
    }
    Err(NotMqtt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, qos: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        if qos > 0 {
            body.extend_from_slice(&[0, 1]);
        }
        body.extend_from_slice(payload);
        let mut packet = vec![0x30 | qos << 1];
        let mut length = body.len();
        while length > 127 {
            packet.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        packet.push(length as u8);
        packet.extend(body);
        packet
    }

    #[test]
    fn packets_are_the_same_however_the_stream_is_cut() {
        let mut stream = vec![0xc0, 0x00];
        stream.extend(publish("a/b", 1, &[7; 300]));
        stream.extend(publish("c", 0, b""));
        for step in [1, 2, 5, stream.len()] {
            let mut splitter = Splitter::default();
            let packets: Vec<Packet> = stream
                .chunks(step)
                .flat_map(|chunk| splitter.handle(chunk).unwrap())
                .collect();
            assert_eq!(packets.len(), 3, "cut every {step}");
            assert_eq!(packets[0].kind(), 12);
            assert_eq!(packets[1].message(), Some(("a/b", &[7; 300][..])));
            assert_eq!(packets[2].message(), Some(("c", &b""[..])));
            assert_eq!(packets[0].message(), None);
        }
    }

    #[test]
    fn what_is_no_mqtt_or_too_long_is_refused() {
        assert_eq!(
            Splitter::default().handle(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(NotMqtt)
        );
        assert_eq!(
            Splitter::default().handle(&[0x30, 0xff, 0xff, 0x7f]),
            Err(NotMqtt)
        );
    }
}
