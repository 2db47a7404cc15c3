//! `otad cloud`: the cloud in a box until it is told to end.

use std::net::SocketAddr;

use host_cloud::http::HttpConfig;
use host_cloud::{BrokerConfig, Cloud, CloudConfig, CloudError, Limits, Login};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{BrokerArgs, CloudArgs, LimitsArg};
use crate::console::{self, LogFormat};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) fn follow(args: &CloudArgs) -> Verb {
    console::start(&args.log, LogFormat::Text)?;
    tokio::runtime::Runtime::new()
        .map_err(|e| Failed::chain(Exit::Failed, "starting the runtime", &e))?
        .block_on(serve(args))
}

/// MQTT over TLS.
const PORT: u16 = 8883;

/// What the command line says about somebody else's broker.
pub(super) fn broker(args: &BrokerArgs) -> Result<Option<BrokerConfig>, Failed> {
    let wrong = |option: &str, e: &CloudError| Failed::chain(Exit::Usage, option, e);
    let Some(url) = &args.broker else {
        return Ok(None);
    };
    let url = url.parse().map_err(|e| wrong("--broker", &e))?;
    let login = match (&args.broker_user, &args.broker_password_file) {
        (Some(user), Some(file)) => {
            Some(Login::from_file(user, file).map_err(|e| wrong("--broker-password-file", &e))?)
        }
        (Some(user), None) => Some(Login {
            user: user.clone(),
            password: String::new(),
        }),
        (None, _) => None,
    };
    let certificate = args.broker_certificate.clone().zip(args.broker_key.clone());
    Ok(Some(BrokerConfig {
        client_id: args.broker_client_id.clone(),
        ca: args.broker_ca.clone(),
        certificate,
        login,
        plain_beyond_loopback: args.broker_plaintext,
        ..BrokerConfig::new(url)
    }))
}

async fn serve(args: &CloudArgs) -> Verb {
    let mut config = CloudConfig::new(&args.dir);
    config.broker = broker(&args.broker)?;
    // A broker takes the endpoint's place, unless both are asked for.
    let port = args
        .port
        .or_else(|| config.broker.is_none().then_some(PORT));
    config.tls = port.map(|port| SocketAddr::new(args.listen, port));
    config.limits = match args.limits {
        LimitsArg::Aws => Limits::Aws,
        LimitsArg::None => Limits::None,
    };
    config.server_names = args.names.clone();
    config.operators = args.operators;
    config.http = args
        .http
        .map(|port| HttpConfig::new(SocketAddr::new(args.listen, port)));
    let failed = |what: &str, e: &dyn std::error::Error| Failed::chain(Exit::Failed, what, e);
    // Before the first line is printed: whoever reads it may send a signal at once.
    let mut term =
        signal(SignalKind::terminate()).map_err(|e| failed("waiting for SIGTERM", &e))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|e| failed("waiting for SIGINT", &e))?;
    let cloud = Cloud::start(config).await.map_err(|e| {
        // Whoever has the directory may let go of it; everything else is the operator's to mend.
        let exit = match e {
            CloudError::InUse(_) => Exit::Retry,
            _ => Exit::Failed,
        };
        Failed::chain(exit, "starting the cloud", &e)
    })?;
    let info = cloud
        .operator()
        .info()
        .map_err(|e| failed("starting the cloud", &e))?;
    if let Some(endpoint) = cloud.tls_addr() {
        say(&format!("endpoint  {endpoint}"));
    }
    cloud.http_faults().set(args.http_faults.iter().copied());
    if let Some(url) = cloud.http_url() {
        say(&format!("images    {url}"));
    }
    if let Some(broker) = cloud.broker() {
        say(&format!("broker    {}", broker.borrow().url));
    }
    say(&format!("root      {}", info.root_path.display()));
    say(&format!("operator  {}", cloud.socket().display()));
    if let Some(address) = cloud.operators_addr() {
        let kit = args.dir.join("operator");
        say(&format!(
            "operators {address}, with a copy of {}",
            kit.display()
        ));
    }
    say(&format!(
        "next      otad thing create NAME --cloud {} --out NAME",
        args.dir.display()
    ));
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    cloud.shutdown().await;
    Ok(Exit::Done)
}
