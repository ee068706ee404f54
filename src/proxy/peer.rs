//! Where a permitted request goes: the upstream's address, its TLS, its times.
//!
//! Addresses are looked up beside the requests, in [`Addresses::keep_fresh`]: Pingora's own look-up blocks a
//! thread and panics where it fails.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::header::TE;
use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use tokio::time::timeout;

use super::context::Passing;
use super::tls;
use super::websocket::Patient;
use crate::decision::{Denial, Permit, Reason};
use crate::live::Live;
use crate::policy::set::{Destination, Upstream};

/// The time for one look-up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How long a name that was not found is not looked up again.
const RETRY: Duration = Duration::from_secs(2);
/// How often known names are looked up again.
const REFRESH: Duration = Duration::from_secs(30);
/// The time to connect to one address.
const CONNECT: Duration = Duration::from_secs(5);
/// The time for TCP and TLS together.
const CONNECT_TOTAL: Duration = Duration::from_secs(10);
/// How long an unused connection to an upstream is kept. Common servers close at five seconds, and a request on a
/// connection that is being closed cannot be repeated unless its method is idempotent.
const IDLE: Duration = Duration::from_secs(4);
/// How long a WebSocket may be silent where nothing ends it earlier.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How many different sets of CA certificates are kept parsed.
const CAS: usize = 64;

/// The addresses of upstreams.
#[derive(Debug)]
pub struct Addresses {
    known: Live<HashMap<Name, Arc<[SocketAddr]>>>,
    /// Held while `known` is replaced; when which name was not found last.
    changing: tokio::sync::Mutex<HashMap<Name, Instant>>,
    turn: AtomicUsize,
    cas: Mutex<HashMap<Vec<u8>, Arc<CaType>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    host: String,
    port: u16,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            known: Live::new(HashMap::new()),
            changing: tokio::sync::Mutex::default(),
            turn: AtomicUsize::default(),
            cas: Mutex::default(),
        }
    }
}

impl Addresses {
    /// The address for the given attempt; each further attempt takes another one, if there is one.
    async fn of(&self, upstream: &Upstream, attempt: usize) -> Option<(SocketAddr, usize)> {
        let host = upstream.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some((SocketAddr::new(address, upstream.port), 1));
        }
        let name = Name { host: upstream.host.clone(), port: upstream.port };
        let known = self.known.snapshot().get(&name).cloned();
        let addresses = match known {
            Some(addresses) => addresses,
            None => self.learn(name).await?,
        };
        let turn = if attempt == 0 { self.turn.fetch_add(1, Ordering::Relaxed) } else { attempt };
        let address = addresses.get(turn.checked_rem(addresses.len())?).copied()?;
        Some((address, addresses.len()))
    }

    /// Looks a name up for the first time; requests for it wait for each other, and share a failure for a moment.
    async fn learn(&self, name: Name) -> Option<Arc<[SocketAddr]>> {
        let mut missing = self.changing.lock().await;
        if let Some(addresses) = self.known.snapshot().get(&name) {
            return Some(Arc::clone(addresses));
        }
        if missing.get(&name).is_some_and(|since| since.elapsed() < RETRY) {
            return None;
        }
        let Some(addresses) = look_up(&name).await else {
            missing.retain(|_, since| since.elapsed() < RETRY);
            missing.insert(name, Instant::now());
            return None;
        };
        let mut known = HashMap::clone(&self.known.snapshot());
        known.insert(name, Arc::clone(&addresses));
        self.known.publish(known);
        Some(addresses)
    }

    /// Looks all known names up again, for ever. A name that cannot be found keeps its addresses.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            let names: Vec<Name> = self.known.snapshot().keys().cloned().collect();
            for name in names {
                let Some(addresses) = look_up(&name).await else {
                    tracing::warn!(upstream.host = name.host, "upstream not found in DNS, its last address stays");
                    continue;
                };
                let _changing = self.changing.lock().await;
                let mut known = HashMap::clone(&self.known.snapshot());
                known.insert(name, addresses);
                self.known.publish(known);
            }
        }
    }

    fn ca(&self, pem: &[u8]) -> Option<Arc<CaType>> {
        let mut cas = self.cas.lock();
        if let Some(ca) = cas.get(pem) {
            return Some(Arc::clone(ca));
        }
        let ca = tls::authorities(pem)?;
        if cas.len() >= CAS {
            cas.clear();
        }
        cas.insert(pem.to_vec(), Arc::clone(&ca));
        Some(ca)
    }
}

/// IPv4 first: many servers listen on 127.0.0.1 only, and `localhost` is both.
async fn look_up(name: &Name) -> Option<Arc<[SocketAddr]>> {
    let found = timeout(LOOK_UP, tokio::net::lookup_host((name.host.as_str(), name.port))).await.ok()?.ok()?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    if addresses.is_empty() { None } else { Some(addresses.into()) }
}

/// The peer of a permitted request for the given attempt, and how many addresses there are to try.
pub(super) async fn of(
    addresses: &Addresses,
    permit: &Permit,
    passing: &Passing,
    attempt: usize,
    te: Option<&http::HeaderValue>,
) -> Result<(HttpPeer, usize), Denial> {
    let Destination::Upstream(id) = permit.destination() else {
        return Err(unreachable("the route has no upstream"));
    };
    let upstream = permit.policy().upstream(id).ok_or_else(|| unreachable("the route has no upstream"))?;
    let (address, count) = addresses
        .of(upstream, attempt)
        .await
        .ok_or_else(|| unreachable(&format!("`{}` is not found in DNS", upstream.host)))?;

    let mut peer = HttpPeer::new(address, upstream.tls, sni(upstream));
    let options = &mut peer.options;
    let route = permit.route();
    options.connection_timeout = Some(CONNECT.min(route.timeout));
    options.total_connection_timeout = Some(CONNECT_TOTAL.min(route.timeout));
    options.read_timeout = Some(route.timeout);
    options.write_timeout = Some(route.timeout);
    options.idle_timeout = Some(IDLE);
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    if passing.websocket {
        let life = passing.closes.map_or(DAY, |closes| closes.saturating_duration_since(Instant::now()));
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
        options.read_timeout = Some(life);
        options.write_timeout = Some(life);
        options.custom_l4 = Some(Arc::new(Patient { patience: CONNECT.min(route.timeout) }));
    }
    if upstream.tls {
        options.verify_cert = !upstream.insecure;
        options.verify_hostname = !upstream.insecure;
        if let Some(pem) = &upstream.ca {
            let ca = addresses.ca(pem).ok_or_else(|| unreachable("its `ca` has no certificate that can be read"))?;
            options.ca = Some(ca);
            // Pingora's pool does not tell peers apart by their CA: without this a connection that one CA vouches
            // for would serve an upstream that trusts another.
            peer.group_key = hash_of(pem);
        }
        // gRPC says `te: trailers` and works over HTTP/2 alone; all else goes over HTTP/1.1.
        if te.is_some_and(|te| te == "trailers") && !passing.websocket {
            peer.options.alpn = ALPN::H2H1;
            peer.options.max_h2_streams = 100;
        }
    }
    if passing.websocket {
        // Not shared: another connection of the pool was not made by `Patient`.
        peer.group_key = hash_of(passing.id().as_bytes());
    }
    Ok((peer, count))
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// With an empty name Pingora verifies nothing at all.
fn sni(upstream: &Upstream) -> String {
    match (upstream.tls, upstream.server_name.is_empty()) {
        (false, _) => String::new(),
        (true, false) => upstream.server_name.clone(),
        (true, true) => "invalid.".to_owned(),
    }
}

fn unreachable(cause: &str) -> Denial {
    Denial::new(Reason::BadGateway, "the service behind the gateway cannot be reached").because(cause)
}

/// Whether a request asks for HTTP/2 towards its upstream.
pub(super) fn te(head: &http::HeaderMap) -> Option<&http::HeaderValue> {
    head.get(TE)
}
