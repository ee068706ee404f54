//! Whether the apps behind the gateway answer, and to whom else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::cli::token::is_loopback;
use crate::fetch::{Fetched, Fetcher, Options};
use crate::policy::set::Upstream;

use super::report::{Finding, Section};
use super::{Looked, Named, World};

const SECTION: Section = Section::Upstreams;
/// How much of an answer is read; the rest does not matter.
const MOST: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(2);

/// One task for each upstream.
pub(super) fn tasks(world: &World, fetcher: &Fetcher) -> Vec<Named> {
    let Some(policy) = world.policy() else { return Vec::new() };
    let listeners: Vec<SocketAddr> = world.config.listeners.iter().map(|listener| listener.address).collect();
    let mut tasks: Vec<Named> = Vec::new();
    for upstream in policy.upstreams.iter().filter(|upstream| !upstream.host.is_empty()) {
        let (upstream, fetcher, listeners) = (upstream.clone(), fetcher.clone(), listeners.clone());
        let name = format!("{}:{}", upstream.host, upstream.port);
        tasks.push((name.clone(), Box::pin(async move { look(&upstream, &name, &fetcher, &listeners).await })));
    }
    tasks
}

async fn look(upstream: &Upstream, name: &str, fetcher: &Fetcher, listeners: &[SocketAddr]) -> Looked {
    let mut looked = Looked::default();
    let host = upstream.host.trim_start_matches('[').trim_end_matches(']');
    if is_loopback(host)
        && listeners.iter().any(|listener| {
            listener.port() == upstream.port && (listener.ip().is_loopback() || listener.ip().is_unspecified())
        })
    {
        let message = "is the gateway itself: every request would come back to it";
        looked.findings.push(Finding::problem(SECTION, "loop", name, message).help("`upstream` is the app's address"));
        return looked;
    }
    let started = Instant::now();
    match tokio::time::timeout(CONNECT, TcpStream::connect((host, upstream.port))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ => error.to_string(),
            };
            looked.findings.push(Finding::problem(SECTION, "unreachable", name, why).help("is the app running?"));
            return looked;
        }
        Err(_) => {
            let message = format!("no connection within {} s", CONNECT.as_secs());
            looked.findings.push(Finding::problem(SECTION, "unreachable", name, message));
            return looked;
        }
    }
    let tcp = started.elapsed().as_millis();
    match health(upstream, fetcher).await {
        Ok((path, fetched)) => {
            let status = fetched.status;
            let message = format!("tcp {tcp} ms · GET {path} {}", status.as_u16());
            looked.clock(name, &fetched, false);
            looked.findings.push(if status.is_server_error() {
                Finding::warning(SECTION, "unhealthy", name, message).help("the app answers with an error of its own")
            } else {
                Finding::fine(SECTION, name, message)
            });
        }
        Err(error) => {
            let finding = Finding::problem(SECTION, "no_answer", name, format!("tcp {tcp} ms · {error}"));
            looked.findings.push(finding);
        }
    }
    if is_loopback(host) {
        looked.findings.extend(elsewhere(upstream.port, name));
    }
    looked
}

/// `GET /health`, or `GET /` where there is none.
async fn health(upstream: &Upstream, fetcher: &Fetcher) -> Result<(&'static str, Fetched), String> {
    let own;
    let fetcher = if upstream.ca.is_some() || upstream.insecure {
        let options = Options { ca: upstream.ca.clone(), danger_insecure: upstream.insecure, ..Options::default() };
        own = Fetcher::new(&options).map_err(|error| error.to_string())?;
        &own
    } else {
        fetcher
    };
    let scheme = if upstream.tls { "https" } else { "http" };
    let base = format!("{scheme}://{}:{}", upstream.host, upstream.port);
    let health = fetcher.get(&format!("{base}/health"), MOST).await.map_err(|error| error.to_string())?;
    if health.status != http::StatusCode::NOT_FOUND {
        return Ok(("/health", health));
    }
    let top = fetcher.get(&format!("{base}/"), MOST).await.map_err(|error| error.to_string())?;
    Ok(("/", top))
}

/// An app on this machine that listens for others than this machine: they pass the gateway by.
fn elsewhere(port: u16, name: &str) -> Option<Finding> {
    let mut sockets = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        sockets.extend(listening(&std::fs::read_to_string(path).unwrap_or_default()));
    }
    let open = sockets.iter().find(|socket| socket.port() == port && !socket.ip().is_loopback())?;
    let message = format!("also answers directly on {open}: who reaches that passes the gateway by");
    let finding = Finding::warning(Section::Exposure, "upstream_exposed", format!("upstream {name}"), message);
    Some(finding.help("let the app listen on 127.0.0.1, or close the port for others"))
}

/// The listening sockets of a table of the kernel.
fn listening(table: &str) -> Vec<SocketAddr> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next()?;
        // 0A is TCP_LISTEN.
        if fields.nth(1)? != "0A" {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // Groups of four bytes, each in the order of the machine.
        let mut bytes = Vec::new();
        for group in address.as_bytes().chunks(8) {
            let word = u32::from_str_radix(std::str::from_utf8(group).ok()?, 16).ok()?;
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        let ip: IpAddr = match bytes.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
            16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table_of_sockets_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
             1: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
             2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
             3: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0 0\n\
             4: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 0 0\n\
             nonsense\n";
        let found: Vec<String> = listening(table).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1:8080", "0.0.0.0:8000", "[::1]:80", "127.0.0.1:81"]);
    }
}
