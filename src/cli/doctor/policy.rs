//! The policy on disk, and the one that runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use serde_json::Value;

use crate::cli::terminal::count;
use crate::fetch::{FetchError, Fetcher};
use crate::policy::document::Source;
use crate::policy::set::{LeafKind, Operand, PolicySet};

use super::report::{Finding, Section};
use super::{Looked, Named, World};

const SECTION: Section = Section::Policy;
/// A status with all its diagnostics is smaller than this.
const MOST: usize = 4 << 20;

pub(super) fn look(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    let loaded = &world.checked;
    let folder = super::shown(&world.config.policies.path);
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    for error in errors.iter().take(5) {
        let place = loaded.sources.place(error.primary.span);
        let message = format!("{} ({place})", error.message);
        let help = "portcullis check".to_owned();
        findings.push(Finding::problem(SECTION, error.code.as_str(), &folder, message).help(help));
    }
    if errors.len() > 5 {
        let message = format!("and {} more", count(errors.len() - 5, "error"));
        findings.push(Finding::problem(SECTION, "policy", &folder, message).help("portcullis check"));
    }
    let warnings = loaded.diagnostics.iter().filter(|found| !found.is_error() && found.suppressed.is_none());
    for warning in warnings.take(5) {
        let place = loaded.sources.place(warning.primary.span);
        let message = format!("{} ({place})", warning.message);
        findings.push(Finding::warning(SECTION, warning.code.as_str(), &folder, message));
    }
    let Some(policy) = world.policy() else { return findings };
    if errors.is_empty() {
        let routes = count(loaded.routes, "route");
        let report = loaded.report.as_ref().map_or(0, |report| report.passed + report.failures.len());
        let message = format!("{routes} · tests {}/{report} · revision {}", loaded.passed(), loaded.revision);
        findings.push(Finding::fine(SECTION, &folder, message));
    }
    if policy.tests.is_empty() {
        let message = "there are no tests: a change that lets everybody in would pass";
        findings.push(Finding::warning(SECTION, "no_tests", &folder, message).help("`portcullis help test`"));
    }
    user_metadata(policy, &folder, &mut findings);
    if let Some(document) = world.document() {
        let scopes = policy.routes.iter().flat_map(|route| &route.leaves).filter_map(|leaf| match &leaf.kind {
            LeafKind::Scope(scope) => Some(&**scope),
            _ => None,
        });
        let is_described = |scope: &str| {
            document.scopes.iter().any(|known| known.name.value == scope && !known.value.value.trim().is_empty())
        };
        let undescribed: BTreeSet<&str> = scopes.filter(|scope| !is_described(scope)).collect();
        if !undescribed.is_empty() {
            let names = undescribed.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("scopes without a description, which people are shown when they log in: {names}");
            findings.push(
                Finding::warning(SECTION, "scope_undescribed", &folder, message).help("describe them in `scopes`"),
            );
        }
    }
    findings
}

/// Conditions on what users write themselves.
fn user_metadata(policy: &PolicySet, folder: &str, findings: &mut Vec<Finding>) {
    for leaf in policy.routes.iter().flat_map(|route| &route.leaves) {
        let LeafKind::Comparison(comparison) = &leaf.kind else { continue };
        let reads = [&comparison.left, &comparison.right].into_iter().any(|side| match side {
            Operand::Token(path) => path.segments().next() == Some("user_metadata"),
            _ => false,
        });
        if reads {
            let message =
                format!("`{}` reads user_metadata, which users change themselves ({})", leaf.text, leaf.place);
            findings.push(Finding::warning(SECTION, "user_metadata", folder, message).help("use app_metadata"));
        }
    }
}

/// The running gateway, where there is one.
pub(super) fn tasks(world: &World, fetcher: &Fetcher) -> Vec<Named> {
    if !world.config.admin.enabled {
        return Vec::new();
    }
    let address = reachable(world.config.admin.listen);
    let token = match &world.config.admin.token {
        Some(Source::Env(name)) => world.environment.get(name).map(str::to_owned),
        Some(Source::File(path)) => std::fs::read_to_string(path).ok(),
        Some(Source::Literal(text)) => Some(text.clone()),
        None => None,
    };
    let (fetcher, revision) = (fetcher.clone(), world.checked.revision.to_string());
    let task = async move { running(&fetcher, address, token.as_deref(), &revision).await };
    vec![(format!("gateway on {address}"), Box::pin(task))]
}

async fn running(fetcher: &Fetcher, address: SocketAddr, token: Option<&str>, disk: &str) -> Looked {
    let subject = "running gateway";
    let mut request = http::Request::get(format!("http://{address}/-/status"));
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let finding = match request.body(Bytes::new()) {
        Err(error) => Finding::warning(SECTION, "status", subject, error.to_string()),
        Ok(request) => match fetcher.send(request, MOST).await {
            Err(FetchError::Refused) => {
                Finding::skipped(SECTION, subject, format!("none answers on the admin address {address}"))
            }
            Err(error) => Finding::warning(SECTION, "status", subject, format!("{address}  {error}")),
            Ok(fetched) => match fetched.status.as_u16() {
                200 => compare(&fetched.body, disk, subject),
                401 | 403 => {
                    let message = format!("{address} does not say which revision runs: {}", fetched.status.as_u16());
                    Finding::warning(SECTION, "status", subject, message).help("set `admin.token` here as it is there")
                }
                status => {
                    let message = format!("{address} answers {status}: it is something else");
                    Finding::warning(SECTION, "status", subject, message)
                }
            },
        },
    };
    Looked { findings: vec![finding], clocks: Vec::new() }
}

fn compare(body: &[u8], disk: &str, subject: &str) -> Finding {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let policy = status.get("policy");
    let text = |name: &str| policy.and_then(|policy| policy.get(name)).and_then(Value::as_str);
    let Some(running) = text("running") else {
        return Finding::warning(SECTION, "status", subject, "the admin address belongs to something else");
    };
    if running == disk {
        return Finding::fine(SECTION, subject, format!("running revision = disk ({disk})"));
    }
    let why = policy.and_then(|policy| policy.get("error")).and_then(|error| error.get("summary"));
    match why.and_then(Value::as_str) {
        Some(why) => {
            let message = format!("still runs {running}; what is on disk was rejected: {why}");
            Finding::problem(SECTION, "stale", subject, message).help("portcullis check")
        }
        None => {
            let message = format!("runs {running}, and on disk is {disk}");
            Finding::problem(SECTION, "stale", subject, message).help("does it read this folder? does it watch it?")
        }
    }
}

/// An address that one can connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
