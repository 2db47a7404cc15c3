//! From `[device.mqtt]` to the MQTT adapter's own configuration. A password is fetched here, when the connection is made.

use std::path::PathBuf;
use std::time::Duration;

use host_mqtt::{
    Alpn, BackOffLimits, ConnectionConfig, Limits, Login, MqttError, Security, TlsFiles,
};

use crate::config::{self, Device, Located, Mqtt, Password};

/// Requests of each further device that may wait for the connection: what an agent and its notices subscribe to when the
/// connection is back, which all do at once, and the first requests of a job.
pub(super) const QUEUE_OF_A_GUEST: usize = 24;

pub(super) fn config(
    device: &Device,
    allow_plaintext: bool,
) -> Result<ConnectionConfig, MqttError> {
    let login = device.mqtt.login.as_ref().map(login).transpose()?;
    Ok(ConnectionConfig {
        name: device.name.value.clone(),
        ..with_login(&device.mqtt, allow_plaintext, login)
    })
}

/// Whether a client can be made of it, by what makes one when the device connects. A password that cannot be had here, perhaps
/// because only the daemon's environment has it, is `config/check.rs`'s to tell.
///
/// # Errors
/// The first value or file that is wrong.
pub(crate) fn check(mqtt: &Mqtt, allow_plaintext: bool) -> Result<(), MqttError> {
    let stand_in = |of: &config::Login| Login::new(&of.user_name.value, "password");
    let login = mqtt.login.as_ref();
    let login = login.map(|of| self::login(of).unwrap_or_else(|_| stand_in(of)));
    with_login(mqtt, allow_plaintext, login)
        .mqtt_options()
        .map(drop)
}

fn with_login(mqtt: &Mqtt, allow_plaintext: bool, login: Option<Login>) -> ConnectionConfig {
    ConnectionConfig {
        login,
        alpn: match mqtt.alpn.as_deref() {
            None | Some("auto") => Alpn::Auto,
            Some("off") => Alpn::Off,
            Some(name) => Alpn::Protocols(vec![name.to_owned()]),
        },
        keep_alive_s: mqtt.keep_alive_s,
        back_off: BackOffLimits {
            base_ms: mqtt.reconnect_min_ms,
            cap_ms: mqtt.reconnect_max_ms,
        },
        limits: Limits {
            connect_timeout: Duration::from_millis(mqtt.connect_timeout_ms),
            unanswered_max: mqtt.publish_failures_max,
            ..Limits::default()
        },
        ..ConnectionConfig::new(
            mqtt.place(),
            &mqtt.client_id.value,
            security(mqtt, allow_plaintext),
        )
    }
}

fn security(mqtt: &Mqtt, allow_plaintext: bool) -> Security {
    // `mqtt.rs` of the configuration has refused what is not there; an empty path is a worded error here.
    let path = |located: &Located<PathBuf>| located.value.clone();
    let ca = mqtt
        .root_certificate
        .as_ref()
        .map_or_else(PathBuf::new, path);
    match (mqtt.tls, &mqtt.certificate, &mqtt.private_key) {
        (true, None, None) => Security::TlsByPassword { ca },
        (true, certificate, key) => Security::Tls(TlsFiles {
            ca,
            certificate: certificate.as_ref().map_or_else(PathBuf::new, path),
            key: key.as_ref().map_or_else(PathBuf::new, path),
        }),
        (false, ..) if allow_plaintext && !mqtt.is_loopback() => Security::PlaintextAnywhere,
        (false, ..) => Security::PlaintextLoopback,
    }
}

fn login(login: &config::Login) -> Result<Login, MqttError> {
    let user_name = &login.user_name.value;
    match &login.password {
        None => Ok(Login::name(user_name)),
        Some(Password::File(path)) => Login::from_file(user_name, &path.value),
        Some(Password::Environment(variable)) => match std::env::var(&variable.value) {
            Ok(password) if !password.is_empty() => Ok(Login::new(user_name, password)),
            Ok(_) | Err(_) => Err(MqttError::Value {
                what: "password_env",
                value: variable.value.clone(),
                expected: "the name of an environment variable of this process that holds a password",
            }),
        },
    }
}
