//! `user`: who can log in, where the gateway keeps the users itself.
//!
//! Names are compared in their canonical form; a user's id is what tokens and sessions refer to, and is never used
//! again. Passwords are typed in or come from standard input. Whatever takes something from a user (`disable`,
//! `remove`, `set-password`, `grant --remove-…`) also ends what was given out, so that running gateways refuse it.

mod export;
pub(super) mod import;
mod password;
mod show;

use clap::{ArgGroup, Args, Subcommand};

use crate::clock::{Clock as _, Timestamp};
use crate::config::{Config, Environment};
use crate::identity::account::AccountName;
use crate::random::Random as _;
use crate::server::{SystemClock, SystemRandom};
use crate::store::{Added, EndedBy, User};

use super::exit::Exit;
use super::stores::{self, Beside, Opened, confirmed, printable};
use super::terminal::count;
use super::{Global, Terminal};

/// Users that the gateway keeps itself (`login: { via: local }`)
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Adds a user; the password is asked for twice
    Add(Add),
    /// Lists the users
    List(show::List),
    /// Shows a user, and whether the policy knows the roles
    Show(show::Show),
    /// Replaces a password, and logs the user out everywhere
    SetPassword(SetPassword),
    /// Keeps a user from logging in, and logs the user out everywhere
    Disable(Name),
    /// Lets a user log in again
    Enable(Name),
    /// Removes a user
    Remove(Remove),
    /// Gives and takes roles and scopes
    Grant(Grant),
    Import(import::Import),
    Export(export::Export),
}

/// Adds a user; the password is asked for twice
#[derive(Args, Debug)]
pub struct Add {
    /// The name to log in with; an e-mail address is fine
    #[arg(value_parser = name)]
    name: Named,
    /// An address to show; it is no name to log in with
    #[arg(long, value_name = "ADDRESS", value_parser = email)]
    email: Option<String>,
    /// A role of the policy; may be repeated
    #[arg(long = "role", value_name = "ROLE", value_parser = stores::word, value_delimiter = ',')]
    roles: Vec<String>,
    /// A scope, beside those that the roles grant; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", value_parser = stores::word, value_delimiter = ',')]
    scopes: Vec<String>,
    /// The tenant, for policies that compare it
    #[arg(long, value_name = "TENANT", value_parser = tenant)]
    tenant: Option<String>,
    /// Reads the password from standard input: one line
    #[arg(long, conflicts_with = "no_password")]
    password_stdin: bool,
    /// Sets no password: nobody can log in until `user set-password`
    #[arg(long)]
    no_password: bool,
    /// Also with roles and scopes that the policy does not know
    #[arg(long)]
    yes: bool,
}

/// Replaces a password, and logs the user out everywhere
#[derive(Args, Debug)]
pub struct SetPassword {
    /// The user
    #[arg(value_parser = name)]
    name: Named,
    /// Reads the password from standard input: one line
    #[arg(long)]
    password_stdin: bool,
}

/// A user
#[derive(Args, Debug)]
pub struct Name {
    /// The user
    #[arg(value_parser = name)]
    name: Named,
}

/// Removes a user
#[derive(Args, Debug)]
pub struct Remove {
    /// The user
    #[arg(value_parser = name)]
    name: Named,
    /// Without asking
    #[arg(long)]
    yes: bool,
}

/// Gives and takes roles and scopes
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["roles", "scopes", "remove_roles", "remove_scopes"])))]
pub struct Grant {
    /// The user
    #[arg(value_parser = name)]
    name: Named,
    /// A role to give; may be repeated
    #[arg(long = "role", value_name = "ROLE", value_parser = stores::word, value_delimiter = ',')]
    roles: Vec<String>,
    /// A scope to give; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", value_parser = stores::word, value_delimiter = ',')]
    scopes: Vec<String>,
    /// A role to take; tokens that say it are refused from now on
    #[arg(long = "remove-role", value_name = "ROLE", value_delimiter = ',')]
    remove_roles: Vec<String>,
    /// A scope to take; tokens that say it are refused from now on
    #[arg(long = "remove-scope", value_name = "SCOPE", value_delimiter = ',')]
    remove_scopes: Vec<String>,
    /// Also roles and scopes that the policy does not know
    #[arg(long)]
    yes: bool,
}

/// A name as it was typed, and its canonical form.
#[derive(Clone, Debug)]
pub struct Named {
    /// As it was typed.
    pub typed: String,
    /// The canonical form.
    pub account: AccountName,
}

/// For clap: a name.
pub fn name(text: &str) -> Result<Named, String> {
    let account = AccountName::parse(text).map_err(|error| error.to_string())?;
    Ok(Named { typed: text.trim().to_owned(), account })
}

/// For clap: an address. Only what no address is, is refused.
fn email(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.split_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() && is_plain(text, 320) => Ok(text.to_owned()),
        _ => Err("like `ann@example.com`".to_owned()),
    }
}

/// For clap: a tenant.
fn tenant(text: &str) -> Result<String, String> {
    let text = text.trim();
    if is_plain(text, 256) { Ok(text.to_owned()) } else { Err("1 to 256 characters without blanks".to_owned()) }
}

fn is_plain(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.chars().any(|char| char.is_whitespace() || char.is_control())
}

/// An id that no user had before: a UUID of version 7.
fn new_id(now: Timestamp) -> String {
    let mut random = [0; 10];
    SystemRandom.fill(&mut random);
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

impl Command {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let config = stores::settings(global, terminal, environment)?;
        let context = Context { global, terminal, config };
        match self {
            Self::Add(add) => add.run(&context),
            Self::List(list) => list.run(&context),
            Self::Show(show) => show.run(&context),
            Self::SetPassword(set) => set.run(&context),
            Self::Disable(name) => name.disable(&context),
            Self::Enable(name) => name.enable(&context),
            Self::Remove(remove) => remove.run(&context),
            Self::Grant(grant) => grant.run(&context),
            Self::Import(import) => import.run(&context),
            Self::Export(export) => export.run(&context),
        }
    }
}

/// What every command here has.
pub struct Context<'g> {
    global: &'g Global,
    terminal: Terminal,
    config: Config,
}

impl Context<'_> {
    fn fail(&self, why: impl std::fmt::Display) -> Exit {
        self.terminal.err(format_args!("error: {why}\n"));
        Exit::Found
    }

    fn beside(&self) -> Beside {
        Beside::load(self.global, &self.config)
    }

    /// The store, where there is one, and the user.
    fn user(&self, named: &Named) -> Result<(Opened, User), Exit> {
        let none = || {
            let typed = printable(&named.typed);
            self.fail(format_args!("no user `{typed}`\n\nhelp: `portcullis user list` shows who there is"))
        };
        let opened = Opened::open(&self.config, self.terminal, stores::Access::Read)?.ok_or_else(none)?;
        let user = opened.run(opened.stores.users.by_account(&named.account))?.ok_or_else(none)?;
        Ok((opened, user))
    }

    /// Names that the policy does not know are most often typos: they need `--yes`.
    fn check_names(&self, roles: &[String], scopes: &[String], yes: bool) -> Result<(), Exit> {
        if roles.is_empty() && scopes.is_empty() {
            return Ok(());
        }
        let beside = self.beside();
        let unknown = beside.needed_vocabulary(self.terminal)?.unknown(roles, scopes);
        if unknown.is_empty() {
            return Ok(());
        }
        let level = if yes { "warning" } else { "error" };
        for line in &unknown {
            self.terminal.err(format_args!("{level}: {line}\n"));
        }
        if yes {
            return Ok(());
        }
        self.terminal.err("\nhelp: --yes if the policy will have it later\n");
        Err(Exit::Found)
    }

    /// Stores a user that was there a moment ago.
    fn update(&self, opened: &Opened, user: &User) -> Result<(), Exit> {
        if opened.run(opened.stores.users.update(user))? {
            return Ok(());
        }
        Err(self.fail(format_args!("user `{}` was removed in the meantime", printable(&user.name))))
    }

    /// Ends all sessions of a user, and refuses the tokens. Says how many sessions there were.
    fn end_all(&self, opened: &Opened, user: &User, before: Timestamp, now: Timestamp) -> Result<String, Exit> {
        let issuers = self.beside().issuers(self.terminal);
        let ended = opened.run(stores::end_all(&opened.stores, &issuers, &user.id, before, EndedBy::User, now))?;
        Ok(match ended {
            0 => String::new(),
            ended => format!(" · {} ended", count(ended, "session")),
        })
    }
}

impl Add {
    fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        context.check_names(&self.roles, &self.scopes, self.yes)?;
        let typed = printable(&self.name.typed);
        let taken = |known: &User| {
            let known = printable(&known.name);
            let same = if known == typed { String::new() } else { format!(" (as `{known}`, which is the same name)") };
            context.fail(format_args!(
                "there is a user `{typed}` already{same}\n\nhelp: `portcullis user set-password` and `user grant` change one"
            ))
        };
        // Before somebody types a password twice for nothing; and a password that is refused makes no store.
        let there = Opened::open(&context.config, context.terminal, stores::Access::Read)?;
        if let Some(opened) = &there
            && let Some(known) = opened.run(opened.stores.users.by_account(&self.name.account))?
        {
            return Err(taken(&known));
        }
        let hash = match self.no_password {
            true => None,
            false => Some(password::new_hash(context.terminal, &typed, self.password_stdin)?),
        };
        let opened = match there {
            Some(opened) => opened,
            None => Opened::to_write(&context.config, context.terminal)?,
        };
        let now = SystemClock.now();
        let user = User {
            id: new_id(now),
            name: self.name.typed.clone(),
            account: self.name.account.clone(),
            email: self.email.clone(),
            hash,
            roles: without_repeats(&self.roles),
            scopes: without_repeats(&self.scopes),
            tenant: self.tenant.clone(),
            disabled: false,
            created: now,
            updated: now,
        };
        if let Added::Taken(_) = opened.run(opened.stores.users.add(std::slice::from_ref(&user)))? {
            return Err(taken(&user));
        }
        context.terminal.out(format_args!("added {typed} ({}){}\n", user.id, has(&user)));
        if self.no_password {
            context.terminal.err("nobody can log in with it before `portcullis user set-password`\n");
        }
        Ok(Exit::Fine)
    }
}

impl SetPassword {
    fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let (opened, user) = context.user(&self.name)?;
        let shown = printable(&user.name);
        let hash = password::new_hash(context.terminal, &shown, self.password_stdin)?;
        let now = SystemClock.now();
        // Read anew: typing takes its time.
        let Some(user) = opened.run(opened.stores.users.by_id(&user.id))? else {
            return Err(context.fail(format_args!("user `{shown}` was removed in the meantime")));
        };
        let user = User { hash: Some(hash), updated: now, ..user };
        context.update(&opened, &user)?;
        let ended = context.end_all(&opened, &user, stores::this_second(now), now)?;
        let disabled = if user.disabled { " · still disabled: `portcullis user enable`" } else { "" };
        context.terminal.out(format_args!("{shown} has a new password{ended}{disabled}\n"));
        Ok(Exit::Fine)
    }
}

impl Name {
    fn disable(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let (opened, user) = context.user(&self.name)?;
        let now = SystemClock.now();
        if !user.disabled {
            context.update(&opened, &User { disabled: true, updated: now, ..user.clone() })?;
        }
        // Also where the user was disabled before: repeating the command completes one that was interrupted.
        let ended = context.end_all(&opened, &user, stores::next_second(now), now)?;
        let already = if user.disabled { "was disabled already" } else { "is disabled" };
        context.terminal.out(format_args!("{} {already}{ended}\n", printable(&user.name)));
        Ok(Exit::Fine)
    }

    fn enable(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let (opened, user) = context.user(&self.name)?;
        let shown = printable(&user.name);
        if !user.disabled {
            context.terminal.out(format_args!("{shown} was enabled already\n"));
            return Ok(Exit::Fine);
        }
        let user = User { disabled: false, updated: SystemClock.now(), ..user };
        context.update(&opened, &user)?;
        let hint = if user.hash.is_none() { " · no password yet: `portcullis user set-password`" } else { "" };
        context.terminal.out(format_args!("{shown} is enabled{hint}\n"));
        Ok(Exit::Fine)
    }
}

impl Remove {
    fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let (opened, user) = context.user(&self.name)?;
        let shown = printable(&user.name);
        if !confirmed(context.terminal, self.yes, &format!("remove {shown} ({})?", user.id))? {
            context.terminal.err("nothing was done\n");
            return Ok(Exit::Found);
        }
        let now = SystemClock.now();
        // First: no session may begin between ending them and removing the user.
        context.update(&opened, &User { disabled: true, updated: now, ..user.clone() })?;
        let ended = context.end_all(&opened, &user, stores::next_second(now), now)?;
        opened.run(opened.stores.users.remove(&user.id))?;
        context.terminal.out(format_args!("removed {shown}{ended}\n"));
        Ok(Exit::Fine)
    }
}

impl Grant {
    fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let (opened, user) = context.user(&self.name)?;
        context.check_names(&self.roles, &self.scopes, self.yes)?;
        for (kind, taken, given, has) in [
            ("role", &self.remove_roles, &self.roles, &user.roles),
            ("scope", &self.remove_scopes, &self.scopes, &user.scopes),
        ] {
            if let Some(both) = taken.iter().find(|name| given.contains(name)) {
                context.terminal.err(format_args!("error: {kind} `{both}` is both given and taken\n"));
                return Err(Exit::Usage);
            }
            for missing in taken.iter().filter(|name| !has.contains(name)) {
                context.terminal.err(format_args!(
                    "warning: {} does not have {kind} `{}`\n",
                    printable(&user.name),
                    printable(missing)
                ));
            }
        }
        let changed = |has: &[String], given: &[String], taken: &[String]| {
            let mut names: Vec<String> = has.iter().filter(|name| !taken.contains(name)).cloned().collect();
            names.extend(given.iter().filter(|name| !has.contains(name)).cloned());
            without_repeats(&names)
        };
        let now = SystemClock.now();
        let roles = changed(&user.roles, &self.roles, &self.remove_roles);
        let scopes = changed(&user.scopes, &self.scopes, &self.remove_scopes);
        let fewer = user.roles.iter().any(|role| !roles.contains(role))
            || user.scopes.iter().any(|scope| !scopes.contains(scope));
        if roles == user.roles && scopes == user.scopes {
            context.terminal.out(format_args!("{} had all that already{}\n", printable(&user.name), has(&user)));
            return Ok(Exit::Fine);
        }
        let user = User { roles, scopes, updated: now, ..user };
        context.update(&opened, &user)?;
        let mut when = " · from the next login or refresh on";
        if fewer {
            // Tokens say what their user had; clients get new ones with their refresh tokens. The next second begins
            // first, so that no token that is made from now on counts as an old one.
            let issuers = context.beside().issuers(context.terminal);
            let begins = stores::turn_of_second();
            opened.run(stores::revoke_subject(&opened.stores, &issuers, &user.id, begins, SystemClock.now()))?;
            when = " · tokens given out before are refused";
        }
        context.terminal.out(format_args!("{}{}{when}\n", printable(&user.name), has(&user)));
        Ok(Exit::Fine)
    }
}

fn without_repeats(names: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        if !once.contains(name) {
            once.push(name.clone());
        }
    }
    once
}

/// What a user has, in words.
fn has(user: &User) -> String {
    let list = |kind: &str, names: &[String]| match names {
        [] => format!(" · no {kind}s"),
        [one] => format!(" · {kind} {}", printable(one)),
        names => format!(" · {kind}s {}", printable(&names.join(", "))),
    };
    format!("{}{}", list("role", &user.roles), list("scope", &user.scopes))
}
