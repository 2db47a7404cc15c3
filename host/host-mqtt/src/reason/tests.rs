//! Errors as rumqttc makes them, and what is said of them.

use std::io;
use std::path::Path;
use std::time::Duration;

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError};
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;

use super::{Lost, Reason};

fn read_error(error: io::Error) -> ConnectionError {
    ConnectionError::MqttState(StateError::Deserialization(PacketError::Io(error)))
}

fn io_error(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "words of the system")
}

#[test]
fn every_cause_has_its_number_and_its_words() {
    let alert = rustls::Error::AlertReceived(AlertDescription::CertificateUnknown);
    let issuer = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let at = |s| UnixTime::since_unix_epoch(Duration::from_secs(s));
    let wrong = |why| {
        ConnectionError::Tls(TlsError::Io(io::Error::new(
            io::ErrorKind::InvalidData,
            rustls::Error::InvalidCertificate(why),
        )))
    };
    let early = CertificateError::NotValidYetContext {
        time: at(12),
        not_before: at(1_795_245_243),
    };
    let late = CertificateError::ExpiredContext {
        time: at(4_107_542_400),
        not_after: at(1_795_245_243),
    };
    let own = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    let refused = |code| ConnectionError::ConnectionRefused(code);
    #[rustfmt::skip]
    let rows: Vec<(ConnectionError, bool, u32, &str)> = vec![
        (ConnectionError::RequestsDone, true, 1, "disconnected"),
        (ConnectionError::MqttState(StateError::Unsolicited(7)), true, 2, "7"),
        (ConnectionError::MqttState(StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(9))), true, 2, "9"),
        (ConnectionError::SessionStateMismatch { clean_session: true, session_present: true }, false, 2, "session_present"),
        (ConnectionError::MqttState(StateError::AwaitPingResp), true, 3, "ping"),
        (read_error(io_error(io::ErrorKind::TimedOut)), true, 3, "acknowledge"),
        (ConnectionError::MqttState(StateError::ConnectionAborted), true, 4, "closed"),
        (read_error(io_error(io::ErrorKind::ConnectionReset)), true, 4, "closed"),
        (read_error(io_error(io::ErrorKind::UnexpectedEof)), false, 4, "client certificate"),
        (refused(ConnectReturnCode::RefusedProtocolVersion), false, 4, "3.1.1"),
        (refused(ConnectReturnCode::BadClientId), false, 4, "client id"),
        (refused(ConnectReturnCode::ServiceUnavailable), false, 4, "not available"),
        (refused(ConnectReturnCode::BadUserNamePassword), false, 4, "password"),
        (refused(ConnectReturnCode::NotAuthorized), false, 4, "not authorized"),
        (ConnectionError::Tls(TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, issuer))), false, 5, "CA file /etc/otad/root.pem"),
        (read_error(io::Error::new(io::ErrorKind::InvalidData, alert)), false, 5, "CertificateUnknown"),
        (wrong(early), false, 5, "not valid yet: the gateway's clock says 1970-01-01 00:00:12Z, the certificate begins at 2026-11-21"),
        (wrong(late), false, 5, "the gateway's clock says 2100-03-01 00:00:00Z, the certificate ended at 2026-11-21"),
        (read_error(io::Error::new(io::ErrorKind::InvalidData, own)), false, 5, "the gateway's own certificate is not valid at this time"),
        (ConnectionError::NetworkTimeout, false, 7, "time"),
        (ConnectionError::FlushTimeout, true, 7, "bytes"),
        (ConnectionError::Io(io_error(io::ErrorKind::ConnectionRefused)), false, 7, "words of the system"),
        (ConnectionError::Io(io_error(io::ErrorKind::NotFound)), false, 7, "words of the system"),
        (read_error(io_error(io::ErrorKind::NetworkUnreachable)), true, 7, "words of the system"),
    ];
    for (error, connected, number, words) in rows {
        let lost = Lost::of(&error, connected, Some(Path::new("/etc/otad/root.pem")));
        assert_eq!(lost.reason.number(), number, "{error:?}: {lost}");
        assert!(lost.detail.contains(words), "{error:?}: {lost}");
    }
}

#[test]
fn reasons_are_named_apart() {
    let all = [
        Reason::Asked,
        Reason::BadPacket,
        Reason::KeepAlive,
        Reason::Peer,
        Reason::Tls,
        Reason::TakenOver,
        Reason::Network,
    ];
    for (number, reason) in (1..).zip(all) {
        assert_eq!(reason.number(), number);
        assert_eq!(
            all.iter()
                .filter(|other| other.to_string() == reason.to_string())
                .count(),
            1
        );
    }
}
