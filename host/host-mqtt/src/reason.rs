//! Why a connection ended or could not be made, from rumqttc's errors to the numbers of `job-agent.wit` and to words.

use std::error::Error;
use std::io;
use std::path::Path;

use host_runtime::ports::clock::utc;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use rustls::{AlertDescription, CertificateError};

/// `disconnection.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Reason {
    /// Asked for on this side.
    Asked = 1,
    /// One side sent what the other does not take.
    BadPacket = 2,
    /// The broker was silent for too long.
    KeepAlive = 3,
    /// The peer closed the connection, or refused it.
    Peer = 4,
    /// TLS.
    Tls = 5,
    /// Another client has come with the same client id.
    TakenOver = 6,
    /// The network: names, routes, ports, time-outs.
    Network = 7,
}

impl Reason {
    /// The number in the contract.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked for",
            Self::BadPacket => "bad packet",
            Self::KeepAlive => "keep-alive",
            Self::Peer => "peer",
            Self::Tls => "TLS",
            Self::TakenOver => "taken over",
            Self::Network => "network",
        })
    }
}

/// A connection that ended or was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The number.
    pub reason: Reason,
    /// For people.
    pub detail: String,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason)
    }
}

impl Lost {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// What an error of the event loop means. `connected` is whether there was a connection before it, `ca` the file that the
    /// broker's certificate was held against, if that is known.
    #[must_use]
    pub fn of(error: &ConnectionError, connected: bool, ca: Option<&Path>) -> Self {
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::new(Reason::Tls, tls_words(tls, ca));
        }
        match error {
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                Self::new(Reason::KeepAlive, "the broker did not answer a ping")
            }
            ConnectionError::ConnectionRefused(code) => {
                Self::new(Reason::Peer, refusal_words(*code))
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::closed(connected),
            ConnectionError::NetworkTimeout => Self::new(
                Reason::Network,
                "no connection within the time allowed for it",
            ),
            ConnectionError::FlushTimeout => {
                Self::new(Reason::Network, "the broker takes no more bytes")
            }
            ConnectionError::RequestsDone | ConnectionError::DisconnectTimeout => {
                Self::new(Reason::Asked, "disconnected")
            }
            _ => match find::<io::Error>(error) {
                Some(io) => Self::of_io(io, connected),
                None => Self::new(Reason::BadPacket, chain(error)),
            },
        }
    }

    fn of_io(error: &io::Error, connected: bool) -> Self {
        match error.kind() {
            // Without a connection: nobody listens. Our socket's own words have the address.
            io::ErrorKind::ConnectionRefused => Self::new(Reason::Network, error.to_string()),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::closed(connected),
            io::ErrorKind::TimedOut if connected => Self::new(
                Reason::KeepAlive,
                "the broker's machine stopped to acknowledge what was sent",
            ),
            _ => Self::new(Reason::Network, error.to_string()),
        }
    }

    fn closed(connected: bool) -> Self {
        let detail = if connected {
            "the broker closed the connection"
        } else {
            "the broker closed the connection instead of accepting it: is the client certificate active, and may it connect with this client id?"
        };
        Self::new(Reason::Peer, detail)
    }
}

/// The words of MQTT 3.1.1, table 3.1, and what to do.
fn refusal_words(code: ConnectReturnCode) -> String {
    let words = match code {
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1 (return code 1)",
        ConnectReturnCode::BadClientId => {
            "it does not take the client id (return code 2); AWS IoT wants the thing name"
        }
        ConnectReturnCode::ServiceUnavailable => "it is not available (return code 3)",
        ConnectReturnCode::BadUserNamePassword => "user name or password is wrong (return code 4)",
        ConnectReturnCode::NotAuthorized => {
            "this client is not authorized (return code 5); see the policy of its certificate, or its password"
        }
        ConnectReturnCode::Success => "it says success",
    };
    format!("the broker refused the connection: {words}")
}

fn tls_words(error: &rustls::Error, ca: Option<&Path>) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time,
            not_before,
        }) => format!(
            "the broker's certificate is not valid yet: the gateway's clock says {}, the certificate begins at {}; set \
             the clock, the connection is tried again by itself",
            utc(time.as_secs()),
            utc(not_before.as_secs())
        ),
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            format!(
                "the broker's certificate is not valid any more: the gateway's clock says {}, the certificate ended at \
                 {}; set the clock if it is wrong, else the broker needs another certificate",
                utc(time.as_secs()),
                utc(not_after.as_secs())
            )
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the broker says that the gateway's own certificate is not valid at this time (alert CertificateExpired): \
             renew it, or see to the broker's clock"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(why) => {
            let ca = ca.map_or_else(
                || "the configured CA file".to_owned(),
                |path| format!("CA file {}", path.display()),
            );
            format!("the broker's certificate is not accepted: {why}; it must lead to one in {ca}")
        }
        rustls::Error::AlertReceived(alert) => format!(
            "the broker ended TLS with alert {alert:?}; does it know the client certificate?"
        ),
        other => format!("TLS: {other}"),
    }
}

/// The first error of that type in the chain. An `io::Error` hides what it was made of from `source`.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        // rumqttc puts the source's text into its own.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
