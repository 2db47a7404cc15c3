//! `otad cloud`: the cloud in a box until it is told to end.

use std::net::SocketAddr;

use host_cloud::{Cloud, CloudConfig, Limits};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{CloudArgs, LimitsArg};
use crate::console::{self, LogFormat};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) fn follow(args: &CloudArgs) -> Verb {
    console::start(&args.log, LogFormat::Text)?;
    tokio::runtime::Runtime::new()
        .map_err(|e| Failed::chain(Exit::Failed, "starting the runtime", &e))?
        .block_on(serve(args))
}

async fn serve(args: &CloudArgs) -> Verb {
    let mut config = CloudConfig::new(&args.dir);
    config.tls = Some(SocketAddr::new(args.listen, args.port));
    config.limits = match args.limits {
        LimitsArg::Aws => Limits::Aws,
        LimitsArg::None => Limits::None,
    };
    if !args.listen.is_loopback() && !args.listen.is_unspecified() {
        config.server_names.push(args.listen.to_string());
    }
    let failed = |what: &str, e: &dyn std::error::Error| Failed::chain(Exit::Failed, what, e);
    // Before the first line is printed: whoever reads it may send a signal at once.
    let mut term =
        signal(SignalKind::terminate()).map_err(|e| failed("waiting for SIGTERM", &e))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|e| failed("waiting for SIGINT", &e))?;
    let cloud = Cloud::start(config)
        .await
        .map_err(|e| failed("starting the cloud", &e))?;
    let info = cloud
        .operator()
        .info()
        .map_err(|e| failed("starting the cloud", &e))?;
    if let Some(endpoint) = cloud.tls_addr() {
        say(&format!("endpoint  {endpoint}"));
    }
    say(&format!("root      {}", info.root_path.display()));
    say(&format!("operator  {}", cloud.socket().display()));
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
