//! Reads `[device.mqtt]`: where the broker is, and how it knows the device: by a certificate, by a password, or by both.

use std::collections::BTreeMap;

use host_mqtt::CLIENT_ID_MAX_BYTES;

use super::keys;
use super::model::{Development, Device, Login, Mqtt, Password, ReplySubscriptions};
use super::reader::{Located, Reader, Sink};
use super::tree::Table;

pub(super) fn mqtt(device: &Reader<'_>, name: &Located<String>, development: Development) -> Mqtt {
    let empty = Table::new();
    let section = device.table("mqtt");
    let stands = section.is_some();
    if !stands && !device.has("mqtt") {
        device.missing("mqtt", "{ endpoint = \"localhost\", … }");
    }
    let section = section.unwrap_or_else(|| Reader::root(&empty, device.sink));
    let connection_of = section.text("connection_of");
    let endpoint = if stands && connection_of.is_none() {
        section.required_text("endpoint", "\"….iot.eu-west-1.amazonaws.com\"")
    } else {
        name.clone()
    };
    let number = |spec| section.number(spec);
    let mqtt = Mqtt {
        port: u16::try_from(number(&keys::PORT)).unwrap_or(8883),
        client_id: section.text("client_id").unwrap_or_else(|| name.clone()),
        tls: section.boolean("tls", true),
        root_certificate: section.path("root_certificate"),
        certificate: section.path("certificate"),
        private_key: section.path("private_key"),
        login: login(&section),
        alpn: section.text("alpn").map(|t| t.value),
        aws: section.boolean("aws", false),
        reply_subscriptions: section.choice(
            "reply_subscriptions",
            &[
                ("auto", ReplySubscriptions::Auto),
                ("always", ReplySubscriptions::Always),
                ("never", ReplySubscriptions::Never),
            ],
            ReplySubscriptions::Auto,
        ),
        keep_alive_s: u16::try_from(number(&keys::KEEP_ALIVE_S)).unwrap_or(60),
        connect_timeout_ms: number(&keys::CONNECT_TIMEOUT_MS),
        reconnect_min_ms: number(&keys::RECONNECT_MIN_MS),
        reconnect_max_ms: number(&keys::RECONNECT_MAX_MS),
        publish_failures_max: u32::try_from(number(&keys::PUBLISH_FAILURES_MAX)).unwrap_or(3),
        endpoint,
        connection_of,
    };
    if let Some(of) = &mqtt.connection_of {
        check_sharer(&section, of);
    } else if stands {
        check_mqtt(&section, &mqtt, development);
    }
    section.finish();
    mqtt
}

/// What a device that uses another one's connection may still say for itself.
const OF_A_SHARER: [&str; 2] = ["connection_of", "reply_subscriptions"];

fn check_sharer(section: &Reader<'_>, of: &Located<String>) {
    for (key, origin) in section.keys().filter(|(key, _)| !OF_A_SHARER.contains(key)) {
        section.sink.advise(
            origin,
            format!("`{key}` stands beside `connection_of`"),
            format!(
                "the connection is that of \"{}\", with all that belongs to it: remove one of the two",
                of.value
            ),
        );
    }
}

/// Give each device that names another one's connection what belongs to it.
pub(super) fn share(devices: &mut [Device], sink: &Sink) {
    let owners: BTreeMap<String, Mqtt> = devices
        .iter()
        .map(|device| (device.name.value.clone(), device.mqtt.clone()))
        .collect();
    for device in devices {
        let Some(of) = device.mqtt.connection_of.clone() else {
            continue;
        };
        let help = match owners.get(&of.value) {
            Some(owner) if owner.connection_of.is_none() => {
                device.mqtt = Mqtt {
                    connection_of: Some(of),
                    reply_subscriptions: device.mqtt.reply_subscriptions,
                    ..owner.clone()
                };
                continue;
            }
            _ if of.value == device.name.value => {
                "name another device, or leave it out and write `endpoint`".to_owned()
            }
            Some(owner) => {
                let first = owner
                    .connection_of
                    .as_ref()
                    .map_or("", |o| o.value.as_str());
                format!("that one uses the connection of \"{first}\": name the device that has it")
            }
            None => "name a device of this configuration that has a connection".to_owned(),
        };
        sink.advise(
            &of.origin,
            format!("\"{}\" has no connection of its own", of.value),
            help,
        );
    }
}

fn check_mqtt(section: &Reader<'_>, mqtt: &Mqtt, development: Development) {
    let sink = section.sink;
    let endpoint = &mqtt.endpoint;
    let bad = |c: char| c.is_whitespace() || ['/', '@', '[', ']'].contains(&c);
    if endpoint.value.is_empty() || endpoint.value.contains(bad) {
        sink.advise(
            &endpoint.origin,
            format!(
                "`endpoint` is \"{}\", expected a host name or an address",
                endpoint.value
            ),
            "no scheme, no path; the port has its own key `port`",
        );
    }
    let id = &mqtt.client_id;
    let fits = (1..=CLIENT_ID_MAX_BYTES).contains(&id.value.len());
    // MQTT 3.1.1, 1.5.3: a broker may close the connection over one.
    if !fits || id.value.contains(char::is_control) {
        sink.advise(
            &id.origin,
            format!("`client_id` is {:?}, which is no client id", id.value),
            format!(
                "1 to {CLIENT_ID_MAX_BYTES} bytes without control characters, or leave it out for the thing name"
            ),
        );
    }
    if mqtt.reconnect_min_ms > mqtt.reconnect_max_ms {
        sink.advise(
            &section.place("reconnect_min_ms"),
            format!(
                "`reconnect_min_ms` is {}, above `reconnect_max_ms` {}",
                mqtt.reconnect_min_ms, mqtt.reconnect_max_ms
            ),
            "the delay grows from the one to the other: swap them, or leave one out",
        );
    }
    if mqtt.tls {
        if !section.has("root_certificate") {
            section.missing("root_certificate", "\"root.pem\"");
        }
        // A password may stand in for the certificate, but half an identity is none.
        let pair = ["certificate", "private_key"];
        let by_password = PASSWORDS.iter().any(|key| section.has(key))
            && !pair.iter().any(|key| section.has(key));
        for (key, example) in [
            ("certificate", "\"certificate.pem\""),
            ("private_key", "\"private-key.pem\""),
        ] {
            if !by_password && !section.has(key) {
                section.missing(key, example);
            }
        }
    } else if !mqtt.is_loopback() && !development.allow_plaintext {
        sink.advise(
            &section.place("tls"),
            format!("MQTT to \"{}\" without TLS", endpoint.value),
            "remove `tls = false`; in a laboratory: `allow_plaintext = true` in [development]",
        );
    }
}

/// Where a password may come from; never from the file itself.
const PASSWORDS: [&str; 2] = ["password_file", "password_env"];

fn login(section: &Reader<'_>) -> Option<Login> {
    let sink = section.sink;
    let user_name = section.text("user_name");
    let file = section.path("password_file");
    let variable = section.text("password_env");
    if let Some(password) = section.text("password") {
        sink.advise(
            &password.origin,
            "`password` would stand in a file or variable that is shown and copied",
            "write it into a file of mode 0600 and name that: `password_file`; or name an environment variable: `password_env`",
        );
    }
    if let (Some(_), Some(variable)) = (&file, &variable) {
        sink.advise(
            &variable.origin,
            "`password_file` and `password_env` exclude each other",
            "there is one password; remove one of the two",
        );
    }
    if let Some(variable) = &variable
        && (variable.value.is_empty() || variable.value.contains(['=', '\0']))
    {
        sink.advise(
            &variable.origin,
            "`password_env` is no name of an environment variable",
            "name the variable, such as PUMP_MQTT_PASSWORD; the password itself stands in it",
        );
    }
    if user_name.as_ref().is_some_and(|name| name.value.is_empty()) {
        sink.advise(
            &section.place("user_name"),
            "`user_name` is empty",
            "write the name that the broker knows this device by, or leave it out",
        );
    }
    let password = match (file, variable) {
        (Some(file), _) => Some(Password::File(file)),
        (None, Some(variable)) => Some(Password::Environment(variable)),
        (None, None) => None,
    };
    match (user_name, password) {
        (None, None) => None,
        (Some(user_name), password) => Some(Login {
            user_name,
            password,
        }),
        (None, Some(_)) => {
            if !section.has("user_name") {
                section.missing("user_name", "\"pump-1\"");
            }
            None
        }
    }
}
