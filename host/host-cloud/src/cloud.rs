//! A running cloud: starts everything, and stops it.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    broker::{BrokerConfig, BrokerStatus, Link},
    core::Core,
    endpoint,
    error::CloudError,
    fault::{Faults, NoFaults},
    http::{self, HttpConfig, HttpFaults},
    limits::Limits,
    operator::{self, Operator, Remote},
    pki::Credentials,
    service::{ImageId, ThingName, UrlSource},
    stats::CloudStats,
};

/// File name of the operator socket in the cloud's directory.
const SOCKET: &str = "operator.sock";

/// What a cloud is to be.
pub struct CloudConfig {
    /// Where it keeps everything; made if missing, with mode 0700. One cloud a directory.
    pub dir: PathBuf,
    /// Address for MQTT over TLS; port 0 takes any.
    pub tls: Option<SocketAddr>,
    /// Address for MQTT without TLS: who connects there may speak for every thing.
    pub plain: Option<SocketAddr>,
    /// Allows `plain` beyond loopback: for development only, and said at every start.
    pub plain_beyond_loopback: bool,
    /// Somebody else's broker to answer at, besides or in place of listening.
    pub broker: Option<BrokerConfig>,
    /// Names and addresses its certificate is valid for, besides this machine's own.
    pub server_names: Vec<String>,
    /// Limits it enforces.
    pub limits: Limits,
    /// Faults on purpose.
    pub faults: Box<dyn Faults>,
    /// Things to register at the start, as far as they are new.
    pub things: Vec<ThingName>,
    /// Images by pre-signed URL besides streams; none = updates have no URLs.
    pub http: Option<HttpConfig>,
    /// Where operators of other machines come in, with the token that lies in `<dir>/operator`.
    pub operators: Option<SocketAddr>,
    /// Operator socket; `<dir>/operator.sock` if left out.
    pub socket: Option<PathBuf>,
}

impl CloudConfig {
    /// A cloud with TLS on any loopback port, AWS's limits and nothing else.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            tls: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            plain: None,
            plain_beyond_loopback: false,
            broker: None,
            server_names: Vec::new(),
            limits: Limits::Aws,
            faults: Box::new(NoFaults),
            things: Vec::new(),
            http: None,
            operators: None,
            socket: None,
        }
    }
}

/// Starts clouds.
pub struct Cloud;

impl Cloud {
    /// Starts a cloud on the running tokio runtime.
    ///
    /// # Errors
    /// The directory is in use or damaged, an address cannot be listened on, a certificate cannot be made.
    pub async fn start(config: CloudConfig) -> Result<CloudHandle, CloudError> {
        check_addresses(&config)?;
        let names = server_names(&config);
        let core = Core::open(&config.dir, config.limits, config.faults)?;
        let (stop, stopped) = watch::channel(false);
        let (stop_store, store_stopped) = watch::channel(false);
        let (mut tasks, mut store) = (JoinSet::new(), JoinSet::new());
        store.spawn(Arc::clone(&core).run_store(store_stopped));
        tasks.spawn(Arc::clone(&core).run_timers(stopped.clone()));
        tasks.spawn(Arc::clone(&core).run_images(stopped.clone()));
        for thing in &config.things {
            core.ensure_thing(thing).await?;
        }
        let seats = Arc::new(Semaphore::new(endpoint::connections()?));
        let tls = match config.tls {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let plain = match config.plain {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let (tls_address, plain_address) = (local(tls.as_ref())?, local(plain.as_ref())?);
        if let Some(listener) = tls {
            let identity = core.pki().server(&names)?;
            let server = endpoint::server_config(identity, &core)?;
            tasks.spawn(endpoint::listen(
                listener,
                Some(TlsAcceptor::from(server)),
                Arc::clone(&core),
                Arc::clone(&seats),
                stopped.clone(),
            ));
        }
        if let Some(listener) = plain {
            tasks.spawn(endpoint::listen(
                listener,
                None,
                Arc::clone(&core),
                Arc::clone(&seats),
                stopped.clone(),
            ));
        }
        let http_faults = HttpFaults::default();
        let mut http_addr = None;
        let http = match &config.http {
            Some(http) => {
                let url = serve_images(
                    http,
                    &config.server_names,
                    &core,
                    &names,
                    &http_faults,
                    &seats,
                );
                let (url, address, server) = url.await?;
                http_addr = Some(address);
                tasks.spawn(server(stopped.clone()));
                Some(url)
            }
            None => None,
        };
        let broker = match &config.broker {
            Some(broker) => {
                let link = Link::start(broker, &core, &mut tasks, stopped.clone())?;
                core.hub.bridge(link.outbox);
                Some((broker.clone(), link.status))
            }
            None => None,
        };
        let status = broker.as_ref().map(|(_, status)| status.clone());
        let operator = Operator::new(
            Arc::clone(&core),
            tls_address,
            config.server_names.first().cloned(),
            plain_address,
            http.clone(),
            broker,
        );
        let operators = match config.operators {
            Some(address) => {
                let (identity, root) = {
                    let pki = core.pki();
                    (pki.server(&names)?, pki.root_pem().to_owned())
                };
                let host = host_of(&config.server_names, address.ip());
                let remote = Remote::bind(&config.dir, address, &host, &root, identity).await?;
                let address = remote.address();
                tasks.spawn(remote.serve(operator.clone(), stopped.clone()));
                address
            }
            None => None,
        };
        let socket = config.socket.unwrap_or_else(|| config.dir.join(SOCKET));
        let listener = operator::bind(&socket)?;
        tasks.spawn(operator::serve(listener, operator.clone(), stopped));
        tracing::info!(
            tls = tls_address.map(tracing::field::display),
            broker = config.broker.map(|broker| tracing::field::display(broker.url)),
            plain = plain_address.map(tracing::field::display),
            dir = %config.dir.display(),
            "cloud started"
        );
        Ok(CloudHandle {
            core,
            operator,
            http,
            http_addr,
            http_faults,
            tls: tls_address,
            plain: plain_address,
            broker: status,
            operators,
            socket,
            stop,
            tasks,
            stop_store,
            store,
        })
    }
}

/// A running cloud. Dropped, it stops at once; [`CloudHandle::shutdown`] stops it in order.
pub struct CloudHandle {
    core: Arc<Core>,
    operator: Operator,
    http: Option<String>,
    http_addr: Option<SocketAddr>,
    http_faults: HttpFaults,
    tls: Option<SocketAddr>,
    plain: Option<SocketAddr>,
    broker: Option<watch::Receiver<BrokerStatus>>,
    operators: Option<SocketAddr>,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    stop_store: watch::Sender<bool>,
    store: JoinSet<()>,
}

impl CloudHandle {
    /// Address of MQTT over TLS.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// Address of MQTT without TLS.
    #[must_use]
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.plain
    }

    /// What the URLs of images begin with, such as `https://localhost:8444`.
    #[must_use]
    pub fn http_url(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// Where the image server listens.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// A URL of an image, as a job document that leaves now would have it.
    #[must_use]
    pub fn image_url(&self, image: &ImageId) -> Option<String> {
        let now_ms = self.core.now_ms();
        self.core.look(|service| service.url(now_ms, image))
    }

    /// Faults of the image server.
    #[must_use]
    pub fn http_faults(&self) -> &HttpFaults {
        &self.http_faults
    }

    /// How the connection to somebody else's broker stands, and every change of it.
    #[must_use]
    pub fn broker(&self) -> Option<watch::Receiver<BrokerStatus>> {
        self.broker.clone()
    }

    /// Address where operators of other machines come in.
    #[must_use]
    pub fn operators_addr(&self) -> Option<SocketAddr> {
        self.operators
    }

    /// File of the operator socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The operator's calls.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Registers a thing, or finds it, and gives its credentials: new ones where those it had were detached.
    ///
    /// # Errors
    /// They cannot be made or stored.
    pub async fn thing_create(&self, name: &ThingName) -> Result<Credentials, CloudError> {
        Ok(self.core.ensure_thing(name).await?.0)
    }

    /// The cloud's certificate and key for signing images; made on first use.
    ///
    /// # Errors
    /// They cannot be made or stored.
    pub fn code_signing(&self) -> Result<Credentials, CloudError> {
        self.core.pki().code_signing()
    }

    /// What the cloud has counted.
    #[must_use]
    pub fn stats(&self) -> CloudStats {
        self.core.stats()
    }

    /// Milliseconds since the epoch, as the cloud counts them: for faults that have a time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.core.now_ms()
    }

    /// Puts other faults in force.
    pub fn set_faults(&self, faults: Box<dyn Faults>) {
        self.core.set_faults(faults);
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.core.hub.cut();
    }

    /// Lets every connection stand still, half open, for a while.
    pub fn stall(&self, time: Duration) {
        self.core.hub.stall(tokio::time::Instant::now() + time);
    }

    #[cfg(test)]
    pub(crate) fn core_for_tests(&self) -> &Core {
        &self.core
    }

    #[cfg(test)]
    pub(crate) fn core_arc_for_tests(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// Ends all connections, stores the state and stops.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        // Last: until now somebody may have waited for it.
        self.stop_store.send_replace(true);
        while self.store.join_next().await.is_some() {}
        crate::file::remove_quietly(&self.socket);
    }
}

type Server =
    Box<dyn FnOnce(watch::Receiver<bool>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Binds the image server and lets the service make URLs; what they begin with, and what runs it.
async fn serve_images(
    http: &HttpConfig,
    said: &[String],
    core: &Arc<Core>,
    names: &[String],
    faults: &HttpFaults,
    seats: &Arc<Semaphore>,
) -> Result<(String, SocketAddr, Server), CloudError> {
    if !http::VALID_S_RANGE.contains(&http.valid_s) {
        return Err(CloudError::UrlValidity(http.valid_s));
    }
    if http.plain && !http.address.ip().is_loopback() {
        return Err(CloudError::PlainImages(http.address));
    }
    let listener = bind(http.address).await?;
    let address = local(Some(&listener))?.unwrap_or(http.address);
    let url = base_url(http, said, address);
    let dir = core.dir().join("pki");
    let tls = match http.plain {
        true => None,
        false => Some(http::server_config(core.pki().server(names)?)?),
    };
    let signer = Arc::new(http::Signer::open(&dir, url.clone(), http.valid_s)?);
    core.serve_urls(Arc::clone(&signer) as Arc<dyn UrlSource>);
    let clock = Arc::clone(core);
    let site = Arc::new(http::Site {
        signer,
        images: core.images(),
        faults: faults.clone(),
        ranges: core.ranges(),
        now_ms: Box::new(move || clock.now_ms()),
    });
    let seats = Arc::clone(seats);
    let server: Server = Box::new(move |stop| {
        Box::pin(http::listen(
            listener,
            tls.map(TlsAcceptor::from),
            site,
            seats,
            stop,
        ))
    });
    Ok((url, address, server))
}

fn base_url(http: &HttpConfig, said: &[String], address: SocketAddr) -> String {
    let host = http.host.clone();
    let host = host.unwrap_or_else(|| host_of(said, address.ip()));
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host,
    };
    let scheme = if http.plain { "http" } else { "https" };
    format!(
        "{scheme}://{host}:{}",
        http.port.unwrap_or_else(|| address.port())
    )
}

/// What clients call it by: as was said, since only who says it knows what lies between them.
fn host_of(said: &[String], ip: IpAddr) -> String {
    match said.first() {
        Some(name) => name.clone(),
        None if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
        None => ip.to_string(),
    }
}

fn check_addresses(config: &CloudConfig) -> Result<(), CloudError> {
    if config.tls.is_none() && config.plain.is_none() && config.broker.is_none() {
        return Err(CloudError::NoListener);
    }
    if let Some(address) = config.plain
        && !endpoint::is_loopback(address)
    {
        if !config.plain_beyond_loopback {
            return Err(CloudError::PlainBeyondLoopback(address));
        }
        tracing::warn!(
            %address,
            "DEVELOPMENT SETTING: everybody who reaches this address may speak for every thing"
        );
    }
    Ok(())
}

/// What its certificate is valid for: what was said, what the URLs of images name, and where devices, operators and those
/// who fetch images come in.
fn server_names(config: &CloudConfig) -> Vec<String> {
    let mut names = config.server_names.clone();
    let http = config.http.as_ref();
    let addresses = [config.tls, config.operators, http.map(|http| http.address)];
    let addresses = addresses.iter().flatten().map(SocketAddr::ip);
    let addresses = addresses.filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    let host = http.and_then(|http| http.host.clone());
    for name in host.into_iter().chain(addresses.map(|ip| ip.to_string())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CloudError> {
    let failed = |error: std::io::Error| CloudError::Listen {
        address,
        reason: error.to_string(),
    };
    TcpListener::bind(address).await.map_err(failed)
}

fn local(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>, CloudError> {
    listener
        .map(TcpListener::local_addr)
        .transpose()
        .map_err(|error| CloudError::Listen {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            reason: error.to_string(),
        })
}
