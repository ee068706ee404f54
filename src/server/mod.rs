//! Composition: what the other parts are, put together and run.
//!
//! [`Gateway::build`] binds all sockets and needs a policy, so a gateway that runs can answer; [`Gateway::run`]
//! serves until it is told to stop. Tests build the same thing on port 0 and stop it through its [`Stopper`].
//! Pingora's own `Server` is not used: it forks, sleeps through its grace period and ends the process itself.

pub mod crypto;
mod files;
pub mod services;
mod shutdown;
mod sockets;
mod system;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::live::Live;
use crate::pipeline::{Pipeline, Services, Settings};
use crate::policy::set::PolicySet;
use crate::proxy::{Addresses, Certificate, ConnectionLimits, Gate, Listener, Side, Stop, TlsError};
use crate::random::Random;
use crate::request::forwarded::TrustedProxies;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;

use self::services::Outside;
pub use sockets::{BindError, Socket};
pub use system::{SystemClock, SystemRandom};

/// An HTTP/2 connection without a stream is closed after this time.
const H2_IDLE: Duration = Duration::from_secs(60);
/// After so many requests a connection is closed, so that its memory is given back.
const REQUESTS_PER_CONNECTION: u32 = 10_000;
/// Connections to upstreams that are kept for the next request.
const POOL: usize = 512;
/// How often connecting to an upstream is tried.
const ATTEMPTS: usize = 3;

/// One public listener.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// The certificate, where the listener speaks TLS.
    pub certificate: Option<Certificate>,
}

/// What a gateway is made of.
#[derive(Debug)]
pub struct Parts {
    /// The public listeners.
    pub listeners: Vec<Listening>,
    /// What connections may do.
    pub connections: ConnectionLimits,
    /// The policy; whoever reloads publishes here.
    pub policy: Arc<Live<PolicySet>>,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted_proxies: TrustedProxies,
    /// The header in which a trusted proxy names the client's country.
    pub country_header: Option<HeaderName>,
    /// Where decisions are logged.
    pub decisions: Arc<DecisionLog>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
    /// Keys, revocations and login endpoints.
    pub services: Arc<Live<Services>>,
}

impl Parts {
    /// A gateway with the system's time and randomness, without log, that listens where the system chooses.
    pub fn new(policy: Arc<Live<PolicySet>>) -> Self {
        let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let outside = Outside::without_store(Arc::clone(&clock), Arc::clone(&random));
        Self {
            services: Arc::new(Live::new(Services::without_store(&outside))),
            listeners: vec![Listening { address: SocketAddr::from(([127, 0, 0, 1], 0)), certificate: None }],
            connections: ConnectionLimits::default(),
            policy,
            trusted_proxies: TrustedProxies::default(),
            country_header: None,
            decisions: Arc::new(DecisionLog::none()),
            metrics: Arc::new(Metrics::new()),
            clock,
            random,
        }
    }
}

/// Why a gateway cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(BindError),
    /// A listener's certificate cannot be used.
    Tls(TlsError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A gateway that is bound and does not serve yet.
pub struct Gateway {
    public: Vec<(Socket, Option<Arc<Acceptor>>)>,
    sides: Vec<(Socket, Arc<dyn Endpoint>)>,
    tasks: Vec<(&'static str, Task)>,
    connections: ConnectionLimits,
    pipeline: Arc<Pipeline>,
    stop: watch::Sender<Stop>,
}

/// Stops a gateway from elsewhere.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<Stop>);

impl Stopper {
    /// Nothing more is accepted, idle connections end; what is in flight is cut off after `grace`.
    pub fn stop(&self, grace: Duration) {
        self.0.send_replace(Stop::Within(grace));
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() != Stop::Not
    }
}

impl Gateway {
    /// Binds all public sockets.
    pub fn build(parts: Parts) -> Result<Self, StartError> {
        crypto::install();
        let mut public = Vec::with_capacity(parts.listeners.len());
        for listener in parts.listeners {
            let acceptor = listener.certificate.map(|certificate| certificate.acceptor()).transpose()?;
            public.push((Socket::bind(listener.address)?, acceptor));
        }
        let settings = Settings {
            clock: parts.clock,
            random: parts.random,
            trusted_proxies: parts.trusted_proxies,
            country_header: parts.country_header,
            decisions: parts.decisions,
            metrics: parts.metrics,
            services: parts.services,
        };
        let pipeline = Arc::new(Pipeline::new(parts.policy, settings));
        let (sides, tasks, connections) = (Vec::new(), Vec::new(), parts.connections);
        Ok(Self { public, sides, tasks, connections, pipeline, stop: watch::Sender::new(Stop::Not) })
    }

    /// The public addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.public.iter().map(|(socket, _)| socket.address()).collect()
    }

    /// Adds an endpoint on a listener of its own.
    pub fn side(&mut self, socket: Socket, endpoint: Arc<dyn Endpoint>) {
        self.sides.push((socket, endpoint));
    }

    /// Adds work that runs beside the requests and ends with the gateway.
    pub fn task(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push((name, Box::pin(task)));
    }

    /// What stops this gateway.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Serves until it is told to stop, then returns when the last connection has ended.
    pub async fn run(self) -> io::Result<()> {
        let Self { public, sides, tasks, mut connections, pipeline, stop } = self;
        connections.connections = connections.connections.min(files::for_clients(files::raise()));
        let addresses = Arc::new(Addresses::default());
        let app = Arc::new(proxy(pipeline, Arc::clone(&addresses)));

        let mut background = JoinSet::new();
        background.spawn(async move { addresses.keep_fresh().await });
        for (name, task) in tasks {
            background.spawn(async move {
                task.await;
                tracing::debug!(task = name, "background task ended");
            });
        }
        let mut serving = JoinSet::new();
        for (socket, tls) in public {
            let listener = Listener { socket: socket.into_tokio()?, tls, limits: connections };
            serving.spawn(listener.serve(Arc::clone(&app), stop.subscribe()));
        }
        for (socket, endpoint) in sides {
            let listener = Listener { socket: socket.into_tokio()?, tls: None, limits: connections };
            serving.spawn(listener.serve(Arc::new(Side::new(endpoint)), stop.subscribe()));
        }
        while let Some(ended) = serving.join_next().await {
            if ended.is_err() {
                tracing::error!("a listener panicked, stopping");
                stop.send_replace(Stop::Within(Duration::ZERO));
            }
        }
        background.shutdown().await;
        Ok(())
    }

    /// Serves until SIGTERM or SIGINT.
    pub async fn run_until_signal(self) -> io::Result<()> {
        let signals = shutdown::Signals::listen()?;
        let stop = self.stop.clone();
        let serving = self.run();
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => ended,
            () = signals.forward(&stop) => serving.await,
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// A runtime for a gateway: a worker for each core.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("portcullis").build()
}

fn proxy(pipeline: Arc<Pipeline>, addresses: Arc<Addresses>) -> HttpProxy<Gate> {
    let configuration = ServerConf {
        max_retries: ATTEMPTS, // attempts, the first included
        upstream_keepalive_pool_size: POOL,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(Gate::new(pipeline, addresses), Arc::new(configuration));
    proxy.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.keepalive_request_limit = Some(REQUESTS_PER_CONNECTION);
    options.h2_idle_timeout = Some(H2_IDLE);
    proxy.server_options = Some(options);
    proxy.h2_options = Some(default_h2_options()); // 100 streams, a header list of 64 KiB
    proxy
}
