//! The mosquitto broker, as somebody else's MQTT implementation to test against.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::deadline::PATIENCE;
use crate::process::Process;
use crate::{Error, interop, net, temp_dir};

/// How often another port is tried when somebody else took the one that was free.
const PORT_TRIES: u32 = 5;

/// PEM files for a listener that wants client certificates.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificates that clients' certificates are checked against.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

/// How a broker is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// TLS with client certificates, whose common names are the user names.
    pub tls: Option<TlsFiles>,
    /// Who may use which topics, as mosquitto's `acl_file` has it; everybody everything if left out.
    pub access: Option<String>,
    /// Its log says nothing of single messages, for who measures what they cost; else it says all.
    pub quiet: bool,
    /// More lines of `mosquitto.conf`.
    pub lines: String,
}

/// A running broker on a loopback port; dropping it kills it.
#[derive(Debug)]
pub struct Mosquitto {
    program: PathBuf,
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Mosquitto {
    /// Starts a broker, with client certificates required if `tls` is given. None = it is not installed, which has been
    /// said.
    ///
    /// # Errors
    /// It is installed and does not come up.
    pub fn start(tls: Option<&TlsFiles>) -> Result<Option<Self>, Error> {
        Self::start_with(&Setup {
            tls: tls.cloned(),
            ..Setup::default()
        })
    }

    /// Starts a broker that is set up in detail. None = it is not installed, which has been said.
    ///
    /// # Errors
    /// It is installed and does not come up.
    pub fn start_with(setup: &Setup) -> Result<Option<Self>, Error> {
        let Some(program) = interop::program("mosquitto") else {
            return Ok(None);
        };
        let dir = temp_dir("mosquitto")?;
        for _ in 1..PORT_TRIES {
            let port = net::free_port()?;
            if let Ok(process) = launch(&program, &dir, port, setup) {
                return Ok(Some(Self {
                    program,
                    process,
                    port,
                    dir,
                }));
            }
        }
        let port = net::free_port()?;
        let process = launch(&program, &dir, port, setup)?;
        Ok(Some(Self {
            program,
            process,
            port,
            dir,
        }))
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts it again on its port after [`kill`](Self::kill).
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.process = run(&self.program, &self.dir)?;
        Ok(())
    }

    /// Kills it and starts it again on its port: all sessions are gone.
    ///
    /// # Errors
    /// It does not end or does not come up.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        self.start_again()
    }

    /// Kills it for good.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&self) -> Result<(), Error> {
        self.process.kill(PATIENCE).map(|_| ())
    }

    /// Its log so far: who connected, and what was subscribed and published unless it is [quiet](Setup::quiet).
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.process
            .lines()
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    /// Waits for a line of its log behind the one found last.
    ///
    /// # Errors
    /// As [`Process::wait_line`].
    pub fn wait_log(&mut self, text: &str) -> Result<String, Error> {
        self.process.wait_line(text, PATIENCE)
    }
}

fn launch(program: &PathBuf, dir: &TempDir, port: u16, setup: &Setup) -> Result<Process, Error> {
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).map_err(Error::io(format!("writing {name}")))
    };
    let mut text = configuration(port, setup);
    if let Some(access) = &setup.access {
        write("access", access)?;
        text += &format!("acl_file {}\n", dir.path().join("access").display());
    }
    text += &setup.lines;
    write("mosquitto.conf", &text)?;
    run(program, dir)
}

fn run(program: &PathBuf, dir: &TempDir) -> Result<Process, Error> {
    let mut command = Command::new(program);
    command.arg("-c").arg(dir.path().join("mosquitto.conf"));
    let mut process = Process::start("mosquitto", command)?;
    // Its last word before the event loop; after it the port is bound.
    process.wait_match("running", PATIENCE, |line| {
        line.text.contains("mosquitto") && line.text.ends_with("running")
    })?;
    Ok(process)
}

fn configuration(port: u16, setup: &Setup) -> String {
    let mut text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n\
         connection_messages true\nset_tcp_nodelay true\n"
    );
    // That it runs is an information; what comes and goes is there for debugging.
    let types: &[&str] = match setup.quiet {
        true => &["error", "warning", "notice", "information"],
        false => &["all"],
    };
    for kind in types {
        text += &format!("log_type {kind}\n");
    }
    // Started by root it would become somebody who cannot read a test's files.
    if rustix::process::geteuid().is_root() {
        text += "user root\n";
    }
    if let Some(tls) = &setup.tls {
        text += &format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n",
            tls.ca.display(),
            tls.cert.display(),
            tls.key.display()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    /// CONNECT of MQTT 3.1.1, clean session, keep-alive 60 s, client id `x`.
    const CONNECT: &[u8] = &[
        0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'x',
    ];

    #[test]
    fn a_broker_answers_a_connect_also_after_a_restart() {
        let Some(mut broker) = Mosquitto::start(None).unwrap() else {
            return;
        };
        for _ in 0..2 {
            let mut client = TcpStream::connect(broker.addr()).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(CONNECT).unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [0x20, 2, 0, 0]);
            broker.wait_log("New client connected").unwrap();
            broker.restart().unwrap();
        }
    }
}
