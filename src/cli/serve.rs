//! `serve`: the gateway.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::admin::Admin;
use crate::clock::Clock;
use crate::config::{Config, Environment, LogFormat, LogLevel};
use crate::diagnostic::text;
use crate::endpoint::Endpoint;
use crate::issuer::Issuers;
use crate::policy::document::Source;
use crate::proxy::{Certificate, ConnectionLimits};
use crate::random::Random;
use crate::reload::load::{self, Loaded, load};
use crate::reload::publish::{Reloader, Surroundings};
use crate::reload::watch::{self, Timing};
use crate::secret::Secret;
use crate::server::services::{self, Keeper, Outside};
use crate::server::{self, Listening, Parts, SystemClock, SystemRandom};
use crate::telemetry::audit::Audit;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::logging::{self, Style};
use crate::telemetry::metrics::Metrics;

use super::exit::Exit;
use super::settings::Flag;
use super::{Global, Terminal, broken};

/// How long the end waits for the decision log's writer.
const FLUSH: Duration = Duration::from_secs(5);

/// Runs the gateway
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where to listen (`127.0.0.1:8080`)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the admin listener listens (`127.0.0.1:9901`)
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Failing tests do not reject a policy set
    #[arg(long)]
    no_test_gate: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: Arc<Environment>) -> Result<Exit, Exit> {
        let mut flags: Vec<Flag> = Vec::new();
        flags.extend(self.listen.clone().map(|address| ("listen", "--listen", address)));
        flags.extend(self.admin_listen.clone().map(|address| ("admin.listen", "--admin-listen", address)));
        flags.extend(self.log_level.clone().map(|level| ("log.level", "--log-level", level)));
        if self.no_test_gate {
            flags.push(("policies.test_gate", "--no-test-gate", "false".to_owned()));
        }
        let mut config = global.settings(terminal, &environment, &flags)?;
        match (global.quiet, global.verbose) {
            (true, _) => config.log.level = LogLevel::Warn,
            (_, 1) => config.log.level = LogLevel::Debug,
            (_, 2..) => config.log.level = LogLevel::Trace,
            _ => {}
        }
        start_logging(&config, terminal);
        run_gateway(config, environment, terminal, Vec::new(), |_| {})
    }
}

/// Sends what happens to the process to standard error from now on.
pub fn start_logging(config: &Config, terminal: Terminal) {
    let usual = if terminal.is_err_interactive() { LogFormat::Text } else { LogFormat::Json };
    let format = config.log.format.unwrap_or(usual);
    logging::init(config.log.level, Style { format, color: terminal.colors_err() }, Arc::new(SystemClock));
}

/// What is known about a gateway that is bound and about to serve.
#[derive(Clone, Debug)]
pub struct Started {
    /// The public addresses.
    pub addresses: Vec<SocketAddr>,
    /// The admin listener's address.
    pub admin: Option<SocketAddr>,
    /// Stops it from elsewhere.
    pub stopper: server::Stopper,
}

/// An endpoint with its socket, served beside the gateway.
pub type SideListener = (server::Socket, Arc<dyn Endpoint>);

/// Loads the policies and serves until a signal ends it, `sides` too. `ready` is called when all sockets are bound: what
/// connects from then on is answered. A set that does not load is shown, and nothing is served.
pub fn run_gateway(
    config: Config,
    environment: Arc<Environment>,
    terminal: Terminal,
    sides: Vec<SideListener>,
    ready: impl FnOnce(&Started),
) -> Result<Exit, Exit> {
    let environment = Arc::new(config.policy_environment(&environment));
    let options = load::Options { test_gate: config.policies.test_gate, ..load::Options::serve(&environment) };
    let loaded = load(&config.policies.path, &options);
    if loaded.tested.is_none() {
        let exit = broken(terminal, &loaded.diagnostics, &loaded.sources);
        if loaded.sources.files().iter().all(|file| file.text.is_empty()) {
            terminal.err(
                "\nno policies yet? `portcullis demo` shows some, and the README has fifteen lines to begin with\n",
            );
        }
        return Err(exit);
    }
    if !loaded.diagnostics.is_empty() {
        terminal.err(text::render(&loaded.diagnostics, &loaded.sources, terminal.colors_err()));
    }
    let failed = |message: &dyn std::fmt::Display| {
        terminal.err(format_args!("error: {message}\n"));
        Exit::Found
    };
    let runtime = server::runtime().map_err(|error| failed(&error))?;
    let built = runtime.block_on(build(&config, environment, loaded));
    let (mut gateway, started, decisions) = built.map_err(|message| failed(&message))?;
    for (socket, endpoint) in sides {
        gateway.side(socket, endpoint);
    }
    ready(&started);
    let served = runtime.block_on(gateway.run_until_signal());
    // A load that still reads files is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if !decisions.flush(FLUSH) || decisions.dropped() > 0 {
        tracing::warn!(dropped = decisions.dropped(), "the decision log is not complete");
    }
    served.map(|()| Exit::Fine).map_err(|error| failed(&error))
}

type Built = (server::Gateway, Started, Arc<DecisionLog>);

async fn build(config: &Config, environment: Arc<Environment>, loaded: Loaded) -> Result<Built, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let metrics = Arc::new(Metrics::new());
    let listeners = config
        .listeners
        .iter()
        .map(|listener| {
            let certificate = match &listener.tls {
                None => None,
                Some(tls) => {
                    let (chain, key) = (resolve(&tls.cert, &environment)?, resolve(&tls.key, &environment)?);
                    let certificate = Certificate::from_pem(chain.expose(), key.expose());
                    Some(certificate.map_err(|error| format!("listener {}: {error}", listener.address))?)
                }
            };
            Ok(Listening { address: listener.address, certificate })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let token = match &config.admin.token {
        None => None,
        Some(source) => {
            let bytes = resolve(source, &environment).map_err(|error| format!("`admin.token`: {error}"))?;
            let text = String::from_utf8_lossy(bytes.expose()).trim().to_owned();
            if text.len() < 16 {
                return Err("`admin.token` has fewer than 16 characters; `portcullis secret new` makes one".to_owned());
            }
            Some(Secret::new(text))
        }
    };
    let decisions = DecisionLog::start(&config.log, &*random)
        .map_err(|error| format!("the decision log cannot be opened: {error}"))?;
    let decisions = Arc::new(decisions);

    let files = loaded.sources.files().len();
    let surroundings = Surroundings {
        folder: config.policies.path.clone(),
        environment,
        test_gate: config.policies.test_gate,
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
    };
    let Some(reloader) = Reloader::start(surroundings, loaded) else {
        return Err("the policies do not load".to_owned());
    };
    let (policy, status) = (reloader.policy(), reloader.status());
    let issuers = Issuers::new(None, Arc::clone(&clock), Arc::clone(&random));
    let issuers = Arc::new(issuers.fetching(services::fetcher()).counting(Arc::clone(&metrics)));
    let outside = Outside {
        store: config.store.clone(),
        redis: config.redis.clone(),
        public_url: config.public_url.as_deref().map(Into::into),
        audit: Arc::new(Audit::new(Arc::clone(&decisions), Arc::clone(&metrics))),
        issuers,
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
    };
    let (services, keep) = Keeper::start(outside, Arc::clone(&policy)).await.map_err(|error| match error.help() {
        Some(help) => format!("{error}\n\nhelp: {help}"),
        None => error.to_string(),
    })?;
    let (live_policy, live_services) = (Arc::clone(&policy), Arc::clone(&services));
    let parts = Parts {
        services,
        listeners,
        connections: ConnectionLimits::default(),
        policy,
        trusted_proxies: config.trusted_proxies.clone(),
        country_header: config.country_header.as_ref().and_then(|name| name.parse().ok()),
        decisions: Arc::clone(&decisions),
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
        random,
    };
    let mut gateway = server::Gateway::build(parts).map_err(|error| error.to_string())?;
    gateway.task("services", keep);
    let stopper = gateway.stopper();
    let addresses = gateway.addresses();
    let (handle, requests) = watch::requests();
    let mut admin = None;
    if config.admin.enabled {
        let is_tls = config.listeners.iter().map(|listener| listener.tls.is_some());
        let stopping = gateway.stopper();
        let endpoint = Admin {
            status: Arc::clone(&status),
            policy: live_policy,
            services: live_services,
            stores: (config.store.to_string(), config.redis.as_ref().map(ToString::to_string)),
            reload: handle.clone(),
            metrics,
            decision_log: Arc::clone(&decisions),
            clock,
            is_stopping: Box::new(move || stopping.is_stopping()),
            token,
            address: config.admin.listen,
            listeners: addresses.iter().copied().zip(is_tls).collect(),
            not_acted_on: config.not_acted_on.clone(),
        };
        let socket = server::Socket::bind(config.admin.listen).map_err(|error| format!("admin listener: {error}"))?;
        admin = Some(socket.address());
        gateway.side(socket, Arc::new(endpoint));
    }
    let timing =
        Timing { watch: config.policies.watch, debounce: config.policies.debounce, poll: config.policies.poll };
    gateway.task("reload", async move {
        // Kept, so that the channel stays open where there is no admin listener.
        let _handle = handle;
        watch::run(reloader, requests, timing, std::future::pending()).await;
    });

    let status = status.snapshot();
    let mut listening = String::new();
    for (address, listener) in addresses.iter().zip(&config.listeners) {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        let separator = if listening.is_empty() { "" } else { ", " };
        let _ = write!(listening, "{separator}{scheme}://{address}");
    }
    tracing::info!(
        listen = listening,
        admin = admin.map_or_else(|| "off".to_owned(), |address| format!("http://{address}")),
        "portcullis {} listens",
        env!("CARGO_PKG_VERSION")
    );
    tracing::info!(
        rev = status.running,
        folder = %config.policies.path.display(),
        files,
        routes = status.routes,
        tests = status.tests,
        "policy loaded"
    );
    for key in &config.not_acted_on {
        tracing::warn!(key, "this build loads this setting and does not act on it");
    }
    Ok((gateway, Started { addresses, admin, stopper }, decisions))
}

/// The content behind `env:NAME` or `file:PATH`.
fn resolve(source: &Source, environment: &Environment) -> Result<Secret<Vec<u8>>, String> {
    match source {
        Source::Env(name) => match environment.get(name) {
            Some(value) => Ok(Secret::new(value.to_owned().into_bytes())),
            None => Err(format!("environment variable `{name}` is not set")),
        },
        Source::File(path) => match std::fs::read(Path::new(path)) {
            Ok(bytes) => Ok(Secret::new(bytes)),
            Err(error) => Err(format!("file `{path}` cannot be read: {error}")),
        },
        Source::Literal(text) => Ok(Secret::new(text.clone().into_bytes())),
    }
}
