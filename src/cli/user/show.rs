//! `user list`, `user show`.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::clock::Clock as _;
use crate::password::PasswordHash;
use crate::server::SystemClock;
use crate::store::User;

use super::super::exit::Exit;
use super::super::stores::{self, Opened, moment, or_dash, printable, rfc3339, table};
use super::{Context, Named};

/// How many users are read at a time.
pub const PAGE: u32 = 1000;

/// Lists the users
#[derive(Args, Debug)]
pub struct List {
    /// How the list is shown; `json` is one object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Only users with this role
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Only users who cannot log in
    #[arg(long)]
    disabled: bool,
}

/// Shows a user, and whether the policy knows the roles
#[derive(Args, Debug)]
pub struct Show {
    /// The user
    #[arg(value_parser = super::name)]
    name: Named,
    /// How the user is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Calls `each` for all users, in the order of account names.
pub fn for_each(opened: &Opened, mut each: impl FnMut(&User) -> Result<(), Exit>) -> Result<(), Exit> {
    let mut after = None;
    loop {
        let page = opened.run(opened.stores.users.list(after.as_ref(), PAGE))?;
        page.iter().try_for_each(&mut each)?;
        match page.last() {
            Some(last) if page.len() >= PAGE as usize => after = Some(last.account.clone()),
            _ => return Ok(()),
        }
    }
}

/// A user for programs; the password is named by the format of its hash.
pub fn json(user: &User) -> serde_json::Map<String, Value> {
    let fields = [
        ("id", json!(user.id)),
        ("username", json!(user.name)),
        ("email", json!(user.email)),
        ("roles", json!(user.roles)),
        ("scopes", json!(user.scopes)),
        ("tenant", json!(user.tenant)),
        ("disabled", json!(user.disabled)),
        ("password_format", json!(user.hash.as_ref().map(|hash| format(hash.expose())))),
        ("created", json!(rfc3339(user.created))),
        ("updated", json!(rfc3339(user.updated))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The format of a stored hash.
fn format(stored: &str) -> &'static str {
    PasswordHash::parse(stored).map_or("unreadable", |hash| hash.format())
}

fn state(user: &User) -> &'static str {
    match (user.disabled, &user.hash) {
        (true, _) => "disabled",
        (false, None) => "no password",
        (false, Some(_)) => "active",
    }
}

impl List {
    /// Runs the command.
    pub fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let terminal = context.terminal;
        let Some(opened) = Opened::open(&context.config, terminal, stores::Access::Read)? else {
            stores::nothing_yet(&context.config, terminal, "users");
            return Ok(Exit::Fine);
        };
        let wanted = |user: &User| {
            self.role.as_ref().is_none_or(|role| user.roles.contains(role)) && (!self.disabled || user.disabled)
        };
        let (mut all, mut rows) = (0_usize, Vec::new());
        for_each(&opened, |user| {
            all += 1;
            if !wanted(user) {
                return Ok(());
            }
            if self.format == Format::Json {
                terminal.out(format_args!("{}\n", Value::Object(json(user))));
                return Ok(());
            }
            rows.push([
                printable(&user.name),
                state(user).to_owned(),
                or_dash(printable(&user.roles.join(" "))),
                or_dash(printable(&user.scopes.join(" "))),
                or_dash(printable(user.tenant.as_deref().unwrap_or_default())),
                or_dash(printable(user.email.as_deref().unwrap_or_default())),
                moment(user.created),
            ]);
            Ok(())
        })?;
        if self.format == Format::Json {
            return Ok(Exit::Fine);
        }
        match (all, rows.is_empty()) {
            (0, _) => terminal.err("no users yet: `portcullis user add NAME` adds one\n"),
            (_, true) => terminal.err(format_args!("none of {all} users\n")),
            (_, false) => {
                terminal.out(table(["USER", "STATE", "ROLES", "SCOPES", "TENANT", "EMAIL", "ADDED (UTC)"], &rows));
            }
        }
        Ok(Exit::Fine)
    }
}

impl Show {
    /// Runs the command.
    pub fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let (opened, user) = context.user(&self.name)?;
        let sessions = opened.run(opened.stores.sessions.live(Some(&user.id), SystemClock.now(), PAGE))?;
        if self.format == Format::Json {
            let mut object = json(&user);
            object.insert("sessions".into(), json!(sessions.len()));
            context.terminal.out(format_args!("{}\n", Value::Object(object)));
            return Ok(Exit::Fine);
        }
        let beside = context.beside();
        let vocabulary = beside.vocabulary();
        let names = |names: &[String], is_known: &dyn Fn(&str) -> bool| {
            let names = names.iter().map(|name| {
                let mark = if is_known(name) { "" } else { " (not in the policy)" };
                format!("{}{mark}", printable(name))
            });
            or_dash(names.collect::<Vec<_>>().join(", "))
        };
        let password = match &user.hash {
            None => "none: nobody can log in".to_owned(),
            Some(hash) => match format(hash.expose()) {
                "unreadable" => "a hash that cannot be read: set a new one".to_owned(),
                format => format.to_owned(),
            },
        };
        let sessions = match sessions.len() {
            most if most >= PAGE as usize => format!("{most} or more"),
            number => number.to_string(),
        };
        let role = |name: &str| vocabulary.as_ref().is_none_or(|vocabulary| vocabulary.has_role(name));
        let scope = |name: &str| vocabulary.as_ref().is_none_or(|vocabulary| vocabulary.has_scope(name));
        for (title, value) in [
            ("user", printable(&user.name)),
            ("id", user.id.clone()),
            ("state", state(&user).to_owned()),
            ("email", or_dash(printable(user.email.as_deref().unwrap_or_default()))),
            ("roles", names(&user.roles, &role)),
            ("scopes", names(&user.scopes, &scope)),
            ("tenant", or_dash(printable(user.tenant.as_deref().unwrap_or_default()))),
            ("password", password),
            ("sessions", sessions),
            ("added", moment(user.created)),
            ("changed", moment(user.updated)),
        ] {
            context.terminal.out(format_args!(" {title:9} {value}\n"));
        }
        Ok(Exit::Fine)
    }
}
