//! Variables and files that policy and settings refer to, and who can read them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::init::ignores;
use crate::config::Environment;
use crate::diagnostic::Code;
use crate::policy::document::{Issuer, Preset, Source};
use crate::token::algorithm::{Algorithm, AlgorithmSet};
use crate::token::key::{Key, KeyError};

use super::report::{Finding, Section};
use super::{World, shown};

const SECTION: Section = Section::Environment;

pub(super) fn look(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    variables(world, &mut findings);
    well_known(world, &mut findings);
    dotenv_file(world, &mut findings);
    files(world, &mut findings);
    writable(world, &mut findings);
    findings
}

/// A variable that something refers to.
#[derive(Default)]
struct Use {
    /// Where.
    places: Vec<String>,
    /// The HMACs that it is the secret of.
    secret: Option<AlgorithmSet>,
}

fn variables(world: &World, findings: &mut Vec<Finding>) {
    let mut used: BTreeMap<String, Use> = BTreeMap::new();
    if let Some(document) = world.document() {
        for reference in document.references() {
            if let Source::Env(name) = &reference.value {
                let place = world.checked.sources.place(reference.span);
                let places = &mut used.entry(name.clone()).or_default().places;
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        for issuer in document.issuers.iter().map(|definition| &definition.value) {
            for name in secret_names(issuer) {
                used.entry(name).or_default().secret = Some(algorithms(issuer, &world.environment));
            }
        }
        if document.issuers.is_empty() && world.environment.get("SECRET_KEY").is_some() {
            used.entry("SECRET_KEY".to_owned()).or_default().secret = Some(Algorithm::HS256.into());
        }
    }
    for (what, source) in settings_sources(world) {
        if let Source::Env(name) = source {
            used.entry(name.clone()).or_default().places.push(format!("`{what}`"));
        }
    }
    for (name, used) in &used {
        findings.push(variable(world, name, used));
        if let (Some(inner), Some(value)) = (&world.dotenv, world.process.get(name))
            && inner.get(name).is_some_and(|other| other != value)
        {
            let message = "differs between the environment and .env; the environment wins";
            findings.push(Finding::warning(SECTION, "set_twice", name, message));
        }
    }
}

fn variable(world: &World, name: &str, used: &Use) -> Finding {
    let places = used.places.join(", ");
    let Some(value) = world.environment.get(name) else {
        let help = match &used.secret {
            Some(_) => format!("portcullis secret new --write .env --name {name}"),
            None => format!("set {name} in the environment, or in .env"),
        };
        return Finding::problem(SECTION, "not_set", name, format!("not set ({places})")).help(help);
    };
    let origin = world.origin(name);
    if value.is_empty() {
        return Finding::problem(SECTION, "empty", name, format!("empty, {origin} ({places})"));
    }
    match &used.secret {
        Some(algorithms) => secret(name, value.as_bytes(), *algorithms, origin),
        None => Finding::fine(SECTION, name, format!("set, {origin}")),
    }
}

/// What an HMAC secret is good for.
fn secret(subject: &str, value: &[u8], algorithms: AlgorithmSet, origin: &str) -> Finding {
    let value = value.trim_ascii_end();
    match Key::from_secret(value, algorithms, None) {
        Ok(_) => Finding::fine(SECTION, subject, format!("{}, {origin}", strength(value))),
        Err(error) => {
            let help = match error {
                KeyError::ShortSecret { .. } | KeyError::GuessableSecret | KeyError::WellKnownSecret => {
                    "`portcullis secret new` makes one; tokens that the old one signed end with it"
                }
                KeyError::PemAsSecret => "a public key is no secret: use `public_key`",
                _ => "see `portcullis help P402`",
            };
            Finding::problem(SECTION, error.name(), subject, format!("{error}, {origin}")).help(help)
        }
    }
}

/// `256 bits` where it is 64 hex digits.
fn strength(value: &[u8]) -> String {
    let is_hex = value.len().is_multiple_of(2) && value.iter().all(u8::is_ascii_hexdigit);
    if is_hex { format!("{} bits", value.len() * 4) } else { format!("{} bytes", value.len()) }
}

/// The variables that are HMAC secrets of an issuer.
fn secret_names(issuer: &Issuer) -> Vec<String> {
    let stated = issuer.secrets.iter().filter_map(|source| match &source.value {
        Source::Env(name) => Some(name.clone()),
        Source::File(_) | Source::Literal(_) => None,
    });
    let implied = match issuer.preset.value {
        Preset::Local if issuer.secrets.is_empty() && issuer.signing_key.is_none() => Some("SECRET_KEY".to_owned()),
        _ => None,
    };
    stated.chain(implied).collect()
}

fn algorithms(issuer: &Issuer, environment: &Environment) -> AlgorithmSet {
    let stated = issuer.algorithms.iter().filter_map(|name| name.value.parse().ok());
    let local = (issuer.preset.value == Preset::Local && issuer.algorithms.is_empty())
        .then(|| environment.get("ALGORITHM")?.parse().ok())
        .flatten();
    let all: AlgorithmSet = stated.chain(local).filter(|algorithm: &Algorithm| algorithm.is_symmetric()).collect();
    if all.is_empty() { Algorithm::HS256.into() } else { all }
}

/// Variables that mean something wherever they are set.
fn well_known(world: &World, findings: &mut Vec<Finding>) {
    let environment = &world.environment;
    let signs = world.policy().is_some_and(|policy| policy.issuers.iter().any(|issuer| issuer.local.is_some()));
    if let Some(name) = environment.get("ALGORITHM").filter(|_| signs) {
        let with_secret = environment.get("SECRET_KEY").is_some();
        findings.push(match name.parse::<Algorithm>() {
            Ok(algorithm) if algorithm.is_symmetric() || !with_secret => {
                Finding::fine(SECTION, "ALGORITHM", algorithm.to_string())
            }
            Ok(algorithm) => {
                let message = format!("{algorithm} signs with a key pair, and SECRET_KEY is a secret");
                Finding::problem(SECTION, "algorithm", "ALGORITHM", message)
                    .help("HS256, or `signing_key` in the policy")
            }
            Err(_) => {
                Finding::problem(SECTION, "algorithm", "ALGORITHM", "not an algorithm that tokens are signed with")
                    .help("HS256, HS384 or HS512; unset, it is HS256")
            }
        });
    }
    if let Some(text) = environment.get("ACCESS_TOKEN_EXPIRE_MINUTES").filter(|_| signs) {
        let subject = "ACCESS_TOKEN_EXPIRE_MINUTES";
        findings.push(match text.trim().parse::<u64>() {
            Ok(minutes @ 1..=1440) => Finding::fine(SECTION, subject, format!("{minutes} min")),
            Ok(minutes @ 1441..=525_600) => {
                let message = format!("a stolen token is good for {} days", minutes.div_ceil(1440));
                Finding::warning(SECTION, "token_lifetime", subject, message)
                    .help("30, and refresh tokens for the rest")
            }
            _ => Finding::problem(SECTION, "token_lifetime", subject, "not a number of minutes from 1 to 525600"),
        });
    }
    let has_supabase =
        world.policy().is_some_and(|policy| policy.issuers.iter().any(|issuer| issuer.preset == Preset::Supabase));
    if has_supabase && environment.get("SUPABASE_KEY").is_some_and(is_service_key) {
        let message = "is the secret (service_role) key, which passes every row-level rule";
        findings.push(
            Finding::problem(SECTION, "service_key", "SUPABASE_KEY", message)
                .help("the publishable (or anon) key is enough; if this one was ever shared, make a new one"),
        );
    }
    if let Some(secret_value) = environment.get("SUPABASE_JWT_SECRET").filter(|_| has_supabase) {
        let origin = world.origin("SUPABASE_JWT_SECRET");
        let finding = secret("SUPABASE_JWT_SECRET", secret_value.as_bytes(), Algorithm::HS256.into(), origin);
        if !findings.iter().any(|known| known.subject == finding.subject) {
            findings.push(finding);
        }
    }
}

/// A key of a Supabase project that must stay on servers.
fn is_service_key(key: &str) -> bool {
    use base64::Engine as _;
    if key.starts_with("sb_secret_") {
        return true;
    }
    let payload = key
        .split('.')
        .nth(1)
        .and_then(|part| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims = payload.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    claims.is_some_and(|claims| claims.get("role").and_then(serde_json::Value::as_str) == Some("service_role"))
}

// === Files ===

fn dotenv_file(world: &World, findings: &mut Vec<Finding>) {
    let section = Section::Files;
    let path = &world.dotenv_path;
    let name = shown(path);
    let Some(file) = &world.dotenv else {
        if !path.exists() {
            findings.push(Finding::skipped(section, name, "none: variables come from the environment alone"));
        }
        return;
    };
    for note in &file.notes {
        findings.push(Finding::warning(section, "env_file_line", &name, note));
    }
    let mode = mode(path).unwrap_or(0);
    if mode & 0o077 == 0 {
        findings.push(Finding::fine(section, &name, format!("mode {mode:04o}")));
    } else {
        let message = format!("others can read it (mode {mode:04o})");
        let help = format!("chmod 600 {name}");
        findings.push(if mode & 0o007 == 0 {
            Finding::warning(section, "env_file_mode", &name, message).help(help)
        } else {
            Finding::problem(section, "env_file_mode", &name, message).help(help)
        });
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if is_tracked(folder, path) {
        let message = "is under version control: whoever has the repository has what is in it";
        let help = format!("git rm --cached {name}, and make new secrets");
        findings.push(Finding::problem(section, "env_file_tracked", &name, message).help(help));
    } else if !is_ignored(folder) {
        let message = "no line `.env` in .gitignore: one `git add .` publishes it";
        findings
            .push(Finding::warning(section, "env_file_not_ignored", &name, message).help("echo .env >> .gitignore"));
    }
}

/// Whether a `.gitignore` of the folder, or of one above it in the same repository, leaves `.env` out.
fn is_ignored(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    for folder in folder.ancestors() {
        let text = std::fs::read_to_string(folder.join(".gitignore")).unwrap_or_default();
        if ignores(&text, ".env") {
            return true;
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    false
}

/// Whether git knows the file.
fn is_tracked(folder: &Path, path: &Path) -> bool {
    let Ok(real) = folder.canonicalize() else { return false };
    if !real.ancestors().any(|folder| folder.join(".git").exists()) {
        return false;
    }
    let Some(name) = path.file_name() else { return false };
    let mut git = Command::new("git");
    git.arg("-C").arg(&real).args(["ls-files", "--error-unmatch", "--"]).arg(name);
    let git = git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    git.is_ok_and(|status| status.success())
}

/// Files that policy and settings name.
fn files(world: &World, findings: &mut Vec<Finding>) {
    let section = Section::Files;
    for diagnostic in &world.live.diagnostics {
        let place = world.live.sources.place(diagnostic.primary.span);
        let message = format!("{} ({place})", diagnostic.message);
        match diagnostic.code {
            Code::P407 => {
                let mut finding = Finding::problem(section, "secret_file_mode", "secret file", message);
                finding.help = diagnostic.help.first().cloned();
                findings.push(finding);
            }
            Code::P406 if diagnostic.message.starts_with("file ") => {
                findings.push(Finding::problem(section, "file_unreadable", "file", message));
            }
            _ => {}
        }
    }
    for (what, source) in settings_sources(world) {
        let Source::File(path) = source else { continue };
        let path = PathBuf::from(path);
        let name = shown(&path);
        match std::fs::metadata(&path) {
            Err(error) => {
                let message = format!("`{what}`: {error}");
                findings.push(Finding::problem(section, "file_unreadable", name, message));
            }
            Ok(_) if what.ends_with("cert") => {}
            Ok(metadata) if metadata.permissions().mode() & 0o007 != 0 => {
                let message = format!("every user of this machine can read it (`{what}`)");
                let help = format!("chmod 600 {name}");
                findings.push(Finding::problem(section, "secret_file_mode", name, message).help(help));
            }
            Ok(_) => findings.push(Finding::fine(section, name, format!("`{what}`"))),
        }
    }
}

/// What decides must be written by its owner only.
fn writable(world: &World, findings: &mut Vec<Finding>) {
    let folder = world.config.policies.path.clone();
    let mut paths = vec![folder, world.settings.clone(), world.dotenv_path.clone()];
    paths.extend(world.checked.paths.iter().cloned());
    paths.sort();
    paths.dedup();
    for path in paths {
        if mode(&path).is_some_and(|mode| mode & 0o002 != 0) {
            let name = shown(&path);
            let help = format!("chmod o-w {name}");
            let message = "every user of this machine can change it, and with it who gets in";
            findings.push(Finding::problem(Section::Files, "writable_by_all", name, message).help(help));
        }
    }
}

fn mode(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

/// The references in the settings, by key.
fn settings_sources(world: &World) -> Vec<(&'static str, &Source)> {
    let config = &world.config;
    let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let tls = tls.flat_map(|tls| [("listen.tls.cert", &tls.cert), ("listen.tls.key", &tls.key)]);
    config.admin.token.iter().map(|token| ("admin.token", token)).chain(tls).collect()
}
