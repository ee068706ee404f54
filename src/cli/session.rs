//! `session`: who is logged in, and ending that.

use std::collections::HashMap;
use std::net::IpAddr;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::clock::{Clock as _, Timestamp};
use crate::config::{Config, Environment};
use crate::server::SystemClock;
use crate::store::{BrowserSession, EndedBy, Revocation, Revoked, Session, StoreError};

use super::exit::Exit;
use super::stores::{self, Access, Beside, Issuers, Opened, confirmed, moment, or_dash, printable, rfc3339, table};
use super::terminal::count;
use super::user::{self, Named};
use super::{Global, Terminal};

/// The most sessions that are listed, or revoked in one step.
const PAGE: u32 = 1000;

/// Sessions: logins that have not ended
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Lists the sessions that have not ended, newest first
    List(List),
    /// Ends sessions: their tokens are refused, and cannot be refreshed
    Revoke(Revoke),
}

/// Lists the sessions that have not ended, newest first
#[derive(Args, Debug)]
pub struct List {
    /// Only those of this user
    #[arg(value_parser = user::name)]
    user: Option<Named>,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    most: u32,
    /// How the list is shown; `json` is one object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Ends sessions: their tokens are refused, and cannot be refreshed
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).multiple(false).args(["id", "user", "all"])))]
pub struct Revoke {
    /// The session, as `session list` shows it
    id: Option<String>,
    /// All sessions of this user
    #[arg(long, value_name = "NAME", value_parser = user::name)]
    user: Option<Named>,
    /// All sessions of everybody
    #[arg(long)]
    all: bool,
    /// With --all: without asking
    #[arg(long)]
    yes: bool,
}

impl Command {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let config = stores::settings(global, terminal, environment)?;
        match self {
            Self::List(list) => list.run(&config, terminal),
            Self::Revoke(revoke) => revoke.run(global, &config, terminal),
        }
    }
}

/// The id of a user; `None` is printed as an error.
fn user_id(opened: &Opened, terminal: Terminal, named: &Named) -> Result<String, Exit> {
    match opened.run(opened.stores.users.by_account(&named.account))? {
        Some(user) => Ok(user.id),
        None => {
            terminal.err(format_args!("error: no user `{}`\n", printable(&named.typed)));
            Err(Exit::Found)
        }
    }
}

/// A session as it is listed: of tokens that the gateway gave out, or of a browser.
struct Listed {
    id: String,
    user: String,
    user_id: String,
    app: String,
    issuer: String,
    scopes: Option<Vec<String>>,
    started: Timestamp,
    used: Timestamp,
    expires: Timestamp,
    address: Option<IpAddr>,
    user_agent: String,
}

impl Listed {
    fn of_tokens(session: Session, user: String) -> Self {
        let Session { id, user: user_id, issuer, app, scopes, started, expires, used, address, user_agent, .. } =
            session;
        let scopes = Some(scopes);
        Self { id, user, user_id, app, issuer, scopes, started, used, expires, address, user_agent }
    }

    /// Who its user is knows the provider; here there is the id alone.
    fn of_browser(session: BrowserSession) -> Self {
        let BrowserSession { id, user, issuer, app, started, expires, used, address, user_agent, .. } = session;
        let user_id = user.clone();
        Self { id, user, user_id, app, issuer, scopes: None, started, used, expires, address, user_agent }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "kind": if self.scopes.is_some() { "tokens" } else { "browser" },
            "user": self.user,
            "user_id": self.user_id,
            "app": self.app,
            "issuer": self.issuer,
            "scopes": self.scopes,
            "started": rfc3339(self.started),
            "used": rfc3339(self.used),
            "expires": rfc3339(self.expires),
            "address": self.address.map(|address| address.to_string()),
            "user_agent": self.user_agent,
        })
    }
}

impl List {
    fn run(&self, config: &Config, terminal: Terminal) -> Result<Exit, Exit> {
        let Some(opened) = Opened::open(config, terminal, Access::Read)? else {
            stores::nothing_yet(config, terminal, "sessions");
            return Ok(Exit::Fine);
        };
        let now = SystemClock.now();
        let mut listed = self.of_browsers(&opened, now)?;
        let user = match &self.user {
            // Somebody whom only a provider knows is no user of ours.
            Some(named) if !listed.is_empty() => {
                opened.run(opened.stores.users.by_account(&named.account))?.map(|user| user.id)
            }
            named => named.as_ref().map(|named| user_id(&opened, terminal, named)).transpose()?,
        };
        if self.user.is_none() || user.is_some() {
            let mut names: HashMap<String, String> = HashMap::new();
            for session in opened.run(opened.stores.sessions.live(user.as_deref(), now, self.most))? {
                if !names.contains_key(&session.user) {
                    let user = opened.run(opened.stores.users.by_id(&session.user))?;
                    names.insert(session.user.clone(), user.map_or_else(|| session.user.clone(), |user| user.name));
                }
                let name = names.get(&session.user).cloned().unwrap_or_default();
                listed.push(Listed::of_tokens(session, name));
            }
        }
        listed.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| b.id.cmp(&a.id)));
        listed.truncate(self.most as usize);
        if self.format == Format::Json {
            for session in &listed {
                terminal.out(format_args!("{}\n", session.json()));
            }
            return Ok(Exit::Fine);
        }
        if listed.is_empty() {
            terminal.err("nobody is logged in\n");
            return Ok(Exit::Fine);
        }
        let rows: Vec<[String; 7]> = listed
            .iter()
            .map(|session| {
                [
                    printable(&session.id),
                    printable(&session.user),
                    printable(&session.app),
                    moment(session.started),
                    moment(session.used),
                    session.address.map_or_else(|| "–".to_owned(), |address| address.to_string()),
                    or_dash(printable(&session.user_agent)),
                ]
            })
            .collect();
        terminal.out(table(["SESSION", "USER", "APP", "STARTED (UTC)", "USED (UTC)", "FROM", "WITH"], &rows));
        if rows.len() >= self.most as usize {
            terminal.err(format_args!("the newest {}; --most NUMBER shows more\n", rows.len()));
        }
        Ok(Exit::Fine)
    }

    /// Sessions of browsers, whose users are named by the id that their provider gives them.
    fn of_browsers(&self, opened: &Opened, now: Timestamp) -> Result<Vec<Listed>, Exit> {
        let user = self.user.as_ref().map(|named| named.typed.as_str());
        let sessions = opened.run(opened.stores.browser.live(user, now, self.most))?;
        Ok(sessions.into_iter().map(Listed::of_browser).collect())
    }
}

impl Revoke {
    fn run(&self, global: &Global, config: &Config, terminal: Terminal) -> Result<Exit, Exit> {
        let Some(opened) = Opened::open(config, terminal, Access::Read)? else {
            stores::nothing_yet(config, terminal, "sessions");
            return Ok(Exit::Found);
        };
        let now = SystemClock.now();
        let issuers = || Beside::load(global, config).issuers(terminal);
        if let Some(named) = &self.user {
            let browsers = opened.run(opened.stores.browser.live(Some(&named.typed), now, PAGE))?;
            let mut ended = opened.run(end_browsers(&opened, &browsers))?;
            let user = match ended {
                0 => Some(user_id(&opened, terminal, named)?),
                _ => opened.run(opened.stores.users.by_account(&named.account))?.map(|user| user.id),
            };
            if let Some(user) = user {
                let (before, by) = (stores::this_second(now), EndedBy::Operator);
                ended += opened.run(stores::end_all(&opened.stores, &issuers(), &user, before, by, now))?;
            }
            terminal.out(format_args!("{} of {} ended\n", count(ended, "session"), printable(&named.typed)));
            return Ok(Exit::Fine);
        }
        if let Some(id) = &self.id {
            let ended = match opened.run(opened.stores.sessions.get(id))? {
                Some(session) => opened.run(end(&opened, &issuers(), std::slice::from_ref(&session), now))?,
                None => {
                    let Some(session) = opened.run(opened.stores.browser.by_id(id))? else {
                        terminal.err(format_args!("error: no session `{}`\n", printable(id)));
                        return Err(Exit::Found);
                    };
                    opened.run(end_browsers(&opened, std::slice::from_ref(&session)))?
                }
            };
            let line = if ended == 0 { "had ended already; its tokens are refused" } else { "ended" };
            terminal.out(format_args!("session {} {line}\n", printable(id)));
            return Ok(Exit::Fine);
        }
        if !confirmed(terminal, self.yes, "end all sessions of everybody?")? {
            terminal.err("nothing was done\n");
            return Ok(Exit::Found);
        }
        let (issuers, mut ended) = (issuers(), 0);
        loop {
            let sessions = opened.run(opened.stores.sessions.live(None, now, PAGE))?;
            let these = opened.run(end(&opened, &issuers, &sessions, now))?;
            ended += these;
            // Those that begin while this runs are not meant; without progress there would be no end.
            if sessions.len() < PAGE as usize || these == 0 {
                break;
            }
        }
        loop {
            let sessions = opened.run(opened.stores.browser.live(None, now, PAGE))?;
            let these = opened.run(end_browsers(&opened, &sessions))?;
            ended += these;
            if sessions.len() < PAGE as usize || these == 0 {
                break;
            }
        }
        terminal.out(format_args!("{} ended\n", count(ended, "session")));
        Ok(Exit::Fine)
    }
}

/// Ends sessions of browsers. Their tokens never left the gateway but to apps, and the provider is not told.
async fn end_browsers(opened: &Opened, sessions: &[BrowserSession]) -> Result<usize, StoreError> {
    let mut ended = 0;
    for session in sessions {
        ended += usize::from(opened.stores.browser.end(&session.hash).await?);
    }
    Ok(ended)
}

/// Ends sessions; their tokens are refused first, so that repeating this completes what was interrupted.
async fn end(opened: &Opened, issuers: &Issuers, sessions: &[Session], now: Timestamp) -> Result<usize, StoreError> {
    let revocations: Vec<Revocation> = sessions
        .iter()
        .map(|session| Revocation {
            issuer: session.issuer.clone(),
            revoked: Revoked::Session(session.id.clone()),
            until: issuers.until(&session.issuer, now),
        })
        .collect();
    stores::revoke(&opened.stores, &revocations, now).await?;
    let mut ended = 0;
    for session in sessions {
        ended += usize::from(opened.stores.sessions.end(&session.id, EndedBy::Operator, now).await?);
    }
    Ok(ended)
}
