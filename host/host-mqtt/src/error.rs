//! Why an MQTT client could not be made at all. That a connection fails is no error here: it is tried again, and told
//! as a [`Lost`](crate::Lost).

use std::io;
use std::path::PathBuf;

/// The operator's to mend; trying again does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    /// A value that cannot be.
    #[error("MQTT {what} is `{value}`, expected {expected}")]
    Value {
        /// Which one.
        what: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A file that cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Unreadable {
        /// Which one.
        what: &'static str,
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that can be read and is not what it should be.
    #[error("{what} {} is of no use: {why}", path.display())]
    Unusable {
        /// Which one.
        what: &'static str,
        /// As configured.
        path: PathBuf,
        /// What was looked for, or what is wrong with it.
        why: String,
    },
    /// Certificate and key do not belong together, or TLS cannot use them.
    #[error("certificate {} and key {} do not work together: {why}", certificate.display(), key.display())]
    Identity {
        /// As configured.
        certificate: PathBuf,
        /// As configured.
        key: PathBuf,
        /// What TLS says.
        why: String,
    },
    /// Plaintext to another machine.
    #[error(
        "{endpoint} is another machine and the connection has no TLS; configure TLS, or allow plaintext in the development settings"
    )]
    Plaintext {
        /// The broker.
        endpoint: String,
    },
    /// Neither a client certificate nor a password.
    #[error(
        "TLS with neither a client certificate nor a password: configure certificate and key, or user name and password"
    )]
    Nobody,
    /// Two devices of one name on one connection.
    #[error("thing `{0}` is attached to this connection already")]
    Attached(String),
    /// No tokio runtime.
    #[error("an MQTT client needs a tokio runtime")]
    NoRuntime,
    /// The system has no random numbers.
    #[error("no random numbers for the back-off: {0}")]
    Random(String),
}
