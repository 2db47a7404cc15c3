//! What an operator says about somebody else's broker, checked before anything is opened.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::error::CloudError;

/// Ports of MQTT without and with TLS.
const PORTS: (u16, u16) = (1883, 8883);
/// Longest client id that every MQTT 3.1.1 broker which cares takes; longer ones are typing errors.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// Largest PEM or password file: a bundle of all the world's authorities has some 250 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a broker is: `mqtt://host[:port]` or `mqtts://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Whether the connection has TLS.
    pub tls: bool,
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl BrokerUrl {
    /// Whether the name itself says that it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for BrokerUrl {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<Self, CloudError> {
        let bad = |reason: &str| CloudError::Broker {
            what: format!("broker \"{text}\""),
            reason: reason.to_owned(),
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(bad("give mqtt://HOST:PORT, or mqtts://HOST:PORT with TLS")),
        };
        if rest.contains('@') {
            return Err(bad(
                "user and password do not belong into a URL, which other users of this machine can see",
            ));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, port.strip_prefix(':')),
                None => return Err(bad("a bracket is not closed")),
            },
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None if tls => PORTS.1,
            None => PORTS.0,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(bad("the port is a number from 1 to 65535")),
            },
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ', '[']) {
            return Err(bad(
                "the host is a DNS name or an IP address, and nothing follows the port",
            ));
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

/// Name and password for a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password; may be empty.
    pub password: String,
}

impl Login {
    /// A login whose password is the first line of a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no text.
    pub fn from_file(user: impl Into<String>, path: &Path) -> Result<Self, CloudError> {
        let text =
            String::from_utf8(read(path)?).map_err(|_| unusable(path, "a password is text"))?;
        Ok(Self {
            user: user.into(),
            password: text.lines().next().unwrap_or_default().to_owned(),
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// How the cloud reaches somebody else's broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Where it is.
    pub url: BrokerUrl,
    /// MQTT client id. Two clouds of the same id at one broker end each other, which tells that there are two.
    pub client_id: String,
    /// Certificates that the broker's must lead to; needed with TLS, and only these count.
    pub ca: Option<PathBuf>,
    /// The cloud's own certificate and key, for brokers that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// User name and password, for brokers that ask for them.
    pub login: Option<Login>,
    /// Allows a broker on another machine without TLS: for development only, and said at every start.
    pub plain_beyond_loopback: bool,
}

impl BrokerConfig {
    /// A broker, with nothing else said.
    #[must_use]
    pub fn new(url: BrokerUrl) -> Self {
        Self {
            url,
            client_id: "otad-cloud".to_owned(),
            ca: None,
            certificate: None,
            login: None,
            plain_beyond_loopback: false,
        }
    }

    /// Checks what can be told without a connection, and reads the files. `None` = no TLS.
    pub(crate) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, CloudError> {
        let bad = |what: &str, reason: &str| CloudError::Broker {
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        if self.client_id.is_empty() || self.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(bad("client id at the broker", "give 1 to 128 bytes"));
        }
        let broker = format!("broker {}", self.url);
        if !self.url.tls {
            if self.ca.is_some() || self.certificate.is_some() {
                return Err(bad(
                    &broker,
                    "certificates were given, but mqtt:// is without TLS; give mqtts://",
                ));
            }
            if !self.url.is_loopback() && !self.plain_beyond_loopback {
                return Err(bad(
                    &broker,
                    "it is another machine and mqtt:// is without TLS; give mqtts://, or the development setting",
                ));
            }
            return Ok(None);
        }
        let Some(ca) = &self.ca else {
            return Err(bad(
                &broker,
                "mqtts:// needs the certificate that the broker's leads to",
            ));
        };
        client_config(ca, self.certificate.as_ref()).map(Some)
    }
}

fn client_config(
    ca: &Path,
    own: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, CloudError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|e| unusable(ca, e))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(ca, e))?
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key_der = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|_| unusable(key, "no private key in PEM form in it"))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|e| unusable(certificate, e))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CloudError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(path, e))?;
    if found.is_empty() {
        return Err(unusable(path, "no certificate in PEM form in it"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, CloudError> {
    let failed = |e: &std::io::Error| CloudError::io("read", path, e);
    let size = fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > FILE_BYTES_MAX {
        let reason = format!("it has {size} bytes, at most {FILE_BYTES_MAX} make sense");
        return Err(unusable(path, reason));
    }
    fs::read(path).map_err(|e| failed(&e))
}

fn unusable(path: &Path, reason: impl fmt::Display) -> CloudError {
    CloudError::Broker {
        what: path.display().to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_security_host_and_port() {
        let rows = [
            ("mqtt://localhost", "mqtt://localhost:1883"),
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("mqtts://broker.example:443/", "mqtts://broker.example:443"),
            ("mqtt://127.0.0.1:21883", "mqtt://127.0.0.1:21883"),
            ("mqtt://[::1]:5", "mqtt://[::1]:5"),
            ("mqtts://[fe80::1]", "mqtts://[fe80::1]:8883"),
        ];
        for (text, whole) in rows {
            assert_eq!(text.parse::<BrokerUrl>().unwrap().to_string(), whole);
        }
        let wrong = [
            "localhost",
            "http://localhost",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://host:0",
            "mqtt://host:65536",
            "mqtt://host:x",
            "mqtt://host:1/path",
            "mqtt://[::1:5",
            "mqtt://user:secret@host",
        ];
        for text in wrong {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn without_tls_a_broker_is_on_this_machine_unless_development_says_otherwise() {
        let rows = [
            ("mqtt://localhost", false, true),
            ("mqtt://[::1]", false, true),
            ("mqtt://10.0.0.7", false, false),
            ("mqtt://10.0.0.7", true, true),
            ("mqtt://localhost.example", false, false),
        ];
        for (url, allowed, fine) in rows {
            let mut config = BrokerConfig::new(url.parse().unwrap());
            config.plain_beyond_loopback = allowed;
            assert_eq!(config.tls().is_ok(), fine, "{url} {allowed}");
        }
    }

    #[test]
    fn what_tls_lacks_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::Pki::open(dir.path()).unwrap();
        let own = pki.device(&"cloud".parse().unwrap()).unwrap();
        let other = pki.device(&"other".parse().unwrap()).unwrap();
        let none = dir.path().join("none.pem");
        let config = |ca: Option<&Path>, own: Option<(&Path, &Path)>| BrokerConfig {
            ca: ca.map(Path::to_owned),
            certificate: own.map(|(c, k)| (c.to_owned(), k.to_owned())),
            ..BrokerConfig::new("mqtts://localhost".parse().unwrap())
        };
        let (root, certificate) = (pki.root_path(), own.certificate_path.as_path());
        let key = own.private_key_path.as_path();
        assert!(config(Some(&root), None).tls().unwrap().is_some());
        let fine = config(Some(&root), Some((certificate, key)));
        assert!(fine.tls().is_ok());
        let rows = [
            (config(None, None), "needs the certificate"),
            (config(Some(&none), None), "none.pem"),
            (config(Some(key), None), "no certificate in PEM form"),
            (
                config(Some(&root), Some((certificate, &root))),
                "no private key in PEM form",
            ),
            (
                config(Some(&root), Some((certificate, &other.private_key_path))),
                "cloud.pem",
            ),
        ];
        for (config, words) in rows {
            let error = config.tls().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "s3cret\n").unwrap();
        let login = Login::from_file("otad", &path).unwrap();
        assert_eq!(login.password, "s3cret");
        assert!(!format!("{login:?}").contains("s3cret"));
    }
}
