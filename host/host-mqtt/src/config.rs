//! What an operator says about a connection, checked before anything is opened.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::back_off::BackOffLimits;
use crate::error::MqttError;
use crate::login::{LOGIN_MAX_BYTES, Login};

/// AWS IoT's name for MQTT with client certificates on the HTTPS port.
pub(crate) const AWS_MQTT_ALPN: &[u8] = b"x-amzn-mqtt-ca";

/// Its name for MQTT with custom authentication, that is by password, on that port.
const AWS_PASSWORD_ALPN: &[u8] = b"mqtt";

/// The port on which that name is needed.
const HTTPS_PORT: u16 = 443;

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// TCP port: 8883 or 443 with TLS, 1883 without.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// Whether the name itself says that it is this machine. What a DNS name leads to is checked when it is resolved.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Whether it is AWS IoT Core, as far as the name tells.
    #[must_use]
    pub fn is_aws(&self) -> bool {
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        ["amazonaws.com", "amazonaws.com.cn"].iter().any(|domain| {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

/// PEM files of a mutually authenticated TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that the broker's must lead to. Only these: a gateway knows its broker.
    pub ca: PathBuf,
    /// The device's certificate, perhaps with its chain.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS with client certificate.
    Tls(TlsFiles),
    /// TLS in which only the broker shows a certificate, which must lead to one of these; a password says who the device
    /// is.
    TlsByPassword {
        /// Certificates that the broker's must lead to.
        ca: PathBuf,
    },
    /// None: to this machine only.
    PlaintextLoopback,
    /// None, to anywhere: a development setting, said aloud at every attempt.
    PlaintextAnywhere,
}

impl Security {
    /// The file of those that the broker's certificate must lead to.
    pub(crate) fn ca(&self) -> Option<&Path> {
        match self {
            Self::Tls(TlsFiles { ca, .. }) | Self::TlsByPassword { ca } => Some(ca),
            Self::PlaintextLoopback | Self::PlaintextAnywhere => None,
        }
    }
}

/// What to offer in TLS (RFC 7301).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Alpn {
    /// AWS IoT's protocol name on port 443, which depends on how a client shows who it is; nothing elsewhere.
    #[default]
    Auto,
    /// Nothing.
    Off,
    /// These.
    Protocols(Vec<String>),
}

impl Alpn {
    pub(crate) fn protocols(&self, endpoint: &Endpoint, security: &Security) -> Vec<Vec<u8>> {
        let by_password = matches!(security, Security::TlsByPassword { .. });
        match self {
            Self::Auto if endpoint.port == HTTPS_PORT && by_password => {
                vec![AWS_PASSWORD_ALPN.to_vec()]
            }
            Self::Auto if endpoint.port == HTTPS_PORT => vec![AWS_MQTT_ALPN.to_vec()],
            Self::Auto | Self::Off => Vec::new(),
            Self::Protocols(names) => names.iter().map(|n| n.clone().into_bytes()).collect(),
        }
    }
}

/// Whether an agent subscribes to the topics on which the service answers its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplySubscriptions {
    /// Yes, except at AWS IoT, which delivers the replies unasked (and allows 50 subscriptions a connection).
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

impl ReplySubscriptions {
    /// Whether to subscribe. `aws` is the operator's word that the broker behaves as AWS IoT, whatever its name.
    #[must_use]
    pub fn resolve(self, endpoint: &Endpoint, aws: bool) -> bool {
        match self {
            Self::Auto => !(aws || endpoint.is_aws()),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Numbers with a unit and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet either way. A block of 128 KiB with the service's envelope is below 160 KiB, and the runtime drops
    /// what is above; a packet above this one ends the connection, so there is air between the two.
    pub packet_max_bytes: usize,
    /// Publishes of QoS 1 without PUBACK. AWS IoT allows 100 a client.
    pub in_flight_max: u16,
    /// Requests waiting for the event loop; more fail at once with 0xd1. Several windows of requests of many devices.
    pub queue_max: usize,
    /// Name resolution, TCP, TLS and CONNACK together, and one flush.
    pub connect_timeout: Duration,
    /// SUBACK, UNSUBACK, PUBACK; after it the call ends with 0xd9. Longer than any request time-out of an agent.
    pub ack_timeout: Duration,
    /// So many calls in a row without acknowledgement, and the connection is made anew.
    pub unanswered_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_max_bytes: 256 * 1024,
            in_flight_max: 64,
            queue_max: 256,
            connect_timeout: Duration::from_secs(20),
            ack_timeout: Duration::from_secs(20),
            unanswered_max: 3,
        }
    }
}

/// Everything about a connection of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// The broker.
    pub endpoint: Endpoint,
    /// MQTT client id; AWS IoT wants the thing name. 1 to 128 bytes.
    pub client_id: String,
    /// Whose connection it is, in the log: the device that has it, as a rule the client id.
    pub name: String,
    /// TLS or none.
    pub security: Security,
    /// Protocol names to offer.
    pub alpn: Alpn,
    /// Seconds between packets, 5 to 1200 (AWS IoT takes 30 to 1200).
    pub keep_alive_s: u16,
    /// User name, perhaps with a password.
    pub login: Option<Login>,
    /// Delays between attempts.
    pub back_off: BackOffLimits,
    /// Sizes and times.
    pub limits: Limits,
}

/// Default of [`ConnectionConfig::keep_alive_s`], as in the FreeRTOS demos.
const KEEP_ALIVE_S: u16 = 60;

/// Longest client id of AWS IoT.
pub const CLIENT_ID_MAX_BYTES: usize = 128;

impl ConnectionConfig {
    /// Defaults for a device: its thing name is the client id.
    #[must_use]
    pub fn new(endpoint: Endpoint, thing: impl Into<String>, security: Security) -> Self {
        let client_id = thing.into();
        Self {
            endpoint,
            name: client_id.clone(),
            client_id,
            security,
            alpn: Alpn::default(),
            keep_alive_s: KEEP_ALIVE_S,
            login: None,
            back_off: BackOffLimits::default(),
            limits: Limits::default(),
        }
    }

    /// What can be seen without opening anything.
    ///
    /// # Errors
    /// A value that cannot be, or plaintext beyond loopback.
    pub fn check(&self) -> Result<(), MqttError> {
        let bad = |what: &'static str, value: String, expected: &'static str| {
            Err(MqttError::Value {
                what,
                value,
                expected,
            })
        };
        let host = &self.endpoint.host;
        if host.is_empty() || host.contains(['/', '[', ']', '@', ' ']) {
            return bad("host", host.clone(), "a DNS name or an IP address");
        }
        if self.endpoint.port == 0 {
            return bad("port", "0".to_owned(), "1 to 65535");
        }
        if self.client_id.is_empty() || self.client_id.len() > CLIENT_ID_MAX_BYTES {
            return bad("client id", self.client_id.clone(), "1 to 128 bytes");
        }
        if !(5..=1200).contains(&self.keep_alive_s) {
            return bad("keep-alive", self.keep_alive_s.to_string(), "5 to 1200 s");
        }
        if self.limits.in_flight_max == 0 || self.limits.queue_max == 0 {
            return bad("in-flight or queue limit", "0".to_owned(), "at least 1");
        }
        if self.back_off.base_ms == 0 || self.back_off.base_ms > self.back_off.cap_ms {
            return bad(
                "back-off",
                format!("{} to {} ms", self.back_off.base_ms, self.back_off.cap_ms),
                "a base of at least 1 ms, not above the cap",
            );
        }
        let user_name = self.login.as_ref().map(|login| login.user_name.as_str());
        if user_name.is_some_and(|name| name.is_empty() || name.len() > LOGIN_MAX_BYTES) {
            let length = user_name.map_or(0, str::len);
            return bad(
                "user name",
                format!("{length} bytes long"),
                "1 to 65535 bytes",
            );
        }
        let password = self.login.as_ref().and_then(Login::password);
        if password.is_some_and(|password| password.len() > LOGIN_MAX_BYTES) {
            return bad("password", "too long".to_owned(), "at most 65535 bytes");
        }
        if matches!(self.security, Security::TlsByPassword { .. }) && password.is_none() {
            return Err(MqttError::Nobody);
        }
        let plaintext = self.security == Security::PlaintextLoopback;
        if plaintext && !self.endpoint.is_loopback() {
            return Err(MqttError::Plaintext {
                endpoint: self.endpoint.to_string(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Alpn, ConnectionConfig, Endpoint, Login, ReplySubscriptions, Security, TlsFiles};

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn replies_are_subscribed_to_except_at_aws() {
        let aws = "a1b2-ats.iot.eu-central-1.amazonaws.com";
        let rows = [
            (ReplySubscriptions::Auto, aws, false, false),
            (ReplySubscriptions::Auto, "X.AMAZONAWS.COM.", false, false),
            (
                ReplySubscriptions::Auto,
                "x.iot.cn-north-1.amazonaws.com.cn",
                false,
                false,
            ),
            (ReplySubscriptions::Auto, "notamazonaws.com", false, true),
            (
                ReplySubscriptions::Auto,
                "amazonaws.com.example",
                false,
                true,
            ),
            (ReplySubscriptions::Auto, "localhost", false, true),
            (ReplySubscriptions::Auto, "localhost", true, false),
            (ReplySubscriptions::Always, aws, true, true),
            (ReplySubscriptions::Never, "localhost", false, false),
        ];
        for (setting, host, said, expected) in rows {
            assert_eq!(
                setting.resolve(&at(host, 8883), said),
                expected,
                "{setting:?} at {host}, aws = {said}"
            );
        }
    }

    #[test]
    fn port_443_offers_the_name_that_aws_wants() {
        let files = Security::Tls(TlsFiles {
            ca: "ca".into(),
            certificate: "certificate".into(),
            key: "key".into(),
        });
        let password = Security::TlsByPassword { ca: "ca".into() };
        let aws = vec![b"x-amzn-mqtt-ca".to_vec()];
        assert_eq!(Alpn::Auto.protocols(&at("b", 443), &files), aws);
        let by_password = Alpn::Auto.protocols(&at("b", 443), &password);
        assert_eq!(by_password, [b"mqtt".to_vec()]);
        for security in [&files, &password] {
            assert!(Alpn::Auto.protocols(&at("b", 8883), security).is_empty());
            assert!(Alpn::Off.protocols(&at("b", 443), security).is_empty());
            let named = Alpn::Protocols(vec!["x".to_owned()]);
            let protocols = named.protocols(&at("b", 8883), security);
            assert_eq!(protocols, [b"x".to_vec()]);
        }
    }

    #[test]
    fn plaintext_goes_to_this_machine_only_unless_development_says_otherwise() {
        let rows = [
            ("localhost", Security::PlaintextLoopback, true),
            ("127.3.2.1", Security::PlaintextLoopback, true),
            ("::1", Security::PlaintextLoopback, true),
            ("192.168.1.4", Security::PlaintextLoopback, false),
            ("localhost.example", Security::PlaintextLoopback, false),
            ("192.168.1.4", Security::PlaintextAnywhere, true),
        ];
        for (host, security, fine) in rows {
            let config = ConnectionConfig::new(at(host, 1883), "t", security);
            assert_eq!(config.check().is_ok(), fine, "{host}");
        }
    }

    #[test]
    fn values_outside_their_limits_are_named() {
        type Change = fn(&mut ConnectionConfig);
        let rows: &[(&str, Change)] = &[
            ("host", |c| c.endpoint.host.clear()),
            ("host", |c| c.endpoint.host = "mqtt://broker".to_owned()),
            ("port", |c| c.endpoint.port = 0),
            ("client id", |c| c.client_id.clear()),
            ("client id", |c| c.client_id = "x".repeat(129)),
            ("user name", |c| c.login = Some(Login::name(""))),
            ("user name", |c| {
                c.login = Some(Login::name("x".repeat(65_536)));
            }),
            ("password", |c| {
                c.login = Some(Login::new("x", "x".repeat(65_536)));
            }),
            ("neither a client certificate nor", |c| {
                c.login = Some(Login::name("x"));
                c.security = Security::TlsByPassword { ca: "ca".into() };
            }),
            ("keep-alive", |c| c.keep_alive_s = 4),
            ("keep-alive", |c| c.keep_alive_s = 1201),
            ("in-flight", |c| c.limits.in_flight_max = 0),
            ("back-off", |c| c.back_off.base_ms = 0),
            ("back-off", |c| c.back_off.cap_ms = 499),
        ];
        for (name, change) in rows {
            let mut config =
                ConnectionConfig::new(at("localhost", 1883), "t", Security::PlaintextLoopback);
            config.client_id = "x".repeat(128);
            assert!(config.check().is_ok());
            change(&mut config);
            let text = config.check().unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn an_address_is_written_so_that_it_can_be_read_back() {
        assert_eq!(at("::1", 8883).to_string(), "[::1]:8883");
        assert_eq!(at("broker", 443).to_string(), "broker:443");
    }
}
