//! What others can reach.

use crate::cli::terminal::count;
use crate::config::Config;
use crate::policy::document::Source;

use super::World;
use super::report::{Finding, Section};

const SECTION: Section = Section::Exposure;

pub(super) fn look(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = &world.config;
    for listener in &config.listeners {
        let subject = format!("listener {}", listener.address);
        findings.push(if listener.tls.is_some() {
            Finding::fine(SECTION, subject, "TLS")
        } else if listener.address.ip().is_loopback() {
            Finding::fine(SECTION, subject, "this machine only")
        } else if config.trusted_proxies.is_empty() {
            Finding::warning(SECTION, "no_tls", subject, "tokens and passwords are sent to it in the clear")
                .help("give `listen` a certificate, or name the proxy that speaks TLS in `trusted_proxies`")
        } else {
            Finding::fine(SECTION, subject, "without TLS, behind the proxies of `trusted_proxies`")
        });
    }
    if let Some(url) = config.public_url.as_deref().filter(|url| url.starts_with("http://")) {
        let host = url.trim_start_matches("http://").split(['/', ':']).next().unwrap_or("");
        if !crate::cli::token::is_loopback(host) {
            let message = format!("{url} is not https");
            findings.push(Finding::warning(SECTION, "public_url", "public_url", message));
        }
    }
    admin(world, config, &mut findings);
    findings
}

fn admin(world: &World, config: &Config, findings: &mut Vec<Finding>) {
    if !config.admin.enabled {
        findings.push(Finding::fine(SECTION, "admin listener", "off"));
        return;
    }
    let address = config.admin.listen;
    let subject = format!("admin listener {address}");
    let token = match &config.admin.token {
        None => None,
        Some(Source::Env(name)) => world.environment.get(name).map(str::to_owned),
        Some(Source::File(path)) => std::fs::read_to_string(path).ok(),
        Some(Source::Literal(text)) => Some(text.clone()),
    };
    if address.ip().is_loopback() {
        findings.push(Finding::fine(SECTION, subject, "this machine only"));
    } else if config.admin.token.is_some() {
        let message = "others can reach it: metrics are open to them, status and reload need the token";
        findings.push(Finding::warning(SECTION, "admin_exposed", subject, message));
    } else {
        let message = "others can reach it, and there is no admin token";
        findings.push(
            Finding::problem(SECTION, "admin_exposed", subject, message)
                .help("set `admin.listen` to 127.0.0.1, or `admin.token`"),
        );
    }
    if let Some(token) = token {
        let token = token.trim();
        let characters: std::collections::BTreeSet<char> = token.chars().collect();
        let length = token.chars().count();
        if length < 16 {
            let message = format!("has {}; the gateway does not start with it", count(length, "character"));
            findings.push(
                Finding::problem(SECTION, "admin_token", "admin.token", message)
                    .help("`portcullis secret new` makes one"),
            );
        } else if length < 32 || characters.len() < 10 {
            let message = "is short or repeats itself, and could be guessed";
            findings.push(
                Finding::warning(SECTION, "admin_token", "admin.token", message)
                    .help("`portcullis secret new` makes one"),
            );
        } else {
            findings.push(Finding::fine(SECTION, "admin.token", format!("{length} characters")));
        }
    }
}
