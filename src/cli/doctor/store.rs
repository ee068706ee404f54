//! Users and sessions: whether the store opens, and whether its users can log in.
//!
//! A file that does not exist is not made. One that does is opened as `serve` opens it, which brings its tables up to
//! date.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use crate::cli::terminal::count;
use crate::config::{Database, RedisUrl, StoreUrl};
use crate::password::{self, PasswordHash};
use crate::policy::set::Via;

use crate::store::{StoreError, Stores, Users, redis as redis_store};

use super::report::{Finding, Section};
use super::{Looked, Named, World, shown};

const SECTION: Section = Section::Store;
/// How many users are read at once, and how many in all.
const PAGE: u32 = 500;
const MOST: usize = 20_000;

/// One task for the store, one for what gateways share.
pub(super) fn tasks(world: &World) -> Vec<Named> {
    let mut tasks: Vec<Named> = Vec::new();
    let store = world.config.store.clone();
    let policy = world.policy();
    let logs_in = policy.is_some_and(|policy| {
        policy.apps.iter().filter_map(|app| app.login.as_ref()).any(|login| login.via == Via::Local)
    });
    let keeps_keys = policy.is_some_and(|policy| {
        policy.issuers.iter().filter_map(|issuer| issuer.local.as_ref()).any(|local| local.managed.is_some())
    });
    let on_network = matches!(store.database, Database::Postgres(_));
    let task = if on_network && world.offline {
        Some(said(Finding::skipped(SECTION, store.to_string(), "not looked at (--offline)")))
    } else {
        match &store.database {
            Database::Sqlite(path) if !path.exists() => Some(said(missing(path, &store, logs_in, keeps_keys))),
            _ => None,
        }
    };
    let known: Option<Vec<String>> =
        policy.map(|policy| policy.roles.roles.iter().map(|role| role.name.to_string()).collect());
    tasks.push(task.unwrap_or_else(|| {
        let name = format!("store {store}");
        (name, Box::pin(async move { look(&store, logs_in, known.as_deref()).await }))
    }));
    if let Some(redis) = world.config.redis.clone() {
        tasks.push(if world.offline {
            said(Finding::skipped(SECTION, redis.to_string(), "not looked at (--offline)"))
        } else {
            (format!("redis {redis}"), Box::pin(async move { shared(&redis).await }))
        });
    }
    tasks
}

/// What is known without a look.
fn said(finding: Finding) -> Named {
    let subject = finding.subject.clone();
    (subject, Box::pin(async move { Looked { findings: vec![finding], clocks: Vec::new() } }))
}

fn missing(path: &Path, store: &StoreUrl, logs_in: bool, keeps_keys: bool) -> Finding {
    let subject = store.to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if !folder.is_dir() {
        let message = format!("the folder {} does not exist (set by `{}`)", shown(folder), store.setting);
        return Finding::problem(SECTION, "store", subject, message).help("make it, or name another file");
    }
    if logs_in {
        Finding::warning(SECTION, "no_users", subject, "not there yet: nobody can log in")
            .help("portcullis user add NAME")
    } else if keeps_keys {
        Finding::fine(SECTION, subject, "not there yet: the first start makes it")
    } else {
        Finding::skipped(SECTION, subject, "not there, and the policy keeps no users or keys")
    }
}

async fn look(store: &StoreUrl, logs_in: bool, known: Option<&[String]>) -> Looked {
    let mut looked = Looked::default();
    let subject = store.to_string();
    if let Database::Sqlite(path) = &store.database {
        looked.findings.extend(file(path));
        // An empty file is a database without tables.
        let mut head = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
        if read.is_ok_and(|read| read > 0) && head != b"SQLite format 3\0" {
            let message = format!("is not a database of SQLite (set by `{}`)", store.setting);
            looked.findings.push(Finding::problem(SECTION, "store", subject, message).help("name another file"));
            return looked;
        }
    }
    let started = Instant::now();
    let stores = match Stores::open(store, None).await {
        Ok(stores) => stores,
        Err(error) => {
            let finding = Finding::problem(SECTION, "store", subject, error.message).help(error.help);
            looked.findings.push(finding);
            return looked;
        }
    };
    let took = started.elapsed().as_millis();
    let message = format!("opens in {took} ms, tables up to date (set by `{}`)", store.setting);
    looked.findings.push(Finding::fine(SECTION, &subject, message));
    let users = async {
        let kinds = stores.users.hash_kinds().await?;
        Ok::<_, StoreError>((kinds, people(&*stores.users).await?))
    };
    match users.await {
        Ok((kinds, people)) => {
            looked.findings.extend(hashes(&kinds));
            looked.findings.extend(people.findings(logs_in, known));
        }
        Err(error) => looked.findings.push(Finding::problem(SECTION, "store", subject, error.to_string())),
    }
    looked
}

/// Who can read the file, and what SQLite keeps beside it.
fn file(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ending in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let path = Path::new(&name);
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let name = shown(path);
            let message = format!("others can read password hashes and keys in it (mode {mode:04o})");
            let help = format!("chmod 600 {name}");
            findings.push(Finding::problem(SECTION, "store_mode", name, message).help(help));
        }
    }
    findings
}

/// What the stored hashes are worth.
fn hashes(kinds: &[(String, u64)]) -> Vec<Finding> {
    let subject = "passwords";
    let users = |number: u64| count(usize::try_from(number).unwrap_or(usize::MAX), "user");
    let mut findings = Vec::new();
    for (kind, number) in kinds {
        let hash = PasswordHash::parse(&password::dummy(kind)).ok();
        findings.push(match hash.filter(|_| kind != "unknown") {
            None => {
                let message = format!("{}: a hash that cannot be read", users(*number));
                Finding::problem(SECTION, "hash_unknown", subject, message)
                    .help("give them new ones: portcullis user set-password NAME")
            }
            Some(hash) if hash.is_weak() => {
                let message = format!("{}: {kind}, which is quickly guessed if the store is stolen", users(*number));
                Finding::warning(SECTION, "hash_weak", subject, message).help("replaced when they log in next")
            }
            Some(hash) if hash.is_outdated() => {
                Finding::fine(SECTION, subject, format!("{}: {kind}, replaced when they log in next", users(*number)))
            }
            Some(_) => Finding::fine(SECTION, subject, format!("{}: {kind}", users(*number))),
        });
    }
    findings
}

/// Users, as far as they matter here.
#[derive(Debug, Default)]
struct People {
    all: usize,
    without_password: usize,
    disabled: usize,
    /// Role → how many users have it.
    roles: BTreeMap<String, usize>,
    /// There are more than were looked at.
    more: bool,
}

async fn people(users: &dyn Users) -> Result<People, StoreError> {
    let mut people = People::default();
    let mut after = None;
    loop {
        let page = users.list(after.as_ref(), PAGE).await?;
        for user in &page {
            people.all += 1;
            people.without_password += usize::from(user.hash.is_none());
            people.disabled += usize::from(user.disabled);
            for role in &user.roles {
                *people.roles.entry(role.clone()).or_default() += 1;
            }
        }
        let Some(last) = page.last().filter(|_| page.len() == PAGE as usize) else { break };
        if people.all >= MOST {
            people.more = true;
            break;
        }
        after = Some(last.account.clone());
    }
    Ok(people)
}

impl People {
    fn findings(&self, logs_in: bool, known: Option<&[String]>) -> Vec<Finding> {
        let mut findings = Vec::new();
        match (self.all, self.all.saturating_sub(self.without_password).min(self.all - self.disabled)) {
            (0, _) if logs_in => {
                let finding = Finding::warning(SECTION, "no_users", "users", "there are none: nobody can log in");
                findings.push(finding.help("portcullis user add NAME"));
            }
            (0, _) => {}
            (all, 0) if logs_in => {
                let message = format!("{}, all disabled or without a password: nobody can log in", count(all, "user"));
                findings.push(Finding::warning(SECTION, "no_users", "users", message));
            }
            (all, _) => {
                let more = if self.more { " and more" } else { "" };
                let message = format!("{}{more}, {} disabled", count(all, "user"), self.disabled);
                findings.push(Finding::fine(SECTION, "users", message));
            }
        }
        for (role, number) in self.roles.iter().filter(|(role, _)| known.is_some_and(|known| !known.contains(role))) {
            let message = format!("{} with role `{role}`, which the policy does not know", count(*number, "user"));
            findings.push(
                Finding::warning(SECTION, "role_unknown", "users", message)
                    .help("a role that is not known grants nothing"),
            );
        }
        findings
    }
}

async fn shared(redis: &RedisUrl) -> Looked {
    let started = Instant::now();
    let subject = redis.to_string();
    let finding = match redis_store::Redis::open(redis.url.expose()).await {
        Ok(_) => Finding::fine(SECTION, subject, format!("answers in {} ms", started.elapsed().as_millis())),
        Err(error) => {
            let message = format!("{} (set by `{}`)", error.message, redis.setting);
            Finding::problem(SECTION, "redis", subject, message).help(error.help)
        }
    };
    Looked { findings: vec![finding], clocks: Vec::new() }
}
